"""Makes and extends stores: nothing is written into the store of another sweep, and no record is lost."""

import contextlib
import itertools
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from .classes import Shared
from .description import Description
from .leases import Leases
from .manifest import SCHEMA, Manifest, pack, unpack
from .plan import Plan, plan_content
from .spec import SweepSpec
from .store import Chunks, DamagedError, Store, StoreError, argument_kinds, description_of, identity_of, sealed
from .table import columns_of, common_columns, in_columns, is_failure, to_table
from .theory import TheoryTable
from .values import redacted

# When there are this many small chunks, they are joined into chunks of about this many rows.
_MANY = 500
_ROWS = 2**16


class StoreWriter(Store):
    """A store that is made or extended: call `open_for`, then `commit` for each chunk, and `tidy` at the end."""

    def __init__(self, path: str | Path, *, retry: bool = False):
        super().__init__(path)
        self.retry = retry
        """Whether black-box cells that failed before are run again."""
        self._seen: set[str] = set()
        self._manifest: Manifest | None = None
        self._experiment: Description | None = None
        self._kinds: dict[str, str] = {}
        self._written = 0
        self.refused: OSError | None = None
        """The error that writing raised, if any. It is only kept, since a complete sweep needs no writing."""

    def open_for(
        self, spec: SweepSpec, plan: Plan, theory: TheoryTable, provenance: Mapping[str, Any], manifest: Manifest
    ) -> "Store":
        """Creates the store, or checks that it belongs to the same sweep, and writes the description that readers need. The
        chunks that `commit` then writes carry the `manifest`.

        **Raises:** StoreError if the directory cannot be written, holds something else, or holds another sweep.
        """
        experiment = description_of(plan)
        identity = identity_of(spec, experiment)
        self.join(plan, manifest)
        try:
            if not self._is_sound():
                occupied = self.files.is_free()
                if occupied is not None:
                    raise StoreError(occupied)
                self.files.make()
                # Chunks without a sweep.json: of workers that came first, or of a sweep whose description was deleted.
                self._check_manifests(self.scan(["cell"]).manifests, identity)
                content = self._encoded(spec, experiment, plan, theory, provenance)
                if self.files.create("sweep.json", content):
                    # Where creation is not exclusive, another process may have replaced this description by its own.
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
                # This does not matter if there turns out to be nothing to run.
                self.refused = error
            self._check(spec, plan)
        except StoreError:
            raise
        except OSError as error:
            raise self._unwritable(error) from None
        return self

    def join(self, plan: Plan, manifest: Manifest) -> None:
        """Prepares to write chunks with this `manifest` into a store that another process has opened for this plan."""
        self._manifest, self._experiment = manifest, description_of(plan)
        self._kinds = argument_kinds(plan)

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Turns an OSError within the context into a StoreError about `what` in the store."""
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            raise self._unwritable(error, what) from None

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
        return json.dumps(sealed(content), indent=1).encode()

    def _is_sound(self) -> bool:
        """Whether there is a description that can be trusted. A damaged one is moved to `damaged/`, since the chunks themselves
        say to which sweep they belong."""
        if not self._is_described():
            return False
        try:
            self._description()
        except DamagedError:
            if self.files.is_free() is None:
                self.files.move(["sweep.json"], "damaged")
                return False
            raise
        return True

    def theory_before(self, experiment: Description) -> list[dict[str, Any]]:
        """The theory that is stored here, if it was computed with the same version and code; else an empty list."""
        try:
            if not self.files.exists() or not self._is_described() or self.is_old:
                return []
            before = self.content()
        except DamagedError:
            return []
        same = (before.experiment.version, before.experiment.source) == (experiment.version, experiment.source)
        return before.theory.entries() if same else []

    def sharing_before(self) -> dict[str, Shared]:
        """Which groups share a program (`Plan.sharing_of`) in the stored sweep, so that a resumed sweep uses the same
        programs."""
        try:
            if not self.files.exists() or not self._is_described() or self.is_old:
                return {}
            return self.content().plan.sharing_of
        except StoreError:
            return {}

    def refuse_work(self) -> None:
        """Raises StoreError if writing has failed; called when there is work to do."""
        if self.refused is not None:
            raise self._unwritable(self.refused)

    def describe(self, theory: TheoryTable) -> None:
        """Adds theory that is known only at the end of a run. **Raises:** StoreError."""
        known = self._description()
        if known["theory"] != json.loads(json.dumps(theory.entries())):
            try:
                self.files.write(
                    "sweep.json", json.dumps(sealed({**known, "theory": theory.entries()}), indent=1).encode()
                )
            except OSError as error:
                raise self._unwritable(error) from None

    def _check(self, spec: SweepSpec, plan: Plan) -> None:
        """Raises StoreError if the store holds another sweep now."""
        if self.is_old:
            raise StoreError(
                f"{self.name} was made by an earlier version of tsjax, without manifests that say which sweep its records "
                "belong to. It can be read, but not extended: choose another --out."
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

    def commit(self, records: pd.DataFrame, kernel: str = "xla", leases: Leases | None = None) -> bool:
        """Writes the records of a chunk, after `open_for`. False, and nothing is written, if by `leases` another worker may
        have taken over their cells. **Raises:** StoreError."""
        assert self._manifest is not None and self._experiment is not None, "open_for comes first"
        device = str(records["device"].iloc[0])
        table = to_table(records, self._kinds)
        # All chunks have their columns in the same order, too.
        table = in_columns(table, common_columns([columns_of(table)], self._experiment))
        name, content = pack(table, self._manifest.model_copy(update={"device": device, "kernel": kernel}))
        with self.writing("/chunks"):
            if leases is None:
                self.files.write(f"chunks/{name}", content)
            elif not leases.commit(name, content):
                return False
        self._seen.add(name)
        self._written += 1
        if self._written % _MANY == 0:
            self.tidy(every=False)
        return True

    def write(self, table: pa.Table, manifest: Manifest) -> str:
        """Commits the records of a chunk, all or none, and returns its name. **Raises:** StoreError if it cannot be written."""
        name, content = pack(table, manifest)
        with self.writing("/chunks"):
            self.files.write(f"chunks/{name}", content)
        return name

    def done(self) -> set[str]:
        """The ids of the cells with a record in a sound chunk; with `retry`, black-box cells that failed do not count. Damaged
        chunks are moved to `damaged/`, so that their cells are run again. **Raises:** StoreError."""
        found = self.read(["cell", "failure"])
        self._seen = found.names()
        if found.damaged and self.refused is None:
            try:
                self.files.move([f"chunks/{name}" for name in found.damaged], "damaged")
            except OSError as error:
                self.refused = error
        with_result = lambda table: table.filter(~is_failure(table)) if self.retry else table
        return set(itertools.chain.from_iterable(with_result(t)["cell"].to_pylist() for t in found.tables.values()))

    def done_since(self) -> set[str]:
        """The ids of the cells in chunks that others have written since `done`, or since the last call. A chunk that is
        damaged, or was joined with others meanwhile, is left to the next call. **Raises:** StoreError."""
        cells: set[str] = set()
        with self.writing("/chunks"):
            for name in set(self.files.names("chunks", fresh=True)) - self._seen:
                try:
                    cells.update(unpack(name, self.files.read(f"chunks/{name}"), ["cell"])[1]["cell"].to_pylist())
                except (FileNotFoundError, ValueError):
                    continue
                self._seen.add(name)
        return cells

    def tidy(self, *, every: bool = True) -> None:
        """Gives all chunks the same columns, and joins small chunks if there are many; without `every` it only joins. No record
        changes: a file is removed only when the files that hold its records are on the disk.

        Any number of processes may do this at once. A cell may then be in two chunks for a while, which readers allow for.
        **Raises:** StoreError if the disk refuses.
        """
        found, experiment = self.scan(), self.content().experiment
        small = [name for name, table in found.tables.items() if table.num_rows < _ROWS // 2]
        columns = common_columns([columns_of(table) for table in found.tables.values()], experiment)
        narrow = {
            name for name, table in found.tables.items() if list(columns_of(table).items()) != list(columns.items())
        }
        wanted = set(small) if len(small) > _MANY else set()
        wanted |= narrow if every else set()
        doubled = self._doubled(found, columns)
        groups: dict[str, list[str]] = {}
        for name in sorted(wanted & found.tables.keys()):
            # Files that share cells are not joined: afterwards nothing would show that these cells were run twice.
            alone = name if name in doubled else ""
            groups.setdefault(found.manifests[name].origin + alone, []).append(name)
        for names in groups.values():
            batch: list[str] = []
            for name in names:
                batch.append(name)
                if sum(found.tables[one].num_rows for one in batch) >= _ROWS or name == names[-1]:
                    self._join(batch, found, columns, narrow)
                    batch = []

    def _doubled(self, found: Chunks, columns: Mapping[str, str]) -> set[str]:
        """The files that share cells with others. A file whose rows are all in a larger file is removed first; a process that
        was killed while it joined files leaves such files."""
        names = sorted(found.tables, key=lambda name: -found.tables[name].num_rows)
        cells = {name: found.tables[name]["cell"].to_pylist() for name in names}
        holders: dict[str, list[str]] = {}
        for name in names:
            for cell in dict.fromkeys(cells[name]):
                holders.setdefault(cell, []).append(name)
        doubled = {name for several in holders.values() if len(several) > 1 for name in several}
        for name in [name for name in names if name in doubled]:
            larger = holders[cells[name][0]][0]
            if larger == name:
                continue
            own = set(cells[name])
            mine, whole = in_columns(found.tables[name], columns), in_columns(found.tables[larger], columns)
            theirs = whole.take([row for row, cell in enumerate(cells[larger]) if cell in own])
            # Compared by pandas, for which NaN equals NaN: the risk of a failed cell is NaN.
            if mine.sort_by("cell").to_pandas().equals(theirs.sort_by("cell").to_pandas()):
                self.files.remove([f"chunks/{name}"])
                del found.tables[name]
                doubled.discard(name)
        return doubled

    def _join(self, names: list[str], found: Chunks, columns: Mapping[str, str], narrow: set[str]) -> None:
        if len(names) == 1 and names[0] not in narrow:
            return
        table = pa.concat_tables([in_columns(found.tables[name], columns) for name in names])
        made = self.write(table, found.manifests[names[0]])
        with self.writing("/chunks"):
            self.files.remove(f"chunks/{name}" for name in names if name != made)
