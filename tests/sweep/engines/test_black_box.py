"""Black boxes: any function, in processes that may hang, crash or be killed."""

import os
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweep.boxes import draws, path, returning, trees, troubled
from sweep.toys import power, stored

import tsjax as ts
from tsjax.status import Status
from tsjax.sweep.estimate import estimate_plan
from tsjax.sweep.faults import ExperimentError, GroupError
from tsjax.sweep.plan import make_plan
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import SpecError, parse_spec
from tsjax.sweep.status import sweep_status

GRID = {"learner": ["forest", "gbt"], "n": [32, 64], "seeds": 3}


@pytest.mark.slow
def test_records_are_what_the_function_returns(tmp_path):
    """A forest and gradient-boosted trees in two processes, against direct calls; resumed and extended."""
    result = ts.sweep(trees, out=tmp_path / "s", engine=ts.engines.BlackBox(processes=2), **GRID)
    records = result.records
    assert len(records) == 12 and result.coverage.whole and (records["status"] == 0).all()
    assert not set(records["pid"]) & {os.getpid()} and records["pid"].nunique() == 2
    for row, record in enumerate(records.to_dict("records")):
        assert result.cell(row) == (record["seed"], {k: record[k] for k in ("learner", "n", "members")})
        values = trees(record["seed"], learner=record["learner"], n=record["n"])
        assert (record["risk"], record["accuracy"]) == (values["risk"], values["accuracy"])
    # Everything is found; one more seed runs only what is missing.
    again = ts.sweep(trees, out=tmp_path / "s", engine=ts.engines.BlackBox(processes=2), **{**GRID, "seeds": 4}).records
    kept = again[again["seed"] < 3].reset_index(drop=True)
    assert kept["pid"].equals(records["pid"]) and kept["risk"].equals(records["risk"]) and len(again) == 16
    # As any experiment: rates, verdicts and page.
    assert set(result.rates()["curve"]) == {"forest", "gbt"}
    assert "gradient-boosted trees" in result.report(tmp_path / "page").read_text()
    loaded = ts.load(tmp_path / "s")
    assert loaded.cell(0).key == 0 and loaded.records["risk"].equals(again["risk"])


@pytest.mark.slow
def test_what_goes_wrong_is_a_record(tmp_path):
    kinds = ["raises", "memory", "exits", "dies", "hangs", "dies once"]
    start = time.monotonic()
    result = ts.sweep(
        troubled,
        out=tmp_path / "s",
        kind=kinds,
        n=8,
        seeds=3,
        folder=str(tmp_path),
        engine=ts.engines.BlackBox(processes=4),
        commit_seconds=0.1,
    )
    assert time.monotonic() - start < 60
    records = result.records.set_index(["kind", "seed"])
    well = records.xs(0, level="seed")
    assert (well["status"] == 0).all() and (well["risk"] == 1 / 8).all() and (well["failure"].fillna("") == "").all()
    expected = {
        "raises": (Status.FAILED, "ValueError: no luck at n = 8 (at"),
        "memory": (Status.OUT_OF_MEMORY, "MemoryError: too much"),
        "exits": (Status.FAILED, "sys.exit: 3"),
        "dies": (Status.FAILED, "3 worker processes ended in it, the last one by SIGKILL, as where memory runs out"),
        "hangs": (Status.TIMED_OUT, "it took more than 1.5 seconds, the timeout"),
    }
    for kind, (status, text) in expected.items():
        for seed in (1, 2):
            found = records.loc[(kind, seed)]
            assert (found["status"], found["failure"][: len(text)]) == (status, text) and np.isnan(found["risk"])
    assert (records.loc["dies once"]["status"] == 0).all() and list(records.loc["dies once"]["risk"]) == [
        1 / 8,
        2 / 8,
        3 / 8,
    ]
    # The shell that a cell had started is gone with it.
    assert not any(_runs(int((tmp_path / str(seed)).read_text())) for seed in (1, 2))
    # Readers count them, say why, and run none of them again.
    found = sweep_status(tmp_path / "s")
    assert (
        found["failed"] == 10
        and found["done"] == 18
        and {reason.split(" (at")[0]: n for reason, n in found["failures"].items()}["MemoryError: too much"] == 2
    )
    assert ts.sweep(troubled, out=tmp_path / "s", kind=kinds, n=8, seeds=3, folder=str(tmp_path)).coverage.whole
    assert [curve.failed for curve in result.curves()] == [2, 2, 2, 2, 2, 0]


