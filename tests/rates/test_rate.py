import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tsjax.rates import Estimate, compare_rates, crossing, fit_rate, judge, mean_ratio, share
from tsjax.rates.checks import beside, together

N = 2.0 ** np.arange(9, 15)


def curve(rng, seeds, exponent=1.0, n=N, constant=3.0):
    """Risks (k, seeds) with mean constant n^{-exponent} and the noise of an efficient estimator of 15 parameters."""
    return constant * n[:, None] ** -exponent * rng.chisquare(15, (len(n), seeds)) / 15


def assert_covers(hits, curves, least=0.94, most=0.95):
    """The share of hits lies within 3.5 binomial standard errors of [least, most], where long simulations put it."""
    share = hits / curves
    slack = 3.5 * np.sqrt(0.95 * 0.05 / curves)
    assert least - slack <= share <= most + slack, f"covered {hits} of {curves} = {share:.3f}"


# The fit


def test_exact_power_law_is_recovered_on_any_axis():
    width = np.array([3.0, 10.0, 11.0, 500.0])
    rate = fit_rate(width, (2.5 * width**0.7)[:, None] * np.array([0.5, 1.0, 1.5, 1.0]))
    np.testing.assert_allclose(rate.exponent, -0.7, rtol=1e-12)
    np.testing.assert_allclose(rate.constant, 2.5, rtol=1e-12)
    np.testing.assert_allclose(rate.local_slopes, -0.7, rtol=1e-10)
    np.testing.assert_allclose(rate.residuals, 0.0, atol=1e-12)


def test_planted_exponent_lies_in_the_interval(rng):
    rate = fit_rate(N, curve(rng, 256, exponent=0.43), level=0.999)
    assert rate.interval[0] < 0.43 < rate.interval[1]
    assert 0.0 < rate.interval[1] - rate.interval[0] < 0.06
    assert rate.warnings == ()


def test_slope_is_that_of_polyfit(rng):
    risks = curve(rng, 16)
    rate = fit_rate(N, risks)
    mean, se = risks.mean(axis=1), risks.std(axis=1, ddof=1) / 4.0
    slope, intercept = np.polyfit(np.log(N), np.log(mean), 1, w=mean / se)
    np.testing.assert_allclose([rate.exponent, rate.constant], [-slope, np.exp(intercept)], rtol=1e-10)
    np.testing.assert_allclose(rate.weights, (mean / se) ** 2, rtol=1e-10)
    np.testing.assert_allclose(rate.mean_risk, mean)
    np.testing.assert_allclose(rate.mean_se, se)
    np.testing.assert_allclose(rate.residuals, np.log(mean) - intercept - slope * np.log(N), atol=1e-12)
    np.testing.assert_allclose(rate.local_slopes, -np.diff(np.log(mean)) / np.diff(np.log(N)))


@pytest.mark.parametrize("paired", [True, False])
def test_draws_are_those_of_a_loop(rng, paired):
    risks, k, seeds, draws = curve(rng, 12), len(N), 12, 150
    risks[1, 4] = np.nan
    rate = fit_rate(N, risks, draws=draws, seed=5, paired=paired)
    if paired:
        columns = np.broadcast_to(np.random.default_rng(5).integers(seeds, size=(draws, seeds)), (k, draws, seeds))
    else:
        columns = np.random.default_rng(5).integers(seeds, size=(k, draws, seeds))
    for b in range(draws):
        kept = [row[take] for row, take in zip(risks, columns[:, b], strict=True)]
        kept = [row[~np.isnan(row)] for row in kept]
        mean = np.array([row.mean() for row in kept])
        se = np.array([row.std(ddof=1) / np.sqrt(len(row)) for row in kept])
        expected = -np.polyfit(np.log(N), np.log(mean), 1, w=mean / se)[0]
        np.testing.assert_allclose(rate.draws[b], expected, rtol=1e-9)


def test_tiny_risks_and_other_array_types_change_nothing(rng):
    risks = curve(rng, 8)
    rate = fit_rate(N, risks)
    np.testing.assert_allclose(fit_rate(N, risks * 1e-250).interval, rate.interval, rtol=1e-9)
    for n, table in ((tuple(N), risks.tolist()), (jnp.asarray(N), jnp.asarray(risks)), (pd.Series(N), risks)):
        np.testing.assert_allclose(fit_rate(n, table).interval, rate.interval, rtol=1e-12)


