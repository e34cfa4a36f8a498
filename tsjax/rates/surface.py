"""Fits over two axes, L = E + A/N^a + B/D^b, and the compute-optimal allocation that follows: `fit_surface`.

Hoffmann et al. ("Training compute-optimal large language models", arXiv:2203.15556, approach 3) fit the loss of language models
of N parameters trained on D tokens in this form; Besiroglu et al. ("Chinchilla scaling: a replication attempt",
arXiv:2404.10102) reconstruct the points and bootstrap the fit.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..display import card
from .checks import Numbers, as_array, check_options, check_positive, plural
from .diagnostics import few_seeds_warning, heavy_tail_sentence, residuals_sentence, tail_shares
from .fitted import weights_of
from .fitting import fit_model
from .frontier import Frontier, frontier_of
from .intervals import FEW_SEEDS, Estimate, expanded_percentiles
from .joint import check_apart
from .linear import rows_of_fit
from .losses import FoundMethod, Method, find_method, is_typical
from .powers import SumOfPowers
from .residuals import KINDS, Errors, FoundErrors, find_errors, lack_of_fit, residual_draws, scatter_of
from .table import TAIL_SHARE, Table, check_positive_risks, make_table

# The model is doubted below this p-value.
_DOUBTED = 0.01


@dataclass(frozen=True, eq=False, repr=False)
class Surface:
    """The result of `fit_surface`: L = E + A/N^a + B/D^b.

    - `parameters`: E (if there is a floor), A, B, a, b, each with its interval at `level`.
    - `identified`: for `a` and `b`, whether the data bound the exponent on both sides. They do not if the loss is flat in that
      axis, or reaches its floor at once; an end of the interval is then infinite.
    - `n`, `d`, `mean_loss` (k,): the points. `residuals` (k,): of log loss. `weights` (k,): the weights of the fit.
    - `model`, `method`, `theta` (p,), `theta_draws` (draws, p): the model, its method, its parameters (log A, a, log B, b, E)
      and those of every resample.
    - `errors`: the source of the intervals, as in `Rate`; `effective_seeds`: the effective number of units, or degrees of
      freedom plus 1.
    - `goodness`: p-value of "the sum of two powers holds"; a small value speaks against it. From 4 seeds on it is the share of
      resamples whose weighted sum of squared residuals reaches that of the fit; without seeds it comes from the F test of the
      squares and the product of log n and log d beside the model.
    - `warnings`: sentences to print beside the numbers.
    """

    parameters: dict[str, Estimate]
    identified: dict[str, bool]
    n: Float[np.ndarray, " k"]
    d: Float[np.ndarray, " k"]
    mean_loss: Float[np.ndarray, " k"]
    residuals: Float[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]
    model: SumOfPowers
    method: FoundMethod
    theta: Float[np.ndarray, " p"]
    theta_draws: Float[np.ndarray, "draws p"]
    errors: FoundErrors
    effective_seeds: float
    goodness: float
    level: float
    warnings: tuple[str, ...] = ()

    def predict(self, n: Numbers, d: Numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The fitted loss at the points (n, d), each (j,) or a number, and the ends of its interval at `level`, each (j,)."""
        n, d = np.broadcast_arrays(np.atleast_1d(as_array(n, "n")), np.atleast_1d(as_array(d, "d")))
        for name, values in (("n", n), ("d", d)):
            check_positive(values.ravel(), name, "A power law has no point there; leave it out.")
        x = np.stack([n.ravel(), d.ravel()], axis=-1)
        curve, draws = self.model.curve(self.theta, x), self.model.curve(self.theta_draws, x)
        ends = [
            expanded_percentiles(one[np.isfinite(one)], float(value), self.effective_seeds, self.level)[0]
            for one, value in zip(draws.T, curve, strict=True)
        ]
        low, high = np.exp(np.array(ends).T)
        return np.exp(curve), low, high

    def frontier(self, cost: float = 6.0) -> Frontier:
        """How to spend compute C = `cost` N D: the N and D of the least loss, and how they grow with C; see `Frontier`.

        Raises ValueError unless `cost` is finite and positive.
        """
        return frontier_of(
            self.theta, self.theta_draws, self.identified, self.effective_seeds, self.level, cost, self.warnings
        )

    @property
    def _basis(self) -> str:
        return "seeds resampled" if self.errors == "seeds" else f"interval by {KINDS[self.errors]}"

    def __str__(self) -> str:
        found = ", ".join(
            f"{name} = {value}{'' if self.identified.get(name, True) else ' not identified'}"
            for name, value in self.parameters.items()
        )
        method = "" if self.method == "wls" else f", {self.method}"
        return f"{self.model.formula}: {found} ({plural(len(self.n), 'point')}, {self._basis}{method})"

    def __repr__(self) -> str:
        return "\n".join([f"Surface({self})", *(f"  ! {text}" for text in self.warnings)])

    def _repr_html_(self) -> str:
        entries = {name: str(value) for name, value in self.parameters.items()}
        entries |= {"points": f"{len(self.n)}, {self._basis}, {self.method}"}
        if np.isfinite(self.goodness):
            entries["fit"] = f"p = {self.goodness:.2g} (small speaks against the model)"
        return card(f"Surface: {self.model.formula}", entries, self.warnings)


