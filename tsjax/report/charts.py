"""Interactive charts for the page, as Plotly figures: one function for each kind of chart.

Every trace carries in `meta` what the page needs to know of it: `keys`, the entries of the legend that switch it, and `ink`,
its colour as a place in `tsjax.report.look.COLOURS` (`fill`: that of its area), which the page replaces on a dark background.
"""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ..sweep.result import Result
from .look import COLOURS, LIMIT_DASH, THEORY_DASH, Look, dash_of
from .numbers import digits, label_of, short
from .points import Cloud
from .series import Drawing, Panel, Series, y_range

_INK = len(COLOURS) - 1
_BAND = 0.18
# Along a dense curve markers would cover it: this many are shown.
_MARKS = 12
# Where a line has one point.
_DASH = {"symbol": "line-ew-open", "size": 16, "line": {"width": 2}}
# At most this many ticks along an axis of sample sizes.
_TICKS = 7


def words(text: str) -> str:
    """Text as Plotly shows it, which otherwise reads tags and `%{...}` in it, and no line breaks."""
    return html.escape(text, quote=False).replace("%{", "%&#123;").replace("\n", "<br>")


def curve_chart(result: Result, drawing: Drawing, panel: Panel) -> go.Figure:
    """One panel of a drawing: bands, theory dashed, the limit dotted, and measured curves in front."""
    figure = go.Figure(layout=_layout())
    x = label_of(result, result.experiment.x)
    for series in panel.series:
        _add_band(figure, series)
    for series in panel.series:
        if series.predicted is not None and np.any(series.predicted > 0):
            name = f"{words(series.name)}, theory"
            line = {"dash": dash_of(THEORY_DASH), "width": 1.6}
            _add(figure, series.look, series.x, series.predicted, line, name, x, theory=True)
    limits = [np.stack([series.x, series.limit]) for series in panel.series if series.limit is not None]
    for place, limit in enumerate(limits):
        # All students share one limit: one line.
        if not any(limit.shape == other.shape and np.allclose(limit, other) for other in limits[:place]):
            figure.add_scatter(
                x=limit[0], y=limit[1], mode=_mode(limit[0]), marker=_DASH,
                line={"dash": dash_of(LIMIT_DASH), "width": 2, "color": COLOURS[_INK]},
                hovertemplate=f"{words(drawing.line)}<br>{words(x)}: %{{x}}<br>%{{y:.3g}}<extra></extra>",
                meta={"keys": ["limit"], "ink": _INK},
            )  # fmt: skip
    for series in panel.series:
        line = {"dash": series.look.dash, "width": 2}
        name = words(f"{series.name}  {series.note}".strip())
        _add(figure, series.look, series.x, series.mean, line, name, x, ends=(series.low, series.high))
    low, high, log_y = y_range(drawing)
    ends = np.log10([low, high]) if log_y else np.array([low, high])
    _set_y(figure, drawing.y_label, (float(ends[0]), float(ends[1])), log_y)
    _set_x(figure, x, np.concatenate([series.curve.x for series in panel.series]), drawing.log_x)
    return figure


def _add_band(figure: go.Figure, series: Series) -> None:
    there = np.isfinite(series.low) & np.isfinite(series.high)
    if there.sum() > 1:
        x, low, high = series.x[there], series.low[there], series.high[there]
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([low, high[::-1]]), mode="lines", line={"width": 0},
            fill="toself", fillcolor=_faint(series.look.colour), hoverinfo="skip",
            meta={"keys": [key_of(series.look)], "fill": series.look.colour},
        )  # fmt: skip


def _add(
    figure: go.Figure, look: Look, x, y, line: dict[str, Any], name: str, x_label: str, *, ends=None, theory=False
) -> None:
    """A curve; `ends` of its intervals are told on hovering."""
    interval = "" if ends is None else "<br>95 %: %{customdata[0]:.3g} to %{customdata[1]:.3g}"
    bars = None
    if ends is not None and np.isfinite(y).sum() < 2:
        # One point has no band to lie in.
        bars = {"array": ends[1] - y, "arrayminus": y - ends[0], "thickness": 1.5, "width": 5}
    figure.add_scatter(
        x=x, y=y, name=name, mode=_mode(x) if theory else "lines+markers", error_y=bars,
        line={**line, "color": COLOURS[look.colour]},
        marker=_DASH if theory else {"symbol": look.symbol, "size": 8, "color": COLOURS[look.colour], "maxdisplayed": _MARKS},
        customdata=None if ends is None else np.stack(ends, axis=1),
        hovertemplate=f"{name}<br>{words(x_label)}: %{{x:.6~g}}<br>%{{y:.3g}}{interval}<extra></extra>",
        meta={"keys": [key_of(look), "theory"] if theory else [key_of(look)], "ink": look.colour},
    )  # fmt: skip


