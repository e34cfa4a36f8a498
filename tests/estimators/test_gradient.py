"""One-phase students are compared with closed forms, with loops over optax, and with each other."""

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
from tsjax import theory

PROBLEM = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), 0.1)
N = 24


@pytest.fixture(scope="module")
def data():
    key = jr.key(SEED + 6)
    return PROBLEM.sample(key, PROBLEM.sample_teacher(jr.fold_in(key, 1)), N)


def _start(student, key, d=3):
    """The network from which training starts."""
    key_a, key_w, _ = jr.split(key, 3)
    std = 0.7 / d**0.5 if student.init_neuron_std is None else student.init_neuron_std
    m = student.width
    return ts.TwoLayer(student.init_output_std * jr.normal(key_a, (m,)), std * jr.normal(key_w, (m, d)))


def _step_size(start, s2=1 / 3):
    """The default step size by its formula, on the sphere in three dimensions."""
    return 2 / (max(start.a.size + 1, float(jnp.sum(start.a**2) + jnp.sum(start.w**2))) * s2)


def _jacobian(start, x):
    """The Jacobian (n, m + m d), with the output weights first."""
    flat, unravel = ravel_pytree(start)
    return np.asarray(jax.jacobian(lambda p: unravel(p).samples_last(x.T))(flat))


def _half_mse(theta, x, y):
    return 0.5 * jnp.mean((theta.samples_last(x.T) - y) ** 2)


@pytest.mark.parametrize("trained", ["both", "neurons"])
def test_linearised_training_is_gradient_descent_in_the_empirical_ntk(data, key, trained):
    student = ts.GradientStudent(4, linearised=True, steps=40, init_output_std=0.7, trained=trained)
    fit = student.fit(key, data)
    start = _start(student, key)
    # The kernel has the gradients of the trained layers only.
    jacobian = lambda x: _jacobian(start, x)[:, 4 if trained == "neurons" else 0 :]
    value, features = np.asarray(start.samples_last(data.x.T)), jacobian(data.x)
    kernel = features @ features.T
    # Residuals shrink by I - eta K / n in every step; the predictions follow by the kernel to new points.
    eta = _step_size(start)
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
    # The lazy network starts at 0, so the linearised one gets the response minus its predictions at the start.
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


@pytest.mark.slow
def test_one_pass_sees_every_sample_once(data, key):
    # With steps so small that nothing moves, the steps of an epoch add up to the gradient over all samples, each counted once.
    student = ts.GradientStudent(3, step_size=2e-7, batch_size=6, epochs=1)
    fit, start = student.fit(key, data), _start(student, key)
    grad = jax.grad(_half_mse)(start, data.x, data.y)
    # The four batches take shares 1, 3/4, 1/2 and 1/4 of the step size: only a constant step weighs all samples alike.
    constant = dataclasses.replace(student, step_size=None, optimizer=optax.sgd(2e-7)).fit(key, data)
    for moved, expected in ((start.a - constant.net.a, grad.a), (start.w - constant.net.w, grad.w)):
        np.testing.assert_allclose(moved / (4 * 2e-7), expected, rtol=1e-5, atol=1e-8)
    assert fit.stats["steps"].tolist() == [4] and float(fit.stats["sample_steps"]) == N
    order = jr.permutation(jr.fold_in(jr.split(key, 3)[2], 0), N)
    weights = np.repeat([1.0, 0.75, 0.5, 0.25], 6) / 6
    each = np.asarray(jax.vmap(lambda i: jax.grad(_half_mse)(start, data.x[i][None], data.y[i][None]).w)(order))
    np.testing.assert_allclose((start.w - fit.net.w) / 2e-7, np.tensordot(weights, each, 1), rtol=1e-5, atol=1e-8)


def test_batches_of_all_samples_are_full_batches(data, key):
    # Fewer steps than the stopping rule looks at.
    optimizer = optax.adam(0.05)
    full, whole = (ts.GradientStudent(3, optimizer, 30, batch_size=b).fit(key, data) for b in (None, N))
    np.testing.assert_allclose(whole.net.w, full.net.w, rtol=1e-9)
    np.testing.assert_allclose(whole.net.a, full.net.a, rtol=1e-9)
    np.testing.assert_allclose(whole.stats["train_loss"], full.stats["train_loss"], rtol=1e-9)


def test_a_frozen_first_layer_ends_at_least_squares_on_its_features(data, key):
    # Batches of all samples do not stop at a flat loss; momentum, since random features are badly conditioned.
    optimizer = optax.sgd(1.0, momentum=0.98)
    student = ts.GradientStudent(4, optimizer, 8000, batch_size=N, trained="output")
    fit, start = student.fit(key, data), _start(student, key)
    np.testing.assert_allclose(fit.net.w, start.w, rtol=1e-14)
    phi = np.maximum(np.asarray(data.x @ start.w.T), 0)
    a = np.linalg.lstsq(phi, np.asarray(data.y))[0]
    best = 0.5 * np.mean((phi @ a - np.asarray(data.y)) ** 2)
    np.testing.assert_allclose(fit.stats["train_loss"], best, rtol=1e-8)
    np.testing.assert_allclose(fit.net.a, a, rtol=1e-4, atol=1e-4)
    default = ts.GradientStudent(4, trained="output", steps=20_000).fit(key, data)
    assert default.status == ts.Status.CONVERGED and best <= float(default.stats["train_loss"]) < 1.02 * best


