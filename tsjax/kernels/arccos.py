r"""Kernels of infinitely wide ReLU networks, in closed form.

With w ~ N(0, I_d) and theta the angle between x and z (Cho & Saul 2009, NeurIPS 22, "Kernel Methods for Deep Learning",
equations 1-6, here without their factor 2):

    k0(x, z) = P(<w,x> > 0, <w,z> > 0)     = (pi - theta) / (2 pi)
    k1(x, z) = E relu(<w,x>) relu(<w,z>)   = |x| |z| (sin theta + (pi - theta) cos theta) / (2 pi)

A network of depth 1 is sum_j a_j relu(<w_j, x>) / sqrt(width) with a, w ~ N(0, 1). Its kernels are k1 (the covariance of its
values) and T = k1 + <x,z> k0 (the inner product of its gradients). Each further hidden layer has weights of variance 2 / width,
which preserves norms; `ArcCosineNTK` has the kernels of more layers, and of biases. `tsjax.kernels.nngp` and `ntk` are the
same functions, computed by neural-tangents. The kernels of this module are also accurate at small angles and on the diagonal.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractKernel, AbstractRotationInvariantKernel, dot, norm, root, roundoff
from .fast import append, arccos_tile, network_tile


def _angle(
    x1: Float[Array, " d"], x2: Float[Array, " d"]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """The angle between two points, and their norms. The angle is pi/2 if a point is 0.

    For unit vectors u and v, 2 atan2(|u - v|, |u + v|) is accurate at every angle (Kahan), whereas arccos loses half of the
    digits near 0. For equal or opposite points, u - v or u + v is only roundoff, and would give the gradient a random
    direction. Such a length counts as 0, with gradient 0.
    """
    n1, n2 = norm(x1), norm(x2)
    u = x1 / jnp.where(n1 > 0, n1, 1.0)
    v = x2 / jnp.where(n2 > 0, n2, 1.0)
    floor = roundoff(x1.dtype, x1.size)
    theta = 2.0 * jnp.arctan2(norm(u - v, floor), norm(u + v, floor))
    return jnp.where((n1 > 0) & (n2 > 0), theta, jnp.pi / 2.0), n1, n2


def _k0(theta: Float[Array, ""]) -> Float[Array, ""]:
    return (jnp.pi - theta) / (2.0 * jnp.pi)


# The covariances of order 1 and 2 are differentiable functions of q = <x, z> and N = |x||z| also at equal and opposite points,
# where the angle has a kink. The rules below are their derivatives in q and N, from which the derivative of the angle has
# cancelled, so that first and second derivatives are right at such points too.
@jax.custom_jvp
def _k1(q: Float[Array, ""], norms: Float[Array, ""], theta: Float[Array, ""]) -> Float[Array, ""]:
    """E relu(<w,x>) relu(<w,z>). Its differential is dk1 = k0 dq + sin(theta) / (2 pi) dN."""
    del q
    return norms * (jnp.sin(theta) + (jnp.pi - theta) * jnp.cos(theta)) / (2.0 * jnp.pi)


@_k1.defjvp
def _k1_jvp(primals, tangents):
    q, norms, theta = primals
    return _k1(q, norms, theta), _k0(theta) * tangents[0] + jnp.sin(theta) / (2.0 * jnp.pi) * tangents[1]


@jax.custom_jvp
def _k2(q: Float[Array, ""], norms: Float[Array, ""], theta: Float[Array, ""]) -> Float[Array, ""]:
    """E relu(<w,x>)^2 relu(<w,z>)^2. Its differential is dk2 = 4 k1 dq + (q sin(theta) + (pi - theta) N) / pi dN."""
    del q
    cosine = jnp.cos(theta)
    value = (3.0 * jnp.sin(theta) * cosine + (jnp.pi - theta) * (1.0 + 2.0 * cosine * cosine)) / (2.0 * jnp.pi)
    return norms**2 * value


@_k2.defjvp
def _k2_jvp(primals, tangents):
    q, norms, theta = primals
    by_norms = (q * jnp.sin(theta) + (jnp.pi - theta) * norms) / jnp.pi
    return _k2(q, norms, theta), 4.0 * _k1(q, norms, theta) * tangents[0] + by_norms * tangents[1]


def _next_angle(theta: Float[Array, ""]) -> Float[Array, ""]:
    """The angle after one normalised ReLU layer, cos theta' = 2 k1(theta) for unit vectors.

    It is computed from 1 - cos theta' = 2 sin(theta'/2)^2, which keeps small angles accurate.
    """
    versine = 2.0 * jnp.sin(theta / 2.0) ** 2 - (jnp.sin(theta) - theta * jnp.cos(theta)) / jnp.pi
    # Roundoff may move the versine outside of [0, 1], and the gradient of the square root at 0 must not be NaN.
    return 2.0 * jnp.arcsin(root(jnp.clip(versine / 2.0, 0.0, 0.5)))


class _Pair(NamedTuple):
    """The angle, the norms and the inner product q of two points, on which alone these kernels depend."""

    theta: Float[Array, ""]
    n1: Float[Array, ""]
    n2: Float[Array, ""]
    q: Float[Array, ""]

    @property
    def norms(self) -> Float[Array, ""]:
        return self.n1 * self.n2

    @property
    def covariance(self) -> Float[Array, ""]:
        """E relu(<w,x>) relu(<w,z>)."""
        return _k1(self.q, self.norms, self.theta)


def _pair(x1: Float[Array, " d"], x2: Float[Array, " d"]) -> _Pair:
    return _Pair(*_angle(x1, x2), dot(x1, x2))


def _with_bias(pair: _Pair, bias_std: float) -> _Pair:
    """The pair (x, b), (z, b). With tan alpha_i = b / n_i and c = cos alpha_1 cos alpha_2, the new half angle has

        sin^2 = sin^2((alpha_1 - alpha_2)/2) + c sin^2(theta/2),  cos^2 = sin^2((alpha_1 + alpha_2)/2) + c cos^2(theta/2).

    These are sums of non-negative terms, and therefore accurate at every angle.
    """
    if not bias_std:
        return pair
    theta, n1, n2, q = pair
    plus, minus = bias_std * (n1 + n2), bias_std * (n2 - n1)
    difference = jnp.arctan2(minus, n1 * n2 + bias_std**2)
    total = jnp.arctan2(plus, n1 * n2 - bias_std**2)
    m1, m2 = jnp.sqrt(n1 * n1 + bias_std**2), jnp.sqrt(n2 * n2 + bias_std**2)
    c = n1 * n2 / (m1 * m2)
    sine = jnp.sin(difference / 2.0) ** 2 + c * jnp.sin(theta / 2.0) ** 2
    cosine = jnp.sin(total / 2.0) ** 2 + c * jnp.cos(theta / 2.0) ** 2
    floor = roundoff(sine.dtype) ** 2
    return _Pair(2.0 * jnp.arctan2(root(sine, floor), root(cosine, floor)), m1, m2, q + bias_std**2)


def _layers(x1: Float[Array, " d"], x2: Float[Array, " d"], depth: int, bias_std: float) -> Iterator[_Pair]:
    """The pair of inputs of each hidden layer. Normalised ReLU layers preserve norms."""
    if bias_std:
        # The bias of the first layer is one more coordinate, so that nothing is singular at x = 0.
        x1, x2 = (jnp.append(x, jnp.asarray(bias_std, x.dtype)) for x in (x1, x2))
    pair = _pair(x1, x2)
    yield pair
    for _ in range(depth - 1):
        # At x = 0 every layer is at the kinks of its ReLUs. With the angle pi/2, k0 = 1/4 means that their derivative is 1/2.
        theta = jnp.where(pair.norms > 0, _next_angle(pair.theta), jnp.pi / 2.0)
        pair = _with_bias(pair._replace(theta=theta, q=2.0 * pair.covariance), bias_std)
        yield pair


def check_network(depth: int, bias_std: float) -> None:
    """Raises ValueError for fewer than 1 hidden layer, and for a standard deviation of biases that is negative or not
    finite."""
    if depth < 1:
        raise ValueError(f"depth counts the hidden layers, so it is at least 1; got depth={depth}.")
    if not 0.0 <= bias_std < float("inf"):
        raise ValueError(f"bias_std is a standard deviation, so it is finite and >= 0; got bias_std={bias_std}.")


def tile_of_network(kernel: AbstractKernel, get: Literal["ntk", "nngp"], depth: int, bias_std: float, x1, x2):
    """`tile` of a network's kernel. The fast form exists without biases, and for one hidden layer with biases."""
    if bias_std and depth > 1:
        return AbstractKernel.tile(kernel, x1, x2)
    if bias_std:
        x1, x2 = append(x1, bias_std), append(x2, bias_std)
    return network_tile(get, depth, x1, x2)


