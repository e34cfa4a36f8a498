"""Functions of the angle of two unit vectors, tabulated: a few operations in place of a sum over hundreds of degrees."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Of the polynomial on a panel.
_DEGREE = 7
# Half the length h of the longest panel in the angle, times the largest degree K of the functions. A polynomial of degree p
# that goes through Chebyshev's points of a panel is off by at most 2 (h K / 2)^(p+1) / (p+1)! of cos(K theta): 2e-11 with
# these, and far less of a sum whose last degrees are small.
_REACH = 0.32
# Where the squared sine of half the angle is below this, the vectors are equal and their inner product was rounded.
_EQUAL = 1e-15


class Table(eqx.Module):
    """Functions f(u) of the cosine u in [-1, 1], by polynomials of degree 7 on equal panels of t = sqrt((1 - |u|) / 2), the
    sine of half the angle to the nearer pole: functions that are analytic in the angle are so in t.

    `coefficients` (*functions, 2 panels, 8): of Chebyshev's polynomials of z in [-1, 1] on each panel, those of u < 0 behind.
    """

    coefficients: Float[Array, "*functions panels terms"]

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """The functions at u, (*functions, *u); cosines beyond 1, by rounding, are 1."""
        panels = self.coefficients.shape[-2] // 2
        half = 0.5 - 0.5 * jnp.abs(u)
        place = jnp.sqrt(jnp.where(half > _EQUAL, half, 0.0)) * (panels * np.sqrt(2.0))
        panel = jnp.clip(place.astype(jnp.int32), 0, panels - 1)
        z = 2.0 * (place - panel) - 1.0
        panel = jnp.where(u < 0, panel + panels, panel)

        def one(coefficients: Float[Array, "panels terms"]) -> Array:
            coefficient = lambda i: coefficients[:, i].at[panel].get(mode="promise_in_bounds")
            # Clenshaw's sum: in powers of z the rounding of the values would be multiplied.
            before, total = jnp.zeros_like(z), coefficient(_DEGREE)
            for i in range(_DEGREE - 1, 0, -1):
                before, total = total, coefficient(i) + 2.0 * z * total - before
            return coefficient(0) + z * total - before

        flat = self.coefficients.reshape(-1, *self.coefficients.shape[-2:])
        return jax.vmap(one)(flat).reshape(self.coefficients.shape[:-2] + jnp.shape(u))


def points_of(degrees: int) -> int:
    """At how many cosines `tabulate` asks for its functions."""
    return 2 * _panels(degrees) * (_DEGREE + 3)


def tabulate(
    functions: Callable[[np.ndarray], Float[Array, "*functions angles"]], degrees: int
) -> tuple[Table, Float[Array, "*functions"]]:
    """A table of functions of the angle in [0, pi], given as a function of angles, which hold no degree above `degrees`; and
    the largest difference between the two at the ends of the panels, where polynomials through Chebyshev's points are worst.
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
    inverse = np.linalg.inv(chebyshev(nodes, _DEGREE))
    coefficients = jnp.matmul(values[..., :count], inverse.T, precision="highest")
    ends = jnp.matmul(coefficients, chebyshev(z[count:], _DEGREE).T, precision="highest")
    return Table(coefficients), jnp.max(jnp.abs(ends - values[..., count:]), axis=(-2, -1))


def _panels(degrees: int) -> int:
    # In t they are equally long, 1 / (panels sqrt 2); in the angle at most 2 sqrt 2 times as long, at u = 0.
    return int(np.ceil(max(degrees, 8) / _REACH))
