"""Means of metrics of every kind: formulas by other routes, coverage, and the ends of their ranges."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

import tsjax as ts
from tsjax.rates.kinds import kind_content, kind_of


def test_a_mean_is_student_s_where_seeds_are_few_and_normal_scores_agree_with_it(rng):
    few = rng.normal(size=3)
    expected = stats.t.interval(0.95, 2, few.mean(), stats.sem(few))
    np.testing.assert_allclose(ts.mean(few).interval, expected)
    many = rng.normal(size=400)
    expected = stats.t.interval(0.95, 399, many.mean(), stats.sem(many))
    np.testing.assert_allclose(ts.mean(many, draws=20_000).interval, expected, atol=0.1 * stats.sem(many))
    # Shifts and signs carry over.
    low, high = ts.mean(many).interval
    np.testing.assert_allclose(ts.mean(many + 5).interval, (low + 5, high + 5))
    assert ts.mean(many).level == 0.95


def test_the_bootstrap_t_of_a_skewed_mean_is_scipy_s(rng):
    values = rng.gamma(1.0, size=40)
    found = ts.mean(values, draws=20_000)
    se = lambda v, axis: np.std(v, axis=axis, ddof=1) / np.sqrt(v.shape[axis])
    resampled = values[rng.integers(40, size=(20_000, 40))]
    t = (resampled.mean(axis=1) - values.mean()) / se(resampled, 1)
    high, low = np.quantile(t, [0.025, 0.975])
    expected = values.mean() - np.array([low, high]) * se(values, 0)
    np.testing.assert_allclose(found.interval, expected, atol=0.05 * se(values, 0))
    # Longer to the right, where the law is.
    assert found.interval[1] - found.value > 1.1 * (found.value - found.interval[0])


@pytest.mark.parametrize("law", ["normal", "t"])
def test_means_near_zero_are_covered(law):
    rng = np.random.default_rng(1)
    draw = (lambda: rng.normal(size=16)) if law == "normal" else lambda: rng.standard_t(5, size=16)
    hits = 0
    for _ in range(600):
        low, high = ts.mean(draw(), draws=400).interval
        hits += low <= 0 <= high
    # 95 % within three standard errors of the simulation, and the bootstrap's own error.
    assert 0.91 < hits / 600 < 0.98


def test_ends_of_means():
    assert ts.mean([2.0]).interval == (-np.inf, np.inf)
    alike = ts.mean([0.1, 0.1, 0.1, 0.1])
    assert alike.interval == (0.1, 0.1) and "all seeds have the same value" in alike.warnings[0]
    assert "1 of 3 seeds left out" in ts.mean([1.0, np.nan, 2.0]).warnings[0]
    for bad, message in (([np.nan], "no values"), ([np.inf, 1.0], "infinite"), ([[1.0]], r"shape \(seeds,\)")):
        with pytest.raises(ValueError, match=message):
            ts.mean(bad)


def test_differences_are_paired(rng):
    teacher = 100 * rng.normal(size=64)
    a, b = teacher + rng.normal(1.0, 0.1, 64), teacher
    found = ts.mean_difference(a, b)
    assert found == ts.mean(a - b) and 0.9 < found.interval[0] < found.interval[1] < 1.1
    assert ts.mean_difference(a, 0.0) == ts.mean(a)
    with pytest.raises(ValueError, match="same seeds"):
        ts.mean_difference(a, b[1:])


def test_a_median_is_between_order_statistics():
    """Of 30 values the 10th and the 21st cover with 95.7 % (a table of the sign test)."""
    found = ts.median(np.arange(1.0, 31.0))
    assert (found.value, found.interval) == (15.5, (10.0, 21.0))
    assert 1 - 2 * stats.binom.cdf(9, 30, 0.5) == pytest.approx(0.957, abs=5e-4)
    assert ts.median([1.0, 2.0, 3.0, 4.0, 5.0]).interval == (-np.inf, np.inf)
    # One seed that is a million times larger moves nothing.
    values = np.arange(1.0, 31.0)
    values[-1] = 1e6
    assert ts.median(values).interval == found.interval


def test_shares_of_trials():
    # Seeds that agree as independent trials do have the interval of all trials.
    shares = np.array([0.0249, 0.0251, 0.0249, 0.0251, 0.0249, 0.0251])
    found = ts.share_of_trials(shares, 10_000)
    expected = proportion_confint(1500, 60_000, method="beta")
    np.testing.assert_allclose(found.interval, expected, rtol=1e-6)
    # Seeds that fail as a whole: the effective number of trials is that of seeds, or less.
    whole = np.r_[np.zeros(15), 1.0]
    found = ts.share_of_trials(whole, 1000)
    assert found.value == 1 / 16
    low, high = proportion_confint(1, 16, method="beta")
    assert 0 < found.interval[0] < low and high < found.interval[1] < 1.2 * high
    # No error at all: an upper limit, and the assumption behind it.
    none = ts.share_of_trials(np.zeros(16), 1000)
    np.testing.assert_allclose(none.interval, proportion_confint(0, 16_000, method="beta"), rtol=1e-6)
    assert "up to 0.21 of all seeds" in none.warnings[0]
    all_of_them = ts.share_of_trials(np.ones(16), 1000)
    np.testing.assert_allclose(all_of_them.interval, (1 - none.interval[1], 1.0), rtol=1e-9)
    assert ts.share_of_trials([0.1], 10).interval == (0.0, 1.0)
    assert ts.share_of_trials(np.float32([0.1, 0.3]), 10).value == pytest.approx(0.2)
    for shares, trials, message in (
        ([0.15], 10, "not a whole number"),
        ([1.5], 10, r"in \[0, 1\]"),
        ([0.5], 0, "at least 1"),
        ([0.5], 2.5, "whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            ts.share_of_trials(shares, trials)


@pytest.mark.parametrize(("p", "rho"), [(0.01, 0.0), (0.1, 0.1)])
def test_shares_are_covered_over_seeds_and_trials(p, rho):
    """Beta-binomial trials: of one chance for all seeds, and of chances that differ."""
    rng, hits = np.random.default_rng(2), 0
    for _ in range(600):
        chance = np.full(16, p) if rho == 0 else rng.beta(p * (1 / rho - 1), (1 - p) * (1 / rho - 1), 16)
        low, high = ts.share_of_trials(rng.binomial(500, chance) / 500, 500).interval
        hits += low <= p <= high
    assert hits / 600 > 0.92


def test_differences_of_shares(rng):
    """Without correlation that of Newcombe (1998, method 10 with Clopper & Pearson's intervals); of pairs it is shorter."""
    a, b = np.r_[np.ones(9), np.zeros(7)], np.r_[np.ones(3), np.zeros(13)]
    ends = [proportion_confint(k, 16, method="beta") for k in (9, 3)]
    (l1, u1), (l2, u2) = ends
    apart = ts.Indicator().minus(a, rng.permutation(b)[::-1] * 0 + b[::-1])
    low, high = 6 / 16 - np.hypot(9 / 16 - l1, u2 - 3 / 16), 6 / 16 + np.hypot(u1 - 9 / 16, 3 / 16 - l2)
    np.testing.assert_allclose(apart.interval, (low, high))
    together = ts.Indicator().minus(a, b)
    assert together.value == apart.value == 6 / 16
    assert together.interval[0] > low and together.interval[1] < high
    # Nothing ever fails in both: not certain that they are equal.
    none = ts.Indicator().minus(np.zeros(16), np.zeros(16))
    np.testing.assert_allclose(none.interval, (-0.2059, 0.2059), atol=1e-4)
    errors = ts.Share(trials=100).minus(np.full(16, 0.5), np.full(16, 0.25))
    assert 0.2 < errors.interval[0] < 0.25 < errors.interval[1] < 0.3


def test_kinds_say_what_is_not_of_them():
    values = np.array([0.5, -0.5, np.nan])
    assert ts.Signed().why_not(values, "drift") is None
    for kind in (ts.Positive(), ts.Indicator(), ts.Share(trials=10)):
        assert "drift" in str(kind.why_not(values, "drift"))
    assert ts.Indicator().why_not(np.array([0.0, 1.0]), "stuck") is None


@pytest.mark.parametrize(
    "kind", [ts.Positive(), ts.Signed(), ts.Indicator(), ts.Share(trials="points"), ts.Share(trials=7)]
)
def test_kinds_are_written_and_read(kind):
    assert kind_of(kind_content(kind)) == kind and type(kind_of(kind_content(kind))) is type(kind)
    with pytest.raises(ValueError, match="not a kind of metric"):
        kind_of({**kind_content(kind), "kind": "other"})
