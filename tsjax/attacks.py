"""Adversarial points: inputs moved within a ball so that an objective grows. They serve `tsjax.losses.adversarial` and errors
under attack.

An attack is a function of (objective, model, batch, key) that returns the inputs x (n, *point), each row moved.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .losses import Objective
from .precision import is_traced
from .task import Dataset

_Norm = Literal["l2", "linf"]


def _check(owner: str, radius, norm: str) -> None:
    if not is_traced(radius) and not 0.0 <= float(radius) < float("inf"):
        raise ValueError(f"{owner}: radius must be finite and >= 0, got {radius}.")
    if norm not in ("l2", "linf"):
        raise ValueError(f"{owner}: norm must be 'l2' or 'linf', got {norm!r}.")


def _norms(x: Array) -> Array:
    """The norm |x_i| of each row, with axes of length 1 kept so that it broadcasts against x."""
    return jnp.sqrt(jnp.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))


def _steepest(gradient: Array, norm: _Norm) -> Array:
    """The direction of unit norm in which the objective grows most, row by row; 0 where the gradient is 0."""
    if norm == "linf":
        return jnp.sign(gradient)
    length = _norms(gradient)
    return gradient / jnp.where(length > 0, length, 1.0)


def _into_ball(shift: Array, radius, norm: _Norm) -> Array:
    if norm == "linf":
        return jnp.clip(shift, -radius, radius)
    length = _norms(shift)
    return shift * jnp.minimum(1.0, radius / jnp.where(length > 0, length, 1.0))


def _gradient(objective: Objective, model: Any, batch: Dataset, key):
    """The gradient of the objective in the inputs. If the objective is a mean over rows, each row gets its own gradient times
    its weight, and the direction of steepest ascent does not depend on that factor."""
    # Without weights, so that a row of weight 0 is attacked like any other.
    return lambda x: jax.grad(lambda x: objective(model, Dataset(x=x, y=batch.y), key))(x)


class FGM(eqx.Module):
    """The fast gradient method: one step of length `radius` along the gradient (l2 norm), or along its signs (linf norm)
    (Goodfellow et al. 2015, arXiv:1412.6572, section 4; l2: Miyato et al. 2017, arXiv:1605.07725, equation 5)."""

    radius: float | Float[Array, ""]
    norm: _Norm = eqx.field(static=True, default="linf")

    def __check_init__(self):
        _check("FGM", self.radius, self.norm)

    def __call__(self, objective: Objective, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Array:
        radius = jnp.asarray(self.radius).astype(batch.x.dtype)
        return batch.x + radius * _steepest(_gradient(objective, model, batch, key)(batch.x), self.norm)


class PGD(eqx.Module):
    """Projected gradient ascent: `steps` steps of `step_size` along the direction of steepest ascent, each projected onto the
    ball of `radius` around the point (Madry et al. 2018, arXiv:1706.06083, section 2.1).

    `step_size` is 2.5 radius / steps when None. `random_start=True` begins at a uniformly random point of the ball, which needs
    a key.
    """

    radius: float | Float[Array, ""]
    steps: int = eqx.field(static=True, default=10)
    step_size: float | Float[Array, ""] | None = None
    norm: _Norm = eqx.field(static=True, default="linf")
    random_start: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        _check("PGD", self.radius, self.norm)
        if self.steps < 1:
            raise ValueError(f"PGD: steps must be at least 1, got {self.steps}.")
        if self.step_size is not None and not is_traced(self.step_size) and not float(self.step_size) > 0:
            raise ValueError(f"PGD: step_size must be > 0, got {self.step_size}.")

    def __call__(self, objective: Objective, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Array:
        x, dtype = batch.x, batch.x.dtype
        radius = jnp.asarray(self.radius).astype(dtype)
        step = 2.5 * radius / self.steps if self.step_size is None else jnp.asarray(self.step_size).astype(dtype)
        shift = jnp.zeros_like(x)
        if self.random_start:
            if key is None:
                raise ValueError("PGD with a random start needs a key.")
            key_start, key = jr.split(key)
            shift = self._random(key_start, x) * radius
        gradient = _gradient(objective, model, batch, key)

        def ascend(_, shift):
            return _into_ball(shift + step * _steepest(gradient(x + shift), self.norm), radius, self.norm)

        return x + jax.lax.fori_loop(0, self.steps, ascend, shift)

    def _random(self, key: PRNGKeyArray, x: Array) -> Array:
        """Uniform in the unit ball of each row."""
        if self.norm == "linf":
            return jr.uniform(key, x.shape, x.dtype, minval=-1.0, maxval=1.0)
        key_direction, key_length = jr.split(key)
        direction = _steepest(jr.normal(key_direction, x.shape, x.dtype), "l2")
        lengths = jr.uniform(key_length, (x.shape[0], *(1,) * (x.ndim - 1)), x.dtype)
        return direction * lengths ** (x.shape[0] / x.size)
