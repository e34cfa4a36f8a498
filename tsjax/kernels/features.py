"""Kernels given by finitely many features, k(x, z) = <phi(x), phi(z)>. This module has coordinates and random features; the
gradients of a network are in `tsjax.kernels.empirical`."""

from abc import abstractmethod

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .base import AbstractKernel, check_positive


class AbstractFeatures(AbstractKernel):
    """A kernel with an explicit feature map phi: R^d -> R^p."""

    @abstractmethod
    def features(self, x: Float[Array, "n *point"]) -> Float[Array, "n p"]:
        """phi at the n rows of x."""

    def matrix(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        phi = self.features(x1)
        return jnp.matmul(phi, (phi if x2 is x1 else self.features(x2)).T, precision="highest")

    def diagonal(self, x: Float[Array, "n *point"]) -> Float[Array, " n"]:
        return jnp.sum(self.features(x) ** 2, axis=1)


class Linear(AbstractFeatures):
    """k(x, z) = sum_k w_k x_k z_k, with features sqrt(w_k) x_k and `weights` w >= 0 of shape (d,). If the coordinates of x are
    uncorrelated with mean 0 and variance 1, its eigenvalues are w_k, and its eigenfunctions are the coordinates.
    """

    weights: Float[Array, "*batch d"]

    def features(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return x * jnp.sqrt(self.weights).astype(x.dtype)[None, :]


class ReLUFeatures(AbstractFeatures):
    """phi_j(x) = relu(<w_j, x>) / sqrt(p): <phi(x), phi(z)> tends to `ArcCosine(1)` for w_j ~ N(0, I) and large p.

    `ReLUFeatures.sample(key, p, d)` draws them.
    """

    w: Float[Array, "*batch p d"]

    @classmethod
    def sample(cls, key: PRNGKeyArray, count: int, d: int, dtype=None) -> "ReLUFeatures":
        """p = `count` features with w_j ~ N(0, I_d)."""
        return cls(jr.normal(key, (count, d), dtype))

    def features(self, x: Float[Array, "n d"]) -> Float[Array, "n p"]:
        # `maximum` has derivative 1/2 at its kink, the mean of both sides, as the kernels in closed form do; jax.nn.relu has 0.
        return jnp.maximum(jnp.matmul(x, self.w.T.astype(x.dtype), precision="highest"), 0.0) / self.w.shape[-2] ** 0.5


class FourierFeatures(AbstractFeatures):
    """phi_j(x) = sqrt(2/p) cos(<w_j, x> + b_j) with w_j ~ N(0, I / l^2), b_j uniform on [0, 2 pi]: <phi(x), phi(z)> tends to
    `RBF(l)` for large p (Rahimi & Recht 2007, NeurIPS 20, algorithm 1).

    `FourierFeatures.sample(key, p, d, length_scale)` draws them.
    """

    w: Float[Array, "*batch p d"]
    b: Float[Array, "*batch p"]

    @classmethod
    def sample(
        cls, key: PRNGKeyArray, count: int, d: int, length_scale: float | Float[Array, ""] = 1.0, dtype=None
    ) -> "FourierFeatures":
        """p = `count` features of the RBF kernel of `length_scale`. **Raises:** ValueError unless `length_scale` is > 0."""
        check_positive("FourierFeatures", length_scale=length_scale)
        key_w, key_b = jr.split(key)
        w = jr.normal(key_w, (count, d), dtype) / length_scale
        return cls(w, jr.uniform(key_b, (count,), w.dtype, maxval=2.0 * jnp.pi))

    def features(self, x: Float[Array, "n d"]) -> Float[Array, "n p"]:
        phase = jnp.matmul(x, self.w.T.astype(x.dtype), precision="highest") + self.b.astype(x.dtype)[None, :]
        return (2.0 / self.w.shape[-2]) ** 0.5 * jnp.cos(phase)
