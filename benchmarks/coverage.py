"""Do the intervals, model choices and tests of `tsjax.rates` have their nominal error? `uv run python -m benchmarks coverage`

It simulates risk curves with planted exponents, from fixed seeds, and prints Markdown tables. It takes about 25 minutes on two
cores; `--curves 200` gives rough figures in three.

- coverage of nominal 95 % intervals, by the three kinds of interval, for several laws of the seeds' noise;
- coverage of differences and ratios of exponents, crossings, forecasts, simultaneous intervals, and chosen windows;
- coverage of curved models, up to curves that the data barely identify, of one run at every n, and of joint fits
  (`benchmarks/coverage_curves.py`);
- coverage and width of ratios of mean risks, down to 4 seeds;
- how often the planted model is chosen, and how often a false equivalence or superiority is claimed;
- seconds for 1000 curves of 2000 resamples each, in two processes;
- seeds, half-widths and coverage of sweeps that stop at a precision (`benchmarks/stopped.py`).
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from tsjax import rates

from .coverage_curves import TABLES, print_rejections, print_table
from .stopped import print_stopped

# Sample sizes 512 to 16384, in octaves.
N = 2.0 ** np.arange(9, 15)
FREEDOM = 15  # m d of the students with (d, m) = (5, 3)
FAILED = 100.0  # the risk of a failed student relative to the others


def gaussian(rng, k, seeds):
    """Log-normal risks."""
    return np.exp(0.5 * rng.normal(size=(k, seeds)))


def chi_square(rng, k, seeds):
    """The noise of efficient students: chi-square risks."""
    return rng.chisquare(FREEDOM, (k, seeds)) / FREEDOM


def failed_cells(rng, k, seeds):
    """2 % of the cells failed, each on its own."""
    return chi_square(rng, k, seeds) * np.where(rng.random((k, seeds)) < 0.02, FAILED, 1.0)


def failed_seeds(rng, k, seeds):
    """2 % of the seeds failed, at every n."""
    return chi_square(rng, k, seeds) * np.where(rng.random(seeds) < 0.02, FAILED, 1.0)


def shared(rng, k, seeds):
    """A paired design: half of the log-variance is that of the seed."""
    return np.exp(0.35 * (rng.normal(size=seeds) + rng.normal(size=(k, seeds))))


def nested(rng, k, seeds):
    """Fewer seeds at larger n: all, all, 3/4, 1/2, 1/4, 1/8."""
    risks = chi_square(rng, k, seeds)
    for i, share in enumerate((1.0, 1.0, 0.75, 0.5, 0.25, 0.125)):
        risks[i, int(share * seeds) :] = np.nan
    return risks


def scattered(rng, k, seeds):
    """15 % of the cells are missing."""
    risks = chi_square(rng, k, seeds)
    return np.where(rng.random(risks.shape) < 0.15, np.nan, risks)


COVERAGE: list[tuple[str, Callable, int, bool]] = [
    ("Gaussian log-noise, s.d. 0.5", gaussian, 8, True),
    ("Gaussian log-noise, s.d. 0.5", gaussian, 16, True),
    ("Gaussian log-noise, s.d. 0.5", gaussian, 64, True),
    ("chi-square, 15 degrees of freedom", chi_square, 8, True),
    ("chi-square, 15 degrees of freedom", chi_square, 32, True),
    ("chi-square, resampled unpaired", chi_square, 32, False),
    ("2 % of cells 100 times larger", failed_cells, 32, True),
    ("2 % of seeds 100 times larger", failed_seeds, 32, True),
    ("unequal seeds: 64, 64, 48, 32, 16, 8", nested, 64, True),
    ("unequal seeds: 15 % missing at random", scattered, 32, True),
    ("paired: half the log-variance is the seed's", shared, 16, True),
    ("paired: half the log-variance is the seed's", shared, 64, True),
]


def _inside(interval: tuple[float, float], value: float) -> bool:
    return interval[0] <= value <= interval[1]


def cover(case: tuple[str, Callable, int, bool], seed: int, curves: int) -> dict[str, float]:
    """Hits of each kind of interval, and misses with and without a warning about heavy tails."""
    _, noise, seeds, paired = case
    rng, found, width = np.random.default_rng(seed), Counter(), 0.0
    for _ in range(curves):
        rate = rates.fit_rate(N, noise(rng, len(N), seeds) / N[:, None], paired=paired)
        hit = _inside(rate.interval, 1.0)
        found["expanded"] += hit
        found["warned misses"] += not hit and rate.heavy_tail
        found["unwarned misses"] += not hit and not rate.heavy_tail
        found["tails"] += rate.heavy_tail
        for kind in ("bca", "delta"):
            found[kind] += _inside(rate.interval_at(kind=kind), 1.0)
        width += rate.interval[1] - rate.interval[0]
    return {**found, "width": width}


def _pair(rng, seeds: int, slow: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Two learners on the same data: half of the log-variance is shared by them cell by cell."""
    common = 0.3 * rng.normal(size=(len(N), seeds))
    own = [0.3 * rng.normal(size=common.shape) for _ in range(2)]
    return np.exp(common + own[0]) / N[:, None], np.exp(common + own[1]) * N[:, None] ** -slow


