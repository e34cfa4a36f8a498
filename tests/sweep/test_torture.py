"""Kills, full disks and company: the records are always those of an undisturbed run, none lost, none doubled."""

import multiprocessing
import os
import random
import signal
import subprocess
import time

import pandas as pd
import pytest
from helpers import SEED
from sweep.torture import OPTIONS, SPEC, run_until_killed
from sweep.toys import power, stored

import tsjax as ts
from tsjax.sweep.run import run_spec
from tsjax.sweep.store import StoreError, open_store

KILLS = 200
METRICS = ["cell", "method", "n", "seed", "status", "risk", "limit", "done", "draw"]


@pytest.fixture(scope="module")
def processes():
    """New processes that have imported everything already, and have no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweep.torture", "tsjax.sweep.result"])
    return context


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    return run_spec(SPEC, experiment=power).records


def _assert_whole(out, whole):
    result = run_spec(SPEC, out=out, **OPTIONS)
    pd.testing.assert_frame_equal(result.records[METRICS], whole[METRICS], check_exact=True)
    assert stored(out)["cell"].nunique() == len(whole)


@pytest.mark.slow
def test_two_hundred_kills(tmp_path, processes, whole):
    rng, out = random.Random(SEED), tmp_path / "s"
    exits: dict[int, int] = {}
    for kill in range(KILLS):
        at_rename = rng.randint(1, 8) if kill % 5 == 0 else 0
        ready = processes.Event()
        child = processes.Process(target=run_until_killed, args=(out, kill, at_rename, ready))
        child.start()
        assert ready.wait(300), "a child did not start"
        if not at_rename:
            time.sleep(rng.expovariate(20.0))
            os.kill(child.pid, rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        child.join(180)
        assert child.exitcode is not None, "a child did not end"
        exits[child.exitcode] = exits.get(child.exitcode, 0) + 1
        if kill % 20 == 0:
            assert not open_store(out).read().damaged and not stored(out)["cell"].duplicated().any()
    # Ended outright, by a signal that came before the sweep listened for it, or by an Interrupted (1 is what multiprocessing
    # makes of an exception); never by the end of the sweep.
    assert exits[-signal.SIGKILL] > KILLS // 4 and set(exits) <= {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 1}
    assert 0 < len(stored(out)) < len(whole)
    _assert_whole(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_on_one_store(tmp_path, processes, whole, count):
    out = tmp_path / "s"
    children = []
    for i in range(count):
        ready = processes.Event()
        child = processes.Process(target=run_until_killed, args=(out, i, 0, ready))
        child.start()
        children.append((child, ready))
    # One is killed on the way.
    assert children[0][1].wait(300)
    time.sleep(0.3)
    children[0][0].kill()
    for child, _ in children:
        child.join(600)
    assert [child.exitcode for child, _ in children][1:] == [0] * (count - 1)
    _assert_whole(out, whole)
    result = ts.load(out, power)
    pd.testing.assert_frame_equal(result.records[METRICS], whole[METRICS], check_exact=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system needs privileges that this user lacks")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk(small_disk, tmp_path, whole):
    out = small_disk / "s"
    with pytest.raises(StoreError, match="No space left on device. Finished chunks are safe"):
        run_spec(SPEC, out=out, **OPTIONS)
    assert 0 < len(stored(out)) < len(whole) and not open_store(out).read().damaged
    assert not list((out / "chunks").glob(".*")), "half a file was left"
    # With room again, it goes on.
    done = len(stored(out))
    bigger = tmp_path / "s"
    subprocess.run(["cp", "-r", str(out), str(bigger)], check=True)
    counted = []

    def listener(plan, stream):
        for event in stream:
            counted.append(event.cells if event.resumed else 0)
            yield event

    run_spec(SPEC, out=bigger, listener=listener, **OPTIONS)
    assert sum(counted) == done
    _assert_whole(bigger, whole)
