"""Noisy gradient descent (gradient Langevin dynamics) as optax transformations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

ScalarOrSchedule = float | Float[Array, ""] | optax.Schedule


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key: tuple[Array, Array], high: Array, low: Array) -> tuple[Array, Array]:
    """The two output words of Threefry-2x32 with 20 rounds, for a key of two words at the counters (high, low) (Salmon et al.
    2011, "Parallel random numbers: as easy as 1, 2, 3"); all uint32.

    This is the function behind JAX's default keys, written out for two reasons: on a CPU, JAX's own version is a loop that XLA
    cannot fuse, and inside a Pallas kernel there are no keys.
    """
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    high, low = high + keys[0], low + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            high = high + low
            low = (low << jnp.uint32(rotation)) | (low >> jnp.uint32(32 - rotation))
            low = low ^ high
        high = high + keys[(group + 1) % 3]
        low = low + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return high, low


def _normal(bits: UInt32[Array, " k"]) -> Float[Array, " k"]:
    """sqrt(2) erf^{-1}(u), where u is the midpoint of one of 2^24 equal parts of (-1, 1), chosen by the first 24 bits."""
    part = jax.lax.bitcast_convert_type(bits, jnp.int32) >> 8
    return jnp.float32(2**0.5) * jax.lax.erf_inv((part.astype(jnp.float32) + 0.5) * jnp.float32(2.0**-23))


def counter_normals(seed: UInt32[Array, "2"], step: Int[Array, ""], size: int, dtype) -> Float[Array, " size"]:
    """Standard normals that depend only on (seed, step) and on their place: sqrt(2) erf^{-1}(u), where u is uniform over the
    midpoints of 2^24 (float64: 2^53) equal parts of (-1, 1) and comes from the counters (step, 0), (step, 1), ...

    One block of the generator gives one float64 value or two float32 values, where the second half of the places takes the
    second words. Types narrower than float32 are drawn in float32.
    """
    double = jnp.dtype(dtype) == jnp.float64
    blocks = size if double else -(-size // 2)
    step = jnp.full(blocks, step, jnp.uint32)
    high, low = threefry((seed[0], seed[1]), step, jnp.arange(blocks, dtype=jnp.uint32))
    if double:
        bits = (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)
        part = jax.lax.bitcast_convert_type(bits, jnp.int64) >> 11
        u = (part.astype(jnp.float64) + 0.5) * 2.0**-52
        return 2**0.5 * jax.lax.erf_inv(u)
    return _normal(jnp.concatenate([high, low])[:size]).astype(dtype)


def normals_at(
    key: tuple[Array, Array], step: Int[Array, ""], place: Int[Array, " k"], size: int
) -> Float[Array, " k"]:
    """The float32 values of `counter_normals(seed, step, size, ...)` at the indices `place`, for code that handles each index
    by itself. `key` holds the two words of the seed."""
    blocks = -(-size // 2)
    second = place >= blocks
    block = (place - jnp.where(second, blocks, 0)).astype(jnp.uint32)
    high, low = threefry(key, step.astype(jnp.uint32) + jnp.zeros_like(block), block)
    return _normal(jnp.where(second, low, high))


def noise_seed(key: PRNGKeyArray) -> UInt32[Array, "2"]:
    """The seed of `counter_normals` for a key: two words for every kind of key."""
    return jr.bits(key, (2,), jnp.uint32)


class StepState(NamedTuple):
    """State of a transformation that depends only on the step: the number of steps done."""

    step: Int[Array, ""]


def _at(value: ScalarOrSchedule, step: Int[Array, ""]):
    return value(step) if callable(value) else value


def subtract_weight_decay(step_size: ScalarOrSchedule, decay: ScalarOrSchedule) -> optax.GradientTransformation:
    r"""Adds decoupled weight decay to finished updates: u <- u - eta lambda theta (Loshchilov & Hutter 2019, arXiv:1711.05101,
    algorithm 2, with lambda times the learning rate eta as in optax and PyTorch).

    Chained after `optax.adam(eta)` it gives `optax.adamw(eta, weight_decay=decay)`, and `decay` may be traced and mapped over.
    """

    def init(params) -> StepState:
        del params
        return StepState(step=jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        scale = jnp.asarray(_at(step_size, state.step)) * _at(decay, state.step)
        shrunk = jax.tree.map(lambda u, theta: u - scale.astype(theta.dtype) * theta, updates, params)
        return shrunk, StepState(step=state.step + 1)

    return optax.GradientTransformation(init, update)


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
    - `key`: the noise of step t depends on (key, t) alone, so a student's noise does not depend on its batch. See
      `counter_normals` for the generator.

    >>> import optax
    >>> optimizer = optax.chain(optax.sgd(0.1), ts.add_langevin_noise(0.1, temperature=1e-3, key=jax.random.key(0)))
    >>> updates, _ = optimizer.update(jnp.zeros(3), optimizer.init(jnp.zeros(3)))
    >>> bool((updates != 0).all())
    True
    """
    # Derived once: deriving a key in every step would cost as much as the noise.
    seed = noise_seed(key)

    def init(params) -> StepState:
        del params
        return StepState(step=jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        del params
        # One draw for all leaves: the generator's code is then compiled once, and no block of it is wasted.
        flat, unravel = ravel_pytree(updates)
        scale = jnp.sqrt(2 * jnp.asarray(_at(step_size, state.step)) * _at(temperature, state.step))
        xi = counter_normals(seed, state.step, flat.shape[0], flat.dtype)
        flat = flat + scale.astype(flat.dtype) * xi
        return unravel(flat), StepState(step=state.step + 1)

    return optax.GradientTransformation(init, update)


class Descent(optax.GradientTransformation):
    """Gradient descent, noisy if a temperature is given, as an optax transformation that exposes its settings. `tsjax.train`
    can thus replace it by a kernel that does many steps at once."""

    step_size: ScalarOrSchedule
    temperature: ScalarOrSchedule | None
    key: PRNGKeyArray | None

    def __new__(
        cls,
        step_size: ScalarOrSchedule,
        temperature: ScalarOrSchedule | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "Descent":
        steps = optax.sgd(step_size)
        if temperature is not None:
            if key is None:
                raise ValueError("noisy gradient descent needs a key for its noise.")
            steps = optax.chain(steps, add_langevin_noise(step_size, temperature, key))
        self = super().__new__(cls, steps.init, steps.update)
        self.step_size, self.temperature, self.key = step_size, temperature, key
        return self

    @property
    def is_constant(self) -> bool:
        """Whether neither step size nor temperature is a schedule."""
        return not callable(self.step_size) and not callable(self.temperature)


def noisy_gradient_descent(
    step_size: ScalarOrSchedule, temperature: ScalarOrSchedule, key: PRNGKeyArray
) -> optax.GradientTransformation:
    """Gradient Langevin dynamics: `optax.sgd` followed by `add_langevin_noise` at the same step size."""
    return Descent(step_size, temperature, key)


def as_leaf(value, dtype) -> jax.Array:
    """A hyper-parameter as a scalar of the training dtype, so that no product promotes the parameters."""
    return jnp.asarray(value).astype(dtype)


def on_sphere(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    r"""An optimizer on the unit sphere, for each leaf of the parameters taken as one vector theta.

    The optimizer gets the component of the gradient orthogonal to theta, g - <g, theta> theta, and its update u is projected
    back to the sphere: theta <- (theta + u) / |theta + u|. With `optax.sgd` and one fresh sample in each step this is the
    projected online SGD of Ben Arous, Gheissari and Jagannath 2021 (arXiv:2003.10409).

    **Raises:** ValueError if `update` is called without parameters.

    >>> import optax
    >>> optimizer = ts.on_sphere(optax.sgd(0.5))
    >>> theta = jnp.array([1.0, 0.0])
    >>> update, _ = optimizer.update(jnp.array([3.0, -2.0]), optimizer.init(theta), theta)
    >>> [round(float(value), 4) for value in theta + update]
    [0.7071, 0.7071]
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("an optimizer on the sphere needs the parameters: update(gradient, state, parameters).")
        across = jax.tree.map(lambda g, theta: g - jnp.sum(g * theta) * theta, updates, params)
        changes, state = inner.update(across, state, params, **extra)

        def back(theta, change):
            moved = theta + change
            return moved / jnp.sqrt(jnp.sum(moved**2)) - theta

        return jax.tree.map(back, params, changes), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
