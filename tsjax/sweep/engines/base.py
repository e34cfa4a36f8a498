"""The interface of engines, which run the cells of a plan that a store lacks."""

import dataclasses
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from ..commits import COMMIT_SECONDS, ChunkDone
from ..errors import SpecError, shown
from ..experiment import Experiment
from ..interrupt import Stop
from ..leases import LEASE_SECONDS
from ..plan import DEFAULT_CHUNK, Plan
from ..writer import StoreWriter


@dataclass(frozen=True, kw_only=True)
class AbstractEngine(ABC):
    """Where the cells of a sweep run: `ts.sweep(..., engine=ts.engines.Ray())`. An engine of your own must have a `run`.

    - `name`: its name on the command line.
    - `chunk`: the most cells that run together.

    Chunks are independent, and a cell that is run twice gives the same record up to rounding, so any engine can continue a
    sweep that another one began.

    **Raises:** SpecError for a wrong value of an option.
    """

    name: ClassVar[str]
    chunk: int = DEFAULT_CHUNK

    def __post_init__(self):
        whole(self, "chunk", "a number of cells that run together")

    def check(self, experiment: Experiment, out: Any) -> None:
        """Checks that this engine can run an experiment, with the store `out` or without one (None). It is called before
        anything is compiled or written. **Raises:** SpecError if it cannot."""
        return

    @abstractmethod
    def run(self, plan: Plan, store: StoreWriter | None, stop: Stop) -> Iterator[ChunkDone]:
        """Runs every cell of the plan that the store lacks, and commits the records. It yields a `ChunkDone` for every commit
        and for cells that were found done. After a request to `stop` it begins nothing new. Without a store, the records are
        only yielded.

        **Raises:** GroupError at the end, if programs could not be compiled or run; StoreError at once.
        """

    def refuse_black_box(self, experiment: Experiment) -> None:
        """**Raises:** SpecError for a black box."""
        if experiment.black_box:
            raise SpecError(
                f"engine {self.name!r} runs experiments in JAX, and {experiment.name!r} is a black box: leave the engine "
                "out, or use black_box, or slurm for many machines."
            )


@dataclass(frozen=True, kw_only=True)
class AbstractLeasing(AbstractEngine):
    """An engine whose process claims cells of the store.

    - `lease_seconds`: after this time without a sign of life, another process that works on the store takes over the cells that
      this one holds. On the same machine, others notice at once that a process has ended.
    """

    lease_seconds: float = LEASE_SECONDS

    def __post_init__(self):
        super().__post_init__()
        seconds(self, "lease_seconds", "the seconds of silence after which a process is taken for dead")


@dataclass(frozen=True, kw_only=True)
class AbstractCommitting(AbstractLeasing):
    """An engine that gathers finished cells before it writes them.

    - `commit_seconds`: how many seconds of finished work a kill may lose, besides the chunks in flight.
    """

    commit_seconds: float = COMMIT_SECONDS

    def __post_init__(self):
        super().__post_init__()
        seconds(self, "commit_seconds", "the seconds of finished work that a kill may lose", zero=True)


def code_of(plan: Plan) -> Experiment:
    """The experiment of a plan. **Raises:** TypeError for a plan that was read from a store and has no code."""
    if not isinstance(plan.experiment, Experiment):
        raise TypeError(f"the plan of {plan.experiment.name} was read from a store and has no code to run.")
    return plan.experiment


def integer(value: Any) -> int | None:
    """An integer of any library as a Python int; None for everything else, including truth values."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def whole(engine: Any, name: str, what: str, *, optional: str = "") -> None:
    """Converts an option to a Python int >= 1. None stays if `optional` says what it means. **Raises:** SpecError."""
    value = getattr(engine, name)
    if value is None and optional:
        return
    number = integer(value)
    if number is None or number < 1:
        also = f"; {optional} by default" if optional else ""
        raise SpecError(f"{name} = {shown(value)}: give {what}, an integer >= 1{also}.")
    object.__setattr__(engine, name, number)


def seconds(engine: Any, name: str, what: str, *, zero: bool = False) -> None:
    """Converts an option to a Python float > 0, or >= 0 with `zero`. **Raises:** SpecError."""
    value = getattr(engine, name)
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not (number >= 0.0 if zero else number > 0.0):
        raise SpecError(f"{name} = {shown(value)}: give {what}, a number {'>= 0' if zero else '> 0'}.")
    object.__setattr__(engine, name, number)


def text(engine: Any, name: str, what: str) -> None:
    """Checks an option that is a text of one line or None. **Raises:** SpecError."""
    value = getattr(engine, name)
    if value is not None and (not isinstance(value, str) or not value.strip() or "\n" in value):
        raise SpecError(f"{name} = {shown(value)}: give {what} as a text of one line, or leave it out.")


def options_of(engine: type[AbstractEngine]) -> dict[str, dataclasses.Field[Any]]:
    """The fields of the options of an engine, by name."""
    return {field.name: field for field in dataclasses.fields(engine) if field.init}
