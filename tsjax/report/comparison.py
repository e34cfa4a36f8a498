"""Every curve compared with a reference curve: the ratio of means on the same seeds, and the n from which on it stays below."""

from typing import NamedTuple

import numpy as np

from ..rates import Estimate, crossing
from ..sweep.curve import Curve
from ..sweep.result import Result
from .numbers import BEST_LINEAR, ratio_at, variants


class Comparison(NamedTuple):
    """A curve compared with the reference: the ratio of means at `x`, the largest that both have, and the `crossing`, from
    which on its mean is below; None if the data do not determine it."""

    curve: Curve
    rival: Curve
    x: float
    ratio: Estimate | None
    crossing: Estimate | None


def reference_of(result: Result) -> str | None:
    """The curve with which others are compared: the optimal linear estimator, otherwise the one that most expectations compare
    with, otherwise the first of the grid; None if there are fewer than two names of curves."""
    names = list(dict.fromkeys(curve.name for curve in result.curves()))
    if len(names) < 2:
        return None
    if BEST_LINEAR in names:
        return BEST_LINEAR
    others = [expectation.phrase.other for expectation in result.spec.expect]
    return max(names, key=lambda name: (others.count(name), -names.index(name)))


def rivals(result: Result) -> list[tuple[Curve, Curve]]:
    """Every other curve with the reference of its variant, in the order of the grid."""
    reference, varying = reference_of(result), variants(result)
    same = lambda a, b: all(repr(a.arguments[name]) == repr(b.arguments[name]) for name in varying)
    references = [curve for curve in result.curves() if curve.name == reference]
    return [
        (curve, rival)
        for curve in result.curves()
        for rival in references
        if curve.name != reference and same(curve, rival)
    ]


def compare(result: Result) -> list[Comparison]:
    """Every other curve against the reference of its variant."""
    found = []
    for curve, rival in rivals(result):
        common = np.intersect1d(curve.x, rival.x)
        if common.size:
            x = float(common[-1])
            ratio = ratio_at(result, curve, rival, x)
            found.append(Comparison(curve, rival, x, ratio, _crossing(result, curve, rival)))
    return found


def _crossing(result: Result, curve: Curve, rival: Curve) -> Estimate | None:
    y = result.experiment.y[0]
    mine, theirs = curve.measured(y), rival.measured(y)
    x, i, j = np.intersect1d(mine.x, theirs.x, return_indices=True)
    _, k, m = np.intersect1d(mine.seeds, theirs.seeds, return_indices=True)
    if len(x) < 2 or not len(k):
        return None
    try:
        return crossing(x, mine.values[y][i][:, k], theirs.values[y][j][:, m])
    except ValueError:  # Some x has no common seed.
        return None


def crossing_text(estimate: Estimate | None, x: str) -> str:
    """`312 [250, 400]`, or words if it lies outside the measured x."""
    if estimate is None:
        return "–"
    low, high = estimate.interval
    words = {0.0: f"below at every {x}", np.inf: "not below at the end"}
    at = words.get(estimate.value, f"{estimate.value:.3g}")
    if low == high:
        return at
    ends = ("before the first" if low == 0 else f"{low:.3g}", "∞" if np.isinf(high) else f"{high:.3g}")
    return f"{at} [{', '.join(ends)}]"
