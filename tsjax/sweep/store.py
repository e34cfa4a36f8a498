"""The store: one directory, or URL, per sweep; what it promises, and how, is in docs/store.md.

`sweep.json` holds the spec and everything that readers need of the experiment; `chunks/<sha256>.parquet` the records, each
file with its manifest (`tsjax.sweep.manifest`). A file is there whole or not at all, and cells with a record in a file that
checks are done. Nothing is appended to, so any number of processes and machines may work on one store, and a kill at any
instant loses at most the chunks that were not committed. Reading imports and calls nothing but tsjax. pandas, polars, DuckDB
and the like read the folder as one table: `duckdb.sql("from 'runs/sweep/chunks/*.parquet'")`.
"""

import errno
import itertools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic import ValidationError

from .description import Description
from .files import files_at, is_url
from .manifest import SCHEMA, Identity, Manifest, is_chunk_name, pack, unpack, unpack_old
from .plan import Plan, plan_content, plan_of
from .spec import SpecError, SweepSpec, parse_spec
from .table import columns_of, common_columns, in_columns, kind_of, to_table
from .theory import TheoryTable
from .values import hashable, redacted

# A writer joins small chunks when there are so many of them, into chunks of about so many rows.
_MANY = 500
_ROWS = 2**16
# A chunk that was joined with others while a reader looked for it is looked for again in the new list.
_ATTEMPTS = 5


class StoreError(OSError):
    """A store that cannot be read, written, or used for this sweep."""

    @property
    def exit_code(self) -> int:
        """5 for a disk without room, else 2."""
        return 5 if self.errno in (errno.ENOSPC, errno.EDQUOT) else 2

    def __str__(self) -> str:
        return str(self.args[-1]) if self.args else ""


@dataclass
class Chunks:
    """What is in the folder of chunks.

    - `tables`, `manifests`: of the chunks that check, by file name.
    - `damaged`: names of chunks whose bytes are not those that were written, with the reason; `foreign`: of what is none.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)

    def names(self) -> set[str]:
        """Of all files that were looked at."""
        return self.tables.keys() | self.damaged.keys() | self.foreign.keys()


@dataclass(frozen=True)
class Content:
    """What `sweep.json` says."""

    spec: SweepSpec
    experiment: Description
    plan: Plan
    theory: TheoryTable
    provenance: dict[str, Any]


def description_of(plan: Plan) -> Description:
    """Of the experiment of a plan."""
    return plan.experiment if isinstance(plan.experiment, Description) else plan.experiment.description


def argument_kinds(plan: Plan) -> dict[str, str]:
    """The types of the arguments' columns that hold all values of a plan."""
    return {name: kind_of([hashable(value) for value in plan.values(name)]) for name in plan.experiment.names}


def identity_of(spec: SweepSpec, experiment: Description) -> Identity:
    """What the records of a sweep must share."""
    return Identity(study=spec.study, version=experiment.version, key=spec.key, arguments=experiment.names)


