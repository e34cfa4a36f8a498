"""The training loss L = (1/2n) sum_i (f(x_i) - y_i)^2, and how its gradient is computed.

Every training phase differentiates `half_mse`. For relu on a CPU, one call of a kernel in C (`tsjax.fast.native`) computes the
value and the gradient, if that kernel could be built. Otherwise XLA computes them. Both sum the same terms, in different
orders.
"""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from ..activations import relu
from ..network import TwoLayer
from . import native
from .steps import Extent, scaled_samples


def half_mse(
    net: TwoLayer, x_t: Float[Array, "d n"], y: Float[Array, " n"], extent: Extent | None = None
) -> Float[Array, ""]:
    """L = (1/2n) sum_i (f(x_i) - y_i)^2, differentiable to any order. With an `extent`, its total takes the place of n, and the
    C kernel does not read samples after the last that counts."""
    dtypes = {leaf.dtype for leaf in (net.a, net.w, x_t, y)}
    names = [dtype.name for dtype in dtypes]
    if net.activation == relu and len(names) == 1 and names[0] in native.TYPES and native.load(names[0])[0]:
        _, _, whole = scaled_samples(x_t, y, None)
        return _relu_half_mse(net.a, net.w, x_t, y, *(whole if extent is None else extent))
    return half_mse_by_xla(net, x_t, y, extent)


def half_mse_by_xla(
    net: TwoLayer, x_t: Float[Array, "d n"], y: Float[Array, " n"], extent: Extent | None = None
) -> Float[Array, ""]:
    """`half_mse` by JAX's own operations."""
    residual = net.samples_last(x_t) - y
    squares = residual * residual
    return 0.5 * (jnp.mean(squares) if extent is None else jnp.sum(squares) / extent.total)


def _reference(a, w, x_t, y, count, total):
    return half_mse_by_xla(TwoLayer(a, w), x_t, y, Extent(count, total))


@jax.custom_jvp
def _relu_half_mse(a, w, x_t, y, count, total):
    return _reference(a, w, x_t, y, count, total)


def _differential(primals, tangents):
    da, dw, *data = tangents
    if not all(isinstance(tangent, SymbolicZero) for tangent in data):
        *_, count, _ = primals
        given = [(p, t) for p, t in zip(primals, tangents, strict=True) if p is not count]
        dense = [jnp.zeros_like(p) if isinstance(t, SymbolicZero) else t for p, t in given]
        reference = lambda a, w, x_t, y, total: _reference(a, w, x_t, y, count, total)
        return jax.jvp(reference, tuple(p for p, _ in given), tuple(dense))
    loss, *gradient = _value_and_gradient(*primals)
    parts = [jnp.sum(g * t) for g, t in zip(gradient, (da, dw), strict=True) if not isinstance(t, SymbolicZero)]
    return loss, sum(parts, jnp.zeros_like(loss))


_relu_half_mse.defjvp(_differential, symbolic_zeros=True)


def _value_and_gradient_by_xla(a, w, x_t, y, count, total):
    loss, gradient = jax.value_and_grad(_reference, argnums=(0, 1))(a, w, x_t, y, count, total)
    return loss, *gradient


# The kernel has no derivative rule; second derivatives are computed by XLA.
@jax.custom_jvp
def _value_and_gradient(a, w, x_t, y, count, total):
    if native.only_cpus():
        return native.half_mse_and_gradient(a, w, x_t, y, count, total)
    return jax.lax.platform_dependent(
        a, w, x_t, y, count, total, cpu=native.half_mse_and_gradient, default=_value_and_gradient_by_xla
    )


@_value_and_gradient.defjvp
def _(primals, tangents):
    return jax.jvp(_value_and_gradient_by_xla, primals, tangents)
