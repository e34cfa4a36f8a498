r"""Spectra of kernels on the sphere S^{d-1}, d >= 2.

A kernel that depends only on the angle of two unit vectors, k(u) with u = <x, x'>, expands in Gegenbauer polynomials
P_k (normalised to P_k(1) = 1; Legendre polynomials for d = 3):

    k(u) = sum_k lambda_k N(d,k) P_k(u),     lambda_k = E[k(U) P_k(U)],     U = <x, x'> for x, x' uniform,

where lambda_k are the eigenvalues of the kernel's integral operator under the uniform law and N(d,k) their
multiplicities (Atkinson & Han 2012, "Spherical Harmonics and Approximations on the Unit Sphere", theorem 2.22).
A ridge function phi(<w, x>) with |w| = 1 has the same expansion, with coefficients E[phi(U) P_k(U)].

Everything is float64. Quadrature nodes and weights are constants of a program; kernels and their hyper-parameters are traced.
"""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from ..compilation import compiled
from ..precision import is_traced, requires_float64
from .base import AbstractKernel, trace_floats
from .spectrum import Spectrum

# The number of Gauss-Legendre nodes in the angle, half of them on either side of pi/2: at least 1200, and 6 for each degree.
_NODES = 1200
# The roundoff of the quadrature in lambda_k, as a multiple of eps trace / sqrt(N(d,k)). The factor is generous, for d = 2 and
# many degrees, where the nodes at the poles have the largest weights.
_NOISE = 512
# Beyond this, the roundoff of lambda_k N(d,k) could exceed 2e-6 of the trace.
_LARGEST_MULTIPLICITY = 1e15
# Degrees that `series` adds in one pass over its points, whose values then stay in registers.
_UNROLL = 8
# The largest number of degrees: 6000 nodes resolve them, and more would be slow to compute.
MOST_DEGREES = 1000


class ZonalSpectrum(Spectrum):
    """The `Spectrum` of a zonal kernel on S^{d-1} by degree k = 0, 1, ..., K: `eigenvalues` lambda_k and `multiplicities`
    N(d,k), both (K+1,), the `trace` k(1), and the `tail`, the part of the trace in degrees above K. `d` is the dimension of the
    space around the sphere."""

    d: int = eqx.field(static=True)

    @requires_float64
    def scaled(self, factor) -> "ZonalSpectrum":
        """The spectrum of `factor` times the kernel."""
        return ZonalSpectrum(
            factor * self.eigenvalues, self.multiplicities, factor * self.trace, factor * self.tail, self.d
        )


def _noise(trace, multiplicities):
    return _NOISE * jnp.finfo(jnp.float64).eps * trace / jnp.sqrt(multiplicities)


@requires_float64
def gegenbauer(kernel: Callable[[Array, Array], Array], d: int, degrees: int = 200) -> ZonalSpectrum:
    """The spectrum of a kernel under the uniform law on S^{d-1} (module docstring).

    It is computed by Gauss-Legendre quadrature with 1200 or more nodes in the angle. The kernels of this package are analytic
    in the angle, and neurons such as relu on either side of pi/2. Degrees with more than 1e15 harmonics are part of the tail,
    since roundoff exceeds their eigenvalues (they are also far beyond any sample size).

    **Arguments:**

    - `kernel`: any kernel, or function of x1 (n1, d), x2 (n2, d) with values (n1, n2), that is zonal on the sphere.
    - `d`: dimension, at least 2.
    - `degrees`: the largest degree K, from 0 to 1000.

    **Raises:** ValueError for d < 2, for degrees out of range, and for a kernel that is not zonal. A traced kernel cannot be
    tested, so its `rotation_invariant` must be true.

    >>> spectrum = ts.kernels.gegenbauer(ts.kernels.Polynomial(2, offset=0.0), d=3, degrees=4)
    >>> print(spectrum.eigenvalues.round(4))  # u^2 = 1/3 P_0 + 2/3 P_2, P_2 with 5 harmonics
    [0.3333 0.     0.1333 0.     0.    ]
    """
    if d < 2:
        raise ValueError(f"zonal spectra need the dimension d to be at least 2, got d={d}.")
    if not 0 <= degrees <= MOST_DEGREES:
        raise ValueError(f"degrees can be from 0 to {MOST_DEGREES}, got {degrees}.")
    _check_zonal(kernel, d)
    return _gegenbauer(trace_floats(kernel), d, degrees)


@compiled
def _gegenbauer(kernel, d: int, degrees: int) -> ZonalSpectrum:
    multiplicities = jnp.asarray(_kept_multiplicities(d, degrees))
    values = kernel(jnp.eye(1, d), circle(d, _nodes(degrees, d)[0]))[0]
    north = jnp.eye(1, d)
    trace = kernel.diagonal(north)[0] if isinstance(kernel, AbstractKernel) else kernel(north, north)[0, 0]
    eigenvalues = coefficients(values, d, degrees)
    # Numbers below the noise of the quadrature carry no information, and N(d,k) would amplify them.
    eigenvalues = jnp.where(eigenvalues > _noise(trace, multiplicities), eigenvalues, 0.0)
    tail = jnp.maximum(trace - eigenvalues @ multiplicities, 0.0)
    return ZonalSpectrum(d=d, eigenvalues=eigenvalues, multiplicities=multiplicities, trace=trace, tail=tail)


