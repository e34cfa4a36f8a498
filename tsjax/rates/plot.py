"""A rate as a figure."""

from typing import Any

import numpy as np

from .intervals import student_quantile
from .losses import is_typical

# Blue and vermilion of Okabe and Ito, for colour-blind readers; in grey, dashes and markers differ.
_MEASURED, _FITTED = "#0072B2", "#D55E00"


def plot_rate(rate: Any, axes: np.ndarray | None = None) -> np.ndarray:
    """Curve, residuals and local exponents of a fit in three panels; see `Rate.plot`.

    `rate` is a `Rate`; it is annotated as Any because the module of `Rate` imports this one.
    """
    import matplotlib.pyplot as plt

    if axes is None:
        _, axes = plt.subplots(3, 1, figsize=(5.0, 7.0), height_ratios=(3, 1, 1.5), sharex=True, layout="constrained")
    axes = np.asarray(axes)
    if axes.shape != (3,):
        raise ValueError(f"axes must be three matplotlib axes (curve, residuals, local exponents), got {axes.shape}.")
    curve, residuals, local = axes
    n, y = rate.n, np.exp(rate.log_risk)
    t = student_quantile(max(rate.effective_seeds, 2.0), rate.level)
    errors = rate.mean_se / rate.mean_risk if rate.errors == "seeds" else np.sqrt(rate.variance)
    error = np.where(np.isfinite(errors), t * errors, 0.0)
    fine = np.geomspace(n[0], n[-1], 100)
    fit, low, high = rate.predict(fine)
    curve.errorbar(
        n, y, yerr=[y - y * np.exp(-error), y * np.exp(error) - y], fmt="o", ms=4, capsize=2, color=_MEASURED
    )
    curve.plot(fine, fit, color=_FITTED, ls="--", label=f"{rate.model.formula}: {str(rate).split(' over')[0]}")
    if np.isfinite(low).all() and np.isfinite(high).all():
        curve.fill_between(fine, low, high, color=_FITTED, alpha=0.25, lw=0)
    curve.set(xscale="log", yscale="log", ylabel="typical risk" if is_typical(rate.method) else "mean risk")
    curve.legend(frameon=False, fontsize="small")
    residuals.axhline(0.0, color="0.6", lw=1)
    residuals.errorbar(n, rate.residuals, yerr=error, fmt="o", ms=4, capsize=2, color=_MEASURED)
    residuals.set(ylabel="log residual")
    middle = np.sqrt(n[1:] * n[:-1])
    ends = rate.local_intervals
    if np.isfinite(ends).all():
        local.fill_between(middle, ends[:, 0], ends[:, 1], color=_MEASURED, alpha=0.25, lw=0)
    local.plot(middle, rate.local_slopes, "o-", ms=4, color=_MEASURED)
    local.axhline(rate.exponent, color=_FITTED, ls="--")
    local.set(xlabel="n", ylabel="local exponent")
    return axes
