"""The engine of black boxes: processes of this machine that run one cell at a time.

Every worker (`tsjax.sweep.worker`) is a new Python process with one thread for linear algebra and OpenMP, unless the
environment says otherwise, so that records do not depend on the number of workers. A worker may hang, crash or be killed
without harm to others. A cell that takes longer than the timeout is ended, with all processes that it started, and is recorded
as `Status.TIMED_OUT`. A cell whose function raises an error is recorded as `Status.FAILED` (`Status.OUT_OF_MEMORY` for a
MemoryError), with the text of the error in the column `failure`. A cell whose worker died is run again by another worker, and
is recorded as failed after three workers have died in it. A resumed run keeps these records; with `retry` it runs the cells
again.
"""

import contextlib
import inspect
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any, ClassVar

import numpy as np

from ...status import Status
from ..commits import ChunkDone, Commits, Finished
from ..errors import SpecError
from ..experiment import Experiment
from ..faults import ExperimentError, every_cell_failed
from ..interrupt import Stop
from ..kept import KeptCosts
from ..plan import Cell, Group, Plan
from ..program import check_outputs, seed_of
from ..work import Work
from ..worker import Named
from ..writer import StoreWriter
from .base import AbstractCommitting, code_of, whole

DEVICE = "cpu"
"""The device in the records: processes run on the cores."""
# After this many deaths in one cell it has failed; after this many deaths in a row before a worker is ready, the run ends.
_DEATHS, _FALSE_STARTS = 3, 20
# Signals and deaths of workers are noticed within this many seconds.
_NAP = 0.1
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_START = "import sys; sys.path[:] = {path!r}; from tsjax.sweep.worker import serve; serve({handle})"


def _sent(fn: Callable[..., Any]) -> tuple[Named | None, bytes]:
    """A function in the form that is sent to workers: its name if they can import it, else the pickled function."""
    module = inspect.getmodule(fn)
    name = getattr(module, "__name__", "__main__")
    if module is not None and name != "__main__" and _importable(name, getattr(module, "__file__", None)):
        for attribute, value in vars(module).items():
            if value is fn or (isinstance(value, Experiment) and value.fn is fn):
                return Named(name, attribute), b""
        module = None
    import cloudpickle

    if module is None or name == "__main__":
        return None, cloudpickle.dumps(fn)
    # No other process can import the module, so the parts of it that the function uses are pickled with it.
    cloudpickle.register_pickle_by_value(module)
    try:
        return None, cloudpickle.dumps(fn)
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _importable(name: str, file: str | None) -> bool:
    """Whether a new process with the same path would import exactly this file under that name."""
    found, path = None, None
    for part in itertools.accumulate(name.split("."), "{}.{}".format):
        # Not importlib.util.find_spec, which looks at the modules that this process has loaded.
        specs = (finder.find_spec(part, path) for finder in sys.meta_path)
        found = next(filter(None, specs), None)
        if found is None:
            return False
        path = found.submodule_search_locations
    origin = None if found is None else found.origin
    return origin is not None and file is not None and os.path.exists(origin) and os.path.samefile(origin, file)


@dataclass(eq=False)
class _Task:
    """A cell to run, and how many workers have died in it."""

    group: Group
    cell: Cell
    deaths: int = 0


class _Worker:
    """A worker process, for the process that started it."""

    def __init__(self, sent: tuple[Named | None, bytes]):
        self.connection, theirs = Pipe()
        handle = theirs.fileno()
        environment = {**dict.fromkeys(_ONE_THREAD, "1"), **os.environ}
        command = [sys.executable, "-c", _START.format(path=sys.path, handle=handle)]
        # The output of a cell goes to standard error, since standard output may be JSON.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=2, pass_fds=[handle], env=environment, start_new_session=True
        )
        theirs.close()
        self.ready, self.task, self.since = False, None, 0.0
        # A worker that dies at once is noticed when its messages are read.
        with contextlib.suppress(OSError):
            self.connection.send(sent)

    def run(self, task: _Task, seed: int) -> None:
        self.task, self.since = task, time.monotonic()
        with contextlib.suppress(OSError):
            self.connection.send((seed, task.cell.arguments))

    def message(self) -> tuple[str, Any, float] | None:
        """The next message of the worker, if there is one; a message `dead` if it has ended."""
        # In this order, since messages that it sent before it ended count.
        gone = self.process.poll() is not None
        try:
            if self.connection.poll():
                return self.connection.recv()
        except (EOFError, OSError):
            gone = True
        return ("dead", None, 0.0) if gone else None

    def end(self) -> str:
        """Ends the worker and all processes that it has started; returns how it ended."""
        # A process group without a living member is gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        self.connection.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        if code >= 0:
            return f"with exit code {code}"
        note = ", as where memory runs out" if code == -signal.SIGKILL else ""
        return f"by {signal.Signals(-code).name}{note}"


