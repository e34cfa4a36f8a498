"""Whose records a store holds: those of one sweep, or an error that says what differs and what to do."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sweep.toys import plain, power, power_spec, stored

import tsjax as ts
from tsjax.sweep import files
from tsjax.sweep.manifest import Manifest, pack, unpack
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import parse_spec
from tsjax.sweep.status import sweep_status
from tsjax.sweep.store import StoreError, open_store, sealed

SMALL = {"n": [16, 32], "method": ["fast", "slow"], "seeds": 3}


def _run(out, experiment=power, **changes):
    return run_spec(
        power_spec(**{"grid": SMALL, **changes}), out=out, experiment=experiment, commit_seconds=0.0, chunk=4
    )


@pytest.fixture
def store(tmp_path):
    _run(tmp_path / "s")
    return tmp_path / "s"


def _edit(store, change):
    path = store / "sweep.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(sealed(content)))


def test_a_manifest_says_what_made_a_chunk(store):
    for path in (store / "chunks").iterdir():
        manifest, table = unpack(path.name, path.read_bytes())
        assert manifest.identity.study == "sweep.toys:power" and manifest.identity.key == 0
        assert manifest.identity.version == 1 and manifest.identity.arguments == ("method", "n", "scale", "failing")
        assert manifest.defaults == {"scale": 1.0, "failing": 0.0} and manifest.size_class == "exact"
        assert manifest.cells == len(set(table["cell"].to_pylist())) and manifest.columns["risk"] == "double"
        assert manifest.kernel in ("c", "xla") and manifest.device == "cpu"
        assert set(manifest.source) == {"power", "EXPONENTS"}


def test_records_without_their_description_are_not_adopted(store):
    before = stored(store)
    (store / "sweep.json").unlink()
    with pytest.raises(StoreError, match=r"belong to another sweep \(key: 1 in sweep.json, 0 in the chunk\)"):
        _run(store, key=1)
    assert not (store / "sweep.json").exists()
    # The same sweep takes them back.
    assert set(_run(store).records["cell"]) == set(before["cell"])
    pd.testing.assert_frame_equal(stored(store), before)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda content: content["spec"].update(key=1), "key: 1 in sweep.json, 0 in the chunk"),
        (lambda content: content["spec"].update(study="sweep.toys:plain"), "study: 'sweep.toys:plain' in sweep.json"),
        (lambda content: content["experiment"].update(version=2), "version: 2 in sweep.json, 1 in the chunk"),
        (lambda content: content["experiment"]["arguments"].update(wd=[0.1]), "'wd' is only in sweep.json"),
    ],
)
def test_an_edited_description_is_refused_by_every_reader(store, change, message):
    _edit(store, change)
    if "wd" in message:
        _edit(store, lambda content: content["plan"]["arguments"].update(wd={"values": [0.1]}))
    for read in (ts.load, sweep_status):
        with pytest.raises(StoreError, match=message) as error:
            read(store)
        assert "move these files out of chunks/" in str(error.value)


def test_a_chunk_of_another_sweep_is_named(store, tmp_path):
    other = tmp_path / "other"
    _run(other, key=5)
    stranger = next((other / "chunks").iterdir())
    shutil.copy(stranger, store / "chunks")
    with pytest.raises(StoreError, match=rf"1 of 5 chunks belong.*key: 0 in sweep.json, 5.*chunks/{stranger.name}"):
        ts.load(store)


def test_fixed_arguments_must_be_those_of_the_store(store):
    with pytest.raises(StoreError, match=r"at scale = 1.0, and this one has scale = 2.0.*scale = \[1.0, 2.0\]"):
        _run(store, problem={"scale": 2.0})
    assert len(ts.load(store).records) == 12
    # Made an axis, both are there, as two curves.
    result = _run(store, grid={**SMALL, "scale": [1.0, 2.0]})
    assert len(result.records) == 24 and len(result.curves()) == 4
    assert [curve.label for curve in result.curves()][:2] == ["fast (scale=1)", "fast (scale=2)"]
    # Of an axis a part may be asked for again, and nothing else.
    assert _run(store, problem={"scale": 2.0}).coverage.beyond == 12
    _run(store, grid={**SMALL, "scale": [1.0, 2.0]})
    with pytest.raises(StoreError, match=r"scale = \[1.0, 2.0\], and this one has scale = 3.0"):
        _run(store, problem={"scale": 3.0})


def test_arguments_that_come_or_go_are_another_sweep(tmp_path):
    def old(key, *, n: int, wd: float = 0.5):
        return {"risk": wd / n}

    def new(key, *, n: int):
        return {"risk": 2.0 / n}

    one, two = (ts.experiment(fn, name="mine") for fn in (old, new))
    ts.sweep(one, out=tmp_path / "s", n=[2, 4], seeds=2)
    with pytest.raises(StoreError, match="the argument 'wd' is only there"):
        ts.sweep(two, out=tmp_path / "s", n=[2, 4], seeds=4)
    ts.sweep(two, out=tmp_path / "t", n=[2, 4], seeds=2)
    with pytest.raises(StoreError, match="the argument 'wd' is only here"):
        ts.sweep(one, out=tmp_path / "t", n=[2, 4], seeds=4)
    assert ts.load(tmp_path / "s").records["risk"].max() == 0.25


def test_a_changed_source_is_a_warning_that_names_the_function(tmp_path, monkeypatch):
    experiment = dataclasses.replace(power)
    _run(tmp_path / "s", experiment)
    assert ts.load(tmp_path / "s").coverage.mixed == ()
    changed = dataclasses.replace(power)
    source = {**power.description.source, "EXPONENTS": "0" * 16}
    changed.__dict__["description"] = power.description.model_copy(update={"source": source})
    result = _run(tmp_path / "s", changed, grid={**SMALL, "seeds": 6})
    (note,) = result.coverage.mixed
    assert (
        "the source of 'EXPONENTS' changed between records of version 1" in note
        and "raise the experiment's version" in note
    )
    assert ts.load(tmp_path / "s").coverage.mixed == (note,)


def test_source_does_not_mean_comments_and_docstrings(tmp_path, monkeypatch):
    import importlib
    import linecache
    import sys

    from tsjax.sweep.description import source_of

    monkeypatch.syspath_prepend(tmp_path)
    texts = {
        "one": "def helper(x):\n    return x + 1\n\ndef other(x):\n    return 0\n\n"
        "def cell(key, *, n: int):\n    return helper(n)\n",
        "two": "def helper(x):\n    '''Says so.'''\n    # Adds.\n    return x+1\n\ndef other(x):\n    return 5\n\n"
        "def cell(key, *, n: int):\n    return helper(n)\n",
        "three": "def helper(x):\n    return x + 2\n\ndef cell(key, *, n: int):\n    return helper(n)\n",
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / f"source_{name}.py").write_text(text)
        found[name] = source_of(importlib.import_module(f"source_{name}").cell)
        sys.modules.pop(f"source_{name}")
    assert found["one"] == found["two"] and set(found["one"]) == {"cell", "helper"}
    # Another module of the user counts as a whole; jax and numpy do not.
    (tmp_path / "aside.py").write_text("SIZE = 2\n\ndef scale(n):\n    return SIZE * n\n")
    text = "import aside\nimport numpy as np\n\ndef cell(key, *, n: int):\n    return np.abs(aside.scale(n))\n"
    (tmp_path / "source_four.py").write_text(text)
    four = importlib.import_module("source_four").cell
    before = source_of(four)
    assert set(before) == {"cell", "module aside"}
    (tmp_path / "aside.py").write_text("SIZE = 20\n\ndef scale(n):\n    return SIZE * n\n")
    linecache.checkcache()
    assert source_of(four)["module aside"] != before["module aside"]
    assert found["one"]["cell"] == found["three"]["cell"] and found["one"]["helper"] != found["three"]["helper"]


def _rewritten(store, change, columns=None):
    """One chunk as another process might have made it."""
    path = sorted((store / "chunks").iterdir())[0]
    manifest, table = unpack(path.name, path.read_bytes())
    frame = table.to_pandas()
    if columns is not None:
        columns(frame)
    import pyarrow as pa

    name, content = pack(pa.Table.from_pandas(frame, preserve_index=False), manifest.model_copy(update=change))
    (store / "chunks" / name).write_bytes(content)
    return path, store / "chunks" / name


def test_mixed_devices_and_kernels_are_reported(store):
    path, _ = _rewritten(store, {"device": "NVIDIA H100", "kernel": "fused"})
    path.unlink()
    kinds, kernels = ts.load(store).coverage.mixed
    _, second = _rewritten(store, {"defaults": {"scale": 3.0, "failing": 0.0}})
    assert "the default of 'scale' changed between records" in " ".join(ts.load(store).coverage.mixed)
    second.unlink()
    assert kinds.startswith("records were made with 2 kinds of device: NVIDIA H100 (")
    assert "2 training kernels, which differ in rounding" in kernels and "fused" in kernels
    assert len(ts.load(store).coverage.notes) == 2 and ts.load(store).coverage.whole


def test_a_cell_run_twice_is_one_if_equal_and_an_error_if_not(store):
    expected = ts.load(store).records

    def later(frame):
        frame["run_seconds"] += 1.0
        frame["risk"] *= 1 + 1e-12

    path, _ = _rewritten(store, {}, later)
    result = ts.load(store)
    assert result.coverage.repeated == len(pd.read_parquet(path)) and len(result.records) == 12
    np.testing.assert_allclose(result.records["risk"], expected["risk"], rtol=1e-11)
    first, second = _rewritten(store, {}, lambda frame: frame.update(frame["risk"] * 2.0))
    with pytest.raises(
        StoreError, match="two different results of one cell.*seed = .*risk = .*move that file"
    ) as error:
        ts.load(store)
    assert second.name in str(error.value)


def test_two_processes_cannot_both_create_a_store(tmp_path, monkeypatch):
    """The second one comes between the first one's look and its write."""
    create, other = files.LocalFiles.create, []

    def late(self, name, content, **options):
        if not other:
            other.append("comes between")
            _run(tmp_path / "s", key=1)
        return create(self, name, content, **options)

    monkeypatch.setattr(files.LocalFiles, "create", late)
    with pytest.raises(StoreError, match="holds another sweep \\(key: 1 there, 0 here\\)"):
        _run(tmp_path / "s")
    assert ts.load(tmp_path / "s").spec.key == 1 and len(ts.load(tmp_path / "s").records) == 12


