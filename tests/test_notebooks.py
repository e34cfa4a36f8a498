"""The notebooks: kept with small outputs that a run from the top gives again, and without a trace of the machine."""

import base64
import importlib.util
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from test_documents import RIDDLES, same

import tsjax as ts

DOCS = Path(ts.__file__).parent.parent / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
# Paths, addresses in memory, dates, times of day, durations.
_OF_A_MACHINE = re.compile(
    r"/(?:home|root|tmp|work|usr|Users)/|[A-Z]:\\|\b0x[0-9a-f]{6,}|\b20\d\d-\d\d|\b\d\d?:\d\d|\b[\d.]+ ?(?:ms|s|min)\b|seconds"
)


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= {"quickstart", "own_experiment", "kernels_and_students"}


def _code(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def _texts(cells):
    """What cells print or show as text, without the words that stand for a picture."""
    found = []
    for cell in cells:
        for output in cell["outputs"]:
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if "image/png" not in output.get("data", {}):
                found.append("".join(text))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_small_and_clean(path):
    """Made by `python docs/execute.py`."""
    cells = _code(path)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert len(outputs) > 2 and path.stat().st_size < 200_000
    # A warning of Python would be on stderr.
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert not [text for text in _texts(cells) if _OF_A_MACHINE.search(text)]
    tables = ["".join(output["data"]["text/html"]) for output in outputs if "text/html" in output.get("data", {})]
    assert not [table for table in tables if _OF_A_MACHINE.search(re.sub(r"<[^>]*>", " ", table))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_a_picture(path):
    shown = [output.get("data", {}).get("image/png") for cell in _code(path) for output in cell["outputs"]]
    pictures = [Image.open(io.BytesIO(base64.b64decode(picture))) for picture in shown if picture]
    assert pictures and all(
        picture.width <= 900 and len(picture.convert("RGB").getcolors(1 << 20) or ()) > 8 for picture in pictures
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_else_is_kept(path):
    content = json.loads(path.read_text())
    assert set(content["metadata"]) <= {"kernelspec", "language_info"}
    assert set(content["metadata"]["language_info"]) == {"name"}
    assert all(cell["metadata"] == {} for cell in content["cells"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_sentences_are_plain(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"]
    text = " ".join(" ".join("".join(cell["source"]).split()) for cell in cells).lower()
    assert not [phrase for phrase in RIDDLES if re.search(rf"\b{phrase}\b", text)]


def test_what_is_of_a_machine_is_found():
    for text in ("/tmp/a", "at 0x7f21ac", "2026-11-27", "12:30", "took 3.2 s", "run_seconds"):
        assert _OF_A_MACHINE.search(text), text
    assert not _OF_A_MACHINE.search("n = 200: student / optimal linear = 0.207 [0.174, 0.261]")


@pytest.fixture(scope="module")
def script():
    """docs/execute.py as a module."""
    spec = importlib.util.spec_from_file_location("execute", DOCS / "execute.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(script, path, tmp_path):
    """In a kernel of its own, with JAX as a reader has it: the outputs are those that are kept."""
    notebook = script.tidied(script.executed(path, tmp_path))
    assert not list(tmp_path.iterdir())
    now, kept = (_texts(cells) for cells in ([c for c in notebook.cells if c.cell_type == "code"], _code(path)))
    assert len(now) == len(kept)
    for got, wanted in zip(now, kept, strict=True):
        assert same(got, wanted), f"now\n{got}\nnot\n{wanted}"
    pictures = lambda cells: [sum("image/png" in o.get("data", {}) for o in cell.get("outputs", [])) for cell in cells]
    assert pictures(notebook.cells) == pictures(json.loads(path.read_text())["cells"])
