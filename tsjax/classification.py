"""How often a classifier is wrong."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .estimators.base import AbstractFit
from .estimators.student import ModelFit
from .losses import Objective, cross_entropy, logistic
from .task import AbstractInstance, Dataset


class ClassificationError(NamedTuple):
    """The share of the rows whose class is predicted wrongly, how many these are, and of how many rows."""

    value: Float[Array, ""]
    wrong: Int[Array, ""]
    trials: Int[Array, ""]


def classes_of(outputs: Array) -> Int[Array, " k"]:
    """The predicted classes: the largest of several outputs (k, classes); 1 where the only output (k,), the log-odds of class
    1, is positive."""
    return jnp.argmax(outputs, axis=1) if outputs.ndim == 2 else (outputs > 0).astype(jnp.int32)


def classification_error(
    fit: AbstractFit,
    data: Dataset | AbstractInstance,
    *,
    key: PRNGKeyArray | None = None,
    samples: int = 16384,
    attack: Callable | None = None,
    loss: Objective | None = None,
) -> ClassificationError:
    """The classification error of a fit on rows of data with labels, or on `samples` fresh rows of an instance.

    **Arguments:**

    - `fit`: what predicts one number for each class, (k, classes), or the log-odds of class 1, (k,). A regression on one-hot
      responses is of the first kind.
    - `data`: a `Dataset` with classes as y, integers (n,); or, with a `key`, an instance of a task. Rows of weight 0 do
      not count.
    - `attack`: moves the points first (`tsjax.attacks`), against `loss`, which is cross-entropy, or the logistic loss for
      one output.

    **Raises:** ValueError for responses that are no classes, an instance without a key, and an attack on what is no network.

    >>> net = lambda x: jnp.stack([x[0], -x[0]])
    >>> fit = ts.ModelFit(net, jnp.array(0), {})
    >>> data = ts.Dataset(x=jnp.array([[1.0], [2.0], [-1.0]]), y=jnp.array([0, 1, 1]))
    >>> int(ts.classification_error(fit, data).wrong)
    1
    """
    own: Any = None
    if isinstance(data, AbstractInstance):
        if key is None:
            raise ValueError(
                "an instance is sampled afresh: give a key, which must not be one that made the training data."
            )
        key_data, own = jr.split(key)
        data = data.sample(key_data, samples)
    elif key is not None:
        own = key
    if data.y.ndim != 1 or not jnp.issubdtype(data.y.dtype, jnp.integer):
        raise ValueError(
            f"classification needs classes as y, integers (n,); got {data.y.dtype} of shape {tuple(data.y.shape)}. One-hot "
            "responses are classes again by jnp.argmax(y, axis=1)."
        )
    x = data.x
    if attack is not None:
        model: Any = getattr(fit, "model", None)
        if not isinstance(fit, ModelFit):
            raise ValueError(f"an attack needs the network of a ts.Student, got a {type(fit).__name__}.")
        if loss is None:
            loss = logistic if fit.predict(x[:1]).ndim == 1 else cross_entropy
        x = attack(loss, model, data, own)
    wrong = classes_of(fit.predict(x)) != data.y
    counts = jnp.ones(data.n, bool) if data.weight is None else data.weight > 0
    trials, wrong = jnp.sum(counts), jnp.sum(wrong & counts)
    return ClassificationError(wrong / trials, wrong, trials)
