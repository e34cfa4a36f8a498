"""The store of a sweep: one directory or URL. docs/store.md says what a store promises, and how.

`sweep.json` holds the spec and everything that readers need to know about the experiment. `chunks/<sha256>.parquet` hold the
records, each file with its manifest (`tsjax.sweep.manifest`). A file is there completely or not at all, and a cell is done if a
sound file has its record. Nothing is appended to a file, so any number of processes and machines may work on one store, and a
kill at any time loses at most the chunks that were not committed. Reading imports and calls nothing but tsjax. pandas, polars,
DuckDB and others read the folder as one table: `duckdb.sql("from 'runs/sweep/chunks/*.parquet'")`.
"""

import errno
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from .description import Description
from .files import files_at, is_url
from .manifest import SCHEMA, Identity, Manifest, is_chunk_name, unpack, unpack_old
from .plan import Plan, plan_of
from .spec import SpecError, SweepSpec, parse_spec
from .table import kind_of
from .theory import TheoryTable
from .values import hashable, redacted

_REDO = "Run the sweep again, with its spec, to write it anew: the records have hashes of their own."
# How often a reader lists the chunks again because some were joined with others meanwhile.
_ATTEMPTS = 5


class StoreError(OSError):
    """A store that cannot be read, written, or used for this sweep."""

    @property
    def exit_code(self) -> int:
        """5 for a disk without room, else 2."""
        return 5 if self.errno in (errno.ENOSPC, errno.EDQUOT) else 2

    def __str__(self) -> str:
        return str(self.args[-1]) if self.args else ""


class DamagedError(StoreError):
    """A description (`sweep.json`) that differs from what was written."""


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A description with a hash of its content, so that any change is found."""
    plain = {name: value for name, value in content.items() if name != "sha256"}
    return {**plain, "sha256": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}


class _Provenance(BaseModel):
    """Versions and devices of the latest run."""

    model_config = ConfigDict(extra="allow", strict=True)

    versions: dict[str, str] = {}
    python: str = ""
    devices: list[str] = []
    platform: str = ""


@dataclass
class Chunks:
    """The content of the folder of chunks.

    - `tables`, `manifests`: those of the sound chunks, by file name.
    - `damaged`: the names of chunks whose bytes are not those that were written, with the reason. `foreign`: the names of files
      that are not chunks, with the reason.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)

    def names(self) -> set[str]:
        """The names of all files that were looked at."""
        return self.tables.keys() | self.damaged.keys() | self.foreign.keys()


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@dataclass(frozen=True)
class Content:
    """The content of `sweep.json`."""

    spec: SweepSpec
    experiment: Description
    plan: Plan
    theory: TheoryTable
    provenance: dict[str, Any]


def description_of(plan: Plan) -> Description:
    """The description of the experiment of a plan."""
    return plan.experiment if isinstance(plan.experiment, Description) else plan.experiment.description


def argument_kinds(plan: Plan) -> dict[str, str]:
    """The type of the column of each argument, which can hold all its values in a plan."""
    return {name: kind_of([hashable(value) for value in plan.values(name)]) for name in plan.experiment.names}


def identity_of(spec: SweepSpec, experiment: Description) -> Identity:
    """The properties that all records of a sweep must share."""
    return Identity(study=spec.study, version=experiment.version, key=spec.key, arguments=experiment.names)


