"""Errors of specifications, whose messages say what was given, what is allowed, and what to do."""

import reprlib
from typing import Any


class SpecError(ValueError):
    """A specification that cannot be run; the message names the key, the value and what is allowed."""


class AbsentError(SpecError):
    """A curve, a value or a window that the grid does not have, though it might at another size."""


class TooLargeError(ValueError, OverflowError):
    """An array that no machine can hold."""


def no_dict(values: Any) -> str:
    """The message for a cell that returned something other than a dict."""
    return f'returned a {type(values).__name__}; return a dict of numbers, such as {{"risk": ...}}.'


def no_number(name: str) -> str:
    """The message for a cell that returned a value which is not a number."""
    return f"returned {name!r}, which is not a real number or a truth value, nor a vector of them, so no record can hold it."


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict, _SHORT.maxstring = 3, 12, 12, 12, 120
# A value longer than this is cut: a message is one line.
_LONGEST = 200


def shown(value: Any) -> str:
    """A value as Python writes it, cut if it is long, for a message."""
    try:
        text = repr(value)
    except RecursionError:
        return _SHORT.repr(value)
    # Arrays are written in several lines.
    return " ".join((text if len(text) <= _LONGEST else _SHORT.repr(value)).splitlines())
