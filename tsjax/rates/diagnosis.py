"""Everything that a reader should know before quoting an exponent."""

import numpy as np

from .checks import Numbers, short
from .criteria import UNDECIDED, criteria, criteria_of, needed_points
from .diagnostics import ALARM, BENDS, DRIFT, floor_sentences
from .fitting import fit_model
from .intervals import FEW_SEEDS
from .losses import Huber, find_method
from .models import Floor, PowerLaw
from .rate import Rate, fit_table
from .shape import shape_of_table


def diagnose(
    rate: Rate,
    *,
    predicted: Numbers | None = None,
    asymptote: float | None = None,
    noise_variance: float | None = None,
) -> tuple[str, ...]:
    """All that should be known before quoting an exponent: the fit's own `warnings`, and findings that need theory or another
    fit.

    - the curve peaks, dips or is flat (`tsjax.shape_of`, at the 1 % level), so that no falling curve describes it;
    - the exponent rests on a few seeds, since the others are missing at the n that matter most;
    - a floor: `Floor` fits better than the power law by more than 2 in AICc and the 99 % interval of F lies above 0; what the
      floor may be (the variance of noise on labels, rounding);
    - theory is pre-asymptotic: the predicted curve's slope over this window differs from the asymptotic exponent.

    Each of the last two explains why a curve bends, and replaces the fit's own warning that it bends.

    **Arguments:** `predicted` (k,): theory's curve at `rate.n`; `asymptote`: theory's exponent in the limit; `noise_variance`:
    the variance of noise on labels.
    """
    own, found = list(rate.warnings), []
    if rate.errors == "seeds" and rate.effective_seeds < 0.5 * rate.units:
        own.append(
            f"the exponent rests on {rate.effective_seeds:.0f} of {rate.units} seeds: those at the n with few seeds decide."
        )
    own += _shape_found(rate)
    power = isinstance(rate.model, PowerLaw)
    enough = rate.errors != "seeds" or rate.table.units_present.min() >= 4
    if power and len(rate.n) >= needed_points(3, rate.errors) and enough and rate.delta_error > 0:
        found += _floor_found(rate, noise_variance)
    if predicted is not None and asymptote is not None and power:
        slope = rate.slope_of(predicted)
        if abs(slope - asymptote) > DRIFT:
            found.append(
                f"pre-asymptotic: over n = {short(rate.n[0])}..{short(rate.n[-1])} theory predicts {slope:z.2f}, and "
                f"{asymptote:z.2f} in the limit; compare with the former."
            )
    return tuple([*(text for text in own if not (found and text.startswith(BENDS))), *found])


def _shape_found(rate: Rate) -> list[str]:
    present = rate.table.units_present
    if present.min() < FEW_SEEDS and (present.max() > 1 or len(rate.n) <= FEW_SEEDS):
        return []
    shape = shape_of_table(rate.table, ALARM, rate.paired)
    if shape.well_behaved and shape.shape != "flat":
        return []
    advice = (
        "say so beside the exponent."
        if shape.shape == "flat"
        else "no falling curve describes it: fit the part that falls."
    )
    return [f"the curve is {shape}; {advice}"]


def _floor_found(rate: Rate, noise_variance: float | None) -> list[str]:
    floor, method = Floor(), find_method(rate.method)
    if isinstance(method, Huber):
        # Without a likelihood there is no criterion to compare by.
        return []
    theta, _ = fit_model(floor, rate.n, rate.log_risk, rate.weights, method)
    residuals = rate.log_risk - floor.evaluate(theta, rate.n)[0]
    # Most curves have no floor, and the criterion shows that without resamples.
    if not criteria_of(rate)[0] - criteria(rate, residuals, len(floor.parameters))[0] > UNDECIDED:
        return []
    other = fit_table(rate.table, floor, method, 0.99, len(rate.draws), rate.seed, rate.paired, rate.errors)
    found = other.parameters["floor"]
    if not found.interval[0] > 0.0:
        return []
    largest = float(np.exp(rate.log_risk.max()))
    share = found.value / float(np.exp(rate.log_risk[-1]))
    text = f"a floor of {found.value:.3g}, {100 * share:.0f} % of the risk at the largest n, fits better: "
    exponent = f"the exponent is {other.exponent:.3f}" if other.identified else "the exponent is not identified"
    text += f"with it {exponent}; see model='floor'."
    return [text, *floor_sentences(found.value, noise_variance, largest)]
