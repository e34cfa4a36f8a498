"""Errors of a user's own experiment, told apart from faults of tsjax."""

import inspect
from typing import Any, NoReturn

from .experiment import Experiment
from .places import place_of, told
from .trace import TooLargeError


class ExperimentError(ValueError):
    """An experiment's own function failed; the message names the line. What it raised is the cause (`__cause__`)."""


def source_file(experiment: Any) -> str:
    """The file of the experiment's function where it is not one of tsjax's own; else an empty text."""
    if not isinstance(experiment, Experiment) or experiment.fn.__module__.split(".")[0] == "tsjax":
        return ""
    try:
        return inspect.getsourcefile(inspect.unwrap(experiment.fn)) or ""
    except TypeError:
        return ""


def raise_as_users(error: Exception, experiment: Any, where: str) -> NoReturn:
    """Raises ExperimentError from an error of the experiment's own code, or because of values that it was given; else
    the error.

    - `where`: the static arguments of the cells.
    """
    own = source_file(experiment)
    at = f" at {where}" if where else ""
    if place_of(error, own) is not None:
        raise ExperimentError(f"experiment {experiment.name!r} failed{at}: {told(error, own)}.") from error
    if isinstance(error, TooLargeError):
        raise ExperimentError(f"experiment {experiment.name!r} cannot be compiled{at}: {error}") from error
    if isinstance(error, OverflowError | MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        raise ExperimentError(
            f"experiment {experiment.name!r} cannot be compiled{at}: its arrays are too large for this machine "
            f"({told(error)}). Take smaller sizes."
        ) from error
    raise error
