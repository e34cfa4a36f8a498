"""The numbers of the study against ridge regression written out in NumPy, and its theory against the paper's own limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

import tsjax as ts
from tsjax.studies.double_descent import LAMBDAS, PATH, DoubleDescentArguments, features_of, target
from tsjax.sweep.program import key_of
from tsjax.sweep.spec import find_experiment

CELL = {"d": 8, "n": 20, "noise_var": 0.5, "nonlinear": 0.3}


def by_hand(key, count, lam, *, d, n, noise_var, nonlinear):
    """Risk at a hundred thousand points with its error, training error: of the minimiser of the paper's loss, in its units."""
    data_key, fit_key = (jax.random.fold_in(key, i) for i in range(2))
    teacher = target(d, jnp.asarray(nonlinear))
    problem = ts.Problem(ts.Sphere(d), ts.FunctionTeacher(teacher), noise_std=jnp.sqrt(noise_var))
    data = problem.sample(data_key, teacher, n, jnp.float64)
    # Radii of sqrt(d), and weights of the length of the paper's on average.
    w = np.asarray(ts.RandomFeatures(count, lam * n / d).fit(fit_key, data).features.w)
    of = lambda x: np.maximum(np.sqrt(d) * x @ w.T / np.sqrt(d), 0.0)
    x, y = np.asarray(data.x), np.asarray(data.y)
    a = np.linalg.solve(of(x).T @ of(x) / n + count * lam / d * np.eye(count), of(x).T @ y / n)
    fresh = np.random.default_rng(1).normal(size=(100_000, d))
    fresh /= np.linalg.norm(fresh, axis=1, keepdims=True)
    u = np.sqrt(d) * fresh[:, 0]
    truth = u + np.sqrt(nonlinear / np.var(np.abs(u))) * np.abs(u)
    squares = (of(fresh) @ a - truth) ** 2
    return squares.mean(), squares.std() / len(squares) ** 0.5, np.mean((of(x) @ a - y) ** 2)


@pytest.mark.parametrize(("method", "ratio"), [("fixed", 0.5), pytest.param("optimal", 2.0, marks=pytest.mark.slow)])
def test_a_cell_is_what_numpy_finds(key, method, ratio):
    # Called eagerly, so that the fit of `by_hand` is the same program.
    found = ts.studies.double_descent(key, method=method, ratio=ratio, **CELL)
    count = features_of(ratio, 20)
    theory = lambda lam: float(ts.theory.random_features_risk(count, 20, 8, lam * 20 / 8, 0.5**0.5, nonlinear=0.3))
    lam = LAMBDAS.get(method) or min(PATH, key=theory)
    assert float(found["lam"]) == pytest.approx(lam, rel=1e-9)
    risk, error, train = by_hand(key, count, lam, **CELL)
    assert abs(float(found["risk"]) - risk) < 4 * error + 0.01 * risk
    assert float(found["train_error"]) == pytest.approx(train, rel=1e-6, abs=1e-10)


def test_methods_that_differ_by_a_number_share_a_program():
    """Records are those of cells of their own."""
    methods = ["ridgeless", "fixed", "optimal"]
    found = ts.sweep(ts.studies.double_descent, seeds=2, method=methods, ratio=0.5, **CELL)
    assert found.plan is not None and found.plan.programs == 1
    for row in found.records.itertuples():
        cell = ts.studies.double_descent(key_of(0, row.seed, {}, ()), method=row.method, ratio=0.5, **CELL)
        for name in ("lam", "risk", "train_error"):
            assert getattr(row, name) == pytest.approx(float(cell[name]), rel=1e-6, abs=1e-12), (row.method, name)


def test_the_target_has_the_variances_that_it_says(rng):
    x = rng.normal(size=(400_000, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    f = np.asarray(jax.vmap(target(5, jnp.asarray(0.5)))(jnp.asarray(x)))
    linear = np.mean(f * x[:, 0]) / np.mean(x[:, 0] ** 2) * x[:, 0]
    assert np.var(linear) == pytest.approx(1.0, rel=0.02)
    assert np.var(f - linear) == pytest.approx(0.5, rel=0.02)


def test_theory_is_that_of_each_method():
    experiment, x = find_experiment("double_descent"), np.array([0.5, 2.0])
    found = {}
    for method in ("ridgeless", "fixed", "optimal", "gcv"):
        arguments = DoubleDescentArguments(method=method, ratio=1.0, noise_var=0.5).model_dump()
        found[method] = experiment.theory_at(arguments, x).predicted
    for method, lam in LAMBDAS.items():
        expected = ts.theory.random_features_risk([150, 600], 300, 100, 3 * lam, 0.5**0.5)
        np.testing.assert_allclose(found[method], expected, rtol=1e-10)
    np.testing.assert_array_equal(found["optimal"], found["gcv"])
    assert (found["optimal"] < found["fixed"]).all() and (found["optimal"] < found["ridgeless"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "none"}, "'ridgeless', 'fixed', 'optimal' or 'gcv'"),
        ({"ratio": 0.001}, "ratio = 0.001 of n = 300 samples is no feature"),
        ({"ratio": 0.0}, "greater than 0"),
        ({"noise_var": -1.0}, "greater than or equal to 0"),
        ({"nonlinear": -1.0}, "greater than or equal to 0"),
        ({"ridge": 1.0}, "Extra inputs"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValidationError, match=message):
        DoubleDescentArguments.model_validate({"method": "fixed", "ratio": 1.0, **change})
