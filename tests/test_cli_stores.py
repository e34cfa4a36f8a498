"""Stores at the command line: what is said of missing and damaged work, and that nothing which a store names is run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from sweep.toys import power, power_spec

import tsjax as ts
from tsjax.sweep.errors import SpecError
from tsjax.sweep.manifest import pack
from tsjax.sweep.run import run_spec
from tsjax.sweep.store import open_store, sealed

GRID = {"n": [16, 32, 64], "method": ["fast", "slow"], "seeds": 16}
EXPECT = [{"what": "rate of fast in n", "value": 1.0, "tolerance": 0.5}]
# Commands that show numbers of a store, with what else they need.
READING = {
    "status": [],
    "rates": [],
    "verify": ["--partial"],
    "check": [],
    "report": ["--out", "page"],
    "figure": ["--to", "x.svg"],
    "export": ["--to", "x.csv"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """96 cells in 16 chunks."""
    out = tmp_path_factory.mktemp("stores") / "whole"
    run_spec(power_spec(grid=GRID, expect=EXPECT), out=out, chunk=6, commit_seconds=0.0)
    assert len(list((out / "chunks").iterdir())) == 16
    return out


# One of tsjax's own studies, which compiles fast.
REAL = power_spec(
    study="real_data",
    problem={"data": "diabetes"},
    grid={"n": [20, 40], "estimator": ["linear"], "seeds": 2},
    expect=[{"what": "rate of linear in n", "at_least": -100.0}],
)


def _chunks(store: Path) -> list[Path]:
    """Those of the curve that nothing is expected of come first: their names depend on when they ran."""
    of = lambda chunk: pd.read_parquet(chunk, columns=["method", "n"]).iloc[0].tolist()
    return sorted((store / "chunks").iterdir(), key=lambda chunk: [*map(str, of(chunk)), chunk.name], reverse=True)


def _zero(store: Path, count: int) -> None:
    for chunk in _chunks(store)[:count]:
        chunk.write_bytes(b"\0" * chunk.stat().st_size)


def _edit(store: Path, old: str, new: str) -> None:
    """Changes the description as its author could: with the hash that it must have then."""
    text = (store / "sweep.json").read_text()
    assert old in text
    content = sealed(json.loads(text.replace(old, new)))
    (store / "sweep.json").write_text(json.dumps(content))


@pytest.fixture
def damaged(whole, tmp_path) -> Path:
    """6 of its chunks are zeros."""
    shutil.copytree(whole, tmp_path / "s")
    _zero(tmp_path / "s", 6)
    return tmp_path / "s"


@pytest.fixture
def incomplete(whole, tmp_path) -> Path:
    """6 of its chunks are gone."""
    shutil.copytree(whole, tmp_path / "incomplete")
    for chunk in _chunks(tmp_path / "incomplete")[:6]:
        chunk.unlink()
    return tmp_path / "incomplete"


def _old(store: Path) -> Path:
    """The store as it was written before chunks had manifests."""
    content = json.loads((store / "sweep.json").read_text())
    tables = open_store(store).scan().tables
    shutil.rmtree(store / "chunks")
    (store / "chunks").mkdir()
    for number, table in enumerate(tables.values()):
        table.to_pandas().to_parquet(store / "chunks" / f"{number:016x}.parquet", index=False)
    spec = {**content["spec"]}
    (store / "sweep.json").write_text(
        json.dumps({"schema": 1, "spec": spec, "version": 1, "provenance": content["provenance"]})
    )
    return store


SAID = "These numbers stand on 60 of 96 cells"


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("command", ["rates", "verify", "report", "figure", "export"])
def test_damaged_work_is_said_by_every_command_that_shows_numbers(tsjax, damaged, command):
    _, out, err = tsjax(command, damaged, *READING[command])
    text = " ".join((out + err).split())
    assert f"{SAID}; 6 damaged chunks are left out; 36 are missing." in text and "Damaged, and left out: " in text
    # Standard output is the file's name, where a file is written.
    assert command not in ("report", "export") or out.count("\n") == 1
    content = json.loads(tsjax(command, damaged, *READING[command], "--json")[1])
    assert (content["coverage"]["done"], len(content["coverage"]["damaged"])) == (60, 6)
    assert content["coverage"]["notes"][0].startswith(SAID)


def test_a_pilot_that_is_not_whole_is_said_to_be(tsjax, tmp_path, damaged):
    grid = 'n = [16, 32, 64]\nmethod = ["fast", "slow"]\nseeds = 16'
    (tmp_path / "a.toml").write_text(f'study = "sweep.toys:power"\n[grid]\n{grid}\n')
    arguments = ["plan", "a.toml", "--precision", "0.1", "--pilot", damaged]
    code, out, _ = tsjax(*arguments)
    assert code == 0 and SAID in " ".join(out.split()) and out.index("These numbers") < out.index("Seeds for exponents")
    content = json.loads(tsjax(*arguments, "--json")[1])
    assert content["coverage"]["done"] == 60 and [row["curve"] for row in content["curves"]] == ["fast", "slow"]


@pytest.mark.slow
def test_a_tilde_is_home(tsjax, tmp_path, whole, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(whole, tmp_path / "home" / "s")
    assert tsjax("export", "~/s", "--to", "~/x.csv")[0] == 0 and (tmp_path / "home" / "x.csv").is_file()
    assert tsjax("report", "~/s", "--out", "~/page")[0] == 0 and (tmp_path / "home" / "page" / "report.html").is_file()
    assert tsjax("run", "~/s", "--trust", "--quiet")[0] == 0 and not (tmp_path / "~").exists()


def test_json_has_no_secrets(tsjax, tmp_path, whole):
    shutil.copytree(whole, tmp_path / "s")
    _edit(tmp_path / "s", '"claim": ""', '"claim": "of s3://key:secret@bucket/x?sig=abc"')
    for command in ("status", "rates"):
        out = tsjax(command, "s", "--json")[1]
        assert json.loads(out)["claim"] == "of s3://***@bucket/x?sig=***"


@pytest.mark.parametrize("command", ["rates", "verify", "report", "figure", "export", "status"])
def test_a_whole_store_has_nothing_said_of_it(tsjax, whole, command):
    code, out, err = tsjax(command, whole, *READING[command])
    assert code == 0 and "stand on" not in out + err and "!" not in out + err and err == ""


def test_notes_fit_80_columns_and_are_yellow_above_the_tables(tsjax, damaged, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = tsjax("rates", damaged)[1]
    assert max(map(len, out.splitlines())) <= 80 and out.index(SAID) < out.index("Exponents of risk")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert f"\x1b[33m{SAID}" in tsjax("rates", damaged)[1]


def test_captions_say_it_too(tsjax, damaged, whole):
    for format in ("latex", "markdown"):
        assert "These numbers stand on 60 of 96 cells; 6 damaged chunks are left out." in " ".join(
            ts.load(damaged).table(format).split()
        )
        assert "stand on" not in ts.load(whole).table(format)
    assert SAID in ts.load(damaged)._repr_html_() and "stand on" not in ts.load(whole)._repr_html_()


def test_status_tells_what_is_damaged_and_what_is_foreign(tsjax, damaged):
    (damaged / "chunks" / "notes.txt").write_text("mine")
    out = " ".join(tsjax("status", damaged)[1].split())
    assert "60 of 96 cells, 62 % done" in out and "6 damaged chunks are left out" in out
    assert "Not chunks of this sweep, and ignored: notes.txt." in out


def test_verify_of_what_is_not_whole_exits_with_4(tsjax, whole, damaged, incomplete):
    assert tsjax("verify", whole)[0] == 0
    for store in (damaged, incomplete):
        code, out, err = tsjax("verify", store)
        assert code == 4 and "1 of 1 expectation holds, judged by 60 of 96 cells." in out
        assert "is not complete: 60 of 96 cells" in err and "--partial" in err
        assert tsjax("verify", store, "--json")[0] == 4
        code, out, err = tsjax("verify", store, "--partial")
        assert code == 0 and SAID in " ".join(out.split()) and err == ""
    for chunk in (damaged / "chunks").iterdir():
        chunk.write_bytes(b"x")
    code, out, err = tsjax("verify", damaged)
    assert code == 4 and "16 damaged chunks are left out" in err
    assert tsjax("rates", damaged)[0] == 2


def test_verify_of_a_store_that_holds_more_than_its_plan_says_what_to_do(tsjax, tmp_path):
    out = tmp_path / "s"
    larger, smaller = ({**GRID, "seeds": seeds} for seeds in (16, 8))
    run_spec(power_spec(grid=larger, expect=EXPECT), out=out)
    run_spec(power_spec(grid=smaller, expect=EXPECT), out=out)
    code, shown, err = tsjax("verify", out)
    said = " ".join(err.split())
    assert (
        code == 4
        and "48 recorded cells are not in the plan of the latest run. Run the sweep with its whole plan" in said
    )
    assert "Run the sweep again" not in said
    assert "judged by 48 of 48 cells and 48 beyond its plan." in " ".join(shown.split())
    # It is good advice.
    run_spec(power_spec(grid=larger, expect=EXPECT), out=out)
    assert tsjax("verify", out)[0] == 0


def test_a_call_from_python_keeps_the_claims_of_the_store(tsjax, tmp_path):
    out = tmp_path / "s"
    spec = power_spec(grid=GRID, expect=EXPECT, claim="fast is fast", source="a paper")
    run_spec(spec, out=out)
    result = ts.sweep(power, out=out, **{**GRID, "seeds": 20})
    assert len(result.records) == 120 and result.spec.claim == "fast is fast"
    kept = open_store(out).spec
    assert (kept.claim, kept.source, kept.expect) == (spec.claim, spec.source, spec.expect)
    assert tsjax("verify", out)[0] == 0
    # A claim about n = 16 to 64 cannot be kept by a sweep of the slow curve alone, and is not dropped without a word.
    with pytest.raises(SpecError, match=r"This is a claim of the sweep in .*: give the whole grid, or another out"):
        ts.sweep(power, out=out, n=[16, 32, 64], method="slow", seeds=16)
    assert open_store(out).spec == kept
    # A store of its own has no claims.
    assert ts.sweep(power, out=tmp_path / "t", n=[16, 32], method="slow", seeds=2).spec.expect == []


def test_verify_of_what_was_never_verified_exits_with_4(tsjax, tmp_path):
    out = tmp_path / "old"
    run_spec(REAL, out=out)
    assert tsjax("verify", out)[0] == 0
    _old(out)
    code, _, err = tsjax("verify", out)
    assert code == 4 and "earlier version" in err and "--partial" in err
    code, printed, _ = tsjax("verify", out, "--partial")
    assert code == 0 and "nothing here could be verified" in " ".join(printed.split())
    code, printed, _ = tsjax("check", out)
    assert code == 1 and "nothing here can be verified" in " ".join(printed.split())
    code, _, err = tsjax("run", out)
    assert code == 2 and "can be read, but not extended" in err


# tsjax check


def test_check_of_a_whole_store(tsjax, whole):
    code, out, _ = tsjax("check", whole)
    assert code == 0 and "16 chunks with 96 records match their hashes." in " ".join(out.split())
    assert "96 of 96 cells of the plan have a record." in out and "everything checks." in out and "Made by" in out
    content = json.loads(tsjax("check", whole, "--json")[1])
    assert content["ok"] and (content["chunks"], content["rows"], content["coverage"]["done"]) == (16, 96, 96)
    (origin,) = content["origins"]
    assert origin["cells"] == 96 and origin["jax"] and origin["kernel"] in ("c", "xla", "fused") and origin["source"]


def test_check_names_what_is_damaged(tsjax, damaged):
    (damaged / "chunks" / "notes.txt").write_text("mine")
    code, out, _ = tsjax("check", damaged)
    zeros = lambda path: path.read_bytes().strip(b"\0") == b""
    names = sorted(path.name for path in (damaged / "chunks").iterdir() if zeros(path))
    assert code == 1 and all(name in out for name in names) and "notes.txt" in out
    assert "its bytes are not those that were written" in out and "60 of 96 cells" in out
    content = json.loads(tsjax("check", damaged, "--json")[1])
    assert not content["ok"] and list(content["damaged"]) == names and list(content["foreign"]) == ["notes.txt"]


def test_check_of_a_description_that_was_changed(tsjax, damaged):
    text = (damaged / "sweep.json").read_text()
    (damaged / "sweep.json").write_text(text.replace("sweep.toys:power", "sweep.toys:qower"))
    code, out, err = tsjax("check", damaged)
    assert code == 1 and out == "" and "sweep.json was changed since it was written" in err


def test_check_of_a_store_that_lacks_cells(tsjax, incomplete):
    code, out, _ = tsjax("check", incomplete)
    assert code == 0 and "60 of 96 cells of the plan have a record." in out and "Run the sweep again" in out


def test_check_of_records_of_two_sweeps(tsjax, incomplete, tmp_path):
    run_spec(power_spec(grid=GRID, key=1), out=tmp_path / "other", chunk=6, commit_seconds=0.0)
    for chunk in sorted((tmp_path / "other" / "chunks").iterdir())[:2]:
        shutil.copy(chunk, incomplete / "chunks")
    code, out, _ = tsjax("check", incomplete)
    assert code == 1 and "2 of 12 chunks belong to another sweep (key: 0 in sweep.json, 1 in the chunk)" in " ".join(
        out.split()
    )
    assert json.loads(tsjax("check", incomplete, "--json")[1])["coverage"] is None


# A store in the place of a sweep file


@pytest.mark.usefixtures("blank_figures")
def test_a_store_goes_on_with_the_sweep_that_it_describes(tsjax, tmp_path, damaged):
    code, _, err = tsjax("run", damaged, "--quiet")
    assert code == 2 and "would import and run sweep.toys:power" in err and "--trust" in err
    assert len(list((damaged / "chunks").iterdir())) == 16
    code, out, err = tsjax("run", damaged, "--quiet", "--trust")
    assert code == 0 and err == "" and "1 of 1 expectation holds." in out and "stand on" not in out
    assert tsjax("verify", damaged)[0] == 0 and len(list((damaged / "damaged").iterdir())) == 6
    code, out, _ = tsjax("check", damaged)
    assert code == 0 and "6 damaged files of earlier runs in damaged/" in out
    code, _, err = tsjax("run", damaged, "--smoke", "--trust")
    assert code == 2 and "--smoke is a size of a sweep file" in err


@pytest.mark.usefixtures("blank_figures")
def test_a_store_of_tsjax_itself_needs_no_trust(tsjax, tmp_path):
    run_spec(REAL, out=tmp_path / "s", chunk=1, commit_seconds=0.0)
    next((tmp_path / "s" / "chunks").iterdir()).unlink()
    assert json.loads(tsjax("status", "s", "--json")[1])["done"] < 4
    code, out, _ = tsjax("run", "s", "--json", "--quiet")
    assert code == 0 and json.loads(out)["coverage"]["done"] == 4


# Written beside a store that names it: what happens when it is imported, or called.
EVIL = "import pathlib\npathlib.Path('imported').touch()\n\ndef study():\n    pathlib.Path('called').touch()\n"


@pytest.fixture(scope="module")
def evil_stores(tmp_path_factory):
    """Stores of this version and of the one before, whose study, or whose estimator, is code beside them."""
    folder = tmp_path_factory.mktemp("evil")
    for schema in (1, 2):
        for kind, spec in (("study", power_spec(grid=GRID, expect=EXPECT)), ("estimator", REAL)):
            out = folder / f"{kind}-{schema}"
            run_spec(spec, out=out)
            if kind == "study":
                _rename_study(out)
            if schema == 1:
                _old(out)
            if kind == "estimator":
                _edit(out, '"linear"', '"evilmod:study"')
    return folder


def _rename_study(store: Path) -> None:
    """As if the sweep had been one of evilmod:study, manifests and all."""
    _edit(store, "sweep.toys:power", "evilmod:study")
    found = open_store(store).scan()
    shutil.rmtree(store / "chunks")
    (store / "chunks").mkdir()
    for name, table in found.tables.items():
        manifest = found.manifests[name]
        identity = manifest.identity.model_copy(update={"study": "evilmod:study"})
        chunk, content = pack(table, manifest.model_copy(update={"identity": identity}))
        (store / "chunks" / chunk).write_bytes(content)


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("kind", ["study-2", "estimator-2", "study-1", "estimator-1"])
def test_reading_runs_nothing_that_a_store_names(tsjax, tmp_path, evil_stores, monkeypatch, kind, command):
    (tmp_path / "evilmod.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = tsjax(command, evil_stores / kind, *READING[command])
    assert not (tmp_path / "imported").exists() and "evilmod" not in sys.modules
    if kind == "study-2":
        assert code == 0
    if kind == "study-1":
        assert code == 2 and "'evilmod:study' is not part of tsjax" in err and "earlier version" in err


@pytest.mark.parametrize("kind", ["study-2", "estimator-2"])
def test_running_a_store_that_names_code_needs_trust(tsjax, tmp_path, evil_stores, monkeypatch, kind):
    (tmp_path / "evilmod.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    code, out, err = tsjax("run", evil_stores / kind, "--out", "s", "--quiet")
    assert code == 2 and out == "" and "would import and run evilmod:study" in err and "--trust" in err
    assert not (tmp_path / "imported").exists() and not (tmp_path / "s").exists()
    # The user's own decision.
    tsjax("run", evil_stores / kind, "--out", "s", "--quiet", "--trust")
    assert (tmp_path / "imported").exists()
    sys.modules.pop("evilmod")


def test_a_store_keeps_no_credentials_to_run_with(tsjax, tmp_path, whole):
    shutil.copytree(whole, tmp_path / "s")
    _edit(tmp_path / "s", '"problem": {}', '"problem": {"data": "s3://***@bucket/houses.csv"}')
    code, _, err = tsjax("run", "s", "--trust")
    assert code == 2 and "credentials, which are not kept in a store" in err


# Disks


@pytest.fixture
def mount(tmp_path):
    """Mounts a file system of this size (`mount(size)`), or another way with more options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        kind = [] if "remount" in options else ["-t", "tmpfs"]
        made = subprocess.run(["mount", *kind, "-o", options, "tmpfs", str(folder)], capture_output=True)
        if made.returncode:
            pytest.skip("mounting a file system needs privileges that this user lacks")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], check=False, capture_output=True)


