"""The options and arguments of the commands, and their completion in shells."""

import enum
import os
from pathlib import Path
from typing import Annotated

import typer

from .specs import papers, shipped_names


def _stores(incomplete: str) -> list[str]:
    """Completion: the stores in the directory that was typed, and in runs/."""
    start = Path(incomplete if incomplete.endswith("/") else os.path.dirname(incomplete) or ".")
    found = {path.parent for folder in (start, Path("runs")) for path in folder.glob("*/sweep.json")}
    return sorted(str(path) for path in found if str(path).startswith(incomplete))


def _specs(incomplete: str) -> list[str]:
    """Completion: sweep files, folders that may hold some, and the names of shipped sweeps."""
    start = Path(os.path.dirname(incomplete) or ".")
    files = [str(path) for path in start.glob("*.toml")]
    folders = [f"{path}/" for path in start.glob("[!.]*") if path.is_dir()]
    return sorted(name for name in (*files, *folders, *shipped_names()) if name.startswith(incomplete))


def papers_like(incomplete: str) -> list[str]:
    """Completion: the papers that can be reproduced."""
    return [number for number in papers() if number.startswith(incomplete)]


def _models(incomplete: str) -> list[str]:
    """Completion: the models of a curve."""
    from ..rates import MODELS

    return [name for name in (*MODELS, "auto") if name.startswith(incomplete)]


def engines_like(incomplete: str) -> list[str]:
    """Completion: the engines."""
    from ..sweep.engines import ENGINES

    return [name for name in ENGINES if name.startswith(incomplete)]


Directory = Annotated[
    str,
    typer.Argument(help="Directory or URL of a sweep (its store).", show_default=False, autocompletion=_stores),
]
Spec = Annotated[
    Path,
    typer.Argument(
        help="Sweep file (TOML), or the name of a shipped one, such as superiority.",
        show_default=False,
        autocompletion=_specs,
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        help="Sweep file (TOML), the name of a shipped one (superiority), or a store to continue.",
        show_default=False,
        autocompletion=lambda incomplete: [*_specs(incomplete), *_stores(incomplete)],
    ),
]
# A flag takes no value; without the empty metavar, its help would say <bool>.
Json = Annotated[bool, typer.Option("--json", metavar="", help="Machine-readable JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="No progress on standard error.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file, e.g. grid.seeds=128. Repeatable."),
]
Chunk = Annotated[int | None, typer.Option(help="Cells that run together, 1 or more; by default 64.")]
Commit = Annotated[float | None, typer.Option(help="Seconds of finished work that a kill may lose; by default 2.")]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where cells run: local (all devices of this machine), ray, slurm, or black_box (processes, for a black box).",
        autocompletion=engines_like,
    ),
]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="OPTION=VALUE",
        help="Option of the engine: jobs=32 (slurm), address=HOST:PORT (ray), processes=4 (black_box). Repeatable.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        help="Curve to fit: power, floor, finite, log, logq, broken, bnsl, logistic, exponential, pow4, mmf4, wbl4; auto: "
        "the one with the smallest AICc.",
        autocompletion=_models,
    ),
]
Smoke = Annotated[
    bool, typer.Option("--smoke", metavar="", help="Run the tiny size that the smoke table of the sweep defines.")
]


class TableFormat(enum.StrEnum):
    """The formats of a table of rates."""

    text = "text"
    latex = "latex"
    markdown = "markdown"


class FigureStyle(enum.StrEnum):
    """The widths of figures."""

    column = "column"
    page = "page"
