import enum
import importlib
from typing import Any, Literal

import mpmath
import numpy as np
import pytest
from sweep.toys import power, power_spec

import tsjax as ts
from tsjax.sweep.axes import AxisError, product, values_of
from tsjax.sweep.plan import make_plan
from tsjax.sweep.spec import SpecError, expand, parse_spec


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ([3, 1], [3, 1]),
        (7, [7]),
        ({"from": 128, "to": 4096, "factor": 2}, [128, 256, 512, 1024, 2048, 4096]),
        ({"from": 128, "to": 4095, "factor": 2}, [128, 256, 512, 1024, 2048]),
        ({"from": 10, "to": 1000, "count": 5}, [10, 32, 100, 316, 1000]),
        ({"from": 2, "to": 11, "step": 3}, [2, 5, 8, 11]),
        ({"from": 0.1, "to": 0.3, "step": 0.1}, [0.1, 0.2, 0.3]),
        ({"from": 1, "to": 2, "step": 0.5}, [1.0, 1.5, 2.0]),
        ({"from": 0.001, "to": 1, "factor": 10}, [0.001, 0.01, 0.1, 1.0]),
        # Rounded values come once.
        ({"from": 1, "to": 4, "factor": 1.2}, [1, 2, 3, 4]),
        ({"from": 5, "to": 5, "factor": 2}, [5]),
        ({"from": 0.1, "to": 0.7, "step": 0.2}, [0.1, 0.3, 0.5, 0.7]),
        ({"from": 0.1, "to": 12.1, "factor": 11}, [0.1, 1.1, 12.1]),
    ],
)
def test_values(axis, values):
    found = values_of("n", axis)
    assert found == values and [type(v) for v in found] == [type(v) for v in values]


def test_log_spaced_values_are_those_of_decimal_logarithms():
    """To the last bit, between exact ends, on every machine."""
    with mpmath.workdps(40):
        exact = [mpmath.mpf("0.1") * mpmath.mpf(70) ** (mpmath.mpf(i) / 36) for i in range(37)]
        expected = [float(mpmath.nstr(value, 15, strip_zeros=False)) for value in exact]
    assert values_of("x", {"from": 0.1, "to": 7.0, "count": 37}) == expected
    assert expected[0] == 0.1 and expected[-1] == 7.0


def test_a_factor_that_is_a_rounded_root_reaches_the_end():
    assert values_of("x", {"from": 1.0, "to": 4.0, "factor": 2**0.5})[-1] == 4.0


@pytest.mark.parametrize(
    "axis",
    [
        {"from": 1, "to": 4},
        {"from": 1, "to": 4, "step": 1, "factor": 2},
        {"from": 4, "to": 1, "step": 1},
        {"from": 1, "to": 4, "step": 0},
        {"from": 1, "to": 4, "factor": 1},
        {"from": 0, "to": 4, "factor": 2},
        {"from": 1, "to": 4, "count": 2.5},
        {"from": 1, "to": 4, "steps": 2},
        {"from": "a", "to": 4, "step": 2},
        {"from": 1, "to": float("inf"), "step": 2},
        {"from": float("nan"), "to": 4, "count": 3},
        {"from": 1, "to": 4.0, "step": float("inf")},
        [],
    ],
)
def test_bad_axes(axis):
    with pytest.raises(AxisError, match=r"n = \{.*a range|the axis 'n' is empty"):
        values_of("n", axis)


def test_zipped_axes_go_together_and_conditional_ones_are_for_some():
    cells = list(
        product(
            {"estimator": ["student", "ntk"], "n": [1, 2]},
            [{"d": [5, 10], "m": [3, 5]}],
            [{"where": {"estimator": "student", "d": [10]}, "restarts": [1, 4]}],
        )
    )
    expected = []
    for estimator in ("student", "ntk"):
        for n in (1, 2):
            for d, m in ((5, 3), (10, 5)):
                cell = {"estimator": estimator, "n": n, "d": d, "m": m}
                more = [1, 4] if estimator == "student" and d == 10 else [None]
                expected += [cell if r is None else cell | {"restarts": r} for r in more]
    assert cells == expected


