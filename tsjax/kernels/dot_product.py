"""Kernels that are power series in <x, z>."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .base import AbstractRotationInvariantKernel, dot
from .fast import products


class Polynomial(AbstractRotationInvariantKernel):
    """k(x, z) = (<x, z> + offset)^degree with degree >= 1 and offset >= 0. The functions of its space are polynomials of at
    most that degree.

    **Raises:** ValueError for degree < 1 or a negative offset.
    """

    degree: int = eqx.field(static=True, default=2)
    offset: float | Float[Array, "*batch"] = 1.0

    def __check_init__(self):
        if self.degree < 1:
            raise ValueError(f"a Polynomial kernel has a degree of at least 1, got degree={self.degree}.")
        if not isinstance(self.offset, jax.core.Tracer) and not np.all(
            (np.asarray(self.offset) >= 0) & np.isfinite(self.offset)
        ):
            raise ValueError(f"a Polynomial kernel has a finite offset >= 0, got offset={self.offset}.")

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        return (dot(x1, x2) + self.offset) ** self.degree

    def error(self, x: Float[Array, "n d"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        # A power multiplies the relative error of its base.
        return max(1.0, self.degree / 8.0) * super().error(x, weight)

    def tile(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> Float[Array, "n1 n2"]:
        return (products(x1, x2) + jnp.asarray(self.offset, x1.dtype)) ** self.degree


def _coefficients(value: Any) -> Any:
    return np.asarray(value, float) if isinstance(value, Sequence) else value


class DotProduct(AbstractRotationInvariantKernel):
    """k(x, z) = sum_k c_k <x, z>^k with finitely many coefficients c = (c_0, c_1, ...), each >= 0. By Schoenberg (1942, Duke
    Math. J. 9), the infinite series of this form are all continuous kernels of <x, z> that are positive semidefinite on the
    unit spheres of every dimension.

    **Raises:** ValueError unless the coefficients are one row of finite numbers >= 0, at least one of them positive.
    """

    coefficients: Float[Any, " terms"] = eqx.field(converter=_coefficients)

    def __check_init__(self):
        c = self.coefficients
        if jnp.ndim(c) != 1 or jnp.size(c) == 0:
            raise ValueError(
                f"a DotProduct kernel needs a row of coefficients c_0, c_1, ..., got shape {jnp.shape(c)}."
            )
        if not isinstance(c, jax.core.Tracer) and not (np.all(np.asarray(c) >= 0) and 0 < np.sum(c) < float("inf")):
            raise ValueError(f"a DotProduct kernel needs finite coefficients >= 0, not all 0; got {np.asarray(c)}.")

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        return self._series(dot(x1, x2))

    def error(self, x: Float[Array, "n d"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        return max(1.0, len(self.coefficients) / 8.0) * super().error(x, weight)

    def tile(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> Float[Array, "n1 n2"]:
        return self._series(products(x1, x2))

    def _series(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.polyval(jnp.flip(jnp.asarray(self.coefficients, u.dtype)), u)
