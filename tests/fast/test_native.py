"""The kernel in C is compared with XLA, and tested where it cannot be built."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

from tsjax.fast import native
from tsjax.fast.loss import half_mse, half_mse_by_xla
from tsjax.fast.steps import scaled_samples
from tsjax.network import TwoLayer

needs_kernel = pytest.mark.skipif(native.load()[0] is None, reason=f"no native kernel: {native.load()[1]}")


def _case(m, d, n, dtype):
    a, w, x, y = (jr.normal(jr.key(SEED + i), shape, dtype) for i, shape in enumerate([(m,), (m, d), (d, n), (n,)]))
    return a, w, x, y


def _losses(*case):
    a, w, x, y = case
    net = TwoLayer(a, w)
    return half_mse(net, x, y), half_mse_by_xla(net, x, y)


def _gradients(loss, a, w, x, y):
    return jax.value_and_grad(lambda a, w: loss(TwoLayer(a, w), x, y), argnums=(0, 1))(a, w)


def _assert_close(one, other, dtype):
    rtol = 2e-5 if dtype == jnp.float32 else 1e-12
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert left.dtype == dtype
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol * float(jnp.abs(right).max()))


@needs_kernel
@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 64), (7, 11, 1000), (12, 6, 257), (5, 10, 15)])
def test_value_and_gradient(shape, dtype):
    case = _case(*shape, dtype)
    text = jax.jit(lambda *c: _gradients(half_mse, *c)).lower(*case).as_text()
    assert "tsjax_half_mse" in text
    _assert_close(_gradients(half_mse, *case), _gradients(half_mse_by_xla, *case), dtype)
    # Under jit too, and the value alone.
    _assert_close(jax.jit(lambda *c: _gradients(half_mse, *c))(*case), _gradients(half_mse_by_xla, *case), dtype)
    _assert_close(*_losses(*case), dtype)


@needs_kernel
def test_batches_share_data_or_have_their_own():
    m, d, n = 3, 4, 50
    a, w = jr.normal(jr.key(1), (2, 6, m)), jr.normal(jr.key(2), (2, 6, m, d))
    x, y = jr.normal(jr.key(3), (2, d, n)), jr.normal(jr.key(4), (2, n))
    both = lambda loss: jax.vmap(  # data sets
        jax.vmap(lambda a, w, x, y: _gradients(loss, a, w, x, y), in_axes=(0, 0, None, None))  # restarts
    )(a, w, x, y)
    _assert_close(both(half_mse), both(half_mse_by_xla), a.dtype)


@needs_kernel
@pytest.mark.slow
def test_other_derivatives():
    a, w, x, y = _case(3, 4, 40, jnp.float64)
    hessian = lambda loss: jax.hessian(lambda w: loss(TwoLayer(a, w), x, y))(w)
    _assert_close(hessian(half_mse), hessian(half_mse_by_xla), jnp.float64)
    in_data = lambda loss: jax.grad(lambda x, y: loss(TwoLayer(a, w), x, y), argnums=(0, 1))(x, y)
    _assert_close(in_data(half_mse), in_data(half_mse_by_xla), jnp.float64)
    forward = lambda loss: jax.jvp(lambda w: loss(TwoLayer(a, w), x, y), (w,), (jnp.ones_like(w),))
    _assert_close(forward(half_mse), forward(half_mse_by_xla), jnp.float64)


@needs_kernel
def test_a_nan_spreads():
    """The loss and the gradient must show that a student has diverged."""
    a, w, x, y = _case(3, 4, 70, jnp.float32)
    loss, (ga, gw) = _gradients(half_mse, a, w.at[1, 2].set(jnp.nan), x, y)
    assert jnp.isnan(loss) and jnp.isnan(ga).all() and jnp.isnan(gw).all()
    for place in (3, 69):  # Within the vectors, and in what they leave over.
        gradients = [_gradients(loss, a, w, x, y.at[place].set(jnp.nan)) for loss in (half_mse, half_mse_by_xla)]
        for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
            np.testing.assert_array_equal(jnp.isnan(one), jnp.isnan(other))
        assert jnp.isnan(gradients[0][0]) and jnp.isnan(gradients[0][1][0]).all()


@needs_kernel
def test_a_library_without_the_kernel_is_no_kernel(monkeypatch, tmp_path):
    (tmp_path / "empty.c").write_text("int nothing;\n")
    library = native.build(tmp_path / "empty.c", tmp_path)
    monkeypatch.setattr(native, "build", lambda *_: library)
    name, why = native._load.__wrapped__("float32")
    assert name is None and "tsjax_half_mse" in why


_TOGETHER = """
import os, time
from concurrent.futures import ThreadPoolExecutor
from tsjax.fast import native
build, builds = native.build, []
native.build = lambda *arguments: (builds.append(1), time.sleep(0.3), build(*arguments))[2]
with ThreadPoolExecutor(4) as threads:
    names = set(threads.map(native.load, ["float32"] * 4))
