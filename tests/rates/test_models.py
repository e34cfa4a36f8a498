"""Models and methods against other libraries: SciPy's least squares, statsmodels' WLS and GLM, SciPy's bootstrap."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import statsmodels.api as sm
from helpers import SEED
from scipy import optimize, stats

from tsjax.rates import MODELS, BrokenScaling, FiniteSample, choose_model, fit_joint_rate, fit_rate
from tsjax.rates.fitting import fit_model

N = 2.0 ** np.arange(5, 14)
U = np.log(N)
# One curve of each model: log risk on N, and the exponent in it.
PLANTED = {
    "power": (-U, 1.0),
    "floor": (np.log(N**-0.7 + N[-1] ** -0.7), 0.7),
    "finite": (-U + np.log1p(150.0 / N), 1.0),
    "log": (-U + np.log(U), 1.0),
    "logq": (-U + 3.0 * np.log(U), 1.0),
    "broken": (-0.5 * U - 0.25 * np.logaddexp(0.0, (U - np.log(512.0)) / 0.5), 1.0),
    "logistic": (-np.log1p((N / 150.0) ** 1.2), 1.2),
    "exponential": (np.log(np.exp(-N / 900.0) + 0.1), N[-1] / 900.0),
    "pow4": (np.log((N / 100.0 + 1.0) ** -0.8 + 0.02), 0.8),
    "mmf4": (np.log(1.0 / (1.0 + (N / 150.0) ** 1.2) + 0.02), 1.2),
    "wbl4": (np.log(2.0 * np.exp(-((N / 40.0) ** 0.5)) + 0.02), 0.5 * (N[-1] / 40.0) ** 0.5),
    "bnsl": (-0.4 * U - 0.5 * 0.7 * np.logaddexp(0.0, (U - np.log(400.0)) / 0.7), 0.9),
}


def noisy(rng, name, seeds=64):
    return np.exp(PLANTED[name][0])[:, None] * rng.chisquare(15, (len(N), seeds)) / 15


@pytest.mark.parametrize("name", MODELS)
def test_every_model_recovers_its_own_curve_and_knows_its_derivatives(name):
    assert set(PLANTED) == set(MODELS)
    model, (log_y, exponent) = MODELS[name](), PLANTED[name]
    theta, loss = fit_model(model, N, log_y, np.ones(len(N)), "wls")
    np.testing.assert_allclose(model.exponents(theta, N), exponent, rtol=2e-4)
    assert loss < 1e-10
    np.testing.assert_allclose(model.evaluate(theta, N)[0], log_y, atol=1e-5)
    theta = theta + np.linspace(0.01, 0.02, len(theta)) * np.abs(theta)
    for i in range(len(theta)):
        step = 1e-6 * max(abs(theta[i]), 1e-3) * np.eye(len(theta))[i]
        difference = model.evaluate(theta + step, N)[0] - model.evaluate(theta - step, N)[0]
        np.testing.assert_allclose(model.evaluate(theta, N)[1][:, i], difference / (2 * step[i]), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_the_exponent_is_the_local_one_of_the_part_above_the_floor(name):
    """In the limit, or at the largest n; and its gradient is a difference quotient."""
    model, (log_y, exponent) = MODELS[name](), PLANTED[name]
    theta = fit_model(model, N, log_y, np.ones(len(N)), "wls")[0]
    if "floor" in model.parameters:
        theta = np.where(np.array(model.parameters) == "floor", 0.0, theta)
    # Logarithms vanish slowly.
    far, rtol = (1e12, 0.15 if name in ("log", "logq") else 1e-3) if model.asymptotic else (N[-1], 1e-3)
    near = far * (1.0 + 1e-4 * np.array([-1.0, 1.0]))
    slope = -np.diff(model.evaluate(theta, near)[0])[0] / np.diff(np.log(near))[0]
    np.testing.assert_allclose(slope, exponent, rtol=rtol)
    steps = 1e-5 * np.eye(len(theta))
    found = [(model.exponents(theta + step, N) - model.exponents(theta - step, N)) / 2e-5 for step in steps]
    np.testing.assert_allclose(model.exponent_gradient(theta, N), found, rtol=1e-6, atol=1e-6)


def test_a_local_exponent_is_called_one(rng):
    for name in MODELS:
        rate = fit_rate(N, noisy(rng, name), model=name, draws=100)
        assert any("falls faster than any power" in text for text in rate.warnings) == (not rate.model.asymptotic)
        assert rate.model.meaning in rate._repr_html_()
        np.testing.assert_allclose(rate.slope_of(np.exp(rate.log_risk)), rate.exponent, rtol=1e-5)


@pytest.mark.slow
def test_several_breaks_are_found(rng):
    """Against the best that SciPy's bounded least squares finds from the best starts; and the error by the delta method."""
    n, model = np.logspace(1, 6, 30), BrokenScaling(2)
    u, theta = np.log(n), np.array([0.0, 0.8, -0.6, np.log(300.0), np.log(0.5), 0.7, np.log(2e4), np.log(0.6)])
    log_y = model.evaluate(theta, n)[0]
    np.testing.assert_allclose(np.diff(log_y)[[0, -1]] / np.diff(u)[0], [-0.9, -0.8], atol=0.02)
    clean = fit_rate(n, np.exp(log_y)[:, None], model=model, draws=100)
    np.testing.assert_allclose(clean.theta, theta, atol=1e-3)
    rate = fit_rate(n, np.exp(log_y + 0.03 * rng.normal(size=30))[:, None], model=model, draws=100)
    residual = lambda theta: rate.log_risk - model.evaluate(theta, n)[0]
    low, high = model.limits(n)
    starts = model.starts(n, rate.log_risk[None], np.ones((1, 30))).reshape(-1, 8)
    losses = np.array([(residual(start) ** 2).sum() for start in starts])
    best = min(
        2 * optimize.least_squares(residual, np.clip(starts[i], low + 1e-9, high - 1e-9), bounds=(low, high)).cost
        for i in np.argsort(losses)[:2]
    )
    assert (rate.residuals**2).sum() <= best * (1 + 1e-6)
    choice = choose_model(n, np.exp(rate.log_risk)[:, None], models=["power", "bnsl", model], draws=100)
    assert choice.best == "bnsl2" and choice.rate.model == model
    with pytest.raises(ValueError, match="has 1, 2 or 3 breaks here .* got 4. For curves"):
        BrokenScaling(4)


