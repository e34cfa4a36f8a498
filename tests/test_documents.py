"""What is written down: the Python of README and docs runs and prints what it says, and so do examples in docstrings."""

import ast
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import users_environment
from markdown_it import MarkdownIt

import tsjax as ts
from tsjax.sweep.phrase import FORMS

PACKAGE = Path(ts.__file__).parent
ROOT = PACKAGE.parent


def _fences(path):
    """(language, line of its first line of code, code) of every fenced block."""
    tokens = MarkdownIt().parse(path.read_text())
    start = lambda token: token.map[0] + 1 if token.map else 0
    return [(token.info.strip(), start(token), token.content) for token in tokens if token.type == "fence"]


def _script(fences):
    """The Python of a document, each line where it stands there, and what every block should print."""
    lines, expected = [], []
    for i, (language, start, code) in enumerate(fences):
        if language != "python":
            continue
        lines += [""] * (start - 1 - len(lines))
        lines += [f"print('{_MARK}')", *code.split("\n")]
        follower = fences[i + 1] if i + 1 < len(fences) else ("", 0, "")
        adjacent = follower[1] == start + code.count("\n") + 3
        expected.append(follower[2] if follower[0] == "text" and adjacent else None)
    return "\n".join(lines), expected


_MARK = "-- next block --"
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


def same(printed, expected):
    """Equal words; numbers to two digits, or as many as are given if fewer: versions of JAX differ in roundoff."""
    numbers = lambda text: [float(number) for number in _NUMBER.findall(text)]
    words = lambda text: _NUMBER.sub("#", text).split()
    if words(printed) != words(expected):
        return False
    return numbers(printed) == pytest.approx(numbers(expected), rel=0.02, abs=1e-12)


DOCUMENTS = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if any(language == "python" for language, _, _ in _fences(path))
]


def _name(path):
    return path.relative_to(ROOT).as_posix()


def test_there_are_documents():
    names = {_name(path) for path in DOCUMENTS}
    assert {"README.md", "docs/concepts.md", "docs/howto/experiment.md"} <= names


