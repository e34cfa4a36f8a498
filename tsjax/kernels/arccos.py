r"""Kernels of infinitely wide ReLU networks without biases, in closed form.

With w ~ N(0, I_d) and theta the angle between x and z (Cho & Saul 2009, NeurIPS 22, "Kernel Methods for Deep Learning",
equations 1-6, here without their factor 2):

    k0(x, z) = P(<w,x> > 0, <w,z> > 0)     = (pi - theta) / (2 pi)
    k1(x, z) = E relu(<w,x>) relu(<w,z>)   = |x| |z| (sin theta + (pi - theta) cos theta) / (2 pi)

A network of depth 1 is sum_j a_j relu(<w_j, x>) / sqrt(width) with a, w ~ N(0, 1); each further hidden layer has
weights of variance 2 / width, which keeps norms. Its kernels are k1 (of the network's values) and T = k1 + <x,z> k0 (of
their gradients); for more layers see `ArcCosineNTK`. The kernels `tsjax.kernels.nngp` and `ntk` are the same functions,
computed by neural-tangents; these here are also exact where the angle is small, and on the diagonal.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractPairKernel, dot, norm


def _angle(x1: Float[Array, " d"], x2: Float[Array, " d"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The angle of two points and the product of their norms; the angle is 0 if a point is 0.

    2 atan2(|u - v|, |u + v|) on unit vectors is accurate at every angle (Kahan); arccos loses half of the digits near
    0.
    """
    n1, n2 = norm(x1), norm(x2)
    u = x1 / jnp.where(n1 > 0, n1, 1.0)
    v = x2 / jnp.where(n2 > 0, n2, 1.0)
    theta = 2.0 * jnp.arctan2(norm(u - v), norm(u + v))
    return jnp.where((n1 > 0) & (n2 > 0), theta, 0.0), n1 * n2


def _k0(theta: Float[Array, ""]) -> Float[Array, ""]:
    return (jnp.pi - theta) / (2.0 * jnp.pi)


def _k1(theta: Float[Array, ""]) -> Float[Array, ""]:
    return (jnp.sin(theta) + (jnp.pi - theta) * jnp.cos(theta)) / (2.0 * jnp.pi)


def _next_angle(theta: Float[Array, ""]) -> Float[Array, ""]:
    """The angle after one normalised ReLU layer, cos theta' = 2 k1(theta) for unit vectors.

    Through 1 - cos theta', which keeps small angles accurate: sin(theta'/2)^2 = (1 - cos theta') / 2.
    """
    versine = 2.0 * jnp.sin(theta / 2.0) ** 2 - (jnp.sin(theta) - theta * jnp.cos(theta)) / jnp.pi
    # Roundoff may leave a versine outside [0, 1]; at 0 the square root must not turn a gradient into NaN.
    half = jnp.clip(versine / 2.0, 0.0, 0.5)
    root = jnp.where(half > 0, jnp.sqrt(jnp.where(half > 0, half, 1.0)), 0.0)
    return 2.0 * jnp.arcsin(root)


def _check_depth(depth: int) -> None:
    if depth < 1:
        raise ValueError(f"depth counts the hidden layers, so it is at least 1; got depth={depth}.")


class ArcCosine(AbstractPairKernel):
    r"""The arc-cosine kernel of order 0 or 1 (module docstring): k0 or k1.

    Order 1 is the covariance of random ReLU features; order 0 that of random step functions. A point 0 has k = 0 with
    every point (all its features are 0).

    **Raises:** ValueError for another order.
    """

    order: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.order not in (0, 1):
            raise ValueError(f"arc-cosine kernels are there for order 0 and 1, got order={self.order}.")

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        theta, norms = _angle(x1, x2)
        if self.order == 0:
            return jnp.where(norms > 0, _k0(theta), 0.0)
        return norms * _k1(theta)


class ArcCosineNNGP(AbstractPairKernel):
    """The covariance of the values of a random network with `depth` >= 1 hidden ReLU layers; k(x, x) = |x|^2 / 2.

    Depth 1 is `ArcCosine(1)`. Layer l sees the angle theta_l with cos theta_{l+1} = 2 k1(theta_l), and
    k(x, z) = |x| |z| k1(theta_depth), k1 on unit vectors (Lee et al. 2018, arXiv:1711.00165, the recursion for ReLU).
    """

    depth: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        _check_depth(self.depth)

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        theta, norms = _angle(x1, x2)
        for _ in range(self.depth - 1):
            theta = _next_angle(theta)
        return norms * _k1(theta)


class ArcCosineNTK(AbstractPairKernel):
    """The neural tangent kernel of a network with `depth` >= 1 hidden ReLU layers; k(x, x) = |x|^2 (depth + 1) / 2.

    Depth 1 is T = k1 + <x,z> k0. In general, with theta_l as in `ArcCosineNNGP`,
    T_1 = |x| |z| k1(theta_1) + <x,z> k0(theta_1) and T_l = |x| |z| k1(theta_l) + 2 k0(theta_l) T_{l-1}
    (Jacot et al. 2018, arXiv:1806.07572, theorem 1).
    """

    depth: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        _check_depth(self.depth)

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        theta, norms = _angle(x1, x2)
        tangent = norms * _k1(theta) + dot(x1, x2) * _k0(theta)
        for _ in range(self.depth - 1):
            theta = _next_angle(theta)
            tangent = norms * _k1(theta) + 2.0 * _k0(theta) * tangent
        return tangent
