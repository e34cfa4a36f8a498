"""Code that a spec names, `package.module:name`: the one place where tsjax imports what is not its own."""

import contextlib
import contextvars
import importlib
from collections.abc import Iterator
from typing import Any

from .errors import SpecError
from .places import told

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
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise SpecError(f"{where}: cannot be imported: {told(error)}.") from error
        raise SpecError(
            f"{where}: cannot be imported: there is no module {error.name!r} where Python looks for modules. Install its "
            "package, or name its folder in PYTHONPATH; on the command line modules in the current directory are found too."
        ) from error
    # Also sys.exit, which would end the command as if all were well.
    except (Exception, SystemExit) as error:
        raise SpecError(f"{where}: cannot be imported: {told(error)}.") from error
    if not hasattr(found, attribute):
        raise SpecError(
            f"{where}: cannot be imported: the module {module} ({getattr(found, '__file__', None)}) has no {attribute!r}."
        )
    return getattr(found, attribute)
