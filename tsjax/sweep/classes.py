"""Which sample sizes share a compiled program: padding costs operations, and every program costs seconds of compilation.

Cells that differ only in the arguments that an experiment names in `sized` may run in one program, with arrays for the largest
of these sizes. Neighbouring sizes share a program if that saves time, by the costs of compilation and of operations. Curves
that an experiment puts `together` always share one, since the code of one more kernel takes a fraction of a second.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..size import ladder
from .experiment import Cost

# Seconds to compile a program, and operations per second in products and in factorisations, of all devices together: for CPUs
# those of two cores, for GPUs and TPUs an assumption. Orders of magnitude suffice: if costs grow as n^3, a machine twice as
# fast moves the border between two classes by a third of an octave.
COMPILE_SECONDS = 6.0
SPEEDS = {"cpu": (1e10, 4e10), "gpu": (2e12, 5e11), "tpu": (2e12, 5e11)}
# If an experiment states no cost, sizes within this factor share a program.
FACTOR = 4


class Shared(NamedTuple):
    """How a group shares its program with other groups.

    - `limits`: the lengths of the arrays, one for each size, for sizes that are traced; None for a group whose arrays have
      exactly its own sizes.
    - `variants`: the values of the argument that names curves whose code is in the program; empty for a program of one curve.
    """

    limits: tuple[int, ...] | None = None
    variants: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Sized:
    """The cells of one combination of sizes: their number, and the function `cost_at(sizes)`, the `Cost` of one of them in
    arrays for these sizes, or None if the experiment states no cost."""

    sizes: tuple[int, ...]
    cells: int
    cost_at: Callable[[tuple[int, ...]], Cost] | None


def padded_cost(
    cost_at: Callable[[tuple[int, ...]], Cost], sizes: tuple[int, ...], limits: tuple[int, ...], loops_end: bool
) -> Cost:
    """The cost of a cell in arrays that are longer than it needs. If `loops_end`, training loops skip padded rows
    (`tsjax.fast`), and factorisations run at the next size of the ladder that the program holds (`tsjax.size.ladder`)."""
    held = tuple(min(rung for rung in ladder(limit) if rung >= size) for size, limit in zip(sizes, limits, strict=True))
    own, padded = cost_at(sizes), cost_at(limits)
    return Cost(own.products if loops_end else padded.products, cost_at(held).factorisations, padded.entries)


def seconds_at(cost: Cost, speeds: tuple[float, float]) -> float:
    """The seconds of a cost at these speeds, in operations per second: of products and all others, and of factorisations."""
    products, factorisations = speeds
    return (cost.products + cost.entries) / products + cost.factorisations / factorisations


def work_of(cost: Cost | None) -> float:
    """All operations of a cost, at least one; 1 if no cost is known, so that all cells are alike."""
    return 1.0 if cost is None else max(1.0, float(sum(cost)))


def seconds_from(known: Iterable[tuple[float, float]], cost: Cost | None, speeds: tuple[float, float]) -> float:
    """The seconds of a cell of this cost, from the (operations, seconds) of other cells of its curve.

    A smaller cell takes a part of the time of the nearest one, in proportion to its operations. A larger one takes that time
    and, for each further operation, as long as between the nearest two, or as at these `speeds` if that is longer, but not
    longer than the nearest took per operation. (The time of the cells of a smoke run hardly depends on their operations, and
    in proportion it would grow to months.)
    """
    work = work_of(cost)
    (near, took), *others = sorted(known, key=lambda one: abs(math.log(one[0] / work)))
    if cost is None or work <= near:
        return took * work / near
    paces = [(took - seconds) / (near - less) for less, seconds in others if less < near]
    pace = max([seconds_at(cost, speeds) / work, *paces[:1]])
    return took + min(took / near, pace) * (work - near)


def seconds_in(one: Sized, limits: tuple[int, ...], platform: str, loops_end: bool) -> float:
    """The seconds of the cells of a member in arrays for these sizes: infinity if they do not fit, or if no cost is known and
    the sizes are too far apart."""
    if any(own > limit for own, limit in zip(one.sizes, limits, strict=True)):
        return float("inf")
    if one.cost_at is None:
        far = any(limit > FACTOR * own for limit, own in zip(limits, one.sizes, strict=True))
        return float("inf") if far else 0.0
    cost = padded_cost(one.cost_at, one.sizes, limits, loops_end)
    return one.cells * seconds_at(cost, SPEEDS.get(platform, SPEEDS["gpu"]))


def joined_class(
    one: Sized, classes: Sequence[tuple[int, ...]], platform: str, loops_end: bool
) -> tuple[int, ...] | None:
    """The existing class in which a new member costs least, or None if a program of its own costs less."""
    costs = {limits: seconds_in(one, limits, platform, loops_end) for limits in classes}
    best = min(costs, key=lambda limits: costs[limits], default=None)
    own = COMPILE_SECONDS + seconds_in(one, one.sizes, platform, loops_end)
    return best if best is not None and costs[best] < own else None


def size_classes(members: Sequence[Sized], platform: str, loops_end: bool) -> list[tuple[int, ...] | None]:
    """The sizes of the arrays for each member (the cells of one size of a curve); None for a member that shares its program
    only with members of the same sizes, or with none.

    Members are ordered by size and divided into classes of consecutive members, so that the total time of compilation and
    running is smallest; the division is found by dynamic programming.
    """
    order = sorted(range(len(members)), key=lambda i: members[i].sizes)
    running = functools.cache(lambda i, limits: seconds_in(members[i], limits, platform, loops_end))

    def seconds(first: int, last: int) -> float:
        """The seconds of a class that consists of the members first .. last."""
        limits = _largest([members[i] for i in order[first : last + 1]])
        return COMPILE_SECONDS + sum(running(i, limits) for i in order[first : last + 1])

    best: list[tuple[float, list[tuple[int, int]]]] = [(0.0, [])]
    for last in range(len(order)):
        # Among equal times, the earliest first, which gives fewer programs.
        options = [(best[first][0] + seconds(first, last), first) for first in range(last + 1)]
        total, first = min(options)
        best.append((total, [*best[first][1], (first, last)]))
    limits: list[tuple[int, ...] | None] = [None] * len(members)
    for first, last in best[-1][1]:
        if members[order[first]].sizes != members[order[last]].sizes:
            shared = _largest([members[i] for i in order[first : last + 1]])
            for i in order[first : last + 1]:
                limits[i] = shared
    return limits


def _largest(members: Sequence[Sized]) -> tuple[int, ...]:
    return tuple(max(sizes) for sizes in zip(*(one.sizes for one in members), strict=True))
