"""Which curves, and which part of them, an expectation is about. The rules are the same before a sweep runs and after."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from .axes import same
from .description import Description
from .expectation import Expectation
from .phrase import evaluate
from .values import within


@runtime_checkable
class HasArguments(Protocol):
    """A curve of planned cells or of records: its name, and all arguments except its axis."""

    @property
    def name(self) -> str: ...
    @property
    def arguments(self) -> dict[str, Any]: ...


C = TypeVar("C", bound=HasArguments)


class Subject(NamedTuple):
    """What an expectation is about: the `metric`, the name of the `curve` (None if the phrase names none, `*` for all), the
    `axis` along which it lies, the arguments that pick it (`where`), and windows (low, high) by the names of arguments
    (`windows`)."""

    metric: str
    curve: str | None
    axis: str
    where: dict[str, Any]
    windows: dict[str, tuple[float, float]]

    def window(self, name: str) -> tuple[float, float] | None:
        """The window of an axis; None for the whole axis."""
        return self.windows.get(name)


def subject_of(expectation: Expectation, experiment: Description, names: Sequence[str]) -> Subject:
    """The subject of an expectation; `names` are those of all curves."""
    phrase = expectation.phrase
    axis = phrase.axis or experiment.x
    metric, curve = phrase.metric, phrase.curve
    if metric is None and experiment.curve is None and curve is not None and curve not in (*names, "*"):
        # `rate of error in n` names a metric if the experiment does not name curves.
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
    """Whether arguments lie in these windows; windows of other names do not count."""
    numbers = {name: arguments[name] for name in windows if name in arguments}
    return all(bool(within(value, *windows[name])) for name, value in numbers.items())


def in_expressions(place: Mapping[str, Any], windows: Mapping[str, tuple[float, float]]) -> bool:
    """Whether a cell lies in the windows, whose names may be expressions of arguments; `place` holds all its arguments and
    x."""
    return all(bool(within(evaluate(name, place), *window)) for name, window in windows.items())


def chosen(curves: Iterable[C], subject: Subject, name: str | None = None) -> list[C]:
    """The curves of a name (None or `*`: any) that the subject's `where` picks. Their arguments must also lie in the subject's
    windows; the window of their own axis does not count."""
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
    """The curves that can be the second operand for the curve `mine`: those of that name with the arguments `than`. If there
    are several, those that agree with `mine` in all other arguments."""
    where = {key: value for key, value in {**subject.where, **than}.items() if key != subject.axis}
    found = [curve for curve in curves if curve.name == name and is_at(curve.arguments, where)]
    if len(found) > 1 or than:
        fixed = {key: value for key, value in mine.arguments.items() if key not in than and key != curve_by}
        alike = [curve for curve in found if is_at(curve.arguments, fixed)]
        found = alike or (found if not than else alike)
    return found
