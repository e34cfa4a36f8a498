"""The page in a real browser: what it shows, what it does when clicked, and that it asks the network for nothing."""

import os
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsjax.report import write_report
from tsjax.report.page import render
from tsjax.sweep.coverage import Coverage
from tsjax.sweep.experiment import experiment
from tsjax.sweep.result import Result
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import parse_spec

# What Debian, Ubuntu and other systems call it.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WIDTHS = (400, 1440)

# The driver of a browser is large, and only the group of slow tests has it.
pytestmark = pytest.mark.slow


def _chromium() -> str:
    """Its path. Without one the test is skipped, but where CI is set it fails: there the page must not go untested."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = "no Chromium on this machine: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def test_where_there_is_no_browser(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        _chromium()
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        _chromium()


@pytest.fixture(scope="module")
def browser():
    path = _chromium()
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    with sync_playwright() as playwright:
        # Chromium's sandbox does not start for root, whom containers are.
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


class _Visit:
    """A page opened, with all that went wrong and all that was asked for."""

    def __init__(self, context, path):
        self.page = context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(".chart[data-drawn]")
        # Seconds after it was asked for.
        self.first_chart = self.page.evaluate("performance.now()") / 1e3

    def draw_all(self):
        """Scrolls to every chart, which draws it."""
        waiting = ".chart:not([data-drawn])"
        while self.page.locator(waiting).count():
            self.page.evaluate(f"document.querySelector('{waiting}')?.scrollIntoView()")
            self.page.wait_for_timeout(20)


@pytest.fixture(scope="module")
def open_page(browser):
    contexts = []

    def visit(path, **options):
        contexts.append(browser.new_context(viewport={"width": 1440, "height": 900}, **options))
        return _Visit(contexts[-1], path)

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """The path of a result's page, without the figures beside it."""

    def write(result):
        path = tmp_path_factory.mktemp("page") / "report.html"
        path.write_text(render(result))
        return path

    return write


@pytest.fixture(scope="module")
def toy_page(toy_result, page_of):
    return page_of(toy_result)


@pytest.fixture(scope="module")
def toy_visit(toy_page, open_page):
    return open_page(toy_page, color_scheme="light")


@pytest.fixture(scope="module")
def many_visit(many_result, page_of, open_page):
    return open_page(page_of(many_result), color_scheme="dark")


def _hover(page, chart, name):
    """What is shown when the mouse is over the first point of a trace, found by the beginning of its name."""
    chart.scroll_into_view_if_needed()
    x, y = chart.evaluate(
        """(chart, name) => {
            const trace = chart._fullData.find(trace => trace.name.startsWith(name) && trace.mode.includes('markers'));
            const {xaxis, yaxis} = chart._fullLayout, box = chart.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.d2p(trace.x[0]), box.top + yaxis._offset + yaxis.d2p(trace.y[0])];
        }""",
        name,
    )
    shown = chart.locator(".hoverlayer .hovertext")
    page.mouse.move(1, 1)
    shown.first.wait_for(state="hidden")
    page.mouse.move(x, y)
    shown.first.wait_for()
    return shown.first.text_content()


def _curve(page, name):
    """The trace of a measured curve in the first chart, as Plotly has it."""
    return page.evaluate(
        "name => { const trace = document.querySelector('.chart')._fullData.find(t => (t.name || '').startsWith(name)"
        " && t.mode === 'lines+markers'); return {visible: trace.visible, colour: trace.line.color}; }",
        name,
    )


def test_it_loads_in_silence(toy_visit, toy_page, toy_result):
    toy_visit.draw_all()
    assert toy_visit.errors == []
    assert toy_visit.requests == [toy_page.as_uri()]
    page = toy_visit.page
    assert page.locator("h1").inner_text() == toy_result.spec.claim
    assert page.locator(".summary").first.inner_text() == "1 of 3 expectations holds, 1 failed, 1 undecided."
    # What is drawn is what was measured.
    y = page.evaluate(
        "[...document.querySelector('.chart')._fullData].filter(t => t.mode === 'lines+markers').map(t => [...t.y])"
    )
    for drawn, curve in zip(y, toy_result.curves(), strict=True):
        np.testing.assert_allclose(drawn, curve.values["risk"].mean(axis=1))


