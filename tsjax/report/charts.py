"""Interactive charts for the page, as Plotly's figures: one function for each kind of chart.

Every trace carries in `meta` what the page needs to know of it: `keys`, the entries of the legend that switch it, and `ink`,
its colour as a place in `tsjax.report.look.COLOURS` (`fill`: that of its area), which the page replaces on a dark background;
`mark`: the number of the verdict that it shows.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..sweep.result import Result
from .heat import Heat
from .look import COLOURS, INK, LIMIT_DASH, THEORY_DASH, Look, dash_of
from .marks import Mark, marks_of
from .numbers import digits, label_of, short
from .points import Cloud
from .series import Drawing, Panel, Scale, Series, ticks_at, y_range

_BAND, _EDGE = 0.07, 0.55
# Along a dense curve markers would cover it: this many are shown.
_MARKS = 12
# Where a line has one point.
_DASH = {"symbol": "line-ew-open", "size": 16, "line": {"width": 2}}
# At most this many ticks along an axis of sample sizes.
_TICKS = 7.0
# Letters of a name in a row beside its curve, and how near such names may come, as a share of the axis.
_LETTERS, _APART = 31, 0.052
# With more verdicts than this in a panel, each is shown when it is asked for.
_MOST_MARKS = 6
# Viridis, in steps that JSON carries well.
_COLOURSCALE = "Viridis"


@dataclass
class Plot:
    """A figure as Plotly takes it: traces, and a layout. Arrays of NumPy may stand anywhere in it."""

    data: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, **trace: Any) -> None:
        """Adds a trace; what is None is left out."""
        self.data.append({"type": kind} | {name: value for name, value in trace.items() if value is not None})

    def content(self) -> dict[str, Any]:
        """The figure in plain JSON types: numbers of arrays in base 64, exact and short."""
        return _plain({"data": self.data, "layout": self.layout})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "fi":
        return value.tolist()
    kinds = {"f8": "f8", "f4": "f4", "i4": "i4"}
    kind = f"{value.dtype.kind}{value.dtype.itemsize}"
    array = np.ascontiguousarray(value if kind in kinds else value.astype("f8"))
    content = {"dtype": kinds.get(kind, "f8"), "bdata": base64.b64encode(array.tobytes()).decode()}
    return content if array.ndim == 1 else {**content, "shape": ", ".join(map(str, array.shape))}


def words(text: str) -> str:
    """Text as Plotly shows it, which otherwise reads tags and `%{...}` in it, and no line breaks."""
    return html.escape(text, quote=False).replace("%{", "%&#123;").replace("\n", "<br>")


class _Axes:
    """Where values lie in a figure: Plotly has no symlog axis, so there positions are given, and values told on hovering."""

    def __init__(self, x: Scale, y: Scale):
        self.x, self.y = x, y

    def places(self, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """The `x` and `y` of a trace."""
        return {
            name: scale.forward(values) if scale.kind == "symlog" else np.asarray(values)
            for name, scale, values in (("x", self.x, x), ("y", self.y, y))
        }

    def told(self, x: np.ndarray, y: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray | None, str, str]:
        """Custom data of a trace, and how its template names x and y."""
        columns = [np.asarray(one, float) for one in more]
        names = []
        for name, scale, values in (("x", self.x, x), ("y", self.y, y)):
            if scale.kind == "symlog":
                columns.append(np.asarray(values, float))
                names.append(f"customdata[{len(columns) - 1}]")
            else:
                names.append(name)
        return np.stack(columns, axis=1) if columns else None, names[0], names[1]


def curve_chart(result: Result, drawing: Drawing, panel: Panel) -> Plot:
    """One panel of a drawing: allowed ranges, bands, theory dashed, the limit dotted, and measured curves in front."""
    plot = Plot(layout=_layout())
    x_label = label_of(result, result.experiment.x)
    low, high, y_scale = y_range(drawing)
    axes = _Axes(drawing.x_scale, y_scale)
    marks = marks_of(result, drawing, panel.series, (low, high), y_scale)
    for mark in marks:
        _add_mark(plot, axes, mark, always=len(marks) <= _MOST_MARKS)
    for series in panel.series:
        _add_band(plot, axes, series)
    for series in panel.series:
        if series.predicted is not None and np.any(series.predicted > 0):
            name = f"{words(series.name)}, theory"
            line = {"dash": dash_of(THEORY_DASH), "width": 1.6}
            _add(plot, axes, series.look, series.x, series.predicted, line, name, x_label, theory=True)
    limits = [np.stack([series.x, series.limit]) for series in panel.series if series.limit is not None]
    for place, limit in enumerate(limits):
        # All students share one limit: one line.
        if not any(limit.shape == other.shape and np.allclose(limit, other) for other in limits[:place]):
            data, x, y = axes.told(*limit)
            plot.add(
                "scatter", **axes.places(*limit), mode=_mode(limit[0]), marker=_DASH, customdata=data,
                line={"dash": dash_of(LIMIT_DASH), "width": 2, "color": COLOURS[INK]},
                hovertemplate=f"{words(drawing.line)}<br>{words(x_label)}: %{{{x}}}<br>%{{{y}:.3g}}<extra></extra>",
                meta={"keys": ["limit"], "ink": INK},
            )  # fmt: skip
    for series in panel.series:
        line = {"dash": series.look.dash, "width": 2}
        name = words(f"{series.name}  {series.note}".strip())
        _add(plot, axes, series.look, series.x, series.mean, line, name, x_label, ends=(series.low, series.high))
    _set_y(plot, drawing.y_label, (low, high), y_scale)
    _set_x(plot, x_label, np.concatenate([series.curve.x for series in panel.series]), drawing.x_scale)
    _name_beside(plot, y_scale, (low, high), panel.series)
    return plot


def _add_mark(plot: Plot, axes: _Axes, mark: Mark, always: bool) -> None:
    """The allowed range of a verdict, and its part of the curve drawn broadly."""
    look = mark.series.look
    meta = {"keys": [key_of(look)], "mark": mark.number, "always": always}
    for x, y in mark.areas:
        plot.add(
            "scatter", **axes.places(x, y), mode="lines", fill="toself", fillcolor=_faint(look.colour, 0.13), hoverinfo="skip",
            line={"width": 0}, meta={**meta, "fill": look.colour, "share": 0.13, "edge": 0.0},
        )  # fmt: skip
    for x, y in mark.edges:
        plot.add(
            "scatter", **axes.places(x, y), mode="lines", hoverinfo="skip",
            line={"width": 1.5, "dash": "2px,3px", "color": COLOURS[look.colour]}, meta={**meta, "ink": look.colour},
        )  # fmt: skip
    plot.add(
        "scatter", **axes.places(mark.x, mark.y), mode="lines" if len(mark.x) > 1 else "markers", hoverinfo="skip",
        line={"width": 9, "color": _faint(look.colour, 0.22)},
        marker={"size": 18, "color": _faint(look.colour, 0.22), "line": {"width": 0}},
        meta={**meta, "halo": look.colour, "share": 0.22},
    )  # fmt: skip


def _add_band(plot: Plot, axes: _Axes, series: Series) -> None:
    """An interval, outlined: areas that cover one another would mix to a colour that is nobody's."""
    there = np.isfinite(series.low) & np.isfinite(series.high)
    if there.sum() > 1:
        x, low, high = series.x[there], series.low[there], series.high[there]
        places = axes.places(np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]]))
        colour = series.look.colour
        plot.add(
            "scatter", **places, mode="lines", fill="toself", fillcolor=_faint(colour, _BAND), hoverinfo="skip",
            line={"width": 1, "color": _faint(colour, _EDGE)},
            meta={"keys": [key_of(series.look)], "fill": colour, "share": _BAND, "edge": _EDGE},
        )  # fmt: skip


