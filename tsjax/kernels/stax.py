r"""Kernels of infinitely wide networks as neural-tangents computes them, or in closed form where it is not installed.

A network is described by its layers (`Dense`, `Conv`, `Pool`) and its activation, which follows every layer with weights
but the last. With Sigma_l and Theta_l the covariance and the tangent kernel of what layer l hands to the activation phi,
(u, v) a Gaussian pair of covariance Sigma_l, and

    K = E phi(u) phi(v),    K' = E phi'(u) phi'(v),

a `Dense` layer of weights of variance s^2 / fan-in and biases of variance b^2 makes of them

    Sigma_{l+1} = s^2 K + b^2,    Theta_{l+1} = Sigma_{l+1} + s^2 K' Theta_l             (NTK parameterisation)
                                  Theta_{l+1} = fan-in K + 1[b > 0] + s^2 K' Theta_l     (standard parameterisation)

(Jacot et al. 2018, arXiv:1806.07572, theorem 1; Sohl-Dickstein et al. 2020, arXiv:2001.07301, equations 10 and 13). At the
input K = <x, z> / d. The networks of `tsjax.networks` describe themselves in this way: `tsjax.kernels.of`.
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

# Pairs of positions of two images whose covariances neural-tangents holds at once, in each of about six arrays.
_POSITIONS = 2**22


def ntk(depth: int = 1, bias_std: float = 0.0) -> "StaxKernel":
    r"""The neural tangent kernel of a network with `depth` hidden ReLU layers, by neural-tangents; by the closed form of
    `ArcCosineNTK` where the library is not installed (`tsjax.kernels.neural_tangents.source` says which), which is slower.

    Depth 1 is T(x, z) = E relu(<w,x>) relu(<w,z>) + <x,z> P(<w,x> > 0, <w,z> > 0) with w ~ N(0, I_d), the kernel of
    width^{-1/2} sum_j a_j relu(<w_j,x>) with a, w ~ N(0, 1): T(x, x) = |x|^2. Each further hidden layer has weights of
    variance 2 / width, which keeps norms: k(x, x) = |x|^2 (depth + 1) / 2. `bias_std` > 0 adds biases N(0, bias_std^2) to
    the hidden layers; at depth 1 that is T of (x, bias_std). See `StaxKernel` for its accuracy, and `tsjax.kernels.of` for
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
    """The covariance of the values of the random network of `ntk`: for depth 1, E relu(<w,x>) relu(<w,z>), w ~ N(0,
    I_d).

    The diagonal is (|x|^2 + depth bias_std^2) / 2. Raises as `ntk` does.
    """
    return StaxKernel("nngp", _norm_preserving(depth, bias_std), rank=1)


def _norm_preserving(depth: int, bias_std: float) -> tuple["Dense", ...]:
    check_network(depth, bias_std)
    hidden = [Dense(1, 2.0, bias_std)] * (depth - 1)
    return Dense(1, 1.0, bias_std, divided=False), *hidden, Dense(1, 1.0)


class Dense(NamedTuple):
    """A fully connected layer of `width` neurons, weights of variance `weight_variance` / fan-in (`divided=False`: of that
    variance itself, for the first layer only) and biases of standard deviation `bias_std`, none for 0."""

    width: int
    weight_variance: float
    bias_std: float = 0.0
    standard: bool = False
    divided: bool = True


class Conv(NamedTuple):
    """A convolution of `channels` channels; sizes are those of one direction, or a tuple of all. The fan-in counts the
    entries of a filter. `padding` is SAME, VALID or CIRCULAR."""

    channels: int
    filter: int | tuple[int, ...]
    stride: int | tuple[int, ...]
    padding: str
    weight_variance: float
    bias_std: float = 0.0
    standard: bool = False


class Pool(NamedTuple):
    """The mean over all positions (`average`), or all of them side by side (`flatten`)."""

    kind: Literal["average", "flatten"]


class Phi(NamedTuple):
    """An activation by its name in `CLOSED_FORMS`; `slope` is that of `leaky_relu` at z < 0."""

    name: str
    slope: float = 0.0

    @property
    def second_moment(self) -> Fraction | None:
        """phi is a multiple of z on either side of 0: E phi(u)^2 / E u^2 = E phi'(u)^2; None for other activations."""
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
"""The activations whose expectations neural-tangents has in closed form, by their names here."""


