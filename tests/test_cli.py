"""The command line, in this process: what it prints, what it exits with, and that no wrong input is a traceback."""

import functools
import importlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pandas as pd
import pytest

import tsjax as ts
from tsjax.cli import app, main
from tsjax.cli.specs import shipped_sweeps

# What reports draw is tested in tests/report, and test_cli_stores.py draws the figures of its pages.
pytestmark = pytest.mark.usefixtures("blank_figures")

BASE = """
study = "superiority"
[problem]
d = 4
m = 2
noise_std = 0.1
[grid]
n = [16, 32]
estimator = ["ntk", "optimal_linear"]
seeds = 2
[[expect]]
what = "rate of ntk in n"
at_least = 0.0
"""

TOY = """
claim = "a planted law"
study = "sweep.toys:power"
[grid]
n = [16, 32, 64]
method = ["fast", "slow"]
seeds = 8
[smoke]
n = [16, 32]
seeds = 2
[[expect]]
what = "rate of fast in n"
value = 1.0
tolerance = {tolerance}
"""


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("files") / "toy.toml"
    file.write_text(TOY.format(tolerance=0.5))
    return file


@pytest.fixture(scope="module")
def toy_store(toy_file, tmp_path_factory) -> Path:
    from tsjax.sweep.run import run_spec
    from tsjax.sweep.spec import load_spec

    out = tmp_path_factory.mktemp("stores") / "toy"
    run_spec(load_spec(toy_file), out=out)
    return out


COMMANDS = "quickstart run reproduce plan status rates verify check report page watch figure export list doctor".split()