def test_creation_is_exclusive_without_hard_links(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", unsupported)
    test_two_processes_cannot_both_create_a_store(tmp_path, monkeypatch)


def _old_store(out, study="sweep.toys:power", lose=0):
    """As versions without manifests wrote it."""
    result = run_spec(power_spec(grid=SMALL), experiment=power)
    (out / "chunks").mkdir(parents=True)
    spec = parse_spec({"study": study, "grid": SMALL})
    content = {"schema": 1, "spec": spec.model_dump(mode="json"), "version": 1, "provenance": {"platform": "cpu"}}
    (out / "sweep.json").write_text(json.dumps(content))
    for number in range(lose, 4):
        part = result.records.iloc[3 * number : 3 * number + 3]
        pq.write_table(_table(part), out / "chunks" / f"{number:020x}.parquet")
    return result


def _table(frame):
    import pyarrow as pa

    return pa.Table.from_pandas(frame, preserve_index=False)


def test_a_store_of_an_earlier_version_is_read_and_not_extended(tmp_path):
    whole = _old_store(tmp_path / "s", lose=1)
    result = ts.load(tmp_path / "s", power)
    assert not result.coverage.verified and (result.coverage.done, result.coverage.cells) == (9, 12)
    assert any("nothing here could be verified" in note for note in result.coverage.notes)
    assert {curve.name: curve.theory.exponent for curve in result.curves()} == {"fast": 1.0, "slow": 0.5}
    risks = whole.records.set_index("cell")["risk"]
    assert (risks.loc[result.records["cell"]].to_numpy() == result.records["risk"].to_numpy()).all()
    with pytest.raises(StoreError, match="can be read, but not extended: choose another --out"):
        _run(tmp_path / "s")
    # What is not part of tsjax is not imported to read it.
    with pytest.raises(StoreError, match="is not part of tsjax. Load it from Python: ts.load\\(path, experiment\\)"):
        ts.load(tmp_path / "s")


def test_another_study_with_the_same_key(store):
    with pytest.raises(StoreError, match="study: 'sweep.toys:power' there, 'sweep.toys:plain' here"):
        run_spec(parse_spec({"study": "sweep.toys:plain", "grid": {"n": 3, "seeds": 1}}), experiment=plain, out=store)
    assert isinstance(next(iter(open_store(store).read().manifests.values())), Manifest)


def test_a_renamed_function_is_a_changed_source(tmp_path):
    def one(key, *, n: int):
        return {"risk": 1.0 / n}

    def two(key, *, n: int):
        return {"risk": 7.0 / n}

    ts.sweep(ts.experiment(one, name="e"), out=tmp_path / "s", n=[2, 4], seeds=1)
    (note,) = ts.sweep(ts.experiment(two, name="e"), out=tmp_path / "s", n=[2, 4], seeds=2).coverage.mixed
    assert "the source of 'one', 'two' changed" in note


def test_parameters_of_a_url_tell_data_apart(tmp_path):
    @ts.experiment(static=("data",), curve="data")
    def read(key, *, data: str, n: int):
        return {"risk": float(data[-1]) / n}

    ts.sweep(read, out=tmp_path / "s", data="https://h/x?id=1", n=[2], seeds=1)
    with pytest.raises(StoreError, match="id=1"):
        ts.sweep(read, out=tmp_path / "s", data="https://h/x?id=2", n=[2], seeds=1)
