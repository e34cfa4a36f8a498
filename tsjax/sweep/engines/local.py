"""The devices of this machine: compiles each group once, keeps them busy with its chunks, commits what they give.

Chunks are dispatched before earlier ones have been read back and committed by a thread of their own, while other threads
compile programs, one for each core: the device waits for neither the host nor the disk, and for the compiler only at first.
Chunks that take less than a moment share a file, so that cheap cells do not drown in files. What goes wrong stays where it
happens. A chunk that runs out of memory is halved, and so is the memory that later programs may plan with; a cell that does
not fit alone becomes a record of `Status.OUT_OF_MEMORY`; a program that cannot be made or run leaves its cells undone, and the
others go on.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ...fast.fused import kernel_in_use
from ...status import Status
from ..commits import COMMIT_SECONDS, ChunkDone, Commits, Finished
from ..devices import usable_devices
from ..experiment import Experiment
from ..interrupt import Stop
from ..kept import KeptCosts
from ..leases import LEASE_SECONDS
from ..plan import Cell, Group, Plan
from ..program import IN_FLIGHT, Program, inputs_of
from ..programs import Programs
from ..store import StoreError
from ..work import Work
from ..writer import StoreWriter
from .base import AbstractCommitting, code_of

_NAP = 0.1


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

    def __init__(self, plan: Plan, work: Work, chunk: int, commit_seconds: float, stop: Stop):
        self.plan, self.work, self.chunk = plan, work, chunk
        self.commit_seconds, self.stop, self.experiment = commit_seconds, stop, code_of(plan)
        self.device, self.count = usable_devices()[0].device_kind, len(usable_devices())
        self.kernel = kernel_in_use(usable_devices()[0].platform)
        self.in_flight, self.clock = IN_FLIGHT, _Clock()
        self.commits, self.costs = Commits(work.commit), KeptCosts(self.device)
        self.programs = Programs(self.experiment, plan.groups, plan.key, chunk, self.costs)

    def piece(self, group: Group) -> int:
        """How many cells of a group run together: a multiple of the number of devices."""
        return -(-min(self.chunk, len(group.cells)) // self.count) * self.count

    def smaller(self, group: Group, size: int) -> Program:
        """The program of a group for chunks of fewer cells."""
        with self.clock.excused():
            return self.programs.smaller(group, size)

    def next(self, todo: list[Group]) -> Group | None:
        """Takes the first group whose program is there; waits for one where there is none. None after a request to stop."""
        with self.clock.excused():
            while not self.stop.now:
                for i, group in enumerate(todo):
                    if self.programs.is_there(group):
                        return todo.pop(i)
                # In naps: a signal is heard between them.
                self.programs.wait(_NAP)
        return None

    def rounds(self) -> Iterator[ChunkDone]:
        """Runs what can be had, and again what others have given up since, until nothing is left."""
        while not self.stop.now:
            found = self.work.groups(self.piece)
            yield from self.work.news()
            if not found:
                yield from self.commits.committed(0)
                if self.work.finished:
                    return
                self.work.wait(self.stop)
                continue
            self.programs.begin(found)
            todo = [group for group, _ in found]
            while todo and (group := self.next(todo)) is not None:
                try:
                    yield from self.group(group)
                except StoreError:
                    raise
                except Exception as error:
                    self.work.errors.add(group, error)
                finally:
                    self.programs.done(group)
            # Only then it is known what is done.
            yield from self.commits.committed(0)

    def group(self, group: Group) -> Iterator[ChunkDone]:
        """Runs the pieces of a group that can be had."""
        program = self.programs.of(group)
        if program.bytes > self.programs.budget and program.size > self.count:
            # Memory ran out since it was planned.
            program = self.smaller(group, program.size)
        finished = Finished(group.static, self.experiment.arrays)
        try:
            for cells, values, seconds in self.chunks(group, program):
                finished.add(cells, values, seconds)
                self.costs.note_cells(self.experiment, group, seconds / len(cells))
                if time.perf_counter() - finished.since >= self.commit_seconds:
                    self.commit(finished, program)
                    finished = Finished(group.static, self.experiment.arrays)
                yield from self.commits.committed()
        finally:
            # Also what was finished before something failed.
            self.commit(finished, program)

    def chunks(self, group: Group, program: Program) -> Iterator[tuple]:
        """Cells, values and seconds of one chunk after the other."""
        flying: deque[tuple[tuple[Cell, ...], Any, float, bool]] = deque()
        # Cells that were taken and are to be run (again).
        taken: deque[tuple[Cell, ...]] = deque()
        before, more = time.perf_counter(), True
        while flying or ((taken or more) and not self.stop.now):
            cells, alone = (), False
            try:
                while (taken or more) and len(flying) < self.in_flight and not self.stop.now:
                    cells, alone = taken.popleft() if taken else self.work.next(group), self.in_flight == 1
                    if not cells:
                        more = False
                        break
                    if len(cells) > program.size:
                        taken.appendleft(cells[program.size :])
                        cells = cells[: program.size]
                    inputs = inputs_of(cells, self.experiment, group, program.size, self.plan.key)
                    self.clock.dispatch(bool(flying) and not _ready(flying[-1][1]))
                    flying.append((cells, program.call(*inputs), time.perf_counter(), alone))
                if not flying:
                    return
                cells, promise, start, alone = flying.popleft()
                if not self.wait(promise):
                    return
                values = jax.device_get(promise)
            except StoreError:
                raise
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                if not alone:
                    # Perhaps only because another chunk was on its way.
                    self.in_flight = 1
                    taken.appendleft(cells)
                    continue
                if program.size == self.count:
                    # Cells that do not fit alone, one on each device.
                    yield cells, _no_memory(len(cells), program.outputs), 0.0
                    continue
                half = max(self.count, program.size // 2)
                program = self.smaller(group, half)
                self.programs.budget = min(self.programs.budget, program.bytes)
                taken.appendleft(cells)
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
    *,
    chunk: int,
    commit_seconds: float = COMMIT_SECONDS,
    lease_seconds: float = LEASE_SECONDS,
    stop: Stop | None = None,
) -> Iterator[ChunkDone]:
    """Runs every cell that the store lacks, on the devices of this process; yields a `ChunkDone` for every commit, and for
    cells found done.

    **Raises:** GroupError at the end, if programs could not be made or run; StoreError at once.
    """
    work = Work(plan, store, lease_seconds)
    try:
        run = _Run(plan, work, chunk, commit_seconds, Stop() if stop is None else stop)
        try:
            yield from run.rounds()
            yield from run.commits.committed(0)
        finally:
            run.commits.close()
            run.programs.close()
            run.costs.save()
    finally:
        work.close()
    work.errors.raise_any()


@dataclass(frozen=True, kw_only=True)
class Local(AbstractCommitting):
    """The devices of this machine, all of them: the engine of experiments in JAX where you name none.

    - `commit_seconds`: how much finished work a kill may lose, beside the chunks in flight.
    - `lease_seconds`: after so long without a sign of life, another process on the store takes over what this one holds. On one
      machine a process that ended is noticed at once.
    """

    name: ClassVar[str] = "local"

    def check(self, experiment: Experiment, out: Any) -> None:
        self.refuse_black_box(experiment)

    def run(self, plan: Plan, store: StoreWriter | None, stop: Stop) -> Iterator[ChunkDone]:
        """**Raises:** as `run_plan`."""
        yield from run_plan(
            plan,
            store,
            chunk=self.chunk,
            commit_seconds=self.commit_seconds,
            lease_seconds=self.lease_seconds,
            stop=stop,
        )
