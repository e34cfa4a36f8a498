import dataclasses
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.text import Text

from tsjax.report import (
    plan_json,
    print_doctor,
    print_plan,
    print_result,
    print_status,
    print_verdicts,
    rates_json,
    result_json,
    verdicts_json,
)
from tsjax.report.grids import rates_grid
from tsjax.report.numbers import (
    compute_seconds,
    counts_of,
    duration,
    exponent_with_interval,
    last_point,
    mean_with_error,
    means_of,
    prefixed,
    short,
    variant_of,
    verdict_summary,
    warnings_of,
)
from tsjax.report.series import mean_drawing
from tsjax.sweep.estimate import CurveEstimate, PlanEstimate
from tsjax.sweep.result import Result


def _printed(function, content, width=80) -> str:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        function(content, console)
    text = capture.get()
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    return text


def _squeezed(text: str) -> str:
    """Text without white space: what wraps is still there."""
    return "".join(text.split())


def test_toy_at_80_columns(toy_result):
    text = _printed(print_result, toy_result)
    for curve in toy_result.curves():
        rate = toy_result.rate(curve)
        assert curve.label in text
        assert exponent_with_interval(rate.exponent, *rate.interval) in text
    # What looks like markup is printed as it is.
    assert "[bold]markup[/bold]" in text and "<script>" in text
    assert "1 of 3 expectations holds, 1 failed, 1 undecided." in text
    assert "n = 128..1024, 24 seeds" in text
    for verdict in toy_result.verdicts():
        assert _squeezed(verdict.reason) in _squeezed(text)
    assert "Rao limit" in text and "linear" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_many_curves_lose_nothing(many_result, width):
    text = _squeezed(_printed(print_result, many_result, width))
    for curve in many_result.curves():
        mean = last_point(many_result, curve)
        assert _squeezed(variant_of(many_result, curve)).replace("d=", "") in text
        assert _squeezed(mean_with_error(mean.mean, mean.se)) in text
    assert "missing(NaN)" in text and "Warnings" in text


def test_long_labels_and_different_windows_still_fit(toy_result):
    """The worst case: the curves share neither window nor seeds, names are long, numbers wide."""
    records = toy_result.records.assign(n=toy_result.records["n"] * 10**4)
    ridge = records["method"] == "ridge"
    records = records[~ridge | ((records["n"] < 5 * 10**6) & (records["seed"] < 20))]
    names = {name: f"a student of width 1000 started at the teacher ({name})" for name in ("student", "ridge")}
    experiment = toy_result.experiment.model_copy(update={"labels": names})
    wide = Result(records, toy_result.spec, experiment, {})
    printed = _printed(print_result, wide)
    text = _squeezed(printed)
    for curve in wide.curves():
        point, rate = last_point(wide, curve), wide.rate(curve)
        # Numbers stand in one piece; only the window breaks, after its dots.
        assert f"{short(curve.x[0])}..  " in printed and short(curve.x[-1]) in printed
        assert exponent_with_interval(rate.exponent, *rate.interval) in printed
        assert mean_with_error(point.mean, point.se) in printed
    # In the two tables and in verdicts, once in the headline, once more in the warning about ridge's narrow window.
    assert "undecided" in text and text.count("started") == 9 and "narrowwindow" in text


def test_vector_x_has_no_rates_and_no_warnings(path_result):
    text = _printed(print_result, path_result)
    assert "Exponents" not in text and "Warnings" not in text
    assert "at gradient step = 290" in text and "speed=2" in text
    assert "This sweep states no expectations." in text


