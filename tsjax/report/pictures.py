"""Pictures of the arrays that cells return, for one cell of every curve: points with two coordinates, lines, and maps."""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from ..sweep.curve import Curve
from ..sweep.result import Result
from .figures import settings, width_of
from .look import COLOURS, look_of
from .numbers import full_name, label_of, short
from .plot import Plot, key_of, layout_of, words

Kind: TypeAlias = Literal["points", "line", "map"]

# From blue through white to red, as in Matplotlib's RdBu_r.
_COLOURS = [[0.0, "#053061"], [0.25, "#4393c3"], [0.5, "#f7f7f7"], [0.75, "#d6604d"], [1.0, "#67001f"]]
# The name of the second axis of an array of points in a plane.
_PLANE = "coordinate"
# The most pictures of one kind.
MOST = 12


class Picture(NamedTuple):
    """Arrays of one cell, by their labels. Rows of two numbers along an axis `coordinate` are `points`, which share one
    picture; an array (k,) is a `line`, and (k, l) a `map`. `name` is for files, `title` names the cell, `axes` the axes."""

    name: str
    title: str
    kind: Kind
    axes: tuple[str, ...]
    arrays: dict[str, np.ndarray]


def pictures_of(result: Result) -> list[Picture]:
    """The pictures of a result: for each array with one or two axes and each of at most `MOST` curves, the cell with the
    smallest seed at the largest x."""
    found = []
    for name, axes in result.experiment.arrays.items():
        if len(axes) > 2:
            continue
        for place, curve in enumerate(result.curves()[:MOST]):
            cell = _cell(result, name, curve)
            if cell is None:
                continue
            array, where = cell
            plane = array.shape[1:] == (2,) and axes[1:] == (_PLANE,)
            kind = "line" if array.ndim == 1 else "points" if plane else "map"
            title = f"{full_name(result, curve)}{where}"
            same = lambda one, title=title, axes=axes: (
                one.kind == "points" and one.title == title and one.axes[1:] == axes[1:]
            )
            other = next((one for one in found if kind == "points" and same(one)), None)
            if other is None:
                found.append(Picture(f"{name}_{place}", title, kind, axes, {label_of(result, name): array}))
            else:
                other.arrays[label_of(result, name)] = array
    return found


def _cell(result: Result, name: str, curve: Curve) -> tuple[np.ndarray, str] | None:
    """The array of one cell, and words that say which cell it is; None if there is no array, or no number in it."""
    x = result.experiment.x
    # If cells return x, every cell has all of it.
    part = curve if result.experiment.returns_x else curve.rows(np.array([len(curve.x) - 1]))
    arrays = result.arrays(name, part)
    for cell in arrays:
        if np.isfinite(cell).any():
            where = "" if result.experiment.returns_x else f", {label_of(result, x)} = {short(part.x[0])}"
            return cell.to_numpy(), f"{where}, seed {int(cell['seed'])}"
    return None


def picture_chart(picture: Picture) -> Plot:
    """A picture for the page."""
    plot = Plot(layout=layout_of())
    first, second = _labels(picture)
    if picture.kind == "map":
        ((_, values),) = picture.arrays.items()
        plot.add("heatmap", z=values, colorscale=_COLOURS, zmid=0.0, colorbar={"thickness": 12, "outlinewidth": 0})
    for place, (label, values) in enumerate(picture.arrays.items() if picture.kind != "map" else ()):
        look = look_of(place)
        points = picture.kind == "points"
        x, y = values.T if points else (np.arange(len(values)), values)
        plot.add(
            "scatter", x=x, y=y, name=words(label), mode="markers" if points else "lines",
            marker={
                "symbol": look.symbol + ("-open" if look.hollow else ""),
                "size": 9 if points else 0,
                "color": COLOURS[look.colour],
                "line": {"width": 1.5 if look.hollow else 0},
            },
            line={"width": 2, "color": COLOURS[look.colour]},
            hovertemplate=f"{words(label)}<br>%{{x:.4g}}, %{{y:.4g}}<extra></extra>",
            meta={"keys": [key_of(look)], "ink": look.colour},
        )  # fmt: skip
    plot.layout["xaxis"] |= {"title": {"text": words(first)}}
    plot.layout["yaxis"] |= {"title": {"text": words(second), "standoff": 6}}
    if picture.kind == "points":
        # Equal scales on both axes, so that directions are true.
        plot.layout["yaxis"] |= {"scaleanchor": "x", "zeroline": True}
        plot.layout["xaxis"] |= {"zeroline": True}
    return plot


def picture_figure(picture: Picture, style: str = "page") -> Figure:
    """A picture on paper."""
    with settings(grid=picture.kind == "line"):
        size = min(width_of(style), 4.2)
        figure = Figure(figsize=(size, 0.85 * size), layout="constrained")
        axes = figure.subplots()
        if picture.kind == "map":
            ((label, values),) = picture.arrays.items()
            most = float(np.nanmax(np.abs(values))) or 1.0
            drawn = axes.pcolormesh(values, cmap="RdBu_r", vmin=-most, vmax=most)
            figure.colorbar(drawn, ax=axes, label=label)
        for place, (label, values) in enumerate(picture.arrays.items() if picture.kind != "map" else ()):
            look = look_of(place).line
            if picture.kind == "points":
                axes.plot(*values.T, label=label, **{**look, "linestyle": ""})
            else:
                axes.plot(values, label=label, **{**look, "marker": ""})
        if picture.kind == "points":
            axes.set_aspect("equal", adjustable="datalim")
            for line in (axes.axhline, axes.axvline):
                line(0.0, color="#bbbbbb", linewidth=0.6, zorder=0)
        if len(picture.arrays) > 1:
            axes.legend()
        first, second = _labels(picture)
        axes.set_xlabel(first)
        axes.set_ylabel(second)
        axes.set_title(picture.title)
    return figure


def _labels(picture: Picture) -> tuple[str, str]:
    """The labels of the x and the y axis."""
    label = next(iter(picture.arrays))
    if picture.kind == "points":
        return f"{picture.axes[1]} 1", f"{picture.axes[1]} 2"
    return (picture.axes[0], label) if picture.kind == "line" else (picture.axes[1], picture.axes[0])
