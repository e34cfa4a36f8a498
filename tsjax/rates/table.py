"""The data of a fit: a table of risks (k, seeds), its means with their variances, and resamples of its seeds.

Row i holds the risks of all seeds at x_i. Resampling draws *units*: columns, or groups of columns if several columns share a
teacher. Every resample is a vector of multiplicities over units, so that all sums of all resamples are one matrix product.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .checks import Numbers as Numbers
from .checks import as_array as as_array
from .checks import bracket as bracket
from .checks import check_not_infinite as check_not_infinite
from .checks import check_options as check_options
from .checks import check_positive as check_positive
from .checks import plural as plural
from .checks import short as short
from .resamples import Resamples as Resamples
from .resamples import one_thread

# No n may have more than 1000 times the average weight: a variance near zero is an accident of a small sample.
VARIANCE_FLOOR = 1e-3
# A seed above 10 medians counts as a failure rather than noise. If such seeds carry a fifth of a mean, the mean shows how many
# failed, not how good the others are.
TAIL_FACTOR, TAIL_SHARE = 10.0, 0.2
# Relative deviations below this are rounding.
ROUNDING = 1e-14
# Degrees of freedom of the Student law that describes log risks if some seeds fail (`Table.typical`).
TAIL_FREEDOM = 4.0
_LEAST_SCALE = 1e-12


class Summary(NamedTuple):
    """The numbers that a fit needs from a table, or from each of its resamples (leading axes).

    - `log_mean` (..., k): log of the mean risk, or the typical log risk; NaN if a resample has no positive mean.
    - `variance` (..., k): its estimated variance, positive.
    - `size` (..., k): the number of risks behind it.
    """

    log_mean: np.ndarray
    variance: np.ndarray
    size: np.ndarray


@dataclass(frozen=True, eq=False)
class Table:
    """A checked table of risks; see `make_table`.

    - `x` (k,) increasing; `risks` (k, seeds), NaN where missing; `there` (k, seeds).
    - `units` (seeds,): which unit a column belongs to, 0..number-1. `number` of units.
    - `deviations` (k, number): sums over a unit of risk / mean - 1. `sizes` (k, number): how many risks a unit has.
    """

    x: Float[np.ndarray, " k"]
    risks: Float[np.ndarray, "k seeds"]
    there: Bool[np.ndarray, "k seeds"]
    mean: Float[np.ndarray, " k"]
    units: Int[np.ndarray, " seeds"]
    number: int
    deviations: Float[np.ndarray, "k number"]
    sizes: Float[np.ndarray, "k number"]

    @property
    def present(self) -> Int[np.ndarray, " k"]:
        """How many seeds have a risk at each x."""
        return self.there.sum(axis=1)

    @property
    def units_present(self) -> Int[np.ndarray, " k"]:
        """How many units have a risk at each x."""
        return (self.sizes > 0).sum(axis=1)

    @property
    def relative_spread(self) -> Float[np.ndarray, " k"]:
        """The mean square of risk / mean - 1 over seeds at each x."""
        return (np.where(self.there, self.risks / self.mean[:, None] - 1.0, 0.0) ** 2).sum(axis=1) / self.present

    def keep(self, rows: np.ndarray) -> "Table":
        """The table at some of its x: a mask or indices."""
        return Table(
            self.x[rows],
            self.risks[rows],
            self.there[rows],
            self.mean[rows],
            self.units,
            self.number,
            self.deviations[rows],
            self.sizes[rows],
        )

    def resamples(self, draws: int, seed: int, paired: bool) -> "Resamples":
        """Multiplicities of the units in each resample: (draws, number), or (k, draws, number) unpaired."""
        return Resamples(self.number, draws, seed, None if paired else len(self.x))

    def means(self, taken: "Resamples | np.ndarray | None" = None) -> Summary:
        """Log mean risk in every resample, or under multiplicities (draws, number), or, without an argument, of the table
        itself.

        var(log mean) = var(mean) / mean^2 (delta method), var(mean) from the spread of the units' sums.
        """
        return Summary(*taken.each(self._means)) if isinstance(taken, Resamples) else self._means(taken)

    def _means(self, counts: np.ndarray | None) -> Summary:
        z, size = self.deviations, self.sizes
        k, single = len(self.x), bool(self.sizes.max() <= 1.0)
        # With one risk in a unit, size^2 = size, z size = z, and units are counted by their risks.
        parts = [z, z * z, size] if single else [z, z * z, size, z * size, size * size, (size > 0).astype(float)]
        # If nothing is missing, every x has as many risks as units were taken.
        complete = single and bool(self.there.all())
        rows = np.stack(parts[:2] if complete else parts)
        if counts is None:
            sums = rows.sum(axis=2)
        else:
            with one_thread():
                if counts.ndim == 2:
                    sums = (rows.reshape(-1, self.number) @ counts.T).reshape(len(rows), k, -1).swapaxes(1, 2)
                else:
                    sums = np.matmul(counts, rows.transpose(1, 2, 0)).transpose(2, 1, 0)
        total, square = sums[0], sums[1]
        if complete:
            taken = np.array(float(self.number)) if counts is None else counts.sum(axis=-1)
            count = np.broadcast_to(taken.T if taken.ndim == 2 else taken[..., None], total.shape)
        else:
            count = sums[2]
        cross, square_size, number = (total, count, count) if single else (sums[3], sums[4], sums[5])
        with np.errstate(divide="ignore", invalid="ignore"):
            shift = total / count
            relative = np.where(shift > -1.0, 1.0 + shift, np.nan)
            # Sum over units of (z - shift size)^2, the squared deviations from the resample's own mean.
            spread = (square - 2.0 * shift * cross + shift**2 * square_size) / (count * relative) ** 2
            return Summary(np.log(self.mean) + np.log(relative), _filled(spread, number, count), count)

    def typical(self, taken: "Resamples | np.ndarray | None" = None) -> Summary:
        """As `means`, but of the typical log risk: the maximum-likelihood location of log risks that follow Student's law with
        `TAIL_FREEDOM` degrees of freedom and a scale of their own at each x, by expectation-maximisation (Lange, Little &
        Taylor, JASA 84, 1989). A failed seed has a bounded influence. The variance is that of the influences.
        """
        return Summary(*taken.each(self._typical)) if isinstance(taken, Resamples) else self._typical(taken)

    def _typical(self, counts: np.ndarray | None) -> Summary:
        copies = self._copies(counts)
        at, scale = self._location(copies)
        influence = self._typical_influence(copies, at, scale)
        count = copies.sum(axis=-1)
        if self.sizes.max() <= 1.0:
            spread, number = (copies * influence**2).sum(axis=-1), count
        else:
            # Within a unit, influences add before they are squared; copies of a unit count as units of their own.
            member = self._member
            times = np.ones(self.number) if counts is None else counts
            times = times[:, None, :] if times.ndim == 2 else np.swapaxes(times, 0, 1) if times.ndim == 3 else times
            spread = (times * ((influence * self.there) @ member) ** 2).sum(axis=-1)
            number = (times * (self.sizes > 0)).sum(axis=-1)
        at = np.where(count > 0, at, np.nan)
        return Summary(at, _filled(spread, number, count), count)

    @property
    def _member(self) -> np.ndarray:
        return (self.units[:, None] == np.arange(self.number)).astype(float)

    def _copies(self, counts: np.ndarray | None) -> np.ndarray:
        """How often each risk is taken, (..., k, seeds)."""
        if counts is None:
            return self.there.astype(float)
        taken = counts @ self._member.T
        return (taken[:, None, :] if counts.ndim == 2 else np.swapaxes(taken, 0, 1)) * self.there

    @property
    def _log_risks(self) -> np.ndarray:
        return np.log(np.where(self.there, self.risks, 1.0))

    def _location(self, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Location and scale (..., k) of Student log risks."""
        log_risk, nu, shape = self._log_risks, TAIL_FREEDOM, copies.shape[:-1]
        # Starting from median and median deviation of the whole table, every resample is close to its solution.
        rows = [row[ok] for row, ok in zip(log_risk, self.there, strict=True)]
        at = np.array([np.median(row) for row in rows])
        scale = np.array([np.median(np.abs(row - m)) / 0.6745 for row, m in zip(rows, at, strict=True)])
        at, scale = np.broadcast_to(at, shape), np.broadcast_to(np.maximum(scale, _LEAST_SCALE), shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            for _ in range(30):
                weight = copies * (nu + 1.0) / (nu + ((log_risk - at[..., None]) / scale[..., None]) ** 2)
                at = (weight * log_risk).sum(axis=-1) / weight.sum(axis=-1)
                square = (weight * (log_risk - at[..., None]) ** 2).sum(axis=-1) / copies.sum(axis=-1)
                scale = np.maximum(np.sqrt(square), _LEAST_SCALE)
        return at, scale

    def _typical_influence(self, copies: np.ndarray, at: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """The influence of each risk on the location, (..., k, seeds): score / (- sum of its derivatives)."""
        nu = TAIL_FREEDOM
        with np.errstate(divide="ignore", invalid="ignore"):
            standard = (self._log_risks - at[..., None]) / scale[..., None]
            score = (nu + 1.0) * standard / (nu + standard**2)
            slope = (nu + 1.0) * (nu - standard**2) / (nu + standard**2) ** 2
            return scale[..., None] * score / (copies * slope).sum(axis=-1)[..., None]

    def influence(self, typical: bool) -> Float[np.ndarray, "k number"]:
        """The influence of each unit on the log mean (or the typical log risk) at each x. The sum of their squares is its
        variance, up to the factor s / (s-1)."""
        if not typical:
            return self.deviations / self.present[:, None]
        copies = self._copies(None)
        at, scale = self._location(copies)
        return (self._typical_influence(copies, at, scale) * self.there) @ self._member

    def variance_of(self, coefficients: np.ndarray, paired: bool, typical: bool = False) -> tuple[float, float]:
        """Delta-method variance of sum_i c_i log mean_i, and the number s of units it effectively rests on.

        If `paired`, a unit's influences add over the rows before they are squared; otherwise the variances of rows add. The
        effective number is Satterthwaite's. If paired, s = (sum e)^2 / sum e^2 with the contributions e that units would have
        if rows were independent: all units if every unit is present at every x, and fewer if only a few units are present at
        the x that matter most. If unpaired, s - 1 = (sum v)^2 / sum (v_i^2 / (s_i - 1)) with the variances v_i of rows.
        """
        influence, present = self.influence(typical), self.units_present
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = np.asarray(coefficients) ** 2 * (influence**2).sum(axis=1) * present / (present - 1.0)
        rows = np.where(present > 1, rows, 0.0)
        if rows.sum() == 0.0:
            return 0.0, float(present.min())
        if not paired:
            one = np.where(present > 1, rows**2 / np.maximum(present - 1.0, 1.0), 0.0).sum()
            return float(rows.sum()), float(1.0 + rows.sum() ** 2 / one)
        shares = np.where(self.sizes > 0, (rows / present)[:, None], 0.0).sum(axis=0)
        effective = float(shares.sum() ** 2 / (shares**2).sum())
        total = float(((np.asarray(coefficients) @ influence) ** 2).sum())
        return total * effective / max(effective - 1.0, 0.5), effective


def make_table(n: Numbers, risks: Numbers, groups: Numbers | None = None) -> Table:
    """Checks the arguments of a fit: x positive and increasing (k,), risks (k, seeds), finite or NaN, means positive.

    `groups` (seeds,) labels the unit of each column; by default each column is a unit. Raises ValueError otherwise.
    """
    x, table = as_array(n, "n"), as_array(risks, "risks")
    check_table(x, table)
    seeds = table.shape[1]
    there = ~np.isnan(table)
    present = there.sum(axis=1)
    mean = np.where(there, table, 0.0).sum(axis=1) / np.maximum(present, 1)
    for i in range(len(x)):
        if present[i] == 0:
            raise ValueError(f"there is no risk at n = {short(x[i])}: all {seeds} are NaN. Leave this n out.")
        if mean[i] <= 0:
            raise ValueError(
                f"the mean risk at n = {short(x[i])} is {mean[i]:.4g}; a power law needs positive means. "
                "Leave this n out, or estimate its risk with less error."
            )
    units = np.arange(seeds)
    if groups is not None:
        labels = np.asarray(groups)
        if labels.shape != (seeds,):
            raise ValueError(
                f"groups must label each of the {seeds} columns of risks, shape ({seeds},); got shape {labels.shape}."
            )
        units = np.unique(labels, return_inverse=True)[1]
    # Relative deviations, because squares of risks as small as 1e-200 would underflow, and centred, to avoid cancellation.
    # Rounding errors of equal numbers are set to 0.
    z = np.where(there, table / mean[:, None] - 1.0, 0.0)
    z = np.where(np.abs(z) < ROUNDING, 0.0, z)
    sizes, number = there.astype(float), seeds
    if groups is not None:
        number = int(units.max()) + 1
        member = (units[:, None] == np.arange(number)).astype(float)
        z, sizes = z @ member, sizes @ member
    return Table(x, table, there, mean, units, number, z, sizes)


def check_positive_risks(table: Table) -> None:
    """Raises ValueError if a risk that is not missing has no logarithm."""
    bad = table.there & ~(table.risks > 0)
    if bad.any():
        i, j = (int(v) for v in np.argwhere(bad)[0])
        raise ValueError(
            f"method='student_t' takes logarithms of single risks, and the one at n = {short(table.x[i])}, column {j}, is "
            f"{table.risks[i, j]:g}. Use method='wls' or 'gamma', which only need positive means."
        )


def _filled(spread, number, count):
    """Variances from sums of squares over `number` units. An x with one unit, which shows no scatter, takes the average of the
    others per risk. If no x has any variance, all risks have the same weight."""
    known = number > 1
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(known, spread * count * number / np.maximum(number - 1.0, 1.0), 0.0)
        typical = one.sum(axis=-1, keepdims=True) / np.maximum(known.sum(axis=-1, keepdims=True), 1)
        one = np.where(known, np.maximum(one, VARIANCE_FLOOR * typical), typical)
        return np.where(typical > 0.0, one, 1.0) / count


def tail_share(risks: np.ndarray) -> float:
    """The share of the sum that risks above ten medians contribute."""
    return float(risks[risks > TAIL_FACTOR * max(np.median(risks), 0.0)].sum() / risks.sum())


def check_table(x: np.ndarray, table: np.ndarray) -> None:
    """Raises ValueError unless x (k,) is positive and increasing, and table (k, seeds) finite or NaN."""
    if x.ndim != 1 or table.ndim != 2 or table.shape[0] != len(x) or table.shape[1] == 0:
        raise ValueError(
            f"expected n of shape (k,) and risks of shape (k, seeds), got {x.shape} and {table.shape}. "
            "Row i of risks holds the risks of all seeds at n[i]."
        )
    check_positive(x, "n", "A power law has no point there; leave it out.")
    if len(np.unique(x)) < 2:
        raise ValueError(f"an exponent needs at least 2 different n, got {[float(v) for v in x]}.")
    if not (np.diff(x) > 0).all():
        raise ValueError(
            f"n must increase strictly, got {[float(v) for v in x]}. Sort n and the rows of risks together; "
            "put the seeds of equal n into one row."
        )
    check_not_infinite(table, "risks")
