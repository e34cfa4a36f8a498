r"""Subspaces of weights: networks between networks, and whole lines, curves and simplexes of networks that are trained at once
(Wortsman et al. 2021, arXiv:2102.10472).

A subspace is a network description like any other, so that a student trains it:
`ts.Student(ts.Subspace(mlp, "line"), ts.subspaces.everywhere(ts.losses.cross_entropy, repulsion=1.0), ...)`.
"""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .losses import AbstractObjective, Objective, check
from .precision import is_traced
from .task import Dataset

Kind = Literal["line", "curve", "simplex"]


def interpolate(a: Any, b: Any, alpha: float | Float[Array, ""]) -> Any:
    """(1 - alpha) a + alpha b for all floating-point arrays of two networks of one structure; the rest is taken from `a`.

    **Raises:** ValueError if the structures or the shapes of the networks differ.

    >>> one, other = (ts.TwoLayer(a=jnp.ones(1) * v, w=jnp.ones((1, 2))) for v in (0.0, 1.0))
    >>> float(ts.interpolate(one, other, 0.25).a[0])
    0.25
    """
    arrays, rest = eqx.partition(a, eqx.is_inexact_array)
    others = eqx.filter(b, eqx.is_inexact_array)
    shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree)]
    if jax.tree.structure(arrays) != jax.tree.structure(others) or shapes(arrays) != shapes(others):
        raise ValueError("networks can be interpolated only if they have the same structure and shapes; these differ.")
    between = lambda one, other: one + jnp.asarray(alpha).astype(one.dtype) * (other - one)
    return eqx.combine(jax.tree.map(between, arrays, others), rest)


class Subspace(eqx.Module):
    """A description of a subspace of the weights of a network, spanned by its corners: networks initialised from independent
    keys.

    **Arguments:**

    - `network`: the description of one network, with `init(key, point)`, or a function (key, point) -> module.
    - `kind`: `"line"` between 2 corners; `"curve"`, the quadratic Bezier curve of 3; or `"simplex"` of `corners` corners.
    - `corners`: the number of corners of a simplex.

    **Raises:** ValueError for another kind, and for a number of corners that does not fit the kind.
    """

    network: Any
    kind: Kind = eqx.field(static=True, default="line")
    corners: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.kind not in ("line", "curve", "simplex"):
            raise ValueError(f"kind must be 'line', 'curve' or 'simplex', got {self.kind!r}.")
        fixed = {"line": 2, "curve": 3}.get(self.kind)
        if fixed is not None and self.corners not in (None, fixed):
            raise ValueError(f"a {self.kind} has {fixed} corners, got corners={self.corners}.")
        if fixed is None and (self.corners is None or self.corners < 2):
            raise ValueError(f"a simplex has at least 2 corners: give corners=..., got {self.corners}.")

    def init(self, key: PRNGKeyArray, point: Any, **options: Any) -> "SubspaceNetwork":
        """The untrained subspace."""
        make = self.network.init if hasattr(self.network, "init") else self.network
        count = {"line": 2, "curve": 3}.get(self.kind, self.corners) or 2
        made = lambda own: make(own, point, **options)
        keys = jr.split(key, count)
        # One after the other: the random draws of a batch of networks take longer to compile than those of one.
        arrays = jax.lax.map(lambda own: eqx.filter(made(own), eqx.is_array), keys)
        shapes = eqx.filter_eval_shape(made, keys[0])
        is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)
        networks = eqx.combine(arrays, eqx.filter(shapes, is_shape, inverse=True))
        return SubspaceNetwork(networks, self.kind, count)


class SubspaceNetwork(eqx.Module):
    """A subspace of weights. Called at a point, it is the network in its middle."""

    networks: Any
    kind: Kind = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def corner(self, index: int) -> Any:
        """One of the networks at the corners."""
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, self.networks)

    def at(self, position: Float[Array, "..."]) -> Any:
        """The network at a position: alpha in [0, 1] for a line or a curve, weights (corners,) that sum to 1 for a simplex."""
        if self.kind == "simplex":
            shares = position
        else:
            t, last = position, self.count - 1
            shares = jnp.stack([math.comb(last, i) * t**i * (1 - t) ** (last - i) for i in range(self.count)])
        mixed = lambda leaf: jnp.tensordot(shares.astype(leaf.dtype), leaf, 1, precision="highest")
        pick = lambda leaf: mixed(leaf) if eqx.is_inexact_array(leaf) else leaf[0] if eqx.is_array(leaf) else leaf
        return jax.tree.map(pick, self.networks)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "..."]:
        """A uniformly random position."""
        if self.kind != "simplex":
            return jr.uniform(key)
        # Exponential numbers over their sum have the law of jax.random.dirichlet, whose rejection loops take seconds to
        # compile.
        drawn = jr.exponential(key, (self.count,))
        return drawn / jnp.sum(drawn)

    def draw_pair(self, key: PRNGKeyArray) -> tuple[Any, Any]:
        """The indices i < j of two random corners. If there are only two, nothing is drawn."""
        first, second = np.triu_indices(self.count, 1)
        if self.count == 2:
            return 0, 1
        chosen = jr.randint(key, (), 0, len(first))
        return jnp.asarray(first)[chosen], jnp.asarray(second)[chosen]

    @property
    def middle(self) -> Any:
        """The network in the middle."""
        return self.at(jnp.full(self.count, 1.0 / self.count) if self.kind == "simplex" else jnp.asarray(0.5))

    def cosine(self, first: Any, second: Any) -> Float[Array, ""]:
        """The cosine of the weights of two corners, taken as vectors."""
        pairs = [
            (leaf[first], leaf[second]) for leaf in jax.tree.leaves(eqx.filter(self.networks, eqx.is_inexact_array))
        ]
        inner = lambda pick: sum(jnp.sum(pick(a, b)) for a, b in pairs)
        norms = jnp.sqrt(inner(lambda a, b: a * a) * inner(lambda a, b: b * b))
        return inner(lambda a, b: a * b) / norms

    def __call__(self, x: Array) -> Array:
        return self.middle(x)


class Everywhere(AbstractObjective):
    """The objective at a random position of the subspace, plus `repulsion` times the squared cosine of the weights of two
    random corners, which keeps them apart (arXiv:2102.10472, algorithm 1 and equation 4). Without a key it is the objective of
    the middle network."""

    objective: Objective
    repulsion: float | Float[Array, ""] = 0.0

    def __check_init__(self):
        if not is_traced(self.repulsion) and not 0.0 <= float(self.repulsion) < float("inf"):
            raise ValueError(f"repulsion must be finite and >= 0, got {self.repulsion}.")

    def __call__(self, model: SubspaceNetwork, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        if key is None:
            return self.objective(model.middle, batch, None)
        key_place, key_pair, own = jr.split(key, 3)
        loss = self.objective(model.at(model.draw(key_place)), batch, own)
        cosine = model.cosine(*model.draw_pair(key_pair))
        return loss + jnp.asarray(self.repulsion).astype(loss.dtype) * cosine**2

    def check(self, outputs: jax.ShapeDtypeStruct, batch: Dataset) -> None:
        check(self.objective, outputs, batch)


def everywhere(objective: Objective, repulsion: float | Float[Array, ""] = 0.0) -> Everywhere:
    """`Everywhere(objective, repulsion)`."""
    return Everywhere(objective, repulsion)
