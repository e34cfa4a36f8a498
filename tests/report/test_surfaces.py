"""The surface on the page: what it says is what the fit says, and runs that make no curves are points of it alone."""

import tomllib

import numpy as np
import pandas as pd
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.report.captioned import write_captioned
from tsjax.report.page import _sections, render, write_report
from tsjax.report.reproducing import spec_toml
from tsjax.report.sentences import fitted, is_scattered, surface_sentence
from tsjax.report.surfaces import _equal, surface_section
from tsjax.sweep.errors import SpecError
from tsjax.sweep.spec import parse_spec

A, B, E, ALPHA, BETA, COST = 480.0, 2100.0, 1.8, 0.35, 0.37, 6.0
ASKED = {"n": "size", "d": "tokens", "cost": COST}


def _table(points=40, error=0.002):
    """Models; no two share a size or a number of tokens."""
    rng = np.random.default_rng(SEED)
    n, d = 10 ** rng.uniform(7, 10, points), 10 ** rng.uniform(9, 12, points)
    loss = (E + A / n**ALPHA + B / d**BETA) * np.exp(error * rng.normal(size=points))
    return pd.DataFrame({"size": n, "tokens": d, "loss": loss})


@pytest.fixture(scope="module")
def result():
    return ts.from_table(_table(), x="size", y="loss", by=["tokens"], surface=ASKED)


def test_what_it_says_is_what_the_fit_says(result):
    table = _table()
    own = ts.fit_surface(table["size"].to_numpy(), table["tokens"].to_numpy(), table["loss"].to_numpy())
    found = fitted(result)
    assert found is not None and found.surface.parameters["a"].value == pytest.approx(
        own.parameters["a"].value, rel=1e-6
    )
    assert found.frontier is not None and found.frontier.cost == COST
    low, high = found.frontier.exponents["n"].interval
    assert low < BETA / (ALPHA + BETA) < high
    text = surface_sentence(result)
    assert (
        f"exponent {own.parameters['a']} in size" in text and f"size grow as C^{found.frontier.exponents['n']}" in text
    )


def test_lines_of_equal_loss_are_lines_of_equal_loss(result):
    surface = result.asked_surface
    for level, n, d in _equal(surface):
        np.testing.assert_allclose(surface.predict(n[:3], d[:3])[0], level, rtol=1e-9)


def test_runs_that_make_no_curves_are_points_of_the_surface_alone(result, tmp_path):
    assert is_scattered(result)
    assert [section.id for section in _sections(result)] == ["surface"]
    (section,) = _sections(result)
    points, frontier = section.charts
    trace = points.figure.data[-1]
    np.testing.assert_allclose(np.sort(trace["x"]), np.sort(_table()["size"]), rtol=1e-12)
    best = next(trace for trace in points.figure.data if trace["meta"]["keys"] == ["best"])
    # Where compute is spent best, a A N^-a = b B D^-b (Lagrange).
    log_a, a, log_b, b, _ = result.asked_surface.theta
    np.testing.assert_allclose(
        a * np.exp(log_a - a * np.log(best["x"])), b * np.exp(log_b - b * np.log(best["y"])), rtol=1e-6
    )
    assert [grid.title for grid in section.grids] == ["Parameters", "Best at a given compute"]
    page = write_report(result, tmp_path)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "surface.pdf",
        "surface.png",
        "surface.svg",
    ]
    text = page.read_text()
    assert "[surface]" in text and surface_sentence(result) in text
    # One page, not 40 panels.
    assert "How the cells ended" not in text


