"""Records as Arrow tables: a column has the same type in all chunks of a store, so that other tools read them as one table.

Integers are stored as int64, and other numbers as float64. Arguments whose values are lists, or of several types, are stored as
text (`tsjax.sweep.values.text_of`), and arrays that cells return as lists. A column is null for cells that do not have it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .description import Description
from .experiment import MOST_AXES
from .values import hashable, text_of, value_of

ENGINE_COLUMNS = ("failure", "compile_seconds", "run_seconds", "device", "jax", "tsjax")
"""The columns that the engine adds: why a cell of a black box failed, seconds, and what ran the cell."""

WHOLE = "whole numbers"
"""The key of `DataFrame.attrs` under which a table of records lists its columns of truth values and integers: if a cell failed,
pandas holds such a column as floating-point numbers."""

_BOOL, _INT, _FLOAT, _TEXT = "bool", "int64", "double", "string"
_TYPES: dict[str, Any] = {_BOOL: pa.bool_(), _INT: pa.int64(), _FLOAT: pa.float64(), _TEXT: pa.string()}
# Arrays that a cell returns are lists of numbers, of lists of numbers, ...: "array2" has two axes.
_ARRAY = "array"
for _axes in range(1, MOST_AXES + 1):
    _TYPES[f"{_ARRAY}{_axes}"] = pa.list_(_TYPES.get(f"{_ARRAY}{_axes - 1}", pa.float64()))


def kind_of(values: Iterable[Any]) -> str:
    """The type of a column that holds these values of an argument: bool, int64, double or string. None becomes null in each."""
    values = list(values)
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} and kinds:
        return _BOOL
    if kinds <= {int} and all(abs(value) < 2**63 for value in values if value is not None):
        return _INT
    small = all(abs(value) < 2**53 for value in values if type(value) is int)
    return _FLOAT if kinds <= {int, float} and float in kinds and small else _TEXT


def _union(kinds: Sequence[str], name: str = "") -> str:
    """The type that can hold the values of columns of these types. **Raises:** ValueError for arrays of different numbers of
    axes, or for arrays and other values."""
    order = (_BOOL, _INT, _FLOAT)
    if len(set(kinds)) == 1:
        return kinds[0]
    arrays = {kind for kind in kinds if kind.startswith(_ARRAY)}
    if arrays:
        # A column that holds only nulls counts as one of numbers.
        if len(arrays) > 1 or set(kinds) - arrays - {_FLOAT}:
            raise ValueError(
                f"{name!r} is an array of {' and of '.join(sorted(set(kinds)))} in different chunks of one store. The "
                "experiment has changed what it returns: raise its version, and run it into a new store."
            )
        return arrays.pop()
    return _TEXT if _TEXT in kinds else max(kinds, key=order.index)


def to_table(records: pd.DataFrame, kinds: Mapping[str, str]) -> pa.Table:
    """Records of one program as a table; `kinds` are the types of the arguments' columns in the whole store."""
    columns = {}
    for name in records.columns:
        series = pd.Series(records[name])
        if series.dtype == object and any(isinstance(value, np.ndarray) for value in series):
            columns[name] = _lists(series)
        elif name in kinds:
            columns[name] = _argument(series, kinds[name])
        elif series.dtype == bool:
            columns[name] = pa.array(series.to_numpy(), pa.bool_())
        elif pd.api.types.is_integer_dtype(series.dtype):
            columns[name] = pa.array(series.to_numpy().astype(np.int64), pa.int64())
        elif pd.api.types.is_float_dtype(series.dtype):
            # With from_pandas=True, NaN would become null; but it is a value that the cell returned.
            columns[name] = pa.array(series.to_numpy(np.float64), pa.float64(), from_pandas=False)
        else:
            columns[name] = _encoded(series, lambda text: text)
    return pa.table(columns)


def _argument(series: pd.Series, kind: str) -> pa.Array:
    if kind != _TEXT and series.dtype != object:
        return pa.array(series.to_numpy(), _TYPES[kind])
    # An argument that is not a number has the same value in all rows of a program.
    encode = text_of if kind == _TEXT else lambda value: value
    return _encoded(series, lambda value: None if value is None else encode(value), _TYPES[kind])


def _lists(series: pd.Series) -> pa.Array:
    """Arrays as nested lists, null if a row has none."""
    axes = next(value.ndim for value in series if isinstance(value, np.ndarray))
    values = [None if value is None else np.asarray(value, np.float64).tolist() for value in series]
    return pa.array(values, _TYPES[f"{_ARRAY}{axes}"])


def is_list(type: Any) -> bool:
    """Whether a column holds arrays."""
    return pa.types.is_list(type)


