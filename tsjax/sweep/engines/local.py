"""The engine that runs experiments on the devices of this machine: it compiles programs, runs chunks and commits their records.

A chunk is dispatched before earlier ones have been read back. One thread commits records, and other threads compile programs,
one on each core. So the devices do not wait for the host or the disk, and for the compiler only at the beginning. Chunks that
take little time share a file, so that cheap cells do not make many files.

An error does not stop other programs. A chunk that runs out of memory is halved, and later programs must then fit into the
memory of the smaller chunk. A cell that does not fit alone gets a record with `Status.OUT_OF_MEMORY`. A program that cannot be
compiled or run leaves its cells undone.
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
from ..faults import out_of_memory
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


class _Clock:
    """An upper bound on the time that devices wait: the time between the last moment when they were seen busy and the next
    dispatch."""

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
        """Time within the context does not count, since its cause is compilation."""
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
        """The number of cells of a group that run together: a multiple of the number of devices."""
        return -(-min(self.chunk, len(group.cells)) // self.count) * self.count

    def smaller(self, group: Group, size: int) -> Program:
        """The program of a group for chunks of fewer cells."""
        with self.clock.excused():
            return self.programs.smaller(group, size)

    def next(self, todo: list[Group]) -> Group | None:
        """Takes the first group whose program is ready, and waits if there is none. None after a request to stop."""
        with self.clock.excused():
            while not self.stop.now:
                for i, group in enumerate(todo):
                    if self.programs.is_there(group):
                        return todo.pop(i)
                # In short waits, between which a signal is noticed.
                self.programs.wait(_NAP)
        return None

    def rounds(self) -> Iterator[ChunkDone]:
        """Runs the cells that are free, and then those that others have given up, until all are done."""
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
            # The next round must know which cells are done.
            yield from self.commits.committed(0)

    def group(self, group: Group) -> Iterator[ChunkDone]:
        """Runs the pieces of a group that are free."""
        program = self.programs.of(group)
        if program.bytes > self.programs.budget and program.size > self.count:
            # Memory ran out after the program was compiled, so the budget is smaller now.
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
            # If something failed, chunks that were finished before are written.
            self.commit(finished, program)

    def chunks(self, group: Group, program: Program) -> Iterator[tuple]:
        """Runs the chunks of a group, and yields the cells, the values and the seconds of each."""
        flying: deque[tuple[tuple[Cell, ...], Any, float, bool]] = deque()
        # Cells that were claimed and must be run, perhaps again.
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
                if not out_of_memory(error):
                    raise
                if not alone:
                    # The reason may only be that another chunk was in flight.
                    self.in_flight = 1
                    taken.appendleft(cells)
                    continue
                if program.size == self.count:
                    # These cells do not fit even with one cell on each device.
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
        """Waits until the arrays are ready; False if that takes too long after a request to stop. It waits in short naps,
        between which a signal is noticed."""
        nap = 1e-4
        while not _ready(promise):
            self.clock.busy()
            if self.stop.now and self.stop.overdue:
                return False
            time.sleep(nap)
            nap = min(2 * nap, 0.02)
        return True

    def commit(self, finished: Finished, program: Program) -> None:
        """Begins to write finished chunks."""
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
    """The values of cells that do not fit in memory: NaN, or 0 for types without NaN."""
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
    """Runs every cell that the store lacks on the devices of this process; yields a `ChunkDone` for every commit, and for cells
    that were found done.

    **Raises:** GroupError at the end, if programs could not be compiled or run; StoreError at once.
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
    """All devices of this machine: the default engine of experiments in JAX.

    - `chunk`: the most cells that run together; fewer if they do not fit in memory.
    - `commit_seconds`: how many seconds of finished work a kill may lose, besides the chunks in flight.
    - `lease_seconds`: after this time without a sign of life, another process that works on the store takes over the cells that
      this one holds. On the same machine, others notice at once that a process has ended.
    """

    name: ClassVar[str] = "local"

    def check(self, experiment: Experiment, out: Any) -> None:
        self.refuse_black_box(experiment)

    def run(self, plan: Plan, store: StoreWriter | None, stop: Stop) -> Iterator[ChunkDone]:
        """As `run_plan`. **Raises:** as `run_plan`."""
        yield from run_plan(
            plan,
            store,
            chunk=self.chunk,
            commit_seconds=self.commit_seconds,
            lease_seconds=self.lease_seconds,
            stop=stop,
        )