def _runs(process: int) -> bool:
    """Whether there is such a process that has not ended (and perhaps waits for somebody to ask how)."""
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.slow
def test_retry_runs_what_failed(tmp_path):
    grid = {"kind": "mended", "n": [4, 8], "seeds": 4, "folder": str(tmp_path), "out": tmp_path / "s"}
    grid["engine"] = ts.engines.BlackBox(processes=2)
    failed = ts.sweep(troubled, **grid).records
    assert (failed["status"] == Status.FAILED).sum() == 6
    (tmp_path / "mended").touch()
    assert ts.sweep(troubled, **grid).records["risk"].equals(failed["risk"])
    result = ts.sweep(troubled, **grid, retry=True)
    assert (result.records["status"] == 0).all() and result.coverage.whole and len(result.records) == 8
    np.testing.assert_array_equal(result.records["risk"], (1.0 + result.records["seed"]) / result.records["n"])
    assert sweep_status(tmp_path / "s")["failed"] == 0 and sweep_status(tmp_path / "s")["failures"] == {}
    # The failures are in the folder still; nothing that succeeded was run twice.
    rows = stored(tmp_path / "s")
    assert len(rows) == 14 and not rows[rows["status"] == 0]["cell"].duplicated().any()


@pytest.mark.slow
def test_a_box_in_which_every_cell_fails_is_a_mistake(tmp_path):
    with pytest.raises(GroupError, match=r"all 2 cells failed. The first was at kind=raises, n=8.*no luck.*--retry"):
        ts.sweep(troubled, kind="raises", n=8, seeds=[1, 2], out=tmp_path / "s")
    assert set(stored(tmp_path / "s")["status"]) == {Status.FAILED}


RETURNED = {
    "list": "'returning' returned a list; return a dict",
    "word": "returned 'risk', which is not a real number",
    "complex": "returned 'risk', which is not a real number",
    "clash": "returns 'n', which is already an argument",
    "no risk": "y names 'risk', which is not returned",
    "table": "may have more axes",
}


@pytest.mark.parametrize("what", [w if w == "list" else pytest.param(w, marks=pytest.mark.slow) for w in RETURNED])
def test_returned_values_are_checked(what):
    with pytest.raises(ValueError, match=RETURNED[what]):
        ts.sweep(returning, what=what, n=1, seeds=1)


@pytest.mark.slow
def test_one_wrong_program_stops_no_other(tmp_path):
    with pytest.raises(GroupError, match="6 of 7 programs failed; all other cells are done"):
        ts.sweep(returning, what=["well", *RETURNED], n=1, seeds=2, out=tmp_path / "s")
    assert list(stored(tmp_path / "s")["what"]) == ["well"] * 2


@pytest.mark.slow
def test_vectors(tmp_path):
    records = ts.sweep(path, seeds=2, length=[3, 4], out=tmp_path / "s").records
    assert list(records["step"]) == [1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 4]
    np.testing.assert_array_equal(records["risk"], (1.0 + records["seed"]) / records["step"])
    result = ts.sweep(path, seeds=3, length=4, wrong=True)
    curve = result.curves()[0]
    assert list(curve.x) == [1, 2, 3, 4] and curve.failed == 1
    assert np.isnan(curve.values["risk"][:, 1]).all() and (curve.values["risk"][:, 2] == 3 / curve.x).all()


def test_seeds():
    """Those of the records where the key is 0 and nothing is independent; distinct in any case, and given by `cell`."""
    assert list(ts.sweep(returning, what="well", n=1, seeds=[3, 5]).records["risk"]) == [4.0, 6.0]
    got = {}
    for key in (0, 1):
        result = ts.sweep(draws, n=[1, 2], seeds=50, key=key)
        for row in (0, 77):
            assert result.cell(row).key == result.records["got"][row]
        got[key] = set(result.records["got"])
    assert len(got[0] | got[1]) == 200 and max(got[0] | got[1]) < 2**32


def test_functions_that_no_other_process_can_import():
    offset = 2.0

    @ts.black_box
    def local(seed: int, *, n: int):
        return {"risk": offset * n + _helper(seed)}

    assert list(ts.sweep(local, n=3, seeds=2).records["risk"]) == [6.0, 16.0]
    lock = threading.Lock()

    @ts.black_box
    def locked(seed: int, *, n: int):
        with lock:
            return {"risk": float(n)}

    with pytest.raises(TypeError, match="pickle"):
        ts.sweep(locked, n=1, seeds=1)


def _helper(seed):
    return 10.0 * seed


