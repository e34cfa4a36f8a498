"""Nearest neighbours; criteria and notation as for the other smoothers (`tsjax.estimators.smoothers`)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..precision import requires_float64
from ..task import Dataset
from .base import AbstractEstimator, AbstractFit, floats_as_arrays
from .ridge import in_blocks
from .smoothers import (
    Scores,
    check_points,
    check_smoother,
    over_rows,
    own_group,
    squared_distances,
    status_of_all,
    tune,
)
from .tuning import Fixed, Oracle, Search, tuned

NEIGHBOURS = 512
"""The largest number of neighbours on the path."""

# Ranks of neighbours looked at beyond those asked for; see `_neighbours`.
_SPARE = 32


def _neighbours(rows, x, limit: int, left_out) -> tuple[Int[Array, "m limit"], Float[Array, "m limit"]]:
    """The indices of the `limit` points of x nearest to each row, nearest first, and their squared distances, infinite where
    there are fewer.

    Equally far: the earlier in x. `left_out(squares)` says which points do not count, given their squared distances.
    """
    squares = squared_distances(rows, x)
    # Selection is several times faster in float32. Rounding keeps the order, so that only points tied with the last one
    # in float32 can be missed: the spare ranks and a sort in float64 put that right, unless more than _SPARE tie so.
    largest = jnp.max(squares, axis=1, keepdims=True)
    rough = (squares / jnp.where(largest > 0, largest, 1.0)).astype(jnp.float32)
    if left_out is not None:
        out = left_out(squares)
        squares, rough = jnp.where(out, jnp.inf, squares), jnp.where(out, jnp.inf, rough)
    indices = jax.lax.top_k(-rough, min(x.shape[0], limit + _SPARE))[1]
    exact, indices = jax.lax.sort((jnp.take_along_axis(squares, indices, axis=1), indices), num_keys=2)
    return indices[:, :limit], exact[:, :limit]


def _neighbour_means(rows, x, y, limit: int, left_out=None) -> Float[Array, "m limit"]:
    """The mean response of the k nearest points for k = 1..limit; NaN where there are fewer, or their distances leave the
    float64 numbers."""
    indices, squares = _neighbours(rows, x, limit, left_out)
    means = jnp.cumsum(y[indices], axis=1) / jnp.arange(1.0, limit + 1)[None, :]
    return jnp.where(jnp.isfinite(squares), means, jnp.nan)


class NeighboursFit(AbstractFit):
    """f(x) = mean response of the k training points nearest to x.

    `stats`: `k`; `dof` = n / k; `gcv` and `loo`, the scores of the module docstring.
    """

    x: Float[Array, "*batch n d"]
    y: Float[Array, "*batch n"]
    k: Int[Array, "*batch"]
    limit: int = eqx.field(static=True)
    status: Int[Array, "*batch"]
    stats: dict[str, Array]

    # The annotation leaves the shape to the check, whose message says what to do.
    def predict(self, x: Float[Array, "..."]) -> Float[Array, " k"]:
        """Predictions at the k rows of x; NaN at rows that are not finite."""
        check_points(self.x, x)
        return _predict_neighbours(self.x, self.y, self.k, self.limit, x)


@requires_float64
def _predict_neighbours(x_train, y, k, limit, x):
    return _predict_neighbours_compiled(x_train, y, k, limit, jnp.asarray(x, jnp.float64))


@eqx.filter_jit
def _predict_neighbours_compiled(x_train, y, k, limit: int, x):
    return in_blocks(lambda rows: _kth(_neighbour_means(rows, x_train, y, limit), k), x)


def _kth(means: Float[Array, "*rows limit"], k: Int[Array, ""]) -> Float[Array, "*rows"]:
    """NaN unless 1 <= k <= limit."""
    return jnp.take(means, jnp.where(k >= 1, k - 1, means.shape[-1]), axis=-1, mode="fill", fill_value=jnp.nan)


class NearestNeighbours(AbstractEstimator):
    """Nearest neighbours: f_hat(x) = (1/k) sum of y_i over the k training points nearest to x in Euclidean distance
    (Hastie, Tibshirani & Friedman 2009, equation 2.8). Among equally far points the earlier in the data counts as nearer.

    **Arguments:**

    - `k`: an integer from 1 to n - 1, or `"gcv"`, `"loo"`, `"holdout"` or `"oracle"`: the best of 1, 2, ...,
      min(n - 1, 512) by that criterion (module docstring).

    One sort of the distances gives every k at once: the predictions are its cumulative means. At a training point the m copies
    of the point (1 where none repeats) are its first neighbours, so trace(H) = n/k, and for k > m the mean of (I-H) y over them
    is 1 - m/k times their mean residual with the k - m nearest others. So without repeated points GCV of k is exactly the
    leave-one-out score of k - 1, and infinite for k = 1. Where fewer than k points differ from one, k has no score.

    A traced k (`jax.vmap` over estimators) above min(n - 1, 512) or below 1 gives `Status.SINGULAR` and NaN predictions,
    as do distances whose squares overflow.

    **Raises:** ValueError for k < 1 or not an integer, or an unknown criterion.

    >>> data = ts.Dataset(x=jnp.array([[0.0], [1.0], [2.0]]), y=jnp.array([0.0, 1.0, 5.0]))
    >>> fit = ts.NearestNeighbours(k=2).fit(jax.random.key(0), data)
    >>> print(fit.predict(jnp.array([[0.1]])))
    [0.5]
    """

    k: Fixed | Search = eqx.field(converter=tuned("k", lowest=1.0, integer=True), default="loo")

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> NeighboursFit:
        """Fits x (n, d), y (n,) in float64. `key` is used only by `k="holdout"` and by `k="oracle"`, which also needs
        `oracle=(problem, teacher)`: fresh inputs are drawn from the problem, independent of all other uses of `key`.

        **Raises:** ValueError for data that are not finite or of the wrong rank, fewer than 2 points or k >= n, and a
        missing or needless oracle.
        """
        check_smoother("k", self.k, oracle, data)
        if isinstance(self.k, Fixed) and isinstance(self.k.value, int) and self.k.value >= data.n:
            raise ValueError(
                f"k={self.k.value} neighbours without the point itself need n > {self.k.value} points, got n={data.n}. "
                f"Take k <= {data.n - 1}, or more data."
            )
        return _fit_neighbours(self, key, data, floats_as_arrays(oracle))


@requires_float64
def _fit_neighbours(self: NearestNeighbours, key, data: Dataset, oracle: Oracle | None) -> NeighboursFit:
    return _fit_neighbours_compiled(self, key, data, oracle)


@eqx.filter_jit
def _fit_neighbours_compiled(self: NearestNeighbours, key, data: Dataset, oracle: Oracle | None) -> NeighboursFit:
    x, y = data.x.astype(jnp.float64), data.y.astype(jnp.float64)
    n = y.size
    given = self.k.value if isinstance(self.k, Fixed) else None
    limit = given if isinstance(given, int) else min(n - 1, NEIGHBOURS)

    ks = jnp.arange(1.0, limit + 1)

    def leave_out(rows, response, index):
        """Squared residuals without the point's group; shares 1 - m/k of the group's own, and squares of it times the group's
        mean residual."""
        squares = squared_distances(rows, x)
        own = own_group(squares, index)
        copies = jnp.sum(own, axis=1, dtype=jnp.float64)
        mean = jnp.where(own, y[None, :], 0.0).sum(axis=1) / copies
        others = _neighbour_means(rows, x, y, limit, left_out=lambda squares: own_group(squares, index))
        share = jnp.maximum(1.0 - copies[:, None] / ks[None, :], 0.0)
        at = jnp.arange(limit)[None, :] - copies[:, None].astype(int)
        nearest = jnp.take_along_axis(others, jnp.maximum(at, 0), axis=1)
        group = jnp.where(at >= 0, share * (mean[:, None] - nearest), 0.0) ** 2
        return (response[:, None] - others) ** 2, share / copies[:, None], group, (response - mean) ** 2, 1.0 / copies

    residuals, shares, own_squares, scatter, weights = over_rows(leave_out, n, x, y, jnp.arange(n))
    # Of the whole, so that k = 1 gives 0/0 and not a number.
    groups, left = jnp.sum(weights), jnp.sum(shares, axis=0)
    gcv = groups * jnp.sum(own_squares, axis=0) / jnp.where(left > 0, left, 1.0) ** 2 * (groups / n) + jnp.mean(scatter)
    scores = Scores(n / ks, jnp.where(left > 0, gcv, jnp.inf), jnp.mean(residuals, axis=0))

    def errors(x, y, kept, x_test, y_test):
        def squared(rows, response):
            means = _neighbour_means(rows, x, y, min(limit, y.size), left_out=lambda squares: ~kept[None, :])
            return (response[:, None] - means) ** 2

        return jnp.mean(over_rows(squared, y.size, x_test, y_test), axis=0)

    if isinstance(self.k, Fixed):
        k = jnp.asarray(self.k.value)
    else:
        k = 1 + tune(self.k.criterion, key, x, y, oracle, lambda: scores, errors)
    dof, gcv, loo = (_kth(score, k) for score in scores)
    stats = {"k": k, "dof": dof, "gcv": gcv, "loo": loo}
    # Fewer than k others of a point that repeats leave it without a score, not without a fit.
    scored = k <= n - 1.0 / jnp.min(weights)
    status = status_of_all(jnp.where(scored, loo, 0.0), dof)
    return NeighboursFit(x=x, y=y, k=k, limit=limit, status=status, stats=stats)
