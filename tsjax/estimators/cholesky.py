"""Cholesky's factorisation A = L L^T in panels of columns, and what ridge regression asks of it.

A library's function needs memory for both A and L, and on GPUs for a transposed copy as well. Here a large L is a tuple of
panels. Panel k has the columns of block k, from the diagonal down, so that all panels together take half a matrix. They are
made from left to right: a panel of L is that of A, which is computed only then, less the products of the panels before it, with
its block on the diagonal factorised and the rows below solved for (the left-looking algorithm: Golub & Van Loan 2013, "Matrix
Computations", section 4.2). The entries on the diagonal of A^{-1} are the sums of squares of the columns of L^{-1}. These are
computed one block of columns at a time, from the diagonal down: n^3 / 3 operations in place of the n^3 for all entries.

A matrix of at most `LARGE` rows is one panel. Arrays that are longer than the data are factorised at one of the sizes of
`tsjax.estimators.leading`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool, Float

from .leading import Extent, at_extent

LARGE = 4096
"""Matrices with more rows have several panels."""

# A panel has at most this many columns, unless there would be more than this many panels: each takes time to compile.
_COLUMNS, _PANELS = 2048, 8

PanelOf = Callable[[Any, int, int, int], Float[Array, "r c"]]
"""The function of (source, first, last, size) that returns A[first:size, first:last]."""


class Panel(NamedTuple):
    """Columns of L: the block on the diagonal, which is lower triangular, and the rows below it."""

    block: Float[Array, "c c"]
    below: Float[Array, "r c"]


class Factor(NamedTuple):
    """L. Its methods return NaN if A has no factor to working precision."""

    panels: tuple[Panel, ...]
    extent: Extent
    valid: Bool[Array, ""]

    def solve(self, b: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """A^{-1} b."""
        solved = b[:0]
        for (block, below), part in reversed([*zip(self.panels, _forward(self.panels, b), strict=True)]):
            # In this order XLA does not transpose `below` in memory.
            rest = part - (solved.T @ below).T
            solved = jnp.concatenate([jsl.solve_triangular(block, rest, lower=True, trans="T"), solved])
        return self._checked(solved)

    def inverse_diagonal(self) -> Float[Array, " n"]:
        """The diagonal of A^{-1}."""

        def of(size: int):
            def found(panels):
                cut, columns = _cut(panels, size), []
                for k, (block, below) in enumerate(cut):
                    unit = jnp.eye(len(block) + len(below), len(block), dtype=block.dtype)
                    columns.append(_squares(_forward(cut[k:], _after(unit, columns))))
                return jnp.concatenate([*columns, 1.0 / _diagonal(panels)[size:] ** 2])

            return found

        return self._checked(at_extent(self.extent, self._n, of, self.panels))

    def explained(self, cross: Float[Array, "n t"]) -> Float[Array, " t"]:
        """c^T A^{-1} c for each column c of `cross`, which is 0 from row `extent` on."""
        of = lambda size: lambda panels, c: _squares(_forward(_cut(panels, size), c[:size]))
        return self._checked(at_extent(self.extent, self._n, of, self.panels, cross))

    @property
    def _n(self) -> int:
        return sum(len(panel.block) for panel in self.panels)

    def _checked(self, values: Array) -> Array:
        return jnp.where(self.valid, values, jnp.nan)


def factorise(
    panel_of: PanelOf,
    source: Any,
    diagonal: Float[Array, " n"],
    error: Array | float = 0.0,
    counts: Bool[Array, " n"] | None = None,
    extent: Extent = None,
) -> Factor:
    """The factor of the matrix A with the diagonal `diagonal` and the panels `panel_of(source, ...)`; `source` are small
    arrays, from which panels are computed when they are needed.

    The factor is not valid if a pivot is no larger than `error`, that of A, or than the roundoff of the factorisation, eps
    times the trace (over the rows that `counts` marks), because such a factor solves a different system. From row `extent` on,
    A must be diagonal."""
    n = len(diagonal)
    width = -(-n // (1 if n <= LARGE else min(-(-n // _COLUMNS), _PANELS)))

    def of(size: int):
        def found(source, diagonal):
            panels: list[Panel] = []
            for first in range(0, n, width):
                panels.append(_panel(panel_of, source, diagonal, panels, first, min(first + width, n), size))
            return tuple(panels)

        return found

    panels = at_extent(extent, n, of, source, diagonal)
    trace = jnp.sum(diagonal if counts is None else jnp.where(counts, diagonal, 0.0))
    floor = jnp.maximum(jnp.finfo(diagonal.dtype).eps * trace, error)
    return Factor(panels, extent, jnp.min(_diagonal(panels) ** 2) > floor)


def factorise_matrix(
    matrix: Float[Array, "n n"],
    error: Array | float = 0.0,
    counts: Bool[Array, " n"] | None = None,
    extent: Extent = None,
) -> Factor:
    """`factorise` for a matrix in memory."""
    panel_of = lambda source, first, last, size: matrix[first:size, first:last]
    return factorise(panel_of, None, jnp.diagonal(matrix), error, counts, extent)


def _panel(
    panel_of: PanelOf,
    source: Any,
    diagonal: Float[Array, " n"],
    earlier: Sequence[Panel],
    first: int,
    last: int,
    size: int,
) -> Panel:
    """The columns first to last of the factor of a matrix that is diagonal from row `size` on."""
    stop = min(max(size, first), last)
    block, below = jnp.zeros((0, 0), diagonal.dtype), jnp.zeros((0, last - first), diagonal.dtype)
    if first < stop:
        panel, end, width = panel_of(_after(source, earlier), first, stop, size), 0, stop - first
        for other in earlier:
            end += len(other.block)
            rows = other.below[first - end : size - end]
            panel = panel - rows @ rows[:width].T
        block = jnp.linalg.cholesky(panel[:width])
        if stop < size:
            sides = {"left_side": False, "lower": True, "transpose_a": True}
            below = jax.lax.linalg.triangular_solve(block, panel[width:], **sides)
    if stop < last:
        block = jsl.block_diag(block, jnp.diag(jnp.sqrt(diagonal[stop:last])))
    return Panel(block, jnp.pad(below, ((0, len(diagonal) - last - len(below)), (0, 0))))


def _cut(panels: Sequence[Panel], size: int) -> list[Panel]:
    """The panels of the first `size` rows."""
    cut, rows = [], size
    for block, below in panels:
        if rows > 0:
            cut.append(Panel(block[:rows, :rows], below[: max(rows - len(block), 0), :rows]))
        rows -= len(block)
    return cut


def _diagonal(panels: Sequence[Panel]) -> Float[Array, " n"]:
    return jnp.concatenate([jnp.diagonal(panel.block) for panel in panels])


def _forward(panels: Sequence[Panel], b: Float[Array, "n k"]) -> list[Float[Array, "_ k"]]:
    """L^{-1} b, in blocks of rows."""
    found = []
    for block, below in panels:
        found.append(jsl.solve_triangular(block, b[: len(block)], lower=True))
        b = b[len(block) :] - below @ found[-1]
    return found


def _squares(parts: Sequence[Float[Array, "_ k"]]) -> Float[Array, " k"]:
    """The sums of squares of the columns of a matrix in blocks of rows."""
    first, *rest = (jnp.sum(part**2, axis=0) for part in parts)
    return sum(rest, first)


def _after(values: Any, done: Sequence) -> Any:
    """`values` as they are, but not before `done` is computed. Without this, XLA may compute all panels of A, or of L^{-1},
    at once, and hold them in memory. (`jax.lax.optimization_barrier` has no effect on the order on CPUs.)"""
    if not done:
        return values
    zero = 0.0 * jax.tree.leaves(done)[-1].ravel()[0]
    return jax.tree.map(lambda value: value + zero, values)
