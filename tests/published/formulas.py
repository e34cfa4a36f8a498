"""Published formulas, typed from the papers in NumPy, against what tsjax computes in closed form."""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from published.comparison import Comparison, Found
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln

import tsjax as ts
from tsjax import theory
from tsjax.kernels import Laplace, Spectrum, ZonalSpectrum, gegenbauer

_PROBLEM = ts.Problem(ts.Sphere(5), ts.ReLUTeacher(3), 0.3)


def _spectra():
    return gegenbauer(ts.kernels.ArcCosineNTK(), 5), theory.target_power(_PROBLEM)


def canatar() -> Found:
    """kappa = lambda + sum eta kappa/(kappa + P eta), gamma = sum P eta^2/(kappa + P eta)^2,
    E_g = (sum a^2 kappa^2/(kappa + P eta)^2 + sigma^2 gamma) / (1 - gamma)."""
    kernel, target = _spectra()
    eta, often, power = (np.asarray(v) for v in (kernel.eigenvalues, kernel.multiplicities, target.eigenvalues))
    p, ridge, noise = 300, 0.05, 0.3
    # Degrees beyond the spectrum are flat at this P.
    flat = ridge + float(kernel.tail)
    kappa = brentq(lambda k: flat + often @ (eta * k / (k + p * eta)) - k, flat, flat + float(kernel.trace), xtol=1e-16)
    gamma = often @ (p * eta**2 / (kappa + p * eta) ** 2)
    bias = often @ (power * kappa**2 / (kappa + p * eta) ** 2) + float(target.tail)
    ours = theory.predicted_ridge_risk(kernel, target, p, ridge, noise)
    return Found((bias + noise**2 * gamma) / (1 - gamma), float(ours))


def bordelon() -> Found:
    """t = sum (1/eta + p/(lambda + t))^{-1}, gamma = sum (...)^{-2}, and per mode
    E = a^2 eta^{-2} (1/eta + p/(lambda + t))^{-2} / (1 - p gamma/(lambda + t)^2): here all of degree 2."""
    kernel, target = _spectra()
    p, ridge = 100, 0.05
    there = np.asarray(kernel.eigenvalues) > 0
    eta, often = np.asarray(kernel.eigenvalues)[there], np.asarray(kernel.multiplicities)[there]
    flat = ridge + float(kernel.tail)
    shares = lambda t: 1.0 / (1.0 / eta + p / (flat + t))
    t = brentq(lambda t: often @ shares(t) - t, 0.0, float(kernel.trace), xtol=1e-16)
    gamma = often @ shares(t) ** 2
    power = float(target.eigenvalues[2])
    mode = power / float(kernel.eigenvalues[2]) ** 2 / (1 / float(kernel.eigenvalues[2]) + p / (flat + t)) ** 2
    only = jnp.where(jnp.arange(len(target.eigenvalues)) == 2, target.eigenvalues, 0.0)
    second = ZonalSpectrum(only, target.multiplicities, only @ target.multiplicities, jnp.zeros(()), 5)
    ours = theory.predicted_ridge_risk(kernel, second, p, ridge, 0.0)
    return Found(float(target.multiplicities[2]) * mode / (1 - p * gamma / (flat + t) ** 2), float(ours))


def sollich() -> Found:
    """epsilon = sum (1/lambda + n/(sigma^2 + epsilon))^{-1}, for a Gaussian process of the teachers' covariance."""
    covariance = theory.target_power(_PROBLEM)
    there = np.asarray(covariance.eigenvalues) > 0
    eigenvalues, often = np.asarray(covariance.eigenvalues)[there], np.asarray(covariance.multiplicities)[there]
    n, noise = 256, _PROBLEM.noise_std
    tail = float(covariance.tail)
    error = lambda e: often @ (1.0 / (1.0 / eigenvalues + n / (noise**2 + e))) + tail - e
    ours = theory.predicted_optimal_linear_risk(_PROBLEM, [n])
    return Found(brentq(error, 0.0, float(covariance.trace), xtol=1e-16), float(ours[0]))


def _power_law(alpha: float, source: float, count: int = 20_000) -> tuple[Spectrum, Spectrum]:
    """Eigenvalues i^{-alpha} and coefficients v_i^2 = i^{-1-2 r alpha}, no two alike."""
    i = jnp.arange(1.0, count + 1)
    # The sums beyond, by the integral.
    beyond = lambda power: (count + 0.5) ** (1 - power) / (power - 1)
    kernel, target = (Spectrum.of(i**-power, beyond(power)) for power in (alpha, 1 + 2 * source * alpha))
    return kernel, target


def _local_exponent(risk, n: tuple[float, float]) -> float:
    return -math.log(risk(n[1]) / risk(n[0])) / math.log(n[1] / n[0])


