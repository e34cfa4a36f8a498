"""Expectations against the grid, before anything is compiled: every name and value in them exists, and picks one curve."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .axes import same
from .errors import AbsentError, SpecError, nearest, shown
from .expectation import Expectation
from .experiment import Experiment
from .metrics import TIMES, no_measurement, no_ratio
from .trace import outputs_of, theory_of
from .values import hashable, name_of_value, within

# Words that are no metric but say what is made of one.
_FITS = ("rate", "crossing", "model", "forecast")


@dataclass
class _Curve:
    """The cells that differ in x and seed alone: all arguments but x, and the values of x where x is an argument."""

    name: str
    arguments: dict[str, Any]
    x: list[Any] = field(default_factory=list)


def _curves_of(cells: Iterable[dict[str, Any]], experiment: Experiment) -> list[_Curve]:
    found: dict[str, _Curve] = {}
    for cell in cells:
        arguments = {name: value for name, value in cell.items() if name != experiment.x}
        name = experiment.name if experiment.curve is None else name_of_value(arguments.get(experiment.curve))
        curve = found.setdefault(repr(arguments), _Curve(name, arguments))
        if experiment.x in cell:
            curve.x.append(cell[experiment.x])
    return list(found.values())


def check_expectations(
    expectations: Sequence[Expectation], experiment: Experiment, cells: Iterable[dict[str, Any]], *, deep: bool = True
) -> None:
    """Raises SpecError for an expectation that could never be judged: about a curve, an axis, a value, a window or a metric
    that the cells do not have; AbsentError where another grid might have it. `deep` also asks the experiment: what it
    returns, and whether theory predicts a curve."""
    if expectations:
        grid = _Grid(experiment, _curves_of(cells, experiment))
        for number, expectation in enumerate(expectations):
            _Check(grid, expectation, f"[[expect]] number {number + 1}").run(deep)


def possible(
    expectations: Sequence[Expectation], experiment: Experiment, cells: Iterable[dict[str, Any]]
) -> list[Expectation]:
    """Those of the expectations that a grid can judge: the others are about curves, values or windows that it lacks."""
    grid, kept = _Grid(experiment, _curves_of(cells, experiment)), []
    for number, expectation in enumerate(expectations):
        try:
            _Check(grid, expectation, f"[[expect]] number {number + 1}").run(deep=False)
        except AbsentError:
            continue
        kept.append(expectation)
    return kept


@dataclass(frozen=True)
class _Grid:
    experiment: Experiment
    curves: list[_Curve]

    @property
    def names(self) -> list[str]:
        """Of curves, each one once."""
        return list(dict.fromkeys(curve.name for curve in self.curves))

    def outputs(self, name: str) -> dict[str, Any] | None:
        """What the first cell of the curves of that name returns, with shapes and types; None where it cannot be traced, which
        the run will tell, and of a black box, which would have to be run."""
        if self.experiment.black_box:
            return None
        curve = next(curve for curve in self.curves if curve.name == name)
        x = {self.experiment.x: curve.x[0]} if curve.x else {}
        try:
            return outputs_of(self.experiment, {**curve.arguments, **x})
        except Exception:
            return None


@dataclass(frozen=True)
class _Check:
    grid: _Grid
    expectation: Expectation
    where: str

    def run(self, deep: bool) -> None:
        parts, experiment = self.expectation.parts, self.grid.experiment
        metric, name, other = str(parts["metric"]), parts["curve"], parts["other"]
        self._names()
        for word in (metric, other):
            if word in TIMES:
                raise SpecError(f"{self.where}: {self.expectation.what!r}: {no_measurement(word)}")
        curves = self._meant(name)
        for curve in curves:
            self._window(curve)
        if other == "predicted":
            self._predicted(curves[0], deep and name != "*")
        elif other is not None and self._is_curve(other, metric):
            rival = self._one(other)
            self._window(rival)
            for curve in curves:
                self._common(curve, rival, every=metric not in _FITS)
        if deep and metric not in (*_FITS, *experiment.y):
            for one in dict.fromkeys(curve.name for curve in curves):
                self._recorded(metric, one)
        if deep and other not in (None, "predicted", *experiment.y) and not self._is_curve(str(other), metric):
            self._recorded(str(other), curves[0].name)
        if deep and metric not in _FITS:
            self._kind(metric, other, curves[0].name)

    def _names(self) -> None:
        """What is named is there at all."""
        expectation, experiment = self.expectation, self.grid.experiment
        names = list(experiment.arguments.model_fields)
        curve, axis, other = (expectation.parts[part] for part in ("curve", "axis", "other"))
        named = [] if curve is None or curve == "*" else [curve]
        if expectation.parts["metric"] in _FITS and other not in (None, "predicted"):
            named.append(str(other))
        for name in named + expectation.excluding:
            if name not in self.grid.names:
                raise AbsentError(
                    f"{self.where}: no curve {name!r} in this sweep.{nearest(name, sorted(self.grid.names))}"
                )
        if expectation.excluding and curve != "*":
            raise SpecError(
                f"{self.where}: excluding = ... goes with '*' only, but {expectation.what!r} is about one curve."
            )
        if curve is None and experiment.curve is not None:
            raise SpecError(f"{self.where}: say of which {experiment.curve}: {', '.join(sorted(self.grid.names))}.")
        if axis is not None and axis != experiment.x:
            raise SpecError(f"{self.where}: {experiment.name} has rates in {experiment.x!r}, not in {axis!r}.")
        for key in expectation.over:
            if key != experiment.x:
                hint = " A curve is picked by where = {...}." if key in names else ""
                raise SpecError(f"{self.where}: over names {key!r}; it restricts {experiment.x!r} alone.{hint}")
        for key, value in expectation.where.items():
            if key not in names:
                raise SpecError(f"{self.where}: where names {key!r}.{nearest(key, names)}")
            if key == experiment.x:
                raise SpecError(
                    f"{self.where}: where picks a curve; write over = {{ {key} = {shown(value)} }} for its x."
                )
            self._value(key, value)

    def _value(self, key: str, value: Any) -> None:
        values: list[Any] = []
        for curve in self.grid.curves:
            mine = curve.arguments[key]
            if same(mine, value):
                return
            if not any(same(mine, other) for other in values):
                values.append(mine)
        hint = " Give one value." if isinstance(value, list) else ""
        raise AbsentError(
            f"{self.where}: where = {{ {key} = {shown(value)} }}, but no curve of this sweep has that.{hint} Its values of "
            f"{key} are {shown(values)}."
        )

    def _chosen(self, name: str | None) -> list[_Curve]:
        where = self.expectation.where
        return [
            curve
            for curve in self.grid.curves
            if (name is None or name == "*" or curve.name == name)
            and all(same(curve.arguments[key], value) for key, value in where.items())
        ]

    def _meant(self, name: str | None) -> list[_Curve]:
        if name != "*":
            return [self._one(name)]
        left_out = (self.expectation.parts["other"], *self.expectation.excluding)
        curves = [curve for curve in self._chosen(name) if curve.name not in left_out]
        if not curves:
            raise AbsentError(
                f"{self.where}: {self.expectation.what!r} is about no curve of this sweep: where = "
                f"{shown(self.expectation.where)} allows none, or only those that are left out ({shown(left_out)})."
            )
        return curves

    def _one(self, name: str | None) -> _Curve:
        found = self._chosen(name)
        if not found:
            raise AbsentError(
                f"{self.where}: no curve {name or ''} of this sweep has {shown(self.expectation.where)} all at once; change "
                "where."
            )
        if len(found) > 1:
            first, second = found[0].arguments, found[1].arguments
            differ = [key for key in first if not same(first[key], second[key])]
            values = {key: list(dict.fromkeys(shown(curve.arguments[key]) for curve in found)) for key in differ}
            told = "; ".join(f"{key} = {' or '.join(listed)}" for key, listed in values.items())
            raise SpecError(
                f"{self.where}: {len(found)} curves are called {found[0].name}; pick one by where = {{ {differ[0]} = ... }}. "
                f"They differ in {told}."
            )
        return found[0]

    def _bounds(self) -> tuple[float, float] | None:
        """Of the window in x; None for all x, and where x is not a number."""
        window = self.expectation.over.get(self.grid.experiment.x)
        if window is None:
            return None
        return (window[0], window[1]) if isinstance(window, list) else (window, window)

    def _in_window(self, curve: _Curve) -> list[Any]:
        bounds = self._bounds()
        return [x for x in curve.x if bounds is None or within(x, *bounds)]

    def _window(self, curve: _Curve) -> None:
        """Some x of the curve lies in the window. Values of x that the experiment returns are not known yet."""
        if curve.x and not self._in_window(curve):
            axis = self.grid.experiment.x
            raise AbsentError(
                f"{self.where}: over = {shown(self.expectation.over)} holds no {axis} of the curve {curve.name}: its values "
                f"are {shown(sorted(set(curve.x)))}."
            )

    def _common(self, curve: _Curve, rival: _Curve, every: bool) -> None:
        """The rival has the x where the two are compared: all of them, or at least one."""
        axis, mine, theirs = self.grid.experiment.x, self._in_window(curve), set(self._in_window(rival))
        lacking = [x for x in mine if x not in theirs]
        if lacking and (every or len(lacking) == len(mine)):
            raise AbsentError(
                f"{self.where}: {curve.name} is compared with {rival.name}, which has no {axis} = {shown(sorted(set(lacking)))}"
                f": its values are {shown(sorted(theirs))}. Restrict the comparison by over = {{ {axis} = [LOW, HIGH] }}."
            )

    def _is_curve(self, name: str, metric: str) -> bool:
        """Whether OTHER of 'relative to OTHER' is a curve; a recorded value of that name comes first."""
        if metric in _FITS:
            return True
        return name in self.grid.names and name not in self.grid.experiment.y

    def _predicted(self, curve: _Curve, deep: bool) -> None:
        experiment = self.grid.experiment
        if experiment.theory is None:
            raise SpecError(
                f"{self.where}: {self.expectation.what!r}, but {experiment.name} has no theory: give the experiment one "
                "(theory=...), or compare with a curve or a recorded value."
            )
        if not deep or not curve.x:
            return
        try:
            # As the sweep asks when it runs, at all x.
            arguments = {name: hashable(value) for name, value in curve.arguments.items()}
            theory = theory_of(experiment, arguments, sorted(set(map(float, curve.x))))
        except Exception as error:
            raise SpecError(
                f"{self.where}: the theory of {experiment.name} fails for the curve {curve.name}: {type(error).__name__}: "
                f"{error}"
            ) from error
        if theory.predicted is None:
            raise SpecError(
                f"{self.where}: {self.expectation.what!r}, but theory predicts no curve for {curve.name} at these arguments."
            )

    def _recorded(self, name: str, curve: str) -> None:
        """A value of that name is recorded of the curve: what its cells return, or a number among the arguments."""
        experiment = self.grid.experiment
        arguments = self.grid.curves[0].arguments
        numbers = [key for key, value in arguments.items() if isinstance(value, int | float)]
        if name in numbers:
            return
        returned = self.grid.outputs(curve)
        if returned is None or name in returned:
            return
        allowed = sorted({*returned, *experiment.y} - {"status", experiment.x})
        role = "curves and recorded values" if name == self.expectation.parts["other"] else "recorded values"
        if name == self.expectation.parts["other"]:
            allowed = [*self.grid.names, *allowed, "predicted"]
        raise SpecError(
            f"{self.where}: {self.expectation.what!r}: {name!r} is not among the {role} of {curve}.{nearest(name, allowed)}"
        )

    def _kind(self, metric: str, other: str | None, curve: str) -> None:
        """The metric is of a kind whose mean, or ratio of means, has an interval, as far as types and bounds tell. One curve is
        looked at, since a column has one type in all of them."""
        low, high = self.expectation.allowed
        middle = self.expectation.value
        signed = high <= 0 or -np.inf < low < 0 and (middle is None or middle <= 0)
        if other is None and not signed:
            return
        returned = self.grid.outputs(curve) or {}
        truth = [name for name in (metric, other) if name in returned and returned[name].dtype == bool]
        if truth and other is not None:
            raise SpecError(f"{self.where}: {self.expectation.what!r}: {no_ratio(truth[0])}")
        if signed and metric in returned and np.issubdtype(returned[metric].dtype, np.floating):
            bounds = " and ".join(
                f"{name} = {bound:g}"
                for name, bound in (("value", middle), ("at_least", low), ("at_most", high))
                if bound is not None and np.isfinite(bound) and (middle is None or name == "value")
            )
            raise SpecError(
                f"{self.where}: {self.expectation.what!r} with {bounds} is about a mean that may be 0 or negative, and tsjax "
                "has intervals for means of risks alone, which are positive. Expect something of a positive quantity, such as "
                "a square or an absolute value, or return a truth value, whose mean is a share."
            )
