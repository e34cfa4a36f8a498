"""The base classes of kernels: `k(x1, x2)` is the matrix of values, and `+` and `*` make new kernels from old ones.

A new kernel is one formula: subclass `AbstractPairKernel` and write `evaluate` for one pair of points.
"""

import math
from abc import abstractmethod
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compilation import compiled

# The number of pairs of points whose kernels are computed at once.
_PAIRS = 2**21


class AbstractKernel(eqx.Module):
    """A symmetric positive semidefinite function of two points, of R^d unless `point_ndim` says otherwise.

    Calling it gives the matrix of values: `k(x1, x2)` is (n1, n2) for x1 (n1, d) and x2 (n2, d), and `k(x)` is `k(x, x)`.
    Kernels of convolutional networks take images in place of rows, x1 (n1, *point). Sums, products and non-negative multiples
    of kernels are kernels: `k1 + k2`, `k1 * k2`, `2.0 * k`.
    """

    @abstractmethod
    def matrix(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        """The values at all pairs of rows. If `x2 is x1`, implementations may treat the two as one set of points."""

    @abstractmethod
    def diagonal(self, x: Float[Array, "n *point"]) -> Float[Array, " n"]:
        """k(x_i, x_i) at the n rows of x."""

    @property
    def point_ndim(self) -> int | None:
        """The number of axes of one point: 1 by default, and None for a kernel that takes points of any shape."""
        return 1

    def error(self, x: Float[Array, "n *point"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        """An upper estimate of the Frobenius norm of the rounding error of k(x), computed in the type of x; with weights, of
        that of diag(weight) k(x) diag(weight).

        It bounds the error of every eigenvalue (Weyl's inequality): computed eigenvalues below it carry no information, and
        spectral methods count them as zero. The default is (8 + sqrt(d)) eps trace(k(x)), for kernels whose values are accurate
        to a few roundings relative to the diagonal. A kernel that loses more digits overrides it.
        """
        diagonal = self.diagonal(x)
        return roundoff(x.dtype, math.prod(x.shape[1:])) * jnp.sum(diagonal if weight is None else weight**2 * diagonal)

    def tile(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        """A fast version of `matrix` for very many pairs, in the type of the points. It is less accurate at small angles and
        distances (`tsjax.kernels.fast`). Kernels without a fast form use `matrix`."""
        cast = jax.tree.map(lambda leaf: leaf.astype(x1.dtype) if eqx.is_inexact_array(leaf) else leaf, self)
        return cast.matrix(x1, x2).astype(x1.dtype)

    @property
    def rotation_invariant(self) -> bool:
        """Whether k(Qx, Qz) = k(x, z) for every rotation Q; False by default. If so, k is zonal on the sphere: it has a
        spectrum by degree (`tsjax.kernels.gegenbauer`), and estimators with this kernel have an exact risk there."""
        return False

    # The annotations accept any shapes, because the error message below is more helpful.
    def __call__(self, x1: Float[Array, "..."], x2: Float[Array, "..."] | None = None) -> Float[Array, "n1 n2"]:
        """The values at all pairs of rows of x1 and x2, (n1, n2); x2 defaults to x1.

        **Raises:** ValueError unless x1 is (n1, d) and x2 is (n2, d), or (n1, *point) and (n2, *point) with points of
        `point_ndim` axes.
        """
        x2 = x1 if x2 is None else x2
        ndim = max(x1.ndim - 1, 1) if self.point_ndim is None else self.point_ndim
        if x1.ndim != 1 + ndim or x1.shape[1:] != x2.shape[1:]:
            point = "d" if self.point_ndim == 1 else "*point"
            one = "x[None, :]" if self.point_ndim == 1 else "x[None]"
            axes = "" if self.point_ndim in (1, None) else f", points of {self.point_ndim} axes"
            raise ValueError(
                f"a kernel takes points as rows, x1 (n1, {point}) and x2 (n2, {point}){axes}; got {tuple(x1.shape)} and "
                f"{tuple(x2.shape)}. Use {one} for a single point and jax.vmap for a batch of sets."
            )
        return self.matrix(x1, x2)

    def __add__(self, other: "AbstractKernel") -> "AbstractKernel":
        return _Sum(self, other) if isinstance(other, AbstractKernel) else NotImplemented

    def __mul__(self, other: Any) -> "AbstractKernel":
        if isinstance(other, AbstractKernel):
            return _Product(self, other)
        if jnp.ndim(other) == 0:
            return _Scaled(other, self)
        return NotImplemented

    def __rmul__(self, other: Any) -> "AbstractKernel":
        return self * other


class AbstractPairKernel(AbstractKernel):
    """A kernel given by a formula for one pair of points."""

    @abstractmethod
    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        """k(x1, x2) for two points."""

    def matrix(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> Float[Array, "n1 n2"]:
        return _pair_matrix(trace_floats(self), x1, x2)

    def diagonal(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return _pair_diagonal(trace_floats(self), x)


class AbstractRotationInvariantKernel(AbstractPairKernel):
    """A kernel that depends only on |x|, |z| and <x, z>, given by a formula for one pair of points."""

    @property
    def rotation_invariant(self) -> bool:
        return True


# This is compiled even when called eagerly; otherwise every step of the formula would allocate an (n1, n2, d) array. XLA fuses
# most of a formula but not all of it: arc-cosine kernels need up to 20 arrays of all pairs at once, hence the blocks.
@compiled
def _pair_matrix(kernel: AbstractPairKernel, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]):
    row = lambda a: jax.vmap(lambda b: kernel.evaluate(a, b))(x2)
    if x1.shape[0] * x2.shape[0] <= _PAIRS:
        return jax.vmap(row)(x1)
    return jax.lax.map(row, x1, batch_size=max(1, _PAIRS // x2.shape[0]))


@compiled
def _pair_diagonal(kernel: AbstractPairKernel, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    return jax.vmap(lambda a: kernel.evaluate(a, a))(x)


class _Sum(AbstractKernel):
    left: AbstractKernel
    right: AbstractKernel

    def __check_init__(self):
        common_ndim(self.left, self.right)

    def matrix(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return self.left.matrix(x1, x2) + self.right.matrix(x1, x2)

    def diagonal(self, x: Float[Array, "n *point"]) -> Float[Array, " n"]:
        return self.left.diagonal(x) + self.right.diagonal(x)

    def error(self, x: Float[Array, "n *point"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        return self.left.error(x, weight) + self.right.error(x, weight)

    def tile(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return self.left.tile(x1, x2) + self.right.tile(x1, x2)

    @property
    def rotation_invariant(self) -> bool:
        return self.left.rotation_invariant and self.right.rotation_invariant

    @property
    def point_ndim(self) -> int | None:
        return common_ndim(self.left, self.right)


class _Product(AbstractKernel):
    left: AbstractKernel
    right: AbstractKernel

    def __check_init__(self):
        common_ndim(self.left, self.right)

    def matrix(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return self.left.matrix(x1, x2) * self.right.matrix(x1, x2)

    def diagonal(self, x: Float[Array, "n *point"]) -> Float[Array, " n"]:
        return self.left.diagonal(x) * self.right.diagonal(x)

    def error(self, x: Float[Array, "n *point"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        # No entry of a positive semidefinite matrix is larger than its largest diagonal entry.
        largest = lambda kernel: jnp.max(kernel.diagonal(x))
        return largest(self.left) * self.right.error(x, weight) + largest(self.right) * self.left.error(x, weight)

    def tile(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return self.left.tile(x1, x2) * self.right.tile(x1, x2)

    @property
    def rotation_invariant(self) -> bool:
        return self.left.rotation_invariant and self.right.rotation_invariant

    @property
    def point_ndim(self) -> int | None:
        return common_ndim(self.left, self.right)


class _Scaled(AbstractKernel):
    scale: Any
    kernel: AbstractKernel

    def __check_init__(self):
        if not isinstance(self.scale, jax.core.Tracer) and not 0.0 <= float(self.scale) < float("inf"):
            raise ValueError(f"a kernel can be multiplied by finite numbers >= 0 only, got {self.scale}.")

    def matrix(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return self.scale * self.kernel.matrix(x1, x2)

    def diagonal(self, x: Float[Array, "n *point"]) -> Float[Array, " n"]:
        return self.scale * self.kernel.diagonal(x)

    def error(self, x: Float[Array, "n *point"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        return self.scale * self.kernel.error(x, weight)

    def tile(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return jnp.asarray(self.scale, x1.dtype) * self.kernel.tile(x1, x2)

    @property
    def rotation_invariant(self) -> bool:
        return self.kernel.rotation_invariant

    @property
    def point_ndim(self) -> int | None:
        return self.kernel.point_ndim


def common_ndim(left: AbstractKernel, right: AbstractKernel) -> int | None:
    """The number of axes of the points of both kernels. **Raises:** ValueError if it differs between the two."""
    ndims = {kernel.point_ndim for kernel in (left, right)} - {None}
    if len(ndims) > 1:
        raise ValueError(
            f"kernels can be added and multiplied if they take the same points; here one takes points of {left.point_ndim} "
            f"axes, the other of {right.point_ndim}."
        )
    return ndims.pop() if ndims else None


_T = TypeVar("_T")


def trace_floats(tree: _T) -> _T:
    """`tree` with its Python floats turned into arrays, so that `eqx.filter_jit` traces them and does not compile for each
    value."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, tree)


def check_positive(owner: str, **values) -> None:
    """Raises ValueError for a hyper-parameter that is not finite and > 0; traced values pass."""
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and not np.all((np.asarray(value) > 0) & np.isfinite(value)):
            raise ValueError(f"{owner}: {name} must be finite and > 0, got {value}.")


def roundoff(dtype, d: int = 1) -> float:
    """An estimate of the relative rounding error of inner products in R^d and of short formulas of them: (8 + sqrt(d)) eps."""
    return float((8.0 + d**0.5) * jnp.finfo(dtype).eps)


def dot(x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
    """<x1, x2> in the full precision of its type. By default recent GPUs round float32 factors to 10 bits (TF32)."""
    return jnp.dot(x1, x2, precision="highest")


def root(square: Float[Array, "..."], floor: float = 0.0) -> Float[Array, "..."]:
    """The square root, with gradient 0 instead of infinity at 0. Squares up to `floor` count as 0."""
    positive = square > floor
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def norm(x: Float[Array, " d"], floor: float = 0.0) -> Float[Array, ""]:
    """|x|, with gradient 0 instead of NaN at x = 0. Norms up to `floor` count as 0."""
    return root(jnp.sum(x * x), floor**2)
