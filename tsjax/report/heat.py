"""Maps over two axes of numbers that a sweep varies together."""

from typing import NamedTuple

import numpy as np

from ..sweep.curve import Curve
from ..sweep.result import Result
from ..sweep.values import labels_of, text_of
from .numbers import label_of, variants, x_is_returned
from .text import shown


class Heat(NamedTuple):
    """One map: `title` says of which curve; `x` (columns,) and `y` (rows,) with their labels; mean values `z` (rows, columns),
    NaN where nothing was measured."""

    title: str
    x_label: str
    y_label: str
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


def heat_maps(result: Result, metric: str) -> list[Heat]:
    """Means of `metric` over x and every other argument of numbers that varies while the rest stays the same; where cells
    return x themselves, over two such arguments, at the largest x."""
    experiment = result.experiment
    numeric = [name for name in variants(result) if all(_is_number(curve.arguments[name]) for curve in result.curves())]
    if x_is_returned(result):
        pairs = [(numeric[0], other) for other in numeric[1:]] if numeric else []
    else:
        pairs = [(experiment.x, other) for other in numeric]
    return [heat for first, second in pairs for heat in _maps(result, metric, first, second)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
    found = []
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
        found.append(Heat(title, label_of(result, first), label_of(result, second), x, y, z))
    return found
