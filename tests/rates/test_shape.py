"""Shapes of curves: planted ones are named, the test keeps its size, and diagnosis speaks of them."""

import numpy as np
import pytest
from helpers import SEED, SIZES, noise
from scipy import stats

from tsjax.rates import diagnose, fit_rate, shape_of

U = np.log(SIZES)
PEAK = SIZES**-0.3 * (1 + 3 * np.exp(-((U - U[4]) ** 2)))
DIP = SIZES**-0.8 + 2e-6 * SIZES
PLANTED = {"monotone": 1 / SIZES, "rising": SIZES**0.2, "peaking": PEAK, "dipping": DIP}


@pytest.mark.parametrize("seeds", [1, 16])
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_shape_is_named(rng, name, seeds):
    n = SIZES if seeds > 1 else np.geomspace(SIZES[0], SIZES[-1], 41)
    curve = np.exp(np.interp(np.log(n), U, np.log(PLANTED[name])))
    factors = noise(rng, seeds) if seeds > 1 else np.exp(0.03 * rng.normal(size=(41, 1)))
    shape = shape_of(n, curve[:, None] * factors)
    assert shape.shape == name and str(shape).startswith(name)
    assert shape.well_behaved == (name in ("monotone", "rising"))
    if name == "peaking":
        assert shape.rise and shape.fall and shape.rise[1] <= shape.fall[0] and shape.rise_factor > 1.3
    if name == "dipping":
        assert shape.rise and shape.fall and shape.fall[1] <= shape.rise[0]


def false_alarms(curves, seeds, draw, curve, paired=True):
    """The share of curves that fall, or are flat, on which a rise is found at 5 %."""
    found = 0
    for i in range(curves):
        rng = np.random.default_rng([SEED, i])
        found += shape_of(SIZES, curve[:, None] * draw(rng, (len(SIZES), seeds)), paired=paired).rise is not None
    return found / curves


CHI = lambda rng, shape: rng.chisquare(15, shape) / 15
LOGNORMAL = lambda rng, shape: np.exp(rng.normal(size=shape))
SHARED = lambda rng, shape: np.exp(0.5 * rng.normal(size=shape[1]) + 0.3 * rng.normal(size=shape))
FAILED = lambda rng, shape: CHI(rng, shape) * np.where(rng.random(shape) < 0.05, 30.0, 1.0)
GAUSS = lambda rng, shape: np.exp(0.1 * rng.normal(size=shape))


@pytest.mark.slow
@pytest.mark.parametrize(
    "draw", [CHI, LOGNORMAL, SHARED, FAILED, GAUSS], ids="chi lognormal shared failed gauss".split()
)
def test_the_test_has_its_size(draw):
    """5 % at most on the flat curve, the worst of all that do not rise, within three standard errors of the simulation."""
    curves, flat = 200, np.ones(len(SIZES))
    bar = 0.05 + 3.0 * np.sqrt(0.05 * 0.95 / curves)
    for seeds in (1,) if draw is GAUSS else (4, 16):
        assert false_alarms(curves, seeds, draw, flat) <= bar
        assert false_alarms(40, seeds, draw, 1 / SIZES) <= 0.05
    if draw is CHI:
        assert false_alarms(curves, 8, draw, flat, paired=False) <= bar


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 4, 8, 32])
def test_the_test_has_its_size_in_many_curves(seeds):
    curves, draw = 2000, GAUSS if seeds == 1 else CHI
    assert false_alarms(curves, seeds, draw, np.ones(len(SIZES))) <= 0.05 + 3.0 * np.sqrt(0.05 * 0.95 / curves)


def test_a_rise_is_that_of_scipys_tests(rng):
    risks = noise(rng, 12)
    risks[3:] *= 1.9
    risks[2, :3] = np.nan
    for paired, test in (
        (True, stats.ttest_rel),
        (False, lambda a, b, **o: stats.ttest_ind(a, b, equal_var=False, **o)),
    ):
        p = {
            (i, j): test(risks[j], risks[i], nan_policy="omit", alternative="greater").pvalue
            for i in range(9)
            for j in range(i + 1, 9)
        }
        i, j = min(p, key=p.__getitem__)
        edge = p[i, j] * 36
        found = shape_of(SIZES, risks, alpha=min(edge * 1.01, 0.5), paired=paired)
        assert found.rise == (SIZES[i], SIZES[j]) and found.rise_factor > 1
        assert shape_of(SIZES, risks, alpha=edge * 0.99, paired=paired).rise is None
    # Groups are the units: two columns of one teacher are one difference.
    whole = np.where(np.isnan(risks), 1.0, risks)
    doubled = shape_of(SIZES, np.repeat(whole, 2, axis=1), groups=np.repeat(np.arange(12), 2), alpha=0.01)
    assert doubled.rise == shape_of(SIZES, whole, alpha=0.01).rise is not None


def test_flat_curves_and_wrong_tables_say_so(rng):
    flat = shape_of(SIZES, np.ones((9, 4)))
    assert (
        flat.shape == "flat"
        and np.isnan(flat.rise_factor)
        and "no change of mean risk is significant at 5 %" in str(flat)
    )
    risks = noise(rng, 6)
    risks[4, 1:] = np.nan
    with pytest.raises(ValueError, match="needs 2 seeds at each n, and n = 512 has one"):
        shape_of(SIZES, risks)
    with pytest.raises(ValueError, match="needs at least 4 n, got 3"):
        shape_of(SIZES[:3], risks[:3, :1])
    with pytest.raises(ValueError, match="level is a probability"):
        shape_of(SIZES, noise(rng, 6), alpha=1.5)


def test_diagnosis_names_the_shape(rng):
    for name in ("peaking", "dipping"):
        found = " ".join(diagnose(fit_rate(SIZES, PLANTED[name][:, None] * noise(rng, 32), draws=200)))
        assert f"the curve is {name}: mean risk rises between" in found and "fit the part that falls" in found
    flat = diagnose(fit_rate(SIZES, np.ones((9, 1)) * np.exp(0.01 * rng.normal(size=(9, 16))), draws=200))
    assert any(text.startswith("the curve is flat: no change of mean risk is significant at 1 %") for text in flat)
    for name in ("monotone", "rising"):
        assert "the curve is" not in " ".join(
            diagnose(fit_rate(SIZES, PLANTED[name][:, None] * noise(rng, 32), draws=200))
        )
