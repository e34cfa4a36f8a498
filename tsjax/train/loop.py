"""The training loop of all students."""

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..fast import descent
from ..fast.steps import Steps, samples_for
from ..losses import AbstractObjective, Objective, Penalised, Squared, check, on, outputs_of
from ..network import TwoLayer
from ..optim import Descent, as_leaf, noise_seed
from ..status import Status
from .batches import AbstractBatches
from .stop import NEVER, AbstractStop

M = TypeVar("M")
Probe = Callable[[Any], dict[str, Array]]

# The stream of the training key for random numbers of the objective, such as random views.
_OBJECTIVE_STREAM = 0x0B1


class Trained(eqx.Module, Generic[M]):
    """A trained model; the `loss` of this model, as `train` defines it; the number of steps; the status; and the values of the
    probe (None without a probe)."""

    model: M
    loss: Float[Array, ""]
    steps: Int[Array, ""]
    status: Int[Array, ""]
    trajectory: dict[str, Array] | None


class _State(eqx.Module):
    """The parameters; the states of the optimizer, the batches and the stopping rule; the loss before the last step; the number
    of steps; and whether training has ended."""

    params: Any
    opt_state: Any
    batches: Any
    stop: Any
    loss: Float[Array, ""]
    step: Int[Array, ""]
    done: Array


