"""The store: one directory, or URL, per sweep, one immutable file per commit.

`sweep.json` holds the spec and what ran it; `chunks/<id>.parquet` the records. A file is there whole or not at all, and cells
with a record are done. Nothing is appended to and nothing is locked, so any number of processes and machines may work on one
store, and a kill at any instant loses at most the chunks that were not committed. pandas, polars, DuckDB and the like read
the folder as it is: `duckdb.sql("from 'runs/sweep/chunks/*.parquet'")`; only `Result.records` drops cells that were run twice.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .files import files_at, is_url
from .spec import SpecError, SweepSpec, parse_spec

SCHEMA = 1
# With checksums a spoilt bit is an error and never a number.
_FORMAT = {"compression": "zstd", "write_page_checksum": True}


class StoreError(OSError):
    """A store that cannot be read, written, or used for this sweep."""


class Store:
    """The records of one sweep, in a directory or at a URL. `Store(path)` only looks; `open_for` makes or extends it."""

    def __init__(self, path: str | Path):
        self.path = str(path).rstrip("/") if is_url(path) else Path(path)
        try:
            self._files = files_at(path)
        except OSError as error:
            raise StoreError(str(error)) from None
        self.damaged: list[str] = []

    def open_for(self, spec: SweepSpec, provenance: Mapping[str, Any], version: int = 1) -> "Store":
        """Creates the store, or checks that it belongs to the same sweep and version of its study, and records the spec.

        **Raises:** StoreError when the directory cannot be written, holds something else, or holds another sweep.
        """
        occupied = self._files.is_free()
        if self._is_described():
            before = {**self.spec.identity, "version": self._description().get("version", 1)}
            now = {**spec.identity, "version": version}
            differences = [f"{k}: {before.get(k)!r} there, {now[k]!r} here" for k in now if before.get(k) != now[k]]
            if differences:
                raise StoreError(
                    f"{self.path} holds another sweep ({'; '.join(differences)}). Choose another --out, or give this "
                    "sweep the same study, version and key to extend that store."
                )
        elif occupied is not None:
            raise StoreError(occupied)
        try:
            content = {"schema": SCHEMA, "spec": spec.model_dump(mode="json"), "version": version}
            content["provenance"] = dict(provenance)
            self._files.write("sweep.json", json.dumps(content, indent=1).encode())
        except OSError as error:
            raise StoreError(f"cannot write to {self.path}: {error.strerror or error}.") from None
        return self

    def _is_described(self) -> bool:
        try:
            self._files.read("sweep.json")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error}.") from None
        return True

    def _description(self) -> dict[str, Any]:
        path = f"{self.path}/sweep.json"
        try:
            content = json.loads(self._files.read("sweep.json"))
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"{self.path} is not a tsjax store: it has no sweep.json.") from None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read: {error}.") from None
        if not isinstance(content, dict):
            raise StoreError(
                f"{path} cannot be read: it holds a {type(content).__name__}, not the description of a sweep."
            )
        if content.get("schema") != SCHEMA:
            raise StoreError(f"{path} has schema {content.get('schema')!r}; this version of tsjax reads {SCHEMA}.")
        return content

    @property
    def spec(self) -> SweepSpec:
        """The sweep this store belongs to."""
        try:
            return parse_spec(self._description().get("spec", {}), where="spec")
        except SpecError as error:
            raise StoreError(f"{self.path}/sweep.json holds no valid spec: {error}") from None

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions and devices of the latest run."""
        return self._description().get("provenance", {})

    def write(self, chunk_id: str, records: pd.DataFrame) -> None:
        """Commits a chunk's records, all or nothing. **Raises:** StoreError when the disk refuses."""
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(records, preserve_index=False), buffer, **_FORMAT)
        try:
            self._files.write(f"chunks/{chunk_id}.parquet", buffer.getvalue().to_pybytes())
        except OSError as error:
            raise StoreError(
                f"cannot write to {self.path}/chunks: {error.strerror or error}. Finished chunks are safe: run again to resume."
            ) from None

    def _chunks(self) -> Iterator[tuple[str, pa.Table | None]]:
        """Names and contents of all chunk files; None for one that is not whole."""
        for name in self._files.names("chunks"):
            if name.endswith(".parquet"):
                try:
                    content = pa.BufferReader(self._files.read(f"chunks/{name}"))
                    yield name, pq.read_table(content, page_checksum_verification=True)
                except (OSError, pa.ArrowException):
                    yield name, None

    def cells_done(self) -> set[str]:
        """Ids of the cells with a record. A chunk that cannot be read is not done, whichever of its columns is spoilt."""
        done: set[str] = set()
        for _, table in self._chunks():
            if table is not None:
                done.update(table["cell"].to_pylist())
        return done

    def read(self) -> pd.DataFrame:
        """All records, one row per cell (per entry for vector values). Unreadable chunks are set aside in `damaged`, by
        name, to be run again, and never averaged in."""
        self.damaged, parts = [], []
        for name, table in self._chunks():
            if table is None:
                self.damaged.append(name)
            else:
                parts.append(table.to_pandas())
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def open_store(path: str | Path) -> Store:
    """An existing store, for reading. **Raises:** StoreError when there is none at `path`."""
    store = Store(path)
    if not store._files.exists():
        what = "tsjax store" if is_url(path) else "directory"
        raise StoreError(f"there is no {what} {store.path}.")
    store._description()
    return store
