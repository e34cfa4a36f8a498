"""The study of finite against infinite networks: each of its numbers by NumPy, and by neural-tangents' own kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.datasets import load_digits

import tsjax as ts
from tsjax.kernels.neural_tangents import load
from tsjax.studies.finite_width import (
    CLASSES,
    VARIANTS,
    FiniteWidthArguments,
    Variant,
    ensembles,
    network,
    problem_of,
    student,
)
from tsjax.sweep.spec import find_experiment

CELL = {"width": 8, "n": 20, "steps": 8, "members": 4, "others": 2, "test_points": 50}
VALUES = ("distance", "distance_2", "distance_4", "distance_flow", "accuracy", "accuracy_ensemble", "accuracy_ntk",
          "accuracy_nngp", "gain", "train_loss")  # fmt: skip


def stax_kernels(x1, x2) -> dict[str, np.ndarray]:
    """Two hidden ReLU layers, weights of variance 2 / fan-in, biases of variance 0.01, in neural-tangents' own words."""
    stax = load().stax
    dense = stax.Dense(1, W_std=2**0.5, b_std=0.1)
    kernel = stax.serial(dense, stax.Relu(), dense, stax.Relu(), dense)[2]
    return {get: np.asarray(kernel(jnp.asarray(x1), jnp.asarray(x2), get)) for get in ("ntk", "nngp")}


def rows_of(key, cell) -> tuple[np.ndarray, ...]:
    """Images and responses to learn from, and images and classes held out, of a cell."""
    train, test = problem_of(cell["test_points"]).split(jax.random.fold_in(key, 0), cell["n"], jnp.float64)
    y = np.eye(CLASSES)[np.asarray(train.y).astype(int)] - 0.1
    return np.asarray(train.x), y, np.asarray(test.x), np.asarray(test.y).astype(int)


def forward(theta, x) -> list[np.ndarray]:
    """What enters each layer, and the outputs: z = sqrt(2 / fan-in) W h + 0.1 b, h = max(z, 0)."""
    layers = [x]
    for i, (w, b) in enumerate(theta):
        z = (2 / w.shape[1]) ** 0.5 * layers[-1] @ w.T + 0.1 * b
        layers.append(np.maximum(z, 0.0) if i < len(theta) - 1 else z)
    return layers


def descend(theta, x, y, variant, rate, steps):
    """Gradient descent on (1/2n) sum |f - y|^2 + (l2 / 2) |theta|^2 by the chain rule written out, and the function it learns:
    f - f_0 where the variant is centred."""
    start = [(w.copy(), b.copy()) for w, b in theta]
    offset = lambda x: forward(start, x)[-1] if variant.centred else 0.0
    for _ in range(steps):
        *layers, outputs = forward(theta, x)
        back, moved = (outputs - offset(x) - y) / len(x), []
        for (w, b), h in reversed(list(zip(theta, layers, strict=True))):
            scale = (2 / w.shape[1]) ** 0.5
            moved.append(
                (w - rate * (scale * back.T @ h + variant.l2 * w), b - rate * (0.1 * back.sum(0) + variant.l2 * b))
            )
            back = scale * back @ w * (h > 0)
        theta = moved[::-1]
    return lambda x: forward(theta, x)[-1] - offset(x)


def by_hand(key, cell) -> dict[str, float]:
    """The record of a cell in NumPy, from the starts that its networks drew."""
    x, y, x_test, classes = rows_of(key, cell)
    n, variant = len(x), VARIANTS[cell["variant"]]
    gram, cross = stax_kernels(x, x), stax_kernels(x_test, x)
    predict = {get: cross[get] @ np.linalg.solve(k + 1e-6 * np.trace(k) / n * np.eye(n), y) for get, k in gram.items()}
    values, vectors = np.linalg.eigh(gram["ntk"])
    rate = variant.rate * 2 / (values[-1] / n)
    grown = (1 - np.exp(-rate * cell["steps"] * values / n)) / values
    flow = cross["ntk"] @ vectors @ (grown[:, None] * (vectors.T @ y))
    members = cell["members"] if cell["variant"] == "centred" else cell["others"]
    learnt = []
    for member in jax.random.split(jax.random.fold_in(key, 1), members):
        learnt.append(descend(start_of(member, cell["width"]), x, y, variant, rate, cell["steps"]))
    f = np.stack([function(x_test) for function in learnt])
    loss = np.mean([0.5 * np.mean(np.sum((function(x) - y) ** 2, axis=1)) for function in learnt])
    far = lambda a, b: np.sqrt(np.mean((a - b) ** 2))
    right = lambda outputs: np.mean(outputs.argmax(axis=-1) == classes)
    found = {
        "distance": np.mean([far(one, predict["ntk"]) for one in f]),
        "distance_flow": np.mean([far(one, flow) for one in f]),
        "distance_2": np.mean([far(f[i : i + 2].mean(0), predict["ntk"]) for i in range(0, members, 2)]),
        "accuracy": np.mean([right(one) for one in f]),
        "accuracy_ensemble": right(f.mean(0)),
        "accuracy_ntk": right(predict["ntk"]),
        "accuracy_nngp": right(predict["nngp"]),
        "train_loss": loss,
    }
    if members >= 4:
        found["distance_4"] = far(f[:4].mean(0), predict["ntk"])
    return found | {"gain": found["accuracy_ntk"] - found["accuracy"]}


