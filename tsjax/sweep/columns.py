"""Columns of records as numbers: codes of equal values, tables of one curve, and which columns hold truth values."""

from typing import Any

import numpy as np
import pandas as pd

from .table import WHOLE, numbers
from .values import text_of


def plain(value: Any) -> Any:
    """A NumPy scalar as a Python number."""
    return value.item() if isinstance(value, np.generic) else value


def compact(codes: np.ndarray) -> np.ndarray:
    """The codes renumbered from 0, in the order in which they first appear."""
    return pd.factorize(codes)[0]


def codes_of(column: Any) -> np.ndarray:
    """A code for every row, equal for equal values of the same type: 1, 1.0 and True have different codes."""
    if column.dtype != object:
        return pd.factorize(column, use_na_sentinel=False)[0]
    # There are few different objects in many rows, so each is written as text only once.
    objects, places = np.unique(np.fromiter(map(id, column), np.int64, len(column)), return_inverse=True)
    first = np.full(len(objects), len(column))
    np.minimum.at(first, places, np.arange(len(column)))
    texts = np.array([text_of(plain(column.iloc[at])) for at in first])
    return pd.factorize(texts[places])[0]


def distinct(column: Any, codes: np.ndarray) -> list[Any]:
    """The distinct values of a column, in the order of the rows."""
    _, first = np.unique(codes, return_index=True)
    return [plain(value) for value in column.iloc[np.sort(first)]]


def is_number(column: Any) -> bool:
    """Whether a column holds only numbers."""
    if column.dtype == object:
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def tables_of(
    rows: pd.DataFrame, metrics: list[str], axis: str, repeats: bool
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """x (k,), seeds (s,) and a table (k, s) of each metric, from the records of one curve along an axis. `repeats` says whether
    a cell may have several rows with the same x, as the vectors that cells return may.

    **Raises:** ValueError for several values of one x and seed."""
    every_seed = np.unique(rows["seed"].to_numpy(np.int64))
    # A black-box cell that failed has returned no x.
    rows = rows.loc[rows[axis].notna()]
    along, seeds = rows[axis].to_numpy(float), rows["seed"].to_numpy(np.int64)
    places = np.zeros(len(rows), np.int64)
    if repeats:
        # If a vector has the same x twice, both entries stay.
        places = rows.groupby(["cell", axis], sort=False).cumcount().to_numpy()
    seeds, j = every_seed, np.searchsorted(every_seed, seeds)
    x, i = np.unique(along, return_inverse=True)
    if places.any():
        keys, i = np.unique(np.stack([along, places], axis=1), axis=0, return_inverse=True)
        x, i = keys[:, 0], i.reshape(-1)
    if np.bincount(i * len(seeds) + j).max(initial=0) > 1:
        raise ValueError(
            f"the records hold several values for one {axis} and seed of one curve: they are not those of one sweep."
        )
    values = {}
    for name in metrics:
        values[name] = np.full((len(x), len(seeds)), np.nan)
        values[name][i, j] = numbers(rows[name])
    return x, seeds, values


def holds_truth(records: pd.DataFrame, column: str) -> bool:
    """Whether a column holds truth values, or integers that are all 0 or 1, so that its mean is a share of seeds.
    Floating-point numbers are never truth values, even if all are 0 or 1: an accuracy may be exactly 1 at every seed."""
    if column not in records:
        return False
    kind = records[column].dtype
    if column not in records.attrs.get(WHOLE, ()) and not (
        pd.api.types.is_bool_dtype(kind) or pd.api.types.is_integer_dtype(kind)
    ):
        return False
    values = numbers(records[column])
    values = values[~np.isnan(values)]
    return values.size > 0 and bool(np.isin(values, (0.0, 1.0)).all())
