"""Checks of the arguments of fits, and how errors and reports write numbers."""

import math
from collections.abc import Sequence
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
import numpy.typing as npt

# Run-time type checks of numpy's ArrayLike alone reject tuples.
Numbers: TypeAlias = npt.ArrayLike | Sequence[Any]


def as_array(values: Numbers | SupportsFloat, name: str) -> np.ndarray:
    """The values as a float64 array. Raises ValueError if they are not a rectangular array of numbers."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers in a rectangular array; NumPy says: {error}") from error


def check_options(level: float, draws: int = 1000) -> None:
    """Raises ValueError for a level outside (0, 1), or for fewer than 100 draws."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is a probability strictly between 0 and 1, such as 0.95; got {level}.")
    if draws < 100:
        raise ValueError(f"an interval needs at least 100 draws (2000 is a good number), got draws={draws}.")


def check_positive(values: np.ndarray, name: str, advice: str) -> None:
    """Raises ValueError, with `advice`, at the first value that is not finite and positive."""
    for i, value in enumerate(values):
        if not 0.0 < value < np.inf:
            raise ValueError(f"{name} must be finite and positive, got {value:g} at index {i}. {advice}")


def check_not_infinite(values: np.ndarray, name: str) -> None:
    """Raises ValueError if a value is infinite."""
    bad = np.isinf(values)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} has {plural(int(bad.sum()), 'infinite value')}, the first at index {where}. Give failed students "
            "as NaN (they are then counted as missing) or leave them out."
        )


def bracket(interval: tuple[float, float]) -> str:
    """`[0.98, 1.04]`."""
    return f"[{', '.join(together(*interval))}]"


def beside(value: float, interval: tuple[float, float]) -> str:
    """`1.01 [0.98, 1.04]`: a value and its interval."""
    middle, low, high = together(value, *interval)
    return f"{middle} [{low}, {high}]"


def together(*values: float) -> list[str]:
    """Numbers that are read together, such as a value and the ends of its interval, with equal numbers of decimals: as many as
    an error of half the distance between the outermost deserves. Numbers that lie decades apart get three digits each.

    >>> from tsjax.rates.checks import together
    >>> together(14.02, 10.96, 16.13), together(7.761e-4, 7.2e-4, 8.31e-4), together(0.0, 0.0, 1.54e-4)
    (['14.0', '11.0', '16.1'], ['7.76e-04', '7.20e-04', '8.31e-04'], ['0', '0', '1.54e-04'])
    """
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return [f"{value:.4g}" for value in values]
    low, high = min(finite), max(finite)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return [f"{value:.4g}" for value in values]
    if low > 0 and high > 1000 * low:
        return [significant(value) for value in values]
    return decimals_of(values, (high - low) / 2)


def decimals_of(values: Sequence[float], error: float) -> list[str]:
    """Numbers with as many decimals as the error has when it is rounded to one or two digits by the rule of the Particle Data
    Group, but with at least three digits of the largest number. All share one power of ten if they are very small or large."""
    scale = max(abs(value) for value in values if math.isfinite(value))
    power = math.floor(math.log10(scale)) if scale else 0
    power = power if power < -3 or power > 5 else 0
    error = error / 10.0**power
    first = math.floor(math.log10(error))
    # Two digits for an error whose leading digits are 100 to 354, and one digit for 355 to 949.
    places = 1 - first if error / 10.0**first < 3.55 else -first
    least = 2 - (math.floor(math.log10(scale / 10.0**power)) if scale else 0)
    places = min(max(places, least, 0), 6)
    ending = f"e{power:+03d}" if power else ""
    # 0 has no power of ten.
    plain = lambda value: not math.isfinite(value) or (power and value == 0)
    return [f"{value:g}" if plain(value) else f"{value / 10.0**power:z.{places}f}{ending}" for value in values]


def significant(value: float, count: int = 3) -> str:
    """A number with `count` significant digits, including zeros at its end.

    >>> from tsjax.rates.checks import significant
    >>> significant(0.0120), significant(14.0), significant(123.0)
    ('0.0120', '14.0', '123')
    """
    return f"{value:#.{count}g}".removesuffix(".") if math.isfinite(value) else f"{value:g}"


def short(value) -> str:
    """A whole number in full, any other number with four digits."""
    return f"{int(value)}" if float(value).is_integer() and value < 1e9 else f"{value:.4g}"


def plural(count: int, noun: str) -> str:
    """`1 seed`, `4 seeds`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
