"""The command that reads runs of other code from a table, and writes rates and a page."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from ..report.terminal import say
from .app import app, note, show
from .commands import write_page
from .options import Json

_CLAIMS = ("claim", "source", "expect", "surface", "labels")


@app.command()
def page(
    table: Annotated[
        Path, typer.Argument(help="CSV, TSV, Parquet or JSON lines, or a folder of JSON lines.", show_default=False)
    ],
    x: Annotated[str, typer.Option(help="Column along the horizontal axis, such as n.", show_default=False)],
    y: Annotated[list[str], typer.Option(help="Column of what was measured; repeatable.", show_default=False)],
    seed: Annotated[
        list[str] | None,
        typer.Option(
            help="Column that distinguishes runs at one point; repeatable. Without it, rows are independent runs."
        ),
    ] = None,
    curve: Annotated[str | None, typer.Option(help="Column that names curves.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="Another column that distinguishes curves; repeatable.")] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(
            metavar="Y=TRIALS", help="A y that is a share of trials, and their number or the column that holds it."
        ),
    ] = None,
    claims: Annotated[
        Path | None,
        typer.Option(help="TOML file with the keys claim and source, and the tables expect, surface and labels."),
    ] = None,
    surface: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="A second axis D: fit E + A/N^a + B/D^b, where N is x, and show it on the page."
        ),
    ] = None,
    cost: Annotated[
        float | None,
        typer.Option(
            help="With --surface: compute is COST N D, such as 6; the page shows the best N and D at each compute."
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Directory for records, figures and page; by default runs/NAME.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make rates, verdicts and the page from runs of your own: one row of a table for each run.

    Example: tsjax page runs.csv --x n --y loss --seed seed --curve model

    Example: tsjax page logs --x step --y loss --seed file

    Example: tsjax page models.csv --x parameters --y loss --surface tokens --cost 6
    """
    from ..rates import Share
    from ..sweep.recorded import from_table

    content = {} if claims is None else _claims(claims)
    if cost is not None and surface is None:
        raise ValueError("--cost is that of a surface: name its second axis too, by --surface COLUMN.")
    if surface is not None:
        content["surface"] = {"n": x, "d": surface} | ({} if cost is None else {"cost": cost})
        by = list(dict.fromkeys([*(by or []), *([surface] if surface != curve else [])]))
    kinds: dict[str, Any] = {}
    for one in share or []:
        name, equals, trials = one.partition("=")
        if not equals or not trials:
            raise ValueError(f"--share {one}: write Y=TRIALS, such as error=1000 or error=tests.")
        kinds[name] = Share(trials=int(trials) if trials.isdigit() else trials)
    directory = str(Path("runs") / _stem(table)) if out is None else out
    result = from_table(table, x=x, y=y, seed=seed, curve=curve, by=by or [], metrics=kinds, out=directory, **content)
    result.look()
    show(result, as_json)
    write_page(result, Path("runs") / Path(directory.rstrip("/")).name if "://" in directory else None, as_json)
    if not seed and not as_json and result.seeds > 1:
        note(["without --seed, rows at one point count as independent runs."])
    if not as_json:
        say(f"tsjax rates, verify, figure and the other commands read {directory} too.", style="dim")


def _stem(table: Path) -> str:
    """The name of a table without its endings: `runs` for runs.csv.gz."""
    from ..tables import ENDINGS

    name = table.expanduser().resolve().name
    while Path(name).suffix.lower() in ENDINGS:
        name = Path(name).stem
    return name or "table"


def _claims(path: Path) -> dict[str, Any]:
    """The contents of a file of claims. **Raises:** SpecError."""
    from ..hints import nearest
    from ..sweep.errors import SpecError

    try:
        content = tomllib.loads(path.expanduser().read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML: {error}.") from None
    unknown = [name for name in content if name not in _CLAIMS]
    if unknown:
        raise SpecError(f"{path}: unknown key {unknown[0]!r}.{nearest(unknown[0], _CLAIMS)}")
    if not isinstance(content.get("labels", {}), dict):
        raise SpecError(f"{path}: labels is a table of names, [labels].")
    if not isinstance(content.get("expect", []), list):
        raise SpecError(f"{path}: expectations are tables of a list: write [[expect]] for each.")
    return content
