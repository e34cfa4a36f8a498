"""The axes of a grid: lists, ranges, axes that go together, and axes for some cells only.

Ranges are computed in decimal arithmetic, from the numbers as they are written: from 0.1 to 0.3 by 0.1 ends at 0.3, the number
that a list would hold, and no value depends on the C library of a machine.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Any

from .errors import shown

RESERVED = ("seeds", "zip", "only")
"""Keys of a grid that are not arguments."""

MOST_CELLS = 10**7
"""The most cells that one sweep may have. Each takes memory before it runs, and more as a record."""

_SPACINGS = ("step", "factor", "count")
# Decimal digits of the computation, and those that a log-spaced value keeps: fewer than a double has, so that rounding never
# shows in them.
_COMPUTED, _KEPT = Context(prec=50), Context(prec=15)
# A last value whose relative distance from `to` is at most this counts as `to`: 1.4142135623730951**2 is 2.
_ROUNDOFF = Decimal("1e-12")

IsValue = Callable[[str, Any], bool]
"""Whether a list is one value of the argument of that name (such as the widths of a network's layers) rather than an axis."""


class AxisError(ValueError):
    """An axis that cannot be read."""


def _never(name: str, value: Any) -> bool:
    return False


def values_of(name: str, axis: Any, is_value: IsValue = _never) -> list:
    """The values of an axis: a list, one value, or a range as a table `{ from, to }` with one of

    - `step`: from, from + step, ... up to `to`;
    - `factor`: from, from * factor, ... up to `to`;
    - `count`: that many log-spaced values from `from` to `to`, rounded to 15 significant digits.

    If `from` and `to` are integers, and `step` is one too, the values are rounded to integers, without repetitions.

    **Raises:** AxisError for an empty list or a range that cannot be read.
    """
    if is_value(name, axis):
        return [axis]
    if isinstance(axis, Mapping):
        return _Range.read(name, axis).values()
    listed = list(axis) if isinstance(axis, list | tuple | range) else [axis]
    if not listed:
        raise AxisError(f"the axis {name!r} is empty.")
    return listed


def count_of(name: str, axis: Any, is_value: IsValue = _never) -> int:
    """An upper bound on the number of values of an axis, which are not made."""
    if is_value(name, axis):
        return 1
    if isinstance(axis, Mapping):
        return _Range.read(name, axis).count
    return len(axis) if isinstance(axis, list | tuple | range) else 1


@dataclass(frozen=True)
class _Range:
    low: Decimal
    high: Decimal
    by: Decimal
    spacing: str
    whole: bool
    count: int

    @staticmethod
    def read(name: str, axis: Mapping[str, Any]) -> "_Range":
        spacing = [key for key in _SPACINGS if key in axis]
        unknown = set(axis) - {"from", "to", *_SPACINGS}
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in axis.values())
        if unknown or len(spacing) != 1 or "from" not in axis or "to" not in axis or not numbers:
            raise AxisError(
                f"{name} = {shown(dict(axis))}: a range is {{ from = 128, to = 4096, factor = 2 }}, with one of step, factor, "
                "count."
            )
        for key, value in axis.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise AxisError(
                    f"{name} = {shown(dict(axis))}: {key} = {value} is not finite; a range has two ends and its {spacing[0]}, "
                    "all of them numbers."
                )
        by = axis[spacing[0]]
        # repr gives the number as it is written: the shortest decimal that is this double.
        low, high, step = (Decimal(repr(value)) for value in (axis["from"], axis["to"], by))
        allowed = {
            "step": step > 0,
            "factor": step > 1 and low > 0,
            "count": step >= 2 and low > 0 and isinstance(by, int),
        }[spacing[0]]
        if high < low or not allowed:
            raise AxisError(
                f"{name} = {shown(dict(axis))}: a range goes up from `from` to `to`, by step > 0, by factor > 1 from a number "
                "> 0, or in count >= 2 log-spaced values from a number > 0."
            )
        with localcontext(_COMPUTED):
            if spacing[0] == "count":
                count = int(by)
            else:
                last = (high - low) / step if spacing[0] == "step" else (high / low).ln() / step.ln()
                count = int(last * (1 + _ROUNDOFF)) + 1
        if count > MOST_CELLS:
            raise AxisError(
                f"{name} = {shown(dict(axis))}: that is {_said(count)} values, and a sweep has at most {_said(MOST_CELLS)} "
                "cells. Take a larger step or factor, or a smaller count."
            )
        whole = isinstance(axis["from"], int) and isinstance(axis["to"], int)
        whole = whole and not (spacing[0] == "step" and isinstance(by, float))
        return _Range(low, high, step, spacing[0], whole, count)

    def values(self) -> list:
        with localcontext(_COMPUTED):
            if self.spacing == "step":
                found = [self.low + self.by * i for i in range(self.count)]
            elif self.spacing == "factor":
                powers = itertools.accumulate(
                    itertools.repeat(self.by, self.count - 1), lambda a, b: a * b, initial=self.low
                )
                found = list(powers)
            else:
                start, end = self.low.ln(), self.high.ln()
                inner = ((start + (end - start) * i / (self.count - 1)).exp() for i in range(1, self.count - 1))
                found = [self.low, *(_KEPT.plus(value) for value in inner), self.high]
            if found[-1] > self.high or abs(found[-1] - self.high) <= _ROUNDOFF * abs(self.high):
                found[-1] = self.high
            if self.whole:
                return list(dict.fromkeys(int(value.to_integral_value()) for value in found))
        return [float(value) for value in found]


