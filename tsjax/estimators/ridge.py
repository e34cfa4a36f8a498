r"""Kernel ridge regression, with the ridge given, or chosen over its whole path from one eigendecomposition.

With the kernel matrix K of the training inputs, f_hat(x) = k(x, X) alpha and alpha = (K + ridge I)^{-1} y. The ridge is
*not* multiplied by n: f_hat minimises sum_i (y_i - f(x_i))^2 + ridge |f|^2 in the kernel's space of functions, and the
ridge is the noise variance if y is a Gaussian process of covariance k plus noise. Everything is float64.

Search: the candidates are trace(K)/n times 60 numbers from 1e-10 to 1e2, log-spaced. With K = U diag(s) U^T, the share
of y that a ridge r leaves unexplained is U diag(r/(s+r)) U^T =: I - H, so that each candidate costs O(n) (O(n^2) for
"loo"):

- "gcv": n |(I-H) y|^2 / trace(I-H)^2 (Golub, Heath & Wahba 1979, Technometrics 21, equation 1.4);
- "loo": mean_i (((I-H) y)_i / (I-H)_ii)^2, the exact leave-one-out error (Allen's PRESS; ibid., section 1);
- "oracle": the mean squared distance to the true function on 4096 fresh inputs: what no method can have, for reference.
"""

import difflib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..kernels.base import AbstractKernel
from ..precision import requires_float64
from ..problem import Dataset, Problem
from .base import AbstractEstimator, AbstractFit, Status, check_data, floats_as_arrays

Oracle = tuple[Problem, Callable[[Array], Array]]
"""A problem and its true regression function of one point, as in `fit(key, data, oracle=(problem, teacher))`."""

PATH = np.logspace(-10.0, 2.0, 60)
"""The candidate ridges, relative to trace(K)/n."""

_CRITERIA = ("gcv", "loo", "oracle")
_ORACLE_POINTS = 4096
_BLOCK = 2048
# Far from the small numbers that split(key) amounts to folding in, should the caller have drawn the data from the same
# key.
_ORACLE_STREAM = 0x0FAC1E


class FixedRidge(eqx.Module):
    """A ridge that is a number >= 0."""

    value: Any


class RidgeSearch(eqx.Module):
    """The ridge of the path with the lowest "gcv", "loo" or "oracle" score."""

    criterion: Literal["gcv", "loo", "oracle"] = eqx.field(static=True)


def ridge_rule(ridge: Any) -> FixedRidge | RidgeSearch:
    """What `ridge=` means: a number or one of "gcv", "loo", "oracle". Raises ValueError for anything else."""
    if isinstance(ridge, FixedRidge | RidgeSearch):
        return ridge
    if isinstance(ridge, str):
        if ridge not in _CRITERIA:
            near = difflib.get_close_matches(ridge.lower(), _CRITERIA, n=1, cutoff=0.0)[0]
            raise ValueError(f"ridge must be a number or one of {_CRITERIA}, got {ridge!r}; nearest: {near!r}.")
        return RidgeSearch(ridge)
    if jnp.ndim(ridge) != 0:
        raise ValueError(f"ridge is one number, got an array of shape {jnp.shape(ridge)}; jax.vmap over the estimator.")
    if not isinstance(ridge, jax.core.Tracer) and not 0.0 <= float(ridge) < float("inf"):
        raise ValueError(f"ridge must be finite and >= 0, got {ridge}.")
    return FixedRidge(float(ridge) if isinstance(ridge, int) else ridge)


def check_oracle(rule: FixedRidge | RidgeSearch, oracle: Oracle | None, data: Dataset) -> None:
    """Raises ValueError unless an oracle is there exactly when the rule asks for one, in the data's dimension."""
    wanted = isinstance(rule, RidgeSearch) and rule.criterion == "oracle"
    if wanted and oracle is None:
        raise ValueError('ridge="oracle" needs the truth: call fit(key, data, oracle=(problem, teacher)).')
    if oracle is not None and not wanted:
        raise ValueError('an oracle is of use with ridge="oracle" only; leave it out, or ask for that ridge.')
    if oracle is not None and oracle[0].d != data.d:
        raise ValueError(f"the oracle's problem has d={oracle[0].d}, but the data have d={data.d}.")


