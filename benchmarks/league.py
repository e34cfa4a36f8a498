"""Which methods give intervals of an exponent that cover as stated? `uv run python -m benchmarks league`

Curves with planted exponents (many laws of noise, with a floor, with a break, with many seeds and with one run at every n) are
fitted by tsjax and by other common methods (`benchmarks/league_methods.py`). There are three tables: coverage of the 95 %
interval, with its median width relative to that of the narrowest method that covers; the median error of the forecast of the
mean risk at 4 times the largest n; and milliseconds for each curve.

A method covers if its share of hits is 93 to 97 % within simulation error, that is, if the exact 95 % interval of the share
meets [93, 97]. A method that gives up on a curve has no hit there and an infinite width; an infinite interval is a hit.

The goal, set before the run: tsjax covers, with at most 1.2 times the width of the narrowest method that covers. The last lines
list the rows where it does not.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from tsjax import rates

from .coverage import chi_square, failed_cells, failed_seeds, gaussian, shared
from .coverage_curves import LONG, SHORT
from .league_methods import METHODS, run
from .peeking import exponential, gamma_20, wide_gaussian

COVERS, WIDTH, AHEAD = (0.93, 0.97), 1.2, 4.0


class Planted(NamedTuple):
    """A row: the curve `mean(n)` on `n`, its asymptotic exponent, the `model` that fits it, and the noise, a function (rng, k,
    seeds) that draws factors with one law at all n."""

    what: str
    n: np.ndarray
    mean: Callable
    exponent: float
    model: str
    noise: Callable
    seeds: int


def log_normal(sd):
    """Noise with this standard deviation of log risk, a number or one for each n."""
    return lambda rng, k, seeds: np.exp(sd * rng.normal(size=(seeds, k))).T


def log_t(rng, k, seeds):
    """Log risks with an error of Student's law with 2.5 degrees of freedom and scale 5 %, clipped to a factor of e."""
    return np.exp(np.clip(0.05 * rng.standard_t(2.5, size=(k, seeds)), -1.0, 1.0))


_MANY, _LAW = np.logspace(2, 5, 20), np.logspace(7, 10.5, 20)
_power = lambda n: 1.0 / n
_slow = lambda n: n**-0.7
_floor = lambda n: 1.0 / n + 1.0 / 256.0
_broken = lambda n: np.exp(-np.log(n) - 0.25 * np.logaddexp(0.0, (np.log(512.0) - np.log(n)) / 0.5))
_loss = lambda n: 1.69 + 406.4 * n**-0.34
ROWS = [
    Planted("power, gamma noise of shape 7.5", SHORT, _power, 1.0, "power", chi_square, 16),
    Planted("power, exponential noise", SHORT, _power, 1.0, "power", exponential, 16),
    Planted("power, log-normal, s.d. 0.5", SHORT, _power, 1.0, "power", gaussian, 16),
    Planted("power, log-normal, s.d. 1", SHORT, _power, 1.0, "power", wide_gaussian, 16),
    Planted("power, log-t, 2.5 degrees of freedom", SHORT, _power, 1.0, "power", log_t, 16),
    Planted("power, half the log-variance is the seed's", SHORT, _power, 1.0, "power", shared, 16),
    Planted("power, 2 % of cells 100 times larger", SHORT, _power, 1.0, "power", failed_cells, 32),
    Planted("power, 2 % of seeds 100 times larger", SHORT, _power, 1.0, "power", failed_seeds, 32),
    Planted("1/n + 1/256, gamma noise of shape 20", SHORT, _floor, 1.0, "floor", gamma_20, 16),
    Planted("n^-1.5, from 512 on n^-1, gamma noise", LONG, _broken, 1.0, "broken", chi_square, 32),
    Planted("one run, 20 points, 10 % noise", _MANY, _slow, 0.7, "power", log_normal(0.1), 1),
    Planted(
        "one run, 20 points, 3 to 30 % noise", _MANY, _slow, 0.7, "power", log_normal(np.geomspace(0.03, 0.3, 20)), 1
    ),
    Planted("one run, 20 points, log-t noise", _MANY, _slow, 0.7, "power", log_t, 1),
    Planted("one run, 1.69 + 406 n^-.34, 0.3 %", _LAW, _loss, 0.34, "floor", log_normal(0.003), 1),
]


class Scores(NamedTuple):
    """The scores of one row, each (methods, curves): whether the interval covers the exponent, NaN for a method without
    intervals; its width; |log(forecast / mean)|, infinite if the forecast is not positive; seconds."""

    hit: np.ndarray
    width: np.ndarray
    error: np.ndarray
    seconds: np.ndarray


