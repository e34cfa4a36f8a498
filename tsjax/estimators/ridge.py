r"""Kernel ridge regression, with the ridge given, or chosen over its whole path from one factorisation.

With the kernel matrix K of the training inputs, f_hat(x) = k(x, X) alpha and alpha = (K + ridge I)^{-1} y. The ridge is
*not* multiplied by n: f_hat minimises sum_i (y_i - f(x_i))^2 + ridge |f|^2 in the kernel's space of functions, and the
ridge is the noise variance if y is a Gaussian process of covariance k plus noise. Everything is float64.

Search: the candidates are trace(K)/n times 60 numbers from 1e-10 to 1e2, log-spaced; the criteria are those of
`tsjax.estimators.tuning`. With K = Q T Q^T, T tridiagonal, all of them but "loo" need O(n^2) for each candidate, most of it
to multiply by Q; this takes a third of the time of an eigendecomposition, which "loo" needs (the diagonal of the inverse
for each candidate).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..kernels.base import AbstractKernel
from ..precision import requires_float64
from ..problem import Dataset
from .base import AbstractEstimator, AbstractFit, Status, check_data, floats_as_arrays
from .tuning import (
    CRITERIA,
    Fixed,
    Oracle,
    Search,
    check_oracle,
    gcv_judged,
    gcv_score,
    hold_out,
    oracle_sample,
    tuned,
)

PATH = np.logspace(-10.0, 2.0, 60)
"""The candidate ridges, relative to trace(K)/n."""

_BLOCK = 2048

ridge_rule = tuned("ridge", (*CRITERIA, "marginal_likelihood"))
"""What `ridge=` means."""


class Solution(NamedTuple):
    """Coefficients, how the solve ended, and numbers about it (`stats` of the fit)."""

    coefficients: Array
    status: Int[Array, ""]
    stats: dict[str, Array]


def status_of(coefficients) -> Int[Array, ""]:
    """CONVERGED for finite coefficients, else SINGULAR."""
    finite = jnp.isfinite(coefficients).all()
    return jnp.where(finite, Status.CONVERGED.value, Status.SINGULAR.value).astype(jnp.int32)


def scores(residual: Float[Array, " n"], unexplained: Float[Array, " n"]) -> dict[str, Array]:
    """GCV and leave-one-out from residuals (I-H) y and the diagonal of I-H; both may come times a common factor."""
    gcv = gcv_score(jnp.sum(residual**2), jnp.sum(unexplained), residual.size)
    return {"gcv": gcv, "loo": jnp.mean((residual / unexplained) ** 2)}


def cholesky(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The lower factor; NaN where a pivot is no larger than the roundoff of the factorisation, n eps times the mean of the
    diagonal: what such a factor solves is not what was asked."""
    lower = jnp.linalg.cholesky(matrix)
    floor = matrix.shape[0] * jnp.finfo(matrix.dtype).eps * jnp.mean(jnp.diagonal(matrix))
    return jnp.where(jnp.min(jnp.diagonal(lower) ** 2) > floor, lower, jnp.nan)


def solve_gram(gram: Float[Array, "n n"], y: Float[Array, " n"], ridge) -> tuple[Solution, Float[Array, "n n"]]:
    """alpha = (K + ridge I)^{-1} y by Cholesky, and the lower factor; NaN and SINGULAR if K + ridge I has none."""
    n = y.shape[0]
    lower = cholesky(gram + ridge * jnp.eye(n))
    alpha = jsl.cho_solve((lower, True), y)
    # I - H = ridge (K + ridge I)^{-1} and (I - H) y = ridge alpha: without the factor they stay meaningful at ridge 0.
    inverse_diagonal = jnp.sum(jsl.solve_triangular(lower, jnp.eye(n), lower=True) ** 2, axis=0)
    ridge = jnp.asarray(ridge, y.dtype)
    stats = {"ridge": ridge, "dof": n - ridge * jnp.sum(inverse_diagonal)} | scores(alpha, inverse_diagonal)
    return Solution(alpha, status_of(alpha), stats), lower


