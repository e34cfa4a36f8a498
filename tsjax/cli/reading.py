"""The commands that only read: a store, without importing or running code that it names, or this machine."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from ..report.terminal import console, say
from .app import NoRecords, app, load, note, print_json, show, start
from .options import Directory, FigureStyle, Json, Model, TableFormat
from .specs import shipped_names, shipped_sweeps


@app.command()
def status(directory: Directory, as_json: Json = False) -> None:
    """Show how far a sweep is, and what failed; works while another process runs it.

    Example: tsjax status runs/superiority
    """
    from ..report import print_status
    from ..sweep.status import sweep_status

    content = sweep_status(directory)
    if as_json:
        print_json(content)
    else:
        print_status(content, console())


@app.command()
def rates(
    directory: Directory,
    model: Model = "power",
    format: Annotated[
        TableFormat, typer.Option(help="Text for the terminal, or a table for a paper.")
    ] = TableFormat.text,
    as_json: Json = False,
) -> None:
    """Show fitted exponents with intervals, beside those that theory predicts over the same window.

    Example: tsjax rates runs/quickstart --model auto --json

    Example: tsjax rates runs/quickstart --format latex
    """
    from ..rates import find_model

    if model != "auto":
        find_model(model)
    if format == TableFormat.text:
        show(load(directory), as_json, model, asked=True)
    elif as_json:
        raise ValueError(f"--json and --format {format}: give one of them.")
    else:
        say(load(directory).table(format.value, model).removesuffix("\n"))


class Incomplete(ValueError):
    """Verdicts that do not rest on all cells of the plan, or on cells that were not verified."""

    exit_code = 4


@app.command()
def verify(
    directory: Directory,
    partial: Annotated[
        bool,
        typer.Option("--partial", metavar="", help="Judge what is there, even if cells are missing or not verified."),
    ] = False,
    corrected: Annotated[
        bool,
        typer.Option(
            "--corrected", metavar="", help="Allow for the number of verdicts (Holm), to pick one out of many."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge the verdicts of a sweep: exit with 0 only if every one holds, on all cells.

    Exit codes: 0 all hold; 1 some fail or are undecided; 2 wrong input; 4 cells are missing, damaged, or cannot be verified,
    unless --partial.

    Example: tsjax verify runs/superiority
    """
    from ..report import coverage_json, print_verdicts, verdicts_json

    try:
        result = load(directory)
    except NoRecords as error:
        raise Incomplete(str(error)) from None
    result.look()
    verdicts = result.verdicts(corrected)
    if not verdicts:
        raise ValueError(
            f"{directory}: this sweep expects nothing: it was run from Python or from a file without [[expect]] tables, or at "
            "smoke size, to which none of them applies."
        )
    if as_json:
        print_json({"verdicts": verdicts_json(result, corrected), "coverage": coverage_json(result.coverage)})
    else:
        print_verdicts(result, console(), corrected)
    if not partial and not result.coverage.whole:
        raise Incomplete(f"{directory} is not complete: {result.coverage.lack}; or judge what is there with --partial.")
    if not partial and not result.coverage.verified:
        raise Incomplete(
            f"{directory} was made by an earlier version of tsjax, and nothing in it can be verified. Run the sweep into a "
            "new store, or judge what is there with --partial."
        )
    if any(verdict.outcome != "holds" for verdict in verdicts):
        raise typer.Exit(1)


class Damaged(ValueError):
    """A store whose description is damaged."""

    exit_code = 1


@app.command()
def check(directory: Directory, as_json: Json = False) -> None:
    """Compare every file of a store with its hash, and say what the store holds and what made it.

    Exit codes: 0 every file is sound, though cells may still be missing; 1 something is damaged, belongs to another sweep, or
    was made by an earlier version and cannot be verified; 2 there is no store.

    Example: tsjax check runs/superiority
    """
    from ..report import check_store, print_check
    from ..sweep.store import DamagedError

    try:
        content = check_store(directory)
    except DamagedError as error:
        raise Damaged(str(error)) from None
    if as_json:
        print_json(content)
    else:
        print_check(content, console())
    if not content["ok"]:
        raise typer.Exit(1)


