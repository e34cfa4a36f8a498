"""Noisy gradient descent (gradient Langevin dynamics) as optax transformations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

ScalarOrSchedule = float | Float[Array, ""] | optax.Schedule


class LangevinNoiseState(NamedTuple):
    """State of `add_langevin_noise`: steps done."""

    step: Int[Array, ""]


def add_langevin_noise(
    step_size: ScalarOrSchedule, temperature: ScalarOrSchedule, key: PRNGKeyArray
) -> optax.GradientTransformation:
    r"""Adds the noise of gradient Langevin dynamics to finished updates: u <- u + sqrt(2 eta T) xi, xi ~ N(0, I).

    Chain it *after* any optax optimizer, whose updates are already scaled by its learning rate:
    `optax.chain(optax.sgd(eta), add_langevin_noise(eta, 1 / beta, key))` is phase I of Algorithm 1 of arXiv:2205.14818,
    theta <- theta - eta grad + sqrt(2 eta / beta) xi; its stationary law has density proportional to exp(-loss / T).

    **Arguments:**

    - `step_size`: eta > 0, a number or a schedule step -> value.
    - `temperature`: T = 1/beta >= 0, a number or a schedule.
    - `key`: the noise of step t depends on (key, t) alone, so a student's noise does not depend on its batch.
    """

    def at(value: ScalarOrSchedule, count):
        return value(count) if callable(value) else value

    def init(params) -> LangevinNoiseState:
        del params
        return LangevinNoiseState(step=jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        del params
        # One draw for all leaves: the generator's code is then compiled once.
        flat, unravel = ravel_pytree(updates)
        scale = jnp.sqrt(2 * jnp.asarray(at(step_size, state.step)) * at(temperature, state.step))
        xi = jr.normal(jr.fold_in(key, state.step), flat.shape, flat.dtype)
        flat = flat + scale.astype(flat.dtype) * xi
        return unravel(flat), LangevinNoiseState(step=state.step + 1)

    return optax.GradientTransformation(init, update)


def noisy_gradient_descent(
    step_size: ScalarOrSchedule, temperature: ScalarOrSchedule, key: PRNGKeyArray
) -> optax.GradientTransformation:
    """Gradient Langevin dynamics: `optax.sgd` followed by `add_langevin_noise` at the same step size."""
    return optax.chain(optax.sgd(step_size), add_langevin_noise(step_size, temperature, key))


def as_leaf(value, dtype) -> jax.Array:
    """A hyper-parameter as a scalar of the training dtype, so that no product promotes the parameters."""
    return jnp.asarray(value).astype(dtype)