os.environ["TSJAX_CACHE_DIR"] += "/later"
print(len(builds), *names, native.load() in names)
"""


@needs_kernel
def test_a_library_is_built_and_registered_once(tmp_path):
    """By several threads, and by calls that write the same type in another way: XLA refuses a second registration, which left a
    process without the kernel. Nothing is built for other types."""
    variables = {**os.environ, "TSJAX_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", _TOGETHER], env=variables, capture_output=True, text=True, check=True)
    (library,) = (tmp_path / "native").glob("*.so")
    assert done.stdout.split() == ["1", f"('{library.stem}',", f"'{library}')", "True"]


_TRAINED = """
import jax, tsjax as ts
from tsjax.fast import native
problem = ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2))
teacher = problem.sample_teacher(jax.random.key(0))
data = problem.sample(jax.random.key(1), teacher, 128)
fit = ts.TwoPhaseStudent(width=2, restarts=1).fit(jax.random.key(2), data)
print(native.load()[0] is not None, float(fit.stats["train_loss"]), native.load()[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "why"),
    [({"TSJAX_NATIVE": "0"}, "switched off"), ({"CC": "no-such-compiler"}, "there is no C compiler")],
)
def test_without_it_training_is_the_same_up_to_rounding(environment, why, tmp_path):
    def train(**extra):
        # A cache of its own, so that nothing compiled before is found.
        variables = {**os.environ, "TSJAX_CACHE_DIR": str(tmp_path), "JAX_ENABLE_X64": "1", **extra}
        done = subprocess.run(
            [sys.executable, "-c", _TRAINED], env=variables, capture_output=True, text=True, check=True
        )
        found, loss, *reason = done.stdout.split(maxsplit=2)
        return found, float(loss), "".join(reason)

    found, loss, reason = train(**environment)
    assert found == "False" and why in reason
    if native.load()[0] is not None:
        assert train()[1] == pytest.approx(loss, rel=1e-6)


