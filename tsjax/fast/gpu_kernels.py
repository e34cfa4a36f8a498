"""The kernels of `tsjax.fast.fused` in Pallas (Triton): all steps of one student, with its neurons at once or in groups."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..activations import AbstractActivation, Erf, LeakyReLU
from ..optim import normals_at

# Coefficients in z^2 of the quotient of polynomials by which XLA computes erf(z) / z for |z| <= 3.8325, in float32.
_ERF_LARGEST = 3.832506856900711
_ERF_OVER = (
    0.00022905065861350646,
    0.0034082910107109506,
    0.050955695062380861,
    0.18520832239976145,
    1.128379143519084,
)
_ERF_UNDER = (
    -1.1791602954361697e-7, 0.000023547966471313185, 0.0010179625278914885, 0.014070470171167667, 0.11098505178285362,
    0.49746925110067538, 1.0,
)  # fmt: skip


def _erf(z: Array) -> Array:
    """erf(z) up to rounding. Triton has no lowering of JAX's own."""
    # Unlike a maximum in Triton, comparisons keep NaN.
    z = jnp.where(z > _ERF_LARGEST, _ERF_LARGEST, jnp.where(z < -_ERF_LARGEST, -_ERF_LARGEST, z))
    square, over, under = z * z, _ERF_OVER[0], _ERF_UNDER[0]
    for coefficient in _ERF_OVER[1:]:
        over = over * square + coefficient
    for coefficient in _ERF_UNDER[1:]:
        under = under * square + coefficient
    return z * over / under


def evaluate(activation: AbstractActivation, z: Array) -> tuple[Array, Callable[[Array], Array]]:
    """phi(z) and the function r -> r phi'(z), in operations that Triton can lower. As in XLA, phi' of relu and leaky relu is 0
    at 0. If z is NaN, phi(z) is NaN, so that it spreads to the parameters: the maximum of Triton, and with it jax.nn.relu,
    would drop it."""
    if isinstance(activation, LeakyReLU):
        active, slope = jnp.logical_not(z <= 0), activation.slope
        if not slope:
            return jnp.where(active, z, 0.0), lambda r: jnp.where(active, r, 0.0)
        inactive = z < 0
        return (
            jnp.where(active, z, slope * z),
            lambda r: jnp.where(active, r, jnp.where(inactive, slope * r, 0.0)),
        )
    if isinstance(activation, Erf):
        return _erf(z), lambda r: r * (2 / np.pi**0.5 * jnp.exp(-z * z))
    value, slope = jax.jvp(activation, (z,), (jnp.ones_like(z),))
    return jnp.where(z == z, value, z), lambda r: r * slope


def _neurons(activation, w, xs):
    """phi(z_j) and r -> r phi'(z_j) for z_j = <w_j, x>, one neuron after another, at a tile of samples xs."""
    for row in w:
        z = row[0] * xs[0]
        for weight, coordinate in zip(row[1:], xs[1:], strict=True):
            z += weight * coordinate
        yield evaluate(activation, z)


def _add(sums, residual, weight, neurons, xs):
    """Adds a tile of samples to the sums of w_i r_i^2, w_i r_i phi(z_ij) and w_i r_i phi'(z_ij) x_ik, where w_i = 1 if `weight`
    is None."""
    squares, sums_a, sums_w = sums
    pull = residual if weight is None else weight * residual
    squares += pull * residual
    sums_a = tuple(s + pull * output for s, (output, _) in zip(sums_a, neurons, strict=True))
    sides = [back(pull) for _, back in neurons]
    terms = [(side, coordinate) for side in sides for coordinate in xs]
    return squares, sums_a, tuple(s + side * c for s, (side, c) in zip(sums_w, terms, strict=True))


def _gradient(a, sums_a, sums_w, place):
    """The sums over the threads, each put into the place of its parameter in a vector."""
    d = len(sums_w) // len(a)
    # The output weight is a common factor of all sums of a neuron, so it is multiplied last.
    parts = [*sums_a, *(a[j] * sums_w[j * d + k] for j in range(len(a)) for k in range(d))]
    gradient = jnp.zeros(place.shape, jnp.float32)
    for i, part in enumerate(parts):
        gradient = jnp.where(place == i, jnp.sum(part), gradient)
    return gradient


def _rates_at(rates, is_output, is_parameter):
    """The step size and the noise of each place of a vector."""
    return tuple(jnp.where(is_output, rates[i], jnp.where(is_parameter, rates[i + 1], 0.0)) for i in (0, 2))


