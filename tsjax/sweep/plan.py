"""From cells to chunks: cells with equal static arguments form a group (one compiled program), and groups split into chunks."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .axes import MOST_CELLS
from .checks import check_expectations
from .classes import Shared
from .description import Description
from .errors import SpecError, shown
from .experiment import Cost, Experiment
from .spec import SweepSpec, expand
from .surface import check_surface
from .values import hashable, name_of_value, redacted

# Cells of a chunk by default: enough to fill the devices, and few enough that a kill loses little work.
DEFAULT_CHUNK = 64
# Stands for the seed in a text; no argument may hold it.
_SEED = "\x00seed\x00"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class Cell:
    """One unit of work: all arguments, and a seed. `id` is a hash of both. It says which cell a record belongs to, and does not
    depend on the chunk or the device that made the record."""

    arguments: dict[str, Any]
    seed: int
    id: str


def ids_of(arguments: Mapping[str, Any], seeds: Iterable[int]) -> Iterator[str]:
    """The ids of the cells of one combination of arguments. Credentials in the arguments do not enter the ids."""
    # The JSON of arguments and seed, sorted by name, is written only once: encoding it for every cell may cost more than the
    # cell itself.
    text = json.dumps({**redacted(dict(arguments)), "seed": _SEED}, sort_keys=True)
    before, after = text.split(json.dumps(_SEED))
    return (_digest(f"{before}{seed}{after}") for seed in seeds)


def cells_of(arguments: dict[str, Any], seeds: Sequence[int]) -> list[Cell]:
    """The cells of one combination of arguments."""
    return [Cell(arguments, seed, id) for seed, id in zip(seeds, ids_of(arguments, seeds), strict=True)]


class Combination(NamedTuple):
    """One combination of arguments, and the seeds to run with it."""

    arguments: dict[str, Any]
    seeds: Sequence[int]


@dataclass(frozen=True)
class Group:
    """Cells with equal static arguments and sizes (`static` holds both), which run together. `cost` is that of one cell, if
    the experiment states it. `shared` says with which groups it shares a program: those that differ only in their sizes, or
    only in the argument that names curves."""

    static: dict[str, Any]
    cells: tuple[Cell, ...]
    cost: Cost | None = None
    shared: Shared = Shared()

    def program(self, experiment: Experiment | Description) -> str:
        """A text that is equal for groups of an experiment that share a program."""
        return _program(self.static, self.shared, experiment)

    def traced(self, experiment: Experiment | Description) -> dict[str, int]:
        """The sizes, and the place of the curve among the `variants`, that are data of the program, by argument."""
        sizes = {name: self.static[name] for name in experiment.sized} if self.shared.limits else {}
        if not self.shared.variants:
            return sizes
        assert experiment.curve is not None
        return sizes | {experiment.curve: self.shared.variants.index(hashable(self.static[experiment.curve]))}

    def chunks(self, size: int) -> list[tuple[Cell, ...]]:
        """The cells, `size` at a time: what runs, and is stored, together."""
        return [self.cells[i : i + size] for i in range(0, len(self.cells), size)]


def _program(static: Mapping[str, Any], shared: Shared, experiment: Experiment | Description) -> str:
    data = {*(experiment.sized if shared.limits else ()), *([experiment.curve] if shared.variants else [])}
    return json.dumps([{name: value for name, value in static.items() if name not in data}, shared], sort_keys=True)


class Portion(NamedTuple):
    """The cells of one group, given by their `places` in the `ids` of the plan; the cells themselves are not made."""

    static: dict[str, Any]
    places: np.ndarray
    cost: Cost | None


@dataclass(frozen=True)
class Plan:
    """Everything that a sweep will run, in order: combinations of arguments with their seeds, grouped by static arguments.

    The `experiment` of a plan that was read from a store is a `Description`, which cannot be run.
    """

    experiment: Experiment | Description
    combinations: tuple[Combination, ...]
    costs: tuple[Cost | None, ...] = ()
    shared: tuple[Shared, ...] = ()
    """How each group shares its program; empty if none does."""
    key: int = 0
    """The root key of the sweep."""

    @property
    def cells(self) -> int:
        """Number of cells (arguments x seeds)."""
        return sum(len(seeds) for _, seeds in self.combinations)

    @functools.cached_property
    def groups(self) -> tuple[Group, ...]:
        """The cells of each program, in the order of the grid."""
        found: dict[str, tuple[dict[str, Any], list[Cell]]] = {}
        for arguments, seeds in self.combinations:
            static = self._static(arguments)
            found.setdefault(json.dumps(static, sort_keys=True), (static, []))[1].extend(cells_of(arguments, seeds))
        costs, shared = self.costs or (None,) * len(found), self.shared or (Shared(),) * len(found)
        facts = zip(found.values(), costs, shared, strict=True)
        return tuple(Group(static, tuple(cells), cost, how) for (static, cells), cost, how in facts)

    def _static(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: arguments[name] for name in self.experiment.shaping}

    @functools.cached_property
    def ids(self) -> list[str]:
        """The ids of all cells, combination by combination."""
        return list(itertools.chain.from_iterable(ids_of(*one) for one in self.combinations))

    @functools.cached_property
    def portions(self) -> tuple[Portion, ...]:
        """The groups, whose cells are not made."""
        found: dict[str, tuple[dict[str, Any], list[np.ndarray]]] = {}
        start = 0
        for arguments, seeds in self.combinations:
            static = self._static(arguments)
            places = np.arange(start, start + len(seeds))
            found.setdefault(json.dumps(static, sort_keys=True), (static, []))[1].append(places)
            start += len(seeds)
        costs = self.costs or (None,) * len(found)
        pairs = zip(found.values(), costs, strict=True)
        return tuple(Portion(static, np.concatenate(places), cost) for (static, places), cost in pairs)

    def by_curve(self) -> list[list[int]]:
        """Lists of the numbers of groups: those of one list share all static arguments except x."""
        curves: dict[str, list[int]] = {}
        for number, portion in enumerate(self.portions):
            static = {name: value for name, value in portion.static.items() if name != self.experiment.x}
            curves.setdefault(json.dumps(static), []).append(number)
        return list(curves.values())

    def program_of(self, number: int) -> str:
        """A text that is equal for groups that share a program; `number` is that of the group."""
        return _program(self.portions[number].static, self.shared[number] if self.shared else Shared(), self.experiment)

    @property
    def programs(self) -> int:
        """The number of programs to compile."""
        return len({self.program_of(number) for number in range(len(self.portions))})

    def arguments_of(self, portion: "Portion") -> dict[str, Any]:
        """The arguments of the first cell of a portion."""
        counts = np.cumsum([len(seeds) for _, seeds in self.combinations])
        return self.combinations[int(np.searchsorted(counts, portion.places[0], side="right"))].arguments

    @property
    def sharing_of(self) -> dict[str, Shared]:
        """How each group shares its program, by the JSON text of its static arguments and sizes."""
        names = (json.dumps(portion.static, sort_keys=True) for portion in self.portions)
        return dict(zip(names, self.shared, strict=True)) if self.shared else {}

    def values(self, name: str) -> list[Any]:
        """The distinct values of an argument, in the order of the grid."""
        return list({json.dumps(one.arguments[name]): one.arguments[name] for one in self.combinations}.values())


def make_plan(spec: SweepSpec, experiment: Experiment, *, deep: bool = True) -> Plan:
    """Validates a spec and lists its cells in grid order. `deep` also checks what the experiment returns and what theory
    predicts, which takes seconds. **Raises:** SpecError."""
    plan = plan_cells(spec, experiment)
    check_expectations(spec.expect, experiment, (one.arguments for one in plan.combinations), deep=deep)
    check_surface(spec.surface, experiment.names, (one.arguments for one in plan.combinations))
    return plan


def plan_cells(spec: SweepSpec, experiment: Experiment) -> Plan:
    """The cells of a spec in grid order; its expectations are not checked. **Raises:** SpecError."""
    combinations, costs = [], {}
    for arguments, seeds in expand(spec, experiment):
        for name, value in arguments.items():
            if name in experiment.sized:
                _check_size(experiment, name, value)
            elif name == experiment.x and name in experiment.static and isinstance(value, int) and value < 0:
                raise SpecError(
                    f"{experiment.name}: {name} = {value}: {name} is static, so it is a number of rows, steps or the like; a "
                    "whole number >= 0."
                )
            elif name not in experiment.static:
                _check_number(experiment, name, value)
        if not experiment.returns_x and not isinstance(arguments[experiment.x], int | float):
            raise SpecError(
                f"{experiment.name}: {experiment.x} = {arguments[experiment.x]!r} is not a number, and curves are drawn "
                f"against {experiment.x}."
            )
        combinations.append(Combination(arguments, seeds))
        static = json.dumps({name: arguments[name] for name in experiment.shaping}, sort_keys=True)
        if static not in costs:
            costs[static] = None if experiment.cost is None else experiment.cost(arguments)
    plan = Plan(experiment, tuple(combinations), tuple(costs.values()), key=spec.key)
    if experiment.curve is not None:
        check_names(experiment, experiment.curve, plan.values(experiment.curve))
    return plan


def check_names(experiment: Experiment, argument: str, values: list[Any]) -> None:
    """Raises SpecError if two values of the argument that names curves give two curves the same name or label."""
    names: dict[str, Any] = {}
    for value in values:
        name = name_of_value(value)
        for called in dict.fromkeys([name, experiment.labels.get(name, name)]):
            if called in names and names[called] is not value:
                raise SpecError(
                    f"{experiment.name}: {argument} = {shown(names[called])} and {argument} = {shown(value)} would both be "
                    f"called {called!r}. Write one of them differently, or change its label."
                )
            names[called] = value


def _check_size(experiment: Experiment, name: str, value: Any) -> None:
    """Raises SpecError for a value that is not a sample size."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise SpecError(
            f"{experiment.name}: {name} = {shown(value)} is a sample size, so it must be a whole number >= 1."
        )


