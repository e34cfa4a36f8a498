"""An expected verdict, the table `[[expect]]` of a sweep file."""

import functools
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..hints import nearest
from ..rates import MODELS
from .phrase import Phrase, parse

# The keys that may differ at the smoke size.
_SMOKE = ("value", "tolerance", "at_least", "at_most", "over", "where", "floor")


class Published(BaseModel):
    """A number from a paper, with the standard `error` that the paper gives, and its place in the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float
    error: float = Field(default=0.0, ge=0.0)
    place: str = ""

    def __str__(self) -> str:
        error = f" +- {self.error:g}" if self.error else ""
        return f"{self.value:g}{error}" + (f" ({self.place})" if self.place else "")


class Expectation(BaseModel):
    """One expected verdict, `[[expect]]`: the number that is measured, and the values that are allowed for it.

    - `what`: the number, as a phrase (`tsjax.sweep.phrase.FORMS`). `model`: the model of a curve that is fitted, or, with the
      phrase `model of`, the model that is expected.
    - `value` and `tolerance`, or `at_least` and/or `at_most`: the allowed values. The phrase `model of` takes none of them.
    - `published`: a number from a paper, as a number or as `{ value, error, place }`, which is shown beside ours. With a
      `tolerance` and no `value`, ours is compared with it, and its standard error widens our interval, since the two are
      independent.
    - `over`: windows: for an axis, one value or [low, high]; for `trend` and `average` also for an expression of arguments.
    - `where`: arguments that pick the curve if several differ in them. `than`: arguments in which the second operand differs
      from the first.
    - `excluding`: curves that `*` leaves out, besides OTHER. With `predicted`, `*` means every curve that has a prediction. The
      verdict is that of the curve for which the claim is hardest.
    - `floor`: with the phrase `monotone of`, means below it count as it.
    - `smoke`: bounds, windows and arguments for the smoke size, or false to drop the expectation there.
    - `test`, `alpha`: a test in place of the 95 % interval: `equivalence` (to `value` within `tolerance`, two one-sided tests)
      or `superiority` (above `at_least`, or below `at_most`, one-sided), at level `alpha`, 0.05 by default.
    - `source`: where the expectation comes from.

    The interval of a metric is that of its kind (`tsjax.Positive`, `Share`, `Signed`, `Indicator`). The experiment declares the
    kind; otherwise truth values are indicators and all others are positive. If the values turn out to be of another kind, the
    verdict is undecided.
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
            raise ValueError("floor goes only with 'monotone of': means below it count as it")
        self._check_smoke()
        if phrase.form == "model":
            if self.model is None:
                raise ValueError(f"name the expected model: {', '.join(MODELS)}")
            if self.value is not None or self.test is not None or bounds != [None, None]:
                raise ValueError("'model of' compares by AICc: give only model")
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
        """The expectation with the bounds, windows and arguments of the smoke size; None if it is dropped there."""
        if self.smoke is False:
            return None
        given = self.model_dump(exclude_unset=True, exclude={"smoke"})
        bounds = {"value", "tolerance", "at_least", "at_most"}
        if bounds & self.smoke.keys():
            given = {name: value for name, value in given.items() if name not in bounds}
        return type(self).model_validate({**given, **self.smoke})

    @property
    def level(self) -> float:
        """The level of the interval that decides: 0.95, or 1 - 2 `alpha` for a test."""
        return 0.95 if self.test is None else 1.0 - 2.0 * self.alpha

    @functools.cached_property
    def phrase(self) -> Phrase:
        """The parts of `what`."""
        return parse(self.what)

    @property
    def middle(self) -> float | None:
        """The centre of the allowed values: `value`, or the published number; None for bounds."""
        if self.tolerance is None or self.value is not None or self.published is None:
            return self.value
        return self.published.value

    @property
    def error(self) -> float:
        """The standard error of the published number, if it is the centre of the allowed values; else 0."""
        return self.published.error if self.value is None and self.middle is not None and self.published else 0.0

    @property
    def allowed(self) -> tuple[float, float]:
        """The interval of allowed values. For `model of` it is (-inf, 0): AICc must be below that of the best rival."""
        if self.phrase.form == "model":
            return -float("inf"), 0.0
        if self.middle is not None and self.tolerance is not None:
            return self.middle - self.tolerance, self.middle + self.tolerance
        low = -float("inf") if self.at_least is None else self.at_least
        return low, float("inf") if self.at_most is None else self.at_most
