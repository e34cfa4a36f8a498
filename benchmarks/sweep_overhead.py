"""The overhead of the engine: `uv run python -m benchmarks sweep_overhead --cells 100000`.

It runs a sweep of a trivial experiment on disk, with several sample sizes and many seeds, and prints microseconds for each cell
apart from compilation, how long the devices waited, memory after a tenth and at the end, and the seconds that resuming the
finished sweep takes.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

import tsjax as ts
from tsjax.sweep.devices import use_all_cores

SIZES = 10


@ts.experiment
def coin(key, *, n: int):
    """One compiled program, one number."""
    return {"risk": jax.random.uniform(key) / jnp.sqrt(n)}


def _memory() -> float:
    """The present memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main(arguments: list[str]) -> None:
    """Prints a few lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sweep_overhead", description="Overhead of the engine.")
    parser.add_argument("--cells", type=int, default=100_000, help="cells of the sweep (100000)")
    parser.add_argument("--chunk", type=int, default=64, help="cells that run together (64)")
    options = parser.parse_args(arguments)
    use_all_cores()
    memory, idle, compiling = [], 0.0, 0.0

    def listener(plan, stream):
        nonlocal idle, compiling
        for done in stream:
            memory.append(_memory())
            idle = done.idle_seconds
            compiling = 0.0 if done.records is None else float(done.records["compile_seconds"].iloc[0])
            yield done

    grid = {"n": [2**i for i in range(4, 4 + SIZES)], "seeds": options.cells // SIZES, "chunk": options.chunk}
    ts.sweep(coin, n=2, seeds=1)  # Imports and the start of JAX.
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = ts.sweep(coin, out=Path(folder) / "store", listener=listener, commit_seconds=0.5, **grid)
        seconds = time.perf_counter() - start
        cells, files = len(result.records), len(list((Path(folder) / "store" / "chunks").iterdir()))
        start = time.perf_counter()
        again = ts.sweep(coin, out=Path(folder) / "store", **grid)
        resume = time.perf_counter() - start
        assert len(again.records) == cells
    print(f"{cells} cells in {seconds:.2f} s, {compiling:.2f} s of it compilation: {files} files")
    print(f"overhead {1e6 * (seconds - compiling) / cells:.1f} microseconds a cell; devices idle {idle:.2f} s")
    print(f"memory {memory[len(memory) // 10]:.0f} MiB after a tenth, {memory[-1]:.0f} MiB at the end")
    print(f"resume of the finished sweep {resume:.2f} s")
