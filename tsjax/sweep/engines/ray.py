"""The engine for Ray clusters: every chunk is a task, which any node may run, and which is run again if its node is lost.

This process commits the records that tasks return, so the nodes need no shared disk. Nodes may join and leave: the number of
chunks that are handed out follows the present size of the cluster.
"""

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ..classes import Shared
from ..commits import ChunkDone
from ..devices import keep_compiled, one_blas_thread
from ..experiment import Experiment
from ..interrupt import Stop
from ..plan import Cell, Combination, Group, Plan
from ..program import settings
from ..work import Work
from ..writer import StoreWriter
from .base import AbstractLeasing, code_of, text
from .local import run_plan

# Ray gives up a task after this many lost workers or nodes.
_RETRIES = 20
# The number of tasks that are handed out for each GPU or CPU, so that the next task is already waiting.
_AHEAD = 2


def _work(experiment: Experiment, cells: tuple[Cell, ...], shared: Shared, key: int) -> list[ChunkDone]:
    """Runs one chunk in a worker of Ray, with the program that groups share as `shared` says."""
    keep_compiled()
    plan = Plan(
        experiment, tuple(Combination(cell.arguments, [cell.seed]) for cell in cells), shared=(shared,), key=key
    )
    with one_blas_thread(), settings(experiment.x64):
        return list(run_plan(plan, None, chunk=len(cells), commit_seconds=float("inf")))


def connect(address: str | None) -> Any:
    """The module of Ray, connected to the cluster to which this process is connected already, else to the one at `address`,
    else to a new local one.

    **Raises:** ValueError if Ray is not installed; ConnectionError if there is no cluster at `address`.
    """
    # Under `uv run`, Ray would make a new environment for every worker; nodes have their own.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        # By name, since this module is called ray too.
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise ValueError("engine 'ray' needs Ray: python3 -m pip install 'tsjax[ray]'.") from None
    if not ray.is_initialized():
        # Workers of this machine get the path of this process; those of a cluster have their own environment.
        local = {"env_vars": {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}}
        options: dict[str, Any] = {"address": address}
        if address is None:
            # Without an address, Ray would look for a cluster that somebody has started on this machine, perhaps long ago.
            options = {"address": "local", "include_dashboard": False, "runtime_env": local}
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
    return ray


@dataclass(frozen=True, kw_only=True)
class Ray(AbstractLeasing):
    """A Ray cluster, with one task for every chunk. A task takes a GPU if the cluster has some, else a CPU.

    - `address`: that of a cluster; by default the one to which this process is connected, else a new local one.
    - `lease_seconds`: as that of `Local`, for the process that hands out tasks.
    """

    name: ClassVar[str] = "ray"
    address: str | None = None

    def __post_init__(self):
        super().__post_init__()
        text(self, "address", "the address of a cluster")

    def check(self, experiment: Experiment, out: Any) -> None:
        self.refuse_black_box(experiment)

    def run(self, plan: Plan, store: StoreWriter | None, stop: Stop) -> Iterator[ChunkDone]:
        """As `AbstractEngine.run`. **Raises:** as `run_plan` and `connect`."""
        ray, work = connect(self.address), Work(plan, store, self.lease_seconds)
        running: dict[Any, tuple[Group, tuple[Cell, ...]]] = {}
        try:
            kind = "GPU" if ray.cluster_resources().get("GPU") else "CPU"
            resources = {"num_gpus": 1, "num_cpus": 0} if kind == "GPU" else {"num_cpus": 1}
            task = ray.remote(_work).options(max_retries=_RETRIES, **resources)
            experiment = ray.put(code_of(plan))
            while not stop.overdue:
                coming = work.pieces(self.chunk)
                begun = False
                while not stop.overdue:
                    places = _AHEAD * max(1, int(ray.cluster_resources().get(kind, 1)))
                    while len(running) < places and not stop.now and (found := next(coming, None)) is not None:
                        group, cells = found
                        running[task.remote(experiment, cells, group.shared, plan.key)] = found
                        begun = True
                    yield from work.news()
                    if not running:
                        break
                    yield from _finished(ray, work, running)
                if stop.now or (not begun and work.finished):
                    break
                if not begun:
                    work.wait(stop)
        finally:
            for reference in running:
                with contextlib.suppress(Exception):
                    ray.cancel(reference)
            work.close()
        work.errors.raise_any()


def _finished(ray: Any, work: Work, running: dict[Any, tuple[Group, tuple[Cell, ...]]]) -> Iterator[ChunkDone]:
    """Commits the records of tasks that have ended; waits for at most a moment."""
    ready, _ = ray.wait(list(running), timeout=0.2)
    for reference in ready:
        group, _ = running.pop(reference)
        try:
            results = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            work.errors.add(group, error.cause)
            continue
        for result in results:
            kept = work.commit(result.records, result.kernel)
            if len(kept):
                yield result.of(kept)
