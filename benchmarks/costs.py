"""How cost grows, fitted by tsjax itself: `uv run python -m benchmarks costs`.

It times a gradient step of all students against one of B, n, d and m at a time, with the others at (B, n, d, m) = (64, 2048,
10, 5), and against the number of devices. `tsjax.fit_rate` fits seconds = C size^p, with repeats in place of seeds.
"""

import argparse
import time

import jax
import numpy as np

import tsjax as ts
from tsjax.sweep.devices import use_all_cores

from .training import draw

BASE = {"B": 64, "n": 2048, "d": 10, "m": 5}
AXES = {
    "B": [16, 32, 64, 128, 256],
    "n": [512, 1024, 2048, 4096, 8192],
    "d": [5, 10, 20, 40, 80],
    "m": [3, 5, 10, 20, 40],
}


def prepare(shape: dict[str, int], steps: int, devices=None):
    """A compiled function that trains `steps` steps and returns the seconds of one."""
    x, y, *_ = draw((shape["B"], shape["n"], shape["d"], min(shape["m"], shape["d"])))
    data = ts.Dataset(x=jax.numpy.asarray(x), y=jax.numpy.asarray(y))
    noisy = ts.NoisyPhase(width=shape["m"], samples=shape["n"], steps=steps)
    student = ts.TwoPhaseStudent(shape["m"], restarts=1, noisy=noisy, vanilla=ts.VanillaPhase(max_steps=0))
    keys = jax.random.split(jax.random.key(0), shape["B"])

    def run():
        start = time.perf_counter()
        ts.fit_many(student, keys, data, devices=devices)
        return (time.perf_counter() - start) / steps

    run()
    return run


def main(arguments: list[str]) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks costs", description="Exponents of cost.")
    parser.add_argument("--steps", type=int, default=100, help="gradient steps of a timed run (100)")
    parser.add_argument("--repeats", type=int, default=8, help="timed runs (8)")
    options = parser.parse_args(arguments)
    use_all_cores()
    print(f"jax {jax.__version__}, {jax.local_device_count()} devices, repeats {options.repeats}\n")
    print("| axis | sizes | cost ~ size^p: p [95 %] | microseconds per student-step |\n|---|---|---|---|")
    for axis, sizes in AXES.items():
        shapes = [{**BASE, axis: size} for size in sizes]
        runs = [prepare(shape, options.steps) for shape in shapes]
        # In turn, so that other work of the machine affects all sizes alike.
        seconds = np.asarray([[run() for run in runs] for _ in range(options.repeats)]).T
        rate = ts.fit_rate(np.asarray(sizes, float), seconds)
        each = 1e6 * seconds.min(axis=1) / [shape["B"] for shape in shapes]
        # `fit_rate` gives the exponent of a decrease.
        interval = f"{-rate.exponent:.2f} [{-rate.interval[1]:.2f}, {-rate.interval[0]:.2f}]"
        print(f"| {axis} | {sizes} | {interval} | {', '.join(f'{value:.3g}' for value in each)} |", flush=True)
    devices = jax.local_devices()
    counts = [count for count in (1, 2, 4, 8) if count <= len(devices)]
    if len(counts) > 1:
        runs = [prepare(BASE, options.steps, devices[:count]) for count in counts]
        seconds = np.min([[run() for run in runs] for _ in range(options.repeats)], axis=0)
        speedups = ", ".join(f"{seconds[0] / value:.2f}" for value in seconds)
        print(f"| devices | {counts} | speed-up {speedups} | |")
