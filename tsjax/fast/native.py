"""Training's inner loop in C, where there is a CPU and a C compiler: the loss and the gradient of two-layer ReLU networks.

XLA spends most of a step of small students between its loops; one call that does a whole gradient is several times faster
(benchmarks/RESULTS.md). The source is compiled at first use, for this very processor, into the user's cache folder
(`tsjax.cache`); without a compiler, where other users could write to that folder, on other systems than Linux, or with
TSJAX_NATIVE=0, everything runs by XLA alone, with the same results up to rounding.
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
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..cache import cache_folder, private_folder, read_private
from ..versions import version_of

_FLAGS = ["-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared"]
_SECONDS = 120


def build(source: Path, folder: Path, includes: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> Path:
    """Compiles a C file into a shared library in `folder`, or finds it there: by its text, that of the headers beside it,
    the flags, the headers' versions and the processor.

    Its name ends with the hash of its content: one that was cut short or altered is made again, as loading it would end the
    process by a signal or run another's code.

    **Raises:** RuntimeError without a compiler ($CC, else cc), or with what the compiler said; PermissionError for a folder
    that other users can write to.
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
        # Regardless of the umask: a library that others may write is not taken up again.
        made.chmod(0o700)
        library = folder / _name(stem, made.read_bytes())
        # Another process may make the same one; whichever comes last stays.
        made.replace(library)
    return library


def processor() -> str:
    """What this processor can do. Code for one is an illegal instruction on another that shares the home folder."""
    cpu = Path("/proc/cpuinfo").read_text().split("\n\n")[0] if os.path.exists("/proc/cpuinfo") else ""
    features = [line for line in cpu.splitlines() if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), *features])


def _name(stem: str, content: bytes) -> str:
    return f"{stem}-{hashlib.sha256(content).hexdigest()}.so"


@functools.cache
def load() -> tuple[str | None, str]:
    """The name by which XLA knows the kernel, or None where it cannot be had; and why."""
    if os.environ.get("TSJAX_NATIVE") == "0":
        return None, "switched off by TSJAX_NATIVE=0"
    if sys.platform != "linux":
        return None, f"not tried on {sys.platform}"
    try:
        source = Path(__file__).parent / "half_mse.c"
        path = build(source, cache_folder() / "native", (jax.ffi.include_dir(),))
        # By its text: a program in JAX's compilation cache must not meet another kernel.
        name = f"tsjax_{path.stem}"
        function = ctypes.CDLL(str(path)).tsjax_half_mse
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
    # If XLA, the linker or the compiler fails, training goes on without the kernel, and `tsjax doctor` says why.
    except (AttributeError, OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return name, str(path)


def half_mse_and_gradient(
    a: Float[Array, " m"],
    w: Float[Array, "m d"],
    x_t: Float[Array, "d n"],
    y: Float[Array, " n"],
    count: Int[Array, ""],
    total: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, " m"], Float[Array, "m d"]]:
    """L = (1/2 total) sum_{i < count} (sum_j a_j relu(<w_j, x_i>) - y_i)^2 and its gradient in a and w, by the kernel that
    `load` found; it does not look at samples from `count` on.

    All of one type, float32 or float64, but for `count`. Sums run in that type, lane by lane; `jax.vmap` passes shared data
    once.
    """
    name, why = load()
    if name is None:
        raise RuntimeError(f"there is no native kernel: {why}.")
    struct = lambda like, shape: jax.ShapeDtypeStruct(shape, like.dtype)
    call = jax.ffi.ffi_call(name, (struct(a, ()), struct(a, a.shape), struct(w, w.shape)), vmap_method="expand_dims")
    loss, grad_a, grad_w = call(a, w, x_t, y, count.astype(jnp.int32), total.astype(a.dtype))
    return loss, grad_a, grad_w
