"""A sweep's specification: the TOML file, validated before anything is compiled."""

import difflib
import importlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..rates import MODELS
from .axes import RESERVED, AxisError, product
from .experiment import Experiment


class SpecError(ValueError):
    """A specification that cannot be run; the message names the key, the value and what is allowed."""


_WHAT = re.compile(
    r"^(?P<metric>\w+)(?: of (?P<curve>[\w.-]+|\*))?(?: relative to (?P<other>[\w.-]+))?(?: in (?P<axis>\w+))?$"
)


class Expectation(BaseModel):
    """One expected verdict, `[[expect]]`. `what` is one of

    - `rate of CURVE in AXIS`: the exponent of `model` (a power law, unless one is named);
    - `rate of CURVE relative to OTHER in AXIS`: its difference to the exponent of OTHER, paired by seed, or to that of the
      `predicted` curve over the same window;
    - `crossing of CURVE relative to OTHER in AXIS`: the x from which on the risk of CURVE stays below that of OTHER;
    - `model of CURVE in AXIS`: whether AICc prefers `model` to the others, by 2 or more;
    - `forecast of CURVE in AXIS`: mean risk at the largest x over what a fit of `model` without it foretells;
    - `METRIC of CURVE`: its mean over seeds; `METRIC of CURVE relative to OTHER`: ratio of means, paired by seed; OTHER is a
      curve, a recorded column, or `predicted`: what theory predicts for the mean of the curve.

    CURVE may be `*`: every curve that `where` allows, but OTHER and those in `excluding`; against `predicted`, every curve
    that has a prediction. The verdict is that of the curve where the claim is hardest. Allowed are `value` +- `tolerance`, or
    `at_least` and/or `at_most`. `over` restricts x to a value or to [low, high], `where` picks the curve when several differ in
    other arguments.

    A claim is compared by the 95 % interval unless it names its `test`: `equivalence` (to `value` within `tolerance`, two
    one-sided tests) or `superiority` (above `at_least`, or below `at_most`, one-sided), each at level `alpha`, 0.05 by default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    what: str
    value: float | None = None
    tolerance: float | None = Field(default=None, gt=0)
    at_least: float | None = None
    at_most: float | None = None
    over: dict[str, float | list[float]] = {}
    where: dict[str, Any] = {}
    excluding: list[str] = []
    model: str | None = None
    test: Literal["equivalence", "superiority"] | None = None
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    source: str = ""

    @field_validator("what")
    @classmethod
    def _parses(cls, what: str) -> str:
        match = _WHAT.match(what)
        if not match or (match["metric"] in ("model", "forecast") and match["other"] is not None):
            raise ValueError(
                "write 'rate of CURVE in AXIS', 'rate of CURVE relative to OTHER in AXIS' (OTHER may be predicted), "
                "'crossing of CURVE relative to OTHER in AXIS', 'model of CURVE in AXIS', 'forecast of CURVE in AXIS', "
                "'METRIC of CURVE', or 'METRIC of CURVE relative to OTHER'; CURVE may be * for all"
            )
        if match["metric"] == "crossing" and match["other"] in (None, "predicted"):
            raise ValueError("a crossing is that of two curves: write 'crossing of CURVE relative to OTHER in AXIS'")
        return what

    @field_validator("model")
    @classmethod
    def _is_known(cls, model: str | None) -> str | None:
        if model is not None and model not in MODELS:
            raise ValueError(f"no such model.{nearest(model, list(MODELS))}".rstrip("."))
        return model

    @field_validator("over")
    @classmethod
    def _windows(cls, over: dict) -> dict:
        for axis, window in over.items():
            if isinstance(window, list) and (len(window) != 2 or window[0] > window[1]):
                raise ValueError(f"the window of {axis} is one value or [low, high], got {window}")
        return over

    @model_validator(mode="after")
    def _has_bounds(self):
        metric, bounds = self.parts["metric"], [self.at_least, self.at_most]
        if self.model is not None and metric not in ("rate", "model", "forecast"):
            raise ValueError(f"model goes with 'rate of', 'model of' and 'forecast of', not with {metric!r}")
        if metric == "model":
            if self.model is None:
                raise ValueError(f"name the expected model: {', '.join(MODELS)}")
            if self.value is not None or self.test is not None or bounds != [None, None]:
                raise ValueError("'model of' compares by AICc: give model alone")
            return self
        if (self.value is None) != (self.tolerance is None):
            raise ValueError("value and tolerance go together")
        if (self.value is None) == (self.at_least is None and self.at_most is None):
            raise ValueError("give value and tolerance, or at_least and/or at_most")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least = {self.at_least:g} is above at_most = {self.at_most:g}")
        if self.test == "equivalence" and self.value is None:
            raise ValueError("test = 'equivalence' is to a value within a tolerance: give both")
        if self.test == "superiority" and (self.value is not None or bounds.count(None) != 1):
            raise ValueError("test = 'superiority' is one-sided: give at_least or at_most")
        if self.test is None and "alpha" in self.model_fields_set and self.alpha != 0.05:
            raise ValueError("alpha is the level of a test: give test = 'equivalence' or 'superiority' with it")
        return self

    @property
    def level(self) -> float:
        """Of the interval that decides: 95 %, or that of a test at `alpha`."""
        return 0.95 if self.test is None else 1.0 - 2.0 * self.alpha

    @property
    def parts(self) -> dict[str, str | None]:
        """The words of `what`: metric, curve, other, axis."""
        match = _WHAT.match(self.what)
        assert match is not None
        return match.groupdict()

    @property
    def allowed(self) -> tuple[float, float]:
        """The interval of allowed values; of a model's AICc relative to its best rival's, below 0."""
        if self.parts["metric"] == "model":
            return -float("inf"), 0.0
        if self.value is not None and self.tolerance is not None:
            return self.value - self.tolerance, self.value + self.tolerance
        low = -float("inf") if self.at_least is None else self.at_least
        return low, float("inf") if self.at_most is None else self.at_most


class SweepSpec(BaseModel):
    """The contents of a sweep file. `problem` holds fixed arguments, `grid` one or several product grids whose union is
    the sweep, `smoke` a tiny size of the same claim.

    An axis of a grid is a list, one value, or a range such as `{ from = 128, to = 4096, factor = 2 }` (`tsjax.sweep.axes`).
    `zip`, a table of axes or a list of such tables, makes axes go together; `only`, likewise, holds axes for some cells:
    `only = { where = { estimator = "student" }, restarts = [1, 4] }`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: str = ""
    source: str = ""
    study: str
    key: int = Field(default=0, ge=0, lt=2**32)
    problem: dict[str, Any] = {}
    grid: list[dict[str, Any]] = Field(min_length=1)
    smoke: dict[str, Any] = {}
    expect: list[Expectation] = []

    @field_validator("grid", mode="before")
    @classmethod
    def _one_or_many(cls, grid: Any) -> Any:
        return [grid] if isinstance(grid, Mapping) else grid

    def at_smoke_size(self) -> "SweepSpec":
        """The same sweep with the axes of `[smoke]` in place of the grid's."""
        if not self.smoke:
            raise SpecError("this sweep has no [smoke] size.")
        grid = [{**block, **{k: v for k, v in self.smoke.items() if k in block}} for block in self.grid]
        problem = {**self.problem, **{k: v for k, v in self.smoke.items() if k in self.problem}}
        unused = [k for k in self.smoke if k not in problem and not any(k in block for block in self.grid)]
        if unused:
            raise SpecError(f"[smoke] sets {unused[0]!r}, which is in neither [problem] nor [grid].")
        return self.model_copy(update={"grid": grid, "problem": problem})

    @property
    def identity(self) -> dict[str, Any]:
        """What gives a cell its meaning: two specs with equal identity may share one store."""
        return {"study": self.study, "key": self.key}


