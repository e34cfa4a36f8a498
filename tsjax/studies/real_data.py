"""Learning curves on real data: any estimator on nested subsamples, and its risk on rows that no fit has seen.

At the same seed every estimator sees the same rows, and standardises them by those rows alone (`tsjax.Standardized`).
"""

import functools
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from ..data import BUNDLED, DataProblem
from ..estimators.base import AbstractEstimator
from ..estimators.standardized import Standardized
from ..estimators.two_phase import TwoPhaseStudent
from ..hints import nearest
from ..kernels import DotProduct
from ..oneof import OneOf
from ..status import failed
from ..sweep.experiment import Arguments, Cost, experiment
from ..sweep.named import import_named
from ..sweep.options import home
from .cell import Choice, Choices, scalars
from .linear import LINEAR, ridge
from .superiority import ESTIMATORS as SUPERIORITY

ESTIMATORS = Choices(
    student=Choice(
        "two-phase student",
        lambda a: TwoPhaseStudent(a["width"] or "auto", a["restarts"]),
        cost=SUPERIORITY["student"].cost,
    ),
    linear=ridge("linear ridge", lambda: DotProduct((0.0, 1.0))),
    **LINEAR,
)
"""The learners of the study, besides estimators that a user names."""


class RealDataArguments(Arguments):
    """Data, estimator and sample size of one cell.

    - `data`: a set that comes with scikit-learn (`tsjax.data.BUNDLED`), or the path of a CSV or Parquet file, relative to the
      directory where `tsjax` runs. For a file, `target` names the column of the response, and all other columns are inputs.
    - `estimator`: `student`, `linear` (ridge regression), a linear estimator of the study `superiority`, or
      `package.module:name`, an estimator of your own: an instance, or a class that needs no arguments.
    - `test_share`: the share of the rows that is held out.
    - `tuning`: how linear estimators choose their ridge, time, number of components, bandwidth or k.
    - `width`: neurons of `student`; 0 chooses them from the training data. `restarts` as for `tsjax.TwoPhaseStudent`.
    - `bias`: see `tsjax.Standardized`.
    - `fingerprint`: that of the data (`DataProblem.fingerprint`). It is filled in from the data, so that a store records which
      numbers were used. Give it to get an error if the file has changed, or to read a store where the file is missing.
    """

    data: str
    target: str = ""
    estimator: str
    n: Annotated[int, Field(ge=2)]
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    tuning: Literal["gcv", "loo", "holdout", "marginal_likelihood"] = "gcv"
    width: Annotated[int, Field(ge=0)] = 0
    restarts: Annotated[int, Field(ge=1)] = 8
    bias: Annotated[float, Field(ge=0)] = 1.0
    dtype: Literal["float32", "float64"] = "float32"
    fingerprint: str = ""

    @model_validator(mode="after")
    def _consistent(self):
        # The classes check their own arguments, and their messages say what to do.
        _estimator(self.model_dump())
        if self.fingerprint and self.data not in BUNDLED and not Path(home(self.data)).exists():
            return self
        problem = problem_of(self.data, self.target, self.test_share)
        if self.n > problem.largest_n:
            raise ValueError(
                f"n = {self.n} is too large: {problem.test_size} rows of {self.data} are held out, which leaves "
                f"{problem.largest_n}; lower n or test_share"
            )
        if self.fingerprint not in ("", problem.fingerprint):
            raise ValueError(
                f"{self.data} is not the data of this sweep: its fingerprint is {problem.fingerprint}, not {self.fingerprint}"
            )
        # A validated model is frozen, but its own validator may still fill in this field.
        object.__setattr__(self, "fingerprint", problem.fingerprint)
        return self


def problem_of(data: str, target: str, test_share: float) -> DataProblem:
    """The data that a cell names. **Raises:** ValueError if the data are missing or not valid."""
    if data in BUNDLED:
        if target:
            raise ValueError(f"{data} has one response; target is for files")
        return _bundled(data, test_share)
    path = Path(home(data))
    if not path.is_file():
        raise ValueError(
            f"no such file or set: {data!r}.{nearest(data, BUNDLED)} Give a set that comes with scikit-learn, or the path of a "
            "CSV or Parquet file from where you are"
        )
    if not target:
        raise ValueError(f"target is missing: which column of {data} is the response?")
    return _read(str(path), target, test_share, path.stat().st_mtime_ns)


