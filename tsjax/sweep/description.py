"""An experiment as data. A store holds this description, so that reading a store runs no code of its study."""

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from ..rates.kinds import Kind, kind_of
from .places import is_users


class Description(BaseModel):
    """An experiment without its functions; the fields are those of `Experiment`.

    - `metrics`: the kinds of metrics, as plain values (`kinds` holds them).
    - `arguments`: the name of every argument, with a list that holds its default, or an empty list if it has none.
    - `source`: hashes of the code of the experiment's function and of the code that it uses (`source_of`).
    - `has_theory`: whether the experiment has a theory of its curves.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    version: int = 1
    arguments: dict[str, list[Any]]
    static: tuple[str, ...] = ()
    x: str = "n"
    y: tuple[str, ...] = ("risk",)
    curve: str | None = None
    work: str | None = None
    independent: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    x64: bool = True
    cite: str = ""
    rates: bool = True
    sized: tuple[str, ...] = ()
    metrics: dict[str, dict[str, Any]] = {}
    arrays: dict[str, tuple[str, ...]] = {}
    source: dict[str, str] = {}
    has_theory: bool = False
    black_box: bool = False

    @model_validator(mode="after")
    def _names_are_known(self):
        if not self.y:
            raise ValueError("an experiment has no metric")
        unknown = {*self.shaping, *self.independent, *([self.curve] if self.curve is not None else [])} - set(
            self.arguments
        )
        if unknown:
            raise ValueError(
                f"no argument is called {', '.join(sorted(unknown))}; there are {', '.join(self.arguments)}"
            )
        for content in self.metrics.values():
            kind_of(content)
        if any(len(default) > 1 for default in self.arguments.values()):
            raise ValueError("an argument has more than one default")
        return self

    @functools.cached_property
    def kinds(self) -> dict[str, Kind]:
        """The declared kind of each metric."""
        return {name: kind_of(content) for name, content in self.metrics.items()}

    @property
    def shaping(self) -> tuple[str, ...]:
        """The arguments that are the same in all cells of a chunk: the static ones and the sizes."""
        return (*self.static, *self.sized)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arguments."""
        return tuple(self.arguments)

    @property
    def returns_x(self) -> bool:
        """Whether x is a vector that every cell returns, rather than an argument."""
        return self.x not in self.arguments


def source_of(fn: Callable) -> dict[str, str]:
    """Hashes, by name, of the code of a function, of every function, class and constant of its module that it uses, directly
    or not, and of each other module of the user's that these use, as a whole. Comments, docstrings and layout do not count, nor
    do installed packages, whose versions are recorded. Empty if there is no source, as at a prompt."""
    module = inspect.getmodule(fn)
    name = getattr(fn, "__name__", "")
    try:
        tree = ast.parse(inspect.getsource(module)) if module is not None else None
    except (OSError, TypeError, SyntaxError):
        tree = None
    try:
        own = ast.parse(textwrap.dedent(inspect.getsource(fn))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return {}
    definitions: dict[str, ast.stmt] = {}
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            definitions |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    found: dict[str, str] = {}
    waiting = [(name or "<lambda>", own)]
    while waiting:
        label, node = waiting.pop()
        node = _bare(node)
        found[label] = hashlib.sha256(ast.unparse(node).encode()).hexdigest()[:16]
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        for other in _modules_of(used - definitions.keys(), fn):
            if other is not module and f"module {other.__name__}" not in found:
                try:
                    text = ast.unparse(_bare(ast.parse(inspect.getsource(other))))
                except (OSError, TypeError, SyntaxError):
                    # Compiled, or deleted since: there is no source that could change.
                    continue
                found[f"module {other.__name__}"] = hashlib.sha256(text.encode()).hexdigest()[:16]
        waiting += [(other, definitions[other]) for other in sorted(used & definitions.keys()) if other not in found]
    return found


def _modules_of(names: set[str], fn: Callable) -> Iterator[ModuleType]:
    """The user's own modules that these global names of a function refer to, or come from."""
    for name in sorted(names):
        value = getattr(fn, "__globals__", {}).get(name)
        module = value if isinstance(value, ModuleType) else sys.modules.get(str(getattr(value, "__module__", None)))
        if module is not None and is_users(getattr(module, "__file__", None) or "<none>"):
            yield module


def _bare(node: ast.AST) -> Any:
    """The code of a statement or a module without decorators (whose options a description holds) and docstrings."""
    for part in ast.walk(node):
        if isinstance(part, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and part.body:
            first = part.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                part.body = part.body[1:]
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        node.decorator_list = []
    return node
