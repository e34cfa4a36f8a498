import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.optimize import brentq

import tsjax as ts
from tsjax import theory
from tsjax.estimators.optimal_linear import OptimalLinear
from tsjax.estimators.ridge import KernelRidge
from tsjax.kernels import RBF, ArcCosine, Laplace, Spectrum, ZonalSpectrum, gegenbauer, ntk


def _problem(d=5, m=3, noise_std=0.1, **kwargs):
    return ts.Problem(ts.Sphere(d), ts.ReLUTeacher(m, **kwargs), noise_std)


def _slope(n, risks):
    return np.polyfit(np.log(n), np.log(risks), 1)[0]


def test_limits_and_exponents():
    np.testing.assert_allclose(theory.cramer_rao(3, 5, [100, 1000], 0.1), [1.5e-3, 1.5e-4])
    assert theory.optimal_linear_exponent(5) == 3 / 7
    assert theory.linear_minimax_exponent(5) == 7 / 12


# Reference values of an independent prototype, over powers of 2 (first and last one).
@pytest.mark.parametrize(
    ("d", "m", "noise_std", "powers", "slope"),
    [
        (5, 3, 0.1, (7, 13), -0.524),
        (10, 5, 0.1, (7, 13), -0.438),
        (5, 3, 0.5, (7, 13), -0.62),
        (10, 5, 0.5, (7, 13), -0.56),
        (5, 3, 0.1, (13, 20), -0.444),
        (10, 5, 0.1, (13, 20), -0.299),
    ],
)
def test_slopes_of_the_optimal_linear_estimator(d, m, noise_std, powers, slope):
    n = 2.0 ** np.arange(powers[0], powers[1] + 1)
    risks = theory.predicted_optimal_linear_risk(_problem(d, m, noise_std), n)
    np.testing.assert_allclose(_slope(n, risks), slope, atol=0.004)


@pytest.mark.slow
def test_the_asymptotic_exponent_is_reached():
    # In d = 3 the slope is close to the asymptote 3/5, from above.
    n = 2.0 ** np.arange(13, 18)
    slope = theory.predicted_slope(ArcCosine(1), _problem(3, 2), n, ridge=0.1**2 * 3 / 2)
    np.testing.assert_allclose(slope, -_slope(n, theory.predicted_optimal_linear_risk(_problem(3, 2), n)), rtol=1e-12)
    assert 0.95 * theory.optimal_linear_exponent(3) < slope < 1.1 * theory.optimal_linear_exponent(3)


@pytest.mark.slow
def test_noise_is_the_best_ridge_for_the_covariance_and_no_kernel_beats_it():
    n = 2.0 ** np.arange(7, 13)
    for d, m, noise_std in ((5, 3, 0.1), (10, 5, 0.5)):
        problem = _problem(d, m, noise_std)
        optimal = theory.predicted_optimal_linear_risk(problem, n)
        covariance = (m / d) * ArcCosine(1)
        np.testing.assert_allclose(theory.predicted_curve(covariance, problem, n), optimal, rtol=1e-4)
        ratio = theory.predicted_curve(ntk(), problem, n) / optimal
        assert (ratio > 1.0).all() and (ratio < 1.03).all()
        assert (theory.predicted_curve(RBF(1.0), problem, n) > optimal).all()


def test_optimal_is_the_minimum_over_ridges():
    problem, n = _problem(), np.array([128, 1000])
    target, spectrum = theory.target_power(problem), gegenbauer(ntk(), 5)
    ridges = np.logspace(-5, 3, 2001)
    brute = theory.predicted_ridge_risk(spectrum, target, n[:, None], ridges[None, :], 0.1).min(axis=1)
    np.testing.assert_allclose(theory.predicted_curve(spectrum, problem, n), brute, rtol=5e-5)
    # Without noise the best ridge is at the end, 0.
    silent = _problem(noise_std=0.0)
    at_zero = theory.predicted_curve(spectrum, silent, n, ridge=0.0)
    np.testing.assert_allclose(theory.predicted_curve(spectrum, silent, n), at_zero, rtol=0.02)


