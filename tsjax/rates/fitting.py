"""Batched fits of a model to curves, each from several starts of its own: variable projection, then Levenberg-Marquardt.

The loss of a nonlinear model has several local minima, and which one is lowest differs from resample to resample. If every
resample started from the fit of the whole table, it would stay in that valley, and intervals would be too short. So every curve
is profiled over the model's nonlinear parameters: for all curves and all values on a grid at once, linear least squares gives
the other parameters (Golub & Pereyra, SIAM Journal on Numerical Analysis 10, 1973). The lowest valleys of this profile are then
descended.
"""

import numpy as np

from .linear import solve_damped, solve_linear
from .losses import FoundMethod, Huber, loss_of
from .model import AbstractModel, lowest_around

# The number of valleys of a profile that are descended; those whose loss on the grid exceeds _FAR times the lowest are not.
_VALLEYS, _FAR = 2, 4.0
# The most numbers in a block of profiles (2000 resamples of eight n are one block), and the least starts assumed for its size.
_BLOCK, _LEAST_STARTS = 2**20, 16


def fit_model(
    model: AbstractModel, x: np.ndarray, target: np.ndarray, weight: np.ndarray, method: FoundMethod
) -> tuple[np.ndarray, np.ndarray]:
    """theta (..., p) and the minimised loss (...) of each curve in target (..., k) with weights (..., k); see
    `tsjax.rates.losses`. Curves with NaN, or without a start, give NaN."""
    p, k = len(model.parameters), len(x)
    if model.linear and method != "gamma" and not isinstance(method, Huber):
        # The offset that a linear model adds to columns @ theta does not depend on theta.
        offset, columns = model.evaluate(np.zeros(p), x)
        with np.errstate(invalid="ignore"):
            theta = solve_linear(columns, target - offset, weight)
            return theta, np.asarray(0.5 * (weight * (target - model.evaluate(theta, x)[0]) ** 2).sum(axis=-1))
    batch = target.shape[:-1]
    if 0 in batch:
        # No resample had a mean at every n.
        return np.empty((*batch, p)), np.empty(batch)
    flat, weights = target.reshape(-1, k), np.broadcast_to(weight, target.shape).reshape(-1, k)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Starts that are NaN take no memory.
        count = max(int(np.isfinite(model.starts(x, flat[:1], weights[:1])).all(axis=-1).sum()), _LEAST_STARTS)
        size = max(1, _BLOCK // (count * k))
        parts = [
            _fit_block(model, x, flat[i : i + size], weights[i : i + size], method) for i in range(0, len(flat), size)
        ]
    theta, loss = (np.concatenate(part) for part in zip(*parts, strict=True))
    return theta.reshape(*batch, p), loss.reshape(batch)


def _fit_block(model: AbstractModel, x, target, weight, method: FoundMethod) -> tuple[np.ndarray, np.ndarray]:
    starts = model.starts(x, target, weight)
    grid = starts.shape[1:-1]
    starts = starts.reshape(len(target), -1, starts.shape[-1])
    known = np.isfinite(starts).all(axis=-1)
    if known.all():
        loss = loss_of(target[:, None, :] - model.curve(starts, x), weight[:, None, :], method)[0]
    else:
        curve, loss = np.nonzero(known)[0], np.full(known.shape, np.inf)
        loss[known] = loss_of(target[curve] - model.curve(starts[known], x), weight[curve], method)[0]
    loss = np.where(np.isfinite(loss), loss, np.inf)
    valley = np.where(lowest_around(loss.reshape(-1, *grid)).reshape(loss.shape), loss, np.inf)
    number = min(_VALLEYS, valley.shape[1])
    which = np.argsort(valley, axis=1)[:, :number]
    taken = np.take_along_axis(starts, which[..., None], axis=1)
    depth = np.take_along_axis(valley, which, axis=1)
    real = np.isfinite(depth) & (depth <= _FAR * depth[:, :1])
    curve, place = np.nonzero(real)
    theta = np.full((*which.shape, starts.shape[-1]), np.nan)
    best = np.full(which.shape, np.inf)
    if len(curve):
        theta[curve, place], best[curve, place] = _minimise(
            model, x, target[curve], weight[curve], method, taken[curve, place]
        )
    best = np.where(np.isfinite(best), best, np.inf)
    lowest = best.argmin(axis=1)[:, None]
    least = np.take_along_axis(best, lowest, axis=1)[:, 0]
    found = np.take_along_axis(theta, lowest[..., None], axis=1)[:, 0]
    found[np.isinf(least)] = np.nan
    return found, np.where(np.isinf(least), np.nan, least)


# The most steps of Levenberg-Marquardt, and the first value of the damping.
_STEPS, _DAMPING = 200, 1e-2


def _minimise(model, x, target, weight, method: FoundMethod, theta) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt on all curves (batch, k) at once, with Marquardt's scaling by the diagonal of J' W J, so that units
    of the parameters do not matter, within `model.limits`. A step that does not lower the loss, or leads to NaN, is not
    taken."""
    lower, upper = model.limits(x)
    theta = np.clip(np.array(theta, dtype=float), lower, upper)
    log_y, jacobian = model.evaluate(theta, x)
    loss, gradient, matrix_weight = loss_of(target - log_y, weight, method)
    jacobian, matrix_weight = np.array(jacobian), np.array(matrix_weight)
    rest_at = 1e-13 if isinstance(method, Huber) else 1e-9
    damping, active = np.full(loss.shape, _DAMPING), np.isfinite(loss)
    for _ in range(_STEPS):
        at = np.flatnonzero(active)
        if not len(at):
            break
        own, lam, old = jacobian[at], damping[at], loss[at]
        downhill = (own * gradient[at][..., None]).sum(axis=-2)
        # At a limit, a parameter that would leave it stays while the others move.
        stuck = ((theta[at] >= upper) & (downhill > 0)) | ((theta[at] <= lower) & (downhill < 0))
        J = np.where(stuck[:, None, :], 0.0, own)
        matrix = np.swapaxes(J, -1, -2) @ (matrix_weight[at][..., None] * J)
        step = solve_damped(matrix, np.where(stuck, 0.0, downhill), lam)
        new = np.clip(theta[at] + step, lower, upper)
        log_y, new_jacobian = model.evaluate(new, x)
        new_loss, new_gradient, new_weight = loss_of(target[at] - log_y, weight[at], method)
        better = new_loss < old
        took = at[better]
        theta[took], jacobian[took], gradient[took] = new[better], new_jacobian[better], new_gradient[better]
        loss[took], matrix_weight[took] = new_loss[better], new_weight[better]
        damping[at] = np.where(better, lam / 5.0, lam * 5.0)
        # A loss is of the order of its degrees of freedom; the fit has converged when it changes by less than 1e-9 of that.
        rest = np.where(better, (old - new_loss < rest_at * (1e-6 + new_loss)) & (lam < 1e-3), lam > 1e8)
        active[at[rest]] = False
    return theta, loss
