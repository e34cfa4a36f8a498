"""The bridge to neural-tangents 0.6.5 (December 2023, its last release), which today's JAX cannot import by itself.

    from tsjax.kernels.neural_tangents import load; nt = load()

is all one needs: the real, unmodified library, all of it but `nt.experimental`. It is the remedy for everyone whose
`import neural_tangents` fails (issue 209 of google/neural-tangents), on JAX 0.10.2 (Python 3.11), 0.11.2 and 0.12.0.1
(Python 3.12). No TensorFlow: `pip install --no-deps neural-tangents==0.6.5 frozendict`. Nothing happens before the call.

Two kinds of repair, both from outside and with public JAX names only:

- *While it is imported*, JAX is lent the names that it has since dropped (`_lend`); all are taken back afterwards, so
  that nothing else in the process sees a changed JAX.
- *After it is imported*, names on neural-tangents' own modules are rebound where its use of JAX or SciPy has gone stale
  (`_repair_predict`, `_repair_empirical`). These touch private modules of this release alone, hence the check of the
  version.

Left as they always were: `stax.RectifiedMonomial` has a kernel of nan below the first hidden layer, and AUTO prints what
it counts.
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
        _repair_empirical(sys.modules["neural_tangents._src.empirical"])
        return sys.modules["neural_tangents"]


@functools.cache
def source() -> str:
    """What computes `tsjax.kernels.ntk` and `nngp` here: `neural-tangents 0.6.5`, or `closed form` where the library is not
    installed."""
    version = version_of("neural-tangents")
    return "closed form" if version is None else f"neural-tangents {version}"


def _check_version() -> None:
    how = f"pip install --no-deps neural-tangents=={VERSION} frozendict"
    version = version_of("neural-tangents")
    if version is None:
        raise ImportError(
            f"neural-tangents {VERSION} is not installed. Kernels of relu networks do without it; for other networks "
            f"install it without TensorFlow, which it declares and tsjax does not need: `{how}`."
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
    # Importing the real `experimental` would ask for TensorFlow and tf2jax.
    experimental = types.ModuleType("neural_tangents.experimental")
    names: list[tuple[types.ModuleType, str, Any]] = [
        (jax.core, name, getattr(jax.extend.core, name))
        for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    ]
    # Only the key of a dictionary of differentiation rules; no program contains it any more.
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
    """Leaves `import neural_tangents.experimental` to those who have TensorFlow, as if it had not been imported."""
    sys.modules["neural_tangents"].__dict__.pop("experimental", None)


def _repair_predict(predict: types.ModuleType) -> None:
    """Makes `nt.predict` work on traced data (inside `jit`, `vmap` over data sets, `grad`), and with today's SciPy.

    `gradient_descent_mse` factorises the kernel under `jax.core.eval_context()`, meant to do at once what can be done
    at once. It now refuses tracers; `jax.ensure_compile_time_eval()` has the intended meaning.

    What depends on a tracer must moreover not be cached, since it belongs to the trace that happened to ask first; and
    what does not must be computed at once, or it would become a tracer of that trace all the same.
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
    """`gradient_descent_mse_ensemble`, which caches the kernel of the training data by itself, in a dictionary."""
    if _holds_tracer((kernel_fn, args, kwargs)):
        return lambda *a, **k: original(kernel_fn, *args, **kwargs)(*a, **k)
    return original(_at_once(kernel_fn), *args, **kwargs)


def _eigvalsh(a: Any, eigvals: tuple[int, int]) -> Any:
    """SciPy's `eigvalsh` as `max_learning_rate` calls it: `eigvals`, now `subset_by_index`, selects eigenvalues."""
    return scipy.linalg.eigvalsh(a, subset_by_index=eigvals)


def _is_on_cpu(original: Callable, x: Any) -> bool:
    """Whether SciPy may be given `x`. A tracer used to say that it has no device; now it refuses to be asked."""
    return not _holds_tracer(x) and original(x)