def test_kappa_solves_its_equation_and_the_formula_is_that_of_the_paper():
    spectrum, target = gegenbauer(ntk(), 5), theory.target_power(_problem())
    # By hand, with multiplicities written out: degrees 0 to 4 only.
    few = ZonalSpectrum(spectrum.eigenvalues[:5], spectrum.multiplicities[:5], jnp.array(1.0), jnp.array(0.02), 5)
    aim = ZonalSpectrum(target.eigenvalues[:5], target.multiplicities[:5], jnp.array(0.3), jnp.array(0.001), 5)
    lambdas = np.repeat(few.eigenvalues, np.round(few.multiplicities).astype(int))
    powers = np.repeat(aim.eigenvalues, np.round(aim.multiplicities).astype(int))
    n, ridge = 25.0, 0.3
    kappa = brentq(lambda k: np.sum(lambdas / (lambdas + k)) + (ridge + 0.02) / k - n, 1e-12, 10.0, xtol=1e-15)
    excess = n / (n - np.sum((lambdas / (lambdas + kappa)) ** 2))
    risk = excess * (np.sum((kappa / (lambdas + kappa)) ** 2 * powers) + 0.001 + 0.04) - 0.04
    np.testing.assert_allclose(theory.predicted_ridge_risk(few, aim, n, ridge, 0.2), risk, rtol=1e-10)


def test_any_spectrum_has_a_curve_by_its_own_equation():
    """Power laws without a sphere: kappa by bisection, the best ridge by brute force."""
    k = np.arange(1.0, 401.0)
    lambdas, powers, n, noise = k**-1.5, k**-2.2, 60.0, 0.3
    kernel, target = Spectrum.of(jnp.asarray(lambdas), 0.01), Spectrum.of(jnp.asarray(powers), 0.002)

    def risk(ridge):
        balance = lambda log: np.sum(lambdas / (lambdas + np.exp(log))) + (ridge + 0.01) / np.exp(log) - n
        kappa = np.exp(brentq(balance, -15.0, 15.0, xtol=1e-13))
        excess = n / (n - np.sum((lambdas / (lambdas + kappa)) ** 2))
        return excess * (np.sum((kappa / (lambdas + kappa)) ** 2 * powers) + 0.002 + noise**2) - noise**2

    ridges = np.logspace(-3, 2, 201)
    risks = np.array([risk(ridge) for ridge in ridges])
    ours = theory.predicted_ridge_risk(kernel, target, n, ridges, noise)
    np.testing.assert_allclose(ours, risks, rtol=1e-9)
    best = float(theory.predicted_ridge_risk(kernel, target, n, "optimal", noise))
    assert 0.999 < best / risks.min() <= 1.0
    # A sphere's spectrum gives the same as its numbers alone.
    zonal, aim = gegenbauer(ntk(), 5), theory.target_power(_problem())
    bare = [Spectrum(s.eigenvalues, s.multiplicities, s.trace, s.tail) for s in (zonal, aim)]
    expected = theory.predicted_ridge_risk(zonal, aim, n, 0.1, noise)
    np.testing.assert_allclose(theory.predicted_ridge_risk(*bare, n, 0.1, noise), expected, rtol=1e-12)
    for bad, message in (
        (lambda: theory.predicted_ridge_risk(kernel, aim, n, 0.1, noise), r"both to none.*d=None with 400 .* d=5"),
        (lambda: theory.predicted_ridge_risk(kernel, ntk(), n, 0.1, noise), r"needs another such spectrum beside it"),
        (
            lambda: theory.predicted_ridge_risk(kernel, target, n, 0.1, noise, d=5),
            r"d=5, but a spectrum that has no sphere",
        ),
        (
            lambda: theory.predicted_ridge_risk(kernel, target, 101, 0.1, noise),
            r"400 eigenvalues .* up to 100.*got n=101",
        ),
        (lambda: theory.predicted_ridge_risk(kernel, target, n, "noise", noise), r"number or 'optimal', got 'noise'"),
    ):
        with pytest.raises(ValueError, match=message):
            bad()