class Shifted(NamedTuple):
    """Of (A + r I) c = b, for each of p shifts r: the solutions (q, p), and the traces of (A + r I)^{-1} and of its square,
    and log det(A + r I), (p,) each."""

    solutions: Float[Array, "q p"]
    trace_inverse: Float[Array, " p"]
    trace_inverse_square: Float[Array, " p"]
    log_det: Float[Array, " p"]


def solve_shifted(a: Float[Array, "q q"], b: Float[Array, " q"], shifts: Float[Array, " p"]) -> Shifted:
    """For A positive semidefinite and r > 0, from one factorisation of A."""
    # LAPACK and cuSOLVER reduce to tridiagonal form; elsewhere (TPU) there is the eigendecomposition.
    fast = {name: _shifted_by_tridiagonal for name in ("cpu", "cuda", "rocm")}
    return Shifted(*jax.lax.platform_dependent(a, b, shifts, **fast, default=_shifted_by_eigen))


def _shifted_by_eigen(a, b, shifts) -> Shifted:
    s, u = eigen(a)
    shifted = s[:, None] + shifts[None, :]
    return Shifted(
        solutions=u @ ((u.T @ b)[:, None] / shifted),
        trace_inverse=jnp.sum(1.0 / shifted, axis=0),
        trace_inverse_square=jnp.sum(1.0 / shifted**2, axis=0),
        log_det=jnp.sum(jnp.log(shifted), axis=0),
    )


def _shifted_by_tridiagonal(a, b, shifts) -> Shifted:
    """A = Q T Q^T, Q of Householder reflections that leave the first coordinate alone. T + r I has pivots from above,
    delta_i = t_i + r - e_{i-1}^2 / delta_{i-1}, and from below, gamma_i; then (T + r I)^{-1}_ii = 1 / (delta_i + gamma_i -
    t_i - r) (Meurant 1992, SIAM J. Matrix Anal. Appl. 13, theorem 2.3). The trace of the square is minus the derivative of the
    trace by r."""
    if a.shape[0] == 1:
        return _shifted_by_eigen(a, b, shifts)
    reflectors, t, e, taus, *_ = jax.lax.linalg.tridiagonal(a, lower=True)
    reflectors = reflectors[1:, :-1]
    rotate = lambda c, transpose: jnp.concatenate(
        [c[:1], jax.lax.linalg.ormqr(reflectors, taus, c[1:], left=True, transpose=transpose)]
    )
    z = rotate(b[:, None], True)[:, 0]
    above = jnp.concatenate([jnp.zeros(1), e])
    ones = jnp.ones_like(shifts)

    def down(carry, row):
        delta, slope, forward = carry
        t_i, z_i, e_above = row
        factor = e_above / delta
        delta, slope, forward = t_i + shifts - e_above * factor, 1.0 + factor**2 * slope, z_i - factor * forward
        return (delta, slope, forward), (delta, slope, forward)

    _, (deltas, slopes, forwards) = jax.lax.scan(down, (ones, 0.0 * ones, 0.0 * ones), (t, z, above))

    def up(carry, row):
        gamma, gamma_slope, solution = carry
        t_i, e_below, delta, slope, forward = row
        gamma, gamma_slope = t_i + shifts - e_below**2 / gamma, 1.0 + (e_below / gamma) ** 2 * gamma_slope
        solution = (forward - e_below * solution) / delta
        inverse = 1.0 / (delta + gamma - t_i - shifts)
        return (gamma, gamma_slope, solution), (solution, inverse, inverse**2 * (slope + gamma_slope - 1.0))

    below = jnp.concatenate([e, jnp.zeros(1)])
    rows = (t, below, deltas, slopes, forwards)
    _, (solutions, inverse, square) = jax.lax.scan(up, (ones, 0.0 * ones, 0.0 * ones), rows, reverse=True)
    return Shifted(
        solutions=rotate(solutions, False),
        trace_inverse=jnp.sum(inverse, axis=0),
        trace_inverse_square=jnp.sum(square, axis=0),
        log_det=jnp.sum(jnp.log(deltas), axis=0),
    )


def eigen(a: Float[Array, "q q"]) -> tuple[Float[Array, " q"], Float[Array, "q q"]]:
    """Eigenvalues, those below 0 by roundoff as 0, and eigenvectors as columns."""
    s, u = jnp.linalg.eigh(a)
    return jnp.maximum(s, 0.0), u


