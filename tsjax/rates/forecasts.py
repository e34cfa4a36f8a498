"""Predictions of a fit at other n, their scores at larger n, and the n at which the fit reaches a risk."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .checks import Numbers, check_options
from .intervals import Estimate, expanded_percentiles, last_fall, student_quantile
from .losses import Method, is_typical
from .models import AbstractModel, find_model
from .rate import Rate, fit_table
from .residuals import Errors
from .table import make_table


@dataclass(frozen=True, eq=False)
class Forecast:
    """A prediction and, if the risk was measured there, its score.

    - `n`; `predicted` mean risk and the `interval` that the mean of `seeds` new seeds should fall into.
    - `measured`: the measured mean risk, or NaN; `inside`: whether it lies in the interval.
    - `ratio`: measured / predicted, with an interval that uses the pairing (with one seed at every n, the interval of the
      forecast); None if not measured.
    - `rate`: the fit that predicts.
    """

    n: float
    predicted: float
    interval: tuple[float, float]
    seeds: int
    rate: Rate
    measured: float = float("nan")
    ratio: Estimate | None = None

    @property
    def inside(self) -> bool:
        """Whether the measured mean lies in the prediction interval."""
        return self.interval[0] <= self.measured <= self.interval[1]


def forecast(rate: Rate, n: float, *, seeds: int | None = None, level: float | None = None) -> Forecast:
    """The mean risk of `seeds` new seeds (by default as many as the fit has) at n, inside the window or beyond it.

    The interval of log risk is log f(n) +- t sqrt(var log f + v / seeds), with the variance of the fitted curve over resamples
    and the average relative variance v of one risk (from residuals: their variance); t has the degrees of freedom of the
    exponent. The interval assumes the model: it does not cover a curve that bends beyond the window.
    """
    level = rate.level if level is None else level
    check_options(level)
    if not 0.0 < n < np.inf:
        raise ValueError(f"n must be finite and positive, got {n:g}.")
    seeds = rate.units if seeds is None else seeds
    if seeds < 1:
        raise ValueError(f"a mean is over at least one seed, got seeds={seeds}.")
    value, error, s = log_forecast(rate, n, seeds, level)
    reach = student_quantile(s, level) * error if s > 1.5 else np.inf
    return Forecast(
        float(n), float(np.exp(value)), (float(np.exp(value - reach)), float(np.exp(value + reach))), seeds, rate
    )


def log_forecast(rate: Rate, n: float, seeds: int, level: float) -> tuple[float, float, float]:
    """The log of the risk that a fit predicts at n, the standard error of log mean risk over `seeds` new seeds about it, and
    the effective number of seeds."""
    at = np.array([float(n)])
    value = float(rate.model.evaluate(rate.theta, at)[0][0])
    draws = rate.model.evaluate(rate.theta_draws, at)[0][:, 0]
    s = rate.effective_seeds
    _, error = expanded_percentiles(draws[np.isfinite(draws)], value, s, level)
    one = float((rate.variance * rate.table.units_present).mean())
    return value, float(np.sqrt(error**2 + one / seeds)), s


@dataclass(frozen=True, eq=False)
class AveragedForecast:
    """A forecast averaged over models; see `ModelChoice.forecast`.

    - `n`; `predicted`, the weighted geometric mean of the models' predictions; `interval` at `level`.
    - `weights` of the models, and their own forecasts `by_model`.
    - `spread`: the variance of the log prediction between models.
    """

    n: float
    predicted: float
    interval: tuple[float, float]
    level: float
    weights: dict[str, float]
    by_model: dict[str, Forecast]
    spread: float


def average_forecasts(
    rates: Mapping[str, Rate], weights: Mapping[str, float], n: float, seeds: int | None, level: float | None
) -> AveragedForecast:
    """Forecasts of several fits of one curve, averaged with weights that add up to 1; see `ModelChoice.forecast`."""
    from scipy.special import ndtri

    each = {name: forecast(rate, n, seeds=seeds, level=level) for name, rate in rates.items()}
    first = next(iter(rates.values()))
    level = first.level if level is None else level
    parts = [log_forecast(rate, n, each[name].seeds, level) for name, rate in rates.items()]
    value, error, units = np.array(parts).T
    w = np.array([weights[name] for name in rates])
    # A model whose curve is not positive at n makes no prediction there.
    known = np.isfinite(value)
    if not w[known].sum() > 0:
        raise ValueError(f"no model that has weight has a positive risk at n = {n:g}; forecast nearer to the window.")
    w = np.where(known, w, 0.0) / w[known].sum()
    value, error = np.where(known, value, 0.0), np.where(known, error, 0.0)
    z = float(ndtri(0.5 + level / 2))
    middle = float(w @ value)
    apart = (value - middle) ** 2
    tails = np.array([student_quantile(s, level) / z if s > 1.5 else np.inf for s in units])
    reach = z * float(w @ np.sqrt(np.where(w > 0, (tails * error) ** 2 + apart, 0.0)))
    return AveragedForecast(
        n=float(n),
        predicted=float(np.exp(middle)),
        interval=(float(np.exp(middle - reach)), float(np.exp(middle + reach))),
        level=float(level),
        weights=dict(zip(rates, w.tolist(), strict=True)),
        by_model=each,
        spread=float(w @ apart),
    )


def score_forecast(
    n: Numbers,
    risks: Numbers,
    *,
    hold_out: int = 1,
    model: str | AbstractModel = "power",
    method: Method = "wls",
    errors: Errors = "auto",
    groups: Numbers | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> tuple[Forecast, ...]:
    """Fits without the `hold_out` largest n, and compares the forecast at each of them with what was measured there.

    **Raises:** ValueError as `fit_rate` does, or if too few n are left.
    """
    check_options(level, draws)
    table = make_table(n, risks, groups)
    found = find_model(model)
    left = len(table.x) - hold_out
    if hold_out < 1 or left < max(2, len(found.parameters)):
        raise ValueError(
            f"holding out {hold_out} of {len(table.x)} n leaves {left}; hold out at least 1, and leave the model "
            f"{found.name!r} {max(2, len(found.parameters))} or more."
        )
    rate = fit_table(table.keep(np.arange(left)), found, method, level, draws, seed, paired, errors)
    whole = table.typical if is_typical(method) else table.means
    from_seeds = rate.errors == "seeds"
    data, resampled = whole(), whole(table.resamples(draws, seed, True)) if paired and from_seeds else None
    scores = []
    for i in range(left, len(table.x)):
        one = forecast(rate, float(table.x[i]), seeds=int(table.units_present[i]), level=level)
        ratio, measured = None, float(np.exp(data.log_mean[i]))
        if not from_seeds:
            # The new point has an error of its own, which the interval of the forecast includes.
            ends = (measured / one.interval[1], measured / one.interval[0]) if one.interval[0] > 0 else (0.0, np.inf)
            ratio = Estimate(measured / one.predicted, ends, level, rate.warnings, "log")
        if resampled is not None:
            at = table.x[i : i + 1]
            shift = resampled.log_mean[:, i] - rate.model.evaluate(rate.theta_draws, at)[0][:, 0]
            value = float(data.log_mean[i] - np.log(one.predicted))
            ends, _ = expanded_percentiles(shift[np.isfinite(shift)], value, rate.effective_seeds, level)
            ratio = Estimate(
                float(np.exp(value)), (float(np.exp(ends[0])), float(np.exp(ends[1]))), level, rate.warnings, "log"
            )
        scores.append(Forecast(one.n, one.predicted, one.interval, one.seeds, rate, measured, ratio))
    return tuple(scores)


# The fitted curve is evaluated at _POINTS points from a thousandth of the smallest n to _REACH times the largest.
_REACH, _POINTS = 1e6, 800


def needed_n(rate: Rate, risk: float, *, level: float | None = None) -> Estimate:
    """The n from which on the fitted mean risk stays below `risk`, with its interval: f(n) = risk is solved for every resample
    of the fit, by linear interpolation of log f in log n on a fine grid.

    It is infinite if the curve levels off above `risk`, or has not reached it at a million times the largest n. It assumes the
    model, as `forecast` does, and is about the mean, not about one run.

    **Raises:** ValueError for a risk that is not finite and positive.

    >>> n = 2.0 ** np.arange(7, 13)
    >>> rate = ts.fit_rate(n, 1 / n[:, None] * np.random.default_rng(0).chisquare(15, (6, 64)) / 15)
    >>> print(ts.needed_n(rate, 1e-4))  # planted: 10 000
    9801 [8946, 10760]
    """
    level = rate.level if level is None else level
    check_options(level)
    if not 0.0 < risk < np.inf:
        raise ValueError(f"risk must be finite and positive, got {risk:g}; a power law reaches no other value.")
    u = np.linspace(np.log(rate.n[0] / 1e3), np.log(rate.n[-1] * _REACH), _POINTS)

    def solve(theta: np.ndarray) -> np.ndarray:
        # Where a curve with a negative floor has no logarithm, it is below any risk.
        log_risk = rate.model.evaluate(theta, np.exp(u))[0]
        return last_fall(u, np.where(np.isnan(log_risk), -np.inf, log_risk) - np.log(risk))

    value = float(solve(rate.theta[None])[0])
    found = solve(rate.theta_draws[np.isfinite(rate.theta_draws).all(axis=1)])
    low, high = expanded_percentiles(found, value, rate.effective_seeds, level)[0]
    with np.errstate(over="ignore"):
        return Estimate(
            float(np.exp(value)), (float(np.exp(low)), float(np.exp(high))), float(level), tuple(rate.warnings)
        )
