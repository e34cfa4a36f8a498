"""Rates: the exponent of a risk curve with an interval that keeps its promise, comparisons, and verdicts.

The data are always a table `risks` of shape (k, seeds): row i holds the risks of all seeds at n_i. Host code in NumPy
float64; nothing here imports JAX.

How the intervals were chosen (simulated: 6 sizes; chi-square_15, log-normal(1), correlated and unequal risks). For a
nominal 95 %, percentiles of resamples under the weights of the data cover 64-86 % at 4-8 seeds, for two reasons that
each have a cure. (i) The weights are estimates too, so every resample refits its own. (ii) A resample of s seeds has a
variance too small by (s-1)/s, and normal instead of Student tails; so the percentiles are taken at
Phi(+-sqrt(s/(s-1)) t_{s-1}), the *expanded percentile interval* of Hesterberg (The American Statistician 69, 2015).
With both it covers 93-97 % from 4 to 64 seeds; BCa in place of (ii) covers 86-90 % at 4-8. A ratio of two means has no
weights to refit and more skewness: there the bootstrap-t on the log ratio covers best (see `mean_ratio`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, SupportsFloat, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

# numpy's ArrayLike alone leaves tuples out when it is checked at run time.
Numbers: TypeAlias = npt.ArrayLike | Sequence[Any]

# No n may weigh more than 1000 times the average one: a variance near zero is a small sample's accident.
_VARIANCE_FLOOR = 1e-3
# A seed above 10 medians is a failure rather than noise (a failed student costs 20-500 times the usual risk);
# when such seeds carry a fifth of a mean, the mean tells how many failed and not how good the others are.
_TAIL_FACTOR, _TAIL_SHARE = 10.0, 0.2
# Relative deviations below this are rounding.
_ROUNDING = 1e-14
# Below this many seeds percentiles of resamples cannot reach 95 % (two seeds have three resamples).
_FEW_SEEDS = 4
_ALIKE = "the seeds are all alike, so the interval has no width; it says nothing about other seeds."


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: `value`, `interval` (low, high) at `level`, and what to know before trusting it."""

    value: float
    interval: tuple[float, float]
    level: float
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        note = f" ({_plural(len(self.warnings), 'warning')})" if self.warnings else ""
        return f"{self.value:.4g} {_bracket(self.interval)}{note}"


