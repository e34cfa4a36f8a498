"""How fast is the training of many students? One run compares tsjax with other ways to write it:

    uv run --group peers python -m benchmarks training --json training.json

benchmarks/ways.py has the ways. Each runs in a process of its own, and uses one thread or all cores, depending on which is
faster for it at that shape; then all run in turn, `--repeats` times. A run has the steps of `SHAPES`, or a multiple of them
that lasts half a second, since training takes thousands of steps. Speeds are student-steps per second of the fastest run;
ratios are to tsjax in the same run.
"""

import argparse
import datetime
import json
import math
import multiprocessing
import os
import platform
import time
from multiprocessing.connection import Connection

import numpy as np

from .ways import WAYS, Case

SHAPES = {  # (B, n, d, m): steps of one timed run
    (32, 2048, 5, 3): 1000,
    (64, 1024, 10, 5): 1000,
    (16, 4096, 20, 10): 300,
    (256, 512, 10, 5): 500,
    (8, 65536, 10, 5): 100,
}
LIMIT, OURS = "C, the limit", "tsjax.fit_many"
# A timed run lasts at least this long, but has at most 20 times the steps.
_SECONDS = 0.5


def draw(shape: tuple[int, int, int, int], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Inputs on the sphere, responses of orthonormal ReLU teachers with noise 0.1, and initial students: x, y, a and w of a
    `Case`."""
    batch, n, d, m = shape
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, n, d))
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    teachers = np.swapaxes(np.linalg.qr(rng.standard_normal((batch, d, m)))[0], 1, 2)
    y = np.sum(np.maximum(x @ np.swapaxes(teachers, 1, 2), 0), axis=2) + 0.1 * rng.standard_normal((batch, n))
    a, w = 0.1 * rng.standard_normal((batch, m)), 0.7 / d**0.5 * rng.standard_normal((batch, m, d))
    return tuple(array.astype(np.float32) for array in (x, y, a, w))


def _worker(name: str, threads: int, connection: Connection) -> None:
    """Prepares and times one way repeatedly. It receives shape and steps and sends "ready" or the reason why it cannot run; for
    each "go" it sends seconds and losses."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    # Waiting threads must not use the cores of those that are timed.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if name == OURS:
        from tsjax.sweep.devices import use_all_cores

        use_all_cores()
    run = lambda: np.zeros(0)
    while (message := connection.recv()) is not None:
        if message == "go":
            start = time.perf_counter()
            losses = run()
            connection.send((time.perf_counter() - start, losses))
            continue
        shape, steps = message
        try:
            run = WAYS[name](Case(*draw(shape), steps=steps, threads=threads))
            run()
            connection.send("ready")
        except ImportError as error:
            connection.send(f"not installed ({error.name})")
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}"[:200])


class _Contestant:
    """One way with one number of threads, in a process of its own."""

    def __init__(self, name: str, threads: int):
        self.name, self.threads = name, threads
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_worker, args=(name, threads, other))
        self.process.start()

    def ask(self, message):
        self.connection.send(message)
        return self.connection.recv()

    def close(self) -> None:
        self.connection.send(None)
        self.process.join(timeout=5)
        # A library with worker processes of its own may wait for them for ever.
        self.process.kill()


def measure(contestants: list[_Contestant], shape: tuple, steps: int, repeats: int) -> dict[str, dict]:
    """For each way: student-steps per second, threads and mean final loss; or {"missing": reason}."""
    best: dict[str, tuple[float, _Contestant]] = {}
    results: dict[str, dict] = {}
    for contestant in contestants:
        answer = contestant.ask((shape, steps))
        if answer != "ready":
            results[contestant.name] = {"missing": answer}
            continue
        seconds, losses = contestant.ask("go")
        if contestant.name not in best or seconds < best[contestant.name][0]:
            best[contestant.name] = (seconds, contestant)
            facts = {"threads": contestant.threads, "loss": float(np.mean(losses)), "students": len(losses)}
            results[contestant.name] = {**facts, "steps": steps * min(20, math.ceil(_SECONDS / seconds))}
    for name, (_, contestant) in best.items():
        if results[name]["steps"] > steps:
            contestant.ask((shape, results[name]["steps"]))
    rounds = [{name: contestant.ask("go")[0] for name, (_, contestant) in best.items()} for _ in range(repeats)]
    for name in best:
        done = results[name]["students"] * results[name]["steps"]
        results[name]["student_steps_per_second"] = done / min(seconds[name] for seconds in rounds)
    return {name: results[name] for name in WAYS if name in results}


def main(arguments: list[str]) -> None:
    """Prints a Markdown table, and writes JSON where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training", description="Training, side by side.")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds; the fastest one counts (3)")
    parser.add_argument("--shapes", type=int, nargs="*", metavar="I", help="which of the five shapes, 1 to 5 (all)")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), metavar="WAY", help=f"among {'; '.join(WAYS)} (all)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there, for `benchmarks compare`")
    options = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    names = [name for name in WAYS if options.ways is None or name in options.ways or name == OURS]
    # tsjax and the limit always use all cores.
    pairs = [(name, t) for name in names for t in sorted({cores if name in (OURS, LIMIT) else 1, cores})]
    contestants = [_Contestant(*pair) for pair in pairs]
    shapes = list(SHAPES.items())
    chosen = shapes if options.shapes is None else [shapes[i - 1] for i in options.shapes]
    print(
        "| (students, n, d, m) | way | student-steps/s | tsjax is faster by | threads | loss |\n|---|---|---|---|---|---|"
    )
    results = []
    for shape, steps in chosen:
        ways = measure(contestants, shape, steps, options.repeats)
        ours = ways[OURS]["student_steps_per_second"]
        for name, way in ways.items():
            if "missing" in way:
                print(f"| {shape} | {name} | {way['missing']} | | | |", flush=True)
                continue
            speed, threads, loss = way["student_steps_per_second"], way["threads"], way["loss"]
            ratio = f"{ours / speed:.1f}" if ours > 2 * speed else f"{ours / speed:.2f}"
            print(f"| {shape} | {name} | {speed:,.0f} | {ratio} | {threads} | {loss:.4f} |", flush=True)
        results.append({"shape": shape, "steps": steps, "ways": ways})
    for contestant in contestants:
        contestant.close()
    if options.json:
        from importlib.metadata import version

        facts = {"date": datetime.date.today().isoformat(), "cores": cores, "machine": platform.machine()}
        with open(options.json, "w") as file:
            json.dump({**facts, "jax": version("jax"), "ours": OURS, "results": results}, file, indent=1)