def test_importing_rates_does_not_load_jax_or_scipy():
    code = "import sys, tsjax.rates; assert not {'jax', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Intervals


@pytest.mark.parametrize(
    ("shared", "seeds"),
    [(0.6, 64), *(pytest.param(*one, marks=pytest.mark.slow) for one in [(0.0, 4), (0.0, 64), (0.6, 4)])],
)
def test_interval_covers(rng, seeds, shared):
    curves, hits = 400, 0
    for _ in range(curves):
        # `shared` is how much of the noise a seed carries through all n.
        noise = rng.chisquare(15, (len(N), seeds)) / 15
        if shared:
            z = np.sqrt(shared) * rng.normal(size=seeds) + np.sqrt(1 - shared) * rng.normal(size=(len(N), seeds))
            noise = np.exp(0.4 * z)
        low, high = fit_rate(N, noise / N[:, None], draws=600).interval
        hits += low <= 1.0 <= high
    assert_covers(hits, curves, most=0.97 if seeds == 4 else 0.95)


@pytest.mark.slow
def test_interval_of_a_difference_covers_and_is_shorter_when_paired(rng):
    curves, hits, paired_width, width = 200, 0, 0.0, 0.0
    for _ in range(curves):
        data = rng.lognormal(0.0, 0.5, (len(N), 16))
        a, b = (data * rng.lognormal(0.0, 0.1, data.shape) * N[:, None] ** -e for e in (1.0, 0.6))
        low, high = compare_rates(N, a, b, draws=600).interval
        hits += low <= 0.4 <= high
        paired_width += high - low
        low, high = compare_rates(N, a, b, draws=600, paired=False).interval
        width += high - low
    assert_covers(hits, curves)
    assert paired_width < 0.5 * width


@pytest.mark.parametrize("seeds", [4, 64])
@pytest.mark.parametrize("design", ["constant", "paired", "unpaired"])
def test_interval_of_a_ratio_covers(rng, seeds, design):
    repeats, hits = 400, 0
    for _ in range(repeats):
        a, b = rng.chisquare(15, (2, seeds)) / 15
        if design == "constant":
            estimate = mean_ratio(2.0 * a, 2, draws=600)
        elif design == "paired":
            estimate = mean_ratio(3.0 * a * b, 3.0 * b, draws=600)
        else:
            estimate = mean_ratio(a, rng.chisquare(15, 2 * seeds) / 15, draws=600, paired=False)
        hits += estimate.interval[0] <= 1.0 <= estimate.interval[1]
    assert_covers(hits, repeats, most=0.98 if seeds == 4 else 0.95)


def test_few_seeds_widen_the_interval_and_say_so(rng):
    risks = curve(rng, 8)
    one, two = fit_rate(N, risks[:, :1]), fit_rate(N, risks[:, :2])
    assert one.errors == "residuals" and np.isfinite(one.interval).all() and np.isnan(one.mean_se).all()
    lonely = risks.copy()
    lonely[0, 1:] = np.nan
    (note,) = [text for text in fit_rate(N, lonely).warnings if text.startswith("one seed")]
    assert note == "one seed: there is no interval. Give at least 4 seeds."
    assert fit_rate(N, lonely).interval == (-np.inf, np.inf) and fit_rate(N, lonely).identified
    assert np.isfinite(two.interval).all()
    assert two.interval[0] < two.exponent < two.interval[1]
    assert two.warnings == ("only 2 seeds: the interval is rough and very wide. Give at least 4 seeds.",)
    assert fit_rate(N, risks[:, :4]).warnings == ()


def test_level_and_seed_are_used(rng):
    risks = curve(rng, 16)
    wide, narrow = fit_rate(N, risks, level=0.95).interval, fit_rate(N, risks, level=0.5).interval
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert fit_rate(N, risks).interval == wide
    assert fit_rate(N, risks, seed=1).interval != wide


# What a rate says about itself


def test_reads_as_a_sentence(rng):
    risks = curve(rng, 64, n=N[:4])
    rate = fit_rate(N[:4], risks)
    low, high = rate.interval
    assert str(rate) == f"{rate.exponent:.3f} [{low:.3f}, {high:.3f}] over n = 512..4096 (64 seeds)"
    assert repr(rate) == f"Rate({rate})"
    assert rate.window == (512.0, 4096.0)
    risks[0, 0] = np.nan
    assert str(fit_rate(N[:4], risks)).endswith("(64 seeds, 1 warning)")
    assert str(Estimate(1.2345678, (1.0, 1.5), 0.95)) == "1.23 [1.00, 1.50]"


