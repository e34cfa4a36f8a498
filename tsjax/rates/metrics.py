"""What kind of number a metric is, and so which statements about its mean over seeds are valid.

Risks, positive numbers that vary continuously, have intervals and ratios by resampling; truth values have an exact share. Of
anything else a few seeds may decide the mean, or the mean may be 0, and no interval here would keep its promise.
"""

import numpy as np

_ALLOWED = (
    "tsjax has intervals and ratios of means for risks, which are positive numbers, and exact shares for truth values."
)


def why_no_risk(values: np.ndarray, name: str) -> str | None:
    """None if the values (seeds,) can be risks; else a sentence that says what kind of metric they are, what tsjax can do with
    it, and what to record instead. NaN is ignored.

    Values are not risks if one of them is negative or exactly 0. They are not risks either if two or more are exactly 1 and
    none is larger: they are then shares of finitely many test points, at the end of their range.
    """
    kept = values[~np.isnan(values)]
    count, negative = len(kept), int((kept < 0).sum())
    if negative:
        signs = "is of both signs" if negative < count else "is negative"
        return (
            f"{name} {signs}: {_counted(negative, count)} below 0, the least is {kept.min():.3g}. The mean of such a metric "
            f"may be 0, where ratios mean nothing. {_ALLOWED} Record a positive quantity, such as a square or an absolute "
            "value, or compare the means yourself from the records."
        )
    zeros = int((kept == 0).sum())
    if zeros:
        return (
            f"{name} is no positive risk: {_counted(zeros, count)} exactly 0, as of errors counted on finitely many test "
            f"points. The few seeds that are not 0 then decide the mean. {_ALLOWED} Record an exact risk or a loss, take more "
            "test points, or return a truth value for each seed, such as whether there was any error."
        )
    ones = int((kept == 1).sum())
    if ones > 1 and kept.max() <= 1:
        return (
            f"{name} looks like a share of finitely many test points, such as an accuracy: {_counted(ones, count)} exactly 1 "
            f"and none is above. The few seeds below 1 then decide the mean. {_ALLOWED} Record an exact risk or a loss, take "
            "more test points, or return a truth value for each seed if these are successes and failures."
        )
    return None


def _counted(some: int, count: int) -> str:
    return f"{some} of {count} values {'is' if some == 1 else 'are'}"


def check_risks(values: np.ndarray, name: str) -> None:
    """Raises ValueError, with the sentence of `why_no_risk`, for a metric whose mean has no interval here."""
    reason = why_no_risk(values, name)
    if reason is not None:
        raise ValueError(reason)
