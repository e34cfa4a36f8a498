"""The methods of `python -m benchmarks league`: each fits a curve by its own recipe, and gives a 95 % interval of the exponent.

A method is a function of (n, risks (k, seeds), model, rng) that returns `Found`. `model` is the planted curve: power, floor or
broken. Methods that know only one curve fit that. A recipe that fits one value at every n gets the mean over the seeds.

- `tsjax`: `fit_rate` with its defaults.
- `curve_fit`: `scipy.optimize.curve_fit` on risks with the planted curve, from the start of a power law; with several seeds
  sigma is the standard error of each mean, `absolute_sigma=True`. Value -+ t standard errors, k - p degrees of freedom without
  seeds and the normal quantile with them.
- `log OLS`, `log HC3`: `statsmodels` least squares of all log risks on log n, with the usual covariance and HC3: a power law.
- `chinchilla`: E + A n^-a, the sum in logarithms by log-sum-exp, Huber's loss (1e-3) of log residuals, L-BFGS from a grid of
  starts, percentiles of 100 resamples of the points (Hoffmann et al. 2022, section D.2; Besiroglu et al., arXiv:2404.10102).
  Here it is smaller: the grid has 36 starts, and resamples start from the fit of the whole curve.
- `BNSL`: a + b n^-c0 (1 + (n/d)^(1/f))^(-c1 f), squared differences of log risks, the best start of a grid of 36, then
  `curve_fit` (Caballero et al., arXiv:2210.14891, appendix A.6; one break, so six parameters). The exponent is c0 + c1. The
  paper has no interval; this one comes from `curve_fit`.
- `pow4`, `mmf4`: a (n + d)^-b + c and (a b + c n^d) / (b + n^d), least squares by Levenberg and Marquardt from random starts,
  as the learning-curve database fits them (Mohr et al., ECML PKDD 2022), which has no interval. Its package `lcdb` contains the
  curves; the fits come from a script of the paper (publications/2022-ecml/analysis/fit_database.py in github.com/fmohr/lcdb),
  with 6 starts from [0, 1]^4, those of pow4 at a fit without its shift. The version here is a short implementation of the
  recipe, with 10 starts.
"""

import itertools
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit, least_squares, minimize
from scipy.special import expit
from scipy.stats import norm, t

from tsjax import rates

RESAMPLES, HUBER, RESTARTS = 100, 1e-3, 10


class Found(NamedTuple):
    """The `interval` of the exponent, None for a recipe without one, and the fitted curve, for forecasts."""

    interval: tuple[float, float] | None
    predict: Callable[[float], float]


def ours(n, risks, model, rng):
    """`fit_rate`."""
    del rng
    rate = rates.fit_rate(n, risks, model=model)
    return Found(rate.interval, lambda at: float(rate.predict([at])[0][0]))


def _curve(model: str):
    """The planted curve of log n with its parameters (log constant, exponent, ...), all finite."""
    if model == "power":
        return lambda u, c, a: np.exp(c - a * u)
    if model == "floor":
        return lambda u, c, a, floor: np.exp(c - a * u) + floor
    # Exponent a after the break at b and a + change before it, width 1/2 in log n, as in tsjax's model.
    return lambda u, c, a, change, b: np.exp(c - a * u - change * 0.5 * np.logaddexp(0.0, (b - u) / 0.5))


def by_curve_fit(n, risks, model, rng):
    """`scipy.optimize.curve_fit`."""
    del rng
    curve, u, seeds = _curve(model), np.log(n), risks.shape[1]
    mean = risks.mean(axis=1)
    slope, constant = np.polyfit(u, np.log(np.abs(mean)), 1)
    start = [constant, -slope] + {"power": [], "floor": [mean.min() / 2], "broken": [0.1, u.mean()]}[model]
    sigma = risks.std(axis=1, ddof=1) / np.sqrt(seeds) if seeds > 1 else None
    theta, covariance = curve_fit(curve, u, mean, start, sigma, absolute_sigma=seeds > 1, maxfev=5000)
    reach = (norm.ppf(0.975) if seeds > 1 else t.ppf(0.975, len(n) - len(theta))) * np.sqrt(covariance[1, 1])
    return Found((theta[1] - reach, theta[1] + reach), lambda at: float(curve(np.log(at), *theta)))


def by_log_ols(covariance: Literal["nonrobust", "HC3"]):
    """`statsmodels` on logarithms."""

    def fit(n, risks, model, rng):
        del model, rng
        import statsmodels.api as sm

        u = np.repeat(np.log(n), risks.shape[1])
        result = sm.OLS(np.log(risks.ravel()), sm.add_constant(u)).fit(cov_type=covariance)
        low, high = -result.conf_int()[1][::-1]
        # The mean of the risk is that of its logarithm times the mean of exp(residual) (Duan 1983).
        smear = np.exp(result.resid).mean()
        c, slope = result.params
        return Found((low, high), lambda at: float(np.exp(c + slope * np.log(at)) * smear))

    return fit


