"""Code shared by the smoothers: distances, groups of equal points that are left out together, and the choice of a candidate."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..status import Status
from ..task import Dataset
from .base import check_data
from .repeats import Sample
from .ridge import best_score
from .tuning import Fixed, Oracle, Search, check_oracle, hold_out, oracle_sample, rows_present

# The largest number of entries in one matrix of distances (rows of a block times training points): 32 MB in float64.
_ENTRIES = 2**22


def check_smoother(name: str, key: PRNGKeyArray, rule: Fixed | Search, oracle: Oracle | None, data: Dataset) -> None:
    """Raises the errors of `check_data`, and ValueError for fewer than 2 points and for an oracle that is missing or not
    needed."""
    check_data(key, data, outputs=True, weights=True)
    if rows_present(data) < 2:
        n = rows_present(data)
        raise ValueError(f"a smoother needs at least 2 points (leave-one-out keeps one of them), got n={n}.")
    check_oracle(name, rule, oracle, data)


def check_points(x_train, x) -> None:
    if jnp.ndim(x) != 2 or jnp.shape(x)[1] != x_train.shape[-1]:
        raise ValueError(
            f"expected x of shape (k, {x_train.shape[-1]}), got {jnp.shape(x)}. Use x[None, :] for a single point."
        )


class Scores(NamedTuple):
    """Effective degrees of freedom and scores, of one fit () or of each of the p candidates of the path (p,)."""

    dof: Array
    gcv: Array
    loo: Array


def tune(
    criterion: str,
    key: PRNGKeyArray,
    sample: Sample,
    oracle: Oracle | None,
    within: Callable[[], Scores],
    errors: Callable[[Sample, Sample], Float[Array, " p"]],
) -> Int[Array, ""]:
    """The index of the best candidate of the path.

    `within()` returns the scores of all candidates on the data. `errors(part, test)` fits all candidates to the sample `part`
    and returns their mean squared errors on the sample `test`.
    """
    if criterion == "loo":
        scores = within().loo
    elif criterion == "gcv":
        scores = within().gcv
    elif criterion == "holdout":
        scores = errors(*hold_out(key, sample))
    else:
        scores = errors(sample, oracle_sample(key, oracle, sample.y.shape[1]))
    return best_score(scores)


def over_rows(fn: Callable, width: int, *rows: Array) -> Any:
    """fn(*rows) in blocks of rows, for an `fn` that treats rows independently. The number of rows in a block times `width`
    stays near `_ENTRIES`."""
    n = rows[0].shape[0]
    count = math.ceil(n * width / _ENTRIES)
    if count <= 1:
        return fn(*rows)
    size = math.ceil(n / count)
    # Copies of the last row fill the last block.
    take = np.minimum(np.arange(count * size), n - 1).reshape(count, size)
    blocks = jax.lax.map(lambda block: fn(*block), tuple(r[take] for r in rows))
    return jax.tree.map(lambda b: b.reshape(count * size, *b.shape[2:])[:n], blocks)


def squared_distances(rows: Float[Array, "m d"], x: Float[Array, "n d"]) -> Float[Array, "m n"]:
    """|rows_i - x_j|^2 by differences, which is exactly 0 for equal points; |a|^2 - 2 <a, b> + |b|^2 is not."""
    return jnp.sum((rows[:, None, :] - x[None, :, :]) ** 2, axis=-1)


class Groups(NamedTuple):
    """For each of m rows, the group of points that are left out together with it: the point itself and all points equal to it.

    `own` marks the points of the group, `copies` is the number of those that are present (at least 1), `mass` the sum of
    their weights, and `mean` their weighted mean response.
    """

    own: Bool[Array, "m n"]
    copies: Float[Array, " m"]
    mass: Float[Array, " m"]
    mean: Float[Array, "m k"]


def groups_of(squares: Float[Array, "m n"], index: Int[Array, " m"], y, weight, present) -> Groups:
    own = own_group(squares, index)
    copies = jnp.sum(own & present[None, :], axis=1, dtype=jnp.float64)
    mass = jnp.sum(jnp.where(own, weight[None, :], 0.0), axis=1)
    sums = jnp.sum(jnp.where(own[:, :, None], (weight[:, None] * y)[None], 0.0), axis=1)
    # A row of weight 0 may be alone in its group if all points are equal: no point of that group is present.
    return Groups(own, jnp.maximum(copies, 1.0), mass, sums / jnp.where(mass > 0, mass, 1.0)[:, None])


def own_group(squares: Float[Array, "m n"], index: Int[Array, " m"]) -> Bool[Array, "m n"]:
    """Which points are left out together with the point of each row: those equal to it, or the point alone if all points are
    equal."""
    own = squares == 0.0
    alone = index[:, None] == jnp.arange(squares.shape[1])[None, :]
    # The point itself is included also where its squared distance is NaN.
    return jnp.where(jnp.all(own, axis=1, keepdims=True), alone, own | alone)


def status_of_all(*values: Array) -> Int[Array, ""]:
    finite = jnp.all(jnp.array([jnp.isfinite(value).all() for value in values]))
    return jnp.where(finite, Status.CONVERGED.value, Status.SINGULAR.value).astype(jnp.int32)
