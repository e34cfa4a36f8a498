"""Objectives against NumPy and scikit-learn, under weights, and what they refuse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import sklearn.metrics
from helpers import SEED

import tsjax as ts
from tsjax import losses

N, D, K = 9, 4, 3
RNG = np.random.default_rng(SEED)
X = jnp.asarray(RNG.normal(size=(N, D)))
WEIGHT = jnp.asarray(RNG.uniform(0.5, 2.0, size=N))
LABELS = jnp.asarray(np.arange(N) % K, jnp.int32)
MATRIX = jnp.asarray(RNG.normal(size=(K, D)))
MANY = lambda x: MATRIX @ x
ONE = lambda x: MATRIX[0] @ x


def _cases():
    soft = jax.nn.softmax(jnp.asarray(RNG.normal(size=(N, K))), axis=1)
    logits = np.asarray(X @ MATRIX.T)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    numbers, several = jnp.asarray(RNG.normal(size=N)), jnp.asarray(RNG.normal(size=(N, K)))
    log_loss = lambda y, p, w: sklearn.metrics.log_loss(np.asarray(y), p, sample_weight=w, labels=range(p.shape[1]))
    binary = lambda w: log_loss(LABELS % 2, np.stack([1 - (s := 1 / (1 + np.exp(-logits[:, 0]))), s], 1), w)
    mean = lambda v, w: np.average(np.asarray(v), weights=w)
    smooth = 0.9 * np.eye(K)[np.asarray(LABELS)] + 0.1 / K
    return {
        "squared": (losses.squared, ONE, numbers, lambda w: 0.5 * mean((logits[:, 0] - numbers) ** 2, w)),
        "outputs": (losses.squared, MANY, several, lambda w: 0.5 * mean(((logits - several) ** 2).sum(1), w)),
        "logistic": (losses.logistic, ONE, LABELS % 2, binary),
        "classes": (losses.cross_entropy, MANY, LABELS, lambda w: log_loss(LABELS, shares, w)),
        "soft": (losses.cross_entropy, MANY, soft, lambda w: mean(-(np.asarray(soft) * np.log(shares)).sum(1), w)),
        "smooth": (losses.CrossEntropy(0.1), MANY, LABELS, lambda w: mean(-(smooth * np.log(shares)).sum(1), w)),
    }


@pytest.mark.parametrize("name", list(_cases()))
def test_values(name):
    objective, model, y, expected = _cases()[name]
    for weight in (None, WEIGHT):
        found = objective(model, ts.Dataset(x=X, y=y, weight=weight))
        np.testing.assert_allclose(found, expected(weight), rtol=1e-10)
        prepared = losses.on(objective, ts.Dataset(x=X, y=y, weight=weight))(model, None)
        np.testing.assert_allclose(prepared, found, rtol=1e-12)


@pytest.mark.parametrize("name", list(_cases()))
def test_rows_of_weight_0_are_not_there(name):
    """Neither the value nor the gradient depends on what rows of weight 0 hold."""
    objective, model, y, _ = _cases()[name]
    whole = ts.Dataset(x=X, y=y, weight=WEIGHT.at[5].set(0.0))
    rows = np.delete(np.arange(N), 5)
    part = ts.Dataset(x=X[rows], y=y[rows], weight=WEIGHT[rows])
    model_of = lambda m: (lambda x: m @ x) if model is MANY else (lambda x: m[0] @ x)
    value = lambda data: jax.value_and_grad(lambda m: objective(model_of(m), data))(MATRIX)
    for one, other in zip(jax.tree.leaves(value(whole)), jax.tree.leaves(value(part)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


def test_squared_of_two_layers_is_that_of_any_network(key):
    net = ts.TwoLayer(a=jr.normal(key, (5,), jnp.float64), w=jr.normal(key, (5, D), jnp.float64))
    y = jnp.asarray(RNG.normal(size=N))
    for weight in (None, WEIGHT):
        data = ts.Dataset(x=X, y=y, weight=weight)
        plain = lambda net, data=data: losses.squared(lambda x: net(x), data)
        fast = eqx.filter_value_and_grad(lambda net, data=data: losses.squared(net, data))(net)
        for one, other in zip(
            jax.tree.leaves(fast), jax.tree.leaves(eqx.filter_value_and_grad(plain)(net)), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)


def test_barlow_twins_by_hand(key):
    noise = lambda own, x: x + 0.1 * jr.normal(own, x.shape, x.dtype)
    objective = losses.barlow_twins(noise, off_diagonal=0.3)
    found = objective(MANY, ts.Dataset(x=X, y=LABELS), key)
    views = []
    for own in jr.split(key):
        rows = [np.asarray(MATRIX @ noise(jr.fold_in(own, i), X[i])) for i in range(N)]
        z = np.stack(rows)
        views.append((z - z.mean(0)) / z.std(0))
    c = views[0].T @ views[1] / N
    expected = ((1 - np.diag(c)) ** 2).sum() + 0.3 * ((c**2).sum() - (np.diag(c) ** 2).sum())
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    # Weights that repeat what is not there.
    padded = ts.Dataset(
        x=jnp.concatenate([X, 9 * X[:2]]), y=jnp.concatenate([LABELS, LABELS[:2]]),
        weight=jnp.concatenate([jnp.ones(N), jnp.zeros(2)]),
    )  # fmt: skip
    np.testing.assert_allclose(objective(MANY, padded, key), expected, rtol=1e-8)
    with pytest.raises(ValueError, match="draws two views of every point: give a key"):
        objective(MANY, padded)


def test_barlow_twins_of_pairs_by_hand():
    second = X + 0.3 * jnp.cos(X)
    f, g, w = np.asarray(X @ MATRIX.T), np.asarray(second @ MATRIX.T), np.asarray(WEIGHT)
    for weight in (None, WEIGHT):
        share = np.full(N, 1 / N) if weight is None else w / w.sum()
        c = sum(s * (np.outer(a, b) + np.outer(b, a)) / 2 for s, a, b in zip(share, f, g, strict=True))
        expected = ((c - np.eye(K)) ** 2).sum()
        found = losses.paired_barlow_twins(MANY, ts.Dataset(x=X, y=second, weight=weight))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    # Weights that repeat what is not there, where the outputs are not finite either.
    bad = jnp.full((2, D), jnp.nan)
    padded = ts.Dataset(
        x=jnp.concatenate([X, bad]), y=jnp.concatenate([second, bad]),
        weight=jnp.concatenate([WEIGHT, jnp.zeros(2)]),
    )  # fmt: skip
    np.testing.assert_allclose(losses.paired_barlow_twins(MANY, padded), expected, rtol=1e-12)


def test_penalties_and_reparametrisations(key):
    net = ts.TwoLayer(a=jnp.ones(2), w=jr.normal(key, (2, D), jnp.float64))
    data = ts.Dataset(x=X, y=X[:, 0])
    plain = losses.squared(net, data)
    squares = float(jnp.sum(net.a**2) + jnp.sum(net.w**2))
    np.testing.assert_allclose(losses.Penalised(losses.squared, 0.3)(net, data), plain + 0.3 * squares, rtol=1e-12)
    half = lambda net: jax.tree.map(lambda leaf: leaf / 2, net)
    np.testing.assert_allclose(
        losses.Reparametrised(losses.squared, half)(net, data), losses.squared(half(net), data), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("objective", "outputs", "y", "message"),
    [
        (losses.squared, (N,), LABELS, r"y holds class labels \(type int32\), .*tsjax\.losses\.cross_entropy"),
        (losses.squared, (N, K), X[:, 0], r"outputs of shape \(3,\) for each point, but responses y of shape \(\)"),
        (losses.logistic, (N, K), LABELS % 2, r"takes one output \(\) and one response .*cross_entropy"),
        (losses.logistic, (N,), 2 * (LABELS % 2) - 1, r"y is from -1 to 1\. Turn classes -1 and 1 into"),
        (losses.paired_barlow_twins, (N,), X, r"takes a model with several outputs \(k,\), got \(\)"),
        (
            losses.paired_barlow_twins,
            (N, K),
            X[:, 0],
            r"the second view of every point.* shape \(4,\), y of shape \(\)",
        ),
        (losses.cross_entropy, (N,), LABELS, r"one output for each class"),
        (losses.cross_entropy, (N, K), X[:, 0], r"takes classes, integers .* float64 of shape \(9,\)"),
        (losses.cross_entropy, (N, 2), LABELS, r"for the classes 0 to 1, but y holds labels from 0 to 2"),
        (
            losses.cross_entropy,
            (N, 2),
            X[:, :3],
            r"the model has 2 outputs, but y holds the probabilities of 3 classes",
        ),
    ],
)
def test_what_does_not_go_together_is_an_error(objective, outputs, y, message):
    with pytest.raises(ValueError, match=message):
        losses.check(objective, jax.ShapeDtypeStruct(outputs, jnp.float32), ts.Dataset(x=X, y=y))
