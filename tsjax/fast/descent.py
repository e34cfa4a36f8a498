"""Many steps of gradient descent of one two-layer ReLU network, by the fastest code that the device has: a kernel in C on CPUs
(`native`), a kernel in Pallas on GPUs (`fused`), and XLA's own operations elsewhere. All do the same steps with the same noise,
and differ by rounding only."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ..network import TwoLayer
from ..optim import counter_normals
from . import fused, native
from .loss import Extent, half_mse_by_xla


def fits(net: TwoLayer, x_t: Array, y: Array) -> bool:
    """Whether one of the kernels can train this student on the devices that it is for."""
    return native.fits(net, x_t, y) or fused.fits(net, x_t, y)


def descend(
    a: Float[Array, " m"],
    w: Float[Array, "m d"],
    x_t: Float[Array, "d n"],
    y: Float[Array, " n"],
    extent: Extent,
    *,
    start: Int[Array, ""],
    stop: Int[Array, ""],
    step_size: float | Float[Array, ""],
    noise: float | Float[Array, ""],
    penalty: float | Float[Array, ""],
    seed: UInt32[Array, "2"],
    output_weights: bool = True,
) -> tuple[Float[Array, " m"], Float[Array, "m d"], Float[Array, ""]]:
    """Steps `start` to `stop` of theta <- theta - eta grad(L + lambda |theta|^2) + noise xi, where L is the half mean squared
    error on samples scaled by `tsjax.fast.loss.scaled_samples`, with their `extent`.

    **Arguments:**

    - `seed`: with the number of the step, it determines xi as `tsjax.optim.add_langevin_noise` of the trained parameters does.
    - `output_weights`: whether a is trained too; False trains w alone.

    **Returns:** a, w, and L + lambda |theta|^2 before the last step (0 if there was no step).

    Use `jax.vmap` for batches, whose members may have different numbers of steps. Derivatives are those of XLA's steps, in
    forward mode.
    """
    settings = {"step_size": step_size, "noise": noise, "penalty": penalty}
    settings = {name: jnp.asarray(value).astype(w.dtype) for name, value in settings.items()}
    return _descend(output_weights, a, w, x_t, y, extent, {**settings, "start": start, "stop": stop, "seed": seed})


def descend_by_xla(a, w, x_t, y, extent: Extent, *, start, stop, step_size, noise, penalty, seed, output_weights=True):
    """`descend` by JAX's own operations, for any floating-point type."""
    frozen = 0 if output_weights else a.size

    def objective(theta):
        squares = sum(jnp.sum(leaf * leaf) for leaf in theta)
        return half_mse_by_xla(TwoLayer(*theta), x_t, y, extent) + penalty * squares

    def step(i, carry):
        theta, _ = carry
        loss, (of_a, of_w) = jax.value_and_grad(objective)(theta)
        xi = counter_normals(seed, i, a.size + w.size - frozen, w.dtype)
        move = lambda p, g, xi: p - step_size * g + noise * xi.reshape(p.shape)
        moved = move(theta[1], of_w, xi[a.size - frozen :])
        return (move(theta[0], of_a, xi[: a.size]) if output_weights else theta[0], moved), loss

    theta, loss = jax.lax.fori_loop(start, stop, step, ((a, w), jnp.zeros((), w.dtype)))
    return *theta, loss


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _descend(output_weights: bool, *operands):
    a, w, x_t, y, *_ = operands
    on_gpus = fused.fits(TwoLayer(a, w), x_t, y)
    if on_gpus and fused.mode() == "interpret":
        return _by(fused.descend, output_weights)(*operands)
    kernels = {}
    if native.fits(TwoLayer(a, w), x_t, y):
        if native.only_cpus():
            return _by(native.descend, output_weights)(*operands)
        kernels["cpu"] = _by(native.descend, output_weights)
    if on_gpus:
        kernels["cuda"] = _by(fused.descend, output_weights)
    return jax.lax.platform_dependent(*operands, **kernels, default=_by(descend_by_xla, output_weights))


def _by(fn, output_weights: bool):
    return lambda a, w, x_t, y, extent, settings: fn(a, w, x_t, y, extent, **settings, output_weights=output_weights)


@_descend.defjvp
def _(output_weights: bool, primals, tangents):
    # The kernels have no derivative rule.
    return jax.jvp(_by(descend_by_xla, output_weights), primals, tangents)