def ridge_path(trace, n: int) -> Float[Array, " p"]:
    """The candidate ridges."""
    return trace / n * jnp.asarray(PATH)


def best_score(scores: Float[Array, " p"]):
    """The index of the least score; a score that is NaN is no score."""
    return jnp.argmin(jnp.where(jnp.isnan(scores), jnp.inf, scores))


def search_gram(criterion: str, gram, y, target) -> Solution:
    """The best ridge of the path; `target` gives k(x', x) at new inputs x' and what should be predicted there (asked for by
    "oracle" and "holdout" only)."""
    n = y.shape[0]
    ridges = ridge_path(jnp.trace(gram), n)
    if criterion == "loo":
        s, u = eigen(gram)
        shares = ridges[None, :] / (s[:, None] + ridges[None, :])
        weights, best, stats = search_loo(u, u.T @ y, y, shares, 1.0 / (s[:, None] + ridges[None, :]))
        alpha = u @ weights
        return Solution(alpha, status_of(alpha), {"ridge": ridges[best]} | stats)
    path = solve_shifted(gram, y, ridges)
    dof = n - ridges * path.trace_inverse
    gcv = gcv_score(jnp.sum(path.solutions**2, axis=0), path.trace_inverse, n)
    if criterion == "marginal_likelihood":
        score = jnp.log(y @ path.solutions) + path.log_det / n
    elif criterion == "gcv":
        score = gcv_judged(gcv, path.trace_inverse**2 / path.trace_inverse_square, n)
    else:
        score = _squared_error(target, path.solutions)
    best = best_score(score)
    alpha = path.solutions[:, best]
    return Solution(alpha, status_of(alpha), {"ridge": ridges[best], "dof": dof[best], "gcv": gcv[best]})


def search_primal(criterion: str, phi, y, target) -> Solution:
    """The same for p < n features, K = phi phi^T, in the space of the features; `target` gives phi at new inputs."""
    n, q = phi.shape
    gram, b = phi.T @ phi, phi.T @ y
    ridges = ridge_path(jnp.trace(gram), n)
    if criterion == "loo":
        u, singular, vt = jnp.linalg.svd(phi, full_matrices=False)
        s = singular**2
        shares = ridges[None, :] / (s[:, None] + ridges[None, :])
        weights, best, stats = search_loo(u, u.T @ y, y, shares, singular[:, None] / (s[:, None] + ridges[None, :]))
        c = vt.T @ weights
        return Solution(c, status_of(c), {"ridge": ridges[best]} | stats)
    path = solve_shifted(gram, b, ridges)
    unexplained = n - q + ridges * path.trace_inverse
    residuals = y[:, None] - phi @ path.solutions
    gcv = gcv_score(jnp.sum(residuals**2, axis=0), unexplained, n)
    if criterion == "marginal_likelihood":
        # (I-H) y = ridge (K + ridge I)^{-1} y, and K has n - q more eigenvalues 0.
        score = jnp.log(y @ residuals / ridges) + (path.log_det + (n - q) * jnp.log(ridges)) / n
    elif criterion == "gcv":
        score = gcv_judged(gcv, unexplained**2 / (n - q + ridges**2 * path.trace_inverse_square), n)
    else:
        score = _squared_error(target, path.solutions)
    best = best_score(score)
    c = path.solutions[:, best]
    return Solution(c, status_of(c), {"ridge": ridges[best], "dof": n - unexplained[best], "gcv": gcv[best]})


def _squared_error(target, solutions) -> Float[Array, " p"]:
    basis, truth = target()
    return jnp.mean((basis @ solutions - truth[:, None]) ** 2, axis=0)


