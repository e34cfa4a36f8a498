"""Paper-ready figures: risk against x with what theory predicts, and risk relative to the Cramér-Rao limit.

Colours are those of Okabe and Ito, told apart by readers of every colour vision; markers and line styles differ too, so
that a grey print is read as well. No pyplot: figures are objects, and no global state changes.
"""

import io
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from ..rates import is_binary
from ..sweep.curve import Curve
from ..sweep.result import Result
from .numbers import (
    LIMIT,
    aims_at_limit,
    exponent_with_interval,
    label_of,
    limit_of,
    means_of,
    shares_of,
    short,
    variant_of,
    x_is_returned,
)

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_DASHES: tuple[Any, ...] = ("-", (0, (7, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5, 1.5, 1.5)))
_GREY = "#555555"
# Theory is thin, without markers: predicted curves finely dashed, the Cramér-Rao limit dotted.
_THEORY: dict[str, Any] = {"linestyle": (0, (3, 2)), "linewidth": 0.9, "marker": ""}
_LIMIT: dict[str, Any] = {"linestyle": (0, (1, 1.5)), "linewidth": 1.4, "marker": "", "color": "black"}
# Type 42 embeds whole TrueType fonts, which journals ask for; type 3 is refused by some.
_SETTINGS: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    # Long enough to tell the dashes apart.
    "legend.handlelength": 3.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}
# Inches: a column of text, a page of text, a row of the legend.
_WIDTH, _PAGE, _LEGEND_ROW = 5.5, 7.2, 0.17
_LEGEND_TITLE = "fitted exponent [95 % interval]"
# A curve with more points than this is drawn with a band instead of error bars.
_DENSE = 12
# An error bar may stretch an axis beyond means and predictions by this factor, no more: with two or three seeds the
# intervals span decades and would squeeze the curves flat.
_STRETCH = 2.0


# How the y axis is made: by decades, linearly around ratios near one another, or from 0 to 1.
_Kind = Literal["mean", "ratio", "share"]


class _Series(NamedTuple):
    """What is drawn of one curve, all (k,): `mean` with interval `low`, `high`, theory's `predicted`, or the `limit` of
    Cramér and Rao where theory predicts that; `name` and `note` are the legend's words."""

    curve: Curve
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    predicted: np.ndarray | None
    limit: np.ndarray | None
    note: str = ""
    name: str = ""
    look: dict[str, Any] = {}

    @property
    def x(self) -> np.ndarray:
        """The curve's x (k,)."""
        return self.curve.x


class _Panel(NamedTuple):
    title: str
    series: list[_Series]


def rate_figure(result: Result, y: str | None = None) -> Figure:
    """Mean over seeds of `y` (the experiment's first, by default) against x, with 95 % intervals and what theory says.

    Arguments of the grid give log-log axes and the fitted exponents in the legend; an x that cells return themselves,
    such as gradient steps, gives a linear x. One panel for each combination of the other arguments that vary.

    **Raises:** ValueError when there are no records, or `y` is not one of the experiment's.
    """
    experiment = result.experiment
    y = experiment.y[0] if y is None else y
    if y not in experiment.y:
        raise ValueError(f"y = {y!r} is not among those of {experiment.name}: {', '.join(experiment.y)}.")
    if not result.curves():
        raise ValueError("there are no records to draw yet.")
    # Zeros and ones are successes, and their mean is a share.
    shares = all(
        np.isfinite(curve.values[y]).any(axis=1).all() and is_binary(curve.values[y]) for curve in result.curves()
    )
    # Theory and rates speak of the first y.
    first = y == experiment.y[0]
    drawn: list[_Series] = []
    for curve in result.curves():
        mean, low, high = (shares_of if shares else means_of)(curve.values[y])
        limit = limit_of(result, curve) if first and _shows_limit(result, curve) else None
        predicted = curve.theory.predicted if first and limit is None else None
        note = _exponent(result, curve) if first else ""
        drawn.append(_Series(curve, mean, low, high, predicted, limit, note))
    return _figure(result, drawn, label_of(result, y), "share" if shares else "mean")


def ratio_figure(result: Result) -> Figure | None:
    """Risk relative to the Cramér-Rao limit, for the curves of which theory predicts that limit; None without any."""
    y, drawn = result.experiment.y[0], []
    for curve in result.curves():
        limit = limit_of(result, curve) if aims_at_limit(result, curve) else None
        if limit is not None:
            mean, low, high = means_of(curve.values[y])
            drawn.append(_Series(curve, mean / limit, low / limit, high / limit, None, np.ones_like(limit)))
    if not drawn:
        return None
    return _figure(result, drawn, f"{label_of(result, y)} / {label_of(result, LIMIT)}", "ratio")


