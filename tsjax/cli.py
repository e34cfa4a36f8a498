"""The command line: `tsjax --help`. Heavy modules load inside the commands, so that help is instant."""

import enum
import importlib.util
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from .sweep.result import Result
    from .sweep.spec import SweepSpec

app = typer.Typer(
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure how fast learners learn: students against teachers, kernels beside them, rates with intervals.",
    epilog="Exit codes: 0 done; 1 a verdict does not hold, or the doctor found a fault; 2 wrong input; 3 some programs of a "
    "sweep failed; 70 a fault of tsjax; 130 or 143 stopped. Shells complete commands, options, sweeps and stores after "
    "tsjax --install-completion.",
)


def _stores(incomplete: str) -> list[str]:
    """Completion: the stores of sweeps below what was typed, and in runs/."""
    start = Path(incomplete if incomplete.endswith("/") else os.path.dirname(incomplete) or ".")
    found = {path.parent for folder in (start, Path("runs")) for path in folder.glob("*/sweep.json")}
    return sorted(str(path) for path in found if str(path).startswith(incomplete))


def _specs(incomplete: str) -> list[str]:
    """Completion: sweep files and the folders that may hold some, and the names of the sweeps that ship."""
    start = Path(os.path.dirname(incomplete) or ".")
    files = [str(path) for path in start.glob("*.toml")]
    folders = [f"{path}/" for path in start.glob("[!.]*") if path.is_dir()]
    return sorted(name for name in (*files, *folders, *_shipped()) if name.startswith(incomplete))


def _models(incomplete: str) -> list[str]:
    """Completion: the models of a curve."""
    from .rates import MODELS

    return [name for name in (*MODELS, "auto") if name.startswith(incomplete)]


_Directory = Annotated[
    str,
    typer.Argument(help="Directory or URL of a sweep (its store).", show_default=False, autocompletion=_stores),
]
_Spec = Annotated[
    Path,
    typer.Argument(
        help="Sweep file (TOML), or the name of one that ships: superiority.", show_default=False, autocompletion=_specs
    ),
]
# A flag takes no value: without the empty metavar its help says <bool>.
_Json = Annotated[bool, typer.Option("--json", metavar="", help="Machine-readable JSON on standard output.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="No progress on standard error.")]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file, e.g. grid.seeds=128. Repeatable."),
]
_Chunk = Annotated[int, typer.Option(min=1, help="Cells that run together.")]
_Commit = Annotated[float, typer.Option(min=0.0, help="Seconds of finished work that a kill may lose.")]
_Model = Annotated[
    str,
    typer.Option(
        help="Curve to fit: power, floor, finite, log, logq, broken, or auto (least AICc).", autocompletion=_models
    ),
]
_Smoke = Annotated[bool, typer.Option("--smoke", metavar="", help="The tiny size of the sweep: its smoke table.")]

# What a wrong spec, store or argument exits with; a verdict that does not hold exits with 1. Others are at `run`.
_USAGE_ERROR = 2
# What a fault of tsjax itself exits with (EX_SOFTWARE of sysexits.h).
_FAULT = 70


class _Stopped(BaseException):
    """A sweep was interrupted. Not a KeyboardInterrupt, of which Typer makes exit code 130 whatever the signal was."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code


class TableFormat(enum.StrEnum):
    """How a table of rates is written."""

    text = "text"
    latex = "latex"
    markdown = "markdown"


class FigureStyle(enum.StrEnum):
    """How wide the figures are."""

    column = "column"
    page = "page"


class Engine(enum.StrEnum):
    """Where chunks run."""

    local = "local"
    ray = "ray"


def main() -> None:
    """The `tsjax` command: errors that a user can mend are one line, without a traceback."""
    # Wherever it stands, and also for errors that are raised before any command is found.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        sys.exit(app(arguments or ["--help"], standalone_mode=False))
    except typer.TyperException as error:
        if debug:
            raise
        context = getattr(error, "ctx", None)
        command = "tsjax" if context is None else context.command_path
        _fail(f"{error.format_message().rstrip('.')}. See {command} --help.", error.exit_code)
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        _fail(str(error), getattr(error, "exit_code", _USAGE_ERROR))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except _Stopped as error:
        Console(stderr=True).print("interrupted: finished chunks are safe; run the same command again to resume.")
        sys.stdout.flush()
        # Not sys.exit, which waits for chunks that were dropped.
        os._exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        _fail(f"unexpected {type(error).__name__}: {error} (--debug shows where; please report it)", _FAULT)


def _fail(message: str, exit_code: int) -> None:
    from rich.markup import escape

    line = escape(" ".join(message.split()))
    Console(stderr=True, highlight=False).print(f"[red]error:[/red] {line}", soft_wrap=True)
    sys.exit(exit_code)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Show the traceback of an error; goes anywhere.")
    ] = False,
) -> None:
    # Taken out of the arguments by main.
    del debug


def _start(distributed: bool = False) -> None:
    """Settings of this process: 64-bit types on, one CPU device per core, compiled programs kept for the next run; and its
    place among the processes of `jax.distributed`, which come before JAX's first use."""
    import jax

    from .sweep.devices import keep_compiled, use_all_cores

    use_all_cores()
    keep_compiled()
    if distributed:
        jax.distributed.initialize()
    jax.config.update("jax_enable_x64", True)


