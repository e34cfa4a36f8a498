"""Which sample sizes share a compiled program: padding costs operations, and every program costs seconds of compilation.

Cells that differ in the arguments that an experiment names in `sized` may run in one program, with arrays as long as the
largest of them. Sizes next to each other are put together as long as that saves time by what programs and operations cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..size import ladder
from .experiment import Cost

# Seconds to make a program, and operations per second in products and in factorisations, of all devices of a kind together: on
# CPUs as on two cores; on GPUs and TPUs assumed. Orders of magnitude are enough: where costs grow as n^3, a machine twice as
# fast moves a border between classes by a third of an octave.
COMPILE_SECONDS = 6.0
SPEEDS = {"cpu": (1e10, 4e10), "gpu": (2e12, 5e11), "tpu": (2e12, 5e11)}
# Where an experiment states no cost, sizes within this factor share a program.
FACTOR = 4


@dataclass(frozen=True)
class Sized:
    """The cells of one combination of sizes: how many there are, and the `Cost` of one of them in arrays for given sizes, None
    where the experiment states none."""

    sizes: tuple[int, ...]
    cells: int
    cost_at: Callable[[tuple[int, ...]], Cost] | None


def padded_cost(
    cost_at: Callable[[tuple[int, ...]], Cost], sizes: tuple[int, ...], limits: tuple[int, ...], loops_end: bool
) -> Cost:
    """The cost of a cell in arrays that are longer than it needs: loops of training may end with the rows that count
    (`tsjax.fast`), and factorisations run at the next size that the program holds."""
    held = tuple(min(rung for rung in ladder(limit) if rung >= size) for size, limit in zip(sizes, limits, strict=True))
    own, padded = cost_at(sizes), cost_at(limits)
    return Cost(own.products if loops_end else padded.products, cost_at(held).factorisations, padded.entries)


def seconds_at(cost: Cost, speeds: tuple[float, float]) -> float:
    """At so many operations per second in products (and all others) and in factorisations."""
    products, factorisations = speeds
    return (cost.products + cost.entries) / products + cost.factorisations / factorisations


def seconds_in(one: Sized, limits: tuple[int, ...], platform: str, loops_end: bool) -> float:
    """What the cells of a member take in arrays for these sizes; infinity where they do not fit, or where no cost is known
    and the sizes are too far apart."""
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
    """The class, of those that are there, in which a new member costs least; None where a program of its own costs less."""
    costs = {limits: seconds_in(one, limits, platform, loops_end) for limits in classes}
    best = min(costs, key=lambda limits: costs[limits], default=None)
    own = COMPILE_SECONDS + seconds_in(one, one.sizes, platform, loops_end)
    return best if best is not None and costs[best] < own else None


def size_classes(members: Sequence[Sized], platform: str, loops_end: bool) -> list[tuple[int, ...] | None]:
    """The sizes of the arrays for each of the members, cells of one curve: None where a member has a program of its own.

    The partition of the members, in the order of their sizes, into consecutive classes with the least sum of compilation and
    running, by dynamic programming.
    """
    order = sorted(range(len(members)), key=lambda i: members[i].sizes)

    def seconds(first: int, last: int) -> float:
        """Of a class of the members first .. last."""
        several = [members[i] for i in order[first : last + 1]]
        limits = _largest(several)
        return COMPILE_SECONDS + sum(seconds_in(one, limits, platform, loops_end) for one in several)

    best: list[tuple[float, list[tuple[int, int]]]] = [(0.0, [])]
    for last in range(len(order)):
        # Of equals the one with fewer programs.
        options = [(best[first][0] + seconds(first, last), first) for first in range(last + 1)]
        total, first = min(options)
        best.append((total, [*best[first][1], (first, last)]))
    limits: list[tuple[int, ...] | None] = [None] * len(members)
    for first, last in best[-1][1]:
        if last > first:
            shared = _largest([members[i] for i in order[first : last + 1]])
            for i in order[first : last + 1]:
                limits[i] = shared
    return limits


def _largest(members: Sequence[Sized]) -> tuple[int, ...]:
    return tuple(max(sizes) for sizes in zip(*(one.sizes for one in members), strict=True))
