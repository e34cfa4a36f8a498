import atexit
import contextlib
import functools
import gc
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

# Two CPU devices, so that sharding is exercised everywhere; the sweep and the eight-device tests choose their own.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# See tsjax.sweep.devices.one_blas_thread: LAPACK with threads of its own under XLA's devices can hang.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("PJRT_NPROC", "32")

# Where Python may not write bytecode, each process that a test starts would compile all that it imports again.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="tsjax-tests-")
    atexit.register(shutil.rmtree, os.environ["PYTHONPYCACHEPREFIX"], ignore_errors=True)

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import shellingham  # noqa: E402
from helpers import SEED  # noqa: E402
from matplotlib import mathtext  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiled programs are shared by the processes of one run, and by its tests: many of them compile the same small programs.
# What the user keeps is neither read nor written. The process that starts the others makes the folder, and they inherit it.
if "TSJAX_TEST_CACHE" not in os.environ:
    os.environ["TSJAX_TEST_CACHE"] = tempfile.mkdtemp(prefix="tsjax-tests-")
    atexit.register(shutil.rmtree, os.environ["TSJAX_TEST_CACHE"], ignore_errors=True)
os.environ["TSJAX_CACHE_DIR"] = os.environ["TSJAX_TEST_CACHE"]
jax.config.update("jax_compilation_cache_dir", f"{os.environ['TSJAX_TEST_CACHE']}/programs")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# JAX writes a program in place, where another process may read the first half of it and warn. Other versions of JAX may lack
# the class.
with contextlib.suppress(ImportError, AttributeError):
    from jax._src.lru_cache import LRUCache

    _put_in_place = LRUCache.put

    def _put(self, key, value):
        if self.eviction_enabled:  # This one is locked.
            _put_in_place(self, key, value)
            return
        with tempfile.NamedTemporaryFile(dir=self.path, delete=False) as file:
            file.write(value)
        os.replace(file.name, self.path / f"{key}-cache")

    LRUCache.put = _put

# JAX loads MLIR's dialects into a new context for every program that it lowers: a fifth of the time of a small program. The
# programs of a thread share one here (contexts are not safe for several threads); they are the same, letter by letter. Other
# versions of JAX may lack the function.
with contextlib.suppress(ImportError, AttributeError):
    from jax._src.interpreters import mlir

    _contexts, _make = threading.local(), mlir.make_ir_context

    def _context_of_thread():
        if not hasattr(_contexts, "own"):
            _contexts.own = _make()
        return _contexts.own

    mlir.make_ir_context = _context_of_thread

# Matplotlib keeps the layout of the last 50 formulas; the labels of one report are more, and the reports of tests are alike.
if hasattr(mathtext.MathTextParser, "_parse_cached"):
    mathtext.MathTextParser._parse_cached = functools.cache(mathtext.MathTextParser._parse_cached.__wrapped__)


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """A process may have 65 530 memory maps (vm.max_map_count), and every compiled program takes some: LLVM crashed in the
    midst of the suite. So programs are dropped between modules once there are many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def seeded():
    """scikit-learn draws from NumPy's global generator where `random_state` is None: no test depends on how that began."""
    np.random.seed(SEED)  # noqa: NPY002


@pytest.fixture
def key():
    """The root key of the test run."""
    return jax.random.key(SEED)


@pytest.fixture
def rng():
    """NumPy's generator with the seed of the test run."""
    return np.random.default_rng(SEED)


@pytest.fixture
def blank_figures(monkeypatch):
    """The figures beside a report's page are empty, for tests of something else: drawing them takes half of a report's time."""
    from matplotlib.figure import Figure

    from tsjax.report import page

    monkeypatch.setattr(page, "figure_of", lambda *_: Figure(figsize=(1.0, 1.0)))


@pytest.fixture
def tsjax(monkeypatch, capsys, tmp_path):
    """Runs a command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    # Typer asks which shell has started this process; there may be none.
    monkeypatch.setattr(shellingham, "detect_shell", lambda *_: ("bash", "/bin/bash"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tsjax", *map(str, arguments)])
        capsys.readouterr()
        code: int | str | None = 0
        from tsjax.cli import main

        try:
            main()
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code or 0, printed.out, printed.err

    return run


def pytest_configure(config):
    del config
    # Most of the time of tests is compilation. Unoptimised code is made in half the time, and code that does not go through
    # MLIR for each fusion in half of that. The flags are read when the first device is asked for, and processes that tests
    # start inherit them, unless they take `helpers.users_environment`. Flags of one's own come last and win: with
    # XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true" all tests run what users run.
    # One program is compiled on one core, so it need not be split into parts either, which takes a seventh of the time.
    flags = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}"


def pytest_collection_finish(session):
    """What is imported by now stays to the end: the garbage collector need not go through it again each time. Traces make very
    many objects that live as long as their programs, so it looks less often, too."""
    del session
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def pytest_report_header(config):
    del config
    return f"TSJAX_TEST_SEED={SEED}  jax={jax.__version__}  devices={jax.device_count()}"