@dataclass(frozen=True, eq=False, repr=False)
class Rate:
    """A power law fitted to a risk curve; see `fit_rate`.

    **Fields:**

    - `exponent`, `interval`, `level`, `standard_error`: mean risk falls as n^{-exponent}; positive means falling.
    - `constant`: C in mean risk = C n^{-exponent}.
    - `n`, `mean_risk`, `mean_se` (k,): the curve, with the standard error of each mean (NaN for a single seed).
    - `present` (k,): how many seeds have a risk at each n; `missing` counts the others.
    - `weights` (k,): the weights 1/var(log mean risk) of the fit.
    - `residuals` (k,): log mean risk minus the fitted line.
    - `local_slopes` (k-1,), `local_intervals` (k-1, 2): exponents between neighbouring n, at the same level.
    - `goodness`: p-value of "one power law holds on the whole window": the share of resamples whose weighted sum of
      squared residuals (a chi-square) reaches the curve's own; small speaks against the power law. The chi-square table
      would not do: shared seeds and estimated variances both break it. NaN with two n, below 4 seeds, or seeds alike.
    - `tail_share` (k,): share of the mean carried by seeds above 10 times the median at that n.
    - `seeds`, `paired`, `seed`: the number of columns, whether they were resampled together, and the bootstrap's seed.
    - `draws`: the exponent of every resample (NaN where a resample left some n without a positive mean).
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
    present: Int[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]
    residuals: Float[np.ndarray, " k"]
    local_slopes: Float[np.ndarray, " k-1"]
    local_intervals: Float[np.ndarray, "k-1 2"]
    goodness: float
    tail_share: Float[np.ndarray, " k"]
    seeds: int
    paired: bool
    seed: int
    draws: Float[np.ndarray, " draws"]
    warnings: tuple[str, ...] = ()

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
        return bool((self.tail_share > _TAIL_SHARE).any())

    def slope_of(self, values: Numbers) -> float:
        """The exponent of another curve on the same n under the weights of this fit.

        Predicted curves bend, so their slope depends on the weights; this one compares like with like. `values` (k,)
        are in the order of `n`. Raises ValueError unless they are finite and positive, one for each n.
        """
        y = _array(values, "values")
        if y.shape != self.n.shape:
            raise ValueError(
                f"values must hold one number for each of the {len(self.n)} n of this fit, shape {self.n.shape}; "
                f"got shape {y.shape}. Evaluate the curve at rate.n."
            )
        _check_positive(y, "values", "Leave the points at or below zero out of the measured fit too.")
        slope, _, _ = _wls(np.log(self.n), np.log(y), 1.0 / self.weights)
        return float(-slope)

    def minus(self, other: "Rate") -> Estimate:
        """The difference of two exponents, self - other, with an interval that uses the pairing of the seeds.

        Both fits must be paired and have equal `seeds`, `seed`, `level` and number of draws: then draw b of both used
        the same seeds, and what the two learners share (data, teachers) cancels. The n may differ.
        Raises ValueError otherwise.
        """
        mine, theirs = ((r.seeds, r.seed, r.level, len(r.draws)) for r in (self, other))
        if not (self.paired and other.paired) or mine != theirs:
            raise ValueError(
                "only fits that were resampled alike can be subtracted: both paired, with equal (seeds, seed, level, "
                f"draws); got {mine} paired={self.paired} and {theirs} paired={other.paired}. Refit them alike."
            )
        return _difference(self, other)

    def __str__(self) -> str:
        notes = _plural(self.seeds, "seed")
        if self.warnings:
            notes += f", {_plural(len(self.warnings), 'warning')}"
        low, high = self.interval
        return (
            f"{self.exponent:.3f} [{low:.3f}, {high:.3f}] over n = {_short(self.n[0])}..{_short(self.n[-1])} ({notes})"
        )

    def __repr__(self) -> str:
        return f"Rate({self})"


def fit_rate(
    n: Numbers,
    risks: Numbers,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> Rate:
    r"""Fits log mean risk = log C - exponent log n.

    Weighted least squares with weights 1 / var(log mean), where var(log mean) = var(mean) / mean^2 (delta method); an n
    with a single seed takes the average relative variance of the others, and no variance counts as less than a
    thousandth of that average. The interval resamples seeds: draw b takes the columns
    `np.random.default_rng(seed).integers(seeds, size=(draws, seeds))[b]` at every n (`paired`) or, with
    `size=(k, draws, seeds)`, other columns at every n, and refits means, weights and slope. Its ends are expanded
    percentiles (module docstring), with the smallest number of seeds at any n for s. Below 4 seeds it is
    exponent +- t_{s-1} standard errors, which over-covers; with one seed it is infinite. Independent columns make it
    too wide below 8 seeds.

    **Arguments:**

    - `n`: (k,) sample sizes, or any other positive axis (width, steps, dimension); strictly increasing, k >= 2.
    - `risks`: (k, seeds); NaN marks a risk that is missing. Means are over the seeds that are there; `missing` and
      `warnings` say how many are not. A failed student left out makes its curve look better than it is.
    - `level`: of the interval.
    - `draws`: number of resamples, at least 100.
    - `seed`: of the resampling. Equal seeds give equal resamples, so that draws of two fits subtract pair by pair.
    - `paired`: whether column j is one seed at all n (shared teacher or data), the engine's design.

    **Returns:** a `Rate`.

    **Raises:** ValueError for shapes that do not fit, n not positive or not increasing, infinite risks, an n without
    risks, a mean risk that is not positive.
    """
    x, table = _array(n, "n"), _array(risks, "risks")
    _check_options(level, draws)
    _check_table(x, table)
    k, seeds = table.shape

    there = ~np.isnan(table)
    present = there.sum(axis=1)
    mean = np.where(there, table, 0.0).sum(axis=1) / np.maximum(present, 1)
    for i in range(k):
        if present[i] == 0:
            raise ValueError(f"there is no risk at n = {_short(x[i])}: all {seeds} are NaN. Leave this n out.")
        if mean[i] <= 0:
            raise ValueError(
                f"the mean risk at n = {_short(x[i])} is {mean[i]:.4g}; a power law needs positive means. "
                "Leave this n out, or estimate its risk with less error."
            )

    # Relative deviations: squares of risks as small as 1e-200 would underflow, and centred ones do not cancel. What is
    # left of equal numbers after rounding is no deviation.
    z = np.where(there, table / mean[:, None] - 1.0, 0.0)
    z = np.where(np.abs(z) < _ROUNDING, 0.0, z)
    second = (z * z).sum(axis=1) / present
    variance = _log_mean_variance(second, np.ones(k), present)
    slope, intercept, residuals = _wls(np.log(x), np.log(mean), variance)

    # (rows, draws, seeds) @ (rows, seeds, columns): all sums of all draws in one product.
    counts = _resamples(seeds, draws, seed, None if paired else k)
    sums = np.stack([z, z * z, there.astype(float)])
    if paired:
        sums = (counts @ sums.reshape(3 * k, seeds).T).reshape(draws, 3, k).transpose(1, 0, 2)
    else:
        sums = np.matmul(counts, sums.transpose(1, 2, 0)).transpose(2, 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shift, square = sums[0] / sums[2], sums[1] / sums[2]
        relative = np.where(shift > -1.0, 1.0 + shift, np.nan)
        log_mean = np.log(mean) + np.log(relative)
        slopes, _, all_residuals = _wls(np.log(x), log_mean, _log_mean_variance(square - shift**2, relative, sums[2]))
    good = np.isfinite(slopes)

    least = int(present.min())
    step = np.diff(np.log(x))
    local = -np.diff(np.log(mean)) / step
    interval, standard_error = _interval(-slopes[good], float(-slope), least, level)
    local_draws = -np.diff(log_mean[good], axis=1) / step
    local_intervals = [_interval(local_draws[:, i], float(local[i]), least, level)[0] for i in range(k - 1)]

    goodness = float("nan")
    if k > 2 and least >= _FEW_SEEDS and second.max() > 0.0 and good.any():
        # Centred at the fit's own residuals, the resamples show what scatter alone would do. Weights stay those of
        # the data: refitted ones would make the statistic's null distribution far too wide at few seeds.
        excess = ((all_residuals[good] - residuals) ** 2 / variance).sum(axis=1) * least / (least - 1)
        goodness = float((excess >= (residuals**2 / variance).sum()).mean())

    tail_share = np.array([_tail_share(row[ok]) for row, ok in zip(table, there, strict=True)])
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_se = np.where(present > 1, mean * np.sqrt(second / (present - 1.0)), np.nan)
    return Rate(
        exponent=float(-slope),
        interval=interval,
        level=float(level),
        standard_error=standard_error,
        constant=float(np.exp(intercept)),
        n=x,
        mean_risk=mean,
        mean_se=mean_se,
        present=present,
        weights=1.0 / variance,
        residuals=residuals,
        local_slopes=local,
        local_intervals=np.array(local_intervals),
        goodness=goodness,
        tail_share=tail_share,
        seeds=seeds,
        paired=paired,
        seed=seed,
        draws=-slopes,
        warnings=_rate_warnings(x, seeds, present, tail_share, second, goodness, draws - int(good.sum())),
    )


def compare_rates(
    n: Numbers,
    risks_a: Numbers,
    risks_b: Numbers,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> Estimate:
    """The difference of two exponents, a - b: positive where a learns faster.

    Both curves are fitted as in `fit_rate`. With `paired`, column j is the same seed in both tables and at every n, and
    both are resampled together; otherwise all columns are taken as independent. The interval is the expanded percentile
    interval of the differences (for 95 % it covers 98-99 % at 4-8 seeds, 94 % at 64). Curves on different n: fit each
    with `fit_rate` and call `a.minus(b)`.

    Raises ValueError as `fit_rate` does, and when paired tables differ in their number of seeds.
    """
    _check_options(level, draws)
    fits = []
    # Another seed where nothing is shared: equal resamples would invent a correlation.
    for name, risks, stream in (("risks_a", risks_a, seed), ("risks_b", risks_b, seed if paired else seed + 1)):
        try:
            fits.append(fit_rate(n, risks, level=level, draws=draws, seed=stream, paired=paired))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    a, b = fits
    if paired and a.seeds != b.seeds:
        raise ValueError(
            f"a paired comparison needs the same seeds in both tables, got {a.seeds} and {b.seeds} columns. "
            "Give the common seeds, or pass paired=False."
        )
    return _difference(a, b)


def mean_ratio(
    numerator: Numbers,
    denominator: Numbers | SupportsFloat,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> Estimate:
    """The ratio mean(numerator) / mean(denominator) of mean risks, or of a mean risk to a constant.

    The interval is the bootstrap-t on the log ratio: with s.e.(log ratio) by the delta method, resamples of the seeds
    give the quantiles q of (log ratio* - log ratio) / s.e.*, and the ends are ratio exp(-q s.e.). Logarithms keep it
    positive and make a/b and b/a agree; studentising keeps its coverage at few, skewed seeds. Simulated coverage of the
    95 % interval at 4, 8, 16 and 64 seeds: 94-95 % for chi-square_15 risks; 89-94 % for log-normal(1) ones, where
    percentile and BCa intervals against a constant cover 67-85 % at 4-16. At 4 seeds it is very wide. At 2 or 3 seeds,
    too few to studentise, it is the Student interval log ratio +- t_{s-1} s.e.; at one seed it is (0, inf).

    **Arguments:**

    - `numerator`: (seeds,) risks, NaN where missing.
    - `denominator`: (seeds,) risks, or one positive number (a Cramér-Rao limit, a computed risk).
    - `level`, `draws`, `seed`: as in `fit_rate`.
    - `paired`: whether entry j of both is one seed. Then seeds with either risk missing are left out of both.

    **Returns:** an `Estimate`.

    **Raises:** ValueError for shapes that do not fit, infinite risks, no risks, means that are not positive.
    """
    _check_options(level, draws)
    a, b = _array(numerator, "numerator"), _array(denominator, "denominator")
    if a.ndim != 1 or b.ndim > 1:
        raise ValueError(
            f"the numerator must have shape (seeds,), the denominator (seeds,) or (); got {a.shape} and {b.shape}."
        )
    _check_not_infinite(a, "numerator")
    _check_not_infinite(b, "denominator")
    together = paired or b.ndim == 0
    if b.ndim == 0:
        total = len(a)
        b = np.full(a.shape, b)
    elif together and len(a) != len(b):
        raise ValueError(
            f"paired risks need the same seeds in numerator and denominator, got {len(a)} and {len(b)}. "
            "Give the common seeds, or pass paired=False."
        )
    else:
        total = len(a) if together else len(a) + len(b)
    keep_a, keep_b = ~np.isnan(a), ~np.isnan(b)
    if together:
        keep_a = keep_b = keep_a & keep_b
    a, b = a[keep_a], b[keep_b]
    missing = total - (len(a) if together else len(a) + len(b))
    for name, values in (("numerator", a), ("denominator", b)):
        if values.size == 0:
            raise ValueError(f"the {name} has no risks: none was given, or all are missing (NaN).")
        if not values.mean() > 0:
            raise ValueError(f"the mean of the {name} is {values.mean():.4g}; a ratio of risks needs positive means.")

    warnings = []
    if missing:
        warnings.append(f"{missing} of {_plural(total, 'seed')} left out because a risk is missing (NaN).")
    for name, values in (("numerator", a), ("denominator", b)):
        share = _tail_share(values)
        if share > _TAIL_SHARE:
            warnings.append(_heavy_tail_sentence(share, f"of the {name}") + " Give the median ratio beside this one.")
    least = min(len(a), len(b))
    warnings += _few_seeds_warning(least)
    ratio = float(a.mean() / b.mean())
    if least == 1:
        return Estimate(ratio, (0.0, np.inf), float(level), tuple(warnings))

    if together:
        shifts, variance, variances = _log_ratio_resamples(a, b, draws, seed)
    else:
        shifts, variance, variances = _log_ratio_resamples(a, np.ones_like(a), draws, seed)
        shifts_b, variance_b, variances_b = _log_ratio_resamples(b, np.ones_like(b), draws, seed + 1)
        shifts, variance, variances = shifts - shifts_b, variance + variance_b, variances + variances_b
    if variance < _ROUNDING**2:
        warnings.append(_ALIKE)
    # A resample of one seed again and again has no standard error to divide by.
    usable = variances > 1e-6 * variance
    if least < _FEW_SEEDS or not usable.any():
        q = _student_quantile(least, level) * np.array([1.0, -1.0])
    else:
        t = shifts[usable] / np.sqrt(variances[usable])
        q = np.quantile(t, [0.5 + level / 2, 0.5 - level / 2])
    with np.errstate(over="ignore"):
        low, high = ratio * np.exp(-q * np.sqrt(variance))
    return Estimate(ratio, (float(low), float(high)), float(level), tuple(warnings))


def share(successes: Numbers, *, level: float = 0.95) -> Estimate:
    """The share of ones among independent zeros and ones, with the exact interval of Clopper & Pearson (1934).

    Its coverage is never below `level`, also where all trials succeed: 300 of 300 gives [0.988, 1], where a bootstrap
    would claim certainty.

    **Arguments:** `successes` (seeds,), 0 or 1 each, NaN where missing; `level` of the interval.

    **Raises:** ValueError for values that are neither, or when there are none.
    """
    _check_options(level, 1000)
    values = _array(successes, "successes")
    if values.ndim != 1:
        raise ValueError(f"successes must have shape (seeds,), got {values.shape}.")
    kept = values[~np.isnan(values)]
    if kept.size == 0:
        raise ValueError("there are no successes or failures: none was given, or all are missing (NaN).")
    if not is_binary(kept):
        wrong = kept[(kept != 0) & (kept != 1)][0]
        raise ValueError(f"successes must be 0 or 1, got {wrong:g}. For means of other numbers use mean_ratio.")
    missing = values.size - kept.size
    warnings = (
        (f"{missing} of {_plural(values.size, 'seed')} left out because it is missing (NaN).",) if missing else ()
    )
    from scipy.stats import binomtest

    result = binomtest(int(kept.sum()), kept.size).proportion_ci(level, method="exact")
    return Estimate(float(kept.mean()), (float(result.low), float(result.high)), float(level), warnings)


def is_binary(values: Numbers) -> bool:
    """Whether every value that is not NaN is 0 or 1."""
    values = np.asarray(values, dtype=float)
    return bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all())


@dataclass(frozen=True)
class Verdict:
    """Whether a measured number is what it should be; see `judge`.

    **Fields:** `what` was measured; `outcome`; the measured `value` and `interval`; the `allowed` range (low, high);
    `reason`, a sentence with the numbers; `source` of the allowed range.
    """

    what: str
    outcome: Literal["holds", "fails", "undecided"]
    value: float
    interval: tuple[float, float]
    allowed: tuple[float, float]
    reason: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.outcome} ({self.value:.4g}; {self.reason})"


def judge(
    what: str,
    value: SupportsFloat,
    interval: tuple[SupportsFloat, SupportsFloat],
    allowed: tuple[SupportsFloat, SupportsFloat],
    source: str = "",
) -> Verdict:
    """Compares a measured interval with an allowed range.

    `holds` if the interval lies inside the range, `fails` if the two are disjoint, `undecided` if they merely overlap
    (more seeds would decide) or if a number is NaN. The ends of `allowed` belong to it and may be infinite.

    Raises ValueError when `allowed` or `interval` has its ends in the wrong order, or `allowed` has a NaN.
    """
    value, low, high = float(value), float(interval[0]), float(interval[1])
    least, most = float(allowed[0]), float(allowed[1])
    if not least <= most:
        raise ValueError(
            f"allowed for {what!r} must be (low, high) with low <= high, got ({least:g}, {most:g}). "
            "Use -inf or inf for an open end."
        )
    if low > high:
        raise ValueError(f"the interval of {what!r} must be (low, high) with low <= high, got ({low:g}, {high:g}).")
    measured, permitted = _bracket((low, high)), _bracket((least, most))
    if np.isnan([value, low, high]).any():
        outcome, reason = "undecided", f"not a number: value {value:.4g}, interval {measured}, allowed {permitted}"
    elif least <= low and high <= most:
        outcome, reason = "holds", f"interval {measured} lies inside {permitted}"
    elif high < least:
        outcome, reason = "fails", f"interval {measured} lies below {permitted}"
    elif low > most:
        outcome, reason = "fails", f"interval {measured} lies above {permitted}"
    else:
        outcome, reason = "undecided", f"interval {measured} lies partly outside {permitted}; more seeds narrow it"
    return Verdict(what, outcome, value, (low, high), (least, most), reason, source)


def _wls(x, y, variance):
    """Slope, intercept and residuals of y on x (k,) with weights 1/variance; y and variance may have batch axes."""
    w = 1.0 / variance
    w = w / w.sum(axis=-1, keepdims=True)
    x_bar, y_bar = (w * x).sum(axis=-1, keepdims=True), (w * y).sum(axis=-1, keepdims=True)
    dx, dy = x - x_bar, y - y_bar
    slope = (w * dx * dy).sum(axis=-1, keepdims=True) / (w * dx * dx).sum(axis=-1, keepdims=True)
    return slope[..., 0], (y_bar - slope * x_bar)[..., 0], dy - slope * dx


def _log_mean_variance(second, mean, count):
    """var(mean) / mean^2 along the last axis (k), from the second central moment of `count` seeds.

    Where one seed tells nothing, the average of the others stands in; if no n has any variance, all seeds count alike.
    """
    known = count > 1
    one = np.where(known, second * count / np.maximum(count - 1.0, 1.0) / mean**2, 0.0)
    typical = one.sum(axis=-1, keepdims=True) / np.maximum(known.sum(axis=-1, keepdims=True), 1)
    one = np.where(known, np.maximum(one, _VARIANCE_FLOOR * typical), typical)
    return np.where(typical > 0.0, one, 1.0) / count


@lru_cache(maxsize=4)
def _resamples(seeds: int, draws: int, seed: int, rows: int | None = None) -> np.ndarray:
    """How often each resample takes each seed, (draws, seeds), or (rows, draws, seeds) for independent rows.

    Cached: a sweep fits hundreds of curves of one shape, and equal resamples are what makes their draws paired.
    """
    shape = (draws, seeds) if rows is None else (rows, draws, seeds)
    chosen = np.random.default_rng(seed).integers(seeds, size=shape).reshape(-1, seeds)
    flat = (chosen + seeds * np.arange(len(chosen))[:, None]).ravel()
    counts = np.bincount(flat, minlength=chosen.size).astype(np.float64).reshape(shape)
    counts.flags.writeable = False
    return counts


def _log_ratio_resamples(a, b, draws: int, seed: int):
    """log mean(a)/mean(b) under paired resampling: shift of every draw, delta-method variance, that of every draw."""
    shares = _resamples(len(a), draws, seed) / len(a)
    u, v = a / a.mean(), b / b.mean()
    d, e = shares @ u, shares @ v
    with np.errstate(divide="ignore", invalid="ignore"):
        shifts = np.log(d) - np.log(e)
        # The second moment of u/d - v/e, whose mean under the draw's own shares is 0.
        moments = shares @ u**2 / d**2 + shares @ v**2 / e**2 - 2.0 * (shares @ (u * v)) / (d * e)
    # A mean at or below 0 has no logarithm: NaN variances are never usable.
    moments = np.where(np.isfinite(shifts), np.maximum(moments, 0.0), np.nan)
    return shifts, float(((u - v) ** 2).mean() / (len(a) - 1)), moments / (len(a) - 1)


def _student_quantile(seeds: int, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1, 0.5 + level / 2))


def _interval(draws, value: float, seeds: int, level: float) -> tuple[tuple[float, float], float]:
    """The interval and the standard error of a statistic from its resamples; see the module docstring."""
    from scipy.special import ndtr

    if seeds < 2 or len(draws) == 0:
        return (-np.inf, np.inf), np.inf
    widen = np.sqrt(seeds / (seeds - 1))
    standard_error = float(draws.std() * widen)
    t = _student_quantile(seeds, level)
    if seeds < _FEW_SEEDS:
        return (value - t * standard_error, value + t * standard_error), standard_error
    low, high = np.quantile(draws, ndtr([-t * widen, t * widen]))
    return (float(low), float(high)), standard_error


def _difference(a: Rate, b: Rate) -> Estimate:
    draws = a.draws - b.draws
    value = a.exponent - b.exponent
    least = int(min(a.present.min(), b.present.min()))
    interval, _ = _interval(draws[np.isfinite(draws)], value, least, a.level)
    warnings = [f"{name}: {text}" for name, fit in (("a", a), ("b", b)) for text in fit.warnings]
    return Estimate(value, interval, a.level, tuple(warnings))


def _tail_share(risks) -> float:
    """Share of the sum carried by risks above ten medians."""
    return float(risks[risks > _TAIL_FACTOR * max(np.median(risks), 0.0)].sum() / risks.sum())


def _heavy_tail_sentence(share: float, where: str) -> str:
    return (
        f"heavy tail: seeds above {_TAIL_FACTOR:g} times the median carry {100 * share:.0f} % of the mean {where}, so "
        "a few seeds decide it and the interval may miss."
    )


def _few_seeds_warning(least: int) -> list[str]:
    if least == 1:
        return ["one seed: there is no interval. Give at least 4 seeds."]
    if least < _FEW_SEEDS:
        return [f"only {least} seeds: the interval is rough and very wide. Give at least 4 seeds."]
    return []


def _rate_warnings(x, seeds, present, tail_share, second, goodness, lost_draws) -> tuple[str, ...]:
    """What a reader of the number must know."""
    found = []
    if (present < seeds).any():
        where = ", ".join(f"{_short(a)} ({seeds - c})" for a, c in zip(x, present, strict=True) if c < seeds)
        found.append(
            f"{int((seeds - present).sum())} of {seeds * len(x)} risks are missing (NaN), at n = {where}; "
            "means are over the seeds that are there."
        )
    worst = int(np.argmax(tail_share))
    if tail_share[worst] > _TAIL_SHARE:
        found.append(
            _heavy_tail_sentence(tail_share[worst], f"at n = {_short(x[worst])}")
            + " The weighted fit all but ignores such an n: give median and success share beside the rate."
        )
    least = int(present.min())
    found += _few_seeds_warning(least)
    # Two or three seeds agree by chance: nothing to report.
    many = present >= _FEW_SEEDS
    floored = np.flatnonzero(many & (second < _VARIANCE_FLOOR * second[present > 1].mean())) if many.any() else []
    if least > 1 and second.max() == 0.0:
        found.append(_ALIKE)
    elif len(floored):
        where = ", ".join(_short(x[i]) for i in floored)
        found.append(f"the seeds hardly vary at n = {where}; the weight there is capped.")
    if goodness < 0.01:
        found.append(
            f"the curve bends: one power law on n = {_short(x[0])}..{_short(x[-1])} has p = {goodness:.3f}; "
            "see local_slopes, or narrow the window."
        )
    if lost_draws:
        found.append(f"{_plural(lost_draws, 'resample')} left out: without a positive mean at some n.")
    return tuple(found)


def _array(values: Numbers | SupportsFloat, name: str) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers in a rectangular array; NumPy says: {error}") from error


def _check_options(level: float, draws: int) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is a probability strictly between 0 and 1, such as 0.95; got {level}.")
    if draws < 100:
        raise ValueError(f"an interval needs at least 100 draws (2000 is a good number), got draws={draws}.")


def _check_positive(values: np.ndarray, name: str, advice: str) -> None:
    for i, value in enumerate(values):
        if not 0.0 < value < np.inf:
            raise ValueError(f"{name} must be finite and positive, got {value:g} at index {i}. {advice}")


def _check_not_infinite(values: np.ndarray, name: str) -> None:
    bad = np.isinf(values)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} has {_plural(int(bad.sum()), 'infinite value')}, the first at index {where}. Give failed students "
            "as NaN (they are then counted as missing) or leave them out."
        )


def _check_table(x: np.ndarray, table: np.ndarray) -> None:
    if x.ndim != 1 or table.ndim != 2 or table.shape[0] != len(x) or table.shape[1] == 0:
        raise ValueError(
            f"expected n of shape (k,) and risks of shape (k, seeds), got {x.shape} and {table.shape}. "
            "Row i of risks holds the risks of all seeds at n[i]."
        )
    _check_positive(x, "n", "A power law has no point there; leave it out.")
    if len(np.unique(x)) < 2:
        raise ValueError(f"an exponent needs at least 2 different n, got {[float(v) for v in x]}.")
    if not (np.diff(x) > 0).all():
        raise ValueError(
            f"n must increase strictly, got {[float(v) for v in x]}. Sort n and the rows of risks together; "
            "put the seeds of equal n into one row."
        )
    _check_not_infinite(table, "risks")


def _bracket(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.4g}, {interval[1]:.4g}]"


def _short(value) -> str:
    return f"{int(value)}" if float(value).is_integer() and value < 1e9 else f"{value:.4g}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
