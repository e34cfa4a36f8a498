"""The files of a store, in a directory or, by URL, in an object store.

Both write a file completely or not at all. URLs such as `s3://...` and `gs://...` need fsspec and the package of their protocol
(s3fs, gcsfs, ...), which the user installs.
"""

import contextlib
import os
import stat
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .values import redacted


class LocalFiles:
    """Files in a directory: written under a temporary name, flushed, then renamed."""

    def __init__(self, root: Path):
        self.root = root
        self._identity: tuple[int, int] | None = None

    def is_free(self) -> str | None:
        """Why a store cannot be made here, or None if it can."""
        if not self.root.exists():
            return None
        # A kill may leave a folder of chunks without a sweep.json, and a store with a damaged sweep.json may have a report.
        names = [entry.name for entry in self.root.iterdir()] if self.root.is_dir() else []
        beside = ["claims", "damaged", "figures", "jobs", "report.html", "sweep.json"]
        ours = ["chunks", *(beside if "chunks" in names else [])]
        foreign = [name for name in names if name not in ours and not name.startswith(".sweep.json.")]
        if not self.root.is_dir() or foreign:
            return f"{self.root} exists and is not a tsjax store. Choose an empty or new directory."
        return None

    def exists(self) -> bool:
        """Whether the directory exists."""
        return self.root.is_dir()

    def make(self) -> None:
        """Makes the directories of a store. Afterwards, writing fails if another directory takes its place.

        **Raises:** OSError."""
        (self.root / "chunks").mkdir(parents=True, exist_ok=True)
        self.watch()

    def watch(self) -> None:
        """Remembers which directory this is. **Raises:** OSError."""
        found = self.root.stat()
        self._identity = (found.st_dev, found.st_ino)

    def _check_place(self) -> None:
        # If the directory was moved, a new one must not appear at its old path with the other half of the records.
        try:
            found = self.root.stat()
        except OSError:
            found = None
        if self._identity is not None and (found is None or (found.st_dev, found.st_ino) != self._identity):
            raise FileNotFoundError(f"{self.root} was moved or removed while the sweep ran")

    @contextlib.contextmanager
    def _in_place(self):
        """Makes an error within the context say that the directory is gone, if that is the reason, before or while a file is
        written."""
        self._check_place()
        try:
            yield
        except OSError:
            self._check_place()
            raise

    def read(self, name: str) -> bytes:
        """The content of a regular file. Anything else (a pipe, a device, a folder) is an error, without waiting for it.

        **Raises:** FileNotFoundError, OSError."""
        # O_NONBLOCK, since opening a pipe would wait until somebody writes to it.
        descriptor = os.open(self.root / name, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{name} is not a regular file")
            content = file.read()
            if content is None:
                raise OSError(f"{name} gives nothing to read")
            return content

    def names(self, folder: str, *, fresh: bool = False) -> list[str]:
        """The names in a folder, sorted, without the temporary files of writers. `fresh` asks for the present names, since NFS
        may give those of half a minute ago. **Raises:** OSError."""
        if fresh:
            # A change of the folder makes the NFS client read it again.
            with contextlib.suppress(OSError):
                os.utime(self.root / folder)
        try:
            return sorted(name for name in os.listdir(self.root / folder) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, in place of an existing one. **Raises:** OSError."""
        with self._in_place():
            with self._temporary(name, content) as temporary:
                os.replace(temporary, self.root / name)
            _flush_directory((self.root / name).parent)

    def make_folder(self, folder: str) -> None:
        """Makes a folder, unless it exists. **Raises:** OSError."""
        with self._in_place():
            (self.root / folder).mkdir(exist_ok=True)

    def remove_folder(self, folder: str) -> None:
        """Removes a folder if it is empty."""
        with contextlib.suppress(OSError):
            (self.root / folder).rmdir()

    def create(self, name: str, content: bytes, *, flushed: bool = True) -> bool:
        """Creates a file. False if it exists, for instance since another process was faster. Without `flushed`, the file may be
        lost if the machine loses its power.

        **Raises:** OSError."""
        with self._in_place(), self._temporary(name, content, flushed) as temporary:
            try:
                os.link(temporary, self.root / name)
            except FileExistsError:
                # Over NFS an answer may get lost and the request be repeated: if the file has two links, the first one was
                # ours.
                if os.stat(temporary).st_nlink != 2:
                    return False
            except OSError:
                # This file system (FAT, some network shares) has no hard links: the file appears before its content does.
                try:
                    with open(self.root / name, "xb") as file:
                        file.write(content)
                        file.flush()
                        os.fsync(file.fileno())
                except FileExistsError:
                    return False
        if flushed:
            _flush_directory((self.root / name).parent)
        return True

    def rename(self, name: str, new: str) -> bool:
        """Renames a file in one step. False if it does not exist, for instance since another process was faster.

        **Raises:** OSError."""
        with self._in_place():
            try:
                os.replace(self.root / name, self.root / new)
            except FileNotFoundError:
                self._check_place()
                return False
        _flush_directory((self.root / new).parent)
        return True

    def move(self, names: Iterable[str], folder: str) -> None:
        """Moves files into another folder; files that are gone already are skipped. **Raises:** OSError."""
        with self._in_place():
            (self.root / folder).mkdir(exist_ok=True)
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.root / name, self.root / folder / name.rsplit("/", 1)[-1])

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; files that are gone already are skipped. **Raises:** OSError."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _temporary(self, name: str, content: bytes, flushed: bool = True):
        """A temporary file with this content, beside the file of that name; it is removed afterwards."""
        path = self.root / name
        # A unique name: processes on machines that share the directory may have the same process id.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                if flushed:
                    os.fsync(file.fileno())
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _flush_directory(folder: Path) -> None:
    # The file is written and renamed by now. If the file system cannot flush a directory (FUSE, SMB), that is not a failure:
    # the name is then as safe as the system makes it.
    with contextlib.suppress(OSError):
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class RemoteFiles:
    """Objects below a URL that fsspec understands. An object is put completely or not at all, and everyone then sees it."""

    def __init__(self, url: str):
        try:
            import fsspec
        except ImportError:
            raise OSError(f"{redacted(url)}: stores by URL need fsspec: python3 -m pip install fsspec s3fs.") from None
        try:
            self.fs: Any
            self.fs, self.root = fsspec.core.url_to_fs(url.rstrip("/"))
        except (ImportError, ValueError) as error:
            raise OSError(f"{redacted(url)}: {redacted(str(error))}.") from None

    def is_free(self) -> str | None:
        """Always None: objects of other names do no harm."""
        return None

    def exists(self) -> bool:
        """Whether there is the description of a sweep."""
        return bool(self.fs.exists(f"{self.root}/sweep.json"))

    def make(self) -> None:
        """Nothing: objects need no directories."""

    def watch(self) -> None:
        """Nothing: objects cannot be moved away as a whole."""

    def read(self, name: str) -> bytes:
        """The content of an object. **Raises:** FileNotFoundError, OSError."""
        return self.fs.cat_file(f"{self.root}/{name}")

    def names(self, folder: str, *, fresh: bool = False) -> list[str]:
        """The present names in a folder, sorted."""
        self.fs.invalidate_cache()
        try:
            return sorted(path.rsplit("/", 1)[-1] for path in self.fs.ls(f"{self.root}/{folder}", detail=False))
        except FileNotFoundError:
            return []

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, in place of an existing one. **Raises:** OSError."""
        self.fs.pipe_file(f"{self.root}/{name}", content)

    def make_folder(self, folder: str) -> None:
        """Nothing: objects need no directories."""

    def remove_folder(self, folder: str) -> None:
        """Nothing: objects have no directories."""

    def create(self, name: str, content: bytes, *, flushed: bool = True) -> bool:
        """As `LocalFiles.create`, as far as the object store can: if it has no conditional put, two processes at the same
        moment may both succeed, and the caller must look again."""
        if self.fs.exists(f"{self.root}/{name}"):
            return False
        try:
            self.fs.pipe_file(f"{self.root}/{name}", content, mode="create")
        except FileExistsError:
            return False
        except (NotImplementedError, TypeError, ValueError):
            # This file system has no exclusive creation, and raises one of these errors.
            self.fs.pipe_file(f"{self.root}/{name}", content)
        return True

    def rename(self, name: str, new: str) -> bool:
        """As `LocalFiles.rename`, in two steps: the object is copied, then removed."""
        try:
            self.fs.mv(f"{self.root}/{name}", f"{self.root}/{new}")
        except FileNotFoundError:
            return False
        return True

    def move(self, names: Iterable[str], folder: str) -> None:
        """As `LocalFiles.move`."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self.fs.mv(f"{self.root}/{name}", f"{self.root}/{folder}/{name.rsplit('/', 1)[-1]}")

    def remove(self, names: Iterable[str]) -> None:
        """As `LocalFiles.remove`."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(f"{self.root}/{name}")


def is_url(path: str | Path) -> bool:
    """Whether a path names an object store."""
    return "://" in str(path)


def files_at(path: str | Path) -> LocalFiles | RemoteFiles:
    """The files of a store. **Raises:** OSError for a URL whose protocol is not installed."""
    return RemoteFiles(str(path)) if is_url(path) else LocalFiles(Path(path).expanduser())