def test_missing_risks_are_counted_and_left_out(rng):
    risks = curve(rng, 16)
    risks[0, :3] = risks[2, 7] = np.nan
    rate = fit_rate(N, risks)
    assert rate.missing == 4
    np.testing.assert_array_equal(rate.present, [13, 16, 15, 16, 16, 16])
    np.testing.assert_allclose(rate.mean_risk, np.nanmean(risks, axis=1))
    assert rate.warnings == (
        "4 of 96 risks are missing (NaN), at n = 512 (3), 2048 (1); means are over the seeds that are there.",
    )


def test_a_resample_without_any_seed_at_some_n_is_left_out_and_counted(rng):
    risks = curve(rng, 4)
    risks[0, 1:] = np.nan
    rate = fit_rate(N, risks)
    lost = int(np.isnan(rate.draws).sum())
    assert 0 < lost < len(rate.draws)
    assert f"{lost} resamples left out: without a positive mean at some n." in rate.warnings
    assert rate.interval == (-np.inf, np.inf)
    # The single seed at n = 512 takes the average relative variance of the others.
    one = (risks[1:].std(axis=1, ddof=1) / risks[1:].mean(axis=1)) ** 2
    np.testing.assert_allclose(1.0 / rate.weights[0], one.mean())


def test_heavy_tail_warns_with_one_failed_student(rng):
    risks = curve(rng, 64)
    assert not fit_rate(N, risks).heavy_tail
    risks[2, 5] = 300.0 * risks[2].mean()
    rate = fit_rate(N, risks)
    assert rate.heavy_tail
    np.testing.assert_allclose(rate.tail_share[2], risks[2, 5] / risks[2].sum())
    assert rate.warnings[0].startswith("heavy tail: seeds above 10 times the median carry 8")
    assert "at n = 2048, so a few seeds decide it" in rate.warnings[0]
    assert (
        mean_ratio(risks[2], risks[1])
        .warnings[0]
        .endswith(
            "of the mean of the numerator, so a few seeds decide it and the interval may miss. "
            "Give the median ratio beside this one."
        )
    )


def test_ordinary_noise_is_no_heavy_tail(rng):
    for seeds in (4, 8, 64):
        alarms = sum(fit_rate(N, curve(rng, seeds), draws=100).heavy_tail for _ in range(100))
        assert alarms == 0, f"{alarms} of 100 curves with {seeds} seeds"


@pytest.mark.slow
def test_goodness_finds_a_bend_and_keeps_its_level(rng):
    p = np.array([fit_rate(N, curve(rng, 16), draws=300).goodness for _ in range(300)])
    assert (p < 0.05).mean() < 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 300), (p < 0.05).mean()
    bent = curve(rng, 64) * (1.0 + 3000.0 / N[:, None])
    rate = fit_rate(N, bent)
    assert rate.goodness < 0.01
    assert rate.warnings[0].startswith("the curve bends: one power law on n = 512..16384 has p = 0.00")
    assert np.isnan(fit_rate(N[:2], bent[:2]).goodness)


def test_seeds_without_variance(rng):
    exact = np.repeat(0.1 / N[:, None], 5, axis=1)
    rate = fit_rate(N, exact)
    np.testing.assert_allclose([rate.exponent, *rate.interval], 1.0, rtol=1e-10)
    alike = ("all seeds have the same value, so the interval has no width; it says nothing about other seeds.",)
    assert rate.warnings == alike
    risks = curve(rng, 16)
    risks[3] = risks[3].mean()
    rate = fit_rate(N, risks)
    assert np.isfinite(rate.interval).all()
    assert rate.weights[3] <= 1001 * np.delete(rate.weights, 3).max()
    assert rate.warnings == ("the seeds hardly vary at n = 4096; the weight there is capped.",)
    ratio = mean_ratio([0.3, 0.3, 0.3, 0.3], 0.1)
    np.testing.assert_allclose([ratio.value, *ratio.interval], 3.0, rtol=1e-12)
    assert ratio.warnings == alike


# Comparisons


