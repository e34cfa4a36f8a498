"""Rules that end training before its last step."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..losses import Objective
from ..precision import is_traced
from ..task import Dataset


class AbstractStop(eqx.Module):
    """A rule that is checked once every `every` steps, or never if `every` is None."""

    every: eqx.AbstractVar[int | None]

    @abstractmethod
    def start(self, model: Any) -> Any:
        """The state of the rule at step 0."""

    @abstractmethod
    def look(
        self, state: Any, model: Any, before: Float[Array, ""], loss: Float[Array, ""]
    ) -> tuple[Any, Bool[Array, ""]]:
        """The new state of the rule, and whether to stop. `loss` is the objective before the last step, and `before` is the
        objective `every` steps earlier."""

    def chosen(self, state: Any, model: Any) -> Any:
        """The model that training returns: the last one by default; a rule may return a better one from its state."""
        del state
        return model

    @property
    def ends(self) -> bool:
        """Whether the rule may end training. If it never does, all runs of a batch have the same number of steps, so under
        `jax.vmap` a `cond` on the step, such as the new order of an epoch, needs to run only one of its branches."""
        return True


class Never(AbstractStop):
    """Training runs through all its steps."""

    every: int | None = eqx.field(static=True, default=None, init=False)

    def start(self, model: Any) -> None:
        del model

    def look(
        self, state: Any, model: Any, before: Float[Array, ""], loss: Float[Array, ""]
    ) -> tuple[Any, Bool[Array, ""]]:
        raise NotImplementedError("this rule never looks.")


NEVER = Never()


class Flat(AbstractStop):
    """Stops once `every` steps lowered the loss by at most `tolerance` times the loss plus `floor`.

    Use it with full batches, since the loss of random batches is never flat.

    **Raises:** ValueError for `every` < 1, and for a tolerance or floor that is negative or not finite.
    """

    tolerance: float | Float[Array, ""] = 1e-5
    floor: float | Float[Array, ""] = 0.0
    every: int | None = eqx.field(static=True, default=50)

    def __check_init__(self):
        if self.every is None or self.every < 1:
            raise ValueError(f"Flat: every is a number of steps, at least 1; got {self.every}.")
        for name, value in (("tolerance", self.tolerance), ("floor", self.floor)):
            if not is_traced(value) and not 0.0 <= float(value) < float("inf"):
                raise ValueError(f"Flat: {name} must be finite and >= 0, got {value}.")

    def start(self, model: Any) -> None:
        del model

    def look(
        self, state: Any, model: Any, before: Float[Array, ""], loss: Float[Array, ""]
    ) -> tuple[Any, Bool[Array, ""]]:
        del state, model
        dtype = loss.dtype
        allowed = jnp.asarray(self.tolerance).astype(dtype) * loss + jnp.asarray(self.floor).astype(dtype)
        return None, before - loss <= allowed


class Reached(AbstractStop):
    """Stops once value(model) >= level, which is checked every `every` steps.

    `value` is a function of the model that returns a number. If it needs arrays, make it a `jax.tree_util.Partial` or an
    Equinox module that holds them, so that they may be traced. `level` may be traced too.

    **Raises:** ValueError for `every` < 1, and for a level that is NaN.
    """

    value: Callable[[Any], Float[Array, ""]]
    level: float | Float[Array, ""]
    every: int | None = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.every is None or self.every < 1:
            raise ValueError(f"Reached: every is a number of steps, at least 1; got {self.every}.")
        if not is_traced(self.level) and float(self.level) != float(self.level):
            raise ValueError("Reached: level must be a number, got nan.")

    def start(self, model: Any) -> None:
        del model

    def look(
        self, state: Any, model: Any, before: Float[Array, ""], loss: Float[Array, ""]
    ) -> tuple[Any, Bool[Array, ""]]:
        del state, before, loss
        return None, self.value(model) >= self.level


class Validation(AbstractStop):
    """Early stopping: stops once the loss on `data`, which training must not see, has not reached a new minimum in `patience`
    checks in a row, and returns the model with the lowest such loss (Prechelt 1998, "Early stopping - but when?", compares
    rules of this kind).

    **Arguments:**

    - `data`: the validation rows. `tsjax.Student(validation=0.2)` holds out a fifth of its data.
    - `objective`: the loss; `tsjax.Student` uses that of training.
    - `patience`: the number of checks. With None training runs through all its steps, and the best model of all checks is
      returned.
    - `every`: the number of steps from one check to the next.

    **Raises:** ValueError for `every` < 1 or `patience` < 1.
    """

    data: Dataset
    objective: Objective
    patience: int | None = eqx.field(static=True, default=5)
    every: int | None = eqx.field(static=True, default=50)

    def __check_init__(self):
        if self.every is None or self.every < 1 or (self.patience is not None and self.patience < 1):
            raise ValueError(
                f"Validation: every and patience must be at least 1; got every={self.every}, patience={self.patience}."
            )

    @property
    def ends(self) -> bool:
        return self.patience is not None

    def start(self, model: Any) -> Any:
        arrays = eqx.filter(model, eqx.is_inexact_array)
        return self.objective(model, self.data, None), arrays, jnp.zeros((), jnp.int32)

    def look(
        self, state: Any, model: Any, before: Float[Array, ""], loss: Float[Array, ""]
    ) -> tuple[Any, Bool[Array, ""]]:
        del before, loss
        lowest, arrays, waited = state
        now = self.objective(model, self.data, None)
        better = now < lowest
        arrays = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), eqx.filter(model, eqx.is_inexact_array), arrays
        )
        waited = jnp.where(better, 0, waited + 1)
        out_of_patience = jnp.zeros((), bool) if self.patience is None else waited >= self.patience
        return (jnp.where(better, now, lowest), arrays, waited), out_of_patience

    def chosen(self, state: Any, model: Any) -> Any:
        return eqx.combine(state[1], model)
