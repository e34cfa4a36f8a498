"""A plan on a Ray cluster: every chunk is a task that any node may run, and run again when a node or a worker is lost.

The driver commits what the tasks return, so that nodes need no common disk. Nodes may join and leave: as many chunks are
handed out as the cluster can take at the time.
"""

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

from .commits import ChunkDone, pieces
from .devices import keep_compiled, one_blas_thread
from .errors import SpecError
from .execute import run_plan
from .experiment import Experiment
from .faults import GroupErrors
from .interrupt import Stop
from .plan import Cell, Combination, Group, Plan
from .program import settings
from .writer import StoreWriter

# Ray gives a task up after so many lost workers or nodes.
_RETRIES = 20
# Tasks for each place where one can run: the next one waits there already.
_AHEAD = 2


def _work(experiment: Experiment, cells: tuple[Cell, ...], limits: Any, key: int) -> list[ChunkDone]:
    """Runs one chunk, in a program for sizes up to its `limits`; in a worker of Ray."""
    keep_compiled()
    plan = Plan(experiment, tuple(Combination(cell.arguments, [cell.seed]) for cell in cells), limits=(limits,))
    with one_blas_thread(), settings(experiment.x64):
        return list(run_plan(plan, None, key, chunk=len(cells), commit_seconds=float("inf")))


def connect(address: str | None) -> Any:
    """Ray, connected to the cluster at `address`, to the one this process is connected to already, or to a local one.

    **Raises:** ValueError without Ray; ConnectionError where there is no cluster.
    """
    # Under `uv run`, Ray would make every worker an environment of its own; nodes have theirs.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("engine = 'ray' needs Ray: python3 -m pip install 'tsjax[ray]'.") from None
    if not ray.is_initialized():
        # Workers of this machine import what this process can; those of a cluster have their own environment.
        local = {"env_vars": {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}}
        options: dict[str, Any] = {"address": address}
        if address is None:
            # Not without an address: that would look for a cluster that someone started here, perhaps long ago.
            options = {"address": "local", "include_dashboard": False, "runtime_env": local}
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
    return ray


def check_for_ray(experiment: Experiment) -> None:
    """Raises SpecError for an experiment that Ray cannot run."""
    if experiment.black_box:
        raise SpecError(
            f"engine = 'ray' runs experiments in JAX, and {experiment.name!r} is a black box, which runs in processes of one "
            "machine: leave engine out. Several machines share a sweep by shard=(I, K), --shard I/K, and one store that all of "
            "them reach."
        )


def run_on_ray(
    plan: Plan, store: StoreWriter | None, key: int, *, chunk: int, stop: Stop | None = None, address: str | None = None
) -> Iterator[ChunkDone]:
    """As `run_plan`, on Ray: one `ChunkDone` for every task. A task takes a GPU where the cluster has some, else a CPU.

    **Raises:** as `run_plan` and `connect` do.
    """
    ray, stop = connect(address), Stop() if stop is None else stop
    kind = "GPU" if ray.cluster_resources().get("GPU") else "CPU"
    resources = {"num_gpus": 1, "num_cpus": 0} if kind == "GPU" else {"num_cpus": 1}
    task = ray.remote(_work).options(max_retries=_RETRIES, **resources)
    experiment = ray.put(plan.experiment)
    done = set() if store is None else store.done()
    errors, waiting = GroupErrors(plan), deque()
    for group in plan.groups:
        missing, found = pieces(group, done, chunk)
        if found:
            yield ChunkDone(group.static, found, None, 0.0, True)
        waiting += [(group, cells) for cells in missing]
    if waiting and store is not None:
        store.refuse_work()
    running: dict[Any, tuple[Group, tuple[Cell, ...]]] = {}
    try:
        while running or (waiting and not stop.now):
            places = _AHEAD * max(1, int(ray.cluster_resources().get(kind, 1)))
            while waiting and len(running) < places and not stop.now:
                group, cells = waiting.popleft()
                if not errors.about(group):
                    running[task.remote(experiment, cells, group.limits, key)] = (group, cells)
            ready, _ = ray.wait(list(running), timeout=0.2) if running else ([], [])
            for reference in ready:
                group, cells = running.pop(reference)
                try:
                    results = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    errors.add(group, error.cause)
                    continue
                for result in results:
                    if store is not None:
                        store.commit(result.records, result.kernel)
                    yield result
            if stop.overdue:
                break
    finally:
        for reference in running:
            ray.cancel(reference)
    errors.raise_any()