def _add(
    plot: Plot, axes: _Axes, look: Look, x, y, line: dict[str, Any], name: str, x_label: str, *, ends=None, theory=False
) -> None:
    """A curve; `ends` of its intervals are told on hovering."""
    interval = "" if ends is None else "<br>95 %: %{customdata[0]:.3g} to %{customdata[1]:.3g}"
    places = axes.places(x, y)
    bars = None
    if ends is not None and np.isfinite(y).sum() < 2:
        # One point has no band to lie in.
        low, high = (axes.places(x, end)["y"] for end in ends)
        bars = {"array": high - places["y"], "arrayminus": places["y"] - low, "thickness": 1.5, "width": 5}
    data, at_x, at_y = axes.told(x, y, *(ends or ()))
    symbol = look.symbol + ("-open" if look.hollow else "")
    mark = {
        "symbol": symbol,
        "size": 8,
        "color": COLOURS[look.colour],
        "maxdisplayed": _MARKS,
        "line": {"width": 1.5 if look.hollow else 0},
    }
    plot.add(
        "scatter", **places, name=name, mode=_mode(x) if theory else "lines+markers", error_y=bars,
        line={**line, "color": COLOURS[look.colour]}, marker=_DASH if theory else mark, customdata=data,
        hovertemplate=f"{name}<br>{words(x_label)}: %{{{at_x}:.6~g}}<br>%{{{at_y}:.3g}}{interval}<extra></extra>",
        meta={"keys": [key_of(look), "theory"] if theory else [key_of(look)], "ink": look.colour},
    )  # fmt: skip


