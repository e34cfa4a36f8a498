"""The store: one directory per sweep, one immutable file per chunk.

`sweep.json` holds the spec and what ran it; `chunks/<id>.parquet` the records. A chunk is written under a temporary name,
flushed, then renamed: a chunk that exists is done. Nothing is appended to and nothing is locked, so any number of
processes may work on one store, and a kill at any instant loses at most the chunks in flight.
"""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .spec import SpecError, SweepSpec, parse_spec

SCHEMA = 1
# With checksums a spoilt bit is an error and never a number.
_FORMAT = {"compression": "zstd", "write_page_checksum": True}


class StoreError(OSError):
    """A store that cannot be read, written, or used for this sweep."""


def _write_atomically(path: Path, content: bytes) -> None:
    # A name that no other process has: machines that share the directory may share process ids.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read_chunk(path: Path) -> pa.Table | None:
    """A chunk's records; None when the file is not whole."""
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None


def _is_foreign(entry: Path) -> bool:
    """Whether an entry of a directory without sweep.json is none of those that a store about to be made holds."""
    return entry.name != "chunks" and not entry.name.startswith(".sweep.json.")


class Store:
    """The records of one sweep in a directory. `Store(path)` only looks; `open_for` makes or extends it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.chunks = self.path / "chunks"
        self.damaged: list[Path] = []

    def open_for(self, spec: SweepSpec, provenance: Mapping[str, Any], version: int = 1) -> "Store":
        """Creates the store, or checks that it belongs to the same sweep and version of its study, and records the spec.

        **Raises:** StoreError when the directory cannot be written, holds something else, or holds another sweep.
        """
        description = self.path / "sweep.json"
        if description.exists():
            before = {**self.spec.identity, "version": self._description().get("version", 1)}
            now = {**spec.identity, "version": version}
            differences = [f"{k}: {before.get(k)!r} there, {now[k]!r} here" for k in now if before.get(k) != now[k]]
            if differences:
                raise StoreError(
                    f"{self.path} holds another sweep ({'; '.join(differences)}). Choose another --out, or give this "
                    "sweep the same study, version and key to extend that store."
                )
        elif self.path.exists() and (not self.path.is_dir() or any(map(_is_foreign, self.path.iterdir()))):
            raise StoreError(f"{self.path} exists and is not a tsjax store. Choose an empty or new directory.")
        try:
            self.chunks.mkdir(parents=True, exist_ok=True)
            content = {"schema": SCHEMA, "spec": spec.model_dump(mode="json"), "version": version}
            content["provenance"] = dict(provenance)
            _write_atomically(description, json.dumps(content, indent=1).encode())
        except OSError as error:
            raise StoreError(f"cannot write to {self.path}: {error.strerror or error}.") from None
        return self

    def _description(self) -> dict[str, Any]:
        path = self.path / "sweep.json"
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
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
            raise StoreError(f"{self.path / 'sweep.json'} holds no valid spec: {error}") from None

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions and devices of the latest run."""
        return self._description().get("provenance", {})

    def write(self, chunk_id: str, records: pd.DataFrame) -> None:
        """Commits a chunk's records, all or nothing. **Raises:** StoreError when the disk refuses."""
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(records, preserve_index=False), buffer, **_FORMAT)
        try:
            _write_atomically(self.chunks / f"{chunk_id}.parquet", buffer.getvalue().to_pybytes())
        except OSError as error:
            raise StoreError(
                f"cannot write to {self.chunks}: {error.strerror or error}. Finished chunks are safe: run again to resume."
            ) from None

    def cells_done(self) -> set[str]:
        """Ids of the cells with a record. A chunk that cannot be read is not done."""
        done: set[str] = set()
        for path in self.chunks.glob("*.parquet"):
            # All of it: a chunk with one spoilt column is not done either.
            table = _read_chunk(path)
            if table is not None:
                done.update(table["cell"].to_pylist())
        return done

    def read(self) -> pd.DataFrame:
        """All records, one row per cell (per entry for vector values). Unreadable chunks are set aside in `damaged`, to
        be run again, and never averaged in."""
        self.damaged = []
        parts = []
        for path in sorted(self.chunks.glob("*.parquet")):
            table = _read_chunk(path)
            if table is None:
                self.damaged.append(path)
            else:
                parts.append(table.to_pandas())
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def open_store(path: str | Path) -> Store:
    """An existing store, for reading. **Raises:** StoreError when there is none at `path`."""
    store = Store(path)
    if not store.path.is_dir():
        raise StoreError(f"there is no directory {store.path}.")
    store._description()
    return store
