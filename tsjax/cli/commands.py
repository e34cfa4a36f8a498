"""The commands. Heavy modules load inside them, so that help is instant."""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .options import (
    Chunk,
    Commit,
    Directory,
    Engine,
    FigureStyle,
    Json,
    Model,
    Quiet,
    Set,
    Smoke,
    Spec,
    TableFormat,
)
from .specs import changed, check_same_sweep, find_spec, shard_of, shipped_sweeps

if TYPE_CHECKING:
    from ..sweep.result import Result
    from ..sweep.spec import SweepSpec

app = typer.Typer(
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure how fast learners learn: students against teachers, kernels beside them, rates with intervals.",
    epilog="Exit codes: 0 done; 1 a verdict does not hold, or the doctor found a fault; 2 wrong input; 3 some programs of a "
    "sweep failed; 70 a fault of tsjax; 130 or 143 stopped. Shells complete commands, options, sweeps and stores after "
    "tsjax --install-completion.",
)


class Stopped(BaseException):
    """A sweep was interrupted. Not a KeyboardInterrupt, of which Typer makes exit code 130 whatever the signal was."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code


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

    from ..sweep.devices import keep_compiled, use_all_cores

    use_all_cores()
    keep_compiled()
    if distributed:
        jax.distributed.initialize()
    jax.config.update("jax_enable_x64", True)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1))


def _show(result: "Result", as_json: bool, model: str = "power") -> None:
    from ..report import print_result, result_json

    if as_json:
        _print_json(result_json(result, model))
    else:
        print_result(result, Console(), model)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Directory for records, figures and page.")] = Path("runs/quickstart"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """The main job at small size: train, compare, fit rates, report (two minutes).

    Example: tsjax quickstart --out runs/quickstart
    """
    run(shipped_sweeps() / "quickstart.toml", out=str(out), quiet=quiet, as_json=as_json)


@app.command()
def run(
    spec: Spec,
    out: Annotated[str | None, typer.Option(help="Directory or URL of the store; runs/NAME by default.")] = None,
    changes: Set = None,
    smoke: Smoke = False,
    chunk: Chunk = 64,
    commit_seconds: Commit = 2.0,
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
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a sweep, or resume it: what the store already holds is not run again.

    Exit codes: 0 done; 2 wrong input; 3 some programs failed, not the others;

    130, 143 stopped by control-C or SIGTERM, with all that was finished kept.

    Example: tsjax run sweeps/superiority.toml --set grid.seeds=128

    Example: tsjax run superiority --smoke
    """
    from ..sweep.spec import load_spec

    loaded = changed(load_spec(find_spec(spec)), changes)
    loaded = loaded.at_smoke_size() if smoke else loaded
    usual = Path("runs") / (spec.stem + ("-smoke" if smoke else ""))
    directory = str(usual if out is None else out)
    if until_precision is not None and shard != "1/1":
        raise ValueError("--until-precision looks at all records after each round: run it without --shard.")
    parts = shard_of(shard)
    _start(distributed)
    from ..report import tensorboard_scalars, watch
    from ..sweep.precision import run_until
    from ..sweep.run import run_spec

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
        raise Stopped(getattr(stop, "exit_code", 130)) from None
    if shard == "1/1":
        page = result.report(usual if "://" in directory else None)
        if not as_json:
            _show(result, as_json)
            Console().print(f"records, figures and page: {page.parent}", soft_wrap=True)
            return
    _show(result, as_json)


