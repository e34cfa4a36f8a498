"""A GPU kernel in Pallas (Triton) that does many gradient steps of one student in one launch. Parameters and sums stay in
registers, the data in the nearest cache, and the kernel makes the noise by the counter-based generator of `tsjax.optim`.

XLA trains on other devices, and students that are too large for the kernel. Both do the same steps with the same noise, and
differ by rounding only. The kernel is used on CUDA devices where a few of its steps agree with those of XLA (`checked`), unless
TSJAX_FUSED=0. `uv run python -m benchmarks gpu` measures it. With TSJAX_FUSED=interpret it runs on any device, slowly.
"""

import contextlib
import functools
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from ..activations import relu
from ..cache import cache_folder, private_folder, read_private
from ..network import TwoLayer
from ..optim import counter_normals, normals_at
from ..versions import version_of
from . import native
from .loss import Extent, half_mse_by_xla, scaled_samples

# The largest number of parameters: sums and parameters are in registers, and every thread has 255 of them.
LARGEST = 96
# The largest difference after the 20 steps of `compare`. Rounding in float32 gives about 1e-6, a wrong sum far more.
_MOST_ERROR = 1e-4


def fits(net: TwoLayer, x_t: Array, y: Array) -> bool:
    """Whether `descend` trains this student: relu, float32, at most `LARGEST` parameters, and the kernel is in use
    (`in_use`)."""
    dtypes = {leaf.dtype for leaf in (net.a, net.w, x_t, y)}
    small = net.a.size + net.w.size <= LARGEST
    return small and net.activation == relu and dtypes == {jnp.dtype("float32")} and in_use()[0]


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
    is stored in the cache folder for each kind of device and each version of JAX and of this file."""
    try:
        device = jax.local_devices(backend="cuda")[0]
    except RuntimeError:
        return False, "there is no CUDA device"
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
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
    """Whether 20 noisy steps of a batch by the kernel on this device agree with those of XLA up to rounding, and a sentence
    about it."""
    rng, m, d, n, steps = np.random.default_rng(0), 3, 5, 300, 20
    a, w, x_t, y = (rng.normal(size=shape).astype(np.float32) for shape in ((2, m), (2, m, d), (d, n), (n,)))
    weight = (np.arange(n) < 200).astype(np.float32)
    seed, eta, noise, penalty = np.asarray([3, 4], np.uint32), np.float32(0.05), np.float32(0.02), np.float32(0.01)

    def by_kernel(a, w):
        return descend(
            a, w, *samples, start=jnp.int32(0), stop=jnp.int32(steps), step_size=jnp.asarray(eta), seed=jnp.asarray(seed),
            noise=jnp.asarray(noise), penalty=jnp.asarray(penalty), interpret=interpret,
        )[:2]  # fmt: skip

    def by_xla(a, w):
        gradient = jax.grad(lambda theta: half_mse_by_xla(TwoLayer(*theta), *samples))

        def step(i, theta):
            xi = counter_normals(jnp.asarray(seed), i, m * (d + 1), jnp.float32)
            both = (xi[:m], xi[m:].reshape(m, d))
            move = lambda p, g, xi: p - eta * (g + 2 * penalty * p) + noise * xi
            return jax.tree.map(move, theta, gradient(theta), both)

        return jax.lax.fori_loop(0, steps, step, (a, w))

    try:
        with jax.default_device(device):
            samples = scaled_samples(jnp.asarray(x_t), jnp.asarray(y), jnp.asarray(weight))
            mine, theirs = (jax.jit(jax.vmap(fn))(a, w) for fn in (by_kernel, by_xla))
        error = max(float(np.max(np.abs(np.subtract(*pair)))) for pair in zip(mine, theirs, strict=True))
    # If Pallas, Triton or the driver fails in any way, XLA trains instead.
    except Exception as fault:
        return False, f"it does not run: {type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"
    words = f"{steps} steps differ from XLA's by at most {error:.1g} on {device.device_kind}"
    return bool(error < _MOST_ERROR), words


def kernel_in_use(platform: str) -> str:
    """What computes the gradients of relu students on devices of this platform: `c` (`tsjax.fast.native`) or `fused` if one of
    these kernels is available, else `xla`. They sum in different orders, so their results differ by rounding."""
    if mode() == "interpret" or (platform in ("cuda", "gpu") and in_use()[0]):
        return "fused"
    return "c" if platform == "cpu" and native.load()[0] is not None else "xla"


def where_it_runs(fused, otherwise, *operands):
    """`fused(*operands)` on CUDA devices and `otherwise(*operands)` on others; with TSJAX_FUSED=interpret `fused` on all."""
    if mode() == "interpret":
        return fused(*operands)
    return jax.lax.platform_dependent(*operands, cuda=fused, default=otherwise)


def _kernel(span, rates, seed, start, x, y, theta_out, loss_out, *, m, d, tile, warps_meet):
    """The kernel of `descend`. `span` is (first step, end, number of samples that count), and `rates` is (eta of a, eta of w,
    noise of a, noise of w, 2 lambda, divisor of sums over samples). `start` and `theta_out` hold a, w and zeros up to a power
    of 2. x (d, padded n) and y (padded n,) are 0 after the samples that count, so that further terms are 0."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    size, place = theta_out.shape[0], jax.lax.iota(jnp.int32, theta_out.shape[0])
    is_output, is_parameter = place < m, place < m * (d + 1)
    step_size = jnp.where(is_output, rates[0], jnp.where(is_parameter, rates[1], 0.0))
    noise = jnp.where(is_output, rates[2], jnp.where(is_parameter, rates[3], 0.0))
    key, zero = (seed[0], seed[1]), jnp.zeros((tile,), jnp.float32)

    def total(parts):
        # One sum over the threads for each parameter, put into the place of the parameter in the vector.
        gradient = jnp.zeros((size,), jnp.float32)
        for i, part in enumerate(parts):
            gradient = jnp.where(place == i, jnp.sum(part), gradient)
        return gradient

    def step(i, carry):
        theta, _ = carry
        a = [theta_out[j] for j in range(m)]
        w = [[theta_out[m + j * d + k] for k in range(d)] for j in range(m)]

        def add(t, sums):
            squares, sums_a, sums_w = sums
            at = pl.ds(t * tile, tile)
            xs = [x[k, at] for k in range(d)]
            residual, active, outputs = -y[at], [], []
            for j in range(m):
                z = w[j][0] * xs[0]
                for k in range(1, d):
                    z += w[j][k] * xs[k]
                # A NaN counts as active, so that it spreads to the parameters.
                active.append(jnp.logical_not(z <= 0))
                outputs.append(jnp.where(active[j], z, 0.0))
                residual += a[j] * outputs[j]
            squares += residual * residual
            sums_a = tuple(s + residual * o for s, o in zip(sums_a, outputs, strict=True))
            sides = [jnp.where(on, residual, 0.0) for on in active]
            sums_w = tuple(sums_w[j * d + k] + sides[j] * xs[k] for j in range(m) for k in range(d))
            return squares, sums_a, sums_w

        nothing = (zero, (zero,) * m, (zero,) * (m * d))
        squares, sums_a, sums_w = jax.lax.fori_loop(0, (span[2] + tile - 1) // tile, add, nothing)
        # The output weight is a common factor of all sums of a neuron, so it is multiplied last.
        gradient = total([*sums_a, *(a[j] * sums_w[j * d + k] for j in range(m) for k in range(d))]) / rates[5]
        theta -= step_size * (gradient + rates[4] * theta)
        theta += noise * normals_at(key, i, place, m * (d + 1))
        if warps_meet:
            triton.debug_barrier()
        theta_out[...] = theta
        if warps_meet:
            triton.debug_barrier()
        return theta, jnp.sum(squares) / (2 * rates[5])

    theta = start[...]
    theta_out[...] = theta
    if warps_meet:
        triton.debug_barrier()
    loss_out[0] = jax.lax.fori_loop(span[0], span[1], step, (theta, jnp.float32(0)))[1]


def descend(
    a: Float[Array, " m"],
    w: Float[Array, "m d"],
    x_t: Float[Array, "d n"],
    y: Float[Array, " n"],
    extent: Extent | None = None,
    *,
    start: Int[Array, ""],
    stop: Int[Array, ""],
    step_size: Float[Array, ""],
    seed: UInt32[Array, "2"] | None = None,
    noise: Float[Array, ""] | float = 0.0,
    penalty: Float[Array, ""] | float = 0.0,
    output_weights: bool = True,
    warps: int = 4,
    interpret: bool | None = None,
) -> tuple[Float[Array, " m"], Float[Array, "m d"], Float[Array, ""]]:
    """Steps `start` to `stop` of theta <- theta - eta grad(L + lambda |theta|^2) + noise xi, where L is the half mean squared
    error on samples scaled by `tsjax.fast.loss.scaled_samples`, with their `extent`.

    **Arguments:**

    - `seed`: with the number of the step, it determines xi as `tsjax.optim.add_langevin_noise` of (a, w) does.
    - `output_weights`: whether a is trained too; False trains w alone.
    - `warps`: the number of warps (32 threads each) that train one student.

    **Returns:** a, w, and L before the last step (0 if there was no step). Use `jax.vmap` for batches.
    """
    # This import is local, so that only users of the kernel need a jaxlib with Triton.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    m, d = w.shape
    size = m * (d + 1)
    tile = 32 * warps
    padding = -y.shape[0] % tile
    count, total = scaled_samples(x_t, y, None)[2] if extent is None else extent
    width = 1 << (size - 1).bit_length()
    seed = jnp.zeros(2, jnp.uint32) if seed is None else seed
    rates = (step_size * output_weights, step_size, noise * output_weights, noise, 2 * penalty, total)
    theta = jnp.pad(jnp.concatenate([a, w.reshape(-1)]), (0, width - size))
    interpret = mode() == "interpret" if interpret is None else interpret
    kernel = functools.partial(_kernel, m=m, d=d, tile=tile, warps_meet=not interpret)
    theta, loss = pl.pallas_call(
        kernel,
        out_shape=(jax.ShapeDtypeStruct((width,), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
        name="tsjax_descend",
    )(
        jnp.stack([jnp.asarray(v, jnp.int32) for v in (start, stop, count)]),
        jnp.stack([jnp.asarray(rate, jnp.float32) for rate in rates]),
        seed,
        theta,
        jnp.pad(x_t, ((0, 0), (0, padding))),
        jnp.pad(y, (0, padding)),
    )
    return theta[:m], theta[m:size].reshape(m, d), loss[0]
