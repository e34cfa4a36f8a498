"""Arguments of fits: what they must be, and the words in which errors and reports put numbers."""

from collections.abc import Sequence
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
import numpy.typing as npt

# numpy's ArrayLike alone leaves tuples out when it is checked at run time.
Numbers: TypeAlias = npt.ArrayLike | Sequence[Any]


def as_array(values: Numbers | SupportsFloat, name: str) -> np.ndarray:
    """The values in float64. Raises ValueError when they are no rectangular array of numbers."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers in a rectangular array; NumPy says: {error}") from error


def check_options(level: float, draws: int = 1000) -> None:
    """Raises ValueError for a level that is no probability, or too few draws for an interval."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is a probability strictly between 0 and 1, such as 0.95; got {level}.")
    if draws < 100:
        raise ValueError(f"an interval needs at least 100 draws (2000 is a good number), got draws={draws}.")


def check_positive(values: np.ndarray, name: str, advice: str) -> None:
    """Raises ValueError at the first value that is not finite and positive."""
    for i, value in enumerate(values):
        if not 0.0 < value < np.inf:
            raise ValueError(f"{name} must be finite and positive, got {value:g} at index {i}. {advice}")


def check_not_infinite(values: np.ndarray, name: str) -> None:
    """Raises ValueError when a value is infinite."""
    bad = np.isinf(values)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} has {plural(int(bad.sum()), 'infinite value')}, the first at index {where}. Give failed students "
            "as NaN (they are then counted as missing) or leave them out."
        )


def bracket(interval: tuple[float, float]) -> str:
    """`[0.98, 1.04]`."""
    return f"[{interval[0]:.4g}, {interval[1]:.4g}]"


def short(value) -> str:
    """Whole numbers in full, others with four digits."""
    return f"{int(value)}" if float(value).is_integer() and value < 1e9 else f"{value:.4g}"


def plural(count: int, noun: str) -> str:
    """`1 seed`, `4 seeds`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
