"""Sweeps of a wanted precision on planted curves."""

import numpy as np
import pytest
from sweep.toys import path, power, power_spec

from tsjax.sweep.plan import make_plan
from tsjax.sweep.result import Result
from tsjax.sweep.run import run_spec
from tsjax.sweep.seeds import plan_precision, run_until, with_more_seeds
from tsjax.sweep.spec import SpecError, parse_spec

GRID = {"n": [16, 64, 256, 1024], "method": ["fast", "slow"], "seeds": 8}


def _half(result: Result) -> np.ndarray:
    rates = result.rates()
    return ((rates["high"] - rates["low"]) / 2).to_numpy()


def test_seeds_are_added_until_the_precision_is_reached(tmp_path):
    ran = []

    def run(spec):
        result = run_spec(spec, out=tmp_path / "s", experiment=power)
        ran.append(len(result.records))
        return result

    result = run_until(power_spec(grid=GRID), run, 0.05)
    assert (_half(result) <= 0.05).all() and len(ran) > 1 and ran == sorted(ran)
    # Nothing ran twice, and the same command finds all of it done.
    assert result.records["cell"].is_unique
    again = run_until(result.spec, run, 0.05)
    assert again.records.equals(result.records)


@pytest.mark.slow  # Many small rounds, each compiling the programs of its cells.
def test_no_more_seeds_than_allowed():
    first = run_spec(power_spec(grid=GRID), experiment=power)
    capped = run_until(power_spec(grid=GRID), lambda spec: run_spec(spec, experiment=power), 1e-3, most=12)
    assert len(first.records) < len(capped.records) and (capped.records.groupby(["method", "n"]).size() <= 12).all()


def test_new_cells_are_those_the_plan_asks_for():
    result = run_spec(power_spec(grid=GRID), experiment=power)
    assert with_more_seeds(result, 10.0, 1024) is result.spec
    extended = with_more_seeds(result, 0.05, 1024)
    old, new = (
        {cell.id for group in make_plan(spec, power).groups for cell in group.cells} for spec in (result.spec, extended)
    )
    assert old < new and len(new) <= 4 * len(old)
    # Few seeds give no plan: nothing is added, rather than something made up.
    two = run_spec(power_spec(grid={**GRID, "seeds": 2}), experiment=power)
    assert with_more_seeds(two, 0.05, 1024) is two.spec
    assert "at least 4 seeds" in plan_precision(two, 0.05)[0].reason


def test_plans_count_the_seconds_of_a_seed():
    result = run_spec(power_spec(grid=GRID), experiment=power)
    (fast, slow) = plan_precision(result, 0.05)
    assert fast.plan is not None and slow.plan is not None and fast.curve.name == "fast"
    rows = result.records[result.records["method"] == "fast"]
    seconds = rows.groupby("n")["run_seconds"].mean().to_numpy()
    assert fast.plan.equal_cost == pytest.approx(seconds.sum() * fast.plan.seeds)
    paths = run_spec(parse_spec({"study": "sweep.toys:path", "grid": {"seeds": 4}}), experiment=path)
    with pytest.raises(SpecError, match="returns its whole path in 'step' from one cell"):
        plan_precision(paths, 0.1)
