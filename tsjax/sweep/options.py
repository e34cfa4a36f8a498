"""What a sweep is run with, checked in one place for Python and the command line; and values of any library made plain."""

import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from numbers import Real
from pathlib import Path
from typing import Any

from ..hints import nearest
from .errors import SpecError, shown

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class RunOptions:
    """How a sweep is run, as `checked_options` found it sound."""

    chunk: int
    commit_seconds: float
    engine: str
    ray_address: str | None
    shard: tuple[int, int]
    workers: int


def checked_options(
    *,
    chunk: Any = 1,
    commit_seconds: Any = 0.0,
    engine: Any = "local",
    ray_address: Any = None,
    shard: Any = (1, 1),
    workers: Any = None,
) -> RunOptions:
    """The options of a run as plain numbers. **Raises:** SpecError for what they may not be."""
    size = _integer(chunk)
    if size is None or size < 1:
        raise SpecError(f"chunk = {shown(chunk)}: give a number of cells that run together, an integer >= 1.")
    real = isinstance(commit_seconds, Real) and not isinstance(commit_seconds, bool)
    seconds = float(commit_seconds) if real else math.nan
    if not seconds >= 0.0:
        raise SpecError(
            f"commit_seconds = {shown(commit_seconds)}: give the seconds of finished work that a kill may lose, a number >= 0."
        )
    if isinstance(engine, Enum):
        engine = engine.value
    if not isinstance(engine, str) or engine not in ENGINES:
        hint = nearest(engine, ENGINES) if isinstance(engine, str) else f" Allowed: {', '.join(ENGINES)}."
        raise SpecError(f"engine = {shown(engine)}: no such engine.{hint}")
    if ray_address is not None and engine != "ray":
        raise SpecError(
            f"ray_address = {shown(ray_address)} is for engine = 'ray', but the engine is {engine!r}: leave one of them "
            "out, or set the other."
        )
    if ray_address is not None and not isinstance(ray_address, str):
        raise SpecError(f"ray_address = {shown(ray_address)}: give the address of a cluster as a text, or None.")
    number = len(os.sched_getaffinity(0)) if workers is None else _integer(workers)
    if number is None or number < 1:
        raise SpecError(
            f"workers = {shown(workers)}: give the number of processes that run the cells of a black box, an integer >= 1; all "
            "cores by default."
        )
    return RunOptions(size, seconds, str(engine), ray_address, checked_shard(shard), number)


def checked_shard(shard: Any) -> tuple[int, int]:
    """The pair (i, k). **Raises:** SpecError."""
    pair = tuple(_integer(part) for part in shard) if isinstance(shard, Sequence) and not isinstance(shard, str) else ()
    if len(pair) != 2 or pair[0] is None or pair[1] is None or not 1 <= pair[0] <= pair[1]:
        raise SpecError(
            f"shard = {shown(shard)}: the I-th of K parts is the pair (I, K) with 1 <= I <= K, for instance (3, 16); on the "
            "command line 3/16."
        )
    return pair[0], pair[1]


def _integer(value: Any) -> int | None:
    """An integer of any library as Python's; None for everything else, truth values too."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def home(path: str | Path) -> str | Path:
    """The path with `~` at its start as the user's home: a shell expands it in few places, and never inside a file."""
    if isinstance(path, Path):
        return path.expanduser()
    return os.path.expanduser(path) if path.startswith("~") else path


def plain(name: str, value: Any) -> Any:
    """Numbers, texts, lists and tables for what a spec is given from Python: arrays and scalars of NumPy and JAX, pandas
    columns, ranges, tuples, paths and members of an Enum, however deep.

    **Raises:** SpecError for what has no such form, naming `name`.
    """
    if isinstance(value, Enum):
        return plain(name, value.value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # NumPy's float64 and str_ are also Python's, but not as json writes them.
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
        # Such as a key of jax.random, which is no array of numbers.
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
