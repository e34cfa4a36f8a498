r"""Objectives that training minimises, functions of (model, batch, key). Most are means over the rows of a batch, with its
weights.

Any function of these three that returns a scalar is an objective, so you can write your own. `key` is for objectives that draw
random numbers, and is new in every step. Objectives here that have a setting are classes: `CrossEntropy(0.1)`.

A model maps one point x (*point) to its output, a scalar () or a vector (k,).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .activations import relu
from .fast.loss import half_mse
from .fast.steps import scaled_samples
from .network import TwoLayer
from .precision import is_traced
from .task import Dataset

Objective: TypeAlias = Callable[..., Any]
"""(model, batch, key) -> a scalar."""


class AbstractObjective(eqx.Module):
    """An objective that can prepare a batch once, and that can check outputs against responses before training."""

    @abstractmethod
    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        """The objective of a model on a batch."""

    def on(self, batch: Dataset) -> Callable[[Any, PRNGKeyArray | None], Float[Array, ""]]:
        """The objective as a function of (model, key) on a batch that stays the same, which is prepared once."""
        return lambda model, key: self(model, batch, key)

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:  # noqa: B027
        """Raises ValueError if the outputs (n, *output) of a model do not fit the responses of the batch."""


def on(objective: Objective, batch: Dataset) -> Callable[[Any, PRNGKeyArray | None], Float[Array, ""]]:
    """`objective.on(batch)`, also for an objective that is a plain function."""
    if isinstance(objective, AbstractObjective):
        return objective.on(batch)
    return lambda model, key: objective(model, batch, key)


def outputs_of(model: Any, x: Array) -> Array:
    """The outputs of a model at the rows of x, (n, *output)."""
    return model.samples_last(x.T) if isinstance(model, TwoLayer) else jax.vmap(model)(x)


def weighted_mean(values: Float[Array, " n"], weight: Float[Array, " n"] | None) -> Float[Array, ""]:
    """sum_i w_i v_i / sum_i w_i. A row of weight 0 does not count, even where its value is not finite."""
    if weight is None:
        return jnp.mean(values)
    weight = weight.astype(values.dtype)
    return jnp.sum(jnp.where(weight > 0, weight * values, 0.0)) / jnp.sum(weight)


class Squared(AbstractObjective):
    r"""(1/2) sum_i w_i |f(x_i) - y_i|^2 / sum_i w_i, where |.| is the norm over the outputs: half the mean squared error.

    On CPUs, value and gradient of `TwoLayer` relu networks come from a kernel written in C (`tsjax.fast`).
    """

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        return self.on(batch)(model, key)

    def on(self, batch: Dataset):
        # Two-layer networks take samples on the last axis. Transpose once here, not in every step.
        plain = batch.x.ndim == 2 and batch.y.ndim == 1
        samples = scaled_samples(batch.x.T, batch.y, batch.weight) if plain else None

        def loss(model, key):
            del key
            if (
                isinstance(model, TwoLayer)
                and samples is not None
                and (batch.weight is None or model.activation == relu)
            ):
                return half_mse(model, *samples)
            outputs = outputs_of(model, batch.x)
            squares = (outputs - batch.y) ** 2
            return 0.5 * weighted_mean(squares.reshape(squares.shape[0], -1).sum(axis=1), batch.weight)

        return loss

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        refuse_labels(batch.y)
        if outputs.shape != batch.y.shape:
            raise ValueError(
                f"the model has outputs of shape {_row(outputs)} for each point, but responses y of shape {_row(batch.y)}. "
                "A scalar response needs outputs=None, k responses need outputs=k."
            )


class Logistic(AbstractObjective):
    r"""The mean of log(1 + exp(-s_i f(x_i))), s_i = 2 y_i - 1: the cross-entropy of two classes, for a model whose one output
    is the log-odds of class 1. `y` holds the classes 0 and 1, or probabilities of class 1."""

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        del key
        logits = outputs_of(model, batch.x)
        values = optax.losses.sigmoid_binary_cross_entropy(logits, batch.y.astype(logits.dtype))
        return weighted_mean(values, batch.weight)

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        if outputs.ndim != 1 or batch.y.ndim != 1:
            raise ValueError(
                f"the logistic loss takes one output () and one response for each point, got outputs {_row(outputs)} and "
                f"responses {_row(batch.y)}; for more classes use tsjax.losses.cross_entropy."
            )
        lowest, highest = _range(batch.y)
        if lowest < 0 or highest > 1:
            raise ValueError(
                f"the logistic loss takes classes 0 and 1, or probabilities; y is from {lowest} to {highest}. Turn classes "
                "-1 and 1 into 0 and 1 by (y + 1) / 2."
            )


class CrossEntropy(AbstractObjective):
    r"""The mean of -sum_c p_ic log softmax(f(x_i))_c. `y` holds classes, integers (n,) from 0, or probabilities p (n, classes).

    **Arguments:**

    - `label_smoothing`: alpha in [0, 1) replaces p by (1 - alpha) p + alpha / classes (Szegedy et al. 2016, arXiv:1512.00567,
      section 7).
    """

    label_smoothing: float | Float[Array, ""] = 0.0

    def __check_init__(self):
        if not is_traced(self.label_smoothing) and not 0.0 <= float(self.label_smoothing) < 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}.")

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        del key
        logits = outputs_of(model, batch.x)
        if batch.y.ndim == 1 and isinstance(self.label_smoothing, float) and self.label_smoothing == 0.0:
            values = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch.y)
        else:
            shares = jax.nn.one_hot(batch.y, logits.shape[-1], dtype=logits.dtype) if batch.y.ndim == 1 else batch.y
            alpha = jnp.asarray(self.label_smoothing).astype(logits.dtype)
            values = optax.losses.softmax_cross_entropy(logits, (1 - alpha) * shares + alpha / logits.shape[-1])
        return weighted_mean(values, batch.weight)

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        classes = outputs.shape[-1]
        if outputs.ndim != 2:
            raise ValueError(
                f"cross-entropy takes a model with one output for each class, outputs (classes,); got {_row(outputs)}."
            )
        if batch.y.ndim == 1 and not jnp.issubdtype(batch.y.dtype, jnp.integer):
            raise ValueError(
                f"cross-entropy takes classes, integers (n,) from 0, or probabilities (n, classes); y is {batch.y.dtype} of "
                f"shape {tuple(batch.y.shape)}. For regression use tsjax.losses.squared."
            )
        if batch.y.ndim == 2 and batch.y.shape[1] != classes:
            raise ValueError(
                f"the model has {classes} outputs, but y holds the probabilities of {batch.y.shape[1]} classes."
            )
        lowest, highest = _range(batch.y)
        if batch.y.ndim == 1 and (lowest < 0 or highest >= classes):
            raise ValueError(
                f"the model has {classes} outputs, for the classes 0 to {classes - 1}, but y holds labels from {lowest} to "
                f"{highest}."
            )


class BarlowTwins(AbstractObjective):
    r"""sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2, where C is the cross-correlation over the batch between the outputs at
    two random views of every point (Zbontar et al. 2021, arXiv:2103.03230, equations 1 and 2). It uses no labels.

    **Arguments:**

    - `augment`: (key, x) -> a random view of one point x.
    - `off_diagonal`: lambda, 5e-3 in the paper.
    """

    augment: Callable[[PRNGKeyArray, Array], Array] = eqx.field(static=True)
    off_diagonal: float | Float[Array, ""] = 5e-3

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        if key is None:
            raise ValueError("the Barlow Twins loss draws two views of every point: give a key.")
        n = batch.n
        weight = jnp.ones(n) if batch.weight is None else batch.weight
        standard = []
        for one in jr.split(key):
            # The view of a row depends only on its place, so rows added at the end change no earlier view.
            keys = jax.vmap(lambda i, one=one: jr.fold_in(one, i))(jnp.arange(n))
            outputs = outputs_of(model, jax.vmap(self.augment)(keys, batch.x))
            share = (weight / jnp.sum(weight)).astype(outputs.dtype)[:, None]
            centred = outputs - jnp.sum(share * outputs, axis=0, keepdims=True)
            variance = jnp.sum(share * centred**2, axis=0, keepdims=True)
            standard.append(jnp.sqrt(share) * centred / jnp.sqrt(variance + jnp.finfo(outputs.dtype).tiny))
        correlation = jnp.matmul(standard[0].T, standard[1], precision="highest")
        diagonal = jnp.diagonal(correlation)
        off = jnp.sum(correlation**2) - jnp.sum(diagonal**2)
        return jnp.sum((1 - diagonal) ** 2) + jnp.asarray(self.off_diagonal).astype(off.dtype) * off

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        if outputs.ndim != 2:
            raise ValueError(f"the Barlow Twins loss takes a model with several outputs (k,), got {_row(outputs)}.")


class PairedBarlowTwins(AbstractObjective):
    r"""||C - I||_F^2, where C is the symmetrised cross-moment matrix of the outputs at the two views of every point:

        C = sum_i w_i (f(x_i) f(x_i^+)^T + f(x_i^+) f(x_i)^T) / (2 sum_i w_i)

    (Fleissner, Anil & Ghoshdastidar 2024, arXiv:2411.11176). `batch.x` holds the first views x_i, and `batch.y` the second
    views x_i^+, in the shape of x. Unlike in `BarlowTwins`, outputs are neither centred nor divided by their standard
    deviations.
    """

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        del key
        first, second = outputs_of(model, batch.x), outputs_of(model, batch.y)
        weight = jnp.ones(batch.n) if batch.weight is None else batch.weight
        share = (weight / jnp.sum(weight)).astype(first.dtype)[:, None]
        # A row of weight 0 does not count, even where its outputs are not finite.
        first, second = (jnp.where(share > 0, outputs, 0.0) for outputs in (first, second))
        moments = jnp.matmul((share * first).T, second, precision="highest")
        return jnp.sum(((moments + moments.T) / 2 - jnp.eye(first.shape[1], dtype=first.dtype)) ** 2)

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        if outputs.ndim != 2:
            raise ValueError(f"the Barlow Twins loss takes a model with several outputs (k,), got {_row(outputs)}.")
        if batch.y.shape != batch.x.shape:
            raise ValueError(
                f"the loss of pairs takes the second view of every point as its response: x has points of shape "
                f"{_row(batch.x)}, y of shape {_row(batch.y)}."
            )


class Penalised(AbstractObjective):
    """An objective plus l2 times the sum of the squares of all parameters (all arrays of the model of an inexact type)."""

    objective: Objective
    l2: float | Float[Array, ""]

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        return self.on(batch)(model, key)

    def on(self, batch: Dataset):
        loss = on(self.objective, batch)

        def penalised(model, key):
            squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
            value = loss(model, key)
            return value + jnp.asarray(self.l2).astype(value.dtype) * squares

        return penalised

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        check(self.objective, outputs, batch)


class Reparametrised(AbstractObjective):
    """An objective evaluated at transform(model): training moves the parameters of `model`, and the loss sees the transformed
    one."""

    objective: Objective
    transform: Callable[[Any], Any]

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        return self.objective(self.transform(model), batch, key)

    def on(self, batch: Dataset):
        loss = on(self.objective, batch)
        return lambda model, key: loss(self.transform(model), key)

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        check(self.objective, outputs, batch)


class Adversarial(AbstractObjective):
    """An objective at the points of a batch after an attack has moved them (Madry et al. 2018, arXiv:1706.06083, equation 2).

    The attack sees the current model; the gradient step takes the moved points as constants.
    """

    objective: Objective
    attack: Callable[[Objective, Any, Dataset, PRNGKeyArray | None], Array]

    def __call__(self, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        own, rest = (None, None) if key is None else jr.split(key)
        x = jax.lax.stop_gradient(self.attack(self.objective, model, batch, own))
        return self.objective(model, Dataset(x=x, y=batch.y, weight=batch.weight), rest)

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        check(self.objective, outputs, batch)


squared = Squared()
logistic = Logistic()
cross_entropy = CrossEntropy()
paired_barlow_twins = PairedBarlowTwins()


def barlow_twins(augment: Callable[[PRNGKeyArray, Array], Array], off_diagonal=5e-3) -> BarlowTwins:
    """`BarlowTwins(augment, off_diagonal)`."""
    return BarlowTwins(augment, off_diagonal)


def adversarial(objective: Objective, attack: Callable) -> Adversarial:
    """`Adversarial(objective, attack)`; attacks are those of `tsjax.attacks`."""
    return Adversarial(objective, attack)


def check(objective: Objective, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
    """`objective.check(outputs, batch)`, unless the objective is a plain function, which has no check."""
    if isinstance(objective, AbstractObjective):
        objective.check(outputs, batch)


def refuse_labels(y) -> None:
    """Raises ValueError if y holds class labels (integers or booleans), since a regression needs real numbers."""
    if getattr(getattr(y, "dtype", None), "kind", "f") in "iub":
        raise ValueError(
            f"y holds class labels (type {y.dtype}), not numbers to regress on. Train with a loss for classes "
            "(tsjax.losses.cross_entropy), make one output for each class (jax.nn.one_hot(y, classes)), or, if they are "
            "counts, give y.astype(float)."
        )


def _range(y) -> tuple[float | int, float | int]:
    """The smallest and the largest response; 0 and 0 if only the shape is known."""
    if is_traced(y) or not isinstance(y, (np.ndarray, jax.Array)):
        return 0, 0
    values = np.asarray(y)
    return values.min().item(), values.max().item()


def _row(values) -> str:
    return f"({', '.join(map(str, values.shape[1:]))}{',' if values.ndim == 2 else ''})"
