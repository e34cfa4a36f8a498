"""Means, medians, ratios and differences at single x."""

import dataclasses
from typing import Any

import numpy as np

from ..rates import Estimate, mean_difference, mean_ratio, median
from ..rates.kinds import Kind, Share
from .asked import ALIKE, Asked, Measured, Unmeasured, at, common
from .curve import Curve
from .metrics import no_ratio


class Points(Asked):
    """Measures a curve at each of its x separately."""

    def points(self, curve: Curve) -> list[Measured]:
        how = self._median_at if self.phrase.form == "median" else self._mean_at
        found = []
        for x in curve.x:
            estimate = how(curve, float(x))
            note = ALIKE if estimate.interval[0] == estimate.interval[1] else ""
            seeds = int((~np.isnan(at(curve, self.metric, float(x)))).sum())
            place = (float(x), float(x))
            found.append(Measured(estimate.value, estimate.interval, place, "", note, None, estimate.scale, seeds))
        return found

    def _median_at(self, curve: Curve, x: float) -> Estimate:
        return median(at(curve, self.metric, x), level=self.level)

    def _mean_at(self, curve: Curve, x: float) -> Estimate:
        mine, kind = at(curve, self.metric, x), self.kind
        trials = self._trials(kind, curve, x)
        if not self.phrase.operator:
            return kind.mean(mine, trials, level=self.level)
        theirs = self._operand(curve, x)
        if self.phrase.operator == "minus":
            if isinstance(theirs, float):
                own = kind.mean(mine, trials, level=self.level)
                ends = (own.interval[0] - theirs, own.interval[1] - theirs)
                return dataclasses.replace(own, value=own.value - theirs, interval=ends)
            first, second = theirs if isinstance(theirs, tuple) else (mine, theirs)
            other = self.source.kind(self.column) if self.column is not None else kind
            if type(other) is not type(kind):
                return mean_difference(first, second, level=self.level)
            if not isinstance(kind, Share):
                return kind.minus(first, second, level=self.level)
            place = (
                (curve, x)
                if self.column is not None
                else (self.rival(curve), float(self.than.get(self.subject.axis, x)))
            )
            others = self._trials(other, *place)
            if isinstance(trials, np.ndarray) or isinstance(others, np.ndarray):
                raise Unmeasured(f"differences of shares need one number of trials, and {self.metric!r} has several")
            return kind.minus(first, second, trials, others, level=self.level)
        if not kind.has_ratios or (self.column is not None and not self.source.kind(self.column).has_ratios):
            which = self.metric if not kind.has_ratios else str(self.phrase.other)
            raise Unmeasured(no_ratio(which, self.source.kind(which)))
        first, second = theirs if isinstance(theirs, tuple) else (mine, theirs)
        return mean_ratio(first, second, level=self.level)

    def _trials(self, kind: Kind, curve: Curve, x: float) -> Any:
        """The number of trials of a share at x, or an array (s,) with one number per seed; None for other metrics."""
        if not isinstance(kind, Share):
            return None
        name = kind.trials
        if isinstance(name, int):
            return name
        if name == self.subject.axis:
            return x
        if name in curve.arguments:
            return curve.arguments[name]
        if name not in curve.values:
            raise Unmeasured(
                f"{self.metric!r} is a share of {name!r} trials, which is neither an argument nor recorded"
            )
        # One number if it is the same at all seeds, else one for each seed.
        row = at(curve, name, x)
        counts = np.unique(row[~np.isnan(row)])
        return float(counts[0]) if len(counts) == 1 else row

    def _operand(self, curve: Curve, x: float) -> float | np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The second operand at x: a number, its values at the same seeds, or the values of both operands at the seeds that
        they have in common."""
        other = self.phrase.other
        if other == "predicted":
            if curve.theory.predicted is None or self.metric != self.experiment.y[0]:
                raise Unmeasured(f"theory predicts no {self.metric} for {curve.name}")
            return float(curve.theory.predicted[int(np.flatnonzero(curve.x == x)[0])])
        if self.column is not None:
            theirs = at(curve, self.column, x)
            # A value that does not depend on the seed, such as an argument, is a known number.
            return float(theirs[0]) if (theirs == theirs[0]).all() else theirs
        rival = self.rival(curve)
        place = float(self.than.get(self.subject.axis, x))
        if place not in rival.x:
            raise Unmeasured(f"{rival.name} has no records at {self.subject.axis} = {place:g}")
        # Pairs: only the seeds that both curves have.
        mine, theirs = common(curve, rival)
        return at(mine, self.metric, x), at(theirs, self.metric, place)
