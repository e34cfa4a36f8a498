"""The study of subspaces of weights: its labels, its training and each of its numbers, by NumPy."""

import sys
from math import cos, pi

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SEED
from pydantic import ValidationError
from studies.by_hand import forward

import tsjax as ts
from tsjax.networks.base import Fixed, Layer
from tsjax.networks.mlp import MLPNetwork
from tsjax.studies.finite_width import problem_of
from tsjax.studies.learned_subspaces import CORNERS, LearnedSubspacesArguments, lattice, student, with_noise
from tsjax.subspaces import SubspaceNetwork
from tsjax.sweep.spec import find_experiment

CELL = {"repulsion": 1.0, "noise": 0.4, "steps": 3, "width": 4, "n": 40, "test_points": 60, "batch_size": 20, "rate": 0.05,
        "decay": 5e-4, "places": 5, "divisions": 3}  # fmt: skip
SIZES = (64, 4, 4, 10)
RNG = np.random.default_rng(SEED)


def softmax(z) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def descend(theta, x, y, rate, steps, decay):
    """SGD with momentum .9 on the mean cross-entropy plus (decay / 2) |theta|^2, all rows in every step, the rate a cosine."""
    velocity = [(np.zeros_like(w), np.zeros_like(b)) for w, b in theta]
    for step in range(steps):
        now = rate * (1 + cos(pi * step / steps)) / 2
        *layers, outputs = forward(theta, x)
        back, moved = (softmax(outputs) - np.eye(10)[y]) / len(x), []
        for (w, b), (v, u), h in reversed(list(zip(theta, velocity, layers, strict=True))):
            v, u = 0.9 * v + back.T @ h + decay * w, 0.9 * u + back.sum(0) + decay * b
            moved.append(((w - now * v, b - now * u), (v, u)))
            back = back @ w * (h > 0)
        theta, velocity = [list(part) for part in zip(*moved[::-1], strict=True)]
    return theta


def weights_of(network) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.asarray(layer.weight, float), np.asarray(layer.bias, float)) for layer in network.layers]


def test_one_network_descends_as_written_out(key):
    """In batches of all rows, whose order does not matter; the penalty is one that shows."""
    x, y = RNG.normal(size=(30, 64)), RNG.integers(0, 10, 30)
    data = ts.Dataset(x=jnp.asarray(x, jnp.float32), y=jnp.asarray(y, jnp.int32))
    learner = student("network", 0.0, 4, 0.1, 6, 30, 0.1)
    start = learner.init(key, data.x)
    assert all(np.abs(layer.bias).max() == 0 for layer in start.layers)
    # He et al.: variance 2 / fan-in, of 256 weights.
    assert np.var(np.asarray(start.layers[0].weight)) == pytest.approx(2 / 64, rel=0.4)
    fit = learner.fit(key, data, start=start)
    expected = descend(weights_of(start), x, y, 0.1, 6, 0.1)
    without = descend(weights_of(start), x, y, 0.1, 6, 0.0)
    for (w, b), (w_hand, b_hand), (w_none, _) in zip(weights_of(fit.model), expected, without, strict=True):
        np.testing.assert_allclose(w, w_hand, atol=1e-5)
        np.testing.assert_allclose(b, b_hand, atol=1e-5)
        assert np.abs(w_hand - w_none).max() > 1e-3


def test_a_subspace_is_trained_everywhere():
    for kind in ("line", "curve", "simplex"):
        learner = student(kind, 0.7, 4, 0.1, 6, 30, 5e-4)
        assert isinstance(learner.loss, ts.subspaces.Everywhere) and float(learner.loss.repulsion) == 0.7
        assert isinstance(learner.model, ts.Subspace) and learner.model.kind == kind
        assert learner.penalty == 5e-4 / 2
    assert student("independent", 0.7, 4, 0.1, 6, 30, 5e-4).loss is ts.losses.cross_entropy


