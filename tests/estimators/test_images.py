"""Kernel estimators whose points are arrays, such as images."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts

SHAPE, N = (4, 3, 2), 14
DENSE = ts.kernels.of(ts.MLP((8,), outputs=2), "ntk")
CONVOLUTIONAL = ts.kernels.of(ts.CNN((4,), filter=3, outputs=2), "ntk")
ESTIMATORS = {
    "gcv": lambda kernel: ts.KernelRidge(kernel, ridge="gcv"),
    "holdout": lambda kernel: ts.KernelRidge(kernel, ridge="holdout"),
    "cutoff": lambda kernel: ts.SpectralCutoff(kernel, components=5),
}


@pytest.fixture
def images():
    """Images with two responses each; two of them are equal, and one has weight 0."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, *SHAPE)), rng.normal(size=(N, 2))
    x[5] = x[2]
    weight = np.where(np.arange(N) == 7, 0.0, rng.uniform(0.5, 2.0, N))
    return ts.Dataset(jnp.asarray(x), jnp.asarray(y), jnp.asarray(weight))


@pytest.mark.filterwarnings("ignore:1 of 13 rows:UserWarning")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_shape_of_points_is_the_kernel_s_affair(name, images):
    """A fully connected network takes an image as one row of numbers, so both forms have the same fit."""
    estimator, rows = ESTIMATORS[name](DENSE), lambda x: x.reshape(len(x), -1)
    fit = estimator.fit(jr.key(1), images)
    flat = estimator.fit(jr.key(1), ts.Dataset(rows(images.x), images.y, images.weight))
    fresh = jr.normal(jr.key(2), (3, *SHAPE))
    assert fit.predict(fresh).shape == (3, 2) and int(fit.status) == int(flat.status) == 0
    np.testing.assert_allclose(fit.predict(fresh), flat.predict(rows(fresh)), rtol=1e-8, atol=1e-10)


def test_ridge_with_the_kernel_of_a_convolutional_network(images):
    """Weighted ridge regression written out in NumPy."""
    fit = ts.KernelRidge(CONVOLUTIONAL, ridge=0.3).fit(jr.key(1), images)
    present = np.asarray(images.weight) > 0
    x, y, weight = (np.asarray(part)[present] for part in (images.x, images.y, images.weight))
    matrix = np.asarray(CONVOLUTIONAL(jnp.asarray(x)))
    alpha = np.linalg.solve(matrix + 0.3 * np.diag(1 / weight), y)
    fresh = jr.normal(jr.key(2), (3, *SHAPE))
    expected = np.asarray(CONVOLUTIONAL(fresh, jnp.asarray(x))) @ alpha
    np.testing.assert_allclose(fit.predict(fresh), expected, rtol=1e-7)


def test_many_sets_of_images(images):
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), images)
    estimator = ts.KernelRidge(CONVOLUTIONAL, ridge=0.3)
    fits = ts.fit_many(estimator, jr.split(jr.key(1), 2), many)
    fresh = jr.normal(jr.key(2), (3, *SHAPE))
    predicted = jax.vmap(lambda fit: fit.predict(fresh))(fits)
    alone = estimator.fit(jr.key(1), images).predict(fresh)
    np.testing.assert_allclose(predicted, jnp.stack([alone, alone]), rtol=1e-7)


def test_points_that_the_kernel_cannot_take_are_refused(images):
    with pytest.raises(ValueError, match=r"expected x of shape \(n, d\), got \(14, 4, 3, 2\)"):
        ts.KernelRidge(ts.kernels.RBF()).fit(jr.key(0), images)
    with pytest.raises(ValueError, match="look like a batch of data sets: use tsjax.fit_many"):
        ts.KernelRidge(DENSE).fit(jr.key(0), ts.Dataset(jnp.ones((3, 5, 2)), jnp.ones((3, 5))))
    with pytest.raises(ValueError, match="Add an axis of one channel"):
        ts.KernelRidge(CONVOLUTIONAL).fit(jr.key(0), ts.Dataset(jnp.eye(3), jnp.ones(3)))
