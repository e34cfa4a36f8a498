"""The citation of a study, a BibTeX entry or free text, in full and in short form."""

import re

_ARXIV = re.compile(r"^arXiv:\s*(\S+)$", re.IGNORECASE)


def citation(cite: str) -> str:
    """The form for a bibliography: a BibTeX entry as it is, one made from a bare arXiv number, and other text unchanged.

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
    """The form for a line of text: the arXiv number, the DOI or the title of a BibTeX entry; other text as it is.

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
