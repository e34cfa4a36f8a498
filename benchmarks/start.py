"""Seconds to the first result and peak memory, each in a fresh process: `uv run python -m benchmarks start`.

"Cold" compiles everything; "warm" finds programs that an earlier process has left in the compilation cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

FIT = """
import jax, tsjax as ts
from tsjax.sweep.devices import keep_compiled
keep_compiled()
problem = ts.Problem(ts.Sphere(5), ts.ReLUTeacher(3), 0.1)
teacher = problem.sample_teacher(jax.random.key(0))
data = problem.sample(jax.random.key(1), teacher, 512)
fit = {estimator}.fit(jax.random.key(2), data)
print(float(ts.excess_risk(problem, teacher, fit)))
"""
STUDENT, RIDGE = "ts.TwoPhaseStudent(width=3)", "ts.KernelRidge(ts.kernels.ntk())"
MANY = """
import jax, tsjax as ts
from benchmarks.costs import prepare
prepare({"B": 4096, "n": 512, "d": 5, "m": 3}, 10)()
"""

ROWS: dict[str, Sequence[str]] = {
    "import tsjax": ["-c", "import tsjax"],
    "import jax, for comparison": ["-c", "import jax"],
    "tsjax --help": ["-m", "tsjax.cli", "--help"],
    "a student and its exact risk, cold": ["-c", FIT.format(estimator=STUDENT)],
    "a student and its exact risk, warm": ["-c", FIT.format(estimator=STUDENT)],
    "NTK ridge and its exact risk, cold": ["-c", FIT.format(estimator=RIDGE)],
    "NTK ridge and its exact risk, warm": ["-c", FIT.format(estimator=RIDGE)],
    "4096 students on 512 samples each, 10 steps": ["-c", MANY],
}


def measure(arguments: Sequence[str], cache: str) -> tuple[float, float]:
    """Seconds of wall time, and peak memory in MiB."""
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"exit status {status} of python {' '.join(arguments)[:80]}")
    return time.perf_counter() - start, usage.ru_maxrss / 2**10


def main(arguments: list[str]) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks start", description="Time to the first result.")
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes; the fastest one counts (3)")
    options = parser.parse_args(arguments)
    print("| what | seconds | peak MiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as warm:
        for name, command in ROWS.items():
            # Each cold start needs a new cache.
            runs = []
            for _ in range(options.repeats):
                with tempfile.TemporaryDirectory() as cold:
                    runs.append(measure(command, cold if name.endswith("cold") else warm))
            if name.endswith("cold"):
                measure(command, warm)
            print(f"| {name} | {min(run[0] for run in runs):.2f} | {max(run[1] for run in runs):.0f} |", flush=True)
