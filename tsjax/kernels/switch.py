"""One of several kernels, chosen by a number that may be traced."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int

from .base import AbstractKernel, common_ndim


class Switch(AbstractKernel):
    """The kernel `kernels[index]`. One compiled program serves all of them, and computes only the chosen one.

    Under `vmap` over `index`, however, all kernels are computed (`jax.lax.switch`), so map over other arguments.

    - `kernels`: at least one; all take points of one kind.
    - `index`: 0 to len(kernels) - 1; a number, or traced. JAX clamps a traced number that is out of range.

    **Raises:** ValueError for no kernels, for kernels of different points, and for a number out of range.

    >>> kernel = ts.kernels.Switch((ts.kernels.RBF(), ts.kernels.Laplace()), index=1)
    >>> x = jnp.array([[0.0], [1.0]])
    >>> print(jnp.log(kernel(x)).round(3))
    [[ 0. -1.]
     [-1.  0.]]
    """

    kernels: tuple[AbstractKernel, ...]
    index: int | Int[Array, ""]

    def __check_init__(self):
        if not self.kernels:
            raise ValueError("Switch: give at least one kernel.")
        for kernel in self.kernels[1:]:
            common_ndim(self.kernels[0], kernel)
        if isinstance(self.index, int) and not 0 <= self.index < len(self.kernels):
            raise ValueError(
                f"Switch: index = {self.index} is not the place of one of the {len(self.kernels)} kernels."
            )

    def _chosen(self, value: Callable[[AbstractKernel], Array]) -> Array:
        if isinstance(self.index, int):
            return value(self.kernels[self.index])
        # Points come by closure: a kernel may treat two equal arguments as one set of points.
        return jax.lax.switch(self.index, [lambda kernel=kernel: value(kernel) for kernel in self.kernels])

    def matrix(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return self._chosen(lambda kernel: kernel.matrix(x1, x2))

    def diagonal(self, x: Float[Array, "n *point"]) -> Float[Array, " n"]:
        return self._chosen(lambda kernel: kernel.diagonal(x))

    def error(self, x: Float[Array, "n *point"], weight: Float[Array, " n"] | None = None) -> Float[Array, ""]:
        return self._chosen(lambda kernel: kernel.error(x, weight))

    def tile(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return self._chosen(lambda kernel: kernel.tile(x1, x2))

    @property
    def rotation_invariant(self) -> bool:
        return all(kernel.rotation_invariant for kernel in self.kernels)

    @property
    def point_ndim(self) -> int | None:
        return next((kernel.point_ndim for kernel in self.kernels if kernel.point_ndim is not None), None)
