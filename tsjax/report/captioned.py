"""One figure with a table of the values that it shows and a caption computed from them."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import matplotlib
import numpy as np
import pandas as pd

from ..rates import Estimate, mean_ratio
from ..sweep.curve import Curve
from ..sweep.result import Result
from .export import safe
from .figures import KINDS, Kind, image
from .numbers import (
    BEST_LINEAR,
    LIMIT,
    digits,
    exponent_with_interval,
    label_of,
    plural,
    ratio_at,
    ratio_with_interval,
    short,
    summary_of,
    variants,
)
from .output import OutputError, replaced
from .plates import Plate, figure_of, plates, rows_of, sentence_of
from .publish import markdown_text, standing
from .sentences import fitted
from .series import Drawing, Series
from .surfaces import NAME

# If there are more exponents, or panels, than this, the caption gives a range; the table has all of them.
_NAMED, _PANELS = 8, 3
# Long decimals in an SVG: a hundredth of a point is invisible.
_LONG = re.compile(r"-?\d+\.\d{3,}")
_TAG = re.compile(r"<[^>]*>")
# The names that matplotlib gives to marks and clips.
_MARK = re.compile(r"\b[mp][0-9a-f]{10}\b")
# A group that holds nothing but marks: its opening without the last character, and the marks.
_GROUP = re.compile(r"(<g\b[^>]*)>\n((?:<(?:use|path)\b[^>]*/>\n)+)</g>")


# A point of a curve, by column names of the table.
_Row: TypeAlias = dict[str, Any]


class Captioned(NamedTuple):
    """What a result shows under a `name` (`tsjax.report.plates`), with the `table` of the values in it and its `caption`, in
    Markdown."""

    name: str
    plate: Plate
    table: pd.DataFrame
    caption: str


def captioned(result: Result, name: str | None = None) -> Captioned:
    """A figure of a result by its name; by default the one that the sweep names, otherwise that of the mean of the first y.

    **Raises:** ValueError if there are no records, no such figure, or no surface because it cannot be fitted.
    """
    if result.records.empty:
        raise ValueError("there are no records to draw yet; run the sweep first.")
    found = plates(result)
    if name is None and result.spec.figure in found:
        # An unfinished or small sweep may not have that figure yet.
        name = result.spec.figure
    if name == NAME and name not in found:
        fitted(result)  # Says why there is none.
    if name is not None and name not in found:
        raise ValueError(f"there is no figure {name!r}. Allowed: {', '.join(found)}.")
    name = next(iter(found)) if name is None else name
    plate = found[name]
    if not isinstance(plate, Drawing):
        table = pd.DataFrame(rows_of(result, plate))
        return Captioned(name, plate, table, _whole(result, [sentence_of(result, plate)]))
    rows = _rows(result, plate)
    return Captioned(name, plate, _table(rows), _caption(result, plate, rows))


def _table(rows: list[_Row]) -> pd.DataFrame:
    """The values of a drawing, with a row for each point of each curve, in the order of the panels. Empty columns are left out.

    - `panel`, `curve`: names as in the figure; then x, by its own name; `mean` with its 95 % interval `low`, `high`;
      `predicted` by theory, or the Cramér-Rao `limit`; the `published` value; `seeds`, and how many cells of the curve
      `failed`.
    - `exponent` of the curve with its 95 % interval `exponent_low`, `exponent_high`, fitted over `exponent_from` to
      `exponent_to`; `identified`: whether the data determine it.
    - `to_limit` with its interval: the mean relative to that limit. `best_linear` with its interval: the mean of the optimal
      linear estimator relative to this one, on the same seeds.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    said = lambda name: [row.get(name) for row in rows if not _is_empty(row.get(name))]
    kept = [name for name in names if said(name) and (name != "failed" or any(said(name)))]
    return pd.DataFrame(rows, columns=pd.Index(kept))


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and bool(np.isnan(value)))


def _rows(result: Result, drawing: Drawing) -> list[_Row]:
    first = drawing.name == f"{result.experiment.y[0]}_in_{result.experiment.x}"
    return [
        {"panel": panel.title, **row}
        for panel in drawing.panels
        for series in panel.series
        for row in _points(result, series, drawing.x, first)
    ]


def _points(result: Result, series: Series, axis: str, first: bool) -> Iterator[_Row]:
    nothing = np.full(len(series.x), np.nan)
    curve = series.curve
    whole: _Row = {"seeds": len(curve.seeds), "failed": curve.failed}
    rate = result.rate(result.claimed(curve)) if first and series.note else None
    if rate is not None:
        whole |= {"exponent": rate.exponent, **_ends("exponent", rate.interval)}
        whole |= {"exponent_from": rate.n[0], "exponent_to": rate.n[-1], "identified": rate.identified}
    linear = _best_linear(result, curve) if first else None
    for i, x in enumerate(series.x):
        point: _Row = {"curve": series.name, axis: x}
        columns = {"mean": series.mean, "low": series.low, "high": series.high}
        columns |= {"predicted": series.predicted, "limit": series.limit}
        columns |= {"published": _at_each(series.x, series.published)}
        point |= {name: (nothing if values is None else values)[i] for name, values in columns.items()}
        if first and series.limit is not None:
            values = curve.values[result.experiment.y[0]][i]
            point |= _estimate("to_limit", _relative(values, float(series.limit[i])))
        if linear is not None and x in linear.x:
            point |= _estimate("best_linear", ratio_at(result, linear, curve, float(x)))
        yield point | whole


