"""Learning problems: a task draws an instance, and an instance samples data sets.

A task is a family of learning problems, such as all teachers of one width. `task.draw(key)` gives one instance: a teacher, a
mixture, a split of rows. The instance samples data, and gives the best prediction if that is known.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from .precision import is_traced
from .size import Rows


class Dataset(eqx.Module):
    """A training sample of n rows.

    - `x`: inputs (n, *point): vectors (n, d), images (n, height, width, channels), pairs of views, ...
    - `y`: responses (n, *response): numbers (n,), several outputs (n, k), or class labels, integers (n,).
    - `weight`: sample weights w_i >= 0 of shape (n,), or None for weights of 1. Losses are means weighted by w_i; kernel
      methods take the noise of row i to have the variance ridge / w_i. A row of weight 0 has no effect.

    All three may have a leading batch axis where a function says so.

    **Raises:** ValueError if x and y have different numbers of rows, if a weight is negative or not finite, or if all weights
    are 0.
    """

    x: Shaped[Array, "..."]
    y: Shaped[Array, "..."]
    weight: Float[Array, "*batch n"] | None = None

    def __check_init__(self):
        # JAX transformations also build this class with leaves that are not arrays.
        if not hasattr(self.x, "shape") or not hasattr(self.y, "shape"):
            return
        x, y = self.x.shape, self.y.shape
        if len(x) < 2 or not y or x[0] != y[0]:
            raise ValueError(f"a Dataset holds x (n, *point) and y (n, *response), got x {tuple(x)} and y {tuple(y)}.")
        if getattr(self.weight, "shape", None) is not None:
            _check_weight(self.weight, y)

    @property
    def n(self) -> int:
        """The number of rows, including those of weight 0."""
        return self.x.shape[0]

    @property
    def d(self) -> int:
        """The dimension of the inputs, if they are vectors."""
        return self.x.shape[-1]

    @property
    def weights(self) -> Float[Array, " n"]:
        """The sample weights, all 1 if none are given."""
        return jnp.ones(self.n, jnp.result_type(float)) if self.weight is None else self.weight


def _check_weight(weight: Any, y: tuple[int, ...]) -> None:
    if weight.shape != y[: len(weight.shape)] or not weight.shape:
        raise ValueError(f"weight has one number for each row, shape {tuple(y[:1])}, got {tuple(weight.shape)}.")
    if is_traced(weight) or not isinstance(weight, (np.ndarray, jax.Array)):
        return
    values = np.asarray(weight)
    bad = np.argwhere(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"weight has {len(bad)} value(s) that are negative or not finite, the first, {values[where]}, at index {where}. "
            "Sample weights are >= 0; a row of weight 0 has no effect."
        )
    if not (values > 0).any(axis=-1).all():
        raise ValueError("all sample weights are 0, so there is nothing to learn from; give some row a weight > 0.")


class AbstractInstance(eqx.Module):
    """One learning problem that a task has drawn: it samples data, and gives the best prediction if that is known."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray, n: Rows, dtype=None) -> Dataset:
        """n independent rows. If n is a `tsjax.Size`, rows after its count have weight 0."""

    @property
    def target(self) -> Any:
        """The best prediction as a function of one point: the regression function of a regression, the Bayes rule (a class)
        of a classification. None if it is not known."""
        return None


class AbstractTask(eqx.Module):
    """A family of learning problems."""

    @abstractmethod
    def draw(self, key: PRNGKeyArray, dtype=None) -> AbstractInstance:
        """One instance at random."""


def check_key(key: Any) -> None:
    """Raises TypeError unless `key` is one random key of JAX: `jax.random.key(0)`, or the older form that
    `jax.random.PRNGKey(0)` gives."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is None or shape is None:
        seed = f"jax.random.key({key})" if isinstance(key, int) else "jax.random.key(0)"
        raise TypeError(f"key is a random key of JAX, such as {seed}; got {type(key).__name__} {str(key)[:40]}.")
    typed = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != np.uint32:
        raise TypeError(
            f"key is a random key of JAX, such as jax.random.key(0); got an array of {dtype} {tuple(shape)}."
        )
    if len(shape) != (0 if typed else 1):
        raise TypeError(
            f"key is one random key of JAX; got an array of keys, shape {tuple(shape)}. Use jax.vmap over keys, or, to fit "
            "many data sets, tsjax.fit_many."
        )


def check_numbers(name: str, values: Any) -> None:
    """Raises ValueError for values that are missing (masked entries of a NumPy array, None, pandas.NA) or not numbers, and says
    which. NaN and infinity count as numbers here."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        bad = np.ma.getmaskarray(values)
        what = "value(s) that are masked"
    elif getattr(values, "dtype", None) is not None and not _is_numeric(values.dtype):
        bad = np.vectorize(_no_number, otypes=[bool])(np.asarray(values, object))
        what = "value(s) that are missing or not numbers"
        if not bad.any():
            raise ValueError(
                f"{name} is an array of type {values.dtype}; make it one of float64: np.asarray(values, float)."
            )
    else:
        return
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    raise ValueError(
        f"{name} has {int(bad.sum())} {what}, the first at index {where}. Drop those rows, or fill them in, before fitting."
    )


def _is_numeric(dtype: Any) -> bool:
    # bfloat16 and similar types are numbers for JAX, but of an opaque kind for NumPy.
    return getattr(dtype, "kind", "O") in "fiub" or getattr(dtype, "name", "").startswith(("bfloat", "float8"))


def _no_number(value: Any) -> bool:
    return isinstance(value, str) or not isinstance(value, (int, float, np.number, np.bool_))
