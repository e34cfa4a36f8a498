"""Every form of claim on records whose truth is planted: holds, fails and undecided are reached, and estimates are right."""

from dataclasses import replace
from typing import Literal

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

import tsjax as ts
from tsjax.sweep.checks import check_expectations
from tsjax.sweep.expectation import Expectation
from tsjax.sweep.phrase import FORMS, evaluate, parse
from tsjax.sweep.plan import make_plan, plan_cells
from tsjax.sweep.result import Result
from tsjax.sweep.spec import SpecError, parse_spec

N, D, WIDTHS, SEEDS = [16, 32, 64, 128, 256], [2, 4], [1, 4, 16], 48


@ts.experiment(
    static=("learner",),
    curve="learner",
    metrics={
        "error": ts.Share(trials="points"),
        "drift": ts.Signed(),
        "stuck": ts.Indicator(),
        "none": ts.Share(trials=500),
    },
)
def planted(key, *, learner: Literal["a", "b"], n: int, d: int, width: int, points: int = 200):
    """Risks of exponent 2/d for a and 1/d for b, least at width 4; errors of chance 1 / sqrt(n); a drift of 0.5 for a; b is
    stuck at half of the seeds."""
    keys = jr.split(jr.fold_in(jr.fold_in(jr.fold_in(key, n), d), width), 4)
    noise = jnp.mean(jr.normal(keys[0], (30,)) ** 2)
    exponent = (2.0 if learner == "a" else 1.0) / d
    bump = 1.0 + 0.5 * (jnp.log2(1.0 * width) / 2 - 1.0) ** 2
    chance = 1.0 / jnp.sqrt(n)
    hits = jr.uniform(keys[1], (200,)) < chance
    # The same at every n, d and width, as a property of the seed.
    lone = jr.split(key, 3)
    return {
        "risk": bump * noise * (1.0 * n) ** -exponent,
        "reference": bump * (1.0 * n) ** -exponent,
        "error": hits.mean(),
        "none": 0.0 * noise,
        "drift": jr.normal(lone[0]) + (0.5 if learner == "a" else 0.0),
        "stuck": (jr.uniform(lone[1]) < 0.5) & (learner == "b"),
        "rise": noise * n**0.5,
    }


GRID = {"learner": ["a", "b"], "n": N, "d": D, "width": WIDTHS, "seeds": SEEDS}


@pytest.fixture(scope="module")
def result() -> Result:
    return ts.sweep(planted, **GRID)


