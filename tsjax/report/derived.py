"""Drawings against quantities other than the sweep's x: exponents of curves against an argument in which the curves differ, and
means against a quantity that is claimed to determine them."""

from collections.abc import Mapping

import numpy as np

from ..sweep.curve import Curve
from ..sweep.expectation import Expectation
from ..sweep.phrase import evaluate
from ..sweep.result import Result
from ..sweep.values import canonical, labels_of, text_of
from .look import look_of
from .numbers import drawn_means, label_of, shows_rate, table_of, variants
from .places import is_number
from .series import Drawing, Panel, Series, panels_of, scale_of, seeds_of

# The least number of values of an argument whose exponents make a curve.
_LEAST = 3


def derived_drawings(result: Result) -> list[Drawing]:
    """The drawings of this module; those on which a claim rests come first."""
    return [*collapse_drawings(result), *exponent_drawings(result)]


def exponent_drawings(result: Result) -> list[Drawing]:
    """Fitted exponents with 95 % intervals, and theory's exponent over the same window (or in the limit, if theory has no
    curve), against every numerical argument that has three or more values among curves that are otherwise alike."""
    fitted = [
        (curve, row)
        for curve, row in zip(result.curves(), result.rates().to_dict("records"), strict=True)
        if shows_rate(result, curve)
    ]
    found = []
    for argument in variants(result) if fitted else ():
        groups: dict[str, list[tuple[Curve, Mapping]]] = {}
        for curve, row in fitted:
            if is_number(curve.arguments[argument]):
                others = {name: value for name, value in curve.arguments.items() if name != argument}
                groups.setdefault(canonical(others), []).append((curve, row))
        drawn = [_exponents(argument, group) for group in groups.values()]
        drawn = [series for series in drawn if np.isfinite(series.mean).sum() >= _LEAST]
        if not drawn:
            continue
        named = [
            series._replace(name=_name_without(result, series.curve, argument), look=look_of(place))
            for place, series in enumerate(drawn)
        ]
        y, label = label_of(result, result.experiment.y[0]), label_of(result, argument)
        seeds = seeds_of(curve for group in groups.values() for curve, _ in group)
        x_name = label_of(result, result.experiment.x)
        caption = f"Exponents of {y} in {x_name} against {label}, over {seeds}, with 95 % intervals."
        scale = scale_of(np.concatenate([series.x for series in named]))
        found.append(
            Drawing(
                f"exponent_in_{argument}", f"exponent of {y}", "plain", scale, caption, [Panel("", named)], "",
                x=argument, x_label=label,
            )
        )  # fmt: skip
    return found


def _exponents(argument: str, group: list[tuple[Curve, Mapping]]) -> Series:
    """The exponents of curves that differ in one argument, from their rows of `Result.rates`."""
    ordered = sorted(group, key=lambda pair: pair[0].arguments[argument])
    x = np.array([curve.arguments[argument] for curve, _ in ordered], float)
    columns = ("exponent", "low", "high", "predicted", "asymptote")
    exponent, low, high, theory, limit = (np.array([row[name] for _, row in ordered], float) for name in columns)
    theory = theory if np.isfinite(theory).any() else limit
    sure = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(sure, low, np.nan), np.where(sure, high, np.nan)
    return Series(ordered[0][0], x, exponent, low, high, theory if np.isfinite(theory).any() else None)


def _name_without(result: Result, curve: Curve, argument: str) -> str:
    """The name of a curve and what else distinguishes it, except for one argument."""
    curves, parts = result.curves(), [label_of(result, curve.name)]
    for name in variants(result):
        if name != argument:
            words = labels_of(other.arguments[name] for other in curves)
            parts.append(f"{label_of(result, name)} = {words[text_of(curve.arguments[name])]}")
    return ", ".join(parts)


def collapse_drawings(result: Result) -> list[Drawing]:
    """Means against the quantity z, and against its rival, for every expectation `trend of METRIC in Z relative to Z'`. If z
    alone determines the metric, all curves coincide."""
    asked: dict[tuple[str, str], list[Expectation]] = {}
    for expectation in result.spec.expect:
        phrase = expectation.phrase
        if phrase.form == "trend":
            for z in filter(None, (phrase.z, phrase.rival)):
                # Every metric is drawn against x itself elsewhere.
                if z != result.experiment.x:
                    asked.setdefault((phrase.metric or result.experiment.y[0], z), []).append(expectation)
    drawings = (_against(result, metric, z, expectations) for (metric, z), expectations in asked.items())
    return [drawing for drawing in drawings if drawing is not None]


def _is_meant(curve: Curve, expectation: Expectation) -> bool:
    name = expectation.phrase.curve
    named = name in (None, curve.name) or (name == "*" and curve.name not in expectation.excluding)
    return named and all(curve.arguments.get(key) == value for key, value in expectation.where.items())


def _against(result: Result, metric: str, z: str, expectations: list[Expectation]) -> Drawing | None:
    """The means of one metric against z, for all curves that one of the expectations is about, inside and outside its window;
    None if z has no value, or nothing was measured."""
    drawn, axis = [], result.experiment.x
    for curve in result.curves():
        if not any(_is_meant(curve, expectation) for expectation in expectations):
            continue
        try:
            places = np.array([evaluate(z, {**curve.arguments, axis: float(x)}) for x in curve.x])
        except ValueError:
            continue
        mean, low, high = drawn_means(result, curve, metric, table_of(result, curve, metric))
        order = np.argsort(places, kind="stable")
        drawn.append(Series(curve, places[order], mean[order], low[order], high[order]))
    if not drawn:
        return None
    # The expression in the notation of a paper.
    label, x_label = label_of(result, metric), z.replace("**", "^").replace("*", "·")
    caption = f"Mean {label} against {x_label}, over {seeds_of(series.curve for series in drawn)}, with 95 % intervals."
    scale, name = scale_of(np.concatenate([series.x for series in drawn])), f"{metric}_in_{z}"
    kind = "share" if result.kind(metric).name == "indicator" else "mean"
    return Drawing(name, label, kind, scale, caption, panels_of(result, drawn), "", x=z, x_label=x_label)
