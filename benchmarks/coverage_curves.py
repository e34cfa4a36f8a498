"""Coverage of exponents of curved models, from one run at every n, and of joint fits: rows of `python -m benchmarks coverage`.

A case draws a curve and fits it. An exponent that is not identified has an interval with an infinite end, and is also counted
separately. The goal, set before the run: the intervals of all curves cover 93 to 97 %.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tsjax import rates

SHORT, LONG = 2.0 ** np.arange(5, 13), 2.0 ** np.arange(5, 15)
_U = np.log(LONG)
DRAWS = 600


class Case(NamedTuple):
    """A row: what is planted, how it is fitted, the number of seeds, and a function that simulates one fit and says whether its
    interval covers."""

    what: str
    fit: str
    seeds: int
    once: Callable[[np.random.Generator], tuple[bool, bool]]


def _found(rate: rates.Rate, truth: float) -> tuple[bool, bool]:
    return rate.interval[0] <= truth <= rate.interval[1], rate.identified


def seeded(what: str, model: str, n: np.ndarray, curve: np.ndarray, truth: float, shape: float, seeds: int) -> Case:
    """Gamma noise of this shape on every risk."""

    def once(rng):
        risks = curve[:, None] * rng.gamma(shape, size=(len(n), seeds)) / shape
        return _found(rates.fit_rate(n, risks, model=model, draws=DRAWS), truth)

    return Case(what, model, seeds, once)


def _broken(at: float, change: float = 0.5) -> np.ndarray:
    return np.exp(-_U - change * 0.5 * np.logaddexp(0.0, (np.log(at) - _U) / 0.5))


CURVED = [
    seeded("n^-0.6 + floor of half the last risk", "floor", LONG, LONG**-0.6 + LONG[-1] ** -0.6, 0.6, 7.5, 32),
    seeded("1/n + 1/256, n = 32..4096", "floor", SHORT, 1 / SHORT + 1 / 256, 1.0, 20, 16),
    seeded("1/n + 1/64: floor reached", "floor", SHORT, 1 / SHORT + 1 / 64, 1.0, 20, 16),
    seeded("0.5 + 20/n", "floor", SHORT, 0.5 + 20 / SHORT, 1.0, 20, 16),
    seeded("0.5 + 2/n: almost flat", "floor", SHORT, 0.5 + 2 / SHORT, 1.0, 20, 16),
    seeded("(1 + 60/n)/n", "finite", LONG, (1 + 60 / LONG) / LONG, 1.0, 7.5, 32),
    seeded("1/n: no factor", "finite", LONG, 1 / LONG, 1.0, 7.5, 32),
    seeded("(1 + 2000/n)/n: asymptotic only at the end", "finite", LONG, (1 + 2000 / LONG) / LONG, 1.0, 7.5, 16),
    seeded("n^-1.5, from 512 on n^-1", "broken", LONG, _broken(512.0), 1.0, 7.5, 32),
    seeded("n^-1.15, from 512 on n^-1", "broken", LONG, _broken(512.0, 0.15), 1.0, 7.5, 16),
    seeded("n^-1.5, from 4096 on n^-1: two n after it", "broken", LONG, _broken(4096.0), 1.0, 7.5, 32),
    seeded("1/n: no break", "broken", LONG, 1 / LONG, 1.0, 7.5, 32),
    seeded("log n / n", "log", LONG, _U / LONG, 1.0, 7.5, 16),
    seeded("(log n)^3 / n", "logq", LONG, _U**3 / LONG, 1.0, 7.5, 16),
]


def one_run(
    what: str, model: str, n: np.ndarray, log_y: np.ndarray, truth: float, error: Callable, **options: Any
) -> Case:
    """One run at every n, with `error(rng)` (k,) added to log risk."""

    def once(rng):
        risks = np.exp(log_y + error(rng))[:, None]
        return _found(rates.fit_rate(n, risks, model=model, draws=DRAWS, **options), truth)

    kind = options.get("errors", "residuals")
    return Case(what, f"{model}, {options.get('method', 'wls')}, {kind}", 1, once)


def _gaussian(k: int, sd: float | np.ndarray) -> Callable:
    return lambda rng: sd * rng.normal(size=k)


def _student(k: int, sd: float) -> Callable:
    return lambda rng: sd * rng.standard_t(2.5, size=k)


_FEW, _MANY = np.logspace(2, 5, 8), np.logspace(2, 5, 20)
_LAW = np.logspace(7, 10.5, 20)
_GROWING = np.geomspace(0.03, 0.3, 20)
ONE_RUN = [
    one_run("8 points, 10 % noise", "power", _FEW, -0.7 * np.log(_FEW), 0.7, _gaussian(8, 0.1)),
    one_run("8 points, 10 % noise", "power", _FEW, -0.7 * np.log(_FEW), 0.7, _gaussian(8, 0.1), errors="wild"),
    one_run("20 points, 10 % noise", "power", _MANY, -0.7 * np.log(_MANY), 0.7, _gaussian(20, 0.1)),
    one_run("20 points, noise from 3 to 30 %", "power", _MANY, -0.7 * np.log(_MANY), 0.7, _gaussian(20, _GROWING)),
    one_run(
        "20 points, noise from 3 to 30 %",
        "power",
        _MANY,
        -0.7 * np.log(_MANY),
        0.7,
        _gaussian(20, _GROWING),
        errors="wild",
    ),
    one_run("20 points, t_2.5 noise", "power", _MANY, -0.7 * np.log(_MANY), 0.7, _student(20, 0.05)),
    one_run(
        "20 points, t_2.5 noise",
        "power",
        _MANY,
        -0.7 * np.log(_MANY),
        0.7,
        _student(20, 0.05),
        method=rates.Huber(0.05),
    ),
    one_run("1.69 + 406 N^-.34, 0.3 %", "floor", _LAW, np.log(1.69 + 406.4 * _LAW**-0.34), 0.34, _gaussian(20, 0.003)),
    one_run(
        "1.69 + 406 N^-.34, 0.3 %",
        "floor",
        _LAW,
        np.log(1.69 + 406.4 * _LAW**-0.34),
        0.34,
        _gaussian(20, 0.003),
        errors="wild",
    ),
    one_run("1.69 + 406 N^-.34, 3 %", "floor", _LAW, np.log(1.69 + 406.4 * _LAW**-0.34), 0.34, _gaussian(20, 0.03)),
    one_run(
        "(1 + 500/n)/n, 20 points, 5 %", "finite", _MANY, np.log((1 + 500 / _MANY) / _MANY), 1.0, _gaussian(20, 0.05)
    ),
]

_AXES = {"n": np.repeat(SHORT[::2], 4), "d": np.tile([4.0, 8.0, 16.0, 32.0], 4)}


def joint(what: str, seeds: int) -> Case:
    """The exponent of n in n^-1 d^1.5 on a grid of 4 x 4."""

    def once(rng):
        curve = _AXES["n"] ** -1.0 * _AXES["d"] ** 1.5
        risks = curve[:, None] * rng.chisquare(15, (16, seeds)) / 15
        low, high = rates.fit_joint_rate(_AXES, risks, draws=DRAWS).exponents["n"].interval
        return low <= 1.0 <= high, True

    return Case(what, "joint", seeds, once)


JOINT = [joint("n^-1 d^1.5 on 4 x 4 points", seeds) for seeds in (1, 8, 32)]
# A new table takes one line here: its name on the command line, its title, its rows.
TABLES: dict[str, tuple[str, list[Case]]] = {
    "curved": ("Exponents of curved models", CURVED),
    "one_run": ("Exponents from one run at every n", ONE_RUN),
    "joint": ("Exponents of joint fits", JOINT),
}


def cover_case(table: str, row: int, seed: int, curves: int) -> Counter:
    """Hits, exponents that are not identified, and hits among those that are."""
    rng, found = np.random.default_rng(seed), Counter()
    for _ in range(curves):
        hit, identified = TABLES[table][1][row].once(rng)
        found["hit"] += hit
        found["open"] += not identified
        found["hit identified"] += hit and identified
    return found


def rejected(seeds: int, sum_of_powers: bool, seed: int, curves: int) -> int:
    """How often a joint fit rejects a product of powers, for n^-1 d^-1 or n^-1 + d^-1."""
    rng, found = np.random.default_rng(seed), 0
    n, d = _AXES["n"] / 32.0, _AXES["d"] / 4.0
    curve = 1 / n + 1 / d if sum_of_powers else 1 / n / d
    for _ in range(curves):
        risks = curve[:, None] * rng.chisquare(15, (16, seeds)) / 15
        found += rates.fit_joint_rate(_AXES, risks, draws=DRAWS).goodness < 0.05
    return found


def share_with_interval(count: int, total: int) -> str:
    """A percentage with the exact 95 % interval of the simulation, as in `94.5 [93.1, 95.8]`."""
    if total == 0:
        return "–"
    estimate = rates.share(np.arange(total) < count)
    low, high = estimate.interval
    return f"{100 * estimate.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def print_table(part: str, halves: Callable, seed: int, curves: int) -> None:
    """Prints one of `TABLES`. `halves(function, seed, curves)` calls function(seed, curves) for two halves of the curves."""
    title, cases = TABLES[part]
    print(f"{title}: coverage in % of nominal 95 % intervals, {curves} curves each, with 95 % intervals\n")
    print("| planted | fitted | seeds | covered | not identified | covered where identified |")
    print("|---|---|---|---|---|---|")
    for row, case in enumerate(cases):
        stream = seed + 500 + 100 * list(TABLES).index(part) + row
        found = sum(halves(partial(cover_case, part, row), stream, curves), Counter())
        known = share_with_interval(found["hit identified"], curves - found["open"]) if found["open"] else "all are"
        covered, unknown = share_with_interval(found["hit"], curves), f"{100 * found['open'] / curves:.1f}"
        print(f"| {case.what} | {case.fit} | {case.seeds} | {covered} | {unknown} | {known} |", flush=True)
    print()


def print_rejections(halves: Callable, seed: int, curves: int) -> None:
    """Prints how often the product law is rejected where it holds, and where it does not."""
    print(
        f"Product law rejected at level 5 % by a joint fit, in % of {curves}\n\n| planted | 1 seed | 8 seeds |\n|---|---|---|"
    )
    for law in (False, True):
        counts = [sum(halves(partial(rejected, seeds, law), seed + 900 + seeds, curves)) for seeds in (1, 8)]
        cells = " | ".join(share_with_interval(count, curves) for count in counts)
        print(f"| {'1/n + 1/d' if law else '1/(n d)'} | {cells} |", flush=True)
    print()
