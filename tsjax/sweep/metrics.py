"""What may be said of the mean of a recorded column: truth values have shares, risks means and ratios, and times nothing."""

from ..rates import why_no_risk
from .curve import Curve
from .description import Description

TIMES = ("compile_seconds", "run_seconds")
"""Seconds that the engine records of every cell."""


def no_measurement(time: str) -> str:
    """Why no interval, ratio or rate is drawn from one of `TIMES`."""
    shared = (
        "cells run in batches, and each one's run_seconds is the time of its batch divided by the number of its cells"
        if time == "run_seconds"
        else "cells share compiled programs, and each one's compile_seconds is the time that its whole program took"
    )
    return (
        f"{time!r} is no measurement of single seeds: {shared}. Its spread over seeds says nothing, so no interval, ratio or "
        "rate is drawn from it. To compare times, time runs of your own, several of each."
    )


def no_ratio(share: str) -> str:
    """Why no ratio is drawn from a column of truth values."""
    return (
        f"{share!r} holds truth values, whose mean is a share of seeds. tsjax has an exact interval for a share and none for a "
        "ratio with one: expect the share itself, of one curve at a time, or compare risks."
    )


def no_risk(curve: Curve, experiment: Description) -> str | None:
    """Why the means of the first y of a curve have no interval, at the first x where they have none; None for risks."""
    y = experiment.y[0]
    for x, row in zip(curve.x, curve.values[y], strict=True):
        reason = why_no_risk(row, f"{y} at {experiment.x} = {x:g}")
        if reason is not None:
            return reason
    return None
