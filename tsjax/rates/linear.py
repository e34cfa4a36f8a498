"""Weighted least squares on given columns, batched over curves and resamples."""

import numpy as np


def solve_linear(columns: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weighted least-squares solution theta (..., p) of target (..., k) on columns (k, p) with columns[:, 0] = 1, batched.

    Columns are centred at their weighted means first, so that a power law on a narrow window loses no digits.
    """
    w = weight / weight.sum(axis=-1, keepdims=True)
    centre = w @ columns[:, 1:]
    middle = (w * target).sum(axis=-1)
    if columns.shape[1] == 2:
        # The exponent of a power law needs no matrices, which saves time over thousands of resamples.
        d = columns[:, 1] - centre
        wd = w * d
        slope = ((wd * (target - middle[..., None])).sum(axis=-1) / (wd * d).sum(axis=-1))[..., None]
    else:
        d = columns[:, 1:] - centre[..., None, :]
        wd = w[..., None] * d
        matrix = np.swapaxes(wd, -1, -2) @ d
        right = (wd * (target - middle[..., None])[..., None]).sum(axis=-2)
        slope = solve_damped(matrix, right, np.zeros(matrix.shape[:-2]))
    return np.concatenate([(middle - (centre * slope).sum(axis=-1))[..., None], slope], axis=-1)


def solve_damped(matrix: np.ndarray, right: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """(M + damping diag M)^{-1} right, batched, solved in units where diag M = 1. A direction without curvature (the break of a
    curve that does not bend) gets 0."""
    diagonal = np.einsum("...ii->...i", matrix)
    flat = ~(diagonal > 0)
    scale = np.sqrt(np.where(flat, 1.0, diagonal))
    normal = matrix / (scale[..., :, None] * scale[..., None, :])
    normal = np.where(flat[..., :, None] | flat[..., None, :], 0.0, normal)
    eye = np.eye(matrix.shape[-1])
    normal = normal + (1e-14 + damping)[..., None, None] * eye + flat[..., None] * eye
    return np.linalg.solve(normal, np.where(flat, 0.0, right / scale)[..., None])[..., 0] / scale


def rows_of_fit(jacobian: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(J' W J)^{-1} J' W, shape (p, k): the derivatives of the fitted parameters in the log risks. Columns are scaled, so that
    nearly collinear ones are kept."""
    root = np.sqrt(weights / weights.sum())
    scaled = jacobian * root[:, None]
    size = np.sqrt((scaled**2).sum(axis=0))
    size = np.where(size > 0, size, 1.0)
    return np.linalg.pinv(scaled / size, rcond=1e-12) * root / size[:, None]
