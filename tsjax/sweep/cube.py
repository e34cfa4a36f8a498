"""Records as an xarray Dataset over the arguments that vary."""

from typing import TYPE_CHECKING

import pandas as pd

from .columns import codes_of, distinct, plain
from .description import Description
from .metrics import TIMES, no_measurement
from .spec import SweepSpec
from .values import labels_of, text_of

if TYPE_CHECKING:
    import xarray


def cube_of(records: pd.DataFrame, experiment: Description, spec: SweepSpec) -> "xarray.Dataset":
    """See `Result.to_xarray`."""
    # pandas imports xarray by itself; imported here, a missing package gives a clear error.
    import xarray

    del xarray
    codes = {name: codes_of(records[name]) for name in experiment.names}
    varying = [name for name in experiment.names if codes[name].max() > 0]
    along = experiment.x
    frame = records.drop(columns=["cell", "device", "jax", "tsjax"], errors="ignore")
    if experiment.returns_x and records.duplicated(["cell", experiment.x]).any():
        along = "entry"
        frame = frame.assign(entry=records.groupby("cell", sort=False).cumcount())
    dims = list(dict.fromkeys([*varying, along, "seed"]))
    constant = {name: plain(records[name].iloc[0]) for name in experiment.names if name not in dims}
    orders = {}
    for name in varying:
        if frame[name].dtype == object:
            labels = labels_of(distinct(records[name], codes[name]))
            frame[name] = [labels[text_of(plain(value))] for value in records[name]]
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            # Words keep the order of the grid; pandas would sort them.
            orders[name] = list(dict.fromkeys(frame[name]))
    # Columns of objects are here numbers that some cells lack.
    for name in [name for name in frame if name not in dims and frame[name].dtype == object]:
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    dataset = frame.drop(columns=list(constant)).set_index(dims).to_xarray().sel(orders)
    for name in TIMES:
        if name in dataset:
            dataset[name].attrs["comment"] = no_measurement(name)
    dataset.attrs = {"claim": spec.claim, "study": spec.study} | {
        name: value if isinstance(value, int | float | str) and not isinstance(value, bool) else text_of(value)
        for name, value in constant.items()
        if value is not None
    }
    return dataset