def train(
    key: PRNGKeyArray,
    model: M,
    objective: Objective,
    batches: AbstractBatches,
    optimizer: optax.GradientTransformation,
    *,
    steps: int | Int[Array, ""],
    trainable: Any = eqx.is_inexact_array,
    stop: AbstractStop = NEVER,
    largest_loss: float | Float[Array, ""] = math.inf,
    probe: Probe | None = None,
    probe_at: int | tuple[int, ...] = (),
) -> Trained[M]:
    r"""Minimises objective(model, batch, key) over the trainable leaves of a model by an optax optimizer.

    It trains one model. Use `jax.vmap` for many models, which may differ in every array: initial weights, step sizes,
    penalties.

    **Arguments:**

    - `key`: draws the order of mini-batches, fresh samples, and the objective's own random numbers.
    - `model`: any Equinox module, or pytree of arrays that the objective takes.
    - `objective`: one of `tsjax.losses`, or any function (model, batch, key) -> scalar.
    - `batches`: `FullBatch(data)`, `MiniBatches(data, size)` or `Online(instance, size)`.
    - `optimizer`: any optax transformation. If its `update` takes `value`, `grad` and `value_fn` (L-BFGS, Polyak steps,
      reduction on plateaus) or `grad_fn` (SAM), it gets those of the batch of the step.
    - `steps`: the largest number of gradient steps.
    - `trainable`: which leaves are trained, as a function of a leaf or a tree of booleans (`equinox.partition`).
    - `stop`: a rule that ends training earlier.
    - `largest_loss`: a loss above it counts as divergence.
    - `probe`: a function of the model that returns a dict of arrays.
    - `probe_at`: either the number of log-spaced steps at which the probe is called, or the steps themselves. In the second
      case training runs through the last of these steps, even if the rule would stop it earlier.

    **Returns:** a `Trained`. Its `loss` is the objective of the final model on all data of `batches`; on a stream, it is the
    objective on the last batch before the last step. Its `status` is DIVERGED if this loss or a parameter is not finite or the
    loss exceeds `largest_loss`, CONVERGED if the rule stopped training, and STEP_LIMIT otherwise.

    **Raises:** ValueError for an `optimizer` that is not an optax transformation, or that needs other arguments than those
    above; and if the model, the data and the objective do not fit together.

    >>> import optax
    >>> data = ts.Dataset(x=jnp.array([[1.0], [2.0]]), y=jnp.array([2.0, 4.0]))
    >>> line = ts.TwoLayer(a=jnp.ones(1), w=jnp.ones((1, 1)))
    >>> done = ts.train(jax.random.key(0), line, ts.losses.squared, ts.FullBatch(data), optax.sgd(0.1), steps=100)
    >>> round(float(done.model(jnp.array([3.0]))), 3), done.steps.item()
    (6.0, 100)
    """
    _check(key, model, objective, batches, optimizer)
    params, rest = eqx.partition(model, trainable)
    extended = optax.with_extra_args_support(optimizer)
    key_objective = jr.fold_in(key, _OBJECTIVE_STREAM)
    # A fixed batch is prepared once.
    prepared = None if batches.fixed is None else on(objective, batches.fixed)

    def loss_at(step, batch_state):
        """The loss as a function of the parameters, and the new state of the batches."""
        own = jr.fold_in(key_objective, step)
        if prepared is not None:
            loss = prepared
            return lambda params: loss(eqx.combine(params, rest), own), batch_state
        batch, batch_state = batches.at(key, step, batch_state)
        return lambda params: objective(eqx.combine(params, rest), batch, own), batch_state

    def one_step(step, carry):
        params, opt_state, batch_state, _ = carry
        loss_fn, batch_state = loss_at(step, batch_state)
        loss, grad = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = _update(extended, grad, opt_state, params, loss, loss_fn)
        return optax.apply_updates(params, updates), opt_state, batch_state, loss

    # The loss is not computed if nothing uses it.
    watched = stop.every is not None or batches.data is None
    launch = _launcher(model, params, objective, batches, optimizer)

    def several(state: _State, end) -> _State:
        """Steps up to `end`, without calls of the stopping rule."""

        def loop(carry, start, end):
            if watched:
                return jax.lax.fori_loop(start, end, one_step, carry)
            blind = lambda i, carry: one_step(i, (*carry, None))[:3]
            return *jax.lax.fori_loop(start, end, blind, carry[:3]), carry[3]

        carry = (state.params, state.opt_state, state.batches, state.loss)
        params, opt_state, batch_state, loss = (launch or loop)(carry, state.step, end)
        return _State(params, opt_state, batch_state, state.stop, loss, end, state.done)

    def segment(state: _State, end, through: bool) -> _State:
        assert stop.every is not None
        # In a batch, a student whose training has ended waits for the others, and a kernel then makes no steps for it.
        length = jnp.minimum(stop.every, end - state.step)
        length = length if through else jnp.where(state.done, 0, length)
        new = several(state, state.step + length)
        remembered, done = stop.look(state.stop, eqx.combine(new.params, rest), state.loss, new.loss)
        # A segment shortened by the step limit or a probe has fewer than `every` steps, so the rule must not judge it.
        whole = length == stop.every
        remembered = jax.tree.map(lambda now, old: jnp.where(whole, now, old), remembered, state.stop)
        lost = ~jnp.isfinite(new.loss) | (new.loss > largest_loss)
        return eqx.tree_at(
            lambda s: (s.stop, s.done), new, (remembered, (whole & done) | lost), is_leaf=lambda leaf: leaf is None
        )

    def advance(state: _State, end, through: bool = False) -> _State:
        """Trains up to step `end`, or until the rule stops it; with `through`, up to `end` in any case."""
        if stop.every is None:
            return several(state, end)
        through = through or not stop.ends
        going = lambda s: (s.step < end) if through else (s.step < end) & ~s.done
        return jax.lax.while_loop(going, lambda s: segment(s, end, through), state)

    state = _State(
        params=params,
        opt_state=extended.init(params),
        batches=batches.start(key),
        stop=stop.start(model),
        loss=jnp.asarray(jnp.inf, _loss_dtype(loss_at, params, batches.start(key))),
        step=jnp.zeros((), jnp.int32),
        done=jnp.zeros((), bool),
    )
    values = None
    if probe is not None:
        by_number = isinstance(probe_at, int)
        marks = log_spaced(int(steps), probe_at, stop.every or 1) if isinstance(probe_at, int) else probe_at

        def to_mark(state: _State, mark):
            state = advance(state, mark, through=not by_number)
            return state, {"step": state.step, **probe(eqx.combine(state.params, rest))}

        state, values = jax.lax.scan(to_mark, state, jnp.asarray(marks, jnp.int32))
        steps = jnp.maximum(steps, max(marks, default=0))
    state = advance(state, jnp.asarray(steps, jnp.int32))
    final = eqx.combine(state.params, rest)
    final = final if stop.every is None else stop.chosen(state.stop, final)
    loss = state.loss
    if batches.data is not None:
        whole = prepared if prepared is not None else on(objective, batches.data)
        loss = whole(final, jr.fold_in(key_objective, state.step))
    return Trained(
        final, loss, state.step, _status(eqx.filter(final, trainable), loss, largest_loss, state.done), values
    )


def _loss_dtype(loss_at, params, batch_state):
    return jax.eval_shape(lambda: loss_at(jnp.zeros((), jnp.int32), batch_state)[0](params)).dtype


