"""Runs a plan: compiles each group once, keeps all local devices busy with its chunks, commits what they give.

Chunks are dispatched before earlier ones have been read back and committed by a thread of their own, while other threads
compile programs, one for each core: the device waits for neither the host nor the disk, and for the compiler only at first.
Chunks that take less than a moment share a file, so that cheap cells do not drown in files. What goes wrong stays where it
happens. A chunk that runs out of memory is halved, and so is the memory that later programs may plan with; a cell that does
not fit alone becomes a record of `Status.OUT_OF_MEMORY`; a program that cannot be made or run leaves its cells undone, and the
others go on.
"""

import contextlib
import platform
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np

from ..fast.fused import kernel_in_use
from ..kernels import neural_tangents
from ..status import Status
from .commits import COMMIT_SECONDS, ChunkDone, Commits, Finished, pieces, version
from .devices import usable_devices
from .experiment import Experiment
from .faults import GroupErrors
from .interrupt import Stop
from .kept import KeptCosts
from .manifest import Manifest
from .plan import Cell, Group, Plan
from .program import IN_FLIGHT, Program, inputs_of
from .programs import Programs
from .spec import SweepSpec
from .store import StoreError, identity_of
from .writer import StoreWriter

_NAP = 0.1

# A group and its pieces that are to be run.
_Waiting: TypeAlias = tuple[Group, deque[tuple[Cell, ...]]]


def provenance() -> dict[str, Any]:
    """Versions and devices, for `sweep.json`."""
    packages = ("tsjax", "jax", "jaxlib", "numpy", "scipy", "optax", "neural-tangents")
    return {
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "devices": [device.device_kind for device in usable_devices()],
        "platform": jax.default_backend(),
    }


def manifest_of(spec: SweepSpec, experiment: Experiment) -> Manifest:
    """What the chunks that this process writes will say of themselves."""
    described, device = experiment.description, usable_devices()[0]
    return Manifest(
        identity=identity_of(spec, described),
        defaults={name: default[0] for name, default in described.arguments.items() if default},
        device=device.device_kind,
        kernel=kernel_in_use(device.platform),
        ntk=neural_tangents.source(),
        x64=described.x64,
        source=described.source,
        versions={name: version(name) for name in ("jax", "tsjax")},
    )


def sized_here(plan: Plan, kept: Mapping[str, tuple[int, ...] | None]) -> Plan:
    """The plan with its sizes in classes (`Plan.sized_by`) for the devices of this process; `kept` are those of its store."""
    platform = usable_devices()[0].platform
    return plan.sized_by(platform, kernel_in_use(platform) != "xla", kept)


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


