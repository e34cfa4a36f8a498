"""Checks expectations against the grid before anything is compiled: every name and value exists, and picks one curve."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..hints import nearest
from ..rates import Share
from .axes import same
from .errors import AbsentError, SpecError, shown
from .expectation import Expectation
from .experiment import Experiment
from .metrics import TIMES, kind_in, no_measurement, no_ratio
from .phrase import names_in
from .selection import chosen, in_expressions, rivals_of, subject_of
from .trace import outputs_of, theory_of
from .values import hashable, name_of_value, within


@dataclass
class _Curve:
    """The cells that differ only in one axis and the seed: all other `arguments`, and the values `x` of the axis if it is an
    argument."""

    name: str
    arguments: dict[str, Any]
    x: list[Any] = field(default_factory=list)


def check_expectations(
    expectations: Sequence[Expectation], experiment: Experiment, cells: Iterable[dict[str, Any]], *, deep: bool = True
) -> None:
    """Raises SpecError for an expectation that can never be judged, since it is about a curve, an axis, a value, a window or a
    metric that the cells do not have. The error is an AbsentError if another grid might have it. `deep` also checks what the
    experiment returns, and whether theory predicts a curve."""
    if expectations:
        grid = _Grid(experiment, list(cells))
        for number, expectation in enumerate(expectations):
            _Check(grid, expectation, f"[[expect]] number {number + 1}").run(deep)


def possible(
    expectations: Sequence[Expectation], experiment: Experiment, cells: Iterable[dict[str, Any]]
) -> list[Expectation]:
    """The expectations that can be judged on a grid; the others are about curves, values or windows that it lacks."""
    grid, kept = _Grid(experiment, list(cells)), []
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
    cells: list[dict[str, Any]]
    _known: dict[str, list[_Curve]] = field(default_factory=dict)

    def along(self, axis: str) -> list[_Curve]:
        """The curves along an axis."""
        if axis not in self._known:
            found: dict[str, _Curve] = {}
            curve_by = None if self.experiment.curve == axis else self.experiment.curve
            for cell in self.cells:
                arguments = {name: value for name, value in cell.items() if name != axis}
                name = self.experiment.name if curve_by is None else name_of_value(arguments.get(curve_by))
                curve = found.setdefault(repr(arguments), _Curve(name, arguments))
                if axis in cell:
                    curve.x.append(cell[axis])
            self._known[axis] = list(found.values())
        return self._known[axis]

    @property
    def curves(self) -> list[_Curve]:
        """The curves along x."""
        return self.along(self.experiment.x)

    @property
    def names(self) -> list[str]:
        """The names of the curves along x, without repetitions."""
        return list(dict.fromkeys(curve.name for curve in self.curves))

    def outputs(self, name: str) -> dict[str, Any] | None:
        """Names, shapes and types of the values that the first cell of the curves of that name returns. None if it cannot be
        traced, which the run will report, and for a black box, which would have to be run."""
        if self.experiment.black_box:
            return None
        curve = next(curve for curve in self.curves if curve.name == name)
        x = {self.experiment.x: curve.x[0]} if curve.x else {}
        try:
            return outputs_of(self.experiment, {**curve.arguments, **x})
        except Exception:
            return None


class _Check:
    def __init__(self, grid: _Grid, expectation: Expectation, where: str):
        self.grid, self.expectation, self.where = grid, expectation, where
        self.experiment, self.phrase = grid.experiment, expectation.phrase
        self.subject = subject_of(expectation, self.experiment.description, grid.names)
        self.than = {**expectation.than, **dict([self.phrase.than] if self.phrase.than else [])}

    def run(self, deep: bool) -> None:
        metric, other, experiment = self.subject.metric, self.phrase.other, self.experiment
        for word in (metric, other):
            if word in TIMES:
                raise SpecError(f"{self.where}: {self.expectation.what!r}: {no_measurement(word)}")
        self._names()
        curves = self._meant()
        for curve in curves:
            self._window(curve)
        if self.phrase.pools:
            self._cells(curves)
        if other == "predicted":
            self._predicted(curves[0], deep and self.subject.curve != "*")
        elif self.than or (other is not None and self._is_curve(other)):
            for curve in curves:
                self._rival(curve)
        if deep and metric not in experiment.y:
            for one in dict.fromkeys(curve.name for curve in curves):
                self._recorded(metric, self._name(one))
        if deep and other not in (None, "predicted", *experiment.y) and not self._is_curve(str(other)):
            self._recorded(str(other), self._name(curves[0].name))
        if deep:
            self._kind(self._name(curves[0].name))

    def _name(self, name: str) -> str:
        """This name, if a curve along x has it; else the name of the first curve, as for curves along the argument that names
        them."""
        return name if name in self.grid.names else self.grid.names[0]

    def _names(self) -> None:
        """Checks that all names and values exist."""
        expectation, experiment, phrase = self.expectation, self.experiment, self.phrase
        names = list(experiment.arguments.model_fields)
        curve, axis, other = self.subject.curve, self.subject.axis, phrase.other
        named = [] if curve is None or curve == "*" else [curve]
        if phrase.fits and other not in (None, "predicted"):
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
        if curve is None and experiment.curve is not None and not phrase.pools and axis != experiment.curve:
            raise SpecError(f"{self.where}: name the {experiment.curve}: {', '.join(sorted(self.grid.names))}.")
        along = list(dict.fromkeys([*names, experiment.x]))
        if axis not in along:
            raise SpecError(f"{self.where}: {experiment.name} has no axis {axis!r}.{nearest(axis, along)}")
        for name in (phrase.outer, *(phrase.than or ())[:1]):
            if name is not None and name not in along:
                raise SpecError(f"{self.where}: {experiment.name} has no argument {name!r}.{nearest(name, names)}")
        windows = self.subject.windows if phrase.pools else {}
        for expression in filter(None, (phrase.z, phrase.rival, *windows)):
            for name in names_in(expression):
                if name not in along:
                    raise SpecError(f"{self.where}: {expression!r} names {name!r}.{nearest(name, along)}")
        if axis != experiment.x or phrase.outer is not None:
            self._numbers(str(phrase.outer or axis))
        for key in self.subject.windows:
            if key not in (axis, experiment.x) and not phrase.pools:
                hint = " A curve is picked by where = {...}." if key in names else ""
                raise SpecError(f"{self.where}: over names {key!r}; it restricts {experiment.x!r} alone.{hint}")
        for key, value in self.subject.where.items():
            if key not in names:
                raise SpecError(f"{self.where}: where names {key!r}.{nearest(key, names)}")
            if key == axis:
                raise SpecError(
                    f"{self.where}: where picks a curve; write over = {{ {key} = {shown(value)} }} for its {self._x(key)}."
                )
            self._value(key, value)
        for key, value in self.than.items():
            if key not in names:
                raise SpecError(f"{self.where}: than names {key!r}.{nearest(key, names)}")
            self._value(key, value, "than")

    def _x(self, key: str) -> str:
        return "x" if key == self.experiment.x else key

    def _numbers(self, axis: str) -> None:
        """Checks that there are curves along an argument: it must be a number, and have at least two values."""
        values = {repr(cell[axis]): cell[axis] for cell in self.grid.cells if axis in cell}
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values.values()):
            raise SpecError(f"{self.where}: {axis!r} is not a number in this sweep, so there are no curves along it.")
        if len(values) < 2 and axis in self.experiment.arguments.model_fields:
            raise AbsentError(f"{self.where}: {axis!r} has one value in this sweep, {shown(list(values.values()))}.")

    def _value(self, key: str, value: Any, option: str = "where") -> None:
        values: list[Any] = []
        for cell in self.grid.cells:
            mine = cell[key]
            if same(mine, value):
                return
            if not any(same(mine, other) for other in values):
                values.append(mine)
        hint = " Give one value." if isinstance(value, list) else ""
        raise AbsentError(
            f"{self.where}: {option} = {{ {key} = {shown(value)} }}, but no curve of this sweep has that.{hint} Its values of "
            f"{key} are {shown(values)}."
        )

    def _meant(self) -> list[_Curve]:
        subject, name = self.subject, self.subject.curve
        found = chosen(self.grid.along(subject.axis), subject, name)
        if name == "*":
            left_out = (self.phrase.other, *self.expectation.excluding)
            found = [curve for curve in found if curve.name not in left_out]
            if not found:
                raise AbsentError(
                    f"{self.where}: {self.expectation.what!r} is about no curve of this sweep: where = "
                    f"{shown(subject.where)} allows none, or only curves that are left out ({shown(left_out)})."
                )
            return found
        several = self.phrase.pools or self.phrase.outer is not None
        if several or (subject.axis != self.experiment.x and self.experiment.x in subject.windows):
            if not found:
                raise AbsentError(f"{self.where}: {self.expectation.what!r} is about no curve of this sweep.")
            return found
        return [self._only(found, name)]

    def _only(self, found: list[_Curve], name: str | None) -> _Curve:
        if not found:
            raise AbsentError(
                f"{self.where}: no curve {name or ''} of this sweep has {shown(self.subject.where)} all at once; change "
                "where."
            )
        if len(found) > 1:
            first, second = found[0].arguments, found[1].arguments
            differ = [key for key in first if not same(first[key], second[key])]
            values = {key: list(dict.fromkeys(shown(curve.arguments[key]) for curve in found)) for key in differ}
            differences = "; ".join(f"{key} = {' or '.join(listed)}" for key, listed in values.items())
            raise SpecError(
                f"{self.where}: {len(found)} curves are called {found[0].name}; pick one by where = {{ {differ[0]} = ... }}. "
                f"They differ in {differences}."
            )
        return found[0]

    def _rival(self, curve: _Curve) -> None:
        """Checks that the second operand is one curve, which has the x at which the two are compared."""
        name, than, axis = self.phrase.other or curve.name, dict(self.than), self.subject.axis
        if self.experiment.curve in than and self.phrase.other is None:
            name = name_of_value(than.pop(self.experiment.curve))
        elsewhere = {key: value for key, value in than.items() if key != axis}
        found = rivals_of(self.grid.along(axis), self.subject, name, curve, elsewhere, self.experiment.curve)
        rival = self._only(found, name)
        if axis in than:
            if self.phrase.fits:
                raise SpecError(
                    f"{self.where}: {self.expectation.what!r} is about curves along {axis}, so the second operand cannot be "
                    f"at one {axis}: name another argument, or compare means, '{self.subject.metric} of CURVE relative to "
                    f"{axis} = {shown(than[axis])}'."
                )
            if not any(same(x, than[axis]) for x in rival.x):
                raise AbsentError(f"{self.where}: {rival.name} has no {axis} = {shown(than[axis])}: {shown(rival.x)}.")
            return
        self._window(rival)
        self._common(curve, rival, every=not self.phrase.fits)

    def _bounds(self) -> tuple[float, float] | None:
        """The bounds of the window along the axis; None for the whole axis."""
        return self.subject.window(self.subject.axis)

    def _in_window(self, curve: _Curve) -> list[Any]:
        bounds = self._bounds()
        return [x for x in curve.x if bounds is None or within(x, *bounds)]

    def _window(self, curve: _Curve) -> None:
        """Checks that some x of the curve lies in the window. Values of x that the experiment returns are not known yet."""
        if curve.x and not self._in_window(curve):
            axis = self.subject.axis
            raise AbsentError(
                f"{self.where}: over = {shown(self.expectation.over or self.phrase.at)} holds no {axis} of the curve "
                f"{curve.name}: its values are {shown(sorted(set(curve.x)))}."
            )

    def _cells(self, curves: Sequence[_Curve]) -> None:
        """Checks that some cell of the curves lies in all windows, including those of expressions."""
        axis, windows = self.subject.axis, self.subject.windows
        cells = [{**curve.arguments, axis: x} for curve in curves for x in curve.x]
        try:
            if cells and not any(in_expressions(cell, windows) for cell in cells):
                raise AbsentError(f"{self.where}: over = {shown(windows)} holds no cell of this sweep.")
        except ValueError as error:
            raise error if isinstance(error, SpecError) else SpecError(f"{self.where}: {error}") from error

    def _common(self, curve: _Curve, rival: _Curve, every: bool) -> None:
        """Checks that the rival has the x at which the two are compared: all of them (`every`), or at least one."""
        axis, mine, theirs = self.subject.axis, self._in_window(curve), set(self._in_window(rival))
        lacking = [x for x in mine if x not in theirs]
        if lacking and (every or len(lacking) == len(mine)):
            raise AbsentError(
                f"{self.where}: {curve.name} is compared with {rival.name}, which has no {axis} = {shown(sorted(set(lacking)))}"
                f": its values are {shown(sorted(theirs))}. Restrict the comparison by over = {{ {axis} = [LOW, HIGH] }}."
            )

    def _is_curve(self, name: str) -> bool:
        """Whether OTHER is a curve; a y of the same name takes precedence."""
        if self.phrase.fits:
            return True
        return name in self.grid.names and name not in self.grid.experiment.y

    def _predicted(self, curve: _Curve, deep: bool) -> None:
        experiment = self.grid.experiment
        if self.subject.metric != experiment.y[0]:
            raise SpecError(
                f"{self.where}: {self.expectation.what!r}: theory predicts {experiment.y[0]!r} alone, the first y of "
                f"{experiment.name}: compare {self.subject.metric!r} with a curve or a recorded value."
            )
        if experiment.theory is None:
            raise SpecError(
                f"{self.where}: {self.expectation.what!r}, but {experiment.name} has no theory: give the experiment one "
                "(theory=...), or compare with a curve or a recorded value."
            )
        if not deep or not curve.x:
            return
        try:
            # At all x, as the sweep itself will ask.
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
        """Checks that a value of that name is recorded for the curve: its cells return it, or it is a numeric argument."""
        experiment = self.grid.experiment
        arguments = self.grid.curves[0].arguments
        numbers = [key for key, value in arguments.items() if isinstance(value, int | float)]
        if name in numbers:
            return
        returned = self.grid.outputs(curve)
        if returned is None or name in returned:
            return
        allowed = sorted({*returned, *experiment.y} - {"status", experiment.x})
        role = "curves and recorded values" if name == self.phrase.other else "recorded values"
        if name == self.phrase.other:
            allowed = [*self.grid.names, *allowed, "predicted"]
        raise SpecError(
            f"{self.where}: {self.expectation.what!r}: {name!r} is not among the {role} of {curve}.{nearest(name, allowed)}"
        )

    def _kind(self, curve: str) -> None:
        """Checks that the kind of the metric has such a number, as far as declarations, types and bounds show. One curve
        suffices, since a column has the same type in all curves."""
        metric, other = self.subject.metric, self.phrase.other
        low, high = self.expectation.allowed
        returned = self.grid.outputs(curve) or {}
        kinds = {
            name: kind_in(self.experiment.description, name, name in returned and returned[name].dtype == bool)
            for name in (metric, other)
            if name is not None and (name == metric or not self._is_curve(name))
        }
        kind = kinds[metric]
        if self.phrase.form == "mean" and self.phrase.operator == "relative to":
            for name, one in kinds.items():
                if not one.has_ratios:
                    raise SpecError(f"{self.where}: {self.expectation.what!r}: {no_ratio(name, one)}")
        if self.phrase.fits and kind.name in ("signed", "indicator") and self.phrase.form != "crossing":
            raise SpecError(
                f"{self.where}: {self.expectation.what!r}: {metric!r} is of kind {kind.name}, and only positive numbers "
                "and shares have rates."
            )
        if isinstance(kind, Share) and isinstance(kind.trials, str):
            known = {*self.experiment.arguments.model_fields, *returned}
            if returned and kind.trials not in known:
                raise SpecError(
                    f"{self.where}: {metric!r} is a share of {kind.trials!r} trials, which {self.experiment.name} neither "
                    f"takes nor returns.{nearest(kind.trials, sorted(known))}"
                )
        middle, declared = self.expectation.middle, metric in self.experiment.metrics
        signed = high <= 0 or (-np.inf < low < 0 and (middle is None or middle <= 0))
        plain_mean = self.phrase.form in ("mean", "median") and not self.phrase.operator
        floating = metric in returned and np.issubdtype(returned[metric].dtype, np.floating)
        if signed and plain_mean and floating and not declared and self.phrase.form == "mean":
            raise SpecError(
                f"{self.where}: {self.expectation.what!r} is about a mean that may be 0 or negative, and {metric!r} is not "
                f'declared to be signed: give the experiment metrics={{"{metric}": ts.Signed()}}, and its mean has an interval.'
            )