@dataclass
class _Run:
    """The state of `BlackBox.run`."""

    experiment: Experiment
    key: int
    processes: int
    work: Work
    commits: Commits
    any_success: bool
    coming: Iterator[tuple[Group, tuple[Cell, ...]]] = field(default_factory=lambda: iter(()))
    tasks: deque[_Task] = field(default_factory=deque)
    costs: KeptCosts = field(default_factory=lambda: KeptCosts(DEVICE))
    finished: dict[tuple, Finished] = field(default_factory=dict)
    pool: list[_Worker] = field(default_factory=list)
    failures: list[tuple[Cell, str]] = field(default_factory=list)
    false_starts: int = 0

    def __post_init__(self):
        self.sent = _sent(self.experiment.fn)

    @property
    def busy(self) -> list[_Worker]:
        return [worker for worker in self.pool if worker.task is not None]

    def fetch(self) -> None:
        """Claims cells, but not more than workers need soon."""
        while len(self.tasks) < self.processes:
            group, cells = next(self.coming, (None, ()))
            if group is None:
                return
            self.tasks.extend(_Task(group, cell) for cell in cells)

    def hand_out(self) -> None:
        """Gives waiting cells to idle workers, and starts more workers if there are cells for them."""
        self.fetch()
        for worker in self.pool:
            while worker.ready and worker.task is None and self.tasks:
                task = self.tasks.popleft()
                if not self.work.errors.about(task.group):
                    arguments = task.cell.arguments
                    worker.run(task, seed_of(self.key, task.cell.seed, arguments, self.experiment.independent))
        starting = sum(not worker.ready for worker in self.pool)
        while len(self.pool) < self.processes and starting < len(self.tasks):
            self.pool.append(_Worker(self.sent))
            starting += 1

    def listen(self) -> None:
        """Handles the messages of workers, and cells that are over their time; waits for at most a moment."""
        due = [worker.since + self.experiment.timeout for worker in self.busy if self.experiment.timeout is not None]
        nap = min([_NAP, *(max(0.0, at - time.monotonic()) for at in due)])
        wait([worker.connection for worker in self.pool], nap)
        for worker in list(self.pool):
            message = worker.message()
            if message is not None:
                self.take(worker, *message)
            elif worker.task is not None and self.experiment.timeout is not None:
                seconds = time.monotonic() - worker.since
                if seconds >= self.experiment.timeout:
                    self.drop(worker)
                    text = f"it took more than {self.experiment.timeout:g} seconds, the timeout"
                    self.failed(worker.task, Status.TIMED_OUT, text, seconds)

    def take(self, worker: _Worker, kind: str, value: Any, seconds: float) -> None:
        """Handles a message of a worker."""
        task, worker.task = worker.task, None
        if kind == "broken":
            raise ExperimentError(
                f"experiment {self.experiment.name!r}: its function cannot be loaded in a worker process: {value}. Put "
                "the function, and everything that it needs, into a module that can be imported."
            )
        if kind == "dead":
            self.died(worker, task)
        elif kind == "ready":
            worker.ready, self.false_starts = True, 0
        elif task is None:
            raise RuntimeError(f"a worker said {kind!r}, but had no cell.")
        elif kind == "wrong":
            self.work.errors.add(task.group, ValueError(f"experiment {self.experiment.name!r} {value}"))
        elif kind == "returned":
            self.succeeded(task, value, seconds)
        else:
            status = Status.OUT_OF_MEMORY if kind == "memory" else Status.FAILED
            self.failed(task, status, value, seconds)

    def died(self, worker: _Worker, task: _Task | None) -> None:
        how = self.drop(worker)
        if not worker.ready:
            self.false_starts += 1
            if self.false_starts >= _FALSE_STARTS:
                raise ExperimentError(
                    f"experiment {self.experiment.name!r}: {_FALSE_STARTS} worker processes in a row ended before they had "
                    f"loaded its function, the last one {how}."
                )
        if task is None:
            return
        task.deaths += 1
        if task.deaths < _DEATHS:
            self.tasks.appendleft(task)
        else:
            seconds = time.monotonic() - worker.since
            self.failed(task, Status.FAILED, f"{_DEATHS} worker processes ended in it, the last one {how}", seconds)

    def drop(self, worker: _Worker) -> str:
        self.pool.remove(worker)
        return worker.end()

    def succeeded(self, task: _Task, returned: dict[str, np.ndarray], seconds: float) -> None:
        try:
            values = {name: array[None] for name, array in returned.items()}
            check_outputs(self.experiment, task.group, values)
        except ValueError as error:
            self.work.errors.add(task.group, error)
            return
        self.any_success = True
        values = {"status": np.array([int(Status.CONVERGED)])} | values
        self.finish(task, values | {"failure": np.array([""], object)}, seconds)
        self.costs.note_cells(self.experiment, task.group, seconds / self.processes)

    def failed(self, task: _Task, status: Status, text: str, seconds: float) -> None:
        self.failures.append((task.cell, text))
        values = {name: np.array([np.nan]) for name in self.experiment.y}
        # A cell that would have returned vectors has one row, without an x.
        values |= {self.experiment.x: np.array([np.nan])} if self.experiment.returns_x else {}
        values |= {"status": np.array([int(status)]), "failure": np.array([text], object)}
        self.finish(task, values, seconds)

    def finish(self, task: _Task, values: dict[str, np.ndarray], seconds: float) -> None:
        # Cells that returned the same names, types and shapes go into one table.
        like = tuple(sorted((name, value.dtype.kind, value.shape) for name, value in values.items()))
        place = (id(task.group), like)
        # As on devices, the time of a cell is that of all workers together.
        self.finished.setdefault(place, Finished(task.group.static, self.experiment.arrays)).add(
            (task.cell,), values, seconds / self.processes
        )

    def commit(self, seconds: float, most: int) -> None:
        """Begins to write tables whose first cell was begun at least `seconds` ago, tables of at least `most` cells, and all
        tables of groups that have no more cells waiting or running."""
        unfinished = {id(task.group) for task in self.tasks} | {id(one.task.group) for one in self.busy if one.task}
        now = time.perf_counter()
        for place, found in list(self.finished.items()):
            if now - found.since >= seconds or len(found.cells) >= most or place[0] not in unfinished:
                self.commits.add(self.finished.pop(place), device=DEVICE, kernel="none")

    def close(self) -> None:
        for worker in self.pool:
            worker.end()
        self.commits.close()
        self.costs.save()


