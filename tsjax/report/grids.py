"""Tables of the page: numbers as text, with the values by which they are sorted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..rates import Estimate
from ..rates.checks import together
from ..sweep.result import Result
from .comparison import compare, crossing_text, reference_of
from .numbers import (
    LastPoint,
    Number,
    at,
    counts_of,
    decimals,
    digits,
    errors_note,
    failed_of,
    full_name,
    label_of,
    last_point,
    mean_with_error,
    over,
    ratio_with_interval,
    short,
    shows_rate,
    the,
    warnings_of,
)


class Cell(NamedTuple):
    """A cell of a table: its `text`, and the `key` by which it is sorted, a number or text; an empty `key` sorts last."""

    text: str
    key: str


@dataclass
class Grid:
    """A table: its title, headings, rows of cells (the first cell is the row's heading), and a note."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""


def rates_grid(result: Result) -> Grid | None:
    """Exponents with intervals, local exponents, theory, diagnostics and verdicts, for the curves for which reports have
    exponents; None if there are none."""
    shown = [shows_rate(result, curve) for curve in result.curves()]
    rates = result.rates().iloc[np.flatnonzero(shown)]
    if bool(np.isnan(rates["exponent"].to_numpy(float)).all()):
        return None
    warnings = warnings_of(result)
    columns = (
        "curve", "exponent", "95 % interval", "theory", "theory's limit", "local exponents", "power law, p",
        "window", "seeds", "failed", "warnings", "verdict",
    )  # fmt: skip
    rows = []
    curves = [curve for curve, kept in zip(result.curves(), shown, strict=True) if kept]
    for curve, row in zip(curves, rates.to_dict("records"), strict=True):
        try:
            rate = result.rate(result.claimed(curve))
        except ValueError:  # Too few points; the warnings say so.
            rate = None
        slopes = [] if rate is None else rate.local_slopes.tolist()
        warned = sum(any(other is curve for other in others) for others, _ in warnings)
        exponent, low, high = (row[name] for name in ("exponent", "low", "high"))
        value, *ends = ("–",) * 3 if np.isnan(exponent) else together(exponent, low, high)
        window = over(result, row["x_min"], row["x_max"])
        rows.append(
            [
                _text(full_name(result, curve)),
                _number(exponent, value),
                _number(low, f"{ends[0]} to {ends[1]}".replace("inf", "∞")) if not np.isnan(low) else _NOTHING,
                _number(row["predicted"], decimals(row["predicted"])),
                _number(row["asymptote"], decimals(row["asymptote"])),
                _number(slopes[-1], f"{slopes[0]:z.2f} to {slopes[-1]:z.2f}") if len(slopes) > 1 else _NOTHING,
                _NOTHING if rate is None else _number(rate.goodness, digits(rate.goodness, 2)),
                _number(row["x_max"], window),
                _number(row["seeds"], str(row["seeds"])),
                _number(failed_of(result, curve), str(failed_of(result, curve))),
                _number(warned, str(warned) if warned else ""),
                _text(row["verdict"]),
            ]
        )
    y, x = label_of(result, result.experiment.y[0]), label_of(result, result.experiment.x)
    notes = [f"Exponents a where the mean {y} falls like {x} to the power -a, fitted to the means over seeds."]
    grid = _without_empty(Grid(f"Exponents of {y}", list(columns), rows))
    shared = [_taken_out(grid, "window"), _taken_out(grid, "seeds")]
    common = [text for text in (shared[0], shared[1] and f"{shared[1]} seeds") if text]
    if common:
        notes.append(f"All curves: {', '.join(common)}.")
    if "window" in grid.columns:
        notes.append("The window is the one that an expectation names, else all that was measured.")
    if "theory" in grid.columns:
        notes.append("Theory is the exponent of the predicted curve over the same window.")
    if "theory's limit" in grid.columns:
        notes.append("Theory's limit is the exponent at infinity.")
    if "local exponents" in grid.columns:
        notes.append("Local exponents: between the first two and the last two.")
    if "power law, p" in grid.columns:
        notes.append("A small p speaks against one power law over the whole window.")
    if "verdict" in grid.columns:
        notes.append("The verdict is on the exponent of the row.")
    if errors_note(rates):
        note = errors_note(rates)
        notes.append(f"{note[0].upper()}{note[1:]}.")
    grid.note = " ".join(notes)
    return grid


def last_grid(result: Result) -> Grid:
    """The first y at the largest x."""
    x, points = label_of(result, result.experiment.x), [last_point(result, curve) for curve in result.curves()]
    same = len({point.x for point in points}) == 1
    columns = ["curve", x, "mean ± s.e.", "median", "seeds", "mean / Cramér-Rao limit"]
    rows = [_last(result, point, same) for point in points]
    where = at(result, points[0].x) if same else f"the largest {x}"
    title = f"{label_of(result, result.experiment.y[0])} at {where}"
    grid = _without_empty(Grid(title[:1].upper() + title[1:], columns, rows))
    if "mean / Cramér-Rao limit" in grid.columns:
        grid.note = "Ratios with 95 % intervals."
    return grid


def _last(result: Result, point: LastPoint, same: bool) -> list[Cell]:
    return [
        _text(full_name(result, point.curve)),
        _NOTHING if same else _number(point.x, short(point.x)),
        _number(point.mean, mean_with_error(point.mean, point.se)),
        _number(point.median, digits(point.median)),
        _number(point.seeds, str(point.seeds)),
        _ratio(point.to_limit),
    ]


def crossing_grid(result: Result) -> Grid | None:
    """The x from which on every curve stays below the reference, and the ratio of means at the largest x."""
    found, reference, x = compare(result), reference_of(result), label_of(result, result.experiment.x)
    if not found or reference is None:
        return None
    name = label_of(result, reference)
    rows = []
    for one in found:
        crossing = crossing_text(one.crossing, x)
        rows.append(
            [
                _text(full_name(result, one.curve)),
                _ratio(one.ratio),
                _number(one.x, short(one.x)),
                _NOTHING if one.crossing is None else _number(one.crossing.value, crossing),
            ]
        )
    columns = ["curve", "ratio of means", f"at {x}", "crossing: below from"]
    note = (
        f"Relative to {the(name)}, on the same seeds, with 95 % intervals. The crossing is the {x} from which on the mean "
        "stays below, between the measured ones by interpolation of logarithms."
    )
    return Grid(f"Against {the(name)}", columns, rows, note)


def cells_grid(result: Result) -> Grid:
    """How the cells of every curve ended."""
    counts = [counts_of(result, curve) for curve in result.curves()]
    names = list(dict.fromkeys(name for count in counts for name in count))
    rows = [
        [
            _text(full_name(result, curve)),
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
    # The key is written as JavaScript writes numbers.
    return Cell(text, "" if np.isnan(value) else repr(float(value)).replace("inf", "Infinity"))


def _ratio(estimate: Estimate | None) -> Cell:
    return _NOTHING if estimate is None else _number(estimate.value, ratio_with_interval(estimate))


def _without_empty(grid: Grid) -> Grid:
    """The table without columns that are empty in every row."""
    said: Sequence[Any] = [
        i for i in range(len(grid.columns)) if any(row[i].text not in ("", "–") for row in grid.rows)
    ]
    return Grid(grid.title, [grid.columns[i] for i in said], [[row[i] for i in said] for row in grid.rows], grid.note)


def _taken_out(grid: Grid, name: str) -> str:
    """Removes a column whose text is the same in all of at least two rows, and returns that text; otherwise returns an empty
    string."""
    i = grid.columns.index(name)
    texts = {row[i].text for row in grid.rows}
    if len(texts) > 1 or len(grid.rows) < 2:
        return ""
    grid.columns.pop(i)
    for row in grid.rows:
        row.pop(i)
    return texts.pop()