def _mode(x: np.ndarray) -> str:
    """A line of one point would not be seen."""
    return "lines" if len(x) > 1 else "markers"


def cloud_chart(result: Result, clouds: Sequence[Cloud], log_y: bool) -> go.Figure:
    """Every seed as a point, told by its seed and how its cell ended on hovering. Cells without a value stand as crosses at the
    upper end; curves and seeds of one x stand side by side."""
    figure = go.Figure(layout=_layout())
    x = label_of(result, result.experiment.x)
    values = np.concatenate([cloud.y for cloud in clouds if not cloud.failed] or [np.array([])])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.1, 1.0)
    top = high * (high / low) ** 0.08 * 1.05 if log_y else high + 0.08 * (high - low or 1.0)
    for cloud in clouds:
        y = np.full(len(cloud.x), top) if cloud.failed else cloud.y
        value = "no value" if cloud.failed else "%{y:.3g}"
        name = words(f"{cloud.name}: {cloud.status}" if cloud.status else cloud.name)
        figure.add_scattergl(
            x=cloud.shown_x.astype(np.float32), y=y.astype(np.float32), mode="markers", name=name,
            marker={
                "symbol": "x-thin-open" if cloud.failed else cloud.look.symbol,
                "size": 8 if cloud.failed else 6,
                "color": COLOURS[cloud.look.colour],
                "opacity": 1.0 if cloud.failed else 0.55,
                "line": {"width": 1.5 if cloud.failed else 0},
            },
            customdata=np.stack([cloud.seed, cloud.x], axis=1).astype(_smallest(cloud.seed, cloud.x)),
            hovertemplate=f"{name}<br>seed %{{customdata[0]}}<br>{words(x)}: %{{customdata[1]:.6~g}}<br>{value}<extra></extra>",
            meta={"keys": [key_of(cloud.look)], "ink": cloud.look.colour},
        )  # fmt: skip
    margin = 0.04 * (np.log10(top / low) if log_y else top - low)
    ends = (np.log10(low), np.log10(top)) if log_y else (low, top)
    y_label = label_of(result, result.experiment.y[0])
    _set_y(figure, y_label, (float(ends[0] - margin), float(ends[1] + margin)), log_y)
    _set_x(figure, x, np.concatenate([cloud.x for cloud in clouds]), all((cloud.x > 0).all() for cloud in clouds))
    return figure


def path_chart(result: Result, clouds: Sequence[Cloud], log_y: bool) -> go.Figure:
    """Every seed as a thin line along an x that cells return."""
    figure = go.Figure(layout=_layout())
    x = label_of(result, result.experiment.x)
    for cloud in clouds:
        # A gap after every seed keeps one trace for all.
        ends = np.flatnonzero(np.diff(cloud.seed)) + 1
        gaps = [np.insert(values.astype(float), ends, np.nan) for values in (cloud.x, cloud.y, cloud.seed)]
        name = words(f"{cloud.name}: {cloud.status}" if cloud.status else cloud.name)
        figure.add_scattergl(
            x=gaps[0].astype(np.float32), y=gaps[1].astype(np.float32), mode="lines", name=name, opacity=0.5,
            line={"width": 1, "color": COLOURS[cloud.look.colour]}, connectgaps=False,
            customdata=gaps[2].astype(np.float32),
            hovertemplate=f"{name}<br>seed %{{customdata}}<br>{words(x)}: %{{x}}<br>%{{y:.3g}}<extra></extra>",
            meta={"keys": [key_of(cloud.look)], "ink": cloud.look.colour},
        )  # fmt: skip
    values = np.concatenate([cloud.y for cloud in clouds])
    low, high = (np.log10 if log_y else np.asarray)([values.min(), values.max()])
    margin = 0.05 * (high - low) or 0.5
    y_label = label_of(result, result.experiment.y[0])
    _set_y(figure, y_label, (float(low - margin), float(high + margin)), log_y)
    _set_x(figure, x, np.concatenate([cloud.x for cloud in clouds]), False)
    return figure


