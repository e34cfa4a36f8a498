"""The shape of a curve: `shape_of` says whether it is monotone, flat, peaking or dipping, by a test of given size.

Learning curves need not fall: Viering & Loog ("The shape of learning curves: a review", IEEE TPAMI 45, 2023) collect peaks and
dips, and Yan, Mohr & Viering ("LCDB 1.1", NeurIPS 2025, arXiv:2505.15657) find about 15 % of the curves of a large collection
significantly ill-behaved (14 % in their first version).
"""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from .checks import Numbers, check_options, short
from .table import ROUNDING, Table, make_table

Shape: TypeAlias = Literal["monotone", "rising", "flat", "peaking", "dipping"]
# Simulated tables of the null distribution for one run at every n, and their seed.
_TABLES = 4000


@dataclass(frozen=True, eq=False)
class CurveShape:
    """The result of `shape_of`.

    - `shape`: `monotone` (falls and nowhere rises), `rising` (rises and nowhere falls), `flat` (no change is significant),
      `peaking` (a rise and then a fall), `dipping` (a fall and then a rise, without another fall: the largest n is not the
      best).
    - `rise`, `fall`: the most significant pair (n_i, n_j), n_i < n_j, between which mean risk rises, or falls; None if no pair
      is significant. For a curve that peaks or dips, they are the pairs that show it.
    - `rise_factor`: mean risk at the end of `rise` over that at its start; NaN if there is no rise.
    - `alpha`: the probability of finding a rise on a curve that rises nowhere, and of a fall on one that falls nowhere.
    """

    shape: Shape
    rise: tuple[float, float] | None
    fall: tuple[float, float] | None
    rise_factor: float
    alpha: float

    @property
    def well_behaved(self) -> bool:
        """Whether the curve neither peaks nor dips, so that a monotone model can describe it."""
        return self.shape not in ("peaking", "dipping")

    def __str__(self) -> str:
        between = lambda pair: f"n = {short(pair[0])} and {short(pair[1])}"
        if self.shape == "flat":
            return f"flat: no change of mean risk is significant at {100 * self.alpha:g} %"
        if self.well_behaved:
            return self.shape
        assert self.rise is not None and self.fall is not None
        order = "falls after it, between" if self.shape == "peaking" else "fell before, between"
        return (
            f"{self.shape}: mean risk rises between {between(self.rise)}, by a factor of {self.rise_factor:.3g}, and {order} "
            f"{between(self.fall)}"
        )


def shape_of(
    n: Numbers, risks: Numbers, *, groups: Numbers | None = None, alpha: float = 0.05, paired: bool = True
) -> CurveShape:
    """The shape of the curve of mean risk.

    Every pair i < j is tested for a rise and for a fall of mean risk, at a level such that on a flat curve a rise is found with
    probability `alpha` at most, and likewise a fall. A curve that falls everywhere has fewer false alarms than a flat one. With
    seeds the test is Student's test of paired differences (Welch's test if unpaired), at alpha divided by the number of pairs
    (Bonferroni). If the noise at both n has the same law, the difference is symmetric, however heavy its tails. If the noise is
    very skewed at one n and not at another, alarms are more frequent than alpha: 8 to 17 % at 5 % (`benchmarks/RESULTS.md`).
    With one run at every n the variance of log risk is estimated from the distances of points from the line through their
    neighbours (Gasser, Sroka & Jennen-Steinmetz, Biometrika 73, 1986), and the bound on the largest rise is simulated for
    independent Gaussian errors with the same variance at all n. A true bend increases that estimate and makes the test
    conservative.

    **Arguments:** `n`, `risks`, `groups`, `paired` as in `fit_rate`; `alpha`: the size of the test.

    **Raises:** ValueError as `fit_rate` does for wrong tables; if some n has one seed and others have more; for one run at each
    of fewer than 4 n.

    >>> n = 2.0 ** np.arange(5, 12)
    >>> peak = 1 + 3 * np.exp(-((np.log2(n) - 8) ** 2))
    >>> print(ts.shape_of(n, (peak / n**0.2)[:, None] * np.random.default_rng(0).chisquare(15, (7, 32)) / 15))
    peaking: mean risk rises between n = 64 and 256, by a factor of 2.85, and falls after it, between n = 256 and 1024
    """
    check_options(1.0 - alpha)
    return shape_of_table(make_table(n, risks, groups), alpha, paired)


