import hashlib
import json

import pytest
from sweep.toys import power, power_spec

import tsjax as ts
from tsjax.hints import nearest
from tsjax.sweep.plan import cells_of, make_plan, plan_content, plan_of
from tsjax.sweep.spec import SpecError, expand, find_experiment, load_spec, parse_spec

GRID = {"n": [16, 32], "method": ["fast", "slow"], "seeds": 3}


def _cells(spec):
    return [(cell["method"], cell["n"], seed) for cell, seeds in expand(spec, power) for seed in seeds]


def test_grid_is_a_product_in_order_with_defaults_filled_in():
    spec = power_spec(grid=GRID)
    assert _cells(spec) == [(m, n, s) for n in (16, 32) for m in ("fast", "slow") for s in range(3)]
    assert all(cell["scale"] == 1.0 and cell["failing"] == 0.0 for cell, _ in expand(spec, power))
    fixed = power_spec(grid=GRID, problem={"scale": 2})
    assert all(cell["scale"] == 2.0 and isinstance(cell["scale"], float) for cell, _ in expand(fixed, power))


def test_scalars_in_a_grid_are_axes_of_one_value():
    assert _cells(power_spec(grid={"n": 16, "method": "fast", "seeds": [7, 9]})) == [("fast", 16, 7), ("fast", 16, 9)]


def test_union_of_grids_holds_no_cell_twice():
    one = {"n": [16, 32], "method": "fast", "seeds": 3}
    two = {"n": [32, 64], "method": "fast", "seeds": [1, 5]}
    cells = _cells(power_spec(grid=[one, two]))
    assert len(cells) == len(set(cells)) == 6 + 1 + 2
    assert ("fast", 32, 5) in cells and ("fast", 64, 1) in cells


@pytest.mark.parametrize("grid", [{**GRID, "seeds": [4, 4, 2]}, {**GRID, "n": [16, 16], "seeds": [4, 2]}])
def test_repeated_values_count_once(grid):
    cells = _cells(power_spec(grid=grid))
    assert len(cells) == len(set(cells))
    assert {seed for *_, seed in cells} == {2, 4}


def test_a_block_of_the_grid_overrides_the_problem():
    spec = power_spec(problem={"scale": 2.0}, grid=[GRID, {**GRID, "n": 64, "scale": [3.0, 4.0]}])
    scales = {(cell["n"], cell["scale"]) for cell, _ in expand(spec, power)}
    assert scales == {(16, 2.0), (32, 2.0), (64, 3.0), (64, 4.0)}


def test_smoke_size_replaces_axes_where_they_are():
    spec = power_spec(
        grid=[GRID, {"n": 64, "method": "slow", "seeds": 9, "scale": 1.0}],
        problem={"failing": 0.5},
        smoke={"n": [4, 8], "seeds": 2, "failing": 0.0},
    )
    small = spec.at_smoke_size()
    assert small.grid == [
        {"n": [4, 8], "method": ["fast", "slow"], "seeds": 2},
        {"n": [4, 8], "method": "slow", "seeds": 2, "scale": 1.0},
    ]
    assert small.problem == {"failing": 0.0} and small.identity == spec.identity
    with pytest.raises(SpecError, match="no \\[smoke\\] size"):
        power_spec().at_smoke_size()
    with pytest.raises(SpecError, match="\\[smoke\\] sets 'width'"):
        power_spec(smoke={"width": 3}).at_smoke_size()


def test_identity_is_study_and_key():
    spec = power_spec()
    assert spec.identity == power_spec(grid=GRID, claim="another").identity
    assert spec.identity != power_spec(key=1).identity
    assert spec.identity != power_spec(study="superiority").identity


def test_nearest_name_or_all():
    assert nearest("studant", ["student", "ntk"]) == " Did you mean 'student'?"
    # The case of letters is the commonest mistake of all.
    assert nearest("N", ["n", "scale", "seeds"]) == " Did you mean 'n'?"
    assert nearest("zzz", ["student", "ntk"]) == " Allowed: student, ntk."


