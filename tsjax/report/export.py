"""Records as files for other programs: CSV, Parquet, NetCDF."""

import csv
import importlib.util
import io
from pathlib import Path
from typing import Any

import pandas as pd

from ..sweep.result import Result
from ..sweep.values import text_of
from .output import OutputError, replaced

FORMATS = (".csv", ".parquet", ".nc")

# Spreadsheets treat text with such a first character as a formula, and run it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export_records(result: Result, to: Path) -> None:
    """Writes all records into the file `to`, whose ending gives the format; an existing file is replaced as a whole.

    Values that a format does not support become text: lists, and columns with several kinds of values, as JSON. None becomes
    null, or an empty cell in CSV. In CSV, text that a spreadsheet would treat as a formula gets a single quote before it.

    **Raises:** OutputError if the file cannot be written; ValueError for another format, or if the packages for NetCDF are
    missing.
    """
    writers = {".csv": _write_csv, ".parquet": _write_parquet, ".nc": _write_netcdf}
    if to.suffix not in writers:
        raise ValueError(f"{to}: the file name must end in {', '.join(FORMATS)}.")
    if to.suffix == ".nc":
        _check_netcdf()
    try:
        with replaced(to) as temporary:
            writers[to.suffix](result, temporary)
    except OSError as error:
        raise OutputError(f"cannot write {to}", error) from error


def _write_csv(result: Result, to: Path) -> None:
    frame = result.records
    columns = {safe(name): _csv_column(frame[name]) for name in frame}
    texts = [column for column in columns.values() if not _is_plain(column)]
    # Python before 3.13 does not quote a lone CR, which readers treat as the end of a row.
    broken = any("\r" in str(value) for column in texts for value in column.unique())
    quoting = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL
    pd.DataFrame(columns).to_csv(to, index=False, quoting=quoting)


def _csv_column(series: Any) -> Any:
    if _is_plain(series):
        return series
    values, mixed = series.tolist(), _is_mixed(series)
    return pd.Series([_csv_text(value, mixed) for value in values], dtype=object)


def _csv_text(value: Any, mixed: bool) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return safe(text_of(value) if mixed or not isinstance(value, str) else value)


def safe(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _write_parquet(result: Result, to: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = result.records
    columns = {}
    for name in frame:
        series = frame[name]
        if _is_plain(series):
            # With from_pandas=True, NaN would become null, although the value is not missing.
            columns[name] = pa.array(series.to_numpy(), from_pandas=False)
        elif _is_mixed(series):
            columns[name] = pa.array(
                [None if value is None else text_of(value) for value in series.tolist()], pa.string()
            )
        else:
            columns[name] = pa.array([None if pd.isna(value) else value for value in series.tolist()])
    pq.write_table(pa.table(columns), to)


def _is_plain(series: Any) -> bool:
    """Whether a column holds only numbers or truth values."""
    return pd.api.types.is_numeric_dtype(series.dtype)


def _is_mixed(series: Any) -> bool:
    """Whether a column holds lists, or values of several kinds apart from None."""
    kinds = {type(value) for value in series.tolist()} - {type(None)}
    return tuple in kinds or len(kinds) > 1 and not kinds <= {int, float}


def _check_netcdf() -> None:
    # h5netcdf writes with h5py, but does not install it.
    missing = [name for name in ("h5netcdf", "h5py") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"writing NetCDF needs {' and '.join(missing)}: install it, or export .parquet.")


def _write_netcdf(result: Result, to: Path) -> None:
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    # In memory first, since HDF5 crashes the process if a disk fills up, instead of reporting it.
    content = io.BytesIO()
    with h5netcdf.File(content, "w") as file:
        result.to_xarray().dump_to_store(H5NetCDFStore(file))
    to.write_bytes(content.getvalue())
