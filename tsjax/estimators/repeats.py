"""Rows with weights, and rows that repeat, as in bootstrap samples: how criteria count them.

If a criterion left out only one of two equal rows, the fit would still see the other, and an interpolated response would pass
for a predicted one. So groups of equal rows are left out together. All criteria see each distinct row x_g once, with the sum
m_g of the weights of its copies (their number, if there are no weights) and their weighted mean response ybar_g. For ridge
regression this loses nothing, since

    sum_i w_i (y_i - f(x_i))^2 + ridge |f|^2 = sum_g m_g (ybar_g - f(x_g))^2 + ridge |f|^2 + sum_i w_i (y_i - ybar_g(i))^2,

which is ridge regression on the distinct rows with noise variance ridge / m_g. With D = diag(m_g) it is also ridge regression
of D^{1/2} ybar with the kernel matrix D^{1/2} K D^{1/2}. A row of weight w thus acts like w copies of it. (The last sum, the
scatter within groups, measures the noise only if copies were measured anew; in a bootstrap sample it is 0. No criterion relies
on it.)

Shapes must not depend on data inside `jit`, so the matrices keep a row and a column for every row of the data. The first row of
each group stands for the group, with the root sqrt(m_g). All other rows of the group, and rows of weight 0, have the root 0:
their rows and columns are zero, except for a chosen number on the diagonal that keeps them apart from the others. If no row
repeats and there are no weights, all roots are 1 and nothing changes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from ..task import Dataset
from .leading import Extent


class Sample(NamedTuple):
    """A data set in float64, with its responses as columns. `weight` is None if there are no weights."""

    x: Float[Array, "n *point"]
    y: Float[Array, "n k"]
    weight: Float[Array, " n"] | None

    @property
    def present(self) -> Bool[Array, " n"]:
        """Marks the rows of weight > 0."""
        return jnp.ones(self.y.shape[0], bool) if self.weight is None else self.weight > 0

    @property
    def extent(self) -> Extent:
        """The number of rows up to the last one that is present; None if there are no weights."""
        if self.weight is None:
            return None
        return jnp.max(jnp.where(self.present, jnp.arange(1, len(self.weight) + 1), 1))

    @property
    def n(self) -> Float[Array, ""]:
        """The number of rows that are present."""
        return jnp.sum(self.present, dtype=jnp.float64)

    def mean(self, values: Float[Array, "n *p"]) -> Float[Array, "*p"]:
        """The weighted mean along the first axis."""
        if self.weight is None:
            return jnp.mean(values, axis=0)
        # A NaN at a row of weight 0 must not make the mean NaN.
        counted = jnp.where(self.present.reshape(-1, *(1,) * (values.ndim - 1)), values, 0.0)
        return jnp.tensordot(self.weight, counted, 1) / jnp.sum(self.weight)


def sample_of(data: Dataset) -> Sample:
    """The data as a `Sample`. Rows of weight 0 become copies of a row that is present, so that their values have no effect."""
    x, y = data.x.astype(jnp.float64), data.y.astype(jnp.float64)
    y = y[:, None] if y.ndim == 1 else y
    if data.weight is None:
        return Sample(x, y, None)
    weight = data.weight.astype(jnp.float64)
    present = weight > 0
    some = jnp.argmax(present)
    there = present.reshape(-1, *(1,) * (x.ndim - 1))
    return Sample(jnp.where(there, x, x[some][None]), jnp.where(present[:, None], y, y[some][None]), weight)


def shaped(values: Float[Array, "n k"], data: Dataset) -> Array:
    """The values with as many axes as the responses of the data: (n,) if these are (n,), else (n, k)."""
    return values[:, 0] if data.y.ndim == 1 else values


class Distinct(NamedTuple):
    """The distinct rows among n rows (module docstring)."""

    root: Float[Array, " n"]
    """sqrt(m_g) at the first row of each group, 0 at the others."""
    mean: Float[Array, "n k"]
    """ybar_g at each row of the group."""
    groups: Float[Array, ""]
    """The number of groups."""
    scatter: Float[Array, ""]
    """The weighted mean of |y_i - ybar_g(i)|^2 over all rows."""
    n: Float[Array, ""]
    """The number of rows of weight > 0."""
    total: Float[Array, ""]
    """The sum of the weights."""
    extent: Extent
    """The number of rows up to the last of weight > 0."""

    @property
    def first(self) -> Bool[Array, " n"]:
        return self.root > 0

    @property
    def y(self) -> Float[Array, "n k"]:
        """sqrt(m_g) ybar_g at the first row of each group, 0 at the others."""
        return self.root[:, None] * self.mean

    @property
    def others(self) -> Float[Array, ""]:
        """The number of rows that stand for no group."""
        return self.root.shape[0] - self.groups

    def trace(self, gram: Float[Array, "n n"]) -> Float[Array, ""]:
        """trace(D^{1/2} K D^{1/2})."""
        return jnp.trace(gram * self.root[:, None] ** 2)

    def gram(self, gram: Float[Array, "n n"], fill) -> Float[Array, "n n"]:
        """D^{1/2} K D^{1/2}, with the number `fill` on the diagonal at rows that stand for no group."""
        scaled = gram * self.root[:, None] * self.root[None, :]
        return scaled + jnp.diag(jnp.where(self.first, 0.0, fill))

    def block(self, rows: Float[Array, "r c"], first: int, diagonal: Float[Array, " n"]) -> Float[Array, "r c"]:
        """The block of D^{1/2} K D^{1/2} for a block `rows` of K whose first entry is on the diagonal, at `first`. The entries
        of `diagonal` replace those on the diagonal."""
        count, width = rows.shape
        roots = self.root[first : first + count, None] * self.root[None, first : first + width]
        return jnp.fill_diagonal(rows * roots, diagonal[first : first + width], inplace=False)

    def gcv(self, squared_residuals, unexplained):
        """The GCV score (sum_g m_g r_g^2 / W) / (mean_g (1 - h_g))^2 + scatter, with W the sum of the weights.
        `squared_residuals` is sum_g m_g r_g^2, and `unexplained` is sum_g (1 - h_g), h_g the leverage of group g; a common
        factor of r_g and 1 - h_g cancels."""
        return self.groups * squared_residuals / unexplained**2 * (self.groups / self.total) + self.scatter


def distinct(sample: Sample) -> Distinct:
    """The distinct rows among those of weight > 0."""
    x, y, weight = sample
    n = x.shape[0]
    first = first_of_equals(x)
    count = total = jnp.asarray(n, jnp.float64)
    if weight is None:
        weight = jnp.ones(n)
    else:
        # The first row that is present. In a group without such a row any row will do, since all of its weights are 0.
        place = jax.ops.segment_min(jnp.where(weight > 0, jnp.arange(n), n), first, n)
        first = jnp.minimum(place[first], n - 1)
        count, total = sample.n, jnp.sum(weight)
    copies = jax.ops.segment_sum(weight, first, n)
    mean = jax.ops.segment_sum(weight[:, None] * y, first, n) / jnp.where(copies > 0, copies, 1.0)[:, None]
    mean = mean[first]
    groups = jnp.sum(copies > 0, dtype=jnp.float64)
    scatter = jnp.sum(weight * jnp.sum((y - mean) ** 2, axis=1)) / total
    return Distinct(jnp.sqrt(copies), mean, groups, scatter, count, total, sample.extent)


def first_of_equals(x: Float[Array, "n *point"]) -> Int[Array, " n"]:
    """For each row of x the index of the first row that is equal to it. It takes O(n log n + n d) time: rows are sorted by
    their hashes, and neighbours in this order are then compared themselves."""
    n = x.shape[0]
    x = x.reshape(n, -1)
    # -0 is equal to 0 but has other bits.
    x = jnp.where(x == 0, 0.0, x)
    keys = _hash(x)
    order = jax.lax.sort((*keys, jnp.arange(n)), num_keys=2, is_stable=True)[-1]
    ordered = x[order]
    new = jnp.concatenate([jnp.ones(1, bool), jnp.any(ordered[1:] != ordered[:-1], axis=1)])
    start = jax.lax.cummax(jnp.where(new, jnp.arange(n), 0))
    return jnp.zeros(n, order.dtype).at[order].set(order[start], unique_indices=True)


def _hash(x: Float[Array, "n d"]) -> tuple[UInt32[Array, " n"], UInt32[Array, " n"]]:
    """Two hashes of each row from all bits of its numbers: sums of the mixed words of its columns. The words are integers, so
    the order of summation does not matter. float64 is split into float32 numbers, since not all accelerators can show the bits
    of float64."""
    # Division by a power of 2 is exact, and brings the numbers into the range of float32.
    words, rest = [], x / power_of_two(jnp.max(jnp.abs(x), axis=0))[None]
    for _ in range(3):
        words.append(rest.astype(jnp.float32))
        rest = rest - words[-1].astype(x.dtype)
    bits = jnp.stack([jax.lax.bitcast_convert_type(word, jnp.uint32) for word in words], axis=1)
    # Fixed odd numbers, one for each column and word.
    salt = np.random.default_rng(0).integers(0, 2**32, (2, *bits.shape[1:]), dtype=np.uint32) | np.uint32(1)
    one, other = (jnp.sum(_mixed(bits + row[None]), axis=(1, 2), dtype=jnp.uint32) for row in jnp.asarray(salt))
    return one, other


def power_of_two(largest: Float[Array, "*d"]) -> Float[Array, "*d"]:
    """The smallest power of 2 above each number, and 1 for 0. Division by it is exact."""
    return jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1])


def _mixed(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finaliser of MurmurHash3: each bit of the input changes about half of the bits of the output."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
    return bits ^ (bits >> np.uint32(16))


def count_distinct(x) -> int:
    """The number of distinct rows of a concrete x (n, *point)."""
    rows = np.ascontiguousarray(np.asarray(x) + 0.0).reshape(len(x), -1)
    return len(np.unique(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))))
