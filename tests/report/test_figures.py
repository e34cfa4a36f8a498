import dataclasses
import io
import itertools
import re
import warnings
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image
from sweep.toys import power, power_spec

import tsjax as ts
from tsjax.report import rate_figure, ratio_figure
from tsjax.report.figures import draw, heat_figure, image
from tsjax.report.heat import all_maps
from tsjax.report.look import COLOURS
from tsjax.report.numbers import digits, means_of
from tsjax.report.series import mean_drawing, scale_of
from tsjax.sweep.experiment import experiment
from tsjax.sweep.result import Result
from tsjax.sweep.run import run_spec, sweep
from tsjax.sweep.spec import parse_spec


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


def test_a_panel_for_each_combination(panels_result):
    figure = rate_figure(panels_result)
    assert [axes.get_title() for axes in figure.axes] == ["d = 2", "d = 5", "d = 10"]
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        # The name and the exponent of a curve stand together.
        notes = [text.get_text() for text in legend.get_texts()]
        assert len(notes) == 3 and all("[" in note for note in notes)
        assert [note.split("  ")[0].split("\n")[0] for note in notes] == [
            "two-phase student", "ridge [with brackets]", "optimal linear estimator",
        ]  # fmt: skip
    assert _legend(figure) == ["Cramér-Rao limit", "theory, in the curve's colour"]
    colours = [[line.get_color() for line in _measured(axes)] for axes in figure.axes]
    assert colours[0] == colours[1] == colours[2]


def test_few_panels_in_a_row(make_toy):
    grid = {"n": [128, 512], "method": ["student", "ridge", "optimal_linear"], "d": list(range(2, 9)), "seeds": 4}
    figure = rate_figure(make_toy(grid=grid, expect=[]))
    assert len(figure.axes) == 7
    assert max(len(row) for row in _rows(figure)) == 3


def test_panels_are_in_the_order_of_their_numbers(make_toy):
    """Also where one part of the grid has numbers between those of another; names that are too long for a panel are whole."""
    part = {"n": [128, 512], "method": ["student", "ridge", "optimal_linear"], "seeds": 4}
    figure = rate_figure(make_toy(grid=[{**part, "d": [2, 5, 8]}, {**part, "d": [3, 4, 6]}], expect=[]))
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) > 2 and titles == sorted(titles)
    legends = [legend for axes in figure.axes if (legend := axes.get_legend()) is not None]
    labels = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert len(legends) == len(titles)
    assert not any("…" in label for label in labels)


def _rows(figure) -> list[list]:
    figure.draw_without_rendering()
    rows: dict[float, list] = {}
    for axes in figure.axes:
        rows.setdefault(round(axes.get_position().y0, 2), []).append(axes)
    return list(rows.values())


def test_the_values_of_a_second_axis_are_colours_of_one_panel(many_result):
    [axes] = rate_figure(many_result).axes
    lines = _measured(axes)
    assert len(lines) == 6
    colours = [to_hex(line.get_color()) for line in lines]
    # Three colours of a ramp, for d; two markers, for learners.
    assert colours[:3] == colours[3:] and len(set(colours)) == 3 and set(colours) <= set(COLOURS[7:])
    assert (
        len({str(line.get_marker()) for line in lines[:3]}) == len({str(line.get_marker()) for line in lines[3:]}) == 1
    )
    assert lines[0].get_marker() != lines[3].get_marker()


def test_learners_with_arguments_of_their_own_share_a_panel():
    """`restarts` is the student's own, and part of its name where it varies."""
    grid = [
        {"n": [16, 32, 64], "learner": "student", "restarts": [1, 4], "seeds": 4},
        {"n": [16, 32, 64], "learner": "ridge", "seeds": 4},
    ]
    result = run_spec(parse_spec({"study": "nowhere:own", "grid": grid}), experiment=own)
    figure = rate_figure(result)
    assert len(figure.axes) == 1
    names = [label.split("  ")[0] for label in _legend(figure)]
    assert sorted(names) == ["ridge", "student, restarts = 1", "student, restarts = 4"]


