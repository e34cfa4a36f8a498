"""Ridge regression on random features: a two-layer network with only its second layer trained."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..compilation import compiled
from ..kernels.base import check_positive, roundoff
from ..kernels.features import AbstractFeatures, FourierFeatures, ReLUFeatures
from ..network import TwoLayer
from ..precision import requires_float64
from ..task import Dataset
from . import leading
from .base import AbstractEstimator, AbstractFit, check_data, floats_as_arrays
from .cholesky import factorise_matrix
from .repeats import Distinct, Sample, distinct, sample_of, shaped
from .ridge import Solution, in_blocks, ridge_rule, scores, search_gram, search_primal, solve_gram, status_of
from .tuning import Fixed, Oracle, Search, check_oracle, hold_out, oracle_sample

# A stream far from the small numbers that split(key) amounts to folding in.
_FEATURE_STREAM = 0xFEA7


class FeaturesFit(AbstractFit):
    """f(x) = <c, phi(x)> with phi the `features`. The `coefficients` c are (p,) for y (n,), and (p, k) for y (n, k). `stats`
    are those of `KernelFit`."""

    features: AbstractFeatures
    coefficients: Float[Array, "..."]
    status: Int[Array, "*batch"]
    stats: dict[str, Array]

    def predict(self, x: Float[Array, "t d"]) -> Float[Array, "t *outputs"]:
        return _predict_features(self.features, self.coefficients, x)

    @property
    def as_network(self) -> TwoLayer | None:
        if not isinstance(self.features, ReLUFeatures) or self.coefficients.ndim != self.status.ndim + 1:
            return None
        # relu features are divided by sqrt(p), so the output weights of the network are c / sqrt(p).
        w = self.features.w
        return TwoLayer(a=self.coefficients / w.shape[-2] ** 0.5, w=w)


@requires_float64
def _predict_features(features, coefficients, x):
    return _predict_features_compiled(features, coefficients, jnp.asarray(x, jnp.float64))


@compiled
def _predict_features_compiled(features, coefficients, x):
    return in_blocks(lambda rows: features.features(rows) @ coefficients, x)


class RandomFeatures(AbstractEstimator):
    r"""Ridge regression on `count` random features phi, which minimises sum_i (y_i - <c, phi(x_i)>)^2 + ridge |c|^2 over c
    (Rahimi & Recht 2007, NeurIPS 20). Sample weights multiply the squares. Several outputs share the ridge and the features.

    It is `KernelRidge` with the random kernel <phi(x), phi(z)>, and `ridge` means the same. The linear system has n or `count`
    unknowns, whichever is smaller.

    **Arguments:**

    - `count`: number of features; None is 4n, with n the number of rows of weight > 0.
    - `ridge`: a number >= 0 or a criterion, as for `KernelRidge`.
    - `features`: `"relu"`, relu(<w_j, x>) / sqrt(count) with w_j ~ N(0, I_d), whose mean kernel is
      `tsjax.kernels.ArcCosine(1)`; or `"fourier"`, sqrt(2/count) cos(<w_j, x> + b_j) with w_j ~ N(0, I_d / length_scale^2) and
      b_j uniform on [0, 2 pi], whose mean kernel is `tsjax.kernels.RBF(length_scale)`.
    - `length_scale`: that of Fourier features.

    **Raises:** ValueError for count < 1, an invalid ridge, features other than these, or a length_scale that is not positive.
    """

    count: int | None = eqx.field(static=True, default=None)
    ridge: Fixed | Search = eqx.field(converter=ridge_rule, default="gcv")
    features: Literal["relu", "fourier"] = eqx.field(static=True, default="relu")
    length_scale: float | Float[Array, ""] = 1.0

    def __check_init__(self):
        if self.count is not None and self.count < 1:
            raise ValueError(f"RandomFeatures needs at least one feature, got count={self.count}; None is 4n.")
        if self.features not in ("relu", "fourier"):
            raise ValueError(f"features must be 'relu' or 'fourier', got {self.features!r}.")
        check_positive("RandomFeatures", length_scale=self.length_scale)

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> FeaturesFit:
        """Fits x (n, d) and y, (n,) or (n, k), in float64. `key` also draws the features. `oracle` and the errors are those of
        `KernelRidge.fit`."""
        check_data(key, data, outputs=True, weights=True)
        check_oracle("ridge", self.ridge, oracle, data)
        return _fit(floats_as_arrays(self), key, data, floats_as_arrays(oracle))


@requires_float64
def _fit(self: RandomFeatures, key, data: Dataset, oracle: Oracle | None) -> FeaturesFit:
    return _fit_compiled(self, key, data, oracle)


@compiled
def _fit_compiled(self: RandomFeatures, key, data: Dataset, oracle: Oracle | None) -> FeaturesFit:
    sample = sample_of(data)
    count = 4 * data.n if self.count is None else self.count
    draw_key = jr.fold_in(key, _FEATURE_STREAM)
    if self.features == "relu":
        features: AbstractFeatures = ReLUFeatures.sample(draw_key, count, data.d, jnp.float64)
    else:
        features = FourierFeatures.sample(draw_key, count, data.d, self.length_scale, jnp.float64)
    rule, used = self.ridge, None
    if self.count is None and sample.weight is not None:
        # Only the first 4 n features are used (n counts rows of weight > 0), scaled as for that number of features.
        number = 4.0 * sample.n
        used = jnp.where(jnp.arange(count) < number, jnp.sqrt(count / jnp.maximum(number, 1.0)), 0.0)

    def of(x):
        phi = features.features(x)
        return phi if used is None else phi * used[None, :]

    phi = of(sample.x)

    def at_oracle():
        fresh = oracle_sample(key, oracle, sample.y.shape[1])
        return of(fresh.x), fresh

    per_row = 4 if self.count is None else None
    if isinstance(rule, Search) and rule.criterion == "holdout":
        part, held = hold_out(key, Sample(phi, sample.y, sample.weight))
        found = _search("holdout", part.x, distinct(part), lambda: (held.x, held))
        rule = Fixed(found.stats["ridge"])
    rows = distinct(sample)
    if isinstance(rule, Search):
        c, status, stats = _search(rule.criterion, phi, rows, at_oracle, per_row)
    elif count < data.n:
        c, status, stats = _solve_primal(phi, rows, rule.value)
    else:
        gram = leading.outer_gram(phi, rows.extent, per_row)
        alpha, status, stats = solve_gram(gram, rows, rule.value, _error(phi, rows))[0]
        c = phi.T @ alpha
    c = c if used is None else c * used[:, None]
    return FeaturesFit(features=features, coefficients=shaped(c, data), status=status, stats=stats)


def _error(phi: Float[Array, "n p"], rows: Distinct) -> Float[Array, ""]:
    """The error of the weighted matrix phi phi^T, in the sense of `AbstractKernel.error`."""
    return roundoff(phi.dtype, phi.shape[1]) * jnp.sum(jnp.sum(phi**2, axis=1) * rows.root**2)


def _search(criterion: str, phi: Float[Array, "n p"], rows: Distinct, target, per_row: int | None = None) -> Solution:
    """The fit with the best ridge of the path. `target` returns phi at new inputs and a sample of the responses to predict
    there. With `per_row`, only the first `per_row` times n features are in use, n being the number of rows that count."""
    if phi.shape[1] < phi.shape[0]:
        return search_primal(criterion, phi, rows, _error(phi, rows), target)

    def kernel_target():
        basis, test = target()
        return basis @ phi.T, test

    gram = leading.outer_gram(phi, rows.extent, per_row)
    alpha, status, stats = search_gram(criterion, gram, rows, _error(phi, rows), kernel_target)
    return Solution(phi.T @ alpha, status, stats)


def _solve_primal(phi: Float[Array, "n p"], rows: Distinct, ridge) -> Solution:
    """c = (phi^T phi + ridge I)^{-1} phi^T y. For p < n this is cheaper than `solve_gram`, and it works with ridge 0."""
    phi, y = rows.root[:, None] * phi, rows.y
    matrix = leading.inner_gram(phi, rows.extent) + ridge * jnp.eye(phi.shape[1])
    factor = factorise_matrix(matrix)
    c, leverage = factor.solve(phi.T @ y), factor.explained(phi.T)
    stats = {"ridge": jnp.asarray(ridge, y.dtype), "dof": jnp.sum(leverage)} | scores(y - phi @ c, 1.0 - leverage, rows)
    return Solution(c, status_of(c), stats)
