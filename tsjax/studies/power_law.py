r"""Learning curves of kernel ridge regression with power-law spectra: Cui, Loureiro, Krzakala & Zdeborova 2021
(arXiv:2105.15004).

The design is Gaussian: x has p independent coordinates N(0, 1), and the kernel k(x, z) = sum_k lambda_k x_k z_k has the
eigenvalues lambda_k = k^-alpha (the *capacity* alpha > 1). The responses are y = sum_k c_k x_k + sigma eps with c_k^2 = k^{-1-2
r alpha} (the *source* r > 0): with c_k = sqrt(lambda_k) theta_k, the sum of lambda_k^{1-2s} theta_k^2 is finite for every s <
r. The estimate minimises (1/n) sum_i (y_i - f(x_i))^2 + lambda |f|^2, which is `tsjax.KernelRidge` with ridge n lambda. With
s = min(r, 1) and lambda = n^-l its excess risk falls, for p = infinity, as

    n^{-2 s min(l, alpha)} + sigma^2 n^{-(1 - min(l, alpha)/alpha)}

up to constants (the paper's four regimes). Without noise, lambda = 0 is best and gives n^{-2 alpha s}. With noise, the first
term is the larger one for few samples and the second for many (the crossover); l = alpha/(1 + 2 alpha s) is best and gives
n^{-2 alpha s/(1 + 2 alpha s)}, and lambda = 0 gives a plateau of the order of sigma^2.

The number of modes p is finite here. Modes beyond p would act as a ridge, sum_{k>p} k^-alpha, in the kernel and would add
sum_{k>p} c_k^2 to the target. Without noise and ridge, leaving out both lowers the risk by a share that depends on p/n. The
theory line uses the same p modes.
"""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field, model_validator

from ..estimators.ridge import KernelRidge
from ..kernels import Linear, Spectrum
from ..precision import requires_float64
from ..problem import Gaussian
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from ..task import Dataset
from ..theory import predicted_ridge_risk
from .citations import CUI_CROSSOVER

TUNED = ("gcv", "marginal_likelihood")
"""The rules that choose a ridge from the data."""


class PowerLawArguments(Arguments):
    """One ridge rule on one power law.

    `rule` is the ridge: none ("interpolation"), lambda = n^-decay ("decay"), lambda = n^{-alpha/(1 + 2 alpha min(r, 1))}
    ("best_decay", which has the best exponent, with the factor 1), or the choice of a criterion of `tsjax.KernelRidge`. `alpha`
    is the capacity, `r` the source, and `p` the number of modes, which must exceed the number of samples.
    """

    rule: Literal["interpolation", "decay", "best_decay", "gcv", "marginal_likelihood"]
    n: Annotated[int, Field(ge=2)]
    alpha: Annotated[float, Field(gt=1)] = 1.5
    r: Annotated[float, Field(gt=0)] = 0.4
    noise_std: Annotated[float, Field(ge=0)] = 0.0
    decay: Annotated[float, Field(ge=0)] = 1.0
    p: Annotated[int, Field(ge=4)] = 8192

    @model_validator(mode="after")
    def _more_modes_than_samples(self):
        if self.p <= self.n:
            raise ValueError(f"p = {self.p} modes are too few for n = {self.n} samples: raise p above n")
        return self


def spectra(alpha, r, p: int) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
    """The eigenvalues k^-alpha and the squared coefficients k^{-1 - 2 r alpha}, k = 1, ..., p."""
    k = jnp.arange(1, p + 1, dtype=jnp.float64)
    return k**-alpha, k ** (-1.0 - 2.0 * r * alpha)


def best_decay(alpha, r):
    """l = alpha/(1 + 2 alpha min(r, 1)): with lambda = n^-l both terms of the risk have the same exponent."""
    return alpha / (1.0 + 2.0 * alpha * jnp.minimum(r, 1.0))


def ridge_of(rule: str, n: int, alpha, r, decay) -> Any:
    """The ridge of `KernelRidge`: n lambda, or the name of a criterion."""
    if rule in TUNED:
        return rule
    if rule == "interpolation":
        return 0.0
    return jnp.asarray(float(n)) ** (1.0 - (best_decay(alpha, r) if rule == "best_decay" else decay))


