"""The pictures of README and gallery: each says what its table says, and the pages show what is there."""

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from helpers import exponents_of_table, intervals_in, ratios_of_table, texts_of_svg

import tsjax as ts
from tsjax.cli.specs import papers
from tsjax.report.numbers import short
from tsjax.report.publish import markdown_text
from tsjax.sweep.spec import find_experiment, load_spec

ROOT = Path(ts.__file__).parent.parent
GALLERY = ROOT / "docs/gallery"
SHIPPED = sorted(path.stem for path in (ROOT / "sweeps").glob("*.toml"))


def _script() -> ModuleType:
    """A copy of docs/gallery.py of its own."""
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs/gallery.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_shipped_sweep_has_its_picture_table_and_caption():
    assert {"superiority", "quickstart"} <= set(SHIPPED)
    expected = {f"{name}{suffix}" for name in SHIPPED for suffix in (".svg", ".csv", ".md")}
    expected |= {f"{name}.claims.md" for specs in papers().values() for name in specs}
    assert {path.name for path in GALLERY.iterdir()} == expected
    assert set(_script().names()) == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_picture_and_caption_say_what_the_table_says(name):
    picture = (GALLERY / f"{name}.svg").read_bytes()
    caption = " ".join((GALLERY / f"{name}.md").read_text().split())
    table = pd.read_csv(GALLERY / f"{name}.csv")
    exponents, ratios = exponents_of_table(table), ratios_of_table(table)
    drawn = intervals_in(" ".join(texts_of_svg(picture)))
    # The legend may leave some out, where there are many curves.
    assert drawn <= exponents and bool(drawn) == bool(exponents)
    # Captions say numbers of figures against x itself.
    x = find_experiment(load_spec(ROOT / f"sweeps/{name}.toml").study).x
    said = exponents | ratios if x in table else set()
    assert intervals_in(caption) <= said and bool(intervals_in(caption)) == bool(said)
    # Every window of a fit, and the seeds of all curves.
    if "exponent_from" in table:
        for low, high in set(table[["exponent_from", "exponent_to"]].dropna().itertuples(index=False, name=None)):
            assert f"= {short(low)} to {short(high)}, " in caption
    least, most = table["seeds"].min(), table["seeds"].max()
    assert (f"{least} seeds" if least == most else f"{least} to {most} seeds") in caption
    assert all(name in " ".join(texts_of_svg(picture)) for name in table["curve"].unique())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_caption_is_that_of_its_sweep(name):
    """A claim whose words change needs its caption made again: `python docs/gallery.py STORES`."""
    spec, caption = load_spec(ROOT / f"sweeps/{name}.toml"), " ".join((GALLERY / f"{name}.md").read_text().split())
    assert caption.startswith(f"**{markdown_text(spec.claim)}** ")
    study = re.escape(f"Study {markdown_text(spec.study)}, version ")
    assert re.search(rf"{study}\d+, root key {spec.key}, \d+ cells\.", caption)
    assert f"From `tsjax run {name}`" in caption
    version = re.search(r"version (\d+)", caption)
    assert version is not None and int(version[1]) <= find_experiment(spec.study).version


@pytest.mark.parametrize("name", SHIPPED)
def test_a_picture_is_small_white_and_asks_for_nothing(name):
    picture = (GALLERY / f"{name}.svg").read_text()
    table = pd.read_csv(GALLERY / f"{name}.csv")
    curves = len(table.drop_duplicates([column for column in ("panel", "curve") if column in table]))
    # A picture of very many curves may have 2 kB for each.
    assert len(picture) < max(90_000, 2_000 * curves) and (GALLERY / f"{name}.csv").stat().st_size < 60_000
    assert "fill: #ffffff" in picture.partition("axes_1")[0]
    assert "<script" not in picture and not re.search(r'(?:href|src)="(?!#)', picture)
    texts = [path.read_text() for path in GALLERY.glob(f"{name}.*")]
    assert not [text for text in texts if re.search(r"/(?:tmp|home|root|work)/", text)]


