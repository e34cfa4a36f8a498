"""Prepares tsjax's docstrings for the site: plain formulas, doctest examples, fields of a module as its signature."""

import re
from pathlib import Path

import griffe

# Docstrings may link to these names, which have an entry in the reference.
_PAGES = Path(__file__).parent / "api"
ENTRIES = {name for page in _PAGES.glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)}


class Docstrings(griffe.Extension):
    """Called by griffe for every object that it loads."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        del kwargs
        if obj.docstring is not None:
            text = as_markdown(obj.docstring.value)
            module = obj.module.path
            if module in ENTRIES and obj.path != module:
                text = re.sub(r"\bmodule docstring\b", f"[module docstring][{module}]", text)
            obj.docstring.value = text

    def on_class(self, *, cls: griffe.Class, **kwargs) -> None:
        """An `eqx.Module` is a dataclass: its fields are the arguments of its constructor."""
        del kwargs
        fields = [member for member in cls.members.values() if _is_field(member)]
        if not fields or "__init__" in cls.members or "dataclass" in cls.labels:
            return
        arguments = [
            griffe.Parameter(field.name, annotation=field.annotation, default=_default(field), kind=_KIND)
            for field in fields
            if "init=False" not in str(field.value or "")
        ]
        init = griffe.Function("__init__", parameters=griffe.Parameters(griffe.Parameter("self"), *arguments))
        cls.set_member("__init__", init)


_KIND = griffe.ParameterKind.positional_or_keyword


def _is_field(member) -> bool:
    if not isinstance(member, griffe.Attribute) or member.annotation is None:
        return False
    return not re.match(r"(typing\.)?ClassVar|eqx\.AbstractVar", str(member.annotation))


def _default(field: griffe.Attribute):
    """The default of a field, also if it is written as `eqx.field(..., default=...)`."""
    if not str(field.value or "").startswith(("eqx.field(", "field(")):
        return field.value
    given = [part for part in getattr(field.value, "arguments", []) if getattr(part, "name", "") == "default"]
    return given[0].value if given else None


def as_markdown(text: str) -> str:
    """Escapes the characters that Markdown would read as HTML or emphasis, and fences examples; code is unchanged."""
    lines, fenced = [], False
    for line in text.split("\n"):
        example = line.lstrip().startswith((">>>", "..."))
        if example and not fenced:
            lines += [*([""] if lines and lines[-1] else []), "```pycon"]
            fenced = True
        elif fenced and not line.strip():
            lines.append("```")
            fenced = False
        lines.append(line if fenced or line.startswith("    ") else _escaped(line))
    return "\n".join([*lines, "```"] if fenced else lines)


def _escaped(line: str) -> str:
    # Every second part was between backticks.
    parts = line.split("`")
    parts[::2] = [re.sub(r"(?<!\*)\*(?!\*)", r"\\*", part).replace("<", "&lt;") for part in parts[::2]]
    parts[1::2] = [f"[`{part}`][{part}]" if part in ENTRIES else f"`{part}`" for part in parts[1::2]]
    return "".join(parts)
