"""The sections of the page, with their charts, legends and tables, in order."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..sweep.result import Result
from .charts import curve_chart, heat_chart
from .clouds import cloud_chart, path_chart, points_of
from .derived import derived_drawings
from .grids import Grid
from .heat import all_maps
from .look import LIMIT_DASH, THEORY_DASH, Look, dash_of, look_of
from .numbers import BEST_LINEAR, SUCCESS, label_of, the, x_is_returned
from .pictures import picture_chart, pictures_of
from .plot import Plot, key_of
from .series import (
    Drawing,
    column_drawing,
    limit_drawing,
    local_drawing,
    mean_drawing,
    rival_drawing,
)

# The most maps on a page.
MOST_MAPS = 24
# The column of the records that says how close a student's neurons are to its teacher's.
_ALIGNMENT = "alignment"
# The marker of published values in the legend.
_STAR = "M0,-6L1.4,-1.9L5.7,-1.9L2.2,0.7L3.5,4.9L0,2.3L-3.5,4.9L-2.2,0.7L-5.7,-1.9L-1.4,-1.9z"


class Chart(NamedTuple):
    """A Plotly figure with the `title` above it, empty if it is the only one."""

    title: str
    figure: Plot


class Entry(NamedTuple):
    """An entry of a legend: the `key` of the traces that it switches, its `name` and `note`, and its line in SVG: `ink`, the
    index of its colour, or -1 for that of the text; `dash`; the `path` of the marker, and whether that is `hollow`."""

    key: str
    name: str
    note: str
    ink: int
    dash: str
    path: str
    hollow: bool = False


@dataclass
class Section:
    """A part of the page. If `choose`, one chart is shown at a time, and a menu chooses it."""

    id: str
    title: str
    caption: str = ""
    charts: list[Chart] = field(default_factory=list)
    legend: list[Entry] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    choose: bool = False


def curves_section(result: Result, y: str) -> Section:
    """One y against x, with theory."""
    drawing = mean_drawing(result, y)
    along = x_is_returned(result)
    title = f"{label_of(result, y)} against {label_of(result, result.experiment.x)}"
    section = _drawn(result, f"curves-{y}", "Training trajectories: " + title if along else title, drawing)
    notes = []
    if any(series.predicted is not None for series in drawing.series):
        notes.append("Thinly dashed in a curve's colour: what theory predicts.")
    if any(series.limit is not None for series in drawing.series):
        notes.append(f"Dotted: {the(drawing.line)}, below which no unbiased estimator comes on average.")
    best = next((label_of(result, BEST_LINEAR) for one in drawing.series if one.curve.name == BEST_LINEAR), None)
    if best is not None and y == result.experiment.y[0]:
        notes.append(f"No linear estimator, however it is tuned, lies below {the(best)} on average.")
    section.caption += "".join(f" {note}" for note in notes)
    return section


def comparison_sections(result: Result) -> list[Section]:
    """The first y relative to the Cramér-Rao limit and to the reference curve."""
    y = label_of(result, result.experiment.y[0])
    found = {"limit": limit_drawing(result), "reference": rival_drawing(result)}
    return [
        _drawn(result, name, f"{y} relative to {the(drawing.line)}", drawing)
        for name, drawing in found.items()
        if drawing is not None
    ]


def derived_sections(result: Result) -> list[Section]:
    """Drawings against quantities other than x: exponents against an argument, and means against a quantity that is claimed to
    determine them."""
    return [
        _drawn(result, drawing.name, f"{drawing.y_label} against {drawing.x_label}", drawing)
        for drawing in derived_drawings(result)
    ]


def local_section(result: Result) -> Section | None:
    """Exponents between neighbouring x."""
    drawing = local_drawing(result)
    if drawing is None:
        return None
    section = _drawn(result, "local", "Local exponents", drawing)
    if any(series.predicted is not None for series in drawing.series):
        section.caption += " Thinly dashed: those of the predicted curve."
    return section


def seeds_section(result: Result) -> Section:
    """Every seed, as a point or as a path."""
    points, along = points_of(result), x_is_returned(result)
    draw = path_chart if along else cloud_chart
    charts = []
    for title, clouds in points.panels.items():
        kept = [cloud for cloud in clouds if not (along and cloud.failed)]
        if kept:
            charts.append(Chart(title, draw(result, kept, points.x_scale, points.y_scale)))
    caption = (
        "Every line is one seed." if along else "Every point is one seed; hover or tap to see which, and how it ended."
    )
    if any(cloud.failed for clouds in points.panels.values() for cloud in clouds):
        caption += (
            " Failed cells are no lines."
            if along
            else " Crosses at the upper end are cells that failed, without a value."
        )
    legend = {cloud.name: _entry(cloud.look, cloud.name) for clouds in points.panels.values() for cloud in clouds}
    caption += f" {points.note}" if points.note else ""
    title = "Single trajectories" if along else "Single seeds"
    return Section("seeds", title, caption, charts, list(legend.values()), choose=True)


def recorded_sections(result: Result) -> list[Section]:
    """Success share and neuron alignment, if they are recorded, and other metrics that expectations are about."""
    found = []
    expected = [judged.expectation.phrase.metric or "" for judged in result.judged() if judged.x is not None]
    named = {SUCCESS: "Success share", _ALIGNMENT: "Neuron alignment"}
    taken = [column for column in result.experiment.y if column != SUCCESS]
    for column in dict.fromkeys([*named, *expected]):
        # A y of the experiment has a section already; shares of successes are drawn here.
        if column in taken or column not in result.records:
            continue
        # The alignment, a cosine, and the success share are at most 1.
        drawing = column_drawing(result, column, most=1.0 if column in named else np.inf)
        if drawing is not None:
            found.append(_drawn(result, column, named.get(column, label_of(result, column)), drawing))
    return found


def heat_section(result: Result) -> Section | None:
    """Maps over two numerical axes, for the first y and for successes."""
    maps = all_maps(result)
    if not maps:
        return None
    charts = [Chart(heat.heading, heat_chart(heat)) for heat in maps[:MOST_MAPS]]
    caption = "Means over seeds, a tile for every pair of values."
    if len(maps) > len(charts):
        caption += f" The first {len(charts)} of {len(maps)} maps."
    return Section("maps", "Maps over two axes", caption, charts, choose=True)


def pictures_section(result: Result) -> Section | None:
    """Arrays that cells return."""
    pictures = pictures_of(result)
    if not pictures:
        return None
    charts = [Chart(f"{', '.join(picture.arrays)}: {picture.title}", picture_chart(picture)) for picture in pictures]
    names = dict.fromkeys(label for picture in pictures for label in picture.arrays if picture.kind != "map")
    together = max((list(picture.arrays) for picture in pictures if picture.kind != "map"), key=len, default=[])
    legend = [_entry(look_of(place), label) for place, label in enumerate(together)] if len(names) > 1 else []
    caption = "Arrays of single cells: at the largest x, of the first seed that has any."
    return Section("arrays", "Arrays", caption, charts, legend, choose=True)


def _drawn(result: Result, name: str, title: str, drawing: Drawing) -> Section:
    charts = [Chart(panel.title, curve_chart(result, drawing, panel)) for panel in drawing.panels]
    alone = len(drawing.panels) == 1
    entries = {series.name: _entry(series.look, series.name, series.note if alone else "") for series in drawing.series}
    if any(series.limit is not None for series in drawing.series):
        entries["limit"] = Entry("limit", drawing.line, "", -1, dash_of(LIMIT_DASH), "")
    if any(series.published is not None for series in drawing.series):
        entries["published"] = Entry("published", "published", "", -1, "", _STAR)
    if any(series.predicted is not None for series in drawing.series):
        entries["theory"] = Entry("theory", "theory", "", -1, dash_of(THEORY_DASH), "")
    caption = drawing.caption
    if any(series.note for series in drawing.series) and alone:
        caption += " Numbers in the legend are fitted exponents with 95 % intervals."
    return Section(name, title[:1].upper() + title[1:], caption, charts, list(entries.values()))


def _entry(look: Look, name: str, note: str = "") -> Entry:
    return Entry(key_of(look), name, note, look.colour, look.dash, look.path, look.hollow)
