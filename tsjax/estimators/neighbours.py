"""Nearest neighbours; criteria and notation as for the other smoothers (`tsjax.estimators.smoothers`)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..compilation import compiled
from ..precision import requires_float64
from ..task import Dataset
from .base import AbstractEstimator, AbstractFit, floats_as_arrays
from .repeats import Sample, sample_of, shaped
from .ridge import in_blocks
from .smoothing import (
    Scores,
    check_points,
    check_smoother,
    groups_of,
    over_rows,
    own_group,
    squared_distances,
    status_of_all,
    tune,
)
from .tuning import Fixed, Oracle, Search, rows_present, tuned

NEIGHBOURS = 512
"""The largest number of neighbours on the path."""

# The number of neighbours selected in float32 beyond those asked for; see `_neighbours`.
_SPARE = 32


def _neighbours(rows, x, limit: int, left_out) -> tuple[Int[Array, "m limit"], Float[Array, "m limit"]]:
    """The indices of the `limit` points of x nearest to each row, nearest first, and their squared distances, which are
    infinite if fewer points are available.

    Among equally distant points the earlier one in x comes first. `left_out(squares)` marks the points that do not count,
    given their squared distances.
    """
    squares = squared_distances(rows, x)
    if limit + _SPARE >= x.shape[0]:
        squares = squares if left_out is None else jnp.where(left_out(squares), jnp.inf, squares)
        every = jax.lax.broadcasted_iota(jnp.int32, squares.shape, 1)
        exact, indices = jax.lax.sort((squares, every), num_keys=2)
        return indices[:, :limit], exact[:, :limit]
    # Selection is faster in float32. Rounding is monotonic, so it can lose only points that tie in float32 with the last one
    # selected. _SPARE extra points and a sort in float64 correct this, unless more than _SPARE points tie.
    largest = jnp.max(squares, axis=1, keepdims=True)
    rough = (squares / jnp.where(largest > 0, largest, 1.0)).astype(jnp.float32)
    if left_out is not None:
        out = left_out(squares)
        squares, rough = jnp.where(out, jnp.inf, squares), jnp.where(out, jnp.inf, rough)
    indices = jax.lax.top_k(-rough, min(x.shape[0], limit + _SPARE))[1]
    exact, indices = jax.lax.sort((jnp.take_along_axis(squares, indices, axis=1), indices), num_keys=2)
    return indices[:, :limit], exact[:, :limit]


def _neighbour_means(rows, sample: Sample, limit: int, left_out=None):
    """The weighted mean responses (m, limit, outputs) of the k nearest points for k = 1, ..., `limit`, and the sums of the
    weights of these points, (m, limit). A mean is NaN if there are fewer than k points, or if a squared distance overflows.
    Points of weight 0 do not count."""
    x, y, weight = sample
    out = left_out
    if weight is not None:
        absent = (weight == 0)[None, :]
        out = (lambda squares: absent) if left_out is None else lambda squares: absent | left_out(squares)
    indices, squares = _neighbours(rows, x, limit, out)
    if weight is None:
        masses = jnp.arange(1.0, limit + 1)[None, :]
        means = jnp.cumsum(y[indices], axis=1) / masses[:, :, None]
    else:
        masses = jnp.cumsum(weight[indices], axis=1)
        means = jnp.cumsum((weight[:, None] * y)[indices], axis=1) / jnp.where(masses > 0, masses, 1.0)[:, :, None]
    return jnp.where(jnp.isfinite(squares)[:, :, None], means, jnp.nan), jnp.broadcast_to(masses, squares.shape)


class NeighboursFit(AbstractFit):
    """f(x) = weighted mean response of the k training points nearest to x.

    `stats`: `k`; `dof`, the trace of the hat matrix, n / k without weights; `gcv` and `loo`, the scores of
    `tsjax.estimators.smoothers`.
    """

    x: Float[Array, "*batch n d"]
    y: Float[Array, "..."]
    weight: Float[Array, "*batch n"] | None
    k: Int[Array, "*batch"]
    limit: int = eqx.field(static=True)
    status: Int[Array, "*batch"]
    stats: dict[str, Array]

    # The annotation accepts any shape, because the error message of `check_points` is more helpful.
    def predict(self, x: Float[Array, "..."]) -> Float[Array, "t *outputs"]:
        """Predictions at the t rows of x; NaN at rows that are not finite."""
        check_points(self.x, x)
        return _predict_neighbours(self, x)


@requires_float64
def _predict_neighbours(self: NeighboursFit, x):
    return _predict_neighbours_compiled(self, jnp.asarray(x, jnp.float64))


@compiled
def _predict_neighbours_compiled(self: NeighboursFit, x):
    sample = Sample(self.x, self.y[:, None] if self.y.ndim == 1 else self.y, self.weight)
    means = in_blocks(lambda rows: _kth(_neighbour_means(rows, sample, self.limit)[0], self.k, 1), x)
    return means[:, 0] if self.y.ndim == 1 else means


def _kth(values: Float[Array, "*rows"], k: Int[Array, ""], axis: int = 0) -> Float[Array, "*others"]:
    """The entry for k neighbours along an axis that holds k = 1, ..., limit; NaN for any other k."""
    limit = values.shape[axis]
    return jnp.take(values, jnp.where(k >= 1, k - 1, limit), axis=axis, mode="fill", fill_value=jnp.nan)


class NearestNeighbours(AbstractEstimator):
    """Nearest neighbours: f_hat(x) = (1/k) sum of y_i over the k training points nearest to x in Euclidean distance
    (Hastie, Tibshirani & Friedman 2009, equation 2.8). Among equally far points the earlier in the data counts as nearer.

    With sample weights it is sum_i w_i y_i / sum_i w_i over the k nearest points of weight > 0: a weight says how much a point
    counts in the mean, and not how many neighbours it stands for, so an integer weight does not act like repeated rows here.

    **Arguments:**

    - `k`: an integer from 1 to n - 1, or `"gcv"`, `"loo"`, `"holdout"` or `"oracle"`: the best of 1, 2, ...,
      min(n - 1, 512) by that criterion (module docstring).

    One sort of the distances serves every k: the predictions are cumulative means of the sorted responses. A point that occurs
    m times in the data (m = 1 if it does not repeat) has its m copies as its first neighbours. Hence trace(H) = n/k, and for
    k > m the mean of (I-H) y over the copies is 1 - m/k times the residual of their mean response from the mean of the k - m
    nearest other points. (With weights, the copies' share of the weight takes the place of m/k.) Without weights and repeated
    points, the GCV score of k is therefore exactly the leave-one-out score of k - 1, and it is infinite for k = 1. If fewer
    than k training points differ from some training point, k has no score.

    A traced k (`jax.vmap` over estimators) above min(n - 1, 512) or below 1 gives `Status.SINGULAR` and NaN predictions,
    as do distances whose squares overflow.

    **Raises:** ValueError for a k that is below 1 or not an integer, and for an unknown criterion.

    >>> data = ts.Dataset(x=jnp.array([[0.0], [1.0], [2.0]]), y=jnp.array([0.0, 1.0, 5.0]))
    >>> fit = ts.NearestNeighbours(k=2).fit(jax.random.key(0), data)
    >>> print(fit.predict(jnp.array([[0.1]])))
    [0.5]
    """

    k: Fixed | Search = eqx.field(converter=tuned("k", lowest=1.0, integer=True), default="loo")

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> NeighboursFit:
        """Fits x (n, d) and y, (n,) or (n, outputs), in float64. Only `k="holdout"` and `k="oracle"` use `key`. The latter also
        needs `oracle=(problem, teacher)`: it draws fresh inputs from the problem, independent of all other uses of `key`.

        **Raises:** ValueError for data that are not finite or of the wrong rank, for fewer than 2 points, for k >= n, and for
        an oracle that is missing or not needed.
        """
        check_smoother("k", key, self.k, oracle, data)
        n = rows_present(data)
        if isinstance(self.k, Fixed) and isinstance(self.k.value, int) and self.k.value >= n:
            raise ValueError(
                f"k={self.k.value} neighbours without the point itself need n > {self.k.value} points, got n={n}. "
                f"Take k <= {n - 1}, or more data."
            )
        return _fit_neighbours(self, key, data, floats_as_arrays(oracle))


@requires_float64
def _fit_neighbours(self: NearestNeighbours, key, data: Dataset, oracle: Oracle | None) -> NeighboursFit:
    return _fit_neighbours_compiled(self, key, data, oracle)


@compiled
def _fit_neighbours_compiled(self: NearestNeighbours, key, data: Dataset, oracle: Oracle | None) -> NeighboursFit:
    sample = sample_of(data)
    x, y, present, n = sample.x, sample.y, sample.present, sample.n
    weight = jnp.ones(len(y)) if sample.weight is None else sample.weight
    given = self.k.value if isinstance(self.k, Fixed) else None
    limit = given if isinstance(given, int) else min(data.n - 1, NEIGHBOURS)

    ks = jnp.arange(1.0, limit + 1)

    def leave_out(rows, response, index):
        """For each row and each k, with the row's group of equal points left out: the squared residuals; 1 minus the weight
        that the group has in its own prediction; and the square of this number times the group's mean residual. Then for each
        row, the scatter of its response about the group's mean, and the number of points in the group."""
        squares = squared_distances(rows, x)
        _, copies, mass, mean = groups_of(squares, index, y, weight, present)
        others, masses = _neighbour_means(rows, sample, limit, left_out=lambda squares: own_group(squares, index))
        at = jnp.arange(limit)[None, :] - copies[:, None].astype(int)
        nearest = jnp.take_along_axis(others, jnp.maximum(at, 0)[:, :, None], axis=1)
        beside = jnp.take_along_axis(masses, jnp.maximum(at, 0), axis=1)
        share = jnp.where(at >= 0, beside / (mass[:, None] + beside), 0.0)
        group = jnp.where(at >= 0, jnp.sum((share[:, :, None] * (mean[:, None, :] - nearest)) ** 2, axis=2), 0.0)
        errors = jnp.sum((response[:, None, :] - others) ** 2, axis=2)
        return errors, share, group, jnp.sum((response - mean) ** 2, axis=1), copies

    found = over_rows(leave_out, len(y), x, y, jnp.arange(len(y)))
    residuals, shares, own_squares, scatter = (
        jnp.where(present.reshape(-1, *(1,) * (values.ndim - 1)), values, 0.0) for values in found[:4]
    )
    parts = jnp.where(present, 1.0 / found[4], 0.0)
    # The sums run over all groups, and `left` is 0 for k = 1: its score is set to infinity below.
    groups, left, total = jnp.sum(parts), jnp.sum(shares * parts[:, None], axis=0), jnp.sum(weight)
    squares = jnp.sum(weight[:, None] * own_squares, axis=0)
    gcv = groups * squares / jnp.where(left > 0, left, 1.0) ** 2 * (groups / total) + jnp.sum(weight * scatter) / total
    dof = n / ks if sample.weight is None else groups - left
    scores = Scores(dof, jnp.where(left > 0, gcv, jnp.inf), jnp.sum(weight[:, None] * residuals, axis=0) / total)
    # A candidate k needs more than k points that are present.
    scores = Scores(*(jnp.where(ks < n, score, jnp.nan) for score in scores))

    def errors(part: Sample, test: Sample):
        def squared(rows, response):
            means = _neighbour_means(rows, part, min(limit, len(part.y)))[0]
            return jnp.sum((response[:, None, :] - means) ** 2, axis=2)

        found = test.mean(over_rows(squared, len(part.y), test.x, test.y))
        return jnp.where(ks[: found.size] < n, found, jnp.nan)

    if isinstance(self.k, Fixed):
        k = jnp.asarray(self.k.value)
    else:
        k = 1 + tune(self.k.criterion, key, sample, oracle, lambda: scores, errors)
    dof, gcv, loo = (_kth(score, k) for score in scores)
    stats = {"k": k, "dof": dof, "gcv": gcv, "loo": loo}
    # If fewer than k points differ from a repeated point, k has no score, but there is a fit nevertheless.
    scored = k <= n - jnp.max(jnp.where(present, found[4], 0.0))
    status = status_of_all(jnp.where(scored, loo, 0.0), dof)
    # k >= n has no prediction either.
    k = k if sample.weight is None else jnp.where(k < n, k, 0)
    return NeighboursFit(x=x, y=shaped(y, data), weight=sample.weight, k=k, limit=limit, status=status, stats=stats)