@experiment(static=("learner",), curve="learner")
def own(key, *, learner: str, n: int, restarts: int = 1):
    return {"risk": (2.0 if learner == "ridge" else 1.0 / restarts) / n * (1 + jax.random.uniform(key))}


@pytest.mark.parametrize("style", ["column", "page"])
@pytest.mark.parametrize("name", ["toy_result", "many_result", "panels_result"])
def test_the_legend_is_a_small_part_of_the_picture(name, style, request):
    figure = rate_figure(request.getfixturevalue(name), style=style)
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()) is not None)]
    boxes = [legend.get_window_extent(renderer) for legend in legends]
    assert sum(box.width * box.height for box in boxes) < 0.35 * figure.bbox.width * figure.bbox.height


@experiment(x="noise")
def zeros(key, *, noise: float):
    """A risk that is 0 where there is no noise."""
    return {"risk": noise * jax.random.uniform(key, minval=0.5)}


def test_axes_with_0_are_symlog():
    result = sweep(zeros, seeds=6, noise=[0.0, 0.01, 0.1, 1.0])
    [axes] = rate_figure(result).axes
    assert axes.get_xscale() == axes.get_yscale() == "symlog"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.01", "0.1", "1"]
    [line] = _measured(axes)
    low, high = axes.get_ylim()
    assert _points(line)[1][0] == 0.0 and low < 0 < high
    # 0 stands a step apart from the smallest value, as the others do from one another.
    places = axes.transData.transform(np.column_stack(_points(line)))[:, 0]
    assert np.diff(places).min() > 0.7 * np.diff(places).max()


@pytest.mark.parametrize("values", [[1e-3, 1.0, 50.0], [0.0, 0.01, 3.0], [-2.0, 0.0, 0.05, 10.0], [-1.0, 1.0, 2.0]])
def test_scales_go_there_and_back(values):
    scale = scale_of(np.array(values))
    np.testing.assert_allclose(scale.back(scale.forward(np.array(values))), values, rtol=1e-12, atol=1e-300)


@pytest.mark.slow
def test_maps_are_figures_too(many_result, tmp_path):
    [first, _] = all_maps(many_result)
    figure = heat_figure(first)
    assert figure.axes[0].get_xlabel() == "sample size n" and figure.axes[0].get_ylabel() == "d"
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == [digits(value, 2) for value in first.z.ravel()]
    many_result.report(tmp_path)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names >= {re.sub(r"[^\w.-]", "_", heat.name) for heat in all_maps(many_result)}


def test_returned_x_is_linear_with_bands(path_result):
    figure = rate_figure(path_result, "train_loss")
    [axes] = figure.axes
    assert axes.get_xscale() == "linear" and axes.get_yscale() == "log"
    assert len(axes.collections) == 2 and axes.get_ylim()[0] < 0.5 * np.exp(-0.02 * 290) * 2
    assert sorted(_legend(figure)) == ["speed = 1", "speed = 2"]


def test_theory_of_a_single_point_is_visible(toy_result):
    """A line through one point has no length."""
    names = ("x", "mean", "low", "high", "predicted", "limit")
    drawing = mean_drawing(toy_result, "risk")
    for kept, marked in ((slice(None), False), (slice(1), True)):
        cut = lambda one, kept=kept: one._replace(
            **{name: getattr(one, name)[kept] for name in names if getattr(one, name) is not None}
        )
        panels = [panel._replace(series=[cut(one) for one in panel.series]) for panel in drawing.panels]
        [axes] = draw(toy_result, drawing._replace(panels=panels)).axes
        assert any(line.get_marker() == "_" and line.get_markersize() > 10 for line in axes.lines) == marked


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


@pytest.mark.slow
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


