"""The progress of a sweep, read from its store: it works in any process while others run the sweep."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .estimate import seconds_of
from .loading import content_of
from .metrics import TIMES
from .plan import Plan
from .records import failed_rows, read_columns
from .store import open_store
from .values import name_of_value, redacted


def sweep_status(path: str | Path) -> dict[str, Any]:
    """The progress of a sweep as plain values. **Raises:** StoreError. Among them are

    - `cells`, `done`, `failed`: the numbers of cells of the plan, of those with a record, and of those that failed: by their
      status, or because their first y is not finite;
      `beyond_plan`: the number of recorded cells that are not in the plan; `curves`: a list of the first three by curve.
    - `seconds`: the compute that was used. `seconds_left`: an estimate for the devices that made the records, with the
      compilation of programs that have no records yet; None while some unfinished curve has no record to judge by.
    - `damaged`, `foreign`: the files among the chunks that are damaged, or are not chunks. `verified`: whether chunks were
      checked against their hashes. `notes`: sentences about records of different origin.
    - `failures`: the reasons why cells of a black box failed, with the number of cells of each, the most frequent first.
    """
    store = open_store(path)
    content = content_of(store)
    plan, experiment, spec = content.plan, content.experiment, content.spec
    records, coverage = read_columns(store, plan, ["status", *TIMES, "failure", experiment.y[0]])
    done, failed = np.zeros(plan.cells, bool), np.zeros(plan.cells, bool)
    seconds, compiling = np.full((2, plan.cells), np.nan)
    mine = records.loc[records.index < plan.cells]
    if len(mine):
        done[mine.index] = True
        # Runs that were read from a table have no seconds.
        seconds[mine.index] = mine["run_seconds"] if "run_seconds" in mine else 0.0
        compiling[mine.index] = mine["compile_seconds"] if "compile_seconds" in mine else 0.0
        failed[mine.index] = failed_rows(mine, experiment.y[0])
    curves: dict[str, dict[str, Any]] = {}
    for portion in plan.portions:
        name = experiment.name
        if experiment.curve is not None:
            name = name_of_value(portion.static.get(experiment.curve, experiment.name))
        row = curves.setdefault(name, {"curve": name, "cells": 0, "done": 0, "failed": 0})
        row["cells"] += len(portion.places)
        row["done"] += int(done[portion.places].sum())
        row["failed"] += int(failed[portion.places].sum())
    left = _compiling(plan, done, compiling)
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


def _compiling(plan: Plan, done: np.ndarray, seconds: np.ndarray) -> float:
    """Seconds to compile the programs without any cell that is done, at the mean over the others. `seconds` (cells,): the time
    that the program of each cell took, NaN for cells without a record."""
    programs: dict[str, list[int]] = {}
    for number in range(len(plan.portions)):
        programs.setdefault(plan.program_of(number), []).append(number)
    places = [np.concatenate([plan.portions[number].places for number in numbers]) for numbers in programs.values()]
    known = [float(np.nanmax(seconds[mine])) for mine in places if done[mine].any()]
    return (len(places) - len(known)) * float(np.mean(known)) if known else 0.0
