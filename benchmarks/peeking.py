"""How looking at a verdict while seeds are added affects its error: `uv run python -m benchmarks peeking`.

A sweep of eight sizes starts with 16 seeds, gets more, up to 256, while a claim about its exponent is undecided, and stops when
the claim holds or fails. The truth lies exactly at the bound of the claim, so that "holds" is an error. There are two
schedules: seeds double (5 looks), or 8 are added (31 looks). There are two intervals: that of `fit_rate` at 95 %, which is
meant for one look, and that of `tsjax.sequential`. For every law of the seeds' noise and every schedule, the table gives

- how often the fixed interval covers at 16 and at 256 seeds without earlier looks;
- how often each interval misses the truth at some look, and how often the claims "at least the truth" and "at most the truth"
  falsely hold at the look that decides them;
- the median width of the sequential interval at 256 seeds, relative to the fixed one.

The goals, set before the run: for laws whose fixed interval covers 94 % at 16 and at 256 seeds, the sequential interval misses
at some look in at most 5 % of runs, within simulation error, and it is at most 1.15 times as wide at the end.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from tsjax import rates

from .coverage import chi_square, failed_cells, failed_seeds, gaussian, scattered, shared
from .coverage_curves import SHORT, share_with_interval

FIRST, MOST, TRUTH = 16, 256, 1.0
SCHEDULES = {"double": [16, 32, 64, 128, 256], "8-more": list(range(FIRST, MOST + 1, 8))}


def gamma_20(rng, k, seeds):
    """Gamma noise of shape 20."""
    return rng.gamma(20.0, size=(k, seeds)) / 20.0


def exponential(rng, k, seeds):
    """Gamma noise of shape 1."""
    return rng.exponential(size=(k, seeds))


def wide_gaussian(rng, k, seeds):
    """Log-normal risks with a heavy tail."""
    return np.exp(rng.normal(size=(k, seeds)))


def student_t(rng, k, seeds):
    """Mean 1 with an error of Student's law with 2.5 degrees of freedom: no third moment, a few risks are negative."""
    return 1.0 + 0.1 * rng.standard_t(2.5, size=(k, seeds))


LAWS: dict[str, Callable] = {
    "gamma, shape 7.5 (chi-square, 15)": chi_square,
    "gamma, shape 20": gamma_20,
    "gamma, shape 1 (exponential)": exponential,
    "log-normal, s.d. 0.5": gaussian,
    "log-normal, s.d. 1": wide_gaussian,
    "t, 2.5 degrees of freedom, scale 0.1": student_t,
    "half the log-variance is the seed's": shared,
    "15 % of the cells missing": scattered,
    "2 % of cells 100 times larger": failed_cells,
    "2 % of seeds 100 times larger": failed_seeds,
}


def simulate(law: str, looks: list[int], draws: int, seed: int, curves: int) -> np.ndarray:
    """Ends of intervals (kind, look, curve, 2): the fixed ones, and the sequential ones."""
    rng = np.random.default_rng(seed)
    tables = [LAWS[law](rng, len(SHORT), MOST) / SHORT[:, None] for _ in range(curves)]
    ends = np.empty((2, len(looks), curves, 2))
    # Looks in the outer loop and curves in the inner one, so that the resamples for one number of seeds are made once.
    for k, seeds in enumerate(looks):
        for i, risks in enumerate(tables):
            rate = rates.fit_rate(SHORT, risks[:, :seeds], draws=draws)
            ends[:, k, i] = rate.interval, rates.sequential(rate, looks[: k + 1], MOST).interval
    return ends


def missed(ends: np.ndarray) -> np.ndarray:
    """Whether intervals (look, curve, 2) miss the truth at some look (curve,)."""
    return np.any((ends[..., 0] > TRUTH) | (ends[..., 1] < TRUTH), axis=0)


def false_holds(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the claims "at least the truth" and "at most the truth" hold at the look that decides them (curve,)."""
    above, below = ends[..., 0] > TRUTH, ends[..., 1] < TRUTH
    decided = above | below
    first = decided.argmax(axis=0), np.arange(decided.shape[1])
    return above[first], below[first]


def row(law: str, schedule: str, ends: np.ndarray) -> str:
    """The line of one law and one schedule."""
    curves = ends.shape[2]
    count = lambda which: share_with_interval(int(which.sum()), curves)
    cells = [count(~missed(ends[0, k : k + 1])) for k in (0, ends.shape[1] - 1)]
    for own in ends:
        held = " and ".join(f"{100 * side.mean():.1f}" for side in false_holds(own))
        cells += [count(missed(own)), held]
    fixed, wider = np.median(ends[:, -1, :, 1] - ends[:, -1, :, 0], axis=1)
    return f"| {law} | {schedule} | {' | '.join(cells)} | {wider / fixed:.2f} |"


def main(arguments: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks peeking", description="Errors of verdicts under peeking."
    )
    parser.add_argument("--curves", type=int, default=2000, help="simulated runs of each law (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulations (0)")
    parser.add_argument("--draws", type=int, default=2000, help="resamples of each fit (2000, as fit_rate's own)")
    parser.add_argument("--processes", type=int, default=2, help="side by side (2)")
    parser.add_argument("--law", type=int, choices=range(len(LAWS)), help="the rows of one law alone")
    parser.add_argument("--schedule", choices=list(SCHEDULES), help="the rows of one schedule alone")
    options = parser.parse_args(arguments)
    print(
        f"Nominal 95 % intervals under peeking, in % of {options.curves} runs, with 95 % intervals: missed the truth at some "
        'look; "at least" and "at most" the truth falsely held\n'
    )
    print("| noise | looks | covers at 16 | at 256 | fixed: missed | held | sequential: missed | held | width at 256 |")
    print("|---|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        for i, law in enumerate(LAWS):
            for j, (schedule, looks) in enumerate(SCHEDULES.items()):
                if options.law not in (None, i) or options.schedule not in (None, schedule):
                    continue
                streams = np.random.SeedSequence([options.seed, i, j]).spawn(options.processes)
                sizes = np.diff(np.linspace(0, options.curves, options.processes + 1).astype(int)).tolist()
                seeds = [int(one.generate_state(1)[0]) for one in streams]
                parts = list(pool.map(partial(simulate, law, looks, options.draws), seeds, sizes))
                print(row(law, schedule, np.concatenate(parts, axis=2)), flush=True)
