"""Models of learning curves with a plateau at small n, an additive limit at large n, or both, written for a falling risk.
Collections of fitted curves compare these models (Gu, Hu & Liu, WAIM 2001; Domhan, Springenberg & Hutter, IJCAI 2015; Viering &
Loog, "The shape of learning curves: a review", IEEE TPAMI 45(6), 7799-7819, 2023; Mohr, Viering, Loog & van Rijn, LCDB, ECML
PKDD 2022). Names and formulas follow the fits of LCDB (publications/2022-ecml/analysis/fit_database.py in
github.com/fmohr/lcdb), which are for an accuracy: pow4 is a - b (x + d)^-c, mmf4 is (a b + c x^d) / (b + x^d), and wbl4 is c -
b exp(-a x^d).

The meaning of the exponent differs. `ShiftedPower`, `MorganMercerFlodin` and `Logistic` tend to a power law, and have its
exponent. `Weibull` and `Exponential` fall faster than any power, so they have no exponent in the limit; for them it is the
local exponent -d log g / d log n of the part g above the floor, at the largest n of the fit.
"""

from dataclasses import dataclass

import numpy as np

from .model import (
    VANISHED,
    AbstractModel,
    above_floor,
    grid_of,
    starts_above_floor,
    vanished,
)

_LOCAL = "the local exponent, at the largest n, of the part above the floor; it falls faster than any power"


@dataclass(frozen=True)
class ShiftedPower(AbstractModel):
    """pow4: y = C (x + s)^{-a} + F with s > -x_1. The asymptotic exponent of the part above the floor is a.

    As s and a grow together it tends to an exponential. If the fit lies there, the exponent is not bounded above.
    """

    name = "pow4"
    formula = "C (n + s)^-a + F"
    parameters = ("log_constant", "exponent", "shift", "floor")
    meaning = "the exponent of the part above the floor in the limit of large n"

    def evaluate(self, theta, x):
        log_shape, slopes = self._shape(theta[..., 1:2], theta[..., 2:3], x)
        return above_floor(theta[..., :1], log_shape, theta[..., 3:], slopes)

    def _shape(self, a, shift, x):
        with np.errstate(divide="ignore", invalid="ignore"):
            place = x + shift
            log_place = np.log(np.where(place > 0, place, np.nan))
            return -a * log_place, np.stack([-log_place, -a / place], axis=-1)

    def limits(self, x):
        most = 30.0 * x[-1]
        high = VANISHED / np.log((x[1] + most) / (x[0] + most))
        return np.array([-np.inf, 1e-3, -0.99 * x[0], -np.inf]), np.array([np.inf, high, most, np.inf])

    def exponents(self, theta, x):
        (_, low, _, _), (_, high, most, _) = self.limits(x)
        a, shift = theta[..., 1], theta[..., 2]
        log_shape = self._shape(a[..., None], shift[..., None], x)[0]
        at_once = (a >= high) | (shift >= most) | (log_shape[..., 0] - log_shape[..., 1] >= VANISHED)
        flat = vanished(theta[..., :1], log_shape, theta[..., 3:])
        return np.where(at_once | (flat & (a > 0)), np.inf, np.where(a <= low, -np.inf, a))

    def starts(self, x, log_y, weight):
        (_, low, least, _), (_, _, most, _) = self.limits(x)
        shifts = np.concatenate([[0.9 * least, 0.5 * least, 0.0], np.geomspace(x[0], 0.9 * most, 9)])
        # The grid is even in the local exponent at the middle of the window, a x / (x + s).
        middle = np.sqrt(x[0] * x[-1])
        local = np.geomspace(max(0.05, 2.0 * low), 8.0, 14)
        shift, slope = grid_of(shifts, local)
        a = slope * (middle + shift) / middle
        log_shape = self._shape(a[:, None], shift[:, None], x)[0]
        return starts_above_floor(log_shape, log_y, weight, (a, shift), (len(shifts), len(local)))