def _repair_empirical(empirical: types.ModuleType) -> None:
    """Makes the implementations AUTO and STRUCTURED_DERIVATIVES of `nt.empirical_ntk_fn` work, all four in silence.

    STRUCTURED_DERIVATIVES walks backwards through the linearised network, with JAX's own machinery of 2023 for taking
    the derivatives. Its walk and its rules are kept; what they stand on is replaced by `jax.linearize`,
    `jax.make_jaxpr` and `jax.linear_transpose`, which do the same in public.
    """
    _rebind(
        empirical,
        _get_flops=_flops,
        _get_primals_out_and_pullback=functools.partial(_primals_out_and_pullback, empirical._backward_pass),
        _eqn_vjp_fn=_transpose_equation,
        # Names for error messages and checks of the walk itself, off by default: nothing is lost without them.
        ad=_Overlay(
            ad,
            source_info_util=types.SimpleNamespace(transform_name_stack=contextlib.nullcontext),
            config=types.SimpleNamespace(jax_enable_checks=False),
        ),
        # Arrays of dynamic shape, an experiment that JAX has abandoned: no array is one.
        core=_Overlay(jax.core, DShapedArray=None),
        # These three are asked of abstract arrays (`jax.ShapeDtypeStruct`, tracers) and of parameters, which JAX is
        # about to refuse. `jnp.dtype` is also read as a type, but only in annotations, when the module is imported.
        jnp=_Overlay(jnp, shape=_shape, size=lambda x: math.prod(_shape(x)), dtype=jnp.result_type),
    )


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(x.shape) if hasattr(x, "shape") else jnp.shape(x)


def _flops(f: Callable, optimize: bool, *args: Any, **kwargs: Any) -> float:
    """XLA's count of floating-point operations in `f(*args, **kwargs)`, by which AUTO chooses."""
    lowered = jax.jit(f).lower(*args, **kwargs)
    analysis = lowered.compile().cost_analysis() if optimize else lowered.cost_analysis()
    if isinstance(analysis, list):  # One per executable, as older JAX and some back ends have it.
        analysis = analysis[0]
    # A program that XLA has folded to a constant has no entry.
    return (analysis or {}).get("flops", 0.0)


def _primals_out_and_pullback(
    backward_pass: Callable, fn: Callable, mode: Any, j_rules: bool, s_rules: bool, fwd: bool | None, *primals_in: Any
) -> tuple[Any, Callable]:
    """`fn(*primals_in)`, and what `backward_pass` collects on its way back from given cotangents of it."""
    # The walk knows the rules of primitives, not of programs within programs. `disable_jit` writes those out.
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
    """Cotangents of the inputs `invals` of one linear equation, from that of its output; None for known inputs."""
    if eqn is None:  # The identity.
        return (ct,)
    # JAX's own rule also accepts operands that the walk has cut to a smaller shape, which only the equation's
    # parameters fit.
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
    """`functools.lru_cache` for functions that hold no tracer; others are left as they are."""

    def decorate(fn: Callable) -> Callable:
        return fn if _holds_tracer(fn) else functools.lru_cache(maxsize)(_at_once(fn))

    return decorate


def _at_once(fn: Callable) -> Callable:
    """`fn`, computed when called on concrete arrays even if the caller is being traced, so that its result may be kept."""

    @functools.wraps(fn)
    def at_once(*args: Any, **kwargs: Any) -> Any:
        if _holds_tracer((args, kwargs)):
            return fn(*args, **kwargs)
        with jax.ensure_compile_time_eval():
            return fn(*args, **kwargs)

    return at_once


def _holds_tracer(tree: Any) -> bool:
    """Whether there is a tracer among the leaves of `tree`, or in the closure or bound arguments of one of them."""
    todo, seen = [tree], {}
    while todo:
        # Dictionaries are opened by hand, since those of other libraries may have keys that JAX cannot sort.
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
                    # A name of the enclosing function that is assigned later has no contents yet.
                    with contextlib.suppress(ValueError):
                        todo.append(cell.cell_contents)
    return False
