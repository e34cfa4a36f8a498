"""Every command that README and docs show is run here, or in a test that is named, or it is on a short list with the reason.

A command of `tsjax` is run as it is written, in a folder where the sweeps and stores that documents speak of are toys.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers import users_environment
from markdown_it import MarkdownIt

import tsjax as ts
from tsjax.cli import app
from tsjax.cli.specs import shipped_sweeps

# What reports draw is tested in tests/report, and test_cli_stores.py draws the figures of its pages.
pytestmark = pytest.mark.usefixtures("blank_figures")

ROOT = Path(ts.__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What blocks may be written in. Those of Python are run by test_documents.py, which also looks at what they print, those of py
# and yaml, which need other tools, by test_recipes.py.
LANGUAGES = {"python", "sh", "text", "toml", "sql", "py", "yaml"}
# A block without a language is the list of commands in the page about the command line.
SYNOPSIS = ROOT / "docs/howto/cli.md"

# Commands that other tests run, or that .ci/run does, line by line.
ELSEWHERE = {
    "python3 -m pip install uv": ".ci/run",
    "uv run pytest": ".ci/run",
    "uv run ruff check": ".ci/run",
    "uv run ruff format --check": ".ci/run",
    "uv run pyright": ".ci/run",
    "uv run --group slow pytest -m slow": ".ci/run",
    "uv run --group docs mkdocs build --strict": ".ci/run",
    "uv run python docs/gallery.py runs": "tests/test_gallery.py::test_one_command_makes_everything_from_stores",
    "uv run --group slow python docs/execute.py": "tests/test_notebooks.py::test_runs",
    "uv run tsjax quickstart": "tests/test_commands.py::test_the_first_command_leaves_what_the_readme_says",
    "tsjax quickstart": "tests/test_commands.py::test_the_first_command_leaves_what_the_readme_says",
    "python3 -m pip install .": "tests/test_install.py::test_pip",
    "uv tool install .": "tests/test_install.py::test_uv_tool",
    "uv add PATH": "tests/test_install.py::test_as_a_dependency",
    "python3 -m pip install --no-deps neural-tangents==0.6.5 frozendict": "tests/test_install.py::test_pip",
    "tsjax run sweeps/superiority.toml --engine ray": (
        "tests/sweep/engines/test_ray.py::test_ray_with_a_killed_worker_and_a_killed_node"
    ),
    "tsjax run sweeps/superiority.toml --out runs/trial --smoke --engine slurm --with cluster=local --with jobs=2": (
        "tests/sweep/engines/test_slurm.py::test_jobs_of_submitit"
    ),
    "srun --ntasks=4 tsjax run sweeps/superiority.toml --out /shared/superiority --distributed": (
        "tests/sweep/engines/test_ray.py::test_two_processes_of_jax_distributed"
    ),
    "uv run python -m benchmarks compare benchmarks/training.json new.json": "tests/test_benchmarks.py::test_the_guard",
    "uv run --extra cuda13 --with nvidia-cuda-nvdisasm python -m benchmarks gpu_code": "tests/test_benchmarks.py::"
    "test_machine_code_is_read",
    "uv run --extra cuda13 python -m benchmarks gpu_code --sweep quickstart": "tests/test_benchmarks.py::"
    "test_programs_of_a_sweep_are_compiled_for_a_device",
    "uv run --extra cuda13 python -m benchmarks gpu_code --ridge 65536": "tests/test_benchmarks.py::"
    "test_ridge_regression_is_compiled_for_a_device",
    "uv run python -m benchmarks exact_risk": "tests/test_benchmarks.py::test_the_share_of_the_exact_risk",
    "uv run python -m benchmarks large_ridge_peers": "tests/test_benchmarks.py::test_peers_of_large_ridge",
    "uv run --extra cuda13 python -m benchmarks million": "tests/test_benchmarks.py::test_many_students_are_counted",
}
_LONG = "takes minutes to hours on a machine that does nothing else; tests/test_benchmarks.py tests its parts"
# Commands that no test runs, and why.
NOT_RUN = {
    "tsjax --install-completion": "writes into the settings of the user's shell",
    "tsjax run sweeps/superiority.toml --out s3://bucket/superiority": "needs an account with an object store",
    "tsjax report s3://bucket/superiority --out page": "needs an account with an object store",
    "tsjax run sweeps/superiority.toml --out /shared/superiority --engine slurm --with jobs=32 --with minutes=120 "
    "--with partition=gpu": "needs a Slurm cluster",
    "tsjax run sweeps/superiority.toml --engine ray --with address=ray.example:6379": "needs a Ray cluster",
    "uv run --extra cuda13 tsjax doctor": "needs a GPU, and downloads CUDA",
    "uv run --extra cuda13 python -m benchmarks gpu": "needs a GPU",
    "uv run --extra cuda13 python -m benchmarks gpu_sweep": "needs a GPU; test_benchmarks.py runs the tiny size on CPUs",
    "uv run --group peers python -m benchmarks training --json new.json": _LONG,
    **{
        f"uv run python -m benchmarks {name}": _LONG
        for name in "profile costs start coverage large_ridge sweep_overhead".split()
    },
    "uv run python -m benchmarks ridge_path --n 4096": _LONG,
}

SHIPPED_SWEEPS = {file.stem for file in shipped_sweeps().glob("*.toml")}

_TOY = """
study = "sweep.toys:power"
claim = "a planted law"
[grid]
n = [16, 32, 64]
method = ["fast", "slow"]
seeds = 4
[smoke]
n = [16, 32]
seeds = 2
[[expect]]
what = "rate of fast in n"
value = 1.0
tolerance = 0.9
"""


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _blocks(path: Path) -> list[tuple[str, str]]:
    """(language, content) of every fenced block."""
    return [
        (token.info.strip(), token.content) for token in MarkdownIt().parse(path.read_text()) if token.type == "fence"
    ]


def _commands(path: Path) -> list[str]:
    """The commands of a document's shell blocks, without comments; those that && joins are two."""
    found = []
    for language, content in _blocks(path):
        for line in content.splitlines() if language == "sh" else []:
            written = re.sub(r"(^|\s)#.*", "", line)
            found += [" ".join(part.split()) for part in re.split(r"&&", written) if part.strip()]
    return found


