"""Damage to the files of a store is named, set aside and redone; nothing hangs, and no number changes in silence."""

import errno
import json
import os
import shutil
import time

import jax
import jax.numpy as jnp
import pandas as pd
import pytest
from sweep.toys import power, power_spec

import tsjax as ts
from tsjax.sweep.files import LocalFiles
from tsjax.sweep.run import run_spec
from tsjax.sweep.status import sweep_status
from tsjax.sweep.store import StoreError, open_store, sealed
from tsjax.sweep.writer import StoreWriter

SMALL = {"n": [16, 32], "method": ["fast", "slow"], "seeds": 6}
METRICS = ["cell", "method", "n", "seed", "status", "risk", "limit", "done", "draw"]


def _run(out, **options):
    return run_spec(power_spec(grid=SMALL), out=out, experiment=power, commit_seconds=0.0, chunk=4, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "s"
    return out, _run(out).records


@pytest.fixture
def store(tmp_path, finished):
    shutil.copytree(finished[0], tmp_path / "s")
    return tmp_path / "s"


def _same(records, expected):
    pd.testing.assert_frame_equal(records[METRICS], expected[METRICS], check_exact=True)


def _lose_a_column(path):
    pd.read_parquet(path).drop(columns="risk").to_parquet(path)


def _flip_metadata(path):
    content = bytearray(path.read_bytes())
    content[content.rfind(b"identity")] ^= 0x10
    path.write_bytes(content)


def _flip_footer(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 0x01
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        _lose_a_column,
        _flip_metadata,
        _flip_footer,
    ],
    ids=["zeros", "short", "empty", "column", "metadata", "footer"],
)
def test_damage_is_named_set_aside_and_redone(store, finished, spoil):
    victims = sorted((store / "chunks").iterdir())[:2]
    for path in victims:
        spoil(path)
    names = [path.name for path in victims]
    result = ts.load(store)
    assert list(result.coverage.damaged) == names == sweep_status(store)["damaged"] and not result.coverage.whole
    assert len(result.records) == result.coverage.done == 16
    assert result.coverage.sentence == "16 of 24 cells; 2 damaged chunks are left out."
    again = _run(store)
    _same(again.records, finished[1])
    assert again.coverage.whole and sorted(path.name for path in (store / "damaged").iterdir()) == names
    # Whole, and with nothing left to do: the same records, bit for bit.
    _same(ts.load(store).records, finished[1])


def test_what_is_no_chunk_is_named_and_ignored(store, finished):
    chunks = store / "chunks"
    os.mkfifo(chunks / "pipe.parquet")
    os.mkfifo(chunks / f"{'0' * 64}.parquet")
    (chunks / f"{'1' * 64}.parquet").symlink_to("/dev/zero")
    (chunks / f"{'2' * 64}.parquet").symlink_to(store / "nowhere")
    (chunks / "folder.parquet").mkdir()
    (chunks / f"{'3' * 64}.parquet").mkdir()
    pd.DataFrame({"cell": ["a"], "risk": [1.0]}).to_parquet(chunks / "foreign.parquet")
    start = time.monotonic()
    result = ts.load(store)
    _same(result.records, finished[1])
    assert len(result.coverage.foreign) == 7 and result.coverage.whole and not result.coverage.damaged
    assert sweep_status(store)["foreign"] == list(result.coverage.foreign)
    assert "Not chunks of this sweep, and ignored: " in " ".join(result.coverage.notes)
    _same(_run(store).records, finished[1])
    assert time.monotonic() - start < 60


def test_a_description_that_is_a_pipe(store):
    (store / "sweep.json").unlink()
    os.mkfifo(store / "sweep.json")
    with pytest.raises(StoreError, match="sweep.json cannot be read: sweep.json is not a regular file"):
        ts.load(store)


@pytest.mark.parametrize(
    "table, value",
    [
        *((table, {"surprise": [1]}) for table in ("plan", "experiment", "theory", "spec")),
        ("theory", [{"curve": {}, "x": [1.0, 2.0], "predicted": [1.0], "exponent": None, "source": ""}]),
        ("theory", [{"curve": {}, "x": [1.0], "predicted": None, "exponent": "1", "source": ""}]),
        ("experiment", {"name": "power", "arguments": {"n": []}, "y": []}),
        ("experiment", {"name": "power", "arguments": {"n": []}, "curve": "nobody"}),
        ("provenance", 5),
        ("provenance", {"versions": ["jax"]}),
    ],
)
def test_a_spoilt_description_is_named(store, table, value):
    content = json.loads((store / "sweep.json").read_text())
    content[table] = value
    (store / "sweep.json").write_text(json.dumps(sealed(content)))
    for read in (ts.load, sweep_status, _run):
        with pytest.raises(StoreError, match="sweep.json holds no valid"):
            read(store)