def _changed(spec: "SweepSpec", changes: list[str] | None) -> "SweepSpec":
    """The spec with `--set` overrides, validated again."""
    from .sweep.spec import SpecError, nearest, parse_spec

    content: dict[str, Any] = spec.model_dump(exclude_defaults=True)
    for change in changes or []:
        path, equals, text = change.partition("=")
        table, dot, name = path.strip().partition(".")
        if not equals or not (dot or table in ("key", "claim", "source", "study")):
            raise SpecError(f"--set {change}: write TABLE.KEY=VALUE, for instance --set grid.seeds=128.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        if not dot:
            content[table] = value
        elif table == "grid":
            content["grid"] = [{**block, name: value} for block in content["grid"]]
        elif table in ("problem", "smoke"):
            content[table] = {**content.get(table, {}), name: value}
        else:
            raise SpecError(f"--set {change}: no table {table!r}.{nearest(table, ['grid', 'problem', 'smoke'])}")
    return parse_spec(content, where="after --set")


def _shard(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"--shard {text}: write I/K with 1 <= I <= K, for instance 3/16.")
    return int(part), int(parts)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1))


def _show(result: "Result", as_json: bool, model: str = "power") -> None:
    from .report import print_result, result_json

    if as_json:
        _print_json(result_json(result, model))
    else:
        print_result(result, Console(), model)


def shipped_sweeps() -> Path:
    """The folder of the sweep files that ship: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "sweeps"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "sweeps"


def _shipped() -> list[str]:
    return sorted(path.stem for path in shipped_sweeps().glob("*.toml"))


def _find_spec(spec: Path) -> Path:
    """The sweep file of that path, or the one that ships under that name."""
    if spec.exists():
        return spec
    names = _shipped()
    if str(spec) in names:
        return shipped_sweeps() / f"{spec}.toml"
    from .sweep.spec import SpecError, nearest

    raise SpecError(f"there is no sweep file {spec}; those that ship go by name.{nearest(spec.stem, names)}")


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Directory for records, figures and page.")] = Path("runs/quickstart"),
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """The main job at small size: train, compare, fit rates, report (two minutes).

    Example: tsjax quickstart --out runs/quickstart
    """
    run(shipped_sweeps() / "quickstart.toml", out=str(out), quiet=quiet, as_json=as_json)


@app.command()
def run(
    spec: _Spec,
    out: Annotated[str | None, typer.Option(help="Directory or URL of the store; runs/NAME by default.")] = None,
    changes: _Set = None,
    smoke: _Smoke = False,
    chunk: _Chunk = 64,
    commit_seconds: _Commit = 2.0,
    shard: Annotated[str, typer.Option(metavar="I/K", help="Run the I-th of K parts: for job arrays.")] = "1/1",
    engine: Annotated[
        Engine, typer.Option(help="Where chunks run: on this machine, or as tasks of Ray.")
    ] = Engine.local,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster; a local one by default.")] = None,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed", metavar="", help="Be one of several jax.distributed processes, as the environment says."
        ),
    ] = False,
    until_precision: Annotated[
        float | None,
        typer.Option(help="Add seeds until every exponent is known to +- this (half of its 95 % interval)."),
    ] = None,
    max_seeds: Annotated[int, typer.Option(min=4, help="With --until-precision: most seeds in any cell.")] = 1024,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write progress there, as TensorBoard scalars.")
    ] = None,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Run a sweep, or resume it: what the store already holds is not run again.

    Exit codes: 0 done; 2 wrong input; 3 some programs failed, not the others;

    130, 143 stopped by control-C or SIGTERM, with all that was finished kept.

    Example: tsjax run sweeps/superiority.toml --set grid.seeds=128

    Example: tsjax run superiority --smoke
    """
    from .sweep.spec import load_spec

    loaded = _changed(load_spec(_find_spec(spec)), changes)
    loaded = loaded.at_smoke_size() if smoke else loaded
    usual = Path("runs") / (spec.stem + ("-smoke" if smoke else ""))
    directory = str(usual if out is None else out)
    if until_precision is not None and shard != "1/1":
        raise ValueError("--until-precision looks at all records after each round: run it without --shard.")
    parts = _shard(shard)
    _start(distributed)
    from .report import tensorboard_scalars, watch
    from .sweep.precision import run_until
    from .sweep.run import run_spec

    how: dict[str, Any] = {"chunk": chunk, "commit_seconds": commit_seconds, "shard": parts, "engine": engine.value}
    how |= {"ray_address": ray_address, "listener": None if quiet else watch}
    if tensorboard is not None:
        scalars = tensorboard_scalars(tensorboard)
        how["listener"] = scalars if quiet else lambda plan, stream: watch(plan, scalars(plan, stream))
    run_once = lambda wanted: run_spec(wanted, out=directory, **how)
    try:
        if until_precision is None:
            result = run_once(loaded)
        else:
            result = run_until(loaded, run_once, until_precision, most=max_seeds)
    except KeyboardInterrupt as stop:
        raise _Stopped(getattr(stop, "exit_code", 130)) from None
    if shard == "1/1":
        page = result.report(usual if "://" in directory else None)
        if not as_json:
            _show(result, as_json)
            Console().print(f"records, figures and page: {page.parent}", soft_wrap=True)
            return
    _show(result, as_json)


