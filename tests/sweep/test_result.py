import numpy as np
import pytest
from sweep.toys import EXPONENTS, path, plain, power, power_spec

import tsjax as ts
from tsjax.sweep.result import Result
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import SpecError

N = [16, 32, 64, 128, 256]
GRID = {"n": N, "method": ["fast", "slow"], "seeds": 32}


def _run(*expect, out=None, **changes) -> Result:
    return run_spec(power_spec(**{"grid": GRID, **changes}, expect=list(expect)), out=out, experiment=power)


@pytest.fixture(scope="module")
def result() -> Result:
    return _run()


def _expecting(result: Result, *expect) -> Result:
    """The same records under other expectations."""
    return Result(result.records, power_spec(grid=GRID, expect=list(expect)), power, result.provenance)


def test_rates_of_a_planted_power_law(result):
    rates = result.rates().set_index("curve")
    assert list(rates.index) == ["fast", "slow"]
    for name, exponent in EXPONENTS.items():
        row = rates.loc[name]
        assert row["low"] < row["exponent"] < row["high"]
        assert row["exponent"] == pytest.approx(exponent, abs=0.12)
        assert row["predicted"] == pytest.approx(exponent, abs=1e-12) and row["asymptote"] == exponent
        assert (row["x_min"], row["x_max"], row["seeds"], row["failed"]) == (16, 256, 32, 0)
        assert row["verdict"] == ""


def test_curves_hold_every_seed_in_its_place(result):
    curve = result.curves()[1]
    assert (curve.name, curve.label) == ("slow", "slow") and curve.values["risk"].shape == (5, 32)
    rows = result.records.set_index(["method", "n", "seed"])["risk"]
    assert curve.values["risk"][3, 17] == rows.loc[("slow", 128, 17)]
    part = curve.between(32.0, 128.0)
    assert part.x.tolist() == [32, 64, 128] and part.values["risk"].shape == (3, 32)
    assert part.theory.predicted is not None and part.theory.predicted == pytest.approx(np.array([32, 64, 128]) ** -0.5)


def test_verdicts_of_every_outcome(result):
    what = "rate of fast in n"
    holds, fails, undecided = _expecting(
        result,
        {"what": what, "value": 1.0, "tolerance": 0.3, "source": "planted"},
        {"what": what, "at_most": 0.6},
        {"what": what, "at_most": 1.0},
    ).verdicts()
    assert [v.outcome for v in (holds, fails)] == ["holds", "fails"] and holds.source == "planted"
    assert undecided.outcome == "undecided" and "more seeds" in undecided.reason
    assert "over n = 16..256" in holds.what
    window = _expecting(result, {"what": what, "value": 1.0, "tolerance": 0.5, "over": {"n": [32, 128]}}).verdicts()[0]
    assert "over n = 32..128" in window.what
    both = _expecting(result, {"what": what, "value": 1.0, "tolerance": 0.3}, {"what": what, "at_most": 0.6})
    assert both.rates()["verdict"].tolist() == ["holds, fails", ""]


def test_ratios_are_paired_on_common_seeds(result):
    """Noise is the same in both curves at a seed, so that their ratio is known to the last digit once paired."""
    grid = [{**GRID, "seeds": 12}, {**GRID, "method": "slow", "seeds": 24}]
    grid[0]["method"] = "fast"
    what = "risk of fast relative to slow"
    uneven = _run(grid=grid)
    verdict = _expecting(uneven, {"what": what, "over": {"n": 64}, "value": 0.125, "tolerance": 1e-9}).verdicts()[0]
    assert verdict.outcome == "holds" and verdict.value == pytest.approx(0.125, rel=1e-12)
    # A window is judged where it is hardest.
    verdict = _expecting(uneven, {"what": what, "over": {"n": [16, 64]}, "at_most": 0.2}).verdicts()[0]
    assert verdict.outcome == "fails" and verdict.value == pytest.approx(0.25) and "at n = 16" in verdict.what
    column = _expecting(result, {"what": "risk of fast relative to limit", "at_least": 0.7, "at_most": 1.4}).verdicts()[
        0
    ]
    assert column.outcome == "holds"
    apart = [{**GRID, "method": "fast", "seeds": [0, 1]}, {**GRID, "method": "slow", "seeds": [2, 3]}]
    (verdict,) = _run({"what": what, "at_most": 1.0}, grid=apart).verdicts()
    assert verdict.outcome == "undecided" and "fast and slow have no seed in common" in verdict.reason


