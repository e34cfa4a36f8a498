"""Intervals from resamples: expanded percentiles, BCa, and Student's around a delta-method standard error.

Why expanded percentiles are the default: with few seeds, plain percentiles of resamples under the weights of the data are too
narrow, for two reasons. (i) The weights are estimates too, so here every resample refits its own. (ii) A resample of s seeds
has a variance too small by (s-1)/s, and normal instead of Student tails. So the percentiles are taken at Phi(+-sqrt(s/(s-1))
t_{s-1}), the *expanded percentile interval* of Hesterberg (The American Statistician 69, 2015). `python -m benchmarks coverage`
simulates its coverage.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .checks import beside, plural

# Below this many seeds percentiles of resamples cannot reach 95 % (two seeds have only three different resamples).
FEW_SEEDS = 4


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: `value`, `interval` (low, high) at `level`, and `warnings` to read before trusting it.

    `scale` is the scale on which the interval was made: `log` for positive numbers such as ratios of means, and `exact` if it
    comes from no standard error, as for shares.
    """

    value: float
    interval: tuple[float, float]
    level: float
    warnings: tuple[str, ...] = ()
    scale: Literal["linear", "log", "exact"] = "linear"

    def __str__(self) -> str:
        note = f" ({plural(len(self.warnings), 'warning')})" if self.warnings else ""
        return f"{beside(self.value, self.interval)}{note}"


def student_quantile(seeds: float | int, level: float) -> float:
    """The quantile of Student's law with seeds - 1 degrees of freedom that bounds a two-sided interval."""
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1.0, 0.5 + level / 2))


def normal_quantile(level: float) -> float:
    """The quantile of the normal law that bounds a two-sided interval, such as 1.96 for 95 %."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def expanded_percentiles(
    draws: np.ndarray, value: float, seeds: float | int, level: float
) -> tuple[tuple[float, float], float]:
    """The expanded percentile interval and the standard error of a statistic from its resamples (see the module docstring).

    `seeds` is the (effective) number of units behind the draws. Below 4 it is Student's interval around `value`; below 2, or
    without draws, it is infinite. Draws may be infinite (a curve that never crosses, an exponent that a resample does not
    identify); if enough of them are, that end is infinite.
    """
    from scipy.special import ndtr

    if seeds < 1.5 or len(draws) == 0:
        return (-np.inf, np.inf), np.inf
    widen = np.sqrt(seeds / (seeds - 1.0))
    bounded = draws[np.isfinite(draws)]
    standard_error = float(bounded.std() * widen) if len(bounded) else np.inf
    t = student_quantile(seeds, level)
    if seeds < FEW_SEEDS - 0.5:
        # If more than (1 - level) / 2 of the resamples are infinite on a side, the interval is infinite there.
        open_low, open_high = (np.isneginf(draws).mean(), np.isposinf(draws).mean()) > np.array((1.0 - level) / 2.0)
        low = -np.inf if open_low or not np.isfinite(value) else value - t * standard_error
        high = np.inf if open_high or not np.isfinite(value) else value + t * standard_error
        return (low, high), standard_error
    low, high = _quantiles(draws, ndtr(np.array([-t * widen, t * widen])))
    return (low, high), standard_error


def _quantiles(draws: np.ndarray, q: np.ndarray) -> tuple[float, float]:
    """Linear quantiles by a partial sort, which is several times faster than a full one; infinite neighbours give an
    infinite end instead of the NaN of inf - inf."""
    where = np.clip(q, 0.0, 1.0) * (len(draws) - 1)
    below = np.floor(where).astype(int)
    above = np.minimum(below + 1, len(draws) - 1)
    ordered = np.partition(draws, np.unique(np.concatenate([below, above])))
    a, b = ordered[below], ordered[above]
    part = where - below
    with np.errstate(invalid="ignore"):
        ends = np.where((a == b) | (part == 0.0) | np.isneginf(a), a, a + part * (b - a))
    return float(ends[0]), float(ends[1])


def one_sided_p(draws: np.ndarray, bound: float, seeds: float | int, side: int) -> float:
    """p-value of a null hypothesis about a parameter. For `side` = +1 the null is that it lies at or below `bound`, so small
    values say that it lies above; for -1 the sides are exchanged.

    It inverts `expanded_percentiles`: p <= alpha exactly if the interval of level 1 - 2 alpha excludes the bound. The
    share of draws beyond the bound, (r + 1/2) / (draws + 1), is a normal quantile z; p = T_{s-1}(z / sqrt(s/(s-1))).
    """
    from scipy.special import ndtri, stdtr

    kept = draws[~np.isnan(draws)]
    if seeds < 1.5 or not len(kept):
        return float("nan")
    beyond = (kept <= bound).sum() if side > 0 else (kept >= bound).sum()
    z = ndtri((beyond + 0.5) / (len(kept) + 1.0))
    return float(stdtr(seeds - 1.0, z / np.sqrt(seeds / (seeds - 1.0))))


def bca(draws: np.ndarray, value: float, left_out: np.ndarray, level: float) -> tuple[float, float]:
    """The bias-corrected and accelerated interval of Efron (JASA 82, 1987), without small-sample corrections.

    `left_out` (units,): the statistic without each unit. With z0 = Phi^{-1}(share of draws below the value) and
    a = sum (m - l)^3 / (6 (sum (m - l)^2)^{3/2}), m the mean of l, the ends are the percentiles at
    Phi(z0 + (z0 + z) / (1 - a (z0 + z))), z = Phi^{-1}((1 -+ level) / 2), as in `scipy.stats.bootstrap`.
    """
    from scipy.special import ndtr, ndtri

    if len(draws) == 0 or len(left_out) < 2 or not np.isfinite([value, *left_out]).all():
        return -np.inf, np.inf
    share = ((draws < value).mean() + (draws <= value).mean()) / 2.0
    if not 0.0 < share < 1.0:
        return float(draws.min()), float(draws.max())
    u = left_out.mean() - left_out
    spread = (u**2).sum()
    a = (u**3).sum() / (6.0 * spread**1.5) if spread > 0 else 0.0
    z0, z = ndtri(share), ndtri(0.5 + level / 2)
    ends = np.array([z0 - z, z0 + z])
    return _quantiles(draws, ndtr(z0 + ends / (1.0 - a * ends)))


def last_fall(u: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """The places (b,) at which piecewise linear functions (b, k) on u (k,) last fall through 0; -inf if always below 0, inf if
    not below 0 at the end."""
    above = difference >= 0.0
    # The last point that is not below; k - 1 minus its distance from the end.
    last = difference.shape[1] - 1 - np.argmax(above[:, ::-1], axis=1)
    i = np.minimum(last, len(u) - 2)
    rows = np.arange(len(difference))
    left, right = difference[rows, i], difference[rows, i + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = u[i] + (u[i + 1] - u[i]) * left / (left - right)
    return np.where(~above.any(axis=1), -np.inf, np.where(above[:, -1], np.inf, inside))