class StaxKernel(AbstractKernel):
    """A kernel of neural-tangents' `stax`, of the network with these layers and this activation; made by `ntk`, `nngp` and
    `tsjax.kernels.of`.

    The library takes the angle of two points from a cosine, which costs the tangent kernel of activations with a kink (relu,
    leaky_relu, abs) half of the digits at angles near 0 and pi: for `ntk`, pairs at an angle t are wrong, relative to
    k(x, x), by about eps / (6 t) at depth 1, twice that at depth 2 and 30 times at depth 10; for equal points 3e-9 (depth 1)
    to 5e-8 (depth 10) in float64, and 1e-4 in float32. `error(x)` is an estimate for a set of points. The true diagonal of
    fully connected networks of such activations is known, so `diagonal`, and the matrix of one set of points (`k(x)` or
    `k(x, x)` with the same array), have it exactly. `tsjax.kernels.ArcCosineNTK` and `ArcCosineNNGP` are accurate for
    near-duplicates as well.

    Kernels of convolutional networks hold the covariances of all pairs of positions where they average over positions: time
    n1 n2 P^2 for P positions; n1 n2 P where they do not. They are computed in blocks of bounded memory.
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
        """As the first layer takes them: fully connected layers see a point of any shape as one row."""
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
        # With biases in several layers the closed form has no fast one.
        if closed is None or (closed.kernel.bias_std and closed.kernel.depth > 1):
            return AbstractKernel.tile(self, x1, x2)
        return closed.apply(closed.kernel.tile, x1, x2)

    def _closed_form(self, d: int) -> "_ClosedForm | None":
        """The same kernel without the library."""
        return closed_form(self.get, self.layers, d) if self._dense and self.activation == Phi("relu") else None

    def _substitute(self, d: int) -> "_ClosedForm | None":
        """The closed form in place of the library, where that is not installed: without one, the library says so."""
        return self._closed_form(d) if neural_tangents.source() == "closed form" else None

    def error(self, x: Float[Array, "n *point"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        x = self._points(x)
        closed = self._substitute(x.shape[1])
        if closed is not None:
            return closed.scale * closed.kernel.error(closed.inputs(x), weight)
        depth = sum(not isinstance(layer, Pool) for layer in self.layers) - 1
        error = max(depth, 1) * AbstractKernel.error(self, x, weight)
        # The angle itself enters tangent kernels only; covariances lose nothing.
        if self.get == "nngp" or self.activation.name in _SMOOTH:
            return error
        if self._dense and self.activation == Phi("relu"):
            return error + arccosine_error([_relu_layer(layer, d) for layer, d in self._fan_ins(x.shape[1])], x, weight)
        # Every angle is known to sqrt(2 (l + 1) eps) at worst, and a kernel is no larger than its diagonal.
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
        # Never TF32, nor the float64 that neural-tangents takes for any input once 64-bit types are on.
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
        mean = (Fraction(1, d), Fraction(0))  # K at the input; then the two numbers of K, Sigma and Theta in turn.
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
    """s^2, b^2, and what multiplies K and is added in the tangent kernel."""
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
    """A ReLU network in the NTK parameterisation by `ArcCosineNTK` or `ArcCosineNNGP`, which have weights of variance 1, 2 /
    width, ..., 2 / width, 1 / width; None where there is none.

    With weights of variance s^2 / width and without biases, every hidden layer but the first is multiplied by c = s^2 / 2,
    relu being homogeneous; with biases c must be 1. The last layer multiplies by its s^2 and adds its b^2.
    """
    first, *hidden, last = layers if len(layers) > 1 else (None, None)
    if not isinstance(first, Dense) or not isinstance(last, Dense):
        return None
    dense = [first, *(layer for layer in hidden if isinstance(layer, Dense)), last]
    biases = {layer.bias_std for layer in dense[:-1]}
    # Variances are squares of rounded roots of 2.
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
    """The compiled kernel function; eager calls of neural-tangents take 100 ms each and ten matrices of memory."""
    stax = neural_tangents.load().stax
    several = lambda size: size if isinstance(size, tuple) else (size,) * (len(point) - 1)
    parts = []
    for index, layer in enumerate(layers):
        if isinstance(layer, Pool):
            parts.append(stax.GlobalAvgPool() if layer.kind == "average" else stax.Flatten())
            continue
        # A layer divides its weights by the square root of its fan-in, d for the first; ntk kernels ignore the width.
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
    """Pairs of points whose kernels are computed at once."""
    positions = math.prod(point[:-1])
    return max(1, _POSITIONS // (positions**2 if Pool("average") in layers else positions))


def _in_blocks(values: Callable[[Array, Array], Array], pairs: int, x1: Array, x2: Array) -> Array:
    """`values` in blocks of at most `pairs` pairs of rows."""
    side = max(1, math.isqrt(pairs))
    rows = min(x1.shape[0], side)
    columns = min(x2.shape[0], max(1, pairs // rows))
    # The last blocks are filled up with copies of the last point, which have ordinary values and gradients.
    blocks = lambda x, size: jnp.pad(x, ((0, -x.shape[0] % size), *[(0, 0)] * (x.ndim - 1)), mode="edge").reshape(
        -1, size, *x.shape[1:]
    )
    right = blocks(x2, columns)
    row = lambda left: jnp.concatenate(list(jax.lax.map(lambda block: values(left, block), right)), axis=1)
    tiles = jax.lax.map(row, blocks(x1, rows))
    return tiles.reshape(-1, tiles.shape[2])[: x1.shape[0], : x2.shape[0]]
