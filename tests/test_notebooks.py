"""The notebooks: kept without outputs, and each runs from the top."""

import json
from pathlib import Path

import pytest

import tsjax as ts

NOTEBOOKS = sorted((Path(ts.__file__).parent.parent / "docs/notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= {"quickstart", "own_experiment", "kernels_and_students"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_without_outputs(path):
    content = json.loads(path.read_text())
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 2
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    # Of the machine that wrote it, nothing.
    assert set(content["metadata"]) <= {"kernelspec", "language_info"}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch):
    """In a kernel of its own, with JAX as a reader has it."""
    import nbformat  # pyright: ignore[reportMissingImports]
    from nbclient import NotebookClient  # pyright: ignore[reportMissingImports]

    for name in ("JAX_NUM_CPU_DEVICES", "PJRT_NPROC"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert shown and not list(tmp_path.iterdir())
    # Warnings of Python go there; a reader should see none.
    assert not [output for output in shown if output.get("name") == "stderr"]
