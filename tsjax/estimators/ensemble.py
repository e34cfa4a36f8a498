"""Estimators made of others: ensembles, and students trained in stages."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray

from ..network import TwoLayer
from ..status import Status, failed
from ..task import AbstractInstance, Dataset
from .base import AbstractEstimator, AbstractFit, check_at_least
from .student import ModelFit, Student


class EnsembleFit(AbstractFit):
    """The mean of the predictions of its members, without those that failed; NaN where all did.

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
        # A mean of networks is a network of all their neurons; those of a member that failed are none.
        share = jnp.where(used, 1.0 / jnp.sum(used), 0.0).astype(net.a.dtype)[:, None]
        a = jnp.where(used[:, None], net.a, 0.0) * share
        w = jnp.where(used[:, None, None], net.w, 0.0)
        return TwoLayer(a=a.reshape(-1), w=w.reshape(-1, w.shape[-1]), activation=net.activation)

    def members(self, x: Array) -> Array:
        """The predictions of every member, (members, k, *output)."""
        return jax.vmap(lambda fit: fit.predict(x))(self.fits)


class Ensemble(AbstractEstimator):
    """Fits of one estimator to one data set from independent keys, and the mean of their predictions.

    **Arguments:** `estimator`: any whose fit depends on its key, such as a `tsjax.Student`; `members`: the number of fits,
    trained in one program.

    The status is the worst one of a member that did not fail, or DIVERGED where all failed.

    **Raises:** ValueError for what is no estimator, and for fewer than one member.
    """

    estimator: AbstractEstimator
    members: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        if not isinstance(self.estimator, AbstractEstimator):
            raise ValueError(f"an Ensemble is made of an estimator such as ts.Student(...), got {self.estimator!r}.")
        check_at_least("Ensemble", members=(self.members, 1))

    def fit(self, key: PRNGKeyArray, data: Dataset, **options: Any) -> EnsembleFit:
        """Fits every member to the data; `options` are those of the members' `fit`."""
        fits = jax.vmap(lambda own: self.estimator.fit(own, data, **options))(jr.split(key, self.members))
        lost = failed(fits.status)
        worst = jnp.max(jnp.where(lost, Status.CONVERGED, fits.status))
        status = jnp.where(jnp.all(lost), Status.DIVERGED, worst).astype(jnp.int32)
        stats = {**fits.stats, "members_used": jnp.sum(~lost, dtype=jnp.int32)}
        return EnsembleFit(fits=fits, status=status, stats=stats)


class Stages(AbstractEstimator):
    """Students one after another, each starting from the network of the one before: `Stages((first, second))`.

    **Arguments:**

    - `stages`: the students. The first one makes the network.
    - `between`: what happens to the network before the second and each later stage, a function (model, key) -> model for
      each, such as pruning, another scale, or another part that is frozen; nothing when None.

    `stats` are those of the last stage, with `steps` and `sample_steps` summed over all, and `stage_losses`. The status is
    that of the last stage, or DIVERGED where an earlier one diverged.

    **Raises:** ValueError for what are no students, and for another number of functions than of borders between stages.
    """

    stages: tuple[Student, ...]
    between: tuple[Callable[[Any, PRNGKeyArray], Any], ...] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not self.stages or not all(isinstance(stage, Student) for stage in self.stages):
            raise ValueError(f"stages are ts.Student(...), at least one, got {self.stages!r}.")
        if self.between is not None and len(self.between) != len(self.stages) - 1:
            raise ValueError(
                f"between has one function for each of the {len(self.stages) - 1} borders of {len(self.stages)} stages, got "
                f"{len(self.between)}."
            )

    def fit(self, key: PRNGKeyArray, data: Dataset | AbstractInstance) -> ModelFit:
        """Trains every stage on the data."""
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
