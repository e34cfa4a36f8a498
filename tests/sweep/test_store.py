"""Chunks, resume, kills: the records never depend on how a sweep was run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import SEED
from sweep.toys import path, power, power_spec, sizes, stored

import tsjax as ts
from tsjax.report.numbers import failed_of
from tsjax.report.progress import Meter
from tsjax.sweep.plan import make_plan
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import parse_spec
from tsjax.sweep.status import sweep_status
from tsjax.sweep.store import Store, StoreError, open_store, sealed

METRICS = ["cell", "method", "n", "scale", "seed", "status", "risk", "limit", "done", "draw"]
TESTS = Path(__file__).parents[1]


def _run(out=None, spec=None, **options):
    options = {"commit_seconds": 0.0, **options}
    return run_spec(power_spec() if spec is None else spec, out=out, experiment=power, **options)


def _chunks(out) -> list[Path]:
    return sorted((out / "chunks").glob("*.parquet"))


def _counting(counted):
    """A listener that notes how many cells each chunk ran, and how many were found done."""

    def listener(plan, stream):
        for done in stream:
            counted["found" if done.resumed else "run"] = (
                counted.get("found" if done.resumed else "run", 0) + done.cells
            )
            yield done

    return listener


def _assert_same(records, expected):
    pd.testing.assert_frame_equal(records[METRICS], expected[METRICS], check_exact=True)


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    """The records of an undisturbed run in memory."""
    return _run().records


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_records_do_not_depend_on_chunks(tmp_path, whole, chunk):
    result = _run(tmp_path / "s", chunk=chunk)
    _assert_same(result.records, whole)
    assert sum(len(pd.read_parquet(file)) for file in _chunks(tmp_path / "s")) == len(whole)
    extra = set(result.records.columns) - set(METRICS)
    assert extra == {"failing", "compile_seconds", "run_seconds", "device", "jax", "tsjax"}


def test_a_record_is_what_the_function_gives(whole):
    import jax

    row = whole.iloc[17]
    key = jax.random.fold_in(jax.random.key(0), int(row["seed"]))
    direct = power(key, method=row["method"], n=int(row["n"]))
    assert float(direct["risk"]) == pytest.approx(row["risk"], rel=1e-12)
    assert float(direct["draw"]) == pytest.approx(row["draw"], rel=1e-12)
    # Paired: one seed has one draw in every curve and at every n; other seeds and other root keys have others.
    assert whole.groupby("seed")["draw"].nunique().eq(1).all() and whole["draw"].nunique() == 12
    assert not set(_run(spec=power_spec(key=1)).records["draw"]) & set(whole["draw"])


def test_resume_runs_only_what_is_missing(tmp_path, whole):
    out = tmp_path / "s"
    _run(out, chunk=8)
    files = _chunks(out)
    assert len(files) == 12
    kept = {file: file.stat().st_mtime_ns for file in files[3:]}
    for file in files[:3]:
        file.unlink()
    counted = {}
    result = _run(out, chunk=8, listener=_counting(counted))
    assert counted == {"found": 72, "run": 24}
    _assert_same(result.records, whole)
    assert len(_chunks(out)) == 12 and set(files[3:]) < set(_chunks(out))
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    # Resumed with other chunks, only the missing cells are run too.
    files[5].unlink()
    counted = {}
    result = _run(out, chunk=64, listener=_counting(counted))
    assert counted == {"found": 88, "run": 8}
    _assert_same(result.records, whole)


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-40])


def _empty(file):
    file.write_bytes(b"")


def _flip(file):
    """Spoils one value in the middle of the file; its footer stays whole."""
    import pyarrow.parquet as pq

    column = pq.read_metadata(file).row_group(0)
    spot = next(column.column(i) for i in range(column.num_columns) if column.column(i).path_in_schema == "risk")
    content = bytearray(file.read_bytes())
    end = spot.data_page_offset + spot.total_compressed_size
    content[end - 4] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.parametrize("spoil", [_truncate, _empty, _flip])
def test_a_damaged_chunk_is_set_aside_and_redone(tmp_path, whole, spoil):
    out = tmp_path / "s"
    _run(out, chunk=8)
    victim = _chunks(out)[4]
    lost = set(pd.read_parquet(victim)["cell"])
    spoil(victim)
    found = open_store(out).read()
    assert set(found.damaged) == {victim.name} and len(found.tables) == 11
    status = sweep_status(out)
    assert status["damaged"] == [victim.name] and status["done"] == len(whole) - 8
    # The remaining cells take as long as the finished ones of the same program; the cells of a program are alike.
    intact = pd.concat([pd.read_parquet(file) for file in _chunks(out) if file != victim])
    each = intact.groupby("method")["run_seconds"].mean()
    expected = sum(each[method] for method in whole.loc[whole["cell"].isin(lost), "method"])
    assert status["seconds_left"] == pytest.approx(expected)
    # A result made now holds the other cells alone, and says so.
    loaded = ts.load(out)
    assert set(loaded.records["cell"]) == set(whole["cell"]) - lost and not loaded.coverage.whole
    assert loaded.coverage.sentence == "88 of 96 cells; 1 damaged chunk is left out."
    counted = {}
    result = _run(out, chunk=8, listener=_counting(counted))
    assert counted["run"] == 8
    _assert_same(result.records, whole)
    assert sweep_status(out)["damaged"] == [] and sweep_status(out)["seconds_left"] == 0.0
    # Nothing is thrown away: perhaps somebody can save it.
    assert [file.name for file in (out / "damaged").iterdir()] == [victim.name]


def test_extension_runs_only_new_cells(tmp_path, whole):
    out = tmp_path / "s"
    small = power_spec(grid={"n": [16, 64], "method": ["fast", "slow"], "seeds": 5})
    first = _run(out, small)
    counted = {}
    result = _run(out, listener=_counting(counted))
    assert counted == {"found": 20, "run": 76}
    _assert_same(result.records, whole)
    before = first.records.set_index("cell")["risk"]
    assert (result.records.set_index("cell").loc[before.index, "risk"] == before).all()
    # Asked for less, nothing is run and nothing lost.
    counted = {}
    again = _run(out, small, listener=_counting(counted))
    assert counted == {"found": 20} and len(again.records) == 96


def test_a_cell_run_twice_counts_once(tmp_path, whole):
    """As where two stores of one sweep are put together."""
    out, other = tmp_path / "s", tmp_path / "other"
    _run(out, chunk=8)
    _run(other, chunk=12)
    for file in _chunks(other):
        file.rename(out / "chunks" / file.name)
    _assert_same(ts.load(out, power).records, whole)
    status = sweep_status(out)
    assert status["done"] == status["cells"] == len(whole)


SCRIPT = """
import sys, time
import tsjax as ts
from sweep.toys import power

