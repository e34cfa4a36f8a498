"""The study of single-index models: link functions, steps, constants and a whole run by NumPy."""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED
from numpy.polynomial import hermite_e
from pydantic import ValidationError

import tsjax as ts
from tsjax.studies.single_index import (
    STEPS,
    SingleIndex,
    SingleIndexArguments,
    Start,
    direction,
    hermite,
    limit_of,
    look_every,
    single_index,
    spherical_sgd,
    step_size,
)

NODES, _MASSES = hermite_e.hermegauss(20)
WEIGHTS = _MASSES / _MASSES.sum()


def link(k, u, derivative=0):
    series = hermite_e.hermeder([0.0] * k + [1.0], derivative)
    return hermite_e.hermeval(u, series) / math.sqrt(math.factorial(k))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_links_are_hermite_polynomials_of_mean_square_one(k):
    values = np.asarray(jax.vmap(lambda u: hermite(k, u))(jnp.asarray(NODES)))
    np.testing.assert_allclose(values, link(k, NODES), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(WEIGHTS @ values**2, 1.0, rtol=1e-10)


@pytest.mark.parametrize(("k", "noise"), [(1, 2.0), (2, 12.0), (3, 96.0)])
def test_the_constants_of_the_noise_are_those_said(k, noise):
    """V_k = E[(h_k(u) - h_k(v))^2 h_k'(u)^2], and the step sizes keep its term below the drift at the start."""
    u, v = np.meshgrid(NODES, NODES)
    measured = np.sum(np.outer(WEIGHTS, WEIGHTS) * (link(k, u) - link(k, v)) ** 2 * link(k, u, 1) ** 2)
    np.testing.assert_allclose(measured, noise, rtol=1e-10)
    # eta d V m / 2 over k m^{k-1} at m = d^{-1/2}, with eta = c d^{-max(k, 2)/2}.
    shares = [step_size(k, d) * d * noise * d**-0.5 / 2 / (k * d ** (-(k - 1) / 2)) for d in (16, 256)]
    assert max(shares) <= 1 / 3
    assert step_size(k, 64) == pytest.approx(STEPS[k] / 64 ** max(1.0, k / 2))


def numpy_step(theta, x, y, k, eta):
    u = theta @ x
    gradient = (link(k, u) - y) * link(k, u, 1) * x
    moved = theta - eta * (gradient - (gradient @ theta) * theta)
    return moved / np.linalg.norm(moved)


def test_the_start_is_on_the_half_sphere():
    truth = direction(jr.key(SEED), 8)
    starts = jax.vmap(lambda key: Start(truth, 2).init(key, 8).theta)(jr.split(jr.key(1), 400))
    along = np.asarray(starts @ truth)
    assert along.min() > 0
    np.testing.assert_allclose(np.linalg.norm(starts, axis=1), 1.0, rtol=1e-6)
    # <theta, theta*>^2 has the mean 1/d; the standard error is 0.007.
    assert abs(np.mean(along**2) - 1 / 8) < 0.035


@pytest.mark.parametrize("k", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_is_that_of_numpy(k):
    """The same samples, one step each, in NumPy, until the overlap at a look passes 1/2."""
    d, key = 16, jr.key(SEED)
    with jax.enable_x64(False):
        values = single_index(key, link=f"hermite{k}", d=d, threshold=0.5, budget=1.0)
        truth_key, data_key, fit_key = (jr.fold_in(key, i) for i in range(3))
        truth = direction(truth_key, d)
        theta = np.asarray(Start(truth, k).init(data_key, d).theta, np.float64)
        stream = jr.split(fit_key, 4)[1]
        seen = int(values["capped"])
        problem = ts.Problem(ts.Gaussian(d), ts.FunctionTeacher(SingleIndex(truth, k)), noise_std=0.0)
        draw = lambda step: problem.sample(jr.fold_in(stream, step), SingleIndex(truth, k), 1, jnp.float32).x[0]
        rows = np.asarray(jax.vmap(draw)(jnp.arange(seen)), np.float64)
    target = np.asarray(truth, np.float64)
    assert float(values["start"]) == pytest.approx(theta @ target, rel=1e-5)
    overlaps = []
    for x in rows:
        theta = numpy_step(theta, x, link(k, target @ x), k, step_size(k, d))
        overlaps.append(abs(theta @ target))
    every = look_every(k, d)
    looks = np.asarray(overlaps)[every - 1 :: every]
    assert bool(values["escaped"]) and float(values["samples"]) == seen
    assert np.argmax(looks >= 0.5) == len(looks) - 1 and looks[-1] >= 0.5 - 1e-4


def test_a_run_that_does_not_escape_has_no_number_of_samples():
    with jax.enable_x64(False):
        values = single_index(jr.key(SEED), link="hermite1", d=16, threshold=0.999, budget=0.02)
    assert not bool(values["escaped"]) and np.isnan(float(values["samples"]))
    assert float(values["capped"]) == limit_of(1, 16, 0.02) == 7
    assert int(values["status"]) == ts.Status.STEP_LIMIT


def test_limits_follow_the_orders_of_the_theorem():
    assert limit_of(1, 128, 1.0) / limit_of(1, 64, 1.0) == 2.0
    assert limit_of(2, 128, 1.0) / limit_of(2, 64, 1.0) == pytest.approx(2 * math.log(128) / math.log(64), rel=1e-3)
    assert limit_of(3, 128, 1.0) / limit_of(3, 64, 1.0) == 4.0


def test_the_learner_moves_on_the_sphere():
    optimizer, theta = spherical_sgd(0.1), direction(jr.key(1), 5)
    update, _ = optimizer.update(jnp.arange(5.0, dtype=theta.dtype), optimizer.init(theta), theta)
    assert float(jnp.linalg.norm(theta + update)) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"link": "hermite4"}, {"d": 2}, {"threshold": 1.0}, {"threshold": 0.0}, {"budget": 0.0}]
)
def test_wrong_arguments_are_errors(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SingleIndexArguments.model_validate({"link": "hermite1", "d": 16, **wrong})
