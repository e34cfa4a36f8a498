import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts
from tsjax.estimators.optimal_linear import OptimalLinear, teacher_covariance
from tsjax.estimators.ridge import KernelRidge
from tsjax.kernels import RBF

PROBLEMS = {
    "sphere": ts.Problem(ts.Sphere(4), ts.ReLUTeacher(3), 0.1),
    "gaussian": ts.Problem(ts.Gaussian(3), ts.ReLUTeacher(2), 0.5, noise="uniform"),
    "cube_cosine": ts.Problem(ts.Cube(4), ts.ReLUTeacher(4, cosine=0.6), 0.2),
}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]


def test_the_kernel_is_the_covariance_of_teachers(problem, key):
    x = problem.inputs.sample(key, 5)
    values = jax.vmap(lambda k: jax.vmap(problem.sample_teacher(k))(x))(jr.split(jr.fold_in(key, 1), 40_000))
    products = values[:, :, None] * values[:, None, :]
    error = jnp.std(products, axis=0) / 40_000**0.5
    assert bool((jnp.abs(products.mean(0) - teacher_covariance(problem)(x)) < 4.5 * error).all())
    assert bool((jnp.abs(values.mean(0)) < 4.5 * values.std(0) / 40_000**0.5).all())


@eqx.filter_jit
def _risks(estimator, problem, keys, x_train, x_test):
    """The Monte-Carlo risk for each of many teachers, with the inputs held fixed."""

    def risk(key):
        teacher = problem.sample_teacher(jr.fold_in(key, 0))
        noisy = problem.sample(jr.fold_in(key, 1), teacher, x_train.shape[0])
        data = ts.Dataset(x=x_train, y=jax.vmap(teacher)(x_train) + noisy.y - jax.vmap(teacher)(noisy.x))
        return jnp.mean((estimator.fit(key, data).predict(x_test) - jax.vmap(teacher)(x_test)) ** 2)

    return jax.lax.map(risk, keys)


@pytest.mark.slow
def test_the_trace_formula_is_the_measured_average_risk(problem, key):
    x = problem.inputs.sample(jr.fold_in(key, 1), 32)
    x_test = problem.inputs.sample(jr.fold_in(key, 2), 400)
    keys = jr.split(jr.fold_in(key, 3), 150)
    risks = _risks(OptimalLinear(problem, test_points=2), problem, keys, x, x_test)
    stats = OptimalLinear(problem, test_points=4000).fit(key, ts.Dataset(x=x, y=jnp.zeros(32))).stats
    # Three errors: over teachers, over the inputs of the trace formula, and over those (a tenth) of the measured risk.
    scale = 1.0 / 150**0.5
    spread = ((jnp.std(risks) * scale) ** 2 + stats["bayes_risk_error"] ** 2 * (1 + 10)) ** 0.5
    assert abs(float(risks.mean() - stats["bayes_risk"])) < 3.0 * spread
    # No linear estimator does better on average: here the difference is paired.
    others = _risks(KernelRidge(RBF(1.0), ridge=0.1), problem, keys, x, x_test)
    assert float((others - risks).mean()) > -3.0 * float(jnp.std(others - risks)) * scale


def test_the_fit_is_ridge_regression_with_the_noise_variance(problem, key):
    data = problem.sample(key, problem.sample_teacher(key), 20)
    fit = OptimalLinear(problem).fit(key, data)
    same = KernelRidge(teacher_covariance(problem), ridge=problem.noise_std**2).fit(key, data)
    np.testing.assert_allclose(fit.alpha, same.alpha, rtol=1e-10)
    # The trace formula by other means, on a quarter million fresh inputs' worth of its own error bar.
    x = problem.inputs.sample(jr.fold_in(key, 7), 20_000)
    k = teacher_covariance(problem)
    cross = np.asarray(k(x, data.x))
    inverse = np.linalg.inv(np.asarray(k(data.x)) + problem.noise_std**2 * np.eye(20))
    risk = np.asarray(k.diagonal(x)) - np.einsum("ti,ij,tj->t", cross, inverse, cross)
    error = (risk.var() / 20_000 + float(fit.stats["bayes_risk_error"]) ** 2) ** 0.5
    assert abs(float(fit.stats["bayes_risk"]) - risk.mean()) < 4.0 * error


def test_jit_and_vmap_over_noise_equal_eager(key):
    problem = PROBLEMS["sphere"]
    data = problem.sample(key, problem.sample_teacher(key), 20)

    def fit(noise_std):
        return OptimalLinear(ts.Problem(problem.inputs, problem.teacher, noise_std)).fit(key, data)

    mapped = jax.jit(jax.vmap(fit))(jnp.array([0.1, 0.5]))
    for i, noise_std in enumerate([0.1, 0.5]):
        eager = fit(noise_std)
        np.testing.assert_allclose(mapped.alpha[i], eager.alpha, rtol=1e-9)
        for name, value in eager.stats.items():
            np.testing.assert_allclose(mapped.stats[name][i], value, rtol=1e-8)


def test_without_noise_it_interpolates(key):
    problem = ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), 0.0)
    data = problem.sample(key, problem.sample_teacher(key), 30)
    data = ts.Dataset(x=jnp.concatenate([data.x, data.x[:2]]), y=jnp.concatenate([data.y, data.y[:2]]))
    fit = OptimalLinear(problem).fit(key, data)
    assert fit.status == ts.Status.CONVERGED
    np.testing.assert_allclose(fit.predict(data.x), data.y, atol=1e-6)
    np.testing.assert_allclose(fit.stats["ridge"], 1e-10 * 2 * 0.5 / 4, rtol=1e-9)


def test_errors(key):
    problem = PROBLEMS["sphere"]
    with pytest.raises(ValueError, match=r"signs='random'.*got signs='alternating'\. The nearest baseline"):
        OptimalLinear(ts.Problem(ts.Sphere(4), ts.ReLUTeacher(3, signs="alternating")))
    with pytest.raises(ValueError, match=r"at least 2 test points, got test_points=1"):
        OptimalLinear(problem, test_points=1)
    with pytest.raises(ValueError, match=r"problem has d=4, but the data have d=3"):
        OptimalLinear(problem).fit(key, ts.Dataset(x=jnp.ones((5, 3)), y=jnp.ones(5)))
