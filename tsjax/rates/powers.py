"""The sum of two powers, log L = log(E + A N^{-a} + B D^{-b}), as a model that `tsjax.rates.fitting` fits."""

from dataclasses import dataclass

import numpy as np

from .model import FLAT, VANISHED, AbstractModel, lowest_around


@dataclass(frozen=True)
class SumOfPowers(AbstractModel):
    """L = E + A N^{-a} + B D^{-b} on points x (k, 2) = (N, D), with A, B, a, b > 0. The fitted E may be negative; if its
    interval contains 0, the data show no floor. Without `floor`, E = 0.

    Given a and b, relative errors L / f - 1 are linear in E, A and B. Starts are therefore the least-squares solutions with A,
    B >= 0 on a grid of exponents (variable projection, Golub & Pereyra 1973). From the lowest valleys of the fit's own loss the
    fit then descends in all parameters at once, since log loss is linear in none of them.
    """

    floor: bool = True
    name = "surface"
    formula = "E + A N^-a + B D^-b"
    parameters = ("log_A", "a", "log_B", "b", "E")

    def __post_init__(self):
        if not self.floor:
            object.__setattr__(self, "formula", "A N^-a + B D^-b")
            object.__setattr__(self, "parameters", SumOfPowers.parameters[:4])

    def _powers(self, theta, x):
        u = np.log(x)
        return tuple(np.exp(theta[..., i : i + 1] - theta[..., i + 1 : i + 2] * u[:, i // 2]) for i in (0, 2))

    def evaluate(self, theta, x):
        u = np.log(x)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            first, second = self._powers(theta, x)
            y = first + second + (theta[..., 4:5] if self.floor else 0.0)
            y = np.where(y > 0, y, np.nan)
            first, second = first / y, second / y
            columns = [first, -u[:, 0] * first, second, -u[:, 1] * second, *([1.0 / y] if self.floor else [])]
            return np.log(y), np.stack(columns, axis=-1)

    def curve(self, theta, x):
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            first, second = self._powers(theta, x)
            first += second
            if self.floor:
                first += theta[..., 4:5]
            return np.log(np.where(first > 0, first, np.nan))

    def limits(self, x):
        low, high = np.array([_limits_of(np.log(column)) for column in x.T]).T
        least = np.array([-np.inf, low[0], -np.inf, low[1], -np.inf])
        most = np.array([np.inf, high[0], np.inf, high[1], np.inf])
        count = len(self.parameters)
        return least[:count], most[:count]

    def exponents_of(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Both exponents (..., 2): inf or -inf if the fit lies at a limit, so that the exponent is not bounded on that side, or
        if its power is too small a part of the loss to have an exponent."""
        low, high = self.limits(x)
        powers = np.stack([power.max(axis=-1) for power in self._powers(theta, x)], axis=-1)
        flat = powers < 1e3 * FLAT * np.exp(self.curve(theta, x).max(axis=-1))[..., None]
        found = theta[..., 1:4:2]
        return np.where((found >= high[1:4:2]) | flat, np.inf, np.where(found <= low[1:4:2], -np.inf, found))

    def starts(self, x, log_y, weight):
        low, high = self.limits(x)
        # The grid is as fine as the valleys are wide: a descent bridges a factor of two.
        a, b = (np.geomspace(max(0.05, 2.0 * low[i]), max(0.5 * high[i], 0.5), 10) for i in (1, 3))
        u = np.log(x)
        # In units of the largest power on x.
        logs = [-grid[:, None] * u[:, i] for i, grid in enumerate((a, b))]
        top = [one.max(axis=1) for one in logs]
        first, second = (np.exp(one - most[:, None]) for one, most in zip(logs, top, strict=True))
        scale = log_y.max(axis=-1, keepdims=True)
        y = np.exp(log_y - scale)
        v = weight / y**2
        v = v / v.sum(axis=-1, keepdims=True)
        # Moments of the powers and of y, (curves, grid of a, grid of b), about their means if there is a floor.
        mean, pair = (v * y).sum(axis=-1)[:, None, None], (first[:, None] * second).reshape(-1, len(x))
        means = [(v @ first.T)[:, :, None], (v @ second.T)[:, None, :]]
        p, q, middle = (*means, mean) if self.floor else (0.0, 0.0, 0.0)
        pp, qq = (v @ (first**2).T)[:, :, None] - p**2, (v @ (second**2).T)[:, None, :] - q**2
        py, qy = ((v * y) @ first.T)[:, :, None] - middle * p, ((v * y) @ second.T)[:, None, :] - middle * q
        pq = (v @ pair.T).reshape(-1, len(a), len(b)) - p * q
        with np.errstate(divide="ignore", invalid="ignore"):
            free = pp * qq - pq**2
            both = (py * qq - qy * pq) / free, (qy * pp - py * pq) / free
            # A coefficient that would be negative is set to 0, and the other one is fitted alone if that helps.
            inside = (both[0] > 0) & (both[1] > 0)
            alone = (py > 0) & ((qy <= 0) | (py**2 / pp >= qy**2 / qq))
            one = np.where(alone, py / pp, 0.0), np.where(alone, 0.0, qy / qq)
        coefficients = [np.maximum(np.where(inside, *pair), FLAT * mean) for pair in zip(both, one, strict=True)]
        constants = [np.log(each) + scale[..., None] for each in coefficients]
        # Each curve is evaluated, in the fit's own loss, in the valleys of these squares only.
        valley = lowest_around(-coefficients[0] * py - coefficients[1] * qy)
        parts = [constants[0] - top[0][:, None], a[:, None], constants[1] - top[1], b]
        if self.floor:
            parts.append((middle - coefficients[0] * p - coefficients[1] * q) * np.exp(scale)[..., None])
        found = np.stack([np.broadcast_to(part, valley.shape) for part in parts], axis=-1)
        return np.where(valley[..., None], found, np.nan)


def _limits_of(u: np.ndarray) -> tuple[float, float]:
    """The limits of an exponent. With the least one the power is a straight line in u up to 1 % of its change; with the largest
    it vanishes between the first two values that lie a twentieth of the range apart."""
    ordered = np.unique(u)
    width = ordered[-1] - ordered[0]
    step = ordered[ordered - ordered[0] >= 0.05 * width][0] - ordered[0]
    return 0.02 / width, float(VANISHED / step)
