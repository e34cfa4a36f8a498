"""The exponent of a contour, on surfaces whose contour is known."""

import numpy as np
import pytest

import tsjax as ts

D, MU = np.array([100.0, 200.0, 400.0, 800.0]), np.array([1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def _errors(rng, seeds, noise=0.03, power=0.25, falls=True):
    """1 / (1 + z) with z = (mu / d^power)^4 times what makes z = 1 at mu = 2, d = 200; or the mirror image."""
    z = (MU[None] / 2 * (200 / D[:, None]) ** power) ** 4
    mean = 1 / (1 + z) if falls else z / (1 + z)
    return mean[..., None] + noise * rng.normal(size=(4, 6, seeds))


def test_the_exponent_is_the_slope_of_the_interpolated_places(rng):
    values = _errors(rng, 40)
    found = ts.contour(D, MU, values, 0.4)
    means, places = values.mean(axis=2), []
    for row in means:
        last = max(j for j in range(6) if row[j] >= 0.4)
        share = (row[last] - 0.4) / (row[last] - row[last + 1])
        places.append(np.log(MU[last]) * (1 - share) + np.log(MU[last + 1]) * share)
    assert found.value == pytest.approx(np.polyfit(np.log(D), places, 1)[0], rel=1e-9)
    assert found.interval[0] < found.value < found.interval[1] and found.value == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_rising_metrics_and_other_exponents(rng, power):
    # On a fine axis there is nothing to interpolate.
    found = ts.contour(D, MU, _errors(rng, 16, noise=1e-4, power=power, falls=False), 0.4)
    assert found.value == pytest.approx(power, abs=0.02)


def test_it_is_covered():
    rng, hits = np.random.default_rng(5), 0
    # The truth with the error of interpolation.
    truth = ts.contour(D, MU, _errors(rng, 2, noise=0.0), 0.5).value
    for _ in range(300):
        low, high = ts.contour(D, MU, _errors(rng, 8, noise=0.1), 0.5, draws=300).interval
        hits += low <= truth <= high
    assert 0.92 < hits / 300 < 0.995


def test_places_that_one_curve_lacks_are_left_out_of_it(rng):
    values = _errors(rng, 16)
    holed = values.copy()
    holed[1, 0] = np.nan
    assert ts.contour(D, MU, holed, 0.4).value == ts.contour(D, MU, values, 0.4).value
    # A seed that is missing somewhere takes part elsewhere.
    holed[0, 2, 3] = np.nan
    assert ts.contour(D, MU, holed, 0.4).value == pytest.approx(0.25, abs=0.03)


def test_a_contour_that_may_lie_outside_has_no_bounds(rng):
    """At d = 800 the mean at the largest mu is not surely below the height."""
    values = _errors(rng, 16, noise=0.2)
    values[3, -1] += 0.4 - values[3, -1].mean() - 0.01
    low, high = ts.contour(D, MU, values, 0.4).interval
    assert high == np.inf and np.isfinite(low)
    few = ts.contour(D, MU, values[..., :1], 0.4) if values[3, -1, 0] < 0.4 else None
    assert few is None or few.interval == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0.99}, r"does not pass 0\.99 where the argument is 100: .* Give x on both sides"),
        ({"argument": D[:3]}, r"values have shape \(q, k, seeds\)"),
        ({"argument": D[::-1]}, r"argument needs two values or more, increasing"),
        ({"x": np.array([0.0, *MU[1:]])}, r"x"),
        ({"draws": 0}, r"draws"),
    ],
)
def test_bad_contours_are_errors(rng, change, message):
    options = {"argument": D, "x": MU, "values": _errors(rng, 4, noise=0.0), "height": 0.4, **change}
    with pytest.raises(ValueError, match=message):
        ts.contour(**options)


def test_a_curve_without_values_is_an_error(rng):
    values = _errors(rng, 4)
    values[2] = np.nan
    with pytest.raises(ValueError, match="it is nan and nan"):
        ts.contour(D, MU, values, 0.4)
