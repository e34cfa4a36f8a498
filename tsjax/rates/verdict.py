"""Verdicts: whether a measured number is what it should be."""

from dataclasses import dataclass
from typing import Literal, SupportsFloat

import numpy as np

from .table import bracket


@dataclass(frozen=True)
class Verdict:
    """Whether a measured number is what it should be; see `judge`.

    **Fields:** `what` was measured; `outcome`; the measured `value` and `interval`; the `allowed` range (low, high);
    `reason`, a sentence with the numbers; `source` of the allowed range.
    """

    what: str
    outcome: Literal["holds", "fails", "undecided"]
    value: float
    interval: tuple[float, float]
    allowed: tuple[float, float]
    reason: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.outcome} ({self.value:.4g}; {self.reason})"


def judge(
    what: str,
    value: SupportsFloat,
    interval: tuple[SupportsFloat, SupportsFloat],
    allowed: tuple[SupportsFloat, SupportsFloat],
    source: str = "",
) -> Verdict:
    """Compares a measured interval with an allowed range.

    `holds` if the interval lies inside the range, `fails` if the two are disjoint, `undecided` if they merely overlap
    (more seeds would decide) or if a number is NaN. The ends of `allowed` belong to it and may be infinite.

    Raises ValueError when `allowed` or `interval` has its ends in the wrong order, or `allowed` has a NaN.
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
    measured, permitted = bracket((low, high)), bracket((least, most))
    if np.isnan([value, low, high]).any():
        outcome, reason = "undecided", f"not a number: value {value:.4g}, interval {measured}, allowed {permitted}"
    elif least <= low and high <= most:
        outcome, reason = "holds", f"interval {measured} lies inside {permitted}"
    elif high < least:
        outcome, reason = "fails", f"interval {measured} lies below {permitted}"
    elif low > most:
        outcome, reason = "fails", f"interval {measured} lies above {permitted}"
    else:
        outcome, reason = "undecided", f"interval {measured} lies partly outside {permitted}; more seeds narrow it"
    return Verdict(what, outcome, value, (low, high), (least, most), reason, source)
