"""Versions, of packages that are installed and of a source tree that is not."""

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from tsjax.versions import version_of

ROOT = Path(__file__).parent.parent


def test_installed_packages():
    assert version_of("jax") == version("jax") and version_of("no-such-package") is None


@pytest.mark.slow
def test_a_source_tree_that_is_not_installed(tmp_path):
    """Without the metadata of an installation: with site-packages as a plain folder that lacks tsjax."""
    shutil.copytree(ROOT / "tsjax", tmp_path / "tsjax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    code = (
        "import sys, importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'tsjax': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "import tsjax as ts\n"
        "assert ts.__file__.startswith(sys.argv[1]), ts.__file__\n"
        "import jax.random as jr\n"
        "@ts.experiment\n"
        "def noise(key, *, n: int): return {'risk': jr.uniform(key) / n}\n"
        "result = ts.sweep(noise, n=[4, 8], seeds=2, out=sys.argv[1] + '/s')\n"
        "print(result.provenance['versions']['tsjax'], ts.load(sys.argv[1] + '/s').coverage.whole)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{number}+source", "True"]


def test_the_citation_is_of_this_version():
    number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {number}\n" in (ROOT / "CITATION.cff").read_text()
