"""Errors of a user's own experiment, told apart from faults of tsjax."""

import inspect
from collections.abc import Sequence
from typing import Any, NoReturn

from .errors import TooLargeError
from .experiment import Experiment
from .places import place_of, told

# How a note on an error begins, to be found again among those of others.
_NOTE = "experiment "


class ExperimentError(ValueError):
    """An experiment that cannot be compiled for the values it was given."""


def source_file(experiment: Any) -> str:
    """The file of the experiment's function where it is not one of tsjax's own; else an empty text."""
    if not isinstance(experiment, Experiment) or experiment.fn.__module__.split(".")[0] == "tsjax":
        return ""
    try:
        return inspect.getsourcefile(inspect.unwrap(experiment.fn)) or ""
    except TypeError:
        return ""


def value_needed(error: Exception, experiment: Experiment, names: Sequence[str]) -> ExperimentError:
    """The error of an experiment whose function needs the values of some traced arguments while it is compiled: as the size of
    an array, the number of steps of a loop, the condition of an `if`."""
    named = " and ".join(map(repr, names))
    what, its = (f"arguments {named} are", "their values") if len(names) > 1 else (f"argument {named} is", "its value")
    return ExperimentError(
        f"experiment {experiment.name!r}: the {what} traced, and the function needs {its} while it is compiled: name {named} "
        f"in static, as in @ts.experiment(static={(*experiment.static, *names)!r}), and every value has a program of its own. "
        f"{_first_words(error, experiment)}"
    )


def unhashable(error: Exception, experiment: Experiment, names: Sequence[str]) -> ExperimentError:
    """The error of an experiment whose static arguments are lists where its function needs something that can be hashed."""
    named = " and ".join(map(repr, names))
    what = f"arguments {named} are lists" if len(names) > 1 else f"argument {named} is a list"
    return ExperimentError(
        f"experiment {experiment.name!r}: the static {what}, which cannot be hashed: annotate {named} as a tuple, such as "
        f"tuple[int, ...]. {_first_words(error, experiment)}"
    )


def _first_words(error: Exception, experiment: Experiment) -> str:
    """Kind, beginning and place of an error whose text goes on for lines."""
    words = str(error).splitlines()[0].split(". ")[0].removesuffix(".") if str(error) else ""
    place = place_of(error, source_file(experiment))
    return f"{type(error).__name__}: {words}" + (f" (at {place})" if place else "") + "."


def raise_as_users(error: Exception, experiment: Any, where: str) -> NoReturn:
    """Raises what stopped an experiment: the error itself, with a note (`__notes__`) of the experiment and the cells where it
    is that of the user's own code; ExperimentError where sizes are too large.

    - `where`: the static arguments of the cells.
    """
    own = source_file(experiment)
    at = f" at {where}" if where else ""
    # What another machine raised comes without its traceback.
    if place_of(error, own) is not None or (own and error.__traceback__ is None):
        error.add_note(f"{_NOTE}{experiment.name!r} failed{at}")
    elif isinstance(error, TooLargeError):
        raise ExperimentError(f"experiment {experiment.name!r} cannot be compiled{at}: {error}") from error
    elif isinstance(error, OverflowError | MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        raise ExperimentError(
            f"experiment {experiment.name!r} cannot be compiled{at}: its arrays are too large for this machine "
            f"({told(error)}). Take smaller sizes."
        ) from error
    raise error


def users_mistake(error: BaseException) -> str | None:
    """An error of a user's own code in one line: experiment and cells where it has them, what it is, and the line. None for
    errors of tsjax."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_NOTE)]
    if not notes and place_of(error) is None:
        return None
    return ": ".join([*notes[:1], told(error)])
