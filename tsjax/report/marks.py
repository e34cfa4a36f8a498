"""What verdicts look like in a plot: the curve and the window that each is about, and the range that is allowed there."""

from typing import NamedTuple

import numpy as np

from ..sweep.curve import Curve
from ..sweep.result import Result
from ..sweep.verdicts import Judged
from .places import key_of_curve
from .series import Drawing, Scale, Series

# A range at a single x is this wide, as a share of the axis, and an open end of a range of exponents this far from the fit.
_WIDTH, _OPEN = 0.025, 3.0


class Mark(NamedTuple):
    """One verdict in one panel: its `number` on the page, the `series` that it is about, the measured part (`x`, `y`) of that,
    and the corners (k,) of the areas that are allowed, `areas`, which may reach out of the axes."""

    number: int
    series: Series
    x: np.ndarray
    y: np.ndarray
    areas: list[tuple[np.ndarray, np.ndarray]]


def marks_of(result: Result, drawing: Drawing, series: list[Series], ends: tuple[float, float]) -> list[Mark]:
    """The verdicts that one panel of a drawing can show: one that holds `series`, and whose y axis has these `ends`."""
    found = []
    by_curve = {key_of_curve(one.curve): one for one in series}
    for number, judged in enumerate(result.judged(), 1):
        mine = by_curve.get(key_of_curve(judged.curve)) if judged.curve is not None else None
        if mine is None or judged.curve is None:
            continue
        inside = np.isin(mine.x, judged.curve.x)
        areas = _areas(result, drawing, judged, mine, ends)
        if areas is not None and inside.any():
            found.append(Mark(number, mine, mine.x[inside], mine.mean[inside], areas))
    return found


def _areas(
    result: Result, drawing: Drawing, judged: Judged, series: Series, ends: tuple[float, float]
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """None where the drawing shows something else than what was judged."""
    metric, other = str(judged.expectation.parts["metric"]), judged.expectation.parts["other"]
    curve, first = judged.curve, result.experiment.y[0]
    assert curve is not None and judged.x is not None
    low, high = judged.verdict.allowed
    about_first = metric in ("rate", "crossing", "model", "forecast")
    if drawing.metric != (first if about_first else metric):
        return None
    if metric == "crossing":
        if drawing.against not in ("", other):
            return None
        x = drawing.x_scale.forward(np.array([max(low, series.x[0]), min(high, series.x[-1])]))
        return [_box(drawing.x_scale.back(x[[0, 1]]), np.full(2, ends[0]), np.full(2, ends[1]))]
    if about_first and drawing.against:
        return None
    if metric == "model":
        return []
    if metric == "rate":
        return _wedge(result, judged, curve, low, high)
    if metric == "forecast":
        # Measured over foretold is the value.
        measured = series.mean[series.x == judged.x[0]]
        unit = measured / judged.verdict.value
        return [_range(drawing.x_scale, series, np.array([judged.x[0]]), unit, (low, high), ends)]
    unit = _unit(result, drawing, judged, curve)
    return None if unit is None else [_range(drawing.x_scale, series, curve.x, unit, (low, high), ends)]


def _wedge(
    result: Result, judged: Judged, curve: Curve, low: float, high: float
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Between the power laws of the least and the greatest exponent that are allowed, through the middle of the fit."""
    rate = result.rate(curve, model=judged.expectation.model or "power")
    shift = rate.exponent - judged.verdict.value
    steep = np.array([max(low, judged.verdict.value - _OPEN), min(high, judged.verdict.value + _OPEN)]) + shift
    x = np.geomspace(rate.n[0], rate.n[-1], 3)
    middle = np.exp(np.interp(np.log(x[1]), np.log(rate.n), np.log(rate.mean_risk)))
    y = middle * (x[None, :] / x[1]) ** -steep[:, None]
    # Two triangles, which touch in the middle.
    return [(x[[0, 1, 0]], y[[0, 0, 1], [0, 1, 0]]), (x[[2, 1, 2]], y[[0, 0, 1], [2, 1, 2]])]


def _unit(result: Result, drawing: Drawing, judged: Judged, curve: Curve) -> np.ndarray | None:
    """What an allowed ratio is a multiple of, at each x of the curve: 1 where the axis shows that ratio."""
    other = judged.expectation.parts["other"]
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
    scale: Scale,
    series: Series,
    x: np.ndarray,
    unit: np.ndarray,
    allowed: tuple[float, float],
    ends: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """The allowed multiples of `unit` at each x, cut off well beyond the axis."""
    reach = (ends[0] / 2 if ends[0] > 0 else 2 * ends[0] - 1, 2 * ends[1] if ends[1] > 0 else ends[1] / 2)
    low, high = (np.clip(unit * end if np.isfinite(end) else np.full(len(x), end), *reach) for end in allowed)
    if len(x) == 1:
        all_places = scale.forward(series.x)
        half = _WIDTH / 2 * (all_places.max() - all_places.min() or 1.0)
        x = scale.back(scale.forward(x) + np.array([-half, half]))
        low, high = np.repeat(low, 2), np.repeat(high, 2)
    return _box(x, low, high)


def _box(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])
