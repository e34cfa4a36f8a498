"""Looking more than once: intervals that hold at every look at a growing number of seeds.

Seeds are added while a verdict is undecided, and the run stops once it is decided. Then an interval that holds with
probability 95 % at one fixed number of seeds misses the truth at *some* look far more often (`python -m benchmarks peeking`).
The cure is the group-sequential one: a user names the largest number of seeds, which is the plan's end, and the error
probability 1 - level is spent along the way. After the share t = s / most of the seeds, (1 - level) t^2 of it has been spent
(Kim & DeMets, Biometrika 74, 1987, their family with the power 2). Look k gets the bound z_k for which the first of |Z_1| >
z_1, ..., |Z_k| > z_k happens at look k with the probability that is spent between looks k-1 and k (Lan & DeMets, Biometrika
70, 1983). The intervals value -+ z_k s.e. then hold at all looks at once with probability `level` (repeated confidence
intervals: Jennison & Turnbull, Journal of the Royal Statistical Society B 51, 1989).

What this needs is that the estimates at the looks behave as means over more and more independent seeds: jointly normal, with
the correlation sqrt(t_j / t_k). Smooth functions of means over seeds do so asymptotically: means, ratios and differences of
means, and exponents fitted to mean risks. Looks need no schedule, but when the next one comes may not depend on which side of
a bound the estimate lies.

Why not a confidence sequence, which needs no largest number of seeds (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Annals
of Statistics 52, 2024)? A run has a largest number anyway, and pays for a sequence that may go on for ever with intervals
that are at least 1.55 times as wide as those of one look, at the size for which the sequence was tuned. Here the last
interval is 1.03 times as wide with 5 looks that double the seeds, and 1.15 times with 31 looks. Early looks pay instead: at
half of the seeds the interval is 1.3 to 1.4 times as wide as that of one look, and at a sixteenth 1.9 times, or 2.3 times at
16 seeds, where Student's tails are heavier.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from .checks import check_options
from .fitted import Rate
from .intervals import Estimate, student_quantile

# The share of the error spent after the share t of the seeds is t to this power.
_SPENDING = 2.0


def sequential(estimate: Rate | Estimate, looks: Sequence[int], most: int) -> Estimate:
    """The same number with an interval that holds at all looks at once, up to `most` seeds.

    P(the truth lies in the interval at every look) >= `estimate.level`, for any looks up to `most` seeds. The ends of the
    fixed interval are moved away from the value by the ratio of Student's quantiles at `look_level(looks, most)` and at
    `estimate.level`, with the seeds' degrees of freedom (`at_level`); 1 at a single look at `most` seeds.

    **Arguments:**

    - `estimate`: what was found at the present look: a `Rate`, or the `Estimate` of a mean, a ratio, a difference.
    - `looks`: the numbers of seeds at all looks until now, increasing; the last is the present look. A look is a moment at
      which the run could have stopped, or gone on, because of what was seen.
    - `most`: the largest number of seeds that the run may reach, fixed before the first look.

    **Returns:** an `Estimate` at the level of `estimate`.

    **Raises:** ValueError as `look_level` and `at_level` do, and for an estimate whose interval rests on residuals: seeds do
    not narrow it. Where the interval is an exact one (`share`), make it anew at the level `look_level(looks, most)`.

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
                f"the interval of this rate rests on errors={estimate.errors!r}, not on seeds, so that looks at more "
                "seeds do not apply to it. Fit at least two seeds at some n."
            )
        seeds = estimate.effective_seeds
        estimate = Estimate(estimate.exponent, estimate.interval, estimate.level, estimate.warnings)
    return replace(at_level(estimate, level, seeds), level=estimate.level)


def at_level(estimate: Estimate, level: float, seeds: float | int) -> Estimate:
    """An estimate with its interval at another level, for levels that no number of resamples reaches.

    On the scale on which the interval was made (`Estimate.scale`), an end e becomes v + c (e - v) with the value v and
    c = t(level) / t(estimate.level), where t is the two-sided quantile of Student's law with `seeds` - 1 degrees of freedom.
    So a longer end stays longer. Infinite ends stay infinite, and with one seed all ends are infinite. A value outside of its
    own interval gives way to the middle of the interval.

    **Raises:** ValueError for a level that is no probability, or for an exact interval, which has no such scale.
    """
    check_options(level)
    if estimate.scale == "exact":
        raise ValueError(
            "this interval is an exact one for its level and cannot be moved to another. Make it anew at the level that is "
            f"needed, {level:.6g}: for example share(successes, level={level:.6g})."
        )
    factor = student_quantile(seeds, level) / student_quantile(seeds, estimate.level) if seeds >= 1.5 else np.inf
    to, back = (np.log, np.exp) if estimate.scale == "log" else (np.asarray, np.asarray)
    # Logarithms of 0 and infinity are infinite ends; a value that is infinite itself leaves finite ends no place.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value, low, high = (float(to(v)) for v in (estimate.value, *estimate.interval))
        if not low <= value <= high:
            value = (low + high) / 2.0
        ends = value + factor * (np.array([low, high]) - value)
        ends = back(np.where(np.isnan(ends), [-np.inf, np.inf], ends))
    return replace(estimate, interval=(float(ends[0]), float(ends[1])), level=float(level))


def look_level(looks: Sequence[int], most: int, *, level: float = 0.95) -> float:
    """The level 2 Phi(z_k) - 1 that the fixed interval needs at the present look, the last of `looks`, so that the intervals of
    all looks hold at once with probability `level`. Use it where an interval can be made at any level, as by `share`.

    **Raises:** ValueError as `look_bounds` does.

    >>> round(ts.rates.look_level([16, 32, 64], most=256), 5), round(ts.rates.look_level([256], most=256), 5)
    (0.99747, 0.95)
    """
    from scipy.special import ndtr

    return float(1.0 - 2.0 * ndtr(-look_bounds(looks, most, level=level)[-1]))


def look_bounds(looks: Sequence[int], most: int, *, level: float = 0.95) -> np.ndarray:
    """The bounds z_k (K,) of the looks at `looks` seeds out of `most`, in standard errors; see the module.

    **Raises:** ValueError for looks that are not positive and increasing, or beyond `most`, and for a level that is no
    probability.
    """
    check_options(level)
    counts = np.asarray(looks, dtype=float)
    if counts.ndim != 1 or not len(counts) or not counts[0] > 0 or not (np.diff(counts) > 0).all():
        raise ValueError(
            f"looks must be the numbers of seeds at all looks until now, positive and increasing, such as [16, 32, 64]; got "
            f"{list(looks)}. Looking again at the same seeds is no new look."
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

    By the recursion of Armitage, McPherson & Rowe (Journal of the Royal Statistical Society A 132, 1969): the density of B on
    the paths that have not left is carried from look to look, on Gauss-Legendre nodes.
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