def _name_beside(plot: Plot, scale: Scale, ends: tuple[float, float], series: Sequence[Series]) -> None:
    """The name of every curve beside its end, in its colour, moved apart where they would cover one another. Narrow screens
    leave them out (the page's script): the legend has them too."""
    low, high = scale.forward(np.array(ends))
    there = [(one, one.mean[np.isfinite(one.mean)]) for one in series]
    kept = sorted(
        ((float((scale.forward(mean[-1:])[0] - low) / (high - low)), one) for one, mean in there if mean.size),
        key=lambda entry: entry[0],
    )
    if len(kept) < 2 or len(kept) > 1 / _APART:
        return
    for place, (_, one) in zip(spread([place for place, _ in kept], _APART), kept, strict=True):
        plot.layout.setdefault("annotations", []).append(
            {
                "name": f"{key_of(one.look)} {one.look.colour}",
                "text": words(_short_name(one.name)),
                "xref": "paper", "x": 1, "xanchor": "left", "xshift": 4,
                "yref": "paper", "y": place, "yanchor": "middle", "showarrow": False,
                "font": {"size": 11, "color": COLOURS[one.look.colour]},
            }
        )  # fmt: skip
    plot.layout["margin"]["r"] = 14 + int(5.9 * max(len(_short_name(one.name)) for _, one in kept))


def _short_name(name: str) -> str:
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1].rstrip(" ,") + "…"


def spread(places: Sequence[float], apart: float) -> list[float]:
    """Increasing places from 0 to 1 moved as little as needed to lie `apart`: neighbours that meet are centred together."""
    groups: list[tuple[float, int]] = []
    for place in places:
        middle, count = min(max(place, 0.0), 1.0), 1
        while groups and groups[-1][0] + apart * (groups[-1][1] + count) / 2 > middle:
            before, number = groups.pop()
            middle = (before * number + middle * count) / (number + count)
            count += number
        # Within the axis, as far as there is room.
        reach = apart * (count - 1) / 2
        groups.append((min(max(middle, reach), max(1 - reach, reach)), count))
    return [middle + apart * (i - (count - 1) / 2) for middle, count in groups for i in range(count)]


def _mode(x: np.ndarray) -> str:
    """A line of one point would not be seen."""
    return "lines" if len(x) > 1 else "markers"


