"""The GPU's kernels in Pallas's interpreter are compared with XLA, and lowered for CUDA. Running them for real needs a GPU.
Single instructions of PTX are replaced in the interpreter (`gpu_kernels.Threads`).

The interpreter takes half a minute to compile a kernel of the largest groups. Most tests of several groups therefore lower the
limits (`small_groups`), so that a few parameters make several groups.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED
from jax.experimental import pallas as pl

import tsjax as ts
from tsjax.activations import Activation, erf, leaky_relu, quadratic, relu
from tsjax.fast import fused, gpu_kernels
from tsjax.fast.fused import LARGEST, LARGEST_AT_ONCE, fits, grouping, lowers, warps_for
from tsjax.fast.steps import Samples, Steps, samples_for, scaled_samples
from tsjax.network import TwoLayer
from tsjax.optim import Descent, counter_normals, noise_seed


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


@pytest.fixture
def small_groups(monkeypatch):
    """At most 5 parameters at once, and 7 in a group: 2 neurons in 2 dimensions, 1 in 3 or more."""
    monkeypatch.setattr(fused, "LARGEST_AT_ONCE", 5)
    monkeypatch.setattr(fused, "_LARGEST_GROUP", 7)


ETA, NOISE, PENALTY = 0.05, 0.02, 0.01
tanh, sigmoid, shifted = Activation(jnp.tanh), Activation(jax.nn.sigmoid), Activation(jnp.cos)


def _case(m, d, n):
    shapes = [(m,), (m, d), (d, n), (n,)]
    return tuple(jr.normal(jr.key(SEED + i), shape, jnp.float32) / shape[0] ** 0.5 for i, shape in enumerate(shapes))


def _arguments(start, stop):
    as_int, as_float = lambda v: jnp.asarray(v, jnp.int32), lambda v: jnp.asarray(v, jnp.float32)
    rates = {"step_size": as_float(ETA), "noise": as_float(NOISE), "penalty": as_float(PENALTY)}
    return {"start": as_int(start), "stop": as_int(stop), "seed": noise_seed(jr.key(SEED)), **rates}


def _descend(a, w, x_t, y, extent=None, weight=None, *, interpret=True, **options):
    extent = scaled_samples(x_t, y, None)[2] if extent is None else extent
    steps = Steps(*(options.pop(name) for name in Steps._fields))
    return fused.descend(a, w, Samples(x_t, y, extent, weight), steps, interpret=interpret, **options)


@functools.partial(jax.jit, static_argnames="activation")
def _loss_and_gradient(theta, x_t, y, weight, activation):
    def objective(theta):
        squares = weight * (TwoLayer(*theta, activation).samples_last(x_t) - y) ** 2
        return 0.5 * jnp.sum(squares) / jnp.sum(weight) + PENALTY * sum(jnp.sum(leaf**2) for leaf in theta)

    return jax.value_and_grad(objective)(theta)


def _by_xla(a, w, x_t, y, start, stop, output_weights=True, activation=relu, weight=None):
    """The same steps, by separate operations in XLA, and the objective before the last step."""
    weight = jnp.ones_like(y) if weight is None else weight
    theta, loss = (a, w), jnp.float32(0)
    for i in range(start, stop):
        loss, gradient = _loss_and_gradient(theta, x_t, y, weight, activation)
        # Only parameters that are trained have noise.
        fixed = 0 if output_weights else a.size
        xi = counter_normals(noise_seed(jr.key(SEED)), jnp.int32(i), a.size + w.size - fixed, jnp.float32)
        noise = (xi[: a.size] if output_weights else jnp.zeros_like(a), xi[a.size - fixed :].reshape(w.shape))
        move = lambda p, g, xi: p - ETA * g + NOISE * xi
        theta = jax.tree.map(move, theta, gradient, noise)
        if not output_weights:
            theta = (a, theta[1])
    return *theta, loss


def _agree(found, expected, **tolerances):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, **{"rtol": 1e-4, "atol": 1e-5, **tolerances})


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
    _agree(_descend(*case, **arguments, warps=warps), _by_xla(*case, 2, 7, output_weights))


# The last group has a neuron more than the student (5 neurons in groups of 2), or none; tiles end with a sample, or after it.
@pytest.mark.parametrize(
    ("m", "d", "n", "warps", "output_weights"),
    [
        (5, 2, 33, 1, True),
        pytest.param(3, 3, 64, 2, False, marks=pytest.mark.slow),
        pytest.param(4, 2, 32, 1, False, marks=pytest.mark.slow),
        pytest.param(2, 6, 129, 4, True, marks=pytest.mark.slow),
    ],
)
def test_several_groups_of_neurons_do_the_same_steps(small_groups, m, d, n, warps, output_weights):
    assert grouping(m, d) == {(5, 2): (3, 2), (3, 3): (3, 1), (4, 2): (2, 2), (2, 6): (2, 1)}[m, d]
    case = _case(m, d, n)
    arguments = {**_arguments(2, 6), "output_weights": output_weights}
    _agree(_descend(*case, **arguments, warps=warps), _by_xla(*case, 2, 6, output_weights))


@pytest.mark.slow
@pytest.mark.parametrize(("m", "d", "groups"), [(12, 10, 2), (10, 10, 2), (51, 2, 2)])
def test_students_of_several_groups(m, d, groups):
    """The real limits."""
    assert grouping(m, d)[0] == groups
    case = _case(m, d, 70)
    _agree(_descend(*case, **_arguments(0, 3)), _by_xla(*case, 0, 3))


def test_groups():
    """All neurons are in a group, no group is empty, and its sums fit in registers."""
    assert [grouping(m, d) for m, d, _ in fused._COMPARED] == [(1, 3), (2, 6), (1, 3)]
    assert grouping(5, 10) == (1, 5) and grouping(10, 10) == (2, 5) and grouping(46, 10) == (6, 8)
    for d in range(1, 88):
        for m in range(1, LARGEST // (d + 1) + 1):
            groups, group = grouping(m, d)
            assert (groups - 1) * group < m <= groups * group
            assert (groups == 1) == (m * (d + 1) <= LARGEST_AT_ONCE)
            assert groups == 1 or group * (d + 1) <= 88


def test_warps():
    assert [warps_for(n) for n in (1, 511, 512, 1023, 1024, 2048, 4095, 4096, 10**6)] == [1, 1, 1, 1, 2, 4, 4, 8, 8]


def _weights(n):
    """Positive weights, and zeros: within the samples and at their end."""
    return jnp.where(jnp.arange(n) % 3 == 1, 0.0, 0.5 + jnp.arange(n) % 5).at[-4:].set(0.0).astype(jnp.float32)


_ACTIVATIONS = [relu, leaky_relu(0.2), erf, quadratic, tanh, sigmoid, shifted]
_SOME = [(leaky_relu(0.2), True), (erf, True), (shifted, False)]


# cos(0) = 1 and sigmoid(0) = 1/2: samples that do not count must not contribute.
@pytest.mark.parametrize(
    ("activation", "weighted"),
    [
        pytest.param(phi, on, id=f"{phi}-{on}", marks=() if (phi, on) in _SOME else pytest.mark.slow)
        for phi in _ACTIVATIONS
        for on in (False, True)
    ],
)
def test_activations_and_weights(activation, weighted):
    a, w, x_t, y = _case(2, 1, 37)
    weight = _weights(37) if weighted else None
    # What a row of weight 0 holds does not matter.
    broken = x_t if weight is None else jnp.where(weight[None] > 0, x_t, jnp.inf)
    samples = samples_for(activation, broken, y, weight)
    found = _descend(a, w, *samples, **_arguments(0, 3), activation=activation)
    _agree(found, _by_xla(a, w, x_t, y, 0, 3, activation=activation, weight=weight))


@pytest.mark.parametrize(
    "activation",
    [pytest.param(p, marks=() if p == erf else pytest.mark.slow) for p in (erf, shifted, quadratic)],
    ids=str,
)
def test_activations_and_weights_in_several_groups(small_groups, activation):
    """And with output weights that are not trained."""
    a, w, x_t, y = _case(3, 2, 37)
    samples = samples_for(activation, x_t, y, _weights(37))
    options = {**_arguments(0, 3), "activation": activation, "output_weights": False}
    _agree(_descend(a, w, *samples, **options), _by_xla(a, w, x_t, y, 0, 3, False, activation, _weights(37)))


@pytest.mark.parametrize("activation", _ACTIVATIONS, ids=str)
def test_an_activation_in_the_kernel_is_that_of_xla(activation):
    """The value and the derivative, also at 0; NaN stays NaN."""
    z = jnp.concatenate([jnp.linspace(-6, 6, 601), jnp.asarray([0.0, -0.0, 1e-30, 30.0, -30.0])]).astype(jnp.float32)
    value, back = gpu_kernels.evaluate(activation, z)
    slope = back(jnp.ones_like(z))
    np.testing.assert_allclose(value, activation(z), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(slope, jax.vmap(jax.grad(activation))(z), rtol=1e-6, atol=1e-6)
    assert jnp.isnan(gpu_kernels.evaluate(activation, jnp.full(1, jnp.nan, jnp.float32))[0]).all()


@pytest.mark.slow
def test_random_shapes(small_groups):
    """20 students of 1 to 12 groups, with all that can differ between them."""
    rng = np.random.default_rng(SEED)
    for _ in range(20):
        m, d, n, warps = (int(rng.integers(1, most)) for most in (13, 7, 200, 4))
        activation = (relu, leaky_relu(0.3), erf, quadratic, shifted)[rng.integers(5)]
        weight, output_weights, stop = (_weights(n + 4)[:n] if rng.integers(2) else None), bool(rng.integers(2)), 4
        case = _case(m, d, n)
        samples = samples_for(activation, *case[2:], weight)
        arguments = {**_arguments(1, stop), "output_weights": output_weights, "activation": activation}
        found = _descend(*case[:2], *samples, **arguments, warps=1 << warps % 3)
        expected = _by_xla(*case, 1, stop, output_weights, activation, weight)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4, err_msg=f"{m, d, n, activation}")


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_it_ends_with_the_samples_that_count(several, request):
    """The kernel does not read tiles after the last sample that counts."""
    if several:
        request.getfixturevalue("small_groups")
    a, w, x_t, y = _case(3, 2 if several else 5, 300)
    weight = (jnp.arange(300) < 70).astype(jnp.float32)
    extent = scaled_samples(x_t, y, weight)[2]
    # A NaN in a tile that is read would spread.
    zeros = jnp.where(jnp.arange(300) < 128, weight, jnp.nan)
    padded = _descend(a, w, x_t * zeros[None], y * zeros, extent, **_arguments(0, 5), warps=4)
    alone = _descend(a, w, x_t[:, :70], y[:70], **_arguments(0, 5), warps=4)
    # XLA may compile the two sizes to different roundings.
    _agree(padded, alone, rtol=1e-6, atol=1e-8)


_ONE_GROUP_OR_TWO = pytest.mark.parametrize("m", [1, pytest.param(3, marks=pytest.mark.slow)])


@_ONE_GROUP_OR_TWO
def test_no_steps_are_no_steps(small_groups, m):
    a, w, x_t, y = _case(m, 2, 50)
    found = _descend(a, w, x_t, y, **_arguments(3, 3))
    np.testing.assert_array_equal(found[0], a)
    np.testing.assert_array_equal(found[1], w)
    assert float(found[2]) == 0


@_ONE_GROUP_OR_TWO
def test_two_launches_are_one(small_groups, m):
    a, w, x_t, y = _case(m, 2, 50)
    whole = _descend(a, w, x_t, y, **_arguments(0, 6))
    half = _descend(a, w, x_t, y, **_arguments(0, 3))
    np.testing.assert_array_equal(_descend(*half[:2], x_t, y, **_arguments(3, 6))[1], whole[1])


def test_a_nan_spreads():
    a, w, x_t, y = _case(3, 4, 50)
    found = _descend(a, w.at[1, 2].set(jnp.nan), x_t, y, **_arguments(0, 2))
    assert jnp.isnan(found[2]) and jnp.isnan(found[1]).all()


@pytest.mark.parametrize(
    "activation", [relu, *(pytest.param(p, marks=pytest.mark.slow) for p in (erf, shifted))], ids=str
)
def test_a_nan_spreads_to_all_groups(small_groups, activation):
    a, w, x_t, y = _case(3, 2, 20)
    options = {**_arguments(0, 2), "activation": activation, "interpret": True}
    found = _descend(a, w.at[0, 1].set(jnp.nan), x_t, y, **options)
    assert jnp.isnan(found[2]) and jnp.isnan(found[1]).all()


@pytest.mark.slow
def test_restarts_share_the_data(small_groups):
    """Students of several groups under vmap, where samples are not batched."""
    cases, (x_t, y) = [_case(3, 2, 40)[:2], _case(6, 2, 40)[:2]], _case(3, 2, 40)[2:]
    a, w = (jnp.stack([one, other[:3]]) for one, other in zip(*cases, strict=True))
    found = jax.jit(jax.vmap(lambda a, w: _descend(a, w, x_t, y, **_arguments(0, 3))))(a, w)
    for i in range(2):
        _agree([leaf[i] for leaf in found], _by_xla(a[i], w[i], x_t, y, 0, 3))


def _lowered(m, d, n=1000, restarts=1, **options):
    a, w, x_t, y = _case(m, d, n)
    fn = lambda a, w: _descend(a, w, x_t, y, **_arguments(0, 50), **options, interpret=False)
    batch = [jnp.stack([leaf] * restarts) for leaf in (a, w)]
    text = jax.jit(jax.vmap(fn)).trace(*batch).lower(lowering_platforms=("cuda",)).as_text()
    assert "tsjax_descend" in text and f"grid_x = {restarts}" in text
    return text


@pytest.mark.parametrize(("parts", "warps"), [(1, 1), (3, 2), (31, 1), (32, 4), (33, 2), (96, 8)])
def test_sums_over_threads(parts, warps):
    """All parts are summed at once, and columns of the scratch memory after them stay 0."""
    width = max(32, 1 << (parts - 1).bit_length())
    threads = gpu_kernels.Threads(warps, compiled=False)
    values = jr.normal(jr.key(SEED), (parts, 32 * warps), jnp.float32)

    def kernel(values, out, scratch):
        scratch[...] = jnp.zeros(warps * width, jnp.float32)
        out[...] = threads.sums([values[i] for i in range(parts)], scratch)

    shapes = [jax.ShapeDtypeStruct((length,), jnp.float32) for length in (width, warps * width)]
    found = pl.pallas_call(kernel, out_shape=shapes, interpret=True)(values)[0]
    np.testing.assert_allclose(found[:parts], np.sum(values, axis=1), rtol=1e-5, atol=1e-5)
    assert not np.any(found[parts:])


@pytest.mark.parametrize("restarts", [1, 3])
def test_it_lowers_for_cuda(restarts):
    text = _lowered(5, 10, restarts=restarts)
    assert (
        all(f"shfl.sync.bfly.b32 $0, $1, {distance}," in text for distance in (16, 8, 4, 2, 1)) and "fma.rn.f32" in text
    )


@pytest.mark.slow
def test_several_groups_lower_for_cuda():
    assert grouping(10, 10) == (2, 5) and grouping(LARGEST // 4, 3) == (6, 22)
    _lowered(10, 10)
    assert len(_lowered(LARGEST // 4, 3)) < 200_000


def test_the_program_does_not_grow_with_the_number_of_neurons(small_groups):
    assert [grouping(m, 2) for m in (4, 40)] == [(2, 2), (20, 2)]
    few, many = (len(_lowered(m, 2, n=64, restarts=3)) for m in (4, 40))
    assert abs(many / few - 1) < 0.01


@pytest.mark.parametrize("activation", [leaky_relu(0.1), erf, quadratic, tanh, sigmoid, shifted], ids=str)
def test_activations_lower_for_cuda(small_groups, activation):
    assert lowers(activation)
    _lowered(3, 2, n=64, activation=activation)


@pytest.mark.slow
@pytest.mark.parametrize("activation", _ACTIVATIONS, ids=str)
def test_activations_lower_in_one_group(activation):
    _lowered(5, 10, activation=activation)


def test_activations_that_do_not_lower():
    """XLA trains students with a function that Triton lacks, that fails, or that is not finite at 0."""
    table = jnp.arange(3.0, dtype=jnp.float32)
    looked_up = Activation(lambda z: table[jnp.clip(z, 0, 2).astype(int)] * z)
    for activation in (Activation(jax.lax.erfc), Activation(jax.lax.lgamma), Activation(jnp.log), looked_up):
        assert not lowers(activation)


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
    zeros = lambda *shape: jnp.zeros(shape, jnp.float32)
    of_shape = lambda m, d: fits(TwoLayer(zeros(m), zeros(m, d)), zeros(d, 50), y)
    assert of_shape(10, 10) and of_shape(LARGEST // 4, 3) and not of_shape(LARGEST // 4 + 1, 3)
    # A neuron with too many inputs fits if all parameters do.
    assert of_shape(1, 95) and not of_shape(1, 96) and of_shape(2, 87) and not of_shape(2, 88)
    for activation in (leaky_relu(0.1), erf, quadratic, tanh):
        assert fits(TwoLayer(a, w, activation), x_t, y)
    assert not fits(TwoLayer(a, w, Activation(jnp.log)), x_t, y)
    assert not fits(TwoLayer(a, w), x_t.astype(jnp.float64), y)
    choose("yes")
    with pytest.raises(ValueError, match="TSJAX_FUSED must be 0"):
        fits(TwoLayer(a, w), x_t, y)


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["neurons", "both"])
def test_the_loop_trains_with_it(choose, monkeypatch, trained):
    """`tsjax.train` with an activation, weights, a penalty and a rule that looks at the objective stops at the same step."""
    net = TwoLayer(*_case(2, 1, 30)[:2], erf)
    data = ts.Dataset(x=_case(2, 1, 30)[2].T, y=_case(2, 1, 30)[3], weight=_weights(30))
    objective = ts.losses.Penalised(ts.losses.squared, jnp.float32(0.3))
    looks = []

    class Watched(ts.Flat):
        def look(self, state, model, before, loss):
            jax.debug.callback(lambda loss: looks.append(float(loss)), loss)
            return super().look(state, model, before, loss)

    def run(mode):
        choose(mode)
        looks.clear()
        done = ts.train(
            jr.key(0), net, objective, ts.FullBatch(data), Descent(jnp.float32(0.1)), steps=200,
            trainable=eqx.tree_at(lambda net: (net.a, net.w), net, (trained == "both", True)),
            stop=Watched(tolerance=1e-3, every=5),
        )  # fmt: skip
        jax.effects_barrier()
        return done, list(looks)

    calls, real = [], fused.descend
    monkeypatch.setattr(fused, "descend", lambda *args, **options: calls.append(1) or real(*args, **options))
    (mine, seen), used, (other, expected) = run("interpret"), len(calls), run("0")
    assert used and len(calls) == used
    assert 5 < int(mine.steps) == int(other.steps) < 200
    np.testing.assert_allclose(seen, expected, rtol=1e-5)
    _agree(jax.tree.leaves(mine.model), jax.tree.leaves(other.model))


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


@pytest.mark.slow
def test_the_check_on_a_device(monkeypatch, small_groups):
    """The check runs in the interpreter. A kernel that sums wrongly, or does not run, is not used."""
    device = jax.devices()[0]
    # Smaller students, which compile faster.
    monkeypatch.setattr(fused, "_COMPARED", ((2, 1, relu), (3, 2, relu), (2, 1, erf)))
    agrees, detail = fused.compare(device, interpret=True)
    assert agrees, detail
    assert "20 steps differ from XLA's by at most" in detail
    real = fused.descend
    for factor in (1.01, jnp.nan):
        wrong = lambda a, *rest, factor=factor, **options: real(factor * a, *rest, **options)
        monkeypatch.setattr(fused, "descend", wrong)
        assert not fused.compare(device, interpret=True)[0]
    monkeypatch.setattr(fused, "descend", lambda *_, **__: 1 / 0)
    assert fused.compare(device, interpret=True) == (False, "it does not run: ZeroDivisionError: division by zero")


@pytest.mark.slow
def test_the_check_of_the_real_students():
    agrees, detail = fused.compare(jax.devices()[0], interpret=True)
    assert agrees, detail


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