@pytest.mark.parametrize(
    ("axes", "zips", "only", "message"),
    [
        ({"n": 1}, [{"d": [1, 2], "m": [1]}], [], r"go together, but their lengths are \{'d': 2, 'm': 1\}"),
        ({"n": 1}, [{"n": [1, 2]}], [], "'n' is given twice, as axis and in zip"),
        ({"n": 1}, [], [{"where": {"n": 1}, "n": 2}], "'n' is given twice, as axis and in only"),
        ({"n": 1}, [], [{"where": {"d": 1}, "m": 2}], "where names 'd', which is neither an axis"),
        ({"n": 1}, [], [{"m": 2}], "needs where = "),
        ({"n": 1}, [], [{"where": {"n": 1}}], "needs where = "),
        (
            {"n": [1, 2]},
            [],
            [{"where": {"n": [1, 7]}, "m": 2}],
            r"no cell of this grid has n = 7; its values are \[1, 2\]",
        ),
        ({"flag": [True]}, [], [{"where": {"flag": 1}, "m": 2}], r"no cell of this grid has flag = 1; its values are"),
        ({}, [{"d": [1, 2], "m": [3, 4]}], [{"where": {"d": 1, "m": 4}, "n": 2}], "picks no cell"),
    ],
)
def test_bad_groups(axes, zips, only, message):
    with pytest.raises(AxisError, match=message):
        list(product(axes, zips, only))


def test_in_a_spec():
    grid = {
        "zip": {"method": ["fast", "slow"], "scale": [1.0, 2.0]},
        "n": {"from": 16, "to": 64, "factor": 2},
        "only": {"where": {"method": "slow"}, "failing": [0.0, 0.5]},
        "seeds": 2,
    }
    cells = [(c["method"], c["scale"], c["n"], c["failing"]) for c, _ in expand(power_spec(grid=grid), power)]
    assert sorted(cells) == sorted(
        [("fast", 1.0, n, 0.0) for n in (16, 32, 64)] + [("slow", 2.0, n, f) for n in (16, 32, 64) for f in (0.0, 0.5)]
    )
    for change, message in (
        ({"zip": {"methd": ["fast"]}}, r"\[grid\]: unknown key 'methd'. Did you mean 'method'\?"),
        ({"zip": 3}, r"zip = 3: give a table of axes, or a list of them"),
        ({"n": {"from": 16}}, r"\[grid\]: n = \{'from': 16\}: a range is"),
        ({"only": {"where": {"scale": 1.0}, "n": 3}}, r"\[grid\]: 'n' is given twice"),
    ):
        with pytest.raises(SpecError, match=message):
            list(expand(power_spec(grid={**grid, **change}), power))


def test_from_python():
    result = ts.sweep(power, seeds=2, zip={"method": ["fast", "slow"], "scale": [1.0, 2.0]}, n=np.array([16, 32]))
    assert len(result.records) == 8 and set(zip(result.records["method"], result.records["scale"], strict=True)) == {
        ("fast", 1.0),
        ("slow", 2.0),
    }
    assert ts.sweep(power, seeds=1, method="fast", n=range(16, 19)).records["n"].tolist() == [16, 17, 18]


@ts.experiment(static=("widths", "weights", "mode", "flag"))
def network(
    key,
    *,
    widths: tuple[int, ...] = (8,),
    weights: list[float] | None = None,
    mode: int | Literal["auto"] | None = None,
    flag: bool | int = False,
    n: float = 1,
):
    assert isinstance(widths, tuple)
    return {"risk": sum(widths) + n}


def _cells(grid, problem=None) -> list[dict[str, Any]]:
    spec = parse_spec({"study": "x:network", "grid": {"seeds": 1, **grid}, "problem": problem or {}})
    return [cell for cell, _ in expand(spec, network)]


@pytest.mark.parametrize(
    ("value", "widths"),
    [
        ([64, 64], [(64, 64)]),
        ([[64], [64, 64]], [(64,), (64, 64)]),
        ([], [()]),
        ([[]], [()]),
        ([[64, 64]], [(64, 64)]),
    ],
)
def test_the_schema_tells_a_list_that_is_a_value_from_an_axis(value, widths):
    assert [cell["widths"] for cell in _cells({"widths": value})] == widths
    if len(widths) == 1 and value != [[]] and value != [[64, 64]]:
        assert [cell["widths"] for cell in _cells({}, {"widths": value})] == widths
    else:
        with pytest.raises(SpecError, match=r"\[problem\]: widths = .* is a list; put axes into \[grid\]"):
            _cells({}, {"widths": value})


