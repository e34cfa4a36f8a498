"""A metric along a whole axis: how far its means spread, whether they fall throughout, and where they are best.

All three use simultaneous intervals for the differences of every two means (or their logarithms, if the metric is positive). A
statement about a maximum or a minimum then holds at the level at which all intervals hold at once.
"""

import numpy as np

from .diagnostics import ALIKE, few_seeds_warning
from .intervals import FEW_SEEDS, Estimate, student_quantile
from .means import LEAST_VARIANCE
from .metrics import check_risks
from .table import ROUNDING, Numbers, Resamples, as_array, check_not_infinite, check_options


def spread(
    values: Numbers, *, positive: bool = True, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Estimate:
    """How far means differ along an axis: the largest over the smallest, or their difference if not `positive`.

    With L_ij <= d_ij <= U_ij the simultaneous intervals of all differences d_ij of (log) means, the true spread max d_ij
    lies in [max L_ij, max U_ij], and is at least 1 (or 0).

    **Arguments:**

    - `values`: (k, seeds): row i holds the metric of every seed at place i of the axis. Seeds that are missing (NaN) at some
      place are left out.
    - `positive`: whether the metric is positive, so that means are compared by ratios.
    - `level`, `draws`, `seed`: as in `fit_rate`.

    **Raises:** ValueError for fewer than two places, no common seed, or, if `positive`, values that are not risks.

    >>> rng = np.random.default_rng(0)
    >>> print(ts.spread(np.array([[1.0], [2.0], [4.0]]) * rng.chisquare(50, (3, 64)) / 50))
    3.98 [3.67, 4.31]
    """
    pairs = _Pairs(values, positive, level, draws, seed)
    nothing = np.zeros(1)
    found = [float(np.concatenate([nothing, table.ravel()]).max()) for table in (pairs.value, pairs.low, pairs.high)]
    return pairs.estimate(*found)


def largest_rise(
    values: Numbers,
    *,
    positive: bool = True,
    falls: bool = False,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The largest ratio of a mean to an earlier one along an axis, max_{i<j} m_j / m_i (m_j - m_i if not `positive`): at most 1
    (or 0) for a metric that falls throughout. With `falls` it is the largest fall, min_{i<j} m_j / m_i: at least 1 (or 0) for a
    metric that rises throughout.

    The interval is [max L_ij, max U_ij] over those pairs, or that of the minima (see `spread`).

    **Arguments:** as in `spread`, the places in their order along the axis.

    >>> rng = np.random.default_rng(0)
    >>> print(ts.largest_rise(np.array([[4.0], [2.0], [3.0]]) * rng.chisquare(50, (3, 64)) / 50))
    1.52 [1.39, 1.67]
    """
    pairs = _Pairs(values, positive, level, draws, seed)
    later = np.tril_indices(len(pairs.value), -1)
    choose = np.min if falls else np.max
    return pairs.estimate(*(float(choose(table[later])) for table in (pairs.value, pairs.low, pairs.high)))


def best(
    x: Numbers, values: Numbers, *, positive: bool = True, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Estimate:
    """The place x of the smallest mean. The interval reaches from the first to the last place that may be the best: by the
    simultaneous intervals of all differences, no other mean is below the mean there (multiple comparisons with the best, Hsu
    1984).

    **Arguments:** `x` (k,) increasing; the others as in `spread`.

    >>> rng = np.random.default_rng(0)
    >>> print(ts.best([1, 2, 3], np.array([[4.0], [2.0], [3.0]]) * rng.chisquare(50, (3, 64)) / 50))
    2 [2, 2]
    """
    places = as_array(x, "x")
    pairs = _Pairs(values, positive, level, draws, seed)
    if places.shape != (len(pairs.value),):
        raise ValueError(
            f"x must hold one number for each row of values: got {places.shape} for {len(pairs.value)} rows."
        )
    possible = places[(pairs.low <= 0).all(axis=1)]
    smallest = places[int(np.argmin(pairs.means))]
    return Estimate(
        float(smallest), (float(possible.min()), float(possible.max())), float(level), pairs.warnings, "exact"
    )


class _Pairs:
    """`value`, `low` and `high` (k, k): mean i minus mean j (of logarithms where positive), with intervals that all hold at
    once. They are d +- q se, with se by the delta method and q the quantile of max |d* - d| / se* over resamples of the seeds
    (studentised max-t). The variance of a resample counts as at least a tenth of that of the sample, as in `mean_ratio`."""

    def __init__(self, values: Numbers, positive: bool, level: float, draws: int, seed: int):
        check_options(level, draws)
        table = as_array(values, "values")
        if table.ndim != 2 or len(table) < 2:
            raise ValueError(f"values must have shape (k, seeds) with k >= 2 places, got {table.shape}.")
        check_not_infinite(table, "values")
        table = table[:, ~np.isnan(table).any(axis=0)]
        size = table.shape[1]
        if not size:
            raise ValueError("no seed has a value at every place; leave out places at which many seeds are missing.")
        if positive:
            for i, row in enumerate(table):
                check_risks(row, f"the metric at place {i + 1}")
        self.positive, self.level = positive, level
        means = table.mean(axis=1)
        self.means = np.log(means) if positive else means
        self.value = self.means[:, None] - self.means[None, :]
        self.warnings = tuple(few_seeds_warning(size))
        if size == 1:
            reach = np.full_like(self.value, np.inf)
            np.fill_diagonal(reach, 0.0)
        else:
            # A positive metric relative to its mean; the deviation from its mean otherwise.
            self._parts = (table / means[:, None] if positive else table - means[:, None]).T
            centred = self._parts - self._parts.mean(axis=0)
            self._variance = _squares(centred) / (size * (size - 1))
            self._variance[self._variance < (ROUNDING * np.abs(self._parts).max()) ** 2] = 0.0
            if size >= FEW_SEEDS:
                (far,) = Resamples(size, draws, seed).each(lambda counts: (self._furthest(counts),))
                quantile = float(np.quantile(far, level))
            else:
                # Resamples of two or three seeds say nothing about the tails, so Bonferroni over the pairs is used.
                quantile = student_quantile(size, 1 - (1 - level) / (len(table) * (len(table) - 1) / 2))
            reach = quantile * np.sqrt(self._variance)
            if not self._variance.any():
                self.warnings += (ALIKE,)
        self.low, self.high = self.value - reach, self.value + reach

    def _furthest(self, counts: np.ndarray) -> np.ndarray:
        """The largest |d* - d| / se* of each resample (draws, seeds)."""
        size, (draws, places) = counts.shape[1], (len(counts), self._parts.shape[1])
        mean, square = counts @ self._parts / size, counts @ self._parts**2 / size
        far = np.zeros(draws)
        # Pair by pair with one place: all pairs of all resamples together could take gigabytes.
        for i in range(places):
            cross = counts @ (self._parts[:, [i]] * self._parts) / size
            if self.positive:
                a, b = mean[:, [i]], mean
                shift, moment = np.log(a / b), square[:, [i]] / a**2 + square / b**2 - 2 * cross / (a * b)
            else:
                shift = mean[:, [i]] - mean
                moment = square[:, [i]] + square - 2 * cross - shift**2
            least = np.maximum(moment / (size - 1), LEAST_VARIANCE * self._variance[i])
            known = self._variance[i] > 0
            t = np.abs(shift[:, known]) / np.sqrt(least[:, known])
            far = np.maximum(far, t.max(axis=1, initial=0.0))
        return far

    def estimate(self, value: float, low: float, high: float) -> Estimate:
        if self.positive:
            with np.errstate(over="ignore"):
                value, low, high = (float(np.exp(one)) for one in (value, low, high))
        scale = "log" if self.positive else "linear"
        return Estimate(value, (low, high), float(self.level), self.warnings, scale)


def _squares(parts: np.ndarray) -> np.ndarray:
    """sum_s (p_si - p_sj)^2 for all pairs i, j."""
    return np.stack([((parts[:, [i]] - parts) ** 2).sum(axis=0) for i in range(parts.shape[1])])
