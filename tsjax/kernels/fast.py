"""Fast kernel matrices for `AbstractKernel.tile`: one matrix product, and a profile without slow transcendental functions.

The formulas for single pairs of points are accurate everywhere, but much slower. The price of the matrix product is that the
value of a pair at an angle t is off by about eps / (6 t) relative to k(x, x), and by at most 3e-9 in float64 and 1e-4 in
float32 (neural tangent kernel of depth 1).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def _arcsine(degree: int) -> np.ndarray:
    """Coefficients of a polynomial q with arcsin(s) = s q(s^2), nearly, for s^2 in [0, 1/2].

    The nearest singularity of arcsin(s) / s is at s^2 = 1, so each degree of Chebyshev interpolation reduces the error by a
    factor of 3 + sqrt(8).
    """

    def q(z):
        s = np.sqrt((z + 1.0) / 4.0)
        return np.arcsin(s) / s

    series = np.polynomial.Chebyshev.interpolate(q, degree, domain=[-1.0, 1.0])
    return series.convert(kind=np.polynomial.Polynomial)(np.polynomial.Polynomial([-1.0, 4.0])).coef


# The largest number of rows of a matrix of errors in memory at once.
_ROWS = 4096
_ARCSINE = {"float32": _arcsine(9), "float64": _arcsine(21)}


class _Angle(NamedTuple):
    """An angle `theta` in [0, pi] with its sine and cosine, and `half`, the squared sine of half the angle."""

    theta: Array
    sine: Array
    cosine: Array
    half: Array


def _angle(half: Array) -> _Angle:
    """The angle theta from `half` = sin(theta/2)^2."""
    acute = jnp.minimum(half, 1.0 - half)
    s = jnp.sqrt(acute)
    coefficients = _ARCSINE[half.dtype.name]
    q = jnp.full_like(acute, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        q = q * acute + half.dtype.type(coefficient)
    theta = 2.0 * s * q
    theta = jnp.where(half <= 0.5, theta, jnp.pi - theta)
    return _Angle(theta, 2.0 * s * jnp.sqrt(1.0 - acute), 1.0 - 2.0 * half, half)


def _k0(a: _Angle) -> Array:
    return (jnp.pi - a.theta) / (2.0 * jnp.pi)


def _k1(a: _Angle) -> Array:
    return (a.sine + (jnp.pi - a.theta) * a.cosine) / (2.0 * jnp.pi)


def _k2(a: _Angle) -> Array:
    return (3.0 * a.sine * a.cosine + (jnp.pi - a.theta) * (1.0 + 2.0 * a.cosine * a.cosine)) / (2.0 * jnp.pi)


def _cosines(x1: Array, x2: Array) -> tuple[Array, Array]:
    """The products of norms and the squared sines of half the angles, at all pairs of rows; 0 and 1/2 for pairs with a point
    0."""
    norms = _norms(x1)[:, None] * _norms(x2)[None, :]
    cosine = products(x1, x2) / jnp.where(norms > 0, norms, 1.0)
    return norms, jnp.clip(0.5 - 0.5 * cosine, 0.0, 1.0)


def arccos_tile(order: int, x1: Array, x2: Array) -> Array:
    """The matrix of `ArcCosine(order)`."""
    norms, half = _cosines(x1, x2)
    angle = _angle(half)
    if order == 0:
        return jnp.where(norms > 0, _k0(angle), 0.0)
    return norms * _k1(angle) if order == 1 else norms**2 * _k2(angle)


def network_tile(get: Literal["ntk", "nngp"], depth: int, x1: Array, x2: Array) -> Array:
    """The matrix of `ArcCosineNTK(depth)` or `ArcCosineNNGP(depth)`, by their recursions."""
    norms, half = _cosines(x1, x2)
    angle = _angle(half)
    tangent = _k1(angle) + angle.cosine * _k0(angle)
    for _ in range(depth - 1):
        half = angle.half - (angle.sine - angle.theta * angle.cosine) / (2.0 * jnp.pi)
        angle = _angle(jnp.clip(half, 0.0, 0.5))
        tangent = _k1(angle) + 2.0 * _k0(angle) * tangent
    return norms * (tangent if get == "ntk" else _k1(angle))


class ReLULayer(NamedTuple):
    """The recursion of a layer: from K, K' and Theta of the layer before it, Sigma = `variance` K + `bias` and
    Theta = `gain` K + `bias_gain` + `variance` K' Theta (`tsjax.kernels.stax`). At the input K = <x, z> / d and Theta = 0."""

    variance: float
    bias: float
    gain: float
    bias_gain: float


