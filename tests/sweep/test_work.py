"""Several processes on one store: who is killed or slow costs no cell, and no cell is there twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweep.toys import power, power_spec, stored

import tsjax as ts
from tsjax.sweep.leases import FOLDER, this_machine
from tsjax.sweep.plan import make_plan
from tsjax.sweep.run import run_spec
from tsjax.sweep.store import open_store
from tsjax.sweep.work import Work
from tsjax.sweep.writer import StoreWriter

TESTS = Path(__file__).parents[1]
METRICS = ["cell", "method", "n", "seed", "status", "risk", "limit", "done", "draw"]

# A cell takes a moment, so that a signal finds a process in the middle of its work; `hold` makes one that never ends. While a
# file hold-PID or hold-PID-N exists, no cell of that process (of that n) ends.
BOX = """
import os, sys, time
import tsjax as ts

@ts.black_box
def slow(seed: int, *, n: int, folder: str):
    open(os.path.join(folder, f"{n}-{seed}-{os.getppid()}"), "w").close()
    hold, end = os.path.join(folder, f"hold-{os.getppid()}"), time.monotonic() + 600
    forever = (n, seed) == (4, 1) and sys.argv[-1:] == ["hold"]
    while (forever or os.path.exists(hold) or os.path.exists(f"{hold}-{n}")) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.02)
    return {"risk": (1.0 + seed) / n}
"""
RUN = """
import sys
import tsjax as ts
from slow_box import slow
out, folder, lease = sys.argv[1:4]
engine = ts.engines.BlackBox(processes=2, chunk=4, commit_seconds=0.1, lease_seconds=float(lease))
print(len(ts.sweep(slow, out=out, folder=folder, n=[2, 4, 8], seeds=8, engine=engine).records))
"""


_started: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def no_process_is_left():
    """Nor a pipe of one, for which pytest would blame a later test."""
    yield
    while _started:
        process = _started.pop()
        process.kill()
        if process.stdout and not process.stdout.closed:
            process.communicate()


def _popen(command, **options):
    _started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options))
    return _started[-1]


def _start(tmp_path, lease, out="s"):
    (tmp_path / "slow_box.py").write_text(BOX)
    (tmp_path / "ran").mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-c", RUN, str(tmp_path / out), str(tmp_path / "ran"), str(lease)]
    return _popen(command, env=environment)


def _wait_for(condition, process, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def _ran(tmp_path, process):
    """The cells that a process has begun."""
    names = [path.name.rsplit("-", 1) for path in (tmp_path / "ran").glob(f"*-*-{process.pid}")]
    return {cell for cell, _ in names}


def _assert_each_once(tmp_path, out="s"):
    records = stored(tmp_path / out)
    assert not records["cell"].duplicated().any() and len(records) == 24
    np.testing.assert_array_equal(records["risk"], (1.0 + records["seed"]) / records["n"])
    assert ts.load(tmp_path / out).coverage.repeated == 0


@pytest.mark.slow
def test_a_chunk_of_a_killed_process_is_taken_over(tmp_path):
    """SIGKILL in the middle of a chunk: the process that is left runs it, without waiting for a lease, and nobody is asked."""
    first = _start(tmp_path, 60.0)
    (tmp_path / "ran" / f"hold-{first.pid}").touch()
    _wait_for(lambda: len(_ran(tmp_path, first)) >= 2, first)
    second = _start(tmp_path, 60.0)
    # It has done all that is not held, and waits.
    _wait_for(lambda: len(_ran(tmp_path, second)) >= 18, second)
    time.sleep(1.0)
    held = _ran(tmp_path, first)
    assert second.poll() is None and not held & _ran(tmp_path, second)
    first.kill()
    first.communicate()
    start = time.monotonic()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0 and out.strip() == "24", err[-3000:]
    assert held <= _ran(tmp_path, second)
    if this_machine():
        assert time.monotonic() - start < 30
    _assert_each_once(tmp_path)
    assert not (tmp_path / "s" / FOLDER).exists()


@pytest.mark.slow
def test_a_process_that_was_only_slow_writes_nothing_twice(tmp_path):
    """SIGSTOP for longer than a lease, with a chunk held; then it goes on."""
    first = _start(tmp_path, 2.0)
    hold = tmp_path / "ran" / f"hold-{first.pid}-8"
    hold.touch()
    held = lambda: {cell for cell in _ran(tmp_path, first) if cell.startswith("8-")}
    _wait_for(lambda: held() and list((tmp_path / "s" / "chunks").glob("*.parquet")), first)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        before = held()
        second = _start(tmp_path, 2.0)
        out, err = second.communicate(timeout=120)
        assert second.returncode == 0 and out.strip() == "24", err[-3000:]
        # It took over something that the first had begun and not committed.
        assert before <= _ran(tmp_path, second)
        records = stored(tmp_path / "s")
    finally:
        hold.unlink()
        os.kill(first.pid, signal.SIGCONT)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0 and out.strip() == "24", err[-3000:]
    _assert_each_once(tmp_path)
    pd.testing.assert_frame_equal(stored(tmp_path / "s").sort_values("cell"), records.sort_values("cell"))


JAX = """
import sys, time
import tsjax as ts
from sweep.toys import power, power_spec
from tsjax.sweep.run import run_spec

def slowly(plan, stream):
    for done in stream:
        yield done
        time.sleep(0.05)

