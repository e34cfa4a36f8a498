"""A store in place of a sweep file: `tsjax run DIR` continues the sweep that it describes."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .specs import changed, search_here

if TYPE_CHECKING:
    from ..sweep.spec import SweepSpec

# Arguments of the study real_data that name files and columns, in which a colon does not name code.
_NO_CODE = ("data", "target")


def is_store(source: str) -> bool:
    """Whether an argument names a store, rather than a sweep file."""
    return "://" in source or (Path(source).expanduser() / "sweep.json").exists()


def spec_of_store(directory: str, changes: list[str] | None, trust: bool) -> "SweepSpec":
    """The sweep of a store, with `--set` overrides.

    **Raises:** StoreError if there is no store; ValueError if running the sweep would import code that the store names and the
    user does not trust, or if the sweep needs credentials, which stores do not keep.
    """
    from ..sweep.store import open_store

    spec = changed(open_store(directory).spec, changes)
    named = [] if trust else _code_of(spec)
    if named:
        raise ValueError(
            f"the sweep of {directory} is not tsjax's own: to continue it, tsjax would import and run {', '.join(named)}. "
            "Run its sweep file instead, or add --trust if you know where this store is from."
        )
    if any("://***@" in text or "=***" in text for _, text in _texts([spec.problem, spec.grid], "")):
        raise ValueError(
            f"the sweep of {directory} names a URL with credentials, which are not kept in a store: run its sweep file instead."
        )
    if trust:
        search_here()
    return spec


def _code_of(spec: "SweepSpec") -> list[str]:
    """The code that a spec names and that is not part of tsjax."""
    values = [text for name, text in _texts([spec.problem, spec.grid], "") if ":" in text and name not in _NO_CODE]
    return list(dict.fromkeys([*([spec.study] if ":" in spec.study else []), *values]))


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every text in an argument, at any depth of lists and tables, with the name of the argument."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _texts(entry, key)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _texts(entry, name)
