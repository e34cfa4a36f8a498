"""Comparisons with a reference curve, on curves whose ratios and crossings are known."""

from typing import Literal

import jax
import numpy as np
import pytest

from tsjax.rates import Estimate
from tsjax.report.comparison import compare, crossing_text, reference_of
from tsjax.sweep.experiment import experiment
from tsjax.sweep.run import run_spec, sweep
from tsjax.sweep.spec import parse_spec

GRID = {"n": [16, 64, 256, 1024], "name": ["slow", "fast", "late"], "scale": [1.0, 2.0], "seeds": 8}


@experiment(static=("name",), curve="name")
def crossings(key, *, name: Literal["slow", "fast", "late"], n: int, scale: float):
    """`fast` overtakes `slow` at n = 100, for every seed; `late` never does."""
    noise = scale * (1.0 + jax.random.uniform(key))
    return {"risk": noise * {"slow": n**-0.5, "fast": 10.0 / n, "late": 2.0 * n**-0.5}[name]}


@pytest.fixture(scope="module")
def result():
    grid = {name: values for name, values in GRID.items() if name != "seeds"}
    return sweep(crossings, seeds=8, **grid)


def test_ratio_and_crossing(result):
    found = compare(result)
    # Of every variant, against the first name of the grid, at the largest n.
    assert [(one.curve.name, one.rival.name) for one in found] == [("fast", "slow")] * 2 + [("late", "slow")] * 2
    assert all(one.curve.arguments["scale"] == one.rival.arguments["scale"] and one.x == 1024 for one in found)
    for one in found:
        assert one.ratio is not None and one.crossing is not None
        late = one.curve.name == "late"
        assert one.ratio.value == pytest.approx(2 if late else 10 / np.sqrt(1024))
        assert one.crossing.value == pytest.approx(np.inf if late else 100)


def test_the_reference_is_what_expectations_compare_with(result, toy_result, path_result):
    assert reference_of(result) == "slow"
    expect = [{"what": "risk of slow relative to fast", "where": {"scale": 1.0}, "at_least": 0.0}]
    spec = parse_spec({"study": "nowhere:crossings", "grid": GRID, "expect": expect})
    assert reference_of(run_spec(spec, experiment=crossings)) == "fast"
    assert reference_of(toy_result) == "optimal_linear"
    # One name alone has nothing to be compared with.
    assert reference_of(path_result) is None


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (312.4, 250.0, 400.0, "312 [250, 400]"),
        (0.0, 0.0, 0.0, "below at every n"),
        (np.inf, np.inf, np.inf, "not below at the end"),
        (np.inf, 75.0, np.inf, "not below at the end [75, ∞]"),
        (80.0, 0.0, np.inf, "80 [before the first, ∞]"),
    ],
)
def test_crossings_in_words(value, low, high, text):
    assert crossing_text(Estimate(value, (low, high), 0.95), "n") == text


def test_no_crossing_is_a_dash():
    assert crossing_text(None, "n") == "–"
