"""float64 where the mathematics needs it, without touching the user's global JAX flags."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
from jax.core import Tracer

_P = ParamSpec("_P")
_T = TypeVar("_T")


def is_traced(value: object) -> bool:
    """Whether only the shape of `value` is known, as inside jit, vmap or grad; its numbers cannot be checked then."""
    return isinstance(value, Tracer)


def requires_float64(fn: Callable[_P, _T]) -> Callable[_P, _T]:
    """Runs `fn` with 64-bit types enabled.

    If `jax_enable_x64` is already on, this changes nothing. Otherwise an eager call runs inside a local `jax.enable_x64(True)`.
    A call on traced values cannot, since the surrounding `jit` has already fixed its types, and raises a RuntimeError that says
    what to switch on.
    """

    @functools.wraps(fn)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
            return fn(*args, **kwargs)
        if any(is_traced(leaf) for leaf in jax.tree.leaves((args, kwargs))):
            raise RuntimeError(
                f"{fn.__qualname__} needs float64, but it was called inside jit, vmap or grad with 64-bit types off. "
                "Put the outermost call in `with jax.enable_x64(True):`, or set "
                "`jax.config.update('jax_enable_x64', True)` at the start of your script."
            )
        with jax.enable_x64(True):
            return fn(*args, **kwargs)

    return wrapper
