"""Asks an experiment what theory says about the curves of a plan."""

from typing import Any

import numpy as np
import pandas as pd

from .experiment import Experiment
from .plan import Plan
from .theory import TheoryTable
from .trace import theory_of
from .values import canonical, hashable, redacted


def predict(experiment: Experiment, plan: Plan, table: TheoryTable, records: pd.DataFrame | None = None) -> TheoryTable:
    """Adds to a table what theory says about every curve of the plan, at its x, unless the table knows it already.

    If cells return x, only the `records` show its values; without them nothing is added. **Raises:** the errors of the theory.
    """
    if experiment.theory is None:
        return table
    curves: dict[str, tuple[dict[str, Any], list[float]]] = {}
    for arguments, _ in plan.combinations:
        curve = {name: hashable(value) for name, value in arguments.items() if name != experiment.x}
        x = [] if experiment.returns_x else [float(arguments[experiment.x])]
        curves.setdefault(canonical(curve), (curve, []))[1].extend(x)
    if experiment.returns_x:
        if records is None or records.empty:
            return table
        along = np.unique(records[experiment.x].dropna().to_numpy(float)).tolist()
        curves = {text: (curve, along) for text, (curve, _) in curves.items()}
    for curve, x in curves.values():
        wanted = sorted(set(x))
        if not table.has(redacted(curve), wanted):
            table.add(redacted(curve), wanted, theory_of(experiment, curve, wanted))
    return table
