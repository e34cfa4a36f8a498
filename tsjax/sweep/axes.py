"""The axes of a grid: lists, ranges, axes that go together, and axes for some cells only."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

RESERVED = ("seeds", "zip", "only")
"""Keys of a grid that are no arguments."""

_SPACINGS = ("step", "factor", "count")


class AxisError(ValueError):
    """An axis that cannot be read."""


def values_of(name: str, axis: Any) -> list:
    """The values of an axis: a list, one value, or a range as a table `{ from, to }` with one of

    - `step`: from, from + step, ... up to `to`;
    - `factor`: from, from * factor, ... up to `to`;
    - `count`: so many values from `from` to `to`, log-spaced.

    Between integers the values are rounded to integers, each one once.
    """
    if isinstance(axis, Mapping):
        return _range(name, axis)
    listed = list(axis) if isinstance(axis, list | tuple | range) else [axis]
    if not listed:
        raise AxisError(f"the axis {name!r} is empty.")
    return listed


def _range(name: str, axis: Mapping[str, Any]) -> list:
    spacing = [key for key in _SPACINGS if key in axis]
    unknown = set(axis) - {"from", "to", *_SPACINGS}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in axis.values())
    if unknown or len(spacing) != 1 or "from" not in axis or "to" not in axis or not numbers:
        raise AxisError(
            f"{name} = {dict(axis)!r}: a range is {{ from = 128, to = 4096, factor = 2 }}, with one of step, factor, count."
        )
    low, high, by = axis["from"], axis["to"], axis[spacing[0]]
    allowed = {
        "step": by > 0,
        "factor": by > 1 and low > 0,
        "count": by >= 2 and low > 0 and isinstance(by, int),
    }[spacing[0]]
    if high < low or not allowed:
        raise AxisError(
            f"{name} = {dict(axis)!r}: a range goes up from `from` to `to`, by step > 0, by factor > 1 from a number > 0, or "
            "in count >= 2 log-spaced values from a number > 0."
        )
    # A last value that roundoff alone would leave out belongs to the range.
    if spacing[0] == "step":
        values = low + by * np.arange(int(np.floor((high - low) / by * (1 + 1e-12))) + 1)
    elif spacing[0] == "factor":
        values = low * float(by) ** np.arange(int(np.floor(np.log(high / low) / np.log(by) + 1e-9)) + 1)
    else:
        values = np.geomspace(low, high, by)
    if isinstance(low, int) and isinstance(high, int) and not (spacing[0] == "step" and isinstance(by, float)):
        return list(dict.fromkeys(int(value) for value in np.rint(values)))
    return [float(value) for value in values]


def product(
    axes: Mapping[str, Any], zips: Sequence[Mapping[str, Any]], only: Sequence[Mapping[str, Any]]
) -> Iterator[dict]:
    """Every combination of the axes; those of one table of `zips` go together, value by value, and those of a table of `only`
    are for the combinations that its `where` picks (a value, or a list of values, for each name), others lacking them."""
    taken = dict.fromkeys(axes, "axis")
    groups = [[{name: value} for value in values_of(name, axis)] for name, axis in axes.items()]
    for table in zips:
        columns = {name: values_of(name, axis) for name, axis in table.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) != 1:
            raise AxisError(f"the axes of one zip table go together, but their lengths are {lengths}.")
        _check_new(columns, taken, "zip")
        groups.append([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    conditional = [({**table}.pop("where", None), {k: v for k, v in table.items() if k != "where"}) for table in only]
    for where, table in conditional:
        if not isinstance(where, Mapping) or not where or not table:
            raise AxisError(
                "a table of only needs where = { NAME = VALUE or [VALUES] } and axes, e.g. restarts = [1, 4]."
            )
        for name in where:
            if name not in taken:
                raise AxisError(f"only: where names {name!r}, which is no axis or fixed argument of this grid.")
        _check_new(table, {name: kind for name, kind in taken.items()}, "only")
    for parts in itertools.product(*groups):
        cell = {name: value for part in parts for name, value in part.items()}
        extra = {}
        for where, table in conditional:
            if all(
                cell[name] in (allowed if isinstance(allowed, list) else [allowed]) for name, allowed in where.items()
            ):
                extra |= table
        for values in itertools.product(*(values_of(name, axis) for name, axis in extra.items())):
            yield cell | dict(zip(extra, values, strict=True))


def _check_new(names: Mapping[str, Any], taken: dict[str, str], kind: str) -> None:
    for name in names:
        if name in taken:
            raise AxisError(f"{name!r} is given twice, as {taken[name]} and in {kind}.")
        if kind == "zip":
            taken[name] = kind
