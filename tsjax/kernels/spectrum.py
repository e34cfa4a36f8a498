"""Spectra of kernels under any law of the inputs."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..precision import requires_float64


class Spectrum(eqx.Module):
    """The eigenvalues of a kernel's integral operator, or the mean squared coefficients of a function on its eigenfunctions.

    - `eigenvalues`: lambda_k, shape (K,); >= 0.
    - `multiplicities`: how many eigenfunctions have each of them, as floats, shape (K,).
    - `trace`: the mean of k(x, x), that is sum_k lambda_k multiplicities_k over all eigenvalues.
    - `tail`: the part of the trace in eigenvalues that are not in `eigenvalues`, >= 0. These are small and many. As long as
      their number is far larger than n, their part of the kernel matrix of n points is about `tail` times the identity, which
      acts as an additional ridge.
    """

    eigenvalues: Float[Array, " values"]
    multiplicities: Float[Array, " values"]
    trace: Float[Array, ""]
    tail: Float[Array, ""]

    @classmethod
    @requires_float64
    def of(cls, eigenvalues: Float[Array, " values"], tail=0.0) -> "Spectrum":
        """A spectrum of eigenvalues of multiplicity 1, with `tail` as the sum of all other eigenvalues.

        >>> float(ts.kernels.Spectrum.of(jnp.array([1.0, 0.25]), tail=0.5).trace)
        1.75
        """
        eigenvalues, tail = jnp.asarray(eigenvalues, jnp.float64), jnp.asarray(tail, jnp.float64)
        return Spectrum(eigenvalues, jnp.ones_like(eigenvalues), jnp.sum(eigenvalues) + tail, tail)
