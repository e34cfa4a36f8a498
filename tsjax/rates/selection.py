"""Which model, which window, and how well a fit on the smaller n foretells the larger ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .diagnostics import DRIFT, floor_sentences
from .intervals import Estimate, expanded_percentiles, student_quantile
from .models import AbstractModel, Floor, Method, PowerLaw, find_model, fit_model
from .rate import Rate, fit_table, weights_of
from .table import Numbers, Table, check_options, make_table, short

# What `choose_model` compares unless told otherwise. LogFactor stays out: it has as many parameters as the power law, and
# a window of three octaves cannot tell them apart.
CANDIDATES = ("power", "floor", "finite", "logq", "broken")
# Differences of AICc below this tell nothing (Burnham & Anderson 2002, section 2.6).
UNDECIDED = 2.0
# A window is kept when one power law is believable on it at this level, and has this many n.
BELIEVABLE, LEAST_POINTS = 0.1, 4
# Level of the intervals within which exponents of narrower windows agree with a wider one's.
AGREEMENT = 0.7


@dataclass(frozen=True, eq=False)
class ModelChoice:
    """What `choose_model` found.

    - `best`: name of the chosen model; `rate`: its fit. `rates`: all fits by name.
    - `aicc`: AICc of each; `probability`: Akaike weights exp(-(AICc - least) / 2), normalised.
    - `held_out`: error of each in log risk at the largest n when fitted without it; NaN when it has too few n for that.
    - `skipped`: why a model was not fitted.
    """

    best: str
    rates: dict[str, Rate]
    aicc: dict[str, float]
    probability: dict[str, float]
    held_out: dict[str, float]
    skipped: dict[str, str]

    @property
    def rate(self) -> Rate:
        """The fit of the chosen model."""
        return self.rates[self.best]

    def __str__(self) -> str:
        ranked = sorted(self.aicc, key=self.aicc.__getitem__)
        least = self.aicc[ranked[0]]
        return f"{self.best} (" + ", ".join(f"{name} +{self.aicc[name] - least:.1f}" for name in ranked[1:]) + ")"


def choose_model(
    n: Numbers,
    risks: Numbers,
    *,
    models: Sequence[str | AbstractModel] = CANDIDATES,
    method: Method = "wls",
    groups: Numbers | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> ModelChoice:
    """Fits several models and chooses the least AICc = chi^2 + 2 p + 2 p (p+1) / (k - p - 1) (Hurvich & Tsai 1989).

    chi^2 is the sum of squared residuals over the variances of log risks, times (s-3)/(s-1), which undoes that variances
    estimated from s seeds are too small too often. A finite-sample factor whose exponent may be 0 is a floor, and is called so
    where the floor fits as well (within 2). The correction is large at few n: a model of p parameters needs p + 2.
    Where seeds are shared across n, the residuals scatter less than chi^2 assumes, which favours the simpler model.

    **Arguments:** as `fit_rate`; `models`: names or models, distinct.

    **Raises:** ValueError as `fit_rate` does, and when no model can be compared.

    >>> n, rng = 2.0 ** np.arange(3, 12), np.random.default_rng(0)
    >>> ts.choose_model(n, (0.02 + 1 / n[:, None]) * rng.chisquare(15, (9, 256)) / 15).best  # planted: a floor
    'floor'
    """
    check_options(level, draws)
    table = make_table(n, risks, groups)
    options = (method, level, draws, seed, paired)
    rates: dict[str, Rate] = {}
    aicc: dict[str, float] = {}
    held_out: dict[str, float] = {}
    skipped: dict[str, str] = {}
    k = len(table.x)
    for model in map(find_model, models):
        p = len(model.parameters)
        if k < p + 2:
            skipped[model.name] = f"{p} parameters need {p + 2} different n to be compared, got {k}."
            continue
        try:
            rate = fit_table(table, model, *options)
        except ValueError as error:
            skipped[model.name] = str(error)
            continue
        rates[model.name] = rate
        aicc[model.name] = _chi_square(rate) + 2.0 * p + 2.0 * p * (p + 1.0) / (k - p - 1.0)
        held_out[model.name] = _held_out_error(table, model, method)
    if not rates:
        raise ValueError("no model can be compared on this curve: " + " ".join(f"{k}: {v}" for k, v in skipped.items()))
    least = min(aicc.values())
    weight = {name: float(np.exp((least - value) / 2.0)) for name, value in aicc.items()}
    total = sum(weight.values())
    probability = {name: value / total for name, value in weight.items()}
    best = min(aicc, key=aicc.__getitem__)
    if best == "finite" and aicc.get("floor", np.inf) < least + UNDECIDED:
        # C (1 + c p / n), with exponent 0, is a floor and no finite-sample factor.
        low, high = rates[best].interval
        best = "floor" if low <= 0.0 <= high else best
    return ModelChoice(best, rates, aicc, probability, held_out, skipped)


def _chi_square(rate: Rate) -> float:
    s = rate.table.units_present
    return float((rate.residuals**2 / rate.variance * np.maximum(s - 3.0, 0.5) / np.maximum(s - 1.0, 1.0)).sum())


def _held_out_error(table: Table, model: AbstractModel, method: Method) -> float:
    short_x = table.x[:-1]
    if len(short_x) < len(model.parameters):
        return float("nan")
    data = table.typical() if method == "student" else table.means()
    theta, _ = fit_model(model, short_x, data.log_mean[:-1], weights_of(data, method)[:-1], method)
    with np.errstate(invalid="ignore"):
        return float(data.log_mean[-1] - model.evaluate(theta, table.x[-1:])[0][0])


@dataclass(frozen=True, eq=False)
class WindowChoice:
    """What `choose_window` found: the chosen fit `rate`, the fits from every smallest n, widest first, and the reason."""

    rate: Rate
    rates: tuple[Rate, ...]
    reason: str


def windows(
    n: Numbers, risks: Numbers, *, least: int = 3, model: str | AbstractModel = "power", **options
) -> tuple[Rate, ...]:
    """The fit from every smallest n up to the largest, widest first, each with `least` n or more: how the exponent depends
    on the window. `options` as in `fit_rate`; all are resampled alike, so that they can be subtracted."""
    table = make_table(n, risks, options.pop("groups", None))
    fits = []
    found = find_model(model)
    settings = {"method": "wls", "level": 0.95, "draws": 2000, "seed": 0, "paired": True} | options
    for i in range(max(len(table.x) - max(least, 2) + 1, 1)):
        fits.append(fit_table(table.keep(np.arange(i, len(table.x))), found, **settings))
    return tuple(fits)


def choose_window(n: Numbers, risks: Numbers, *, model: str | AbstractModel = "power", **options) -> WindowChoice:
    """Where a curve may be asymptotic: a window that ends at the largest n and has 4 n or more.

    Lepski's rule, then one step on. A window is believable when the fit's `goodness` is 0.1 or more and the exponents of all
    narrower windows lie within the 70 % interval (about one standard error) of the difference to its own. Of the widest
    believable one the smallest n is left out too: what bias it still has is then small beside its error. Where none is
    believable, the 4 largest n are taken, and the reason says so.

    The choice looks at the data, and a bias below the noise cannot be seen, so that the interval covers less than it says: 88 %
    instead of 95 % for risk (1 + 60/n)/n on n = 32..16384 with 32 seeds (`python -m benchmarks coverage`). A
    model of the bias (`model="finite"`) does better where it is right. `options` as in `fit_rate`; seeds are paired.

    **Raises:** ValueError as `fit_rate`, and for fewer than 4 different n.
    """
    table = make_table(n, risks, options.get("groups"))
    if len(table.x) < LEAST_POINTS:
        raise ValueError(f"choosing a window takes at least {LEAST_POINTS} different n, got {len(table.x)}.")
    fits = windows(n, risks, least=LEAST_POINTS - 1, model=model, **{**options, "paired": True})
    widest = next((i for i in range(len(fits) - 1) if _believable(fits[i], fits[i + 1 :])), None)
    rate = fits[-2] if widest is None else fits[min(widest + 1, len(fits) - 2)]
    reason = f"n = {short(rate.n[0])}..{short(rate.n[-1])}: "
    if widest is None:
        reason += f"no window is believable; these are the {LEAST_POINTS} largest n."
    else:
        start = short(fits[widest].n[0])
        reason += f"from n = {start} on the exponent stays within its error"
        reason += (
            f", and n = {start} is left out for safety." if rate is not fits[widest] else "; no n can be left out."
        )
    return WindowChoice(rate, fits, reason)


def _believable(wide: Rate, narrower: Sequence[Rate]) -> bool:
    for narrow in narrower:
        difference = wide.draws - narrow.draws
        kept, seeds = difference[np.isfinite(difference)], min(wide.effective_seeds, narrow.effective_seeds)
        low, high = expanded_percentiles(kept, wide.exponent - narrow.exponent, seeds, AGREEMENT)[0]
        if not low <= 0.0 <= high:
            return False
    return wide.goodness >= BELIEVABLE


@dataclass(frozen=True, eq=False)
class Forecast:
    """A prediction and, where it was measured, its score.

    - `n`; `predicted` mean risk and the `interval` that the mean of `seeds` new seeds should fall into.
    - `measured`: what was measured there, or NaN; `inside`: whether it lies in the interval.
    - `ratio`: measured / predicted with an interval that uses the pairing; None when not measured.
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
    """The mean risk of `seeds` new seeds (as many as the fit has) at n, beyond the window or inside it.

    log interval: log f(n) +- t sqrt(var log f + v / seeds), with the resamples' variance of the fitted curve and the average
    relative variance v of one risk; t has the degrees of freedom of the exponent. It trusts the model: a curve that bends
    beyond the window is not covered.
    """
    level = rate.level if level is None else level
    check_options(level)
    if not 0.0 < n < np.inf:
        raise ValueError(f"n must be finite and positive, got {n:g}.")
    seeds = rate.units if seeds is None else seeds
    if seeds < 1:
        raise ValueError(f"a mean is over at least one seed, got seeds={seeds}.")
    at = np.array([float(n)])
    value = float(rate.model.evaluate(rate.theta, at)[0][0])
    draws = rate.model.evaluate(rate.theta_draws, at)[0][:, 0]
    s = rate.effective_seeds
    _, error = expanded_percentiles(draws[np.isfinite(draws)], value, s, level)
    one = float((rate.variance * rate.table.units_present).mean())
    reach = student_quantile(s, level) * np.sqrt(error**2 + one / seeds) if s > 1.5 else np.inf
    return Forecast(
        float(n), float(np.exp(value)), (float(np.exp(value - reach)), float(np.exp(value + reach))), seeds, rate
    )


