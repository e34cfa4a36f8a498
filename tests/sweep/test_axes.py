import numpy as np
import pytest
from sweep.toys import power, power_spec

import tsjax as ts
from tsjax.sweep.axes import AxisError, product, values_of
from tsjax.sweep.spec import SpecError, expand


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
    ],
)
def test_values(axis, values):
    found = values_of("n", axis)
    assert found == pytest.approx(values, rel=1e-12) and [type(v) for v in found] == [type(v) for v in values]


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
        ({"n": 1}, [], [{"where": {"d": 1}, "m": 2}], "where names 'd', which is no axis"),
        ({"n": 1}, [], [{"m": 2}], "needs where = "),
        ({"n": 1}, [], [{"where": {"n": 1}}], "needs where = "),
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