def image(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a `png` (200 dpi) or `pdf` (fonts embedded) file, equal for equal figures."""
    buffer = io.BytesIO()
    # A date would make equal figures differ.
    metadata = {"CreationDate": None} if kind == "pdf" else {}
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def _shows_limit(result: Result, curve: Curve) -> bool:
    """The limit belongs to the curves that aim at it; without any theory a recorded limit is all there is."""
    return result.experiment.theory is None or aims_at_limit(result, curve)


def _exponent(result: Result, curve: Curve) -> str:
    if x_is_returned(result):
        return ""
    try:
        rate = result.rate(curve)
    except ValueError:  # Too few points; the tables say so.
        return ""
    return exponent_with_interval(rate.exponent, *rate.interval)


def _panels(result: Result, drawn: Sequence[_Series]) -> list[_Panel]:
    """One panel per combination of the arguments that vary; where no argument names the curves, all are in one."""
    named = result.experiment.curve is not None
    names = [label_of(result, series.curve.name) if named else series.curve.label for series in drawn]
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    panels: dict[str, list[_Series]] = {}
    for name, series in zip(names, drawn, strict=True):
        title = variant_of(result, series.curve) if named else ""
        panels.setdefault(title, []).append(series._replace(name=name, look=_look(order[name])))
    return [_Panel(title, series) for title, series in panels.items()]


def _look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes: cycles of different lengths, so that no two of the first 252 agree in all."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number % len(_DASHES)],
    }


def _figure(result: Result, drawn: Sequence[_Series], y_label: str, kind: _Kind = "mean") -> Figure:
    panels, log_x = _panels(result, drawn), _has_log_x(result, drawn)
    low, high, log_y = (-0.04, 1.04, False) if kind == "share" else _y_range(panels, kind == "ratio")
    with matplotlib.rc_context(_SETTINGS):
        columns = {5: 3, 6: 3, 9: 3}.get(len(panels), min(4, len(panels)))
        rows = -(-len(panels) // columns)
        entries = _entries(panels, len(panels) == 1, label_of(result, LIMIT))
        longest = max(len(label) for _, label in entries)
        legend_columns = min(len(entries), 3 if longest <= 24 else 2 if longest <= 44 else 1)
        height = {1: 3.0, 2: 2.1}.get(columns, 1.7)
        if len(panels) > 1:
            height += _LEGEND_ROW * (1 + max(sum(bool(series.note) for series in panel.series) for panel in panels))
        figure = Figure(
            figsize=(
                _WIDTH if columns < 3 else _PAGE,
                rows * height + _LEGEND_ROW * (-(-len(entries) // legend_columns) + 1) + 0.35,
            ),
            layout="constrained",
        )
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel)
            axes.set_title(panel.title)
            axes.set_xlabel(label_of(result, result.experiment.x))
            axes.set_yscale("log" if log_y else "linear")
            axes.set_ylim(low, high)
            _set_x(axes, panel, log_x, few=columns > 2)
            if len(panels) > 1:
                _exponents_below(figure, axes, panel)
        for axes in grid[len(panels) :]:
            axes.remove()
        # On the axes of each row rather than on the figure, whose middle lies in the legend.
        for axes in grid[: len(panels) : columns]:
            axes.set_ylabel(y_label)
        # Below the axes: there it never covers data.
        figure.legend(
            *zip(*entries, strict=True),
            loc="outside lower center",
            ncols=legend_columns,
            title=_LEGEND_TITLE if len(panels) == 1 and any(series.note for series in panels[0].series) else None,
        )
    return figure


def _has_log_x(result: Result, drawn: Sequence[_Series]) -> bool:
    return not x_is_returned(result) and all((series.x > 0).all() for series in drawn)


def _y_range(panels: Sequence[_Panel], ratio: bool) -> tuple[float, float, bool]:
    """The ends of the y axes, and whether they are logarithmic. Ratios within a factor 8 read best on a linear axis."""
    middle: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    for panel in panels:
        for series in panel.series:
            middle += [series.mean, *(line for line in (series.predicted, series.limit) if line is not None)]
            ends += [series.low, series.high]
    values, bars = (_finite(np.concatenate(lines)) for lines in (middle, ends))
    positive = values[values > 0]
    log = bool(positive.size) and not (ratio and positive.size == values.size and values.max() < 8 * values.min())
    if log:
        values, bars = positive, bars[bars > 0]
    if not values.size:
        return 0.0, 1.0, False
    low, high = values.min(), values.max()
    if log:
        bars = np.log(np.clip(bars, low / _STRETCH, high * _STRETCH))
        low, high = np.log(low), np.log(high)
    else:
        reach = (_STRETCH - 1) * max(abs(low), abs(high))
        bars = np.clip(bars, low - reach, high + reach)
    low, high = min([low, *bars]), max([high, *bars])
    margin = 0.05 * (high - low) or 0.5 * max(abs(high), 1.0)
    low, high = float(low - margin), float(high + margin)
    return (float(np.exp(low)), float(np.exp(high)), True) if log else (low, high, False)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _draw(axes: Axes, panel: _Panel) -> None:
    """Theory behind, measured curves in front."""
    limits: list[np.ndarray] = []
    for series in panel.series:
        if series.predicted is not None and (series.predicted > 0).any():
            axes.plot(series.x, series.predicted, color=series.look["color"], zorder=1.8, **_THEORY)
        line = None if series.limit is None else np.stack([series.x, series.limit])
        # All students share one limit: one line.
        if line is not None and not any(line.shape == other.shape and np.allclose(line, other) for other in limits):
            axes.plot(*line, zorder=1.9, **_LIMIT)
            limits.append(line)
    for number, series in enumerate(panel.series):
        there = np.isfinite(series.mean)
        x, mean, low, high = series.x[there], series.mean[there], series.low[there], series.high[there]
        bars = np.isfinite(low) & np.isfinite(high)
        every, look = max(1, len(x) // 8), series.look
        # Dense curves carry few markers, each curve's at other places.
        axes.plot(x, mean, markevery=(number * every // 3 % every, every), zorder=3, **look)
        if len(x) > _DENSE:
            axes.fill_between(x[bars], low[bars], high[bars], color=look["color"], alpha=0.2, linewidth=0, zorder=2)
        else:
            errors = np.maximum(np.stack([mean - low, high - mean])[:, bars], 0.0)
            axes.errorbar(x[bars], mean[bars], errors, fmt="none", ecolor=look["color"], capsize=2, lw=0.9)


def _set_x(axes: Axes, panel: _Panel, log: bool, few: bool) -> None:
    """Ticks at the x that were measured, as many as have room; round numbers along a linear axis."""
    if not log:
        axes.xaxis.set_major_locator(MaxNLocator(3 if few else 6))
        return
    axes.set_xscale("log")
    values = np.unique(np.concatenate([series.x for series in panel.series]))
    room = (np.log(values[-1]) - np.log(values[0])) / (3.5 if few else 7.0)
    ticks = [values[0]]
    for value in values[1:]:
        if np.log(value) - np.log(ticks[-1]) >= room:
            ticks.append(value)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([short(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())


def _handle(look: dict[str, Any]) -> Line2D:
    return Line2D([], [], **look)


def _entries(panels: Sequence[_Panel], notes: bool, limit_label: str) -> list[tuple[Line2D, str]]:
    """The legend of all panels: every curve once, then what the lines of theory are."""
    found: dict[str, Line2D] = {}
    every = [series for panel in panels for series in panel.series]
    for series in every:
        found.setdefault(f"{series.name}  {series.note}".strip() if notes else series.name, _handle(series.look))
    if any(series.limit is not None for series in every):
        found[limit_label] = _handle(_LIMIT)
    if any(series.predicted is not None for series in every):
        found["theory, in the curve's colour"] = _handle({**_THEORY, "color": _GREY})
    return [(handle, label) for label, handle in found.items()]


def _exponents_below(figure: Figure, axes: Axes, panel: _Panel) -> None:
    """The exponents of one panel of many; the names are in the figure's legend."""
    noted = [series for series in panel.series if series.note]
    if noted:
        below = axes.transAxes + ScaledTranslation(0, -28 / 72, figure.dpi_scale_trans)
        axes.legend(
            [_handle(series.look) for series in noted],
            [series.note for series in noted],
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            bbox_transform=below,
            borderaxespad=0,
            title=_LEGEND_TITLE,
        )
