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
    """The share `value` of rows whose class is predicted wrongly, their number `wrong`, and the number of all rows,
    `trials`."""

    value: Float[Array, ""]
    wrong: Int[Array, ""]
    trials: Int[Array, ""]


def classes_of(outputs: Array) -> Int[Array, " k"]:
    """The predicted classes of k points. With outputs (k, classes), the class of the largest output; with outputs (k,), which
    are log-odds of class 1, class 1 where the output is positive and 0 elsewhere."""
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

    - `fit`: a fit that predicts one number for each class, (k, classes), as a regression on one-hot responses does, or the
      log-odds of class 1, (k,).
    - `data`: a `Dataset` with classes as y, integers (n,); or, with a `key`, an instance of a task. Rows of weight 0 do
      not count.
    - `attack`: moves the points first (`tsjax.attacks`) so that `loss` grows. The default `loss` is cross-entropy, or the
      logistic loss if there is one output.

    **Raises:** ValueError for responses that are not classes, an instance without a key, and an attack on anything but a
    `ModelFit`.

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
                "an instance is sampled afresh: give a key, which must not be the one that drew the training data."
            )
        key_data, own = jr.split(key)
        data = data.sample(key_data, samples)
    elif key is not None:
        own = key
    if data.y.ndim != 1 or not jnp.issubdtype(data.y.dtype, jnp.integer):
        raise ValueError(
            f"classification needs classes as y, integers (n,); got {data.y.dtype} of shape {tuple(data.y.shape)}. One-hot "
            "responses become classes by jnp.argmax(y, axis=1)."
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