def _hill(a: np.ndarray, log_middle: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log 1 / (x^a + M^a) (..., k), log M = `log_middle`, and its derivatives (..., k, 2) in a and log M, each (..., 1)."""
    u = np.log(x)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.logaddexp(a * u, a * log_middle)
        share = np.exp(a * u - total)
        return -total, np.stack([-(u * share + log_middle * (1.0 - share)), -a * (1.0 - share)], axis=-1)


def _hill_limits(x: np.ndarray) -> tuple[list[float], list[float]]:
    # If the middle lies far below the first n, the curve is a power law. At least two n lie beyond the middle of the fall, as
    # an exponent needs.
    u = np.log(x)
    steep = 2.0 * VANISHED / np.diff(u).min()
    return [1e-3, u[0] - 4.0], [steep, u[-2]]


def _hill_exponents(inner: np.ndarray, x: np.ndarray) -> np.ndarray:
    (low, _), (high, late) = _hill_limits(x)
    a, log_middle = inner[..., 0], inner[..., 1]
    return np.where((a >= high) | (log_middle >= late), np.inf, np.where(a <= low, -np.inf, a))


def _hill_grid(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    (_, first), (_, late) = _hill_limits(x)
    exponents, middles = np.geomspace(0.05, 8.0, 16), np.linspace(first, late, 13)
    a, log_middle = grid_of(exponents, middles)
    return a, log_middle, (len(exponents), len(middles))


@dataclass(frozen=True)
class MorganMercerFlodin(AbstractModel):
    """mmf4: y = (T B + F x^a) / (B + x^a) (Morgan, Mercer & Flodin, PNAS 72, 1975), from T at small x to F at large x. It is
    written as y = C / (x^a + M^a) + F with M = B^{1/a} = exp(`log_middle`), C = (T - F) B. The asymptotic exponent of the part
    above the floor is a. If the middle of the fall is at the last n but one or later, the exponent is not bounded above."""

    name = "mmf4"
    formula = "C / (n^a + M^a) + F"
    parameters = ("log_constant", "exponent", "log_middle", "floor")
    meaning = "the exponent of the part above the floor in the limit of large n"

    def evaluate(self, theta, x):
        log_shape, slopes = _hill(theta[..., 1:2], theta[..., 2:3], x)
        return above_floor(theta[..., :1], log_shape, theta[..., 3:], slopes)

    def limits(self, x):
        low, high = _hill_limits(x)
        return np.array([-np.inf, *low, -np.inf]), np.array([np.inf, *high, np.inf])

    def exponents(self, theta, x):
        found = _hill_exponents(theta[..., 1:3], x)
        log_shape = _hill(theta[..., 1:2], theta[..., 2:3], x)[0]
        flat = vanished(theta[..., :1], log_shape, theta[..., 3:]) | (log_shape[..., 0] - log_shape[..., 1] >= VANISHED)
        return np.where(flat, np.inf, found)

    def starts(self, x, log_y, weight):
        a, log_middle, grid = _hill_grid(x)
        return starts_above_floor(_hill(a[:, None], log_middle[:, None], x)[0], log_y, weight, (a, log_middle), grid)


@dataclass(frozen=True)
class Logistic(AbstractModel):
    """The logistic function in log x, from T at small x to 0: y = T / (1 + (x / M)^a) = C / (x^a + M^a), with
    M = exp(`log_middle`) and C = T M^a (the "log power" of Domhan et al. 2015). The asymptotic exponent is a. If the middle of
    the fall is at the last n but one or later, the exponent is not bounded above. `MorganMercerFlodin` adds a floor."""

    name = "logistic"
    formula = "C / (n^a + M^a)"
    parameters = ("log_constant", "exponent", "log_middle")

    def evaluate(self, theta, x):
        log_shape, slopes = _hill(theta[..., 1:2], theta[..., 2:3], x)
        return theta[..., :1] + log_shape, np.concatenate([np.ones_like(log_shape)[..., None], slopes], axis=-1)

    def limits(self, x):
        low, high = _hill_limits(x)
        return np.array([-np.inf, *low]), np.array([np.inf, *high])

    def exponents(self, theta, x):
        return _hill_exponents(theta[..., 1:3], x)

    def starts(self, x, log_y, weight):
        a, log_middle, grid = _hill_grid(x)
        w = weight / weight.sum(axis=-1, keepdims=True)
        constant = (w * log_y).sum(axis=-1, keepdims=True) - w @ _hill(a[:, None], log_middle[:, None], x)[0].T
        inner = [np.broadcast_to(value, constant.shape) for value in (a, log_middle)]
        return np.stack([constant, *inner], axis=-1).reshape(len(log_y), *grid, 3)


@dataclass(frozen=True)
class Weibull(AbstractModel):
    """wbl4: y = C exp(-(x / S)^h) + F with S = exp(`log_scale`) (the Weibull growth curve). It falls faster than any power, so
    it has no asymptotic exponent. `exponents` gives the local exponent h (x / S)^h of the part above the floor, at the largest
    n of the fit."""

    name = "wbl4"
    formula = "C exp(-(n/S)^h) + F"
    parameters = ("log_constant", "shape", "log_scale", "floor")
    meaning = _LOCAL
    asymptotic = False

    def evaluate(self, theta, x):
        log_shape, slopes = self._shape(theta[..., 1:2], theta[..., 2:3], x)
        return above_floor(theta[..., :1], log_shape, theta[..., 3:], slopes)

    def _shape(self, shape, log_scale, x):
        with np.errstate(over="ignore", invalid="ignore"):
            away = np.log(x) - log_scale
            power = np.exp(shape * away)
            return -power, np.stack([-power * away, power * shape], axis=-1)

    def limits(self, x):
        # With smaller shapes the curve is a power law, and with larger ones a step; S lies within a factor e^30 of the window.
        u = np.log(x)
        steep = 2.0 * VANISHED / np.diff(u).min()
        return np.array([-np.inf, 0.01, u[0] - 30.0, -np.inf]), np.array([np.inf, steep, u[-1] + 30.0, np.inf])

    def exponents(self, theta, x):
        log_shape = self._shape(theta[..., 1:2], theta[..., 2:3], x)[0]
        flat = vanished(theta[..., :1], log_shape, theta[..., 3:])
        at_once = flat | (log_shape[..., 0] - log_shape[..., 1] >= VANISHED)
        return np.where(at_once, np.inf, -theta[..., 1] * log_shape[..., -1])

    def exponent_gradient(self, theta, x):
        away = np.log(x[-1]) - theta[2]
        power = np.exp(theta[1] * away)
        return np.array([0.0, power * (1.0 + theta[1] * away), -(theta[1] ** 2) * power, 0.0])

    def starts(self, x, log_y, weight):
        # The grid is even in the local exponent at the middle of the window, h (x / S)^h.
        shapes, local = np.geomspace(0.03, 4.0, 12), np.geomspace(0.02, 8.0, 16)
        shape, slope = grid_of(shapes, local)
        middle = np.log(x).mean()
        log_scale = np.clip(middle - np.log(slope / shape) / shape, *(end[2] for end in self.limits(x)))
        log_shape = self._shape(shape[:, None], log_scale[:, None], x)[0]
        return starts_above_floor(log_shape, log_y, weight, (shape, log_scale), (len(shapes), len(local)))


@dataclass(frozen=True)
class Exponential(AbstractModel):
    """exp3: y = C exp(-x / S) + F with S = exp(`log_scale`). It falls faster than any power, so it has no asymptotic exponent.
    `exponents` gives the local exponent x / S of the part above the floor, at the largest n of the fit."""

    name = "exponential"
    formula = "C exp(-n/S) + F"
    parameters = ("log_constant", "log_scale", "floor")
    meaning = _LOCAL
    asymptotic = False

    def evaluate(self, theta, x):
        log_shape = self._shape(theta[..., 1:2], x)
        return above_floor(theta[..., :1], log_shape, theta[..., 2:], -log_shape[..., None])

    def _shape(self, log_scale, x):
        with np.errstate(over="ignore"):
            return -x * np.exp(-log_scale)

    def limits(self, x):
        # At the lower limit the exponential vanishes between the first two n; at the upper one it is a straight line on the
        # whole window.
        low, high = np.log((x[1] - x[0]) / VANISHED), np.log(100.0 * x[-1])
        return np.array([-np.inf, low, -np.inf]), np.array([np.inf, high, np.inf])

    def exponents(self, theta, x):
        (_, low, _), (_, high, _) = self.limits(x)
        log_scale, log_shape = theta[..., 1], self._shape(theta[..., 1:2], x)
        at_once = (log_scale <= low) | vanished(theta[..., :1], log_shape, theta[..., 2:])
        return np.where(at_once, np.inf, np.where(log_scale >= high, -np.inf, -log_shape[..., -1]))

    def exponent_gradient(self, theta, x):
        return np.array([0.0, self._shape(theta[1:2], x)[-1], 0.0])

    def starts(self, x, log_y, weight):
        low, high = (end[1] for end in self.limits(x))
        log_scale = np.linspace(low, high, 40)
        return starts_above_floor(self._shape(log_scale[:, None], x), log_y, weight, (log_scale,), (40,))