def _check_number(experiment: Experiment, name: str, value: Any) -> None:
    """Raises SpecError for a value that cannot be an entry of an array in a compiled program."""
    if not isinstance(value, int | float):
        raise SpecError(
            f"{experiment.name}: {name} = {shown(value)} is not a number, so it cannot be traced. Name it in static."
        )
    bits = 63 if experiment.x64 else 31
    if isinstance(value, int) and not -(2**bits) <= value < 2**bits:
        raise SpecError(
            f"{experiment.name}: {name} = {shown(value)} does not fit in {bits + 1} bits, so it cannot be traced. Take a "
            "smaller value, or annotate it as float."
        )


def plan_content(plan: Plan) -> dict[str, Any]:
    """The plan as plain values for a store: a column for every argument, and the seeds."""
    columns = {name: [one.arguments[name] for one in plan.combinations] for name in plan.experiment.names}
    seeds = [_ranges(one.seeds) for one in plan.combinations]
    return {
        "combinations": len(plan.combinations),
        "arguments": {name: _packed(redacted(values)) for name, values in columns.items()},
        "seeds": _packed(seeds),
        "costs": [None if cost is None else list(map(float, cost)) for cost in plan.costs],
        "limits": [how.limits for how in plan.shared],
        "variants": _packed([how.variants for how in plan.shared]) if plan.shared else None,
    }


