import dataclasses
import io

import pandas as pd
import pytest
from rich.console import Console

from tsjax.report import progress
from tsjax.report.progress import Meter, watch
from tsjax.sweep.classes import Shared
from tsjax.sweep.commits import ChunkDone
from tsjax.sweep.experiment import Cost, experiment
from tsjax.sweep.plan import Plan, make_plan
from tsjax.sweep.spec import parse_spec


@experiment(
    static=("method", "n", "d"),
    curve="method",
    work="student_steps",
    # 0.1 seconds at n = 256, at the speed that is assumed of CPUs.
    cost=lambda arguments: Cost(products=1e9 * arguments["n"] / 256),
)
def never_run(key, *, method: str, n: int, d: int):
    raise AssertionError("the tests of progress run nothing")


def _plan(**grid) -> Plan:
    grid = {"n": [256, 1024], "method": ["student", "ntk"], "d": 5, "seeds": 8, **grid}
    return make_plan(parse_spec({"study": "test_progress:never_run", "grid": grid}), never_run)


def _done(plan: Plan, group: int, cells: range, *, seconds=2.0, compiled=3.0, failed=0, resumed=False) -> ChunkDone:
    """A chunk of some cells of a group; each cell has two rows, as an experiment that returns vectors has."""
    part = plan.groups[group]
    if resumed:
        return ChunkDone(part.static, len(cells), None, 0.0, resumed=True)
    ids = [part.cells[i].id for i in cells]
    status = [2] * failed + [0] * (len(ids) - failed)
    records = pd.DataFrame({"cell": ids, "status": status, "compile_seconds": compiled, "student_steps": 500})
    if part.static["method"] != "student":
        records = records.drop(columns="student_steps")
    return ChunkDone(part.static, len(cells), pd.concat([records, records]), seconds, resumed=False)


def _names(plan: Plan) -> list[str]:
    meter = Meter(plan)
    return [meter.label(group) for group in plan.groups]


def test_labels_tell_what_varies():
    assert _names(_plan()) == ["student n=256", "ntk n=256", "student n=1024", "ntk n=1024"]
    assert _names(_plan(d=[5, 10], n=256, method="ntk")) == ["d=5", "d=10"]
    assert "student n=1024 d=10" in _names(_plan(d=[5, 10]))
    assert _names(_plan(n=256, method="ntk")) == ["never_run"]


@experiment(static=("method", "n", "d", "rate"), curve="method")
def of_all_kinds(key, *, method: str, n: int, d: int | tuple[int, ...] | None | bool, rate: float):
    raise AssertionError("the tests of progress run nothing")


def test_no_two_labels_are_alike():
    grid = {"n": 4, "method": "a", "rate": [0.123456, 0.123457], "d": [7, None, True, [2, 3]], "seeds": 1}
    plan = make_plan(parse_spec({"study": "test_progress:of_all_kinds", "grid": grid}), of_all_kinds)
    labels = [Meter(plan).label(group) for group in plan.groups]
    assert len(set(labels)) == len(labels) == 8
    assert "d=none rate=0.123456" in labels and "d=2-3 rate=0.123457" in labels and "d=true rate=0.123456" in labels


def test_labels_neither_steer_a_terminal_nor_show_secrets():
    plan = _plan(method=["\x1b[2J", "s3://key:secret@bucket/x"], n=256)
    for options in ({}, {"force_terminal": True, "color_system": None}):
        out = io.StringIO()
        done = [_done(plan, 0, range(8)), _done(plan, 1, range(8))]
        list(watch(plan, done, Console(file=out, width=80, **options)))
        assert "\x1b[2J" not in out.getvalue() and "secret" not in out.getvalue() and "\\x1b[2J" in out.getvalue()


def test_meter_counts_cells_not_rows():
    plan = _plan()
    meter = Meter(plan)
    assert (meter.total, meter.done, meter.current) == (32, 0, 0)
    assert meter.seconds_left is None and meter.cell_rate is None and meter.work_rate is None
    meter.add(_done(plan, 0, range(3), resumed=True))
    meter.add(_done(plan, 0, range(3, 8), failed=2))
    assert (meter.done, meter.resumed, meter.failed, meter.current) == (8, 3, 2, 1)
    # Five students of 500 steps in two seconds.
    assert meter.work_rate == 1250
    meter.add(_done(plan, 1, range(8)))
    assert meter.work_rate == 1250  # A chunk without work takes no part.
    assert meter.cell_rate is not None and meter.cell_rate > 0


def test_idle_devices_are_reported_from_a_tenth_on():
    plan = _plan()
    meter = Meter(plan)
    for group, idle, share in ((0, 0.1, None), (1, 1.0, 0.2), (2, 6.0, 0.5)):
        meter.add(dataclasses.replace(_done(plan, group, range(8)), idle_seconds=idle))
        assert meter.idle_share == (None if share is None else pytest.approx(share))
    assert "devices idle 50 %" in meter.facts()


