"""Comparisons of exponents, of mean risks and of shares; simultaneous intervals for many curves; where one curve overtakes
another."""

from collections.abc import Mapping
from typing import SupportsFloat

import numpy as np

from .diagnostics import ALIKE, few_seeds_warning, heavy_tail_sentence
from .intervals import FEW_SEEDS, Estimate, expanded_percentiles, last_fall, student_quantile
from .means import LEAST_VARIANCE
from .metrics import check_risks
from .models import AbstractModel, Method
from .rate import Rate, contrast, fit_rate
from .table import (
    ROUNDING,
    TAIL_SHARE,
    Numbers,
    Resamples,
    as_array,
    check_not_infinite,
    check_options,
    check_table,
    make_table,
    plural,
    tail_share,
)


def compare_rates(
    n: Numbers,
    risks_a: Numbers,
    risks_b: Numbers,
    *,
    model: str | AbstractModel = "power",
    method: Method = "wls",
    groups: Numbers | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> Estimate:
    """The difference of two exponents, a - b: positive if a learns faster.

    Both curves are fitted as in `fit_rate`. With `paired`, column j is the same seed in both tables and at every n, and both
    are resampled together; otherwise all columns are taken as independent. The interval is the expanded percentile interval of
    the differences. For curves on different n, or for ratios of exponents, fit each curve with `fit_rate` and call `a.minus(b)`
    or `a.over(b)`.

    Raises ValueError as `fit_rate` does, and if paired tables differ in their number of seeds.

    >>> n, rng = 2.0 ** np.arange(7, 13), np.random.default_rng(0)
    >>> noise = rng.chisquare(15, (6, 32)) / 15
    >>> print(ts.compare_rates(n, noise / n[:, None], noise / n[:, None] ** 0.5))
    0.5 [0.5, 0.5]
    """
    check_options(level, draws)
    fits = []
    # Unpaired tables get different seeds of the bootstrap: equal resamples would create a correlation that is not there.
    for name, risks, stream in (("risks_a", risks_a, seed), ("risks_b", risks_b, seed if paired else seed + 1)):
        try:
            fits.append(
                fit_rate(
                    n,
                    risks,
                    model=model,
                    method=method,
                    groups=groups,
                    level=level,
                    draws=draws,
                    seed=stream,
                    paired=paired,
                )
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    a, b = fits
    if paired and a.seeds != b.seeds:
        raise ValueError(
            f"a paired comparison needs the same seeds in both tables, got {a.seeds} and {b.seeds} columns. "
            "Give the common seeds, or pass paired=False."
        )
    # The difference of two exponents that are both infinite with the same sign is NaN.
    with np.errstate(invalid="ignore"):
        return contrast(a, b, a.exponent - b.exponent, a.draws - b.draws)


def simultaneous(rates: Mapping[str, Rate], *, against: str | None = None, level: float = 0.95) -> dict[str, Estimate]:
    """Intervals for many exponents, or for their differences from one of them, that all hold at once with probability `level`.

    The method is max-t (Westfall & Young 1993). The exponents of every draw are turned into normal scores of their ranks; the
    `level` quantile q of the largest absolute score over the curves gives the level 2 Phi(q) - 1 of each interval. Curves that
    share seeds are correlated, so these intervals are shorter than Bonferroni's.

    **Arguments:** `rates` by name, resampled alike (see `Rate.minus`); `against`: the name of the rate to subtract from the
    others.

    **Raises:** ValueError for fewer than two rates, an unknown name, rates that were not resampled alike, or one whose exponent
    is not identified.
    """
    from scipy.special import ndtr, ndtri
    from scipy.stats import rankdata

    check_options(level)
    names = [name for name in rates if name != against]
    if len(rates) < 2:
        raise ValueError(f"simultaneous intervals need at least two rates, got {len(rates)}.")
    if against is not None and against not in rates:
        raise ValueError(f"against names {against!r}, which is not among the rates: {', '.join(rates)}.")
    unknown = [name for name, rate in rates.items() if not rate.identified]
    if unknown:
        raise ValueError(
            f"the exponent of {', '.join(unknown)} is not identified, so no bounded intervals hold at once with it; leave "
            "it out, or fit a simpler model."
        )
    first = rates[names[0] if against is None else against]
    for rate in rates.values():
        rate.check_paired_with(first)
    base, value = (0.0, 0.0) if against is None else (first.draws, first.exponent)
    draws = np.array([rates[name].draws - base for name in names])
    kept = draws[:, np.isfinite(draws).all(axis=0)]
    if kept.shape[1] == 0:
        raise ValueError("no resample has an exponent for every curve; give more seeds.")
    scores = np.abs(ndtri((rankdata(kept, axis=1) - 0.5) / kept.shape[1])).max(axis=0)
    each = float(2.0 * ndtr(np.quantile(scores, level)) - 1.0)
    found = {}
    for name, row in zip(names, kept, strict=True):
        seeds = min(rates[name].effective_seeds, first.effective_seeds)
        difference = rates[name].exponent - value
        found[name] = Estimate(
            difference, expanded_percentiles(row, difference, seeds, each)[0], level, rates[name].warnings
        )
    return found


def crossing(
    n: Numbers,
    risks_a: Numbers,
    risks_b: Numbers,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
    positive: bool = True,
) -> Estimate:
    """The n* from which on the mean risk of a stays below that of b, with its interval.

    Between measured n the log ratio of the means is interpolated linearly in log n, and n* is where it last falls through 0; so
    neither curve needs to be a power law. If not `positive` (shares, truth values, numbers of any sign), the difference of the
    means takes the place of the log ratio. n* is 0 if a is below b at every n (a overtook before the first n), and infinite if
    a is not below b at the last n; an end of the interval can also be 0 or infinite. Seeds are resampled as in `fit_rate`, the
    same in both curves if `paired`.

    Raises ValueError as `fit_rate` does, if paired tables differ in their number of seeds, and, if `positive`, for values that
    are not risks (see `mean_ratio`).

    >>> n, rng = 2.0 ** np.arange(4, 10), np.random.default_rng(0)
    >>> noise = lambda: rng.chisquare(15, (6, 64)) / 15
    >>> print(ts.crossing(n, 64 / n[:, None] * noise(), 8 / n[:, None] ** 0.5 * noise()))
    55.8 [49.5, 69.2]
    """
    check_options(level, draws)
    tables = []
    for name, risks in (("risks_a", risks_a), ("risks_b", risks_b)):
        try:
            tables.append(_Risks(n, risks) if positive else _Values(n, risks))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    a, b = tables
    if paired and a.number != b.number:
        raise ValueError(
            f"a paired comparison needs the same seeds in both tables, got {a.number} and {b.number} columns. "
            "Give the common seeds, or pass paired=False."
        )
    value = float(last_fall(np.log(a.x), (a.levels(None) - b.levels(None))[None])[0])
    streams = (seed, seed if paired else seed + 1)
    rows = None if paired else len(a.x)
    resampled = [one.levels(Resamples(one.number, draws, s, rows)) for one, s in zip(tables, streams, strict=True)]
    difference = resampled[0] - resampled[1]
    found = last_fall(np.log(a.x), difference[np.isfinite(difference).all(axis=1)])
    least = float(min(a.present.min(), b.present.min()))
    if least < FEW_SEEDS:
        interval = (0.0, np.inf)
    else:
        low, high = expanded_percentiles(found, value, least, level)[0]
        interval = (float(np.exp(low)), float(np.exp(high)))
    notes = few_seeds_warning(int(least))
    for name, table in zip("ab", tables, strict=True):
        notes += [f"{name}: {note}" for note in table.notes()]
    return Estimate(float(np.exp(value)), interval, float(level), tuple(notes), "log")


class _Risks:
    """A table of risks (k, seeds) over `x`: `levels` are the logarithms of the means of the table or of its resamples."""

    def __init__(self, n: Numbers, risks: Numbers):
        self._table = make_table(n, risks)
        self.x, self.number, self.present = self._table.x, self._table.number, self._table.units_present
        for x, row in zip(self.x, self._table.risks, strict=True):
            check_risks(row, f"the risk at n = {x:g}")

    def levels(self, taken: Resamples | None) -> np.ndarray:
        return self._table.means(taken).log_mean

    def notes(self) -> list[str]:
        rows = zip(self.x, self._table.risks, self._table.there, strict=True)
        shares = [(x, tail_share(row[there])) for x, row, there in rows]
        return [heavy_tail_sentence(share, f"at n = {x:g}") for x, share in shares if share > TAIL_SHARE]


class _Values:
    """A table of numbers of any sign (k, seeds) over `x`: `levels` are the means of the table or of its resamples."""

    def __init__(self, n: Numbers, values: Numbers):
        self.x, table = as_array(n, "n"), as_array(values, "values")
        check_table(self.x, table)
        self._there, self.number = ~np.isnan(table), table.shape[1]
        self._values, self.present = np.where(self._there, table, 0.0), self._there.sum(axis=1)
        if not self.present.all():
            raise ValueError(f"there is no value at n = {self.x[self.present == 0][0]:g}. Leave this n out.")

    def levels(self, taken: Resamples | None) -> np.ndarray:
        if taken is None:
            return self._values.sum(axis=1) / self.present
        return taken.each(lambda counts: (self._means(counts),))[0]

    def _means(self, counts: np.ndarray) -> np.ndarray:
        """Means (draws, k) for multiplicities (draws, seeds) or (k, draws, seeds); NaN where a resample has no value."""
        each = "ds,ks->dk" if counts.ndim == 2 else "kds,ks->dk"
        total, size = (np.einsum(each, counts, one) for one in (self._values, self._there.astype(float)))
        with np.errstate(invalid="ignore"):
            return total / size

    def notes(self) -> list[str]:
        return []


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

    The interval is the bootstrap-t on the log ratio: with s.e.(log ratio) by the delta method, resamples of the seeds give the
    quantiles q of (log ratio* - log ratio) / s.e.*, and the ends are ratio exp(-q s.e.). Logarithms keep the interval positive
    and make a/b and b/a agree; studentising helps with few, skewed seeds. The variance of a resample counts as at least a tenth
    of that of the sample; otherwise resamples that leave out one extreme seed would make the interval wider by orders of
    magnitude. Simulated coverage of the 95 % interval at 4, 8, 16 and 64 seeds (`benchmarks/RESULTS.md`): 93-95 % for
    chi-square_15 risks, 88-93 % for log-normal(1) ones; 47, 37, 56 and 95 % if one seed in 20 is 10 times larger, since a
    sample without such a seed carries no sign of them. With 2 or 3 seeds, too few to studentise, it is Student's interval log
    ratio +- t_{s-1} s.e.; with one seed it is (0, inf).

    **Arguments:**

    - `numerator`: (seeds,) risks, NaN where missing.
    - `denominator`: (seeds,) risks, or one positive number, such as a Cramér-Rao limit.
    - `level`, `draws`, `seed`: as in `fit_rate`.
    - `paired`: whether entry j of both belongs to the same seed. If so, seeds for which either risk is missing are left out of
      both.

    **Returns:** an `Estimate`.

    It takes only risks. Use `mean` for metrics of both signs, `share_of_trials` for error rates or accuracies, and `share` for
    truth values.

    **Raises:** ValueError for shapes that do not fit, infinite risks, no risks, a constant that is not positive, and values
    that are not risks: one of them is negative or exactly 0, or two or more are exactly 1 and none is larger. The message says
    what to do.

    >>> rng = np.random.default_rng(0)
    >>> print(ts.mean_ratio(rng.chisquare(15, 64), 2 * rng.chisquare(15, 64)))
    0.501 [0.442, 0.568]
    """
    check_options(level, draws)
    a, b = as_array(numerator, "numerator"), as_array(denominator, "denominator")
    if a.ndim != 1 or b.ndim > 1:
        raise ValueError(
            f"the numerator must have shape (seeds,), the denominator (seeds,) or (); got {a.shape} and {b.shape}."
        )
    check_not_infinite(a, "numerator")
    check_not_infinite(b, "denominator")
    constant = b.ndim == 0
    together = paired or constant
    if constant:
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
        if name == "denominator" and constant:
            if not values[0] > 0:
                raise ValueError(f"the denominator is {values[0]:.4g}; a ratio of risks needs a positive one.")
        else:
            check_risks(values, f"the {name}")

    warnings = []
    if missing:
        warnings.append(f"{missing} of {plural(total, 'seed')} left out because a risk is missing (NaN).")
    for name, values in (("numerator", a), ("denominator", b)):
        share = tail_share(values)
        if share > TAIL_SHARE:
            warnings.append(heavy_tail_sentence(share, f"of the {name}") + " Give the median ratio beside this one.")
    least = min(len(a), len(b))
    warnings += few_seeds_warning(least)
    ratio = float(a.mean() / b.mean())
    if least == 1:
        return Estimate(ratio, (0.0, np.inf), float(level), tuple(warnings), "log")

    if together:
        shifts, variance, variances = _log_ratio_resamples(a, b, draws, seed)
    else:
        shifts, variance, variances = _log_ratio_resamples(a, np.ones_like(a), draws, seed)
        shifts_b, variance_b, variances_b = _log_ratio_resamples(b, np.ones_like(b), draws, seed + 1)
        shifts, variance, variances = shifts - shifts_b, variance + variance_b, variances + variances_b
    if variance < ROUNDING**2:
        warnings.append(ALIKE)
    if least < FEW_SEEDS or variance == 0:
        q = student_quantile(least, level) * np.array([1.0, -1.0])
    else:
        t = shifts / np.sqrt(np.maximum(variances, LEAST_VARIANCE * variance))
        q = np.quantile(t, [0.5 + level / 2, 0.5 - level / 2])
    with np.errstate(over="ignore"):
        low, high = ratio * np.exp(-q * np.sqrt(variance))
    return Estimate(ratio, (float(low), float(high)), float(level), tuple(warnings), "log")


def share(successes: Numbers, *, level: float = 0.95) -> Estimate:
    """The share of ones among independent zeros and ones, with the exact interval of Clopper & Pearson (1934).

    Its coverage is never below `level`, even if all trials succeed: 300 of 300 gives [0.988, 1], while a bootstrap would give
    an interval of length 0.

    **Arguments:** `successes` (seeds,), 0 or 1 each, NaN where missing; `level` of the interval.

    **Raises:** ValueError for values other than 0 and 1, or if there are no values.

    >>> print(ts.share(np.ones(300)))
    1.000 [0.988, 1.000]
    """
    check_options(level)
    values = as_array(successes, "successes")
    if values.ndim != 1:
        raise ValueError(f"successes must have shape (seeds,), got {values.shape}.")
    kept = values[~np.isnan(values)]
    if kept.size == 0:
        raise ValueError("there are no successes or failures: none was given, or all are missing (NaN).")
    wrong = kept[(kept != 0) & (kept != 1)]
    if wrong.size:
        raise ValueError(f"successes must be 0 or 1, got {wrong[0]:g}. For means of risks use mean_ratio.")
    missing = values.size - kept.size
    warnings = (f"{missing} of {plural(values.size, 'seed')} left out because it is missing (NaN).",) if missing else ()
    from scipy.stats import binomtest

    result = binomtest(int(kept.sum()), kept.size).proportion_ci(level, method="exact")
    return Estimate(float(kept.mean()), (float(result.low), float(result.high)), float(level), warnings, "exact")


def _log_ratio_resamples(a, b, draws: int, seed: int):
    """log mean(a)/mean(b) under paired resampling: the shift of every draw, the delta-method variance, and that of every
    draw."""
    u, v = a / a.mean(), b / b.mean()
    parts = np.stack([u, v, u**2, v**2, u * v], axis=1)
    (sums,) = Resamples(len(a), draws, seed).each(lambda counts: (counts @ parts,))
    d, e, uu, vv, uv = sums.T / len(a)
    # The second moment of u/d - v/e, whose mean under the draw's own shares is 0.
    moments = np.maximum(uu / d**2 + vv / e**2 - 2.0 * uv / (d * e), 0.0)
    return np.log(d) - np.log(e), float(((u - v) ** 2).mean() / (len(a) - 1)), moments / (len(a) - 1)
