"""The study of arXiv:2106.06251 against NumPy: its atoms, its training, its line of theory; and its smoke size."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED
from pydantic import ValidationError
from scipy.optimize import minimize

import tsjax as ts
from tsjax.studies.learnability import (
    NEAR,
    SUCCESS,
    LearnabilityArguments,
    Start,
    against_width,
    atoms,
    identification,
    learnability,
    shift,
    trained,
)

CELL = {"width": 12, "d": 3, "m": 2, "signs": "alternating"}
# The same in all tests, which share the program.
N, STEPS = 40, 25


def _trained(lam: float, n: int | ts.Size, steps: int):
    _, teacher, fit = trained(jr.key(SEED + 5), lam, n=n, steps=steps, step_size=1.0, start=0.5, **CELL)
    return teacher, fit


def _array(value) -> np.ndarray:
    return np.asarray(value, float)


def test_training_is_penalised_gradient_descent():
    """Steps by hand, in NumPy: from the same start, on the data that the problem samples."""
    lam, n, steps = 0.05, N, STEPS
    teacher, start = _trained(lam, n, 0)
    _, fit = _trained(lam, n, steps)
    problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2, signs="alternating"), noise_std=0.0)
    x = _array(problem.sample(jr.fold_in(jr.key(SEED + 5), 1), teacher, n, jnp.float32).x)
    relu = lambda z: np.maximum(z, 0)
    y = relu(x @ _array(teacher.w).T) @ np.array([1.0, -1.0])
    a, w = _array(start.model.a), _array(start.model.w)
    loss = lambda: 0.5 * np.mean((relu(x @ w.T) @ a - y) ** 2) + 0.5 * lam * (np.sum(a**2) + np.sum(w**2))
    assert float(start.stats["train_loss"]) == pytest.approx(loss(), rel=1e-5)
    for _ in range(steps):
        hidden = relu(x @ w.T)
        residual = (hidden @ a - y) / n
        grad_a, grad_w = hidden.T @ residual, ((residual[:, None] * (hidden > 0)) * a).T @ x
        a, w = a - grad_a - lam * a, w - grad_w - lam * w
    np.testing.assert_allclose(fit.model.a, a, atol=2e-5)
    np.testing.assert_allclose(fit.model.w, w, atol=2e-5)
    assert float(fit.stats["train_loss"]) == pytest.approx(loss(), rel=1e-4)


def test_rows_that_do_not_count_change_nothing():
    """Sizes share a program; of one key the larger data set begins with the smaller."""
    (_, alone), (_, padded) = _trained(0.01, 24, STEPS), _trained(0.01, ts.Size(limit=N, count=jnp.asarray(24)), STEPS)
    np.testing.assert_allclose(alone.model.w, padded.model.w, atol=1e-5)
    assert np.abs(alone.model.w - _trained(0.01, N, STEPS)[1].model.w).max() > 1e-3


def test_the_start_has_its_law():
    net = Start(20000).init(jr.key(SEED), 4)
    assert float(jnp.std(net.a)) == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(jnp.cov(net.w.T), np.eye(4) / 4, atol=0.01)
    _, fit = _trained(0.0, N, 0)
    assert float(jnp.abs(fit.model.w).max()) < 0.5 * 4 / 3**0.5 and fit.model.a.dtype == jnp.float32


def test_atoms_one_by_one(rng):
    teacher = ts.TwoLayer(a=jnp.array([1.0, -1.0]), w=jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    turn = np.array([0.05, 0.3, np.pi / 2 - 0.02, np.pi / 2 - 0.02, 3.0])
    a, size = np.array([2.0, 0.5, -1.0, 3.0, -0.25]), rng.uniform(0.5, 2.0, 5)
    student = ts.TwoLayer(a=jnp.asarray(a), w=jnp.asarray(size[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)))
    mass = np.abs(a) * size
    # To the first neuron at angle 0 for positive atoms, to the second at pi/2 for negative ones.
    angle = np.where(a > 0, turn, np.abs(turn - np.pi / 2))
    found = identification(student, teacher)
    near = mass[angle < NEAR].sum()
    assert near == pytest.approx(mass[0] + mass[2])
    expected = {
        "angle": mass @ angle / mass.sum(),
        "near": near / mass.sum(),
        "recovered": near / 2,
        "mass": mass.sum() / 2,
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-12)
    placed = atoms(student)
    np.testing.assert_allclose(jnp.linalg.norm(placed.position, axis=1), mass)
    # The measure is the function.
    x = rng.normal(size=2)
    assert float(placed.sign @ jax.nn.relu(placed.position @ x)) == pytest.approx(float(student(jnp.asarray(x))))


def test_a_teacher_identifies_itself_and_wrong_signs_are_opposite():
    teacher = ts.TwoLayer(a=jnp.ones(2), w=jnp.eye(2))
    assert {name: float(v) for name, v in identification(teacher, teacher).items()} == {
        "angle": 0.0,
        "near": 1.0,
        "recovered": 1.0,
        "mass": 1.0,
    }
    opposite = identification(ts.TwoLayer(a=-jnp.ones(2), w=jnp.eye(2)), teacher)
    assert float(opposite["angle"]) == pytest.approx(np.pi) and float(opposite["near"]) == 0.0
    # A dead neuron has no mass, and no say.
    dead = ts.TwoLayer(a=jnp.ones(3), w=jnp.concatenate([jnp.eye(2), jnp.zeros((1, 2))]))
    assert float(identification(dead, teacher)["angle"]) == 0.0


@pytest.mark.parametrize(("d", "m", "signs"), [(3, 2, "alternating"), (3, 3, "positive")])
def test_the_line_of_theory_is_the_minimiser(d, m, signs):
    """Population loss, exact, plus the penalty, minimised by BFGS at two small lam: the derivative at 0 by both."""
    s = np.array([1.0, -1.0, 1.0])[:m] if signs == "alternating" else np.ones(m)
    w = np.eye(m, d)

    def objective(flat, lam):
        v = flat.reshape(m, d)
        u, c = jnp.concatenate([v, w]), jnp.concatenate([s, -s])
        return 0.5 * c @ ts.relu_gram(u, u, 1 / d) @ c + lam * jnp.sum(jnp.linalg.norm(v, axis=1))

    value = jax.jit(jax.value_and_grad(objective))
    # Away from the teacher, where the closed form of the kernel has no second derivative.
    begin = w.ravel() + 0.01 * np.sin(np.arange(m * d))
    found = {}
    for lam in (1e-3, 2e-3):
        end = minimize(lambda p, lam=lam: tuple(map(np.asarray, value(p, lam))), begin, jac=True, method="BFGS")
        v = end.x.reshape(m, d)
        angle = np.arctan2(np.linalg.norm(v - np.diag(v)[:, None] * w, axis=1), np.diag(v)).mean()
        found[lam] = np.array([angle, 1 - np.diag(v).mean()]) / lam
    at_zero = 2 * found[1e-3] - found[2e-3]
    np.testing.assert_allclose(at_zero, shift(d, m, signs), rtol=0.03)


def test_what_the_sweep_expects_of_theory():
    assert shift(5, 4, "alternating") == pytest.approx((21.975, 39.688), abs=1e-3)
    full = {**LearnabilityArguments(lam=0.0).model_dump(), "lam": None}
    theory = learnability.theory(full, np.array([0.0, 1e-3]))
    np.testing.assert_allclose(theory.predicted, [np.nan, 0.021975], rtol=1e-4)
    assert against_width.theory is None and against_width.x == "width" and against_width.fn is learnability.fn


def test_a_cell_says_what_its_network_is(rng):
    arguments = {**CELL, "lam": 1e-3, "n": N, "steps": STEPS, "step_size": 1.0, "start": 0.5}
    values = learnability(jr.key(SEED + 5), **arguments)
    teacher, fit = _trained(1e-3, N, STEPS)
    found = identification(fit.model, teacher)
    assert {name: float(values[name]) for name in found} == pytest.approx(
        {name: float(v) for name, v in found.items()}, rel=1e-5
    )
    x = rng.normal(size=(20000, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    output = lambda net: np.maximum(x @ _array(net.w).T, 0) @ _array(net.a)
    squared = (output(fit.model) - output(teacher)) ** 2
    assert abs(float(values["risk"]) - squared.mean()) < 4 * squared.std() / len(x) ** 0.5
    assert (
        bool(values["success"]) == (float(values["risk"]) < SUCCESS) and int(values["status"]) == ts.Status.STEP_LIMIT
    )


@pytest.mark.parametrize(
    "change", [{"m": 6}, {"lam": -1e-3}, {"width": 0}, {"signs": "random"}, {"start": 0.0}, {"step_size": 0.0}]
)
def test_refusals(change):
    with pytest.raises(ValidationError):
        LearnabilityArguments.model_validate({"lam": 1e-3, **change})