def _said(count: int) -> str:
    """A count in a message."""
    return f"{count:,}" if count < 10**15 else f"about 10^{math.log10(count):.0f}"


def check_count(cells: int, where: str = "") -> None:
    """Raises AxisError for more cells than a sweep may have."""
    if cells > MOST_CELLS:
        raise AxisError(
            f"{where}this sweep has {_said(cells)} cells or more (combinations times seeds), and at most {_said(MOST_CELLS)} "
            "are allowed: take fewer seeds or values, or split it into sweeps with stores of their own."
        )


def same(a: Any, b: Any) -> bool:
    """Whether two values of an argument are the same. Numbers of different types are compared by value, but a truth value
    never equals a number."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def count_cells(axes: Mapping[str, Any], zips: Sequence[Mapping[str, Any]], is_value: IsValue = _never) -> int:
    """An upper bound on the number of combinations of `product` without the axes of `only`; none of them is made."""
    lengths = [count_of(name, axis, is_value) for name, axis in axes.items()]
    lengths += [min(count_of(name, axis, is_value) for name, axis in table.items()) for table in zips if table]
    return math.prod(lengths)


def product(
    axes: Mapping[str, Any],
    zips: Sequence[Mapping[str, Any]],
    only: Sequence[Mapping[str, Any]],
    is_value: IsValue = _never,
) -> Iterator[dict]:
    """Every combination of the axes. The axes of one table of `zips` go together, value by value. The axes of a table of `only`
    apply to the combinations that its `where` picks, by a value or a list of values for each name; others do not have them.

    **Raises:** AxisError for axes that are given twice, that have different lengths in one table of `zips`, or that a `where`
    gives to no combination."""
    taken = dict.fromkeys(axes, "axis")
    columns = {name: values_of(name, axis, is_value) for name, axis in axes.items()}
    groups = [[{name: value} for value in values] for name, values in columns.items()]
    for table in zips:
        together = {name: values_of(name, axis, is_value) for name, axis in table.items()}
        lengths = {name: len(values) for name, values in together.items()}
        if len(set(lengths.values())) != 1:
            raise AxisError(f"the axes of one zip table go together, but their lengths are {lengths}.")
        _check_new(together, taken, "zip")
        columns |= together
        groups.append([dict(zip(together, row, strict=True)) for row in zip(*together.values(), strict=True)])
    conditional = [_conditional(table, columns, taken, is_value) for table in only]
    unused = list(range(len(conditional)))
    for parts in itertools.product(*groups):
        cell = {name: value for part in parts for name, value in part.items()}
        extra = {}
        for number, (where, table) in enumerate(conditional):
            if all(any(same(cell[name], value) for value in allowed) for name, allowed in where.items()):
                extra |= table
                if number in unused:
                    unused.remove(number)
        for values in itertools.product(*extra.values()):
            yield cell | dict(zip(extra, values, strict=True))
    if unused:
        raise AxisError(
            f"only: where = {shown(only[unused[0]]['where'])} picks no cell: no combination of this grid has these "
            "values together."
        )


def _conditional(
    table: Mapping[str, Any], columns: Mapping[str, list], taken: Mapping[str, str], is_value: IsValue
) -> tuple[dict[str, list], dict[str, list]]:
    """The values that `where` of a table of `only` allows for each name, and the values of the table's axes."""
    where, axes = table.get("where"), {name: axis for name, axis in table.items() if name != "where"}
    if not isinstance(where, Mapping) or not where or not axes:
        raise AxisError("a table of only needs where = { NAME = VALUE or [VALUES] } and axes, e.g. restarts = [1, 4].")
    allowed = {}
    for name, value in where.items():
        if name not in taken:
            raise AxisError(f"only: where names {name!r}, which is neither an axis nor a fixed argument of this grid.")
        allowed[name] = value if isinstance(value, list | tuple) and not is_value(name, value) else [value]
        for one in allowed[name]:
            if not any(same(one, other) for other in columns[name]):
                raise AxisError(
                    f"only: where = {shown(dict(where))}: no cell of this grid has {name} = {shown(one)}; its values are "
                    f"{shown(columns[name])}."
                )
    _check_new(axes, dict(taken), "only")
    return allowed, {name: values_of(name, axis, is_value) for name, axis in axes.items()}


def _check_new(names: Mapping[str, Any], taken: dict[str, str], kind: str) -> None:
    for name in names:
        if name in taken:
            raise AxisError(f"{name!r} is given twice, as {taken[name]} and in {kind}.")
        if kind == "zip":
            taken[name] = kind