@pytest.mark.parametrize("spoil", [lambda text: text[:-9], lambda text: "", lambda text: text.replace("16", "17", 1)])
def test_a_damaged_description_is_named_and_written_anew(store, finished, spoil):
    path = store / "sweep.json"
    path.write_text(spoil(path.read_text()))
    for read in (ts.load, sweep_status):
        with pytest.raises(
            StoreError, match=r"sweep.json (cannot be read|was changed since it was written).*Run the sweep"
        ):
            read(store)
    # Another sweep does not take its records.
    with pytest.raises(StoreError, match="belong to another sweep .*key: 1"):
        run_spec(power_spec(grid=SMALL, key=1), out=store, experiment=power)
    ran = []
    result = _run(store, listener=lambda plan, stream: (ran.append(done.resumed) or done for done in stream))
    assert all(ran) and result.coverage.whole
    _same(ts.load(store).records, finished[1])
    assert [entry.name for entry in (store / "damaged").iterdir()] == ["sweep.json"]


def test_a_store_that_is_moved_while_it_runs_stays_where_it_is(tmp_path):
    out, moved = tmp_path / "s", tmp_path / "moved"

    def listener(plan, stream):
        for number, done in enumerate(stream):
            if number == 0:
                out.rename(moved)
            yield done

    with pytest.raises(StoreError, match="was moved or removed while the sweep ran"):
        _run(out, listener=listener)
    assert not out.exists() and 0 < len(ts.load(moved).records) < 24
    assert _run(moved).coverage.whole


def test_another_directory_in_its_place_is_not_written_to(tmp_path):
    out = tmp_path / "s"

    def listener(plan, stream):
        for number, done in enumerate(stream):
            if number == 0:
                out.rename(tmp_path / "moved")
                (out / "chunks").mkdir(parents=True)
            yield done

    with pytest.raises(StoreError, match="was moved or removed"):
        _run(out, listener=listener)
    assert not list((out / "chunks").iterdir())


