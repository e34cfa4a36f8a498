"""Estimators that combine others: ensembles, and students trained in stages."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray

from ..network import TwoLayer
from ..status import Status, failed
from ..task import AbstractInstance, Dataset, check_key
from .base import AbstractEstimator, AbstractFit, check_at_least
from .student import ModelFit, Student


class EnsembleFit(AbstractFit):
    """The mean of the predictions of the members that did not fail; NaN if all failed.

    `stats`: those of the members, each with an axis (members,) in front, and `members_used`, the number that did not fail.
    """

    fits: AbstractFit
    status: Int[Array, "*batch"]
    stats: dict[str, Any]

    def predict(self, x: Array) -> Array:
        every = self.members(x)
        used = ~failed(self.fits.status).reshape(-1, *(1,) * (every.ndim - 1))
        return jnp.sum(jnp.where(used, every, 0.0), axis=0) / jnp.sum(used)

    @property
    def as_network(self) -> TwoLayer | None:
        net = self.fits.as_network
        if net is None:
            return None
        used = ~failed(self.fits.status)
        # A mean of networks is one network with all their neurons. The neurons of members that failed are set to 0.
        share = jnp.where(used, 1.0 / jnp.sum(used), 0.0).astype(net.a.dtype)[:, None]
        a = jnp.where(used[:, None], net.a, 0.0) * share
        w = jnp.where(used[:, None, None], net.w, 0.0)
        return TwoLayer(a=a.reshape(-1), w=w.reshape(-1, w.shape[-1]), activation=net.activation)

    def members(self, x: Array) -> Array:
        """The predictions of every member, (members, k, *output)."""
        return jax.vmap(lambda fit: fit.predict(x))(self.fits)


class Ensemble(AbstractEstimator):
    """Fits one estimator to one data set with independent keys, and predicts the mean of these members.

    **Arguments:**

    - `estimator`: any estimator whose fit depends on its key, such as a `tsjax.Student`.
    - `members`: the number of fits, which are trained in one program.

    The status is STEP_LIMIT if a member reached its step limit, DIVERGED if all members failed, and CONVERGED otherwise.
    Members that failed do not count if others did not.

    **Raises:** ValueError for an `estimator` that is not one, and for fewer than one member.
    """

    estimator: AbstractEstimator
    members: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        if not isinstance(self.estimator, AbstractEstimator):
            raise ValueError(f"an Ensemble needs an estimator such as ts.Student(...), got {self.estimator!r}.")
        check_at_least("Ensemble", members=(self.members, 1))

    def fit(self, key: PRNGKeyArray, data: Dataset, **options: Any) -> EnsembleFit:
        """Fits every member to the data; `options` are passed to the members' `fit`."""
        check_key(key)
        fits = jax.vmap(lambda own: self.estimator.fit(own, data, **options))(jr.split(key, self.members))
        lost = failed(fits.status)
        worst = jnp.max(jnp.where(lost, Status.CONVERGED, fits.status))
        status = jnp.where(jnp.all(lost), Status.DIVERGED, worst).astype(jnp.int32)
        stats = {**fits.stats, "members_used": jnp.sum(~lost, dtype=jnp.int32)}
        return EnsembleFit(fits=fits, status=status, stats=stats)


class Stages(AbstractEstimator):
    """Students trained one after another, each from the network of the one before: `Stages((first, second))`.

    **Arguments:**

    - `stages`: the students. The first one makes the network.
    - `between`: one function (model, key) -> model for each stage after the first, applied to the network before that stage:
      pruning, for example, or another scale. None leaves the network as it is.

    `stats` are those of the last stage, with `steps` and `sample_steps` summed over all stages, and `stage_losses`, the
    training loss at the end of each. The status is that of the last stage, or DIVERGED if any stage failed.

    **Raises:** ValueError for stages that are not students, and for a number of functions other than that of the stages after
    the first.
    """

    stages: tuple[Student, ...]
    between: tuple[Callable[[Any, PRNGKeyArray], Any], ...] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not self.stages or not all(isinstance(stage, Student) for stage in self.stages):
            raise ValueError(f"stages are ts.Student(...), at least one, got {self.stages!r}.")
        if self.between is not None and len(self.between) != len(self.stages) - 1:
            raise ValueError(
                f"between must have one function for each stage after the first, {len(self.stages) - 1} for "
                f"{len(self.stages)} stages; got {len(self.between)}."
            )

    def fit(self, key: PRNGKeyArray, data: Dataset | AbstractInstance) -> ModelFit:
        """Trains every stage on the data. Raises the errors of `Student.fit`."""
        check_key(key)
        model, fits = None, []
        for place, stage in enumerate(self.stages):
            key_fit, key_between = jr.split(jr.fold_in(key, place))
            if place and self.between is not None:
                model = self.between[place - 1](model, key_between)
            fits.append(stage.fit(key_fit, data, start=model))
            model = fits[-1].model
        diverged = jnp.any(jnp.stack([failed(fit.status) for fit in fits]))
        stats = dict(fits[-1].stats)
        for name in ("steps", "sample_steps"):
            stats[name] = sum(fit.stats[name] for fit in fits[1:]) + fits[0].stats[name]
        stats["stage_losses"] = jnp.stack([fit.stats["train_loss"] for fit in fits])
        status = jnp.where(diverged, Status.DIVERGED, fits[-1].status).astype(jnp.int32)
        return ModelFit(model=model, status=status, stats=stats)
