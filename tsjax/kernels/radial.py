"""Kernels of the distance between two points."""

import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .base import AbstractPairKernel, norm


def _check_length_scale(value) -> None:
    if not isinstance(value, jax.core.Tracer) and not np.all((np.asarray(value) > 0) & np.isfinite(value)):
        raise ValueError(f"a length_scale must be finite and > 0, got {value}.")


class RBF(AbstractPairKernel):
    """k(x, z) = exp(-|x - z|^2 / (2 l^2)), with l the `length_scale` > 0."""

    length_scale: float | Float[Array, "*batch"] = 1.0

    def __check_init__(self):
        _check_length_scale(self.length_scale)

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        return jnp.exp(-0.5 * jnp.sum(((x1 - x2) / self.length_scale) ** 2))


class Laplace(AbstractPairKernel):
    """k(x, z) = exp(-|x - z| / l), with l the `length_scale` > 0."""

    length_scale: float | Float[Array, "*batch"] = 1.0

    def __check_init__(self):
        _check_length_scale(self.length_scale)

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        return jnp.exp(-norm(x1 - x2) / self.length_scale)
