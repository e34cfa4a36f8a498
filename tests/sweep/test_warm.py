"""What tracing found is kept for studies that ship, and found again by everything that it was made of."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import users_environment
from sweep.toys import power, stored

import tsjax as ts
from tsjax.sweep import warm

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder of its own, for programs that are kept as the command line keeps them."""
    monkeypatch.setenv("TSJAX_CACHE_DIR", str(tmp_path / "cache"))
    return warm.Warm()


def test_what_is_written_is_read(kept):
    assert kept.read("a") is None
    kept.write("a", {"x": (1, 2.5)})
    assert kept.read("a") == {"x": (1, 2.5)} and kept.read("b") is None
    assert warm.Warm().read("a") == {"x": (1, 2.5)}


@pytest.mark.parametrize("harm", ["cut", "altered", "open to others"])
def test_what_was_harmed_is_not_loaded(kept, harm):
    kept.write("a", [1, 2, 3])
    (file,) = kept.folder.iterdir()
    content = file.read_bytes()
    if harm == "open to others":
        file.chmod(0o666)
    else:
        file.write_bytes(content[:-1] if harm == "cut" else content[:-1] + b"!")
    assert kept.read("a") is None


def test_the_oldest_go_first(kept, monkeypatch):
    monkeypatch.setattr(warm, "_MOST_BYTES", 2500)
    for second, name in enumerate("ab"):
        old = set(kept.folder.iterdir())
        kept.write(name, bytes(1000))
        (new,) = set(kept.folder.iterdir()) - old
        os.utime(new, (second, second))
    # What was read last stays longest.
    kept.read("a")
    kept.write("c", bytes(1000))
    assert [name for name in "abc" if kept.read(name) is not None] == ["a", "c"]


def test_other_code_is_another_digest(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/helper.py").write_text("x = 1\n")
    digests = [warm.source_digest(tmp_path)]
    (tmp_path / "inner/helper.py").write_text("x = 2\n")
    digests.append(warm.source_digest(tmp_path))
    (tmp_path / "inner/helper.py").rename(tmp_path / "inner/other.py")
    digests.append(warm.source_digest(tmp_path))
    (tmp_path / "loop.c").write_text("int x;\n")
    digests.append(warm.source_digest(tmp_path))
    assert len(set(digests)) == 4
    (tmp_path / "notes.md").write_text("no code\n")
    assert warm.source_digest(tmp_path) == digests[-1]


@pytest.mark.parametrize("change", ["flag", "environment", "package", "processor"])
def test_other_settings_are_other_facts(kept, monkeypatch, request, change):
    kept.write("a", 1)
    if change == "flag":
        before = jax.config.values["jax_default_matmul_precision"]
        jax.config.update("jax_default_matmul_precision", "highest")
        request.addfinalizer(lambda: jax.config.update("jax_default_matmul_precision", before))
    if change == "environment":
        monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    if change == "package":
        monkeypatch.setattr(warm, "version_of", lambda name: "0.0")
    if change == "processor":
        monkeypatch.setattr(warm.native, "processor", lambda: "another")
    assert warm.Warm().read("a") is None
    assert kept.read("a") == 1


def test_only_studies_that_ship_are_kept_and_only_where_it_was_asked_for(kept, monkeypatch):
    assert warm.warm_of(ts.studies.superiority) is None
    monkeypatch.setattr(warm, "_wanted", True)
    monkeypatch.setattr(warm, "_warm", lambda: kept)
    assert warm.warm_of(ts.studies.superiority) is kept and warm.warm_of(ts.studies.recovery) is kept
    # Its cells read files and call estimators of users.
    assert warm.warm_of(ts.studies.real_data) is None
    assert warm.warm_of(power) is None
    assert warm.warm_of(replace(power, name="superiority")) is None


_RUN = """
import sys
from tsjax.cli.app import start
start()
from tsjax.sweep import experiment, programs
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import parse_spec

def never(*_, **__):
    raise AssertionError("traced")

if "warm" in sys.argv:
    programs.compile_group = experiment.Experiment.__call__ = experiment.Experiment.theory_at = never
grid = {"seeds": 4, "n": [16, 24], "d": 3, "m": 2, "estimator": ["student", "ntk"], "restarts": 1, "noise_std": 0.1}
expect = [{"what": "train_loss of student", "at_most": 1e6}, {"what": "risk of ntk relative to predicted", "at_most": 1e6}]
content = {"study": "superiority", "grid": grid, "expect": expect}
print(len(run_spec(parse_spec(content, where="test"), out=sys.argv[1]).records))
"""


def _run(code, store, cache, *arguments):
    environment = users_environment(TSJAX_CACHE_DIR=str(cache), PYTHONPATH=str(code))
    command = [sys.executable, "-c", _RUN, str(store), *arguments]
    done = subprocess.run(command, env=environment, cwd=cache.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return stored(store).sort_values("cell")


@pytest.mark.slow
def test_a_second_run_traces_nothing_and_a_changed_helper_is_seen(tmp_path):
    code = tmp_path / "code"
    shutil.copytree(ROOT / "tsjax", code / "tsjax", ignore=shutil.ignore_patterns("__pycache__"))
    first = _run(code, tmp_path / "first", tmp_path / "cache")
    second = _run(code, tmp_path / "second", tmp_path / "cache", "warm")
    np.testing.assert_array_equal(first["risk"], second["risk"])
    assert second["compile_seconds"].max() < 0.5 * first["compile_seconds"].min()
    helper = code / "tsjax/studies/cell.py"
    text, old = helper.read_text(), "fold_in(key, i) for i in range(4))"
    assert text.count(old) == 1
    helper.write_text(text.replace(old, "fold_in(key, i) for i in range(4, 8))"))
    third = _run(code, tmp_path / "third", tmp_path / "cache")
    assert not np.isclose(third["risk"], first["risk"]).any()
