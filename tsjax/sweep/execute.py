"""Runs a plan: compiles each group once, keeps all local devices busy with its chunks, commits what they give.

Chunks are dispatched before earlier ones have been read back and committed by a thread of their own, while other threads
compile programs, one for each core: the device waits for neither the host nor the disk, and for the compiler only at first.
Chunks that take less than a moment share a file, so that cheap cells do not drown in files. What goes wrong stays where it
happens. A chunk that runs out of memory is halved, and so is the memory that later programs may plan with; a cell that does
not fit alone becomes a record of `Status.OUT_OF_MEMORY`; a program that cannot be made or run leaves its cells undone, and the
others go on.
"""

import contextlib
import functools
import platform
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import numpy as np
import pandas as pd

from ..fast.fused import kernel_in_use
from ..kernels import neural_tangents
from ..status import Status
from ..versions import version_of
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
from .values import hashable, redacted
from .writer import StoreWriter

# Files waiting for the disk.
_UNWRITTEN = 4
_NAP = 0.1
COMMIT_SECONDS = 2.0
"""How much finished work a kill may lose beside the chunks in flight, unless told otherwise."""


# A group and its pieces that are to be run.
_Waiting: TypeAlias = tuple[Group, deque[tuple[Cell, ...]]]


@dataclass(frozen=True)
class ChunkDone:
    """What happened: cells were run and committed, or found done in the store.

    `seconds` is the time of the devices, `idle_seconds` an upper bound of the time that they waited since the first
    program was compiled, compilation aside: in all so far. `kernel`: what trained relu students (`kernel_in_use`).
    """

    static: dict[str, Any]
    cells: int
    records: pd.DataFrame | None
    seconds: float
    resumed: bool
    idle_seconds: float = 0.0
    kernel: str = "xla"


@functools.cache
def _version(name: str) -> str:
    return version_of(name) or "not installed"


def provenance() -> dict[str, Any]:
    """Versions and devices, for `sweep.json`."""
    packages = ("tsjax", "jax", "jaxlib", "numpy", "scipy", "optax", "neural-tangents")
    return {
        "versions": {name: _version(name) for name in packages},
        "python": platform.python_version(),
        "devices": [device.device_kind for device in usable_devices()],
        "platform": jax.default_backend(),
    }


def _records(cells: list[Cell], static: dict[str, Any], values: dict[str, np.ndarray]) -> pd.DataFrame:
    """One row per cell; vectors of length L give L rows per cell."""
    vectors = {name: value for name, value in values.items() if value.ndim > 1}
    repeat = next(iter(vectors.values())).shape[1] if vectors else 1
    column = lambda listed: np.repeat(np.asarray(listed), repeat)
    # A static argument may be a word, a list or None, the same in all rows; the others are numbers.
    constant = lambda value: pd.Series([hashable(redacted(value))] * (len(cells) * repeat))
    columns: dict[str, Any] = {"cell": column([cell.id for cell in cells])}
    for name in cells[0].arguments:
        columns[name] = constant(static[name]) if name in static else column([cell.arguments[name] for cell in cells])
    columns["seed"] = column([cell.seed for cell in cells])
    columns |= {name: value.reshape(-1) if name in vectors else column(value) for name, value in values.items()}
    return pd.DataFrame(columns)


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
        versions={name: _version(name) for name in ("jax", "tsjax")},
    )


def sized_here(plan: Plan, kept: Mapping[str, tuple[int, ...] | None]) -> Plan:
    """The plan with its sizes in classes (`Plan.sized_by`) for the devices of this process; `kept` are those of its store."""
    platform = usable_devices()[0].platform
    return plan.sized_by(platform, kernel_in_use(platform) != "xla", kept)


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


@dataclass
class _Finished:
    """Chunks of one group that were run and are not committed yet."""

    static: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)
    values: list[dict[str, np.ndarray]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    since: float = 0.0

    def add(self, cells: tuple[Cell, ...], values: dict[str, np.ndarray], seconds: float) -> None:
        if not self.cells:
            self.since = time.perf_counter() - seconds
        self.cells += cells
        self.values.append({name: value[: len(cells)] for name, value in values.items()})
        self.seconds.append(seconds)
        self.sizes.append(len(cells))

    def records(self, compile_seconds: float, device: str) -> pd.DataFrame:
        values = {name: np.concatenate([part[name] for part in self.values]) for name in self.values[0]}
        records = _records(self.cells, self.static, values)
        per_cell = np.repeat(np.divide(self.seconds, self.sizes), self.sizes)
        return records.assign(
            compile_seconds=compile_seconds,
            run_seconds=np.repeat(per_cell, len(records) // len(self.cells)),
            device=device,
            jax=jax.__version__,
            tsjax=_version("tsjax"),
        )


def pieces(group: Group, done: set[str], size: int) -> tuple[deque[tuple[Cell, ...]], int]:
    """The chunks to run, and how many cells are done. The chunks are those of an undisturbed run; of a chunk that was made
    at another size only missing cells are run."""
    missing = [tuple(cell for cell in part if cell.id not in done) for part in group.chunks(size)]
    return deque(filter(None, missing)), len(group.cells) - sum(map(len, missing))


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
        self.errors, self.writer = GroupErrors(plan), ThreadPoolExecutor(1)
        self.costs = KeptCosts(self.device)
        self.programs = Programs(self.experiment, plan.groups, key, chunk, self.costs)
        self.unwritten: deque[tuple[Future | None, ChunkDone]] = deque()

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
        finished = _Finished(group.static)
        try:
            for cells, values, seconds in self.chunks(group, program, waiting):
                finished.add(cells, values, seconds)
                self.costs.note_cells(self.experiment, group, seconds / len(cells))
                if time.perf_counter() - finished.since >= self.commit_seconds:
                    self.commit(finished, program)
                    finished = _Finished(group.static)
                yield from self.committed(_UNWRITTEN)
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

    def commit(self, finished: _Finished, program: Program) -> None:
        """Hands finished chunks to the disk."""
        if not finished.cells:
            return
        records = finished.records(program.compile_seconds, self.device)
        seconds = sum(finished.seconds)
        done = ChunkDone(finished.static, len(finished.cells), records, seconds, False, self.clock.idle, self.kernel)
        future = None if self.store is None else self.writer.submit(self.store.commit, records, self.kernel)
        self.unwritten.append((future, done))

    def committed(self, allowed: int) -> Iterator[ChunkDone]:
        """What has reached the disk; waits until at most `allowed` have not."""
        while self.unwritten:
            future, done = self.unwritten[0]
            if future is not None:
                if not future.done() and len(self.unwritten) <= allowed:
                    return
                future.result()
            self.unwritten.popleft()
            yield done


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
        yield from run.committed(0)
    finally:
        run.writer.shutdown()
        run.programs.close()
        run.costs.save()
    run.errors.raise_any()
