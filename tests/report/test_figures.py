import dataclasses
import io
import itertools
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image
from sweep.toys import power, power_spec

from tsjax.report import rate_figure, ratio_figure
from tsjax.report.figures import draw, image
from tsjax.report.numbers import means_of
from tsjax.report.series import mean_drawing
from tsjax.sweep.result import Result
from tsjax.sweep.run import run_spec


def _measured(axes):
    """The lines through means: with markers, and not the caps of error bars."""
    return [line for line in axes.lines if line.get_marker() not in ("", "None") and line.get_linestyle() != "None"]


def _points(line) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def _legend(figure) -> list[str]:
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_one_line_a_curve_inside_the_axes(toy_result):
    figure = rate_figure(toy_result)
    [axes] = figure.axes
    lines = _measured(axes)
    assert len(lines) == len(toy_result.curves()) == 3
    assert axes.get_xscale() == axes.get_yscale() == "log"
    low_x, high_x = axes.get_xlim()
    low_y, high_y = axes.get_ylim()
    for line, curve in zip(lines, toy_result.curves(), strict=True):
        x, y = _points(line)
        np.testing.assert_array_equal(x, curve.x)
        np.testing.assert_allclose(y, np.nanmean(curve.values["risk"], axis=1))
        assert (low_x < x).all() and (x < high_x).all() and (low_y < y).all() and (y < high_y).all()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["128", "256", "512", "1024"]
    assert axes.get_xlabel() == "sample size n"


def test_curves_differ_without_colour(toy_result):
    [axes] = rate_figure(toy_result).axes
    lines = _measured(axes)
    assert len({str(line.get_marker()) for line in lines}) == len({to_hex(line.get_color()) for line in lines}) == 3
    assert len({str(line._dash_pattern) for line in lines}) == 3  # pyright: ignore[reportAttributeAccessIssue]


def test_theory_is_drawn_once(toy_result):
    [axes] = rate_figure(toy_result).axes
    student = next(curve for curve in toy_result.curves() if curve.name == "student")
    plain = [line for line in axes.lines if line.get_marker() in ("", "None") and len(_points(line)[0]) == 4]
    # Two predicted curves, and the limit of the student.
    assert len(plain) == 3
    limits = [line for line in plain if np.allclose(_points(line)[1], student.theory.predicted)]
    assert len(limits) == 1 and limits[0].get_color() == "black"


def test_legend_has_names_exponents_and_what_lines_mean(toy_result):
    labels = _legend(rate_figure(toy_result))
    rate = toy_result.rate(toy_result.curves()[0])
    low, high = rate.interval
    assert f"{toy_result.curves()[0].label}  {rate.exponent:.2f} [{low:.2f}, {high:.2f}]" in labels
    assert "Cramér-Rao limit" in labels and "theory, in the curve's colour" in labels and len(labels) == 5


@pytest.mark.parametrize("name", ["toy_result", "many_result", "path_result"])
def test_nothing_overlaps_or_is_cut(name, request):
    figure = rate_figure(request.getfixturevalue(name))
    figure.draw_without_rendering()
    [legend] = figure.legends
    renderer = FigureCanvasAgg(figure).get_renderer()
    below, page = legend.get_window_extent(renderer), figure.bbox
    for axes in figure.axes:
        box = axes.get_tightbbox(renderer)
        assert box is not None and not box.overlaps(below)
        assert box.x0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
        labels = [label.get_window_extent(renderer) for label in axes.get_xticklabels() if label.get_text()]
        assert not any(a.overlaps(b) for a, b in zip(labels, labels[1:], strict=False))
    assert below.x0 >= 0 and below.x1 <= page.x1 and below.y0 >= -1


def test_a_panel_for_each_combination(many_result):
    figure = rate_figure(many_result)
    assert [axes.get_title() for axes in figure.axes] == ["d = 2", "d = 5", "d = 10"]
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        notes = [text.get_text() for text in legend.get_texts()]
        assert len(notes) == 2 and all("[" in note for note in notes)
    # Names are told once, in the same look everywhere.
    assert len([label for label in _legend(figure) if "student" in label]) == 1
    colours = [[line.get_color() for line in _measured(axes)] for axes in figure.axes]
    assert colours[0] == colours[1] == colours[2]


def test_at_most_four_panels_in_a_row(make_toy):
    grid = {"n": [128, 512], "method": "student", "d": list(range(2, 9)), "seeds": 4}
    figure = rate_figure(make_toy(grid=grid, expect=[]))
    assert len(figure.axes) == 7
    assert max(len(row) for row in _rows(figure)) == 4


def _rows(figure) -> list[list]:
    figure.draw_without_rendering()
    rows: dict[float, list] = {}
    for axes in figure.axes:
        rows.setdefault(round(axes.get_position().y0, 2), []).append(axes)
    return list(rows.values())


