"""The arrays that cells return beside their numbers."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..hints import nearest
from .description import Description
from .values import text_of

if TYPE_CHECKING:
    import xarray


def split(records: pd.DataFrame, experiment: Description) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records without their arrays, and a table of these arrays with the same rows."""
    names = [name for name in experiment.arrays if name in records]
    return records.drop(columns=names) if names else records, pd.DataFrame(records[names])


def stacked(arrays: pd.DataFrame, rows: pd.DataFrame, experiment: Description, name: str) -> "xarray.DataArray":
    """See `Result.arrays`; `rows` are the records of the wanted cells."""
    import xarray

    if name not in experiment.arrays:
        known = (
            f"It returns {', '.join(experiment.arrays)}." if experiment.arrays else "It declares none: arrays={...}."
        )
        raise ValueError(
            f"experiment {experiment.name!r} returns no array {name!r}.{nearest(name, list(experiment.arrays))} {known}"
        )
    values = arrays.loc[rows.index, name] if name in arrays else pd.Series(dtype=object)
    there = [index for index, value in values.items() if isinstance(value, np.ndarray)]
    shapes = sorted({values[index].shape for index in there})
    if len(shapes) > 1:
        raise ValueError(
            f"{name!r} has {len(shapes)} different shapes, {shapes[0]} and {shapes[1]} among them: give a curve on which "
            "it has one."
        )
    axes = experiment.arrays[name]
    content = np.stack([values[index] for index in there]) if there else np.zeros((0,) + (0,) * len(axes))
    kept = rows.loc[there]
    varying = [one for one in experiment.names if kept[one].map(text_of).nunique() > 1]
    coordinates = {one: ("cell", kept[one].to_numpy()) for one in (*varying, "seed")}
    return xarray.DataArray(content, coordinates, ("cell", *axes), name)
