"""From expectations to verdicts: what each `[[expect]]` asks is measured on the curves of a sweep, and judged."""

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
    """A `verdict` on an `expectation`, with what it was measured on: `curve`, the part of a curve that the expectation means
    (of several curves that where the claim is hardest), and `x`, the first and the last x of the measured number. None for
    both where nothing could be measured."""

    expectation: Expectation
    verdict: Verdict
    curve: Curve | None = None
    x: tuple[float, float] | None = None


def judged(expectation: Expectation, measure: Measure, level: float | None = None) -> Judged:
    """The verdict on all curves that the expectation means, and what it was measured on."""
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
    """What was measured where the claim is hardest: the interval that is furthest out. A claim about all curves, or about a
    window, is true everywhere, and needs no correction for their number (intersection-union test).

    **Raises:** Unmeasured, or ValueError, with the reason why there is nothing."""
    found = [_widened(one, expectation, level) for one in at_level(expectation, measure, level)]
    return max(found, key=lambda one: _excess(expectation, one.interval))


def at_level(expectation: Expectation, measure: Measure, level: float | None) -> list[Measured]:
    """What is measured, with intervals at a level. From resamples they are those of the expectation's own level, moved by
    quantiles of Student's law (`tsjax.rates.at_level`), since a level of 99.99 % is beyond what 2000 resamples resolve; exact
    ones are made anew. The margin of AICc is no error of sampling, and stays."""
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
    """With the error of the published figure that it is compared with: the two are independent, so squares of half-lengths
    add."""
    if not expectation.error:
        return measured
    more = normal_quantile(level or expectation.level) * expectation.error
    low, high = (np.hypot(end - measured.value, more) for end in measured.interval)
    return measured._replace(interval=(float(measured.value - low), float(measured.value + high)))


def _excess(expectation: Expectation, interval: tuple[float, float]) -> float:
    """How far an interval reaches out of what is allowed; negative inside of it."""
    low, high = expectation.allowed
    # Both ends infinite on the same side (a crossing that never comes) are as far out as can be.
    with np.errstate(invalid="ignore"):
        reach = np.array([interval[1] - high, low - interval[0]])
    return float(np.where(np.isnan(reach), np.inf, reach).max())
