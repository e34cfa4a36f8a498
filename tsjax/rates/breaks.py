"""Models of a curve whose exponent changes: `Broken` has one break of given width, `BrokenScaling` up to three of free
widths."""

from dataclasses import dataclass, field

import numpy as np

from .linear import solve_linear
from .model import AbstractModel, line


@dataclass(frozen=True)
class Broken(AbstractModel):
    """A power law that changes its exponent smoothly, from a + change before the break to a after it:
    log y = log C - a u + change w softplus((b - u) / w), u = log x, b = `log_break`, w = `width` (in log x; one octave is log
    2). Astronomers call it the smoothly broken power law. Raises ValueError unless `width` is finite and positive."""

    width: float = 0.5
    name = "broken"
    formula = "n^-(a + change) before the break, C n^-a after it"
    parameters = ("log_constant", "exponent", "change", "log_break")

    def __post_init__(self):
        if not 0.0 < self.width < np.inf:
            raise ValueError(f"the width of a break is a length in log n, finite and positive; got {self.width:g}.")

    def evaluate(self, theta, x):
        u = np.log(x)
        # On a curve without a bend, a step may move the break so far that numbers overflow; such steps are not taken.
        with np.errstate(over="ignore", invalid="ignore"):
            away = (theta[..., 3:4] - u) / self.width
            bend = self.width * np.logaddexp(0.0, away)
            # The logistic function, without overflow.
            logistic = np.exp(-np.logaddexp(0.0, -away))
            log_y = theta[..., :1] - theta[..., 1:2] * u + theta[..., 2:3] * bend
            ones = np.ones_like(away)
            return log_y, np.stack([ones, -u * ones, bend, theta[..., 2:3] * logistic], axis=-1)

    def limits(self, x):
        # At least two n lie on either side of the break, as an exponent needs.
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


@dataclass(frozen=True)
class BrokenScaling(AbstractModel):
    """A power law whose exponent changes smoothly at `breaks` places; all places and widths are free parameters:
    log y = log C - a u + sum_i change_i w_i softplus((b_i - u) / w_i), u = log x, with b_i = `log_break_i` and
    w_i = exp(`log_width_i`).

    The exponent is a after the last break, and a + change_i + ... + change_m before break i. With w_i = f_i, b_i = log d_i and
    change_i = -c_i this is the functional form of Caballero et al. ("Broken neural scaling laws", arXiv:2210.14891, equation
    1), y = A x^{-c_0} prod_i (1 + (x / d_i)^{1/f_i})^{-c_i f_i}, without its additive limit, where c_0 + c_1 + ... + c_m = a.
    With m breaks it has 2 + 3 m parameters.

    Raises ValueError unless there are one, two or three breaks.
    """

    breaks: int = 1
    name: str = field(init=False, repr=False)
    parameters: tuple[str, ...] = field(init=False, repr=False)
    formula = "C n^-a after the last break, breaks of free width"
    meaning = "the exponent after the last break"

    def __post_init__(self):
        if self.breaks not in (1, 2, 3):
            raise ValueError(
                f"a broken power law has 1, 2 or 3 breaks here (each takes three parameters), got {self.breaks}. For curves "
                "with more, fit windows of them."
            )
        inner = [f"{name}_{i + 1}" for i in range(self.breaks) for name in ("change", "log_break", "log_width")]
        object.__setattr__(self, "name", "bnsl" if self.breaks == 1 else f"bnsl{self.breaks}")
        object.__setattr__(self, "parameters", ("log_constant", "exponent", *inner))

    def evaluate(self, theta, x):
        u = np.log(x)
        change, at, log_width = (theta[..., 2 + i :: 3][..., None, :] for i in range(3))
        with np.errstate(over="ignore", invalid="ignore"):
            width = np.exp(log_width)
            away = (at - u[:, None]) / width
            soft = np.logaddexp(0.0, away)
            # The logistic function, without overflow.
            logistic = np.exp(-np.logaddexp(0.0, -away))
            log_y = theta[..., :1] - theta[..., 1:2] * u + (change * width * soft).sum(axis=-1)
            inner = np.stack([width * soft, change * logistic, change * width * (soft - away * logistic)], axis=-1)
        outer = np.broadcast_to(line(x), (*theta.shape[:-1], len(x), 2))
        return log_y, np.concatenate([outer, inner.reshape(*inner.shape[:-2], -1)], axis=-1)

    def limits(self, x):
        # As in `Broken`, at least two n lie on either side of a break. A break narrower than a tenth of the smallest distance
        # between two n acts as a corner; one wider than the window bends the whole curve.
        u = np.log(x)
        low = [-np.inf, u[1], np.log(0.1 * np.diff(u).min())]
        high = [np.inf, u[-2], np.log(u[-1] - u[0])]
        return np.array([-np.inf] * 2 + low * self.breaks), np.array([np.inf] * 2 + high * self.breaks)

    def exponents(self, theta, x):
        # A break that would come later leaves fewer than two n after it.
        change, at = theta[..., 2::3], theta[..., 3::3]
        late = (at >= self.limits(x)[1][3]) & (change != 0)
        last = np.where(late, -np.copysign(np.inf, change), 0.0)
        with np.errstate(invalid="ignore"):
            return theta[..., 1] + last.sum(axis=-1)

    def starts(self, x, log_y, weight):
        u = np.log(x)
        low, high = self.limits(x)
        places = np.linspace(low[3], high[3], (13, 9, 6)[self.breaks - 1])
        widths = np.geomspace(np.exp(low[4]), np.exp(high[4]), 5)[1:4]
        # One axis for each break, in increasing order, and one for the width that all of them start with.
        *at, width = np.meshgrid(*[places] * self.breaks, widths, indexing="ij")
        grid = width.shape
        at, width = np.stack([one.ravel() for one in at], axis=-1), width.ravel()
        ordered = (np.diff(at, axis=-1) > 0).all(axis=-1)
        theta = np.full((len(log_y), len(width), len(self.parameters)), np.nan)
        theta[..., 3::3], theta[..., 4::3] = at, np.log(width)[:, None]
        for i in np.flatnonzero(ordered):
            bend = width[i] * np.logaddexp(0.0, (at[i] - u[:, None]) / width[i])
            found = solve_linear(np.concatenate([line(x), bend], axis=-1), log_y, weight)
            theta[:, i, :2], theta[:, i, 2::3] = found[:, :2], found[:, 2:]
        return theta.reshape(len(log_y), *grid, -1)
