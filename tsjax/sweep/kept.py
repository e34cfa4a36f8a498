"""Costs of earlier programs and cells on this machine, kept in the cache folder for the estimates of `tsjax plan`."""

import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ..cache import cache_folder, private_folder, read_private
from .classes import COMPILE_SECONDS, seconds_from, work_of
from .plan import Group

# The most entries of each kind; the newest stay.
_MOST = 4096
_KINDS = ("programs", "cells")


class ProgramCost(NamedTuple):
    """The seconds to compile a program, and the bytes of one cell in it."""

    seconds: float
    bytes: float


class KeptCosts:
    """The costs on one kind of device: those read from the file, and those noted since."""

    def __init__(self, device: str):
        self.device = device
        self.programs, self.cells = _tables(_read().get(device))

    def note_program(self, experiment: Any, group: Group, seconds: float, bytes: float) -> None:
        """Notes the seconds to compile a group's program, and the bytes of one cell in it."""
        self._put(self.programs, _name(experiment, group.program(experiment)), [seconds, bytes])

    def note_cells(self, experiment: Any, group: Group, seconds: float) -> None:
        """Notes the seconds of one cell of a group."""
        self._put(self.cells, _cell(experiment, group), [work_of(group.cost), seconds])

    def program(self, experiment: Any, group: Group) -> ProgramCost | None:
        """The cost of exactly this program when it was last compiled, or None."""
        found = self.programs.get(_name(experiment, group.program(experiment)))
        return None if found is None else ProgramCost(*found)

    def compile_seconds(self, experiment: Any, group: Group) -> float:
        """The seconds to compile a program: those of exactly this program, else the median over programs of the study, else
        over all programs, else `COMPILE_SECONDS`."""
        own = self.program(experiment, group)
        if own is not None:
            return own.seconds
        study = _name(experiment, "")
        alike = [values[0] for name, values in self.programs.items() if name.startswith(study)]
        seconds = alike or [values[0] for values in self.programs.values()]
        return float(np.median(seconds)) if seconds else COMPILE_SECONDS

    def cell_seconds(self, experiment: Any, group: Group, speeds: tuple[float, float]) -> float | None:
        """The seconds of one cell: those of this group, else from other groups of its curve by `classes.seconds_from`. None if
        nothing is known about the curve."""
        exact = self.cells.get(_cell(experiment, group))
        if exact is not None:
            return exact[1]
        curve = _name(experiment, _curve(experiment, group.static))
        alike = [(values[0], values[1]) for name, values in self.cells.items() if name.startswith(f"{curve}\n")]
        return seconds_from(alike, group.cost, speeds) if alike and group.cost is not None else None

    def save(self) -> None:
        """Adds the noted costs to the file, which other processes may have changed in the meantime. Does nothing if JAX's
        compilation cache is switched off."""
        config: Any = jax.config
        if not config.jax_enable_compilation_cache:
            return
        # Costs that cannot be kept are measured again.
        with contextlib.suppress(OSError, RuntimeError):
            folder = private_folder(cache_folder())
            content = _read()
            pairs = zip(_KINDS, _tables(content.get(self.device)), (self.programs, self.cells), strict=True)
            content[self.device] = {
                kind: dict(list({**theirs, **mine}.items())[-_MOST:]) for kind, theirs, mine in pairs
            }
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                made = Path(temporary) / "costs.json"
                made.write_text(json.dumps(content))
                made.chmod(0o600)
                made.replace(folder / "costs.json")

    def _put(self, known: dict[str, list[float]], name: str, values: list[float]) -> None:
        # Moved to the end, where the newest entries are.
        known.pop(name, None)
        known[name] = values


def _read() -> dict[str, Any]:
    try:
        content = json.loads(read_private(cache_folder() / "costs.json") or b"{}")
    except (OSError, RuntimeError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _tables(found: Any) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The costs of programs and of cells on one kind of device; empty if the file does not have them."""
    try:
        programs, cells = ({str(name): [float(v) for v in two] for name, two in found[kind].items()} for kind in _KINDS)
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}, {}
    return programs, cells


def _name(experiment: Any, what: str) -> str:
    return f"{experiment.name} {experiment.version}\n{what}"


def _cell(experiment: Any, group: Group) -> str:
    """The name of a group, which begins with that of its curve."""
    return _name(experiment, f"{_curve(experiment, group.static)}\n{json.dumps(group.static, sort_keys=True)}")


def _curve(experiment: Any, static: Mapping[str, Any]) -> str:
    return json.dumps([v for k, v in sorted(static.items()) if k != experiment.x and k not in experiment.sized])
