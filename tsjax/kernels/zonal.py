r"""Spectra of kernels on the sphere S^{d-1}, d >= 2.

A kernel that depends only on the angle of two unit vectors, k(u) with u = <x, x'>, expands in Gegenbauer polynomials
P_k (normalised to P_k(1) = 1; Legendre polynomials for d = 3):

    k(u) = sum_k lambda_k N(d,k) P_k(u),     lambda_k = E[k(U) P_k(U)],     U = <x, x'> for x, x' uniform,

where lambda_k are the eigenvalues of the kernel's integral operator under the uniform law and N(d,k) their
multiplicities (Atkinson & Han 2012, "Spherical Harmonics and Approximations on the Unit Sphere", theorem 2.22).
This is float64 arithmetic of NumPy, outside of JAX's graphs.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array

from ..precision import requires_float64

_NODES = 1200
# Roundoff of the quadrature in lambda_k, as a multiple of eps trace / sqrt(N(d,k)): measured up to 200 for d = 2, where
# the nodes at the poles weigh most, and up to 10 for d >= 3.
_NOISE = 256
# Beyond this, the roundoff of lambda_k N(d,k) could exceed 2e-6 of the trace.
_LARGEST_MULTIPLICITY = 1e15


@dataclasses.dataclass(frozen=True, eq=False)
class ZonalSpectrum:
    """The eigenvalues of a zonal kernel on S^{d-1} by degree k = 0, 1, ..., K.

    - `d`: the dimension of the space around the sphere.
    - `eigenvalues`: lambda_k, shape (K+1,); >= 0.
    - `multiplicities`: N(d,k) as floats, shape (K+1,).
    - `trace`: k(1) = sum_k lambda_k N(d,k) over all degrees.
    - `tail`: the part of the trace in degrees above K, >= 0. Those eigenvalues are small and many: for n points with n
      well below N(d,K) their part of the kernel matrix is `tail` times the identity, an extra ridge.
    """

    d: int
    eigenvalues: np.ndarray
    multiplicities: np.ndarray
    trace: float
    tail: float

    def scaled(self, factor: float) -> "ZonalSpectrum":
        """The spectrum of `factor` times the kernel."""
        return dataclasses.replace(
            self, eigenvalues=factor * self.eigenvalues, trace=factor * self.trace, tail=factor * self.tail
        )


@requires_float64
def gegenbauer(kernel: Callable[[Array, Array], Array], d: int, degrees: int = 200) -> ZonalSpectrum:
    """The spectrum of a kernel under the uniform law on S^{d-1} (module docstring).

    By Gauss-Legendre quadrature with 1200 nodes in the angle, in which the kernels of this package are analytic.
    Degrees with more than 1e15 harmonics are left to the tail, since their eigenvalues drown in roundoff (they also lie
    far beyond any sample size).

    **Arguments:**

    - `kernel`: any kernel, or function of x1 (n1, d), x2 (n2, d) with values (n1, n2), that is zonal on the sphere.
    - `d`: dimension, at least 2.
    - `degrees`: the largest degree K, from 0 to 400.

    **Raises:** ValueError for d < 2, degrees out of range, or a kernel that is not zonal.
    """
    if d < 2:
        raise ValueError(f"zonal spectra need the dimension d to be at least 2, got d={d}.")
    if not 0 <= degrees <= 400:
        raise ValueError(f"degrees can be from 0 to 400 ({_NODES} quadrature nodes resolve no more), got {degrees}.")
    theta, weights = _nodes(d)
    values = _profile(kernel, d, theta)
    with jax.ensure_compile_time_eval():
        north = jnp.asarray(np.eye(1, d))
        trace = float(np.asarray(kernel(north, north))[0, 0])
    multiplicities = _multiplicities(d, degrees)
    multiplicities = multiplicities[multiplicities <= _LARGEST_MULTIPLICITY]
    polynomials = gegenbauer_polynomials(d, len(multiplicities) - 1, np.cos(theta))
    eigenvalues = polynomials @ (weights * values)
    # Below the noise of the quadrature a number means nothing, and N(d,k) would blow it up.
    noise = _NOISE * np.finfo(float).eps * trace / np.sqrt(multiplicities)
    eigenvalues = np.where(eigenvalues > noise, eigenvalues, 0.0)
    tail = max(trace - float(eigenvalues @ multiplicities), 0.0)
    return ZonalSpectrum(d=d, eigenvalues=eigenvalues, multiplicities=multiplicities, trace=trace, tail=tail)


def gegenbauer_polynomials(d: int, degrees: int, u: np.ndarray) -> np.ndarray:
    """P_0, ..., P_K of dimension d at the points u in [-1, 1] of shape (q,): shape (K+1, q).

    By (k+d-2) P_{k+1} = (2k+d-2) u P_k - k P_{k-1}, which is stable for P_k(1) = 1 (|P_k| <= 1).
    """
    values = [np.ones_like(u), u]
    for k in range(1, degrees):
        values.append(((2 * k + d - 2) * u * values[k] - k * values[k - 1]) / (k + d - 2))
    return np.stack(values[: degrees + 1])


@functools.lru_cache(maxsize=16)
def _nodes(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles and the probability weights of <x, x'> = cos(angle), whose density is proportional to sin^{d-2}."""
    nodes, weights = scipy.special.roots_legendre(_NODES)
    theta = 0.5 * np.pi * (nodes + 1.0)
    weights = weights * np.sin(theta) ** (d - 2)
    return theta, weights / weights.sum()


def _multiplicities(d: int, degrees: int) -> np.ndarray:
    """N(d,k) = (2k+d-2) (k+d-3)! / (k! (d-2)!), and N(d,0) = 1."""
    k = np.arange(1, degrees + 1, dtype=float)
    gammaln = scipy.special.gammaln
    log = np.log(2 * k + d - 2) + gammaln(k + d - 2) - gammaln(k + 1) - gammaln(d - 1)
    with np.errstate(over="ignore"):
        return np.concatenate([[1.0], np.exp(log)])


def _profile(kernel: Callable[[Array, Array], Array], d: int, theta: np.ndarray) -> np.ndarray:
    """k at pairs of unit vectors with the given angles, after a check that nothing but the angle matters."""
    # A fixed second plane, in general position, shows up kernels that prefer a direction.
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(d, 2)))[0].T
    values = []
    for e in (np.eye(2, d), basis):
        circle = np.cos(theta)[:, None] * e[0] + np.sin(theta)[:, None] * e[1]
        with jax.ensure_compile_time_eval():
            values.append(np.asarray(kernel(jnp.asarray(e[:1]), jnp.asarray(circle)))[0])
    difference = np.max(np.abs(values[0] - values[1]))
    if not difference <= 1e-6 * np.max(np.abs(values[0])):
        raise ValueError(
            f"this kernel is not zonal on the sphere: at equal angles it differs by up to {difference:.3g}. "
            "Spectra by degree exist for kernels invariant under rotations only."
        )
    return values[0]
