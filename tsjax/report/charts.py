"""Interactive charts of means for the page: curves with theory, published values and verdicts, and maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..sweep.result import Result
from .heat import Heat
from .look import COLOURS, INK, LIMIT_DASH, THEORY_DASH, Look, dash_of
from .marks import Mark, marks_of
from .numbers import digits, short
from .plot import Axes, Plot, faint, key_of, layout_of, set_x, set_y, words
from .series import Drawing, Panel, Scale, Series, marked_x, y_range

_BAND, _EDGE = 0.07, 0.55
# A dense curve shows this many markers, since more would cover it.
_MARKS = 12
# The marker of a line with one point.
_DASH = {"symbol": "line-ew-open", "size": 16, "line": {"width": 2}}
# The most letters of a name beside its curve, and the least distance of such names, as a share of the axis.
_LETTERS, _APART = 31, 0.052
# With more verdicts than this in a panel, each is shown only when the reader selects it.
_MOST_MARKS = 6
# The name of Viridis in Plotly.
_COLOURSCALE = "Viridis"


def curve_chart(result: Result, drawing: Drawing, panel: Panel) -> Plot:
    """One panel of a drawing: allowed ranges, bands, theory dashed, the limit dotted, and measured curves in front."""
    plot, x_label = Plot(layout=layout_of()), drawing.x_label
    low, high, y_scale = y_range(drawing)
    axes = Axes(drawing.x_scale, y_scale)
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
        # All students share one limit, so it is drawn once.
        if not any(limit.shape == other.shape and np.allclose(limit, other) for other in limits[:place]):
            data, x, y = axes.hovered(*limit)
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
        if series.published is not None:
            _add_published(plot, axes, series, x_label)
    set_y(plot, drawing.y_label, (low, high), y_scale)
    set_x(plot, x_label, marked_x(result, drawing, panel), drawing.x_scale)
    _name_beside(plot, y_scale, (low, high), panel.series)
    return plot


def _add_mark(plot: Plot, axes: Axes, mark: Mark, always: bool) -> None:
    """The allowed range of a verdict, and its part of the curve drawn broadly."""
    look = mark.series.look
    meta = {"keys": [key_of(look)], "mark": mark.number, "always": always}
    for x, y in mark.areas:
        plot.add(
            "scatter", **axes.places(x, y), mode="lines", fill="toself", fillcolor=faint(look.colour, 0.13), hoverinfo="skip",
            line={"width": 0}, meta={**meta, "fill": look.colour, "share": 0.13, "edge": 0.0},
        )  # fmt: skip
    for x, y in mark.edges:
        plot.add(
            "scatter", **axes.places(x, y), mode="lines", hoverinfo="skip",
            line={"width": 1.5, "dash": "2px,3px", "color": COLOURS[look.colour]}, meta={**meta, "ink": look.colour},
        )  # fmt: skip
    plot.add(
        "scatter", **axes.places(mark.x, mark.y), mode="lines" if len(mark.x) > 1 else "markers", hoverinfo="skip",
        line={"width": 9, "color": faint(look.colour, 0.22)},
        marker={"size": 18, "color": faint(look.colour, 0.22), "line": {"width": 0}},
        meta={**meta, "halo": look.colour, "share": 0.22},
    )  # fmt: skip


def _add_band(plot: Plot, axes: Axes, series: Series) -> None:
    """The outline of an interval: filled areas that overlap would mix to colours that belong to no curve."""
    there = np.isfinite(series.low) & np.isfinite(series.high)
    if there.sum() > 1:
        x, low, high = series.x[there], series.low[there], series.high[there]
        places = axes.places(np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]]))
        colour = series.look.colour
        plot.add(
            "scatter", **places, mode="lines", fill="toself", fillcolor=faint(colour, _BAND), hoverinfo="skip",
            line={"width": 1, "color": faint(colour, _EDGE)},
            meta={"keys": [key_of(series.look)], "fill": colour, "share": _BAND, "edge": _EDGE},
        )  # fmt: skip


def _add(
    plot: Plot, axes: Axes, look: Look, x, y, line: dict[str, Any], name: str, x_label: str, *, ends=None, theory=False
) -> None:
    """A curve; hovering shows the `ends` of its intervals."""
    interval = "" if ends is None else "<br>95 %: %{customdata[0]:.3g} to %{customdata[1]:.3g}"
    places = axes.places(x, y)
    bars = None
    if ends is not None and np.isfinite(y).sum() < 2:
        # A single point has no band, so it gets error bars.
        low, high = (axes.places(x, end)["y"] for end in ends)
        bars = {"array": high - places["y"], "arrayminus": places["y"] - low, "thickness": 1.5, "width": 5}
    data, at_x, at_y = axes.hovered(x, y, *(ends or ()))
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


def _add_published(plot: Plot, axes: Axes, series: Series, x_label: str) -> None:
    """Published values, as stars in the colour of the curve with which they are compared."""
    assert series.published is not None
    x, value, error = series.published.T
    places = axes.places(x, value)
    reach = axes.places(x, value + error)["y"] - places["y"]
    data, at_x, at_y = axes.hovered(x, value, error)
    name = words(series.name)
    plot.add(
        "scatter", **places, mode="markers", customdata=data, name=f"{name}, published",
        error_y={"array": reach, "thickness": 1.5, "width": 4} if error.any() else None,
        marker={"symbol": "star", "size": 12, "color": COLOURS[series.look.colour], "line": {"width": 1}},
        hovertemplate=(
            f"{name}, published<br>{words(x_label)}: %{{{at_x}:.6~g}}"
            f"<br>%{{{at_y}:.3g}} ± %{{customdata[0]:.2g}}<extra></extra>"
        ),
        meta={"keys": [key_of(series.look), "published"], "ink": series.look.colour},
    )  # fmt: skip


def _name_beside(plot: Plot, scale: Scale, ends: tuple[float, float], series: Sequence[Series]) -> None:
    """The name of every curve beside its end, in its colour; names that would overlap are moved apart. On narrow screens the
    page's script hides them, since the legend has them too."""
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
        # Within the axis, if there is room.
        reach = apart * (count - 1) / 2
        groups.append((min(max(middle, reach), max(1 - reach, reach)), count))
    return [middle + apart * (i - (count - 1) / 2) for middle, count in groups for i in range(count)]


