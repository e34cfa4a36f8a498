"""Tables of the page: numbers as they are read, with what they sort by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..rates import Estimate
from ..sweep.result import Result
from .numbers import (
    LastPoint,
    Number,
    counts_of,
    decimals,
    digits,
    errors_note,
    failed_of,
    label_of,
    last_point,
    mean_with_error,
    ratio_with_interval,
    short,
    warnings_of,
)
from .rivals import compare, crossing_text, reference_of


class Cell(NamedTuple):
    """A cell of a table: its text, and what it sorts by, a number or a text; an empty `key` sorts last."""

    text: str
    key: str


@dataclass
class Grid:
    """A table: its title, headings, rows of cells (the first of each is the row's heading), and what to know of it."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""


def rates_grid(result: Result) -> Grid | None:
    """Exponents with intervals, local exponents, theory, diagnostics and verdicts; None when no curve has an exponent."""
    rates, x = result.rates(), result.experiment.x
    if bool(np.isnan(rates["exponent"].to_numpy(float)).all()):
        return None
    warnings = warnings_of(result)
    columns = (
        "curve", "exponent", "95 % interval", "theory", f"{x} → ∞", "local exponents", "power law, p",
        "window", "seeds", "failed", "warnings", "verdict",
    )  # fmt: skip
    rows = []
    for curve, row in zip(result.curves(), rates.to_dict("records"), strict=True):
        try:
            rate = result.rate(curve)
        except ValueError:  # Too few points; the warnings say so.
            rate = None
        slopes = [] if rate is None else rate.local_slopes.tolist()
        told = sum(other is curve for other, _ in warnings)
        rows.append(
            [
                _text(curve.label),
                _number(row["exponent"], decimals(row["exponent"])),
                _interval(row["low"], row["high"]),
                _number(row["predicted"], decimals(row["predicted"])),
                _number(row["asymptote"], decimals(row["asymptote"])),
                _number(slopes[-1], f"{slopes[0]:.2f} to {slopes[-1]:.2f}") if len(slopes) > 1 else _NOTHING,
                _NOTHING if rate is None else _number(rate.goodness, digits(rate.goodness, 2)),
                _number(row["x_max"], f"{x} = {short(row['x_min'])}..{short(row['x_max'])}"),
                _number(row["seeds"], str(row["seeds"])),
                _number(failed_of(result, curve), str(failed_of(result, curve))),
                _number(told, str(told) if told else ""),
                _text(row["verdict"]),
            ]
        )
    notes = [f"Exponents a in {result.experiment.y[0]} ~ {x}^(-a), fitted to the means over seeds."]
    grid = _without_empty(Grid(f"Rates of {label_of(result, result.experiment.y[0])}", list(columns), rows))
    shared = [_taken_out(grid, "window"), _taken_out(grid, "seeds")]
    told = [text for text in (shared[0], shared[1] and f"{shared[1]} seeds") if text]
    if told:
        notes.append(f"All curves: {', '.join(told)}.")
    if "theory" in grid.columns:
        notes.append("Theory is the exponent of the predicted curve over the same window.")
    if f"{x} → ∞" in grid.columns:
        notes.append(f"{x} → ∞ is theory's exponent in the limit.")
    if "local exponents" in grid.columns:
        notes.append("Local exponents: between the first two and the last two.")
    if "power law, p" in grid.columns:
        notes.append("A small p speaks against one power law over the whole window.")
    if errors_note(rates):
        note = errors_note(rates)
        notes.append(f"{note[0].upper()}{note[1:]}.")
    grid.note = " ".join(notes)
    return grid


def last_grid(result: Result) -> Grid:
    """The first y at the largest x."""
    x, points = result.experiment.x, [last_point(result, curve) for curve in result.curves()]
    same = len({point.x for point in points}) == 1
    columns = ["curve", x, "mean ± s.e.", "median", "seeds", "mean / Cramér-Rao limit"]
    rows = [_last(point, same) for point in points]
    where = f"{x} = {short(points[0].x)}" if same else f"the largest {x}"
    title = f"{label_of(result, result.experiment.y[0])} at {where}"
    grid = _without_empty(Grid(title[:1].upper() + title[1:], columns, rows))
    if "mean / Cramér-Rao limit" in grid.columns:
        grid.note = "Ratios with 95 % intervals."
    return grid


def _last(point: LastPoint, same: bool) -> list[Cell]:
    return [
        _text(point.curve.label),
        _NOTHING if same else _number(point.x, short(point.x)),
        _number(point.mean, mean_with_error(point.mean, point.se)),
        _number(point.median, digits(point.median)),
        _number(point.seeds, str(point.seeds)),
        _ratio(point.to_limit),
    ]


def crossing_grid(result: Result) -> Grid | None:
    """Where every curve overtakes the reference for good, and by how much at the end."""
    found, reference, x = compare(result), reference_of(result), result.experiment.x
    if not found or reference is None:
        return None
    name = label_of(result, reference)
    rows = []
    for one in found:
        crossing = crossing_text(one.crossing, x)
        rows.append(
            [
                _text(one.curve.label),
                _ratio(one.ratio),
                _number(one.x, short(one.x)),
                _NOTHING if one.crossing is None else _number(one.crossing.value, crossing),
            ]
        )
    columns = ["curve", "ratio of means", f"at {x}", f"crossing: below from {x} on"]
    note = (
        f"Relative to the {name}, on the same seeds, with 95 % intervals. The crossing is the {x} from which on the mean stays "
        "below, between the measured ones by interpolation of logarithms."
    )
    return Grid(f"Against the {name}", columns, rows, note)


def cells_grid(result: Result) -> Grid:
    """How the cells of every curve ended."""
    counts = [counts_of(result, curve) for curve in result.curves()]
    names = list(dict.fromkeys(name for count in counts for name in count))
    rows = [
        [
            _text(curve.label),
            *(_number(n, str(n)) for n in (sum(count.values()), *(count.get(name, 0) for name in names))),
        ]
        for curve, count in zip(result.curves(), counts, strict=True)
    ]
    note = "Cells that diverged or were singular are counted, and are in no mean."
    return Grid("How the cells ended", ["curve", "cells", *names], rows, note)


_NOTHING = Cell("–", "")


def _text(text: str) -> Cell:
    return Cell(text, text)


def _number(value: Number, text: str) -> Cell:
    # As JavaScript writes it.
    return Cell(text, "" if np.isnan(value) else repr(float(value)).replace("inf", "Infinity"))


def _ratio(estimate: Estimate | None) -> Cell:
    return _NOTHING if estimate is None else _number(estimate.value, ratio_with_interval(estimate))


def _interval(low: Number, high: Number) -> Cell:
    if np.isnan(low) or np.isnan(high):
        return _NOTHING
    places = 3 if high - low < 0.02 else 2
    return _number(low, f"{low:.{places}f} to {high:.{places}f}".replace("inf", "∞"))


def _without_empty(grid: Grid) -> Grid:
    """Columns that say something in at least one row."""
    said: Sequence[Any] = [
        i for i in range(len(grid.columns)) if any(row[i].text not in ("", "–") for row in grid.rows)
    ]
    return Grid(grid.title, [grid.columns[i] for i in said], [[row[i] for i in said] for row in grid.rows], grid.note)


def _taken_out(grid: Grid, name: str) -> str:
    """The text of a column that is the same in all rows, two or more, which is then taken out; else empty."""
    i = grid.columns.index(name)
    texts = {row[i].text for row in grid.rows}
    if len(texts) > 1 or len(grid.rows) < 2:
        return ""
    grid.columns.pop(i)
    for row in grid.rows:
        row.pop(i)
    return texts.pop()
