"""Runs a plan: compiles each group once, runs its chunks on all local devices, commits each chunk as it ends."""

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from .devices import sharded_vmap, usable_devices
from .experiment import RESERVED, Experiment
from .plan import Chunk, Group, Plan
from .store import Store

# What one chunk may take by XLA's own account: a share of an accelerator's memory; on a CPU so much per device, since
# batches that outgrow the caches only slow it down.
_ACCELERATOR_SHARE = 0.5
_CPU_BYTES = 512 * 2**20


@dataclass(frozen=True)
class ChunkDone:
    """What happened: a chunk was run, or found done in the store."""

    static: dict[str, Any]
    cells: int
    records: pd.DataFrame | None
    seconds: float
    resumed: bool


def provenance() -> dict[str, Any]:
    """Versions and devices, for `sweep.json`."""
    packages = ("tsjax", "jax", "jaxlib", "numpy", "scipy", "optax", "neural-tangents")
    return {
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "devices": [device.device_kind for device in usable_devices()],
        "platform": jax.default_backend(),
    }


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


def _cell_function(experiment: Experiment, static: dict[str, Any]) -> Callable:
    def cell(root_key_data, seed, traced):
        # A cell's key depends on the root key and the seed alone: estimators at one seed see the same data, and a record
        # does not depend on its place in a batch.
        key = jax.random.fold_in(jax.random.wrap_key_data(root_key_data), seed)
        values = experiment(key, **static, **traced)
        return {name: jnp.asarray(value) for name, value in values.items()}

    return cell


def _inputs(group_or_chunk: Group | Chunk, size: int, key: int) -> tuple[Any, Any, Any]:
    """Seeds, traced arguments and root keys of the cells, padded to `size` by repeating the last one."""
    cells = [*group_or_chunk.cells, *[group_or_chunk.cells[-1]] * size][:size]
    names = [name for name in cells[0].arguments if name not in group_or_chunk.static]
    seeds = np.asarray([cell.seed for cell in cells], np.uint32)
    traced = {name: np.asarray([cell.arguments[name] for cell in cells]) for name in names}
    root = np.asarray(jax.random.key_data(jax.random.key(key)))
    return np.broadcast_to(root, (size, *root.shape)), seeds, traced


def compile_group(experiment: Experiment, group: Group, key: int, chunk: int) -> Program:
    """Compiles a group for chunks of at most `chunk` cells, fewer when XLA says that they would not fit in memory."""
    count = len(usable_devices())
    size = -(-min(chunk, len(group.cells)) // count) * count
    budget, start = memory_budget(), time.perf_counter()
    while True:
        function = sharded_vmap(_cell_function(experiment, group.static))
        compiled = function.lower(*_inputs(group, size, key)).compile()
        analysis = compiled.memory_analysis()
        needed = 0
        if analysis is not None:
            needed = analysis.temp_size_in_bytes + analysis.output_size_in_bytes + analysis.argument_size_in_bytes
        needed *= count
        if needed <= budget or size == count:
            return Program(compiled, size, needed, time.perf_counter() - start)
        size = max(count, int(size * budget / needed) // count * count)


def _records(experiment: Experiment, chunk: Chunk, values: dict[str, np.ndarray]) -> pd.DataFrame:
    """One row per cell; vectors of length L give L rows per cell."""
    cells = len(chunk.cells)
    vectors = {name: value[:cells] for name, value in values.items() if value.ndim > 1}
    lengths = {value.shape[1:] for value in vectors.values()}
    if len(lengths) > 1 or any(len(shape) > 1 for shape in lengths):
        raise ValueError(
            f"experiment {experiment.name!r} returned vectors of different shapes {sorted(lengths)}: all vectors of a call "
            "must share one length, and nothing may have more axes."
        )
    repeat = lengths.pop()[0] if lengths else 1
    columns: dict[str, Any] = {"cell": np.repeat([cell.id for cell in chunk.cells], repeat)}
    columns |= {
        name: np.repeat([cell.arguments[name] for cell in chunk.cells], repeat) for name in chunk.cells[0].arguments
    }
    columns["seed"] = np.repeat([cell.seed for cell in chunk.cells], repeat)
    for name, value in values.items():
        if name in columns:
            raise ValueError(f"experiment {experiment.name!r} returns {name!r}, which is already an argument.")
        if name in RESERVED:
            raise ValueError(f"experiment {experiment.name!r} returns {name!r}, which is a name of the engine.")
        columns[name] = vectors[name].reshape(-1) if name in vectors else np.repeat(value[:cells], repeat)
    if experiment.x not in columns:
        raise ValueError(
            f"experiment {experiment.name!r}: x names {experiment.x!r}, which is neither an argument nor returned."
        )
    if experiment.y[0] not in values:
        raise ValueError(f"experiment {experiment.name!r}: y names {experiment.y[0]!r}, which is not returned.")
    return pd.DataFrame(columns)


def run_plan(plan: Plan, store: Store | None, key: int, *, chunk: int) -> Iterator[ChunkDone]:
    """Runs every cell that the store lacks, chunk by chunk; one `ChunkDone` each, also for cells found done."""
    device, count = usable_devices()[0].device_kind, len(usable_devices())
    done = set() if store is None else store.cells_done()
    for group in plan.groups:
        program: Program | None = None
        size = -(-min(chunk, len(group.cells)) // count) * count
        # The chunks are those of an undisturbed run; of a chunk that was made at another size only missing cells are run.
        for part in group.chunks(size):
            missing = tuple(cell for cell in part.cells if cell.id not in done)
            if len(missing) < len(part.cells):
                yield ChunkDone(part.static, len(part.cells) - len(missing), None, 0.0, resumed=True)
            if not missing:
                continue
            if program is None:
                program = compile_group(plan.experiment, group, key, size)
            for piece in Group(part.static, missing).chunks(program.size):
                start = time.perf_counter()
                values = jax.device_get(program.call(*_inputs(piece, program.size, key)))
                seconds = time.perf_counter() - start
                records = _records(plan.experiment, piece, values).assign(
                    compile_seconds=program.compile_seconds,
                    run_seconds=seconds / len(piece.cells),
                    device=device,
                    jax=jax.__version__,
                    tsjax=version("tsjax"),
                )
                if store is not None:
                    store.write(piece.id, records)
                yield ChunkDone(piece.static, len(piece.cells), records, seconds, resumed=False)
