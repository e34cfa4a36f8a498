"""Models of a risk curve, log y = f(log x; theta), and their batched fits.

A model is one class: names of its parameters, its log curve with the derivatives in them, and where a fit may start. Add
it to `MODELS` and it is fitted, compared, resampled, extrapolated and understood by sweep files. theta[0] is the log of the
constant, theta[1] the exponent of the power law that the model tends to.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np

Method: TypeAlias = Literal["wls", "gamma", "student"]


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
        """Some parameters (starts, p) near which the best fit to log_y (k,) may lie; one exact solution when the model is
        linear in theta."""

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
        return solve_linear(np.stack([np.ones(len(x)), -np.log(x)], axis=-1), log_y, weight)[None]

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
        return solve_linear(self.evaluate(np.zeros(3), x)[1], log_y, weight)[None]

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

    def starts(self, x, log_y, weight):
        columns, found = np.stack([np.ones(len(x)), -np.log(x)], axis=-1), []
        y = np.exp(log_y)
        for share in (-0.3, 0.0, 0.3, 0.6, 0.9):
            floor = share * y.min()
            found.append([*solve_linear(columns, np.log(y - floor), weight), floor])
        return np.array(found)


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

    def starts(self, x, log_y, weight):
        columns, found = np.stack([np.ones(len(x)), -np.log(x)], axis=-1), []
        for c in np.array([-0.5, 0.0, 0.3, 1.0, 4.0]) * x[0]:
            found.append([*solve_linear(columns, log_y - np.log1p(c / x), weight), c / self.scale])
        return np.array(found)


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

    def starts(self, x, log_y, weight):
        u, found = np.log(x), []
        for at in np.linspace(u[0], u[-1], 2 * len(u) + 1)[2:-2]:
            bend = self.width * np.logaddexp(0.0, (at - u) / self.width)
            found.append([*solve_linear(np.stack([np.ones(len(u)), -u, bend], axis=-1), log_y, weight), at])
        return np.array(found)


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


def solve_linear(columns: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted least squares theta (..., p) of target (..., k) on columns (k, p), columns[:, 0] = 1. Batched.

    Columns are centred at their weighted means first, so that a power law on a narrow window loses no digits.
    """
    w = weight / weight.sum(axis=-1, keepdims=True)
    centre = w @ columns[:, 1:]
    middle = (w * target).sum(axis=-1)
    if columns.shape[1] == 2:
        # The exponent of a power law: no matrices, which matters for thousands of resamples.
        d = columns[:, 1] - centre
        wd = w * d
        slope = ((wd * (target - middle[..., None])).sum(axis=-1) / (wd * d).sum(axis=-1))[..., None]
    else:
        d = columns[:, 1:] - centre[..., None, :]
        wd = w[..., None] * d
        matrix = np.swapaxes(wd, -1, -2) @ d
        right = (wd * (target - middle[..., None])[..., None]).sum(axis=-2)
        slope = _solve(matrix, right, np.zeros(matrix.shape[:-2]))
    return np.concatenate([(middle - (centre * slope).sum(axis=-1))[..., None], slope], axis=-1)