@pytest.mark.parametrize("name", MODELS)
def test_weighted_fits_are_those_of_scipy(rng, name):
    rate = fit_rate(N, noisy(rng, name), model=name, draws=1000)
    residual = lambda theta: np.sqrt(rate.weights) * (rate.log_risk - rate.model.evaluate(theta, N)[0])
    low, high = rate.model.limits(N)
    # From nearby, within the limits of the model.
    found = optimize.least_squares(
        residual,
        np.clip(rate.theta * 1.01, low, high),
        bounds=(low, high),
        x_scale=np.abs(rate.theta) + 1e-12,
        xtol=1e-14,
        ftol=1e-14,
        max_nfev=2000,
    )
    # The same minimum: no lower one nearby, and none missed.
    assert (residual(rate.theta) ** 2).sum() <= 2 * found.cost * (1 + 1e-6)
    low, high = rate.interval_at(0.9999)
    assert low < PLANTED[name][1] < high


def test_resampled_nonlinear_fits_are_single_fits(rng):
    rate = fit_rate(N, noisy(rng, "floor"), model="floor", draws=100, seed=3)
    columns = np.random.default_rng(3).integers(64, size=(100, 64))
    for b in (0, 57):
        one = fit_rate(N, rate.table.risks[:, columns[b]], model="floor", draws=100)
        np.testing.assert_allclose(one.exponent, rate.draws[b], rtol=1e-4)


def test_power_law_and_its_delta_error_are_those_of_statsmodels(rng):
    risks = noisy(rng, "power")
    risks[3, :9] = np.nan
    rate = fit_rate(N, risks, paired=False, draws=100)
    found = sm.WLS(rate.log_risk, sm.add_constant(U), weights=rate.weights).fit(cov_type="fixed scale")
    np.testing.assert_allclose([rate.theta[0], -rate.theta[1]], found.params, rtol=1e-10)
    np.testing.assert_allclose(rate.delta_error, found.bse[1], rtol=1e-10)


def test_paired_delta_error_is_the_cluster_robust_one(rng):
    """Linearised risks, one cluster per seed: statsmodels' sandwich of the same weighted regression."""
    risks = noisy(rng, "power", 24) * np.exp(0.3 * rng.normal(size=24))
    rate = fit_rate(N, risks, draws=100)
    response = (rate.log_risk[:, None] + risks / rate.mean_risk[:, None] - 1.0).ravel()
    # The sandwich would also have the residuals of the line, which the variance of a mean has not.
    line = np.repeat(rate.residuals, 24)
    fit = sm.WLS(response - line, sm.add_constant(np.repeat(U, 24)), weights=np.repeat(rate.weights, 24))
    robust = fit.fit(cov_type="cluster", cov_kwds={"groups": np.tile(np.arange(24), len(N)), "use_correction": False})
    np.testing.assert_allclose(rate.delta_error, robust.bse[1] * np.sqrt(24 / 23), rtol=1e-8)


