"""Looks at verdicts: a store remembers them, plans for them, and corrects for the number of verdicts."""

import json

import numpy as np
import pytest
from helpers import SEED
from sweep.toys import power, power_spec

import tsjax as ts
from tsjax.rates import at_level, look_level
from tsjax.sweep.looks import Look, Looks, read_looks
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import SpecError
from tsjax.sweep.until import run_until_verdict

N = [16, 32, 64, 128]
HOLDS = {"what": "rate of fast in n", "at_least": 0.0}
CLOSE = {"what": "rate of fast in n", "at_least": 0.95}
FALSE = {"what": "rate of fast in n", "at_most": 1.0}


def _spec(*expect, seeds=8):
    return power_spec(grid={"n": N, "method": ["fast", "slow"], "seeds": seeds}, expect=list(expect))


def _most(spec):
    """Of seeds in any cell."""
    return max(one if isinstance(one, int) else max(one) + 1 for one in (block["seeds"] for block in spec.grid))


def _run(tmp_path):
    return lambda spec: run_spec(spec, experiment=power, out=tmp_path / "s")


def test_a_store_remembers_its_looks(tmp_path):
    run = _run(tmp_path)
    first = run(_spec(FALSE))
    assert first.looks == Looks() and "looked at" not in first.verdicts()[0].reason
    first.look()
    first.look()
    assert [look.seeds for look in read_looks(tmp_path / "s").looks] == [8]
    # The same seeds again are no new look, and other claims have looks of their own.
    again = run(_spec(FALSE, HOLDS))
    again.look()
    assert all("looked at" not in verdict.reason for verdict in again.verdicts())
    more = run(_spec(FALSE, HOLDS, CLOSE, seeds=16))
    false, holds, close = more.verdicts()
    for verdict in (false, holds):
        assert "looked at before, at 8 seeds: this interval holds at one look" in verdict.reason
    assert "looked at" not in close.reason
    # It is the fixed-sample interval still.
    assert false.interval == more.estimate(FALSE["what"]).interval


def test_a_damaged_list_of_looks_is_none(tmp_path):
    result = _run(tmp_path)(_spec(HOLDS))
    (tmp_path / "s/looks.json").write_text("{")
    assert read_looks(tmp_path / "s") == Looks()
    result.look()
    assert read_looks(tmp_path / "s").looks[0].seeds == 8


def test_a_store_at_a_url_remembers_its_looks():
    url = f"memory://looks/{SEED}"
    run = lambda spec: run_spec(spec, experiment=power, out=url)
    result = run_until_verdict(_spec(HOLDS), run, 32, out=url)
    assert read_looks(url) == result.looks and [look.seeds for look in result.looks.looks] == [8]
    assert "this is look 1, at 8" in ts.load(url, power).verdicts()[0].reason
    with pytest.raises(SpecError, match="by a plan for at most 32"):
        run_until_verdict(_spec(HOLDS), run, 64, out=url)


def test_seeds_are_added_until_verdicts_are_decided(tmp_path):
    ran = []
    run = _run(tmp_path)

    def counted(spec):
        ran.append(spec.grid[0]["seeds"])
        return run(spec)

    result = run_until_verdict(_spec(HOLDS), counted, 64, out=tmp_path / "s")
    assert ran == [8] and result.verdicts()[0].outcome == "holds"
    looks = read_looks(tmp_path / "s")
    assert (looks.most, [look.seeds for look in looks.looks]) == (64, [8])
    reason = ts.load(tmp_path / "s").verdicts()[0].reason
    assert "the interval holds at every look up to 64 seeds; this is look 1, at 8" in reason
    ran.clear()
    undecided = run_until_verdict(_spec(FALSE), lambda spec: run_spec(spec, experiment=power), 20)
    assert undecided.seeds == 20 and [look.seeds for look in undecided.looks.looks] == [8, 16, 20]


def test_planned_looks_have_the_intervals_of_sequential(tmp_path):
    result = run_until_verdict(_spec(FALSE), _run(tmp_path), 32, out=tmp_path / "s")
    verdict, rate = result.verdicts()[0], result.rate(result.curves()[0])
    looks = [look.seeds for look in result.looks.looks]
    assert looks == [8, 16, 32] or verdict.outcome != "undecided"
    expected = ts.sequential(rate, looks, 32)
    np.testing.assert_allclose(verdict.interval, expected.interval)
    low, high = rate.interval
    assert verdict.interval[0] < low and high < verdict.interval[1]


def test_a_run_until_a_verdict_goes_on_where_it_was_stopped(tmp_path):
    run, ran = _run(tmp_path), []

    def stopped(spec):
        if _most(spec) > 8:
            raise KeyboardInterrupt
        return run(spec)

    with pytest.raises(KeyboardInterrupt):
        run_until_verdict(_spec(FALSE), stopped, 32, out=tmp_path / "s")
    result = run_until_verdict(_spec(FALSE), lambda spec: (ran.append(spec), run(spec))[1], 32, out=tmp_path / "s")
    assert [look.seeds for look in result.looks.looks] == [_most(spec) for spec in ran]


def test_looks_without_a_plan_cannot_be_planned_for_afterwards(tmp_path):
    _run(tmp_path)(_spec(FALSE)).look()
    with pytest.raises(SpecError, match="were looked at before, at 8 seeds, without a plan"):
        run_until_verdict(_spec(FALSE), _run(tmp_path), 32, out=tmp_path / "s")
    other = tmp_path / "other"
    run_until_verdict(_spec(FALSE), _run(other), 16, out=other / "s")
    with pytest.raises(SpecError, match=r"by a plan for at most 16.* or with --max-seeds 16"):
        run_until_verdict(_spec(FALSE), _run(other), 32, out=other / "s")


