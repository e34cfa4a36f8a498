"""Population excess risk ||f_hat - f*||^2 in L2(P_X): exact if a closed form exists, otherwise an estimate with its error."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .activations import Gram
from .compilation import compiled
from .estimators.base import AbstractFit, KernelSum
from .estimators.tuning import as_float64
from .kernels import ArcCosine, gegenbauer
from .kernels.base import trace_floats
from .kernels.table import points_of, tabulate
from .kernels.zonal import MOST_DEGREES, angles, circle, coefficients, degrees_holding, largest_missing, series
from .network import TwoLayer
from .precision import is_traced, requires_float64
from .problem import AbstractInputs, Problem, Sphere
from .status import failed

# Above this number of neurons the Gram matrix is computed in tiles.
_WIDE = 1024
# The side of a tile that stays in a core's cache through the degrees of a series, or the terms of an angle, and of one that
# keeps a GPU busy.
_SIDE, _WIDE_SIDE = 128, 1024


@requires_float64
def relu_gram(
    u: Float[Array, "p d"], v: Float[Array, "q d"], second_moment: float | Float[Array, ""]
) -> Float[Array, "p q"]:
    r"""E[relu(<u_i, x>) relu(<v_j, x>)] for x of a rotation-invariant law with E[x_1^2] = `second_moment`.

    It equals second_moment |u||v| h(cos t), h(cos t) = (sin t + (pi - t) cos t) / (2 pi), where t is the angle between u and v:
    the arc-cosine kernel of order 1 (Cho & Saul 2009) between neurons. The law enters through E|x|^2 alone, since relu is
    homogeneous: second_moment = 1 for N(0, I_d) and 1/d on the unit sphere. Computed and returned in float64.

    >>> print(ts.relu_gram(jnp.eye(2), jnp.eye(2), 1.0).round(4))
    [[0.5    0.1592]
     [0.1592 0.5   ]]
    """
    return second_moment * ArcCosine(order=1)(jnp.asarray(u, jnp.float64), jnp.asarray(v, jnp.float64))


def _quadratic_form(
    matrix: Callable[[Array, Array], Array], x: Float[Array, "n d"], a: Float[Array, " n"]
) -> Float[Array, "..."]:
    """sum_ij a_i a_j matrix(x, x)_ij for a symmetric matrix, or several (..., n, n), summed over the tiles on and above the
    diagonal, up to the last a_i that is not 0. On a CPU a tile stays in the cache; other devices take larger tiles, since each
    tile costs them a kernel launch."""
    tiled = lambda side: lambda x, a: _sum_of_tiles(matrix, x, a, side)
    if x.shape[0] <= _WIDE_SIDE:
        return tiled(_SIDE)(x, a)
    return jax.lax.platform_dependent(x, a, cpu=tiled(_SIDE), default=tiled(_WIDE_SIDE))


def _sum_of_tiles(matrix, x: Float[Array, "n d"], a: Float[Array, " n"], side: int) -> Float[Array, "..."]:
    n = x.shape[0]
    side = min(n, side)
    count = -(-n // side)
    x = jnp.pad(x, ((0, count * side - n), (0, 0)), mode="edge").reshape(count, side, -1)
    a = jnp.pad(a, (0, count * side - n)).reshape(count, side)

    # One number for all members of a batch, so that tiles that are zero for every member are skipped.
    last = eqxi.unvmap_max(jnp.max(jnp.where(jnp.any(a != 0, axis=1), jnp.arange(count), 0)))

    def add(total, tile):
        i, j = tile
        term = lambda: jnp.where(i == j, 1.0, 2.0) * (matrix(x[i], x[j]) @ a[j] @ a[i])
        return total + jax.lax.cond(j <= last, term, lambda: jnp.zeros_like(total)), None

    start = jnp.zeros(jax.eval_shape(matrix, x[0], x[0]).shape[:-2])
    return jax.lax.scan(add, start, jnp.triu_indices(count))[0]


def _gram(student: TwoLayer, teacher: TwoLayer, inputs: AbstractInputs) -> Gram | None:
    """The Gram matrix of the neurons of both networks as a function of them; None if it has no closed form."""
    if student.activation != teacher.activation or inputs.moments is None:
        return None
    return student.activation.gram(inputs.moments)


@requires_float64
def network_risk(student: TwoLayer, teacher: TwoLayer, inputs: AbstractInputs) -> Float[Array, ""]:
    r"""E (f_student(x) - f_teacher(x))^2 for x of the law `inputs`, exactly: the quadratic form A' G A with A = (a, -a*) and G
    the Gram matrix E[phi(<u,x>) phi(<v,x>)] of all neurons (`tsjax.activations`). It is a difference of nearly equal terms, so
    everything is in float64.

    **Raises:** ValueError if G has no closed form: for networks with different activations, for inputs that are not
    rotation-invariant, for erf unless the inputs are Gaussian, and for an `Activation(function)`.
    """
    if _gram(student, teacher, inputs) is None:
        raise ValueError(
            f"no closed form for the risk of {_pair(student, teacher)} under {type(inputs).__name__} inputs: use "
            "tsjax.excess_risk(..., key=...) or tsjax.monte_carlo_risk for an estimate."
        )
    return _network_risk(student, teacher, inputs)


@compiled
def _network_risk(student: TwoLayer, teacher: TwoLayer, inputs: AbstractInputs) -> Float[Array, ""]:
    # Made here, as in `_kernel_risk`.
    gram = _gram(student, teacher, inputs)
    assert gram is not None
    # The student comes last: the trailing entries of padded feature arrays are not in use, and their tiles are skipped.
    a = jnp.concatenate([-jnp.asarray(teacher.a, jnp.float64), jnp.asarray(student.a, jnp.float64)])
    w = jnp.concatenate([jnp.asarray(teacher.w, jnp.float64), jnp.asarray(student.w, jnp.float64)])
    return a @ gram(w, w) @ a if len(a) <= _WIDE else _quadratic_form(gram, w, a)


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
    """The mean of |f_hat(x) - f*(x)|^2 over `samples` fresh inputs, with its standard error; |.| is the norm over the outputs.

    It needs no closed form, so it takes any input law, teacher (a function of one point) and fit. `key` must not be the one
    that drew the training data. The standard error is proportional to the spread of the squared error, so it shrinks with the
    risk itself.

    **Raises:** ValueError for fewer than 2 samples, and if the outputs of the fit have another shape than the teacher's.
    """
    if samples < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got samples={samples}.")
    x = problem.inputs.sample(key, samples, jnp.float64)
    teacher = as_float64(teacher) if isinstance(teacher, TwoLayer) else teacher
    predicted, truth = fit.predict(x), jax.vmap(teacher)(x)
    if predicted.shape != truth.shape:
        raise ValueError(
            f"the fit predicts values of shape {predicted.shape[1:]}, but the teacher has outputs of shape {truth.shape[1:]}."
        )
    return _mean_square(predicted, truth)


@compiled
def _mean_square(predicted: Float[Array, "samples ..."], truth: Float[Array, "samples ..."]) -> RiskEstimate:
    samples = len(predicted)
    squared = ((predicted - truth) ** 2).reshape(samples, -1).sum(axis=1)
    return RiskEstimate(jnp.mean(squared), jnp.std(squared, ddof=1) / math.sqrt(samples))


class ExactRisk(NamedTuple):
    """An excess risk in closed form and a bound on its error, which comes from truncating a series and from roundoff. The bound
    is 0 where there is no series, since roundoff is far below the risk there."""

    value: Float[Array, ""]
    error_bound: Float[Array, ""]

    @property
    @requires_float64
    def reliable(self) -> Bool[Array, ""]:
        """Whether the bound is at most a hundredth of the value."""
        return self.error_bound <= 0.01 * self.value


def default_degrees(d: int, n: int) -> int:
    """The last degree that `kernel_risk` takes for n points on S^{d-1}: enough to hold 4 n harmonics, at least 200 and at most
    1000.

    For n below 10^4, only the circle needs more than 200, from n = 101 on.
    """
    return min(MOST_DEGREES, degrees_holding(d, 4.0 * n))


@requires_float64
def kernel_risk(
    fit: AbstractFit | KernelSum, teacher: TwoLayer, problem: Problem, degrees: int | None = None
) -> ExactRisk:
    r"""E (f_hat(x) - f*(x))^2 for x uniform on the sphere, where f_hat(x) = sum_i alpha_i k(x_i, x) has a rotation-invariant
    kernel and x_i on the sphere, and f* = sum_j a_j phi(<w_j, x>) is a two-layer network.

    With k(u) = sum_k lambda_k N(d,k) P_k(u) and phi(|w_j| u) = sum_k rho_jk N(d,k) P_k(u) (`tsjax.kernels.gegenbauer`), the
    addition theorem (Atkinson & Han 2012, theorem 2.9) gives

        E k(x_i,x) k(x_l,x)      = sum_k lambda_k^2 N(d,k) P_k(<x_i, x_l>),
        E k(x_i,x) phi(<w_j,x>)  = sum_k lambda_k rho_jk N(d,k) P_k(<x_i, w_j>/|w_j|),

    and the Gram matrix of the neurons gives E f*^2 exactly. In the degrees left out, the estimate has the squared norm q =
    alpha^T (K - K_kept) alpha in the space of the kernel, hence at most e^2 = lambda q in L2, where lambda is the largest
    eigenvalue left out (`tsjax.kernels.zonal.largest_missing`). If the teacher has t^2 in L2 there, the truncation is wrong by
    at most e^2 + 2 e t. Roundoff is at most about eps sum_k lambda_k^2 N(d,k) (sum_i |alpha_i|)^2, which rules out
    interpolation of noise with smooth kernels, whose alpha are enormous. From some hundred points on the sums over degrees are
    tabulated (`tsjax.kernels.table`), so that the time grows as n^2 and depends little on `degrees`.

    **Arguments:**

    - `fit`, `teacher`, `problem`: the fit of a kernel method, its two-layer teacher, and their problem.
    - `degrees`: the last degree of the series, 0 to 1000; None takes `default_degrees`. If the value is not `reliable`, more
      degrees help unless the bound comes from roundoff. On the circle the part left out falls as degrees^-3 for kernels as
      rough as the NTK or Laplace's.

    **Raises:** ValueError unless inputs are a Sphere, the kernel is rotation_invariant, the teacher is a two-layer network with
    a closed-form Gram matrix on the sphere, and the x_i are unit vectors (to 1e-4; checked when they are concrete); also for
    degrees out of range.
    """
    found = fit if isinstance(fit, KernelSum) else fit.as_kernel_sum
    if found is None or found.alpha.ndim != 1:
        raise ValueError(
            "the exact risk of kernel methods is that of a sum of kernels with one output, f(x) = sum_i alpha_i k(x_i, x); "
            f"got a {type(fit).__name__}. Use tsjax.monte_carlo_risk."
        )
    fit, gram = found, _sphere_gram(teacher, problem.inputs)
    if gram is None or not fit.kernel.rotation_invariant:
        raise ValueError(
            "the exact risk of kernel methods is known for rotation_invariant kernels, Sphere inputs and networks of relu, "
            f"leaky relu or quadratic neurons; got {type(fit.kernel).__name__}, {problem.inputs} and "
            f"{teacher.activation} neurons. Use tsjax.monte_carlo_risk."
        )
    if not is_traced(fit.x) and np.any(np.abs(np.linalg.norm(np.asarray(fit.x), axis=-1) - 1.0) > 1e-4):
        raise ValueError("the training inputs must lie on the unit sphere, as those of a Sphere problem do.")
    if degrees is None:
        degrees = default_degrees(problem.d, fit.x.shape[-2])
    if not 0 <= degrees <= MOST_DEGREES:
        raise ValueError(f"degrees can be from 0 to {MOST_DEGREES}, or None for a choice by n; got {degrees}.")
    return _kernel_risk(trace_floats(fit), as_float64(teacher), problem.inputs, degrees)


def _sphere_gram(teacher: TwoLayer, inputs: AbstractInputs) -> Gram | None:
    return teacher.activation.gram(inputs.moments) if isinstance(inputs, Sphere) else None


@compiled
def _kernel_risk(fit: KernelSum, teacher: TwoLayer, inputs: AbstractInputs, degrees: int) -> ExactRisk:
    # Made here and not passed as an argument: it is a new function at every call, which would compile everything again.
    gram, d = _sphere_gram(teacher, inputs), inputs.d
    assert gram is not None
    spectrum, alpha = gegenbauer(fit.kernel, d, degrees), fit.alpha
    lambdas, multiplicities = spectrum.eigenvalues, spectrum.multiplicities
    norms = jnp.linalg.norm(teacher.w, axis=1)
    directions = teacher.w / jnp.where(norms > 0, norms, 1.0)[:, None]
    cosines = jnp.cos(jnp.asarray(angles(d, degrees)))
    rho = coefficients(teacher.activation(norms[:, None] * cosines[None, :]), d, degrees)

    squares, kept = lambdas**2 * multiplicities, jnp.where(lambdas > 0, multiplicities, 0.0)

    terms = jnp.stack([squares, lambdas * multiplicities])

    def forms(values, cosines):
        square, kept_part = series(terms, d, cosines)
        return jnp.stack([square, values - kept_part])

    n, inexact = fit.x.shape[0], jnp.zeros(2)
    if n * (n + 1) // 2 > 2 * points_of(degrees):
        at = lambda theta: forms(fit.kernel(jnp.eye(1, d), circle(d, theta))[0], jnp.asarray(np.cos(theta)))
        table, off = tabulate(at, degrees)
        # Close to the diagonal, lengths rounded to single precision would be mistaken for angles.
        unit = fit.x / jnp.linalg.norm(fit.x, axis=1, keepdims=True)
        square, missing_norm = _quadratic_form(lambda x1, x2: table(x1 @ x2.T), unit, alpha)
        # The error beyond the rounding of the sums themselves, as for a kernel that changes within the width of a panel.
        scale = jnp.stack([jnp.sum(squares), spectrum.trace])
        inexact = jnp.where(off > 1e3 * jnp.finfo(alpha.dtype).eps * scale, off, 0.0)
    else:
        square, missing_norm = _quadratic_form(lambda x1, x2: forms(fit.kernel(x1, x2), x1 @ x2.T), fit.x, alpha)
    cross = jax.vmap(lambda w, r: series(lambdas * multiplicities * r, d, fit.x @ w) @ alpha)(directions, rho)
    power = teacher.a @ gram(teacher.w, teacher.w) @ teacher.a
    value = square - 2.0 * teacher.a @ cross + power

    pairs = directions @ directions.T
    per_pair = lambda r, u: jax.vmap(lambda s, c: series(kept * r * s, d, c))(rho, u)
    power_kept = teacher.a @ jax.vmap(per_pair)(rho, pairs) @ teacher.a
    eps, size = jnp.finfo(alpha.dtype).eps, jnp.sum(jnp.abs(alpha)) ** 2
    # The norm is a difference as well. If it comes out below 0, it is at most its own roundoff.
    missing_norm = jnp.maximum(missing_norm, 0.0) + (eps * spectrum.trace + inexact[1]) * size
    estimate_missing = jnp.sqrt(largest_missing(fit.kernel, spectrum) * missing_norm)
    teacher_missing = jnp.sqrt(jnp.maximum(power - power_kept, 0.0))
    truncation = estimate_missing**2 + 2.0 * estimate_missing * teacher_missing
    return ExactRisk(value, truncation + eps * (jnp.sum(squares) * size + power) + inexact[0] * size)


@requires_float64
def exact_risk(problem: Problem, teacher, fit: AbstractFit, degrees: int | None = None) -> ExactRisk | None:
    """The excess risk if it has a closed form, otherwise None.

    Closed forms exist for networks and ReLU features against two-layer teachers (`network_risk`), and on the sphere for
    estimators with a rotation-invariant kernel (`kernel_risk`, which takes `degrees`, and whose value may be unreliable).
    """
    if not isinstance(teacher, TwoLayer):
        return None
    kernels, net = fit.as_kernel_sum, fit.as_network
    if kernels is not None:
        closed = kernels.kernel.rotation_invariant and _sphere_gram(teacher, problem.inputs) is not None
        return kernel_risk(kernels, teacher, problem, degrees) if closed and kernels.alpha.ndim == 1 else None
    if net is None:
        return None
    if _gram(net, teacher, problem.inputs) is None:
        return None
    return ExactRisk(network_risk(net, teacher, problem.inputs), jnp.zeros((), jnp.float64))


@requires_float64
def excess_risk(
    problem: Problem,
    teacher,
    fit: AbstractFit,
    *,
    key: PRNGKeyArray | None = None,
    samples: int = 16384,
    degrees: int | None = None,
) -> Float[Array, ""]:
    """The population excess risk ||f_hat - f*||^2 in L2(P_X), a float64 scalar.

    Exact for two-layer fits and teachers of one activation: relu, leaky relu and quadratic on the sphere and for Gaussian
    inputs, erf for Gaussian inputs; for ridge on ReLU features; and on the sphere for estimators with a rotation-invariant
    kernel (`tsjax.kernel_risk`). Elsewhere pass a `key`: the value is then the estimate of `monte_carlo_risk`, which by itself
    also gives the standard error. With a `key` the estimate also replaces a closed form of a kernel's risk that may be wrong by
    more than a hundredth (interpolation of noise with a smooth kernel, or on the circle). `degrees` is the last degree of that
    series.

    **Raises:** ValueError if no reliable closed form exists and no key is given. Inside jit, reliability is not known before
    the program runs, and an unreliable value is NaN. Do not average the remaining values, which are not a fair sample: pass a
    `key`, with which no value is missing.

    >>> problem = ts.Problem(inputs=ts.Gaussian(d=2), teacher=ts.ReLUTeacher(m=1), noise_std=0.1)
    >>> teacher = problem.sample_teacher(jax.random.key(0))
    >>> half = ts.NetworkFit(ts.TwoLayer(teacher.a / 2, teacher.w), jnp.array(0), {})
    >>> round(float(ts.excess_risk(problem, teacher, half)), 6)  # E relu(z)^2 / 4 = 1/8
    0.125
    """
    exact = exact_risk(problem, teacher, fit, degrees)
    estimate = lambda key: monte_carlo_risk(problem, teacher, fit, key, samples).value
    if exact is None and key is not None:
        return estimate(key)
    if exact is None:
        what = f"a {type(fit).__name__}" if fit.as_network is None else _pair(fit.as_network, teacher)
        raise ValueError(
            f"no closed form for the risk of {what} under {type(problem.inputs).__name__} inputs: pass "
            "key=... for a Monte-Carlo estimate, or call tsjax.monte_carlo_risk, which also gives its standard error."
        )
    if fit.as_kernel_sum is None or (not is_traced(exact.value) and bool(exact.reliable)):
        return exact.value
    if key is not None:
        return _unless(exact.reliable, lambda: (estimate(key),), (exact.value,))[0]
    if not is_traced(exact.value):
        raise ValueError(
            f"the closed form gives a risk of {float(exact.value):.3g}, but may be wrong by {float(exact.error_bound):.3g}: "
            "pass key=... for a Monte-Carlo estimate, or more degrees=... (see tsjax.kernel_risk)."
        )
    return jnp.where(exact.reliable, exact.value, jnp.nan)


def _unless(reliable: Bool[Array, ""], estimate: Callable[[], tuple], exact: tuple) -> tuple:
    """`exact` where it is reliable, else `estimate()`. A batch computes the estimate only if some member needs it: `lax.cond`
    on a batched value would estimate for every member, and so would a loop without any pass, since XLA moves repeated work out
    of it."""
    found = jax.lax.cond(eqxi.unvmap_all(reliable), lambda: exact, estimate)
    return jax.tree.map(lambda known, estimated: jnp.where(reliable, known, estimated), exact, found)


class Risk(NamedTuple):
    """An excess risk, its error, and whether it is exact. For an exact risk `error` is the bound on its error, 0 for sums of
    neurons; for an estimate it is the standard error."""

    value: Float[Array, ""]
    error: Float[Array, ""]
    exact: Bool[Array, ""]


@requires_float64
def population_risk(
    problem: Problem, teacher, fit: AbstractFit, key: PRNGKeyArray, samples: int = 16384, degrees: int | None = None
) -> Risk:
    """The excess risk ||f_hat - f*||^2 in L2(P_X) of any fit: exact if a reliable closed form exists (see `excess_risk`),
    otherwise the estimate of `monte_carlo_risk`, with its error.

    The `value` of a failed fit is NaN.

    >>> problem = ts.Problem(inputs=ts.Gaussian(d=2), teacher=ts.ReLUTeacher(m=1), noise_std=0.1)
    >>> teacher = problem.sample_teacher(jax.random.key(0))
    >>> half = ts.NetworkFit(ts.TwoLayer(teacher.a / 2, teacher.w), jnp.array(0), {})
    >>> found = ts.population_risk(problem, teacher, half, jax.random.key(1))
    >>> round(float(found.value), 6), bool(found.exact)
    (0.125, True)
    """
    exact = exact_risk(problem, teacher, fit, degrees)
    estimate = lambda: tuple(monte_carlo_risk(problem, teacher, fit, key, samples))
    if exact is None:
        (value, error), reliable = estimate(), jnp.zeros((), bool)
    elif fit.as_kernel_sum is None:
        (value, error), reliable = exact, jnp.ones((), bool)
    else:
        reliable = exact.reliable
        value, error = _unless(reliable, estimate, tuple(exact))
    return Risk(jnp.where(failed(fit.status), jnp.nan, value), error, reliable)
