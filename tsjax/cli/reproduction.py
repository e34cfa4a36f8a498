"""The command that runs every sweep of a paper, and puts the paper's numbers beside ours."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..report.terminal import console
from .app import Stopped, app, print_json, start
from .commands import write_page
from .options import Json, Quiet, Smoke, papers_like
from .specs import papers

if TYPE_CHECKING:
    from ..sweep.result import Result
    from ..sweep.spec import SweepSpec


@app.command()
def reproduce(
    paper: Annotated[
        str | None,
        typer.Argument(
            help="arXiv number of a paper, such as 2205.14818.", show_default=False, autocompletion=papers_like
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="Every paper that can be reproduced.")] = False,
    smoke: Smoke = False,
    out: Annotated[Path, typer.Option(help="Directory for the stores, one for each sweep.")] = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the sweeps of a paper, and print each claim: the published number, ours with its interval, verdict, minutes.

    Cells that the stores already hold are not run again; the minutes are those of this command.

    Exit codes: 0 all claims hold; 1 some fail or are undecided; others as for tsjax run.

    Example: tsjax reproduce 2205.14818

    Example: tsjax reproduce --all --smoke
    """
    if everything and paper is not None:
        raise ValueError(f"--all runs every paper, and {paper} names one: give one of them.")
    known = papers()
    wanted = list(known) if everything else [_number(paper, known)]
    start()
    from ..report.claims import claims_json, print_claims

    contents, held = {}, True
    try:
        for number in wanted:
            contents[number] = []
            for name, spec in known[number].items():
                began = time.monotonic()
                store = out.expanduser() / (f"{name}-smoke" if smoke else name)
                result = _run(spec.at_smoke_size() if smoke else spec, store, quiet)
                minutes = (time.monotonic() - began) / 60.0
                held = held and all(verdict.outcome == "holds" for verdict in result.verdicts())
                if as_json:
                    contents[number].append(claims_json(name, result, minutes))
                else:
                    print_claims(f"{name} (arXiv:{number})", result, minutes, console())
                write_page(result, None, as_json)
    finally:
        # Hours of sweeps may lie before one that fails or is interrupted.
        if as_json:
            print_json(contents)
    if not held:
        raise typer.Exit(1)


def _number(paper: str | None, known: "dict[str, dict[str, SweepSpec]]") -> str:
    """The number of a known paper. **Raises:** ValueError that names the known papers."""
    every = ", ".join(f"{number} ({', '.join(names)})" for number, names in known.items())
    if paper is None:
        raise ValueError(f"name a paper, or give --all. These can be reproduced: {every}.")
    found = re.search(r"(?<!\d)(\d{4}\.\d{4,5})(v\d+)?(\.pdf)?$", paper.strip())
    if found is None or found[1] not in known:
        raise ValueError(f"no sweep reproduces {paper!r}. These can be reproduced: {every}.")
    return found[1]


def _run(spec: "SweepSpec", store: Path, quiet: bool) -> "Result":
    from ..report import watch
    from ..sweep.run import run_spec

    try:
        result = run_spec(spec, out=store, listener=None if quiet else watch)
    except KeyboardInterrupt as stop:
        raise Stopped(getattr(stop, "exit_code", 130)) from None
    result.look()
    return result
