"""The command line: `tsjax --help`."""

import os
import sys

# `python -m tsjax.cli` puts the current directory before all packages, so that a file there with the name of a library
# would run. Here, since the imports below are looked for already; commands that take a sweep file search it last (`specs`).
if sys.argv[:1] == ["-m"] and "tsjax.cli" in sys.orig_argv and not sys.flags.safe_path:
    del sys.path[0]

import typer

from ..report.terminal import Text, console

# Each of them adds its commands to the application.
from . import commands, reading, reproduction, tables  # noqa: F401
from .app import Stopped, app
from .engines import REPLACED

__all__ = ["app", "main"]

# What a wrong spec, store or argument exits with; a verdict that does not hold exits with 1. Others are at `run`.
_USAGE_ERROR = 2
# What a fault of tsjax itself exits with (EX_SOFTWARE of sysexits.h).
_FAULT = 70


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
        old = getattr(error, "option_name", "")
        if old in REPLACED:
            _fail(f"{old} is not an option any more: {REPLACED[old]}.", error.exit_code)
        context = getattr(error, "ctx", None)
        command = "tsjax" if context is None else context.command_path
        _fail(f"{error.format_message().rstrip('.')}. See {command} --help.", error.exit_code)
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        _fail(_users(error) or str(error), getattr(error, "exit_code", _USAGE_ERROR))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Stopped as error:
        console(stderr=True).print("interrupted: finished chunks are safe; run the same command again to resume.")
        sys.stdout.flush()
        # Not sys.exit, which waits for chunks that were dropped.
        os._exit(error.exit_code)
    except SystemExit as error:
        _ended(error, debug)
    except Exception as error:
        if debug:
            raise
        mistake = _users(error)
        if mistake is None and isinstance(error, OverflowError | MemoryError):
            mistake = f"a number or an array is too large for this machine ({error}); take smaller sizes"
        if mistake is not None:
            _fail(f"{mistake}.", _USAGE_ERROR)
        _fail(f"unexpected {type(error).__name__}: {error} (--debug shows where; please report it)", _FAULT)


def _users(error: BaseException) -> str | None:
    """What to say of an error of a user's own code, such as an experiment's function."""
    from ..sweep.faults import users_mistake

    return users_mistake(error)


def _ended(error: SystemExit, debug: bool) -> None:
    """A user's function that ends the program has not done what was asked, also when it ends with code 0."""
    from ..sweep.places import place_of

    place = place_of(error)
    if place is None:
        raise error
    message = f"sys.exit({error.code!r}) was called by {place}."
    if debug:
        raise RuntimeError(message) from error
    _fail(message, _USAGE_ERROR)


def _fail(message: str, exit_code: int) -> None:
    line = Text("error:", style="red").append(f" {' '.join(message.split())}", style="default")
    console(stderr=True).print(line, soft_wrap=True, highlight=False)
    sys.exit(exit_code)
