"""A sample size as data rather than as a shape, so that all sizes of a curve can share one compiled program."""

import operator
from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Size(eqx.Module):
    """A sample of `count` rows in arrays of `limit` rows: the first `count` rows have weight 1, and the others have weight 0.

    An experiment receives a `Size` for each argument that `sized` names. `problem.sample(key, teacher, size)` draws `limit`
    rows that begin with those of `problem.sample(key, teacher, count)`, with weights.

    - `limit`: fixes shapes, so it is static.
    - `count`: a number, or traced, from 1 to `limit`. If it is the number `limit`, nothing is padded.

    **Raises:** ValueError for a count outside 1 .. limit, if it is not traced.

    >>> size = ts.Size(limit=4, count=jnp.asarray(3))
    >>> size.weights(jnp.float32).tolist()
    [1.0, 1.0, 1.0, 0.0]
    """

    limit: int = eqx.field(static=True)
    count: int | Int[Array, ""]

    def __check_init__(self):
        if isinstance(self.count, int) and not 1 <= self.count <= self.limit:
            raise ValueError(f"a data set needs at least one point, got n={self.count} (of at most {self.limit}).")

    @property
    def is_padded(self) -> bool:
        """Whether some rows may have weight 0."""
        return not (isinstance(self.count, int) and self.count == self.limit)

    def weights(self, dtype=None) -> Float[Array, " limit"] | None:
        """1 for the first `count` rows and 0 for the others, (limit,); None if nothing is padded."""
        dtype = jnp.result_type(float) if dtype is None else dtype
        return (jnp.arange(self.limit) < self.count).astype(dtype) if self.is_padded else None


def ladder(limit: int) -> tuple[int, ...]:
    """The sizes up to `limit`, ascending, for which a program holds a factorisation (`tsjax.estimators.leading`): the limit and
    those of its half, quarter and eighth that are at least 32."""
    shares = [-(-limit // 2**halvings) for halvings in (3, 2, 1)]
    return (*(size for size in shares if size >= 32), limit)


# The type of n in functions that sample.
Rows: TypeAlias = int | Size


def size_of(n: Rows) -> Size:
    """A number of rows as a size that is not padded. **Raises:** ValueError below 1, and TypeError for anything but a whole
    number."""
    if isinstance(n, Size):
        return n
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"the number of rows n is a whole number, got {n!r}.") from None
    return Size(limit=count, count=count)
