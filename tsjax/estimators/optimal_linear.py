r"""The best that any linear estimator can do on average over a family of ReLU teachers.

A linear estimator is f_hat(x) = sum_i y_i phi_i(x_1, ..., x_n, x) with any functions phi_i. Examples are kernel ridge
regression with any kernel, random features, and smoothers. For f* of mean zero, the risk of f_hat averaged over the law of f*
and the noise depends on that law only through the covariance k*(x, x') = E f*(x) f*(x'). Given the inputs X, this risk is
smallest for the best linear predictor (Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", equations 2.25
and 2.26; there f* is a Gaussian process, but the argument needs second moments only):

    f_hat(x) = k*(x, X) (K* + sigma^2 I)^{-1} y
    risk(X) = E_x[ k*(x, x) - k*(x, X) (K* + sigma^2 I)^{-1} k*(X, x) ].

For f* = sum_j a_j relu(<w_j, x>) with independent fair signs a_j the cross terms vanish, and for each w_j uniform on
the unit sphere E relu(<w,x>) relu(<w,x'>) = |x| |x'| h(cos) / d, h(cos t) = (sin t + (pi - t) cos t) / (2 pi) (Cho &
Saul 2009, equation 6, by E|g|^2 = d for g ~ N(0, I_d)). So

    k*(x, x') = m |x| |x'| h(cos) / d,

for any law of x and any pairwise cosine of the neurons.
"""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from ..compilation import compiled
from ..kernels.arccos import ArcCosine
from ..kernels.base import AbstractKernel
from ..precision import requires_float64
from ..problem import Problem, ReLUTeacher
from ..task import Dataset
from .base import AbstractEstimator, check_data, floats_as_arrays
from .repeats import distinct, sample_of, shaped
from .ridge import KernelFit, solve_kernel

# The smallest ridge, relative to trace(K*)/n. Without noise the matrix is K* itself, which is often singular to working
# precision.
_JITTER = 1e-10
# A stream far from the small numbers that split(key) amounts to folding in.
_TEST_STREAM = 0x7E57


def teacher_covariance(problem: Problem) -> AbstractKernel:
    """k*(x, x') = E f*(x) f*(x') (module docstring), as a kernel.

    **Raises:** ValueError unless the teacher is a ReLUTeacher with signs="random".
    """
    teacher = problem.teacher
    if not isinstance(teacher, ReLUTeacher) or teacher.signs != "random":
        got = f"signs={teacher.signs!r}" if isinstance(teacher, ReLUTeacher) else type(teacher).__name__
        raise ValueError(
            "the optimal linear estimator is known for ReLUTeacher(..., signs='random'), whose mean is zero and whose "
            f"covariance is m h(cos) |x||x'| / d; got {got}. The nearest baseline is KernelRidge(tsjax.kernels.nngp())."
        )
    return (teacher.m / problem.d) * ArcCosine(order=1)


class OptimalLinear(AbstractEstimator):
    """Ridge regression with the covariance of the teachers as kernel and the noise variance as ridge. On average over teachers,
    no linear estimator has a lower risk (module docstring).

    **Arguments:**

    - `problem`: a problem with a `ReLUTeacher` of random signs and any input law. `noise_std` is traced.
    - `test_points`: the number of fresh inputs for the formula of risk(X).

    `stats` of the fit: those of `KernelFit`, and `bayes_risk`, an estimate of risk(X) for the data's inputs X by a mean over
    fresh inputs, with its standard error `bayes_risk_error`. It depends on the inputs only, not on the responses: risk(X) is
    the risk of fits on these inputs, averaged over teachers and noise. The ridge is noise_std^2, but at least
    1e-10 trace(K*)/n, because K* alone is often singular to working precision.

    **Raises:** ValueError for another teacher, fixed signs, or test_points < 2.
    """

    problem: Problem
    test_points: int = eqx.field(static=True, default=1024)

    def __check_init__(self):
        teacher_covariance(self.problem)
        if self.test_points < 2:
            raise ValueError(f"a standard error needs at least 2 test points, got test_points={self.test_points}.")

    def fit(self, key: PRNGKeyArray, data: Dataset) -> KernelFit:
        """Fits x (n, d) and y (n,) in float64. `key` draws the fresh inputs for `bayes_risk`. With sample weights the noise of
        row i has the variance sigma^2 / w_i.

        **Raises:** ValueError for data that are not finite, of the wrong rank, or of another dimension than the problem.
        """
        check_data(key, data, weights=True)
        if data.d != self.problem.d:
            raise ValueError(f"the problem has d={self.problem.d}, but the data have d={data.d}.")
        return _fit(floats_as_arrays(self), key, data)


@requires_float64
def _fit(self: OptimalLinear, key, data: Dataset) -> KernelFit:
    return _fit_compiled(self, key, data)


@compiled
def _fit_compiled(self: OptimalLinear, key, data: Dataset) -> KernelFit:
    sample = sample_of(data)
    x, rows = sample.x, distinct(sample)
    kernel = floats_as_arrays(teacher_covariance(self.problem))
    smallest = _JITTER * jnp.sum(rows.root**2 * kernel.diagonal(x)) / rows.n
    ridge = jnp.maximum(jnp.asarray(self.problem.noise_std, jnp.float64) ** 2, smallest)
    (alpha, status, stats), factor = solve_kernel(kernel, x, rows, ridge, kernel.error(x, rows.root))

    x_fresh = self.problem.inputs.sample(jr.fold_in(key, _TEST_STREAM), self.test_points, jnp.float64)
    cross = rows.root[:, None] * kernel(x, x_fresh)
    risk = kernel.diagonal(x_fresh) - factor.explained(cross)
    stats |= {"bayes_risk": jnp.mean(risk), "bayes_risk_error": jnp.std(risk, ddof=1) / self.test_points**0.5}
    return KernelFit(kernel=kernel, x=x, alpha=shaped(alpha, data), status=status, stats=stats)
