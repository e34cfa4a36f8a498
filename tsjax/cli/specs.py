"""The sweep that a command line names: a file or a shipped sweep, with overrides."""

import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..sweep.spec import SweepSpec


_PACKAGE = Path(__file__).parent.parent


def shipped_sweeps() -> Path:
    """The folder of the shipped sweep files: inside the installed package, or beside it in a checkout."""
    inside = _PACKAGE / "sweeps"
    return inside if inside.is_dir() else _PACKAGE.parent / "sweeps"


def shipped_names() -> list[str]:
    return sorted(path.stem for path in shipped_sweeps().glob("*.toml"))


def papers() -> "dict[str, dict[str, SweepSpec]]":
    """The papers that shipped sweeps reproduce, by arXiv number, each with these sweeps by name."""
    from ..sweep.spec import load_spec

    found: dict[str, dict[str, SweepSpec]] = {}
    for name in shipped_names():
        spec = load_spec(shipped_sweeps() / f"{name}.toml")
        if spec.reproduces:
            found.setdefault(spec.reproduces.removeprefix("arXiv:"), {})[name] = spec
    return dict(sorted(found.items()))


def search_here() -> None:
    """Makes Python search for modules in the current directory too, after all packages. A user who runs a sweep file trusts it,
    but a store may be read without trust. So only commands that run code which the user named or trusts call this."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def find_spec(spec: Path) -> Path:
    """The sweep file at this path, or the shipped one of this name; also calls `search_here`. **Raises:** SpecError."""
    search_here()
    spec = spec.expanduser()
    if spec.exists():
        return spec
    names = shipped_names()
    if str(spec) in names:
        return shipped_sweeps() / f"{spec}.toml"
    from ..hints import nearest
    from ..sweep.spec import SpecError

    raise SpecError(f"there is no sweep file {spec}; shipped ones go by name.{nearest(spec.stem, names)}")


def changed(spec: "SweepSpec", changes: list[str] | None) -> "SweepSpec":
    """The spec with `--set` overrides, validated again. **Raises:** SpecError."""
    from ..hints import nearest
    from ..sweep.spec import SpecError, parse_spec

    content: dict[str, Any] = spec.model_dump(exclude_defaults=True)
    for change in changes or []:
        path, equals, text = change.partition("=")
        table, dot, name = path.strip().partition(".")
        if not equals or not (dot or table in ("key", "claim", "source", "study")):
            raise SpecError(f"--set {change}: write TABLE.KEY=VALUE, for instance --set grid.seeds=128.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        except RecursionError:
            raise SpecError(f"--set {path}: lists or tables are nested too deeply to be read.") from None
        if not dot:
            content[table] = value
        elif table == "grid":
            content["grid"] = [{**block, name: value} for block in content["grid"]]
        elif table in ("problem", "smoke"):
            content[table] = {**content.get(table, {}), name: value}
        else:
            raise SpecError(f"--set {change}: no table {table!r}.{nearest(table, ['grid', 'problem', 'smoke'])}")
    return parse_spec(content, where="after --set")


def check_same_sweep(spec: "SweepSpec", other: "SweepSpec", where: str) -> None:
    if other.identity != spec.identity:
        raise ValueError(f"{where} holds another sweep than the file: its study and key are {other.identity}.")
