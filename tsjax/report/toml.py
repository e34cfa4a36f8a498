"""A sweep's specification written as the TOML file that `tsjax run` reads."""

import json
from typing import Any

from ..sweep.spec import SweepSpec
from .text import STEERING


def spec_toml(spec: SweepSpec) -> str:
    """The spec as a sweep file; reading that file gives an equal spec."""
    content = spec.model_dump(mode="json", exclude_defaults=True)
    lines = [f"{name} = {_value(content.pop(name))}" for name in ("claim", "source", "study", "key") if name in content]
    for name in ("problem", "grid", "smoke", "expect"):
        table = content.get(name, [])
        blocks = table if isinstance(table, list) else [table]
        # A single grid is written as most people write it.
        heading = f"[[{name}]]" if name == "expect" or len(blocks) > 1 else f"[{name}]"
        for block in blocks:
            pairs = [f"{_key(key)} = {_value(value)}" for key, value in block.items() if value is not None]
            lines += ["", heading, *pairs]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if name and name.isascii() and name.replace("_", "").replace("-", "").isalnum() else _text(name)


def _text(text: str) -> str:
    # JSON's escapes are TOML's; what JSON leaves as it is and a page must not show as it is, TOML knows by number too.
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    if isinstance(value, dict):
        entries = ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items() if entry is not None)
        return "{ " + entries + " }" if entries else "{}"
    # Numbers and truth values; repr keeps every digit.
    return str(value).lower() if isinstance(value, bool) else repr(value)
