"""What the site needs beside its pages: formulas as MathML, notebooks with the outputs that they keep, files from elsewhere."""

import re
from html import unescape
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
_REMOTE = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]+)"')
_BAR = '<mo stretchy="false" lspace="0" rspace="0">|</mo>'
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_config(config):
    """Adds the pages of studies below that of their results, in the order of their titles, so that a study is one page more."""
    folder = ROOT / "docs/studies"
    titles = {path.read_text().split("\n")[0].removeprefix("# "): path for path in folder.glob("*.md")}
    pages = [{title: f"studies/{path.name}"} for title, path in sorted(titles.items()) if path.stem != "index"]
    for entry in config["nav"]:
        if isinstance(entry, dict) and "Papers reproduced" in entry:
            entry["Papers reproduced"] = [*entry["Papers reproduced"], *pages]
    return config


def on_files(files, config):
    """Adds every notebook as a page, with the outputs that it keeps: `docs/execute.py` makes them."""
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        page, figures = exported(path.read_text(), path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        for name, content in figures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def exported(source: str, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its figures by name."""
    notebook = nbformat.reads(source, as_version=4)
    page, resources = MarkdownExporter().from_notebook_node(notebook, resources={"unique_key": name})
    return page, resources["outputs"]


def on_page_markdown(markdown, page, config, files):
    """Puts the benchmarks' figures, which live in one file, below the headings of the page that shows them."""
    del page, config, files
    results = lambda: re.sub(r"(?m)^#", "###", (ROOT / "benchmarks/RESULTS.md").read_text())
    return markdown.replace("{{ RESULTS }}", results()) if "{{ RESULTS }}" in markdown else markdown


def on_page_content(html, page, config, files):
    """Formulas as MathML, which browsers render without a script."""
    del page, config, files
    return _FORMULA.sub(_mathml, html)


def on_post_page(output, page, config):
    """**Raises:** PluginError for a page that would load something from the network."""
    del config
    remote = _REMOTE.search(output)
    if remote:
        raise PluginError(f"{page.file.src_uri} loads {remote[1]} from the network.")
    return output


def _mathml(match: re.Match) -> str:
    display = "block" if match[1] == "div" else "inline"
    # Bars are fences here, without the space of an operator.
    formula = convert(unescape(match[2]), display=display).replace('<mo stretchy="false">&#x0007C;</mo>', _BAR)
    # Wide ones scroll on a narrow screen.
    return f'<div class="formula">{formula}</div>' if display == "block" else formula
