r"""What the numbers should be: limits, exponents, and predicted learning curves. Each function names its source.

Curves are host arithmetic (NumPy, float64) on spectra of zonal kernels on the sphere; none of this is traced by JAX.
"""

from collections.abc import Callable, Sequence

import jax.core
import numpy as np
from jaxtyping import Array

from .estimators.optimal_linear import teacher_covariance
from .kernels.arccos import ArcCosine
from .kernels.zonal import ZonalSpectrum, gegenbauer, gegenbauer_polynomials
from .problem import Problem, ReLUTeacher, Sphere

# Density of the search over ridges; after the parabola it is within 2e-5 of the minimum (relative, d = 5 and 10).
_RIDGES_PER_DECADE = 25


def cramer_rao(m: int, d: int, n, noise_std):
    r"""sigma^2 m d / n: the Cramer-Rao limit of the mean excess risk for a teacher of m ReLU neurons in R^d, n samples.

    By the efficiency of least squares under Gaussian noise (van der Vaart 1998, "Asymptotic Statistics", chapter 8)
    with m d free parameters: the scale of each neuron is shared between its two layers. Broadcasts over `n` and
    `noise_std`.

    **Raises:** ValueError for m, d or n below 1 or noise_std < 0.
    """
    if m < 1 or d < 1 or np.any(np.asarray(n) < 1) or np.any(np.asarray(noise_std) < 0):
        raise ValueError(f"needs m, d, n >= 1 and noise_std >= 0, got m={m}, d={d}, n={n}, noise_std={noise_std}.")
    return np.asarray(noise_std, float) ** 2 * m * d / np.asarray(n, float)


def optimal_linear_exponent(d: int) -> float:
    """3/(d+2): the optimal linear estimator's average risk decays as n^{-3/(d+2)} on S^{d-1} as n grows.

    Its kernel's ordered eigenvalues decay as i^{-a}, a = (d+2)/(d-1) (Bach 2017, arXiv:1412.8690, appendix D.2), and
    its Bayes risk then as n^{-(a-1)/a} (Sollich & Halees 2002, Neural Computation 14, on power-law spectra). At finite
    n the slope is steeper: see `predicted_curve`.

    **Raises:** ValueError for d < 2.
    """
    _check_sphere_dimension(d)
    return 3.0 / (d + 2)


def linear_minimax_exponent(d: int) -> float:
    """(d+2)/(2d+2): the minimax risk of linear estimators is at least of the order n^{-(d+2)/(2d+2) - kappa} for every
    kappa > 0 (Akiyama & Suzuki, arXiv:2205.14818, their theorem on linear estimators).

    **Raises:** ValueError for d < 2.
    """
    _check_sphere_dimension(d)
    return (d + 2) / (2 * d + 2)


def target_power(problem: Problem, degrees: int = 200) -> ZonalSpectrum:
    r"""The mean squared size of f* by degree, for a `ReLUTeacher` on the sphere: a spectrum whose `eigenvalues` are the
    mean squared coefficient on one eigenfunction of degree k.

    = mu_k^2 (m + s P_k(c)), where mu_k^2 is the spectrum of h/d (`ArcCosine(1)` over d), c the cosine of the neurons,
    and s the mean of sum_{j != l} a_j a_l: 0 for random signs, m^2 - m for positive ones, (1 if m is odd) - m for
    alternating ones. By the addition theorem (Atkinson & Han 2012, theorem 2.9), since the teachers are invariant under
    rotations. For random signs it is the spectrum of k* (`tsjax.OptimalLinear`).

    **Raises:** ValueError unless inputs are a Sphere, the teacher is a ReLUTeacher, and its cosine is concrete.
    """
    d = _check_problem(problem)
    teacher = problem.teacher
    assert isinstance(teacher, ReLUTeacher)
    m = teacher.m
    relu = gegenbauer(ArcCosine(1), d, degrees).scaled(1.0 / d)
    pairs = {"random": 0.0, "positive": m * m - m, "alternating": m % 2 - m}[teacher.signs]
    at_cosine = gegenbauer_polynomials(d, len(relu.eigenvalues) - 1, np.asarray([teacher.cosine], float))[:, 0]
    eigenvalues = relu.eigenvalues * np.maximum(m + pairs * at_cosine, 0.0)
    # In the tail P_k(c) is next to 0 for c < 1.
    return ZonalSpectrum(
        d=d,
        eigenvalues=eigenvalues,
        multiplicities=relu.multiplicities,
        trace=float(eigenvalues @ relu.multiplicities) + m * relu.tail,
        tail=m * relu.tail,
    )


