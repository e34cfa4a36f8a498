"""The founding claim: two-phase students beat every kernel method, indeed every linear estimator, in their rate of risk.

Akiyama & Suzuki (arXiv:2205.14818) prove it; their paper has no plot of risk against n and no kernel in it. This study is
that plot. Every estimator sees the same teachers and the same data at the same seed; data are drawn in the training dtype
and handed to the linear methods in float64.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from .. import theory
from ..estimators.base import AbstractEstimator, Status
from ..estimators.features import RandomFeatures
from ..estimators.neighbours import NearestNeighbours
from ..estimators.optimal_linear import OptimalLinear
from ..estimators.phases import noisy_steps
from ..estimators.ridge import KernelFit, KernelRidge
from ..estimators.smoothers import LocalLinear, NadarayaWatson
from ..estimators.spectral import GradientFlow, MinimumNorm, SpectralCutoff
from ..estimators.student import NetworkFit, OracleStudent, TwoPhaseStudent
from ..kernels import (
    RBF,
    AbstractKernel,
    ArcCosine,
    Laplace,
    Matern,
    Polynomial,
    RationalQuadratic,
    nngp,
    ntk,
)
from ..problem import AbstractInputs, Cube, Dataset, Gaussian, Problem, ReLUTeacher, Sphere
from ..risk import exact_risk, monte_carlo_risk
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from .citations import AKIYAMA_SUZUKI

_INPUTS: dict[str, Callable[[int], AbstractInputs]] = {"sphere": Sphere, "gaussian": Gaussian, "cube": Cube}
_STUDENTS = ("student", "paper_student", "oracle_student")
# Kernels for ridge regression. Functions, since the bridge to neural-tangents opens when a kernel is first evaluated.
_KERNELS: dict[str, Callable[[], AbstractKernel]] = {
    "ntk": ntk,
    "ntk_bias": lambda: ntk(bias_std=1.0),
    "ntk3": lambda: ntk(depth=3),
    "nngp": nngp,
    "arccos0": lambda: ArcCosine(0),
    "arccos2": lambda: ArcCosine(2),
    "rbf": RBF,
    "laplace": Laplace,
    "matern": Matern,
    "rational_quadratic": RationalQuadratic,
    "polynomial": lambda: Polynomial(degree=4),
}
# Kernels that do not have all degrees of the teachers: polynomials end, and step and squared relu lack the even degrees from
# 2 and from 4 on. Their risk levels off.
_BLIND = ("polynomial", "arccos0", "arccos2")
# The other linear estimators, by what `tuning` says.
_LINEAR: dict[str, Callable[[str], AbstractEstimator]] = {
    "gradient_flow": lambda tuning: GradientFlow(ntk(), time=tuning),
    "spectral_cutoff": lambda tuning: SpectralCutoff(ntk(), components=tuning),
    "minimum_norm": lambda tuning: MinimumNorm(ntk()),
    "random_features": lambda tuning: RandomFeatures(ridge=tuning),
    "fourier_features": lambda tuning: RandomFeatures(ridge=tuning, features="fourier"),
    "nearest_neighbours": lambda tuning: NearestNeighbours(k=tuning),
    "nadaraya_watson": lambda tuning: NadarayaWatson(bandwidth=tuning),
    "local_linear": lambda tuning: LocalLinear(bandwidth=tuning),
}

LINEAR_NAMES = (*_KERNELS, *_LINEAR)
"""The linear estimators that data alone determine."""

EstimatorName = Literal[
    "student", "paper_student", "oracle_student", "optimal_linear",
    "ntk", "ntk_bias", "ntk3", "nngp", "arccos0", "arccos2", "rbf", "laplace", "matern", "rational_quadratic", "polynomial",
    "gradient_flow", "spectral_cutoff", "minimum_norm", "random_features", "fourier_features",
    "nearest_neighbours", "nadaraya_watson", "local_linear",
]  # fmt: skip


class SuperiorityArguments(Arguments):
    """Problem, estimator and sample size of one cell.

    `tuning` is how linear estimators choose their ridge, time, number of components, bandwidth or k
    (`tsjax.estimators.tuning`); students, `optimal_linear` and `minimum_norm` have nothing to choose.
    """

    estimator: EstimatorName
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
        # The classes know what they allow; their messages say what to do.
        _estimator(self.estimator, problem_of(self.model_dump()), self.m, self.restarts, self.tuning)
        return self


def problem_of(arguments: dict[str, Any]) -> Problem:
    """The problem that the arguments of a cell describe."""
    return Problem(
        inputs=_INPUTS[arguments["inputs"]](arguments["d"]),
        teacher=ReLUTeacher(m=arguments["m"], signs=arguments["signs"], cosine=arguments["cosine"]),
        noise_std=arguments["noise_std"],
        noise=arguments["noise"],
    )


def _estimator(name: str, problem: Problem, width: int, restarts: int, tuning: str) -> AbstractEstimator:
    if name == "student":
        return TwoPhaseStudent(width=width, restarts=restarts)
    if name == "paper_student":
        return TwoPhaseStudent.paper(width=width)
    if name == "oracle_student":
        return OracleStudent()
    if name == "optimal_linear":
        return OptimalLinear(problem)
    return linear_estimator(name, tuning)


def linear_estimator(name: str, tuning: str) -> AbstractEstimator:
    """One of `LINEAR_NAMES`."""
    return KernelRidge(_KERNELS[name](), ridge=tuning) if name in _KERNELS else _LINEAR[name](tuning)


def _theory(arguments: dict[str, Any], n: np.ndarray) -> Theory:
    name, problem = arguments["estimator"], problem_of(arguments)
    d, m, noise_std = arguments["d"], arguments["m"], arguments["noise_std"]
    if name in _STUDENTS:
        limit = np.asarray([theory.cramer_rao(m=m, d=d, n=size, noise_std=noise_std) for size in n])
        return Theory(limit, 1.0, "Cramér-Rao limit σ² m d / n; parametric rate, arXiv:2205.14818 theorem 4.5")
    if arguments["inputs"] != "sphere":
        return Theory()
    exponent = theory.optimal_linear_exponent(d)
    source = "deterministic equivalent (Canatar et al. 2021, Simon et al. 2021); asymptote 3/(d+2)"
    if name in ("nearest_neighbours", "nadaraya_watson", "local_linear"):
        return Theory()
    if name in _BLIND:
        exponent = 0.0
    elif name == "minimum_norm":
        exponent = None
    curve = None
    if n.max() <= theory.largest_resolved_n(d):
        if name == "optimal_linear":
            curve = theory.predicted_optimal_linear_risk(problem, n)
        elif name == "minimum_norm":
            curve = theory.predicted_curve(ntk(), problem, n, ridge=0.0)
        elif name in _KERNELS:
            curve = theory.predicted_curve(_KERNELS[name](), problem, n)
    return Theory(None if curve is None else np.asarray(curve), exponent, source)


def cost_of(arguments: dict[str, Any]) -> Cost:
    """Leading terms: products of the training steps, or of the factorisation of the kernel matrix."""
    n, d, m, name = arguments["n"], arguments["d"], arguments["m"], arguments["estimator"]
    if name in _STUDENTS:
        # A student explores with 2 m neurons, and most often two restarts agree.
        runs = min(2, arguments["restarts"]) if name == "student" else 1
        exploring = 2 * noisy_steps(m, spare=True) * min(n, 64 * m * d) / n
        steps = {"student": exploring + 300, "paper_student": 3000, "oracle_student": 200}[name]
        return Cost(products=6.0 * runs * steps * n * m * d)
    predict = 2.0 * arguments["test_points"] * n
    if name == "optimal_linear":
        return Cost(predict, n**3 / 3 + predict * n)
    if name in ("nearest_neighbours", "nadaraya_watson", "local_linear"):
        paths = {"nearest_neighbours": 20.0, "nadaraya_watson": 60.0, "local_linear": 12.0 * (d + 1) * (d + 2)}[name]
        return Cost(predict, paths * n * n)
    # A tridiagonal form, or an eigendecomposition where one needs the vectors.
    vectors = name in ("gradient_flow", "spectral_cutoff", "minimum_norm") or arguments["tuning"] == "loo"
    return Cost(predict, (9.0 if vectors else 2.0) * n**3)


@experiment(
    static=("estimator", "n", "d", "m", "inputs", "signs", "noise", "restarts", "tuning", "test_points", "dtype"),
    arguments=SuperiorityArguments,
    version=4,
    x="n",
    y=("risk",),
    curve="estimator",
    theory=_theory,
    work="student_steps",
    cost=cost_of,
    cite=AKIYAMA_SUZUKI,
    labels={
        "n": "sample size n",
        "risk": "excess risk",
        "student": "two-phase student",
        "paper_student": "student, the paper's settings",
        "oracle_student": "student started at the teacher",
        "ntk": "NTK ridge",
        "ntk_bias": "NTK ridge, with biases",
        "ntk3": "NTK ridge, three layers",
        "nngp": "NNGP ridge",
        "arccos0": "arc-cosine ridge, order 0",
        "arccos2": "arc-cosine ridge, order 2",
        "rbf": "RBF ridge",
        "laplace": "Laplace ridge",
        "matern": "Matérn-3/2 ridge",
        "rational_quadratic": "rational quadratic ridge",
        "polynomial": "polynomial ridge, degree 4",
        "gradient_flow": "NTK gradient flow",
        "spectral_cutoff": "NTK spectral cut-off",
        "minimum_norm": "NTK interpolation",
        "random_features": "random ReLU features",
        "fourier_features": "random Fourier features",
        "nearest_neighbours": "nearest neighbours",
        "nadaraya_watson": "Nadaraya-Watson",
        "local_linear": "local linear",
        "optimal_linear": "optimal linear estimator",
        "cramer_rao": "Cramér-Rao limit",
    },
)
def superiority(key, *, estimator, n, d, m, restarts, tuning, test_points, dtype, **rest):
    """Fits one estimator to one data set; returns its excess risk, and the Cramér-Rao limit beside it.

    Risks are exact for students and ReLU features on the sphere and for Gaussian inputs, and for kernels on the sphere;
    `risk_se` is then 0, or the bound of the error of a kernel's. Elsewhere, and where that bound exceeds a hundredth of the
    risk, they are Monte-Carlo estimates, and `risk_se` is their standard error.
    """
    problem = problem_of({"n": n, "d": d, "m": m, **rest})
    teacher_key, data_key, fit_key, test_key = (jax.random.fold_in(key, i) for i in range(4))
    # One teacher per seed at every n; independent data at every n (of one key, the larger set would contain the smaller).
    teacher = problem.sample_teacher(teacher_key, jnp.dtype(dtype))
    data = problem.sample(jax.random.fold_in(data_key, n), teacher, n, jnp.dtype(dtype))
    fit_key = jax.random.fold_in(fit_key, n)
    learner = _estimator(estimator, problem, m, restarts, tuning)
    values: dict[str, Any] = {"cramer_rao": theory.cramer_rao(m=m, d=d, n=n, noise_std=1.0) * problem.noise_std**2}
    if isinstance(learner, TwoPhaseStudent):
        fit = learner.fit(fit_key, data)
    elif isinstance(learner, OracleStudent):
        fit = learner.fit(fit_key, data, oracle=(problem, teacher))
    else:
        exact = Dataset(x=data.x.astype(jnp.float64), y=data.y.astype(jnp.float64))
        tuned = tuning == "oracle" and estimator not in ("optimal_linear", "minimum_norm")
        fit = learner.fit(fit_key, exact, **({"oracle": (problem, teacher)} if tuned else {}))
    if isinstance(fit, NetworkFit):
        values["train_loss"] = fit.stats["train_loss"].astype(jnp.float64)
        values["restarts_run"], values["student_steps"] = fit.stats["restarts_run"], fit.stats["total_steps"]
    else:
        values |= {name: value for name, value in fit.stats.items() if value.ndim == 0}
    exact = exact_risk(problem, teacher, fit)
    estimate = lambda: tuple(monte_carlo_risk(problem, teacher, fit, test_key, test_points))
    if exact is None:
        values["risk"], values["risk_se"] = estimate()
    elif isinstance(fit, KernelFit):
        # One pass or none. In a batch `cond` would estimate for every cell; a loop does so only where some cell needs it.
        passes = jnp.where(exact.reliable, 0, 1)
        values["risk"], values["risk_se"] = jax.lax.fori_loop(0, passes, lambda *_: estimate(), tuple(exact))
    else:
        values["risk"], values["risk_se"] = exact
    failed = (fit.status == Status.DIVERGED) | (fit.status == Status.SINGULAR)
    values["risk"] = jnp.where(failed, jnp.nan, values["risk"])
    return {"status": fit.status, **values}
