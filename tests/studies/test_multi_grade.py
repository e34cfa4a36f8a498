"""The study of multi-grade deep learning: its targets, networks, rates and records by NumPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from pydantic import ValidationError
from studies.by_hand import forward, layers_of

import tsjax as ts
from tsjax.studies.grades import SETTINGS, Start, parameters, sine, spectrum, student
from tsjax.studies.grades import waves as waves_of
from tsjax.studies.multi_grade import MultiGradeArguments

CELL = {"setting": "waves", "highest": 4, "n": 32, "effort": 0.003}
STEPS = 4


def adam(theta, x, y, steps) -> list[tuple[np.ndarray, np.ndarray]]:
    """Adam on (1/2n) sum (f - y)^2 written out, at the rate 3e-3 (1 + cos(pi t / steps)) / 2."""
    flat = [leaf.copy() for pair in theta for leaf in pair]
    first, second = ([np.zeros_like(leaf) for leaf in flat] for _ in range(2))
    for t in range(steps):
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        *layers, outputs = forward(pairs, x)
        back, gradient = (outputs - y[:, None]) / len(x), []
        for (w, _), h in reversed(list(zip(pairs, layers, strict=True))):
            gradient = [back.T @ h, back.sum(0), *gradient]
            back = back @ w * (h > 0)
        rate = 3e-3 * (1 + np.cos(np.pi * t / steps)) / 2
        for i, g in enumerate(gradient):
            first[i], second[i] = 0.9 * first[i] + 0.1 * g, 0.999 * second[i] + 0.001 * g**2
            m, v = first[i] / (1 - 0.9 ** (t + 1)), second[i] / (1 - 0.999 ** (t + 1))
            flat[i] = flat[i] - rate * m / (np.sqrt(v) + 1e-8)
    return list(zip(flat[::2], flat[1::2], strict=True))


def waves(highest, x) -> np.ndarray:
    k = np.arange(2, highest + 1, 2)
    return np.sin(2 * np.pi * np.outer(x, k) + k / 2).sum(axis=1) / np.sqrt(len(k) / 2)


def by_hand(key, cell) -> dict[str, np.ndarray]:
    """The records of a cell in NumPy, from the starts that its grades drew."""
    h, h_test = (np.linspace(-1, 1, n)[:, None] for n in (cell["n"], 1000))
    y, y_test = (waves(cell["highest"], x[:, 0]) for x in (h, h_test))
    left, left_test, found, cost = y, y_test, {"error": [], "test_error": [], "cost": []}, 0
    for i, grade in enumerate(SETTINGS["waves"].learners[cell["learner"]]):
        start = Start(grade).init(jr.split(jr.fold_in(key, i), 4)[0], h.shape[1])
        theta = adam(layers_of(start), h, left, STEPS)
        (*_, h, f), (*_, h_test, f_test) = forward(theta, h), forward(theta, h_test)
        left, left_test = left - f[:, 0], left_test - f_test[:, 0]
        cost += STEPS * cell["n"] * sum(w.size + b.size for w, b in theta)
        for name, value in (
            ("error", (left**2).sum() / (y**2).sum()),
            ("test_error", (left_test**2).sum() / (y_test**2).sum()),
            ("cost", cost),
        ):
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "grades"), [("multi", [1, 2, 3, 4]), ("single", [4])])
def test_records_are_what_numpy_finds(learner, grades):
    result = ts.sweep(ts.studies.multi_grade, seeds=1, learner=learner, **CELL)
    key, cell = result.cell(0)
    assert result.records["grade"].tolist() == grades
    for name, expected in by_hand(key, cell).items():
        np.testing.assert_allclose(result.records[name], expected, rtol=2e-3, err_msg=name)
    if learner == "multi":
        error = result.records["error"].to_numpy()
        assert result.records["rise"].to_numpy() == pytest.approx(np.max(error[1:] / error[:-1]))
        assert (result.records["falls"] == (result.records["rise"] <= 1)).all()


def test_targets_are_those_of_the_formulas():
    x = np.linspace(-1, 1, 512)
    for highest in (8, 24):
        found = np.asarray(waves_of(highest, jnp.asarray(x)))
        np.testing.assert_allclose(found, waves(highest, x), atol=1e-5)
        assert np.mean(found[:-1] ** 2) == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(sine(100, jnp.asarray(x)), np.sin(100 * x), atol=1e-4)
    by_hand = sum((1.05 - 0.05 * j) * np.sin(2 * np.pi * 10 * j * x + j) for j in range(1, 21))
    np.testing.assert_allclose(spectrum(200, jnp.asarray(x)), by_hand, atol=5e-3)


@pytest.mark.slow
def test_a_network_has_its_blocks_and_its_start():
    """Two sine layers, then ReLU ones; every number is uniform within 1 / sqrt(fan-in), biases too."""
    grade = SETTINGS["sine"].learners["single"][0]
    net = Start(grade).init(jr.key(3), 1)
    theta, h = layers_of(net), np.array([0.3])
    for i, (w, b) in enumerate(theta):
        most = 1 / np.sqrt(w.shape[1])
        both = np.concatenate([w.ravel(), b])
        assert np.abs(both).max() <= most * (1 + 1e-6)
        if both.size > 1000:
            assert np.mean(both**2) == pytest.approx(most**2 / 3, rel=0.1)
            assert np.abs(both).max() > 0.97 * most and np.abs(b).max() > 0.5 * most
        z = w @ h + b
        h = np.sin(z) if i < 2 else np.maximum(z, 0.0) if i < len(theta) - 1 else z
    assert [w.shape[0] for w, _ in theta] == [256, 256, 128, 128, 64, 64, 32, 32, 1]
    assert float(net(jnp.array([0.3], jnp.float32))) == pytest.approx(h[0], rel=1e-4)


@pytest.mark.slow
def test_later_grades_of_waves_begin_at_zero_and_he_starts_are_larger():
    first, second = (Start(g).init(jr.key(0), 64) for g in SETTINGS["waves"].learners["multi"][:2])
    x = jnp.ones(64, jnp.float32)
    assert float(first(x)) != 0.0 and float(second(x)) == 0.0 and float(jnp.abs(second.hidden(x)).max()) > 0
    he = layers_of(Start(SETTINGS["waves"].learners["single_he"][0]).init(jr.key(0), 1))[3][0]
    assert np.var(he) == pytest.approx(2 / 64, rel=0.1)


@pytest.mark.parametrize(("grade", "most", "epochs"), [(0, 0.1, 20), (1, 0.01, 20), (2, 0.01, 40)])
def test_rates_of_the_sine_fall_from_epoch_to_epoch(grade, most, epochs):
    learner = student(SETTINGS["sine"], SETTINGS["sine"].learners["multi"][grade], 5000, 1.0)
    rate = lambda epoch, step: float(learner.learning_rate(156 * epoch + step))
    assert learner.epochs == epochs + 1 and learner.batch_size == 32
    assert rate(0, 155) == pytest.approx(most) and rate(epochs, 0) == pytest.approx(1e-4, rel=1e-3)
    assert rate(1, 0) == pytest.approx(most * (1e-4 / most) ** (1 / epochs), rel=1e-4)


def test_costs_are_equal():
    def cost(setting, learner):
        inputs, total = 1, 0
        for grade in SETTINGS[setting].learners[learner]:
            net = jax.eval_shape(lambda grade=grade, inputs=inputs: Start(grade).init(jr.key(0), inputs))
            count = sum(layer.weight.size + layer.bias.size for p in (*net.parts, net.readout) for layer in p.layers)
            assert count == parameters(grade, inputs)
            total += count * (grade.length if setting == "waves" else grade.length + 1)
            inputs = grade.blocks[-1][1][-1]
        return total

    for setting, within in (("waves", 0.01), ("sine", 0.05)):
        costs = np.array([cost(setting, learner) for learner in SETTINGS[setting].learners])
        assert np.abs(costs / costs[0] - 1).max() < within, costs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learner": "grade_1"}, "the setting waves has the learners multi, single, single_he; got grade_1"),
        ({"setting": "wave"}, "Input should be 'waves', 'sine' or 'spectrum'"),
        ({"highest": 1}, "greater than or equal to 2"),
        ({"highest": 102}, "the setting waves has frequencies up to 100; got highest = 102"),
        ({"n": 31}, "greater than or equal to 32"),
        ({"effort": 0.0}, "greater than 0"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValidationError, match=message):
        MultiGradeArguments.model_validate({"learner": "multi", **CELL, **change})
