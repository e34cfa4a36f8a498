"""From expectations to verdicts: what each `[[expect]]` asks is measured on the curves of a sweep, and judged."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..rates import (
    Estimate,
    Rate,
    Verdict,
    choose_model,
    crossing,
    fit_rate,
    judge,
    mean_ratio,
    p_value_sentence,
    score_forecast,
    share,
)
from ..rates.diagnostics import open_sentence
from ..rates.selection import CANDIDATES, UNDECIDED
from .axes import same
from .curve import Curve
from .description import Description
from .metrics import TIMES, no_measurement, no_ratio, no_risk
from .spec import Expectation, nearest

_ALIKE = "the seeds are all alike, so the interval has no width and says nothing about other seeds"


class _Unmeasured(Exception):
    """An expectation about something that the records do not hold (yet)."""


class _Measured(NamedTuple):
    """A number for one curve: `value` and `interval`, measured over `x` (first, last); `doubt`: what forbids to trust a verdict
    that holds; `note`: what else to tell; `curve`: the part of the curve that was asked about."""

    value: float
    interval: tuple[float, float]
    x: tuple[float, float]
    doubt: str = ""
    note: str = ""
    curve: Curve | None = None


class Judged(NamedTuple):
    """A `verdict` on an `expectation`, with what it was measured on: `curve`, the part of a curve that the expectation means
    (of several curves that where the claim is hardest), and `x`, the first and the last x of the measured number. None for
    both where nothing could be measured."""

    expectation: Expectation
    verdict: Verdict
    curve: Curve | None = None
    x: tuple[float, float] | None = None


class Judge:
    """Judges expectations on `curves`, the curves of `experiment`; `columns` are the names of all recorded values, and
    `is_share` says of which the mean is a share of seeds."""

    def __init__(
        self,
        curves: Sequence[Curve],
        experiment: Description,
        columns: Sequence[str],
        is_share: Callable[[str], bool],
    ):
        self.curves = curves
        self.experiment = experiment
        self.columns = columns
        self.is_share = is_share

    def judged(self, expectation: Expectation, curves: Sequence[Curve] | None = None) -> Judged:
        """The verdict on all curves that the expectation means, or on `curves`, and what it was measured on."""
        what = expectation.what
        if expectation.where:
            what += " at " + ", ".join(f"{key}={value}" for key, value in expectation.where.items())
        if expectation.model is not None:
            what += f" (model {expectation.model})"
        try:
            meant = self._meant(expectation) if curves is None else curves
            # A claim about all curves, or about a window, holds where it is hardest: the interval that is furthest out.
            # Being true everywhere, it needs no correction for the number of curves (intersection-union test).
            measured = max(
                (self._measure(expectation, curve) for curve in meant),
                key=lambda m: _excess(expectation, m.interval),
            )
        except (_Unmeasured, ValueError) as error:
            nan = float("nan")
            verdict = judge(what, nan, (nan, nan), expectation.allowed, expectation.source)
            return Judged(expectation, dataclasses.replace(verdict, outcome="undecided", reason=str(error)))
        value, interval, x, doubt, note, curve = measured
        axis = self.experiment.x
        what += f" at {axis} = {x[0]:g}" if x[0] == x[1] else f" over {axis} = {x[0]:g}..{x[1]:g}"
        if curve is not None and expectation.parts["curve"] == "*":
            what += f", {curve.name}"
        verdict = judge(what, value, interval, expectation.allowed, expectation.source)
        if note:
            verdict = dataclasses.replace(verdict, reason=f"{verdict.reason}; {note}")
        if doubt and verdict.outcome == "holds":
            verdict = dataclasses.replace(verdict, outcome="undecided", reason=f"{verdict.reason}, but {doubt}")
        return Judged(expectation, verdict, curve, x)

    def chosen(self, expectation: Expectation, name: str | None) -> list[Curve]:
        """The curves called `name` (`*`: all that are meant) that `where` allows."""
        return [
            curve
            for curve in self.curves
            if (name is None or curve.name == name or (name == "*" and self._is_meant(expectation, curve)))
            and all(same(curve.arguments[key], value) for key, value in expectation.where.items())
        ]

    def _is_meant(self, expectation: Expectation, curve: Curve) -> bool:
        other = expectation.parts["other"]
        predicted = other != "predicted" or curve.theory.predicted is not None
        return predicted and curve.name != other and curve.name not in expectation.excluding

    def _one(self, expectation: Expectation, name: str | None) -> Curve:
        found = self.chosen(expectation, name)
        if len(found) == 1:
            return found[0]
        if not found:
            raise _Unmeasured(f"no records of {name} yet")
        raise _Unmeasured(f"{len(found)} curves are called {name}; pick one by where = {{...}}")

    def _meant(self, expectation: Expectation) -> list[Curve]:
        name = expectation.parts["curve"]
        if name != "*":
            return [self._one(expectation, name)]
        curves = self.chosen(expectation, name)
        if not curves:
            raise _Unmeasured("no records of any such curve yet")
        return curves

    def _measure(self, expectation: Expectation, curve: Curve) -> _Measured:
        """Failed students are left out of means, and extreme ones out of the weights of a fit, so either flatters its
        curve: both forbid to trust a verdict that holds."""
        parts = expectation.parts
        curve = self._window(expectation, curve)
        doubt = _failures(curve)
        measure = {
            "rate": self._rate,
            "crossing": self._crossing,
            "model": self._model,
            "forecast": self._forecast,
        }.get(str(parts["metric"]), self._metric)
        found = measure(expectation, curve)
        # Of its own means a ratio knows already.
        kind = None if measure == self._metric else no_risk(curve, self.experiment)
        return found._replace(curve=curve, doubt=kind or found.doubt or doubt)

    def _window(self, expectation: Expectation, curve: Curve) -> Curve:
        axis = self.experiment.x
        window = expectation.over.get(axis, [-np.inf, np.inf])
        low, high = window if isinstance(window, list) else (window, window)
        curve = curve.between(low, high)
        if not len(curve.x):
            raise _Unmeasured(f"no records with {axis} in [{low:g}, {high:g}]")
        return curve

    def _fit(self, expectation: Expectation, curve: Curve) -> Rate:
        """The fit that an expectation asks for; _Unmeasured where the exponent is not identified."""
        metric = self.experiment.y[0]
        kept = curve.measured(metric)
        rate = fit_rate(kept.x, kept.values[metric], model=expectation.model or "power", level=expectation.level)
        if not rate.identified:
            raise _Unmeasured(f"{curve.name}: {open_sentence(rate.interval)}")
        return rate

    def _rate(self, expectation: Expectation, curve: Curve) -> _Measured:
        other = expectation.parts["other"]
        if other in (None, "predicted"):
            rate, shift = self._fit(expectation, curve), 0.0
            if other == "predicted":
                predicted = curve.measured(self.experiment.y[0]).theory.predicted
                if predicted is None:
                    raise _Unmeasured(f"theory predicts no curve for {curve.name}")
                shift = rate.slope_of(predicted)
            value, draws, seeds, doubt = (
                rate.exponent - shift,
                rate.draws - shift,
                rate.effective_seeds,
                _tail(rate, curve),
            )
            interval = (rate.interval[0] - shift, rate.interval[1] - shift)
        else:
            mine, theirs = self._common(curve, self._window(expectation, self._one(expectation, other)))
            a, b = self._fit(expectation, mine), self._fit(expectation, theirs)
            difference = a.minus(b)
            # Two resamples that leave the exponent open on the same side have no difference.
            with np.errstate(invalid="ignore"):
                value, interval, draws = difference.value, difference.interval, a.draws - b.draws
            rate, seeds = a, min(a.effective_seeds, b.effective_seeds)
            kind = no_risk(theirs, self.experiment)
            doubt = kind or _tail(a, mine) or _tail(b, theirs) or _failures(theirs)
        notes = [rate.errors_sentence] if rate.errors != "seeds" else []
        if expectation.test is not None:
            notes.append(p_value_sentence(draws, float(seeds), expectation.allowed, expectation.alpha))
        return _Measured(value, interval, _ends(rate.n), doubt, "; ".join(notes))

    def _common(self, curve: Curve, rival: Curve) -> tuple[Curve, Curve]:
        """Two curves on the seeds that both have."""
        common, i, j = np.intersect1d(curve.seeds, rival.seeds, return_indices=True)
        if not len(common):
            raise _Unmeasured(f"{curve.name} and {rival.name} have no seed in common")
        pick = lambda c, at: dataclasses.replace(
            c, seeds=common, values={name: table[:, at] for name, table in c.values.items()}
        )
        return pick(curve, i), pick(rival, j)

    def _crossing(self, expectation: Expectation, curve: Curve) -> _Measured:
        """Where the curve overtakes the other for good: from there on its risk is below."""
        other, metric = str(expectation.parts["other"]), self.experiment.y[0]
        mine, theirs = self._common(curve, self._window(expectation, self._one(expectation, other)))
        mine, theirs = mine.measured(metric), theirs.measured(metric)
        _, i, j = np.intersect1d(mine.x, theirs.x, return_indices=True)
        if len(i) < 2:
            raise _Unmeasured(f"{curve.name} and {other} have fewer than two {self.experiment.x} in common")
        mine, theirs = mine.rows(i), theirs.rows(j)
        found = crossing(mine.x, mine.values[metric], theirs.values[metric], level=expectation.level)
        doubt = _failures(theirs)
        if any("heavy tail" in text for text in found.warnings):
            doubt = "a few extreme seeds carry a mean"
        return _Measured(found.value, found.interval, _ends(mine.x), doubt)

    def _model(self, expectation: Expectation, curve: Curve) -> _Measured:
        """AICc of the named model minus that of its best rival, +- the difference that decides nothing."""
        kept, named = curve.measured(self.experiment.y[0]), str(expectation.model)
        choice = choose_model(
            kept.x, kept.values[self.experiment.y[0]], models=list(dict.fromkeys([*CANDIDATES, named]))
        )
        if named in choice.skipped:
            raise _Unmeasured(f"the model {named} was not compared: {choice.skipped[named]}")
        rivals = [value for name, value in choice.aicc.items() if name != named]
        if not rivals:
            raise _Unmeasured(f"no other model could be compared on {len(kept.x)} {self.experiment.x}")
        value = choice.aicc[named] - min(rivals)
        note = f"AICc prefers {choice}"
        doubt = _tail(choice.rates[named], curve)
        return _Measured(value, (value - UNDECIDED, value + UNDECIDED), _ends(kept.x), doubt, note)

    def _forecast(self, expectation: Expectation, curve: Curve) -> _Measured:
        """Mean at the largest x over what a fit without it foretells."""
        kept = curve.measured(self.experiment.y[0])
        (score,) = score_forecast(
            kept.x,
            kept.values[self.experiment.y[0]],
            model=expectation.model or "power",
            level=expectation.level,
        )
        assert score.ratio is not None
        note = f"foretold {score.predicted:.4g} {score.interval[0]:.4g}..{score.interval[1]:.4g}, measured {score.measured:.4g}"
        doubt = _tail(score.rate, curve)
        return _Measured(score.ratio.value, score.ratio.interval, (float(score.n), float(score.n)), doubt, note)

    def _metric(self, expectation: Expectation, curve: Curve) -> _Measured:
        candidates = [(x, self._ratio_at(expectation, curve, float(x))) for x in curve.x]
        x, worst = max(candidates, key=lambda c: _excess(expectation, c[1].interval))
        alike = worst.interval[0] == worst.interval[1]
        return _Measured(worst.value, worst.interval, (float(x), float(x)), note=_ALIKE if alike else "")

    def _ratio_at(self, expectation: Expectation, curve: Curve, x: float) -> Estimate:
        metric, other, level = expectation.parts["metric"], expectation.parts["other"], expectation.level
        times = [name for name in (metric, other) if name in TIMES]
        if times:
            raise _Unmeasured(no_measurement(times[0]))
        if metric not in curve.values:
            raise _Unmeasured(f"{metric!r} is not recorded.{nearest(str(metric), list(self.columns))}")
        mine = _at(curve, str(metric), x)
        shares = [name for name in (metric, other) if name in curve.values and self.is_share(str(name))]
        if other is None:
            return share(mine, level=level) if shares else mean_ratio(mine, 1.0, level=level)
        if shares:
            raise _Unmeasured(no_ratio(str(shares[0])))
        if other == "predicted":
            if curve.theory.predicted is None:
                raise _Unmeasured(f"theory predicts no curve for {curve.name}")
            predicted = float(curve.theory.predicted[int(np.flatnonzero(curve.x == x)[0])])
            return mean_ratio(mine, predicted, level=level)
        if other in curve.values:
            theirs = _at(curve, other, x)
            # An argument, or what does not depend on the seed, is a known number.
            alike = (theirs == theirs[0]).all()
            return mean_ratio(mine, float(theirs[0]) if alike else theirs, level=level)
        rival = self._one(expectation, other)
        if x not in rival.x:
            raise _Unmeasured(f"{other} has no records at {self.experiment.x} = {x:g}")
        # Paired by seed: the seeds that both have.
        mine, theirs = self._common(curve, rival)
        return mean_ratio(_at(mine, str(metric), x), _at(theirs, str(metric), x), level=level)


def _ends(x: np.ndarray) -> tuple[float, float]:
    return float(x[0]), float(x[-1])


def _tail(rate: Rate, curve: Curve) -> str:
    return f"a few extreme seeds carry the mean of {curve.name}" if rate.heavy_tail else ""


def _failures(curve: Curve) -> str:
    cells = "1 cell" if curve.failed == 1 else f"{curve.failed} cells"
    return f"{cells} of {curve.name} failed" if curve.failed else ""


def _excess(expectation: Expectation, interval: tuple[float, float]) -> float:
    """How far an interval reaches out of what is allowed; negative inside of it."""
    low, high = expectation.allowed
    # Both ends infinite on the same side (a crossing that never comes) are as far out as can be.
    with np.errstate(invalid="ignore"):
        reach = np.array([interval[1] - high, low - interval[0]])
    return float(np.where(np.isnan(reach), np.inf, reach).max())


def _at(curve: Curve, metric: str, x: float) -> np.ndarray:
    return curve.values[metric][int(np.flatnonzero(curve.x == x)[0])]
