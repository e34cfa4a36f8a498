"""Loads the result of a sweep from its store."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import SpecError
from .experiment import Experiment
from .named import no_imports
from .plan import plan_cells
from .records import records_of
from .result import Result
from .spec import find_experiment
from .store import Content, Store, StoreError, open_store
from .theory import Theory, TheoryTable


def load(path: str | Path, experiment: Experiment | None = None) -> Result:
    """The result of a sweep from its store. Only tsjax is imported and called, never code that the store names.

    `experiment` is needed only for stores of earlier versions whose study does not ship with tsjax.

    **Raises:** StoreError if there is no readable store, or its records do not belong to one sweep.
    """
    store = open_store(path)
    content = content_of(store, experiment)
    records, coverage = records_of(store, content.plan, content.experiment)
    theory: Callable[[Mapping[str, Any], np.ndarray], Theory] = content.theory
    if store.is_old and isinstance(content.plan.experiment, Experiment):
        theory = content.plan.experiment.theory_at
    return Result(
        records,
        content.spec,
        content.experiment,
        content.provenance,
        store.path,
        plan=content.plan,
        coverage=coverage,
        theory=theory,
    )


def content_of(store: Store, experiment: Experiment | None = None) -> Content:
    """What a store says about its sweep. A store of an earlier version does not describe its experiment, which must then ship
    with tsjax or be given. **Raises:** StoreError."""
    if not store.is_old:
        return store.content()
    spec = store.spec
    if experiment is None:
        if ":" in spec.study:
            raise StoreError(
                f"{store.name} was made by an earlier version of tsjax, and its study {spec.study!r} is not part of tsjax. "
                "Load it from Python: ts.load(path, experiment)."
            )
        experiment = find_experiment(spec.study)
    try:
        with no_imports():
            plan = plan_cells(spec, experiment)
    except SpecError as error:
        raise StoreError(f"{store.name} was made by an earlier version of tsjax, and cannot be read: {error}") from None
    return Content(spec, experiment.description, plan, TheoryTable(), store.provenance)