def search_loo(u, b, y, shares, gains):
    """The candidate of least leave-one-out error, for H = U diag(1 - shares) U^T, U (n, q) with orthonormal columns and b =
    U^T y: gains b of the best one, its index, and stats."""
    n, q = u.shape
    # What lies outside of the q directions is left as it is. With q = n there is nothing there but roundoff.
    y_rest, diagonal_rest = (jnp.zeros(n), jnp.zeros(n)) if q == n else (y - u @ b, 1.0 - jnp.sum(u**2, axis=1))
    residuals = u @ (shares * b[:, None]) + y_rest[:, None]
    unexplained = u**2 @ shares + diagonal_rest[:, None]
    best = best_score(jnp.mean((residuals / unexplained) ** 2, axis=0))
    stats = {"dof": q - jnp.sum(shares[:, best])} | scores(residuals[:, best], unexplained[:, best])
    return gains[:, best] * b, best, stats


class KernelFit(AbstractFit):
    """f(x) = k(x, X) alpha.

    `stats`: the hyper-parameter under its name; `dof`, the effective degrees of freedom (trace of the hat matrix H); `gcv`,
    and `loo` where the solver gives it, the scores of `tsjax.estimators.tuning`.
    """

    kernel: AbstractKernel
    x: Float[Array, "*batch n d"]
    alpha: Float[Array, "*batch n"]
    status: Int[Array, "*batch"]
    stats: dict[str, Array]

    def predict(self, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        return _predict_kernel(self.kernel, self.x, self.alpha, x)


@requires_float64
def _predict_kernel(kernel, x_train, alpha, x):
    return _predict_kernel_compiled(kernel, x_train, alpha, jnp.asarray(x, jnp.float64))


@eqx.filter_jit
def _predict_kernel_compiled(kernel, x_train, alpha, x):
    return in_blocks(lambda rows: kernel(rows, x_train) @ alpha, x)


def in_blocks(predict, x: Float[Array, "k d"]) -> Float[Array, " k"]:
    """predict(x) in blocks of rows, so that very many points make no matrix of all of them with the training data."""
    if x.shape[0] <= _BLOCK:
        return predict(x)
    return jax.lax.map(lambda point: predict(point[None])[0], x, batch_size=_BLOCK)


def as_kernel(kernel: Any) -> AbstractKernel:
    """`kernel`, if it is one. Raises ValueError, saying what to do, else."""
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
      `jax.vmap` over them.

    A number costs a Cholesky factorisation, a search three to four of them, "loo" ten. A matrix that cannot be factorised to
    working precision (ridge 0 with repeated points, say) gives `Status.SINGULAR` and NaN predictions; see `MinimumNorm` for
    interpolation.

    **Raises:** ValueError for a negative ridge, an unknown criterion, or a kernel that is none.

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
        """Fits x (n, d), y (n,) in float64. `key` is used by `"holdout"`, and by `"oracle"`, which also needs
        `oracle=(problem, teacher)`: fresh inputs are drawn from the problem, independent of all other uses of `key`.

        **Raises:** ValueError for data that are not finite or of the wrong rank, and a missing or needless oracle.
        """
        check_data(data)
        check_oracle("ridge", self.ridge, oracle, data)
        return _fit(floats_as_arrays(self), key, data, floats_as_arrays(oracle))


@requires_float64
def _fit(self: KernelRidge, key, data: Dataset, oracle: Oracle | None) -> KernelFit:
    return _fit_compiled(self, key, data, oracle)


@eqx.filter_jit
def _fit_compiled(self: KernelRidge, key, data: Dataset, oracle: Oracle | None) -> KernelFit:
    x, y = data.x.astype(jnp.float64), data.y.astype(jnp.float64)
    kernel, rule = self.kernel, self.ridge

    def at_oracle():
        assert oracle is not None
        x_fresh, truth = oracle_sample(key, oracle)
        return kernel(x_fresh, x), truth

    if isinstance(rule, Search) and rule.criterion == "holdout":
        (x_fit, y_fit), (x_held, y_held) = hold_out(key, x, y)
        found = search_gram("holdout", kernel(x_fit), y_fit, lambda: (kernel(x_held, x_fit), y_held))
        rule = Fixed(found.stats["ridge"])
    if isinstance(rule, Fixed):
        alpha, status, stats = solve_gram(kernel(x), y, rule.value)[0]
    else:
        alpha, status, stats = search_gram(rule.criterion, kernel(x), y, at_oracle)
    return KernelFit(kernel=kernel, x=x, alpha=alpha, status=status, stats=stats)
