import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import SEED
from sklearn.datasets import load_diabetes

import tsjax as ts
from tsjax.kernels import RBF

RNG = np.random.default_rng(SEED)
# Every row tells its number.
X, Y = np.c_[np.arange(40.0), RNG.normal(size=40)], RNG.normal(size=40)
PROBLEM = ts.DataProblem(X, Y)


def _rows(data):
    return set(np.asarray(data.x)[:, 0].astype(int).tolist())


def test_splits_are_nested_disjoint_and_of_the_key_alone(key):
    assert (PROBLEM.test_size, PROBLEM.largest_n, PROBLEM.d) == (10, 30, 2)
    sizes = (2, 7, 30)
    parts = [PROBLEM.split(key, n) for n in sizes]
    held = _rows(parts[0][1])
    for (train, test), n in zip(parts, sizes, strict=True):
        assert train.n == n and len(_rows(train)) == n and _rows(test) == held and not held & _rows(train)
        np.testing.assert_array_equal(train.y, Y[np.asarray(train.x)[:, 0].astype(int)])
    assert _rows(parts[0][0]) < _rows(parts[1][0]) < _rows(parts[2][0]) == set(range(40)) - held
    assert _rows(PROBLEM.split(jax.random.fold_in(key, 1), 7)[1]) != held


def test_every_row_is_held_out_equally_often():
    keys = jax.random.split(jax.random.key(SEED), 2000)
    held = jax.vmap(lambda k: PROBLEM.split(k, 2)[1].x[:, 0])(keys)
    counts = np.bincount(np.asarray(held, int).ravel(), minlength=40)
    # Each count is binomial(2000, 1/4) with a standard deviation of 19.
    assert np.abs(counts - 500).max() < 90


def test_the_held_out_risk_and_its_error(key):
    train, test = PROBLEM.split(key, 20)
    fit = ts.Standardized(ts.KernelRidge(RBF(1.0), ridge=0.5)).fit(key, train)
    squared = (np.asarray(fit.predict(test.x)) - np.asarray(test.y)) ** 2
    risk = PROBLEM.held_out_risk(fit, test)
    assert float(risk.value) == pytest.approx(squared.mean())
    assert float(risk.standard_error) == pytest.approx(squared.std(ddof=1) / 10**0.5)


@pytest.mark.slow
def test_the_held_out_risk_is_the_true_one(key):
    """Of data whose law is known, where the excess risk is exact."""
    synthetic = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), noise_std=0.3)
    teacher = synthetic.sample_teacher(key)
    rows = synthetic.sample(jax.random.fold_in(key, 1), teacher, 4000)
    problem = ts.DataProblem(rows.x, rows.y, test_share=0.98)
    train, test = problem.split(key, 60)
    fit = ts.KernelRidge(RBF(1.0), ridge=0.5).fit(key, train)
    risk, truth = problem.held_out_risk(fit, test), ts.excess_risk(synthetic, teacher, fit) + 0.3**2
    assert abs(float(risk.value) - float(truth)) < 4 * float(risk.standard_error)


def test_files_and_bundled_sets_are_the_same_numbers(tmp_path):
    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame.to_csv(tmp_path / "d.csv", index=False)
    frame.to_parquet(tmp_path / "d.parquet")
    bundled = ts.DataProblem.bundled("diabetes")
    assert (bundled.d, len(bundled.y), bundled.test_size) == (10, 442, 110)
    for name in ("d.csv", "d.parquet"):
        read = ts.DataProblem.read(tmp_path / name, target="target")
        assert read.fingerprint == bundled.fingerprint
    some = ts.DataProblem.read(tmp_path / "d.csv", target="target", features=["bmi", "bp"], test_share=0.5)
    np.testing.assert_array_equal(some.x, frame[["bmi", "bp"]].to_numpy())
    assert some.test_size == 221 and some.fingerprint != bundled.fingerprint
    assert bundled.variance == pytest.approx(np.var(frame["target"].to_numpy()))


def test_bad_data_are_refused(tmp_path):
    table = pd.DataFrame({"a": [1.0, 2, 3, 4, None, 6, 7, 8], "b": list("uvwxuvwx"), "c": range(8), "y": range(8)})
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False)
    for options, message in [
        ({"target": "z"}, "no column 'z'. Allowed: a, b, c, y"),
        ({"target": "y", "features": ["aa"]}, "no column 'aa'. Did you mean 'a'"),
        ({"target": "y", "features": ["a"]}, r"column 'a' has 1 gap\(s\)"),
        (
            {"target": "y", "features": ["b"]},
            r"column 'b' has 8 .* that are not numbers, the first 'u' in row 1\. Encode",
        ),
        ({"target": "y", "features": ["c"], "test_share": 0.1}, "holds out 1 and leaves 7"),
        ({"target": "y", "features": ["c"], "test_share": 1.0}, "test_share is a share of the rows"),
    ]:
        with pytest.raises(ValueError, match=message):
            ts.DataProblem.read(path, **options)
    with pytest.raises(ValueError, match=r"ends in \.csv, \.tsv, \.parquet"):
        ts.DataProblem.read(tmp_path / "t.xlsx", target="y")
    table["b"] = ["130", "?", *"345678"]
    table.to_csv(path := tmp_path / "T.CSV", index=False)
    with pytest.raises(
        ValueError, match=r"'b' has 1 value\(s\) that are not numbers, the first '\?' in row 2 of 8\. If that"
    ):
        ts.DataProblem.read(path, target="y", features=["b"])
    assert ts.DataProblem.read(path, target="y", features=["c"]).d == 1
    with pytest.raises(ValueError, match=r"has 1 value\(s\) that are masked, the first at index \(0,\)"):
        ts.DataProblem(X, np.ma.masked_array(Y, mask=np.arange(40) == 0))
    with pytest.raises(ValueError, match="scikit-learn bundles breast_cancer, diabetes"):
        ts.DataProblem.bundled("california")
    with pytest.raises(ValueError, match=r"x has 1 value\(s\) that are not finite, the first at \(2, 1\)"):
        ts.DataProblem(np.where(np.arange(80).reshape(40, 2) == 5, np.inf, X), Y)
    with pytest.raises(ValueError, match=r"x \(N, d\) and y \(N,\), got \(40, 2\) and \(39,\)"):
        ts.DataProblem(X, Y[1:])
    with pytest.raises(ValueError, match=r"n must be in 1\.\.30"):
        PROBLEM.split(jax.random.key(0), 31)


def test_a_sweep_over_arrays_of_ones_own():
    """What the README shows."""

    @ts.experiment(static=("n",))
    def mine(key, *, n: int):
        train, test = PROBLEM.split(key, n)
        fit = ts.Standardized(ts.KernelRidge(RBF(1.0), ridge=0.5)).fit(key, train)
        return {"risk": PROBLEM.held_out_risk(fit, test).value}

    records = ts.sweep(mine, seeds=2, n=[10]).records
    root = jax.random.key(0)
    for seed, risk in zip(records["seed"], records["risk"], strict=True):
        assert float(mine(jax.random.fold_in(root, seed), n=10)["risk"]) == pytest.approx(risk, rel=1e-6)
    assert jnp.isfinite(jnp.asarray(records["risk"].to_numpy())).all()
