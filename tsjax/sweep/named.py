"""Code that a spec names as `package.module:name`: the only place where tsjax imports code of its users by name."""

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
    """Within this context `import_named` refuses: for reading files that others may have written."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def import_named(name: str, where: str) -> Any:
    """Imports the object that `package.module:name` names, and does not call it. **Raises:** SpecError that begins with
    `where`, also if the module raises an error or exits while it is imported."""
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
            # Not the module of the study, but one that it imports.
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
    # A call of sys.exit too, which would end the command as if it had succeeded.
    except (Exception, SystemExit) as error:
        raise SpecError(f"{where}: cannot be imported: {in_one_line(error)}.") from error
    if not hasattr(found, attribute):
        raise SpecError(
            f"{where}: cannot be imported: the module {module} ({getattr(found, '__file__', None)}) has no {attribute!r}."
        )
    return getattr(found, attribute)


def _found_at(module: str) -> str:
    """The hint ' It is in ...' if a module that Python does not find lies in the current directory, in a directory above it
    (as when the current directory is that of the study itself), or in one of its folders. Else an empty text."""
    if not module:
        return ""
    here = Path.cwd()
    below = sorted(one for one in _entries(here) if not one.name.startswith(".") and os.path.isdir(one))
    for folder in (here, *here.parents, *below):
        file = folder.joinpath(*module.split("."))
        for candidate in (file.with_name(f"{file.name}.py"), file / "__init__.py"):
            # Not Path.is_file, which may raise for a folder that cannot be read.
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
    """The hint for a module of a package that is imported as if it stood alone, so that `from . import ...` in it fails; an
    empty text for other errors."""
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
