"""Numbers of a result that tables, figures and page share, and how they are formatted."""

import re
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from ..rates import Estimate, Share, mean_ratio, why_no_risk
from ..rates.checks import beside, bracket, decimals_of, significant
from ..status import Status
from ..sweep.coverage import Coverage
from ..sweep.curve import Curve
from ..sweep.records import failed_cells
from ..sweep.result import Result
from ..sweep.spec import RECORDED
from ..sweep.values import labels_of, text_of
from .text import shown

Number: TypeAlias = int | float | np.floating

# The column with the least risk of an unbiased estimator, and the name of the curve that no linear estimator beats.
LIMIT, BEST_LINEAR = "cramer_rao", "optimal_linear"
# The column that says whether a student found its teacher.
SUCCESS = "success"


@dataclass(frozen=True)
class LastPoint:
    """A curve at its largest x.

    - `x`, `mean`, `se`, `median`: over the seeds present; NaN if there are none (`se`: if there are fewer than two).
    - `seeds`: the number of seeds present.
    - `to_limit`, `to_linear`: ratio of the mean to the Cramér-Rao limit, and to the optimal linear estimator on the same seeds;
      None if there is nothing to compare with.
    """

    curve: Curve
    x: float
    mean: float
    se: float
    median: float
    seeds: int
    to_limit: Estimate | None
    to_linear: Estimate | None


def label_of(result: Result, name: str) -> str:
    """The experiment's label for an argument, a value or a curve."""
    return shown(result.experiment.labels.get(name, name))


def the(label: str) -> str:
    """A label within a sentence, such as `the NTK ridge`; unchanged if it has an article already, or is an equation."""
    first = label.split(" ")[0]
    return label if first in ("the", "a", "an") or first.endswith("'s") or "=" in label or not label else f"the {label}"


def full_name(result: Result, curve: Curve) -> str:
    """The name of a curve: its learner and the arguments that vary, as in `two-phase student (d = 5, m = 3)`."""
    variant = variant_of(result, curve)
    return label_of(result, curve.name) + (f" ({variant})" if variant else "")


def x_is_returned(result: Result) -> bool:
    """Whether x is a vector that every cell returns (a path through training), rather than an argument of the grid."""
    return result.experiment.returns_x


def at(result: Result, x: Number) -> str:
    """`sample size n = 2048`."""
    return f"{label_of(result, result.experiment.x)} = {short(x)}"


def over(result: Result, low: Number, high: Number, axis: str | None = None) -> str:
    """`sample size n = 128..2048`, or a single value; `axis` names an argument other than x."""
    start = at(result, low) if axis is None else f"{label_of(result, axis)} = {short(low)}"
    return start + ("" if low == high else f"..{short(high)}")


def shows_rate(result: Result, curve: Curve) -> bool:
    """Whether reports show the exponent of a curve: if the experiment or an expectation says that y is a power of x, but never
    along a returned x."""
    return not x_is_returned(result) and (result.experiment.rates or result.claims_power_law(curve))


def variants(result: Result) -> list[str]:
    """The arguments, other than x and the curve's name, in which the curves differ."""
    experiment, curves = result.experiment, result.curves()
    names = [name for name in experiment.names if name not in (experiment.x, experiment.curve)]
    return [name for name in names if len({repr(curve.arguments[name]) for curve in curves}) > 1]


def variant_of(result: Result, curve: Curve) -> str:
    """The values of `variants` for one curve, such as `d = 5, m = 3`; empty if nothing varies. Different variants have
    different texts."""
    parts = []
    for name in variants(result):
        labels = labels_of(other.arguments[name] for other in result.curves())
        parts.append(f"{label_of(result, name)} = {shown(labels[text_of(curve.arguments[name])])}")
    return ", ".join(parts)


def rows_of(result: Result, curve: Curve) -> pd.DataFrame:
    """The records of one curve."""
    return result.rows(curve)


