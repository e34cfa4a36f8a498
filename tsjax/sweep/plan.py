"""From cells to chunks: cells of equal static arguments form a group (one compiled program), groups split into chunks."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .experiment import Experiment
from .spec import SpecError, SweepSpec, check_expectations, expand

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
    check_expectations(spec, experiment)
    groups: dict[str, list[Cell]] = {}
    for arguments, seeds in expand(spec, experiment):
        for name, value in arguments.items():
            if name not in experiment.static and not isinstance(value, int | float):
                raise SpecError(
                    f"{experiment.name}: {name} = {value!r} is not a number, so it cannot be traced. Name it in static."
                )
        static = json.dumps({name: arguments[name] for name in experiment.static}, sort_keys=True)
        groups.setdefault(static, []).extend(cells_of(arguments, seeds))
    return Plan(experiment, tuple(Group(json.loads(static), tuple(cells)) for static, cells in groups.items()))