@needs_kernel
def test_what_the_compiler_says_is_kept(tmp_path):
    source = tmp_path / "wrong.c"
    source.write_text("int f(void) { return no_such_thing; }\n")
    with pytest.raises(RuntimeError, match=r"(?s)could not compile wrong\.c.*no_such_thing"):
        native.build(source, tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


def _plant(library, written):
    """Replaces a library by another one, which writes a file as soon as it is loaded."""
    source = library.with_suffix(".planted.c")
    source.write_text(
        "#include <stdio.h>\n"
        f'__attribute__((constructor)) static void run(void) {{ fclose(fopen("{written}", "w")); }}\n'
        "int value(void) { return 666; }\n"
    )
    library.unlink()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    library.chmod(0o700)
    source.unlink()


@pytest.fixture
def small(tmp_path):
    """The source of a small library, its build folder, and the path of the library there."""
    (tmp_path / "small.c").write_text("int value(void) { return 7; }\n")
    return tmp_path / "small.c", tmp_path / "native", native.build(tmp_path / "small.c", tmp_path / "native")


def _value(source, folder):
    return ctypes.CDLL(str(native.build(source, folder))).value()


@needs_kernel
def test_a_library_is_built_once(small):
    source, folder, library = small
    before = library.stat()
    assert native.build(source, folder) == library and library.stat().st_mtime_ns == before.st_mtime_ns
    assert [before.st_mode & 0o777, folder.stat().st_mode & 0o777, os.listdir(folder)] == [0o700, 0o700, [library.name]]


@needs_kernel
def test_an_altered_library_is_built_again(small, tmp_path):
    source, folder, library = small
    content = library.read_bytes()
    _plant(library, tmp_path / "written")
    assert _value(source, folder) == 7 and library.read_bytes() == content
    assert not (tmp_path / "written").exists()


def _world_writable(folder, library):
    folder.chmod(0o777)


def _group_writable_above(folder, library):
    folder.parent.chmod(0o775)


def _of_another_user(folder, library):
    os.chown(folder, 65534, 65534)


def _a_link(folder, library):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


@needs_kernel
@pytest.mark.parametrize(
    ("open_up", "why"),
    [
        (_world_writable, "other users can write to"),
        (_group_writable_above, "other users can write to"),
        (_of_another_user, "belongs to another user"),
        (_a_link, "is a link"),
    ],
)
def test_what_others_may_have_planted_is_not_run(open_up, why, small, tmp_path):
    if open_up is _of_another_user and os.getuid() != 0:
        pytest.skip("only root can give files away")
    source, folder, library = small
    _plant(library, tmp_path / "written")
    # The planted library has a name that fits its content.
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    shutil.copy2(library, folder / f"{library.stem.rsplit('-', 1)[0]}-{digest}.so")
    open_up(folder, library)
    try:
        refused = ""
        try:
            _value(source, folder)
        except PermissionError as error:
            refused = str(error)
    finally:
        tmp_path.chmod(0o700)
    assert not (tmp_path / "written").exists()
    assert why in refused and "TSJAX_CACHE_DIR" in refused


@needs_kernel
@pytest.mark.parametrize("how", ["mode", "owner", "link"])
def test_a_library_that_others_may_have_written_is_built_again(how, small, tmp_path):
    source, folder, library = small
    if how == "mode":
        library.chmod(0o770)
    elif how == "owner":
        if os.getuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(library, 65534, 65534)
    else:
        library.symlink_to(library.rename(tmp_path / "elsewhere.so"))
    assert _value(source, folder) == 7
    found = library.lstat()
    assert found.st_mode == 0o100700 and found.st_uid == os.getuid()


@needs_kernel
def test_where_others_can_write_there_is_no_kernel(monkeypatch, tmp_path):
    (tmp_path / "native").mkdir()
    (tmp_path / "native").chmod(0o777)
    monkeypatch.setenv("TSJAX_CACHE_DIR", str(tmp_path))
    name, why = native._load.__wrapped__("float32")
    assert name is None and f"other users can write to {tmp_path / 'native'} (mode 0777)" in why


@needs_kernel
@pytest.mark.parametrize(
    "left", [9000, pytest.param(0, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)]
)
def test_a_library_cut_short_is_built_again(left, tmp_path):
    """Loading such a library would end the process by a signal (SIGBUS), so a separate process tries."""
    (tmp_path / "native").mkdir(mode=0o700)
    library = Path(shutil.copy2(native.load()[1], tmp_path / "native"))
    content = library.read_bytes()
    assert len(content) > 9000
    os.truncate(library, left)
    code = "from tsjax.fast import native; print(*native.load())"
    variables = {**os.environ, "TSJAX_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.split() == [library.stem, str(library)] and library.read_bytes() == content


def _weighted(net, x_t, y, weight):
    """The weighted loss by its definition, one sample after the other."""
    squares = [w * (net(x) - v) ** 2 for x, v, w in zip(x_t.T, y, weight, strict=True) if float(w) > 0]
    return sum(squares) / (2 * jnp.sum(weight))


@needs_kernel
@pytest.mark.parametrize("n", [3, 70])
def test_weighted_samples_are_scaled_ones(n):
    """Since relu is homogeneous, x and y are multiplied by sqrt(w). Rows of weight 0 may hold any numbers."""
    a, w, x, y = _case(3, 4, n, jnp.float64)
    weight = jnp.asarray(np.random.default_rng(SEED).choice([0.0, 0.5, 2.0], n)).at[0].set(1.0).at[-1].set(0.0)
    loss = lambda net, x, y: half_mse(net, *scaled_samples(x, y, weight))
    expected = _gradients(lambda net, x, y: _weighted(net, x, y, weight), a, w, x, y)
    _assert_close(_gradients(loss, a, w, x, y), expected, jnp.float64)
    bad = jnp.where(weight > 0, 0.0, jnp.nan)
    _assert_close(_gradients(loss, a, w, x + bad[None], y + bad), expected, jnp.float64)
    hessian = lambda loss: jax.hessian(lambda w: loss(TwoLayer(a, w), x, y))(w)
    _assert_close(hessian(loss), hessian(lambda net, x, y: _weighted(net, x, y, weight)), jnp.float64)


@needs_kernel
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_padding_changes_no_bit(dtype):
    """If weights are 1 and then 0, the kernel reads only the first samples, in the same order. Members of a batch may end at
    different samples."""
    a, w, x, y = _case(5, 6, 900, dtype)
    counts = jnp.asarray([1, 255, 256, 700, 900])
    padded = jax.jit(
        jax.vmap(
            lambda count: _gradients(
                lambda net, x, y: half_mse(net, *scaled_samples(x, y, (jnp.arange(900) < count).astype(dtype))),
                a,
                w,
                x,
                y,
            )
        )
    )(counts)
    for i, count in enumerate(counts.tolist()):
        alone = _gradients(half_mse, a, w, x[:, :count], y[:count])
        for one, other in zip(jax.tree.leaves(padded), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(one[i], other)
