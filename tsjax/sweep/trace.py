"""What an experiment returns, found out without running it."""

import json
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .experiment import Experiment

# By function, then by the static arguments as text.
_KNOWN: weakref.WeakKeyDictionary[Callable, dict[str, dict[str, jax.ShapeDtypeStruct]]] = weakref.WeakKeyDictionary()


def outputs_of(experiment: Experiment, arguments: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Names, shapes and types of what one cell returns. The function is traced, once for each combination of static arguments,
    and nothing is compiled. **Raises:** whatever the function raises."""
    fixed = {name: arguments[name] for name in experiment.static}
    known, static = _KNOWN.setdefault(experiment.fn, {}), json.dumps(fixed, sort_keys=True)
    if static not in known:
        traced = {name: np.asarray(value) for name, value in arguments.items() if name not in fixed}

        def returned(key, traced):
            return {name: jnp.asarray(value) for name, value in experiment(key, **fixed, **traced).items()}

        # As the engine runs it.
        with jax.enable_x64(experiment.x64):
            key = jax.eval_shape(lambda: jax.random.key(0))
            known[static] = dict(jax.eval_shape(returned, key, traced))
    return known[static]
