"""The fit of a metric over two arguments of a sweep, by `Result.surface` or by the table `[surface]` of a sweep file."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..hints import nearest
from ..rates import Huber, Surface, fit_surface
from .axes import same
from .curve import Curve
from .errors import AbsentError, SpecError, shown
from .values import canonical

# The fewest values of an argument from which its exponent can be fitted beside other terms.
_LEAST = 3


class SurfaceAxes(BaseModel):
    """The table `[surface]` of a sweep file: the page fits L = E + A/N^a + B/D^b over two arguments (`tsjax.fit_surface`).

    - `n`, `d`: the arguments N and D. `at`: the values of other arguments that vary.
    - `floor`: whether the fit has the term E. `huber`: the delta of Huber's loss of log residuals, in place of
      their squares.
    - `cost`: the factor in the compute C = cost N D, such as 6 operations for each parameter and token. With it the page shows
      the best N and D at a given compute.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    n: str
    d: str
    at: dict[str, Any] = {}
    floor: bool = True
    huber: float | None = Field(default=None, gt=0)
    cost: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _are_two(self):
        if self.n == self.d or {self.n, self.d} & set(self.at):
            raise ValueError(f"n, d and the arguments in at must be different; got {self.n!r}, {self.d!r}")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The options of `fit_surface`."""
        return {"floor": self.floor, "method": "wls" if self.huber is None else Huber(self.huber)}


def check_surface(axes: SurfaceAxes | None, names: Sequence[str], cells: Iterable[Mapping[str, Any]]) -> None:
    """Raises SpecError for a surface whose arguments are not among `names`, or do not have enough positive values in the cells;
    AbsentError if another grid might have them."""
    if axes is None:
        return
    for name in (axes.n, axes.d, *axes.at):
        if name not in names:
            raise SpecError(f"[surface]: {name!r} is not an argument of this sweep.{nearest(name, names)}")
    kept = [cell for cell in cells if all(same(cell[name], value) for name, value in axes.at.items())]
    if not kept:
        raise AbsentError(f"[surface]: no cell of this sweep has at = {shown(axes.at)}.")
    for name in (axes.n, axes.d):
        values = {cell[name] for cell in kept if not isinstance(cell[name], list | dict)}
        if any(isinstance(value, bool) or not isinstance(value, int | float) or value <= 0 for value in values):
            raise SpecError(
                f"[surface]: {name} must be a positive number, and has {shown(sorted(values, key=str)[:5])}."
            )
        if len(values) < _LEAST:
            raise AbsentError(
                f"[surface]: an exponent in {name} needs at least {_LEAST} values of it, got {shown(sorted(values))}."
            )


def surface_of(
    curves: Sequence[Curve], x: str, metric: str, n: str, d: str, at: Mapping[str, Any], options: Mapping[str, Any]
) -> Surface:
    """`fit_surface` of a metric over the arguments `n` and `d`, from curves along `x`, at the values `at` of other arguments.

    **Raises:** ValueError for names that are not arguments, values that no curve has, arguments that still vary, axes that are
    not numbers, and as `fit_surface`.
    """
    names = [x, *(name for name in (curves[0].arguments if curves else {}))]
    for name in (n, d, *at):
        if name not in names:
            raise ValueError(f"{name!r} is not an argument of this sweep.{nearest(name, names)}")
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
        raise ValueError(f"{', '.join(varying)} varies too: give its value, such as at={{{varying[0]!r}: ...}}.")
    seeds = sorted({seed for point in points.values() for seed in point})
    table = np.array([[point.get(seed, np.nan) for seed in seeds] for point in points.values()])
    kept = ~np.isnan(table).all(axis=1)
    places = np.array(list(points))[kept]
    return fit_surface(places[:, 0], places[:, 1], table[kept], **options)
