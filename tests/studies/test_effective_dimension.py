"""The study of effective dimension: its targets, its rates, and both kinds of learner, each by another route in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import SEED
from pydantic import ValidationError

import tsjax as ts
from tsjax.estimators.ridge import PATH
from tsjax.studies.effective_dimension import (
    DECAYS,
    LENGTHS,
    EffectiveDimensionArguments,
    cost,
    exponent,
    network,
    ridge,
    target,
)

STUDY = ts.studies.effective_dimension
CELL = {"learner": "mlp", "n": 64, "d": 3}


def _target(kink, x):
    a, b = np.abs(x[:, 0]), np.abs(x[:, 1])
    h = {
        0: 0.5 * np.log1p(np.exp(4.0 * (a**2 - b**2))),
        1: 2.0 * np.where(a > b, a - b, 0.0),
        2: 2.5 * np.where(a > b, (a**2 - b**2) ** 2, 0.0),
    }[kink]
    return h + np.sin(2.0 * x[:, 0]) / 2.0


def _problem(kink, d, noise_std=0.1):
    problem = ts.Problem(ts.Cube(d), ts.FunctionTeacher(jax.tree_util.Partial(target, kink)), noise_std=noise_std)
    return problem, problem.sample_teacher(jax.random.key(0))


@pytest.mark.parametrize("kink", [0, 1, 2])
def test_targets_are_their_formulas_and_have_the_kinks_they_say(kink, rng):
    x = rng.uniform(-1, 1, (500, 5))
    values = jax.vmap(lambda x: target(kink, x))(jnp.asarray(x))
    np.testing.assert_allclose(values, _target(kink, x), rtol=1e-12, atol=1e-14)
    # Signals of about one size, so that the targets differ in smoothness and not in noise.
    assert 0.25 < np.var(_target(kink, rng.uniform(-1, 1, (100_000, 2)))) < 0.45
    # Along x_2 across |x_1| = |x_2|: jumps of the first and of the second derivative, by differences from either side.
    h, at = 1e-4, np.array([0.6, 0.6])
    f = lambda side: _target(kink, at + np.outer(side * h * np.arange(4), [0.0, 1.0]))
    first = [f(side) @ [-1.5, 2.0, -0.5, 0.0] / (side * h) for side in (1, -1)]
    second = [f(side) @ [2.0, -5.0, 4.0, -1.0] / h**2 for side in (1, -1)]
    assert (abs(first[0] - first[1]) > 1e-2) == (kink == 1)
    assert kink == 1 or (abs(second[0] - second[1]) > 1e-2) == (kink == 2)


def test_data_are_uniform_on_the_cube_with_the_noise_of_the_problem():
    problem, teacher = _problem(1, 6)
    data = problem.sample(jax.random.key(SEED), teacher, 20_000, jnp.float32)
    x, y = np.asarray(data.x, float), np.asarray(data.y, float)
    assert np.abs(x).max() <= 1.0 and abs(x.var() - 1 / 3) < 0.005 and abs(x.mean()) < 0.01
    left = y - _target(1, x)
    assert abs(left.std() - 0.1) < 0.002 and abs(left.mean()) < 0.003


def test_rates_of_theory():
    assert [exponent(kink, 2) for kink in (1, 2, 0)] == [0.5, pytest.approx(2 / 3), 1.0]
    full = EffectiveDimensionArguments.model_validate(CELL).model_dump()
    n = np.array([128.0, 256.0])
    assert STUDY.theory({**full, "kink": 1, "d": 16}, n).exponent == 0.5
    laplace = STUDY.theory({**full, "learner": "laplace", "kink": 2, "d": 16}, n)
    assert laplace.exponent == pytest.approx(4 / 20) and laplace.predicted is None
    # Minimax over d = t* coordinates there is only one rate.
    assert STUDY.theory({**full, "learner": "ntk", "d": 2}, n).exponent == 0.5


def test_refusals():
    refused = {
        "n = 32 rows are no mini-batch of 64": {"n": 32},
        "multiple of 50": {"steps": 120},
        "greater than or equal to 2": {"d": 1},
        "Input should be 0, 1 or 2": {"kink": 3},
        "'mlp', 'laplace' or 'ntk'": {"learner": "rbf"},
    }
    for message, change in refused.items():
        with pytest.raises(ValidationError, match=message):
            EffectiveDimensionArguments.model_validate({**CELL, **change})
    assert EffectiveDimensionArguments.model_validate({**CELL, "n": 32, "learner": "ntk"}).steps == 3000


def test_cost_grows_with_the_work():
    full = EffectiveDimensionArguments.model_validate(CELL).model_dump()
    assert cost({**full, "steps": 6000}).products == pytest.approx(2 * cost(full).products)
    kernel = {**full, "learner": "ntk"}
    assert cost({**kernel, "n": 128}).factorisations == pytest.approx(8 * cost(kernel).factorisations)


def test_the_kernel_has_the_length_and_ridge_of_least_true_risk():
    """Every length and ridge in NumPy, their risks at fresh points: none is better, and the risk is that of the fit."""
    problem, teacher = _problem(1, 3)
    data = problem.sample(jax.random.key(SEED), teacher, 60, jnp.float32)
    fit, chosen = jax.jit(lambda key: ridge(ts.kernels.Laplace, key, problem, teacher, data))(jax.random.key(1))
    x, y = np.asarray(data.x, float), np.asarray(data.y, float)
    fresh = np.random.default_rng(SEED).uniform(-1, 1, (20_000, 3))
    truth, risks = _target(1, fresh), {}
    distance = lambda a, b: np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(-1))
    inner, outer = distance(x, x), distance(fresh, x)
    for length in LENGTHS:
        values, vectors = np.linalg.eigh(np.exp(-inner / length))
        basis = np.exp(-outer / length) @ vectors
        for penalty in PATH:
            risks[length, penalty] = np.mean((basis @ (vectors.T @ y / (values + penalty)) - truth) ** 2)
    found = np.mean((np.asarray(fit.predict(jnp.asarray(fresh))) - truth) ** 2)
    best = min(risks.values())
    nearest = min(PATH, key=lambda penalty: abs(np.log(penalty / float(chosen["ridge"]))))
    np.testing.assert_allclose(nearest, float(chosen["ridge"]), rtol=1e-9)
    np.testing.assert_allclose(found, risks[float(chosen["length_scale"]), nearest], rtol=1e-6)
    assert found < 1.03 * best and max(risks.values()) > 2 * best
    # The choice of length matters here: at least one other is clearly worse at its own best ridge.
    assert max(min(risks[length, penalty] for penalty in PATH) for length in LENGTHS) > 1.05 * best


def _forward(net, x):
    hidden = [x]
    for w, b in net[:-1]:
        hidden.append(np.maximum(hidden[-1] @ w.T + b, 0.0))
    w, b = net[-1]
    return hidden, (hidden[-1] @ w.T + b)[:, 0]


def _gradient(net, x, y):
    hidden, output = _forward(net, x)
    back, found = ((output - y) / len(y))[:, None], []
    for place in range(len(net) - 1, -1, -1):
        found.append((back.T @ hidden[place], back.sum(0)))
        back = (back @ net[place][0]) * (hidden[place] > 0)
    return found[::-1]


@pytest.mark.slow
def test_the_network_is_adamw_in_numpy_with_the_best_look_and_decay():
    """With as many rows as a mini-batch has, so that their order does not matter: 100 steps in float64 by hand."""
    steps, held_out, (problem, teacher) = 100, 40, _problem(2, 3)
    data = problem.sample(jax.random.key(SEED), teacher, 64, jnp.float64)
    key = jax.random.key(2)
    fit, chosen = jax.jit(lambda key: network(key, problem, teacher, data, steps, held_out))(key)
    held_key, fit_key = jax.random.split(key)
    held = problem.sample(held_key, teacher, held_out, jnp.float64)
    x, y, hx, hy = (np.asarray(values) for values in (data.x, data.y, held.x, held.y))
    # The start that the student draws: He's weights, biases of 0.
    mlp = ts.MLP((64, 64), parameterisation="standard", bias_std=jnp.zeros(()))
    drawn = mlp.init(jax.random.split(fit_key, 4)[0], 3)
    start = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in drawn.layers]
    assert all((bias == 0).all() for _, bias in start) and abs(start[1][0].std() - np.sqrt(2 / 64)) < 0.01
    looks = {}
    for decay in np.asarray(DECAYS):
        net = [[w.copy(), b.copy()] for w, b in start]
        first, second = ([[np.zeros_like(p) for p in layer] for layer in net] for _ in range(2))
        for step in range(steps + 1):
            if step % 50 == 0:
                looks[decay, step] = np.mean((_forward(net, hx)[1] - hy) ** 2) / 2, [list(layer) for layer in net]
            rate, slopes = 3e-3 * (1 + np.cos(np.pi * step / steps)) / 2, _gradient(net, x, y)
            for place, layer in enumerate(net):
                for i in range(2):
                    m, v, g = first[place], second[place], slopes[place][i]
                    m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
                    adam = m[i] / (1 - 0.9 ** (step + 1)) / (np.sqrt(v[i] / (1 - 0.999 ** (step + 1))) + 1e-8)
                    layer[i] = layer[i] - rate * (adam + decay * layer[i])
    (decay, _), (_, net) = min(looks.items(), key=lambda item: item[1][0])
    assert float(chosen["weight_decay"]) == pytest.approx(decay)
    np.testing.assert_allclose(fit.predict(jnp.asarray(hx)), _forward(net, hx)[1], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        optax.cosine_decay_schedule(3e-3, steps)(30), 3e-3 * (1 + np.cos(0.3 * np.pi)) / 2, rtol=1e-6
    )


@pytest.mark.slow
def test_sizes_that_share_a_program_give_the_same_risk():
    """Of kernels: rows of weight 0 are not there. A network has a program for each size, and says so."""
    arguments = {**EffectiveDimensionArguments.model_validate({**CELL, "learner": "laplace"}).model_dump(), "n": 20}
    arguments |= {"test_points": 200}
    alone = jax.jit(lambda key: STUDY(key, **arguments))(jax.random.key(4))
    padded = jax.jit(lambda key, count: STUDY(key, **{**arguments, "n": ts.Size(32, count)}))(jax.random.key(4), 20)
    np.testing.assert_allclose(padded["risk"], alone["risk"], rtol=1e-6)
    assert STUDY.pads({"learner": "ntk"}) and not STUDY.pads({"learner": "mlp"})
    assert int(alone["status"]) == ts.Status.CONVERGED and 0 < float(alone["risk_se"]) < 0.2 * float(alone["risk"])
