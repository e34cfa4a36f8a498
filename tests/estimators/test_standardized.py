import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.kernels import RBF, DotProduct

N, D = 40, 3
RNG = np.random.default_rng(SEED)
# Units, an origin and a correlation that no sphere has.
X = RNG.normal(size=(N, D)) @ np.array([[1.0, 0.5, 0.0], [0.0, 30.0, 0.0], [0.0, 0.0, 1e-3]]) + [5.0, -200.0, 0.1]
Y = 50.0 + 10.0 * np.tanh(X[:, 0] - 5.0) + 0.1 * X[:, 1] + RNG.normal(size=N)
NEW = X[:7] + 0.3 * X.std(axis=0)


def _data(x=X, y=Y, dtype=jnp.float64):
    return ts.Dataset(x=jnp.asarray(x, dtype), y=jnp.asarray(y, dtype))


@pytest.mark.parametrize("bias", [0.0, 2.0])
def test_it_is_the_formula(key, bias):
    """The reference is linear ridge regression written in NumPy."""
    fit = ts.Standardized(ts.KernelRidge(DotProduct((0.0, 1.0)), ridge=0.7), bias=bias).fit(key, _data())

    def z(x):
        z = (x - X.mean(axis=0)) / X.std(axis=0)
        return np.c_[z, np.full(len(z), bias)] / D**0.5

    beta = np.linalg.solve(z(X).T @ z(X) + 0.7 * np.eye(D + 1), z(X).T @ (Y - Y.mean()) / Y.std())
    np.testing.assert_allclose(fit.predict(jnp.asarray(NEW)), Y.mean() + Y.std() * (z(NEW) @ beta), rtol=1e-9)
    assert float(fit.stats["ridge"]) == 0.7 and int(fit.status) == ts.Status.CONVERGED


def test_units_and_origins_do_not_matter(key):
    estimator = ts.Standardized(ts.KernelRidge(RBF(1.0)))
    plain = estimator.fit(key, _data()).predict(jnp.asarray(NEW))
    change = lambda x: 1000.0 * x[:, ::-1] + np.array([1.0, 2.0, -3.0])
    changed = estimator.fit(key, _data(change(X), 7.0 - 100.0 * Y)).predict(jnp.asarray(change(NEW)))
    np.testing.assert_allclose(changed, 7.0 - 100.0 * plain, rtol=1e-6)


def test_each_switch_switches_its_part(key):
    ridge = ts.KernelRidge(RBF(1.0), ridge=0.1)
    data, new = _data((X - X.mean(axis=0)) / X.std(axis=0) / D**0.5, (Y - Y.mean()) / Y.std()), jnp.asarray(NEW)
    bare = ts.Standardized(ridge, inputs=False, response=False, bias=0.0).fit(key, _data())
    np.testing.assert_array_equal(bare.predict(new), ridge.fit(key, _data()).predict(new))
    scaled = ts.Standardized(ridge, response=False).fit(key, ts.Dataset(x=_data().x, y=data.y))
    z = jnp.asarray((NEW - X.mean(axis=0)) / X.std(axis=0) / D**0.5)
    np.testing.assert_allclose(scaled.predict(new), ridge.fit(key, data).predict(z), rtol=1e-8)


def test_what_is_constant_stays_so(key):
    """The computed mean of equal numbers may differ from them by roundoff, which must not become a signal. A constant response
    is predicted as it is."""
    constant = np.c_[X, np.full(N, 0.1)]
    estimator = ts.Standardized(ts.KernelRidge(RBF(1.0), ridge=0.1))
    fit = estimator.fit(key, _data(constant))
    assert float(fit.scale.x_std[-1]) == 1.0
    wider = ts.Standardized(ts.KernelRidge(RBF((3 / 4) ** 0.5), ridge=0.1)).fit(key, _data(constant))
    narrow = estimator.fit(key, _data())
    np.testing.assert_allclose(
        wider.predict(jnp.asarray(np.c_[NEW, np.full(7, 0.1)])), narrow.predict(jnp.asarray(NEW)), rtol=1e-8
    )
    flat = estimator.fit(key, _data(y=np.full(N, 0.1)))
    np.testing.assert_allclose(flat.predict(jnp.asarray(NEW)), 0.1, rtol=1e-12)


def test_large_offsets_survive_float32(key):
    """Means and deviations are computed in float64, since near 1e4 float32 keeps three digits after the point, and its sums
    fewer."""
    shifted = np.round(X[:, :2], 2) + 1e4
    estimator = ts.Standardized(ts.KernelRidge(RBF(1.0), ridge=0.1), bias=0.0)
    half = estimator.fit(key, _data(shifted, dtype=jnp.float32))
    x32 = np.asarray(shifted, np.float32).astype(np.float64)
    np.testing.assert_allclose(half.scale.x_mean, x32.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(half.scale.x_std, x32.std(axis=0), rtol=1e-7)


@pytest.mark.slow
def test_many_at_once_are_each_alone(key):
    """Fits under vmap equal single fits, without a bias and with a traced one."""
    estimator = ts.Standardized(ts.RandomFeatures(20, ridge=0.1), bias=0.0)
    data = jax.tree.map(lambda leaf: jnp.stack([leaf, 2.0 * leaf + 1.0]), _data())
    many = jax.vmap(lambda d: estimator.fit(key, d).predict(jnp.asarray(NEW)))(data)
    np.testing.assert_allclose(many[0], estimator.fit(key, _data()).predict(jnp.asarray(NEW)), rtol=1e-7)
    biased = lambda b: ts.Standardized(ts.RandomFeatures(20, ridge=0.1), bias=b).fit(key, _data())
    values = jax.vmap(lambda b: biased(b).predict(jnp.asarray(NEW)))(jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(values[0], biased(1.0).predict(jnp.asarray(NEW)), rtol=1e-7)
    assert not np.allclose(values[0], values[1])


def test_refusals():
    with pytest.raises(ValueError, match="Standardized wraps an estimator"):
        ts.Standardized(RBF(1.0))
    with pytest.raises(ValueError, match="bias must be finite and at least 0"):
        ts.Standardized(ts.KernelRidge(RBF()), bias=-1.0)
