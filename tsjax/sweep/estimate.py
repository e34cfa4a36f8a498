"""What a plan will cost, before it runs: programs, memory by XLA's own account, operations, and a rough time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .devices import one_blas_thread, sharded_vmap, usable_devices
from .experiment import Cost
from .plan import Group, Plan
from .program import compile_group, memory_budget


@dataclass(frozen=True)
class CurveEstimate:
    """The cost of the cells that share all static arguments but x. `bytes`: of one chunk of the largest program, on all
    devices together. `seconds` and `operations` are None when the experiment states no cost."""

    static: dict[str, Any]
    cells: int
    chunks: int
    programs: int
    bytes: int
    operations: float | None
    seconds: float | None


@dataclass(frozen=True)
class PlanEstimate:
    """Estimates curve by curve, and the speeds that they assume (operations per second, products and factorisations)."""

    curves: tuple[CurveEstimate, ...]
    budget: int
    speeds: tuple[float, float]


def fastest(run: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the fastest of `repeats` calls after a first one, which compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def measure_speeds() -> tuple[float, float]:
    """Operations per second of this machine, all devices together, in a student's training loop and in a dense
    factorisation: two probes of a fraction of a second each."""
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


def estimate_plan(plan: Plan, key: int, chunk: int) -> PlanEstimate:
    """Compiles the largest program of each curve, and runs nothing of the sweep."""
    experiment = plan.experiment
    with one_blas_thread():
        speeds = measure_speeds()
    curves: dict[str, list[Group]] = {}
    for group in plan.groups:
        name = repr({k: v for k, v in group.static.items() if k != experiment.x})
        curves.setdefault(name, []).append(group)
    estimates = []
    for groups in curves.values():
        costs: list[Cost] | None = None
        if experiment.cost is not None:
            costs = [experiment.cost(group.cells[0].arguments) for group in groups]
        largest = groups[-1] if costs is None else groups[int(np.argmax([sum(cost) for cost in costs]))]
        program = compile_group(experiment, largest, key, chunk)
        operations = seconds = None
        if costs is not None:
            counted = [(len(group.cells), cost) for group, cost in zip(groups, costs, strict=True)]
            operations = sum(cells * sum(cost) for cells, cost in counted)
            seconds = sum(
                cells * (cost.products / speeds[0] + cost.factorisations / speeds[1]) for cells, cost in counted
            )
            seconds += len(groups) * program.compile_seconds
        estimates.append(
            CurveEstimate(
                static={k: v for k, v in groups[0].static.items() if k != experiment.x},
                cells=sum(len(group.cells) for group in groups),
                chunks=sum(len(group.chunks(chunk)) for group in groups),
                programs=len(groups),
                bytes=program.bytes,
                operations=operations,
                seconds=seconds,
            )
        )
    return PlanEstimate(tuple(estimates), memory_budget(), speeds)
