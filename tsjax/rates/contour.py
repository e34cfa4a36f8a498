"""Contours of a metric over two numbers: how the place where a mean passes a level moves with an argument."""

import numpy as np

from .diagnostics import few_seeds_warning
from .intervals import Estimate, expanded_percentiles, last_fall
from .table import Numbers, Resamples, as_array, check_not_infinite, check_options, check_positive, short


def contour(
    argument: Numbers,
    x: Numbers,
    values: Numbers,
    height: float,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The exponent gamma of x* ~ argument^gamma, where x*(argument) is the x at which the mean of a metric passes `height`.

    Between measured x the mean is interpolated linearly in log x, and x* is where it passes the height for the last time, so no
    curve needs to be a power law. gamma is the least-squares slope of log x* on log argument. The interval (expanded
    percentiles, as in `fit_rate`) comes from resamples of seeds, where a seed keeps all its arguments and x. A resample in
    which some mean does not pass the height has no gamma; it counts as infinite on both sides.

    Another height may have another gamma.

    **Arguments:**

    - `argument`: (q,) positive, increasing; one value for each curve.
    - `x`: (k,) positive, increasing.
    - `values`: (q, k, seeds): the metric of curve i at x_j, NaN where missing. An x that a curve lacks at every seed is left
      out of that curve.
    - `height`: the value of the metric on the contour.
    - `level`, `draws`, `seed`: as in `fit_rate`.

    **Raises:** ValueError for shapes that do not fit, fewer than two arguments, and a curve whose mean does not pass the height
    between its first and last x.

    >>> rng, d = np.random.default_rng(0), np.array([100.0, 300.0, 900.0])
    >>> mu = np.array([1.0, 1.5, 2.0, 3.0, 4.0])
    >>> error = 1 / (1 + mu**4 / d[:, None] * 10)
    >>> print(ts.contour(d, mu, error[..., None] + 0.01 * rng.normal(size=(3, 5, 32)), 0.5))
    0.2519 [0.2496, 0.2542]
    """
    check_options(level, draws)
    places, along, table = as_array(argument, "argument"), as_array(x, "x"), as_array(values, "values")
    if table.ndim != 3 or table.shape[:2] != (*places.shape, *along.shape) or not table.shape[2]:
        raise ValueError(
            f"values have shape (q, k, seeds) for an argument (q,) and x (k,), got {table.shape} for {places.shape} and "
            f"{along.shape}."
        )
    for name, one in (("argument", places), ("x", along)):
        check_positive(one, name, "A contour is a line in logarithms.")
        if len(one) < 2 or not (np.diff(one) > 0).all():
            raise ValueError(f"{name} needs two values or more, increasing; got {[float(v) for v in one]}.")
    check_not_infinite(table, "values")
    there = ~np.isnan(table)
    size = int(there.any(axis=(0, 1)).sum())
    u = np.log(places) - np.log(places).mean()
    weights, all_seeds = u / (u @ u), np.ones((1, table.shape[2]))
    curves = []
    for place, one in zip(places, table, strict=True):
        rows = np.flatnonzero((~np.isnan(one)).any(axis=1))
        ends = _means(one[rows], all_seeds)[0, [0, -1]] if len(rows) else np.full(2, np.nan)
        side = np.sign(ends - height)
        if not side[0] * side[1] < 0:
            raise ValueError(
                f"the mean does not pass {short(height)} where the argument is {short(place)}: at its first and last x it is "
                f"{short(ends[0])} and {short(ends[1])}. Give x on both sides of the contour, or another height."
            )
        curves.append((np.log(along[rows]), one[rows], float(side[0])))
    value = float(_slopes(curves, weights, height, all_seeds)[0])
    (found,) = Resamples(table.shape[2], draws, seed).each(lambda counts: (_slopes(curves, weights, height, counts),))
    # A resample without a slope counts as infinite on both sides.
    unknown = np.isnan(found)
    found = np.concatenate([found[~unknown], *(np.full(unknown.sum(), end) for end in (-np.inf, np.inf))])
    interval, _ = expanded_percentiles(found, value, size, level)
    return Estimate(value, interval, float(level), tuple(few_seeds_warning(size)))


def _means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The means (draws, k) of values (k, seeds), NaN where missing, in resamples given by multiplicities (draws, seeds)."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return counts @ np.where(there, values, 0.0).T / (counts @ there.T)


def _slopes(
    curves: list[tuple[np.ndarray, np.ndarray, float]], weights: np.ndarray, height: float, counts: np.ndarray
) -> np.ndarray:
    """The slope of log x* in every resample; `curves` are (log x, values, sign of the first mean minus the height)."""
    passed = [last_fall(u, sign * (_means(values, counts) - height)) for u, values, sign in curves]
    with np.errstate(invalid="ignore"):
        return weights @ np.array(passed)
