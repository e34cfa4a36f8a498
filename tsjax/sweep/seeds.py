"""How many seeds a precision needs, estimated from a pilot run, and runs that add seeds until every exponent has it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..rates import SeedPlan, next_seeds, plan_seeds
from ..rates.planning import check_precision
from .curve import Curve
from .description import Description
from .result import Result
from .spec import SpecError, SweepSpec
from .values import hashable, redacted, text_of


@dataclass(frozen=True)
class CurvePlan:
    """The seeds that one curve needs. If no plan can be made, `plan` is None and `reason` says why."""

    curve: Curve
    plan: SeedPlan | None
    reason: str = ""


def plan_precision(pilot: Result, precision: float) -> list[CurvePlan]:
    """The seeds that each curve of a pilot needs for the interval of its exponent to have half-width `precision`. The cost of a
    seed is the seconds that it took in the pilot.

    **Raises:** ValueError for a precision that is not positive, SpecError for an experiment that returns x."""
    check_precision(precision)
    _check_axis(pilot.experiment)
    plans = []
    for curve in pilot.curves():
        try:
            rate = pilot.rate(curve)
            plans.append(CurvePlan(curve, plan_seeds(rate, precision, cost=_seconds(pilot, curve, rate.n))))
        except ValueError as error:
            plans.append(CurvePlan(curve, None, str(error)))
    return plans


def with_more_seeds(result: Result, precision: float, most: int) -> SweepSpec:
    """The spec of a result with the seeds of the next round (`tsjax.next_seeds`) added at each curve and x. It is the same
    object if there is nothing to add: every exponent is known to +- `precision`, or `most` seeds do not suffice."""
    experiment = result.experiment
    _check_axis(experiment)
    blocks = []
    cells = [] if result.plan is None else result.plan.combinations
    for curve in result.curves():
        try:
            rate = result.rate(curve)
            wanted = next_seeds(rate, precision, cost=_seconds(result, curve, rate.n), most=most)
        except ValueError:
            # A curve without an exponent, or with too few seeds for a plan, gets no new seeds; the table of rates says why.
            continue
        for x, present, count in zip(rate.n, rate.present, wanted, strict=True):
            if count > present:
                mine = [(cell, seeds) for cell, seeds in cells if _belongs(cell, curve, experiment, float(x))]
                seeds = sorted({seed for _, listed in mine for seed in listed})
                # Failed seeds do not count as present and are not run again: new seeds replace them.
                free = (seed for seed in range(2**31) if seed not in set(seeds))
                new = [next(free) for _ in range(int(count) - int(present))]
                blocks.append({**mine[0][0], "seeds": new})
    return result.spec.model_copy(update={"grid": [*result.spec.grid, *blocks]}) if blocks else result.spec


def run_until(
    spec: SweepSpec, run: Callable[[SweepSpec], Result], precision: float, *, most: int = 1024, rounds: int = 20
) -> Result:
    """Runs a spec, adds seeds where they help most, and runs again on the same store, until the interval of every exponent has
    half-width `precision` or less, `most` seeds do not suffice for the others, or `rounds` rounds were run.

    **Raises:** ValueError, before anything runs, for a precision that is not positive."""
    check_precision(precision)
    result = run(spec)
    for _ in range(rounds):
        extended = with_more_seeds(result, precision, most)
        if extended is result.spec:
            break
        result = run(extended)
    return result


def _check_axis(experiment: Description) -> None:
    if experiment.returns_x:
        raise SpecError(
            f"{experiment.name} returns its whole path in {experiment.x!r} from one cell, so seeds cannot be added at one "
            f"{experiment.x}; a precision can be asked of sweeps whose x is an argument."
        )


def _belongs(cell: dict[str, Any], curve: Curve, experiment: Description, x: float) -> bool:
    if float(cell[experiment.x]) != x:
        return False
    return all(_same(cell[name], value) for name, value in curve.arguments.items() if name != experiment.x)


def _same(a: Any, b: Any) -> bool:
    return text_of(hashable(redacted(a))) == text_of(b)


def _seconds(result: Result, curve: Curve, x: np.ndarray) -> np.ndarray:
    """Seconds of one seed at each x; at least a microsecond."""
    rows = result.rows(curve)
    at, seconds = rows[result.experiment.x].to_numpy(float), rows["run_seconds"].to_numpy(float)
    return np.array([max(seconds[at == one].mean(), 1e-6) for one in x])
