"""Errors of a user's own experiment, as distinct from faults of tsjax, and the groups of a run that failed."""

import inspect
from collections.abc import Sequence
from typing import Any, NoReturn

from .errors import TooLargeError
from .experiment import Experiment
from .places import in_one_line, place_of
from .plan import Cell, Group, Plan

# The first word of our notes on errors, by which they are found among other notes.
_NOTE = "experiment "


class ExperimentError(ValueError):
    """An experiment that cannot be compiled or loaded for the given values."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, in Python or on a device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def source_file(experiment: Any) -> str:
    """The file of the experiment's function, or an empty text if it belongs to tsjax."""
    if not isinstance(experiment, Experiment) or experiment.fn.__module__.split(".")[0] == "tsjax":
        return ""
    try:
        return inspect.getsourcefile(inspect.unwrap(experiment.fn)) or ""
    except TypeError:
        return ""


def value_needed(error: Exception, experiment: Experiment, names: Sequence[str]) -> ExperimentError:
    """The error of an experiment whose function needs the values of traced arguments while it is compiled, such as the size of
    an array, the number of steps of a loop, or the condition of an `if`."""
    named = " and ".join(map(repr, names))
    what, its = (f"arguments {named} are", "their values") if len(names) > 1 else (f"argument {named} is", "its value")
    return ExperimentError(
        f"experiment {experiment.name!r}: the {what} traced, and the function needs {its} while it is compiled: name {named} "
        f"in static, as in @ts.experiment(static={(*experiment.static, *names)!r}), and every value has a program of its own. "
        f"{_first_words(error, experiment)}"
    )


def unhashable(error: Exception, experiment: Experiment, names: Sequence[str]) -> ExperimentError:
    """The error of an experiment whose function needs to hash static arguments that are lists."""
    named = " and ".join(map(repr, names))
    what = f"arguments {named} are lists" if len(names) > 1 else f"argument {named} is a list"
    return ExperimentError(
        f"experiment {experiment.name!r}: the static {what}, which cannot be hashed: annotate {named} as a tuple, such as "
        f"tuple[int, ...]. {_first_words(error, experiment)}"
    )


def no_jax(error: Exception, experiment: Experiment) -> ExperimentError:
    """The error of an experiment whose function passes a traced array to NumPy, or to code that uses NumPy."""
    return ExperimentError(
        f"experiment {experiment.name!r}: its function passes a traced array to code that is not JAX, such as NumPy or "
        "scikit-learn. Use the functions of jax.numpy; or make the function a black box, @ts.black_box with the parameter "
        f"seed instead of key, which runs any Python code in worker processes. {_first_words(error, experiment)}"
    )


def number_needed(error: Exception, experiment: Experiment) -> ExperimentError:
    """The error of an experiment whose function needs the number in an array that depends on its key."""
    return ExperimentError(
        f"experiment {experiment.name!r}: its function needs the number in a traced array while it is compiled, as float(), "
        "bool(), `if`, `while` and .item() do. Return arrays as they are, and write jnp.where, jax.lax.cond or "
        "jax.lax.while_loop in place of branches and loops; or make the function a black box, @ts.black_box with the parameter "
        f"seed instead of key, which runs any Python code in worker processes. {_first_words(error, experiment)}"
    )


def _first_words(error: Exception, experiment: Experiment) -> str:
    """The type, the first sentence and the place of an error with a long text."""
    words = str(error).splitlines()[0].split(". ")[0].removesuffix(".") if str(error) else ""
    place = place_of(error, source_file(experiment))
    return f"{type(error).__name__}: {words}" + (f" (at {place})" if place else "") + "."


def raise_as_users(error: Exception, experiment: Any, where: str) -> NoReturn:
    """Raises the error that stopped an experiment. An error of the user's own code gets a note (`__notes__`) that names the
    experiment and the cells. Arrays that are too large become an ExperimentError.

    - `where`: the static arguments of the cells.
    """
    own = source_file(experiment)
    at = f" at {where}" if where else ""
    # An error from another machine comes without its traceback.
    if place_of(error, own) is not None or (own and error.__traceback__ is None):
        error.add_note(f"{_NOTE}{experiment.name!r} failed{at}")
    elif isinstance(error, TooLargeError):
        raise ExperimentError(f"experiment {experiment.name!r} cannot be compiled{at}: {error}") from error
    elif isinstance(error, OverflowError) or out_of_memory(error):
        raise ExperimentError(
            f"experiment {experiment.name!r} cannot be compiled{at}: its arrays are too large for this machine "
            f"({in_one_line(error)}). Take smaller sizes."
        ) from error
    raise error


def users_mistake(error: BaseException) -> str | None:
    """An error of a user's own code in one line: the experiment and the cells, if it has a note of them, the error, and the
    line of code. None for errors of tsjax."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_NOTE)]
    if not notes and place_of(error) is None:
        return None
    return ": ".join([*notes[:1], in_one_line(error)])


class GroupError(ValueError):
    """Some programs could not be compiled or run. The cells of all others are done."""

    exit_code = 3


def every_cell_failed(experiment: Experiment, failures: Sequence[tuple[Cell, str]]) -> GroupError:
    """The error of a black box whose cells all failed; each has its record."""
    cell, text = failures[0]
    where = ", ".join(f"{name}={value}" for name, value in {**cell.arguments, "seed": cell.seed}.items())
    return GroupError(
        f"experiment {experiment.name!r}: all {len(failures)} cells failed. The first was at {where}: {text}. When the "
        "function is fixed, run again with retry=True (--retry), which runs cells that failed before."
    )


class GroupErrors:
    """The groups that could not be compiled or run, and why."""

    def __init__(self, plan: Plan):
        self.experiment = plan.experiment
        self.groups = len(plan.groups)
        self._found: dict[str, tuple[Group, Exception]] = {}

    def add(self, group: Group, error: Exception) -> None:
        """Notes the first error of a group."""
        self._found.setdefault(repr(group.static), (group, error))

    def about(self, group: Group) -> bool:
        """Whether the group has failed."""
        return repr(group.static) in self._found

    def raise_any(self) -> None:
        """Raises GroupError if some groups failed. If all failed, raises the error of the first, with a note that names the
        cells if the experiment's own function is at fault."""
        if not self._found:
            return
        group, first = next(iter(self._found.values()))
        where = ", ".join(f"{name}={value}" for name, value in group.static.items())
        if len(self._found) == self.groups:
            raise_as_users(first, self.experiment, where)
        raise GroupError(
            f"{len(self._found)} of {self.groups} programs failed; all other cells are done. The first was at {where}: "
            f"{in_one_line(first, source_file(self.experiment))}"
        ) from first