def counts_of(result: Result, curve: Curve) -> dict[str, int]:
    """How the cells of a curve ended: the number of cells by status, in the order of the codes. Cells of experiments without a
    status count as `done`."""
    cells = rows_of(result, curve).drop_duplicates("cell")
    if "status" not in cells:
        return {"done": len(cells)}
    known = {int(status): status.words for status in Status}
    codes, numbers = np.unique(cells["status"].to_numpy(int), return_counts=True)
    return {known.get(int(code), f"status {code}"): int(count) for code, count in zip(codes, numbers, strict=True)}


def failed_of(result: Result, curve: Curve) -> int:
    """The number of failed cells of a curve: by their status, or because their first y is not finite."""
    return failed_cells(rows_of(result, curve), result.experiment.y[0])


def limit_of(result: Result, curve: Curve) -> np.ndarray | None:
    """The recorded Cramér-Rao limit (k,) at the curve's x; None if it is not recorded or not positive."""
    if LIMIT not in result.records:
        return None
    rows = rows_of(result, curve)
    x, values = rows[result.experiment.x].to_numpy(float), rows[LIMIT].to_numpy(float)
    limit = np.array([values[x == at].mean() for at in curve.x])
    return limit if bool(np.all(limit > 0)) else None


def table_of(result: Result, curve: Curve, column: str) -> np.ndarray:
    """Any recorded column of a curve as a table (k, seeds), NaN where it is missing or not a number."""
    rows, x = rows_of(result, curve), result.experiment.x
    table = np.full((len(curve.x), len(curve.seeds)), np.nan)
    if column in rows and pd.api.types.is_numeric_dtype(rows[column]):
        i = np.searchsorted(curve.x, rows[x].to_numpy(float))
        j = np.searchsorted(curve.seeds, rows["seed"].to_numpy(int))
        table[i, j] = rows[column].to_numpy(float)
    return table


def aims_at_limit(result: Result, curve: Curve) -> bool:
    """Whether theory's prediction of a curve is the recorded Cramér-Rao limit itself."""
    limit, predicted = limit_of(result, curve), curve.theory.predicted
    return limit is not None and predicted is not None and bool(np.allclose(limit, predicted, rtol=1e-3, atol=0.0))