def predicted_ridge_risk(kernel: ZonalSpectrum, target: ZonalSpectrum, n, ridge, noise_std) -> np.ndarray:
    r"""The mean excess risk of kernel ridge regression by its deterministic equivalent; `n` and `ridge` broadcast.

    With eigenvalues lambda_i (each with its multiplicity) and the target's mean squared coefficients v_i^2, kappa
    solves n = sum_i lambda_i/(lambda_i+kappa) + ridge/kappa, and

        risk = E0 (sum_i (kappa/(lambda_i+kappa))^2 v_i^2 + sigma^2) - sigma^2,
        E0   = n / (n - sum_i (lambda_i/(lambda_i+kappa))^2)

    (Simon et al. 2021, arXiv:2110.03922, the eigenlearning equations; Canatar, Bordelon & Pehlevan 2021,
    arXiv:2006.13198, equation 4; the ridge is that of K + ridge I). The kernel's tail is extra ridge, the target's tail
    is never learnt. At least 1e-14 of the trace serves as ridge, so that kernels of finite rank have a curve without
    one.

    **Raises:** ValueError for spectra of different dimensions or lengths, n < 1, ridge < 0 or noise_std < 0.
    """
    _check_spectra(kernel, target)
    n, ridge = np.broadcast_arrays(np.asarray(n, float), np.asarray(ridge, float))
    if np.any(n < 1) or np.any(ridge < 0) or np.any(np.asarray(noise_std) < 0):
        raise ValueError(
            f"needs n >= 1, ridge >= 0 and noise_std >= 0, got n={n}, ridge={ridge}, noise_std={noise_std}."
        )
    kappa = _kappa(kernel, n, ridge)
    return _risk_at_kappa(kernel, target, n, kappa, noise_std)


def predicted_curve(
    kernel: Callable[[Array, Array], Array] | ZonalSpectrum,
    problem: Problem,
    n: Sequence[int] | np.ndarray,
    ridge: float | str = "optimal",
) -> np.ndarray:
    r"""The learning curve that kernel ridge regression should have on `problem`: `predicted_ridge_risk` at each n,
    shape as n.

    Its fitted slope over a given range of n is what a measured slope over that range is to be compared with; the
    asymptotic exponent is often far off (a staircase of degrees comes first).

    **Arguments:**

    - `kernel`: a kernel that is zonal on the sphere, or its spectrum (`tsjax.kernels.gegenbauer`), which saves a
      second.
    - `problem`: inputs on a `Sphere`, a `ReLUTeacher`.
    - `n`: sample sizes.
    - `ridge`: a number, `"noise"` for sigma^2, or `"optimal"`: the best one at each n, as for a tuned kernel.

    **Raises:** ValueError for another input law or teacher, a kernel that is not zonal, or a bad ridge or n.
    """
    d = _check_problem(problem)
    target = target_power(problem)
    spectrum = kernel if isinstance(kernel, ZonalSpectrum) else gegenbauer(kernel, d)
    noise_std = float(problem.noise_std)
    if isinstance(ridge, str):
        if ridge not in ("optimal", "noise"):
            raise ValueError(f"ridge must be a number, 'optimal' or 'noise', got {ridge!r}.")
        if ridge == "optimal":
            return _optimal_risk(spectrum, target, np.asarray(n, float), noise_std)
        ridge = noise_std**2
    return predicted_ridge_risk(spectrum, target, n, ridge, noise_std)


def predicted_optimal_linear_risk(problem: Problem, n: Sequence[int] | np.ndarray) -> np.ndarray:
    """The average risk of `tsjax.OptimalLinear` at each n: `predicted_curve` of its kernel k* with ridge sigma^2.

    **Raises:** ValueError for inputs other than a Sphere, or a teacher other than a ReLUTeacher of random signs.
    """
    _check_problem(problem)
    return predicted_curve(teacher_covariance(problem), problem, n, ridge="noise")