def cloud_chart(result: Result, clouds: Sequence[Cloud], x_scale: Scale, y_scale: Scale) -> Plot:
    """Every seed as a point, told by its seed and how its cell ended on hovering. Cells without a value stand as crosses at the
    upper end; curves and seeds of one x stand side by side."""
    plot, axes = Plot(layout=_layout()), _Axes(x_scale, y_scale)
    x_label = label_of(result, result.experiment.x)
    low, high = _ends([cloud.y for cloud in clouds if not cloud.failed], y_scale)
    for cloud in clouds:
        y = np.full(len(cloud.x), high) if cloud.failed else cloud.y
        name = words(f"{cloud.name}: {cloud.status}" if cloud.status else cloud.name)
        data, _, at_y = axes.told(cloud.shown_x, y, cloud.seed, cloud.x)
        value = "no value" if cloud.failed else f"%{{{at_y}:.3g}}"
        places = axes.places(cloud.shown_x, y)
        symbol = "x-thin-open" if cloud.failed else cloud.look.symbol
        assert data is not None
        plot.add(
            "scatter", x=places["x"].astype(np.float32), y=places["y"].astype(np.float32), mode="markers", name=name,
            marker={
                "symbol": symbol,
                "size": 8 if cloud.failed else 6,
                "color": COLOURS[cloud.look.colour],
                "opacity": 1.0 if cloud.failed else 0.55,
                "line": {"width": 1.5 if cloud.failed else 0},
            },
            customdata=data.astype(_smallest(data)),
            hovertemplate=(
                f"{name}<br>seed %{{customdata[0]}}<br>{words(x_label)}: %{{customdata[1]:.6~g}}<br>{value}<extra></extra>"
            ),
            meta={"keys": [key_of(cloud.look)], "ink": cloud.look.colour},
        )  # fmt: skip
    _set_y(plot, label_of(result, result.experiment.y[0]), (low, high), y_scale, margin=0.04)
    _set_x(plot, x_label, np.concatenate([cloud.x for cloud in clouds]), x_scale)
    return plot


def path_chart(result: Result, clouds: Sequence[Cloud], x_scale: Scale, y_scale: Scale) -> Plot:
    """Every seed as a thin line along an x that cells return."""
    plot, axes = Plot(layout=_layout()), _Axes(x_scale, y_scale)
    x_label = label_of(result, result.experiment.x)
    for cloud in clouds:
        # A gap after every seed keeps one trace for all.
        ends = np.flatnonzero(np.diff(cloud.seed)) + 1
        x, y, seed = (np.insert(values.astype(float), ends, np.nan) for values in (cloud.x, cloud.y, cloud.seed))
        name = words(f"{cloud.name}: {cloud.status}" if cloud.status else cloud.name)
        data, at_x, at_y = axes.told(x, y, seed)
        places = axes.places(x, y)
        assert data is not None
        plot.add(
            "scatter", x=places["x"].astype(np.float32), y=places["y"].astype(np.float32), mode="lines", name=name, opacity=0.5,
            line={"width": 1, "color": COLOURS[cloud.look.colour]}, connectgaps=False, customdata=data.astype(np.float32),
            hovertemplate=(
                f"{name}<br>seed %{{customdata[0]}}<br>{words(x_label)}: %{{{at_x}}}<br>%{{{at_y}:.3g}}<extra></extra>"
            ),
            meta={"keys": [key_of(cloud.look)], "ink": cloud.look.colour},
        )  # fmt: skip
    _set_y(
        plot, label_of(result, result.experiment.y[0]), _ends([c.y for c in clouds], y_scale, 0.0), y_scale, margin=0.05
    )
    _set_x(plot, x_label, np.concatenate([cloud.x for cloud in clouds]), x_scale)
    return plot


def _ends(values: Sequence[np.ndarray], scale: Scale, above: float = 0.08) -> tuple[float, float]:
    """The least value, and one above the greatest by a share of the axis."""
    known = np.concatenate([np.zeros(0), *values])
    places = scale.forward(known if known.size else np.array([0.1, 1.0]))
    low, high = places.min(), places.max()
    low, high = scale.back(np.array([low, high + above * (high - low or 1.0)]))
    return float(low), float(high)


