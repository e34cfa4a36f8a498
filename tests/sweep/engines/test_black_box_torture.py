"""Kills of workers and of whole runs of a black box: the records are those of an undisturbed run."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers import SEED
from sweep.boxes import trees
from sweep.toys import stored

import tsjax as ts
from tsjax.sweep.store import open_store

TESTS = Path(__file__).parents[2]
GRID = {"learner": ["forest", "gbt"], "n": [64, 128, 256, 512], "members": 20, "seeds": 48}
WORKERS, RUNS = 8, 3
# Of one run: a cell is given up when three workers have died of it.
KILLS = 2
SCRIPT = f"""
import sys
import tsjax as ts
from sweep.boxes import trees
ts.sweep(trees, out=sys.argv[1], engine=ts.engines.BlackBox(processes={WORKERS}, commit_seconds=0.2), **{GRID!r})
"""


def _workers_of(run: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == run:
            found.append(int(folder.name))
    return found


def _cells(out: Path) -> int:
    return len(set(stored(out)["cell"])) if list((out / "chunks").glob("*.parquet")) else 0


def _wait_for(run: subprocess.Popen, out: Path, cells: int) -> None:
    while _cells(out) < cells:
        assert run.poll() is None, "a run ended before its kill"
        time.sleep(0.02)


@pytest.mark.slow
def test_eight_processes_killed_and_resumed(tmp_path, capsys):
    rng, out = random.Random(SEED), tmp_path / "s"
    whole = ts.sweep(trees, engine=ts.engines.BlackBox(processes=WORKERS), **GRID).records
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    killed, orphans, cells = 0, set(), [0]
    for run_number in range(RUNS):
        if cells[-1] == len(whole):
            break
        run = subprocess.Popen([sys.executable, "-c", SCRIPT, str(out)], env=environment, stderr=subprocess.DEVNULL)
        # Cells, not seconds, say when a kill comes, so that machines of any speed get on and hardly one comes to the end: the
        # first one with the run's first commit, before which workers start, and the run's own when its share is done.
        end = cells[-1] + (len(whole) - cells[-1]) // (RUNS + 1 - run_number)
        for at in [cells[-1] + 1, *sorted(rng.randint(cells[-1] + 1, end) for _ in range(KILLS - 1))]:
            _wait_for(run, out, at)
            # A run that begins puts the chunk in place that a killed one had announced, before it has workers.
            while not (workers := _workers_of(run.pid)) and run.poll() is None:
                time.sleep(0.05)
            # On a fast machine the last run may be done by now.
            if workers:
                os.kill(rng.choice(workers), signal.SIGKILL)
                killed += 1
        _wait_for(run, out, end)
        orphans |= set(_workers_of(run.pid))
        run.kill()
        run.wait()
        cells.append(_cells(out))
        assert not open_store(out).read().damaged
    # Workers end with the run that started them.
    deadline = time.monotonic() + 20
    while any(_is_alive(worker) for worker in orphans):
        assert time.monotonic() < deadline, "workers outlive their run"
        time.sleep(0.1)
    result = ts.sweep(trees, out=out, engine=ts.engines.BlackBox(processes=WORKERS), **GRID)
    columns = [name for name in whole if name not in ("pid", "run_seconds")]
    pd.testing.assert_frame_equal(result.records[columns], whole[columns], check_exact=True)
    assert not stored(out)["cell"].duplicated().any() and (result.records["status"] == 0).all()
    # No run lost what another had done, and there was work to resume.
    assert killed >= KILLS and all(a <= b for a, b in itertools.pairwise(cells))
    assert 0 < cells[1] < len(whole)
    with capsys.disabled():
        print(
            f"\n{killed} workers and {len(cells) - 1} runs killed, cells done after each run {cells[1:]} of {len(whole)}; "
            "equal records"
        )


def _is_alive(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