def test_slope_of(rng):
    rate = fit_rate(N, curve(rng, 32))
    np.testing.assert_allclose(rate.slope_of(7.0 * N**-0.37), 0.37, rtol=1e-12)
    np.testing.assert_allclose(rate.slope_of(rate.mean_risk), rate.exponent, rtol=1e-12)
    np.testing.assert_allclose(
        rate.slope_of(list(1.0 / N + 1e-3)),
        -np.polyfit(np.log(N), np.log(1.0 / N + 1e-3), 1, w=np.sqrt(rate.weights))[0],
        rtol=1e-10,
    )


def test_difference_is_that_of_the_draws(rng):
    a, b = curve(rng, 32, exponent=1.0), curve(rng, 32, exponent=0.5)
    difference = compare_rates(N, a, b)
    fit_a, fit_b = fit_rate(N, a), fit_rate(N, b)
    np.testing.assert_allclose(difference.value, fit_a.exponent - fit_b.exponent)
    assert difference.interval == fit_a.minus(fit_b).interval
    assert difference.interval[0] < difference.value < difference.interval[1]
    spread = np.std(fit_a.draws - fit_b.draws)
    np.testing.assert_allclose(difference.interval[1] - difference.interval[0], 4.1 * spread, rtol=0.1)
    np.testing.assert_allclose(compare_rates(N, a, a).interval, 0.0, atol=1e-15)
    # Other windows, equal seeds.
    assert fit_a.minus(fit_rate(N[2:], b[2:])).value == fit_a.exponent - fit_rate(N[2:], b[2:]).exponent
    b[0, 0] = np.nan
    assert compare_rates(N, a, b).warnings[0].startswith("b: 1 of 192 risks are missing")


def test_ratio_of_means(rng):
    a, b = curve(rng, 32)[:2]
    ratio, inverse = mean_ratio(a, b), mean_ratio(b, a)
    np.testing.assert_allclose(ratio.value, a.mean() / b.mean())
    np.testing.assert_allclose(ratio.interval, 1.0 / np.array(inverse.interval)[::-1])
    a[3] = np.nan
    paired, unpaired = mean_ratio(a, b), mean_ratio(a, b, paired=False)
    np.testing.assert_allclose(paired.value, np.nanmean(a) / np.delete(b, 3).mean())
    np.testing.assert_allclose(unpaired.value, np.nanmean(a) / b.mean())
    assert paired.warnings == ("1 of 32 seeds left out because a risk is missing (NaN).",)
    assert unpaired.warnings == ("1 of 64 seeds left out because a risk is missing (NaN).",)
    assert mean_ratio([0.2], 0.1) == Estimate(
        2.0, (0.0, np.inf), 0.95, ("one seed: there is no interval. Give at least 4 seeds.",), "log"
    )
    two = mean_ratio([0.2, 0.3], 0.1)
    assert 0.0 < two.interval[0] < 2.5 < two.interval[1] < np.inf


@pytest.mark.parametrize("extreme", [1.0, 100.0])
@pytest.mark.parametrize("paired", [True, False])
def test_bootstrap_t_is_that_of_a_loop(rng, paired, extreme):
    a, b = curve(rng, 10)[:2]
    a[4] *= extreme

    def log_ratio(a, b):
        u, v = a / a.mean(), b / b.mean()
        squares = ((u - v) ** 2).mean() if paired else u.var() + v.var()
        return np.log(a.mean() / b.mean()), np.sqrt(squares / (len(a) - 1))

    value, se = log_ratio(a, b)
    takes_a, takes_b = (np.random.default_rng(seed).integers(10, size=(300, 10)) for seed in (0, 1))
    t, floored = [], 0
    for take_a, take_b in zip(takes_a, takes_a if paired else takes_b, strict=True):
        shifted, drawn_se = log_ratio(a[take_a], b[take_b])
        floored += drawn_se**2 < 0.1 * se**2
        t.append((shifted - value) / max(drawn_se, np.sqrt(0.1) * se))
    assert (floored > 30) == (extreme > 1)
    expected = np.exp(value - np.quantile(t, [0.95, 0.05]) * se)
    np.testing.assert_allclose(mean_ratio(a, b, draws=300, level=0.9, paired=paired).interval, expected, rtol=1e-9)


