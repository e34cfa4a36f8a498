"""What is drawn against something else than x: exponents against an argument, collapses, and published figures, all planted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsjax as ts
from tsjax.report import write_report
from tsjax.report.captioned import captioned
from tsjax.report.charts import curve_chart
from tsjax.report.derived import collapse_drawings, exponent_drawings
from tsjax.report.figures import draw, drawings
from tsjax.report.series import mean_drawing
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import parse_spec

EXPONENTS = {2: 1.0, 4: 0.5, 8: 0.25}


def _theory(arguments, x):
    return ts.Theory(x ** -EXPONENTS[int(arguments["d"])])


@ts.experiment(
    static=("learner",), curve="learner", metrics={"error": ts.Share(trials="trials")}, y=("risk", "error"), theory=_theory
)  # fmt: skip
def law(key, *, learner: str, n: int, d: float):
    """Risk n^(-2 / d) times noise, and an error that depends on n^2 / d alone."""
    noise = jnp.mean(jax.random.normal(jax.random.fold_in(key, n), (30,)) ** 2)
    error = jnp.round(1000.0 / (1.0 + n**2.0 / d / 50.0)) / 1000.0
    return {"risk": n ** (-2.0 / d) * noise, "error": error, "trials": 1000}


@pytest.fixture(scope="module")
def result():
    expect = [
        {"what": "trend of error in n**2/d relative to n**2*d", "at_most": 0.0},
        {
            "what": "error of a at n = 16",
            "where": {"d": 4.0},
            "published": {"value": 0.5, "error": 0.01},
            "tolerance": 0.2,
        },
    ]
    grid = [{"learner": ["a"], "n": [8, 16, 32, 64], "d": [2.0, 4.0, 8.0], "seeds": 16}]
    spec = parse_spec({"study": "report.test_derived:law", "grid": grid, "expect": expect, "claim": "planted"})
    return run_spec(spec, experiment=law)


def test_exponents_against_an_argument(result):
    (drawing,) = exponent_drawings(result)
    (series,) = drawing.series
    assert drawing.name == "exponent_in_d" and drawing.x == "d"
    assert drawing.caption == "Exponents of risk in n against d, over 16 seeds, with 95 % intervals."
    np.testing.assert_array_equal(series.x, [2.0, 4.0, 8.0])
    planted = np.array([EXPONENTS[d] for d in (2, 4, 8)])
    np.testing.assert_allclose(series.predicted, planted, rtol=1e-9)
    assert np.all((series.low < planted) & (planted < series.high))
    # They are those of the table, which a direct fit gives.
    direct = [result.rate(curve).exponent for curve in sorted(result.curves(), key=lambda c: c.arguments["d"])]
    np.testing.assert_allclose(series.mean, direct)


def test_theory_that_has_no_curve_shows_its_limit():
    limits = ts.experiment(
        law.fn, static=("learner",), curve="learner", theory=lambda arguments, x: ts.Theory(None, 3.0 / arguments["d"])
    )
    (drawing,) = exponent_drawings(ts.sweep(limits, learner=["a"], n=[8, 16, 32], d=[2.0, 4.0, 8.0], seeds=4))
    np.testing.assert_allclose(drawing.series[0].predicted, [1.5, 0.75, 0.375])


def test_two_values_are_no_curve(result):
    few = ts.sweep(law, learner=["a"], n=[8, 16, 32], d=[2.0, 4.0], seeds=4)
    assert exponent_drawings(few) == [] and collapse_drawings(few) == []
    assert len(exponent_drawings(result)) == 1


def test_means_collapse(result):
    z, rival = collapse_drawings(result)
    assert (z.name, rival.name) == ("error_in_n**2/d", "error_in_n**2*d") and z.kind == "mean"
    x, mean = (np.concatenate([getattr(series, name) for series in z.series]) for name in ("x", "mean"))
    # One curve: the error is that of z alone, whichever d it comes from.
    np.testing.assert_allclose(mean, 1.0 / (1.0 + x / 50.0), atol=1e-3)
    assert sorted(set(x)) == sorted({n**2 / d for n in (8, 16, 32, 64) for d in (2, 4, 8)})
    # Against the rival three curves stay apart.
    at = {series.curve.arguments["d"]: series.mean[series.x == 2048.0] for series in rival.series}
    np.testing.assert_allclose([at[d][0] for d in (2.0, 8.0)], [1 / (1 + 512 / 50), 1 / (1 + 32 / 50)], atol=1e-3)


def test_published_figures_stand_beside_ours(result):
    drawing = mean_drawing(result, "error")
    found = {series.curve.arguments["d"]: series.published for series in drawing.series}
    assert found[2.0] is None and found[8.0] is None
    np.testing.assert_array_equal(found[4.0], [[16.0, 0.5, 0.01]])
    traces = [
        trace for trace in curve_chart(result, drawing, drawing.panels[0]).data if "published" in trace["meta"]["keys"]
    ]
    assert len(traces) == 1 and float(traces[0]["y"][0]) == 0.5
    figure = draw(result, drawing)
    assert "published" in [text.get_text() for text in figure.legends[0].get_texts()]
    table = captioned(result, drawing.name).table
    assert table["published"].dropna().tolist() == [0.5]


def test_a_sweep_may_name_the_figure_of_its_claim(result):
    original = result.spec
    try:
        result.spec = original.model_copy(update={"figure": "exponent_in_d"})
        assert captioned(result).name == "exponent_in_d"
        # What a small or unfinished sweep does not have yet is no error.
        result.spec = original.model_copy(update={"figure": "exponent_in_m"})
        assert captioned(result).name == "risk_in_n"
        with pytest.raises(ValueError, match="no figure 'exponent_in_m'"):
            captioned(result, "exponent_in_m")
    finally:
        result.spec = original


@pytest.mark.usefixtures("blank_figures")
def test_the_report_has_them(result, tmp_path):
    page = write_report(result, tmp_path).read_text()
    assert "error against n^2/d" in page.lower() and "exponent of risk against d" in page.lower()
    for drawing in drawings(result):
        draw(result, drawing).draw_without_rendering()
    # Against x itself a metric is drawn once.
    assert len({drawing.name for drawing in drawings(result)}) == len(drawings(result))
    # Names of files stay different where expressions differ in one sign.
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert {"exponent_in_d", "error_in_n__2_d", "error_in_n__2_d-2"} <= names
    caption = captioned(result, "error_in_n**2/d").caption
    assert "against" in caption and "16 seeds" in caption
