"""Where a curve is drawn, under which name, and in which look: learners that answer one question share a panel."""

from typing import NamedTuple

from ..sweep.curve import Curve
from ..sweep.result import Result
from ..sweep.values import canonical, labels_of, text_of
from .look import Look, look_of, look_within
from .numbers import label_of, variants
from .text import shown

# The most values of the other arguments that colours distinguish within one panel, for one learner and for two.
_MOST_VALUES = {1: 15, 2: 6}


class Place(NamedTuple):
    """Of one curve: the `title` of its panel, empty where there is only one, and its `rank` among panels; its `name` within
    it; its `look`."""

    title: str
    rank: int
    name: str
    look: Look


def places_of(result: Result) -> dict[str, Place]:
    """The place of every curve, by `key_of_curve`.

    Arguments in which at least two learners vary, or the only one does, are other questions: each of their combinations has a
    panel. If they are few, of one or two learners, they share one panel and differ in colour. What varies within one learner
    only, or from learner to learner, is that learner's own, and part of its name.
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
    """What identifies a curve among all others, also when it is a part of one."""
    return canonical(curve.arguments)


def is_number(value: object) -> bool:
    """Whether a value of an argument lies on an axis of numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _learner(result: Result, curve: Curve, learners: int) -> str:
    """The name of a curve by its curve argument; where there is none, the experiment's, but not before other words."""
    if result.experiment.curve is None and learners == 1 and variants(result):
        return ""
    return label_of(result, curve.name)


def _named_arguments(result: Result, curve: Curve, own: list[str]) -> list[str]:
    """The arguments of a learner's own that its name states: those in which it varies, and those that are not as they are by
    default."""
    named = []
    for name in own:
        mine = {text_of(other.arguments[name]) for other in result.curves() if other.name == curve.name}
        default = [text_of(value) for value in result.experiment.arguments.get(name, [])]
        if len(mine) > 1 or text_of(curve.arguments[name]) not in default:
            named.append(name)
    return named
