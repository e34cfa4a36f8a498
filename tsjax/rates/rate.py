"""Fits of a risk curve: `fit_rate`."""

import numpy as np

from .checks import Numbers, check_options
from .diagnostics import ALARM, rate_warnings, tail_shares
from .fitted import Rate as Rate
from .fitted import contrast as contrast
from .fitted import weights_of as weights_of
from .fitting import fit_model
from .intervals import FEW_SEEDS, Estimate, expanded_percentiles, student_quantile
from .linear import rows_of_fit
from .losses import Method, find_method, is_typical
from .models import AbstractModel, PowerLaw, find_model
from .residuals import Errors, find_errors, lack_of_fit, residual_draws, scatter_of
from .table import Summary, Table, check_positive_risks, make_table


def fit_rate(
    n: Numbers,
    risks: Numbers,
    *,
    model: str | AbstractModel = "power",
    method: Method = "wls",
    errors: Errors = "auto",
    groups: Numbers | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> Rate:
    r"""Fits log risk = log of a model, by default log mean risk = log C - exponent log n.

    The fit is by weighted least squares with weights 1 / var(log mean), where var(log mean) = var(mean) / mean^2 (delta
    method). An n with a single seed takes the average relative variance of the others, and no variance counts as less than a
    thousandth of that average. The interval resamples seeds: draw b takes the columns
    `np.random.default_rng(seed).integers(seeds, size=(draws, seeds))[b]` at every n (`paired`) or, with `size=(k, draws,
    seeds)`, different columns at each n (not `paired`), and refits means, weights and model, from all of the model's starts.
    Its ends are expanded percentiles (`tsjax.rates.intervals`), where s is the effective number of seeds (`Table.variance_of`),
    which is all of them if no risk is missing. Below 4 seeds at some n it is exponent +- t_{s-1} standard errors, which covers
    more than stated. If not `paired`, the interval is too wide below 8 seeds.

    With one seed at every n, all points have the same weight, and the interval comes from their scatter about the curve, by the
    residual bootstrap (`errors`).

    An end of the interval is infinite if the data do not bound the exponent there (`Rate.identified`).

    **Arguments:**

    - `n`: (k,) sample sizes, or any other positive axis (width, steps, dimension); strictly increasing, k >= 2.
    - `risks`: (k, seeds); NaN marks a missing risk. Means are over the seeds present; `missing` and `warnings` say how many are
      not. Leaving out failed students makes their curve look better than it is.
    - `model`: a name in `tsjax.rates.MODELS`, or a model such as `FiniteSample(scale=m * d)`. Its `meaning` says which exponent
      it has.
    - `method`: `wls`, as above; `gamma`, maximum likelihood when risks are gamma with a common shape at all n (chi-square risks
      of efficient students), which weights an n by its number of seeds; `student_t`, maximum likelihood of the typical risk at
      each n under Student's law with 4 degrees of freedom for log risks, then weighted least squares, where failed seeds hardly
      matter, but which says nothing about mean risk; `Huber(delta)`, or `huber` for its default, Huber's loss of the distances
      of log mean risks from the curve, so that a few n far from the curve hardly matter.
    - `errors`: the source of the interval. `seeds`, as above; `residuals` or `wild`, the residual or the wild bootstrap of the
      points about the curve (`tsjax.rates.residuals`), which assume that the model holds; `auto`, residuals if no n has more
      than one seed, and seeds otherwise.
    - `groups`: (seeds,) labels, if columns come in groups that share something, such as several data sets of one teacher. Whole
      groups are then resampled, and the variance is that between groups (Davison & Hinkley 1997, section 3.8).
    - `level`: the confidence level of the interval.
    - `draws`: number of resamples, at least 100.
    - `seed`: the seed of the resampling. Equal seeds give equal resamples, so that the draws of two fits are paired.
    - `paired`: whether column j is the same seed at all n (shared teacher or data), as in sweeps.

    **Returns:** a `Rate`.

    **Raises:** ValueError for shapes that do not fit, n not positive or not increasing, infinite risks, an n without
    risks, a mean risk that is not positive, an unknown model, method or errors, fewer n than the model has parameters.

    >>> n = 2.0 ** np.arange(7, 13)
    >>> risks = 1 / n[:, None] * np.random.default_rng(0).chisquare(15, (6, 64)) / 15
    >>> rate = ts.fit_rate(n, risks)
    >>> print(rate)
    1.000 [0.968, 1.033] over n = 128..4096 (64 seeds)
    >>> rate.window
    (128.0, 4096.0)
    """
    check_options(level, draws)
    return fit_table(make_table(n, risks, groups), find_model(model), method, level, draws, seed, paired, errors)


def fit_table(
    table: Table,
    model: AbstractModel,
    method: Method,
    level: float,
    draws: int,
    seed: int,
    paired: bool,
    errors: Errors = "auto",
) -> Rate:
    """`fit_rate` for a checked table."""
    method, errors = find_method(method), find_errors(errors, table)
    model.check(table.x)
    typical = is_typical(method)
    if typical:
        check_positive_risks(table)
    summarise = table.typical if typical else table.means
    x, k, p = table.x, len(table.x), len(model.parameters)
    data = summarise()
    weights = weights_of(data, method)
    theta, _ = fit_model(model, x, data.log_mean, weights, method)
    if not np.isfinite(theta).all():
        raise ValueError(f"the model {model.name!r} could not be fitted to this curve; choose a simpler one.")
    log_fit, jacobian = model.evaluate(theta, x)
    residuals = data.log_mean - log_fit
    exponent = float(model.exponents(theta, x))
    least = float(table.units_present.min())

    gradient = model.exponent_gradient(theta, x)
    scatter = scatter_of(exponent, residuals, jacobian, weights, errors, gradient)
    if errors == "seeds":
        kept, good = _usable(summarise(table.resamples(draws, seed, paired)))
        # The derivatives of the exponent in log mean risks come from (J' W J)^{-1} J' W.
        delta, effective = table.variance_of(gradient @ rows_of_fit(jacobian, weights), paired, typical)
        delta_error = float(np.sqrt(delta)) if least > 1 else np.inf
        effective = effective if least >= FEW_SEEDS else min(effective, least)
        variance, refit_weights = data.variance, weights_of(kept, method)
        log_means, about = kept.log_mean, data.log_mean
    else:
        good = np.ones(draws, bool)
        effective, delta_error, variance, refit_weights = (
            scatter.freedom + 1.0,
            scatter.error,
            scatter.variance,
            weights,
        )
        log_means, about = residual_draws(log_fit, scatter, weights, errors, draws, seed), log_fit
    # A resample without any seed, or without a positive mean, at some n has no fit.
    theta_draws = np.full((draws, p), np.nan)
    theta_draws[good] = fit_model(model, x, log_means, refit_weights, method)[0]
    fitted = np.isfinite(theta_draws[good, 1])
    exponents = model.exponents(theta_draws[good][fitted], x)
    interval, standard_error = expanded_percentiles(exponents, exponent, effective, level)

    # Resampled local exponents scatter about those of the curve that was resampled.
    step = np.diff(np.log(x))
    local = -np.diff(data.log_mean) / step
    local_draws = local - np.diff(log_means - about, axis=1) / step
    local_intervals = [
        expanded_percentiles(local_draws[:, i], float(local[i]), s, level)[0]
        for i, s in enumerate(_local_seeds(table, effective, errors == "seeds", paired, typical))
    ]

    goodness, drift = float("nan"), None
    if errors == "seeds":
        if least >= FEW_SEEDS and table.relative_spread.max() > 0.0 and fitted.any():
            if k > p:
                goodness = _goodness(
                    model, x, log_means[fitted], theta_draws[good][fitted], residuals, data.variance, least
                )
            if k > 3 and isinstance(model, PowerLaw):
                bend = _bend(x, weights)
                value = float(bend @ data.log_mean)
                ends, _ = expanded_percentiles(log_means @ bend, value, effective, 1.0 - ALARM)
                drift = Estimate(value, ends, 1.0 - ALARM)
    else:
        u = np.log(x) - np.log(x).mean()
        goodness = lack_of_fit(residuals, jacobian, weights, u[:, None] ** p)
        if k > 4 and isinstance(model, PowerLaw):
            drift = _residual_drift(x, data.log_mean, weights)

    tails = tail_shares(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        number = table.units_present
        squares = (table.influence(False) ** 2).sum(axis=1) * number / (number - 1.0)
        mean_se = np.where(number > 1, table.mean * np.sqrt(squares), np.nan)
    with np.errstate(over="ignore"):
        constant = float(np.exp(theta[0]))
    # With too few units, or degrees of freedom, an infinite interval does not mean that the curve leaves the exponent open.
    identified = effective < 1.5 or not len(exponents) or bool(np.isfinite([exponent, *interval]).all())
    return Rate(
        exponent=exponent,
        interval=interval,
        level=float(level),
        standard_error=standard_error,
        constant=constant,
        n=x,
        mean_risk=table.mean,
        mean_se=mean_se,
        log_risk=data.log_mean,
        present=table.present,
        weights=weights,
        variance=variance,
        residuals=residuals,
        local_slopes=local,
        local_intervals=np.array(local_intervals),
        goodness=goodness,
        drift=drift,
        tail_share=tails,
        seeds=table.risks.shape[1],
        units=table.number,
        paired=paired,
        seed=seed,
        model=model,
        method=method,
        theta=theta,
        theta_draws=theta_draws,
        effective_seeds=effective,
        delta_error=delta_error,
        identified=identified,
        errors=errors,
        freedom=scatter.freedom,
        table=table,
        warnings=rate_warnings(
            table,
            tails=tails,
            goodness=goodness,
            drift=None if drift is None else (drift.value, *drift.interval),
            model=model.name,
            lost_draws=draws - len(exponents),
            grouped=table.number < table.risks.shape[1],
            open_interval=None if identified else interval,
            errors=errors,
            scatter=scatter,
            local=not model.asymptotic,
        ),
    )


def _usable(resampled: Summary) -> tuple[Summary, np.ndarray]:
    """The resamples (kept, k) with a positive mean at every n, and a mask of them among all (draws,)."""
    good = np.asarray(np.isfinite(resampled.log_mean).all(axis=1))
    return (resampled if good.all() else Summary(*(part[good] for part in resampled))), good


def _local_seeds(table: Table, effective: float, from_seeds: bool, paired: bool, typical: bool) -> list[float]:
    """The effective number of units behind each local exponent (k-1,)."""
    k, least = len(table.x), float(table.units_present.min())
    if not from_seeds or (paired and bool(table.there.all())):
        return [effective] * (k - 1)
    pairs = np.eye(k)[:-1] + np.eye(k)[1:]
    most = np.inf if least >= FEW_SEEDS else least
    return [min(table.variance_of(pair, paired, typical)[1], most) for pair in pairs]


def _bend(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The change of the local exponent over the window, by a quadratic fit, as coefficients (k,) of log risks."""
    u = np.log(x)
    return rows_of_fit(np.stack([np.ones(len(x)), u, u * u], axis=-1), weights)[2] * -2.0 * (u[-1] - u[0])


def _residual_drift(x: np.ndarray, log_risk: np.ndarray, weights: np.ndarray) -> Estimate:
    """The drift with Student's interval from the scatter about the quadratic."""
    bend, freedom = _bend(x, weights), len(x) - 3
    u = np.log(x) - np.log(x).mean()
    columns = np.stack([np.ones(len(x)), u, u * u], axis=-1)
    w = weights / weights.mean()
    residuals = log_risk - columns @ (rows_of_fit(columns, weights) @ log_risk)
    error = np.sqrt((bend**2 / w).sum() * (w * residuals**2).sum() / freedom)
    value, reach = float(bend @ log_risk), student_quantile(freedom + 1, 1.0 - ALARM) * float(error)
    return Estimate(value, (value - reach, value + reach), 1.0 - ALARM)


def _goodness(model, x, log_means, thetas, residuals, variance, least: float) -> float:
    """See `Rate.goodness`. Resamples, centred at the fit's own residuals, give the distribution under scatter alone. Weights
    stay those of the data: refitted ones would make the null distribution far too wide with few seeds."""
    scatter = log_means - model.evaluate(thetas, x)[0] - residuals
    excess = (scatter**2 / variance).sum(axis=1) * least / (least - 1.0)
    return float((excess >= (residuals**2 / variance).sum()).mean())
