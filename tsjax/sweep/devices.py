"""Batches of independent runs on all local devices: vmap on each device, shards over devices, and no traffic between them."""

import contextlib
import functools
import importlib
import json
import os
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from filelock import FileLock, Timeout
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Key, UInt32

from ..cache import cache_folder, is_own, private_folder
from ..compilation import compiled, compiler_options
from ..estimators.base import LARGEST, AbstractEstimator, AbstractFit, check_values, floats_as_arrays
from ..estimators.standardized import LARGEST_SCALED, Standardized
from ..problem import Problem, RegressionFunction
from ..task import Dataset

# The number of threads in XLA's CPU pool. It is read once, when JAX makes its CPU client.
_POOL = "PJRT_NPROC"
# The most bytes of compiled programs that are kept; those that were unused for longest are removed first.
_PROGRAMS_BYTES = 2**30
# How long a start may wait for another process that uses the folder of programs, and how long it may look for broken programs.
_LOCK_SECONDS, _CHECK_SECONDS = 10.0, 1.0
# The first bytes of a file that Zstandard has compressed.
_ZSTANDARD = b"\x28\xb5\x2f\xfd"


def use_all_cores() -> None:
    """Gives this process one CPU device per core, unless the user has chosen a number. Call it before JAX is first used.

    Many small students run faster on single-threaded devices side by side than on one device that splits every small product
    over threads. The thread pool must then be larger than the number of devices: up to JAX 0.10, a batched LAPACK call waits
    *inside* the pool for tasks that it has put into the same pool, so that one such call per thread is a deadlock.

    **Raises:** RuntimeError if JAX has made its devices already.
    """
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault(_POOL, str(4 * cores))
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "xla_force_host_platform" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", cores)


@functools.cache
def use_machine() -> str:
    """Gives a user's own process the settings of the command line: one CPU device per core, if JAX has not made its devices
    yet, and compiled programs that are kept. Returns an empty text, or a sentence that says what came too late and what to
    do."""
    late = ""
    try:
        use_all_cores()
    except RuntimeError:
        cores = len(os.sched_getaffinity(0))
        if jax.default_backend() == "cpu" and len(jax.local_devices()) == 1 < cores:
            late = (
                f"JAX began with one CPU device, so that one of {cores} cores is used: set JAX_NUM_CPU_DEVICES={cores} before "
                "Python starts."
            )
    config: Any = jax.config
    before = config.jax_compilation_cache_dir
    keep_compiled()
    if config.jax_compilation_cache_dir != before:
        # JAX looks only once for this folder, when it first compiles.
        compilation_cache.reset_cache()
    return late


def keep_compiled() -> None:
    """Keeps the compiled programs of this process in the user's cache folder, unless JAX has a folder already
    (JAX_COMPILATION_CACHE_DIR) or keeping is switched off (JAX_ENABLE_COMPILATION_CACHE=false). A program is found again by its
    code, JAX's version and the device. If other users can write to the folder, or another process does not release its lock,
    programs are not kept, and a warning says why."""
    config: Any = jax.config
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return
    try:
        folder = private_folder(cache_folder() / "jax", suspects="*-cache")
        _drop_broken(folder)
    # RuntimeError: a user without a home folder, or a file system without locks.
    except (OSError, RuntimeError) as error:
        warnings.warn(f"compiled programs are not kept for the next run: {error}", stacklevel=2)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _PROGRAMS_BYTES)


def _drop_broken(folder: Path) -> None:
    """Removes kept programs that JAX cannot read, since JAX never replaces them and would warn at every start. These are the
    programs that a killed process left half written, without the file of their last use (older versions of JAX then keep
    nothing more), and those that do not decompress. Each program is decompressed once, and again only after it has changed.

    **Raises:** TimeoutError if another process holds JAX's lock: JAX would then wait 10 seconds before and after each
    compilation.
    """
    lock, list_of_good = folder / ".lockfile", folder / ".tsjax-checked.json"
    try:
        with FileLock(lock, timeout=_LOCK_SECONDS):
            try:
                known = dict(json.loads(list_of_good.read_text()))
            except (OSError, ValueError, TypeError):
                known = {}
            good = _good_programs(folder, known)
            if good != known:
                beside = list_of_good.with_suffix(".new")
                beside.write_text(json.dumps(good))
                beside.replace(list_of_good)
    except Timeout:
        raise TimeoutError(f"another process has held {lock} for {_LOCK_SECONDS:g} seconds.") from None


