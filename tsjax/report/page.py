"""One self-contained HTML page about a sweep, with its figures beside it as files."""

import base64
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from ..rates import Verdict
from ..sweep.result import Result
from .figures import image, rate_figure, ratio_figure
from .numbers import (
    LIMIT,
    compute_seconds,
    counts_of,
    decimals,
    digits,
    duration,
    exponent_with_interval,
    failed_of,
    label_of,
    last_point,
    mean_with_error,
    plural,
    ratio_with_interval,
    short,
    verdict_summary,
    warnings_of,
    x_is_returned,
)
from .toml import spec_toml


def write_report(result: Result, out: Path) -> Path:
    """Writes `report.html`, and `figures/NAME.png` and `.pdf`, into the directory `out`; returns the page's path.

    The page holds its pictures itself and asks the network for nothing. Each file is written under a temporary name and
    then renamed, so that a reader never sees half of one; the page comes last.

    **Raises:** OSError when `out` cannot be written; ValueError when there are no records.
    """
    if result.records.empty:
        raise ValueError("there are no records to report yet; run the sweep first.")
    figures = _figures(result)
    page = _render(result, figures)
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for figure in figures:
            for kind in ("png", "pdf"):
                _write(out / "figures" / f"{figure['name']}.{kind}", figure[kind])
        _write(out / "report.html", page.encode())
    except OSError as error:
        raise OSError(f"cannot write the report to {out}: {error.strerror or error}.") from error
    return out / "report.html"


