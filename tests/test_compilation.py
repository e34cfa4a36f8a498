"""Functions that a user calls directly are compiled with tsjax's options; inside transformations they are what they were."""

import os
import re
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsjax as ts
from tsjax.compilation import compile_fast, compiled, compiler_options


def test_what_xla_is_asked_for(monkeypatch):
    """Unless the user's flags are about it."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=4")
    assert compiler_options("cpu") == {"xla_backend_optimization_level": 2}
    others = {"xla_gpu_enable_triton_gemm": False, "xla_disable_hlo_passes": "triton-softmax-rewriter"}
    assert compiler_options("gpu") == others and compiler_options("tpu") == {}
    compile_fast()
    assert os.environ["XLA_FLAGS"].split() == [
        "--xla_gpu_autotune_level=4",
        "--xla_backend_optimization_level=2",
        "--xla_gpu_enable_triton_gemm=false",
        "--xla_disable_hlo_passes=triton-softmax-rewriter",
    ]
    assert compiler_options("cpu") == {} == compiler_options("gpu")


def test_xla_knows_the_names_of_the_options():
    """XLA ends a process that has a flag it does not know. The options of GPUs are flags of every process."""
    command = (
        "from tsjax.compilation import compile_fast; compile_fast(); import jax; print(jax.jit(lambda x: x + 1)(1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""}
    )
    assert done.returncode == 0 and done.stdout.strip() == "2", done.stderr


@pytest.fixture
def asked(monkeypatch):
    """The options of each function that `compiled` makes, in the order of their calls."""
    options, filter_jit = [], eqx.filter_jit

    def noting(function, **given):
        inner = filter_jit(function, **given)
        return lambda *args: (options.append(given.get("compiler_options")), inner(*args))[1]

    monkeypatch.setattr(eqx, "filter_jit", noting)
    monkeypatch.setenv("XLA_FLAGS", "")
    return options


def _sum(x):
    return jnp.sum(jnp.sin(x) ** 2)


X = jnp.arange(3.0)


def test_direct_calls_have_options(asked):
    ours, short = compiled(_sum), compiler_options(jax.default_backend())
    if not short:
        pytest.skip(f"no options on {jax.default_backend()}")
    np.testing.assert_allclose(ours(X), _sum(X), rtol=1e-6)
    assert ours(2.0).shape == () and asked == [short, short]


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.jit(f)(X),
        lambda f: jax.jit(lambda y: y * f(X))(1.0),  # Its own arguments are not traced.
        lambda f: jax.grad(f)(X),
        lambda f: jax.vmap(f)(X[:, None]),
        lambda f: jax.vmap(jax.grad(f))(X[:, None]),
        lambda f: jax.jit(jax.vmap(f))(X[:, None]),
        lambda f: jax.jvp(f, (X,), (jnp.ones_like(X),))[1],
        lambda f: jax.lax.map(f, X[:, None]),
        lambda f: jax.eval_shape(f, X).shape,
    ],
)
def test_transformations_have_none(asked, transform):
    """JAX would refuse them: "can only be passed to top-level jit"."""
    np.testing.assert_allclose(transform(compiled(_sum)), transform(_sum), rtol=1e-6)
    assert asked and set(asked) == {None}


def test_the_options_of_the_user_win(asked, monkeypatch):
    ours = compiled(lambda x: x + 1.0)
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    ours(jnp.ones(2))
    assert asked == [None]


def test_the_package_compiles_its_functions_in_no_other_way():
    root = Path(ts.__file__).parent
    written = re.compile(r"(^ *@|= )eqx\.filter_jit\b", re.MULTILINE)
    users = {path.stem for path in root.rglob("*.py") if written.search(path.read_text())}
    assert users == {"compilation"} and "@compiled" in (root / "risk.py").read_text()