def cui_noiseless(source: float) -> Found:
    """n^{-2 alpha min(r, 1)} without noise and ridge."""
    kernel, target = _power_law(1.5, source)
    risk = lambda n: float(theory.predicted_ridge_risk(kernel, target, n, 0.0, 0.0))
    return Found(3.0 * min(source, 1.0), _local_exponent(risk, (2500.0, 5000.0)), tolerance=0.02)


def cui_noisy() -> Found:
    """n^{-2 alpha min(r, 1)/(1 + 2 alpha min(r, 1))} with noise and the best ridge."""
    kernel, target = _power_law(1.5, 0.5)
    risk = lambda n, ridge: float(theory.predicted_ridge_risk(kernel, target, n, ridge, 1.0))
    best = lambda n: minimize_scalar(lambda log: risk(n, math.exp(log)), bounds=(-5, 9), method="bounded").fun
    return Found(1.5 / 2.5, _local_exponent(best, (1000.0, 5000.0)), tolerance=0.02)


def spigler(d: int, n: tuple[float, float]) -> Found:
    """beta = min(alpha_T - D, 2 alpha_S)/D on a manifold of dimension D = d - 1, for the Laplace kernel alpha = D + 1."""
    laplace = Laplace()
    curve = theory.predicted_ridge_risk(laplace, laplace, np.asarray(n), 0.0, 0.0, d=d)
    return Found(1.0 / (d - 1), -math.log(curve[1] / curve[0]) / math.log(n[1] / n[0]), tolerance=0.03)


def stein() -> Found:
    """Between two of many points at distance delta, k(t) = exp(-t): the variance in the middle is tanh(delta/2)."""
    x, delta = jnp.linspace(0.0, 1.0, 33)[:, None], 1 / 32
    middle = jnp.asarray([[16.5 * delta]])
    kernel = Laplace(1.0)
    # Kriging is linear: of y = k(X, x0) it makes k(x0, X) K^{-1} k(X, x0).
    explained = ts.MinimumNorm(kernel).fit(jr.key(0), ts.Dataset(x, kernel(x, middle)[:, 0])).predict(middle)
    return Found(math.tanh(0.5 * delta), 1.0 - float(explained[0]), tolerance=1e-9)


def simon_learnabilities() -> Found:
    """On the 8-cube the learnabilities of all 256 parities add up to n, for any kernel without a ridge."""
    corners = jnp.asarray(np.stack(np.meshgrid(*[[-1.0, 1.0]] * 8), -1).reshape(-1, 8))
    parities = jnp.stack([jnp.prod(corners[:, np.asarray(corners[i]) > 0], axis=1) for i in range(256)])
    chosen = jr.permutation(jr.key(0), 256)[:64]
    learner = ts.MinimumNorm(Laplace(8.0))
    predict = lambda y: learner.fit(jr.key(0), ts.Dataset(corners[chosen], y[chosen])).predict(corners)
    learnt = jax.vmap(predict)(parities)
    return Found(64.0, float(jnp.sum(learnt * parities) / 256), tolerance=1e-9)


def bach() -> Found:
    """The coefficient of relu on S^{d-1} in an even degree k, by Rodrigues' formula and k - 2 partial integrations:
    pi^{-1/2} 2^{-k} Gamma(d/2) Gamma(k-1) / (Gamma(k/2) Gamma((k+d+1)/2)) up to its sign; here d = 5 and k = 40. Its square
    is the eigenvalue of the arc-cosine kernel over d."""
    d, k = 5, 40
    log = gammaln(d / 2) + gammaln(k - 1) - gammaln(k / 2) - gammaln((k + d + 1) / 2)
    published = (math.pi**-0.5 * 2.0**-k * math.exp(log)) ** 2
    ours = gegenbauer(ts.kernels.ArcCosine(1), d, 60).scaled(1 / d)
    return Found(published, float(ours.eigenvalues[k]), tolerance=2e-6)


def _decay(kernel, d: int) -> float:
    eigenvalues = gegenbauer(kernel, d, 200).eigenvalues
    return float(-jnp.log(eigenvalues[200] / eigenvalues[140]) / math.log(200 / 140))


def ghorbani(power: float, left: float) -> Found:
    """At n = d^{l + 1/2} kernels learn degrees up to l: of a target of norm 1 in each of the degrees 1, 2, 3, the risk is
    what lies above l. In finite dimension n / N(d, 3) = 6/sqrt(d) of degree 3 is learnt at n = d^{5/2} already: 6 %."""
    d = 10_000
    kernel = gegenbauer(ts.kernels.DotProduct([1 / math.factorial(k) for k in range(8)]), d, 4)
    per_degree = jnp.where((jnp.arange(5) >= 1) & (jnp.arange(5) <= 3), 1.0 / kernel.multiplicities, 0.0)
    target = ZonalSpectrum(per_degree, kernel.multiplicities, jnp.asarray(3.0), jnp.zeros(()), d)
    return Found(left, float(theory.predicted_ridge_risk(kernel, target, d**power, 0.0, 0.0)), tolerance=0.06)


