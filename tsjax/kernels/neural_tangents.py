"""The bridge to neural-tangents 0.6.5 (December 2023, its last release), which current JAX releases cannot import directly.

    from tsjax.kernels.neural_tangents import load; nt = load()

gives the installed library with everything but `nt.experimental`; its files are not changed. This helps everyone whose
`import neural_tangents` fails (issue 209 of google/neural-tangents). It is tested on JAX 0.10.2 (Python 3.11), 0.11.2 and
0.12.0.1 (Python 3.12). TensorFlow is not needed: `pip install --no-deps neural-tangents==0.6.5 frozendict`. Nothing happens
before the call of `load`.

There are two kinds of repair, both from outside and with public JAX names only:

- *During the import*, JAX temporarily gets the names back that it has since removed (`_lend`). They are removed again
  afterwards, so that nothing else in the process sees a changed JAX.
- *After the import*, names in neural-tangents' own modules are rebound where its use of JAX or SciPy is out of date
  (`_repair_predict`, `_repair_empirical`). These repairs touch private modules of this release, hence the check of the
  version.

Two defects of the library remain: the kernel of `stax.RectifiedMonomial` is nan from the second hidden layer on, and AUTO
prints its operation counts.
"""

import contextlib
import functools
import math
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.interpreters.ad as ad
import jax.numpy as jnp
import scipy
import scipy.linalg

from ..versions import version_of

VERSION = "0.6.5"
"""The only release of neural-tangents that this bridge fits."""

TESTED_JAX = ("0.10.2", "0.11.2", "0.12.0.1")
"""The JAX releases on which the tests of this bridge were run."""

_lock = threading.Lock()
_MISSING = object()


@functools.cache
def load() -> types.ModuleType:
    """Imports neural-tangents on current JAX (once in a process) and returns the module.

    It can be called inside `jax.jit`. If neural-tangents is imported already, only the repairs are applied.

    **Raises:** ImportError if neural-tangents is not installed, or is not release 0.6.5.
    """
    with _lock:
        _check_version()
        if "neural_tangents" not in sys.modules:
            # The caller cannot do anything about JAX's deprecations and the invalid escapes in the library's docstrings. Inside
            # a caller's trace, arrays that a module makes at import would be leaked tracers without `ensure_compile_time_eval`.
            with warnings.catch_warnings(), _lend(), jax.ensure_compile_time_eval():
                warnings.simplefilter("ignore")
                import neural_tangents  # noqa: F401  # pyright: ignore[reportMissingImports]
            _forget_experimental()
        _repair_predict(sys.modules["neural_tangents._src.predict"])
        _repair_empirical(sys.modules["neural_tangents._src.empirical"])
        return sys.modules["neural_tangents"]


@functools.cache
def source() -> str:
    """What computes `tsjax.kernels.ntk` and `nngp` in this environment: `neural-tangents` with its version, or `closed form` if
    the library is not installed."""
    version = version_of("neural-tangents")
    return "closed form" if version is None else f"neural-tangents {version}"


def _check_version() -> None:
    how = f"pip install --no-deps neural-tangents=={VERSION} frozendict"
    version = version_of("neural-tangents")
    if version is None:
        raise ImportError(
            f"neural-tangents {VERSION} is not installed. Kernels of most relu networks do not need it; for other networks "
            f"install it without TensorFlow, a declared dependency that tsjax does not need: `{how}`."
        )
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
    # Importing the real `experimental` would need TensorFlow and tf2jax.
    experimental = types.ModuleType("neural_tangents.experimental")
    names: list[tuple[types.ModuleType, str, Any]] = [
        (jax.core, name, getattr(jax.extend.core, name))
        for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    ]
    # It is used only as a key in a dictionary of differentiation rules; current programs do not contain this primitive.
    names.append((ad, "zeros_like_p", jax.extend.core.Primitive("zeros_like")))
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
    """Removes the stand-in, so that users who have TensorFlow can import the real `neural_tangents.experimental`."""
    sys.modules["neural_tangents"].__dict__.pop("experimental", None)


