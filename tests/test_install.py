"""Every way to install tsjax, each in an environment of its own: small, without TensorFlow, and it works."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# 1 GB for those who use tsjax, 1.2 GB for those who develop it.
_MOST, _MOST_FOR_DEVELOPERS = 1.0e9, 1.2e9
_SWEEP = """
import jax, tsjax as ts
k = ts.kernels.ntk()
x = jax.random.normal(jax.random.key(0), (8, 3))
fit = ts.KernelRidge(k, ridge=0.1).fit(jax.random.key(1), ts.Dataset(x, x[:, 0]))
print(ts.Status(int(fit.status)).name, ts.kernels.neural_tangents.source())
"""

pytestmark = pytest.mark.slow


def _clean() -> dict[str, str]:
    """The environment of a new user: nothing of this project's own environment."""
    dropped = ("VIRTUAL_ENV", "PYTHONPATH", "UV_", "JAX_", "XLA_", "PJRT_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def _run(*command, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, env=_clean(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def _size(folder: Path) -> float:
    seen = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
            seen[path.stat().st_ino] = path.stat().st_size
    return float(sum(seen.values()))


def _check(environment: Path, route: str, expected: str, most: float = _MOST) -> None:
    """Its size, that TensorFlow is not there, that a kernel is computed as expected and the command starts."""
    size = _size(environment)
    print(f"{route}: {size / 1e6:.0f} MB")
    assert size < most, f"{route}: {size / 1e6:.0f} MB"
    assert not [name for name in ("tensorflow", "tf2jax") if list(environment.glob(f"lib/*/site-packages/{name}"))]
    folder = environment.parent
    assert _run(environment / "bin" / "python", "-c", _SWEEP, cwd=folder).split(maxsplit=1) == [
        "CONVERGED",
        expected + "\n",
    ]
    number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert _run(environment / "bin" / "tsjax", "--version", cwd=folder) == f"tsjax {number}\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run("uv", "build", "--wheel", "-o", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def _python(version: str) -> str:
    """The path of a Python of that version; pyenv's commands only say that they know it."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for path in [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]:
        if path is not None and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return str(path)
    pytest.skip(f"no Python {version} on this machine")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_wheel_in_a_bare_environment(wheel, tmp_path, version):
    environment = tmp_path / "env"
    _run("uv", "venv", "--python", _python(version), environment, cwd=tmp_path)
    _run("uv", "pip", "install", "--python", environment / "bin" / "python", wheel, cwd=tmp_path)
    _check(environment, f"wheel, Python {version}", "closed form")


def test_pip(tmp_path):
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    _run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", ROOT, cwd=tmp_path)
    _check(environment, "pip install .", "closed form")
    # The library itself, as docs/install.md and the error of `load` say, without TensorFlow.
    package = "neural-tangents==0.6.5"
    _run(
        environment / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        package,
        "frozendict",
        cwd=tmp_path,
    )
    _check(environment, "with neural-tangents", "neural-tangents 0.6.5")


def test_as_a_dependency(wheel, tmp_path):
    """`uv lock` finds a solution, which it did not while neural-tangents was required."""
    _run("uv", "init", "--bare", "--name", "user", "--python", sys.executable, cwd=tmp_path)
    _run("uv", "add", wheel, cwd=tmp_path)
    _check(tmp_path / ".venv", "uv add", "closed form")


def test_uv_tool(tmp_path):
    environment = _clean() | {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    done = subprocess.run(
        ["uv", "tool", "install", "--python", sys.executable, str(ROOT)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _check(tmp_path / "tools" / "tsjax", "uv tool install .", "closed form")


def test_the_development_environment(tmp_path):
    """The checkout installs the real neural-tangents always, also for those who only run the main job."""
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".venv", ".git", "runs", "site", "__pycache__", "uv.lock", ".pytest_cache")
    shutil.copytree(ROOT, checkout, ignore=ignored)
    _run("uv", "sync", "--quiet", "--python", sys.executable, cwd=checkout)
    _check(checkout / ".venv", "uv sync", "neural-tangents 0.6.5", most=_MOST_FOR_DEVELOPERS)
