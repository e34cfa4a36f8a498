"""Sentences about a result on the page and in the terminal: verdicts with the names of learners, the headline, and surfaces."""

import re
from typing import NamedTuple

import numpy as np

from ..rates import Frontier, Surface
from ..rates.checks import beside, together
from ..sweep.curve import Curve
from ..sweep.result import Result
from ..sweep.verdicts import Judged
from .comparison import reference_of, rivals
from .numbers import (
    LIMIT,
    aims_at_limit,
    at,
    label_of,
    last_point,
    mean_with_error,
    over,
    ratio_at,
    short,
    the,
    variant_of,
    x_is_returned,
)

# A ratio within this factor of 1 is written as a ratio, any other as a factor.
_FACTOR = 1.5
# The headline is about at most this many curves.
_MOST = 3


def title_of(result: Result, judged: Judged) -> str:
    """The title of a verdict, such as `two-phase student: exponent over sample size n = 256..2048`."""
    expectation, phrase = judged.expectation, judged.expectation.phrase
    name, x = phrase.curve, phrase.axis or result.experiment.x
    if name == "*":
        name = None if judged.curve is None else judged.curve.name
        subject = "all curves" if name is None else f"all curves, {label_of(result, name)} the nearest to failing"
    else:
        subject = result.experiment.name if name is None else label_of(result, name)
    where = dict(expectation.where)
    if phrase.at is not None and phrase.at[0] != x:
        where[phrase.at[0]] = phrase.at[1]
    if where:
        subject += f" ({', '.join(f'{label_of(result, key)} = {value}' for key, value in where.items())})"
    what = _measured(result, judged)
    if expectation.model is not None and phrase.form != "model":
        what += f" (model {expectation.model})"
    axis = phrase.outer or x
    window = (
        "" if judged.x is None else f" {'at' if judged.x[0] == judged.x[1] else 'over'} {over(result, *judged.x, axis)}"
    )
    # Windows of expressions restrict cells at every x.
    window += "".join(
        f", where {name} is {short(ends[0])} to {short(ends[1])}"
        for name, ends in expectation.over.items()
        if not name.isidentifier() and isinstance(ends, list)
    )
    return f"{subject}: {what}{window}"


def _measured(result: Result, judged: Judged) -> str:
    """The measured number of a phrase, in words."""
    expectation, phrase = judged.expectation, judged.expectation.phrase
    metric = label_of(result, phrase.metric or result.experiment.y[0])
    x = label_of(result, phrase.axis or result.experiment.x)
    # Exponents of the first metric are written without its name.
    of = "" if phrase.metric in (None, result.experiment.y[0]) else f" of {metric}"
    than = ", ".join(
        f"{label_of(result, key)} = {value}"
        for key, value in {**expectation.than, **dict([phrase.than] if phrase.than else [])}.items()
    )
    rival = "theory's curve" if phrase.other == "predicted" else the(label_of(result, phrase.other or ""))
    rival = f"{rival} ({than})" if phrase.other and than else than or rival
    versus = (
        f" {'minus' if phrase.operator == 'minus' else 'relative to'} that at {than}"
        if than and not phrase.other
        else ""
    )
    versus = versus or (f" {phrase.operator} {rival}" if phrase.operator else "")
    rise = "smallest" if expectation.at_least is not None else "largest"
    return {
        "rate": f"exponent{of}"
        + (f" minus that {'at' if than and not phrase.other else 'of'} {rival}" if phrase.operator else ""),
        "exponent": f"exponent in {label_of(result, phrase.outer or '')} of the exponent{of}",
        "crossing": f"{x} from which on it stays below {rival}",
        "model": f"AICc of the model {expectation.model}, relative to the best other one",
        "forecast": f"{metric} relative to its forecast from smaller {x}",
        "median": f"median {metric}",
        "trend": f"rank correlation of {metric} with {phrase.z}"
        + (f", relative to {phrase.rival}" if phrase.rival else ""),
        "average": f"{metric} on average over the cells",
        "contour": f"exponent in {label_of(result, phrase.outer or '')} of the {x} where {metric} is {phrase.height:g}"
        if phrase.height is not None
        else "",
        "spread": f"largest {metric} over the smallest",
        "monotone": f"{rise} {metric} over an earlier one",
        "best": f"{x} of the smallest {metric}",
    }.get(phrase.form, f"{metric}{versus}")


def value_of(judged: Judged) -> str:
    """The measured value, with as many decimals as its interval has in the reason; empty if there is none."""
    value = judged.verdict.value
    return "" if np.isnan(value) else together(value, *judged.verdict.interval)[0]


def reason_of(result: Result, judged: Judged) -> str:
    """The reason of a verdict, with the names of curves as tables write them."""
    labels = {curve.name: label_of(result, curve.name) for curve in result.curves()}
    names = sorted((name for name in labels if name in result.experiment.labels), key=len, reverse=True)
    if not names:
        return judged.verdict.reason
    return re.sub(rf"\b(?:{'|'.join(map(re.escape, names))})\b", lambda m: labels[m[0]], judged.verdict.reason)


