"""The preconditioner of `tsjax.IterativeRidge`: P = F F^T + shift I with a randomly pivoted partial Cholesky factor F (n, rank)
of K (Chen, Epperly, Tropp & Webber 2023, arXiv:2207.06503, in its block form), used as in Diaz, Epperly, Frangella, Tropp &
Webber 2023, arXiv:2304.12465 (their RPCholesky preconditioning). By the Woodbury formula
shift P^{-1} = I - F (shift I + F^T F)^{-1} F^T. It is computed in float64, because the difference cancels down to shift / |K|,
which float32 does not resolve.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..kernels.base import AbstractKernel
from .tiles import WHOLE, Tiles, over_devices, sum_over_devices

_PIVOTS = 256


def pivoted_cholesky(
    kernel: AbstractKernel, tiles: Tiles, key: PRNGKeyArray, rank: int, dtype: str, mesh: Mesh | None = None
) -> tuple[Float[Array, "parts blocks tile pivots"], Int[Array, ""]]:
    """F with F F^T close to D K D, with its columns in groups of pivots, and the number of columns that are not 0
    (arXiv:2207.06503, in blocks).

    The pivots of a group are drawn with probabilities proportional to the diagonal of D K D - F F^T. An eigendecomposition
    leaves out directions in which this matrix is only roundoff, as between duplicates, so F is never NaN.
    """
    blocks, tile, d = tiles.x.shape
    pivots = min(_PIVOTS, rank)
    groups = -(-rank // pivots)
    x, points = tiles.x.astype(dtype), tiles.x.reshape(-1, d).astype(dtype)
    root = tiles.root.reshape(-1)
    diagonal = tiles.diagonal.reshape(-1) * root**2
    floor = 16.0 * pivots**0.5 * jnp.finfo(dtype).eps * jnp.max(diagonal)
    columns = over_devices(
        mesh,
        lambda kernel, x, chosen: jax.lax.map(lambda block: kernel.tile(block, chosen), x),
        (WHOLE, 0, WHOLE),
        0,
    )

    def add(i, state):
        factor, rest = state
        # The indices of the largest values of log p + Gumbel noise are a sample without replacement.
        scores = jnp.log(rest) + jr.gumbel(jr.fold_in(key, i), rest.shape, jnp.float64)
        chosen = jax.lax.top_k(scores, pivots)[1]
        new = columns(kernel, x, points[chosen]).reshape(-1, pivots)
        new = new * root.astype(dtype)[:, None] * root[chosen].astype(dtype)[None, :]
        new = new.at[chosen, jnp.arange(pivots)].set(diagonal[chosen].astype(dtype))
        earlier = lambda j: factor[j].reshape(-1, pivots)
        new = jax.lax.fori_loop(
            0, i, lambda j, new: new - jnp.dot(earlier(j), earlier(j)[chosen].T, precision="highest"), new
        )
        core = new[chosen].astype(jnp.float64)
        values, vectors = jnp.linalg.eigh(0.5 * (core + core.T))
        # The last group keeps only as many of its leading columns as `rank` asks for.
        kept = (values > floor) & (jnp.arange(pivots) >= pivots - (rank - i * pivots))
        whiten = vectors * jnp.where(kept, 1.0 / jnp.sqrt(jnp.where(kept, values, 1.0)), 0.0)[None, :]
        new = jnp.dot(new, whiten.astype(dtype), precision="highest")
        rest = jnp.maximum(rest - jnp.sum(new.astype(jnp.float64) ** 2, axis=1), 0.0).at[chosen].set(0.0)
        return factor.at[i].set(new.reshape(blocks, tile, pivots)), rest

    factor = jnp.zeros((groups, blocks, tile, pivots), dtype)
    if mesh is not None:
        spec = PartitionSpec(None, mesh.axis_names[0])
        factor = jax.lax.with_sharding_constraint(factor, NamedSharding(mesh, spec))
    factor = jax.lax.fori_loop(0, groups, add, (factor, diagonal))[0]
    return factor, jnp.sum(jnp.any(factor != 0, axis=(1, 2)))


class Preconditioner(NamedTuple):
    """shift P^{-1} for P = F F^T + shift I."""

    factor: Float[Array, "groups blocks tile pivots"]
    lower: Float[Array, "rank rank"]
    """Cholesky's factor of F^T F + shift I."""

    def __call__(self, mesh: Mesh | None, v: Float[Array, "blocks tile"]) -> Float[Array, "blocks tile"]:
        def part(factor, lower, v):
            groups, blocks, _, pivots = factor.shape
            inner = jsl.cho_solve((lower, True), sum_over_devices(mesh, project(factor, v[:, :, None]))[:, 0])
            inner = inner.reshape(groups, pivots)
            lift = lambda k: v[k] - jnp.einsum("gtp,gp->t", block_of(factor, k), inner, precision="highest")
            return jax.lax.map(lift, jnp.arange(blocks))

        return over_devices(mesh, part, (1, WHOLE, 0), 0)(self.factor, self.lower, v)


def block_of(factor: Float[Array, "groups blocks tile pivots"], k) -> Float[Array, "groups tile pivots"]:
    """The rows of block k of F, in float64."""
    return jax.lax.dynamic_index_in_dim(factor, k, axis=1, keepdims=False).astype(jnp.float64)


def project(
    factor: Float[Array, "groups blocks tile pivots"], v: Float[Array, "blocks tile k"]
) -> Float[Array, "rank k"]:
    """F^T v over the rows on this device."""
    groups, blocks, _, pivots = factor.shape
    add = lambda k, total: total + jnp.einsum("gtp,to->gpo", block_of(factor, k), v[k], precision="highest")
    return jax.lax.fori_loop(0, blocks, add, jnp.zeros((groups, pivots, v.shape[2]))).reshape(-1, v.shape[2])


def gram_of(factor: Float[Array, "groups blocks tile pivots"], mesh: Mesh | None) -> Float[Array, "rank rank"]:
    """F^T F in float64, computed from the rounded factor. P is then positive definite for any rounding errors of F."""

    def part(factor):
        groups, blocks, tile, pivots = factor.shape

        def add(k, strips):
            f = jnp.swapaxes(block_of(factor, k), 0, 1).reshape(tile, groups * pivots)
            part = lambda g: jnp.dot(f[:, g * pivots : (g + 1) * pivots].T, f[:, g * pivots :], precision="highest")
            return [strip + part(g) for g, strip in enumerate(strips)]

        # The strips hold the blocks on the diagonal and those to the right of it.
        strips = [jnp.zeros((pivots, (groups - g) * pivots)) for g in range(groups)]
        strips = jax.lax.fori_loop(0, blocks, add, strips)
        upper = jnp.triu(jnp.concatenate([jnp.pad(s, ((0, 0), (g * pivots, 0))) for g, s in enumerate(strips)]))
        return sum_over_devices(mesh, upper + jnp.triu(upper, 1).T)

    return over_devices(mesh, part, (1,), WHOLE)(factor)
