"""Text from elsewhere (claims, names, labels, paths, messages), made safe to show: without credentials and control
characters."""

import re
import textwrap
import unicodedata

# Control characters of terminals (ESC, BEL, CR and others), Unicode's bidirectional controls, which change the direction of
# text, and surrogates, which no encoding can write. Line ends and tabs stay.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ASCII = {
    "–": "-",
    "—": "-",
    "…": "...",
    "→": "->",
    "±": "+-",
    "∞": "inf",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "²": "^2",
    "σ": "sigma",
}


def escaped(text: str) -> str:
    r"""Control characters as backslash escapes.

    >>> from tsjax.report.text import escaped
    >>> escaped("\x1b[31mred\u202e")
    '\\x1b[31mred\\u202e'
    """
    return STEERING.sub(lambda found: _escape(found[0]), text)


def shown(text: str) -> str:
    """The text as page, terminal and messages show it: credentials in URLs hidden, control characters escaped."""
    if "://" in text:
        # Loaded on use, so that help is instant.
        from ..sweep.values import redacted

        text = redacted(text)
    return escaped(text)


def wrapped(text: str, width: int) -> str:
    """Lines of at most `width` characters, if words allow it; code, and a letter with its value, are not broken."""
    kept = re.sub(r"`[^`]*`|\w+ = [^\s,]+", lambda words: words[0].replace(" ", "\0"), text)
    return textwrap.fill(kept, width, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def encodable(letter: str, encoding: str) -> str:
    """The character, or plainer ones with the same meaning if this encoding does not have it."""
    try:
        letter.encode(encoding)
        return letter
    except UnicodeEncodeError:
        # A letter without its accent is better than an escape.
        plain = _ASCII.get(letter) or unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        return plain or _escape(letter)
    except LookupError:
        return letter


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
