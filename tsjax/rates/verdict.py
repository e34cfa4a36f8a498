"""Verdicts: whether a measured number lies in its allowed range."""

from dataclasses import dataclass, replace
from typing import Literal, SupportsFloat

import numpy as np

from .checks import bracket, together
from .diagnostics import open_sentence
from .intervals import expanded_percentiles, one_sided_p
from .rate import Rate


@dataclass(frozen=True)
class Verdict:
    """Whether a measured number lies in its allowed range; see `judge`.

    **Fields:** `what`: the name of the number; `outcome`; the measured `value` and `interval`; the `allowed` range (low, high);
    `reason`: a sentence with the numbers; `source`: where the allowed range comes from.
    """

    what: str
    outcome: Literal["holds", "fails", "undecided"]
    value: float
    interval: tuple[float, float]
    allowed: tuple[float, float]
    reason: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.outcome} ({together(self.value, *self.interval)[0]}; {self.reason})"


def judge(
    what: str,
    value: SupportsFloat,
    interval: tuple[SupportsFloat, SupportsFloat],
    allowed: tuple[SupportsFloat, SupportsFloat],
    source: str = "",
) -> Verdict:
    """Compares a measured interval with an allowed range.

    `holds` if the interval lies inside the range, `fails` if the two are disjoint, `undecided` if the interval lies only partly
    inside (more seeds make it narrower) or if a number is NaN. The ends of `allowed` belong to it and may be infinite.

    Raises ValueError if `allowed` or `interval` has its ends in the wrong order, or if `allowed` has a NaN.

    >>> print(ts.judge("rate", 1.01, (0.96, 1.05), allowed=(0.9, 1.1)).outcome)
    holds
    """
    value, low, high = float(value), float(interval[0]), float(interval[1])
    least, most = float(allowed[0]), float(allowed[1])
    if not least <= most:
        raise ValueError(
            f"allowed for {what!r} must be (low, high) with low <= high, got ({least:g}, {most:g}). "
            "Use -inf or inf for an open end."
        )
    if low > high:
        raise ValueError(f"the interval of {what!r} must be (low, high) with low <= high, got ({low:g}, {high:g}).")
    # An infinite end of the allowed range is left out of the sentence.
    if most == np.inf and np.isfinite(least):
        within, permitted = "above", f"{least:.4g}"
    elif least == -np.inf and np.isfinite(most):
        within, permitted = "below", f"{most:.4g}"
    else:
        within, permitted = "inside", f"[{least:.4g}, {most:.4g}]"
    measured = bracket((low, high))
    if np.isnan([value, low, high]).any():
        outcome, reason = (
            "undecided",
            f"not a number: value {value:.4g}, interval {measured}, allowed {within} {permitted}",
        )
    elif least <= low and high <= most:
        outcome, reason = "holds", f"interval {measured} lies {within} {permitted}"
    elif high < least:
        outcome, reason = "fails", f"interval {measured} lies below {permitted}"
    elif low > most:
        outcome, reason = "fails", f"interval {measured} lies above {permitted}"
    else:
        outcome, reason = (
            "undecided",
            f"interval {measured} lies only partly {within} {permitted}; more seeds narrow it",
        )
    return Verdict(what, outcome, value, (low, high), (least, most), reason, source)


def equivalence(
    rate: Rate, value: float, margin: float, *, alpha: float = 0.05, what: str = "rate", source: str = ""
) -> Verdict:
    """Two one-sided tests (Schuirmann 1987) of "the exponent is `value` within `margin`".

    `holds` if both "it is above value - margin" and "it is below value + margin" are significant at level `alpha`, that is, if
    the interval of level 1 - 2 alpha lies inside; a wrong claim holds with probability `alpha` at most. `fails` if that
    interval lies outside; `undecided` otherwise, and if the exponent is not identified. The reason reports the larger of the
    two p-values.

    **Raises:** ValueError for a margin that is not positive, or `alpha` not between 0 and 1/2.
    """
    if not 0.0 < margin < np.inf:
        raise ValueError(f"margin is the largest difference that does not matter, positive; got {margin:g}.")
    allowed = (value - margin, value + margin)
    verdict = tested(what, rate.exponent, rate.draws, rate.effective_seeds, allowed, alpha, source)
    return _if_identified(verdict, rate)


def superiority(
    fast: Rate, slow: Rate, *, margin: float = 0.0, alpha: float = 0.05, what: str = "", source: str = ""
) -> Verdict:
    """One-sided test of "`fast` has an exponent above that of `slow` by more than `margin`", paired by seeds.

    `holds` if this is significant at level `alpha`, `fails` if the opposite is; `undecided` otherwise, and if one of the
    exponents is not identified. A claim about many rivals at once ("faster than any linear estimator") holds if it holds
    against each of them: its p-value is the largest of theirs, without a correction for their number (Berger 1982,
    intersection-union tests).

    **Raises:** ValueError if the fits were not resampled alike (see `Rate.minus`), or `alpha` is not between 0 and 1/2.
    """
    fast.check_paired_with(slow)
    seeds = min(fast.effective_seeds, slow.effective_seeds)
    name = what or "difference of the exponents"
    allowed = (margin, float("inf"))
    # The difference of two exponents that are both infinite with the same sign is NaN.
    with np.errstate(invalid="ignore"):
        value, draws = fast.exponent - slow.exponent, fast.draws - slow.draws
    return _if_identified(tested(name, value, draws, seeds, allowed, alpha, source), fast, slow)


def _if_identified(verdict: Verdict, *rates: Rate) -> Verdict:
    open_ones = [rate for rate in rates if not rate.identified]
    if not open_ones:
        return verdict
    return replace(verdict, outcome="undecided", reason=f"{verdict.reason}, but {open_sentence(open_ones[0].interval)}")


def tested(
    what: str,
    value: float,
    draws: np.ndarray,
    seeds: float,
    allowed: tuple[float, float],
    alpha: float,
    source: str = "",
) -> Verdict:
    """`judge` at level 1 - 2 alpha, with a p-value in the reason: the larger of those of the two ends of the allowed range."""
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha is the probability of a false claim, between 0 and 1/2, such as 0.05; got {alpha:g}.")
    kept = draws[~np.isnan(draws)]
    interval, _ = expanded_percentiles(kept, value, seeds, 1.0 - 2.0 * alpha)
    verdict = judge(what, value, interval, allowed, source)
    return replace(verdict, reason=f"{verdict.reason}; {p_value_sentence(draws, seeds, allowed, alpha)}")


def p_value_sentence(draws: np.ndarray, seeds: float, allowed: tuple[float, float], alpha: float) -> str:
    """`p = 0.003 at level 0.05`, for the claim that the number lies inside the allowed range."""
    ends = [
        one_sided_p(draws, end, seeds, side) for end, side in zip(allowed, (1, -1), strict=True) if np.isfinite(end)
    ]
    return f"p = {max(ends):.2g} at level {alpha:g}"