def _status(params, loss, largest_loss, done) -> Int[Array, ""]:
    finite = jnp.isfinite(loss) & (loss <= largest_loss)
    for leaf in jax.tree.leaves(params):
        finite &= jnp.all(jnp.isfinite(leaf))
    return jnp.where(finite, jnp.where(done, Status.CONVERGED, Status.STEP_LIMIT), Status.DIVERGED).astype(jnp.int32)


# The sets of arguments that optimizers may take beside the gradient. An optimizer raises an error for arguments that it does
# not know, so they are tried one after another.
_ARGUMENTS = (("value", "grad", "value_fn"), ("value", "grad", "value_fn", "grad_fn"), ("grad_fn",), ())


def _update(optimizer, grad, opt_state, params, loss, loss_fn):
    known = {"value": loss, "grad": grad, "value_fn": loss_fn, "grad_fn": lambda p, _=0: jax.grad(loss_fn)(p)}
    errors = []
    for names in _ARGUMENTS:
        try:
            return optimizer.update(grad, opt_state, params, **{name: known[name] for name in names})
        except (TypeError, ValueError) as error:
            errors.append(error)
    # If the optimizer needs an argument that is not available, the error of the last call, without arguments, names it.
    reason = str(errors[-1]).partition("\n")[0].rstrip(".")
    raise ValueError(
        f"the optimizer cannot make a step: {reason}. Beside the gradient it can get `value`, `grad` and `value_fn`, or "
        "`grad_fn`, of the step's batch; wrap it in an optax.GradientTransformation that needs no other."
    ) from errors[-1]


def _check(key, model, objective, batches: AbstractBatches, optimizer) -> None:
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(f"optimizer must be an optax optimizer such as optax.adam(0.01), got {optimizer!r}.")
    # An objective that is a user's own function may take any model and any data.
    if not isinstance(objective, AbstractObjective):
        return
    batch = batches.data
    if batch is None:
        batch = jax.eval_shape(lambda: batches.at(key, jnp.zeros((), jnp.int32), batches.start(key))[0])
    check(objective, jax.eval_shape(lambda x: outputs_of(model, x), batch.x), batch)


def log_spaced(steps: int, points: int, segment: int = 1) -> tuple[int, ...]:
    """0 and about `points` logarithmically spaced steps up to `steps`. Steps above `segment` are multiples of it, so that
    probes do not shorten a segment of the stopping rule, and training with a probe is the same as without."""
    marks = {0, min(segment, steps), steps}
    for i in range(points):
        mark = steps ** (i / max(points - 1, 1)) if steps else 0.0
        marks.add(min(round(mark) if mark <= segment else segment * math.ceil(mark / segment), steps))
    return tuple(sorted(marks))


def _launcher(model, params, objective, batches: AbstractBatches, optimizer):
    """A function that does many steps of plain or noisy gradient descent of a two-layer network in one call
    (`tsjax.fast.descent`), or None if no kernel can do this training."""
    data, penalty, plain = batches.fixed, 0.0, objective
    if isinstance(plain, Penalised):
        plain, penalty = plain.objective, plain.l2
    if not (
        isinstance(optimizer, Descent)
        and isinstance(plain, Squared)
        and isinstance(model, TwoLayer)
        and data is not None
        and params.w is not None
        and descent.fits(model, data.x.T, data.y)
        and optimizer.is_constant
    ):
        return None
    both, samples = params.a is not None, samples_for(model.activation, data.x.T, data.y, data.weight)
    dtype = model.w.dtype
    # They are no schedules, since the optimizer is constant.
    step_size, temperature, penalty = (
        as_leaf(v, dtype)
        for v in (optimizer.step_size, 0 if optimizer.temperature is None else optimizer.temperature, penalty)
    )
    noise = jnp.sqrt(2 * step_size * temperature)
    seed = jnp.zeros(2, jnp.uint32) if optimizer.key is None else noise_seed(optimizer.key)

    def launch(carry, start, end):
        params, opt_state, batch_state, loss = carry
        a, steps = params.a if both else model.a, Steps(start, end, step_size, noise, penalty, seed)
        a, w, last = descent.descend(a, params.w, samples, steps, output_weights=both, activation=model.activation)
        params = eqx.tree_at(lambda net: net.w, params, w)
        params = eqx.tree_at(lambda net: net.a, params, a) if both else params
        if optimizer.temperature is not None:
            # The state of the noise contains the number of steps.
            opt_state = optax.tree_utils.tree_set(opt_state, step=end)
        return params, opt_state, batch_state, jnp.where(end > start, last, loss)

    return launch
