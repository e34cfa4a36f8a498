r"""How many samples does online SGD need to find one direction? Ben Arous, Gheissari and Jagannath 2021 (arXiv:2003.10409).

The responses are y = h_k(<theta*, x>) without noise, where x ~ N(0, I_d), |theta*| = 1, and h_k is the k-th normalised Hermite
polynomial, so that the information exponent is k. The learner f(x) = h_k(<theta, x>) starts at theta uniform on the sphere,
conditioned on <theta, theta*> > 0, and takes one step with every fresh sample:

    theta <- (theta - eta g) / |theta - eta g|,   g the part of the gradient of (f(x) - y)^2 / 2 orthogonal to theta.

With m = <theta, theta*>, a step moves m on average, for small m and to first order in 1/d, by

    eta k m^{k-1} (1 - m^2) - (eta^2 d V_k / 2) m,   V_k = E[(h_k(u) - h_k(v))^2 h_k'(u)^2], u and v independent: 2, 12, 96

for k = 1, 2, 3 [derived here]. From m ~ d^{-1/2}, the first term alone needs of the order of d samples (k = 1), d log d (k = 2)
and d^{k-1} (k >= 3) with eta = c d^{-max(k, 2)/2}. This eta keeps the second term, which comes from the noise of the steps, no
larger than the first. With the paper's eta = delta/d this is delta = c for k = 1, 2 and c d^{-(k-2)/2} for k >= 3.
"""

import math
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from ..estimators.student import Student
from ..optim import on_sphere
from ..problem import FunctionTeacher, Gaussian, Problem
from ..rates.kinds import Indicator, Positive
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from ..train.stop import Reached
from .citations import BEN_AROUS_ONLINE

LINKS = {"hermite1": 1, "hermite2": 2, "hermite3": 3}
"""The link functions, and their information exponents k."""
STEPS = {1: 0.5, 2: 0.1, 3: 0.02}
"""c of the step size c d^{-max(k, 2)/2}, such that the noise term is at the start at most a third of the drift."""
BUDGETS = {1: 20.0, 2: 50.0, 3: 300.0}
"""The most samples of a run, in units of `scale_of`."""


class SingleIndexArguments(Arguments):
    """One link in one dimension. `threshold` is the overlap that counts as escape, and `budget` multiplies the largest number
    of samples."""

    link: Literal[tuple(LINKS)]  # pyright: ignore[reportInvalidTypeForm]
    d: Annotated[int, Field(ge=4)]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    budget: Annotated[float, Field(gt=0)] = 1.0


def hermite(k: int, u: Float[Array, ""]) -> Float[Array, ""]:
    """h_k(u) = He_k(u) / sqrt(k!), of mean square 1 under N(0, 1), by h_{j+1} sqrt(j+1) = u h_j - sqrt(j) h_{j-1}."""
    before, now = jnp.zeros_like(u), jnp.ones_like(u)
    for j in range(k):
        before, now = now, (u * now - math.sqrt(j) * before) / math.sqrt(j + 1)
    return now


class SingleIndex(eqx.Module):
    """x -> h_k(<theta, x>), theta (d,)."""

    theta: Float[Array, " d"]
    k: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        return hermite(self.k, self.theta @ x)


class Start(eqx.Module):
    """The initialisation of the learner: theta uniform on the half sphere <theta, truth> > 0."""

    truth: Float[Array, " d"]
    k: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, point: int) -> SingleIndex:
        theta = direction(key, point)
        return SingleIndex(jnp.where(theta @ self.truth < 0, -theta, theta), self.k)


def direction(key: PRNGKeyArray, d: int) -> Float[Array, " d"]:
    """A uniformly random point of the unit sphere."""
    z = jr.normal(key, (d,), jnp.float32)
    return z / jnp.linalg.norm(z)


def overlap(truth: Float[Array, " d"], model: SingleIndex) -> Float[Array, ""]:
    """|<theta, theta*>|."""
    return jnp.abs(model.theta @ truth)


def spherical_sgd(rate: Any) -> optax.GradientTransformation:
    """Gradient descent on the sphere."""
    return on_sphere(optax.sgd(rate))


def step_size(k: int, d: int) -> float:
    """eta = c d^{-max(k, 2)/2}."""
    return STEPS[k] * d ** (-max(k, 2) / 2)


def scale_of(k: int, d: int) -> float:
    """The paper's number of samples, up to a constant: d, d log d, or d^{k-1}."""
    return d * math.log(d) if k == 2 else float(d ** max(1, k - 1))


def limit_of(k: int, d: int, budget: float) -> int:
    """The most samples of a run."""
    return math.ceil(budget * BUDGETS[k] * scale_of(k, d))


def look_every(k: int, d: int) -> int:
    """The number of samples between two checks of the overlap, few compared with the samples that an escape needs."""
    return max(1, d // 32 if k < 3 else d // 2)


def _theory(arguments: dict[str, Any], x: np.ndarray) -> Theory:
    del x
    k = LINKS[arguments["link"]]
    return Theory(exponent=-float(max(1, k - 1)), source="Ben Arous et al. 2021, up to logarithms")


def _cost(arguments: dict[str, Any]) -> Cost:
    k, d = LINKS[arguments["link"]], arguments["d"]
    # A random number costs about 100 operations; most runs stop long before the limit.
    return Cost(30.0 * d * limit_of(k, d, arguments["budget"]))


@experiment(
    static=("link", "d", "threshold", "budget"),
    arguments=SingleIndexArguments,
    x="d", y=("samples", "escaped"), curve="link", x64=False,
    metrics={"samples": Positive(), "escaped": Indicator(), "capped": Positive(), "start": Positive()},
    theory=_theory, cost=_cost, cite=BEN_AROUS_ONLINE,
    labels={
        "d": "dimension d", "samples": "samples to overlap 1/2", "escaped": "share of runs that escape",
        "capped": "samples to overlap 1/2 or to the limit", "start": "overlap at the start",
        "hermite1": "k = 1", "hermite2": "k = 2", "hermite3": "k = 3",
    },
)  # fmt: skip
def single_index(key, *, link, d, threshold, budget):
    """One run of online SGD on the sphere, with one sample in each step, until the overlap |<theta, theta*>| passes
    `threshold`.

    - `samples`: the number of samples used, to within `look_every(k, d)`; NaN if the run does not escape within `limit_of(k, d,
      budget)` samples. Such a run counts as failed, so that no mean silently treats it as one that escaped.
    - `escaped`: whether it escaped; `capped`: `samples`, or the limit if it did not.
    - `start`: the overlap at the start.
    """
    k = LINKS[link]
    truth_key, data_key, fit_key = (jr.fold_in(key, i) for i in range(3))
    truth = direction(truth_key, d)
    problem = Problem(Gaussian(d), FunctionTeacher(SingleIndex(truth, k)), noise_std=0.0)
    stop = Reached(value=jax.tree_util.Partial(overlap, truth), level=threshold, every=look_every(k, d))
    learner = Student(
        Start(truth, k), optimizer=spherical_sgd, learning_rate=step_size(k, d), steps=limit_of(k, d, budget),
        batch_size=1, stop=stop,
    )  # fmt: skip
    start = Start(truth, k).init(data_key, d)
    fit = learner.fit(fit_key, problem.draw(key, jnp.float32), start=start)
    escaped, seen = overlap(truth, fit.model) >= threshold, fit.stats["sample_steps"]
    return {
        "samples": jnp.where(escaped, seen, jnp.nan), "escaped": escaped, "capped": seen, "start": overlap(truth, start),
        "status": fit.status,
    }  # fmt: skip
