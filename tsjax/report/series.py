"""What is drawn, on paper and on the page alike: curves with intervals and theory, in one panel for each variant."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from ..rates import why_no_risk
from ..sweep.curve import Curve
from ..sweep.result import Result
from .look import Look, look_of
from .numbers import (
    LIMIT,
    aims_at_limit,
    exponent_with_interval,
    label_of,
    limit_of,
    means_of,
    plural,
    ratio_at,
    shares_of,
    table_of,
    variant_of,
    x_is_returned,
)
from .rivals import reference_of, rivals
from .text import shown

# How the y axis is made: by decades, linearly around ratios near one another, from 0 to 1, or linearly.
Kind: TypeAlias = Literal["mean", "ratio", "share", "plain"]
_Drawn: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

# An error bar may stretch an axis beyond means and predictions by this factor, no more: with two or three seeds the
# intervals span decades and would squeeze the curves flat.
_STRETCH = 2.0


class Series(NamedTuple):
    """What is drawn of one curve, all (k,): `mean` with interval `low`, `high` at `x`, theory's `predicted`, or the `limit` of
    Cramér and Rao where theory predicts that; `name` and `note` are the legend's words, `look` goes with the name."""

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


class Panel(NamedTuple):
    """The curves of one variant; `title` tells which, and is empty where there is only one."""

    title: str
    series: list[Series]


class Drawing(NamedTuple):
    """A figure before it is drawn: `name` for files, `y_label` and `kind` of the y axis, `log_x`, `caption`, `panels`, and
    what the `limit` of the series is, `line`."""

    name: str
    y_label: str
    kind: Kind
    log_x: bool
    caption: str
    panels: list[Panel]
    line: str

    @property
    def series(self) -> list[Series]:
        """Those of all panels."""
        return [series for panel in self.panels for series in panel.series]


def mean_drawing(result: Result, y: str | None = None) -> Drawing:
    """Mean over seeds of `y` (the experiment's first, by default) against x, with 95 % intervals and what theory says; shares
    where `y` is zeros and ones.

    **Raises:** ValueError when there are no records, or `y` is not one of the experiment's.
    """
    experiment = result.experiment
    y = experiment.y[0] if y is None else y
    if y not in experiment.y:
        raise ValueError(f"y = {y!r} is not among those of {experiment.name}: {', '.join(experiment.y)}.")
    if not result.curves():
        raise ValueError("there are no records to draw yet.")
    # Truth values are successes, and their mean is a share.
    shares = result.is_share(y) and all(np.isfinite(curve.values[y]).any(axis=1).all() for curve in result.curves())
    # Theory and rates speak of the first y.
    first = y == experiment.y[0]
    drawn: list[Series] = []
    for curve in result.curves():
        mean, low, high = (shares_of if shares else means_of)(curve.values[y])
        limit = limit_of(result, curve) if first and _shows_limit(result, curve) else None
        predicted = curve.theory.predicted if first and limit is None else None
        note = _exponent(result, curve) if first else ""
        drawn.append(Series(curve, curve.x, mean, low, high, predicted, limit, note))
    of = "Share of" if shares else "Mean"
    intervals = _intervals_of([] if shares else [curve.values[y] for curve in result.curves()])
    caption = (
        f"{of} {label_of(result, y)} against {label_of(result, experiment.x)}, over {seeds_of(result)}, {intervals}"
    )
    name = f"{y}_in_{experiment.x}"
    return _drawing(result, name, label_of(result, y), "share" if shares else "mean", caption, drawn)


def limit_drawing(result: Result) -> Drawing | None:
    """Risk relative to the Cramér-Rao limit, for the curves of which theory predicts that limit; None without any."""
    y, drawn, name = result.experiment.y[0], [], label_of(result, LIMIT)
    for curve in result.curves():
        limit = limit_of(result, curve) if aims_at_limit(result, curve) else None
        if limit is not None:
            mean, low, high = (values / limit for values in means_of(curve.values[y]))
            drawn.append(Series(curve, curve.x, mean, low, high, None, np.ones_like(limit)))
    if not drawn:
        return None
    caption = f"Mean {label_of(result, y)} in units of the {name} (dotted), with 95 % intervals."
    return _drawing(result, f"{y}_relative_to_limit", f"{label_of(result, y)} / {name}", "ratio", caption, drawn)


def rival_drawing(result: Result) -> Drawing | None:
    """Mean of the first y relative to the reference curve (`reference_of`), seed by seed; None with nothing to compare, or
    along an x that cells return."""
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
    caption = (
        f"Mean {label_of(result, y)} relative to that of the {name} on the same seeds (dotted: 1), with 95 % intervals."
    )
    label = f"{label_of(result, y)}\n/ that of {name}"
    return _drawing(result, f"{y}_relative_to_reference", label, "ratio", caption, drawn, line=name)


