"""Group-sequential intervals: they hold at every look at a growing number of seeds.

A run may add seeds while a verdict is undecided, and stop once it is decided. An interval that holds with probability 95 % at
one fixed number of seeds then misses the truth at *some* look much more often than 5 % (`python -m benchmarks peeking`). The
remedy is a group-sequential design: the user fixes the largest number of seeds `most`, at which the plan ends, and the error
probability 1 - level is spent over the looks. After the share t = s / most of the seeds, (1 - level) t^2 of it has been spent
(Kim & DeMets, Biometrika 74, 1987, their family with the power 2). Look k gets the bound z_k for which the first of |Z_1| >
z_1, ..., |Z_k| > z_k happens at look k with the probability that is spent between looks k-1 and k (Lan & DeMets, Biometrika 70,
1983). The intervals value -+ z_k s.e. then hold at all looks at once with probability `level` (repeated confidence intervals:
Jennison & Turnbull, Journal of the Royal Statistical Society B 51, 1989).

This requires that the estimates at the looks behave as means over a growing number of independent seeds: jointly normal, with
the correlation sqrt(t_j / t_k). Smooth functions of means over seeds do so asymptotically: means, ratios and differences of
means, and exponents fitted to mean risks. Looks need no schedule, but the time of the next look may not depend on which side of
a bound the estimate lies.

Why not a confidence sequence, which needs no largest number of seeds (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Annals of
Statistics 52, 2024)? A run has a largest number anyway, and a sequence without an end has intervals at least 1.55 times as wide
as those of a single look, even at the size for which the sequence was tuned. Here the last interval is 1.03 times as wide with
5 looks that double the seeds, and 1.15 times with 31 looks. Early looks are wider: 1.3 to 1.4 times at half of the seeds, and
1.9 times at a sixteenth, or 2.3 times if that is 16 seeds, where Student's tails are heavier.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from .checks import check_options
from .fitted import Rate
from .intervals import Estimate, student_quantile

# After the share t of the seeds, the spent share of the error probability is t to this power.
_SPENDING = 2.0


def sequential(estimate: Rate | Estimate, looks: Sequence[int], most: int) -> Estimate:
    """The same number with an interval that holds at all looks at once, up to `most` seeds.

    P(the truth lies in the interval at every look) >= `estimate.level`, for any looks up to `most` seeds. The ends of the
    fixed interval are moved away from the value by the ratio of Student's quantiles at `look_level(looks, most)` and at
    `estimate.level`, with the seeds' degrees of freedom (`at_level`). For a single look at `most` seeds the ratio is 1.

    **Arguments:**

    - `estimate`: the result at the present look: a `Rate`, or the `Estimate` of a mean, a ratio or a difference.
    - `looks`: the numbers of seeds at all looks until now, increasing; the last is the present look. A look is any moment at
      which the results could have decided whether the run stops.
    - `most`: the largest number of seeds that the run may reach, fixed before the first look.

    **Returns:** an `Estimate` at the level of `estimate`.

    **Raises:** ValueError as `look_level` and `at_level` do, and for an estimate whose interval rests on residuals, which more
    seeds do not narrow. If the interval is exact (`share`), compute it at the level `look_level(looks, most)` instead.

    >>> n, rng = 2.0 ** np.arange(7, 13), np.random.default_rng(0)
    >>> rate = ts.fit_rate(n, rng.chisquare(15, (6, 64)) / 15 / n[:, None])
    >>> print(ts.sequential(rate, looks=[16, 32, 64], most=256))
    1.00 [0.95, 1.05]
    """
    level = look_level(looks, most, level=estimate.level)
    seeds = float(looks[-1])
    if isinstance(estimate, Rate):
        if estimate.errors != "seeds":
            raise ValueError(
                f"the interval of this rate rests on errors={estimate.errors!r}, not on seeds, so looks at more "
                "seeds do not apply to it. Fit at least two seeds at some n."
            )
        seeds = estimate.effective_seeds
        estimate = Estimate(estimate.exponent, estimate.interval, estimate.level, estimate.warnings)
    return replace(at_level(estimate, level, seeds), level=estimate.level)


def at_level(estimate: Estimate, level: float, seeds: float | int) -> Estimate:
    """An estimate with its interval at another level, also at levels that resamples cannot resolve.

    On the scale on which the interval was made (`Estimate.scale`), an end e becomes v + c (e - v) with the value v and c =
    t(level) / t(estimate.level), where t is the two-sided quantile of Student's law with `seeds` - 1 degrees of freedom. So the
    longer side stays longer. Infinite ends stay infinite, and with one seed all ends are infinite. If the value lies outside
    its own interval, the middle of the interval takes its place.

    **Raises:** ValueError for a level outside (0, 1), or for an exact interval, which has no such scale.
    """
    check_options(level)
    if estimate.scale == "exact":
        raise ValueError(
            "this interval is exact for its level and cannot be moved to another. Compute it at the level that is "
            f"needed, {level:.6g}: for example share(successes, level={level:.6g})."
        )
    factor = student_quantile(seeds, level) / student_quantile(seeds, estimate.level) if seeds >= 1.5 else np.inf
    to, back = (np.log, np.exp) if estimate.scale == "log" else (np.asarray, np.asarray)
    # Logarithms of 0 and infinity are infinite ends. An infinite value can make ends NaN, which become infinite below.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value, low, high = (float(to(v)) for v in (estimate.value, *estimate.interval))
        if not low <= value <= high:
            value = (low + high) / 2.0
        ends = value + factor * (np.array([low, high]) - value)
        ends = back(np.where(np.isnan(ends), [-np.inf, np.inf], ends))
    return replace(estimate, interval=(float(ends[0]), float(ends[1])), level=float(level))


def look_level(looks: Sequence[int], most: int, *, level: float = 0.95) -> float:
    """The level 2 Phi(z_k) - 1 that the fixed interval needs at the present look, the last of `looks`, so that the intervals of
    all looks hold at once with probability `level`. Use it if an interval can be computed at any level, as by `share`.

    **Raises:** ValueError as `look_bounds` does.

    >>> round(ts.rates.look_level([16, 32, 64], most=256), 5), round(ts.rates.look_level([256], most=256), 5)
    (0.99747, 0.95)
    """
    from scipy.special import ndtr

    return float(1.0 - 2.0 * ndtr(-look_bounds(looks, most, level=level)[-1]))


def look_bounds(looks: Sequence[int], most: int, *, level: float = 0.95) -> np.ndarray:
    """The bounds z_k (K,) of the looks at `looks` seeds out of `most`, in standard errors; see the module docstring.

    **Raises:** ValueError for looks that are not positive and increasing, or beyond `most`, and for a level outside (0, 1).
    """
    check_options(level)
    counts = np.asarray(looks, dtype=float)
    if counts.ndim != 1 or not len(counts) or not counts[0] > 0 or not (np.diff(counts) > 0).all():
        raise ValueError(
            f"looks must be the numbers of seeds at all looks until now, positive and increasing, such as [16, 32, 64]; got "
            f"{list(looks)}. Looking again at the same seeds is not a new look."
        )
    if not counts[-1] <= most:
        raise ValueError(
            f"the plan ends at most={most:g} seeds, and the last look has {counts[-1]:g}. The error probability is spent by "
            "then, so no interval at more seeds is valid: fix `most` before the first look."
        )
    share = counts / most
    return np.array(crossing_bounds(tuple(share), tuple((1.0 - level) * share**_SPENDING)))


@lru_cache(maxsize=256)
def crossing_bounds(times: tuple[float, ...], spent: tuple[float, ...]) -> tuple[float, ...]:
    """Bounds z_k for which a Brownian motion B first has |B(t_k)| > z_k sqrt(t_k) at one of t_1..t_k with probability spent_k.

    It uses the recursion of Armitage, McPherson & Rowe (Journal of the Royal Statistical Society A 132, 1969): the density of B
    on the paths that have not crossed a bound is carried from look to look, on Gauss-Legendre nodes.
    """
    from scipy.optimize import root_scalar
    from scipy.special import ndtr
    from scipy.stats import norm

    bounds, nodes, mass = [], np.zeros(1), np.ones(1)
    steps = np.sqrt(np.diff(times, prepend=0.0))
    for k, (time, new) in enumerate(zip(times, np.diff(spent, prepend=0.0), strict=True)):
        leaves = lambda b, nodes, mass, sd, new: 2.0 * mass @ ndtr((nodes - b) / sd) - new
        bound = root_scalar(
            leaves, (nodes, mass, steps[k], new), method="brentq", bracket=(0.0, 40.0 * np.sqrt(time)), xtol=1e-13
        ).root
        bounds.append(float(bound / np.sqrt(time)))
        if k + 1 == len(times):
            break
        # Nodes lie closer than half of the standard deviation of the steps on both sides.
        count = int(max(32, np.ceil(4.0 * bound / min(steps[k], steps[k + 1]))))
        x, weight = np.polynomial.legendre.leggauss(count)
        x, weight = bound * x, bound * weight
        mass = weight * (norm.pdf(x[:, None], nodes, steps[k]) @ mass)
        nodes = x
    return tuple(bounds)