def test_rows_say_what_verdicts_say(make_toy):
    """The exponent is that of the window that is claimed, so that a row and its verdict are one number."""
    claim = {"what": "rate of student in n", "value": 1.0, "tolerance": 0.3, "over": {"n": [256, 1024]}}
    result = make_toy(expect=[claim])
    [verdict] = result.verdicts()
    student, ridge, _ = rates_json(result)
    assert (student["exponent"], student["low"], student["high"]) == (verdict.value, *verdict.interval)
    assert (student["x_min"], student["x_max"], student["verdict"]) == (256, 1024, "holds")
    assert (ridge["x_min"], ridge["verdict"]) == (128, "")
    text = _printed(print_result, result)
    number = exponent_with_interval(verdict.value, *verdict.interval)
    assert number in text and f"{number.split()[0]}\n" in "\n".join(line.rstrip() for line in text.splitlines())
    # A verdict on something else than the row's exponent is not the row's.
    other = make_toy(expect=[claim, {**claim, "over": {"n": [128, 512]}}, {**claim, "model": "floor"}])
    assert rates_json(other)[0]["verdict"] == "holds"
    grid = rates_grid(other)
    assert grid is not None and [cell.text for cell in grid.rows[0]].count("holds") == 1


def test_exponents_are_shown_where_a_power_law_is_claimed_or_asked_for(toy_result, make_toy):
    silent = toy_result.experiment.model_copy(update={"rates": False})
    claims = make_toy(expect=[{"what": "rate of ridge in n", "at_least": 0.1}]).spec
    kept = {"plan": toy_result.plan, "theory": toy_result._theory}
    result = Result(toy_result.records, claims, silent, {}, **kept)
    grid = rates_grid(result)
    assert grid is not None and [row[0].text for row in grid.rows] == ["ridge [with brackets]"]
    noted = {series.curve.name for series in mean_drawing(result).series if series.note}
    assert noted == {"ridge"}
    table = _printed(print_result, result).split("Exponents of")[1].split("Excess risk at")[0]
    assert "ridge [with brackets]" in table and table.count("[0.") == 1
    unclaimed = Result(toy_result.records, claims.model_copy(update={"expect": []}), silent, {}, **kept)
    assert rates_grid(unclaimed) is None and "Exponents" not in _printed(print_result, unclaimed)
    assert "Warnings" not in _printed(print_result, unclaimed)
    # `tsjax rates` asks for them.
    asked = _printed(lambda content, console: print_result(content, console, asked=True), unclaimed)
    assert "Exponents of excess risk" in asked and "two-phase student" in asked


def test_too_few_points_are_no_warning_where_no_exponent_is_claimed(make_toy):
    grid = [{"n": [128, 256, 512], "method": "student", "seeds": 6}, {"n": 128, "method": "ridge", "seeds": 6}]
    assert not any("no exponent" in text for _, text in warnings_of(make_toy(grid=grid, expect=[])))
    claimed = make_toy(grid=grid, expect=[{"what": "rate of ridge in n", "at_least": 0.1}])
    [(curves, text)] = [found for found in warnings_of(claimed) if "no exponent" in found[1]]
    assert [curve.name for curve in curves] == ["ridge"]


def test_one_thing_is_warned_of_once(make_toy):
    result = make_toy(grid={"n": [128, 256, 512, 1024], "method": ["student", "ridge"], "seeds": 3}, expect=[])
    texts = [text for _, text in warnings_of(result)]
    assert len(texts) == len(set(texts))
    [few] = [curves for curves, text in warnings_of(result) if "only 3 seeds" in text]
    assert [curve.name for curve in few] == ["student", "ridge"]
    printed = " ".join(_printed(print_result, result).split())
    assert printed.count("only 3 seeds") == 1 and "two-phase student, ridge [with brackets]: only 3 seeds" in printed


def test_one_curve_one_seed(bare_result):
    text = _printed(print_result, bare_result)
    assert "1 seed" in text and "±" not in text.replace("mean ± s.e.", "")
    assert "residual bootstrap" in text and "one seed at every n" in " ".join(text.split())
    [row] = rates_json(bare_result)
    assert row["low"] < row["exponent"] < row["high"] and row["counts"] == {"done": 3}
    assert row["errors"] == "residuals" and row["identified"]


def test_no_records(toy_result):
    empty = Result(pd.DataFrame(), toy_result.spec, toy_result.experiment, {})
    assert "no records yet" in _printed(print_result, empty)
    assert result_json(empty)["rates"] == []


