"""Suggestions for an unknown name."""

import difflib
from collections.abc import Sequence


def nearest(name: str, allowed: Sequence[str]) -> str:
    """' Did you mean ...?' with the closest allowed name, or a list of all allowed names if none is close."""
    folded = {one.lower(): one for one in reversed(allowed)}
    match = difflib.get_close_matches(name.lower(), folded, n=1)
    return f" Did you mean {folded[match[0]]!r}?" if match else f" Allowed: {', '.join(allowed)}."