def slowly(plan, stream):
    for done in stream:
        yield done
        time.sleep(0.1)

grid = {"n": [16, 32, 64, 128], "method": ["fast", "slow"]}
ts.sweep(power, out=sys.argv[1], seeds=12, chunk=4, commit_seconds=0.0, listener=slowly, **grid)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_records(tmp_path, whole):
    out = tmp_path / "s"
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(out)], env=environment, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 90
        while len(_chunks(out)) < 4 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stderr:
            process.stderr.close()
    # What a kill in the middle of a write leaves behind.
    (out / "chunks" / ".0123.parquet.99.tmp").write_bytes(b"half a chunk")
    kept = _chunks(out)
    assert 4 <= len(kept) < 24
    assert sweep_status(out)["done"] == 4 * len(kept)
    counted = {}
    result = _run(out, chunk=4, listener=_counting(counted))
    assert counted == {"found": 4 * len(kept), "run": 96 - 4 * len(kept)}
    _assert_same(result.records, whole)
    assert len(_chunks(out)) == 24


@ts.experiment
def spoilt(key, *, n: int):
    """No status, and no number for about a third of the seeds."""
    u = jax.random.uniform(key, (), jnp.float64)
    return {"risk": jnp.where(u < 0.3, jnp.nan, u) / n}


@ts.experiment(x="step", y=("risk",))
def late(key):
    """A path whose last steps are infinite for about half of the seeds."""
    step = jnp.arange(5)
    return {"step": step, "risk": jnp.where((step > 2) & (jax.random.uniform(key) < 0.5), jnp.inf, 1.0 / (1 + step))}


@pytest.mark.parametrize(("experiment", "axes"), [(spoilt, {"n": [16, 32]}), (late, {})], ids=["numbers", "paths"])
def test_numbers_that_are_not_finite_are_failures_wherever_they_are_counted(tmp_path, experiment, axes):
    meters = []

    def listener(plan, stream):
        meters.append(Meter(plan))
        for done in stream:
            meters[0].add(done)
            yield done

    result = ts.sweep(experiment, out=tmp_path / "s", seeds=12, listener=listener, **axes)
    records = result.records
    failed = records.loc[~np.isfinite(records["risk"]), "cell"].nunique()
    assert 0 < failed < records["cell"].nunique()
    status = sweep_status(tmp_path / "s")
    assert status["failed"] == sum(curve["failed"] for curve in status["curves"]) == failed
    assert sum(curve.failed for curve in result.curves()) == failed
    assert sum(failed_of(result, curve) for curve in result.curves()) == failed
    assert meters[0].failed == failed