def test_curves_stay_beside_a_surface_of_theirs():
    n, d, seed = (axis.ravel() for axis in np.meshgrid([16, 64, 256, 1024], [10, 40, 160, 640], range(4)))
    rng = np.random.default_rng(SEED)
    loss = (0.2 + 2.0 / n**0.5 + 3.0 / d**0.7) * rng.gamma(400, size=len(n)) / 400
    table = pd.DataFrame({"n": n, "width": d, "seed": seed, "loss": loss})
    asked = {"n": "n", "d": "width"}
    result = ts.from_table(table, x="n", y="loss", seed="seed", by=["width"], surface=asked)
    assert not is_scattered(result)
    names = [section.id for section in _sections(result)]
    assert {"curves-loss", "rates", "surface", "maps", "cells"} <= set(names)
    section = surface_section(result)
    assert section is not None and len(section.charts) == 1
    assert result.asked_surface is not None and result.asked_surface.errors == "seeds"
    assert parse_spec({"study": "a:b", "grid": {"n": 1}, "surface": asked}).surface == result.spec.surface


def test_a_surface_that_cannot_be_fitted_is_said_to_be_none(result):
    rows = result.records[result.records["loss"] > np.inf]
    few = ts.from_table(_table().iloc[:4], x="size", y="loss", by=["tokens"], surface=ASKED)
    assert "could not be fitted: " in surface_sentence(few) and "needs as many points" in surface_sentence(few)
    assert "could not be fitted: " in render(few) and rows.empty


@pytest.mark.parametrize(
    ("surface", "message"),
    [
        ({"n": "size", "d": "tokns"}, "'tokns' is not an argument of this sweep. Did you mean 'tokens'"),
        ({"n": "size", "d": "size"}, "must be different"),
        ({"n": "size"}, "surface.d is missing"),
        ({"n": "size", "d": "tokens", "cots": 6}, "unknown key 'cots'. Did you mean 'cost'"),
        ({"n": "size", "d": "tokens", "cost": 0}, "greater than 0"),
        ({"n": "size", "d": "tokens", "at": {"family": 3}}, r"no cell of this sweep has at"),
        ({"n": "size", "d": "family"}, "needs at least 3 values of it"),
    ],
)
def test_wrong_surfaces_are_refused(surface, message):
    table = _table().assign(family=1)
    with pytest.raises(SpecError, match=message):
        ts.from_table(table, x="size", y="loss", by=["tokens", "family"], surface=surface)


def test_sweep_files_ask_for_it_and_the_smoke_size_may_lack_it():
    grid = {"n": [16, 32, 64], "scale": [1.0, 2.0, 4.0], "method": "fast", "seeds": 4}
    content = {"study": "sweep.toys:power", "grid": grid, "surface": {"n": "n", "d": "scale", "floor": False}}
    spec = parse_spec({**content, "smoke": {"n": [16, 32]}})
    assert parse_spec(tomllib.loads(spec_toml(spec))).surface == spec.surface
    assert spec.at_smoke_size().surface is None
    assert parse_spec({**content, "smoke": {"seeds": 2}}).at_smoke_size().surface == spec.surface


def test_it_has_a_table_and_a_caption(result, tmp_path):
    _, table, caption = write_captioned(result, tmp_path / "surface.svg")
    rows, whole = pd.read_csv(table), _table()
    assert list(rows) == ["size", "tokens", "mean", "fitted", "low", "high"] and len(rows) == len(whole)
    np.testing.assert_allclose(np.sort(rows["mean"]), np.sort(whole["loss"]), rtol=1e-7)
    assert (rows["low"] < rows["fitted"]).all() and (rows["fitted"] < rows["high"]).all()
    assert surface_sentence(result).split(",")[0] in caption.read_text().replace("\\", "")
    # A surface that cannot be fitted says why, and other names are listed.
    few = ts.from_table(whole.iloc[:4], x="size", y="loss", by=["tokens"], surface=ASKED)
    with pytest.raises(ValueError, match="needs as many points"):
        write_captioned(few, tmp_path / "few.svg", "surface")
    with pytest.raises(ValueError, match="there is no figure 'surfac'. Allowed: surface."):
        write_captioned(result, tmp_path / "few.svg", "surfac")
