"""An expected verdict, the table `[[expect]]` of a sweep file."""

import functools
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..hints import nearest
from ..rates import MODELS
from .phrase import Phrase, parse

# What the smoke size may have of its own.
_SMOKE = ("value", "tolerance", "at_least", "at_most", "over", "where", "floor")


class Published(BaseModel):
    """A figure of a paper, with the standard `error` that the paper gives, and its place there."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float
    error: float = Field(default=0.0, ge=0.0)
    place: str = ""

    def __str__(self) -> str:
        error = f" +- {self.error:g}" if self.error else ""
        return f"{self.value:g}{error}" + (f" ({self.place})" if self.place else "")


class Expectation(BaseModel):
    """One expected verdict, `[[expect]]`: `what` is measured (a phrase of `tsjax.sweep.phrase.FORMS`), and what is allowed.

    - `value` +- `tolerance`, or `at_least` and/or `at_most`. `model of` needs `model` alone.
    - `published`: a figure of a paper, a number or `{ value, error, place }`, shown beside ours. With `tolerance`, and no
      `value`, it is what ours is compared with; its error then widens our interval, as the two are independent.
    - `over` restricts an axis to a value or to [low, high]; of `trend` and `average`, an expression of arguments too. `where`
      picks the curve when several differ in other arguments; `than` holds arguments in which the second operand differs from
      the first.
    - `excluding`: curves that `*` does not mean, beside OTHER. Against `predicted`, `*` means every curve that has a
      prediction. The verdict is that of the curve where the claim is hardest.
    - `floor`: of `monotone`: means below it count as it.
    - `smoke`: bounds, windows and arguments of the smoke size, or false where it says nothing.

    Each metric has the interval of its kind (`tsjax.Positive`, `Share`, `Signed`, `Indicator`), declared by the experiment, or
    seen from its values: truth values are indicators, others positive. What turns out to be of another kind is undecided.

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
    than: dict[str, Any] = {}
    excluding: list[str] = []
    floor: float | None = Field(default=None, gt=0)
    published: Published | None = None
    smoke: dict[str, Any] | Literal[False] = {}
    model: str | None = None
    test: Literal["equivalence", "superiority"] | None = None
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    source: str = ""

    @field_validator("what")
    @classmethod
    def _parses(cls, what: str) -> str:
        parse(what)
        return what

    @field_validator("published", mode="before")
    @classmethod
    def _a_number_alone(cls, published: Any) -> Any:
        number = isinstance(published, int | float) and not isinstance(published, bool)
        return {"value": published} if number else published

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
        phrase, bounds = self.phrase, [self.at_least, self.at_most]
        if self.model is not None and phrase.form not in ("rate", "exponent", "model", "forecast"):
            raise ValueError(
                "model goes with 'rate of', 'exponent in', 'model of' and 'forecast of', not with "
                f"{phrase.metric or phrase.form!r}"
            )
        if self.than and (
            phrase.than or phrase.form not in ("rate", "mean", "crossing") or phrase.other == "predicted"
        ):
            raise ValueError(
                "than = {...} says where the second operand differs: it goes with rates, means and crossings, and not with "
                "'predicted' or a second operand AXIS = VALUE"
            )
        if self.floor is not None and phrase.form != "monotone":
            raise ValueError("floor goes with 'monotone of' alone: means below it count as it")
        self._check_smoke()
        if phrase.form == "model":
            if self.model is None:
                raise ValueError(f"name the expected model: {', '.join(MODELS)}")
            if self.value is not None or self.test is not None or bounds != [None, None]:
                raise ValueError("'model of' compares by AICc: give model alone")
            return self
        if self.value is None and self.published is not None and bounds == [None, None]:
            if self.tolerance is None:
                raise ValueError("a published figure needs a tolerance, or bounds of its own (at_least, at_most)")
        elif (self.value is None) != (self.tolerance is None):
            raise ValueError("value and tolerance go together")
        elif (self.value is None) == (self.at_least is None and self.at_most is None):
            raise ValueError("give value and tolerance, or at_least and/or at_most")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least = {self.at_least:g} is above at_most = {self.at_most:g}")
        if phrase.form == "monotone" and (self.at_least is None) == (self.at_most is None):
            raise ValueError(
                "'monotone of' falls (at_most, such as 1.05) or rises (at_least, such as 0.95): give one of them"
            )
        if self.test == "equivalence" and self.middle is None:
            raise ValueError("test = 'equivalence' is to a value within a tolerance: give both")
        if self.test == "superiority" and (self.middle is not None or bounds.count(None) != 1):
            raise ValueError("test = 'superiority' is one-sided: give at_least or at_most")
        if self.test is None and "alpha" in self.model_fields_set and self.alpha != 0.05:
            raise ValueError("alpha is the level of a test: give test = 'equivalence' or 'superiority' with it")
        return self

    def _check_smoke(self) -> None:
        unknown = [name for name in self.smoke or () if name not in _SMOKE]
        if unknown:
            raise ValueError(f"smoke sets {unknown[0]!r}.{nearest(unknown[0], _SMOKE)}".rstrip("."))
        if self.smoke:
            self.at_smoke_size()

    def at_smoke_size(self) -> "Expectation | None":
        """With the bounds, windows and arguments of the smoke size; None where it says nothing there."""
        if self.smoke is False:
            return None
        given = self.model_dump(exclude_unset=True, exclude={"smoke"})
        bounds = {"value", "tolerance", "at_least", "at_most"}
        if bounds & self.smoke.keys():
            given = {name: value for name, value in given.items() if name not in bounds}
        return type(self).model_validate({**given, **self.smoke})

    @property
    def level(self) -> float:
        """Of the interval that decides: 95 %, or that of a test at `alpha`."""
        return 0.95 if self.test is None else 1.0 - 2.0 * self.alpha

    @functools.cached_property
    def phrase(self) -> Phrase:
        """The parts of `what`."""
        return parse(self.what)

    @property
    def middle(self) -> float | None:
        """What the number is compared with within the tolerance: `value`, or the published figure."""
        if self.tolerance is None or self.value is not None or self.published is None:
            return self.value
        return self.published.value

    @property
    def error(self) -> float:
        """The standard error of what the number is compared with."""
        return self.published.error if self.value is None and self.middle is not None and self.published else 0.0

    @property
    def allowed(self) -> tuple[float, float]:
        """The interval of allowed values; of a model's AICc relative to its best rival's, below 0."""
        if self.phrase.form == "model":
            return -float("inf"), 0.0
        if self.middle is not None and self.tolerance is not None:
            return self.middle - self.tolerance, self.middle + self.tolerance
        low = -float("inf") if self.at_least is None else self.at_least
        return low, float("inf") if self.at_most is None else self.at_most
