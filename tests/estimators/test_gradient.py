"""One-phase students against closed forms, optax by hand, and each other."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import SEED
from jax.flatten_util import ravel_pytree

import tsjax as ts

PROBLEM = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), 0.1)
N = 24


@pytest.fixture(scope="module")
def data():
    key = jr.key(SEED + 6)
    return PROBLEM.sample(key, PROBLEM.sample_teacher(jr.fold_in(key, 1)), N)


def _start(student, key, d=3):
    """The network that training starts from."""
    key_a, key_w, _ = jr.split(key, 3)
    std = 0.7 / d**0.5
    m = student.width
    return ts.TwoLayer(student.init_output_std * jr.normal(key_a, (m,)), std * jr.normal(key_w, (m, d)))


def test_linearised_training_is_gradient_descent_in_the_empirical_ntk(data, key):
    student = ts.GradientStudent(4, linearised=True, steps=40, init_output_std=0.7)
    fit = student.fit(key, data)
    start = _start(student, key)
    flat, unravel = ravel_pytree(start)
    jacobian = lambda x: np.asarray(jax.jacobian(lambda p: unravel(p).samples_last(x.T))(flat))
    value, features = np.asarray(start.samples_last(data.x.T)), jacobian(data.x)
    kernel = features @ features.T
    # Residuals shrink by I - eta K / n in every step; the predictions follow by the kernel to new points.
    eta = 2 / (5 / 3)
    shrink = np.linalg.matrix_power(np.eye(N) - eta * kernel / N, 40)
    residual = value - np.asarray(data.y)
    np.testing.assert_allclose(fit.predict(data.x), np.asarray(data.y) + shrink @ residual, rtol=1e-7, atol=1e-9)
    new = ts.Sphere(3).sample(jr.fold_in(key, 5), 7)
    eigenvalues, vectors = np.linalg.eigh(kernel)
    keep = eigenvalues > 1e-10 * eigenvalues.max()
    powers = (1 - (1 - eta * eigenvalues[keep] / N) ** 40) / eigenvalues[keep]
    change = -(vectors[:, keep] * powers) @ (vectors[:, keep].T @ residual)
    expected = np.asarray(start.samples_last(new.T)) + jacobian(new) @ features.T @ change
    np.testing.assert_allclose(fit.predict(new), expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.stats["train_loss"], 0.5 * np.mean((shrink @ residual) ** 2), rtol=1e-6)
    assert fit.predict(data.x.astype(jnp.float32)).dtype == jnp.float64


def test_lazy_training_tends_to_linearised_training(data, key):
    linearised = ts.GradientStudent(4, linearised=True, steps=40, init_output_std=0.7)
    start = _start(linearised, key)
    # The lazy network starts at 0: give the linearised one what is then left to learn.
    shifted = ts.Dataset(x=data.x, y=data.y + start.samples_last(data.x.T))
    limit = np.asarray(linearised.fit(key, shifted).predict(data.x) - start.samples_last(data.x.T))
    errors = []
    for scale in (10.0, 100.0, 1000.0):
        fit = ts.GradientStudent(4, output_scale=scale, steps=40, init_output_std=0.7).fit(key, data)
        assert fit.net.a.shape == (8,), "a two-layer network, whose risk is exact"
        errors.append(np.abs(np.asarray(fit.predict(data.x)) - limit).max())
        np.testing.assert_allclose(
            fit.stats["train_loss"], 0.5 * np.mean((fit.predict(data.x) - data.y) ** 2), rtol=1e-6
        )
    # The error falls like 1 / scale.
    assert errors[1] < 0.2 * errors[0] and errors[2] < 0.2 * errors[1] and errors[2] < 1e-3


def test_mini_batches_are_an_optax_loop(data, key):
    optimizer = optax.adam(0.05)
    student = ts.GradientStudent(3, optimizer=optimizer, batch_size=7, epochs=3)
    fit = student.fit(key, data)
    _, _, key_order = jr.split(key, 3)
    theta = _start(student, key)
    state, used = optimizer.init(theta), []
    for epoch in range(3):
        order = np.asarray(jr.permutation(jr.fold_in(key_order, epoch), N))
        # 24 samples fill 3 batches of 7.
        for rows in order[:21].reshape(3, 7):
            used.append(rows)
            loss = lambda theta, rows=rows: 0.5 * jnp.mean((theta.samples_last(data.x[rows].T) - data.y[rows]) ** 2)
            updates, state = optimizer.update(jax.grad(loss)(theta), state)
            theta = optax.apply_updates(theta, updates)
    np.testing.assert_allclose(fit.net.w, theta.w, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fit.net.a, theta.a, rtol=1e-9, atol=1e-12)
    assert len(set(np.concatenate(used[:3]).tolist())) == 21, "an epoch sees a sample once at most"
    assert (
        int(fit.stats["total_steps"]) == 9
        and float(fit.stats["sample_steps"]) == 63
        and fit.status == ts.Status.STEP_LIMIT
    )
    assert float(fit.stats["neuron_steps"]) == 189


def test_full_batch_descent_stops_where_the_loss_is_flat(data, key):
    fit = ts.GradientStudent(3).fit(key, data)
    assert fit.status == ts.Status.CONVERGED and 50 <= int(fit.stats["total_steps"]) < 7000
    # The default step size in mini-batches of all samples, decaying: an explicit loop.
    whole = ts.GradientStudent(3, batch_size=N, steps=20).fit(key, data)
    theta, eta = _start(ts.GradientStudent(3), key), 2 / (4 / 3)
    loss = lambda theta: 0.5 * jnp.mean((theta.samples_last(data.x.T) - data.y) ** 2)
    for i in range(20):
        theta = jax.tree.map(lambda p, g, i=i: p - eta * (1 - i / 20) * g, theta, jax.grad(loss)(theta))
    np.testing.assert_allclose(whole.net.w, theta.w, rtol=1e-5, atol=1e-8)


def test_divergence_is_a_status(data, key):
    fit = ts.GradientStudent(3, optimizer=optax.sgd(1e6)).fit(key, data)
    assert fit.status == ts.Status.DIVERGED
    both = jax.vmap(lambda k: dataclasses.replace(ts.GradientStudent(3, steps=100)).fit(k, data))(jr.split(key))
    assert both.net.w.shape == (2, 3, 3) and (both.status != ts.Status.DIVERGED).all()


def test_errors(data, key):
    cases = [
        (lambda: ts.GradientStudent(0), r"GradientStudent: width must be finite and at least 1, got 0"),
        (lambda: ts.GradientStudent(2, steps=-1), r"steps must be finite and at least 0, got -1"),
        (lambda: ts.GradientStudent(2, epochs=2), r"epochs counts passes of mini-batches: give batch_size"),
        (lambda: ts.GradientStudent(2, epochs=2, batch_size=4, steps=3), r"epochs counts passes .* no steps"),
        (lambda: ts.GradientStudent(2, linearised=True, output_scale=2.0), r"give one of linearised and output_scale"),
        (lambda: ts.GradientStudent(2, output_scale=0.0), r"output_scale must be finite and at least 1e-06, got 0\.0"),
        (lambda: ts.GradientStudent(2, batch_size=25).fit(key, data), r"batch_size=25 is more than the n=24 samples"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
