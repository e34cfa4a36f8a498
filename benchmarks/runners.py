"""Tools that run grids, with the same cells: `uv run --group runners python -m benchmarks runners`.

Every row times whole commands in processes of their own, one tool after the other on one core, so that ratios within a column
come from one session. It gives seconds for 1, 1000 and 100,000 trivial cells; and, for a grid of 4 points by 5 seeds whose
cells take a fifth of a second, how many cells run again after SIGKILL half-way, after adding a point to the grid, and after one
cell fails. `tests/test_benchmarks.py` checks that all installed tools do the same work.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .runner_ways import WAYS

POINTS, SEEDS, SECONDS = 4, 5, 0.2


def _start(tool: str, folder: Path, *options: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.runner_ways", tool, str(folder), *map(str, options)]
    # Under `uv run`, Ray would start its workers with uv too, in an environment of their own.
    settings = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    settings["TSJAX_CACHE_DIR"] = str(folder.parent / "cache")
    with open(folder.parent / "log", "ab") as log:
        return subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True)


def _end(process: subprocess.Popen) -> None:
    """Sends SIGKILL to the process and to all processes that it has started, which may have sessions of their own."""
    import psutil  # pyright: ignore[reportMissingModuleSource]

    family = [psutil.Process(process.pid)]
    family += family[0].children(recursive=True)
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def _count(tool: str, folder: Path) -> int:
    command = [sys.executable, "-m", "benchmarks.runner_ways", tool, str(folder), "--count"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def _begun(folder: Path) -> int:
    path = folder / "begun"
    return path.stat().st_size if path.exists() else 0


def overhead(tool: str, cells: int, limit: float) -> str:
    """Seconds of the whole command, or how many cells had begun at the limit."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name) / "grid"
        folder.mkdir()
        points = min(cells, 10)
        start = time.perf_counter()
        process = _start(tool, folder, "--points", points, "--seeds", cells // points)
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            begun = _begun(folder)
            _end(process)
            return f"{begun} cells in {limit:.0f} s"
        seconds = time.perf_counter() - start
        if code:
            return "failed: " + _last_line(folder)
        counted = _count(tool, folder)
        return f"{seconds:.1f}" if counted == cells else f"{seconds:.1f}, {counted} of {cells} results"


def _last_line(folder: Path) -> str:
    lines = (folder.parent / "log").read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:120]


def _run(tool: str, folder: Path, limit: float, *options: object) -> tuple[int | str, int, int]:
    """(exit code, cells that began, results that can be read) of one command."""
    before = _begun(folder)
    process = _start(tool, folder, "--seeds", SEEDS, "--seconds", SECONDS, *options)
    try:
        code: int | str = process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        _end(process)
        code = f"ended after {limit:.0f} s"
    return code, _begun(folder) - before, _count(tool, folder)


def behaviour(tool: str, limit: float) -> list[str]:
    """The effects of a kill, of a larger grid and of a failing cell, as entries of a table row."""
    cells, row = POINTS * SEEDS, []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name) / "grid"
        folder.mkdir()
        process = _start(tool, folder, "--seeds", SEEDS, "--seconds", SECONDS, "--points", POINTS)
        deadline = time.monotonic() + limit
        while _begun(folder) < cells // 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is not None:
            return [f"failed: {_last_line(folder)}", "", ""]
        _end(process)
        killed = _begun(folder)
        code, again, results = _run(tool, folder, limit, "--points", POINTS)
        row.append(f"{killed} begun, then {again}: {results} of {cells} results{_said(code)}")
        code, more, results = _run(tool, folder, limit, "--points", POINTS + 1)
        row.append(f"{more} begun for {SEEDS} new: {results} of {cells + SEEDS} results{_said(code)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name) / "grid"
        folder.mkdir()
        code, begun, results = _run(tool, folder, limit, "--points", POINTS, "--fail", POINTS // 2)
        # The key of a JAX cell does not show its seed, so there all cells of the point fail.
        good = cells - (SEEDS if tool == "tsjax" else 1)
        row.append(f"{begun} begun: {results} of {good} results{_said(code)}")
    return row


def _said(code: int | str) -> str:
    return "" if code == 0 else f", exit code {code}" if isinstance(code, int) else f", {code}"


def main(arguments: list[str]) -> None:
    """Prints two tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks runners", description="Tools that run grids.")
    parser.add_argument("--tools", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="TOOL")
    parser.add_argument("--cells", type=int, nargs="*", default=[1, 1000, 100_000], help="sizes of trivial grids")
    parser.add_argument("--limit", type=float, default=200.0, help="seconds that one command may take (200)")
    parser.add_argument("--only", choices=["overhead", "behaviour"], help="one of the two tables")
    options = parser.parse_args(arguments)
    if options.only != "behaviour":
        print(f"| tool | {' | '.join(f'{cells} cells, s' for cells in options.cells)} |")
        print("|---" * (1 + len(options.cells)) + "|")
        for tool in options.tools:
            row: list[str] = []
            for cells in options.cells:
                slow = row and not row[-1].replace(".", "").isdigit()
                row.append("not run" if slow else overhead(tool, cells, options.limit))
            print(f"| {tool} | {' | '.join(row)} |", flush=True)
    if options.only != "overhead":
        print("\n| tool | SIGKILL, then repeated | one point more | one cell fails |\n|---|---|---|---|")
        for tool in options.tools:
            print(f"| {tool} | {' | '.join(behaviour(tool, options.limit))} |", flush=True)
