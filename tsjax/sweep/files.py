"""The files of a store: in a directory, or in an object store by its URL.

Both write all of a file or nothing of it. `s3://...`, `gs://...` and the like need fsspec and the package of their protocol
(s3fs, gcsfs, ...), installed by the user.
"""

import os
import uuid
from pathlib import Path
from typing import Any


class LocalFiles:
    """Files in a directory: written under a temporary name, flushed, then renamed."""

    def __init__(self, root: Path):
        self.root = root

    def is_free(self) -> str | None:
        """Why no store can be made here, or None."""
        if not self.root.exists():
            return None
        # A kill, or another shard of a job array, may leave a folder of chunks without a sweep.json.
        foreign = lambda entry: entry.name != "chunks" and not entry.name.startswith(".sweep.json.")
        if not self.root.is_dir() or any(map(foreign, self.root.iterdir())):
            return f"{self.root} exists and is not a tsjax store. Choose an empty or new directory."
        return None

    def exists(self) -> bool:
        """Whether there is such a directory."""
        return self.root.is_dir()

    def read(self, name: str) -> bytes:
        """**Raises:** FileNotFoundError, OSError."""
        return (self.root / name).read_bytes()

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; temporary files of writers left out."""
        return sorted(entry.name for entry in (self.root / folder).glob("*") if not entry.name.startswith("."))

    def write(self, name: str, content: bytes) -> None:
        """**Raises:** OSError."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that no other process has: machines that share the directory may share process ids.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class RemoteFiles:
    """Objects below a URL that fsspec understands. An object is put whole or not at all, and is then seen by everyone."""

    def __init__(self, url: str):
        try:
            import fsspec
        except ImportError:
            raise OSError(f"{url}: stores by URL need fsspec: python3 -m pip install fsspec s3fs.") from None
        try:
            self.fs: Any
            self.fs, self.root = fsspec.core.url_to_fs(url.rstrip("/"))
        except (ImportError, ValueError) as error:
            raise OSError(f"{url}: {error}.") from None

    def is_free(self) -> str | None:
        """Objects of other names do no harm: None."""
        return None

    def exists(self) -> bool:
        """Whether there is a description of a sweep."""
        return bool(self.fs.exists(f"{self.root}/sweep.json"))

    def read(self, name: str) -> bytes:
        """**Raises:** FileNotFoundError, OSError."""
        return self.fs.cat_file(f"{self.root}/{name}")

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted, as they are now."""
        self.fs.invalidate_cache()
        try:
            return sorted(path.rsplit("/", 1)[-1] for path in self.fs.ls(f"{self.root}/{folder}", detail=False))
        except FileNotFoundError:
            return []

    def write(self, name: str, content: bytes) -> None:
        """**Raises:** OSError."""
        self.fs.pipe_file(f"{self.root}/{name}", content)


def is_url(path: str | Path) -> bool:
    """Whether a path names an object store."""
    return "://" in str(path)


def files_at(path: str | Path) -> LocalFiles | RemoteFiles:
    """**Raises:** OSError for a URL whose protocol nothing here understands."""
    return RemoteFiles(str(path)) if is_url(path) else LocalFiles(Path(path))
