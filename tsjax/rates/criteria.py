"""AICc and BIC of fits, with variances of log risks that are known from seeds or estimated from residuals."""

import numpy as np

from .fitted import Rate
from .residuals import FoundErrors
from .table import ROUNDING

# Differences of AICc below this mean nothing (Burnham & Anderson 2002, section 2.6).
UNDECIDED = 2.0


def needed_points(parameters: int, errors: FoundErrors) -> int:
    """How many n the correction of AICc needs."""
    return parameters + (2 if errors == "seeds" else 3)


def criteria_of(rate: Rate) -> tuple[float, float]:
    """AICc and BIC of a fit."""
    return criteria(rate, rate.residuals, len(rate.model.parameters))


def criteria(rate: Rate, residuals: np.ndarray, p: int) -> tuple[float, float]:
    """AICc and BIC of a model of p parameters with these residuals (k,) on the curve of `rate`.

    With seeds, -2 log L is the sum of squared residuals over the variances of log risks, times (s-3)/(s-1), which corrects for
    the variances being estimated from s seeds. From residuals, it is k log(sum w r^2 / k), and the variance is one more
    parameter. With P parameters in all, AICc = -2 log L + 2 P + 2 P (P+1) / (k - P - 1) (Hurvich & Tsai, Biometrika 76, 1989)
    and BIC = -2 log L + P log k (Schwarz, Annals of Statistics 6, 1978).
    """
    k = len(residuals)
    if rate.errors == "seeds":
        s = rate.table.units_present
        shrink = np.maximum(s - 3.0, 0.5) / np.maximum(s - 1.0, 1.0)
        deviance, number = float((residuals**2 / rate.variance * shrink).sum()), p
    else:
        w = rate.weights / rate.weights.mean()
        square = max(float((w * residuals**2).sum()), k * ROUNDING**2)
        deviance, number = k * float(np.log(square / k)), p + 1
    left = k - number - 1.0
    aicc = deviance + 2.0 * number + (2.0 * number * (number + 1.0) / left if left > 0 else np.inf)
    return aicc, deviance + number * float(np.log(k))
