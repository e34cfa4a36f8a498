"""Kernels of the distance r = |x - z| of two points."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractRotationInvariantKernel, check_positive, norm


class RBF(AbstractRotationInvariantKernel):
    """k(x, z) = exp(-r^2 / (2 l^2)), with l the `length_scale` > 0."""

    length_scale: float | Float[Array, "*batch"] = 1.0

    def __check_init__(self):
        check_positive("RBF", length_scale=self.length_scale)

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        return jnp.exp(-0.5 * jnp.sum(((x1 - x2) / self.length_scale) ** 2))


class Laplace(AbstractRotationInvariantKernel):
    """k(x, z) = exp(-r / l), with l the `length_scale` > 0."""

    length_scale: float | Float[Array, "*batch"] = 1.0

    def __check_init__(self):
        check_positive("Laplace", length_scale=self.length_scale)

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        return jnp.exp(-norm(x1 - x2) / self.length_scale)


class Matern(AbstractRotationInvariantKernel):
    r"""The Matérn kernel of smoothness `nu` and `length_scale` l > 0 (Rasmussen & Williams 2006, "Gaussian Processes for
    Machine Learning", equation 4.17): with s = sqrt(2 nu) r / l,

        nu = 1/2: exp(-s),   nu = 3/2: (1 + s) exp(-s),   nu = 5/2: (1 + s + s^2/3) exp(-s).

    **Raises:** ValueError for another nu or a length_scale that is not positive.
    """

    length_scale: float | Float[Array, "*batch"] = 1.0
    nu: float = eqx.field(static=True, default=1.5)

    def __check_init__(self):
        check_positive("Matern", length_scale=self.length_scale)
        if self.nu not in (0.5, 1.5, 2.5):
            raise ValueError(
                f"Matern kernels are there for nu = 0.5, 1.5 and 2.5, got nu={self.nu}; nu to infinity is RBF."
            )

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        s = (2.0 * self.nu) ** 0.5 * norm(x1 - x2) / self.length_scale
        polynomial = {0.5: 1.0, 1.5: 1.0 + s, 2.5: 1.0 + s + s * s / 3.0}[self.nu]
        return polynomial * jnp.exp(-s)


class RationalQuadratic(AbstractRotationInvariantKernel):
    """k(x, z) = (1 + r^2 / (2 alpha l^2))^{-alpha}, with `alpha` > 0 and l the `length_scale` > 0: RBF kernels of many
    length scales at once (Rasmussen & Williams 2006, equation 4.19)."""

    length_scale: float | Float[Array, "*batch"] = 1.0
    alpha: float | Float[Array, "*batch"] = 1.0

    def __check_init__(self):
        check_positive("RationalQuadratic", length_scale=self.length_scale, alpha=self.alpha)

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        square = jnp.sum(((x1 - x2) / self.length_scale) ** 2)
        return jnp.exp(-self.alpha * jnp.log1p(0.5 * square / self.alpha))