def _optimal_risk(kernel: ZonalSpectrum, target: ZonalSpectrum, n: np.ndarray, noise_std: float) -> np.ndarray:
    """The least risk over ridges >= 0. Each ridge has its kappa, so that the search is over kappa, without solving."""
    _check_spectra(kernel, target)
    if np.any(n < 1):
        raise ValueError(f"needs n >= 1, got n={n}.")
    lowest = np.log(_kappa(kernel, n, np.zeros_like(n)))
    # At 1e3 k(1) nothing is learnt any more. No axis of n may be assumed: the grid goes last.
    highest = np.log(1e3 * kernel.trace)
    steps = int(np.ceil(_RIDGES_PER_DECADE * np.max(highest - lowest) / np.log(10.0))) + 2
    grid = lowest[..., None] + (highest - lowest)[..., None] * np.linspace(0.0, 1.0, steps)
    risks = _risk_at_kappa(kernel, target, n[..., None], np.exp(grid), noise_std)
    best = np.clip(np.argmin(risks, axis=-1), 1, steps - 2)[..., None]
    left, middle, right = (np.take_along_axis(risks, best + i, -1)[..., 0] for i in (-1, 0, 1))
    # The vertex of the parabola through the lowest point and its neighbours, unless the minimum lies at the end.
    curvature = left - 2.0 * middle + right
    gain = np.where(curvature > 0, (left - right) ** 2 / (8.0 * np.where(curvature > 0, curvature, 1.0)), 0.0)
    inside = (middle <= left) & (middle <= right)
    return np.where(inside, middle - gain, np.min(risks, axis=-1))


def _kappa(kernel: ZonalSpectrum, n: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """The root of n = sum_k N_k lambda_k/(lambda_k+kappa) + (ridge+tail)/kappa, by Newton's method in 1/kappa.

    As a function of q = 1/kappa the right-hand side is concave and increasing, and below trace * q: from q = n/trace
    on, Newton's iterates rise to the root and never pass it.
    """
    lambdas, multiplicities = kernel.eigenvalues, kernel.multiplicities
    ridge = np.maximum(ridge + kernel.tail, 1e-14 * kernel.trace)
    q = n / (lambdas @ multiplicities + ridge)
    for _ in range(200):
        share = 1.0 / (1.0 + q[..., None] * lambdas)
        value = q * ((share * lambdas) @ multiplicities + ridge)
        slope = (share**2 * lambdas) @ multiplicities + ridge
        step = (n - value) / slope
        q = q + step
        if np.all(np.abs(step) <= 1e-13 * q):
            break
    return np.asarray(1.0 / q)


def _risk_at_kappa(kernel: ZonalSpectrum, target: ZonalSpectrum, n, kappa: np.ndarray, noise_std) -> np.ndarray:
    learnt = kernel.eigenvalues / (kernel.eigenvalues + kappa[..., None])
    bias = (1.0 - learnt) ** 2 @ (target.multiplicities * target.eigenvalues) + target.tail
    overfitting = n / (n - learnt**2 @ kernel.multiplicities)
    variance = np.asarray(noise_std, float) ** 2
    return np.asarray(overfitting * bias + (overfitting - 1.0) * variance)


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
    if any(isinstance(value, jax.core.Tracer) for value in (teacher.cosine, problem.noise_std)):
        raise ValueError("predicted curves are host arithmetic: call them outside of jit and vmap.")
    _check_sphere_dimension(problem.d)
    return problem.d


def _check_spectra(kernel: ZonalSpectrum, target: ZonalSpectrum) -> None:
    if kernel.d != target.d or kernel.eigenvalues.shape != target.eigenvalues.shape:
        raise ValueError(
            "the spectra of kernel and target must belong to one sphere and have the same degrees; got "
            f"d={kernel.d} with {kernel.eigenvalues.size} degrees and d={target.d} with {target.eigenvalues.size}."
        )
