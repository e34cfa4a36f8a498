"""One self-contained, interactive HTML page about a sweep, with its figures as files beside it."""

import base64
import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup

from ..sweep.result import Result
from ..versions import version_of
from .figures import KINDS, image
from .grids import cells_grid, crossing_grid, last_grid, rates_grid
from .look import COLOURS, DARK_COLOURS
from .numbers import (
    by_axis,
    compute_seconds,
    duration,
    failed_of,
    full_name,
    is_recorded,
    label_of,
    notes_of,
    plural,
    prefixed,
    summary_of,
    warnings_of,
    x_is_returned,
)
from .output import OutputError, replaced
from .plates import figure_of, plates
from .reproducing import citation, claims_toml, short_citation, spec_toml
from .sections import (
    MOST_MAPS,
    Section,
    comparison_sections,
    curves_section,
    derived_sections,
    heat_section,
    local_section,
    pictures_section,
    recorded_sections,
    seeds_section,
)
from .sentences import (
    headline_of,
    is_scattered,
    reason_of,
    surface_sentence,
    surface_warnings,
    title_of,
    value_of,
)
from .surfaces import surface_section
from .text import shown

_VENDOR = Path(__file__).parent / "vendor"
# The part of Plotly with the traces that charts use, as its authors publish it (npm: plotly.js-cartesian-dist-min).
PLOTLY = _VENDOR / "plotly-cartesian.min.js"


def write_report(result: Result, out: Path, style: str = "page") -> Path:
    """Writes `report.html`, and `figures/NAME.png`, `.pdf` and `.svg`, into the directory `out`; returns the page's path.

    The page contains its data and the library that draws them (Plotly), and loads nothing from the network. Figures are as wide
    as a `column` or a `page` of text. Each file is written under a temporary name and then renamed, so that a reader never sees
    half of a file; the page is written last.

    **Raises:** OutputError if `out` cannot be written; ValueError if there are no records, or for an unknown style.
    """
    if result.records.empty:
        raise ValueError("there are no records to report yet; run the sweep first.")
    with matplotlib.rc_context():
        # Matplotlib has read a `matplotlibrc` in the current directory, which may be somebody else's store. With `text.usetex`
        # in it, Matplotlib would run LaTeX with a preamble from that file.
        matplotlib.rcdefaults()
        shown = plates(result, MOST_MAPS)
        figures = {name: figure_of(result, plate, style) for name, plate in shown.items()}
        for figure in figures.values():
            # Laid out once for the three files.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        images = {
            f"{file}.{kind}": image(figure, kind)
            for file, figure in zip(_file_names(figures), figures.values(), strict=True)
            for kind in KINDS
        }
    page = render(result)
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for name, content in images.items():
            _write(out / "figures" / name, content)
        _write(out / "report.html", page.encode())
    except OSError as error:
        raise OutputError(f"cannot write the report to {out}", error) from error
    return out / "report.html"


