"""A metric along an axis as a whole, and how a number orders it."""

import numpy as np
import pytest
from scipy import stats

import tsjax as ts


def _noise(rng, shape):
    return rng.chisquare(30, shape) / 30


def test_a_spread_is_the_largest_over_the_smallest(rng):
    values = np.array([[1.0], [3.0], [2.0]]) * _noise(rng, (3, 200))
    means = values.mean(axis=1)
    found = ts.spread(values)
    assert found.value == pytest.approx(means.max() / means.min())
    assert found.interval[0] < 3 < found.interval[1] and found.interval[1] / found.interval[0] < 1.3
    other = ts.spread(values, positive=False)
    assert other.value == pytest.approx(means.max() - means.min()) and other.interval[0] < 2 < other.interval[1]


@pytest.mark.parametrize("means", [[1.0, 1.0, 1.0, 1.0], [1.0, 1.2, 1.4, 1.6]])
def test_spreads_are_covered(means):
    rng, hits, truth = np.random.default_rng(3), 0, max(means) / min(means)
    for _ in range(400):
        low, high = ts.spread(np.array(means)[:, None] * _noise(rng, (4, 16)), draws=300).interval
        hits += low <= truth <= high
    assert hits / 400 > 0.92


def test_a_curve_that_falls_but_once(rng):
    means = np.array([8.0, 4.0, 4.8, 2.0])
    values = means[:, None] * _noise(rng, (4, 400))
    rise = ts.largest_rise(values)
    assert (
        rise.value == pytest.approx(1.2, rel=0.05)
        and rise.interval[0] > 1
        and rise.interval[0] < 1.2 < rise.interval[1]
    )
    # Without the bump it falls throughout.
    assert ts.largest_rise(values[[0, 1, 3]]).interval[1] < 1
    # From the other end a curve that rises.
    assert ts.largest_rise(values[[3, 1, 0]], falls=True).interval[0] > 1
    assert ts.largest_rise(values[::-1], falls=True).value == pytest.approx(1 / rise.value)


def test_the_best_place(rng):
    x = [1.0, 2.0, 4.0, 8.0]
    values = np.array([2.0, 1.0, 1.01, 3.0])[:, None] * _noise(rng, (4, 64))
    found = ts.best(x, values)
    assert found.value in (2.0, 4.0) and found.interval == (2.0, 4.0)
    certain = ts.best(x, np.array([2.0, 1.0, 1.5, 3.0])[:, None] * _noise(rng, (4, 64)))
    assert (certain.value, certain.interval) == (2.0, (2.0, 2.0))


def test_the_best_is_covered():
    rng, hits = np.random.default_rng(4), 0
    for _ in range(300):
        low, high = ts.best([1, 2, 3], np.array([1.0, 0.9, 1.0])[:, None] * _noise(rng, (3, 16)), draws=300).interval
        hits += low <= 2 <= high
    assert hits / 300 > 0.95


def test_places_and_seeds_of_profiles(rng):
    values = np.array([[1.0], [3.0]]) * _noise(rng, (2, 8))
    values[0, 0] = np.nan
    np.testing.assert_allclose(ts.spread(values).interval, ts.spread(values[:, 1:]).interval)
    assert ts.spread(values[:, 1:2]).interval == (1.0, np.inf)
    two = ts.spread(values[:, 1:3])
    assert two.interval[0] >= 1 and "rough" in two.warnings[0]
    assert "all seeds have the same value" in ts.spread(np.ones((2, 5)) * [[1.5], [3.0]]).warnings[0]
    with pytest.raises(ValueError, match="k >= 2"):
        ts.spread(values[:1])
    with pytest.raises(ValueError, match="no seed has a value at every place"):
        ts.spread(np.array([[1.0, np.nan], [np.nan, 1.0]]))
    with pytest.raises(ValueError, match="place 2 is negative"):
        ts.spread(np.array([[1.5, 1.5], [-1.0, -2.0]]))
    with pytest.raises(ValueError, match="one number for each row"):
        ts.best([1, 2, 3], values[:, 1:])


def test_a_trend_is_spearman_s(rng):
    z = np.array([1.0, 2.0, 2.0, 5.0, 9.0])
    values = -z[:, None] + 3 * rng.normal(size=(5, 40))
    values[3, 7] = np.nan
    there = ~np.isnan(values)
    expected = stats.spearmanr(np.repeat(z[:, None], 40, axis=1)[there], values[there]).statistic
    found = ts.trend(z, values)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.interval[0] < expected < found.interval[1] < 0
    # Rank correlations know no units.
    np.testing.assert_allclose(ts.trend(np.log(z), np.exp(values)).interval, found.interval)
    # Resampled by hand: columns drawn again, and everything ranked anew.
    draws = []
    for _ in range(1500):
        columns = rng.integers(40, size=40)
        table = values[:, columns]
        there = ~np.isnan(table)
        draws.append(stats.spearmanr(np.repeat(z[:, None], 40, axis=1)[there], table[there]).statistic)
    np.testing.assert_allclose(found.interval, np.quantile(draws, [0.0225, 0.9775]), atol=0.02)


def test_a_rival_that_orders_better(rng):
    z = np.arange(1.0, 9.0)
    other = np.array([3.0, 1.0, 2.0, 6.0, 4.0, 5.0, 8.0, 7.0])
    values = -z[:, None] + 0.3 * rng.normal(size=(8, 32))
    better = ts.trend(z, values, rival=other)
    assert better.interval[0] > 0
    worse = ts.trend(other, values, rival=z)
    assert worse.value == pytest.approx(-better.value) and worse.interval[1] < 0


def test_one_seed_has_the_interval_of_independent_places():
    z, values = np.arange(10.0), np.array([1.0, 3, 2, 5, 4, 7, 6, 9, 8, 10])[:, None]
    r = stats.spearmanr(z, values[:, 0]).statistic
    found = ts.trend(z, values)
    half = stats.norm.ppf(0.975) * np.sqrt((1 + r**2 / 2) / 7)
    np.testing.assert_allclose(found.interval, np.tanh(np.arctanh(r) + np.array([-half, half])))
    for bad, message in ((np.ones(10), "not all equal"), (z[:9], "one number for each row")):
        with pytest.raises(ValueError, match=message):
            ts.trend(bad, values)
    with pytest.raises(ValueError, match="with one seed there is no interval"):
        ts.trend(z, values, rival=values[:, 0])


def test_the_exponent_of_rates(rng):
    """Rates of 2/d in n: they fall as d^{-1}."""
    n, d = 2.0 ** np.arange(6, 11), np.array([2.0, 4.0, 8.0])
    noise = _noise(rng, (5, 64))
    rates = [ts.fit_rate(n, n[:, None] ** (-2.0 / one) * noise ** (1 + 0.1 * i)) for i, one in enumerate(d)]
    found = ts.exponent_of_rates(d, rates)
    slope = np.polyfit(np.log(d), np.log([rate.exponent for rate in rates]), 1)[0]
    assert found.value == pytest.approx(-slope) and found.interval[0] < 1 < found.interval[1]
    with pytest.raises(ValueError, match="two different positive x"):
        ts.exponent_of_rates([2.0], rates[:1])
    flat = ts.fit_rate(n, n[:, None] ** 0.5 * noise)
    with pytest.raises(ValueError, match="has no logarithm"):
        ts.exponent_of_rates([2.0, 4.0], [rates[0], flat])
