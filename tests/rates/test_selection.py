"""Choice of model and window, forecasts, crossings, simultaneous intervals, tests, diagnosis and plans."""

import numpy as np
import pytest
from helpers import SIZES as N
from helpers import noise

from tsjax.rates import (
    choose_model,
    choose_window,
    crossing,
    diagnose,
    equivalence,
    fit_rate,
    forecast,
    score_forecast,
    simultaneous,
    superiority,
    windows,
)


def test_the_planted_model_is_chosen(rng):
    for name, curve in (("power", 1 / N), ("finite", (1 + 150 / N) / N), ("floor", N**-0.7 + N[-1] ** -0.7)):
        choice = choose_model(N, curve[:, None] * noise(rng, 512), draws=100)
        assert choice.best == name and choice.probability[name] > 0.5, str(choice)
        assert choice.rate is choice.rates[name] and sum(choice.probability.values()) == pytest.approx(1.0)
        assert abs(choice.held_out[name]) < 0.3
    # By hand, from the definition.
    rate, p, k = choice.rates["floor"], 3, len(N)
    chi = (rate.residuals**2 / rate.variance).sum() * 509 / 511
    assert choice.aicc["floor"] == pytest.approx(chi + 2 * p + 2 * p * (p + 1) / (k - p - 1))
    few = choose_model(N[:4], noise(rng, 16)[:4] / N[:4, None], draws=100)
    assert few.best == "power" and few.skipped["broken"] == "4 parameters need 6 different n to be compared, got 4."


def test_a_factor_without_an_exponent_is_a_floor(rng):
    choice = choose_model(N, (1 / N + 1e-3)[:, None] * noise(rng, 256), draws=200)
    assert choice.best == "floor"


def test_windows_and_their_choice(rng):
    risks = ((1 + 200 / N) / N)[:, None] * noise(rng, 64)
    fits = windows(N, risks, draws=200)
    assert [len(fit.n) for fit in fits] == [9, 8, 7, 6, 5, 4, 3]
    assert fits[2].exponent == pytest.approx(fit_rate(N[2:], risks[2:], draws=200).exponent, rel=1e-12)
    choice = choose_window(N, risks, draws=400)
    assert len(choice.rate.n) < 8 and choice.reason.startswith(f"n = {choice.rate.n[0]:g}..8192: ")
    assert abs(choice.rate.exponent - 1.0) < abs(fits[0].exponent - 1.0)
    straight = choose_window(N, (1 / N)[:, None] * noise(rng, 64), draws=400)
    assert len(straight.rate.n) >= len(choice.rate.n)
    curve = (1 / N)[:, None] * noise(rng, 16)
    assert len(choose_window(N, curve, model="broken", draws=100).rate.n) >= 5
    for options, message in (({"level": 95.0}, "level"), ({"draws": 5}, "draws")):
        with pytest.raises(ValueError, match=message):
            windows(N, curve, **options)
    with pytest.raises(ValueError, match="at least 4 different n for this model, got 3"):
        choose_window(N[:3], risks[:3])


def test_forecasts_are_scored(rng):
    risks = (1 / N)[:, None] * noise(rng, 32)
    (score,) = score_forecast(N, risks)
    fit = fit_rate(N[:-1], risks[:-1])
    assert score.predicted == pytest.approx(fit.constant * N[-1] ** -fit.exponent)
    assert score.measured == pytest.approx(risks[-1].mean()) and score.ratio is not None
    assert score.ratio.value == pytest.approx(score.measured / score.predicted)
    assert score.interval[0] < score.predicted < score.interval[1]
    # Fewer new seeds scatter more, farther ones too.
    width = lambda f: np.log(f.interval[1] / f.interval[0])
    assert width(forecast(fit, 1e4, seeds=4)) > width(forecast(fit, 1e4)) < width(forecast(fit, 1e6))
    bent = (1 / N + 1e-3)[:, None] * noise(rng, 64)
    assert not score_forecast(N, bent)[0].inside and len(score_forecast(N, bent, hold_out=3)) == 3
    with pytest.raises(ValueError, match="holding out 8 of 9 n leaves 1"):
        score_forecast(N, bent, hold_out=8)


def test_crossing_is_where_means_cross(rng):
    a, b = 4096.0**0.5 / N[:, None] * noise(rng, 64), N[:, None] ** -0.5 * noise(rng, 64)
    found = crossing(N, a, b)
    log = np.log(a.mean(axis=1) / b.mean(axis=1))
    i = int(np.flatnonzero(log >= 0)[-1])
    expected = np.exp(np.interp(0.0, [-log[i], -log[i + 1]], np.log(N[i : i + 2])))
    assert found.value == pytest.approx(expected) and found.interval[0] < 4096 < found.interval[1]
    assert crossing(N, a / 1e6, b).interval == (0.0, 0.0)
    never = crossing(N, a * 1e6, b)
    assert never.value == np.inf and never.interval == (np.inf, np.inf)
    assert crossing(N, a[:, :2], b[:, :2]).interval == (0.0, np.inf)
    with pytest.raises(ValueError, match="paired comparison needs the same seeds"):
        crossing(N, a, b[:, :3])


