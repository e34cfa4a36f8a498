"""Where the time of a training step goes: `uv run python -m benchmarks profile`.

It prints microseconds per student-step, with all cores in use, of loops that do only a part of phase I (the gradient, the
noise, or only the update), of the whole phase by the native kernel and by XLA, and of the limit in C. Parts are measured by
themselves and need not add up, since more data stay in registers and caches then.
"""

import argparse
import os

import jax
import jax.numpy as jnp
import numpy as np

from tsjax.fast import native
from tsjax.fast.loss import half_mse, half_mse_by_xla
from tsjax.network import TwoLayer
from tsjax.optim import counter_normals
from tsjax.sweep.devices import sharded_vmap, use_all_cores
from tsjax.sweep.estimate import fastest

from .training import SHAPES, draw
from .ways import Case, c_loop, fit_many

ROWS = ("whole phase I", "gradient, native", "gradient, XLA", "noise", "update alone", "C: whole", "C: without noise")


def _loop(case: Case, move):
    """theta <- theta + move(theta, i), `case.steps` times, for all students on all devices."""

    def train(seed, x, y, a, w):
        x_t = x.T
        step = lambda i, theta: jax.tree.map(lambda p, u: p + 1e-6 * u, theta, move(theta, seed, i, x_t, y))
        return jax.lax.fori_loop(0, case.steps, step, (a, w))

    many = sharded_vmap(train)
    seeds = jnp.arange(2 * len(case.x), dtype=jnp.uint32).reshape(-1, 2)
    arguments = [jnp.asarray(array) for array in (case.x, case.y, case.a, case.w)]
    return lambda: many(seeds, *arguments)


def measure(shape: tuple, steps: int, repeats: int) -> dict[str, float | None]:
    """Microseconds per student-step of each row."""
    case = Case(*draw(shape), steps=steps, threads=jax.local_device_count())
    d, m = shape[2:]

    def gradient(loss):
        of = jax.grad(lambda theta, x_t, y: loss(TwoLayer(*theta), x_t, y))
        return _loop(case, lambda theta, seed, i, x_t, y: of(theta, x_t, y))

    def noise(theta, seed, i, x_t, y):
        del theta, x_t, y
        xi = counter_normals(seed, i, m * (d + 1), jnp.float32)
        return xi[:m], xi[m:].reshape(m, d)

    has_kernel = native.load()[0] is not None
    runs = {
        "whole phase I": fit_many(case),
        "gradient, native": gradient(half_mse) if has_kernel else None,
        "gradient, XLA": gradient(half_mse_by_xla),
        "noise": _loop(case, noise),
        "update alone": _loop(case, lambda theta, *_: theta),
        "C: whole": c_loop(case),
        "C: without noise": c_loop(case, noise=False),
    }
    scale = 1e6 / (shape[0] * steps)
    return {row: None if run is None else scale * fastest(run, repeats) for row, run in runs.items()}


def main(arguments: list[str]) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks profile", description="Where the time goes.")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs; the fastest one counts (5)")
    options = parser.parse_args(arguments)
    use_all_cores()
    shapes = list(SHAPES.items())
    columns = [measure(shape, steps, options.repeats) for shape, steps in shapes]
    print(
        f"jax {jax.__version__}, {jax.local_device_count()} devices, {os.cpu_count()} cores; microseconds per student-step\n"
    )
    print("| part | " + " | ".join(str(shape) for shape, _ in shapes) + " |\n|---|" + "---|" * len(shapes))
    for row in ROWS:
        cells = ("none" if (value := column[row]) is None else f"{value:.3g}" for column in columns)
        print(f"| {row} | " + " | ".join(cells) + " |")
    whole, limit = (np.asarray([column[row] for column in columns], float) for row in ("whole phase I", "C: whole"))
    print("\nshare of the limit's throughput: " + ", ".join(f"{100 * share:.0f} %" for share in limit / whole))
