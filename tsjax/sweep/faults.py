"""Errors of a user's own experiment, told apart from faults of tsjax."""

import inspect
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