def angles(d: int, degrees: int) -> np.ndarray:
    """The q angles at which `coefficients` needs the values of a function, shape (q,)."""
    return _nodes(degrees, d)[0]


def coefficients(values: Float[Array, "... q"], d: int, degrees: int) -> Float[Array, "... degrees"]:
    """E[f(U) P_k(U)] for k = 0, ..., K from the values of f at the cosines of `angles(d, degrees)`."""
    kept = len(_kept_multiplicities(d, degrees))
    theta, weights = _nodes(degrees, d)
    return _coefficients(values, weights, d, kept - 1, np.cos(theta))


def _coefficients(
    values: Float[Array, "... q"], weights: np.ndarray, d: int, degrees: int, u: np.ndarray
) -> Float[Array, "... degrees"]:
    """sum_i values_i weights_i P_k(u_i) for k = 0, ..., `degrees`, one degree after the other, so that no table is stored."""
    k = np.arange(degrees + 1, dtype=float)
    # P_{-1} = 0; for d = 2 the recurrence from P_0 to P_1 would be 0/0.
    grow, back = (2 * k + d - 2) / np.maximum(k + d - 2, 1), k / np.maximum(k + d - 2, 1)
    grow[0] = 1.0

    def step(carry, factors):
        before, current = carry
        grow, back = factors
        return (current, grow * jnp.asarray(u) * current - back * before), values @ (jnp.asarray(weights) * current)

    start = (jnp.zeros(len(u)), jnp.ones(len(u)))
    found = jax.lax.scan(step, start, (jnp.asarray(grow), jnp.asarray(back)))[1]
    return jnp.moveaxis(found, 0, -1)


def largest_missing(kernel, spectrum: ZonalSpectrum) -> Float[Array, ""]:
    """An upper bound for all eigenvalues of `kernel` that are missing from its `spectrum`, which `gegenbauer` computed.

    Let K be the largest degree of the spectrum. Degrees up to 4 K are computed, and the roundoff of the quadrature is added.
    Each higher degree has at least N(d,4K) harmonics, and these degrees share the remainder of the trace
    sum lambda_k N(d,k) and of the square sum lambda_k^2 N(d,k) = E k(U)^2. That gives two bounds; the second is sharper for
    rough kernels at small d, whose trace has a long tail. For smooth kernels, sharing the tail beyond K in the same way is
    sharper still. Eigenvalues within the spectrum that were set to 0 as roundoff are below the roundoff, and below their share
    of the tail.
    """
    d, degrees = spectrum.d, len(spectrum.eigenvalues) - 1
    theta, weights = _nodes(degrees, d)
    values = kernel(jnp.eye(1, d), circle(d, theta))[0]
    # There are at least 6 nodes for each degree of the spectrum, enough for degrees up to 4 K.
    multiplicities = jnp.asarray(_kept_multiplicities(d, 4 * degrees))
    noise = _noise(spectrum.trace, multiplicities)
    found = jnp.maximum(_coefficients(values, weights, d, len(multiplicities) - 1, np.cos(theta)), 0.0)
    squares, eps = weights @ values**2, jnp.finfo(jnp.float64).eps
    # Both differences have the rounding errors of the sums in them, hence the additional multiple of eps.
    tail = jnp.maximum(spectrum.trace - found @ multiplicities, 0.0) + _NOISE * eps * spectrum.trace
    square_tail = jnp.maximum(squares - found**2 @ multiplicities, 0.0) + _NOISE * eps * squares
    beyond = jnp.minimum(tail / multiplicities[-1], jnp.sqrt(square_tail / multiplicities[-1]))
    further = jnp.max(found[degrees + 1 :] + noise[degrees + 1 :], initial=0.0)
    drowned = jnp.minimum(noise[: degrees + 1], spectrum.tail / spectrum.multiplicities)
    within = jnp.max(jnp.where(spectrum.eigenvalues == 0, drowned, 0.0))
    above = jnp.minimum(jnp.maximum(beyond, further), spectrum.tail / spectrum.multiplicities[-1])
    return jnp.maximum(above, within)


