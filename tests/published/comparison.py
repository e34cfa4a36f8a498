"""What a comparison with a published result is, and how its row on docs/published.md reads."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "published.md"


@dataclass(frozen=True)
class Found:
    """A published value and ours. `error` is the standard error of ours, 0 where nothing is random; `tolerance` is how far
    the published value itself may be off, relative to it: a limit that is not reached, or roundoff."""

    published: float
    ours: float
    error: float = 0.0
    tolerance: float = 1e-9

    @property
    def agree(self) -> bool:
        return abs(self.ours - self.published) <= 4.0 * self.error + self.tolerance * abs(self.published)


@dataclass(frozen=True)
class Comparison:
    """`run` computes both values; `source` and `quantity` are cells of the page's table."""

    source: str
    quantity: str
    run: Callable[[], Found]
    slow: bool = False

    def row(self) -> str:
        """Its line of the page, made anew."""
        found = self.run()
        ours = f"{found.ours:.4g}" if not found.error else f"{found.ours:.4g} ± {found.error:.1g}"
        return f"| {self.source} | {self.quantity} | {found.published:.4g} | {ours} |"


def rows_of_the_page() -> dict[tuple[str, str], tuple[str, str]]:
    """(published, ours) as written, by (source, quantity)."""
    cells = [
        re.split(r"\s*\|\s*", line.strip("| \n")) for line in PAGE.read_text().splitlines() if line.startswith("| ")
    ]
    return {(row[0], row[1]): (row[2], row[3]) for row in cells if len(row) == 4 and row[0] != "source"}


def says(text: str, value: float, error: float) -> bool:
    """Whether a number as written is `value`: to its last digit, or within what another seed may change."""
    written, _, spread = text.partition(" ± ")
    digits = written.lower().partition("e")
    decimals = len(digits[0].partition(".")[2])
    unit = 10.0 ** (-decimals) * 10.0 ** float(digits[2] or 0)
    assert bool(spread) == bool(error), f"{text} and a standard error of {error}"
    # Two runs differ by the errors of both; one whose error changed by half is another simulation.
    assert not spread or 0.5 * error <= float(spread) <= 2.0 * error, f"{text}, but the standard error is {error}"
    return bool(abs(float(written) - value) <= 0.51 * unit + 4.0 * np.hypot(error, error))