def test_verdicts_alone(toy_result):
    text = _printed(print_verdicts, toy_result)
    assert text.splitlines()[0].startswith("1 of 3")
    assert [line.split()[0] for line in text.splitlines() if line[:1].strip()][1:] == ["holds", "fails", "undecided"]


def test_verdict_colours(toy_result):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        print_verdicts(toy_result, console)
    assert "\x1b[32mholds" in capture.get() and "\x1b[1;31mfails" in capture.get()
    assert Text.from_ansi(capture.get()).plain.count("undecided") == 2


def test_failures_are_counted_by_cell(many_result, path_result):
    total = 0
    for curve, row in zip(many_result.curves(), rates_json(many_result), strict=True):
        counts = counts_of(many_result, curve)
        missing = int(np.isnan(curve.values["risk"]).sum())
        assert counts["converged"] + counts["diverged"] == curve.values["risk"].size
        assert counts["diverged"] == missing == row["failed"]
        total += missing
    assert total > 0
    # Thirty rows a cell, five cells a curve.
    assert counts_of(path_result, path_result.curves()[0]) == {"converged": 5}


def test_last_point_against_the_records(toy_result):
    records = toy_result.records
    student = next(curve for curve in toy_result.curves() if curve.name == "student")
    point = last_point(toy_result, student)
    risks = records[(records["method"] == "student") & (records["n"] == 1024)]["risk"].to_numpy()
    assert point.x == 1024 and point.seeds == 24
    assert point.mean == pytest.approx(risks.mean()) and point.median == pytest.approx(np.median(risks))
    assert point.se == pytest.approx(risks.std(ddof=1) / np.sqrt(24))
    assert point.to_limit is not None and point.to_limit.value == pytest.approx(risks.mean() / (5 / 1024))
    # Both used the same noise: the ratio is known exactly.
    assert point.to_linear is not None and point.to_linear.value == pytest.approx(1024**-0.55)
    best = next(curve for curve in toy_result.curves() if curve.name == "optimal_linear")
    assert last_point(toy_result, best).to_linear is None


def test_means_skip_what_is_missing():
    table = np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan], [2.0, np.nan, np.nan], [-1.0, -1.0, -1.0]])
    mean, low, high = means_of(table)
    np.testing.assert_array_equal(mean, [2.0, np.nan, 2.0, -1.0])
    # Two seeds, standard error 1: Student's quantile is 12.7.
    assert low[0] == pytest.approx(2 * np.exp(-12.7062047 / 2)) and high[0] == pytest.approx(2 * np.exp(12.7062047 / 2))
    assert np.isnan(low[1:]).all() and np.isnan(high[1:]).all()


def test_seconds_count_every_cell_and_program_once(toy_result):
    records = pd.DataFrame(
        {
            "cell": ["a", "a", "b", "c"],
            "method": ["student", "student", "student", "ridge"],
            "run_seconds": [1.0, 1.0, 2.0, 4.0],
            "compile_seconds": [10.0, 10.0, 10.0, 10.0],
        }
    )
    assert compute_seconds(Result(records, toy_result.spec, toy_result.experiment, {})) == (7.0, 20.0)


def _no_nan(value):
    raise AssertionError(f"{value} is not JSON")


@pytest.mark.parametrize("name", ["toy_result", "many_result", "path_result", "bare_result"])
def test_json_round_trips(name, request):
    content = result_json(request.getfixturevalue(name))
    text = json.dumps(content, allow_nan=False)
    assert json.loads(text, parse_constant=_no_nan) == content


def test_json_content(toy_result):
    rows = {row["curve"]: row for row in rates_json(toy_result)}
    student = rows["student"]
    assert student["low"] < student["exponent"] < student["high"]
    assert student["predicted"] == pytest.approx(1.0) and student["asymptote"] == 1.0
    assert student["verdict"] == "holds" and student["warnings"] == []
    assert student["arguments"] == {"method": "student", "d": 5, "failing": 0.0}
    verdicts = verdicts_json(toy_result)
    assert [verdict["outcome"] for verdict in verdicts] == ["holds", "fails", "undecided"]
    assert verdicts[1]["allowed_low"] == 0.9 and verdicts[1]["allowed_high"] is None
    last = {row["curve"]: row for row in result_json(toy_result)["last"]}
    assert last["student"]["relative_to_cramer_rao"]["low"] < 1.4 < last["ridge"]["relative_to_cramer_rao"]["low"]


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ([], "This sweep states no expectations."),
        (["holds"], "1 of 1 expectation holds."),
        (["holds"] * 4, "4 of 4 expectations hold."),
        (["fails", "undecided", "fails"], "0 of 3 expectations hold, 2 failed, 1 undecided."),
    ],
)
def test_verdict_summary(outcomes, text):
    assert verdict_summary(outcomes) == text