HERE = {"d": 2, "width": 4}
CLAIMS = [
    # Rates: of any metric, along any argument.
    ("holds", {"what": "rate of a in n", "value": 1.0, "tolerance": 0.2, "where": HERE}),
    ("fails", {"what": "rate of a in n", "at_most": 0.7, "where": HERE}),
    ("undecided", {"what": "rate of a in n", "at_least": 1.0, "where": HERE}),
    ("holds", {"what": "rate of error of a in n", "value": 0.5, "tolerance": 0.1, "where": HERE}),
    ("holds", {"what": "rate of rise of a in n", "value": -0.5, "tolerance": 0.1, "where": HERE}),
    ("holds", {"what": "rate of a relative to b in n", "value": 0.5, "tolerance": 0.2, "where": HERE}),
    ("holds", {"what": "rate of a minus b in n", "value": 0.5, "tolerance": 0.2, "where": HERE}),
    ("fails", {"what": "rate of a relative to b in n", "at_most": 0.2, "where": HERE}),
    # The same curve elsewhere: at d = 4 the exponent is half of that at 2.
    ("holds", {"what": "rate of a relative to d = 4 in n", "value": 0.5, "tolerance": 0.2, "where": HERE}),
    ("holds", {"what": "rate of a relative to a in n", "than": {"d": 4}, "value": 0.5, "tolerance": 0.2, "where": HERE}),
    # n^{-2/d} at n = 256 from d = 2 to d = 4: from 1/256 to 1/16, an exponent of -4 in d.
    ("holds", {"what": "rate of risk of a in d at n = 256", "value": -4.0, "tolerance": 0.5, "where": {"width": 4}}),
    ("fails", {"what": "rate of risk of a in d at n = 256", "at_least": 0.0, "where": {"width": 4}}),
    # A rate of rates: 2/d falls as d^-1.
    ("holds", {"what": "exponent in d of rate of a in n", "value": 1.0, "tolerance": 0.4, "where": {"width": 4}}),
    ("fails", {"what": "exponent in d of rate of a in n", "at_most": 0.3, "where": {"width": 4}}),
    # Means, ratios and differences.
    ("holds", {"what": "risk of a relative to b at n = 256", "value": 0.0625, "tolerance": 0.02, "where": HERE}),
    ("holds", {"what": "risk of a relative to reference", "value": 1.0, "tolerance": 0.3, "where": HERE}),
    ("holds", {"what": "risk of a minus b at n = 256", "at_most": 0.0, "where": HERE}),
    ("fails", {"what": "risk of a minus b at n = 256", "at_least": 0.0, "where": HERE}),
    ("holds", {"what": "risk of a relative to width = 4 at n = 64", "at_least": 1.2, "where": {"d": 2, "width": 1}}),
    ("holds", {"what": "risk of a relative to n = 16 at n = 64", "value": 0.25, "tolerance": 0.1, "where": HERE}),
    ("holds", {"what": "error of a at n = 256", "value": 0.0625, "tolerance": 0.02, "where": HERE}),
    ("fails", {"what": "error of a at n = 16", "at_most": 0.2, "where": HERE}),
    ("undecided", {"what": "error of a at n = 256", "at_most": 0.0625, "where": HERE}),
    ("holds", {"what": "error of a minus b at n = 256", "value": 0.0, "tolerance": 0.02, "where": HERE}),
    # No error in 48 x 500 trials: an upper limit.
    ("holds", {"what": "none of a", "at_most": 0.001, "where": HERE}),
    ("holds", {"what": "drift of a", "at_least": 0.0, "where": HERE}),
    ("undecided", {"what": "drift of b", "at_least": 0.0, "where": HERE}),
    ("fails", {"what": "drift of a", "at_most": -0.2, "where": HERE}),
    ("holds", {"what": "drift of a minus b", "value": 0.5, "tolerance": 0.1, "where": HERE}),
    ("holds", {"what": "stuck of a", "at_most": 0.1, "where": HERE}),
    ("holds", {"what": "stuck of b minus a", "value": 0.5, "tolerance": 0.3, "where": HERE}),
    ("holds", {"what": "median risk of a at n = 16", "value": 0.0625, "tolerance": 0.01, "where": HERE}),
    ("fails", {"what": "median risk of a at n = 16", "at_least": 0.1, "where": HERE}),
    # Over all runs.
    ("holds", {"what": "trend of risk of a in n", "at_most": -0.8, "where": HERE}),
    ("fails", {"what": "trend of risk of a in n", "at_least": 0.0, "where": HERE}),
    ("undecided", {"what": "trend of error of a in width at n = 64", "at_least": 0.0, "where": {"d": 2}}),
    ("holds", {"what": "trend of risk of a in n**(-2/d) relative to n", "at_least": 0.02, "where": {"width": 4}}),
    ("fails", {"what": "trend of risk of a in n relative to n**(-2/d)", "at_least": 0.0, "where": {"width": 4}}),
    # In a window of an expression: n = 64 .. 256 at d = 2, 32 .. 128 at d = 4.
    ("holds", {"what": "trend of error of a in n", "at_most": -0.5, "where": {"width": 4}, "over": {"n*d": [128, 512]}}),
    # The means of 1 / sqrt(n) over all n, and over n >= 64.
    ("holds", {"what": "average of error of a", "value": 0.14052, "tolerance": 0.01, "where": HERE}),
    ("fails", {"what": "average of error of a", "at_least": 0.16, "where": HERE}),
    ("holds", {"what": "average of error of a", "value": 0.09197, "tolerance": 0.01, "over": {"n": [64, 256]}}),
    ("holds", {"what": "average of error of a", "value": 0.0625, "tolerance": 0.01, "over": {"n/d": [128, 1000]}}),
    ("holds", {"what": "average of drift of a", "value": 0.5, "tolerance": 0.4, "where": {"d": 2}}),
    ("holds", {"what": "average of none of a", "at_most": 1e-4, "where": HERE}),
    # Of both learners: (64^-1 + 64^-1/2 + 64^-1/2 + 64^-1/4) / 4 times the mean of 1.5, 1 and 1.5.
    ("holds", {"what": "average of risk at n = 64", "value": 0.2059, "tolerance": 0.02}),
    ("fails", {"what": "average of risk at n = 64", "at_most": 0.15}),
    # Errors of chance 1 / sqrt(n) are 0.15 at the same n for every d; risks of n^(-2/d), interpolated, at a d that grows.
    ("holds", {"what": "contour in d of error of a = 0.15 in n", "value": 0.0, "tolerance": 0.2, "where": {"width": 4}}),
    ("fails", {"what": "contour in d of error of a = 0.15 in n", "at_least": 0.5, "where": {"width": 4}}),
    ("holds", {"what": "contour in n of risk of a = 0.05 in d", "value": 0.197, "tolerance": 0.05, "where": {"width": 4},
               "over": {"n": [32, 128]}}),
    # Along an axis.
    ("holds", {"what": "spread of risk of a in width at n = 64", "value": 1.5, "tolerance": 0.5, "where": {"d": 2}}),
    ("fails", {"what": "spread of risk of a in width at n = 64", "at_most": 1.1, "where": {"d": 2}}),
    ("holds", {"what": "best of risk of a in width at n = 64", "value": 4, "tolerance": 0.5, "where": {"d": 2}}),
    ("fails", {"what": "best of risk of a in width at n = 64", "at_least": 5, "where": {"d": 2}}),
    ("holds", {"what": "monotone of risk of a in n", "at_most": 1.0, "where": HERE}),
    ("fails", {"what": "monotone of risk of a in width at n = 64", "at_most": 1.1, "where": {"d": 2}}),
    ("holds", {"what": "monotone of rise of a in n", "at_least": 1.0, "where": HERE}),
    ("fails", {"what": "monotone of risk of a in n", "at_least": 0.95, "where": HERE}),
    ("holds", {"what": "crossing of a relative to b in n", "at_most": 16, "where": HERE}),
    ("fails", {"what": "crossing of b relative to a in n", "at_most": 200, "where": HERE}),
    ("holds", {"what": "forecast of a in n", "value": 1.0, "tolerance": 0.4, "where": HERE}),
    ("fails", {"what": "forecast of a in n", "at_most": 0.5, "where": HERE}),
    # Figures of papers: one with an error, one that is wrong.
    ("holds", {"what": "rate of a in n", "published": {"value": 1.0, "error": 0.05}, "tolerance": 0.3, "where": HERE}),
    ("undecided", {"what": "rate of a in n", "published": {"value": 1.0, "error": 0.3}, "tolerance": 0.3, "where": HERE}),
    ("fails", {"what": "rate of a in n", "published": 0.5, "tolerance": 0.2, "where": HERE}),
]  # fmt: skip