def test_relative_to_predicted_is_the_difference_of_exponents(result):
    expect = {"what": "rate of slow relative to predicted in n", "value": 0.0, "tolerance": 0.3}
    (verdict,) = _expecting(result, expect).verdicts()
    rate = result.rate(result.curves()[1])
    assert verdict.value == pytest.approx(rate.exponent - 0.5, abs=1e-12) and verdict.outcome == "holds"
    assert verdict.interval == pytest.approx((rate.interval[0] - 0.5, rate.interval[1] - 0.5), abs=1e-12)


def test_claims_about_two_curves_models_and_forecasts(result):
    faster = {"what": "rate of fast relative to slow in n", "value": 0.5, "tolerance": 1e-6}
    crossing = {"what": "crossing of fast relative to slow in n", "at_most": 16}
    never = {"what": "crossing of slow relative to fast in n", "at_most": 1e6}
    model = {"what": "model of fast in n", "model": "power"}
    other = {"what": "model of fast in n", "model": "floor"}
    forecast = {"what": "forecast of fast in n", "value": 1.0, "tolerance": 0.5}
    equal = {"what": "rate of fast in n", "value": 1.0, "tolerance": 0.3, "test": "equivalence"}
    above = {"what": "rate of fast in n", "at_least": 0.8, "test": "superiority", "alpha": 0.01}
    under = {"what": "rate of fast in n", "value": 1.0, "tolerance": 5.0, "model": "finite"}
    verdicts = _expecting(result, faster, crossing, never, model, other, forecast, equal, above, under).verdicts()
    assert [verdict.outcome for verdict in verdicts] == ["holds", "holds", "fails"] + ["holds", "fails"] + ["holds"] * 4
    fast, slow = result.curves()
    # Noise is that of the seed in both: paired, the planted difference is exact.
    assert verdicts[0].value == pytest.approx(0.5, abs=1e-9)
    choice = ts.choose_model(fast.x, fast.values["risk"])
    expected = choice.aicc["power"] - min(v for k, v in choice.aicc.items() if k != "power")
    assert verdicts[3].value == pytest.approx(expected) and "AICc prefers power" in verdicts[3].reason
    (score,) = ts.score_forecast(fast.x, fast.values["risk"])
    assert (
        score.ratio is not None and verdicts[5].interval == score.ratio.interval and "predicted" in verdicts[5].reason
    )
    rate = result.rate(fast)
    assert verdicts[6].interval == rate.interval_at(0.9) and "at level 0.05" in verdicts[6].reason
    assert verdicts[7].interval == rate.interval_at(0.98)
    p = rate.p_value(0.8, "above")
    assert f"p = {p:.2g} at level 0.01" in verdicts[7].reason
    assert verdicts[8].value == pytest.approx(result.rate(fast, model="finite").exponent)
    # A rival that failed forbids a verdict that holds.
    (doubtful,) = _run(
        {"what": "rate of * relative to slow in n", "at_least": 0.0}, problem={"failing": 0.1}
    ).verdicts()
    assert doubtful.outcome == "undecided" and "failed" in doubtful.reason


def test_rates_under_other_models(result):
    rates = result.rates("finite")
    assert set(rates["model"]) == {"finite"}
    assert (
        rates["exponent"][0]
        == ts.fit_rate(result.curves()[0].x, result.curves()[0].values["risk"], model="finite").exponent
    )
    # Theory's curve is fitted by the same model.
    assert rates["predicted"][0] == pytest.approx(1.0, abs=1e-4)
    assert set(result.rates("auto")["model"]) <= set(ts.rates.MODELS)


def test_failures_leave_nothing_that_holds():
    what = {"what": "rate of fast in n", "value": 1.0, "tolerance": 0.4}
    ratio = {"what": "risk of fast relative to limit", "at_most": 3.0}
    wrong = {"what": "rate of fast in n", "at_least": 2.0}
    result = _run(what, ratio, wrong, problem={"failing": 0.1})
    failed = result.curves()[0].failed
    assert failed == (result.records.query("method == 'fast'")["status"] == 2).sum() > 0
    first, second, third = result.verdicts()
    assert first.outcome == second.outcome == "undecided" and f"{failed} cells of fast failed" in first.reason
    # What fails, fails all the more.
    assert third.outcome == "fails"


