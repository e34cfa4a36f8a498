"""Backward elimination is compared with least squares and with brute force in NumPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts
from tsjax.estimators import pruning
from tsjax.estimators.pruning import information_criterion, prune

D, N = 4, 200


@pytest.fixture
def sample(key):
    """A network of four neurons with very different weights, inputs, and its responses with noise."""
    key_w, key_x, key_eps = jr.split(key, 3)
    w = jr.normal(key_w, (4, D)) * jnp.array([1.0, 0.05, 0.7, 0.2])[:, None]
    net = ts.TwoLayer(a=jnp.array([1.0, -1.0, -1.0, 1.0]), w=w)
    x = ts.Sphere(D).sample(key_x, N)
    y = net.samples_last(x.T) + 0.01 * jr.normal(key_eps, (N,))
    return net, x.T, y


def _least_squares_loss(features, y):
    c = np.linalg.lstsq(features.T, y, rcond=None)[0]
    return 0.5 * np.mean((c @ features - y) ** 2), c


def test_the_neuron_of_the_least_increase_goes(sample, monkeypatch):
    monkeypatch.setattr(pruning, "REFIT_STEPS", 0)
    net, x_t, y = sample
    features = np.maximum(np.asarray(net.w) @ np.asarray(x_t), 0.0)
    losses = [_least_squares_loss(np.delete(features, j, axis=0), np.asarray(y))[0] for j in range(4)]
    removed = int(np.argmin(losses))
    pruned, width, steps = prune(net, ts.Dataset(x=x_t.T, y=y), 3)
    kept = [j for j in range(4) if j != removed]
    _, c = _least_squares_loss(features[kept], np.asarray(y))
    assert int(width) == 3 and int(steps) == 0 and pruned.a.tolist() == np.sign(c).tolist()
    np.testing.assert_allclose(pruned.w, np.abs(c)[:, None] * np.asarray(net.w)[kept], rtol=5e-3)


def test_duplicates_and_dead_neurons_change_nothing(sample):
    net, x_t, y = sample
    halves = ts.TwoLayer(
        a=jnp.concatenate([net.a, net.a, jnp.ones(2)]), w=jnp.concatenate([net.w / 2, net.w / 2, jnp.zeros((2, D))])
    )
    pruned, width, steps = jax.jit(prune, static_argnums=2)(halves, ts.Dataset(x=x_t.T, y=y), 4)
    assert int(width) == 4 and int(steps) == 6 * pruning.REFIT_STEPS
    residual = np.asarray(pruned.samples_last(x_t) - y)
    assert np.mean(residual**2) < 1.2e-4, "noise of variance 1e-4 is left"


def test_the_width_of_the_best_criterion(sample, monkeypatch):
    """The whole path is repeated by brute force: neurons are removed one at a time, the best one first, and least squares
    refits the others."""
    monkeypatch.setattr(pruning, "REFIT_STEPS", 0)
    net, x_t, y = sample
    y = y + 0.1 * jr.normal(jr.key(5), (N,))
    features, target = np.maximum(np.asarray(net.w) @ np.asarray(x_t), 0.0), np.asarray(y)
    kept, scores = list(range(4)), {}
    scores[4] = np.log(0.5 * np.mean((np.asarray(net.samples_last(x_t)) - target) ** 2)) + 4 * D * np.log(N) / N
    while len(kept) > 1:
        trials = {j: _least_squares_loss(features[[k for k in kept if k != j]], target)[0] for j in kept}
        removed = min(trials, key=trials.get)
        kept.remove(removed)
        scores[len(kept)] = np.log(trials[removed]) + len(kept) * D * np.log(N) / N
    pruned, width, _ = prune(net, ts.Dataset(x=x_t.T, y=y), None)
    assert int(width) == min(scores, key=scores.get) < 4
    assert int((pruned.a != 0).sum()) == int(width) and pruned.a.shape == (4,)


def test_information_criterion_refuses_to_interpolate():
    assert float(information_criterion(0.1, 6, 10)) == np.inf
    np.testing.assert_allclose(information_criterion(0.1, 5, 10), np.log(0.1) + 5 * np.log(10) / 10, rtol=1e-6)
