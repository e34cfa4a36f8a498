"""Pictures of arrays: which cell, which kind, on the page and on paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import tsjax as ts
from tsjax.report import write_captioned, write_report
from tsjax.report.pictures import picture_chart, picture_figure, pictures_of


@ts.experiment(
    static=("learner",),
    curve="learner",
    arrays={
        "confusion": ("true", "predicted"),
        "atoms": ("neuron", "coordinate"), "truth": ("neuron", "coordinate"), "path": ("step",), "weights": ("neuron", "input"),
        "cube": ("a", "b", "c"),
    },
)  # fmt: skip
def cell(key, *, learner: str, n: int):
    del learner
    atoms = n * jax.random.normal(key, (5, 2))
    values = {
        "atoms": atoms,
        "truth": jnp.eye(2),
        "path": jnp.arange(4) * n,
        "weights": jnp.outer(jnp.arange(3), jnp.ones(4)),
    }
    return {"risk": 1.0 / n, "confusion": jnp.eye(2), "cube": jnp.zeros((2, 2, 2)), **values}


@pytest.fixture(scope="module")
def result():
    return ts.sweep(cell, seeds=[3, 7], learner=["a", "b"], n=[1, 2])


def test_one_cell_of_every_curve(result):
    found = pictures_of(result)
    # Atoms and the truth lie in one plane and are one picture; an array of three axes has none. Two columns are no plane.
    assert [(picture.kind, tuple(picture.arrays)) for picture in found[:2]] == [("map", ("confusion",))] * 2
    found = found[2:]
    assert [(picture.kind, tuple(picture.arrays)) for picture in found] == [
        *[("points", ("atoms", "truth"))] * 2, *[("line", ("path",))] * 2, *[("map", ("weights",))] * 2,
    ]  # fmt: skip
    first = found[0]
    assert first.title == "a, n = 2, seed 3" and first.axes == ("neuron", "coordinate")
    curve = result.curves()[0]
    expected = result.arrays("atoms", curve.rows(np.array([1])))
    np.testing.assert_array_equal(first.arrays["atoms"], expected[0])
    np.testing.assert_array_equal(found[2].arrays["path"], 2 * np.arange(4))


def test_charts_hold_the_numbers(result):
    points, _, line, _, heat, _ = (picture_chart(picture) for picture in pictures_of(result)[2:])
    atoms = pictures_of(result)[2].arrays["atoms"]
    np.testing.assert_array_equal(np.stack([points.data[0]["x"], points.data[0]["y"]], axis=1), atoms)
    assert points.data[0]["mode"] == "markers" and points.layout["yaxis"]["scaleanchor"] == "x"
    np.testing.assert_array_equal(line.data[0]["y"], 2 * np.arange(4))
    assert heat.data[0]["type"] == "heatmap" and heat.data[0]["z"].shape == (3, 4)


@pytest.mark.slow
def test_figures_and_the_page(result, tmp_path):
    figure = picture_figure(pictures_of(result)[2])
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), pictures_of(result)[2].arrays["atoms"])
    assert axes.get_xlabel() == "coordinate 1" and axes.get_legend() is not None
    page = write_report(result, tmp_path).read_text()
    assert "Arrays of single cells" in page
    assert {"atoms_0.svg", "path_1.png", "weights_0.pdf"} <= {path.name for path in (tmp_path / "figures").iterdir()}


def test_a_picture_has_a_table_and_a_caption(result, tmp_path):
    names = {"points": "atoms_0", "line": "path_1", "map": "weights_0"}
    for kind, name in names.items():
        [picture] = [one for one in pictures_of(result) if one.name == name and one.kind == kind]
        _, table, caption = write_captioned(result, tmp_path / f"{kind}.svg", name)
        rows, values = pd.read_csv(table), next(iter(picture.arrays.values()))
        mine = rows[rows["array"] == next(iter(picture.arrays))]
        shown = mine[["coordinate 1", "coordinate 2"]] if kind == "points" else mine["value"]
        np.testing.assert_allclose(shown.to_numpy().reshape(values.shape), values, rtol=1e-7)
        assert picture.title in caption.read_text()
