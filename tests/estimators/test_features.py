import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts
from tsjax.estimators.features import RandomFeatures
from tsjax.estimators.ridge import PATH, KernelRidge
from tsjax.kernels import RBF, ArcCosine, ReLUFeatures

N = 30


@pytest.fixture
def problem():
    return ts.Problem(ts.Gaussian(3), ts.ReLUTeacher(2), 0.1)


@pytest.mark.parametrize("count", [12, 50])
@pytest.mark.parametrize("ridge", ["gcv", "loo", "holdout", "marginal_likelihood", "oracle", 0.2])
@pytest.mark.parametrize("features", ["relu", pytest.param("fourier", marks=pytest.mark.slow)])
def test_primal_and_dual_are_ridge_regression(problem, teacher, data, key, count, ridge, features):
    oracle = {"oracle": (problem, teacher)} if ridge == "oracle" else {}
    fit = RandomFeatures(count, ridge, features).fit(key, data, **oracle)
    phi, y = np.asarray(fit.features.features(data.x)), np.asarray(data.y)
    chosen = float(fit.stats["ridge"])
    # The reference is solved in the smaller of the two spaces, since the other one is worse conditioned at small ridges.
    if count < N:
        truth = np.linalg.solve(phi.T @ phi + chosen * np.eye(count), phi.T @ y)
        hat = phi @ np.linalg.solve(phi.T @ phi + chosen * np.eye(count), phi.T)
    else:
        truth = phi.T @ np.linalg.solve(phi @ phi.T + chosen * np.eye(N), y)
        hat = np.eye(N) - chosen * np.linalg.inv(phi @ phi.T + chosen * np.eye(N))
    np.testing.assert_allclose(fit.coefficients, truth, rtol=1e-6, atol=1e-8)
    residual = y - hat @ y
    np.testing.assert_allclose(fit.stats["dof"], np.trace(hat), rtol=1e-8)
    np.testing.assert_allclose(fit.stats["gcv"], N * residual @ residual / (N - np.trace(hat)) ** 2, rtol=1e-6)
    if ridge in ("loo", "holdout", 0.2):
        np.testing.assert_allclose(fit.stats["loo"], np.mean((residual / (1 - np.diag(hat))) ** 2), rtol=1e-6)
    else:
        assert fit.stats.keys() == {"ridge", "dof", "gcv", *oracle}
    x = jr.normal(key, (5, 3))
    np.testing.assert_allclose(fit.predict(x), fit.features.features(x) @ fit.coefficients, rtol=1e-10)
    assert fit.status == ts.Status.CONVERGED


@pytest.mark.parametrize("count", [12, 50])
@pytest.mark.parametrize("criterion", ["gcv", "marginal_likelihood"])
def test_search_finds_the_brute_force_minimum(data, key, count, criterion):
    fit = RandomFeatures(count, criterion).fit(key, data)
    phi, y = np.asarray(fit.features.features(data.x)), np.asarray(data.y)
    gram, scores = phi @ phi.T, []
    for ridge in PATH * np.trace(gram) / N:
        rest = ridge * np.linalg.inv(gram + ridge * np.eye(N))
        if criterion == "gcv":
            scores.append(N * np.sum((rest @ y) ** 2) / np.trace(rest) ** 2)
        else:
            scores.append(np.log(y @ rest @ y / ridge) + np.linalg.slogdet(gram + ridge * np.eye(N))[1] / N)
    np.testing.assert_allclose(fit.stats["ridge"], (PATH * np.trace(gram) / N)[np.argmin(scores)], rtol=1e-8)


@pytest.mark.slow
def test_features_tend_to_their_kernel(key):
    x = jr.normal(key, (4, 3))
    phi = ReLUFeatures.sample(jr.fold_in(key, 1), 200_000, 3).features(x)
    products = 200_000 * phi[:, None, :] * phi[None, :, :]
    error = jnp.std(products, axis=-1) / 200_000**0.5
    assert bool((jnp.abs(jnp.mean(products, axis=-1) - ArcCosine(1)(x)) < 4.5 * error).all())
    # And so does the regression.
    data = ts.Dataset(x=x, y=jnp.arange(4.0))
    fit = RandomFeatures(100_000, ridge=0.1).fit(key, data)
    limit = KernelRidge(ArcCosine(1), ridge=0.1).fit(key, data)

    np.testing.assert_allclose(fit.predict(x), limit.predict(x), rtol=0.05, atol=0.05)
    fit = RandomFeatures(100_000, 0.1, "fourier", length_scale=1.5).fit(key, data)
    np.testing.assert_allclose(
        fit.predict(x), KernelRidge(RBF(1.5), ridge=0.1).fit(key, data).predict(x), rtol=0.05, atol=0.05
    )


@pytest.mark.slow
@pytest.mark.parametrize("count", [None, 8])
def test_jit_and_vmap_equal_eager(problem, teacher, key, count):
    datasets = jax.vmap(lambda k: problem.sample(k, teacher, 16))(jr.split(key, 2))
    keys = jr.split(jr.fold_in(key, 3), 2)
    mapped = jax.jit(jax.vmap(RandomFeatures(count).fit))(keys, datasets)
    assert mapped.features.w.shape == (2, 64 if count is None else 8, 3)
    x = jr.normal(key, (5, 3))
    for i in range(2):
        fit = RandomFeatures(count).fit(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], datasets))
        np.testing.assert_allclose(jax.vmap(lambda f: f.predict(x))(mapped)[i], fit.predict(x), rtol=1e-7)


def test_keys_draw_the_features(data, key):
    fits = [RandomFeatures(5).fit(jr.fold_in(key, i), data) for i in (0, 0, 1)]
    w = [fit.features.w for fit in fits]
    assert bool((w[0] == w[1]).all()) and not bool((w[0] == w[2]).any())


def test_ridge_zero_with_fewer_features_than_points_is_least_squares(data, key):
    fit = RandomFeatures(6, ridge=0).fit(key, data)
    truth = np.linalg.lstsq(np.asarray(fit.features.features(data.x)), np.asarray(data.y))[0]
    np.testing.assert_allclose(fit.coefficients, truth, rtol=1e-7)


def test_dead_features_are_a_status(key):
    data = ts.Dataset(x=jnp.zeros((4, 2)), y=jnp.ones(4))
    assert RandomFeatures(3, ridge=0).fit(key, data).status == ts.Status.SINGULAR
    # Eagerly a search among equal rows is an error.
    assert jax.jit(RandomFeatures(8, ridge="gcv").fit)(key, data).status == ts.Status.SINGULAR


def test_errors(data, key):
    with pytest.raises(ValueError, match=r"at least one feature, got count=0; None is 4n"):
        RandomFeatures(0)
    with pytest.raises(ValueError, match=r"nearest: 'loo'"):
        RandomFeatures(ridge="lo")
    with pytest.raises(ValueError, match=r"length_scale must be finite and > 0, got 0"):
        RandomFeatures(features="fourier", length_scale=0.0)
    with pytest.raises(ValueError, match=r"needs the truth"):
        RandomFeatures(ridge="oracle").fit(key, data)
