"""The GPU's kernel in Pallas's interpreter is compared with XLA, and lowered for CUDA. Running it for real needs a GPU."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.fast import fused
from tsjax.fast.fused import LARGEST, descend, fits
from tsjax.fast.loss import half_mse_by_xla, scaled_samples
from tsjax.network import TwoLayer
from tsjax.optim import counter_normals, noise_seed


@pytest.fixture
def choose(monkeypatch):
    """Sets or deletes TSJAX_FUSED, and clears the cached value."""

    def set_to(value: str | None):
        if value is None:
            monkeypatch.delenv("TSJAX_FUSED", raising=False)
        else:
            monkeypatch.setenv("TSJAX_FUSED", value)
        fused.mode.cache_clear()

    yield set_to
    monkeypatch.undo()
    fused.mode.cache_clear()
    jax.clear_caches()


ETA, NOISE, PENALTY = 0.05, 0.02, 0.01


def _case(m, d, n):
    shapes = [(m,), (m, d), (d, n), (n,)]
    return tuple(jr.normal(jr.key(SEED + i), shape, jnp.float32) / shape[0] ** 0.5 for i, shape in enumerate(shapes))


def _arguments(start, stop):
    as_int, as_float = lambda v: jnp.asarray(v, jnp.int32), lambda v: jnp.asarray(v, jnp.float32)
    rates = {"step_size": as_float(ETA), "noise": as_float(NOISE), "penalty": as_float(PENALTY)}
    return {"start": as_int(start), "stop": as_int(stop), "seed": noise_seed(jr.key(SEED)), **rates}


def _by_xla(a, w, x_t, y, start, stop, output_weights):
    """The same steps, by separate operations in XLA."""
    theta, loss = (a, w), jnp.float32(0)
    loss_and_gradient = jax.jit(jax.value_and_grad(lambda theta: half_mse_by_xla(TwoLayer(*theta), x_t, y)))
    for i in range(start, stop):
        loss, gradient = loss_and_gradient(theta)
        xi = counter_normals(noise_seed(jr.key(SEED)), jnp.int32(i), a.size + w.size, jnp.float32)
        noise = (xi[: a.size], xi[a.size :].reshape(w.shape))
        move = lambda p, g, xi: p - ETA * (g + 2 * PENALTY * p) + NOISE * xi
        theta = jax.tree.map(move, theta, gradient, noise)
        if not output_weights:
            theta = (a, theta[1])
    return *theta, loss


# Sample sizes next to multiples of a tile, and numbers of parameters next to powers of two.
@pytest.mark.parametrize(
    ("m", "d", "n", "warps", "output_weights"),
    [
        pytest.param(1, 1, 1, 1, True, marks=pytest.mark.slow),
        (3, 5, 100, 1, True),
        (3, 5, 130, 4, False),
        pytest.param(2, 4, 256, 2, False, marks=pytest.mark.slow),
    ],
)
def test_it_does_the_steps_of_gradient_descent(m, d, n, warps, output_weights):
    case = _case(m, d, n)
    arguments = {**_arguments(2, 7), "output_weights": output_weights}
    found = descend(*case, **arguments, warps=warps, interpret=True)
    for one, other in zip(found, _by_xla(*case, 2, 7, output_weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_it_ends_with_the_samples_that_count():
    """The kernel does not read tiles after the last sample that counts."""
    a, w, x_t, y = _case(3, 5, 300)
    weight = (jnp.arange(300) < 70).astype(jnp.float32)
    extent = scaled_samples(x_t, y, weight)[2]
    # A NaN in a tile that is read would spread.
    zeros = jnp.where(jnp.arange(300) < 128, weight, jnp.nan)
    padded = descend(a, w, x_t * zeros[None], y * zeros, extent, **_arguments(0, 5), warps=4, interpret=True)
    alone = descend(a, w, x_t[:, :70], y[:70], **_arguments(0, 5), warps=4, interpret=True)
    for one, other in zip(padded, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_steps_are_no_steps():
    a, w, x_t, y = _case(1, 2, 50)
    found = descend(a, w, x_t, y, **_arguments(3, 3), interpret=True)
    np.testing.assert_array_equal(found[0], a)
    np.testing.assert_array_equal(found[1], w)
    assert float(found[2]) == 0


def test_two_launches_are_one():
    a, w, x_t, y = _case(1, 2, 50)
    whole = descend(a, w, x_t, y, **_arguments(0, 6), interpret=True)
    half = descend(a, w, x_t, y, **_arguments(0, 3), interpret=True)
    np.testing.assert_array_equal(descend(*half[:2], x_t, y, **_arguments(3, 6), interpret=True)[1], whole[1])


def test_a_nan_spreads():
    a, w, x_t, y = _case(3, 4, 50)
    found = descend(a, w.at[1, 2].set(jnp.nan), x_t, y, **_arguments(0, 2), interpret=True)
    assert jnp.isnan(found[2]) and jnp.isnan(found[1]).all()


@pytest.mark.parametrize("restarts", [1, 3])
def test_it_lowers_for_cuda(restarts):
    a, w, x_t, y = _case(5, 10, 1000)
    fn = lambda a, w: descend(a, w, x_t, y, **_arguments(0, 50), interpret=False)
    batch = [jnp.stack([leaf] * restarts) for leaf in (a, w)]
    text = jax.jit(jax.vmap(fn)).trace(*batch).lower(lowering_platforms=("cuda",)).as_text()
    assert "tsjax_descend" in text and f"grid_x = {restarts}" in text


def test_what_it_can_train(choose):
    a, w, x_t, y = _case(3, 4, 50)
    choose(None)
    assert not fits(TwoLayer(a, w), x_t, y) and fused.checked() == (False, "there is no CUDA device")
    assert fused.kernel_in_use("cpu") in ("c", "xla")
    choose("0")
    assert not fits(TwoLayer(a, w), x_t, y) and fused.kernel_in_use("gpu") == "xla"
    choose("1")
    assert fused.kernel_in_use("gpu") == "fused"
    assert fits(TwoLayer(a, w), x_t, y)
    wide = jnp.zeros(LARGEST // 5 + 1, jnp.float32)
    assert not fits(TwoLayer(wide, jnp.zeros((wide.size, 4), jnp.float32)), x_t, y)
    assert not fits(TwoLayer(a, w, ts.activations.leaky_relu(0.1)), x_t, y)
    assert not fits(TwoLayer(a, w), x_t.astype(jnp.float64), y)
    choose("yes")
    with pytest.raises(ValueError, match="TSJAX_FUSED must be 0"):
        fits(TwoLayer(a, w), x_t, y)


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, "auto"])
def test_a_whole_fit_is_that_of_xla(choose, width):
    problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), 0.1)
    teacher = problem.sample_teacher(jr.key(SEED))
    sample = problem.sample(jr.key(SEED + 1), teacher, 100)
    data = ts.Dataset(x=sample.x.astype(jnp.float32), y=sample.y.astype(jnp.float32))
    student = ts.TwoPhaseStudent(width, 2, ts.NoisyPhase(steps=150), ts.VanillaPhase(max_steps=150))

    def fit(mode):
        choose(mode)
        jax.clear_caches()
        return student.fit(jr.key(SEED + 2), data)

    mine, other = fit("interpret"), fit("0")
    assert int(mine.status) == int(other.status) and int(mine.stats["width"]) == int(other.stats["width"])
    np.testing.assert_allclose(mine.stats["train_loss"], other.stats["train_loss"], rtol=1e-4)
    np.testing.assert_allclose(mine.predict(data.x), other.predict(data.x), atol=2e-3)


def test_the_check_on_a_device(monkeypatch):
    """The check runs in the interpreter. A kernel that sums wrongly, or does not run, is not used."""
    device = jax.devices()[0]
    agrees, detail = fused.compare(device, interpret=True)
    assert agrees, detail
    assert "20 steps differ from XLA's by at most" in detail
    real = fused.descend
    wrong = lambda a, *rest, **options: real(1.01 * a, *rest, **options)
    monkeypatch.setattr(fused, "descend", wrong)
    assert not fused.compare(device, interpret=True)[0]
    monkeypatch.setattr(fused, "descend", lambda *_, **__: 1 / 0)
    assert fused.compare(device) == (False, "it does not run: ZeroDivisionError: division by zero")


def test_the_check_is_kept(monkeypatch, tmp_path, choose):
    """The check runs once for each kind of device and version, also if the caller is tracing."""
    monkeypatch.setenv("TSJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: jax.devices()[:1])
    calls = []
    monkeypatch.setattr(fused, "compare", lambda device: calls.append(1) or (float(jnp.ones(())) == 1.0, "well"))
    choose(None)
    for _ in range(2):
        fused.checked.cache_clear()
        assert jax.eval_shape(lambda: jnp.zeros(int(fused.in_use() == (True, "well")))).shape == (1,)
        assert fused.kernel_in_use("gpu") == "fused"
    assert len(calls) == 1
    [kept] = (tmp_path / "cache").glob("fused-*.json")
    kept.write_text("broken")
    fused.checked.cache_clear()
    assert fused.checked() == (True, "well") and len(calls) == 2
    fused.checked.cache_clear()


def test_a_fit_lowers_for_cuda(choose):
    choose("1")
    x_t, y = jnp.ones((3, 64), jnp.float32), jnp.ones(64, jnp.float32)
    student = ts.TwoPhaseStudent(2, 2, ts.NoisyPhase(width=2, steps=150), ts.VanillaPhase(max_steps=150))
    fit = lambda x, y: student.fit(jr.key(0), ts.Dataset(x=x, y=y)).stats["train_loss"]
    lower = lambda platform: jax.jit(fit).trace(x_t.T, y).lower(lowering_platforms=(platform,)).as_text()
    # Phase I and phase II.
    assert lower("cuda").count("tsjax_descend") >= 2
    assert "triton" not in lower("cpu") and "triton" in lower("cuda")