def test_means_of_anything_but_risks_have_no_interval(rng):
    """A metric of both signs, errors that are mostly 0, and accuracies that are mostly 1: errors that say so and what to do."""
    signed, errors = rng.normal(0.02, 0.05, 16), np.zeros(16)
    errors[3] = 0.05
    for values, kind, advice in (
        (
            signed,
            r"the numerator is of both signs: \d+ of 16 values are below 0, the least is -0\.",
            "Record a positive quant",
        ),
        (-np.abs(signed), "the numerator is negative: 16 of 16 values are below 0", r"tsjax\.mean"),
        (
            errors,
            "the numerator is not a positive risk: 15 of 16 values are exactly 0, as of errors counted",
            "an exact risk",
        ),
        (
            np.ones(16),
            "the numerator looks like a share .* 16 of 16 values are exactly 1 and none",
            "return truth values",
        ),
        (
            1.0 - errors,
            "such as an accuracy: 15 of 16 values are exactly 1 and none is larger",
            "take more test points",
        ),
    ):
        with pytest.raises(ValueError, match=f"{kind}.*These intervals are for risks.*{advice}"):
            mean_ratio(values, 0.5)
        with pytest.raises(ValueError, match="the denominator "):
            mean_ratio(np.full(16, 0.5), values)
        with pytest.raises(ValueError, match="risks_b.* at n = 2048 "):
            crossing(N[:3], curve(rng, 16)[:3], np.stack([np.full(16, 0.5), np.full(16, 0.4), values]))
    # One seed at 1 among others is a risk like any other, and so are seeds on both sides of it.
    for values in ([1.0, 0.9, 0.8, 0.7], [1.0, 1.0, 1.1, 0.9]):
        low, high = mean_ratio(values, 1.0).interval
        assert low < np.mean(values) < high


# Verdicts

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    "interval, allowed, outcome, reason",
    [
        ((0.986, 1.036), (0.94, 1.06), "holds", "interval [0.986, 1.036] lies inside [0.94, 1.06]"),
        ((0.94, 1.06), (0.94, 1.06), "holds", "interval [0.94, 1.06] lies inside [0.94, 1.06]"),
        ((3, 4), (2, INF), "holds", "interval [3.00, 4.00] lies above 2"),
        ((0.5, 0.9), (0.94, 1.06), "fails", "interval [0.500, 0.900] lies below [0.94, 1.06]"),
        ((1.1, 1.2), (-INF, 1.06), "fails", "interval [1.10, 1.20] lies above 1.06"),
        (
            (0.9, 1.0),
            (0.94, 1.06),
            "undecided",
            "interval [0.90, 1.00] lies only partly inside [0.94, 1.06]; more seeds narrow it",
        ),
        (
            (0.0, 2.0),
            (0.94, 1.06),
            "undecided",
            "interval [0.00, 2.00] lies only partly inside [0.94, 1.06]; more seeds narrow it",
        ),
        (
            (-INF, INF),
            (0.0, INF),
            "undecided",
            "interval [-inf, inf] lies only partly above 0; more seeds narrow it",
        ),
        ((NAN, 1.0), (0.9, 1.1), "undecided", "not a number: value 1, interval [nan, 1], allowed inside [0.9, 1.1]"),
    ],
)
def test_judge(interval, allowed, outcome, reason):
    verdict = judge("rate of student in n", 1, interval, allowed, source="parametric rate")
    assert (verdict.outcome, verdict.reason, verdict.source) == (outcome, reason, "parametric rate")
    value = together(1.0, *map(float, interval))[0]
    assert str(verdict) == f"rate of student in n: {outcome} ({value}; {reason})" and float(value) == 1.0


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        # As many decimals for all three as the interval is worth, zeros included.
        (1.0616, (0.9538, 1.204), "1.06 [0.95, 1.20]"),
        (14.02, (10.96, 16.13), "14.0 [11.0, 16.1]"),
        (14.8, (10.4, 18.2), "14.8 [10.4, 18.2]"),
        (0.0469, (0.00721, 0.0835), "0.0469 [0.0072, 0.0835]"),
        (0.0, (-0.02, 0.03), "0.0000 [-0.0200, 0.0300]"),
        (7.7e-5, (7.2e-5, 8.3e-5), "7.70e-05 [7.20e-05, 8.30e-05]"),
        (1.02, (0.4, np.inf), "1.02 [0.40, inf]"),
        (5.0, (0.001, 300.0), "5.00 [0.00100, 300]"),
        (1.0, (1.0, 1.0), "1 [1, 1]"),
        (np.nan, (np.nan, np.nan), "nan [nan, nan]"),
    ],
)
def test_a_value_and_its_interval_have_equal_decimals(value, interval, text):
    assert beside(value, interval) == text


