"""How functions are compiled: with those options of XLA that make compilation short and leave programs as fast."""

import functools
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.core
import numpy as np

# XLA's options on each platform. On CPUs, optimisation level 2 compiles programs in about two thirds of the time, and they run
# as fast, since the loops that take time are in LAPACK and in the kernel in C (benchmarks/RESULTS.md).
# On GPUs, XLA's search for the best kernels may take minutes. Triton, which it uses for matrix products in place of cuBLAS,
# refuses some small ones in float64: the exact risk of a kernel method did not compile with JAX 0.10.2. And with XLA's search
# for softmax, its choice of fusions took 46 of the 60 seconds in which the NTK of the quickstart was compiled.
_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_backend_optimization_level": 2},
    "gpu": {
        "xla_gpu_autotune_level": 0,
        "xla_gpu_enable_triton_gemm": False,
        "xla_disable_hlo_passes": "triton-softmax-rewriter",
    },
}

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiler_options(platform: str) -> dict[str, Any]:
    """The options for XLA on devices of this platform, without those that the user's XLA_FLAGS set."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in _OPTIONS.get(platform, {}).items() if name not in flags}


def compile_fast() -> None:
    """Uses `compiler_options` for every program of this process, including those of JAX's own functions. Call it before JAX is
    first used."""
    options = {**compiler_options("cpu"), **compiler_options("gpu")}
    added = " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {added}".strip()


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`eqx.filter_jit(function)`, with `compiler_options` where the user calls it directly.

    Inside a user's own `jax.jit`, `jax.vmap` or `jax.grad`, the outermost transformation decides how to compile, and JAX
    refuses options of functions within it."""
    jit: Any = eqx.filter_jit  # It passes options that it does not know to `jax.jit`; its types do not say so.
    plain = jit(function)

    @functools.cache
    def with_options(options: tuple[tuple[str, Any], ...]) -> Callable:
        return jit(function, compiler_options=dict(options))

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        options = compiler_options(jax.default_backend())
        if not options or _is_transformed((args, kwargs)):
            return plain(*args, **kwargs)
        return with_options(tuple(options.items()))(*args, **kwargs)

    return call


def _is_transformed(arguments: Any) -> bool:
    """Whether a transformation of JAX is tracing this code."""
    traced = lambda value: isinstance(value, jax.core.Tracer)
    # Inside `jax.jit`, the arguments may be plain arrays; the result of an operation is a tracer there even so.
    return any(map(traced, jax.tree.leaves(arguments))) or traced(jax.lax.optimization_barrier(np.float32(0.0)))
