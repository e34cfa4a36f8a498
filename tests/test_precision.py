import jax
import jax.numpy as jnp
import pytest

from tsjax.precision import requires_float64


@requires_float64
def third(x, scale=1.0):
    """A third."""
    return jnp.asarray(x, jnp.float64) * scale / 3


def test_an_eager_call_is_float64_with_any_flag():
    assert third(1.0).dtype == jnp.float64
    with jax.enable_x64(False):
        single = jnp.float32(1.0)
        assert third(single).dtype == jnp.float64 and float(third(single)) == 1 / 3
        assert jnp.asarray(1.0).dtype == jnp.float32
    assert third.__name__ == "third" and third.__doc__ == "A third."


def test_traced_calls_need_the_flag():
    assert float(jax.jit(third)(1.0)) == 1 / 3
    assert float(jax.grad(third)(1.0)) == 1 / 3
    with jax.enable_x64(False):
        # In positional and keyword arguments, under every transformation.
        for call in (
            lambda: jax.jit(third)(1.0),
            lambda: jax.grad(third)(1.0),
            lambda: jax.vmap(third)(jnp.ones(2)),
            lambda: jax.jit(lambda s: third(1.0, scale=s))(1.0),
        ):
            with pytest.raises(RuntimeError, match=r"third needs float64, but it was called inside jit, vmap or grad"):
                call()
        with jax.enable_x64(True):
            assert float(jax.jit(third)(1.0)) == 1 / 3


def test_the_flag_comes_back_after_an_error():
    @requires_float64
    def fails(x):
        raise KeyError(x)

    with jax.enable_x64(False):
        with pytest.raises(KeyError):
            fails(1.0)
        assert jnp.asarray(1.0).dtype == jnp.float32
