"""Leases on the files alone: who may run what, and who may commit, in any order of events, however slow a worker is."""

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest
from helpers import SEED

from tsjax.sweep import leases as module
from tsjax.sweep.files import LocalFiles, files_at
from tsjax.sweep.leases import FOLDER, Leases, started, this_machine

CHUNK = "0" * 63


@pytest.fixture
def files(tmp_path):
    files = LocalFiles(tmp_path / "s")
    files.make()
    return files


@pytest.fixture
def worker(files):
    """Makes workers; each looks at every call, and none is known to be a process of this machine unless `here`."""
    made = []

    def make(lease_seconds=60.0, here=False, files=files):
        one = Leases(files, lease_seconds)
        one.look_seconds = 0.0
        if not here:
            name = f"{FOLDER}/w-{one.id}.0"
            files.write(name, json.dumps({**json.loads(files.read(name)), "machine": "another"}).encode())
        made.append(one)
        return one

    yield make
    for one in made:
        one._stop.set()


def _silence(one):
    """As a process that is stopped: no heartbeats."""
    one._stop.set()
    one._heart.join()


def _chunks(files):
    return [name for name in files.names("chunks") if name.endswith(".parquet")]


def test_a_unit_has_one_holder(worker):
    one, two = worker(), worker()
    assert one.take("a") == (True, False) and one.take("a") == (True, False)
    two.look()
    assert not two.is_free("a") and two.take("a") == (False, False) and two.take("b") == (True, False)
    # What it did not see in time, it finds when it takes it.
    assert one.is_free("b") and one.take("b") == (False, False)