@pytest.mark.parametrize("signs", ["random", "positive", "alternating"])
@pytest.mark.parametrize("cosine", [0.0, 0.5])
def test_target_power_is_that_of_sampled_teachers(key, signs, cosine):
    problem = _problem(4, 3, signs=signs, cosine=cosine)
    power = theory.target_power(problem)
    teachers = jax.vmap(problem.sample_teacher)(jr.split(key, 4000))
    x = problem.inputs.sample(jr.fold_in(key, 1), 4000)
    values = jax.vmap(lambda teacher, point: teacher(point))(teachers, x)
    # The total, degree 0 and degree 1: E f^2, (E_x f)^2 and |E_x f(x) x|^2 (eigenfunctions are sqrt(d) x_i).
    error = float(jnp.std(values**2)) / 4000**0.5
    assert abs(float(jnp.mean(values**2)) - power.trace) < 4.5 * error
    mean_relu = np.sqrt(gegenbauer(ArcCosine(1), 4).scaled(0.25).eigenvalues[0])
    means = mean_relu * np.asarray(teachers.a.sum(axis=1))
    np.testing.assert_allclose(np.mean(means**2), power.eigenvalues[0], atol=4.5 * means.std() ** 2 / 30 + 1e-9)
    linear = jnp.einsum("sj,sjd->sd", teachers.a, teachers.w) / 8
    np.testing.assert_allclose(jnp.mean(jnp.sum(linear**2, 1)) * 4, power.eigenvalues[1] * 4, rtol=0.06)


@eqx.filter_jit
def _simulated(estimator, problem, keys, n, x):
    def risk(key):
        teacher = problem.sample_teacher(jr.fold_in(key, 0))
        fit = estimator.fit(jr.fold_in(key, 2), problem.sample(jr.fold_in(key, 1), teacher, n))
        return jnp.mean((fit.predict(x) - jax.vmap(teacher)(x)) ** 2)

    return jax.lax.map(risk, keys)


@pytest.mark.parametrize(("n", "ridge"), [(128, 0.1), pytest.param(256, 0.5, marks=pytest.mark.slow)])
def test_predicted_curve_is_that_of_simulated_kernel_ridge(key, n, ridge):
    problem = _problem()
    x = problem.inputs.sample(jr.fold_in(key, 1), 1000)
    risks = _simulated(KernelRidge(ntk(), ridge=ridge), problem, jr.split(key, 60), n, x)
    predicted = theory.predicted_curve(ntk(), problem, [n], ridge=ridge)[0]
    # The deterministic equivalent itself is good to 1-2 % here.
    assert abs(float(risks.mean()) - predicted) < 4.0 * float(risks.std()) / 60**0.5 + 0.02 * predicted


@pytest.mark.parametrize("n", [128, pytest.param(384, marks=pytest.mark.slow)])
def test_predicted_optimal_linear_risk_is_the_trace_formula(key, n):
    problem = _problem()
    estimator = OptimalLinear(problem, test_points=1000)

    def trace_formula(k):
        # Responses play no role in it.
        x = problem.inputs.sample(jr.fold_in(k, 1), n)
        return estimator.fit(k, ts.Dataset(x=x, y=jnp.zeros(n))).stats["bayes_risk"]

    draws = 24 if n == 128 else 4
    measured = jax.lax.map(trace_formula, jr.split(key, draws))
    predicted = theory.predicted_optimal_linear_risk(problem, [n])[0]
    assert abs(float(measured.mean()) - predicted) < 4.0 * float(measured.std()) / draws**0.5 + 0.01 * predicted


def test_curves_are_traced_in_everything_but_n():
    n = np.array([100, 1000])
    jitted = jax.jit(lambda std, scale: theory.predicted_curve(RBF(scale), _problem(noise_std=std), n))
    np.testing.assert_allclose(
        jitted(0.3, 0.7), theory.predicted_curve(RBF(0.7), _problem(noise_std=0.3), n), rtol=1e-9
    )
    with pytest.raises(ValueError, match="must not be traced"):
        jax.jit(lambda n: theory.predicted_curve(ntk(), _problem(), n))(n)


