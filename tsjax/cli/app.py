"""The application that the commands belong to, and what they share."""

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
    help="Measure how fast learners learn: students against teachers, kernels beside them, rates with intervals.",
    epilog="Exit codes: 0 done; 1 a verdict does not hold, a check or the doctor found a fault; 2 wrong input; 3 some "
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
        bool, typer.Option("--debug", metavar="", help="Show the traceback of an error; goes anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", metavar="", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    # The first is taken out of the arguments by main, the second has its callback.
    del debug, version
    # A character that the stream cannot write is no reason to stop; most have become plain ones before.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def start(distributed: bool = False) -> None:
    """Settings of this process: 64-bit types on, one CPU device per core, programs made fast and kept for the next run; and its
    place among the processes of `jax.distributed`, which come before JAX's first use."""
    import jax

    from ..sweep.devices import compile_fast, keep_compiled, use_all_cores
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
    """The result of a store, with records. **Raises:** ValueError when there are none."""
    from ..sweep.loading import load

    result = load(directory)
    if result.records.empty:
        raise NoRecords(result)
    return result


class NoRecords(ValueError):
    """A store that has no records that could be shown, and what is known of that."""

    def __init__(self, result: "Result"):
        from ..report.numbers import notes_of

        damaged = " ".join(notes_of(result.coverage)) if result.coverage.damaged else "Run the sweep first."
        super().__init__(f"{result.path} holds no records yet. {damaged}")


def show(result: "Result", as_json: bool, model: str = "power", asked: bool = False) -> None:
    """Everything about a result, in tables or as JSON; exponents of all curves if they were `asked` for."""
    from ..report import print_result, result_json

    if as_json:
        print_json(result_json(result, model))
    else:
        print_result(result, console(), model, asked)


def note(texts: list[str]) -> None:
    """Sentences on standard error, for commands whose output is a file."""
    for text in texts:
        say(f"note: {text}", stderr=True, style="yellow")
