r"""Students: two-layer networks trained by noisy, then by vanilla gradient descent.

Algorithm 1 of Akiyama & Suzuki (arXiv:2205.14818), on the half mean squared error L = (1/2n) sum_i (y_i - f(x_i))^2:

1. **Phase I, noisy gradient descent** on both layers, theta <- theta - eta grad(L + lambda |theta|^2) + sqrt(2 eta T) xi with
   xi ~ N(0, I), finds the basin of a near-global optimum.
2. **The switch** uses homogeneity: a_j <- sign(a_j), w_j <- |a_j| w_j. Neurons beyond the student's width are pruned.
3. **Phase II, vanilla gradient descent** on W alone, converges within the basin.

The code is written for one student on one data set. `fit` vectorises it over restarts (which share the data, so that their
matrix products merge into one), and `jax.vmap` or `tsjax.fit_many` over data sets.

Default settings are formulas in the width m, the dimension d, the sample size n and the input scale s^2 = mean x_i^2 (1/d
on the sphere, 1 for Gaussian inputs). `NoisyPhase` and `VanillaPhase` state them, with their reasons.
"""

import functools
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..activations import AbstractActivation, check_activation, relu
from ..compilation import compiled
from ..losses import squared, weighted_mean
from ..network import TwoLayer, absorb_output_weights
from ..optim import as_leaf
from ..status import Status
from ..task import Dataset
from ..train import Probe, some_rows
from .base import AbstractEstimator, AbstractFit, check_at_least, check_data, floats_as_arrays
from .phases import NoisyPhase, VanillaPhase, in_one_type, noisy_descent, row_count, vanilla_descent
from .pruning import information_criterion, prune
from .tuning import Oracle

# The number of restarts that run at once, in one round.
_ROUND = 2
# A loss below this share of the loss of predicting 0 counts as the optimum: without label noise, the losses of good restarts
# are tiny and need not agree.
_NOISELESS = 1e-6


class NetworkFit(AbstractFit):
    """A trained two-layer network.

    `stats` of the chosen restart: `train_loss` (half mean squared error), `width` (neurons alive), and `steps` (3,), the
    gradient steps of phase I, of pruning and of phase II. Of all restarts: `restart` (index of the chosen one),
    `restart_losses` (one for each restart, inf for those not run), `restarts_run`, and the cost: `total_steps` (gradient
    steps), `sample_steps` (the sum over steps of the samples that each used) and `neuron_steps` (the sum over steps of samples
    times neurons). With a probe also `trajectory`, see `TwoPhaseStudent.fit`.
    """

    net: TwoLayer
    status: Int[Array, "*batch"]
    stats: dict[str, Any]

    def predict(self, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        dtype = jnp.result_type(x, self.net.w)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), self.net).samples_last(x.T.astype(dtype))

    @property
    def as_network(self) -> TwoLayer:
        return self.net