def test_many_threads_take_each_unit_once(worker):
    workers, units = [worker() for _ in range(6)], [f"{i:02d}" for i in range(40)]

    def grab(one, seed):
        for unit in random.Random(seed).sample(units, len(units)):
            one.take(unit)

    threads = [threading.Thread(target=grab, args=(one, SEED + i)) for i, one in enumerate(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(unit for one in workers for unit in one.held) == units


def test_what_is_given_back_is_free(worker):
    one, two = worker(), worker()
    one.take("a")
    one.close()
    two.look()
    assert two.is_free("a") and two.take("a") == (True, True)


def test_a_dead_worker_is_known_by_its_silence_not_by_a_clock(worker, monkeypatch):
    """The clock of the other machine may say anything: only changes count, and only time of one's own."""
    one, two = worker(), worker(lease_seconds=60.0)
    one.take("a")
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    two.look()
    for _ in range(10):
        now[0] += 50.0
        one.files.write(f"{FOLDER}/w-{one.id}.alive", os.urandom(4))
        two.look()
        assert not two.is_free("a")
    _silence(one)
    now[0] += 61.0
    two.look()
    assert two.is_free("a") and two.take("a") == (True, True)


def test_long_intervals_of_a_heart_are_waited_for(worker, monkeypatch):
    one, two = worker(lease_seconds=400.0), worker(lease_seconds=1.0)
    name = f"{FOLDER}/w-{one.id}.0"
    one.files.write(name, json.dumps({"beat": 100.0}).encode())
    one.take("a")
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    two.look()
    for now[0], free in ((399.0, False), (401.0, True)):
        two.look()
        assert two.is_free("a") == free


def _dead_to(one, two):
    """Makes `two` take `one` for dead."""
    two.look(now=True)
    two._workers[one.id].since = -1e9
    two.lease_seconds = 1e-9
    two._workers[one.id].opening["beat"] = 0.0
    two.look(now=True)


def test_a_worker_that_was_only_slow_commits_nothing(worker, files):
    one, two = worker(), worker()
    one.take("a")
    assert one.commit(f"{CHUNK}1.parquet", b"first")
    _silence(one)
    _dead_to(one, two)
    assert two.take("a") == (True, True)
    former = one.id
    assert not one.commit(f"{CHUNK}2.parquet", b"late")
    # It goes on as another one, which holds nothing.
    assert one.id != former and not one.held and one.commit(f"{CHUNK}3.parquet", b"anew")
    assert two.commit(f"{CHUNK}4.parquet", b"instead")
    assert [name[63] for name in _chunks(files)] == ["1", "3", "4"]
    assert not [name for name in files.names(FOLDER) if name.endswith(".parquet")]


@pytest.mark.parametrize("stage", ["staged", "announced"])
def test_a_chunk_on_its_way_is_there_or_was_never_announced(worker, files, monkeypatch, stage):
    """Killed between two steps: after the chunk was written, or after it was announced and before it was moved."""
    one, two = worker(), worker()
    one.take("a")

    def killed(*_, **__):
        raise SystemExit

    monkeypatch.setattr(
        one, "_create" if stage == "staged" else "files", killed if stage == "staged" else _Broken(files)
    )
    with pytest.raises(SystemExit):
        one.commit(f"{CHUNK}1.parquet", b"chunk")
    monkeypatch.undo()
    assert _chunks(files) == []
    _silence(one)
    _dead_to(one, two)
    assert two.take("a") == (True, True)
    assert len(_chunks(files)) == (stage == "announced")
    assert not one.commit(f"{CHUNK}1.parquet", b"chunk")


class _Broken:
    """Files whose owner is killed when it renames one."""

    def __init__(self, files):
        self._files = files

    def rename(self, *_):
        raise SystemExit

    def __getattr__(self, name):
        return getattr(self._files, name)


def test_closing_by_an_old_list_closes_nothing(worker, files, monkeypatch):
    """As where a file system shows a folder as it was: the worker has committed more than the list says."""
    one, two = worker(), worker()
    one.take("a")
    for i in range(4):
        assert one.commit(f"{CHUNK}{i}.parquet", b"%d" % i)
    entries, calls = two._entries, []

    def old(name):
        calls.append(name)
        return [0, 1, 2] if len(calls) == 1 else entries(name)

    monkeypatch.setattr(two, "_entries", old)
    two.files.write(f"{FOLDER}/w-{one.id}.2", json.dumps({"chunk": f"{CHUNK}1.parquet"}).encode())
    _dead_to(one, two)
    assert len(calls) == 2 and two._workers[one.id].closed is None and not two.is_free("a")
    assert one.commit(f"{CHUNK}9.parquet", b"goes on")


@pytest.mark.parametrize("trial", range(4))
def test_any_order_of_events_commits_each_unit_once(files, trial):
    """Three workers that are taken for dead and go on, at random: of no unit there are two commits, and most have one."""
    rng = random.Random(SEED + trial)
    workers = [Leases(files, 60.0) for _ in range(3)]
    units = [f"{i}" for i in range(6)]
    waiting: list[list[str]] = [[], [], []]
    closed = 0

    def done():
        return [files.read(f"chunks/{name}").decode() for name in _chunks(files)]

    for one in workers:
        one._is_gone = lambda worker, seen: False
    for step in range(150):
        i = rng.randrange(3)
        one, event = workers[i], rng.choice(["take", "take", "commit", "dead"])
        if event == "take":
            unit = rng.choice(units)
            one.look(now=True)
            if unit not in done() and unit not in waiting[i] and one.is_free(unit):
                holds, _ = one.take(unit)
                # As `Work` does: of what was held before, some may be done.
                if holds and unit not in done():
                    waiting[i].append(unit)
        elif event == "commit" and waiting[i]:
            unit = waiting[i].pop(0)
            if unit in one.held:
                one.commit(f"{step:064x}.parquet", unit.encode())
        elif event == "dead" and workers[i - 1].id in one._workers:
            _dead_to(workers[i - 1], one)
            one.lease_seconds, closed = 60.0, closed + 1
    assert closed > 5 and len(done()) > 3 and len(done()) == len(set(done()))
    for one in workers:
        one.close()


def test_a_process_of_this_machine_that_ended_is_dead_at_once(worker, files):
    if not this_machine():
        pytest.skip("this system does not name its machine")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    alive = started(ended.pid)
    one, two = worker(here=True), worker(here=True)
    one.take("a")
    name = f"{FOLDER}/w-{one.id}.0"
    opening = json.loads(files.read(name))
    assert opening["process"] == os.getpid() and opening["started"] == started(os.getpid())
    two.look()
    assert not two.is_free("a")
    files.write(name, json.dumps({**opening, "process": ended.pid, "started": alive}).encode())
    ended.wait()
    two._workers.clear()
    two.look()
    assert two.is_free("a")
    # Another process may have got the number since.
    files.write(name, json.dumps({**opening, "started": "1"}).encode())
    three = worker(here=True)
    three.look()
    assert three.is_free("a")


def test_the_folder_goes_when_all_is_done(worker, files):
    one, two, three = worker(), worker(), worker()
    one.take("a")
    two.take("b")
    one.close(["a", "b"])
    # Somebody else is at work.
    assert files.names(FOLDER)
    _silence(three)
    _dead_to(three, two)
    two.close(["a", "b"])
    # A worker that was taken for dead must find that it was closed; with everyone else, the folder is gone.
    assert [name.split(".")[0] for name in files.names(FOLDER)].count(f"w-{three.id}") >= 1
    assert not three.commit(f"{CHUNK}1.parquet", b"late") and _chunks(files) == []
    three.look(now=True)
    three.close(["a", "b"])


def test_two_that_end_together_leave_nothing(worker, files):
    """What one has removed already, the other takes for gone."""
    one, two = worker(), worker()
    one.take("a")
    two.take("b")
    ready = threading.Barrier(2)

    def end(leases):
        ready.wait()
        leases.close(["a", "b"])

    threads = [threading.Thread(target=end, args=(leases,)) for leases in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not (files.root / FOLDER).exists()


def test_the_folder_of_one_worker_goes(worker, files):
    one = worker()
    one.take("a")
    one.commit(f"{CHUNK}1.parquet", b"chunk")
    one.close(["a"])
    assert not (files.root / FOLDER).exists() and len(_chunks(files)) == 1


def test_leases_in_an_object_store(worker):
    fsspec = pytest.importorskip("fsspec")
    files = files_at(f"memory://leases-{time.monotonic_ns()}")
    one, two = worker(files=files), worker(files=files)
    assert fsspec and one.take("a") == (True, False) and two.take("a") == (False, False)
    assert one.commit(f"{CHUNK}1.parquet", b"first")
    _silence(one)
    _dead_to(one, two)
    assert two.take("a") == (True, True) and not one.commit(f"{CHUNK}2.parquet", b"late")
    assert files.names("chunks") == [f"{CHUNK}1.parquet"]


def test_a_link_whose_answer_got_lost_is_ours(files, monkeypatch):
    """Over NFS: the link was made, the answer lost, and the question asked again says that it is there."""
    link = os.link

    def lost(source, target):
        link(source, target)
        raise FileExistsError

    files.make_folder(FOLDER)
    monkeypatch.setattr(os, "link", lost)
    assert files.create(f"{FOLDER}/u-a.0", b"mine")
    monkeypatch.undo()
    assert not files.create(f"{FOLDER}/u-a.0", b"yours") and files.read(f"{FOLDER}/u-a.0") == b"mine"


def test_a_worker_that_could_not_say_that_it_ended_is_no_more(tmp_path, files):
    """A store that is moved while a sweep runs, and begun again in the same process: no lease is waited for."""
    first = Leases(files)
    assert first.take("u") == (True, False)
    (tmp_path / "s").rename(tmp_path / "moved")
    with contextlib.suppress(OSError):
        first.close()
    second = Leases(LocalFiles(tmp_path / "moved"))
    second.look(now=True)
    assert not second.others and second.take("u")[0]
    second.close()
