"""The linear estimators of the studies: how to make each from the arguments of a cell, its theory, and its cost."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import theory
from ..estimators.base import AbstractEstimator
from ..estimators.features import RandomFeatures
from ..estimators.neighbours import NearestNeighbours
from ..estimators.ridge import KernelRidge
from ..estimators.smoothers import LocalLinear, NadarayaWatson
from ..estimators.spectral import GradientFlow, MinimumNorm, SpectralCutoff
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
from ..problem import Problem
from ..sweep.experiment import Cost, Theory
from .cell import Choice, Choices, problem_of

Curve = Callable[[Problem, np.ndarray], Any]


ENTRY = 250.0
"""The cost of all work on one entry of a kernel matrix except factorisations, in products that take the same time."""


def linear(
    label: str,
    make: Callable[[dict[str, Any]], AbstractEstimator],
    curve: Curve | None = None,
    exponent: float | None = np.nan,
    cost: Callable[[int, int, int, str], Cost] | None = None,
    kernel: Callable[[], AbstractKernel] | None = None,
) -> Choice:
    """A linear estimator: its predicted curve on the sphere, the exponent in the limit (NaN: that of the optimal linear
    estimator), its cost as a function of (n, d, test points, tuning), and its kernel, if others differ only in theirs."""

    def predicted(arguments: dict[str, Any], n: np.ndarray) -> Theory:
        if arguments["inputs"] != "sphere" or curve is None:
            return Theory()
        d, problem = arguments["d"], problem_of(arguments)
        limit = theory.optimal_linear_exponent(d) if exponent is not None and np.isnan(exponent) else exponent
        values = curve(problem, n) if n.max() <= theory.largest_resolved_n(d) else None
        source = "deterministic equivalent (Canatar et al. 2021, Simon et al. 2021); asymptote 3/(d+2)"
        return Theory(None if values is None else np.asarray(values), limit, source)

    def work(arguments: dict[str, Any]) -> Cost:
        n, d, points, tuning = (arguments[name] for name in ("n", "d", "test_points", "tuning"))
        if cost is not None:
            return cost(n, d, points, tuning)
        # A tridiagonal form, or an eigendecomposition, which "loo" needs.
        return Cost(0.0, (4.0 if tuning == "loo" else 2.0) * n**3, ENTRY * n * n)

    return Choice(label, make, predicted, work, kernel)


def no_curve(problem: Problem, n: np.ndarray) -> None:
    """The curve of estimators for which only the exponent is known."""
    del problem, n


def ridge(label: str, kernel: Callable[[], AbstractKernel], blind: bool = False) -> Choice:
    """Kernel ridge regression. `blind` kernels lack some degrees of the teachers: polynomials have a largest degree, and the
    kernels of the step function and of squared relu lack the even degrees from 2 and from 4 on. Their risk levels off."""
    curve = lambda problem, n: theory.predicted_curve(kernel(), problem, n)
    make = lambda a: KernelRidge(kernel(), ridge=a["tuning"])
    return linear(label, make, curve, exponent=0.0 if blind else np.nan, kernel=kernel)


def _smoother(label: str, make: Callable[[str], AbstractEstimator], passes: Callable[[int], float]) -> Choice:
    """A smoother, without theory; its path costs `passes(d)` passes over all pairs of points."""
    return linear(
        label,
        lambda a: make(a["tuning"]),
        cost=lambda n, d, points, tuning: Cost(0.0, 0.0, 2.0 * points * n + passes(d) * n * n),
    )


def _vectors(n: int, d: int, points: int, tuning: str) -> Cost:
    """The cost of an eigendecomposition, twice that of a tridiagonal form."""
    return Cost(0.0, 4.0 * n**3, ENTRY * n * n)


def _features(n: int, d: int, points: int, tuning: str) -> Cost:
    """The cost of 4 n features of n rows and their Gram matrix."""
    return Cost(0.0, (10.0 if tuning == "loo" else 8.0) * n**3, 2.0 * ENTRY * n * n)


LINEAR = Choices(
    ntk=ridge("NTK ridge", ntk),
    ntk_bias=ridge("NTK ridge, with biases", lambda: ntk(bias_std=1.0)),
    ntk3=ridge("NTK ridge, three layers", lambda: ntk(depth=3)),
    nngp=ridge("NNGP ridge", nngp),
    arccos0=ridge("arc-cosine ridge, order 0", lambda: ArcCosine(0), blind=True),
    arccos2=ridge("arc-cosine ridge, order 2", lambda: ArcCosine(2), blind=True),
    rbf=ridge("RBF ridge", RBF),
    laplace=ridge("Laplace ridge", Laplace),
    matern=ridge("Matérn-3/2 ridge", Matern),
    rational_quadratic=ridge("rational quadratic ridge", RationalQuadratic),
    polynomial=ridge("polynomial ridge, degree 4", lambda: Polynomial(degree=4), blind=True),
    gradient_flow=linear("NTK gradient flow", lambda a: GradientFlow(ntk(), time=a["tuning"]), no_curve, cost=_vectors),
    spectral_cutoff=linear(
        "NTK spectral cut-off", lambda a: SpectralCutoff(ntk(), components=a["tuning"]), no_curve, cost=_vectors
    ),
    minimum_norm=linear(
        "NTK interpolation",
        lambda a: MinimumNorm(ntk()),
        lambda problem, n: theory.predicted_curve(ntk(), problem, n, ridge=0.0),
        exponent=None,
        cost=_vectors,
    ),
    random_features=linear(
        "random ReLU features", lambda a: RandomFeatures(ridge=a["tuning"]), no_curve, cost=_features
    ),
    fourier_features=linear(
        "random Fourier features",
        lambda a: RandomFeatures(ridge=a["tuning"], features="fourier"),
        no_curve,
        cost=_features,
    ),
    nearest_neighbours=_smoother("nearest neighbours", lambda k: NearestNeighbours(k=k), lambda d: 20.0),
    nadaraya_watson=_smoother("Nadaraya-Watson", lambda width: NadarayaWatson(bandwidth=width), lambda d: 60.0),
    local_linear=_smoother(
        "local linear", lambda width: LocalLinear(bandwidth=width), lambda d: 12.0 * (d + 1) * (d + 2)
    ),
)
"""The estimators that use nothing but the data; `tuning` chooses their hyper-parameters."""
