"""Every sweep that ships: its file is sound, and its smoke size runs end to end."""

import json
import sys

import numpy as np
import pytest

from tsjax.cli import main
from tsjax.cli.specs import shipped_sweeps
from tsjax.sweep.loading import load
from tsjax.sweep.plan import make_plan
from tsjax.sweep.spec import find_experiment, load_spec

FILES = sorted(shipped_sweeps().glob("*.toml"))


def test_sweeps_ship():
    names = {
        "quickstart",
        "superiority",
        "paper_figure",
        "recovery",
        "hard_teachers",
        "unknown_width",
        "why_noise",
        "all_linear",
        "diabetes",
    }
    assert names <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_is_sound(file):
    spec = load_spec(file)
    experiment = find_experiment(spec.study)
    assert spec.claim and spec.source and spec.expect
    assert all(expectation.source for expectation in spec.expect)
    whole, small = (make_plan(size, experiment, deep=False) for size in (spec, spec.at_smoke_size()))
    assert 0 < small.cells < whole.cells


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_plan_is_sound(file):
    """The programs of the whole sweep can be traced. What the smoke size expects is looked at when it runs."""
    spec = load_spec(file)
    assert make_plan(spec, find_experiment(spec.study)).cells > 0


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_smoke_size_runs(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["tsjax", "run", str(file), "--smoke", "--out", str(tmp_path), "--quiet", "--json"]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    content = json.loads(capsys.readouterr().out)
    result = load(tmp_path)
    y, expected = result.experiment.y[0], result.coverage.cells
    assert result.records["cell"].nunique() == expected
    assert np.isfinite(result.records[y]).all() and (result.records[y] >= 0).all()
    assert all(row["failed"] == 0 for row in content["rates"])
    # Expectations about sizes that only the whole sweep has are left out.
    assert len(content["verdicts"]) == len(load_spec(file).at_smoke_size().expect)
    # The smoke size has bounds of its own, with room for other machines: `tsjax verify` ends with 0.
    assert {verdict["outcome"] for verdict in content["verdicts"]} == {"holds"}
    monkeypatch.setattr(sys, "argv", ["tsjax", "verify", str(tmp_path), "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert (tmp_path / "index.html").is_file() or list(tmp_path.glob("*.html"))