def test_a_block_that_prints_something_else_is_found():
    assert same("risk 0.00612 True\n", "risk 0.0061 True\n")
    assert not same("risk 0.0065 True\n", "risk 0.0061 True\n")
    assert not same("risk 0.0061 False\n", "risk 0.0061 True\n")
    fences = [("python", 2, "print(1)\n"), ("text", 6, "1\n"), ("python", 10, "print(2)\n"), ("text", 30, "3\n")]
    script, expected = _script(fences)
    assert script.split("\n")[:3] == ["", f"print('{_MARK}')", "print(1)"]
    assert expected == ["1\n", None]


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_python_of_a_document_runs(path, tmp_path, monkeypatch):
    """In a process of its own, with JAX as a reader has it; only what XLA makes is not optimised, but for the README's."""
    script, expected = _script(_fences(path))
    (tmp_path / path.name).write_text(script)
    environment = users_environment(MPLBACKEND="Agg")
    if path.name != "README.md":
        environment["XLA_FLAGS"] = os.environ["XLA_FLAGS"]
    run = subprocess.run(
        [sys.executable, "-W", "error", path.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr
    printed = run.stdout.split(_MARK + "\n")[1:]
    assert len(printed) == len(expected)
    for got, wanted in zip(printed, expected, strict=True):
        assert wanted is None or same(got, wanted), f"printed\n{got}\nnot\n{wanted}"
    # What SQL asks of a folder is asked of what the Python has left there.
    for query in [code for language, _, code in _fences(path) if language == "sql"]:
        import duckdb

        monkeypatch.chdir(tmp_path)
        rows = duckdb.sql(query)
        assert rows is not None and rows.fetchall()


def test_the_promises_of_a_store_have_their_tests():
    """Every test and file that docs/store.md names is there."""
    text, tests = (ROOT / "docs" / "store.md").read_text(), ROOT / "tests"
    written = "".join(path.read_text() for path in tests.rglob("*.py"))
    names = set(re.findall(r"`(test_\w+)`", text))
    files = set(re.findall(r"`((?:sweep/)?test_\w+\.py)`", text))
    assert len(names) > 15 and len(files) > 3
    assert not [name for name in names if f"def {name}(" not in written]
    assert not [name for name in files if not (tests / name).is_file()]


def test_the_readme_is_short_and_the_rest_is_in_the_docs():
    """What the README leaves out has its page: results of every sweep, every command and option, letters, speeds."""
    read = lambda name: (ROOT / name).read_text()
    assert len(read("README.md").splitlines()) <= 150
    sweeps = {path.stem for path in (ROOT / "sweeps").glob("*.toml")}
    assert sweeps == set(re.findall(r"^\| `(\w+)\.toml` \|", read("docs/science/measured.md"), re.M))
    from tsjax.cli import app

    commands = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    assert commands == set(re.findall(r"^tsjax (\w+)", read("docs/howto/cli.md").split("```")[3], re.M))
    assert {"n", "d", "m", "sigma"} <= set(re.findall(r"^\| (\w+) \|", read("docs/concepts.md"), re.M))
    assert "{{ RESULTS }}" in read("docs/performance.md")


def test_every_result_is_a_question_with_one_table_and_a_date():
    """So a reader of benchmarks/RESULTS.md finds one answer to a question, and sees how old it is."""
    sections = re.split(r"(?m)^## ", (ROOT / "benchmarks/RESULTS.md").read_text())[1:]
    by_question = {section.split("\n")[0]: section for section in sections}
    tables = {question: len(re.findall(r"(?m)^\|(?:-+\|)+$", text)) for question, text in by_question.items()}
    assert len(by_question) == len(sections) > 20
    assert not [question for question in by_question if not question.endswith("?")]
    assert not {question: count for question, count in tables.items() if count != 1}
    assert not [question for question, text in by_question.items() if not re.search(r"20\d\d-\d\d-\d\d", text)]


# What a stranger must find in the README alone: each question with the words of its answer, in their order.
QUESTIONS = {
    "What is it for?": "how fast learners learn.*rate.*confidence intervals.*What it is for.*as data grow",
    "What is it not for?": "It is not a tool for",
    "What does it show?": r"superiority\.svg.*exponents.*two-phase\s+student.*Study\s+superiority",
    "What do I need, and what do I type first?": r"Python 3\.11.*pip install uv && uv run tsjax quickstart.*minutes",
    "What does the first command leave, and what do I open?": r"runs/quickstart.*report\.html.*Open it next.*sweep\.json",
    "What does a verdict mean?": "holds.*whole 95 % interval.*fails.*undecided",
    "What if a run is interrupted?": "An interrupted run continues.*repeat the command",
    "How do I use it from Python?": r"import tsjax as ts.*ts\.excess_risk.*KernelRidge",
    "How do I bring my own learner?": "Your own learner.*A\\s+learner of your own is any JAX code.*@ts.experiment.*ts.sweep",
    "How do I state and check a claim of my own?": r"A claim with its grid.*TOML\s+file.*tsjax verify.*sweep_file\.md",
    "How do I use my own data?": r"your own data.*docs/guide/data\.md",
    "How do I run it on a GPU or a cluster?": r"cluster or a GPU.*docs/howto/cluster\.md.*docs/howto/gpu\.md",
    "How fast is it?": "Speed.*times faster.*RESULTS",
    "Where do I get help, and how do I cite it?": r"CONTRIBUTING\.md.*report a bug.*cite.*CITATION\.cff",
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_readme_answers(question):
    assert re.search(QUESTIONS[question], (ROOT / "README.md").read_text(), re.S)


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", (ROOT / "README.md").read_text())
    assert len(links) > 20 and not [link for link in links if not (ROOT / link).exists()]


# Phrases that make a reader stop and think about the sentence.
RIDDLES = ("of which", "what is left", "whatever", "told", "whoever", "now and then", "not yet met")
_FOLDERS = ("tsjax", "tests", "benchmarks", "docs", "sweeps")
_ENDINGS = {".py", ".pyi", ".md", ".toml", ".c", ".h", ".css", ".html", ".js", ".ipynb"}
_ELSEWHERE = (ROOT / "tsjax/report/vendor", ROOT / "tests/data", ROOT / "docs/gallery")


def riddles(text):
    """The phrases in a text, also where a line ends within one, in a docstring or in a comment."""
    flat = " ".join(re.sub(r"(?m)^\s*(?:#|//|\*)\s", " ", text).split()).lower()
    return [phrase for phrase in RIDDLES if re.search(rf"(?<![a-z]){phrase}(?![a-z])", flat)]


def _written():
    """Every file of the project that people read."""
    files = [path for path in ROOT.glob("*.*") if path.suffix in _ENDINGS]
    for folder in _FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in _ENDINGS]
    skipped = lambda path: any(path.is_relative_to(folder) for folder in _ELSEWHERE) or path == Path(__file__)
    return sorted(path for path in files if not skipped(path))


def test_the_whole_tree_is_plain():
    """Prose, docstrings, comments, messages and names, of the package as of its tests."""
    files = _written()
    assert len(files) > 300
    found = {_name(path): riddles(path.read_text()) for path in files}
    assert not {name: phrases for name, phrases in found.items() if phrases}


def test_a_riddle_is_found():
    assert riddles('"""Rows, some of\n    which count."""') == riddles("# some of\n# which") == ["of which"]
    assert riddles("def _told(result): ...") == ["told"] and not riddles("They withhold it, as foretold.")


def _docstrings(tree, name):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text and ">>>" in text:
                yield f"{name}.{getattr(node, 'name', '')}", text


EXAMPLES = [
    example
    for path in sorted(PACKAGE.rglob("*.py"))
    for example in _docstrings(ast.parse(path.read_text()), path.relative_to(PACKAGE).with_suffix("").as_posix())
]


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_example_of_a_docstring(name, text):
    import jax
    import jax.numpy as jnp
    import numpy as np

    globs = {"jax": jax, "jnp": jnp, "np": np, "ts": ts}
    test = doctest.DocTestParser().get_doctest(text, globs, name, None, None)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=report.append)
    assert test.examples and not runner.failures, "".join(report)


def test_main_names_have_an_example():
    having = {name.rpartition(".")[2] for name, _ in EXAMPLES}
    assert having >= {"fit_rate", "mean_ratio", "Problem", "excess_risk", "KernelRidge", "ntk", "gegenbauer", "sweep"}
    assert having >= {name for name in vars(ts.theory) if name.startswith("predicted_") and "ridge_risk" not in name}


def test_the_reference_has_every_public_name():
    pages = (ROOT / "docs/api").glob("*.md")
    entries = {entry for page in pages for entry in re.findall(r"^::: (\S+)", page.read_text(), re.M)}
    modules = {"activations", "engines", "kernels", "rates", "studies", "theory", "trackers"}
    missing = {f"tsjax.{name}" for name in ts.__all__ if name not in modules} - entries
    missing |= {f"tsjax.kernels.{name}" for name in vars(ts.kernels) if name[0].isupper()} - entries
    engines = (ts.engines.AbstractEngine, *ts.engines.ENGINES.values())
    missing |= {f"tsjax.sweep.engines.{engine.__name__}" for engine in engines} - entries
    missing |= {f"tsjax.studies.{name}.{name}" for name in ts.studies.SHIPPED} - entries
    assert not missing
    assert not [entry for entry in entries if not entry.startswith("tsjax.")]


def test_the_table_of_claims_is_the_grammar():
    rows = re.findall(r"^\| `(.+)` \| (.+) \| `(.+)` \|$", (ROOT / "docs/howto/claims.md").read_text(), re.M)
    forms = [(one.written, one.number, one.example) for one in FORMS.values()]
    assert [row for row in rows if row in forms] == forms
