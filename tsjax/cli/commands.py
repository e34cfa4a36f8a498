"""The commands that run sweeps, or estimate what running them takes. They import heavy modules late, so that help is
instant."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..report.terminal import console, say
from .app import Stopped, app, load, note, print_json, show, start
from .engines import chosen_engine, sbatch_script
from .options import Chunk, Commit, Engine, Json, Quiet, Set, Smoke, Source, Spec, With
from .specs import changed, check_same_sweep, find_spec, shipped_sweeps
from .stores import is_store, spec_of_store

if TYPE_CHECKING:
    from ..sweep.result import Result
    from ..sweep.spec import SweepSpec


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Directory for records, figures and page.")] = Path("runs/quickstart"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the main job at small size: train, compare, fit rates, report (two minutes).

    Example: tsjax quickstart --out runs/quickstart
    """
    run(str(shipped_sweeps() / "quickstart.toml"), out=str(out), quiet=quiet, as_json=as_json)


@app.command()
def run(
    spec: Source,
    out: Annotated[
        str | None,
        typer.Option(help="Directory or URL of the store; by default runs/NAME, or the store that is resumed."),
    ] = None,
    changes: Set = None,
    smoke: Smoke = False,
    engine: Engine = None,
    options: With = None,
    chunk: Chunk = None,
    commit_seconds: Commit = None,
    retry: Annotated[
        bool, typer.Option("--retry", metavar="", help="For a black box: run cells again that failed before.")
    ] = False,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed", metavar="", help="Join the processes of jax.distributed that the environment describes."
        ),
    ] = False,
    until_precision: Annotated[
        float | None,
        typer.Option(help="Add seeds until every exponent is known to +- this (half of its 95 % interval)."),
    ] = None,
    until_verdict: Annotated[
        bool,
        typer.Option(
            "--until-verdict",
            metavar="",
            help="Add seeds until every verdict is decided, with intervals that hold at every look.",
        ),
    ] = False,
    max_seeds: Annotated[
        int, typer.Option(min=4, help="With --until-precision or --until-verdict: the most seeds in any cell.")
    ] = 1024,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:WHERE",
            help="Also write progress and results to tensorboard:DIR, mlflow:URI, wandb:PROJECT or jsonl:FILE.",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", metavar="", help="For a store: import the code, not tsjax's own, that its sweep names."
        ),
    ] = False,
    sbatch: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="K", help="Run nothing; print a script for sbatch: an array of K tasks that share the sweep."
        ),
    ] = None,
    no_page: Annotated[
        bool,
        typer.Option(
            "--no-page", metavar="", help="Write no page at the end, for instance if many processes run one sweep."
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a sweep, or resume it: cells that the store already holds are not run again.

    Exit codes: 0 done; 2 wrong input; 3 some programs failed, and all others are done; 5 the disk is full; 130, 143 stopped by
    control-C or SIGTERM, and everything that was finished is kept.

    Example: tsjax run sweeps/superiority.toml --set grid.seeds=128

    Example: tsjax run superiority --smoke

    Example: tsjax run runs/superiority (a store: continues the sweep that it describes)

    Example: tsjax run superiority --out /shared/superiority --sbatch 32 | sbatch
    """
    from ..sweep.spec import load_spec

    chosen = {"chunk": chunk, "commit_seconds": commit_seconds}
    # Checked before anything is imported that takes seconds.
    where = chosen_engine(engine, options, chosen)
    how: dict[str, Any] = {"engine": where, "retry": retry, **({} if engine else chosen)}
    if sbatch is not None and track:
        raise ValueError(
            "--track with --sbatch: every task would write there. Run tsjax watch DIR while the tasks run instead."
        )
    if is_store(spec):
        if smoke:
            raise ValueError("--smoke is a size of a sweep file; a store is resumed as it is.")
        start(distributed)
        loaded = spec_of_store(spec, changes, trust)
        # The page of a store at a URL is written to the folder runs/NAME.
        usual = Path("runs") / Path(spec.rstrip("/")).name if "://" in spec else Path(spec)
        directory = spec if out is None else out
    else:
        loaded = changed(load_spec(find_spec(Path(spec))), changes)
        # Called before the study is imported, since a user's module may use JAX at once.
        start(distributed)
        loaded = loaded.at_smoke_size() if smoke else loaded
        usual = Path("runs") / (Path(spec).stem + ("-smoke" if smoke else ""))
        directory = str(usual if out is None else out)
    if until_verdict and until_precision is not None:
        raise ValueError("--until-verdict and --until-precision both say when to stop: give one of them.")
    if sbatch is not None:
        print(sbatch_script(loaded, where, chosen, sbatch, directory), end="")
        return
    from ..report import tracker_of, watch
    from ..sweep.run import run_spec, tracking
    from ..sweep.seeds import run_until
    from ..sweep.until import run_until_verdict

    trackers = [tracker_of(one) for one in track or []]
    try:
        with tracking(trackers, None if quiet else watch) as (listener, finish):
            run_once = lambda wanted: run_spec(wanted, out=directory, listener=listener, **how)
            if until_verdict:
                result = run_until_verdict(loaded, run_once, max_seeds, out=directory)
            elif until_precision is None:
                result = run_once(loaded)
            else:
                result = run_until(loaded, run_once, until_precision, most=max_seeds)
            finish(result)
    except KeyboardInterrupt as stop:
        raise Stopped(getattr(stop, "exit_code", 130)) from None
    result.look()
    show(result, as_json)
    if not no_page:
        write_page(result, usual if "://" in directory else None, as_json)


def write_page(result: "Result", out: Path | None, as_json: bool) -> None:
    """Writes the page of a sweep that ran, into its store or into `out`."""
    from ..report.output import OutputError

    try:
        page = result.report(out)
    except OutputError as error:
        # A complete sweep in a directory that cannot be written to is still complete.
        if error.is_full or not result.coverage.whole:
            raise
        note([f"{error} The sweep is complete; tsjax report DIR --out FOLDER writes its page elsewhere."])
        return
    if not as_json:
        say(f"records, figures and page: {page.parent}")


@app.command()
def plan(
    spec: Spec,
    changes: Set = None,
    smoke: Smoke = False,
    chunk: Annotated[int, typer.Option(min=1, help="Cells that run together, 1 or more.")] = 64,
    precision: Annotated[
        float | None,
        typer.Option(help="Show instead the seeds for exponents known to +- this, by the records of --pilot."),
    ] = None,
    pilot: Annotated[
        Path | None, typer.Option(help="Store of the sweep with 4 seeds or more; by default runs/NAME.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="A store to continue: shows what it lacks, with times measured there.")
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", metavar="", help="Compile the largest program of each curve, for its exact memory."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show cells, chunks, compilations, memory, FLOPs and expected time; run nothing.

    Times and memory rest on earlier runs on this machine, if there were any.

    Example: tsjax plan sweeps/superiority.toml --out runs/superiority

    Example: tsjax plan superiority --precision 0.02 --pilot runs/superiority
    """
    from ..sweep.spec import find_experiment, load_spec

    loaded = changed(load_spec(find_spec(spec)), changes)
    start()
    loaded = loaded.at_smoke_size() if smoke else loaded
    experiment = find_experiment(loaded.study)
    if precision is not None:
        if out is not None:
            raise ValueError("--out shows what a store lacks; with --precision, name the store by --pilot.")
        _plan_precision(loaded, Path("runs") / spec.stem if pilot is None else pilot, precision, as_json)
        return
    if pilot is not None:
        raise ValueError("--pilot goes with --precision: say how precise exponents should be.")
    from ..report import plan_json, print_plan
    from ..sweep.estimate import estimate_plan
    from ..sweep.plan import make_plan
    from ..sweep.provenance import shared_here
    from ..sweep.records import seconds_done
    from ..sweep.store import open_store
    from ..sweep.warm import is_shipped

    # What shipped studies return is tested; one's own may be misspelt.
    deep = compiled or not is_shipped(experiment)
    cells, seconds, shared = make_plan(loaded, experiment, deep=deep), None, {}
    if out is not None:
        store = open_store(out)
        check_same_sweep(loaded, store.spec, out)
        seconds, shared = seconds_done(store, cells), store.content().plan.sharing_of
    cells = shared_here(cells, shared)
    with console(stderr=True).status("compiling the largest program of each curve") if compiled else nullcontext():
        estimates = estimate_plan(cells, loaded.key, chunk, seconds, compiled=compiled)
    if as_json:
        print_json(plan_json(estimates))
    else:
        print_plan(estimates, console())


def _plan_precision(spec: "SweepSpec", pilot: Path, precision: float, as_json: bool) -> None:
    pilot = pilot.expanduser()
    if not pilot.is_dir():
        raise ValueError(
            f"there is no pilot {pilot}: run the sweep with a few seeds first (--set grid.seeds=8 --out DIR), then give "
            "--pilot DIR."
        )
    from ..report import coverage_json, precision_json, print_precision
    from ..sweep.seeds import plan_precision

    result = load(str(pilot))
    check_same_sweep(spec, result.spec, str(pilot))
    plans = plan_precision(result, precision)
    if as_json:
        print_json({"curves": precision_json(plans), "coverage": coverage_json(result.coverage)})
    else:
        print_precision(result, plans, precision, console())
