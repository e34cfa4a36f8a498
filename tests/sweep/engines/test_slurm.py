"""Slurm: the script of a job array, run by shells as Slurm would, and jobs of submitit as processes of this machine."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from sweep.boxes import troubled
from sweep.engines.test_local import uneven
from sweep.toys import power, power_spec, stored

import tsjax as ts
from tsjax.sweep.engines.slurm import shared_chunk
from tsjax.sweep.faults import GroupError
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import SpecError

TESTS = Path(__file__).parents[2]
METRICS = ["cell", "method", "n", "seed", "status", "risk", "limit", "done", "draw"]
TOY = """
study = "sweep.toys:power"
[grid]
n = [16, 32, 64, 128]
method = ["fast", "slow"]
seeds = 12
"""


@pytest.mark.parametrize(("cells", "jobs", "expected"), [(96, 32, 1), (96, 4, 6), (10_000, 8, 64), (3, 8, 1)])
def test_chunks_are_enough_for_all_jobs(cells, jobs, expected):
    assert shared_chunk(cells, jobs) == expected


def test_the_script(tsjax, tmp_path):
    (tmp_path / "a.toml").write_text(TOY)
    words = "run a.toml --out /shared/a --set grid.seeds=16 --sbatch 32 --engine slurm --with minutes=90 --with partition=gpu"
    code, out, err = tsjax(*words.split(), "--with", "flags=--qos=high --exclusive", "--with", "setup=module load cuda")
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert lines[0] == "#!/bin/bash"
    flags = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert set(flags) == {
        "--job-name=tsjax-a",
        "--array=1-32",
        "--time=90",
        "--partition=gpu",
        "--requeue",
        "--open-mode=append",
        "--signal=TERM@90",
        "--qos=high",
        "--exclusive",
    }
    (command,) = [line for line in lines if line.startswith("srun")]
    assert command == (
        f"srun {sys.executable} -m tsjax.cli run a.toml --set grid.seeds=16 --out /shared/a --chunk 1 --quiet --no-page"
    )
    assert lines.index("module load cuda") < lines.index(command)
    assert subprocess.run(["bash", "-n"], input=out, text=True).returncode == 0
    # Nothing was run, nothing written.
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]
    assert "--chunk 16" in tsjax("run", "a.toml", "--sbatch=1", "--chunk=16", "--engine=slurm")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--engine ray", "the engine is 'ray': leave --engine out"),
        ("--engine slurm --with cluster=local", "leave --with cluster=... out"),
        ("--track jsonl:a.jsonl", "every task would write there"),
        ("--engine slurm --with minute=3", "Did you mean 'minutes'"),
        ("--set grid.n=1", "n = 1"),
    ],
)
def test_what_no_script_can_do(tsjax, tmp_path, words, message):
    (tmp_path / "a.toml").write_text(TOY)
    code, out, err = tsjax("run", "a.toml", "--sbatch", "4", *words.split())
    assert code == 2 and message in err and out == ""


@pytest.mark.slow
def test_an_array_with_a_killed_task_and_a_requeued_one(tsjax, tmp_path):
    """As Slurm would run it: one task is killed, one gets SIGTERM before the end of its time and asks to be requeued."""
    (tmp_path / "slow_toys.py").write_text(SLOW)
    (tmp_path / "a.toml").write_text(TOY.replace("sweep.toys:power", "slow_toys:slow"))
    code, script, err = tsjax("run", "a.toml", "--out", "s", "--sbatch", "3")
    assert code == 0, err
    # In the place of Slurm's: `srun` runs its command here, `scontrol` notes what it was asked.
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").write_text('#!/bin/bash\necho $$ > pid.$SLURM_ARRAY_TASK_ID\nexec "$@"\n')
    (folder / "scontrol").write_text('#!/bin/bash\necho "$@" >> requeued\n')
    for name in ("srun", "scontrol"):
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(TESTS), str(TESTS.parent)])

    def task(number):
        own = {**environment, "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "77"}
        return subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def claims(number):
        return (tmp_path / f"pid.{number}").exists() and list((tmp_path / "s" / "chunks").glob("*.parquet"))

    def wait_for(condition, what):
        end = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.05)

    first = task(1)
    wait_for(lambda: claims(1), "the first task did not begin")
    os.kill(int((tmp_path / "pid.1").read_text()), signal.SIGTERM)
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 143, out
    assert (tmp_path / "requeued").read_text().split() == ["requeue", "77_1"]
    done = len(stored(tmp_path / "s"))
    assert 0 < done < 96
    second = task(2)
    wait_for(lambda: len(stored(tmp_path / "s")) > done, "the second task did not go on")
    os.kill(int((tmp_path / "pid.2").read_text()), signal.SIGKILL)
    second.communicate(timeout=60)
    assert second.returncode == 137
    # That was no end that asks to be requeued by itself; what it held is another task's.
    assert len((tmp_path / "requeued").read_text().splitlines()) == 1
    third, again = task(3), task(1)
    for one in (third, again):
        out, _ = one.communicate(timeout=300)
        assert one.returncode == 0, out
    records = stored(tmp_path / "s")
    assert len(records) == 96 and not records["cell"].duplicated().any()
    assert not (tmp_path / "s" / "report.html").exists() and ts.load(tmp_path / "s").coverage.whole


SLOW = """
import jax, jax.numpy as jnp
import tsjax as ts

