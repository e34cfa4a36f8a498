"""GPU kernels in Pallas (Triton) that do many gradient steps of one student in one launch. Sums over samples stay in registers,
the data in the nearest cache, and the kernels make the noise by the counter-based generator of `tsjax.optim`. Triton by itself
would round products before it adds them, and let all warps wait twice for each sum over the samples. For these two the kernels
use instructions of PTX (`gpu_kernels.Threads`).

A student with at most `LARGEST_AT_ONCE` parameters takes one pass over its samples in every step. The sums of a larger one do
not fit in registers, so its neurons are treated in groups. Per step and sample both compute m d products forward and m d
backward, and the second kernel computes the products forward of all groups but one again.

XLA trains on other devices, and students that the kernels cannot train (`fits`). Both do the same steps with the same noise,
and differ by rounding only. The kernels are used on CUDA devices where a few of their steps agree with those of XLA
(`checked`), unless TSJAX_FUSED=0. `python -m benchmarks gpu` measures them, and `python -m benchmarks gpu_code` counts their
instructions without a GPU. With TSJAX_FUSED=interpret they run on any device, slowly.
"""

import contextlib
import functools
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..activations import AbstractActivation, Erf, LeakyReLU, Quadratic, erf, relu
from ..cache import cache_folder, private_folder, read_private
from ..network import TwoLayer
from ..versions import version_of
from . import gpu_kernels, native
from .gpu_kernels import Threads, evaluate, kernel_at_once, kernel_in_groups
from .steps import Samples, Steps, descend_by_xla, samples_for

# The largest number of parameters.
LARGEST = 512
# The largest number of parameters for one pass over the samples: each thread holds all of them and as many sums in registers,
# and it has 255 registers.
LARGEST_AT_ONCE = 96
# The same for one group of neurons. It is smaller, since the kernel of several groups needs registers for its further loops.
_LARGEST_GROUP = 88
# The largest difference after the 20 steps of `compare`. Rounding in float32 gives about 1e-6, a wrong sum far more.
_MOST_ERROR = 1e-4
# The students of `compare`, (m, d, activation): one for each kernel, and one with another activation than relu.
_COMPARED = ((3, 5, relu), (12, 10, relu), (3, 5, erf))


def fits(net: TwoLayer, x_t: Array, y: Array) -> bool:
    """Whether `descend` trains this student: float32, at most `LARGEST` parameters, an activation that Triton can lower
    (`lowers`), and the kernel is in use (`in_use`). If a student has more than `LARGEST_AT_ONCE` parameters, the sums of one
    neuron must fit in registers, that is, d + 1 <= 88."""
    dtypes = {leaf.dtype for leaf in (net.a, net.w, x_t, y)}
    size, sums = net.a.size + net.w.size, net.w.shape[-1] + 1
    small = size <= LARGEST_AT_ONCE or (size <= LARGEST and sums <= _LARGEST_GROUP)
    return small and dtypes == {jnp.dtype("float32")} and in_use()[0] and lowers(net.activation)


def lowers(activation: AbstractActivation) -> bool:
    """Whether Triton can lower phi and its derivative, and both are finite at 0, where the kernels evaluate samples and neurons
    that do not count."""
    return isinstance(activation, LeakyReLU | Erf | Quadratic) or _lowers(activation)


@functools.lru_cache
def _lowers(activation: AbstractActivation) -> bool:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    def kernel(z, out):
        value, back = evaluate(activation, z[...])
        out[...] = back(value)

    tile = jax.ShapeDtypeStruct((32,), jnp.float32)
    # A user's function may fail in any way, for example with a primitive that Triton lacks.
    with contextlib.suppress(Exception):
        call = pl.pallas_call(kernel, out_shape=tile, compiler_params=triton.CompilerParams(num_warps=1))
        jax.jit(call).trace(tile).lower(lowering_platforms=("cuda",))
        return bool(np.all(np.isfinite(_at_zero(activation))))
    return False


@functools.lru_cache
def _at_zero(activation: AbstractActivation) -> tuple[float, float]:
    """phi(0) and phi'(0)."""

    def evaluate():
        zero = jnp.zeros((), jnp.float32)
        return float(activation(zero)), float(jax.grad(activation)(zero))

    # In a thread of its own, since the caller may be tracing.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(evaluate).result()