@pytest.mark.parametrize("name", ["toy", pytest.param("many", marks=pytest.mark.slow), "path", "found"])
def test_nothing_is_wider_than_the_screen(name, request, page_of, open_page):
    if name in ("toy", "many"):
        visit = request.getfixturevalue(f"{name}_visit")
    else:
        visit = open_page(page_of(request.getfixturevalue(f"{name}_result")))
    widest = (
        "Math.max(...[...document.querySelectorAll('.chart .main-svg')].map(one => one.getBoundingClientRect().right))"
    )
    for width in _WIDTHS:
        visit.page.set_viewport_size({"width": width, "height": 900})
        visit.draw_all()
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width
        # Charts follow the window, a moment later.
        visit.page.wait_for_function(f"{widest} <= {width}")
    assert visit.errors == []


def test_legend_toggles(toy_visit, toy_result):
    page, label = toy_visit.page, toy_result.curves()[0].label
    entry = page.locator(".legend").first.get_by_role("button", name=label)
    shown = lambda: page.locator(".chart").first.locator(".scatterlayer .trace").count()
    before = shown()
    assert _curve(page, label)["visible"] is True and entry.get_attribute("aria-pressed") == "true"
    entry.click()
    assert _curve(page, label)["visible"] == "legendonly" and entry.get_attribute("aria-pressed") == "false"
    # The band goes with its curve, its name, and what verdicts show of it.
    mine = page.evaluate(
        "key => document.querySelector('.chart')._fullData.filter(t => t.meta.keys[0] === key).length",
        entry.get_attribute("data-key"),
    )
    assert shown() == before - mine and mine > 2
    assert label not in page.locator(".chart").first.locator(".annotation").all_text_contents()
    entry.press("Enter")
    assert _curve(page, label)["visible"] is True and shown() == before


def test_table_sorts(toy_visit, toy_result):
    table = toy_visit.page.locator("#rates table")
    order = lambda: table.locator("tbody th").all_inner_texts()
    rates = toy_result.rates().sort_values("exponent")
    heading = table.get_by_role("columnheader", name="exponent", exact=True)
    assert order() == list(toy_result.rates()["label"]) and heading.get_attribute("aria-sort") == "none"
    heading.get_by_role("button").click()
    assert order() == list(rates["label"]) and heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").press("Space")
    assert order() == list(rates["label"])[::-1] and heading.get_attribute("aria-sort") == "descending"
    verdict = table.get_by_role("columnheader", name="verdict")
    verdict.get_by_role("button").press("Enter")
    # What has no verdict comes last; only one column is sorted by.
    assert [text.split("\n")[0] for text in order()][-1] == "optimal linear estimator"
    assert heading.get_attribute("aria-sort") == "none" and verdict.get_attribute("aria-sort") == "ascending"


def test_theme_toggles(toy_visit):
    page, background = toy_visit.page, "getComputedStyle(document.body).backgroundColor"
    toggle = page.locator("#theme")
    light = page.evaluate(background), _curve(page, "two-phase")["colour"]
    assert toggle.inner_text() == "Dark theme"
    toggle.click()
    dark = page.evaluate(background), _curve(page, "two-phase")["colour"]
    assert light[0] != dark[0] and light[1] != dark[1] and toggle.inner_text() == "Light theme"
    # Letters in charts follow too: light on dark.
    fill = page.locator(".chart .xtick text").first.evaluate("text => getComputedStyle(text).fill")
    assert min(int(part) for part in fill.strip("rgb()").split(",")) > 128
    toggle.click()
    assert (page.evaluate(background), _curve(page, "two-phase")["colour"]) == light


