"""Figures as Plotly takes them: traces, axes and what they share.

Every trace carries in `meta` what the page needs to know of it: `keys`, the entries of the legend that switch it, and `ink`,
its colour as a place in `tsjax.report.look.COLOURS` (`fill`: that of its area), which the page replaces on a dark background;
`mark`: the number of the verdict that it shows.
"""

import base64
import html
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .look import COLOURS, Look
from .numbers import short
from .series import Scale, ticks_at

# At most this many ticks along an axis of sample sizes.
_TICKS = 7.0


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


class Axes:
    """Where values lie in a figure: Plotly has no symlog axis, so there positions are given, and values shown on hovering."""

    def __init__(self, x: Scale, y: Scale):
        self.x, self.y = x, y

    def places(self, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """The `x` and `y` of a trace."""
        return {
            name: scale.forward(values) if scale.kind == "symlog" else np.asarray(values)
            for name, scale, values in (("x", self.x, x), ("y", self.y, y))
        }

    def hovered(self, x: np.ndarray, y: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray | None, str, str]:
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


def key_of(look: Look) -> str:
    """The entry of the legend that switches the curves of this look."""
    return f"{look.colour}-{look.symbol}-{len(look.dashes)}"


def faint(colour: int, share: float) -> str:
    red, green, blue = (int(COLOURS[colour][i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {share})"


def layout_of() -> dict[str, Any]:
    return {
        "template": {},
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 62, "r": 12, "t": 12, "b": 48},
        "xaxis": {"zeroline": False, "ticks": "outside", "ticklen": 4},
        "yaxis": {"zeroline": False, "automargin": True, "exponentformat": "power", "title": {"standoff": 6}},
    }


def set_y(plot: Plot, label: str, ends: tuple[float, float], scale: Scale, margin: float = 0.0) -> None:
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


def set_x(plot: Plot, label: str, x: np.ndarray | None, scale: Scale) -> None:
    """Ticks at the x that are to be marked, as many as have room; else Plotly's own."""
    axis = plot.layout["xaxis"]
    axis |= {"type": "log" if scale.kind == "log" else "linear", "title": {"text": words(label)}}
    values = np.zeros(0) if x is None else np.unique(x[np.isfinite(x)])
    if scale.kind == "linear" or not values.size:
        return
    ticks = ticks_at(scale, values, _TICKS)
    axis |= {"tickvals": scale.forward(ticks).tolist() if scale.kind == "symlog" else ticks.tolist()}
    axis["ticktext"] = [short(tick) for tick in ticks]
