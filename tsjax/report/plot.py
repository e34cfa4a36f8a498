"""Figures for Plotly: traces, axes and their common layout.

The `meta` of every trace holds what the page's script needs: `keys`, the legend entries that switch it; `ink`, its colour as an
index in `tsjax.report.look.COLOURS` (`fill`: that of its area), which the page replaces on a dark background; and `mark`, the
number of the verdict that it shows.
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
    """A figure for Plotly: traces and a layout. NumPy arrays may occur anywhere in it."""

    data: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, **trace: Any) -> None:
        """Adds a trace; options that are None are left out."""
        self.data.append({"type": kind} | {name: value for name, value in trace.items() if value is not None})

    def content(self) -> dict[str, Any]:
        """The figure in plain JSON types. Arrays are in base 64, which is exact and short."""
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
    """Text escaped for Plotly, which otherwise interprets tags and `%{...}` and ignores line breaks."""
    return html.escape(text, quote=False).replace("%{", "%&#123;").replace("\n", "<br>")


class Axes:
    """The positions of values in a figure. Plotly has no symlog axis, so on such an axis traces hold positions, and hovering
    shows the values."""

    def __init__(self, x: Scale, y: Scale):
        self.x, self.y = x, y

    def places(self, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """The `x` and `y` of a trace."""
        return {
            name: scale.forward(values) if scale.kind == "symlog" else np.asarray(values)
            for name, scale, values in (("x", self.x, x), ("y", self.y, y))
        }

    def hovered(self, x: np.ndarray, y: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray | None, str, str]:
        """The custom data of a trace, and the names of x and y in its hover template."""
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
    """The key of the legend entry that switches the curves with this look."""
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
    """Sets the y axis from one value to another, extended by a share `margin` at both ends."""
    low, high = (float(place) for place in scale.forward(np.array(ends)))
    margin *= high - low or 1.0
    low, high = low - margin, high + margin
    axis = plot.layout["yaxis"]
    axis |= {"type": "log" if scale.kind == "log" else "linear", "range": [low, high]}
    axis["title"] = {"text": words(label), "standoff": 6}
    if scale.kind == "log" and 1 < high - low < 3:
        # Labels at 2 and 5 in every decade; Plotly would label every digit.
        axis["dtick"] = "D2"
    if scale.kind == "symlog":
        axis |= _symlog_ticks(scale, scale.ticks(np.array([*ends, scale.near])))


def _symlog_ticks(scale: Scale, ticks: np.ndarray) -> dict[str, Any]:
    return {"tickvals": scale.forward(ticks).tolist(), "ticktext": [f"{tick:.4g}" for tick in ticks]}


def set_x(plot: Plot, label: str, x: np.ndarray | None, scale: Scale) -> None:
    """Sets ticks at those of the given x for which there is room, or leaves them to Plotly if x is None."""
    axis = plot.layout["xaxis"]
    axis |= {"type": "log" if scale.kind == "log" else "linear", "title": {"text": words(label)}}
    values = np.zeros(0) if x is None else np.unique(x[np.isfinite(x)])
    if scale.kind == "linear" or not values.size:
        return
    ticks = ticks_at(scale, values, _TICKS)
    axis |= {"tickvals": scale.forward(ticks).tolist() if scale.kind == "symlog" else ticks.tolist()}
    axis["ticktext"] = [short(tick) for tick in ticks]
