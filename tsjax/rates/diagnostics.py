"""Warnings to print beside an exponent, and the tests behind them."""

import numpy as np

from .checks import plural, short
from .intervals import FEW_SEEDS
from .residuals import KINDS, FoundErrors, Scatter
from .table import TAIL_FACTOR, TAIL_SHARE, VARIANCE_FLOOR, Table, tail_share

# A window that spans a factor of less than 4 shows a local slope rather than a rate.
NARROW = 4.0
# A drift of the local exponent below this does not matter, however significant.
DRIFT = 0.05
# The level at which drift and bends are reported.
ALARM = 0.01
ALIKE = "all seeds have the same value, so the interval has no width; it says nothing about other seeds."


def heavy_tail_sentence(share: float, where: str) -> str:
    """The warning about a few extreme seeds."""
    return (
        f"heavy tail: seeds above {TAIL_FACTOR:g} times the median carry {100 * share:.0f} % of the mean {where}, so "
        "a few seeds decide it and the interval may miss."
    )


def few_seeds_warning(least: int, units: str = "seed") -> list[str]:
    """The warning about too few seeds for an interval; empty from 4 seeds on."""
    if least == 1:
        return [f"one {units}: there is no interval. Give at least 4 {units}s."]
    if least < FEW_SEEDS:
        return [f"only {least} {units}s: the interval is rough and very wide. Give at least 4 {units}s."]
    return []


def open_sentence(interval: tuple[float, float]) -> str:
    """The warning about an exponent that the data do not identify."""
    low, high = interval
    if np.isfinite(low):
        which = f"any exponent above {low:.3g} fits"
    elif np.isfinite(high):
        which = f"any exponent below {high:.3g} fits"
    else:
        which = "any exponent fits"
    return (
        f"the exponent is not identified: {which} about as well, since the curve is flat, or bends only at an end of the "
        "window. Give n where it still falls, more seeds, or choose a simpler model."
    )


def residuals_sentence(table: Table, errors: FoundErrors, scatter: Scatter, place: str = "n") -> str:
    """The warning that says what an interval without seeds assumes. `place`: what a row of the table is called."""
    k, freedom = len(table.x), scatter.freedom
    one = f"one seed at every {place}" if table.units_present.max() == 1 else "seeds were not resampled"
    if freedom <= 0:
        return (
            f"{one}, and as many parameters as rows of risks ({k}): without scatter there is no error, and no interval."
        )
    if not scatter.standard.any():
        return (
            f"{one}, and the points lie on the curve: without scatter there is no error, so the interval has no width."
        )
    alike = "independent" if errors == "wild" else f"independent and alike at every {place}"
    return (
        f"{one}: the interval rests on the scatter of the {k} points about the curve ({KINDS[errors]}, {freedom:.3g} degrees "
        f"of freedom). It assumes that the model is true and that errors of log "
        f"risk are {alike}; other seeds may give another curve."
    )


def tail_shares(table: Table) -> np.ndarray:
    """`tail_share` at each x (k,)."""
    return np.array([tail_share(row[ok]) for row, ok in zip(table.risks, table.there, strict=True)])


def rate_warnings(
    table: Table,
    *,
    tails: np.ndarray,
    goodness: float,
    drift: tuple[float, float, float] | None,
    model: str,
    lost_draws: int,
    grouped: bool,
    open_interval: tuple[float, float] | None,
    errors: FoundErrors,
    scatter: Scatter,
    local: bool = False,
) -> tuple[str, ...]:
    """The warnings to print beside a fitted exponent. `drift`: the change of the local exponent from the first to the last x,
    and its interval at 99 %; None if it was not tested. `open_interval`: the interval of an exponent that is not identified,
    else None. `local`: whether the model has no exponent in the limit.
    """
    x, present, seeds, found = table.x, table.present, table.risks.shape[1], []
    if (present < seeds).any():
        where = ", ".join(f"{short(a)} ({seeds - c})" for a, c in zip(x, present, strict=True) if c < seeds)
        found.append(
            f"{int((seeds - present).sum())} of {seeds * len(x)} risks are missing (NaN), at n = {where}; "
            "means are over the seeds that are there."
        )
    worst = int(np.argmax(tails))
    if tails[worst] > TAIL_SHARE:
        found.append(
            heavy_tail_sentence(tails[worst], f"at n = {short(x[worst])}")
            + " The weighted fit nearly ignores such an n: give median and success share beside the rate."
        )
    least = int(table.units_present.min())
    if local:
        found.append(
            f"the model {model!r} falls faster than any power, and has no exponent in the limit: the exponent is the local "
            f"one, of the part above the floor, at n = {short(x[-1])}."
        )
    if open_interval is not None:
        found.append(open_sentence(open_interval))
    if errors == "seeds":
        found += few_seeds_warning(least, "group" if grouped else "seed")
    else:
        found.append(residuals_sentence(table, errors, scatter))
    second = table.relative_spread
    # Two or three seeds may agree by chance, so nothing is reported below FEW_SEEDS.
    many = present >= FEW_SEEDS
    floored = np.flatnonzero(many & (second < VARIANCE_FLOOR * second[present > 1].mean())) if many.any() else []
    if least > 1 and second.max() == 0.0 and errors == "seeds":
        found.append(ALIKE)
    elif len(floored):
        where = ", ".join(short(x[i]) for i in floored)
        found.append(f"the seeds hardly vary at n = {where}; the weight there is capped.")
    if x[-1] < NARROW * x[0]:
        found.append(
            f"narrow window: n = {short(x[0])}..{short(x[-1])} spans a factor {x[-1] / x[0]:.3g}; the exponent is a local "
            "slope, not a rate. Widen it to a factor of 4 or more."
        )
    found += _bend_warning(x, goodness, drift, model)
    if lost_draws:
        fit = "" if model == "power" else ", or without a fit"
        found.append(f"{plural(lost_draws, 'resample')} left out: without a positive mean at some n{fit}.")
    return tuple(found)


BENDS = ("the curve bends: ", "the local exponent drifts: ")


def _bend_warning(x, goodness: float, drift, model: str) -> list[str]:
    drifts = drift is not None and (drift[1] > 0.0 or drift[2] < 0.0) and abs(drift[0]) > DRIFT
    if not (goodness < ALARM or drifts):
        return []
    window = f"n = {short(x[0])}..{short(x[-1])}"
    if model != "power":
        return [f"the curve departs from the model {model!r} on {window}: p = {goodness:.3f}; choose another."]
    start = BENDS[0 if goodness < ALARM else 1]
    change = "" if drift is None else f", and the local exponent changes by {drift[0]:+.2f} over the window"
    return [
        f"{start}one power law on {window} has p = {goodness:.3f}{change}. The rate is pre-asymptotic or the curve meets "
        "a floor: look at the local exponents, narrow the window, or choose a model."
    ]


def floor_sentences(floor: float, noise_variance: float | None, largest: float) -> list[str]:
    """Sentences that say what a floor of this height may be: the variance of noise on labels, the rounding of float32 or
    float64, or neither. A risk is taken to be a difference of terms as large as the `largest` risk or 1, which sets the size of
    rounding."""
    if noise_variance is not None and 0.5 < floor / noise_variance < 2.0:
        return [f"the floor {floor:.3g} is about the variance {noise_variance:.3g} of the noise on labels."]
    size = max(largest, 1.0)
    for name in ("float64", "float32"):
        if floor < 100.0 * np.finfo(name).eps * size and (
            name == "float64" or floor > 0.01 * np.finfo(name).eps * size
        ):
            return [f"the floor {floor:.3g} is of the size of rounding in {name}."]
    return []