def oracle_sample(key: PRNGKeyArray, oracle: Oracle) -> tuple[Float[Array, "t d"], Float[Array, " t"]]:
    """Fresh float64 inputs, independent of what else `key` is used for, and the true function there."""
    problem, teacher = oracle
    x = problem.inputs.sample(jr.fold_in(key, _ORACLE_STREAM), _ORACLE_POINTS, jnp.float64)
    return x, jax.vmap(as_float64(teacher))(x)


def as_float64(tree: Any) -> Any:
    """`tree` with its floating-point arrays in float64."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, tree)


class Solution(NamedTuple):
    """Coefficients, how the solve ended, and numbers about it (`stats` of the fit)."""

    coefficients: Array
    status: Int[Array, ""]
    stats: dict[str, Array]


def solution(coefficients, ridge, dof, residual, unexplained) -> Solution:
    """The scores are ratios of residuals (I-H) y to the diagonal of I-H; either may come times a common factor."""
    gcv = residual.size * jnp.sum(residual**2) / jnp.sum(unexplained) ** 2
    loo = jnp.mean((residual / unexplained) ** 2)
    finite = jnp.isfinite(coefficients).all()
    status = jnp.where(finite, Status.CONVERGED.value, Status.SINGULAR.value).astype(jnp.int32)
    return Solution(coefficients, status, {"ridge": ridge, "dof": dof, "gcv": gcv, "loo": loo})


def solve_gram(gram: Float[Array, "n n"], y: Float[Array, " n"], ridge) -> tuple[Solution, Float[Array, "n n"]]:
    """alpha = (K + ridge I)^{-1} y by Cholesky, and the lower factor; NaN and SINGULAR if K + ridge I has none."""
    n = y.shape[0]
    lower = jnp.linalg.cholesky(gram + ridge * jnp.eye(n))
    alpha = jsl.cho_solve((lower, True), y)
    # I - H = ridge (K + ridge I)^{-1} and (I - H) y = ridge alpha: without the factor they stay meaningful at ridge 0.
    inverse_diagonal = jnp.sum(jsl.solve_triangular(lower, jnp.eye(n), lower=True) ** 2, axis=0)
    dof = n - ridge * jnp.sum(inverse_diagonal)
    return solution(alpha, jnp.asarray(ridge, y.dtype), dof, alpha, inverse_diagonal), lower


def search_path(
    criterion: str,
    u: Float[Array, "n q"],
    s: Float[Array, " q"],
    y: Float[Array, " n"],
    at_oracle: Callable[[], tuple[Float[Array, "t q"], Float[Array, " t"]]],
) -> Solution:
    """The best ridge of the path for K = U diag(s) U^T, U with orthonormal columns; coefficients w = U^T y / (s + r).

    The prediction is a combination of q functions with coefficients w; `at_oracle` gives the values of these functions
    on fresh inputs, and the true values there (asked for by "oracle" only).
    """
    n, q = u.shape
    ridges = jnp.sum(s) / n * jnp.asarray(PATH)
    b = u.T @ y
    weights = b[:, None] / (s[:, None] + ridges[None, :])
    shrink = ridges[None, :] / (s[:, None] + ridges[None, :])
    # What lies outside of the q directions is left as it is. With q = n there is nothing there but roundoff.
    y_rest, diagonal_rest = (jnp.zeros(n), jnp.zeros(n)) if q == n else (y - u @ b, 1.0 - jnp.sum(u**2, axis=1))
    if criterion == "gcv":
        scores = (jnp.sum((shrink * b[:, None]) ** 2, 0) + jnp.sum(y_rest**2)) / (jnp.sum(shrink, 0) + n - q) ** 2
    elif criterion == "loo":
        residuals = u @ (shrink * b[:, None]) + y_rest[:, None]
        scores = jnp.mean((residuals / (u**2 @ shrink + diagonal_rest[:, None])) ** 2, axis=0)
    else:
        basis, truth = at_oracle()
        scores = jnp.mean((basis @ weights - truth[:, None]) ** 2, axis=0)
    best = jnp.argmin(scores)
    shrink, ridge = shrink[:, best], ridges[best]
    residual, unexplained = u @ (shrink * b) + y_rest, u**2 @ shrink + diagonal_rest
    return solution(weights[:, best], ridge, q - jnp.sum(shrink), residual, unexplained)


class KernelFit(AbstractFit):
    """f(x) = k(x, X) alpha.

    `stats`: `ridge`; `dof`, the effective degrees of freedom (trace of the hat matrix H); `gcv` and `loo`, the scores
    of the module docstring.
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