def kernel_at_once(
    span, rates, seed, start, x, y, *others, activation, m, d, group, groups, tile, weighted, frozen, warps_meet
):
    """The kernel of `fused.descend` for one group. `span` is (first step, end, number of samples that count), and `rates` is
    (eta of a, eta of w, noise of a, noise of w, 2 lambda, divisor of sums over samples). `start` and `theta_out` hold a, w and
    zeros up to a power of 2. x (d, padded n), y and the weights (padded n,) are 0 after the samples that count, so that further
    terms are 0."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    del group, groups
    weight, theta_out, loss_out = others if weighted else (None, *others)
    place = jax.lax.iota(jnp.int32, theta_out.shape[0])
    step_size, noise = _rates_at(rates, place < m, place < m * (d + 1))
    key, zero = (seed[0], seed[1]), jnp.zeros((tile,), jnp.float32)

    def step(i, carry):
        theta, _, _ = carry
        a = [theta_out[j] for j in range(m)]
        w = [[theta_out[m + j * d + k] for k in range(d)] for j in range(m)]

        def add(t, sums):
            at = pl.ds(t * tile, tile)
            xs = [x[k, at] for k in range(d)]
            residual, neurons = -y[at], []
            for output_weight, neuron in zip(a, _neurons(activation, w, xs), strict=True):
                residual += output_weight * neuron[0]
                neurons.append(neuron)
            return _add(sums, residual, None if weight is None else weight[at], neurons, xs)

        nothing = (zero, (zero,) * m, (zero,) * (m * d))
        squares, sums_a, sums_w = jax.lax.fori_loop(0, (span[2] + tile - 1) // tile, add, nothing)
        gradient = _gradient(a, sums_a, sums_w, place) / rates[5]
        new = theta - step_size * (gradient + rates[4] * theta)
        new += noise * normals_at(key, i, place - frozen, m * (d + 1) - frozen)
        if warps_meet:
            triton.debug_barrier()
        theta_out[...] = new
        if warps_meet:
            triton.debug_barrier()
        return new, theta, jnp.sum(squares) / (2 * rates[5])

    theta = start[...]
    theta_out[...] = theta
    if warps_meet:
        triton.debug_barrier()
    nothing = (theta, jnp.zeros_like(theta), jnp.float32(0))
    _, before, loss = jax.lax.fori_loop(span[0], span[1], step, nothing)
    loss_out[0] = loss + 0.5 * rates[4] * jnp.sum(before * before)


def kernel_in_groups(
    span, rates, seed, start, x, y, *others, activation, m, d, group, groups, tile, weighted, frozen, warps_meet
):
    """`kernel_at_once` for at least two groups of neurons. `start` and `theta_out` hold for each group its a, its w and zeros
    up to a power of 2; neurons after the m-th are 0 and stay so.

    A step first adds the terms of all groups but the last to the residuals, which are in memory, group by group. Then, from the
    last group to the first, it adds the sums of a group, and moves the group: the gradient of a group needs the residuals of
    all neurons before the step, but no other parameters than its own. The last group's terms of the residuals are added in
    this second round, so its products are computed once. Each pass holds one group in registers.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    weight, theta_out, loss_out, residuals = others if weighted else (None, *others)
    width = theta_out.shape[0] // groups
    place = jax.lax.iota(jnp.int32, width)
    key, zero = (seed[0], seed[1]), jnp.zeros((tile,), jnp.float32)
    tiles = (span[2] + tile - 1) // tile
    # Loops with these bounds have indices of 32 bits, also where JAX's integers have 64.
    none, last = np.int32(0), np.int32(groups - 1)

    def meet():
        if warps_meet:
            triton.debug_barrier()

    def parameters(g):
        first = g * width
        a = [theta_out[first + j] for j in range(group)]
        return a, [[theta_out[first + group + j * d + k] for k in range(d)] for j in range(group)]

    def forward(g, carry):
        a, w = parameters(g)

        def add(t, carry):
            at = pl.ds(t * tile, tile)
            # The memory of the residuals is not initialised.
            residual, xs = jnp.where(g == 0, -y[at], residuals[at]), [x[k, at] for k in range(d)]
            for output_weight, (output, _) in zip(a, _neurons(activation, w, xs), strict=True):
                residual += output_weight * output
            residuals[at] = residual
            return carry

        carry = jax.lax.fori_loop(0, tiles, add, carry)
        meet()
        return carry

    def backward(i, g, norms):
        a, w = parameters(g)

        def add(t, sums):
            at = pl.ds(t * tile, tile)
            xs, neurons, own = [x[k, at] for k in range(d)], [], zero
            for output_weight, neuron in zip(a, _neurons(activation, w, xs), strict=True):
                own += output_weight * neuron[0]
                neurons.append(neuron)
            residual = residuals[at] + jnp.where(g == last, own, 0.0)
            residuals[at] = residual
            return _add(sums, residual, None if weight is None else weight[at], neurons, xs)

        nothing = (zero, (zero,) * group, (zero,) * (group * d))
        squares, sums_a, sums_w = jax.lax.fori_loop(0, tiles, add, nothing)
        # Where the parameters of this group are in (a, w), the order in which the noise is drawn.
        neuron, entry = g * group + place, g * group * d + place - group
        is_output = (place < group) & (neuron < m)
        is_weight = (place >= group) & (place < group * (d + 1)) & (entry < m * d)
        step_size, noise = _rates_at(rates, is_output, is_weight)
        row = pl.ds(g * width, width)
        theta = theta_out[row]
        gradient = _gradient(a, sums_a, sums_w, place) / rates[5]
        new = theta - step_size * (gradient + rates[4] * theta)
        at = jnp.where(place < group, neuron, m + entry) - frozen
        new += noise * normals_at(key, i, at, m * (d + 1) - frozen)
        meet()
        theta_out[row] = new
        meet()
        # All groups have the same sum of squares of the residuals.
        return squares, norms + theta * theta

    def step(i, carry):
        jax.lax.fori_loop(none, last, forward, none)
        nothing = (zero, jnp.zeros((width,), jnp.float32))
        return jax.lax.fori_loop(none, last + 1, lambda p, carry: backward(i, last - p, carry[1]), nothing)

    def copy(g, carry):
        row = pl.ds(g * width, width)
        theta_out[row] = start[row]
        return carry

    jax.lax.fori_loop(none, last + 1, copy, none)
    meet()
    nothing = (zero, jnp.zeros((width,), jnp.float32))
    squares, norms = jax.lax.fori_loop(span[0], span[1], step, nothing)
    loss_out[0] = jnp.sum(squares) / (2 * rates[5]) + 0.5 * rates[4] * jnp.sum(norms)
