"""Output files, which are written completely or not at all. A full disk is distinguished from other errors."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


class OutputError(OSError):
    """A file that cannot be written: `what` went wrong, and the operating system's error."""

    def __init__(self, what: str, error: OSError):
        super().__init__(f"{what}: {error.strerror or error}.")
        self.code = error.errno

    @property
    def is_full(self) -> bool:
        """Whether the disk, or the user's quota on it, is full."""
        return self.code in (errno.ENOSPC, errno.EDQUOT)

    @property
    def exit_code(self) -> int:
        """5 for a full disk, otherwise 2."""
        return 5 if self.is_full else 2


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Gives a temporary name in the same folder to write to. Afterwards the file is flushed to disk and renamed to `path`;
    after an error it is removed."""
    # A short name, since the name of the file may be as long as names can be.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
