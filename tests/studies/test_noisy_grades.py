"""The study of multi-grade learning under label noise: its grades, its labels and its numbers by NumPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from pydantic import ValidationError
from studies.by_hand import forward, layers_of

import tsjax as ts
from tsjax.studies.finite_width import problem_of
from tsjax.studies.grades import Start, parameters
from tsjax.studies.learned_subspaces import with_noise
from tsjax.studies.noisy_grades import LEARNERS, NoisyGradesArguments
from tsjax.sweep.spec import find_experiment

# All rows in every step, so that their order does not matter.
CELL = {"noise": 0.4, "n": 32, "test_points": 60, "epochs": 3}


def adam(theta, x, y, steps, rate):
    """Adam on (1/2n) sum |f - y|^2, written out."""
    flat = [leaf for pair in theta for leaf in pair]
    first, second = ([np.zeros_like(leaf) for leaf in flat] for _ in range(2))
    for t in range(1, steps + 1):
        *layers, outputs = forward(list(zip(flat[::2], flat[1::2], strict=True)), x)
        back, gradient = (outputs - y) / len(x), []
        for w, h in reversed(list(zip(flat[::2], layers, strict=True))):
            gradient = [back.T @ h, back.sum(0), *gradient]
            back = back @ w * (h > 0)
        for i, g in enumerate(gradient):
            first[i], second[i] = 0.9 * first[i] + 0.1 * g, 0.999 * second[i] + 0.001 * g**2
            flat[i] = flat[i] - rate * first[i] / (1 - 0.9**t) / (np.sqrt(second[i] / (1 - 0.999**t)) + 1e-8)
    return list(zip(flat[::2], flat[1::2], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["single", "multi"])
def test_records_are_what_numpy_finds(learner):
    result = ts.sweep(ts.studies.noisy_grades, seeds=2, learner=learner, **CELL)
    with jax.enable_x64(False):
        _compare(learner, result)


def _compare(learner, result):
    for row in range(2):
        key, _ = result.cell(row)
        split_key, noise_key, fit_key = jr.split(key, 3)
        train, test = problem_of(60).split(split_key, 32, jnp.float32)
        classes = np.asarray(with_noise(noise_key, train.y.astype(jnp.int32), 0.4))
        h, h_test, y = (np.asarray(one, float) for one in (train.x, test.x, np.eye(10)[classes]))
        left, total, total_test, cost = y, 0.0, 0.0, 0
        for i, grade in enumerate(LEARNERS[learner]):
            # As a student starts: by the first of its keys.
            start = Start(grade, 10).init(jr.split(jr.fold_in(fit_key, i), 4)[0], h.shape[1])
            theta = adam(layers_of(start), h, left, 3, 1e-3)
            *_, hidden, step = forward(theta, h)
            *_, hidden_test, step_test = forward(theta, h_test)
            cost += 3 * 32 * sum(w.size + b.size for w, b in theta)
            left, total, total_test, h, h_test = left - step, total + step, total_test + step_test, hidden, hidden_test
        found = result.records.iloc[row]
        assert found["cost"] == cost
        # A point whose two largest outputs are equal to rounding may count either way.
        assert abs(60 * found["accuracy"] - (total_test.argmax(1) == np.asarray(test.y)).sum()) <= 1
        assert abs(32 * found["fitted"] - (total.argmax(1) == classes).sum()) <= 1


def test_learners_have_one_cost():
    cost = find_experiment("noisy_grades").cost
    assert cost is not None
    costs = [cost({"learner": learner, "epochs": 2, "n": 64}).products for learner in LEARNERS]
    assert costs[0] == pytest.approx(costs[1], rel=0.06) and costs[0] > 0
    theta = layers_of(Start(LEARNERS["multi"][0], 10).init(jr.key(0), 64))
    assert parameters(LEARNERS["multi"][0], 64, 10) == sum(w.size + b.size for w, b in theta)


@pytest.mark.slow
def test_more_epochs_fit_more():
    """At one seed the split, the labels and the starts are common: what few epochs fit, more epochs fit better."""
    result = ts.sweep(ts.studies.noisy_grades, seeds=2, learner="multi", **{**CELL, "epochs": [1, 40]})
    few, many = (result.records.query(f"epochs == {e}")["fitted"].to_numpy() for e in (1, 40))
    assert (many >= few).all() and many.mean() > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 31}, "greater than or equal to 32"),
        ({"n": 1800}, "n = 1800 is more than the 1737 digits"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"learner": "grade_1"}, "'multi' or 'single'"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValidationError, match=message):
        NoisyGradesArguments(**{"learner": "multi", **CELL, **change})