def test_more_degrees_change_nothing_at_two_to_the_twenty():
    """Halving what is resolved moves the curve by less than a thousandth: the tail is a ridge."""
    n = [2**14, 2**20]
    curves = [
        theory.predicted_ridge_risk(
            gegenbauer(ArcCosine(1), 5, degrees), theory.target_power(_problem(), degrees), n, 0.01 * 5 / 3, 0.1
        )
        for degrees in (100, 200)
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-3)


def test_kernels_are_as_good_as_their_spectra_which_have_the_degrees_that_n_asks_for():
    """On the circle, where the exponent of Laplace's kernel is 1: 200 degrees gave .94 here, and .15 from 2000 to 4000."""
    laplace, n = Laplace(), np.array([100, 400])
    risks = theory.predicted_ridge_risk(laplace, laplace, n, 0.0, 0.0, d=2)
    np.testing.assert_allclose(-_slope(n, risks), 1.0, atol=0.01)
    spectrum = gegenbauer(laplace, 2, theory.resolving_degrees(2, 400))
    for kernel, target in ((spectrum, spectrum), (spectrum, laplace), (laplace, spectrum)):
        np.testing.assert_allclose(theory.predicted_ridge_risk(kernel, target, n, 0.0, 0.0), risks, rtol=1e-12)


def test_a_spectrum_that_ends_too_early_for_n_is_refused():
    problem = _problem(2, 2)
    few, target = gegenbauer(Laplace(), 2, 200), theory.target_power(problem)
    message = (
        r"200 degrees on S\^1 resolves n up to 100, since .* hold 401 eigenvalues .* got n=400\. 800 degrees are enough"
    )
    for ridge in ("optimal", "noise", 0.1):
        with pytest.raises(ValueError, match=message):
            theory.predicted_curve(few, problem, [50, 400], ridge=ridge)
    with pytest.raises(ValueError, match=r"n=4000\. 1000 degrees, the most there are, resolve n up to 500"):
        theory.predicted_ridge_risk(few, target, 4000, 0.0, 0.0)
    # Traced, n cannot be looked at.
    traced = jax.jit(lambda n: theory.predicted_ridge_risk(few, target, n, 0.1, 0.1))(jnp.asarray([50.0, 400.0]))
    assert np.isnan(traced).tolist() == [False, True]
    # Nothing is beyond the degrees of a polynomial.
    polynomial = gegenbauer(ts.kernels.Polynomial(3), 2, 200)
    assert np.isfinite(theory.predicted_ridge_risk(polynomial, target, 4000, 0.1, 0.1))


def test_the_deterministic_equivalent_is_off_by_a_quarter_on_the_circle_without_noise(key):
    """What its documentation says. The truth needs no responses: E k(x, x) - k(x, X) K^-1 k(X, x)."""
    kernel, n = Laplace(), 64

    def error(key):
        x, fresh = ts.Sphere(2).sample(key, n), ts.Sphere(2).sample(jr.fold_in(key, 1), 200)
        return 1.0 - jnp.mean(jnp.sum(kernel(fresh, x) * jnp.linalg.solve(kernel(x), kernel(x, fresh)).T, axis=1))

    errors = eqx.filter_jit(lambda keys: jax.lax.map(error, keys))(jr.split(key, 200))
    ratio = float(theory.predicted_ridge_risk(kernel, kernel, n, 0.0, 0.0, d=2)) / float(errors.mean())
    assert abs(ratio - 0.76) < 4 * ratio * float(errors.std() / errors.mean()) / 200**0.5 + 0.01


@pytest.mark.slow
def test_high_dimension_has_more_harmonics_than_float64_holds():
    assert theory.largest_resolved_n(1000) == 2**62 and theory.resolving_degrees(1000, 10**6) == 200
    problem = ts.Problem(ts.Sphere(400), ts.ReLUTeacher(2), 0.1)
    risks = theory.predicted_curve(ntk(), problem, [100, 1000])
    assert jnp.isfinite(risks).all() and risks[1] < risks[0]


