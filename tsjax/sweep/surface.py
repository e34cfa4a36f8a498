"""The fit of a metric over two arguments of a sweep: what `Result.surface` does."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..hints import nearest
from ..rates import Surface, fit_surface
from .curve import Curve
from .errors import shown
from .values import canonical


def surface_of(
    curves: Sequence[Curve], x: str, metric: str, n: str, d: str, at: Mapping[str, Any], options: Mapping[str, Any]
) -> Surface:
    """`fit_surface` of a metric over the arguments n and d of some curves over x, at the values of other arguments.

    **Raises:** ValueError for names that are no arguments, values that no curve has, arguments that still vary, axes that are
    no numbers, and as `fit_surface`.
    """
    names = [x, *(name for name in (curves[0].arguments if curves else {}))]
    for name in (n, d, *at):
        if name not in names:
            raise ValueError(f"{name!r} is no argument of this sweep.{nearest(name, names)}")
    if n == d or {n, d} & set(at):
        raise ValueError(
            f"n, d and the arguments in `at` must be different; got n={n!r}, d={d!r}, at={shown(dict(at))}."
        )
    same = lambda name, value: name not in at or canonical({name: value}) == canonical({name: at[name]})
    points: dict[tuple[float, float], dict[int, float]] = {}
    others: dict[str, dict[str, Any]] = {}
    for curve in curves:
        for i, place in enumerate(curve.x):
            arguments = {**curve.arguments, x: place.item()}
            if not all(same(name, value) for name, value in arguments.items()):
                continue
            axes = [arguments.pop(name) for name in (n, d)]
            if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in axes):
                raise ValueError(
                    f"a surface is over two numbers; here {n} = {shown(axes[0])} and {d} = {shown(axes[1])}."
                )
            others[canonical(arguments)] = arguments
            point = points.setdefault((float(axes[0]), float(axes[1])), {})
            point |= zip(curve.seeds.tolist(), curve.values[metric][i].tolist(), strict=True)
    if not points:
        raise ValueError(f"no record has {shown(dict(at))}. Give values of the grid.")
    if len(others) > 1:
        varying = [
            name
            for name in next(iter(others.values()))
            if len({canonical({name: o[name]}) for o in others.values()}) > 1
        ]
        raise ValueError(f"{', '.join(varying)} varies too: say at which value, such as at={{{varying[0]!r}: ...}}.")
    seeds = sorted({seed for point in points.values() for seed in point})
    table = np.array([[point.get(seed, np.nan) for seed in seeds] for point in points.values()])
    kept = ~np.isnan(table).all(axis=1)
    places = np.array(list(points))[kept]
    return fit_surface(places[:, 0], places[:, 1], table[kept], **options)