def test_gamma_likelihood_is_that_of_statsmodels(rng):
    risks = noisy(rng, "power", 16)
    risks[2, :7] = np.nan
    rate = fit_rate(N, risks, method="gamma", draws=100)
    there = ~np.isnan(risks)
    design = sm.add_constant(np.repeat(U, 16)[there.ravel()])
    found = sm.GLM(risks[there], design, family=sm.families.Gamma(sm.families.links.Log())).fit(tol=1e-12)
    np.testing.assert_allclose([rate.theta[0], -rate.theta[1]], found.params, atol=1e-6)


def test_typical_risk_is_the_students_location_of_scipy(rng):
    risks = noisy(rng, "power", 40)
    risks[1, :2] *= 300.0
    rate = fit_rate(N, risks, method="student_t", draws=100)
    for i in (0, 1):
        _, at, _ = stats.t.fit(np.log(risks[i]), f0=4.0)
        np.testing.assert_allclose(rate.log_risk[i], at, atol=1e-3)
    clean = fit_rate(N, noisy(np.random.default_rng(SEED), "power", 40), method="student_t", draws=100)
    assert abs(rate.exponent - clean.exponent) < 0.05 < abs(rate.residuals[1] - np.log(risks.mean(axis=1))[1])
    with pytest.raises(ValueError, match="takes logarithms of single risks, and the one at n = 32, column 3, is 0"):
        risks[0, 3] = 0.0
        fit_rate(N, risks, method="student_t")


@pytest.mark.parametrize("kind", ["bca", "percentile"])
def test_bootstrap_is_that_of_scipy(rng, kind):
    risks, seeds = noisy(rng, "power", 20), 20
    rate = fit_rate(N, risks, draws=500, seed=4)

    def exponent(columns, axis=-1):
        taken = risks[:, columns]
        mean, error = taken.mean(axis=axis), taken.std(axis=axis, ddof=1) / np.sqrt(taken.shape[-1])
        w = (mean / error) ** 2
        w, y = w / w.sum(axis=0), np.log(mean)
        u = U.reshape(-1, *[1] * (y.ndim - 1))
        du = u - (w * u).sum(axis=0)
        return -(w * du * y).sum(axis=0) / (w * du * du).sum(axis=0)

    found = stats.bootstrap(
        (np.arange(seeds),),
        exponent,
        n_resamples=500,
        method="BCa" if kind == "bca" else "percentile",
        rng=np.random.default_rng(4),
    )
    np.testing.assert_allclose(rate.draws, found.bootstrap_distribution, rtol=1e-9)
    if kind == "bca":
        ends = found.confidence_interval
        np.testing.assert_allclose(rate.interval_at(kind="bca"), [ends.low, ends.high], rtol=1e-8)


def test_intervals_invert_to_p_values(rng):
    rate = fit_rate(N, noisy(rng, "power"))
    low, high = rate.interval_at(0.9)
    np.testing.assert_allclose([rate.p_value(low, "above"), rate.p_value(high, "below")], 0.05, atol=1e-3)