COMMANDS = list(dict.fromkeys(command for path in DOCUMENTS for command in _commands(path)))


def _is_run_here(command: str) -> bool:
    return command.startswith(("tsjax ", "echo ")) and command not in NOT_RUN and command not in ELSEWHERE


def test_every_command_is_run_or_listed_with_a_reason():
    assert len(COMMANDS) > 40
    unknown = [command for command in COMMANDS if not _is_run_here(command) and command not in {*NOT_RUN, *ELSEWHERE}]
    assert not unknown, "run it here, or name the test that does, or say why none does"
    gone = [command for command in {**NOT_RUN, **ELSEWHERE} if command not in COMMANDS]
    assert not gone, "no document shows it any more"
    assert len(NOT_RUN) <= 16 and all(len(reason) > 10 for reason in NOT_RUN.values())


def test_a_command_that_nobody_knows_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\n# a comment\nmake all && tsjax list   # two\n#SBATCH --array=1-16\n```\n\n```text\nno command\n```\n"
    )
    assert _commands(page) == ["make all", "tsjax list"]
    assert not _is_run_here("make all") and _is_run_here("tsjax list")


def test_commands_that_run_elsewhere_do():
    ci = (ROOT / ".ci/run").read_text()
    for command, place in ELSEWHERE.items():
        file, _, name = place.partition("::")
        if file == ".ci/run":
            assert re.search(rf"(^|&& |\s){re.escape(command)}( --quiet\b.*)?$", ci, re.M) or command in ci, command
        else:
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.M), place


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_blocks_are_in_languages_that_tests_read(path):
    languages = {language for language, _ in _blocks(path)}
    assert languages <= LANGUAGES | ({""} if path == SYNOPSIS else set())


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    """A folder where the names of documents are those of toys: sweep files, stores, and the place that a cluster shares."""
    from tsjax.sweep.run import run_spec
    from tsjax.sweep.spec import load_spec

    folder = tmp_path_factory.mktemp("toys")
    (folder / "sweeps").mkdir()
    for name in ("sweeps/superiority.toml", "SPEC"):
        (folder / name).write_text(_TOY)
    rows = [(n, 1 / (n + seed), seed, model) for n in (16, 32, 64) for seed in range(4) for model in ("net", "knn")]
    lines = ["n,loss,seed,model", *(",".join(map(str, row)) for row in rows)]
    (folder / "runs.csv").write_text("\n".join(lines))
    models = [(n, d, 1.8 + 480 / n**0.35 + 2100 / d**0.37) for n in (1e7, 1e8, 1e9) for d in (1e9, 1e10, 1e11)]
    lines = ["parameters,tokens,loss", *(",".join(map(str, model)) for model in models)]
    (folder / "models.csv").write_text("\n".join(lines))
    (folder / "claims.toml").write_text('[[expect]]\nwhat = "rate of net in n"\nat_least = 0.4\n')
    run_spec(load_spec(folder / "SPEC"), out=folder / "DIR")
    shutil.copytree(folder / "DIR", folder / "shared/superiority")
    return folder


@pytest.fixture
def world(toys, tmp_path, command) -> Path:
    """A copy of the folder of toys, with the stores that the command names in runs/, where the command then runs."""
    shutil.copytree(toys, tmp_path, dirs_exist_ok=True)
    for store in re.findall(r"runs/\w+", command):
        shutil.copytree(toys / "DIR", tmp_path / store)
    return tmp_path


def _is_sweep_that_ships(command: str) -> bool:
    """Whether a command runs a shipped sweep and nothing else. Such a sweep takes minutes, so that a toy takes its place here,
    and one such command stands for all; test_sweeps.py runs the smoke size of each."""
    words = command.split(" ")
    return words[:2] == ["tsjax", "run"] and len(words) == 3 and words[2] in SHIPPED_SWEEPS


