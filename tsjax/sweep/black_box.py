"""Experiments that are not JAX code: scikit-learn, XGBoost, a shell command, a simulator."""

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
    """Makes an `Experiment` from a function `fn(seed, *, a, b=1.0, ...)` that is not JAX code; usable as a decorator.

    The function gets an integer seed in 0 .. 2^32 - 1, which `random_state` of scikit-learn accepts, and returns a dict of
    numbers, or of vectors of one length. `tsjax.sweep` and the command line run it like any experiment, with the same stores,
    resuming, rates, verdicts and page, but cells run one by one in worker processes (`tsjax.engines.BlackBox`). A cell that
    fails has a record too: its `status` is `Status.TIMED_OUT`, `Status.OUT_OF_MEMORY` or `Status.FAILED`, and its `failure` is
    a text that says why.

    **Arguments:**

    - `timeout`: the seconds that a cell may take; then it is ended, with every process that it has started. None sets no limit.
    - `arguments`: the schema of the arguments; by default it is read from the signature, as in `tsjax.experiment`.
    - `name`: by default that of the function.
    - `**options`: fields of `Experiment`: `x`, `y`, `curve`, `theory`, `cost`, `independent`, `version`, `labels`, ... All
      arguments are static, since nothing is compiled.

    The function gets the seed of the record if the sweep's key is 0 and no argument is `independent`. Otherwise it gets that
    seed XOR a 32-bit hash of the key and the independent arguments, so that the seeds of a combination of arguments stay
    distinct. `result.cell(row)` gives the seed and the arguments of a record, and `fn(seed, **arguments)` runs its cell by
    hand.

    **Raises:** ValueError for a first parameter that is not called `seed`, a parameter without annotation, a timeout that is
    not a positive number, and options that are only for JAX code.

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
                f"black box {label!r}: {wrong[0]} is only for experiments in JAX, which are compiled; leave it out."
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
