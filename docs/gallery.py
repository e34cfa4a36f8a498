"""Pictures and captions of README and gallery, and the results of papers, from stores of the sweeps that ship.

    uv run python docs/gallery.py runs     # runs/superiority, runs/quickstart, ...: those that are there

writes docs/gallery/NAME.svg, .csv (the values in the picture) and .md (the caption) as `tsjax figure` does, and NAME.claims.md
for the sweeps that reproduce a paper. Then it writes the pages docs/gallery.md and docs/studies/index.md, and the first picture
of the README. Without a folder it writes only these last three.
"""

import re
import sys
from pathlib import Path

from tsjax.cli.specs import papers
from tsjax.report.captioned import write_captioned
from tsjax.report.claims import claims_markdown
from tsjax.report.text import wrapped
from tsjax.sweep.loading import load
from tsjax.sweep.plan import plan_cells
from tsjax.sweep.result import Result
from tsjax.sweep.spec import SweepSpec, find_experiment, load_spec

ROOT = Path(__file__).parent.parent
GALLERY, STUDIES = ROOT / "docs/gallery", ROOT / "docs/studies"
# The page begins with these; the others follow in alphabetical order.
_FIRST = (
    "superiority",
    "quickstart",
    "recovery",
    "hard_teachers",
    "unknown_width",
    "why_noise",
    "paper_figure",
    "diabetes",
)
_START, _END = "<!-- Written by docs/gallery.py: figure -->", "<!-- end of figure -->"
_INTRODUCTION = """# Gallery

A picture of each sweep that ships. Picture, caption and table of values are computed from one store, by `tsjax figure`. The
whole of a sweep, with all its figures, is on the page that `tsjax run NAME` writes. [What was measured](science/measured.md)
sums up the results.
"""
_RESULTS = """# Papers reproduced

`tsjax reproduce 2205.14818` runs the sweeps of one paper and prints the tables below: each claim, the published value, the
allowed range, our value with its 95 % interval, and the verdict. A claim holds if the whole interval lies in the allowed range,
fails if all of it lies outside, and is undecided otherwise. The allowed ranges, which the pages of the studies call bars, were
set before the sweeps ran: from the paper, from theory, or from pilot runs at other seeds. Minutes are for two CPU cores. The
page of each study says what the paper claims, and where our study differs from it.
"""


def names() -> list[str]:
    """Every sweep that ships, in the order of the page."""
    return [*_FIRST, *sorted({path.stem for path in (ROOT / "sweeps").glob("*.toml")} - set(_FIRST))]


def draw(name: str, store: Path) -> None:
    """Picture, table and caption of one sweep."""
    result, spec = load(store), load_spec(ROOT / f"sweeps/{name}.toml")
    picture, _, caption = write_captioned(result, GALLERY / f"{name}.svg", spec.figure or None)
    picture.write_text(_twice_as_large(picture.read_text()))
    caption.write_text(f"{wrapped(f'{caption.read_text().strip()} {_origin(name, result)}', 128)}\n")
    if spec.reproduces:
        (GALLERY / f"{name}.claims.md").write_text(claims_markdown(result))


def _twice_as_large(svg: str) -> str:
    """The picture at twice its size, since a page in a browser is wider than one on paper."""
    doubled = lambda size: f'{size[1]}="{2 * float(size[2]):.0f}"'
    return re.sub(r'\b(width|height)="([\d.]+)pt"', doubled, svg, count=2)


def _origin(name: str, result: Result) -> str:
    """The command, and the number of cells that were run if these are not all."""
    spec = load_spec(ROOT / f"sweeps/{name}.toml")
    cells = plan_cells(spec, find_experiment(spec.study)).cells
    if (result.spec.claim, result.spec.problem) != (spec.claim, spec.problem):
        raise SystemExit(f"{result.path} is of another sweep than sweeps/{name}.toml.")
    done = result.coverage.done
    return f"From `tsjax run {name}`{'' if done == cells else f', with {done} of its {cells} cells'}."


def figure(name: str, folder: str) -> str:
    """A picture that links to itself at full size, and its caption, in Markdown; `folder` holds the picture."""
    caption = (GALLERY / f"{name}.md").read_text()
    alternative = re.search(r"\*\* (.*?)(?:, (?:over|with) |\. )", " ".join(caption.split()))
    picture = f"{folder}/{name}.svg"
    return f"[![{alternative[1] if alternative else name}]({picture})]({picture})\n\n{caption}"


def page() -> str:
    """The text of docs/gallery.md."""
    sections = [
        f"## {name}\n\n{figure(name, 'gallery')}\n[The values in the picture](gallery/{name}.csv)\n"
        for name in names()
        if (GALLERY / f"{name}.md").is_file()
    ]
    return "\n".join([_INTRODUCTION, *sections])


def _page_of(name: str, spec: SweepSpec) -> str:
    """The page of a sweep's study, or the page that shows how to run the sweep, or else its section in the gallery."""
    command = re.compile(rf"^tsjax run {name}\b", re.MULTILINE)
    module = spec.study.partition(":")[0].rpartition(".")[2]
    pages = [page for page in (STUDIES / f"{module}.md",) if page.is_file()]
    pages += [page for page in sorted(STUDIES.glob("*.md")) if command.search(page.read_text())]
    return pages[0].name if pages else f"../gallery.md#{name}"


def results() -> str:
    """The text of docs/studies/index.md: every claim of every paper that is reproduced."""
    rows, sections = [], []
    for number, specs in papers().items():
        source = next(iter(specs.values())).source.replace(
            f"arXiv:{number}", f"[arXiv:{number}](https://arxiv.org/abs/{number})"
        )
        sections.append(f"## {number}\n\n{source}.\n")
        for name, spec in specs.items():
            claims = GALLERY / f"{name}.claims.md"
            if not claims.is_file():
                continue
            table = claims.read_text()
            outcomes = [line.split("|")[-2].strip() for line in table.splitlines()[2:]]
            counts = [str(outcomes.count(outcome)) for outcome in ("holds", "undecided", "fails")]
            minutes = "" if spec.minutes is None else f"{spec.minutes:g}"
            link = f"[{name}]({_page_of(name, spec)})"
            rows.append(f"| {number} | {link} | {' | '.join(counts)} | {minutes} |")
            sections.append(f"### {name}\n\n{spec.claim}\n\n{table}")
    head = "| paper | sweep | hold | undecided | fail | minutes |\n|---|---|---|---|---|---|"
    return "\n".join([_RESULTS, head, *rows, "", *sections])


def with_figure(readme: str) -> str:
    """The README with its current picture and caption."""
    before, rest = readme.split(_START)
    return f"{before}{_START}\n{figure('superiority', 'docs/gallery')}{_END}{rest.split(_END)[1]}"


def main(stores: Path | None) -> None:
    for name in names():
        if stores is not None and list((stores / name / "chunks").glob("*.parquet")):
            print(name, flush=True)
            draw(name, stores / name)
    (ROOT / "docs/gallery.md").write_text(page())
    (STUDIES / "index.md").write_text(results())
    readme = ROOT / "README.md"
    readme.write_text(with_figure(readme.read_text()))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
