"""The cost of a plan before it runs: programs, memory by XLA's analysis, operations, and a rough time."""

import dataclasses
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .classes import SPEEDS, seconds_at, seconds_from, work_of
from .devices import one_blas_thread, sharded_vmap, usable_devices
from .engines.black_box import DEVICE
from .experiment import Cost, Experiment
from .kept import KeptCosts
from .plan import Plan
from .program import compile_group, memory_budget


@dataclass(frozen=True)
class CurveEstimate:
    """The cost of the cells that are still to be run and share all static arguments except x.

    - `bytes`: the memory of one chunk of the largest program, on all devices together; None if that program was neither
      compiled now nor is known from an earlier run.
    - `operations`: None if the experiment states no cost. `seconds`: None if, besides, no cells were run before.
    - `measured`: whether `seconds` rests on cells of this curve that were run, in the store or on this machine.
    """

    static: dict[str, Any]
    cells: int
    chunks: int
    programs: int
    bytes: int | None
    operations: float | None
    seconds: float | None
    measured: bool = False


@dataclass(frozen=True)
class PlanEstimate:
    """Estimates curve by curve, the memory `budget` of a chunk in bytes, and the speeds that are assumed (operations per second
    in products and in factorisations)."""

    curves: tuple[CurveEstimate, ...]
    budget: int
    speeds: tuple[float, float]


def fastest(run: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the fastest of `repeats` calls, after a first call that compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def measure_speeds() -> tuple[float, float]:
    """Operations per second of this machine, on all devices together, in the training loop of a student and in a dense
    factorisation. Each is measured in a fraction of a second."""
    count = len(usable_devices())
    batch, n, d, m, steps = 16 * count, 1024, 5, 3, 50

    def train(w, x, y):
        gradient = jax.grad(lambda w: jnp.mean((jnp.sum(jax.nn.relu(jnp.dot(w, x)), axis=0) - y) ** 2))
        return jax.lax.fori_loop(0, steps, lambda _, w: w - 0.1 * gradient(w), w)

    rng = np.random.default_rng(0)
    w, x, y = (rng.normal(size=(batch, *shape)).astype(np.float32) for shape in ((m, d), (d, n), (n,)))
    train_many = sharded_vmap(train)
    products = 6.0 * batch * steps * n * m * d / fastest(lambda: train_many(w, x, y))
    size = 512
    matrices = rng.normal(size=(count, size, size))
    eigh = sharded_vmap(lambda a: jnp.linalg.eigh(a @ a.T)[0])
    return products, 9.0 * count * size**3 / fastest(lambda: eigh(matrices))


def seconds_of(
    costs: list[Cost | None], measured: list[np.ndarray], speeds: tuple[float, float] = SPEEDS["cpu"]
) -> list[float] | None:
    """Seconds of one cell of each group of a curve. They are the mean of the seconds that the group's cells took (`measured`,
    NaN for cells without a record) or, if none of them was run, follow from those of other groups by `classes.seconds_from`.
    None if no cell of the curve was run, or if some group has none and costs are unknown."""
    mine = [seconds[~np.isnan(seconds)] for seconds in measured]
    known = {i: float(np.mean(some)) for i, some in enumerate(mine) if len(some)}
    if not known or (costs[0] is None and len(known) < len(costs)):
        return None
    others = [(work_of(costs[i]), seconds) for i, seconds in known.items()]
    return [known[i] if i in known else seconds_from(others, cost, speeds) for i, cost in enumerate(costs)]


def estimate_plan(
    plan: Plan, key: int, chunk: int, seconds: np.ndarray | None = None, *, compiled: bool = False
) -> PlanEstimate:
    """Estimates a plan from the times and the memory that its programs and cells took on this machine before (`KeptCosts`). If
    nothing is known about a curve, its time follows from its operations at the speeds of `classes.SPEEDS`. Nothing is run or
    compiled.

    With `compiled`, the largest program of each curve is compiled to find its exact memory, and the speeds of this machine are
    measured; this does not apply to a black box, which has no programs. `seconds` are those that cells took in a store, NaN for
    cells that are not done there: the estimate is then about the missing cells, and times rest on those of the store.

    **Raises:** TypeError for a plan that was read from a store.
    """
    experiment = plan.experiment
    if not isinstance(experiment, Experiment):
        raise TypeError(f"the plan of {experiment.name} was read from a store and has no code to compile.")
    seconds = np.full(plan.cells, np.nan) if seconds is None else seconds
    device, boxed = usable_devices()[0], experiment.black_box
    kept, compiled = KeptCosts(DEVICE if boxed else device.device_kind), compiled and not boxed
    speeds = SPEEDS.get(device.platform, SPEEDS["gpu"])
    if compiled:
        with one_blas_thread():
            speeds = measure_speeds()
    whole = plan.groups
    # A program that several curves share is compiled, and counted, once: with the first of them.
    first: dict[str, int] = {}
    for number, group in enumerate(whole):
        if not boxed and np.isnan(seconds[plan.portions[number].places]).any():
            first.setdefault(group.program(experiment), number)

    def estimate(numbers: list[int]) -> CurveEstimate | None:
        every = [whole[number] for number in numbers]
        took = [seconds[plan.portions[number].places] for number in numbers]
        costs = [group.cost for group in every if group.cost is not None]
        every_cost = costs if len(costs) == len(every) else None
        per_cell, known = seconds_of([group.cost for group in every], took, speeds), True
        if per_cell is None:
            found = [kept.cell_seconds(experiment, group, speeds) for group in every]
            per_cell = [one for one in found if one is not None]
        if len(per_cell) < len(every):
            per_cell, known = None, False
            if every_cost is not None:
                per_cell = [seconds_at(cost, speeds) for cost in every_cost]
        left = [
            tuple(cell for cell, missing in zip(group.cells, np.isnan(took), strict=True) if missing)
            for group, took in zip(every, took, strict=True)
        ]
        todo = [i for i, cells in enumerate(left) if cells]
        if not todo:
            return None
        largest = max(todo, key=lambda i: sum(every_cost[i]) if every_cost else i)
        rest = dataclasses.replace(every[largest], cells=left[largest])
        size, known_program = min(chunk, len(rest.cells)), kept.program(experiment, rest)
        program = compile_group(experiment, rest, key, chunk) if compiled else None
        bytes = None
        if known_program is not None:
            # Chunks are made smaller if memory does not suffice.
            bytes = int(known_program.bytes * min(size, max(1.0, memory_budget() // max(known_program.bytes, 1.0))))
        programs = [whole[number] for number in first.values() if number in numbers]
        compiling = sum(kept.compile_seconds(experiment, group) for group in programs)
        if program is not None:
            bytes, compiling = program.bytes, len(programs) * program.compile_seconds
        operations = None if every_cost is None else sum(len(left[i]) * sum(every_cost[i]) for i in todo)
        return CurveEstimate(
            static={k: v for k, v in every[0].static.items() if k != experiment.x},
            cells=sum(len(left[i]) for i in todo),
            chunks=sum(len(dataclasses.replace(every[i], cells=left[i]).chunks(chunk)) for i in todo),
            programs=len(programs),
            bytes=bytes,
            operations=operations,
            seconds=None if per_cell is None else sum(len(left[i]) * per_cell[i] for i in todo) + compiling,
            measured=known,
        )

    # XLA compiles one program on one core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        estimates = [found for found in pool.map(estimate, plan.by_curve()) if found is not None]
    return PlanEstimate(tuple(estimates), memory_budget(), speeds)
