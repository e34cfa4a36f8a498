"""Tables of functions of the angle between two unit vectors, which replace a sum over hundreds of degrees by a few
operations."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The degree of the polynomial on each panel.
_DEGREE = 7
# The number of panels is the largest degree K of the functions divided by _REACH. A polynomial of degree p through the
# Chebyshev points of a panel of half-length h = _REACH / K in the angle differs from cos(K theta) by at most 2 (h K / 2)^(p+1)
# / (p+1)!, which is about 2e-11 here, and far less for a sum whose last degrees are small.
_REACH = 0.32
# If the squared sine of half the angle is below this, the vectors count as equal: only rounding separates them.
_EQUAL = 1e-15


class Table(eqx.Module):
    """Functions f(u) of the cosine u in [-1, 1], as polynomials of degree 7 on equal panels of t = sqrt((1 - |u|) / 2). t is
    the sine of half the angle to the nearer pole, and functions that are analytic in the angle are analytic in t.

    `coefficients` (*functions, 2 panels, 8) are those of Chebyshev polynomials in z in [-1, 1] on each panel. The panels for
    u >= 0 come first, those for u < 0 after them.
    """

    coefficients: Float[Array, "*functions panels terms"]

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """The functions at u, (*functions, *u). Values of |u| that rounding has moved above 1 count as 1."""
        panels = self.coefficients.shape[-2] // 2
        half = 0.5 - 0.5 * jnp.abs(u)
        place = jnp.sqrt(jnp.where(half > _EQUAL, half, 0.0)) * (panels * np.sqrt(2.0))
        panel = jnp.clip(place.astype(jnp.int32), 0, panels - 1)
        z = 2.0 * (place - panel) - 1.0
        panel = jnp.where(u < 0, panel + panels, panel)

        def one(coefficients: Float[Array, "panels terms"]) -> Array:
            coefficient = lambda i: coefficients[:, i].at[panel].get(mode="promise_in_bounds")
            # Clenshaw's summation; a polynomial in powers of z would amplify rounding errors.
            before, total = jnp.zeros_like(z), coefficient(_DEGREE)
            for i in range(_DEGREE - 1, 0, -1):
                before, total = total, coefficient(i) + 2.0 * z * total - before
            return coefficient(0) + z * total - before

        flat = self.coefficients.reshape(-1, *self.coefficients.shape[-2:])
        return jax.vmap(one)(flat).reshape(self.coefficients.shape[:-2] + jnp.shape(u))


def points_of(degrees: int) -> int:
    """The number of angles at which `tabulate` evaluates its functions."""
    return 2 * _panels(degrees) * (_DEGREE + 3)


def tabulate(
    functions: Callable[[np.ndarray], Float[Array, "*functions angles"]], degrees: int
) -> tuple[Table, Float[Array, "*functions"]]:
    """A table of functions of the angle in [0, pi] that contain no degree above `degrees`, and for each the largest error of
    the table at the ends of the panels, where polynomials through Chebyshev points are least accurate. `functions` takes the
    angles.
    """
    panels, count = _panels(degrees), _DEGREE + 1
    nodes = np.cos((2 * np.arange(count) + 1) * np.pi / (2 * count))
    z = np.concatenate([nodes, [-1.0, 1.0]])
    half = (np.arange(panels)[:, None] + 0.5 + 0.5 * z) / (panels * np.sqrt(2.0))
    near = 2.0 * np.arcsin(np.minimum(half, np.sqrt(0.5)))
    angles = np.concatenate([near, np.pi - near])
    values = functions(angles.reshape(-1))
    values = values.reshape(*values.shape[:-1], 2 * panels, count + 2)
    chebyshev = np.polynomial.chebyshev.chebvander
    # Sums and no matrix products, since XLA on GPUs gives such small products in float64 to Triton, which may refuse them.
    by = lambda values, matrix: jnp.sum(
        values[..., None, :] * jnp.broadcast_to(matrix, (*values.shape[:-1], *matrix.shape)), -1
    )
    coefficients = by(values[..., :count], np.linalg.inv(chebyshev(nodes, _DEGREE)))
    ends = by(coefficients, chebyshev(z[count:], _DEGREE))
    return Table(coefficients), jnp.max(jnp.abs(ends - values[..., count:]), axis=(-2, -1))


def _panels(degrees: int) -> int:
    # Panels have the length 1 / (panels sqrt 2) in t. In the angle they are longer, by a factor of at most 2 sqrt 2, at u = 0.
    return int(np.ceil(max(degrees, 8) / _REACH))
