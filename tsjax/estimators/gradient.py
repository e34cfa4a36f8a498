r"""One-phase students: two-layer networks trained by any optax optimizer, also lazily or linearised.

They are ablations of the two-phase student: they show what mini-batches, adaptive steps, or the kernel regime do in place of
its noise.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..activations import AbstractActivation, check_activation, relu
from ..compilation import compiled
from ..losses import AbstractObjective, squared, weighted_mean
from ..network import TwoLayer
from ..optim import Descent, as_leaf
from ..task import Dataset
from ..train import NEVER, FullBatch, MiniBatches, train
from .base import AbstractEstimator, AbstractFit, check_at_least, check_data, floats_as_arrays
from .phases import default, descent_step_size, flatness, in_one_type, input_scale, row_count
from .two_phase import NetworkFit


class LinearisedFit(AbstractFit):
    """A network linearised in its parameters: f(x) = f_{theta_0}(x) + <grad_theta f_{theta_0}(x), shift>.

    `stats`: those that `GradientStudent.fit` lists.
    """

    start: TwoLayer
    shift: TwoLayer
    status: Int[Array, "*batch"]
    stats: dict[str, Any]

    def predict(self, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        dtype = jnp.result_type(x, self.start.w)
        start, shift = jax.tree.map(lambda leaf: leaf.astype(dtype), (self.start, self.shift))
        value, derivative = jax.jvp(lambda net: net.samples_last(x.T.astype(dtype)), (start,), (shift,))
        return value + derivative


class GradientStudent(AbstractEstimator):
    r"""A two-layer network trained in one phase by an optax optimizer, from one random start.

    It minimises the half mean squared error L = (1/2n) sum_i (y_i - f(x_i))^2, in full batches until the loss is flat (the rule
    of `VanillaPhase`), or in mini-batches for a number of steps or epochs.

    **Arguments:**

    - `width`: number M of neurons.
    - `optimizer`: any `optax.GradientTransformation`. None is gradient descent with `step_size`. In mini-batches this step
      size decays linearly to 0, so that training ends without the noise of its batches.
    - `steps`: the largest number of gradient steps, 4000 + 1000 M when None.
    - `batch_size`: samples of a mini-batch, drawn without replacement, in a new order every epoch. The last samples of an epoch
      are left out if they do not fill a batch. None uses all samples in every step.
    - `epochs`: passes over the data, in place of `steps`; 1 is online learning, which sees no sample twice.
    - `output_scale`: a number alpha >= 1e-6 trains alpha (f_theta - f_{theta_0}) on L / alpha^2; a large alpha is lazy
      training (Chizat, Oyallon & Bach 2019, arXiv:1812.07956). The predictions change at the same speed for every alpha, so
      the step size needs no change. The fit is again a two-layer network, of 2 M neurons. None trains the network itself.
    - `step_size`: eta of gradient descent. None is 2 / (max(M + 1, |theta_0|^2) s^2) with s^2 = mean x_i^2 (for other
      activations `phases.input_scale`). The curvature at a teacher of M neurons is about (M + 1) s^2 / 4, as in
      `NoisyPhase`. In the kernel regime the curvature is the norm of E[grad f grad f^T] at the start, which is at most
      |theta_0|^2 s^2 / 2 for relu and isotropic symmetric inputs, since by Cauchy-Schwarz
      E(sum_j v_j relu(<w_j, x>))^2 <= |v|^2 |w|^2 s^2 / 2 and E(sum_j a_j 1[<w_j, x> > 0] <v_j, x>)^2 <= |a|^2 |v|^2 s^2 / 2.
      So eta times this curvature is at most 1, half of the limit of stability, for every start and every alpha. In
      mini-batches of b samples eta is divided by 1 + (d-1)/b (n-b)/(n-1), because gradients of single samples have a mean
      square up to d times the curvature (Ma, Bassily & Belkin 2018, arXiv:1712.06559, with the variance of drawing without
      replacement).
    - `trained`: `"both"` layers; `"output"`, which keeps the neurons at their random start (random features by gradient
      descent); or `"neurons"`, which keeps the output weights. For `"neurons"` use `init_output_std=1`: output weights of 0.1
      would slow the neurons a hundredfold.
    - `linearised`: trains f_{theta_0} + <grad f_{theta_0}, theta - theta_0>, the limit of lazy training, which is gradient
      descent in the empirical NTK of M neurons. The fit is a `LinearisedFit`.
    - `init_output_std`, `init_neuron_std`: as for `TwoPhaseStudent`. In the kernel regime the features are fixed at the start,
      and output weights of the size of the neurons (0.7) let both layers contribute.
    - `activation`: phi, one of `tsjax.activations`.

    An optimizer is a static field, compared by identity: build it once and reuse it, or every fit compiles again. Use
    `step_size` for step sizes that are traced or mapped over.

    **Raises:** ValueError for values out of range and for options that exclude each other.
    """

    width: int = eqx.field(static=True)
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)
    steps: int | None = eqx.field(static=True, default=None)
    batch_size: int | None = eqx.field(static=True, default=None)
    epochs: int | None = eqx.field(static=True, default=None)
    output_scale: float | Float[Array, ""] | None = None
    linearised: bool = eqx.field(static=True, default=False)
    trained: Literal["both", "output", "neurons"] = eqx.field(static=True, default="both")
    step_size: float | Float[Array, ""] | None = None
    init_output_std: float | Float[Array, ""] = 0.1
    init_neuron_std: float | Float[Array, ""] | None = None
    activation: AbstractActivation = eqx.field(static=True, default=relu)

    def __check_init__(self):
        check_activation(self.activation)
        check_at_least("GradientStudent", width=(self.width, 1), steps=(self.steps, 0), epochs=(self.epochs, 1))
        check_at_least("GradientStudent", batch_size=(self.batch_size, 1), init_output_std=(self.init_output_std, 0))
        check_at_least("GradientStudent", init_neuron_std=(self.init_neuron_std, 0))
        check_at_least("GradientStudent", output_scale=(self.output_scale, 1e-6), step_size=(self.step_size, 0))
        if self.trained not in ("both", "output", "neurons"):
            raise ValueError(f"trained must be 'both', 'output' or 'neurons', got {self.trained!r}.")
        if self.optimizer is not None and not isinstance(self.optimizer, optax.GradientTransformation):
            raise ValueError(f"optimizer must be an optax optimizer such as optax.adam(0.01), got {self.optimizer!r}.")
        if self.optimizer is not None and self.step_size is not None:
            raise ValueError("an optimizer has a step size of its own: give one of optimizer and step_size.")
        if self.linearised and self.trained == "output":
            raise ValueError("a network is linear in its output weights already: leave out linearised.")
        if self.epochs is not None and (self.batch_size is None or self.steps is not None):
            raise ValueError("epochs counts passes of mini-batches: give batch_size with it, and no steps.")
        if self.linearised and self.output_scale is not None:
            raise ValueError(
                "a linearised network is the same at every output_scale: give one of linearised and output_scale."
            )

    def fit(self, key: PRNGKeyArray, data: Dataset) -> NetworkFit | LinearisedFit:
        """Trains on one data set, x (n, d), y (n,), in the dtype of the data.

        The status is CONVERGED if the loss was flat before the last step, DIVERGED if the loss exploded, and STEP_LIMIT
        otherwise. Mini-batches always run all their steps, since any loss looks flat when the step size decays to 0.

        `stats`: `train_loss` (half mean squared error over all data), `width`, `steps` (of the one phase, an array (1,)),
        `restarts_run`, `total_steps`, `sample_steps` and `neuron_steps`, as for `NetworkFit`.

        **Raises:** ValueError for data that are not finite or of the wrong shape, and for a mini-batch larger than the data
        set.
        """
        check_data(key, data, weights=True)
        if self.batch_size is not None and self.batch_size > data.n:
            raise ValueError(f"batch_size={self.batch_size} is more than the n={data.n} samples; lower it.")
        return _fit(floats_as_arrays(self), key, data)


def _trained(student: GradientStudent, net: TwoLayer) -> TwoLayer:
    """Which parameters training moves, as a tree of booleans."""
    return eqx.tree_at(lambda net: (net.a, net.w), net, (student.trained != "neurons", student.trained != "output"))


class _Linearised(AbstractObjective):
    """The loss L of the network linearised around `start` in its trained parameters."""

    start: TwoLayer
    trained: Any

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        return self.on(batch)(model, key)

    def on(self, batch: Dataset):
        moving, fixed = eqx.partition(self.start, self.trained)
        predict = lambda theta: eqx.combine(theta, fixed).samples_last(batch.x.T)
        # Linearising costs a pass over the data, so it is done once for a fixed batch.
        value, derivative = jax.linearize(predict, moving)

        def loss(model, key):
            del key
            shift = jax.tree.map(jnp.subtract, eqx.filter(model, self.trained), moving)
            return 0.5 * weighted_mean((value + derivative(shift) - batch.y) ** 2, batch.weight)

        return loss


class _Lazy(AbstractObjective):
    """The loss L of scale (f_theta - f_start), divided by scale^2."""

    start: TwoLayer
    scale: Float[Array, ""]

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        return self.on(batch)(model, key)

    def on(self, batch: Dataset):
        x_t = batch.x.T
        value = self.start.samples_last(x_t)

        def loss(model, key):
            del key
            residual = self.scale * (model.samples_last(x_t) - value) - batch.y
            return 0.5 * weighted_mean((residual / self.scale) ** 2, batch.weight)

        return loss


@compiled
def _fit(student: GradientStudent, key, data: Dataset) -> NetworkFit | LinearisedFit:
    data = in_one_type(data)
    n, d, dtype, width = row_count(data), data.d, data.x.dtype, student.width
    batch_size = student.batch_size
    steps = 4000 + 1000 * width if student.steps is None else student.steps
    if student.epochs is not None and batch_size is not None:
        steps = student.epochs * jnp.asarray(n // batch_size, jnp.int32)
    s2 = input_scale(data.x.T, student.activation, data.weight)
    key_a, key_w, key_order = jr.split(key, 3)
    neuron_std = 0.7 / d**0.5 if student.init_neuron_std is None else student.init_neuron_std
    start = TwoLayer(
        a=as_leaf(student.init_output_std, dtype) * jr.normal(key_a, (width,), dtype),
        w=as_leaf(neuron_std, dtype) * jr.normal(key_w, (width, d), dtype),
        activation=student.activation,
    )
    squares = jnp.sum(start.a**2) + jnp.sum(start.w**2)
    formula = descent_step_size(jnp.maximum(squares - 1, width), s2)
    if batch_size is not None:
        formula = formula / (1 + (d - 1) / batch_size * (n - batch_size) / jnp.maximum(n - 1, 1))
    step_size = default(student.step_size, formula, dtype)
    optimizer = student.optimizer
    if optimizer is None:
        decay: Any = lambda count: step_size * (1 - count / jnp.maximum(steps, 1)).astype(dtype)
        optimizer = Descent(step_size if batch_size is None else decay)
    trained, scale = (
        _trained(student, start),
        as_leaf(1.0 if student.output_scale is None else student.output_scale, dtype),
    )
    objective: AbstractObjective = squared
    if student.linearised:
        objective = _Linearised(start, trained)
    elif student.output_scale is not None:
        objective = _Lazy(start, scale)
    parameters = {"both": width * d, "neurons": width * d, "output": width}[student.trained]
    flat, largest_loss = flatness(
        parameters / n, 0.5 * weighted_mean((data.y / scale) ** 2, data.weight), s2 / scale**2
    )
    done = train(
        key_order, start, objective, FullBatch(data) if batch_size is None else MiniBatches(data, batch_size), optimizer,
        steps=steps, trainable=trained, stop=flat if batch_size is None else NEVER, largest_loss=largest_loss,
    )  # fmt: skip
    theta = done.model
    seen = done.steps.astype(dtype) * (n if batch_size is None else batch_size)
    stats = {
        "train_loss": done.loss * scale**2,
        "width": jnp.asarray(width, jnp.int32),
        "steps": done.steps[None],
        "restarts_run": jnp.ones((), jnp.int32),
        "total_steps": done.steps,
        "sample_steps": seen,
        "neuron_steps": seen * width,
    }
    if student.linearised:
        shift = jax.tree.map(jnp.subtract, theta, start)
        return LinearisedFit(start=start, shift=shift, status=done.status, stats=stats)
    if student.output_scale is not None:
        theta = TwoLayer(
            a=scale * jnp.concatenate([theta.a, -start.a]),
            w=jnp.concatenate([theta.w, start.w]),
            activation=student.activation,
        )
        stats["width"] = 2 * stats["width"]
    return NetworkFit(net=theta, status=done.status, stats=stats)
