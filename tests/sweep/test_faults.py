"""Mistakes in an experiment's own function are named with what to do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsjax as ts
from tsjax.sweep.faults import GroupError


@functools.partial(jax.jit, static_argnames="times")
def _repeated(x, times):
    return x * (times if isinstance(times, int) else len(times))


# What needs a value while it is compiled, and how JAX, NumPy and Python refuse a traced one.
NEEDY = {
    "a loop": (lambda key, steps: sum(jax.random.uniform(key) for _ in range(steps)), "TracerIntegerConversionError"),
    "a condition": (lambda key, steps: 1.0 if steps > 2 else 2.0, "TracerBoolConversionError"),
    "a shape": (lambda key, steps: jax.random.uniform(key, (steps,)).mean(), "TypeError: Shapes must be 1D"),
    "a range": (lambda key, steps: jnp.arange(steps).mean() + 1.0, "ConcretizationTypeError"),
    "NumPy": (lambda key, steps: np.zeros(steps).sum() + 1.0, "TypeError: expected a sequence of integers"),
    "a jitted function": (lambda key, steps: _repeated(1.0, times=steps), "ValueError: Non-hashable static arguments"),
    "a dict": (lambda key, steps: {3: 1.0, 4: 2.0}[steps], "TypeError: unhashable type"),
}


@pytest.mark.parametrize("case", NEEDY)
def test_an_argument_whose_value_is_needed_is_to_be_static(case):
    needy, words = NEEDY[case]

    @ts.experiment
    def trained(key, *, n: int, steps: int, scale: float = 1.0):
        return {"risk": scale * needy(key, steps) / n}

    with pytest.raises(ValueError, match="name 'steps' in static, as in @ts.experiment") as error:
        ts.sweep(trained, seeds=2, n=[2, 4], steps=[3, 4])
    message = str(error.value)
    assert message.startswith("experiment 'trained': the argument 'steps' is traced") and "\n" not in message
    assert words in message and "test_faults.py, line" in message


def test_several_such_arguments_are_all_named():
    @ts.experiment(static=("kind",))
    def trained(key, *, kind: str, n: int, steps: int, width: int, scale: float = 1.0):
        return {"risk": scale * sum(jax.random.uniform(key, (width,)).mean() for _ in range(steps)) / n}

    with pytest.raises(ValueError, match="name 'steps' and 'width' in static.*static=.'kind', 'steps', 'width'"):
        ts.sweep(trained, seeds=2, kind="a", n=[2, 4], steps=3, width=2)


def test_static_lists_are_to_be_tuples():
    @ts.experiment(static=("widths",))
    def trained(key, *, n: int, widths: list[int]):
        return {"risk": _repeated(jax.random.uniform(key), times=widths) / n}

    with pytest.raises(ValueError, match="the static argument 'widths' is a list, .* annotate 'widths' as a tuple"):
        ts.sweep(trained, seeds=2, n=[2, 4], widths=[[3, 4]])


def test_a_bug_that_no_static_argument_mends_is_itself():
    @ts.experiment
    def trained(key, *, n: int, steps: int):
        return {"risk": {}["nothing"] * steps / n}

    with pytest.raises(KeyError, match="nothing"):
        ts.sweep(trained, seeds=2, n=[2, 4], steps=3)


# What needs the number in an array, and the error of JAX.
NUMBERS = {
    "float": (lambda x: float(x), "ConcretizationTypeError"),
    "item": (lambda x: x.item(), "ConcretizationTypeError"),
    "a condition": (lambda x: x if x > 0.5 else -x, "TracerBoolConversionError"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_that_depends_on_the_key_is_unknown(case):
    needy, words = NUMBERS[case]

    @ts.experiment
    def trained(key, *, n: int):
        return {"risk": needy(jax.random.uniform(key)) / n}

    with pytest.raises(
        ValueError, match="needs the number in a traced array .* make the function a black box"
    ) as error:
        ts.sweep(trained, seeds=2, n=[2, 4])
    assert words in str(error.value) and "test_faults.py, line" in str(error.value) and "\n" not in str(error.value)


def test_a_negative_static_x_is_refused_before_anything_is_compiled():
    @ts.experiment(static=("n",))
    def trained(key, *, n: int):
        return {"risk": jax.random.normal(key, (n,)).mean() ** 2}

    with pytest.raises(ValueError, match="trained: n = -16: n is static, so it is a number of rows"):
        ts.sweep(trained, seeds=2, n=[-16, 16])


def test_xla_is_quoted_without_its_locations():
    @ts.experiment(static=("width",))
    def trained(key, *, n: int, width: int):
        return {"risk": jax.random.normal(key, (width,)).sum() / n}

    with pytest.raises(GroupError, match="1 of 2 programs failed") as error:
        ts.sweep(trained, seeds=2, n=[2, 4], width=[3, -3])
    assert "callsite" not in str(error.value) and len(str(error.value)) < 250


def test_random_numbers_of_numpy_are_found():
    @ts.experiment
    def trained(key, *, n: int):
        return {"risk": np.random.default_rng(0).uniform() / n}

    @ts.experiment
    def sound(key, *, n: int):
        return {"risk": jax.random.uniform(key) / n}

    said = [" ".join(ts.sweep(one, seeds=4, n=[2, 4, 8]).rates()["warnings"][0]) for one in (trained, sound)]
    assert "the experiment does not use its key: random numbers of NumPy" in said[0] and "its key" not in said[1]