def series(terms: Float[Array, "*sums degrees"], d: int, u: Float[Array, "..."]) -> Float[Array, "..."]:
    """sum_k terms_k P_k(u), summed at least up to the last term that exceeds 1e-18 times the sum of all |terms| (|P_k| <= 1).
    Several sums at once share the polynomials."""
    # The terms are padded at least up to degree 2, so that the loop has a step.
    unroll = max(1, min(_UNROLL, terms.shape[-1] - 2))
    blocks = max(1, -(-(terms.shape[-1] - 2) // unroll))
    terms = jnp.pad(terms, [(0, 0)] * (terms.ndim - 1) + [(0, 2 + blocks * unroll - terms.shape[-1])])
    matters = jnp.abs(terms) > 1e-18 * jnp.sum(jnp.abs(terms), axis=-1, keepdims=True)
    last = jnp.max(jnp.where(matters, jnp.arange(terms.shape[-1]), 0))
    k = np.arange(1, 1 + blocks * unroll)
    grow, back = jnp.asarray((2 * k + d - 2) / (k + d - 2)), jnp.asarray(k / (k + d - 2))
    ones = (1,) * jnp.ndim(u)
    term = lambda k: jnp.reshape(terms[..., k], terms.shape[:-1] + ones)
    points = jnp.reshape(u, (1,) * (terms.ndim - 1) + jnp.shape(u))

    def add(block, carry):
        before, current, total = carry
        for i in range(unroll):
            at = block * unroll + i
            before, current = current, grow[at] * points * current - back[at] * before
            total = total + term(at + 2) * current
        return before, current, total

    start = (jnp.ones_like(points), points, term(0) + term(1) * points)
    return jax.lax.fori_loop(0, (last - 2 + unroll) // unroll, add, start)[2]


def gegenbauer_polynomials(d: int, degrees: int, u: np.ndarray) -> np.ndarray:
    """P_0, ..., P_K of dimension d at the points u in [-1, 1] of shape (q,): shape (K+1, q).

    The recurrence is (k+d-2) P_{k+1} = (2k+d-2) u P_k - k P_{k-1}, which is stable for P_k(1) = 1, since |P_k| <= 1.
    """
    values = [np.ones_like(u), u]
    for k in range(1, degrees):
        values.append(((2 * k + d - 2) * u * values[k] - k * values[k - 1]) / (k + d - 2))
    return np.stack(values[: degrees + 1])


@functools.lru_cache(maxsize=16)
def _nodes(degrees: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles and the probability weights of <x, x'> = cos(angle), whose density is proportional to sin^{d-2}."""
    # There are two panels, [0, pi/2] and [pi/2, pi], because neurons such as relu have a kink at pi/2, across which the rule
    # would lose all but about seven digits.
    nodes, weights = scipy.special.roots_legendre(max(_NODES, 6 * degrees) // 2)
    quarter = 0.25 * np.pi * (nodes + 1.0)
    theta = np.concatenate([quarter, 0.5 * np.pi + quarter])
    weights = np.tile(weights, 2) * np.sin(theta) ** (d - 2)
    return theta, weights / weights.sum()


def _kept_multiplicities(d: int, degrees: int) -> np.ndarray:
    values = multiplicities_of(d, degrees)
    return values[values <= _LARGEST_MULTIPLICITY]


def multiplicities_of(d: int, degrees: int) -> np.ndarray:
    """N(d,k) = (2k+d-2) (k+d-3)! / (k! (d-2)!), and N(d,0) = 1, for k = 0, ..., `degrees`."""
    k = np.arange(1, degrees + 1, dtype=float)
    gammaln = scipy.special.gammaln
    log = np.log(2 * k + d - 2) + gammaln(k + d - 2) - gammaln(k + 1) - gammaln(d - 1)
    with np.errstate(over="ignore"):
        return np.concatenate([[1.0], np.exp(log)])


def degrees_holding(d: int, count: float) -> int:
    """The smallest degree K >= 200 up to which there are at least `count` harmonics on S^{d-1}; 1001 if K = 1000 is too
    small."""
    # In high dimension the number of harmonics overflows float64.
    with np.errstate(over="ignore"):
        return max(200, int(np.searchsorted(np.cumsum(multiplicities_of(d, MOST_DEGREES)), count)))


def circle(d: int, theta: np.ndarray) -> Float[Array, "q d"]:
    """Unit vectors at these angles to the first axis."""
    return jnp.asarray(np.cos(theta)[:, None] * np.eye(1, d) + np.sin(theta)[:, None] * np.eye(2, d)[1:])


def _check_zonal(kernel, d: int) -> None:
    """Raises ValueError unless the kernel depends only on the angle between points of the sphere."""
    if isinstance(kernel, AbstractKernel) and kernel.rotation_invariant:
        return
    if any(is_traced(leaf) for leaf in jax.tree.leaves(kernel)):
        raise ValueError(
            "this kernel is traced, and its rotation_invariant is not true; call gegenbauer outside of jit."
        )
    theta = np.linspace(0.05, np.pi - 0.05, 40)
    # Values in a second, fixed plane in general position reveal kernels that depend on the direction.
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(d, 2)))[0].T
    with jax.ensure_compile_time_eval():
        first = np.asarray(kernel(jnp.eye(1, d), circle(d, theta)))[0]
        other = np.cos(theta)[:, None] * basis[:1] + np.sin(theta)[:, None] * basis[1:]
        second = np.asarray(kernel(jnp.asarray(basis[:1]), jnp.asarray(other)))[0]
    difference = np.max(np.abs(first - second))
    if not difference <= 1e-6 * np.max(np.abs(first)):
        raise ValueError(
            f"this kernel is not zonal on the sphere: at equal angles it differs by up to {difference:.3g}. "
            "Spectra by degree exist only for kernels that are invariant under rotations."
        )
