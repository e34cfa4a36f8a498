"""Code that a spec names, looked for from the wrong folder."""

import sys
from pathlib import Path

import pytest

from tsjax.sweep.spec import SpecError, find_experiment


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `lab_of_mine` with a study and modules beside it that import it; Python's path is ordered as for a command."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "lab_of_mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "study_of_mine.py").write_text("cell = 1\n")
    (folder / "by_its_name.py").write_text("from lab_of_mine.study_of_mine import cell\n")
    (folder / "by_its_place.py").write_text("from .study_of_mine import cell\n")

    def run_in(folder):
        monkeypatch.chdir(folder)
        sys.path.append(str(folder))

    return folder, run_in


@pytest.mark.parametrize(
    ("study", "hint"),
    [
        (
            "lab_of_mine.study_of_mine:cell",
            "It is in PACKAGE/study_of_mine.py: run in ABOVE, or put that folder on the path",
        ),
        (
            "by_its_name:cell",
            "It is in PACKAGE/__init__.py: run in ABOVE, or put that folder on the path, PYTHONPATH=ABOVE.",
        ),
        ("by_its_place:cell", "part of a package: run in ABOVE, and write study = 'lab_of_mine.by_its_place:cell'."),
    ],
)
def test_a_study_that_is_run_in_its_own_folder(package, study, hint):
    folder, run_in = package
    run_in(folder)
    with pytest.raises(SpecError) as error:
        find_experiment(study)
    assert hint.replace("PACKAGE", str(folder)).replace("ABOVE", str(folder.parent)) in str(error.value)


def test_a_study_in_a_folder_below(package):
    folder, run_in = package
    run_in(folder.parent)
    with pytest.raises(SpecError, match=f"It is in {folder}/study_of_mine.py: run in {folder}, or"):
        find_experiment("study_of_mine:cell")
    # From the folder that is named it is found.
    sys.path.append(str(folder))
    with pytest.raises(SpecError, match="study = 'study_of_mine:cell' is a int, not an experiment"):
        find_experiment("study_of_mine:cell")
    with pytest.raises(SpecError, match="no module 'nowhere' .* Install its package"):
        find_experiment("nowhere.at_all:x")


def test_a_folder_that_cannot_be_read_is_no_error(tmp_path, monkeypatch):
    """Path.is_file raises there, before Python 3.14; for root nothing is unreadable, so it is made to."""
    (tmp_path / "locked").mkdir()

    def is_file(path):
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return False

    monkeypatch.setattr(Path, "is_file", is_file)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="there is no module .nowhere_at_all."):
        find_experiment("nowhere_at_all:cell")
