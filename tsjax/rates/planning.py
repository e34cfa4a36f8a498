"""How many seeds, and at which n, for an exponent of a wanted precision.

The variance of the exponent is element (1, 1) of (J' W J)^{-1}, W = diag(s_i / v_i), with s_i seeds and the relative
variance v_i of one risk at n_i, times a factor that the pilot measures: how much the pairing of the seeds helps.
Planning is for the half-width t_{s-1} standard errors of the interval.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .intervals import FEW_SEEDS, student_quantile
from .rate import Rate
from .table import Numbers, as_array, check_positive

# No n is planned with fewer seeds, nor any plan with more: 2^20 seeds say that the wish is no wish.
_MOST = 2**20
# An extension adds at most so many times the seeds there are: what a pilot says of its noise is rough.
_GROWTH = 4.0


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

    Otherwise seeds go, one batch after the other, where the variance of the exponent falls most for the cost of one more,
    until the plan is precise enough; no n gets more than 4 times its seeds in one round, nor more than `most`, and at
    least one n gets more.

    **Arguments:** as `plan_seeds`; `most`: seeds at any n. **Raises:** ValueError as `plan_seeds`.
    """
    _check(rate, precision)
    present = rate.table.units_present
    if half_width(rate) <= precision or bool((present >= most).all()):
        return present
    costs = _costs(rate, cost)
    limit = np.minimum((_GROWTH * present).astype(int), most)
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
        raise ValueError(f"a pilot needs at least {FEW_SEEDS} seeds at every n to tell its noise, got {least}.")
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


def _one_seed_variance(rate: Rate) -> np.ndarray:
    """Variance of the log of one risk's mean at each n, half-way (in logs) between its own estimate and the average of all
    n: a pilot's single estimates are rough."""
    one = rate.variance * rate.table.units_present
    return np.sqrt(one * one.mean())


def _variance(rate: Rate, n: np.ndarray, seeds: np.ndarray, one: np.ndarray) -> float:
    """Planned variance of the exponent with `seeds` (k,) at `n` (k,)."""
    return _raw_variance(rate, n, seeds / one) * _pairing(rate)


def _raw_variance(rate: Rate, n: np.ndarray, weights: np.ndarray) -> float:
    jacobian = rate.model.evaluate(rate.theta, n)[1]
    size = np.sqrt((jacobian**2).sum(axis=0))
    scaled = jacobian / np.where(size > 0, size, 1.0)
    return float(np.linalg.pinv(scaled.T @ (weights[:, None] * scaled), rcond=1e-14)[1, 1] / size[1] ** 2)


def _pairing(rate: Rate) -> float:
    present = rate.table.units_present
    planned = _raw_variance(rate, rate.n, present / _one_seed_variance(rate))
    return max(rate.standard_error, rate.delta_error) ** 2 / planned


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
    """Greedy seeds (k,): batches of a twentieth go where the variance falls most per cost. The variance is convex in the
    seeds, so that greed is right up to the size of a batch."""
    seeds, one = np.maximum(start, FEW_SEEDS).astype(int), _one_seed_variance(rate)
    pairing = _pairing(rate)
    for _ in range(2000):
        now = _raw_variance(rate, rate.n, seeds / one) * pairing
        if _enough(now, float(seeds.min()), precision, rate.level) or bool((seeds >= most).all()):
            break
        gains = np.full(len(seeds), -np.inf)
        batches = np.maximum(1, seeds // 20)
        for i in np.flatnonzero(seeds < most):
            more = seeds.copy()
            more[i] += batches[i]
            gains[i] = (now - _raw_variance(rate, rate.n, more / one) * pairing) / (batches[i] * costs[i])
        best = int(np.argmax(gains))
        seeds[best] = min(seeds[best] + batches[best], most)
    return seeds
