"""The kernels of finite steps against gradients, Taylor series and secants written out in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

import tsjax as ts
from tsjax.studies.exact_representors import (
    ACTIVATIONS,
    ORDERS,
    ExactRepresentorsArguments,
    Representor,
    Start,
    StepKernel,
    against_width,
    derivative,
    drawn,
    normals,
)
from tsjax.sweep.spec import find_experiment

SIZES = {"width": 7, "d": 3, "n": 6, "test_points": 11}


def tanh_derivatives(z) -> list[np.ndarray]:
    """tanh and its first three derivatives, in closed form."""
    t = np.tanh(z)
    s = 1.0 - t**2
    return [t, s, -2.0 * t * s, (6.0 * t**2 - 2.0) * s]


def relu_derivatives(z) -> list[np.ndarray]:
    return [np.maximum(z, 0.0), (z > 0).astype(float), np.zeros_like(z), np.zeros_like(z)]


CLOSED = {"tanh": tanh_derivatives, "relu": relu_derivatives}


def by_hand(a, w, x, y, points, activation, eta, steps) -> dict[str, Any]:
    """Gradient descent on W by the chain rule, and what each model says of the change at the points: of order L the sum over
    neurons of a_r sum_{l <= L} delta_r^l phi^(l) / l!."""
    phi, start = CLOSED[activation], w.copy()
    changes = {"order_1": 0.0, "order_2": 0.0, "order_3": 0.0}
    for _ in range(steps):
        residuals = phi(x @ w.T)[0] @ a - y
        moves = -eta * np.einsum("i,r,ir,ij->rj", residuals, a, phi(x @ w.T)[1], x)
        values, delta = phi(points @ w.T), points @ moves.T
        terms = [delta * values[1], delta**2 * values[2] / 2, delta**3 * values[3] / 6]
        for order in (1, 2, 3):
            changes[f"order_{order}"] += sum(terms[:order]) @ a
        w = w + moves
    changes["true"] = (phi(points @ w.T)[0] - phi(points @ start.T)[0]) @ a
    return changes | {"w": w}


def setting(key, activation) -> tuple[ts.Dataset, jax.Array, ts.TwoLayer]:
    data, points = drawn(key, SIZES["d"], SIZES["n"], SIZES["test_points"])
    return data, points, Start(SIZES["width"], activation).init(key, SIZES["d"])


def in_numpy(key, activation, eta, steps) -> dict[str, Any]:
    data, points, net = setting(key, activation)
    arrays = (np.asarray(array) for array in (net.a, net.w, data.x, data.y, points))
    return by_hand(*arrays, activation, eta, steps)


def all_forms(activation, steps):
    """One program for the cells of all kernels."""
    cell = lambda key, eta, form: find_experiment("exact_representors").fn(
        key, form=form, activation=activation, eta=eta, steps=steps, **SIZES
    )
    return jax.jit(lambda key, eta: {form: cell(key, eta, form) for form in ORDERS})


def check_cells(key, activation, steps):
    run = all_forms(activation, steps)
    for eta in (0.3, 3.0):
        found, expected = run(key, jnp.asarray(eta)), in_numpy(key, activation, eta, steps)
        size = np.linalg.norm(expected["true"])
        for form in ("order_1", "order_2", "order_3"):
            error = np.linalg.norm(expected[form] - expected["true"]) / size
            assert error > 1e-3 or eta < 3.0
            assert float(found[form]["error"]) == pytest.approx(error, rel=1e-6, abs=1e-12), (form, eta)
        assert float(found["exact"]["error"]) < 1e-12
        assert float(found["exact"]["change"]) == pytest.approx(np.sqrt(np.mean(expected["true"] ** 2)), rel=1e-9)
        assert all(int(cell["status"]) == ts.Status.STEP_LIMIT for cell in found.values())


@pytest.mark.slow
def test_errors_are_those_of_steps_written_out(key):
    check_cells(key, "tanh", steps=2)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 5])
def test_errors_of_relu_are_those_of_steps_written_out(key, steps):
    """The kink is crossed at the larger step, and orders 2 and 3 add nothing."""
    check_cells(key, "relu", steps)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_are_the_closed_forms(activation, rng):
    z = rng.normal(size=(5, 4))
    for order, expected in enumerate(CLOSED[activation](z)):
        found = derivative(ACTIVATIONS[activation], order)(jnp.asarray(z))
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-12, atol=1e-14)


def test_the_kernel_is_its_formula_entry_by_entry(key, rng):
    """Secants as quotients, summed over neurons one by one; a neuron that does not move has its tangent."""
    data, points, net = setting(key, "tanh")
    moves = 0.3 * rng.normal(size=net.w.shape)
    moves[2] = 0.0
    a, w, x, t = (np.asarray(array) for array in (net.a, net.w, data.x, points))
    expected = np.zeros((len(t), len(x)))
    for r in range(len(a)):
        z, delta = t @ w[r], t @ moves[r]
        secant = tanh_derivatives(z)[1] if r == 2 else (np.tanh(z + delta) - np.tanh(z)) / delta
        expected += a[r] ** 2 * np.outer(secant, tanh_derivatives(x @ w[r])[1]) * (t @ x.T)
    found = np.asarray(StepKernel(net, jnp.asarray(moves), None)(points, data.x))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    # Taylor polynomials come nearer with every order where steps are small, and the first of them is far.
    small = jnp.asarray(0.1 * moves)
    kernels = [np.asarray(StepKernel(net, small, order)(points, data.x)) for order in (1, 2, 3, None)]
    far = [np.abs(one - kernels[-1]).max() for one in kernels[:-1]]
    assert far[0] > 10 * far[1] > 100 * far[2] > 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_order_one_is_the_tangent_kernel_of_the_neurons(key, activation):
    data, points, net = setting(key, activation)
    kernel = Representor(data, points, jnp.asarray(0.5), 1).kernel(net)
    tangent = ts.kernels.EmpiricalNTK(lambda w, x: ts.TwoLayer(net.a, w, net.activation)(x), net.w)
    np.testing.assert_allclose(np.asarray(kernel(points, data.x)), np.asarray(tangent(points, data.x)), rtol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_moves_are_the_trainers(key, activation):
    """A step of the trainer, whose loss is a mean, moves W alone, and as the kernel says."""
    data, points, net = setting(key, activation)
    student = ts.Student(
        Start(SIZES["width"], activation), learning_rate=0.5 * 6, steps=1, trainable=lambda leaf: leaf.ndim == 2
    )
    after = student.fit(key, data, start=net).model
    moves = Representor(data, points, jnp.asarray(0.5), None).kernel(net).moves
    np.testing.assert_array_equal(np.asarray(after.a), np.asarray(net.a))
    np.testing.assert_allclose(np.asarray(after.w - net.w), np.asarray(moves), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(np.asarray(after.w), in_numpy(key, activation, 0.5, 1)["w"], rtol=1e-12)


@pytest.mark.slow
def test_the_laws_of_data_and_start(key):
    data, points = drawn(key, 5, 400, 600)
    net = Start(2000, "tanh").init(key, 5)
    x = np.concatenate([np.asarray(data.x), np.asarray(points)])
    np.testing.assert_allclose(np.asarray(data.y), np.sin(3 * x[:400, 0]))
    for sample, deviation in ((x, 5**-0.5), (net.a, 2000**-0.5), (net.w, 1.0)):
        assert sample.dtype == np.float64
        assert stats.kstest(np.ravel(sample) / deviation, "norm").pvalue > 1e-3
    # Streams and keys have nothing in common.
    other = normals(jax.random.fold_in(key, 1), 0, 1000, 5)
    for one in (net.w[:1000], other):
        assert abs(np.corrcoef(x.ravel(), np.ravel(one))[0, 1]) < 0.06


def test_theory_is_of_smooth_activations_in_the_step():
    experiment, eta = find_experiment("exact_representors"), np.array([0.01, 0.1])
    arguments = lambda **given: ExactRepresentorsArguments(**given).model_dump()
    exponents = {form: experiment.theory_at(arguments(form=form), eta).exponent for form in ORDERS}
    assert exponents == {"order_1": -1.0, "order_2": -2.0, "order_3": -3.0, "exact": None}
    relu = arguments(form="order_1", activation="relu")
    assert experiment.theory_at(relu, eta).exponent is None
    assert against_width.theory_at(relu, eta).exponent == 0.75
    assert against_width.theory_at(arguments(form="order_3"), eta).exponent == 2.0
    assert against_width.theory_at(arguments(form="exact"), eta) == ts.Theory()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "ntk"}, "Input should be 'order_1', 'order_2', 'order_3' or 'exact'"),
        ({"activation": "gelu"}, "Input should be 'tanh' or 'relu'"),
        ({"eta": 0.0}, "greater than 0"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"order": 2}, "Extra inputs"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValidationError, match=message):
        ExactRepresentorsArguments.model_validate({"form": "exact", **change})
