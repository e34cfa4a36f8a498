"""What theory says about the curves of a sweep. It is computed when the sweep runs, and stored as numbers for readers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, model_validator

from .values import canonical


class Theory(NamedTuple):
    """What theory says about one curve y(x).

    - `predicted`: y at the given x (k,), NaN where theory says nothing; or None.
    - `exponent`: the asymptotic exponent in y ~ x^{-exponent}, or None.
    - `source`: where both come from.
    """

    predicted: np.ndarray | None = None
    exponent: float | None = None
    source: str = ""


class _Entry(BaseModel):
    """The theory of one curve, as a store holds it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    curve: dict[str, Any]
    x: list[float]
    predicted: list[float | None] | None
    exponent: float | None
    source: str

    @model_validator(mode="after")
    def _one_for_each_x(self):
        if self.predicted is not None and len(self.predicted) != len(self.x):
            raise ValueError(f"theory predicts {len(self.predicted)} values at {len(self.x)} x")
        return self


_ENTRIES = TypeAdapter(list[_Entry])


class TheoryTable:
    """What theory says about the curves of a sweep, as it was computed when the sweep ran.

    **Raises:** ValidationError (a ValueError) for entries of another form, which may come from a file.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]] = ()):
        checked = _ENTRIES.validate_python([dict(entry) for entry in entries])
        self._known: dict[str, Mapping[str, Any]] = {canonical(entry.curve): entry.model_dump() for entry in checked}

    def entries(self) -> list[dict[str, Any]]:
        """Plain values for a store: `curve` (all arguments except x), `x`, `predicted`, `exponent`, `source`."""
        return [dict(entry) for entry in self._known.values()]

    def has(self, curve: Mapping[str, Any], x: Sequence[float]) -> bool:
        """Whether theory was asked about a curve at all these x."""
        entry = self._known.get(canonical(dict(curve)))
        return entry is not None and set(map(float, x)) <= set(entry["x"])

    def add(self, curve: Mapping[str, Any], x: Sequence[float], theory: Theory) -> None:
        """Adds what theory says about a curve at some x; what is known at other x stays."""
        entry = self._known.get(canonical(dict(curve)), {"x": [], "predicted": None})
        known = dict(zip(entry["x"], entry["predicted"] or [None] * len(entry["x"]), strict=True))
        values = np.full(len(x), np.nan) if theory.predicted is None else np.asarray(theory.predicted, float)
        # None stands for NaN, which JSON does not have.
        written = [None if np.isnan(value) else value for value in values.tolist()]
        known |= dict(zip(map(float, x), written, strict=True))
        self._known[canonical(dict(curve))] = {
            "curve": dict(curve),
            "x": list(known),
            "predicted": _unless_empty(known.values()),
            "exponent": None if theory.exponent is None else float(theory.exponent),
            "source": theory.source,
        }

    def keep(self, entry: Mapping[str, Any]) -> None:
        """Adds an entry that was known before; newer values take precedence."""
        mine = self._known.get(canonical(entry["curve"]))
        if mine is None:
            self._known[canonical(entry["curve"])] = entry
            return
        known = dict(zip(entry["x"], entry["predicted"] or [None] * len(entry["x"]), strict=True))
        known |= dict(zip(mine["x"], mine["predicted"] or [None] * len(mine["x"]), strict=True))
        self._known[canonical(entry["curve"])] = {**mine, "x": list(known), "predicted": _unless_empty(known.values())}

    def __call__(self, curve: Mapping[str, Any], x: np.ndarray) -> Theory:
        """What theory says about a curve at x, NaN at those x for which it was not computed."""
        entry = self._known.get(canonical(dict(curve)))
        if entry is None:
            return Theory()
        predicted = None
        if entry["predicted"] is not None:
            known = {at: value for at, value in zip(entry["x"], entry["predicted"], strict=True) if value is not None}
            predicted = np.array([known.get(float(at), np.nan) for at in x])
        return Theory(predicted, entry["exponent"], entry["source"])


def _unless_empty(values: Iterable[float | None]) -> list[float | None] | None:
    listed = list(values)
    return listed if any(value is not None for value in listed) else None