def test_time_left_weighs_cells_by_cost_and_counts_compilations():
    plan = _plan()
    meter = Meter(plan)
    meter.add(_done(plan, 0, range(8), seconds=4.0, compiled=3.0))
    # 8 cells of 10^9 operations took 4 s. Left: 8 cells of the same curve with 3 10^9 operations more, for which CPUs are
    # assumed to need 0.3 s; two groups of the other curve, whose cells take 0.5 s like those, as they have fewer operations
    # than CPUs are assumed to do in this time; and three programs of 3 s.
    assert meter.seconds_left == pytest.approx(8 * (0.5 + 0.3) + 8 * 0.5 + 8 * 0.5 + 9)
    for group in (1, 2, 3):
        meter.add(_done(plan, group, range(8)))
    assert meter.seconds_left == 0 and meter.current is None


def test_time_left_goes_by_the_nearest_cells_of_the_same_curve():
    plan = _plan()  # student and ntk at 256, then at 1024.
    meter = Meter(plan)
    meter.add(_done(plan, 0, range(8), seconds=1.0, compiled=0.0))
    meter.add(_done(plan, 1, range(8), seconds=10.0, compiled=0.0))
    # Cells of four times the operations take at most four times as long, and 0.3 s more at the speed that is assumed of CPUs.
    assert meter.seconds_left == pytest.approx(8 * (0.125 + 0.3) + 8 * (1.25 + 0.3))
    # Four students at 1024 say how long the other four take. The NTK has no better witness than before.
    meter.add(_done(plan, 2, range(4), seconds=1.0, compiled=0.0))
    assert meter.seconds_left == pytest.approx(4 * 0.25 + 8 * (1.25 + 0.3))


# Seconds of running and of compiling, for each size: with a program for each, and with one for all, where the first run of a
# program takes longer.
_ALONE = {
    "student": [(0.274, 21), (0.322, 27), (0.537, 29), (0.916, 26), (0.959, 25)],
    "ntk": [(0.649, 24), (0.843, 27), (1.36, 23), (3.98, 21), (17.0, 35)],
}
_TOGETHER = {
    "student": [(0.331, 10), (0.342, 0), (0.514, 0), (0.57, 0), (0.721, 0)],
    "ntk": [(2.51, 21), (2.14, 0), (2.41, 0), (4.27, 0), (13.0, 0)],
}


@pytest.mark.parametrize("took", [_ALONE, _TOGETHER], ids=["a program for each size", "one program"])
def test_time_left_does_not_jump(took):
    """A quickstart as it ran, in seconds: at every chunk within a factor of 2.5 of what then came."""
    sizes = [128, 256, 512, 1024, 2048]

    def operations(arguments):
        n = float(arguments["n"])
        return Cost(products=3e5 * n) if arguments["method"] == "student" else Cost(0.0, 9 * n**3)

    @experiment(static=("method",), sized=("n",), curve="method", cost=operations)
    def as_it_ran(key, *, method: str, n: int):
        raise AssertionError("the tests of progress run nothing")

    grid = {"method": list(took), "n": sizes, "seeds": 8}
    plan = make_plan(parse_spec({"study": "test_progress:as_it_ran", "grid": grid}), as_it_ran, deep=False)
    shared = Shared((max(sizes),)) if took is _TOGETHER else Shared()
    plan = dataclasses.replace(plan, shared=(shared,) * len(plan.portions))
    steps = [took[group.static["method"]][sizes.index(group.static["n"])] for group in plan.groups]
    meter, left = Meter(plan), sum(map(sum, steps))
    for number, (seconds, compiled) in enumerate(steps):
        ids = [cell.id for cell in plan.groups[number].cells]
        records = pd.DataFrame({"cell": ids, "status": 0, "compile_seconds": float(compiled)})
        meter.add(ChunkDone(plan.groups[number].static, len(ids), records, seconds, resumed=False))
        left -= seconds + compiled
        if number < len(steps) - 1:
            assert meter.seconds_left is not None and 1 / 2.5 < meter.seconds_left / left < 2.5, number


def _chunks(plan: Plan) -> list[ChunkDone]:
    return [
        _done(plan, 0, range(4), resumed=True),
        _done(plan, 0, range(4, 8), failed=1),
        *(_done(plan, group, range(8)) for group in (1, 2)),
        _done(plan, 3, range(8), resumed=True),
    ]


