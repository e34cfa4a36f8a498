"""How a fit ended."""

import enum

from jaxtyping import Array, Bool, Int


class Status(enum.IntEnum):
    """How a fit ended. Failure is a value: it is recorded and counted, never dropped and never raised."""

    CONVERGED = 0
    """The estimator's own stopping rule was met (direct solvers: the solution is finite)."""
    STEP_LIMIT = 1
    """The step limit came first."""
    DIVERGED = 2
    """Training exploded, or its numbers were no longer finite."""
    SINGULAR = 3
    """A linear system could not be solved to a finite answer."""
    OUT_OF_MEMORY = 4
    """A sweep could not run the cell, since it does not fit in memory even alone."""
    FAILED = 5
    """The function of a black box raised an error, or the processes that ran it died; the record says why."""
    TIMED_OUT = 6
    """A cell of a black box took longer than its timeout."""

    @property
    def words(self) -> str:
        """The name as tables write it: `step limit`."""
        return self.name.lower().replace("_", " ")


def failed(status: Int[Array, "*batch"]) -> Bool[Array, "*batch"]:
    """Whether a fit gives nothing to measure: it diverged, could not be solved, or did not end with a result."""
    return status >= Status.DIVERGED
