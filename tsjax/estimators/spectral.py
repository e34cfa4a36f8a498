r"""Spectral regularisation other than ridge: gradient flow, the spectral cut-off, and minimum-norm interpolation.

With K = U diag(s) U^T, each of them predicts f_hat(x) = k(x, X) U diag(g(s)) U^T y for a filter g, and leaves the share
1 - s g(s) of y along an eigenvector unexplained (Bauer, Pereverzev & Rosasco 2007, J. Complexity 23, section 3):

- gradient flow f' = -K (f - y) / n from f = 0, for the loss (1/2n) |f - y|^2, stopped at time t: g(s) = (1 - e^{-s t/n}) / s;
- cut-off after the k largest eigenvalues (principal-component regression in feature space): g(s) = 1/s on these, else 0;
- minimum norm: g(s) = 1/s, the limit of ridge regression as the ridge tends to 0, and of gradient flow as t tends to infinity.

With sample weights w_i and D = diag(sqrt(w_i)), D K D takes the place of K, D y that of y, and sum_i w_i that of n in the flow,
whose loss is then the weighted mean. For y (n, k) every column is filtered in the same way; alpha is (n, k).

Eigenvalues below the kernel's own error (`AbstractKernel.error`) or below n eps s_max are roundoff, which factors 1/s or t
would amplify. There g is 0. `stats["cut"]` is the number of these eigenvalues. Equal rows of x count as one in every criterion
(`tsjax.estimators.repeats`). One eigendecomposition serves the whole path of t or k.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..compilation import compiled
from ..kernels.base import AbstractKernel
from ..precision import is_traced, requires_float64
from ..task import Dataset
from . import leading
from .base import AbstractEstimator, check_data, floats_as_arrays
from .repeats import Distinct, Sample, distinct, sample_of, shaped
from .ridge import (
    Eigen,
    KernelFit,
    as_kernel,
    best_score,
    eigen,
    ridge_path,
    scores,
    search_loo,
    squared_error,
    status_of,
)
from .tuning import (
    Fixed,
    Oracle,
    Search,
    check_oracle,
    gcv_judged,
    hold_out,
    log_spaced_integers,
    oracle_sample,
    rows_present,
    tuned,
)

_COMPONENTS = 128


class _AbstractSpectral(AbstractEstimator):
    """An estimator with a path of candidates and a filter g for each. A candidate is the hyper-parameter in units that do not
    depend on the size of the sample."""

    kernel: eqx.AbstractVar[AbstractKernel]

    @property
    @abstractmethod
    def rule(self) -> tuple[str, Fixed | Search]:
        """The name of the hyper-parameter and its value."""

    @abstractmethod
    def candidate(self, value, rows: Distinct) -> Any:
        """The candidate that corresponds to the hyper-parameter `value` for these rows."""

    @abstractmethod
    def value(self, candidate, rows: Distinct):
        """The hyper-parameter that corresponds to the candidate for these rows."""

    @abstractmethod
    def candidates(self, s: Float[Array, " n"], rows: Distinct) -> Float[Array, " p"]:
        """The p candidates of the path."""

    @abstractmethod
    def filter(self, s: Float[Array, "n 1"], candidates: Float[Array, "1 p"]) -> tuple[Array, Array]:
        """g(s) and 1 - s g(s), both (n, p). s is in ascending order; entries that count as 0 are 0, and the results there are
        not used."""

    def check_size(self, n: int) -> None:
        """Raises ValueError for a hyper-parameter that is too large for n points."""

    def shares(self, found: Eigen, candidates: Float[Array, " p"]) -> tuple[Array, Array]:
        """g(s) and 1 - s g(s), both (n, p), with g = 0 for eigenvalues that count as 0. Both are 0 for eigenvalues that belong
        to no distinct row."""
        s = found.values[:, None]
        gains, shares = self.filter(s, candidates[None, :])
        left = jnp.where(s > 0, shares, 1.0)
        return jnp.where(s > 0, gains, 0.0), jnp.where(found.real[:, None], left, 0.0)

    def fit(self, key: PRNGKeyArray, data: Dataset, oracle: Oracle | None = None) -> KernelFit:
        """Fits x, (n, d) or (n, *point), and y, (n,) or (n, k), in float64. `key`, `oracle` and the errors are those of
        `KernelRidge.fit`; `SpectralCutoff` also raises ValueError for more components than rows."""
        check_data(key, data, outputs=True, weights=True, point_ndim=self.kernel.point_ndim)
        check_oracle(*self.rule, oracle, data)
        self.check_size(rows_present(data))
        return _fit(floats_as_arrays(self), key, data, floats_as_arrays(oracle))


@requires_float64
def _fit(self: _AbstractSpectral, key, data: Dataset, oracle: Oracle | None) -> KernelFit:
    return _fit_compiled(self, key, data, oracle)


@compiled
def _fit_compiled(self: _AbstractSpectral, key, data: Dataset, oracle: Oracle | None) -> KernelFit:
    sample = sample_of(data)
    kernel, (name, rule) = self.kernel, self.rule

    def decompose(sample: Sample, rows: Distinct):
        found = eigen(leading.kernel_matrix(kernel, sample.x, sample.extent), rows, kernel.error(sample.x, rows.root))
        return found, found.vectors.T @ rows.y

    def squared_errors(x, rows: Distinct, found: Eigen, b, test: Sample):
        gains, _ = self.shares(found, self.candidates(found.values, rows))
        alpha = rows.root[:, None, None] * jnp.tensordot(found.vectors, gains[:, :, None] * b[:, None, :], 1)
        return squared_error(lambda: (kernel(test.x, x), test), alpha)

    rows = distinct(sample)
    found, b = decompose(sample, rows)
    s, u, count = found.values, found.vectors, rows.groups
    if isinstance(rule, Fixed):
        candidates = jnp.asarray(self.candidate(rule.value, rows), jnp.float64)[None]
    elif rule.criterion == "holdout":
        part, held = hold_out(key, sample)
        fitted = distinct(part)
        parts = decompose(part, fitted)
        best = best_score(squared_errors(part.x, fitted, *parts, held))
        candidates = self.candidates(parts[0].values, fitted)[best][None]
    else:
        candidates = self.candidates(s, rows)
        gains, shares = self.shares(found, candidates)
        if rule.criterion == "oracle":
            score = squared_errors(sample.x, rows, found, b, oracle_sample(key, oracle, b.shape[1]))
        elif rule.criterion == "gcv":
            # GCV depends on ratios of shares only. Dividing by the largest share keeps their squares from underflow.
            relative = shares / jnp.max(shares, axis=0, keepdims=True)
            squares = jnp.sum((relative[:, :, None] * b[:, None, :]) ** 2, axis=(0, 2))
            left = jnp.sum(relative, axis=0)
            score = gcv_judged(rows.gcv(squares, left), left**2 / jnp.sum(relative**2, axis=0), count)
        else:
            score = None
        best = search_loo(u, b, count, rows, shares, gains)[1] if score is None else best_score(score)
        candidates = candidates[best][None]
    gains, shares = (matrix[:, 0] for matrix in self.shares(found, candidates))
    weights = u @ (gains[:, None] * b)
    # If everything is explained (interpolation), the scores are the limits of those of ridge regression as the ridge tends to
    # 0, where (I-H) y is the ridge times these weights.
    interpolates = jnp.sum(shares) == 0
    residual = jnp.where(interpolates, weights, u @ (shares[:, None] * b))
    residual = jnp.where(rows.first[:, None], residual, 0.0)
    unexplained = u**2 @ jnp.where(interpolates, gains, shares)
    stats = {name: self.value(candidates[0], rows), "dof": count - jnp.sum(shares), "cut": found.cut}
    stats |= scores(residual, unexplained, rows)
    alpha = rows.root[:, None] * weights
    return KernelFit(kernel=kernel, x=sample.x, alpha=shaped(alpha, data), status=status_of(alpha), stats=stats)


class GradientFlow(_AbstractSpectral):
    """Gradient flow in the space of a kernel, f' = -K (f - y) / n from f = 0, stopped at `time` (module docstring). With the
    NTK it is the training of an infinitely wide network by gradient descent with small steps on half the mean squared error
    (Jacot et al. 2018, arXiv:1806.07572, section 5).

    **Arguments:**

    - `kernel`: any kernel.
    - `time`: a number >= 0, or `"gcv"`, `"loo"`, `"holdout"` or `"oracle"`: the best of 60 times from 1e-2 to 1e10 times
      n / (trace(K)/n). Each is n divided by a candidate ridge of `KernelRidge`.

    **Raises:** ValueError for a negative time, an unknown criterion, or a `kernel` that is not a kernel.
    """

    kernel: AbstractKernel = eqx.field(converter=as_kernel)
    time: Fixed | Search = eqx.field(converter=tuned("time"), default="gcv")

    @property
    def rule(self) -> tuple[str, Fixed | Search]:
        return "time", self.time

    # A candidate is t/n, on which alone the filter depends; it corresponds to 1/ridge.
    def candidate(self, value, rows: Distinct):
        return value / rows.total

    def value(self, candidate, rows: Distinct):
        return candidate * rows.total

    def candidates(self, s: Float[Array, " n"], rows: Distinct) -> Float[Array, " p"]:
        return 1.0 / ridge_path(jnp.sum(s), rows)

    def filter(self, s: Float[Array, "n 1"], candidates: Float[Array, "1 p"]) -> tuple[Array, Array]:
        elapsed = s * candidates
        return -jnp.expm1(-elapsed) / jnp.where(s > 0, s, 1.0), jnp.exp(-elapsed)


class SpectralCutoff(_AbstractSpectral):
    """Least squares on the leading `components` eigenvectors of the kernel matrix: principal-component regression in feature
    space (module docstring; Rosipal & Trejo 2001, JMLR 2, section 3).

    **Arguments:**

    - `kernel`: any kernel.
    - `components`: an integer >= 1, or `"gcv"`, `"loo"`, `"holdout"` or `"oracle"`: the best of up to 128 log-spaced integers
      from 1 to n - 1.

    **Raises:** ValueError for components that are not a positive integer, an unknown criterion, or a `kernel` that is not a
    kernel.
    """

    kernel: AbstractKernel = eqx.field(converter=as_kernel)
    components: Fixed | Search = eqx.field(converter=tuned("components", lowest=1.0, integer=True), default="gcv")

    @property
    def rule(self) -> tuple[str, Fixed | Search]:
        return "components", self.components

    def check_size(self, n: int) -> None:
        if isinstance(self.components, Fixed) and not is_traced(self.components.value) and self.components.value > n:
            raise ValueError(
                f"components={self.components.value} is too many for n={n} points: there are no more than n components."
            )

    def candidate(self, value, rows: Distinct):
        return value

    def value(self, candidate, rows: Distinct):
        return candidate

    def candidates(self, s: Float[Array, " n"], rows: Distinct) -> Float[Array, " p"]:
        return log_spaced_integers(jnp.maximum(rows.n - 1, 1.0), _COMPONENTS)

    def filter(self, s: Float[Array, "n 1"], candidates: Float[Array, "1 p"]) -> tuple[Array, Array]:
        rank = s.shape[0] - jnp.arange(s.shape[0])[:, None]
        kept = rank <= candidates
        return jnp.where(kept, 1.0 / jnp.where(s > 0, s, 1.0), 0.0), jnp.where(kept, 0.0, 1.0)


class MinimumNorm(_AbstractSpectral):
    """The function of smallest norm in the space of the kernel among those that fit the data best. It interpolates if K has
    full rank (module docstring; Hastie et al. 2022, Ann. Statist. 50, study its risk with noise).

    At repeated points it fits their mean response. `stats["dof"]` is the numerical rank of K, within the kernel's own error,
    and `stats["cut"]` is the number of eigenvalues that count as zero.

    **Raises:** ValueError for a `kernel` that is not a kernel.
    """

    kernel: AbstractKernel = eqx.field(converter=as_kernel)

    @property
    def rule(self) -> tuple[str, Fixed | Search]:
        return "components", Fixed(0)

    def candidate(self, value, rows: Distinct):
        return rows.n

    def value(self, candidate, rows: Distinct):
        return candidate

    def candidates(self, s: Float[Array, " n"], rows: Distinct) -> Float[Array, " p"]:
        return rows.n[None]

    def filter(self, s: Float[Array, "n 1"], candidates: Float[Array, "1 p"]) -> tuple[Array, Array]:
        ones = jnp.ones_like(s * candidates)
        return ones / jnp.where(s > 0, s, 1.0), 0.0 * ones
