"""Intervals that hold at every look: bounds against published ones, an integral and simulated paths; coverage under peeking."""

import itertools

import numpy as np
import pytest
from helpers import SIZES, noise
from scipy import stats

from tsjax.rates import at_level, fit_rate, look_bounds, look_level, mean_ratio, sequential, share
from tsjax.rates.intervals import Estimate
from tsjax.rates.looks import crossing_bounds


def test_bounds_of_five_looks_are_the_published_ones():
    """Of the spending function of Lan & DeMets like O'Brien & Fleming's, 2.5 % on each side: 4.877, 3.357, 2.680, 2.290, 2.031;
    and the constants of O'Brien & Fleming (2.040 sqrt(5/k)) and of Pocock (2.413) spend 5 % in all."""
    times = np.arange(1, 6) / 5
    spent = 4 * stats.norm.sf(stats.norm.isf(0.0125) / np.sqrt(times))
    np.testing.assert_allclose(
        crossing_bounds(tuple(times), tuple(spent)), [4.877, 3.357, 2.680, 2.290, 2.031], atol=6e-4
    )
    # Two looks of Pocock's bound 2.178, and of O'Brien & Fleming's 1.977 sqrt(2/k).
    for first, last in ((2.178, 2.178), (2.797, 1.977)):
        found = crossing_bounds((0.5, 1.0), (2 * stats.norm.sf(first), 0.05))
        np.testing.assert_allclose(found, (first, last), atol=1e-3)


def test_bounds_leave_with_the_probability_that_is_spent():
    """Three unequal looks: the probability of staying inside, by the integral of the normal law over a box."""
    looks, most = [10, 33, 70], 100
    z, t = look_bounds(looks, most, level=0.9), np.array(looks) / most
    for k in (1, 2, 3):
        correlation = np.sqrt(np.minimum.outer(t[:k], t[:k]) / np.maximum.outer(t[:k], t[:k]))
        law = stats.multivariate_normal(np.zeros(k), correlation, seed=0)
        inside = law.cdf(z[:k], lower_limit=-z[:k])
        assert 1 - inside == pytest.approx(0.1 * t[k - 1] ** 2, abs=2e-5)


def test_many_looks_of_simulated_paths(rng):
    looks, paths = np.arange(16, 257, 8), 40_000
    steps = rng.normal(size=(paths, len(looks))) * np.sqrt(np.diff(looks, prepend=0))
    standard = np.abs(steps.cumsum(axis=1)) / np.sqrt(looks)
    left = (standard > look_bounds(looks.tolist(), 256)).any(axis=1).mean()
    fixed = (standard > 1.96).any(axis=1).mean()
    assert abs(left - 0.05) < 4 * np.sqrt(0.05 * 0.95 / paths) and fixed > 0.25


def test_what_the_module_says_of_widths():
    """The bar: at most 1.15 times the width of one look at the planned size."""
    ratios = lambda looks: look_bounds(looks, 256) / stats.norm.isf(0.025)
    five, many = ratios([16, 32, 64, 128, 256]), ratios(list(range(16, 257, 8)))
    assert five[-1] == pytest.approx(1.03, abs=0.005) and many[-1] == pytest.approx(1.145, abs=0.005)
    assert five[0] == many[0] == pytest.approx(1.90, abs=0.01)
    assert five[3] == pytest.approx(1.31, abs=0.01) and many[14] == pytest.approx(1.41, abs=0.01)
    student = [stats.t.ppf(0.5 + level / 2, 15) for level in (look_level([16], 256), 0.95)]
    assert student[0] / student[1] == pytest.approx(2.3, abs=0.05)


def test_one_look_at_the_end_is_the_fixed_interval(rng):
    rate = fit_rate(SIZES, noise(rng, 32) / SIZES[:, None])
    once = sequential(rate, [32], 32)
    np.testing.assert_allclose(once.interval, rate.interval, rtol=1e-9)
    early = sequential(rate, [16, 32], 64)
    assert early.level == 0.95 and early.warnings == rate.warnings
    assert early.interval[0] < rate.interval[0] and rate.interval[1] < early.interval[1]
    # Later looks add to what is spent: the same seeds after more looks give a wider interval.
    more = sequential(rate, [8, 16, 24, 32], 64)
    assert more.interval[0] < early.interval[0]


def test_levels_agree_with_those_of_resamples(rng):
    """An exponent at 80 and 99 %, from its interval at 95 %, against percentiles of its own resamples."""
    rate = fit_rate(SIZES, noise(rng, 64) / SIZES[:, None], draws=20_000)
    given = Estimate(rate.exponent, rate.interval, 0.95)
    for level in (0.8, 0.99):
        moved, made = at_level(given, level, rate.effective_seeds).interval, rate.interval_at(level)
        assert np.subtract(*moved) == pytest.approx(np.subtract(*made), rel=0.05)


