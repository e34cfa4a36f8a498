r"""The two phases of Algorithm 1 of Akiyama & Suzuki (arXiv:2205.14818), for one student on one data set.

With L = (1/2n) sum_i (y_i - f(x_i))^2: noisy gradient descent on both layers, theta <- theta - eta grad(L + lambda
|theta|^2) + sqrt(2 eta T) xi, and vanilla gradient descent on the neurons alone. Both write the samples on the last axis.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..activations import AbstractActivation, relu
from ..network import TwoLayer, absorb_output_weights
from ..optim import add_langevin_noise, as_leaf, noise_seed
from ..task import Dataset
from . import fused
from .base import Status, check_at_least
from .loss import half_mse

Probe = Callable[[TwoLayer], dict[str, Array]]

# Phase II looks at its stopping rule once in so many steps, and stops when the loss fell over them by less than this
# share of the statistical error of an efficient student. The loss rather than its gradient: minima of ReLU networks often
# lie in a kink of the empirical loss, where the gradient does not vanish.
SEGMENT = 50
FLATNESS = 1e-3
# A loss this many times that of predicting 0, plus that of a unit neuron, will not come back.
EXPLODED = 1e4


class NoisyPhase(eqx.Module):
    r"""Phase I. Fields left at None follow the formulas, in which m is the width the student shall end with (half of the
    width of this phase where the data choose it), d the dimension and s^2 = mean x_i^2 (1/d on the sphere;
    for activations other than relu see `input_scale`).

    - `width`: neurons while exploring, 2 m. The spare ones make the difference between success by luck and success: they
      find the teacher's neurons that a student of its width misses, and are pruned at the switch. A single run recovers
      the teacher in 99 % of the data sets where same-width runs do so in 77 % ((d, m) = (8, 8), n = 16 md) or 55 %
      (neurons at cosine 0.8). `width=m` gives the paper's algorithm.
    - `samples`: 64 m d of the n samples, drawn at random once for all restarts; all of them where there are no more. The
      basin is found without the rest; pruning and phase II see all.
    - `steps`: 300 m with spare neurons, after which every restart is at the same optimum; where saddles are slow, half
      of it leaves restarts that agree on a worse one. Without, 1500 + 500 m: most of what looks like failure is that.
    - `step_size`: eta = 2 / ((m+1) s^2); the largest curvature of L at an orthonormal teacher is about (m+1) s^2 / 4,
      however many neurons share its path norm. Where inputs are correlated, see `step_scale` for what stands for s^2.
    - `temperature`: T = 0.05 s^2 / (m d) = 0.05 / (m d^2) on the sphere. At the teacher's width worth 2 to 6 points of
      success over T = 0; ten times hotter loses them again. With spare neurons it hardly matters.
    - `regularisation`: lambda = 0.01 s^2; above 0.02 s^2 neurons die.
    - `optimizer`: any `optax.GradientTransformation` in place of gradient descent; the noise, at `step_size`, is added to
      its updates.
    """

    width: int | None = eqx.field(static=True, default=None)
    samples: int | None = eqx.field(static=True, default=None)
    steps: int | None = eqx.field(static=True, default=None)
    step_size: float | Float[Array, ""] | None = None
    temperature: float | Float[Array, ""] | None = None
    regularisation: float | Float[Array, ""] | None = None
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_at_least("NoisyPhase", width=(self.width, 1), samples=(self.samples, 1), steps=(self.steps, 0))
        check_at_least("NoisyPhase", temperature=(self.temperature, 0))
        check_at_least("NoisyPhase", regularisation=(self.regularisation, 0), step_size=(self.step_size, 0))


class VanillaPhase(eqx.Module):
    r"""Phase II. Fields left at None follow the formulas.

    - `max_steps`: 4000 + 1000 m. The phase ends earlier, when 50 steps lower the loss L by less than 10^{-3} (m d / n) L,
      a thousandth of an efficient student's statistical error.
    - `step_size`: eta = 2 / ((m+1) s^2), s^2 by `step_scale`.
    - `optimizer`: any `optax.GradientTransformation` in place of gradient descent.
    """

    max_steps: int | None = eqx.field(static=True, default=None)
    step_size: float | Float[Array, ""] | None = None
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_at_least("VanillaPhase", max_steps=(self.max_steps, 0), step_size=(self.step_size, 0))


def trained_in_phase_two(net: TwoLayer):
    """The parameters that vanilla gradient descent moves: the neurons, where they hold the output weights too (phi
    homogeneous); else both layers, since neurons cannot mend output weights that phase I left biased."""
    return net.w if net.activation.degree is not None else (net.a, net.w)


def with_trained(net: TwoLayer, theta) -> TwoLayer:
    """`net` with `trained_in_phase_two` replaced. Neurons that are dead in `net`, a_j = 0, stay so."""
    if net.activation.degree is not None:
        return eqx.tree_at(lambda net: net.w, net, theta)
    a, w = theta
    return eqx.tree_at(lambda net: (net.a, net.w), net, (jnp.where(net.a == 0, 0, a), w))


def parameters_per_neuron(net: TwoLayer) -> int:
    """d where the scale of a neuron is shared between its layers (phi homogeneous), else d + 1."""
    return net.w.shape[-1] + (net.activation.degree is None)


def loss_of_trained(theta, net: TwoLayer, x_t, y):
    """L as a function of `trained_in_phase_two`."""
    return half_mse(with_trained(net, theta), x_t, y)


def samples_last(data: Dataset) -> tuple[Float[Array, "d n"], Float[Array, " n"]]:
    """x_t and y in their common floating dtype: training rounds neither."""
    dtype = jnp.result_type(data.x, data.y, jnp.float32)
    return data.x.T.astype(dtype), data.y.astype(dtype)


def default(value, formula, dtype):
    """A hyper-parameter, or its formula where it is None, as a scalar of the training dtype."""
    return as_leaf(formula if value is None else value, dtype)


def input_scale(x_t, activation: AbstractActivation = relu):
    """s^2: mean x_i^2 for relu; in general twice the largest eigenvalue of E[phi'(x_1)^2 x x^T], the curvature of L in a
    unit neuron, which for relu is half of mean x_i^2."""
    if activation == relu:
        return jnp.mean(x_t * x_t)
    slopes = jax.vmap(jax.grad(activation))(x_t[0])
    weighted = slopes[None, :] * x_t
    return 2 * jnp.linalg.norm(jnp.matmul(weighted, weighted.T, precision="highest") / x_t.shape[1], 2)


def step_scale(x_t, activation: AbstractActivation = relu):
    """What stands for s^2 in step sizes. Curvature grows with the largest eigenvalue of E[x x^T], which is s^2 for isotropic
    inputs and up to d s^2 for correlated ones, such as the pixels of an image, where students diverged (measured). So it is
    max(s^2, that eigenvalue / 2) for relu; `input_scale` of other activations is made of eigenvalues. Isotropic samples keep
    s^2: their largest eigenvalue, about (1 + sqrt(d/n))^2 s^2, stays below 2 s^2 from n = 6 d on."""
    s2 = input_scale(x_t, activation)
    if activation != relu:
        return s2
    second = jnp.matmul(x_t, x_t.T, precision="highest") / x_t.shape[1]
    # The mean of the eigenvalues with weights lambda^32, about the largest, without a LAPACK call for every data set.
    weights = second / (jnp.trace(second) + jnp.finfo(second.dtype).tiny)
    for _ in range(5):
        weights = jnp.matmul(weights, weights, precision="highest")
        weights = weights / (jnp.trace(weights) + jnp.finfo(second.dtype).tiny)
    return jnp.maximum(s2, jnp.sum(weights * second) / 2)


def descent_step_size(width, s2):
    """eta = 2 / ((m+1) s^2): half the inverse of the largest curvature at an orthonormal teacher of m neurons."""
    return 2 / ((width + 1) * s2)


def smooth_clip(theta: TwoLayer, radius) -> TwoLayer:
    """rbar = R tanh(r |r| / (2R)) of every parameter r (arXiv:2205.14818, section 3.1)."""
    if radius is None:
        return theta
    return jax.tree.map(lambda r: (radius * jnp.tanh(r * jnp.abs(r) / (2 * radius))).astype(r.dtype), theta)


def log_spaced(steps: int, points: int, segment: int = 1) -> tuple[int, ...]:
    """0 and about `points` logarithmically spaced steps up to `steps`; `segment`, and beyond it its multiples: a run that is
    stopped there and goes on is the run that was not stopped."""
    marks = {0, min(segment, steps), steps}
    for i in range(points):
        mark = steps ** (i / max(points - 1, 1)) if steps else 0.0
        marks.add(min(round(mark) if mark <= segment else segment * math.ceil(mark / segment), steps))
    return tuple(sorted(marks))


def _probed_run(advance, state, steps: tuple[int, ...], probe):
    """Runs `advance(state, stop)` to each step of `steps` in turn and probes there; returns the state and the values."""

    def segment(state, stop):
        state = advance(state, stop)
        return state, probe(state)

    return jax.lax.scan(segment, state, jnp.asarray(steps, jnp.int32))


def noisy_steps(width: int, spare: bool) -> int:
    """Steps of phase I by formula, with spare neurons or without; see `NoisyPhase`."""
    return 300 * width if spare else 1500 + 500 * width


def noisy_descent(phase: NoisyPhase, key, start: TwoLayer, width: int, clip, x_t, y, probe=None, probe_steps=()):
    """Noisy gradient descent on both layers of `start`; `width` is the one the formulas mean.

    Returns the network (after the clip, output weights absorbed), the steps done, and the values of the probe.
    """
    d, dtype, s2 = x_t.shape[0], x_t.dtype, input_scale(x_t, start.activation)
    steps = noisy_steps(width, spare=start.a.shape[0] > width) if phase.steps is None else phase.steps
    step_size = default(phase.step_size, descent_step_size(width, step_scale(x_t, start.activation)), dtype)
    temperature = default(phase.temperature, 0.05 * s2 / (width * d), dtype)
    penalty = default(phase.regularisation, 0.01 * s2, dtype)

    def objective(theta: TwoLayer):
        squares = jnp.sum(theta.a**2) + jnp.sum(theta.w**2)
        return half_mse(smooth_clip(theta, clip), x_t, y) + penalty * squares

    descent = optax.sgd(step_size) if phase.optimizer is None else phase.optimizer
    optimizer = optax.chain(descent, add_langevin_noise(step_size, temperature, key))

    def step(_, carry):
        theta, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(objective)(theta), opt_state, theta)
        return optax.apply_updates(theta, updates), opt_state

    def advance(state, stop):
        carry, done = state
        loop = lambda carry, done, stop: jax.lax.fori_loop(done, stop, step, carry)
        if phase.optimizer is not None or clip is not None or not fused.fits(start, x_t, y):
            return loop(carry, done, stop), stop

        def launch(carry, done, stop):
            theta, opt_state = carry
            noise = jnp.sqrt(2 * step_size * temperature)
            a, w, _ = fused.descend(
                theta.a, theta.w, x_t, y, start=done, stop=stop, step_size=step_size, seed=noise_seed(key), noise=noise,
                penalty=penalty,
            )  # fmt: skip
            # The noise counts its steps.
            return TwoLayer(a, w), optax.tree_utils.tree_set(opt_state, step=stop)

        return fused.where_it_runs(launch, loop, carry, done, stop), stop

    state = ((start, optimizer.init(eqx.filter(start, eqx.is_array))), jnp.zeros((), jnp.int32))
    network = lambda state: absorb_output_weights(smooth_clip(state[0][0], clip))
    values = None
    if probe is not None:
        marks = log_spaced(steps, probe_steps) if isinstance(probe_steps, int) else probe_steps
        state, values = _probed_run(advance, state, marks, lambda s: {"step": s[1], **probe(network(s))})
        steps = max(steps, max(marks, default=0))
    state = advance(state, jnp.asarray(steps, jnp.int32))
    return network(state), state[1], values


class Descent(eqx.Module):
    """State of a `Descender`: parameters, state of the optimizer, loss before the last step, steps done, whether to stop."""

    theta: Any
    opt_state: Any
    loss: Float[Array, ""]
    steps: Int[Array, ""]
    done: Array


class Descender(eqx.Module):
    """Full-batch descent of a loss in segments of 50 steps, until it is flat; see `FLATNESS`.

    `loss` is a function of the parameters, `share` the statistical error m d / n of an efficient student relative to the
    loss, `zero_loss` that of predicting 0, `scale` that of a unit neuron. `launch(theta, steps)`, where there is one, does
    steps of gradient descent at once on a GPU, and gives the loss before the last.
    """

    loss: Callable[[Any], Float[Array, ""]]
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    share: Any
    zero_loss: Float[Array, ""]
    scale: Float[Array, ""]
    launch: Callable[[Any, Int[Array, ""]], tuple[Any, Float[Array, ""]]] | None = None

    def start(self, theta) -> Descent:
        infinite = jnp.asarray(jnp.inf, self.zero_loss.dtype)
        opt_state = self.optimizer.init(eqx.filter(theta, eqx.is_array))
        return Descent(theta, opt_state, infinite, jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    @property
    def exploded(self) -> Float[Array, ""]:
        return EXPLODED * (self.zero_loss + self.scale)

    def segment(self, state: Descent, stop) -> Descent:
        loss_and_grad = jax.value_and_grad(self.loss)

        def step(_, carry):
            theta, opt_state, _ = carry
            loss, grad = loss_and_grad(theta)
            updates, opt_state = self.optimizer.update(grad, opt_state, theta)
            return optax.apply_updates(theta, updates), opt_state, loss

        def launch(carry, length):
            assert self.launch is not None
            theta, loss = self.launch(carry[0], length)
            return theta, carry[1], jnp.where(length > 0, loss, carry[2])

        length = jnp.minimum(SEGMENT, stop - state.steps)
        carry, loop = (state.theta, state.opt_state, state.loss), lambda carry, n: jax.lax.fori_loop(0, n, step, carry)
        several = loop if self.launch is None else functools.partial(fused.where_it_runs, launch, loop)
        theta, opt_state, loss = several(carry, length)
        # Below this the residuals are rounding errors of the predictions.
        rounding = (10 * jnp.finfo(loss.dtype).eps) ** 2 * self.zero_loss
        # A shorter segment, before a limit or a probe, says nothing about 50 steps.
        flat = (length == SEGMENT) & (state.loss - loss <= FLATNESS * self.share * loss + rounding)
        lost = ~jnp.isfinite(loss) | (loss > self.exploded)
        return Descent(theta, opt_state, loss, state.steps + length, flat | lost)

    def advance(self, state: Descent, stop) -> Descent:
        """To step `stop`, or until the loss is flat or lost."""
        return jax.lax.while_loop(lambda s: (s.steps < stop) & ~s.done, lambda s: self.segment(s, stop), state)

    def keep_going(self, state: Descent, stop) -> Descent:
        """To step `stop`, flat or not."""
        return jax.lax.while_loop(lambda s: s.steps < stop, lambda s: self.segment(s, stop), state)

    def status(self, theta, loss, done) -> Int[Array, ""]:
        finite = jnp.isfinite(loss) & (loss <= self.exploded)
        for leaf in jax.tree.leaves(theta):
            finite &= jnp.all(jnp.isfinite(leaf))
        status = jnp.where(finite, jnp.where(done, Status.CONVERGED, Status.STEP_LIMIT), Status.DIVERGED)
        return status.astype(jnp.int32)


def vanilla_descent(phase: VanillaPhase, net: TwoLayer, width, x_t, y, probe=None, probe_steps=()):
    """Vanilla gradient descent on `trained_in_phase_two` of `net`, of which `width` neurons (may be traced) are alive, until
    the loss is flat.

    Returns the network, its loss, the steps done, the status, and the values of the probe.
    """
    n, dtype, s2 = y.shape[0], x_t.dtype, input_scale(x_t, net.activation)
    max_steps = 4000 + 1000 * net.a.shape[0] if phase.max_steps is None else phase.max_steps
    step_size = default(phase.step_size, descent_step_size(width, step_scale(x_t, net.activation)), dtype)

    def launch(w, steps):
        start = jnp.zeros((), jnp.int32)
        _, w, loss = fused.descend(net.a, w, x_t, y, start=start, stop=steps, step_size=step_size, output_weights=False)
        return w, loss

    descender = Descender(
        launch=launch if phase.optimizer is None and fused.fits(net, x_t, y) else None,
        loss=functools.partial(loss_of_trained, net=net, x_t=x_t, y=y),
        optimizer=optax.sgd(step_size) if phase.optimizer is None else phase.optimizer,
        share=width * parameters_per_neuron(net) / n,
        zero_loss=0.5 * jnp.mean(y * y),
        scale=s2,
    )
    state = descender.start(trained_in_phase_two(net))
    values = None
    if probe is not None:
        by_formula = isinstance(probe_steps, int)
        # Within the first segment, then at the ends of segments, where the stopping rule is at home.
        marks = log_spaced(max_steps, probe_steps, SEGMENT) if by_formula else probe_steps
        # Steps that the user asked for mean what they say, flat or not.
        advance = descender.advance if by_formula else descender.keep_going
        state, values = _probed_run(
            advance, state, marks, lambda s: {"step": s.steps, **probe(with_trained(net, s.theta))}
        )
        max_steps = max(max_steps, max(marks, default=0))
    state = descender.advance(state, jnp.asarray(max_steps, jnp.int32))
    loss = descender.loss(state.theta)
    status = descender.status(state.theta, loss, state.done)
    return with_trained(net, state.theta), loss, state.steps, status, values
