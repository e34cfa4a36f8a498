r"""Students: two-layer ReLU networks trained by noisy, then by vanilla gradient descent.

Algorithm 1 of Akiyama & Suzuki (arXiv:2205.14818), on the half mean squared error L = (1/2n) sum_i (y_i - f(x_i))^2:

1. **Phase I, noisy gradient descent** on both layers, theta <- theta - eta grad(L + lambda |theta|^2) + sqrt(2 eta T) xi:
   finds the basin of a near-global optimum.
2. **Switch** by homogeneity: a_j <- sign(a_j), w_j <- |a_j| w_j.
3. **Phase II, vanilla gradient descent** on W alone: converges within the basin.

Everything is written for one student on one data set, and vectorised at the edges: over restarts inside `fit` (they share
the data, so their products merge into one), over data sets by `jax.vmap` or `tsjax.fit_many`.

Default settings are formulas in the width M, the dimension d, the sample size n and the input scale s^2 = mean x_i^2 (1/d
on the sphere, 1 for Gaussian inputs), with the measurements behind them beside each.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..network import TwoLayer, absorb_output_weights
from ..optim import add_langevin_noise, as_leaf
from ..problem import Dataset, Problem
from .base import AbstractEstimator, AbstractFit, Status, check_at_least, check_data, floats_as_arrays

Probe = Callable[[TwoLayer], dict[str, Array]]
Oracle = tuple[Problem, TwoLayer]

# Phase II looks at its stopping rule once in so many steps, and stops when the loss fell over them by less than this
# share of the statistical error of an efficient student. The loss rather than its gradient: minima of ReLU networks often
# lie in a kink of the empirical loss, where the gradient does not vanish.
_SEGMENT = 50
_FLATNESS = 1e-3
# A loss this many times that of predicting 0, plus that of a unit neuron, will not come back.
_EXPLODED = 1e4


class NetworkFit(AbstractFit):
    """A trained two-layer network.

    `stats`: `train_loss` (half mean squared error), `steps` (gradient steps of phases I and II of the chosen restart),
    `restart_losses` (one per restart), `restart` (the chosen one). With a probe also `trajectory`, see
    `TwoPhaseStudent.fit`.
    """

    net: TwoLayer
    status: Int[Array, "*batch"]
    stats: dict[str, Any]

    def predict(self, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        dtype = jnp.result_type(x, self.net.w)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), self.net).samples_last(x.T.astype(dtype))


class NoisyPhase(eqx.Module):
    r"""Phase I. Fields left at None follow the formulas (M width, d dimension, s^2 = mean x_i^2).

    - `steps`: 1500 + 500 M. What looks like failure is mostly a slow saddle.
    - `step_size`: eta = 2 / ((M+1) s^2); the largest curvature of L at an orthonormal teacher is about (M+1) s^2 / 4.
    - `temperature`: T = 0.05 s^2 / (M d) = 0.05 / (M d^2) on the sphere. Worth 2 to 6 points of success over T = 0; ten
      times hotter loses them again.
    - `regularisation`: lambda = 0.01 s^2; above 0.02 s^2 neurons die.
    - `optimizer`: any `optax.GradientTransformation` in place of gradient descent; the noise, at `step_size`, is added to
      its updates.
    """

    steps: int | None = eqx.field(static=True, default=None)
    step_size: float | Float[Array, ""] | None = None
    temperature: float | Float[Array, ""] | None = None
    regularisation: float | Float[Array, ""] | None = None
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_at_least("NoisyPhase", steps=(self.steps, 0), temperature=(self.temperature, 0))
        check_at_least("NoisyPhase", regularisation=(self.regularisation, 0), step_size=(self.step_size, 0))


class VanillaPhase(eqx.Module):
    r"""Phase II. Fields left at None follow the formulas.

    - `max_steps`: 4000 + 1000 M. The phase ends earlier, when 50 steps lower the loss L by less than 10^{-3} (M d / n) L,
      a thousandth of an efficient student's statistical error.
    - `step_size`: eta = 2 / ((M+1) s^2).
    - `optimizer`: any `optax.GradientTransformation` in place of gradient descent.
    """

    max_steps: int | None = eqx.field(static=True, default=None)
    step_size: float | Float[Array, ""] | None = None
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_at_least("VanillaPhase", max_steps=(self.max_steps, 0), step_size=(self.step_size, 0))


class TwoPhaseStudent(AbstractEstimator):
    r"""The paper's algorithm with tuned defaults: noisy, then vanilla gradient descent, best of several restarts.

    `TwoPhaseStudent(width=m)` needs no tuning for orthonormal teachers at m <= d/2. Restarts are chosen by the training
    loss, which looks at no test data. `TwoPhaseStudent.paper(...)` has the settings of the paper's experiment.

    **Arguments:**

    - `width`: number M of neurons.
    - `restarts`: independent runs on the same data; the one with the smallest final training loss is the fit.
    - `noisy`, `vanilla`: the two phases.
    - `init_output_std`: initial a_j ~ N(0, std^2). Small (0.1) by default: gradient descent nearly conserves
      a_j^2 - |w_j|^2, so that only a neuron with |a_j| < |w_j| can change its sign.
    - `init_neuron_std`: initial w_jk ~ N(0, std^2); 0.7 / sqrt(d) when None.
    - `clip`: R > 1 trains through the paper's smooth clip rbar = R tanh(r |r| / (2R)) of every parameter in phase I;
      None trains the parameters themselves.
    """

    width: int = eqx.field(static=True)
    restarts: int = eqx.field(static=True, default=4)
    noisy: NoisyPhase = NoisyPhase()
    vanilla: VanillaPhase = VanillaPhase()
    init_output_std: float | Float[Array, ""] = 0.1
    init_neuron_std: float | Float[Array, ""] | None = None
    clip: float | Float[Array, ""] | None = None

    def __check_init__(self):
        check_at_least("TwoPhaseStudent", width=(self.width, 1), restarts=(self.restarts, 1))
        check_at_least("TwoPhaseStudent", init_output_std=(self.init_output_std, 0))
        check_at_least("TwoPhaseStudent", init_neuron_std=(self.init_neuron_std, 0), clip=(self.clip, 1))

    @classmethod
    def paper(cls, width: int, clip: float = 2.0) -> "TwoPhaseStudent":
        """The settings of the experiment of arXiv:2205.14818, section 5: theta(0) ~ N(0, I), eta_1 = eta_2 = 0.01,
        beta = 100, lambda = 0.01, 1000 + 2000 steps, the clip, one run. The paper does not state R; 2 is ours."""
        return cls(
            width=width,
            restarts=1,
            noisy=NoisyPhase(steps=1000, step_size=0.01, temperature=0.01, regularisation=0.01),
            vanilla=VanillaPhase(max_steps=2000, step_size=0.01),
            init_output_std=1.0,
            init_neuron_std=1.0,
            clip=clip,
        )

    def fit(
        self,
        key: PRNGKeyArray,
        data: Dataset,
        *,
        probe: Probe | None = None,
        probe_steps: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    ) -> NetworkFit:
        """Trains on one data set, x (n, d), y (n,), in the dtype of the data.

        A `probe` maps the current network to a dict of scalars; it is evaluated at the steps of `probe_steps` = (steps of
        phase I, steps of phase II), counted within each phase, and its values stand in `fit.stats["trajectory"]` with
        the training loss: arrays (k,) over all those steps. Phase II then runs through its last probed step.
        """
        check_data(data)
        if (probe is None) != (probe_steps is None):
            raise ValueError("probe and probe_steps go together: give both or neither.")
        if probe_steps is not None:
            for steps in probe_steps:
                if list(steps) != sorted(set(steps)) or (steps and steps[0] < 0):
                    raise ValueError(f"probe_steps must be increasing and >= 0, got {steps}.")
        return _fit_two_phase(floats_as_arrays(self), key, data, probe, probe_steps)


class OracleStudent(AbstractEstimator):
    """Phase II started at the teacher: the finite-n reference for "near-global", not attainable by a learner."""

    vanilla: VanillaPhase = VanillaPhase()

    # It has no fit without its oracle, and says so by its signature.
    def fit(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, key: PRNGKeyArray, data: Dataset, *, oracle: Oracle
    ) -> NetworkFit:
        """Trains from `oracle` = (problem, teacher) on one data set; draws nothing from `key`."""
        del key
        check_data(data)
        return _fit_oracle(floats_as_arrays(self), data, oracle[1])


def _half_mse(net: TwoLayer, x_t: Float[Array, "d n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    residual = net.samples_last(x_t) - y
    return 0.5 * jnp.mean(residual * residual)


def _loss_from_w(w, a, x_t, y):
    return _half_mse(TwoLayer(a=a, w=w), x_t, y)


def _smooth_clip(theta: TwoLayer, radius) -> TwoLayer:
    if radius is None:
        return theta
    return jax.tree.map(lambda r: (radius * jnp.tanh(r * jnp.abs(r) / (2 * radius))).astype(r.dtype), theta)


def _samples_last(data: Dataset) -> tuple[Float[Array, "d n"], Float[Array, " n"]]:
    """x_t and y in their common floating dtype: training rounds neither."""
    dtype = jnp.result_type(data.x, data.y, jnp.float32)
    return data.x.T.astype(dtype), data.y.astype(dtype)


def _default(value, formula, dtype):
    return as_leaf(formula if value is None else value, dtype)


def _input_scale(x_t):
    """s^2 = mean x_i^2."""
    return jnp.mean(x_t * x_t)


def _probed_run(advance, state, steps: tuple[int, ...], probe):
    """Runs `advance(state, stop)` to each step of `steps` in turn and probes there; returns the state and the values."""

    def segment(state, stop):
        state = advance(state, stop)
        return state, probe(state)

    return jax.lax.scan(segment, state, jnp.asarray(steps, jnp.int32))


def _phase_one(student: TwoPhaseStudent, key, x_t, y, probe, probe_steps):
    """Noisy gradient descent on both layers from a random start; returns the network and the steps done."""
    d, dtype = x_t.shape[0], x_t.dtype
    width, s2, phase = student.width, _input_scale(x_t), student.noisy
    steps = 1500 + 500 * width if phase.steps is None else phase.steps
    step_size = _default(phase.step_size, 2 / ((width + 1) * s2), dtype)
    temperature = _default(phase.temperature, 0.05 * s2 / (width * d), dtype)
    penalty = _default(phase.regularisation, 0.01 * s2, dtype)

    key_a, key_w, key_noise = jr.split(key, 3)
    theta = TwoLayer(
        a=as_leaf(student.init_output_std, dtype) * jr.normal(key_a, (width,), dtype),
        w=_default(student.init_neuron_std, 0.7 / d**0.5, dtype) * jr.normal(key_w, (width, d), dtype),
    )

    def objective(theta: TwoLayer):
        squares = jnp.sum(theta.a**2) + jnp.sum(theta.w**2)
        return _half_mse(_smooth_clip(theta, student.clip), x_t, y) + penalty * squares

    descent = optax.sgd(step_size) if phase.optimizer is None else phase.optimizer
    optimizer = optax.chain(descent, add_langevin_noise(step_size, temperature, key_noise))

    def step(_, carry):
        theta, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(objective)(theta), opt_state, theta)
        return optax.apply_updates(theta, updates), opt_state

    def advance(state, stop):
        carry, done = state
        return jax.lax.fori_loop(done, stop, step, carry), stop

    state = ((theta, optimizer.init(eqx.filter(theta, eqx.is_array))), jnp.zeros((), jnp.int32))
    network = lambda state: absorb_output_weights(_smooth_clip(state[0][0], student.clip))
    values = None
    if probe is not None:
        state, values = _probed_run(advance, state, probe_steps, lambda state: probe(network(state)))
        steps = max(steps, max(probe_steps, default=0))
    state = advance(state, jnp.asarray(steps, jnp.int32))
    return network(state), state[1], values


class _Descent(eqx.Module):
    """State of phase II."""

    w: Float[Array, "m d"]
    opt_state: Any
    loss: Float[Array, ""]
    steps: Int[Array, ""]
    done: Array


def _phase_two(phase: VanillaPhase, net: TwoLayer, x_t, y, probe=None, probe_steps=()):
    """Vanilla gradient descent on W until the gradient is flat; returns network, loss, steps, status (and probes)."""
    (d, n), dtype = x_t.shape, x_t.dtype
    width, s2 = net.a.shape[0], _input_scale(x_t)
    max_steps = 4000 + 1000 * width if phase.max_steps is None else phase.max_steps
    step_size = _default(phase.step_size, 2 / ((width + 1) * s2), dtype)
    optimizer = optax.sgd(step_size) if phase.optimizer is None else phase.optimizer
    loss_and_grad = jax.value_and_grad(functools.partial(_loss_from_w, a=net.a, x_t=x_t, y=y))
    zero_loss = 0.5 * jnp.mean(y * y)
    exploded = _EXPLODED * (zero_loss + s2)
    # Below this the residuals are rounding errors of the predictions.
    rounding = (10 * jnp.finfo(dtype).eps) ** 2 * zero_loss

    def step(_, carry):
        w, opt_state, _ = carry
        loss, grad = loss_and_grad(w)
        updates, opt_state = optimizer.update(grad, opt_state, w)
        return optax.apply_updates(w, updates), opt_state, loss

    def segment(state: _Descent, stop) -> _Descent:
        length = jnp.minimum(_SEGMENT, stop - state.steps)
        w, opt_state, loss = jax.lax.fori_loop(0, length, step, (state.w, state.opt_state, state.loss))
        # A shorter segment, before a limit or a probe, says nothing about 50 steps.
        flat = (length == _SEGMENT) & (state.loss - loss <= _FLATNESS * (width * d / n) * loss + rounding)
        lost = ~jnp.isfinite(loss) | (loss > exploded)
        return _Descent(w, opt_state, loss, state.steps + length, flat | lost)

    def advance(state: _Descent, stop) -> _Descent:
        return jax.lax.while_loop(lambda s: (s.steps < stop) & ~s.done, lambda s: segment(s, stop), state)

    infinite = jnp.asarray(jnp.inf, dtype)
    state = _Descent(net.w, optimizer.init(net.w), infinite, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    values = None
    if probe is not None:
        # A trajectory goes on past the flat point, so that its steps mean what they say.
        keep_going = lambda state, stop: jax.lax.while_loop(lambda s: s.steps < stop, lambda s: segment(s, stop), state)
        state, values = _probed_run(keep_going, state, probe_steps, lambda s: probe(TwoLayer(a=net.a, w=s.w)))
        max_steps = max(max_steps, max(probe_steps, default=0))
    state = advance(state, jnp.asarray(max_steps, jnp.int32))
    loss = _loss_from_w(state.w, net.a, x_t, y)
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(state.w)) & (loss <= exploded)
    status = jnp.where(finite, jnp.where(state.done, Status.CONVERGED, Status.STEP_LIMIT), Status.DIVERGED)
    return TwoLayer(a=net.a, w=state.w), loss, state.steps, status.astype(jnp.int32), values


@eqx.filter_jit
def _fit_two_phase(student: TwoPhaseStudent, key, data: Dataset, probe, probe_steps) -> NetworkFit:
    x_t, y = _samples_last(data)
    steps_one, steps_two = ((), ()) if probe_steps is None else probe_steps
    measure = None if probe is None else lambda net: {"train_loss": _half_mse(net, x_t, y), **probe(net)}

    def run(restart_key):
        net, done_one, values_one = _phase_one(student, restart_key, x_t, y, measure, steps_one)
        net, loss, done_two, status, values_two = _phase_two(student.vanilla, net, x_t, y, measure, steps_two)
        return net, loss, (done_one, done_two), status, (values_one, values_two)

    restart_keys = jax.vmap(functools.partial(jr.fold_in, key))(jnp.arange(student.restarts))
    nets, losses, steps, statuses, values = jax.vmap(run)(restart_keys)
    best = jnp.argmin(jnp.where(statuses == Status.DIVERGED, jnp.inf, losses))
    net, steps, values = jax.tree.map(lambda leaf: leaf[best], (nets, steps, values))
    stats: dict[str, Any] = {
        "train_loss": losses[best],
        "steps": jnp.stack(steps),
        "restart": best,
        "restart_losses": losses,
    }
    if probe is not None:
        stats["trajectory"] = jax.tree.map(lambda *parts: jnp.concatenate(parts), *values)
    return NetworkFit(net=net, status=statuses[best], stats=stats)


@eqx.filter_jit
def _fit_oracle(student: OracleStudent, data: Dataset, teacher: TwoLayer) -> NetworkFit:
    x_t, y = _samples_last(data)
    start = absorb_output_weights(jax.tree.map(lambda leaf: leaf.astype(x_t.dtype), teacher))
    net, loss, steps, status, _ = _phase_two(student.vanilla, start, x_t, y)
    stats = {
        "train_loss": loss,
        "steps": jnp.stack([jnp.zeros_like(steps), steps]),
        "restart": jnp.zeros_like(steps),
        "restart_losses": loss[None],
    }
    return NetworkFit(net=net, status=status, stats=stats)