def test_the_scale_is_that_of_the_interval(rng):
    """Ratios are moved on logarithms, so that a / b and b / a agree; Student's interval of three seeds exactly."""
    a, b = rng.gamma(7.5, size=(2, 40))
    one, other = (at_level(mean_ratio(*pair), 0.999, 40) for pair in ((a, b), (b, a)))
    assert one.interval[0] > 0
    np.testing.assert_allclose(one.interval, [1 / v for v in other.interval[::-1]], rtol=0.03)
    three = at_level(mean_ratio(a[:3], b[:3]), 0.99, 3)
    np.testing.assert_allclose(three.interval, mean_ratio(a[:3], b[:3], level=0.99).interval, rtol=1e-6)


def test_ends_that_are_open_stay_open():
    odd = [
        (Estimate(1.0, (-np.inf, 2.0), 0.95), (-np.inf, None)),
        (Estimate(np.inf, (3.0, np.inf), 0.95), (-np.inf, np.inf)),
        (Estimate(0.0, (0.0, 5.0), 0.95, scale="log"), (0.0, np.inf)),
    ]
    for estimate, wanted in odd:
        found = at_level(estimate, 0.99, 20).interval
        assert all(end is None or value == end for value, end in zip(found, wanted, strict=True)), (estimate, found)
    assert at_level(Estimate(1.0, (0.9, 1.1), 0.95), 0.99, 1).interval == (-np.inf, np.inf)
    # A value outside of its interval: a longer interval still holds the shorter one.
    low, high = at_level(Estimate(1.2, (0.9, 1.1), 0.95), 0.99, 20).interval
    assert low < 0.9 and high > 1.1


@pytest.mark.parametrize(
    ("looks", "most", "message"),
    [
        ([], 64, "positive and increasing"),
        ([16, 16], 64, "Looking again at the same seeds is not a new look"),
        ([0, 16], 64, "positive and increasing"),
        ([16, 96], 64, "the plan ends at most=64 seeds, and the last look has 96"),
    ],
)
def test_looks_that_are_none(looks, most, message):
    with pytest.raises(ValueError, match=message):
        sequential(Estimate(1.0, (0.9, 1.1), 0.95), looks, most)


def test_intervals_that_cannot_be_moved(rng):
    with pytest.raises(ValueError, match=r"Compute it at the level that is needed, 0.9968"):
        sequential(share(np.ones(20)), [20], 80)
    low, high = share(np.ones(20), level=look_level([20], 80)).interval
    assert low == pytest.approx((0.05 / 16 / 2) ** (1 / 20)) and high == 1.0
    one_run = fit_rate(SIZES, noise(rng, 1) / SIZES[:, None])
    with pytest.raises(ValueError, match="errors='residuals'"):
        sequential(one_run, [1], 8)


def test_means_under_peeking(rng):
    """Ratios of means to a known number, looked at after 16, 32, ..., 128 seeds: the fixed interval misses at some look."""
    looks, runs, missed = [16, 32, 64, 128], 250, {"fixed": 0, "sequential": 0}
    for _ in range(runs):
        risks, any_fixed, any_sequential = rng.gamma(7.5, size=128) / 7.5, False, False
        for k in range(len(looks)):
            found = mean_ratio(risks[: looks[k]], 1.0, draws=400)
            for name, one in (("fixed", found), ("sequential", sequential(found, looks[: k + 1], 128))):
                outside = not one.interval[0] <= 1.0 <= one.interval[1]
                any_fixed |= outside and name == "fixed"
                any_sequential |= outside and name == "sequential"
        missed["fixed"] += any_fixed
        missed["sequential"] += any_sequential
    slack = 3.5 * np.sqrt(0.05 * 0.95 * runs)
    assert missed["sequential"] <= 0.06 * runs + slack < missed["fixed"] + slack
    assert missed["fixed"] > 0.08 * runs


def test_order_of_looks_is_all_that_matters():
    """The bound of look k does not depend on looks that come later."""
    whole = look_bounds([16, 24, 64, 100, 256], 256)
    for k in range(1, 6):
        np.testing.assert_allclose(look_bounds([16, 24, 64, 100, 256][:k], 256), whole[:k], rtol=1e-10)
    for level, most in itertools.product((0.5, 0.999), (64, 2**20)):
        assert (look_bounds([4, 16, 64], most, level=level) > 0).all()