class Store:
    """The records of one sweep, in a directory or at a URL, for reading; `tsjax.sweep.writer` makes and extends stores."""

    def __init__(self, path: str | Path):
        self.path: Path | str = str(path).rstrip("/") if is_url(path) else Path(path).expanduser()
        try:
            self.files = files_at(path)
        except OSError as error:
            raise StoreError(str(error)) from None
        self._parsed: tuple[bytes, Any] = (b"", None)

    @property
    def name(self) -> str:
        """The path or URL, without credentials."""
        return redacted(str(self.path))

    def _is_described(self) -> bool:
        try:
            self.files.read("sweep.json")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StoreError(f"{self.name}/sweep.json cannot be read: {error}.") from None
        return True

    def _description(self) -> dict[str, Any]:
        path = f"{self.name}/sweep.json"
        try:
            raw = self.files.read("sweep.json")
            fresh = raw != self._parsed[0] or not raw
            content = json.loads(raw) if fresh else self._parsed[1]
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"{self.name} is not a tsjax store: it has no sweep.json.") from None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error}.") from None
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{path} cannot be read: {error}. {_REDO}") from None
        if not isinstance(content, dict):
            kind = type(content).__name__
            raise DamagedError(f"{path} cannot be read: it holds a {kind}, not the description of a sweep. {_REDO}")
        if content.get("schema") not in (1, SCHEMA):
            raise StoreError(f"{path} has schema {content.get('schema')!r}; this version of tsjax reads {SCHEMA}.")
        if fresh and content["schema"] == SCHEMA and content != sealed(content):
            raise DamagedError(f"{path} was changed since it was written, by damage or by hand. {_REDO}")
        self._parsed = (raw, content)
        return content

    @property
    def is_old(self) -> bool:
        """Whether the store was made before chunks had manifests: it can be read, but not verified or extended."""
        return self._description()["schema"] == 1

    @property
    def spec(self) -> SweepSpec:
        """The spec of the sweep that this store belongs to."""
        try:
            return parse_spec(self._description().get("spec", {}), where="spec")
        except SpecError as error:
            raise StoreError(f"{self.name}/sweep.json holds no valid spec: {error}") from None

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions and devices of the latest run."""
        try:
            found = _Provenance.model_validate(self._description().get("provenance", {}))
        except ValidationError as error:
            raise StoreError(f"{self.name}/sweep.json holds no valid provenance: {_first_line(error)}.") from None
        return found.model_dump(exclude_unset=True)

    def content(self) -> Content:
        """Everything that the store says about its sweep. **Raises:** StoreError."""
        found, spec = self._description(), self.spec
        try:
            experiment = Description.model_validate(found["experiment"])
            plan = plan_of(found["plan"], experiment)
            theory = TheoryTable(found["theory"])
        except (KeyError, IndexError, TypeError, ValueError, ValidationError) as error:
            raise StoreError(
                f"{self.name}/sweep.json holds no valid description of its sweep: {_first_line(error)}."
            ) from None
        return Content(spec, experiment, plan, theory, self.provenance)

    # Chunks

    def scan(self, columns: Sequence[str] | None = None) -> Chunks:
        """Reads and checks every file among the chunks; with `columns`, only those columns of the tables."""
        found, missing = Chunks(), set()
        unpacked = unpack_old if self._is_described() and self.is_old else unpack
        try:
            for _ in range(_ATTEMPTS):
                names = self.files.names("chunks")
                for name in set(names) - found.names():
                    self._scan(name, found, unpacked, columns)
                # A file that is gone now was joined with others meanwhile: look again.
                there = set(self.files.names("chunks"))
                for name in found.tables.keys() - there:
                    del found.tables[name]
                    found.manifests.pop(name, None)
                missing = there - found.names()
                if not missing:
                    break
        except OSError as error:
            raise StoreError(f"{self.name}/chunks cannot be read: {error.strerror or error}.") from None
        for name in missing:
            found.foreign[name] = "it is a link to nothing"
        found.tables = dict(sorted(found.tables.items()))
        return found

    def _scan(self, name: str, found: Chunks, unpacked: Callable, columns: Sequence[str] | None) -> None:
        if not is_chunk_name(name) and unpacked is unpack:
            found.foreign[name] = "it is not named as chunks are"
            return
        try:
            manifest, found.tables[name] = unpacked(name, self.files.read(f"chunks/{name}"), columns)
            if manifest is not None:
                found.manifests[name] = manifest
        except FileNotFoundError:
            pass
        except PermissionError as error:
            # This may be a sound chunk of another user, so it does not count as damaged and is not moved.
            raise StoreError(f"{self.name}/chunks/{name} cannot be read: {error.strerror}.") from None
        except (MemoryError, OverflowError):
            found.damaged[name] = "it is larger than this machine's memory"
        except OSError as error:
            # A pipe or a folder is not a chunk; a chunk that the disk cannot read is damaged.
            chunk = error.errno is not None and error.errno != errno.EISDIR
            (found.damaged if chunk else found.foreign)[name] = (error.strerror or str(error)).lower()
        except ValueError as error:
            found.damaged[name] = str(error)

    def read(self, columns: Sequence[str] | None = None) -> Chunks:
        """As `scan`, with a check that all chunks belong to this sweep. **Raises:** StoreError."""
        found = self.scan(columns)
        if not self.is_old:
            self._check_manifests(found.manifests, identity_of(self.spec, self.content().experiment))
        return found

    def _check_manifests(self, manifests: Mapping[str, Manifest], identity: Identity) -> None:
        foreign: dict[str, list[str]] = {}
        for name, manifest in manifests.items():
            differences = identity.differences(manifest.identity, "in sweep.json", "in the chunk")
            if manifest.schema_version != SCHEMA:
                differences.append(f"schema: {SCHEMA} in sweep.json, {manifest.schema_version} in the chunk")
            if differences:
                foreign.setdefault("; ".join(differences), []).append(name)
        if foreign:
            difference, names = next(iter(foreign.items()))
            count = sum(map(len, foreign.values()))
            raise StoreError(
                f"{self.name}: {count} of {len(manifests)} chunks belong to another sweep ({difference}); the first is "
                f"chunks/{names[0]}. Choose another --out, move these files out of chunks/, or put back the sweep.json that "
                "they belong to."
            )


def open_store(path: str | Path) -> Store:
    """An existing store, for reading. **Raises:** StoreError if there is no store at `path`."""
    store = Store(path)
    if not store.files.exists():
        what = "tsjax store" if is_url(path) else "directory"
        raise StoreError(f"there is no {what} {store.name}.")
    store._description()
    return store
