"""What the benchmarks compare must be the same work, and their guard must fail when it should."""

import importlib
import importlib.util
import json
import re
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import (
    compare,
    exact_risk,
    gpu,
    gpu_code,
    gpu_sweep,
    large_ridge_peers,
    million,
    networks,
    runner_ways,
    runners,
    ways,
)
from benchmarks.__main__ import NAMES, main
from benchmarks.training import LIMIT, OURS, draw
from tsjax.fast import native


@pytest.fixture(scope="module")
def case():
    return ways.Case(*draw((48, 256, 4, 2)), steps=400, threads=2, few=48)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ways.WAYS))
def test_every_way_trains(case, name):
    """All reach the loss of the textbook; scikit-learn's students have biases, smaller steps and no noise."""
    if name == LIMIT and native.load()[0] is None:
        pytest.skip("no C compiler")
    try:
        losses = ways.WAYS[name](case)()
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    typical = np.median(ways.jax_vmap(case)())
    assert losses.shape == (48,) and typical < 0.1 * 0.5 * np.mean(case.y**2)
    if name.startswith("scikit-learn"):
        assert np.median(losses) < 0.5 * 0.5 * np.mean(case.y**2)
    else:
        assert np.median(losses) == pytest.approx(typical, rel=0.3)


@pytest.mark.slow
def test_a_thousand_networks_are_the_same_work():
    """Mean errors of 60 networks at learning rates that suit them, by tsjax and by the loop: equal within 4 standard errors."""
    rates = np.full(60, 3e-3)
    errors = [np.asarray(way(rates), float) for way in (networks.by_tsjax, networks.by_a_jitted_loop)]
    one, other = errors
    spread = ((one.var() + other.var()) / 60) ** 0.5
    assert abs(one.mean() - other.mean()) < 4 * spread and one.mean() < 0.7, (one.mean(), other.mean(), spread)


@pytest.mark.skipif(native.load()[0] is None, reason="no C compiler")
def test_the_limit_in_c_without_noise_is_gradient_descent(case):
    def train(x, y, a, w):
        half_mse = lambda a, w: 0.5 * jax.numpy.mean((jax.nn.relu(x @ w.T) @ a - y) ** 2)
        penalty = lambda a, w: case.penalty * (jax.numpy.sum(a**2) + jax.numpy.sum(w**2))
        gradient = jax.grad(lambda a, w: half_mse(a, w) + penalty(a, w), argnums=(0, 1))
        step = lambda _, p: jax.tree.map(lambda p, g: p - case.step_size * g, p, gradient(*p))
        return half_mse(*jax.lax.fori_loop(0, case.steps, step, (a, w)))

    expected = jax.jit(jax.vmap(train))(case.x, case.y, case.a, case.w)
    np.testing.assert_allclose(ways.c_loop(case, noise=False)(), expected, rtol=1e-3)


def _run(**speeds):
    reached = {name.replace("_", " "): {"student_steps_per_second": speed} for name, speed in speeds.items()}
    ours = {OURS: {"student_steps_per_second": 100.0}}
    return {"ours": OURS, "results": [{"shape": [32, 2048, 5, 3], "ways": {**ours, **reached}}]}


@pytest.mark.parametrize(
    ("now", "code", "said"),
    [
        ({"torch": 6.6, "loop": 50.0}, 0, "none of 2 ratios fell by more than 25 %"),
        ({"torch": 6.7, "loop": 50.0}, 1, "(32, 2048, 5, 3), against torch: 20.00 before, 14.93 now"),
        ({"loop": 10.0}, 1, "against torch: 20.00 before, not measured now"),
    ],
)
def test_the_guard(tmp_path, capsys, now, code, said):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(_run(torch=5.0, loop=50.0)))
    new.write_text(json.dumps(_run(**now)))
    with pytest.raises(SystemExit) as stop:
        compare.main([str(old), str(new)])
    assert stop.value.code == code and said in capsys.readouterr().out


def test_the_guard_refuses_what_cannot_be_compared(tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(_run(torch=5.0) | {"device": "NVIDIA H200"}))
    new.write_text(json.dumps(_run(torch=5.0) | {"device": "NVIDIA H100"}))
    with pytest.raises(SystemExit) as stop:
        compare.main([str(old), str(new)])
    assert stop.value.code == 2 and "device differs: NVIDIA H200 in " in capsys.readouterr().err


