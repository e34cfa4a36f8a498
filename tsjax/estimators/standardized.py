r"""Any estimator on raw data: inputs and response are standardised before the fit, and predictions are transformed back.

Teachers live on the sphere, but real data do not: their inputs have units and an arbitrary origin, and their response has a
mean. With m_i and s_i the mean and standard deviation of input i over the n training points, and `bias` b, the estimator
sees

    z = ((x_1 - m_1) / s_1, ..., (x_d - m_d) / s_d, b) / sqrt(d),     v = (y - mean y) / sd y,

and f_hat(x) = mean y + sd y * g_hat(z). Each of several outputs has its own mean and deviation. With sample weights w_i, means
and deviations are weighted, (sum_i w_i (v_i - mean)^2 / sum_i w_i)^{1/2}, and the estimator gets the weights too.

So E|z|^2 = 1 + b^2 / d in every dimension d: length scales of order 1 and the students' step sizes, which suit points of norm
1, need no change. A constant input has s_i = 1, and a constant response has sd y = 1.

Only the training data determine these numbers. Data may have any scale within float64: means and deviations are computed from
numbers divided by a power of 2, so that no square overflows or underflows.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..compilation import compiled
from ..precision import requires_float64
from ..task import Dataset
from .base import AbstractEstimator, AbstractFit, check_at_least, check_data
from .repeats import power_of_two

LARGEST_SCALED = 1e300
"""The largest absolute value that can be standardised: differences of two such values do not overflow float64."""


class _Scale(eqx.Module):
    """The numbers that map x (k, d) to z and y to v (module docstring). Unscaled inputs or responses have mean 0 and
    deviation 1."""

    x_mean: Float[Array, "*batch d"]
    x_std: Float[Array, "*batch d"]
    y_mean: Float[Array, "..."]
    y_std: Float[Array, "..."]
    divisor: float = eqx.field(static=True)
    bias: Float[Array, "*batch"] | None

    def inputs(self, x: Float[Array, "k d"]) -> Float[Array, "k q"]:
        z = (x.astype(jnp.float64) - self.x_mean[None, :]) / self.x_std[None, :]
        if self.bias is not None:
            z = jnp.concatenate([z, jnp.full((len(z), 1), self.bias)], axis=1)
        return z / self.divisor


class StandardizedFit(AbstractFit):
    """f(x) = mean y + sd y * g(z), where g is the fit of the wrapped estimator (`fit`). `status` and `stats` are those of g, so
    losses and ridges are in standardised units. `scale` holds `x_mean`, `x_std` (d,), `y_mean` and `y_std`, () or (k,)."""

    fit: AbstractFit
    scale: _Scale
    status: Int[Array, "*batch"]
    stats: dict[str, Array]

    def predict(self, x: Float[Array, "t d"]) -> Float[Array, "t *outputs"]:
        """Predictions at the t rows of x, in the units of y, in float64."""
        return _predict(self, x)


@requires_float64
def _predict(self: StandardizedFit, x) -> Float[Array, "t *outputs"]:
    return _in_units(self.scale, self.fit.predict(_inputs(self.scale, x)))


@compiled
def _inputs(scale: _Scale, x):
    return scale.inputs(x)


@compiled
def _in_units(scale: _Scale, v):
    return scale.y_mean[None] + scale.y_std[None] * v.astype(jnp.float64)


def _as_estimator(estimator: Any) -> AbstractEstimator:
    if not isinstance(estimator, AbstractEstimator):
        raise ValueError(f"Standardized wraps an estimator such as tsjax.KernelRidge(...), got {estimator!r}.")
    return estimator


class Standardized(AbstractEstimator):
    """`estimator` on standardised data; the module docstring has the formula.

    **Arguments:**

    - `estimator`: any estimator whose `fit` takes only a key and data.
    - `inputs`: whether inputs are centred, scaled and divided by sqrt(d). If False, they are used as they are.
    - `response`: whether y is centred and scaled. If False, the estimator gets y as it is, and there is no intercept unless the
      estimator has one.
    - `bias`: b >= 0 adds a constant input, in standard deviations of an input. It gives the neurons of a network, of random
      ReLU features and of an NTK their biases. With 0 there is none. Kernels of the distance do not depend on it.

    Means and deviations are computed in float64 for data of any type. The estimator gets inputs of their own floating-point
    type (integers become float64), and a response that is not scaled unchanged.

    **Raises:** ValueError for an `estimator` that is not one, and for a bias below 0.
    """

    estimator: AbstractEstimator = eqx.field(converter=_as_estimator)
    inputs: bool = eqx.field(static=True, default=True)
    response: bool = eqx.field(static=True, default=True)
    bias: float | Float[Array, ""] = 1.0

    def __check_init__(self):
        check_at_least("Standardized", bias=(self.bias, 0))

    def fit(self, key: PRNGKeyArray, data: Dataset) -> StandardizedFit:
        """Fits x (n, d) and y, (n,) or (n, k), in their own units.

        **Raises:** ValueError for data that are not finite or of the wrong shape, or larger than 1e300; and the errors of the
        estimator.
        """
        check_data(key, data, outputs=True, weights=True, largest=LARGEST_SCALED)
        return _fit(self, key, data)


@requires_float64
def _fit(self: Standardized, key, data: Dataset) -> StandardizedFit:
    scale, scaled = _standardize(self.inputs, self.response, self.bias, data)
    fit = self.estimator.fit(key, scaled)
    return StandardizedFit(fit=fit, scale=scale, status=fit.status, stats=fit.stats)


@compiled
def _standardize(inputs: bool, response: bool, bias, data: Dataset) -> tuple[_Scale, Dataset]:
    x, y = data.x.astype(jnp.float64), data.y.astype(jnp.float64)
    weight = None if data.weight is None else data.weight.astype(jnp.float64)
    x_mean, x_std = _moments(x, weight) if inputs else (jnp.zeros(data.d), jnp.ones(data.d))
    y_mean, y_std = _moments(y, weight) if response else (jnp.zeros(y.shape[1:]), jnp.ones(y.shape[1:]))
    # A bias that is known to be 0 needs no coordinate.
    none = not eqx.is_array(bias) and bias == 0
    scale = _Scale(
        x_mean, x_std, y_mean, y_std, data.d**0.5 if inputs else 1.0, None if none else jnp.asarray(bias, jnp.float64)
    )
    # A scaled response is of order 1, so it keeps its digits in the type of the inputs.
    dtype = data.x.dtype if jnp.issubdtype(data.x.dtype, jnp.inexact) else jnp.float64
    v = ((y - y_mean[None]) / y_std[None]).astype(dtype) if response else data.y
    return scale, Dataset(x=scale.inputs(data.x).astype(dtype), y=v, weight=data.weight)


def _moments(values: Float[Array, "n *d"], weight: Float[Array, " n"] | None) -> tuple[Array, Array]:
    """Mean and standard deviation along the first axis. The computed mean of equal numbers may differ from them by roundoff,
    which must not be scaled up, so constant columns are recognised by their range."""
    if weight is not None:
        # Rows of weight 0 become copies of a row that counts, so that they do not change the range.
        present = (weight > 0).reshape(-1, *(1,) * (values.ndim - 1))
        values = jnp.where(present, values, values[jnp.argmax(weight > 0)][None])
    least, most = jnp.min(values, axis=0), jnp.max(values, axis=0)
    scale = power_of_two(jnp.maximum(jnp.abs(least), jnp.abs(most)))
    scaled = values / scale[None]
    if weight is None:
        mean, std = jnp.mean(scaled, axis=0), jnp.std(scaled, axis=0)
    else:
        share = weight / jnp.sum(weight)
        mean = jnp.tensordot(share, scaled, 1)
        std = jnp.sqrt(jnp.tensordot(share, (scaled - mean[None]) ** 2, 1))
    return mean * scale, jnp.where(most > least, std * scale, 1.0)
