"""Expectations against the grid: what could never be judged is an error before anything is compiled."""

import jax
import pytest
from sweep.toys import path, plain, power, power_spec

import tsjax as ts
from tsjax.sweep.errors import TooLargeError
from tsjax.sweep.plan import make_plan
from tsjax.sweep.spec import SpecError, parse_spec
from tsjax.sweep.trace import check_sizes, outputs_of

TWO = {"n": [16, 32], "method": ["fast", "slow"], "scale": [1.0, 2.0], "seeds": 2}


def _spec(expect, grid=None, **rest):
    return power_spec(expect=[{"at_most": 1, **expect}], **({} if grid is None else {"grid": grid}), **rest)


@pytest.mark.parametrize(
    ("expect", "grid", "message"),
    [
        ({"what": "rsik of fast"}, None, r"'rsik' is not among the recorded values of fast. Did you mean 'risk'\?"),
        ({"what": "limt of *"}, None, r"'limt' is not among the recorded values of fast. Did you mean 'limit'\?"),
        (
            {"what": "risk of fast relative to limt"},
            None,
            r"'limt' is not among the curves and .* Did you mean 'limit'\?",
        ),
        (
            {"what": "risk of fast relative to slwo"},
            None,
            r"'slwo' is not among the curves and .* Did you mean 'slow'\?",
        ),
        (
            {"what": "risk of fast", "where": {"scale": 7}},
            None,
            r"where = { scale = 7 }, .* Its values of scale are \[1.0\]",
        ),
        (
            {"what": "risk of fast", "where": {"scale": [1, 2]}},
            TWO,
            r"Give one value. Its values of scale are \[1.0, 2.0\]",
        ),
        ({"what": "risk of fast", "where": {"n": 16}}, None, r"where picks a curve; write over = { n = 16 }"),
        (
            {"what": "risk of fast", "over": {"n": 17}},
            None,
            r"over = {'n': 17.0} holds no n of the curve fast: .* \[16, 32",
        ),
        ({"what": "rate of fast in n", "over": {"n": [200, 900]}}, None, r"holds no n of the curve fast"),
        ({"what": "rate of * in n", "over": {"n": [17, 31]}}, None, r"holds no n of the curve fast"),
        (
            {"what": "risk of fast"},
            TWO,
            r"2 curves are called fast; pick one by where = { scale = ... }. .* 1.0 or 2.0",
        ),
        ({"what": "rate of fast relative to slow in n", "where": {"scale": 3}}, TWO, r"where = { scale = 3 }"),
        (
            {"what": "rate of * in n", "where": {"method": "fast"}, "excluding": ["fast"]},
            None,
            r"is about no curve of this sweep",
        ),
        (
            {"what": "risk of fast", "where": {"scale": 2.0}},
            [{"n": 16, "method": "fast", "seeds": 2}, {"n": 16, "method": "slow", "scale": 2.0, "seeds": 2}],
            r"no curve fast of this sweep has {'scale': 2.0} all at once",
        ),
        (
            {"what": "risk of fast relative to slow"},
            [{"n": [16, 32], "method": "fast", "seeds": 2}, {"n": 32, "method": "slow", "seeds": 2}],
            r"fast is compared with slow, which has no n = \[16\]: its values are \[32\]. Restrict .* over = { n = \[LOW",
        ),
        (
            {"what": "crossing of fast relative to slow in n"},
            [{"n": 16, "method": "fast", "seeds": 2}, {"n": 32, "method": "slow", "seeds": 2}],
            r"fast is compared with slow, which has no n = \[16\]",
        ),
        # Means that have no interval, as far as names, types and bounds tell.
        ({"what": "run_seconds of *"}, None, r"'run_seconds' does not measure single seeds: cells run in batches"),
        (
            {"what": "risk of fast relative to compile_seconds"},
            None,
            r"'compile_seconds' does not measure single seeds",
        ),
        ({"what": "done of fast relative to slow"}, None, r"'done' holds truth values, whose mean is a share of seeds"),
        (
            {"what": "limit of fast relative to done"},
            None,
            r"'done' holds truth values.* expect the difference, 'done of CURVE minus OTHER'",
        ),
        (
            {"what": "draw of *", "at_most": None, "value": 0.0, "tolerance": 0.5},
            None,
            r"'draw of \*' is about a mean that may be 0",
        ),
        (
            {"what": "draw of fast", "at_least": -1.0},
            None,
            r"'draw' is not declared to be signed: give the experiment metrics=",
        ),
    ],
)
def test_refused(expect, grid, message):
    with pytest.raises(SpecError, match=message) as error:
        make_plan(_spec(expect, grid), power)
    assert str(error.value).startswith("[[expect]] number 1: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("expect", "grid"),
    [
        ({"what": "limit of fast relative to risk"}, None),
        ({"what": "draw of *"}, None),
        ({"what": "done of fast", "at_most": 0.0}, None),
        ({"what": "risk of fast relative to scale"}, None),
        ({"what": "risk of fast", "where": {"scale": 1}}, TWO),
        ({"what": "risk of * relative to slow", "over": {"n": 32}}, None),
        ({"what": "rate of fast relative to predicted in n", "over": {"n": [20, 100]}}, None),
    ],
)
def test_accepted(expect, grid):
    assert make_plan(_spec(expect, grid), power).cells