def test_groups_are_resampled_whole(rng):
    teacher = np.repeat(rng.normal(size=(len(N), 40)), 5, axis=1)
    risks = np.exp(0.3 * (teacher + rng.normal(size=teacher.shape))) / N[:, None]
    groups = np.repeat([f"teacher {i}" for i in range(10, 50)], 5)
    flat, rate = fit_rate(N, risks), fit_rate(N, risks, groups=groups)
    assert rate.units == 40 and rate.effective_seeds == pytest.approx(40.0) and "200 seeds in 40 groups" in str(rate)
    # Equal groups: the variance of a mean is that of the mean of group means.
    expected = risks.reshape(len(N), 40, 5).mean(axis=2).std(axis=1, ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(rate.mean_se, expected, rtol=1e-10)
    assert rate.delta_error > 1.3 * flat.delta_error
    take = np.random.default_rng(0).integers(40, size=(2000, 40))[7]
    columns = (take[:, None] * 5 + np.arange(5)).ravel()
    one = fit_rate(N, risks[:, columns], groups=np.repeat(np.arange(40), 5), draws=100)
    np.testing.assert_allclose(one.exponent, rate.draws[7], rtol=1e-9)
    with pytest.raises(ValueError, match=r"groups must label each of the 200 columns"):
        fit_rate(N, risks, groups=[1, 2])


def test_effective_seeds(rng):
    risks = noisy(rng, "power")
    assert fit_rate(N, risks).effective_seeds == pytest.approx(64.0)
    # With 6 seeds at most n, the few decide.
    risks[3:, 6:] = np.nan
    assert 6 < fit_rate(N, risks).effective_seeds < 40


def test_finite_sample_factor_in_units_of_parameters(rng):
    risks = noisy(rng, "finite")
    one, scaled = (fit_rate(N, risks, model=FiniteSample(scale), draws=100) for scale in (1.0, 15.0))
    np.testing.assert_allclose(one.parameters["c"].value, 15.0 * scaled.parameters["c"].value, rtol=1e-5)
    assert one.parameters["c"].interval[0] < 150.0 < one.parameters["c"].interval[1]


def test_joint_exponents_do_not_depend_on_the_order_of_the_axes(rng):
    """Wild residuals know each axis by its own degrees of freedom."""
    n, d = (axis.ravel() for axis in np.meshgrid(2.0 ** np.arange(5, 10), [3.0, 4.0, 20.0]))
    risks = (n**-0.8 * d**0.5 * np.exp(0.1 * rng.normal(size=n.size)))[:, None]
    one = fit_joint_rate({"n": n, "d": d}, risks, errors="wild", draws=400)
    other = fit_joint_rate({"d": d, "n": n}, risks, errors="wild", draws=400)
    for axis in ("n", "d"):
        np.testing.assert_allclose(one.exponents[axis].interval, other.exponents[axis].interval, rtol=1e-9)


def test_joint_exponents_are_those_of_statsmodels(rng):
    n, d = (axis.ravel() for axis in np.meshgrid([64.0, 128.0, 256.0, 512.0], [4.0, 8.0, 16.0]))
    risks = (n**-1.0 * d**1.5)[:, None] * rng.chisquare(15, (12, 32)) / 15
    joint = fit_joint_rate({"n": n, "d": d}, risks, paired=False)
    mean, error = risks.mean(axis=1), risks.std(axis=1, ddof=1) / np.sqrt(32)
    design = sm.add_constant(np.stack([np.log(n), np.log(d)], axis=1))
    found = sm.WLS(np.log(mean), design, weights=(mean / error) ** 2).fit(cov_type="fixed scale")
    np.testing.assert_allclose([-e.value for e in joint.exponents.values()], found.params[1:], rtol=1e-9)
    for estimate, error in zip(joint.exponents.values(), found.bse[1:], strict=True):
        np.testing.assert_allclose(estimate.interval[1] - estimate.interval[0], 4.0 * error, rtol=0.15)
    assert joint.exponents["d"].interval[0] < -1.5 < joint.exponents["d"].interval[1] and not joint.warnings
    with pytest.raises(ValueError, match="cannot be distinguished"):
        fit_joint_rate({"n": n, "m": n**2}, risks)
    with pytest.raises(ValueError, match="one value for each of the 12 rows"):
        fit_joint_rate({"n": n[:3]}, risks)


def test_plot_draws_the_data_the_fit_and_the_residuals(rng):
    rate = fit_rate(N, noisy(rng, "finite"), model="finite", draws=200)
    curve, residuals, local = rate.plot()
    np.testing.assert_allclose(curve.containers[0].lines[0].get_ydata(), rate.mean_risk)
    np.testing.assert_allclose(residuals.containers[0].lines[0].get_ydata(), rate.residuals)
    np.testing.assert_allclose(local.lines[0].get_ydata(), rate.local_slopes)
    fit, low, high = rate.predict([100.0, 1e6])
    assert ((low < fit) & (fit < high)).all() and high[1] / low[1] > high[0] / low[0]
    plt.close("all")


def test_wrong_models_and_methods_say_what_is_allowed():
    good = np.ones((2, 5)) * np.linspace(1, 2, 5)
    for options, message in (
        ({"model": "cubic"}, "no model 'cubic'. Allowed: power, floor, finite, log, logq, broken, logistic, "),
        ({"model": "floor"}, "the model 'floor' has 3 parameters and needs as many different n, got 2"),
        ({"model": "log"}, "takes log log n, so n must exceed 1; got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_rate([1.0, 2.0], good, **options)
    with pytest.raises(ValueError, match="finite and positive; got 0"):
        FiniteSample(0.0)
