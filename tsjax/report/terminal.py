"""All output to a terminal: in colour if the terminal has colours, and in ASCII if it supports nothing else."""

import os
from collections.abc import Iterable
from typing import Any

import rich.text
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.segment import Segment

from .text import encodable, shown


class Text:
    """Rich's text made safe before anything is laid out: text from a store cannot control the terminal, and characters that the
    stream cannot write become plain ones."""

    # Not a subclass, since Rich would join it with other texts into a text of its own class.
    def __init__(self, text: str = "", style: str = "", **options: Any):
        self._text = rich.text.Text(shown(text), style, **options)

    @property
    def plain(self) -> str:
        """The text without styles."""
        return self._text.plain

    def append(self, text: str, style: str | None = None) -> "Text":
        """Appends to this text, and returns it."""
        self._text.append(shown(text), style)
        return self

    def stylize(self, style: str) -> None:
        """Gives the whole text a style."""
        self._text.stylize(style)

    def _within(self, encoding: str) -> rich.text.Text:
        """This text in the characters of an encoding, with its styles in place."""
        copy, plain = self._text.copy(), self.plain
        if plain.isascii() or encoding.startswith("utf"):
            return copy
        letters = [encodable(letter, encoding) for letter in plain]
        starts = [0]
        for letter in letters:
            starts.append(starts[-1] + len(letter))
        spans = [
            span._replace(start=starts[span.start], end=starts[min(span.end, len(letters))]) for span in copy.spans
        ]
        copy.plain = "".join(letters)
        copy.spans = spans
        return copy

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        if options.ascii_only and (options.overflow or self._text.overflow) == "ellipsis":
            options = options.update(overflow="crop")
        yield from self._within(options.encoding).__rich_console__(console, options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return self._within(options.encoding).__rich_measure__(console, options)


class _Console(Console):
    @property
    def encoding(self) -> str:
        """The encoding of the stream; ASCII if the locale asks for it, although Python writes UTF-8 there."""
        return "ascii" if _asks_for_ascii() else super().encoding


def _asks_for_ascii() -> bool:
    """Whether the locale is C. Python then writes UTF-8 all the same, and sets LC_CTYPE accordingly (PEP 538)."""
    given = os.environ.get
    if given("PYTHONIOENCODING") or given("PYTHONUTF8"):
        return False
    plain = ("C", "POSIX")
    if given("LC_ALL"):
        return given("LC_ALL") in plain
    return given("LANG") in plain and (given("LC_CTYPE") or "C") in (*plain, "C.UTF-8")


def console(stderr: bool = False) -> Console:
    """A console for standard output, or standard error; every command prints to one of these."""
    return _Console(stderr=stderr)


def say(text: str, stderr: bool = False, style: str = "") -> None:
    """Prints a line, neither wrapped nor highlighted."""
    console(stderr).print(Text(text, style=style), soft_wrap=True, highlight=False)
