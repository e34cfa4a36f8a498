"""Kernels of the distance r = |x - z| of two points."""

import functools
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractRotationInvariantKernel, check_positive, root
from .fast import radial_tile


class AbstractRadialKernel(AbstractRotationInvariantKernel):
    """k(x, z) = profile(r^2 / l^2) with r = |x - z| and l the `length_scale` > 0. **Raises:** ValueError for l <= 0."""

    length_scale: eqx.AbstractVar[float | Float[Array, "*batch"]]

    def __check_init__(self):
        check_positive(type(self).__name__, length_scale=self.length_scale)

    @abstractmethod
    def profile(self, square: Float[Array, "..."]) -> Float[Array, "..."]:
        """k as a function of r^2 / l^2, elementwise."""

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        return self.profile(jnp.sum(((x1 - x2) / self.length_scale) ** 2))

    def tile(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> Float[Array, "n1 n2"]:
        return radial_tile(self.profile, self.length_scale, x1, x2)


class RBF(AbstractRadialKernel):
    """k(x, z) = exp(-r^2 / (2 l^2)) with r = |x - z| and l the `length_scale` > 0.

    >>> kernel = 2.0 * ts.kernels.RBF(0.5) + ts.kernels.Polynomial(2)
    >>> kernel(jnp.zeros((3, 4)), jnp.ones((2, 4))).shape
    (3, 2)
    """

    length_scale: float | Float[Array, "*batch"] = 1.0

    def profile(self, square: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.exp(-0.5 * square)


class Laplace(AbstractRadialKernel):
    """k(x, z) = exp(-r / l) with r = |x - z| and l the `length_scale` > 0."""

    length_scale: float | Float[Array, "*batch"] = 1.0

    def profile(self, square: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.exp(-root(square))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _matern(nu: float, square: Float[Array, "..."]) -> Float[Array, "..."]:
    """The profile as a function of s^2. Its derivative is a multiple of the profile of nu - 1, without a division by s, so that
    it is right at s = 0 too."""
    s = root(square)
    polynomial = {0.5: 1.0, 1.5: 1.0 + s, 2.5: 1.0 + s + s * s / 3.0}[nu]
    return polynomial * jnp.exp(-s)


@_matern.defjvp
def _matern_jvp(nu, primals, tangents):
    (square,), (tangent,) = primals, tangents
    value = _matern(nu, square)
    if nu == 0.5:
        s = root(square)
        # The kernel has a kink at s = 0, where its derivative is the mean of both sides, 0.
        slope = jnp.where(s > 0, -0.5 * value / jnp.where(s > 0, s, 1.0), 0.0)
    else:
        slope = {1.5: -0.5, 2.5: -1.0 / 6.0}[nu] * _matern(nu - 1.0, square)
    return value, slope * tangent


class Matern(AbstractRadialKernel):
    r"""The Matérn kernel of smoothness `nu` and `length_scale` l > 0 (Rasmussen & Williams 2006, "Gaussian Processes for
    Machine Learning", equation 4.17). With r = |x - z| and s = sqrt(2 nu) r / l it is

        nu = 1/2: exp(-s),   nu = 3/2: (1 + s) exp(-s),   nu = 5/2: (1 + s + s^2/3) exp(-s).

    **Raises:** ValueError for another nu or a length_scale that is not positive.
    """

    length_scale: float | Float[Array, "*batch"] = 1.0
    nu: float = eqx.field(static=True, default=1.5)

    def __check_init__(self):
        if self.nu not in (0.5, 1.5, 2.5):
            raise ValueError(
                f"Matern kernels exist here for nu = 0.5, 1.5 and 2.5, got nu={self.nu}. The limit of large nu is RBF."
            )

    def profile(self, square: Float[Array, "..."]) -> Float[Array, "..."]:
        return _matern(self.nu, 2.0 * self.nu * square)


class RationalQuadratic(AbstractRadialKernel):
    """k(x, z) = (1 + r^2 / (2 alpha l^2))^{-alpha} with r = |x - z|, `alpha` > 0 and l the `length_scale` > 0: a mixture of RBF
    kernels of many length scales (Rasmussen & Williams 2006, equation 4.19). **Raises:** ValueError for alpha or l <= 0."""

    length_scale: float | Float[Array, "*batch"] = 1.0
    alpha: float | Float[Array, "*batch"] = 1.0

    def __check_init__(self):
        check_positive("RationalQuadratic", alpha=self.alpha)

    def profile(self, square: Float[Array, "..."]) -> Float[Array, "..."]:
        alpha = jnp.asarray(self.alpha, square.dtype)
        return jnp.exp(-alpha * jnp.log1p(0.5 * square / alpha))
