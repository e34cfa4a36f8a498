"""What the site needs beside its pages: formulas as MathML, notebooks with their outputs, files from elsewhere here."""

import functools
import re
from html import unescape
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from mkdocs.structure.files import File
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_files(files, config):
    """Adds the figure of the README, and every notebook as a page, executed."""
    figure = ROOT / "sweeps/superiority.png"
    files.append(File.generated(config, "superiority.png", abs_src_path=str(figure)))
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        page, outputs = executed(path.read_text())
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        for name, content in outputs.items():
            files.append(File.generated(config, f"notebooks/{path.stem}_{name}", content=content))
    return files


@functools.cache
def executed(source: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its figures by name. An error in a cell is an error of the build."""
    notebook = nbformat.reads(source, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    page, resources = MarkdownExporter().from_notebook_node(notebook)
    return page, resources["outputs"]


def on_page_markdown(markdown, page, config, files):
    """Puts the benchmarks' figures, which live in one file, below the headings of the page that shows them."""
    del page, config, files
    results = lambda: re.sub(r"(?m)^#", "##", (ROOT / "benchmarks/RESULTS.md").read_text())
    return markdown.replace("{{ RESULTS }}", results()) if "{{ RESULTS }}" in markdown else markdown


def on_page_content(html, page, config, files):
    """Formulas as MathML, which browsers render without a script."""
    del page, config, files
    block = lambda match: convert(unescape(match[2]), display="block" if match[1] == "div" else "inline")
    return _FORMULA.sub(block, html)
