r"""Kernel ridge regression, with a given ridge or one chosen from a whole path of candidates by one factorisation.

With the kernel matrix K of the training inputs, f_hat(x) = k(x, X) alpha and alpha = (K + ridge I)^{-1} y. The ridge is
*not* multiplied by n: f_hat minimises sum_i (y_i - f(x_i))^2 + ridge |f|^2 in the kernel's space of functions, and the
ridge is the noise variance if y is a Gaussian process of covariance k plus noise. Everything is float64.

With sample weights w_i, f_hat minimises sum_i w_i (y_i - f(x_i))^2 + ridge |f|^2: the noise of row i has the variance
ridge / w_i, and alpha = D (D K D + ridge I)^{-1} D y with D = diag(sqrt(w_i)). Several outputs, y (n, k), are k such problems
with one factorisation and one ridge; alpha is (n, k).

*Search.* The candidates are trace(K)/n times 60 log-spaced numbers from 1e-10 to 1e2; the criteria are those of
`tsjax.estimators.tuning`. (With weights, the factor is the weighted mean of k(x_i, x_i). If the mean weight of the rows is
above 10 or below 1/10, the path moves with it by whole steps of the path, so that weights may have any unit.) All criteria but
"loo" reduce K to tridiagonal form, K = Q T Q^T, and then need O(n^2) operations for each candidate and output, mostly to
multiply by Q. "loo" needs the diagonal of the inverse for each candidate, and therefore an eigendecomposition, which costs
more.

*Roundoff and repeated rows* must not pass for information. Equal rows of x count as one in every criterion
(`tsjax.estimators.repeats`). Numbers below the kernel's own error (`AbstractKernel.error`) are roundoff: a search leaves out
candidates below it and sets eigenvalues below it to 0, and a ridge that is given has status SINGULAR if a pivot of K + ridge I
is no larger than it.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..compilation import compiled
from ..kernels.base import AbstractKernel
from ..precision import requires_float64
from ..status import Status
from ..task import Dataset
from . import leading
from .base import AbstractEstimator, AbstractFit, KernelSum, check_data, floats_as_arrays
from .cholesky import LARGE, Factor, factorise, factorise_matrix
from .repeats import Distinct, Sample, distinct, sample_of, shaped
from .shifted import Shifted, solve_shifted
from .tuning import (
    CRITERIA,
    Fixed,
    Oracle,
    Search,
    check_oracle,
    gcv_judged,
    hold_out,
    oracle_sample,
    tuned,
)

PATH = np.logspace(-10.0, 2.0, 60)
"""The candidate ridges, relative to trace(K)/n."""

_STEPS_PER_DECADE = (len(PATH) - 1) / 12.0

_BLOCK = 2048

ridge_rule = tuned("ridge", (*CRITERIA, "marginal_likelihood"))
"""The converter of the field `ridge`: a number or the name of a criterion."""


class Solution(NamedTuple):
    """The coefficients of a fit, its status, and its `stats`."""

    coefficients: Array
    status: Int[Array, ""]
    stats: dict[str, Array]


def status_of(coefficients) -> Int[Array, ""]:
    """CONVERGED for finite coefficients, else SINGULAR."""
    finite = jnp.isfinite(coefficients).all()
    return jnp.where(finite, Status.CONVERGED.value, Status.SINGULAR.value).astype(jnp.int32)


def scores(residual: Float[Array, "n k"], unexplained: Float[Array, " n"], rows: Distinct) -> dict[str, Array]:
    """The scores of GCV and leave-one-out from the residuals (I-H) y of the distinct rows and the diagonal of I-H. The two
    arguments may have a common factor, which cancels."""
    unexplained = jnp.where(rows.first, unexplained, 0.0)
    left_out = residual / jnp.where(rows.first, unexplained, 1.0)[:, None]
    return {
        "gcv": rows.gcv(jnp.sum(residual**2), jnp.sum(unexplained)),
        "loo": jnp.sum(jnp.where(rows.first[:, None], left_out, 0.0) ** 2) / rows.total + rows.scatter,
    }


def solve_gram(gram: Float[Array, "n n"], rows: Distinct, ridge, error) -> tuple[Solution, Factor]:
    """Solves for alpha with f(x) = k(x, X) alpha by Cholesky; alpha is 0 at rows that repeat an earlier one. Also returns the
    factor of `rows.gram` + ridge I. If there is no such factor, alpha is NaN and the status SINGULAR. `error` is that of the
    kernel."""
    # The trace, as the diagonal at the other rows, is above every floor, however many these rows are.
    matrix = rows.gram(gram, rows.trace(gram)) + ridge * jnp.eye(gram.shape[0])
    return _solved(factorise_matrix(matrix, error, rows.first, rows.extent), rows, ridge)


def solve_kernel(
    kernel: AbstractKernel, x: Float[Array, "n *point"], rows: Distinct, ridge, error
) -> tuple[Solution, Factor]:
    """`solve_gram` for the matrix k(x), without a large matrix in memory: its panels are computed when they are needed."""
    if len(x) <= LARGE:
        return solve_gram(leading.kernel_matrix(kernel, x, rows.extent), rows, ridge, error)
    diagonal = rows.root**2 * kernel.diagonal(x)
    diagonal = jnp.where(rows.first, diagonal, jnp.sum(diagonal)) + ridge
    panel_of = lambda x, first, last, size: rows.block(kernel(x[first:size], x[first:last]), first, diagonal)
    return _solved(factorise(panel_of, x, diagonal, error, rows.first, rows.extent), rows, ridge)


def _solved(factor: Factor, rows: Distinct, ridge) -> tuple[Solution, Factor]:
    alpha = factor.solve(rows.y)
    # I - H = ridge (K + ridge I)^{-1} and (I - H) y = ridge alpha. Without the common factor the scores are defined at ridge 0.
    inverse_diagonal = jnp.where(rows.first, factor.inverse_diagonal(), 0.0)
    ridge = jnp.asarray(ridge, alpha.dtype)
    stats = {"ridge": ridge, "dof": rows.groups - ridge * jnp.sum(inverse_diagonal)}
    stats |= scores(alpha, inverse_diagonal, rows)
    return Solution(rows.root[:, None] * alpha, status_of(alpha), stats), factor


class Eigen(NamedTuple):
    """The eigendecomposition of the kernel matrix of the distinct rows.

    `values` are in ascending order, with roundoff set to 0, and `vectors` are columns. `real` marks the eigenvalues that belong
    to the distinct rows; the others are 0 and come first. `cut` is the number of real eigenvalues that were roundoff.
    """

    values: Float[Array, " n"]
    vectors: Float[Array, "n n"]
    real: Bool[Array, " n"]
    cut: Float[Array, ""]


def eigen(gram: Float[Array, "n n"], rows: Distinct, error) -> Eigen:
    """The eigendecomposition, in which eigenvalues are roundoff if they are below the kernel's own error, or below that of
    their computation, n eps times the largest one."""
    s, u = leading.eigh(rows.gram(gram, -rows.trace(gram) / rows.n), rows.extent)
    real = jnp.arange(gram.shape[0]) >= rows.others
    above = s > jnp.maximum(rows.n * jnp.finfo(s.dtype).eps * s[-1], error)
    return Eigen(jnp.where(above, s, 0.0), u, real, rows.groups - jnp.sum(above))


def ridge_path(trace, rows: Distinct) -> Float[Array, " p"]:
    """The p candidate ridges; `trace` is that of the weighted kernel matrix."""
    decades = jnp.log10(rows.total / rows.n)
    beyond = jnp.sign(decades) * jnp.maximum(jnp.abs(decades) - 1.0, 0.0)
    moved = 10.0 ** (jnp.round(beyond * _STEPS_PER_DECADE) / _STEPS_PER_DECADE)
    return trace / rows.total * jnp.asarray(PATH) * moved


def best_score(scores: Float[Array, " p"]):
    """The index of the smallest score; NaN counts as infinite."""
    return jnp.argmin(jnp.where(jnp.isnan(scores), jnp.inf, scores))


def log_likelihood(quadratic: Float[Array, "p k"], log_det: Float[Array, " p"]) -> Float[Array, " p"]:
    """The score of `"marginal_likelihood"` from y_c^T (K + ridge I)^{-1} y_c for each output, and log det(K + ridge I) / n."""
    nonzero = jnp.max(quadratic, axis=0) > 0
    outputs = jnp.sum(nonzero, dtype=jnp.float64)
    return jnp.sum(jnp.log(jnp.where(nonzero[None, :], quadratic, 1.0)), axis=1) + outputs * log_det


def search_gram(criterion: str, gram, rows: Distinct, error, target) -> Solution:
    """The fit with the best ridge of the path. `error` is that of the kernel. `target`, which only "oracle" and "holdout" call,
    returns k(x', x) at new inputs x' and a sample of the responses to predict there."""
    count, y, trace = rows.groups, rows.y, rows.trace(gram)
    ridges = ridge_path(trace, rows)
    beyond = ridges < error
    if criterion == "loo":
        s, u, real, cut = eigen(gram, rows, error)
        shares = jnp.where(real[:, None], ridges[None, :] / (s[:, None] + ridges[None, :]), 0.0)
        gains = 1.0 / (s[:, None] + ridges[None, :])
        weights, best, stats = search_loo(u, u.T @ y, count, rows, shares, gains, beyond)
        alpha = rows.root[:, None] * (u @ weights)
        return Solution(alpha, status_of(alpha), {"ridge": ridges[best], "cut": cut} | stats)
    fill = trace / rows.n
    path = _without_others(solve_shifted(rows.gram(gram, fill), y, ridges, rows.extent), fill + ridges, rows)
    dof = count - ridges * path.trace_inverse
    gcv = rows.gcv(jnp.sum(path.solutions**2, axis=(0, 2)), path.trace_inverse)
    if criterion == "marginal_likelihood":
        score = log_likelihood(jnp.einsum("nk,npk->pk", y, path.solutions), path.log_det / count)
    elif criterion == "gcv":
        score = gcv_judged(gcv, path.trace_inverse**2 / path.trace_inverse_square, count)
    else:
        score = squared_error(target, rows.root[:, None, None] * path.solutions)
    best = best_score(jnp.where(beyond, jnp.inf, score))
    alpha = rows.root[:, None] * path.solutions[:, best]
    stats = {"ridge": ridges[best], "dof": dof[best], "gcv": gcv[best]} | _truth(criterion, score[best])
    return Solution(alpha, status_of(alpha), stats)


def _truth(criterion: str, score: Float[Array, ""]) -> dict[str, Array]:
    """The score of "oracle" as an entry of `stats`, for choosing a kernel by it too; nothing for other criteria."""
    return {"oracle": score} if criterion == "oracle" else {}


def _without_others(path: Shifted, diagonal: Float[Array, " p"], rows: Distinct) -> Shifted:
    """`path` without the rows that stand for no group. Each of them adds one eigenvalue, its entry on the diagonal."""
    return Shifted(
        path.solutions,
        path.trace_inverse - rows.others / diagonal,
        path.trace_inverse_square - rows.others / diagonal**2,
        path.log_det - jnp.where(rows.others > 0, rows.others * jnp.log(diagonal), 0.0),
    )


def search_primal(criterion: str, phi, rows: Distinct, error, target) -> Solution:
    """`search_gram` for K = phi phi^T with fewer features q than rows, solved in the space of the features. `target` returns
    phi at new inputs."""
    q = phi.shape[1]
    phi, y, count = rows.root[:, None] * phi, rows.y, rows.groups
    gram, b = leading.inner_gram(phi, rows.extent), phi.T @ y
    ridges = ridge_path(jnp.trace(gram), rows)
    beyond = ridges < error
    if criterion == "loo":
        u, singular, vt = leading.svd(phi, rows.extent)
        above = singular**2 > error
        s = jnp.where(above, singular**2, 0.0)
        shares = ridges[None, :] / (s[:, None] + ridges[None, :])
        gains = singular[:, None] / (s[:, None] + ridges[None, :])
        weights, best, stats = search_loo(u, u.T @ y, q, rows, shares, gains, beyond)
        c = vt.T @ weights
        # There are no more eigenvalues than features, nor than distinct rows.
        cut = jnp.minimum(q, count) - jnp.sum(above, dtype=jnp.float64)
        return Solution(c, status_of(c), {"ridge": ridges[best], "cut": cut} | stats)
    path = solve_shifted(gram, b, ridges)
    unexplained = count - q + ridges * path.trace_inverse
    residuals = y[:, None, :] - jnp.tensordot(phi, path.solutions, 1)
    gcv = rows.gcv(jnp.sum(residuals**2, axis=(0, 2)), unexplained)
    if criterion == "marginal_likelihood":
        # (I-H) y = ridge (K + ridge I)^{-1} y, and K has n - q more eigenvalues 0.
        quadratic = jnp.einsum("nk,npk->pk", y, residuals) / ridges[:, None]
        score = log_likelihood(quadratic, (path.log_det + (count - q) * jnp.log(ridges)) / count)
    elif criterion == "gcv":
        squares = count - q + ridges**2 * path.trace_inverse_square
        score = gcv_judged(gcv, unexplained**2 / squares, count)
    else:
        score = squared_error(target, path.solutions)
    best = best_score(jnp.where(beyond, jnp.inf, score))
    c = path.solutions[:, best]
    stats = {"ridge": ridges[best], "dof": count - unexplained[best], "gcv": gcv[best]} | _truth(criterion, score[best])
    return Solution(c, status_of(c), stats)


def squared_error(target, solutions: Float[Array, "n p k"]) -> Float[Array, " p"]:
    """The mean squared error of each candidate, summed over outputs."""
    basis, test = target()
    return jnp.sum(test.mean((jnp.tensordot(basis, solutions, 1) - test.y[:, None, :]) ** 2), axis=1)


def search_loo(u, b, directions, rows: Distinct, shares, gains, beyond=False):
    """The candidate with the smallest leave-one-out error, except those marked by `beyond`: its gains times b, its index, and
    its stats.

    H = U diag(1 - shares) U^T and b = U^T y, where U (n, q) has orthonormal columns. `directions` of these columns belong to
    the distinct rows; the others have shares 0.
    """
    n, q = u.shape
    # The part of y outside of the q directions is not explained at all. With q = n that part would be roundoff only.
    y_rest, diagonal_rest = (
        (jnp.zeros_like(rows.mean), jnp.zeros(n)) if q == n else (rows.y - u @ b, 1.0 - jnp.sum(u**2, axis=1))
    )
    residuals = jnp.tensordot(u, shares[:, :, None] * b[:, None, :], 1) + y_rest[:, None, :]
    residuals = jnp.where(rows.first[:, None, None], residuals, 0.0)
    unexplained = jnp.where(rows.first[:, None], u**2 @ shares + diagonal_rest[:, None], 1.0)
    score = jnp.sum((residuals / unexplained[:, :, None]) ** 2, axis=(0, 2))
    best = best_score(jnp.where(beyond, jnp.inf, score))
    stats = {"dof": directions - jnp.sum(shares[:, best])} | scores(residuals[:, best], unexplained[:, best], rows)
    return gains[:, best][:, None] * b, best, stats


class KernelFit(AbstractFit):
    """f(x) = k(x, X) alpha; alpha is (n,) for y (n,), and (n, k) for y (n, k).

    `stats`: the hyper-parameter under its name; `dof`, the effective degrees of freedom (trace of the hat matrix H); and scores
    of `tsjax.estimators.tuning`: `gcv`, `loo` if the solver computes it, and `oracle` if that criterion chose. With an
    eigendecomposition also `cut`, the number of eigenvalues that count as zero because they are below the kernel's own error.
    """

    kernel: AbstractKernel
    x: Float[Array, "..."]
    alpha: Float[Array, "..."]
    status: Int[Array, "*batch"]
    stats: dict[str, Array]

    def predict(self, x: Float[Array, "t *point"]) -> Float[Array, "t *outputs"]:
        return _predict_kernel(self.kernel, self.x, self.alpha, x)

    @property
    def as_kernel_sum(self) -> KernelSum:
        return KernelSum(self.kernel, self.x, self.alpha)


@requires_float64
def _predict_kernel(kernel, x_train, alpha, x):
    return _predict_kernel_compiled(kernel, x_train, alpha, jnp.asarray(x, jnp.float64))


@compiled
def _predict_kernel_compiled(kernel, x_train, alpha, x):
    return in_blocks(lambda rows: kernel(rows, x_train) @ alpha, x)


def in_blocks(predict, x: Float[Array, "t *point"]) -> Float[Array, "t *outputs"]:
    """predict(x) in blocks of rows, so that no matrix of very many points times all training points is made."""
    if x.shape[0] <= _BLOCK:
        return predict(x)
    return jax.lax.map(lambda point: predict(point[None])[0], x, batch_size=_BLOCK)


def as_kernel(kernel: Any) -> AbstractKernel:
    """Returns `kernel` if it is one. **Raises:** ValueError otherwise."""
    if not isinstance(kernel, AbstractKernel):
        hint = f" Call it: {kernel.__name__}()." if callable(kernel) and hasattr(kernel, "__name__") else ""
        raise ValueError(f"this estimator needs a kernel such as tsjax.kernels.ntk(depth=1), got {kernel!r}.{hint}")
    return kernel


class KernelRidge(AbstractEstimator):
    """Kernel ridge regression: alpha = (K + ridge I)^{-1} y, f_hat(x) = k(x, X) alpha (module docstring).

    **Arguments:**

    - `kernel`: any kernel, for instance `tsjax.kernels.ntk(depth=1)`.
    - `ridge`: a number >= 0 (not times n), or `"gcv"`, `"loo"`, `"holdout"`, `"marginal_likelihood"` or `"oracle"`: the best
      of 60 values from 1e-10 to 1e2 times trace(K)/n by that criterion (`tsjax.estimators.tuning`). Numbers are traced:
      use `jax.vmap` over them.

    A ridge that is a number costs one Cholesky factorisation. A search costs several times as much, and "loo" the most. A fit
    with a given ridge needs memory for about two kernel matrices of 8 n^2 bytes (up to 3.6 near n = 5000, and 1.1 on a GPU if n
    is large), and a search for two to five. A matrix that cannot be factorised to working precision, or to the precision of the
    kernel (with ridge 0 and a kernel of finite rank, for example), gives `Status.SINGULAR` and NaN predictions; see
    `MinimumNorm` for interpolation. Among equal rows only the first has a nonzero entry of `alpha`, which does not change the
    function.

    **Warns:** if a criterion chooses the ridge and rows of x repeat, since they then count as one (module docstring).

    **Raises:** ValueError for a negative ridge, an unknown criterion, or a `kernel` that is not a kernel.

    >>> problem = ts.Problem(inputs=ts.Sphere(d=3), teacher=ts.ReLUTeacher(m=2), noise_std=0.1)
    >>> teacher = problem.sample_teacher(jax.random.key(0))
    >>> data = problem.sample(jax.random.key(1), teacher, n=64)
    >>> fit = ts.KernelRidge(ts.kernels.RBF(1.0), ridge="gcv").fit(jax.random.key(2), data)
    >>> fit.predict(data.x[:5]).shape, sorted(fit.stats)
    ((5,), ['dof', 'gcv', 'ridge'])
    """

    kernel: AbstractKernel = eqx.field(converter=as_kernel)
    ridge: Fixed | Search = eqx.field(converter=ridge_rule, default="gcv")

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> KernelFit:
        """Fits x, the points of the kernel as rows, and y, (n,) or (n, k), in float64. The rows are (n, d), or for the kernel
        of a convolutional network images (n, *point). Only `"holdout"` and `"oracle"` use `key`. `"oracle"` also needs
        `oracle=(problem, teacher)`: it draws fresh inputs from the problem, independent of all other uses of `key`.

        **Raises:** ValueError for data that are not finite or of the wrong rank, for class labels, for an oracle that is
        missing or not needed, and for a search on fewer than two rows or on rows that are all equal.
        """
        check_data(key, data, outputs=True, weights=True, point_ndim=self.kernel.point_ndim)
        check_oracle("ridge", self.ridge, oracle, data)
        return _fit(floats_as_arrays(self), key, data, floats_as_arrays(oracle))


@requires_float64
def _fit(self: KernelRidge, key, data: Dataset, oracle: Oracle | None) -> KernelFit:
    return _fit_compiled(self, key, data, oracle)


@compiled
def _fit_compiled(self: KernelRidge, key, data: Dataset, oracle: Oracle | None) -> KernelFit:
    sample, kernel, rule = sample_of(data), self.kernel, self.ridge

    def errs(sample: Sample, rows: Distinct):
        return kernel.error(sample.x, rows.root)

    def gram(sample: Sample):
        return leading.kernel_matrix(kernel, sample.x, sample.extent)

    def at(x, test: Sample):
        return lambda: (kernel(test.x, x), test)

    if isinstance(rule, Search) and rule.criterion == "holdout":
        part, held = hold_out(key, sample)
        fitted = distinct(part)
        found = search_gram("holdout", gram(part), fitted, errs(part, fitted), at(part.x, held))
        rule = Fixed(found.stats["ridge"])
    rows = distinct(sample)
    if isinstance(rule, Fixed):
        alpha, status, stats = solve_kernel(kernel, sample.x, rows, rule.value, errs(sample, rows))[0]
    else:
        target = lambda: at(sample.x, oracle_sample(key, oracle, sample.y.shape[1]))()
        alpha, status, stats = search_gram(rule.criterion, gram(sample), rows, errs(sample, rows), target)
    return KernelFit(kernel=kernel, x=sample.x, alpha=shaped(alpha, data), status=status, stats=stats)
