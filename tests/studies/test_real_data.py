import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import SEED
from pydantic import ValidationError
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

import tsjax as ts
from tsjax.studies.linear import LINEAR
from tsjax.studies.real_data import RealDataArguments
from tsjax.sweep.plan import plan_cells
from tsjax.sweep.provenance import shared_here
from tsjax.sweep.spec import parse_spec

CELL = {"data": "diabetes", "estimator": "linear", "n": 30}
OWN = ts.KernelRidge(ts.kernels.RBF(2.0), ridge=0.1)


def test_records_are_what_scikit_learn_finds():
    """Linear ridge on the same rows by scikit-learn, given the ridge that was taken."""
    result = ts.sweep(ts.studies.real_data, seeds=2, n=30, data="diabetes", estimator="linear")
    problem = ts.DataProblem.bundled("diabetes")
    for _, row in result.records.iterrows():
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), int(row["seed"])), 0)
        train, test = problem.split(key, 30, jnp.float64)
        scaler = StandardScaler().fit(train.x)
        z = lambda x, s=scaler: np.c_[s.transform(x), np.ones(len(x))] / 10**0.5
        y, truth = np.asarray(train.y), np.asarray(test.y)
        ridge = Ridge(alpha=row["ridge"], fit_intercept=False).fit(z(train.x), (y - y.mean()) / y.std())
        squared = (y.mean() + y.std() * ridge.predict(z(test.x)) - truth) ** 2 / np.var(problem.y)
        assert row["risk"] == pytest.approx(squared.mean(), rel=1e-6)
        assert row["risk_se"] == pytest.approx(squared.std(ddof=1) / len(truth) ** 0.5, rel=1e-6)


@pytest.mark.slow
def test_an_estimator_of_ones_own(monkeypatch):
    """It and the one that ships see the same rows: the RBF kernel, once with its ridge given and once found."""
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    result = ts.sweep(ts.studies.real_data, seeds=3, n=60, data="diabetes", estimator=["rbf", "mine:OWN"])
    rbf, own = result.curves()
    assert own.failed == 0 and own.name == "mine:OWN" and own.theory == ts.Theory()
    assert np.corrcoef(rbf.values["risk"][0], own.values["risk"][0])[0, 1] > 0.5


def test_an_estimator_of_ones_own_is_never_padded(monkeypatch):
    """It may take rows of weight 0 for data."""
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    grid = {"n": [60, 100], "seeds": 2, "data": "diabetes", "estimator": ["rbf", "mine:OWN"]}
    spec = parse_spec({"study": "real_data", "grid": grid}, where="test")
    plan = shared_here(plan_cells(spec, ts.studies.real_data), {})
    limits = {(group.static["estimator"], group.static["n"]): group.shared.limits for group in plan.groups}
    assert limits == {("rbf", 60): (100,), ("rbf", 100): (100,), ("mine:OWN", 60): None, ("mine:OWN", 100): None}


def test_the_cell_knows_its_data(tmp_path):
    """Records are of numbers, not of a file's name: when these change, so do the cells."""
    path = tmp_path / "d.csv"
    table = pd.DataFrame(np.random.default_rng(SEED).normal(size=(20, 3)), columns=["a", "b", "y"])
    cell = {**CELL, "data": str(path), "target": "y", "n": 10}
    prints = []
    for _ in range(2):
        table.to_csv(path, index=False)
        prints.append(RealDataArguments.model_validate(cell).fingerprint)
        table["a"] += 1.0
    assert prints[0] != prints[1] and all(len(digits) == 12 for digits in prints)
    with pytest.raises(ValidationError, match="is not the data of this sweep"):
        RealDataArguments.model_validate({**cell, "fingerprint": prints[0]})
    path.unlink()
    # A store can be read where the file is not, if it is named by its fingerprint.
    assert RealDataArguments.model_validate({**cell, "fingerprint": prints[1]}).n == 10
    with pytest.raises(ValidationError, match="no such file or set"):
        RealDataArguments.model_validate(cell)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "diabets"}, "Did you mean 'diabetes'"),
        ({"target": "y"}, "target is for files"),
        ({"data": __file__}, "target is missing"),
        ({"n": 333}, "110 rows of diabetes are held out, which leaves 332"),
        ({"estimator": "sudent"}, "Did you mean 'student'"),
        ({"estimator": "no.such:thing"}, "cannot be imported"),
        ({"estimator": "math:pi"}, "is no tsjax estimator but a float. Name an instance"),
        # Not called to see what they make: these would end the tests.
        ({"estimator": "sys:exit"}, "is no tsjax estimator but a builtin_function_or_method. Name an instance"),
        ({"estimator": "os:abort"}, "is no tsjax estimator but a builtin_function_or_method"),
        ({"estimator": "threading:Barrier"}, "is no tsjax estimator but a type"),
        ({"estimator": "tsjax:KernelRidge"}, "cannot be made without arguments .* Name an instance"),
        ({"tuning": "oracle"}, "Input should be 'gcv'"),
        ({"estimator": "gradient_flow", "tuning": "marginal_likelihood"}, "marginal_likelihood"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValidationError, match=message):
        RealDataArguments.model_validate({**CELL, **change})


class Ready(ts.KernelRidge):
    """An estimator that needs no arguments."""

    def __init__(self):
        super().__init__(ts.kernels.RBF(2.0), ridge=0.1)


def test_a_class_of_ones_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    assert RealDataArguments.model_validate({**CELL, "estimator": "mine:Ready"}).estimator == "mine:Ready"


def test_data_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    table = pd.DataFrame(np.random.default_rng(SEED).normal(size=(20, 3)), columns=["a", "b", "y"])
    table.to_csv(tmp_path / "d.csv", index=False)
    cell = {**CELL, "data": "~/d.csv", "target": "y", "n": 10}
    digits = RealDataArguments.model_validate(cell).fingerprint
    assert digits == ts.DataProblem.read("~/d.csv", "y").fingerprint
    assert digits == ts.DataProblem.read(tmp_path / "d.csv", "y").fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["student", "linear", *LINEAR])
def test_every_estimator_learns_real_data(estimator):
    """Better than the mean of y, at a size where a linear fit explains 0.4 of the variance."""
    tuning = {} if estimator in ("student", "minimum_norm") else {"tuning": "loo"}
    result = ts.sweep(ts.studies.real_data, seeds=4, n=240, data="diabetes", estimator=estimator, restarts=2, **tuning)
    (curve,) = result.curves()
    # Interpolation of noise is as bad as theory says, and local linear fits in ten dimensions are little better.
    least = {"minimum_norm": 2.0, "local_linear": 1.0}.get(estimator, 0.75)
    assert curve.failed == 0 and curve.values["risk"].mean() < least