class ArcCosine(AbstractRotationInvariantKernel):
    r"""The arc-cosine kernel of order 0, 1 or 2: E phi(<w,x>) phi(<w,z>), w ~ N(0, I_d), for phi the step function, relu or
    relu^2 (module docstring for orders 0 and 1; Cho & Saul 2009, equation 7, without its factor 2, for

        k2(x, z) = |x|^2 |z|^2 (3 sin theta cos theta + (pi - theta) (1 + 2 cos^2 theta)) / (2 pi)).

    If x or z is 0, k(x, z) = 0, since all features of the point 0 are 0.

    **Raises:** ValueError for another order.
    """

    order: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.order not in (0, 1, 2):
            raise ValueError(f"arc-cosine kernels exist here for order 0, 1 and 2, got order={self.order}.")

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        pair = _pair(x1, x2)
        if self.order == 0:
            return jnp.where(pair.norms > 0, _k0(pair.theta), 0.0)
        return pair.covariance if self.order == 1 else _k2(pair.q, pair.norms, pair.theta)

    def tile(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> Float[Array, "n1 n2"]:
        return arccos_tile(self.order, x1, x2)


class ArcCosineNNGP(AbstractRotationInvariantKernel):
    """The covariance of the values of a random network with `depth` >= 1 hidden ReLU layers and biases b ~ N(0, bias_std^2) in
    each of them: k(x, x) = (|x|^2 + depth bias_std^2) / 2.

    Depth 1 is `ArcCosine(1)` of (x, bias_std). In general, let theta_l be the angle between the two inputs of hidden layer l
    with the bias appended; without biases cos theta_{l+1} = 2 k1(theta_l). Then k(x, z) = |x| |z| k1(theta_depth), where k1 is
    that of unit vectors, and the norms are those of the inputs of the last hidden layer with the bias appended (Lee et al.
    2018, arXiv:1711.00165, the recursion for ReLU).

    **Raises:** ValueError for depth < 1 or bias_std < 0.
    """

    depth: int = eqx.field(static=True, default=1)
    bias_std: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        check_network(self.depth, self.bias_std)

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        *_, last = _layers(x1, x2, self.depth, self.bias_std)
        return last.covariance

    def tile(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> Float[Array, "n1 n2"]:
        return tile_of_network(self, "nngp", self.depth, self.bias_std, x1, x2)


class ArcCosineNTK(AbstractRotationInvariantKernel):
    """The neural tangent kernel of a network with `depth` >= 1 hidden ReLU layers and biases b ~ N(0, bias_std^2) in each of
    them, in the NTK parameterisation: k(x, x) = |x|^2 (depth + 1) / 2 + bias_std^2 depth (depth + 3) / 4.

    Depth 1 is T = k1 + <x,z> k0 of (x, bias_std). In general the kernel is T_depth, where, with theta_l as in `ArcCosineNNGP`
    and the norms of the inputs of layer l with the bias appended, T_1 = |x| |z| (k1(theta_1) + cos(theta_1) k0(theta_1)) and
    T_l = |x| |z| k1(theta_l) + k0(theta_l) (2 T_{l-1} + bias_std^2) (Jacot et al. 2018, arXiv:1806.07572, theorem 1).

    **Raises:** ValueError for depth < 1 or bias_std < 0.

    >>> x = jnp.eye(2)
    >>> print(ts.kernels.ArcCosineNTK(depth=2)(x).diagonal())
    [1.5 1.5]
    """

    depth: int = eqx.field(static=True, default=1)
    bias_std: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        check_network(self.depth, self.bias_std)

    def evaluate(self, x1: Float[Array, " d"], x2: Float[Array, " d"]) -> Float[Array, ""]:
        first, *rest = _layers(x1, x2, self.depth, self.bias_std)
        # <x, z> is computed directly and not from the angle, so that it is exact for orthogonal points.
        tangent = first.covariance + first.q * _k0(first.theta)
        for pair in rest:
            tangent = pair.covariance + _k0(pair.theta) * (2.0 * tangent + self.bias_std**2)
        return tangent

    def tile(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> Float[Array, "n1 n2"]:
        return tile_of_network(self, "ntk", self.depth, self.bias_std, x1, x2)
