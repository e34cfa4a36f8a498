"""Dense linear algebra on the leading rows of arrays that are longer than the data (`tsjax.Size`).

Shapes are fixed in a program, so a factorisation in arrays for N rows would always cost as much as N rows, however few of them
count: for n = N/8 rows 512 times as much as necessary. Programs therefore contain each factorisation at the sizes of
`tsjax.size.ladder`, N, N/2, N/4 and N/8, and run the smallest one that holds all rows up to the last that counts.

In a batch the member with the most rows decides, so that only one of the sizes runs; `lax.switch` over a batched size would run
all of them. In the rows and columns after the last row that counts, a matrix must be diagonal, as `Distinct.gram` makes it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..kernels.base import AbstractKernel
from ..size import ladder

# The number of blocks of rows of a kernel matrix, and the smallest number of rows in a block.
_BLOCKS, _FEWEST = 8, 32

Extent: TypeAlias = Int[Array, ""] | None
"""The number of rows up to the last that counts; None if all count."""


def at_extent(extent: Extent, limit: int, of: Callable[[int], Callable], *operands: Any) -> Any:
    """`of(size)(*operands)` at the smallest size of the ladder of `limit` that is at least `extent`, for all members of a
    batch. The result must have the same shapes at every size."""
    if extent is None:
        return of(limit)(*operands)
    sizes = ladder(limit)
    place = jnp.sum(eqxi.unvmap_max(extent) > jnp.asarray(sizes), dtype=jnp.int32)
    return jax.lax.switch(place, [of(size) for size in sizes], *operands)


def kernel_matrix(kernel: AbstractKernel, x: Float[Array, "n *point"], extent: Extent) -> Float[Array, "n n"]:
    """k(x) up to row `extent`. Blocks of rows that lie entirely after it are not computed: they are 0, except for the
    diagonal."""
    n, size = x.shape[0], -(-x.shape[0] // _BLOCKS)
    if extent is None or size < _FEWEST:
        return kernel(x)
    last, count = eqxi.unvmap_max(extent), -(-n // size)
    blocks = jnp.pad(x, ((0, count * size - n), *((0, 0),) * (x.ndim - 1)), mode="edge").reshape(
        count, size, *x.shape[1:]
    )

    def rows(block: tuple[Array, Array]) -> Array:
        first, points = block
        return jax.lax.cond(first < last, lambda: kernel(points, x), lambda: jnp.zeros((size, n), x.dtype))

    values = jax.lax.map(rows, (size * jnp.arange(count), blocks)).reshape(count * size, n)[:n]
    # Kernels may compute the diagonal more accurately than other pairs.
    return jnp.fill_diagonal(values, kernel.diagonal(x), inplace=False)


def _rest(matrix: Float[Array, "n n"], size: int) -> Float[Array, " rest"]:
    return jnp.diagonal(matrix)[size:]


def eigh(matrix: Float[Array, "n n"], extent: Extent) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Eigenvalues in ascending order, and eigenvectors as columns. The diagonal from row `extent` on must be no larger than any
    eigenvalue of the part before it."""

    def of(size: int):
        def found(a):
            values, vectors = jnp.linalg.eigh(a[:size, :size])
            others = a.shape[0] - size
            columns = jnp.concatenate([jnp.zeros((size, others)), vectors], axis=1)
            unit = jnp.concatenate([jnp.eye(others), jnp.zeros((others, size))], axis=1)
            return jnp.concatenate([_rest(a, size), values]), jnp.concatenate([columns, unit])

        return found

    return at_extent(extent, matrix.shape[0], of, matrix)


class Tridiagonal(NamedTuple):
    """A = Q T Q^T with T tridiagonal, and Q a product of Householder reflections that leave the first coordinate alone; m is
    n - 1."""

    reflectors: Float[Array, "m m"]
    factors: Float[Array, " m"]
    """The scalar factors of the reflections (LAPACK's tau); 0 for rows that do not count."""
    diagonal: Float[Array, " n"]
    """The diagonal of T."""
    beside: Float[Array, " m"]
    """The entries of T next to its diagonal."""
    rotated: Float[Array, "n k"]
    """Q^T b."""


def tridiagonal(matrix: Float[Array, "n n"], b: Float[Array, "n k"], extent: Extent) -> Tridiagonal:
    """The tridiagonal form of a matrix, and Q^T b for the columns of b, which are 0 from row `extent` on."""

    def of(size: int):
        def found(a, b):
            reflectors, diagonal, beside, factors, *_ = jax.lax.linalg.tridiagonal(a[:size, :size], lower=True)
            reflectors, rest = reflectors[1:, :-1], a.shape[0] - size
            return Tridiagonal(
                jnp.pad(reflectors, (0, rest)),
                jnp.pad(factors, (0, rest)),
                jnp.concatenate([diagonal, _rest(a, size)]),
                jnp.pad(beside, (0, rest)),
                jnp.pad(_reflected(reflectors, factors, b[:size], transpose=True), ((0, rest), (0, 0))),
            )

        return found

    return at_extent(extent, matrix.shape[0], of, matrix, b)


def rotated(form: Tridiagonal, c: Float[Array, "n k"], extent: Extent) -> Float[Array, "n k"]:
    """Q c for the columns of c."""

    def of(size: int):
        def found(reflectors, factors, c):
            last = size - 1
            moved = _reflected(reflectors[:last, :last], factors[:last], c[:size], transpose=False)
            return jnp.concatenate([moved, c[size:]])

        return found

    return at_extent(extent, c.shape[0], of, form.reflectors, form.factors, c)


def _reflected(reflectors, factors, c, transpose: bool):
    rest = jax.lax.linalg.ormqr(reflectors, factors, c[1:], left=True, transpose=transpose)
    return jnp.concatenate([c[:1], rest])


def svd(
    matrix: Float[Array, "n q"], extent: Extent
) -> tuple[Float[Array, "n q"], Float[Array, " q"], Float[Array, "q q"]]:
    """The thin singular value decomposition of a matrix with n > q rows, which are 0 from row `extent` on."""

    def of(size: int):
        def found(a):
            u, s, vt = jnp.linalg.svd(a[: max(size, a.shape[1])], full_matrices=False)
            return jnp.pad(u, ((0, a.shape[0] - u.shape[0]), (0, 0))), s, vt

        return found

    return at_extent(extent, matrix.shape[0], of, matrix)


def outer_gram(phi: Float[Array, "n p"], extent: Extent, per_row: int | None = None) -> Float[Array, "n n"]:
    """phi phi^T for a phi whose rows are 0 from row `extent` on. With `per_row`, columns from `per_row` times `extent` on are 0
    too."""

    def of(size: int):
        def found(a):
            part = a[:size] if per_row is None else a[:size, : per_row * size]
            return jnp.pad(part @ part.T, (0, a.shape[0] - size))

        return found

    return at_extent(extent, phi.shape[0], of, phi)


def inner_gram(phi: Float[Array, "n q"], extent: Extent) -> Float[Array, "q q"]:
    """phi^T phi for a phi whose rows are 0 from row `extent` on."""
    return at_extent(extent, phi.shape[0], lambda size: lambda a: a[:size].T @ a[:size], phi)
