"""Models of a risk curve, log y = f(log x; theta).

A model is one class: the names of its parameters, its log curve with derivatives in the parameters, starts of a fit, and limits
of the parameters. Once it is in `MODELS`, it can be fitted, compared, resampled, extrapolated and named in sweep files.
theta[0] is the log of the constant. The exponent, `AbstractModel.exponents`, is theta[1] unless the model overrides it. Curves
with a plateau are in `tsjax.rates.saturating`, those with breaks in `tsjax.rates.breaks`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .breaks import Broken as Broken
from .breaks import BrokenScaling as BrokenScaling
from .linear import solve_linear
from .losses import Method as Method
from .model import VANISHED, above_floor, line, solve_offsets, starts_above_floor, vanished
from .model import AbstractModel as AbstractModel
from .saturating import Exponential as Exponential
from .saturating import Logistic as Logistic
from .saturating import MorganMercerFlodin as MorganMercerFlodin
from .saturating import ShiftedPower as ShiftedPower
from .saturating import Weibull as Weibull


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
        return solve_linear(line(x), log_y, weight)[:, None, :]

    @property
    def linear(self):
        return True


@dataclass(frozen=True)
class LogFactor(AbstractModel):
    """y = C x^{-a} (log x)^q with q known, x > 1, for rates up to logarithms; q = 1 by default, as in (log n)/n."""

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
    """y = C x^{-a} (log x)^q with q unknown, x > 1. log x and log log x are nearly collinear on a usual window, so the data
    hardly separate a from q; if theory gives q, use `LogFactor`."""

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
    """y = C x^{-a} + F. The fitted F may be negative; if its interval contains 0, the data show no floor."""

    name = "floor"
    formula = "C n^-a + F"
    parameters = ("log_constant", "exponent", "floor")
    meaning = "the exponent of the part above the floor"

    def evaluate(self, theta, x):
        log_shape, slopes = self._shape(theta, x)
        return above_floor(theta[..., :1], log_shape, theta[..., 2:], slopes)

    def _shape(self, theta, x):
        log_shape = -theta[..., 1:2] * np.log(x)
        return log_shape, np.broadcast_to(-np.log(x)[:, None], (*log_shape.shape, 1))

    def limits(self, x):
        # At a limit the power has all but vanished between two neighbouring n, and cannot be seen against the floor at the
        # others.
        low, high = -VANISHED / np.log(x[-1] / x[-2]), VANISHED / np.log(x[1] / x[0])
        return np.array([-np.inf, low, -np.inf]), np.array([np.inf, high, np.inf])

    def exponents(self, theta, x):
        low, high = (end[1] for end in self.limits(x))
        a = theta[..., 1]
        flat = vanished(theta[..., :1], self._shape(theta, x)[0], theta[..., 2:])
        return np.where((a >= high) | (flat & (a > 0)), np.inf, np.where((a <= low) | flat, -np.inf, a))

    def starts(self, x, log_y, weight):
        low, high = (end[1] for end in self.limits(x))
        exponents = np.concatenate([-np.geomspace(-low, 0.02, 10), np.geomspace(0.02, high, 30)])
        return starts_above_floor(-exponents[:, None] * np.log(x), log_y, weight, (exponents,), (len(exponents),))


@dataclass(frozen=True)
class FiniteSample(AbstractModel):
    """y = C x^{-a} (1 + c p / x): an efficient estimator of p parameters before it is asymptotic (for students, risk over the
    Cramér-Rao limit is about 1 + c m d / n). `scale` is p, the unit of c. Raises ValueError unless it is finite and
    positive."""

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
        # Below the lower limit the risk at the first n would not be positive; above the upper one c p / x makes up the whole
        # factor.
        low, high = -0.999 * x[0] / self.scale, 1e3 * x[-1] / self.scale
        return np.array([-np.inf, -np.inf, low]), np.array([np.inf, np.inf, high])

    def starts(self, x, log_y, weight):
        low, high = (end[2] for end in self.limits(x))
        c = np.concatenate([low * np.geomspace(1.0, 0.05, 10), [0.0], np.geomspace(0.05 * x[0] / self.scale, high, 24)])
        theta = solve_offsets(np.log1p(c[:, None] * self.scale / x), line(x), log_y, weight)
        return np.concatenate([theta, np.broadcast_to(c[:, None], (*theta.shape[:-1], 1))], axis=-1)


# A new model takes one line here.
MODELS: dict[str, Callable[[], AbstractModel]] = {
    model().name: model
    for model in (
        *(PowerLaw, Floor, FiniteSample, LogFactor, LogPower, Broken),
        *(Logistic, Exponential, ShiftedPower, MorganMercerFlodin, Weibull, BrokenScaling),
    )
}


def find_model(model: str | AbstractModel) -> AbstractModel:
    """A model by its name, or the model itself. Raises ValueError for an unknown name."""
    if isinstance(model, AbstractModel):
        return model
    if model not in MODELS:
        raise ValueError(f"no model {model!r}. Allowed: {', '.join(MODELS)}.")
    return MODELS[model]()
