"""Many steps of gradient descent of one two-layer network, by the fastest code that the device has: a kernel in C on CPUs
(`native`), kernels in Pallas on GPUs (`fused`), and XLA's own operations elsewhere (`steps`). All do the same steps with the
same noise, and differ by rounding only."""

import functools

import jax
from jaxtyping import Array, Float

from ..activations import AbstractActivation, relu
from ..network import TwoLayer
from . import fused, native
from .steps import Samples, Steps, descend_by_xla


def fits(net: TwoLayer, x_t: Array, y: Array) -> bool:
    """Whether one of the kernels can train this student on the devices that it is for."""
    return native.fits(net, x_t, y) or fused.fits(net, x_t, y)


def descend(
    a: Float[Array, " m"],
    w: Float[Array, "m d"],
    samples: Samples,
    steps: Steps,
    *,
    output_weights: bool = True,
    activation: AbstractActivation = relu,
) -> tuple[Float[Array, " m"], Float[Array, "m d"], Float[Array, ""]]:
    """These `steps`, where L is the half mean squared error of f(x) = sum_j a_j phi(<w_j, x>) on `samples`, which
    `tsjax.fast.steps.samples_for` makes for phi, the `activation`. With `output_weights=False`, w alone is trained.

    **Returns:** a, w, and L + lambda (|a|^2 + |w|^2) before the last step (0 if there was no step).

    Use `jax.vmap` for batches, whose members may have different numbers of steps. Derivatives are those of XLA's steps, in
    forward mode.
    """
    return _descend(output_weights, activation, a, w, samples, steps)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _descend(output_weights: bool, activation: AbstractActivation, *operands):
    (a, w, samples, _), by = operands, functools.partial(_by, output_weights, activation)
    net = TwoLayer(a, w, activation)
    on_gpus = fused.fits(net, samples.x_t, samples.y)
    if on_gpus and fused.mode() == "interpret":
        return by(fused.descend)(*operands)
    kernels = {}
    if native.fits(net, samples.x_t, samples.y):
        if native.only_cpus():
            return by(native.descend)(*operands)
        kernels["cpu"] = by(native.descend)
    if on_gpus:
        kernels["cuda"] = by(fused.descend)
    return jax.lax.platform_dependent(*operands, **kernels, default=by(descend_by_xla))


def _by(output_weights: bool, activation: AbstractActivation, fn):
    return functools.partial(fn, output_weights=output_weights, activation=activation)


@_descend.defjvp
def _(output_weights: bool, activation: AbstractActivation, primals, tangents):
    # The kernels have no derivative rule.
    return jax.jvp(_by(output_weights, activation, descend_by_xla), primals, tangents)