def test_returned_x_is_linear_with_bands(path_result):
    figure = rate_figure(path_result, "train_loss")
    [axes] = figure.axes
    assert axes.get_xscale() == "linear" and axes.get_yscale() == "log"
    assert len(axes.collections) == 2 and axes.get_ylim()[0] < 0.5 * np.exp(-0.02 * 290) * 2
    assert _legend(figure) == [curve.label for curve in path_result.curves()]


def test_ratio_only_where_theory_predicts_the_limit(toy_result, path_result, bare_result):
    figure = ratio_figure(toy_result)
    assert figure is not None
    [axes] = figure.axes
    [line] = _measured(axes)
    student = next(curve for curve in toy_result.curves() if curve.name == "student")
    mean, _, _ = means_of(student.values["risk"])
    np.testing.assert_allclose(_points(line)[1], mean * student.x / 5)
    assert axes.get_yscale() == "linear" and axes.get_ylim()[0] < 1 < axes.get_ylim()[1]
    assert ratio_figure(path_result) is None and ratio_figure(bare_result) is None


def test_an_n_at_which_all_failed_is_left_out(toy_result):
    records = toy_result.records.copy()
    records.loc[(records["n"] == 1024) & (records["method"] == "student"), "risk"] = np.nan
    [axes] = rate_figure(Result(records, toy_result.spec, toy_result.experiment, {})).axes
    assert sorted(len(_points(line)[0]) for line in _measured(axes)) == [3, 4, 4]


@pytest.mark.parametrize(("style", "inches"), [("column", 3.4), ("page", 7.0)])
def test_files_embed_fonts_and_repeat(toy_result, style, inches):
    before = dict(matplotlib.rcParams)
    figure = rate_figure(toy_result, style=style)
    pdf = image(figure, "pdf")
    assert pdf.startswith(b"%PDF") and b"/CIDFontType2" in pdf and b"/Type3" not in pdf
    png = image(figure, "png")
    width = int.from_bytes(png[16:20], "big")
    assert png.startswith(b"\x89PNG") and width == round(300 * inches)
    svg = ElementTree.fromstring(image(figure, "svg"))
    assert svg.attrib["width"] == f"{72 * inches:g}pt"
    again = rate_figure(toy_result, style=style)
    assert image(again, "png") == png and image(again, "svg") == image(figure, "svg")
    assert dict(matplotlib.rcParams) == before


def test_curves_differ_in_grey(toy_result):
    """Not by their grey alone: by dashes and markers, which a grey print keeps."""
    image_of = lambda figure: np.asarray(Image.open(io.BytesIO(image(figure, "png"))).convert("L"))
    drawing = mean_drawing(toy_result)
    [panel] = drawing.panels
    alone = []
    for series in panel.series:
        # Each curve in turn on the data of the first.
        one = panel.series[0]._replace(look=series.look)
        alone.append(image_of(draw(toy_result, drawing._replace(panels=[panel._replace(series=[one])]))))
    for a, b in itertools.combinations(alone, 2):
        # Where one has ink and the other none.
        assert ((a < 200) != (b < 200)).sum() > 1000


def test_plot_returns_the_axes(toy_result, many_result):
    axes = toy_result.plot()
    assert axes.shape == (1,) and axes[0].figure.get_size_inches()[0] == pytest.approx(3.4)
    np.testing.assert_allclose(_points(_measured(axes[0])[0])[1], toy_result.curves()[0].values["risk"].mean(axis=1))
    assert len(many_result.plot(style="page")) == 3
    figure, own = plt.subplots(1, 3)
    assert many_result.plot(axes=own) is not None
    assert [len(_measured(one)) for one in own] == [2, 2, 2] and own[1].get_title() == "d = 5"
    assert own[0].get_legend() is not None
    with pytest.raises(ValueError, match="one matplotlib axes for each of the 3 panels"):
        many_result.plot(axes=own[:2])
    with pytest.raises(ValueError, match="no such style. Allowed: column, page"):
        toy_result.plot(style="poster")
    plt.close("all")


def test_what_cannot_be_drawn(toy_result):
    with pytest.raises(ValueError, match="among those of toy: risk"):
        rate_figure(toy_result, "loss")
    with pytest.raises(ValueError, match="no records"):
        rate_figure(Result(pd.DataFrame(), toy_result.spec, toy_result.experiment, {}))


def test_shares_have_an_axis_from_0_to_1():
    result = run_spec(
        power_spec(grid={"n": [16, 32], "method": ["fast", "slow"], "seeds": 8}),
        experiment=dataclasses.replace(power, y=("risk", "done")),
    )
    axes = rate_figure(result, "done").axes[0]
    assert axes.get_yscale() == "linear" and axes.get_ylim()[0] < 0 and axes.get_ylim()[1] > 1
    # The exact interval of 8 successes of 8 reaches down to 0.025^(1/8).
    lowest = min(segment[:, 1].min() for bars in axes.collections for segment in bars.get_segments())
    assert lowest == pytest.approx(0.025 ** (1 / 8), rel=1e-6)