@pytest.mark.usefixtures("blank_figures")
def test_a_complete_sweep_on_a_disk_that_is_read_only_is_a_success(tsjax, mount, whole, incomplete):
    disk = mount("size=64m")
    shutil.copytree(whole, disk / "whole")
    shutil.copytree(incomplete, disk / "incomplete")
    mount("remount,ro")
    code, out, err = tsjax("run", disk / "whole", "--trust", "--quiet")
    assert code == 0 and "1 of 1 expectation holds." in out and "records, figures" not in out
    assert err.startswith("note: cannot write the report") and "Read-only file system" in err and "is complete" in err
    assert json.loads(tsjax("run", disk / "whole", "--trust", "--quiet", "--json")[1])["coverage"]["whole"]
    code, _, err = tsjax("run", disk / "incomplete", "--trust", "--quiet")
    assert code == 2 and "Read-only file system" in err
    code, _, err = tsjax("report", disk / "whole")
    assert code == 2 and "cannot write the report" in err


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.nc"])
def test_a_full_disk_has_its_own_exit_code(tsjax, mount, whole, name):
    if name.endswith("nc"):
        pytest.importorskip("h5py")
    disk = mount("size=8k")
    (disk / name).write_text("before")
    code, out, err = tsjax("export", whole, "--to", disk / name)
    assert code == 5 and out == "" and "No space left on device" in err
    # The file of before is as it was, and nothing is beside it.
    assert (disk / name).read_text() == "before" and len(list(disk.iterdir())) == 1


