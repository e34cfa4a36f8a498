"""What the page is made of: sections with charts, legends and tables, in the order of the page."""

from dataclasses import dataclass, field
from typing import NamedTuple

import plotly.graph_objects as go

from ..sweep.result import Result
from .charts import cloud_chart, curve_chart, heat_chart, key_of, path_chart
from .grids import Grid
from .heat import heat_maps
from .look import LIMIT_DASH, THEORY_DASH, Look, dash_of
from .numbers import BEST_LINEAR, label_of, x_is_returned
from .points import points_of
from .series import (
    Drawing,
    column_drawing,
    limit_drawing,
    local_drawing,
    mean_drawing,
    rival_drawing,
)

# As many maps as a reader looks through.
_MOST_MAPS = 24
# Columns of the records that have a chart of their own: whether the student found its teacher, and how near its neurons are.
_SUCCESS, _ALIGNMENT = "success", "alignment"


class Chart(NamedTuple):
    """A figure of Plotly with the `title` above it, empty where it stands alone."""

    title: str
    figure: go.Figure


class Entry(NamedTuple):
    """An entry of a legend: the `key` of what it switches, `name` and `note`, and how its line is drawn in SVG: `ink`, a place
    among the colours, or -1 for that of the text; `dash`; `path` of the marker."""

    key: str
    name: str
    note: str
    ink: int
    dash: str
    path: str


@dataclass
class Section:
    """A part of the page. `choose`: one chart is shown at a time, and a menu chooses it."""

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
        notes.append(f"Dotted: the {drawing.line}, below which no unbiased estimator comes on average.")
    best = next((series.name for series in drawing.series if series.curve.name == BEST_LINEAR), None)
    if best is not None and y == result.experiment.y[0]:
        notes.append(f"No linear estimator, however it is tuned, lies below the {best} on average.")
    section.caption += "".join(f" {note}" for note in notes)
    return section


def comparison_sections(result: Result) -> list[Section]:
    """The first y relative to the Cramér-Rao limit and to the reference curve."""
    y = label_of(result, result.experiment.y[0])
    found = {"limit": limit_drawing(result), "reference": rival_drawing(result)}
    return [
        _drawn(result, name, f"{y} relative to the {drawing.line}", drawing)
        for name, drawing in found.items()
        if drawing is not None
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
            charts.append(Chart(title, draw(result, kept, points.log_y)))
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
    """Success share and neuron alignment, where they are recorded."""
    found = []
    for column, title in ((_SUCCESS, "Success share"), (_ALIGNMENT, "Neuron alignment")):
        # A cosine, and a share.
        drawing = column_drawing(result, column, most=1.0)
        # What is a y of the experiment is drawn among those already, shares of successes here.
        if drawing is not None and (column == _SUCCESS or column not in result.experiment.y):
            found.append(_drawn(result, column, title, drawing))
    return found


def heat_section(result: Result) -> Section | None:
    """Maps over two axes of numbers, for the first y and for successes."""
    charts, count = [], 0
    for metric in dict.fromkeys([result.experiment.y[0], *(y for y in result.experiment.y if y == _SUCCESS)]):
        z = label_of(result, metric)
        for heat in heat_maps(result, metric):
            count += 1
            title = ", ".join(part for part in (z, heat.title, f"over {heat.x_label} and {heat.y_label}") if part)
            if len(charts) < _MOST_MAPS:
                charts.append(Chart(title, heat_chart(heat.x_label, heat.y_label, heat.x, heat.y, heat.z, z)))
    if not charts:
        return None
    caption = "Means over seeds, a tile for every pair of values."
    if count > len(charts):
        caption += f" The first {len(charts)} of {count} maps."
    return Section("maps", "Maps over two axes", caption, charts, choose=True)


def _drawn(result: Result, name: str, title: str, drawing: Drawing) -> Section:
    charts = [Chart(panel.title, curve_chart(result, drawing, panel)) for panel in drawing.panels]
    alone = len(drawing.panels) == 1
    entries = {series.name: _entry(series.look, series.name, series.note if alone else "") for series in drawing.series}
    if any(series.limit is not None for series in drawing.series):
        entries["limit"] = Entry("limit", drawing.line, "", -1, dash_of(LIMIT_DASH), "")
    if any(series.predicted is not None for series in drawing.series):
        entries["theory"] = Entry("theory", "theory", "", -1, dash_of(THEORY_DASH), "")
    caption = drawing.caption
    if any(series.note for series in drawing.series) and alone:
        caption += " Numbers in the legend are fitted exponents with 95 % intervals."
    return Section(name, title[:1].upper() + title[1:], caption, charts, list(entries.values()))


def _entry(look: Look, name: str, note: str = "") -> Entry:
    return Entry(key_of(look), name, note, look.colour, look.dash, look.path)