@app.command()
def plan(
    spec: _Spec,
    changes: _Set = None,
    smoke: _Smoke = False,
    chunk: _Chunk = 64,
    precision: Annotated[
        float | None,
        typer.Option(help="Show instead the seeds for exponents known to +- this, from the records of --pilot."),
    ] = None,
    pilot: Annotated[
        Path | None, typer.Option(help="Store of the sweep with 4 seeds or more; runs/NAME by default.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="A store to go on with: shows what it lacks, with times as measured there.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show cells, chunks, compilations, memory, FLOPs and expected time; run nothing.

    Example: tsjax plan sweeps/superiority.toml --out runs/superiority

    Example: tsjax plan superiority --precision 0.02 --pilot runs/superiority
    """
    from .sweep.spec import find_experiment, load_spec

    loaded = _changed(load_spec(_find_spec(spec)), changes)
    loaded = loaded.at_smoke_size() if smoke else loaded
    experiment = find_experiment(loaded.study)
    if precision is not None:
        if out is not None:
            raise ValueError("--out shows what a store lacks; with --precision the store to look at is --pilot.")
        _plan_precision(loaded, Path("runs") / spec.stem if pilot is None else pilot, precision, as_json)
        return
    if pilot is not None:
        raise ValueError("--pilot goes with --precision: say how precise exponents should be.")
    _start()
    from .report import plan_json, print_plan
    from .sweep.estimate import estimate_plan
    from .sweep.plan import make_plan
    from .sweep.store import open_store

    records = None
    if out is not None:
        store = open_store(out)
        _check_same_sweep(loaded, store.spec, out)
        records = store.read()
    with Console(stderr=True).status("compiling the largest program of each curve"):
        estimates = estimate_plan(make_plan(loaded, experiment), loaded.key, chunk, records)
    if as_json:
        _print_json(plan_json(estimates))
    else:
        print_plan(estimates, Console())


def _check_same_sweep(spec: "SweepSpec", other: "SweepSpec", where: str) -> None:
    if other.identity != spec.identity:
        raise ValueError(f"{where} holds another sweep than the file: its study and key are {other.identity}.")


def _plan_precision(spec: "SweepSpec", pilot: Path, precision: float, as_json: bool) -> None:
    if not pilot.is_dir():
        raise ValueError(
            f"there is no pilot {pilot}: run the sweep with a few seeds first (--set grid.seeds=8 --out DIR), then give "
            "--pilot DIR."
        )
    from .report import precision_json, print_precision
    from .sweep.precision import plan_precision

    result = _load(str(pilot))
    _check_same_sweep(spec, result.spec, str(pilot))
    plans = plan_precision(result, precision)
    if as_json:
        _print_json(precision_json(plans))
    else:
        print_precision(plans, precision, result.experiment.x, Console())


@app.command()
def status(directory: _Directory, as_json: _Json = False) -> None:
    """How far a sweep is, and what failed; works while another process runs it.

    Example: tsjax status runs/superiority
    """
    from .report import print_status
    from .sweep.status import sweep_status

    content = sweep_status(directory)
    if as_json:
        _print_json(content)
    else:
        print_status(content, Console())


def _load(directory: str) -> "Result":
    from .sweep.result import load

    result = load(directory)
    if result.records.empty:
        raise ValueError(f"{directory} holds no records yet; run the sweep first.")
    return result


@app.command()
def rates(
    directory: _Directory,
    model: _Model = "power",
    format: Annotated[TableFormat, typer.Option(help="For the terminal, or a table for a paper.")] = TableFormat.text,
    as_json: _Json = False,
) -> None:
    """Fitted exponents with intervals, beside what theory predicts over the same window.

    Example: tsjax rates runs/quickstart --model auto --json

    Example: tsjax rates runs/quickstart --format latex
    """
    from .rates import find_model

    if model != "auto":
        find_model(model)
    if format == TableFormat.text:
        _show(_load(directory), as_json, model)
    elif as_json:
        raise ValueError(f"--json and --format {format}: give one of them.")
    else:
        print(_load(directory).table(format.value, model), end="")


@app.command()
def verify(directory: _Directory, as_json: _Json = False) -> None:
    """Exit with 0 only if every expected verdict of the sweep holds.

    Exit codes: 0 all hold; 1 some fail or are undecided; 2 wrong input.

    Example: tsjax verify runs/superiority
    """
    from .report import print_verdicts, verdicts_json

    result = _load(directory)
    verdicts = result.verdicts()
    if not verdicts:
        raise ValueError(f"{directory}: this sweep expects nothing; add [[expect]] tables to its file.")
    if as_json:
        _print_json(verdicts_json(result))
    else:
        print_verdicts(result, Console())
    if any(verdict.outcome != "holds" for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def report(
    directory: _Directory,
    out: Annotated[Path | None, typer.Option(help="Where to write; the store itself by default.")] = None,
    style: Annotated[
        FigureStyle, typer.Option(help="Figures as wide as a column or a page of text.")
    ] = FigureStyle.page,
    as_json: _Json = False,
) -> None:
    """Write the figures (PNG, PDF, SVG) and one self-contained, interactive HTML page.

    Example: tsjax report runs/quickstart
    """
    page = _load(directory).report(out, style.value)
    if as_json:
        _print_json({"page": str(page), "folder": str(page.parent)})
    else:
        print(page)


@app.command()
def export(
    directory: _Directory,
    to: Annotated[Path, typer.Option(help="records.csv, records.parquet or records.nc.", show_default=False)],
    as_json: _Json = False,
) -> None:
    """Write all records as CSV, Parquet or NetCDF.

    Example: tsjax export runs/quickstart --to records.csv
    """
    writers = {
        ".csv": lambda result: result.records.to_csv(to, index=False),
        ".parquet": lambda result: result.records.to_parquet(to, index=False),
        ".nc": lambda result: _write_netcdf(result, to),
    }
    if to.suffix not in writers:
        raise ValueError(f"--to {to}: the file name must end in {', '.join(writers)}.")
    if not to.parent.is_dir():
        raise ValueError(f"--to {to}: there is no directory {to.parent}.")
    result = _load(directory)
    writers[to.suffix](result)
    if as_json:
        _print_json({"path": str(to), "records": len(result.records)})
    else:
        print(to)


def _write_netcdf(result: "Result", to: Path) -> None:
    # h5netcdf does not bring along h5py, with which it writes.
    missing = [name for name in ("h5netcdf", "h5py") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"writing NetCDF needs {' and '.join(missing)}: install it, or export .parquet.")
    result.to_xarray().to_netcdf(to, engine="h5netcdf")


@app.command()
def doctor(as_json: _Json = False) -> None:
    """Devices, versions, the neural-tangents bridge, compilation cache, BLAS.

    Exit codes: 0 all is well; 1 the bridge does not work.

    Example: tsjax doctor
    """
    _start()
    from .report import print_doctor
    from .sweep.doctor import examine

    content = examine()
    if as_json:
        _print_json(content)
    else:
        print_doctor(content, Console())
    if not content["ok"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