def shape_of_table(table: Table, alpha: float, paired: bool = True) -> CurveShape:
    """`shape_of` for a checked table."""
    k, most = len(table.x), int(table.units_present.max())
    first, last = np.triu_indices(k, 1)
    if most > 1:
        if table.units_present.min() < 2:
            where = short(table.x[int(table.units_present.argmin())])
            raise ValueError(
                f"the error of a change of mean risk needs 2 seeds at each n, and n = {where} has one. Leave it out."
            )
        change, passed = _tests(table, first, last, alpha, paired)
    else:
        if k < 4:
            raise ValueError(f"with one run at every n the shape of a curve needs at least 4 n, got {k}.")
        log_mean = np.log(table.mean)
        change = log_mean[last] - log_mean[first]
        scores = np.abs(change) / np.sqrt(_neighbours_variance(table.x, log_mean[None])[0])
        passed = scores / _bound(tuple(table.x.tolist()), alpha)
    rises, falls = np.where(change > 0, passed, 0.0), np.where(change < 0, passed, 0.0)
    return _named(table, first, last, rises, falls, alpha)


def _tests(table: Table, first, last, alpha: float, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """The change of each pair, and the factor by which its one-sided p-value lies below alpha / pairs."""
    from scipy import stats

    # The mean of each unit at each n, NaN if it has no risk there.
    member = (table.units[:, None] == np.arange(table.number)).astype(float)
    with np.errstate(invalid="ignore"):
        units = (np.where(table.there, table.risks, 0.0) @ member) / np.where(table.sizes > 0, table.sizes, np.nan)
    options = {"axis": 1, "nan_policy": "propagate" if np.isfinite(units).all() else "omit"}
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # SciPy warns about seeds that all agree. A difference without scatter counts as highly significant.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_rel if paired else partial(stats.ttest_ind, equal_var=False)
        found = test(units[last], units[first], **options)
    change, two_sided = (np.asarray(part, float) for part in tuple(found))
    change = np.where(np.abs(table.mean[last] / table.mean[first] - 1.0) <= ROUNDING, 0.0, change)
    return change, np.where(np.isnan(two_sided), 0.0, alpha / len(change) / np.maximum(two_sided / 2.0, 1e-300))


def _neighbours_variance(x: np.ndarray, log_risk: np.ndarray) -> np.ndarray:
    """The variance (tables,) of independent errors of curves (tables, k), from the distances of inner points from the line in
    log x through their neighbours."""
    u = np.log(x)
    left = (u[2:] - u[1:-1]) / (u[2:] - u[:-2])
    off = left * log_risk[:, :-2] + (1.0 - left) * log_risk[:, 2:] - log_risk[:, 1:-1]
    return np.maximum((off**2 / (1.0 + left**2 + (1.0 - left) ** 2)).mean(axis=1), ROUNDING**2)


def _bound(x: tuple[float, ...], alpha: float) -> float:
    """The 1 - alpha quantile of the largest rise, over the root of the estimated variance, on a flat curve."""
    noise = np.random.default_rng(0).normal(size=(_TABLES, len(x)))
    # The largest rise from the least value so far.
    rise = (noise - np.minimum.accumulate(noise, axis=1)).max(axis=1)
    return float(np.quantile(rise / np.sqrt(_neighbours_variance(np.array(x), noise)), 1.0 - alpha))


def _named(table: Table, first, last, rises: np.ndarray, falls: np.ndarray, alpha: float) -> CurveShape:
    pair = lambda i: (float(table.x[first[i]]), float(table.x[last[i]]))
    rose, fell = rises > 1.0, falls > 1.0
    rise, fall = int(rises.argmax()), int(falls.argmax())
    shape: Shape
    if not rose.any() or not fell.any():
        shape = "rising" if rose.any() else "monotone" if fell.any() else "flat"
    else:
        # Among all rises followed by falls, and falls followed by rises, take the pair whose weaker part is strongest.
        weaker = np.minimum(rises[:, None], falls[None, :])
        after = np.where(first[None, :] >= last[:, None], weaker, 0.0)
        before = np.where(last[None, :] <= first[:, None], weaker, 0.0)
        peaks = after.max() > 1.0
        shape = "peaking" if peaks else "dipping"
        chosen = after if peaks else before
        if not chosen.max() > 1.0:
            # A rise and a fall that overlap: the lower of the two ends says which.
            chosen = weaker
            shape = "peaking" if last[fall] > last[rise] else "dipping"
        rise, fall = (int(i) for i in np.unravel_index(chosen.argmax(), chosen.shape))
    found_rise, found_fall = pair(rise) if rose.any() else None, pair(fall) if fell.any() else None
    factor = float(table.mean[last[rise]] / table.mean[first[rise]]) if rose.any() else float("nan")
    return CurveShape(shape, found_rise, found_fall, factor, alpha)
