"""Attacks on linear models, where the worst point of a ball is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax import attacks, losses

RNG = np.random.default_rng(SEED)
W = jnp.asarray(RNG.normal(size=6))
X = jnp.asarray(RNG.normal(size=(5, 6)))
Y = jnp.asarray([0, 1, 1, 0, 1], jnp.int32)
LINEAR = lambda x: W @ x
# The logistic loss grows with -(2y - 1) <w, x>: the worst point is known.
SIDE = -(2.0 * np.asarray(Y) - 1.0)[:, None]


@pytest.mark.parametrize("make", [attacks.FGM, attacks.PGD], ids=["fgm", "pgd"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_worst_point_of_a_linear_model(key, make, norm):
    moved = make(0.3, norm=norm)(losses.logistic, LINEAR, ts.Dataset(x=X, y=Y), key)
    w = np.asarray(W)
    direction = np.sign(w) if norm == "linf" else w / np.linalg.norm(w)
    np.testing.assert_allclose(moved, np.asarray(X) + 0.3 * SIDE * direction, rtol=1e-8)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_points_stay_in_the_ball(key, norm):
    bent = lambda x: jnp.sum(jnp.sin(3 * x * W))
    attack = attacks.PGD(0.2, steps=7, norm=norm, random_start=True)
    data = ts.Dataset(x=X, y=Y)
    moved = attack(losses.logistic, bent, data, key)
    shift = np.asarray(moved - X)
    sizes = np.abs(shift).max(1) if norm == "linf" else np.linalg.norm(shift, axis=1)
    assert (sizes <= 0.2 + 1e-12).all() and sizes.max() > 0.15
    assert float(losses.logistic(bent, ts.Dataset(x=moved, y=Y))) > float(losses.logistic(bent, data))


def test_adversarial_is_the_objective_at_the_worst_points(key):
    data, attack = ts.Dataset(x=X, y=Y), attacks.FGM(0.3, norm="l2")
    found = losses.adversarial(losses.logistic, attack)(LINEAR, data, key)
    norm = float(jnp.linalg.norm(W))
    margins = -SIDE[:, 0] * np.asarray(X @ W) - 0.3 * norm
    np.testing.assert_allclose(found, np.log1p(np.exp(-margins)).mean(), rtol=1e-8)
    # Its gradient takes the points as constants: at the worst points, not through them.
    through = jax.grad(lambda w: losses.adversarial(losses.logistic, attack)(lambda x: w @ x, data, key))(W)
    worst = attack(losses.logistic, LINEAR, data, key)
    at = jax.grad(lambda w: losses.logistic(lambda x: w @ x, ts.Dataset(x=worst, y=Y)))(W)
    np.testing.assert_allclose(through, at, rtol=1e-10)


def test_errors_under_attack(key):
    fit = ts.ModelFit(model=LINEAR, status=jnp.asarray(0), stats={})
    data = ts.Dataset(x=X, y=Y)
    margins = -SIDE[:, 0] * np.asarray(X @ W)
    for radius in (0.0, 0.5, 100.0):
        found = ts.classification_error(fit, data, attack=attacks.PGD(radius, norm="l2"))
        assert int(found.wrong) == int((margins < radius * np.linalg.norm(W)).sum()) and int(found.trials) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: attacks.FGM(-1.0), r"FGM: radius must be finite and >= 0, got -1\.0"),
        (lambda: attacks.PGD(1.0, steps=0), r"steps must be at least 1, got 0"),
        (lambda: attacks.PGD(1.0, random_start=True)(losses.logistic, LINEAR, ts.Dataset(x=X, y=Y)), r"needs a key"),
    ],
)
def test_bad_attacks_are_errors(make, message):
    with pytest.raises(Exception, match=message):
        make()