def difference(rng) -> bool:
    """Whether the interval of the difference of two exponents covers, paired."""
    return _inside(rates.compare_rates(N, *_pair(rng, 32)).interval, 0.5)


def ratio(rng) -> bool:
    """Whether the interval of the ratio of two exponents covers, paired."""
    a, b = (rates.fit_rate(N, risks) for risks in _pair(rng, 32))
    return _inside(a.over(b).interval, 2.0)


def crossing(rng) -> bool:
    """Whether the interval of a crossing at n = 4096 covers."""
    a, b = _pair(rng, 32)
    return _inside(rates.crossing(N, a * 4096.0**0.5, b).interval, 4096.0)


def forecast(rng) -> bool:
    """Whether the forecast of the mean of 32 new seeds at the largest n, from the smaller n, covers."""
    return rates.score_forecast(N, chi_square(rng, len(N), 32) / N[:, None])[0].inside


def simultaneous(rng) -> bool:
    """Whether the intervals of five exponents from the same data all cover."""
    common = 0.3 * rng.normal(size=(len(N), 32))
    tables = {str(i): np.exp(common + 0.3 * rng.normal(size=common.shape)) / N[:, None] for i in range(5)}
    found = rates.simultaneous({name: rates.fit_rate(N, risks) for name, risks in tables.items()})
    return all(_inside(estimate.interval, 1.0) for estimate in found.values())


def hierarchical(rng) -> bool:
    """16 teachers with 4 data sets each: half of the log-variance belongs to the teacher, independently at every n."""
    teacher = np.repeat(rng.normal(size=(len(N), 16)), 4, axis=1)
    risks = np.exp(0.3 * (teacher + rng.normal(size=teacher.shape))) / N[:, None]
    return _inside(rates.fit_rate(N, risks, groups=np.repeat(np.arange(16), 4)).interval, 1.0)


def flat(rng) -> bool:
    """The same, resampled as if all data sets were independent, for comparison; these intervals are too narrow."""
    teacher = np.repeat(rng.normal(size=(len(N), 16)), 4, axis=1)
    risks = np.exp(0.3 * (teacher + rng.normal(size=teacher.shape))) / N[:, None]
    return _inside(rates.fit_rate(N, risks).interval, 1.0)


def window(rng) -> bool:
    """The exponent on the chosen window, for risk (1 + 60/n) / n on n = 32..16384; the truth is 1."""
    n = 2.0 ** np.arange(5, 15)
    risks = chi_square(rng, len(n), 32) * ((1.0 + 60.0 / n) / n)[:, None]
    return _inside(rates.choose_window(n, risks).rate.interval, 1.0)


def with_factor(rng) -> bool:
    """The exponent by the model with a finite-sample factor, on the same curve."""
    n = 2.0 ** np.arange(5, 15)
    risks = chi_square(rng, len(n), 32) * ((1.0 + 60.0 / n) / n)[:, None]
    return _inside(rates.fit_rate(n, risks, model="finite").interval, 1.0)


def with_floor(rng) -> bool:
    """The exponent by the model with a floor, which is half of the risk at the largest n."""
    n = 2.0 ** np.arange(5, 15)
    risks = chi_square(rng, len(n), 32) * (n**-0.6 + n[-1] ** -0.6)[:, None]
    return _inside(rates.fit_rate(n, risks, model="floor").interval, 0.6)


def gamma(rng) -> bool:
    """The exponent by maximum likelihood for gamma risks."""
    return _inside(rates.fit_rate(N, chi_square(rng, len(N), 16) / N[:, None], method="gamma").interval, 1.0)


def student_t(rng) -> bool:
    """The exponent of the typical risk, with 2 % of the cells failed."""
    risks = failed_cells(rng, len(N), 32) / N[:, None]
    return _inside(rates.fit_rate(N, risks, method="student_t", draws=1000).interval, 1.0)


OTHERS: dict[str, Callable] = {
    "difference of exponents, paired, 32 seeds": difference,
    "ratio of exponents, paired, 32 seeds": ratio,
    "crossing, paired, 32 seeds": crossing,
    "forecast of the largest n, 32 seeds": forecast,
    "five exponents simultaneously, 32 seeds": simultaneous,
    "16 teachers of 4 data sets, grouped": hierarchical,
    "16 teachers of 4 data sets, not grouped": flat,
    "window chosen, 32 seeds": window,
    "finite-sample model, 32 seeds": with_factor,
    "floor model, 32 seeds": with_floor,
    "gamma likelihood, 16 seeds": gamma,
    "Student-t likelihood, 2 % of cells failed, 32 seeds": student_t,
}


