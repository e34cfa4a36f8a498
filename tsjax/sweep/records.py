"""The records of a sweep as one table, from its chunks: in the order of the grid, and every cell once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..status import Status
from .coverage import Coverage, coverage_of
from .description import Description
from .plan import Plan
from .store import Chunks, Store, StoreError, description_of
from .table import (
    ENGINE_COLUMNS,
    WHOLE,
    columns_of,
    common_columns,
    in_columns,
    is_failure,
    is_list,
    numbers,
    to_frame,
    whole_columns,
)

FAILED = tuple(int(status) for status in Status if status >= Status.DIVERGED)
"""The statuses that count as failures in every table."""
# The relative difference up to which two runs of one cell agree: sums are rounded differently on other devices, or in batches
# of another size.
_ROUNDING = 1e-6


def records_of(store: Store, plan: Plan, experiment: Description) -> tuple[pd.DataFrame, Coverage]:
    """The records of a store, and how much of the plan they cover. **Raises:** StoreError."""
    return assemble(store.read(), plan, experiment, verified=not store.is_old, where=store.name)


def seconds_done(store: Store, plan: Plan) -> np.ndarray:
    """The seconds that each cell of a plan took in a store, NaN for cells without a record. **Raises:** StoreError."""
    records, _ = read_columns(store, plan, ["run_seconds"])
    found = np.full(plan.cells, np.nan)
    mine = records[records.index < plan.cells]
    found[mine.index] = mine["run_seconds"] if len(mine) else []
    return found


@dataclass(frozen=True)
class Places:
    """Where records belong: `code` (rows,) is the place of the cell of each row in the `ids` of the plan, or a place after them
    for a cell outside the plan. `cells` is the number of cells of the plan."""

    code: np.ndarray
    cells: int

    @property
    def distinct(self) -> np.ndarray:
        """The places that have a row."""
        return np.flatnonzero(np.bincount(self.code))

    def coverage(self, chunks: Chunks, repeated: int, verified: bool) -> Coverage:
        """How much of the plan the rows cover."""
        distinct = self.distinct
        return coverage_of(self.cells, int((distinct < self.cells).sum()), len(distinct), chunks, repeated, verified)


def read_columns(store: Store, plan: Plan, columns: Sequence[str]) -> tuple[pd.DataFrame, Coverage]:
    """Some columns of the records of a store, without `cell`: one row for every cell, in any order, indexed by the place of the
    cell in the plan. Of the rows of a cell that returns vectors it is one without a finite first y, if there is such a row.
    **Raises:** StoreError."""
    found = store.read(list(dict.fromkeys(["cell", "failure", *columns])))
    kinds = common_columns([columns_of(table) for table in found.tables.values()], description_of(plan))
    if not kinds:
        return pd.DataFrame(), coverage_of(plan.cells, 0, 0, found, 0, not store.is_old)
    table = pa.concat_tables([in_columns(table, kinds) for table in found.tables.values()])
    y = description_of(plan).y[0]
    finite = np.isfinite(numbers(table[y].to_pandas())) if y in table.column_names else np.zeros(table.num_rows, bool)
    table = table.take(np.lexsort((finite, is_failure(table))))
    places = _places(table["cell"], plan.ids)
    frame = table.select([name for name in columns if name in kinds]).to_pandas().set_index(pd.Index(places.code))
    return frame[~frame.index.duplicated()], places.coverage(found, 0, not store.is_old)


def assemble(
    chunks: Chunks, plan: Plan, experiment: Description, *, verified: bool = True, where: str = "the sweep"
) -> tuple[pd.DataFrame, Coverage]:
    """The records of some chunks in the order of the grid, which does not depend on the order of the chunks. Every y of a cell
    that failed is NaN. Cells that are not in the plan come last.

    Two processes may have run the same cell. If their records agree up to rounding, one is kept. **Raises:** StoreError if they
    do not.
    """
    names = list(chunks.tables)
    tables = [chunks.tables[name] for name in names]
    rows = sum(table.num_rows for table in tables)
    if not rows:
        return pd.DataFrame(), coverage_of(plan.cells, 0, 0, chunks, 0, verified)
    columns = common_columns([columns_of(table) for table in tables], experiment)
    table = pa.concat_tables([in_columns(one, columns) for one in tables])
    chunk = np.repeat(np.arange(len(tables)), [one.num_rows for one in tables])
    table, chunk = _without_superseded(table, chunk)
    places = _places(table["cell"], plan.ids)
    code = places.code
    first = np.full(int(code.max()) + 1, len(tables))
    np.minimum.at(first, code, chunk)
    kept = chunk == first[code]
    repeated = 0
    if not kept.all():
        repeated = _check_repeats(table, code, chunk, kept, names, experiment, where)
    order = np.flatnonzero(kept)
    # A stable sort keeps the entries of a vector in their order.
    order = order[np.argsort(code[order], kind="stable")]
    frame = to_frame(table, order, experiment)
    frame.attrs[WHOLE] = whole_columns(columns)
    return _without_spoilt(frame, experiment), places.coverage(chunks, repeated, verified)


def _without_superseded(table: pa.Table, chunk: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """Removes the failures of black-box cells that were run again: a result replaces a failure, and of several failures one
    stays. These need not agree, unlike two results."""
    failure = is_failure(table)
    if not failure.any():
        return table, chunk
    code = pc.call_function("dictionary_encode", [table["cell"].combine_chunks()]).indices.to_numpy()
    first = np.full(int(code.max()) + 1, table.num_rows)
    # Results come before all failures.
    np.minimum.at(first, code, np.where(failure, np.arange(table.num_rows), -1))
    rows = np.flatnonzero(~failure | (first[code] == np.arange(table.num_rows)))
    return table.take(rows), chunk[rows]


def _places(cells: pa.ChunkedArray, ids: Sequence[str]) -> Places:
    # By call_function, since pyarrow makes its functions when it is loaded, and a type checker does not see them.
    find = lambda known: pc.call_function("index_in", [cells], pc.SetLookupOptions(known)).fill_null(-1).to_numpy()
    code = find(pa.array(ids, pa.string()))
    if (code < 0).any():
        code = np.where(code < 0, find(cells.unique()) + len(ids), code)
    return Places(code, len(ids))


def _check_repeats(
    table: pa.Table,
    code: np.ndarray,
    chunk: np.ndarray,
    kept: np.ndarray,
    names: Sequence[str],
    experiment: Description,
    where: str,
) -> int:
    """The number of cells that were run more than once. **Raises:** StoreError if their records differ."""
    skipped = {"cell", "seed", *experiment.names, *ENGINE_COLUMNS}
    values = [name for name in table.column_names if name not in skipped and not is_list(table[name].type)]
    results = table.select(values)
    repeated = np.unique(code[~kept])
    mine = np.flatnonzero(kept & np.isin(code, repeated))
    mine = mine[np.argsort(code[mine], kind="stable")]
    for other in np.unique(chunk[~kept]):
        theirs = np.flatnonzero((chunk == other) & ~kept)
        theirs = theirs[np.argsort(code[theirs], kind="stable")]
        same = mine[np.isin(code[mine], code[theirs])]
        left, right = (results.take(rows).to_pandas() for rows in (same, theirs))
        differ = np.ones(max(len(left), len(right)), bool)
        if len(left) == len(right):
            pairs = ([numbers(side[name]) for side in (left, right)] for name in values)
            differ = ~np.all([np.isclose(*pair, rtol=_ROUNDING, atol=0.0, equal_nan=True) for pair in pairs], axis=0)
        if differ.any():
            at = int(np.flatnonzero(differ)[0])
            a, b = int(same[min(at, len(same) - 1)]), int(theirs[min(at, len(theirs) - 1)])
            row = {name: table[name][a].as_py() for name in (*experiment.names, "seed")}
            what = ", ".join(f"{name} = {value}" for name, value in row.items())
            y = next(name for name in (*experiment.y, *values) if name in values)
            raise StoreError(
                f"{where} holds two different results of one cell ({what}): {y} = {table[y][a].as_py()} in "
                f"chunks/{names[chunk[a]]} and {table[y][b].as_py()} in chunks/{names[chunk[b]]}. One of them was made by "
                "other code or is damaged: move that file out of chunks/, and run the sweep again."
            )
    return len(repeated)


def _without_spoilt(records: pd.DataFrame, experiment: Description) -> pd.DataFrame:
    values = [name for name in experiment.y if name in records]
    if not values:
        return records
    spoilt = np.stack([failed_rows(records, name) for name in values], axis=1)
    if spoilt.any():
        records[values] = records[values].mask(spoilt)
    return records


def failed_rows(records: pd.DataFrame, metric: str) -> np.ndarray:
    """Which rows have no value of `metric`: their cell diverged, was singular, or did not return a finite number."""
    failed = np.isin(records["status"], FAILED) if "status" in records else np.zeros(len(records), bool)
    return failed | ~np.isfinite(numbers(records[metric])) if metric in records else failed


def failed_cells(records: pd.DataFrame, metric: str) -> int:
    """The number of cells with a failed row (`failed_rows`)."""
    return len(set(records["cell"].to_numpy()[failed_rows(records, metric)]))


def in_memory(parts: Mapping[str, pa.Table], plan: Plan, experiment: Description) -> tuple[pd.DataFrame, Coverage]:
    """The records and the coverage of a sweep in memory, in the form that a store gives."""
    return assemble(Chunks(tables=dict(parts)), plan, experiment)