def arccosine_error(layers: Sequence[ReLULayer], x: Array, weight: Array | None = None) -> Array:
    """An upper estimate of the Frobenius norm of the error of a ReLU network's NTK whose angles are computed from cosines and
    whose diagonal is exact; with weights, of that matrix times weight_i weight_j.

    The cosine in layer l has an error of about (l + 1) eps. So its angle has the error delta_l = (l + 1) eps / sin(theta_l),
    but at most sqrt(2 (l + 1) eps), which is reached next to 0 and pi. By K' = (pi - theta) / (2 pi) this error enters K'
    Theta:

        E_l = |Theta_l| delta_l / (2 pi) + s_l^2 K' E_{l-1} + a few roundings of |x||z|,

    where s_l^2 is the variance of the weights. The last layer multiplies the result by its own s^2.
    """
    n, weight = len(x), jnp.ones(len(x), x.dtype) if weight is None else weight

    def of_rows(rows: Array, row_weight: Array, numbers: Array) -> Array:
        error = _angle_error(layers, rows, x) * row_weight[:, None] * weight[None, :]
        return jnp.sum(jnp.where(numbers[:, None] != jnp.arange(n)[None, :], error, 0.0) ** 2, axis=1)

    everything = (x, weight, jnp.arange(n))
    if n <= _ROWS:
        squares = of_rows(*everything)
    else:
        of_row = lambda row: of_rows(*(part[None] for part in row))[0]
        squares = jax.lax.map(of_row, everything, batch_size=_ROWS)
    return jnp.sqrt(jnp.sum(squares))


def _angle_error(layers: Sequence[ReLULayer], x1: Array, x2: Array) -> Array:
    """E_last of `arccosine_error` for all pairs of rows."""
    eps = float(jnp.finfo(x1.dtype).eps)
    first, *hidden, last = layers
    d = x1.shape[1]
    variances = [jnp.sum(x**2, axis=1) * (first.variance / d) + first.bias for x in (x1, x2)]
    norms, half = _cosines(*(append(x * (first.variance / d) ** 0.5, first.bias**0.5) for x in (x1, x2)))
    angle = _angle(half)
    tangent = (first.gain / first.variance) * (norms * angle.cosine - first.bias) + first.bias_gain
    error = jnp.zeros_like(norms)
    for number, layer in enumerate([first, *hidden], start=1):
        if number > 1:
            covariance, slope = norms * _k1(angle), _k0(angle)
            tangent = layer.gain * covariance + layer.bias_gain + layer.variance * slope * tangent
            error = layer.variance * error
            variances = [0.5 * layer.variance * values + layer.bias for values in variances]
            norms = jnp.sqrt(variances[0][:, None] * variances[1][None, :])
            cosine = (layer.variance * covariance + layer.bias) / jnp.where(norms > 0, norms, 1.0)
            angle = _angle(jnp.clip(0.5 - 0.5 * cosine, 0.0, 1.0))
        of_cosine = (number + 1) * eps
        of_angle = of_cosine / jnp.maximum(angle.sine, (0.5 * of_cosine) ** 0.5)
        error = _k0(angle) * error + jnp.abs(tangent) * of_angle / (2.0 * jnp.pi) + 8.0 * number * eps * norms
    return last.variance * error


def append(x: Array, value: float) -> Array:
    """x with one more coordinate, the constant `value`: a bias of the first layer."""
    return jnp.concatenate([x, jnp.full((x.shape[0], 1), value, x.dtype)], axis=1)


def radial_tile(profile: Callable[[Array], Array], length_scale: Any, x1: Array, x2: Array) -> Array:
    """profile(|x - z|^2 / l^2) at all pairs of rows."""
    # With the origin at the mean of the points, little is lost to cancellation in |x|^2 + |z|^2 - 2 <x, z>.
    origin = jnp.mean(x1, axis=0, keepdims=True)
    scale = jnp.asarray(length_scale, x1.dtype)
    x1, x2 = (x1 - origin) / scale, (x2 - origin) / scale
    squares = jnp.sum(x1**2, axis=1)[:, None] + jnp.sum(x2**2, axis=1)[None, :]
    return profile(jnp.maximum(squares - 2.0 * products(x1, x2), 0.0))


def products(x1: Array, x2: Array) -> Array:
    """<x, z> at all pairs of rows, in the full precision of their type."""
    return jnp.dot(x1, x2.T, precision="highest")


def _norms(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x**2, axis=1))
