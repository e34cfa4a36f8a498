"""Ridge regression on random ReLU features: a two-layer network of which only the second layer is trained."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..precision import requires_float64
from ..problem import Dataset
from .base import AbstractEstimator, AbstractFit, check_data, floats_as_arrays
from .ridge import (
    FixedRidge,
    Oracle,
    RidgeSearch,
    Solution,
    check_oracle,
    in_blocks,
    oracle_sample,
    ridge_rule,
    search_path,
    solution,
    solve_gram,
)

# Far from the small numbers that split(key) amounts to folding in.
_FEATURE_STREAM = 0xFEA7


def relu_features(w: Float[Array, "p d"], x: Float[Array, "n d"]) -> Float[Array, "n p"]:
    """phi(x)_j = relu(<w_j, x>) / sqrt(p): <phi(x), phi(z)> tends to `ArcCosine(1)` for w ~ N(0, I) and large p."""
    return jax.nn.relu(jnp.dot(x, w.T, precision="highest")) / w.shape[0] ** 0.5


class FeaturesFit(AbstractFit):
    """f(x) = sum_j c_j relu(<w_j, x>) / sqrt(p). `stats` as for `KernelFit`."""

    w: Float[Array, "*batch p d"]
    coefficients: Float[Array, "*batch p"]
    status: Int[Array, "*batch"]
    stats: dict[str, Array]

    def predict(self, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        return _predict_features(self.w, self.coefficients, x)


@requires_float64
def _predict_features(w, coefficients, x):
    return _predict_features_compiled(w, coefficients, jnp.asarray(x, jnp.float64))


@eqx.filter_jit
def _predict_features_compiled(w, coefficients, x):
    return in_blocks(lambda rows: relu_features(w, rows) @ coefficients, x)


class RandomFeatures(AbstractEstimator):
    r"""Ridge regression on `count` random features phi(x)_j = relu(<w_j, x>) / sqrt(count), w_j ~ N(0, I_d): minimises
    sum_i (y_i - <c, phi(x_i)>)^2 + ridge |c|^2 over c (Rahimi & Recht 2007, NeurIPS 20, with ReLU features).

    It is `KernelRidge` with the random kernel <phi(x), phi(z)>, whose mean is `tsjax.kernels.ArcCosine(1)`, and `ridge`
    means the same. Solved in whichever of the sample (n) and the features (count) has fewer dimensions.

    **Arguments:**

    - `count`: number of features; None is 4n.
    - `ridge`: a number >= 0, `"gcv"`, `"loo"` or `"oracle"`, as for `KernelRidge`.

    **Raises:** ValueError for count < 1 or a bad ridge.
    """

    count: int | None = eqx.field(static=True, default=None)
    ridge: FixedRidge | RidgeSearch = eqx.field(converter=ridge_rule, default="gcv")

    def __check_init__(self):
        if self.count is not None and self.count < 1:
            raise ValueError(f"RandomFeatures needs at least one feature, got count={self.count}; None is 4n.")

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> FeaturesFit:
        """Fits x (n, d), y (n,) in float64; the features are drawn from `key`. Raises as `KernelRidge.fit` does."""
        check_data(data)
        check_oracle(self.ridge, oracle, data)
        return _fit(floats_as_arrays(self), key, data, floats_as_arrays(oracle))


@requires_float64
def _fit(self: RandomFeatures, key, data: Dataset, oracle: Oracle | None) -> FeaturesFit:
    return _fit_compiled(self, key, data, oracle)


@eqx.filter_jit
def _fit_compiled(self: RandomFeatures, key, data: Dataset, oracle: Oracle | None) -> FeaturesFit:
    x, y = data.x.astype(jnp.float64), data.y.astype(jnp.float64)
    count = 4 * data.n if self.count is None else self.count
    w = jr.normal(jr.fold_in(key, _FEATURE_STREAM), (count, data.d), jnp.float64)
    phi = relu_features(w, x)
    primal = count < data.n
    if isinstance(self.ridge, FixedRidge):
        if primal:
            c, status, stats = _solve_primal(phi, y, self.ridge.value)
        else:
            alpha, status, stats = solve_gram(phi @ phi.T, y, self.ridge.value)[0]
            c = phi.T @ alpha
    else:
        # c = lift @ weights, where the weights solve the problem in the eigenbasis of phi phi^T.
        if primal:
            u, singular, vt = jnp.linalg.svd(phi, full_matrices=False)
            s, lift = singular**2, vt.T * singular[None, :]
        else:
            s, u = jnp.linalg.eigh(phi @ phi.T)
            s, lift = jnp.maximum(s, 0.0), phi.T @ u

        def at_oracle():
            assert oracle is not None
            x_fresh, truth = oracle_sample(key, oracle)
            return relu_features(w, x_fresh) @ lift, truth

        weights, status, stats = search_path(self.ridge.criterion, u, s, y, at_oracle)
        c = lift @ weights
    return FeaturesFit(w=w, coefficients=c, status=status, stats=stats)


def _solve_primal(phi: Float[Array, "n p"], y: Float[Array, " n"], ridge) -> Solution:
    """c = (phi^T phi + ridge I)^{-1} phi^T y; cheaper than `solve_gram` for p < n, and possible at ridge 0."""
    lower = jnp.linalg.cholesky(phi.T @ phi + ridge * jnp.eye(phi.shape[1]))
    c = jsl.cho_solve((lower, True), phi.T @ y)
    leverage = jnp.sum(jsl.solve_triangular(lower, phi.T, lower=True) ** 2, axis=0)
    return solution(c, jnp.asarray(ridge, y.dtype), jnp.sum(leverage), y - phi @ c, 1.0 - leverage)
