"""Results in the terminal: tables that fit 80 columns without cutting anything off."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console, ConsoleRenderable, Group
from rich.padding import Padding
from rich.table import Table

from ..sweep.coverage import Coverage
from ..sweep.result import Result
from ..sweep.seeds import CurvePlan
from .numbers import (
    by_axis,
    decimals,
    digits,
    duration,
    errors_note,
    exponents_of,
    failed_of,
    label_of,
    last_point,
    mean_with_error,
    notes_of,
    plural,
    short,
    shows_rate,
    summary_of,
    warnings_of,
)
from .sentences import headline_of, is_scattered, reason_of, surface_sentence, title_of, value_of
from .terminal import Text

STYLES = {"holds": "green", "fails": "bold red", "undecided": "yellow"}


def compact_table(
    title: str, columns: Sequence[tuple[str, Sequence[str]]], styles: Sequence[str] = ()
) -> ConsoleRenderable:
    """A table of text cells under a title. The first column is text and wraps; the others are numbers and are aligned right.
    `styles` colour the last cell of each row."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for number, (heading, _) in enumerate(columns):
        # Columns of numbers keep their width, and names wrap; cells that still do not fit fold rather than lose digits.
        table.add_column(_cell(heading), justify="right" if number else "left", no_wrap=number > 0, overflow="fold")
    for number, cells in enumerate(zip(*(values for _, values in columns), strict=True)):
        texts = [_cell(cell) for cell in cells]
        if styles:
            texts[-1].stylize(styles[number])
        table.add_row(*texts)
    return Group(Text(title, style="bold"), table)


def _cell(text: str) -> Text:
    return Text(text, no_wrap=False, overflow="fold")


def _shared(columns: dict[str, list[str]], name: str) -> str | None:
    """Removes a column whose value is the same in all rows, and returns that value; otherwise returns None."""
    if len(set(columns[name])) == 1:
        return columns.pop(name)[0]
    return None


_BREAK = "\n"


def _window(low: float, high: float) -> str:
    """`128..4096`, on two lines if long."""
    first, last = f"{short(low)}..", short(high)
    return first + (_BREAK if len(first + last) > 12 else "") + last


def rates_table(result: Result, model: str = "power", asked: bool = False) -> ConsoleRenderable | None:
    """Fitted exponents beside theory, for all curves if they were `asked` for, otherwise for those for which reports have them;
    None if there are none. The title states values that all curves share. `model` as in `Result.rate`."""
    kept = [asked or shows_rate(result, curve) for curve in result.curves()]
    rates, x = result.rates(model), result.experiment.x
    curves = [curve for curve, wanted in zip(result.curves(), kept, strict=True) if wanted]
    rates = rates.iloc[np.flatnonzero(kept)]
    if rates.empty or bool(np.isnan(rates["exponent"].to_numpy(float)).all()):
        return None
    limit = "limit"
    columns: dict[str, list[str]] = {
        "curve": [curve.label for curve in curves],
        "exponent [95 %]": exponents_of(rates),
        "model": list(rates["model"]),
        "theory": [decimals(value) for value in rates["predicted"]],
        limit: [decimals(value) for value in rates["asymptote"]],
        x: [_window(low, high) for low, high in zip(rates["x_min"], rates["x_max"], strict=True)],
        "seeds": [str(count) for count in rates["seeds"]],
        "failed": [str(failed_of(result, curve)) for curve in curves],
        "verdict": [outcomes.replace(", ", "\n") for outcomes in rates["verdict"]],
    }
    window, seeds = _shared(columns, x), _shared(columns, "seeds")
    title = f"Exponents of {label_of(result, result.experiment.y[0])} in {label_of(result, x)}"
    title += f" = {window.replace(_BREAK, '')}" if window else ""
    title += f", {plural(int(seeds), 'seed')}" if seeds else ""
    if model != "auto":
        del columns["model"]
        title += "" if model == "power" else f", model {model}"
    # The table of means has the number of seeds too.
    columns.pop("seeds", None)
    for name, empty in (("theory", "–"), (limit, "–"), ("failed", "0"), ("verdict", "")):
        if set(columns[name]) == {empty}:
            del columns[name]
    styles = [STYLES.get(outcome, "") for outcome in columns.get("verdict", [])]
    notes = []
    if "theory" in columns:
        notes.append("theory: exponent of the predicted curve over the same window")
    if limit in columns:
        notes.append("limit: theory's exponent at infinity")
    if errors_note(rates):
        notes.append(errors_note(rates))
    table = compact_table(title, list(columns.items()), styles)
    return Group(table, Text("; ".join(notes), style="dim")) if notes else table


def last_table(result: Result) -> ConsoleRenderable | None:
    """The first y of the experiment at the largest x; None without records."""
    points = [last_point(result, curve) for curve in result.curves()]
    if not points:
        return None
    x = result.experiment.x
    columns: dict[str, list[str]] = {
        "curve": [point.curve.label for point in points],
        x: [short(point.x) for point in points],
        "mean ± s.e.": [mean_with_error(point.mean, point.se) for point in points],
        "median": [digits(point.median) for point in points],
        "seeds": [str(point.seeds) for point in points],
        "/ Cramér-\nRao limit": ["–" if point.to_limit is None else digits(point.to_limit.value) for point in points],
        "/ optimal\nlinear": ["–" if point.to_linear is None else digits(point.to_linear.value) for point in points],
    }
    where = _shared(columns, x)
    for name in ("/ Cramér-\nRao limit", "/ optimal\nlinear"):
        if set(columns[name]) == {"–"}:
            del columns[name]
    axis = label_of(result, x)
    title = f"{label_of(result, result.experiment.y[0])} at {f'{axis} = {where}' if where else f'the largest {axis}'}"
    return compact_table(title[:1].upper() + title[1:], list(columns.items()))


