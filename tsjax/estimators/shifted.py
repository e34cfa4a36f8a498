"""Linear systems (A + r I) c = b for many shifts r at once, from one factorisation of A."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import leading
from .leading import Extent


class Shifted(NamedTuple):
    """Results for (A + r I) c = b with A (q, q) at each of p shifts r: the `solutions` (q, p, k) for the k columns of b, and,
    each (p,), the traces of (A + r I)^{-1} and of its square, and log det(A + r I)."""

    solutions: Float[Array, "q p k"]
    trace_inverse: Float[Array, " p"]
    trace_inverse_square: Float[Array, " p"]
    log_det: Float[Array, " p"]


def solve_shifted(
    a: Float[Array, "q q"], b: Float[Array, "q k"], shifts: Float[Array, " p"], extent: Extent = None
) -> Shifted:
    """Solves (A + r I) c = b for A positive semidefinite and all shifts r > 0 from one factorisation of A. From row `extent` on
    A must be diagonal."""
    # LAPACK and cuSOLVER can reduce A to tridiagonal form; other platforms (TPU) have only the eigendecomposition.
    given = () if extent is None else (extent,)
    fast = {name: _shifted_by_tridiagonal for name in ("cpu", "cuda", "rocm")}
    return Shifted(*jax.lax.platform_dependent(a, b, shifts, *given, **fast, default=_shifted_by_eigen))


def _shifted_by_eigen(a, b, shifts, extent: Extent = None) -> Shifted:
    s, u = leading.eigh(a, extent)
    shifted = jnp.maximum(s, 0.0)[:, None] + shifts[None, :]
    return Shifted(
        solutions=jnp.tensordot(u, (u.T @ b)[:, None, :] / shifted[:, :, None], 1),
        trace_inverse=jnp.sum(1.0 / shifted, axis=0),
        trace_inverse_square=jnp.sum(1.0 / shifted**2, axis=0),
        log_det=jnp.sum(jnp.log(shifted), axis=0),
    )


def _shifted_by_tridiagonal(a, b, shifts, extent: Extent = None) -> Shifted:
    """Uses A = Q T Q^T, where T is tridiagonal and Q is a product of Householder reflections that leave the first coordinate
    alone. With t the diagonal of T and e the entries beside it, elimination in T + r I has the pivots
    delta_i = t_i + r - e_{i-1}^2 / delta_{i-1} from the top down, and gamma_i = t_i + r - e_i^2 / gamma_{i+1} from the bottom
    up. Then (T + r I)^{-1}_ii = 1 / (delta_i + gamma_i - t_i - r) (Meurant 1992, SIAM J. Matrix Anal. Appl. 13, theorem 2.3).
    The trace of the square of the inverse is minus the derivative of the trace with respect to r."""
    if a.shape[0] == 1:
        return _shifted_by_eigen(a, b, shifts)
    form = leading.tridiagonal(a, b, extent)
    t, e, z = form.diagonal, form.beside, form.rotated
    above = jnp.concatenate([jnp.zeros(1), e])
    ones, none = jnp.ones_like(shifts), jnp.zeros((shifts.size, b.shape[1]))

    def down(carry, row):
        delta, slope, forward = carry
        t_i, z_i, e_above = row
        factor = e_above / delta
        delta, slope = t_i + shifts - e_above * factor, 1.0 + factor**2 * slope
        forward = z_i[None, :] - factor[:, None] * forward
        return (delta, slope, forward), (delta, slope, forward)

    _, (deltas, slopes, forwards) = jax.lax.scan(down, (ones, 0.0 * ones, none), (t, z, above))

    def up(carry, row):
        gamma, gamma_slope, solution = carry
        t_i, e_below, delta, slope, forward = row
        gamma, gamma_slope = t_i + shifts - e_below**2 / gamma, 1.0 + (e_below / gamma) ** 2 * gamma_slope
        solution = (forward - e_below * solution) / delta[:, None]
        inverse = 1.0 / (delta + gamma - t_i - shifts)
        return (gamma, gamma_slope, solution), (solution, inverse, inverse**2 * (slope + gamma_slope - 1.0))

    below = jnp.concatenate([e, jnp.zeros(1)])
    rows = (t, below, deltas, slopes, forwards)
    _, (solutions, inverse, square) = jax.lax.scan(up, (ones, 0.0 * ones, none), rows, reverse=True)
    return Shifted(
        solutions=leading.rotated(form, solutions.reshape(t.size, -1), extent).reshape(solutions.shape),
        trace_inverse=jnp.sum(inverse, axis=0),
        trace_inverse_square=jnp.sum(square, axis=0),
        log_det=jnp.sum(jnp.log(deltas), axis=0),
    )
