"""The base class of models of a risk curve, `AbstractModel`, and functions that the models share."""

import abc
from typing import ClassVar

import numpy as np

from .linear import solve_linear


class AbstractModel(abc.ABC):
    """A curve with parameters theta (..., p) on x (k,).

    - `name`: its name in sweep files and on the command line. `formula`: its formula as text.
    - `parameters`: their names; the first is `log_constant`.
    - `meaning`: which exponent it is, as a phrase.
    - `asymptotic`: whether that exponent is the limit of the local exponent (of the curve, or of its part above a floor).
    """

    name: str
    formula: str
    parameters: tuple[str, ...]
    meaning: str = "the exponent of the curve in the limit of large n"
    asymptotic: ClassVar[bool] = True

    @abc.abstractmethod
    def evaluate(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log y (..., k) and its derivatives in theta (..., k, p); NaN where y would not be positive."""

    @abc.abstractmethod
    def starts(self, x: np.ndarray, log_y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Parameters (curves, *grid, p) near which the best fits to log_y (curves, k) may lie: the least-squares solutions for
        each value of the nonlinear parameters on a grid, with one axis for each parameter; NaN where no start is to be tried.
        If the model is linear in theta, this is the one exact solution."""

    def curve(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """log y (..., k) alone, without the memory that derivatives would take."""
        return self.evaluate(theta, x)[0]

    def limits(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest theta (p,) that are fitted. Beyond them the curve on x no longer changes."""
        del x
        open_end = np.full(len(self.parameters), np.inf)
        return -open_end, open_end

    def exponents(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The exponent (...) of theta (..., p): -inf or inf if the fit lies at a limit of the model, so that the curve on x
        would be the same for every smaller or larger exponent."""
        del x
        return theta[..., 1]

    def exponent_gradient(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The derivative (p,) of the exponent in theta (p,), for its standard error."""
        del theta, x
        return np.eye(len(self.parameters))[1]

    @property
    def linear(self) -> bool:
        """Whether log y is linear in theta, so that a weighted fit is one linear solve."""
        return False

    def check(self, x: np.ndarray) -> None:
        """Raises ValueError if the model cannot be fitted on these x."""
        least = len(self.parameters)
        if len(x) < least:
            raise ValueError(
                f"the model {self.name!r} has {least} parameters and needs as many different n, got {len(x)}. "
                "Widen the window or choose a simpler model."
            )


# If a power falls by the factor e^-VANISHED between the first two n, the data only show that its exponent is large.
VANISHED = np.log(1e4)
# The share of a flat curve that is assigned to its power.
FLAT = 1e-9


def line(x: np.ndarray) -> np.ndarray:
    """The columns (k, 2) of a power law: 1 and -log x."""
    return np.stack([np.ones(len(x)), -np.log(x)], axis=-1)


def above_floor(log_constant: np.ndarray, log_shape: np.ndarray, floor: np.ndarray, slopes: np.ndarray):
    """log y (..., k) of y = C g + F, with log C and F (..., 1) and log g (..., k), and its derivatives in log C, the
    parameters of g, and F, where `slopes` (..., k, q) are the derivatives of log g. NaN where y would not be positive."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        part = np.exp(log_constant + log_shape)
        y = part + floor
        y = np.where(y > 0, y, np.nan)
        share = (part / y)[..., None]
        return np.log(y), np.concatenate([share, slopes * share, 1.0 / y[..., None]], axis=-1)


def solve_floor(log_shape: np.ndarray, log_y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log C and F (curves, g) of the least squares y = C g + F for given shapes log g (g, k): relative errors y / f - 1 are
    linear in C and F, and for small ones they are log residuals. C must be positive: it is NaN for a shape that runs against
    the curve, and nearly 0 for all shapes if none runs with it."""
    # In units of the largest value on x, which neither overflows nor underflows.
    top = log_shape.max(axis=1)
    shape = np.exp(log_shape - top[:, None])
    scale = log_y.max(axis=-1, keepdims=True)
    y = np.exp(log_y - scale)
    v = weight / y**2
    v = v / v.sum(axis=-1, keepdims=True)
    middle, centre = (v * y).sum(axis=-1)[:, None], v @ shape.T
    square = v @ (shape**2).T - centre**2
    constant = ((v * y) @ shape.T - middle * centre) / square
    # If no shape runs with the curve, a flat curve fits best, with any shape.
    flat = FLAT * middle / shape.max(axis=1)
    constant = np.where(constant > 0, constant, np.where((constant > 0).any(axis=-1, keepdims=True), np.nan, flat))
    return np.log(constant) - top + scale, (middle - constant * centre) * np.exp(scale)


def vanished(log_constant: np.ndarray, log_shape: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Whether C g, with log C and F (..., 1) and log g (..., k), is too small a part of the curve to have an exponent (...), as
    on a flat curve."""
    with np.errstate(divide="ignore", invalid="ignore"):
        largest = (log_constant + log_shape).max(axis=-1)
        return np.asarray(largest < np.log(1e3 * FLAT * np.abs(floor[..., 0])))


def grid_of(*axes: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values of each axis at every point of their grid, flattened."""
    return tuple(axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))


def starts_above_floor(
    log_shape: np.ndarray, log_y: np.ndarray, weight: np.ndarray, values: tuple[np.ndarray, ...], grid: tuple[int, ...]
) -> np.ndarray:
    """Starts (curves, *grid, p) of y = C g + F, for shapes (g, k) at flattened `values` of their parameters."""
    log_constant, floor = solve_floor(log_shape, log_y, weight)
    inner = [np.broadcast_to(value, floor.shape) for value in values]
    return np.stack([log_constant, *inner, floor], axis=-1).reshape(len(log_y), *grid, -1)


def solve_offsets(offsets: np.ndarray, columns: np.ndarray, log_y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """theta (curves, g, q) of the least squares log y = offset + columns @ theta for each of the offsets (g, k)."""
    return solve_linear(columns, log_y[:, None, :] - offsets, weight[:, None, :])


def lowest_around(loss: np.ndarray) -> np.ndarray:
    """Whether a loss (curves, *grid) is no higher than that of its neighbours along every axis of the grid."""
    found = np.ones(loss.shape, bool)
    for axis in range(1, loss.ndim):
        one = np.moveaxis(loss, axis, -1)
        padded = np.pad(one, [(0, 0)] * (one.ndim - 1) + [(1, 1)], constant_values=np.inf)
        found &= np.moveaxis((one <= padded[..., :-2]) & (one <= padded[..., 2:]), -1, axis)
    return found