def test_failed_cells_are_records_and_leave_their_neighbours_alone(tmp_path, whole):
    out = tmp_path / "s"
    result = _run(out, power_spec(problem={"failing": 0.3}))
    records = result.records
    failed = records["status"] == 2
    assert len(records) == 96 and 0 < failed.sum() < 96
    assert records.loc[failed, "risk"].isna().all()
    # The others are what they are without failures.
    other = whole.set_index(["method", "n", "seed"])["risk"]
    mine = records[~failed].set_index(["method", "n", "seed"])["risk"]
    assert (other.loc[mine.index] == mine).all()
    assert sweep_status(out)["failed"] == failed.sum()
    assert sum(curve.failed for curve in result.curves()) == failed.sum()
    rates = result.rates()
    assert rates["failed"].sum() == failed.sum() and np.isfinite(rates["exponent"]).all()
    # A failed cell is done: it is not tried again.
    counted = {}
    _run(out, power_spec(problem={"failing": 0.3}), listener=_counting(counted))
    assert counted == {"found": 96}


def test_vectors_survive_the_store(tmp_path):
    spec = parse_spec({"study": "sweep.toys:path", "grid": {"speed": [1.0, 3.0], "seeds": 3}})
    stored = run_spec(spec, out=tmp_path / "s", experiment=path, chunk=2)
    memory = run_spec(spec, experiment=path)
    names = ["cell", "speed", "seed", "step", "risk", "train_loss"]
    pd.testing.assert_frame_equal(stored.records[names], memory.records[names], check_exact=True)
    assert sweep_status(tmp_path / "s")["done"] == 6


def test_a_store_belongs_to_one_study_and_key(tmp_path):
    out = tmp_path / "s"
    small = {"n": [16, 32], "method": "fast", "seeds": 2}
    _run(out, power_spec(grid=small))
    with pytest.raises(StoreError, match="holds another sweep \\(key: 0 there, 1 here\\). Choose another --out"):
        _run(out, power_spec(grid=small, key=1))
    study = parse_spec({"study": "sweep.toys:plain", "grid": {"n": 3, "seeds": 1}})
    with pytest.raises(StoreError, match="study: 'sweep.toys:power' there, 'sweep.toys:plain' here"):
        run_spec(study, out=out)
    # Another claim, or other expectations, are the same sweep.
    _run(out, power_spec(grid=small, claim="new words"))
    assert open_store(out).spec.claim == "new words"


def test_a_store_holds_one_version_of_a_study(tmp_path):
    import dataclasses

    small = power_spec(grid={"n": [16, 32], "method": "fast", "seeds": 2})
    run_spec(small, experiment=power, out=tmp_path / "s")
    with pytest.raises(StoreError, match="version: 1 there, 2 here"):
        run_spec(small, experiment=dataclasses.replace(power, version=2), out=tmp_path / "s")