def test_the_pages_show_what_is_there():
    script = _script()
    readme = (ROOT / "README.md").read_text()
    assert script.with_figure(readme) == readme, "run python docs/gallery.py"
    assert (ROOT / "docs/gallery.md").read_text() == script.page(), "run python docs/gallery.py"
    assert "](docs/gallery/superiority.svg)" in readme and (GALLERY / "superiority.md").read_text() in readme
    alternatives = re.findall(r"!\[([^\]]+)\]\(gallery/", script.page())
    assert len(alternatives) == len(SHIPPED) and all(
        re.search("against|in units of|relative to", text) for text in alternatives
    )


_TOY = """
claim = "A planted law."
study = "sweep.toys:power"
[grid]
n = [16, 32, 64]
method = ["fast", "slow"]
seeds = 8
"""


@pytest.mark.parametrize("name", [name for specs in papers().values() for name in specs])
def test_the_results_of_a_paper_are_those_of_its_sweep(name):
    """A row for every claim; what was published is what the sweep file says."""
    spec = load_spec(ROOT / f"sweeps/{name}.toml")
    heading, _, *rows = (GALLERY / f"{name}.claims.md").read_text().splitlines()
    columns = [cell.strip() for cell in heading.strip("|").split("|")]
    cells = [dict(zip(columns, (cell.strip() for cell in row[1:-1].split(" | ")), strict=True)) for row in rows]
    assert len(cells) == len(spec.expect)
    for row, expectation in zip(cells, spec.expect, strict=True):
        assert row["verdict"] in ("holds", "undecided", "fails")
        value, low, high = (float(number) for number in re.findall(r"-?\d[\d.]*(?:e[-+]\d+)?", row["ours [interval]"]))
        assert low <= value <= high
        if expectation.published is not None:
            assert row["published"].startswith(f"{expectation.published.value:g}")
    assert "\n".join(rows) in (ROOT / "docs/studies/index.md").read_text()


def test_the_page_of_results_is_made_from_the_tables():
    assert (ROOT / "docs/studies/index.md").read_text() == _script().results(), "run python docs/gallery.py"


@pytest.mark.slow
def test_one_command_makes_everything_from_stores(tmp_path, monkeypatch):
    from tsjax.sweep.run import run_spec

    for folder in ("sweeps", "docs/gallery", "docs/studies", "runs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sweeps/superiority.toml").write_text(_TOY)
    shutil.copy(ROOT / "README.md", tmp_path)
    spec = load_spec(tmp_path / "sweeps/superiority.toml")
    run_spec(spec, out=tmp_path / "runs/superiority")
    script = _script()
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "GALLERY", tmp_path / "docs/gallery")
    monkeypatch.setattr(script, "STUDIES", tmp_path / "docs/studies")
    script.main(tmp_path / "runs")
    caption = (tmp_path / "docs/gallery/superiority.md").read_text()
    assert caption.startswith("**A planted law.** ") and caption.split("From")[1].strip() == "`tsjax run superiority`."
    assert caption in (tmp_path / "README.md").read_text() and caption in (tmp_path / "docs/gallery.md").read_text()
    assert max(map(len, caption.splitlines())) <= 128
    size = re.search(
        r'<svg [^>]*width="(\d+)" height="(\d+)" viewBox="0 0 504',
        (tmp_path / "docs/gallery/superiority.svg").read_text(),
    )
    assert size is not None and int(size[1]) == 1008
    # What there is no store of stays; another sweep of that name is refused.
    before = (tmp_path / "README.md").read_text()
    script.main(None)
    assert (tmp_path / "README.md").read_text() == before
    (tmp_path / "sweeps/superiority.toml").write_text(_TOY.replace("law", "rule"))
    with pytest.raises(SystemExit, match="of another sweep"):
        script.main(tmp_path / "runs")


def test_a_caption_says_on_how_many_cells_it_stands(tmp_path, monkeypatch):
    from tsjax.sweep.run import run_spec
    from tsjax.sweep.spec import parse_spec

    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/superiority.toml").write_text(_TOY)
    script = _script()
    monkeypatch.setattr(script, "ROOT", tmp_path)
    small = load_spec(tmp_path / "sweeps/superiority.toml").model_dump(exclude_defaults=True)
    small["grid"] = [{**block, "seeds": 2} for block in small["grid"]]
    assert script._origin("superiority", run_spec(parse_spec(small))) == (
        "From `tsjax run superiority`, with 12 of its 48 cells."
    )