def test_where_ours_failed_the_guard_misses_it(tmp_path):
    failed = _run(torch=5.0)
    failed["results"][0]["ways"][OURS] = {"failed": "XlaRuntimeError"}
    assert compare.losses(_run(torch=5.0), failed, 0.25) == [
        "(32, 2048, 5, 3), against torch: 20.00 before, not measured now"
    ]


@pytest.mark.parametrize(("name", "count"), [("training", 4 * 8), ("gpu", 5)])
def test_baselines_are_of_the_kind_that_the_guard_reads(name, count):
    kept = json.loads((Path(compare.__file__).parent / f"{name}.json").read_text())
    assert len(compare.ratios(kept)) >= count and not compare.losses(kept, kept, 0.25)
    assert kept["ours"] in (OURS, gpu.OURS)


@pytest.mark.slow
def test_the_table_of_a_gpu(tmp_path, capsys):
    """In Pallas' interpreter: every way has a speed or says why not, and the guard reads what was written."""
    out = tmp_path / "gpu.json"
    gpu.main(["--shapes", "2", "48", "3", "2", "--steps", "3", "--repeats", "1", "--json", str(out)])
    run = json.loads(out.read_text())
    (row,) = run["results"]
    assert {gpu.OURS, gpu.XLA} <= set(row["ways"]) and run["device"] == "cpu"
    assert (str((2, 48, 3, 2)), gpu.XLA) in compare.ratios(run), row
    assert "| (2, 48, 3, 2) | fused, chosen | " in capsys.readouterr().out


def test_every_name_has_its_module():
    for name in NAMES:
        assert callable(importlib.import_module(f"benchmarks.{name}").main)


def test_the_list_of_names_fits_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0 and len(lines) == len(NAMES) + 2 and max(map(len, lines)) <= 80


@pytest.mark.slow
def test_whole_sweeps_in_fresh_processes(capsys):
    """The tiny size of the smallest sweep, cold and warm."""
    gpu_sweep.main(["--sweeps", "quickstart", "--platforms", "cpu", "--smoke"])
    *_, cold, warm = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert cold[0] == warm[0] == "quickstart" and (cold[2], warm[2]) == ("cold", "warm")
    assert int(cold[3]) == int(warm[3]) > 0 and 0 < float(cold[4]) <= float(cold[5])
    assert float(warm[5]) < float(cold[5])


@pytest.mark.slow
def test_many_students_are_counted(capsys):
    million.main(["--count", "12", "--n", "64", "--d", "3", "--m", "1", "--at-once", "6"])
    out = capsys.readouterr().out
    found = re.search(r"successes: (\d+) of 12, (\S+) \[(\S+), (\S+)\]", out)
    assert found is not None, out
    assert float(found[2]) == pytest.approx(int(found[1]) / 12, abs=1e-5) and float(found[3]) < float(found[2])
    assert "oracle student's: " in out and "GiB after a tenth" in out


@pytest.mark.slow
def test_the_share_of_the_exact_risk(capsys):
    exact_risk.main(["--n", "64", "--d", "3", "--repeats", "1"])
    given, gcv, risk, *shares = map(float, capsys.readouterr().out.splitlines()[-1].split("|")[2:7])
    assert shares == [pytest.approx(risk / given, rel=0.02, abs=0.01), pytest.approx(risk / gcv, rel=0.02, abs=0.001)]


_MODULES = {"Hydra": "hydra", "Optuna": "optuna", "signac": "signac", "Snakemake": "snakemake"}


