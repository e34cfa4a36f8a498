r"""The two phases of Algorithm 1 of Akiyama & Suzuki (arXiv:2205.14818), for one student on one data set.

With L = (1/2n) sum_i (y_i - f(x_i))^2: noisy gradient descent on both layers, theta <- theta - eta grad(L + lambda
|theta|^2) + sqrt(2 eta T) xi, and vanilla gradient descent on the neurons alone. Both write the samples on the last axis.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float

from ..activations import AbstractActivation, relu
from ..losses import AbstractObjective, Penalised, Reparametrised, squared, weighted_mean
from ..network import TwoLayer, absorb_output_weights
from ..optim import Descent, ScalarOrSchedule, add_langevin_noise, as_leaf
from ..task import Dataset
from ..train import Flat, FullBatch, Trained, train
from .base import check_at_least

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
    step_size: ScalarOrSchedule | None = None
    temperature: ScalarOrSchedule | None = None
    regularisation: float | Float[Array, ""] | None = None
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_at_least("NoisyPhase", width=(self.width, 1), samples=(self.samples, 1), steps=(self.steps, 0))
        check_at_least("NoisyPhase", temperature=(self.temperature, 0), step_size=(self.step_size, 0))
        check_at_least("NoisyPhase", regularisation=(self.regularisation, 0))


class VanillaPhase(eqx.Module):
    r"""Phase II. Fields left at None follow the formulas.

    - `max_steps`: 4000 + 1000 m. The phase ends earlier, when 50 steps lower the loss L by less than 10^{-3} (m d / n) L,
      a thousandth of an efficient student's statistical error.
    - `step_size`: eta = 2 / ((m+1) s^2), s^2 by `step_scale`.
    - `optimizer`: any `optax.GradientTransformation` in place of gradient descent.
    """

    max_steps: int | None = eqx.field(static=True, default=None)
    step_size: ScalarOrSchedule | None = None
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_at_least("VanillaPhase", max_steps=(self.max_steps, 0), step_size=(self.step_size, 0))


def trained_in_phase_two(net: TwoLayer) -> TwoLayer:
    """Which parameters vanilla gradient descent moves, as a tree of booleans: the neurons, where they hold the output weights
    too (phi homogeneous); else both layers, since neurons cannot mend output weights that phase I left biased."""
    return eqx.tree_at(lambda net: (net.a, net.w), net, (net.activation.degree is None, True))


def objective_in_phase_two(net: TwoLayer) -> AbstractObjective:
    """L, in which neurons that are dead in `net`, a_j = 0, stay so."""
    if net.activation.degree is not None:
        return squared
    alive = net.a != 0
    return Reparametrised(squared, lambda other: eqx.tree_at(lambda n: n.a, other, jnp.where(alive, other.a, 0)))


def parameters_per_neuron(net: TwoLayer) -> int:
    """d where the scale of a neuron is shared between its layers (phi homogeneous), else d + 1."""
    return net.w.shape[-1] + (net.activation.degree is None)


def in_one_type(data: Dataset) -> Dataset:
    """The data in the common floating type of x and y: training rounds neither."""
    dtype = jnp.result_type(data.x, data.y, jnp.float32)
    weight = None if data.weight is None else data.weight.astype(dtype)
    return Dataset(x=data.x.astype(dtype), y=data.y.astype(dtype), weight=weight)


def default(value, formula, dtype) -> Any:
    """A hyper-parameter, or its formula where it is None, as a scalar of the training dtype; a schedule as it is."""
    return value if callable(value) else as_leaf(formula if value is None else value, dtype)


def _second_moments(x_t, weight):
    """E[x x^T] over the samples, (d, d)."""
    if weight is None:
        return jnp.matmul(x_t, x_t.T, precision="highest") / x_t.shape[1]
    return jnp.matmul(x_t * weight[None, :], x_t.T, precision="highest") / jnp.sum(weight)


def input_scale(x_t, activation: AbstractActivation = relu, weight=None):
    """s^2: mean x_i^2 for relu; in general twice the largest eigenvalue of E[phi'(x_1)^2 x x^T], the curvature of L in a
    unit neuron, which for relu is half of mean x_i^2."""
    if activation == relu:
        return weighted_mean(jnp.mean(x_t * x_t, axis=0), weight) if weight is not None else jnp.mean(x_t * x_t)
    slopes = jax.vmap(jax.grad(activation))(x_t[0])
    weighted = slopes[None, :] * x_t
    return 2 * jnp.linalg.norm(_second_moments(weighted, weight), 2)


def step_scale(x_t, activation: AbstractActivation = relu, weight=None):
    """What stands for s^2 in step sizes. Curvature grows with the largest eigenvalue of E[x x^T], which is s^2 for isotropic
    inputs and up to d s^2 for correlated ones, such as the pixels of an image, where steps of 1 / s^2 can diverge. So it is
    max(s^2, that eigenvalue / 2) for relu; `input_scale` of other activations is made of eigenvalues. Isotropic samples keep
    s^2: their largest eigenvalue, about (1 + sqrt(d/n))^2 s^2, stays below 2 s^2 from n = 6 d on."""
    s2 = input_scale(x_t, activation, weight)
    if activation != relu:
        return s2
    second = _second_moments(x_t, weight)
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


def noisy_steps(width: int, spare: bool) -> int:
    """Steps of phase I by formula, with spare neurons or without; see `NoisyPhase`."""
    return 300 * width if spare else 1500 + 500 * width


def noisy_descent(
    phase: NoisyPhase, key, start: TwoLayer, width: int, clip, data: Dataset, probe=None, probe_steps=()
) -> Trained[TwoLayer]:
    """Noisy gradient descent on both layers of `start`; `width` is the one the formulas mean. The model is the network after
    the clip, its output weights absorbed; the probe sees it so, too."""
    x_t, dtype = data.x.T, data.x.dtype
    d, s2 = x_t.shape[0], input_scale(x_t, start.activation, data.weight)
    steps = noisy_steps(width, spare=start.a.shape[0] > width) if phase.steps is None else phase.steps
    step_size = default(
        phase.step_size, descent_step_size(width, step_scale(x_t, start.activation, data.weight)), dtype
    )
    temperature = default(phase.temperature, 0.05 * s2 / (width * d), dtype)
    penalty = default(phase.regularisation, 0.01 * s2, dtype)
    clipped = squared if clip is None else Reparametrised(squared, functools.partial(smooth_clip, radius=clip))
    optimizer = Descent(step_size, temperature, key)
    if phase.optimizer is not None:
        optimizer = optax.chain(phase.optimizer, add_langevin_noise(step_size, temperature, key))
    network = lambda theta: absorb_output_weights(smooth_clip(theta, clip))
    done = train(
        key, start, Penalised(clipped, penalty), FullBatch(data), optimizer, steps=steps,
        probe=None if probe is None else lambda theta: probe(network(theta)), probe_at=probe_steps,
    )  # fmt: skip
    return eqx.tree_at(lambda done: done.model, done, network(done.model))


def vanilla_descent(
    phase: VanillaPhase, net: TwoLayer, width, data: Dataset, probe=None, probe_steps=()
) -> Trained[TwoLayer]:
    """Vanilla gradient descent on `trained_in_phase_two` of `net`, whose first `width` neurons (may be traced) are alive,
    until the loss is flat."""
    x_t, y, dtype = data.x.T, data.y, data.x.dtype
    max_steps = 4000 + 1000 * net.a.shape[0] if phase.max_steps is None else phase.max_steps
    step_size = default(phase.step_size, descent_step_size(width, step_scale(x_t, net.activation, data.weight)), dtype)
    zero_loss = 0.5 * weighted_mean(y * y, data.weight)
    flat, largest_loss = flatness(
        width * parameters_per_neuron(net) / row_count(data), zero_loss, input_scale(x_t, net.activation, data.weight)
    )
    return train(
        jr.key(0), net, objective_in_phase_two(net), FullBatch(data),
        Descent(step_size) if phase.optimizer is None else phase.optimizer,
        steps=max_steps, trainable=trained_in_phase_two(net), stop=flat, largest_loss=largest_loss,
        probe=probe, probe_at=probe_steps,
    )  # fmt: skip


def flatness(share, zero_loss: Float[Array, ""], scale) -> tuple[Flat, Float[Array, ""]]:
    """The rule that ends descent, and the loss above which it is lost: `share` is the statistical error m d / n of an efficient
    student relative to the loss, `zero_loss` the loss of predicting 0, `scale` that of a unit neuron."""
    # Below this the residuals are rounding errors of the predictions.
    rounding = (10 * jnp.finfo(zero_loss.dtype).eps) ** 2 * zero_loss
    flat = Flat(tolerance=jnp.asarray(FLATNESS * share), floor=rounding, every=SEGMENT)
    return flat, EXPLODED * (zero_loss + scale)


def row_count(data: Dataset):
    """The number of rows that count: those of weight > 0."""
    return data.n if data.weight is None else jnp.sum(data.weight > 0, dtype=data.x.dtype)
