"""Two-phase students have a faster rate of risk than every kernel method, indeed than every linear estimator.

Akiyama & Suzuki (arXiv:2205.14818) prove this claim. Their paper has no plot of risk against n and no experiment with kernels;
this study adds both. At the same seed every estimator sees the same teacher and the same data; data are drawn in the training
dtype, and linear methods get them in float64.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from .. import theory
from ..estimators.base import AbstractEstimator
from ..estimators.optimal_linear import OptimalLinear
from ..estimators.phases import noisy_steps
from ..estimators.two_phase import OracleStudent, TwoPhaseStudent
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from .cell import Choice, Choices, problem_of, scalars, trial
from .citations import AKIYAMA_SUZUKI
from .linear import ENTRY, LINEAR, linear

# The number of fresh points of `OptimalLinear`.
_FRESH = OptimalLinear.test_points


def _student(label: str, make: Callable[[dict[str, Any]], AbstractEstimator], steps: Callable[..., float]) -> Choice:
    """A student with the Cramér-Rao limit as its theory; `steps(n, d, m)` is the number of steps over its full data."""

    def limit(arguments: dict[str, Any], n: np.ndarray) -> Theory:
        sizes = {name: arguments[name] for name in ("m", "d", "noise_std")}
        values = np.asarray([theory.cramer_rao(n=size, **sizes) for size in n])
        return Theory(values, 1.0, "Cramér-Rao limit σ² m d / n; parametric rate, arXiv:2205.14818 theorem 4.5")

    def cost(arguments: dict[str, Any]) -> Cost:
        n, d, m = (arguments[name] for name in ("n", "d", "m"))
        # A student explores with 2 m neurons, and usually two restarts agree.
        runs = min(2, arguments["restarts"]) if label == "two-phase student" else 1
        return Cost(products=6.0 * runs * steps(n, d, m) * n * m * d)

    return Choice(label, make, limit, cost)


ESTIMATORS = Choices(
    student=_student(
        "two-phase student",
        lambda a: TwoPhaseStudent(width=a["m"], restarts=a["restarts"]),
        lambda n, d, m: 2 * noisy_steps(m, spare=True) * min(n, 64 * m * d) / n + 300,
    ),
    paper_student=_student(
        "student, the paper's settings", lambda a: TwoPhaseStudent.paper(width=a["m"]), lambda *_: 3000
    ),
    oracle_student=_student("student started at the teacher", lambda a: OracleStudent(), lambda *_: 200),
    optimal_linear=linear(
        "optimal linear estimator",
        lambda a: OptimalLinear(problem_of(a)),
        lambda problem, n: theory.predicted_optimal_linear_risk(problem, n),
        # A Cholesky factor and its inverse; the trace formula needs a matrix of its own.
        cost=lambda n, d, points, tuning: Cost(0.0, 2 / 3 * n**3 + _FRESH * n * n, ENTRY * (n * n + 2.0 * _FRESH * n)),
    ),
    **LINEAR,
)
"""The learners of the study."""


class SuperiorityArguments(Arguments):
    """Problem, estimator and sample size of one cell.

    `tuning` says how linear estimators choose their ridge, time, number of components, bandwidth or k
    (`tsjax.estimators.tuning`); students, `optimal_linear` and `minimum_norm` have nothing to choose.
    """

    estimator: ESTIMATORS.names  # pyright: ignore[reportInvalidTypeForm]
    n: Annotated[int, Field(ge=2)]
    d: Annotated[int, Field(ge=2)]
    m: Annotated[int, Field(ge=1)]
    noise_std: Annotated[float, Field(ge=0)]
    inputs: Literal["sphere", "gaussian", "cube"] = "sphere"
    signs: Literal["random", "alternating", "positive"] = "random"
    cosine: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    noise: Literal["gaussian", "uniform"] = "gaussian"
    restarts: Annotated[int, Field(ge=1)] = 8
    tuning: Literal["gcv", "loo", "holdout", "marginal_likelihood", "oracle"] = "gcv"
    test_points: Annotated[int, Field(ge=100)] = 4096
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _consistent(self):
        # The classes check their own arguments, and their messages say what to do.
        problem_of(self.model_dump())
        ESTIMATORS[self.estimator].make(self.model_dump())
        return self


@experiment(
    static=("estimator", "d", "m", "inputs", "signs", "noise", "restarts", "tuning", "test_points", "dtype"),
    sized=("n",),
    together=ESTIMATORS.together,
    arguments=SuperiorityArguments,
    version=4,
    x="n",
    y=("risk",),
    curve="estimator",
    theory=ESTIMATORS.theory("estimator"),
    work="student_steps",
    cost=ESTIMATORS.cost("estimator"),
    cite=AKIYAMA_SUZUKI,
    labels={"n": "sample size n", "risk": "excess risk", "cramer_rao": "Cramér-Rao limit", **ESTIMATORS.labels},
)
def superiority(key, *, estimator, n, test_points, dtype, **rest):
    """Fits one estimator to one data set; returns its excess risk and the Cramér-Rao limit.

    Risks are exact for students and ReLU features on the sphere and for Gaussian inputs, and for kernels on the sphere;
    `risk_se` is then 0, or for a kernel the bound on the error. Elsewhere, and if that bound exceeds a hundredth of the risk,
    they are Monte-Carlo estimates, and `risk_se` is their standard error.
    """
    arguments = {"n": n.limit, **rest}
    problem = problem_of(arguments)
    _, _, fit, risk = trial(key, problem, ESTIMATORS.make(estimator, arguments), n, dtype, test_points)
    values: dict[str, Any] = {
        "cramer_rao": theory.cramer_rao(m=rest["m"], d=rest["d"], n=1, noise_std=1.0) * problem.noise_std**2 / n.count
    }
    if "train_loss" in fit.stats:
        values |= scalars(fit, train_loss="train_loss", restarts_run="restarts_run", student_steps="total_steps")
        values["train_loss"] = values["train_loss"].astype(jnp.float64)
    else:
        values |= scalars(fit)
    return {"status": fit.status, **values, "risk": risk.value, "risk_se": risk.error}
