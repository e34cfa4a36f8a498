"""Forecasts averaged over models: the formula by hand, and coverage where no model wins."""

import numpy as np
import pytest
from helpers import SEED
from helpers import SIZES as N
from scipy import stats

from tsjax.rates import choose_model, forecast


def test_the_average_is_the_formula_of_buckland(rng):
    choice = choose_model(
        N, (1 / N + 3e-4)[:, None] * rng.chisquare(15, (9, 12)) / 15, models=["power", "floor", "finite"]
    )
    found = choice.forecast(3e4, seeds=5, level=0.9)
    one = {name: forecast(rate, 3e4, seeds=5, level=0.9) for name, rate in choice.rates.items()}
    w = np.array([choice.probability[name] for name in one])
    y = np.log([each.predicted for each in one.values()])
    # Each model's own interval is y -+ t e, so that its half width is the t e of the formula.
    half = np.array([np.log(each.interval[1] / each.interval[0]) / 2 for each in one.values()])
    middle, z = w @ y, stats.norm.ppf(0.95)
    reach = w @ np.sqrt(half**2 + (z * (y - middle)) ** 2)
    np.testing.assert_allclose(np.log(found.interval), [middle - reach, middle + reach], rtol=1e-9)
    assert found.predicted == pytest.approx(np.exp(middle)) and found.weights == pytest.approx(choice.probability)
    assert (
        found.spread == pytest.approx(w @ (y - middle) ** 2)
        and found.by_model["power"].predicted == one["power"].predicted
    )
    with pytest.raises(ValueError, match="n must be finite and positive"):
        choice.forecast(-1.0)


def test_where_a_model_wins_it_forecasts_alone(rng):
    winner = choose_model(N, (1 / N + 1e-3)[:, None] * rng.chisquare(15, (9, 256)) / 15, models=["power", "floor"])
    assert winner.wins and winner.best == "floor"
    alone, found = forecast(winner.rate, 3e4), winner.forecast(3e4)
    np.testing.assert_allclose(found.interval, alone.interval, rtol=1e-6)


@pytest.mark.slow
def test_averaged_intervals_cover_better_than_those_of_the_chosen_model():
    """A floor too weak to be seen in the window, forecast three octaves beyond it: the chosen power law misses it. Of 150 other
    curves 73 % of the chosen models' intervals held the truth, and 96 % of the averaged ones."""
    truth, averaged, alone, undecided, curves = 1 / N[-1] / 8 + 5e-6, 0, 0, 0, 40
    holds = lambda interval: interval[0] <= truth <= interval[1]
    for i in range(curves):
        risks = (1 / N + 5e-6)[:, None] * np.random.default_rng([SEED, i]).chisquare(15, (9, 8)) / 15
        choice = choose_model(N, risks, models=["power", "floor", "finite"], draws=100)
        undecided += not choice.wins
        alone += holds(forecast(choice.rate, 8 * N[-1], seeds=10**6).interval)
        averaged += holds(choice.forecast(8 * N[-1], seeds=10**6).interval)
    assert 0 < undecided < curves and averaged > alone
    assert averaged / curves >= 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / curves), (averaged, alone)
