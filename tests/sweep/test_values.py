"""Arguments of every kind, from the grid to the tools that read the folder."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.sweep.experiment import Arguments
from tsjax.sweep.program import arrays_of
from tsjax.sweep.run import run_spec
from tsjax.sweep.values import labels_of, redacted, text_of, value_of


class _Sizes(Arguments):
    n: int


@ts.experiment(static=("width", "wd", "widths", "flag"), curve="width", x="n")
def kinds(
    key,
    *,
    n: int,
    width: int | Literal["auto"],
    wd: float | None,
    widths: tuple[int, ...],
    flag: bool,
    scale: float = 1.0,
):
    """Returns what it was given, so that every record can be checked."""
    size = 7 if width == "auto" else width
    values = {"size": size, "decay": -1.0 if wd is None else wd, "depth": len(widths), "total": sum(widths)}
    return {"risk": jax.random.uniform(key) / n, "flagged": flag, **values}


GRID = {"n": [2, 4], "width": [3, "auto"], "wd": [None, 0.1], "widths": [(64,), (64, 32)], "flag": [True, False]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("kinds") / "s"
    return out, ts.sweep(kinds, out=out, seeds=3, chunk=8, **GRID)


def _check(records):
    """Every argument of every row is the one that its cell was run with."""
    assert len(records) == 2**5 * 3
    for _, row in records.iterrows():
        assert row["size"] == (7 if row["width"] == "auto" else row["width"])
        assert row["decay"] == (-1.0 if row["wd"] is None else row["wd"])
        assert (row["depth"], row["total"]) == (len(row["widths"]), sum(row["widths"]))
        assert row["flagged"] == row["flag"]


def test_records_hold_arguments_as_they_were(store):
    out, result = store
    _check(result.records)
    again = ts.load(out)
    pd.testing.assert_frame_equal(again.records, result.records)
    assert {type(value) for value in again.records["width"]} == {int, str} and set(again.records["wd"]) == {None, 0.1}
    assert set(again.records["widths"]) == {(64,), (64, 32)} and again.records["flag"].dtype == bool
    memory = ts.sweep(kinds, seeds=3, **GRID).records
    pd.testing.assert_frame_equal(memory.iloc[:, :9], again.records.iloc[:, :9])
    # Found done when it is run again.
    counted = []
    ts.sweep(
        kinds, out=out, seeds=3, listener=lambda plan, stream: (counted.append(d.resumed) or d for d in stream), **GRID
    )
    assert all(counted)


def test_every_curve_has_its_own_label(store):
    result = store[1]
    labels = [curve.label for curve in result.curves()]
    assert len(labels) == len(set(labels)) == 16
    assert labels[0] == "3 (wd=none, widths=64, flag=true)"
    assert "auto (wd=0.1, widths=64-32, flag=false)" in labels
    curve = next(curve for curve in result.curves() if curve.label == labels[0])
    assert curve.arguments == {"width": 3, "wd": None, "widths": (64,), "flag": True, "scale": 1.0}
    assert len(result.rows(curve)) == 6 and curve.values["risk"].shape == (2, 3)


def test_close_numbers_have_different_labels():
    assert list(labels_of([0.123456, 0.123457]).values()) == ["0.123456", "0.123457"]
    assert list(labels_of([1e-5, 2.0, 0.1]).values()) == ["1e-05", "2", "0.1"]
    assert len(set(labels_of([3, "3", True, "true", None, "none", (1, 2), "1-2"]).values())) == 8

    @ts.experiment
    def close(key, *, n: int, wd: float):
        return {"risk": wd / n}

    labels = [curve.label for curve in ts.sweep(close, n=[2, 4], wd=[0.123456, 0.123457], seeds=1).curves()]
    assert labels == ["close (wd=0.123456)", "close (wd=0.123457)"]


def test_texts_are_read_back():
    for value in (3, -1.5, "auto", "3", "null", "[1]", None, True, (1, 2), (64, (1, "a")), "", "a b", 1e300):
        back = value_of(text_of(value))
        assert back == value and type(back) is type(value)


def test_a_dataset_holds_every_record(store):
    dataset = store[1].to_xarray()
    assert dict(dataset.sizes) == {"n": 2, "width": 2, "wd": 2, "widths": 2, "flag": 2, "seed": 3}
    assert int(np.isfinite(dataset["risk"]).sum()) == len(store[1].records) == 96
    one = dataset.sel(width="auto", wd="none", widths="64-32", flag=True, n=4, seed=2)
    assert (float(one["size"]), float(one["decay"]), float(one["total"]), bool(one["flagged"])) == (7, -1, 96, True)


def test_a_dataset_survives_netcdf(store, tmp_path):
    import xarray

    dataset = store[1].to_xarray()
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as again:
        assert again["flag"].dtype == bool and list(again["wd"].values) == ["none", "0.1"]
        xarray.testing.assert_equal(again.load(), dataset)


def _columns(files):
    import pyarrow.parquet as pq

    return {str(pq.read_schema(file).remove_metadata()) for file in files}


@ts.experiment(static=("learner",), curve="learner")
def uneven(key, *, n: int, learner: Literal["student", "ridge", "plain"]):
    """Each learner returns columns of its own."""
    own = {"student": {"steps": 5, "found": n > 2}, "ridge": {"ridge": 0.5, "steps": 0.0}, "plain": {}}
    return {"status": 0, "risk": jax.random.uniform(key) / n, **own[learner]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("uneven") / "s"
    return out, ts.sweep(uneven, out=out, seeds=4, n=[2, 4], learner=["student", "ridge", "plain"], chunk=4)


def test_all_chunks_have_one_schema(store, folder):
    for out, _ in (store, folder):
        assert len(_columns((out / "chunks").glob("*.parquet"))) == 1
    records = ts.load(folder[0]).records
    assert records.groupby("learner")["steps"].count().to_dict() == {"student": 8, "ridge": 8, "plain": 0}
    assert list(records.columns[:6]) == ["cell", "n", "learner", "seed", "status", "risk"]
    pd.testing.assert_frame_equal(records, folder[1].records)


def test_two_halves_of_a_sweep_have_one_schema(tmp_path):
    """Columns that come later widen the chunks that were there before."""
    ts.sweep(uneven, out=tmp_path / "s", seeds=4, n=[2, 4], learner=["plain", "student"])
    ts.sweep(uneven, out=tmp_path / "s", seeds=4, n=[2, 4], learner=["plain", "student", "ridge"])
    assert len(_columns((tmp_path / "s" / "chunks").glob("*.parquet"))) == 1
    result = ts.load(tmp_path / "s")
    assert result.coverage.whole and len(result.records) == 24 and result.coverage.repeated == 0
    # Words where there were numbers.
    grid = {"n": [2], "wd": [None], "widths": [(1,)], "flag": [True], "seeds": 2}
    ts.sweep(kinds, out=tmp_path / "t", width=[3], **grid)
    ts.sweep(kinds, out=tmp_path / "t", width=[3, "auto"], **grid)
    assert len(_columns((tmp_path / "t" / "chunks").glob("*.parquet"))) == 1
    assert list(ts.load(tmp_path / "t").records["width"]) == [3, 3, "auto", "auto"]


def test_pandas_and_duckdb_read_the_folder(store, folder):
    duckdb = pytest.importorskip("duckdb")
    frame = pd.read_parquet(folder[0] / "chunks")
    assert len(frame) == 24 and {"steps", "ridge", "found"} <= set(frame.columns)
    found = duckdb.sql(
        f"select learner, n, avg(risk), count(steps) from '{folder[0]}/chunks/*.parquet' group by learner, n order by all"
    ).fetchall()
    means = folder[1].records.groupby(["learner", "n"])["risk"].mean()
    assert [(row[0], row[1]) for row in found] == list(means.index)
    np.testing.assert_allclose([row[2] for row in found], means.to_numpy(), rtol=1e-12)
    texts = duckdb.sql(
        f"select distinct width, wd, widths, flag from '{store[0]}/chunks/*.parquet' order by all"
    ).fetchall()
    assert len(texts) == 16 and texts[0][:3] == ("3", 0.1, "[64, 32]")


@pytest.mark.slow
def test_polars_reads_the_folder(folder, store):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(f"{folder[0]}/chunks/*.parquet")
    means = frame.group_by("learner", "n").agg(polars.col("risk").mean()).sort("learner", "n")
    expected = folder[1].records.groupby(["learner", "n"])["risk"].mean()
    np.testing.assert_allclose(means["risk"].to_numpy(), expected.to_numpy(), rtol=1e-12)
    assert polars.scan_parquet(f"{store[0]}/chunks/*.parquet").collect().shape[0] == 96


@ts.experiment(x="at", curve="speed")
def paths(key, *, speed: float):
    """A vector that comes to the same x twice."""
    return {"at": jnp.array([0.0, 1.0, 1.0, 2.0]), "risk": speed * jnp.arange(1.0, 5.0)}


def test_vectors_with_equal_x_keep_all_rows(tmp_path):
    result = ts.sweep(paths, out=tmp_path / "s", speed=[1.0, 2.0], seeds=2)
    for one in (result, ts.load(tmp_path / "s")):
        assert len(one.records) == 16
        assert one.records["risk"].tolist() == [1.0, 2.0, 3.0, 4.0] * 2 + [2.0, 4.0, 6.0, 8.0] * 2
        curve = one.curves()[0]
        assert curve.x.tolist() == [0, 1, 1, 2] and curve.values["risk"][:, 0].tolist() == [1, 2, 3, 4]
    dataset = result.to_xarray()
    assert dict(dataset.sizes) == {"speed": 2, "entry": 4, "seed": 2} and int(np.isfinite(dataset["risk"]).sum()) == 16


@ts.experiment(static=("method",), curve="method", independent=("method",))
def draws(key, *, method: str, n: int):
    """With keys that the cell makes on its own."""
    own = jax.random.key(jnp.asarray(n, jnp.uint32))
    return {"risk": jax.random.uniform(key), "own": jax.random.normal(own), "wide": jnp.ones(()) / 3}


def test_records_do_not_depend_on_the_default_generator():
    grid = {"n": [3, 4], "method": ["a", "b"], "seeds": 5}
    expected = ts.sweep(draws, **grid).records
    with jax.default_prng_impl("rbg"):
        for chunk in (1, 7):
            records = ts.sweep(draws, chunk=chunk, **grid).records
            assert (records["risk"] == expected["risk"]).all() and (records["own"] == expected["own"]).all()
    with jax.threefry_partitionable(False):
        assert (ts.sweep(draws, **grid).records["own"] == expected["own"]).all()


def test_a_recorded_cell_can_be_run_by_hand(tmp_path):
    result = ts.sweep(draws, out=tmp_path / "s", n=[3, 4], method=["a", "b"], seeds=5, key=SEED % 1000)
    for one in (result, ts.load(tmp_path / "s")):
        for row in (0, 13):
            key, arguments = one.cell(row)
            with jax.enable_x64(True):
                values = draws(key, **arguments)
            assert {name: float(value) for name, value in values.items()} == {
                name: one.records.iloc[row][name] for name in values
            }


def test_an_experiment_may_go_without_float64():
    import dataclasses

    narrow = dataclasses.replace(draws, x64=False)
    grid = {"n": [3], "method": ["a"], "seeds": 2}
    assert ts.sweep(draws, **grid).records["wide"][0] == 1 / 3
    assert ts.sweep(narrow, **grid).records["wide"][0] == float(np.float32(1) / np.float32(3))
    assert not ts.sweep(narrow, **grid).experiment.x64


def test_credentials_stay_out_of_stores(tmp_path):
    @ts.experiment(static=("data",), curve="data")
    def reads(key, *, data: str, n: int):
        assert "hunter2" in data
        return {"risk": 1.0 / n}

    url = "s3://user:hunter2@bucket/x.csv?X-Amz-Signature=hunter2&a=b"
    assert redacted(url) == "s3://***@bucket/x.csv?X-Amz-Signature=***&a=b" and redacted("a ? b") == "a ? b"
    for secret in ("u:pa/ss@h/x", "u:p@ss@h/x", "h/x#access_token=S", 'h/x?sig="S"&b=1', "h/x;token=S"):
        assert "ss@" not in redacted(f"s3://{secret}") and "S" not in redacted(f"s3://{secret}")
    for name in (
        "access_token",
        "api_key",
        "AWSAccessKeyId",
        "X-Amz-Credential",
        "X-Amz-Security-Token",
        "client_secret",
        "Sig",
    ):
        assert redacted(f"https://h/x?{name}=S&n=1") == f"https://h/x?{name}=***&n=1"
    # Words that only contain those of secrets, and a port, tell data apart.
    for plain in ("x?id=1", "x?sigma=1", "x?design=a&author=b", "x?keyword=c", "x?monkey=d", "data/v1@2024.csv"):
        assert redacted(f"https://h:8443/{plain}") == f"https://h:8443/{plain}"
    result = ts.sweep(reads, out=tmp_path / "s", data=[url], n=[2, 4], seeds=1)
    assert b"hunter2" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert result.curves()[0].name == redacted(url) and len(ts.load(tmp_path / "s").records) == 2
    # Another secret is the same data.
    counted = []
    listener = lambda plan, stream: (counted.append(done.resumed) or done for done in stream)
    ts.sweep(
        reads,
        out=tmp_path / "s",
        data=[url.replace("hunter2&", "hunter2hunter2&")],
        n=[2, 4],
        seeds=1,
        listener=listener,
    )
    assert counted == [True]


def test_a_cell_run_by_hand_has_the_type_of_its_argument():
    @ts.experiment(independent=("a",))
    def mixed(key, *, n: int, a: int | float):
        return {"risk": jax.random.uniform(key) / n}

    result = ts.sweep(mixed, n=[2], a=[1, 2.5], seeds=3)
    for row in range(6):
        key, arguments = result.cell(row)
        with jax.enable_x64(True):
            assert float(mixed(key, **arguments)["risk"]) == result.records["risk"][row]


@pytest.mark.parametrize("pair", [[None, "None"], [True, "True"], [1, "1"], [(64, 32), "64-32"]])
def test_two_curves_never_get_one_name(pair):
    @ts.experiment(static=("kind",), curve="kind")
    def named(key, *, n: int, kind: Any):
        return {"risk": 1.0 / n}

    with pytest.raises(ValueError, match="would both be called"):
        ts.sweep(named, n=[2], kind=pair, seeds=1)


def test_a_curve_of_none_gets_its_seeds():
    """Seeds that are added go to the curve that needs them, also where its argument is None and the default is not."""
    from tsjax.sweep.seeds import with_more_seeds

    @ts.experiment(static=("opt",), curve="opt")
    def noisy(key, *, n: int, opt: str | None = "x"):
        return {"risk": jax.random.exponential(jax.random.fold_in(key, n)) / n}

    result = ts.sweep(noisy, n=[2, 4, 8], opt=[None, "y"], seeds=6)
    spec = with_more_seeds(result, 0.05, 64)
    more = run_spec(spec, experiment=noisy)
    assert [curve.name for curve in more.curves()] == ["None", "y"]
    assert all(len(curve.seeds) > 6 for curve in more.curves())


@pytest.mark.parametrize(
    "returned, message",
    [
        (lambda n: {"risk": "low"}, "returned 'risk', which is not a real number"),
        (lambda n: {"risk": 1j / n}, "returned 'risk', which is not a real number"),
        (lambda n: {"risk": None}, "returned 'risk', which is not a real number"),
        (lambda n: {"risk": jax.random.key(0)}, "returned 'risk', which is not a real number"),
        (lambda n: {"risk": jnp.ones(3) / n}, "returned vectors, and its x is the argument 'n'"),
    ],
)
def test_what_no_record_can_hold_is_an_error(returned, message):
    wrong = ts.experiment(lambda key, *, n: returned(n), name="wrong", arguments=_Sizes)
    with pytest.raises(ValueError, match=message):
        ts.sweep(wrong, n=[2], seeds=1)
    with pytest.raises(ValueError, match="returned a list; return a dict of numbers"):
        arrays_of(wrong, [1.0])


@pytest.mark.parametrize("theory", [lambda a, x: 3, lambda a, x: None, lambda a, x: ts.Theory(np.ones(7))])
def test_a_theory_of_another_kind_is_an_error(theory):
    wrong = ts.experiment(lambda key, *, n: {"risk": 1.0 / n}, name="wrong", arguments=_Sizes, theory=theory)
    with pytest.raises(ValueError, match="the theory of experiment 'wrong'"):
        ts.sweep(wrong, n=[2, 4], seeds=1)


def test_large_integers_survive():
    @ts.experiment(static=("size",), curve="size")
    def large(key, *, n: int, size: int):
        return {"risk": 1.0 / n}

    assert list(ts.sweep(large, n=[2], size=[10**30, 1], seeds=1).records["size"]) == [10**30, 1]