# Every cell of a grid asks for the same data, so they are cached. A file that has changed since is read again.
@functools.lru_cache(maxsize=4)
def _read(path: str, target: str, test_share: float, modified: int) -> DataProblem:
    del modified
    return DataProblem.read(path, target, test_share=test_share)


@functools.lru_cache(maxsize=4)
def _bundled(name: str, test_share: float) -> DataProblem:
    return DataProblem.bundled(name, test_share)


def _estimator(arguments: dict[str, Any]) -> AbstractEstimator:
    name = arguments["estimator"]
    if isinstance(name, OneOf) or name in ESTIMATORS:
        return ESTIMATORS.make(name, arguments)
    if ":" not in name:
        raise ValueError(
            f"no such estimator.{nearest(name, tuple(ESTIMATORS))} One of your own is named 'package.module:estimator'"
        )
    found = import_named(name, f"estimator = {name!r}")
    if isinstance(found, AbstractEstimator):
        return found
    # Any other callable is refused without calling it, since a sweep file may name any function.
    if not (isinstance(found, type) and issubclass(found, AbstractEstimator)):
        raise ValueError(
            f"estimator = {name!r} is no tsjax estimator but a {type(found).__name__}. Name an instance, such as "
            "least_squares = MyEstimator(...), or a class derived from AbstractEstimator that needs no arguments"
        )
    try:
        return found()
    except TypeError as error:
        raise ValueError(
            f"estimator = {name!r} is a class that cannot be made without arguments ({error}). Name an instance of it"
        ) from error


def _cost(arguments: dict[str, Any]) -> Cost:
    problem = problem_of(arguments["data"], arguments["target"], arguments["test_share"])
    size = {"d": problem.d + 1, "m": arguments["width"] or problem.d, "test_points": problem.test_size}
    # A user's own estimator is assumed to cost as much as kernel ridge regression.
    chosen = ESTIMATORS.get(arguments["estimator"], ESTIMATORS["linear"])
    assert chosen.cost is not None
    return chosen.cost({**arguments, **size})


@experiment(
    static=(
        "data", "target", "estimator", "test_share", "tuning", "width", "restarts", "bias", "dtype", "fingerprint",
    ),
    sized=("n",),
    together=ESTIMATORS.together,
    # A user's own estimator may ignore weights, and so treat a row of weight 0 as data.
    pads=lambda arguments: arguments["estimator"] in ESTIMATORS,
    arguments=RealDataArguments,
    version=4,
    x="n",
    y=("risk",),
    curve="estimator",
    work="student_steps",
    cost=_cost,
    rates=False,
    labels={"n": "sample size n", "risk": "held-out squared error / variance of y", **ESTIMATORS.labels},
)  # fmt: skip
def real_data(key, *, data, target, n, test_share, bias, dtype, fingerprint, **learner):
    """Fits one estimator to n rows; returns its mean squared error on the rows held out.

    `risk` and `train_risk` are in units of the variance of y over all rows: predicting the mean gives 1, and 1 - risk is R^2.
    `risk_se` is the standard error of `risk` that comes from the finite number of rows held out, given the fit. The risk
    includes noise: curves level off at its share of the variance, and exponents say how steep they are, not how fast the excess
    risk falls.
    """
    del fingerprint
    problem = problem_of(data, target, test_share)
    split_key, fit_key = (jax.random.fold_in(key, i) for i in range(2))
    chosen = _estimator(learner)
    student = isinstance(chosen, TwoPhaseStudent)
    train, test = problem.split(split_key, n, jnp.float64)
    seen = jax.tree.map(lambda leaf: leaf.astype(dtype), train) if student else train
    fit = Standardized(chosen, bias=bias).fit(jax.random.fold_in(fit_key, n.count), seen)
    held_out = problem.held_out_risk(fit, test)
    values: dict[str, Any] = {
        "risk": jnp.where(failed(fit.status), jnp.nan, held_out.value / problem.variance),
        "risk_se": held_out.standard_error / problem.variance,
        "train_risk": problem.held_out_risk(fit, train).value / problem.variance,
    }
    if student:
        values |= scalars(fit, neurons="width", restarts_run="restarts_run", student_steps="total_steps")
    else:
        values |= scalars(fit)
    return {"status": fit.status, **values}
