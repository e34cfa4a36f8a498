import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from helpers import SEED

import tsjax as ts

XOR = jnp.array([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, -2.0, 0.0]])


def test_samples_have_the_moments_of_their_components(key):
    task = ts.GaussianMixture(XOR, (0, 0, 1, 1), std=0.5, proportions=[0.4, 0.3, 0.2, 0.1])
    data = task.draw(key).sample(key, 40_000)
    assert data.x.shape == (40_000, 3) and data.y.dtype == jnp.int32
    share = float(jnp.mean(data.y == 0))
    assert abs(share - 0.7) < 4 * (0.21 / 40_000) ** 0.5
    for label, mean in ((0, [2 * 0.1 / 0.7, 0, 0]), (1, [0, 2 * 0.1 / 0.3, 0])):
        np.testing.assert_allclose(data.x[data.y == label].mean(0), mean, atol=0.08)
    # The deviations from the components' means are the noise.
    near = data.x[data.y == 1]
    residual = near - jnp.where(near[:, 1:2] > 0, XOR[2], XOR[3])
    np.testing.assert_allclose(np.cov(residual.T), 0.25 * np.eye(3), atol=0.02)


@pytest.mark.parametrize("proportions", [None, [0.8, 0.2]])
def test_the_bayes_error_of_two_components_is_that_of_its_rule(key, proportions):
    """The closed form against the Bayes rule at fresh points, and against the distribution function for equal shares."""
    task = ts.GaussianMixture(jnp.array([[1.0, 0.5], [-0.5, 0.0]]), std=0.9, proportions=proportions)
    instance = task.draw(key)
    exact = instance.bayes_error()
    assert exact.exact and float(exact.standard_error) == 0.0
    data = instance.sample(jr.fold_in(key, 1), 200_000)
    wrong = np.mean(np.asarray(jax.vmap(instance.target)(data.x)) != np.asarray(data.y))
    assert abs(wrong - float(exact.value)) < 4 * (wrong * (1 - wrong) / 200_000) ** 0.5
    if proportions is None:
        distance = np.linalg.norm([1.5, 0.5]) / 0.9
        np.testing.assert_allclose(float(exact.value), scipy.stats.norm.cdf(-distance / 2), rtol=1e-6)


def test_the_bayes_error_of_a_xor_is_the_integral(key):
    """Along the diagonals a XOR is two independent two-class problems: wrong where exactly one of them is."""
    instance = ts.GaussianMixture(XOR, (0, 0, 1, 1), std=1.0).draw(key)
    found = instance.bayes_error(jr.key(SEED))
    assert not found.exact
    # Turned by 45 degrees the means are (+-sqrt 2, +-sqrt 2), and the class is the sign of the product.
    one = scipy.stats.norm.cdf(-(2.0**0.5))
    expected = 2 * one * (1 - one)
    assert abs(float(found.value) - expected) < 4 * float(found.standard_error) < 0.01
    with pytest.raises(ValueError, match=r"4 components in 2 classes has no closed form: pass key="):
        instance.bayes_error()


def test_a_random_rotation_keeps_distances(key):
    task = ts.GaussianMixture(XOR, (0, 0, 1, 1), rotation="random")
    one, other = task.draw(key), task.draw(jr.fold_in(key, 1))
    gram = lambda v: np.asarray(v @ v.T)
    np.testing.assert_allclose(gram(one.means), gram(XOR), atol=1e-5)
    assert np.abs(np.asarray(one.means - other.means)).max() > 0.1


def test_draws_and_samples_are_mapped(key):
    task = ts.GaussianMixture(XOR, (0, 0, 1, 1), rotation="random")
    keys = jr.split(key, 3)
    many = jax.jit(jax.vmap(lambda k: task.draw(k).sample(jr.fold_in(k, 1), 20)))(keys)
    one = task.draw(keys[1]).sample(jr.fold_in(keys[1], 1), 20)
    np.testing.assert_allclose(many.x[1], one.x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(many.y[1], one.y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ts.GaussianMixture(XOR, (0, 1)), r"the class of each of the 4 components, .* got \(0, 1\)"),
        (lambda: ts.GaussianMixture(XOR, (0, 2, 2, 0)), r"counted from 0 without gaps"),
        (lambda: ts.GaussianMixture(XOR, std=0.0), r"std must be finite and > 0, got 0\.0"),
        (lambda: ts.GaussianMixture(XOR, proportions=[0.5, 0.5, 0.5, 0.5]), r"4 numbers > 0 that sum to 1"),
        (lambda: ts.GaussianMixture(XOR).draw(jr.key(0)).sample(jr.key(1), 0), r"at least one point, got n=0"),
    ],
)
def test_bad_mixtures_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