@functools.cache
def mode() -> str:
    """The environment variable TSJAX_FUSED: "0" (off), "1" (on), "interpret" (on any device, slowly, for tests), or "" if it is
    not set. It is read once in a process, since a later change would not affect compiled programs. **Raises:** ValueError for
    another value."""
    found = os.environ.get("TSJAX_FUSED", "")
    if found not in ("", "0", "1", "interpret"):
        raise ValueError(
            f"TSJAX_FUSED must be 0 (off), 1 (on, unchecked, on GPUs) or interpret (to test it anywhere), got {found!r}. "
            "If it is not set, the kernel is used on CUDA devices where it agrees with XLA."
        )
    return found


def in_use() -> tuple[bool, str]:
    """Whether CUDA devices train with this kernel, and the reason."""
    if mode() == "":
        return checked()
    return mode() != "0", f"by TSJAX_FUSED={mode()}"


@functools.cache
def checked() -> tuple[bool, str]:
    """Whether a few steps of the kernel on the first CUDA device agree with those of XLA, and a sentence about it. The result
    is stored in the cache folder for each kind of device and each version of JAX and of the kernels."""
    try:
        device = jax.local_devices(backend="cuda")[0]
    except RuntimeError:
        return False, "there is no CUDA device"
    texts = [Path(str(module.__file__)).read_bytes() for module in (sys.modules[__name__], gpu_kernels)]
    source = hashlib.sha256(b"".join(texts)).hexdigest()[:16]
    facts = [device.device_kind, jax.__version__, str(version_of("jaxlib")), source]
    name = f"fused-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.json"
    # If the folder belongs to another user or the file is broken, the comparison is done again.
    with contextlib.suppress(OSError, RuntimeError, ValueError, TypeError):
        agrees, detail = json.loads(read_private(cache_folder() / name) or b"")
        return bool(agrees), str(detail)
    # The comparison runs in a thread of its own, since the caller may be tracing.
    with ThreadPoolExecutor(1) as pool:
        agrees, detail = pool.submit(compare, device).result()
    with contextlib.suppress(OSError, RuntimeError):
        file = private_folder(cache_folder()) / name
        file.write_text(json.dumps([agrees, detail]))
        file.chmod(0o600)
    return agrees, detail


def compare(device: Any, interpret: bool = False) -> tuple[bool, str]:
    """Whether 20 noisy steps of batches by the kernels on this device agree with those of XLA up to rounding, and a sentence
    about it."""
    steps, error = 20, 0.0
    try:
        with jax.default_device(device):
            for m, d, activation in _COMPARED:
                # Unlike that of Python, NumPy's maximum keeps NaN.
                error = np.maximum(error, _difference(m, d, activation, steps, interpret))
                if not error < _MOST_ERROR:
                    break
    # If Pallas, Triton or the driver fails in any way, XLA trains instead.
    except Exception as fault:
        return False, f"it does not run: {type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"
    words = f"{steps} steps differ from XLA's by at most {error:.1g} on {device.device_kind}"
    return bool(error < _MOST_ERROR), words


def _difference(m: int, d: int, activation: AbstractActivation, steps: int, interpret: bool) -> float:
    """The largest difference of parameters and losses of two students between the kernel and XLA; NaN if one is NaN."""
    rng, n = np.random.default_rng(0), 300
    a, w, x_t, y = (
        (scale * rng.normal(size=shape)).astype(np.float32)
        for scale, shape in ((1, (2, m)), (1, (2, m, d)), (1, (d, n)), (1, (n,)))
    )
    weight = (np.arange(n) < 200).astype(np.float32)
    samples = samples_for(activation, jnp.asarray(x_t), jnp.asarray(y), jnp.asarray(weight))
    rates = (jnp.float32(rate) for rate in (0.05, 0.02, 0.01))
    some = Steps(jnp.int32(0), jnp.int32(steps), *rates, seed=jnp.asarray([3, 4], jnp.uint32))
    # With several warps, so that they have to wait for each other.
    kernel = functools.partial(descend, warps=4, interpret=interpret)
    by = lambda fn: lambda a, w: fn(a, w, samples, some, activation=activation)
    mine, theirs = (jax.jit(jax.vmap(by(fn)))(a, w) for fn in (kernel, descend_by_xla))
    return float(np.max([np.max(np.abs(np.subtract(*pair))) for pair in zip(mine, theirs, strict=True)]))


def kernel_in_use(platform: str) -> str:
    """What computes the gradients of relu students on devices of this platform: `c` (`tsjax.fast.native`) or `fused` if one of
    these kernels is available, else `xla`. They sum in different orders, so their results differ by rounding."""
    if mode() == "interpret" or (platform in ("cuda", "gpu") and in_use()[0]):
        return "fused"
    return "c" if platform == "cpu" and native.load()[0] is not None else "xla"


