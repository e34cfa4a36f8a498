"""The bridge to neural-tangents 0.6.5 (December 2023, its last release), which today's JAX cannot import by itself.

`nt = tsjax.kernels.neural_tangents.load()` is all one needs: the real, unmodified library, with `nt.stax`, `nt.predict`
and the empirical kernels working. Nothing happens before that call.

Two kinds of repair, both from outside and with public JAX names only:

- *While it is imported*, JAX is lent the names that it has since dropped (`_lend`); all are taken back afterwards, so
  that nothing else in the process sees a changed JAX.
- *After it is imported*, names on neural-tangents' own modules are rebound where its use of JAX has gone stale
  (`_repair_predict`). These touch private modules of that very release, hence the check of the version.
"""

import contextlib
import functools
import importlib.metadata
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.interpreters.ad

VERSION = "0.6.5"
"""The only release of neural-tangents that this bridge fits."""

TESTED_JAX = ("0.10.2", "0.11.2", "0.12.0.1")
"""The JAX releases on which the tests of this bridge were run."""

_lock = threading.Lock()
_MISSING = object()


@functools.cache
def load() -> types.ModuleType:
    """Imports neural-tangents on today's JAX (once; about a second) and returns the module.

    Fine to call inside `jax.jit`, and when neural-tangents is imported already: then only the repairs are applied.

    **Raises:** ImportError if neural-tangents is not installed, or is not release 0.6.5.
    """
    with _lock:
        _check_version()
        if "neural_tangents" not in sys.modules:
            # Deprecations of JAX and invalid escapes in its docstrings are not the caller's to mend. Under a
            # caller's trace, arrays that a module makes when it is imported would otherwise be leaked tracers.
            with warnings.catch_warnings(), _lend(), jax.ensure_compile_time_eval():
                warnings.simplefilter("ignore")
                import neural_tangents  # noqa: F401  # pyright: ignore[reportMissingImports]
            _forget_experimental()
        _repair_predict(sys.modules["neural_tangents._src.predict"])
        return sys.modules["neural_tangents"]


def _check_version() -> None:
    how = f"pip install --no-deps neural-tangents=={VERSION} frozendict"
    try:
        version = importlib.metadata.version("neural-tangents")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"kernels of this kind need neural-tangents {VERSION}: `{how}`.") from None
    if version != VERSION:
        raise ImportError(
            f"the bridge to neural-tangents rebinds private names of release {VERSION}, but {version} is installed: "
            f"`{how}`."
        )


@contextlib.contextmanager
def _lend() -> Iterator[None]:
    """JAX with the names that neural-tangents imports from it, for the duration of the block."""
    util = types.ModuleType("jax.util")
    util.__dict__.update(
        safe_map=lambda f, *args: [f(*row) for row in zip(*args, strict=True)],
        safe_zip=lambda *args: list(zip(*args, strict=True)),
    )
    # Importing the real `experimental` would ask for TensorFlow and tf2jax.
    experimental = types.ModuleType("neural_tangents.experimental")
    names: list[tuple[types.ModuleType, str, Any]] = [
        (jax.core, name, getattr(jax.extend.core, name))
        for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    ]
    # Only the key of a dictionary of differentiation rules; no program contains it any more.
    names.append((jax.interpreters.ad, "zeros_like_p", jax.extend.core.Primitive("zeros_like")))
    names = [(module, name, value) for module, name, value in names if not hasattr(module, name)]
    modules = {module.__name__: module for module in (util, experimental) if module.__name__ not in sys.modules}
    try:
        for module, name, value in names:
            setattr(module, name, value)
        sys.modules.update(modules)
        yield
    finally:
        for module, name, _ in names:
            delattr(module, name)
        for name in modules:
            del sys.modules[name]


def _forget_experimental() -> None:
    """Leaves `import neural_tangents.experimental` to those who have TensorFlow, as if it had not been imported."""
    sys.modules["neural_tangents"].__dict__.pop("experimental", None)


def _repair_predict(predict: types.ModuleType) -> None:
    """Makes `nt.predict` work for a traced kernel matrix (inside `jit`, `vmap` over data sets, `grad`).

    `gradient_descent_mse` factorises the kernel under `jax.core.eval_context()`, meant to do at once what can be done
    at once. It now refuses tracers; `jax.ensure_compile_time_eval()` has the intended meaning. Factors of traced
    matrices must moreover not be cached, since they belong to the trace that happened to ask first.
    """
    core = _Overlay(jax.core, eval_context=jax.ensure_compile_time_eval)
    _rebind(predict, jax=_Overlay(jax, core=core), lru_cache=_lru_cache)


class _Overlay:
    """A module with some of its names replaced, for one reader."""

    def __init__(self, module: types.ModuleType, **names: Any):
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _rebind(module: types.ModuleType, **names: Any) -> None:
    for name, value in names.items():
        if getattr(module, name, _MISSING) is _MISSING:
            raise ImportError(f"{module.__name__} has no name {name!r}: this is not neural-tangents {VERSION}.")
        setattr(module, name, value)


def _lru_cache(maxsize: int) -> Callable[[Callable], Callable]:
    """`functools.lru_cache` for functions whose closure holds no tracer; others are left as they are."""

    def decorate(fn: Callable) -> Callable:
        return fn if _closes_over_tracer(fn, set()) else functools.lru_cache(maxsize)(fn)

    return decorate


def _closes_over_tracer(fn: Callable, seen: set[int]) -> bool:
    seen.add(id(fn))
    for cell in getattr(fn, "__closure__", None) or ():
        try:
            leaves = jax.tree.leaves(cell.cell_contents)
        except ValueError:  # A name of the enclosing function that is assigned later.
            continue
        for leaf in leaves:
            if isinstance(leaf, jax.core.Tracer):
                return True
            if callable(leaf) and id(leaf) not in seen and _closes_over_tracer(leaf, seen):
                return True
    return False
