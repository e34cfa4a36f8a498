"""Which curves, and which part of them, an expectation is about: the same rules before a sweep runs and after."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from .axes import same
from .description import Description
from .expectation import Expectation
from .phrase import evaluate
from .values import within


@runtime_checkable
class HasArguments(Protocol):
    """A curve, of cells that are planned or of records: its name, and all arguments but the axis."""

    @property
    def name(self) -> str: ...
    @property
    def arguments(self) -> dict[str, Any]: ...


C = TypeVar("C", bound=HasArguments)


class Subject(NamedTuple):
    """What an expectation is about: the `metric`, the name of the `curve` (None where only one is meant, `*` for all), the
    `axis` along which it lies, the arguments that pick it (`where`), and windows (low, high) of arguments (`windows`)."""

    metric: str
    curve: str | None
    axis: str
    where: dict[str, Any]
    windows: dict[str, tuple[float, float]]

    def window(self, name: str) -> tuple[float, float] | None:
        """Of an axis; None for all of it."""
        return self.windows.get(name)


def subject_of(expectation: Expectation, experiment: Description, names: Sequence[str]) -> Subject:
    """The subject; `names` are those of all curves."""
    phrase = expectation.phrase
    axis = phrase.axis or experiment.x
    metric, curve = phrase.metric, phrase.curve
    if metric is None and experiment.curve is None and curve is not None and curve not in (*names, "*"):
        # `rate of error in n`, where there is one curve only.
        metric, curve = curve, None
    where, windows = dict(expectation.where), {}
    for name, window in expectation.over.items():
        windows[name] = (window[0], window[1]) if isinstance(window, list) else (window, window)
    if phrase.at is not None:
        name, value = phrase.at
        if name in (axis, experiment.x) and isinstance(value, int | float):
            windows[name] = (float(value), float(value))
        else:
            where[name] = value
    return Subject(metric or experiment.y[0], curve, axis, where, windows)


def is_at(arguments: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether arguments have these values."""
    return all(name in arguments and same(arguments[name], value) for name, value in where.items())


def in_windows(arguments: Mapping[str, Any], windows: Mapping[str, tuple[float, float]]) -> bool:
    """Whether arguments lie in these windows, as far as they are among them."""
    numbers = {name: arguments[name] for name in windows if name in arguments}
    return all(bool(within(value, *windows[name])) for name, value in numbers.items())


def in_expressions(place: Mapping[str, Any], windows: Mapping[str, tuple[float, float]]) -> bool:
    """Whether a cell, all its arguments and x, lies in the windows, whose names may be expressions of arguments."""
    return all(bool(within(evaluate(name, place), *window)) for name, window in windows.items())


def chosen(curves: Iterable[C], subject: Subject, name: str | None = None) -> list[C]:
    """The curves of a name (None or `*`: any) that are picked by the subject's `where` and, where they are not along that axis,
    its windows."""
    return [
        curve
        for curve in curves
        if name in (None, "*", curve.name)
        and is_at(curve.arguments, subject.where)
        and in_windows(curve.arguments, subject.windows)
    ]


def rivals_of(
    curves: Iterable[C], subject: Subject, name: str, mine: C, than: Mapping[str, Any], curve_by: str | None
) -> list[C]:
    """The curves that can be the second operand for the curve `mine`: those of that name with the arguments `than`. Of several
    those that agree with `mine` in all other arguments."""
    where = {key: value for key, value in {**subject.where, **than}.items() if key != subject.axis}
    found = [curve for curve in curves if curve.name == name and is_at(curve.arguments, where)]
    if len(found) > 1 or than:
        fixed = {key: value for key, value in mine.arguments.items() if key not in than and key != curve_by}
        alike = [curve for curve in found if is_at(curve.arguments, fixed)]
        found = alike or (found if not than else alike)
    return found
