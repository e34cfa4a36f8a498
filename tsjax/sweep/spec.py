"""A sweep's specification: the TOML file, validated before anything is compiled."""

import importlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationError, field_validator
from pydantic.fields import FieldInfo

from ..hints import nearest
from .axes import RESERVED, AxisError, check_count, count_cells, product, values_of
from .checks import check_expectations, possible
from .errors import AbsentError, SpecError, shown
from .expectation import Expectation
from .experiment import Experiment
from .named import import_named
from .surface import SurfaceAxes, check_surface

__all__ = ["Expectation", "SpecError", "SweepSpec", "expand", "find_experiment", "load_spec", "parse_spec"]


RECORDED = "runs"
"""The study of results that were read from a table (`tsjax.from_table`)."""


class SweepSpec(BaseModel):
    """The contents of a sweep file.

    - `claim`, `source`: what the sweep tests, in a sentence, and where it comes from.
    - `study`: the experiment: the name of one that ships with tsjax, or `package.module:name`. `key`: the root key.
    - `problem`: fixed arguments. `grid`: one product grid, or a list of them whose union is the sweep. `smoke`: axes and
      arguments that replace those of the grid and of `problem` for a tiny sweep with the same claim.
    - `expect`: the expected verdicts (`Expectation`). `surface`: two arguments over which the page fits a surface
      (`SurfaceAxes`).
    - `minutes`: how long the sweep took on two CPU cores, for `tsjax list`.
    - `reproduces`: the paper for which `tsjax reproduce` runs this sweep, such as `arXiv:2205.14818`. `figure`: the figure that
      shows the claim, by its name in `tsjax figure --name`.

    An axis of a grid is a list, one value, or a range such as `{ from = 128, to = 4096, factor = 2 }` (`tsjax.sweep.axes`). If
    an argument is itself a list (`widths: tuple[int, ...]`), `widths = [64, 64]` is one value, and `widths = [[64], [64, 64]]`
    is an axis of two values. A grid also has these keys:

    - `seeds`: a number of seeds, a list of seeds, or a range.
    - `zip`: a table of axes, or a list of such tables: the axes of one table go together, value by value.
    - `only`: a table, or a list of tables, of axes for some cells only:
      `only = { where = { estimator = "student" }, restarts = [1, 4] }`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: str = ""
    source: str = ""
    reproduces: str = ""
    figure: str = ""
    study: str
    key: int = Field(default=0, ge=0, lt=2**32, strict=True)
    problem: dict[str, Any] = {}
    grid: list[dict[str, Any]] = Field(min_length=1)
    smoke: dict[str, Any] = {}
    minutes: float | None = Field(default=None, gt=0.0)
    expect: list[Expectation] = []
    surface: SurfaceAxes | None = None

    _called: bool = PrivateAttr(default=False)
    """Whether a call from Python states the grid, so that errors do not speak of tables of a file."""

    def __eq__(self, other: object) -> bool:
        # Who states a spec makes no difference to what it says.
        return isinstance(other, SweepSpec) and self.model_dump() == other.model_dump()

    @field_validator("grid", mode="before")
    @classmethod
    def _one_or_many(cls, grid: Any) -> Any:
        return [grid] if isinstance(grid, Mapping) else grid

    @field_validator("reproduces")
    @classmethod
    def _is_a_paper(cls, paper: str) -> str:
        if paper and not re.fullmatch(r"arXiv:\d{4}\.\d{4,5}", paper):
            raise ValueError("write the number of a paper, such as arXiv:2205.14818")
        return paper

    def at_smoke_size(self, experiment: Experiment | None = None) -> "SweepSpec":
        """The sweep at its smoke size: values of `[smoke]` replace those of the grid and of `[problem]`, and each expectation
        takes its own bounds and windows for this size. Expectations about curves, values or windows that only the full grid has
        are dropped. `experiment` is needed only if the study cannot be imported.

        **Raises:** SpecError for a sweep without `[smoke]`, and for a name in it that is in neither table."""
        if not self.smoke:
            raise SpecError("this sweep has no [smoke] size.")
        grid = [{**block, **{k: v for k, v in self.smoke.items() if k in block}} for block in self.grid]
        problem = {**self.problem, **{k: v for k, v in self.smoke.items() if k in self.problem}}
        unused = [k for k in self.smoke if k not in problem and not any(k in block for block in self.grid)]
        if unused:
            raise SpecError(f"[smoke] sets {unused[0]!r}, which is in neither [problem] nor [grid].")
        small = self.model_copy(update={"grid": grid, "problem": problem})
        if not self.expect and self.surface is None:
            return small
        experiment = find_experiment(self.study) if experiment is None else experiment
        if self.surface is not None:
            names = list(experiment.arguments.model_fields)
            check_surface(self.surface, names, (cell for cell, _ in expand(self, experiment)))
            try:
                check_surface(self.surface, names, (cell for cell, _ in expand(small, experiment)))
            except AbsentError:
                small = small.model_copy(update={"surface": None})
        # The full grid is checked first: a name that is not there either is misspelt, and not just absent at the smoke size.
        check_expectations(self.expect, experiment, (cell for cell, _ in expand(self, experiment)), deep=False)
        own = filter(None, (expectation.at_smoke_size() for expectation in self.expect))
        kept = possible(list(own), experiment, (cell for cell, _ in expand(small, experiment)))
        return small.model_copy(update={"expect": kept})

    @property
    def identity(self) -> dict[str, Any]:
        """The study and the root key: two specs may share one store only if both are equal."""
        return {"study": self.study, "key": self.key}


def _readable(error: ValidationError, where: str, allowed: Sequence[str]) -> str:
    """The first problem of a pydantic error in one line: the key, its value, and what is allowed."""
    first = error.errors()[0]
    location = ".".join(str(part) for part in first["loc"]) or "the table"
    name = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {name!r}.{nearest(name, allowed)}"
    if first["type"] == "missing":
        return f"{where}: {location} is missing."
    message = first["msg"].removeprefix("Value error, ")
    hint = ""
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        hint = nearest(first["input"], re.findall(r"'([^']+)'", str(first.get("ctx", {}).get("expected"))))
    at = "" if not first["loc"] else f"{location} = {shown(first['input'])}: "
    return f"{where}: {at}{message[:1].lower() + message[1:]}.{hint}".replace("..", ".")


def load_spec(path: str | Path) -> SweepSpec:
    """Reads and validates a sweep file. **Raises:** SpecError."""
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        raise SpecError(f"there is no sweep file {path}.") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a directory, not a sweep file (TOML).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML: {error}.") from None
    except RecursionError:
        raise SpecError(f"{path}: lists or tables are nested too deeply to be read.") from None
    return parse_spec(content, where=str(path))


def parse_spec(content: Mapping[str, Any], where: str = "the spec", *, called: bool = False) -> SweepSpec:
    """Validates the contents of a sweep file. `called` says that a call from Python states the grid, so that errors do not
    speak of tables of a file. **Raises:** SpecError."""
    try:
        # Values nested so deeply that they cannot be written as JSON cannot be kept in a store.
        json.dumps(content, default=repr)
        spec = SweepSpec.model_validate(content)
    except (RecursionError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise _refused(error, where) from None
        raise SpecError(f"{where}: lists or tables are nested too deeply to be read.") from None
    spec._called = called
    return spec


def _refused(error: ValidationError, where: str) -> SpecError:
    first = error.errors()[0]["loc"]
    tables = {"expect": Expectation, "surface": SurfaceAxes}
    model = tables.get(str(first[0]), SweepSpec) if len(first) > 1 else SweepSpec
    return SpecError(_readable(error, where, list(model.model_fields)))


def find_experiment(study: str) -> Experiment:
    """The experiment that a spec names: one that ships with tsjax, or `package.module:name`. **Raises:** SpecError."""
    from .. import studies

    if study == RECORDED:
        raise SpecError(
            f"study = {RECORDED!r}: these runs were read from a table, so there is nothing to run. To add runs, read the "
            "longer table: tsjax page TABLE, or ts.from_table."
        )
    if ":" not in study:
        if study not in studies.SHIPPED:
            raise SpecError(
                f"study = {study!r}: no such study.{nearest(study, list(studies.SHIPPED))} "
                "A study of your own is named 'package.module:experiment'."
            )
        return getattr(importlib.import_module(studies.SHIPPED[study]), study)
    found = import_named(study, f"study = {study!r}")
    if not isinstance(found, Experiment):
        raise SpecError(
            f"study = {study!r} is a {type(found).__name__}, not an experiment; decorate it with @ts.experiment."
        )
    return found


class _Reader:
    """Reads and validates the arguments of cells by the schema of an experiment."""

    def __init__(self, experiment: Experiment):
        self.schema, self.experiment = experiment.arguments, experiment.name
        self.names = list(self.schema.model_fields)
        # Arguments whose values are lists: their types distinguish one value (a list) from an axis (a list of lists).
        self.lists = {
            name: TypeAdapter(_annotated(info))
            for name, info in self.schema.model_fields.items()
            if _holds_a_list(info.annotation)
        }
        self.first: dict[str, dict[Any, Any]] = {name: {} for name in self.names}

    def is_value(self, name: str, value: Any) -> bool:
        """Whether a list is one value of the argument."""
        if name not in self.lists or not isinstance(value, list | tuple):
            return False
        try:
            self.lists[name].validate_python(value)
        except ValidationError:
            return False
        return True

    def cell(self, values: Mapping[str, Any], table: Callable[[str], str]) -> dict[str, Any]:
        """All arguments of a cell, validated and with defaults; `table(name)` says which table an argument comes from."""
        try:
            cell = self.schema.model_validate(values).model_dump()
        except ValidationError as error:
            key = str((error.errors()[0]["loc"] or ("",))[0])
            hint = f" One value of {key} is a list; an axis is a list of such lists." if key in self.lists else ""
            raise SpecError(_readable(error, table(key), self.names) + hint) from None
        for name, value in cell.items():
            given = values.get(name)
            if isinstance(given, str | bool) and type(given) is not type(value) and isinstance(value, int | float):
                raise SpecError(
                    f"{table(name)}: {name} = {shown(given)} is {'text' if isinstance(given, str) else 'a truth value'}, and "
                    f"{self.experiment} takes it as {shown(value)}: write {name} = {shown(value)}."
                )
            if not _is_plain(value):
                raise SpecError(
                    f"{table(name)}: {name} = {shown(value)} is a {type(value).__name__}, which a record cannot hold: annotate "
                    f"{name} as a number, str, bool, None, Literal of these, or a list or tuple of them."
                )
            first = self.first[name].setdefault(_hashable(value), value)
            if type(first) is not type(value) and json.dumps(first) != json.dumps(value):
                # Python and pandas take the two for equal, so their cells would count as one, but the function may not.
                raise SpecError(
                    f"{table(name)}: {name} is given as {first!r} and as {value!r}, which are equal but of different types: "
                    "write one of them."
                )
        return cell


def _annotated(info: FieldInfo) -> Any:
    """The annotation of a field with its constraints."""
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def _holds_a_list(annotation: Any) -> bool:
    """Whether values of an annotation may be lists or tuples."""
    annotation = getattr(annotation, "__value__", annotation)
    origin = get_origin(annotation)
    if origin is Annotated or origin is Union or origin is UnionType:
        return any(_holds_a_list(part) for part in get_args(annotation))
    kind = annotation if origin is None else origin
    return isinstance(kind, type) and issubclass(kind, Sequence) and not issubclass(kind, str | bytes)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _seeds(value: Any, where: str) -> Sequence[int]:
    """The seeds in their order, without repetitions. A number of seeds becomes a range, which takes no memory."""
    wrong = SpecError(
        f"{where}: seeds = {shown(value)}: give a number of seeds >= 1, or a list or range of seeds from 0 to {2**32 - 1}."
    )
    if type(value) is int:
        if value < 1:
            raise wrong
        check_count(value, f"seeds = {value}: ")
        return range(value)
    try:
        listed = values_of("seeds", value) if isinstance(value, list | Mapping) else None
    except AxisError as error:
        if isinstance(value, list):
            raise wrong from None
        raise SpecError(f"{where}: {error}") from None
    if not listed or not all(type(seed) is int and 0 <= seed < 2**32 for seed in listed):
        raise wrong
    return list(dict.fromkeys(listed))


def _tables(value: Any, name: str, where: str) -> list[dict[str, Any]]:
    tables = [value] if isinstance(value, Mapping) else value
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise SpecError(f"{where}: {name} = {shown(value)}: give a table of axes, or a list of them.")
    return [dict(table) for table in tables]


def expand(spec: SweepSpec, experiment: Experiment) -> Iterator[tuple[dict[str, Any], Sequence[int]]]:
    """All cells of a spec, in grid order: validated arguments (with defaults), and the seeds to run at these arguments.

    Cells are counted before they are made. **Raises:** SpecError that names the table, the key, the value and what is allowed.
    """
    reader = _Reader(experiment)
    seen: dict[str, set[int]] = {}
    total = 0
    for number, block in enumerate(spec.grid):
        where = "ts.sweep" if spec._called else "[grid]"
        where = where if len(spec.grid) == 1 else f"[[grid]] number {number + 1}"
        try:
            for values, seeds, table in _block(spec, block, reader, where, total):
                cell = reader.cell(values, table)
                done = seen.setdefault(json.dumps(cell, sort_keys=True), set())
                new = [seed for seed in seeds if seed not in done] if done else seeds
                done.update(new)
                total += len(new)
                check_count(total)
                if new:
                    yield cell, new
        except AxisError as error:
            raise SpecError(f"{where}: {error}") from None


def _block(
    spec: SweepSpec, block: Mapping[str, Any], reader: _Reader, where: str, before: int
) -> Iterator[tuple[dict[str, Any], Sequence[int], Callable[[str], str]]]:
    """The combinations of one table [grid], each with its seeds and a function that says which table a name comes from."""
    axes = {**spec.problem, **block}
    table = lambda name: "[problem]" if name in spec.problem and name not in block else where
    zips, only = _tables(axes.pop("zip", []), "zip", where), _tables(axes.pop("only", []), "only", where)
    inner = [name for group in (*zips, *only) for name in group if name != "where"]
    for name in (*axes, *inner):
        if name not in reader.names and name != "seeds":
            what = "argument" if spec._called else "key"
            raise SpecError(f"{table(name)}: unknown {what} {name!r}.{nearest(name, [*reader.names, *RESERVED])}")
    if "seeds" not in axes:
        raise SpecError(f"{where}: seeds is missing (how many seeds to run in every cell).")
    seeds = _seeds(axes.pop("seeds"), table("seeds"))
    for name, value in spec.problem.items():
        if isinstance(value, list) and name in axes and name not in block and not reader.is_value(name, value):
            raise SpecError(f"[problem]: {name} = {shown(value)} is a list; put axes into [grid].")
    check_count(before + count_cells(axes, zips, reader.is_value) * len(seeds))
    for values in product(axes, zips, only, reader.is_value):
        yield values, seeds, table
