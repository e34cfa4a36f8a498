"""Training of two-layer ReLU networks in C, for CPUs: the loss with its gradient, and many steps of descent in one call.

A student does all these steps while its samples are in the nearest cache, and a step takes a fraction of the time of XLA's
program for it (`python -m benchmarks profile` measures both). The source is compiled at first use, for the processor at hand,
into the user's cache folder (`tsjax.cache`).
XLA computes everything, with the same results up to rounding, if there is no compiler, if other users could write to that
folder, on other systems than Linux, and with TSJAX_NATIVE=0.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.extend.backend import backends
from jaxtyping import Array, Float, Int

from ..activations import AbstractActivation, relu
from ..cache import cache_folder, private_folder, read_private
from ..network import TwoLayer
from ..versions import version_of
from .steps import Samples, Steps

# Loops that take time are in vectors as they are written; looking for others took half of the compiler's time.
_FLAGS = ["-O3", "-fno-tree-vectorize", "-march=native", "-fno-math-errno", "-std=gnu11", "-fPIC", "-shared"]
_SECONDS = 120


def build(source: Path, folder: Path, includes: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> Path:
    """Compiles a C file into a shared library in `folder`, or finds the library there. Its name depends on the text of the C
    files and headers beside the source, on the command, on the versions of JAX and jaxlib, and on the processor.

    The name ends with the hash of the library's content. A library that was cut short or altered is built again, since loading
    it could crash the process or run the code of another user.

    **Raises:** RuntimeError if there is no compiler ($CC, else cc), or if it fails, with its message; PermissionError for a
    folder that other users can write to.
    """
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise RuntimeError("there is no C compiler: install one (cc), or set CC to its path.")
    command = [compiler, *_FLAGS, *flags, *(f"-I{include}" for include in includes)]
    texts = [path.read_bytes() for path in sorted(source.parent.glob("*.[ch]"))]
    facts = [*command, jax.__version__, str(version_of("jaxlib")), processor()]
    digest = hashlib.sha256(b"".join(texts) + "\0".join(facts).encode()).hexdigest()[:16]
    folder, stem = private_folder(folder), f"{source.stem}-{digest}"
    for library in sorted(folder.glob(f"{stem}-*.so")):
        content = read_private(library)
        if content is not None and library.name == _name(stem, content):
            return library
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / "made.so"
        done = subprocess.run(
            [*command, str(source), "-o", str(made)], capture_output=True, text=True, timeout=_SECONDS
        )
        if done.returncode != 0:
            raise RuntimeError(f"{compiler} could not compile {source.name}: {done.stderr.strip()[-2000:]}")
        # Set regardless of the umask, since a library that others may write to would not be used again.
        made.chmod(0o700)
        library = folder / _name(stem, made.read_bytes())
        # Another process may build the same library at the same time; the last one replaces the other.
        made.replace(library)
    return library


def processor() -> str:
    """A description of this processor's features. Code for one processor can be an illegal instruction on another that shares
    the home folder."""
    cpu = Path("/proc/cpuinfo").read_text().split("\n\n")[0] if os.path.exists("/proc/cpuinfo") else ""
    features = [line for line in cpu.splitlines() if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), *features])


def _name(stem: str, content: bytes) -> str:
    return f"{stem}-{hashlib.sha256(content).hexdigest()}.so"


# The libraries' flags, and the functions that XLA calls, by the type of the numbers.
_LIBRARIES = {
    "float32": ((), ("tsjax_half_mse", "tsjax_descend")),
    "float64": (("-DDOUBLE",), ("tsjax_half_mse",)),
}
TYPES = tuple(_LIBRARIES)
# Programs are traced by several threads, and one library is enough.
_lock = threading.Lock()


def load(dtype: str = "float32") -> tuple[str | None, str]:
    """The name of the library with the kernels for numbers of this type, one of `TYPES`, which are then registered with XLA,
    and its path; or None, and the reason why there are no kernels. Most processes need only that of float32."""
    with _lock:
        return _load(dtype)


@functools.cache
def _load(dtype: str) -> tuple[str | None, str]:
    if os.environ.get("TSJAX_NATIVE") == "0":
        return None, "switched off by TSJAX_NATIVE=0"
    if sys.platform != "linux":
        return None, f"not tried on {sys.platform}"
    try:
        flags, functions = _LIBRARIES[dtype]
        path = build(Path(__file__).parent / "students.c", cache_folder() / "native", (jax.ffi.include_dir(),), flags)
        library = ctypes.CDLL(str(path))
        for function in functions:
            jax.ffi.register_ffi_target(
                _target(function, path.stem), jax.ffi.pycapsule(getattr(library, function)), platform="cpu"
            )
    # If XLA, the linker or the compiler fails, training goes on without the kernel, and `tsjax doctor` says why.
    except (AttributeError, OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return path.stem, str(path)


def only_cpus() -> bool:
    """Whether programs of this process need no code for other devices: there are only CPUs, and TSJAX_FUSED=1 does not ask for
    programs that can be lowered for GPUs too. Tracing code for devices that are not there takes longer than tracing the rest
    of a training loop."""
    return os.environ.get("TSJAX_FUSED") != "1" and set(backends()) == {"cpu"}


def _target(function: str, library: str) -> str:
    # The name contains the hash of the text, so that a program in JAX's compilation cache cannot call another kernel.
    return f"{function}_{library}"


def _call(function: str, results: tuple, *operands):
    """Calls a function of the library for the type of the first operand. `jax.vmap` does not copy operands that all members of
    a batch share.

    **Raises:** RuntimeError if there is no library.
    """
    library, why = load(operands[0].dtype.name)
    if library is None:
        raise RuntimeError(f"there is no native kernel: {why}.")
    return jax.ffi.ffi_call(_target(function, library), results, vmap_method="expand_dims")(*operands)


def half_mse_and_gradient(
    a: Float[Array, " m"],
    w: Float[Array, "m d"],
    x_t: Float[Array, "d n"],
    y: Float[Array, " n"],
    count: Int[Array, ""],
    total: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, " m"], Float[Array, "m d"]]:
    """L = (1/(2 total)) sum_{i < count} (sum_j a_j relu(<w_j, x_i>) - y_i)^2 and its gradient in a and w, by the kernel that
    `load` found. It does not read samples from number `count` on.

    All arrays but `count` must have one type, float32 or float64, in which sums are computed too, lane by lane. `jax.vmap` does
    not copy shared data.

    **Raises:** RuntimeError if there is no kernel.
    """
    like = (jax.ShapeDtypeStruct((), a.dtype), a, w)
    loss, of_a, of_w = _call("tsjax_half_mse", like, a, w, x_t, y, count.astype(jnp.int32), total.astype(a.dtype))
    return loss, of_a, of_w


def fits(net: TwoLayer, x_t: Array, y: Array) -> bool:
    """Whether `descend` can train this student: relu, float32, and there is a kernel."""
    dtypes = {leaf.dtype for leaf in (net.a, net.w, x_t, y)}
    return net.activation == relu and dtypes == {jnp.dtype("float32")} and load()[0] is not None


def descend(
    a: Float[Array, " m"],
    w: Float[Array, "m d"],
    samples: Samples,
    steps: Steps,
    *,
    output_weights: bool = True,
    activation: AbstractActivation = relu,
) -> tuple[Float[Array, " m"], Float[Array, "m d"], Float[Array, ""]]:
    """`tsjax.fast.descent.descend` of a relu network by the kernel that `load` found, in float32. It reads no samples beyond
    their extent.

    **Raises:** RuntimeError if there is no kernel.
    """
    assert activation == relu
    together = lambda dtype, *values: jnp.stack([jnp.asarray(value, dtype) for value in values])
    span = together(jnp.int32, steps.start, steps.stop, 0 if output_weights else a.shape[0])
    rates = together(jnp.float32, steps.step_size, steps.noise, steps.penalty)
    count, total = samples.extent.samples.astype(jnp.int32), samples.extent.total.astype(jnp.float32)
    like = (a, w, jax.ShapeDtypeStruct((), a.dtype))
    a, w, loss = _call("tsjax_descend", like, a, w, samples.x_t, samples.y, count, total, span, rates, steps.seed)
    return a, w, loss
