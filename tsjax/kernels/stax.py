"""Kernels of infinitely wide ReLU networks as neural-tangents computes them, or in closed form where it is not installed."""

import functools
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import neural_tangents
from .arccos import ArcCosineNNGP, ArcCosineNTK, check_network, tile_of_network
from .base import AbstractKernel
from .fast import arccosine_error


def ntk(depth: int = 1, bias_std: float = 0.0) -> "StaxKernel":
    r"""The neural tangent kernel of a network with `depth` hidden ReLU layers, by neural-tangents; by the closed form of
    `ArcCosineNTK` where the library is not installed (`tsjax.kernels.neural_tangents.source` says which), which is slower.

    Depth 1 is T(x, z) = E relu(<w,x>) relu(<w,z>) + <x,z> P(<w,x> > 0, <w,z> > 0) with w ~ N(0, I_d), the kernel of
    width^{-1/2} sum_j a_j relu(<w_j,x>) with a, w ~ N(0, 1): T(x, x) = |x|^2. Each further hidden layer has weights of
    variance 2 / width, which keeps norms: k(x, x) = |x|^2 (depth + 1) / 2. `bias_std` > 0 adds biases N(0, bias_std^2) to
    the hidden layers; at depth 1 that is T of (x, bias_std). See `StaxKernel` for its accuracy.

    **Raises:** ValueError if depth < 1 or bias_std < 0; ImportError, when first called, if another release of
    neural-tangents than 0.6.5 is installed.

    >>> x = jnp.eye(2)
    >>> print(ts.kernels.ntk(depth=1)(x).round(4))  # off the diagonal 1 / (2 pi)
    [[1.     0.1592]
     [0.1592 1.    ]]
    """
    return StaxKernel(get="ntk", depth=depth, bias_std=bias_std)


def nngp(depth: int = 1, bias_std: float = 0.0) -> "StaxKernel":
    """The covariance of the values of the random network of `ntk`: for depth 1, E relu(<w,x>) relu(<w,z>), w ~ N(0,
    I_d).

    The diagonal is (|x|^2 + depth bias_std^2) / 2. Raises as `ntk` does.
    """
    return StaxKernel(get="nngp", depth=depth, bias_std=bias_std)


class StaxKernel(AbstractKernel):
    """A kernel of neural-tangents' `stax`; made by `ntk` and `nngp`.

    The library takes the angle of two points from a cosine, which costs the tangent kernel half of the digits at angles near 0
    and pi: pairs at an angle t are wrong, relative to k(x, x), by about eps / (6 t) at depth 1, twice that at depth 2 and 30
    times at depth 10; for equal points 3e-9 (depth 1) to 5e-8 (depth 10) in float64, and 1e-4 in float32. `error(x)` is an
    estimate for a set of points. The true diagonal is known, so `diagonal`, and the matrix of one set of points (`k(x)` or
    `k(x, x)` with the same array), have it exactly. `tsjax.kernels.ArcCosineNTK` and `ArcCosineNNGP` are accurate for
    near-duplicates as well.
    """

    get: Literal["ntk", "nngp"] = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    bias_std: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        check_network(self.depth, self.bias_std)

    def tile(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> Float[Array, "n1 n2"]:
        return tile_of_network(self, self.get, self.depth, self.bias_std, x1, x2)

    @property
    def _closed_form(self) -> ArcCosineNTK | ArcCosineNNGP | None:
        """The same kernel without the library, where that is not installed."""
        if neural_tangents.source() != "closed form":
            return None
        return (ArcCosineNTK if self.get == "ntk" else ArcCosineNNGP)(self.depth, self.bias_std)

    def error(self, x: Float[Array, "n d"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        closed = self._closed_form
        if closed is not None:
            return closed.error(x, weight)
        error = self.depth * AbstractKernel.error(self, x, weight)
        # The angle itself enters tangent kernels only; covariances lose nothing.
        return error + arccosine_error(self.depth, self.bias_std, x, weight) if self.get == "ntk" else error

    @property
    def rotation_invariant(self) -> bool:
        return True

    def matrix(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> Float[Array, "n1 n2"]:
        closed = self._closed_form
        if closed is not None:
            return closed.matrix(x1, x2)
        dtype = jnp.result_type(x1, x2)
        # Never TF32, nor the float64 that neural-tangents takes for any input once 64-bit types are on.
        with jax.default_matmul_precision("highest"):
            values = _stax(self.get, self.depth, self.bias_std, x1.shape[1])(x1, x2).astype(dtype)
        if x2 is x1:
            values = jnp.fill_diagonal(values, self.diagonal(x1), inplace=False)
        return values

    def diagonal(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        square, variance = jnp.sum(x * x, axis=1), self.bias_std**2
        if self.get == "nngp":
            return (square + self.depth * variance) / 2
        return (self.depth + 1) / 2 * square + self.depth * (self.depth + 3) / 4 * variance


@functools.cache
def _stax(get: str, depth: int, bias_std: float, d: int) -> Callable[[Array, Array], Array]:
    """The compiled kernel function; eager calls of neural-tangents take 100 ms each and ten matrices of memory."""
    stax = neural_tangents.load().stax
    # A Dense layer divides its weights by the square root of its fan-in, d for the first; kernels ignore the width.
    bias = bias_std or None
    layers = [stax.Dense(1, W_std=d**0.5, b_std=bias), stax.Relu()]
    for _ in range(depth - 1):
        layers += [stax.Dense(1, W_std=2**0.5, b_std=bias), stax.Relu()]
    kernel_fn = stax.serial(*layers, stax.Dense(1))[2]
    return jax.jit(lambda x1, x2: kernel_fn(x1, x2, get))