def test_a_dark_system_opens_it_dark(many_visit):
    assert many_visit.page.locator("#theme").inner_text() == "Light theme"
    red, green, blue = many_visit.page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    )
    assert max(red, green, blue) < 60


def test_points_name_seed_and_status(many_visit):
    section = many_visit.page.locator("#seeds")
    chart = section.locator(".chart")
    chart.scroll_into_view_if_needed()
    chart.locator(".main-svg").first.wait_for(state="attached")
    page = many_visit.page
    shown = _hover(page, chart, "two-phase student, d = 2: converged")
    assert "two-phase student, d = 2: converged" in shown and "seed" in shown and "sample size n: 128" in shown
    shown = _hover(page, chart, "ridge [with brackets], d = 10: diverged")
    assert "ridge [with brackets], d = 10: diverged" in shown and "seed" in shown and "no value" in shown


def test_a_menu_shows_another_panel(panels_result, page_of, open_page):
    section = open_page(page_of(panels_result)).page.locator("#seeds")
    chart = section.locator(".chart")
    chart.scroll_into_view_if_needed()
    chart.locator(".main-svg").first.wait_for(state="attached")
    least = lambda: chart.evaluate("chart => Math.min(...chart._fullData[0].y)")
    before = least()
    section.locator("select").select_option(label="d = 10")
    # Risks grow with d.
    assert least() == pytest.approx(5 * before, rel=1e-5)


def test_the_plot_is_beside_claim_and_verdicts_on_the_first_screen(toy_visit):
    page = toy_visit.page
    page.set_viewport_size({"width": 1440, "height": 900})
    page.evaluate("scrollTo(0, 0)")
    chart, verdicts = (page.locator(name).first.bounding_box() or {} for name in (".chart", "#expectations li"))
    assert chart["y"] + chart["height"] < 900 and verdicts["y"] < 400
    # Side by side, and on a phone below one another.
    assert chart["x"] + chart["width"] < verdicts["x"]
    page.set_viewport_size({"width": 400, "height": 900})
    chart, verdicts = (page.locator(name).first.bounding_box() or {} for name in (".chart", "#expectations li"))
    assert chart["y"] < 700 and verdicts["y"] > chart["y"] + chart["height"]
    # There curves are named by the legend alone, a moment after the window has changed.
    names = page.locator(".chart").first.locator(".annotation")
    page.wait_for_function("!document.querySelector('.chart .annotation')")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.wait_for_function("document.querySelector('.chart .annotation')")
    assert "two-phase student" in names.all_text_contents()


def test_a_verdict_is_shown_alone(toy_visit):
    page = toy_visit.page
    page.set_viewport_size({"width": 1440, "height": 900})
    state = lambda: page.evaluate(
        "document.querySelector('.chart').data.map(t => [(t.meta || {}).mark || 0, t.visible === true, t.opacity])"
    )
    assert {number for number, visible, _ in state() if number and visible} == {1, 2, 3}
    entry = page.locator(".verdicts li", has_text="exponent").filter(has_text="two-phase student")
    button, number = entry.get_by_role("button"), int(entry.get_attribute("data-mark") or 0)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert {one for one, visible, _ in state() if one and visible} == {number}
    # The other curves stand back.
    assert min(opacity for _, _, opacity in state()) < 0.5
    button.click()
    assert {one for one, visible, _ in state() if one and visible} == {1, 2, 3}
    assert min(opacity for _, _, opacity in state()) == 1


