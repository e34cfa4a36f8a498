"""Students: any network, trained on any loss by any optax optimizer."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..compilation import compiled
from ..losses import AbstractObjective, Objective, Penalised, check, on, outputs_of, squared
from ..network import TwoLayer
from ..optim import Descent, add_langevin_noise, as_leaf, subtract_weight_decay
from ..task import AbstractInstance, Dataset, check_key
from ..train import NEVER, AbstractBatches, AbstractStop, FullBatch, MiniBatches, Never, Online, Validation, train
from ..train.batches import real_first
from ..train.loop import Probe
from .base import AbstractEstimator, AbstractFit, check_at_least, check_dataset, check_values, floats_as_arrays

OptimizerOfRate = Callable[[Any], optax.GradientTransformation]


class ModelFit(AbstractFit):
    """A trained model.

    `stats`: `train_loss` (the objective on the data), `steps` (gradient steps), `sample_steps` (the steps times the rows that
    each used), `parameters` (the number of trained parameters), and with a probe `trajectory` (see `Student.fit`).
    """

    model: Any
    status: Int[Array, "*batch"]
    stats: dict[str, Any]

    def predict(self, x: Array) -> Array:
        """The outputs of the model at the rows of x, (k, *output)."""
        return outputs_of(self.model, x)

    @property
    def as_network(self) -> TwoLayer | None:
        return self.model if isinstance(self.model, TwoLayer) else None


class Applied(eqx.Module):
    """A network given by parameters and a function apply(parameters, x), as in Flax, Haiku and `jax.example_libraries.stax`."""

    parameters: Any
    apply: Callable[[Any, Array], Array] = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        return self.apply(self.parameters, x)


class Centred(eqx.Module):
    """scale (f(x) - f_0(x)) with f_0 the network before training. It is 0 at the start, and a large scale makes training lazy
    (Chizat, Oyallon & Bach 2019, arXiv:1812.07956, equation 2)."""

    model: Any
    start: Any
    scale: Float[Array, ""]

    def __call__(self, x: Array) -> Array:
        return self.scale * (self.model(x) - jax.lax.stop_gradient(self.start(x)))


class Rescaled(AbstractObjective):
    """An objective divided by scale^2. Under the squared loss the outputs of `Centred` then change at the same speed for every
    scale."""

    objective: Objective
    scale: Float[Array, ""]

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        return self.objective(model, batch, key) / self.scale**2

    def on(self, batch: Dataset):
        loss = on(self.objective, batch)
        return lambda model, key: loss(model, key) / self.scale**2

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        check(self.objective, outputs, batch)


class Student(AbstractEstimator):
    r"""Any network, trained on any loss by any optax optimizer: `Student(ts.MLP((64, 64), outputs=10),
    ts.losses.cross_entropy)`.

    **Arguments:**

    - `model`: makes the network. It is a description such as `tsjax.MLP`, with `init(key, point)`; a function (key, point) ->
      an Equinox module; a Flax module; or any pair (init, apply) with init(key, x) -> parameters and apply(parameters, x).
      `point` is the shape of one input (an int for vectors). A network maps one point to its output.
    - `loss`: an objective of `tsjax.losses`, or any function (model, batch, key) -> scalar. Half the mean squared error by
      default.
    - `optimizer`: an optax optimizer; or a function of a learning rate that returns one, such as `optax.adam`, together with
      `learning_rate`. Gradient descent by default.
    - `learning_rate`: a number, or a schedule step -> number. It is required unless `optimizer` is an optax optimizer. Numbers
      are traced: use `jax.vmap` over them.
    - `steps`, `epochs`: the number of gradient steps, or instead the number of passes over the data in mini-batches. 1000 steps
      by default.
    - `batch_size`: rows of a mini-batch, in a new order every epoch. None uses all rows in every step.
    - `penalty`: adds penalty times the sum of the squares of all parameters to the loss.
    - `temperature`: T of gradient Langevin dynamics, which adds sqrt(2 eta T) xi with xi ~ N(0, I) to every update, where eta
      is the `learning_rate`; a number or a schedule.
    - `weight_decay`: lambda of decoupled weight decay: every update also subtracts eta lambda theta, where eta is the
      `learning_rate`. With `optax.adam` that is AdamW. A number, which is traced, or a schedule.
    - `init_scale`: multiplies all initial parameters.
    - `output_scale`: a number alpha >= 1e-6 trains alpha (f - f_0) on loss / alpha^2, where f_0 is the network at the start.
      The value 1.0 centres the network; large values make training lazy. Under the squared loss the outputs change at the same
      speed for every alpha.
    - `trainable`: which leaves are trained, a function of a leaf (`equinox.partition`); all floating-point arrays by default.
    - `stop`: a rule that ends training earlier, such as `tsjax.Flat()`.
    - `validation`: the share of the rows to hold out. Their loss is computed every 50 steps. Training stops once it has missed
      a new minimum `patience` times in a row, and the fit is the network with the lowest such loss (`tsjax.Validation`).

    An optax optimizer is compared by identity: build it once and reuse it, or every fit compiles again. A `learning_rate` that
    is a number does not compile again.

    **Raises:** ValueError for values out of range, and for options that exclude each other.

    >>> def linear(key, point):
    ...     return ts.TwoLayer(a=jnp.ones(1), w=0.1 * jax.random.normal(key, (1, point)))
    >>> data = ts.Dataset(x=jnp.array([[1.0], [2.0], [3.0]]), y=jnp.array([1.0, 2.0, 3.0]))
    >>> fit = ts.Student(linear, learning_rate=0.1, steps=200).fit(jax.random.key(1), data)
    >>> fit.predict(jnp.array([[4.0]])).shape
    (1,)
    """

    model: Any
    loss: Objective = squared
    optimizer: optax.GradientTransformation | OptimizerOfRate | None = eqx.field(static=True, default=None)
    learning_rate: Any = None
    steps: int | None = eqx.field(static=True, default=None)
    batch_size: int | None = eqx.field(static=True, default=None)
    epochs: int | None = eqx.field(static=True, default=None)
    penalty: float | Float[Array, ""] | None = None
    temperature: Any = None
    weight_decay: Any = None
    init_scale: float | Float[Array, ""] | None = None
    output_scale: float | Float[Array, ""] | None = None
    trainable: Callable[[Any], Any] = eqx.field(static=True, default=eqx.is_inexact_array)
    stop: AbstractStop = NEVER
    validation: float | None = eqx.field(static=True, default=None)
    patience: int = eqx.field(static=True, default=5)

    def __check_init__(self):
        if self.model is None or not (callable(self.model) or hasattr(self.model, "init") or _is_pair(self.model)):
            raise ValueError(
                "model makes a network: an object with init(key, point), such as ts.MLP((64,)), a function (key, point) -> "
                f"module, or a pair (init, apply); got {self.model!r}."
            )
        if not callable(self.loss):
            raise ValueError(
                f"loss must be a function (model, batch, key) -> scalar, such as ts.losses.squared; got {self.loss!r}."
            )
        made = isinstance(self.optimizer, optax.GradientTransformation)
        if not made and self.optimizer is not None and not callable(self.optimizer):
            raise ValueError(
                "optimizer must be an optax optimizer such as optax.adam(0.01), or a function of the learning rate such as "
                f"optax.adam; got {self.optimizer!r}."
            )
        if made and self.learning_rate is not None:
            raise ValueError(
                "an optimizer has a learning rate of its own: give optimizer=optax.adam with learning_rate=..., or leave out "
                "learning_rate."
            )
        if not made and self.learning_rate is None:
            which = "gradient descent" if self.optimizer is None else "this optimizer"
            raise ValueError(f"{which} needs a learning_rate, a number or a schedule.")
        if self.temperature is not None and made:
            raise ValueError(
                "temperature needs the step size of the optimizer: give learning_rate and a function such as optax.sgd as the "
                "optimizer, or chain tsjax.add_langevin_noise yourself."
            )
        if self.weight_decay is not None and made:
            raise ValueError(
                "weight_decay is times the step size: give learning_rate and a function such as optax.adam as the optimizer, "
                "or an optimizer with a decay of its own, such as optax.adamw."
            )
        check_at_least("Student", steps=(self.steps, 0), batch_size=(self.batch_size, 1), epochs=(self.epochs, 1))
        check_at_least(
            "Student", penalty=(self.penalty, 0), init_scale=(self.init_scale, 0), patience=(self.patience, 1)
        )
        check_at_least("Student", output_scale=(self.output_scale, 1e-6))
        for name in ("learning_rate", "temperature", "weight_decay"):
            value = getattr(self, name)
            if not callable(value):
                check_at_least("Student", **{name: (value, 0)})
        if self.epochs is not None and (self.batch_size is None or self.steps is not None):
            raise ValueError("epochs counts passes of mini-batches: give batch_size with it, and no steps.")
        if self.validation is not None:
            if not 0.0 < self.validation < 1.0:
                raise ValueError(f"validation is a share of the rows, in (0, 1); got {self.validation}.")
            if not isinstance(self.stop, Never):
                raise ValueError("validation is a rule that ends training: give one of validation and stop.")

    def init(self, key: PRNGKeyArray, x: Array) -> Any:
        """The untrained network for points of the shape and type of the rows of x."""
        net = _network(self.model, key, x[0])
        if self.init_scale is not None:
            scale = lambda leaf: as_leaf(self.init_scale, leaf.dtype) * leaf if eqx.is_inexact_array(leaf) else leaf
            net = jax.tree.map(scale, net)
        return net

    def fit(
        self,
        key: PRNGKeyArray,
        data: Dataset | AbstractInstance,
        *,
        start: Any = None,
        probe: Probe | None = None,
        probe_at: int | tuple[int, ...] | None = None,
    ) -> ModelFit:
        """Trains on one data set, in the floating-point type of its x; or on a stream, which is an instance of a task that is
        sampled afresh at every step, `batch_size` rows at a time.

        `start` is a network to start from in place of a new one. A `probe` maps the current network to a dict of arrays.
        `probe_at` is either the number of log-spaced steps at which it is called, or these steps themselves.
        `fit.stats["trajectory"]` holds its values with `step`.

        **Raises:** ValueError for data that are not finite, that do not fit the loss or the network's outputs, or that have
        fewer rows than a mini-batch; for a stream without `batch_size`, or with `epochs` or `validation`; and for one of
        `probe` and `probe_at` without the other.
        """
        if (probe is None) != (probe_at is None):
            raise ValueError("probe and probe_at go together: give both or neither.")
        check_key(key)
        if isinstance(data, AbstractInstance):
            if self.batch_size is None or self.epochs is not None or self.validation is not None:
                raise ValueError("a stream needs batch_size and steps; it has neither epochs nor rows to hold out.")
        else:
            check_dataset(data)
            check_values(data)
            if self.batch_size is not None and self.batch_size > self._kept(data.n):
                raise ValueError(
                    f"batch_size={self.batch_size} is more than the n={self._kept(data.n)} samples; lower it."
                )
            # The check is here because labels are known; inside jit they are not.
            net = lambda x: outputs_of(self.init(key, x) if start is None else start, x)
            check(self.loss, eqx.filter_eval_shape(net, _floats(data.x)), data)
        return _fit(floats_as_arrays(self), key, data, start, probe, probe_at)

    def _kept(self, n: int) -> int:
        """The number of rows, out of n, that are trained on."""
        return n if self.validation is None else n - max(1, round(self.validation * n))


def _is_pair(model: Any) -> bool:
    return isinstance(model, tuple) and len(model) == 2 and all(map(callable, model))


def _network(model: Any, key: PRNGKeyArray, x: Array) -> Any:
    """The untrained network for one point x, in its type."""
    point = x.shape[0] if x.ndim == 1 else x.shape
    if _is_pair(model) or (hasattr(model, "init") and hasattr(model, "apply")):
        init, apply = model if _is_pair(model) else (model.init, model.apply)
        net = Applied(init(key, x), apply)
    elif hasattr(model, "init"):
        net = model.init(key, point)
    else:
        net = model(key, point)
    cast = lambda leaf: leaf.astype(x.dtype) if eqx.is_inexact_array(leaf) else leaf
    return jax.tree.map(cast, net)


def _floats(x: Array) -> Array:
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


@compiled
def _fit(student: Student, key, data, start, probe, probe_at) -> ModelFit:
    key_init, key_train, key_noise, key_split = jr.split(key, 4)
    stop, size = student.stop, student.batch_size
    if isinstance(data, AbstractInstance):
        # Training uses the floating-point type in which the instance samples.
        example = data.sample(key_init, 1).x
        batches: AbstractBatches = Online(data, size or 1)
        rows: Any = size
        steps: Any = student.steps
    else:
        rows_of = _in_one_type(data)
        example = rows_of.x
        if student.validation is not None:
            rows_of, held = _split(key_split, rows_of, student.validation)
            stop = Validation(data=held, objective=student.loss, patience=student.patience)
        batches = FullBatch(rows_of) if size is None else MiniBatches(rows_of, size)
        count = rows_of.n if rows_of.weight is None else jnp.sum(rows_of.weight > 0)
        rows = count if size is None else size
        steps = student.steps if student.epochs is None else student.epochs * (count // (size or 1))
    net = student.init(key_init, example) if start is None else start
    optimizer, dtype = _optimizer(student, key_noise, example.dtype), example.dtype
    objective, trainable = student.loss, jax.tree.map(student.trainable, net)
    if student.output_scale is not None:
        scale = as_leaf(student.output_scale, dtype)
        objective = Rescaled(objective, scale)
        net = Centred(net, net, scale)
        trainable = eqx.tree_at(lambda tree: tree.model, jax.tree.map(lambda _: False, net), trainable)
    if student.penalty is not None:
        objective = Penalised(objective, as_leaf(student.penalty, dtype))
    done = train(
        key_train, net, objective, batches, optimizer, steps=1000 if steps is None else steps, trainable=trainable,
        stop=stop, probe=probe, probe_at=() if probe_at is None else probe_at,
    )  # fmt: skip
    stats: dict[str, Any] = {
        "train_loss": done.loss,
        "steps": done.steps,
        "sample_steps": done.steps.astype(done.loss.dtype) * rows,
        "parameters": jnp.asarray(sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(net, trainable))), jnp.int32),
    }
    if probe is not None:
        stats["trajectory"] = done.trajectory
    return ModelFit(model=done.model, status=done.status, stats=stats)


def _in_one_type(data: Dataset) -> Dataset:
    """The data with x, and responses that are not class labels, in the floating-point type of x."""
    x = _floats(data.x)
    y = data.y.astype(x.dtype) if jnp.issubdtype(data.y.dtype, jnp.inexact) else data.y
    return Dataset(x=x, y=y, weight=data.weight)


def _optimizer(student: Student, key, dtype) -> optax.GradientTransformation:
    def leaf(value) -> Any:
        """A number in the floating-point type of training; a schedule or None is returned as it is."""
        return value if value is None or callable(value) else as_leaf(value, dtype)

    rate, temperature, decay = (leaf(v) for v in (student.learning_rate, student.temperature, student.weight_decay))
    if isinstance(student.optimizer, optax.GradientTransformation):
        return student.optimizer
    # The fast paths recognise plain descent by its class.
    optimizer = Descent(rate, temperature, key) if student.optimizer is None else student.optimizer(rate)
    if decay is not None:
        optimizer = optax.chain(optimizer, subtract_weight_decay(rate, decay))
    if temperature is None or student.optimizer is None:
        return optimizer
    return optax.chain(optimizer, add_langevin_noise(rate, temperature, key))


def _split(key, data: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """The rows to train on, and the random share that is held out. Both parts may contain rows of weight 0."""
    n = data.n
    held = max(1, round(share * n))
    weight = data.weight
    if weight is None:
        order = jr.permutation(key, n)
        part = lambda rows: Dataset(x=data.x[rows], y=data.y[rows])
        return part(order[held:]), part(order[:held])
    # The share is that of the rows of weight > 0. Both parts keep all rows, and a row has weight 0 in the part that lacks it.
    order = real_first(key, weight)
    place = jnp.zeros(n, order.dtype).at[order].set(jnp.arange(n, dtype=order.dtype), unique_indices=True)
    is_held = place < jnp.maximum(1, jnp.round(share * jnp.sum(weight > 0)))
    weighted = lambda kept: Dataset(x=data.x, y=data.y, weight=jnp.where(kept, weight, 0.0))
    return weighted(~is_held), weighted(is_held)
