"""Models of a risk curve, log y = f(log x; theta).

A model is one class: names of its parameters, its log curve with the derivatives in them, where a fit may start, and where
its parameters end. Add it to `MODELS` and it is fitted, compared, resampled, extrapolated and understood by sweep files.
theta[0] is the log of the constant, theta[1] the exponent of the power law that the model tends to.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .linear import solve_linear
from .losses import Method as Method


class AbstractModel(abc.ABC):
    """A curve with parameters theta (..., p) on x (k,).

    - `name`: as sweep files and the command line call it. `formula`: how it is written.
    - `parameters`: their names; the first two are `log_constant` and `exponent`.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def evaluate(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log y (..., k) and its derivatives in theta (..., k, p); NaN where y would not be positive."""

    @abc.abstractmethod
    def starts(self, x: np.ndarray, log_y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Parameters (curves, starts, p) near which the best fits to log_y (curves, k) may lie: those with the least squares
        for each value of the nonlinear parameter on a grid, in its order. One exact solution when the model is linear in theta.
        """

    def limits(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest theta (p,) that are fitted. Beyond them the curve on x changes no more."""
        del x
        open_end = np.full(len(self.parameters), np.inf)
        return -open_end, open_end

    def exponents(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The exponent (...) of theta (..., p): -inf or inf where the fit lies at a limit that leaves it open on that side, so
        that the curve on x would be the same for every larger exponent."""
        del x
        return theta[..., 1]

    @property
    def linear(self) -> bool:
        """Whether log y is linear in theta: a weighted fit is then one linear solve."""
        return False

    def check(self, x: np.ndarray) -> None:
        """Raises ValueError when the model cannot be fitted on these x."""
        least = len(self.parameters)
        if len(x) < least:
            raise ValueError(
                f"the model {self.name!r} has {least} parameters and needs as many different n, got {len(x)}. "
                "Widen the window or choose a simpler model."
            )


@dataclass(frozen=True)
class PowerLaw(AbstractModel):
    """y = C x^{-a}."""

    name = "power"
    formula = "C n^-a"
    parameters = ("log_constant", "exponent")

    def evaluate(self, theta, x):
        u = np.log(x)
        jacobian = np.broadcast_to(np.stack([np.ones_like(u), -u], axis=-1), (*theta.shape[:-1], len(x), 2))
        return theta[..., :1] - theta[..., 1:2] * u, jacobian

    def starts(self, x, log_y, weight):
        return solve_linear(_line(x), log_y, weight)[:, None, :]

    @property
    def linear(self):
        return True


@dataclass(frozen=True)
class LogFactor(AbstractModel):
    """y = C x^{-a} (log x)^q with q known, x > 1: rates up to logarithms, (log n)/n by default."""

    q: float = 1.0
    name = "log"
    formula = "C n^-a (log n)^q, q known"
    parameters = ("log_constant", "exponent")

    def evaluate(self, theta, x):
        log_y, jacobian = PowerLaw().evaluate(theta, x)
        return log_y + self.q * np.log(np.log(x)), jacobian

    def starts(self, x, log_y, weight):
        return PowerLaw().starts(x, log_y - self.q * np.log(np.log(x)), weight)

    @property
    def linear(self):
        return True

    def check(self, x):
        _check_logarithm(self.name, x)
        AbstractModel.check(self, x)


@dataclass(frozen=True)
class LogPower(AbstractModel):
    """y = C x^{-a} (log x)^q with q unknown, x > 1. log x and log log x are nearly collinear on a usual window, so that a
    and q are known only together; where theory gives q, use `LogFactor`."""

    name = "logq"
    formula = "C n^-a (log n)^q"
    parameters = ("log_constant", "exponent", "log_power")

    def evaluate(self, theta, x):
        u = np.log(x)
        columns = np.stack([np.ones_like(u), -u, np.log(u)], axis=-1)
        return theta @ columns.T, np.broadcast_to(columns, (*theta.shape[:-1], *columns.shape))

    def starts(self, x, log_y, weight):
        return solve_linear(self.evaluate(np.zeros(3), x)[1], log_y, weight)[:, None, :]

    @property
    def linear(self):
        return True

    def check(self, x):
        _check_logarithm(self.name, x)
        AbstractModel.check(self, x)


def _check_logarithm(name: str, x: np.ndarray) -> None:
    if x[0] <= 1.0:
        raise ValueError(f"the model {name!r} takes log log n, so n must exceed 1; got {x[0]:g}. Leave it out.")


@dataclass(frozen=True)
class Floor(AbstractModel):
    """y = C x^{-a} + F. F may come out negative: an interval that contains 0 then says that there is no floor."""

    name = "floor"
    formula = "C n^-a + F"
    parameters = ("log_constant", "exponent", "floor")

    def evaluate(self, theta, x):
        u = np.log(x)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            power = np.exp(theta[..., :1] - theta[..., 1:2] * u)
            y = power + theta[..., 2:3]
            y = np.where(y > 0, y, np.nan)
            share = power / y
            return np.log(y), np.stack([share, -u * share, 1.0 / y], axis=-1)

    def limits(self, x):
        # Between two neighbouring n the power has then all but vanished: what it does at the others is lost in the floor.
        low, high = -_VANISHED / np.log(x[-1] / x[-2]), _VANISHED / np.log(x[1] / x[0])
        return np.array([-np.inf, low, -np.inf]), np.array([np.inf, high, np.inf])

    def exponents(self, theta, x):
        low, high = (end[1] for end in self.limits(x))
        a, u = theta[..., 1], np.log(x)
        # Of a flat curve the power is too small a part to have an exponent.
        largest = theta[..., 0] + np.maximum(-a * u[0], -a * u[-1])
        with np.errstate(divide="ignore"):
            vanished = largest < np.log(1e3 * _FLAT * np.abs(theta[..., 2]))
        return np.where((a >= high) | (vanished & (a > 0)), np.inf, np.where((a <= low) | vanished, -np.inf, a))

    def starts(self, x, log_y, weight):
        # For each exponent, relative errors y / f - 1 are linear in C and F, and for small ones they are log residuals.
        low, high = (end[1] for end in self.limits(x))
        exponents = np.concatenate([-np.geomspace(-low, 0.02, 10), np.geomspace(0.02, high, 30)])
        u = np.log(x)
        # In units of the largest power on x, which neither overflows nor underflows.
        log_power = -exponents[:, None] * u
        top = log_power.max(axis=1)
        power = np.exp(log_power - top[:, None])
        scale = log_y.max(axis=-1, keepdims=True)
        y = np.exp(log_y - scale)
        v = weight / y**2
        v = v / v.sum(axis=-1, keepdims=True)
        middle, centre = (v * y).sum(axis=-1)[:, None], v @ power.T
        square = v @ (power**2).T - centre**2
        constant = ((v * y) @ power.T - middle * centre) / square
        # Where no power goes with the curve, the flat one fits best, with whichever exponent.
        flat = _FLAT * middle / power.max(axis=1)
        constant = np.where(constant > 0, constant, np.where((constant > 0).any(axis=-1, keepdims=True), np.nan, flat))
        floor = middle - constant * centre
        a = np.broadcast_to(exponents, constant.shape)
        return np.stack([np.log(constant) - top + scale, a, floor * np.exp(scale)], axis=-1)


@dataclass(frozen=True)
class FiniteSample(AbstractModel):
    """y = C x^{-a} (1 + c p / x): an efficient estimator of p parameters before it is asymptotic (students: risk over the
    Cramér-Rao limit is 1 + c m d / n). `scale` is p, in whose units c is told."""

    scale: float = 1.0
    name = "finite"
    formula = "C n^-a (1 + c p/n)"
    parameters = ("log_constant", "exponent", "c")

    def __post_init__(self):
        if not 0.0 < self.scale < np.inf:
            raise ValueError(f"scale is a number of parameters, finite and positive; got {self.scale:g}.")

    def evaluate(self, theta, x):
        u, inverse = np.log(x), self.scale / x
        with np.errstate(invalid="ignore"):
            factor = 1.0 + theta[..., 2:3] * inverse
            factor = np.where(factor > 0, factor, np.nan)
        log_y = theta[..., :1] - theta[..., 1:2] * u + np.log(factor)
        ones = np.ones_like(factor)
        return log_y, np.stack([ones, -u * ones, inverse / factor], axis=-1)

    def limits(self, x):
        # Below, the first n has no risk; above, c p / x is all there is of the factor.
        low, high = -0.999 * x[0] / self.scale, 1e3 * x[-1] / self.scale
        return np.array([-np.inf, -np.inf, low]), np.array([np.inf, np.inf, high])

    def starts(self, x, log_y, weight):
        low, high = (end[2] for end in self.limits(x))
        c = np.concatenate([low * np.geomspace(1.0, 0.05, 10), [0.0], np.geomspace(0.05 * x[0] / self.scale, high, 24)])
        theta = solve_linear(_line(x), log_y[:, None, :] - np.log1p(c[:, None] * self.scale / x), weight[:, None, :])
        return np.concatenate([theta, np.broadcast_to(c[:, None], (*theta.shape[:-1], 1))], axis=-1)


@dataclass(frozen=True)
class Broken(AbstractModel):
    """A power law that changes its exponent smoothly, from a + change before the break to a after it:
    log y = log C - a u + change w softplus((b - u) / w), u = log x, b = `log_break`, w = `width` (in log x; one
    octave is log 2). Regimes; the smoothly broken power law of astronomy."""

    width: float = 0.5
    name = "broken"
    formula = "n^-(a + change) before the break, C n^-a after it"
    parameters = ("log_constant", "exponent", "change", "log_break")

    def __post_init__(self):
        if not 0.0 < self.width < np.inf:
            raise ValueError(f"width of a break is a length in log n, finite and positive; got {self.width:g}.")

    def evaluate(self, theta, x):
        u = np.log(x)
        # Without a bend the break may run away; such steps are not taken.
        with np.errstate(over="ignore", invalid="ignore"):
            away = (theta[..., 3:4] - u) / self.width
            bend = self.width * np.logaddexp(0.0, away)
            # The logistic function, without overflow.
            logistic = np.exp(-np.logaddexp(0.0, -away))
            log_y = theta[..., :1] - theta[..., 1:2] * u + theta[..., 2:3] * bend
            ones = np.ones_like(away)
            return log_y, np.stack([ones, -u * ones, bend, theta[..., 2:3] * logistic], axis=-1)

    def limits(self, x):
        # Two n at least are on either side of the break, which is what it takes for an exponent there.
        u = np.log(x)
        open_end = np.full(3, np.inf)
        return np.append(-open_end, u[1]), np.append(open_end, u[-2])

    def exponents(self, theta, x):
        # A break that would come later leaves fewer than two n after it.
        late = theta[..., 3] >= self.limits(x)[1][3]
        return np.where(late, -np.copysign(np.inf, theta[..., 2]), theta[..., 1])

    def starts(self, x, log_y, weight):
        u, (low, high) = np.log(x), (end[3] for end in self.limits(x))
        found = []
        for at in np.linspace(low, high, max(4 * (len(x) - 3) + 1, 9)):
            bend = self.width * np.logaddexp(0.0, (at - u) / self.width)
            theta = solve_linear(np.stack([np.ones(len(u)), -u, bend], axis=-1), log_y, weight)
            found.append(np.concatenate([theta, np.full((len(theta), 1), at)], axis=-1))
        return np.stack(found, axis=1)


# Where a power has fallen by e^-_VANISHED between the first two n, nothing can be told of its exponent but that it is large.
_VANISHED = np.log(1e4)
# The part of a flat curve that is called its power.
_FLAT = 1e-9


def _line(x: np.ndarray) -> np.ndarray:
    return np.stack([np.ones(len(x)), -np.log(x)], axis=-1)


# A new model joins by one line.
MODELS: dict[str, Callable[[], AbstractModel]] = {
    model.name: model for model in (PowerLaw, Floor, FiniteSample, LogFactor, LogPower, Broken)
}


def find_model(model: str | AbstractModel) -> AbstractModel:
    """A model by its name, or the model itself. Raises ValueError for a name that is none."""
    if isinstance(model, AbstractModel):
        return model
    if model not in MODELS:
        raise ValueError(f"no model {model!r}. Allowed: {', '.join(MODELS)}.")
    return MODELS[model]()