def test_numbers_in_words():
    assert [duration(s) for s in (0.85, 3.21, 12.4, 59.7, 250, 3599.8, 12000)] == [
        "850 ms", "3.21 s", "12 s", "1 min", "4 min 10 s", "1 h", "3 h 20 min",
    ]  # fmt: skip
    assert [prefixed(v) for v in (12.34, 999.9, 1234, 1.2e6, 3e9)] == ["12.3", "1k", "1.23k", "1.2M", "3G"]
    assert [short(v) for v in (128.0, 0.05, "paper", True, np.float64(1e12))] == [
        "128",
        "0.05",
        "paper",
        "True",
        "1e+12",
    ]
    assert exponent_with_interval(1.0123, 1.0056, 1.0178) == "1.012 [1.006, 1.018]"
    assert exponent_with_interval(math.nan, math.nan, math.nan) == "–"


def test_plan_status_and_doctor():
    curves = tuple(
        CurveEstimate({"method": name, "d": 5}, 64, 2, 4, 3_000_000, operations, seconds)
        for name, operations, seconds in (("student", 1.2e12, 130.0), ("oracle_student_with_a_long_name", 2e9, 0.5))
    )
    estimate = PlanEstimate(curves, 8_000_000_000, (1e9, 2e9))
    text = _printed(print_plan, estimate)
    assert "method=student" in text and "d=5" not in text and "1.2T" in text
    assert "128 cells in 4 chunks, 8 programs to compile, about 2 min 10 s" in " ".join(text.split())
    unknown = dataclasses.replace(estimate, curves=(dataclasses.replace(curves[0], operations=None, seconds=None),))
    assert "about" not in _printed(print_plan, unknown) and "all cells" in _printed(print_plan, unknown)
    said = " ".join(_printed(print_plan, unknown).split())
    assert "–: time is known once a few cells have run" in said and "FLOP is known if the experiment states" in said
    assert "memory is known" not in said and "is known" not in " ".join(text.split())
    content = plan_json(unknown)
    assert content["curves"][0]["seconds"] is None and json.loads(json.dumps(content, allow_nan=False)) == content

    status = {
        "path": "runs/[x]", "claim": "A claim.", "study": "toy", "cells": 10, "done": 5, "failed": 1, "seconds": 3.0,
        "seconds_left": 600.0, "damaged": ["a.parquet"], "foreign": [], "verified": True, "notes": ["they are mixed"],
        "failures": {"ValueError: no such law": 1},
        "curves": [{"curve": "student", "cells": 10, "done": 5, "failed": 1}],
    }  # fmt: skip
    text = _printed(print_status, status)
    assert "about 10 min" in text
    assert "runs/[x]" in text and "5 of 10 cells, 50 % done, 1 failed" in text and "a.parquet" in text

    doctor = {
        "ok": False, "versions": {"jax": "1.0", "tsjax": None}, "python": "3.11", "backend": "cpu",
        "devices": ["cpu:0"],
        "cores": 2, "memory_bytes": 2e9, "x64": True, "bridge": {"ok": False, "difference": None, "detail": "[gone]"},
        "native": {"used": False, "detail": "there is no C compiler"},
        "fused": {"used": False, "detail": "there is no CUDA device"}, "compiler": "--xla_backend_optimization_level=2",
        "compilation_cache": None, "blas": "openblas",
    }  # fmt: skip
    text = _printed(print_doctor, doctor)
    assert "broken: [gone]" in text and "tsjax missing" in text and "something is broken." in text
