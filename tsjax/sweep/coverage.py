"""How much of the plan of a sweep its records cover, and what else to know before trusting their numbers."""

from dataclasses import dataclass
from typing import Any

from .manifest import mixtures
from .store import Chunks

_WHOLE_PLAN = (
    "Run the sweep with its whole plan, such as with the same --set, or the smaller one into a store of its own"
)


@dataclass(frozen=True)
class Coverage:
    """How complete and how sound the records of a sweep are.

    - `cells`: the number of cells of the plan. `done`: how many of them have a record. `beyond`: the number of recorded cells
      that are not in the plan.
    - `damaged`: the names of chunks whose bytes are not those that were written; their cells are left out. `foreign`: the names
      of other files among the chunks, which are ignored.
    - `verified`: whether every chunk was checked against its hash, which is impossible for stores of earlier versions.
    - `repeated`: the number of cells that were run twice, with equal results. `mixed`: sentences about records of different
      origin.
    """

    cells: int
    done: int
    beyond: int = 0
    damaged: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    verified: bool = True
    repeated: int = 0
    mixed: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every cell of the plan has a record in a sound chunk, no chunk is damaged, and no record belongs to a cell
        outside the plan: if an earlier plan was larger, some of its cells may be missing."""
        return self.done == self.cells and not self.damaged and not self.beyond

    @property
    def sentence(self) -> str:
        """`96 of 96 cells.` or `60 of 96 cells; 6 damaged chunks are left out.`"""
        text = f"{self.done} of {self.cells} cells"
        if self.damaged:
            some = "1 damaged chunk is" if len(self.damaged) == 1 else f"{len(self.damaged)} damaged chunks are"
            text += f"; {some} left out"
        return text + "."

    @property
    def lack(self) -> str:
        """What keeps the sweep from being whole, and what to do: `60 of 96 cells. Run the sweep again`, without a last stop."""
        if self.done < self.cells or self.damaged:
            return f"{self.sentence} Run the sweep again"
        return f"{self._beyond} not in the plan of the latest run. {_WHOLE_PLAN}"

    @property
    def _beyond(self) -> str:
        return "1 recorded cell is" if self.beyond == 1 else f"{self.beyond} recorded cells are"

    @property
    def notes(self) -> list[str]:
        """Sentences to know before trusting the numbers; none for a complete sweep of one origin."""
        found = []
        if self.done < self.cells or self.damaged:
            missing = self.cells - self.done
            text = f"These numbers stand on {self.sentence[:-1]}"
            text += f"; {missing} {'is' if missing == 1 else 'are'} missing." if missing else "."
            found.append(text + " Run the sweep again to complete it.")
        if self.damaged:
            found.append(f"Damaged, and left out: {_some(self.damaged)}.")
        if self.foreign:
            found.append(f"Not chunks of this sweep, and ignored: {_some(self.foreign)}.")
        if self.beyond:
            found.append(
                f"{self._beyond} not in the plan of the latest run, and counted too; how many cells of the earlier plan are "
                f"missing is not known. {_WHOLE_PLAN}."
            )
        if not self.verified:
            found.append("Made by an earlier version of tsjax: nothing here could be verified.")
        return found + [f"{text[:1].upper()}{text[1:]}." for text in self.mixed]

    def content(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "cells": self.cells,
            "done": self.done,
            "beyond_plan": self.beyond,
            "damaged": list(self.damaged),
            "foreign": list(self.foreign),
            "verified": self.verified,
            "repeated": self.repeated,
            "mixed": list(self.mixed),
            "whole": self.whole,
        }


def coverage_of(cells: int, done: int, recorded: int, chunks: Chunks, repeated: int, verified: bool) -> Coverage:
    """The coverage of a plan with this number of `cells`, if `done` of them, and `recorded` cells in all, have a record in the
    chunks."""
    return Coverage(
        cells=cells,
        done=done,
        beyond=recorded - done,
        damaged=tuple(sorted(chunks.damaged)),
        foreign=tuple(sorted(chunks.foreign)),
        verified=verified,
        repeated=repeated,
        mixed=tuple(mixtures(chunks.manifests)),
    )


def _some(names: tuple[str, ...], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