def verdicts_list(result: Result, corrected: bool = False) -> ConsoleRenderable:
    """Every verdict with its numbers, its reason and its source, under the sentence that counts them; `corrected`: by Holm's
    correction for their number."""
    heading = Text(summary_of(result, corrected), style="bold")
    if not result.spec.expect:
        return heading
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for judged in result.judged(corrected):
        outcome = str(judged.verdict.outcome)
        text = Text(": ".join(filter(None, [title_of(result, judged), value_of(judged)])) + "\n")
        text.append(reason_of(result, judged))
        if judged.verdict.source:
            text.append(f"\n{judged.verdict.source}", style="dim")
        grid.add_row(Text(outcome, style=STYLES[outcome]), text)
    return Group(heading, grid)


def warnings_list(result: Result, model: str = "power", asked: bool = False) -> ConsoleRenderable | None:
    """Warnings about the exponents; None if there are none."""
    warnings = warnings_of(result, model, asked)
    if not warnings:
        return None
    texts = [f"{', '.join(curve.label for curve in curves)}: {by_axis(result, text)}" for curves, text in warnings]
    return Group(Text("Warnings", style="bold"), marked(texts))


def marked(texts: Sequence[str], style: str = "") -> ConsoleRenderable:
    """Sentences, each with a mark before it."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for text in texts:
        grid.add_row(Text("!", style="yellow"), Text(text, style=style))
    return grid


def notes_list(coverage: Coverage) -> ConsoleRenderable | None:
    """How much of its plan a sweep covers, and which chunks are damaged; None if all is complete and of one origin."""
    notes = notes_of(coverage)
    return marked(notes, "yellow") if notes else None


def print_notes(coverage: Coverage, console: Console) -> None:
    """Prints `notes_list` and an empty line; nothing if there are no notes."""
    notes = notes_list(coverage)
    if notes is not None:
        console.print(Padding(notes, (0, 0, 1, 0)), highlight=False)


def print_result(result: Result, console: Console, model: str = "power", asked: bool = False) -> None:
    """Prints the claim, the coverage of the records, the headline, rates, risks at the largest x, verdicts and warnings;
    exponents of all curves if they were `asked` for."""
    parts: list[ConsoleRenderable | None] = [Text(result.spec.claim, style="italic") if result.spec.claim else None]
    parts.append(notes_list(result.coverage))
    if result.records.empty:
        parts.append(Text("no records yet."))
    else:
        scattered = is_scattered(result) and not asked
        headline = " ".join(filter(None, ["" if scattered else headline_of(result), surface_sentence(result)]))
        parts.append(Text(headline) if headline else None)
        if not scattered:
            parts += [rates_table(result, model, asked), last_table(result)]
        parts.append(verdicts_list(result))
        # Runs that make no curves have no exponents along x to warn about.
        parts.append(None if scattered else warnings_list(result, model, asked))
    for part in parts:
        if part is not None:
            console.print(Padding(part, (0, 0, 1, 0)), highlight=False)


def print_verdicts(result: Result, console: Console, corrected: bool = False) -> None:
    """Prints the verdicts and the coverage of their records, for `tsjax verify`."""
    print_notes(result.coverage, console)
    console.print(verdicts_list(result, corrected), highlight=False)


def print_precision(result: Result, plans: Sequence[CurvePlan], precision: float, console: Console) -> None:
    """Prints how many seeds each curve of a pilot needs, and at which x, for `tsjax plan --precision`."""
    x = result.experiment.x
    print_notes(result.coverage, console)
    columns: list[tuple[str, list[str]]] = [
        ("curve", [one.curve.label for one in plans]),
        ("half-width now", ["–" if one.plan is None else digits(one.plan.half_width, 2) for one in plans]),
        (f"seeds at\nevery {x}", ["–" if one.plan is None else str(one.plan.seeds) for one in plans]),
        ("80 %\nassured", ["–" if one.plan is None else str(one.plan.assured_seeds) for one in plans]),
        ("time", ["–" if one.plan is None else duration(one.plan.equal_cost) for one in plans]),
        (f"with 2x the\nlargest {x}", ["–" if one.plan is None else str(one.plan.octave_seeds) for one in plans]),
        ("time", ["–" if one.plan is None else duration(one.plan.octave_cost) for one in plans]),
    ]
    console.print(compact_table(f"Seeds for exponents to +- {precision:g} (half of the 95 % interval)", columns))
    for one in plans:
        if one.plan is None:
            text = one.reason
        else:
            pairs = zip(one.plan.n, one.plan.allocation, strict=True)
            text = f"cheapest, {duration(one.plan.cost)}: " + ", ".join(
                f"{count} at {x} = {short(n)}" for n, count in pairs
            )
        console.print(Text(f"{one.curve.label}: {text}"), highlight=False)