def test_plot_returns_the_axes(toy_result, panels_result):
    axes = toy_result.plot()
    assert axes.shape == (1,) and axes[0].figure.get_size_inches()[0] == pytest.approx(3.4)
    np.testing.assert_allclose(_points(_measured(axes[0])[0])[1], toy_result.curves()[0].values["risk"].mean(axis=1))
    assert len(panels_result.plot(style="page")) == 3
    figure, mine = plt.subplots(1, 3)
    assert panels_result.plot(axes=mine) is not None
    assert [len(_measured(one)) for one in mine] == [3, 3, 3] and mine[1].get_title() == "d = 5"
    assert mine[0].get_legend() is not None
    with pytest.raises(ValueError, match="one matplotlib axes for each of the 3 panels"):
        panels_result.plot(axes=mine[:2])
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


def test_a_single_x_is_drawn_without_a_warning():
    @experiment(static=("learner",), curve="learner")
    def cell(key, *, learner: str, n: int, d: float):
        return {"risk": d / n * (1.0 + jax.random.uniform(key))}

    result = sweep(cell, seeds=4, learner=["a", "b", "c"], n=[100], d=[2.0, 4.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = rate_figure(result)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low < 100 < high and len(axes.lines) >= 3


def test_zero_stands_at_the_edge_of_a_symlog_axis():
    @experiment(x="strength")
    def cell(key, *, strength: float):
        return {"risk": 1.0 + strength + jax.random.uniform(key)}

    (axes,) = rate_figure(sweep(cell, seeds=4, strength=[0.0, 1e-5, 1e-4, 1e-3])).axes
    low, high = axes.get_xlim()
    places = axes.transData.transform([[low, 1.0], [0.0, 1.0], [high, 1.0]])[:, 0]
    assert 0.0 < (places[1] - places[0]) / (places[2] - places[0]) < 0.1


@pytest.mark.parametrize(("fall", "every"), [(1e-2, 1.0), (1e-9, 2.0)])
def test_powers_of_ten_are_marked_as_they_have_room(fall, every):
    """Over many decades every second power is marked, and nothing between them."""

    @experiment(x="n")
    def cell(key, *, n: int, fall: float):
        return {"risk": jnp.where(n > 16, fall, 1.0) * (1.0 + jax.random.uniform(key))}

    figure = rate_figure(sweep(cell, seeds=4, n=[16, 32], fall=[fall]))
    image(figure, "png")
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    marked = [tick for tick in axes.get_yticks() if low < tick < high]
    assert len(marked) >= 2 and np.allclose(np.diff(np.log10(marked)), every)
    assert bool(len(axes.get_yticks(minor=True))) == (every == 1.0)


@pytest.mark.parametrize(
    ("least", "rates", "scale"), [(0.4, False, "linear"), (0.4, True, "log"), (0.01, False, "log")]
)
def test_accuracies_are_drawn_on_a_linear_axis(least, rates, scale):
    """Shares within a factor 8 that are no powers of x; and long titles of panels are broken into lines."""

    @ts.black_box(curve="learner", metrics={"risk": ts.Share(trials=1000)}, rates=rates)
    def accuracy(seed: int, *, n: int, learner: str, repulsion: float, noise_of_labels: float):
        return {"risk": least if n == 8 else 0.9}

    axes = {"n": [8, 16], "learner": ["a", "b", "c"], "repulsion": [0.0, 1.0]}
    result = ts.sweep(accuracy, seeds=2, noise_of_labels=[0.0, 0.25], engine=ts.engines.BlackBox(processes=1), **axes)
    panels = result.plot(style="page")
    assert {one.get_yscale() for one in panels} == {scale}
    # Titles of neighbours do not run into one another.
    figure = panels[0].get_figure()
    figure.draw_without_rendering()
    boxes = [one.title.get_window_extent() for one in panels]
    assert len(boxes) == 4 and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    plt.close(figure)
