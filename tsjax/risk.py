"""Population excess risk ||f_hat - f*||^2 in L2(P_X): exact where a closed form exists, else an estimate with its error."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .activations import Gram
from .estimators.base import AbstractFit
from .estimators.student import NetworkFit
from .kernels import ArcCosine
from .network import TwoLayer
from .precision import requires_float64
from .problem import AbstractInputs, Problem


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


def _gram(student: TwoLayer, teacher: TwoLayer, inputs: AbstractInputs) -> Gram | None:
    """The Gram matrix of neurons of both networks as a function of them, where it has a closed form."""
    if student.activation != teacher.activation or inputs.moments is None:
        return None
    return student.activation.gram(inputs.moments)


@requires_float64
def network_risk(student: TwoLayer, teacher: TwoLayer, inputs: AbstractInputs) -> Float[Array, ""]:
    r"""E (f_student(x) - f_teacher(x))^2 for x of the law `inputs`, exactly: the quadratic form A' G A with A = (a, -a*) and
    G the Gram matrix E[phi(<u,x>) phi(<v,x>)] of all neurons (`tsjax.activations`). A difference of nearly equal terms,
    hence float64 throughout.

    **Raises:** ValueError where G has no closed form: for networks of two activations, for inputs that are not
    rotation-invariant, for erf unless these are Gaussian, and for an `Activation(function)`.
    """
    gram = _gram(student, teacher, inputs)
    if gram is None:
        raise ValueError(
            f"no closed form for the risk of {_pair(student, teacher)} under {type(inputs).__name__} inputs: use "
            "tsjax.excess_risk(..., key=...) or tsjax.monte_carlo_risk for an estimate."
        )
    a = jnp.concatenate([jnp.asarray(student.a, jnp.float64), -jnp.asarray(teacher.a, jnp.float64)])
    w = jnp.concatenate([jnp.asarray(student.w, jnp.float64), jnp.asarray(teacher.w, jnp.float64)])
    return a @ gram(w, w) @ a


def _pair(student: TwoLayer, teacher) -> str:
    other = f"{teacher.activation} neurons" if isinstance(teacher, TwoLayer) else "a function"
    return f"a network of {student.activation} neurons against {other}"


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
    """The excess risk by `network_risk` where that has a closed form, for a two-layer fit and teacher; else None."""
    if not isinstance(fit, NetworkFit) or not isinstance(teacher, TwoLayer):
        return None
    if _gram(fit.net, teacher, problem.inputs) is None:
        return None
    return network_risk(fit.net, teacher, problem.inputs)


def excess_risk(
    problem: Problem, teacher, fit: AbstractFit, *, key: PRNGKeyArray | None = None, samples: int = 16384
) -> Float[Array, ""]:
    """The population excess risk ||f_hat - f*||^2 in L2(P_X), a float64 scalar.

    Exact for two-layer fits and teachers of one activation: relu, leaky relu and quadratic on the sphere and for Gaussian
    inputs, erf for Gaussian inputs. Elsewhere pass a `key`: the value is then the Monte-Carlo estimate of
    `monte_carlo_risk`, which also tells its standard error.

    **Raises:** ValueError when no closed form exists and no key is given.
    """
    exact = exact_risk(problem, teacher, fit)
    if exact is not None:
        return exact
    if key is None:
        what = _pair(fit.net, teacher) if isinstance(fit, NetworkFit) else f"a {type(fit).__name__}"
        raise ValueError(
            f"no closed form for the risk of {what} under {type(problem.inputs).__name__} inputs: pass "
            "key=... for a Monte-Carlo estimate, or call tsjax.monte_carlo_risk, which also gives its standard error."
        )
    return monte_carlo_risk(problem, teacher, fit, key, samples).value
