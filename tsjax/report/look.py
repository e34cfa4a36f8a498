"""How curves are distinguished, on paper and on the page: by colour, and also by marker and dashes.

Colours are those of Okabe and Ito, which readers of every colour vision can tell apart, with lighter ones for dark pages.
Markers and dashes differ too, so that a figure can be read in grey.
"""

from typing import Any, NamedTuple

# For a light and for a dark page: colours of names, where the last one is that of text, then a ramp for numbers.
_NAMES, _RAMP = 7, 8
INK = _NAMES - 1
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
    "#440154", "#472e7c", "#3a528b", "#2c718e", "#20908d", "#2bad7f", "#5cc863", "#a2c614",
)  # fmt: skip
DARK_COLOURS = (
    "#58A6E8", "#FF8B4A", "#2EC99B", "#E79CC6", "#F2B632", "#A5DBFF", "#E6EDF3",
    "#9d7bff", "#6f92ee", "#45a5dc", "#2fb5c0", "#35c39b", "#63d06f", "#a5db3e", "#fde725",
)  # fmt: skip

# Matplotlib's name, Plotly's name, and a path for the legend of the page.
_MARKERS = (
    ("o", "circle", "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0"),
    ("s", "square", "M-3.5,-3.5h7v7h-7z"),
    ("^", "triangle-up", "M-4.5,3.5h9l-4.5,-8z"),
    ("D", "diamond", "M-4.5,0l4.5,-4.5l4.5,4.5l-4.5,4.5z"),
    ("v", "triangle-down", "M-4.5,-3.5h9l-4.5,8z"),
    ("P", "cross", "M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"),
    ("X", "x", "M-4.5,-2.5l2,-2l2.5,2.5l2.5,-2.5l2,2l-2.5,2.5l2.5,2.5l-2,2l-2.5,-2.5l-2.5,2.5l-2,-2l2.5,-2.5z"),
    ("<", "triangle-left", "M3.5,-4.5v9l-8,-4.5z"),
    (">", "triangle-right", "M-3.5,-4.5v9l8,-4.5z"),
)
# Lengths in points, short enough for a legend; an empty tuple is a solid line.
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5.5, 2.0),
    (5.5, 1.6, 1.4, 1.6),
    (5.5, 1.5, 1.3, 1.5, 1.3, 1.5),
)

# Theory is thin, without markers: predicted curves finely dashed, the Cramér-Rao limit dotted.
THEORY_DASH, LIMIT_DASH = (2.7, 1.8), (1.4, 2.1)


class Look(NamedTuple):
    """The look of one curve: `colour` is an index in `COLOURS`; `marker` is for Matplotlib, `symbol` for Plotly and `path` for
    SVG; `dashes` are in points; `hollow`: whether the marker is only an outline."""

    colour: int
    marker: str
    symbol: str
    path: str
    dashes: tuple[float, ...]
    hollow: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """The options of a Matplotlib line."""
        dashes = (0.0, tuple(length / 1.3 for length in self.dashes)) if self.dashes else "-"
        filled = {"markerfacecolor": "none"} if self.hollow else {}
        return {"color": COLOURS[self.colour], "marker": self.marker, "linestyle": dashes, **filled}

    @property
    def dash(self) -> str:
        """The dashes for Plotly and SVG."""
        return dash_of(self.dashes)


def dash_of(dashes: tuple[float, ...]) -> str:
    """Dashes as Plotly writes them: lengths in pixels of the page, or `solid`."""
    return ",".join(f"{1.4 * length:.3g}px" for length in dashes) or "solid"


def look_of(number: int) -> Look:
    """The look of a curve by its number. Cycles have different lengths, so that no two of the first 252 looks are equal."""
    return _look(number % _NAMES, number, number)


def look_within(number: int, count: int, ordered: bool, line: int, alone: bool) -> Look:
    """The look of a curve by its place, `number`, among `count` values of other arguments, which gives its colour (from a ramp
    if they are `ordered` numbers), and by the number of its learner, `line`, which gives dashes and marker. If `alone`, there
    is only one learner, and the markers show the values."""
    if ordered:
        colour = _NAMES + (number * (_RAMP - 1)) // max(count - 1, 1) % _RAMP
    else:
        colour = number % _NAMES
    return _look(colour, number if alone else line, line)


def _look(colour: int, marker: int, dashes: int) -> Look:
    return Look(colour, *_MARKERS[marker % len(_MARKERS)], _DASHES[dashes % len(_DASHES)], hollow=bool(marker % 2))