def _mode(x: np.ndarray) -> str:
    """`lines`, or `markers` for a single point, which would not show as a line."""
    return "lines" if len(x) > 1 else "markers"


def heat_chart(heat: Heat) -> Plot:
    """A value over two axes, with a tile of equal size for each measured value. Colours are logarithmic if all values are
    positive and span a factor of 8 or more."""
    plot = Plot(layout=layout_of())
    log, ticks = heat.decades
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log10(heat.z) if log else heat.z
    bar: dict[str, Any] = {"thickness": 12, "outlinewidth": 0, "title": {"text": words(heat.z_label), "side": "right"}}
    if log:
        bar |= {"tickvals": np.log10(ticks), "ticktext": [f"{tick:.1g}" for tick in ticks]}
    # If there is room, tiles show their values.
    written = (
        {"text": [[digits(value, 2) for value in row] for row in heat.z], "texttemplate": "%{text}"}
        if heat.z.size <= 64
        else {}
    )
    x_label, y_label = words(heat.x_label), words(heat.y_label)
    plot.add(
        # x and y are categories: sizes grow by factors, but tiles have equal size.
        "heatmap", x=[short(value) for value in heat.x], y=[short(value) for value in heat.y], z=shown, customdata=heat.z,
        colorscale=_COLOURSCALE, xgap=1, ygap=1, colorbar=bar, **written,
        hovertemplate=f"{x_label} = %{{x}}<br>{y_label} = %{{y}}<br>%{{customdata:.3g}}<extra></extra>",
    )  # fmt: skip
    plot.layout["xaxis"] |= {"type": "category", "title": {"text": x_label}}
    plot.layout["yaxis"] |= {"type": "category", "title": {"text": y_label, "standoff": 6}}
    return plot