def test_directories_that_cannot_be_flushed(tmp_path, finished, monkeypatch):
    fsync = os.fsync

    def unsupported(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", unsupported)
    _same(_run(tmp_path / "s").records, finished[1])


def _read_only(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("write", "create", "make", "move", "remove"):
        monkeypatch.setattr(LocalFiles, name, refuse)


def test_a_whole_sweep_needs_no_writing(store, finished, monkeypatch):
    _read_only(monkeypatch)
    _same(_run(store).records, finished[1])
    with pytest.raises(StoreError, match="cannot write to .*Read-only file system"):
        run_spec(power_spec(grid={**SMALL, "seeds": 7}), out=store, experiment=power)


def test_a_full_disk_has_its_own_exit_code(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalFiles, "write", full)
    with pytest.raises(StoreError, match="No space left on device") as error:
        run_spec(power_spec(grid={**SMALL, "seeds": 7}), out=store, experiment=power)
    assert error.value.exit_code == 5 and StoreError("another").exit_code == 2


def test_small_chunks_are_joined_and_nothing_changes(store, finished, monkeypatch):
    """Also in the eyes of a reader that has listed the folder before."""
    from tsjax.sweep import writer as module

    monkeypatch.setattr(module, "_MANY", 3)
    reader, names = open_store(store), LocalFiles.names
    tidied = []

    def tidy_in_between(self, folder):
        found = names(self, folder)
        if not tidied:
            tidied.append(len(found))
            StoreWriter(store).tidy()
        return found

    monkeypatch.setattr(LocalFiles, "names", tidy_in_between)
    seen = reader.read()
    assert tidied == [6] and sum(table.num_rows for table in seen.tables.values()) == 24 and not seen.damaged
    assert len(list((store / "chunks").iterdir())) == 1
    result = ts.load(store)
    _same(result.records, finished[1])
    assert result.coverage.whole and result.coverage.repeated == 0
    pd.testing.assert_series_equal(result.records["run_seconds"], finished[1]["run_seconds"])


def test_a_kill_while_chunks_are_joined_loses_nothing(store, finished, monkeypatch):
    from tsjax.sweep import writer as module

    monkeypatch.setattr(module, "_MANY", 3)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalFiles, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        StoreWriter(store).tidy()
    assert len(list((store / "chunks").iterdir())) == 7
    result = ts.load(store)
    _same(result.records, finished[1])
    assert result.coverage.repeated == 24
    monkeypatch.undo()


def test_a_long_sweep_has_few_files(tmp_path, monkeypatch):
    from tsjax.sweep import writer as module

    monkeypatch.setattr(module, "_MANY", 8)
    most = []

    def listener(plan, stream):
        for done in stream:
            most.append(len(list((tmp_path / "s" / "chunks").glob("*.parquet"))))
            yield done

    run_spec(power_spec(grid={**SMALL, "seeds": 24}), out=tmp_path / "s", experiment=power, chunk=2, commit_seconds=0.0,
             listener=listener)  # fmt: skip
    assert len(most) == 48 and max(most) <= 2 * 8 and len(list((tmp_path / "s" / "chunks").iterdir())) <= 8


def test_cells_in_two_files_are_never_joined_into_one(store, finished, monkeypatch):
    """After a kill while files were joined the copies go; what two processes ran stays apart, and counts once."""
    from tsjax.sweep import writer as module

    monkeypatch.setattr(module, "_MANY", 3)
    remove = LocalFiles.remove
    monkeypatch.setattr(LocalFiles, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        StoreWriter(store).tidy()
    monkeypatch.setattr(LocalFiles, "remove", remove)
    StoreWriter(store).tidy()
    assert sum(len(pd.read_parquet(path)) for path in (store / "chunks").iterdir()) == 24
    _same(ts.load(store).records, finished[1])
    # The same cells once more, as another process would have run them.
    other = store.parent / "other"
    _run(other)
    for path in (other / "chunks").iterdir():
        shutil.copy(path, store / "chunks")
    for _ in range(2):
        StoreWriter(store).tidy()
        result = ts.load(store)
        _same(result.records, finished[1])
        assert result.coverage.repeated == 24 and result.coverage.whole
        assert all(not pd.read_parquet(path)["cell"].duplicated().any() for path in (store / "chunks").iterdir())


@ts.experiment(static=("n",))
def gaps(key, *, n: int):
    """NaN for some seeds, as of a student that failed."""
    draw = jax.random.uniform(key)
    return {"risk": jnp.where(draw < 0.5, jnp.nan, draw) / n}


def test_copies_with_missing_values_go_too(tmp_path, monkeypatch):
    """After a kill while files were joined, where records hold NaN."""
    from tsjax.sweep import writer as module

    records = ts.sweep(gaps, out=tmp_path / "s", n=[1, 2], seeds=6, chunk=2, commit_seconds=0.0).records
    assert 0 < records["risk"].isna().sum() < 12
    monkeypatch.setattr(module, "_MANY", 3)
    with monkeypatch.context() as stopped:
        stopped.setattr(LocalFiles, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            StoreWriter(tmp_path / "s").tidy()
    assert ts.load(tmp_path / "s").coverage.repeated == 12
    StoreWriter(tmp_path / "s").tidy()
    assert ts.load(tmp_path / "s").coverage.repeated == 0 and ts.load(tmp_path / "s").coverage.whole


@pytest.mark.parametrize("damage", [{"combinations": 10**12}, {"seeds": {"values": [[[0, 10**12], [10**12, 1]]]}}])
def test_a_plan_by_hand_is_refused_before_it_is_built(store, damage):
    content = json.loads((store / "sweep.json").read_text())
    content["plan"] |= damage
    (store / "sweep.json").write_text(json.dumps(sealed(content)))
    with pytest.raises(StoreError, match="at most .* cells|ends before it begins"):
        ts.load(store)


@pytest.mark.usefixtures("blank_figures")
def test_a_damaged_description_heals_beside_a_report(store, finished):
    ts.load(store).report()
    (store / "sweep.json").write_text("")
    assert _run(store).coverage.whole
    _same(ts.load(store).records, finished[1])
    # What is no store is left alone.
    (store / "sweep.json").write_text("")
    (store / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="sweep.json cannot be read"):
        _run(store)
    assert (store / "sweep.json").is_file()


def test_files_that_cannot_be_read_are_named(store):
    huge = store / "chunks" / f"{'4' * 64}.parquet"
    with open(huge, "wb") as file:
        file.truncate(4 * 2**40)
    assert ts.load(store).coverage.damaged == (huge.name,)


def test_a_smaller_plan_is_not_whole(store):
    (store / "chunks" / sorted(os.listdir(store / "chunks"))[0]).unlink()
    result = run_spec(power_spec(grid={**SMALL, "seeds": 2}), out=store, experiment=power)
    assert result.coverage.done == result.coverage.cells == 8 and not result.coverage.whole
    assert "are not in the plan of the latest run" in result.coverage.notes[0]
    assert sweep_status(store)["beyond_plan"] == result.coverage.beyond > 0
