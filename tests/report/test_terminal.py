"""What is printed: no text of others steers the terminal, no secret is shown, and an ASCII stream gets ASCII."""

import io
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from tsjax.report.page import render
from tsjax.report.reproducing import spec_toml
from tsjax.report.tables import print_result
from tsjax.report.terminal import Text, console
from tsjax.report.text import shown
from tsjax.sweep.spec import parse_spec

_RANGES = (range(0, 9), range(11, 32), range(0x7F, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A))
STEERING = [chr(code) for codes in _RANGES for code in codes]


@pytest.mark.parametrize("letter", STEERING)
def test_control_characters_are_shown_escaped(letter):
    for text in (Text(f"a{letter}b"), Text("a").append(f"{letter}b")):
        assert letter not in text.plain and f"{ord(letter):02x}" in text.plain
        out = io.StringIO()
        Console(file=out, width=40).print(text)
        assert out.getvalue().strip() == text.plain
    assert shown("line\nand\ttab ±é→") == "line\nand\ttab ±é→"


def test_credentials_are_not_shown():
    text = shown("s3://key:secret@bucket/x?sig=abc and https://a.b/c?token=12#d")
    assert "secret" not in text and "abc" not in text and "12" not in text and "s3://***@bucket/x?sig=***" in text
    assert "secret" not in Text("at ").append("s3://key:secret@b").plain


EVIL = "\x1b[2J\x1b]0;owned\x07\rall well \u202edlrow s3://key:secret@bucket"


@pytest.fixture(scope="module")
def evil_result(make_toy):
    return make_toy(claim=EVIL, source=EVIL, expect=[{"what": "rate of student in n", "at_least": 0.0, "source": EVIL}])


def _clean(text):
    return not [letter for letter in STEERING if letter in text] and "secret" not in text


def test_a_claim_cannot_steer_the_terminal(evil_result):
    out = io.StringIO()
    print_result(evil_result, Console(file=out, width=80, force_terminal=False))
    assert _clean(out.getvalue()) and "\\x1b[2J" in out.getvalue() and "\\u202e" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_nor_the_page(evil_result):
    page = render(evil_result)
    start = page.index('<script type="text/plain" id="library">')
    head, tail = page[:start], page[page.index("</script>", start) :]
    assert _clean(head) and _clean(tail) and "\\x1b[2J" in head
    for table in (evil_result.table("latex"), evil_result.table("markdown"), evil_result._repr_html_()):
        assert _clean(table)


def test_a_spec_on_the_page_reads_back_as_it_was():
    import tomllib

    spec = parse_spec({"study": "x:y", "claim": f"{EVIL}\x7f\x85 ±", "grid": {"n": [1], "seeds": 1}})
    text = spec_toml(spec)
    assert _clean(text.replace("secret", "")) and tomllib.loads(text)["claim"] == spec.claim


def test_an_error_cannot_steer_the_terminal(tsjax):
    code, _, err = tsjax("status", "no\x1b[31mwhere\x07\u202e")
    assert code == 2 and _clean(err) and "no\\x1b[31mwhere\\x07\\u202e" in err
    code, _, err = tsjax("status", "file://key:secret@bucket/x?sig=abc")
    assert code == 2 and "secret" not in err and "abc" not in err


def _ascii(encoding="ascii"):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
    return raw, Console(file=stream, width=60)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_plain_characters_where_the_stream_has_no_others(toy_result, encoding):
    raw, out = _ascii(encoding)
    print_result(toy_result, out)
    text = raw.getvalue().decode(encoding)
    assert "---" in text and "theory's exponent" in text and max(map(len, text.splitlines())) <= 60
    assert ("+-" in text and "Cramer" in text) if encoding == "ascii" else ("±" in text and "Cramér" in text)


def test_styles_stay_where_they_were_when_characters_change():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    text = Text("a → ").append("red", "red").append(" ∞ ", "default").append("b…", "green")
    Console(file=stream, width=60, force_terminal=True, color_system="standard", _environ={}).print(text)
    assert b"a -> \x1b[31mred\x1b[0m" in raw.getvalue() and b"\x1b[32mb...\x1b[0m" in raw.getvalue()


def test_a_column_is_as_wide_as_what_is_written():
    raw, out = _ascii()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_row(Text("1.2 ± 0.3 → ∞"))
    table.add_row(Text("Größe 日本"))
    out.print(table)
    lines = [line.rstrip() for line in raw.getvalue().decode().splitlines()]
    assert lines == ["1.2 +- 0.3 -> inf", "Gro\\xdfe \\u65e5\\u672c"]


@pytest.mark.parametrize(
    ("environment", "plain"),
    [
        ({"LC_ALL": "C"}, True),
        ({"LANG": "C"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LANG": "POSIX", "LC_ALL": "en_GB.UTF-8"}, False),
        ({"LANG": "C", "LC_CTYPE": "de_DE.UTF-8"}, False),
        ({"LANG": "C", "PYTHONUTF8": "1"}, False),
        ({}, False),
    ],
)
def test_the_locale_c_asks_for_ascii(monkeypatch, environment, plain):
    for name in ("LC_ALL", "LC_CTYPE", "LANG", "PYTHONIOENCODING", "PYTHONUTF8"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (console().encoding == "ascii") == plain


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["run", "--help"], ["status", "nowhere–→"]])
def test_an_ascii_stream_is_no_error(arguments, tmp_path):
    command = [sys.executable, "-m", "tsjax.cli", *arguments]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, timeout=120)
    text = (done.stdout + done.stderr).decode("ascii")
    assert "Traceback" not in text and ("nowhere-->" in text if "status" in arguments else "+-" in text)
