"""One curve of a sweep."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from .theory import Theory
from .values import within


@dataclass(frozen=True)
class Curve:
    """One curve of a sweep: the cells that differ in x and seed alone.

    - `name`: the value of the experiment's curve argument; `label` also states the other arguments that vary in the sweep.
    - `arguments`: all arguments but x. `x` (k,) increasing, `seeds` (s,).
    - `values`: for each y of the experiment the table (k, s), NaN where a cell failed or was not run.
    - `failed`: number of cells that diverged, were singular, or returned no finite number.
    - `theory`: what theory says at x.
    """

    name: str
    label: str
    arguments: dict[str, Any]
    x: np.ndarray
    seeds: np.ndarray
    values: dict[str, np.ndarray]
    failed: int
    theory: Theory

    def between(self, low: float, high: float) -> "Curve":
        """The part with low <= x <= high."""
        return self.rows(np.flatnonzero(within(self.x, low, high)))

    def rows(self, keep: np.ndarray) -> "Curve":
        """The part at some of its x, by indices."""
        predicted = None if self.theory.predicted is None else self.theory.predicted[keep]
        values = {name: table[keep] for name, table in self.values.items()}
        return dataclasses.replace(
            self, x=self.x[keep], values=values, theory=self.theory._replace(predicted=predicted)
        )

    def measured(self, metric: str) -> "Curve":
        """The part at the x where at least one seed has a `metric`."""
        return self.rows(np.flatnonzero(~np.isnan(self.values[metric]).all(axis=1)))
