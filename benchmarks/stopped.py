"""Sweeps that stop at a wanted precision, the part `stopped` of `python -m benchmarks coverage`.

A sweep of five sizes starts with a pilot of 4, 8 or 16 seeds at each, gets the seeds that `tsjax.next_seeds` asks for, round by
round, and stops when the half-width of its exponent's 95 % interval is at most 0.15. The table says how many seeds that takes,
how far below 0.15 the half-width ends, and whether the interval at the stop still covers. Costs are proportional to n.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from tsjax import rates
from tsjax.rates.planning import half_width

SIZES = 2.0 ** np.arange(7, 12)
WANTED = 0.15
MOST = 1024
PILOTS = (4, 8, 16)
# Degrees of freedom of the noise: of efficient students, and of a noisier law.
NOISES = (15, 3)


class Stopped(NamedTuple):
    """The end of one sweep: its `seeds` over all sizes, the `half_width`, whether the interval `covers`, and the number of
    `rounds` after the pilot."""

    seeds: int
    half_width: float
    covers: bool
    rounds: int


def stop(rng: np.random.Generator, pilot: int, freedom: int, wanted: float = WANTED) -> Stopped:
    """One sweep with risks chi-square / (degrees of freedom) / n; column j has a risk at every n that has more than j seeds."""
    whole = rng.chisquare(freedom, (len(SIZES), MOST)) / freedom / SIZES[:, None]
    counts, rounds = np.full(len(SIZES), pilot), 0
    while True:
        there = np.arange(counts.max()) < counts[:, None]
        rate = rates.fit_rate(SIZES, np.where(there, whole[:, : counts.max()], np.nan))
        more = rates.next_seeds(rate, wanted, most=MOST)
        if (more == counts).all():
            low, high = rate.interval
            return Stopped(int(counts.sum()), half_width(rate), low <= 1.0 <= high, rounds)
        counts, rounds = more, rounds + 1


def _stops(pilot: int, freedom: int, seed: int, curves: int) -> list[Stopped]:
    rng = np.random.default_rng(seed)
    return [stop(rng, pilot, freedom) for _ in range(curves)]


def print_stopped(halves, seed: int, curves: int) -> None:
    """Prints the table; `halves(function, seed, curves)` runs the function on two halves of the curves."""
    print(f"Sweeps that stop at a half-width of {WANTED:g}, {curves} each: five sizes, seeds over all of them\n")
    print("| noise | pilot | seeds: mean | 10, 50, 90 % | half-width: 10, 50, 90 % | covered, % | rounds |")
    print("|---|---|---|---|---|---|---|")
    for i, freedom in enumerate(NOISES):
        for pilot in PILOTS:
            found = sum(halves(partial(_stops, pilot, freedom), seed + 500 + i, curves), [])
            seeds, widths, covers, rounds = (np.array(column, float) for column in zip(*found, strict=True))
            spread = ", ".join(f"{value:.0f}" for value in np.quantile(seeds, [0.1, 0.5, 0.9]))
            width = ", ".join(f"{value:.3f}" for value in np.quantile(widths, [0.1, 0.5, 0.9]))
            print(
                f"| chi-square, {freedom} | {pilot} | {seeds.mean():.0f} | {spread} | {width} | {100 * covers.mean():.1f} | "
                f"{rounds.mean():.1f} |",
                flush=True,
            )
    print()
