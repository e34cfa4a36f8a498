"""Coverage of the expected error by learning curves from one data set, under four assumptions about what splits share.

Data are drawn from a known law, an estimator is fitted to nested subsamples of 20 splits, and the interval of the mean error is
compared with the expected error over data sets, which is exact for least squares and comes from 3000 fresh data sets for the
others. The rule, set before the run, chooses the assumption of least width whose nominal 95 % intervals for the mean error
cover at least 92 % in every row. `tsjax.sklearn.RateDisplay` uses that assumption.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tsjax import rates
from tsjax.rates.intervals import student_quantile

ROWS, SPLITS, SIZES, FOLDS = 200, 20, 8, 5
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


class Learner(NamedTuple):
    """A law of data, and the error of a fit to some rows on other rows."""

    draw: Draw
    error: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]


def _linear(rng, n, d=5):
    x = rng.normal(size=(n, d))
    return x, x @ np.ones(d) / np.sqrt(d) + rng.normal(size=n)


def _least_squares(x, y, test_x, test_y):
    return float(np.mean((test_y - test_x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2))


def _two_clouds(rng, n, d=8):
    y = rng.random(n) < 0.5
    return rng.normal(size=(n, d)) + np.where(y, 0.5, -0.5)[:, None], y


def _nearest_mean(x, y, test_x, test_y):
    # After a sample with one class only, the prediction is that class.
    if y.all() or not y.any():
        return float(np.mean(test_y != y[0]))
    high, low = x[y].mean(axis=0), x[~y].mean(axis=0)
    return float(np.mean(((test_x - (high + low) / 2) @ (high - low) > 0) != test_y))


def _wave(rng, n, d=3):
    x = rng.uniform(size=(n, d))
    side = np.sin(6 * x[:, 0]) + x[:, 1] - 0.5 > 0
    return x, np.where(rng.random(n) < 0.05, ~side, side)


def _nearest_neighbour(x, y, test_x, test_y):
    distances = ((test_x[:, None] - x[None]) ** 2).sum(axis=-1)
    return float(np.mean(y[distances.argmin(axis=1)] != test_y))


LEARNERS = {
    "least squares": Learner(_linear, _least_squares),
    "nearest mean": Learner(_two_clouds, _nearest_mean),
    "nearest neighbour": Learner(_wave, _nearest_neighbour),
}


def _expected(name: str, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if name == "least squares":
        return 1.0 + 5.0 / (sizes - 6.0)
    learner = LEARNERS[name]

    def fresh(n: int) -> float:
        x, y = learner.draw(rng, n + ROWS)
        return learner.error(x[:n], y[:n], x[n:], y[n:])

    return np.array([np.mean([fresh(n) for _ in range(3000)]) for n in sizes])


def _random_splits(rng: np.random.Generator, folds: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for _ in range(SPLITS // FOLDS if folds else SPLITS):
        order = rng.permutation(ROWS)
        held = np.array_split(order, FOLDS) if folds else [order[: ROWS // 4]]
        for test in held:
            yield rng.permutation(np.setdiff1d(order, test)), test


def _shared(member: np.ndarray) -> float:
    common = member.astype(float) @ member.T
    return float((common.sum() - np.trace(common)) / (len(member) - 1) / np.trace(common))


def _members(sets: list[np.ndarray]) -> np.ndarray:
    return np.array([np.isin(np.arange(ROWS), rows) for rows in sets])


IDEAS: dict[str, Callable[[np.ndarray, float], Any]] = {
    "independent": lambda train, test: 0.0 * train,
    "held-out rows": lambda train, test: 0.0 * train + test,
    "mean of both": lambda train, test: (train + test) / 2.0,
    "larger of both": lambda train, test: np.maximum(train, test),
}


def main(arguments: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks splits", description=__doc__)
    parser.add_argument("--datasets", type=int, default=200, help="data sets of each row (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (0)")
    options = parser.parse_args(arguments)
    print(
        "| learner | splits | rho | first n | middle n | last n | exponent | half-width at last n | width of exponent |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    reach = student_quantile(SPLITS, 0.95)
    for name, learner in LEARNERS.items():
        for folds in (False, True):
            rng = np.random.default_rng(options.seed)
            largest = ROWS - (ROWS // FOLDS if folds else ROWS // 4)
            sizes = np.unique(np.geomspace(12, largest, SIZES).astype(int))
            expected = _expected(name, sizes, rng)
            hits, widths = ({idea: np.zeros(size) for idea in IDEAS} for size in (4, 2))
            for _ in range(options.datasets):
                x, y = learner.draw(rng, ROWS)
                splits = list(_random_splits(rng, folds))
                errors = np.array([[learner.error(x[a[:n]], y[a[:n]], x[b], y[b]) for a, b in splits] for n in sizes])
                test = _shared(_members([b for _, b in splits]))
                train = np.array([_shared(_members([a[:n] for a, _ in splits])) for n in sizes])
                for idea, rho_of in IDEAS.items():
                    rho = rho_of(train, test)
                    factor, mean = np.sqrt(1 + SPLITS * rho / (1 - rho)), errors.mean(axis=1, keepdims=True)
                    rate = rates.fit_rate(sizes, mean + factor[:, None] * (errors - mean), draws=500)
                    inside = np.abs(rate.mean_risk - expected) <= reach * rate.mean_se
                    low, high = rate.interval
                    hits[idea] += [*inside[[0, SIZES // 2, -1]], low <= rate.slope_of(expected) <= high]
                    widths[idea] += [reach * rate.mean_se[-1], high - low]
            for idea in IDEAS:
                covered = " | ".join(f"{100 * hit / options.datasets:.1f}" for hit in hits[idea])
                width = " | ".join(f"{value / options.datasets:.3g}" for value in widths[idea])
                kind = f"{FOLDS} folds, {SPLITS // FOLDS} times" if folds else f"{SPLITS} random"
                print(f"| {name} | {kind} | {idea} | {covered} | {width} |", flush=True)
