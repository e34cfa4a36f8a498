r"""Linear smoothers by a kernel, the Nadaraya-Watson estimator (degree 0) and local linear regression (degree 1).

Each predicts a weighted mean of the responses, f_hat(x) = sum_i l_i(x) y_i with weights that do not depend on y; H with
H_ij = l_j(x_i) is the hat matrix and dof = trace(H). Everything is float64. The one hyper-parameter (the number of
neighbours, or the bandwidth) is given, or the best of a path by a criterion of `tsjax.estimators.tuning`. "loo" leaves the
weight of each point out in turn, which is (y_i - f(x_i)) / (1 - H_ii) for these smoothers (Hastie, Tibshirani & Friedman 2009,
"The Elements of Statistical Learning", equation 7.64) without its cancellations; "gcv" is infinite where H = I. Of equal
scores the smallest candidate is taken. Equal points are left out together (`tsjax.estimators.repeats`), unless all are equal.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..kernels.base import AbstractKernel
from ..kernels.radial import RBF, AbstractRadialKernel
from ..precision import requires_float64
from ..status import Status
from ..task import Dataset
from .base import AbstractEstimator, AbstractFit, check_data, floats_as_arrays
from .ridge import best_score, in_blocks
from .tuning import Fixed, Oracle, Search, check_oracle, hold_out, oracle_sample, tuned

# Numbers in the largest matrix (rows of a block times training points): 32 MB.
_ENTRIES = 2**22
# Weights that sum to less are about to leave the normal float64 numbers, and their ratios with them.
_NO_WEIGHT = 1e-290
# Local linear regression: the jitter relative to the second moments about the point of prediction, and relative to those
# about the mean of the data, of which 1e-16 or so is lost where a bandwidth is far smaller than the data's spread.
_JITTER, _ROUNDOFF = 1e-8, 1e-12


def _kernel_family(kernel: Any) -> Any:
    if isinstance(kernel, AbstractKernel):
        raise ValueError(
            f"kernel is a function of the bandwidth, such as the class tsjax.kernels.RBF, but got the kernel {kernel!r}. "
            "Give its class, and its length scale as bandwidth."
        )
    if not isinstance(kernel(1.0) if callable(kernel) else None, AbstractRadialKernel):
        raise ValueError(
            "kernel is a function of the bandwidth that gives a kernel of the distance (an AbstractRadialKernel), such as "
            f"tsjax.kernels.RBF or tsjax.kernels.Laplace; got {kernel!r}."
        )
    return kernel


def _of_distance(kernel: AbstractRadialKernel, squares: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """The kernel at given squared distances, which are the same for all bandwidths."""
    return kernel.profile(squares / kernel.length_scale**2)


def check_smoother(name: str, rule: Fixed | Search, oracle: Oracle | None, data: Dataset) -> None:
    """Raises ValueError for bad data, too few of them, and an oracle that is missing or needless."""
    check_data(data)
    if data.n < 2:
        raise ValueError(f"a smoother needs at least 2 points (leave-one-out keeps one of them), got n={data.n}.")
    check_oracle(name, rule, oracle, data)


def check_points(x_train, x) -> None:
    if jnp.ndim(x) != 2 or jnp.shape(x)[1] != x_train.shape[-1]:
        raise ValueError(
            f"expected x of shape (k, {x_train.shape[-1]}), got {jnp.shape(x)}. Use x[None, :] for a single point."
        )


class Scores(NamedTuple):
    """Of one fit, or of each candidate of the path."""

    dof: Array
    gcv: Array
    loo: Array


def tune(
    criterion: str,
    key: PRNGKeyArray,
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    oracle: Oracle | None,
    within: Callable[[], Scores],
    errors: Callable[..., Float[Array, " p"]],
) -> Int[Array, ""]:
    """The index of the best candidate of the path.

    `within()` scores each on the data; `errors(x, y, kept, x_test, y_test)` are the mean squared errors at test points of each,
    fitted to those x and y that are `kept`.
    """
    if criterion == "loo":
        scores = within().loo
    elif criterion == "gcv":
        scores = within().gcv
    elif criterion == "holdout":
        fitted, held_out = hold_out(key, x, y)
        scores = errors(*fitted, *held_out)
    else:
        assert oracle is not None
        scores = errors(x, y, jnp.ones(y.size, bool), *oracle_sample(key, oracle))
    return best_score(scores)


def over_rows(fn: Callable, width: int, *rows: Array) -> Any:
    """fn(*rows), row by row independent, in blocks of rows such that block times width stays near `_ENTRIES`."""
    n = rows[0].shape[0]
    count = math.ceil(n * width / _ENTRIES)
    if count <= 1:
        return fn(*rows)
    size = math.ceil(n / count)
    # The last row again, to fill the last block.
    take = np.minimum(np.arange(count * size), n - 1).reshape(count, size)
    blocks = jax.lax.map(lambda block: fn(*block), tuple(r[take] for r in rows))
    return jax.tree.map(lambda b: b.reshape(count * size, *b.shape[2:])[:n], blocks)


def squared_distances(rows: Float[Array, "m d"], x: Float[Array, "n d"]) -> Float[Array, "m n"]:
    """By differences: exactly 0 for equal points, which |a|^2 - 2 <a, b> + |b|^2 is not."""
    return jnp.sum((rows[:, None, :] - x[None, :, :]) ** 2, axis=-1)


def own_group(squares: Float[Array, "m n"], index: Int[Array, " m"]) -> Bool[Array, "m n"]:
    """Which points are left out with the point of each row: those equal to it; where all are, it alone."""
    own = squares == 0.0
    alone = index[:, None] == jnp.arange(squares.shape[1])[None, :]
    # The point itself too where a square is NaN.
    return jnp.where(jnp.all(own, axis=1, keepdims=True), alone, own | alone)


def status_of_all(*values: Array) -> Int[Array, ""]:
    finite = jnp.all(jnp.array([jnp.isfinite(value).all() for value in values]))
    return jnp.where(finite, Status.CONVERGED.value, Status.SINGULAR.value).astype(jnp.int32)


def _regressors(degree: int, x: Float[Array, "n d"], y: Float[Array, " n"]) -> Float[Array, "n p"]:
    """What the moments of `_level` are weighted sums of: 1, y, and for degree 1 also x, x y and the products x_a x_b."""
    columns = [jnp.ones((y.size, 1)), y[:, None]]
    if degree == 1:
        a, b = np.triu_indices(x.shape[1])
        columns += [x, x * y[:, None], x[:, a] * x[:, b]]
    return jnp.concatenate(columns, axis=1)


def _level(degree: int, moments: Float[Array, " p"], x: Float[Array, " d"]) -> tuple[Array, Array]:
    """The prediction at x, and e_1^T (Z^T W Z + diag(0, eps))^{-1} e_1 times the sum of the weights, from the weighted
    sums of `_regressors`, divided by the sum of the weights.

    With the weighted means xbar and ybar, the covariance C of x and c of x with y (the Schur complement of that sum) these
    are ybar + c^T (C + eps)^{-1} (x - xbar) and 1 + (x - xbar)^T (C + eps)^{-1} (x - xbar).
    """
    if degree == 0:
        return moments[1], jnp.ones(())
    d = x.size
    y_mean, x_mean, xy = moments[1], moments[2 : 2 + d], moments[2 + d : 2 + 2 * d]
    a, b = np.triu_indices(d)
    raw = jnp.zeros((d, d)).at[a, b].set(moments[2 + 2 * d :]).at[b, a].set(moments[2 + 2 * d :])
    covariance, gap = raw - jnp.outer(x_mean, x_mean), x - x_mean
    variance = jnp.maximum(jnp.diagonal(covariance), 0.0)
    variance += _JITTER * (variance + gap**2) + _ROUNDOFF * jnp.diagonal(raw)
    # As a correlation matrix, whatever the units of the coordinates. Without any variance there is nothing to solve.
    scale = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
    correlation = jnp.where(jnp.eye(d, dtype=bool), 1.0, covariance / jnp.outer(scale, scale))
    solved = jsl.cho_solve((jnp.linalg.cholesky(correlation), True), gap / scale) / scale
    return y_mean + (xy - x_mean * y_mean) @ solved, 1.0 + gap @ solved


def _smooth(degree: int, weights, regressors, x, nearest):
    """Predictions from weights (m, n) at x (m, d), the level's variance of `_level`, the sum of the weights and whether
    they have one; else `nearest` (m,) is the prediction."""
    total = jnp.sum(weights, axis=1)
    # NaN has weight, so that it is seen in the prediction.
    weighty = ~(total < _NO_WEIGHT)
    moments = (weights @ regressors) / jnp.where(weighty, total, 1.0)[:, None]
    level, excess = jax.vmap(lambda moment, point: _level(degree, moment, point))(moments, x)
    return jnp.where(weighty, level, nearest), excess, total, weighty


def _nearest(squares: Float[Array, "m n"], y: Float[Array, " n"]) -> Float[Array, " m"]:
    """The response of the nearest point; NaN where no square is a finite number."""
    return jnp.where(jnp.isfinite(jnp.min(squares, axis=1)), y[jnp.argmin(squares, axis=1)], jnp.nan)


class _Local(eqx.Module):
    """A kernel smoother on training data; x and y about their means, which spares digits."""

    degree: int = eqx.field(static=True)
    kernel: Callable[[Any], AbstractRadialKernel] = eqx.field(static=True)
    x: Float[Array, "*batch n d"]
    y: Float[Array, "*batch n"]
    kept: Bool[Array, "*batch n"]

    def at(self, bandwidths: Float[Array, " p"], rows: Float[Array, "m d"]) -> Float[Array, "m p"]:
        """The predictions at rows with each bandwidth."""
        squares = squared_distances(rows, self.x)
        nearest = _nearest(jnp.where(self.kept[None, :], squares, jnp.inf), self.y)
        regressors = _regressors(self.degree, self.x, self.y)

        def one(bandwidth):
            weights = jnp.where(self.kept[None, :], _of_distance(self.kernel(bandwidth), squares), 0.0)
            return _smooth(self.degree, weights, regressors, rows, nearest)[0]

        return jax.lax.map(one, bandwidths).T

    def errors(self, bandwidths: Float[Array, " p"], x_test, y_test) -> Float[Array, " p"]:
        """The mean squared error at test points with each bandwidth."""
        predictions = over_rows(lambda rows: self.at(bandwidths, rows), self.y.size, x_test)
        return jnp.mean((y_test[:, None] - predictions) ** 2, axis=0)

    def scores(self, bandwidths: Float[Array, " p"]) -> Scores:
        """On the training points, with each bandwidth.

        With the weights w of the m points of a group added, the normal matrix is that without them plus m w e_1 e_1^T. By the
        formula of Sherman & Morrison 1 - m H_ii = 1 / (1 + m w e_1^T (that without them)^{-1} e_1), and the group's mean of
        (I-H) y is 1 - m H_ii times its mean residual without it.
        """
        n = self.y.size
        regressors = _regressors(self.degree, self.x, self.y)

        def leave_out(rows, index):
            squares = squared_distances(rows, self.x)
            own = own_group(squares, index)
            copies = jnp.sum(own, axis=1, dtype=jnp.float64)
            mean = jnp.where(own, self.y[None, :], 0.0).sum(axis=1) / copies
            nearest = _nearest(jnp.where(own, jnp.inf, squares), self.y)

            def one(bandwidth):
                kernel = self.kernel(bandwidth)
                weights = jnp.where(own, 0.0, _of_distance(kernel, squares))
                prediction, excess, total, weighty = _smooth(self.degree, weights, regressors, rows, nearest)
                own_weight = copies * _of_distance(kernel, jnp.zeros((1, 1)))[0, 0]
                return prediction, jnp.where(weighty, total / (total + own_weight * excess), 0.0)

            prediction, unexplained = jax.lax.map(one, bandwidths)
            return prediction.T, unexplained.T, copies, mean

        prediction, unexplained, copies, mean = over_rows(leave_out, n, self.x, jnp.arange(n))
        groups = jnp.sum(1.0 / copies)
        # The ratio is that of tiny numbers where H is almost I.
        largest = jnp.max(unexplained, axis=0)
        share = unexplained / jnp.where(largest > 0, largest, 1.0)[None, :]
        total = jnp.where(largest > 0, jnp.sum(share / copies[:, None], axis=0), 1.0)
        squares = jnp.sum((share * (mean[:, None] - prediction)) ** 2, axis=0)
        gcv = groups * squares / total**2 * (groups / n) + jnp.mean((self.y - mean) ** 2)
        gcv = jnp.where(largest == 0, jnp.inf, gcv)
        dof = groups - jnp.sum(unexplained / copies[:, None], axis=0)
        return Scores(dof, gcv, jnp.mean((self.y[:, None] - prediction) ** 2, axis=0))


def bandwidth_path(x: Float[Array, "n d"], count: int) -> Float[Array, " {count}"]:
    """`count` log-spaced bandwidths, from a quarter of the median distance to the nearest other point (among the points
    that have no double) to ten times the larger of that median and the root mean square distance to the mean. All 1 where
    no two points differ.
    """
    n = x.shape[0]

    def to_others(rows, index):
        return jnp.min(jnp.where(index[:, None] == jnp.arange(n)[None, :], jnp.inf, squared_distances(rows, x)), axis=1)

    squares = over_rows(to_others, n, x, jnp.arange(n))
    apart = jnp.nanmedian(jnp.where(squares > 0, jnp.sqrt(squares), jnp.nan))
    apart = jnp.where(jnp.any(squares > 0), apart, 0.0)
    spread = jnp.sqrt(jnp.mean(jnp.sum((x - jnp.mean(x, axis=0, keepdims=True)) ** 2, axis=1)))
    # Every point may have a double, and the doubles may differ.
    least = jnp.where(apart > 0, apart / 4, spread / 100)
    path = least * (10 * jnp.maximum(spread, apart) / least) ** jnp.linspace(0.0, 1.0, count)
    return jnp.where(jnp.all(x == x[:1]), 1.0, path)


class KernelSmootherFit(AbstractFit):
    """What `NadarayaWatson` (degree 0) and `LocalLinear` (degree 1) give.

    `stats`: `bandwidth`; `dof`, the effective degrees of freedom (trace of the hat matrix H); `gcv` and `loo`, the scores
    of the module docstring.
    """

    smoother: _Local
    x_mean: Float[Array, "*batch d"]
    y_mean: Float[Array, "*batch"]
    bandwidth: Float[Array, "*batch"]
    status: Int[Array, "*batch"]
    stats: dict[str, Array]

    # The annotation leaves the shape to the check, whose message says what to do.
    def predict(self, x: Float[Array, "..."]) -> Float[Array, " k"]:
        """Predictions at the k rows of x; NaN at rows that are not finite."""
        check_points(self.x_mean, x)
        return _predict_smooth(self.smoother, self.x_mean, self.y_mean, self.bandwidth, x)


@requires_float64
def _predict_smooth(smoother, x_mean, y_mean, bandwidth, x):
    return _predict_smooth_compiled(smoother, x_mean, y_mean, bandwidth, jnp.asarray(x, jnp.float64))


@eqx.filter_jit
def _predict_smooth_compiled(smoother: _Local, x_mean, y_mean, bandwidth, x):
    return y_mean + in_blocks(lambda rows: smoother.at(bandwidth[None], rows)[:, 0], x - x_mean[None, :])


class NadarayaWatson(AbstractEstimator):
    """The Nadaraya-Watson estimator f_hat(x) = sum_i k_h(x, x_i) y_i / sum_i k_h(x, x_i), a mean of the responses weighted
    by nearness (Hastie, Tibshirani & Friedman 2009, equation 6.2).

    **Arguments:**

    - `kernel`: a function of the bandwidth h that gives a kernel with values >= 0 that depends on the distance only, such
      as the classes `tsjax.kernels.RBF` and `tsjax.kernels.Laplace`.
    - `bandwidth`: a number > 0, or `"gcv"`, `"loo"`, `"holdout"` or `"oracle"`: the best of 60 by that criterion (module
      docstring). Log-spaced, they reach from a quarter of the median distance to the nearest other point (among points
      without a double) to ten times the root mean square distance of the points to their mean (or that median, if
      larger). Numbers are traced: `jax.vmap` over them.

    Where all weights underflow (they sum to less than 1e-290) the prediction is the response of the nearest training
    point, the limit of the formula for small bandwidths; the same holds in leave-one-out. A traced bandwidth that is not
    > 0 gives `Status.SINGULAR` and NaN predictions, as do distances whose squares overflow.

    **Raises:** ValueError for a bandwidth that is not finite and > 0, an unknown criterion, and a kernel where a function
    of the bandwidth is wanted, or one that is no function of the distance.
    """

    kernel: Callable[[Any], AbstractRadialKernel] = eqx.field(static=True, converter=_kernel_family, default=RBF)
    bandwidth: Fixed | Search = eqx.field(converter=tuned("bandwidth", positive=True), default="loo")

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> KernelSmootherFit:
        """Fits x (n, d), y (n,) in float64. `key` is used only by `bandwidth="holdout"` and by `bandwidth="oracle"`,
        which also needs `oracle=(problem, teacher)`: fresh inputs are drawn from the problem, independent of all other
        uses of `key`.

        **Raises:** ValueError for data that are not finite or of the wrong rank, fewer than 2 points, and a missing or
        needless oracle.
        """
        check_smoother("bandwidth", self.bandwidth, oracle, data)
        return _fit_smooth(0, 60, self.kernel, floats_as_arrays(self.bandwidth), key, data, floats_as_arrays(oracle))


class LocalLinear(AbstractEstimator):
    """Local linear regression: the intercept of a weighted linear regression around x,
    f_hat(x) = e_1^T (Z^T W Z + diag(0, eps))^{-1} Z^T W y, with the rows (1, x_i - x) of Z (n, d+1) and the weights
    W = diag(k_h(x, x_i)) (Hastie, Tibshirani & Friedman 2009, equation 6.8). Linear functions are fitted without bias.

    The jitter eps_a = 1e-8 sum_i W_ii (x_ia - x_a)^2 + 1e-12 sum_i W_ii (x_ia - m_a)^2, m the mean of the training inputs,
    keeps this defined where fewer than d + 1 points have weight: a slope that they do not determine is 0. (The second
    part is above the roundoff of moments about m, from which all others are made by matrix products.)

    **Arguments:**

    - `kernel`: a function of the bandwidth h that gives a kernel with values >= 0 that depends on the distance only, such
      as the classes `tsjax.kernels.RBF` and `tsjax.kernels.Laplace`.
    - `bandwidth`: as for `NadarayaWatson`, with 24 candidates over the same range.

    Where all weights underflow: as for `NadarayaWatson`. Time per candidate grows as n^2 d^2.

    **Raises:** as `NadarayaWatson` does.
    """

    kernel: Callable[[Any], AbstractRadialKernel] = eqx.field(static=True, converter=_kernel_family, default=RBF)
    bandwidth: Fixed | Search = eqx.field(converter=tuned("bandwidth", positive=True), default="loo")

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> KernelSmootherFit:
        """Fits x (n, d), y (n,) in float64, as `NadarayaWatson.fit` does; raises as it does."""
        check_smoother("bandwidth", self.bandwidth, oracle, data)
        return _fit_smooth(1, 24, self.kernel, floats_as_arrays(self.bandwidth), key, data, floats_as_arrays(oracle))


@requires_float64
def _fit_smooth(degree, count, kernel, rule, key, data: Dataset, oracle: Oracle | None) -> KernelSmootherFit:
    return _fit_smooth_compiled(degree, count, kernel, rule, key, data, oracle)


@eqx.filter_jit
def _fit_smooth_compiled(degree, count, kernel, rule, key, data: Dataset, oracle: Oracle | None) -> KernelSmootherFit:
    x, y = data.x.astype(jnp.float64), data.y.astype(jnp.float64)
    x_mean, y_mean = jnp.mean(x, axis=0), jnp.mean(y)
    everyone = jnp.ones(y.size, bool)
    smoother = _Local(degree=degree, kernel=kernel, x=x - x_mean[None, :], y=y - y_mean, kept=everyone)
    if isinstance(rule, Fixed):
        bandwidth = jnp.asarray(rule.value, jnp.float64)
        bandwidth = jnp.where(bandwidth > 0, bandwidth, jnp.nan)
    else:
        path = bandwidth_path(smoother.x, count)

        def errors(x, y, kept, x_test, y_test):
            part = _Local(degree=degree, kernel=kernel, x=x - x_mean[None, :], y=y - y_mean, kept=kept)
            return part.errors(path, x_test - x_mean[None, :], y_test - y_mean)

        bandwidth = path[tune(rule.criterion, key, x, y, oracle, lambda: smoother.scores(path), errors)]
    dof, gcv, loo = (score[0] for score in smoother.scores(bandwidth[None]))
    stats = {"bandwidth": bandwidth, "dof": dof, "gcv": gcv, "loo": loo}
    # GCV is infinite, and rightly so, where H = I.
    status = status_of_all(bandwidth, dof, loo)
    return KernelSmootherFit(
        smoother=smoother, x_mean=x_mean, y_mean=y_mean, bandwidth=bandwidth, status=status, stats=stats
    )
