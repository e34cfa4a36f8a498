"""What an expectation speaks of, measured on the curves of a sweep: a number with its interval, and what to doubt."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ..rates import (
    Estimate,
    Indicator,
    Rate,
    best,
    choose_model,
    crossing,
    exponent_of_rates,
    fit_rate,
    largest_rise,
    mean_difference,
    median,
    p_value_sentence,
    score_forecast,
    spread,
    trend,
)
from ..rates.diagnostics import open_sentence
from ..rates.kinds import Kind, Share
from ..rates.selection import CANDIDATES, UNDECIDED
from .curve import Curve
from .description import Description
from .errors import nearest
from .expectation import Expectation
from .metrics import TIMES, kind_in, no_measurement, no_ratio
from .phrase import evaluate
from .selection import Subject, chosen, rivals_of, subject_of

_ALIKE = "the seeds are all alike, so the interval has no width and says nothing about other seeds"


class Unmeasured(Exception):
    """An expectation about something that the records do not hold (yet)."""


class Measured(NamedTuple):
    """A number for one curve: `value` and `interval`, measured over `x` (first, last); `doubt`: what forbids to trust a verdict
    that holds; `note`: what else to tell; `curve`: the part of the curve that was asked about. `scale` is that of the interval
    (`tsjax.rates.intervals.Estimate`), and `seeds` how many it rests on: so it can be had at another level."""

    value: float
    interval: tuple[float, float]
    x: tuple[float, float]
    doubt: str = ""
    note: str = ""
    curve: Curve | None = None
    scale: Literal["linear", "log", "exact"] = "linear"
    seeds: float = np.inf


class Measure:
    """Measures what expectations speak of. `along(axis, metrics)` gives the curves of the `experiment` along an argument, with
    tables of these metrics; `columns` are the names of all recorded values, and `is_share` says which hold truth values."""

    def __init__(
        self,
        along: Callable[[str, Sequence[str]], list[Curve]],
        experiment: Description,
        columns: Sequence[str],
        is_share: Callable[[str], bool],
    ):
        self.along, self.experiment = along, experiment
        self.columns, self.is_share = columns, is_share

    def kind(self, metric: str) -> Kind:
        """Of a metric: as declared, else an indicator for truth values, else positive."""
        return kind_in(self.experiment, metric, self.is_share(metric))

    def __call__(self, expectation: Expectation, level: float | None = None) -> list[Measured]:
        """The number of every curve that is meant, at the expectation's own level unless another is given.

        **Raises:** Unmeasured, or ValueError, with the reason why there is none."""
        return _Task(self, expectation, expectation.level if level is None else level).all()

    def subject(self, expectation: Expectation) -> Subject:
        """What an expectation is about."""
        names = {curve.name for curve in self.along(self.experiment.x, ())}
        return subject_of(expectation, self.experiment, sorted(names))

    def curves(self, expectation: Expectation, name: str | None) -> list[Curve]:
        """The curves along x called `name` (`*`: all that are meant) that an expectation may be about."""
        subject = self.subject(expectation)
        if subject.axis != self.experiment.x:
            return []
        found = chosen(self.along(subject.axis, ()), subject, name)
        return [curve for curve in found if name != "*" or _is_meant(expectation, curve)]


def _is_meant(expectation: Expectation, curve: Curve) -> bool:
    """Whether `*` means this curve."""
    other = expectation.phrase.other
    predicted = other != "predicted" or curve.theory.predicted is not None
    return predicted and curve.name != other and curve.name not in expectation.excluding


class _Task:
    """One expectation at one level."""

    def __init__(self, measure: Measure, expectation: Expectation, level: float):
        self.measure, self.expectation, self.level = measure, expectation, level
        self.experiment, self.phrase = measure.experiment, expectation.phrase
        self.subject = measure.subject(expectation)
        self.metric = self.subject.metric
        self.kind = measure.kind(self.metric)
        self.than = {**expectation.than, **dict([self.phrase.than] if self.phrase.than else [])}
        for name in (self.metric, self.phrase.other):
            if name in TIMES:
                raise Unmeasured(no_measurement(str(name)))
        if self.metric not in measure.columns:
            raise Unmeasured(f"{self.metric!r} is not recorded.{nearest(self.metric, list(measure.columns))}")
        trials = self.kind.trials if isinstance(self.kind, Share) and isinstance(self.kind.trials, str) else None
        wanted = [self.metric, *(name for name in (self.phrase.other, trials) if name in measure.columns)]
        self.curves = measure.along(self.subject.axis, tuple(dict.fromkeys(wanted)))  # pyright: ignore[reportArgumentType]

    def all(self) -> list[Measured]:
        if self.phrase.form == "trend":
            return [self._trend()]
        if self.phrase.form == "exponent":
            return [self._exponent()]
        how = {
            "rate": self._rate,
            "crossing": self._crossing,
            "model": self._model,
            "forecast": self._forecast,
            "spread": self._profile,
            "monotone": self._profile,
            "best": self._profile,
        }.get(self.phrase.form, self._points)
        return [found for curve in self._meant() for found in self._on(how, curve)]

    def _on(self, how: Callable[[Curve], list[Measured]], curve: Curve) -> list[Measured]:
        """Failed students are left out of means, and extreme ones out of the weights of a fit, so either flatters its
        curve: both forbid to trust a verdict that holds."""
        curve = self._window(curve)
        kind = self._why_not(curve) if self.phrase.fits else None
        return [found._replace(curve=curve, doubt=kind or found.doubt or _failures(curve)) for found in how(curve)]

    def _why_not(self, curve: Curve) -> str | None:
        """Why the metric of a curve is not of its kind, at the first x where it is not."""
        if not isinstance(self.kind, Share | Indicator) and not self.kind.has_ratios:
            return f"{self.metric!r} may be 0 or negative, so its means have no logarithms"
        for x, row in zip(curve.x, curve.values[self.metric], strict=True):
            reason = self.kind.why_not(row, f"{self.metric} at {self.subject.axis} = {x:g}")
            if reason is not None:
                return reason
        return None

    def _meant(self) -> list[Curve]:
        name, subject = self.subject.curve, self.subject
        found = chosen(self.curves, subject, name)
        if name == "*":
            found = [curve for curve in found if _is_meant(self.expectation, curve)]
            if not found:
                raise Unmeasured("no records of any such curve yet")
            return found
        # Along another argument than x, a window of x means every x in it.
        if len(found) > 1 and subject.axis != self.experiment.x and self.experiment.x in subject.windows:
            first = {key: value for key, value in found[0].arguments.items() if key != self.experiment.x}
            if all(chosen([curve], subject._replace(where=first)) for curve in found):
                return found
        return [self._only(found, name)]

    def _only(self, found: list[Curve], name: str | None) -> Curve:
        if len(found) == 1:
            return found[0]
        if not found:
            raise Unmeasured(f"no records of {name or self.metric} yet")
        differ = [key for key in found[0].arguments if len({repr(curve.arguments[key]) for curve in found}) > 1]
        raise Unmeasured(f"{len(found)} curves are called {found[0].name}; pick one by where = {{ {differ[0]} = ... }}")

    def _rival(self, curve: Curve) -> Curve:
        """The whole curve of the second operand."""
        name, than = self.phrase.other or curve.name, dict(self.than)
        if self.experiment.curve in than and self.phrase.other is None:
            name = str(than.pop(self.experiment.curve))
        axis = self.subject.axis
        subject = self.subject._replace(windows={})
        found = rivals_of(
            self.curves, subject, name, curve, {k: v for k, v in than.items() if k != axis}, self.experiment.curve
        )
        return self._only(found, name)

    def _window(self, curve: Curve) -> Curve:
        low, high = self.subject.window(self.subject.axis) or (-np.inf, np.inf)
        curve = curve.between(low, high)
        if not len(curve.x):
            raise Unmeasured(f"no records with {self.subject.axis} in [{low:g}, {high:g}]")
        return curve

    # Single x.

    def _points(self, curve: Curve) -> list[Measured]:
        how = self._median_at if self.phrase.form == "median" else self._mean_at
        found = []
        for x in curve.x:
            estimate = how(curve, float(x))
            note = _ALIKE if estimate.interval[0] == estimate.interval[1] else ""
            seeds = int((~np.isnan(_at(curve, self.metric, float(x)))).sum())
            place = (float(x), float(x))
            found.append(Measured(estimate.value, estimate.interval, place, "", note, None, estimate.scale, seeds))
        return found

    def _median_at(self, curve: Curve, x: float) -> Estimate:
        return median(_at(curve, self.metric, x), level=self.level)

    def _mean_at(self, curve: Curve, x: float) -> Estimate:
        mine, kind = _at(curve, self.metric, x), self.kind
        trials = self._trials(curve, x)
        if not self.phrase.operator:
            return kind.mean(mine, trials, level=self.level)
        theirs = self._operand(curve, x)
        if self.phrase.operator == "minus":
            if isinstance(theirs, float):
                own = kind.mean(mine, trials, level=self.level)
                ends = (own.interval[0] - theirs, own.interval[1] - theirs)
                return dataclasses.replace(own, value=own.value - theirs, interval=ends)
            first, second = theirs if isinstance(theirs, tuple) else (mine, theirs)
            other = self.measure.kind(str(self.phrase.other)) if self._is_column() else kind
            if isinstance(trials, np.ndarray):
                raise Unmeasured(f"differences of shares need one number of trials, and {self.metric!r} has several")
            if type(other) is not type(kind):
                return mean_difference(first, second, level=self.level)
            return kind.minus(first, second, trials, level=self.level)
        if not kind.has_ratios or (self._is_column() and not self.measure.kind(str(self.phrase.other)).has_ratios):
            which = self.metric if not kind.has_ratios else str(self.phrase.other)
            raise Unmeasured(no_ratio(which, self.measure.kind(which)))
        first, second = theirs if isinstance(theirs, tuple) else (mine, theirs)
        return kind.ratio(first, second, level=self.level)

    def _is_column(self) -> bool:
        """Whether the second operand is a recorded value; a curve of that name comes second."""
        return self.phrase.other is not None and self.phrase.other in self.measure.columns

    def _trials(self, curve: Curve, x: float) -> Any:
        if not isinstance(self.kind, Share) or isinstance(self.kind.trials, int):
            return None
        name = self.kind.trials
        if name == self.subject.axis:
            return x
        if name in curve.arguments:
            return curve.arguments[name]
        if name not in curve.values:
            raise Unmeasured(
                f"{self.metric!r} is a share of {name!r} trials, which is neither an argument nor recorded"
            )
        # The same at all seeds, or one for each.
        row = _at(curve, name, x)
        counts = np.unique(row[~np.isnan(row)])
        return float(counts[0]) if len(counts) == 1 else row

    def _operand(self, curve: Curve, x: float) -> float | np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The second operand at x: a number, the values of the same seeds, or the values of both at their common seeds."""
        other = self.phrase.other
        if other == "predicted":
            if curve.theory.predicted is None or self.metric != self.experiment.y[0]:
                raise Unmeasured(f"theory predicts no {self.metric} for {curve.name}")
            return float(curve.theory.predicted[int(np.flatnonzero(curve.x == x)[0])])
        if self._is_column():
            theirs = _at(curve, str(other), x)
            # An argument, or what does not depend on the seed, is a known number.
            return float(theirs[0]) if (theirs == theirs[0]).all() else theirs
        rival = self._rival(curve)
        place = float(self.than.get(self.subject.axis, x))
        if place not in rival.x:
            raise Unmeasured(f"{rival.name} has no records at {self.subject.axis} = {place:g}")
        # Paired by seed: the seeds that both have.
        mine, theirs = _common(curve, rival)
        return _at(mine, self.metric, x), _at(theirs, self.metric, place)

    # Curves as a whole.

    def _fit(self, curve: Curve) -> Rate:
        """The fit that an expectation asks for; Unmeasured where the exponent is not identified."""
        kept = curve.measured(self.metric)
        model = self.expectation.model or "power"
        rate = fit_rate(kept.x, kept.values[self.metric], model=model, level=self.level)
        if not rate.identified:
            raise Unmeasured(f"{curve.name}: {open_sentence(rate.interval)}")
        return rate

    def _rate(self, curve: Curve) -> list[Measured]:
        if not self.phrase.operator or self.phrase.other == "predicted":
            rate, shift = self._fit(curve), 0.0
            if self.phrase.other == "predicted":
                predicted = curve.measured(self.metric).theory.predicted
                if predicted is None or self.metric != self.experiment.y[0]:
                    raise Unmeasured(f"theory predicts no curve for {curve.name}")
                shift = rate.slope_of(predicted)
            value, draws, seeds = rate.exponent - shift, rate.draws - shift, rate.effective_seeds
            doubt = _tail(rate, curve)
            interval = (rate.interval[0] - shift, rate.interval[1] - shift)
        else:
            mine, theirs = _common(curve, self._window(self._rival(curve)))
            a, b = self._fit(mine), self._fit(theirs)
            difference = a.minus(b)
            # Two resamples that leave the exponent open on the same side have no difference.
            with np.errstate(invalid="ignore"):
                value, interval, draws = difference.value, difference.interval, a.draws - b.draws
            rate, seeds = a, min(a.effective_seeds, b.effective_seeds)
            doubt = self._why_not(theirs) or _tail(a, mine) or _tail(b, theirs) or _failures(theirs)
        notes = [rate.errors_sentence] if rate.errors != "seeds" else []
        if self.expectation.test is not None:
            notes.append(p_value_sentence(draws, float(seeds), self.expectation.allowed, self.expectation.alpha))
        return [Measured(value, interval, _ends(rate.n), doubt, "; ".join(notes), seeds=float(seeds))]

    def _exponent(self) -> Measured:
        """Of the rates of the curves that differ in one argument."""
        outer, found = str(self.phrase.outer), chosen(self.curves, self.subject, self.subject.curve)
        if len({curve.name for curve in found}) > 1 and outer != self.experiment.curve:
            raise Unmeasured(f"say of which curve: {', '.join(sorted({curve.name for curve in found}))}")
        if len(found) < 2:
            raise Unmeasured(f"fewer than two curves that differ in {outer}")
        first = {key: value for key, value in found[0].arguments.items() if key != outer}
        differ = [curve for curve in found if not chosen([curve], self.subject._replace(where=first))]
        if differ:
            raise Unmeasured(f"the curves differ in more than {outer}; fix the other arguments by where = {{...}}")
        found = sorted((self._window(curve) for curve in found), key=lambda curve: curve.arguments[outer])
        seeds = sorted(set.intersection(*(set(curve.seeds.tolist()) for curve in found)))
        if not seeds:
            raise Unmeasured("the curves have no seed in common")
        found = [_pick(curve, np.searchsorted(curve.seeds, seeds)) for curve in found]
        rates = [self._fit(curve) for curve in found]
        estimate = exponent_of_rates([curve.arguments[outer] for curve in found], rates, level=self.level)
        doubts = [
            self._why_not(curve) or _tail(rate, curve) or _failures(curve)
            for curve, rate in zip(found, rates, strict=True)
        ]
        x = (float(found[0].arguments[outer]), float(found[-1].arguments[outer]))
        least = min(rate.effective_seeds for rate in rates)
        return Measured(estimate.value, estimate.interval, x, next(filter(None, doubts), ""), seeds=float(least))

    def _crossing(self, curve: Curve) -> list[Measured]:
        """Where the curve overtakes the other for good: from there on its risk is below."""
        mine, theirs = _common(curve, self._window(self._rival(curve)))
        mine, theirs = mine.measured(self.metric), theirs.measured(self.metric)
        _, i, j = np.intersect1d(mine.x, theirs.x, return_indices=True)
        if len(i) < 2:
            raise Unmeasured(f"{curve.name} and {theirs.name} have fewer than two {self.subject.axis} in common")
        mine, theirs = mine.rows(i), theirs.rows(j)
        found = crossing(mine.x, mine.values[self.metric], theirs.values[self.metric], level=self.level)
        doubt = _failures(theirs)
        if any("heavy tail" in text for text in found.warnings):
            doubt = "a few extreme seeds carry a mean"
        return [Measured(found.value, found.interval, _ends(mine.x), doubt, scale="log", seeds=len(mine.seeds))]

    def _model(self, curve: Curve) -> list[Measured]:
        """AICc of the named model minus that of its best rival, +- the difference that decides nothing."""
        kept, named = curve.measured(self.metric), str(self.expectation.model)
        choice = choose_model(kept.x, kept.values[self.metric], models=list(dict.fromkeys([*CANDIDATES, named])))
        if named in choice.skipped:
            raise Unmeasured(f"the model {named} was not compared: {choice.skipped[named]}")
        rivals = [value for name, value in choice.aicc.items() if name != named]
        if not rivals:
            raise Unmeasured(f"no other model could be compared on {len(kept.x)} {self.subject.axis}")
        value = choice.aicc[named] - min(rivals)
        note, doubt = f"AICc prefers {choice}", _tail(choice.rates[named], curve)
        return [Measured(value, (value - UNDECIDED, value + UNDECIDED), _ends(kept.x), doubt, note, scale="exact")]

    def _forecast(self, curve: Curve) -> list[Measured]:
        """Mean at the largest x over what a fit without it foretells."""
        kept, model = curve.measured(self.metric), self.expectation.model or "power"
        (score,) = score_forecast(kept.x, kept.values[self.metric], model=model, level=self.level)
        assert score.ratio is not None
        ends = f"{score.interval[0]:.4g}..{score.interval[1]:.4g}"
        note = f"foretold {score.predicted:.4g} {ends}, measured {score.measured:.4g}"
        x = (float(score.n), float(score.n))
        ratio, seeds = score.ratio, score.rate.effective_seeds
        return [Measured(ratio.value, ratio.interval, x, _tail(score.rate, curve), note, None, ratio.scale, seeds)]

    def _profile(self, curve: Curve) -> list[Measured]:
        """Along the axis as a whole."""
        kept = curve.measured(self.metric)
        how: dict[str, Any] = {"positive": self.kind.has_ratios, "level": self.level}
        values = kept.values[self.metric]
        if self.phrase.form == "spread":
            found = spread(values, **how)
        elif self.phrase.form == "best":
            found = best(kept.x, values, **how)
        else:
            floor = self.expectation.floor
            if floor is not None:
                # A mean below the floor counts as the floor: its seeds are raised together.
                low = np.nanmean(values, axis=1) < floor
                values = np.where(low[:, None] & ~np.isnan(values), floor, values)
            found = largest_rise(values, falls=self.expectation.at_least is not None, **how)
        note = _ALIKE if found.interval[0] == found.interval[1] and self.phrase.form != "best" else ""
        return [Measured(found.value, found.interval, _ends(kept.x), "", note, None, found.scale, len(kept.seeds))]

    def _trend(self) -> Measured:
        """Over all cells of the curves that are meant."""
        found, axis = chosen(self.curves, self.subject, self.subject.curve), self.subject.axis
        if self.subject.curve == "*":
            found = [curve for curve in found if curve.name not in self.expectation.excluding]
        if not found:
            raise Unmeasured("no records of any such curve yet")
        found = [self._window(curve) for curve in found]
        seeds = np.unique(np.concatenate([curve.seeds for curve in found]))
        places: list[Mapping[str, Any]] = []
        rows = []
        for curve in found:
            at = np.searchsorted(seeds, curve.seeds)
            for x, values in zip(curve.x, curve.values[self.metric], strict=True):
                places.append({**curve.arguments, axis: float(x)})
                rows.append(np.full(len(seeds), np.nan))
                rows[-1][at] = values
        z = [np.array([evaluate(expression, place) for place in places]) for expression in self._expressions()]
        estimate = trend(z[0], np.array(rows), rival=z[1] if len(z) > 1 else None, level=self.level)
        doubt = next(filter(None, map(_failures, found)), "")
        x = (min(float(curve.x[0]) for curve in found), max(float(curve.x[-1]) for curve in found))
        note = _ALIKE if estimate.interval[0] == estimate.interval[1] and len(seeds) > 1 else ""
        return Measured(estimate.value, estimate.interval, x, doubt, note, seeds=len(seeds))

    def _expressions(self) -> list[str]:
        return [expression for expression in (self.phrase.z, self.phrase.rival) if expression is not None]


def _common(curve: Curve, rival: Curve) -> tuple[Curve, Curve]:
    """Two curves on the seeds that both have."""
    common, i, j = np.intersect1d(curve.seeds, rival.seeds, return_indices=True)
    if not len(common):
        raise Unmeasured(f"{curve.name} and {rival.name} have no seed in common")
    return _pick(curve, i), _pick(rival, j)


def _pick(curve: Curve, at: np.ndarray) -> Curve:
    values = {name: table[:, at] for name, table in curve.values.items()}
    return dataclasses.replace(curve, seeds=curve.seeds[at], values=values)


def _ends(x: np.ndarray) -> tuple[float, float]:
    return float(x[0]), float(x[-1])


def _tail(rate: Rate, curve: Curve) -> str:
    return f"a few extreme seeds carry the mean of {curve.name}" if rate.heavy_tail else ""


def _failures(curve: Curve) -> str:
    cells = "1 cell" if curve.failed == 1 else f"{curve.failed} cells"
    return f"{cells} of {curve.name} failed" if curve.failed else ""


def _at(curve: Curve, metric: str, x: float) -> np.ndarray:
    return curve.values[metric][int(np.flatnonzero(curve.x == x)[0])]