def play(row: int, seed: int, curves: int) -> Scores:
    """All methods on `curves` curves of one row."""
    planted, rng = ROWS[row], np.random.default_rng(seed)
    n, ahead = planted.n, AHEAD * planted.n[-1]
    # Mean risks include the mean of the noise. The noise of single runs has a mean close to 1 that may depend on n.
    scale = planted.noise(np.random.default_rng(0), len(n), 100_000).mean() if planted.seeds > 1 else 1.0
    hit, width, error, seconds = np.full((4, len(METHODS), curves), np.nan)
    for j in range(curves):
        risks = planted.mean(n)[:, None] * planted.noise(rng, len(n), planted.seeds)
        for i, name in enumerate(METHODS):
            start = time.perf_counter()
            found = run(name, n, risks, planted.model, rng)
            seconds[i, j] = time.perf_counter() - start
            error[i, j] = np.inf
            if found is None:
                hit[i, j], width[i, j] = 0.0, np.inf
                continue
            predicted = found.predict(ahead)
            if predicted > 0:
                error[i, j] = abs(np.log(predicted / (scale * planted.mean(ahead))))
            if found.interval is not None:
                low, high = found.interval
                hit[i, j], width[i, j] = low <= planted.exponent <= high, high - low
    return Scores(hit, width, error, seconds)


def covering(hit: np.ndarray) -> np.ndarray:
    """Which methods (methods,) cover: the exact interval of their share of hits meets `COVERS`."""
    ends = [None if np.isnan(one).all() else rates.share(one).interval for one in hit]
    return np.array([one is not None and one[0] <= COVERS[1] and one[1] >= COVERS[0] for one in ends])


def relative_widths(scores: Scores) -> np.ndarray:
    """Median widths (methods,), divided by the least of those that cover; NaN if no method covers, or for a method without
    intervals."""
    median = np.median(scores.width, axis=1)
    least = np.min(median[covering(scores.hit) & np.isfinite(median)], initial=np.inf)
    return median / least if np.isfinite(least) else np.full(len(median), np.nan)


def verdict(scores: Scores) -> str:
    """Why tsjax misses the goal in a row; empty if it does not."""
    mine = list(METHODS).index("tsjax")
    if not covering(scores.hit)[mine]:
        others = [name for name, covers in zip(METHODS, covering(scores.hit), strict=True) if covers]
        return f"covers {100 * scores.hit[mine].mean():.1f} %; covering: {', '.join(others) or 'none'}"
    relative = relative_widths(scores)
    if not relative[mine] <= WIDTH:
        narrowest = int(np.nanargmin(np.where(covering(scores.hit), relative, np.nan)))
        return f"is {relative[mine]:.2f} times as wide as {list(METHODS)[narrowest]}"
    return ""


def _table(title: str, rows: list[Planted], cells: list[list[str]]) -> None:
    print(f"{title}\n\n| planted | {' | '.join(METHODS)} |\n|---|{'---|' * len(METHODS)}")
    for planted, row in zip(rows, cells, strict=True):
        print(f"| {planted.what}{'' if planted.seeds == 1 else f', {planted.seeds} seeds'} | {' | '.join(row)} |")
    print(flush=True)


def _covered(scores: Scores) -> list[str]:
    cells = []
    for hit, covers, width in zip(scores.hit, covering(scores.hit), relative_widths(scores), strict=True):
        if np.isnan(hit).all():
            cells.append("–")
            continue
        shown = "open" if np.isinf(width) else "–" if np.isnan(width) else f"{width:.2f}"
        cells.append(f"{'**' if covers else ''}{100 * hit.mean():.1f}{'**' if covers else ''} ({shown})")
    return cells


def main(arguments: list[str]) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks league", description="Intervals of exponents, compared."
    )
    parser.add_argument("--curves", type=int, default=80, help="synthetic curves of each row (80)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulations (0)")
    parser.add_argument("--processes", type=int, default=2, help="side by side (2)")
    parser.add_argument("--row", type=int, choices=range(len(ROWS)), help="one row alone")
    options = parser.parse_args(arguments)
    chosen = [i for i in range(len(ROWS)) if options.row in (None, i)]
    rows, table = [ROWS[i] for i in chosen], list[Scores]()
    sizes = np.diff(np.linspace(0, options.curves, options.processes + 1).astype(int)).tolist()
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        for i in chosen:
            streams = np.random.SeedSequence([options.seed, i]).spawn(options.processes)
            parts = pool.map(partial(play, i), [int(one.generate_state(1)[0]) for one in streams], sizes)
            table.append(Scores(*(np.concatenate(part, axis=1) for part in zip(*parts, strict=True))))
    per_cent = lambda values: "–" if np.isinf(values) else f"{100 * values:.1f}"
    _table(
        f"Coverage in % of 95 % intervals of the exponent, {options.curves} curves a row (bold: 93 to 97 within simulation "
        "error), and median width relative to the narrowest that covers",
        rows,
        [_covered(scores) for scores in table],
    )
    _table(
        "Median error in % of the mean risk forecast at 4 times the largest n",
        rows,
        [[per_cent(np.expm1(np.median(error))) for error in scores.error] for scores in table],
    )
    _table("Milliseconds a curve", rows, [[f"{1e3 * s.mean():.1f}" for s in scores.seconds] for scores in table])
    reasons = {planted.what: verdict(scores) for planted, scores in zip(rows, table, strict=True)}
    won = sum(not reason for reason in reasons.values())
    print(
        f"tsjax covers at no more than {WIDTH:g} times the width of the narrowest that covers in {won} of {len(rows)} rows."
    )
    for what, reason in reasons.items():
        if reason:
            print(f"- {what}: tsjax {reason}.")