@pytest.mark.usefixtures("blank_figures")
def test_a_full_disk_for_a_report(tsjax, mount, whole):
    disk = mount("size=64k")
    code, _, err = tsjax("report", whole, "--out", disk / "page")
    assert code == 5 and "cannot write the report" in err and "No space left on device" in err
    assert not list(disk.rglob("*.tmp"))


@pytest.mark.slow
def test_a_style_in_a_store_is_not_read(whole, tmp_path):
    """With LaTeX switched on by a file in the current directory, text of that file would run."""
    shutil.copytree(whole, tmp_path / "s")
    (tmp_path / "s" / "matplotlibrc").write_text("text.usetex: True\ntext.latex.preamble: \\\\input{stranger}\n")
    command = [sys.executable, "-m", "tsjax.cli", "report", ".", "--out", str(tmp_path / "page")]
    done = subprocess.run(command, cwd=tmp_path / "s", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page" / "report.html").is_file()


@pytest.mark.slow
def test_a_trusted_store_runs_modules_of_the_current_directory(tmp_path):
    (tmp_path / "mystudy.py").write_text(
        "import tsjax as ts\n\n@ts.experiment\ndef mine(key, *, n: int):\n    return {'risk': 1.0 / n}\n"
    )
    (tmp_path / "s.toml").write_text('study = "mystudy:mine"\n[grid]\nn = [2, 4]\nseeds = 1\n')
    tsjax = [sys.executable, "-m", "tsjax.cli", "run"]
    for arguments, code in ((["s.toml", "--out", "s"], 0), (["s"], 2), (["s", "--trust"], 0)):
        done = subprocess.run([*tsjax, *arguments, "-q"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr


def _page(tsjax, folder, *options):
    return tsjax("page", str(folder / "runs.csv"), "--x", "n", "--y", "loss", *options)


@pytest.mark.slow
def test_the_page_of_a_table(tsjax, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    rows = [f"{n},{2 / (n + s)},{s},{m}" for n in (16, 32, 64) for s in range(4) for m in ("net", "deep net")]
    (tmp_path / "runs.csv").write_text("\n".join(["n,loss,seed,model", *rows]))
    claims = 'claim = "Nets learn."\n[[expect]]\nwhat = "rate of deep_net in n"\nat_least = 0.5\n'
    (tmp_path / "claims.toml").write_text(claims)
    given = ["--seed", "seed", "--curve", "model", "--claims", "claims.toml"]
    code, out, err = _page(tsjax, tmp_path, *given)
    assert code == 0 and "deep net" in out and "1 of 1 expectation holds" in out, err
    assert (tmp_path / "runs/runs/report.html").is_file() and (tmp_path / "runs/runs/figures/loss_in_n.svg").is_file()
    page = (tmp_path / "runs/runs/report.html").read_text()
    assert "made by other code, and read from a table" in page and "0 ms of running" not in page
    for command in (["verify"], ["status"], ["check"], ["rates", "--format", "latex"]):
        code, out, err = tsjax(*command[:1], "runs/runs", *command[1:])
        assert code == 0 and out, err
    code, out, err = tsjax("run", "runs/runs")
    assert code == 2 and "there is nothing to run" in err
    request.getfixturevalue("blank_figures")
    code, out, err = _page(tsjax, tmp_path, "--curve", "model", "--json", "--out", "other")
    assert code == 0 and [row["curve"] for row in json.loads(out)["rates"]] == ["net", "deep_net"]


@pytest.mark.slow
def test_the_page_of_a_surface(tsjax, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    rows = [f"{n},{n * f},{2 / n**0.5 + 3 / (n * f) ** 0.4}" for n in (16, 32, 64, 128) for f in (1.1, 3.7, 9.3)]
    (tmp_path / "models.csv").write_text("\n".join(["n,tokens,loss", *rows]))
    command = ["page", "models.csv", "--x", "n", "--y", "loss", "--surface", "tokens", "--cost", "6"]
    code, out, err = tsjax(*command)
    assert code == 0 and "The loss falls with exponent 0.5" in " ".join(out.split()), err
    page = (tmp_path / "runs/models/report.html").read_text()
    assert "[surface]" in page and "Best at a given compute" in page
    assert (tmp_path / "runs/models/figures/surface.svg").is_file()
    # As the page says how to make it again, and from the store.
    request.getfixturevalue("blank_figures")
    (tmp_path / "claims.toml").write_text('[surface]\nn = "n"\nd = "tokens"\ncost = 6.0\n')
    again = ["--by", "tokens", "--claims", "claims.toml", "--out", "again"]
    assert tsjax(*command[:6], *again)[0] == 0 and tsjax("report", "again")[0] == 0
    assert "Best at a given compute" in (tmp_path / "again/report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cost", "6"], "name its second axis too, by --surface COLUMN"),
        (["--surface", "seed"], "an exponent in n needs at least 3 values of it, got [1, 2]"),
        (["--seed", "sed"], "no column 'sed'. Did you mean 'seed'?"),
        (["--share", "loss"], "--share loss: write Y=TRIALS"),
        (["--claims", "wrong.toml"], "wrong.toml: unknown key 'expct'. Did you mean 'expect'?"),
        (["--out", "whole"], "holds a sweep of 'sweep.toys:power', not of a table"),
    ],
)
def test_a_page_that_cannot_be_made(tsjax, tmp_path, monkeypatch, whole, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.csv").write_text("n,loss,seed\n1,1.0,0\n2,0.5,0\n")
    (tmp_path / "wrong.toml").write_text("expct = 3\n")
    shutil.copytree(whole, tmp_path / "whole")
    code, _, err = _page(tsjax, tmp_path, *options)
    assert code == 2 and message in " ".join(err.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_watch_serves_until_it_is_interrupted(whole):
    """A process of its own, as from a shell: it says where the page is, and ends with 0 by control-C."""
    # A test run in the background of a shell ignores SIGINT, and its children would.
    listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [
        sys.executable,
        "-c",
        f"{listens}; from tsjax.cli import main; main()",
        "watch",
        str(whole),
        "--no-browser",
    ]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert run.stdout is not None
        url = run.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{url}status.json", timeout=60) as answer:
            assert json.loads(answer.read())["done"] == 96
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 0
    finally:
        run.kill()
        run.communicate()
