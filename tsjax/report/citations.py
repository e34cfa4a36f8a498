"""What a study says to cite, a BibTeX entry or some words, in the forms that a page has room for."""

import re

_ARXIV = re.compile(r"^arXiv:\s*(\S+)$", re.IGNORECASE)


def citation(cite: str) -> str:
    """As it is put into a bibliography: BibTeX where it is that, or the bare number of an arXiv paper; else the words.

    >>> from tsjax.report.citations import citation
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
    """As it stands in a line: of a BibTeX entry the number on arXiv, the DOI or the title; other words as they are.

    >>> from tsjax.report.citations import short_citation
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
