"""Ray and jax.distributed: other machines, the same records."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweep.toys import power, power_spec, stored

from tsjax.sweep.run import run_spec

TESTS = Path(__file__).parents[2]
METRICS = ["cell", "method", "n", "seed", "status", "risk", "limit", "done", "draw"]


@pytest.fixture(scope="module")
def whole():
    return run_spec(power_spec(), experiment=power).records


def _assert_same(records, whole):
    """Within roundoff: a task has one device, and its batches have other shapes."""
    pd.testing.assert_frame_equal(records[METRICS], whole[METRICS], rtol=1e-12)


SCRIPT = """
import os, signal, sys, time
import ray
import tsjax as ts
from ray.cluster_utils import Cluster
from sweep.toys import power, power_spec, stored
from tsjax.sweep.run import run_spec

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
happened = []
ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}})

def listener(plan, stream):
    for i, done in enumerate(stream):
        if i == 1:
            # A worker, from inside.
            @ray.remote(max_retries=0)
            def die():
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                ray.get(die.remote())
            except ray.exceptions.WorkerCrashedError:
                happened.append("a worker died")
        if i == 3:
            cluster.remove_node(second, allow_graceful=False)
            happened.append("a node died")
        if i == 5:
            cluster.add_node(num_cpus=1)
            happened.append("a node joined")
        yield done

result = run_spec(power_spec(), experiment=power, out=sys.argv[1], engine=ts.engines.Ray(chunk=4), listener=listener)
happened.append(f"{len(result.records)} records")
with open(sys.argv[2], "w") as file:
    file.write("\\n".join(happened))
try:
    small = power_spec(problem={"scale": 2.0}, grid={"n": 16, "method": "fast", "seeds": 8})
    run_spec(small, experiment=power, chunk=4, engine="ray")
finally:
    ray.shutdown()
    cluster.shutdown()
"""


def _run(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "JAX_PLATFORMS": "cpu"}
    environment |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}  # As tsjax.sweep.engines.ray.connect has it.
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_ray_with_a_killed_worker_and_a_killed_node(tmp_path, whole):
    pytest.importorskip("ray")
    # What happened comes by a file: Ray writes the logs of what died to stdout, in the middle of a line that is being written.
    happened = tmp_path / "happened"
    process = _run(SCRIPT, str(tmp_path / "s"), str(happened))
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, out[-3000:] + err[-3000:]
    assert happened.read_text().splitlines() == ["a worker died", "a node died", "a node joined", "96 records"]
    _assert_same(run_spec(power_spec(), experiment=power, out=tmp_path / "s").records, whole)
    assert not stored(tmp_path / "s")["cell"].duplicated().any()


FAILING = """
import ray
from sweep.engines.test_local import uneven
import tsjax as ts
try:
    ts.sweep(uneven, out=__import__("sys").argv[1], kind=["broken", "fine"], n=8, seeds=3, engine="ray")
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_errors_on_ray_stop_no_other_program(tmp_path):
    pytest.importorskip("ray")
    process = _run(FAILING, str(tmp_path / "s"))
    out, err = process.communicate(timeout=900)
    assert "1 of 2 programs failed" in out and "no such thing" in out, err[-3000:]
    assert set(stored(tmp_path / "s")["kind"]) == {"fine"}


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs Ray: python3 -m pip install"):
        run_spec(power_spec(), experiment=power, engine="ray")


DISTRIBUTED = """
import sys
import jax
jax.distributed.initialize(sys.argv[2], num_processes=2, process_id=int(sys.argv[3]))
from sweep.toys import power, power_spec, stored
from tsjax.sweep.run import run_spec
assert jax.process_count() == 2 and len(jax.devices()) == 2 * len(jax.local_devices())
ran = 0

def listener(plan, stream):
    global ran
    for done in stream:
        ran += 0 if done.resumed else done.cells
        yield done

result = run_spec(power_spec(), experiment=power, out=sys.argv[1], chunk=4, listener=listener)
print(ran, len(result.records))
"""


@pytest.mark.slow
def test_two_processes_of_jax_distributed(tmp_path, whole):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [_run(DISTRIBUTED, str(tmp_path / "s"), address, str(i)) for i in range(2)]
    ran = []
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err[-3000:]
        ran.append([int(word) for word in out.splitlines()[-1].split()])
    assert sum(count for count, _ in ran) == 96 and [whole for _, whole in ran] == [96, 96]
    records = stored(tmp_path / "s")
    assert not records["cell"].duplicated().any()
    np.testing.assert_allclose(
        records.set_index("cell")["risk"].loc[whole["cell"]], whole["risk"].to_numpy(), rtol=1e-12
    )
