"""The installed versions of tsjax and of other packages."""

import importlib.metadata
import tomllib
from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent / "pyproject.toml"


def version_of(package: str) -> str | None:
    """The version of a package, or None where it is not installed. In a source tree that is on the path without being
    installed, the version of tsjax comes from the `pyproject.toml` beside it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package != "tsjax":
            return None
    try:
        project = tomllib.loads(_HERE.read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return None
    return f"{project['version']}+source" if project.get("name") == "tsjax" else None