class TwoPhaseStudent(AbstractEstimator):
    r"""A two-layer network trained by noisy, then by vanilla gradient descent, with defaults that need no tuning.

    `TwoPhaseStudent(width=m)` explores with 2 m neurons in phase I, prunes them to m at the switch, and repeats until two
    restarts agree. `TwoPhaseStudent(width="auto")` finds the width from the data. The fit is the restart with the smallest
    training loss, so no test data are used. `TwoPhaseStudent.paper(...)` has the settings of the paper's experiment.
    `noisy=NoisyPhase(width=m)` is the paper's algorithm, the same width in both phases, with the other defaults of this class.

    **Arguments:**

    - `width`: number of neurons of the fit. `"auto"` chooses it by Schwarz's information criterion while pruning
      (`tsjax.estimators.pruning`), between 1 and the width of phase I; `fit.stats["width"]` holds the result.
    - `restarts`: the largest number of independent runs on the same data, in rounds of two. The run with the smallest final
      training loss (for `"auto"`, the smallest criterion) is the fit.
    - `noisy`, `vanilla`: the two phases. With `width="auto"`, `NoisyPhase(width=...)` is the largest width, 2 d by default.
    - `agreement`: no more restarts run once the two smallest losses differ by at most this share of the estimated Cramér-Rao
      risk 2 L m d / (n - m d), because independent runs seldom end in the same bad optimum. None runs every restart. In a
      batch (`jax.vmap`) the rounds continue until every data set has its agreement; the fits of data sets that had it
      earlier do not change.
    - `init_output_std`: initial a_j ~ N(0, std^2). The default, 0.1, is small because gradient descent nearly conserves
      a_j^2 - |w_j|^2, so that only a neuron with |a_j| < |w_j| can change its sign.
    - `init_neuron_std`: initial w_jk ~ N(0, std^2); 0.7 / sqrt(d) when None.
    - `clip`: R >= 1 trains through the paper's smooth clip rbar = R tanh(r |r| / (2R)) of every parameter in phase I;
      None trains the parameters themselves.
    - `activation`: phi, one of `tsjax.activations`. If it is not homogeneous, the switch leaves the network as it is, and
      phase II trains both layers.

    **Raises:** ValueError for values out of range, and for a phase I with fewer neurons than the student.
    """

    width: int | Literal["auto"] = eqx.field(static=True)
    restarts: int = eqx.field(static=True, default=8)
    noisy: NoisyPhase = NoisyPhase()
    vanilla: VanillaPhase = VanillaPhase()
    agreement: float | Float[Array, ""] | None = 0.5
    init_output_std: float | Float[Array, ""] = 0.1
    init_neuron_std: float | Float[Array, ""] | None = None
    clip: float | Float[Array, ""] | None = None
    activation: AbstractActivation = eqx.field(static=True, default=relu)

    def __check_init__(self):
        check_activation(self.activation)
        if isinstance(self.width, str) and self.width != "auto":
            raise ValueError(f"width must be a number of neurons or 'auto', got {self.width!r}.")
        if isinstance(self.width, int):
            check_at_least("TwoPhaseStudent", width=(self.width, 1))
            if self.noisy.width is not None and self.noisy.width < self.width:
                raise ValueError(
                    f"phase I has {self.noisy.width} neurons, fewer than the {self.width} of the student: neurons are pruned "
                    "between the phases, never added. Raise NoisyPhase(width=...) or lower the student's width."
                )
        check_at_least("TwoPhaseStudent", restarts=(self.restarts, 1), agreement=(self.agreement, 0))
        check_at_least("TwoPhaseStudent", init_output_std=(self.init_output_std, 0))
        check_at_least("TwoPhaseStudent", init_neuron_std=(self.init_neuron_std, 0), clip=(self.clip, 1))

    @classmethod
    def paper(cls, width: int, clip: float = 2.0) -> "TwoPhaseStudent":
        """The settings of the experiment of arXiv:2205.14818, section 5: theta(0) ~ N(0, I), eta_1 = eta_2 = 0.01,
        beta = 1/T = 100, lambda = 0.01, 1000 + 2000 steps, the clip, and one run. The paper does not state R, the `clip`; the
        default of 2 is our choice."""
        return cls(
            width=width,
            restarts=1,
            noisy=NoisyPhase(width=width, steps=1000, step_size=0.01, temperature=0.01, regularisation=0.01),
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
        probe_steps: int | tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    ) -> NetworkFit:
        """Trains on one data set, x (n, d), y (n,), in the dtype of the data.

        A `probe` maps the current network to a dict of scalars, for instance
        `lambda net: {"risk": network_risk(net, teacher, inputs)}`. `fit.stats["trajectory"]` holds its values with
        `train_loss` and `step` (counted within each phase), as arrays (k,) over phase I and then phase II. `probe_steps` is
        either the number of logarithmically spaced steps in each phase (once phase II has stopped, the values repeat), or the
        pair (steps of phase I, steps of phase II); phase II then runs through the last of its steps.

        **Raises:** ValueError for data that are not finite or of the wrong shape, for a probe without steps or steps without a
        probe, and for steps that are negative or not increasing.
        """
        check_data(key, data, weights=True)
        if (probe is None) != (probe_steps is None):
            raise ValueError("probe and probe_steps go together: give both or neither.")
        if isinstance(probe_steps, int):
            check_at_least("TwoPhaseStudent.fit", probe_steps=(probe_steps, 1))
        elif probe_steps is not None:
            for steps in probe_steps:
                if list(steps) != sorted(set(steps)) or (steps and steps[0] < 0):
                    raise ValueError(f"probe_steps must be increasing and >= 0, got {steps}.")
        return _fit_two_phase(floats_as_arrays(self), key, data, probe, probe_steps)


