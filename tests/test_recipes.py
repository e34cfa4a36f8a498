"""The recipes of docs/howto/recipes.md, run with the tools themselves; those of scikit-learn are run by test_documents.py."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import tsjax as ts

ROOT = Path(ts.__file__).parent.parent
PAGE = ROOT / "docs/howto/recipes.md"


def _blocks(language):
    tokens = MarkdownIt().parse(PAGE.read_text())
    return [token.content for token in tokens if token.type == "fence" and token.info.strip() == language]


@pytest.fixture
def store(tmp_path):
    @ts.experiment(static=())
    def law(key, *, n: int):
        import jax

        return {"risk": jax.random.gamma(key, 20.0) / 20.0 / n}

    ts.sweep(law, out=tmp_path / "store", n=[16, 32, 64], seeds=8)
    return tmp_path / "store"


@pytest.mark.slow
def test_hydra(tmp_path):
    pytest.importorskip("hydra")
    app, config = _blocks("py")[0], _blocks("yaml")[0]
    (tmp_path / "app.py").write_text(app)
    (tmp_path / "config.yaml").write_text(config)
    for override, seeds in ((), 4), (("grid.seeds=8",), 8):
        command = [sys.executable, "app.py", *override, "hydra.run.dir=.", "hydra.output_subdir=null"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert "exponent" in done.stdout and ts.load(tmp_path / "runs/hydra").seeds == seeds


@pytest.mark.slow
def test_papermill(tmp_path, store):
    papermill = pytest.importorskip("papermill")
    notebooks = pytest.importorskip("nbformat.v4")
    first, second = _blocks("py")[1:]
    cells = [notebooks.new_code_cell(first, metadata={"tags": ["parameters"]}), notebooks.new_code_cell(second)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "report.ipynb").write_text(notebooks.writes(notebooks.new_notebook(cells=cells, metadata=kernel)))
    papermill.execute_notebook(
        str(tmp_path / "report.ipynb"),
        str(tmp_path / "out.ipynb"),
        parameters={"store": str(store)},
        progress_bar=False,
    )
    outputs = json.loads((tmp_path / "out.ipynb").read_text())["cells"][-1]["outputs"]
    assert any("srcdoc=" in "".join(output.get("data", {}).get("text/html", "")) for output in outputs)


def test_quarto_by_its_cell(store, capsys):
    """What Quarto runs is the cell; Quarto itself is no Python package."""
    (content,) = [block for block in _blocks("text") if "{python}" in block]
    lines = [line for line in content.splitlines() if line and not line.startswith(("```", "#|"))]
    exec("\n".join(lines).replace("runs/superiority", str(store)), {})
    assert "| exponent" in capsys.readouterr().out


@pytest.mark.slow
def test_polars(store):
    polars = pytest.importorskip("polars")
    found = polars.read_parquet(f"{store}/chunks/*.parquet").group_by("n").agg(polars.col("risk").mean()).sort("n")
    own = ts.load(store).records.groupby("n")["risk"].mean()
    assert found["risk"].to_list() == pytest.approx(own.tolist(), rel=1e-12)
    # And back: a table of another tool is a result.
    again = ts.from_table(polars.read_parquet(f"{store}/chunks/*.parquet"), x="n", y="risk", seed="seed")
    (one,), (other,) = again.curves(), ts.load(store).curves()
    assert again.rate(one).exponent == ts.load(store).rate(other).exponent


@pytest.mark.slow
def test_r(store):
    if shutil.which("Rscript") is None:
        pytest.skip("R is not installed")
    code = f'cat(nrow(arrow::open_dataset("{store}/chunks") |> dplyr::collect()))'
    done = subprocess.run(["Rscript", "-e", code], capture_output=True, text=True, timeout=300)
    if "there is no package called" in done.stderr:
        pytest.skip("R has no arrow")
    assert done.stdout.strip() == "24"
