"""A figure with its table and its caption: all three say the same numbers."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from helpers import exponents_of_table, intervals_in, ratios_of_table, texts_of_svg

from tsjax.rates import mean_ratio
from tsjax.report.captioned import _exponents, captioned, shortened, write_captioned
from tsjax.report.heat import all_maps
from tsjax.report.numbers import digits, exponent_with_interval, ratio_with_interval
from tsjax.report.output import OutputError
from tsjax.report.publish import markdown_text
from tsjax.report.series import Drawing


@pytest.fixture(scope="module")
def written(toy_result, tmp_path_factory):
    """Picture, table and caption of the toy sweep, as files."""
    paths = write_captioned(toy_result, tmp_path_factory.mktemp("figure") / "toy.svg")
    assert [path.name for path in paths] == ["toy.svg", "toy.csv", "toy.md"]
    picture, table, caption = (path.read_bytes() for path in paths)
    return picture, pd.read_csv(io.BytesIO(table)), caption.decode()


_MARKS = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">
  <defs><path id="m0123456789" d="M 1.23456 0" style="stroke: red"/></defs>
  <g id="a">
   <use xlink:href="#m0123456789" x="1.23456" style="fill: red"/>
   <use xlink:href="#m0123456789" x="2.5" style="fill: red"/>
  </g>
  <g clip-path="url(#pabcdefabcd)">
   <use xlink:href="#m0123456789" x="3" style="fill: red"/>
   <use xlink:href="#m0123456789" x="4" style="fill: blue"/>
  </g>
  <text>m0123456789 at 1.23456</text>
</svg>"""


def test_a_shortened_svg_draws_the_same():
    def drawn(svg):
        """The place, style and clip of each mark, where a mark takes from its group what it lacks itself, and the texts."""
        root = ElementTree.fromstring(svg)
        leaves = [
            (mark.get("x"), mark.get("style") or group.get("style"), mark.get("clip-path") or group.get("clip-path"))
            for group in root.iter("{http://www.w3.org/2000/svg}g")
            for mark in group
        ]
        return [(f"{float(x):.2f}", style, clip and clip[:4]) for x, style, clip in leaves], texts_of_svg(svg)

    short = shortened(_MARKS.encode())
    assert drawn(short) == drawn(_MARKS.encode()) and len(short) < len(_MARKS) - 100
    assert short.count(b"fill: red") == 2 and short.count(b'href="#m0"') == 4 and b'id="m0"' in short


def test_the_table_has_what_the_figure_shows(toy_result, written):
    _, table, _ = written
    y, curves = toy_result.experiment.y[0], toy_result.curves()
    assert len(table) == sum(len(curve.x) for curve in curves)
    for curve, name in zip(curves, table["curve"].unique(), strict=True):
        rows, rate = table[table["curve"] == name], toy_result.rate(curve)
        np.testing.assert_array_equal(rows["n"], curve.x)
        np.testing.assert_allclose(rows["mean"], np.nanmean(curve.values[y], axis=1), rtol=1e-7)
        assert (rows["low"] < rows["mean"]).all() and (rows["mean"] < rows["high"]).all()
        theory = "limit" if curve.name == "student" else "predicted"
        np.testing.assert_allclose(rows[theory], curve.theory.predicted, rtol=1e-7)
        assert set(rows["seeds"]) == {24}
        np.testing.assert_allclose(
            rows[["exponent", "exponent_low", "exponent_high"]].iloc[0], [rate.exponent, *rate.interval], rtol=1e-7
        )
        assert (rows["exponent_from"].iloc[0], rows["exponent_to"].iloc[0]) == (128, 1024)


def test_ratios_are_those_of_the_verdicts(toy_result, written):
    _, table, caption = written
    student, _, linear = toy_result.curves()
    last = table[(table["curve"] == "two-phase student") & (table["n"] == 1024)].iloc[0]
    to_limit = mean_ratio(student.values["risk"][-1], 5 / 1024)
    to_linear = mean_ratio(linear.values["risk"][-1], student.values["risk"][-1])
    assert last["to_limit"] == pytest.approx(to_limit.value) and last["best_linear"] == pytest.approx(to_linear.value)
    assert [last["to_limit_low"], last["to_limit_high"]] == pytest.approx(to_limit.interval)
    assert f"is {ratio_with_interval(to_limit)} times the Cramér-Rao limit at n = 1024" in caption
    assert f"is {ratio_with_interval(to_linear)} times that of the two-phase student at n = 1024." in caption


def test_picture_and_caption_say_the_numbers_of_the_table(written):
    picture, table, caption = written
    known = exponents_of_table(table)
    assert intervals_in(" ".join(texts_of_svg(picture))) == known and len(known) == 3
    assert known < intervals_in(caption) <= known | ratios_of_table(table)
    assert "over n = 128 to 1024, two-phase student " in caption and "over 24 seeds, with 95 % intervals" in caption


