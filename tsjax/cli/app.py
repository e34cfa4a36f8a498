"""The application to which the commands belong, and the functions that they share."""

import io
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..report.terminal import console, say
from ..versions import version_of

if TYPE_CHECKING:
    from ..sweep.result import Result

app = typer.Typer(
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure how fast learners learn: train students against teachers, compare kernels, fit rates with intervals.",
    epilog="Exit codes: 0 done; 1 a verdict does not hold, or check or doctor found a fault; 2 wrong input; 3 some "
    "programs of a sweep failed; 4 verdicts on an incomplete sweep; 5 the disk is full; 70 a fault of tsjax; 130 or 143 "
    "stopped. Shells complete commands, options, sweeps and stores after "
    "tsjax --install-completion.",
)


class Stopped(BaseException):
    """A sweep was interrupted. Not a KeyboardInterrupt, since Typer turns that into exit code 130 for every signal."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code


def _show_version(wanted: bool) -> bool:
    if wanted:
        print(f"tsjax {version_of('tsjax')}")
        raise typer.Exit()
    return wanted


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Show the traceback of an error; may stand anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", metavar="", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    # `main` takes --debug out of the arguments, and --version has its callback.
    del debug, version
    # A character that the stream cannot write must not stop the command; most are replaced by plain ones before.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def start(distributed: bool = False) -> None:
    """Configures this process before JAX is first used: 64-bit types on, one CPU device per core, and programs that are
    compiled fast and kept for the next run. With `distributed` it also joins the processes of `jax.distributed`."""
    import jax

    from ..compilation import compile_fast
    from ..sweep.devices import keep_compiled, use_all_cores
    from ..sweep.warm import keep_traced

    compile_fast()
    use_all_cores()
    keep_compiled()
    keep_traced()
    if distributed:
        jax.distributed.initialize()
    jax.config.update("jax_enable_x64", True)


def print_json(content: Any) -> None:
    from ..sweep.values import redacted

    print(json.dumps(redacted(content), indent=1))


def load(directory: str) -> "Result":
    """The result of a store. **Raises:** NoRecords if it has no records; StoreError."""
    from ..sweep.loading import load

    result = load(directory)
    if result.records.empty:
        raise NoRecords(result)
    return result


class NoRecords(ValueError):
    """A store without records to show; the message says why there are none, if that is known."""

    def __init__(self, result: "Result"):
        from ..report.numbers import notes_of

        damaged = " ".join(notes_of(result.coverage)) if result.coverage.damaged else "Run the sweep first."
        super().__init__(f"{result.path} holds no records yet. {damaged}")


def show(result: "Result", as_json: bool, model: str = "power", asked: bool = False) -> None:
    """Prints everything about a result, in tables or as JSON, with the exponents of all curves if they were `asked` for."""
    from ..report import print_result, result_json

    if as_json:
        print_json(result_json(result, model))
    else:
        print_result(result, console(), model, asked)


def note(texts: list[str]) -> None:
    """Prints sentences on standard error, for commands whose output is a file."""
    for text in texts:
        say(f"note: {text}", stderr=True, style="yellow")