@pytest.mark.parametrize(("outcome", "expect"), CLAIMS, ids=[f"{o}: {e['what']}" for o, e in CLAIMS])
def test_claims(result, outcome, expect):
    spec = parse_spec({"study": "a:planted", "grid": GRID, "expect": [expect]})
    (verdict,) = Result(result.records, spec, planted, result.provenance).verdicts()
    assert verdict.outcome == outcome, verdict
    # And a sweep that expects it is refused by no check.
    check_expectations(spec.expect, planted, [one.arguments for one in plan_cells(spec, planted).combinations])


def test_every_form_is_among_the_claims():
    forms = {parse(expect["what"]).form for _, expect in CLAIMS}
    assert forms == FORMS.keys() - {"model"}
    for form, one in FORMS.items():
        assert parse(one.example).form == form


def test_the_published_figure_is_shown(result):
    place = {"value": 1.0, "error": 0.05, "place": "Table 2"}
    expect = {"what": "rate of a in n", "published": place, "tolerance": 0.4, "where": HERE}
    spec = parse_spec({"study": "a:planted", "grid": GRID, "expect": [expect]})
    (verdict,) = Result(result.records, spec, planted, result.provenance).verdicts()
    assert "published: 1 +- 0.05 (Table 2)" in verdict.reason
    # Half-lengths add in squares.
    own = result.estimate("rate of a in n", where=HERE)
    for end, widened in zip(own.interval, verdict.interval, strict=True):
        assert abs(widened - own.value) == pytest.approx(np.hypot(end - own.value, 1.96 * 0.05), rel=1e-4)


