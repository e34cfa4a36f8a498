"""`tsjax check`: whether a store holds exactly what was written into it, and where that came from."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from ..kernels import neural_tangents
from ..sweep.coverage import Coverage
from ..sweep.loading import content_of
from ..sweep.manifest import SCHEMA, Manifest
from ..sweep.records import assemble
from ..sweep.store import Chunks, Content, Store, StoreError, identity_of, open_store
from .numbers import plural
from .plain import coverage_json
from .tables import compact_table, marked
from .terminal import Text


def check_store(path: str | Path) -> dict[str, Any]:
    """Reads every file of a store, and compares it with its hash and with `sweep.json`. It imports and calls nothing but tsjax.

    Plain values:

    - `ok`: every chunk matches its hash and belongs to this sweep, and no cell has two results; `problems`: further findings,
      in sentences.
    - `path`, `schema`, `study`, `verified` (false for stores of earlier versions, whose chunks have no hash).
    - `chunks`, `rows`: the numbers that match; `damaged`, `foreign`: names with reasons; `set_aside`: names in `damaged/`.
    - `origins`: a list of `device`, `kernel`, `jax`, `tsjax`, `source` (a hash of the experiment's code), `x64`, with the
      number of `chunks` and `cells` of each; `coverage`: see `coverage_json`, null if the records are not those of one sweep.

    **Raises:** StoreError if there is no store, or its `sweep.json` cannot be read.
    """
    store = open_store(path)
    content = content_of(store)
    found = store.scan()
    problems, coverage = _problems(store, content, found), None
    if not problems:
        try:
            verified = not store.is_old
            _, coverage = assemble(found, content.plan, content.experiment, verified=verified, where=store.name)
        except StoreError as error:
            problems.append(str(error))
    return {
        "path": store.name,
        "schema": 1 if store.is_old else SCHEMA,
        "study": content.spec.study,
        "verified": not store.is_old,
        "chunks": len(found.tables),
        "rows": sum(table.num_rows for table in found.tables.values()),
        "damaged": dict(sorted(found.damaged.items())),
        "foreign": dict(sorted(found.foreign.items())),
        "set_aside": store.files.names("damaged"),
        "origins": _origins(found),
        "coverage": None if coverage is None else coverage_json(coverage),
        "problems": problems,
        "ok": not (problems or found.damaged or store.is_old),
    }


def _problems(store: Store, content: Content, found: Chunks) -> list[str]:
    """The error with which reading the records fails, if there are chunks of other sweeps."""
    mine = identity_of(content.spec, content.experiment)
    if all(one.identity == mine and one.schema_version == SCHEMA for one in found.manifests.values()):
        return []
    try:
        # Arguments in another order do not make a difference.
        store.read(["cell"])
    except StoreError as error:
        return [str(error)]
    return []


def _origins(found: Chunks) -> list[dict[str, Any]]:
    chunks: Counter[str] = Counter()
    cells: Counter[str] = Counter()
    for manifest in found.manifests.values():
        origin = json.dumps(_origin(manifest))
        chunks[origin] += 1
        cells[origin] += manifest.cells
    return [{**json.loads(one), "chunks": chunks[one], "cells": cells[one]} for one in chunks]


def _origin(manifest: Manifest) -> dict[str, Any]:
    source = hashlib.sha256(json.dumps(manifest.source, sort_keys=True).encode()).hexdigest()[:8]
    return {
        "device": manifest.device,
        "kernel": manifest.kernel,
        "ntk": manifest.ntk,
        "jax": manifest.versions.get("jax", ""),
        "tsjax": manifest.versions.get("tsjax", ""),
        "source": source if manifest.source else "",
        "x64": manifest.x64,
        "size_class": manifest.size_class,
    }


def print_check(content: dict[str, Any], console: Console) -> None:
    """Prints the findings of `check_store`."""
    coverage = content["coverage"]
    text = Text(f"{content['path']}: ", style="bold")
    text.append(f"{plural(content['chunks'], 'chunk')} with {plural(content['rows'], 'record')} ")
    text.append("match their hashes." if content["verified"] else "can be read; without hashes nothing is verified.")
    console.print(text, highlight=False)
    for problem in content["problems"]:
        console.print(marked([problem], "red"), highlight=False)
    for name, what in (("damaged", "Damaged, and left out"), ("foreign", "Not chunks of this sweep, and ignored")):
        files = content[name]
        if files:
            console.print(Text(f"{what} ({plural(len(files), 'file')}):", style="yellow"), highlight=False)
        for file, reason in files.items():
            console.print(Text(f"  {file}\n    {reason}"), soft_wrap=True, highlight=False)
    if content["set_aside"]:
        count = plural(len(content["set_aside"]), "damaged file")
        console.print(
            Text(f"{count} of earlier runs in damaged/; delete it when you have looked at it."), highlight=False
        )
    if content["origins"]:
        _print_origins(content["origins"], console)
    if coverage is not None:
        _print_coverage(coverage, console)
    verdict = Text("everything checks.", style="green") if content["ok"] else Text(_verdict(content), style="bold red")
    console.print(verdict, highlight=False)


def _print_origins(origins: list[dict[str, Any]], console: Console) -> None:
    names = ("device", "kernel", "ntk", "jax", "tsjax", "source", "size_class", "x64", "chunks", "cells")
    usual = {"ntk": f"neural-tangents {neural_tangents.VERSION}", "size_class": "exact", "x64": True}
    # Facts with their usual values are left out.
    shown = [name for name in names if any(origin[name] != usual.get(name) for origin in origins)]
    columns = [(name.replace("_", " "), [str(origin[name]) for origin in origins]) for name in shown]
    console.print(compact_table("Made by", columns), highlight=False)


def _print_coverage(content: dict[str, Any], console: Console) -> None:
    coverage = Coverage(content["cells"], content["done"], repeated=content["repeated"])
    lines = [f"{coverage.sentence[:-1]} of the plan have a record"]
    if content["beyond_plan"]:
        lines.append(f"{plural(content['beyond_plan'], 'recorded cell')} beyond the plan")
    if content["repeated"]:
        lines.append(f"{plural(content['repeated'], 'cell')} run twice, with equal results")
    console.print(Text("; ".join(lines) + "."), highlight=False)
    if content["done"] < content["cells"]:
        console.print(marked(["Run the sweep again to complete it."], "yellow"), highlight=False)
    if content["mixed"]:
        console.print(
            marked([f"{text[:1].upper()}{text[1:]}." for text in content["mixed"]], "yellow"), highlight=False
        )


def _verdict(content: dict[str, Any]) -> str:
    if content["problems"]:
        return "not everything checks: these are not the records of one sweep."
    if content["damaged"]:
        return "not everything checks. Run the sweep again: it sets damaged chunks aside and makes their records anew."
    return "nothing here can be verified: this store was made by an earlier version of tsjax."
