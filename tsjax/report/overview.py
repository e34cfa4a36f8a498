"""Terminal output of a sweep's cost, its progress, and its machine."""

from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from ..sweep.coverage import Coverage
from ..sweep.estimate import PlanEstimate
from ..sweep.values import labels_of, text_of
from .numbers import duration, notes_of, prefixed
from .tables import compact_table, marked
from .terminal import Text

# The most different reasons for failed cells that are shown.
_REASONS = 5


def print_plan(estimate: PlanEstimate, console: Console) -> None:
    """Prints cells, chunks, programs, memory, operations and time, curve by curve and in total."""
    curves = estimate.curves
    if not curves:
        console.print("nothing is left to run: the store holds every cell.", highlight=False)
        return
    # Arguments that are the same everywhere do not distinguish curves.
    names = [name for name in curves[0].static if len({repr(curve.static.get(name)) for curve in curves}) > 1]
    labels = {name: labels_of(curve.static[name] for curve in curves) for name in names}
    rows = [
        (
            ", ".join(f"{name}={labels[name][text_of(curve.static[name])]}" for name in names) or "all cells",
            str(curve.cells),
            str(curve.chunks),
            str(curve.programs),
            "–" if curve.bytes is None else prefixed(curve.bytes, "B"),
            "–" if curve.operations is None else prefixed(curve.operations),
            "–" if curve.seconds is None else duration(curve.seconds),
        )
        for curve in curves
    ]
    headings = ("cells that share", "cells", "chunks", "programs", "memory", "FLOP", "time")
    table = compact_table("Plan", list(zip(headings, map(list, zip(*rows, strict=True)), strict=True)))
    console.print(table, highlight=False)
    seconds = [curve.seconds for curve in curves if curve.seconds is not None]
    total = Text(f"{sum(curve.cells for curve in curves)} cells in {sum(curve.chunks for curve in curves)} chunks, ")
    programs = sum(curve.programs for curve in curves)
    total.append(f"{programs} programs to compile" if programs else "nothing to compile")
    total.append(f", about {duration(sum(seconds))} on this machine" if len(seconds) == len(curves) else "")
    measured = sum(curve.measured for curve in curves)
    total.append(f" (measured for {measured} of {len(curves)} rows)." if measured else ".")
    if programs:
        total.append(f" A chunk may take {prefixed(estimate.budget, 'B')} of memory.")
    console.print(total, highlight=False)
    lacks = [
        (
            "time",
            len(seconds) < len(curves),
            "once a few cells have run (--smoke), or if the experiment states its cost=",
        ),
        (
            "memory",
            any(curve.bytes is None for curve in curves),
            "once a program was compiled, by a run or by --compile",
        ),
        ("FLOP", any(curve.operations is None for curve in curves), "if the experiment states its cost="),
    ]
    known = "; ".join(f"{name} is known {when}" for name, lacking, when in lacks if lacking)
    if known:
        console.print(Text(f"–: {known}.", style="italic"), highlight=False)


def print_status(status: dict[str, Any], console: Console) -> None:
    """Prints the findings of `tsjax.sweep.status.sweep_status`: cells done and failed, curve by curve."""
    if status["claim"]:
        console.print(Text(status["claim"], style="italic"))
    rows = status["curves"]
    names = ("curve", "cells", "done", "failed")
    columns = [(name, [str(row[name]) for row in rows]) for name in names]
    console.print(compact_table(status["path"], columns), highlight=False)
    done, cells, failed = status["done"], status["cells"], status["failed"]
    state = "complete" if done == cells else f"{100 * done / max(cells, 1):.0f} % done"
    text = Text(f"{done} of {cells} cells, {state}, {failed} failed, {duration(status['seconds'])} of computing")
    left = status["seconds_left"]
    text.append(f", about {duration(left)} left." if left else ".")
    console.print(text, highlight=False)
    for reason, count in list(status["failures"].items())[:_REASONS]:
        console.print(Text(f"{count} failed: {reason}", style="red"), highlight=False)
    coverage = Coverage(
        cells,
        done,
        damaged=tuple(status["damaged"]),
        foreign=tuple(status["foreign"]),
        verified=status["verified"],
        mixed=tuple(status["notes"]),
        beyond=status.get("beyond_plan", 0),
    )
    # The lines above already say that some cells are still to be run.
    notes = notes_of(coverage) if coverage.damaged else notes_of(replace(coverage, done=cells))
    if notes:
        console.print(marked(notes, "yellow"), highlight=False)


def print_shipped(rows: list[dict[str, Any]], console: Console) -> None:
    """Prints the sweeps that ship with tsjax: name, claim, cells, and the time that they took on two cores."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("sweep", no_wrap=True)
    table.add_column("claim", ratio=1)
    table.add_column("cells", justify="right", no_wrap=True)
    table.add_column("two cores", justify="right", no_wrap=True)
    for row in rows:
        time = "–" if row["minutes"] is None else duration(60.0 * row["minutes"])
        table.add_row(row["name"], Text(row["claim"]), str(row["cells"]), time)
    console.print(table, highlight=False)
    console.print(Text("Run one with tsjax run NAME; tsjax plan NAME says what it takes on this machine."))


def print_doctor(content: dict[str, Any], console: Console) -> None:
    """Prints the findings of `tsjax.sweep.doctor.examine`."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    bridge = content["bridge"]
    bridge_style = "green" if bridge["ok"] else "bold red"
    versions = ", ".join(f"{name} {number or 'missing'}" for name, number in content["versions"].items())
    entries = {
        "devices": Text(f"{', '.join(content['devices'])} (backend {content['backend']})"),
        "machine": Text(f"{content['cores']} cores, {prefixed(content['memory_bytes'], 'B')} of memory"),
        "versions": Text(f"python {content['python']}, {versions}"),
        "64-bit types": Text("on" if content["x64"] else "off"),
        "infinite networks": Text(f"{'' if bridge['ok'] else 'broken: '}{bridge['detail']}", style=bridge_style),
        "kernel in C": Text(
            f"{'used on CPUs' if content['native']['used'] else 'not used'}: {content['native']['detail']}"
        ),
        "kernel for GPUs": Text(
            f"{'used on CUDA devices' if content['fused']['used'] else 'not used'}: {content['fused']['detail']}"
        ),
        "XLA": Text(content["compiler"] or "as it is by default"),
        "compilation cache": Text(
            content["compilation_cache"] or "none; set JAX_COMPILATION_CACHE_DIR to a folder to compile only once"
        ),
        "BLAS": Text(content["blas"]),
    }
    for name, text in entries.items():
        grid.add_row(Text(name), text)
    console.print(grid, highlight=False)
    verdict = Text("all is well.", style="green") if content["ok"] else Text("something is broken.", style="bold red")
    console.print(verdict, highlight=False)