_ALIKE = [command for command in COMMANDS if _is_sweep_that_ships(command)]
_RUN_HERE = [command for command in COMMANDS if _is_run_here(command) and command not in _ALIKE[1:]]


def test_one_sweep_that_ships_stands_for_all():
    assert len(_ALIKE) > 10 and _ALIKE[0] in _RUN_HERE
    assert not _is_sweep_that_ships("tsjax run superority") and not _is_sweep_that_ships(
        "tsjax run superiority --smoke"
    )


@pytest.mark.parametrize("command", _RUN_HERE)
def test_command_runs(tsjax, world, command):
    first, *others = command.split("|", 1)
    arguments = shlex.split(os.path.expandvars(first))
    if arguments[0] == "echo":
        return
    # A disk that machines share is here; a study of the tests is code of others; shells are not asked which they are.
    arguments = [argument.replace("/shared", str(world / "shared")) for argument in arguments[1:]]
    if arguments == ["run", "DIR"]:
        arguments.append("--trust")
    if arguments[0] == "run" and arguments[1] in SHIPPED_SWEEPS:
        arguments[1] = "SPEC"
    if arguments == ["--show-completion"]:
        arguments.append("bash")
    if arguments[:1] == ["figure"] and "risk_relative_to_limit" in arguments:
        arguments[-1] = "risk_relative_to_reference"
    code, out, err = tsjax(*arguments)
    assert code == 0, err
    assert out
    if others:
        (pipe,) = others
        if shutil.which(shlex.split(pipe)[0]) is None:
            pytest.skip(f"{shlex.split(pipe)[0]} is not installed")
        done = subprocess.run(["bash", "-c", pipe], input=out, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout.count("fast") == 1, done.stderr


def _options() -> dict[str, set[str]]:
    """The options of every command, and those before any command under the empty name."""
    group = typer.main.get_command(app)
    commands = {"": group, **getattr(group, "commands", {})}
    return {
        name: {text for option in command.params for text in option.opts}
        | {"--help", "--install-completion", "--debug"}
        for name, command in commands.items()
    }


def _mentions(path: Path) -> list[str]:
    """Everything that a document calls a tsjax command: in code within a sentence, in blocks, in the list of commands."""
    text = path.read_text()
    inline = re.findall(r"`(tsjax [^`]+)`", text)
    listed = []
    if path == SYNOPSIS:
        content = next(content for language, content in _blocks(path) if not language)
        # A line that goes on belongs to the command before it.
        listed = re.sub(r"\n\s+", " ", content).splitlines()
    return [*inline, *listed, *(command for command in _commands(path) if command.startswith("tsjax "))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_commands_and_options_that_a_document_names_exist(path):
    options = _options()
    for mention in _mentions(path):
        words = " ".join(mention.split()).split(" ")[1:]
        name = next((word for word in words if not word.startswith("-")), "") if words[0] != "--debug" else ""
        name = name if name in options else "" if words[0].startswith("-") or name == "COMMAND" else name
        assert name in options, f"{mention}: there is no command {name}"
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", mention))
        missing = named - options[name] - options[""] - options["run"] if path == SYNOPSIS else named - options[name]
        assert not missing, f"{mention}: tsjax {name} has no option {missing}"


def test_sweep_files_of_documents_are_sound():
    """Every TOML block is a sweep file, or the part of one, that is read without an error."""
    import tomllib

    from tsjax.sweep.plan import make_plan
    from tsjax.sweep.spec import find_experiment, parse_spec

    files = [content for path in DOCUMENTS for language, content in _blocks(path) if language == "toml"]
    assert len(files) >= 2
    for content in files:
        spec = parse_spec(tomllib.loads(content))
        if ":" not in spec.study:
            assert make_plan(spec, find_experiment(spec.study)).cells > 0


@pytest.mark.slow
def test_the_first_command_leaves_what_the_readme_says(tmp_path):
    """`tsjax quickstart` itself: the files of the table, and the verdict that the README shows, word for word."""
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## What you will see")[2].partition("\n## ")[0]
    shown = next(content for language, content in _blocks(ROOT / "README.md") if language == "text")
    command = [Path(sys.executable).with_name("tsjax"), "quickstart", "--quiet"]
    environment = users_environment(TSJAX_CACHE_DIR=str(tmp_path / "cache"))
    out = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    from test_documents import same

    printed = out[out.index(shown[:40]) :]
    # The README is 80 letters wide, and this terminal wider: by words.
    assert same(" ".join(printed.split()[: len(shown.split())]), shown)
    store = tmp_path / "runs/quickstart"
    files = re.findall(r"^\| `([^`]+)` \|", section, re.M)
    assert len(files) == 4 and all(list(store.glob(file.rstrip("/"))) for file in files)
    assert {path.suffix for path in (store / "figures").iterdir()} == {".png", ".pdf", ".svg"}
    assert out.count("\nholds ") + out.startswith("holds ") == 4
