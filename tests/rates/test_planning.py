"""Plans of seeds: what they promise is what a run finds, and rounds of seeds neither stop early nor overshoot."""

import numpy as np
import pytest
from helpers import SIZES as N
from helpers import noise

from benchmarks.stopped import stop
from tsjax.rates import fit_rate, next_seeds, plan_seeds
from tsjax.rates.planning import _design


def test_plans_deliver_what_they_promise(rng):
    curve = (1 / N)[:, None]
    pilot = fit_rate(N, curve * noise(rng, 64))
    plan = plan_seeds(pilot, 0.01)
    assert not plan.reached and 64 < plan.seeds < plan.assured_seeds and plan.octave_seeds < plan.seeds
    assert plan.cost <= plan.equal_cost and (plan.allocation >= 64).all()
    done = fit_rate(N, curve * noise(rng, plan.seeds))
    assert (done.interval[1] - done.interval[0]) / 2 == pytest.approx(0.01, rel=0.25)
    allocated = noise(rng, int(plan.allocation.max()))
    for row, count in zip(allocated, plan.allocation, strict=True):
        row[count:] = np.nan
    unequal = fit_rate(N, curve * allocated, paired=False)
    assert (unequal.interval[1] - unequal.interval[0]) / 2 == pytest.approx(0.01, rel=0.3)
    # Where a seed costs a thousand times more, none is planned beyond the pilot's.
    assert plan_seeds(pilot, 0.01, cost=np.where(N == 8192, 1e6, 1.0)).allocation[-1] == 64
    assert plan_seeds(pilot, 1.0).reached and plan_seeds(pilot, 1.0).seeds == 4
    for options, message in (
        (0.0, "half-width of the exponent's interval"),
        (1e-9, "would take more than 1048576 seeds"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_seeds(pilot, options)
    with pytest.raises(ValueError, match="at least 4 seeds at every n to estimate its noise, got 2"):
        plan_seeds(fit_rate(N, curve * noise(rng, 2)), 0.1)


def test_rounds_of_seeds_end_at_the_precision(rng):
    n = N[3:]
    whole = noise(rng, 2000, n) / n[:, None]
    counts, rounds = np.full(len(n), 8), 0
    while True:
        risks = np.where(np.arange(2000) < counts[:, None], whole, np.nan)[:, : counts.max()]
        rate = fit_rate(n, risks)
        wanted = next_seeds(rate, 0.04)
        if (wanted == counts).all():
            break
        assert (wanted >= counts).all() and (wanted <= 4 * counts).all()
        counts, rounds = wanted, rounds + 1
    assert 0 < rounds < 8 and (rate.interval[1] - rate.interval[0]) / 2 <= 0.04
    assert (next_seeds(rate, 1e-4, most=int(counts.min())) == counts).all()


def test_a_small_pilot_asks_for_no_more_seeds_than_a_larger_one(rng):
    """Plans use the quantile of the planned seeds: with that of a pilot of 4, ten times the seeds were run."""
    found = {pilot: [stop(rng, pilot, 15) for _ in range(12)] for pilot in (4, 8)}
    seeds = {pilot: np.mean([one.seeds for one in stopped]) for pilot, stopped in found.items()}
    assert seeds[4] < 1.5 * seeds[8]
    widths = [one.half_width for one in found[4]]
    assert max(widths) <= 0.15 and np.median(widths) > 0.09


@pytest.mark.parametrize("paired", [True, False])
def test_planned_effective_seeds_are_those_of_the_fit(rng, paired):
    """Of nested columns: by closed form in the plan, by sums over seeds in the fit."""
    counts = np.array([40, 40, 24, 16, 12, 8, 8, 8, 8])
    risks = np.where(np.arange(40) < counts[:, None], noise(rng, 40) / N[:, None], np.nan)
    rate = fit_rate(N, risks, paired=paired)
    variance, effective = _design(rate, N, counts, rate.variance * counts)
    assert effective == pytest.approx(rate.effective_seeds, rel=1e-6)
    # With independent rows the delta method's variance is the planned one.
    if not paired:
        assert np.sqrt(variance) == pytest.approx(rate.delta_error, rel=1e-6)
