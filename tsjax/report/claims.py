"""The claims of a sweep beside published values: one row for each `[[expect]]`, in the terminal, as JSON and in Markdown."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from ..rates.checks import beside, plural, short
from ..sweep.result import Result
from .numbers import summary_of
from .sentences import title_of
from .tables import STYLES, compact_table, print_notes
from .terminal import Text


class Claim(NamedTuple):
    """One claim in words: what is measured, the `published` value, the `allowed` range, `ours` with its interval, and the
    outcome of the `verdict`. A dash means that there is none."""

    claim: str
    published: str
    allowed: str
    ours: str
    verdict: str


def claims_of(result: Result) -> list[Claim]:
    """The claims of a sweep in the order of its file."""
    rows = []
    for judged in result.judged():
        published, verdict = judged.expectation.published, judged.verdict
        error = f" ± {published.error:g}" if published and published.error else ""
        rows.append(
            Claim(
                title_of(result, judged),
                f"{published.value:g}{error}" if published else "–",
                _allowed(*verdict.allowed),
                "–" if np.isnan(verdict.value) else beside(verdict.value, verdict.interval),
                str(verdict.outcome),
            )
        )
    return rows


def _allowed(low: float, high: float) -> str:
    if np.isinf(low):
        return f"≤ {short(high)}"
    return f"≥ {short(low)}" if np.isinf(high) else f"{short(low)} to {short(high)}"


def print_claims(name: str, result: Result, minutes: float, console: Console) -> None:
    """The claims of one sweep, in a table that fits 80 columns, under its name and the minutes that it took."""
    print_notes(result.coverage, console)
    rows = claims_of(result)
    took = "less than a minute" if minutes < 1.0 else plural(round(minutes), "minute")
    console.print(Text(f"{name}, {took}: {summary_of(result)}", style="bold"), highlight=False)
    if not rows:
        return
    columns = list(zip(Claim._fields, zip(*rows, strict=True), strict=True))
    # Sweeps without published values use that room for words.
    columns = [(heading, cells) for heading, cells in columns if heading != "published" or set(cells) != {"–"}]
    styles = [STYLES[row.verdict] for row in rows]
    console.print(compact_table(result.spec.claim, columns, styles))


def claims_markdown(result: Result) -> str:
    """The claims of one sweep as a Markdown table, with a column of published values if there are any."""
    rows, fields = claims_of(result), list(Claim._fields)
    if all(row.published == "–" for row in rows):
        fields.remove("published")
    headings = [field.replace("ours", "ours [interval]") for field in fields]
    lines = [headings, ["---"] * len(fields), *([getattr(row, field) for field in fields] for row in rows)]
    return "\n".join(f"| {' | '.join(_escaped(line))} |" for line in lines) + "\n"


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|").replace("*", "\\*") for cell in cells]


def claims_json(name: str, result: Result, minutes: float) -> dict[str, Any]:
    """`sweep`, `claim`, `minutes`, and `claims`: objects with `claim`, `published`, `allowed`, `ours` and `verdict`, in words.
    The numbers are in `tsjax verify --json`."""
    rows = [row._asdict() for row in claims_of(result)]
    return {"sweep": name, "claim": result.spec.claim, "minutes": round(minutes, 2), "claims": rows}
