"""Maps over two numerical axes that a sweep varies together."""

from typing import NamedTuple

import numpy as np

from ..sweep.curve import Curve
from ..sweep.result import Result
from ..sweep.values import labels_of, text_of
from .numbers import SUCCESS, label_of, variants, x_is_returned
from .places import is_number
from .text import shown


class Heat(NamedTuple):
    """One map: `name` for files, and the two arguments that are its `axes`; `title` names the curve; `x` (columns,) and `y`
    (rows,) with their labels; mean values `z` (rows, columns), NaN where nothing was measured, with their label, `z_label`."""

    name: str
    axes: tuple[str, str]
    title: str
    x_label: str
    y_label: str
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    z_label: str

    @property
    def heading(self) -> str:
        """A heading that says what is shown, for which curve, and over which axes."""
        parts = (self.z_label, self.title, f"over {self.x_label} and {self.y_label}")
        return ", ".join(part for part in parts if part)

    @property
    def decades(self) -> tuple[bool, np.ndarray]:
        """Whether colours are logarithmic, as they are for positive values that span a factor of 8, and the values at ticks."""
        known = self.z[np.isfinite(self.z)]
        if not known.size or known.min() <= 0 or known.max() < 8 * known.min():
            return False, np.zeros(0)
        decades = 10.0 ** np.arange(np.floor(np.log10(known.min())), np.ceil(np.log10(known.max())) + 1)
        ticks = np.outer(decades, [1, 2, 5] if len(decades) < 5 else [1]).ravel()
        return True, ticks[(ticks >= known.min()) & (ticks <= known.max())]


def all_maps(result: Result) -> list[Heat]:
    """Maps of the first y and of successes."""
    metrics = dict.fromkeys([result.experiment.y[0], *(y for y in result.experiment.y if y == SUCCESS)])
    return [heat for metric in metrics for heat in heat_maps(result, metric)]


def heat_maps(result: Result, metric: str) -> list[Heat]:
    """Means of `metric` over x and every other numerical argument that varies while the rest stays fixed. If cells return x
    themselves, maps are over two such arguments, at the largest x."""
    experiment = result.experiment
    numeric = [name for name in variants(result) if all(is_number(curve.arguments[name]) for curve in result.curves())]
    if x_is_returned(result):
        pairs = [(numeric[0], other) for other in numeric[1:]] if numeric else []
    else:
        pairs = [(experiment.x, other) for other in numeric]
    return [heat for first, second in pairs for heat in _maps(result, metric, first, second)]


def _maps(result: Result, metric: str, first: str, second: str) -> list[Heat]:
    along = first == result.experiment.x
    fixed = [name for name in [result.experiment.curve, *variants(result)] if name not in (None, first, second)]
    groups: dict[str, list[Curve]] = {}
    names = [name for name in fixed if name is not None]
    labels = {name: labels_of(curve.arguments[name] for curve in result.curves()) for name in names}
    for curve in result.curves():
        parts = [
            label_of(result, curve.name)
            if name == result.experiment.curve
            else f"{label_of(result, name)} = {shown(labels[name][text_of(curve.arguments[name])])}"
            for name in names
        ]
        groups.setdefault(", ".join(parts), []).append(curve)
    found, z_label = [], label_of(result, metric)
    for title, curves in groups.items():
        y = np.unique([curve.arguments[second] for curve in curves]).astype(float)
        own = [curve.x if along else np.array([float(curve.arguments[first])]) for curve in curves]
        x = np.unique(np.concatenate(own))
        if len(x) < 2 or len(y) < 2:
            continue
        z = np.full((len(y), len(x)), np.nan)
        for curve, at in zip(curves, own, strict=True):
            table = curve.values[metric] if along else curve.values[metric][-1:]
            there = np.isfinite(table).sum(axis=1)
            means = np.where(there, np.nansum(table, axis=1) / np.maximum(there, 1), np.nan)
            z[np.searchsorted(y, curve.arguments[second]), np.searchsorted(x, at)] = means
        name = "_".join(
            [metric, "over", first, "and", second, *([title.replace(" = ", "_")] if len(groups) > 1 else [])]
        )
        labels_xy = label_of(result, first), label_of(result, second)
        found.append(Heat(name, (first, second), title, *labels_xy, x, y, z, z_label))
    return found
