import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

import tsjax as ts
from tsjax.estimators.ridge import KernelRidge
from tsjax.studies.cell import problem_of
from tsjax.studies.linear import LINEAR
from tsjax.studies.superiority import SuperiorityArguments

RIDGES = [name for name, choice in LINEAR.items() if isinstance(choice.make({"tuning": "gcv"}), KernelRidge)]
CELL = {"estimator": "ntk", "n": 32, "d": 4, "m": 2, "noise_std": 0.1}


def test_defaults_and_refusals():
    arguments = SuperiorityArguments.model_validate(CELL).model_dump()
    assert (arguments["inputs"], arguments["signs"], arguments["dtype"]) == ("sphere", "random", "float32")
    problem = problem_of(arguments)
    assert problem == ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), noise_std=0.1)
    for change in ({"m": 5}, {"cosine": -0.9999, "m": 3}, {"estimator": "optimal_linear", "signs": "positive"}):
        with pytest.raises(ValidationError):
            SuperiorityArguments.model_validate({**CELL, **change})


@pytest.mark.slow
def test_linear_estimators_see_the_same_teachers_and_the_optimal_one_wins():
    result = ts.sweep(
        ts.studies.superiority, seeds=8, n=[32, 64], estimator=["ntk", "optimal_linear"], d=4, m=2, noise_std=0.1
    )
    ntk, best = result.curves()
    assert (ntk.name, best.name) == ("ntk", "optimal_linear")
    assert ntk.failed == best.failed == 0 and (ntk.values["risk"] > 0).all()
    assert (ntk.values["risk"].mean(axis=1) > 0.95 * best.values["risk"].mean(axis=1)).all()
    # Paired: what is hard for one is hard for the other.
    assert np.corrcoef(np.log(ntk.values["risk"].ravel()), np.log(best.values["risk"].ravel()))[0, 1] > 0.5
    assert best.theory.exponent == pytest.approx(3 / 6)
    assert best.theory.predicted is not None
    np.testing.assert_allclose(best.values["risk"].mean(axis=1), best.theory.predicted, rtol=0.25)
    records = result.records
    np.testing.assert_allclose(records["cramer_rao"], 0.1**2 * 2 * 4 / records["n"], rtol=1e-6)


@pytest.mark.slow
def test_theory_of_every_estimator():
    study, n = ts.studies.superiority, np.array([64.0, 128.0])
    full = {**SuperiorityArguments.model_validate(CELL).model_dump(), "n": None}
    student = study.theory({**full, "estimator": "student"}, n)
    np.testing.assert_allclose(student.predicted, 0.1**2 * 8 / n)
    assert student.exponent == 1.0 and study.theory({**full, "inputs": "cube"}, n) == ts.Theory()
    assert study.theory({**full, "estimator": "random_features"}, n).predicted is None
    assert study.theory({**full, "signs": "positive"}, n).predicted is not None
    # What interpolates does not learn at a known exponent.
    assert study.theory({**full, "estimator": "minimum_norm"}, n).exponent is None
    # On the circle degrees have two harmonics each, too few for a spectrum that resolves large n: no curve, and no error.
    circle = {**full, "d": 2}
    assert study.theory(circle, np.array([64, 4096])).predicted is None
    assert study.theory(circle, n).predicted is not None
    for name in ("gradient_flow", "local_linear"):
        assert study.theory({**full, "estimator": name}, n).predicted is None
    assert (np.diff(study.theory(full, n).predicted) < 0).all()


@pytest.mark.parametrize("name", RIDGES)
def test_kernels_that_lack_degrees_level_off(name):
    """The exponent that is shown as the limit is 0 just where the predicted curve has become flat."""
    full = {**SuperiorityArguments.model_validate({**CELL, "estimator": name, "d": 5}).model_dump(), "n": None}
    predicted = ts.studies.superiority.theory(full, np.array([2**17, 2**19]))
    slope = -np.log(predicted.predicted[1] / predicted.predicted[0]) / np.log(4)
    assert (slope < 0.01) == (predicted.exponent == 0.0) and (slope < 0.01 or slope > 0.25)


ORACLES = ("ntk", "gradient_flow", "fourier_features", "local_linear")  # One of each kind.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "tuning"),
    [*((name, "gcv") for name in LINEAR), *((name, "oracle") for name in ORACLES)],
)
def test_every_linear_estimator_runs(estimator, tuning):
    """Compiled as the engine does, at a tiny size; nothing beats the truth."""
    arguments = {**SuperiorityArguments.model_validate({**CELL, "estimator": estimator, "tuning": tuning}).model_dump()}
    arguments |= {"n": 24, "test_points": 200, "noise_std": 0.3}
    values = jax.jit(lambda key: ts.studies.superiority(key, **arguments))(jax.random.key(3))
    assert int(values["status"]) == ts.Status.CONVERGED
    assert 0 < float(values["risk"]) < 1 and 0 <= float(values["risk_se"]) < 0.5 * float(values["risk"])


@pytest.mark.slow
def test_risks_of_a_batch_are_exact_where_they_can_be():
    """Without noise GCV interpolates, with a smooth kernel, and roundoff spoils the closed form: an estimate takes its place
    for that cell alone, and it is what the cell says when it runs by itself."""
    arguments = {
        **SuperiorityArguments.model_validate({**CELL, "estimator": "rbf"}).model_dump(),
        "n": 64,
        "d": 2,
        "m": 1,
    }
    cell = lambda noise_std: ts.studies.superiority(jax.random.key(0), **{**arguments, "noise_std": noise_std})
    batch = jax.jit(jax.vmap(cell))(jnp.array([0.0, 0.1]))
    alone = [jax.jit(cell)(noise_std) for noise_std in (0.0, 0.1)]
    relative = batch["risk_se"] / batch["risk"]
    assert relative[0] > 0.01 and relative[1] < 1e-3
    for name in ("risk", "risk_se"):
        np.testing.assert_allclose(batch[name], [values[name] for values in alone], rtol=0.02)


def test_cost_grows_with_the_work():
    cost = ts.studies.superiority.cost
    full = SuperiorityArguments.model_validate(CELL).model_dump()
    for name in ("student", "paper_student", "oracle_student", "ntk", "optimal_linear"):
        small, large = (cost({**full, "estimator": name, "n": n}) for n in (64, 128))
        assert 0 < sum(small) < sum(large)


def test_failed_fits_have_no_risk():
    """Data that are not finite give a value with its status, not an exception."""
    arguments = {**SuperiorityArguments.model_validate(CELL).model_dump(), "n": 16, "test_points": 100}
    cell = jax.jit(lambda noise_std: ts.studies.superiority(jax.random.key(0), **{**arguments, "noise_std": noise_std}))
    values = cell(jnp.inf)
    assert int(values["status"]) in (ts.Status.DIVERGED, ts.Status.SINGULAR) and np.isnan(float(values["risk"]))
    assert int(cell(0.1)["status"]) == ts.Status.CONVERGED
