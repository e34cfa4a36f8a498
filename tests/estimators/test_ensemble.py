import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.estimators.ensemble import EnsembleFit

RNG = np.random.default_rng(SEED)
DATA = ts.Dataset(x=jnp.asarray(RNG.normal(size=(20, 3))), y=jnp.asarray(RNG.normal(size=20)))
POINTS = jnp.asarray(RNG.normal(size=(5, 3)))


def net(key, point):
    return ts.TwoLayer(a=jr.normal(key, (4,)), w=jr.normal(key, (4, point)))


STUDENT = ts.Student(net, learning_rate=0.05, steps=10)


def test_an_ensemble_is_the_mean_of_its_members(key):
    fit = ts.Ensemble(STUDENT, 3).fit(key, DATA)
    one_by_one = [STUDENT.fit(own, DATA).predict(POINTS) for own in jr.split(key, 3)]
    np.testing.assert_allclose(fit.members(POINTS), jnp.stack(one_by_one), rtol=1e-8)
    np.testing.assert_allclose(fit.predict(POINTS), np.mean(one_by_one, axis=0), rtol=1e-8)
    assert fit.stats["train_loss"].shape == (3,) and int(fit.stats["members_used"]) == 3
    # Of kernel methods that depend on their key as well.
    features = ts.Ensemble(ts.RandomFeatures(10, ridge=0.1), 4).fit(key, DATA)
    assert features.predict(POINTS).shape == (5,) and int(features.status) == ts.Status.CONVERGED


def test_members_that_failed_do_not_count():
    status = jnp.asarray([ts.Status.CONVERGED, ts.Status.DIVERGED], jnp.int32)
    values = jnp.array([2.0, jnp.nan])
    fits = jax.vmap(lambda value, code: ts.ModelFit(model=_Constant(value), status=code, stats={}))(values, status)
    fit = EnsembleFit(fits=fits, status=jnp.asarray(0), stats={})
    np.testing.assert_array_equal(fit.predict(POINTS), np.full(5, 2.0))
    lost = EnsembleFit(fits=eqx.tree_at(lambda f: f.status, fits, jnp.full(2, 2)), status=jnp.asarray(2), stats={})
    assert np.isnan(np.asarray(lost.predict(POINTS))).all()


class _Constant(eqx.Module):
    value: jax.Array

    def __call__(self, x):
        return self.value


def test_all_members_that_diverge_are_a_status(key):
    fit = ts.Ensemble(ts.Student(net, learning_rate=1e6, steps=30), 2).fit(key, DATA)
    assert int(fit.status) == ts.Status.DIVERGED and int(fit.stats["members_used"]) == 0


def test_stages_go_on_where_the_one_before_ended(key):
    two = ts.Stages((STUDENT, ts.Student(net, optimizer=optax.adam, learning_rate=0.01, steps=5))).fit(key, DATA)
    first = STUDENT.fit(jr.split(jr.fold_in(key, 0))[0], DATA)
    second = ts.Student(net, optimizer=optax.adam, learning_rate=0.01, steps=5)
    expected = second.fit(jr.split(jr.fold_in(key, 1))[0], DATA, start=first.model)
    np.testing.assert_allclose(two.predict(POINTS), expected.predict(POINTS), rtol=1e-10)
    assert int(two.stats["steps"]) == 15
    np.testing.assert_allclose(
        two.stats["stage_losses"], [first.stats["train_loss"], expected.stats["train_loss"]], rtol=1e-10
    )


def test_what_happens_between_stages(key):
    halve = lambda model, own: jax.tree.map(lambda leaf: leaf / 2, model)
    still = ts.Student(net, learning_rate=0.05, steps=0)
    fit = ts.Stages((still, still), between=(halve,)).fit(key, DATA)
    start = still.fit(jr.split(jr.fold_in(key, 0))[0], DATA).model
    np.testing.assert_allclose(fit.model.w, start.w / 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ts.Ensemble(STUDENT, 0), r"Ensemble: members must be finite and at least 1, got 0"),
        (lambda: ts.Stages(()), r"stages are ts\.Student\(\.\.\.\), at least one"),
        (
            lambda: ts.Stages((STUDENT,), between=(lambda m, k: m,)),
            r"one function for each stage after the first, 0 for 1 stages; got 1",
        ),
    ],
)
def test_bad_input_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()
