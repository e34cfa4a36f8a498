r"""Linear smoothers by a kernel: the Nadaraya-Watson estimator (degree 0) and local linear regression (degree 1).

A linear smoother predicts f_hat(x) = sum_i l_i(x) y_i with weights l_i that do not depend on y. H with H_ij = l_j(x_i) is the
hat matrix, and dof = trace(H). Everything is float64.

- *Search.* The one hyper-parameter (the bandwidth; for `NearestNeighbours` the number of neighbours) is given, or it is the
  best of a path by a criterion of `tsjax.estimators.tuning`. "loo" predicts each point with its own weight set to 0. The
  residual of that prediction equals (y_i - f(x_i)) / (1 - H_ii) (Hastie, Tibshirani & Friedman 2009, "The Elements of
  Statistical Learning", equation 7.64), but without the cancellations of this formula. "gcv" is infinite if H = I. Among equal
  scores the smallest candidate is taken.
- *Repeated points.* Equal points are left out together (`tsjax.estimators.repeats`), unless all points are equal.
- *Sample weights* multiply the weights of the kernel, so a row of weight w acts like w copies of it.
- *Several outputs*, y (n, k), are all smoothed with the same l_i.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..compilation import compiled
from ..kernels.base import AbstractKernel
from ..kernels.radial import RBF, AbstractRadialKernel
from ..precision import requires_float64
from ..task import Dataset
from .base import AbstractEstimator, AbstractFit, floats_as_arrays
from .repeats import Sample, sample_of
from .ridge import in_blocks
from .smoothing import (
    Scores,
    check_points,
    check_smoother,
    groups_of,
    over_rows,
    squared_distances,
    status_of_all,
    tune,
)
from .tuning import Fixed, Oracle, Search, tuned

# Weights whose sum is below this are close to the smallest normal float64 number, so that their ratios lose digits.
_NO_WEIGHT = 1e-290
# Local linear regression: the jitter relative to the second moments about the point of prediction, and relative to those
# about the mean of the data. If the bandwidth is far smaller than the spread of the data, rounding costs about 1e-16 of the
# latter.
_JITTER, _ROUNDOFF = 1e-8, 1e-12


def _kernel_family(kernel: Any) -> Any:
    if isinstance(kernel, AbstractKernel):
        raise ValueError(
            f"kernel must be a function of the bandwidth, such as the class tsjax.kernels.RBF, but got the kernel {kernel!r}. "
            "Give its class, and its length scale as bandwidth."
        )
    if not isinstance(kernel(1.0) if callable(kernel) else None, AbstractRadialKernel):
        raise ValueError(
            "kernel must be a function of the bandwidth that gives a kernel of the distance (an AbstractRadialKernel), such as "
            f"tsjax.kernels.RBF or tsjax.kernels.Laplace; got {kernel!r}."
        )
    return kernel


def _of_distance(kernel: AbstractRadialKernel, squares: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """The values of the kernel at squared distances, which are computed once for all bandwidths."""
    return kernel.profile(squares / kernel.length_scale**2)


def _regressors(degree: int, x: Float[Array, "n d"], y: Float[Array, "n k"]) -> Float[Array, "n p"]:
    """The p columns whose weighted sums `_level` needs: 1, y, and for degree 1 also x, x y and the products x_a x_b, a <= b."""
    columns = [jnp.ones((len(y), 1)), y]
    if degree == 1:
        a, b = np.triu_indices(x.shape[1])
        columns += [x, (x[:, :, None] * y[:, None, :]).reshape(len(y), -1), x[:, a] * x[:, b]]
    return jnp.concatenate(columns, axis=1)


def _level(degree: int, outputs: int, moments: Float[Array, " p"], x: Float[Array, " d"]) -> tuple[Array, Array]:
    """The predictions of all outputs at x, and e_1^T (Z^T W Z + diag(0, eps))^{-1} e_1 times the sum of the weights (Z, W and
    eps as in `LocalLinear`). `moments` are the weighted sums of `_regressors`, divided by the sum of the weights.

    With the weighted means xbar and ybar, the weighted covariance C of x, and the weighted covariance c of x with y, these two
    results are ybar + c^T (C + eps)^{-1} (x - xbar) and 1 + (x - xbar)^T (C + eps)^{-1} (x - xbar), by the Schur complement.
    """
    if degree == 0:
        return moments[1:], jnp.ones(())
    d = x.size
    y_mean, x_mean, xy, products = jnp.split(moments[1:], np.cumsum([outputs, d, d * outputs]))
    xy = xy.reshape(d, outputs)
    a, b = np.triu_indices(d)
    raw = jnp.zeros((d, d)).at[a, b].set(products).at[b, a].set(products)
    covariance, gap = raw - jnp.outer(x_mean, x_mean), x - x_mean
    variance = jnp.maximum(jnp.diagonal(covariance), 0.0)
    variance += _JITTER * (variance + gap**2) + _ROUNDOFF * jnp.diagonal(raw)
    # The system is solved with a correlation matrix, so that the units of the coordinates do not matter. A coordinate without
    # variance keeps scale 1.
    scale = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
    correlation = jnp.where(jnp.eye(d, dtype=bool), 1.0, covariance / jnp.outer(scale, scale))
    solved = jsl.cho_solve((jnp.linalg.cholesky(correlation), True), gap / scale) / scale
    return y_mean + solved @ (xy - x_mean[:, None] * y_mean[None, :]), 1.0 + gap @ solved


def _smooth(degree: int, weights, regressors, x, nearest):
    """From weights (m, n) at x (m, d): predictions (m, k), the second result of `_level` (m,), the sums of the weights (m,),
    and whether each sum is large enough to divide by (m,). If it is not, the prediction is `nearest` (m, k)."""
    total = jnp.sum(weights, axis=1)
    # A sum that is NaN counts as large enough, so that the prediction is NaN too.
    weighty = ~(total < _NO_WEIGHT)
    moments = (weights @ regressors) / jnp.where(weighty, total, 1.0)[:, None]
    level, excess = jax.vmap(lambda moment, point: _level(degree, nearest.shape[1], moment, point))(moments, x)
    return jnp.where(weighty[:, None], level, nearest), excess, total, weighty


def _nearest(squares: Float[Array, "m n"], y: Float[Array, "n k"]) -> Float[Array, "m k"]:
    """The response of the nearest point, or NaN if no squared distance is finite."""
    return jnp.where(jnp.isfinite(jnp.min(squares, axis=1))[:, None], y[jnp.argmin(squares, axis=1)], jnp.nan)


class _Local(eqx.Module):
    """A kernel smoother on training data. x and y are centred at their means, which saves digits, and the largest sample weight
    is 1."""

    degree: int = eqx.field(static=True)
    kernel: Callable[[Any], AbstractRadialKernel] = eqx.field(static=True)
    x: Float[Array, "*batch n d"]
    y: Float[Array, "*batch n k"]
    weight: Float[Array, "*batch n"]

    def _weights(self, values: Float[Array, "m n"], left_out: Bool[Array, "#m n"]) -> Float[Array, "m n"]:
        return jnp.where(left_out, 0.0, values * self.weight[None, :])

    def at(self, bandwidths: Float[Array, " p"], rows: Float[Array, "m d"]) -> Float[Array, "m p k"]:
        """The predictions at the rows with each bandwidth."""
        squares = squared_distances(rows, self.x)
        absent = self.weight[None, :] == 0
        nearest = _nearest(jnp.where(absent, jnp.inf, squares), self.y)
        regressors = _regressors(self.degree, self.x, self.y)

        def one(bandwidth):
            weights = self._weights(_of_distance(self.kernel(bandwidth), squares), absent)
            return _smooth(self.degree, weights, regressors, rows, nearest)[0]

        return jnp.moveaxis(jax.lax.map(one, bandwidths), 0, 1)

    def errors(self, bandwidths: Float[Array, " p"], test: Sample) -> Float[Array, " p"]:
        """The mean squared error on a sample with each bandwidth, summed over outputs."""
        predictions = over_rows(lambda rows: self.at(bandwidths, rows), len(self.y), test.x)
        return jnp.sum(test.mean((test.y[:, None, :] - predictions) ** 2), axis=1)

    def scores(self, bandwidths: Float[Array, " p"]) -> Scores:
        """The scores on the training points with each bandwidth.

        Let A be the normal matrix without the points of a group, m the sum of the group's sample weights, and w = k_h(0) the
        kernel at distance 0. With the group the normal matrix is A + m w e_1 e_1^T. By the Sherman-Morrison formula, the group
        has the weight 1 - u in its own prediction, u = 1 / (1 + m w e_1^T A^{-1} e_1), and the group's mean of (I-H) y is u
        times its mean residual without it.
        """
        regressors, present = _regressors(self.degree, self.x, self.y), self.weight > 0

        def leave_out(rows, index):
            squares = squared_distances(rows, self.x)
            own, copies, mass, mean = groups_of(squares, index, self.y, self.weight, present)
            left_out = own | ~present[None, :]
            nearest = _nearest(jnp.where(left_out, jnp.inf, squares), self.y)

            def one(bandwidth):
                kernel = self.kernel(bandwidth)
                weights = self._weights(_of_distance(kernel, squares), left_out)
                prediction, excess, total, weighty = _smooth(self.degree, weights, regressors, rows, nearest)
                own_weight = mass * _of_distance(kernel, jnp.zeros((1, 1)))[0, 0]
                return prediction, jnp.where(weighty, total / (total + own_weight * excess), 0.0)

            prediction, unexplained = jax.lax.map(one, bandwidths)
            return jnp.moveaxis(prediction, 0, 1), unexplained.T, copies, mean

        prediction, unexplained, copies, mean = over_rows(leave_out, len(self.y), self.x, jnp.arange(len(self.y)))
        # Each group counts once, and rows of weight 0 belong to no group.
        parts = jnp.where(present, 1.0 / copies, 0.0)
        prediction = jnp.where(present[:, None, None], prediction, 0.0)
        unexplained = jnp.where(present[:, None], unexplained, 0.0)
        groups, total = jnp.sum(parts), jnp.sum(self.weight)
        weighted = lambda squares: jnp.sum(self.weight[:, None] * jnp.sum(squares, axis=2), axis=0) / total
        # If H is almost I, GCV is a ratio of tiny numbers: dividing all of them by the largest avoids underflow.
        largest = jnp.max(unexplained, axis=0)
        share = unexplained / jnp.where(largest > 0, largest, 1.0)[None, :]
        left = jnp.where(largest > 0, jnp.sum(share * parts[:, None], axis=0), 1.0)
        squares = weighted((share[:, :, None] * (mean[:, None, :] - prediction)) ** 2)
        gcv = groups**2 * squares / left**2 + weighted((self.y - mean)[:, None, :] ** 2)
        gcv = jnp.where(largest == 0, jnp.inf, gcv)
        dof = groups - jnp.sum(unexplained * parts[:, None], axis=0)
        return Scores(dof, gcv, weighted((self.y[:, None, :] - prediction) ** 2))


def bandwidth_path(sample: Sample, count: int) -> Float[Array, " {count}"]:
    """`count` log-spaced bandwidths. The smallest is a quarter of the median distance to the nearest other point, over the
    points that do not repeat (if all points repeat, 1/100 of the root mean square distance to the mean). The largest is ten
    times the larger of that median and the root mean square distance to the mean. All are 1 if no two points differ.
    """
    x, present = sample.x, sample.present

    def to_others(rows, index):
        none = (index[:, None] == jnp.arange(len(x))[None, :]) | ~present[None, :]
        return jnp.min(jnp.where(none, jnp.inf, squared_distances(rows, x)), axis=1)

    squares = jnp.where(present, over_rows(to_others, len(x), x, jnp.arange(len(x))), 0.0)
    apart = jnp.nanmedian(jnp.where(squares > 0, jnp.sqrt(squares), jnp.nan))
    apart = jnp.where(jnp.any(squares > 0), apart, 0.0)
    spread = jnp.sqrt(sample.mean(jnp.sum((x - sample.mean(x)[None, :]) ** 2, axis=1)))
    # If every point repeats, there is no median, although the points may differ from each other.
    least = jnp.where(apart > 0, apart / 4, spread / 100)
    path = least * (10 * jnp.maximum(spread, apart) / least) ** jnp.linspace(0.0, 1.0, count)
    return jnp.where(jnp.all(x == x[:1]), 1.0, path)


class KernelSmootherFit(AbstractFit):
    """The fit of `NadarayaWatson` (degree 0) or `LocalLinear` (degree 1).

    `stats`: `bandwidth`; `dof`, the effective degrees of freedom (trace of the hat matrix H); `gcv` and `loo`, the scores
    of the module docstring.
    """

    smoother: _Local
    x_mean: Float[Array, "*batch d"]
    y_mean: Float[Array, "..."]
    bandwidth: Float[Array, "*batch"]
    status: Int[Array, "*batch"]
    stats: dict[str, Array]

    # The annotation accepts any shape, because the error message of `check_points` is more helpful.
    def predict(self, x: Float[Array, "..."]) -> Float[Array, "t *outputs"]:
        """Predictions at the t rows of x; NaN at rows that are not finite."""
        check_points(self.x_mean, x)
        return _predict_smooth(self.smoother, self.x_mean, self.y_mean, self.bandwidth, x)


@requires_float64
def _predict_smooth(smoother, x_mean, y_mean, bandwidth, x):
    return _predict_smooth_compiled(smoother, x_mean, y_mean, bandwidth, jnp.asarray(x, jnp.float64))


@compiled
def _predict_smooth_compiled(smoother: _Local, x_mean, y_mean, bandwidth, x):
    centred = in_blocks(lambda rows: smoother.at(bandwidth[None], rows)[:, 0], x - x_mean[None, :])
    return y_mean + centred[:, 0] if y_mean.ndim == 0 else y_mean[None, :] + centred


class NadarayaWatson(AbstractEstimator):
    """The Nadaraya-Watson estimator f_hat(x) = sum_i k_h(x, x_i) y_i / sum_i k_h(x, x_i), a mean of the responses weighted
    by nearness (Hastie, Tibshirani & Friedman 2009, equation 6.2).

    **Arguments:**

    - `kernel`: a function of the bandwidth h that returns a kernel with values >= 0 that depends on the distance only, such
      as the classes `tsjax.kernels.RBF` and `tsjax.kernels.Laplace`.
    - `bandwidth`: a number > 0, or `"gcv"`, `"loo"`, `"holdout"` or `"oracle"`: the best of 60 candidates by that criterion
      (module docstring). The candidates are log-spaced, from a quarter of the median distance to the nearest other point
      (over points that do not repeat) to ten times the root mean square distance of the points to their mean (or that
      median, if larger). Numbers are traced: use `jax.vmap` over them.

    If all weights underflow (they sum to less than 1e-290), the prediction is the response of the nearest training
    point, which is the limit of the formula for small bandwidths. The same holds in leave-one-out. A traced bandwidth that is
    not > 0 gives `Status.SINGULAR` and NaN predictions, as do distances whose squares overflow.

    **Raises:** ValueError for a bandwidth that is not finite and > 0, for an unknown criterion, and for a `kernel` that is
    itself a kernel, or that does not return a kernel of the distance.
    """

    kernel: Callable[[Any], AbstractRadialKernel] = eqx.field(static=True, converter=_kernel_family, default=RBF)
    bandwidth: Fixed | Search = eqx.field(converter=tuned("bandwidth", positive=True), default="loo")

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> KernelSmootherFit:
        """Fits x (n, d) and y, (n,) or (n, k), in float64. Only `bandwidth="holdout"` and `bandwidth="oracle"` use `key`.
        `bandwidth="oracle"` also needs `oracle=(problem, teacher)`: it draws fresh inputs from the problem, independent of all
        other uses of `key`.

        **Raises:** ValueError for data that are not finite or of the wrong rank, for fewer than 2 points, and for an oracle
        that is missing or not needed.
        """
        check_smoother("bandwidth", key, self.bandwidth, oracle, data)
        return _fit_smooth(0, 60, self.kernel, floats_as_arrays(self.bandwidth), key, data, floats_as_arrays(oracle))


class LocalLinear(AbstractEstimator):
    """Local linear regression: the intercept of a weighted linear regression around x,
    f_hat(x) = e_1^T (Z^T W Z + diag(0, eps))^{-1} Z^T W y, with the rows (1, x_i - x) of Z (n, d+1) and the weights
    W = diag(k_h(x, x_i)) (Hastie, Tibshirani & Friedman 2009, equation 6.8). Linear functions are fitted without bias.

    The jitter eps_a = 1e-8 sum_i W_ii (x_ia - x_a)^2 + 1e-12 sum_i W_ii (x_ia - m_a)^2, with m the mean of the training inputs,
    keeps this defined if fewer than d + 1 points have weight: a slope that they do not determine is 0. (The second term is
    larger than the roundoff of the moments about m, from which the moments about x are computed.)

    **Arguments:**

    - `kernel`: a function of the bandwidth h that returns a kernel with values >= 0 that depends on the distance only, such
      as the classes `tsjax.kernels.RBF` and `tsjax.kernels.Laplace`.
    - `bandwidth`: as for `NadarayaWatson`, with 24 candidates over the same range.

    If all weights underflow, the prediction is that of `NadarayaWatson`. The time for each candidate grows as n^2 d^2.

    **Raises:** ValueError, as `NadarayaWatson` does.
    """

    kernel: Callable[[Any], AbstractRadialKernel] = eqx.field(static=True, converter=_kernel_family, default=RBF)
    bandwidth: Fixed | Search = eqx.field(converter=tuned("bandwidth", positive=True), default="loo")

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> KernelSmootherFit:
        """Fits x (n, d) and y, (n,) or (n, k), in float64, as `NadarayaWatson.fit` does, and raises the same errors."""
        check_smoother("bandwidth", key, self.bandwidth, oracle, data)
        return _fit_smooth(1, 24, self.kernel, floats_as_arrays(self.bandwidth), key, data, floats_as_arrays(oracle))


@requires_float64
def _fit_smooth(degree, count, kernel, rule, key, data: Dataset, oracle: Oracle | None) -> KernelSmootherFit:
    return _fit_smooth_compiled(degree, count, kernel, rule, key, data, oracle)


@compiled
def _fit_smooth_compiled(degree, count, kernel, rule, key, data: Dataset, oracle: Oracle | None) -> KernelSmootherFit:
    sample = sample_of(data)
    x_mean, y_mean = sample.mean(sample.x), sample.mean(sample.y)

    def centred(part: Sample) -> Sample:
        return Sample(part.x - x_mean[None, :], part.y - y_mean[None, :], part.weight)

    def local(part: Sample) -> _Local:
        weight = jnp.ones(len(part.y)) if part.weight is None else part.weight / jnp.max(part.weight)
        return _Local(degree=degree, kernel=kernel, x=part.x, y=part.y, weight=weight)

    whole = centred(sample)
    smoother = local(whole)
    if isinstance(rule, Fixed):
        bandwidth = jnp.asarray(rule.value, jnp.float64)
        bandwidth = jnp.where(bandwidth > 0, bandwidth, jnp.nan)
    else:
        path = bandwidth_path(whole, count)
        errors = lambda part, test: local(centred(part)).errors(path, centred(test))
        bandwidth = path[tune(rule.criterion, key, sample, oracle, lambda: smoother.scores(path), errors)]
    dof, gcv, loo = (score[0] for score in smoother.scores(bandwidth[None]))
    stats = {"bandwidth": bandwidth, "dof": dof, "gcv": gcv, "loo": loo}
    # GCV is not part of the status: it is infinite if H = I.
    status = status_of_all(bandwidth, dof, loo)
    y_mean = y_mean[0] if data.y.ndim == 1 else y_mean
    return KernelSmootherFit(
        smoother=smoother, x_mean=x_mean, y_mean=y_mean, bandwidth=bandwidth, status=status, stats=stats
    )