def test_a_caption_is_safe_and_complete(toy_result, written):
    _, _, caption = written
    assert caption.startswith("**A \\<script\\>alert") and "<script>" not in caption
    assert "expectation" in caption and "version 1, root key 0, 288 cells." in caption
    assert "stand on" not in caption and caption.count("\n") == 1


@pytest.mark.slow
def test_every_figure_has_a_caption(many_result, panels_result, path_result, found_result, bare_result):
    for result in (many_result, panels_result, path_result, found_result, bare_result):
        first = captioned(result)
        assert first.name.startswith(result.experiment.y[0])
        assert (
            isinstance(first.plate, Drawing)
            and markdown_text(first.plate.caption) in first.caption
            and len(first.table)
        )
        assert not first.table.isna().all().any()
    assert "failed" in captioned(many_result).table and "failed" not in captioned(found_result).table
    panels = captioned(panels_result).table["panel"].unique()
    assert len(panels) == 3
    assert all(
        f"Fitted exponents with 95 % intervals at {panel}: over n = 128 to 512, " in captioned(panels_result).caption
        for panel in panels
    )
    assert "exponent" not in captioned(path_result).table and "Fitted" not in captioned(path_result).caption
    assert re.search(r"At gradient step = 290: 0\.\d+ \[0\.\d+, 0\.\d+\] \(", captioned(path_result).caption)
    success = captioned(found_result, "success_in_n")
    assert success.caption.startswith("Share of success") and "exponent" not in success.table


def test_many_curves_are_summed_up(toy_result):
    rows = captioned(toy_result).table.assign(panel="").to_dict("records")
    (sentence,) = _exponents("", rows, "n", 2)
    rates = toy_result.rates()
    least = rates.loc[rates["exponent"].idxmin()]
    assert f"3 curves from {exponent_with_interval(least['exponent'], least['low'], least['high'])} (" in sentence


def test_many_panels_are_summed_up(panels_result, monkeypatch):
    monkeypatch.setattr("tsjax.report.captioned._PANELS", 2)
    caption = captioned(panels_result).caption
    assert (
        caption.count("Fitted exponents") == 1
        and caption.count("At the largest sample size n of each curve, the mean") == 1
    )
    assert " times the Cramér-Rao limit (two-phase student at d = " in caption


def test_files_are_equal_for_equal_records_and_small(toy_result, written, tmp_path):
    again = write_captioned(toy_result, tmp_path / "toy.svg")[0].read_bytes()
    assert again == written[0] and len(again) < 60_000
    # Coordinates are short, text is as it was.
    assert b"<text" in again and not re.search(rb' d="[^"]*\d\.\d{3}', again)


def test_what_cannot_be_written_is_said(toy_result, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.png, \.pdf, \.svg"):
        write_captioned(toy_result, tmp_path / "a.gif")
    with pytest.raises(ValueError, match="no figure 'x'.*risk_in_n"):
        write_captioned(toy_result, tmp_path / "a.svg", "x")
    with pytest.raises(OutputError, match=r"cannot write .*a\.svg"):
        write_captioned(toy_result, tmp_path / "nowhere" / "a.svg")
    assert not list(tmp_path.iterdir())


def test_names_are_no_formulas_for_spreadsheets(tmp_path):
    from typing import Literal

    import jax

    from tsjax.sweep.experiment import experiment
    from tsjax.sweep.run import sweep

    @experiment(static=("name",), curve="name")
    def named(key, *, n: int, name: Literal["=1+1", "b"]):
        return {"risk": jax.random.uniform(key) / n}

    paths = write_captioned(sweep(named, n=[2, 4], name=["=1+1", "b"], seeds=3), tmp_path / "a.svg")
    assert paths[1].read_text().splitlines()[1].startswith("'=1+1,")


def test_maps_have_a_table_and_a_caption(many_result, tmp_path):
    [first, *_] = all_maps(many_result)
    picture, table, caption = write_captioned(many_result, tmp_path / "map.svg", first.name)
    rows = pd.read_csv(table)
    assert list(rows) == [*first.axes, "mean"] and len(rows) == np.isfinite(first.z).sum()
    for x, y, mean in rows.itertuples(index=False):
        assert first.z[first.y == y, first.x == x] == pytest.approx(mean, rel=1e-7)
    text = caption.read_text()
    least, most = rows["mean"].min(), rows["mean"].max()
    assert f"from {digits(least)} at " in text and f"to {digits(most)} at " in text and "Study " in text
    assert {digits(least, 2), digits(most, 2)} <= set(texts_of_svg(picture.read_bytes()))
