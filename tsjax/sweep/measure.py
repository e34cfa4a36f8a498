"""The number that an expectation is about, measured on the curves of a sweep, with its interval and reasons to doubt it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..rates import (
    Estimate,
    Rate,
    best,
    choose_model,
    contour,
    crossing,
    exponent_of_rates,
    fit_rate,
    largest_rise,
    p_value_sentence,
    score_forecast,
    spread,
    trend,
)
from ..rates.diagnostics import open_sentence
from ..rates.kinds import Indicator, Share
from ..rates.selection import CANDIDATES, UNDECIDED
from .asked import ALIKE, Measured, Source, Unmeasured, common, is_meant, pick
from .curve import Curve
from .expectation import Expectation
from .phrase import evaluate
from .points import Points
from .selection import chosen, in_expressions


class Measure:
    """Measures the numbers that expectations are about, on the curves of a `Source`."""

    def __init__(self, source: Source):
        self.source, self.experiment = source, source.experiment

    def __call__(self, expectation: Expectation, level: float | None = None) -> list[Measured]:
        """The number for every curve that the expectation means. Intervals have the expectation's own level unless `level` is
        given.

        **Raises:** Unmeasured or ValueError, with the reason, if there is no such number."""
        return _Task(self.source, expectation, expectation.level if level is None else level).all()

    def reads(self, expectation: Expectation) -> list[Curve]:
        """The parts of curves, along the expectation's axis, on which the number is measured, for both operands.

        **Raises:** Unmeasured if the records do not have them."""
        return _Task(self.source, expectation, expectation.level).reads()

    def curves(self, expectation: Expectation, name: str | None) -> list[Curve]:
        """The curves along x, called `name` (`*`: all that are meant), that an expectation may be about; none if it is about
        another axis."""
        subject = self.source.subject(expectation)
        if subject.axis != self.experiment.x:
            return []
        found = chosen(self.source.along(subject.axis, ()), subject, name)
        return [curve for curve in found if name != "*" or is_meant(expectation, curve)]


class _Cells(NamedTuple):
    """Cells of several curves together: the arguments of each cell (`places`), `values` (cells, seeds), NaN if missing, the
    numbers of `trials` if the metric is a share (else empty), and the curve of each cell."""

    places: list[Mapping[str, Any]]
    values: np.ndarray
    trials: list[Any]
    curves: list[Curve]


class _Task(Points):
    """Measures one expectation: on whole curves, and, as `Points`, at single x."""

    def all(self) -> list[Measured]:
        alone = {
            "trend": self._trend,
            "average": self._average,
            "exponent": self._exponent,
            "contour": self._contour,
        }.get(self.phrase.form)
        if alone is not None:
            return [alone()]
        how = {
            "rate": self._rate,
            "crossing": self._crossing,
            "model": self._model,
            "forecast": self._forecast,
            "spread": self._profile,
            "monotone": self._profile,
            "best": self._profile,
        }.get(self.phrase.form, self.points)
        return [found for curve in self.meant() for found in self._on(how, curve)]

    def reads(self) -> list[Curve]:
        """The parts of curves on which the number is measured."""
        several = self.phrase.pools or self.phrase.outer is not None
        mine = chosen(self.curves, self.subject, self.subject.curve) if several else self.meant()
        found = [self.window(curve) for curve in mine]
        if self.than or (self.phrase.other not in (None, "predicted") and self.column is None):
            rivals = [self.rival(curve) for curve in mine]
            # A second operand at another place along the axis lies outside the window.
            found += rivals if self.subject.axis in self.than else map(self.window, rivals)
        return found

    def _on(self, how: Callable[[Curve], list[Measured]], curve: Curve) -> list[Measured]:
        """Measures a curve in its window, with reasons to doubt the result. Failed students are left out of means, and extreme
        ones hardly count in a fit, so both flatter the curve, and a verdict that holds cannot be trusted."""
        curve = self.window(curve)
        kind = self.why_not(curve) if self.phrase.fits else None
        return [found._replace(curve=curve, doubt=kind or found.doubt or _failures(curve)) for found in how(curve)]

    def _fit(self, curve: Curve) -> Rate:
        """The fit that an expectation asks for. **Raises:** Unmeasured if the data do not determine the exponent."""
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
            mine, theirs = common(curve, self.window(self.rival(curve)))
            a, b = self._fit(mine), self._fit(theirs)
            difference = a.minus(b)
            # Two infinite exponents, of resamples that do not bound them on the same side, have no difference.
            with np.errstate(invalid="ignore"):
                value, interval, draws = difference.value, difference.interval, a.draws - b.draws
            rate, seeds = a, min(a.effective_seeds, b.effective_seeds)
            doubt = self.why_not(theirs) or _tail(a, mine) or _tail(b, theirs) or _failures(theirs)
        notes = [rate.errors_sentence] if rate.errors != "seeds" else []
        if self.expectation.test is not None:
            notes.append(p_value_sentence(draws, float(seeds), self.expectation.allowed, self.expectation.alpha))
        return [Measured(value, interval, _ends(rate.n), doubt, "; ".join(notes), seeds=float(seeds))]

    def _exponent(self) -> Measured:
        """The exponent of rates in an argument, over the curves that differ in this argument."""
        outer, found = self._family()
        rates = [self._fit(curve) for curve in found]
        estimate = exponent_of_rates([curve.arguments[outer] for curve in found], rates, level=self.level)
        doubts = [
            self.why_not(curve) or _tail(rate, curve) or _failures(curve)
            for curve, rate in zip(found, rates, strict=True)
        ]
        x = (float(found[0].arguments[outer]), float(found[-1].arguments[outer]))
        least = min(rate.effective_seeds for rate in rates)
        return Measured(estimate.value, estimate.interval, x, next(filter(None, doubts), ""), seeds=float(least))

    def _contour(self) -> Measured:
        """The exponent of the contour on which a mean has a given level, over the curves that differ in one argument."""
        outer, found = self._family()
        x = np.unique(np.concatenate([curve.x for curve in found]))
        values = np.full((len(found), len(x), len(found[0].seeds)), np.nan)
        for table, curve in zip(values, found, strict=True):
            table[np.searchsorted(x, curve.x)] = curve.values[self.metric]
        places = np.array([float(curve.arguments[outer]) for curve in found])
        assert self.phrase.height is not None
        estimate = contour(places, x, values, self.phrase.height, level=self.level)
        doubt = next(filter(None, map(_failures, found)), "")
        seeds = len(found[0].seeds)
        return Measured(estimate.value, estimate.interval, _ends(places), doubt, seeds=float(seeds))

    def _family(self) -> tuple[str, list[Curve]]:
        """The argument in which the curves that are meant differ, and these curves in its order, at their common seeds."""
        outer, found = str(self.phrase.outer), chosen(self.curves, self.subject, self.subject.curve)
        if len({curve.name for curve in found}) > 1 and outer != self.experiment.curve:
            raise Unmeasured(f"name the curve: {', '.join(sorted({curve.name for curve in found}))}")
        if len(found) < 2:
            raise Unmeasured(f"fewer than two curves that differ in {outer}")
        first = {key: value for key, value in found[0].arguments.items() if key != outer}
        differ = [curve for curve in found if not chosen([curve], self.subject._replace(where=first))]
        if differ:
            raise Unmeasured(f"the curves differ in more than {outer}; fix the other arguments by where = {{...}}")
        found = sorted((self.window(curve) for curve in found), key=lambda curve: curve.arguments[outer])
        seeds = sorted(set.intersection(*(set(curve.seeds.tolist()) for curve in found)))
        if not seeds:
            raise Unmeasured("the curves have no seed in common")
        return outer, [pick(curve, np.searchsorted(curve.seeds, seeds)) for curve in found]

    def _crossing(self, curve: Curve) -> list[Measured]:
        """The x from which on the mean of the curve stays below that of the other curve."""
        mine, theirs = common(curve, self.window(self.rival(curve)))
        mine, theirs = mine.measured(self.metric), theirs.measured(self.metric)
        _, i, j = np.intersect1d(mine.x, theirs.x, return_indices=True)
        if len(i) < 2:
            raise Unmeasured(f"{curve.name} and {theirs.name} have fewer than two {self.subject.axis} in common")
        mine, theirs = mine.rows(i), theirs.rows(j)
        tables = (mine.values[self.metric], theirs.values[self.metric])
        found = crossing(mine.x, *tables, level=self.level, positive=self.kind.has_ratios)
        doubt = _failures(theirs)
        if any("heavy tail" in text for text in found.warnings):
            doubt = "a few extreme seeds carry a mean"
        return [Measured(found.value, found.interval, _ends(mine.x), doubt, scale="log", seeds=len(mine.seeds))]

    def _model(self, curve: Curve) -> list[Measured]:
        """AICc of the named model minus that of its best rival, +- UNDECIDED, a difference that is too small to decide."""
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
        """The mean at the largest x, divided by the prediction of a fit without that x."""
        kept, model = curve.measured(self.metric), self.expectation.model or "power"
        (score,) = score_forecast(kept.x, kept.values[self.metric], model=model, level=self.level)
        assert score.ratio is not None
        ends = f"{score.interval[0]:.4g}..{score.interval[1]:.4g}"
        note = f"predicted {score.predicted:.4g} {ends}, measured {score.measured:.4g}"
        x = (float(score.n), float(score.n))
        ratio, seeds = score.ratio, score.rate.effective_seeds
        return [Measured(ratio.value, ratio.interval, x, _tail(score.rate, curve), note, None, ratio.scale, seeds)]

    def _profile(self, curve: Curve) -> list[Measured]:
        """The spread, the largest rise or the best place of the means along the axis."""
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
                # A mean below the floor counts as the floor: all its seeds are set to it.
                low = np.nanmean(values, axis=1) < floor
                values = np.where(low[:, None] & ~np.isnan(values), floor, values)
            found = largest_rise(values, falls=self.expectation.at_least is not None, **how)
        note = ALIKE if found.interval[0] == found.interval[1] and self.phrase.form != "best" else ""
        return [Measured(found.value, found.interval, _ends(kept.x), "", note, None, found.scale, len(kept.seeds))]

    def _trend(self) -> Measured:
        """The rank correlation over all cells of the curves that are meant."""
        cells = self._cells()
        expressions = [one for one in (self.phrase.z, self.phrase.rival) if one is not None]
        z = [np.array([evaluate(one, place) for place in cells.places]) for one in expressions]
        estimate = trend(z[0], cells.values, rival=z[1] if len(z) > 1 else None, level=self.level)
        return self._pooled(cells, estimate)

    def _average(self) -> Measured:
        """The average over all cells of the curves that are meant, for each seed, and its mean over seeds."""
        cells = self._cells()
        counts = {float(count) if isinstance(count, int | float) else None for count in cells.trials}
        if None in counts or len(counts) > 1:
            raise Unmeasured(
                f"averages of shares need one number of trials in all cells, and {self.metric!r} has several"
            )
        # NaN for a seed that lacks a cell: every seed averages the same cells.
        average = cells.values.mean(axis=0)
        trials = sum(cells.trials) if counts else None
        kept = ~np.isnan(average)
        if not kept.any():
            raise Unmeasured(
                f"an average needs seeds that have a value in every cell, and no seed of {self.metric!r} has"
            )
        # The average of a seed's truth values is a share of its cells.
        kind = Share(trials=len(cells.values)) if type(self.kind) is Indicator else self.kind
        estimate = kind.mean(average[kept], trials, level=self.level)
        return self._pooled(cells._replace(values=cells.values[:, kept]), estimate)

    def _pooled(self, cells: _Cells, estimate: Estimate) -> Measured:
        doubt = next(filter(None, map(_failures, cells.curves)), "")
        x = [place[self.subject.axis] for place in cells.places]
        seeds = cells.values.shape[1]
        note = ALIKE if estimate.interval[0] == estimate.interval[1] and seeds > 1 else ""
        ends = (float(min(x)), float(max(x)))
        return Measured(estimate.value, estimate.interval, ends, doubt, note, None, estimate.scale, seeds)

    def _cells(self) -> _Cells:
        """All cells of the curves that are meant, in the windows of arguments and of expressions."""
        found, axis = chosen(self.curves, self.subject, self.subject.curve), self.subject.axis
        if self.subject.curve == "*":
            found = [curve for curve in found if curve.name not in self.expectation.excluding]
        if not found:
            raise Unmeasured("no records of any such curve yet")
        found = [self.window(curve) for curve in found]
        seeds = np.unique(np.concatenate([curve.seeds for curve in found]))
        places, rows, trials, there = [], [], [], []
        for curve in found:
            at = np.searchsorted(seeds, curve.seeds)
            for x, values in zip(curve.x, curve.values[self.metric], strict=True):
                place = {**curve.arguments, axis: float(x)}
                if not in_expressions(place, self.subject.windows):
                    continue
                places.append(place)
                there.append(curve)
                rows.append(np.full(len(seeds), np.nan))
                rows[-1][at] = values
                if isinstance(self.kind, Share) and self.phrase.form == "average":
                    trials.append(self._trials(self.kind, curve, x))
        if not places:
            raise Unmeasured("no records in that window")
        return _Cells(places, np.array(rows), trials, there)


def _ends(x: np.ndarray) -> tuple[float, float]:
    return float(x[0]), float(x[-1])


def _tail(rate: Rate, curve: Curve) -> str:
    return f"a few extreme seeds carry the mean of {curve.name}" if rate.heavy_tail else ""


def _failures(curve: Curve) -> str:
    cells = "1 cell" if curve.failed == 1 else f"{curve.failed} cells"
    return f"{cells} of {curve.name} failed" if curve.failed else ""
