"""The looks at the verdicts of a sweep, which its store remembers.

A fixed-sample interval holds at one look. If you add seeds while a verdict is undecided, and stop when it holds, you look many
times (`tsjax.rates.looks`). The file `looks.json` in a store says which expectations were judged, and at how many seeds. So a
verdict by a fixed-sample interval can say that there were earlier looks. If the largest number of seeds is fixed before the
first look, intervals hold at all looks (`tsjax.sweep.until`).
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
    """Verdicts that were shown: the largest number of `seeds` of any curve, and digests of the expectations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: int = Field(ge=1)
    expectations: tuple[str, ...]


class Looks(BaseModel):
    """The looks at a store. `most`: the number of seeds up to which looks were planned before the first one, or None."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    looks: tuple[Look, ...] = ()
    most: int | None = Field(default=None, ge=1)

    def at(self, expectation: Expectation, seeds: int) -> list[int]:
        """The numbers of seeds at which an expectation was judged, in increasing order; the last is `seeds`, the present
        one."""
        name = _digest(expectation)
        return sorted({look.seeds for look in self.looks if name in look.expectations and look.seeds < seeds} | {seeds})

    def seeds_of(self, expectation: Expectation, seeds: int) -> int:
        """The number of seeds on which an expectation is judged if the records have `seeds`. With a plan it is that of its last
        look, since seeds that were added later, for other expectations, are not a look at this one."""
        name = _digest(expectation)
        own = [look.seeds for look in self.looks if name in look.expectations and look.seeds <= seeds]
        return max(own) if own and self.most is not None and seeds <= self.most else seeds

    def adding(self, expectations: Iterable[Expectation], seeds: int) -> "Looks":
        """The looks with one more. Looking again at the same seeds is not a new look."""
        known = {name for look in self.looks if look.seeds == seeds for name in look.expectations}
        new = tuple(name for name in map(_digest, expectations) if name not in known)
        return self.model_copy(update={"looks": (*self.looks, Look(seeds=seeds, expectations=new))}) if new else self

    def level(self, expectation: Expectation, seeds: int, level: float) -> float:
        """The level that an interval needs to hold at every planned look with probability `level`; without a plan, `level`."""
        if self.most is None or seeds > self.most:
            return level
        return look_level(self.at(expectation, seeds), self.most, level=level)

    def note(self, expectation: Expectation, seeds: int) -> str:
        """What a verdict says about its looks; empty for the first look without a plan."""
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
    """The looks that a store remembers; none for records in memory, or if the file is damaged."""
    if path is not None:
        with contextlib.suppress(OSError, ValidationError):
            return Looks.model_validate_json(files_at(path).read(_FILE))
    return Looks()


def write_looks(path: Path | str | None, looks: Looks) -> None:
    """Writes the looks into a store, if that is possible."""
    if path is not None:
        with contextlib.suppress(OSError):
            files_at(path).write(_FILE, looks.model_dump_json(indent=1).encode())


def _digest(expectation: Expectation) -> str:
    # Bounds count: a claim about the same number with other bounds is another claim.
    text = json.dumps(expectation.model_dump(mode="json", exclude={"source", "smoke"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
