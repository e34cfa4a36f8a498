"""Examines the machine: what tsjax would run on, and whether the libraries that it needs work."""

import os
import platform
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..fast import fused, native
from ..versions import version_of

_PACKAGES = (
    "tsjax", "jax", "jaxlib", "equinox", "optax", "neural-tangents", "numpy", "scipy", "pandas", "pyarrow", "pydantic",
)  # fmt: skip


def _bridge() -> dict[str, Any]:
    """Loads neural-tangents through the bridge and compares its NTK with the closed form at a few points."""
    from ..kernels import ArcCosineNTK, neural_tangents, ntk

    if neural_tangents.source() == "closed form":
        how = f"python3 -m pip install --no-deps neural-tangents=={neural_tangents.VERSION} frozendict"
        detail = f"neural-tangents is not installed: the kernels of relu networks are closed forms. For others: {how}"
        return {"ok": True, "difference": None, "detail": detail}

    try:
        with jax.enable_x64(True):
            x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
            difference = np.asarray(ntk()(x[:3], x[3:])) - np.asarray(ArcCosineNTK()(x[:3], x[3:]))
        error = float(np.abs(difference).max())
        return {
            "ok": error < 1e-12,
            "difference": error,
            "detail": f"{neural_tangents.source()}, largest difference from the closed form {error:.1e}",
        }
    except Exception as problem:  # The doctor reports every fault of another library.
        return {"ok": False, "difference": None, "detail": f"{type(problem).__name__}: {problem}"}


def examine() -> dict[str, Any]:
    """Plain values: `ok`, `versions`, `python`, `backend`, `devices`, `cores`, `memory_bytes`, `x64`, `bridge` (that to
    neural-tangents), `fused` (whether the kernel for CUDA devices is in use, or why not), `native` (whether the kernel in C is
    in use on CPUs, and where it is or why not), `compiler` (XLA's flags), `compilation_cache` and `blas`."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    bridge = _bridge()
    return {
        "ok": bridge["ok"],
        "versions": {name: version_of(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        "bridge": bridge,
        "fused": dict(zip(("used", "detail"), fused.in_use(), strict=True)),
        "native": {"used": native.load()[0] is not None, "detail": native.load()[1]},
        "compiler": os.environ.get("XLA_FLAGS", ""),
        "compilation_cache": jax.config.jax_compilation_cache_dir,  # pyright: ignore[reportAttributeAccessIssue]
        "blas": f"{blas['name']} {blas['version']}",
    }