def test_an_exponent_that_no_data_tell_decides_nothing(result):
    """Flat curves, with a floor beside the power law: a bound at -50 lies below any believable exponent."""
    flat = result.records.assign(risk=result.records["risk"] * result.records["n"] ** 1.0)
    flat = flat[flat["method"] == "fast"]
    asked = {"what": "rate of fast in n", "model": "floor", "at_least": -50.0}
    there = Result(flat, power_spec(grid=GRID, expect=[asked]), power, result.provenance)
    (verdict,) = there.verdicts()
    assert verdict.outcome == "undecided" and "fast: the exponent is not identified: any exponent" in verdict.reason
    row = there.rates("floor").iloc[0]
    assert not row["identified"] and not np.isfinite([row["low"], row["high"]]).all()
    assert "not identified [" in there.table("markdown", "floor") and there.rates().iloc[0]["identified"]


def test_one_seed_is_judged_by_residuals_and_says_so(result):
    one = result.records[(result.records["seed"] == 0) & (result.records["method"] == "fast")]
    asked = {"what": "rate of fast in n", "value": 1.0, "tolerance": 3.0, "source": "planted"}
    alone = Result(one, power_spec(grid={**GRID, "seeds": 1}, expect=[asked]), power, result.provenance)
    (verdict,) = alone.verdicts()
    assert verdict.outcome == "holds" and "interval by residual bootstrap, 3 degrees of freedom" in verdict.reason
    row = alone.rates().iloc[0]
    assert row["errors"] == "residuals" and row["low"] < row["exponent"] < row["high"] and row["identified"]
    assert any("one seed at every n" in text for text in row["warnings"])
    for style in ("latex", "markdown"):
        assert "residual bootstrap" in alone.table(style)


def test_shares_of_zeros_and_ones_are_exact(result):
    """A bootstrap would find no doubt in 32 successes of 32."""
    sure, surer = (
        {"what": "done of fast", "over": {"n": 64}, "at_least": least, "source": "planted"} for least in (0.85, 0.95)
    )
    holds, undecided = _expecting(result, sure, surer).verdicts()
    assert holds.outcome == "holds" and undecided.outcome == "undecided"
    np.testing.assert_allclose(holds.interval, (0.025 ** (1 / 32), 1.0), rtol=1e-9)


def test_a_claim_about_all_curves_is_judged_where_it_is_hardest(result):
    """The planted exponents are 1 and 1/2, the planted ratios of risk and prediction 1."""
    every = {"what": "rate of * in n", "at_least": 0.8}
    but_slow = {**every, "excluding": ["slow"]}
    ratio = {"what": "risk of * relative to predicted", "value": 1.0, "tolerance": 0.4}
    others = {"what": "risk of * relative to fast", "at_least": 1.0}
    slopes = {"what": "rate of * relative to predicted in n", "value": 0.0, "tolerance": 0.2}
    expecting = _expecting(result, every, but_slow, ratio, others, slopes)
    fails, holds, near, above, like_theory = expecting.verdicts()
    assert fails.outcome == "fails" and ", slow" in fails.what and fails.value == pytest.approx(0.5, abs=0.15)
    assert holds.outcome == "holds" and ", fast" in holds.what
    assert near.outcome == "holds"
    # By hand: the mean over seeds next to the planted curve, at the n and of the curve where the interval reaches furthest.
    curve = next(curve for curve in expecting.curves() if f", {curve.name}" in near.what)
    at = int(np.flatnonzero(curve.x == float(near.what.split("n = ")[1].split(",")[0]))[0])
    assert curve.theory.predicted is not None
    assert near.value == pytest.approx(curve.values["risk"][at].mean() / curve.theory.predicted[at])
    assert above.outcome == "holds" and ", slow" in above.what and like_theory.outcome == "holds"
    # The table of rates says of each curve how its own exponent did; what is about a difference is not about that.
    verdicts = dict(zip(expecting.rates()["curve"], expecting.rates()["verdict"], strict=True))
    assert verdicts["fast"] == "holds, holds" and verdicts["slow"] == "fails"
    (none,) = _expecting(result, {**every, "excluding": ["slow", "fast"]}).verdicts()
    assert none.outcome == "undecided" and "no records of any such curve yet" in none.reason