@app.command()
def plan(
    spec: Spec,
    changes: Set = None,
    smoke: Smoke = False,
    chunk: Chunk = 64,
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
    as_json: Json = False,
) -> None:
    """Show cells, chunks, compilations, memory, FLOPs and expected time; run nothing.

    Example: tsjax plan sweeps/superiority.toml --out runs/superiority

    Example: tsjax plan superiority --precision 0.02 --pilot runs/superiority
    """
    from ..sweep.spec import find_experiment, load_spec

    loaded = changed(load_spec(find_spec(spec)), changes)
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
    from ..report import plan_json, print_plan
    from ..sweep.estimate import estimate_plan
    from ..sweep.plan import make_plan
    from ..sweep.records import seconds_done
    from ..sweep.store import open_store

    cells, seconds = make_plan(loaded, experiment), None
    if out is not None:
        store = open_store(out)
        check_same_sweep(loaded, store.spec, out)
        seconds = seconds_done(store, cells)
    with Console(stderr=True).status("compiling the largest program of each curve"):
        estimates = estimate_plan(cells, loaded.key, chunk, seconds)
    if as_json:
        _print_json(plan_json(estimates))
    else:
        print_plan(estimates, Console())


def _plan_precision(spec: "SweepSpec", pilot: Path, precision: float, as_json: bool) -> None:
    if not pilot.is_dir():
        raise ValueError(
            f"there is no pilot {pilot}: run the sweep with a few seeds first (--set grid.seeds=8 --out DIR), then give "
            "--pilot DIR."
        )
    from ..report import precision_json, print_precision
    from ..sweep.precision import plan_precision

    result = _load(str(pilot))
    check_same_sweep(spec, result.spec, str(pilot))
    plans = plan_precision(result, precision)
    if as_json:
        _print_json(precision_json(plans))
    else:
        print_precision(plans, precision, result.experiment.x, Console())


@app.command()
def status(directory: Directory, as_json: Json = False) -> None:
    """How far a sweep is, and what failed; works while another process runs it.

    Example: tsjax status runs/superiority
    """
    from ..report import print_status
    from ..sweep.status import sweep_status

    content = sweep_status(directory)
    if as_json:
        _print_json(content)
    else:
        print_status(content, Console())


def _load(directory: str) -> "Result":
    from ..sweep.result import load

    result = load(directory)
    if result.records.empty:
        raise ValueError(f"{directory} holds no records yet; run the sweep first.")
    return result


@app.command()
def rates(
    directory: Directory,
    model: Model = "power",
    format: Annotated[TableFormat, typer.Option(help="For the terminal, or a table for a paper.")] = TableFormat.text,
    as_json: Json = False,
) -> None:
    """Fitted exponents with intervals, beside what theory predicts over the same window.

    Example: tsjax rates runs/quickstart --model auto --json

    Example: tsjax rates runs/quickstart --format latex
    """
    from ..rates import find_model

    if model != "auto":
        find_model(model)
    if format == TableFormat.text:
        _show(_load(directory), as_json, model)
    elif as_json:
        raise ValueError(f"--json and --format {format}: give one of them.")
    else:
        print(_load(directory).table(format.value, model), end="")


@app.command()
def verify(directory: Directory, as_json: Json = False) -> None:
    """Exit with 0 only if every expected verdict of the sweep holds.

    Exit codes: 0 all hold; 1 some fail or are undecided; 2 wrong input.

    Example: tsjax verify runs/superiority
    """
    from ..report import print_verdicts, verdicts_json

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
    directory: Directory,
    out: Annotated[Path | None, typer.Option(help="Where to write; the store itself by default.")] = None,
    style: Annotated[
        FigureStyle, typer.Option(help="Figures as wide as a column or a page of text.")
    ] = FigureStyle.page,
    as_json: Json = False,
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
    directory: Directory,
    to: Annotated[Path, typer.Option(help="records.csv, records.parquet or records.nc.", show_default=False)],
    as_json: Json = False,
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
def doctor(as_json: Json = False) -> None:
    """Devices, versions, the neural-tangents bridge, compilation cache, BLAS.

    Exit codes: 0 all is well; 1 the bridge does not work.

    Example: tsjax doctor
    """
    _start()
    from ..report import print_doctor
    from ..sweep.doctor import examine

    content = examine()
    if as_json:
        _print_json(content)
    else:
        print_doctor(content, Console())
    if not content["ok"]:
        raise typer.Exit(1)
