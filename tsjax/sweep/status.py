"""How far a sweep is: read from its store, so it works from any process while others run it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .estimate import seconds_of
from .loading import content_of
from .records import FAILED, read_columns
from .store import open_store
from .values import name_of_value, redacted


def sweep_status(path: str | Path) -> dict[str, Any]:
    """Plain values: `cells`, `done`, `failed` (diverged or singular), `seconds` of compute, `seconds_left` (of the devices
    that made the records, compilation not included; None while some curve has no record), `damaged` and `foreign` files among
    the chunks, whether they are `verified`, `curves`, a list of the same counts per curve, and `failures`, why cells of a black
    box failed, with the number of cells, the most frequent first. **Raises:** StoreError."""
    store = open_store(path)
    content = content_of(store)
    plan, experiment, spec = content.plan, content.experiment, content.spec
    records, coverage = read_columns(store, plan, ["status", "run_seconds", "failure"])
    done, failed = np.zeros(plan.cells, bool), np.zeros(plan.cells, bool)
    seconds = np.full(plan.cells, np.nan)
    mine = records[records.index < plan.cells]
    if len(mine):
        done[mine.index] = True
        # Of runs that were read from a table nobody knows the seconds.
        seconds[mine.index] = mine["run_seconds"] if "run_seconds" in mine else 0.0
        failed[mine.index] = np.isin(mine["status"], FAILED) if "status" in mine else False
    curves: dict[str, dict[str, Any]] = {}
    for portion in plan.portions:
        name = experiment.name
        if experiment.curve is not None:
            name = name_of_value(portion.static.get(experiment.curve, experiment.name))
        row = curves.setdefault(name, {"curve": name, "cells": 0, "done": 0, "failed": 0})
        row["cells"] += len(portion.places)
        row["done"] += int(done[portion.places].sum())
        row["failed"] += int(failed[portion.places].sum())
    left = 0.0
    for numbers in plan.by_curve():
        alike = [plan.portions[number] for number in numbers]
        missing = [int((~done[one.places]).sum()) for one in alike]
        if any(missing):
            each = seconds_of([one.cost for one in alike], [seconds[one.places] for one in alike])
            left += np.nan if each is None else float(np.dot(missing, each))
    return {
        "path": redacted(str(path)),
        "claim": spec.claim,
        "study": spec.study,
        "cells": plan.cells,
        "done": sum(row["done"] for row in curves.values()),
        "failed": sum(row["failed"] for row in curves.values()),
        "seconds": float(np.nansum(seconds)),
        "seconds_left": None if np.isnan(left) else left,
        "damaged": list(coverage.damaged),
        "foreign": list(coverage.foreign),
        "verified": coverage.verified,
        "beyond_plan": coverage.beyond,
        "notes": list(coverage.mixed),
        "curves": list(curves.values()),
        "failures": _failures(mine["failure"]) if "failure" in mine else {},
    }


def _failures(column: Any) -> dict[str, int]:
    return dict(Counter(text for text in column if isinstance(text, str) and text).most_common())
