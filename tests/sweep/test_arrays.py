"""Arrays that cells return beside their numbers: kept in the store, read back equal, in no table."""

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tsjax as ts
from tsjax.sweep.program import key_of
from tsjax.sweep.table import columns_of, common_columns


@ts.experiment(static=("width",), x="scale", arrays={"atoms": ("neuron", "coordinate"), "path": ("step",)})
def planted(key, *, width: int, scale: float):
    atoms = scale * jax.random.normal(key, (width, 2))
    return {"risk": jnp.sum(atoms**2), "atoms": atoms, "path": jnp.arange(3) * scale}


@ts.experiment(x="step", arrays={"atoms": ("neuron", "coordinate")})
def along(key, *, scale: float):
    """A trajectory of numbers, and one array beside all of it."""
    return {"risk": 1.0 / (1.0 + jnp.arange(4)), "step": jnp.arange(4), "atoms": scale * jnp.eye(2)}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return ts.sweep(planted, out=tmp_path_factory.mktemp("s") / "planted", seeds=3, width=[2, 5], scale=[1.0, 2.0])


def _direct(width, scale, seed):
    with jax.enable_x64(True):
        return np.asarray(scale * jax.random.normal(key_of(0, seed, {}, ()), (width, 2)))


def test_they_are_those_of_the_cells(result):
    curves = {curve.arguments["width"]: curve for curve in result.curves()}
    for width, curve in curves.items():
        atoms = result.arrays("atoms", curve)
        assert atoms.dims == ("cell", "neuron", "coordinate") and atoms.shape == (6, width, 2)
        for cell in atoms:
            expected = _direct(width, float(cell["scale"]), int(cell["seed"]))
            np.testing.assert_allclose(cell, expected, rtol=1e-12)
    # Of all cells where they have one shape.
    path = result.arrays("path")
    assert path.shape == (12, 3)
    np.testing.assert_array_equal(path.sel(step=2), 2 * path["scale"])
    assert set(path.coords) == {"width", "scale", "seed"}


@pytest.mark.usefixtures("blank_figures")
def test_a_store_holds_them_and_no_table_does(result, tmp_path):
    again = ts.load(result.path)
    for name in ("atoms", "path"):
        for curve, other in zip(result.curves(), again.curves(), strict=True):
            np.testing.assert_array_equal(result.arrays(name, curve), again.arrays(name, other))
        assert name not in again.records and name not in again.to_xarray()
    # Other tools read them as lists of lists.
    table = pq.read_table(next((result.path / "chunks").glob("*.parquet")))
    assert np.shape(table["atoms"][0].as_py())[1] == 2
    assert again.report(tmp_path).is_file()
    # In memory it is the same.
    memory = ts.sweep(planted, seeds=3, width=[2, 5], scale=[1.0, 2.0])
    np.testing.assert_array_equal(memory.arrays("path"), again.arrays("path"))


def test_they_are_resumed_and_joined(result, tmp_path):
    first = ts.sweep(planted, out=tmp_path / "s", seeds=2, width=[2], scale=[1.0, 2.0])
    more = ts.sweep(planted, out=tmp_path / "s", seeds=3, width=[2, 5], scale=[1.0, 2.0])
    assert first.arrays("atoms").shape == (4, 2, 2)
    for mine, other in zip(more.curves(), result.curves(), strict=True):
        np.testing.assert_array_equal(more.arrays("atoms", mine), result.arrays("atoms", other))


def test_beside_a_trajectory_there_is_one(tmp_path):
    result = ts.sweep(along, out=tmp_path / "s", seeds=2, scale=[3.0])
    assert len(result.records) == 8
    np.testing.assert_array_equal(result.arrays("atoms"), np.stack([3.0 * np.eye(2)] * 2))


def test_black_boxes_have_them_too(tmp_path):
    result = ts.sweep(_box, out=tmp_path / "s", seeds=3, n=[4], engine=ts.engines.BlackBox(processes=1))
    draws = ts.load(tmp_path / "s").arrays("draws")
    for one in draws:
        np.testing.assert_array_equal(one, np.random.default_rng(int(one["seed"])).normal(size=4))
    np.testing.assert_allclose((draws**2).mean("row"), result.records["risk"])


@ts.black_box(arrays={"draws": ("row",)})
def _box(seed: int, *, n: int):
    """The mean square of some draws, and the draws."""
    draws = np.random.default_rng(seed).normal(size=n)
    return {"risk": float(np.mean(draws**2)), "draws": draws}


def test_errors_say_what_is_allowed(result):
    with pytest.raises(ValueError, match="returns no array 'atom'. Did you mean 'atoms'"):
        result.arrays("atom")
    with pytest.raises(ValueError, match=r"2 different shapes, \(2, 2\) and \(5, 2\)"):
        result.arrays("atoms")

    def cell(key, *, n: int):
        return {"risk": 1.0, "atoms": jnp.zeros(3)}

    with pytest.raises(ValueError, match=r"shape \(3,\), and arrays says that it has 2 axes: neuron, coordinate"):
        ts.sweep(ts.experiment(cell, static=("n",), arrays={"atoms": ("neuron", "coordinate")}), seeds=1, n=[1])
    for arrays, said in (
        ({"n": ("a",)}, "arrays names 'n'"),
        ({"risk": ("a",)}, "arrays names 'risk'"),
        ({"atoms": ()}, "name 1 to 4"),
        ({"atoms": tuple("abcde")}, "name 1 to 4"),
    ):
        with pytest.raises(ValueError, match=said):
            ts.experiment(cell, static=("n",), arrays=arrays)


def test_empty_arrays_are_refused():
    def cell(key, *, n: int):
        return {"risk": 1.0, "atoms": jnp.zeros((0, 3))}

    with pytest.raises(ValueError, match="without any number in it"):
        ts.sweep(ts.experiment(cell, static=("n",), arrays={"atoms": ("neuron", "coordinate")}), seeds=1, n=[1])


def test_chunks_of_other_arrays_are_named():
    numbers, arrays = pa.table({"a": [1.0]}), pa.table({"a": [[1.0]]})
    description = planted.description
    assert (
        common_columns([columns_of(one) for one in (arrays, pa.table({"a": pa.nulls(1)}))], description)["a"]
        == "array1"
    )
    with pytest.raises(ValueError, match="'a' is an array of array1 and of array2 in different chunks"):
        common_columns([columns_of(arrays), columns_of(pa.table({"a": [[[1.0]]]}))], description)
    assert columns_of(numbers) == {"a": "double"}


def test_without_the_declaration_nothing_has_two_axes():
    def cell(key, *, n: int):
        return {"risk": 1.0, "atoms": jnp.zeros((3, 2))}

    with pytest.raises(ValueError, match="may have more axes"):
        ts.sweep(ts.experiment(cell, static=("n",)), seeds=1, n=[1])