def fit_model(
    model: AbstractModel,
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    method: Method,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """theta (..., p) and the minimised loss (...) of each curve in target (..., k) with weights (..., k).

    Loss, with r = target - log y: sum w r^2 / 2 (`wls`, `student`), or sum w (e^r - 1 - r) (`gamma`: minus the
    log-likelihood of gamma risks with a common shape, where w counts risks; it depends on their means alone).
    Without `start`, one curve (k,) is fitted from all `model.starts`. Curves with NaN give NaN.
    """
    p = len(model.parameters)
    if model.linear and method != "gamma":
        # What a linear model adds to columns @ theta does not depend on theta.
        offset, columns = model.evaluate(np.zeros(p), x)
        with np.errstate(invalid="ignore"):
            theta = solve_linear(columns, target - offset, weight)
            return theta, np.asarray(0.5 * (weight * (target - model.evaluate(theta, x)[0]) ** 2).sum(axis=-1))
    if start is None:
        starts = model.starts(x, target, weight)
        shape = (len(starts), len(x))
        theta, loss = _minimise(
            model, x, np.broadcast_to(target, shape), np.broadcast_to(weight, shape), method, starts
        )
        best = int(np.argmin(np.where(np.isfinite(loss), loss, np.inf)))
        return theta[best], np.asarray(loss[best])
    batch = target.shape[:-1]
    flat = (-1, len(x))
    theta = np.broadcast_to(start, (*batch, p)).reshape(-1, p)
    theta, loss = _minimise(model, x, target.reshape(flat), weight.reshape(flat), method, theta)
    theta[~np.isfinite(loss)] = np.nan
    return theta.reshape(*batch, p), loss.reshape(batch)


def _loss(residual: np.ndarray, weight: np.ndarray, method: Method) -> tuple[np.ndarray, np.ndarray]:
    """The loss (...), and minus its derivative in log y (..., k)."""
    if method == "gamma":
        with np.errstate(over="ignore", invalid="ignore"):
            first = np.expm1(residual)
            return (weight * (first - residual)).sum(axis=-1), weight * first
    with np.errstate(over="ignore", invalid="ignore"):
        return 0.5 * (weight * residual**2).sum(axis=-1), weight * residual


# Steps of Levenberg and Marquardt; all shipped models need 5 to 30. The damping's first value.
_STEPS, _DAMPING = 100, 1e-2


def _minimise(model, x, target, weight, method: Method, theta) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt on all curves (batch, k) at once, with Fisher's matrix J' W J and Marquardt's scaling by its
    diagonal, so that units of the parameters do not matter. A step that lowers no loss (also one to NaN) is not taken."""
    theta = np.array(theta, dtype=float)
    log_y, jacobian = model.evaluate(theta, x)
    loss, residual = _loss(target - log_y, weight, method)
    jacobian = np.array(jacobian)
    damping, active = np.full(loss.shape, _DAMPING), np.isfinite(loss)
    for _ in range(_STEPS):
        at = np.flatnonzero(active)
        if not len(at):
            break
        J, lam, old = jacobian[at], damping[at], loss[at]
        matrix = np.swapaxes(J, -1, -2) @ (weight[at][..., None] * J)
        new = theta[at] + _solve(matrix, (J * residual[at][..., None]).sum(axis=-2), lam)
        log_y, new_jacobian = model.evaluate(new, x)
        new_loss, new_residual = _loss(target[at] - log_y, weight[at], method)
        better = new_loss < old
        took = at[better]
        theta[took], jacobian[took], residual[took] = new[better], new_jacobian[better], new_residual[better]
        loss[took] = new_loss[better]
        damping[at] = np.where(better, lam / 5.0, lam * 5.0)
        # A loss is of the order of its degrees of freedom: it is at rest when it changes by less than 1e-10 of that.
        rest = np.where(better, (old - new_loss < 1e-10 * (1e-6 + new_loss)) & (lam < 1e-3), lam > 1e8)
        active[at[rest]] = False
    return theta, loss


def _solve(matrix: np.ndarray, right: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """(M + damping diag M)^{-1} right, batched, in units where diag M = 1. A direction without curvature (the break of a
    curve that does not bend) is left alone."""
    diagonal = np.einsum("...ii->...i", matrix)
    flat = ~(diagonal > 0)
    scale = np.sqrt(np.where(flat, 1.0, diagonal))
    normal = matrix / (scale[..., :, None] * scale[..., None, :])
    normal = np.where(flat[..., :, None] | flat[..., None, :], 0.0, normal)
    eye = np.eye(matrix.shape[-1])
    normal = normal + (1e-14 + damping)[..., None, None] * eye + flat[..., None] * eye
    return np.linalg.solve(normal, np.where(flat, 0.0, right / scale)[..., None])[..., 0] / scale
