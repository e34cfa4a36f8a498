import os
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from filelock import FileLock
from helpers import SEED

import tsjax as ts
from tsjax.fast import native
from tsjax.kernels import ArcCosineNTK
from tsjax.sweep import devices as devices_module
from tsjax.sweep.devices import pad_batch

PROBLEM = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), 0.2)
B, N = 3, 16
ORACLE = ts.OracleStudent(ts.VanillaPhase(max_steps=40))


@pytest.fixture(scope="module")
def batch():
    keys = jr.split(jr.key(SEED + 5), B)
    teachers = jax.vmap(PROBLEM.sample_teacher)(keys)
    datasets = jax.vmap(lambda k, t: PROBLEM.sample(jr.fold_in(k, 1), t, N))(keys, teachers)
    return keys, datasets, teachers


# B is no multiple of two devices.
@pytest.mark.parametrize(
    ("name", "devices"),
    [pytest.param("student", 2, marks=pytest.mark.slow), ("oracle", 1), ("oracle", 2), ("ridge", 1), ("ridge", 2)],
)
def test_fit_many_is_a_loop(batch, name, devices):
    if jax.local_device_count() < devices:
        pytest.skip(f"needs {devices} devices")
    estimator = {
        "student": ts.TwoPhaseStudent(2, 2, ts.NoisyPhase(steps=10), ts.VanillaPhase(max_steps=20)),
        "oracle": ORACLE,
        "ridge": ts.KernelRidge(ArcCosineNTK(), ridge=0.1),
    }[name]
    keys, datasets, teachers = batch
    oracle = {"oracle": (PROBLEM, teachers)} if name == "oracle" else {}
    fits = ts.fit_many(estimator, keys, datasets, devices=jax.devices()[:devices], **oracle)
    predictions = jax.vmap(lambda fit, x: fit.predict(x))(fits, datasets.x)
    assert predictions.shape == (B, N) and fits.status.shape == (B,)
    for i in range(B):
        key, data, teacher = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        alone = estimator.fit(key, data, **({"oracle": (PROBLEM, teacher)} if oracle else {}))
        np.testing.assert_allclose(predictions[i], alone.predict(data.x), rtol=1e-5, atol=1e-7)
        assert int(fits.status[i]) == int(alone.status)


def test_keys_of_the_old_kind_are_keys(batch):
    _, datasets, _ = batch
    old = jr.split(jr.PRNGKey(SEED + 5), B)
    ridge = ts.KernelRidge(ArcCosineNTK(), ridge=0.1)
    np.testing.assert_array_equal(
        ts.fit_many(ridge, old, datasets).alpha, ts.fit_many(ridge, jr.wrap_key_data(old), datasets).alpha
    )


def test_what_needs_float64_has_it_without_the_flag(batch):
    keys, datasets, _ = batch
    single = ts.Dataset(x=datasets.x.astype(jnp.float32), y=datasets.y.astype(jnp.float32))
    ridge = ts.KernelRidge(ArcCosineNTK(), ridge=0.1)
    student = ts.TwoPhaseStudent(2, 2, ts.NoisyPhase(steps=10), ts.VanillaPhase(max_steps=20))
    wanted = [ts.fit_many(estimator, keys, single) for estimator in (ridge, student)]
    with jax.enable_x64(False):
        got = [ts.fit_many(estimator, keys, single) for estimator in (ridge, student)]
    assert got[0].alpha.dtype == jnp.float64 and got[1].net.w.dtype == jnp.float32
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


# Four or eight data sets to a device; two of them fit the cache, or not even one.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "cache"),
    [(7, 1100), (16, 1100), (5, 100)],
)
def test_fits_do_not_depend_on_how_many_stay_in_the_cache(monkeypatch, count, cache):
    keys = jr.split(jr.key(SEED + 9), count)
    teachers = jax.vmap(PROBLEM.sample_teacher)(keys)
    datasets = jax.vmap(lambda k, t: PROBLEM.sample(k, t, N))(keys, teachers)
    ridge = ts.KernelRidge(ArcCosineNTK(), ridge=0.1)
    whole = ts.fit_many(ridge, keys, datasets)
    monkeypatch.setattr(devices_module, "_CORE_CACHE_BYTES", cache)
    jax.clear_caches()
    lowered = ts.fit_many(ridge, keys, datasets)
    assert lowered.alpha.shape == (count, N)
    np.testing.assert_allclose(lowered.alpha, whole.alpha, rtol=1e-6, atol=1e-9)


