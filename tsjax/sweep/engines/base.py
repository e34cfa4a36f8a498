"""What an engine is: it runs the cells of a plan that a store lacks, somewhere."""

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
    """Where the cells of a sweep run: `ts.sweep(..., engine=ts.engines.Ray())`. One of your own has a `run`.

    - `name`: that of the command line.
    - `chunk`: cells that run together, and are committed together at most.

    Chunks are independent, and a cell that is run twice gives the same record: any engine goes on with what another began.

    **Raises:** SpecError for an option that cannot be.
    """

    name: ClassVar[str]
    chunk: int = DEFAULT_CHUNK

    def __post_init__(self):
        whole(self, "chunk", "a number of cells that run together")

    def check(self, experiment: Experiment, out: Any) -> None:
        """Refuses what this engine cannot run: an experiment, or a sweep without a store where `out` is None. It is called
        before anything is compiled or written. **Raises:** SpecError."""
        return

    @abstractmethod
    def run(self, plan: Plan, store: StoreWriter | None, stop: Stop) -> Iterator[ChunkDone]:
        """Runs every cell of the plan that the store lacks, and commits the records; yields a `ChunkDone` for every commit, and
        for cells found done. After a request to `stop` it begins nothing more. Without a store, records are yielded only.

        **Raises:** GroupError at the end, if programs could not be made or run; StoreError at once.
        """

    def refuse_black_box(self, experiment: Experiment) -> None:
        """**Raises:** SpecError for an experiment that is no JAX code."""
        if experiment.black_box:
            raise SpecError(
                f"engine {self.name!r} runs experiments in JAX, and {experiment.name!r} is a black box: leave the engine "
                "out, or take black_box, or slurm for many machines."
            )


@dataclass(frozen=True, kw_only=True)
class AbstractLeasing(AbstractEngine):
    """An engine whose process claims cells of the store.

    - `lease_seconds`: after so long without a sign of life, another process on the store takes over what this one holds. On one
      machine a process that ended is noticed at once.
    """

    lease_seconds: float = LEASE_SECONDS

    def __post_init__(self):
        super().__post_init__()
        seconds(self, "lease_seconds", "the seconds of silence after which a process is taken for dead")


@dataclass(frozen=True, kw_only=True)
class AbstractCommitting(AbstractLeasing):
    """An engine that gathers finished cells before they are written.

    - `commit_seconds`: how much finished work a kill may lose, beside the chunks in flight.
    """

    commit_seconds: float = COMMIT_SECONDS

    def __post_init__(self):
        super().__post_init__()
        seconds(self, "commit_seconds", "the seconds of finished work that a kill may lose", zero=True)


def code_of(plan: Plan) -> Experiment:
    """The experiment of a plan that can be run. **Raises:** TypeError."""
    if not isinstance(plan.experiment, Experiment):
        raise TypeError(f"the plan of {plan.experiment.name} was read from a store and has no code to run.")
    return plan.experiment


def integer(value: Any) -> int | None:
    """An integer of any library as Python's; None for everything else, truth values too."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def whole(engine: Any, name: str, what: str, *, optional: str = "") -> None:
    """Makes an option Python's integer >= 1, or leaves None where that means something: `optional`. **Raises:** SpecError."""
    value = getattr(engine, name)
    if value is None and optional:
        return
    number = integer(value)
    if number is None or number < 1:
        also = f"; {optional} by default" if optional else ""
        raise SpecError(f"{name} = {shown(value)}: give {what}, an integer >= 1{also}.")
    object.__setattr__(engine, name, number)


def seconds(engine: Any, name: str, what: str, *, zero: bool = False) -> None:
    """Makes an option Python's float > 0, or >= 0 with `zero`. **Raises:** SpecError."""
    value = getattr(engine, name)
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not (number >= 0.0 if zero else number > 0.0):
        raise SpecError(f"{name} = {shown(value)}: give {what}, a number {'>= 0' if zero else '> 0'}.")
    object.__setattr__(engine, name, number)


def text(engine: Any, name: str, what: str) -> None:
    """Checks an option that is a text or None. **Raises:** SpecError."""
    value = getattr(engine, name)
    if value is not None and (not isinstance(value, str) or not value.strip() or "\n" in value):
        raise SpecError(f"{name} = {shown(value)}: give {what} as a text of one line, or leave it out.")


def options_of(engine: type[AbstractEngine]) -> dict[str, dataclasses.Field[Any]]:
    """The options of an engine, by name."""
    return {field.name: field for field in dataclasses.fields(engine) if field.init}