def test_every_command_has_help_with_an_example(tsjax):
    code, out, _ = tsjax("--help")
    assert code == 0 and all(f" {command} " in out for command in COMMANDS)
    assert {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands} == set(
        COMMANDS
    )
    for command in COMMANDS:
        code, out, _ = tsjax(command, "--help")
        assert code == 0 and f"Example: tsjax {command}" in out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns(tsjax, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = tsjax(*command.split(), "--help")
    assert code == 0 and max(len(line) for line in out.splitlines()) <= 80
    if command in ("", "run", "verify", "doctor"):
        assert "Exit codes: 0" in out
    # Flags take no value.
    assert not [line for line in out.splitlines() if "--json" in line and "<bool>" in line]


def test_no_command_is_help(tsjax):
    code, out, err = tsjax()
    assert code == 0 and "Usage: tsjax" in out and err == ""


def test_output_fits_80_columns_and_is_plain_when_piped(tsjax, monkeypatch, toy_file, toy_store):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (["status", toy_store], ["rates", toy_store], ["verify", toy_store], ["plan", toy_file]):
        code, out, _ = tsjax(*arguments)
        lines = [line for line in out.splitlines() if str(toy_store) not in line]
        assert code == 0 and len(lines) > 1 and max(map(len, lines)) <= 80, arguments
        assert "\x1b" not in out


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_in_a_terminal_by_default(tsjax, monkeypatch, no_color, coloured):
    # Rich takes FORCE_COLOR for a terminal; by the standard, an empty NO_COLOR says nothing.
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    _, _, err = tsjax("status", "nowhere")
    assert ("\x1b[31m" in err) == coloured and "nowhere" in err


def test_help_loads_nothing_heavy():
    code = "import sys, tsjax.cli; print(sorted({'jax', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _with(old, new):
    assert old in BASE
    return BASE.replace(old, new)


# Name: (contents of the file, further arguments, what the one line says).
BAD = {
    "key in [problem]": (_with("d = 4", "dd = 4\nd = 4"), [], ["[problem]", "'dd'", "'d'"]),
    "key in [grid]": (_with("seeds = 2", "seeds = 2\nestimatr = 1"), [], ["[grid]", "'estimatr'", "'estimator'"]),
    "key at top level": ('clam = "x"' + BASE, [], ["'clam'", "'claim'"]),
    "key in [[expect]]": (BASE + "toleranc = 1\n", [], ["'toleranc'", "'tolerance'"]),
    "unknown estimator": (_with('"ntk",', '"studnt",'), [], ["estimator = 'studnt'", "'student'"]),
    "unknown study": (_with('"superiority"', '"superority"'), [], ["study = 'superority'", "'superiority'"]),
    "m above d": (_with("m = 2", "m = 9"), [], ["m=9", "d=4"]),
    "n = 0": (_with("n = [16, 32]", "n = [0, 32]"), [], ["n = 0", "greater than or equal to 2"]),
    "wrong type": (_with("n = [16, 32]", 'n = "many"'), [], ["n = 'many'", "integer"]),
    "negative noise": (_with("noise_std = 0.1", "noise_std = -0.1"), [], ["[problem]", "noise_std = -0.1", "equal to 0"]),
    "NaN noise": (_with("noise_std = 0.1", "noise_std = nan"), [], ["noise_std = nan", "finite"]),
    "infinite noise": (_with("noise_std = 0.1", "noise_std = inf"), [], ["noise_std = inf", "finite"]),
    "missing noise": (_with("noise_std = 0.1", ""), [], ["noise_std is missing"]),
    "seeds missing": (_with("seeds = 2", ""), [], ["[grid]", "seeds is missing"]),
    "seeds 0": (_with("seeds = 2", "seeds = 0"), [], ["seeds = 0", ">= 1"]),
    "seeds negative": (_with("seeds = 2", "seeds = -3"), [], ["seeds = -3", ">= 1"]),
    "seeds twice over": (_with("seeds = 2", "seeds = [[1]]"), [], ["seeds = [[1]]"]),
    "list in [problem]": (_with("d = 4", "d = [4, 5]"), [], ["[problem]", "d = [4, 5]", "[grid]"]),
    "empty axis": (_with("n = [16, 32]", "n = []"), [], ["[grid]", "'n'", "empty"]),
    "bad what": (_with("rate of ntk in n", "the rate of ntk"), [], ["the rate of ntk", "rate of [METRIC of] CURVE"]),
    "value alone": (_with("at_least = 0.0", "value = 1.0"), [], ["value and tolerance go together"]),
    "unknown curve": (_with("rate of ntk", "rate of ntks"), [], ["'ntks'", "'ntk'"]),
    "bad window": (BASE + "over = { n = [32, 16] }\n", [], ["window of n", "[low, high]"]),
    "bounds crossed": (BASE + "at_most = -1.0\n", [], ["at_least = 0", "at_most = -1"]),
    "not TOML": ("study = superiority", [], ["bad.toml", "is not valid TOML"]),
    "no study": ("[grid]\nseeds = 1\n", [], ["study is missing"]),
    "--set without =": (BASE, ["--set", "grid.seeds"], ["--set grid.seeds", "TABLE.KEY=VALUE"]),
    "--set of no table": (BASE, ["--set", "gird.seeds=3"], ["no table 'gird'", "'grid'"]),
    "--set without table": (BASE, ["--set", "seeds=3"], ["--set seeds=3", "TABLE.KEY=VALUE"]),
    "--set of bad key": (BASE, ["--set", "grid.sedes=3"], ["'sedes'", "'seeds'"]),
    "--set of bad value": (BASE, ["--set", "problem.d=none"], ["d = 'none'", "integer"]),
    "no such engine": (BASE, ["--engine", "slrum"], ["no such engine", "'slurm'"]),
    "no such option": (BASE, ["--engine", "slurm", "--with", "job=3"], ["no option 'job'", "'jobs'"]),
    "another's option": (BASE, ["--engine", "ray", "--with", "jobs=3"], ["no option 'jobs'", "one of engine 'slurm'"]),
    "an option's value": (BASE, ["--engine", "slurm", "--with", "jobs=many"], ["jobs=many", "a whole number"]),
    "--with alone": (BASE, ["--with", "jobs=3"], ["--with jobs", "--engine"]),
    "no smoke size": (BASE, ["--smoke"], ["no [smoke] size"]),
    "optimal_linear, positive": (_with("m = 2", 'm = 2\nsigns = "positive"'), [], ["optimal linear", "'positive'", "'random'"]),
    "cosine": (_with("m = 2", "m = 2\ncosine = 1.5"), [], ["cosine = 1.5", "less than 1"]),
}  # fmt: skip


@pytest.mark.slow
def test_tensorboard(tsjax, tmp_path):
    (tmp_path / "toy.toml").write_text(TOY.format(tolerance=0.5))
    code, _, _ = tsjax("run", "toy.toml", "--smoke", "--quiet", "--track", "tensorboard:events")
    assert code == 0
    (events,) = (tmp_path / "events").iterdir()
    assert b"sweep/failed" in events.read_bytes()


def _is_one_error(code, out, err, words):
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, (word, err)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(tsjax, tmp_path, name):
    content, further, words = BAD[name]
    (tmp_path / "bad.toml").write_text(content)
    _is_one_error(*tsjax("run", "bad.toml", "--out", "out", *further), words)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.toml"]


# Name: (contents of the module, arguments of run, what the one line says).
MINE = """
import sys
import tsjax as ts

@ts.experiment(static=("n",))
def buggy(key, *, n: int):
    width = n // 0
    return {"risk": 1.0}

@ts.experiment(static=("n",))
def leaves(key, *, n: int):
    sys.exit(0)

@ts.experiment(static=("n",), cost=lambda arguments: {}["no"])
def costly(key, *, n: int):
    return {"risk": 1.0}
"""
MISTAKES = {
    "a bug": (MINE, "buggy", ["'buggy' failed at n=3", "ZeroDivisionError", "NAME.py, line 7: `width = n // 0`"]),
    "leaves": (MINE, "leaves", ["sys.exit(0) was called by", "NAME.py, line 12: `sys.exit(0)`"]),
    "a bug in the cost": (MINE, "costly", ["KeyError: 'no'", 'NAME.py, line 14: `@ts.experiment(static=("n",), cost=']),
    "no such name": (MINE, "bugy", ["study = 'NAME:bugy'", "NAME.py", "has no 'bugy'"]),
    "no experiment": (MINE, "sys", ["study = 'NAME:sys' is a module, not an experiment"]),
    "raises": ("x = 1\nraise RuntimeError('no')", "x", ["cannot be imported: RuntimeError: no", "NAME.py, line 2: `raise"]),
    "does not parse": ("x = 1\ndef f(:\n", "x", ["SyntaxError", "NAME.py, line 2: `def f(:`"]),
    "exits": ("import sys\nsys.exit(0)", "x", ["cannot be imported: sys.exit: 0", "NAME.py, line 2: `sys.exit(0)`"]),
    "imports what is not there": ("import nowhere_at_all", "x", ["No module named 'nowhere_at_all'", "NAME.py, line 1"]),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_in_a_study_are_reported_with_their_place(tsjax, tmp_path, monkeypatch, case):
    code, study, words = MISTAKES[case]
    # A module is imported once in a process: each case has its own.
    name = f"mistake_{list(MISTAKES).index(case)}"
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "a.toml").write_text(f'study = "{name}:{study}"\n[grid]\nn = 3\nseeds = 2\n')
    _is_one_error(*tsjax("run", "a.toml", "--quiet"), [word.replace("NAME", name) for word in words])
    # The error itself, or what it led to, with its traceback.
    with pytest.raises((ValueError, ZeroDivisionError, KeyError, RuntimeError)) as error:
        tsjax("run", "a.toml", "--quiet", "--debug")
    shown = "".join(traceback.format_exception(error.value))
    assert f"{name}.py" in shown or case == "no experiment"


def test_a_study_that_is_nowhere(tsjax, tmp_path):
    (tmp_path / "a.toml").write_text('study = "nowhere.at_all:x"\n[grid]\nn = 3\nseeds = 2\n')
    _is_one_error(*tsjax("plan", "a.toml"), ["there is no module 'nowhere'", "PYTHONPATH", "current directory"])


HUGE = {
    "seeds": ("seeds = 1000000000", ["seeds = 1000000000", "1,000,000,000 cells"]),
    "range": ("seeds = 2\nn = { from = 2, to = 1000000000, step = 1 }", ["999,999,999 values"]),
    "infinite range": ("seeds = 2\nn = { from = 2.0, to = inf, step = 1 }", ["to = inf is not finite"]),
    "range from nan": ("seeds = 2\nn = { from = nan, to = 9.0, step = 1 }", ["from = nan is not finite"]),
    "nested": ("seeds = 2\nn = " + "[" * 5000 + "]" * 5000, ["a.toml: lists or tables are nested too deeply"]),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_large_is_refused_at_once(tsjax, tmp_path, name):
    grid, words = HUGE[name]
    (tmp_path / "a.toml").write_text(f'study = "sweep.toys:plain"\n[grid]\n{grid}\n' + ("n = 2\n" * (name == "seeds")))
    _is_one_error(*tsjax("run", "a.toml", "--out", "s", "--quiet"), words)
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_nothing_in_the_current_directory_stands_before_a_package(tmp_path):
    """A folder that someone else has filled: its modules run neither for a store nor before packages of the same name. A study
    of the user's own, beside the sweep file, is found."""
    for name in ("json", "cProfile", "pandas", "typer", "rich", "jax", "pydantic", "tomllib"):
        (tmp_path / f"{name}.py").write_text(f"print('ran {name}')")
    (tmp_path / "beside.py").write_text(
        "import tsjax as ts\nprint('ran beside')\n@ts.experiment\ndef cell(key, *, n: int):\n    return {'risk': 1.0 / n}\n"
    )
    (tmp_path / "a.toml").write_text('study = "beside:cell"\n[grid]\nn = [2, 4]\nseeds = 2\n')
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    run = lambda *arguments: subprocess.run(
        [sys.executable, "-m", "tsjax.cli", *arguments], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    done = run("run", "a.toml", "--out", "s", "--quiet", "--no-page")
    assert done.returncode == 0 and [line for line in done.stdout.splitlines() if "ran" in line.split()] == [
        "ran beside"
    ]
    read = run("status", "s")
    assert read.returncode == 0 and "ran" not in read.stdout.split()


def test_commands_that_read_a_store_do_not_search_the_current_directory(
    tsjax, toy_store, toy_file, tmp_path, monkeypatch
):
    path = [entry for entry in sys.path if entry != str(tmp_path)]
    monkeypatch.setattr(sys, "path", list(path))
    for command in ("status", "rates", "verify"):
        tsjax(command, toy_store)
        assert sys.path == path
    tsjax("plan", toy_file, "--set", "gird.n=3")
    assert sys.path == [*path, str(tmp_path)]


def test_options_are_refused_in_the_words_of_python(tsjax, toy_file):
    for option, name, value in (("--chunk", "chunk", -3), ("--commit-seconds", "commit_seconds", float("nan"))):
        code, _, err = tsjax("run", toy_file, f"{option}={value}")
        with pytest.raises(ValueError) as error:
            ts.sweep(toy_file, **{name: value})
        assert code == 2 and str(error.value).rstrip(".") in err


def test_bad_files(tsjax, tmp_path):
    _is_one_error(*tsjax("run", "missing.toml", "--out", "out"), ["there is no sweep file missing.toml"])
    _is_one_error(*tsjax("run", tmp_path, "--out", "out"), ["is a directory, not a sweep file"])
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    _is_one_error(*tsjax("plan", "binary.toml"), ["binary.toml is not valid TOML"])
    assert not (tmp_path / "out").exists()


def test_bad_output_places(tsjax, tmp_path, toy_file, toy_store):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("x")
    _is_one_error(*tsjax("run", toy_file, "--out", "file"), ["file exists and is not a tsjax store"])
    _is_one_error(*tsjax("run", toy_file, "--out", "full"), ["full exists and is not a tsjax store"])
    _is_one_error(*tsjax("run", toy_file, "--out", "file/below"), ["cannot write to file/below"])
    _is_one_error(
        *tsjax("run", toy_file, "--out", toy_store, "--set", "key=5"), ["holds another sweep", "key: 0 there, 5 here"]
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "full"]


@pytest.mark.parametrize("command", ["status", "rates", "verify", "check", "report", "figure", "export"])
def test_directories_that_are_no_store(tsjax, tmp_path, command):
    further = {"export": ["--to", "a.csv"], "figure": ["--to", "a.svg"]}.get(command, [])
    _is_one_error(*tsjax(command, "nowhere", *further), ["there is no directory nowhere"])
    (tmp_path / "empty").mkdir()
    _is_one_error(*tsjax(command, "empty", *further), ["empty is not a tsjax store", "sweep.json"])
    (tmp_path / "empty" / "sweep.json").write_text('{"schema": 1, "sp')
    code, out, err = tsjax(command, "empty", *further)
    # For `check`, damage is what it looks for.
    assert code == (1 if command == "check" else 2)
    _is_one_error(2, out, err, ["sweep.json cannot be read"])


def test_bad_exports(tsjax, tmp_path, toy_store):
    _is_one_error(*tsjax("export", toy_store, "--to", "a.xlsx"), ["--to a.xlsx", ".csv, .parquet, .nc"])
    _is_one_error(*tsjax("export", toy_store, "--to", "no/a.csv"), ["there is no directory no"])
    (tmp_path / "d.csv").mkdir()
    _is_one_error(*tsjax("export", toy_store, "--to", "d.csv"), ["d.csv"])


def test_bad_figures(tsjax, tmp_path, toy_store):
    _is_one_error(*tsjax("figure", toy_store, "--to", "a.jpg"), ["--to a.jpg", ".png, .pdf, .svg"])
    _is_one_error(*tsjax("figure", toy_store, "--to", "no/a.svg"), ["there is no directory no"])
    _is_one_error(
        *tsjax("figure", toy_store, "--to", "a.svg", "--name", "risk"), ["no figure 'risk'", "risk_in_n", "relative"]
    )
    (tmp_path / "d.svg").mkdir()
    _is_one_error(*tsjax("figure", toy_store, "--to", "d.svg"), ["d.svg"])
    assert [path.name for path in tmp_path.iterdir()] == ["d.svg"]


def test_a_figure_with_its_table_and_its_caption(tsjax, tmp_path, toy_store):
    assert tsjax("figure", toy_store, "--to", "a.svg")[:2] == (0, "a.svg\na.csv\na.md\n")
    assert (tmp_path / "a.md").read_text().startswith("**a planted law** ")
    content = json.loads(tsjax("figure", toy_store, "--to", "b.pdf", "--style", "column", "--json")[1])
    assert [content[name] for name in ("figure", "table", "caption")] == ["b.pdf", "b.csv", "b.md"]
    assert content["coverage"]["whole"] and (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [["--debug", "run", "missing.toml"], ["run", "--debug", "missing.toml"], ["run", "missing.toml", "--debug"]],
)
def test_debug_shows_the_traceback_wherever_it_stands(tsjax, arguments):
    with pytest.raises(ValueError, match="there is no sweep file"):
        tsjax(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["spec", "See tsjax run --help."]),
        (["plan", "a.toml", "--chunk", "0"], ["--chunk", "1", "See tsjax plan --help."]),
        (["run", "a.toml", "--chunk", "0"], ["chunk = 0", "an integer >= 1"]),
        (["run", "a.toml", "--shard", "1/2"], ["--shard is not an option any more", "--sbatch K"]),
        (["run", "a.toml", "--workers=4"], ["--engine black_box --with processes=K"]),
        (["run", "a.toml", "--engin", "ray"], ["--engin", "--engine"]),
        (["nonsense"], ["nonsense", "See tsjax --help."]),
        (["plan", "superiorty"], ["there is no sweep file superiorty", "'superiority'"]),
    ],
)
def test_usage_errors_are_one_line_with_a_hint(tsjax, arguments, words):
    _is_one_error(*tsjax(*arguments), words)


def test_a_fault_of_tsjax_is_one_line_too(tsjax, toy_store, monkeypatch):
    # In tsjax's own code: an error in other files is that of a user's function.
    code = 'def broken(*_):\n    raise RuntimeError("a bug\\nof two lines")'
    found: dict = {}
    exec(compile(code, ts.__file__, "exec"), found)
    monkeypatch.setattr(importlib.import_module("tsjax.sweep.status"), "sweep_status", found["broken"])
    code, out, err = tsjax("status", toy_store)
    assert code == 70 and out == "" and err.count("\n") == 1
    assert "unexpected RuntimeError: a bug of two lines" in err and "--debug" in err
    with pytest.raises(RuntimeError, match="a bug"):
        tsjax("status", toy_store, "--debug")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_so_and_exits_by_its_signal(tsjax, toy_file, monkeypatch, signum):
    from tsjax.sweep.interrupt import Interrupted

    def stopped(*_, **__):
        raise Interrupted(signum)

    monkeypatch.setattr(importlib.import_module("tsjax.sweep.run"), "run_spec", stopped)
    monkeypatch.setattr(os, "_exit", sys.exit)
    code, out, err = tsjax("run", toy_file, "--out", "s", "--quiet")
    assert code == 128 + signum and out == ""
    assert "finished chunks are safe; run the same command again" in " ".join(err.split())


def test_shipped_sweeps_go_by_name(tsjax, tmp_path):
    _is_one_error(*tsjax("plan", "quickstart", "--set", "gird.n=3"), ["no table 'gird'"])
    # A file of that name comes first.
    (tmp_path / "quickstart").write_text("study = 1")
    _is_one_error(*tsjax("plan", "quickstart"), ["quickstart: study = 1"])


def _completed(monkeypatch, capsys, words):
    """What a shell passes on: the words of the command line, the last of them incomplete."""
    monkeypatch.setenv("_TSJAX_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setattr(sys, "argv", ["tsjax"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main()
    return capsys.readouterr().out.split()


def test_completion(tmp_path, monkeypatch, capsys, toy_store):
    monkeypatch.chdir(tmp_path)
    complete = lambda *words: _completed(monkeypatch, capsys, ["tsjax", *words])
    assert complete("sta") == ["status"]
    (tmp_path / "mine.toml").write_text("")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "other.toml").write_text("")
    assert {"mine.toml", "files/", "quickstart", "superiority"} <= set(complete("run", ""))
    assert complete("plan", "files/o") == ["files/other.toml"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(toy_store)
    assert complete("rates", "") == ["runs/a"] and complete("rates", "runs/") == ["runs/a"]
    assert complete("rates", "runs/a", "--model", "flo") == ["floor"]
    assert "--json" in complete("verify", "--j")


def test_completion_can_be_shown(tsjax):
    code, out, _ = tsjax("--show-completion", "bash")
    assert code == 0 and "_TSJAX_COMPLETE" in out


def test_run_status_rates_report(tsjax, tmp_path, toy_file):
    code, out, err = tsjax("run", toy_file, "--out", "s", "--set", "grid.seeds=4", "--chunk", "12", "--json")
    assert code == 0 and json.loads(out)["path"] == "s" and err != ""
    before = json.loads(tsjax("status", "s", "--json")[1])
    assert (before["cells"], before["done"], before["failed"]) == (24, 24, 0)
    code, out, err = tsjax("run", toy_file, "--out", "s", "--quiet")
    assert code == 0 and err == "" and "a planted law" in out and "records, figures and page: s" in out
    after = json.loads(tsjax("status", "s", "--json")[1])
    assert after["done"] == 48 and after["damaged"] == [] and after["seconds"] > 0
    assert after["curves"] == [{"curve": name, "cells": 24, "done": 24, "failed": 0} for name in ("fast", "slow")]
    assert "48 of 48 cells" in tsjax("status", "s")[1]
    code, out, _ = tsjax("report", "s", "--out", "page", "--json")
    assert code == 0 and Path(json.loads(out)["page"]).is_file() and json.loads(out)["folder"] == "page"
    code, out, _ = tsjax("report", "s", "--out", "page")
    assert code == 0 and Path(out.strip()).is_file() and Path(out.strip()).parent.name == "page"


def test_json_of_rates_and_verdicts(tsjax, toy_store):
    content = json.loads(tsjax("rates", toy_store, "--json")[1])
    assert set(content) >= {"claim", "study", "path", "x", "y", "rates", "last", "verdicts", "seconds", "provenance"}
    for row in content["rates"]:
        assert set(row) >= {"curve", "label", "exponent", "low", "high", "predicted", "asymptote", "seeds", "failed"}
        assert row["low"] <= row["exponent"] <= row["high"] and row["seeds"] == 8
    code, out, _ = tsjax("verify", toy_store, "--json")
    content = json.loads(out)
    (verdict,) = content["verdicts"]
    assert content["coverage"]["whole"] and content["coverage"]["notes"] == []
    assert code == 0 and verdict["outcome"] == "holds"
    assert set(verdict) == {
        "what", "outcome", "value", "low", "high", "allowed_low", "allowed_high", "reason", "source",
    }  # fmt: skip
    assert "holds" in tsjax("verify", toy_store)[1] and "fast" in tsjax("rates", toy_store)[1]


def test_exit_codes_of_verify(tsjax, tmp_path, toy_file):
    narrow = tmp_path / "narrow.toml"
    narrow.write_text(TOY.format(tolerance=1e-6))
    assert tsjax("run", narrow, "--out", "narrow", "--quiet", "--smoke")[0] == 0
    assert tsjax("verify", "narrow")[0] == 1
    silent = tmp_path / "silent.toml"
    silent.write_text(TOY[: TOY.index("[[expect]]")])
    assert tsjax("run", silent, "--out", "silent", "--quiet", "--smoke")[0] == 0
    _is_one_error(*tsjax("verify", "silent"), ["expects nothing", "[[expect]]"])


def test_smoke_and_set(tsjax, toy_file):
    assert tsjax("run", toy_file, "--quiet", "--smoke")[0] == 0
    assert json.loads(tsjax("status", "runs/toy-smoke", "--json")[1])["cells"] == 8
    change = [
        "--set",
        "grid.seeds=[4, 9]",
        "--set",
        "problem.scale=2.5",
        "--set",
        'claim="new"',
        "--set",
        "grid.method=fast",
    ]
    code, out, _ = tsjax("run", toy_file, "--out", "s", "--quiet", "--json", *change)
    content = json.loads(out)
    assert code == 0 and content["claim"] == "new" and [row["curve"] for row in content["rates"]] == ["fast"]
    tsjax("export", "s", "--to", "a.csv")
    records = pd.read_csv("a.csv")
    assert set(records["seed"]) == {4, 9} and (records["scale"] == 2.5).all()


def test_export_round_trip(tsjax, toy_store):
    import tsjax as ts

    records = ts.load(toy_store).records
    for name in ("a.csv", "a.parquet"):
        code, out, _ = tsjax("export", toy_store, "--to", name)
        assert (code, out) == (0, f"{name}\n") and Path(name).is_file()
    shown = json.loads(tsjax("export", toy_store, "--to", "b.csv", "--json")[1])
    assert (shown["path"], shown["records"], shown["coverage"]["done"]) == ("b.csv", len(records), 48)
    columns = ["cell", "method", "n", "seed", "status", "risk", "limit"]
    pd.testing.assert_frame_equal(pd.read_parquet("a.parquet")[columns], records[columns])
    csv = pd.read_csv("a.csv")
    assert (csv["risk"] == records["risk"]).all() and (csv["cell"] == records["cell"]).all()


def test_export_of_netcdf(tsjax, toy_store):
    pytest.importorskip("h5py")
    import xarray

    import tsjax as ts

    records = ts.load(toy_store).records
    assert tsjax("export", toy_store, "--to", "a.nc")[:2] == (0, "a.nc\n")
    with xarray.open_dataset("a.nc", engine="h5netcdf") as data:
        assert dict(data.sizes) == {"n": 3, "method": 2, "seed": 8}
        row = records.iloc[20]
        cell = {name: row[name] for name in ("method", "n", "seed")}
        assert float(data["risk"].sel(cell)) == row["risk"]


def test_export_of_netcdf_says_what_is_missing(tsjax, toy_store, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "h5py" else find(name, *rest))
    _is_one_error(*tsjax("export", toy_store, "--to", "a.nc"), ["writing NetCDF needs h5py", ".parquet"])
    assert not Path("a.nc").exists()


@pytest.mark.slow
def test_plan_of_quickstart(tsjax, tmp_path):
    code, out, _ = tsjax("plan", shipped_sweeps() / "quickstart.toml", "--smoke", "--compile", "--json")
    content = json.loads(out)
    assert code == 0 and set(content) == {"curves", "budget_bytes", "products_per_second", "factorisations_per_second"}
    assert [curve["static"]["estimator"] for curve in content["curves"]] == [
        "student", "oracle_student", "ntk", "optimal_linear",
    ]  # fmt: skip
    for curve in content["curves"]:
        # Two sizes share a program.
        assert (curve["cells"], curve["programs"]) == (16, 1) and curve["bytes"] > 0 and curve["seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_plan_of_what_a_store_lacks(tsjax, toy_file, toy_store):
    assert "nothing is left to run" in tsjax("plan", toy_file, "--out", toy_store)[1]
    code, out, err = tsjax("plan", toy_file, "--out", toy_store, "--set", "grid.seeds=100", "--json")
    assert code == 0 and err == ""
    records = ts.load(toy_store).records
    seeds = records["seed"].nunique()
    for curve in json.loads(out)["curves"]:
        mine = records[records["method"] == curve["static"]["method"]]
        assert curve["measured"] and curve["cells"] == (100 - seeds) * mine["n"].nunique()
        computing = mine.groupby("n")["run_seconds"].mean().sum() * (100 - seeds)
        assert curve["seconds"] > computing
    code, out, _ = tsjax("plan", toy_file, "--out", toy_store, "--set", "grid.seeds=100")
    assert code == 0 and "(measured for 2 of 2 rows)" in " ".join(out.split())
    _is_one_error(*tsjax("plan", toy_file, "--out", toy_store, "--set", "key=3"), ["holds another sweep"])
    _is_one_error(*tsjax("plan", toy_file, "--out", "nowhere"), ["there is no directory nowhere"])
    code, _, err = tsjax("plan", toy_file, "--precision", "0.1", "--out", toy_store)
    assert code == 2 and "--pilot" in err


def test_doctor(tsjax):
    code, out, _ = tsjax("doctor", "--json")
    content = json.loads(out)
    assert code == 0 and content["ok"] and content["bridge"]["ok"] and content["versions"]["jax"] and content["devices"]
    assert "all is well" in tsjax("doctor")[1]


def test_list_names_every_shipped_sweep(tsjax, monkeypatch):
    # Both lists below are of the same plans, which are made once.
    from tsjax.sweep import plan, spec

    load, make, made = functools.cache(spec.load_spec), plan.plan_cells, {}

    def plan_once(one, experiment):
        if one.claim not in made:
            made[one.claim] = make(one, experiment)
        return made[one.claim]

    monkeypatch.setattr(spec, "load_spec", load)
    monkeypatch.setattr(plan, "plan_cells", plan_once)
    code, out, _ = tsjax("list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and rows.keys() == {path.stem for path in shipped_sweeps().glob("*.toml")}
    # Five sizes, two students of 32 seeds and two kernels of 8.
    assert rows["quickstart"]["cells"] == 5 * 2 * (32 + 8) and "parametric rate" in rows["quickstart"]["claim"]
    assert all(row["claim"] and row["minutes"] > 0 for row in rows.values())
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = tsjax("list")
    assert len(made) == len(rows)
    assert code == 0 and max(len(line) for line in out.splitlines()) <= 80 and "2 h 30 min" in out


def test_version(tsjax):
    code, out, _ = tsjax("--version")
    assert (code, out) == (0, f"tsjax {importlib.metadata.version('tsjax')}\n")


def test_rates_for_a_paper(tsjax, toy_store):
    code, out, _ = tsjax("rates", toy_store, "--format", "latex")
    assert code == 0 and "\\toprule" in out and out.rstrip().endswith("\\end{table}")
    code, out, _ = tsjax("rates", toy_store, "--format", "markdown", "--model", "log")
    assert code == 0 and out.startswith("| curve | exponent [95 %] |") and "model log" in out
    code, _, err = tsjax("rates", toy_store, "--format", "latex", "--json")
    assert code == 2 and "give one of them" in err


def test_rates_of_a_model(tsjax, toy_store):
    code, out, _ = tsjax("rates", toy_store, "--model", "auto", "--json")
    row = json.loads(out)["rates"][0]
    assert code == 0 and row["exponent"] is None and "need 4 different n to be compared, got 3" in row["warnings"][0]
    code, out, _ = tsjax("rates", toy_store, "--model", "power", "--json")
    content = json.loads(out)
    assert code == 0 and {row["model"] for row in content["rates"]} == {"power"}
    fit = content["rates"][0]["fit"]
    assert fit["delta_low"] < content["rates"][0]["exponent"] < fit["delta_high"] and len(fit["residuals"]) == len(
        fit["x"]
    )
    assert set(fit["parameters"]) == {"constant", "exponent"}
    code, out, _ = tsjax("rates", toy_store, "--model", "log")
    assert code == 0 and "model log" in out
    code, _, err = tsjax("rates", toy_store, "--model", "cubic")
    assert code == 2 and "no model 'cubic'. Allowed: power, floor" in err


def test_plan_of_a_precision(tsjax, toy_file, toy_store):
    code, out, _ = tsjax("plan", toy_file, "--precision", "0.1", "--pilot", toy_store)
    assert code == 0 and "Seeds for exponents to +- 0.1" in out and "cheapest" in out
    code, out, _ = tsjax("plan", toy_file, "--precision", "0.1", "--pilot", toy_store, "--json")
    rows = json.loads(out)["curves"]
    assert [row["curve"] for row in rows] == ["fast", "slow"] and rows[0]["seeds"] > 8 and not rows[0]["reached"]
    code, _, err = tsjax("plan", toy_file, "--precision", "0.1")
    assert code == 2 and "there is no pilot" in err and "--set grid.seeds=8" in err
    code, _, err = tsjax("plan", toy_file, "--pilot", toy_store)
    assert code == 2 and "--pilot goes with --precision" in err


@pytest.mark.slow
def test_run_until_a_precision(tsjax, toy_file):
    code, out, _ = tsjax("run", toy_file, "--out", "s", "--quiet", "--json", "--until-precision", "0.15")
    content = json.loads(out)
    assert code == 0 and all(row["high"] - row["low"] <= 0.3 for row in content["rates"])
    assert max(row["seeds"] for row in content["rates"]) > 8


def test_run_until_verdicts_are_decided(tsjax, toy_file):
    code, out, _ = tsjax("run", toy_file, "--out", "s", "--quiet", "--json", "--until-verdict", "--max-seeds", "64")
    content = json.loads(out)
    assert code == 0 and content["verdicts"]
    assert all("holds at every look up to 64 seeds" in verdict["reason"] for verdict in content["verdicts"])
    decided = all(verdict["outcome"] != "undecided" for verdict in content["verdicts"])
    seeds = {row["seeds"] for row in content["rates"]}
    # Curves that only decided claims read keep the seeds of the look that decided them.
    assert seeds <= {8, 16, 32, 64} and (decided or max(seeds) == 64)
    # `verify` judges as the run did, and looking again is no new look.
    _, out, _ = tsjax("verify", "s", "--json")
    assert json.loads(out)["verdicts"] == content["verdicts"]
    code, _, err = tsjax("run", toy_file, "--out", "s", "--until-verdict", "--max-seeds", "128")
    assert code == 2 and "by a plan for at most 64" in err and "or with --max-seeds 64" in err
    code, _, err = tsjax("run", toy_file, "--out", "t", "--until-verdict", "--until-precision", "0.1")
    assert code == 2 and "give one of them" in err
    assert not Path("t").exists()


def test_verify_corrected_for_the_number_of_verdicts(tsjax, toy_store):
    _, plain, _ = tsjax("verify", toy_store)
    _, corrected, _ = tsjax("verify", toy_store, "--corrected")
    assert "Holm's correction" in corrected and "Holm's correction" not in plain


@pytest.mark.parametrize(
    "arguments", [["plan", "--precision", "-1", "--pilot"], ["run", "--until-precision", "0", "--out"]]
)
def test_a_precision_that_is_none_is_refused_before_anything_runs(tsjax, toy_file, toy_store, arguments):
    command, *options = arguments
    code, out, err = tsjax(command, toy_file, *options, toy_store)
    assert code == 2 and out == "" and "precision is a half-width of the exponent's interval, positive; got" in err


PAPER = """
claim = "{claim}"
reproduces = "arXiv:1234.5678"
study = "sweep.toys:power"
grid = {{ n = [16, 32, 64], method = ["fast", "slow"], seeds = 8 }}
smoke = {{ n = [16, 32], seeds = 4 }}
[[expect]]
what = "rate of fast in n"
published = {{ value = {published}, error = 0.01, place = "Table 1" }}
tolerance = 0.5
smoke = {{ at_least = 0.2, over = {{ n = [16, 32] }} }}
"""


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """A folder of shipped sweeps: two of one paper, and one that reproduces nothing."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "right.toml").write_text(PAPER.format(claim="a law that holds", published=1.0))
    (folder / "wrong.toml").write_text(PAPER.format(claim="a law that is false", published=2.5))
    (folder / "other.toml").write_text(TOY.format(tolerance=0.5))
    monkeypatch.setattr("tsjax.cli.specs.shipped_sweeps", lambda: folder)
    return folder


@pytest.mark.slow
def test_a_paper_is_reproduced(tsjax, paper, tmp_path):
    code, out, err = tsjax("reproduce", "arXiv:1234.5678v2", "--quiet")
    # One of the two claims is false.
    assert code == 1, err
    words = " ".join(out.split())
    assert "a law that holds" in words and "a law that is false" in words
    assert "1 ± 0.01" in words and "2.5 ± 0.01" in words and "less than a minute" in words
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"right", "wrong"}
    assert (tmp_path / "runs/right/report.html").is_file()
    # What was run is not run again, and JSON says the same.
    chunks = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.parquet")}
    code, out, _ = tsjax("reproduce", "1234.5678", "--quiet", "--json")
    assert code == 1 and chunks == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.parquet")}
    right, wrong = json.loads(out)["1234.5678"]
    assert [right["sweep"], wrong["sweep"]] == ["right", "wrong"]
    (row,) = right["claims"]
    direct = ts.load(tmp_path / "runs/right").verdicts()[0]
    assert row["verdict"] == "holds" and row["ours"].startswith(f"{direct.value:.2f} [")
    assert wrong["claims"][0]["verdict"] == "fails" and wrong["claims"][0]["allowed"] == "2 to 3"


def test_json_keeps_the_sweeps_before_one_that_fails(tsjax, paper, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/wrong").write_text("a file where a store should be")
    code, out, err = tsjax("reproduce", "1234.5678", "--quiet", "--json")
    assert code == 2 and "runs/wrong" in err
    assert [one["sweep"] for one in json.loads(out)["1234.5678"]] == ["right"]


def test_every_paper_at_smoke_size(tsjax, paper, tmp_path):
    (paper / "wrong.toml").unlink()
    code, out, err = tsjax("reproduce", "--all", "--smoke", "--quiet", "--out", tmp_path / "small")
    assert code == 0, (out, err)
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["right-smoke"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a paper, or give --all"),
        (("12345.5678",), "no sweep reproduces '12345.5678'"),
        (("1234.5678", "--all"), "give one of them"),
        (("Akiyama",), "These can be reproduced: 1234.5678 (right, wrong)"),
    ],
)
def test_papers_that_nothing_reproduces(tsjax, paper, arguments, said):
    code, out, err = tsjax("reproduce", *arguments)
    assert code == 2 and said in err and not out
