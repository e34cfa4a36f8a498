"""The values of arguments as text: in the tables of a store, in labels, and without secrets."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# The user:password@ of a URL, even if the password holds a slash or an @ (but not host:port/), and signatures, tokens and keys
# among its parameters. Other parameters stay, since they may say which data are meant; `sigma` is not a signature.
_USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#]*@|[^\s/:?#@]+:(?!\d+/)[^\s?#]*@)")
_SECRET = (
    r"sig(?:nature)?|(?:access|auth|refresh|id|security|session|sas)?token|sessionid|(?:client)?secret|passw(?:or)?d|passwd|pwd"
    r"|(?:aws)?(?:access|api|account|private|secret|shared)?[-_]?key(?:[-_]?id)?|credentials?|auth(?:orization)?"
)
_QUERY = re.compile(rf"(?P<start>[?&;#](?:[^=&;#\s]*[-_.])?(?:{_SECRET})=)[^&;#\s]*", re.IGNORECASE)
_HIDDEN = "***"


def redacted(value: Any) -> Any:
    """The value, or a table or list of values, with credentials in URLs replaced: `s3://***@bucket/x?token=***`."""
    if isinstance(value, str):
        if "://" not in value:
            return value
        return _QUERY.sub(rf"\g<start>{_HIDDEN}", _USER.sub(rf"\g<scheme>{_HIDDEN}@", value))
    if isinstance(value, dict):
        return {name: redacted(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted(entry) for entry in value)
    return value


def hashable(value: Any) -> Any:
    """The value with lists as tuples, at any depth. Records hold values in this form, so that tables can be grouped by them."""
    return tuple(hashable(entry) for entry in value) if isinstance(value, list | tuple) else value


def text_of(value: Any) -> str:
    """A value as text that `value_of` reads back: JSON, but without quotes around words that need none.

    >>> from tsjax.sweep.values import text_of
    >>> [text_of(v) for v in (3, "auto", "3", None, True, (64, 64))]
    ['3', 'auto', '"3"', 'null', 'true', '[64, 64]']
    """
    if isinstance(value, str) and value == value_of(value):
        return value
    return json.dumps(value)


def value_of(text: str) -> Any:
    """The value that `text_of` wrote; lists come back as tuples."""
    try:
        return hashable(json.loads(text))
    except ValueError:
        return text


def canonical(arguments: dict[str, Any]) -> str:
    """The same text for equal arguments, whether they are written as lists or tuples, as 1 or 1.0."""
    plain = lambda v: float(v) if isinstance(v, int) and not isinstance(v, bool) else v
    deep = lambda v: [deep(entry) for entry in v] if isinstance(v, list | tuple) else plain(v)
    return json.dumps({name: deep(value) for name, value in arguments.items()}, sort_keys=True)


def labels_of(values: Iterable[Any]) -> dict[str, str]:
    """A short text for each value, by its `text_of`; all texts are different. Numbers have four significant digits, or as many
    as distinguish them.

    >>> from tsjax.sweep.values import labels_of
    >>> labels_of([0.1, 0.25, None])
    {'0.1': '0.1', '0.25': '0.25', 'null': 'none'}
    """
    found = {text_of(value): value for value in values}
    for digits in (4, 6, 9, 17):
        labels = {text: _label(value, digits) for text, value in found.items()}
        if len(set(labels.values())) == len(labels):
            return labels
    # Labels still coincide if a word reads like a number that is there too.
    return {text: text for text in found}


def _label(value: Any, digits: int) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e9
        return f"{value:.0f}" if whole else f"{value:.{digits}g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "-".join(_label(entry, digits) for entry in value) or "()"
    return str(value)


def within(x: Any, low: float, high: float) -> Any:
    """Whether x lies in [low, high], up to rounding: 0.1 + 0.2 belongs to a window that ends at 0.3."""
    slack = 1e-12 * np.abs(x)
    return (x >= low - slack) & (x <= high + slack)


def name_of_value(value: Any) -> str:
    """The name of the curve whose curve argument has this value, also in expectations: `64-32` for the list [64, 32]."""
    if isinstance(value, list | tuple):
        return "-".join(map(name_of_value, value)) or "()"
    return str(value)