def saad_solla() -> Found:
    """epsilon_g = (1/pi) (sum arcsin Q_ik/sqrt((1+Q_ii)(1+Q_kk)) + the same of T - 2 that of R), neurons erf(z/sqrt 2)."""
    student, teacher = jr.normal(jr.key(0), (3, 4)), jr.normal(jr.key(1), (2, 4))
    w, v = np.asarray(student), np.asarray(teacher)

    def overlap(a, b):
        size = np.sqrt((1 + (a**2).sum(1))[:, None] * (1 + (b**2).sum(1))[None, :])
        return np.arcsin(a @ b.T / size).sum()

    net = lambda w: ts.TwoLayer(jnp.ones(len(w)), w / math.sqrt(2), ts.activations.erf)
    problem = ts.Problem(ts.Gaussian(4), ts.TwoLayerTeacher(2, ts.activations.erf))
    fit = ts.NetworkFit(net(student), jnp.array(0), {})
    published = (overlap(w, w) + overlap(v, v) - 2 * overlap(w, v)) / math.pi
    return Found(published, 0.5 * float(ts.excess_risk(problem, net(teacher), fit)))


def deep_ntk() -> Found:
    """Theta_h = kappa_1(Sigma_{h-1}) + Theta_{h-1} kappa_0(Sigma_{h-1}), Sigma_h = kappa_1(Sigma_{h-1})."""
    kappa_0 = lambda u: (math.pi - math.acos(u)) / math.pi
    kappa_1 = lambda u: (math.sqrt(1 - u * u) + (math.pi - math.acos(u)) * u) / math.pi
    sigma = theta = 0.5
    for _ in range(3):
        sigma, theta = kappa_1(sigma), kappa_1(sigma) + theta * kappa_0(sigma)
    x = jnp.asarray([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    values = ts.kernels.ntk(depth=3)(x)
    return Found(theta / 4, float(values[0, 1] / values[0, 0]))


COMPARISONS = (
    Comparison("Canatar et al. 2021, eq. 4", "risk of NTK ridge, d = 5, n = 300, ridge 0.05, noise 0.3", canatar),
    Comparison("Bordelon et al. 2020, mode errors", "error in degree 2, NTK, d = 5, n = 100", bordelon),
    Comparison(
        "Sollich 1999, self-consistent curve", "Bayes error of relu teachers, d = 5, n = 256", sollich, slow=True
    ),
    Comparison("Cui et al. 2021", "exponent without noise, capacity 1.5, source 0.5", lambda: cui_noiseless(0.5)),
    Comparison("Cui et al. 2021", "exponent without noise, saturated: source 2", lambda: cui_noiseless(2.0)),
    Comparison("Cui et al. 2021", "exponent with noise and the best ridge, source 0.5", cui_noisy),
    Comparison("Spigler et al. 2020", "exponent of Laplace on Laplace, circle", lambda: spigler(2, (125.0, 500.0))),
    Comparison("Spigler et al. 2020", "exponent of Laplace on Laplace, d = 3", lambda: spigler(3, (1000.0, 8000.0))),
    Comparison("Stein 1999, exponential covariance", "kriging variance between points 1/32 apart", stein),
    Comparison(
        "Simon et al. 2021, conservation",
        "sum of learnabilities on the 8-cube, n = 64",
        simon_learnabilities,
        slow=True,
    ),
    Comparison("Bach 2017, appendix D.2", "eigenvalue of relu in degree 40, d = 5", bach),
    Comparison(
        "Bietti & Mairal 2019",
        "decay of the NTK's eigenvalues, d = 3",
        lambda: Found(3.0, _decay(ts.kernels.ArcCosineNTK(), 3), tolerance=0.02),
    ),
    Comparison(
        "Bietti & Bach 2021",
        "the same, three hidden layers",
        lambda: Found(3.0, _decay(ts.kernels.ntk(depth=3), 3), tolerance=0.04),
        slow=True,
    ),
    Comparison(
        "Bach 2017",
        "decay of the NNGP's eigenvalues, d = 3",
        lambda: Found(5.0, _decay(ts.kernels.ArcCosine(1), 3), tolerance=0.02),
    ),
    Comparison("Ghorbani et al. 2021", "risk at n = d^0.5, target 1 + 1 + 1", lambda: ghorbani(0.5, 3.0)),
    Comparison("Ghorbani et al. 2021", "risk at n = d^1.5", lambda: ghorbani(1.5, 2.0)),
    Comparison("Ghorbani et al. 2021", "risk at n = d^2.5", lambda: ghorbani(2.5, 1.0)),
    Comparison("Saad & Solla 1995", "error of 3 against 2 erf neurons", saad_solla, slow=True),
    Comparison("Arora et al. 2019", "NTK of three hidden layers at cosine 0.5, by that at 1", deep_ntk, slow=True),
)
