"""One function of a key for very many keys: every key once, in order, in as many calls as memory needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.sweep import many

KEYS = jax.random.split(jax.random.key(SEED), 11)


def _numbers(key):
    return {"normal": jax.random.normal(key, (3,), jnp.float32), "key": jax.random.key_data(key), "one": 1}


@pytest.mark.parametrize("at_once", [None, 1, 2, 4, 50])
def test_every_key_once_and_in_order(at_once):
    found = ts.map_many(_numbers, KEYS, at_once=at_once)
    assert all(isinstance(leaf, np.ndarray) for leaf in found.values()) and found["one"].tolist() == [1] * 11
    np.testing.assert_array_equal(found["key"], jax.random.key_data(KEYS))
    np.testing.assert_array_equal(found["normal"], jax.vmap(_numbers)(KEYS)["normal"])


def test_old_keys_are_keys():
    old = jax.random.split(jax.random.PRNGKey(SEED), 5)
    np.testing.assert_array_equal(ts.map_many(_numbers, old)["key"], old)


@pytest.mark.slow
def test_students_are_those_of_fit_many():
    problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(1), 0.1)
    student = ts.TwoPhaseStudent(1, restarts=1, noisy=ts.NoisyPhase(steps=20), vanilla=ts.VanillaPhase(max_steps=20))

    def draw(key):
        teacher_key, data_key, fit_key = jax.random.split(key, 3)
        return problem.sample(data_key, problem.sample_teacher(teacher_key), 32), fit_key

    def train(key):
        data, fit_key = draw(key)
        return student.fit(fit_key, data).net.w

    datasets, fit_keys = jax.vmap(draw)(KEYS[:5])
    together = ts.fit_many(student, fit_keys, datasets)
    np.testing.assert_allclose(ts.map_many(train, KEYS[:5], at_once=2), together.net.w, rtol=1e-5, atol=1e-6)


def test_a_call_that_runs_out_of_memory_is_halved(monkeypatch):
    tried, real = [], many._program

    def scarce(fn, devices):
        def program(keys):
            tried.append(len(keys) // len(devices))
            if tried[-1] > 2:
                raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
            return real(fn, devices)(keys)

        return program

    monkeypatch.setattr(many, "_program", scarce)
    devices = jax.local_devices()[:1]
    found = ts.map_many(_numbers, KEYS, at_once=8, devices=devices)
    assert tried == [8, 4, 2, 2, 2, 2, 2, 2]
    np.testing.assert_array_equal(found["key"], jax.random.key_data(KEYS))
    monkeypatch.setattr(many, "_program", lambda *_: lambda keys: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ts.map_many(_numbers, KEYS)


def test_a_bar_is_shown_on_request(capsys):
    ts.map_many(_numbers, KEYS, at_once=4)
    assert capsys.readouterr() == ("", "")
    ts.map_many(_numbers, KEYS, at_once=4, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "100%" in err


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((_numbers, KEYS[:0]), ValueError, r"at least one; got keys of shape \(0,\)"),
        ((_numbers, KEYS, 0), ValueError, "at_once is a number of keys, at least 1; got 0"),
    ],
)
def test_refused(arguments, error, message):
    fn, keys, *at_once = arguments
    with pytest.raises(error, match=message):
        ts.map_many(fn, keys, at_once=at_once[0] if at_once else None)
