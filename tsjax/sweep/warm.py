"""Programs that are kept between runs of the command line, so that a second run of a shipped study traces nothing.

A kept program is found again only if everything that it was made from is the same: the whole source of tsjax, versions of
packages, JAX's flags, the environment, the devices and the processor, and the cells. The same holds for the types of the values
that a cell returns, and for theory. A user's study is always traced, since its function may read anything; so is everything in
a user's own process, where functions of tsjax may have been replaced.
"""

import contextlib
import functools
import hashlib
import json
import os
import pickle
import platform
import tempfile
from pathlib import Path
from typing import Any

import jax

from ..cache import cache_folder, private_folder, read_private
from ..fast import native
from ..fast.fused import kernel_in_use
from ..kernels import neural_tangents
from ..versions import version_of
from .devices import usable_devices
from .experiment import Experiment

_PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "equinox", "optax", "neural-tangents")
# Flags and variables that only say where things are kept and what is logged, and that change no program.
_WITHOUT_EFFECT = ("jax_compilation_cache", "jax_persistent_cache", "jax_log", "jax_debug_log", "TSJAX_CACHE_DIR")
# The most bytes that are kept. A program takes a few megabytes; the files that were unused for longest are removed first.
_MOST_BYTES = 2**29
# Shipped studies that are traced all the same, since they read files and call estimators of users.
_OPEN = ("real_data",)


class Warm:
    """The folder of kept values. `facts` is a digest of everything that they depend on apart from the cells."""

    def __init__(self):
        self.folder = private_folder(cache_folder() / "warm")
        self.facts = _digest(json.dumps(_facts(), sort_keys=True))

    def read(self, name: str) -> Any:
        """The value that was kept under a name, or None."""
        stem = _digest(self.facts + name)
        for file in self.folder.glob(f"{stem}-*"):
            content = read_private(file)
            # The file name ends with the hash of its content: loading a truncated program could end the process by a signal.
            if content is not None and file.name == f"{stem}-{_digest(content)}":
                with contextlib.suppress(OSError):
                    os.utime(file)
                return pickle.loads(content)
        return None

    def write(self, name: str, value: Any) -> None:
        """Keeps a value. If it cannot be written, it is made again the next time."""
        content = pickle.dumps(value)
        with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            made = Path(temporary) / "made"
            made.write_bytes(content)
            made.chmod(0o600)
            made.replace(self.folder / f"{_digest(self.facts + name)}-{_digest(content)}")
            self._drop_old()

    def _drop_old(self) -> None:
        files = [(file, file.lstat()) for file in self.folder.iterdir() if file.is_file()]
        total = sum(found.st_size for _, found in files)
        for file, found in sorted(files, key=lambda one: one[1].st_mtime_ns):
            if total <= _MOST_BYTES:
                return
            file.unlink(missing_ok=True)
            total -= found.st_size


def is_shipped(experiment: Experiment) -> bool:
    """Whether this is a study that ships with tsjax, and not another one with the same name."""
    from ..studies import SHIPPED

    return SHIPPED.get(experiment.name) == experiment.fn.__module__


_wanted = False


def keep_traced() -> None:
    """Switches keeping on for this process. It has an effect if JAX keeps compiled programs (`keep_compiled`) by the time when
    `warm_of` is first called."""
    global _wanted
    _wanted = True


def warm_of(experiment: Experiment) -> Warm | None:
    """The kept values of a study; None for a study whose programs may depend on more than is compared."""
    kept = _wanted and is_shipped(experiment) and experiment.name not in _OPEN
    return _warm() if kept else None


@functools.cache
def _warm() -> Warm | None:
    config: Any = jax.config
    if config.jax_enable_compilation_cache and config.jax_compilation_cache_dir is not None:
        # If the folder is not ours, `keep_compiled` has warned already.
        with contextlib.suppress(OSError, RuntimeError):
            return Warm()
    return None


def source_digest(root: Path) -> str:
    """A digest of all code in a folder, and of the names of its files."""
    files = [file for file in sorted(root.rglob("*")) if file.suffix in (".py", ".c", ".h")]
    parts = {file.relative_to(root).as_posix(): _digest(file.read_bytes()) for file in files}
    return _digest(json.dumps(parts))


def _facts() -> dict[str, Any]:
    relevant = lambda name: not name.startswith(_WITHOUT_EFFECT)
    devices = usable_devices()
    return {
        "source": source_digest(Path(__file__).parents[1]),
        "versions": {name: version_of(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "flags": {name: repr(value) for name, value in jax.config.values.items() if relevant(name)},
        "environment": {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("JAX", "XLA", "TSJAX")) and relevant(name)
        },
        "devices": [(device.platform, device.id, device.device_kind) for device in devices],
        "backend": devices[0].client.platform_version,
        "processor": native.processor(),
        "kernel": kernel_in_use(devices[0].platform),
        "native": [native.load(dtype)[0] for dtype in native.TYPES],
        "ntk": neural_tangents.source(),
    }


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:32]
