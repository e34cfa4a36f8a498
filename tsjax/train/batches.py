"""The batches of training steps: all data, mini-batches, or fresh samples."""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..task import AbstractInstance, Dataset


class AbstractBatches(eqx.Module):
    """A sequence of batches that depends only on a key and the step."""

    @property
    def fixed(self) -> Dataset | None:
        """The batch if it is the same in every step, else None."""
        return None

    @property
    def data(self) -> Dataset | None:
        """All data that the batches come from, or None for a stream."""
        return None

    def start(self, key: PRNGKeyArray) -> Any:
        """The state at step 0, which `at` passes on from step to step."""
        del key
        return None

    @abstractmethod
    def at(self, key: PRNGKeyArray, step: Int[Array, ""], state: Any) -> tuple[Dataset, Any]:
        """The batch of a step, and the new state."""


class FullBatch(AbstractBatches):
    """All rows in every step."""

    rows: Dataset

    @property
    def fixed(self) -> Dataset:
        return self.rows

    @property
    def data(self) -> Dataset:
        return self.rows

    def at(self, key: PRNGKeyArray, step: Int[Array, ""], state: Any) -> tuple[Dataset, Any]:
        del key, step
        return self.rows, state


class MiniBatches(AbstractBatches):
    """`size` rows without replacement, in a new random order every epoch. The last rows of an epoch are left out if they do not
    fill a batch.

    The order depends only on (key, epoch). Rows of weight 0 are in no batch, unless the others are too few to fill one.

    **Raises:** ValueError for a size below 1 or above the number of rows.
    """

    rows: Dataset
    size: int = eqx.field(static=True)

    def __check_init__(self):
        if not 1 <= self.size <= self.rows.n:
            raise ValueError(f"a mini-batch has between 1 and n={self.rows.n} rows, got size={self.size}.")

    @property
    def data(self) -> Dataset:
        return self.rows

    def start(self, key: PRNGKeyArray) -> Int[Array, " n"]:
        return self._order(key, jnp.zeros((), jnp.int32))

    def _order(self, key: PRNGKeyArray, epoch) -> Int[Array, " n"]:
        key = jr.fold_in(key, epoch)
        return jr.permutation(key, self.rows.n) if self.rows.weight is None else real_first(key, self.rows.weight)

    def at(self, key: PRNGKeyArray, step: Int[Array, ""], state: Any) -> tuple[Dataset, Any]:
        rows = self.rows
        if self.size == rows.n:
            # A batch of all rows needs no order.
            return rows, state
        count = rows.n if rows.weight is None else jnp.sum(rows.weight > 0)
        per_epoch = jnp.maximum(count // self.size, 1)
        # The order is drawn once in an epoch, since sorting costs more than a step.
        order = jax.lax.cond(step % per_epoch == 0, lambda: self._order(key, step // per_epoch), lambda: state)
        chosen = jax.lax.dynamic_slice(order, (step % per_epoch * self.size,), (self.size,))
        weight = None if rows.weight is None else rows.weight[chosen]
        return Dataset(x=rows.x[chosen], y=rows.y[chosen], weight=weight), order


class Online(AbstractBatches):
    """`size` fresh samples of an instance in every step. No sample is used twice, and none is stored. **Raises:** ValueError
    for a size below 1."""

    instance: AbstractInstance
    size: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.size < 1:
            raise ValueError(f"a batch has at least 1 row, got size={self.size}.")

    def at(self, key: PRNGKeyArray, step: Int[Array, ""], state: Any) -> tuple[Dataset, Any]:
        return self.instance.sample(jr.fold_in(key, step), self.size, self.dtype), state


def real_first(key: PRNGKeyArray, weight: Float[Array, " n"]) -> Int[Array, " n"]:
    """A random order of the rows, with rows of weight 0 last. The order of the k other rows is that of
    `jax.random.permutation(key, k)`, regardless of the positions of the rows of weight 0."""
    n = weight.shape[0]
    count = jnp.sum(weight > 0)
    order = jnp.argsort(weight <= 0, stable=True)
    # JAX's shuffle sorts by 32 random bits in each of several rounds, so many that ties do not matter.
    for done in range(math.ceil(3 * math.log(max(1, n)) / math.log(2**32 - 1))):
        key, own = jr.split(key)
        bits = jr.bits(own, (n,), jnp.uint32)
        _, _, sorted_order = jax.lax.sort((jnp.arange(n) >= count, bits, order), num_keys=2, is_stable=True)
        # k rows need round r as long as k^3 > (2^32 - 1)^(r - 1).
        needed = 3 * jnp.log(count.astype(jnp.float32)) > done * math.log(2**32 - 1)
        order = jnp.where(needed, sorted_order, order)
    return order


def some_rows(key: PRNGKeyArray, data: Dataset, count: int) -> Dataset:
    """`count` random rows without replacement, or all rows if there are no more. Of data with weights, the rows are drawn from
    those of weight > 0; if these are too few, all of them are taken, and rows of weight 0 fill up the number."""
    if count >= data.n:
        return data
    if data.weight is None:
        chosen = jr.choice(key, data.n, (count,), replace=False)
        return Dataset(x=data.x[chosen], y=data.y[chosen])
    there = data.weight > 0
    # If at most `count` rows have weight > 0, all of them are taken, in their order.
    chosen = jnp.where(jnp.sum(there) <= count, jnp.argsort(~there, stable=True), real_first(key, data.weight))[:count]
    return Dataset(x=data.x[chosen], y=data.y[chosen], weight=data.weight[chosen])