def test_lists_go_together_and_pick_cells():
    cells = _cells(
        {
            "zip": {"widths": [[4], [4, 4]], "n": [1, 2]},
            "only": {"where": {"widths": [4, 4]}, "weights": [[0.5, 1.0], [2.0]]},
        }
    )
    assert [(cell["widths"], cell["n"], cell["weights"]) for cell in cells] == [
        ((4,), 1.0, None),
        ((4, 4), 2.0, [0.5, 1.0]),
        ((4, 4), 2.0, [2.0]),
    ]


@pytest.mark.parametrize("value", [64, [64, "x"], [[64], ["x"]], {"from": 1, "to": 4, "step": 1}])
def test_a_wrong_list_says_how_to_write_it(value):
    with pytest.raises(
        SpecError, match=r"\[grid\]: widths.* One value of widths is a list; an axis is a list of such lists"
    ):
        _cells({"widths": value})


def test_the_function_takes_the_tuples_that_it_is_annotated_with():
    spec = parse_spec({"study": "x:network", "grid": {"widths": [[2, 3], [4]], "seeds": 1}})
    assert [group.static["widths"] for group in make_plan(spec, network).groups] == [(2, 3), (4,)]


def test_values_of_several_types_in_one_axis():
    assert [cell["mode"] for cell in _cells({"mode": [3, "auto", None]})] == [3, "auto", None]
    assert [cell["flag"] for cell in _cells({"flag": [True, False, 7]})] == [True, False, 7]
    # After validation these are one number.
    assert [cell["n"] for cell in _cells({"n": [1, 1.0]})] == [1.0]


@pytest.mark.parametrize("grid", [{"flag": [1, True]}, {"flag": [False, 0]}])
def test_values_that_are_equal_but_of_different_types_are_refused(grid):
    with pytest.raises(SpecError, match=r"flag is given as \w+ and as \w+, which are equal but of different types"):
        _cells(grid)


def test_seeds_may_be_a_range():
    spec = power_spec(grid={"n": 4, "method": "fast", "seeds": {"from": 10, "to": 16, "step": 3}})
    assert [seeds for _, seeds in expand(spec, power)] == [[10, 13, 16]]


@pytest.mark.parametrize(
    "grid",
    [
        {"seeds": 10**9},
        {"seeds": {"from": 0, "to": 10**9, "step": 1}},
        {"n": {"from": 2, "to": 10**9, "step": 1}},
        {"n": {"from": 2.0, "to": 1e300, "step": 1e-300}},
        {"n": {"from": 2, "to": 10**5, "step": 1}, "scale": {"from": 1, "to": 10**5, "step": 1}},
        {"n": [2, 3, 4, 5], "seeds": 4 * 10**6},
    ],
)
def test_cells_are_counted_before_they_are_made(grid):
    message = r"[\d,^]+ (values, and a sweep has|cells or more .* and) at most 10,000,000 (cells|are allowed)"
    with pytest.raises(SpecError, match=message):
        list(expand(power_spec(grid={"n": 16, "method": "fast", "seeds": 1, **grid}), power))


def test_cells_of_some_combinations_only_count_too(monkeypatch):
    monkeypatch.setattr(importlib.import_module("tsjax.sweep.axes"), "MOST_CELLS", 10)
    grid = {"n": [16, 32], "method": "fast", "seeds": 2, "only": {"where": {"n": 32}, "scale": [1, 2, 3, 4]}}
    assert sum(len(seeds) for _, seeds in expand(power_spec(grid=grid), power)) == 10
    with pytest.raises(
        SpecError, match=r"has 12 cells or more \(combinations times seeds\), and at most 10 are allowed"
    ):
        list(expand(power_spec(grid={**grid, "only": {"where": {"n": 32}, "scale": [1, 2, 3, 4, 5]}}), power))


def test_values_that_no_record_can_hold():
    class Kind(enum.Enum):
        A = "a"

    @ts.experiment(static=("kind",))
    def kinds(key, *, kind: Kind, n: int = 1):
        return {"risk": 1.0}

    spec = parse_spec({"study": "x:kinds", "grid": {"kind": "a", "seeds": 1}})
    with pytest.raises(SpecError, match=r"\[grid\]: kind = .* is a Kind, which a record cannot hold: annotate kind as"):
        list(expand(spec, kinds))
