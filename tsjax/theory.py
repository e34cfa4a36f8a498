r"""Theoretical values: limits, exponents, and predicted learning curves. Each function names its source.

Curves are computed in float64 from spectra of kernels; kernels, noise and ridges may be traced. A spectrum is either given or
computed from a kernel that is zonal on the sphere.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .compilation import compiled
from .estimators.optimal_linear import teacher_covariance
from .kernels.arccos import ArcCosine
from .kernels.spectrum import Spectrum
from .kernels.zonal import MOST_DEGREES, ZonalSpectrum, degrees_holding, gegenbauer, multiplicities_of, series
from .precision import is_traced, requires_float64
from .problem import Problem, ReLUTeacher, Sphere

# Points of the search over ridges, some 20 to 40 in each decade; a parabola then refines the minimum.
_RIDGES = 601
# A spectrum with a tail must hold this many times n eigenvalues; the tail acts as a ridge.
_EIGENVALUES_PER_SAMPLE = 4
# If less than this share of a kernel's trace lies beyond its spectrum, the kernel counts as having no tail.
_NO_TAIL = 1e-12
# mu_*^2 = E relu(z)^2 - (E z relu(z))^2 - (E relu(z))^2 for z ~ N(0, 1).
_MU_STAR_SQUARED = 0.25 - 0.5 / np.pi

Zonal = Callable[[Array, Array], Array] | ZonalSpectrum
"""A kernel that is zonal on the sphere, or its spectrum."""

HasSpectrum = Callable[[Array, Array], Array] | Spectrum
"""A kernel that is zonal on the sphere, or any spectrum."""


def cramer_rao(m: int, d: int, n, noise_std):
    r"""sigma^2 m d / n: the Cramer-Rao limit of the mean excess risk for a teacher of m ReLU neurons in R^d and n samples.

    It follows from the efficiency of least squares under Gaussian noise (van der Vaart 1998, "Asymptotic Statistics", chapter
    8) with m d free parameters, since the two layers share the scale of each neuron. Broadcasts over `n` and `noise_std`.

    **Raises:** ValueError for m, d or n below 1 or noise_std < 0.

    >>> print(f"{ts.theory.cramer_rao(m=3, d=5, n=1500, noise_std=0.1):.1e}")
    1.0e-04
    """
    if m < 1 or d < 1 or np.any(np.asarray(n) < 1) or np.any(np.asarray(noise_std) < 0):
        raise ValueError(f"needs m, d, n >= 1 and noise_std >= 0, got m={m}, d={d}, n={n}, noise_std={noise_std}.")
    return np.asarray(noise_std, float) ** 2 * m * d / np.asarray(n, float)


def optimal_linear_exponent(d: int) -> float:
    """3/(d+2): the optimal linear estimator's average risk decays as n^{-3/(d+2)} on S^{d-1} as n grows.

    Its kernel's ordered eigenvalues decay as i^{-a}, a = (d+2)/(d-1) (Bach 2017, arXiv:1412.8690, appendix D.2), so its Bayes
    risk decays as n^{-(a-1)/a} (Sollich & Halees 2002, Neural Computation 14, on power-law spectra). At finite n the slope is
    steeper: see `predicted_curve`.

    **Raises:** ValueError for d < 2.

    >>> ts.theory.optimal_linear_exponent(d=4)
    0.5
    """
    _check_sphere_dimension(d)
    return 3.0 / (d + 2)


def linear_minimax_exponent(d: int) -> float:
    """(d+2)/(2d+2): the minimax risk of linear estimators is at least of the order n^{-(d+2)/(2d+2) - kappa} for every
    kappa > 0 (Akiyama & Suzuki, arXiv:2205.14818, the theorem on linear estimators).

    **Raises:** ValueError for d < 2.

    >>> ts.theory.linear_minimax_exponent(d=4)
    0.6
    """
    _check_sphere_dimension(d)
    return (d + 2) / (2 * d + 2)


@requires_float64
def target_power(problem: Problem, degrees: int = 200) -> ZonalSpectrum:
    r"""The mean squared size of f* by degree, for a `ReLUTeacher` on the sphere: a spectrum whose `eigenvalues` are the
    mean squared coefficient on one eigenfunction of degree k.

    They equal mu_k^2 (m + s P_k(c)), where mu_k^2 is the spectrum of h/d (`ArcCosine(1)` over d), c is the cosine of the
    neurons, and s is the mean of sum_{j != l} a_j a_l: 0 for random signs, m^2 - m for positive ones, (1 if m is odd, else 0) -
    m for alternating ones. This follows from the addition theorem (Atkinson & Han 2012, theorem 2.9), since the law of the
    teachers is invariant under rotations. For random signs it is the spectrum of k* (`tsjax.OptimalLinear`).

    **Raises:** ValueError unless inputs are a Sphere and the teacher is a ReLUTeacher.
    """
    d = _check_problem(problem)
    teacher = problem.teacher
    assert isinstance(teacher, ReLUTeacher)
    m = teacher.m
    relu = gegenbauer(ArcCosine(1), d, degrees).scaled(1.0 / d)
    pairs = {"random": 0.0, "positive": m * m - m, "alternating": m % 2 - m}[teacher.signs]
    # P_k(c) for every k: each is a series with one term.
    at_cosine = jax.vmap(series, (0, None, None))(jnp.eye(len(relu.eigenvalues)), d, jnp.asarray(teacher.cosine, float))
    eigenvalues = relu.eigenvalues * jnp.maximum(m + pairs * at_cosine, 0.0)
    # In the tail P_k(c) is nearly 0 for c < 1.
    trace = eigenvalues @ relu.multiplicities + m * relu.tail
    return ZonalSpectrum(eigenvalues, relu.multiplicities, trace, m * relu.tail, d)


@requires_float64
def predicted_ridge_risk(
    kernel: HasSpectrum, target: HasSpectrum, n, ridge: Any, noise_std, *, d: int | None = None
) -> Float[Array, "..."]:
    r"""The mean excess risk of kernel ridge regression by its deterministic equivalent; `n`, `ridge` and `noise_std`
    broadcast.

    With eigenvalues lambda_i (each with its multiplicity) and the target's mean squared coefficients v_i^2, kappa
    solves n = sum_i lambda_i/(lambda_i+kappa) + ridge/kappa, and

        risk = E0 (sum_i (kappa/(lambda_i+kappa))^2 v_i^2 + sigma^2) - sigma^2,
        E0   = n / (n - sum_i (lambda_i/(lambda_i+kappa))^2)

    (Simon et al. 2021, arXiv:2110.03922, the eigenlearning equations; Canatar, Bordelon & Pehlevan 2021, arXiv:2006.13198,
    equation 4; the ridge is that of K + ridge I). The kernel's tail acts as an additional ridge, and the target's tail is never
    learnt. The ridge is at least 1e-14 of the trace, so that kernels of finite rank have a curve for ridge 0.

    It is an approximation, good if many eigenvalues lie near kappa, as they do in high dimension. Without ridge and noise it is
    too low for small d at every n, and the smoother the kernel, the lower. In simulations of a Gaussian process with the
    kernel's own covariance (n = 64 and 256, +- .01) it gives 0.77 and 0.76 of the true mean error for Laplace's kernel on the
    circle, 0.95 and 0.94 at d = 3, 0.99 and 0.98 at d = 4; for Matérn-3/2 0.22 and 0.21 on the circle, 0.74 and 0.71 at d = 3.
    The exponent is right all the same. With noise of variance .1 and a ridge of .1 it is within 6 % at n = 64 and within 3 % at
    n = 256.

    **Arguments:**

    - `kernel`, `target`: spectra, of any kernel (`tsjax.kernels.Spectrum`, entry by entry on the same eigenfunctions) or of
      zonal ones (`tsjax.kernels.gegenbauer`, `target_power`), or kernels that are zonal on S^{d-1}. A kernel given as the
      target is the covariance of a random f*, such as a Gaussian process. A spectrum computed from a kernel has as many degrees
      as the largest n needs (`resolving_degrees`), or as the other spectrum if that is given.
    - `n`, `ridge`, `noise_std`: sample sizes, ridges and noise levels >= 0; `ridge="optimal"` takes the best one at each n and
      noise level.
    - `d`: the dimension, needed if neither `kernel` nor `target` is a spectrum.

    **Raises:** ValueError for spectra of different dimensions or lengths, n < 1, ridge < 0 or another string, noise_std < 0,
    and for a spectrum that ends too early for n. It must hold 4 n eigenvalues, since the tail acts as a ridge only if it lies
    far below kappa. (A kernel with nearly nothing beyond its spectrum, such as a polynomial, has no such limit.) If n or the
    spectrum is traced, risks at such n are NaN instead.

    >>> laplace = ts.kernels.Laplace()  # learns a Gaussian process of its own covariance, without noise
    >>> print(ts.theory.predicted_ridge_risk(laplace, laplace, np.array([100, 400]), 0.0, 0.0, d=2).round(5))
    [0.03139 0.00787]
    >>> power = lambda exponent: ts.kernels.Spectrum.of(jnp.arange(1.0, 4097.0) ** -exponent)  # without noise
    >>> print(ts.theory.predicted_ridge_risk(power(1.5), power(2.2), np.array([64, 256]), 0.0, 0.0).round(5))
    [0.01959 0.00352]
    """
    best = isinstance(ridge, str)
    if best and ridge != "optimal":
        raise ValueError(f"ridge must be a number or 'optimal', got {ridge!r}.")
    _check_numbers(n=(n, 1), noise_std=(noise_std, 0), **({} if best else {"ridge": (ridge, 0)}))
    kernel, target = _spectra(kernel, target, n, d)
    n, noise_std = _float(n), _float(noise_std)
    resolved = _resolved(kernel, n)
    risks = (
        _optimal_risk(kernel, target, n, noise_std)
        if best
        else _ridge_risk(kernel, target, n, _float(ridge), noise_std)
    )
    return jnp.where(resolved, risks, jnp.nan)


@requires_float64
def predicted_curve(kernel: Zonal, problem: Problem, n, ridge: Any = "optimal") -> Float[Array, "..."]:
    r"""The learning curve that kernel ridge regression should have on `problem`: `predicted_ridge_risk` at each n,
    shape as n.

    Compare a measured slope with the slope of this curve over the same range of n (`predicted_slope`): the asymptotic exponent
    is often far off, since the degrees are learnt one after another. It is an approximation. At d = 5, interpolation
    (`ridge=0.0`) with the NTK lies 4 to 6 % below it at n = 1024 to 4096 (`benchmarks/RESULTS.md`).

    **Arguments:**

    - `kernel`: a kernel that is zonal on the sphere, or its spectrum (`tsjax.kernels.gegenbauer`), which saves a
      second.
    - `problem`: a problem with inputs on a `Sphere` and a `ReLUTeacher`.
    - `n`: sample sizes. Spectra have as many degrees as the largest n needs, up to 1000. That is enough for every n of interest
      from d = 4 on (2^20 takes 200 degrees at d = 5), and for n up to 250000 at d = 3.
    - `ridge`: a number, `"noise"` for sigma^2, or `"optimal"` for the best one at each n, as for a tuned kernel.

    **Raises:** ValueError for another input law or teacher, a kernel that is not zonal, a bad ridge, a spectrum that ends too
    early for n (as `predicted_ridge_risk`, which also says where the approximation is off), or n that is below 1, too large,
    or, with a kernel, traced.

    >>> problem = ts.Problem(inputs=ts.Sphere(d=5), teacher=ts.ReLUTeacher(m=3), noise_std=0.1)
    >>> print(ts.theory.predicted_curve(ts.kernels.ntk(), problem, [128, 1024]).round(5))
    [0.00518 0.00159]
    """
    d = _check_problem(problem)
    if isinstance(ridge, str) and ridge not in ("optimal", "noise"):
        raise ValueError(f"ridge must be a number, 'optimal' or 'noise', got {ridge!r}.")
    _check_numbers(n=(n, 1))
    spectrum = kernel if isinstance(kernel, ZonalSpectrum) else gegenbauer(kernel, d, resolving_degrees(d, n))
    target = target_power(problem, len(spectrum.eigenvalues) - 1)
    noise_std = _float(problem.noise_std)
    ridge = noise_std**2 if isinstance(ridge, str) and ridge == "noise" else ridge
    return predicted_ridge_risk(spectrum, target, n, ridge, noise_std)


@requires_float64
def predicted_optimal_linear_risk(problem: Problem, n: Sequence[int] | np.ndarray) -> Float[Array, "..."]:
    """The average risk of `tsjax.OptimalLinear` at each n: `predicted_curve` of its kernel k* with ridge sigma^2.

    **Raises:** ValueError for inputs other than a Sphere, or a teacher other than a ReLUTeacher of random signs.

    >>> problem = ts.Problem(inputs=ts.Sphere(d=5), teacher=ts.ReLUTeacher(m=3), noise_std=0.1)
    >>> print(ts.theory.predicted_optimal_linear_risk(problem, [128, 1024]).round(5))
    [0.00508 0.00155]
    """
    _check_problem(problem)
    return predicted_curve(teacher_covariance(problem), problem, n, ridge="noise")


def predicted_slope(kernel, problem: Problem, n: Sequence[int] | np.ndarray, ridge: Any = "optimal") -> float:
    """The exponent that a fit to the predicted curve has over these n: minus the least-squares slope of log risk on log n.

    Arguments and errors are those of `predicted_curve`; it needs at least two different n.

    >>> problem = ts.Problem(inputs=ts.Sphere(d=5), teacher=ts.ReLUTeacher(m=3), noise_std=0.1)
    >>> print(f"{ts.theory.predicted_slope(ts.kernels.ntk(), problem, [128, 512, 2048]):.2f}")  # in the limit 3/7
    0.55
    """
    n = np.asarray(n, float)
    if n.ndim != 1 or len(np.unique(n)) < 2:
        raise ValueError(f"a slope needs a row of at least two different sample sizes, got n={n}.")
    return float(-np.polyfit(np.log(n), np.log(np.asarray(predicted_curve(kernel, problem, n, ridge))), 1)[0])


@requires_float64
def random_features_risk(
    count, n, d: int, ridge, noise_std: Any = 0.0, *, linear: Any = 1.0, nonlinear: Any = 0.0
) -> Float[Array, "..."]:
    r"""The excess risk of ridge regression on random ReLU features if the numbers of features, samples and dimensions are large
    and of the same order (Mei & Montanari 2022, arXiv:1908.05355, definition 1 and theorem 2). All arguments except d
    broadcast.

    For `tsjax.RandomFeatures(count, ridge)` on n points of S^{d-1}, with psi_1 = count/d, psi_2 = n/d and the paper's lambda =
    ridge d/n. The target is a linear part of variance `linear`, F_1^2, plus a part of degree 2 and more of variance
    `nonlinear`, F_*^2, which at such n acts as noise and is not learnt. With z ~ N(0, 1), mu_1 = E z relu(z) = 1/2, mu_*^2 = E
    relu(z)^2 - mu_1^2 - (E relu(z))^2 and zeta = mu_1 / mu_*,

        risk = F_1^2 B + (sigma^2 + F_*^2) V + F_*^2,    B = E_1 / E_0, V = E_2 / E_0,

    where E_0, E_1 and E_2 are polynomials of chi = nu_1 nu_2, psi_1, psi_2 and zeta^2. The paper's equations for nu_1 and nu_2
    have imaginary roots; with g(p) = p + zeta^2 p / (1 + zeta^2 p) and p = -chi they reduce to

        p lambda / mu_*^2 = (1 - g(p) / psi_1) (1 - g(p) / psi_2),

    which has one root with g(p) <= min(psi_1, psi_2). Without ridge the risk is infinite at count = n. Corrections are of order
    n/d^2, since few of the d^2/2 functions of degree 2 are learnt. Close to count = n there are further corrections for ridges
    that are small compared with 1/n^2.

    **Raises:** ValueError for count, n or d below 1, or a ridge, noise_std or variance below 0.

    >>> print(ts.theory.random_features_risk([150, 300, 3000], n=300, d=100, ridge=0.003, noise_std=0.5**0.5).round(3))
    [1.067 2.054 0.256]
    """
    _check_numbers(count=(count, 1), n=(n, 1), d=(d, 1), ridge=(ridge, 0), noise_std=(noise_std, 0))
    _check_numbers(linear=(linear, 0), nonlinear=(nonlinear, 0))
    given = map(_float, (count, n, ridge, noise_std, linear, nonlinear))
    count, n, ridge, noise_std, linear, nonlinear = jnp.broadcast_arrays(*given)
    relative = ridge * d / (n * _MU_STAR_SQUARED)
    bias, variance = features_bias_variance(count / d, n / d, relative, 0.25 / _MU_STAR_SQUARED)
    risk = linear * bias + (noise_std**2 + nonlinear) * variance + nonlinear
    # There E_0 is 0 except for rounding, which may give it either sign.
    return jnp.where((count == n) & (ridge == 0), jnp.inf, risk)


@jax.jit
def features_bias_variance(psi_1, psi_2, ridge, z: float | Float[Array, ""]):
    """B and V of `random_features_risk` for any activation with zeta^2 = z; `ridge` is lambda / mu_*^2."""
    smaller = jnp.minimum(psi_1, psi_2)
    learnt = lambda p: p + z * p / (1.0 + z * p)
    linear_term = 1.0 + z - smaller * z
    most = (jnp.sqrt(linear_term**2 + 4.0 * z * smaller) - linear_term) / (2.0 * z)

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        g = learnt(middle)
        above = middle * ridge > (1.0 - g / psi_1) * (1.0 - g / psi_2)
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    # Both sides are monotone, so bisection of [0, most] finds the root down to rounding.
    p = jax.lax.fori_loop(0, 100, halve, (jnp.zeros_like(most), most))[0]
    c, both = -p, psi_1 * psi_2
    e_0 = (
        -(c**5) * z**3
        + 3.0 * c**4 * z**2
        + c**3 * ((both - psi_1 - psi_2 + 1.0) * z**3 - 2.0 * z**2 - 3.0 * z)
        + c**2 * ((psi_1 + psi_2 - 3.0 * both + 1.0) * z**2 + 2.0 * z + 1.0)
        + 3.0 * both * c * z
        - both
    )
    e_1 = psi_2 * c**3 * z**2 - psi_2 * c**2 * z + both * c * z - both
    e_2 = (
        c**5 * z**3
        - 3.0 * c**4 * z**2
        + c**3 * ((psi_1 - 1.0) * z**3 + 2.0 * z**2 + 3.0 * z)
        - c**2 * ((psi_1 + 1.0) * z**2 + 2.0 * z + 1.0)
    )
    return e_1 / e_0, e_2 / e_0


def largest_resolved_n(d: int) -> int:
    """The largest sample size that `predicted_curve` takes on S^{d-1}: a quarter of the eigenvalues of 1000 degrees."""
    # In high dimension there are too many eigenvalues for exact counts in float64.
    return int(min(np.sum(multiplicities_of(d, MOST_DEGREES)) / _EIGENVALUES_PER_SAMPLE, 2.0**62))


def resolving_degrees(d: int, n) -> int:
    """The number of degrees that a spectrum on S^{d-1} needs for sample sizes up to max n: enough to hold 4 n eigenvalues, at
    least 200.

    **Raises:** ValueError if 1000 degrees are too few (possible only for d = 2 and 3), or n is traced.
    """
    if is_traced(n):
        raise ValueError(
            "the number of degrees depends on n, which must not be traced; pass a spectrum, or concrete n."
        )
    largest = float(np.max(np.asarray(n)))
    if largest > largest_resolved_n(d):
        raise ValueError(
            f"predicted curves on S^{d - 1} need n of at most {largest_resolved_n(d)}, which 1000 degrees resolve; got "
            f"n={largest:.0f}."
        )
    return degrees_holding(d, _EIGENVALUES_PER_SAMPLE * largest)


@compiled
def _ridge_risk(kernel: Spectrum, target: Spectrum, n, ridge, noise_std):
    risk = lambda n, ridge, std: _risk_at_kappa(kernel, target, n, _kappa(kernel, n, ridge), std)
    return jnp.vectorize(risk)(n, ridge, noise_std)


@compiled
def _optimal_risk(kernel: Spectrum, target: Spectrum, n, noise_std):
    """The least risk over ridges >= 0. Each ridge has its kappa, so the search is over kappa, with no equation to solve."""

    def least(n, noise_std):
        # At kappa = 1e3 k(1) nothing is learnt any more.
        grid = jnp.linspace(jnp.log(_kappa(kernel, n, 0.0)), jnp.log(1e3 * kernel.trace), _RIDGES)
        risks = jax.lax.map(lambda log: _risk_at_kappa(kernel, target, n, jnp.exp(log), noise_std), grid)
        best = jnp.clip(jnp.argmin(risks), 1, _RIDGES - 2)
        left, middle, right = risks[best - 1], risks[best], risks[best + 1]
        # The vertex of the parabola through the lowest point and its neighbours, unless the minimum lies at the end.
        curvature = left - 2.0 * middle + right
        gain = jnp.where(curvature > 0, (left - right) ** 2 / (8.0 * jnp.where(curvature > 0, curvature, 1.0)), 0.0)
        inside = (middle <= left) & (middle <= right)
        return jnp.where(inside, middle - gain, jnp.min(risks))

    return jnp.vectorize(least)(n, noise_std)


def _kappa(kernel: Spectrum, n, ridge):
    """The root of n = sum_k N_k lambda_k/(lambda_k+kappa) + (ridge+tail)/kappa, by Newton's method in 1/kappa.

    As a function of q = 1/kappa the right-hand side is concave, increasing, and below trace * q, so Newton's iterates from q =
    n/trace rise to the root and never pass it.
    """
    lambdas, multiplicities = kernel.eigenvalues, kernel.multiplicities
    ridge = jnp.maximum(ridge + kernel.tail, 1e-14 * kernel.trace)

    def newton(carry):
        i, q, _ = carry
        share = 1.0 / (1.0 + q * lambdas)
        value = q * ((share * lambdas) @ multiplicities + ridge)
        slope = (share**2 * lambdas) @ multiplicities + ridge
        step = (n - value) / slope
        return i + 1, q + step, jnp.abs(step) <= 1e-13 * q

    start = n / (lambdas @ multiplicities + ridge)
    return 1.0 / jax.lax.while_loop(lambda c: (c[0] < 200) & ~c[2], newton, (0, start, jnp.zeros((), bool)))[1]


def _risk_at_kappa(kernel: Spectrum, target: Spectrum, n, kappa, noise_std):
    learnt = kernel.eigenvalues / (kernel.eigenvalues + kappa)
    bias = (1.0 - learnt) ** 2 @ (target.multiplicities * target.eigenvalues) + target.tail
    overfitting = n / (n - learnt**2 @ kernel.multiplicities)
    return overfitting * bias + (overfitting - 1.0) * noise_std**2


def _spectra(kernel: HasSpectrum, target: HasSpectrum, n, d: int | None) -> tuple[Spectrum, Spectrum]:
    """Both as spectra on the same eigenfunctions, either of one sphere or without a sphere."""
    known = [spectrum for spectrum in (kernel, target) if isinstance(spectrum, Spectrum)]
    if not known and d is None:
        raise ValueError(
            "the dimension is not known if kernel and target are functions: pass d=..., for the sphere S^(d-1)."
        )
    for spectrum in known:
        own = _dimension(spectrum)
        if d is not None and own != d:
            what = "has no sphere" if own is None else f"belongs to d={own}"
            raise ValueError(f"got d={d}, but a spectrum that {what}; leave out d, or pass that value.")
    d = _dimension(known[0]) if known else d
    if d is None and len(known) < 2:
        raise ValueError(
            "a Spectrum without a sphere needs another such spectrum beside it: that of a kernel is known only on spheres."
        )
    degrees = len(known[0].eigenvalues) - 1 if known else None

    def spectrum_of(given: HasSpectrum) -> Spectrum:
        if isinstance(given, Spectrum):
            return given
        assert d is not None
        return gegenbauer(given, d, resolving_degrees(d, n) if degrees is None else degrees)

    kernel, target = spectrum_of(kernel), spectrum_of(target)
    _check_spectra(kernel, target)
    return kernel, target


def _dimension(spectrum: Spectrum) -> int | None:
    return spectrum.d if isinstance(spectrum, ZonalSpectrum) else None


def _resolved(kernel: Spectrum, n: Float[Array, "..."]) -> Bool[Array, "..."]:
    """Whether the spectrum holds enough eigenvalues for each n, or all that matter. Raises ValueError if n is known to be too
    large."""
    held = jnp.sum(kernel.multiplicities) / _EIGENVALUES_PER_SAMPLE
    resolved = (n <= held) | (kernel.tail <= _NO_TAIL * kernel.trace)
    if not is_traced(resolved) and not bool(resolved.all()):
        d, largest = _dimension(kernel), float(n.max())
        if d is None:
            raise ValueError(
                f"a spectrum of {float(jnp.sum(kernel.multiplicities)):.0f} eigenvalues and a tail resolves n up to "
                f"{int(held)}, since {_EIGENVALUES_PER_SAMPLE} of them are needed for each sample; got n={largest:.0f}."
            )
        most = largest_resolved_n(d)
        remedy = (
            f"{resolving_degrees(d, largest)} degrees are enough"
            if largest <= most
            else (f"1000 degrees, the most there are, resolve n up to {most}")
        )
        raise ValueError(
            f"a spectrum of {kernel.eigenvalues.size - 1} degrees on S^{d - 1} resolves n up to {int(held)}, since its "
            f"degrees hold {float(held) * _EIGENVALUES_PER_SAMPLE:.0f} eigenvalues and {_EIGENVALUES_PER_SAMPLE} are needed "
            f"for each sample; got n={largest:.0f}. {remedy}: see tsjax.theory.resolving_degrees, or pass the kernel itself."
        )
    return resolved


def _float(value) -> Float[Array, "..."]:
    return jnp.asarray(value, jnp.float64)


def _check_numbers(**bounds) -> None:
    for name, (value, lowest) in bounds.items():
        if not is_traced(value) and np.any(np.asarray(value) < lowest):
            raise ValueError(f"needs {name} >= {lowest}, got {name}={np.asarray(value)}.")


def _check_sphere_dimension(d: int) -> None:
    if d < 2:
        raise ValueError(f"rates on the sphere S^(d-1) need d >= 2, got d={d}.")


def _check_problem(problem: Problem) -> int:
    if not isinstance(problem.inputs, Sphere):
        raise ValueError(
            f"predicted curves need the spectrum of the kernel, known for inputs=Sphere(d); got {problem.inputs}. "
            "Measure the risk instead (tsjax.excess_risk)."
        )
    teacher = problem.teacher
    if not isinstance(teacher, ReLUTeacher):
        raise ValueError(f"the power by degree is known for a ReLUTeacher, got {type(teacher).__name__}.")
    _check_sphere_dimension(problem.d)
    return problem.d


def _check_spectra(kernel: Spectrum, target: Spectrum) -> None:
    d, other = _dimension(kernel), _dimension(target)
    if d != other or kernel.eigenvalues.shape != target.eigenvalues.shape:
        raise ValueError(
            "the spectra of kernel and target must belong to one sphere or both to none, and have the same degrees; got "
            f"d={d} with {kernel.eigenvalues.size} degrees and d={other} with {target.eigenvalues.size}."
        )
