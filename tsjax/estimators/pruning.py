r"""Pruning a two-layer network by backward elimination, from the training data alone.

A network with more neurons than its teacher reaches the teacher's basin almost surely, but its spare parameters raise its
risk. The spare neurons share their directions with others, or hardly contribute. Pruning removes them one by one, and the
remaining neurons compensate.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int

from ..losses import squared, weighted_mean
from ..network import TwoLayer, absorb_output_weights
from ..optim import Descent
from ..task import Dataset
from ..train import FullBatch, train
from .phases import (
    descent_step_size,
    objective_in_phase_two,
    parameters_per_neuron,
    row_count,
    step_scale,
    trained_in_phase_two,
)

# Gradient steps after each removal: enough for the remaining neurons to compensate for most of it; phase II does the rest.
REFIT_STEPS = 25
# The jitter of the Gram matrix, relative to the mean squared feature. Two parallel neurons make the matrix singular; with the
# jitter they share their weight.
_JITTER = 1e-5


def information_criterion(loss, parameters, n):
    r"""Schwarz's criterion per sample, log L + p log(n) / n, of a network of p free parameters (Schwarz 1978).

    Its first term is -2/n times the log-likelihood under Gaussian noise of unknown variance, up to a constant; the second is
    the penalty. Smaller is better. The criterion is infinite if p > n / 2, because a network that nearly interpolates has a
    small loss at any size, which is no evidence for that size.
    """
    return jnp.where(parameters <= n / 2, jnp.log(loss) + parameters * jnp.log(n) / n, jnp.inf)


class _Candidate(eqx.Module):
    net: TwoLayer
    alive: Float[Array, " m"]
    width: Int[Array, ""]
    score: Float[Array, ""]


def prune(net: TwoLayer, data: Dataset, width: int | None) -> tuple[TwoLayer, Int[Array, ""], Int[Array, ""]]:
    r"""Removes neurons one at a time, down to `width`, or if that is None, down to the width that minimises
    `information_criterion`.

    With features phi_j = phi(<w_j, x>), Gram matrix H = Phi Phi^T / n and least-squares output weights c = H^{-1} Phi y / n,
    removing neuron j and refitting all other output weights raises L by c_j^2 / (2 (H^{-1})_{jj}) (the optimal brain
    surgeon of Hassibi & Stork 1992, exact here because the loss is quadratic in c). The neuron with the smallest increase is
    removed, and 25 gradient steps on the remaining neurons follow.

    **Returns:** the network, the number of neurons alive, and the number of gradient steps done. The network has `width`
    neurons; if `width` is None it has as many as before, and the removed ones have a_j = 0 and w_j = 0.
    """
    start, n, dtype = net.w.shape[0], row_count(data), net.w.dtype
    s2 = step_scale(data.x.T, net.activation, data.weight)
    lowest = 1 if width is None else width
    loss_of = squared.on(data)

    def moments(features, others):
        """The mean of phi times `others` over the samples, with the weights of the loss."""
        if data.weight is None:
            return jnp.matmul(features, others, precision="highest") / n
        return jnp.matmul(features * data.weight[None, :], others, precision="highest") / jnp.sum(data.weight)

    # Losses below the size of squared rounding errors count as equal.
    rounding = (100 * jnp.finfo(dtype).eps) ** 2 * weighted_mean(data.y**2, data.weight)

    def score(loss, size):
        return information_criterion(loss + rounding, size * parameters_per_neuron(net), n).astype(dtype)

    def refit(net: TwoLayer, size) -> TwoLayer:
        step_size = descent_step_size(size, s2).astype(dtype)
        return train(
            jr.key(0), net, objective_in_phase_two(net), FullBatch(data), Descent(step_size), steps=REFIT_STEPS,
            trainable=trained_in_phase_two(net),
        ).model  # fmt: skip

    def remove_one(i, carry: tuple[_Candidate, _Candidate]):
        current, best = carry
        alive = current.alive
        # The output of each neuron before its output weight.
        features = current.net.features(data.x.T) * alive[:, None]
        gram = moments(features, features.T)
        jitter = _JITTER * jnp.trace(gram) / jnp.sum(alive)
        gram = gram + jnp.diag(jnp.where(alive > 0, jitter + jnp.finfo(dtype).tiny, 1))
        inverse = jnp.linalg.inv(gram)
        c = jnp.matmul(inverse, moments(features, data.y), precision="highest")
        increase = jnp.where(alive > 0, c * c / (2 * jnp.diag(inverse)), jnp.inf)
        removed = jnp.argmin(increase)
        alive = alive.at[removed].set(0)
        c = (c - inverse[:, removed] * c[removed] / inverse[removed, removed]) * alive
        net = absorb_output_weights(eqx.tree_at(lambda net: net.a, current.net, c))
        net = eqx.tree_at(lambda net: (net.a, net.w), net, (net.a * alive, net.w * alive[:, None]))
        size = jnp.asarray(start - 1 - i, jnp.int32)
        net = refit(net, size)
        current = _Candidate(net, alive, size, score(loss_of(net, None), size))
        better = current.score <= best.score if width is None else True
        return current, jax.tree.map(lambda new, old: jnp.where(better, new, old), current, best)

    first = _Candidate(net, jnp.ones(start, dtype), jnp.asarray(start, jnp.int32), score(loss_of(net, None), start))
    _, best = jax.lax.fori_loop(0, start - lowest, remove_one, (first, first))
    net = best.net
    if width is not None:
        kept = jnp.argsort(-best.alive, stable=True)[:width]
        net = eqx.tree_at(lambda net: (net.a, net.w), net, (net.a[kept], net.w[kept]))
    return net, best.width, jnp.asarray((start - lowest) * REFIT_STEPS, jnp.int32)