def plan_of(content: Mapping[str, Any], experiment: Description) -> Plan:
    """The plan that `plan_content` wrote. **Raises:** KeyError, TypeError or ValueError for anything else."""
    count = int(content["combinations"])
    # Checked before any list of that length is made.
    if not 0 <= count <= MOST_CELLS:
        raise ValueError(f"{count} combinations, and at most {MOST_CELLS} cells")
    columns = {name: [hashable(v) for v in _unpacked(content["arguments"][name], count)] for name in experiment.names}
    ranges = {json.dumps(one): one for one in _unpacked(content["seeds"], count)}
    if any(low > high for one in ranges.values() for low, high in one):
        raise ValueError("a range of seeds that ends before it begins")
    sizes = {text: sum(high - low + 1 for low, high in one) for text, one in ranges.items()}
    if sum(sizes[json.dumps(one)] for one in _unpacked(content["seeds"], count)) > MOST_CELLS:
        raise ValueError(f"more than {MOST_CELLS} cells")
    seeds = {text: _listed(one) for text, one in ranges.items()}
    combinations = tuple(
        Combination({name: columns[name][i] for name in columns}, seeds[json.dumps(one)])
        for i, one in enumerate(_unpacked(content["seeds"], count))
    )
    costs = tuple(None if cost is None else Cost(*cost) for cost in content["costs"])
    # In stores of earlier versions sizes never shared a program, and have no limits, or curves did not, and have no variants.
    limits = [None if one is None else tuple(map(int, one)) for one in content.get("limits", ())]
    packed = content.get("variants")
    variants = _unpacked(packed, len(limits)) if packed else [()] * len(limits)
    plan = Plan(experiment, combinations, costs, tuple(map(Shared, limits, map(hashable, variants))))
    if limits and len(limits) != len(plan.portions):
        raise ValueError(f"limits of {len(limits)} groups, where there are {len(plan.portions)}")
    return plan


def _packed(values: list[Any]) -> dict[str, Any]:
    """A column as its distinct values and, for every entry, the place of its value among these."""
    places: dict[str, int] = {}
    distinct = []
    for value in values:
        text = json.dumps(value)
        if text not in places:
            places[text] = len(distinct)
            distinct.append(value)
    if len(distinct) == 1:
        return {"values": distinct}
    return {"values": distinct, "at": [places[json.dumps(value)] for value in values]}


def _unpacked(column: Mapping[str, Any], count: int) -> list[Any]:
    if "at" not in column:
        return [column["values"][0]] * count if count else []
    if len(column["at"]) != count:
        raise ValueError(f"{len(column['at'])} values for {count} combinations")
    return [column["values"][place] for place in column["at"]]


def _ranges(seeds: Sequence[int]) -> list[list[int]]:
    """Runs of consecutive seeds: [first, last] of each, in order."""
    if isinstance(seeds, range):
        return [[seeds[0], seeds[-1]]] if seeds.step == 1 and len(seeds) else [[seed, seed] for seed in seeds]
    found: list[list[int]] = []
    for seed in seeds:
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return found


def _listed(ranges: list[list[int]]) -> Sequence[int]:
    if len(ranges) == 1:
        return range(ranges[0][0], ranges[0][1] + 1)
    return [seed for low, high in ranges for seed in range(low, high + 1)]
