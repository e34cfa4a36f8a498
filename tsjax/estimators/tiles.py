"""Products with a kernel matrix that is never stored, tile by tile, on one device or shared out over a mesh of devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from ..kernels.base import AbstractKernel

WHOLE = -1
"""Stands in place of an axis to shard: every device has the whole array."""


class Tiles(NamedTuple):
    """The training inputs in blocks of rows. The last blocks are padded with copies of the last point."""

    x: Float[Array, "blocks tile d"]
    diagonal: Float[Array, "blocks tile"]
    """The true diagonal of K: `AbstractKernel.tile` is least accurate there."""
    root: Float[Array, "blocks tile"]
    """The square roots of the points' weights (1 if there are no weights), and 0 for padding."""


def tiles_of(
    kernel: AbstractKernel, x: Float[Array, "n d"], tile: int, parts: int, weight: Float[Array, " n"] | None = None
) -> Tiles:
    """x in blocks of at most `tile` rows; the number of blocks is a multiple of `parts`."""
    n, d = x.shape
    tile = min(tile, -(-n // parts))
    blocks = -(-n // (tile * parts)) * parts
    padded = x[jnp.minimum(jnp.arange(blocks * tile), n - 1)]
    root = jnp.pad(jnp.ones(n, x.dtype) if weight is None else jnp.sqrt(weight), (0, blocks * tile - n))
    shape = (blocks, tile)
    return Tiles(padded.reshape(*shape, d), kernel.diagonal(padded).reshape(shape), root.reshape(shape))


def over_devices(mesh: Mesh | None, fn: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """`fn` applied to each device's part; `fn` itself if there is no mesh. A specification is the axis to shard, or `WHOLE`."""
    if mesh is None:
        return fn
    spec = lambda axis: PartitionSpec() if axis == WHOLE else PartitionSpec(*[None] * axis, mesh.axis_names[0])
    return jax.shard_map(
        fn,
        mesh=mesh,
        in_specs=jax.tree.map(spec, in_specs),
        out_specs=jax.tree.map(spec, out_specs),
        check_vma=False,
    )


def sum_over_devices(mesh: Mesh | None, value: Array) -> Array:
    return value if mesh is None else jax.lax.psum(value, mesh.axis_names[0])


def kernel_product(
    kernel: AbstractKernel, tiles: Tiles, v: Float[Array, "blocks tile"], dtype: str, mesh: Mesh | None = None
) -> Float[Array, "blocks tile"]:
    """D K D v with D = diag(root), and 0 at the padding. Tiles have the given type; their products are summed in float64."""
    blocks = tiles.x.shape[0]
    pairs = np.stack(np.triu_indices(blocks))
    # Pairs (0, 0) of weight 0 fill up the last share, so that all devices have the same number of pairs.
    missing = -pairs.shape[1] % (1 if mesh is None else mesh.size)
    weights = np.append(np.ones(pairs.shape[1]), np.zeros(missing))
    rows, columns = np.pad(pairs, ((0, 0), (0, missing)))

    def part(kernel, rows, columns, weights, x, diagonal, v):
        eye = jnp.eye(x.shape[1], dtype=bool)

        def add(total, pair):
            i, j, weight = pair
            values = kernel.tile(x[i], x[j])
            values = jnp.where(eye & (i == j), diagonal[i][:, None], values)
            total = total.at[i].add(weight * jnp.dot(values, v[j], precision="highest"))
            mirrored = jnp.where(i == j, 0.0, weight)
            return total.at[j].add(mirrored * jnp.dot(v[i], values, precision="highest")), None

        total = jax.lax.scan(add, jnp.zeros(v.shape, jnp.float64), (rows, columns, weights))[0]
        return sum_over_devices(mesh, total)

    product = over_devices(mesh, part, (WHOLE, 0, 0, 0, WHOLE, WHOLE, WHOLE), WHOLE)
    low = [value.astype(dtype) for value in (tiles.x, tiles.diagonal, tiles.root * v)]
    return tiles.root * product(kernel, jnp.asarray(rows), jnp.asarray(columns), jnp.asarray(weights), *low)
