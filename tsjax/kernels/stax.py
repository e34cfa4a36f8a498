r"""Kernels of infinitely wide networks, computed by neural-tangents, or in closed form if that is not installed.

A network is described by its layers (`Dense`, `Conv`, `Pool`) and its activation phi, which follows every layer with weights
except the last. Let Sigma_l and Theta_l be the covariance and the tangent kernel of the outputs of layer l before the
activation, (u, v) a Gaussian pair of covariance Sigma_l, and

    K = E phi(u) phi(v),    K' = E phi'(u) phi'(v).

Then a `Dense` layer with weights of variance s^2 / fan-in and biases of variance b^2 has

    Sigma_{l+1} = s^2 K + b^2,    Theta_{l+1} = Sigma_{l+1} + s^2 K' Theta_l             (NTK parameterisation)
                                  Theta_{l+1} = fan-in K + 1[b > 0] + s^2 K' Theta_l     (standard parameterisation)

(Jacot et al. 2018, arXiv:1806.07572, theorem 1; Sohl-Dickstein et al. 2020, arXiv:2001.07301, equations 10 and 13). At the
input K = <x, z> / d and Theta = 0. `tsjax.kernels.of` makes these descriptions for the networks of `tsjax.networks`.
"""

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import neural_tangents
from .arccos import ArcCosineNNGP, ArcCosineNTK, check_network
from .base import AbstractKernel
from .fast import ReLULayer, arccosine_error

Kind = Literal["ntk", "nngp"]

# The largest number of pairs of positions of two images whose covariances neural-tangents holds at once, in each of about six
# arrays.
_POSITIONS = 2**22


def ntk(depth: int = 1, bias_std: float = 0.0) -> "StaxKernel":
    r"""The neural tangent kernel of a network with `depth` hidden ReLU layers. It is computed by neural-tangents, or, if that
    is not installed, by the closed form of `ArcCosineNTK`, which is slower; `tsjax.kernels.neural_tangents.source` says which.

    Depth 1 is T(x, z) = E relu(<w,x>) relu(<w,z>) + <x,z> P(<w,x> > 0, <w,z> > 0) with w ~ N(0, I_d), the kernel of
    width^{-1/2} sum_j a_j relu(<w_j,x>) with a, w ~ N(0, 1): T(x, x) = |x|^2. Each further hidden layer has weights of
    variance 2 / width, which preserves norms: k(x, x) = |x|^2 (depth + 1) / 2. `bias_std` > 0 adds biases N(0, bias_std^2) to
    the hidden layers; at depth 1 that is T of (x, bias_std). See `StaxKernel` for the accuracy, and `tsjax.kernels.of` for
    other networks.

    **Raises:** ValueError if depth < 1 or bias_std < 0; ImportError, when first called, if another release of
    neural-tangents than 0.6.5 is installed.

    >>> x = jnp.eye(2)
    >>> print(ts.kernels.ntk(depth=1)(x).round(4))  # off the diagonal 1 / (2 pi)
    [[1.     0.1592]
     [0.1592 1.    ]]
    """
    return StaxKernel("ntk", _norm_preserving(depth, bias_std), rank=1)


def nngp(depth: int = 1, bias_std: float = 0.0) -> "StaxKernel":
    """The covariance of the values of the random network of `ntk`. For depth 1 without biases it is E relu(<w,x>) relu(<w,z>)
    with w ~ N(0, I_d).

    The diagonal is (|x|^2 + depth bias_std^2) / 2. It raises the same errors as `ntk`.
    """
    return StaxKernel("nngp", _norm_preserving(depth, bias_std), rank=1)


def _norm_preserving(depth: int, bias_std: float) -> tuple["Dense", ...]:
    check_network(depth, bias_std)
    hidden = [Dense(1, 2.0, bias_std)] * (depth - 1)
    return Dense(1, 1.0, bias_std, divided=False), *hidden, Dense(1, 1.0)


class Dense(NamedTuple):
    """A fully connected layer of `width` neurons. Its weights have variance `weight_variance` / fan-in, or `weight_variance`
    itself with `divided=False` (for the first layer only). Its biases have standard deviation `bias_std`; with 0 there are
    none. `standard` selects the standard parameterisation."""

    width: int
    weight_variance: float
    bias_std: float = 0.0
    standard: bool = False
    divided: bool = True


class Conv(NamedTuple):
    """A convolution with `channels` output channels. `filter` and `stride` are numbers for all directions, or tuples with one
    for each. The fan-in is the number of entries of a filter. `padding` is SAME, VALID or CIRCULAR. The other fields are those
    of `Dense`."""

    channels: int
    filter: int | tuple[int, ...]
    stride: int | tuple[int, ...]
    padding: str
    weight_variance: float
    bias_std: float = 0.0
    standard: bool = False


