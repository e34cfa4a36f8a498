"""The result of fitting a risk curve, `Rate`, and differences and ratios of two of them."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ..display import card
from .checks import Numbers, as_array, check_options, check_positive, plural, short
from .fitting import fit_model
from .intervals import Estimate, bca, expanded_percentiles, one_sided_p, student_quantile
from .linear import rows_of_fit
from .losses import FoundMethod, is_typical
from .models import AbstractModel, PowerLaw
from .residuals import KINDS, FoundErrors, scatter_of
from .table import TAIL_SHARE, Summary, Table

IntervalKind = Literal["expanded", "bca", "delta"]


# Above this number, units are left out only to first order: refitting without each one would take memory of their number
# squared.
_MOST_REFITS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class Rate:
    """A model fitted to a risk curve, and the exponent of the power law in it; see `fit_rate`.

    **Fields:**

    - `exponent`, `interval`, `level`, `standard_error`: risk falls as n^{-exponent}; positive means falling. `model.meaning`
      says which exponent it is: in the limit of large n, or the local one of a model that falls faster than any power.
      `interval_at` gives other levels and kinds of intervals.
    - `identified`: whether the data bound the exponent on both sides at `level`. They do not if curves with ever larger (or
      smaller) exponents fit as well: a flat curve, a floor that is reached at once, a break at the end of the window. An end of
      the interval is then infinite, and so is `exponent` if the best fit lies there.
    - `errors`: the source of the intervals: `seeds`, or the scatter of the points about the fit (`residuals`, `wild`), with
      `freedom` degrees of freedom (k - p for residuals); see `tsjax.rates.residuals`.
    - `constant`: C of the model. `parameters`: all parameters, with intervals.
    - `model`, `method`: what was fitted, and how. `theta` (p,), `theta_draws` (draws, p): the parameters of the fit and of
      every resample, within the model's limits (NaN if a resample left some n without a positive mean).
    - `n`, `mean_risk`, `mean_se` (k,): the curve, with the standard error of each mean (NaN for a single seed).
    - `log_risk` (k,): what was fitted: log mean risk or, with `method="student_t"`, the typical log risk.
    - `present` (k,): how many seeds have a risk at each n; `missing`: how many risks are NaN.
    - `variance` (k,): estimated variance of `log_risk`, from seeds or from residuals. `weights` (k,): the weights of the fit.
      `residuals` (k,): `log_risk` minus the fitted curve.
    - `local_slopes` (k-1,), `local_intervals` (k-1, 2): exponents between neighbouring n, at the same level.
    - `goodness`: p-value of "the model holds on the whole window": the share of resamples whose weighted sum of squared
      residuals (a chi-square) reaches that of the curve. A small value speaks against the model. The chi-square distribution
      would be wrong, since seeds are shared and variances estimated. NaN if there are no more n than parameters, fewer than 4
      seeds, or if all seeds agree. From residuals: the p-value of the F test of one more power of log n beside the p parameters
      of the model.
    - `drift`: how much the local exponent changes from the first to the last n, by a quadratic fit in log n, with a 99 %
      interval; None below 4 n or 4 seeds (from residuals: below 5 n).
    - `tail_share` (k,): share of the mean carried by seeds above 10 times the median at that n.
    - `seeds`, `paired`, `seed`: the number of columns, whether they were resampled together, and the seed of the bootstrap.
    - `units`: what was resampled: columns, or groups of them. `effective_seeds`: how many units the exponent rests on.
    - `delta_error`: the standard error by the delta method. `left_out`: the exponent without each unit.
    - `warnings`: sentences to print beside the number.
    """

    exponent: float
    interval: tuple[float, float]
    level: float
    standard_error: float
    constant: float
    n: Float[np.ndarray, " k"]
    mean_risk: Float[np.ndarray, " k"]
    mean_se: Float[np.ndarray, " k"]
    log_risk: Float[np.ndarray, " k"]
    present: Int[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]
    variance: Float[np.ndarray, " k"]
    residuals: Float[np.ndarray, " k"]
    local_slopes: Float[np.ndarray, " k-1"]
    local_intervals: Float[np.ndarray, "k-1 2"]
    goodness: float
    drift: Estimate | None
    tail_share: Float[np.ndarray, " k"]
    seeds: int
    units: int
    paired: bool
    seed: int
    model: AbstractModel
    method: FoundMethod
    theta: Float[np.ndarray, " p"]
    theta_draws: Float[np.ndarray, "draws p"]
    effective_seeds: float
    delta_error: float
    identified: bool
    errors: FoundErrors
    freedom: float
    table: Table = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def draws(self) -> Float[np.ndarray, " draws"]:
        """The exponent of every resample; infinite if the resample does not bound it on that side."""
        return self.model.exponents(self.theta_draws, self.n)

    @property
    def window(self) -> tuple[float, float]:
        """The smallest and the largest n of the fit."""
        return float(self.n[0]), float(self.n[-1])

    @property
    def missing(self) -> int:
        """How many risks were NaN."""
        return int(self.seeds * len(self.n) - self.present.sum())

    @property
    def heavy_tail(self) -> bool:
        """Whether a few extreme seeds carry more than a fifth of the mean at some n."""
        return bool((self.tail_share > TAIL_SHARE).any())

    @property
    def parameters(self) -> dict[str, Estimate]:
        """All parameters of the model with intervals at `level`; `constant` stands for its logarithm."""
        found = {}
        for i, name in enumerate(self.model.parameters):
            log = name == "log_constant"
            value, draws = float(self.theta[i]), self.theta_draws[:, i]
            if name == "exponent":
                value, draws = self.exponent, self.draws
            (low, high), _ = expanded_percentiles(draws[~np.isnan(draws)], value, self.effective_seeds, self.level)
            with np.errstate(over="ignore"):
                ends = (float(np.exp(low)), float(np.exp(high))) if log else (low, high)
            found["constant" if log else name] = Estimate(
                float(np.exp(value)) if log else value, ends, self.level, scale="log" if log else "linear"
            )
        return found

    def interval_at(self, level: float | None = None, kind: IntervalKind = "expanded") -> tuple[float, float]:
        """The exponent's interval at another level, or of another kind.

        - `expanded`: percentiles of the resamples at widened levels, the default of `interval`.
        - `bca`: Efron's bias-corrected and accelerated percentiles; too narrow below about 16 seeds.
        - `delta`: exponent +- t `delta_error`, with `effective_seeds` - 1 degrees of freedom.
        """
        level = self.level if level is None else level
        check_options(level)
        draws = self.draws[~np.isnan(self.draws)]
        if kind == "expanded":
            return expanded_percentiles(draws, self.exponent, self.effective_seeds, level)[0]
        if kind == "delta":
            if self.effective_seeds < 1.5 or not self.identified:
                return -np.inf, np.inf
            reach = student_quantile(self.effective_seeds, level) * self.delta_error
            return self.exponent - reach, self.exponent + reach
        if kind != "bca":
            raise ValueError(f"no interval of kind {kind!r}. Allowed: expanded, bca, delta.")
        return bca(draws, self.exponent, self.left_out, level)

    @property
    def left_out(self) -> np.ndarray:
        """The exponent without each unit (units,), to first order for more than 1000 units; if unpaired, without each single
        risk (k * units,), to first order. From residuals: without each n (k,), to first order."""
        typical = is_typical(self.method)
        if self.errors != "seeds":
            return self._scatter.left_out
        if not self.paired or self.units > _MOST_REFITS:
            coefficients = self._gradient @ rows_of_fit(self.model.evaluate(self.theta, self.n)[1], self.weights)
            influence = coefficients[:, None] * self.table.influence(typical)
            return self.exponent - (influence.sum(axis=0) if self.paired else influence.ravel())
        counts = 1.0 - np.eye(self.units)
        summary = self.table.typical(counts) if typical else self.table.means(counts)
        theta, _ = fit_model(self.model, self.n, summary.log_mean, weights_of(summary, self.method), self.method)
        return self.model.exponents(theta, self.n)

    @property
    def _scatter(self):
        jacobian = self.model.evaluate(self.theta, self.n)[1]
        return scatter_of(self.exponent, self.residuals, jacobian, self.weights, self.errors, self._gradient)

    @property
    def _gradient(self) -> np.ndarray:
        return self.model.exponent_gradient(self.theta, self.n)

    def p_value(self, bound: float, side: Literal["above", "below"]) -> float:
        """One-sided p-value of "the exponent is above `bound`" (against at or below it), or "below"; it is at most alpha
        exactly if the interval of level 1 - 2 alpha excludes the bound."""
        return one_sided_p(self.draws, bound, self.effective_seeds, 1 if side == "above" else -1)

    def predict(self, n: Numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The fitted curve at n (j,), and the ends of its interval at `level`, each (j,); n may lie beyond the window."""
        x = as_array(n, "n")
        check_positive(x, "n", "A power law has no point there; leave it out.")
        curve = self.model.evaluate(self.theta, x)[0]
        draws = self.model.evaluate(self.theta_draws, x)[0]
        ends = [
            expanded_percentiles(d[np.isfinite(d)], float(v), self.effective_seeds, self.level)[0]
            for d, v in zip(draws.T, curve, strict=True)
        ]
        low, high = np.exp(np.array(ends).reshape(-1, 2)).T
        return np.exp(curve), low, high

    def slope_of(self, values: Numbers) -> float:
        """The exponent that this fit, with its model and weights, would find in another curve on the same n.

        The slope of a predicted curve that bends depends on the weights; this one is comparable with `exponent`. `values` (k,)
        are in the order of `n`. Raises ValueError unless they are finite and positive, one for each n.
        """
        y = as_array(values, "values")
        if y.shape != self.n.shape:
            raise ValueError(
                f"values must hold one number for each of the {len(self.n)} n of this fit, shape {self.n.shape}; "
                f"got shape {y.shape}. Evaluate the curve at rate.n."
            )
        check_positive(y, "values", "Leave points at or below zero out of the measured fit too.")
        theta = fit_model(self.model, self.n, np.log(y), self.weights, self.method)[0]
        return float(self.model.exponents(theta, self.n))

    def minus(self, other: "Rate") -> Estimate:
        """The difference of two exponents, self - other, with an interval that uses the pairing of the seeds.

        Both fits must be paired and have equal `units`, `seed`, `level`, `errors` and number of draws: then draw b of both used
        the same seeds, and what the two learners share (data, teachers) cancels. The n may differ unless `errors` are those of
        residuals, which are resampled together n by n. Raises ValueError otherwise.
        """
        self.check_paired_with(other)
        # The difference of two exponents that are both infinite with the same sign is NaN.
        with np.errstate(invalid="ignore"):
            return contrast(self, other, self.exponent - other.exponent, self.draws - other.draws)

    def over(self, other: "Rate") -> Estimate:
        """The ratio of two exponents, self / other, with its interval; arguments and errors are those of `minus`. Its ends are
        infinite if the divisor's exponent may be 0."""
        self.check_paired_with(other)
        return ratio_of(self, other)

    def check_paired_with(self, other: "Rate") -> None:
        """Raises ValueError unless draw b of both fits used the same seeds, or the residuals at the same n."""
        mine, theirs = ((r.units, r.seed, r.level, len(r.draws)) for r in (self, other))
        if not (self.paired and other.paired) or mine != theirs:
            raise ValueError(
                "only fits that were resampled alike can be subtracted: both paired, with equal (seeds, seed, level, "
                f"draws); got {mine} paired={self.paired} and {theirs} paired={other.paired}. Refit them alike."
            )
        if self.errors != other.errors:
            raise ValueError(
                f"the interval of one fit rests on errors={self.errors!r} and that of the other on {other.errors!r}; refit "
                "them alike."
            )
        if self.errors != "seeds" and not np.array_equal(self.n, other.n):
            raise ValueError(
                "with one seed at every n two fits can be subtracted on the same n only: residuals are resampled together. "
                "Fit both on the n that they have in common."
            )

    def plot(self, axes: np.ndarray | None = None) -> np.ndarray:
        """Draws three panels: the curve with its fit and band, the residuals, and the local exponents with bands.

        Returns the matplotlib axes (3,); `axes` (3,) draws into those.
        """
        from .plot import plot_rate

        return plot_rate(self, axes)

    def __str__(self) -> str:
        notes = plural(self.seeds, "seed")
        if self.units != self.seeds:
            notes += f" in {plural(self.units, 'group')}"
        if self.errors != "seeds":
            notes += f", {self.errors_sentence}"
        if not isinstance(self.model, PowerLaw):
            notes += f", {self.model.formula}"
        if self.method != "wls":
            notes += f", {self.method}"
        if self.warnings:
            notes += f", {plural(len(self.warnings), 'warning')}"
        return f"{self._found} over n = {short(self.n[0])}..{short(self.n[-1])} ({notes})"

    @property
    def errors_sentence(self) -> str:
        """The source of the interval, as in `interval by residual bootstrap, 17 degrees of freedom`."""
        if self.errors == "seeds":
            return f"interval from {plural(self.units, 'seed' if self.units == self.seeds else 'group')} resampled"
        freedom = f"{self.freedom:.3g} degree{'s' if self.freedom != 1 else ''} of freedom"
        return f"interval by {KINDS[self.errors]}, {freedom}"

    @property
    def _found(self) -> str:
        low, high = self.interval
        start = f"{self.exponent:z.3f}" if self.identified else f"not identified, best fit {self.exponent:z.3f},"
        return f"{start} [{low:z.3f}, {high:z.3f}]"

    def _repr_html_(self) -> str:
        low, high = self.interval
        found = f"{self.exponent:z.3f}" if self.identified else f"not identified, best fit {self.exponent:z.3f}"
        entries = {
            "exponent": f"{found}, {100 * self.level:g} % interval [{low:z.3f}, {high:z.3f}]",
            "model": f"{self.model.formula}, {self.method}",
            "which exponent": self.model.meaning,
            "window": f"n = {short(self.n[0])}..{short(self.n[-1])}, {plural(self.seeds, 'seed')}",
            "local exponents": ", ".join(f"{slope:z.2f}" for slope in self.local_slopes),
        }
        if self.errors != "seeds":
            entries["interval"] = self.errors_sentence.removeprefix("interval ")
        if np.isfinite(self.goodness):
            entries["fit"] = f"p = {self.goodness:.2g} (small speaks against the model)"
        return card("Rate: risk falls as n to the power -exponent", entries, self.warnings)

    def __repr__(self) -> str:
        # With all warnings, so that a reader sees them before quoting the number.
        return "\n".join([f"Rate({self})", *(f"  ! {text}" for text in self.warnings)])


