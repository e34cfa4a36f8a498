"""The user's cache folder. It holds compiled code that later processes run, so no other user may ever have been able to write
there."""

import contextlib
import errno
import os
import stat
from pathlib import Path

_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# As many symbolic links as Linux follows on one path.
_MOST_LINKS = 40


def cache_folder() -> Path:
    """The folder of compiled code: TSJAX_CACHE_DIR, or XDG_CACHE_HOME/tsjax, or ~/.cache/tsjax."""
    chosen = os.environ.get("TSJAX_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tsjax"


def private_folder(folder: Path, suspects: str | None = None) -> Path:
    """Creates a folder that only this user may use (mode 0700), unless it exists, and returns its path with all links resolved.

    Every folder on the path is checked before the next one, and no link is followed unchecked. Each folder must belong to this
    user or to root, and must be writable by nobody else or sticky like /tmp, where nobody can rename what belongs to others. So
    no other user can change what the path means, either before or after the check.

    **Arguments:**

    - `suspects`: a pattern of files. In a folder that other users could open until now, matching files that others may write to
      are removed.

    **Raises:** PermissionError, saying what is wrong and what to do; another OSError if the folder cannot be created.
    """
    folder = folder.absolute()
    # Windows has no such modes; there a user's profile is closed to other users.
    if not hasattr(os, "getuid"):
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    # The root folder itself is not checked: this Python came from there too, and in a container its owner may be unknown.
    place, links = Path(folder.anchor), 0
    names = list(reversed(folder.parts[1:]))
    while names:
        name = names.pop()
        if name == "..":
            place = place.parent
            continue
        here = place / name
        found = _found_or_made(here)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if not names:
                raise PermissionError(f"{here} is a link, where a folder should be. Remove it, or {_ELSEWHERE}.")
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
            _check_owner(here, found, ours=False)
            target = Path(os.readlink(here))
            place = Path(target.anchor) if target.is_absolute() else place
            names.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
            continue
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(f"{here} is not a folder. Remove it, or {_ELSEWHERE}.")
        if names:
            _check_parent(here, found)
        place = here
    found = os.lstat(place)
    _check_last(place, found)
    _close(place, found, suspects)
    return place


def read_private(file: Path) -> bytes | None:
    """The bytes of a file; None if it does not exist, or is anything but a plain file that only this user may write."""
    try:
        # A pipe would wait for a writer.
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not is_private(os.fstat(handle)):
            return None
        with open(handle, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)


def is_private(found: os.stat_result) -> bool:
    """Whether this is a plain file that belongs to this user and that no other user may write."""
    return is_own(found) and not found.st_mode & _BY_OTHERS


def is_own(found: os.stat_result) -> bool:
    """Whether this is a plain file that belongs to this user."""
    return stat.S_ISREG(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


_ELSEWHERE = "set TSJAX_CACHE_DIR to a folder of your own that others cannot write to"


def _found_or_made(here: Path) -> os.stat_result:
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(here)
    # Another process may create it at the same moment.
    with contextlib.suppress(FileExistsError):
        os.mkdir(here, 0o700)
    return os.lstat(here)


def _check_owner(here: Path, found: os.stat_result, *, ours: bool) -> None:
    if found.st_uid not in ((os.getuid(),) if ours else (os.getuid(), 0)):
        raise PermissionError(
            f"{here} belongs to another user (number {found.st_uid}), who could put code there for you to run: "
            f"{_ELSEWHERE}."
        )


def _check_parent(here: Path, found: os.stat_result) -> None:
    _check_owner(here, found, ours=False)
    if found.st_mode & _BY_OTHERS and not found.st_mode & stat.S_ISVTX:
        raise PermissionError(
            f"other users can write to {here} (mode {stat.S_IMODE(found.st_mode):04o}) and so put code into a folder in it "
            f"for you to run. Forbid it (chmod go-w {here}), or {_ELSEWHERE}."
        )


def _check_last(here: Path, found: os.stat_result) -> None:
    _check_owner(here, found, ours=True)
    mode = stat.S_IMODE(found.st_mode)
    if mode & _BY_OTHERS:
        raise PermissionError(
            f"other users can write to {here} (mode {mode:04o}) and may have put code there for you to run. "
            f"Move it away (tsjax then creates a new one, for you alone), or {_ELSEWHERE}."
        )


def _close(here: Path, found: os.stat_result, suspects: str | None) -> None:
    """Closes the folder to other users. Earlier versions did not, so others could write to a file in it whose own mode allowed
    that."""
    if not found.st_mode & 0o077:
        return
    # The files go first: a process that is stopped in between leaves the folder open, and the next process starts again.
    for file in here.glob(suspects) if suspects else ():
        # Another process may be removing it too.
        with contextlib.suppress(FileNotFoundError):
            if not is_private(file.lstat()):
                file.unlink()
    try:
        os.chmod(here, 0o700)
    except OSError as error:
        # On a read-only medium, everything stays as it is.
        if error.errno != errno.EROFS:
            raise