def local_drawing(result: Result) -> Drawing | None:
    """Exponents between neighbouring x, of the curves with three x or more; None without any."""
    drawn: list[Series] = []
    for curve in result.curves():
        try:
            rate = None if x_is_returned(result) else result.rate(curve)
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
    """Mean over seeds of any recorded column of numbers, none above `most`, or share where it holds zeros and ones; None where
    it holds none."""
    tables = [(curve, table_of(result, curve, column)) for curve in result.curves()]
    tables = [(curve, table) for curve, table in tables if np.isfinite(table).any(axis=1).all()]
    if not tables:
        return None
    shares = result.is_share(column)
    drawn: list[Series] = []
    for curve, table in tables:
        mean, low, high = (shares_of if shares else means_of)(table)
        drawn.append(Series(curve, curve.x, mean, low, np.minimum(high, most)))
    of = "Share of" if shares else "Mean"
    intervals = _intervals_of([] if shares else [table for _, table in tables])
    caption = f"{of} {label_of(result, column)} over {seeds_of(result)}, {intervals}"
    kind: Kind = "share" if shares else "plain"
    return _drawing(result, f"{column}_in_{result.experiment.x}", label_of(result, column), kind, caption, drawn)


def y_range(drawing: Drawing) -> tuple[float, float, bool]:
    """The ends of the y axes, and whether they are logarithmic. Ratios within a factor 8 read best on a linear axis."""
    if drawing.kind == "share":
        return -0.04, 1.04, False
    middle: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    for series in drawing.series:
        middle += [series.mean, *(line for line in (series.predicted, series.limit) if line is not None)]
        ends += [series.low, series.high]
    values, bars = (_finite(np.concatenate(lines)) for lines in (middle, ends))
    positive = values[values > 0]
    near = (
        drawing.kind == "ratio" and positive.size == values.size and values.max(initial=0) < 8 * values.min(initial=1)
    )
    log = bool(positive.size) and drawing.kind != "plain" and not near
    if log:
        values, bars = positive, bars[bars > 0]
    if not values.size:
        return 0.0, 1.0, False
    low, high = values.min(), values.max()
    if log:
        bars = np.log(np.clip(bars, low / _STRETCH, high * _STRETCH))
        low, high = np.log(low), np.log(high)
    else:
        reach = (_STRETCH - 1) * max(abs(low), abs(high))
        bars = np.clip(bars, low - reach, high + reach)
    low, high = min([low, *bars]), max([high, *bars])
    margin = 0.05 * (high - low) or 0.5 * max(abs(high), 1.0)
    low, high = float(low - margin), float(high + margin)
    return (float(np.exp(low)), float(np.exp(high)), True) if log else (low, high, False)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def seeds_of(result: Result) -> str:
    """`16 to 64 seeds`."""
    counts = sorted({len(curve.seeds) for curve in result.curves()})
    return plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _intervals_of(tables: Sequence[np.ndarray]) -> str:
    """What a caption says of the intervals of tables (k, seeds): also that there are none where values are no risks."""
    if any(why_no_risk(row, "") for table in tables for row in table):
        return (
            "with 95 % intervals but where some values are negative, or exactly 0 or 1: of such means there are none."
        )
    return "with 95 % intervals."


def _shows_limit(result: Result, curve: Curve) -> bool:
    """The limit belongs to the curves that aim at it; without any theory a recorded limit is all there is."""
    return not result.experiment.has_theory or aims_at_limit(result, curve)


def _exponent(result: Result, curve: Curve) -> str:
    if x_is_returned(result):
        return ""
    try:
        rate = result.rate(curve)
    except ValueError:  # Too few points; the tables say so.
        return ""
    return exponent_with_interval(rate.exponent, *rate.interval, rate.identified)


def _drawing(
    result: Result, name: str, y_label: str, kind: Kind, caption: str, drawn: Sequence[Series], line: str | None = None
) -> Drawing:
    log_x = not x_is_returned(result) and all((series.x > 0).all() for series in drawn)
    line = label_of(result, LIMIT) if line is None else line
    return Drawing(name, y_label, kind, log_x, caption, panels_of(result, drawn), line)


def names_of(result: Result) -> dict[str, Look]:
    """The names that legends give to curves, with their looks: one for a name, everywhere on a page."""
    names = dict.fromkeys(name_of(result, curve) for curve in result.curves())
    return {name: look_of(number) for number, name in enumerate(names)}


def name_of(result: Result, curve: Curve) -> str:
    """The name of a curve within its panel: where no argument names the curves, their labels tell them apart."""
    return label_of(result, curve.name) if result.experiment.curve is not None else shown(curve.label)


def title_of(result: Result, curve: Curve) -> str:
    """The panel that a curve belongs to: one per combination of the arguments that vary."""
    return variant_of(result, curve) if result.experiment.curve is not None else ""


def panels_of(result: Result, drawn: Iterable[Series]) -> list[Panel]:
    """The series of each panel, with their names and looks."""
    looks = names_of(result)
    panels: dict[str, list[Series]] = {}
    for series in drawn:
        name = name_of(result, series.curve)
        title = title_of(result, series.curve)
        panels.setdefault(title, []).append(series._replace(name=name, look=looks[name]))
    return [Panel(title, series) for title, series in panels.items()]
