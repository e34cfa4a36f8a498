"""Drawings for both paper and page: curves with intervals and theory, in one panel for each variant."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from ..rates import Share, why_no_risk
from ..sweep.curve import Curve
from ..sweep.result import Result
from .comparison import reference_of, rivals
from .look import Look, look_of
from .numbers import (
    LIMIT,
    aims_at_limit,
    drawn_means,
    exponent_with_interval,
    label_of,
    limit_of,
    means_of,
    plural,
    ratio_at,
    shows_rate,
    table_of,
    the,
    x_is_returned,
)
from .places import key_of_curve, places_of

# The kind of the y axis: logarithmic, ratios (linear if they are within a factor of 8), from 0 to 1, or linear.
Kind: TypeAlias = Literal["mean", "ratio", "share", "plain"]
_Drawn: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

# Error bars may extend an axis beyond means and predictions by at most this factor: with two or three seeds, intervals span
# decades and would flatten the curves.
_STRETCH = 2.0


class Scale(NamedTuple):
    """How an axis is divided: `log`, `linear`, or `symlog`, which is linear between -`near` and `near`, the smallest size of a
    value other than 0, and logarithmic beyond, so that it can show 0."""

    kind: Literal["log", "linear", "symlog"]
    near: float = 1.0

    def forward(self, values: np.ndarray) -> np.ndarray:
        """The positions of values along the axis, in decades where it is logarithmic."""
        values = np.asarray(values, float)
        if self.kind == "linear":
            return values
        if self.kind == "log":
            return np.log10(values)
        size = np.abs(values) / self.near
        return np.sign(values) * np.where(size <= 1, size, 1 + np.log10(np.maximum(size, 1)))

    def back(self, places: np.ndarray) -> np.ndarray:
        """The values at positions along the axis."""
        places = np.asarray(places, float)
        if self.kind == "linear":
            return places
        if self.kind == "log":
            return 10.0**places
        size = np.abs(places)
        return np.sign(places) * self.near * np.where(size <= 1, size, 10.0 ** (np.maximum(size, 1) - 1))

    def ticks(self, values: np.ndarray) -> np.ndarray:
        """Round values for ticks of a symlog axis: 0 and powers of ten."""
        size = np.abs(values[values != 0])
        decades = 10.0 ** np.arange(np.floor(np.log10(size.min()) + 1e-9), np.ceil(np.log10(size.max()) - 1e-9) + 1)
        every = decades[:: max(1, len(decades) // 5)]
        low, high = values.min(), values.max()
        return np.unique(
            [0.0, *(one for one in (*every, *-every) if 1.0001 * low <= one <= 1.0001 * high or low < one < high)]
        )


LOG, LINEAR = Scale("log"), Scale("linear")
# Values within this factor need no logarithmic axis.
_NEAR = 8


def scale_of(values: np.ndarray) -> Scale:
    """The scale that shows all values: logarithmic if all are positive; symlog if some are 0 or negative and their sizes span a
    factor of 8 or more; otherwise linear."""
    values = values[np.isfinite(values)]
    if not values.size:
        return LINEAR
    if (values > 0).all():
        return LOG
    size = np.abs(values[values != 0])
    return Scale("symlog", float(size.min())) if size.size and size.max() >= _NEAR * size.min() else LINEAR


class Series(NamedTuple):
    """One curve of a drawing, all (k,): `mean` with interval `low`, `high` at `x`, theory's `predicted`, or the Cramér-Rao
    `limit` if theory predicts that. `name` and `note` are for the legend, and `look` belongs to the name. `published` are
    values from a paper, rows (x, value, standard error)."""

    curve: Curve
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    predicted: np.ndarray | None = None
    limit: np.ndarray | None = None
    note: str = ""
    name: str = ""
    look: Look = look_of(0)
    published: np.ndarray | None = None


class Panel(NamedTuple):
    """The curves of one variant; `title` names it, and is empty if there is only one."""

    title: str
    series: list[Series]


class Drawing(NamedTuple):
    """A figure before it is drawn: `name` for files, `y_label` and `kind` of the y axis, `x_scale`, `caption`, `panels`, and
    `line`, the name of the `limit` of the series; the `metric` that is drawn, and `against`, the name of the column or curve
    that it is relative to (empty for the values themselves); the name `x` of the x axis and its `x_label`."""

    name: str
    y_label: str
    kind: Kind
    x_scale: Scale
    caption: str
    panels: list[Panel]
    line: str
    metric: str = ""
    against: str = ""
    x: str = ""
    x_label: str = ""

    @property
    def series(self) -> list[Series]:
        """The series of all panels."""
        return [series for panel in self.panels for series in panel.series]


def mean_drawing(result: Result, y: str | None = None) -> Drawing:
    """The mean over seeds of `y` (the experiment's first, by default) against x, with 95 % intervals and the prediction of
    theory; a share if `y` is zeros and ones.

    **Raises:** ValueError if there are no records, or `y` is not one of the experiment's.
    """
    experiment = result.experiment
    y = experiment.y[0] if y is None else y
    if y not in experiment.y:
        raise ValueError(f"y = {y!r} is not among those of {experiment.name}: {', '.join(experiment.y)}.")
    if not result.curves():
        raise ValueError("there are no records to draw yet.")
    # The mean of truth values is a share.
    shares = result.kind(y).name == "indicator"
    # Theory and rates are about the first y.
    first = y == experiment.y[0]
    drawn: list[Series] = []
    for curve in result.curves():
        mean, low, high = drawn_means(result, curve, y, curve.values[y])
        limit = limit_of(result, curve) if first and _shows_limit(result, curve) else None
        predicted = curve.theory.predicted if first and limit is None else None
        note = _exponent(result, curve) if first else ""
        series = Series(curve, curve.x, mean, low, high, predicted, limit, note)
        drawn.append(series._replace(published=_published(result, curve, y)))
    of = "Share of" if shares else "Mean"
    intervals = _intervals_of([curve.values[y] for curve in result.curves()] if result.kind(y).has_ratios else [])
    seeds = seeds_of(result.curves())
    caption = f"{of} {label_of(result, y)} against {label_of(result, experiment.x)}, over {seeds}, {intervals}"
    name = f"{y}_in_{experiment.x}"
    kind: Kind = "share" if shares else "plain" if _are_levels(result, y, drawn) else "mean"
    return _drawing(result, name, label_of(result, y), kind, caption, drawn, metric=y)


def _are_levels(result: Result, y: str, drawn: Sequence[Series]) -> bool:
    """Whether means are levels such as accuracies, which are clearest on a linear axis: shares of trials within a factor of 8
    that are not powers of x."""
    values = _finite(np.concatenate([series.mean for series in drawn]))
    is_near = values.size > 0 and bool(values.max() < _NEAR * values.min())
    return isinstance(result.kind(y), Share) and not result.experiment.rates and is_near


def limit_drawing(result: Result) -> Drawing | None:
    """Risk relative to the Cramér-Rao limit, for the curves for which theory predicts that limit; None if there are none."""
    y, drawn, name = result.experiment.y[0], [], label_of(result, LIMIT)
    for curve in result.curves():
        limit = limit_of(result, curve) if aims_at_limit(result, curve) else None
        if limit is not None:
            mean, low, high = (values / limit for values in means_of(curve.values[y]))
            drawn.append(Series(curve, curve.x, mean, low, high, None, np.ones_like(limit)))
    if not drawn:
        return None
    seeds = seeds_of(series.curve for series in drawn)
    caption = f"Mean {label_of(result, y)} over {seeds} in units of {the(name)} (dotted), with 95 % intervals."
    label = f"{label_of(result, y)} / {name}"
    return _drawing(result, f"{y}_relative_to_limit", label, "ratio", caption, drawn, metric=y, against=LIMIT)


def rival_drawing(result: Result) -> Drawing | None:
    """The mean of the first y relative to the reference curve (`reference_of`), paired by seed; None if there is nothing to
    compare, or if cells return x."""
    y, reference = result.experiment.y[0], reference_of(result)
    if reference is None or x_is_returned(result):
        return None
    drawn: list[Series] = []
    for curve, rival in rivals(result):
        found = [(x, ratio_at(result, curve, rival, float(x))) for x in np.intersect1d(curve.x, rival.x)]
        kept = [(x, *ratio.interval, ratio.value) for x, ratio in found if ratio is not None]
        if kept:
            x, low, high, value = np.array(kept, float).T
            drawn.append(Series(curve, x, value, low, high, None, np.ones_like(value)))
    if not drawn:
        return None
    name = label_of(result, reference)
    seeds = seeds_of(series.curve for series in drawn)
    caption = f"Mean {label_of(result, y)} relative to that of {the(name)} on the same {seeds} (dotted: 1)"
    caption = f"{caption}, with 95 % intervals."
    label = f"{label_of(result, y)}\n/ that of {name}"
    file = f"{y}_relative_to_reference"
    return _drawing(result, file, label, "ratio", caption, drawn, line=name, metric=y, against=reference)


def local_drawing(result: Result) -> Drawing | None:
    """Exponents between neighbouring x, for curves with at least three x; None if there are none."""
    drawn: list[Series] = []
    for curve in result.curves():
        try:
            rate = result.rate(curve) if shows_rate(result, curve) else None
        except ValueError:  # Too few points; the tables say so.
            continue
        if rate is not None and len(rate.n) > 2:
            low, high = np.where(np.isfinite(rate.local_intervals), rate.local_intervals, np.nan).T
            middle, theory = np.sqrt(rate.n[1:] * rate.n[:-1]), curve.measured(result.experiment.y[0]).theory.predicted
            if theory is not None:
                with np.errstate(divide="ignore", invalid="ignore"):
                    theory = -np.diff(np.log(theory)) / np.diff(np.log(rate.n))
            drawn.append(Series(curve, middle, rate.local_slopes, low, high, theory))
    if not drawn:
        return None
    x = label_of(result, result.experiment.x)
    caption = f"Exponents between neighbouring {x}, with 95 % intervals; a power law is a level line."
    return _drawing(result, "local_exponents", "local exponent", "plain", caption, drawn)


def column_drawing(result: Result, column: str, most: float = np.inf) -> Drawing | None:
    """The mean over seeds of any recorded column of numbers, with intervals cut at `most`, or the share if it holds zeros and
    ones; None if it holds no numbers."""
    tables = [(curve, table_of(result, curve, column)) for curve in result.curves()]
    tables = [(curve, table) for curve, table in tables if np.isfinite(table).any(axis=1).all()]
    if not tables:
        return None
    kind_of_column = result.kind(column)
    shares = kind_of_column.name == "indicator"
    drawn: list[Series] = []
    for curve, table in tables:
        mean, low, high = drawn_means(result, curve, column, table)
        drawn.append(Series(curve, curve.x, mean, low, np.minimum(high, most)))
    of = "Share of" if shares else "Mean"
    intervals = _intervals_of([table for _, table in tables] if kind_of_column.has_ratios else [])
    caption = f"{of} {label_of(result, column)} over {seeds_of(result.curves())}, {intervals}"
    kind: Kind = "share" if shares else "plain"
    name = f"{column}_in_{result.experiment.x}"
    return _drawing(result, name, label_of(result, column), kind, caption, drawn, metric=column)


def y_range(drawing: Drawing) -> tuple[float, float, Scale]:
    """The ends of the y axes and their scale. Ratios within a factor of 8 are clearest on a linear axis."""
    if drawing.kind == "share":
        return -0.04, 1.04, LINEAR
    middle: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    for series in drawing.series:
        middle += [] if series.published is None else [series.published[:, 1]]
        middle += [series.mean, *(line for line in (series.predicted, series.limit) if line is not None)]
        ends += [series.low, series.high]
    values, bars = (_finite(np.concatenate(lines)) for lines in (middle, ends))
    near = drawing.kind == "ratio" and (values > 0).all() and values.max(initial=0) < _NEAR * values.min(initial=1)
    scale = LINEAR if drawing.kind == "plain" or near else scale_of(values)
    if not values.size:
        return 0.0, 1.0, LINEAR
    low, high = values.min(), values.max()
    if scale.kind == "log":
        bars = bars[bars > 0]
        reach = (low / _STRETCH, high * _STRETCH)
    else:
        stretch = (_STRETCH - 1) * max(abs(low), abs(high))
        reach = (low - stretch, high + stretch)
    places = scale.forward(np.array([low, high, *np.clip(bars, *reach)]))
    low, high = float(places.min()), float(places.max())
    margin = 0.05 * (high - low) or (0.2 if scale.kind == "log" else 0.5 * max(abs(high), 1.0))
    low, high = scale.back(np.array([low - margin, high + margin]))
    return float(low), float(high), scale


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def marked_x(result: Result, drawing: Drawing, panel: Panel) -> np.ndarray | None:
    """The measured x, for ticks of the axis. None if the axis is linear, or if x was computed from several arguments; round
    numbers are then better."""
    if drawing.x_scale.kind == "linear" or drawing.x not in (result.experiment.x, *result.experiment.names):
        return None
    # Exponents between neighbours lie between the x of their curve.
    own = drawing.x == result.experiment.x
    x = _finite(np.concatenate([series.curve.x if own else series.x for series in panel.series]))
    return np.unique(x) if x.size else None


def ticks_at(scale: Scale, values: np.ndarray, most: float) -> np.ndarray:
    """A selection of increasing values whose distances are at least 1 / `most` of the axis."""
    places = scale.forward(values)
    room, kept = (places[-1] - places[0]) / most, [0]
    for number, place in enumerate(places):
        if number and place - places[kept[-1]] >= room:
            kept.append(number)
    return values[kept]


def seeds_of(curves: Iterable[Curve]) -> str:
    """`16 to 64 seeds`."""
    counts = sorted({len(curve.seeds) for curve in curves})
    return plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _intervals_of(tables: Sequence[np.ndarray]) -> str:
    """The end of a caption, about the intervals of tables (k, seeds); values that are not risks have none."""
    if any(why_no_risk(row, "") for table in tables for row in table):
        return "with 95 % intervals, except where some values are negative, or exactly 0 or 1: such means have none."
    return "with 95 % intervals."


def _published(result: Result, curve: Curve, metric: str) -> np.ndarray | None:
    """The published means of a metric at single x of a curve, rows (x, value, standard error)."""
    rows = []
    for judged in result.judged():
        figure, phrase = judged.expectation.published, judged.expectation.phrase
        of_mean = phrase.form == "mean" and not phrase.operator and not judged.expectation.than
        if figure is None or judged.curve is None or judged.x is None or not of_mean:
            continue
        mine = key_of_curve(judged.curve) == key_of_curve(curve)
        if mine and judged.x[0] == judged.x[1] and metric == (phrase.metric or result.experiment.y[0]):
            rows.append((judged.x[0], figure.value, figure.error))
    return np.array(rows) if rows else None


def _shows_limit(result: Result, curve: Curve) -> bool:
    """Whether to show the limit: for curves whose theory is that limit, and for all curves of an experiment without theory."""
    return not result.experiment.has_theory or aims_at_limit(result, curve)


def _exponent(result: Result, curve: Curve) -> str:
    if not shows_rate(result, curve):
        return ""
    try:
        rate = result.rate(result.claimed(curve))
    except ValueError:  # Too few points; the tables say so.
        return ""
    return exponent_with_interval(rate.exponent, *rate.interval, rate.identified)


def _drawing(
    result: Result,
    name: str,
    y_label: str,
    kind: Kind,
    caption: str,
    drawn: Sequence[Series],
    line: str | None = None,
    *,
    metric: str = "",
    against: str = "",
) -> Drawing:
    x_scale = LINEAR if x_is_returned(result) else scale_of(np.concatenate([series.x for series in drawn]))
    line = label_of(result, LIMIT) if line is None else line
    x, panels = result.experiment.x, panels_of(result, drawn)
    return Drawing(name, y_label, kind, x_scale, caption, panels, line, metric, against, x, label_of(result, x))


def panels_of(result: Result, drawn: Iterable[Series]) -> list[Panel]:
    """The series of each panel, with their names and looks."""
    places, panels = places_of(result), {}
    for series in drawn:
        place = places[key_of_curve(series.curve)]
        named = series._replace(name=place.name, look=place.look)
        panels.setdefault((place.rank, place.title), []).append(named)
    return [Panel(title, panels[rank, title]) for rank, title in sorted(panels)]
