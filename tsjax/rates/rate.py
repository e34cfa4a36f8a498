"""Fits of a risk curve: `fit_rate`, and the `Rate` that it returns."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ..display import card
from .diagnostics import ALARM, rate_warnings, tail_shares
from .intervals import FEW_SEEDS, Estimate, bca, expanded_percentiles, one_sided_p, student_quantile
from .models import AbstractModel, Method, PowerLaw, find_model, fit_model
from .table import (
    TAIL_SHARE,
    Numbers,
    Summary,
    Table,
    as_array,
    check_options,
    check_positive,
    check_positive_risks,
    make_table,
    plural,
    short,
)

IntervalKind = Literal["expanded", "bca", "delta"]


# More units are left out one by one in first order only: a table of all of them would be their number squared.
_MOST_REFITS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class Rate:
    """A model fitted to a risk curve, and the exponent of the power law in it; see `fit_rate`.

    **Fields:**

    - `exponent`, `interval`, `level`, `standard_error`: risk falls as n^{-exponent}; positive means falling.
      `interval_at` gives other levels and kinds of intervals.
    - `constant`: C of the model. `parameters`: all of them, with intervals.
    - `model`, `method`: what was fitted, and how. `theta` (p,), `theta_draws` (draws, p): its parameters, and those of
      every resample (NaN where a resample left some n without a positive mean).
    - `n`, `mean_risk`, `mean_se` (k,): the curve, with the standard error of each mean (NaN for a single seed).
    - `log_risk` (k,): what was fitted: log mean risk or, with `method="student"`, the typical log risk.
    - `present` (k,): how many seeds have a risk at each n; `missing` counts the others.
    - `variance` (k,): estimated variance of `log_risk`. `weights` (k,): those of the fit. `residuals` (k,): `log_risk` minus
      the fitted curve.
    - `local_slopes` (k-1,), `local_intervals` (k-1, 2): exponents between neighbouring n, at the same level.
    - `goodness`: p-value of "the model holds on the whole window": the share of resamples whose weighted sum of squared
      residuals (a chi-square) reaches the curve's own; small speaks against the model. The chi-square table would not do:
      shared seeds and estimated variances both break it. NaN with no more n than parameters, below 4 seeds, or seeds alike.
    - `drift`: how the local exponent changes from the first to the last n, by a quadratic through the curve, with a 99 %
      interval; None below 4 n or 4 seeds.
    - `tail_share` (k,): share of the mean carried by seeds above 10 times the median at that n.
    - `seeds`, `paired`, `seed`: the number of columns, whether they were resampled together, and the bootstrap's seed.
    - `units`: what was resampled: columns, or groups of them. `effective_seeds`: how many units the exponent rests on.
    - `delta_error`: the standard error by the delta method. `left_out`: the exponent without each unit (paired).
    - `warnings`: sentences to print beside the number.
    """

    exponent: float
    interval: tuple[float, float]
    level: float
    standard_error: float
    constant: float
    n: Float[np.ndarray, " k"]
    mean_risk: Float[np.ndarray, " k"]
    mean_se: Float[np.ndarray, " k"]
    log_risk: Float[np.ndarray, " k"]
    present: Int[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]
    variance: Float[np.ndarray, " k"]
    residuals: Float[np.ndarray, " k"]
    local_slopes: Float[np.ndarray, " k-1"]
    local_intervals: Float[np.ndarray, "k-1 2"]
    goodness: float
    drift: Estimate | None
    tail_share: Float[np.ndarray, " k"]
    seeds: int
    units: int
    paired: bool
    seed: int
    model: AbstractModel
    method: Method
    theta: Float[np.ndarray, " p"]
    theta_draws: Float[np.ndarray, "draws p"]
    effective_seeds: float
    delta_error: float
    table: Table = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def draws(self) -> Float[np.ndarray, " draws"]:
        """The exponent of every resample."""
        return self.theta_draws[:, 1]

    @property
    def window(self) -> tuple[float, float]:
        """The smallest and the largest n of the fit."""
        return float(self.n[0]), float(self.n[-1])

    @property
    def missing(self) -> int:
        """How many risks were NaN."""
        return int(self.seeds * len(self.n) - self.present.sum())

    @property
    def heavy_tail(self) -> bool:
        """Whether a few extreme seeds carry more than a fifth of the mean at some n."""
        return bool((self.tail_share > TAIL_SHARE).any())

    @property
    def parameters(self) -> dict[str, Estimate]:
        """All parameters of the model with intervals at `level`; `constant` stands for its logarithm."""
        found = {}
        for i, name in enumerate(self.model.parameters):
            log = name == "log_constant"
            value, draws = float(self.theta[i]), self.theta_draws[:, i]
            (low, high), _ = expanded_percentiles(draws[np.isfinite(draws)], value, self.effective_seeds, self.level)
            with np.errstate(over="ignore"):
                ends = (float(np.exp(low)), float(np.exp(high))) if log else (low, high)
            found["constant" if log else name] = Estimate(float(np.exp(value)) if log else value, ends, self.level)
        return found

    def interval_at(self, level: float | None = None, kind: IntervalKind = "expanded") -> tuple[float, float]:
        """The exponent's interval at another level, or of another kind.

        - `expanded`: percentiles of the resamples at widened levels, the default of `interval`.
        - `bca`: Efron's bias-corrected and accelerated percentiles; too narrow below about 16 seeds.
        - `delta`: exponent +- t `delta_error`, with `effective_seeds` - 1 degrees of freedom.
        """
        level = self.level if level is None else level
        check_options(level)
        draws = self.draws[np.isfinite(self.draws)]
        if kind == "expanded":
            return expanded_percentiles(draws, self.exponent, self.effective_seeds, level)[0]
        if kind == "delta":
            if self.effective_seeds < 1.5:
                return -np.inf, np.inf
            reach = student_quantile(self.effective_seeds, level) * self.delta_error
            return self.exponent - reach, self.exponent + reach
        if kind != "bca":
            raise ValueError(f"no interval of kind {kind!r}. Allowed: expanded, bca, delta.")
        return bca(draws, self.exponent, self.left_out, level)

    @property
    def left_out(self) -> np.ndarray:
        """The exponent without each unit (units,), of more than 1000 units infinitesimally; unpaired without each single risk
        (k * units,), infinitesimally."""
        typical = self.method == "student"
        if not self.paired or self.units > _MOST_REFITS:
            influence = _coefficients(self)[:, None] * self.table.influence(typical)
            return self.exponent - (influence.sum(axis=0) if self.paired else influence.ravel())
        counts = 1.0 - np.eye(self.units)
        summary = self.table.typical(counts) if typical else self.table.means(counts)
        theta, _ = fit_model(
            self.model, self.n, summary.log_mean, weights_of(summary, self.method), self.method, self.theta
        )
        return theta[:, 1]

    def p_value(self, bound: float, side: Literal["above", "below"]) -> float:
        """One-sided p-value of "the exponent is above `bound`" (against at or below it), or "below"; it is at most alpha
        exactly where the interval of level 1 - 2 alpha excludes the bound."""
        return one_sided_p(self.draws, bound, self.effective_seeds, 1 if side == "above" else -1)

    def predict(self, n: Numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The fitted curve at n (j,), and the ends of its interval at `level`, each (j,), also beyond the window."""
        x = as_array(n, "n")
        check_positive(x, "n", "A power law has no point there; leave it out.")
        curve = self.model.evaluate(self.theta, x)[0]
        draws = self.model.evaluate(self.theta_draws, x)[0]
        ends = [
            expanded_percentiles(d[np.isfinite(d)], float(v), self.effective_seeds, self.level)[0]
            for d, v in zip(draws.T, curve, strict=True)
        ]
        low, high = np.exp(np.array(ends).reshape(-1, 2)).T
        return np.exp(curve), low, high

    def slope_of(self, values: Numbers) -> float:
        """The exponent that this fit would find in another curve on the same n: same model, same weights.

        Predicted curves bend, so their slope depends on the weights; this one compares like with like. `values` (k,)
        are in the order of `n`. Raises ValueError unless they are finite and positive, one for each n.
        """
        y = as_array(values, "values")
        if y.shape != self.n.shape:
            raise ValueError(
                f"values must hold one number for each of the {len(self.n)} n of this fit, shape {self.n.shape}; "
                f"got shape {y.shape}. Evaluate the curve at rate.n."
            )
        check_positive(y, "values", "Leave the points at or below zero out of the measured fit too.")
        return float(fit_model(self.model, self.n, np.log(y), self.weights, self.method)[0][1])

    def minus(self, other: "Rate") -> Estimate:
        """The difference of two exponents, self - other, with an interval that uses the pairing of the seeds.

        Both fits must be paired and have equal `units`, `seed`, `level` and number of draws: then draw b of both used
        the same seeds, and what the two learners share (data, teachers) cancels. The n may differ.
        Raises ValueError otherwise.
        """
        self.check_paired_with(other)
        return contrast(self, other, self.exponent - other.exponent, self.draws - other.draws)

    def over(self, other: "Rate") -> Estimate:
        """The ratio of two exponents, self / other, with its interval, as `minus`; infinite ends where the divisor's
        exponent may be 0."""
        self.check_paired_with(other)
        return ratio_of(self, other)

    def check_paired_with(self, other: "Rate") -> None:
        """Raises ValueError unless draw b of both fits used the same seeds."""
        mine, theirs = ((r.units, r.seed, r.level, len(r.draws)) for r in (self, other))
        if not (self.paired and other.paired) or mine != theirs:
            raise ValueError(
                "only fits that were resampled alike can be subtracted: both paired, with equal (seeds, seed, level, "
                f"draws); got {mine} paired={self.paired} and {theirs} paired={other.paired}. Refit them alike."
            )

    def plot(self, axes: np.ndarray | None = None) -> np.ndarray:
        """Draws the curve with its fit and band, the residuals, and the local exponents with bands, in three panels.

        Returns the matplotlib axes (3,); `axes` (3,) draws into those.
        """
        from .plot import plot_rate

        return plot_rate(self, axes)

    def __str__(self) -> str:
        notes = plural(self.seeds, "seed")
        if self.units != self.seeds:
            notes += f" in {plural(self.units, 'group')}"
        if not isinstance(self.model, PowerLaw):
            notes += f", {self.model.formula}"
        if self.method != "wls":
            notes += f", {self.method}"
        if self.warnings:
            notes += f", {plural(len(self.warnings), 'warning')}"
        low, high = self.interval
        return f"{self.exponent:.3f} [{low:.3f}, {high:.3f}] over n = {short(self.n[0])}..{short(self.n[-1])} ({notes})"

    def _repr_html_(self) -> str:
        low, high = self.interval
        entries = {
            "exponent": f"{self.exponent:.3f}, {100 * self.level:g} % interval [{low:.3f}, {high:.3f}]",
            "model": f"{self.model.formula}, {self.method}",
            "window": f"n = {short(self.n[0])}..{short(self.n[-1])}, {plural(self.seeds, 'seed')}",
            "local exponents": ", ".join(f"{slope:.2f}" for slope in self.local_slopes),
        }
        if np.isfinite(self.goodness):
            entries["fit"] = f"p = {self.goodness:.2g} (small speaks against the model)"
        return card("Rate: risk falls as n to the power -exponent", entries, self.warnings)

    def __repr__(self) -> str:
        # Whoever looks at a rate sees what to know before quoting it.
        return "\n".join([f"Rate({self})", *(f"  ! {text}" for text in self.warnings)])