def weights_of(summary: Summary, method: FoundMethod) -> np.ndarray:
    """The weights of a fit: 1 / variance, or the number of risks."""
    return summary.size if method == "gamma" else 1.0 / summary.variance


def contrast(a: Rate, b: Rate, value: float, draws: np.ndarray) -> Estimate:
    """The estimate of a number that depends on two fits, from its draws, with the warnings of both. Its interval is infinite if
    one exponent is not identified."""
    (low, high), _ = expanded_percentiles(
        draws[~np.isnan(draws)], value, min(a.effective_seeds, b.effective_seeds), a.level
    )
    if not (a.identified and b.identified):
        low, high = -np.inf, np.inf
    warnings = [f"{name}: {text}" for name, fit in (("a", a), ("b", b)) for text in fit.warnings]
    return Estimate(value, (low, high), a.level, tuple(warnings))


def ratio_of(a: Rate, b: Rate) -> Estimate:
    """a.exponent / b.exponent; see `Rate.over`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = contrast(a, b, float(np.divide(a.exponent, b.exponent)), a.draws / b.draws)
    low, high = b.interval
    if low <= 0.0 <= high:
        note = "the divisor's exponent may be 0, so the ratio has no bounded interval."
        return Estimate(estimate.value, (-np.inf, np.inf), a.level, (*estimate.warnings, note))
    return estimate