class _Clock:
    """Bounds the time that the devices wait: what lies between the last moment they were seen busy and the next dispatch."""

    def __init__(self):
        self.idle, self._busy = 0.0, None

    def busy(self) -> None:
        self._busy = time.perf_counter()

    def dispatch(self, running: bool) -> None:
        now = time.perf_counter()
        if self._busy is not None and not running:
            self.idle += now - self._busy
        self._busy = now

    @contextlib.contextmanager
    def excused(self) -> Iterator[None]:
        """Of the waiting inside the cause is compilation."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._busy is not None:
                self._busy += time.perf_counter() - start


class _Run:
    """The state of `run_plan`."""

    def __init__(self, plan: Plan, store: StoreWriter | None, key: int, chunk: int, commit_seconds: float, stop: Stop):
        self.plan, self.store, self.key, self.chunk = plan, store, key, chunk
        self.commit_seconds, self.stop = commit_seconds, stop
        if not isinstance(plan.experiment, Experiment):
            raise TypeError(f"the plan of {plan.experiment.name} was read from a store and has no code to run.")
        self.experiment = plan.experiment
        self.device, self.count = usable_devices()[0].device_kind, len(usable_devices())
        self.kernel = kernel_in_use(usable_devices()[0].platform)
        self.in_flight, self.clock = IN_FLIGHT, _Clock()
        self.errors, self.commits = GroupErrors(plan), Commits(store)
        self.costs = KeptCosts(self.device)
        self.programs = Programs(self.experiment, plan.groups, key, chunk, self.costs)

    def smaller(self, group: Group, size: int) -> Program:
        """The program of a group for chunks of fewer cells."""
        with self.clock.excused():
            return self.programs.smaller(group, size)

    def next(self, todo: list[_Waiting]) -> _Waiting | None:
        """Takes the first group whose program is there; waits for one where there is none. None after a request to stop."""
        with self.clock.excused():
            while not self.stop.now:
                for i, (group, _) in enumerate(todo):
                    if self.programs.is_there(group):
                        return todo.pop(i)
                # In naps: a signal is heard between them.
                self.programs.wait(_NAP)
        return None

    def group(self, group: Group, waiting: deque[tuple[Cell, ...]]) -> Iterator[ChunkDone]:
        """Runs the pieces of a group that are waiting."""
        program = self.programs.of(group)
        if program.bytes > self.programs.budget and program.size > self.count:
            # Memory ran out since it was planned.
            program = self.smaller(group, program.size)
        finished = Finished(group.static, self.experiment.arrays)
        try:
            for cells, values, seconds in self.chunks(group, program, waiting):
                finished.add(cells, values, seconds)
                self.costs.note_cells(self.experiment, group, seconds / len(cells))
                if time.perf_counter() - finished.since >= self.commit_seconds:
                    self.commit(finished, program)
                    finished = Finished(group.static, self.experiment.arrays)
                yield from self.commits.committed()
        finally:
            # Also what was finished before something failed.
            self.commit(finished, program)

    def chunks(self, group: Group, program: Program, waiting: deque[tuple[Cell, ...]]) -> Iterator[tuple]:
        """Cells, values and seconds of one chunk after the other."""
        flying: deque[tuple[tuple[Cell, ...], Any, float, bool]] = deque()
        before = time.perf_counter()
        while flying or (waiting and not self.stop.now):
            cells, alone = (), False
            try:
                while waiting and len(flying) < self.in_flight and not self.stop.now:
                    cells, alone = waiting.popleft(), self.in_flight == 1
                    if len(cells) > program.size:
                        waiting.appendleft(cells[program.size :])
                        cells = cells[: program.size]
                    inputs = inputs_of(cells, self.experiment, group, program.size, self.key)
                    self.clock.dispatch(bool(flying) and not _ready(flying[-1][1]))
                    flying.append((cells, program.call(*inputs), time.perf_counter(), alone))
                if not flying:
                    return
                cells, promise, start, alone = flying.popleft()
                if not self.wait(promise):
                    return
                values = jax.device_get(promise)
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                if not alone:
                    # Perhaps only because another chunk was on its way.
                    self.in_flight = 1
                    waiting.appendleft(cells)
                    continue
                if program.size == self.count:
                    # Cells that do not fit alone, one on each device.
                    yield cells, _no_memory(len(cells), program.outputs), 0.0
                    continue
                half = max(self.count, program.size // 2)
                program = self.smaller(group, half)
                self.programs.budget = min(self.programs.budget, program.bytes)
                waiting.appendleft(cells)
                continue
            now = time.perf_counter()
            yield cells, values, now - max(start, before)
            before = now

    def wait(self, promise: Any) -> bool:
        """Until the arrays are there, or too long after a request to stop. In small naps: a signal is heard between them."""
        nap = 1e-4
        while not _ready(promise):
            self.clock.busy()
            if self.stop.now and self.stop.overdue:
                return False
            time.sleep(nap)
            nap = min(2 * nap, 0.02)
        return True

    def commit(self, finished: Finished, program: Program) -> None:
        """Hands finished chunks to the disk."""
        self.commits.add(
            finished,
            device=self.device,
            kernel=self.kernel,
            compile_seconds=program.compile_seconds,
            idle_seconds=self.clock.idle,
        )


def _ready(promise: Any) -> bool:
    return all(array.is_ready() for array in jax.tree.leaves(promise))


def _no_memory(cells: int, outputs: dict[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """What a record says of cells that do not fit in memory: NaN, where there are NaNs."""
    nothing = lambda dtype: np.nan if np.issubdtype(dtype, np.inexact) else 0
    values = {k: np.full((cells, *v.shape[1:]), nothing(v.dtype), v.dtype) for k, v in outputs.items()}
    return values | {"status": np.full(cells, int(Status.OUT_OF_MEMORY), np.int32)}


def run_plan(
    plan: Plan,
    store: StoreWriter | None,
    key: int,
    *,
    chunk: int,
    commit_seconds: float = COMMIT_SECONDS,
    stop: Stop | None = None,
) -> Iterator[ChunkDone]:
    """Runs every cell that the store lacks; yields a `ChunkDone` for every commit, and for cells found done.

    **Raises:** GroupError at the end, if programs could not be made or run; StoreError at once.
    """
    run = _Run(plan, store, key, chunk, commit_seconds, Stop() if stop is None else stop)
    done = set() if store is None else store.done()
    found: deque[tuple[Group, int]] = deque()
    todo: list[_Waiting] = []
    for group in plan.groups:
        missing, present = pieces(group, done, -(-min(chunk, len(group.cells)) // run.count) * run.count)
        if present:
            found.append((group, present))
        if missing:
            todo.append((group, missing))
    if todo and store is not None:
        store.refuse_work()
    try:
        for group, present in found:
            yield ChunkDone(group.static, present, None, 0.0, True, run.clock.idle)
        run.programs.begin((group, max(map(len, missing))) for group, missing in todo)
        while todo and (ready := run.next(todo)) is not None:
            group, missing = ready
            try:
                yield from run.group(group, missing)
            except StoreError:
                raise
            except Exception as error:
                run.errors.add(group, error)
            finally:
                run.programs.done(group)
        yield from run.commits.committed(0)
    finally:
        run.commits.close()
        run.programs.close()
        run.costs.save()
    run.errors.raise_any()
