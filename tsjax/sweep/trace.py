"""What an experiment returns, how large its arrays are, and what theory says about it, found out before anything runs."""

import json
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import TooLargeError
from .experiment import Experiment
from .theory import Theory
from .values import canonical
from .warm import warm_of

# By function, then by the text of the static arguments, or of the curve.
_KNOWN: weakref.WeakKeyDictionary[Callable, dict[str, dict[str, jax.ShapeDtypeStruct]]] = weakref.WeakKeyDictionary()
_THEORIES: weakref.WeakKeyDictionary[Callable, dict[str, Theory]] = weakref.WeakKeyDictionary()

# No machine has so much memory. From about 2^63 bytes on XLA does not raise an error but ends the process.
_IMPOSSIBLE_BYTES = 2**50


def outputs_of(experiment: Experiment, arguments: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Names, shapes and types of the values that one cell returns. The function is traced once for each combination of static
    arguments, and nothing is compiled. **Raises:** the errors of the function."""
    fixed = {name: arguments[name] for name in experiment.shaping}
    known, static = _KNOWN.setdefault(experiment.fn, {}), json.dumps(fixed, sort_keys=True)
    warm, name = warm_of(experiment), f"outputs of {experiment.name} at {static}"
    if static not in known and warm is not None:
        kept = warm.read(name)
        known |= {} if kept is None else {static: structs(kept)}
    if static not in known:
        traced = {name: np.asarray(value) for name, value in arguments.items() if name not in fixed}

        def returned(key, traced):
            return {name: jnp.asarray(value) for name, value in experiment(key, **fixed, **traced).items()}

        # The types are those of the engine.
        with jax.enable_x64(experiment.x64):
            key = jax.eval_shape(lambda: jax.random.key(0))
            known[static] = dict(jax.eval_shape(returned, key, traced))
        if warm is not None:
            warm.write(name, shapes(known[static]))
    return known[static]


def theory_of(experiment: Experiment, curve: Mapping[str, Any], x: Sequence[float]) -> Theory:
    """`Experiment.theory_at`, which is called only once for a curve and these x, since quadratures take seconds. **Raises:**
    the errors of the theory."""
    if experiment.theory is None:
        return Theory()
    known, name = (
        _THEORIES.setdefault(experiment.theory, {}),
        f"theory of {experiment.name}: {canonical({**curve, '': [*x]})}",
    )
    warm = warm_of(experiment)
    if name not in known and warm is not None:
        kept = warm.read(name)
        known |= {} if kept is None else {name: kept}
    if name not in known:
        known[name] = experiment.theory_at(curve, np.array(x, float))
        if warm is not None:
            warm.write(name, known[name])
    return known[name]


def shapes(outputs: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Only the shapes and types, which can be kept (`Warm.write`)."""
    return {name: (tuple(value.shape), np.dtype(value.dtype)) for name, value in outputs.items()}


def structs(kept: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, jax.ShapeDtypeStruct]:
    """The inverse of `shapes`."""
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in kept.items()}


def check_sizes(program: Any) -> int:
    """The size in bytes of the largest array in a traced program (a jaxpr). **Raises:** TooLargeError for an array that no
    machine can hold."""
    largest = 0
    for aval in _arrays(program, set()):
        size = math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 8)
        if size > _IMPOSSIBLE_BYTES:
            raise TooLargeError(
                f"an array of shape {aval.shape} and type {aval.dtype} (a chunk of cells together) would take {size:.2g} "
                "bytes: take smaller sizes."
            )
        largest = max(largest, int(size))
    return largest


def _arrays(program: Any, seen: set[int]) -> Iterator[Any]:
    """The abstract values of all arrays in a program, those of loops and inner functions included."""
    inner = getattr(program, "jaxpr", program)
    if not hasattr(inner, "eqns") or id(inner) in seen:
        return
    seen.add(id(inner))
    for equation in inner.eqns:
        for variable in equation.outvars:
            if hasattr(variable.aval, "shape") and hasattr(variable.aval, "dtype"):
                yield variable.aval
        for parameter in equation.params.values():
            for part in parameter if isinstance(parameter, list | tuple) else (parameter,):
                yield from _arrays(part, seen)
