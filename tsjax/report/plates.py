"""Everything that a result shows on paper, by name: drawings of curves, maps, the surface, and pictures of arrays."""

from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from ..sweep.result import Result
from .figures import draw, drawings, heat_figure
from .heat import Heat, all_maps
from .numbers import digits, short
from .pictures import Picture, picture_figure, pictures_of
from .sentences import Fitted, fitted, is_scattered, surface_sentence
from .series import Drawing
from .surfaces import NAME, surface_figure

Plate: TypeAlias = Drawing | Heat | Fitted | Picture


def plates(result: Result, maps: int | None = None) -> dict[str, Plate]:
    """What a result shows, by the names of files, with at most that many `maps`. Runs that make no curves appear only as points
    of their surface; a surface that cannot be fitted is left out."""
    found: dict[str, Plate] = {}
    if not is_scattered(result):
        found |= {drawing.name: drawing for drawing in drawings(result)}
        found |= {heat.name: heat for heat in all_maps(result)[:maps]}
    try:
        surface = fitted(result)
    except ValueError:  # The page says why.
        surface = None
    found |= {} if surface is None else {NAME: surface}
    return found | {picture.name: picture for picture in pictures_of(result)}


def figure_of(result: Result, plate: Plate, style: str = "page") -> Figure:
    """A plate as a figure as wide as a `column` or a `page` of text."""
    if isinstance(plate, Heat):
        return heat_figure(plate, style)
    if isinstance(plate, Fitted):
        return surface_figure(plate, style)
    return picture_figure(plate, style) if isinstance(plate, Picture) else draw(result, plate, style)


def rows_of(result: Result, plate: Heat | Fitted | Picture) -> list[dict[str, Any]]:
    """The values that a map, a surface or a picture shows, as the rows of a table.

    - A map: the two arguments, and the `mean`.
    - A surface: the two arguments of each run with its `mean`, the `fitted` value, and its interval `low`, `high`.
    - A picture: the name of the `array`, the place along its axes, and its `value`, or the coordinates of a point.
    """
    if isinstance(plate, Heat):
        known = np.argwhere(np.isfinite(plate.z))
        return [{plate.axes[0]: plate.x[j], plate.axes[1]: plate.y[i], "mean": plate.z[i, j]} for i, j in known]
    if isinstance(plate, Fitted):
        asked, surface = result.spec.surface, plate.surface
        assert asked is not None
        columns = (surface.n, surface.d, surface.mean_loss, *surface.predict(surface.n, surface.d))
        names = (asked.n, asked.d, "mean", "fitted", "low", "high")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    rows = []
    for label, values in plate.arrays.items():
        if plate.kind == "points":
            names = [f"{plate.axes[1]} {number}" for number in (1, 2)]
            rows += [
                {"array": label, plate.axes[0]: i, **dict(zip(names, row, strict=True))} for i, row in enumerate(values)
            ]
        else:
            rows += [
                {"array": label, **dict(zip(plate.axes, at, strict=True)), "value": value}
                for at, value in np.ndenumerate(values)
            ]
    return rows


def sentence_of(result: Result, plate: Heat | Fitted | Picture) -> str:
    """What a map, a surface or a picture shows, for its caption."""
    if isinstance(plate, Fitted):
        return surface_sentence(result)
    if isinstance(plate, Picture):
        return f"{', '.join(plate.arrays)} of one cell: {plate.title}."
    known = np.where(np.isfinite(plate.z), plate.z, np.nan)
    if np.isnan(known).all():
        return f"Mean {plate.heading}."
    ends = [np.unravel_index(choose(known), known.shape) for choose in (np.nanargmin, np.nanargmax)]
    least, most = (
        f"{digits(known[i, j])} at {plate.axes[0]} = {short(plate.x[j])}, {plate.axes[1]} = {short(plate.y[i])}"
        for i, j in ends
    )
    return f"Mean {plate.heading}: from {least}, to {most}."
