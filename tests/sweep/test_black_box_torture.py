"""Kills of workers and of whole runs of a black box: the records are those of an undisturbed run."""

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

TESTS = Path(__file__).parents[1]
GRID = {"learner": ["forest", "gbt"], "n": [64, 128, 256, 512], "members": 20, "seeds": 96}
WORKERS, RUNS = 8, 5
SCRIPT = f"""
import sys
import tsjax as ts
from sweep.boxes import trees
ts.sweep(trees, out=sys.argv[1], workers={WORKERS}, commit_seconds=0.2, **{GRID!r})
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


@pytest.mark.slow
def test_eight_processes_killed_and_resumed(tmp_path, capsys):
    rng, out = random.Random(SEED), tmp_path / "s"
    whole = ts.sweep(trees, workers=WORKERS, **GRID).records
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    killed, orphans, cells = 0, set(), []
    for _ in range(RUNS):
        run = subprocess.Popen([sys.executable, "-c", SCRIPT, str(out)], env=environment, stderr=subprocess.DEVNULL)
        # Kills begin with the first commit: until then workers start.
        while run.poll() is None and _cells(out) == (cells or [0])[-1]:
            time.sleep(0.05)
        end = time.monotonic() + rng.uniform(0.5, 3.0)
        while run.poll() is None and time.monotonic() < end:
            time.sleep(rng.expovariate(2.0))
            for worker in rng.sample(_workers_of(run.pid), 1) if _workers_of(run.pid) else []:
                os.kill(worker, signal.SIGKILL)
                killed += 1
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
    result = ts.sweep(trees, out=out, workers=WORKERS, **GRID)
    columns = [name for name in whole if name not in ("pid", "run_seconds")]
    pd.testing.assert_frame_equal(result.records[columns], whole[columns], check_exact=True)
    assert not stored(out)["cell"].duplicated().any() and (result.records["status"] == 0).all()
    # Every run got on, and none came to the end.
    assert killed >= RUNS and all(a < b for a, b in zip([0, *cells], [*cells, len(whole)], strict=True))
    with capsys.disabled():
        print(
            f"\n{killed} workers and {RUNS} runs killed, cells done after each run {cells} of {len(whole)}; equal records"
        )


def _is_alive(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
