"""Code that a spec names, `package.module:name`: the one place where tsjax imports what is not its own."""

import contextlib
import contextvars
import importlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import SpecError
from .places import in_one_line

_ALLOWED = contextvars.ContextVar("tsjax_imports_allowed", default=True)


@contextlib.contextmanager
def no_imports() -> Iterator[None]:
    """While something is read that others may have written, nothing is imported by name."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def import_named(name: str, where: str) -> Any:
    """What `package.module:name` names; nothing is called. **Raises:** SpecError that begins with `where`, also
    when the module fails or exits while it is imported."""
    if not _ALLOWED.get():
        raise SpecError(f"{where}: cannot be imported (a store names it, and reading a store imports nothing).")
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise SpecError(f"{where}: cannot be imported; write 'package.module:name'.")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{module}.".startswith(f"{missing}."):
            # A module that the study's own imports.
            raise SpecError(f"{where}: cannot be imported: {in_one_line(error)}.{_found_at(missing)}") from error
        hint = _found_at(module) or (
            " Install its package, or name its folder in PYTHONPATH; on the command line modules in the current directory are "
            "found too."
        )
        raise SpecError(
            f"{where}: cannot be imported: there is no module {missing!r} where Python looks for modules.{hint}"
        ) from error
    except ImportError as error:
        raise SpecError(
            f"{where}: cannot be imported: {in_one_line(error)}.{_as_part(module, attribute, error)}"
        ) from error
    # Also sys.exit, which would end the command as if all were well.
    except (Exception, SystemExit) as error:
        raise SpecError(f"{where}: cannot be imported: {in_one_line(error)}.") from error
    if not hasattr(found, attribute):
        raise SpecError(
            f"{where}: cannot be imported: the module {module} ({getattr(found, '__file__', None)}) has no {attribute!r}."
        )
    return getattr(found, attribute)


def _found_at(module: str) -> str:
    """' It is in ...' where a module that Python does not find lies near: below the current directory, one of those above it,
    or one of its folders, as where one runs in the folder of the study itself. Else an empty text."""
    if not module:
        return ""
    here = Path.cwd()
    below = sorted(one for one in _entries(here) if not one.name.startswith(".") and os.path.isdir(one))
    for folder in (here, *here.parents, *below):
        file = folder.joinpath(*module.split("."))
        for candidate in (file.with_name(f"{file.name}.py"), file / "__init__.py"):
            # Not the method of Path, which raises for a folder that cannot be read.
            if os.path.isfile(candidate):
                return (
                    f" It is in {candidate}: run in {folder}, or put that folder on the path, "
                    f"PYTHONPATH={shlex.quote(str(folder))}."
                )
    return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _as_part(module: str, attribute: str, error: ImportError) -> str:
    """What to do about a module of a package that is imported as if it stood alone, so that `from . import ...` in it fails."""
    file = Path(*module.split(".")).with_suffix(".py").resolve()
    if "relative import" not in str(error) or not file.is_file():
        return ""
    folder, names = file.parent, [file.stem]
    while True:
        names.insert(0, folder.name)
        folder = folder.parent
        if not (folder / "__init__.py").is_file():
            break
    return f" It is part of a package: run in {folder}, and write study = '{'.'.join(names)}:{attribute}'."
