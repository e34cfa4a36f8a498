"""How far a sweep is: read from its store, so it works from any process while others run it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .estimate import by_curve, measured_seconds
from .records import FAILED, read_columns
from .result import content_of
from .store import open_store
from .values import name_of_value, redacted


def sweep_status(path: str | Path) -> dict[str, Any]:
    """Plain values: `cells`, `done`, `failed` (diverged or singular), `seconds` of compute, `seconds_left` (of the devices
    that made the records, compilation not included; None while some curve has no record), `damaged` and `foreign` files among
    the chunks, whether they are `verified`, and `curves`, a list of the same counts per curve. **Raises:** StoreError."""
    store = open_store(path)
    content = content_of(store)
    plan, experiment, spec = content.plan, content.experiment, content.spec
    table, coverage = read_columns(store, plan, ["cell", "status", "run_seconds"])
    records = table if len(table) else pd.DataFrame({"cell": [], "run_seconds": []})
    done = set(records["cell"])
    failed = set(records.loc[records["status"].isin(FAILED), "cell"]) if "status" in records else set()
    curves: dict[str, dict[str, Any]] = {}
    for group in plan.groups:
        name = experiment.name
        if experiment.curve is not None:
            name = name_of_value(group.static.get(experiment.curve, experiment.name))
        row = curves.setdefault(name, {"curve": name, "cells": 0, "done": 0, "failed": 0})
        ids = {cell.id for cell in group.cells}
        row["cells"] += len(ids)
        row["done"] += len(ids & done)
        row["failed"] += len(ids & failed)
    left = 0.0
    for groups in by_curve(plan):
        missing = [sum(cell.id not in done for cell in group.cells) for group in groups]
        each = measured_seconds(groups, records) if len(records) and any(missing) else None
        left += float(np.dot(missing, each)) if each is not None else np.nan if any(missing) else 0.0
    return {
        "path": redacted(str(path)),
        "claim": spec.claim,
        "study": spec.study,
        "cells": plan.cells,
        "done": sum(row["done"] for row in curves.values()),
        "failed": sum(row["failed"] for row in curves.values()),
        "seconds": float(records["run_seconds"].to_numpy().sum()) if len(records) else 0.0,
        "seconds_left": None if np.isnan(left) else left,
        "damaged": list(coverage.damaged),
        "foreign": list(coverage.foreign),
        "verified": coverage.verified,
        "notes": list(coverage.mixed),
        "curves": list(curves.values()),
    }
