"""Which model describes a curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .checks import Numbers, check_options
from .criteria import UNDECIDED as UNDECIDED
from .criteria import criteria_of, needed_points
from .fitted import weights_of
from .fitting import fit_model
from .forecasts import AveragedForecast, average_forecasts
from .losses import FoundMethod, Huber, Method, find_method, is_typical
from .models import AbstractModel, find_model
from .rate import Rate, fit_table
from .residuals import Errors, FoundErrors, find_errors
from .table import Table, make_table

Criterion = Literal["aicc", "bic"]

# The models that `choose_model` compares by default. LogFactor is left out: it has as many parameters as the power law, and a
# window of three octaves cannot distinguish them.
CANDIDATES = ("power", "floor", "finite", "logq", "broken")


@dataclass(frozen=True, eq=False)
class ModelChoice:
    """The result of `choose_model`.

    - `best`: name of the chosen model; `rate`: its fit. `rates`: all fits by name.
    - `aicc`, `bic`: both criteria of each model; `criterion`: the one that chose; `probability`: weights exp(-(criterion -
      least) / 2), normalised.
    - `errors`: whether variances are known from `seeds` or estimated from `residuals`.
    - `held_out`: the error of each model in log risk at the largest n when fitted without it; NaN if there are too few n for
      that.
    - `skipped`: by name, why a model was not fitted.

    `forecast` averages over the models, for the case that none `wins`.
    """

    best: str
    rates: dict[str, Rate]
    aicc: dict[str, float]
    probability: dict[str, float]
    held_out: dict[str, float]
    skipped: dict[str, str]
    bic: dict[str, float]
    criterion: Criterion = "aicc"
    errors: FoundErrors = "seeds"

    @property
    def rate(self) -> Rate:
        """The fit of the chosen model."""
        return self.rates[self.best]

    @property
    def wins(self) -> bool:
        """Whether only the chosen model is supported: the criterion of every other one is larger by more than 2 (Burnham &
        Anderson 2002)."""
        scores = self.aicc if self.criterion == "aicc" else self.bic
        others = [value for name, value in scores.items() if name != self.best]
        return all(value > scores[self.best] + UNDECIDED for value in others)

    def forecast(self, n: float, *, seeds: int | None = None, level: float | None = None) -> AveragedForecast:
        """The mean risk of `seeds` new seeds at n, averaged over all models with their weights `probability` w_m.

        With the models' forecasts y_m of log risk and their standard errors e_m, as in `tsjax.forecast`, it is y = sum w_m y_m,
        and the interval y -+ z sum w_m sqrt((t_m / z)^2 e_m^2 + (y_m - y)^2) includes the spread between models (Buckland,
        Burnham & Augustin, Biometrics 53, 1997, equation 9; with Student's quantiles t_m, Burnham & Anderson 2002, section
        4.3.3). If one model wins, its weight is nearly 1, and the forecast is nearly its own. Exponents are not averaged, since
        the exponents of two models mean different things.

        Raises ValueError as `tsjax.forecast` does, and if no model that has weight is positive at n.
        """
        return average_forecasts(self.rates, self.probability, n, seeds, level)

    def __str__(self) -> str:
        scores = self.aicc if self.criterion == "aicc" else self.bic
        ranked = [name for name in sorted(scores, key=scores.__getitem__) if name != self.best]
        notes = [f"{name} {scores[name] - scores[self.best]:+.1f}" for name in ranked]
        if self.errors != "seeds":
            notes.append("variance from residuals")
        return f"{self.best} ({', '.join(notes)})" if notes else self.best


def choose_model(
    n: Numbers,
    risks: Numbers,
    *,
    models: Sequence[str | AbstractModel] = CANDIDATES,
    method: Method = "wls",
    errors: Errors = "auto",
    criterion: Criterion | str = "aicc",
    groups: Numbers | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    paired: bool = True,
) -> ModelChoice:
    """Fits several models and chooses the one with the least AICc, or BIC (`tsjax.rates.criteria`).

    If there are seeds, they give the variance of log risks. With one seed at every n, the variance is estimated from the
    residuals of each model and counts as a parameter. A finite-sample factor, or a power of the logarithm, whose exponent may
    be 0 or less acts as a floor; the floor is chosen in its place if it fits as well (within 2). The correction of AICc is
    large with few n: a model of p parameters needs p + 2 of them, and p + 3 with one seed. If seeds are shared across n, the
    residuals scatter less than chi^2 assumes, which favours the simpler model.

    **Arguments:** as in `fit_rate`; `models`: names or models, distinct; `criterion`: `aicc` or `bic`.

    **Raises:** ValueError as `fit_rate` does, for Huber's loss, which is not a likelihood, and if no model can be compared.

    >>> n, rng = 2.0 ** np.arange(3, 12), np.random.default_rng(0)
    >>> ts.choose_model(n, (0.02 + 1 / n[:, None]) * rng.chisquare(15, (9, 256)) / 15).best  # planted: a floor
    'floor'
    """
    check_options(level, draws)
    table = make_table(n, risks, groups)
    method, errors = find_method(method), find_errors(errors, table)
    if isinstance(method, Huber):
        raise ValueError(
            "models are compared by their likelihoods, and Huber's loss has none. Choose with method='wls', and fit the chosen "
            "model with Huber's loss."
        )
    if criterion not in ("aicc", "bic"):
        raise ValueError(f"no criterion {criterion!r}. Allowed: aicc, bic.")
    options = (method, level, draws, seed, paired, errors)
    rates: dict[str, Rate] = {}
    aicc: dict[str, float] = {}
    bic: dict[str, float] = {}
    held_out: dict[str, float] = {}
    skipped: dict[str, str] = {}
    k = len(table.x)
    for model in map(find_model, models):
        p = len(model.parameters)
        needed = needed_points(p, errors)
        if k < needed:
            skipped[model.name] = f"{p} parameters need {needed} different n to be compared, got {k}."
            continue
        try:
            rate = fit_table(table, model, *options)
        except ValueError as error:
            skipped[model.name] = str(error)
            continue
        rates[model.name] = rate
        aicc[model.name], bic[model.name] = criteria_of(rate)
        held_out[model.name] = _held_out_error(table, model, method)
    if not rates:
        raise ValueError("no model can be compared on this curve: " + " ".join(f"{k}: {v}" for k, v in skipped.items()))
    scores = aicc if criterion == "aicc" else bic
    least = min(scores.values())
    weight = {name: float(np.exp((least - value) / 2.0)) for name, value in scores.items()}
    total = sum(weight.values())
    probability = {name: value / total for name, value in weight.items()}
    best = min(scores, key=scores.__getitem__)
    if best in ("finite", "logq") and scores.get("floor", np.inf) < least + UNDECIDED:
        # With exponent 0, C (1 + c p / n) is a floor and not a finite-sample factor. A falling curve that would rise in the
        # limit, such as n^0.3 (log n)^-8, is one that levels off.
        best = "floor" if rates[best].interval[0] <= 0.0 else best
    return ModelChoice(best, rates, aicc, probability, held_out, skipped, bic, criterion, errors)


def _held_out_error(table: Table, model: AbstractModel, method: FoundMethod) -> float:
    short_x = table.x[:-1]
    if len(short_x) < len(model.parameters):
        return float("nan")
    data = table.typical() if is_typical(method) else table.means()
    theta, _ = fit_model(model, short_x, data.log_mean[:-1], weights_of(data, method)[:-1], method)
    with np.errstate(invalid="ignore"):
        return float(data.log_mean[-1] - model.evaluate(theta, table.x[-1:])[0][0])
