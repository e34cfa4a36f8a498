"""Where an error comes from: the file and line in a user's own code, for messages of one line."""

import linecache
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

# tsjax itself, the standard library, and installed packages.
_PACKAGE = str(Path(__file__).parents[1])
_OTHERS = tuple({str(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_INSTALLED = ("site-packages", "dist-packages")


def is_users(file: str) -> bool:
    """Whether a file is a user's own: not part of tsjax, of Python, or of an installed package."""
    if file.startswith("<") and not file.startswith("<ipython"):
        return False
    if any(part in _INSTALLED for part in Path(file).parts):
        return False
    return not file.startswith(tuple(f"{folder}/" for folder in (_PACKAGE, *_OTHERS)))


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield frame.f_code.co_filename, line


def place_of(error: BaseException, own: str = "") -> str | None:
    """File, line number and source line of the last frame in a user's own code (`is_users`), or in the file `own`. None if no
    frame is there."""
    if isinstance(error, SyntaxError) and error.filename and (error.filename == own or is_users(error.filename)):
        return _written(error.filename, error.lineno or 0)
    found = [(file, line) for file, line in _frames(error) if file == own or is_users(file)]
    return _written(*found[-1]) if found else None


def _written(file: str, line: int) -> str:
    source = linecache.getline(file, line).strip()
    return f"{file}, line {line}" + (f": `{source}`" if source else "")


def in_one_line(error: BaseException, own: str = "") -> str:
    """An error in one line: its type, its message, and its place in a user's code, if it has one."""
    name = type(error).__name__
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    if isinstance(error, SystemExit):
        name, text = "sys.exit", str(error.code)
    if name == "MLIRError":
        # The location in the program comes first, and is longer than a screen.
        text = text.rsplit(": ", 1)[-1]
    said = f"{name}: {' '.join(text.split())}" if text else name
    place = place_of(error, own)
    return said if place is None else f"{said.rstrip('.')} (at {place})"
