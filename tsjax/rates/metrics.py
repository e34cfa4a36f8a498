"""A check whether a metric can be a risk, for which ratios of means have an interval.

Risks are positive numbers that vary continuously; their means have intervals and ratios by resampling. The mean of any other
metric may be 0, or a few seeds may decide it, and then such an interval would not cover as stated. `tsjax.rates.kinds` lists
the other kinds of metrics.
"""

import numpy as np

_ALLOWED = "These intervals are for risks, which are positive numbers that vary continuously."


def why_no_risk(values: np.ndarray, name: str) -> str | None:
    """None if the values (seeds,) can be risks; otherwise a sentence that says what kind of metric they are, and what to do
    instead. NaN is ignored.

    Values are not risks if one of them is negative or exactly 0. Nor are they risks if two or more are exactly 1 and none is
    larger: they are then taken to be shares of finitely many test points.
    """
    kept = values[~np.isnan(values)]
    count, negative = len(kept), int((kept < 0).sum())
    if negative:
        signs = "is of both signs" if negative < count else "is negative"
        return (
            f"{name} {signs}: {_counted(negative, count)} below 0, the least is {kept.min():.3g}. The mean of such a metric "
            f"may be 0, where ratios mean nothing. {_ALLOWED} Record a positive quantity, such as a square or an absolute "
            "value, or take the interval of a mean of any sign (tsjax.mean)."
        )
    zeros = int((kept == 0).sum())
    if zeros:
        return (
            f"{name} is not a positive risk: {_counted(zeros, count)} exactly 0, as of errors counted on finitely many test "
            f"points. The few seeds that are not 0 then decide the mean. {_ALLOWED} Record an exact risk or a loss, take more "
            "test points, or give the number of trials behind each share (tsjax.share_of_trials)."
        )
    ones = int((kept == 1).sum())
    if ones > 1 and kept.max() <= 1:
        return (
            f"{name} looks like a share of finitely many test points, such as an accuracy: {_counted(ones, count)} exactly 1 "
            f"and none is larger. The few seeds below 1 then decide the mean. {_ALLOWED} Record an exact risk or a loss, take "
            "more test points, give the number of trials (tsjax.share_of_trials), or return truth values if these are "
            "successes and failures (tsjax.share)."
        )
    return None


def _counted(some: int, count: int) -> str:
    return f"{some} of {count} values {'is' if some == 1 else 'are'}"


def check_risks(values: np.ndarray, name: str) -> None:
    """Raises ValueError, with the sentence of `why_no_risk`, for a metric whose mean has no interval here."""
    reason = why_no_risk(values, name)
    if reason is not None:
        raise ValueError(reason)
