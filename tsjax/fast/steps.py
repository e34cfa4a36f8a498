"""The steps of gradient descent of two-layer networks: the samples as kernels take them, and the steps by XLA's operations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ..activations import AbstractActivation, relu
from ..network import TwoLayer
from ..optim import counter_normals
from .loss import Extent, scaled_samples


class Samples(NamedTuple):
    """The samples as kernels take them: x_t (d, n) and y (n,), which are 0 where the weight is 0; their extent; and weights
    (n,) that are not yet in x_t and y (None if there are none)."""

    x_t: Float[Array, "d n"]
    y: Float[Array, " n"]
    extent: Extent
    weight: Float[Array, " n"] | None


def samples_for(
    activation: AbstractActivation, x_t: Float[Array, "d n"], y: Float[Array, " n"], weight: Float[Array, " n"] | None
) -> Samples:
    """The samples for a student with this activation, whose loss is sum_i w_i (f(x_i) - y_i)^2 / (2 sum_i w_i). If phi is
    homogeneous of degree 1, samples are scaled by sqrt(w_i) (`scaled_samples`). For other phi the kernels multiply by w_i."""
    x_scaled, y_scaled, extent = scaled_samples(x_t, y, weight)
    if weight is None or activation.degree == 1:
        return Samples(x_scaled, y_scaled, extent, None)
    there = weight > 0
    kept = jnp.where(there[None, :], x_t, 0.0), jnp.where(there, y, 0.0)
    return Samples(*kept, extent, jnp.where(there, weight, 0.0).astype(y.dtype))


def descend_by_xla(
    a: Float[Array, " m"],
    w: Float[Array, "m d"],
    samples: Samples,
    *,
    start: Int[Array, ""],
    stop: Int[Array, ""],
    step_size: Float[Array, ""],
    noise: Float[Array, ""],
    penalty: Float[Array, ""],
    seed: UInt32[Array, "2"],
    output_weights: bool = True,
    activation: AbstractActivation = relu,
) -> tuple[Float[Array, " m"], Float[Array, "m d"], Float[Array, ""]]:
    """`tsjax.fast.descent.descend` by JAX's own operations, in any floating-point type. It has derivatives in forward mode."""
    x_t, y, extent, weight = samples
    frozen = 0 if output_weights else a.size
    if weight is None:
        weight = (jnp.arange(y.shape[0]) < extent.samples).astype(y.dtype)

    def objective(theta):
        a, w = theta
        residual = TwoLayer(a, w, activation).samples_last(x_t) - y
        squares = jnp.sum(a * a) + jnp.sum(w * w)
        return jnp.sum(weight * residual * residual) / (2 * extent.total) + penalty * squares

    def step(i, carry):
        theta, _ = carry
        loss, (of_a, of_w) = jax.value_and_grad(objective)(theta)
        xi = counter_normals(seed, i, a.size + w.size - frozen, w.dtype)
        move = lambda p, g, xi: p - step_size * g + noise * xi.reshape(p.shape)
        moved = move(theta[1], of_w, xi[a.size - frozen :])
        return (move(theta[0], of_a, xi[: a.size]) if output_weights else theta[0], moved), loss

    theta, loss = jax.lax.fori_loop(start, stop, step, ((a, w), jnp.zeros((), w.dtype)))
    return *theta, loss
