"""An expected verdict, the table `[[expect]]` of a sweep file."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..rates import MODELS
from .errors import nearest

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

    Means are judged of risks (positive numbers), and of truth values, which have no ratios. Expectations about times, or about
    means that may be 0, are refused, and what turns out to be no risk is undecided (see `tsjax.mean_ratio`).

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