def nearest(name: str, allowed: Sequence[str]) -> str:
    """' Did you mean ...?' with the closest allowed name, or a list of all."""
    match = difflib.get_close_matches(name, allowed, n=1)
    return f" Did you mean {match[0]!r}?" if match else f" Allowed: {', '.join(allowed)}."


def _readable(error: ValidationError, where: str, allowed: Sequence[str]) -> str:
    """The first problem of a pydantic error in one line: key, value, what is allowed."""
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
    at = "" if not first["loc"] else f"{location} = {first['input']!r}: "
    return f"{where}: {at}{message[:1].lower() + message[1:]}.{hint}".replace("..", ".")


def load_spec(path: str | Path) -> SweepSpec:
    """Reads and validates a sweep file. **Raises:** SpecError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        raise SpecError(f"there is no sweep file {path}.") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a directory, not a sweep file (TOML).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML: {error}.") from None
    return parse_spec(content, where=str(path))


def parse_spec(content: Mapping[str, Any], where: str = "the spec") -> SweepSpec:
    """Validates the contents of a sweep file. **Raises:** SpecError."""
    try:
        return SweepSpec.model_validate(content)
    except ValidationError as error:
        models = {"expect": Expectation}
        first = error.errors()[0]["loc"]
        model = models.get(str(first[0]), SweepSpec) if len(first) > 1 else SweepSpec
        raise SpecError(_readable(error, where, list(model.model_fields))) from None


def find_experiment(study: str) -> Experiment:
    """The experiment a spec names: one that ships with tsjax, or `package.module:name` for one of the user's own."""
    from .. import studies

    if ":" not in study:
        if study not in studies.SHIPPED:
            raise SpecError(
                f"study = {study!r}: no such study.{nearest(study, list(studies.SHIPPED))} "
                "A study of your own is named 'package.module:experiment'."
            )
        module, name = studies.SHIPPED[study], study
    else:
        module, name = study.split(":", 1)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"study = {study!r}: cannot be imported ({error}).") from None
    if not isinstance(found, Experiment):
        raise SpecError(
            f"study = {study!r} is a {type(found).__name__}, not an experiment; decorate it with @ts.experiment."
        )
    return found