def _at_each(x: np.ndarray, published: np.ndarray | None) -> np.ndarray | None:
    """The published value at each x, NaN where there is none."""
    figures = {} if published is None else {place: value for place, value, _ in published}
    return np.array([figures.get(place, np.nan) for place in x]) if figures else None


def _ends(name: str, interval: tuple[float, float]) -> _Row:
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _estimate(name: str, estimate: Estimate | None) -> _Row:
    return {} if estimate is None else {name: estimate.value, **_ends(name, estimate.interval)}


def _relative(values: np.ndarray, to: float) -> Estimate | None:
    try:
        return mean_ratio(values, to)
    except ValueError:  # No seeds remain, or the values are not risks.
        return None


def _best_linear(result: Result, curve: Curve) -> Curve | None:
    """The optimal linear curve of the same variant."""
    same = lambda other: all(repr(other.arguments[name]) == repr(curve.arguments[name]) for name in variants(result))
    return next((one for one in result.curves() if one.name == BEST_LINEAR and one is not curve and same(one)), None)


def _caption(result: Result, drawing: Drawing, rows: list[_Row]) -> str:
    plain, panels = [drawing.caption], list(dict.fromkeys(row["panel"] for row in rows))
    if drawing.x != result.experiment.x:
        # The caption is complete: the sentences below are about x.
        panels = []
    if len(panels) > _PANELS:
        named = [{**row, "curve": f"{row['curve']} at {row['panel']}"} for row in rows]
        plain += [*_exponents("", named, result.experiment.x, 2), *_range_of_ends(result, named)]
        panels = []
    for panel in panels:
        mine = [row for row in rows if row["panel"] == panel]
        said = [*_exponents(panel, mine, result.experiment.x), *_ratios(result, panel, mine)]
        plain += said or _last_means(result, panel, mine)
    return _whole(result, plain)


def _whole(result: Result, said: list[str]) -> str:
    """A caption: the claim, what is `said` about the figure, the verdicts, and where the numbers come from."""
    plain = list(said)
    if result.spec.expect:
        plain.append(summary_of(result))
    version = f"Study {result.spec.study}, version {result.experiment.version}, root key {result.spec.key}"
    plain += [f"{version}, {plural(result.coverage.done, 'cell')}.", *standing(result.coverage)]
    claim = [f"**{markdown_text(result.spec.claim)}**"] if result.spec.claim else []
    return " ".join([*claim, *map(markdown_text, plain)])


def _exponents(panel: str, rows: list[_Row], x: str, named: int = _NAMED) -> Iterator[str]:
    """One sentence about the exponents of a panel, grouped by window; more than `named` are given as a range."""
    curves = {row["curve"]: row for row in rows if "exponent" in row}
    windows = dict.fromkeys((row["exponent_from"], row["exponent_to"]) for row in curves.values())
    parts = []
    for low, high in windows:
        group = [row for row in curves.values() if (row["exponent_from"], row["exponent_to"]) == (low, high)]
        if len(curves) > named and len(group) > 2:
            least, most = (choose(group, key=lambda row: row["exponent"]) for choose in (min, max))
            words = (
                f"{len(group)} curves from {_exponent(least)} ({least['curve']}) to {_exponent(most)} ({most['curve']})"
            )
        else:
            words = ", ".join(f"{row['curve']} {_exponent(row)}" for row in group)
        parts.append(f"over {x} = {short(low)} to {short(high)}, {words}")
    if parts:
        yield f"Fitted exponents with 95 % intervals{f' at {panel}' if panel else ''}: {'; '.join(parts)}."


def _exponent(row: _Row) -> str:
    return exponent_with_interval(row["exponent"], row["exponent_low"], row["exponent_high"], row["identified"])


def _ratios(result: Result, panel: str, rows: list[_Row]) -> Iterator[str]:
    """The first curve whose theory is the limit, compared at its largest x with that limit and with the optimal linear
    estimator."""
    x = result.experiment.x
    name = next((row["curve"] for row in rows if "to_limit" in row), None)
    mine = [row for row in rows if row["curve"] == name]
    parts = []
    for column, words in (
        ("to_limit", f"the mean of the {name} is {{}} times the {label_of(result, LIMIT)}"),
        ("best_linear", f"that of the {label_of(result, BEST_LINEAR)} is {{}} times that of the {name}"),
    ):
        last = next((row for row in reversed(mine) if column in row), None)
        if last is not None:
            parts.append(f"{words.format(_interval(last, column))} at {x} = {short(last[x])}")
    if parts:
        text = f"{f'at {panel} ' if panel else ''}{', and '.join(parts)}."
        yield text[:1].upper() + text[1:]