engine = ts.engines.Local(chunk=4, commit_seconds=0.0)
run_spec(power_spec(), experiment=power, out=sys.argv[1], engine=engine, listener=slowly)
"""


@pytest.mark.slow
def test_killed_processes_on_devices(tmp_path):
    whole = run_spec(power_spec(), experiment=power, chunk=4).records
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "JAX_PLATFORMS": "cpu"}
    start = lambda: _popen([sys.executable, "-c", JAX, str(tmp_path / "s")], env=environment)
    chunks = lambda: len(list((tmp_path / "s" / "chunks").glob("*.parquet")))
    for kill in range(3):
        one, two = start(), start()
        _wait_for(lambda: chunks() > 1, one)
        one.kill()
        _, err = two.communicate(timeout=300)
        one.communicate()
        assert two.returncode == 0, err[-3000:]
        records = stored(tmp_path / "s")
        assert not records["cell"].duplicated().any() and len(records) == len(whole)
        if kill == 0:
            result = run_spec(power_spec(), experiment=power, out=tmp_path / "s")
            pd.testing.assert_frame_equal(result.records[METRICS], whole[METRICS], rtol=1e-12)
        # Again, from the start.
        for path in (tmp_path / "s" / "chunks").iterdir():
            path.unlink()


@pytest.fixture
def shared(tmp_path):
    """A plan, and a way to join its store as one more process would."""
    run_spec(power_spec(grid={"n": 16, "method": "fast", "seeds": 1}), experiment=power, out=tmp_path / "s")
    plan = make_plan(power_spec(), power)
    made = []

    def join(lease_seconds=60.0):
        writer = StoreWriter(tmp_path / "s")
        writer.join(plan, next(iter(open_store(tmp_path / "s").read().manifests.values())))
        work = Work(plan, writer, lease_seconds)
        made.append(work)
        if work._leases is not None:
            work._leases.look_seconds = 0.0
        return work

    yield plan, join
    for work in made:
        work.close()


def _records(cells):
    rows = [
        {"cell": cell.id, **cell.arguments, "seed": cell.seed, "status": 0, "risk": 1.0 / cell.arguments["n"]}
        for cell in cells
    ]
    return pd.DataFrame(rows).assign(compile_seconds=0.0, run_seconds=0.0, device="cpu", jax="0", tsjax="0")


@pytest.mark.parametrize("sizes", [(5, 8), (64, 1), (7, 7)])
def test_pieces_of_any_size_are_shared_out(shared, sizes):
    """Two that take turns, with other sizes of chunks: each cell is run once, and none is left."""
    plan, join = shared
    works = [join(), join()]
    pieces, ran = [work.pieces(size) for work, size in zip(works, sizes, strict=True)], []
    while any(piece is not None for piece in pieces):
        for i, work in enumerate(works):
            found = None if pieces[i] is None else next(pieces[i], None)
            if found is None:
                pieces[i] = None
                continue
            assert 0 < len(found[1]) <= sizes[i]
            ran += [cell.id for cell in found[1]]
            assert len(work.commit(_records(found[1]))) == len(found[1])
    assert len(ran) == len(set(ran)) == plan.cells - 1
    for work in works:
        work.refresh()
        assert work.finished


def test_a_store_that_is_complete_needs_no_lease(shared, tmp_path):
    plan, join = shared
    work = join()
    for _, cells in work.pieces(64):
        work.commit(_records(cells))
    work.close()
    assert not (tmp_path / "s" / FOLDER).exists()
    assert join()._leases is None and sum(done.cells for done in join().news()) == plan.cells


def test_records_of_a_worker_that_lost_its_cells_are_dropped(shared):
    plan, join = shared
    one, two = join(), join()
    group, cells = next(one.pieces(4))
    # Another worker closed it, and took its cells.
    leases = one._leases
    leases._create(f"w-{leases.id}.{leases._entry + 1}", {"closed": two._leases.id})
    two._look()
    taken = [(g, c) for g, c in two.pieces(64)]
    assert {cell.id for cell in cells} <= {cell.id for _, part in taken for cell in part}
    assert len(one.commit(_records(cells))) == 0 and not one.finished
    for _, part in taken:
        two.commit(_records(part))
    one.refresh()
    assert one.finished and sum(done.cells for done in one.news()) == plan.cells


def test_a_worker_that_comes_back_when_all_is_done_runs_nothing(shared, tmp_path):
    """Also where the files that tell who did it are gone."""
    plan, join = shared
    one, two = join(), join()
    _, cells = next(one.pieces(4))
    slow, leases = one._leases, two._leases
    leases.look(now=True)
    leases._close_other(slow.id, leases._workers[slow.id])
    for _, part in two.pieces(64):
        two.commit(_records(part))
    two.refresh()
    assert two.finished
    two.close()
    assert not [name for name in leases.files.names(FOLDER) if name.startswith("u-")]
    assert len(one.commit(_records(cells))) == 0
    assert list(one.pieces(64)) == [] and one.finished
    assert not stored(tmp_path / "s")["cell"].duplicated().any()


def test_a_worker_that_comes_just_too_late_runs_nothing(shared, monkeypatch):
    """It lists the chunks, then the sweep is completed and tidied away, then it registers."""
    plan, join = shared
    done = StoreWriter.done

    def late(self):
        found = done(self)
        monkeypatch.undo()
        work = join()
        for _, part in work.pieces(64):
            work.commit(_records(part))
        work.close()
        return found

    monkeypatch.setattr(StoreWriter, "done", late)
    assert list(join().pieces(64)) == []


def test_without_a_store_everything_is_ones_own():
    plan = make_plan(power_spec(), power)
    work = Work(plan, None)
    cells = [cell.id for _, part in work.pieces(10) for cell in part]
    assert sorted(cells) == sorted(plan.ids) and not work.finished
    work.commit(_records([cell for group in plan.groups for cell in group.cells]))
    assert work.finished