def _seeds(value: Any, where: str) -> list[int]:
    listed = list(range(value)) if type(value) is int else value
    if isinstance(listed, list) and listed and all(type(seed) is int and 0 <= seed < 2**32 for seed in listed):
        return list(dict.fromkeys(listed))
    raise SpecError(f"{where}: seeds = {value!r}: give a number of seeds >= 1, or a list of seeds >= 0.")


def _tables(value: Any, name: str, where: str) -> list[dict[str, Any]]:
    tables = [value] if isinstance(value, Mapping) else value
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise SpecError(f"{where}: {name} = {value!r}: give a table of axes, or a list of them.")
    return [dict(table) for table in tables]


def _product(axes: Mapping[str, Any], zips: list, only: list, where: str) -> Iterator[dict[str, Any]]:
    try:
        yield from product(axes, zips, only)
    except AxisError as error:
        raise SpecError(f"{where}: {error}") from None


def expand(spec: SweepSpec, experiment: Experiment) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """All cells of a spec: validated arguments (with defaults filled in) and the seeds to run there, in grid order.

    **Raises:** SpecError naming the table, the key, the value and what is allowed.
    """
    names = list(experiment.arguments.model_fields)
    seen: dict[str, set[int]] = {}
    for number, block in enumerate(spec.grid):
        where = "[grid]" if len(spec.grid) == 1 else f"[[grid]] number {number + 1}"
        axes = {**spec.problem, **block}
        if "seeds" not in axes:
            raise SpecError(f"{where}: seeds is missing (how many seeds to run in every cell).")
        seeds = _seeds(axes.pop("seeds"), where)
        zips, only = _tables(axes.pop("zip", []), "zip", where), _tables(axes.pop("only", []), "only", where)
        inner = [name for table in (*zips, *only) for name in table if name != "where"]
        for name in (*axes, *inner):
            if name not in names:
                table = "[problem]" if name in spec.problem and name not in block else where
                raise SpecError(f"{table}: unknown key {name!r}.{nearest(name, [*names, *RESERVED])}")
        for name in spec.problem:
            if isinstance(spec.problem[name], list) and name not in block:
                raise SpecError(f"[problem]: {name} = {spec.problem[name]!r} is a list; put axes into [grid].")
        for values in _product(axes, zips, only, where):
            try:
                arguments = experiment.arguments.model_validate(values)
            except ValidationError as error:
                key = error.errors()[0]["loc"]
                table = "[problem]" if key and key[0] in spec.problem and key[0] not in block else where
                raise SpecError(_readable(error, table, names)) from None
            cell = arguments.model_dump()
            identity = json.dumps(cell, sort_keys=True)
            new = [seed for seed in seeds if seed not in seen.setdefault(identity, set())]
            seen[identity].update(new)
            if new:
                yield cell, new


def check_expectations(spec: SweepSpec, experiment: Experiment) -> None:
    """Raises SpecError for an expectation about a curve or an axis that the sweep does not have."""
    names = list(experiment.arguments.model_fields)
    curves: set[str] = set()
    if experiment.curve is not None:
        curves = {str(cell[experiment.curve]) for cell, _ in expand(spec, experiment)}
    for number, expectation in enumerate(spec.expect):
        where = f"[[expect]] number {number + 1}"
        curve, axis, other = (expectation.parts[part] for part in ("curve", "axis", "other"))
        named = [] if curve is None or curve == "*" else [curve]
        if expectation.parts["metric"] in ("rate", "crossing") and other not in (None, "predicted"):
            named.append(str(other))
        for name in named + expectation.excluding:
            if name not in curves:
                raise SpecError(f"{where}: no curve {name!r} in this sweep.{nearest(name, sorted(curves))}")
        if expectation.excluding and curve != "*":
            raise SpecError(
                f"{where}: excluding = ... goes with '*' only, but {expectation.what!r} is about one curve."
            )
        if curve is None and experiment.curve is not None:
            raise SpecError(f"{where}: say of which {experiment.curve}: {', '.join(sorted(curves))}.")
        if axis is not None and axis != experiment.x:
            raise SpecError(f"{where}: {experiment.name} has rates in {experiment.x!r}, not in {axis!r}.")
        for key in expectation.over:
            if key != experiment.x:
                hint = " A curve is picked by where = {...}." if key in names else ""
                raise SpecError(f"{where}: over names {key!r}; it restricts {experiment.x!r} alone.{hint}")
        for key in expectation.where:
            if key not in names:
                raise SpecError(f"{where}: where names {key!r}.{nearest(key, names)}")
