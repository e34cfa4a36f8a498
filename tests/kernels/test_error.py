"""`AbstractKernel.error` is compared with the differences from more accurate kernels."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

from tsjax.kernels import RBF, ArcCosineNTK, DotProduct, Matern, Polynomial, ReLUFeatures, fast, ntk


def point_sets(rng):
    """Equal pairs, ordinary points, points on one line, and points at three small distances of each other."""
    centre = rng.normal(size=3)
    sets = [np.repeat(rng.normal(size=(10, 3)), 2, axis=0), rng.normal(size=(20, 3)), rng.normal(size=(20, 1)) * centre]
    return sets + [centre + size * rng.normal(size=(20, 3)) for size in (1e-2, 1e-5, 1e-9)]


@pytest.mark.parametrize(("depth", "bias_std"), [(1, 0.0), (2, 0.7), (5, 0.0)])
def test_the_error_of_neural_tangents_is_known(depth, bias_std):
    """The estimate is above every error. The largest error of ten sets of a kind is at least a hundredth of it: one set may
    happen to round to the exact value, and the instructions of a processor decide which set does."""
    rng = np.random.default_rng(SEED)
    theirs, ours, weight = ntk(depth, bias_std), ArcCosineNTK(depth, bias_std), jnp.asarray(rng.uniform(0.0, 2.0, 20))
    estimate, difference = jax.jit(theirs.error), jax.jit(lambda x: theirs(x) - ours(x))
    kinds = [[jnp.asarray(x) for x in kind] for kind in zip(*(point_sets(rng) for _ in range(10)), strict=True)]
    for kind in kinds:
        for w in (jnp.ones(20), weight):
            ratios = [
                np.linalg.norm(w[:, None] * np.asarray(difference(x)) * w[None, :]) / float(estimate(x, w))
                for x in kind
            ]
            assert 0.01 < max(ratios) <= 1.0
    # A hundred thousand times as much for close points as for others.
    assert float(estimate(kinds[5][0], weight)) > 1e5 * float(estimate(kinds[1][0], weight))


@pytest.mark.parametrize(("depth", "bias_std"), [(1, 0.0), (3, 0.7)])
def test_the_error_of_many_rows_is_summed_in_blocks(monkeypatch, key, depth, bias_std):
    x, weight = jr.normal(key, (37, 3)), jr.uniform(key, (37,))
    kernel = ntk(depth, bias_std)
    whole = [float(kernel.error(x)), float(kernel.error(x, weight))]
    monkeypatch.setattr(fast, "_ROWS", 10)
    np.testing.assert_allclose([float(kernel.error(x)), float(kernel.error(x, weight))], whole, rtol=1e-6)
    # The first rows alone have another error.
    assert float(kernel.error(x[:20])) < 0.9 * whole[0]


@pytest.mark.parametrize(
    "kernel",
    [
        RBF(0.7),
        Polynomial(3, offset=0.5),
        Polynomial(24, offset=0.5),
        DotProduct(0.5 ** np.arange(40)),
        ArcCosineNTK(3),
        ReLUFeatures.sample(jr.key(1), 30, 4),
        0.5 * RBF(1.3) * Polynomial(2) + Matern(0.9),
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_the_error_of_other_kernels_is_roundoff(key, kernel):
    """The error of float32 is the difference from float64."""
    single = jr.normal(key, (12, 4), jnp.float32)
    single = jnp.concatenate([single, single[:3] * 1.001, single[:2]])
    error = np.linalg.norm(np.asarray(kernel(single), np.float64) - np.asarray(kernel(single.astype(jnp.float64))))
    assert 0.0 < error <= float(kernel.error(single)) < 1000 * error
