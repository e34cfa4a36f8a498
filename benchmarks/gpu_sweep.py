"""Whole sweeps in fresh processes, on the accelerator and on the host's CPU cores: `uv run python -m benchmarks gpu_sweep`

Prints a Markdown table: programs, seconds until the first chunk and in total, and the share of the time after the first program
in which the devices waited; with empty caches (cold) and again with cached programs (warm). It takes about 8 minutes on a
machine with a GPU. `--sweeps quickstart` runs only the small sweep, and `--smoke` uses tiny sizes, to try it anywhere.

Goals on a GPU: quickstart cold under 45 s, superiority under 3 minutes, devices idle for less than half of the time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_SECONDS = 480


def run_one(name: str, out: str, smoke: bool) -> dict[str, Any]:
    """Runs a sweep in this process, as the command line does."""
    start = time.perf_counter()
    from tsjax.cli.app import start as start_process

    start_process()
    import jax

    from tsjax.sweep.commits import ChunkDone
    from tsjax.sweep.plan import Plan
    from tsjax.sweep.run import run_spec
    from tsjax.sweep.spec import load_spec

    seen: dict[str, Any] = {"first": None, "programs": 0, "idle": 0.0, "run": 0.0}

    def listener(plan: Plan, stream: Iterable[ChunkDone]) -> Iterator[ChunkDone]:
        seen["programs"] = plan.programs
        for done in stream:
            seen["first"] = seen["first"] or time.perf_counter() - start
            seen["idle"], seen["run"] = done.idle_seconds, seen["run"] + done.seconds
            yield done

    spec = load_spec(ROOT / f"sweeps/{name}.toml")
    result = run_spec(spec.at_smoke_size() if smoke else spec, out=out, listener=listener)
    held = sum(verdict.outcome == "holds" for verdict in result.verdicts())
    device = jax.devices()[0]
    return {
        **seen,
        "device": f"{jax.device_count()} x {device.device_kind}",
        "seconds": time.perf_counter() - start,
        "verdicts": f"{held}/{len(spec.expect)}",
    }


def fresh(name: str, platform: str, cache: Path, smoke: bool) -> dict[str, Any] | str:
    """The same in a process of its own; or the reason why there is no result."""
    environment = {**os.environ, "TSJAX_CACHE_DIR": str(cache)}
    if platform == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks", "gpu_sweep", "--worker", name, f"{folder}/store"]
        command += ["--smoke"] if smoke else []
        try:
            done = subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not done after {_SECONDS} s"
    if done.returncode != 0:
        return f"failed: {done.stderr.strip().splitlines()[-1]}"
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="benchmarks gpu_sweep", description=__doc__)
    parser.add_argument("--sweeps", nargs="+", default=["quickstart", "superiority"], help="sweeps that ship")
    parser.add_argument("--platforms", nargs="+", default=["accelerator", "cpu"], help="accelerator, cpu (both)")
    parser.add_argument("--smoke", action="store_true", help="the tiny sizes")
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        name, store = options.worker
        print(json.dumps(run_one(name, store, options.smoke)))
        return
    print("| sweep | devices | caches | programs | first chunk, s | all, s | devices idle, % | verdicts that hold |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.sweeps:
        for platform in options.platforms:
            with tempfile.TemporaryDirectory() as folder:
                for caches in ("cold", "warm"):
                    found = fresh(name, platform, Path(folder) / "cache", options.smoke)
                    if isinstance(found, str):
                        print(f"| {name} | {platform} | {caches} | {found} | | | | |", flush=True)
                        break
                    idle = 100 * found["idle"] / max(found["idle"] + found["run"], 1e-9)
                    print(
                        f"| {name} | {found['device']} | {caches} | {found['programs']} | {found['first']:.1f} | "
                        f"{found['seconds']:.1f} | {idle:.0f} | {found['verdicts']} |",
                        flush=True,
                    )