@ts.experiment(static=("method",), curve="method")
def slow(key, *, method: str, n: int):
    spin = jax.lax.fori_loop(0, 3000, lambda i, x: jnp.sin(x) + i, jnp.ones(4000) * jax.random.uniform(key))
    return {"risk": (1.5 + jnp.tanh(jnp.mean(spin))) / n}
"""


def test_without_submitit(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"needs submitit: python3 -m pip install 'tsjax\[slurm\]'"):
        run_spec(power_spec(), experiment=power, engine="slurm", out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_stores_that_jobs_cannot_reach():
    pytest.importorskip("submitit")
    with pytest.raises(SpecError, match="needs a folder for logs: folder=..."):
        run_spec(power_spec(), experiment=power, engine="slurm", out="memory://a")


@pytest.fixture
def local(monkeypatch):
    """Jobs as processes of this machine, which find the experiments of these tests."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return lambda **options: ts.engines.Slurm(**{"cluster": "local", "jobs": 2, "minutes": 20, **options})


@pytest.mark.slow
def test_jobs_of_submitit(tmp_path, local):
    whole, counted = run_spec(power_spec(), experiment=power).records, []

    def listener(plan, stream):
        for done in stream:
            counted.append(done.cells)
            yield done

    how = {"experiment": power, "out": tmp_path / "s", "listener": listener}
    result = run_spec(power_spec(), engine=local(), **how)
    pd.testing.assert_frame_equal(result.records[METRICS], whole[METRICS], rtol=1e-12)
    assert sum(counted) == 96 and not stored(tmp_path / "s")["cell"].duplicated().any()
    assert list((tmp_path / "s" / "jobs").glob("*_log.out"))
    # Complete: no job is submitted.
    before = sorted((tmp_path / "s" / "jobs").iterdir())
    run_spec(power_spec(), engine=local(), **how)
    assert sorted((tmp_path / "s" / "jobs").iterdir()) == before


@pytest.mark.slow
def test_a_killed_job_and_errors_of_jobs(tmp_path, local):
    with pytest.raises(
        GroupError, match="all 2 jobs have ended, but cells are missing: .*no such thing.*Run again to continue"
    ):
        ts.sweep(uneven, out=tmp_path / "s", kind=["broken", "fine"], n=8, seeds=3, engine=local())
    assert set(stored(tmp_path / "s")["kind"]) == {"fine"}


@pytest.mark.slow
def test_black_boxes_as_jobs(tmp_path, local):
    result = ts.sweep(troubled, out=tmp_path / "s", kind=["raises", "well"], n=8, seeds=3, engine=local())
    assert len(result.records) == 6 and (result.records["status"] != 0).sum() == 2
    assert re.search("no luck", " ".join(result.records["failure"].fillna("")))


@pytest.mark.slow
def test_a_job_that_is_pre_empted_goes_on(tmp_path, local, monkeypatch):
    """The signal that Slurm sends before it takes a job away: submitit runs it again, and it finishes the sweep alone."""
    (tmp_path / "slow_toys.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    submit, jobs, sent = ts.engines.Slurm._submit, [], []
    monkeypatch.setattr(ts.engines.Slurm, "_submit", lambda *some: (jobs.extend(submit(*some)), jobs)[1])

    def listener(plan, stream):
        for done in stream:
            # The process that runs the job is a child of the one that submitit watches.
            children = Path(f"/proc/{jobs[0].job_id}/task/{jobs[0].job_id}/children").read_text().split()
            if not sent and children:
                os.kill(int(children[0]), signal.SIGUSR2)
                sent.append(done.cells)
            yield done

    slow = importlib.import_module("slow_toys").slow
    grid = {"method": ["a", "b"], "n": [16, 32, 64, 128], "seeds": 12}
    ts.sweep(slow, out=tmp_path / "s", engine=local(jobs=1, chunk=2, lease_seconds=30.0), listener=listener, **grid)
    records = stored(tmp_path / "s")
    assert len(records) == 96 and not records["cell"].duplicated().any() and 0 < sum(sent) < 96
    log = "".join(path.read_text() for path in (tmp_path / "s" / "jobs").glob("*_log.out"))
    assert "Caught signal SIGUSR2" in log and "this job is preempted" in log and log.count("Loading pickle") == 2