def test_errors():
    gaussian = ts.Problem(ts.Gaussian(5), ts.ReLUTeacher(3))
    spectrum, target = gegenbauer(ntk(), 5), theory.target_power(_problem())
    cases = [
        (lambda: theory.cramer_rao(0, 5, 10, 0.1), r"needs m, d, n >= 1 and noise_std >= 0, got m=0"),
        (lambda: theory.optimal_linear_exponent(1), r"need d >= 2, got d=1"),
        (lambda: theory.predicted_curve(ntk(), gaussian, [10]), r"known for inputs=Sphere\(d\); got Gaussian\(d=5\)"),
        (lambda: theory.predicted_curve(ntk(), _problem(), [10], ridge="best"), r"'optimal' or 'noise', got 'best'"),
        (lambda: theory.predicted_curve(ntk(), _problem(), [0]), r"needs n >= 1, got n=\[0\]"),
        (
            lambda: theory.predicted_curve(ntk(), _problem(3, 2), [10**9]),
            r"n of at most 250500, which 1000 .*n=1000000000",
        ),
        (lambda: theory.predicted_slope(ntk(), _problem(), [64, 64]), r"at least two different sample sizes"),
        (lambda: theory.predicted_ridge_risk(spectrum, target, 10, -1.0, 0.1), r"needs ridge >= 0, got ridge=-1"),
        (
            lambda: theory.predicted_ridge_risk(gegenbauer(ntk(), 4), target, 10, 1.0, 0.1),
            r"must belong to one sphere .* d=4 with 201 degrees and d=5",
        ),
        (lambda: theory.predicted_ridge_risk(ntk(), ntk(), 10, 1.0, 0.1), r"the dimension is not known .*pass d="),
        (
            lambda: theory.predicted_ridge_risk(spectrum, target, 10, 1.0, 0.1, d=4),
            r"got d=4, but a spectrum .* to d=5",
        ),
        (
            lambda: theory.predicted_optimal_linear_risk(_problem(signs="positive"), [10]),
            r"signs='random'.*got signs='positive'",
        ),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()


def _features_by_iteration(psi_1, psi_2, ridge, z):
    """B and V with nu_1, nu_2 from the paper's complex equations (definition 1 of arXiv:1908.05355), from large imaginary xi
    downwards."""
    end = np.sqrt(psi_1 * psi_2 * ridge)
    nu_1, nu_2 = 1j * psi_1 / (100 * end), 1j * psi_2 / (100 * end)
    for xi in 1j * end * np.append(np.geomspace(100, 1, 50), np.ones(3000)):
        both = 1 - z * nu_1 * nu_2
        next_1 = psi_1 / (-xi - nu_2 - z * nu_2 / both)
        next_2 = psi_2 / (-xi - nu_1 - z * nu_1 / both)
        nu_1, nu_2 = 0.5 * (nu_1 + next_1), 0.5 * (nu_2 + next_2)
    chi = (nu_1 * nu_2).real
    both = psi_1 * psi_2
    e_0 = (
        -(chi**5) * z**3 + 3 * chi**4 * z**2 + (both - psi_2 - psi_1 + 1) * chi**3 * z**3 - 2 * chi**3 * z**2 - 3 * chi**3 * z
        + (psi_1 + psi_2 - 3 * both + 1) * chi**2 * z**2 + 2 * chi**2 * z + chi**2 + 3 * both * chi * z - both
    )  # fmt: skip
    e_1 = psi_2 * chi**3 * z**2 - psi_2 * chi**2 * z + both * chi * z - both
    e_2 = (
        chi**5 * z**3 - 3 * chi**4 * z**2 + (psi_1 - 1) * chi**3 * z**3 + 2 * chi**3 * z**2 + 3 * chi**3 * z
        + (-psi_1 - 1) * chi**2 * z**2 - 2 * chi**2 * z - chi**2
    )  # fmt: skip
    return e_1 / e_0, e_2 / e_0


@pytest.mark.parametrize(("psi_1", "psi_2", "ridge"), [(1.5, 3.0, 0.1), (3.0, 3.0, 0.05), (9.0, 2.0, 0.3)])
def test_features_have_the_roots_of_the_published_equations(psi_1, psi_2, ridge):
    found = theory.features_bias_variance(jnp.asarray(psi_1), jnp.asarray(psi_2), jnp.asarray(ridge), 2.75)
    np.testing.assert_allclose(found, _features_by_iteration(psi_1, psi_2, ridge, 2.75), rtol=1e-6)


def test_features_in_the_published_limits():
    """Infinitely many features (the paper's limit of kernel ridge regression), and infinitely many samples, where the bias is
    (1/d) tr (I + zeta^2 W^T W / d)^-1 of a Wishart matrix, by the law of Marchenko and Pastur."""
    z, psi, ridge = 2.75, 3.0, 0.2
    b = psi * z - z - ridge * psi - 1
    omega = -(np.sqrt(b**2 + 4 * psi * z * (ridge * psi + 1)) + b) / (2 * (ridge * psi + 1))
    below = (psi - 1) * omega**3 + (1 - 3 * psi) * omega**2 + 3 * psi * omega - psi
    many = theory.features_bias_variance(jnp.asarray(1e6), jnp.asarray(psi), jnp.asarray(ridge), z)
    np.testing.assert_allclose(many, [(psi * omega - psi) / below, (omega**3 - omega**2) / below], rtol=1e-4)

    bias, variance = theory.features_bias_variance(jnp.asarray(psi), jnp.asarray(1e7), jnp.asarray(0.0), z)
    low, high = (1 - psi**0.5) ** 2, (1 + psi**0.5) ** 2
    # Eigenvalues s of W^T W / d have this density for psi > 1; s = centre + radius cos t has no singular ends.
    t = (np.arange(20_000) + 0.5) * np.pi / 20_000
    s = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(t)
    density = (0.5 * (high - low) * np.sin(t)) ** 2 / (2 * np.pi * s)
    expected = np.sum(density / (1 + z * s)) * np.pi / 20_000
    np.testing.assert_allclose(bias, expected, rtol=1e-5)
    assert abs(float(variance)) < 1e-5


def test_features_in_simulation(rng):
    """The paper's sphere, loss and units, at d = 50: a mean of 40 within a tenth."""
    d, n, count, lam, found = 50, 150, 100, 0.05, []
    on_sphere = lambda rows: (lambda x: x * np.sqrt(d) / np.linalg.norm(x, axis=1, keepdims=True))(
        rng.normal(size=(rows, d))
    )
    for _ in range(40):
        x, w = on_sphere(n), on_sphere(count)
        y = x[:, 0] + 0.5 * rng.normal(size=n)
        phi = np.maximum(x @ w.T / np.sqrt(d), 0.0)
        a = np.linalg.solve(phi.T @ phi / n + count * lam / d * np.eye(count), phi.T @ y / n)
        fresh = on_sphere(2000)
        found.append(np.mean((np.maximum(fresh @ w.T / np.sqrt(d), 0.0) @ a - fresh[:, 0]) ** 2))
    expected = float(theory.random_features_risk(count, n, d, lam * n / d, 0.5))
    assert np.mean(found) == pytest.approx(expected, rel=0.1)


def test_features_without_ridge_have_a_peak_and_bad_input_is_named():
    risks = np.asarray(theory.random_features_risk([270, 300, 330], 300, 100, 0.0, 0.5))
    assert np.isinf(risks[1]) and 0 < risks[0] < 10 and 0 < risks[2] < 10
    near = np.asarray(theory.random_features_risk(300, 300, 100, [1e-12, 1e-10, 1e-8], 0.5))
    # The peak grows as the root of the ridge falls.
    np.testing.assert_allclose(near[:-1] / near[1:], 10.0, rtol=1e-2)
    # Without features nothing but the target is there.
    assert float(theory.random_features_risk(1, 300, 10_000, 1.0, 0.0, linear=2.0, nonlinear=0.5)) == pytest.approx(
        2.5, 1e-2
    )
    for change in (
        {"count": 0},
        {"n": 0},
        {"d": 0},
        {"ridge": -1.0},
        {"noise_std": -1.0},
        {"linear": -1.0},
        {"nonlinear": -1.0},
    ):
        with pytest.raises(ValueError, match=f"needs {next(iter(change))} >="):
            theory.random_features_risk(**{"count": 10, "n": 10, "d": 10, "ridge": 1.0, **change})
