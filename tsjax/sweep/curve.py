"""One curve of a sweep."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from .theory import Theory
from .values import within


@dataclass(frozen=True)
class Curve:
    """One curve of a sweep: the cells that differ only in x and seed.

    - `name`: the value of the experiment's curve argument; `label` also states the other arguments that vary in the sweep.
    - `arguments`: all arguments except x. `x` (k,), increasing; `seeds` (s,).
    - `values`: for each y of the experiment a table (k, s), NaN if a cell failed or was not run.
    - `failed`: the number of cells that diverged, were singular, or did not return a finite number.
    - `theory`: the `Theory` of the curve at x.
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
        """The part at some of its x, given by their indices."""
        predicted = None if self.theory.predicted is None else self.theory.predicted[keep]
        values = {name: table[keep] for name, table in self.values.items()}
        return dataclasses.replace(
            self, x=self.x[keep], values=values, theory=self.theory._replace(predicted=predicted)
        )

    def measured(self, metric: str) -> "Curve":
        """The part at those x at which at least one seed has a value of `metric`."""
        return self.rows(np.flatnonzero(~np.isnan(self.values[metric]).all(axis=1)))
