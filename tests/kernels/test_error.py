"""`AbstractKernel.error` is compared with the differences from more accurate kernels."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

from tsjax.kernels import RBF, ArcCosineNTK, DotProduct, Matern, Polynomial, ReLUFeatures, ntk


@pytest.mark.parametrize(
    ("depth", "bias_std", "most"),
    [
        # Code without optimisation, as in default tests, happens to round less.
        *((depth, bias, np.inf) for depth, bias in ((1, 0.0), (2, 0.7), (5, 0.0))),
        *(pytest.param(depth, bias, 100.0, marks=pytest.mark.slow) for depth, bias in ((1, 0.0), (2, 0.7), (5, 0.0))),
    ],
)
def test_the_error_of_neural_tangents_is_known(depth, bias_std, most):
    """The estimate is above the error, but by no more than two orders of magnitude, at ordinary and at small angles."""
    rng = np.random.default_rng(SEED)
    centre = rng.normal(size=3)
    sets = [np.repeat(rng.normal(size=(10, 3)), 2, axis=0), rng.normal(size=(20, 3)), rng.normal(size=(20, 1)) * centre]
    sets += [centre + size * rng.normal(size=(20, 3)) for size in (1e-2, 1e-5, 1e-9)]
    theirs, ours, weight = ntk(depth, bias_std), ArcCosineNTK(depth, bias_std), jnp.asarray(rng.uniform(0.0, 2.0, 20))
    estimate = jax.jit(theirs.error)
    for x in map(jnp.asarray, sets):
        difference = np.asarray(theirs(x) - ours(x))
        for w in (jnp.ones(20), weight):
            error = np.linalg.norm(w[:, None] * difference * w[None, :])
            assert error <= float(estimate(x, w)) < most * error
    # A hundred thousand times as much for close points as for others.
    assert float(estimate(jnp.asarray(sets[5]), weight)) > 1e5 * float(estimate(jnp.asarray(sets[1]), weight))


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
