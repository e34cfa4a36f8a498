"""Interactive charts of every seed, as points or as paths along an x that cells return."""

from collections.abc import Sequence

import numpy as np

from ..sweep.result import Result
from .look import COLOURS
from .numbers import label_of
from .plot import Axes, Plot, key_of, layout_of, set_x, set_y, words
from .points import Cloud
from .series import Scale


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
