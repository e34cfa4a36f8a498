"""Holm's correction: the claims of the p-values that statsmodels rejects, and the error of the whole family."""

from functools import partial

import numpy as np
import pytest
from helpers import SIZES, noise
from scipy import stats
from scipy.special import ndtri
from statsmodels.stats.multitest import multipletests

from tsjax.rates import Verdict, equivalence, fit_rate, holm


def _above(value, a):
    """Whether a normal number of standard error 1 says that its mean is positive, by the two-sided interval of level 1 - a."""
    low, high = value + ndtri(a / 2), value - ndtri(a / 2)
    outcome = "holds" if low > 0 else "fails" if high < 0 else "undecided"
    return Verdict("mean", outcome, value, (low, high), (0.0, np.inf), "")


def _claims(values):
    return {str(i): partial(_above, value) for i, value in enumerate(values)}


@pytest.mark.parametrize("shift", [0.0, 2.0, -2.5])
def test_the_claims_are_those_of_holms_p_values(rng, monkeypatch, shift):
    # statsmodels collects garbage at every call, which takes a third of a second in a process with JAX.
    monkeypatch.setattr("gc.collect", lambda *_: 0)
    decided = 0
    for _ in range(40):
        values = rng.normal(size=8) + shift * (np.arange(8) < 5)
        found = holm(_claims(values), alpha=0.1)
        for outcome, sign in (("holds", 1), ("fails", -1)):
            # A claim holds at a where half of a is at least its one-sided p-value.
            wanted = multipletests(np.minimum(2 * stats.norm.sf(sign * values), 1.0), 0.1, method="holm")[0]
            assert [verdict.outcome == outcome for verdict in found.values()] == wanted.tolist()
            decided += wanted.sum()
    assert shift == 0.0 or decided > 30


def test_false_claims_of_a_family(rng):
    """Twenty claims whose truth lies at the bound, correlated: at least one holds falsely, in 5 % of families at most."""
    runs, corrected, plain = 400, 0, 0
    for _ in range(runs):
        values = np.sqrt(0.3) * rng.normal() + np.sqrt(0.7) * rng.normal(size=20)
        corrected += any(v.outcome == "holds" for v in holm(_claims(values)).values())
        plain += any(_above(value, 0.05).outcome == "holds" for value in values)
    assert corrected <= 0.05 * runs + 3.5 * np.sqrt(0.05 * 0.95 * runs) and plain > 0.2 * runs


def test_tests_of_exponents(rng):
    """Of equivalence, decided at the step's own alpha, which the reason tells."""
    fits = [fit_rate(SIZES, noise(rng, 64) / SIZES[:, None] ** e) for e in (1.0, 1.0, 2.0)]
    claims = {f"rate {i}": (lambda a, rate=rate: equivalence(rate, 1.0, 0.2, alpha=a)) for i, rate in enumerate(fits)}
    found = holm(claims)
    assert [verdict.outcome for verdict in found.values()] == ["holds", "holds", "fails"]
    assert found["rate 0"].reason.endswith(
        "Holm's correction for 3 verdicts: judged with an error probability of 0.017"
    )
    undecided = holm({**claims, "close": lambda a: equivalence(fits[0], fits[0].exponent + 0.05, 0.05, alpha=a)})
    assert undecided["close"].outcome == "undecided" and "0.05" not in undecided["close"].reason.split("probability")[1]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="there are no claims"):
        holm({})
    with pytest.raises(ValueError, match="between 0 and 1/2, such as 0.05; got 5"):
        holm(_claims([1.0]), alpha=5.0)