def cover_other(name: str, seed: int, curves: int) -> int:
    """Hits of one of `OTHERS`."""
    rng = np.random.default_rng(seed)
    return sum(bool(OTHERS[name](rng)) for _ in range(curves))


def heavy(rng, seeds):
    """Log-normal risks with a heavy tail."""
    return np.exp(rng.normal(size=seeds) - 0.5)


def two_kinds(rng, seeds):
    """A quarter of the teachers is easy."""
    return np.where(rng.random(seeds) < 0.25, 0.3, 1.3) / 1.05 * np.exp(0.03 * rng.normal(size=seeds))


def outliers(rng, seeds):
    """5 % of the seeds failed."""
    return np.where(rng.random(seeds) < 0.05, 10.0, 1.0) / 1.45 * np.exp(0.2 * rng.normal(size=seeds) - 0.02)


def paired_chi_square(rng, seeds):
    """Two learners on the same data, which share half of the noise."""
    common = rng.chisquare(FREEDOM, seeds)
    return tuple((common + rng.chisquare(FREEDOM, seeds)) / (2 * FREEDOM) for _ in range(2))


# Laws of mean 1: risks, or pairs of them.
MEANS: dict[str, Callable] = {
    "chi-square, 15 degrees of freedom": lambda rng, seeds: rng.chisquare(FREEDOM, seeds) / FREEDOM,
    "chi-square, of two learners, half shared": paired_chi_square,
    "log-normal, s.d. 1": heavy,
    "two kinds of seeds, 1 : 3": two_kinds,
    "5 % of the seeds 10 times larger": outliers,
}
MEAN_SEEDS = (4, 8, 16, 64)


def cover_mean(name: str, seeds: int, seed: int, curves: int) -> tuple[int, list[float]]:
    """Hits of `mean_ratio`, and its upper ends divided by the lower."""
    rng, hits, widths = np.random.default_rng(seed), 0, []
    for _ in range(curves):
        drawn = MEANS[name](rng, seeds)
        low, high = rates.mean_ratio(*(drawn if isinstance(drawn, tuple) else (drawn, 1.0))).interval
        hits += _inside((low, high), 1.0)
        widths.append(high / low)
    return hits, widths


# Nine n, 1024 seeds of chi-square_15: the standard error of a mean is 1.1 %.
_LONG = 2.0 ** np.arange(5, 14)
_U = np.log(_LONG)
PLANTED = {
    "power": -_U,
    "floor": np.log(_LONG**-0.7 + _LONG[-1] ** -0.7),
    "finite": -_U + np.log1p(150.0 / _LONG),
    "logq": -_U + 3.0 * np.log(_U),
    "broken": -0.5 * _U - 0.5 * 0.5 * np.logaddexp(0.0, (_U - np.log(512.0)) / 0.5),
}
SEEDS_TO_CHOOSE = 1024


def choose(name: str, seed: int, curves: int) -> Counter:
    """Which model is chosen if `name` is planted."""
    rng, found = np.random.default_rng(seed), Counter()
    for _ in range(curves):
        risks = np.exp(PLANTED[name])[:, None] * chi_square(rng, len(_LONG), SEEDS_TO_CHOOSE)
        found[rates.choose_model(_LONG, risks, draws=100).best] += 1
    return found


def claim(kind: str, seed: int, curves: int) -> int:
    """False claims: equivalence to 1 within 0.05 if the exponent is 1.05 or 0.95, and superiority if the exponents agree."""
    rng, false = np.random.default_rng(seed), 0
    for _ in range(curves):
        if kind == "superiority":
            a, b = (rates.fit_rate(N, risks) for risks in _pair(rng, 32, slow=1.0))
            false += rates.superiority(a, b).outcome == "holds"
        else:
            exponent = 1.05 if kind == "above" else 0.95
            rate = rates.fit_rate(N, chi_square(rng, len(N), 64) * N[:, None] ** -exponent)
            false += rates.equivalence(rate, 1.0, 0.05).outcome == "holds"
    return false


def fit_curves(seed: int, curves: int) -> float:
    """Processor seconds for `curves` curves of six n and 64 seeds, with 2000 resamples each."""
    rng = np.random.default_rng(seed)
    tables = [chi_square(rng, len(N), 64) / N[:, None] for _ in range(curves)]
    rates.fit_rate(N, tables[0])
    start = time.process_time()
    for risks in tables:
        rates.fit_rate(N, risks, draws=2000)
    return time.process_time() - start


