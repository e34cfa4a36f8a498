"""A kernel that a traced number chooses."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tsjax.kernels import RBF, Laplace, Polynomial, Switch, gegenbauer, ntk, of
from tsjax.networks import CNN

KERNELS = (ntk(), RBF(0.7), 2.0 * Laplace(1.3), Polynomial(3))


@pytest.mark.parametrize("index", range(len(KERNELS)))
def test_it_is_the_chosen_kernel(index):
    x, z = jr.normal(jr.key(0), (5, 3)), jr.normal(jr.key(1), (4, 3))
    weight = jnp.arange(5.0)
    kernel = KERNELS[index]
    for chosen in (Switch(KERNELS, index), Switch(KERNELS, jnp.asarray(index))):
        values = jax.jit(lambda k: (k(x, z), k(x), k.diagonal(x), k.error(x, weight), k.tile(x, z)))(chosen)
        expected = (kernel(x, z), kernel(x), kernel.diagonal(x), kernel.error(x, weight), kernel.tile(x, z))
        for one, other in zip(values, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10)


def test_one_program_serves_all_and_computes_one():
    """The choice stays a choice: a `cond` in the program, not values of all kernels and a selection."""
    x = jr.normal(jr.key(0), (6, 3))
    matrix = jax.jit(lambda index: Switch(KERNELS, index)(x))
    for index, kernel in enumerate(KERNELS):
        np.testing.assert_allclose(matrix(jnp.asarray(index)), kernel(x), rtol=1e-10)
    assert matrix._cache_size() == 1
    assert str(jax.make_jaxpr(lambda index: Switch(KERNELS, index)(x))(0)).count("cond[") == 1


def test_spectra_by_degree():
    """All kernels must be invariant under rotations for the switch to be so."""
    kernel = Switch(KERNELS, jnp.asarray(1))
    assert kernel.rotation_invariant
    found, expected = gegenbauer(kernel, 4, 10), gegenbauer(KERNELS[1], 4, 10)
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-10, atol=1e-15)


def test_what_makes_no_sense_is_refused():
    class Images(RBF):
        @property
        def point_ndim(self):
            return 3

    with pytest.raises(ValueError, match="at least one kernel"):
        Switch((), 0)
    with pytest.raises(ValueError, match="index = 4 is not the place of one of the 4 kernels"):
        Switch(KERNELS, 4)
    with pytest.raises(ValueError, match="if they take the same points"):
        Switch((RBF(), Images()), 0)
    assert Switch((of(CNN((4,), outputs=1), "nngp"), Images()), 0).point_ndim == 3
