"""Which groups of a plan share a compiled program: sizes in classes, and curves of one family."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .classes import Shared, Sized, joined_class, size_classes
from .experiment import Experiment
from .plan import Plan, Portion
from .values import hashable


class _Member(NamedTuple):
    """A group that may share a program: the JSON text of its static arguments and sizes; a text that is equal for groups that
    may share one; the value of the argument that names curves, and the family of this value; and its sizes."""

    name: str
    alike: str
    value: Any
    family: tuple[Any, ...]
    sized: Sized


def shared_plan(plan: Plan, platform: str, loops_end: bool, kept: Mapping[str, Shared]) -> Plan:
    """The plan with programs that groups share, for devices of this platform: sizes in classes (`size_classes`), and
    curves of one family (`Experiment.together`). `loops_end` says whether training loops there skip padded rows. Groups in
    `kept` (the `sharing_of` a store) keep their programs, and other groups join one of these if that costs least."""
    experiment = plan.experiment
    if not isinstance(experiment, Experiment) or not (experiment.sized or experiment.together):
        return plan
    found: dict[str, Shared] = {}
    new: dict[str, list[_Member]] = {}
    old: dict[str, list[tuple[tuple[Any, ...], Shared]]] = {}
    for portion in plan.portions:
        one = _member(plan, portion, experiment)
        if one.name in kept:
            found[one.name] = kept[one.name]
            old.setdefault(one.alike, []).append((kept[one.name].variants or (one.value,), kept[one.name]))
        else:
            new.setdefault(one.alike, []).append(one)
    for alike, members in new.items():
        rest = []
        for one in members:
            programs = {how.limits: how for values, how in old.get(alike, ()) if how.limits and one.value in values}
            limits = joined_class(one.sized, sorted(filter(None, programs)), platform, loops_end)
            if limits is None:
                rest.append(one)
            else:
                found[one.name] = programs[limits]
        found |= _classes(rest, platform, loops_end)
    order = [json.dumps(portion.static, sort_keys=True) for portion in plan.portions]
    return dataclasses.replace(plan, shared=tuple(found[name] for name in order))


def _member(plan: Plan, portion: Portion, experiment: Experiment) -> _Member:
    arguments, curve = plan.arguments_of(portion), experiment.curve
    value = None if curve is None else hashable(portion.static.get(curve))
    family = next((values for values in experiment.together if value in values), ())
    # Sizes that must not be padded share no program, as if they were static.
    data = set(experiment.sized) if experiment.pads is None or experiment.pads(arguments) else set()
    data |= {curve} if family else set()
    alike = [{name: v for name, v in portion.static.items() if name not in data}, family]
    sizes = tuple(portion.static[name] for name in experiment.sized)
    at = lambda sizes: experiment.cost({**arguments, **dict(zip(experiment.sized, sizes, strict=True))})  # pyright: ignore[reportOptionalCall]
    return _Member(
        name=json.dumps(portion.static, sort_keys=True),
        alike=json.dumps(alike, sort_keys=True),
        value=value,
        family=family,
        sized=Sized(sizes, len(portion.places), None if experiment.cost is None else at),
    )


def _classes(members: Sequence[_Member], platform: str, loops_end: bool) -> dict[str, Shared]:
    """How new members that may share programs do so, by their names."""
    limits = size_classes([one.sized for one in members], platform, loops_end)
    together: dict[Any, list[_Member]] = {}
    for one, limit in zip(members, limits, strict=True):
        together.setdefault((limit, limit or one.sized.sizes), []).append(one)
    found = {}
    for (limit, _), several in together.items():
        values = {one.value for one in several}
        variants = tuple(value for value in several[0].family if value in values) if len(values) > 1 else ()
        found |= {one.name: Shared(limit, variants) for one in several}
    return found
