"""The curves of a sweep along any of its axes: the cells of a curve differ only in this axis and the seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..hints import nearest
from .columns import codes_of, compact, distinct, is_number, plain, tables_of
from .curve import Curve
from .description import Description
from .records import failed_cells
from .theory import Theory
from .values import labels_of, name_of_value, text_of


def curves_along(
    records: pd.DataFrame,
    experiment: Description,
    axis: str,
    metrics: Sequence[str],
    theory: Callable[[Mapping[str, Any], np.ndarray], Theory],
) -> list[tuple[Curve, np.ndarray]]:
    """The curves along an axis (an argument, or the experiment's x), with tables of the `metrics`, and the rows of each curve
    in the records. Curves along x also have their theory.

    **Raises:** ValueError for an axis that is not a number.
    """
    if records.empty:
        return []
    if axis not in records or not is_number(records[axis]):
        numbers = [name for name in (*experiment.names, experiment.x) if name in records and is_number(records[name])]
        raise ValueError(f"{axis!r} is not a number along which there are curves.{nearest(axis, sorted(set(numbers)))}")
    names = [name for name in dict.fromkeys([*experiment.names, experiment.x]) if name != axis]
    # x is not an argument if cells return it.
    codes = {name: codes_of(records[name]) for name in names}
    curve_by = None if experiment.curve == axis else experiment.curve
    varying = [name for name in names if name != curve_by and codes[name].max() > 0]
    labels = {name: labels_of(distinct(records[name], codes[name])) for name in varying}
    which = np.zeros(len(records), np.int64)
    for name in names:
        which = compact(which * (int(codes[name].max()) + 1) + codes[name])
    curves = []
    order = np.argsort(which, kind="stable")
    # Sorted stably by curve, the cells of a curve lie together, in the order of the grid.
    for rows in np.split(order, np.flatnonzero(np.diff(which[order])) + 1):
        arguments = {name: plain(records[name].iloc[rows[0]]) for name in names}
        name = experiment.name if curve_by is None else name_of_value(arguments[curve_by])
        extra = ", ".join(f"{key}={labels[key][text_of(arguments[key])]}" for key in varying)
        title = experiment.labels.get(name, name)
        x, seeds, values = tables_of(records.iloc[rows], list(metrics), axis, axis not in experiment.names)
        curve = Curve(
            name=name,
            label=f"{title} ({extra})" if extra else title,
            arguments=arguments,
            x=x,
            seeds=seeds,
            values=values,
            failed=failed_cells(records.iloc[rows], experiment.y[0]),
            theory=theory(arguments, x) if axis == experiment.x else Theory(),
        )
        curves.append((curve, rows))
    return curves
