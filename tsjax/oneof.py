"""A value given by its place in a list, where the place may be data, so that several curves can share one compiled program."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Int


class OneOf(eqx.Module):
    """One of several `values`; which one is known only when a program runs.

    An experiment receives a `OneOf` for its argument `curve` if `together` names the value of that argument. Code for all
    `values` is in the program, and `index` says which of them counts: `tsjax.kernels.Switch` chooses among kernels by it, and
    `jax.lax.switch` among functions.

    - `values`: fixes the code, so it is static.
    - `index`: the place of the value, a number or traced, from 0 to len(values) - 1.

    **Raises:** ValueError for an index outside of the values, if it is not traced.

    >>> rule = ts.OneOf(("low", "high"), jnp.asarray(1))
    >>> levels = [0.1 if name == "low" else 1.0 for name in rule.values]
    >>> float(jnp.asarray(levels)[rule.index])
    1.0
    """

    values: tuple[Any, ...] = eqx.field(static=True)
    index: int | Int[Array, ""] = 0

    def __check_init__(self):
        if isinstance(self.index, int) and not 0 <= self.index < len(self.values):
            raise ValueError(f"index = {self.index}: it is the place of one of the {len(self.values)} values.")