def test_a_function_that_cannot_be_loaded(monkeypatch, tmp_path):
    (tmp_path / "fragile_box.py").write_text(
        "import os\nimport tsjax as ts\nassert not os.environ.get('FRAGILE'), 'no worker for me'\n"
        "@ts.black_box\ndef box(seed: int, *, n: int):\n    return {'risk': 1.0}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = parse_spec({"study": "fragile_box:box", "grid": {"n": 2, "seeds": 1}})
    assert run_spec(spec).records["risk"][0] == 1.0
    monkeypatch.setenv("FRAGILE", "1")
    with pytest.raises(ExperimentError, match="cannot be loaded in a worker process: AssertionError: no worker for me"):
        run_spec(spec)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="first parameter must be called seed"):
        ts.black_box(lambda key: {})
    with pytest.raises(ValueError, match="black box 'f': static is only for experiments in JAX"):
        ts.black_box(name="f", static=("n",))(lambda seed: {})
    for timeout in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="timeout = .*: give the seconds"):
            ts.black_box(timeout=timeout, arguments=ts.Arguments)(lambda seed: {"risk": 1.0})
    with pytest.raises(ValueError, match="timeout is only for black boxes"):
        ts.experiment(timeout=3.0)(power.fn)
    with pytest.raises(SpecError, match="processes = 0: give the number of processes"):
        ts.engines.BlackBox(processes=0)
    with pytest.raises(SpecError, match="engine 'black_box' runs black boxes.*'power' is an experiment in JAX"):
        ts.sweep(power, n=2, method="fast", seeds=1, engine="black_box")
    with pytest.raises(SpecError, match="retry is for black boxes"):
        ts.sweep(power, n=2, method="fast", seeds=1, retry=True)
    for engine in ("ray", ts.engines.Local()):
        with pytest.raises(SpecError, match="runs experiments in JAX, and 'trees' is a black box.*or slurm"):
            ts.sweep(trees, engine=engine, **GRID)


def test_tracers_and_black_boxes():
    @ts.experiment(static=("n",))
    def mixed(key, *, n: int):
        return {"risk": np.mean(np.asarray(jax.random.normal(key, (n,))))}

    with pytest.raises(ExperimentError, match=r"passes a traced array to code that is not JAX.*@ts.black_box"):
        ts.sweep(mixed, n=3, seeds=1)

    @ts.experiment
    def traced_number(key, *, n: int):
        return {"risk": jnp.float64(np.zeros(n)[0])}

    # Where the value of an argument would do, that is said.
    with pytest.raises(ExperimentError, match="name 'n' in static"):
        ts.sweep(traced_number, n=3, seeds=1)


def test_plans_run_nothing(tmp_path):
    spec = parse_spec(
        {
            "study": "sweep.boxes:troubled",
            "grid": {"kind": "dies", "n": [4, 8], "seeds": [1]},
            "expect": [{"what": "risk of dies", "at_most": 1.0, "at_least": 0.1}],
        }
    )
    plan = make_plan(spec, troubled)
    curve = estimate_plan(plan, 0, 64, compiled=True).curves[0]
    assert (curve.cells, curve.programs, curve.bytes) == (2, 0, None)


OWN = """
import os, random
import tsjax as ts

@ts.black_box(timeout=30)
def own(seed: int, *, n: int):
    print("cells may print")
    if (seed, n) == (2, 4) and not os.path.exists("mended"):
        raise ValueError("unlucky")
    return {"risk": (1 + 0.1 * random.Random(seed).random()) / n}
"""


@pytest.mark.slow
def test_from_the_command_line(tsjax, tmp_path):
    (tmp_path / "box.toml").write_text(
        'claim = "It falls."\nstudy = "own_box:own"\n[grid]\nn = [4, 8, 16, 32]\nseeds = 8\n'
        '[[expect]]\nwhat = "rate in n"\nvalue = 1.0\ntolerance = 0.5\n'
    )
    (tmp_path / "own_box.py").write_text(OWN)
    code, out, err = tsjax("plan", "box.toml")
    assert code == 0 and "32 cells" in out and "nothing to compile" in out, err
    code, out, err = tsjax("run", "box.toml", "--engine", "black_box", "--with", "processes=2")
    assert code == 0 and "cells 32/32" in err and "compiled" not in err and "1 failed" in err, err
    code, out, err = tsjax("status", "runs/box")
    assert code == 0 and "1 failed: ValueError: unlucky (at" in out
    code, out, err = tsjax("verify", "runs/box")
    assert code == 1 and "but 1 cell of own failed" in " ".join(out.split())
    (tmp_path / "mended").touch()
    code, out, err = tsjax("run", "runs/box", "--retry", "--trust")
    assert code == 0 and "cells 32/32" in err and "31 resumed" in err
    assert tsjax("verify", "runs/box")[0] == 0