@pytest.mark.slow
def test_peers_of_large_ridge(capsys):
    """A way that is installed reaches the risk of the first row; another one says how to install it. Too few samples are an
    error."""
    with pytest.raises(SystemExit):
        large_ridge_peers.main(["--n", "100"])
    assert "--n takes sample sizes >= 500, got 100" in capsys.readouterr().err
    large_ridge_peers.main(["--n", "600", "--threads", "1", "--limit", "5"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| 600")]
    assert len(rows) == len(large_ridge_peers.WAYS)
    first, looser, *others = rows
    assert first[1] == looser[1].removesuffix(", looser") and float(first[4]) <= 1e-6
    # A looser tolerance has a larger residual, and a risk that is at most 1 % larger.
    assert float(first[4]) < float(looser[4]) and float(looser[6]) <= 1.01
    for row in others:
        package = large_ridge_peers.WAYS[row[1]][0]
        if importlib.util.find_spec(package) is None:
            assert row[2].startswith("not installed") and large_ridge_peers.REPOSITORIES[package] in row[2]
        else:
            assert float(row[6]) <= 1.01


@pytest.mark.slow
@pytest.mark.parametrize("tool", [tool for tool in runner_ways.WAYS if tool != "Ray Tune" and "W&B" not in tool])
def test_every_runner_keeps_every_cell(tool):
    """Seconds of the whole command, and no word of results that are missing; without the tools that take minutes to begin."""
    pytest.importorskip("psutil")
    if tool in _MODULES:
        pytest.importorskip(_MODULES[tool])
    assert float(runners.overhead(tool, 4, 300.0)) > 0


@pytest.mark.slow
def test_what_runs_again_is_counted():
    """A loop without a memory begins every cell again, after a kill as for a larger grid, and stops at an error."""
    pytest.importorskip("psutil")
    kill, grid, fail = runners.behaviour("a loop", 60.0)
    assert kill.endswith("begun, then 20: 20 of 20 results")
    assert grid == "25 begun for 5 new: 25 of 25 results"
    # The file is written when the loop ends or its buffer is full, so that nothing is kept of the cells before the error.
    assert fail.startswith("11 begun: ") and fail.endswith("of 19 results, exit code 1")


def test_cells_of_a_runner_are_the_grid(tmp_path):
    task = runner_ways.Task(tmp_path, points=3, seeds=2, fail=1)
    assert list(task.cells()) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    values = [runner_ways.cell(point, seed, **task.fixed) for point, seed in task.cells() if (point, seed) != (1, 0)]
    with pytest.raises(RuntimeError, match="this cell fails"):
        runner_ways.cell(1, 0, **task.fixed)
    assert len(set(values)) == 5 and (tmp_path / "begun").stat().st_size == 6


def test_programs_of_a_sweep_are_compiled_for_a_device(monkeypatch):
    """Here for the CPU, and one program; a program that XLA refuses is a row that says so."""
    monkeypatch.setattr(gpu_code, "shared_plan", lambda plan, *_: types.SimpleNamespace(groups=plan.groups[:1]))
    (row,) = gpu_code.programs("power_law", jax.devices()[0])
    assert re.fullmatch(r"\|[^|]*\| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d,]+ MiB \|", row)

    def refuse(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: no tiles\nand more")

    monkeypatch.setattr(gpu_code, "traced_group", refuse)
    assert list(gpu_code.programs("power_law", jax.devices()[0])) == ["|  | refused: INTERNAL: no tiles | | | |"]


@pytest.mark.slow
def test_ridge_regression_is_compiled_for_a_device():
    """Here for the CPU. At this n, blocks whose size does not depend on n still count, but no kernel needs four matrices."""
    rows = [row.strip("| ").split(" | ") for row in gpu_code.ridges(5000, jax.devices()[0])]
    assert [row[0] for row in rows][:2] == ["RBF(1.0)", "ArcCosineNTK(1)"]
    for _, _, gib, matrices in rows:
        assert 0.5 < float(matrices) < 4.0
        assert float(gib) == pytest.approx(float(matrices) * 8 * 5000**2 / 2**30, abs=0.06)


def test_machine_code_is_read():
    """Two loops over samples in a loop over steps, and the branch to itself that ends every program."""
    lines = """.text.other:/.L_x_9:/BAR.SYNC 0x0 ;/@P0 BRA `(.L_x_9) ;/.text.tsjax_descend:/LDC R1, R2 ;/BAR.SYNC 0x0 ;/
        @P0 BRA `(.L_x_4) ;/.L_x_0:/FADD R1, R1, R2 ;/.L_x_1:/LDG.E R2, desc[UR6][R6.64] ;/FFMA R3, R2, R2, R3 ;/
        @P1 BRA `(.L_x_1) ;/BAR.SYNC 0x0 ;/.L_x_2:/FFMA R4, R2, R2, R4 ;/@P2 BRA `(.L_x_2) ;/BAR.SYNC 0x0 ;/
        STG.E desc[UR6][R6.64], R4 ;/@!P0 BRA `(.L_x_0) ;/.L_x_4:/EXIT ;/.L_x_5:/BRA `(.L_x_5) ;"""
    numbered = "\n".join(
        f"/*{at:04x}*/ {line.strip()}" if ";" in line else line.strip() for at, line in enumerate(lines.split("/"))
    )
    assert gpu_code.read(numbered) == gpu_code.Code(samples=[3, 2], rest=5, waits=2)
    with pytest.raises(ValueError, match="no loops of a kernel of the name tsjax_descend"):
        gpu_code.read(numbered.replace("tsjax", "other"))
