"""Tables that other code has written, as pandas DataFrames."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from .hints import nearest

_JSON_LINES = (".jsonl", ".ndjson")


def _read_json_lines(path: Path) -> pd.DataFrame:
    # Strings that look like dates or numbers stay strings, and numbers keep all their digits.
    return pd.read_json(path, lines=True, dtype=False, precise_float=True)  # pyright: ignore[reportArgumentType]


_READERS: dict[str, Callable[..., pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".tsv": functools.partial(pd.read_csv, sep="\t"),
    ".parquet": pd.read_parquet,
    **dict.fromkeys(_JSON_LINES, _read_json_lines),
}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
ENDINGS = (*_READERS, *_COMPRESSED)
"""The endings of the files that `read_table` reads."""


def read_table(path: str | Path) -> pd.DataFrame:
    """The table in a file: CSV or TSV with a header, Parquet, or JSON lines (`.jsonl`, `.ndjson`); the file may be compressed
    (`.csv.gz`). A folder gives the rows of all JSON-lines files in it and in its subfolders, with a column `file`: the file's
    path in the folder, without its ending.

    **Raises:** ValueError for another kind of file, or one that does not hold what its ending says; OSError if there is no such
    file.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        return _read(path)
    files = sorted(file for kind in _JSON_LINES for file in path.rglob(f"*{kind}"))
    if not files:
        raise ValueError(f"{path}: this folder has no file that ends in {' or '.join(_JSON_LINES)}.")
    parts = [_read(file) for file in files]
    names = [file.relative_to(path).with_suffix("").as_posix() for file in files]
    named = [part if "file" in part else part.assign(file=name) for part, name in zip(parts, names, strict=True)]
    return pd.concat(named, ignore_index=True)


def _read(path: Path) -> pd.DataFrame:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
    reader = _READERS.get(suffixes[-1]) if suffixes else None
    if reader is None:
        raise ValueError(f"{path}: a file with a table ends in {', '.join(_READERS)}.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        return reader(path)
    # The errors of pandas and of pyarrow are ValueErrors.
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as {suffixes[-1]}: {str(error).splitlines()[0]}") from None


def frame_of(table: Any) -> pd.DataFrame:
    """A table as a DataFrame: a DataFrame, a path (`read_table`), a dict of columns, a list of dicts, or an object that gives
    its columns to Arrow (a polars DataFrame, a pyarrow Table, a DuckDB relation). **Raises:** ValueError for anything else."""
    if isinstance(table, str | Path):
        return read_table(table)
    if isinstance(table, pd.DataFrame):
        # A named index, such as grouping gives, becomes a column.
        named = [name for name in table.index.names if name is not None and name not in table.columns]
        return table.reset_index(named).reset_index(drop=True) if named else table.reset_index(drop=True)
    if hasattr(table, "__arrow_c_stream__"):
        return pa.table(table).to_pandas()
    if isinstance(table, Mapping) or (isinstance(table, list) and all(isinstance(row, Mapping) for row in table)):
        return pd.DataFrame(table)
    raise ValueError(
        f"an object of type {type(table).__name__} is not a table: give a DataFrame (pandas, polars, Arrow), a dict of "
        f"columns, a list of dicts, or a path that ends in {', '.join(_READERS)}."
    )


def check_column(table: pd.DataFrame, name: str, where: str) -> None:
    """Raises ValueError for a column that the table does not have."""
    if name not in table.columns:
        raise ValueError(f"{where} has no column {name!r}.{nearest(name, list(map(str, table.columns)))}")


def check_numbers_in(table: pd.DataFrame, name: str, where: str, hint: str = "") -> None:
    """Raises ValueError if the column is missing or pandas did not read it as numbers; the message names the first entry that
    is not a number."""
    check_column(table, name, where)
    column = pd.Series(table[name])
    if pd.api.types.is_numeric_dtype(column.dtype):
        return
    text = f"{where}: column {name!r}"
    bad = np.flatnonzero(np.asarray(pd.isna(pd.to_numeric(column, errors="coerce"))) & column.notna().to_numpy())
    if not len(bad):
        raise ValueError(f"{text} is of type {column.dtype}, not of numbers. Encode it, or leave it out.")
    text += f" has {len(bad)} value(s) that are not numbers, the first {column.iloc[bad[0]]!r} in row {bad[0] + 1}"
    if len(bad) < len(column) / 2:
        raise ValueError(f"{text} of {len(column)}. If that stands for a missing value, fill it, or drop the row.")
    raise ValueError(f"{text}. Encode it, or leave it out{hint}.")