def _range_of_ends(result: Result, rows: list[_Row]) -> Iterator[str]:
    """One sentence about many curves, each at its largest x: the least and the largest mean, relative to the limit if there is
    one."""
    column, words = (
        ("to_limit", f" times the {label_of(result, LIMIT)}")
        if any("to_limit" in row for row in rows)
        else ("mean", "")
    )
    last = {row["curve"]: row for row in rows if column in row and not np.isnan(row[column])}
    if last:
        least, most = (choose(last.values(), key=lambda row: row[column]) for choose in (min, max))
        ends = [f"{_interval(row, column)}{words} ({row['curve']})" for row in (least, most)]
        yield f"At the largest {label_of(result, result.experiment.x)} of each curve, the mean is from {' to '.join(ends)}."


def _last_means(result: Result, panel: str, rows: list[_Row]) -> list[str]:
    """One sentence about the means at the largest x of a panel, if there is no exponent."""
    x = result.experiment.x
    largest = max(row[x] for row in rows)
    last = [row for row in rows if row[x] == largest and not np.isnan(row["mean"])]
    if not 0 < len(last) <= _NAMED:
        return []
    means = [f"{_interval(row, 'mean')} ({row['curve']})" for row in last]
    return [f"At {label_of(result, x)} = {short(largest)}{f' and {panel}' if panel else ''}: {', '.join(means)}."]


def _interval(row: _Row, column: str) -> str:
    names = ("low", "high") if column == "mean" else (f"{column}_low", f"{column}_high")
    ends = (float(row[names[0]]), float(row[names[1]]))
    return (
        digits(row[column]) if np.isnan(ends).any() else ratio_with_interval(Estimate(float(row[column]), ends, 0.95))
    )


def write_captioned(result: Result, to: Path, name: str | None = None, style: str = "page") -> list[Path]:
    """Writes a figure into the file `to`, whose ending gives the format (`.svg`, `.png` or `.pdf`), and beside it, under the
    same name, the table (`.csv`) and the caption (`.md`); returns the three paths. Text in an SVG stays text.

    **Raises:** OutputError if a file cannot be written; ValueError for another format, figure or style.
    """
    kind: Kind | None = next((kind for kind in KINDS if to.suffix == f".{kind}"), None)
    if kind is None:
        raise ValueError(f"{to}: the file name must end in {', '.join(f'.{kind}' for kind in KINDS)}.")
    figure = captioned(result, name)
    with matplotlib.rc_context():
        # As for the page: a `matplotlibrc` in the current directory may come from somebody else's store.
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.fonttype"] = "none"
        # Every text names two fonts: the one with which the figure was laid out, and an equally wide one that other systems
        # have.
        matplotlib.rcParams["font.sans-serif"] = ["DejaVu Sans", "Verdana"]
        content = image(figure_of(result, figure.plate, style), kind)
    if kind == "svg":
        content = shortened(content)
    table = io.StringIO()
    written = figure.table.copy()
    for name in ("panel", "curve", "array"):
        if name in written:
            written[name] = [safe(text) for text in written[name]]
    written.to_csv(table, index=False, float_format="%.8g", lineterminator="\n")
    files = {to: content, to.with_suffix(".csv"): table.getvalue().encode()}
    files[to.with_suffix(".md")] = f"{figure.caption}\n".encode()
    for path, content in files.items():
        try:
            with replaced(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise OutputError(f"cannot write {path}", error) from error
    return list(files)


def shortened(svg: bytes) -> bytes:
    """An SVG without indentation, with two decimals in coordinates, with short names of marks, and with the style that all
    marks of a group share given once; it is much smaller. Its text does not change."""
    rounded = lambda number: f"{float(number[0]):z.2f}".rstrip("0").rstrip(".")
    names: dict[str, str] = {}
    named = lambda mark: names.setdefault(mark[0], f"m{len(names)}")
    text = _TAG.sub(lambda tag: _MARK.sub(named, _LONG.sub(rounded, tag[0])), svg.decode())
    return _GROUP.sub(_with_shared, re.sub(r" *\n *", "\n", text)).encode()


def _with_shared(group: re.Match) -> str:
    """A group of marks with the attributes that are equal in all of them."""
    opening, marks = group[1], group[2]
    for name in ("style", "clip-path"):
        each = re.findall(rf' {name}="[^"]*"', marks)
        if len(each) == marks.count("/>") and len(set(each)) == 1 and f" {name}=" not in opening:
            opening, marks = opening + each[0], marks.replace(each[0], "")
    return f"{opening}>\n{marks}</g>"
