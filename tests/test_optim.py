from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import SEED
from scipy import stats

import tsjax as ts
from tsjax.optim import counter_normals, noise_seed

COUNT = 40_000


def _run(optimizer, params, steps, gradient) -> Any:
    state = optimizer.init(params)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, state), None, length=steps)[1]


def _is_variance(values, variance):
    """Within five standard errors, for Gaussian values."""
    values = np.asarray(values).ravel()
    return abs(np.mean(values**2) / variance - 1) < 5 * (2 / len(values)) ** 0.5


def test_the_noise_has_variance_two_eta_t(key):
    noise: Any = ts.add_langevin_noise(0.3, 0.05, key)
    updates = {"a": jnp.zeros(COUNT), "b": jnp.full((2, COUNT // 2), 7.0)}
    state = noise.init(updates)
    first, state = noise.update(updates, state)
    second, state = noise.update(updates, state)
    assert int(state.step) == 2
    for leaf in (first["a"], first["b"] - 7.0, second["a"]):
        assert _is_variance(leaf, 2 * 0.3 * 0.05)
        assert abs(float(jnp.mean(leaf**4)) / (3 * 0.03**2) - 1) < 0.15
    # Independent between leaves and between steps.
    for other in ((first["b"] - 7.0).ravel(), second["a"]):
        assert abs(np.corrcoef(first["a"], other)[0, 1]) < 5 / COUNT**0.5


def test_temperature_zero_is_the_plain_optimizer(key):
    params, gradient = jnp.array([1.0, -2.0]), lambda p: jnp.array([3.0, 0.5]) * p
    for plain in (optax.sgd(0.1), optax.adam(0.1)):
        noisy = optax.chain(plain, ts.add_langevin_noise(0.1, 0.0, key))
        np.testing.assert_allclose(_run(noisy, params, 5, gradient), _run(plain, params, 5, gradient), rtol=1e-14)


def test_noise_is_added_to_finished_updates(key):
    params, gradient = jnp.zeros(COUNT), lambda p: p - 1.0
    adam = optax.adam(0.1)
    path = _run(optax.chain(adam, ts.add_langevin_noise(0.02, 0.5, key)), params, 1, gradient)
    assert _is_variance(path - _run(adam, params, 1, gradient), 2 * 0.02 * 0.5)


def test_schedules(key):
    eta, temperature = optax.piecewise_constant_schedule(0.4, {2: 0.5}), optax.linear_schedule(1.0, 0.0, 4)
    path = _run(ts.add_langevin_noise(eta, temperature, key), jnp.zeros(COUNT), 5, jnp.zeros_like)
    steps = np.diff(np.asarray(path), axis=0, prepend=0.0)
    for increment, variance in zip(steps, (2 * 0.4 * 1.0, 2 * 0.4 * 0.75, 2 * 0.2 * 0.5, 2 * 0.2 * 0.25), strict=False):
        assert _is_variance(increment, variance)
    assert not steps[4].any()


def test_noise_depends_on_key_and_step_alone(key):
    keys = jr.split(key, 3)
    run = lambda k: _run(ts.noisy_gradient_descent(0.1, 0.2, k), jnp.ones(4), 3, lambda p: p)
    batch = jax.jit(jax.vmap(run))(keys)
    for i in range(3):
        np.testing.assert_allclose(batch[i], run(keys[i]), rtol=1e-12, atol=1e-14)
    assert len(np.unique(np.asarray(batch[:, 0]))) == 12


def test_the_stationary_law(key):
    """theta <- (1 - eta k) theta + sqrt(2 eta T) xi has the variance T / (k (1 - eta k / 2)): T / k as eta -> 0."""
    for curvature, eta, temperature in ((1.0, 0.3, 0.2), (4.0, 0.01, 0.5)):
        steps = int(30 / (eta * curvature))
        gradient = lambda p, k=curvature: k * p
        path = _run(ts.noisy_gradient_descent(eta, temperature, key), jnp.zeros(5000), steps, gradient)
        assert _is_variance(path[-1], temperature / (curvature * (1 - eta * curvature / 2)))
        # One step apart the correlation is 1 - eta k.
        assert abs(np.corrcoef(path[-1], path[-2])[0, 1] - (1 - eta * curvature)) < 5 / 5000**0.5


def test_the_dtype_of_the_parameters_is_kept(key):
    params = {"a": jnp.ones(3, jnp.float32), "b": jnp.ones((2, 2), jnp.float32)}
    optimizer = ts.add_langevin_noise(jnp.asarray(0.1), jnp.asarray(0.1), key)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), updates) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), params
    )


def test_an_optimizer_on_the_sphere_steps_across_and_comes_back(rng):
    theta = rng.normal(size=6)
    theta /= np.linalg.norm(theta)
    gradients = rng.normal(size=(3, 6))
    optimizer, state, now = ts.on_sphere(optax.sgd(0.4, momentum=0.5)), None, jnp.asarray(theta)
    state, velocity = optimizer.init(now), np.zeros(6)
    for gradient in gradients:
        update, state = optimizer.update(jnp.asarray(gradient), state, now)
        now = optax.apply_updates(now, update)
        velocity = gradient - (gradient @ theta) * theta + 0.5 * velocity
        theta = theta - 0.4 * velocity
        theta /= np.linalg.norm(theta)
    np.testing.assert_allclose(np.asarray(now), theta, rtol=1e-10)


def test_an_optimizer_on_the_sphere_needs_the_parameters():
    optimizer = ts.on_sphere(optax.sgd(0.1))
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))


@pytest.mark.slow
def test_the_generator_of_the_noise_is_normal_and_independent():
    """10^7 numbers: moments, the law by Kolmogorov and Smirnov's test, and correlations between neighbours, halves of the
    generator's blocks, steps and seeds. Every statistic is within 4.5 standard errors of its value for independent normals."""
    count, seed = 10**7, noise_seed(jr.key(SEED))
    draw = lambda seed, step: np.asarray(counter_normals(seed, jnp.int32(step), count, jnp.float32), np.float64)
    xi, errors = draw(seed, 0), 4.5 / count**0.5
    # E xi^k, and the standard deviation of xi^k.
    for power, mean, deviation in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert abs(np.mean(xi**power) - mean) < errors * deviation
    # The midpoints of 2^24 parts are uniform up to 2^-25, which is far below the resolution of this sample.
    assert stats.kstest(xi, "norm").pvalue > 1e-4
    # The two halves hold the first and the second words of the same blocks.
    others = {
        "next": (xi[:-1], xi[1:]),
        "far": (xi[:-1000], xi[1000:]),
        "halves": np.split(xi, 2),
        "next step": (xi, draw(seed, 1)),
        "far step": (xi, draw(seed, 1 << 20)),
        "next seed": (xi, draw(seed + jnp.uint32(1), 0)),
    }
    for name, (one, other) in others.items():
        assert abs(np.mean(one * other)) < 4.5 / len(one) ** 0.5, name
        # Squares too, since numbers that are not independent may be uncorrelated.
        assert abs(np.mean((one**2 - 1) * (other**2 - 1))) < 4.5 * 2 / len(one) ** 0.5, name
