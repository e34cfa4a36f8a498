from typing import Annotated, Literal

import jax.numpy as jnp
import pytest
from pydantic import Field, ValidationError
from sweep import toys

import tsjax as ts


def test_schema_comes_from_the_signature():
    @ts.experiment(static=("n",))
    def cell(key, *, n: Annotated[int, Field(ge=1)], rate: float = 0.5, kind: Literal["a", "b"] = "a"):
        return {"risk": n * rate}

    assert cell.name == "cell" and cell.static == ("n",) and cell.x == "n" and cell.y == ("risk",)
    assert cell.arguments.model_validate({"n": 3}).model_dump() == {"n": 3, "rate": 0.5, "kind": "a"}
    for bad in ({}, {"n": 0}, {"n": 1, "kind": "c"}, {"n": 1, "rate": float("nan")}, {"n": 1, "m": 2}):
        with pytest.raises(ValidationError):
            cell.arguments.model_validate(bad)
    # An experiment is still a function of (key, arguments).
    assert cell(None, n=4, rate=0.25) == {"risk": 1.0}


def test_own_schema_name_and_bare_decorator():
    class Mine(ts.Arguments):
        n: int

    made = ts.experiment(lambda key, **rest: rest, arguments=Mine, name="mine")
    assert made.name == "mine" and made.arguments is Mine
    assert isinstance(toys.plain, ts.Experiment) and toys.plain.name == "plain" and toys.plain.curve is None


def test_decorator_errors():
    def no_key(seed, *, n: int):
        return {}

    def no_annotation(key, *, n):
        return {}

    def fine(key, *, n: int):
        return {}

    with pytest.raises(ValueError, match="'no_key': the first parameter must be called key"):
        ts.experiment(no_key)
    with pytest.raises(ValueError, match="first parameter must be called key"):
        ts.experiment(lambda: {}, name="empty")
    with pytest.raises(ValueError, match="annotate 'n'"):
        ts.experiment(no_annotation)
    with pytest.raises(ValueError, match="static names 'm', which is not one of its arguments"):
        ts.experiment(fine, static=("m",))
    with pytest.raises(ValueError, match="curve names 'method', which is not one of its arguments"):
        ts.experiment(fine, curve="method")


@pytest.mark.parametrize("name", ["seed", "seeds", "cell"])
def test_names_of_the_engine_are_refused_as_arguments(name):
    fields = {"__annotations__": {name: int}}
    schema = type("Schema", (ts.Arguments,), fields)
    with pytest.raises(ValueError, match=f"{name!r} is reserved for the engine"):
        ts.experiment(lambda key, **rest: {}, arguments=schema, name="bad")


def test_vectors_become_long_rows():
    result = ts.sweep(toys.path, seeds=3, speed=[1.0, 2.0])
    assert len(result.records) == 2 * 3 * 10
    assert result.records["cell"].nunique() == 6
    first = result.records[result.records["cell"] == result.records["cell"][0]]
    assert first["step"].tolist() == list(range(10)) and first["speed"].nunique() == 1
    ratio = first["risk"].to_numpy() / first["risk"].iloc[0]
    assert ratio == pytest.approx([float(jnp.exp(-0.1 * i)) for i in range(10)], rel=1e-6)
    assert [curve.values["risk"].shape for curve in result.curves()] == [(10, 3), (10, 3)]
    # Scalars of the same call are repeated.
    assert (first["status"] == 0).all()


def test_vectors_of_different_length_are_refused():
    @ts.experiment
    def crooked(key, *, n: int):
        return {"risk": jnp.zeros(3) + n, "other": jnp.zeros(4)}

    with pytest.raises(ValueError, match=r"'crooked' returned vectors of different shapes \[\(3,\), \(4,\)\]"):
        ts.sweep(crooked, seeds=1, n=[2])

    @ts.experiment
    def matrix(key, *, n: int):
        return {"risk": jnp.zeros((3, 2)) + n}

    with pytest.raises(ValueError, match="may have more axes"):
        ts.sweep(matrix, seeds=1, n=[2])


def test_names_that_are_taken_are_refused():
    @ts.experiment
    def echo(key, *, n: int):
        return {"risk": 1.0, "n": n}

    with pytest.raises(ValueError, match="'echo' returns 'n', which is already an argument"):
        ts.sweep(echo, seeds=1, n=[2])

    @ts.experiment
    def bookkeeper(key, *, n: int):
        return {"risk": 1.0, "run_seconds": n}

    with pytest.raises(ValueError, match="'bookkeeper' returns 'run_seconds'"):
        ts.sweep(bookkeeper, seeds=1, n=[2])


def test_axes_that_do_not_exist_are_refused():
    @ts.experiment
    def no_n(key, *, width: int):
        return {"risk": 1.0 * width}

    with pytest.raises(ValueError, match="'no_n': x names 'n', which is neither an argument nor returned"):
        ts.sweep(no_n, seeds=1, width=[2])

    @ts.experiment
    def no_risk(key, *, n: int):
        return {"loss": 1.0 * n}

    with pytest.raises(ValueError, match="'no_risk': y names 'risk', which is not returned"):
        ts.sweep(no_risk, seeds=1, n=[2])


def test_a_curve_may_be_named_by_a_number():
    result = ts.sweep(toys.path, seeds=1, speed=[1.0, 2.0])
    assert [curve.name for curve in result.curves()] == ["1.0", "2.0"]
    assert [curve.label for curve in ts.sweep(toys.plain, seeds=2, n=[2, 4]).curves()] == ["plain"]


def test_text_must_be_static():
    @ts.experiment
    def text(key, *, n: int, kind: str = "a"):
        return {"risk": 1.0}

    with pytest.raises(
        ValueError, match="text: kind = 'a' is not a number, so it cannot be traced. Name it in static."
    ):
        ts.sweep(text, seeds=1, n=[2])
