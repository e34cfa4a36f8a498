"""The looks at the verdicts of a sweep, which its store remembers.

A fixed-sample interval holds at one look. If you add seeds while a verdict is undecided, and stop when it holds, you look many
times (`tsjax.rates.looks`). `looks.json` in a store says at how many seeds which expectations were judged. So a verdict by a
fixed-sample interval can say that there were earlier looks; and where the most seeds were fixed before the first look,
intervals hold at all of them (`tsjax.sweep.until`).
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..rates import look_level
from .expectation import Expectation
from .files import files_at

_FILE = "looks.json"


class Look(BaseModel):
    """Verdicts that were shown: the most `seeds` of any curve, and the digests of the expectations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: int = Field(ge=1)
    expectations: tuple[str, ...]


class Looks(BaseModel):
    """The looks at a store. `most`: the seeds up to which looks were planned before the first, or None."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    looks: tuple[Look, ...] = ()
    most: int | None = Field(default=None, ge=1)

    def at(self, expectation: Expectation, seeds: int) -> list[int]:
        """The numbers of seeds at which an expectation was judged, increasing, up to the present one, which is the last."""
        name = _digest(expectation)
        return sorted({look.seeds for look in self.looks if name in look.expectations and look.seeds < seeds} | {seeds})

    def seeds_of(self, expectation: Expectation, seeds: int) -> int:
        """How many seeds an expectation is judged on where the records have `seeds`: by a plan those of its last look, since
        seeds that were added for others since are no look at it."""
        name = _digest(expectation)
        own = [look.seeds for look in self.looks if name in look.expectations and look.seeds <= seeds]
        return max(own) if own and self.most is not None and seeds <= self.most else seeds

    def adding(self, expectations: Iterable[Expectation], seeds: int) -> "Looks":
        """With one more look. Looking again at the same seeds is no new look."""
        known = {name for look in self.looks if look.seeds == seeds for name in look.expectations}
        new = tuple(name for name in map(_digest, expectations) if name not in known)
        return self.model_copy(update={"looks": (*self.looks, Look(seeds=seeds, expectations=new))}) if new else self

    def level(self, expectation: Expectation, seeds: int, level: float) -> float:
        """The level of the interval that holds at every planned look with probability `level`; the same without a plan."""
        if self.most is None or seeds > self.most:
            return level
        return look_level(self.at(expectation, seeds), self.most, level=level)

    def note(self, expectation: Expectation, seeds: int) -> str:
        """What a verdict says of its looks; empty for the first without a plan."""
        at = self.at(expectation, seeds)
        if self.most is not None and seeds <= self.most:
            return f"the interval holds at every look up to {self.most} seeds; this is look {len(at)}, at {seeds}"
        if len(at) == 1:
            return ""
        return (
            f"looked at before, at {', '.join(map(str, at[:-1]))} seeds: this interval holds at one look, and a false "
            "verdict is likelier at several (--until-verdict plans for them)"
        )


def read_looks(path: Path | str | None) -> Looks:
    """The looks that a store remembers; none for records in memory, or where the file is damaged."""
    if path is not None:
        with contextlib.suppress(OSError, ValidationError):
            return Looks.model_validate_json(files_at(path).read(_FILE))
    return Looks()


def write_looks(path: Path | str | None, looks: Looks) -> None:
    """Writes the looks into a store, where that can be written to."""
    if path is not None:
        with contextlib.suppress(OSError):
            files_at(path).write(_FILE, looks.model_dump_json(indent=1).encode())


def _digest(expectation: Expectation) -> str:
    # Bounds count: another claim about the same number is another claim.
    text = json.dumps(expectation.model_dump(mode="json", exclude={"source", "smoke"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