def test_crossing_of_numbers_of_any_sign_is_where_their_difference_falls_through_0(rng):
    """Means 1 - log n / log 4096 and 0.25: they meet where log n is 0.75 log 4096, and a is negative from 4096 on."""
    line = 1.0 - np.log(N) / np.log(4096.0)
    a = line[:, None] + 0.1 * rng.normal(size=(len(N), 64))
    b = 0.25 + 0.1 * rng.normal(size=(len(N), 64))
    a[2, :8] = np.nan
    found = crossing(N, a, b, positive=False)
    difference = np.nanmean(a, axis=1) - b.mean(axis=1)
    i = int(np.flatnonzero(difference >= 0)[-1])
    expected = np.exp(np.interp(0.0, [-difference[i], -difference[i + 1]], np.log(N[i : i + 2])))
    assert found.value == pytest.approx(expected) and found.interval[0] < 4096**0.75 < found.interval[1]
    unpaired = crossing(N, a, b[:, :32], positive=False, paired=False)
    assert unpaired.interval[0] < 4096**0.75 < unpaired.interval[1]
    assert crossing(N, a - 9, b, positive=False).interval == (0.0, 0.0)
    assert crossing(N, a + 9, b, positive=False).interval == (np.inf, np.inf)
    # Differences of risks and their ratios change sign at one place, where noise is small.
    risks = [(scale / N**rate)[:, None] * (1 + 1e-6 * noise(rng, 8)) for scale, rate in ((64.0, 1.0), (8.0, 0.5))]
    ratio, plain = crossing(N, *risks), crossing(N, *risks, positive=False)
    assert abs(np.log(plain.value / ratio.value)) < np.log(N[1] / N[0])
    with pytest.raises(ValueError, match=r"risks_a: there is no value at n = .*\. Leave this n out"):
        crossing(N, np.full_like(a, np.nan), b, positive=False)


def test_simultaneous_intervals_are_wider_than_one_and_shorter_than_bonferroni(rng):
    common = rng.normal(size=(len(N), 32))
    rates = {
        str(i): fit_rate(N, np.exp(0.3 * (common + 0.5 * rng.normal(size=common.shape))) / N[:, None]) for i in range(5)
    }
    length = lambda interval: interval[1] - interval[0]
    together = sum(length(estimate.interval) for estimate in simultaneous(rates).values())
    assert together > 1.1 * sum(length(rate.interval) for rate in rates.values())
    assert together < sum(length(rate.interval_at(0.99)) for rate in rates.values())
    against = simultaneous(rates, against="0")
    assert set(against) == {"1", "2", "3", "4"}
    assert against["3"].value == pytest.approx(rates["3"].exponent - rates["0"].exponent)
    with pytest.raises(ValueError, match="against names 'x'"):
        simultaneous(rates, against="x")


def test_equivalence_and_superiority(rng):
    fast, slow = (fit_rate(N, N[:, None] ** -e * noise(rng, 64)) for e in (1.0, 0.5))
    verdict = equivalence(fast, 1.0, 0.1)
    assert (
        verdict.outcome == "holds" and verdict.interval == fast.interval_at(0.9) and "at level 0.05" in verdict.reason
    )
    assert equivalence(fast, 1.0, 1e-4).outcome == "undecided" and equivalence(slow, 1.0, 0.1).outcome == "fails"
    # Significant exactly where the interval lies inside, at any level.
    edge = fast.p_value(0.98, "above")
    for alpha, outcome in ((min(edge * 1.2, 0.49), "holds"), (edge * 0.8, "undecided")):
        assert equivalence(fast, 1.98, 1.0, alpha=alpha).outcome == outcome
    assert superiority(fast, slow).outcome == "holds" and superiority(slow, fast).outcome == "fails"
    assert superiority(fast, slow, margin=0.5).outcome == "undecided"
    for margin, alpha, message in ((0.0, 0.05, "margin is the largest"), (0.1, 0.6, "alpha is the probability")):
        with pytest.raises(ValueError, match=message):
            equivalence(fast, 1.0, margin, alpha=alpha)


def test_diagnosis(rng):
    plain = fit_rate(N, (1 / N)[:, None] * noise(rng, 64))
    assert diagnose(plain) == ()
    found = diagnose(plain, predicted=N**-0.53, asymptote=0.43)
    assert found == (
        "pre-asymptotic: over n = 32..8192 theory predicts 0.53, and 0.43 in the limit; compare with the former.",
    )
    floor = fit_rate(N, (N**-0.7 + 0.01)[:, None] * noise(rng, 256))
    text = " ".join(diagnose(floor, noise_variance=0.01))
    assert "a floor of 0.01" in text and "variance 0.01 of the noise on labels" in text
    # That it bends is said by what the bend is.
    assert floor.warnings[-1].startswith("the curve bends") and "the curve bends" not in text
    rounding = fit_rate(N, (N**-3.0 + 2e-7)[:, None] * noise(rng, 256))
    assert "rounding in float32" in " ".join(diagnose(rounding))
    # Curves that steepen have no floor.
    assert "floor of" not in " ".join(diagnose(fit_rate(N, (N[:, None] ** -0.5 - 0.008) * noise(rng, 256))))
    narrow = fit_rate(N[:2], noise(rng, 16)[:2] / N[:2, None])
    assert "narrow window: n = 32..64 spans a factor 2" in narrow.warnings[0] and "!" in repr(narrow)