@dataclass(frozen=True, kw_only=True)
class BlackBox(AbstractCommitting):
    """Processes of this machine that run one cell at a time each: the engine of black boxes (`tsjax.black_box`).

    - `processes`: their number; by default that of the cores.
    - `chunk`: the number of finished cells that are written at once, and the most cells that are claimed at once.
    - `commit_seconds`, `lease_seconds`: as those of `Local`.
    """

    name: ClassVar[str] = "black_box"
    processes: int | None = None

    def __post_init__(self):
        super().__post_init__()
        what = "the number of processes that run the cells of a black box"
        whole(self, "processes", what, optional="all cores")

    def check(self, experiment: Experiment, out: Any) -> None:
        if not experiment.black_box:
            raise SpecError(
                f"engine 'black_box' runs black boxes in processes, and {experiment.name!r} is an experiment in JAX, which "
                "runs on all devices: leave the engine out."
            )

    def run(self, plan: Plan, store: StoreWriter | None, stop: Stop) -> Iterator[ChunkDone]:
        """As `AbstractEngine.run`.

        **Raises:** StoreError at once; ExperimentError if workers cannot load the function; at the end GroupError if a function
        returned values that no record can hold, or if all cells failed.
        """
        experiment = code_of(plan)
        processes = len(os.sched_getaffinity(0)) if self.processes is None else self.processes
        work = Work(plan, store, self.lease_seconds)
        try:
            run = _Run(experiment, plan.key, processes, work, Commits(work.commit), work.any_before)
            try:
                yield from self._rounds(run, stop)
            finally:
                # If something failed, cells that were finished before are written.
                run.commit(0.0, 1)
                run.close()
        finally:
            work.close()
        work.errors.raise_any()
        if run.failures and not run.any_success and not stop.now:
            raise every_cell_failed(experiment, run.failures)

    def _rounds(self, run: _Run, stop: Stop) -> Iterator[ChunkDone]:
        """Runs the cells that are free, and then those that others have given up, until all are done."""
        # Small pieces: cells run one by one, so a large piece would keep them from other processes for long.
        piece = min(self.chunk, run.processes)
        while not stop.overdue:
            run.coming = run.work.pieces(piece)
            run.fetch()
            yield from run.work.news()
            if not run.tasks:
                run.commit(0.0, 1)
                yield from run.commits.committed(0)
                if stop.now or run.work.finished:
                    return
                run.work.wait(stop)
            while (run.tasks or run.busy) and not stop.overdue:
                if not stop.now:
                    run.hand_out()
                elif not run.busy:
                    run.tasks.clear()
                    break
                run.listen()
                run.commit(self.commit_seconds, self.chunk)
                yield from run.commits.committed()
            # The next round must know which cells are done.
            run.commit(0.0, 1)
            yield from run.commits.committed(0)
            if stop.now:
                return
