"""Which part of a curve may be asymptotic."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .checks import Numbers, check_options, short
from .intervals import expanded_percentiles, student_quantile
from .models import AbstractModel, find_model
from .rate import Rate, fit_table
from .table import make_table

# A window is kept when one power law is believable on it at this level, and has this many n.
BELIEVABLE, LEAST_POINTS = 0.1, 4
# Level of the intervals within which exponents of narrower windows agree with a wider one's.
AGREEMENT = 0.7


@dataclass(frozen=True, eq=False)
class WindowChoice:
    """What `choose_window` found: the chosen fit `rate`, the fits from every smallest n, widest first, and the reason."""

    rate: Rate
    rates: tuple[Rate, ...]
    reason: str


def windows(
    n: Numbers, risks: Numbers, *, least: int = 3, model: str | AbstractModel = "power", **options
) -> tuple[Rate, ...]:
    """The fit from every smallest n up to the largest, widest first, each with `least` n or more: how the exponent depends
    on the window. `options` as in `fit_rate`; all are resampled alike, so that they can be subtracted."""
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
    """Where a curve may be asymptotic: a window that ends at the largest n and has 4 n or more, always more than
    the model has parameters.

    Lepski's rule, then one step on. A window is believable when the fit's `goodness` is 0.1 or more and the exponents of all
    narrower windows lie within the 70 % interval (about one standard error) of the difference to its own. Of the widest
    believable one the smallest n is left out too: what bias it still has is then small beside its error. Where none is
    believable, the 4 largest n are taken, and the reason says so.

    The choice looks at the data, and a bias below the noise cannot be seen, so that the interval covers less than it says: 88 %
    instead of 95 % for risk (1 + 60/n)/n on n = 32..16384 with 32 seeds (`python -m benchmarks coverage`). A
    model of the bias (`model="finite"`) does better where it is right. `options` as in `fit_rate`; seeds are paired.

    **Raises:** ValueError as `fit_rate`, and for fewer different n than that.
    """
    table = make_table(n, risks, options.get("groups"))
    # The narrowest window is only there to be compared with.
    points = 1 + max(LEAST_POINTS - 1, len(find_model(model).parameters))
    if len(table.x) < points:
        raise ValueError(f"choosing a window takes at least {points} different n for this model, got {len(table.x)}.")
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
            # An own scatter of the narrower fit may be smaller by chance.
            reach = student_quantile(narrow.effective_seeds, AGREEMENT) * max(error, 0.5 * narrow.delta_error)
            if abs(wide.exponent - narrow.exponent) > reach:
                return False
            continue
        # Two exponents that are open on the same side have no difference.
        with np.errstate(invalid="ignore"):
            difference = wide.draws - narrow.draws
        kept, seeds = difference[np.isfinite(difference)], min(wide.effective_seeds, narrow.effective_seeds)
        low, high = expanded_percentiles(kept, wide.exponent - narrow.exponent, seeds, AGREEMENT)[0]
        if not low <= 0.0 <= high:
            return False
    return wide.goodness >= BELIEVABLE
