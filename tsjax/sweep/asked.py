"""What an expectation asks for, and the curves from which its number is computed."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..hints import nearest
from ..rates import Indicator
from ..rates.kinds import Kind, Share
from .curve import Curve
from .description import Description
from .expectation import Expectation
from .metrics import TIMES, kind_in, no_measurement
from .selection import Subject, chosen, rivals_of, subject_of

ALIKE = "the seeds are all alike, so the interval has no width and says nothing about other seeds"


class Unmeasured(Exception):
    """An expectation about something that the records do not hold (yet)."""


class Measured(NamedTuple):
    """A number for one curve.

    - `value`, `interval`: the number, measured over `x` (first, last).
    - `doubt`: a reason not to trust a verdict that holds. `note`: a remark for the verdict. Both may be empty.
    - `curve`: the part of the curve that the number is about.
    - `scale`: that of the interval (`tsjax.rates.intervals.Estimate`). `seeds`: the number of seeds that the interval rests on.
      Both are needed to change its level.
    """

    value: float
    interval: tuple[float, float]
    x: tuple[float, float]
    doubt: str = ""
    note: str = ""
    curve: Curve | None = None
    scale: Literal["linear", "log", "exact"] = "linear"
    seeds: float = np.inf


class Source(NamedTuple):
    """The records behind measurements. `along(axis, metrics)` gives the curves of the `experiment` along an axis, with tables
    of these metrics; `columns` are the names of all recorded values, and `is_share(name)` says whether one holds truth
    values."""

    along: Callable[[str, Sequence[str]], list[Curve]]
    experiment: Description
    columns: Sequence[str]
    is_share: Callable[[str], bool]

    def kind(self, metric: str) -> Kind:
        """The kind of a metric: the declared one, else an indicator for truth values, else positive."""
        return kind_in(self.experiment, metric, self.is_share(metric))

    def subject(self, expectation: Expectation) -> Subject:
        """The metric, curve, axis, arguments and windows of an expectation."""
        return subject_of(expectation, self.experiment, sorted(self.names()))

    def names(self) -> set[str]:
        """The names of all curves."""
        return {curve.name for curve in self.along(self.experiment.x, ())}


def is_meant(expectation: Expectation, curve: Curve) -> bool:
    """Whether `*` means this curve."""
    other = expectation.phrase.other
    predicted = other != "predicted" or curve.theory.predicted is not None
    return predicted and curve.name != other and curve.name not in expectation.excluding


class Asked:
    """One expectation, at one level of its interval, with the curves that it may be about."""

    def __init__(self, source: Source, expectation: Expectation, level: float):
        self.source, self.expectation, self.level = source, expectation, level
        self.experiment, self.phrase = source.experiment, expectation.phrase
        self.subject = source.subject(expectation)
        self.metric = self.subject.metric
        self.kind = source.kind(self.metric)
        self.than = {**expectation.than, **dict([self.phrase.than] if self.phrase.than else [])}
        for name in (self.metric, self.phrase.other):
            if name in TIMES:
                raise Unmeasured(no_measurement(str(name)))
        if self.metric not in source.columns:
            raise Unmeasured(f"{self.metric!r} is not recorded.{nearest(self.metric, list(source.columns))}")
        # OTHER if it names a recorded value, else None. As in the check before a run, a y takes precedence over a curve of the
        # same name, and the curve over any other recorded value.
        other = self.phrase.other
        is_column = other in source.columns and (other in self.experiment.y or other not in source.names())
        self.column = other if is_column else None
        kinds = [self.kind, *([source.kind(self.column)] if self.column is not None else [])]
        trials = [kind.trials for kind in kinds if isinstance(kind, Share)]
        wanted = [
            self.metric,
            *([self.column] if self.column is not None else []),
            *(name for name in trials if name in source.columns),
        ]
        self.curves = source.along(self.subject.axis, tuple(dict.fromkeys(wanted)))  # pyright: ignore[reportArgumentType]

    def why_not(self, curve: Curve) -> str | None:
        """Why the values of the metric on a curve are not of its kind, at the first such x; None if they are."""
        logs = self.phrase.form != "crossing"
        if logs and not isinstance(self.kind, Share | Indicator) and not self.kind.has_ratios:
            return f"{self.metric!r} may be 0 or negative, so its means have no logarithms"
        for x, row in zip(curve.x, curve.values[self.metric], strict=True):
            reason = self.kind.why_not(row, f"{self.metric} at {self.subject.axis} = {x:g}")
            if reason is not None:
                return reason
        return None

    def meant(self) -> list[Curve]:
        name, subject = self.subject.curve, self.subject
        found = chosen(self.curves, subject, name)
        if name == "*":
            found = [curve for curve in found if is_meant(self.expectation, curve)]
            if not found:
                raise Unmeasured("no records of any such curve yet")
            return found
        # For a curve along another argument than x, a window of x picks every x in it.
        if len(found) > 1 and subject.axis != self.experiment.x and self.experiment.x in subject.windows:
            first = {key: value for key, value in found[0].arguments.items() if key != self.experiment.x}
            if all(chosen([curve], subject._replace(where=first)) for curve in found):
                return found
        return [self.only(found, name)]

    def only(self, found: list[Curve], name: str | None) -> Curve:
        if len(found) == 1:
            return found[0]
        if not found:
            raise Unmeasured(f"no records of {name or self.metric} yet")
        differ = [key for key in found[0].arguments if len({repr(curve.arguments[key]) for curve in found}) > 1]
        raise Unmeasured(f"{len(found)} curves are called {found[0].name}; pick one by where = {{ {differ[0]} = ... }}")

    def rival(self, curve: Curve) -> Curve:
        """The whole curve of the second operand."""
        name, than = self.phrase.other or curve.name, dict(self.than)
        if self.experiment.curve in than and self.phrase.other is None:
            name = str(than.pop(self.experiment.curve))
        axis = self.subject.axis
        subject = self.subject._replace(windows={})
        found = rivals_of(
            self.curves, subject, name, curve, {k: v for k, v in than.items() if k != axis}, self.experiment.curve
        )
        return self.only(found, name)

    def window(self, curve: Curve) -> Curve:
        low, high = self.subject.window(self.subject.axis) or (-np.inf, np.inf)
        curve = curve.between(low, high)
        if not len(curve.x):
            raise Unmeasured(f"no records with {self.subject.axis} in [{low:g}, {high:g}]")
        return curve


def common(curve: Curve, rival: Curve) -> tuple[Curve, Curve]:
    """Two curves, restricted to the seeds that both have."""
    common, i, j = np.intersect1d(curve.seeds, rival.seeds, return_indices=True)
    if not len(common):
        raise Unmeasured(f"{curve.name} and {rival.name} have no seed in common")
    return pick(curve, i), pick(rival, j)


def pick(curve: Curve, at: np.ndarray) -> Curve:
    values = {name: table[:, at] for name, table in curve.values.items()}
    return dataclasses.replace(curve, seeds=curve.seeds[at], values=values)


def at(curve: Curve, metric: str, x: float) -> np.ndarray:
    """The values of all seeds at one x."""
    return curve.values[metric][int(np.flatnonzero(curve.x == x)[0])]