def score_forecast(
    n: Numbers,
    risks: Numbers,
    *,
    hold_out: int = 1,
    model: str | AbstractModel = "power",
    method: Method = "wls",
    groups: Numbers | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> tuple[Forecast, ...]:
    """Fits without the `hold_out` largest n, and compares the forecast at each of them with what was measured there.

    **Raises:** ValueError as `fit_rate`, or when too few n are left.
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
    rate = fit_table(table.keep(np.arange(left)), found, method, level, draws, seed, paired)
    whole = table.typical if method == "student" else table.means
    data, resampled = whole(), whole(table.resamples(draws, seed, True)) if paired else None
    scores = []
    for i in range(left, len(table.x)):
        one = forecast(rate, float(table.x[i]), seeds=int(table.units_present[i]), level=level)
        ratio = None
        if resampled is not None:
            at = table.x[i : i + 1]
            shift = resampled.log_mean[:, i] - rate.model.evaluate(rate.theta_draws, at)[0][:, 0]
            value = float(data.log_mean[i] - np.log(one.predicted))
            ends, _ = expanded_percentiles(shift[np.isfinite(shift)], value, rate.effective_seeds, level)
            ratio = Estimate(
                float(np.exp(value)), (float(np.exp(ends[0])), float(np.exp(ends[1]))), level, rate.warnings
            )
        measured = float(np.exp(data.log_mean[i]))
        scores.append(Forecast(one.n, one.predicted, one.interval, one.seeds, rate, measured, ratio))
    return tuple(scores)


def diagnose(
    rate: Rate,
    *,
    predicted: Numbers | None = None,
    asymptote: float | None = None,
    noise_variance: float | None = None,
) -> tuple[str, ...]:
    """All that should be known before quoting an exponent: the fit's own `warnings`, and what takes theory or another fit.

    - a few units carry the exponent (seeds missing at the n that decide);
    - a floor: `Floor` fits better than the power law by more than 2 in AICc and its F is above 0 at 99 %; what it may be
      (the variance of noise on labels, rounding);
    - theory is pre-asymptotic: the predicted curve's slope over this window differs from the asymptotic exponent.

    **Arguments:** `predicted` (k,): theory's curve at `rate.n`; `asymptote`: theory's exponent in the limit;
    `noise_variance`: that of noise on labels.
    """
    found = list(rate.warnings)
    if rate.effective_seeds < 0.5 * rate.units:
        found.append(
            f"the exponent rests on {rate.effective_seeds:.0f} of {rate.units} seeds: those at the n with few seeds decide."
        )
    power = isinstance(rate.model, PowerLaw)
    if power and len(rate.n) >= 5 and rate.table.units_present.min() >= 4 and rate.delta_error > 0:
        found += _floor_found(rate, noise_variance)
    if predicted is not None and asymptote is not None and power:
        slope = rate.slope_of(predicted)
        if abs(slope - asymptote) > DRIFT:
            found.append(
                f"pre-asymptotic: over n = {short(rate.n[0])}..{short(rate.n[-1])} theory predicts {slope:.2f}, and "
                f"{asymptote:.2f} in the limit; compare with the former."
            )
    return tuple(found)


def _floor_found(rate: Rate, noise_variance: float | None) -> list[str]:
    try:
        other = fit_table(rate.table, Floor(), rate.method, 0.99, len(rate.draws), rate.seed, rate.paired)
    except ValueError:
        return []
    k, floor = len(rate.n), other.parameters["floor"]
    penalty = 2.0 + 24.0 / (k - 4.0) - 12.0 / (k - 3.0)
    if not (floor.interval[0] > 0.0 and _chi_square(rate) - _chi_square(other) > penalty + UNDECIDED):
        return []
    largest = float(np.exp(rate.log_risk.max()))
    share = floor.value / float(np.exp(rate.log_risk[-1]))
    text = f"a floor of {floor.value:.3g}, {100 * share:.0f} % of the risk at the largest n, fits better: "
    text += f"with it the exponent is {other.exponent:.3f}; see model='floor'."
    return [text, *floor_sentences(floor.value, noise_variance, largest)]