def subjects_of(result: Result) -> list[Curve]:
    """The curves of the learner that the claim is about, which is that of the first expectation that names one. If it has too
    many variants, only those that the expectation is about."""
    for judged in result.judged():
        name = judged.expectation.phrase.curve
        mine = [curve for curve in result.curves() if name is None or curve.name == name]
        if not mine:
            continue
        where = judged.expectation.where
        meant = [curve for curve in mine if all(curve.arguments.get(key) == value for key, value in where.items())]
        found = mine if len(mine) <= _MOST else meant
        return found if len(found) <= _MOST else []
    return []


def headline_of(result: Result) -> str:
    """The result for the learner of the claim at its largest x, compared with the Cramér-Rao limit and the reference curve. If
    no learner has a claim, it says which of several has the lowest mean. Empty if neither applies."""
    curves = subjects_of(result)
    if not result.curves() or result.is_share(result.experiment.y[0]):
        return ""
    if not curves:
        return "" if any(one.expectation.phrase.curve != "*" for one in result.judged()) else _lowest(result)
    return " ".join(_sentence(result, curve) for curve in curves)


def _sentence(result: Result, curve: Curve) -> str:
    point, y = last_point(result, curve), label_of(result, result.experiment.y[0])
    if np.isnan(point.mean):
        return ""
    variant = f" ({variant_of(result, curve)})" if variant_of(result, curve) else ""
    text = f"At {at(result, point.x)} the mean {y} of {the(label_of(result, curve.name))}{variant} is "
    text += mean_with_error(point.mean, point.se)
    if point.to_limit is not None and aims_at_limit(result, curve):
        text += f", {beside(point.to_limit.value, point.to_limit.interval)} times {the(label_of(result, LIMIT))}"
    return text + _beside_reference(result, curve, point.x) + "."


def _beside_reference(result: Result, curve: Curve, last: float) -> str:
    reference = reference_of(result)
    rival = next((rival for mine, rival in rivals(result) if mine is curve), None)
    if reference is None or rival is None or x_is_returned(result):
        return ""
    common = np.intersect1d(curve.x, rival.x)
    if not common.size:
        return ""
    x = float(common[-1])
    # The factor by which the curve lies below, which is the ratio that expectations of such a claim measure.
    factor, ratio = ratio_at(result, rival, curve, x), ratio_at(result, curve, rival, x)
    if factor is None or ratio is None:
        return ""
    name = the(label_of(result, reference))
    where = "" if x == last else f" at {at(result, x)}"
    if factor.value >= _FACTOR:
        return f";{where} smaller than that of {name} by a factor of {beside(factor.value, factor.interval)}"
    if ratio.value >= _FACTOR:
        return f";{where} larger than that of {name} by a factor of {beside(ratio.value, ratio.interval)}"
    return f";{where} {beside(ratio.value, ratio.interval)} times that of {name}"


def _lowest(result: Result) -> str:
    points = [last_point(result, curve) for curve in result.curves()]
    if len(points) < 2 or len({point.x for point in points}) > 1 or not all(point.mean > 0 for point in points):
        return ""
    if any(variant_of(result, point.curve) for point in points):
        # Curves with other arguments answer different questions, and have no common lowest one.
        return ""
    best = min(points, key=lambda point: point.mean)
    y = label_of(result, result.experiment.y[0])
    text = f"At {at(result, best.x)} the mean {y} is lowest for {the(label_of(result, best.curve.name))}"
    return f"{text}: {mean_with_error(best.mean, best.se)}{_beside_reference(result, best.curve, best.x)}."


class Fitted(NamedTuple):
    """A surface with the labels of N, D and the loss, and its frontier if compute has a cost."""

    surface: Surface
    n: str
    d: str
    loss: str
    frontier: Frontier | None


def is_scattered(result: Result) -> bool:
    """Whether the spec asks for a surface of runs that make no curves: most curves have one x, so only the surface shows
    them."""
    lengths = [len(curve.x) for curve in result.curves()]
    return result.spec.surface is not None and bool(lengths) and float(np.median(lengths)) < 3


def fitted(result: Result) -> Fitted | None:
    """The surface that the spec asks for; None if it asks for none. Raises ValueError if it cannot be fitted."""
    asked, surface = result.spec.surface, result.asked_surface
    if asked is None or surface is None:
        return None
    labels = [label_of(result, name) for name in (asked.n, asked.d, result.experiment.y[0])]
    return Fitted(surface, *labels, frontier=None if asked.cost is None else surface.frontier(asked.cost))


def surface_sentence(result: Result) -> str:
    """A sentence with the exponents, and those of the frontier, or the reason why there are none; empty without a surface."""
    try:
        found = fitted(result)
    except ValueError as error:
        return f"The surface could not be fitted: {error}"
    if found is None:
        return ""
    a, b = found.surface.parameters["a"], found.surface.parameters["b"]
    text = f"The {found.loss} falls with exponent {a} in {found.n} and {b} in {found.d}"
    if "E" in found.surface.parameters:
        text += f", to a floor of {found.surface.parameters['E']}"
    if found.frontier is not None:
        best = found.frontier.exponents
        text += (
            f". At the least {found.loss} for compute C, {found.n} grow as C^{best['n']}, {found.d} as C^{best['d']}"
        )
    return f"{text}. Brackets: {100 * found.surface.level:g} % intervals."


def surface_warnings(result: Result) -> list[str]:
    """Warnings about the surface."""
    try:
        surface = result.asked_surface
    except ValueError:  # The section says why there is none.
        return []
    return [] if surface is None else [text[:1].upper() + text[1:] for text in surface.warnings]