@app.command()
def report(
    directory: Directory,
    out: Annotated[Path | None, typer.Option(help="Where to write; by default the store itself.")] = None,
    style: Annotated[
        FigureStyle, typer.Option(help="Width of the figures: a column or a page of text.")
    ] = FigureStyle.page,
    as_json: Json = False,
) -> None:
    """Write the figures (PNG, PDF, SVG) and one self-contained, interactive HTML page.

    Example: tsjax report runs/quickstart
    """
    from ..report import coverage_json
    from ..report.numbers import notes_of

    result = load(directory)
    page = result.report(None if out is None else out.expanduser(), style.value)
    note(notes_of(result.coverage))
    if as_json:
        print_json({"page": str(page), "folder": str(page.parent), "coverage": coverage_json(result.coverage)})
    else:
        say(str(page))


@app.command()
def watch(
    directory: Directory,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 takes a free one.")] = 0,
    quiet: Annotated[
        bool, typer.Option("--no-browser", metavar="", help="Say where the page is, but open no browser.")
    ] = False,
) -> None:
    """Serve the page of a sweep while it runs, here or in another process; control-C ends it.

    The page shows how far the sweep is, what failed, and the report of the records so far. It can be reached only from this
    machine.

    Example: tsjax watch runs/superiority
    """
    import threading
    import webbrowser

    from ..report import LiveServer

    with LiveServer(directory, port) as server:
        say(f"{server.url} shows {directory}; control-C ends it.")
        if not quiet:
            # In a thread, since a browser in the terminal would wait for the server, which has not started yet.
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


@app.command()
def figure(
    directory: Directory,
    to: Annotated[Path, typer.Option(help="File to write: figure.svg, figure.png or figure.pdf.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the figure in the report, such as risk_in_n; by default that of the claim."),
    ] = None,
    style: Annotated[FigureStyle, typer.Option(help="Width: a column or a page of text.")] = FigureStyle.page,
    as_json: Json = False,
) -> None:
    """Write one figure, and beside it its caption (.md) and the values that it shows (.csv).

    Example: tsjax figure runs/quickstart --to quickstart.svg
    """
    from ..report import coverage_json, write_captioned
    from ..report.figures import KINDS
    from ..report.numbers import notes_of

    to = to.expanduser()
    if to.suffix[1:] not in KINDS:
        raise ValueError(f"--to {to}: the file name must end in {', '.join(f'.{kind}' for kind in KINDS)}.")
    if not to.parent.is_dir():
        raise ValueError(f"--to {to}: there is no directory {to.parent}.")
    result = load(directory)
    paths = write_captioned(result, to, name, style.value)
    note(notes_of(result.coverage))
    if as_json:
        figure, table, caption = map(str, paths)
        content = {"figure": figure, "table": table, "caption": caption}
        print_json({**content, "coverage": coverage_json(result.coverage)})
    else:
        say("\n".join(map(str, paths)))


@app.command()
def export(
    directory: Directory,
    to: Annotated[
        Path, typer.Option(help="File to write: records.csv, records.parquet or records.nc.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Write all records as CSV, Parquet or NetCDF.

    Example: tsjax export runs/quickstart --to records.csv
    """
    from ..report import coverage_json, export_records
    from ..report.export import FORMATS
    from ..report.numbers import notes_of

    to = to.expanduser()
    if to.suffix not in FORMATS:
        raise ValueError(f"--to {to}: the file name must end in {', '.join(FORMATS)}.")
    if not to.parent.is_dir():
        raise ValueError(f"--to {to}: there is no directory {to.parent}.")
    result = load(directory)
    export_records(result, to)
    note(notes_of(result.coverage))
    if as_json:
        print_json({"path": str(to), "records": len(result.records), "coverage": coverage_json(result.coverage)})
    else:
        say(str(to))


@app.command("list")
def shipped(as_json: Json = False) -> None:
    """List the sweeps that ship with tsjax: the claim, the cells, and the time on two cores.

    Example: tsjax list
    """
    start()
    from ..report import print_shipped
    from ..sweep.plan import plan_cells
    from ..sweep.spec import find_experiment, load_spec

    rows = []
    for name in shipped_names():
        spec = load_spec(shipped_sweeps() / f"{name}.toml")
        cells = plan_cells(spec, find_experiment(spec.study)).cells
        rows.append({"name": name, "claim": spec.claim, "cells": cells, "minutes": spec.minutes, "study": spec.study})
    if as_json:
        print_json(rows)
    else:
        print_shipped(rows, console())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show devices, versions, the neural-tangents bridge, compilation cache, BLAS.

    Exit codes: 0 all is well; 1 the bridge does not work.

    Example: tsjax doctor
    """
    start()
    from ..report import print_doctor
    from ..sweep.doctor import examine

    content = examine()
    if as_json:
        print_json(content)
    else:
        print_doctor(content, console())
    if not content["ok"]:
        raise typer.Exit(1)