def fit_surface(
    n: Numbers,
    d: Numbers,
    loss: Numbers,
    *,
    floor: bool = True,
    method: Method = "wls",
    errors: Errors = "auto",
    groups: Numbers | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> Surface:
    r"""Fits log L = log(E + A/N^a + B/D^b) over points (N, D), where A, B, a, b > 0.

    Weights, resamples and intervals are those of `fit_rate`: with seeds, every resample refits means and weights; with one run
    at every point the interval comes from the scatter of the points about the surface (residual bootstrap). For given exponents
    the model is linear in E, A and B, with A, B >= 0 (variable projection), so every fit is first profiled over a grid of both
    exponents. From the lowest valleys Levenberg and Marquardt's method then descends in all parameters at once. So no resample
    depends on where the fit of the whole table ended.

    **Arguments:**

    - `n`, `d`: (k,) the two axes, such as parameters and tokens, positive.
    - `loss`: (k,), or (k, seeds) with NaN where missing.
    - `floor`: whether the model has E. The fitted E may be negative; if its interval contains 0, the data show no floor.
    - `method`: `wls`, squared log residuals; `Huber(delta)`, Huber's loss of them (`huber`: delta = 1e-3, as Hoffmann et al.
      2022); `gamma` and `student_t` as in `fit_rate`.
    - `errors`, `groups`, `level`, `draws`, `seed`, `paired`: as in `fit_rate`.

    **Returns:** a `Surface`; `surface.frontier()` says how to spend compute.

    **Raises:** ValueError for shapes that do not fit, values that are not positive, fewer than three different n or d, fewer
    points than parameters, n and d that vary together (such as d = 20 n), and as `fit_rate` does.

    >>> n, d = (axis.ravel() for axis in np.meshgrid(np.logspace(7, 10, 6), np.logspace(9, 12, 6)))
    >>> noise = np.exp(0.005 * np.random.default_rng(0).normal(size=36))
    >>> surface = ts.fit_surface(n, d, (1.8 + 480 / n**0.35 + 2100 / d**0.37) * noise)
    >>> print(surface.parameters["a"], surface.frontier().exponents["n"])
    0.352 [0.343, 0.361] 0.519 [0.507, 0.530]
    """
    check_options(level, draws)
    rows = as_array(loss, "loss")
    rows = rows[:, None] if rows.ndim == 1 else rows
    x = _points(n, d, len(rows))
    model = SumOfPowers(floor)
    _check_points(x, model)
    try:
        table = make_table(np.arange(1, len(rows) + 1), rows, groups)
    except ValueError as error:
        raise ValueError(f"loss, whose points are numbered from 1 as n here: {error}") from error
    found, basis = find_method(method), find_errors(errors, table)
    typical = is_typical(found)
    if typical:
        check_positive_risks(table)
    summarise = table.typical if typical else table.means
    # At the middle of the points the constants hardly depend on the exponents.
    middle = np.exp(np.log(x).mean(axis=0))
    z = x / middle
    data = summarise()
    weights = weights_of(data, found)
    theta = fit_model(model, z, data.log_mean, weights, found)[0]
    if not np.isfinite(theta).all():
        raise ValueError(
            f"{model.formula} could not be fitted to these points; leave the floor out, or fit one axis at a time."
        )
    log_fit, jacobian = model.evaluate(theta, z)
    residuals = data.log_mean - log_fit
    least = float(table.units_present.min())
    # The exponent that rests on fewer units, or degrees of freedom, sets the quantiles of all parameters.
    gradients = np.eye(len(theta))[[1, 3]]
    if basis == "seeds":
        resampled = summarise(table.resamples(draws, seed, paired))
        good = np.isfinite(resampled.log_mean).all(axis=1)
        log_means, refit_weights = resampled.log_mean[good], weights_of(resampled, found)[good]
        solve = rows_of_fit(jacobian, weights)
        effective = min(table.variance_of(gradient @ solve, paired, typical)[1] for gradient in gradients)
        effective = effective if least >= FEW_SEEDS else min(effective, least)
        warnings = few_seeds_warning(int(least), "seed" if groups is None else "group")
    else:
        scatters = [scatter_of(0.0, residuals, jacobian, weights, basis, gradient) for gradient in gradients]
        scatter = min(scatters, key=lambda one: one.freedom)
        log_means, refit_weights = residual_draws(log_fit, scatter, weights, basis, draws, seed), weights
        effective = scatter.freedom + 1.0
        warnings = [residuals_sentence(table, basis, scatter, "point")]
    thetas = fit_model(model, z, log_means, refit_weights, found)[0]
    kept = np.isfinite(thetas).all(axis=1)
    if not kept.all() or len(thetas) < draws:
        warnings.append(f"{plural(draws - int(kept.sum()), 'resample')} left out: without a positive mean, or a fit.")
    log_means, thetas = log_means[kept], thetas[kept]
    parameters, identified, open_ends = _estimates(model, z, middle, theta, thetas, effective, level)
    warnings += open_ends
    goodness = _goodness(table, model, z, residuals, jacobian, weights, log_means, thetas, basis, data.variance)
    if goodness < _DOUBTED:
        p = f"p = {goodness:.2g}" if goodness > 0 else f"p < {1 / draws:.1g}"
        warnings.append(
            f"{model.formula} does not hold on all points: {p}, and log loss lies up to {np.abs(residuals).max():.2g} off it. "
            "The exponents depend on which points are there."
        )
    tails = tail_shares(table)
    if tails.max() > TAIL_SHARE:
        at = x[int(tails.argmax())]
        warnings.append(heavy_tail_sentence(float(tails.max()), f"at n = {at[0]:g}, d = {at[1]:g}"))
    return Surface(
        parameters=parameters,
        identified=identified,
        n=x[:, 0],
        d=x[:, 1],
        mean_loss=table.mean,
        residuals=residuals,
        weights=weights,
        model=model,
        method=found,
        theta=_moved(theta, middle),
        theta_draws=_moved(thetas, middle),
        errors=basis,
        effective_seeds=effective,
        goodness=goodness,
        level=float(level),
        warnings=tuple(warnings),
    )


def _points(n: Numbers, d: Numbers, count: int) -> np.ndarray:
    columns = []
    for name, values in (("n", n), ("d", d)):
        column = as_array(values, name)
        if column.shape != (count,):
            raise ValueError(
                f"{name} must hold one number for each of the {count} rows of loss, shape ({count},); got {column.shape}."
            )
        check_positive(column, name, "A power law has no point there; leave it out.")
        columns.append(column)
    return np.stack(columns, axis=-1)


def _check_points(x: np.ndarray, model: SumOfPowers) -> None:
    if len(x) < len(model.parameters):
        raise ValueError(
            f"{model.formula} has {len(model.parameters)} parameters and needs as many points, got {len(x)}. Give more, or "
            "leave the floor out."
        )
    for name, column in zip("nd", x.T, strict=True):
        if len(np.unique(column)) < 3:
            raise ValueError(
                f"an exponent in {name} beside other terms needs at least 3 different {name}, got "
                f"{[float(value) for value in np.unique(column)]}. Fit the other axis alone, by fit_rate."
            )
    check_apart(-np.log(x), ("n", "d"))


def _moved(theta: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Parameters in N and D from those in N and D over their middle."""
    moved = theta.copy()
    moved[..., 0:4:2] += theta[..., 1:4:2] * np.log(middle)
    return moved


def _estimates(model, z, middle, theta, thetas, effective: float, level: float):
    """The parameters with intervals, whether each exponent is identified, and a sentence about each that is not."""
    exponents, exponent_draws = model.exponents_of(theta, z), model.exponents_of(thetas, z)
    moved, moved_draws = _moved(theta, middle), _moved(thetas, middle)
    found: dict[str, Estimate] = {}
    identified, sentences = {}, []
    for i, name in enumerate("ab"):
        value = float(exponents[i])
        ends, _ = expanded_percentiles(exponent_draws[:, i], value, effective, level)
        found[name] = Estimate(value, ends, level)
        # With too few units, or degrees of freedom, an infinite interval does not mean that the surface leaves the exponent
        # open.
        identified[name] = effective < 1.5 or bool(np.isfinite([value, *ends]).all())
        if not identified[name]:
            axis = "nd"[i]
            sentences.append(
                f"the exponent {name} is not identified: the loss is flat in {axis}, or reaches its floor at once, and other "
                f"exponents fit about as well. Give {axis} where the loss still falls, more seeds, or fit the other axis alone."
            )
    for i, name in ((0, "A"), (2, "B")):
        ends, _ = expanded_percentiles(moved_draws[:, i], float(moved[i]), effective, level)
        with np.errstate(over="ignore"):
            found[name] = Estimate(float(np.exp(moved[i])), (float(np.exp(ends[0])), float(np.exp(ends[1]))), level)
    if model.floor:
        ends, _ = expanded_percentiles(moved_draws[:, 4], float(moved[4]), effective, level)
        found["E"] = Estimate(float(moved[4]), ends, level)
    order = [name for name in ("E", "A", "a", "B", "b") if name in found]
    return {name: found[name] for name in order}, identified, sentences


def _goodness(
    table: Table, model, z, residuals, jacobian, weights, log_means, thetas, errors: FoundErrors, variance
) -> float:
    seeds, k = float(table.units_present.min()), len(z)
    if errors != "seeds":
        u, v = np.log(z).T
        return lack_of_fit(residuals, jacobian, weights, np.stack([u * u, u * v, v * v], axis=-1))
    if seeds < FEW_SEEDS or k <= len(model.parameters) or table.relative_spread.max() == 0.0 or not len(thetas):
        return float("nan")
    excess = log_means - model.curve(thetas, z) - residuals
    chi = (excess**2 / variance).sum(axis=1) * seeds / (seeds - 1.0)
    return float((chi >= (residuals**2 / variance).sum()).mean())