def _halves(pool, function, seed: int, curves: int) -> list:
    """The function on two halves of the curves, each with a stream of its own."""
    half = [curves // 2, curves - curves // 2]
    streams = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(2)]
    return list(pool.map(function, streams, half))


def main(arguments: list[str]) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks coverage", description="Simulations of tsjax.rates.")
    parser.add_argument("--curves", type=int, default=2000, help="synthetic curves of each line (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulations (0)")
    parser.add_argument(
        "--part",
        choices=["speed", "coverage", "others", *TABLES, "means", "models", "tests", "stopped"],
        help="one table alone",
    )
    options = parser.parse_args(arguments)
    curves, seed = options.curves, options.seed
    wanted = lambda part: options.part in (None, part)
    error = lambda count, total: f"{100 * count / total:.1f}"
    with ProcessPoolExecutor(2) as pool:
        if wanted("speed"):
            _halves(pool, fit_curves, seed, 2)  # Both processes have loaded everything.
            start = time.perf_counter()
            cpu = sum(_halves(pool, fit_curves, seed, 1000))
            print(
                f"1000 curves of 6 n and 64 seeds, 2000 resamples each, in two processes: {time.perf_counter() - start:.1f} s, "
                f"{cpu:.1f} s of the processors\n",
                flush=True,
            )
        if wanted("coverage"):
            print(f"Coverage in % of nominal 95 % intervals, {curves} curves each\n")
            print("| noise | seeds | expanded | BCa | delta | mean width | misses with a heavy-tail warning |")
            print("|---|---|---|---|---|---|---|")
            for i, case in enumerate(COVERAGE):
                parts = _halves(pool, partial(cover, case), seed + i, curves)
                found = {name: sum(part.get(name, 0) for part in parts) for name in set().union(*parts)}
                found = {"warned misses": 0, "unwarned misses": 0, "tails": 0, **found}
                misses = found["warned misses"] + found["unwarned misses"]
                kinds = " | ".join(error(found[kind], curves) for kind in ("expanded", "bca", "delta"))
                tail = f"{found['warned misses']} of {misses}" if found["tails"] else "none"
                print(f"| {case[0]} | {case[2]} | {kinds} | {found['width'] / curves:.3f} | {tail} |", flush=True)
            print()
        if wanted("others"):
            print(f"Coverage in % of other nominal 95 % intervals, {curves} curves each\n")
            print("| what | covered |\n|---|---|")
            for i, name in enumerate(OTHERS):
                hits = sum(_halves(pool, partial(cover_other, name), seed + 100 + i, curves))
                print(f"| {name} | {error(hits, curves)} |", flush=True)
            print()
        halves = partial(_halves, pool)
        for part in filter(wanted, TABLES):
            print_table(part, halves, seed, max(curves // 4, 20))
        if wanted("joint"):
            print_rejections(halves, seed, curves)
        if wanted("means"):
            print(
                f"Ratios of mean risks, {curves} each: coverage in %; upper by lower end, median and 95th percentile\n"
            )
            print(f"| law | {' | '.join(f'{seeds} seeds' for seeds in MEAN_SEEDS)} |\n|---|{'---|' * len(MEAN_SEEDS)}")
            for i, name in enumerate(MEANS):
                row = []
                for seeds in MEAN_SEEDS:
                    parts = _halves(pool, partial(cover_mean, name, seeds), seed + 400 + i, curves)
                    hits, widths = sum(part[0] for part in parts), sum((part[1] for part in parts), [])
                    middle, wide = np.quantile(widths, [0.5, 0.95])
                    row.append(f"{error(hits, curves)}, {middle:.3g}, {wide:.3g}")
                print(f"| {name} | {' | '.join(row)} |", flush=True)
            print()
        if wanted("models"):
            total = max(curves // 4, 20)
            print(f"Model chosen, in % of {total} curves ({SEEDS_TO_CHOOSE} seeds at n = 32..8192)\n")
            print(f"| planted | {' | '.join(PLANTED)} |\n|---|{'---|' * len(PLANTED)}")
            for i, name in enumerate(PLANTED):
                found = sum(_halves(pool, partial(choose, name), seed + 200 + i, total), Counter())
                print(f"| {name} | {' | '.join(error(found[other], total) for other in PLANTED)} |", flush=True)
            print()
        if wanted("tests"):
            total = 5 * curves
            print(f"False claims in % of {total} curves, nominal 5 %\n\n| test | false claims |\n|---|---|")
            for i, kind in enumerate(("above", "below", "superiority")):
                false = sum(_halves(pool, partial(claim, kind), seed + 300 + i, total))
                label = kind if kind == "superiority" else f"equivalence, exponent at the {kind} end"
                print(f"| {label} | {error(false, total)} |", flush=True)
        if wanted("stopped"):
            print_stopped(partial(_halves, pool), seed, max(curves // 4, 20))