def test_curves_that_all_failed_are_shown_not_raised():
    result = _run({"what": "rate of fast in n", "at_most": 1.0}, problem={"failing": 1.0})
    assert result.verdicts()[0].outcome == "undecided"
    rates = result.rates()
    assert rates["exponent"].isna().all() and all(rates["warnings"].map(len) == 1) and (rates["failed"] == 160).all()


def test_what_was_not_measured_is_undecided(result):
    cases = {
        "rate of fast in n": "no records with n in [1000, 2000]",
        "rsk of fast": "'rsk' is not recorded",
        "risk of fast relative to nothing": "no records of nothing yet",
    }
    for what, message in cases.items():
        over = {"over": {"n": [1000, 2000]}} if what.startswith("rate") else {}
        (verdict,) = _expecting(result, {"what": what, "at_most": 1.0, **over}).verdicts()
        assert verdict.outcome == "undecided" and message in verdict.reason
    twice = {"what": "rate of fast in n", "at_most": 9.0}
    scales = {**GRID, "scale": [1.0, 2.0]}
    with pytest.raises(SpecError, match="2 curves are called fast; pick one by where = { scale = ... }"):
        _run(twice, grid=scales)
    (one,) = _run({**twice, "where": {"scale": 2.0}}, grid=scales).verdicts()
    assert one.outcome == "holds" and "at scale=2.0" in one.what


def test_xarray_has_a_dimension_for_what_varies(result):
    data = result.to_xarray()
    assert dict(data.sizes) == {"n": 5, "method": 2, "seed": 32}
    assert data.attrs["scale"] == 1.0 and data.attrs["study"] == "sweep.toys:power"
    cell = data["risk"].sel({"method": "slow", "n": 128, "seed": 17})
    assert float(cell) == result.curves()[1].values["risk"][3, 17]
    steps = ts.sweep(path, seeds=2, speed=[1.0, 2.0]).to_xarray()
    assert dict(steps.sizes) == {"speed": 2, "step": 10, "seed": 2}


def test_an_experiment_of_x_alone_has_one_curve():
    result = ts.sweep(plain, seeds=6, n=[4, 8, 16])
    assert len(result.curves()) == len(result.rates()) == 1
    assert result.rates()["exponent"][0] == pytest.approx(1.0, abs=1e-9)
    assert "1 curves" in repr(result) or "1 curve" in repr(result)


def test_memory_and_store_agree(tmp_path):
    expect = {"what": "rate of fast in n", "value": 1.0, "tolerance": 0.3}
    memory, stored = _run(expect), _run(expect, out=tmp_path / "s")
    loaded = ts.load(tmp_path / "s", power)
    assert memory.path is None and stored.path == loaded.path == tmp_path / "s"
    for other in (stored, loaded):
        assert memory.rates().equals(other.rates())
        assert str(memory.verdicts()) == str(other.verdicts())
    with pytest.raises(ValueError, match="kept in memory: name a folder to write to"):
        memory.report()


def test_sweep_of_a_file_with_other_axes(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('study = "sweep.toys:power"\n[grid]\nn = [16, 32]\nmethod = ["fast", "slow"]\nseeds = 3\n')
    assert len(ts.sweep(file).records) == 12
    assert len(ts.sweep(file, seeds=2, n=[16]).records) == 4
    with pytest.raises(SpecError, match="unknown key 'm'"):
        ts.sweep(file, m=3)


def test_a_store_of_a_study_that_cannot_be_imported_is_read_all_the_same(tmp_path):
    @ts.experiment(theory=lambda arguments, x: ts.Theory(1.0 / x, 1.0, "planted"), labels={"risk": "a risk"})
    def local(key, *, n: int):
        return {"risk": 1.0 / n}

    result = ts.sweep(local, out=tmp_path / "s", seeds=2, n=[2, 4])
    again = ts.load(tmp_path / "s")
    assert again.records.equals(result.records) and again.experiment == local.description
    (curve,) = again.curves()
    assert curve.theory.exponent == 1.0 and curve.theory.source == "planted"
    np.testing.assert_array_equal(curve.theory.predicted, [0.5, 0.25])
