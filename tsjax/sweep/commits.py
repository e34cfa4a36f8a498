"""Finished cells on their way to the disk, for every engine."""

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pandas as pd

from ..versions import version_of
from .plan import Cell
from .values import hashable, redacted

COMMIT_SECONDS = 2.0
"""Seconds of finished work that a kill may lose, besides the chunks in flight, by default."""
# The most files that may wait for the disk.
UNWRITTEN = 4


@dataclass(frozen=True)
class ChunkDone:
    """A message that cells were run and committed, or were found done in the store (`resumed`).

    - `static`: their static arguments. `cells`: their number. `records`: their records, or None for cells that were found done.
    - `seconds`: the time of the devices for these cells.
    - `idle_seconds`: an upper bound on the total time, up to now, that devices have waited since the first program was
      compiled, not counting compilation.
    - `kernel`: the kernel that trained ReLU students (`kernel_in_use`).
    """

    static: dict[str, Any]
    cells: int
    records: pd.DataFrame | None
    seconds: float
    resumed: bool
    idle_seconds: float = 0.0
    kernel: str = "xla"

    def of(self, records: pd.DataFrame) -> "ChunkDone":
        """The same message, restricted to these of its records."""
        if self.records is not None and len(records) == len(self.records):
            return self
        return dataclasses.replace(self, cells=records["cell"].nunique(), records=records)


@functools.cache
def version(name: str) -> str:
    """The version of a package, or `not installed`."""
    return version_of(name) or "not installed"


@dataclass
class Finished:
    """Chunks of one group that were run but are not committed yet. `arrays` names the returned arrays, which are kept whole."""

    static: dict[str, Any]
    arrays: Collection[str] = ()
    cells: list[Cell] = field(default_factory=list)
    values: list[Mapping[str, np.ndarray]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    since: float = 0.0

    def add(self, cells: tuple[Cell, ...], values: Mapping[str, np.ndarray], seconds: float) -> None:
        """Adds cells that ran together in `seconds`. Their values have a leading axis of length len(cells) or more."""
        if not self.cells:
            self.since = time.perf_counter() - seconds
        self.cells += cells
        self.values.append({name: value[: len(cells)] for name, value in values.items()})
        self.seconds.append(seconds)
        self.sizes.append(len(cells))

    def records(self, compile_seconds: float, device: str) -> pd.DataFrame:
        """One row per cell, or L rows if cells return vectors of length L; arrays are in the first row of a cell."""
        values = {name: np.concatenate([part[name] for part in self.values]) for name in self.values[0]}
        records = _records(self.cells, self.static, values, self.arrays)
        per_cell = np.repeat(np.divide(self.seconds, self.sizes), self.sizes)
        return records.assign(
            compile_seconds=compile_seconds,
            run_seconds=np.repeat(per_cell, len(records) // len(self.cells)),
            device=device,
            jax=jax.__version__,
            tsjax=version("tsjax"),
        )


def _records(
    cells: list[Cell], static: dict[str, Any], values: dict[str, np.ndarray], arrays: Collection[str]
) -> pd.DataFrame:
    vectors = {name: value for name, value in values.items() if value.ndim > 1 and name not in arrays}
    repeat = next(iter(vectors.values())).shape[1] if vectors else 1
    column = lambda listed: np.repeat(np.asarray(listed), repeat)
    # A static argument may be a word, a list or None, and has the same value in all rows; other arguments are numbers.
    constant = lambda value: pd.Series([hashable(redacted(value))] * (len(cells) * repeat))
    columns: dict[str, Any] = {"cell": column([cell.id for cell in cells])}
    for name in cells[0].arguments:
        columns[name] = constant(static[name]) if name in static else column([cell.arguments[name] for cell in cells])
    columns["seed"] = column([cell.seed for cell in cells])
    for name, value in values.items():
        if name in arrays:
            columns[name] = np.empty(len(cells) * repeat, object)
            columns[name][::repeat] = [*value]
        else:
            columns[name] = value.reshape(-1) if name in vectors else column(value)
    return pd.DataFrame(columns)


class Commits:
    """Writes finished cells in a thread of its own, and reports, in order, those that have reached the disk."""

    def __init__(self, commit: Callable[[pd.DataFrame, str], pd.DataFrame]):
        """`commit(records, kernel)` writes records and returns those that are now in the store."""
        self._commit, self._writer = commit, ThreadPoolExecutor(1)
        self._unwritten: deque[tuple[Future[pd.DataFrame], ChunkDone]] = deque()

    def add(
        self, finished: Finished, *, device: str, kernel: str, compile_seconds: float = 0.0, idle_seconds: float = 0.0
    ) -> None:
        """Begins to write finished cells."""
        if not finished.cells:
            return
        records, seconds = finished.records(compile_seconds, device), sum(finished.seconds)
        done = ChunkDone(finished.static, len(finished.cells), records, seconds, False, idle_seconds, kernel)
        self._unwritten.append((self._writer.submit(self._commit, records, kernel), done))

    def committed(self, allowed: int = UNWRITTEN) -> Iterator[ChunkDone]:
        """The cells that have reached the disk. Waits until at most `allowed` files have not. **Raises:** StoreError."""
        while self._unwritten:
            future, done = self._unwritten[0]
            if not future.done() and len(self._unwritten) <= allowed:
                return
            kept = future.result()
            self._unwritten.popleft()
            if len(kept):
                yield done.of(kept)

    def close(self) -> None:
        """Waits until everything is written."""
        self._writer.shutdown()
