"""The command line: `tsjax --help`."""

import os
import sys

# `python -m tsjax.cli` puts the current directory before all packages, so a file there with the name of a library would run.
# Removed before the imports below are searched for; commands that take a sweep file search this directory last (`specs`).
if sys.argv[:1] == ["-m"] and "tsjax.cli" in sys.orig_argv and not sys.flags.safe_path:
    del sys.path[0]

import typer

from ..report.terminal import Text, console

# Each of these modules adds its commands to the application.
from . import commands, reading, reproduction, tables  # noqa: F401
from .app import Stopped, app
from .engines import REPLACED

__all__ = ["app", "main"]

# The exit code for a wrong spec, store or argument. A verdict that does not hold exits with 1; the help of `tsjax` lists all.
_USAGE_ERROR = 2
# The exit code for a fault of tsjax itself (EX_SOFTWARE of sysexits.h).
_FAULT = 70


def main() -> None:
    """The `tsjax` command. Errors that a user can fix are one line without a traceback."""
    # Taken out here, since --debug may stand anywhere and must work for errors before any command is found.
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
        # Not sys.exit, which would wait for the threads of dropped chunks.
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
    """The message for an error of a user's own code, such as an experiment's function; None for other errors."""
    from ..sweep.faults import users_mistake

    return users_mistake(error)


def _ended(error: SystemExit, debug: bool) -> None:
    """Fails if code of a user ended the program, also with exit code 0, since the command is then not done."""
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
