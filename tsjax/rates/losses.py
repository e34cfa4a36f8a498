"""Losses of a fit: squared log residuals, the gamma likelihood and Huber's loss, and their names.

With r = log y - log f and weights w, the loss is the sum over the points of

- `wls` and `student_t`: w r^2 / 2;
- `gamma`: w (e^r - 1 - r), minus the log-likelihood of gamma risks with a common shape, where w counts risks;
- `Huber(delta)`: w r^2 / 2 where |r| <= delta, and w delta (|r| - delta / 2) beyond (Huber, Annals of Mathematical
  Statistics 35, 1964).
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np


@dataclass(frozen=True)
class Huber:
    """Huber's loss of log residuals: squares up to `delta`, absolute values beyond, so that a point far from the curve has a
    bounded influence. `delta` is on the scale of log risk: 0.05 is 5 %.

    The default is that of Hoffmann et al. (2022, "Training compute-optimal large language models", section D.2). It is
    below the scatter of most curves, where the fit is almost that of least absolute deviations.

    Raises ValueError unless `delta` is finite and positive.
    """

    delta: float = 1e-3

    def __post_init__(self):
        if not 0.0 < self.delta < np.inf:
            raise ValueError(
                f"delta of Huber's loss is a distance in log risk, finite and positive; got {self.delta:g}."
            )

    def __str__(self) -> str:
        return f"huber, delta = {self.delta:g}"


# The type admits any string, so that `find_method` reports a wrong one and says what is allowed.
Method: TypeAlias = Literal["wls", "gamma", "student_t", "huber"] | str | Huber
# A method inside the package, after its name has been checked.
FoundMethod: TypeAlias = Literal["wls", "gamma", "student_t"] | Huber


def find_method(method: Method) -> FoundMethod:
    """A method by its name; `huber` is `Huber()`. Raises ValueError for an unknown name."""
    if isinstance(method, Huber):
        return method
    if method == "huber":
        return Huber()
    if method in ("wls", "gamma", "student_t"):
        return method
    renamed = " Student's t is called 'student_t' now." if method == "student" else ""
    raise ValueError(f"no method {method!r}.{renamed} Allowed: wls, gamma, student_t, huber, or Huber(delta).")


def is_typical(method: Method) -> bool:
    """Whether the method fits the typical risk at each n rather than the mean."""
    return method == "student_t"


def loss_of(residual: np.ndarray, weight: np.ndarray, method: FoundMethod) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The loss (...), minus its derivative in log f (..., k), and the weights (..., k) of the matrix J' W J of a Gauss-Newton
    step: those of Fisher's information, or of iterated reweighting."""
    with np.errstate(over="ignore", invalid="ignore"):
        if method == "gamma":
            first = np.expm1(residual)
            return (weight * (first - residual)).sum(axis=-1), weight * first, weight
        if isinstance(method, Huber):
            size = np.abs(residual)
            pull = weight * np.minimum(1.0, method.delta / np.maximum(size, method.delta))
            inside = np.minimum(size, method.delta)
            return (weight * inside * (size - 0.5 * inside)).sum(axis=-1), pull * residual, pull
        return 0.5 * (weight * residual**2).sum(axis=-1), weight * residual, weight