def test_estimates_are_those_of_the_functions(result):
    rows = result.records.query("learner == 'a' and d == 2 and width == 4")
    at = lambda name, n: rows[rows["n"] == n].sort_values("seed")[name].to_numpy(float)
    estimate = lambda phrase, **options: result.estimate(phrase, where=HERE, **options)
    assert estimate("risk of a at n = 64").interval == ts.mean_ratio(at("risk", 64), 1.0).interval
    assert estimate("drift of a at n = 64").interval == ts.mean(at("drift", 64)).interval
    assert estimate("error of a at n = 64").interval == ts.share_of_trials(at("error", 64), 200).interval
    assert estimate("stuck of a at n = 64").interval == ts.share(at("stuck", 64)).interval
    assert estimate("median risk of a", over={"n": 64}).interval == ts.median(at("risk", 64)).interval
    table = np.stack([at("risk", n) for n in N])
    assert estimate("monotone of risk of a in n").interval == ts.largest_rise(table).interval
    assert estimate("rate of a in n").interval == ts.fit_rate(N, table).interval
    assert estimate("rate of a in n", level=0.8).interval == ts.fit_rate(N, table, level=0.8).interval
    rho = stats.spearmanr(np.repeat(N, SEEDS), table.ravel()).statistic
    assert estimate("trend of risk of a in log(n)").value == pytest.approx(rho)
    wide = result.records.query("learner == 'a' and d == 2 and n == 64").pivot(
        index="width", columns="seed", values="risk"
    )
    assert result.estimate("best of risk of a in width at n = 64", where={"d": 2}) == ts.best(WIDTHS, wide.to_numpy())


def test_estimates_that_are_not_one_number(result):
    with pytest.raises(ValueError, match=r"is about 5 numbers: name one n by 'at n = ...'"):
        result.estimate("risk of a", where=HERE)
    with pytest.raises(ValueError, match="6 curves are called a; pick one by where"):
        result.estimate("risk of a at n = 64")
    with pytest.raises(SpecError, match="is not a claim that can be measured. Did you mean 'spread'"):
        result.estimate("spred of risk in n")
    with pytest.raises(ValueError, match="'heat' is not recorded"):
        result.estimate("heat of a at n = 64", where=HERE)
    with pytest.raises(ValueError, match="no interval for a ratio with such a mean: expect the difference"):
        result.estimate("drift of a relative to b at n = 64", where=HERE)


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({"what": "rate of a in depth", "at_most": 1.0}, "planted has no axis 'depth'"),
        ({"what": "rate of a in learner", "at_most": 1.0}, "'learner' is not a number"),
        ({"what": "trend of risk in widht*n", "at_most": 1.0}, "names 'widht'. Did you mean 'width'"),
        ({"what": "trend of risk in n.real", "at_most": 1.0}, "is not an expression of arguments"),
        ({"what": "trend of risk in open('x')", "at_most": 1.0}, "is not an expression of arguments"),
        ({"what": "risk of a relative to width = 5", "at_most": 1.0, "where": HERE}, "than = { width = 5 }, but no curve"),
        ({"what": "risk of a relative to b", "than": {"depth": 4}, "at_most": 1.0, "where": HERE}, "than names 'depth'"),
        ({"what": "drift of a relative to b", "at_most": 1.0, "where": HERE}, "may be 0 or negative"),
        ({"what": "rate of drift of a in n", "at_most": 1.0, "where": HERE}, "is of kind signed, and only positive"),
        ({"what": "exponent in depth of rate of a in n", "at_most": 1.0}, "no argument 'depth'"),
        ({"what": "contour in depth of error of a = 0.1 in n", "at_most": 1.0}, "no argument 'depth'"),
        ({"what": "contour in d of error = 0.1 in n", "at_most": 1.0}, "name the learner: a, b"),
        ({"what": "contour in d of error of a = low in n", "at_most": 1.0}, "write 'contour in ARGUMENT of METRIC"),
        ({"what": "average of error of a in n", "at_most": 1.0}, "write 'average of METRIC"),
        ({"what": "trend of risk in n", "at_most": 1.0, "over": {"widht*n": [0, 1]}}, "names 'widht'. Did you mean 'width'"),
        ({"what": "trend of risk in n", "at_most": 1.0, "over": {"d*n": [0, 1]}}, "holds no cell of this sweep"),
        ({"what": "median risk of a relative to b", "at_most": 1.0}, "write 'median METRIC of CURVE'"),
        ({"what": "monotone of risk of a in n", "value": 1.0, "tolerance": 0.1}, "give one of them"),
        ({"what": "risk of a", "at_most": 1.0, "floor": 0.1}, "floor goes only with 'monotone of'"),
        ({"what": "risk of a", "published": 1.0}, "needs a tolerance"),
        ({"what": "risk of a", "at_most": 1.0, "smoke": {"model": "power"}}, "smoke sets 'model'"),
        ({"what": "crossing of a relative to predicted in n", "at_most": 1.0}, "a crossing needs two curves"),
    ],
)  # fmt: skip
def test_claims_that_can_never_be_judged_are_refused(expect, message):
    with pytest.raises(SpecError, match=message.replace("{", r"\{").replace("(", r"\(")):
        spec = parse_spec({"study": "a:planted", "grid": GRID, "expect": [expect]})
        make_plan(spec, planted)