def warps_for(n: int) -> int:
    """The number of warps (32 threads each) for a student with n samples: n / 512, rounded down to a power of 2, from 1 to 8.

    With W warps, a thread adds n / (32 W) terms to each sum, and each sum is then reduced over the threads once. The ratio of
    these costs depends on n, and not on the number of parameters. The rule gives the fastest number of 1, 2, 4 and 8 on one
    H200 for (students, n, d, m) = (4096, 512, 5, 3): 1, (1024, 1024, 10, 5): 2, and (4096, 2048, 10, 5): 4. This was measured
    when a sum over the threads cost more than it does by `gpu_kernels.Threads`. A device that has too few students to keep it
    busy is faster with more warps, 4 for (256, 512, 10, 5) and 8 for (32, 2048, 5, 3), but inside `jax.vmap` the number of
    students is unknown.
    """
    return min(8, 1 << max(0, (n // 512).bit_length() - 1))


def grouping(m: int, d: int) -> tuple[int, int]:
    """The number of groups and the number of neurons in each, for m neurons in d dimensions: one group if the student has at
    most `LARGEST_AT_ONCE` parameters, else groups of equal size. The last one may be filled up with neurons that stay 0."""
    if m * (d + 1) <= LARGEST_AT_ONCE:
        return 1, m
    most = max(1, _LARGEST_GROUP // (d + 1))
    group = -(-m // -(-m // most))
    return -(-m // group), group


def descend(
    a: Float[Array, " m"],
    w: Float[Array, "m d"],
    samples: Samples,
    steps: Steps,
    *,
    output_weights: bool = True,
    activation: AbstractActivation = relu,
    warps: int | None = None,
    interpret: bool | None = None,
) -> tuple[Float[Array, " m"], Float[Array, "m d"], Float[Array, ""]]:
    """`tsjax.fast.descent.descend` by the kernels, for float32 and an activation for which `lowers` holds. `warps` is the
    number of warps (32 threads each) that train one student; by default `warps_for(n)`."""
    # This import is local, so that only users of the kernel need a jaxlib with Triton.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    x_t, y, (count, total), weight = samples
    (m, d), n = w.shape, y.shape[0]
    warps = warps_for(n) if warps is None else warps
    groups, group = grouping(m, d)
    spare, size = groups * group - m, group * (d + 1)
    padding = -n % (32 * warps)
    if weight is None and _at_zero(activation)[0] != 0:
        # Where phi(0) = 0, samples that do not count have x = 0, y = 0 and thus the residual 0.
        weight = (jnp.arange(n) < count).astype(jnp.float32)
    width = max(32, 1 << (size - 1).bit_length())
    of_neurons = steps.step_size, steps.noise
    rates = [rate for own in of_neurons for rate in (own * output_weights, own)]
    rows = jnp.pad(a, (0, spare)).reshape(groups, group), jnp.pad(w, ((0, spare), (0, 0))).reshape(groups, -1)
    theta = jnp.pad(jnp.concatenate(rows, axis=1), ((0, 0), (0, width - size))).reshape(-1)
    interpret = mode() == "interpret" if interpret is None else interpret
    kernel = functools.partial(
        kernel_at_once if groups == 1 else kernel_in_groups,
        activation=activation, m=m, d=d, group=group, groups=groups, weighted=weight is not None,
        threads=Threads(warps, compiled=not interpret), frozen=0 if output_weights else m,
    )  # fmt: skip
    lengths = (groups * width, 1, warps * width) + (() if groups == 1 else (n + padding,))
    theta, loss, *_ = pl.pallas_call(
        kernel,
        out_shape=tuple(jax.ShapeDtypeStruct((length,), jnp.float32) for length in lengths),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
        name="tsjax_descend",
    )(
        jnp.stack([jnp.asarray(v, jnp.int32) for v in (steps.start, steps.stop, count)]),
        jnp.stack([jnp.asarray(rate, jnp.float32) for rate in (*rates, 2 * steps.penalty, total)]),
        steps.seed,
        theta,
        jnp.pad(x_t, ((0, 0), (0, padding))),
        jnp.pad(y, (0, padding)),
        *(() if weight is None else (jnp.pad(weight, (0, padding)),)),
    )
    rows = theta.reshape(groups, width)
    return rows[:, :group].reshape(-1)[:m], rows[:, group:size].reshape(-1, d)[:m], loss[0]