def heat_chart(heat: Heat) -> Plot:
    """A value over two axes, each measured value a tile of equal size; coloured by decades where all values are positive and
    span a factor of 8 or more."""
    plot = Plot(layout=_layout())
    log, ticks = heat.decades
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log10(heat.z) if log else heat.z
    bar: dict[str, Any] = {"thickness": 12, "outlinewidth": 0, "title": {"text": words(heat.z_label), "side": "right"}}
    if log:
        bar |= {"tickvals": np.log10(ticks), "ticktext": [f"{tick:.1g}" for tick in ticks]}
    # Where there is room, tiles tell their value.
    told = (
        {"text": [[digits(value, 2) for value in row] for row in heat.z], "texttemplate": "%{text}"}
        if heat.z.size <= 64
        else {}
    )
    x_label, y_label = words(heat.x_label), words(heat.y_label)
    plot.add(
        # Names of categories: sizes grow by factors, tiles do not.
        "heatmap", x=[short(value) for value in heat.x], y=[short(value) for value in heat.y], z=shown, customdata=heat.z,
        colorscale=_COLOURSCALE, xgap=1, ygap=1, colorbar=bar, **told,
        hovertemplate=f"{x_label} = %{{x}}<br>{y_label} = %{{y}}<br>%{{customdata:.3g}}<extra></extra>",
    )  # fmt: skip
    plot.layout["xaxis"] |= {"type": "category", "title": {"text": x_label}}
    plot.layout["yaxis"] |= {"type": "category", "title": {"text": y_label, "standoff": 6}}
    return plot


def key_of(look: Look) -> str:
    """The entry of the legend that switches the curves of this look."""
    return f"{look.colour}-{look.symbol}-{len(look.dashes)}"


def _smallest(values: np.ndarray) -> type:
    """The smallest type of number that holds all values as they are."""
    whole = np.array_equal(values, np.trunc(values)) and (not values.size or np.abs(values).max() < 2**31)
    return np.int32 if whole else np.float64


def _faint(colour: int, share: float) -> str:
    red, green, blue = (int(COLOURS[colour][i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {share})"


def _layout() -> dict[str, Any]:
    return {
        "template": {},
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 62, "r": 12, "t": 12, "b": 48},
        "xaxis": {"zeroline": False, "ticks": "outside", "ticklen": 4},
        "yaxis": {"zeroline": False, "automargin": True, "exponentformat": "power", "title": {"standoff": 6}},
    }


def _set_y(plot: Plot, label: str, ends: tuple[float, float], scale: Scale, margin: float = 0.0) -> None:
    """The y axis from one value to another, and a share beyond both."""
    low, high = (float(place) for place in scale.forward(np.array(ends)))
    margin *= high - low or 1.0
    low, high = low - margin, high + margin
    axis = plot.layout["yaxis"]
    axis |= {"type": "log" if scale.kind == "log" else "linear", "range": [low, high]}
    axis["title"] = {"text": words(label), "standoff": 6}
    if scale.kind == "log" and 1 < high - low < 3:
        # The digits 2 and 5 of every decade; Plotly would write all of them.
        axis["dtick"] = "D2"
    if scale.kind == "symlog":
        axis |= _symlog_ticks(scale, scale.ticks(np.array([*ends, scale.near])))


def _symlog_ticks(scale: Scale, ticks: np.ndarray) -> dict[str, Any]:
    return {"tickvals": scale.forward(ticks).tolist(), "ticktext": [f"{tick:.4g}" for tick in ticks]}


def _set_x(plot: Plot, label: str, x: np.ndarray, scale: Scale) -> None:
    """Ticks at the x that were measured, as many as have room; Plotly's own along a linear axis."""
    axis = plot.layout["xaxis"]
    axis |= {"type": "log" if scale.kind == "log" else "linear", "title": {"text": words(label)}}
    values = np.unique(x[np.isfinite(x)])
    if scale.kind == "linear" or not values.size:
        return
    ticks = ticks_at(scale, values, _TICKS)
    axis |= {"tickvals": scale.forward(ticks).tolist() if scale.kind == "symlog" else ticks.tolist()}
    axis["ticktext"] = [short(tick) for tick in ticks]
