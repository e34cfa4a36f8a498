"""Means of metrics of every kind, with the interval that suits each: signed numbers, shares of trials, medians, differences."""

from collections.abc import Callable
from typing import SupportsFloat

import numpy as np

from .diagnostics import ALIKE, few_seeds_warning
from .intervals import FEW_SEEDS, Estimate, student_quantile
from .table import Numbers, Resamples, as_array, check_not_infinite, check_options, plural

# The least variance of a resample, relative to that of the sample. Without it some intervals are wider by orders of magnitude
# (benchmarks/RESULTS.md).
LEAST_VARIANCE = 0.1


def mean(values: Numbers, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Estimate:
    """The mean of numbers of any sign, with the bootstrap-t interval (Efron & Tibshirani 1993, section 12.5).

    With m the mean and se its standard error, resamples give the quantiles q of t* = (m* - m) / se*, and the ends are m - q se,
    so the interval is skewed if the seeds are. As in `mean_ratio`, the variance of a resample counts as at least a tenth of
    that of the sample. With 2 or 3 seeds it is Student's interval m +- t_{s-1} se; with one seed it is infinite.

    **Arguments:** `values` (seeds,), NaN where missing; `level`, `draws` and `seed` as in `fit_rate`.

    **Raises:** ValueError for values that are infinite or all missing.

    >>> print(ts.mean(np.random.default_rng(0).normal(0.1, 1.0, 64)))
    0.167 [-0.071, 0.394]
    """
    check_options(level, draws)
    kept, warnings = _present(values, "values")
    value, size = float(kept.mean()), len(kept)
    if size == 1:
        return Estimate(value, (-np.inf, np.inf), float(level), (*warnings, *few_seeds_warning(1)))
    warnings = (*warnings, *few_seeds_warning(size))
    variance = float(kept.var(ddof=1) / size)
    # The spread of the numbers is no more than rounding.
    if variance <= (8 * np.finfo(float).eps * np.abs(kept).max()) ** 2:
        return Estimate(value, (value, value), float(level), (*warnings, ALIKE))
    if size < FEW_SEEDS:
        q = student_quantile(size, level) * np.array([1.0, -1.0])
    else:
        centred = (kept - value) / np.sqrt(variance * size)
        (sums,) = Resamples(size, draws, seed).each(lambda counts: (counts @ np.stack([centred, centred**2], axis=1),))
        shift, square = sums.T / size
        variances = np.maximum((square - shift**2) * size / (size - 1), LEAST_VARIANCE)
        q = np.quantile(shift * np.sqrt(size) / np.sqrt(variances), [0.5 + level / 2, 0.5 - level / 2])
    low, high = value - q * np.sqrt(variance)
    return Estimate(value, (float(low), float(high)), float(level), warnings)


def mean_difference(
    a: Numbers, b: Numbers | SupportsFloat, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Estimate:
    """mean(a) - mean(b), paired by seed; the interval is that of `mean` for a - b.

    **Arguments:** `a` (seeds,), and `b` (seeds,) or one number. Seeds that are missing in one of them are left out of both.

    **Raises:** ValueError for shapes that differ, and as `mean` does.

    >>> rng = np.random.default_rng(0)
    >>> teacher = rng.normal(size=32)
    >>> print(ts.mean_difference(teacher + 0.5, teacher + 0.1 * rng.normal(size=32)))
    0.471 [0.437, 0.509]
    """
    first, second = as_array(a, "a"), as_array(b, "b")
    if second.ndim and first.shape != second.shape:
        raise ValueError(
            f"paired values need the same seeds, got {first.shape} and {second.shape}; give the common ones."
        )
    return mean(first - second, level=level, draws=draws, seed=seed)


def median(values: Numbers, *, level: float = 0.95) -> Estimate:
    """The median, with the exact interval between two order statistics that inverts the sign test
    (`scipy.stats.quantile_test`).

    A single extreme seed hardly moves it. Below 6 seeds a 95 % interval is infinite at both ends.

    **Arguments:** `values` (seeds,), NaN where missing. **Raises:** ValueError for values that are infinite or all missing.

    >>> print(ts.median(np.arange(1.0, 31.0)))
    15.5 [10.0, 21.0]
    """
    from scipy.stats import quantile_test

    check_options(level)
    kept, warnings = _present(values, "values")
    found = quantile_test(kept, q=0, p=0.5).confidence_interval(level)
    low, high = (end if np.isfinite(end) else sign * np.inf for end, sign in zip(found, (-1.0, 1.0), strict=True))
    return Estimate(float(np.median(kept)), (float(low), float(high)), float(level), warnings, "exact")


def share_of_trials(shares: Numbers, trials: Numbers | SupportsFloat, *, level: float = 0.95) -> Estimate:
    """The mean of shares of trials, such as error rates on test points, over seeds *and* trials.

    The interval is Clopper & Pearson's at the effective number of trials of Korn & Graubard (Survey Methodology 24, 1998): n =
    p (1 - p) / v (t_{N-1} / t_{s-1})^2, at most the number N of all trials, where p is the mean share, v the variance of the
    mean of s seeds and t_k a quantile of Student's law. If seeds agree as N independent trials would, n = N; if some seeds fail
    completely, n is close to s. If there is no success, or no failure, at all, v carries no information; then n = N, which
    takes all seeds to have the same probability, and a warning says what could be claimed without that assumption.

    **Arguments:**

    - `shares`: (seeds,) in [0, 1], NaN where missing.
    - `trials`: the number of trials behind each share, (seeds,) or one whole number.

    **Raises:** ValueError for shares outside [0, 1], or that times `trials` are not whole numbers.

    >>> print(ts.share_of_trials(np.array([0.01, 0.02, 0.0, 0.01]), 100))
    0.0100 [0.0015, 0.0333]
    """
    from scipy.stats import beta

    check_options(level)
    kept, warnings = _present(shares, "shares")
    counts = np.broadcast_to(as_array(trials, "trials"), np.shape(as_array(shares, "shares")))
    counts = counts[~np.isnan(as_array(shares, "shares"))]
    if not (np.isfinite(counts).all() and (counts >= 1).all() and (counts == np.round(counts)).all()):
        raise ValueError(
            f"trials must be whole numbers of at least 1, got {_first(counts, lambda c: c < 1 or bool(c % 1))}."
        )
    if (kept < 0).any() or (kept > 1).any():
        raise ValueError(f"shares must lie in [0, 1], got {_first(kept, lambda v: not 0 <= v <= 1):g}.")
    # Shares of float32 are whole to seven digits.
    off = np.abs(kept * counts - np.round(kept * counts)) > 1e-6 * counts + 1e-9
    if off.any():
        at = int(np.argmax(off))
        raise ValueError(
            f"a share of {kept[at]:g} of {counts[at]:g} trials is not a whole number; give the right number of trials."
        )
    value, size, total = float(kept.mean()), len(kept), float(counts.sum())
    if size == 1:
        return Estimate(value, (0.0, 1.0), float(level), (*warnings, *few_seeds_warning(1)), "exact")
    variance = float(kept.var(ddof=1) / size)
    effective = total
    if variance > 0 and 0 < value < 1:
        student = student_quantile(total, level) / student_quantile(size, level)
        effective = min(total, value * (1 - value) / variance * student**2)
    elif value in (0.0, 1.0):
        worst = float(beta.ppf(0.5 + level / 2, 1, size))
        none = "success" if value == 0 else "failure"
        warnings = (
            *warnings,
            f"no {none} in {plural(int(total), 'trial')}: the interval takes seeds to be alike; of the seeds alone, up to "
            f"{worst:.2g} of all seeds might have some.",
        )
    hits = value * effective
    low = 0.0 if hits <= 0 else float(beta.ppf(0.5 - level / 2, hits, effective - hits + 1))
    high = 1.0 if hits >= effective else float(beta.ppf(0.5 + level / 2, hits + 1, effective - hits))
    return Estimate(value, (low, high), float(level), (*warnings, *few_seeds_warning(size)), "exact")


def share_difference(
    a: Numbers,
    b: Numbers,
    interval: Callable[[np.ndarray], Estimate],
    interval_b: Callable[[np.ndarray], Estimate] | None = None,
    *,
    level: float = 0.95,
) -> Estimate:
    """mean(a) - mean(b) of shares, paired by seed, from the intervals (l, u) of both (Zou & Donner, Statistics in Medicine 27,
    2008). `interval` computes that of a share; `interval_b`, if given, that of b, which may have another number of trials.

    The lower end is p_a - p_b - sqrt((p_a - l_a)^2 - 2 r (p_a - l_a)(u_b - p_b) + (u_b - p_b)^2), the upper one likewise, with
    r the correlation over seeds, taken as 0 if negative or if one of them does not vary. So the interval has a width even if
    all shares are 0.

    **Raises:** ValueError for shapes that differ.
    """
    first, second = as_array(a, "a"), as_array(b, "b")
    if first.shape != second.shape:
        raise ValueError(
            f"paired values need the same seeds, got {first.shape} and {second.shape}; give the common ones."
        )
    both = ~np.isnan(first) & ~np.isnan(second)
    first, second = first[both], second[both]
    one, two = interval(first), (interval_b or interval)(second)
    varies = len(first) > 2 and first.std() > 0 and second.std() > 0
    # The correlation is clipped to [0, 1], and is 0 if one of the two does not vary.
    r = float(np.clip(np.corrcoef(first, second)[0, 1], 0.0, 1.0)) if varies else 0.0
    down, up = one.value - one.interval[0], one.interval[1] - one.value
    down_two, up_two = two.value - two.interval[0], two.interval[1] - two.value
    reach = lambda x, y: np.sqrt(max(x**2 - 2 * r * x * y + y**2, 0.0))
    value = one.value - two.value
    ends = (max(-1.0, float(value - reach(down, up_two))), min(1.0, float(value + reach(up, down_two))))
    return Estimate(value, ends, float(level), tuple(dict.fromkeys((*one.warnings, *two.warnings))), "exact")


def _present(values: Numbers, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    array = as_array(values, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (seeds,), got {array.shape}.")
    check_not_infinite(array, name)
    kept = array[~np.isnan(array)]
    if not kept.size:
        raise ValueError(f"there are no {name}: none was given, or all are missing (NaN).")
    missing = array.size - kept.size
    left_out = f"{missing} of {plural(array.size, 'seed')} left out because it is missing (NaN)."
    return kept, (left_out,) if missing else ()


def _first(values: np.ndarray, wrong: Callable[[float], bool]) -> float:
    return float(next(value for value in values if not np.isfinite(value) or wrong(value)))