def _write(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp's files are private; a report is not.
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _figures(result: Result) -> list[dict[str, Any]]:
    """Every figure with its name, caption, alternative text and bytes."""
    experiment, x = result.experiment, result.experiment.x
    seeds = sorted({len(curve.seeds) for curve in result.curves()})
    many = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    along = label_of(result, x)
    drawn = []
    for y in experiment.y:
        caption = f"Mean {label_of(result, y)} against {along}, over {many}, with 95 % intervals."
        if y == experiment.y[0] and not x_is_returned(result):
            caption += " Numbers in the legends are fitted exponents with 95 % intervals."
        drawn.append((f"{y}_in_{x}", caption, rate_figure(result, y)))
    ratio = ratio_figure(result)
    if ratio is not None:
        name = label_of(result, LIMIT)
        caption = f"Mean {label_of(result, experiment.y[0])} in units of the {name} (dotted), with 95 % intervals."
        drawn.append((f"{experiment.y[0]}_relative_to_limit", caption, ratio))
    labels = ", ".join(dict.fromkeys(curve.label for curve in result.curves()))
    return [
        {
            "name": name,
            "caption": caption,
            "alt": f"{caption} Curves: {labels}.",
            "png": image(figure, "png"),
            "pdf": image(figure, "pdf"),
        }
        for name, caption, figure in drawn
    ]


def _render(result: Result, figures: Sequence[dict[str, Any]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdicts = result.verdicts()
    outcomes = [str(verdict.outcome) for verdict in verdicts]
    spec = result.spec
    return environment.get_template("page.html").render(
        title=spec.claim or f"Sweep of {result.experiment.name}",
        source=spec.source,
        summary=verdict_summary(outcomes),
        overall=next((name for name in ("fails", "undecided", "holds") if name in outcomes), "none"),
        size=_size(result),
        figures=[
            {"data": base64.b64encode(figure["png"]).decode(), "alt": figure["alt"], "caption": figure["caption"]}
            for figure in figures
        ],
        verdicts=[_verdict(verdict) for verdict in verdicts],
        tables=[table for table in (_rates(result), _last(result), _cells(result)) if table is not None],
        warnings=[(curve.label, text) for curve, text in warnings_of(result)],
        provenance=_provenance(result),
        reproduce=_reproduce(result),
        spec=spec_toml(spec),
    )


def _size(result: Result) -> str:
    run, compiling = compute_seconds(result)
    cells = len(set(result.records["cell"]))
    failed = sum(failed_of(result, curve) for curve in result.curves())
    text = f"{plural(cells, 'cell')} in {plural(len(result.curves()), 'curve')}, {failed} failed; "
    return text + f"{duration(run)} of running and {duration(compiling)} of compiling."


def _verdict(verdict: Verdict) -> dict[str, str]:
    return {
        "what": verdict.what,
        "outcome": verdict.outcome,
        "value": digits(verdict.value, 4),
        "reason": verdict.reason,
        "source": verdict.source,
    }


def _without_empty(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Columns that say something in at least one row."""
    keep = [i for i in range(len(columns)) if any(row[i] not in ("", "–") for row in rows)]
    return [columns[i] for i in keep], [[row[i] for i in keep] for row in rows]


def _rates(result: Result) -> dict[str, Any] | None:
    rates = result.rates()
    if bool(np.isnan(rates["exponent"].to_numpy(float)).all()):
        return None
    x = result.experiment.x
    columns = ("curve", "exponent [95 %]", "theory", f"{x} → ∞", "window", "seeds", "failed", "verdict")
    rows = [
        (
            curve.label,
            exponent_with_interval(row["exponent"], row["low"], row["high"]),
            decimals(row["predicted"]),
            decimals(row["asymptote"]),
            f"{x} = {short(row['x_min'])}..{short(row['x_max'])}",
            str(row["seeds"]),
            str(failed_of(result, curve)),
            row["verdict"],
        )
        for curve, row in zip(result.curves(), rates.to_dict("records"), strict=True)
    ]
    kept, rows = _without_empty(columns, rows)
    notes = [f"Exponents a in {result.experiment.y[0]} ~ {x}^(-a), fitted to the means over seeds."]
    if "theory" in kept:
        notes.append("Theory is the exponent of the predicted curve over the same window.")
    if f"{x} → ∞" in kept:
        notes.append(f"{x} → ∞ is theory's exponent in the limit.")
    return {
        "title": f"Rates of {label_of(result, result.experiment.y[0])}",
        "columns": kept,
        "rows": rows,
        "note": " ".join(notes),
    }


def _last(result: Result) -> dict[str, Any]:
    x, points = result.experiment.x, [last_point(result, curve) for curve in result.curves()]
    same = len({point.x for point in points}) == 1
    columns = ("curve", x, "mean ± s.e.", "median", "seeds", "mean / Cramér-Rao limit", "mean / optimal linear")
    rows = [
        (
            point.curve.label,
            "" if same else short(point.x),
            mean_with_error(point.mean, point.se),
            digits(point.median),
            str(point.seeds),
            ratio_with_interval(point.to_limit),
            ratio_with_interval(point.to_linear),
        )
        for point in points
    ]
    kept, rows = _without_empty(columns, rows)
    where = f"{x} = {short(points[0].x)}" if same else f"the largest {x}"
    title = f"{label_of(result, result.experiment.y[0])} at {where}"
    note = "Ratios with 95 % intervals." if any(name.startswith("mean /") for name in kept) else ""
    return {"title": title[:1].upper() + title[1:], "columns": kept, "rows": rows, "note": note}


def _cells(result: Result) -> dict[str, Any]:
    """How the cells of every curve ended."""
    counts = [counts_of(result, curve) for curve in result.curves()]
    names = list(dict.fromkeys(name for count in counts for name in count))
    rows = [
        [curve.label, str(sum(count.values())), *(str(count.get(name, 0)) for name in names)]
        for curve, count in zip(result.curves(), counts, strict=True)
    ]
    note = "Cells that diverged or were singular are counted, and are in no mean."
    return {"title": "How the cells ended", "columns": ["curve", "cells", *names], "rows": rows, "note": note}


def _provenance(result: Result) -> list[tuple[str, str]]:
    run, compiling = compute_seconds(result)
    records, recorded = result.records, result.provenance
    entries = [("study", result.spec.study), ("root key", str(result.spec.key))]
    if "device" in records:
        devices = Counter(records.drop_duplicates("cell")["device"])
        counted = [f"{name} ({plural(count, 'cell')})" for name, count in devices.items()]
        entries.append(("ran on", ", ".join(counted)))
    if recorded.get("devices"):
        entries.append(("devices of the last run", ", ".join(recorded["devices"])))
    entries.append(("computing", f"{duration(run)} running, {duration(compiling)} compiling"))
    versions = [f"{name} {number}" for name, number in recorded.get("versions", {}).items()]
    if recorded.get("python"):
        versions.append(f"python {recorded['python']}")
    if versions:
        entries.append(("versions", ", ".join(versions)))
    if result.path is not None:
        entries.append(("records", str(result.path)))
    return entries


def _reproduce(result: Result) -> dict[str, str]:
    commands = "tsjax run sweep.toml --out runs/again"
    if result.spec.expect:
        commands += "\ntsjax verify runs/again"
    text = "Save this specification as sweep.toml and run it; equal keys give equal data and teachers."
    if ":" in result.spec.study:
        text += f" The study is not part of tsjax: {result.spec.study.split(':')[0]} must be importable."
    return {"text": text, "commands": commands}
