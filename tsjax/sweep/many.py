"""One function of a random key for very many keys: more students than memory holds at once."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt32
from rich.console import Console
from rich.progress import Progress

from .devices import as_keys, one_blas_thread, pad_batch, sharded_vmap, usable_devices, use_machine
from .faults import out_of_memory

# The number of keys at once, for each device.
_AT_ONCE = {"cpu": 64}
_AT_ONCE_ELSEWHERE = 4096


def map_many(
    fn: Callable[[Key[Array, ""]], Any],
    keys: Key[Array, " B"] | UInt32[Array, "B 2"],
    *,
    at_once: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: bool = False,
) -> Any:
    """fn(key) for B keys, vectorised on every device and sharded over all of them, `at_once` keys at a time.

    Let `fn` draw its data set from its key, train on it, and return a few numbers. Data then never travel to the devices, and
    memory holds those of `at_once` keys, however many there are. (`tsjax.fit_many` is for data sets that exist already, and
    `tsjax.sweep` keeps its results, resumes, and varies arguments.)

    **Arguments:**

    - `fn`: a pure function of one key that returns arrays, or any pytree of them. It is traced once, under `jax.vmap`, with the
      types that JAX is set to: for exact risks, which are float64, put the call into `with jax.enable_x64(True):`, and
      convert what should be float32.
    - `keys`: (B,) keys, such as `jax.random.split(jax.random.key(0), B)`. Keys of `PRNGKey`, (B, 2), work too.
    - `at_once`: the number of keys in one call of the program; 64 for each core of a CPU by default, and 4096 for each device
      of another kind. If the memory does not suffice, it is halved.
    - `devices`: the devices to use; all local ones by default.
    - `progress`: whether to show a bar on standard error.

    **Returns:** what `fn` returns, as NumPy arrays with a leading axis B.

    **Raises:** ValueError for no keys or `at_once` < 1; TypeError for keys that are not random keys, and for an `fn` that
    cannot be called.

    >>> problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(1), noise_std=0.1)
    >>> def train(key):
    ...     teacher_key, data_key, fit_key = jax.random.split(key, 3)
    ...     data = problem.sample(data_key, problem.sample_teacher(teacher_key), 32)
    ...     return ts.TwoPhaseStudent(1, restarts=1).fit(fit_key, data).stats["train_loss"]
    >>> ts.map_many(train, jax.random.split(jax.random.key(0), 100)).shape
    (100,)
    """
    if not callable(fn):
        raise TypeError(f"fn is a function of one random key, as in lambda key: ...; got {fn!r}.")
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once is a number of keys, at least 1; got {at_once}.")
    keys = as_keys(keys)
    if keys.ndim != 1 or not len(keys):
        raise ValueError(f"keys are (B,) random keys, at least one; got keys of shape {keys.shape}.")
    use_machine()
    chosen = tuple(usable_devices() if devices is None else devices)
    each = _AT_ONCE.get(chosen[0].platform, _AT_ONCE_ELSEWHERE) if at_once is None else -(-at_once // len(chosen))
    each = min(each, -(-len(keys) // len(chosen)))
    program, parts, done = _program(fn, chosen), [], 0
    shown = Progress(console=Console(stderr=True), disable=not progress)
    with one_blas_thread(), shown:
        task = shown.add_task("keys", total=len(keys))
        while done < len(keys):
            block = keys[done : done + each * len(chosen)]
            count = len(block)
            try:
                found = jax.device_get(program(pad_batch(block, each * len(chosen))))
            except Exception as error:
                if not out_of_memory(error) or each == 1:
                    raise
                each //= 2
                continue
            parts.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf[:count]), found))
            done += count
            shown.advance(task, count)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


# The latest functions, so that a second call does not compile again.
@functools.lru_cache(maxsize=8)
def _program(fn: Callable, devices: tuple) -> Callable:
    return sharded_vmap(lambda key: jax.tree.map(jnp.asarray, fn(key)), devices)
