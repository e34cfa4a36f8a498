import base64
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from html.parser import HTMLParser

import jax
import numpy as np
import pandas as pd
import pytest

from tsjax.rates.checks import beside
from tsjax.report import clouds, write_report
from tsjax.report.charts import spread
from tsjax.report.page import PLOTLY, _source, render
from tsjax.report.reproducing import spec_toml
from tsjax.report.sentences import headline_of, reason_of, value_of
from tsjax.report.series import mean_drawing
from tsjax.sweep.coverage import Coverage
from tsjax.sweep.experiment import experiment
from tsjax.sweep.result import Result
from tsjax.sweep.run import sweep
from tsjax.sweep.spec import find_experiment, parse_spec

_VOID = {"meta", "link", "img", "br"}


class _Page(HTMLParser):
    """Collects elements and text, and checks that tags close in order."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += data

    @property
    def figures(self) -> dict:
        """The figures that the page draws, by their names."""
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def written(toy_result, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "new" / "folder"
    return write_report(toy_result, out)


def test_files(written):
    out = written.parent
    assert written.name == "report.html"
    names = ("risk_in_n", "risk_relative_to_limit", "risk_relative_to_reference")
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{n}.{k}" for n in names for k in ("pdf", "png", "svg")
    }
    assert not list(out.rglob("*.tmp"))


@pytest.fixture(scope="module")
def partial(toy_result):
    """Half of a sweep, with damage; what there is holds."""
    coverage = Coverage(cells=576, done=288, damaged=("a" * 64 + ".parquet",), mixed=("records are of two kinds",))
    spec = toy_result.spec.model_copy(update={"expect": toy_result.spec.expect[:1]})
    return Result(
        toy_result.records,
        spec,
        toy_result.experiment,
        {},
        plan=toy_result.plan,
        coverage=coverage,
        theory=toy_result._theory,
    )


def test_a_page_says_first_what_it_stands_on(partial, toy_result):
    source = render(partial)
    page = _Page(source)
    text = " ".join(page.text.split())
    assert "These numbers stand on 288 of 576 cells; 1 damaged chunk is left out; 288 are missing." in text
    assert "Damaged, and left out: aaaaaaaaaaaa*." in text and "Records are of two kinds." in text
    assert "judged by 288 of 576 cells." in text and "288 of the plan missing" in text
    assert source.index('class="notice"') < source.index('class="summary') < source.index("<main>")
    # Not the colour of what holds.
    assert 'class="summary undecided"' in source
    whole = render(toy_result)
    assert 'class="notice"' not in whole and "missing" not in _Page(whole).text.split("Expectations")[0]


def test_a_source_is_named_once():
    paper = "Akiyama & Suzuki, arXiv:2205.14818"
    assert _source(paper, "arXiv:2205.14818") == _source(paper, "") == paper
    assert _source(paper, "arXiv:1806.07572") == f"{paper}; arXiv:1806.07572" and _source("", "Jacot") == "Jacot"


def test_page_says_it_all(written, toy_result):
    page = _Page(written.read_text())
    assert "A <script>alert('x')</script> claim & [bold]markup[/bold]." in page.text
    # The claim and the verdict come before the details.
    assert page.text.index("1 of 3 expectations holds") < page.text.index("lies inside")
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == [
        "curves-risk", "expectations", "rates", "last", "local", "limit", "reference", "seeds", "cells", "provenance",
        "reproduce", "cite",
    ]  # fmt: skip
    for curve in toy_result.curves():
        assert curve.label in page.text
    # Verdicts by the names of learners, with one number of decimals.
    assert "two-phase student: excess risk relative to the Cramér-Rao limit at sample size n = 1024" in page.text
    assert "cramer_rao" not in page.text.split("Reproduce")[0]
    for judged in toy_result.judged():
        assert f"{value_of(judged)}: {reason_of(toy_result, judged)}" in " ".join(page.text.split())
    for words in (
        "Cramér-Rao",
        "converged",
        "crossing: below from",
        "local exponents",
        "tsjax run sweep.toml",
        "tsjax verify",
        "jax 0",
        "compiling",
        "96k student steps",
        "planted",
        "@software{tsjax",
    ):
        assert words in page.text, words


def test_page_is_self_contained(written):
    page = _Page(written.read_text())
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base") and "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:"))
    style = written.read_text().split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import", style)


def test_only_the_scripts_of_the_page_may_run(written):
    page = _Page(written.read_text())
    [policy] = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.split("script-src")[1]
    kinds = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert kinds == ["application/json", "text/plain", None]
    for script in page.scripts[1:]:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def _numbers(array) -> np.ndarray:
    """An array of a figure, which Plotly writes in base 64."""
    return (
        np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]) if isinstance(array, dict) else np.array(array)
    )


def test_what_is_drawn_is_what_was_measured(written, toy_result):
    figures = _Page(written.read_text()).figures
    traces = figures["curves-risk-0"]["data"]
    measured = [trace for trace in traces if trace["mode"] == "lines+markers"]
    assert len(measured) == 3
    # An outline tells intervals apart where they cover one another.
    bands = [trace for trace in traces if trace.get("fill") and "mark" not in trace["meta"]]
    assert len(bands) == 3 and all(trace["line"]["width"] > 0 for trace in bands)
    # Every curve has its name beside it, none over another.
    names = figures["curves-risk-0"]["layout"]["annotations"]
    assert sorted(name["text"] for name in names) == sorted(series.name for series in mean_drawing(toy_result).series)
    heights = sorted(name["y"] for name in names)
    assert min(np.diff(heights)) > 0.05
    for trace, curve in zip(measured, toy_result.curves(), strict=True):
        np.testing.assert_array_equal(_numbers(trace["x"]), curve.x)
        np.testing.assert_allclose(_numbers(trace["y"]), curve.values["risk"].mean(axis=1))
    # Two predicted curves, and the limit of the student, once.
    dashed = [trace for trace in traces if "theory" in trace["meta"]["keys"]]
    [limit] = [trace for trace in traces if trace["meta"]["keys"] == ["limit"]]
    for trace, curve in zip(dashed, toy_result.curves()[1:], strict=True):
        np.testing.assert_allclose(_numbers(trace["y"]), curve.theory.predicted)
    np.testing.assert_allclose(_numbers(limit["y"]), 5 / toy_result.curves()[0].x)
    # Ratios to the reference: paired means.
    student, ridge, linear = (curve.values["risk"].mean(axis=1) for curve in toy_result.curves())
    drawn = [trace for trace in figures["reference-0"]["data"] if trace["mode"] == "lines+markers"]
    for trace, mean in zip(drawn, (student, ridge), strict=True):
        np.testing.assert_allclose(_numbers(trace["y"]), mean / linear)
    points = np.concatenate([_numbers(trace["y"]) for trace in figures["seeds-0"]["data"]])
    expected = np.concatenate([curve.values["risk"].ravel() for curve in toy_result.curves()])
    np.testing.assert_allclose(np.sort(points), np.sort(expected), rtol=1e-6)


def test_every_verdict_shows_its_window_curve_and_range(toy_result):
    expect = [
        {"what": "rate of student in n", "value": 1.0, "tolerance": 0.2, "over": {"n": [256, 1024]}},
        {"what": "risk of student relative to cramer_rao", "at_most": 1.4, "over": {"n": 1024}},
        {"what": "risk of student", "at_least": 0.001, "at_most": 0.1, "over": {"n": [256, 512]}},
        {"what": "crossing of student relative to ridge in n", "at_most": 300.0},
        {"what": "risk of student relative to ridge", "at_most": 2.0, "over": {"n": [128, 512]}},
        {"what": "rate of student in n", "at_least": 0.9},
    ]
    spec = parse_spec({**toy_result.spec.model_dump(exclude_defaults=True), "expect": expect})
    result = Result(toy_result.records, spec, toy_result.experiment, {}, theory=toy_result._theory)
    page = _Page(render(result))
    traces = page.figures["curves-risk-0"]["data"]
    student, ridge, _ = result.curves()
    key = next(t["meta"]["keys"][0] for t in traces if t.get("name", "").startswith("two-phase student"))
    marks = {number: [t for t in traces if t["meta"].get("mark") == number] for number in range(1, 7)}
    windows = ((256, 1024), (1024, 1024), (256, 512), (128, 1024), (128, 512), (128, 1024))
    for number, window in enumerate(windows, 1):
        halo = marks[number][-1]
        assert (_numbers(halo["x"]).min(), _numbers(halo["x"]).max()) == window
        assert all(t["meta"]["keys"] == [key] for t in marks[number])
        at = np.isin(student.x, _numbers(halo["x"]))
        np.testing.assert_allclose(_numbers(halo["y"]), student.values["risk"].mean(axis=1)[at])
    edges = {number: [t for t in found if t["line"].get("dash") == "2px,3px"] for number, found in marks.items()}
    # The allowed exponents, as power laws that meet in the middle of the window.
    for trace, slope in zip(edges[1], (0.8, 1.2), strict=True):
        x, y = _numbers(trace["x"]), _numbers(trace["y"])
        np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(np.log(x)), -slope)
    # An open range has one edge, and ends a fixed share of the axis away from it at the ends of the window.
    [edge] = edges[6]
    areas = [trace for trace in marks[6] if trace.get("fill") == "toself"]
    ends = np.log10(_numbers(edge["y"]))[[0, -1]]
    corners = np.log10(np.concatenate([_numbers(area["y"]) for area in areas]))
    axis = np.ptp(page.figures["curves-risk-0"]["layout"]["yaxis"]["range"])
    assert max(corners) == pytest.approx(ends[0] + 0.12 * axis) and min(corners) == pytest.approx(ends[1] - 0.12 * axis)
    # What a ratio may be, in units of what it is relative to.
    np.testing.assert_allclose(_numbers(edges[2][0]["y"]), 1.4 * 5 / 1024)
    assert [_numbers(trace["y"])[0] for trace in edges[3]] == [0.001, 0.1]
    assert _numbers(edges[4][0]["x"]).tolist() == [300, 300]
    np.testing.assert_allclose(_numbers(edges[5][0]["y"]), 2 * ridge.values["risk"].mean(axis=1)[:3])
    # And where a plot shows the ratio itself, there.
    [line] = [
        t for t in page.figures["limit-0"]["data"] if t["meta"].get("mark") == 2 and t["line"].get("dash") == "2px,3px"
    ]
    np.testing.assert_allclose(_numbers(line["y"]), 1.4)
    charts = {
        attributes["data-mark"]: attributes["data-charts"] for _, attributes in page.tags if "data-mark" in attributes
    }
    assert charts["1"] == "curves-risk-0" and charts["2"] == "curves-risk-0 limit-0"


def test_the_headline_is_about_the_learner_of_the_claim(toy_result, make_toy):
    verdicts = toy_result.verdicts()
    text = headline_of(toy_result)
    assert text.startswith("At sample size n = 1024 the mean excess risk of the two-phase student is ")
    # The numbers of the verdicts, as they are written there.
    assert f"{beside(verdicts[2].value, verdicts[2].interval)} times the Cramér-Rao limit" in text
    assert "smaller than that of the optimal linear estimator by a factor of" in text
    assert text in " ".join(_Page(render(toy_result)).text.split())
    other = make_toy(expect=[{"what": "risk of ridge relative to student", "at_least": 1.0}])
    assert "of the ridge [with brackets] is" in headline_of(other)
    # Of several variants, that which is meant.
    grid = {"n": [64, 128], "method": "student", "d": [2, 5, 7, 9], "seeds": 4}
    meant = {"what": "risk of student relative to cramer_rao", "where": {"d": 5}, "at_most": 2.0}
    assert "of the two-phase student (d = 5) is" in headline_of(make_toy(grid=grid, expect=[meant]))
    nothing = make_toy(expect=[])
    assert "is lowest for the two-phase student" in headline_of(nothing)
    assert (
        headline_of(make_toy(grid={"n": [64, 128], "method": "student", "d": [2, 5, 7], "seeds": 2}, expect=[])) == ""
    )


def test_a_page_cites_its_own_study_alone(toy_result):
    cited = lambda cite: (
        _Page(
            render(
                Result(toy_result.records, toy_result.spec, toy_result.experiment.model_copy(update={"cite": cite}), {})
            )
        ).text
    )
    assert "2205.14818" not in cited("") and "The software:" in cited("")
    own = "@article{me2026,\n  title = {Mine},\n  doi = {10.1/x}\n}"
    text = cited(own)
    assert own in text and "@software{tsjax" in text and "2205.14818" not in text
    assert "planted; doi:10.1/x" in text
    assert "A report of mine" in cited("A report of mine")
    assert "eprint        = {1806.07572}" in cited("arXiv:1806.07572")
    for study in ("superiority", "recovery", "paper_figure"):
        assert "Akiyama, Shunta" in find_experiment(study).cite
    assert find_experiment("real_data").cite == ""


# Of plotly-cartesian.min.js, by its authors' list; the page asks it for nothing else.
_CARTESIAN = {
    "bar", "box", "contour", "heatmap", "histogram", "histogram2d", "histogram2dcontour", "image", "pie", "scatter",
    "scatterternary", "violin",
}  # fmt: skip


def test_plotly_is_the_tested_one():
    text = PLOTLY.read_text()
    assert text.startswith("/**\n* plotly.js (cartesian - minified) v4.1.1\n")
    digest = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert "MIT License" in (PLOTLY.parent / "plotly.LICENSE").read_text()
    # Within a script element it must not end that.
    assert "</script" not in text.lower()


@pytest.mark.parametrize("name", ["toy_result", "many_result", "path_result", "found_result", "panels_result"])
def test_pages_use_what_the_bundle_has(name, request):
    page = render(request.getfixturevalue(name))
    kinds = {trace["type"] for figure in _Page(page).figures.values() for trace in figure["data"]}
    assert kinds <= _CARTESIAN and "scatter" in kinds
    assert len(page) < 2e6


def test_an_axis_with_0_tells_its_values(tmp_path):
    result = sweep(without_noise, seeds=4, noise=[0.0, 0.01, 0.1, 1.0])
    figure = _Page(render(result)).figures["curves-error-0"]
    axis, trace = figure["layout"]["xaxis"], figure["data"][-1]
    assert (
        axis["type"] == "linear" and axis["ticktext"] == ["0", "0.01", "0.1", "1"] and axis["tickvals"] == [0, 1, 2, 3]
    )
    assert _numbers(trace["x"]).tolist() == [0, 1, 2, 3]
    shown = _numbers(trace["customdata"]).reshape(4, -1)
    np.testing.assert_allclose(shown[:, 2], [0, 0.01, 0.1, 1])
    assert "%{customdata[2]" in trace["hovertemplate"]


@experiment(x="noise", y=("error",))
def without_noise(key, *, noise: float):
    return {"error": 0.01 + noise * jax.random.uniform(key)}


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.2, 0.5, 0.9], [0.2, 0.5, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.0, 0.0, 0.0], [0.0, 0.1, 0.2]),
        ([0.98, 1.3], [0.9, 1.0]),
        ([0.5, 0.52, 0.58], [0.43333333, 0.53333333, 0.63333333]),
    ],
)
def test_names_move_apart(places, expected):
    np.testing.assert_allclose(spread(places, 0.1), expected)


def test_the_spec_on_the_page_is_the_spec(written, toy_result):
    text = _Page(written.read_text()).text
    assert parse_spec(tomllib.loads(text[text.index("claim = ") : text.rindex("Cite")])) == toy_result.spec


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


@pytest.mark.parametrize(
    ("name", "charts"),
    [
        ("path_result", {"curves-risk": 1, "curves-train_loss": 1, "seeds": 1}),
        # Two learners at three d in one panel, three in one for each d; maps of every learner.
        ("many_result", {"curves-risk": 1, "limit": 1, "reference": 1, "seeds": 1, "maps": 2, "exponent_in_d": 1}),
        ("panels_result", {"curves-risk": 3, "limit": 3, "reference": 3, "seeds": 3, "maps": 3, "exponent_in_d": 1}),
        ("bare_result", {"curves-risk": 1, "local": 1, "seeds": 1}),
        (
            "found_result",
            dict.fromkeys(["curves-risk", "local", "reference", "seeds", "success", "alignment"], 1) | {"maps": 4},
        ),
    ],
)
def test_other_shapes_of_results(name, charts, request):
    page = _Page(render(request.getfixturevalue(name)))
    assert Counter(key.rsplit("-", 1)[0] for key in page.figures) == charts
    assert "This sweep states no expectations." in page.text
    if name == "many_result":
        assert "diverged" in page.text and "missing (NaN)" in page.text


def test_maps_hold_means(found_result):
    figures = _Page(render(found_result)).figures
    tiles = [_numbers(figures[f"maps-{i}"]["data"][0]["customdata"]).reshape(2, 3) for i in range(4)]
    for metric, drawn in (("risk", tiles[:2]), ("success", tiles[2:])):
        means = found_result.records.groupby(["method", "d", "n"])[metric].mean()
        for method, tile in zip(("student", "plain"), drawn, strict=True):
            np.testing.assert_allclose(tile, means[method].to_numpy().reshape(2, 3))


def test_one_x_shows_intervals_as_bars(make_toy):
    page = _Page(render(make_toy(grid={"n": [128], "method": ["student", "ridge"], "seeds": 12}, expect=[])))
    traces = page.figures["curves-risk-0"]["data"]
    # No line and no band would be seen; the limit and theory are dashes.
    assert [trace["mode"] for trace in traces] == ["markers", "markers", "lines+markers", "lines+markers"]
    for trace in traces[2:]:
        low, high = _numbers(trace["customdata"])
        assert _numbers(trace["error_y"]["array"]) == pytest.approx(high - _numbers(trace["y"]))
        assert _numbers(trace["error_y"]["arrayminus"]) == pytest.approx(_numbers(trace["y"]) - low)


def test_too_many_points_are_thinned_and_it_says_so(toy_result, monkeypatch):
    monkeypatch.setattr(clouds, "_MOST", 100)
    page = _Page(render(toy_result))
    drawn = {
        tuple(seeds)
        for trace in page.figures["seeds-0"]["data"]
        for seeds in [np.unique(_numbers(trace["customdata"])[::2])]
    }
    # 12 points for every seed, of 24 seeds: the first 8 seeds of every curve.
    assert drawn == {tuple(range(8))}
    assert "Shown are the first 8 seeds of every curve: 96 of 288 points" in page.text


@experiment(y=("loss/train", 'a "b"'))
def odd(key, *, n: int):
    return {"loss/train": 1.0 / n, 'a "b"': 2.0 / n}


def test_too_many_paths_are_thinned_and_it_says_so(path_result, monkeypatch):
    monkeypatch.setattr(clouds, "_MOST_LINES", 7)
    page = _Page(render(path_result))
    for trace in page.figures["seeds-0"]["data"]:
        seeds = _numbers(trace["customdata"])
        assert set(seeds[np.isfinite(seeds)]) == {0, 1, 2} and np.isnan(seeds).sum() == 2
    assert "Shown are the first 3 seeds of every curve: 6 of 10 lines" in page.text


def test_odd_names_of_values(tmp_path):
    page = _Page(write_report(sweep(odd, seeds=4, n=[8, 16, 32]), tmp_path).read_text())
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"loss_train_in_n", "a__b__in_n"}
    places = [attributes["data-figure"] for _, attributes in page.tags if "data-figure" in attributes]
    assert set(places) == set(page.figures) and 'curves-a "b"-0' in places


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
    heavy = ("matplotlib", "plotly", "jinja2", "jax", "pandas")
    code = f"import sys, tsjax.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
