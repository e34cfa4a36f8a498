"""How to repeat and cite a sweep: its specification as the TOML file that `tsjax run` reads, and the citation of its study."""

import re
from typing import Any

import tomlkit

from ..sweep.spec import SweepSpec
from .text import STEERING

_ARXIV = re.compile(r"^arXiv:\s*(\S+)$", re.IGNORECASE)


def spec_toml(spec: SweepSpec) -> str:
    """The spec as a sweep file; reading that file gives an equal spec."""
    names = {"claim", "source", "study", "key", "problem", "grid", "smoke", "expect", "surface"}
    content = spec.model_dump(mode="json", exclude_defaults=True, include=names)
    # A single grid is written as one table, as most people write it.
    content["grid"] = content["grid"][0] if len(content["grid"]) == 1 else content["grid"]
    return _dumps(content)


def claims_toml(spec: SweepSpec, labels: dict[str, str]) -> str:
    """The claim, its source, the expectations, the surface and the labels, as the file that `tsjax page --claims` reads."""
    content = spec.model_dump(mode="json", exclude_defaults=True, include={"claim", "source", "expect", "surface"})
    return _dumps(content | ({"labels": labels} if labels else {}))


def _dumps(content: dict[str, Any]) -> str:
    blocks = {name: _block(value) for name, value in content.items()}
    # Control characters that a page must not show become TOML escapes.
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", tomlkit.dumps(blocks))


def _block(value: Any) -> Any:
    """A table, or a list of tables, with one line for each key; entries that are None are left out, since TOML has no null."""
    if isinstance(value, list):
        return [_block(one) for one in value]
    if isinstance(value, dict):
        return {name: _line(entry) for name, entry in value.items() if entry is not None}
    return value


def _line(value: Any) -> Any:
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        # TOML has no null; a grid from Python may, and the page shows it as a word.
        array.extend("None" if one is None else _line(one) for one in value)
        return array
    if not isinstance(value, dict):
        return value
    table = tomlkit.inline_table()
    table.update({name: _line(entry) for name, entry in value.items() if entry is not None})
    return table


def citation(cite: str) -> str:
    """The form for a bibliography: a BibTeX entry as it is, one made from a bare arXiv number, and other text unchanged.

    >>> from tsjax.report.reproducing import citation
    >>> print(citation("arXiv:2205.14818"))
    @misc{arXiv:2205.14818,
      eprint        = {2205.14818},
      archivePrefix = {arXiv}
    }
    """
    found = _ARXIV.match(cite.strip())
    if found is None:
        return cite.strip()
    number = found[1]
    return f"@misc{{arXiv:{number},\n  eprint        = {{{number}}},\n  archivePrefix = {{arXiv}}\n}}"


def short_citation(cite: str) -> str:
    """The form for a line of text: the arXiv number, the DOI or the title of a BibTeX entry; other text as it is.

    >>> from tsjax.report.reproducing import short_citation
    >>> short_citation("@misc{x, title = {On {ReLU}}, eprint = {2205.14818}}"), short_citation("My report, 2026")
    ('arXiv:2205.14818', 'My report, 2026')
    """
    if not cite.lstrip().startswith("@"):
        return cite
    for field, form in (("eprint", "arXiv:{}"), ("doi", "doi:{}"), ("title", "{}")):
        found = re.search(rf"\b{field}\s*=\s*[{{\"]((?:[^{{}}\"]|{{[^{{}}]*}})*)[}}\"]", cite, re.IGNORECASE)
        if found:
            return form.format(" ".join(re.sub(r"[{}]", "", found[1]).split()))
    return ""
