"""A length scale for kernels that have none."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractKernel, check_positive


class Stretched(AbstractKernel):
    """k(x / l, z / l) with l the `length_scale` > 0, which may be traced and mapped over.

    For the kernel of a relu network without biases this is a multiple of the kernel itself. With biases the length is measured
    against them: `ntk(depth, bias_std=b)` is b^2 times `Stretched(ntk(depth, bias_std=1.0), b)`.

    **Raises:** ValueError for a length_scale that is not positive.

    >>> stretched = ts.kernels.Stretched(ts.kernels.RBF(1.0), 2.0)
    >>> x = jnp.arange(6.0).reshape(3, 2)
    >>> bool(jnp.allclose(stretched(x), ts.kernels.RBF(2.0)(x)))
    True
    """

    kernel: AbstractKernel
    length_scale: float | Float[Array, "*batch"] = 1.0

    def __check_init__(self):
        check_positive("Stretched", length_scale=self.length_scale)

    def _at(self, x: Any) -> Any:
        # Points may have integer coordinates.
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        return x.astype(dtype) / jnp.asarray(self.length_scale, dtype)

    def matrix(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        first = self._at(x1)
        # If x2 is x1, the stretched points must be one object too, since kernels recognise one set of points by identity.
        return self.kernel.matrix(first, first if x2 is x1 else self._at(x2))

    def diagonal(self, x: Float[Array, "n *point"]) -> Float[Array, " n"]:
        return self.kernel.diagonal(self._at(x))

    def error(self, x: Float[Array, "n *point"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        return self.kernel.error(self._at(x), weight)

    def tile(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return self.kernel.tile(self._at(x1), self._at(x2))

    @property
    def rotation_invariant(self) -> bool:
        return self.kernel.rotation_invariant

    @property
    def point_ndim(self) -> int | None:
        return self.kernel.point_ndim
