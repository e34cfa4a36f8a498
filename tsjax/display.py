"""Small HTML cards for notebooks, from which problems, fits, rates and results make their `_repr_html_`."""

import html
from collections.abc import Mapping, Sequence

# No colours of text or background, so that the card stays readable in every theme of a notebook.
_CARD = "display:inline-block;max-width:100%;overflow-x:auto;border:1px solid #8886;border-radius:6px;padding:.5em .9em"
_LINE = "text-align:left;padding:.1em .9em .1em 0;vertical-align:top;background:none"


def card(title: str, entries: Mapping[str, str], notes: Sequence[str] = (), more: str = "") -> str:
    """A card: a title, names with values, notes below, and `more`, which is inserted as HTML; all other text is escaped."""
    rows = "".join(
        f'<tr style="background:none"><th style="{_LINE};font-weight:normal;opacity:.7">{html.escape(name)}</th>'
        f'<td style="{_LINE}">{html.escape(value)}</td></tr>'
        for name, value in entries.items()
    )
    warnings = "".join(f'<div style="opacity:.8">! {html.escape(note)}</div>' for note in notes)
    body = f'<table style="margin:.3em 0;font-size:inherit">{rows}</table>' if rows else ""
    return f'<div style="{_CARD}"><b>{html.escape(title)}</b>{body}{more}{warnings}</div>'


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text with headings; the first column is aligned left, the others right."""
    sides = ["left", *("right" for _ in columns[1:])]
    cells = lambda tag, row: "".join(
        f'<{tag} style="text-align:{side};padding:.1em .7em .1em 0;white-space:nowrap">{html.escape(cell)}</{tag}>'
        for side, cell in zip(sides, row, strict=True)
    )
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{cells('th', columns)}</tr></thead>"
    return f'<table style="margin:.3em 0;font-size:inherit">{head}<tbody>{body}</tbody></table>'