def test_judge_of_a_value_that_is_not_a_number():
    assert judge("x", NAN, (0.9, 1.0), (0.0, 2.0)).outcome == "undecided"


# Bad input

GOOD = np.ones((2, 3))


def message(call, *args, **kwargs):
    with pytest.raises(ValueError) as error:
        call(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize(
    "n, risks, expected",
    [
        ([1, 2, 3], GOOD, "expected n of shape (k,) and risks of shape (k, seeds), got (3,) and (2, 3). "
         "Row i of risks holds the risks of all seeds at n[i]."),
        ([1, 2], [1.0, 2.0], "expected n of shape (k,) and risks of shape (k, seeds), got (2,) and (2,). "
         "Row i of risks holds the risks of all seeds at n[i]."),
        ([1, 2], [[1.0], [1.0, 2.0]], "risks must be numbers in a rectangular array; NumPy says: "),
        ([0, 2], GOOD, "n must be finite and positive, got 0 at index 0. A power law has no point there; leave it"),
        ([1, NAN], GOOD, "n must be finite and positive, got nan at index 1."),
        ([4], [[1.0, 2.0]], "an exponent needs at least 2 different n, got [4.0]."),
        ([4, 4], GOOD, "an exponent needs at least 2 different n, got [4.0, 4.0]."),
        ([4, 2], GOOD, "n must increase strictly, got [4.0, 2.0]. Sort n and the rows of risks together; "
         "put the seeds of equal n into one row."),
        ([1, 2], [[1.0, 1.0], [1.0, INF]], "risks has 1 infinite value, the first at index (1, 1). Give failed "
         "students as NaN (they are then counted as missing) or leave them out."),
        ([1, 2], [[1.0, 1.0], [NAN, NAN]], "there is no risk at n = 2: all 2 are NaN. Leave this n out."),
        ([1, 2], [[1.0, 1.0], [1.0, -2.0]], "the mean risk at n = 2 is -0.5; a power law needs positive means. "
         "Leave this n out, or estimate its risk with less error."),
    ],
)  # fmt: skip
def test_bad_tables(n, risks, expected):
    assert message(fit_rate, n, risks).startswith(expected)
    assert message(compare_rates, n, risks, risks).startswith("risks_a: " + expected)


@pytest.mark.parametrize("call", [lambda **options: fit_rate([1, 2], GOOD, **options),
                                  lambda **options: compare_rates([1, 2], GOOD, GOOD, **options),
                                  lambda **options: mean_ratio(GOOD[0], GOOD[1], **options)])  # fmt: skip
def test_bad_options(call):
    assert message(call, level=95.0) == "level is a probability strictly between 0 and 1, such as 0.95; got 95.0."
    assert message(call, draws=10) == "an interval needs at least 100 draws (2000 is a good number), got draws=10."


def test_bad_comparisons():
    assert message(compare_rates, [1, 2], GOOD, GOOD[:, :2]) == (
        "a paired comparison needs the same seeds in both tables, got 3 and 2 columns. "
        "Give the common seeds, or pass paired=False."
    )
    a, b = fit_rate([1, 2], GOOD), fit_rate([1, 2], GOOD, seed=1)
    assert message(a.minus, b) == (
        "only fits that were resampled alike can be subtracted: both paired, with equal (seeds, seed, level, draws); "
        "got (3, 0, 0.95, 2000) paired=True and (3, 1, 0.95, 2000) paired=True. Refit them alike."
    )
    assert message(a.slope_of, [1.0, 2.0, 3.0]) == (
        "values must hold one number for each of the 2 n of this fit, shape (2,); got shape (3,). "
        "Evaluate the curve at rate.n."
    )
    assert message(a.slope_of, [1.0, 0.0]) == (
        "values must be finite and positive, got 0 at index 1. "
        "Leave points at or below zero out of the measured fit too."
    )


def test_bad_ratios():
    assert message(mean_ratio, GOOD, 1.0) == (
        "the numerator must have shape (seeds,), the denominator (seeds,) or (); got (2, 3) and ()."
    )
    assert message(mean_ratio, GOOD[0], GOOD[0, :2]) == (
        "paired risks need the same seeds in numerator and denominator, got 3 and 2. "
        "Give the common seeds, or pass paired=False."
    )
    assert message(mean_ratio, [INF], 1.0).startswith("numerator has 1 infinite value, the first at index (0,). Give")
    assert message(mean_ratio, [NAN], 1.0) == "the numerator has no risks: none was given, or all are missing (NaN)."
    assert message(mean_ratio, [1.0], -2.0) == ("the denominator is -2; a ratio of risks needs a positive one.")


def test_bad_verdicts():
    assert message(judge, "x", 1.0, (0.9, 1.1), (2.0, 1.0)) == (
        "allowed for 'x' must be (low, high) with low <= high, got (2, 1). Use -inf or inf for an open end."
    )
    assert message(judge, "x", 1.0, (0.9, 1.1), (NAN, 1.0)).endswith("got (nan, 1). Use -inf or inf for an open end.")
    assert message(judge, "x", 1.0, (1.1, 0.9), (0.0, 1.0)) == (
        "the interval of 'x' must be (low, high) with low <= high, got (1.1, 0.9)."
    )


def test_share_has_the_exact_interval():
    """Clopper & Pearson's ends: the shares at which so few, or so many, successes have a chance of 2.5 %."""
    for successes, trials in ((300, 300), (297, 300), (5, 12), (0, 40)):
        estimate = share([1] * successes + [0] * (trials - successes))
        low, high = estimate.interval
        assert estimate.value == successes / trials and low <= estimate.value <= high
        if successes > 0:
            np.testing.assert_allclose(stats.binom.sf(successes - 1, trials, low), 0.025, rtol=1e-6)
        if successes < trials:
            np.testing.assert_allclose(stats.binom.cdf(successes, trials, high), 0.025, rtol=1e-6)
    np.testing.assert_allclose(share(np.ones(300)).interval, (0.025 ** (1 / 300), 1.0), rtol=1e-9)


def test_share_counts_what_is_missing_and_refuses_other_numbers():
    estimate = share([1.0, np.nan, 0.0, 1.0])
    assert estimate.value == 2 / 3 and "1 of 4 seeds left out" in estimate.warnings[0]
    for values, message in (
        ([0.5, 1.0], r"must be 0 or 1, got 0\.5\. For means of risks use mean_ratio"),
        ([np.nan], r"no successes or failures"),
        ([[1, 0]], r"shape \(seeds,\), got \(1, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            share(values)


def test_many_seeds_are_resampled_in_blocks(rng, monkeypatch):
    """The same numbers, whether multiplicities are kept or made block by block; and left out one by one, or in first order."""
    from tsjax.rates import fitted, resamples

    n, risks = 2.0 ** np.arange(4, 9), rng.chisquare(15, (5, 300)) / 15 / 2.0 ** np.arange(4, 9)[:, None]
    risks[2, 7] = np.nan
    whole = fit_rate(n, risks, draws=400)
    ratio = mean_ratio(risks[0], risks[1])
    for paired in (True, False):
        kept = fit_rate(n, risks, draws=400, paired=paired, method="student_t" if paired else "wls")
        monkeypatch.setattr(resamples, "_KEPT", 1000)
        monkeypatch.setattr(resamples, "_BLOCK", 7000)
        blocks = fit_rate(n, risks, draws=400, paired=paired, method="student_t" if paired else "wls")
        if paired:
            np.testing.assert_allclose(blocks.draws, kept.draws, rtol=1e-9)
            np.testing.assert_allclose(fit_rate(n, risks, draws=400).draws, whole.draws, rtol=1e-9)
            np.testing.assert_allclose(mean_ratio(risks[0], risks[1]).interval, ratio.interval, rtol=1e-9)
        else:
            # Other random numbers, of the same law.
            assert blocks.standard_error == pytest.approx(kept.standard_error, rel=0.2)
        monkeypatch.undo()
    refitted, bca = whole.left_out - whole.exponent, whole.interval_at(kind="bca")
    monkeypatch.setattr(fitted, "_MOST_REFITS", 10)
    # In first order the weights stay as they are.
    assert np.corrcoef(whole.left_out - whole.exponent, refitted)[0, 1] > 0.99
    np.testing.assert_allclose(whole.interval_at(kind="bca"), bca, atol=0.02 * (bca[1] - bca[0]))