def _good_programs(folder: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Removes broken programs, and returns the size and time of change of those that are known to be good. The newest are
    checked first; those that do not fit into `_CHECK_SECONDS` are checked at the next start."""
    programs = [(program, program.lstat()) for program in folder.glob("*-cache")]
    programs.sort(key=lambda one: -one[1].st_mtime_ns)
    good, end = {}, time.monotonic() + _CHECK_SECONDS
    for program, found in programs:
        last_use = program.with_name(program.name.removesuffix("-cache") + "-atime")
        state = [found.st_size, found.st_mtime_ns]
        if is_own(found) and last_use.exists():
            if known.get(program.name) == state:
                good[program.name] = state
                continue
            if time.monotonic() > end:
                continue
            if _decompresses(program.read_bytes()):
                good[program.name] = state
                continue
        program.unlink()
        last_use.unlink(missing_ok=True)
    return good


def _decompresses(program: bytes) -> bool:
    """Whether JAX can decompress a program. It uses Zstandard if Python has it (3.14, or the package zstandard), else zlib."""
    if not program.startswith(_ZSTANDARD):
        try:
            zlib.decompress(program)
        except zlib.error:
            return False
        return True
    for name in ("compression.zstd", "zstandard"):
        with contextlib.suppress(ImportError):
            zstandard = importlib.import_module(name)
            try:
                zstandard.decompress(program)
            except zstandard.ZstdError:
                return False
            return True
    # A Python with Zstandard wrote it, and may use it again.
    return True


def usable_devices() -> list[Any]:
    """All local devices, or only the first of several CPU devices if the deadlock that `use_all_cores` describes is possible:
    with JAX before 0.11 and a thread pool that was not made larger."""
    devices = jax.local_devices()
    several = len(devices) > 1 and devices[0].platform == "cpu"
    if several and jax.__version_info__ < (0, 11) and int(os.environ.get(_POOL, "0")) < 2 * len(devices):
        return devices[:1]
    return devices


def peak_memory() -> int:
    """The most bytes held so far: on the devices if they report it (accelerators), else by this process; 0 if neither is
    known."""
    stats = [device.memory_stats() for device in usable_devices()]
    if all(stats):
        return sum(one.get("peak_bytes_in_use", 0) for one in stats if one)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """One thread per LAPACK call. XLA's CPU devices call scipy's OpenBLAS from their own threads; if OpenBLAS starts threads of
    its own too, factorisations are much slower, and may hang on several devices."""
    # scipy is loaded before the limit is set: a library that is loaded later would keep its own number of threads.
    import scipy.linalg  # noqa: F401

    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield


# Bytes of data that `fit_many` trains on at once on each CPU device: well below the second-level cache of a core (1 MiB or
# more), since training is slower if the data do not stay in it from step to step.
_CORE_CACHE_BYTES = 384 * 1024


def sharded_vmap(fn: Callable, devices: Sequence[Any] | None = None) -> Any:
    """`jax.jit(jax.vmap(fn))` with the batch axis sharded over `devices` (`usable_devices()` by default); the length of the
    batch must be a multiple of their number. Every device runs its part on its own, including loops of data-dependent
    length."""
    return sharded(jax.vmap(fn), devices)


def sharded(fn: Callable, devices: Sequence[Any] | None = None) -> Any:
    """As `sharded_vmap`, for a function that maps over the batch itself; on each device it sees that device's part."""
    devices = usable_devices() if devices is None else devices
    mesh = Mesh(np.asarray(devices), ("batch",))
    spec = PartitionSpec("batch")
    parts = jax.shard_map(fn, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    return jax.jit(parts, compiler_options=compiler_options(devices[0].platform))


def pad_batch(tree: Any, size: int) -> Any:
    """Pads every leaf to `size` along its leading axis by repeating the last entry."""
    return jax.tree.map(lambda leaf: leaf[jnp.minimum(jnp.arange(size), leaf.shape[0] - 1)], tree)


def as_keys(keys: Any) -> Key[Array, "..."]:
    """Random keys of either kind as typed keys. **Raises:** TypeError for anything else."""
    if hasattr(keys, "dtype") and jnp.issubdtype(keys.dtype, jnp.uint32) and keys.ndim == 2:
        # Keys of the old kind, from jax.random.PRNGKey: two numbers make one key.
        return jax.random.wrap_key_data(keys)
    if not hasattr(keys, "dtype") or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(f"keys are random keys, as from jax.random.split(jax.random.key(0), B); got {keys!r}.")
    return keys


def fit_many(
    estimator: AbstractEstimator,
    keys: Key[Array, " B"] | UInt32[Array, "B 2"],
    datasets: Dataset,
    *,
    oracle: tuple[Problem, RegressionFunction] | None = None,
    devices: Sequence[Any] | None = None,
) -> AbstractFit:
    """Fits B data sets at once, vectorised on every device and sharded over all of them.

    **Arguments:**

    - `keys`: (B,) keys, one per fit: `jax.random.split(jax.random.key(0), B)`. Keys of `PRNGKey`, (B, 2), work too.
    - `datasets`: `Dataset` with x (B, n, d) and y (B, n).
    - `oracle`: (problem, teachers) with B teachers (leaves with a leading axis B), for estimators that use it.
    - `devices`: the devices to use; all local ones by default (see `usable_devices`). B need not be a multiple of their number.

    **Returns:** one fit whose leaves have a leading axis B; `jax.vmap(lambda fit, x: fit.predict(x))(fits, x)` predicts.

    **Raises:** ValueError for shapes that do not fit together or data that are not finite; TypeError for keys that are not
    random keys, and for anything but one Dataset.
    """
    if not isinstance(datasets, Dataset):
        raise TypeError(
            "datasets is one Dataset, with x (B, n, d) and y (B, n) that stack the data sets, as in "
            f"jax.tree.map(lambda *leaves: jnp.stack(leaves), *datasets); got a {type(datasets).__name__}."
        )
    keys = as_keys(keys)
    if datasets.x.ndim < 3 or datasets.y.ndim < 2 or datasets.x.shape[:2] != datasets.y.shape[:2]:
        raise ValueError(
            f"expected x of shape (B, n, d) and y of shape (B, n), got {datasets.x.shape} and {datasets.y.shape}. "
            "Stack the data sets."
        )
    check_values(datasets, LARGEST_SCALED if isinstance(estimator, Standardized) else LARGEST)
    if not datasets.x.shape[0]:
        raise ValueError(f"there are no data sets: x has shape {datasets.x.shape}; give at least one.")
    if keys.shape != datasets.x.shape[:1]:
        raise ValueError(f"one key per data set: got keys {keys.shape} for {datasets.x.shape[0]} data sets.")
    # A teacher that is a plain function has no arrays, and is the same for all data sets.
    for leaf in jax.tree.leaves(None if oracle is None else oracle[1]):
        if leaf.shape[:1] != keys.shape:
            raise ValueError(
                f"one teacher per data set: got teachers with an array of shape {leaf.shape} for {keys.shape[0]} data sets."
            )
    use_machine()
    chosen = tuple(usable_devices() if devices is None else devices)
    # As in a single fit, computations that need float64 have it under any flags of JAX, and training keeps the type of the
    # data.
    with one_blas_thread(), jax.enable_x64(True):
        fits = _fit_many(floats_as_arrays(estimator), keys, datasets, floats_as_arrays(oracle), chosen)
        return jax.block_until_ready(fits)


@compiled
def _fit_many(estimator, keys, datasets, oracle, devices):
    problem, teachers = (None, None) if oracle is None else oracle
    # Estimator and problem are the same for every fit; only their arrays may enter the sharded function as arguments.
    shared, static = eqx.partition((estimator, problem), eqx.is_array)

    def run(shared, key, data, teacher):
        estimator, problem = eqx.combine(shared, static)
        if teacher is None:
            return estimator.fit(key, data)
        return estimator.fit(key, data, oracle=(problem, teacher))

    batch, count = keys.shape[0], len(devices)
    # Data sets that a device trains on at once: all of them, or on a CPU as many as stay in its cache from step to step.
    each = -(-batch // count)
    if devices[0].platform == "cpu":
        each = -(-each // -(-each * (datasets.x.nbytes + datasets.y.nbytes) // (batch * _CORE_CACHE_BYTES)))
    blocks = -(-batch // (count * each))
    batched = pad_batch((keys, datasets, teachers), count * blocks * each)
    mesh = Mesh(np.asarray(devices), ("batch",))
    many = jax.vmap(run, in_axes=(None, 0, 0, 0))

    def on_one_device(shared, *local):
        if blocks == 1:
            return many(shared, *local)
        local = jax.tree.map(lambda leaf: leaf.reshape(blocks, each, *leaf.shape[1:]), local)
        fits = jax.lax.map(lambda block: many(shared, *block), local)
        return jax.tree.map(lambda leaf: leaf.reshape(blocks * each, *leaf.shape[2:]), fits)

    sharded = jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(PartitionSpec(), *(PartitionSpec("batch"),) * 3),
        out_specs=PartitionSpec("batch"),
        check_vma=False,
    )
    return jax.tree.map(lambda leaf: leaf[:batch], sharded(shared, *batched))
