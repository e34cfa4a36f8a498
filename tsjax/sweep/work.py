"""The cells of a plan that are still to be run, handed out piece by piece to the processes that work on one store."""

import functools
import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .commits import ChunkDone
from .faults import GroupErrors
from .interrupt import Stop
from .leases import LEASE_SECONDS, Leases
from .plan import Cell, Group, Plan
from .writer import StoreWriter

# A plan is divided into about this many units, which are claimed one by one. Each takes a file, and this many suffice to share
# the work out.
_UNITS = 256
_NAP = 0.2


class _Piece(NamedTuple):
    """Cells of a group that run together, and the place of the first of them in the group."""

    start: int
    cells: tuple[Cell, ...]


class Work:
    """The cells that a store lacks, or all cells without a store. The pieces of a group are those of an uninterrupted run,
    without the cells that are done or that others hold.

    Several processes may work on one store: each claims units of cells (`tsjax.sweep.leases`), and takes over the units of a
    dead one. A unit consists of consecutive cells of a group. Their number is a power of two and does not depend on the size of
    chunks.

    - `errors`: the groups that failed, whose other cells are not handed out any more.
    - `look_on`: this process claims nothing, and only follows the work of others.

    **Raises:** StoreError if there is work to do and the store cannot be written.
    """

    def __init__(
        self, plan: Plan, store: StoreWriter | None, lease_seconds: float = LEASE_SECONDS, *, look_on: bool = False
    ):
        self.plan, self.store, self.errors = plan, store, GroupErrors(plan)
        self._lock = threading.RLock()
        self._done = set() if store is None else store.done()
        # Cells that were handed out, and the units that they belong to.
        self._out: dict[str, str] = {}
        self._pieces: dict[int, deque[_Piece]] = {}
        self._numbers = {id(group): number for number, group in enumerate(plan.groups)}
        self._news: Counter[int] = Counter()
        self._names: dict[tuple[int, int], str] = {}
        self._count(self._done)
        self.any_before = bool(self._news)
        """Whether there were records of this plan already."""
        total, size = plan.cells, 1
        while 2 * size <= total // _UNITS:
            size *= 2
        self._unit = size
        self._leases: Leases | None = None
        if store is not None and not self.finished:
            store.refuse_work()
            if not look_on:
                with store.writing("/claims"):
                    self._leases = Leases(store.files, lease_seconds)
                # Cells may have been done before others could know of this process, and the files that say who held them may be
                # removed by now.
                self.refresh()

    def news(self) -> Iterator[ChunkDone]:
        """Cells that were found done since the last call: before this run, or by others."""
        with self._lock:
            found, self._news = self._news, Counter()
        for number, count in found.items():
            yield ChunkDone(self.plan.groups[number].static, count, None, 0.0, True)

    @property
    def finished(self) -> bool:
        """Whether every cell is done, apart from those of groups that failed."""
        with self._lock:
            return all(
                cell.id in self._done
                for group in self.plan.groups
                if not self.errors.about(group)
                for cell in group.cells
            )

    @property
    def any_done(self) -> bool:
        """Whether any cell is done."""
        return bool(self._done)

    def groups(self, size: Callable[[Group], int]) -> list[tuple[Group, int]]:
        """The groups that have cells to run now, each with the number of cells of its largest piece. `size` says how many cells
        of a group make a piece. Afterwards `next` starts from the first piece again."""
        self._look()
        found: list[tuple[Group, int]] = []
        with self._lock:
            for number, group in enumerate(self.plan.groups):
                if self.errors.about(group):
                    continue
                pieces, most, step = deque(), 0, size(group)
                free = functools.cache(functools.partial(self._is_free, number))
                for i, part in enumerate(group.chunks(step)):
                    start = i * step
                    count = sum(
                        cell.id not in self._done and cell.id not in self._out and free((start + j) // self._unit)
                        for j, cell in enumerate(part)
                    )
                    if count:
                        pieces.append(_Piece(start, part))
                        most = max(most, count)
                self._pieces[id(group)] = pieces
                if pieces:
                    found.append((group, most))
            if self._leases is not None and self._leases.others and len(found) > 1:
                # Processes begin with different groups, so that they do not all compile the first program.
                first = int(self._leases.id[:8], 16) % len(found)
                found = found[first:] + found[:first]
        return found

    def next(self, group: Group) -> tuple[Cell, ...]:
        """The next piece of a group that nobody else runs; empty if there is none."""
        pieces = self._pieces.get(id(group), deque())
        number = self._numbers[id(group)]
        while pieces and not self.errors.about(group):
            piece = pieces.popleft()
            with self._lock:
                places = {
                    cell.id: self._unit_of(number, piece.start + j)
                    for j, cell in enumerate(piece.cells)
                    if cell.id not in self._done and cell.id not in self._out
                }
            held = self._take(list(dict.fromkeys(places.values())))
            with self._lock:
                cells = tuple(c for c in piece.cells if places.get(c.id) in held and c.id not in self._done)
                self._out |= {cell.id: places[cell.id] for cell in cells}
            if cells:
                return cells
        return ()

    def pieces(self, size: int) -> Iterator[tuple[Group, tuple[Cell, ...]]]:
        """All pieces of at most `size` cells that are free now, group by group. Each is claimed when it is asked for."""
        for group, _ in self.groups(lambda group: size):
            while cells := self.next(group):
                yield group, cells

    def commit(self, records: pd.DataFrame, kernel: str = "xla") -> pd.DataFrame:
        """Writes records of cells that were handed out, and returns the records that it wrote. They lack the cells that others
        took over, because this process was silent for so long that it was taken for dead. **Raises:** StoreError."""
        with self._lock:
            if self._leases is not None:
                lost = [cell for cell in records["cell"].unique() if not self._holds(cell)]
                records = records.take(np.flatnonzero(~records["cell"].isin(lost))) if lost else records
                self._forget(lost)
        # Without the lock, since a disk may be slow. Units are lost only all together, and the store then refuses the commit.
        if self.store is not None and len(records) and not self.store.commit(records, kernel, self._leases):
            self._forget(records["cell"].unique())
            return records.iloc[:0]
        with self._lock:
            cells = set(records["cell"])
            self._done |= cells
            self._forget(cells)
        return records

    def wait(self, stop: Stop) -> None:
        """Waits a moment while others run the remaining cells."""
        seconds = _NAP if self._leases is None else self._leases.look_seconds
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stop.now:
            time.sleep(min(_NAP, seconds))

    def refresh(self) -> None:
        """Finds out which cells others have done since the last time. **Raises:** StoreError."""
        if self.store is None:
            return
        with self._lock:
            new = self.store.done_since() - self._done
            self._done |= new
            self._count(new)

    def close(self) -> None:
        """Gives up the units that this process holds."""
        if self._leases is None or self.store is None:
            return
        whole = all(cell.id in self._done for group in self.plan.groups for cell in group.cells)
        # Not raised: another error may be on its way, which says more than a second one about the same disk.
        try:
            self._leases.close(self._all_units() if whole else ())
        except OSError as error:
            self.store.refused = self.store.refused or error

    def _all_units(self) -> Iterator[str]:
        for number, group in enumerate(self.plan.groups):
            for start in range(0, len(group.cells), self._unit):
                yield self._unit_of(number, start)

    def _count(self, cells: set[str]) -> None:
        if cells:
            for number, group in enumerate(self.plan.groups):
                count = sum(cell.id in cells for cell in group.cells)
                if count:
                    self._news[number] += count

    def _unit_of(self, number: int, place: int) -> str:
        """The name of the unit of a cell at this place in a group."""
        key = (number, place // self._unit)
        if key not in self._names:
            cells = self.plan.groups[number].cells[key[1] * self._unit : (key[1] + 1) * self._unit]
            text = f"{cells[0].id} {cells[-1].id} {len(cells)}"
            self._names[key] = hashlib.sha256(text.encode()).hexdigest()[:20]
        return self._names[key]

    def _is_free(self, number: int, unit: int) -> bool:
        return self._leases is None or self._leases.is_free(self._unit_of(number, unit * self._unit))

    def _holds(self, cell: str) -> bool:
        return self._leases is None or self._out.get(cell) in self._leases.held

    def _forget(self, cells: Any) -> None:
        with self._lock:
            for cell in cells:
                self._out.pop(cell, None)

    def _look(self) -> None:
        if self._leases is not None and self.store is not None:
            with self.store.writing("/claims"):
                self._leases.look()
            if self._leases.others:
                self.refresh()

    def _take(self, units: list[str]) -> set[str]:
        if self._leases is None or self.store is None:
            return set(units)
        with self.store.writing("/claims"):
            taken = {unit: self._leases.take(unit) for unit in units}
        if any(before for _, before in taken.values()):
            # Some cells of a unit that somebody held before may be done.
            self.refresh()
        return {unit for unit, (holds, _) in taken.items() if holds}
