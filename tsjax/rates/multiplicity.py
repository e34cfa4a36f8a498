"""Many verdicts at once: which of them still hold, or fail, after a correction for their number."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from .checks import plural
from .verdict import Verdict


def holm(claims: Mapping[str, Callable[[float], Verdict]], *, alpha: float = 0.05) -> dict[str, Verdict]:
    """Verdicts corrected for their number by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979).

    The probability that any claim is falsely said to hold is at most `alpha`, and so is the probability that any is falsely
    said to fail, however the claims depend on each other. All m claims are judged at alpha / m; if r of them hold, the others
    are judged again at alpha / (m - r), and so on until no more hold. These are the claims that Holm's ordered p-values reject,
    since a claim holds at the error probability a exactly if its p-value is at most a. Claims that fail are found in the same
    way.

    The statement "all claims hold" needs no correction: if each claim is judged at `alpha`, it is false with probability
    `alpha` at most (intersection-union test, Berger 1982). "This claim holds", picked out of many, and "one of them fails" need
    it.

    **Arguments:**

    - `claims`: by name, a function of the error probability a that judges the claim: for an interval `lambda a:
      ts.judge("rate", rate.exponent, rate.interval_at(1 - a), allowed)`, for a test `lambda a: ts.equivalence(rate, 1.0, 0.05,
      alpha=a)`. A smaller a must not decide a claim that a larger one leaves undecided. Resamples cannot resolve very high
      levels: of 2000, only 5 lie outside an interval of level 0.9975. For more than about `alpha` draws / 5 claims, take the
      interval from `ts.rates.at_level`.
    - `alpha`: the error probability of the whole family.

    **Returns:** the verdict on each claim, at the error probability of the step that decided it; a claim that no step decides
    is undecided.

    **Raises:** ValueError if there are no claims, and for `alpha` outside (0, 1/2).

    >>> n, rng = 2.0 ** np.arange(7, 13), np.random.default_rng(0)
    >>> rates = [ts.fit_rate(n, rng.chisquare(15, (6, 32)) / 15 / n[:, None]) for _ in range(10)]
    >>> above = lambda rate: lambda a: ts.judge("rate", rate.exponent, rate.interval_at(1 - a), (0.95, np.inf))
    >>> corrected = ts.holm({f"curve {i}": above(rate) for i, rate in enumerate(rates)})
    >>> [above(rate)(0.05).outcome for rate in rates].count("holds"), [v.outcome for v in corrected.values()].count("holds")
    (4, 3)
    """
    if not claims:
        raise ValueError("there are no claims to correct: give at least one, by its name.")
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha is the probability of a false claim, between 0 and 1/2, such as 0.05; got {alpha:g}.")
    holding, failing = (_step_down(claims, alpha, outcome) for outcome in ("holds", "fails"))
    # A claim that neither procedure decided is undecided at the larger of their last levels.
    last = alpha / max(len(claims) - min(len(holding), len(failing)), 1)
    found = {}
    for name, claim in claims.items():
        level, verdict = holding.get(name) or failing.get(name) or (last, claim(last))
        note = (
            f"Holm's correction for {plural(len(claims), 'verdict')}: judged with an error probability of {level:.2g}"
        )
        found[name] = replace(verdict, reason=f"{verdict.reason}; {note}")
    return found


def _step_down(
    claims: Mapping[str, Callable[[float], Verdict]], alpha: float, outcome: str
) -> dict[str, tuple[float, Verdict]]:
    """The claims with this outcome, each with its step's error probability and the verdict."""
    found: dict[str, tuple[float, Verdict]] = {}
    while len(found) < len(claims):
        each = alpha / (len(claims) - len(found))
        judged = {name: claim(each) for name, claim in claims.items() if name not in found}
        new = {name: (each, verdict) for name, verdict in judged.items() if verdict.outcome == outcome}
        if not new:
            break
        found |= new
    return found
