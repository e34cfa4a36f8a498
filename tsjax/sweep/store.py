"""The store: one directory per sweep, one immutable file per chunk.

`sweep.json` holds the spec and what ran it; `chunks/<id>.parquet` the records. A chunk is written under a temporary name,
flushed, then renamed: a chunk that exists is done. Nothing is appended to and nothing is locked, so any number of
processes may work on one store, and a kill at any instant loses at most the chunks in flight.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .spec import SweepSpec

SCHEMA = 1


class StoreError(OSError):
    """A store that cannot be read, written, or used for this sweep."""


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


class Store:
    """The records of one sweep in a directory. `Store(path)` only looks; `open_for` makes or extends it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.chunks = self.path / "chunks"
        self.damaged: list[Path] = []

    def open_for(self, spec: SweepSpec, provenance: Mapping[str, Any]) -> "Store":
        """Creates the store, or checks that it belongs to the same sweep, and records the spec.

        **Raises:** StoreError when the directory cannot be written, holds something else, or holds another sweep.
        """
        description = self.path / "sweep.json"
        if description.exists():
            before, now = self.spec.identity, spec.identity
            differences = [f"{k}: {before.get(k)!r} there, {now[k]!r} here" for k in now if before.get(k) != now[k]]
            if differences:
                raise StoreError(
                    f"{self.path} holds another sweep ({'; '.join(differences)}). Choose another --out, or give this "
                    "sweep the same study and key to extend that store."
                )
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise StoreError(f"{self.path} exists and is not a tsjax store. Choose an empty or new directory.")
        try:
            self.chunks.mkdir(parents=True, exist_ok=True)
            content = {"schema": SCHEMA, "spec": spec.model_dump(mode="json"), "provenance": dict(provenance)}
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
        except (OSError, json.JSONDecodeError) as error:
            raise StoreError(f"{path} cannot be read: {error}.") from None
        if content.get("schema") != SCHEMA:
            raise StoreError(f"{path} has schema {content.get('schema')!r}; this version of tsjax reads {SCHEMA}.")
        return content

    @property
    def spec(self) -> SweepSpec:
        """The sweep this store belongs to."""
        try:
            return SweepSpec.model_validate(self._description()["spec"])
        except ValueError as error:
            raise StoreError(f"{self.path / 'sweep.json'} holds no valid spec: {error}.") from None

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions and devices of the latest run."""
        return self._description()["provenance"]

    def write(self, chunk_id: str, records: pd.DataFrame) -> None:
        """Commits a chunk's records, all or nothing. **Raises:** StoreError when the disk refuses."""
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(records, preserve_index=False), buffer, compression="zstd")
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
            try:
                done.update(pq.read_table(path, columns=["cell"])["cell"].to_pylist())
            except (OSError, pa.ArrowException):
                continue
        return done

    def read(self) -> pd.DataFrame:
        """All records, one row per cell (per entry for vector values). Unreadable chunks are set aside in `damaged`, to
        be run again, and never averaged in."""
        self.damaged = []
        parts = []
        for path in sorted(self.chunks.glob("*.parquet")):
            try:
                parts.append(pq.read_table(path).to_pandas())
            except (OSError, pa.ArrowException):
                self.damaged.append(path)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def open_store(path: str | Path) -> Store:
    """An existing store, for reading. **Raises:** StoreError when there is none at `path`."""
    store = Store(path)
    if not store.path.is_dir():
        raise StoreError(f"there is no directory {store.path}.")
    store._description()
    return store


