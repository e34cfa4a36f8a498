r"""The two phases of Algorithm 1 of Akiyama & Suzuki (arXiv:2205.14818), for one student on one data set.

With L = (1/2n) sum_i (y_i - f(x_i))^2, phase I is noisy gradient descent on both layers, theta <- theta - eta grad(L + lambda
|theta|^2) + sqrt(2 eta T) xi with xi ~ N(0, I), and phase II is vanilla gradient descent on the neurons alone. Both have the
samples on the last axis.
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

# Phase II checks its stopping rule once every SEGMENT steps, and stops when the loss fell over these steps by less than the
# share FLATNESS of the statistical error of an efficient student. The rule uses the loss and not its gradient, because minima
# of ReLU networks often lie in a kink of the empirical loss, where the gradient does not vanish.
SEGMENT = 50
FLATNESS = 1e-3
# Training has diverged if the loss exceeds EXPLODED times the loss of predicting 0 plus that of a unit neuron.
EXPLODED = 1e4


class NoisyPhase(eqx.Module):
    r"""Phase I. Fields left at None follow formulas in m, d and s^2. Here m is the width of the student (with `width="auto"`,
    half of the width of this phase), d the dimension of the inputs, and s^2 = mean x_i^2 (1/d on the sphere; for activations
    other than relu see `input_scale`).

    - `width`: number of neurons in this phase; 2 m by default. The spare neurons find neurons of the teacher that a
      student of the teacher's width can miss, and are pruned at the switch (`sweeps/hard_teachers.toml` measures how often
      such students recover the teacher). `width=m` is the paper's algorithm.
    - `samples`: the number of samples that this phase sees, drawn at random once for all restarts; 64 m d by default, or all
      n if there are no more. So many suffice to find the basin. Pruning and phase II see all samples.
    - `steps`: 300 m by default if there are spare neurons. With too few steps on slow saddles, restarts can agree on a worse
      optimum. Without spare neurons the default is 1500 + 500 m, since runs at the teacher's width often stay long at a
      saddle before they reach the optimum.
    - `step_size`: eta = 2 / ((m+1) s^2) by default. The largest curvature of L at an orthonormal teacher is about
      (m+1) s^2 / 4, regardless of how many neurons share its path norm. For correlated inputs `step_scale` replaces s^2.
    - `temperature`: T = 0.05 s^2 / (m d) by default, which is 0.05 / (m d^2) on the sphere. At the teacher's width, single runs
      succeed more often with this noise than without (`sweeps/why_noise.toml` measures both).
    - `regularisation`: lambda = 0.01 s^2 by default. With a much larger lambda, neurons shrink to 0.
    - `optimizer`: any `optax.GradientTransformation` in place of gradient descent. The noise, scaled by `step_size`, is added
      to its updates.

    **Raises:** ValueError for values out of range.
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
    r"""Phase II. Fields left at None follow formulas in the width m, the dimension d and the input scale s^2.

    - `max_steps`: 4000 + 1000 m by default. The phase ends earlier if 50 steps lower the loss L by less than
      10^{-3} (m d / n) L, a thousandth of an efficient student's statistical error.
    - `step_size`: eta = 2 / ((m+1) s^2) by default, with s^2 from `step_scale`.
    - `optimizer`: any `optax.GradientTransformation` in place of gradient descent.

    **Raises:** ValueError for values out of range.
    """

    max_steps: int | None = eqx.field(static=True, default=None)
    step_size: ScalarOrSchedule | None = None
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_at_least("VanillaPhase", max_steps=(self.max_steps, 0), step_size=(self.step_size, 0))


def trained_in_phase_two(net: TwoLayer) -> TwoLayer:
    """Which parameters vanilla gradient descent moves, as a tree of booleans. If phi is homogeneous, only the neurons move,
    because they have absorbed the scale of the output weights. Otherwise both layers move, because the neurons cannot correct
    output weights that phase I left biased."""
    return eqx.tree_at(lambda net: (net.a, net.w), net, (net.activation.degree is None, True))


def objective_in_phase_two(net: TwoLayer) -> AbstractObjective:
    """The loss L. Neurons that are dead in `net` (a_j = 0) stay dead."""
    if net.activation.degree is not None:
        return squared
    alive = net.a != 0
    return Reparametrised(squared, lambda other: eqx.tree_at(lambda n: n.a, other, jnp.where(alive, other.a, 0)))


def parameters_per_neuron(net: TwoLayer) -> int:
    """The number of free parameters of a neuron: d if phi is homogeneous, so that a_j and w_j share one scale; otherwise
    d + 1."""
    return net.w.shape[-1] + (net.activation.degree is None)


def in_one_type(data: Dataset) -> Dataset:
    """The data in the common floating-point type of x and y (at least float32), so that training rounds neither."""
    dtype = jnp.result_type(data.x, data.y, jnp.float32)
    weight = None if data.weight is None else data.weight.astype(dtype)
    return Dataset(x=data.x.astype(dtype), y=data.y.astype(dtype), weight=weight)


