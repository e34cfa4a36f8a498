"""The numbers of the study against networks and gradients written out in NumPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from pydantic import ValidationError

import tsjax as ts
from tsjax.studies import benign_overfitting
from tsjax.studies.benign_overfitting import SETTINGS, BenignArguments, PatchNetwork, one_run

SMALL = {"mu": 2.0, "d": 12, "n": 8, "flip": 0.2, "filters": 3, "rate": 0.1, "test_points": 50}


def _forward(weight, bias, scale, x):
    """Pre-activations (n, bank, filter, patch), and f (n,)."""
    z = np.einsum("jrd,nkd->njrk", weight, x) + bias[None, :, :, None]
    banks = scale * np.maximum(z, 0.0).sum(axis=(2, 3))
    return z, banks[:, 1] - banks[:, 0]


def _descend(network, x, labels, rate, steps):
    """Gradient descent on the mean of log(1 + exp(-y f)), y = +-1, by the gradient written out."""
    weight = np.asarray(network.weight, float)
    bias = np.zeros(weight.shape[:2]) if network.bias is None else np.asarray(network.bias, float)
    sign, n = np.array([-1.0, 1.0])[None, :, None, None], len(labels)
    for _ in range(steps):
        z, f = _forward(weight, bias, network.scale, x)
        slope = -labels / (1.0 + np.exp(labels * f)) / n
        back = slope[:, None, None, None] * network.scale * sign * (z > 0)
        weight = weight - rate * np.einsum("njrk,nkd->jrd", back, x)
        bias = bias if network.bias is None else bias - rate * back.sum(axis=(0, 3))
    return weight, bias


@pytest.mark.parametrize("setting", [pytest.param("authors", marks=pytest.mark.slow), "theorem"])
def test_one_run_is_what_numpy_computes(key, setting):
    chosen = SETTINGS[setting]
    status, numbers = jax.jit(lambda key: one_run(key, setting=setting, **SMALL))(key)
    assert int(status) == ts.Status.STEP_LIMIT
    # The same draws.
    mu = jnp.zeros(12, jnp.float32).at[0].set(2.0)
    instance = ts.SignalNoisePatches(mu, flip=0.2, orthogonal=chosen.orthogonal).draw(key)
    train, test = (instance.sample(jr.fold_in(key, i), rows) for i, rows in ((0, 8), (1, 50)))
    network = chosen.init(jr.split(jr.fold_in(key, 2), 4)[0], 3, 12)
    x, points = np.asarray(train.x, float), np.asarray(test.x, float)
    labels = 2.0 * np.asarray(train.y) - 1.0
    weight, bias = _descend(network, x, labels, 0.1, chosen.steps)
    f = _forward(weight, bias, network.scale, x)[1]
    g = _forward(weight, bias, network.scale, points)[1]
    assert float(numbers["train_loss"]) == pytest.approx(np.log1p(np.exp(-labels * f)).mean(), rel=1e-3)
    # No test point is near enough to the boundary for rounding to decide.
    assert np.abs(g).min() > 1e-4
    assert float(numbers["error"]) == pytest.approx(np.mean((g > 0) != np.asarray(test.y)))
    assert float(numbers["clean_error"]) == pytest.approx(np.mean((g > 0) != (points[:, 0, 0] > 0)))
    assert float(numbers["train_accuracy"]) == pytest.approx(np.mean((f > 0) == (labels > 0)))
    # Noise along the signal is there for the authors, and not for the theorem.
    assert np.any(x[:, 1, 0] != 0) == (setting == "authors")


def test_the_starts_of_both_settings(key):
    network = SETTINGS["authors"].init(key, 50, 100)
    for values in (network.weight, network.bias):
        assert values is not None and float(jnp.abs(values).max()) < 0.1
        # Uniform on +-a has the standard deviation a / sqrt 3.
        assert abs(float(jnp.std(values)) / (0.1 / 3**0.5) - 1) < 0.2
    small = SETTINGS["theorem"].init(key, 50, 100)
    assert small.bias is None and small.scale == 1 / 50 and abs(float(jnp.std(small.weight)) / 0.01 - 1) < 0.05


def test_the_network_does_not_notice_the_order_of_patches(key, rng):
    network = PatchNetwork(jnp.asarray(rng.normal(size=(2, 3, 4))), jnp.asarray(rng.normal(size=(2, 3))), 1.0)
    x = jnp.asarray(rng.normal(size=(2, 4)))
    assert float(network(x)) == pytest.approx(float(network(x[::-1])))
    # Banks that change places change the sign.
    swapped = PatchNetwork(network.weight[::-1], network.bias[::-1], 1.0)  # pyright: ignore[reportOptionalSubscript]
    assert float(network(x)) == pytest.approx(-float(swapped(x)))


@pytest.mark.slow
def test_a_cell_is_the_mean_of_its_runs(key):
    cell = benign_overfitting(key, setting="authors", runs=2, **SMALL)
    runs = [one_run(one, setting="authors", **SMALL)[1] for one in jr.split(key, 2)]
    for name in ("error", "clean_error", "train_loss", "train_accuracy"):
        assert float(cell[name]) == pytest.approx(np.mean([float(run[name]) for run in runs]), rel=1e-4)
    assert float(runs[0]["train_loss"]) != float(runs[1]["train_loss"])
    assert (int(cell["tests"]), int(cell["trained"])) == (100, 16)


def test_arguments_are_the_authors_unless_they_are_given():
    arguments = BenignArguments(mu=1.0, d=100).model_dump()
    assert arguments == {
        "setting": "authors", "mu": 1.0, "d": 100, "n": 20, "flip": 0.1, "filters": 10, "rate": 0.1, "test_points": 1000,
        "runs": 10,
    }  # fmt: skip
    assert SETTINGS["authors"].steps == 100
    for change in ({"setting": "author"}, {"mu": -1.0}, {"flip": 0.5}, {"d": 1}, {"runs": 0}, {"rate": 0.0}):
        with pytest.raises(ValidationError, match=next(iter(change))):
            BenignArguments.model_validate({"mu": 1.0, "d": 100, **change})


def test_the_cost_counts_products():
    """20 points and 2 patches under 20 filters of 100 numbers: three products a step, 100 steps; one at the test points."""
    cost = benign_overfitting.cost(BenignArguments(mu=1.0, d=100, runs=1).model_dump())  # pyright: ignore
    products = lambda points: 2.0 * points * 2 * 20 * 100
    assert cost.products == 100 * 3 * products(20) + products(1000)
