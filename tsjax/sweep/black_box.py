"""Experiments that are no JAX code: scikit-learn, XGBoost, a shell command, a simulator."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from .experiment import Experiment, schema_of


def black_box(
    fn: Callable[..., Mapping[str, Any]] | None = None,
    *,
    timeout: int | float | None = None,
    arguments: type[BaseModel] | None = None,
    name: str | None = None,
    **options: Any,
) -> Any:
    """Makes an `Experiment` of a function `fn(seed, *, a, b=1.0, ...)` that is no JAX code; usable as a decorator.

    The function gets an integer seed in 0 .. 2^32 - 1, as `random_state` of scikit-learn takes it, and returns a dict of
    numbers, or of vectors of one length. Cells run one by one in worker processes (`tsjax.engines.BlackBox`), by `tsjax.sweep`
    and the command line as any experiment: the same store, resuming, rates, verdicts and page. What goes wrong in a cell is a
    record: `status` is `Status.TIMED_OUT`, `Status.OUT_OF_MEMORY` or `Status.FAILED`, and `failure` a text that says why.

    **Arguments:**

    - `timeout`: seconds that a cell may take; it is then ended, with every process that it has started. None lets it run.
    - `arguments`: the schema of the arguments; read off the signature by default, as `tsjax.experiment` does.
    - `name`: that of the function by default.
    - `**options`: fields of `Experiment`: `x`, `y`, `curve`, `theory`, `cost`, `independent`, `version`, `labels`, ... All
      arguments are static, since nothing is compiled.

    The seed is that of the record where the sweep's key is 0 and nothing is `independent`; else the same number with some bits
    flipped, by a hash of the key and the independent arguments, so that seeds of a cell stay distinct.
    `result.cell(row)` gives seed and arguments of a record, and `fn(seed, **arguments)` runs its cell by hand.

    **Raises:** ValueError for a first parameter that is not `seed`, a parameter without annotation, a timeout that is no
    positive number, and options that are for JAX code.

    >>> @ts.black_box(timeout=60)
    ... def mean(seed: int, *, n: int):
    ...     return {"risk": np.mean(np.random.default_rng(seed).normal(size=n)) ** 2}

    >>> bool(mean(3, n=100)["risk"] < 1)
    True
    """

    def make(fn: Callable[..., Mapping[str, Any]]) -> Experiment:
        label = name or getattr(fn, "__name__", type(fn).__name__)
        wrong = sorted({"static", "sized", "pads", "x64"} & options.keys())
        if wrong:
            raise ValueError(
                f"black box {label!r}: {wrong[0]} is for experiments in JAX, which are compiled; leave it out."
            )
        schema = schema_of(fn, label, "seed") if arguments is None else arguments
        return Experiment(
            name=label,
            fn=fn,
            static=tuple(schema.model_fields),
            arguments=schema,
            black_box=True,
            timeout=timeout,
            **options,
        )

    return make if fn is None else make(fn)