def test_predicted_needs_a_theory():
    spec = parse_spec(
        {
            "study": "sweep.toys:plain",
            "grid": {"n": [2, 4], "seeds": 2},
            "expect": [{"what": "risk relative to predicted", "at_most": 1}],
        }
    )
    with pytest.raises(SpecError, match="'risk relative to predicted', but plain has no theory"):
        make_plan(spec, plain)


def test_a_curve_that_theory_does_not_predict():
    spec = parse_spec(
        {
            "study": "superiority",
            "problem": {"d": 4, "m": 2, "noise_std": 0.1},
            "grid": {"n": 16, "estimator": "random_features", "seeds": 2},
            "expect": [{"what": "risk of random_features relative to predicted", "at_most": 1}],
        }
    )
    with pytest.raises(SpecError, match="theory predicts no curve for random_features"):
        make_plan(spec, ts.studies.superiority)


def test_values_of_an_x_that_cells_return_are_not_known_before():
    content = {"study": "sweep.toys:path", "grid": {"speed": 1.0, "seeds": 2}}
    expect = {"what": "risk of 1.0", "over": {"step": 3}, "at_most": 9}
    assert make_plan(parse_spec({**content, "expect": [expect]}), path).cells == 2


def test_smoke_size_leaves_out_what_its_grid_lacks_but_no_mistake():
    expect = [
        {"what": "risk of fast", "over": {"n": 128}, "at_most": 1},
        {"what": "rate of slow in n", "at_most": 1},
        {"what": "risk of fast", "at_most": 1},
        {"what": "risk of fast", "where": {"scale": 1.0}, "at_most": 1},
    ]
    spec = power_spec(expect=expect, problem={"scale": 1.0}, smoke={"n": [16, 32], "method": "fast", "scale": 2.0})
    small = spec.at_smoke_size()
    assert [expectation.what for expectation in small.expect] == ["risk of fast"] and not small.expect[0].where
    assert make_plan(small, power).cells and len(spec.expect) == 4
    for wrong in ({"what": "risk of fsat", "at_most": 1}, {"what": "risk of fast", "over": {"n": 129}, "at_most": 1}):
        with pytest.raises(SpecError, match="number 1: (no curve 'fsat'|over = {'n': 129.0} holds no n)"):
            power_spec(expect=[wrong], smoke={"n": [16]}).at_smoke_size()


def test_outputs_are_known_without_running():
    calls = []

    @ts.experiment(static=("n",))
    def counting(key, *, n: int, scale: float = 1.0):
        calls.append(n)
        return {"risk": scale * jax.random.normal(key, (n,))}

    found = outputs_of(counting, {"n": 10**9, "scale": 1.0})
    assert found["risk"].shape == (10**9,) and found["risk"].dtype == "float64"
    assert outputs_of(counting, {"n": 10**9, "scale": 2.0}) is found and calls == [10**9]
    assert outputs_of(counting, {"n": 3, "scale": 2.0})["risk"].shape == (3,) and calls == [10**9, 3]


def test_arrays_that_no_machine_holds_are_found_before_the_compiler_sees_them():
    """XLA ends the process on sizes that overflow."""
    key = jax.eval_shape(lambda: jax.random.key(0))

    def program(n):
        return jax.jit(lambda key: jax.lax.fori_loop(0, 2, lambda i, x: x + jax.random.normal(key, (n,)).sum(), 0.0))

    check_sizes(program(10**6).trace(key).jaxpr)
    with pytest.raises(TooLargeError, match=r"an array of shape \(1000000000000000000,\) .* take smaller sizes"):
        check_sizes(program(10**18).trace(key).jaxpr)

    @ts.experiment(static=("n",))
    def huge(key, *, n: int):
        return {"risk": jax.random.normal(key, (n,)).sum()}

    with pytest.raises(
        ValueError, match="experiment 'huge' cannot be compiled at n=1000000000000000000: an array of shape"
    ):
        ts.sweep(huge, seeds=1, n=10**18)
    with pytest.raises(SpecError, match="n = 1000000000000000000000 does not fit in 64 bits, so it cannot be traced"):
        ts.sweep(plain, seeds=1, n=10**21)
