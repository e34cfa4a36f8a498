"""How well a number orders a metric, by Spearman's rank correlation over all runs; and how exponents depend on an argument."""

from collections.abc import Sequence

import numpy as np

from .diagnostics import few_seeds_warning
from .intervals import Estimate, expanded_percentiles
from .rate import Rate
from .table import Numbers, Resamples, as_array, check_options

# The most runs, over all resamples, that are ranked at once.
_BLOCK = 2**22


def trend(
    z: Numbers,
    values: Numbers,
    *,
    rival: Numbers | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Spearman's rank correlation r of a metric with z, over all runs. With `rival`, |r| with z minus |r| with the rival.

    The interval (expanded percentiles, as in `fit_rate`) comes from resamples of seeds, where a seed keeps all its places,
    since runs of one seed may share a teacher or data. With one seed it is that of Bonett & Wright (Psychometrika 65, 2000),
    tanh(artanh r +- z sqrt((1 + r^2/2) / (k - 3))), which assumes that the k places are independent.

    **Arguments:**

    - `z`: (k,): the number at every place; a place is a combination of arguments.
    - `values`: (k, seeds), NaN where missing.
    - `rival`: (k,): another number; then the result is |r(z)| - |r(rival)|, from the same resamples.
    - `level`, `draws`, `seed`: as in `fit_rate`.

    **Raises:** ValueError for fewer than three places, a z that does not vary, or one seed with a rival.

    >>> rng = np.random.default_rng(0)
    >>> z = np.arange(1.0, 9.0)
    >>> print(ts.trend(z, -z[:, None] + 2 * rng.normal(size=(8, 32))))
    -0.771 [-0.822, -0.711]
    """
    from scipy.special import ndtri

    check_options(level, draws)
    table, places = as_array(values, "values"), as_array(z, "z")
    others = [] if rival is None else [as_array(rival, "rival")]
    for name, one in zip(("z", "rival"), (places, *others), strict=False):
        if table.ndim != 2 or one.shape != table.shape[:1]:
            raise ValueError(f"{name} has one number for each row of values, got {one.shape} for values {table.shape}.")
        if len(one) < 3 or not np.isfinite(one).all() or (one == one[0]).all():
            raise ValueError(f"{name} needs at least three values, finite and not all equal.")
    there = ~np.isnan(table)
    if not there.any():
        raise ValueError("there are no values: all are missing (NaN).")
    size = int(there.any(axis=0).sum())
    table, there = table[:, there.any(axis=0)], there[:, there.any(axis=0)]
    lone = np.ones((1, size))
    value = _measure(places, others, table, there, lone)[0]
    warnings = tuple(few_seeds_warning(size))
    if size == 1:
        count = int(there.sum())
        if others or count < 4:
            raise ValueError(
                "with one seed there is no interval at fewer than 4 places or with a rival; give more seeds."
            )
        reach = ndtri(0.5 + level / 2) * np.sqrt((1 + value**2 / 2) / (count - 3))
        with np.errstate(divide="ignore"):
            low, high = np.tanh(np.arctanh(value) + np.array([-reach, reach]))
        return Estimate(float(value), (float(low), float(high)), float(level), warnings)
    (found,) = Resamples(size, draws, seed).each(lambda counts: (_measure(places, others, table, there, counts),))
    (low, high), _ = expanded_percentiles(found[np.isfinite(found)], float(value), size, level)
    return Estimate(float(value), (max(float(low), -1.0), min(float(high), 1.0)), float(level), warnings)


def _measure(z: np.ndarray, others: list[np.ndarray], table: np.ndarray, there: np.ndarray, counts: np.ndarray):
    """r(z), or |r(z)| - |r(rival)|, of every resample (draws, seeds) of the columns."""
    rows, columns = np.nonzero(there)
    runs, size = table[rows, columns], max(1, _BLOCK // len(rows))
    found = []
    for start in range(0, len(counts), size):
        weights = counts[start : start + size][:, columns]
        ranks = _ranks(runs, weights)
        r = [_correlation(_ranks(one[rows], weights), ranks, weights) for one in (z, *others)]
        found.append(r[0] if not others else np.abs(r[0]) - np.abs(r[1]))
    return np.concatenate(found)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks (draws, runs) of values that each resample holds `weights` times."""
    _, code = np.unique(values, return_inverse=True)
    order = np.argsort(code, kind="stable")
    ends = np.flatnonzero(np.diff(code[order], append=code.max() + 1))
    total = np.cumsum(weights[:, order], axis=1)[:, ends]
    before = np.concatenate([np.zeros((len(weights), 1)), total[:, :-1]], axis=1)
    return ((before + total + 1) / 2)[:, code]


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    a, b = (one - (weights * one).sum(axis=1, keepdims=True) / total for one in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weights * a * b).sum(axis=1) / np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))


def exponent_of_rates(x: Numbers, rates: Sequence[Rate], *, level: float = 0.95) -> Estimate:
    """The exponent gamma of rate(x) ~ x^{-gamma}: minus the least-squares slope of log exponents on log x. It shows, for
    instance, how a rate depends on a dimension. The interval comes from the resamples of all rates, paired by seed
    (`Rate.minus`).

    **Arguments:** `x` (k,) positive, and the k >= 2 `rates` at them, resampled alike.

    **Raises:** ValueError for fewer than two rates, x that are not positive or all equal, rates whose exponents are not
    positive or not identified, and rates that were not resampled alike.
    """
    check_options(level)
    places = as_array(x, "x")
    if places.shape != (len(rates),) or len(rates) < 2 or not (places > 0).all() or (places == places[0]).all():
        raise ValueError(
            f"an exponent of rates needs at least two different positive x, one for each rate, got {places}."
        )
    for rate in rates:
        rate.check_paired_with(rates[0])
        if not rate.identified or rate.exponent <= 0:
            raise ValueError(f"the exponent {rate.exponent:.3g} has no logarithm, or is not identified.")
    u = np.log(places) - np.log(places).mean()
    weights = -u / (u @ u)
    value = float(weights @ np.log([rate.exponent for rate in rates]))
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = weights @ np.log(np.array([rate.draws for rate in rates]))
    seeds = min(rate.effective_seeds for rate in rates)
    interval, _ = expanded_percentiles(draws[np.isfinite(draws)], value, seeds, level)
    warnings = tuple(dict.fromkeys(text for rate in rates for text in rate.warnings))
    return Estimate(value, interval, float(level), warnings)
