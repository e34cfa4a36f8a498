"""Runs the notebooks of docs/notebooks and keeps their outputs, small and without a trace of the machine.

uv run --group slow python docs/execute.py [NAME ...]
"""

import base64
import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

NOTEBOOKS = Path(__file__).parent / "notebooks"
# Kernels talk through files of the folder that they start in, not through the network.
_LOCAL = Config(KernelManager={"transport": "ipc"})
# Variables that the tests set for JAX, and that a reader has not set.
_OF_TESTS = ("JAX_NUM_CPU_DEVICES", "PJRT_NPROC", "XLA_FLAGS")
# The width of a page in pixels, and enough colours for a figure.
_WIDTH, _COLOURS = 900, 64
# The kinds of output that a page can show.
_KINDS = ("text/html", "text/markdown", "text/plain", "image/png")


def executed(path: Path, folder: Path) -> NotebookNode:
    """The notebook with the outputs of a run from its top, in a new kernel that starts in `folder`. Raises a cell's error."""
    notebook = nbformat.read(path, as_version=4)
    environment = {name: value for name, value in os.environ.items() if name not in _OF_TESTS}
    client = NotebookClient(notebook, timeout=600, startup_timeout=300, config=_LOCAL)
    with contextlib.chdir(folder):
        client.execute(env=environment | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    return notebook


def tidied(notebook: NotebookNode) -> NotebookNode:
    """The notebook as it is kept: small pictures, joined streams, cells without times, no trace of the machine."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _joined([_small(output) for output in cell.outputs])
    return notebook


def _small(output: NotebookNode) -> NotebookNode:
    if "data" in output:
        output.metadata = {}
        output.data = {kind: output.data[kind] for kind in _KINDS if kind in output.data}
        if "image/png" in output.data:
            output.data["image/png"] = _picture(output.data["image/png"])
    return output


def _picture(encoded: str) -> str:
    """A PNG of few colours, no wider than a page."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    picture.thumbnail((_WIDTH, 10 * _WIDTH))
    buffer = io.BytesIO()
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs, with consecutive pieces of one stream joined."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if kept and output.output_type == "stream" and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def main(names: list[str]) -> None:
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if not names or path.stem in names:
            print(path.stem, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                notebook = tidied(executed(path, Path(folder)))
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
