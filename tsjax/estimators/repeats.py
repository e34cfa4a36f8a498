r"""Equal rows of x, as bootstrap samples have them: what a fit may learn from copies of one point, and what not.

A criterion that leaves one of two copies out finds the other still there, and takes an interpolated response for a predicted
one. So groups of equal rows are left out together: all criteria see each distinct row x_g once, with the mean response ybar_g
of its m_g copies. For ridge regression nothing is lost by that, since

    sum_i (y_i - f(x_i))^2 + ridge |f|^2 = sum_g m_g (ybar_g - f(x_g))^2 + ridge |f|^2 + sum_i (y_i - ybar_g(i))^2,

which is ridge regression on the distinct rows with noise ridge / m_g, or, with D = diag(m_g), that of D^{1/2} ybar with the
kernel matrix D^{1/2} K D^{1/2}. (The scatter within groups is a measurement of the noise only where copies were measured
anew; in a bootstrap sample it is 0. No criterion relies on it.)

Shapes must not depend on data inside `jit`, so the first row of each group stands for it, with weight sqrt(m_g), and the others
have weight 0: rows and columns of zeros, but for a given number on the diagonal, which separates them from all others. Where no
row repeats all weights are 1, and everything is what it would be without them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32


class Distinct(NamedTuple):
    """The distinct rows of n (module docstring)."""

    weight: Float[Array, " n"]
    """sqrt(m_g) at the first row of each group, 0 at the others."""
    mean: Float[Array, " n"]
    """ybar_g at each row of the group."""
    groups: Float[Array, ""]
    """The number of groups."""
    scatter: Float[Array, ""]
    """The mean of (y_i - ybar_g(i))^2 over all rows."""

    @property
    def first(self) -> Bool[Array, " n"]:
        return self.weight > 0

    @property
    def y(self) -> Float[Array, " n"]:
        """sqrt(m_g) ybar_g at the first row of each group, 0 at the others."""
        return self.weight * self.mean

    @property
    def others(self) -> Float[Array, ""]:
        """The number of rows of weight 0."""
        return self.weight.shape[0] - self.groups

    def gram(self, gram: Float[Array, "n n"], fill) -> Float[Array, "n n"]:
        """D^{1/2} K D^{1/2}, with `fill` on the diagonal at rows of weight 0."""
        scaled = gram * self.weight[:, None] * self.weight[None, :]
        return scaled + jnp.diag(jnp.where(self.first, 0.0, fill))

    def gcv(self, squared_residuals, unexplained):
        """mean_g of squares over the squared mean_g of 1 - h_g, in units of one row; plus the scatter."""
        n = self.weight.shape[0]
        return self.groups * squared_residuals / unexplained**2 * (self.groups / n) + self.scatter


def distinct(x: Float[Array, "n d"], y: Float[Array, " n"], kept: Bool[Array, " n"] | None = None) -> Distinct:
    """The distinct rows of x among those `kept` (all, if None; equal rows are kept or not together)."""
    n = x.shape[0]
    first = first_of_equals(x)
    copies = jax.ops.segment_sum(jnp.ones(n), first, n)
    mean = jax.ops.segment_sum(y, first, n) / jnp.where(copies > 0, copies, 1.0)
    if kept is not None:
        copies = jnp.where(kept, copies, 0.0)
    mean = mean[first]
    return Distinct(jnp.sqrt(copies), mean, jnp.sum(copies > 0, dtype=jnp.float64), jnp.mean((y - mean) ** 2))


def first_of_equals(x: Float[Array, "n d"]) -> Int[Array, " n"]:
    """For each row of x the index of the first row that is equal to it. O(n log n + n d), by sorting hashes of the rows; that
    neighbours in this order are equal is then seen in the rows themselves."""
    n = x.shape[0]
    # -0 is equal to 0, and has other bits.
    x = jnp.where(x == 0, 0.0, x)
    keys = _hash(x)
    order = jax.lax.sort((*keys, jnp.arange(n)), num_keys=2, is_stable=True)[-1]
    ordered = x[order]
    new = jnp.concatenate([jnp.ones(1, bool), jnp.any(ordered[1:] != ordered[:-1], axis=1)])
    start = jax.lax.cummax(jnp.where(new, jnp.arange(n), 0))
    return jnp.zeros(n, order.dtype).at[order].set(order[start], unique_indices=True)


def _hash(x: Float[Array, "n d"]) -> tuple[UInt32[Array, " n"], UInt32[Array, " n"]]:
    """Two hashes of each row, of all bits of its numbers: sums of the columns' mixed words. These are integers, so the order of
    the sum does not matter. float64 is split into float32 numbers, since not all accelerators show the bits of float64."""
    # Into the range of float32, exactly: by a power of 2.
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
    """The power of 2 next above each number, and 1 for 0: division by it is exact."""
    return jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1])


def _mixed(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finaliser of MurmurHash3: every bit of the input changes half of those of the output."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
    return bits ^ (bits >> np.uint32(16))


def count_distinct(x) -> int:
    """The number of distinct rows of a concrete x (n, d)."""
    rows = np.ascontiguousarray(np.asarray(x) + 0.0)
    return len(np.unique(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))))
