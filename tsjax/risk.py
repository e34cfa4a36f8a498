"""Population excess risk ||f_hat - f*||^2 in L2(P_X): exact where a closed form exists, else an estimate with its error."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .estimators.base import AbstractFit
from .estimators.student import NetworkFit
from .kernels import ArcCosine
from .network import TwoLayer
from .precision import requires_float64
from .problem import Problem


@requires_float64
def relu_gram(
    u: Float[Array, "p d"], v: Float[Array, "q d"], second_moment: float | Float[Array, ""]
) -> Float[Array, "p q"]:
    r"""E[relu(<u_i, x>) relu(<v_j, x>)] for x of a rotation-invariant law with E[x_1^2] = `second_moment`.

    = second_moment |u||v| h(cos), h(cos t) = (sin t + (pi - t) cos t) / (2 pi), t the angle between u and v: the
    arc-cosine kernel of order 1 (Cho & Saul 2009) between neurons. The law enters through E|x|^2 alone, since relu is
    homogeneous: second_moment = 1 for N(0, I_d) and 1/d on the unit sphere. Computed and returned in float64.
    """
    return second_moment * ArcCosine(order=1)(jnp.asarray(u, jnp.float64), jnp.asarray(v, jnp.float64))


@requires_float64
def network_risk(student: TwoLayer, teacher: TwoLayer, second_moment: float | Float[Array, ""]) -> Float[Array, ""]:
    """E (f_student(x) - f_teacher(x))^2, exactly: the quadratic form A' G A with A = (a, -a*) and G = `relu_gram` of all
    neurons, for x of a rotation-invariant law. A difference of nearly equal terms, hence float64 throughout."""
    a = jnp.concatenate([jnp.asarray(student.a, jnp.float64), -jnp.asarray(teacher.a, jnp.float64)])
    w = jnp.concatenate([jnp.asarray(student.w, jnp.float64), jnp.asarray(teacher.w, jnp.float64)])
    return a @ relu_gram(w, w, second_moment) @ a


class RiskEstimate(NamedTuple):
    """A Monte-Carlo estimate of an excess risk and its standard error."""

    value: Float[Array, ""]
    standard_error: Float[Array, ""]


@requires_float64
def monte_carlo_risk(
    problem: Problem, teacher, fit: AbstractFit, key: PRNGKeyArray, samples: int = 16384
) -> RiskEstimate:
    """The mean of (f_hat(x) - f*(x))^2 over `samples` fresh inputs, with its standard error.

    Needs no closed form: any input law, teacher (a function of one point) and fit. `key` must not be one that made the
    training data. The error is relative to the spread of the squared error, so it shrinks with the risk itself.
    """
    if samples < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got samples={samples}.")
    x = problem.inputs.sample(key, samples, jnp.float64)
    teacher = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), teacher) if isinstance(teacher, TwoLayer) else teacher
    squared = (fit.predict(x) - jax.vmap(teacher)(x)) ** 2
    return RiskEstimate(jnp.mean(squared), jnp.std(squared, ddof=1) / math.sqrt(samples))


def exact_risk(problem: Problem, teacher, fit: AbstractFit) -> Float[Array, ""] | None:
    """The excess risk by `network_risk`, for a two-layer ReLU fit and teacher and rotation-invariant inputs; else None."""
    second_moment = problem.inputs.rotation_invariant_second_moment
    if second_moment is None or not isinstance(fit, NetworkFit) or not isinstance(teacher, TwoLayer):
        return None
    return network_risk(fit.net, teacher, second_moment)


def excess_risk(
    problem: Problem, teacher, fit: AbstractFit, *, key: PRNGKeyArray | None = None, samples: int = 16384
) -> Float[Array, ""]:
    """The population excess risk ||f_hat - f*||^2 in L2(P_X), a float64 scalar.

    Exact for two-layer ReLU fits and teachers on the sphere and for Gaussian inputs. Elsewhere pass a `key`: the value is
    then the Monte-Carlo estimate of `monte_carlo_risk`, which also tells its standard error.

    **Raises:** ValueError when no closed form exists and no key is given.
    """
    exact = exact_risk(problem, teacher, fit)
    if exact is not None:
        return exact
    if key is None:
        raise ValueError(
            f"no closed form for the risk of a {type(fit).__name__} under {type(problem.inputs).__name__} inputs: pass "
            "key=... for a Monte-Carlo estimate, or call tsjax.monte_carlo_risk, which also gives its standard error."
        )
    return monte_carlo_risk(problem, teacher, fit, key, samples).value
