"""Figures for papers: risk against x with the prediction of theory, and risk relative to the Cramér-Rao limit.

Figures are as wide as a column or a page of text, and can be read in grey (`look`).
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from ..sweep.result import Result
from .derived import derived_drawings
from .heat import Heat
from .look import LIMIT_DASH, THEORY_DASH
from .numbers import digits, short
from .series import Drawing, Panel, Scale, limit_drawing, marked_x, mean_drawing, rival_drawing, ticks_at, y_range
from .text import wrapped

Kind: TypeAlias = Literal["png", "pdf", "svg"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_GREY = "#555555"


def _dashes(points: tuple[float, ...], width: float) -> tuple[float, tuple[float, ...]]:
    """Dashes for Matplotlib, which measures them in line widths."""
    return 0.0, tuple(length / width for length in points)


_THEORY: dict[str, Any] = {"linestyle": _dashes(THEORY_DASH, 0.9), "linewidth": 0.9, "marker": ""}
_LIMIT: dict[str, Any] = {"linestyle": _dashes(LIMIT_DASH, 1.4), "linewidth": 1.4, "marker": "", "color": "black"}
# Type 42 embeds whole TrueType fonts, which journals ask for; some refuse type 3.
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
    "savefig.dpi": 300,
}
# Inches: a column and the full text width of a two-column paper, and a row of the legend.
_WIDTHS: dict[str, float] = {"column": 3.4, "page": 7.0}
_LEGEND_ROW = 0.17
_LEGEND_TITLE = "fitted exponent [95 % interval]"
_OF_THEORY = "theory, in the curve's colour"
_PUBLISHED: dict[str, Any] = {"marker": "*", "linestyle": "", "markersize": 10, "markeredgecolor": "white"}
_OF_PAPER = "published"
# A curve with more points than this is drawn with a band instead of error bars.
_DENSE = 12
# If the highest y is this many times the lowest, minor ticks between powers of ten would run into each other.
_MANY = 1e6


def rate_figure(result: Result, y: str | None = None, style: str = "page") -> Figure:
    """Mean over seeds of `y` (the experiment's first, by default) against x, with 95 % intervals and the prediction of theory.

    If x is an argument of the grid, axes are log-log and the legend has the fitted exponents; if cells return x themselves,
    such as gradient steps, x is linear. There is one panel for each combination of the other arguments that vary.

    **Raises:** ValueError if there are no records, or `y` is not one of the experiment's.
    """
    return draw(result, mean_drawing(result, y), style)


def ratio_figure(result: Result, style: str = "page") -> Figure | None:
    """Risk relative to the Cramér-Rao limit, for the curves for which theory predicts that limit; None if there are none."""
    drawing = limit_drawing(result)
    return None if drawing is None else draw(result, drawing, style)


def drawings(result: Result) -> list[Drawing]:
    """All drawings of a result on paper: every y, then the risk relative to the limit and to the reference curve, and the
    drawings against quantities other than x."""
    found = [mean_drawing(result, y) for y in result.experiment.y]
    found += [drawing for drawing in (limit_drawing(result), rival_drawing(result)) if drawing is not None]
    return found + derived_drawings(result)


def plot_result(
    result: Result, y: str | None = None, style: str = "column", axes: np.ndarray | None = None
) -> np.ndarray:
    """Draws `Result.plot`, and returns its axes (panels,)."""
    drawing = mean_drawing(result, y)
    if axes is None:
        import matplotlib.pyplot as plt

        # A figure of pyplot, so that a notebook shows it.
        figure = draw(result, drawing, style, plt.figure)
        return np.array(figure.axes, object)
    axes = np.asarray(axes, object)
    if axes.shape != (len(drawing.panels),):
        raise ValueError(
            f"axes must hold one matplotlib axes for each of the {len(drawing.panels)} panels, got shape {axes.shape}; "
            "without `axes` a figure is made."
        )
    with matplotlib.rc_context(_SETTINGS):
        for one, panel in zip(axes, drawing.panels, strict=True):
            _dress(result, one, drawing, panel, few=False)
            one.set_ylabel(drawing.y_label)
            one.legend(*zip(*_entries([panel], True, drawing.line), strict=True))
    return axes


def image(figure: Figure, kind: Kind) -> bytes:
    """A figure as the bytes of a `png` (300 dpi), `pdf` (fonts embedded) or `svg` file; equal for equal figures."""
    buffer = io.BytesIO()
    # A date in the file would make equal figures differ.
    metadata: dict[Kind, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    # Names of clip paths must not be random, for the same reason.
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": "tsjax"}):
        figure.savefig(buffer, format=kind, metadata=metadata[kind])
    return buffer.getvalue()


def draw(result: Result, drawing: Drawing, style: str = "page", make: Callable[..., Figure] = Figure) -> Figure:
    """A drawing as a figure as wide as a `column` or a `page` of text; `make` creates the figure.

    The legend lies below, in the order in which the curves end. If curves have exponents, which differ from panel to panel,
    each of several panels has a legend of its own.
    """
    panels, wide, full = drawing.panels, style == "page", width_of(style)
    noted = any(series.note for series in drawing.series)
    with matplotlib.rc_context(_SETTINGS):
        columns = _columns(len(panels), noted, wide)
        rows, width = -(-len(panels) // columns), full / columns
        entries = _entries(panels if len(panels) > 1 else [_as_they_end(panels[0])], len(panels) == 1, drawing.line)
        own = [_own_entries(panel, width) for panel in panels] if noted and len(panels) > 1 else []
        if own:
            entries = [one for one in entries if one[1] in (drawing.line, _OF_THEORY, _OF_PAPER)]
        # The width of an entry: its line, and letters of 7 points.
        entry = 0.45 + 0.055 * max((len(line) for _, label in entries for line in label.split("\n")), default=0)
        legend_columns = max(1, min(len(entries), 4, int(full / entry)))
        inside = _LEGEND_ROW * max((1 + sum(label.count("\n") + 1 for _, label in one) for one in own), default=0)
        below = _LEGEND_ROW * (-(-len(entries) // legend_columns) + 1)
        height = {1: 3.4, 2: 2.4}.get(columns, 1.8) if wide else {1: 2.3}.get(columns, 1.5)
        # The plot takes most of the figure, however many curves there are.
        height = max(height, 1.9 * below if rows == 1 else 0.0, 1.6 * inside)
        size = (full, rows * (height + inside) + below + 0.35)
        figure = make(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _dress(result, axes, drawing, panel, few=columns > 2 or not wide)
        for axes, handles in zip(grid, own, strict=False):
            _legend_below(figure, axes, handles)
        for axes in grid[len(panels) :]:
            axes.remove()
        # The label is on the axes of each row rather than on the figure, whose middle may lie in the legend.
        for axes in grid[: len(panels) : columns]:
            axes.set_ylabel(drawing.y_label)
        # Outside the axes, where it never covers data.
        if entries:
            figure.legend(
                *zip(*entries, strict=True),
                loc="outside lower center",
                ncols=legend_columns,
                title=_LEGEND_TITLE if noted and not own else None,
            )
    return figure


def heat_figure(heat: Heat, style: str = "page") -> Figure:
    """A map as a figure, with a tile for every pair of values; colours are logarithmic if the values span a factor of 8."""
    with settings(grid=False):
        width = min(width_of(style), 1.6 + 0.62 * len(heat.x))
        figure = Figure(figsize=(width, 1.0 + 0.42 * len(heat.y)), layout="constrained")
        axes = figure.subplots()
        log, ticks = heat.decades
        known = heat.z[np.isfinite(heat.z)]
        norm = LogNorm(known.min(), known.max()) if log else None
        drawn = axes.pcolormesh(
            np.ma.masked_invalid(heat.z), cmap="viridis", norm=norm, edgecolors="white", linewidth=0.5
        )
        bar = figure.colorbar(drawn, ax=axes, label=heat.z_label)
        if log:
            bar.ax.yaxis.set_major_locator(FixedLocator(ticks.tolist()))
            bar.ax.yaxis.set_major_formatter(FixedFormatter([f"{tick:.1g}" for tick in ticks]))
            bar.ax.yaxis.set_minor_locator(NullLocator())
        for axis, values in ((axes.xaxis, heat.x), (axes.yaxis, heat.y)):
            axis.set_ticks(np.arange(len(values)) + 0.5, [short(value) for value in values])
            axis.set_tick_params(length=0)
        axes.set_xlabel(heat.x_label)
        axes.set_ylabel(heat.y_label)
        axes.set_title(heat.title)
        if heat.z.size <= 64:
            # Dark letters on light tiles, light letters on dark ones.
            level = np.asarray(drawn.norm(np.nan_to_num(heat.z, nan=float(known.min()) if known.size else 1.0)), float)
            for (i, j), value in np.ndenumerate(heat.z):
                colour = "black" if level[i, j] > 0.6 else "white"
                axes.text(j + 0.5, i + 0.5, digits(value, 2), ha="center", va="center", fontsize=6, color=colour)
    return figure


def settings(grid: bool = True) -> Any:
    """Matplotlib settings for all figures, for a `with` statement."""
    return matplotlib.rc_context({**_SETTINGS, "axes.grid": grid})


def width_of(style: str) -> float:
    """The width in inches of a `column` or a `page` of text. **Raises:** ValueError for another style."""
    if style not in _WIDTHS:
        raise ValueError(f"style = {style!r}: no such style. Allowed: {', '.join(_WIDTHS)}.")
    return _WIDTHS[style]


def _columns(panels: int, noted: bool, wide: bool) -> int:
    """The number of panels in a row: few empty places, and few panels if each has a legend of its own."""
    if not wide:
        return 1 if noted else min(2, panels)
    if noted:
        return min(2 if panels in (2, 4) else 3, panels)
    return {5: 3, 6: 3, 9: 3}.get(panels, min(4, panels))


def _as_they_end(panel: Panel) -> Panel:
    """The panel with its curves sorted from the highest to the lowest end."""
    last = lambda series: next((value for value in series.mean[::-1] if np.isfinite(value)), -np.inf)
    return panel._replace(series=sorted(panel.series, key=last, reverse=True))


def _dress(result: Result, axes: Axes, drawing: Drawing, panel: Panel, few: bool) -> None:
    """One panel with its title and scales."""
    low, high, y_scale = y_range(drawing)
    _draw(axes, panel)
    axes.set_title(_in_lines(axes, panel.title))
    axes.set_xlabel(drawing.x_label)
    axes.set_yscale(y_scale.kind, **_options(y_scale))
    axes.set_ylim(low, high)
    if y_scale.kind == "symlog":
        ticks = y_scale.ticks(np.array([low, high, y_scale.near]))
        axes.yaxis.set_major_locator(FixedLocator(ticks.tolist()))
        axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:.4g}" for tick in ticks]))
        axes.yaxis.set_minor_locator(NullLocator())
    elif y_scale.kind == "log" and high > _MANY * low:
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
    _set_x(axes, marked_x(result, drawing, panel), drawing.x_scale, few)


def _in_lines(axes: Axes, title: str) -> str:
    """A title wrapped to the width of the panel, by the mean width of a letter."""
    grid, figure = axes.get_gridspec(), axes.get_figure(root=True)
    if grid is None or figure is None:
        return title
    letters = 72 * figure.get_figwidth() / grid.ncols / (0.55 * float(axes.title.get_fontsize()))
    return wrapped(title, max(10, int(letters)))


def _options(scale: Scale) -> dict[str, Any]:
    """The options of Matplotlib's scale of this kind."""
    return {"linthresh": scale.near, "linscale": 0.9} if scale.kind == "symlog" else {}


def _draw_theory(axes: Axes, x: np.ndarray, y: np.ndarray, **look: Any) -> None:
    """A line of theory; at a single point, where a line has no length, a short stroke."""
    axes.plot(x, y, **look | ({"marker": "_", "markersize": 16} if len(x) == 1 else {}))


def _draw(axes: Axes, panel: Panel) -> None:
    """Theory behind, measured curves in front."""
    limits: list[np.ndarray] = []
    for series in panel.series:
        if series.predicted is not None and (series.predicted > 0).any():
            _draw_theory(axes, series.x, series.predicted, zorder=1.8, **_THEORY, color=series.look.line["color"])
        line = None if series.limit is None else np.stack([series.x, series.limit])
        # All students share one limit, so it is drawn once.
        if line is not None and not any(line.shape == other.shape and np.allclose(line, other) for other in limits):
            _draw_theory(axes, *line, zorder=1.9, **_LIMIT)
            limits.append(line)
    for number, series in enumerate(panel.series):
        there = np.isfinite(series.mean)
        x, mean, low, high = series.x[there], series.mean[there], series.low[there], series.high[there]
        bars = np.isfinite(low) & np.isfinite(high)
        every, look = max(1, len(x) // 8), series.look.line
        # Dense curves have few markers, at different places on each curve.
        axes.plot(x, mean, markevery=(number * every // 3 % every, every), zorder=3, **look)
        if len(x) > _DENSE:
            axes.fill_between(x[bars], low[bars], high[bars], color=look["color"], alpha=0.2, linewidth=0, zorder=2)
        else:
            errors = np.maximum(np.stack([mean - low, high - mean])[:, bars], 0.0)
            axes.errorbar(x[bars], mean[bars], errors, fmt="none", ecolor=look["color"], capsize=2, lw=0.9)
        if series.published is not None:
            x, value, error = series.published.T
            axes.errorbar(x, value, error, color=look["color"], zorder=4, elinewidth=0.9, **_PUBLISHED)


def _set_x(axes: Axes, x: np.ndarray | None, scale: Scale, few: bool) -> None:
    """Ticks at those of the given x for which there is room, or at round numbers if x is None."""
    if scale.kind == "log" and x is not None and len(x) == 1:
        # Matplotlib warns about an axis whose ends coincide.
        axes.set_xlim(float(x[0]) / 2.0, float(x[0]) * 2.0)
    axes.set_xscale(scale.kind, **_options(scale))
    if scale.kind == "symlog" and x is not None:
        # Matplotlib's own margin is in values, which on this scale would be half of the axis below 0.
        places = scale.forward(x)
        margin = 0.05 * (places.max() - places.min() or 1.0)
        axes.set_xlim(*scale.back(np.array([places.min() - margin, places.max() + margin])).tolist())
    if scale.kind == "linear":
        # Counts, such as steps or grades, have ticks at whole numbers.
        drawn = [np.asarray(line.get_xdata(), float) for line in axes.lines]
        whole = all(bool(np.all(np.isfinite(one) & (one == np.round(one)))) for one in drawn)
        axes.xaxis.set_major_locator(MaxNLocator(3 if few else 6, integer=whole))
    if x is None:
        return
    ticks = ticks_at(scale, x, 3.5 if few else 7.0)
    axes.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
    axes.xaxis.set_major_formatter(FixedFormatter([short(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())


def _handle(look: dict[str, Any]) -> Line2D:
    return Line2D([], [], **look)


def _entries(panels: Sequence[Panel], notes: bool, line: str) -> list[tuple[Line2D, str]]:
    """The legend of all panels: every curve once, then an explanation of the theory lines."""
    found: dict[str, Line2D] = {}
    every = [series for panel in panels for series in panel.series]
    for series in every:
        found.setdefault(f"{series.name}  {series.note}".strip() if notes else series.name, _handle(series.look.line))
    if any(series.limit is not None for series in every):
        found[line] = _handle(_LIMIT)
    if any(series.predicted is not None for series in every):
        found[_OF_THEORY] = _handle({**_THEORY, "color": _GREY})
    if any(series.published is not None for series in every):
        found[_OF_PAPER] = _handle({**_PUBLISHED, "color": _GREY})
    return [(handle, label) for label, handle in found.items()]


def _own_entries(panel: Panel, width: float) -> list[tuple[Line2D, str]]:
    """The entries for the legend of one panel of many: every name with its exponent, on separate lines if the panel is
    narrow."""
    room = int((width - 0.6) / 0.055)
    found = []
    for series in panel.series:
        label = f"{series.name}  {series.note}".strip()
        if len(label) > room:
            label = "\n".join(filter(None, [wrapped(series.name, room), series.note]))
        found.append((_handle(series.look.line), label))
    return found


def _legend_below(figure: Figure, axes: Axes, entries: list[tuple[Line2D, str]]) -> None:
    """The legend of one panel of many."""
    below = axes.transAxes + ScaledTranslation(0, -28 / 72, figure.dpi_scale_trans)
    axes.legend(
        *zip(*entries, strict=True),
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=below,
        borderaxespad=0,
        title=_LEGEND_TITLE,
    )
