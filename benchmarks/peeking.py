"""What looking at a verdict while seeds are added does to its error. `uv run python -m benchmarks peeking`

A sweep of eight sizes starts with 16 seeds, gets more while a claim about its exponent is undecided, up to 256, and stops when
the claim holds or fails. The truth lies exactly at the bound of the claim, so that "holds" is an error. Two schedules: seeds
double (5 looks), or 8 are added (31 looks). Two intervals: that of `fit_rate` at 95 %, which is meant for one look, and that
of `tsjax.sequential`. The table says, for every law of the seeds' noise,

- how often the fixed interval covers at 16 and at 256 seeds, where nobody looks before;
- how often the interval misses the truth at some look;
- how often the claim falsely holds at the look that decides it: "at least the truth", "at most the truth";
- the median width of the sequential interval at 256 seeds, relative to the fixed one.

The bars, set before the run: for laws whose fixed interval covers 94 % at 16 and at 256 seeds, the sequential interval misses
at some look in 5 % of runs at most, within simulation error; it is at most 1.15 times as wide at the end.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from tsjax import rates

from .coverage import chi_square, failed_cells, failed_seeds, gaussian, scattered, shared
from .coverage_curves import DRAWS, SHORT, share_with_interval

FIRST, MOST, TRUTH = 16, 256, 1.0
SCHEDULES = {"seeds double": [16, 32, 64, 128, 256], "8 seeds more": list(range(FIRST, MOST + 1, 8))}


def gamma_20(rng, k, seeds):
    """Gamma noise of shape 20."""
    return rng.gamma(20.0, size=(k, seeds)) / 20.0


def exponential(rng, k, seeds):
    """Gamma noise of shape 1."""
    return rng.exponential(size=(k, seeds))


def wide_gaussian(rng, k, seeds):
    """Log-normal risks with a tail."""
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
KINDS = ("fixed", *SCHEDULES)


def simulate(law: str, seed: int, curves: int) -> np.ndarray:
    """Ends of intervals (kind, look, curve, 2) at every look of the longer schedule: the fixed interval, and the sequential
    ones of both schedules, NaN where a schedule does not look."""
    rng, looks = np.random.default_rng(seed), SCHEDULES["8 seeds more"]
    tables = [LAWS[law](rng, len(SHORT), MOST) / SHORT[:, None] for _ in range(curves)]
    ends = np.full((len(KINDS), len(looks), curves, 2), np.nan)
    # Looks outside, curves inside: the resamples of one number of seeds are made once.
    for k, seeds in enumerate(looks):
        for i, risks in enumerate(tables):
            rate = rates.fit_rate(SHORT, risks[:, :seeds], draws=DRAWS)
            ends[0, k, i] = rate.interval
            for kind, schedule in enumerate(SCHEDULES.values(), start=1):
                if seeds in schedule:
                    past = schedule[: schedule.index(seeds) + 1]
                    ends[kind, k, i] = rates.sequential(rate, past, MOST).interval
    return ends


def missed(ends: np.ndarray) -> np.ndarray:
    """Whether intervals (look, curve, 2) leave the truth out at some look (curve,)."""
    return ((ends[..., 0] > TRUTH) | (ends[..., 1] < TRUTH)).any(axis=0)


def false_holds(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the claims "at least the truth" and "at most the truth" hold at the look that decides them (curve,)."""
    above, below = ends[..., 0] > TRUTH, ends[..., 1] < TRUTH
    decided = above | below
    first = decided.argmax(axis=0), np.arange(decided.shape[1])
    return above[first], below[first]


def row(law: str, ends: np.ndarray) -> str:
    """The line of one law."""
    curves, looks = ends.shape[2], SCHEDULES["8 seeds more"]
    inside = lambda k: int((~missed(ends[0, k : k + 1])).sum())
    cells = [share_with_interval(inside(k), curves) for k in (0, len(looks) - 1)]
    for kind in ("fixed", "sequential"):
        for name, schedule in SCHEDULES.items():
            at = [looks.index(seeds) for seeds in schedule]
            own = ends[0 if kind == "fixed" else KINDS.index(name)][at]
            held = " and ".join(f"{100 * side.mean():.1f}" for side in false_holds(own))
            cells.append(f"{share_with_interval(int(missed(own).sum()), curves)}; {held}")
    width = np.median(np.diff(ends[:, -1], axis=-1)[..., 0], axis=1)
    cells.append(", ".join(f"{value:.2f}" for value in width[1:] / width[0]))
    return f"| {law} | {' | '.join(cells)} |"


def main(arguments: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks peeking", description="Errors of verdicts under peeking."
    )
    parser.add_argument("--curves", type=int, default=2000, help="simulated runs of each law (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulations (0)")
    parser.add_argument("--processes", type=int, default=2, help="side by side (2)")
    parser.add_argument("--law", type=int, choices=range(len(LAWS)), help="one row alone")
    options = parser.parse_args(arguments)
    print(
        f"Nominal 95 % intervals under peeking, in % of {options.curves} runs, with 95 % intervals: missed at some look; "
        '"at least" and "at most" falsely held\n'
    )
    columns = [f"{kind}, {name}" for kind in ("fixed", "sequential") for name in SCHEDULES]
    print(f"| noise | covers at 16 | covers at 256 | {' | '.join(columns)} | width at 256: double, 8 more |")
    print("|---|" + "---|" * (len(columns) + 3))
    with ProcessPoolExecutor(options.processes) as pool:
        for i, law in enumerate(LAWS):
            if options.law not in (None, i):
                continue
            streams = np.random.SeedSequence([options.seed, i]).spawn(options.processes)
            sizes = np.diff(np.linspace(0, options.curves, options.processes + 1).astype(int))
            parts = pool.map(partial(simulate, law), [int(one.generate_state(1)[0]) for one in streams], sizes.tolist())
            print(row(law, np.concatenate(list(parts), axis=2)), flush=True)
