"""From a group of cells to a compiled program: keys, batches, and the memory that the program takes by XLA's analysis."""

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import serialize_executable

from ..fast import native
from ..oneof import OneOf
from ..size import Size
from .devices import sharded, usable_devices
from .errors import no_dict, no_number
from .experiment import RESERVED, Experiment
from .faults import no_jax, number_needed, unhashable, value_needed
from .plan import Cell, Group
from .trace import check_sizes, shapes, structs
from .values import hashable, redacted
from .warm import warm_of

IN_FLIGHT = 2
"""Chunks on the device at a time, including the one that runs."""
# The memory that one chunk may take by XLA's analysis: a share of an accelerator's memory, or this many bytes per CPU device,
# since batches that outgrow the caches of a CPU only slow it down.
_ACCELERATOR_SHARE = 0.8 / IN_FLIGHT
_CPU_BYTES = 512 * 2**20


def memory_budget() -> int:
    """Bytes that one chunk may take on all devices together."""
    devices = usable_devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    return int(sum(_CPU_BYTES if limit is None else _ACCELERATOR_SHARE * limit for limit in limits))


@dataclass(frozen=True)
class Program:
    """A group's compiled program for chunks of `size` cells."""

    call: Callable
    size: int
    bytes: int
    compile_seconds: float
    outputs: dict[str, jax.ShapeDtypeStruct]
    """Shapes and types of the values that one chunk returns."""


# A guess, before compilation, at the memory of a program in multiples of its largest array. It suits kernel estimators and is
# too high for others, whose chunks are then smaller than necessary; this costs less than compiling a program that does not fit.
_ARRAYS = 2.5

# The errors that JAX raises if a traced array is passed to NumPy, or is needed as a Python integer.
_NO_JAX = (jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError)

# The kind of all root keys, even if the user's default is another: random bits of other kinds depend on how cells are batched.
_KEYS = "threefry2x32"


@contextlib.contextmanager
def settings(x64: bool) -> Iterator[None]:
    """Sets, for this thread, the flags of JAX on which records depend: 64-bit types on or off, and Threefry as the kind of the
    keys that cells make themselves."""
    partitionable = jax.threefry_partitionable(True)
    with jax.enable_x64(x64), jax.default_prng_impl(_KEYS), partitionable:
        yield


def key_of(key: int, seed: int, arguments: Mapping[str, Any], independent: tuple[str, ...]) -> jax.Array:
    """The key of a cell: fold_in(root key, seed), and folded once more with a hash of the `independent` arguments, if any."""
    found = jax.random.fold_in(jax.random.key(key, impl=_KEYS), seed)
    return jax.random.fold_in(found, _salt(arguments, independent)) if independent else found


def seed_of(key: int, seed: int, arguments: Mapping[str, Any], independent: tuple[str, ...]) -> int:
    """The integer that a black box gets as its seed: the seed of the record if the sweep's key is 0 and no argument is
    `independent`, else that seed XOR a 32-bit hash of the key and these arguments, so that different seeds stay different."""
    if key == 0 and not independent:
        return seed
    named = {name: redacted(arguments[name]) for name in independent}
    return seed ^ _hashed(json.dumps([key, named], sort_keys=True))


def _cell_function(experiment: Experiment, group: Group) -> Callable:
    # Sizes that share a program are traced; otherwise sizes are plain numbers, and nothing is padded.
    variants, data = group.shared.variants, group.traced(experiment)
    limits = dict(zip(experiment.sized, group.shared.limits, strict=True)) if group.shared.limits else {}
    static = {name: value for name, value in group.static.items() if name not in data}

    def cell(root_key_data, seed, salt, traced):
        # The key of a cell depends only on the root key, the seed and the independent arguments: estimators with one seed see
        # the same data, and a record does not depend on its place in a batch.
        key = jax.random.fold_in(jax.random.wrap_key_data(root_key_data, impl=_KEYS), seed)
        key = jax.random.fold_in(key, salt) if experiment.independent else key
        shared = {name: Size(limit=limit, count=traced[name]) for name, limit in limits.items()}
        shared |= {name: OneOf(variants, traced[name]) for name in data if name not in limits}
        return arrays_of(experiment, experiment(key, **static, **{**traced, **shared}))

    return cell


def _chunk_function(experiment: Experiment, group: Group) -> Callable:
    """The function of a cell, mapped over a chunk. All cells of a chunk have the same sizes and are of one curve, so these stay
    single numbers, while other arguments have one value for each cell. A `lax.cond` on a size, such as whether an epoch is
    over, then runs only one branch, where vmap over sizes would run both; so does the choice among kernels."""
    cell, names = _cell_function(experiment, group), group.traced(experiment)

    def chunk(root_key_data, seeds, salts, traced):
        shared = {name: traced[name][0] for name in names}
        own = {name: values for name, values in traced.items() if name not in shared}
        return jax.vmap(lambda root, seed, salt, values: cell(root, seed, salt, {**values, **shared}))(
            root_key_data, seeds, salts, own
        )

    return chunk


