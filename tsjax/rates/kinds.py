"""Kinds of metrics. The kind, which an experiment declares or the values show, decides which interval a mean has."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .compare import mean_ratio, share
from .intervals import Estimate
from .means import mean, mean_difference, share_difference, share_of_trials
from .metrics import why_no_risk
from .table import Numbers


class Kind(ABC):
    """A kind of metric. `name` is written to stores, and `has_ratios` says whether its means are positive, so
    that they have ratios and logarithms."""

    name: ClassVar[str]
    has_ratios: ClassVar[bool] = False

    @abstractmethod
    def mean(self, values: Numbers, trials: Any = None, *, level: float = 0.95) -> Estimate:
        """The mean over seeds; `trials` is the number of trials behind each share, for kinds that are shares."""

    def minus(self, a: Numbers, b: Numbers, trials: Any = None, *, level: float = 0.95) -> Estimate:
        """The difference of two means, paired by seed."""
        del trials
        return mean_difference(a, b, level=level)

    def why_not(self, values: np.ndarray, name: str) -> str | None:
        """Why values (seeds,) are not of this kind; None if they are."""
        return None


@dataclass(frozen=True)
class Positive(Kind):
    """A positive number that varies continuously, such as a risk, a loss or a cost. Means and their ratios have the interval of
    `mean_ratio`, differences that of `mean_difference`."""

    name: ClassVar[str] = "positive"
    has_ratios: ClassVar[bool] = True

    def mean(self, values: Numbers, trials: Any = None, *, level: float = 0.95) -> Estimate:
        """The mean over seeds. **Raises:** ValueError for values that are not positive numbers (`mean_ratio`)."""
        del trials
        return mean_ratio(values, 1.0, level=level)

    def why_not(self, values: np.ndarray, name: str) -> str | None:
        """Why values (seeds,) are not of this kind; None where they are."""
        return why_no_risk(values, name)


@dataclass(frozen=True)
class Signed(Kind):
    """A number of any sign, such as a drift or a difference, whose mean may be 0. The interval is that of `mean`."""

    name: ClassVar[str] = "signed"

    def mean(self, values: Numbers, trials: Any = None, *, level: float = 0.95) -> Estimate:
        """The mean over seeds."""
        del trials
        return mean(values, level=level)


@dataclass(frozen=True)
class Indicator(Kind):
    """A truth value, or 0 or 1, for each seed. Its mean is a share of seeds, with the exact interval of `share`."""

    name: ClassVar[str] = "indicator"

    def mean(self, values: Numbers, trials: Any = None, *, level: float = 0.95) -> Estimate:
        """The share of seeds."""
        del trials
        return share(values, level=level)

    def minus(self, a: Numbers, b: Numbers, trials: Any = None, *, level: float = 0.95) -> Estimate:
        """The difference of two shares, paired by seed (`share_difference`)."""
        return share_difference(a, b, lambda values: self.mean(values, level=level), level=level)

    def why_not(self, values: np.ndarray, name: str) -> str | None:
        """Why values (seeds,) are not of this kind; None where they are."""
        wrong = values[~np.isnan(values) & (values != 0) & (values != 1)]
        return f"{name} is declared an indicator, and {wrong[0]:g} is neither 0 nor 1." if wrong.size else None


@dataclass(frozen=True)
class Share(Indicator):
    """A share of trials, such as an error rate on test points. The interval is that of `share_of_trials`.

    `trials` is the number of trials, or the name of the argument or the recorded column that holds it.
    """

    trials: int | str = "test_points"
    name: ClassVar[str] = "share"

    def mean(self, values: Numbers, trials: Any = None, *, level: float = 0.95) -> Estimate:
        """The mean share, over seeds and trials."""
        return share_of_trials(values, self.trials if trials is None else trials, level=level)

    def minus(
        self, a: Numbers, b: Numbers, trials: Any = None, trials_b: Any = None, *, level: float = 0.95
    ) -> Estimate:
        """The difference of two mean shares, paired by seed (`share_difference`); `trials` is one number, and `trials_b` the
        number for b if it differs."""
        of = lambda count: lambda values: self.mean(values, count, level=level)
        return share_difference(a, b, of(trials), of(trials if trials_b is None else trials_b), level=level)

    def why_not(self, values: np.ndarray, name: str) -> str | None:
        """Why values (seeds,) are not of this kind; None where they are."""
        wrong = values[~np.isnan(values) & ((values < 0) | (values > 1))]
        return f"{name} is declared a share, and {wrong[0]:g} is not in [0, 1]." if wrong.size else None


KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (Positive, Signed, Indicator, Share)}


def kind_content(kind: Kind) -> dict[str, Any]:
    """A kind as plain values, as stores write it."""
    return {"kind": kind.name, **vars(kind)}


def kind_of(content: dict[str, Any]) -> Kind:
    """The kind that `kind_content` wrote. **Raises:** ValueError for any other content."""
    options = {key: value for key, value in content.items() if key != "kind"}
    if content.get("kind") not in KINDS or not set(options) <= {"trials"}:
        raise ValueError(f"{content!r} is not a kind of metric; the kinds are {', '.join(KINDS)}.")
    return KINDS[content["kind"]](**options)