def heat_chart(x_label: str, y_label: str, x: np.ndarray, y: np.ndarray, z: np.ndarray, z_label: str) -> go.Figure:
    """A value z (rows, columns) over two axes, each measured value a tile of equal size; coloured by decades where all values
    are positive and span a factor of 8 or more."""
    figure = go.Figure(layout=_layout())
    known = z[np.isfinite(z)]
    log = bool(known.size) and known.min() > 0 and known.max() >= 8 * known.min()
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log10(z) if log else z
    bar: dict[str, Any] = {"thickness": 12, "outlinewidth": 0, "title": {"text": words(z_label), "side": "right"}}
    if log:
        decades = 10.0 ** np.arange(np.floor(np.log10(known.min())), np.ceil(np.log10(known.max())) + 1)
        ticks = np.outer(decades, [1, 2, 5] if len(decades) < 5 else [1]).ravel()
        ticks = ticks[(ticks >= known.min()) & (ticks <= known.max())]
        bar |= {"tickvals": np.log10(ticks), "ticktext": [digits(tick, 1) for tick in ticks]}
    # Where there is room, tiles tell their value.
    told = (
        {"text": [[digits(value, 2) for value in row] for row in z], "texttemplate": "%{text}"} if z.size <= 64 else {}
    )
    figure.add_heatmap(
        # Names of categories: sizes grow by factors, tiles do not.
        x=[short(value) for value in x], y=[short(value) for value in y], z=shown, customdata=z, colorscale="Viridis",
        xgap=1,
        ygap=1,
        colorbar=bar,
        **told,
        hovertemplate=f"{words(x_label)} = %{{x}}<br>{words(y_label)} = %{{y}}<br>%{{customdata:.3g}}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(type="category", title_text=words(x_label))
    figure.update_yaxes(type="category", title_text=words(y_label))
    return figure


def key_of(look: Look) -> str:
    """The entry of the legend that switches the curves of this look."""
    return f"{look.colour}-{look.symbol}-{len(look.dashes)}"


def _smallest(*values: np.ndarray) -> type:
    """The smallest type of number that holds all values as they are."""
    whole = all(np.array_equal(one, np.trunc(one)) and (not one.size or np.abs(one).max() < 2**31) for one in values)
    return np.int32 if whole else np.float64


def _faint(colour: int) -> str:
    red, green, blue = (int(COLOURS[colour][i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {_BAND})"


def _layout() -> dict[str, Any]:
    return {
        "template": {},
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 62, "r": 12, "t": 12, "b": 48},
        "xaxis": {"zeroline": False, "ticks": "outside", "ticklen": 4},
        "yaxis": {"zeroline": False, "automargin": True, "exponentformat": "power", "title": {"standoff": 6}},
    }


def _set_y(figure: go.Figure, label: str, ends: tuple[float, float], log: bool) -> None:
    """`ends` are logarithms where the axis is logarithmic."""
    figure.update_yaxes(type="log" if log else "linear", range=list(ends), title_text=words(label))
    if log and 1 < ends[1] - ends[0] < 3:
        # The digits 2 and 5 of every decade; Plotly would write all of them.
        figure.update_yaxes(dtick="D2")


def _set_x(figure: go.Figure, label: str, x: np.ndarray, log: bool) -> None:
    """Ticks at the x that were measured, as many as have room; Plotly's own along a linear axis."""
    figure.update_xaxes(type="log" if log else "linear", title_text=words(label))
    values = np.unique(x[np.isfinite(x)])
    if log and values.size:
        room, ticks = np.log(values[-1] / values[0]) / _TICKS, [values[0]]
        for value in values[1:]:
            if np.log(value / ticks[-1]) >= room:
                ticks.append(value)
        figure.update_xaxes(tickvals=ticks, ticktext=[short(tick) for tick in ticks])