def in_blocks(predict: Callable[[Array], Array], x: Float[Array, "k d"]) -> Float[Array, " k"]:
    """predict(x) in blocks of rows, so that very many points make no matrix of all of them with the training data."""
    if x.shape[0] <= _BLOCK:
        return predict(x)
    return jax.lax.map(lambda point: predict(point[None])[0], x, batch_size=_BLOCK)


def _as_kernel(kernel: Any) -> AbstractKernel:
    if not isinstance(kernel, AbstractKernel):
        hint = f" Call it: {kernel.__name__}()." if callable(kernel) and hasattr(kernel, "__name__") else ""
        raise ValueError(f"KernelRidge needs a kernel such as tsjax.kernels.ntk(depth=1), got {kernel!r}.{hint}")
    return kernel


class KernelRidge(AbstractEstimator):
    """Kernel ridge regression: alpha = (K + ridge I)^{-1} y, f_hat(x) = k(x, X) alpha (module docstring).

    **Arguments:**

    - `kernel`: any kernel, for instance `tsjax.kernels.ntk(depth=1)`.
    - `ridge`: a number >= 0 (not times n), or `"gcv"`, `"loo"` or `"oracle"`: the best of 60 values from 1e-10 to 1e2
      times trace(K)/n by that criterion. Numbers are traced: `jax.vmap` over them.

    A number costs a Cholesky factorisation, a search an eigendecomposition (several times that). A matrix that cannot
    be factorised (ridge 0 with repeated points, say) gives `Status.SINGULAR` and NaN predictions.

    **Raises:** ValueError for a negative ridge, an unknown criterion, or a kernel that is none.
    """

    kernel: AbstractKernel = eqx.field(converter=_as_kernel)
    ridge: FixedRidge | RidgeSearch = eqx.field(converter=ridge_rule, default="gcv")

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> KernelFit:
        """Fits x (n, d), y (n,) in float64. `key` is used only by `ridge="oracle"`, which also needs
        `oracle=(problem, teacher)`: fresh inputs are drawn from the problem, independent of all other uses of `key`.

        **Raises:** ValueError for data that are not finite or of the wrong rank, and a missing or needless oracle.
        """
        check_data(data)
        check_oracle(self.ridge, oracle, data)
        return _fit(floats_as_arrays(self), key, data, floats_as_arrays(oracle))


@requires_float64
def _fit(self: KernelRidge, key, data: Dataset, oracle: Oracle | None) -> KernelFit:
    return _fit_compiled(self, key, data, oracle)


@eqx.filter_jit
def _fit_compiled(self: KernelRidge, key, data: Dataset, oracle: Oracle | None) -> KernelFit:
    x, y = data.x.astype(jnp.float64), data.y.astype(jnp.float64)
    gram = self.kernel(x)
    if isinstance(self.ridge, FixedRidge):
        alpha, status, stats = solve_gram(gram, y, self.ridge.value)[0]
    else:
        s, u = jnp.linalg.eigh(gram)

        def at_oracle():
            assert oracle is not None
            x_fresh, truth = oracle_sample(key, oracle)
            return self.kernel(x_fresh, x) @ u, truth

        weights, status, stats = search_path(self.ridge.criterion, u, jnp.maximum(s, 0.0), y, at_oracle)
        alpha = u @ weights
    return KernelFit(kernel=self.kernel, x=x, alpha=alpha, status=status, stats=stats)