def by_chinchilla(n, risks, model, rng):
    """Huber's loss of log residuals of E + A n^-a."""
    del model
    u, y = np.repeat(np.log(n), risks.shape[1]), np.log(risks.ravel())

    def loss(theta, u, y, weight):
        log_a, exponent, log_e = theta
        power = log_a - exponent * u
        residual = np.logaddexp(power, log_e) - y
        share = expit(power - log_e)
        slope = weight * np.clip(residual, -HUBER, HUBER)
        size = np.abs(residual)
        value = weight @ np.where(size <= HUBER, residual**2 / 2, HUBER * (size - HUBER / 2))
        return value, np.array([slope @ share, -slope @ (share * u), slope @ (1 - share)])

    def descend(start, weight):
        # Scaled to about the sum of absolute residuals, far above the absolute tolerance of L-BFGS.
        scaled = lambda theta: tuple(part / HUBER for part in loss(theta, u, y, weight))
        return minimize(scaled, start, jac=True, method="L-BFGS-B")

    starts = itertools.product(
        y.max() + u.min() * np.array([0.3, 0.7, 1.0, 1.5]), (0.3, 0.8, 1.5), y.min() - np.array([0.1, 1, 4])
    )
    best = min((descend(start, np.ones(len(u))) for start in starts), key=lambda found: found.fun)
    counts = rng.multinomial(len(u), np.full(len(u), 1 / len(u)), size=RESAMPLES)
    draws = [descend(best.x, weight.astype(float)).x[1] for weight in counts]
    low, high = np.quantile(draws, [0.025, 0.975])
    log_a, exponent, log_e = best.x
    return Found((low, high), lambda at: float(np.exp(np.logaddexp(log_a - exponent * np.log(at), log_e))))


def by_bnsl(n, risks, model, rng):
    """A broken neural scaling law with one break."""
    del model, rng
    u, y = np.log(n), np.log(np.abs(risks.mean(axis=1)))

    def log_curve(u, log_a, log_b, c0, c1, log_d, log_f):
        f = np.exp(log_f)
        return np.logaddexp(log_a, log_b - c0 * u - c1 * f * np.logaddexp(0.0, (u - log_d) / f))

    slope, constant = np.polyfit(u, y, 1)
    grid = itertools.product(
        (y.min() - 1, y.min() - 5), (-slope, -1.5 * slope), (-0.5, 0.1, 0.5), np.quantile(u, [0.25, 0.5, 0.75])
    )
    starts = [(a, constant + (c0 + slope) * u.mean(), c0, c1, d, -0.7) for a, c0, c1, d in grid]
    start = min(starts, key=lambda theta: ((log_curve(u, *theta) - y) ** 2).sum())
    theta, covariance = curve_fit(log_curve, u, y, start, maxfev=20_000)
    error = np.sqrt(covariance[2, 2] + covariance[3, 3] + 2 * covariance[2, 3])
    reach = t.ppf(0.975, len(n) - len(theta)) * error
    exponent = theta[2] + theta[3]
    return Found((exponent - reach, exponent + reach), lambda at: float(np.exp(log_curve(np.log(at), *theta))))


def by_restarts(curve, draw):
    """Least squares of the means from random starts; the best of them."""

    def fit(n, risks, model, rng):
        del model
        mean = risks.mean(axis=1)
        found = []
        for _ in range(RESTARTS):
            try:
                found.append(
                    least_squares(
                        lambda p: curve(n, *p) - mean, draw(rng, n, mean), method="lm", x_scale="jac", max_nfev=200
                    )
                )
            except ValueError:
                # The residuals at this start are not finite.
                continue
        best = min(found, key=lambda one: one.cost)
        return Found(None, lambda at: float(curve(at, *best.x)))

    return fit


def _pow4(n, a, b, c, d):
    return a * np.maximum(n + d, 1e-9) ** -b + c


def _mmf4(n, a, b, c, d):
    return (a * b + c * n**d) / (b + n**d)


METHODS: dict[str, Callable[..., Found]] = {
    "tsjax": ours,
    "curve_fit": by_curve_fit,
    "log OLS": by_log_ols("nonrobust"),
    "log HC3": by_log_ols("HC3"),
    "chinchilla": by_chinchilla,
    "BNSL": by_bnsl,
    "pow4": by_restarts(
        _pow4,
        lambda rng, n, y: (
            y[0] * n[0] ** 0.7 * rng.lognormal(),
            rng.uniform(0.1, 2),
            y[-1] * rng.random(),
            n[0] * rng.random(),
        ),
    ),
    "mmf4": by_restarts(
        _mmf4,
        lambda rng, n, y: (
            y[0] * rng.lognormal(0, 0.5),
            n[0] * rng.lognormal(),
            y[-1] * rng.random(),
            rng.uniform(0.3, 2),
        ),
    ),
}


def run(name: str, n: np.ndarray, risks: np.ndarray, model: str, rng: np.random.Generator) -> Found | None:
    """The result of a method, without its warnings; None if it gives up."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", OptimizeWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            return METHODS[name](n, risks, model, rng)
        except (RuntimeError, ValueError, np.linalg.LinAlgError):
            return None
