import enum
import json
from collections import UserList
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sweep.toys import power

import tsjax as ts
from tsjax.sweep.options import plain
from tsjax.sweep.spec import SpecError, parse_spec


class Kind(enum.Enum):
    A = "a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.float64(0.5), 0.5),
        (np.str_("x"), "x"),
        (np.arange(3), [0, 1, 2]),
        (np.array(4), 4),
        (list(np.logspace(1, 2, 3).astype(int)), [10, 31, 100]),
        ([np.array([1, 2]), (3, np.int8(4))], [[1, 2], [3, 4]]),
        (np.array([None, "a", 3], object), [None, "a", 3]),
        (np.array([1.5, 2.5], np.float16), [1.5, 2.5]),
        (jnp.arange(2), [0, 1]),
        (jnp.asarray(0.5, jnp.bfloat16), 0.5),
        (pd.Series([1, 2]), [1, 2]),
        (range(2, 8, 3), [2, 5]),
        (Path("a/b"), "a/b"),
        (Kind.A, "a"),
        ({"from": np.int64(1), "to": 4, "step": np.float64(0.5)}, {"from": 1, "to": 4, "step": 0.5}),
        (None, None),
        (UserList([1, UserList(["a"])]), [1, ["a"]]),
    ],
)
def test_values_of_any_library_become_plain(value, expected):
    found = plain("x", value)
    # As JSON, where 1, 1.0 and true differ.
    assert json.dumps(found) == json.dumps(expected)


@pytest.mark.parametrize(
    "value", [object(), b"ab", {1, 2}, np.array([1j]), {1: 2}, lambda: 0, np.array(["2020"], "M8[Y]")]
)
def test_values_that_have_no_plain_form(value):
    with pytest.raises(SpecError, match="^x"):
        plain("x", value)
    with pytest.raises(SpecError, match=r"x\.y|x"):
        plain("x", [{"y": value}])


def test_a_key_of_jax_is_no_number():
    with pytest.raises(SpecError, match="^key = .* cannot be written as numbers") as error:
        plain("key", jax.random.key(0))
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_give_the_sweep_of_pythons(tmp_path):
    given = ts.sweep(power, seeds=np.int64(3), key=np.int64(7), n=list(np.array([16, 32])), method=np.str_("fast"))
    same = ts.sweep(power, seeds=3, key=7, n=[16, 32], method="fast")
    pd.testing.assert_series_equal(given.records["risk"], same.records["risk"])
    assert ts.sweep(power, seeds=np.arange(2, 4), n=16, method="fast").records["seed"].tolist() == [2, 3]


@pytest.mark.parametrize("key", [True, 3.0, "3", -1, 2**32])
def test_keys_are_integers(key):
    with pytest.raises(SpecError, match="the spec: key = "):
        parse_spec({"study": "sweep.toys:plain", "key": key, "grid": {"n": 2, "seeds": 1}})


def test_the_key_of_a_file_can_be_replaced(tmp_path):
    """It was ignored: a sweep file ran with its own key, also when another was asked for."""
    file = tmp_path / "a.toml"
    file.write_text('study = "sweep.toys:plain"\nkey = 1\n[grid]\nn = 2\nseeds = 2\n')
    risks = [ts.sweep(file, **key).records["risk"].tolist() for key in ({}, {"key": 1}, {"key": 2})]
    assert risks[0] == risks[1] != risks[2]


def test_paths_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('study = "sweep.toys:plain"\n[grid]\nn = 2\nseeds = 2\n')
    ts.sweep("~/a.toml", out="~/b/c")
    assert (tmp_path / "b" / "c" / "sweep.json").is_file() and not (tmp_path / "~").exists()
