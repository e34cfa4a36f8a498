"""Progress of a running sweep on standard error: a live display in a terminal, and one line for each chunk elsewhere."""

import html
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..sweep.classes import SPEEDS, seconds_at, seconds_from, work_of
from ..sweep.commits import ChunkDone
from ..sweep.devices import peak_memory, usable_devices
from ..sweep.plan import Group as CellGroup
from ..sweep.plan import Plan
from ..sweep.records import failed_cells
from ..sweep.values import labels_of, name_of_value, text_of
from .numbers import duration, prefixed
from .terminal import Text
from .terminal import console as standard_console

# The most lines of the live display about single curves.
_CURVES = 12
# Seconds between lines about cells that other processes run.
_SLOWLY = 10.0


def watch(plan: Plan, stream: Iterable[ChunkDone], console: Console | None = None) -> Iterator[ChunkDone]:
    """Passes on a stream of finished chunks, and shows the progress of the plan.

    It is the `listener` of `tsjax.sweep.run.run_spec`. By default, `console` is standard error.
    """
    shown = standard_console(stderr=True) if console is None else console
    meter = Meter(plan)
    if console is None and is_notebook():
        yield from _in_notebook(meter, stream)
    elif shown.is_terminal and not shown.is_dumb_terminal:
        # Output of cells goes above the display, but a piped standard output never goes to standard error.
        above = sys.stdout.isatty()
        with Live(get_renderable=meter.render, console=shown, redirect_stdout=above) as live:
            for done in stream:
                meter.add(done)
                live.refresh()
                yield done
    else:
        yield from _log(meter, stream, shown)


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _in_notebook(meter: "Meter", stream: Iterable[ChunkDone]) -> Iterator[ChunkDone]:
    """Shows a bar without widgets, which becomes one line of text at the end."""
    from IPython.display import display  # pyright: ignore[reportMissingImports]

    def shown(text: str, bar: bool) -> dict[str, str]:
        found = {"text/plain": text}
        if bar:
            found["text/html"] = (
                f'<progress value="{meter.done}" max="{max(meter.total, 1)}"></progress> {html.escape(text)}'
            )
        return found

    start = time.monotonic()
    handle: Any = display(shown("compiling", True), raw=True, display_id=True)
    for done in stream:
        meter.add(done)
        text = f"cells {meter.done}/{meter.total}" if done.resumed or done.records is None else meter.line(done)
        handle.update(shown(text, True), raw=True)
        yield done
    facts = "".join(f", {fact}" for fact in meter.facts() if "cells/s" not in fact)
    text = f"{meter.done} of {meter.total} cells in {duration(time.monotonic() - start)}{facts}"
    handle.update(shown(text, False), raw=True)


def _log(meter: "Meter", stream: Iterable[ChunkDone], console: Console) -> Iterator[ChunkDone]:
    """Prints one line for every chunk that was run. Successive chunks found in the store share a line, unless they come slowly,
    as other processes finish them."""
    found, since = 0, time.monotonic()
    for done in stream:
        if done.resumed:
            meter.add(done)
            found += done.cells
            if time.monotonic() - since > _SLOWLY:
                found, since = _log_found(meter, found, console), time.monotonic()
        else:
            found, since = _log_found(meter, found, console), time.monotonic()
            meter.add(done)
            console.print(Text(meter.line(done)), soft_wrap=True, highlight=False)
        yield done
    _log_found(meter, found, console)


def _log_found(meter: "Meter", found: int, console: Console) -> int:
    if found:
        text = Text(f"cells {meter.done}/{meter.total}  {found} found in the store")
        console.print(text, soft_wrap=True, highlight=False)
    return 0