def arrays_of(experiment: Experiment, values: Any) -> dict[str, jax.Array]:
    """The values that a cell returned, as arrays. **Raises:** ValueError for anything but a dict of real numbers and truth
    values."""
    if not isinstance(values, Mapping):
        raise ValueError(f"experiment {experiment.name!r} {no_dict(values)}")
    arrays = {}
    for name, value in values.items():
        try:
            arrays[name] = jnp.asarray(value)
            known = jnp.issubdtype(arrays[name].dtype, jnp.number) or arrays[name].dtype == bool
        except (TypeError, ValueError):
            known = False
        if not known or jnp.issubdtype(arrays[name].dtype, jnp.complexfloating):
            raise ValueError(f"experiment {experiment.name!r} {no_number(name)}")
    return arrays


def _salt(arguments: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return _hashed(json.dumps({name: redacted(arguments[name]) for name in names}, sort_keys=True))


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def inputs_of(cells: tuple[Cell, ...], experiment: Experiment, group: Group, size: int, key: int) -> tuple:
    """Root keys, seeds, salts and traced arguments of cells of a group, padded to `size` by repeating the last cell."""
    cells = (*cells, *[cells[-1]] * size)[:size]
    shared = group.traced(experiment)
    names = [name for name in cells[0].arguments if name not in group.static]
    seeds = np.asarray([cell.seed for cell in cells], np.uint32)
    mixed = experiment.independent
    salts = np.asarray([_salt(cell.arguments, mixed) if mixed else 0 for cell in cells], np.uint32)
    traced = {name: np.asarray([cell.arguments[name] for cell in cells]) for name in names}
    traced |= {name: np.full(size, value) for name, value in shared.items()}
    root = np.asarray(jax.random.key_data(jax.random.key(key, impl=_KEYS)))
    return np.broadcast_to(root, (size, *root.shape)), seeds, salts, traced


def kept_program(experiment: Experiment, group: Group, chunk: int, budget: int) -> Program | None:
    """The program that `compile_group` made from these arguments in an earlier run of the command line (`tsjax.sweep.warm`),
    or None."""
    warm, start = warm_of(experiment), time.perf_counter()
    # If XLA refuses a kept program for any reason, the program is compiled again.
    with contextlib.suppress(Exception):
        found = None if warm is None else warm.read(_kept_name(experiment, group, chunk, budget))
        if found is not None:
            executable, size, bytes, outputs = found
            _register_calls()
            call = serialize_executable.deserialize_and_load(*executable, execution_devices=usable_devices())
            return Program(call, size, bytes, time.perf_counter() - start, structs(outputs))
    return None


def keep_program(experiment: Experiment, group: Group, chunk: int, budget: int, program: Program) -> None:
    """Keeps the program that `compile_group` made from these arguments, for `kept_program`."""
    warm, compiled = warm_of(experiment), program.call
    # Not every program can be serialised on every device, and JAX then raises various errors. A call into Python never can: it
    # is an address in this process.
    with contextlib.suppress(Exception):
        if warm is not None and isinstance(compiled, jax.stages.Compiled) and "callback" not in str(compiled.as_text()):
            content = serialize_executable.serialize(compiled), program.size, program.bytes, shapes(program.outputs)
            warm.write(_kept_name(experiment, group, chunk, budget), content)


def _kept_name(experiment: Experiment, group: Group, chunk: int, budget: int) -> str:
    # Only the shapes and types of inputs enter a program.
    inputs = jax.tree.map(lambda leaf: str(leaf.dtype), inputs_of(group.cells[:1], experiment, group, 1, 0))
    cells, static = min(chunk, len(group.cells)), group.program(experiment)
    return json.dumps(["program", experiment.name, static, str(inputs), cells, budget, experiment.x64])


@functools.cache
def _register_calls() -> None:
    """Registers functions in C with XLA, as lowering a program does: those of LAPACK, and our own."""
    for dtype in native.TYPES:
        native.load(dtype)
    jax.jit(jnp.linalg.cholesky).lower(jax.ShapeDtypeStruct((2, 2), jnp.float32))


def compile_group(experiment: Experiment, group: Group, key: int, chunk: int, budget: int | None = None) -> Program:
    """Compiles a group for chunks of at most `chunk` cells, rounded up to a multiple of the number of devices. Chunks are
    smaller if, by XLA's analysis, they would take more than `budget` bytes (`memory_budget` by default)."""
    count = len(usable_devices())
    size = -(-min(chunk, len(group.cells)) // count) * count
    budget = memory_budget() if budget is None else budget
    start, cut = time.perf_counter(), False
    while True:
        try:
            traced = traced_group(experiment, group, size, key)
        except Exception as error:
            explained = _explained(error, experiment, group, count, key)
            if explained is None:
                raise
            raise explained from error
        guess = _ARRAYS * check_sizes(traced.jaxpr) * count
        if guess > budget and size > count and not cut:
            # Tracing again is much faster than compiling again.
            size, cut = max(count, int(size * budget / guess) // count * count), True
            continue
        lowered = traced.lower()
        compiled = lowered.compile()
        analysis = compiled.memory_analysis()
        needed = 0
        if analysis is not None:
            needed = analysis.temp_size_in_bytes + analysis.output_size_in_bytes + analysis.argument_size_in_bytes
        needed *= count
        if needed <= budget or size == count:
            return Program(compiled, size, needed, time.perf_counter() - start, dict(lowered.out_info))
        size = max(count, int(size * budget / needed) // count * count)


def traced_group(
    experiment: Experiment, group: Group, size: int, key: int, devices: Sequence[Any] | None = None
) -> Any:
    """The program of `size` cells, traced but not compiled, for `devices` (`usable_devices()` by default)."""
    chunk = sharded(_chunk_function(experiment, group), devices)
    return chunk.trace(*inputs_of(group.cells, experiment, group, size, key))


def _explained(error: Exception, experiment: Experiment, group: Group, count: int, key: int) -> Exception | None:
    """An error that says why a function cannot be traced. The reason is found by trial, which works for every kind of error:
    the function can be traced if lists become tuples, or if some traced arguments become fixed values. None if it fails in any
    case."""
    first, sized = group.cells[0].arguments, experiment.sized if group.shared.limits else ()
    traced = [name for name in first if name not in group.static or name in sized]
    lists = [name for name, value in group.static.items() if isinstance(value, list)]

    def works(static: dict[str, Any]) -> bool:
        try:
            traced_group(experiment, Group(static, group.cells[:1]), count, key)
        except Exception:
            return False
        return True

    if lists and works({name: hashable(value) for name, value in group.static.items()}):
        return unhashable(error, experiment, lists)
    if not traced or not works(first):
        if isinstance(error, _NO_JAX):
            return no_jax(error, experiment)
        return number_needed(error, experiment) if isinstance(error, jax.errors.ConcretizationTypeError) else None
    needed = [name for name in traced if not works({key: value for key, value in first.items() if key != name})]
    return value_needed(error, experiment, needed) if needed else None


def check_outputs(experiment: Experiment, group: Group, outputs: Mapping[str, Any]) -> None:
    """Raises ValueError for values that a record cannot hold. `outputs` are arrays, or their shapes, whose first axis is that
    of cells."""
    for name, axes in experiment.arrays.items():
        if name in outputs and len(outputs[name].shape) != 1 + len(axes):
            raise ValueError(
                f"experiment {experiment.name!r} returned {name!r} with shape {outputs[name].shape[1:]}, and arrays says that "
                f"it has {len(axes)} axes: {', '.join(axes)}."
            )
        if name in outputs and 0 in outputs[name].shape:
            raise ValueError(f"experiment {experiment.name!r} returned {name!r} without any number in it.")
    vectors = {name: value for name, value in outputs.items() if name not in experiment.arrays}
    lengths = {value.shape[1:] for value in vectors.values() if len(value.shape) > 1}
    if len(lengths) > 1 or any(len(shape) > 1 for shape in lengths):
        raise ValueError(
            f"experiment {experiment.name!r} returned vectors of different shapes {sorted(lengths)}: all vectors of a call "
            "must have the same length, and only arrays that @experiment(arrays=...) names may have more axes."
        )
    arguments = group.cells[0].arguments
    if lengths and experiment.x in arguments:
        raise ValueError(
            f"experiment {experiment.name!r} returned vectors, and its x is the argument {experiment.x!r}. Return the "
            "horizontal axis as a vector too, and name it by x=..."
        )
    for name in outputs:
        if name in arguments:
            raise ValueError(f"experiment {experiment.name!r} returns {name!r}, which is already an argument.")
        if name in RESERVED:
            raise ValueError(f"experiment {experiment.name!r} returns {name!r}, which is reserved for the engine.")
    if experiment.x not in outputs and experiment.x not in arguments:
        raise ValueError(
            f"experiment {experiment.name!r}: x names {experiment.x!r}, which is neither an argument nor returned."
        )
    if experiment.y[0] not in outputs:
        raise ValueError(f"experiment {experiment.name!r}: y names {experiment.y[0]!r}, which is not returned.")