def test_errors(batch):
    keys, datasets, teachers = batch
    ridge = ts.KernelRidge(ArcCosineNTK(), ridge=0.1)
    one = jax.tree.map(lambda leaf: leaf[0], datasets)
    bad = ts.Dataset(x=datasets.x, y=datasets.y.at[1, 3].set(jnp.nan))
    cases = [
        (
            lambda: ts.fit_many(ridge, keys, one),
            r"expected x of shape \(B, n, d\) and y of shape \(B, n\), got \(16, 3\) and \(16,\)\. Stack the data sets",
        ),
        (
            lambda: ts.fit_many(ridge, keys[:0], jax.tree.map(lambda leaf: leaf[:0], datasets)),
            r"there are no data sets: x has shape \(0, 16, 3\)",
        ),
        (lambda: ts.fit_many(ridge, keys[:2], datasets), r"one key per data set: got keys \(2,\) for 3 data sets"),
        (lambda: ts.fit_many(ridge, keys, bad), r"data\.y has 1 value\(s\) .* the first at index \(1, 3\)"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()


def test_one_function_as_the_teacher_of_all(batch):
    keys = batch[0]
    problem = ts.Problem(PROBLEM.inputs, ts.FunctionTeacher(lambda x: jnp.sin(3 * x[0])), 0.2)
    teachers = jax.vmap(problem.sample_teacher)(keys)
    datasets = jax.vmap(lambda k, t: problem.sample(k, t, N))(keys, teachers)
    ridge = ts.KernelRidge(ts.kernels.RBF(1.0), ridge="oracle")
    fits = ts.fit_many(ridge, keys, datasets, oracle=(problem, teachers))
    first = ridge.fit(keys[0], jax.tree.map(lambda leaf: leaf[0], datasets), oracle=(problem, teachers))
    np.testing.assert_allclose(fits.alpha[0], first.alpha, rtol=1e-6)


def test_as_many_teachers_as_data_sets(batch):
    keys, datasets, teachers = batch
    with pytest.raises(ValueError, match=r"one teacher per data set: got teachers with an array of shape \(2, 2\) for"):
        ts.fit_many(ORACLE, keys, datasets, oracle=(PROBLEM, jax.tree.map(lambda leaf: leaf[:2], teachers)))


def test_padding_repeats_the_last_entry():
    padded = pad_batch({"a": jnp.arange(3), "b": jnp.arange(6.0).reshape(3, 2)}, 5)
    assert padded["a"].tolist() == [0, 1, 2, 2, 2] and padded["b"][3:].tolist() == [[4.0, 5.0]] * 2


SCRIPT = """
import jax
from tsjax.sweep.devices import keep_compiled
keep_compiled()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.config.jax_compilation_cache_dir, jax.config.jax_compilation_cache_max_size, jax.jit(lambda x: x * 2 + 1)(3.0))
"""


@pytest.mark.slow
def test_compiled_programs_are_kept(tmp_path):
    ours = lambda name: name.startswith("JAX_COMPILATION_CACHE") or name == "TSJAX_CACHE_DIR"
    own = {name: value for name, value in os.environ.items() if not ours(name)}

    def run(**more):
        command = [sys.executable, "-W", "error", "-c", SCRIPT]
        return subprocess.run(command, env={**own, **more}, capture_output=True, text=True, check=True).stdout.split()

    def programs(kind):
        return {file.name: file.stat().st_mtime_ns for file in folder.iterdir() if file.name.endswith(kind)}

    folder = tmp_path / "tsjax" / "jax"
    said = [str(folder), str(2**30), "7.0"]
    assert run(XDG_CACHE_HOME=str(tmp_path)) == said
    kept = programs("-cache")
    assert kept and run(XDG_CACHE_HOME=str(tmp_path)) == said and programs("-cache") == kept
    assert run(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))[0] == str(tmp_path / "own")
    # A process killed while it wrote leaves half a program and no file of its last use; a full disk leaves half a program.
    for ends in (("-atime",), ()):
        for name in kept:
            (folder / name).write_bytes((folder / name).read_bytes()[:100])
        for name in (name for end in ends for name in programs(end)):
            (folder / name).unlink()
        assert run(XDG_CACHE_HOME=str(tmp_path)) == said
        assert programs("-cache").keys() == kept.keys() and len(programs("-atime")) == len(kept)
        assert all((folder / name).stat().st_size > 100 for name in kept)
    assert run(TSJAX_CACHE_DIR=str(tmp_path / "chosen"))[0] == str(tmp_path / "chosen" / "jax")


@pytest.fixture
def start(monkeypatch, tmp_path):
    """What `keep_compiled` sets JAX's folder to, called as at the start of a process with this cache folder."""
    monkeypatch.delenv("TSJAX_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}

    def keep():
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_enable_compilation_cache", True)
        try:
            devices_module.keep_compiled()
            return jax.config.jax_compilation_cache_dir
        finally:
            for name, value in before.items():
                jax.config.update(name, value)

    return keep


@pytest.fixture
def programs(tmp_path):
    """The folder of programs, and three of them in it."""
    folder = tmp_path / "tsjax" / "jax"
    folder.mkdir(parents=True, mode=0o700)
    for name in "abc":
        (folder / f"{name}-cache").write_bytes(zlib.compress(name.encode() * 5000))
        (folder / f"{name}-atime").write_bytes(bytes(8))
    return folder


def _left(folder, kind="-cache"):
    return "".join(sorted(path.name[0] for path in folder.glob(f"*{kind}")))


def test_programs_that_do_not_decode_are_dropped(start, programs):
    assert start() == str(programs) and _left(programs) == _left(programs, "-atime") == "abc"
    whole = (programs / "a-cache").read_bytes()
    for broken in (whole[:-3], b"", bytes(len(whole)), np.random.default_rng(SEED).bytes(100)):
        (programs / "a-cache").write_bytes(broken)
        (programs / "a-atime").write_bytes(bytes(8))
        assert start() == str(programs)
        assert _left(programs) == _left(programs, "-atime") == "bc"
    # As a process killed between its two writes leaves it.
    (programs / "b-atime").unlink()
    assert start() == str(programs) and _left(programs) == _left(programs, "-atime") == "c"


def test_each_program_is_decompressed_once(start, programs, monkeypatch):
    tried = []
    decompresses = devices_module._decompresses
    monkeypatch.setattr(devices_module, "_decompresses", lambda program: tried.append(program) or decompresses(program))
    # Without time left, none is tried, and none is dropped.
    monkeypatch.setattr(devices_module, "_CHECK_SECONDS", -1.0)
    (programs / "a-cache").write_bytes(b"broken")
    assert start() and _left(programs) == "abc" and not tried
    monkeypatch.setattr(devices_module, "_CHECK_SECONDS", 60.0)
    assert start() and _left(programs) == "bc" and len(tried) == 3
    assert start() and _left(programs) == "bc" and len(tried) == 3
    (programs / "b-cache").write_bytes(b"broken")
    assert start() and _left(programs) == "c" and tried[3:] == [b"broken"]
    # A list that is broken itself is made anew.
    for text in ("", "[1]", '{"c-cache"', "null"):
        (programs / ".tsjax-checked.json").write_text(text)
        tried.clear()
        assert start() and start() and _left(programs) == "c" and len(tried) == 1


def test_programs_that_others_may_have_written(start, programs):
    (programs / "a-cache").chmod(0o664)
    programs.chmod(0o755)
    assert start() == str(programs) and _left(programs) == "bc" and programs.stat().st_mode & 0o777 == 0o700
    if os.getuid() == 0:
        os.chown(programs / "b-cache", 65534, 65534)
        assert start() and _left(programs) == "c"
    programs.chmod(0o777)
    with pytest.warns(UserWarning, match="not kept for the next run: other users can write to .*TSJAX_CACHE_DIR"):
        assert start() is None
    assert _left(programs)[-1] == "c"


def test_a_held_lock_is_waited_for_and_left(start, programs, monkeypatch):
    """With it held, JAX would wait 10 seconds before each compilation, and 10 after."""
    assert devices_module._LOCK_SECONDS == 10
    monkeypatch.setattr(devices_module, "_LOCK_SECONDS", 0.2)
    (programs / "a-cache").write_bytes(b"broken")
    with FileLock(programs / ".lockfile"):
        with pytest.warns(
            UserWarning, match=r"not kept for the next run: another process has held .*lockfile for 0\.2 s"
        ):
            assert start() is None
    assert _left(programs) == "abc"
    assert start() == str(programs) and _left(programs) == "bc"


def test_nothing_is_touched_where_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TSJAX_CACHE_DIR", str(tmp_path / "new"))
    before, enabled = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_enable_compilation_cache", False)
        devices_module.keep_compiled()
        assert jax.config.jax_compilation_cache_dir is None and not (tmp_path / "new").exists()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_enable_compilation_cache", enabled)


EIGHT_DEVICES = """
import jax, tsjax as ts
from tsjax.sweep.devices import sharded_vmap
problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2))
student = ts.TwoPhaseStudent(2, 4, ts.NoisyPhase(steps=3), ts.VanillaPhase(max_steps=100))
def cell(key):
    teacher = problem.sample_teacher(key)
    fit = student.fit(key, problem.sample(key, teacher, 64))
    return ts.excess_risk(problem, teacher, fit), fit.stats["train_loss"]
keys = jax.random.split(jax.random.key(0), 16)
compiled = sharded_vmap(cell).lower(keys).compile()
print(len(compiled.output_shardings[0].device_set))
print(compiled.as_text())
"""


@pytest.mark.slow
def test_no_traffic_between_eight_devices():
    """A collective would make every device wait for the slowest in every step."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_ENABLE_X64": "1"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES], env=environment, capture_output=True, text=True, check=True
    )
    devices, text = done.stdout.split("\n", 1)
    assert int(devices) == 8 and "while(" in text
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text
    # The kernel is called on each device's own part.
    if native.load()[0] is not None:
        assert "tsjax_half_mse" in text


_SWEEP = """
import sys, warnings, jax
warnings.simplefilter("error")
if "late" in sys.argv:
    jax.numpy.zeros(3).block_until_ready()
import tsjax as ts

@ts.experiment(sized=("n",))
def law(key, *, n: int):
    return {"risk": jax.numpy.sin(jax.random.normal(key)) ** 2 / n.count}

ts.sweep(law, seeds=4, n=[1, 2, 4], progress="shown" in sys.argv)
print(len(jax.devices()), jax.config.jax_compilation_cache_dir)
"""


def _in_a_process(tmp_path, *arguments):
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    environment |= {"TSJAX_CACHE_DIR": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", _SWEEP, *arguments]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_sweep_in_a_users_process_has_the_cores_and_keeps_its_programs(tmp_path):
    done = _in_a_process(tmp_path, "shown")
    cores = len(os.sched_getaffinity(0))
    assert done.stdout.split() == [str(cores), str(tmp_path / "cache/jax")], done.stderr
    assert "cells 12/12" in done.stderr
    assert list((tmp_path / "cache/jax").glob("*-cache"))


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_what_comes_too_late_is_said(tmp_path):
    done = _in_a_process(tmp_path, "late", "shown")
    assert done.returncode == 0, done.stderr
    assert "JAX began with one CPU device" in done.stderr and ": set JAX_NUM_CPU_DEVICES=" in done.stderr
    assert _in_a_process(tmp_path, "late").stderr == ""


@pytest.mark.slow
def test_programs_are_kept_in_a_process_that_has_compiled_before(tmp_path):
    code = _SWEEP.replace('"error"', '"ignore"')
    environment = {**os.environ, "TSJAX_CACHE_DIR": str(tmp_path / "cache"), "XLA_FLAGS": ""}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    subprocess.run([sys.executable, "-c", code, "late"], env=environment, cwd=tmp_path, check=True, timeout=300)
    assert list((tmp_path / "cache/jax").glob("*-cache"))
