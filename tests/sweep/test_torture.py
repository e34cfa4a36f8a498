"""Kills, full disks and company: the records are always those of an undisturbed run, none lost, none doubled."""

import math
import multiprocessing
import os
import random
import signal
import subprocess
import time

import pandas as pd
import pytest
from helpers import SEED
from sweep.torture import OPTIONS, SHORT, SPEC, run_until_killed, try_bad_inputs
from sweep.toys import power, power_spec, stored

import tsjax as ts
from tsjax.sweep.run import run_spec
from tsjax.sweep.store import StoreError, open_store

KILLS = 40
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


def _assert_whole(out, whole, spec=SPEC):
    result = run_spec(spec, out=out, **OPTIONS)
    pd.testing.assert_frame_equal(result.records[METRICS], whole[METRICS], check_exact=True)
    assert stored(out)["cell"].nunique() == len(whole)


@pytest.mark.slow
def test_forty_kills(tmp_path, processes, whole, capsys):
    rng, out = random.Random(SEED), tmp_path / "s"
    exits: dict[int, int] = {}
    for kill in range(KILLS):
        at_rename = rng.randint(1, 8) if kill % 5 == 0 else 0
        ready = processes.Event()
        child = processes.Process(target=run_until_killed, args=(out, kill, at_rename, ready))
        child.start()
        deadline = time.monotonic() + 300
        while not ready.wait(1):
            assert child.is_alive(), (
                f"kill {kill}: a child ended before, with {child.exitcode}: the work should outlast kills"
            )
            assert time.monotonic() < deadline, "a child did not start"
        if not at_rename:
            time.sleep(rng.expovariate(20.0))
            os.kill(child.pid, rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        child.join(180)
        assert child.exitcode, f"kill {kill}: the child did not end, or at the end of the sweep"
        exits[child.exitcode] = exits.get(child.exitcode, 0) + 1
        if kill % 10 == 0:
            assert not open_store(out).read().damaged and not stored(out)["cell"].duplicated().any()
    # Ended outright, by a signal that came before the sweep listened for it, or by an Interrupted (1 is what multiprocessing
    # makes of an exception); never by the end of the sweep.
    assert exits[-signal.SIGKILL] > KILLS // 4 and set(exits) <= {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 1}
    assert 0 < len(stored(out)) < len(whole)
    _assert_whole(out, whole)
    with capsys.disabled():
        print(f"\n{KILLS} runs ended before their time, by exit code: {exits}; then {len(whole)} records, bit for bit")


FLIPS = 1000


@pytest.mark.slow
def test_a_thousand_flipped_bits(tmp_path, capsys):
    """Wherever a bit of a store flips, what is read is what was written, or the damage is named."""
    out = tmp_path / "s"
    spec = power_spec(grid={"n": [16, 32], "method": ["fast", "slow"], "seeds": 6})
    expected = run_spec(spec, experiment=power, out=out, chunk=4, commit_seconds=0.0).records.set_index("cell")
    rng, counts = random.Random(SEED), {"named": 0, "refused": 0}
    paths = [out / "sweep.json", *sorted((out / "chunks").iterdir())]
    for _ in range(FLIPS):
        path = rng.choice(paths)
        content = path.read_bytes()
        spoilt = bytearray(content)
        at = rng.randrange(8 * len(spoilt))
        spoilt[at // 8] ^= 1 << at % 8
        path.write_bytes(spoilt)
        try:
            result = ts.load(out)
        except StoreError:
            counts["refused"] += 1
            assert path.name == "sweep.json"
        else:
            assert result.coverage.damaged == (path.name,) and not result.coverage.whole
            records = result.records.set_index("cell")
            pd.testing.assert_frame_equal(records, expected.loc[records.index], check_exact=True)
            counts["named"] += 1
        path.write_bytes(content)
    assert sum(counts.values()) == FLIPS and min(counts.values()) > 100
    assert ts.load(out).coverage.whole
    with capsys.disabled():
        said = f"{counts['named']} chunks named as damaged, {counts['refused']} descriptions refused"
        print(f"\n{FLIPS} flipped bits: {said}, none silent")


@pytest.mark.slow
def test_two_hundred_bad_inputs(tmp_path, processes, capsys):
    """From Python: one line that says what is wrong, before anything is compiled, and nothing left on the disk."""
    answers = processes.Queue()
    # In a process of its own, where no type checker of the tests comes first.
    child = processes.Process(target=try_bad_inputs, args=(tmp_path / "s", SEED, 200, answers))
    child.start()
    found = [answers.get(timeout=60) for _ in range(200)]
    child.join(60)
    errors: dict[str, int] = {}
    for arguments, name, message, left in found:
        assert name in ("SpecError", "AxisError", "OptionError", "ValueError", "AbsentError"), (
            arguments,
            name,
            message,
        )
        assert "\n" not in message and len(message) > 15 and not left, (arguments, message)
        errors[name] = errors.get(name, 0) + 1
    with capsys.disabled():
        print(f"\n200 bad inputs, all refused with one line before anything was compiled: {errors}")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_on_one_store(tmp_path, processes, count):
    out, whole = tmp_path / "s", run_spec(SHORT, experiment=power).records
    children = []
    for i in range(count):
        ready = processes.Event()
        child = processes.Process(target=run_until_killed, args=(out, i, 0, ready, SHORT, math.inf))
        child.start()
        children.append((child, ready))
    # One is killed on the way.
    assert children[0][1].wait(300)
    time.sleep(0.3)
    children[0][0].kill()
    for child, _ in children:
        child.join(600)
    assert [child.exitcode for child, _ in children][1:] == [0] * (count - 1)
    _assert_whole(out, whole, SHORT)
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
def test_a_full_disk(small_disk, tmp_path):
    out, whole = small_disk / "s", run_spec(SHORT, experiment=power).records
    with pytest.raises(StoreError, match="No space left on device. Finished chunks are safe"):
        run_spec(SHORT, out=out, **OPTIONS)
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

    run_spec(SHORT, out=bigger, listener=listener, **OPTIONS)
    assert sum(counted) == done
    _assert_whole(bigger, whole, SHORT)