def default(value, formula, dtype) -> Any:
    """A hyper-parameter, or the value of its formula if it is None, as a scalar of the training dtype. A schedule is returned
    as it is."""
    return value if callable(value) else as_leaf(formula if value is None else value, dtype)


def _second_moments(x_t, weight):
    """E[x x^T] over the samples, (d, d)."""
    if weight is None:
        return jnp.matmul(x_t, x_t.T, precision="highest") / x_t.shape[1]
    return jnp.matmul(x_t * weight[None, :], x_t.T, precision="highest") / jnp.sum(weight)


def input_scale(x_t, activation: AbstractActivation = relu, weight=None):
    """The scale s^2 of the inputs. For relu it is the mean of x_ik^2 over samples i and coordinates k. For other activations it
    is twice the largest eigenvalue of E[phi'(x_1)^2 x x^T], the curvature of L with respect to a unit neuron. (For relu and
    isotropic inputs this curvature is half of that mean, so both definitions agree.)"""
    if activation == relu:
        return weighted_mean(jnp.mean(x_t * x_t, axis=0), weight) if weight is not None else jnp.mean(x_t * x_t)
    slopes = jax.vmap(jax.grad(activation))(x_t[0])
    weighted = slopes[None, :] * x_t
    return 2 * jnp.linalg.norm(_second_moments(weighted, weight), 2)


def step_scale(x_t, activation: AbstractActivation = relu, weight=None):
    """The number that replaces s^2 in step sizes. Curvature grows with the largest eigenvalue of E[x x^T]. This eigenvalue is
    s^2 for isotropic inputs and up to d s^2 for correlated ones, such as the pixels of an image, for which steps of order
    1 / s^2 can diverge. So for relu the number is max(s^2, eigenvalue / 2). For other activations it is `input_scale`, which
    is an eigenvalue already. Isotropic samples keep s^2: their largest eigenvalue, about (1 + sqrt(d/n))^2 s^2, is below
    2 s^2 for n >= 6 d."""
    s2 = input_scale(x_t, activation, weight)
    if activation != relu:
        return s2
    second = _second_moments(x_t, weight)
    # The mean of the eigenvalues lambda with weights lambda^32 is about the largest one, and needs no LAPACK call for every
    # data set.
    weights = second / (jnp.trace(second) + jnp.finfo(second.dtype).tiny)
    for _ in range(5):
        weights = jnp.matmul(weights, weights, precision="highest")
        weights = weights / (jnp.trace(weights) + jnp.finfo(second.dtype).tiny)
    return jnp.maximum(s2, jnp.sum(weights * second) / 2)


def descent_step_size(width, s2):
    """eta = 2 / ((m+1) s^2): half the inverse of the largest curvature at an orthonormal teacher of m neurons."""
    return 2 / ((width + 1) * s2)


def smooth_clip(theta: TwoLayer, radius) -> TwoLayer:
    """rbar = R tanh(r |r| / (2R)) for every parameter r (arXiv:2205.14818, section 3.1); no clip if the radius R is None."""
    if radius is None:
        return theta
    return jax.tree.map(lambda r: (radius * jnp.tanh(r * jnp.abs(r) / (2 * radius))).astype(r.dtype), theta)


def noisy_steps(width: int, spare: bool) -> int:
    """The default number of steps of phase I, with spare neurons or without; see `NoisyPhase`."""
    return 300 * width if spare else 1500 + 500 * width


def noisy_descent(
    phase: NoisyPhase, key, start: TwoLayer, width: int, clip, data: Dataset, probe=None, probe_steps=()
) -> Trained[TwoLayer]:
    """Noisy gradient descent on both layers of `start`; `width` is the m of the formulas. The model that is returned, like the
    one that the probe sees, is the clipped network with its output weights absorbed into the neurons."""
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
    """Vanilla gradient descent on the parameters `trained_in_phase_two` of `net`, until the loss is flat. `width`, which may be
    traced, is the number of its neurons that are alive."""
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
    """The rule that ends descent, and the loss above which it counts as diverged. `share` is the statistical error m d / n of
    an efficient student relative to the loss, `zero_loss` the loss of predicting 0, and `scale` that of a unit neuron."""
    # At a loss below this, the residuals are rounding errors of the predictions.
    rounding = (10 * jnp.finfo(zero_loss.dtype).eps) ** 2 * zero_loss
    flat = Flat(tolerance=jnp.asarray(FLATNESS * share), floor=rounding, every=SEGMENT)
    return flat, EXPLODED * (zero_loss + scale)


def row_count(data: Dataset):
    """The number of rows of weight > 0; all rows if there are no weights."""
    return data.n if data.weight is None else jnp.sum(data.weight > 0, dtype=data.x.dtype)