def test_a_floor_counts_for_what_is_below(result):
    expect = {"what": "monotone of risk of a in width at n = 64", "at_most": 1.1, "where": {"d": 2}}
    outcomes = []
    for floor in ({}, {"floor": 10.0}):
        spec = parse_spec({"study": "a:planted", "grid": GRID, "expect": [{**expect, **floor}]})
        outcomes.append(Result(result.records, spec, planted, result.provenance).verdicts()[0].outcome)
    assert outcomes == ["fails", "holds"]


def test_the_smoke_size_has_bounds_of_its_own():
    expect = {"what": "rate of a in n", "at_least": 0.9, "over": {"n": [64, 256]}, "source": "s"}
    whole = Expectation.model_validate({**expect, "smoke": {"at_least": 0.1, "over": {"n": [16, 32]}}})
    small = whole.at_smoke_size()
    assert small is not None and (small.at_least, small.over, small.source) == (0.1, {"n": [16, 32]}, "s")
    other = Expectation.model_validate({**expect, "smoke": {"value": 1.0, "tolerance": 2.0}}).at_smoke_size()
    assert other is not None and other.allowed == (-1.0, 3.0)
    assert Expectation.model_validate({**expect, "smoke": False}).at_smoke_size() is None
    spec = parse_spec(
        {"study": "a:planted", "grid": {**GRID, "seeds": 2}, "smoke": {"n": [16, 32], "seeds": 2}, "expect": [
            {**expect, "where": HERE, "smoke": {"at_least": 0.1, "over": {"n": [16, 32]}}},
            {**expect, "where": HERE},
            {"what": "risk of a", "where": HERE, "at_most": 1.0, "smoke": False},
        ]}
    )  # fmt: skip
    kept = spec.at_smoke_size(planted).expect
    assert [one.at_least for one in kept] == [0.1]


def test_expressions():
    values = {"n": 8, "mu": 2.0, "d": 4, "word": "x", "yes": True}
    assert evaluate("n*mu**4/d", values) == 32.0
    assert evaluate("-log(exp(n)) + sqrt(d) - abs(-1)", values) == pytest.approx(-7.0)
    for bad, message in (
        ("word", "is not a number"), ("yes", "is not a number"), ("n/(d-4)", "has no value"),
        ("(-n)**0.5", "has no finite real value"), ("9.0**9**9", "has no value"), ("log(n, 2)", "is not an expression"),
        ("n if d else mu", "is not an expression"), ("", "is not an expression"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            evaluate(bad, values)


def test_declarations_of_metrics():
    assert planted.description.kinds["error"] == ts.Share(trials="points")
    with pytest.raises(ValueError, match="not a kind of metric; give ts.Positive"):
        ts.experiment(lambda key, n: {}, name="a", arguments=planted.arguments, metrics={"risk": "positive"})
    shares = replace(planted, metrics={"error": ts.Share("pionts")})
    spec = parse_spec(
        {"study": "a:planted", "grid": GRID, "expect": [{"what": "error of a", "at_most": 1.0, "where": HERE}]}
    )
    with pytest.raises(
        SpecError, match="'pionts' trials, which planted neither takes nor returns. Did you mean 'points'"
    ):
        make_plan(spec, shares)


def test_a_store_holds_the_kinds(tmp_path, result):
    ts.sweep(planted, out=tmp_path / "s", **{**GRID, "n": [16], "seeds": 8})
    read = ts.load(tmp_path / "s")
    assert read.experiment.kinds == planted.description.kinds
    low, high = read.estimate("error of a at n = 16", where=HERE).interval
    assert 0 < low < 0.25 < high < 1
