"""The manifest of a chunk, which says to which sweep the chunk belongs and what made it; and the bytes of a chunk.

A chunk is a Parquet file that is named by the SHA-256 hash of its bytes and has the manifest in its metadata. So a change
anywhere in the file is found, and the file states its origin wherever it lies.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

SCHEMA = 2
_METADATA = b"tsjax"
_NAME = re.compile(r"[0-9a-f]{64}\.parquet")
# With page checksums, other tools can detect a damaged page too.
_FORMAT: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


class Identity(BaseModel):
    """What gives records their meaning: records of different identities are never in one store."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    study: str
    version: int
    key: int
    arguments: tuple[str, ...]

    def differences(self, other: "Identity", there: str = "there", here: str = "here") -> list[str]:
        """The differences, each as a text such as `key: 0 there, 1 here`."""
        found = []
        for name in ("study", "version", "key"):
            if getattr(self, name) != getattr(other, name):
                found.append(f"{name}: {getattr(self, name)!r} {there}, {getattr(other, name)!r} {here}")
        mine, others = set(self.arguments), set(other.arguments)
        found += [f"the argument {name!r} is only {there}" for name in sorted(mine - others)]
        return found + [f"the argument {name!r} is only {here}" for name in sorted(others - mine)]


class Manifest(BaseModel):
    """What a chunk says about itself.

    - `schema_version`: the version of this layout. `identity`: that of its sweep. `defaults`: those of its arguments.
    - `columns`: their names and types. `cells`: their number.
    - `size_class`: how sizes were padded; `exact` means not at all.
    - `device`: the kind of device. `kernel`: what trained ReLU students: `c`, `fused` or `xla`, which differ in rounding; or
      `none`.
    - `ntk`: what computes the kernels of infinite ReLU networks: a release of neural-tangents, or `closed form`.
    - `x64`: whether 64-bit types were on.
    - `source`: hashes of the experiment's code (`Description.source`). `versions`: those of JAX and tsjax.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int = SCHEMA
    identity: Identity
    defaults: dict[str, Any] = {}
    columns: dict[str, str] = {}
    cells: int = 0
    size_class: str = "exact"
    device: str
    kernel: str
    ntk: str = "neural-tangents 0.6.5"
    x64: bool = True
    source: dict[str, str] = {}
    versions: dict[str, str] = {}

    @property
    def origin(self) -> str:
        """A text that is equal for chunks that may be joined: everything except columns and cells."""
        return self.model_dump_json(exclude={"columns", "cells"})


def pack(table: pa.Table, manifest: Manifest) -> tuple[str, bytes]:
    """The name and the bytes of a chunk."""
    columns = {field.name: str(field.type) for field in table.schema}
    cells = len(set(table["cell"].to_pylist()))
    text = manifest.model_copy(update={"columns": columns, "cells": cells}).model_dump_json()
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({_METADATA: text.encode()}), buffer, **_FORMAT)
    content = buffer.getvalue().to_pybytes()
    return f"{hashlib.sha256(content).hexdigest()}.parquet", content


def is_chunk_name(name: str) -> bool:
    """Whether a file is named as chunks are."""
    return _NAME.fullmatch(name) is not None


def unpack(name: str, content: bytes, columns: Sequence[str] | None = None) -> tuple[Manifest, pa.Table]:
    """The manifest and the table of a chunk; with `columns`, only these columns.

    **Raises:** ValueError if the bytes are not those that were written, or are not a chunk.
    """
    if hashlib.sha256(content).hexdigest() != name.removesuffix(".parquet"):
        raise ValueError("its bytes are not those that were written")
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        manifest = Manifest.model_validate_json((file.schema_arrow.metadata or {})[_METADATA])
        kept = None if columns is None else [column for column in columns if column in manifest.columns]
        table = file.read(kept, use_threads=False)
    except (OSError, KeyError, pa.ArrowException, ValidationError) as error:
        raise ValueError(f"it is not a chunk of tsjax ({type(error).__name__})") from None
    return manifest, table.replace_schema_metadata(None)


def unpack_old(name: str, content: bytes, columns: Sequence[str] | None = None) -> tuple[None, pa.Table]:
    """The table of a chunk that was made before chunks had manifests. **Raises:** ValueError if it cannot be decoded."""
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"it cannot be decoded ({type(error).__name__})") from None
    if "cell" not in table.column_names:
        raise ValueError("it is not a chunk of tsjax")
    kept = [column for column in columns or table.column_names if column in table.column_names]
    return None, table.select(kept).replace_schema_metadata(None)


def mixtures(manifests: Mapping[str, Manifest], cells: str = "cells") -> list[str]:
    """Sentences about the differences in origin between the chunks of a store, whose records are used together."""
    found = []
    words = {
        "device": "kinds of device",
        "kernel": "training kernels, which differ in rounding",
        "ntk": "implementations of the kernels of infinite networks, which differ in rounding",
        "size_class": "size classes",
        "x64": "settings of 64-bit types",
    }
    for field, what in words.items():
        counts: dict[str, int] = {}
        for manifest in manifests.values():
            value = str(getattr(manifest, field))
            counts[value] = counts.get(value, 0) + manifest.cells
        if len(counts) > 1:
            parts = ", ".join(f"{value} ({count} {cells})" for value, count in sorted(counts.items()))
            found.append(f"records were made with {len(counts)} {what}: {parts}")
    defaults = [manifest.defaults for manifest in manifests.values()]
    changed = sorted(
        name for name in {n for one in defaults for n in one} if len({repr(one.get(name)) for one in defaults}) > 1
    )
    if changed:
        found.append(
            f"the default of {', '.join(map(repr, changed))} changed between records; each record holds its own value"
        )
    sources = [manifest.source for manifest in manifests.values()]
    names = {name for source in sources for name in source}
    # A function that only some chunks have counts too, since it may have been renamed.
    changed = [name for name in names if len({source.get(name) for source in sources}) > 1]
    if changed:
        found.append(
            f"the source of {', '.join(map(repr, sorted(changed)))} changed between records of version "
            f"{next(iter(manifests.values())).identity.version}: if results may differ, raise the experiment's version and "
            "run it into a new store"
        )
    return found