def exponent(rule: str, alpha: float, r: float, decay: float, noisy: bool) -> float:
    """The exponent of the excess risk as n grows, at p = infinity: the smaller of the exponents of the two terms (module
    docstring).

    For the marginal likelihood any r counts as at most 1/2: it assumes that the target is a scaled draw from the prior, and
    chooses too small a ridge for a target that is smoother than that by more than one half (Szabo, van der Vaart & van Zanten
    2013, Electronic Journal of Statistics 7, on the same sequences in white noise).
    """
    s = min(r, 0.5 if rule == "marginal_likelihood" and noisy else 1.0)
    tuned = alpha / (1 + 2 * alpha * s) if noisy else alpha
    chosen = {"interpolation": alpha, "decay": min(decay, alpha), "best_decay": float(best_decay(alpha, r))}
    decay = chosen.get(rule, tuned)
    bias, variance = 2 * decay * s, 1 - decay / alpha
    return min(bias, variance) if noisy else bias


@requires_float64
def theory(arguments: dict[str, Any], n: np.ndarray) -> Theory:
    """The deterministic equivalent over the same p modes at the same ridge, and the exponent as n grows at p = infinity. For
    ridges chosen from the data, the line is that of the best ridge at each n."""
    alpha, r, noise_std, rule = (arguments[name] for name in ("alpha", "r", "noise_std", "rule"))
    kernel, target = (Spectrum.of(jnp.asarray(values)) for values in spectra(alpha, r, arguments["p"]))
    decay = arguments["decay"]
    ridge = (
        "optimal" if rule in TUNED else np.asarray([float(ridge_of(rule, int(size), alpha, r, decay)) for size in n])
    )
    predicted = np.asarray(predicted_ridge_risk(kernel, target, n, ridge, noise_std))
    return Theory(
        predicted, exponent(rule, alpha, r, decay, noise_std > 0), "deterministic equivalent, arXiv:2105.15004"
    )


def cost(arguments: dict[str, Any]) -> Cost:
    """The cost of the kernel matrix and the sums over modes, and of its factorisation."""
    n, p = arguments["n"], arguments["p"]
    return Cost(2.0 * n * n * p + 8.0 * n * p, (4.0 if arguments["rule"] in TUNED else 1.3) * n**3)


@experiment(
    static=("rule", "n", "p"), arguments=PowerLawArguments, x="n", y=("risk",), curve="rule",
    theory=theory, cost=cost, cite=CUI_CROSSOVER,
    labels={
        "n": "sample size n", "risk": "excess risk", "alpha": "α", "r": "r", "noise_std": "σ", "decay": "λ = n^-l", "p": "p",
        "interpolation": "no ridge", "best_decay": "ridge of the best exponent", "gcv": "GCV",
        "marginal_likelihood": "marginal likelihood", "ridge": "ridge n λ",
    },
)  # fmt: skip
def power_law(key, *, rule, n, alpha, r, noise_std, decay, p):
    """Fits n samples; returns `risk`, the exact excess risk sum_k (w_k - c_k)^2, where w_k = lambda_k sum_i a_i x_ik are the
    coefficients of the estimate sum_i a_i k(x_i, x); `ridge`, that of K + ridge I; and `dof`, the trace of the hat matrix."""
    eigenvalues, power = spectra(alpha, r, p)
    coefficients = jnp.sqrt(power)
    x_key, noise_key, fit_key = jax.random.split(key, 3)
    # The points are drawn in float32, which is faster; everything else is in float64.
    x = Gaussian(p).sample(x_key, n, jnp.float32).astype(jnp.float64)
    y = x @ coefficients + noise_std * jax.random.normal(noise_key, (n,), jnp.float64)
    fit = KernelRidge(Linear(eigenvalues), ridge_of(rule, n, alpha, r, decay)).fit(fit_key, Dataset(x, y))
    error = eigenvalues * (fit.alpha @ fit.x) - coefficients
    return {"status": fit.status, "risk": error @ error, "ridge": fit.stats["ridge"], "dof": fit.stats["dof"]}