def _repair_predict(predict: types.ModuleType) -> None:
    """Makes `nt.predict` work on traced data (inside `jit`, `vmap` over data sets, `grad`), and with current SciPy.

    `gradient_descent_mse` factorises the kernel under `jax.core.eval_context()`, which was meant to compute concrete values
    immediately, even inside a trace. It now rejects tracers; `jax.ensure_compile_time_eval()` has the intended meaning.

    Moreover, a value that depends on a tracer must not be cached, since it belongs to the trace that computed it first. A value
    that does not depend on a tracer must be computed immediately, since it would otherwise become a tracer of that trace.
    """
    core = _Overlay(jax.core, eval_context=jax.ensure_compile_time_eval)
    linalg = _Overlay(scipy.linalg, eigvalsh=_eigvalsh)
    ensemble = functools.partial(_ensemble, predict.gradient_descent_mse_ensemble)
    ensemble = functools.wraps(predict.gradient_descent_mse_ensemble)(ensemble)
    _rebind(
        predict,
        jax=_Overlay(jax, core=core),
        lru_cache=_lru_cache,
        gradient_descent_mse_ensemble=ensemble,
        sp=_Overlay(scipy, linalg=linalg),
        _is_on_cpu=functools.partial(_is_on_cpu, predict._is_on_cpu),
    )
    _rebind(sys.modules["neural_tangents.predict"], gradient_descent_mse_ensemble=ensemble)


def _ensemble(original: Callable, kernel_fn: Callable, *args: Any, **kwargs: Any) -> Callable:
    """`gradient_descent_mse_ensemble`, which caches the kernel of the training data in a dictionary of its own. With tracers
    every call starts with an empty cache."""
    if _holds_tracer((kernel_fn, args, kwargs)):
        return lambda *a, **k: original(kernel_fn, *args, **kwargs)(*a, **k)
    return original(_at_once(kernel_fn), *args, **kwargs)


def _eigvalsh(a: Any, eigvals: tuple[int, int]) -> Any:
    """SciPy's `eigvalsh` with the argument `eigvals`, which `max_learning_rate` uses and SciPy has renamed
    `subset_by_index`."""
    return scipy.linalg.eigvalsh(a, subset_by_index=eigvals)


def _is_on_cpu(original: Callable, x: Any) -> bool:
    """Whether SciPy can handle `x`. The original test raises an error for tracers on current JAX."""
    return not _holds_tracer(x) and original(x)


def _repair_empirical(empirical: types.ModuleType) -> None:
    """Makes the implementations AUTO and STRUCTURED_DERIVATIVES of `nt.empirical_ntk_fn` work, and all four run without
    warnings.

    STRUCTURED_DERIVATIVES walks backwards through the linearised network, and takes the derivatives by internal functions of
    the JAX of 2023. Its walk and its rules are kept. The internal functions are replaced by the public `jax.linearize`,
    `jax.make_jaxpr` and `jax.linear_transpose`.
    """
    _rebind(
        empirical,
        _get_flops=_flops,
        _get_primals_out_and_pullback=functools.partial(_primals_out_and_pullback, empirical._backward_pass),
        _eqn_vjp_fn=_transpose_equation,
        # These two are used only for names in error messages, and for checks of the walk that are off by default.
        ad=_Overlay(
            ad,
            source_info_util=types.SimpleNamespace(transform_name_stack=contextlib.nullcontext),
            config=types.SimpleNamespace(jax_enable_checks=False),
        ),
        # Arrays of dynamic shape were an experiment of JAX, now removed: no array is one.
        core=_Overlay(jax.core, DShapedArray=None),
        # The library calls these three on abstract arrays (`jax.ShapeDtypeStruct`, tracers) and on parameters, which JAX
        # deprecates. It also uses `jnp.dtype` as a type, but only in annotations, at import.
        jnp=_Overlay(jnp, shape=_shape, size=lambda x: math.prod(_shape(x)), dtype=jnp.result_type),
    )


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(x.shape) if hasattr(x, "shape") else jnp.shape(x)


def _flops(f: Callable, optimize: bool, *args: Any, **kwargs: Any) -> float:
    """XLA's count of floating-point operations in `f(*args, **kwargs)`, by which AUTO chooses."""
    lowered = jax.jit(f).lower(*args, **kwargs)
    analysis = lowered.compile().cost_analysis() if optimize else lowered.cost_analysis()
    if isinstance(analysis, list):  # Older JAX and some back ends return one entry for each executable.
        analysis = analysis[0]
    # A program that XLA has folded to a constant has no entry.
    return (analysis or {}).get("flops", 0.0)


