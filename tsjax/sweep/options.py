"""Values of other libraries, made plain values of Python."""

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from .errors import SpecError, shown


def home(path: str | Path) -> str | Path:
    """The path with a leading `~` replaced by the user's home, which a shell does only in some places."""
    if isinstance(path, Path):
        return path.expanduser()
    return os.path.expanduser(path) if path.startswith("~") else path


def plain(name: str, value: Any) -> Any:
    """A value that Python code gives a spec, as numbers, texts, lists and tables. It may hold arrays and scalars of NumPy and
    JAX, pandas columns, ranges, tuples, paths and members of an Enum, at any depth.

    **Raises:** SpecError that names `name`, for a value that has no such form.
    """
    if isinstance(value, Enum):
        return plain(name, value.value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # The exact types: NumPy's float64 and str_ are subclasses of float and str, and are converted below.
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {_text(name, key): plain(f"{name}.{key}", entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(name, entry) for entry in value]
    if hasattr(value, "dtype") and hasattr(value, "__array__"):
        return _plain_array(name, value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    # Lists of other libraries, such as those of Hydra's configurations.
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(name, entry) for entry in value]
    raise SpecError(
        f"{name} = {shown(value)} is a {type(value).__name__}: give numbers, texts, truth values, lists or arrays of them, or "
        "a range."
    )


def _plain_array(name: str, value: Any) -> Any:
    import numpy as np

    try:
        array = np.asarray(value)
    except TypeError as error:
        # For example a key of jax.random, which is not an array of numbers.
        raise SpecError(f"{name} = {shown(value)} cannot be written as numbers ({error}).") from None
    if array.dtype.kind in "biuU":
        return array.tolist()
    if array.dtype.kind == "f" or array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        return array.astype(np.float64).tolist()
    if array.dtype.kind == "O":
        return plain(name, array.tolist())
    raise SpecError(f"{name} = {shown(value)} is an array of {array.dtype}: give numbers, texts or truth values.")


def _text(name: str, key: Any) -> str:
    if not isinstance(key, str):
        raise SpecError(f"{name}: the names in a table are texts, but one is {shown(key)}.")
    return str(key)
