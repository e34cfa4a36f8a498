"""Every seed in a chart: the single seeds of a sweep, as many as a page can hold, as points or as paths along an x that cells
return."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..status import Status
from ..sweep.curve import Curve
from ..sweep.result import Result
from .look import COLOURS, Look
from .numbers import label_of, plural, table_of, x_is_returned
from .places import Place, key_of_curve, places_of
from .plot import Axes, Plot, key_of, layout_of, set_x, set_y, words
from .series import LINEAR, Scale, scale_of

# The most points on one page, at about 24 bytes each, 2 MB in all; and in one panel, where the browser draws an element for
# each.
_MOST, _MOST_SHOWN = 80_000, 8_000
# The most lines, one for each seed, since a few hundred cover one another.
_MOST_LINES = 400


class Cloud(NamedTuple):
    """The cells of one curve that ended with the same status, all (k,): `seed`, `x`, the position on the axis `shown_x`, and
    `y`, NaN if they `failed`; `status` is empty if it is not recorded."""

    name: str
    status: str
    failed: bool
    look: Look
    seed: np.ndarray
    x: np.ndarray
    shown_x: np.ndarray
    y: np.ndarray


class Points(NamedTuple):
    """`panels` of clouds by their titles; the scales of the axes; `note`: what was omitted, if anything."""

    panels: dict[str, list[Cloud]]
    x_scale: Scale
    y_scale: Scale
    note: str


def points_of(result: Result) -> Points:
    """All seeds of the first y. If there are more than a page can hold, only the first seeds are shown, the same number for
    every curve, so that they stay paired; `note` says so."""
    along, curves = x_is_returned(result), result.curves()
    most = max((len(curve.seeds) for curve in curves), default=0)
    lines = lambda seeds: sum(min(seeds, len(curve.seeds)) for curve in curves)
    points = lambda seeds, some: sum(min(seeds, len(curve.seeds)) * len(curve.x) for curve in some)
    groups: dict[str, list[Curve]] = {}
    places = places_of(result)
    for curve in curves:
        groups.setdefault(places[key_of_curve(curve)].title, []).append(curve)
    share = lambda seeds: (
        lines(seeds) / _MOST_LINES
        if along
        else max(points(seeds, members) for members in groups.values()) / _MOST_SHOWN
    )
    full = lambda seeds: max(points(seeds, curves) / _MOST, share(seeds))
    # The most seeds that fit, and at least one.
    kept = max(1, bisect.bisect_right(range(1, most + 1), 1.0, key=full))
    panels: dict[str, list[Cloud]] = {title: [] for title in groups}
    x_scale = LINEAR if along or not curves else scale_of(np.concatenate([curve.x for curve in curves]))
    for title, members in groups.items():
        for place, curve in enumerate(members):
            dodge = None if along else _dodge(x_scale, members, place, min(kept, len(curve.seeds)))
            panels[title] += _clouds(result, curve, places[key_of_curve(curve)], kept, x_scale, dodge)
    note = ""
    if kept < most:
        drawn = (
            f"{lines(kept)} of {lines(most)} lines"
            if along
            else f"{points(kept, curves)} of {points(most, curves)} points"
        )
        note = f"Shown are the first {plural(kept, 'seed')} of every curve: {drawn}, as many as a page carries well."
    values = [cloud.y for clouds in panels.values() for cloud in clouds if not cloud.failed]
    return Points(panels, x_scale, scale_of(np.concatenate(values)) if values else LINEAR, note)


def _dodge(scale: Scale, members: list[Curve], place: int, seeds: int) -> np.ndarray:
    """Shifts along the axis (seeds,) that put curves and seeds side by side, within the narrowest step along x."""
    x = scale.forward(np.unique(np.concatenate([curve.x for curve in members])))
    step = 0.6 * np.diff(x).min() if len(x) > 1 else 0.0
    step = step if scale.kind == "linear" else min(step, 0.17)
    # Multiples of the golden ratio spread any number of seeds evenly.
    spread = (np.arange(seeds) * 0.6180339887) % 1.0 - 0.5
    return step * (place - (len(members) - 1) / 2 + 0.8 * spread) / len(members)


def _clouds(
    result: Result, curve: Curve, place: Place, kept: int, scale: Scale, dodge: np.ndarray | None
) -> list[Cloud]:
    y = curve.values[result.experiment.y[0]][:, :kept]
    status = table_of(result, curve, "status")[:, :kept]
    recorded = np.isfinite(table_of(result, curve, "seed")[:, :kept])
    known = {int(one): one.words for one in Status}
    clouds = []
    # Without a status there are two clouds: cells with and cells without a value.
    codes = np.where(np.isfinite(status), status, -1).astype(int)
    for code in np.unique(codes[recorded]):
        for failed in (False, True):
            j, i = np.nonzero((recorded & (codes == code) & (np.isnan(y) == failed)).T)
            if len(i):
                name = "" if code < 0 else known.get(int(code), f"status {code}")
                x = curve.x[i]
                shown = x if dodge is None else scale.back(scale.forward(x) + dodge[j])
                clouds.append(Cloud(place.name, name, failed, place.look, curve.seeds[j], x, shown, y[i, j]))
    return clouds


def cloud_chart(result: Result, clouds: Sequence[Cloud], x_scale: Scale, y_scale: Scale) -> Plot:
    """Every seed as a point; hovering shows its seed and how its cell ended. Cells without a value are crosses at the upper
    end; curves and seeds with the same x are side by side."""
    plot, axes = Plot(layout=layout_of()), Axes(x_scale, y_scale)
    x_label = label_of(result, result.experiment.x)
    low, high = _ends([cloud.y for cloud in clouds if not cloud.failed], y_scale)
    for cloud in clouds:
        y = np.full(len(cloud.x), high) if cloud.failed else cloud.y
        name = words(f"{cloud.name}: {cloud.status}" if cloud.status else cloud.name)
        data, _, at_y = axes.hovered(cloud.shown_x, y, cloud.seed, cloud.x)
        value = "no value" if cloud.failed else f"%{{{at_y}:.3g}}"
        places = axes.places(cloud.shown_x, y)
        symbol = "x-thin-open" if cloud.failed else cloud.look.symbol
        assert data is not None
        plot.add(
            "scatter", x=places["x"].astype(np.float32), y=places["y"].astype(np.float32), mode="markers", name=name,
            marker={
                "symbol": symbol,
                "size": 8 if cloud.failed else 6,
                "color": COLOURS[cloud.look.colour],
                "opacity": 1.0 if cloud.failed else 0.55,
                "line": {"width": 1.5 if cloud.failed else 0},
            },
            customdata=data.astype(_smallest(data)),
            hovertemplate=(
                f"{name}<br>seed %{{customdata[0]}}<br>{words(x_label)}: %{{customdata[1]:.6~g}}<br>{value}<extra></extra>"
            ),
            meta={"keys": [key_of(cloud.look)], "ink": cloud.look.colour},
        )  # fmt: skip
    set_y(plot, label_of(result, result.experiment.y[0]), (low, high), y_scale, margin=0.04)
    set_x(plot, x_label, np.concatenate([cloud.x for cloud in clouds]), x_scale)
    return plot


def path_chart(result: Result, clouds: Sequence[Cloud], x_scale: Scale, y_scale: Scale) -> Plot:
    """Every seed as a thin line along an x that cells return."""
    plot, axes = Plot(layout=layout_of()), Axes(x_scale, y_scale)
    x_label = label_of(result, result.experiment.x)
    for cloud in clouds:
        # With a gap after every seed, one trace can hold all of them.
        ends = np.flatnonzero(np.diff(cloud.seed)) + 1
        x, y, seed = (np.insert(values.astype(float), ends, np.nan) for values in (cloud.x, cloud.y, cloud.seed))
        name = words(f"{cloud.name}: {cloud.status}" if cloud.status else cloud.name)
        data, at_x, at_y = axes.hovered(x, y, seed)
        places = axes.places(x, y)
        assert data is not None
        plot.add(
            "scatter", x=places["x"].astype(np.float32), y=places["y"].astype(np.float32), mode="lines", name=name, opacity=0.5,
            line={"width": 1, "color": COLOURS[cloud.look.colour]}, connectgaps=False, customdata=data.astype(np.float32),
            hovertemplate=(
                f"{name}<br>seed %{{customdata[0]}}<br>{words(x_label)}: %{{{at_x}}}<br>%{{{at_y}:.3g}}<extra></extra>"
            ),
            meta={"keys": [key_of(cloud.look)], "ink": cloud.look.colour},
        )  # fmt: skip
    set_y(
        plot, label_of(result, result.experiment.y[0]), _ends([c.y for c in clouds], y_scale, 0.0), y_scale, margin=0.05
    )
    set_x(plot, x_label, np.concatenate([cloud.x for cloud in clouds]), x_scale)
    return plot


def _ends(values: Sequence[np.ndarray], scale: Scale, above: float = 0.08) -> tuple[float, float]:
    """The least value, and one above the greatest by a share of the axis."""
    known = np.concatenate([np.zeros(0), *values])
    places = scale.forward(known if known.size else np.array([0.1, 1.0]))
    low, high = places.min(), places.max()
    low, high = scale.back(np.array([low, high + above * (high - low or 1.0)]))
    return float(low), float(high)


def _smallest(values: np.ndarray) -> type:
    """The smallest type that holds all values exactly."""
    whole = np.array_equal(values, np.trunc(values)) and (not values.size or np.abs(values).max() < 2**31)
    return np.int32 if whole else np.float64
