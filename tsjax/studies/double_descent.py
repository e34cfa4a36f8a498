r"""Double descent of ridge regression on random features (Mei & Montanari 2022, arXiv:1908.05355).

Points lie on the unit sphere, and y = f(x) + noise of variance tau^2. There are N features relu(<w_j, x>) with w_j ~ N(0, I_d),
and the coefficients a minimise (1/n) sum_i (y_i - sum_j a_j relu(<w_j, x_i>))^2 + (N lambda / d) |a|^2, which is
`RandomFeatures(N, ridge)` with ridge = lambda n / d. The target f(x) = sqrt(d) x_1 + q |sqrt(d) x_1| is linear of variance
F_1^2 = 1, plus an even part whose variance is F_*^2. The paper has x on a sphere of radius sqrt(d), which only changes units,
and w_j on a sphere, so that their lengths differ from ours by O(d^{-1/2}). Without ridge and for N <= n the fit does not depend
on these lengths.

The test error is the excess risk E (f - f*)^2, in closed form. Theory is the paper's theorem 2, the limit in which N, n and d
grow in proportion (`tsjax.theory.random_features_risk`). With a very small ridge the error has a peak at N = n; with the best
ridge it falls with N throughout (for linear models: Nakkiran, Venkat, Kakade & Ma 2021, arXiv:2003.01897).
"""

import math
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field, model_validator

from ..estimators.features import RandomFeatures
from ..network import TwoLayer
from ..oneof import OneOf
from ..problem import FunctionTeacher, Problem, Sphere
from ..rates.kinds import Positive
from ..risk import excess_risk
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from ..theory import random_features_risk
from .citations import MEI_MONTANARI

LAMBDAS = {"ridgeless": 1e-8, "fixed": 1e-3}
"""The fixed ridges lambda, both of the paper's first figure."""

# The methods whose lambda does not depend on the data. They differ by that number, so they share programs.
_WITHOUT_DATA = (*LAMBDAS, "optimal")

PATH = np.logspace(-8.0, 2.0, 201)
"""The grid of lambdas. The method `optimal` takes the one with the smallest risk according to theory."""


class DoubleDescentArguments(Arguments):
    """One way to choose the ridge at one number of features.

    `ratio` is N/n, `n` the number of samples in dimension `d`, `noise_var` tau^2, and `nonlinear` the variance F_*^2 of the
    part of the target that is not linear. `method` says how lambda is chosen: `ridgeless` is 1e-8, `fixed` is 1e-3, `optimal`
    is the best of `PATH` according to theory, and `gcv` is the choice of generalised cross-validation on the data.
    """

    method: Literal["ridgeless", "fixed", "optimal", "gcv"]
    ratio: Annotated[float, Field(gt=0)]
    d: Annotated[int, Field(ge=2)] = 100
    n: Annotated[int, Field(ge=2)] = 300
    noise_var: Annotated[float, Field(ge=0)] = 0.0
    nonlinear: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _there_are_features(self):
        if features_of(self.ratio, self.n) < 1:
            raise ValueError(f"ratio = {self.ratio} of n = {self.n} samples is no feature; raise one of them")
        return self


def features_of(ratio: float, n: int) -> int:
    """The number N of features."""
    return round(ratio * n)


def target(d: int, nonlinear: Float[Array, ""]) -> TwoLayer:
    """f(x) = u + q |u| with u = sqrt(d) x_1, as a network of two neurons. On the sphere E u^2 = 1 and E |u| =
    sqrt(d / pi) Gamma(d/2) / Gamma((d+1)/2), so that q |u| has the variance `nonlinear`."""
    mean = math.sqrt(d / math.pi) * math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2))
    q = jnp.sqrt(nonlinear / (1.0 - mean**2))
    w = jnp.zeros((2, d), jnp.float64).at[0, 0].set(1.0).at[1, 0].set(-1.0)
    return TwoLayer(a=math.sqrt(d) * jnp.stack([q + 1.0, q - 1.0]), w=w)