class Pool(NamedTuple):
    """The mean over all positions (`average`), or the values at all positions in one row (`flatten`)."""

    kind: Literal["average", "flatten"]


class Phi(NamedTuple):
    """An activation by its name in `CLOSED_FORMS`; `slope` is that of `leaky_relu` for z < 0."""

    name: str
    slope: float = 0.0

    @property
    def second_moment(self) -> Fraction | None:
        """E phi(u)^2 / E u^2 = E phi'(u)^2 for an activation that is a multiple of z on either side of 0; None for others."""
        slope = {"identity": 1.0, "abs": 1.0, "relu": 0.0, "leaky_relu": self.slope}.get(self.name)
        return None if slope is None else (1 + Fraction(slope) ** 2) / 2


CLOSED_FORMS: dict[str, Callable] = {
    "relu": lambda stax, phi: stax.Relu(),
    "leaky_relu": lambda stax, phi: stax.LeakyRelu(phi.slope),
    "abs": lambda stax, phi: stax.Abs(),
    "identity": lambda stax, phi: stax.Identity(),
    "quadratic": lambda stax, phi: stax.Monomial(2),
    "erf": lambda stax, phi: stax.Erf(),
    "gelu": lambda stax, phi: stax.Gelu(),
    "sin": lambda stax, phi: stax.Sin(),
    "cos": lambda stax, phi: stax.Cos(),
}
"""The activations whose expectations neural-tangents has in closed form, under their names in tsjax."""