class OracleStudent(AbstractEstimator):
    """Phase II started at the teacher: the reference at finite n for a near-global optimum. A learner, which does not know the
    teacher, cannot use it."""

    vanilla: VanillaPhase = VanillaPhase()

    @property
    def needs_oracle(self) -> bool:
        return True

    # There is no fit without an oracle, so the signature requires one.
    def fit(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, key: PRNGKeyArray, data: Dataset, *, oracle: Oracle
    ) -> NetworkFit:
        """Trains on one data set, x (n, d) and y (n,), from the teacher of `oracle` = (problem, teacher). `key` is not used.

        **Raises:** ValueError for data that are not finite or of the wrong shape, and for a teacher that is not a `TwoLayer`.
        """
        check_data(key, data, weights=True)
        teacher = oracle[1]
        if not isinstance(teacher, TwoLayer):
            raise ValueError(
                f"the oracle student starts at a two-layer teacher, got a {type(teacher).__name__}. Leave this student out for "
                "other teachers."
            )
        return _fit_oracle(floats_as_arrays(self), data, teacher)


class _Run(eqx.Module):
    """The result of one restart. `score` orders restarts, also those of different widths; it is inf if the run diverged."""

    net: TwoLayer
    score: Float[Array, ""]
    loss: Float[Array, ""]
    width: Int[Array, ""]
    steps: Int[Array, "3"]
    status: Int[Array, ""]
    trajectory: Any


class _Rounds(eqx.Module):
    """State of the loop over rounds of restarts: the best run so far, and the score of the second best."""

    done: Int[Array, ""]
    best: _Run
    restart: Int[Array, ""]
    second: Float[Array, ""]
    losses: Float[Array, " restarts"]
    total_steps: Int[Array, ""]
    sample_steps: Float[Array, ""]
    neuron_steps: Float[Array, ""]