@pytest.mark.parametrize(
    ("spec", "most", "message"),
    [
        (_spec(), 32, "expects nothing"),
        (_spec(HOLDS, seeds=64), 32, "at most 32 .* this grid has seeds = 64"),
        (_spec(HOLDS, seeds=[0, 1]), 32, r"this grid has seeds = \[0, 1\]"),
    ],
)
def test_what_cannot_run_until_a_verdict(tmp_path, spec, most, message):
    with pytest.raises(SpecError, match=message):
        run_until_verdict(spec, _run(tmp_path), most)
    assert not (tmp_path / "s").exists()


def test_corrected_verdicts():
    """Of ten claims, those that hold by a hair hold no more when their number is allowed for."""
    result = run_spec(_spec(seeds=32), experiment=power)
    low = result.estimate("rate of fast in n").interval[0]
    bound = float(at_level(result.estimate("rate of fast in n"), 0.98, 32).interval[0])
    assert bound < low
    claims = [{"what": "rate of fast in n", "at_least": bound}, {"what": "rate of slow in n", "at_least": 0.2}]
    many = run_spec(_spec(*claims, *[{"what": "risk of fast", "at_least": 1.0}] * 8, seeds=32), experiment=power)
    plain, corrected = many.verdicts(), many.verdicts(corrected=True)
    assert [verdict.outcome for verdict in plain] == ["holds", "holds", *["fails"] * 8]
    assert [verdict.outcome for verdict in corrected] == ["undecided", "holds", *["fails"] * 8]
    assert "Holm's correction for 10 verdicts" in corrected[0].reason and corrected[0].value == plain[0].value


def test_looks_as_data():
    spec = _spec(HOLDS, FALSE)
    looks = Looks(most=64).adding(spec.expect, 8).adding(spec.expect[:1], 16)
    assert [looks.at(one, 16) for one in spec.expect] == [[8, 16], [8, 16]]
    assert [looks.at(one, 32) for one in spec.expect] == [[8, 16, 32], [8, 32]]
    assert looks.level(spec.expect[0], 32, 0.95) == look_level([8, 16, 32], 64, level=0.95)
    assert looks.level(spec.expect[0], 128, 0.95) == 0.95
    assert Looks.model_validate(json.loads(looks.model_dump_json())) == looks
    assert looks.adding(spec.expect[:1], 16) is looks and looks.looks[0] == Look(
        seeds=8, expectations=looks.looks[0].expectations
    )


SLOW_CLOSE = {"what": "risk of slow at n = 64", "at_most": 64**-0.5}


def test_seeds_are_added_where_verdicts_are_undecided(tmp_path):
    """What is decided stays what it was, on its own seeds, though other claims add seeds to some of its cells."""
    both = {"what": "risk of fast relative to slow at n = 128", "value": 128**-0.5, "tolerance": 0.05}
    everywhere = {"what": "average of risk", "at_least": 1e-3}
    result = run_until_verdict(_spec(HOLDS, SLOW_CLOSE, both, everywhere), _run(tmp_path), 32, out=tmp_path / "s")
    seeds = result.records.groupby(["method", "n"])["seed"].nunique()
    assert seeds.pop(("slow", 64)) == 32 and set(seeds) == {8}
    holds, close, ratio, average = result.verdicts()
    assert [one.outcome for one in (holds, close, ratio, average)] == ["holds", "undecided", "holds", "holds"]
    assert all("this is look 1, at 8" in one.reason for one in (holds, ratio, average))
    assert "this is look 3, at 32" in close.reason
    # As if no other claim had been there.
    alone = run_until_verdict(_spec(HOLDS, both, everywhere), _run(tmp_path / "t"), 32, out=tmp_path / "t/s")
    assert [(one.value, one.interval) for one in alone.verdicts()] == [
        (v.value, v.interval) for v in (holds, ratio, average)
    ]
    own = ts.mean_ratio(
        result.records.query("method == 'slow' and n == 64").sort_values("seed")["risk"].to_numpy(), 1.0
    )
    expected = ts.sequential(own, [8, 16, 32], 32)
    np.testing.assert_allclose(close.interval, expected.interval)
    # From the store, and looked at again.
    again = ts.load(tmp_path / "s")
    again.look()
    assert [str(one) for one in ts.load(tmp_path / "s").verdicts()] == [str(one) for one in result.verdicts()]
    assert again.looks == result.looks


@pytest.mark.parametrize(
    ("what", "read"),
    [
        ("rate of fast in n", {"fast": N}),
        ("risk of fast relative to slow at n = 64", {"fast": [64], "slow": [64]}),
        ("risk of fast relative to limit at n = 64", {"fast": [64]}),
        ("risk of fast relative to n = 16 at n = 64", {"fast": N}),
        ("crossing of fast relative to slow in n", {"fast": N, "slow": N}),
        ("trend of risk of fast in n", {"fast": N}),
        ("average of risk", {"fast": N, "slow": N}),
        ("rate of * relative to predicted in n", {"fast": N, "slow": N}),
    ],
)
def test_what_an_expectation_reads(what, read):
    result = run_spec(_spec({"what": what, "at_most": 1e9}, seeds=2), experiment=power)
    found = {}
    for curve in result.reads(result.spec.expect[0]):
        found.setdefault(curve.name, set()).update(curve.x.astype(int).tolist())
    # At another place along the axis the whole of the same curve is the second operand.
    assert found == {name: set(n) for name, n in read.items()}
