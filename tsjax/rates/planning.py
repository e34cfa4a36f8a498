"""How many seeds an exponent of a given precision needs, and at which n.

The variance of the exponent is element (1, 1) of (J' W J)^{-1}, W = diag(s_i / v_i), with s_i seeds and the relative
variance v_i of one risk at n_i, times a factor that the pilot measures: how much the pairing of the seeds helps.
Planning is for the half-width t_{e-1} standard errors of the interval, with the e effective seeds that the *planned* seeds
will have (Satterthwaite's, as `fit_rate` counts them): the pilot's own quantile, 3.2 of 4 seeds, would ask for 2.6 times as
many seeds as 1.96.

What a pilot of few seeds says of its noise is rough: the variance of s seeds has a relative standard error of sqrt(2 / (s-1)),
82 % of 4 seeds. So the variance at one n, and the factor of pairing, count only as far as their degrees of freedom carry them
(`_weight`), and a round at most doubles the seeds of an n that has fewer than 16.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .intervals import FEW_SEEDS, student_quantile
from .rate import Rate
from .table import Numbers, as_array, check_positive

# No n is planned with fewer seeds, nor any plan with more: 2^20 seeds say that the wish is no wish.
_MOST = 2**20
# A round has at most so many times the seeds there are, fewer while what they say of the noise is rough.
_GROWTH, _FIRST_GROWTH, _ROUGH = 4, 2, 16
# Where more seeds are needed at all, no n is left with fewer: resampled weights of a handful of seeds widen the interval by
# more than any plan foresees: at 4 seeds the standard error by resampling is 2.0 times that of the delta method, at 8 1.26,
# at 16 1.10 (means of 300 curves of six n, noise of chi-square_15).
_LEAST = 8
# Standard deviation of the log of the variance of one risk from n to n, and of the factor of pairing from curve to curve.
_SPREAD = 0.5


@dataclass(frozen=True, eq=False)
class SeedPlan:
    """What it takes to know an exponent to +- `precision`.

    - `half_width`: of the pilot's interval; `reached`: whether that is enough.
    - `seeds`: how many at every n would do; `assured_seeds`: so many that it does with probability `assurance`, since the
      pilot's own noise level is uncertain.
    - `n` (k,), `allocation` (k,): the cheapest seeds at each n, none below what the pilot has; `cost` of the allocation and
      `equal_cost` of `seeds` everywhere, in the units given (cost of one seed at n; proportional to n by default).
    - `octave_seeds`: how many at every n would do with 2 n_max added to the window; `octave_cost`.
    """

    precision: float
    half_width: float
    seeds: int
    assured_seeds: int
    assurance: float
    n: Float[np.ndarray, " k"]
    allocation: Int[np.ndarray, " k"]
    cost: float
    equal_cost: float
    octave_seeds: int
    octave_cost: float

    @property
    def reached(self) -> bool:
        """Whether the pilot is precise enough."""
        return self.half_width <= self.precision


def half_width(rate: Rate) -> float:
    """Half the length of the exponent's interval."""
    return (rate.interval[1] - rate.interval[0]) / 2.0


