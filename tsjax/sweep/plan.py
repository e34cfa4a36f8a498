"""From cells to chunks: cells of equal static arguments form a group (one compiled program), groups split into chunks."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .checks import check_expectations
from .errors import SpecError, shown
from .experiment import Experiment
from .spec import SweepSpec, expand

# Cells in a chunk unless told otherwise: enough to fill the devices, few enough that a kill loses little.
DEFAULT_CHUNK = 64
# Stands for the seed in a text; no argument may hold it.
_SEED = "\x00seed\x00"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class Cell:
    """One unit of work: all arguments, and a seed. `id` is a hash of both: what a record is about, whatever chunk or device
    made it."""

    arguments: dict[str, Any]
    seed: int
    id: str


def cells_of(arguments: dict[str, Any], seeds: Iterable[int]) -> list[Cell]:
    """The cells of one combination of arguments."""
    # JSON of arguments and seed, sorted by name; written once, since encoding each cell would cost more than running it.
    before, after = json.dumps({**arguments, "seed": _SEED}, sort_keys=True).split(json.dumps(_SEED))
    return [Cell(arguments, seed, _digest(f"{before}{seed}{after}")) for seed in seeds]


@dataclass(frozen=True)
class Chunk:
    """Cells that run, and are stored, together."""

    static: dict[str, Any]
    cells: tuple[Cell, ...]

    @property
    def id(self) -> str:
        """Named by content, so that the same cells give the same file wherever they run."""
        return _digest("".join(cell.id for cell in self.cells))


@dataclass(frozen=True)
class Group:
    """Cells of equal static arguments: they share one compiled program."""

    static: dict[str, Any]
    cells: tuple[Cell, ...]

    def chunks(self, size: int) -> list[Chunk]:
        """The cells in chunks of `size`."""
        return [Chunk(self.static, self.cells[i : i + size]) for i in range(0, len(self.cells), size)]


@dataclass(frozen=True)
class Plan:
    """Everything a sweep will run, in order."""

    experiment: Experiment
    groups: tuple[Group, ...]

    @property
    def cells(self) -> int:
        """Number of cells (arguments x seeds)."""
        return sum(len(group.cells) for group in self.groups)

    def shard(self, part: int, parts: int) -> "Plan":
        """Every `parts`-th piece of the cells, from the `part`-th (from 1): the plans of all parts together are this one,
        whatever chunks they run in. Pieces are smaller where that is needed to give every part some."""
        if parts == 1:
            return self
        size = min(DEFAULT_CHUNK, max(1, self.cells // (4 * parts)))
        pieces = [piece for group in self.groups for piece in group.chunks(size)]
        chunks = pieces[part - 1 :: parts]
        groups: dict[str, Group] = {}
        for piece in chunks:
            name = json.dumps(piece.static, sort_keys=True)
            before = groups[name].cells if name in groups else ()
            groups[name] = Group(piece.static, (*before, *piece.cells))
        return Plan(self.experiment, tuple(groups.values()))


def make_plan(spec: SweepSpec, experiment: Experiment) -> Plan:
    """Validates the spec and groups its cells by static arguments, in grid order. **Raises:** SpecError."""
    combinations = list(expand(spec, experiment))
    for arguments, _ in combinations:
        for name, value in arguments.items():
            if name not in experiment.static:
                _check_number(experiment, name, value)
    check_expectations(spec.expect, experiment, (arguments for arguments, _ in combinations))
    groups: dict[str, tuple[dict[str, Any], list[Cell]]] = {}
    for arguments, seeds in combinations:
        # As the schema made them, a tuple being a tuple: the function takes what it is annotated with.
        static = {name: arguments[name] for name in experiment.static}
        name = json.dumps(static, sort_keys=True)
        groups.setdefault(name, (static, []))[1].extend(cells_of(arguments, seeds))
    return Plan(experiment, tuple(Group(static, tuple(cells)) for static, cells in groups.values()))


def _check_number(experiment: Experiment, name: str, value: Any) -> None:
    """Raises SpecError for what cannot be an array's entry in a compiled program."""
    if not isinstance(value, int | float):
        raise SpecError(
            f"{experiment.name}: {name} = {shown(value)} is not a number, so it cannot be traced. Name it in static."
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise SpecError(f"{experiment.name}: {name} = {shown(value)} is no 64-bit integer, so it cannot be traced.")
