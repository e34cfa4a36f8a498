"""Exponents in several axes at once: risk = C n^{-a} d^{-b} ..."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .diagnostics import few_seeds_warning, heavy_tail_sentence, tail_shares
from .intervals import Estimate, expanded_percentiles
from .models import solve_linear
from .table import TAIL_SHARE, Numbers, as_array, check_options, check_positive, make_table


@dataclass(frozen=True, eq=False)
class JointRate:
    """What `fit_joint_rate` found: `exponents` by axis and the `constant`, with intervals; `residuals` (k,) of log mean
    risk; `goodness`, as in `Rate`; `draws` (draws, axes) of the exponents; `warnings`."""

    exponents: dict[str, Estimate]
    constant: Estimate
    residuals: Float[np.ndarray, " k"]
    goodness: float
    draws: Float[np.ndarray, "draws axes"]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        found = ", ".join(f"{name}: {estimate}" for name, estimate in self.exponents.items())
        return "\n".join([f"JointRate({found})", *(f"  ! {text}" for text in self.warnings)])


def fit_joint_rate(
    axes: Mapping[str, Numbers],
    risks: Numbers,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> JointRate:
    """Fits log mean risk = log C - sum_i a_i log axis_i over the points of a grid, by the weights, resamples and intervals
    of `fit_rate`.

    **Arguments:**

    - `axes`: for each axis its values (k,) at the k points, positive; for instance `{"n": [...], "d": [...]}`.
    - `risks`: (k, seeds), NaN where missing.
    - `level`, `draws`, `seed`, `paired`: as in `fit_rate`.

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
    centred = design[:, 1:] - design[:, 1:].mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    if not (size > 0).all() or np.linalg.cond(centred / size) > 1e6:
        raise ValueError(
            f"the exponents in {', '.join(axes)} cannot be told apart: an axis does not vary, or two vary together. "
            "Give points where each axis varies while the others stay."
        )
    data, resampled = table.means(), table.means(table.resamples(draws, seed, paired))
    theta = solve_linear(design, data.log_mean, 1.0 / data.variance)
    residuals = data.log_mean - design @ theta
    good = np.isfinite(resampled.log_mean).all(axis=1)
    log_means = resampled.log_mean[good]
    thetas = solve_linear(design, log_means, 1.0 / resampled.variance[good])
    seeds = float(table.units_present.min())

    goodness = float("nan")
    if len(rows) > design.shape[1] and seeds >= 4 and data.variance.min() > 0:
        scatter = ((log_means - thetas @ design.T - residuals) ** 2 / data.variance).sum(axis=1) * seeds / (seeds - 1)
        goodness = float((scatter >= (residuals**2 / data.variance).sum()).mean())
    found = {}
    for i, name in enumerate(axes):
        ends, _ = expanded_percentiles(thetas[:, i + 1], float(theta[i + 1]), seeds, level)
        found[name] = Estimate(float(theta[i + 1]), ends, float(level))
    ends, _ = expanded_percentiles(thetas[:, 0], float(theta[0]), seeds, level)
    tails = tail_shares(table)
    warnings = few_seeds_warning(int(seeds))
    if tails.max() > TAIL_SHARE:
        worst = int(tails.argmax())
        where = ", ".join(f"{name} = {np.exp(-design[worst, i + 1]):g}" for i, name in enumerate(axes))
        warnings.append(heavy_tail_sentence(float(tails[worst]), f"at {where}"))
    if goodness < 0.01:
        warnings.append(f"one power law in {', '.join(axes)} does not hold on all points: p = {goodness:.3f}.")
    with np.errstate(over="ignore"):
        constant = Estimate(float(np.exp(theta[0])), (float(np.exp(ends[0])), float(np.exp(ends[1]))), float(level))
    return JointRate(found, constant, residuals, goodness, thetas[:, 1:], tuple(warnings))