class StaxKernel(AbstractKernel):
    """The kernel of a network with the given layers and activation, by the `stax` of neural-tangents. `ntk`, `nngp` and
    `tsjax.kernels.of` make it.

    The library computes the angle between two points from its cosine. For activations with a kink (relu, leaky_relu, abs), the
    tangent kernel thereby loses half of its digits at angles near 0 and pi. For `ntk`, the error of a pair at an angle t,
    relative to k(x, x), is about eps / (6 t) at depth 1, twice that at depth 2, and 30 times that at depth 10. For equal points
    it is 3e-9 (depth 1) to 5e-8 (depth 10) in float64, and 1e-4 in float32. `error(x)` estimates it for a set of points. The
    true diagonal of fully connected networks with such activations is known, so `diagonal` is exact, and so is the diagonal of
    the matrix of one set of points (`k(x)`, or `k(x, x)` with the same array). `tsjax.kernels.ArcCosineNTK` and `ArcCosineNNGP`
    are accurate for near-duplicates as well.

    Kernels of convolutional networks that average over positions need the covariances of all pairs of positions, and time
    proportional to n1 n2 P^2 for P positions. Without averaging the time is proportional to n1 n2 P. Both are computed in
    blocks of bounded memory.
    """

    get: Kind = eqx.field(static=True)
    layers: tuple[Dense | Conv | Pool, ...] = eqx.field(static=True)
    activation: Phi = eqx.field(static=True, default=Phi("relu"))
    rank: int | None = eqx.field(static=True, default=None)

    @property
    def point_ndim(self) -> int | None:
        return self.rank

    @property
    def rotation_invariant(self) -> bool:
        return self._dense

    @property
    def _dense(self) -> bool:
        return all(isinstance(layer, Dense) for layer in self.layers)

    def _points(self, x: Float[Array, "n *point"]) -> Float[Array, "n *shape"]:
        """The points in the shape that the first layer takes. Fully connected layers take a point of any shape as one row."""
        if self._dense:
            return x.reshape(x.shape[0], -1)
        if x.ndim < 3:
            raise ValueError(
                f"the kernel of a convolutional network takes points with positions and channels, x (n, ..., c); got "
                f"{tuple(x.shape)}. Add an axis of one channel: x[..., None]."
            )
        return x

    def tile(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        x1, x2 = self._points(x1), self._points(x2)
        closed = self._closed_form(x1.shape[1])
        # With biases in several layers the closed form has no fast version.
        if closed is None or (closed.kernel.bias_std and closed.kernel.depth > 1):
            return AbstractKernel.tile(self, x1, x2)
        return closed.apply(closed.kernel.tile, x1, x2)

    def _closed_form(self, d: int) -> "_ClosedForm | None":
        """The closed form of this kernel, or None if there is none."""
        return closed_form(self.get, self.layers, d) if self._dense and self.activation == Phi("relu") else None

    def _substitute(self, d: int) -> "_ClosedForm | None":
        """The closed form if the library is not installed. If there is none, importing the library raises the error."""
        return self._closed_form(d) if neural_tangents.source() == "closed form" else None

    def error(self, x: Float[Array, "n *point"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        x = self._points(x)
        closed = self._substitute(x.shape[1])
        if closed is not None:
            return closed.scale * closed.kernel.error(closed.inputs(x), weight)
        depth = sum(not isinstance(layer, Pool) for layer in self.layers) - 1
        error = max(depth, 1) * AbstractKernel.error(self, x, weight)
        # Only tangent kernels depend on the angle itself; covariances lose no digits.
        if self.get == "nngp" or self.activation.name in _SMOOTH:
            return error
        if self._dense and self.activation == Phi("relu"):
            return error + arccosine_error([_relu_layer(layer, d) for layer, d in self._fan_ins(x.shape[1])], x, weight)
        # The error of the angle in layer l is at most sqrt(2 (l + 1) eps), and a kernel is no larger than its diagonal.
        angles = sum((2.0 * (layer + 1) * float(jnp.finfo(x.dtype).eps)) ** 0.5 for layer in range(1, depth + 1))
        diagonal = self.diagonal(x)
        return error + angles / math.pi * jnp.sum(diagonal if weight is None else weight**2 * diagonal)

    def matrix(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        same, dtype = x2 is x1, jnp.result_type(x1, x2)
        x1, x2 = self._points(x1), self._points(x2)
        if self._dense:
            closed = self._substitute(x1.shape[1])
            if closed is not None:
                return closed.apply(closed.kernel.matrix, x1, x1 if same else x2)
        # This avoids TF32. The cast avoids the float64 that neural-tangents returns for any input if 64-bit types are on.
        with jax.default_matmul_precision("highest"):
            values = self._stax(x1)(x1, x2).astype(dtype)
        if same and self._known_diagonal:
            values = jnp.fill_diagonal(values, self.diagonal(x1), inplace=False)
        return values

    def diagonal(self, x: Float[Array, "n *point"]) -> Float[Array, " n"]:
        x = self._points(x)
        if not self._known_diagonal:
            stax = self._stax(x)
            one = lambda point: stax(point[None], point[None])[0, 0]
            with jax.default_matmul_precision("highest"):
                return jax.lax.map(one, x, batch_size=_pairs(self.layers, x.shape[1:])).astype(x.dtype)
        slope, constant = self._diagonal_coefficients(x.shape[1])
        return slope * jnp.sum(x * x, axis=1) + constant

    @property
    def _known_diagonal(self) -> bool:
        return self._dense and self.activation.second_moment is not None

    def _fan_ins(self, d: int) -> list[tuple[Dense, int]]:
        layers = [layer for layer in self.layers if isinstance(layer, Dense)]
        return list(zip(layers, [d, *(layer.width for layer in layers)], strict=False))

    def _diagonal_coefficients(self, d: int) -> tuple[float, float]:
        """k(x, x) = slope |x|^2 + constant by the recursion of the module docstring, in rational numbers."""
        moment = self.activation.second_moment or Fraction(0)
        mean = (Fraction(1, d), Fraction(0))  # The pair (slope, constant) of K, here at the input.
        tangent = covariance = (Fraction(0), Fraction(0))
        for index, (layer, fan_in) in enumerate(self._fan_ins(d)):
            variance, bias, gain, bias_gain = (Fraction(value) for value in _relu_layer(layer, fan_in))
            carried = moment * variance if index else Fraction(0)
            covariance = (variance * mean[0], variance * mean[1] + bias)
            tangent = (gain * mean[0] + carried * tangent[0], gain * mean[1] + bias_gain + carried * tangent[1])
            mean = (moment * covariance[0], moment * covariance[1])
        slope, constant = tangent if self.get == "ntk" else covariance
        return float(slope), float(constant)

    def _stax(self, x: Float[Array, "n *point"]) -> Callable[[Array, Array], Array]:
        return _stax(self.get, self.layers, self.activation, x.shape[1:])


_SMOOTH = {"identity", "quadratic", "erf", "gelu", "sin", "cos"}


def _relu_layer(layer: Dense, fan_in: int) -> ReLULayer:
    """s^2, b^2, and in the recursion of the tangent kernel the factor of K and the number that is added."""
    variance = layer.weight_variance if layer.divided else layer.weight_variance * fan_in
    bias = layer.bias_std**2
    return (
        ReLULayer(variance, bias, float(fan_in), float(bias > 0))
        if layer.standard
        else ReLULayer(variance, bias, variance, bias)
    )


class _ClosedForm(NamedTuple):
    """scale k(input_scale x, input_scale z) + shift."""

    kernel: ArcCosineNTK | ArcCosineNNGP
    scale: float = 1.0
    input_scale: float = 1.0
    shift: float = 0.0

    def inputs(self, x: Array) -> Array:
        return self.input_scale * x

    def apply(self, values: Callable[[Array, Array], Array], x1: Array, x2: Array) -> Array:
        first = self.inputs(x1)
        return self.scale * values(first, first if x2 is x1 else self.inputs(x2)) + self.shift


def closed_form(get: Kind, layers: tuple[Dense | Conv | Pool, ...], d: int) -> _ClosedForm | None:
    """The kernel of a ReLU network in the NTK parameterisation by `ArcCosineNTK` or `ArcCosineNNGP`, whose weights have
    variance 1, 2 / width, ..., 2 / width, 1 / width; None if the network has no such form.

    Since relu is homogeneous, each hidden layer after the first with weights of variance s^2 / width multiplies the kernel by
    c = s^2 / 2 if there are no biases; with biases c must be 1. The last layer multiplies the kernel by its s^2 and adds its
    b^2.
    """
    first, *hidden, last = layers if len(layers) > 1 else (None, None)
    if not isinstance(first, Dense) or not isinstance(last, Dense):
        return None
    dense = [first, *(layer for layer in hidden if isinstance(layer, Dense)), last]
    biases = {layer.bias_std for layer in dense[:-1]}
    # The variances may be squares of a rounded sqrt(2), hence the tolerance.
    kept = all(abs(layer.weight_variance - 2.0) < 1e-15 for layer in dense[1:-1])
    if any(layer.standard for layer in dense) or len(biases) > 1 or not (kept or biases == {0.0}):
        return None
    family = ArcCosineNTK if get == "ntk" else ArcCosineNNGP
    scale = last.weight_variance * math.prod(layer.weight_variance / 2.0 for layer in dense[1:-1] if not kept)
    inputs = (first.weight_variance / (d if first.divided else 1.0)) ** 0.5
    return _ClosedForm(family(len(dense) - 1, first.bias_std), scale, inputs, last.bias_std**2)


@functools.cache
def _stax(
    get: str, layers: tuple[Dense | Conv | Pool, ...], activation: Phi, point: tuple[int, ...]
) -> Callable[[Array, Array], Array]:
    """The compiled kernel function. Eager calls of neural-tangents are slow and need the memory of about ten matrices."""
    stax = neural_tangents.load().stax
    several = lambda size: size if isinstance(size, tuple) else (size,) * (len(point) - 1)
    parts = []
    for index, layer in enumerate(layers):
        if isinstance(layer, Pool):
            parts.append(stax.GlobalAvgPool() if layer.kind == "average" else stax.Flatten())
            continue
        # neural-tangents divides weights by the square root of the fan-in, which is d for the first layer. A layer that is not
        # `divided` needs this factor back.
        variance = (
            layer.weight_variance if isinstance(layer, Conv) or layer.divided else layer.weight_variance * point[0]
        )
        options = {"W_std": variance**0.5, "b_std": layer.bias_std or None}
        options["parameterization"] = "standard" if layer.standard else "ntk"
        if isinstance(layer, Dense):
            parts.append(stax.Dense(layer.width, **options))
        else:
            sizes = several(layer.filter), several(layer.stride), layer.padding
            parts.append(stax.Conv(layer.channels, *sizes, **options))
        if any(not isinstance(later, Pool) for later in layers[index + 1 :]):
            parts.append(CLOSED_FORMS[activation.name](stax, activation))
    kernel_fn = stax.serial(*parts)[2]
    plain = lambda x1, x2: kernel_fn(x1, x2, get)
    return jax.jit(plain if len(point) == 1 else functools.partial(_in_blocks, plain, _pairs(layers, point)))


def _pairs(layers: tuple[Dense | Conv | Pool, ...], point: tuple[int, ...]) -> int:
    """The number of pairs of points whose kernels are computed at once."""
    positions = math.prod(point[:-1])
    return max(1, _POSITIONS // (positions**2 if Pool("average") in layers else positions))


def _in_blocks(values: Callable[[Array, Array], Array], pairs: int, x1: Array, x2: Array) -> Array:
    """`values` in blocks of at most `pairs` pairs of rows."""
    side = max(1, math.isqrt(pairs))
    rows = min(x1.shape[0], side)
    columns = min(x2.shape[0], max(1, pairs // rows))
    # Copies of the last point fill the last block, since they have finite values and gradients.
    blocks = lambda x, size: jnp.pad(x, ((0, -x.shape[0] % size), *[(0, 0)] * (x.ndim - 1)), mode="edge").reshape(
        -1, size, *x.shape[1:]
    )
    right = blocks(x2, columns)
    row = lambda left: jnp.concatenate(list(jax.lax.map(lambda block: values(left, block), right)), axis=1)
    tiles = jax.lax.map(row, blocks(x1, rows))
    return tiles.reshape(-1, tiles.shape[2])[: x1.shape[0], : x2.shape[0]]
