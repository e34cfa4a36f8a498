"""The loss of training, L = (1/2n) sum_i (f(x_i) - y_i)^2, and how its gradient is computed.

Every phase differentiates `half_mse` alone. For relu on a CPU, value and gradient come from one call of a kernel in C
(`tsjax.fast.native`) where there is one; else, and on other devices, from XLA. Both sum the same terms in different orders.
"""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from ..activations import relu
from ..network import TwoLayer
from . import native


def half_mse(net: TwoLayer, x_t: Float[Array, "d n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    """L = (1/2n) sum_i (f(x_i) - y_i)^2. Differentiable as any JAX function, to any order."""
    dtypes = {leaf.dtype for leaf in (net.a, net.w, x_t, y)}
    if net.activation == relu and dtypes in ({jnp.dtype("float32")}, {jnp.dtype("float64")}) and native.load()[0]:
        return _relu_half_mse(net.a, net.w, x_t, y)
    return half_mse_by_xla(net, x_t, y)


def half_mse_by_xla(net: TwoLayer, x_t: Float[Array, "d n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    """`half_mse` in JAX's own operations."""
    residual = net.samples_last(x_t) - y
    return 0.5 * jnp.mean(residual * residual)


def _reference(a, w, x_t, y):
    return half_mse_by_xla(TwoLayer(a, w), x_t, y)


@jax.custom_jvp
def _relu_half_mse(a, w, x_t, y):
    return _reference(a, w, x_t, y)


def _differential(primals, tangents):
    da, dw, *data = tangents
    if not all(isinstance(tangent, SymbolicZero) for tangent in data):
        pairs = zip(primals, tangents, strict=True)
        dense = [jnp.zeros_like(p) if isinstance(t, SymbolicZero) else t for p, t in pairs]
        return jax.jvp(_reference, primals, tuple(dense))
    loss, *gradient = _value_and_gradient(*primals)
    parts = [jnp.sum(g * t) for g, t in zip(gradient, (da, dw), strict=True) if not isinstance(t, SymbolicZero)]
    return loss, sum(parts, jnp.zeros_like(loss))


_relu_half_mse.defjvp(_differential, symbolic_zeros=True)


def _value_and_gradient_by_xla(a, w, x_t, y):
    loss, gradient = jax.value_and_grad(_reference, argnums=(0, 1))(a, w, x_t, y)
    return loss, *gradient


# The kernel has no derivative of its own; a second one is XLA's.
@jax.custom_jvp
def _value_and_gradient(a, w, x_t, y):
    return jax.lax.platform_dependent(
        a, w, x_t, y, cpu=native.half_mse_and_gradient, default=_value_and_gradient_by_xla
    )


@_value_and_gradient.defjvp
def _(primals, tangents):
    return jax.jvp(_value_and_gradient_by_xla, primals, tangents)
