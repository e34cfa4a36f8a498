"""Verdicts in a plot: the curve and the window that each is about, and the range that is allowed there."""

from typing import NamedTuple, TypeAlias

import numpy as np

from ..sweep.curve import Curve
from ..sweep.result import Result
from ..sweep.verdicts import Judged
from .places import key_of_curve
from .series import Drawing, Scale, Series

# As shares of the axes: the width of a range at a single x, and the height at which a range that is open on one side is cut
# off.
_WIDTH, _FRINGE = 0.025, 0.12


_Line: TypeAlias = tuple[np.ndarray, np.ndarray]
_Shape: TypeAlias = tuple[list[_Line], list[_Line]]


class Mark(NamedTuple):
    """One verdict in one panel: its `number` on the page, the `series` that it is about, the part of it that was judged (`x`,
    `y`), the corners (k,) of the allowed `areas`, which may reach beyond the axes, and their `edges`, lines on the sides that
    are not open."""

    number: int
    series: Series
    x: np.ndarray
    y: np.ndarray
    areas: list[_Line]
    edges: list[_Line]


def marks_of(
    result: Result, drawing: Drawing, series: list[Series], ends: tuple[float, float], y_scale: Scale
) -> list[Mark]:
    """The verdicts that one panel of a drawing can show. The panel holds `series`, and its y axis has these `ends`."""
    found = []
    by_curve = {key_of_curve(one.curve): one for one in series}
    for number, judged in enumerate(result.judged(), 1):
        mine = by_curve.get(key_of_curve(judged.curve)) if judged.curve is not None else None
        if mine is None or judged.curve is None:
            continue
        inside = np.isin(mine.x, judged.curve.x)
        shape = _shape(result, drawing, judged, mine, _Y(ends, y_scale))
        if shape is not None and inside.any():
            found.append(Mark(number, mine, mine.x[inside], mine.mean[inside], *shape))
    return found


class _Y(NamedTuple):
    """A y axis: its ends and its scale."""

    ends: tuple[float, float]
    scale: Scale


def _shape(result: Result, drawing: Drawing, judged: Judged, series: Series, y: _Y) -> _Shape | None:
    """The areas and edges of a verdict; None if the drawing does not show what was judged."""
    phrase, curve = judged.expectation.phrase, judged.curve
    form, other = phrase.form, phrase.other
    assert curve is not None and judged.x is not None
    low, high = judged.verdict.allowed
    # Numbers along other arguments, differences and medians have no drawing.
    drawn = phrase.fits or (form == "mean" and phrase.operator != "minus")
    if (
        not drawn
        or phrase.than
        or judged.expectation.than
        or (phrase.axis or result.experiment.x) != result.experiment.x
    ):
        return None
    if drawing.metric != (phrase.metric or result.experiment.y[0]):
        return None
    if form == "crossing":
        if drawing.against not in ("", other):
            return None
        x = np.array([max(low, series.x[0]), min(high, series.x[-1])])
        area = _around(x, np.full(2, y.ends[0]), np.full(2, y.ends[1]))
        return [area], [(np.full(2, end), np.array(y.ends)) for end in (low, high) if np.isfinite(end)]
    if phrase.fits and drawing.against:
        return None
    if form == "model":
        return [], []
    if form == "rate":
        return _wedge(result, judged, curve, _FRINGE * float(np.ptp(y.scale.forward(np.array(y.ends)))))
    if form == "forecast":
        # The value is the measured mean over the predicted one.
        x = np.array([judged.x[0]])
        return _range(drawing.x_scale, series, x, series.mean[series.x == x] / judged.verdict.value, (low, high), y)
    unit = _unit(result, drawing, judged, curve)
    return None if unit is None else _range(drawing.x_scale, series, curve.x, unit, (low, high), y)


def _wedge(result: Result, judged: Judged, curve: Curve, fringe: float) -> _Shape:
    """The wedge between the power laws with the least and the largest allowed exponent, through the middle of the fit. If it is
    open on one side, it ends `fringe` decades from its edge at the ends of the window."""
    rate = result.rate(curve, model=judged.expectation.model or "power")
    value, allowed = judged.verdict.value, judged.verdict.allowed
    x = np.geomspace(rate.n[0], rate.n[-1], 3)
    beyond = 2.0 * fringe / np.log10(x[-1] / x[0])
    low, high = (end if np.isfinite(end) else None for end in allowed)
    assert low is not None or high is not None
    low, high = high - beyond if low is None else low, low + beyond if high is None else high
    steep = np.array([low, high]) + rate.exponent - value
    middle = np.exp(np.interp(np.log(x[1]), np.log(rate.n), np.log(rate.mean_risk)))
    y = middle * (x[None, :] / x[1]) ** -steep[:, None]
    # Two triangles that touch in the middle.
    areas = [(x[[0, 1, 0]], y[[0, 0, 1], [0, 1, 0]]), (x[[2, 1, 2]], y[[0, 0, 1], [2, 1, 2]])]
    return areas, [(x, line) for line, end in zip(y, allowed, strict=True) if np.isfinite(end)]


def _unit(result: Result, drawing: Drawing, judged: Judged, curve: Curve) -> np.ndarray | None:
    """The unit of an allowed ratio at each x of the curve, which is 1 if the axis shows that ratio; None if the drawing cannot
    show it."""
    other = judged.expectation.phrase.other
    ones = np.ones(len(curve.x))
    if drawing.against:
        return ones if drawing.against == other else None
    if other is None:
        return ones
    if other == "predicted":
        return curve.theory.predicted
    if other in curve.values:
        return np.nanmean(curve.values[other], axis=1)
    for rival in result.curves():
        alike = all(rival.arguments.get(name) == value for name, value in judged.expectation.where.items())
        common, i, _ = np.intersect1d(rival.x, curve.x, return_indices=True)
        if rival.name == other and alike and len(common) == len(curve.x) and drawing.metric in rival.values:
            return np.nanmean(rival.values[drawing.metric][i], axis=1)
    return None


def _range(
    x_scale: Scale, series: Series, x: np.ndarray, unit: np.ndarray, allowed: tuple[float, float], y: _Y
) -> _Shape:
    """The allowed multiples of `unit` at each x; for a range that is open on one side, a fringe along its edge."""
    floor, top = y.scale.forward(np.array(y.ends))
    fringe, edges = _FRINGE * (top - floor), []
    if len(x) == 1:
        places = x_scale.forward(series.x)
        half = _WIDTH / 2 * (places.max() - places.min() or 1.0)
        x = x_scale.back(x_scale.forward(x) + np.array([-half, half]))
        unit = np.repeat(unit, 2)
    # Instead of infinity, a finite value well beyond the axis.
    least, most = y.scale.back(np.array([floor - (top - floor), top + (top - floor)]))
    low, high = (np.clip(unit * end, least, most) if np.isfinite(end) else None for end in allowed)
    edges = [(x, line) for line in (low, high) if line is not None]
    if low is None and high is not None:
        low = y.scale.back(y.scale.forward(high) - fringe)
    elif high is None and low is not None:
        high = y.scale.back(y.scale.forward(low) + fringe)
    assert low is not None and high is not None
    return [_around(x, low, high)], edges


def _around(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> _Line:
    return np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])
