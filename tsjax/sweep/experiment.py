"""What a sweep repeats: a pure function of (key, arguments) that returns a dict of scalars.

The engine knows nothing about teachers or kernels. It asks an experiment which arguments are static (they fix the shapes, so
each combination is one compiled program), how arguments are validated, and what theory says about its curves.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, create_model
from pydantic_core import to_jsonable_python

from ..oneof import OneOf
from ..rates.kinds import Kind, kind_content
from ..size import size_of
from .description import Description, source_of
from .theory import Theory
from .values import redacted


class Cost(NamedTuple):
    """Floating-point operations of one cell. `tsjax plan` estimates times from them, and they decide which sample sizes share
    a program. Such a program pads its arrays (`tsjax.Size`), and padding costs more for some operations than for others:

    - `products`: operations of training loops. On CPUs, and in the fused kernel of GPUs, these loops skip padded rows.
    - `factorisations`: those of the factorisations in tsjax's linear estimators, which skip most of the padding
      (`tsjax.size.ladder`) and run at another speed.
    - `entries`: all others, for which padded rows cost as much as data.
    """

    products: float
    factorisations: float = 0.0
    entries: float = 0.0


# The most axes of an array that a cell returns.
MOST_AXES = 4

# Columns that the engine adds to the records, and keys of a grid: arguments and returned values need other names.
RESERVED = (
    "cell", "seed", "seeds", "zip", "only", "failure", "compile_seconds", "run_seconds", "device", "jax", "tsjax",
)  # fmt: skip


class Arguments(BaseModel):
    """Base of an experiment's argument schema: unknown names are errors, numbers must be finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Experiment:
    """A pure function `fn(key, **arguments) -> {name: scalar}` with what the engine needs to know about it.

    - `static`: arguments that fix shapes or choose code; every combination compiles once. The others are traced numbers.
    - `sized`: sample sizes, which the function receives as a `tsjax.Size`. If it saves more time in compilation than it costs,
      different sizes share a program, in which the rows after `count` have weight 0.
    - `together`: families of curves, as tuples of values of the argument `curve`. Curves of one family share a program, in
      which the function receives a `tsjax.OneOf` for this argument. This suits curves that differ in a kernel, or in numbers;
      the other static arguments must be equal.
    - `pads(arguments)`: whether the function, at these arguments, allows for rows of weight 0, so that its sizes may share a
      program. Without `pads` it is taken to do so at all arguments.
    - `metrics`: the kind of each returned value that is judged or drawn, which decides the interval of its mean: `{"risk":
      ts.Positive(), "error": ts.Share(trials="test_points"), "drift": ts.Signed(), "stuck": ts.Indicator()}`. Values without a
      kind are indicators if they are truth values, and positive otherwise.
    - `arguments`: the pydantic schema of all arguments; `experiment` makes it from the signature of the function.
    - `x`, `y`, `curve`: the argument (or returned vector) on the horizontal axis, the returned values to plot and fit (the
      first one carries the rate), and the argument that names a curve.
    - `arrays`: returned arrays that are kept beside the record of a cell, with the names of their axes: `{"atoms": ("neuron",
      "coordinate")}`. `Result.arrays` reads them; they are not in `Result.records`.
    - `theory(arguments, x)`: the `Theory` of the curve at `arguments`, for the values x.
    - `work`: a returned value that counts work done (for instance gradient steps), shown as throughput while running.
    - `cost(arguments)`: the `Cost` of one cell. Without it `tsjax plan` knows no operations, and a time only from cells that
      were run before.
    - `independent`: arguments whose values enter the key of a cell. Otherwise the key depends only on the sweep's key and the
      seed (common random numbers), so that all cells with one seed see the same draws and their differences are paired.
    - `version`: raise it when the meaning of the function changes; a store keeps the records of one version.
    - `labels`: how tables and figures write names (of arguments, values and curves).
    - `x64`: whether JAX has 64-bit types while a cell runs, as is the default: networks and data are then float64 unless a
      dtype is given.
    - `cite`: the paper or report that the experiment is about, such as `arXiv:2205.14818`, or its BibTeX entry, for pages.
    - `black_box`: whether the function is not JAX code; it then runs in worker processes, and gets an integer in place of a
      key. `timeout`: the seconds that one of its cells may take. See `tsjax.black_box`.
    - `rates`: whether y is expected to be a power of x. If not, reports show exponents, and warn about them, only for the
      curves about whose rate a sweep expects something.

    A returned value that is not among `arrays` may be a vector. All vectors of one call have the same length L, and the cell
    then has L rows in the records.
    """

    name: str
    fn: Callable[..., Mapping[str, Any]]
    static: tuple[str, ...]
    arguments: type[BaseModel]
    x: str = "n"
    y: tuple[str, ...] = ("risk",)
    curve: str | None = None
    theory: Callable[[dict[str, Any], np.ndarray], Theory] | None = None
    work: str | None = None
    cost: Callable[[dict[str, Any]], Cost] | None = None
    independent: tuple[str, ...] = ()
    version: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    x64: bool = True
    cite: str = ""
    rates: bool = True
    sized: tuple[str, ...] = ()
    together: tuple[tuple[Any, ...], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pads: Callable[[dict[str, Any]], bool] | None = None
    black_box: bool = False
    timeout: int | float | None = None

    def __post_init__(self):
        for name in self.arguments.model_fields:
            if name in RESERVED:
                raise ValueError(f"experiment {self.name!r}: {name!r} is reserved for the engine; rename the argument.")
        for name in (self.x, *self.y):
            if name in RESERVED:
                raise ValueError(
                    f"experiment {self.name!r}: x or y names {name!r}, which the engine records itself; it is not a result of "
                    "a cell. Name a value that the function returns."
                )
        for name, kind in self.metrics.items():
            if not isinstance(kind, Kind):
                raise ValueError(
                    f"experiment {self.name!r}: metrics says that {name!r} is {kind!r}, which is not a kind of metric; give "
                    "ts.Positive(), ts.Share(trials=...), ts.Signed() or ts.Indicator()."
                )
        for name, axes in self.arrays.items():
            if name in (self.x, *self.y, *self.metrics, *self.arguments.model_fields) or name in RESERVED:
                raise ValueError(
                    f"experiment {self.name!r}: arrays names {name!r}, which is an argument, x, y, a metric or reserved for "
                    "the engine; return the array under a name of its own."
                )
            if (
                isinstance(axes, str)
                or not 1 <= len(axes) <= MOST_AXES
                or not all(isinstance(one, str) for one in axes)
            ):
                raise ValueError(
                    f"experiment {self.name!r}: arrays says that {name!r} has the axes {axes!r}; name 1 to {MOST_AXES} of "
                    'them, such as ("neuron", "coordinate").'
                )
        both = sorted(set(self.static) & set(self.sized))
        if both:
            raise ValueError(
                f"experiment {self.name!r}: {both[0]!r} is in both static and sized; name it in one of them."
            )
        if self.together and self.curve not in self.static:
            raise ValueError(
                f"experiment {self.name!r}: together is about values of the argument that names curves; name that in curve= "
                "and in static=."
            )
        for family in self.together:
            if not isinstance(family, tuple | list) or len(family) < 2:
                raise ValueError(
                    f"experiment {self.name!r}: together holds {family!r}, which is not a family of curves; give tuples of at "
                    'least two values, as in together=(("ntk", "rbf"),).'
                )
        values = [value for family in self.together for value in family]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"experiment {self.name!r}: together names {twice!r} twice; name it in one family.")
        for option in ("static", "independent", "sized"):
            for name in getattr(self, option):
                if name not in self.arguments.model_fields:
                    raise ValueError(
                        f"experiment {self.name!r}: {option} names {name!r}, which is not one of its arguments."
                    )
        if self.timeout is not None:
            if not self.black_box:
                raise ValueError(
                    f"experiment {self.name!r}: timeout is only for black boxes (ts.black_box), whose cells run in processes "
                    "that can be ended; leave it out."
                )
            if not isinstance(self.timeout, int | float) or not 0.0 < self.timeout < np.inf:
                raise ValueError(
                    f"experiment {self.name!r}: timeout = {self.timeout!r}: give the seconds that a cell may take, a positive "
                    "number, or None."
                )
        if self.curve is not None and self.curve not in self.arguments.model_fields:
            raise ValueError(
                f"experiment {self.name!r}: curve names {self.curve!r}, which is not one of its arguments."
            )

    @functools.cached_property
    def description(self) -> Description:
        """The experiment as data, without its functions, for readers of its records."""
        defaults = {
            name: [] if info.is_required() else [to_jsonable_python(info.get_default(), fallback=repr)]
            for name, info in self.arguments.model_fields.items()
        }
        return Description(
            name=self.name,
            version=self.version,
            arguments=redacted(defaults),
            static=self.static,
            x=self.x,
            y=self.y,
            curve=self.curve,
            work=self.work,
            independent=self.independent,
            labels=redacted(dict(self.labels)),
            x64=self.x64,
            cite=redacted(self.cite),
            rates=self.rates,
            sized=self.sized,
            metrics={name: kind_content(kind) for name, kind in self.metrics.items()},
            arrays={name: tuple(axes) for name, axes in self.arrays.items()},
            source=source_of(self.fn),
            has_theory=self.theory is not None,
            black_box=self.black_box,
        )

    @property
    def shaping(self) -> tuple[str, ...]:
        """The arguments that are the same in all cells of a chunk: the static ones and the sizes."""
        return (*self.static, *self.sized)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arguments."""
        return tuple(self.arguments.model_fields)

    @property
    def returns_x(self) -> bool:
        """Whether x is a vector that every cell returns, rather than an argument."""
        return self.x not in self.arguments.model_fields

    def theory_at(self, curve: Mapping[str, Any], x: np.ndarray) -> Theory:
        """What theory says about the curve with these arguments (all but x), at the values x (k,).

        **Raises:** ValueError if `theory` does not return a `Theory`, or predicts another number of values."""
        if self.theory is None:
            return Theory()
        theory = self.theory({**curve, self.x: None}, x)
        if not isinstance(theory, Theory):
            raise ValueError(
                f"the theory of experiment {self.name!r} returned a {type(theory).__name__}; return a ts.Theory."
            )
        if theory.predicted is not None and np.shape(theory.predicted) != np.shape(x):
            raise ValueError(
                f"the theory of experiment {self.name!r} predicts values of shape {np.shape(theory.predicted)} for "
                f"{len(x)} values of {self.x}; give one for each."
            )
        return theory

    def __call__(self, key, **arguments) -> Mapping[str, Any]:
        """Runs one cell, as the engine does for each seed. Sizes may be plain numbers, and the value of `curve` a plain
        value."""
        own: dict[str, Any] = {name: size_of(arguments[name]) for name in self.sized if name in arguments}
        if self.curve is not None and any(arguments.get(self.curve) in family for family in self.together):
            own[self.curve] = OneOf((arguments[self.curve],))
        return self.fn(key, **{**arguments, **own})


def experiment(
    fn: Callable[..., Mapping[str, Any]] | None = None,
    *,
    static: tuple[str, ...] = (),
    sized: tuple[str, ...] = (),
    arguments: type[BaseModel] | None = None,
    name: str | None = None,
    **options: Any,
) -> Any:
    """Makes an `Experiment` from a function `fn(key, *, a, b=1.0, ...)`; usable as a decorator.

    Without `arguments` the schema is read from the signature: annotations give the types (`int`, `float`, `str`, `Literal`,
    pydantic's `Annotated` constraints), and defaults make arguments optional. Further `options` are the fields of `Experiment`.

    **Raises:** ValueError for a first parameter that is not called `key`, a parameter without annotation, a name in `static`,
    `sized`, `independent` or `curve` that is not an argument, and other wrong options.

    >>> @ts.experiment(static=("n",), y=("risk",))
    ... def mean(key, *, n: int, scale: float = 1.0):
    ...     return {"risk": jnp.mean(scale * jax.random.normal(key, (n,))) ** 2}

    >>> mean(jax.random.key(0), n=100)["risk"].shape
    ()
    """

    def make(fn: Callable[..., Mapping[str, Any]]) -> Experiment:
        label = name or fn.__name__
        schema = schema_of(fn, label) if arguments is None else arguments
        return Experiment(name=label, fn=fn, static=tuple(static), sized=tuple(sized), arguments=schema, **options)

    return make if fn is None else make(fn)


def schema_of(fn: Callable, name: str, first: str = "key") -> type[BaseModel]:
    """The schema of a function's arguments, read from its signature. The first parameter must be called `first` and is not
    part of the schema. **Raises:** ValueError."""
    parameters = list(inspect.signature(fn, eval_str=True).parameters.values())
    if not parameters or parameters[0].name != first:
        raise ValueError(f"experiment {name!r}: the first parameter must be called {first}, then arguments by keyword.")
    fields: dict[str, Any] = {}
    for parameter in parameters[1:]:
        if parameter.annotation is inspect.Parameter.empty:
            raise ValueError(
                f"experiment {name!r}: annotate {parameter.name!r} (int, float, str, ...), to validate it."
            )
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (parameter.annotation, default)
    return create_model(name, __base__=Arguments, **fields)
