"""Steps of gradient descent of two-layer networks: samples and settings as the kernels take them, and the steps by XLA's own
operations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ..activations import AbstractActivation, relu
from ..network import TwoLayer
from ..optim import counter_normals


class Extent(NamedTuple):
    """Which samples count: the first `samples`, while all others are 0. Sums over samples are divided by `total`."""

    samples: Int[Array, ""]
    total: Float[Array, ""]


def scaled_samples(
    x_t: Float[Array, "d n"], y: Float[Array, " n"], weight: Float[Array, " n"] | None
) -> tuple[Float[Array, "d n"], Float[Array, " n"], Extent]:
    """Scales samples so that their unweighted loss is the weighted one, sum_i w_i (f(x_i) - y_i)^2 / (2 sum_i w_i).

    This works for a positively homogeneous f, such as a relu network without biases, since
    sqrt(w) (f(x) - y) = f(sqrt(w) x) - sqrt(w) y. With weights of 0 and 1 the samples that count do not change by a bit.
    """
    n = y.shape[0]
    if weight is None:
        return x_t, y, Extent(jnp.asarray(n, jnp.int32), jnp.asarray(n, y.dtype))
    weight = weight.astype(y.dtype)
    root, there = jnp.sqrt(weight), weight > 0
    count = jnp.max(jnp.where(there, jnp.arange(1, n + 1), 0)).astype(jnp.int32)
    scaled = lambda values, root, there: jnp.where(there, root * values, 0.0)
    return (
        scaled(x_t, root[None, :], there[None, :]),
        scaled(y, root, there),
        Extent(count, jnp.sum(weight)),
    )


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


class Steps(NamedTuple):
    """Steps `start` to `stop` of theta <- theta - eta grad(L + lambda |theta|^2) + noise xi: eta is the `step_size` and lambda
    the `penalty`. With the number of the step, the `seed` determines xi as `tsjax.optim.add_langevin_noise` of the trained
    parameters does."""

    start: Int[Array, ""]
    stop: Int[Array, ""]
    step_size: Float[Array, ""]
    noise: Float[Array, ""]
    penalty: Float[Array, ""]
    seed: UInt32[Array, "2"]


def descend_by_xla(
    a: Float[Array, " m"],
    w: Float[Array, "m d"],
    samples: Samples,
    steps: Steps,
    *,
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
        return jnp.sum(weight * residual * residual) / (2 * extent.total) + steps.penalty * squares

    def step(i, carry):
        theta, _ = carry
        loss, (of_a, of_w) = jax.value_and_grad(objective)(theta)
        xi = counter_normals(steps.seed, i, a.size + w.size - frozen, w.dtype)
        move = lambda p, g, xi: p - steps.step_size * g + steps.noise * xi.reshape(p.shape)
        moved = move(theta[1], of_w, xi[a.size - frozen :])
        return (move(theta[0], of_a, xi[: a.size]) if output_weights else theta[0], moved), loss

    theta, loss = jax.lax.fori_loop(steps.start, steps.stop, step, ((a, w), jnp.zeros((), w.dtype)))
    return *theta, loss
