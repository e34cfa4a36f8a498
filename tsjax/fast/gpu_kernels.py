"""The kernels of `tsjax.fast.fused` in Pallas (Triton): all steps of one student, with its neurons at once or in groups."""

from collections.abc import Callable
from typing import Any, NamedTuple

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


def _in_each_thread(ptx: str, dtype: type, *args: Array) -> Array:
    """One instruction of PTX, for one element of each argument in each thread."""
    from jax.experimental.pallas import triton

    letter = {jnp.dtype("float32"): "f", jnp.dtype("int32"): "r"}
    constraints = ",".join(["=" + letter[jnp.dtype(dtype)], *(letter[value.dtype] for value in args)])
    out = jax.ShapeDtypeStruct(args[0].shape, dtype)
    return triton.elementwise_inline_asm(ptx, args=args, constraints=constraints, pack=1, result_shape_dtypes=[out])[0]


class Threads(NamedTuple):
    """What the kernels do below the level of Triton: single instructions of PTX, for vectors with one element in each of the
    32 W threads of a student. If the kernels are interpreted and not `compiled`, thread i has element i."""

    warps: int
    compiled: bool

    def multiply_add(self, a: Array, b: Array, c: Array) -> Array:
        """a b + c in one instruction. XLA tells Triton not to fuse the two, and they are most of what the kernels do."""
        if not self.compiled:
            return a * b + c
        shape = jnp.broadcast_shapes(a.shape, b.shape, c.shape)
        return _in_each_thread(
            "fma.rn.f32 $0, $1, $2, $3;", jnp.float32, *(jnp.broadcast_to(v, shape) for v in (a, b, c))
        )

    def meet(self) -> None:
        """Every thread waits for all others, and sees what they have written."""
        from jax.experimental.pallas import triton

        if self.compiled:
            triton.debug_barrier()

    def number(self) -> Array:
        """The number of each thread, (32 W,)."""
        number = jax.lax.iota(jnp.int32, 32 * self.warps)
        return _in_each_thread("mov.u32 $0, %tid.x;", jnp.int32, number) if self.compiled else number

    def exchange(self, v: Array, distance: int) -> Array:
        """The element of the thread of the same warp whose lane differs by `distance`, a power of 2."""
        if not self.compiled:
            return v.reshape(-1, 2, distance)[:, ::-1].reshape(-1)
        return _in_each_thread(f"shfl.sync.bfly.b32 $0, $1, {distance}, 0x1f, 0xffffffff;", jnp.float32, v)

    def sums(self, parts: list[Array], scratch: Any) -> Array:
        """The sum over all threads of each part (32 W,), followed by zeros. `scratch` has a row for each warp; its columns
        after the parts must be 0.

        In each warp, two threads whose lanes differ by 16 share out 32 parts: one keeps the first half of them and gets the
        other's, the other the second half. Distances 8, 4, 2 and 1 follow. Then lane l has the sum of part l over its warp.
        This takes 31 exchanges for 32 parts, where one sum after another takes 160, and the warps wait for each other once.
        """
        from jax.experimental import pallas as pl

        number = self.number()
        lane, width = number & 31, scratch.shape[0] // self.warps
        for block in range(-(-len(parts) // 32)):
            row: list[Array | None] = [*parts[32 * block : 32 * (block + 1)]]
            row += [None] * (32 - len(row))
            for distance in (16, 8, 4, 2, 1):
                upper = (lane & distance) != 0
                row = [self._share(upper, *pair, distance) for pair in zip(row[:distance], row[distance:], strict=True)]
            scratch[(number >> 5) * width + 32 * block + lane] = row[0]
        self.meet()
        total = scratch[pl.ds(0, width)]
        for warp in range(1, self.warps):
            total += scratch[pl.ds(warp * width, width)]
        return total

    def _share(self, upper: Array, first: Array | None, second: Array | None, distance: int) -> Array | None:
        """The first part in lower lanes and the second in upper ones, each added to the other thread's. None stands for 0."""
        if first is None:
            return None
        second = jnp.zeros_like(first) if second is None else second
        kept, given = jnp.where(upper, second, first), jnp.where(upper, first, second)
        return kept + self.exchange(given, distance)


def _neurons(threads, activation, w, xs):
    """phi(z_j) and r -> r phi'(z_j) for z_j = <w_j, x>, one neuron after another, at a tile of samples xs."""
    for row in w:
        z = row[0] * xs[0]
        for weight, coordinate in zip(row[1:], xs[1:], strict=True):
            z = threads.multiply_add(weight, coordinate, z)
        yield evaluate(activation, z)


def _add(threads, sums, residual, weight, neurons, xs):
    """Adds a tile of samples to the sums of w_i r_i^2, w_i r_i phi(z_ij) and w_i r_i phi'(z_ij) x_ik, where w_i = 1 if `weight`
    is None."""
    squares, sums_a, sums_w = sums
    pull = residual if weight is None else weight * residual
    sides = [back(pull) for _, back in neurons]
    terms = [(side, coordinate) for side in sides for coordinate in xs]
    return (
        threads.multiply_add(pull, residual, squares),
        tuple(threads.multiply_add(pull, output, s) for s, (output, _) in zip(sums_a, neurons, strict=True)),
        tuple(threads.multiply_add(*term, s) for s, term in zip(sums_w, terms, strict=True)),
    )


def _rates_at(rates, is_output, is_parameter):
    """The step size and the noise of each place of a vector."""
    return tuple(jnp.where(is_output, rates[i], jnp.where(is_parameter, rates[i + 1], 0.0)) for i in (0, 2))


def kernel_at_once(span, rates, seed, start, x, y, *others, activation, m, d, group, groups, threads, weighted, frozen):
    """The kernel of `fused.descend` for one group. `span` is (first step, end, number of samples that count), and `rates` is
    (eta of a, eta of w, noise of a, noise of w, 2 lambda, divisor of sums over samples). `start` and `theta_out` hold a, w and
    zeros up to a power of 2. x (d, padded n), y and the weights (padded n,) are 0 after the samples that count, so that further
    terms are 0."""
    from jax.experimental import pallas as pl

    del group, groups
    tile = 32 * threads.warps
    weight, theta_out, loss_out, scratch = others if weighted else (None, *others)
    place = jax.lax.iota(jnp.int32, theta_out.shape[0])
    step_size, noise = _rates_at(rates, place < m, place < m * (d + 1))
    key, zero, scale = (seed[0], seed[1]), jnp.zeros((tile,), jnp.float32), 1.0 / rates[5]
    owner = jnp.clip((place - m) // d, 0, m - 1)

    def step(i, carry):
        theta = theta_out[...]
        a = [theta_out[j] for j in range(m)]
        w = [[theta_out[m + j * d + k] for k in range(d)] for j in range(m)]

        def add(t, sums):
            at = pl.ds(t * tile, tile)
            xs = [x[k, at] for k in range(d)]
            residual, neurons = -y[at], []
            for output_weight, neuron in zip(a, _neurons(threads, activation, w, xs), strict=True):
                residual = threads.multiply_add(output_weight, neuron[0], residual)
                neurons.append(neuron)
            return _add(threads, sums, residual, None if weight is None else weight[at], neurons, xs)

        nothing = (zero, (zero,) * m, (zero,) * (m * d))
        squares, sums_a, sums_w = jax.lax.fori_loop(0, (span[2] + tile - 1) // tile, add, nothing)
        # The output weight is a common factor of all sums of a neuron, so it is multiplied last.
        outer = jnp.where(place < m, 1.0, theta_out[owner])
        gradient = outer * scale * threads.sums([*sums_a, *sums_w], scratch)
        new = theta - step_size * (gradient + rates[4] * theta)
        new += noise * normals_at(key, i, place - frozen, m * (d + 1) - frozen)
        theta_out[...] = new
        threads.meet()
        return squares, theta * theta

    theta = start[...]
    theta_out[...] = theta
    scratch[...] = jnp.zeros(scratch.shape, jnp.float32)
    threads.meet()
    squares, norms = jax.lax.fori_loop(span[0], span[1], step, (zero, jnp.zeros_like(theta)))
    loss_out[0] = 0.5 * (scale * jnp.sum(squares) + rates[4] * jnp.sum(norms))


def kernel_in_groups(
    span, rates, seed, start, x, y, *others, activation, m, d, group, groups, threads, weighted, frozen
):
    """`kernel_at_once` for at least two groups of neurons. `start` and `theta_out` hold for each group its a, its w and zeros
    up to a power of 2; neurons after the m-th are 0 and stay so.

    A step first adds the terms of all groups but the last to the residuals, which are in memory, group by group. Then, from the
    last group to the first, it adds the sums of a group, and moves the group: the gradient of a group needs the residuals of
    all neurons before the step, but no other parameters than its own. The last group's terms of the residuals are added in
    this second round, so its products are computed once. Each pass holds one group in registers.
    """
    from jax.experimental import pallas as pl

    tile = 32 * threads.warps
    weight, theta_out, loss_out, scratch, residuals = others if weighted else (None, *others)
    width = theta_out.shape[0] // groups
    place = jax.lax.iota(jnp.int32, width)
    key, zero, scale = (seed[0], seed[1]), jnp.zeros((tile,), jnp.float32), 1.0 / rates[5]
    owner = jnp.clip((place - group) // d, 0, group - 1)
    tiles = (span[2] + tile - 1) // tile
    # Loops with these bounds have indices of 32 bits, also where JAX's integers have 64.
    none, last = np.int32(0), np.int32(groups - 1)

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
            for output_weight, (output, _) in zip(a, _neurons(threads, activation, w, xs), strict=True):
                residual = threads.multiply_add(output_weight, output, residual)
            residuals[at] = residual
            return carry

        carry = jax.lax.fori_loop(0, tiles, add, carry)
        threads.meet()
        return carry

    def backward(i, g, norms):
        a, w = parameters(g)

        def add(t, sums):
            at = pl.ds(t * tile, tile)
            xs, neurons, own = [x[k, at] for k in range(d)], [], zero
            for output_weight, neuron in zip(a, _neurons(threads, activation, w, xs), strict=True):
                own = threads.multiply_add(output_weight, neuron[0], own)
                neurons.append(neuron)
            residual = residuals[at] + jnp.where(g == last, own, 0.0)
            residuals[at] = residual
            return _add(threads, sums, residual, None if weight is None else weight[at], neurons, xs)

        nothing = (zero, (zero,) * group, (zero,) * (group * d))
        squares, sums_a, sums_w = jax.lax.fori_loop(0, tiles, add, nothing)
        # Where the parameters of this group are in (a, w), the order in which the noise is drawn.
        neuron, entry = g * group + place, g * group * d + place - group
        is_output = (place < group) & (neuron < m)
        is_weight = (place >= group) & (place < group * (d + 1)) & (entry < m * d)
        step_size, noise = _rates_at(rates, is_output, is_weight)
        row = pl.ds(g * width, width)
        theta = theta_out[row]
        outer = jnp.where(place < group, 1.0, theta_out[g * width + owner])
        gradient = outer * scale * threads.sums([*sums_a, *sums_w], scratch)
        new = theta - step_size * (gradient + rates[4] * theta)
        at = jnp.where(place < group, neuron, m + entry) - frozen
        new += noise * normals_at(key, i, at, m * (d + 1) - frozen)
        theta_out[row] = new
        threads.meet()
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
    scratch[...] = jnp.zeros(scratch.shape, jnp.float32)
    threads.meet()
    nothing = (zero, jnp.zeros((width,), jnp.float32))
    squares, norms = jax.lax.fori_loop(span[0], span[1], step, nothing)
    loss_out[0] = 0.5 * (scale * jnp.sum(squares) + rates[4] * jnp.sum(norms))
