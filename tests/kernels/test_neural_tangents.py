import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tsjax.kernels import ArcCosineNTK
from tsjax.kernels import neural_tangents as bridge

# The state of JAX around the import, in a process of its own: nothing of ours may have touched it before.
LEAVES_JAX_ALONE = """
import sys
import jax, jax.core, jax.extend.core, jax.interpreters.ad
import tsjax.kernels
from tsjax.kernels import neural_tangents as bridge
assert "neural_tangents" not in sys.modules, "importing tsjax.kernels imported neural_tangents"
watched = (jax.core, jax.extend.core, jax.interpreters.ad)
before = [{name: id(getattr(m, name)) for name in vars(m)} for m in watched]
eval_context = jax.core.eval_context
flags = dict(jax.config.values)
jax.jit(lambda x: tsjax.kernels.ntk()(x))(jax.numpy.ones((2, 3)))
assert [{name: id(getattr(m, name)) for name in vars(m)} for m in watched] == before
assert jax.core.eval_context is eval_context and dict(jax.config.values) == flags
assert "jax.util" not in sys.modules and not hasattr(jax, "util")
assert not any(name.split(".")[0] in ("tensorflow", "tf2jax") for name in sys.modules)
nt = bridge.load()
assert nt.__version__ == bridge.VERSION and not hasattr(nt, "experimental")
assert "neural_tangents.experimental" not in sys.modules
"""

# A user who mended the import in another way keeps that module, with the repairs.
ALREADY_IMPORTED = """
import sys, warnings
from tsjax.kernels import neural_tangents as bridge
with warnings.catch_warnings(), bridge._lend():
    warnings.simplefilter("ignore")
    import neural_tangents as theirs
assert bridge.load() is theirs and bridge.load() is theirs
assert theirs._src.predict.jax.core.eval_context is __import__("jax").ensure_compile_time_eval
"""


@pytest.mark.parametrize("script", [LEAVES_JAX_ALONE, ALREADY_IMPORTED], ids=["leaves_jax_alone", "already_imported"])
def test_import_in_a_fresh_process(script):
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_another_release_is_refused(monkeypatch):
    monkeypatch.setattr(bridge.importlib.metadata, "version", lambda name: "0.6.4")
    with pytest.raises(ImportError, match=r"private names of release 0\.6\.5, but 0\.6\.4 is installed: `pip install"):
        bridge._check_version()


def test_a_missing_package_is_named(monkeypatch):
    def version(name):
        raise bridge.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(bridge.importlib.metadata, "version", version)
    with pytest.raises(ImportError, match=r"need neural-tangents 0\.6\.5: `pip install --no-deps"):
        bridge._check_version()


def _flow(kernel, y):
    """Gradient flow at t = 1 and at infinity: asked for in an inner jit, then outside of it, from one predict_fn."""
    predict_fn = bridge.load().predict.gradient_descent_mse(kernel, y, diag_reg=1e-3)
    inner = jax.jit(lambda t: predict_fn(t, 0.0, 0.0, kernel)[1])(1.0)
    return inner, predict_fn(1.0, 0.0, 0.0, kernel)[1], predict_fn(None, 0.0, 0.0, kernel)[1]


def test_predict_takes_traced_kernels(key):
    key_x, key_y = jr.split(key)
    kernels = jax.vmap(ArcCosineNTK())(jr.normal(key_x, (2, 6, 4)))
    ys = jr.normal(key_y, (2, 6, 1))
    mapped = jax.jit(jax.vmap(_flow))(kernels, ys)
    for i in range(2):
        # Independent route: the eigendecomposition by NumPy. nt's loss is half the mean square, hence t / n.
        k, y = np.asarray(kernels[i]), np.asarray(ys[i])
        regularised = k + 1e-3 * np.trace(k) / 6 * np.eye(6)
        s, u = np.linalg.eigh(regularised)
        flow = k @ (u * ((1 - np.exp(-s / 6)) / s)) @ u.T @ y
        eager = _flow(kernels[i], ys[i])
        for j, truth in enumerate((flow, flow, k @ np.linalg.solve(regularised, y))):
            np.testing.assert_allclose(mapped[j][i], truth, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(eager[j], truth, rtol=1e-9, atol=1e-12)


def test_predict_still_caches_concrete_kernels():
    calls = []
    fn = bridge._lru_cache(1)(lambda: calls.append(0))
    fn()
    fn()
    assert len(calls) == 1

    def traced(x):
        uncached = bridge._lru_cache(1)(lambda: calls.append(x))
        uncached()
        uncached()
        return x

    jax.jit(traced)(jnp.ones(()))
    assert len(calls) == 3
