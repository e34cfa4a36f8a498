"""Tables for papers."""

import html
import re

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from tsjax.report.numbers import exponent_with_interval
from tsjax.report.publish import _latex_number, _latex_text
from tsjax.sweep.experiment import experiment
from tsjax.sweep.result import Result
from tsjax.sweep.run import sweep


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)[&|]", line.strip().removesuffix("\\\\").strip().strip("|"))]


def test_latex(toy_result):
    text = toy_result.table("latex")
    lines = [line.strip() for line in text.splitlines()]
    assert [lines.count(f"\\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    assert text.count("{") == text.count("}") and text.count("$") % 2 == 0
    body = [_cells(line) for line in lines[lines.index("\\midrule") + 1 : lines.index("\\bottomrule")]]
    assert [row[0] for row in body] == [curve.label for curve in toy_result.curves()]
    width = lines[lines.index("\\toprule") - 1].split("{")[-1].strip("}")
    assert len(width) == len(body[0]) and {len(row) for row in body} == {len(width)}
    rate = toy_result.rate(toy_result.curves()[0])
    assert body[0][1] == "$" + exponent_with_interval(rate.exponent, *rate.interval).replace(" [", "\\;[") + "$"
    # What all curves share is said once.
    assert "over n = 128--1024, 24 seeds" in text and "seeds" not in lines[lines.index("\\toprule") + 1]
    assert "95 \\% intervals" in text


def test_markdown(toy_result, many_result):
    text = toy_result.table()
    head, marks, *rows = [line for line in text.splitlines() if line.startswith("|")]
    rate = toy_result.rate(toy_result.curves()[0])
    assert len(rows) == 3 and set(_cells(marks)) == {":--", "--:"}
    assert _cells(rows[0])[:2] == ["two-phase student", exponent_with_interval(rate.exponent, *rate.interval)]
    assert "failed" not in head
    # Failures are shown where there are any.
    assert "failed" in many_result.table("markdown").splitlines()[0]


@pytest.mark.parametrize("name", ["path_result", "bare_result", "found_result"])
def test_other_shapes_of_results(name, request):
    result = request.getfixturevalue(name)
    for format in ("latex", "markdown"):
        assert result.curves()[0].label.split()[0] in result.table(format)


def test_numbers_of_latex():
    assert _latex_number("1.23e-05 ± 4.1e-07") == r"$1.23 \times 10^{-5} \pm 4.1 \times 10^{-7}$"
    assert _latex_number("2e+03 [1, inf]") == r"$2 \times 10^{3}\;[1, \infty]$"
    assert _latex_number("–") == "--" and _latex_number("finite") == "finite"
    assert _latex_number("128–1024") == "$128$--$1024$"


_EVIL = r"\input{x} 50% & a_b $x$ #1 ~^ |pipe| *star* `code` <b> [link](http://x)"


@experiment(static=("name",), curve="name")
def named(key, *, name: str, n: int):
    return {"risk": 1.0 / n}


def test_names_are_escaped():
    result = sweep(named, seeds=4, n=[8, 16, 32], name=[_EVIL])
    latex, markdown = result.table("latex"), result.table("markdown")
    assert "\\input" not in latex and r"\textbackslash{}input\{x\} 50\% \& a\_b \$x\$ \#1" in latex
    # Undone, the name is there again.
    undone = _latex_text(_EVIL)
    for command, letter in (("\\textasciitilde{}", "~"), ("\\textasciicircum{}", "^"), ("\\textless{}", "<"),
                            ("\\textgreater{}", ">"), ("\\textbar{}", "|"), ("\\textbackslash{}", "\0")):  # fmt: skip
        undone = undone.replace(command, letter)
    assert re.sub(r"\\(.)", r"\1", undone).replace("\0", "\\") == _EVIL
    # A reader of Markdown shows the name as it is.
    page = MarkdownIt("commonmark").enable("table").render(markdown)
    cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page)]
    assert len(cells) == page.count("<th") - page.count("<thead") and cells[0] == _EVIL


def test_what_cannot_be_tabulated(toy_result):
    with pytest.raises(ValueError, match="no such format. Allowed: latex, markdown"):
        toy_result.table("html")
    with pytest.raises(ValueError, match="no records"):
        Result(pd.DataFrame(), toy_result.spec, toy_result.experiment, {}).table()
