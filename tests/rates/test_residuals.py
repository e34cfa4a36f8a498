"""One run at every n: errors from the scatter about the curve, against statsmodels, SciPy and simulation."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize

from tsjax.rates import (
    Huber,
    choose_model,
    choose_window,
    compare_rates,
    diagnose,
    fit_joint_rate,
    fit_rate,
    score_forecast,
)

N = np.logspace(2, 5, 12)
U = np.log(N)


def published():
    """Twenty runs of a scaling law, 0.3 % off it."""
    random = np.random.default_rng(0)
    n = np.logspace(7, 10.5, 20)
    return n, ((1.69 + 406.4 * n**-0.34) * np.exp(0.003 * random.normal(size=20)))[:, None]


@pytest.mark.slow
def test_a_published_scaling_law_is_recovered():
    n, loss = published()
    choice = choose_model(n, loss)
    assert choice.best == "floor" and choice.errors == "residuals" and choice.probability["power"] < 1e-20
    assert choice.aicc["floor"] == pytest.approx(-230.1, abs=0.05)
    assert choice.aicc["power"] == pytest.approx(-111.5, abs=0.05)
    assert choose_model(n, loss, criterion="bic", draws=100).best == "floor" and "variance from residuals" in str(
        choice
    )
    rate = choice.rate
    # SciPy's own fit of the same residuals.
    curve = lambda n, c, a, f: np.log(np.exp(c) * n**-a + f)
    found, covariance = optimize.curve_fit(curve, n, np.log(loss[:, 0]), p0=[6.0, 0.34, 1.69])
    np.testing.assert_allclose(rate.theta, found, rtol=1e-5)
    np.testing.assert_allclose(rate.delta_error, np.sqrt(covariance[1, 1]), rtol=1e-4)
    np.testing.assert_allclose(rate.standard_error, rate.delta_error, rtol=0.1)
    assert (round(rate.exponent, 4), round(rate.delta_error, 4)) == (0.3423, 0.0033)
    assert (round(rate.constant), round(float(found[2]), 3)) == (423, 1.690)
    floor = rate.parameters["floor"].interval
    assert (floor[1] - floor[0]) / 2 == pytest.approx(2.11 * 0.005, rel=0.1)
    assert "1 seed, interval by residual bootstrap, 17 degrees of freedom" in str(rate)
    assert "residual bootstrap" in rate._repr_html_() and "assumes that the model is true" in rate.warnings[0]
    power = fit_rate(n, loss)
    assert "the curve bends" in power.warnings[1] and "a floor of 1.69" in " ".join(diagnose(power))


def test_errors_and_criteria_are_those_of_statsmodels(rng):
    risks = (N**-0.7 * np.exp(0.1 * rng.normal(size=12)))[:, None]
    rate, wild = fit_rate(N, risks), fit_rate(N, risks, errors="wild")
    found = sm.OLS(np.log(risks[:, 0]), sm.add_constant(-U)).fit()
    np.testing.assert_allclose([rate.exponent, rate.delta_error], [found.params[1], found.bse[1]], rtol=1e-10)
    np.testing.assert_allclose(rate.interval_at(kind="delta"), found.conf_int()[1], rtol=1e-8)
    np.testing.assert_allclose(wild.delta_error, found.HC3_se[1], rtol=1e-10)
    np.testing.assert_allclose(rate.left_out, found.params[1] - found.get_influence().dfbeta[:, 1], rtol=1e-8)
    # Resampled residuals scatter as they should, up to the factor that expanded percentiles undo.
    for fit, error in ((rate, found.bse[1]), (wild, found.HC3_se[1])):
        assert fit.standard_error == pytest.approx(error, rel=0.1)
    assert rate.effective_seeds == 11 > wild.effective_seeds > 5
    quadratic = sm.OLS(np.log(risks[:, 0]), sm.add_constant(np.stack([-U, U**2], axis=1))).fit()
    np.testing.assert_allclose(rate.goodness, quadratic.pvalues[2], rtol=1e-6)
    assert rate.drift is not None
    np.testing.assert_allclose(rate.drift.value, -2 * quadratic.params[2] * (U[-1] - U[0]), rtol=1e-8)
    spread = quadratic.conf_int(0.01)[2] * -2 * (U[-1] - U[0])
    np.testing.assert_allclose(rate.drift.interval, spread[::-1], rtol=1e-8)
    choice, k = choose_model(N, risks, models=["power", "logq"], draws=100), 12
    # statsmodels' likelihood has the constants k (1 + log 2 pi), and does not count the variance.
    np.testing.assert_allclose(choice.bic["power"], found.bic - k * (1 + np.log(2 * np.pi)) + np.log(k), rtol=1e-9)
    np.testing.assert_allclose(
        choice.aicc["power"], found.aic - k * (1 + np.log(2 * np.pi)) + 2 + 2 * 3 * 4 / (k - 4), rtol=1e-9
    )
    few = choose_model(N[:5], risks[:5], draws=100)
    assert few.best == "power" and few.skipped["floor"] == "3 parameters need 6 different n to be compared, got 5."


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["residuals", "wild"])
def test_interval_of_one_run_covers(rng, errors):
    """Between 93 and 97 %, within three standard errors of the simulation (2000 further curves: 94.1 and 95.2 %)."""
    hits, curves = 0, 500
    for _ in range(curves):
        risks = (N**-0.7 * np.exp(0.1 * rng.normal(size=12)))[:, None]
        low, high = fit_rate(N, risks, errors=errors, draws=400).interval
        hits += low <= 0.7 <= high
    error = np.sqrt(0.95 * 0.05 / curves)
    assert 0.93 - 3.0 * error < hits / curves < 0.97 + 3.0 * error, hits


def test_one_run_says_what_it_cannot(rng):
    risks = (N**-0.7 * np.exp(0.1 * rng.normal(size=12)))[:, None]
    two = fit_rate(N[:2], risks[:2])
    assert two.interval == (-np.inf, np.inf) and two.freedom == 0 and "no interval" in two.warnings[0]
    exact = fit_rate(N, (2.0 * N**-0.5)[:, None])
    np.testing.assert_allclose(exact.interval, 0.5, rtol=1e-9)
    assert "so the interval has no width" in exact.warnings[0]
    rate = fit_rate(N, risks)
    other = fit_rate(N, risks * np.exp(0.1 * rng.normal(size=(12, 1))))
    low, high = rate.minus(other).interval
    assert low < rate.exponent - other.exponent < high
    with pytest.raises(ValueError, match="subtracted on the same n only"):
        rate.minus(fit_rate(N[1:], risks[1:]))
    with pytest.raises(ValueError, match="rests on errors='residuals' and that of the other on 'wild'"):
        rate.minus(fit_rate(N, risks, errors="wild"))
    with pytest.raises(ValueError, match="no errors 'hc2'. Allowed: auto, seeds, residuals, wild"):
        fit_rate(N, risks, errors="hc2")
    (score,) = score_forecast(N, risks)
    assert score.ratio is not None and score.ratio.interval[0] < score.ratio.value < score.ratio.interval[1]
    assert len(choose_window(N, risks * (1 + 400 / N[:, None])).rate.n) < 12
    assert compare_rates(N, risks, risks).value == 0.0


def test_hubers_fit_is_that_of_scipy(rng):
    log_y = -0.7 * U + 0.02 * rng.normal(size=12)
    log_y[[2, 9]] += [0.8, -0.5]
    for delta, model in ((0.05, "power"), (1e-3, "power"), (0.05, "floor")):
        risks = np.exp(log_y)[:, None] + (1e-2 if model == "floor" else 0.0)
        rate = fit_rate(N, risks, model=model, method=Huber(delta), draws=200)
        residual = lambda theta, r=rate: r.log_risk - r.model.evaluate(theta, N)[0]
        found = optimize.least_squares(
            residual, rate.theta, loss="huber", f_scale=delta, x_scale=np.abs(rate.theta), xtol=1e-14, ftol=1e-14
        )
        size = np.abs(rate.residuals)
        inside = np.minimum(size, delta)
        # The same minimum: none lower nearby.
        assert (inside * (size - inside / 2)).sum() <= found.cost * (1 + 1e-4)
        if model == "power":
            assert abs(rate.exponent - 0.7) < 0.02 < abs(fit_rate(N, risks).exponent - 0.7)
            assert f"huber, delta = {delta:g}" in str(rate)
    assert fit_rate(N, risks, method="huber", draws=100).method == Huber(1e-3)
    with pytest.raises(ValueError, match="delta of Huber's loss is a distance in log risk, finite and positive; got 0"):
        Huber(0.0)
    with pytest.raises(ValueError, match="Huber's loss has none. Choose with method='wls'"):
        choose_model(N, risks, method=Huber())


def test_a_renamed_method_says_its_new_name():
    with pytest.raises(ValueError, match="no method 'student'. Student's t is called 'student_t' now. Allowed: wls,"):
        fit_rate(N, np.ones((12, 5)), method="student")


def test_a_sum_of_powers_is_no_product(rng):
    n, d = (axis.ravel() for axis in np.meshgrid(np.logspace(2, 5, 5), np.logspace(2, 5, 5)))
    for seeds in (1, 2, 16):
        noise = np.exp(0.02 * rng.normal(size=(25, seeds)))
        joint = fit_joint_rate({"N": n, "D": d}, (n**-0.5 + d**-0.4)[:, None] * noise)
        assert joint.goodness < 1e-3 and any("one product of powers of N, D does not hold" in w for w in joint.warnings)
        product = fit_joint_rate({"N": n, "D": d}, (n**-0.5 * d**-0.4)[:, None] * noise)
        assert product.goodness > 1e-3 and not any("product of powers" in w for w in product.warnings)
        assert product.exponents["N"].interval[0] < 0.5 < product.exponents["N"].interval[1]
    one = fit_joint_rate({"N": n, "D": d}, (n**-0.5 * d**-0.4 * np.exp(0.02 * rng.normal(size=25)))[:, None])
    assert one.errors == "residuals" and "residual bootstrap" in one.warnings[0]
    few = fit_joint_rate({"N": n[:4], "D": d[[0, 5, 0, 5]]}, (n[:4] ** -0.5)[:, None])
    assert np.isnan(few.goodness) and "too few points to see whether" in " ".join(few.warnings)