class Store:
    """The records of one sweep, in a directory or at a URL. `Store(path)` only looks; `open_for` makes or extends it."""

    def __init__(self, path: str | Path):
        self.path: Path | str = str(path).rstrip("/") if is_url(path) else Path(path).expanduser()
        try:
            self.files = files_at(path)
        except OSError as error:
            raise StoreError(str(error)) from None
        self._parsed: tuple[bytes, Any] = (b"", None)
        self._manifest: Manifest | None = None
        self._kinds: dict[str, str] = {}
        self._written = 0
        self.refused: OSError | None = None
        """Why nothing can be written, where that was found out: a complete sweep needs no writing."""

    @property
    def name(self) -> str:
        """The path or URL, without credentials."""
        return redacted(str(self.path))

    # Describing

    def open_for(
        self, spec: SweepSpec, plan: Plan, theory: TheoryTable, provenance: Mapping[str, Any], manifest: Manifest
    ) -> "Store":
        """Creates the store, or checks that it belongs to the same sweep, and records what readers need. The chunks that
        `commit` then writes carry the `manifest`.

        **Raises:** StoreError when the directory cannot be written, holds something else, or holds another sweep.
        """
        experiment = description_of(plan)
        identity = identity_of(spec, experiment)
        self._manifest = manifest
        self._kinds = argument_kinds(plan)
        try:
            if not self._is_described():
                occupied = self.files.is_free()
                if occupied is not None:
                    raise StoreError(occupied)
                self.files.make()
                # Chunks without a sweep.json: of shards that came first, or of a sweep whose description was deleted.
                self._check_manifests(self.scan(["cell"]).manifests, identity)
                content = self._encoded(spec, experiment, plan, theory, provenance)
                if self.files.create("sweep.json", content):
                    # Where creation is not exclusive, another process may have written its own since.
                    self._check(spec, plan)
                    return self
            self._check(spec, plan)
            self.files.watch()
            for entry in self.theory_before(experiment):
                theory.keep(entry)
            content = self._encoded(spec, experiment, plan, theory, provenance)
            try:
                self.files.make()
                if json.loads(content) != self._description():
                    self.files.write("sweep.json", content)
            except OSError as error:
                # No matter, if there turns out to be nothing to run.
                self.refused = error
            self._check(spec, plan)
        except StoreError:
            raise
        except OSError as error:
            raise self._unwritable(error) from None
        return self

    def _unwritable(self, error: OSError, what: str = "") -> StoreError:
        safe = " Finished chunks are safe: run again to resume." if what else ""
        found = StoreError(f"cannot write to {self.name}{what}: {error.strerror or error}.{safe}")
        found.errno = error.errno
        return found

    def _encoded(self, spec, experiment, plan, theory, provenance) -> bytes:
        try:
            known = self._description()
        except StoreError:
            known = {}
        content = {
            "schema": SCHEMA,
            "id": known.get("id", uuid.uuid4().hex),
            "spec": redacted(spec.model_dump(mode="json")),
            "experiment": experiment.model_dump(mode="json"),
            "plan": plan_content(plan),
            "theory": theory.entries(),
            "provenance": dict(provenance),
        }
        return json.dumps(content, indent=1).encode()

    def theory_before(self, experiment: Description) -> list[dict[str, Any]]:
        """What theory said when this sweep, with the same code, was run here before."""
        if not self.files.exists() or not self._is_described() or self.is_old:
            return []
        before = self.content()
        same = (before.experiment.version, before.experiment.source) == (experiment.version, experiment.source)
        return before.theory.entries() if same else []

    def refuse_work(self) -> None:
        """Raises StoreError if there is work to do and nothing can be written."""
        if self.refused is not None:
            raise self._unwritable(self.refused)

    def describe(self, theory: TheoryTable) -> None:
        """Adds what theory says, where that is known only now. **Raises:** StoreError."""
        known = self._description()
        if known["theory"] != json.loads(json.dumps(theory.entries())):
            try:
                self.files.write("sweep.json", json.dumps({**known, "theory": theory.entries()}, indent=1).encode())
            except OSError as error:
                raise self._unwritable(error) from None

    def _check(self, spec: SweepSpec, plan: Plan) -> None:
        """Raises StoreError if the store, as it is now, holds another sweep than this one."""
        if self.is_old:
            raise StoreError(
                f"{self.name} was made by an earlier version of tsjax, without manifests that say which sweep its records "
                "belong to. It can be read, and not extended: choose another --out."
            )
        experiment, content = description_of(plan), self.content()
        differences = identity_of(content.spec, content.experiment).differences(identity_of(spec, experiment))
        if differences:
            raise StoreError(
                f"{self.name} holds another sweep ({'; '.join(differences)}). Choose another --out, or give this "
                "sweep the same study, version, key and arguments to extend that store."
            )
        for name in experiment.names:
            mine, theirs = ([json.dumps(redacted(v)) for v in one.values(name)] for one in (plan, content.plan))
            if len(mine) == 1 and mine[0] not in theirs:
                held = theirs[0] if len(theirs) == 1 else f"[{', '.join(theirs)}]"
                raise StoreError(
                    f"{self.name} holds the sweep at {name} = {held}, and this one has {name} = {mine[0]}. Choose another "
                    f"--out; or, to hold both in one store, make {name} an axis of the grid: {name} = "
                    f"[{', '.join([*theirs, *mine])}]."
                )

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
            if raw != self._parsed[0] or not raw:
                self._parsed = (raw, json.loads(raw))
            content = self._parsed[1]
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"{self.name} is not a tsjax store: it has no sweep.json.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{path} cannot be read: {error}.") from None
        if not isinstance(content, dict):
            raise StoreError(
                f"{path} cannot be read: it holds a {type(content).__name__}, not the description of a sweep."
            )
        if content.get("schema") not in (1, SCHEMA):
            raise StoreError(f"{path} has schema {content.get('schema')!r}; this version of tsjax reads {SCHEMA}.")
        return content

    @property
    def is_old(self) -> bool:
        """Whether it was made before chunks had manifests: it can be read, nothing in it verified, and not be extended."""
        return self._description()["schema"] == 1

    @property
    def spec(self) -> SweepSpec:
        """The sweep this store belongs to."""
        try:
            return parse_spec(self._description().get("spec", {}), where="spec")
        except SpecError as error:
            raise StoreError(f"{self.name}/sweep.json holds no valid spec: {error}") from None

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions and devices of the latest run."""
        return self._description().get("provenance", {})

    def content(self) -> Content:
        """Everything that the store says of its sweep. **Raises:** StoreError."""
        found, spec = self._description(), self.spec
        try:
            experiment = Description.model_validate(found["experiment"])
            plan = plan_of(found["plan"], experiment)
            theory = TheoryTable(found["theory"])
        except (KeyError, IndexError, TypeError, ValueError, ValidationError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(f"{self.name}/sweep.json holds no valid description of its sweep: {reason}.") from None
        return Content(spec, experiment, plan, theory, found.get("provenance", {}))

    # Chunks

    def commit(self, records: pd.DataFrame, kernel: str = "xla") -> None:
        """Writes the records of a chunk, of a store that was opened for writing. **Raises:** StoreError."""
        assert self._manifest is not None, "open_for comes first"
        device = str(records["device"].iloc[0])
        table = to_table(records, self._kinds)
        self.write(table, self._manifest.model_copy(update={"device": device, "kernel": kernel}))
        self._written += 1
        if self._written % _MANY == 0:
            self.tidy(every=False)

    def write(self, table: pa.Table, manifest: Manifest) -> str:
        """Commits the records of a chunk, all or nothing, and returns its name. **Raises:** StoreError when the disk
        refuses."""
        name, content = pack(table, manifest)
        try:
            self.files.write(f"chunks/{name}", content)
        except OSError as error:
            raise self._unwritable(error, "/chunks") from None
        return name

    def scan(self, columns: Sequence[str] | None = None) -> Chunks:
        """Reads and checks every file among the chunks; with `columns`, only those columns of the tables."""
        found, missing = Chunks(), set()
        unpacked = unpack_old if self._is_described() and self.is_old else unpack
        try:
            for _ in range(_ATTEMPTS):
                names = self.files.names("chunks")
                for name in set(names) - found.names():
                    self._scan(name, found, unpacked, columns)
                # A file that was there and is gone was joined with others meanwhile: look again.
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
        except OSError as error:
            # A pipe or a folder is none of ours; a chunk that the disk does not give back is damaged.
            chunk = error.errno is not None and error.errno != errno.EISDIR
            (found.damaged if chunk else found.foreign)[name] = (error.strerror or str(error)).lower()
        except ValueError as error:
            found.damaged[name] = str(error)

    def read(self, columns: Sequence[str] | None = None) -> Chunks:
        """As `scan`, after a check that all chunks belong to this sweep. **Raises:** StoreError."""
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
                f"{self.name}: {count} of {len(manifests)} chunks belong to another sweep ({difference}), the first is "
                f"chunks/{names[0]}. Choose another --out; or move these files out of chunks/, or put back the sweep.json "
                "that they belong to."
            )

    def done(self) -> set[str]:
        """Ids of the cells with a record in a chunk that checks. Chunks that do not are set aside, into `damaged/`, so that
        their cells are run again. **Raises:** StoreError."""
        found = self.read(["cell"])
        if found.damaged and self.refused is None:
            try:
                self.files.move([f"chunks/{name}" for name in found.damaged], "damaged")
            except OSError as error:
                self.refused = error
        return set(itertools.chain.from_iterable(table["cell"].to_pylist() for table in found.tables.values()))

    # Tidying

    def tidy(self, *, every: bool = True) -> None:
        """Gives all chunks the same columns, and joins small ones where there are many. The records stay as they are: files
        are removed only when others that hold their records are on the disk. Without `every`, only joins.

        Any number of processes may do this at once: a cell may then be in two chunks for a while, which readers allow for.
        **Raises:** StoreError when the disk refuses.
        """
        found, experiment = self.scan(), self.content().experiment
        small = [name for name, table in found.tables.items() if table.num_rows < _ROWS // 2]
        columns = common_columns([columns_of(table) for table in found.tables.values()], experiment)
        narrow = {name for name, table in found.tables.items() if columns_of(table) != columns}
        wanted = set(small) if len(small) > _MANY else set()
        wanted |= narrow if every else set()
        groups: dict[str, list[str]] = {}
        for name in sorted(wanted):
            groups.setdefault(found.manifests[name].origin, []).append(name)
        for names in groups.values():
            batch: list[str] = []
            for name in names:
                batch.append(name)
                if sum(found.tables[one].num_rows for one in batch) >= _ROWS or name == names[-1]:
                    self._join(batch, found, columns, narrow)
                    batch = []

    def _join(self, names: list[str], found: Chunks, columns: Mapping[str, str], narrow: set[str]) -> None:
        if len(names) == 1 and names[0] not in narrow:
            return
        table = pa.concat_tables([in_columns(found.tables[name], columns) for name in names])
        made = self.write(table, found.manifests[names[0]])
        try:
            self.files.remove(f"chunks/{name}" for name in names if name != made)
        except OSError as error:
            raise self._unwritable(error, "/chunks") from None


def open_store(path: str | Path) -> Store:
    """An existing store, for reading. **Raises:** StoreError when there is none at `path`."""
    store = Store(path)
    if not store.files.exists():
        what = "tsjax store" if is_url(path) else "directory"
        raise StoreError(f"there is no {what} {store.name}.")
    store._description()
    return store
