"""The table of rates as LaTeX (booktabs) or Markdown, for a paper."""

import html
import re
from dataclasses import replace

import numpy as np

from ..display import card, grid
from ..sweep.coverage import Coverage
from ..sweep.result import Result
from .numbers import (
    decimals,
    errors_note,
    exponents_of,
    failed_of,
    label_of,
    last_point,
    mean_with_error,
    notes_of,
    plural,
    ratio_with_interval,
    short,
    summary_of,
)
from .text import shown

FORMATS = ("latex", "markdown")

# The most rows of a card in a notebook.
_ROWS = 20
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "±": r"$\pm$",
    "–": "--",
}


def publish_rates(result: Result, format: str = "latex", model: str = "power") -> str:
    """The table of rates, ready to paste, with a row for each curve: exponents with 95 % intervals beside theory, and the mean
    at the largest x with its standard error and its ratio to the Cramér-Rao limit. The caption states values that all rows
    share, and empty columns are left out. LaTeX needs the package booktabs. `model` as in `Result.rate`.

    **Raises:** ValueError for an unknown format, or if there are no records.
    """
    if format not in FORMATS:
        raise ValueError(f"format = {format!r}: no such format. Allowed: {', '.join(FORMATS)}.")
    if result.records.empty:
        raise ValueError("there are no records to tabulate yet; run the sweep first.")
    columns, caption = _content(result, model)
    caption = " ".join([caption, *standing(result.coverage)])
    rows = list(zip(*columns.values(), strict=True))
    return _latex(list(columns), rows, caption) if format == "latex" else _markdown(list(columns), rows, caption)


def result_card(result: Result) -> str:
    """The HTML card of a result in a notebook: claim, verdicts and the first rows of its table."""
    where = "in memory" if result.path is None else shown(str(result.path))
    notes = notes_of(result.coverage)
    entries = {"records": f"{len(result.records)} in {plural(len(result.curves()), 'curve')}, {where}"}
    title = shown(result.spec.claim or f"Sweep of {result.experiment.name}")
    if result.records.empty:
        return card(title, entries, notes)
    if result.spec.expect:
        entries["verdict"] = summary_of(result)
    columns, caption = _content(result, "power")
    rows = list(zip(*columns.values(), strict=True))
    if len(rows) > _ROWS:
        notes.append(f"{len(rows) - _ROWS} more curves: see rates(), or report().")
    return card(title, entries, notes, f"{grid(list(columns), rows[:_ROWS])}<small>{html.escape(caption)}</small>")


def standing(coverage: Coverage) -> list[str]:
    """Sentences of a caption about the records: how many of the planned ones there are, and their origin."""
    lacking = coverage.done < coverage.cells or coverage.damaged
    partial = [f"These numbers stand on {coverage.sentence}"] if lacking else []
    return partial + notes_of(replace(coverage, cells=coverage.done, damaged=(), foreign=()))


def _content(result: Result, model: str) -> tuple[dict[str, list[str]], str]:
    rates, curves, x = result.rates(model), result.curves(), result.experiment.x
    y = label_of(result, result.experiment.y[0])
    points = [last_point(result, curve) for curve in curves]
    columns: dict[str, list[str]] = {
        "curve": [curve.label for curve in curves],
        "exponent [95 %]": exponents_of(rates),
        "model": list(rates["model"]),
        "theory": [decimals(value) for value in rates["predicted"]],
        "limit": [decimals(value) for value in rates["asymptote"]],
        "window": [f"{short(a)}–{short(b)}" for a, b in zip(rates["x_min"], rates["x_max"], strict=True)],
        f"mean at largest {x}": [mean_with_error(point.mean, point.se) for point in points],
        "/ Cramér-Rao limit": [ratio_with_interval(point.to_limit) for point in points],
        "seeds": [str(count) for count in rates["seeds"]],
        "failed": [str(failed_of(result, curve)) for curve in curves],
    }
    caption = f"Exponents a of mean {y}, proportional to {label_of(result, x)} to the power -a"
    if bool(np.isnan(rates["exponent"].to_numpy(float)).all()):
        del columns["exponent [95 %]"], columns["model"]
        caption = f"{y[:1].upper()}{y[1:]}"
    for name, words in (("window", f"over {x} = {{}}"), ("seeds", "{}"), ("model", "model {}")):
        if len(set(columns.get(name, ()))) == 1:
            value = columns.pop(name)[0]
            if (name, value) != ("model", "power"):
                caption += ", " + words.format(plural(int(value), "seed") if name == "seeds" else value)
    if set(columns["failed"]) == {"0"}:
        del columns["failed"]
    for name in [name for name, values in columns.items() if set(values) <= {"–", ""}]:
        del columns[name]
    caption += ". Brackets: 95 % intervals; ±: standard error."
    if "exponent [95 %]" in columns and errors_note(rates):
        note = errors_note(rates)
        caption += f" {note[0].upper()}{note[1:]}."
    if "theory" in columns:
        caption += " Theory: exponent of the predicted curve over the same window."
    if "limit" in columns:
        caption += " Limit: theory's exponent at infinity."
    return columns, caption


def _latex(headings: list[str], rows: list[tuple[str, ...]], caption: str) -> str:
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_latex_text(caption)}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        "    \\toprule",
        f"    {' & '.join(_latex_text(heading) for heading in headings)} \\\\",
        "    \\midrule",
        *(f"    {' & '.join([_latex_text(first), *map(_latex_number, others)])} \\\\" for first, *others in rows),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in shown(" ".join(text.split())))


def _latex_number(text: str) -> str:
    """Numbers, intervals and errors as mathematics; words, such as the name of a model, as text."""
    if not re.search(r"\d", text):
        return _latex_text(text)
    text = re.sub(r"e([+-]?)0*(\d+)", lambda m: rf" \times 10^{{{m[1].replace('+', '')}{m[2]}}}", text)
    for letter, command in (("±", r"\pm"), ("∞", r"\infty"), ("inf", r"\infty"), (" [", r"\;[")):
        text = text.replace(letter, command)
    return "--".join(f"${part}$" for part in text.split("–"))


def _markdown(headings: list[str], rows: list[tuple[str, ...]], caption: str) -> str:
    line = lambda cells: f"| {' | '.join(cells)} |"
    marks = [":--", *("--:" for _ in headings[1:])]
    table = [line(map(markdown_text, headings)), line(marks), *(line(map(markdown_text, row)) for row in rows)]
    return "\n".join([*table, "", markdown_text(caption)]) + "\n"


def markdown_text(text: str) -> str:
    # Brackets stay: an interval without an address after it is not a link.
    return re.sub(r"([\\`*_|<>~#&])", r"\\\1", shown(" ".join(text.split()))).replace("](", "]\\(")