def test_labels_are_drawn_anew(key):
    classes = jnp.full(50_000, 3)
    np.testing.assert_array_equal(with_noise(key, classes, 0.0), classes)
    noisy = np.bincount(np.asarray(with_noise(key, classes, 0.4)), minlength=10) / 50_000
    expected = np.where(np.arange(10) == 3, 0.64, 0.04)
    # Five standard errors.
    assert (np.abs(noisy - expected) < 5 * np.sqrt(expected * (1 - expected) / 50_000)).all() and len(noisy) == 10
    every = np.bincount(np.asarray(with_noise(key, classes, 1.0)), minlength=10) / 50_000
    assert (np.abs(every - 0.1) < 5 * np.sqrt(0.09 / 50_000)).all()


def test_the_lattice_is_a_triangle():
    row, column = lattice(3)
    assert sorted(zip(row.tolist(), column.tolist(), strict=True)) == [
        (i, j) for i in range(4) for j in range(4) if i + j <= 3
    ]


class Given:
    """A learner whose networks are BASE + u STEP, u a uniform number of its key; corner i of a subspace has i + u for u."""

    BASE = [(RNG.normal(size=(n, m)), RNG.normal(size=n)) for m, n in zip((64, 4, 4), SIZES[1:], strict=True)]
    STEP = [(RNG.normal(size=w.shape), RNG.normal(size=b.shape)) for w, b in BASE]

    def __init__(self, kind):
        self.kind, self.seen = kind, None

    def corners(self, u: float) -> list:
        many = CORNERS[self.kind] if self.kind in ("line", "curve", "simplex") else 1
        return [
            [(w + (i + u) * v, b + (i + u) * s) for (w, b), (v, s) in zip(self.BASE, self.STEP, strict=True)]
            for i in range(many)
        ]

    def fit(self, key, data):
        self.seen = data
        corners = self.corners(jax.random.uniform(key))  # pyright: ignore[reportArgumentType]
        one = Fixed(1.0 if len(corners) == 1 else jnp.ones(len(corners)))
        if len(corners) == 1:
            stacked = corners[0]
        else:
            stacked = [
                tuple(jnp.stack(part) for part in zip(*layer, strict=True)) for layer in zip(*corners, strict=True)
            ]
        single = lambda w: jnp.asarray(w, jnp.float32)
        layers = tuple(Layer(single(w), single(b), one, one) for w, b in stacked)
        network = MLPNetwork(layers, None, jax.nn.relu, (64,), 10)
        model = network if len(corners) == 1 else SubspaceNetwork(network, self.kind, len(corners))
        return ts.ModelFit(model, jnp.zeros((), jnp.int32), {})


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(CORNERS))
def test_a_record_is_what_numpy_finds(key, kind, monkeypatch):
    """Of networks that are given, so that none is trained."""
    module = sys.modules["tsjax.studies.learned_subspaces"]
    given = Given(kind)
    monkeypatch.setattr(module, "student", lambda *settings: given)
    found = jax.jit(lambda key: find_experiment("learned_subspaces").fn(key, kind=kind, **CELL))(key)
    found = {name: np.asarray(value, float) for name, value in found.items()}

    split_key, _, fit_key = jax.random.split(key, 3)
    _, test = problem_of(60).split(split_key, 40, jnp.float64)
    x, y = np.asarray(test.x), np.asarray(test.y).astype(int)
    if kind in ("network", "independent"):
        keys = jax.random.split(fit_key, CORNERS[kind])
        corners = [given.corners(float(jax.random.uniform(own)))[0] for own in keys]
    else:
        corners = given.corners(float(jax.random.uniform(fit_key)))
    mix = lambda shares: [
        tuple(sum(s * part[k] for s, part in zip(shares, layer, strict=True)) for k in (0, 1))
        for layer in zip(*corners, strict=True)
    ]
    accuracy = lambda shares: np.mean(forward(mix(shares), x)[-1].argmax(axis=1) == y)
    shares_at = {
        "network": lambda t: (1.0,),
        "independent": lambda t: (1 - t, t),
        "line": lambda t: (1 - t, t),
        "curve": lambda t: ((1 - t) ** 2, 2 * t * (1 - t), t**2),
        "simplex": lambda t: (1 - t, t, 0.0),
    }[kind]
    path = [accuracy(shares_at(t)) for t in np.linspace(0, 1, 5)]
    # Of a few points, one may have two classes that rounding decides between.
    near = {"atol": 1.01 / 60}
    np.testing.assert_allclose(found["place"], np.linspace(0, 1, 5), atol=1e-7)
    np.testing.assert_allclose(found["accuracy"], path, **near)
    ends = [corners[i] for i in ((0, 2) if kind == "curve" else range(len(corners)))]
    outputs = [forward(theta, x)[-1] for theta in ends]
    np.testing.assert_allclose(found["ends"], np.mean([np.mean(z.argmax(axis=1) == y) for z in outputs]), **near)
    assert found["trials"] == 60 * len(ends)
    middle = accuracy((1 / 3,) * 3 if kind == "simplex" else shares_at(0.5))
    np.testing.assert_allclose(found["middle"], middle, **near)
    np.testing.assert_allclose(found["ensemble"], np.mean(np.mean(outputs, axis=0).argmax(axis=1) == y), **near)
    if kind == "simplex":
        table = np.full((4, 4), np.nan)
        for i, j in zip(*lattice(3), strict=True):
            table[i, j] = accuracy(((3 - i - j) / 3, i / 3, j / 3))
        np.testing.assert_allclose(found["triangle"], table, **near)
        path = table[np.isfinite(table)]
    np.testing.assert_allclose(found["lowest"], np.min(path), **near)
    if kind == "network":
        assert "cosine" not in found and "variation" not in found
        return
    flat = [np.concatenate([part.ravel() for layer in theta for part in layer]) for theta in ends]
    pairs = [(a, b) for a in range(len(ends)) for b in range(a)]
    cosines = [abs(flat[a] @ flat[b]) / np.linalg.norm(flat[a]) / np.linalg.norm(flat[b]) for a, b in pairs]
    np.testing.assert_allclose(found["cosine"], np.mean(cosines), rtol=1e-4)
    apart = [np.abs(softmax(outputs[a]) - softmax(outputs[b])).sum(axis=1).mean() / 2 for a, b in pairs]
    np.testing.assert_allclose(found["variation"], np.mean(apart), rtol=1e-3)
    # What was trained on: other digits, with noisy labels.
    assert given.seen is not None and given.seen.x.shape == (40, 64)


