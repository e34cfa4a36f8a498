"""Exports: every kind of value survives, no cell is a formula, and a file is there as a whole or as it was."""

import csv
import json
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import pandas as pd
import pytest

from tsjax.report import export_records
from tsjax.report.output import OutputError
from tsjax.sweep.experiment import experiment
from tsjax.sweep.run import sweep

# Of every kind, and close enough for four digits to confuse.
KINDS = {"width": [3, "auto"], "wd": [None, 0.123456, 0.123457], "flag": [True, False], "widths": [[2], [2, 3]]}


@experiment(static=("width", "wd", "flag", "widths"))
def kinds(
    key,
    *,
    n: int,
    width: int | Literal["auto"] = 3,
    wd: float | None = None,
    flag: bool = True,
    widths: tuple[int, ...] = (2,),
):
    return {"risk": jax.random.uniform(key, (), jnp.float64) / n}


@experiment(static=("name",), curve="name")
def named(key, *, n: int, name: str):
    return {"risk": jax.random.uniform(key, (), jnp.float64) / n, "done": True}


FORMULAS = ["=1+1", "+1", "-1", "@sum", "\tx", "\rx", "plain", "a=b"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return sweep(kinds, out=tmp_path_factory.mktemp("kinds") / "s", seeds=2, n=[4, 8], **KINDS)


def test_csv_of_every_kind(result, tmp_path):
    export_records(result, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.records) == 96
    for row, record in zip(rows, result.records.to_dict("records"), strict=True):
        assert row["width"] == str(record["width"]) and row["flag"] == str(record["flag"])
        assert row["wd"] == ("" if record["wd"] is None else repr(record["wd"]))
        assert tuple(json.loads(row["widths"])) == record["widths"] and float(row["risk"]) == record["risk"]


def test_parquet_of_every_kind(result, tmp_path):
    export_records(result, tmp_path / "x.parquet")
    table, records = pd.read_parquet(tmp_path / "x.parquet"), result.records
    assert set(table["width"]) == {"3", "auto"} and table["flag"].dtype == bool
    assert list(table["wd"].isna()) == [value is None for value in records["wd"]]
    assert [tuple(json.loads(text)) for text in table["widths"]] == list(records["widths"])
    pd.testing.assert_series_equal(table["risk"], records["risk"], check_exact=True)


def test_netcdf_of_every_kind(result, tmp_path):
    pytest.importorskip("h5py")
    import xarray

    export_records(result, tmp_path / "x.nc")
    with xarray.open_dataset(tmp_path / "x.nc", engine="h5netcdf") as data:
        assert dict(data.sizes) == {"n": 2, "width": 2, "wd": 3, "flag": 2, "widths": 2, "seed": 2}
        assert data["flag"].dtype == bool and list(data["wd"].to_numpy()) == ["none", "0.123456", "0.123457"]
        assert list(data["width"].to_numpy()) == ["3", "auto"] and list(data["widths"].to_numpy()) == ["2", "2-3"]
        assert data.attrs["study"] == result.spec.study
        assert not bool(data["risk"].isnull().any())
        xarray.testing.assert_identical(data.load(), result.to_xarray().load())
        row = result.records.iloc[50]
        cell = {
            "n": row["n"],
            "seed": row["seed"],
            "flag": row["flag"],
            "width": str(row["width"]),
            "wd": "none" if row["wd"] is None else str(row["wd"]),
            "widths": "-".join(map(str, row["widths"])),
        }
        assert float(data["risk"].sel(cell)) == row["risk"]


def test_constants_of_every_kind_are_attributes_of_netcdf(tmp_path):
    pytest.importorskip("h5py")
    import xarray

    export_records(sweep(kinds, seeds=1, n=[4, 8], flag=False, widths=[[2, 3]]), tmp_path / "x.nc")
    with xarray.open_dataset(tmp_path / "x.nc", engine="h5netcdf") as data:
        assert (data.attrs["flag"], data.attrs["widths"], data.attrs["width"]) == ("false", "[2, 3]", 3)
        assert "wd" not in data.attrs and dict(data.sizes) == {"n": 2, "seed": 1}


def test_no_cell_of_csv_is_a_formula(tmp_path):
    result = sweep(named, seeds=1, n=4, name=FORMULAS)
    result.records["risk"] = -result.records["risk"]
    export_records(result, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [*(f"'{text}" for text in FORMULAS[:6]), *FORMULAS[6:]]
    # Numbers stay numbers, with either sign, and truth values stay truth values.
    assert [float(row["risk"]) for row in rows] == list(result.records["risk"]) and rows[0]["done"] == "True"


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.nc"])
def test_a_file_is_replaced_as_a_whole_or_left_as_it_was(result, tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("before")
    seen = []

    def refuse(source, target):
        seen.append((Path(source).parent, Path(source).stat().st_size))
        raise OSError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refuse)
        with pytest.raises(OutputError, match="cannot write .*Permission denied") as error:
            export_records(result, tmp_path / name)
    assert error.value.exit_code == 2 and seen[0][0] == tmp_path and seen[0][1] > 1000
    assert (tmp_path / name).read_text() == "before" and [path.name for path in tmp_path.iterdir()] == [name]
    export_records(result, tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000 and [path.name for path in tmp_path.iterdir()] == [name]


def test_no_two_curves_have_one_label(result):
    from tsjax.report.numbers import variant_of
    from tsjax.report.page import render

    labels = [curve.label for curve in result.curves()]
    assert len(set(labels)) == len(labels) == 24
    assert len({variant_of(result, curve) for curve in result.curves()}) == 24
    page = render(result)
    assert all(label in page for label in labels)
    table = result.table("markdown").replace("\\", "")
    assert all(f"| {label} |" in table for label in labels)
