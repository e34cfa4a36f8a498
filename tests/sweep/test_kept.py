"""Costs that one run leaves for the plans of later ones."""

import json

import jax
import numpy as np
import pytest

import tsjax as ts
from tsjax.sweep.classes import COMPILE_SECONDS
from tsjax.sweep.estimate import estimate_plan
from tsjax.sweep.experiment import Cost
from tsjax.sweep.kept import KeptCosts
from tsjax.sweep.plan import make_plan
from tsjax.sweep.provenance import shared_here
from tsjax.sweep.spec import parse_spec


@ts.experiment(static=("method",), sized=("n",), curve="method", cost=lambda a: Cost(0.0, float(a["n"]) ** 2))
def law(key, *, n: int, method: str):
    return {"risk": 1.0 / n.count}


@pytest.fixture
def kept_here(tmp_path, monkeypatch):
    monkeypatch.setenv("TSJAX_CACHE_DIR", str(tmp_path / "cache"))
    before: bool = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", True)
    yield tmp_path / "cache/costs.json"
    jax.config.update("jax_enable_compilation_cache", before)


def _plan(**grid):
    spec = parse_spec({"study": "a:law", "grid": {"seeds": 8, "method": ["one", "two"], **grid}}, where="test")
    return shared_here(make_plan(spec, law), {})


def test_a_plan_knows_what_a_run_took(kept_here):
    unknown = estimate_plan(_plan(n=[10, 20]), 0, 64).curves
    assert [(c.measured, c.bytes, c.programs) for c in unknown] == [(False, None, 1)] * 2
    assert all(c.seconds is not None and c.seconds >= COMPILE_SECONDS for c in unknown)
    records = ts.sweep(law, seeds=8, n=[10, 20], method="one").records
    assert kept_here.stat().st_mode & 0o777 == 0o600
    known, other = estimate_plan(_plan(n=[10, 20]), 0, 64).curves
    assert known.measured and not other.measured and known.bytes is not None and known.bytes > 0
    compiling, running = records["compile_seconds"].iloc[0], records["run_seconds"].sum()
    assert known.seconds == pytest.approx(compiling + running, rel=0.05)
    # Other sizes of the same curve: a smaller one in proportion to its cost, and a larger one at most so.
    each = records.query("n == 20")["run_seconds"].mean()
    first = records.query("n == 10")["run_seconds"].mean()
    [smaller, _] = estimate_plan(_plan(n=[5]), 0, 64).curves
    assert smaller.seconds == pytest.approx(compiling + 8 * first / 4, rel=0.05)
    [larger, _] = estimate_plan(_plan(n=[40]), 0, 64).curves
    assert compiling + 8 * each <= 1.05 * larger.seconds and larger.seconds <= 1.05 * (compiling + 8 * 4 * each)


def test_costs_of_other_runs_stay(kept_here):
    device = jax.devices()[0].device_kind
    plan = _plan(n=[10, 20])
    first, second = KeptCosts(device), KeptCosts(device)
    one, two = plan.groups[0], next(g for g in plan.groups if g.static["method"] == "two")
    first.note_program(law, one, 3.0, 100.0)
    second.note_program(law, two, 5.0, 200.0)
    first.save()
    second.save()
    found = KeptCosts(device)
    assert found.program(law, one) == (3.0, 100.0) and found.program(law, two) == (5.0, 200.0)
    # Of a program that was never made: the median of its study.
    assert KeptCosts("another device").compile_seconds(law, one) == COMPILE_SECONDS
    [unseen] = _plan(n=[7], method="one").groups
    assert found.compile_seconds(law, unseen) == 4.0


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[]", '{"cpu": 3}', '{"cpu": {"programs": {"a": ["x"]}, "cells": 4}}']
)
def test_damaged_costs_are_no_costs(kept_here, content):
    kept_here.parent.mkdir(mode=0o700)
    kept_here.write_text(content)
    kept_here.chmod(0o600)
    found = KeptCosts("cpu")
    assert found.cells == {} and found.compile_seconds(law, _plan(n=[10]).groups[0]) == COMPILE_SECONDS
    found.note_cells(law, _plan(n=[10]).groups[0], 2.0)
    found.save()
    assert np.isclose(json.loads(kept_here.read_text())["cpu"]["cells"].popitem()[1][1], 2.0)


def test_nothing_is_kept_where_jax_keeps_nothing(kept_here):
    jax.config.update("jax_enable_compilation_cache", False)
    ts.sweep(law, seeds=2, n=[10], method="one")
    assert not kept_here.exists()
