import base64
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser

import pandas as pd
import pytest

from tsjax.report import write_report
from tsjax.report.toml import spec_toml
from tsjax.sweep.result import Result
from tsjax.sweep.spec import parse_spec

_VOID = {"meta", "link", "img", "br"}


class _Page(HTMLParser):
    """Collects elements and text, and checks that tags close in order."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def written(toy_result, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "new" / "folder"
    return write_report(toy_result, out)


def test_files(written):
    out = written.parent
    assert written.name == "report.html"
    assert sorted(path.name for path in (out / "figures").iterdir()) == [
        "risk_in_n.pdf", "risk_in_n.png", "risk_relative_to_limit.pdf", "risk_relative_to_limit.png",
    ]  # fmt: skip
    assert not list(out.rglob("*.tmp"))


def test_page_says_it_all(written, toy_result):
    source = written.read_text()
    page = _Page(source)
    assert "A <script>alert('x')</script> claim & [bold]markup[/bold]." in page.text
    assert "script" not in [tag for tag, _ in page.tags] and "<script" not in source
    # The verdict comes before the details.
    assert 0 < page.text.index("1 of 3 expectations holds") < page.text.index("Figures") < page.text.index("Provenance")
    for curve in toy_result.curves():
        assert curve.label in page.text
    for verdict in toy_result.verdicts():
        assert verdict.reason in page.text
    for words in (
        "Cramér-Rao",
        "converged",
        "tsjax run sweep.toml",
        "tsjax verify",
        "jax 0",
        "of compiling",
        "planted",
    ):
        assert words in page.text


def test_page_is_self_contained(written):
    page = _Page(written.read_text())
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not re.search(r"url\(|@import", written.read_text())
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 2 and all(image["alt"] for image in images)
    embedded = base64.b64decode(images[0]["src"].removeprefix("data:image/png;base64,"))
    assert embedded == (written.parent / "figures" / "risk_in_n.png").read_bytes()


def test_the_spec_on_the_page_is_the_spec(written, toy_result):
    text = _Page(written.read_text()).text
    assert parse_spec(tomllib.loads(text[text.index("claim = ") :])) == toy_result.spec


def test_spec_survives_toml():
    spec = parse_spec(
        {
            "claim": 'quotes " and \\ and\nlines\x7f é',
            "study": "superiority",
            "key": 3,
            "problem": {"noise_std": 1e-30, "inputs": "sphere", "odd key.": True},
            "grid": [{"n": [1, 2], "seeds": 3}, {"n": 5, "seeds": [7, 8], "flag": [True, False]}],
            "smoke": {"n": [1]},
            "expect": [
                {"what": "rate of student in n", "at_most": 1.0, "over": {"n": [1, 2]}, "where": {"d": 5, "s": "x"}},
                {"what": "risk of student", "value": 0.5, "tolerance": 0.1, "source": "here"},
            ],
        }
    )
    assert parse_spec(tomllib.loads(spec_toml(spec))) == spec


@pytest.mark.parametrize(("name", "count"), [("path_result", 2), ("many_result", 2), ("bare_result", 1)])
def test_other_shapes_of_results(name, count, request, tmp_path):
    result = request.getfixturevalue(name)
    page = _Page(write_report(result, tmp_path).read_text())
    assert len([tag for tag, _ in page.tags if tag == "img"]) == count
    assert "This sweep states no expectations." in page.text
    if name == "many_result":
        assert "diverged" in page.text and "missing (NaN)" in page.text


def test_rewriting_replaces(bare_result, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("an older page")
    assert write_report(bare_result, tmp_path) == page
    first = page.read_text()
    assert first.startswith("<!doctype html>") and write_report(bare_result, tmp_path).read_text() == first


def test_where_it_cannot_write(bare_result, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError, match=re.escape(f"cannot write the report to {blocked}")):
        write_report(bare_result, blocked)
    assert blocked.read_text() == "not a folder"


def test_no_records(toy_result, tmp_path):
    with pytest.raises(ValueError, match="no records"):
        write_report(Result(pd.DataFrame(), toy_result.spec, toy_result.experiment, {}), tmp_path)


def test_importing_the_report_is_light():
    code = "import sys, tsjax.report; print([m for m in ('matplotlib', 'jinja2', 'jax', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
