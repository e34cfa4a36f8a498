"""Many steps in one call: the kernel in C is compared with XLA's own operations, for one student, batches and whole fits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import SEED
from scipy import special

import tsjax as ts
from tsjax.activations import relu
from tsjax.fast import native
from tsjax.fast.descent import descend
from tsjax.fast.steps import Extent, Samples, Steps, descend_by_xla, samples_for
from tsjax.optim import counter_normals, noise_seed

needs_kernel = pytest.mark.skipif(native.load()[0] is None, reason=f"no native kernel: {native.load()[1]}")


def _case(m, d, n, seed=SEED):
    rng = np.random.default_rng(seed)
    shapes = [(m,), (m, d), (d, n), (n,)]
    return tuple(jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5, jnp.float32) for shape in shapes)


def _steps(start, stop, seed=SEED):
    rates = (jnp.float32(rate) for rate in (0.05, 0.02, 0.01))
    return Steps(jnp.int32(start), jnp.int32(stop), *rates, seed=noise_seed(jr.key(seed)))


def _samples(x_t, y, weight=None):
    return samples_for(relu, x_t, y, weight)


def _assert_close(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


@eqx.filter_jit
def _by_c(a, w, samples, steps, output_weights=True):
    return native.descend(a, w, samples, steps, output_weights=output_weights)


@eqx.filter_jit
def _by_xla(a, w, samples, steps, output_weights=True):
    return descend_by_xla(a, w, samples, steps, output_weights=output_weights)


# Numbers of neurons, inputs and samples next to the sizes of blocks, vectors and tiles, and so many samples that they are not
# copied.
@needs_kernel
@pytest.mark.parametrize(
    ("m", "d", "n", "output_weights"),
    [(1, 1, 1, True), (7, 11, 257, False), (10, 6, 600, True), (2, 100, 11_003, True)],
)
def test_it_does_the_steps_of_gradient_descent(m, d, n, output_weights):
    a, w, x_t, y = _case(m, d, n)
    arguments = a, w, _samples(x_t, y), _steps(2, 9), output_weights
    found = _by_c(*arguments)
    _assert_close(found, _by_xla(*arguments))
    assert np.array_equal(found[0], a) is not output_weights


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_shapes_and_weights(seed):
    rng = np.random.default_rng([SEED, seed])
    m, d, n = int(rng.integers(1, 24)), int(rng.integers(1, 24)), int(rng.integers(1, 900))
    a, w, x_t, y = _case(m, d, n, seed)
    weight = jnp.asarray(rng.choice([0.0, 0.5, 1.0, 2.0], n), jnp.float32).at[0].set(1.0)
    arguments = a, w, _samples(x_t, y, weight), _steps(5, 5 + int(rng.integers(1, 20)), seed)
    _assert_close(_by_c(*arguments), _by_xla(*arguments))


@needs_kernel
@pytest.mark.parametrize("size", [(1, 1), (50, 19), (33, 40)])
def test_the_noise_is_that_of_the_optimizer(size):
    """One step of size 0 from the origin leaves the noise."""
    m, d = size
    a, w, x_t, y = (jnp.zeros(shape, jnp.float32) for shape in ((m,), (m, d), (d, 1), (1,)))
    steps = _steps(7, 8)._replace(step_size=jnp.float32(0), noise=jnp.float32(1))
    xi = counter_normals(steps.seed, jnp.int32(7), m * (d + 1), jnp.float32)
    found = _by_c(a, w, _samples(x_t, y), steps)
    np.testing.assert_allclose(jnp.concatenate([found[0], found[1].reshape(-1)]), xi, rtol=2e-6)
    # With output weights that do not move, the neurons get the first values.
    found = _by_c(a, w, _samples(x_t, y), steps, output_weights=False)
    xi = counter_normals(steps.seed, jnp.int32(7), m * d, jnp.float32)
    np.testing.assert_allclose(found[1].reshape(-1), xi, rtol=2e-6)


@needs_kernel
def test_the_noise_is_normal_in_the_tails_too():
    """Among 10^6 numbers, thousands use the formula of the tails, where |xi| is above 2.93. XLA rounds 1 - u^2 there."""
    m, d = 1000, 999
    a, w, x_t, y = (np.zeros(shape, np.float32) for shape in ((m,), (m, d), (d, 1), (1,)))
    steps = _steps(3, 4)._replace(step_size=jnp.float32(0), noise=jnp.float32(1))
    found = _by_c(a, w, _samples(jnp.asarray(x_t), jnp.asarray(y)), steps)
    xi = np.asarray(counter_normals(steps.seed, jnp.int32(3), m * (d + 1), jnp.float32))
    found = np.append(found[0], found[1])
    np.testing.assert_allclose(found, xi, rtol=2e-5)
    # The uniforms behind XLA's values are midpoints of 2^24 equal parts of (-1, 1).
    u = (np.floor(special.erf(xi.astype(np.float64) / 2**0.5) * 2**23) + 0.5) / 2**23
    near = np.abs(xi) < 3.5
    np.testing.assert_allclose(found[near], 2**0.5 * special.erfinv(u[near]), rtol=1e-6)
    assert np.sum(np.abs(xi) > 2.93) > 2000


@needs_kernel
def test_members_of_a_batch_do_as_many_steps_as_they_need():
    """Each is the same as alone, bit for bit: with other steps, samples that count, and data of its own or shared with the
    other restarts."""
    a, w, x_t, y = _case(6, 5, 300)
    a, w = jnp.stack([a, 2 * a]), jnp.stack([w, -w])
    data = [jnp.stack([leaf, leaf[..., ::-1]]) for leaf in (x_t, y)]
    stops, counts = jnp.asarray([4, 9, 4]), jnp.asarray([300, 70])

    def one(a, w, x_t, y, count, stop):
        samples = Samples(x_t, y, Extent(count, count.astype(jnp.float32)), None)
        return native.descend(a, w, samples, _steps(4, 0)._replace(stop=stop))

    restarts = jax.vmap(one, (0, 0, None, None, None, None))
    of_data = jax.vmap(restarts, (None, None, 0, 0, 0, None))
    every = jax.jit(jax.vmap(of_data, (None,) * 5 + (0,)))(a, w, *data, counts, stops)
    alone = jax.jit(one)
    for i, j, k in np.ndindex(3, 2, 2):
        single = alone(a[k], w[k], data[0][j], data[1][j], counts[j], stops[i])
        for left, right in zip(every, single, strict=True):
            np.testing.assert_array_equal(left[i, j, k], right)
    np.testing.assert_array_equal(every[0][0], jnp.broadcast_to(a, (2, 2, 6)))
    assert not np.array_equal(every[0][1, 0], a)


@needs_kernel
def test_two_calls_are_one():
    a, w, x_t, y = _case(3, 4, 50)
    whole = _by_c(a, w, _samples(x_t, y), _steps(0, 6))
    half = _by_c(a, w, _samples(x_t, y), _steps(0, 3))
    rest = _by_c(*half[:2], _samples(x_t, y), _steps(3, 6))
    for one, other in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(one, other)


@needs_kernel
def test_a_nan_spreads():
    a, w, x_t, y = _case(3, 4, 50)
    found = _by_c(a, w.at[1, 2].set(jnp.nan), _samples(x_t, y), _steps(0, 2))
    assert jnp.isnan(found[2]) and jnp.isnan(found[0]).all() and jnp.isnan(found[1]).all()


@needs_kernel
def test_samples_that_do_not_count_are_not_read():
    a, w, x_t, y = _case(3, 4, 300)
    bad = jnp.where(jnp.arange(300) < 70, 0.0, jnp.nan).astype(jnp.float32)
    broken = Samples(x_t + bad[None], y + bad, Extent(jnp.int32(70), jnp.float32(70)), None)
    found = _by_c(a, w, broken, _steps(0, 5))
    alone = _by_c(a, w, _samples(x_t[:, :70], y[:70]), _steps(0, 5))
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one, other)


@needs_kernel
def test_with_cpus_alone_no_code_for_other_devices_is_traced(monkeypatch):
    a, w, x_t, y = _case(3, 4, 40)
    trace = lambda: str(jax.make_jaxpr(lambda a, w: descend(a, w, _samples(x_t, y), _steps(0, 5)))(a, w))
    if jax.default_backend() == "cpu":
        assert "platform_index" not in trace() and "ffi_call" in trace()
    monkeypatch.setattr(native, "only_cpus", lambda: False)
    assert "platform_index" in trace()


def test_derivatives_are_those_of_xla():
    a, w, x_t, y = _case(3, 4, 40)

    def derivative(by):
        final = lambda eta: by(a, w, _samples(x_t, y), _steps(0, 5)._replace(step_size=eta))[1]
        return jax.jit(jax.jacfwd(final))(jnp.float32(0.05))

    one, other = derivative(descend), derivative(descend_by_xla)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert jnp.abs(other).max() > 0.1


@pytest.mark.parametrize("trainable", ["both", "neurons"])
def test_a_student_trains_as_by_optax(trainable):
    """`ts.train` recognises plain descent by its class, and the same optimizer, built from optax, is not recognised."""
    a, w, x_t, y = _case(3, 4, 60)
    data, net = ts.Dataset(x=x_t.T, y=y), ts.TwoLayer(a, w)
    key, eta, temperature = jr.key(SEED), 0.05, 1e-3
    chosen = eqx.tree_at(lambda net: (net.a, net.w), net, (trainable == "both", True))
    objective = ts.losses.Penalised(ts.losses.squared, 0.02)
    recognised = ts.noisy_gradient_descent(eta, temperature, key)
    built = optax.chain(optax.sgd(eta), ts.add_langevin_noise(eta, temperature, key))

    def train(optimizer):
        # The rule compares objectives, so it sees the penalty too.
        stop = ts.Flat(tolerance=2e-2, every=10)
        settings = {"steps": 500, "trainable": chosen, "stop": stop}
        return jax.jit(lambda: ts.train(jr.key(1), net, objective, ts.FullBatch(data), optimizer, **settings))()

    one, other = train(recognised), train(built)
    assert int(one.steps) == int(other.steps) < 500
    _assert_close(jax.tree.leaves(one.model), jax.tree.leaves(other.model))
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