def _file_names(names: Iterable[str]) -> list[str]:
    """Names of files from names of drawings, which may hold any characters; names that would become the same file are
    numbered."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.-]", "_", name)
        count = sum(other == plain or other.startswith(f"{plain}-") for other in found)
        found.append(f"{plain}-{count + 1}" if count else plain)
    return found


def _write(path: Path, content: bytes) -> None:
    with replaced(path) as temporary:
        temporary.write_bytes(content)


def render(result: Result) -> str:
    """The page as text."""
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # Escapes all text from a store or a spec wherever the page shows it; Markup is text of the page itself.
        finalize=lambda value: shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    outcomes = [str(verdict.outcome) for verdict in result.verdicts()]
    spec = result.spec
    sections = _sections(result)
    library, script = PLOTLY.read_text(), (here / "page.js").read_text()
    return environment.get_template("page.html").render(
        title=spec.claim or f"Sweep of {result.experiment.name}",
        source=_source(spec.source, short_citation(result.experiment.cite)),
        summary=summary_of(result),
        overall=_overall(result, outcomes),
        notes=notes_of(result.coverage),
        headline=surface_sentence(result) if is_scattered(result) else headline_of(result),
        size=_size(result),
        verdicts=_verdicts(result, sections),
        main=sections[0],
        sections=sections[1:],
        warnings=[("surface", text) for text in surface_warnings(result)]
        + [
            (", ".join(full_name(result, curve) for curve in curves), by_axis(result, text))
            for curves, text in ([] if is_scattered(result) else warnings_of(result))
        ],
        provenance=_provenance(result),
        reproduce=_reproduce(result),
        spec=claims_toml(spec, result.experiment.labels) if is_recorded(result) else spec_toml(spec),
        cite=_cite(result),
        colours=list(zip(COLOURS, DARK_COLOURS, strict=True)),
        style=Markup((here / "page.css").read_text()),
        # Only these two scripts may run; the browser refuses any other.
        hashes=[base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (library, script)],
        library=Markup(library),
        script=Markup(script),
        data=Markup(_data(sections)),
    )


def _sections(result: Result) -> list[Section]:
    """The parts of the page with charts and tables, in its order."""
    surface = surface_section(result)
    if surface is not None and is_scattered(result):
        return [part for part in (surface, *recorded_sections(result), pictures_section(result)) if part is not None]
    first, *others = (curves_section(result, y) for y in result.experiment.y)
    parts: list[Section | None] = [first]
    for name, grid in (("rates", rates_grid(result)), ("last", last_grid(result))):
        if grid is not None:
            parts.append(Section(name, grid.title, grids=[grid]))
    parts += [surface, local_section(result), *derived_sections(result)]
    compared = comparison_sections(result)
    crossings = crossing_grid(result)
    if crossings is not None and compared and not x_is_returned(result):
        compared[-1].grids.append(crossings)
    # The share of successes has a place of its own.
    recorded = recorded_sections(result)
    taken = {f"curves-{section.id}" for section in recorded}
    parts += [*compared, *(section for section in others if section.id not in taken), seeds_section(result), *recorded]
    parts += [heat_section(result), pictures_section(result)]
    cells = cells_grid(result)
    parts.append(Section("cells", cells.title, grids=[cells]))
    return [part for part in parts if part is not None]


def _data(sections: list[Section]) -> str:
    """The charts as JSON in which no text can end the script element or break a line of it."""
    figures = {
        f"{section.id}-{place}": chart.figure.content()
        for section in sections
        for place, chart in enumerate(section.charts)
    }
    text = json.dumps(_shown(figures), separators=(",", ":"), ensure_ascii=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shown(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_shown(entry) for entry in value]
    return shown(value) if isinstance(value, str) else value


def _overall(result: Result, outcomes: list[str]) -> str:
    """The outcome that gives the page its colour: green only if the verdicts rest on all cells of the plan, and all are
    verified."""
    worst = next((name for name in ("fails", "undecided", "holds") if name in outcomes), "none")
    sure = result.coverage.whole and result.coverage.verified
    return "undecided" if worst == "holds" and not sure else worst


def _size(result: Result) -> str:
    cells = len(set(result.records["cell"]))
    failed = sum(failed_of(result, curve) for curve in result.curves())
    missing = result.coverage.cells - result.coverage.done
    text = f"{plural(cells, 'cell')} in {plural(len(result.curves()), 'curve')}, {failed} failed"
    text += f", {missing} of the plan missing" if missing else ""
    if is_recorded(result):
        return f"{text}."
    run, compiling = compute_seconds(result)
    return f"{text}; {duration(run)} of running and {duration(compiling)} of compiling."


def _verdicts(result: Result, sections: list[Section]) -> list[dict[str, Any]]:
    """The verdicts, those that do not hold first, each with its number and the charts that show its window and its allowed
    range."""
    shown: dict[int, list[str]] = {}
    for section in sections:
        for place, chart in enumerate(section.charts):
            for number in dict.fromkeys(trace.get("meta", {}).get("mark") for trace in chart.figure.data):
                if number is not None:
                    shown.setdefault(number, []).append(f"{section.id}-{place}")
    found = [
        {
            "number": number,
            "what": title_of(result, judged),
            "outcome": judged.verdict.outcome,
            "value": value_of(judged),
            "reason": reason_of(result, judged),
            "source": judged.verdict.source,
            "charts": shown.get(number, []),
        }
        for number, judged in enumerate(result.judged(), 1)
    ]
    return sorted(found, key=lambda entry: ("fails", "undecided", "holds").index(str(entry["outcome"])))


def _source(of_sweep: str, of_study: str) -> str:
    """The source of a sweep, and the citation of its study unless the source names it already."""
    return of_sweep if of_study in of_sweep else "; ".join(filter(None, [of_sweep, of_study]))


def _provenance(result: Result) -> list[tuple[str, str]]:
    records, recorded = result.records, result.provenance
    if is_recorded(result):
        entries = [
            ("runs", "made by other code, and read from a table"),
            ("table", recorded["table"]["path"] or "in memory"),
        ]
        entries += [(name, ", ".join(given)) for name, given in recorded["table"]["columns"].items() if given]
        entries.append(("read by", f"tsjax {recorded['versions']['tsjax']}"))
        return entries + ([] if result.path is None else [("records", str(result.path))])
    entries = [("study", result.spec.study), ("root key", str(result.spec.key))]
    entries.append(("records of", result.coverage.sentence))
    if "device" in records:
        devices = Counter(records.drop_duplicates("cell")["device"])
        counted = [f"{name} ({plural(count, 'cell')})" for name, count in devices.items()]
        entries.append(("ran on", ", ".join(counted)))
    if recorded.get("devices"):
        entries.append(("devices of the last run", ", ".join(recorded["devices"])))
    run, compiling = compute_seconds(result)
    cost = f"{duration(run)} running, {duration(compiling)} compiling"
    work = result.experiment.work
    if work is not None and work in records:
        done = float(np.nansum(records.drop_duplicates("cell")[work].to_numpy(float)))
        cost += f"; {prefixed(done)} {label_of(result, work).replace('_', ' ')}"
    entries.append(("cost", cost))
    versions = [f"{name} {number}" for name, number in recorded.get("versions", {}).items()]
    if recorded.get("python"):
        versions.append(f"python {recorded['python']}")
    if versions:
        entries.append(("versions", ", ".join(versions)))
    if result.path is not None:
        entries.append(("records", str(result.path)))
    return entries


def _reproduce(result: Result) -> dict[str, str]:
    if is_recorded(result):
        text = "The table holds the runs; this command reads it again."
        if _has_claims(result):
            text += " Save the claims below as claims.toml."
        return {"text": text, "commands": _page_command(result)}
    commands = "tsjax run sweep.toml --out runs/again"
    if result.spec.expect:
        commands += "\ntsjax verify runs/again"
    text = "Save this specification as sweep.toml and run it; equal keys give equal data and teachers."
    if ":" in result.spec.study:
        text += f" The study is not part of tsjax: {result.spec.study.split(':')[0]} must be importable."
    return {"text": text, "commands": commands}


def _has_claims(result: Result) -> bool:
    spec = result.spec
    return bool(spec.claim or spec.source or spec.expect or spec.surface or result.experiment.labels)


def _page_command(result: Result) -> str:
    """The command that makes the page of a table, with TABLE for a table that was in memory."""
    table = result.provenance["table"]
    words = [word for name, given in table["columns"].items() for one in given for word in (f"--{name}", one)]
    claims = ["--claims", "claims.toml"] if _has_claims(result) else []
    return shlex.join(["tsjax", "page", table["path"] or "TABLE", *words, *claims])


def _cite(result: Result) -> list[str]:
    """The entries to cite: those of the study and of the software."""
    return [entry for entry in (citation(result.experiment.cite), _software()) if entry]


def _software() -> str:
    return f"""@software{{tsjax,
  title   = {{tsjax: measured convergence rates of students and kernels}},
  author  = {{{{The tsjax developers}}}},
  version = {{{version_of("tsjax")}}},
  license = {{Apache-2.0}}
}}"""
