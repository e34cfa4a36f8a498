"""One figure with what belongs beside it: a table of the values that it shows, and a caption that is computed from them."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd

from ..rates import Estimate, mean_ratio
from ..sweep.curve import Curve
from ..sweep.result import Result
from .export import safe
from .figures import KINDS, draw, drawings, image
from .numbers import (
    BEST_LINEAR,
    LIMIT,
    exponent_with_interval,
    label_of,
    limit_of,
    plural,
    ratio_at,
    ratio_with_interval,
    short,
    summary_of,
    variants,
)
from .output import OutputError, replaced
from .publish import markdown_text, standing
from .series import Drawing, Series

# More exponents than this are given as a range; the table has every one.
_NAMED = 8
# Of an SVG: a hundredth of a point is less than anybody sees.
_LONG = re.compile(r"-?\d+\.\d{3,}")
_TAG = re.compile(r"<[^>]*>")


class Captioned(NamedTuple):
    """A drawing with the `table` of the values that it shows and its `caption`, in Markdown."""

    drawing: Drawing
    table: pd.DataFrame
    caption: str


def captioned(result: Result, name: str | None = None) -> Captioned:
    """A figure of a result by its name, the first by default: that of the mean of the first y.

    **Raises:** ValueError when there are no records, or no such figure.
    """
    if result.records.empty:
        raise ValueError("there are no records to draw yet; run the sweep first.")
    found = {drawing.name: drawing for drawing in drawings(result)}
    if name is not None and name not in found:
        raise ValueError(f"there is no figure {name!r}. Allowed: {', '.join(found)}.")
    drawing = next(iter(found.values())) if name is None else found[name]
    table = plotted_values(result, drawing)
    return Captioned(drawing, table, _caption(result, drawing, table))


def plotted_values(result: Result, drawing: Drawing) -> pd.DataFrame:
    """What a drawing shows, a row for each point of each curve, in the order of the panels. Columns without content are left
    out.

    - `panel`, `curve`: names as in the figure; then x, by its own name; `mean` with its 95 % interval `low`, `high`;
      `predicted` by theory, or the `limit` of Cramér and Rao; `seeds`, and how many cells of the curve `failed`.
    - `exponent` of the curve with its 95 % interval `exponent_low`, `exponent_high`, fitted over `exponent_from` to
      `exponent_to`; `identified`: whether the data determine it.
    - `to_limit` with its interval: the mean relative to that limit. `best_linear` with its interval: the mean of the optimal
      linear estimator relative to this one, on the same seeds.
    """
    first = drawing.name == f"{result.experiment.y[0]}_in_{result.experiment.x}"
    rows = [
        {"panel": panel.title, **row}
        for panel in drawing.panels
        for series in panel.series
        for row in _points(result, series, first)
    ]
    table = pd.DataFrame(rows)
    empty = [name for name in table if (table[name].isna() | (table[name] == "")).all()]
    if not table["failed"].any():
        empty.append("failed")
    return table.drop(columns=empty)


def _points(result: Result, series: Series, first: bool) -> Iterator[dict[str, object]]:
    nothing = np.full(len(series.x), np.nan)
    curve = series.curve
    whole: dict[str, object] = {"seeds": len(curve.seeds), "failed": curve.failed}
    rate = result.rate(curve) if first and series.note else None
    if rate is not None:
        whole |= {"exponent": rate.exponent, **_ends("exponent", rate.interval)}
        whole |= {"exponent_from": rate.n[0], "exponent_to": rate.n[-1], "identified": rate.identified}
    linear = _best_linear(result, curve) if first else None
    for i, x in enumerate(series.x):
        point: dict[str, object] = {"curve": series.name, result.experiment.x: x}
        columns = {"mean": series.mean, "low": series.low, "high": series.high}
        columns |= {"predicted": series.predicted, "limit": series.limit}
        point |= {name: (nothing if values is None else values)[i] for name, values in columns.items()}
        limit = limit_of(result, curve) if first and series.limit is not None else None
        if limit is not None:
            point |= _estimate("to_limit", _relative(curve.values[result.experiment.y[0]][i], float(limit[i])))
        if linear is not None and x in linear.x:
            point |= _estimate("best_linear", ratio_at(result, linear, curve, float(x)))
        yield point | whole


def _ends(name: str, interval: tuple[float, float]) -> dict[str, object]:
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _estimate(name: str, estimate: Estimate | None) -> dict[str, object]:
    return {} if estimate is None else {name: estimate.value, **_ends(name, estimate.interval)}


def _relative(values: np.ndarray, to: float) -> Estimate | None:
    try:
        return mean_ratio(values, to)
    except ValueError:  # No seed left, or values that are no risks.
        return None


def _best_linear(result: Result, curve: Curve) -> Curve | None:
    """The optimal linear curve of the same variant."""
    same = lambda other: all(repr(other.arguments[name]) == repr(curve.arguments[name]) for name in variants(result))
    return next((one for one in result.curves() if one.name == BEST_LINEAR and one is not curve and same(one)), None)


def _caption(result: Result, drawing: Drawing, table: pd.DataFrame) -> str:
    sentences = [f"**{markdown_text(result.spec.claim)}**"] if result.spec.claim else []
    plain = [drawing.caption]
    x = result.experiment.x
    for title, rows in table.groupby("panel" if "panel" in table else (lambda _: ""), sort=False):
        said = [*_exponents(str(title), rows, x), *_ratios(result, str(title), rows)]
        plain += said or _last_means(result, str(title), rows)
    if result.spec.expect:
        plain.append(summary_of(result))
    version = f"Study {result.spec.study}, version {result.experiment.version}, root key {result.spec.key}"
    plain += [f"{version}, {plural(result.coverage.done, 'cell')}.", *standing(result.coverage)]
    return " ".join([*sentences, *map(markdown_text, plain)])


def _exponents(title: str, rows: pd.DataFrame, x: str) -> Iterator[str]:
    """One sentence about the exponents of a panel, curves of one window together."""
    if "exponent" not in rows or rows["exponent"].isna().all():
        return
    curves = rows.dropna(subset="exponent").drop_duplicates("curve")
    parts = []
    for (low, high), group in curves.groupby(["exponent_from", "exponent_to"], sort=False):
        if len(curves) > _NAMED and len(group) > 2:
            least, most = group.loc[group["exponent"].idxmin()], group.loc[group["exponent"].idxmax()]
            words = (
                f"{len(group)} curves from {_exponent(least)} ({least['curve']}) to {_exponent(most)} ({most['curve']})"
            )
        else:
            words = ", ".join(f"{row['curve']} {_exponent(row)}" for _, row in group.iterrows())
        parts.append(f"over {x} = {short(low)} to {short(high)}, {words}")
    place = f" at {title}" if title else ""
    yield f"Fitted exponents with 95 % intervals{place}: {'; '.join(parts)}."


def _last_means(result: Result, title: str, rows: pd.DataFrame) -> list[str]:
    """One sentence about the means at the largest x of a panel, where there is no exponent."""
    x = result.experiment.x
    last = rows[rows[x] == rows[x].max()].dropna(subset="mean")
    if len(last) > _NAMED or "low" not in last:
        return []
    estimates = [
        Estimate(float(row["mean"]), (float(row["low"]), float(row["high"])), 0.95) for _, row in last.iterrows()
    ]
    means = [f"{ratio_with_interval(one)} ({name})" for one, name in zip(estimates, last["curve"], strict=True)]
    place = f" and {title}" if title else ""
    return [f"At {label_of(result, x)} = {short(rows[x].max())}{place}: {', '.join(means)}."]


def _exponent(row: pd.Series) -> str:
    return exponent_with_interval(row["exponent"], row["exponent_low"], row["exponent_high"], bool(row["identified"]))


def _ratios(result: Result, title: str, rows: pd.DataFrame) -> Iterator[str]:
    """The first curve that aims at the limit, beside that limit at its largest x, and beside the optimal linear estimator."""
    x, y = result.experiment.x, label_of(result, result.experiment.y[0])
    if "to_limit" not in rows or rows["to_limit"].isna().all():
        return
    name = rows.dropna(subset="to_limit")["curve"].iloc[0]
    mine, place = rows[rows["curve"] == name], f" and {title}" if title else ""
    for column, words in (
        ("to_limit", f"the mean {y} of the {name} is {{}} times the {label_of(result, LIMIT)}"),
        ("best_linear", f"the mean {y} of the {label_of(result, BEST_LINEAR)} is {{}} times that of the {name}"),
    ):
        if column in mine and mine[column].notna().any():
            last = mine.dropna(subset=column).iloc[-1]
            interval = (float(last[f"{column}_low"]), float(last[f"{column}_high"]))
            ratio = ratio_with_interval(Estimate(float(last[column]), interval, 0.95))
            yield f"At {x} = {short(last[x])}{place} {words.format(ratio)}."


def write_captioned(result: Result, to: Path, name: str | None = None, style: str = "page") -> list[Path]:
    """Writes a figure into the file `to`, whose name says the format (`.svg`, `.png` or `.pdf`), and beside it, under the same
    name, the table (`.csv`) and the caption (`.md`); returns the three paths. The text of an SVG stays text.

    **Raises:** OutputError when a file cannot be written; ValueError for another format, figure or style.
    """
    kind = next((kind for kind in KINDS if to.suffix == f".{kind}"), None)
    if kind is None:
        raise ValueError(f"{to}: the file name must end in {', '.join(f'.{kind}' for kind in KINDS)}.")
    figure = captioned(result, name)
    with matplotlib.rc_context():
        # As for the page: a `matplotlibrc` of the current directory may be that of a store of others.
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.fonttype"] = "none"
        content = image(draw(result, figure.drawing, style), kind)
    if kind == "svg":
        content = _short(content)
    table = io.StringIO()
    texts = {name: figure.table[name].map(safe) for name in ("panel", "curve") if name in figure.table}
    figure.table.assign(**texts).to_csv(table, index=False, float_format="%.8g", lineterminator="\n")
    files = {to: content, to.with_suffix(".csv"): table.getvalue().encode()}
    files[to.with_suffix(".md")] = f"{figure.caption}\n".encode()
    for path, content in files.items():
        try:
            with replaced(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise OutputError(f"cannot write {path}", error) from error
    return list(files)


def _short(svg: bytes) -> bytes:
    """An SVG whose coordinates have two decimals, half as large; its text stays as it is."""
    rounded = lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
    return _TAG.sub(lambda tag: _LONG.sub(rounded, tag[0]), svg.decode()).encode()
