"""Recovery metrics against their definitions, and the study that records them."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED
from pydantic import ValidationError

import tsjax as ts
from tsjax import theory
from tsjax.activations import erf, leaky_relu, quadratic
from tsjax.studies.recovery import RecoveryArguments

PROBLEM = ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), 0.1)
N = 128


@pytest.fixture(scope="module")
def sample():
    key = jr.key(SEED + 8)
    teacher = PROBLEM.sample_teacher(key)
    return teacher, PROBLEM.sample(jr.fold_in(key, 1), teacher, N)


def _fit(net):
    stats = {"width": jnp.asarray(net.a.shape[0], jnp.int32)}
    return ts.NetworkFit(net=net, status=jnp.zeros((), jnp.int32), stats=stats)


def test_metrics_are_their_definitions(sample, key):
    teacher, data = sample
    oracle = ts.OracleStudent().fit(key, data, oracle=(PROBLEM, teacher))
    # A student that is the teacher but for one neuron's length, its neurons swapped.
    student = ts.TwoLayer(a=teacher.a[::-1], w=teacher.w[::-1] * jnp.array([[1.0], [1.5]]))
    found = ts.recovery(PROBLEM, teacher, data, _fit(student), oracle)
    residual = np.asarray(jax.vmap(student)(data.x) - data.y)
    np.testing.assert_allclose(found.train_loss, 0.5 * np.mean(residual**2), rtol=1e-10)
    np.testing.assert_allclose(found.loss_gap, found.train_loss - oracle.stats["train_loss"], rtol=1e-8)
    np.testing.assert_allclose(found.risk, ts.excess_risk(PROBLEM, teacher, _fit(student)), rtol=1e-12)
    np.testing.assert_allclose(found.oracle_risk, ts.excess_risk(PROBLEM, teacher, oracle), rtol=1e-12)
    np.testing.assert_allclose(found.cramer_rao, theory.cramer_rao(2, 4, N, 0.1), rtol=1e-12)
    # One unit neuron of two is half too long: |V - V*| / |V*| = 0.5 / sqrt 2.
    np.testing.assert_allclose(found.parameter_error, 0.5 / 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(found.alignment, 1.0, rtol=1e-6)
    assert not bool(found.success) and int(found.width) == 2
    # The oracle student itself, trained inside when it is not given, is a success by definition.
    itself = ts.recovery(PROBLEM, teacher, data, oracle)
    assert bool(itself.success) and abs(float(itself.loss_gap)) < 1e-12 and float(itself.alignment) > 0.9


def test_success_is_half_of_cramer_rao(sample, key):
    teacher, data = sample
    oracle = ts.OracleStudent().fit(key, data, oracle=(PROBLEM, teacher))
    limit = 0.5 * theory.cramer_rao(2, 4, N, 0.1)
    seen = set()
    for stretch in np.linspace(1.0, 1.2, 9):
        student = ts.TwoLayer(a=oracle.net.a, w=stretch * oracle.net.w)
        found = ts.recovery(PROBLEM, teacher, data, _fit(student), oracle)
        assert bool(found.success) == (float(found.loss_gap) < limit)
        seen.add(bool(found.success))
    assert seen == {True, False}


def test_fits_without_neurons_have_their_loss(sample, key):
    teacher, data = sample
    fit = ts.KernelRidge(ts.kernels.ntk(), ridge=0.1).fit(key, data)
    found = ts.recovery(PROBLEM, teacher, data, fit)
    np.testing.assert_allclose(
        found.train_loss, 0.5 * np.mean(np.asarray(fit.predict(data.x) - data.y) ** 2), rtol=1e-6
    )
    assert np.isnan(found.alignment) and np.isnan(found.parameter_error) and int(found.width) == 0
    with pytest.raises(ValueError, match="two-layer teacher, got a function"):
        ts.recovery(PROBLEM, lambda x: x[0], data, fit)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [leaky_relu(0.1), quadratic, erf], ids=str)
def test_students_of_other_activations_recover_their_teacher(activation, key):
    problem = ts.Problem(ts.Gaussian(4), ts.TwoLayerTeacher(2, activation), 0.1)
    keys = jr.split(key, 4)
    teachers = jax.vmap(lambda k: problem.sample_teacher(k, jnp.float32))(keys)
    datasets = jax.vmap(lambda k, t: problem.sample(jr.fold_in(k, 1), t, 1024, jnp.float32))(keys, teachers)
    fits = ts.fit_many(ts.TwoPhaseStudent(2, activation=activation), keys, datasets)
    found = jax.vmap(lambda t, data, fit: ts.recovery(problem, t, data, fit))(teachers, datasets, fits)
    assert np.asarray(found.success).all(), found
    assert float(jnp.mean(found.risk / found.cramer_rao)) < 2.0
    # Exact and estimated risk agree.
    value, error = ts.monte_carlo_risk(problem, *jax.tree.map(lambda leaf: leaf[0], (teachers, fits)), key, 100_000)
    assert abs(float(value - found.risk[0])) < 5 * float(error)


@pytest.mark.slow
def test_any_function_is_a_teacher(key):
    problem = ts.Problem(ts.Sphere(3), ts.FunctionTeacher(lambda x: jnp.tanh(3 * x[0]) + x[1]), 0.05)
    data = problem.sample(key, problem.sample_teacher(key), 512)
    fit = ts.TwoPhaseStudent(width="auto").fit(key, data)
    risk = ts.excess_risk(problem, problem.sample_teacher(key), fit, key=jr.fold_in(key, 1))
    # No sum of few relu is this function, whose variance is about 1; the student comes near it.
    assert 0 < float(risk) < 0.1 and int(fit.stats["width"]) >= 2
    with pytest.raises(ValueError, match="starts at a two-layer teacher, got a Partial"):
        ts.OracleStudent().fit(key, data, oracle=(problem, problem.sample_teacher(key)))


CELL = {"learner": "student", "n": 64, "d": 4, "m": 2, "noise_std": 0.1}


def test_every_learner_of_the_study():
    learners = ["auto", "unpruned", "plain", "noisy", "no_noise", "no_phase_two", "adam", "sgd", "online"]
    refused = {"plain", "noisy", "no_noise", "no_phase_two"}
    for learner in [*learners, "student", "frozen", "lazy", "linearised"]:
        full = RecoveryArguments.model_validate({**CELL, "learner": learner}).model_dump()
        small, large = (sum(ts.studies.recovery.cost({**full, "n": n})) for n in (64, 6400))
        assert 0 < small <= large
        if learner in refused:
            with pytest.raises(ValidationError, match="has the teacher's width in both phases"):
                RecoveryArguments.model_validate({**CELL, "learner": learner, "explored": 5})
    with pytest.raises(ValidationError, match="fewer than the 2 of the student"):
        RecoveryArguments.model_validate({**CELL, "explored": 1})
    with pytest.raises(ValidationError, match="m <= d is needed"):
        RecoveryArguments.model_validate({**CELL, "m": 5})


@pytest.mark.slow
def test_the_study_records_what_recovery_measures():
    result = ts.sweep(ts.studies.recovery, seeds=4, **{**CELL, "learner": ["student", "frozen"], "n": [64]})
    records = result.records.set_index(["learner", "seed"])
    student, frozen = records.loc["student"], records.loc["frozen"]
    np.testing.assert_allclose(student["cramer_rao"], 0.01 * 8 / 64)
    # Paired: the oracle student saw the same data.
    np.testing.assert_allclose(student["oracle_risk"], frozen["oracle_risk"], rtol=1e-5)
    assert (student["cost"] == 64 * student["total_steps"]).all() and (frozen["total_steps"] == 0).all()
    assert student["success"].isin([0, 1]).all() and (student["risk"] < frozen["risk"]).mean() >= 0.75
    theory_of = ts.studies.recovery.theory(
        {**RecoveryArguments.model_validate(CELL).model_dump(), "n": None}, np.array([64])
    )
    np.testing.assert_allclose(theory_of.predicted, 0.01 * 8 / 64)