def means_of(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over seeds of a table (k, seeds) with the ends of 95 % intervals to draw, each (k,).

    The interval is Student's on the log scale, mean exp(+- t s.e. / mean). It is positive, and smooth along a curve with few
    seeds, while the resampled intervals of `rates.mean_ratio` cover better but jump from one x to the next. NaN marks missing
    numbers: the mean of a row without values, and the interval for one seed or for values that are not risks
    (`rates.why_no_risk`), whose mean has no such interval.
    """
    from scipy.special import stdtrit

    there = ~np.isnan(table)
    count = there.sum(axis=1)
    mean = np.where(count > 0, np.where(there, table, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
    known = (count > 1) & np.array([why_no_risk(row, "") is None for row in table])
    deviation = np.where(there, table - mean[:, None], 0.0)
    error = np.sqrt((deviation**2).sum(axis=1) / np.maximum(count * (count - 1), 1))
    reach = np.full(len(table), np.nan)
    reach[known] = stdtrit(count[known] - 1, 0.975) * error[known] / mean[known]
    with np.errstate(over="ignore"):
        return mean, mean * np.exp(-reach), mean * np.exp(reach)


def drawn_means(
    result: Result, curve: Curve, metric: str, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of a recorded column, table (k, seeds), with the ends of the 95 % intervals of its kind, each (k,); NaN where there
    is none. For positive numbers they are those of `means_of`."""
    kind = result.kind(metric)
    if kind.has_ratios:
        return means_of(table)
    name = kind.trials if isinstance(kind, Share) else None
    counts = table_of(result, curve, name) if isinstance(name, str) else None
    found = np.full((3, len(table)), np.nan)
    for i, row in enumerate(table):
        if np.isfinite(row).any():
            try:
                estimate = kind.mean(row, None if counts is None else counts[i])
            except ValueError:  # The values do not fit their kind, as the verdicts say: a mean without an interval.
                found[0, i] = np.nanmean(row)
                continue
            found[:, i] = estimate.value, *(end if np.isfinite(end) else np.nan for end in estimate.interval)
    return found[0], found[1], found[2]


def last_point(result: Result, curve: Curve) -> LastPoint:
    """The first y of the experiment at the curve's largest x."""
    values = curve.values[result.experiment.y[0]][-1]
    there = values[~np.isnan(values)]
    limit = limit_of(result, curve)
    return LastPoint(
        curve=curve,
        x=float(curve.x[-1]),
        mean=float(there.mean()) if there.size else np.nan,
        se=float(there.std(ddof=1) / np.sqrt(there.size)) if there.size > 1 else np.nan,
        median=float(np.median(there)) if there.size else np.nan,
        seeds=int(there.size),
        to_limit=None if limit is None else _ratio(values, float(limit[-1])),
        to_linear=_to_linear(result, curve),
    )


def _to_linear(result: Result, curve: Curve) -> Estimate | None:
    """The ratio to the optimal linear curve of the same variant at the largest x; None if there is none."""
    varying, x = variants(result), float(curve.x[-1])
    for rival in result.curves():
        same = all(rival.arguments[name] == curve.arguments[name] for name in varying)
        if rival.name == BEST_LINEAR and rival is not curve and same and x in rival.x:
            return ratio_at(result, curve, rival, x)
    return None


def ratio_at(result: Result, curve: Curve, rival: Curve, x: float) -> Estimate | None:
    """The mean of the first y at x over that of a rival that has this x too, paired by seed; None if a mean is missing, or the
    values are not risks."""
    y = result.experiment.y[0]
    _, i, j = np.intersect1d(curve.seeds, rival.seeds, return_indices=True)
    mine, theirs = (one.values[y][np.flatnonzero(one.x == x)[0]] for one in (curve, rival))
    return _ratio(mine[i], theirs[j])


def _ratio(numerator: np.ndarray, denominator: np.ndarray | float) -> Estimate | None:
    try:
        return mean_ratio(numerator, denominator)
    except ValueError:  # No seeds remain, or the values are not risks, as the warnings say.
        return None


def warnings_of(result: Result, model: str = "power", asked: bool = False) -> list[tuple[list[Curve], str]]:
    """Warnings about the fitted exponents that are shown (all of them if they were `asked` for), each once, with the curves
    that it is about. A missing exponent is a warning if one is claimed or was asked for."""
    found: dict[str, list[Curve]] = {}
    for curve in result.curves():
        if not (shows_rate(result, curve) or asked and not x_is_returned(result)):
            continue
        texts = result.warnings(result.claimed(curve), model)
        if texts and texts[0].startswith("no exponent: ") and not (asked or result.claims_power_law(curve)):
            continue
        for text in texts:
            found.setdefault(text, []).append(curve)
    return [(curves, text) for text, curves in found.items()]


def by_axis(result: Result, text: str) -> str:
    """A sentence about a fit, with the real name of the axis in place of n."""
    return re.sub(r"\bn\b(?!\^)", lambda _: label_of(result, result.experiment.x), text)


def is_recorded(result: Result) -> bool:
    """Whether other code made the records, and they were read from a table (`tsjax.from_table`)."""
    return result.spec.study == RECORDED


def compute_seconds(result: Result) -> tuple[float, float]:
    """Seconds of running and of compiling behind the records; 0 for runs that were read from a table."""
    records = result.records
    if records.empty or is_recorded(result):
        return 0.0, 0.0
    cells = records.drop_duplicates("cell")
    # Every record has the seconds of its whole program, so each program counts once.
    programs = records.drop_duplicates([*result.experiment.static, "compile_seconds"])
    return float(cells["run_seconds"].to_numpy().sum()), float(programs["compile_seconds"].to_numpy().sum())


def verdict_summary(outcomes: list[str]) -> str:
    """One sentence about all verdicts: `3 of 4 expectations hold, 1 undecided.`"""
    if not outcomes:
        return "This sweep states no expectations."
    count, holds = len(outcomes), outcomes.count("holds")
    text = f"{holds} of {plural(count, 'expectation')} {'holds' if 1 in (holds, count) else 'hold'}"
    others = [f"{outcomes.count(name)} {name}" for name in ("fails", "undecided") if name in outcomes]
    return ", ".join([text, *(other.replace("fails", "failed") for other in others)]) + "."


def summary_of(result: Result, corrected: bool = False) -> str:
    """`verdict_summary` of a result, with the number of its cells if some are missing or are not in its plan."""
    text = verdict_summary([str(verdict.outcome) for verdict in result.verdicts(corrected)])
    coverage = result.coverage
    if coverage.whole or not result.spec.expect:
        return text
    others = f" and {coverage.beyond} beyond its plan" if coverage.beyond else ""
    return f"{text[:-1]}, judged by {coverage.done} of {coverage.cells} cells{others}."


def notes_of(coverage: Coverage) -> list[str]:
    """Notes to read before trusting the numbers (`Coverage.notes`), with names of chunks shortened to their first letters."""
    return [_CHUNK.sub(r"\1*", note) for note in coverage.notes]


# The first letters of a chunk's name identify it, and a star makes them a pattern for shells.
_CHUNK = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\.parquet")


def plural(count: int, noun: str) -> str:
    """`1 seed`, `4 seeds`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def short(value: object) -> str:
    """A value of an argument or of x: whole numbers in full, other numbers with 4 digits, text unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return str(value)
    number = float(value)
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e9 else f"{number:.4g}"


def digits(value: Number, count: int = 3) -> str:
    """A measured number with `count` significant digits; a dash for NaN."""
    return "–" if np.isnan(value) else significant(float(value), count)


def mean_with_error(mean: Number, se: Number) -> str:
    """`1.23e-05 ± 0.04e-05`, with equal decimals; the mean alone if there is no standard error."""
    if np.isnan(se) or not 0 < se < np.inf:
        return digits(mean)
    return " ± ".join(decimals_of((float(mean), float(se)), float(se)))


def exponent_with_interval(exponent: Number, low: Number, high: Number, identified: bool = True) -> str:
    """`1.01 [0.98, 1.04]`; a dash for NaN; `not identified [0.4, inf]`."""
    if np.isnan(exponent):
        return "–"
    if identified:
        return beside(float(exponent), (float(low), float(high)))
    return f"not identified {bracket((float(low), float(high)))}"


def exponents_of(rates: pd.DataFrame) -> list[str]:
    """The exponents of `Result.rates` with their intervals."""
    names = ("exponent", "low", "high", "identified")
    return [exponent_with_interval(*row) for row in zip(*(rates[name] for name in names), strict=True)]


def errors_note(rates: pd.DataFrame) -> str:
    """The source of the intervals of `Result.rates` if it is not seeds; otherwise empty."""
    without = np.isin(list(rates["errors"]), ["residuals", "wild"])
    if not without.any():
        return ""
    where = "" if without.all() else " of curves with one seed"
    return f"intervals{where} are by residual bootstrap: one seed shows no noise except the scatter of the points about the fit"


def ratio_with_interval(estimate: Estimate | None) -> str:
    """`1.31 [1.20, 1.42]`; a dash if there is no ratio."""
    if estimate is None:
        return "–"
    return beside(estimate.value, estimate.interval)


def decimals(value: Number) -> str:
    """An exponent without an interval: two decimals, or a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:z.2f}"


def duration(seconds: Number) -> str:
    """`850 ms`, `12 s`, `4 min 10 s`, `3 h 20 min`."""
    seconds = float(seconds)
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60) if seconds >= 3600 else int(round(seconds)) // 60
    if minutes < 60:
        return _two_units(minutes, "min", int(round(seconds)) % 60, "s")
    return _two_units(minutes // 60, "h", minutes % 60, "min")


def _two_units(large: int, of_large: str, small: int, of_small: str) -> str:
    return f"{large} {of_large} {small} {of_small}" if small else f"{large} {of_large}"


def prefixed(value: Number, unit: str = "") -> str:
    """A large number with an SI prefix: `12.3k`, `1.2M`, `4.5G FLOP`."""
    for factor, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.3g}{letter}{unit}"
    return f"{value:.3g}{unit}"
