"""Means of anything but risks and truth values: undecided with the reason, never an interval."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsjax as ts
from tsjax.report.grids import rates_grid
from tsjax.report.series import mean_drawing
from tsjax.sweep.result import Result
from tsjax.sweep.spec import parse_spec

GRID = {"n": [16, 64], "seeds": 16}


@ts.experiment(y=("risk", "accuracy", "found", "errors", "bias"))
def classified(key, *, n: int):
    """What a classifier of finitely many points may be measured by; the last seed fails."""
    draw = jax.random.normal(key, (), jnp.float64)
    risk, rare = (1.0 + draw**2) / n, draw > 1.0
    return {
        "status": jnp.where(draw < -1.2, 2, 0),
        "risk": jnp.where(draw < -1.2, jnp.nan, risk),
        "accuracy": jnp.ones(()),
        "found": jnp.ones((), jnp.int32),
        "errors": jnp.where(rare, 0.05, 0.0),
        "bias": draw / n,
    }


@pytest.fixture(scope="module")
def result() -> Result:
    return ts.sweep(classified, **GRID)


def _verdicts(result: Result, *what: str):
    spec = parse_spec(
        {"study": "sweep.test_metrics:classified", "grid": GRID}
        | {"expect": [{"what": one, "at_least": 1e-9, "at_most": 10.0, "over": {"n": 64}} for one in what]}
    )
    return Result(result.records, spec, classified, result.provenance, plan=result.plan).verdicts()


def test_verdicts_on_means_that_have_no_interval_are_undecided(result):
    cases = {
        "accuracy": "looks like a share of finitely many test points, such as an accuracy",
        "errors": "are exactly 0, as of errors counted on finitely many test points",
        "bias": "the numerator is of both signs",
        "errors relative to risk": "are exactly 0",
        "risk relative to errors": "the denominator is not a positive risk",
        "found relative to risk": "'found' holds truth values, whose mean is a share",
        "run_seconds": "'run_seconds' does not measure single seeds: cells run in batches",
        "risk relative to run_seconds": "'run_seconds' does not measure single seeds",
    }
    for (what, reason), verdict in zip(cases.items(), _verdicts(result, *cases), strict=True):
        assert verdict.outcome == "undecided" and reason in verdict.reason, what
        assert np.isnan(verdict.interval).all()


def test_integers_are_truth_values_also_beside_failed_cells(result):
    """A column with NaN is one of numbers with a point, though its values were stored as integers."""
    column = result.records["found"]
    assert column.isna().any() and column.dtype == float
    assert result.is_share("found") and not result.is_share("accuracy") and not result.is_share("n")
    verdict, risk = _verdicts(result, "found", "risk")
    there = int((~column[result.records["n"] == 64].isna()).sum())
    np.testing.assert_allclose(verdict.interval, (0.025 ** (1 / there), 1.0))
    assert np.isfinite(risk.interval).all()


def test_figures_draw_no_interval_of_such_means(result):
    for y, kind, drawn in (
        ("accuracy", "mean", False),
        ("found", "share", True),
        ("bias", "mean", False),
        ("risk", "mean", True),
    ):
        drawing = mean_drawing(result, y)
        (series,) = drawing.series
        assert drawing.kind == kind and np.isfinite(series.mean).all()
        assert np.isfinite(series.low).all() == np.isfinite(series.high).all() == drawn, y
        assert ("such means have none" in drawing.caption) != drawn


def test_exponents_of_such_means_warn_and_leave_nothing_that_holds(result):
    errors = dataclasses.replace(classified, y=("errors",))
    expect = [{"what": "rate in n", "at_most": 1e9, "at_least": -1e9}]
    spec = parse_spec({"study": "sweep.test_metrics:classified", "grid": GRID, "expect": expect})
    found = Result(result.records, spec, errors, result.provenance, plan=result.plan)
    (verdict,) = found.verdicts()
    assert verdict.outcome == "undecided" and "errors at n = 16 is not a positive risk" in verdict.reason
    assert found.rates()["warnings"][0][0].startswith("errors at n = 16 is not a positive risk")
    assert rates_grid(found) is not None


def test_times_are_no_metric(result):
    (curve,) = result.curves()
    with pytest.raises(ValueError, match="'run_seconds' does not measure single seeds: .* no interval, ratio or rate"):
        result.rate(curve, "run_seconds")
    with pytest.raises(ValueError, match="'rsik' is not among the y of classified. Did you mean 'risk'"):
        result.rate(curve, "rsik")
    with pytest.raises(ValueError, match="x or y names 'run_seconds', which the engine records itself"):
        dataclasses.replace(classified, y=("risk", "run_seconds"))
    assert result.to_xarray()["run_seconds"].attrs["comment"].startswith("'run_seconds' does not measure single seeds")


@ts.experiment(y=("risk", "spare"), static=("method",), curve="method")
def namesakes(key, *, method: Literal["plain", "bias", "spare"], n: int):
    """Two of its curves have the name of a recorded value, and one of these is a y."""
    size = {"plain": 4.0, "bias": 2.0, "spare": 2.0}[method]
    noise = 1.0 + 0.01 * jax.random.normal(key, (), jnp.float64)
    return {"risk": size * noise / n, "bias": 100.0 * noise, "spare": 8.0 * noise / n}


@pytest.mark.parametrize(
    ("what", "expected"), [("risk of plain relative to bias", 2.0), ("risk of plain relative to spare", 0.5)]
)
def test_a_curve_comes_before_a_recorded_value_and_a_y_before_a_curve(what, expected):
    """Both for the check before a run and for the measurement after it."""
    grid = {"method": ["plain", "bias", "spare"], "n": [16], "seeds": 8}
    content = {"study": "sweep.test_metrics:namesakes", "grid": grid}
    expect = [{"what": what, "at_least": 0.99 * expected, "at_most": 1.01 * expected, "over": {"n": 16}}]
    records = ts.sweep(namesakes, **grid)
    spec = parse_spec({**content, "expect": expect})
    (verdict,) = Result(records.records, spec, namesakes, records.provenance, plan=records.plan).verdicts()
    assert verdict.outcome == "holds" and verdict.value == pytest.approx(expected, rel=1e-6)
