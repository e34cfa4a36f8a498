"""From expectations to verdicts: the number of each `[[expect]]` is measured on the curves of a sweep, and judged."""

import dataclasses
from typing import NamedTuple

import numpy as np

from .. import rates
from ..rates import Estimate, Verdict, judge
from ..rates.intervals import normal_quantile
from .asked import Measured, Unmeasured
from .curve import Curve
from .expectation import Expectation
from .measure import Measure


class Judged(NamedTuple):
    """A `verdict` on an `expectation`. `curve` is the part of a curve on which it was measured (of several curves, the one for
    which the claim is hardest), and `x` the first and last x of the measured number. Both are None if nothing could be
    measured."""

    expectation: Expectation
    verdict: Verdict
    curve: Curve | None = None
    x: tuple[float, float] | None = None


def judged(expectation: Expectation, measure: Measure, level: float | None = None) -> Judged:
    """The verdict on an expectation for all curves that it means, at the expectation's own level unless `level` is given."""
    what = expectation.what
    if expectation.where:
        what += " at " + ", ".join(f"{key}={value}" for key, value in expectation.where.items())
    if expectation.model is not None:
        what += f" (model {expectation.model})"
    try:
        measured = hardest(expectation, measure, level)
    except (Unmeasured, ValueError) as error:
        nan = float("nan")
        verdict = judge(what, nan, (nan, nan), expectation.allowed, expectation.source)
        return Judged(expectation, dataclasses.replace(verdict, outcome="undecided", reason=str(error)))
    value, interval, x, doubt, note, curve, *_ = measured
    axis = expectation.phrase.outer or expectation.phrase.axis or measure.experiment.x
    what += f" at {axis} = {x[0]:g}" if x[0] == x[1] else f" over {axis} = {x[0]:g}..{x[1]:g}"
    if curve is not None and expectation.phrase.curve == "*":
        what += f", {curve.name}"
    verdict = judge(what, value, interval, expectation.allowed, expectation.source)
    if expectation.published is not None:
        note = "; ".join(filter(None, [note, f"published: {expectation.published}"]))
    if note:
        verdict = dataclasses.replace(verdict, reason=f"{verdict.reason}; {note}")
    if doubt and verdict.outcome == "holds":
        verdict = dataclasses.replace(verdict, outcome="undecided", reason=f"{verdict.reason}, but {doubt}")
    return Judged(expectation, verdict, curve, x)


def hardest(expectation: Expectation, measure: Measure, level: float | None = None) -> Measured:
    """The number for which the claim is hardest: its interval reaches furthest out of the allowed values. A claim about all
    curves, or about a window, says that all of them agree with it, so no correction for their number is needed
    (intersection-union test).

    **Raises:** Unmeasured or ValueError, with the reason, if nothing could be measured."""
    found = [_widened(one, expectation, level) for one in at_level(expectation, measure, level)]
    return max(found, key=lambda one: _excess(expectation, one.interval))


def at_level(expectation: Expectation, measure: Measure, level: float | None) -> list[Measured]:
    """The measured numbers, with intervals at a level. An interval from resamples is that of the expectation's own level,
    scaled by quantiles of Student's law (`tsjax.rates.at_level`), since 2000 resamples cannot resolve a level such as 99.99 %.
    An exact interval is computed again. The margin of AICc is not an error of sampling, and stays."""
    own = expectation.level
    found = measure(expectation)
    if level is None or abs(level - own) < 1e-12 or expectation.phrase.form == "model":
        return found
    if any(one.scale == "exact" for one in found):
        return measure(expectation, level)
    moved = []
    for one in found:
        estimate = Estimate(one.value, one.interval, own, scale=one.scale)
        moved.append(one._replace(interval=rates.at_level(estimate, level, one.seeds).interval))
    return moved


def _widened(measured: Measured, expectation: Expectation, level: float | None) -> Measured:
    """The measured number with the error of the published one added to its interval: the two are independent, so the squares of
    half-lengths add."""
    if not expectation.error:
        return measured
    more = normal_quantile(level or expectation.level) * expectation.error
    low, high = (np.hypot(end - measured.value, more) for end in measured.interval)
    return measured._replace(interval=(float(measured.value - low), float(measured.value + high)))


def _excess(expectation: Expectation, interval: tuple[float, float]) -> float:
    """How far an interval reaches out of the allowed values; negative if it lies inside."""
    low, high = expectation.allowed
    # An interval whose ends are infinite on the same side (a crossing that never comes) is infinitely far out.
    with np.errstate(invalid="ignore"):
        reach = np.array([interval[1] - high, low - interval[0]])
    return float(np.where(np.isnan(reach), np.inf, reach).max())