def check_against_numpy(result):
    """Networks are float32, and one of the images may lie on the border of two classes."""
    for number in range(len(result.records)):
        record = result.records.iloc[number]
        key, cell = result.cell(number)
        for name, value in by_hand(key, cell).items():
            tolerance = 2.1 / cell["test_points"] if name.startswith("accuracy") or name == "gain" else 0.0
            assert record[name] == pytest.approx(value, rel=2e-3, abs=tolerance), (cell["variant"], name)


def start_of(member, width) -> list[tuple[np.ndarray, np.ndarray]]:
    """The weights and biases that a student of this key begins with."""
    net = network(width).init(jax.random.split(member, 4)[0], 64)
    return [(np.asarray(layer.weight, float), np.asarray(layer.bias, float)) for layer in net.layers]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [Variant(l2=0.1), Variant(rate=1.5, centred=False)],
    ids=["l2", "uncentred"],
)
def test_students_descend_as_written_out(key, variant):
    """With a penalty that eight steps show."""
    x, y, x_test, _ = rows_of(key, CELL)
    rate = variant.rate * 2 / np.linalg.eigvalsh(stax_kernels(x, x)["ntk"] / len(x))[-1]
    data = ts.Dataset(x=jnp.asarray(x, jnp.float32), y=jnp.asarray(y, jnp.float32))
    fit = student(variant, 8, rate, 8).fit(key, data)
    expected = descend(start_of(key, 8), x, y, variant, rate, 8)(x_test)
    plain = descend(start_of(key, 8), x, y, variant._replace(l2=0.0), rate, 8)(x_test)
    found = np.asarray(fit.predict(jnp.asarray(x_test, jnp.float32)))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert variant.l2 == 0 or np.abs(expected - plain).max() > 2e-3


@pytest.mark.slow
def test_a_record_is_what_numpy_finds():
    result = ts.sweep(ts.studies.finite_width, seeds=2, variant="centred", **CELL)
    assert set(VALUES) <= set(result.records) and (result.records["trials"] == 4 * 50).all()
    check_against_numpy(result)


@pytest.mark.slow
def test_every_other_variant_is_what_numpy_finds():
    variants = ["uncentred", "l2", "large_rate"]
    result = ts.sweep(ts.studies.finite_width, seeds=2, variant=variants, **CELL)
    assert (result.records["trials"] == 2 * 50).all() and "distance_4" not in result.records
    check_against_numpy(result)


@pytest.mark.slow
def test_the_kernels_are_those_of_neural_tangents():
    """One description gives network and kernels; the empirical kernel of a wide network is near its NTK."""
    x = problem_of(50).x[:6]
    expected = stax_kernels(x, x)
    for get, matrix in expected.items():
        found = ts.kernels.of(network(16), get)(jnp.asarray(x))
        np.testing.assert_allclose(np.asarray(found), matrix, rtol=1e-6)
    assert np.abs(expected["ntk"] - expected["nngp"]).max() > 1.0


def test_the_data_are_the_digits():
    problem, raw = problem_of(1000), load_digits()
    assert problem.x.shape == (1797, 64) and problem.test_size == 1000 and problem.largest_n == 797
    centred = raw.data - raw.data.mean(axis=0)
    np.testing.assert_allclose(problem.x, centred / centred.std(), rtol=1e-12, atol=1e-12)
    assert np.sqrt(np.mean(problem.x**2)) == pytest.approx(1.0) and np.abs(problem.x.mean(axis=0)).max() < 1e-12
    np.testing.assert_array_equal(problem.y, raw.target)


def test_ensembles_have_no_member_in_common():
    outputs = jnp.arange(5.0)[:, None, None] * jnp.ones((5, 2, 3))
    np.testing.assert_allclose(ensembles(outputs, 2)[:, 0, 0], [0.5, 2.5])
    np.testing.assert_allclose(ensembles(outputs, 5)[:, 1, 2], [2.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "centered"}, "Input should be 'centred', 'uncentred', 'l2' or 'large_rate'"),
        ({"n": 798}, "n = 798 is too large: 1000 of the digits are held out, which leaves 797"),
        ({"test_points": 1797}, "test_share"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"members": 0}, "greater than or equal to 1"),
        ({"wdth": 32}, "Extra inputs"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValidationError, match=message):
        FiniteWidthArguments.model_validate({"variant": "centred", "width": 32, **change})


def test_theory_speaks_of_centred_networks_alone():
    experiment = find_experiment("finite_width")
    width = np.array([32.0, 64.0])
    found = {
        name: experiment.theory_at(FiniteWidthArguments(variant=name, width=32).model_dump(), width)
        for name in VARIANTS
    }
    assert found["centred"].exponent == 0.5
    assert all(found[name] == ts.Theory() for name in VARIANTS if name != "centred")
