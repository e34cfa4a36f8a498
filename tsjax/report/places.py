"""The panel, the name and the look of each curve: learners that answer the same question share a panel."""

from typing import NamedTuple

from ..sweep.curve import Curve
from ..sweep.result import Result
from ..sweep.values import canonical, labels_of, text_of
from .look import Look, look_of, look_within
from .numbers import label_of, variants
from .text import shown

# The most values of the other arguments that colours distinguish within one panel, by the number of learners.
_MOST_VALUES = {1: 15, 2: 6}


class Place(NamedTuple):
    """The place of one curve: the `title` of its panel, empty if there is only one, and its `rank` among panels; the curve's
    `name` within the panel; its `look`."""

    title: str
    rank: int
    name: str
    look: Look


def places_of(result: Result) -> dict[str, Place]:
    """The place of every curve, by `key_of_curve`.

    Arguments in which at least two learners vary, or in which the only learner varies, pose different questions, and each
    combination of their values has a panel. If there are few combinations and at most two learners, they share one panel and
    differ in colour. An argument that varies within one learner only, or from learner to learner, belongs to that learner, and
    is part of its name.
    """
    curves, varying = result.curves(), variants(result)
    learners = list(dict.fromkeys(curve.name for curve in curves))
    own, questions = [], []
    for name in varying:
        spread = [
            len({text_of(curve.arguments[name]) for curve in curves if curve.name == one}) > 1 for one in learners
        ]
        (own if sum(spread) < min(2, len(learners)) else questions).append(name)
    words = {name: labels_of(curve.arguments[name] for curve in curves) for name in varying}
    tell = lambda curve, names: ", ".join(
        f"{label_of(result, name)} = {shown(words[name][text_of(curve.arguments[name])])}" for name in names
    )
    combined = {text: number for number, text in enumerate(dict.fromkeys(tell(curve, questions) for curve in curves))}
    together = 1 < len(combined) <= _MOST_VALUES.get(len(learners), 0)
    numbers = [curve.arguments[name] for name in questions[:1] for curve in curves]
    ordered = len(questions) == 1 and len(combined) > 2 and all(is_number(value) for value in numbers)
    if ordered:
        values = sorted(set(numbers))
        combined = {tell(curve, questions): values.index(curve.arguments[questions[0]]) for curve in curves}
    named: dict[str, int] = {}
    places = {}
    for curve in curves:
        question, kept = tell(curve, questions), _named_arguments(result, curve, own)
        name = ", ".join(filter(None, [_learner(result, curve, len(learners)), tell(curve, kept)]))
        look = look_of(named.setdefault(name, len(named)))
        if together:
            line, alone = learners.index(curve.name), len(learners) == 1
            name = ", ".join(filter(None, ["" if alone else name, question]))
            look = look_within(combined[question], len(combined), ordered, line, alone)
        title, rank = ("", 0) if together else (question, combined[question])
        places[key_of_curve(curve)] = Place(title, rank, name or shown(curve.label), look)
    return places


def key_of_curve(curve: Curve) -> str:
    """A text that identifies a curve among all others, even if only a part of the curve is given."""
    return canonical(curve.arguments)


def is_number(value: object) -> bool:
    """Whether a value of an argument is a number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _learner(result: Result, curve: Curve, learners: int) -> str:
    """The name of a curve by its curve argument; without one, that of the experiment, or nothing if other words follow."""
    if result.experiment.curve is None and learners == 1 and variants(result):
        return ""
    return label_of(result, curve.name)


def _named_arguments(result: Result, curve: Curve, own: list[str]) -> list[str]:
    """Which of a learner's own arguments its name states: those in which it varies, and those that differ from their
    defaults."""
    named = []
    for name in own:
        mine = {text_of(other.arguments[name]) for other in result.curves() if other.name == curve.name}
        default = [text_of(value) for value in result.experiment.arguments.get(name, [])]
        if len(mine) > 1 or text_of(curve.arguments[name]) not in default:
            named.append(name)
    return named
