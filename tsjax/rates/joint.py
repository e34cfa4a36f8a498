"""Exponents in several axes at once: risk = C n^{-a} d^{-b} ..."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .checks import Numbers, as_array, check_options, check_positive
from .diagnostics import few_seeds_warning, heavy_tail_sentence, residuals_sentence, tail_shares
from .intervals import FEW_SEEDS, Estimate, expanded_percentiles
from .linear import solve_linear
from .residuals import Errors, FoundErrors, find_errors, lack_of_fit, residual_draws, scatter_of
from .table import TAIL_SHARE, Table, make_table

# A product law is doubted below this p-value.
_DOUBTED = 0.01


@dataclass(frozen=True, eq=False)
class JointRate:
    """The result of `fit_joint_rate`.

    - `exponents` by axis, and the `constant`, with intervals; `draws` (draws, axes): the exponents of every resample.
    - `residuals` (k,) of log mean risk; `errors`: the source of the intervals, as in `Rate`.
    - `goodness`: p-value of "one product of powers holds on all points"; a small value speaks against it. From 4 seeds on it is
      computed as in `Rate`. With fewer seeds it is that of the F test of squares and products of the logs of the axes beside
      the logs, against the remaining scatter; NaN if there are too few points for it.
    - `warnings`: sentences to print beside the numbers.
    """

    exponents: dict[str, Estimate]
    constant: Estimate
    residuals: Float[np.ndarray, " k"]
    goodness: float
    errors: FoundErrors
    draws: Float[np.ndarray, "draws axes"]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        found = ", ".join(f"{name}: {estimate}" for name, estimate in self.exponents.items())
        return "\n".join([f"JointRate({found})", *(f"  ! {text}" for text in self.warnings)])


def fit_joint_rate(
    axes: Mapping[str, Numbers],
    risks: Numbers,
    *,
    errors: Errors = "auto",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> JointRate:
    """Fits log mean risk = log C - sum_i a_i log axis_i over the points of a grid, with the weights, resamples and intervals of
    `fit_rate`. With one seed at every point, intervals come from the scatter of the points about the fit.

    A sum such as N^-a + D^-b is not a product: its exponents change from point to point. `goodness` and a warning show that.

    **Arguments:**

    - `axes`: for each axis its values (k,) at the k points, positive; for instance `{"n": [...], "d": [...]}`.
    - `risks`: (k, seeds), NaN where missing.
    - `errors`, `level`, `draws`, `seed`, `paired`: as in `fit_rate`.

    **Raises:** ValueError for shapes that do not fit, values that are not positive, axes whose logs are collinear (an axis
    that does not vary, or two that vary together), and as `fit_rate` does.
    """
    check_options(level, draws)
    if not axes:
        raise ValueError("a joint rate needs at least one axis.")
    rows = as_array(risks, "risks")
    table = make_table(np.arange(1, len(rows) + 1), risks)
    columns = [np.ones(len(table.x))]
    for name, values in axes.items():
        column = as_array(values, name)
        if column.shape != table.x.shape:
            raise ValueError(f"axis {name!r} must hold one value for each of the {len(rows)} rows, got {column.shape}.")
        check_positive(column, name, "A power law has no point there; leave it out.")
        columns.append(-np.log(column))
    design = np.stack(columns, axis=-1)
    check_apart(design[:, 1:], tuple(axes))
    errors = find_errors(errors, table)
    data = table.means()
    weights = 1.0 / data.variance
    theta = solve_linear(design, data.log_mean, weights)
    residuals = data.log_mean - design @ theta
    seeds = float(table.units_present.min())
    if errors == "seeds":
        resampled = table.means(table.resamples(draws, seed, paired))
        freedoms = np.full(len(theta), seeds)
        good = np.isfinite(resampled.log_mean).all(axis=1)
        log_means = resampled.log_mean[good]
        thetas = solve_linear(design, log_means, 1.0 / resampled.variance[good])
        warnings = few_seeds_warning(int(seeds))
    else:
        # Each parameter has its own degrees of freedom, and its resamples are scaled to them.
        scatters = [
            scatter_of(float(value), residuals, design, weights, errors, one)
            for value, one in zip(theta, np.eye(len(theta)), strict=True)
        ]
        freedoms = np.array([scatter.freedom + 1.0 for scatter in scatters])
        curves = [residual_draws(design @ theta, one, weights, errors, draws, seed) for one in scatters]
        thetas = np.stack([solve_linear(design, one, weights)[:, i] for i, one in enumerate(curves)], axis=-1)
        fewest = min(scatters[1:], key=lambda scatter: scatter.freedom)
        warnings = [residuals_sentence(table, errors, fewest, "point")]
        log_means = curves[0]

    goodness = _goodness(table, design, residuals, log_means - thetas @ design.T, errors)
    found = {}
    for i, name in enumerate(axes):
        ends, _ = expanded_percentiles(thetas[:, i + 1], float(theta[i + 1]), float(freedoms[i + 1]), level)
        found[name] = Estimate(float(theta[i + 1]), ends, float(level))
    ends, _ = expanded_percentiles(thetas[:, 0], float(theta[0]), float(freedoms[0]), level)
    tails = tail_shares(table)
    if tails.max() > TAIL_SHARE:
        worst = int(tails.argmax())
        where = ", ".join(f"{name} = {np.exp(-design[worst, i + 1]):g}" for i, name in enumerate(axes))
        warnings.append(heavy_tail_sentence(float(tails[worst]), f"at {where}"))
    if goodness < _DOUBTED:
        p = f"p = {goodness:.2g}" if goodness > 0 else f"p < {1 / draws:.1g}"
        warnings.append(
            f"one product of powers of {', '.join(axes)} does not hold on all points: {p}, and log risk lies up to "
            f"{np.abs(residuals).max():.2g} off it. The exponents depend on which points are there; fit one axis at a time, "
            "with the others fixed, by fit_rate."
        )
    elif np.isnan(goodness):
        warnings.append("too few points to see whether a product of powers holds.")
    with np.errstate(over="ignore"):
        constant = Estimate(
            float(np.exp(theta[0])), (float(np.exp(ends[0])), float(np.exp(ends[1]))), float(level), scale="log"
        )
    return JointRate(found, constant, residuals, goodness, errors, thetas[:, 1:], tuple(warnings))


def check_apart(logs: np.ndarray, names: Sequence[str]) -> None:
    """Raises ValueError if the logs of an axis (columns of (k, axes)) do not vary, or those of several axes vary together."""
    centred = logs - logs.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    if not (size > 0).all() or np.linalg.cond(centred / size) > 1e6:
        raise ValueError(
            f"the exponents in {', '.join(names)} cannot be distinguished: an axis does not vary, or two vary together. "
            "Give points where each axis varies while the others stay."
        )


def _goodness(
    table: Table, design: np.ndarray, residuals: np.ndarray, scatter: np.ndarray, errors: FoundErrors
) -> float:
    """p-value of the product law; `scatter` (draws, k): residuals of the resamples about their own fits."""
    data, seeds = table.means(), float(table.units_present.min())
    k, p = design.shape
    if errors == "seeds" and seeds >= FEW_SEEDS:
        # Seeds that all agree show no noise.
        if k <= p or table.relative_spread.max() == 0.0:
            return float("nan")
        excess = ((scatter - residuals) ** 2 / data.variance).sum(axis=1) * seeds / (seeds - 1)
        return float((excess >= (residuals**2 / data.variance).sum()).mean())
    logs = design[:, 1:] - design[:, 1:].mean(axis=0)
    second = np.stack([logs[:, i] * logs[:, j] for i in range(p - 1) for j in range(i, p - 1)], axis=-1)
    # Variances of two or three seeds are too rough to serve as weights of a test.
    alike = np.ones(k)
    centred = data.log_mean - design @ solve_linear(design, data.log_mean, alike)
    return lack_of_fit(centred, design, alike, second)