def test_frozen_output_weights_stay(data, key):
    student = ts.GradientStudent(3, trained="neurons", steps=30, init_output_std=1.0)
    fit, theta = student.fit(key, data), _start(student, key)
    eta, grad = _step_size(theta), jax.jit(jax.grad(_half_mse))
    for _ in range(30):
        theta = dataclasses.replace(theta, w=theta.w - eta * grad(theta, data.x, data.y).w)
    np.testing.assert_allclose(fit.net.a, theta.a, rtol=1e-14)
    np.testing.assert_allclose(fit.net.w, theta.w, rtol=1e-8, atol=1e-10)


def test_the_default_step_size_is_stable_in_the_kernel_regime(data):
    # Large starts, whose curvature is far from that of a unit teacher.
    large = dict(init_output_std=3.0, init_neuron_std=2.0, steps=40)
    lazy = ts.GradientStudent(5, output_scale=1e4, **large)
    keys = jr.split(jr.key(SEED + 8), 16)
    fits = jax.vmap(lambda k: lazy.fit(k, data))(keys)
    assert (fits.stats["train_loss"] < 0.5 * jnp.mean(data.y**2)).all() and (fits.status != ts.Status.DIVERGED).all()
    # The bound of 1, half the limit of stability, is for the law of the inputs; here are 24 samples of it.
    for k in keys:
        start = _start(lazy, k)
        assert _step_size(start) * np.linalg.norm(_jacobian(start, data.x), 2) ** 2 / N < 1.5


def test_adam_learns_a_teacher(key):
    problem = ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), 0.1)
    teacher = problem.sample_teacher(key)
    data = problem.sample(jr.fold_in(key, 1), teacher, 256)
    fit = ts.GradientStudent(4, optax.adam(optax.cosine_decay_schedule(0.02, 2000)), 2000, batch_size=256).fit(
        key, data
    )
    # Twice the teacher's neurons, hence about twice its risk; that of predicting 0 is 100 times as large.
    assert float(ts.excess_risk(problem, teacher, fit)) < 4 * theory.cramer_rao(m=2, d=4, n=256, noise_std=0.1)


def test_step_sizes_are_traced(data, key):
    step_sizes = jnp.array([0.1, 0.4])
    train = lambda eta: ts.GradientStudent(3, step_size=eta, steps=20).fit(key, data).net.w
    # Also the agreement of jit, of vmap and of a loop.
    mapped = jax.jit(jax.vmap(train))(step_sizes)
    for i, eta in enumerate([0.1, 0.4]):
        expected = ts.GradientStudent(3, optax.sgd(eta), 20).fit(key, data).net.w
        np.testing.assert_allclose(mapped[i], expected, rtol=1e-9)


def test_the_dtype_is_that_of_the_data(data, key):
    single = jax.tree.map(lambda v: v.astype(jnp.float32), data)
    for student in (
        ts.GradientStudent(3, step_size=0.5, output_scale=10.0, steps=10),
        ts.GradientStudent(3, linearised=True, steps=10, batch_size=8),
    ):
        fits = [student.fit(key, d) for d in (single, data)]
        for fit, dtype in zip(fits, (jnp.float32, jnp.float64), strict=True):
            floats = [leaf for leaf in jax.tree.leaves(fit) if jnp.issubdtype(leaf.dtype, jnp.floating)]
            assert len(floats) >= 5 and all(leaf.dtype == dtype for leaf in floats)


def test_full_batch_descent_stops_where_the_loss_is_flat(data, key):
    fit = ts.GradientStudent(3).fit(key, data)
    assert fit.status == ts.Status.CONVERGED and 50 <= int(fit.stats["total_steps"]) < 7000
    # The default step size in mini-batches of all samples, decaying: an explicit loop.
    whole = ts.GradientStudent(3, batch_size=N, steps=20).fit(key, data)
    theta = _start(ts.GradientStudent(3), key)
    eta, grad = _step_size(theta), jax.jit(jax.grad(_half_mse))
    for i in range(20):
        theta = jax.tree.map(lambda p, g, i=i: p - eta * (1 - i / 20) * g, theta, grad(theta, data.x, data.y))
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
        (lambda: ts.GradientStudent(2, linearised=True, trained="output"), r"linear in its output weights already"),
        (lambda: ts.GradientStudent(2, optax.sgd(0.1), step_size=0.1), r"give one of optimizer and step_size"),
        (lambda: ts.GradientStudent(2, step_size=-0.1), r"step_size must be finite and at least 0, got -0\.1"),
        (lambda: ts.GradientStudent(2, output_scale=0.0), r"output_scale must be finite and at least 1e-06, got 0\.0"),
        (lambda: ts.GradientStudent(2, batch_size=25).fit(key, data), r"batch_size=25 is more than the n=24 samples"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
