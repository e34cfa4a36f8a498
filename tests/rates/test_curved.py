"""Curved models: every resample finds its lowest valley, and exponents that no data could tell are said to be so."""

import warnings

import numpy as np
import pytest
from helpers import SEED
from scipy import optimize

from tsjax.rates import MODELS, equivalence, fit_rate, simultaneous, superiority
from tsjax.rates.fitting import fit_model
from tsjax.rates.intervals import _quantiles

N = 2.0 ** np.arange(5, 13)


def gamma(rng, curve, seeds=16):
    return curve[:, None] * rng.gamma(20, size=(len(N), seeds)) / 20


@pytest.mark.parametrize("name", ["floor", "finite", "broken"])
def test_every_resample_finds_the_lowest_valley(rng, name):
    """Against SciPy's least squares at many values of the nonlinear parameter, on a curve where local minima abound."""
    risks = gamma(rng, 0.5 + 2 / N)
    rate = fit_rate(N, risks, model=name, draws=100)
    data = rate.table.means(rate.table.resamples(100, 0, True))
    model, free = MODELS[name](), {"floor": 1, "finite": 2, "broken": 3}[name]
    low, high = (end[free] for end in model.limits(N))

    def profile(value, log_y, weight):
        others = [i for i in range(len(model.parameters)) if i != free]

        def residual(theta):
            whole = np.insert(np.asarray(theta), free, value)
            with np.errstate(all="ignore"):
                r = np.sqrt(weight) * (log_y - model.evaluate(whole, N)[0])
            return np.where(np.isfinite(r), r, 1e3)

        start = model.starts(N, log_y[None], weight[None])[0]
        nearest = start[np.nanargmin(np.where(np.isfinite(start).all(1), np.abs(start[:, free] - value), np.inf))]
        return 2 * optimize.least_squares(residual, nearest[others], x_scale=np.abs(nearest[others]) + 1e-6).cost

    for b in range(4):
        log_y, weight = data.log_mean[b], 1.0 / data.variance[b]
        fitted = (weight * (log_y - model.evaluate(rate.theta_draws[b], N)[0]) ** 2).sum()
        grid = np.linspace(low, high, 25)
        lowest = min(profile(value, log_y, weight) for value in grid)
        assert fitted <= lowest * (1 + 1e-6) + 1e-9, (b, fitted, lowest)


@pytest.mark.slow
def test_interval_of_a_weak_floor_covers():
    """The issue's curve: resamples that started where the table's fit ended covered 70 %."""
    hits, curves = 0, 40
    for i in range(curves):
        low, high = fit_rate(N, gamma(np.random.default_rng([SEED, i]), 0.5 + 2 / N), model="floor", draws=200).interval
        hits += low <= 1.0 <= high
    assert hits / curves >= 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / curves), hits


def test_a_flat_curve_identifies_no_exponent(rng):
    rate = fit_rate(N, gamma(rng, np.ones(len(N))), model="floor", draws=400)
    assert not rate.identified and np.isinf(rate.interval).any()
    assert str(rate).startswith("not identified, best fit ") and "inf" in str(rate)
    assert rate.warnings[0].startswith("the exponent is not identified: any exponent ")
    assert "not identified" in rate._repr_html_() and "! the exponent is not identified" in repr(rate)
    good = fit_rate(N, gamma(rng, N**-1.0 + 1e-2), model="floor", draws=400)
    assert good.identified and not good.warnings
    # A comparison with such an exponent is open too, and no verdict trusts it.
    assert good.minus(rate).interval == (-np.inf, np.inf)
    verdict = equivalence(rate, 1.0, 100.0)
    assert verdict.outcome == "undecided" and "the exponent is not identified" in verdict.reason
    assert superiority(good, rate).outcome == "undecided"
    with pytest.raises(ValueError, match="the exponent of flat is not identified"):
        simultaneous({"good": good, "flat": rate})
    assert rate.interval_at(kind="delta") == (-np.inf, np.inf)


def test_a_curve_that_no_power_follows_is_flat():
    """A hump without a trend, for which every exponent on the grid would take a negative constant."""
    hump = np.array([[1.0, 1.0, 1.02, 1.05, 1.05, 1.02, 1.0, 1.0]])
    model, weight = MODELS["floor"](), np.ones((1, 8))
    starts = model.starts(N, np.log(hump), weight)
    assert np.isinf(model.exponents(starts, N)).all()
    theta, loss = fit_model(model, N, np.log(hump), weight, "wls")
    constant = 0.5 * ((np.log(hump) - np.log(hump).mean()) ** 2).sum()
    assert np.isfinite(theta).all() and loss[0] <= constant * (1 + 1e-6)


def test_a_floor_that_is_reached_at_once_bounds_the_exponent_below_only():
    # All that the curve has of a power is its first point.
    curve = np.where(N == N[0], 2.0, 1.0)
    rate = fit_rate(N, gamma(np.random.default_rng(SEED), curve, 64), model="floor", draws=400)
    assert not rate.identified and rate.interval[1] == np.inf and 1.0 < rate.interval[0] < 10.0
    assert f"any exponent above {rate.interval[0]:.3g} fits" in rate.warnings[0]
    assert np.isfinite(rate.predict(N)).all() and np.isfinite(rate.theta_draws).all()


def test_a_break_at_the_end_of_the_window_leaves_the_exponent_open(rng):
    bend = 0.5 * np.logaddexp(0.0, (np.log(N) - np.log(2900.0)) / 0.5)
    late = fit_rate(N, gamma(rng, np.exp(-0.5 * np.log(N) - 0.5 * bend), 32), model="broken", draws=400)
    assert not late.identified
    u = np.log(N)
    early = np.exp(-1.0 * u - 1.5 * 0.5 * np.logaddexp(0.0, (np.log(256.0) - u) / 0.5))
    rate = fit_rate(N, gamma(rng, early, 256), model="broken", draws=400)
    assert rate.identified and rate.interval[0] < 1.0 < rate.interval[1]


def test_an_open_end_is_infinite_and_never_nan():
    """Also where a quantile falls between a resample without an end and one with."""
    assert _quantiles(np.array([-np.inf, -np.inf, 1.0, 2.0, 3.0]), np.array([0.3, 0.5])) == (-np.inf, 1.0)
    assert _quantiles(np.array([1.0, 2.0, np.inf, np.inf]), np.array([0.0, 0.4])) == (1.0, np.inf)


def test_no_resample_with_every_n():
    """Each seed at one n: hardly a resample has a mean at all of them, and the interval is open."""
    n = np.arange(1.0, 41.0)
    risks = np.full((40, 64), np.nan)
    risks[np.arange(40), np.arange(40)] = 1.0 / n
    risks[0, 41] = 1.0
    for options in ({"model": "floor"}, {"method": "gamma"}, {}):
        assert fit_rate(n, risks, draws=100, errors="seeds", **options).interval == (-np.inf, np.inf)


def test_fits_of_noisy_curves_warn_of_nothing(rng):
    """No overflow on the way: a flat curve drives the exponents of its resamples to their limits."""
    n = np.logspace(7, 10.5, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in MODELS:
            y = np.log(rng.gamma(20, size=(50, 8)))
            theta, loss = fit_model(MODELS[name](), n, y, np.ones((50, 8)), "wls")
            assert np.isfinite(loss).all() and theta.shape[0] == 50