def _primals_out_and_pullback(
    backward_pass: Callable, fn: Callable, mode: Any, j_rules: bool, s_rules: bool, fwd: bool | None, *primals_in: Any
) -> tuple[Any, Callable]:
    """`fn(*primals_in)`, and a function of cotangents of this result that returns what `backward_pass` collects."""
    # The walk has rules for primitives but not for nested programs. `disable_jit` expands these.
    with jax.disable_jit():
        primals_out, push = jax.linearize(fn, *primals_in)
        closed = jax.make_jaxpr(push)(*primals_in)

    def pullback(*cts: Any) -> Any:
        found = backward_pass(
            closed.jaxpr,
            mode=mode,
            consts=closed.consts,
            primals_in=[ad.UndefinedPrimal(v.aval) for v in closed.jaxpr.invars],
            cotangents_in=tuple(jax.tree.leaves(cts)),
            _j_rules=j_rules,
            _s_rules=s_rules,
            _fwd=fwd,
        )
        return jax.tree.unflatten(jax.tree.structure(primals_in), found)

    return primals_out, pullback


def _transpose_equation(eqn: Any, ct: Any, *invals: Any) -> Any:
    """The cotangents of the inputs `invals` of one linear equation, from that of its output; None for known inputs."""
    if eqn is None:  # The identity.
        return (ct,)
    # JAX's own rule comes first, because it also accepts operands that the walk has cut to a shape smaller than the equation's.
    rule = ad.primitive_transposes.get(eqn.primitive)
    if rule is not None:
        return rule(ct, *invals, **eqn.params)
    linear = [i for i, x in enumerate(invals) if ad.is_undefined_primal(x)]

    def apply(*xs: Any) -> Any:
        args = dict(enumerate(invals)) | dict(zip(linear, xs, strict=True))
        return eqn.primitive.bind(*args.values(), **eqn.params)

    shapes = [jax.ShapeDtypeStruct(invals[i].aval.shape, invals[i].aval.dtype) for i in linear]
    cts = dict(zip(linear, jax.linear_transpose(apply, *shapes)(ct), strict=True))
    return [cts.get(i) for i in range(len(invals))]


class _Overlay:
    """A view of a module with some of its names replaced; the module itself does not change."""

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
    """`functools.lru_cache` for functions that hold no tracer. Functions that hold one are not cached."""

    def decorate(fn: Callable) -> Callable:
        return fn if _holds_tracer(fn) else functools.lru_cache(maxsize)(_at_once(fn))

    return decorate


def _at_once(fn: Callable) -> Callable:
    """`fn`, which computes concrete results from concrete arrays even if its caller is being traced, so that they can be
    cached."""

    @functools.wraps(fn)
    def at_once(*args: Any, **kwargs: Any) -> Any:
        if _holds_tracer((args, kwargs)):
            return fn(*args, **kwargs)
        with jax.ensure_compile_time_eval():
            return fn(*args, **kwargs)

    return at_once


def _holds_tracer(tree: Any) -> bool:
    """Whether there is a tracer among the leaves of `tree`, or in the closure or bound arguments of a leaf."""
    todo, seen = [tree], {}
    while todo:
        # Dictionaries are opened here, since those of other libraries may have keys that JAX cannot sort.
        for leaf in jax.tree.leaves(todo.pop(), is_leaf=lambda x: isinstance(x, dict)):
            if isinstance(leaf, jax.core.Tracer):
                return True
            if id(leaf) in seen:
                continue
            if isinstance(leaf, dict):
                seen[id(leaf)] = leaf
                todo.extend(leaf.values())
            elif callable(leaf):
                seen[id(leaf)] = leaf
                todo.extend(
                    getattr(leaf, name, None) for name in ("__wrapped__", "__self__", "func", "args", "keywords")
                )
                for cell in getattr(leaf, "__closure__", None) or ():
                    # A cell is empty if the enclosing function assigns its name later.
                    with contextlib.suppress(ValueError):
                        todo.append(cell.cell_contents)
    return False