def fit_rate(
    n: Numbers,
    risks: Numbers,
    *,
    model: str | AbstractModel = "power",
    method: Method = "wls",
    groups: Numbers | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> Rate:
    r"""Fits log risk = log of a model, by default log mean risk = log C - exponent log n.

    By weighted least squares with weights 1 / var(log mean), where var(log mean) = var(mean) / mean^2 (delta method); an n
    with a single seed takes the average relative variance of the others, and no variance counts as less than a
    thousandth of that average. The interval resamples seeds: draw b takes the columns
    `np.random.default_rng(seed).integers(seeds, size=(draws, seeds))[b]` at every n (`paired`) or, with
    `size=(k, draws, seeds)`, other columns at every n, and refits means, weights and model. Its ends are expanded
    percentiles (`tsjax.rates.intervals`), with the effective number of seeds for s (`Table.variance_of`: all of them when
    none is missing). Below 4 seeds at some n it is exponent +- t_{s-1} standard errors, which over-covers; with one seed it
    is infinite. Independent columns make it too wide below 8 seeds.

    **Arguments:**

    - `n`: (k,) sample sizes, or any other positive axis (width, steps, dimension); strictly increasing, k >= 2.
    - `risks`: (k, seeds); NaN marks a risk that is missing. Means are over the seeds that are there; `missing` and
      `warnings` say how many are not. A failed student left out makes its curve look better than it is.
    - `model`: a name in `tsjax.rates.MODELS`, or a model such as `FiniteSample(scale=m * d)`.
    - `method`: `wls`, as above; `gamma`, maximum likelihood when risks are gamma with a common shape at all n (chi-square
      risks of efficient students), which weights an n by its number of seeds; `student`, maximum likelihood of the typical
      risk at each n under Student's law with 4 degrees of freedom for log risks, then weighted least squares: failed seeds
      barely move it, and it says nothing about mean risk.
    - `groups`: (seeds,) labels, where columns come in groups that share something (several data sets of one teacher): then
      groups are resampled, whole, and the variance is that between groups (Davison & Hinkley 1997, section 3.8).
    - `level`: of the interval.
    - `draws`: number of resamples, at least 100.
    - `seed`: of the resampling. Equal seeds give equal resamples, so that draws of two fits subtract pair by pair.
    - `paired`: whether column j is one seed at all n (shared teacher or data), the engine's design.

    **Returns:** a `Rate`.

    **Raises:** ValueError for shapes that do not fit, n not positive or not increasing, infinite risks, an n without
    risks, a mean risk that is not positive, an unknown model or method, fewer n than the model has parameters.

    >>> n = 2.0 ** np.arange(7, 13)
    >>> risks = 1 / n[:, None] * np.random.default_rng(0).chisquare(15, (6, 64)) / 15
    >>> rate = ts.fit_rate(n, risks)
    >>> print(rate)
    1.000 [0.968, 1.033] over n = 128..4096 (64 seeds)
    >>> rate.window
    (128.0, 4096.0)
    """
    check_options(level, draws)
    return fit_table(make_table(n, risks, groups), find_model(model), method, level, draws, seed, paired)


def fit_table(
    table: Table, model: AbstractModel, method: Method, level: float, draws: int, seed: int, paired: bool
) -> Rate:
    """`fit_rate` of a checked table."""
    if method not in ("wls", "gamma", "student"):
        raise ValueError(f"no method {method!r}. Allowed: wls, gamma, student.")
    model.check(table.x)
    typical = method == "student"
    if typical:
        check_positive_risks(table)
    summarise = table.typical if typical else table.means
    x, k = table.x, len(table.x)
    data = summarise()
    weights = weights_of(data, method)
    theta, _ = fit_model(model, x, data.log_mean, weights, method)
    if not np.isfinite(theta).all():
        raise ValueError(f"the model {model.name!r} could not be fitted to this curve; choose a simpler one.")
    log_fit, jacobian = model.evaluate(theta, x)
    residuals = data.log_mean - log_fit

    resampled = summarise(table.resamples(draws, seed, paired))
    # A resample without any seed, or without a positive mean, at some n has no fit.
    good = np.isfinite(resampled.log_mean).all(axis=1)
    theta_draws = np.full((draws, len(theta)), np.nan)
    kept = resampled if good.all() else type(resampled)(*(part[good] for part in resampled))
    theta_draws[good] = fit_model(model, x, kept.log_mean, weights_of(kept, method), method, theta)[0]
    fitted = np.isfinite(theta_draws[good, 1])

    # Row 1 of (J' W J)^{-1} J' W: how the exponent follows log mean risks.
    coefficients = _rows_of_fit(jacobian, weights)[1]
    variance, effective = table.variance_of(coefficients, paired, typical)
    least = float(table.units_present.min())
    effective = effective if least >= FEW_SEEDS else min(effective, least)
    exponent = float(theta[1])
    exponents = theta_draws[good, 1][fitted]
    interval, standard_error = expanded_percentiles(exponents, exponent, effective, level)

    step = np.diff(np.log(x))
    local = -np.diff(data.log_mean) / step
    local_draws = -np.diff(kept.log_mean, axis=1) / step
    complete = paired and bool(table.there.all())
    local_intervals = []
    for i in range(k - 1):
        s = effective
        if not complete:
            pair = np.zeros(k)
            pair[i : i + 2] = 1.0
            s = min(table.variance_of(pair, paired, typical)[1], np.inf if least >= FEW_SEEDS else least)
        local_intervals.append(expanded_percentiles(local_draws[:, i], float(local[i]), s, level)[0])

    spread = table.relative_spread
    goodness, drift = float("nan"), None
    if least >= FEW_SEEDS and spread.max() > 0.0 and fitted.any():
        if k > len(theta):
            goodness = _goodness(
                model, x, kept.log_mean[fitted], theta_draws[good][fitted], residuals, data.variance, least
            )
        if k > 3 and isinstance(model, PowerLaw):
            u = np.log(x)
            bend = _rows_of_fit(np.stack([np.ones(k), u, u * u], axis=-1), weights)[2] * -2.0 * (u[-1] - u[0])
            value = float(bend @ data.log_mean)
            drift = Estimate(
                value, expanded_percentiles(kept.log_mean @ bend, value, effective, 1.0 - ALARM)[0], 1.0 - ALARM
            )

    tails = tail_shares(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        number = table.units_present
        squares = (table.influence(False) ** 2).sum(axis=1) * number / (number - 1.0)
        mean_se = np.where(number > 1, table.mean * np.sqrt(squares), np.nan)
    return Rate(
        exponent=exponent,
        interval=interval,
        level=float(level),
        standard_error=standard_error,
        constant=float(np.exp(theta[0])),
        n=x,
        mean_risk=table.mean,
        mean_se=mean_se,
        log_risk=data.log_mean,
        present=table.present,
        weights=weights,
        variance=data.variance,
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
        delta_error=float(np.sqrt(variance)) if least > 1 else np.inf,
        table=table,
        warnings=rate_warnings(
            table,
            tails=tails,
            goodness=goodness,
            drift=None if drift is None else (drift.value, *drift.interval),
            model=model.name,
            lost_draws=draws - len(exponents),
            grouped=table.number < table.risks.shape[1],
        ),
    )


def weights_of(summary: Summary, method: Method) -> np.ndarray:
    """The weights of a fit: 1 / variance, or the number of risks."""
    return summary.size if method == "gamma" else 1.0 / summary.variance


def _rows_of_fit(jacobian: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(J' W J)^{-1} J' W, shape (p, k), with columns scaled so that nearly collinear ones survive."""
    root = np.sqrt(weights / weights.sum())
    scaled = jacobian * root[:, None]
    size = np.sqrt((scaled**2).sum(axis=0))
    size = np.where(size > 0, size, 1.0)
    return np.linalg.pinv(scaled / size, rcond=1e-12) * root / size[:, None]


def _coefficients(rate: Rate) -> np.ndarray:
    return _rows_of_fit(rate.model.evaluate(rate.theta, rate.n)[1], rate.weights)[1]


def _goodness(model, x, log_means, thetas, residuals, variance, least: float) -> float:
    """Centred at the fit's own residuals, the resamples show what scatter alone would do. Weights stay those of the data:
    refitted ones would make the statistic's null distribution far too wide at few seeds."""
    scatter = log_means - model.evaluate(thetas, x)[0] - residuals
    excess = (scatter**2 / variance).sum(axis=1) * least / (least - 1.0)
    return float((excess >= (residuals**2 / variance).sum()).mean())


def contrast(a: Rate, b: Rate, value: float, draws: np.ndarray) -> Estimate:
    """A number made of two fits, from its draws, with the warnings of both."""
    (low, high), _ = expanded_percentiles(
        draws[~np.isnan(draws)], value, min(a.effective_seeds, b.effective_seeds), a.level
    )
    warnings = [f"{name}: {text}" for name, fit in (("a", a), ("b", b)) for text in fit.warnings]
    return Estimate(value, (low, high), a.level, tuple(warnings))


def ratio_of(a: Rate, b: Rate) -> Estimate:
    """a.exponent / b.exponent; see `Rate.over`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = contrast(a, b, float(np.divide(a.exponent, b.exponent)), a.draws / b.draws)
    low, high = b.interval
    if low <= 0.0 <= high:
        note = "the divisor's exponent may be 0, so the ratio has no bounded interval."
        return Estimate(estimate.value, (-np.inf, np.inf), a.level, (*estimate.warnings, note))
    return estimate
