"""Very many two-phase students, each on a teacher and a data set of its own: `uv run python -m benchmarks million`.

By default it trains 10^6 students of (d, m) = (10, 5) at n = 512. The goal for this is two minutes on one H200; on two CPU
cores, try `--count 2000`. Everything is drawn on the device from keys, `tsjax.map_many` trains, and each student leaves six
numbers. It prints the time, student-steps and sample-gradients per second, the share of the float32 roofline (4 n m d
operations for a step of a student with m neurons), the peak of memory after a tenth of the students and at the end, the share
of successes with Clopper and Pearson's 95 % interval, and the mean risk relative to that of the oracle student, and to the
Cramér-Rao limit, with bootstrap intervals.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import tsjax as ts
from tsjax.sweep.devices import use_all_cores

from . import peak_memory
from .gpu import PEAKS


def trainer(n: int, d: int, m: int, noise_std: float):
    """The function of a key that trains one student in float32 and compares it with its oracle."""
    problem = ts.Problem(ts.Sphere(d), ts.ReLUTeacher(m), noise_std)
    student = ts.TwoPhaseStudent(m)

    def train(key):
        teacher_key, data_key, fit_key = jax.random.split(key, 3)
        teacher = problem.sample_teacher(teacher_key)
        data = problem.sample(data_key, teacher, n)
        data = ts.Dataset(x=data.x.astype(jnp.float32), y=data.y.astype(jnp.float32))
        fit = student.fit(fit_key, data)
        found = ts.recovery(problem, teacher, data, fit)
        counts = {name: fit.stats[name] for name in ("total_steps", "sample_steps", "neuron_steps")}
        return {"success": found.success, "risk": found.risk, "oracle_risk": found.oracle_risk, **counts}

    return train


def report(found: dict[str, np.ndarray], seconds: float, n: int, d: int, m: int, noise_std: float) -> list[str]:
    """Lines about one run."""
    count, successes = len(found["success"]), int(np.sum(found["success"]))
    low, high = stats.binomtest(successes, count).proportion_ci(0.95)
    of = lambda name: float(np.sum(found[name].astype(np.float64)))
    lines = [
        f"{count:,} students of (d, m) = ({d}, {m}) at n = {n} in {seconds:.1f} s: {count / seconds:,.0f} per second",
        f"{of('total_steps') / seconds:,.3g} student-steps/s, {of('sample_steps') / seconds:,.3g} sample-gradients/s",
    ]
    kind = jax.local_devices()[0].device_kind
    peak = next((value for name, value in PEAKS.items() if name in kind), None)
    if peak is not None:
        lines.append(f"{100 * 4 * d * of('neuron_steps') / seconds / peak:.1f} % of the float32 roofline of {kind}")
    good, limit = np.isfinite(found["risk"]) & found["success"], noise_std**2 * m * d / n
    to_oracle = ts.mean_ratio(found["risk"][good], found["oracle_risk"][good])
    to_limit = ts.mean_ratio(found["risk"][good], limit)
    lines += [
        f"successes: {successes:,} of {count:,}, {successes / count:.6f} [{low:.6f}, {high:.6f}]",
        f"risk of successes / oracle student's: {to_oracle}",
        f"risk of successes / Cramér-Rao limit: {to_limit}",
    ]
    return lines


def main(arguments: list[str]) -> None:
    """Prints lines of text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks million", description="Very many students.")
    parser.add_argument("--count", type=int, default=1_000_000, help="students (1000000)")
    parser.add_argument("--n", type=int, default=512, help="samples of each (512)")
    parser.add_argument("--d", type=int, default=10, help="dimension, on the sphere (10)")
    parser.add_argument("--m", type=int, default=5, help="neurons of teacher and student (5)")
    parser.add_argument("--noise-std", type=float, default=0.1, help="noise (0.1)")
    parser.add_argument("--at-once", type=int, help="students at once")
    parser.add_argument("--seed", type=int, default=0, help="of the root key (0)")
    options = parser.parse_args(arguments)
    use_all_cores()
    shape = options.n, options.d, options.m, options.noise_std
    train = trainer(*shape)
    print(f"jax {jax.__version__} on {len(jax.local_devices())} x {jax.local_devices()[0].device_kind}", flush=True)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(options.seed), options.count)
        start = time.perf_counter()
        first = ts.map_many(train, keys[: max(1, options.count // 10)], at_once=options.at_once, progress=True)
        print(f"the first {len(first['success']):,}, with compilation: {time.perf_counter() - start:.1f} s", flush=True)
        before, start = peak_memory(), time.perf_counter()
        found = ts.map_many(train, keys, at_once=options.at_once, progress=True)
        seconds = time.perf_counter() - start
    print("\n".join(report(found, seconds, *shape)))
    print(f"peak of the process's memory: {before:.2f} GiB after a tenth, {peak_memory():.2f} GiB at the end")