def plan_seeds(rate: Rate, precision: float, *, cost: Numbers | None = None, assurance: float = 0.8) -> SeedPlan:
    """Plans seeds from a pilot, at the pilot's level.

    **Arguments:**

    - `rate`: a fit with at least 4 seeds at every n.
    - `precision`: wanted half-width of the exponent's interval.
    - `cost`: (k,) cost of one seed at each n, positive; proportional to n by default.
    - `assurance`: probability with which `assured_seeds` suffice: the pilot's variance is taken at its upper limit
      V (s-1) / chi^2_{1 - assurance, s-1}.

    **Raises:** ValueError for a pilot with fewer seeds, one whose seeds are all alike, or values that are not positive.
    """
    _check(rate, precision)
    if not 0.0 < assurance < 1.0:
        raise ValueError(f"assurance is a probability strictly between 0 and 1, got {assurance:g}.")
    from scipy.special import chdtri

    costs = _costs(rate, cost)
    freedom = rate.effective_seeds - 1.0
    one = _one_seed_variance(rate)
    uncertain = freedom / chdtri(freedom, assurance)
    equal = _equal_seeds(_variance(rate, rate.n, np.ones(len(rate.n)), one), precision, rate.level)
    assured = _equal_seeds(_variance(rate, rate.n, np.ones(len(rate.n)), one) * uncertain, precision, rate.level)
    best = _allocate(rate, precision, costs, rate.table.units_present, most=_MOST)

    wider = np.append(rate.n, 2.0 * rate.n[-1])
    # Beyond the window a risk varies as at its end, and costs what the last two n say.
    one_wider = np.append(one, one[-1])
    growth = costs[-1] / costs[-2] if len(costs) > 1 else 2.0
    step = np.log(rate.n[-1] / rate.n[-2])
    costs_wider = np.append(costs, costs[-1] * growth ** (np.log(2.0) / step))
    octave = _equal_seeds(_variance(rate, wider, np.ones(len(wider)), one_wider), precision, rate.level)
    return SeedPlan(
        precision=float(precision),
        half_width=half_width(rate),
        seeds=equal,
        assured_seeds=assured,
        assurance=float(assurance),
        n=rate.n,
        allocation=best,
        cost=float(costs @ best),
        equal_cost=float(costs.sum() * equal),
        octave_seeds=octave,
        octave_cost=float(costs_wider.sum() * octave),
    )


