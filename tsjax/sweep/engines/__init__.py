"""Engines: objects whose method `run` runs the cells of a sweep. `ts.sweep(..., engine=...)` and `--engine NAME` choose one."""

import dataclasses
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

from ...hints import nearest
from ..errors import SpecError, shown
from ..experiment import Experiment
from ..options import plain
from .base import AbstractEngine, options_of
from .black_box import BlackBox
from .local import Local
from .ray import Ray
from .slurm import Slurm

__all__ = ["ENGINES", "AbstractEngine", "BlackBox", "Local", "Ray", "Slurm", "engine_of", "options_from"]

ENGINES: dict[str, type[AbstractEngine]] = {engine.name: engine for engine in (Local, Ray, Slurm, BlackBox)}
"""The engines, by their names."""


def engine_of(engine: Any, options: Mapping[str, Any], experiment: Experiment | None = None) -> AbstractEngine:
    """The engine of this name, or this engine, with these options. None means Local, or BlackBox for an experiment that is not
    JAX code. **Raises:** SpecError for an unknown name, an option that the engine does not have, and a wrong value."""
    engine = engine.value if isinstance(engine, Enum) else engine
    options = {name: plain(name, value) for name, value in options.items()}
    if engine is None:
        engine = BlackBox.name if experiment is not None and experiment.black_box else Local.name
    if isinstance(engine, str):
        if engine not in ENGINES:
            raise SpecError(f"engine = {shown(engine)}: no such engine.{nearest(engine, [*ENGINES])}")
        kind = ENGINES[engine]
        _check_names(kind, options)
        return kind(**options)
    if isinstance(engine, type) or not callable(getattr(engine, "run", None)):
        raise SpecError(
            f"engine = {shown(engine)}: no such engine. Give an object, such as ts.engines.Local(), or one of the names "
            f"{', '.join(ENGINES)}."
        )
    _check_names(type(engine), options)
    return dataclasses.replace(engine, **options) if options else engine


def _check_names(engine: type[AbstractEngine], options: Mapping[str, Any]) -> None:
    allowed = [*options_of(engine)] if dataclasses.is_dataclass(engine) else []
    called = getattr(engine, "name", engine.__name__)
    for name in options:
        if name not in allowed:
            others = [other for other in ENGINES.values() if name in options_of(other)]
            hint = nearest(name, allowed) if allowed else " It has none."
            elsewhere = f" It is one of engine {others[0].name!r}." if others else ""
            raise SpecError(f"engine {called!r} has no option {name!r}.{elsewhere}{hint}")


def options_from(texts: Mapping[str, str], engine: AbstractEngine | str | None) -> dict[str, Any]:
    """Options from a command line, converted to the types of the engine's options. **Raises:** SpecError."""
    kind = ENGINES.get(engine, Local) if isinstance(engine, str) else Local
    _check_names(kind, texts)
    kinds = typing.get_type_hints(kind)
    return {name: _read(name, text, kinds[name]) for name, text in texts.items()}


def _read(name: str, text: str, kind: Any) -> Any:
    kinds = typing.get_args(kind) or (kind,)
    for read in (int, float):
        if read in kinds:
            try:
                return read(text)
            except ValueError:
                if read is int and float in kinds:
                    continue
                what = "a whole number" if read is int else "a number"
                raise SpecError(f"{name}={text}: give {what}.") from None
    return text
