"""How many seeds an exponent of a given precision needs, and at which n.

The variance of the exponent is element (1, 1) of (J' W J)^{-1}, W = diag(s_i / v_i), with s_i seeds and the relative variance
v_i of one risk at n_i, times a factor that the pilot measures: the effect of pairing the seeds. Planning is for the half-width
t_{e-1} standard errors of the interval, with the e effective seeds that the *planned* seeds will have (Satterthwaite's, as
`fit_rate` counts them). The pilot's own quantile, 3.2 for 4 seeds, would ask for 2.6 times as many seeds as 1.96 does.

A pilot of few seeds measures its noise only roughly: the variance of s seeds has a relative standard error of sqrt(2 / (s-1)),
82 % for 4 seeds. So the variance at one n and the factor of pairing are shrunk according to their degrees of freedom
(`_weight`), and a round at most doubles the seeds of an n that has fewer than 16.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .intervals import FEW_SEEDS, student_quantile
from .rate import Rate
from .table import Numbers, as_array, check_positive

# A plan that would need more seeds than this is refused: the precision asked for is unrealistic.
_MOST = 2**20
# A round multiplies the seeds of an n by at most _GROWTH, and by _FIRST_GROWTH while there are fewer than _ROUGH.
_GROWTH, _FIRST_GROWTH, _ROUGH = 4, 2, 16
# If more seeds are needed at all, every n gets at least this many: with a handful of seeds, weights that are refitted in every
# resample widen the interval by more than the plan foresees.
_LEAST = 8
# Assumed standard deviation of the log of the variance of one risk from n to n, and of the log factor of pairing from curve to
# curve.
_SPREAD = 0.5


@dataclass(frozen=True, eq=False)
class SeedPlan:
    """The seeds that an exponent needs for a precision of +- `precision`.

    - `half_width`: that of the pilot's interval; `reached`: whether it is small enough.
    - `seeds`: the number at every n that is expected to suffice; `assured_seeds`: the number that suffices with probability
      `assurance`, since the pilot's own noise level is uncertain.
    - `n` (k,), `allocation` (k,): the cheapest numbers of seeds at each n, at least those of the pilot; `cost`: of the
      allocation, and `equal_cost`: of `seeds` everywhere, in the units of the cost of one seed at n (proportional to n by
      default).
    - `octave_seeds`: the number at every n that would suffice if 2 n_max were added to the window; `octave_cost`: its cost.
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
    # At 2 n_max a risk varies as at the last n, and its cost is extrapolated from the last two n.
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
    """The seeds (k,) to have at each n in the next round of a sweep that stops at +- `precision`. If the precision is reached,
    or no n may have more seeds, these are the present ones.

    Otherwise every n gets at least 8 seeds. More are added batch by batch where they shorten the interval most for their cost,
    until the plan is precise enough. In one round no n gets more than 4 times its seeds (twice, below 16 seeds), nor more than
    `most`; at least one n gets more.

    **Arguments:** as in `plan_seeds`; `most`: the most seeds at any n. **Raises:** ValueError as `plan_seeds` does.
    """
    _check(rate, precision)
    present = rate.table.units_present
    if half_width(rate) <= precision or bool((present >= most).all()):
        return present
    costs = _costs(rate, cost)
    limit = np.minimum(np.where(present < _ROUGH, _FIRST_GROWTH, _GROWTH) * present, most)
    wanted = np.minimum(_allocate(rate, precision, costs, present, most=most), np.maximum(limit, present))
    if (wanted == present).all():
        # The plan expects the precision to be reached, but the measured interval is still too wide: add a quarter everywhere.
        wanted = np.minimum(present + np.maximum(1, present // 4), np.maximum(most, present))
    return wanted


def check_precision(precision: float) -> None:
    """Raises ValueError unless `precision` is finite and positive."""
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
    """The weight of the log of a variance with `freedom` degrees of freedom, whose own variance is about 2 / freedom, against a
    prior of standard deviation `_SPREAD`."""
    return np.asarray(_SPREAD**2 / (_SPREAD**2 + 2.0 / np.maximum(freedom, 1e-9)))


def _one_seed_variance(rate: Rate) -> np.ndarray:
    """The relative variance of one risk at each n (k,), shrunk in logs from its own estimate towards the average over all n."""
    present = rate.table.units_present
    one = rate.variance * present
    return one.mean() * (one / one.mean()) ** _weight(present - 1.0)


def _variance(rate: Rate, n: np.ndarray, seeds: np.ndarray, one: np.ndarray) -> float:
    """Planned variance of the exponent with `seeds` (k,) at `n` (k,)."""
    return float(_design(rate, n, seeds, one)[0]) * _pairing(rate)


def _design(rate: Rate, n: np.ndarray, seeds: np.ndarray, one: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For designs `seeds` (..., k): the variance of the exponent if rows were independent, and its effective seeds; see
    `Table.variance_of`. No risks are missing here, and column j is present at n_i if j < s_i."""
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
    """The ratio of the variance to that with independent rows. With few seeds the bootstrap's variance is too large, since
    every resample has weights of its own, and that of the delta method is too small."""
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
    """Seeds (k,) by a greedy search: each batch of a twentieth goes to the n where the half-width falls most for its cost."""
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
