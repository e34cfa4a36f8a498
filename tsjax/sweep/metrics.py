"""What a table may report about a recorded column: truth values have shares, risks have means and ratios, times have
neither."""

from ..rates import Indicator, Positive
from ..rates.kinds import Kind
from .curve import Curve
from .description import Description

TIMES = ("compile_seconds", "run_seconds")
"""The columns of seconds that the engine records for every cell."""

KEY_UNUSED = (
    "if its cells should be random, the experiment does not use its key: random numbers of NumPy are drawn once, when the "
    "function is compiled. Draw them by jax.random from the key, or make a black box (@ts.black_box)."
)
"""What to add to the warning that all seeds have the same value, for an experiment in JAX."""


def no_measurement(time: str) -> str:
    """Why one of `TIMES` has no interval, ratio or rate."""
    shared = (
        "cells run in batches, and each one's run_seconds is the time of its batch divided by the number of its cells"
        if time == "run_seconds"
        else "cells share compiled programs, and each one's compile_seconds is the time that its whole program took"
    )
    return (
        f"{time!r} does not measure single seeds: {shared}. Its spread over seeds says nothing, so it has no interval, ratio "
        "or rate. To compare times, time runs of your own, several of each."
    )


def no_ratio(metric: str, kind: Kind) -> str:
    """Why a metric of this kind has no ratios."""
    what = {
        "indicator": "holds truth values, whose mean is a share of seeds",
        "share": "is a share of trials",
        "signed": "may be 0 or negative",
    }[kind.name]
    return (
        f"{metric!r} {what}, and tsjax has no interval for a ratio with such a mean: expect the difference, "
        f"'{metric} of CURVE minus OTHER', or the mean itself."
    )


def kind_in(experiment: Description, metric: str, is_share: bool) -> Kind:
    """The kind of a metric: the declared one, else an indicator for truth values (`is_share`), else positive."""
    return experiment.kinds.get(metric) or (Indicator() if is_share else Positive())


def no_risk(curve: Curve, experiment: Description) -> str | None:
    """Why the mean of the first y of a curve has no interval, at the first x at which it has none; None if all have one."""
    y = experiment.y[0]
    kind = kind_in(experiment, y, False)
    for x, row in zip(curve.x, curve.values[y], strict=True):
        reason = kind.why_not(row, f"{y} at {experiment.x} = {x:g}")
        if reason is not None:
            return reason
    return None
