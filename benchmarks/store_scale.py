"""The cost of reading a large store: `uv run python -m benchmarks store_scale`.

It makes one store of a million records and one of 14 000 small chunks that have not been merged, filled with planted values by
the engine's own writer, and runs `tsjax rates` and `tsjax status` on them, each in a process of its own: seconds and peak
memory, import of Python packages included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import tsjax as ts
from tsjax.sweep.plan import ids_of, make_plan
from tsjax.sweep.predictions import predict
from tsjax.sweep.provenance import manifest_of, provenance
from tsjax.sweep.run import name_of
from tsjax.sweep.spec import parse_spec
from tsjax.sweep.theory import TheoryTable
from tsjax.sweep.writer import StoreWriter

SIZES = [2**i for i in range(5, 15)]


@ts.experiment(static=("method",), curve="method", theory=lambda arguments, n: ts.Theory(1.0 / n, 1.0, "planted"))
def planted(key, *, n: int, method: str):
    """The values that `fill` writes, without the noise."""
    return {"status": 0, "risk": 1.0 / n, "limit": 1.0 / n}


def fill(out: Path, records: int, chunk: int) -> int:
    """Makes a store of `records` records with `chunk` of them in each file; returns the number of files."""
    grid = {"n": SIZES, "method": ["fast", "slow"], "seeds": records // (2 * len(SIZES))}
    spec = parse_spec({"study": name_of(planted), "grid": grid})
    plan = make_plan(spec, planted)
    store = StoreWriter(out)
    theory = predict(planted, plan, TheoryTable())
    store.open_for(spec, plan, theory, provenance(), manifest_of(spec, planted))
    # Without merging, as many processes that each write a few chunks would leave them.
    store.tidy = lambda *, every=True: None
    rng, files = np.random.default_rng(0), 0
    for arguments, seeds in plan.combinations:
        ids = list(ids_of(arguments, seeds))
        for start in range(0, len(ids), chunk):
            count = len(ids[start : start + chunk])
            frame = {"cell": ids[start : start + chunk], **{k: [v] * count for k, v in arguments.items()}}
            frame |= {"seed": np.asarray(seeds[start : start + chunk]), "status": 0}
            frame |= {"risk": rng.chisquare(15, count) / 15 / arguments["n"], "limit": 1.0 / arguments["n"]}
            engine = {"compile_seconds": 1.0, "run_seconds": 1e-3, "device": "cpu", "jax": "0", "tsjax": "0"}
            store.commit(pd.DataFrame({**frame, **engine}))
            files += 1
    return files


def measure(command: str, store: Path) -> tuple[float, float]:
    """Seconds and peak memory (GiB) of a command on a store."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "tsjax.cli", command, str(store), "--json"], stdout=subprocess.DEVNULL
    )
    _, code, usage = os.wait4(process.pid, 0)
    if code:
        raise RuntimeError(f"tsjax {command} {store} failed.")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def main(arguments: list[str]) -> None:
    """Prints a line for each command and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks store_scale", description="Large stores.")
    parser.add_argument("--records", type=int, default=1_000_000, help="records of the large store (1000000)")
    parser.add_argument("--chunks", type=int, default=14_000, help="small chunks of the other one (14000)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name, records, chunk in (("large", options.records, 4096), ("chunks", 8 * options.chunks, 8)):
            files = fill(Path(folder) / name, records, chunk)
            for command in ("status", "rates"):
                seconds, memory = measure(command, Path(folder) / name)
                print(
                    f"{records} records in {files} files: tsjax {command} takes {seconds:.1f} s, {memory:.2f} GiB",
                    flush=True,
                )
