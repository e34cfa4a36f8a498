"""Errors from the scatter of the points about the fitted curve, if there are no seeds to resample.

With one run at every n, only the distances of the points from the curve show the noise. With residuals r_i of log risk,
weights w_i of mean 1, leverages h_i and k - p degrees of freedom, s^2 = sum w r^2 / (k - p) is the variance of one log
risk, if the model holds and the errors are independent and alike at all n. Resamples are made of the fitted curve and

- `residuals`: residuals r / sqrt(1 - h), centred, drawn with replacement (Davison & Hinkley 1997, section 6.2.3);
- `wild`: each residual r / (1 - h) in its own place, times a standard normal number (Wu, Annals of Statistics 14, 1986; the
  residuals of MacKinnon & White's HC3), which allows for a different variance at each n. Random signs in place of normal
  numbers would have no tails and cover too little with few points.

The variance of the exponent, sum c_i^2 s^2 with the exponent's coefficients c, has k - p degrees of freedom. The wild bootstrap
estimates each variance from one residual and has fewer: (sum c^2)^2 / sum c^4 (Satterthwaite's, as in Bell & McCaffrey, Survey
Methodology 28, 2002), at most k - p. With u units, one more than the degrees of freedom, resamples are scaled to the variance
s^2 (u - 1) / u. For a linear model with Gaussian errors, the expanded percentiles of `tsjax.rates.intervals` are then Student's
interval.
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from .linear import rows_of_fit
from .table import ROUNDING, Table

# The type admits any string, so that `find_errors` reports a wrong one and says what is allowed.
Errors: TypeAlias = Literal["auto", "seeds", "residuals", "wild"] | str
FoundErrors: TypeAlias = Literal["seeds", "residuals", "wild"]
# The name of each kind of interval, as printed beside a number.
KINDS = {"seeds": "seeds resampled", "residuals": "residual bootstrap", "wild": "wild bootstrap"}


class Scatter(NamedTuple):
    """Estimates from residuals: the `variance` (k,) of each log risk, the degrees of `freedom` of the exponent's error, the
    residuals corrected for their leverage, `standard` (k,), the standard `error` of the exponent, and the exponent without each
    point, `left_out` (k,)."""

    variance: np.ndarray
    freedom: float
    standard: np.ndarray
    error: float
    left_out: np.ndarray


def find_errors(errors: Errors, table: Table) -> FoundErrors:
    """The source of intervals: `auto` is residuals if no n has more than one seed, and seeds otherwise. Raises ValueError for
    an unknown name."""
    if errors == "auto":
        return "residuals" if table.units_present.max() == 1 else "seeds"
    if errors in ("seeds", "residuals", "wild"):
        return errors
    raise ValueError(f"no errors {errors!r}. Allowed: auto, seeds, residuals, wild.")


def scatter_of(
    exponent: float,
    residuals: np.ndarray,
    jacobian: np.ndarray,
    weights: np.ndarray,
    errors: FoundErrors,
    gradient: np.ndarray,
) -> Scatter:
    """The scatter of the points about a fit with derivatives `jacobian` (k, p); `gradient` (p,) is the derivative of the
    exponent in the parameters."""
    k, p = jacobian.shape
    w = weights / weights.mean()
    rows = rows_of_fit(jacobian, weights)
    own = gradient @ rows
    leverage = np.einsum("kp,pk->k", jacobian, rows)
    free = np.maximum(1.0 - leverage, 1e-6)
    r = np.where(np.abs(residuals) < ROUNDING, 0.0, residuals)
    standard = r / (free if errors == "wild" else np.sqrt(free))
    if k - p < 1:
        return Scatter(np.ones(k) / w, 0.0, standard, np.inf, np.full(k, exponent))
    variance = (w * r**2).sum() / (k - p) / w
    parts = own**2 / w
    freedom = min(k - p, float(parts.sum() ** 2 / (parts**2).sum())) if errors == "wild" else float(k - p)
    error = float(np.sqrt((own**2 * (standard**2 if errors == "wild" else variance)).sum()))
    return Scatter(variance, freedom, standard, error, exponent - own * r / free)


def residual_draws(
    fitted: np.ndarray, scatter: Scatter, weights: np.ndarray, errors: FoundErrors, draws: int, seed: int
) -> np.ndarray:
    """Resampled curves of log risk (draws, k) about the fitted one (k,)."""
    k, s = len(fitted), scatter.freedom + 1.0
    random = np.random.default_rng(seed)
    if scatter.freedom <= 0:
        return np.tile(fitted, (draws, 1))
    shrink = np.sqrt((s - 1.0) / s)
    if errors == "wild":
        return fitted + shrink * scatter.standard * random.normal(size=(draws, k))
    root = np.sqrt(weights / weights.mean())
    e = root * scatter.standard
    e = e - e.mean()
    square, wanted = (e**2).mean(), (root**2 * scatter.variance).mean()
    e = e * shrink * np.sqrt(wanted / square) if square > 0 else e
    return fitted + e[random.integers(k, size=(draws, k))] / root


def lack_of_fit(residuals: np.ndarray, jacobian: np.ndarray, weights: np.ndarray, columns: np.ndarray) -> float:
    """p-value of "the model holds", by the F test of further `columns` (k, q) beside the model's derivatives (k, p), with
    k - p - q degrees of freedom. Columns that depend linearly on the model's or on each other do not count; NaN if no column,
    or no degree of freedom, remains."""
    from scipy.special import fdtrc

    k, p = jacobian.shape
    root = np.sqrt(weights / weights.mean())
    basis = _orthonormal(jacobian * root[:, None])
    more = columns * root[:, None]
    size = np.sqrt((more**2).sum(axis=0))
    more = more / np.where(size > 0, size, 1.0)
    left_side, values, _ = np.linalg.svd(more - basis @ (basis.T @ more), full_matrices=False)
    more = left_side[:, values > 1e-8]
    q = more.shape[1]
    if q == 0 or k - p - q < 1:
        return float("nan")
    e = root * residuals
    e = e - basis @ (basis.T @ e)
    explained = float(((more.T @ e) ** 2).sum())
    left = float((e**2).sum()) - explained
    if left <= k * ROUNDING**2:
        return float("nan")
    return float(fdtrc(q, k - p - q, explained / q / (left / (k - p - q))))


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    size = np.sqrt((columns**2).sum(axis=0))
    return np.linalg.qr(columns / np.where(size > 0, size, 1.0))[0]