def _array_of(cell: Any) -> np.ndarray | None:
    """An array from its nested lists."""
    values, shape = cell.values, []
    if values is None:
        return None
    while True:
        shape.append(len(values) // int(np.prod(shape, dtype=int)))
        if not is_list(values.type):
            return values.to_numpy(zero_copy_only=False).reshape(shape)
        values = values.flatten()


def _encoded(series: pd.Series, encode, type: Any = None) -> pa.Array:
    values = series.tolist()
    if values and all(value is values[0] or value == values[0] for value in values):
        return pa.repeat(pa.scalar(encode(values[0]), type or pa.string()), len(values))
    return pa.array([encode(value) for value in values], type or pa.string())


def columns_of(table: pa.Table) -> dict[str, str]:
    """The names of a table's columns, and their types in a store."""
    return {field.name: _kind(field.type) for field in table.schema}


def _kind(type: Any) -> str:
    if pa.types.is_boolean(type):
        return _BOOL
    if pa.types.is_integer(type):
        return _INT
    if is_list(type):
        return _axes_of(type)
    # A column without any value may have any type.
    return _FLOAT if pa.types.is_floating(type) or pa.types.is_null(type) else _TEXT


def _axes_of(type: Any) -> str:
    axes = 0
    while is_list(type):
        axes, type = axes + 1, type.value_type
    return f"{_ARRAY}{axes}"


def _is_text(type: Any) -> bool:
    return pa.types.is_string(type) or pa.types.is_large_string(type)


def common_columns(found: Iterable[Mapping[str, str]], experiment: Description) -> dict[str, str]:
    """The columns of a store, from those of its chunks: arguments first, then values, then the columns that the engine adds."""
    kinds: dict[str, list[str]] = {}
    for columns in found:
        for name, kind in columns.items():
            kinds.setdefault(name, []).append(kind)
    head = ["cell", *experiment.names, "seed", "status", *experiment.y]
    order = [name for name in dict.fromkeys([*head, *sorted(kinds)]) if name in kinds and name not in ENGINE_COLUMNS]
    return {name: _union(kinds[name], name) for name in (*order, *(name for name in ENGINE_COLUMNS if name in kinds))}


def whole_columns(columns: Mapping[str, str]) -> list[str]:
    """The columns of truth values and integers."""
    return [name for name, kind in columns.items() if kind in (_BOOL, _INT)]


def in_columns(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """The table with these columns, in this order: cast if the type differs, null if the column is missing."""
    arrays = {}
    for name, kind in columns.items():
        if name not in table.column_names:
            arrays[name] = pa.nulls(table.num_rows, _TYPES[kind])
        elif kind == _TEXT and not _is_text(table[name].type):
            arrays[name] = pa.array([None if v is None else text_of(v) for v in table[name].to_pylist()], pa.string())
        else:
            arrays[name] = pc.cast(table[name], _TYPES[kind], safe=False)
    return pa.table(arrays)


def is_failure(table: pa.Table) -> np.ndarray:
    """Which rows are those of black-box cells that ended without a result."""
    if "failure" not in table.column_names:
        return np.zeros(table.num_rows, bool)
    return pc.fill_null(pc.call_function("not_equal", [table["failure"], ""]), False).to_numpy()


def to_frame(table: pa.Table, rows: np.ndarray, experiment: Description) -> pd.DataFrame:
    """Some rows as a DataFrame, in the order of `rows`, with arguments as they were given: lists as tuples, and None as
    None."""
    frame = {}
    for name in table.column_names:
        # One column at a time: a second whole table would take much memory for a million records.
        column = table[name].take(pa.array(rows)).combine_chunks()
        argument = name in experiment.names
        if is_list(column.type):
            # One by one, since NumPy would combine arrays of the same shape into one array.
            frame[name] = np.empty(len(column), object)
            for row, cell in enumerate(column):
                frame[name][row] = _array_of(cell)
        elif argument and (pa.types.is_string(column.type) or column.null_count):
            frame[name] = _decoded(column)
        elif pa.types.is_string(column.type):
            # Few different texts (devices, versions), or the ids of cells.
            frame[name] = column.to_pandas()
        elif pa.types.is_boolean(column.type) and column.null_count:
            frame[name] = pd.Series(column.to_pylist(), dtype=object)
        else:
            frame[name] = column.to_numpy(zero_copy_only=False)
    return pd.DataFrame(frame)


def numbers(column: Any) -> np.ndarray:
    """A column of records as float64; NaN for everything that is not a number."""
    return pd.Series(pd.to_numeric(column, errors="coerce")).to_numpy(np.float64)


def _decoded(column: pa.Array) -> pd.Series:
    """A column of texts as the values that they stand for: words stay a column of text, all else becomes a column of
    objects."""
    codes = column.dictionary_encode()
    text = pa.types.is_string(column.type)
    distinct = [value_of(value) if text else value for value in codes.dictionary.to_pylist()]
    if text and not column.null_count and all(isinstance(value, str) for value in distinct):
        return pd.Series(pd.Categorical.from_codes(codes.indices.to_numpy(), distinct).astype(str), dtype="str")
    values = np.empty(len(distinct) + 1, object)
    values[: len(distinct)] = [hashable(value) for value in distinct] if distinct else []
    values[len(distinct)] = None
    places = codes.indices.fill_null(len(distinct)).to_numpy()
    return pd.Series(values[places], dtype=object)
