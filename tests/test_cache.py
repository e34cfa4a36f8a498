"""The folder of code that only its user may write: what is made, what is taken, what is refused and with which words."""

import os
import stat

import pytest

from tsjax.cache import private_folder, read_private

# The user nobody, who is not the user who runs the tests.
NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


def _mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def _folder(path, mode):
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    return path


def test_folders_are_closed_under_any_umask(tmp_path):
    before = os.umask(0)
    try:
        folder = private_folder(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert folder == tmp_path / "a" / "b" / "c"
    assert [_mode(path) for path in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3
    assert private_folder(folder) == folder


def test_a_folder_that_others_could_read_is_closed(tmp_path):
    """Those of earlier versions have mode 0755; what others could write in them is taken away, nothing else is."""
    folder = _folder(tmp_path / "old", 0o755)
    for name, mode in [("good-cache", 0o644), ("open-cache", 0o664), ("notes", 0o666)]:
        (folder / name).write_text(name)
        (folder / name).chmod(mode)
    (folder / "link-cache").symlink_to(folder / "good-cache")
    assert private_folder(folder, suspects="*-cache") == folder
    assert _mode(folder) == 0o700 and sorted(os.listdir(folder)) == ["good-cache", "notes"]
    # Within a folder that was closed all along, nobody could reach what a loose umask left open.
    (folder / "good-cache").chmod(0o664)
    private_folder(folder, suspects="*-cache")
    assert sorted(os.listdir(folder)) == ["good-cache", "notes"]


def test_ways_that_are_safe(tmp_path, monkeypatch):
    """A sticky folder like /tmp, links of one's own, dots, and a path from here."""
    sticky = _folder(tmp_path / "sticky", 0o1777)
    real = _folder(sticky / "real", 0o755)
    (tmp_path / "link").symlink_to("sticky/../sticky/real")
    (real / "again").symlink_to(tmp_path)
    assert private_folder(tmp_path / "link" / "code") == real / "code"
    assert private_folder(tmp_path / "link" / "again" / "link" / "code") == real / "code"
    monkeypatch.chdir(real)
    assert private_folder((real / ".." / "real" / "more").relative_to(real)) == real / "more"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_others_could_write(tmp_path, mode):
    folder = _folder(tmp_path / "code", mode)
    message = rf"other users can write to {folder} \(mode {mode:04o}\) and may have put code there .*Move it away"
    with pytest.raises(PermissionError, match=message):
        private_folder(folder)
    assert _mode(folder) == mode


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_others_could_replace_it(tmp_path, mode):
    above = _folder(tmp_path / "above", mode)
    for folder in (above / "code", above / "between" / "code"):
        with pytest.raises(PermissionError, match=rf"other users can write to {above} .*chmod go-w {above}"):
            private_folder(folder)
    assert os.listdir(above) == []


@as_root
def test_folders_of_others(tmp_path):
    theirs = _folder(tmp_path / "theirs", 0o755)
    os.chown(theirs, NOBODY, NOBODY)
    for folder in (theirs, theirs / "code"):
        message = rf"{theirs} belongs to another user \(number {NOBODY}\).*set TSJAX_CACHE_DIR to a folder"
        with pytest.raises(PermissionError, match=message):
            private_folder(folder)
    link = tmp_path / "link"
    link.symlink_to(_folder(tmp_path / "ours", 0o700))
    os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match=rf"{link} belongs to another user"):
        private_folder(link / "code")


def test_links_and_files_are_no_folders(tmp_path):
    (tmp_path / "link").symlink_to(_folder(tmp_path / "ours", 0o700))
    (tmp_path / "file").write_text("")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(PermissionError, match=r"link is a link, where a folder should be"):
        private_folder(tmp_path / "link")
    for folder in (tmp_path / "file", tmp_path / "file" / "code"):
        with pytest.raises(NotADirectoryError, match="file is not a folder"):
            private_folder(folder)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        private_folder(tmp_path / "round" / "code")


def test_what_is_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"code")
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    assert read_private(file) == b"code"
    assert [read_private(tmp_path / name) for name in ("link", "pipe", "missing", ".")] == [None] * 4
    for mode in (0o620, 0o602):
        file.chmod(mode)
        assert read_private(file) is None


@as_root
def test_files_of_others_are_not_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"code")
    os.chown(file, NOBODY, NOBODY)
    assert read_private(file) is None