@compiled
def _fit_two_phase(student: TwoPhaseStudent, key, data: Dataset, probe, probe_steps) -> NetworkFit:
    data = in_one_type(data)
    (d, dtype), n = (data.d, data.x.dtype), row_count(data)
    wanted = student.width if isinstance(student.width, int) else None
    explored = student.noisy.width or 2 * (wanted or d)
    # The width m in the formulas of phase I.
    assumed = wanted or (explored + 1) // 2
    each = d + (student.activation.degree is None)
    samples = student.noisy.samples or 64 * assumed * d
    # A random part, because data often come sorted. No restart has the same key.
    data_one = some_rows(jr.fold_in(key, student.restarts + 1), data, samples)
    n_one = row_count(data_one)
    both = ((), ()) if probe_steps is None else probe_steps
    steps_one, steps_two = (both, both) if isinstance(both, int) else both
    measure = None if probe is None else lambda net: {"train_loss": loss_of(net, None), **probe(net)}
    loss_of, zero_loss = squared.on(data), 0.5 * weighted_mean(data.y**2, data.weight)

    neuron_std = 0.7 / d**0.5 if student.init_neuron_std is None else student.init_neuron_std

    def start(key_a, key_w) -> TwoLayer:
        return TwoLayer(
            a=as_leaf(student.init_output_std, dtype) * jr.normal(key_a, (explored,), dtype),
            w=as_leaf(neuron_std, dtype) * jr.normal(key_w, (explored, d), dtype),
            activation=student.activation,
        )

    def run(restart_key) -> _Run:
        key_a, key_w, key_noise = jr.split(restart_key, 3)
        one = noisy_descent(
            student.noisy, key_noise, start(key_a, key_w), assumed, student.clip, data_one, measure, steps_one
        )
        net = one.model
        width, pruning = jnp.asarray(explored, jnp.int32), jnp.zeros((), jnp.int32)
        if wanted != explored:
            net, width, pruning = prune(net, data, wanted)
        two = vanilla_descent(student.vanilla, net, width, data, measure, steps_two)
        score = information_criterion(two.loss, width * each, n) if wanted is None else jnp.log(two.loss)
        trajectory = None
        if probe is not None:
            trajectory = jax.tree.map(lambda *parts: jnp.concatenate(parts), one.trajectory, two.trajectory)
        failed = (two.status == Status.DIVERGED) | jnp.isnan(score)
        score = jnp.where(failed, jnp.inf, score).astype(dtype)
        return _Run(
            two.model, score, two.loss, width, jnp.stack([one.steps, pruning, two.steps]), two.status, trajectory
        )

    def unsettled(state: _Rounds):
        if student.agreement is None:
            return state.done < student.restarts
        parameters = state.best.width * each
        # Scores are log losses (or criteria), so their gap is about that of the losses relative to the smaller one.
        tolerance = 2 * as_leaf(student.agreement, dtype) * parameters / jnp.maximum(n - parameters, 1)
        settled = state.second - state.best.score <= tolerance
        settled |= jnp.isfinite(state.second) & (state.best.loss <= _NOISELESS * zero_loss)
        return (state.done < student.restarts) & ~settled

    def one_round(state: _Rounds) -> _Rounds:
        indices = state.done + jnp.arange(size)
        runs = jax.vmap(run)(jax.vmap(functools.partial(jr.fold_in, key))(indices))
        # With an odd number of restarts, the last round runs one more, which does not count.
        counts = indices < student.restarts
        scores = jnp.where(counts, runs.score, jnp.inf)
        first = jnp.argmin(scores)
        challenger = jax.tree.map(lambda leaf: leaf[first], runs)
        better = (scores[first] < state.best.score) | (state.done == 0)
        second = jnp.sort(jnp.concatenate([scores, jnp.stack([state.best.score, state.second])]))[1]
        steps = jnp.where(counts[:, None], runs.steps, 0)
        seen = steps * jnp.stack([jnp.asarray(rows, dtype) for rows in (n_one, n, n)])[None, :]
        trained = jnp.stack([jnp.full(size, explored), jnp.full(size, explored), runs.width], axis=1)
        return _Rounds(
            done=jnp.minimum(state.done + size, student.restarts),
            best=jax.tree.map(lambda new, old: jnp.where(better, new, old), challenger, state.best),
            restart=jnp.where(better, indices[first], state.restart).astype(jnp.int32),
            second=second,
            losses=state.losses.at[indices].set(runs.loss, mode="drop"),
            total_steps=state.total_steps + jnp.sum(steps, dtype=jnp.int32),
            sample_steps=state.sample_steps + jnp.sum(seen),
            neuron_steps=state.neuron_steps + jnp.sum(seen * trained),
        )

    size = min(_ROUND, student.restarts)
    infinite, zero = jnp.asarray(jnp.inf, dtype), jnp.zeros((), jnp.int32)
    kept, trajectory = wanted or explored, None
    if probe is not None:
        # Only a probe's values have unknown shapes. Otherwise no run is traced for its shapes alone.
        shapes = jax.eval_shape(lambda key: run(key).trajectory, key)
        trajectory = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    net = TwoLayer(jnp.zeros(kept, dtype), jnp.zeros((kept, d), dtype), student.activation)
    none_yet = _Run(net, infinite, infinite, zero, jnp.zeros(3, jnp.int32), zero, trajectory)
    losses = jnp.full(student.restarts, jnp.inf, dtype)
    no_cost = jnp.zeros((), dtype)
    state = _Rounds(zero, none_yet, zero, infinite, losses, zero, no_cost, no_cost)
    state = one_round(state) if student.restarts <= size else jax.lax.while_loop(unsettled, one_round, state)
    best = state.best
    stats: dict[str, Any] = {
        "train_loss": best.loss,
        "width": best.width,
        "steps": best.steps,
        "restart": state.restart,
        "restart_losses": state.losses,
        "restarts_run": state.done,
        "total_steps": state.total_steps,
        "sample_steps": state.sample_steps,
        "neuron_steps": state.neuron_steps,
    }
    if probe is not None:
        stats["trajectory"] = best.trajectory
    return NetworkFit(net=best.net, status=best.status, stats=stats)


@compiled
def _fit_oracle(student: OracleStudent, data: Dataset, teacher: TwoLayer) -> NetworkFit:
    data = in_one_type(data)
    start = absorb_output_weights(jax.tree.map(lambda leaf: leaf.astype(data.x.dtype), teacher))
    width = start.a.shape[0]
    done = vanilla_descent(student.vanilla, start, width, data)
    loss, steps, n = done.loss, done.steps, row_count(data)
    zero = jnp.zeros_like(steps)
    stats = {
        "train_loss": loss,
        "width": jnp.asarray(width, jnp.int32),
        "steps": jnp.stack([zero, zero, steps]),
        "restart": zero,
        "restart_losses": loss[None],
        "restarts_run": zero + 1,
        "total_steps": steps,
        "sample_steps": steps.astype(loss.dtype) * n,
        "neuron_steps": steps.astype(loss.dtype) * (n * width),
    }
    return NetworkFit(net=done.model, status=done.status, stats=stats)