def test_without_scripts_the_numbers_are_there(toy_page, browser, toy_result):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(toy_page.as_uri())
    assert page.locator("noscript").is_visible() and not page.locator("#theme").is_visible()
    assert toy_result.curves()[0].label in page.locator("#rates").inner_text()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_the_numbers_stand_on_is_seen_at_once(toy_result, page_of, open_page, scheme):
    coverage = Coverage(cells=576, done=288, damaged=tuple(f"{digit * 64}.parquet" for digit in "abcdef"))
    spec, kept = toy_result.spec, {"plan": toy_result.plan, "coverage": coverage, "theory": toy_result._theory}
    partial = Result(toy_result.records, spec, toy_result.experiment, {}, None, **kept)
    page = open_page(page_of(partial), color_scheme=scheme).page
    notice = page.locator(".notice")
    colours = set()
    for width in _WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        box = notice.bounding_box() or {}
        # On the first screen, above the verdicts, and no wider than it.
        assert box["y"] + box["height"] < 700 and box["x"] >= 0 and box["x"] + box["width"] <= width
        assert box["y"] < (page.locator(".summary").bounding_box() or {})["y"]
        colours.add(notice.evaluate("element => getComputedStyle(element).backgroundColor"))
    assert "288 of 576 cells" in notice.inner_text() and len(colours) == 1
    assert colours != {page.evaluate("getComputedStyle(document.body).backgroundColor")}


_EVIL = (
    "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>\u2028 %{x} <b>bold</b> \\u003c $x$"
)


@experiment(static=("name",), curve="name", labels={"n": _EVIL, "risk": f"{_EVIL} risk"})
def evil(key, *, name: str, n: int):
    return {"risk": jax.random.uniform(key, (), jnp.float64) / n}


def test_text_of_a_spec_is_shown_and_not_run(page_of, open_page):
    spec = parse_spec(
        {
            "claim": _EVIL,
            "source": f"javascript:alert(1) {_EVIL}",
            "study": "nowhere:evil",
            "grid": {"n": [16, 32, 64], "name": [_EVIL, "tame"], "seeds": 5},
            "expect": [{"what": "rate of tame in n", "value": 1.0, "tolerance": 0.5, "source": _EVIL}],
        }
    )
    visit = open_page(page_of(run_spec(spec, experiment=evil)))
    visit.draw_all()
    page = visit.page
    assert visit.errors == [] and page.evaluate("window.ran") is None
    assert " ".join(page.locator("h1").inner_text().split()) == " ".join(_EVIL.split())
    # Three scripts of the page's own, one more when it starts the library.
    assert page.locator("script").count() == 4 and page.locator("img[src=x]").count() == 0
    title = page.locator(".chart .xtitle").first.text_content() or ""
    assert "</script><script>window.ran = 1" in title and "<b>bold</b>" in title and "%{x}" in title
    hover = _hover(page, page.locator(".chart").first, "tame")
    assert "<b>bold</b>" in hover and "%{x}" in hover


@pytest.mark.slow
def test_a_page_of_50_000_records_is_light_and_quick(make_toy, tmp_path, open_page):
    grid = {"n": [128, 256, 512, 1024, 2048], "method": ["student", "ridge"], "failing": 0.01, "seeds": 5000}
    result = make_toy(grid=grid, expect=[], chunk=1250)
    assert len(result.records) == 50_000
    start = time.perf_counter()
    path = write_report(result, tmp_path)
    written, size = time.perf_counter() - start, path.stat().st_size
    visits = [open_page(path) for _ in range(3)]
    loads = [
        v.page.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart") / 1e3 for v in visits
    ]
    charts = [v.first_chart for v in visits]
    visit = visits[0]
    visit.draw_all()
    points = visit.page.evaluate(
        "document.querySelector('#seeds .chart')._fullData.reduce((sum, t) => sum + t.x.length, 0)"
    )
    print(
        f"\n50 000 records: written in {written:.1f} s, {size / 1e6:.2f} MB, loaded in {min(loads):.2f} s, "
        f"first chart after {min(charts):.2f} s (best of 3), {points} points"
    )
    # As many as a browser draws at once; the page says so.
    assert points == 8_000 and "8000 of 50000 points" in path.read_text() and visit.errors == []
    assert size < 8e6 and min(loads) < 2.0
