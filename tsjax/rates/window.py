"""Which part of a curve may be asymptotic."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .checks import Numbers, check_options, short
from .intervals import expanded_percentiles, student_quantile
from .models import AbstractModel, find_model
from .rate import Rate, fit_table
from .table import make_table

# A window must have at least this goodness of fit, and at least this many n.
BELIEVABLE, LEAST_POINTS = 0.1, 4
# The level of the intervals in which the exponents of narrower windows must agree with that of a wider one.
AGREEMENT = 0.7


@dataclass(frozen=True, eq=False)
class WindowChoice:
    """The result of `choose_window`: the chosen fit `rate`, the fits `rates` for every choice of the smallest n, widest window
    first, and the reason."""

    rate: Rate
    rates: tuple[Rate, ...]
    reason: str


def windows(
    n: Numbers, risks: Numbers, *, least: int = 3, model: str | AbstractModel = "power", **options
) -> tuple[Rate, ...]:
    """Fits on all windows that end at the largest n and have at least `least` n, widest first. They show how the exponent
    depends on the window. `options` as in `fit_rate`; all are resampled alike, so that they can be subtracted."""
    table = make_table(n, risks, options.pop("groups", None))
    fits = []
    found = find_model(model)
    settings = {"method": "wls", "errors": "auto", "level": 0.95, "draws": 2000, "seed": 0, "paired": True} | options
    check_options(settings["level"], settings["draws"])
    least = max(least, len(found.parameters))
    for i in range(max(len(table.x) - least + 1, 1)):
        fits.append(fit_table(table.keep(np.arange(i, len(table.x))), found, **settings))
    return tuple(fits)


def choose_window(n: Numbers, risks: Numbers, *, model: str | AbstractModel = "power", **options) -> WindowChoice:
    """A window on which a curve may be asymptotic. It ends at the largest n and has at least 4 n, and more than the model has
    parameters.

    The choice is by Lepski's rule, followed by one more step. A window is believable if the `goodness` of its fit is 0.1 or
    more, and if the exponent of every narrower window differs from its own by no more than the 70 % interval of the difference
    (about one standard error). The smallest n of the widest believable window is then left out too, so that the remaining bias
    is small compared with the error. If no window is believable, the 4 largest n are taken, and the reason says so.

    The choice depends on the data, and a bias below the noise cannot be seen, so the interval covers less than stated: 88 %
    instead of 95 % for risk (1 + 60/n)/n on n = 32..16384 with 32 seeds (`python -m benchmarks coverage`). A model of the bias
    (`model="finite"`) covers better if it is right. `options` as in `fit_rate`; seeds are paired.

    **Raises:** ValueError as `fit_rate` does, and for fewer n than such a window needs.
    """
    table = make_table(n, risks, options.get("groups"))
    # The narrowest window serves only for comparison.
    points = 1 + max(LEAST_POINTS - 1, len(find_model(model).parameters))
    if len(table.x) < points:
        raise ValueError(f"choosing a window needs at least {points} different n for this model, got {len(table.x)}.")
    fits = windows(n, risks, least=points - 1, model=model, **{**options, "paired": True})
    widest = next((i for i in range(len(fits) - 1) if _believable(fits[i], fits[i + 1 :])), None)
    rate = fits[-2] if widest is None else fits[min(widest + 1, len(fits) - 2)]
    reason = f"n = {short(rate.n[0])}..{short(rate.n[-1])}: "
    if widest is None:
        reason += f"no window is believable; these are the {points} largest n."
    else:
        start = short(fits[widest].n[0])
        reason += f"from n = {start} on the exponent stays within its error"
        reason += (
            f", and n = {start} is left out for safety." if rate is not fits[widest] else "; no n can be left out."
        )
    return WindowChoice(rate, fits, reason)


def _believable(wide: Rate, narrower: Sequence[Rate]) -> bool:
    for narrow in narrower:
        if wide.errors != "seeds":
            # The difference of two fits to nested points has the difference of their variances (Hausman, Econometrica 46,
            # 1978).
            error = np.sqrt(max(narrow.delta_error**2 - wide.delta_error**2, 0.0))
            # The difference of the variances may be too small by chance, so half of the narrower fit's own error is the least.
            reach = student_quantile(narrow.effective_seeds, AGREEMENT) * max(error, 0.5 * narrow.delta_error)
            if abs(wide.exponent - narrow.exponent) > reach:
                return False
            continue
        # The difference of two exponents that are both infinite with the same sign is NaN.
        with np.errstate(invalid="ignore"):
            difference = wide.draws - narrow.draws
        kept, seeds = difference[np.isfinite(difference)], min(wide.effective_seeds, narrow.effective_seeds)
        low, high = expanded_percentiles(kept, wide.exponent - narrow.exponent, seeds, AGREEMENT)[0]
        if not low <= 0.0 <= high:
            return False
    return wide.goodness >= BELIEVABLE