def on_path(count, n: int, d: int, noise_var, nonlinear) -> Float[Array, " lambdas"]:
    """The risk according to theory at each lambda of `PATH`."""
    return random_features_risk(count, n, d, PATH * n / d, jnp.sqrt(noise_var), nonlinear=nonlinear)


def _theory(arguments: dict[str, Any], x: np.ndarray) -> Theory:
    n, d, method = arguments["n"], arguments["d"], arguments["method"]
    noise_var, nonlinear = arguments["noise_var"], arguments["nonlinear"]
    counts = [features_of(float(ratio), n) for ratio in x]
    if method in LAMBDAS:
        ridge = LAMBDAS[method] * n / d
        risks = random_features_risk(counts, n, d, ridge, math.sqrt(noise_var), nonlinear=nonlinear)
    else:
        risks = [float(jnp.min(on_path(count, n, d, noise_var, nonlinear))) for count in counts]
    return Theory(
        np.asarray(risks),
        source="Mei & Montanari 2022, theorem 2" + ("" if method in LAMBDAS else ", at its best ridge"),
    )


def _cost(arguments: dict[str, Any]) -> Cost:
    n, d, count = arguments["n"], arguments["d"], features_of(arguments["ratio"], arguments["n"])
    smaller = min(n, count)
    # The features and their Gram matrix, and half of the tiles of the risk's Gram matrix at some 40 operations for each angle.
    products = 2.0 * n * count * (d + smaller) + count**2 * (d + 20.0)
    return Cost(products, (4.0 if arguments["method"] == "gcv" else 1.0) * smaller**3)


@experiment(
    static=("method", "ratio", "d", "n"),
    together=(_WITHOUT_DATA,),
    arguments=DoubleDescentArguments,
    x="ratio", y=("risk", "train_error"), curve="method", rates=False,
    metrics={"risk": Positive(), "train_error": Positive(), "lam": Positive()},
    theory=_theory, cost=_cost, cite=MEI_MONTANARI,
    labels={
        "ratio": "features per sample N/n", "risk": "test error E (f - f*)²", "train_error": "training error", "lam": "λ",
        "noise_var": "τ²", "nonlinear": "F*²", "ridgeless": "λ = 1e-8", "fixed": "λ = 1e-3", "optimal": "best λ by theory",
        "gcv": "λ by GCV",
    },
)  # fmt: skip
def double_descent(key, *, method, ratio, d, n, noise_var, nonlinear):
    """One fit to one sample, with random features. At one seed, a smaller number of features are the first of a larger number.

    `risk` is E (f - f*)^2 over the sphere, in closed form; `train_error` the mean of (y_i - f(x_i))^2; `lam` the lambda in use.
    """
    data_key, fit_key = (jr.fold_in(key, i) for i in range(2))
    count, teacher = features_of(ratio, n), target(d, jnp.asarray(nonlinear, jnp.float64))
    problem = Problem(Sphere(d), FunctionTeacher(teacher), noise_std=jnp.sqrt(noise_var))
    ridge: Any = "gcv"
    if isinstance(method, OneOf):
        best = lambda: jnp.asarray(PATH)[jnp.argmin(on_path(count, n, d, noise_var, nonlinear))]
        lambdas = [LAMBDAS[name] if name in LAMBDAS else best() for name in method.values]
        ridge = jnp.stack([jnp.asarray(lam, jnp.float64) for lam in lambdas])[method.index] * n / d
    data = problem.sample(data_key, teacher, n, jnp.float64)
    fit = RandomFeatures(count, ridge).fit(fit_key, data)
    return {
        "status": fit.status,
        "risk": excess_risk(problem, teacher, fit),
        "train_error": jnp.mean((data.y - fit.predict(data.x)) ** 2),
        "lam": fit.stats["ridge"] * d / n,
    }  # fmt: skip
