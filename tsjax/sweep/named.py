"""Code that a spec names, `package.module:name`: the one place where tsjax imports what is not its own."""

import contextlib
import contextvars
import importlib
from collections.abc import Iterator
from typing import Any

_ALLOWED = contextvars.ContextVar("tsjax_imports_allowed", default=True)


@contextlib.contextmanager
def no_imports() -> Iterator[None]:
    """While something is read that others may have written, nothing is imported by name."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def import_named(name: str) -> Any:
    """What `package.module:name` names. **Raises:** ImportError, or whatever importing the module raises."""
    if not _ALLOWED.get():
        raise ImportError("a store names it, and reading a store imports nothing")
    module, attribute = name.split(":", 1)
    return getattr(importlib.import_module(module), attribute)