def test_places_that_cannot_be_a_store(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    for place, message in (
        (file, "exists and is not a tsjax store"),
        (other, "exists and is not a tsjax store"),
        (file / "below", "cannot write to"),
        (Path("/proc/tsjax/s"), "cannot write to"),
    ):
        with pytest.raises(StoreError, match=message):
            _run(place)
    assert [entry.name for entry in other.iterdir()] == ["thesis.tex"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert len(_run(empty, power_spec(grid={"n": 16, "method": "fast", "seeds": 1})).records) == 1


def test_a_disk_that_is_full(tmp_path, whole, monkeypatch):
    """At some flush there is no space left: nothing is half written, and with room again the sweep goes on."""
    import errno

    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device. Finished chunks are safe"):
        _run(tmp_path / "s", chunk=8)
    monkeypatch.undo()
    assert 0 < len(stored(tmp_path / "s")) < len(whole) and not open_store(tmp_path / "s").read().damaged
    assert not list((tmp_path / "s" / "chunks").glob(".*"))
    _assert_same(_run(tmp_path / "s", chunk=8).records, whole)


def test_a_store_just_being_made_is_nobody_elses(tmp_path):
    """A kill may leave a folder of chunks without a sweep.json."""
    out = tmp_path / "s"
    (out / "chunks").mkdir(parents=True)
    (out / ".sweep.json.77.tmp").write_text("{")
    assert len(_run(out, power_spec(grid={"n": 16, "method": "fast", "seeds": 1})).records) == 1


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"schema": 1, "spec": {"stu', "cannot be read"),
        ("", "cannot be read"),
        ("\x00\x01", "cannot be read"),
        ("[1, 2]", "no sweep description|cannot be read"),
        ('{"schema": 99}', "has schema 99; this version of tsjax reads 2"),
        ('{"schema": 2, "provenance": {}}', "holds no valid spec"),
        ('{"schema": 2, "spec": {"studdy": 3}, "provenance": {}}', "holds no valid spec"),
        ('{"schema": 2, "spec": {"study": "a:b", "grid": {"n": 1}}}', "holds no valid description of its sweep"),
    ],
)
def test_a_spoilt_description_is_one_clear_error(tmp_path, content, message):
    (tmp_path / "chunks").mkdir()
    if content.startswith('{"schema": 2'):
        content = json.dumps(sealed(json.loads(content)))
    (tmp_path / "sweep.json").write_text(content)
    attempts = [lambda: ts.load(tmp_path, power), lambda: sweep_status(tmp_path)]
    if content.startswith('{"schema"') and content.endswith("}"):
        # One that holds no description at all is set aside instead.
        attempts.append(lambda: _run(tmp_path))
    for attempt in attempts:
        with pytest.raises(StoreError, match=message) as error:
            attempt()
        assert "\n" not in str(error.value)
    assert (tmp_path / "sweep.json").read_text() == content


def test_no_store():
    with pytest.raises(StoreError, match="there is no directory"):
        open_store("/nonexistent/store")


def test_description_tells_what_ran(tmp_path):
    _run(tmp_path / "s", power_spec(grid={"n": 16, "method": "fast", "seeds": 1}))
    provenance = open_store(tmp_path / "s").provenance
    assert {"tsjax", "jax", "numpy"} <= set(provenance["versions"]) and provenance["platform"] == "cpu"
    assert sorted(entry.name for entry in (tmp_path / "s").iterdir()) == ["chunks", "sweep.json"]
    assert Store(tmp_path / "s").spec.study == "sweep.toys:power"
    assert make_plan(Store(tmp_path / "s").spec, power).cells == 1


def test_a_store_by_url(whole):
    """fsspec's memory file system is an object store in this process."""
    url = f"memory://bucket/{SEED}"
    with pytest.raises(StoreError, match=f"there is no tsjax store {url}"):
        open_store(url)
    small = power_spec(grid={"n": [16, 64], "method": ["fast", "slow"], "seeds": 5})
    _run(url, small)
    counted = {}
    result = _run(url + "/", chunk=8, listener=_counting(counted))
    assert counted == {"found": 20, "run": 76}
    _assert_same(result.records, whole)
    assert result.path == url and sweep_status(url)["done"] == len(whole)
    _assert_same(ts.load(url, power).records, whole)
    with pytest.raises(StoreError, match="holds another sweep"):
        _run(url, power_spec(key=1))
    with pytest.raises(ValueError, match="this sweep was kept at memory://"):
        result.report()
    import fsspec

    files = fsspec.filesystem("memory")
    victim = sorted(files.ls(f"/bucket/{SEED}/chunks", detail=False))[3]
    files.pipe_file(victim, files.cat_file(victim)[:-40])
    assert ts.load(url).coverage.damaged == (victim.rsplit("/", 1)[-1],) and len(ts.load(url).records) < len(whole)
    _assert_same(_run(url, chunk=8).records, whole)


def test_unknown_protocols():
    with pytest.raises(StoreError, match="nothing://bucket: .*"):
        open_store("nothing://bucket")


@pytest.mark.slow
def test_a_store_on_s3(whole, monkeypatch):
    """Against a real S3 server, over HTTP."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        import fsspec

        fsspec.filesystem("s3").mkdir("bucket")
        small = power_spec(grid={"n": [16, 64], "method": ["fast", "slow"], "seeds": 5})
        _run("s3://bucket/sweep", small)
        result = _run("s3://bucket/sweep", chunk=8)
        _assert_same(result.records, whole)
        _assert_same(ts.load("s3://bucket/sweep", power).records, whole)
    finally:
        server.stop()


def test_others_read_the_folder(tmp_path, whole):
    """What the documentation says: any reader of Parquet takes the folder as it is."""
    _run(tmp_path / "s", chunk=8)
    frame = pd.read_parquet(tmp_path / "s" / "chunks")
    assert set(frame["cell"]) == set(whole["cell"]) and len(frame) == len(whole)
    duckdb = pytest.importorskip("duckdb")
    mean = duckdb.sql(f"select avg(risk) from '{tmp_path}/s/chunks/*.parquet' where n = 64").fetchall()[0]
    assert mean[0] == pytest.approx(whole.query("n == 64")["risk"].mean(), rel=1e-12)


def test_the_time_left_counts_programs_to_compile(tmp_path):
    out = tmp_path / "s"
    ts.sweep(sizes, out=out, seeds=8, n=[4, 8, 16], chunk=8)
    took = {}
    for file in _chunks(out):
        rows = pd.read_parquet(file)
        took[int(rows["n"].iloc[0])] = rows["compile_seconds"].iloc[0]
        if rows["n"].iloc[0] == 16:
            file.unlink()
    cells = pd.concat([pd.read_parquet(file) for file in _chunks(out)])["run_seconds"]
    left = sweep_status(out)["seconds_left"]
    # The cells themselves take far less than a compilation.
    compiling = np.mean([took[4], took[8]])
    assert compiling < left < 1.2 * compiling and 8 * cells.max() < 0.2 * compiling