def test_find_experiment():
    assert find_experiment("sweep.toys:power") is power
    assert find_experiment("superiority").name == "superiority"
    for study, message in {
        "superiorty": "no such study. Did you mean 'superiority'",
        "nowhere:exp": "cannot be imported",
        "sweep.toys:nothing": "cannot be imported",
        ":exp": "cannot be imported",
        "sweep.toys:EXPONENTS": "is a dict, not an experiment; decorate it with @ts.experiment",
    }.items():
        with pytest.raises(SpecError, match="study = ") as error:
            find_experiment(study)
        assert message in str(error.value) and repr(study) in str(error.value)


def test_toml_and_table_agree(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('study = "sweep.toys:power"\nkey = 3\n[grid]\nn = [16, 32]\nmethod = ["fast", "slow"]\nseeds = 3\n')
    assert load_spec(file) == parse_spec({"study": "sweep.toys:power", "key": 3, "grid": GRID})


def test_groups_are_the_distinct_static_combinations():
    plan = make_plan(power_spec(), power)
    assert [group.static for group in plan.groups] == [{"method": "fast"}, {"method": "slow"}]
    assert plan.cells == 4 * 2 * 12 == sum(len(group.cells) for group in plan.groups)
    for group in plan.groups:
        assert all(cell.arguments["method"] == group.static["method"] for cell in group.cells)
        chunks = group.chunks(7)
        assert [len(chunk) for chunk in chunks] == [7] * 6 + [6]
        assert [cell for chunk in chunks for cell in chunk] == list(group.cells)


def test_ids_depend_on_content_alone():
    plan, again = make_plan(power_spec(), power), make_plan(power_spec(claim="another claim"), power)
    assert plan.ids == again.ids and len(set(plan.ids)) == len(plan.ids) == plan.cells
    assert set(plan.ids) == {cell.id for group in plan.groups for cell in group.cells}
    one = lambda arguments, seed: cells_of(arguments, [seed])[0]
    cell = one({"n": 16, "scale": 1.0}, 3)
    assert cell.id == one({"scale": 1.0, "n": 16}, 3).id
    text = json.dumps({"n": 16, "scale": 1.0, "seed": 3}, sort_keys=True)
    assert cell.id == hashlib.sha256(text.encode()).hexdigest()[:20]
    others = (one({"n": 16, "scale": 1.0}, 4), one({"n": 17, "scale": 1.0}, 3), one({"n": 16, "scale": 1.1}, 3))
    assert len({cell.id, *(other.id for other in others)}) == 4
    # Credentials in a URL are not what a cell is about.
    url = lambda user: {"data": f"s3://{user}@bucket/x.csv", "n": 4}
    assert one(url("key:secret"), 0).id == one(url("other:secret"), 0).id != one({**url("a"), "n": 5}, 0).id


def test_a_plan_survives_a_store():
    plan = make_plan(power_spec(grid=[{**GRID, "seeds": [0, 1, 2, 7]}, {**GRID, "n": 99, "scale": 0.1}]), power)
    again = plan_of(json.loads(json.dumps(plan_content(plan))), power.description)
    assert again.ids == plan.ids and [group.static for group in again.groups] == [g.static for g in plan.groups]
    assert [one.arguments for one in again.combinations] == [one.arguments for one in plan.combinations]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"grid": {"n": [16], "method": "fast"}}, r"\[grid\]: seeds is missing"),
        ({"grid": {**GRID, "seeds": True}}, r"seeds = True: give a number of seeds >= 1"),
        ({"grid": {**GRID, "seeds": 1.5}}, r"seeds = 1.5: give a number"),
        ({"grid": {**GRID, "seeds": []}}, r"seeds = \[\]: give a number"),
        ({"grid": {**GRID, "seeds": [2**32]}}, r"seeds = \[4294967296\]"),
        (
            {"grid": [GRID, {**GRID, "methd": "fast"}]},
            r"\[\[grid\]\] number 2: unknown key 'methd'. Did you mean 'method'",
        ),
        ({"grid": {**GRID, "n": ["16", 32]}}, r"\[grid\]: n = '16' is text, and power takes it as 16: write n = 16"),
        (
            {"grid": {**GRID, "scale": True}},
            r"scale = True is a truth value, and power takes it as 1.0: write scale = 1",
        ),
        ({"grid": []}, r"grid"),
        ({"grid": [3]}, r"grid.0 = 3"),
        ({"key": -1}, r"key = -1: .*greater than or equal to 0"),
    ],
)
def test_specs_that_cannot_run(change, message):
    with pytest.raises(SpecError, match=message) as error:
        make_plan(power_spec(**change), power)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "expect, message",
    [
        (
            {"what": "rate of fast in n", "at_least": 2.0, "at_most": 1.0},
            "at_least = 2.0 is above at_most = 1.0|at_least",
        ),
        ({"what": "rate of fast in n"}, "give value and tolerance, or at_least and/or at_most"),
        ({"what": "rate of fast in n", "value": 1.0}, "value and tolerance go together"),
        ({"what": "rate of fast in n", "value": 1, "tolerance": 1, "at_most": 3}, "give value and tolerance, or"),
        ({"what": "rate of fast in n", "value": 1.0, "tolerance": 0}, "tolerance = 0: .*greater than 0"),
        ({"what": "rate of fast in n", "at_most": float("nan")}, "at_most = nan"),
        (
            {"what": "rate of fast relative to slwo in n", "at_most": 1},
            "no curve 'slwo' in this sweep. Did you mean 'slow'",
        ),
        ({"what": "crossing of fast in n", "at_most": 1}, "a crossing needs two curves"),
        (
            {"what": "model of fast relative to slow in n", "model": "power"},
            r"write 'model of \[METRIC of\] CURVE in AXIS'",
        ),
        ({"what": "model of fast in n"}, "name the expected model: power, floor"),
        ({"what": "model of fast in n", "model": "power", "at_most": 1}, "compares by AICc: give only model"),
        ({"what": "rate of fast in n", "at_most": 1, "model": "flor"}, "no such model. Did you mean 'floor'"),
        (
            {"what": "risk of fast", "at_most": 1, "model": "floor"},
            "model goes with 'rate of', 'exponent in', 'model of'",
        ),
        ({"what": "rate of fast in n", "at_most": 1, "test": "equivalence"}, "to a value within a tolerance"),
        ({"what": "rate of fast in n", "value": 1, "tolerance": 1, "test": "superiority"}, "give at_least or at_most"),
        ({"what": "rate of fast in n", "at_most": 1, "alpha": 0.01}, "alpha is the level of a test"),
        ({"what": "rate of fast in n", "at_most": 1, "test": "better"}, "test = 'better'"),
        ({"what": "rate of fats in n", "at_most": 1}, "number 1: no curve 'fats' in this sweep. Did you mean 'fast'"),
        ({"what": "rate in n", "at_most": 1}, "name the method: fast, slow"),
        ({"what": "rate of fast in d", "at_most": 1}, "power has no axis 'd'. Allowed: method, n, scale, failing"),
        ({"what": "rate of fast in n", "at_most": 1, "over": {"n": [1, 2, 3]}}, "the window of n is one value or"),
        ({"what": "rate of fast in n", "at_most": 1, "over": {"m": 3}}, "over names 'm'"),
        ({"what": "rate of fast in n", "at_most": 1, "over": {"scale": 3}}, "over names 'scale'.*where"),
        (
            {"what": "rate of fast in n", "at_most": 1, "where": {"scael": 3}},
            "where names 'scael'. Did you mean 'scale'",
        ),
    ],
)
def test_expectations_that_cannot_be_judged(expect, message):
    with pytest.raises(SpecError, match=message) as error:
        make_plan(power_spec(expect=[expect]), power)
    assert "\n" not in str(error.value)


def test_a_call_and_a_file_that_say_the_same_are_equal():
    content = {"study": "sweep.toys:power", "grid": GRID}
    assert parse_spec(content) == parse_spec(content, called=True) != parse_spec({**content, "key": 1})
    assert parse_spec(content) != content


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"N": [16, 32], "seeds": 2}, "ts.sweep: unknown argument 'N'. Did you mean 'n'"),
        ({"n": [16, 32], "seed": 2}, "ts.sweep: unknown argument 'seed'. Did you mean 'seeds'"),
        ({"n": [16, 32]}, "ts.sweep: seeds is missing"),
    ],
)
def test_errors_of_a_call_speak_of_the_call(arguments, message):
    with pytest.raises(SpecError, match=message) as error:
        ts.sweep(power, method="fast", **arguments)
    assert "[grid]" not in str(error.value)