def test_log_has_one_line_for_each_chunk_and_passes_all_on():
    plan, out = _plan(), io.StringIO()
    chunks = _chunks(plan)
    assert list(watch(plan, chunks, Console(file=out, width=80))) == chunks
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "cells 4/32",
        "cells 8/32",
        "cells 16/32",
        "cells 24/32",
        "cells 32/32",
    ]
    assert "found in the store" in lines[0] and "found in the store" in lines[-1]
    assert "student n=256" in lines[1] and "compiled in 3 s" in lines[1] and "1 failed" in lines[1]
    assert "student-steps/s" in lines[1] and "4 resumed" in lines[1] and "left" in lines[1]
    assert "\x1b" not in out.getvalue()


def test_live_display_ends_complete_and_fits():
    plan, out = _plan(), io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    seen = 0
    for done in watch(plan, _chunks(plan), console):
        seen += done.cells
    assert seen == plan.cells and "32/32 cells" in out.getvalue()
    assert "ntk n=256: compiling" in out.getvalue()


def test_live_display_in_the_middle_of_a_group():
    plan = _plan()
    meter = Meter(plan)
    lines = _rendered(meter)
    assert "0/32 cells" in lines[0] and lines[1].strip() == "student n=256: compiling"
    meter.add(_done(plan, 0, range(4), failed=1))
    lines = _rendered(meter)
    assert "4/32 cells" in lines[0] and "left" in lines[0]
    assert "compiling" not in lines[1] and "1 failed" in lines[1] and "1k student-steps/s" in lines[1]
    assert "B of memory" in lines[0]
    assert lines[2].split()[0] == "student" and lines[2].split()[-3:] == ["4/16", "1", "failed"]
    assert lines[3].split()[0] == "ntk" and lines[3].split()[-1] == "0/16"


def test_live_display_of_many_curves_has_room_for_those_under_way():
    plan = _plan(method=[f"m{i}" for i in range(20)], n=256)
    meter = Meter(plan)
    for group in range(15):
        meter.add(_done(plan, group, range(8)))
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(meter.render())
    lines = capture.get().splitlines()
    assert [line.split()[0] for line in lines[2:7]] == [f"m{i}" for i in range(15, 20)]
    assert len(lines) == 2 + 12 + 1 and lines[-1].strip() == "and 8 more"


def test_what_a_store_holds_does_not_move_the_group_that_is_shown():
    """A resumed sweep tells of all that it found, then runs the first group that lacks something."""
    plan = _plan()
    meter = Meter(plan)
    for group in (1, 3):
        meter.add(_done(plan, group, range(8), resumed=True))
    assert meter.current == 0
    meter.add(_done(plan, 2, range(8)))
    assert meter.current == 0 and meter.resumed == 16


def _rendered(meter: Meter) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(meter.render())
    lines = capture.get().splitlines()
    assert len(lines) == 2 + 2 and all(len(line) <= 80 for line in lines)
    return lines


def test_the_consumer_may_stop_early():
    plan, out = _plan(), io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    stream = watch(plan, _chunks(plan), console)
    next(stream)
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    # The display has given the cursor back.
    assert out.getvalue().rstrip("\n").endswith("\x1b[?25h")


def test_a_run_reports_through_the_listener(make_toy, tmp_path):
    out = io.StringIO()
    grid = {"n": [128, 256], "method": "student", "seeds": 4}

    def listener(plan, stream):
        return watch(plan, stream, Console(file=out, width=80))

    make_toy(out=tmp_path / "run", listener=listener, chunk=4, commit_seconds=0.0, grid=grid, expect=[])
    again = {**grid, "seeds": 6}
    make_toy(out=tmp_path / "run", listener=listener, chunk=12, commit_seconds=0.0, grid=again, expect=[])
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["cells 4/8", "cells 8/8", "cells 8/12", "cells 12/12"]
    assert "8 found in the store" in lines[2]


class _Shown:
    """What a notebook would show: each state of one cell of output."""

    def __init__(self):
        self.states = []

    def display(self, content, *, raw, display_id):
        assert raw and display_id
        self.states.append(content)
        return self

    def update(self, content, *, raw):
        assert raw
        self.states.append(content)


def test_in_a_notebook_a_bar_that_ends_as_a_line(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown, plan = _Shown(), _plan()
    monkeypatch.setattr(progress, "is_notebook", lambda: True)
    monkeypatch.setattr(display, "display", shown.display)
    chunks = [_done(plan, 0, range(8)), _done(plan, 1, range(8), failed=1), _done(plan, 2, range(8), resumed=True)]
    assert list(watch(plan, iter(chunks))) == chunks
    assert len(shown.states) == 5
    assert '<progress value="16" max="32"></progress> cells 16/32' in shown.states[2]["text/html"]
    last = shown.states[-1]
    assert last.keys() == {"text/plain"} and last["text/plain"].startswith("24 of 32 cells in ")
    assert "1 failed" in last["text/plain"] and "8 resumed" in last["text/plain"]


def test_no_notebook_here():
    assert not progress.is_notebook()