class Meter:
    """Counts of a running plan.

    - `total`, `done`, `resumed`, `failed`: the numbers of all cells, and of those finished, found in the store, and failed.
    - `cell_rate`, `work_rate` (per second), `seconds_left`: None while unknown.
    """

    def __init__(self, plan: Plan):
        self.total, self.done, self.resumed, self.failed = plan.cells, 0, 0, 0
        self._plan = plan
        static = plan.experiment.shaping
        self._labels = {name: labels_of(group.static[name] for group in plan.groups) for name in static}
        self._varying = [name for name in static if len(self._labels[name]) > 1]
        self._work_of = [work_of(group.cost) for group in plan.groups]
        self._speeds = SPEEDS.get(usable_devices()[0].platform, SPEEDS["gpu"])
        self._left = [len(group.cells) for group in plan.groups]
        self._programs = [group.program(plan.experiment) for group in plan.groups]
        self._compiled: dict[str, float] = {}
        self._failed = [0] * len(plan.groups)
        self._last, self._just_compiled = 0, False
        self._started = time.monotonic()
        # As text, since every refresh of the display needs them.
        self._curves = [
            repr({k: v for k, v in group.static.items() if k != plan.experiment.x}) for group in plan.groups
        ]
        # The cells (of each group and in total) and the work that were run, and the device seconds that they took.
        self._spent: dict[int, tuple[int, float]] = {}
        self._run, self._run_seconds = 0, 0.0
        self._work, self._work_seconds = 0.0, 0.0
        self._idle_seconds = 0.0

    def add(self, done: ChunkDone) -> None:
        """Counts one finished chunk."""
        self._idle_seconds = done.idle_seconds
        group = next(i for i, other in enumerate(self._plan.groups) if other.static == done.static)
        self._left[group] -= done.cells
        self.done += done.cells
        if done.resumed or done.records is None:
            self.resumed += done.cells
            return
        self._last = group
        cells = done.records.drop_duplicates("cell")
        self._failed[group] += failed_cells(done.records, self._plan.experiment.y[0])
        self.failed = sum(self._failed)
        self._just_compiled = self._programs[group] not in self._compiled
        self._compiled.setdefault(self._programs[group], float(cells["compile_seconds"].iloc[0]))
        self._run += done.cells
        count, seconds = self._spent.get(group, (0, 0.0))
        self._spent[group] = count + done.cells, seconds + done.seconds
        self._run_seconds += done.seconds
        work = self._plan.experiment.work
        if work is not None and work in cells:
            self._work += float(cells[work].to_numpy(float).sum())
            self._work_seconds += done.seconds

    @property
    def cell_rate(self) -> float | None:
        """Cells run per second since the start, including compilation."""
        elapsed = time.monotonic() - self._started
        return self._run / elapsed if self._run and elapsed > 0 else None

    @property
    def work_rate(self) -> float | None:
        """Units of the experiment's `work` per second of running, excluding compilation."""
        return self._work / self._work_seconds if self._work and self._work_seconds > 0 else None

    @property
    def idle_share(self) -> float | None:
        """An upper bound on the share of the time since the first compilation during which devices waited, apart from other
        compilations; None while it is at most 0.1."""
        share = self._idle_seconds / (self._idle_seconds + self._run_seconds) if self._run_seconds > 0 else 0.0
        return share if share > 0.1 else None

    @property
    def seconds_left(self) -> float | None:
        """The time of programs still to compile, at the average so far, and of cells still to run. The time of a cell is the
        mean in its own group, and otherwise follows from the groups of the same curve that ran, by
        `tsjax.sweep.classes.seconds_from`, as in the estimate of the plan. A cell of a curve that has not run yet takes as long
        as at the speeds of `classes.SPEEDS`, but at least as long as the shortest cells so far."""
        if not self._spent:
            return None
        run: dict[str, list[tuple[float, float]]] = {}
        for i, (count, seconds) in self._spent.items():
            run.setdefault(self._curves[i], []).append((self._work_of[i], seconds / count))
        shortest = min(seconds for cells in run.values() for _, seconds in cells)

        def seconds_of(group: int) -> float:
            if group in self._spent:
                count, seconds = self._spent[group]
                return seconds / count
            known, cost = run.get(self._curves[group]), self._plan.groups[group].cost
            if known is not None:
                return seconds_from(known, cost, self._speeds)
            return shortest if cost is None else max(shortest, seconds_at(cost, self._speeds))

        compiling = sum(self._compiled.values()) / len(self._compiled)
        programs = {self._programs[i] for i, left in enumerate(self._left) if left > 0} - self._compiled.keys()
        return len(programs) * compiling + sum(left * seconds_of(i) for i, left in enumerate(self._left) if left > 0)

    @property
    def current(self) -> int | None:
        """The group being run: the last one that ran, or the next one with cells still to run; None at the end."""
        order = [*range(self._last, len(self._left)), *range(self._last)]
        return next((i for i in order if self._left[i] > 0), None)

    def curves(self) -> list[tuple[str, int, int, int]]:
        """Name, cells, cells done and cells failed of each curve, in the order of the plan."""
        name = self._plan.experiment.curve
        counts: dict[str, list[int]] = {}
        for i, group in enumerate(self._plan.groups):
            label = self._plan.experiment.name
            if name is not None:
                label = name_of_value(group.static[name]) if name in group.static else name
            row = counts.setdefault(label, [0, 0, 0])
            cells = len(group.cells)
            for j, count in enumerate((cells, cells - self._left[i], self._failed[i])):
                row[j] += count
        return [(label, cells, done, failed) for label, (cells, done, failed) in counts.items()]

    def label(self, group: CellGroup) -> str:
        """A group by the static arguments that vary in the plan, the curve's name first: `student n=1024 d=5`."""
        experiment = self._plan.experiment
        first = [name for name in (experiment.curve, experiment.x) if name in self._varying]
        names = [*first, *(name for name in self._varying if name not in first)]
        words = [
            name_of_value(value) if name == experiment.curve else f"{name}={self._labels[name][text_of(value)]}"
            for name, value in ((name, group.static[name]) for name in names)
        ]
        return " ".join(words) or experiment.name

    def facts(self) -> list[str]:
        """Throughput, failures and resumed cells, if known and not 0."""
        found = [f"{self.failed} failed"] if self.failed else []
        if self.cell_rate is not None:
            found.append(f"{prefixed(self.cell_rate)} cells/s")
        if self.work_rate is not None and self._plan.experiment.work is not None:
            found.append(f"{prefixed(self.work_rate)} {self._plan.experiment.work.replace('_', '-')}/s")
        if self.idle_share is not None:
            found.append(f"devices idle {100 * self.idle_share:.0f} %")
        if self.resumed:
            found.append(f"{self.resumed} resumed")
        return found

    def line(self, done: ChunkDone) -> str:
        """One line about a chunk that was run: `cells 64/448  student n=256  12.3 cells/s  ...  about 40 s left`."""
        words = [f"cells {self.done}/{self.total}", self.label(self._plan.groups[self._last])]
        words.append(f"chunk in {duration(done.seconds)}")
        if self._just_compiled and not self._plan.experiment.black_box:
            words.append(f"compiled in {duration(self._compiled[self._programs[self._last]])}")
        words += self.facts()
        if self.seconds_left is not None and self.done < self.total:
            words.append(f"about {duration(self.seconds_left)} left")
        return "  ".join(words)

    def render(self) -> ConsoleRenderable:
        """The live display: a bar with counts and time left, then the present group and its speed."""
        counts = f"{self.done}/{self.total} cells"
        memory = peak_memory()
        if memory:
            counts += f"  {prefixed(memory, 'B')} of memory"
        if self.seconds_left is not None and self.done < self.total:
            counts += f"  about {duration(self.seconds_left)} left"
        bar = Table.grid(expand=True, padding=(0, 2, 0, 0))
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(ProgressBar(total=max(self.total, 1), completed=self.done), Text(counts))
        current, what = self.current, "done"
        if current is not None:
            what = self.label(self._plan.groups[current])
            compiles = not self._plan.experiment.black_box and self._programs[current] not in self._compiled
            what += ": compiling" if compiles else ""
        # Always one line, since a display that grows and shrinks makes the terminal jump.
        text = Text(what, style="cyan", no_wrap=True, overflow="ellipsis")
        for fact in self.facts():
            text.append("  ")
            text.append(fact, style="red" if fact.endswith(" failed") else "default")
        curves = self.curves()
        if len(curves) == 1:
            return Group(bar, text)
        rows = Table.grid(padding=(0, 2, 0, 0))
        rows.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
        rows.add_column(width=20)
        rows.add_column(justify="right", no_wrap=True)
        rows.add_column(no_wrap=True, style="red")
        # Unfinished curves first, if there are more than the display shows.
        shown = sorted(curves, key=lambda row: row[2] == row[1])[:_CURVES] if len(curves) > _CURVES else curves
        for label, cells, done, failed in shown:
            progress = ProgressBar(total=cells, completed=done, width=20)
            rows.add_row(Text(label), progress, f"{done}/{cells}", f"{failed} failed" if failed else "")
        if len(curves) > _CURVES:
            rows.add_row(Text(f"and {len(curves) - _CURVES} more"))
        return Group(bar, text, rows)