@pytest.mark.slow
def test_a_line_is_better_than_the_segment_between_independent_networks():
    cell = {**CELL, "width": 32, "n": 300, "test_points": 300, "steps": 400, "noise": 0.0, "batch_size": 50}
    result = ts.sweep(ts.studies.learned_subspaces, seeds=2, kind=["independent", "line"], **cell)
    lowest = result.records.groupby("kind")["lowest"].mean()
    assert lowest["line"] > lowest["independent"] + 0.02 and lowest["line"] > 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "plane"}, "Input should be 'network', 'independent', 'line', 'curve' or 'simplex'"),
        (
            {"n": 1001},
            "n = 1001 must be between batch_size = 64 and the 1000 digits that are not among the 797 held out",
        ),
        ({"n": 63}, "n = 63 must be between batch_size = 64"),
        ({"noise": 1.5}, "less than or equal to 1"),
        ({"repulsion": -1.0}, "greater than or equal to 0"),
        ({"places": 1}, "greater than or equal to 2"),
        ({"beta": 1.0}, "Extra inputs"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValidationError, match=message):
        LearnedSubspacesArguments.model_validate({"kind": "line", **change})


def test_two_networks_cost_twice_as_much():
    cost = find_experiment("learned_subspaces").cost
    assert cost is not None
    one, two = (
        cost(LearnedSubspacesArguments(kind=kind, steps=7).model_dump()).products for kind in ("line", "independent")
    )
    assert one == 6 * 7 * 64 * (64 * 128 + 128 * 128 + 128 * 10) and two == 2 * one