def next_seeds(rate: Rate, precision: float, *, cost: Numbers | None = None, most: int = 1024) -> Int[np.ndarray, " k"]:
    """The seeds (k,) to have at each n in the next round of a sweep that stops at +- `precision`: those it has where the
    precision is reached, or where no n may have more.

    Otherwise every n gets 8 seeds, and more go, one batch after the other, where the interval becomes shorter by most for the
    cost of one more, until the plan is precise enough. No n gets more than 4 times its seeds in one round (twice, below
    16 seeds), nor more than `most`, and at least one n gets more.

    **Arguments:** as `plan_seeds`; `most`: seeds at any n. **Raises:** ValueError as `plan_seeds`.
    """
    _check(rate, precision)
    present = rate.table.units_present
    if half_width(rate) <= precision or bool((present >= most).all()):
        return present
    costs = _costs(rate, cost)
    limit = np.minimum(np.where(present < _ROUGH, _FIRST_GROWTH, _GROWTH) * present, most)
    wanted = np.minimum(_allocate(rate, precision, costs, present, most=most), np.maximum(limit, present))
    if (wanted == present).all():
        # The plan believes that it is there, and the interval says not yet: a quarter more everywhere.
        wanted = np.minimum(present + np.maximum(1, present // 4), np.maximum(most, present))
    return wanted


def check_precision(precision: float) -> None:
    """Raises ValueError unless it is a half-width."""
    if not 0.0 < precision < np.inf:
        raise ValueError(f"precision is a half-width of the exponent's interval, positive; got {precision:g}.")


def _check(rate: Rate, precision: float) -> None:
    check_precision(precision)
    least = int(rate.table.units_present.min())
    if least < FEW_SEEDS:
        raise ValueError(f"a pilot needs at least {FEW_SEEDS} seeds at every n to estimate its noise, got {least}.")
    if not rate.standard_error > 0.0:
        raise ValueError("the pilot's seeds are all alike: there is no noise to plan against.")


def _costs(rate: Rate, cost: Numbers | None) -> np.ndarray:
    if cost is None:
        return rate.n / rate.n[0]
    costs = as_array(cost, "cost")
    if costs.shape != rate.n.shape:
        raise ValueError(f"cost must hold one number for each of the {len(rate.n)} n, got shape {costs.shape}.")
    check_positive(costs, "cost", "Give the cost of one seed at each n.")
    return costs


def _weight(freedom: np.ndarray | float) -> np.ndarray:
    """How far the log of a variance with so many degrees of freedom, whose own variance is about 2 / freedom, is believed
    beside a prior of standard deviation `_SPREAD`."""
    return np.asarray(_SPREAD**2 / (_SPREAD**2 + 2.0 / np.maximum(freedom, 1e-9)))


def _one_seed_variance(rate: Rate) -> np.ndarray:
    """Variance of the log of one risk's mean at each n, between its own estimate and the average of all n (in logs)."""
    present = rate.table.units_present
    one = rate.variance * present
    return one.mean() * (one / one.mean()) ** _weight(present - 1.0)


def _variance(rate: Rate, n: np.ndarray, seeds: np.ndarray, one: np.ndarray) -> float:
    """Planned variance of the exponent with `seeds` (k,) at `n` (k,)."""
    return float(_design(rate, n, seeds, one)[0]) * _pairing(rate)


def _design(rate: Rate, n: np.ndarray, seeds: np.ndarray, one: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of designs `seeds` (..., k): the variance of the exponent if rows were independent, and its effective seeds; see
    `Table.variance_of`. Here no risks are missing, and column j is at n_i where j < s_i."""
    jacobian = rate.model.evaluate(rate.theta, n)[1]
    size = np.sqrt((jacobian**2).sum(axis=0))
    scaled = jacobian / np.where(size > 0, size, 1.0)
    weights = np.asarray(seeds) / one
    inverse = np.linalg.pinv(np.einsum("ij,...i,il->...jl", scaled, weights, scaled), rcond=1e-14)
    coefficients = (inverse[..., 1, :] @ scaled.T) * weights
    rows = coefficients**2 / weights
    if rate.paired:
        each = rows / seeds
        common = np.minimum(seeds[..., :, None], seeds[..., None, :])
        squares = np.einsum("...i,...j,...ij->...", each, each, common)
        effective = rows.sum(axis=-1) ** 2 / squares
    else:
        effective = 1.0 + rows.sum(axis=-1) ** 2 / (rows**2 / np.maximum(seeds - 1.0, 1e-9)).sum(axis=-1)
    return np.asarray(inverse[..., 1, 1] / size[1] ** 2), np.asarray(effective)


def _pairing(rate: Rate) -> float:
    """How many times larger the variance is than with independent rows. Of few seeds the bootstrap's variance is too large,
    since every resample has weights of its own, and that of the delta method too small."""
    planned, _ = _design(rate, rate.n, rate.table.units_present, _one_seed_variance(rate))
    measured = rate.standard_error * (rate.delta_error if np.isfinite(rate.delta_error) else rate.standard_error)
    return float((measured / planned) ** _weight(rate.effective_seeds - 1.0))


def _enough(variance: float, seeds: float, precision: float, level: float) -> bool:
    return bool(student_quantile(seeds, level) * np.sqrt(variance) <= precision)


def _equal_seeds(variance: float, precision: float, level: float) -> int:
    """The least s with t_{s-1} sqrt(variance / s) <= precision, `variance` being that of one seed; by bisection."""
    low, high = FEW_SEEDS - 1, FEW_SEEDS
    while not _enough(variance / high, float(high), precision, level):
        low, high = high, 2 * high
        if high > _MOST:
            raise ValueError(
                f"a half-width of {precision:g} would take more than {_MOST} seeds; ask for less precision."
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _enough(variance / middle, float(middle), precision, level) else (middle, high)
    return high


def _allocate(rate: Rate, precision: float, costs: np.ndarray, start: np.ndarray, most: int) -> np.ndarray:
    """Greedy seeds (k,): batches of a twentieth go where the half-width falls most per cost."""
    from scipy.special import stdtrit

    one, pairing, level = _one_seed_variance(rate), _pairing(rate), rate.level

    def half(seeds: np.ndarray) -> np.ndarray:
        variance, effective = _design(rate, rate.n, seeds, one)
        return np.asarray(stdtrit(effective - 1.0, 0.5 + level / 2) * np.sqrt(variance * pairing))

    seeds = np.maximum(start, FEW_SEEDS).astype(int)
    if half(seeds) > precision:
        seeds = np.maximum(seeds, min(_LEAST, most))
    for _ in range(2000):
        now = half(seeds)
        if now <= precision or bool((seeds >= most).all()):
            break
        batches = np.maximum(1, seeds // 20)
        gains = (now - half(seeds + np.diag(batches))) / (batches * costs)
        best = int(np.argmax(np.where(seeds < most, gains, -np.inf)))
        seeds[best] = min(seeds[best] + batches[best], most)
    return seeds
