"""The training loop against the same steps in NumPy, and what batches, stops and probes promise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.train import FullBatch, MiniBatches, Online
from tsjax.train.batches import real_first, some_rows

N, D = 12, 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(SEED)
    return ts.Dataset(x=jnp.asarray(rng.normal(size=(N, D))), y=jnp.asarray(rng.normal(size=N)))


def _linear(w):
    """A linear network as the sum of one relu and its mirror image: relu(z) - relu(-z) = z."""
    return ts.TwoLayer(a=jnp.array([1.0, -1.0], w.dtype), w=jnp.stack([w, -w]))


def _quadratic_loss(w, batch, key):
    del key
    return 0.5 * jnp.mean((batch.x @ w - batch.y) ** 2)


def _numpy_steps(w, x, y, steps, eta):
    for rows in steps:
        residual = x[rows] @ w - y[rows]
        w = w - eta * x[rows].T @ residual / len(rows)
    return w


def test_full_batches_are_gradient_descent(key, data):
    done = ts.train(key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.sgd(0.1), steps=20)
    expected = _numpy_steps(np.zeros(D), np.asarray(data.x), np.asarray(data.y), [np.arange(N)] * 20, 0.1)
    np.testing.assert_allclose(done.model, expected, rtol=1e-12)
    np.testing.assert_allclose(done.loss, 0.5 * np.mean((data.x @ expected - data.y) ** 2), rtol=1e-12)
    assert int(done.steps) == 20 and int(done.status) == ts.Status.STEP_LIMIT and done.trajectory is None


def test_mini_batches_see_every_row_once_an_epoch(key, data):
    batches, seen = MiniBatches(data, 5), []
    state = batches.start(key)
    for step in range(6):
        batch, state = batches.at(key, jnp.asarray(step), state)
        seen.append([int(np.flatnonzero((np.asarray(data.x) == row).all(1))[0]) for row in np.asarray(batch.x)])
    epochs = [seen[i] + seen[i + 1] for i in (0, 2, 4)]
    assert all(len(set(rows)) == 10 for rows in epochs) and len({tuple(rows) for rows in epochs}) == 3
    done = ts.train(key, jnp.zeros(D), _quadratic_loss, batches, optax.sgd(0.1), steps=6)
    expected = _numpy_steps(np.zeros(D), np.asarray(data.x), np.asarray(data.y), seen, 0.1)
    np.testing.assert_allclose(done.model, expected, rtol=1e-12)
    # The loss is that of all rows, not of the last batch.
    np.testing.assert_allclose(done.loss, 0.5 * np.mean((data.x @ expected - data.y) ** 2), rtol=1e-12)


@pytest.mark.parametrize("count", [1, 7, 1700])
def test_rows_of_weight_0_do_not_change_the_order_of_the_others(key, count):
    """The order of `jax.random.permutation` of the others, for any rows between them; also where it takes two rounds."""
    weight = np.zeros(count + 40)
    real = np.sort(np.random.default_rng(SEED).choice(count + 40, count, replace=False))
    weight[real] = 1.0
    order = np.asarray(real_first(key, jnp.asarray(weight)))
    np.testing.assert_array_equal(order[:count], real[np.asarray(jr.permutation(key, count))])
    assert sorted(order) == list(range(count + 40))


def test_some_rows_are_those_of_a_choice(key, data):
    chosen = some_rows(key, data, 4)
    rows = jr.choice(key, N, (4,), replace=False)
    np.testing.assert_array_equal(chosen.x, data.x[rows])
    assert some_rows(key, data, N) is data
    padded = ts.Dataset(
        x=jnp.concatenate([data.x, jnp.full((3, D), 9.0)]),
        y=jnp.concatenate([data.y, jnp.full(3, 9.0)]),
        weight=jnp.concatenate([jnp.ones(N), jnp.zeros(3)]),
    )
    np.testing.assert_array_equal(some_rows(key, padded, 4).y, chosen.y)


def test_online_batches_are_fresh_samples(key):
    instance = ts.Problem(ts.Sphere(D), ts.ReLUTeacher(2), 0.1).draw(key)
    batches = Online(instance, 4)
    one, other = (batches.at(key, jnp.asarray(step), None)[0] for step in (0, 1))
    np.testing.assert_array_equal(one.x, instance.sample(jr.fold_in(key, 0), 4).x)
    assert np.abs(np.asarray(one.x - other.x)).min() > 0
    done = ts.train(key, _linear(jnp.zeros(D)), ts.losses.squared, batches, optax.sgd(0.1), steps=5)
    assert int(done.steps) == 5 and bool(jnp.isfinite(done.loss))


def test_only_trainable_leaves_move(key, data):
    net = ts.TwoLayer(a=jnp.ones(2), w=jnp.ones((2, D)))
    only_a = eqx.tree_at(lambda net: (net.a, net.w), net, (True, False))
    done = ts.train(key, net, ts.losses.squared, FullBatch(data), optax.sgd(0.1), steps=5, trainable=only_a)
    np.testing.assert_array_equal(done.model.w, net.w)
    assert np.abs(np.asarray(done.model.a - net.a)).min() > 0


def test_flat_stops_where_the_loss_is(key, data):
    whole = ts.train(
        key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.sgd(0.1), steps=5000, stop=ts.Flat(1e-6, every=10)
    )
    assert int(whole.status) == ts.Status.CONVERGED and int(whole.steps) % 10 == 0 and int(whole.steps) < 5000
    losses = {}
    for steps in (int(whole.steps) - 20, int(whole.steps) - 10, int(whole.steps)):
        losses[steps] = float(
            ts.train(key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.sgd(0.1), steps=steps - 1).loss
        )
    first, second, third = losses.values()
    assert first - second > 1e-6 * second and second - third <= 1e-6 * third


def test_reached_stops_at_the_first_look_above_the_level(key, data):
    """The first coordinate of the same steps in NumPy passes the level at a step that is no look."""
    x, y = np.asarray(data.x), np.asarray(data.y)
    path = np.array([abs(_numpy_steps(np.zeros(D), x, y, [np.arange(N)] * steps, 0.02)[0]) for steps in range(60)])
    level = 0.5 * (path[10] + path[11])
    passed = int(np.argmax(path >= level))
    assert passed % 4
    stop = ts.Reached(value=lambda w: jnp.abs(w[0]), level=level, every=4)
    done = ts.train(key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.sgd(0.02), steps=59, stop=stop)
    assert int(done.steps) == 4 * -(-passed // 4) and int(done.status) == ts.Status.CONVERGED
    with pytest.raises(ValueError, match="at least 1"):
        ts.Reached(value=lambda w: w[0], level=1.0, every=0)
    with pytest.raises(ValueError, match="nan"):
        ts.Reached(value=lambda w: w[0], level=float("nan"))


def test_validation_returns_the_best_model(key, data):
    """A step size that overshoots: the loss falls once and then grows, so that the first look is the best."""
    held = ts.Dataset(x=data.x[:4], y=data.y[:4])
    stop = ts.Validation(data=held, objective=_quadratic_loss, patience=3, every=2)
    trained = ts.train(key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.sgd(0.05), steps=3000, stop=stop)
    losses = [float(_quadratic_loss(trained.model, held, None))]
    # By hand: the smallest validation loss at the looks up to the end.
    w, expected = np.zeros(D), []
    x, y = np.asarray(data.x), np.asarray(data.y)
    for step in range(int(trained.steps) + 1):
        if step % 2 == 0:
            expected.append(0.5 * np.mean((x[:4] @ w - y[:4]) ** 2))
        w = w - 0.05 * x.T @ (x @ w - y) / N
    np.testing.assert_allclose(losses[0], min(expected), rtol=1e-10)
    assert int(trained.status) == ts.Status.CONVERGED and np.argmin(expected) == len(expected) - 4


def test_validation_without_patience_trains_through_and_returns_the_best_model(key, data):
    """Two step sizes at once, each with the best of all its looks, by runs that end at each look."""
    held = ts.Dataset(x=data.x[:4], y=data.y[:4])
    stop = ts.Validation(data=held, objective=_quadratic_loss, patience=None, every=2)
    rates = jnp.array([0.3, 0.01])
    train = lambda rate: ts.train(
        key, jnp.zeros(D), _quadratic_loss, MiniBatches(data, 5), optax.sgd(rate), steps=40, stop=stop
    )
    trained = jax.vmap(train)(rates)
    ended = lambda rate, steps: (
        ts.train(key, jnp.zeros(D), _quadratic_loss, MiniBatches(data, 5), optax.sgd(rate), steps=steps).model
    )
    looks = jax.jit(jax.vmap(jax.vmap(ended, in_axes=(None, 0)), in_axes=(0, None)))(rates, jnp.arange(0, 41, 2))
    best = []
    for model, seen in zip(trained.model, looks, strict=True):
        best.append(int(np.argmin([float(_quadratic_loss(look, held, None)) for look in seen])))
        np.testing.assert_allclose(model, seen[best[-1]], rtol=1e-10)
    assert 0 < best[0] < 20
    assert trained.steps.tolist() == [40, 40] and trained.status.tolist() == [ts.Status.STEP_LIMIT] * 2
    # One order for the batch, as long as the step is one number: what sorts in `cond` stays in it.
    text = str(jax.make_jaxpr(jax.vmap(train))(rates))
    ending = jax.make_jaxpr(jax.vmap(lambda rate: ts.train(
        key, jnp.zeros(D), _quadratic_loss, MiniBatches(data, 5), optax.sgd(rate), steps=40,
        stop=ts.Validation(data=held, objective=_quadratic_loss, patience=50, every=2),
    )))(rates)  # fmt: skip
    assert text.count("cond[") > str(ending).count("cond[")


def test_divergence_is_a_status(key, data):
    done = ts.train(key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.sgd(1e200), steps=100)
    assert int(done.status) == ts.Status.DIVERGED
    grown = ts.train(
        key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.sgd(10.0), steps=10, largest_loss=jnp.asarray(1e3)
    )
    assert int(grown.status) == ts.Status.DIVERGED and bool(jnp.isfinite(grown.loss))


def test_probes_see_the_run_that_is_not_probed(key, data):
    plain = ts.train(key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.adam(0.1), steps=30)
    probed = ts.train(
        key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.adam(0.1), steps=30,
        probe=lambda w: {"w": w}, probe_at=(0, 7, 30),
    )  # fmt: skip
    np.testing.assert_array_equal(probed.model, plain.model)
    assert probed.trajectory is not None
    np.testing.assert_array_equal(probed.trajectory["step"], [0, 7, 30])
    np.testing.assert_array_equal(probed.trajectory["w"][0], np.zeros(D))
    seven = ts.train(key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.adam(0.1), steps=7)
    np.testing.assert_allclose(probed.trajectory["w"][1], seven.model, rtol=1e-12)


def test_a_batch_of_models_is_a_loop(key, data):
    """Members differ in their start, their step size and their penalty."""

    def run(own, rate, penalty):
        start = 0.3 * jr.normal(own, (D,), jnp.float64)
        loss = lambda w, batch, key: _quadratic_loss(w, batch, key) + penalty * jnp.sum(w**2)
        return ts.train(own, start, loss, MiniBatches(data, 4), optax.adam(rate), steps=9).model

    keys, rates, penalties = jr.split(key, 3), jnp.array([0.1, 0.01, 0.3]), jnp.array([0.0, 0.1, 1.0])
    many = jax.jit(jax.vmap(run))(keys, rates, penalties)
    for i in range(3):
        np.testing.assert_allclose(many[i], run(keys[i], rates[i], penalties[i]), rtol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.lbfgs(),
        lambda: optax.polyak_sgd(max_learning_rate=0.1),
        lambda: optax.chain(optax.adam(0.05), optax.contrib.reduce_on_plateau()),
        lambda: optax.contrib.sam(optax.adam(0.05), optax.sgd(0.05), opaque_mode=True),
        lambda: optax.contrib.muon(0.01),
        lambda: optax.adam(optax.cosine_decay_schedule(0.1, 40)),
    ],
    ids=["lbfgs", "polyak", "plateau", "sam", "muon", "schedule"],
)
def test_optimizers_get_what_they_ask_for(key, data, make):
    net = ts.TwoLayer(a=jnp.array([0.5, -0.5]), w=0.5 * jr.normal(key, (2, D), jnp.float64))
    before = float(ts.losses.squared(net, data))
    done = ts.train(key, net, ts.losses.squared, FullBatch(data), make(), steps=40)
    assert float(done.loss) < before and int(done.status) == ts.Status.STEP_LIMIT


def test_lbfgs_finds_the_least_squares(key, data):
    done = ts.train(key, jnp.zeros(D), _quadratic_loss, FullBatch(data), optax.lbfgs(), steps=30)
    expected = np.linalg.lstsq(np.asarray(data.x), np.asarray(data.y), rcond=None)[0]
    np.testing.assert_allclose(done.model, expected, rtol=1e-8)


def test_bad_arguments_are_errors(key, data):
    asks = optax.GradientTransformationExtraArgs(lambda _: None, lambda g, s, p=None, *, history: (g, s))
    cases = [
        (lambda: MiniBatches(data, N + 1), r"between 1 and n=12 rows, got size=13"),
        (lambda: ts.Flat(every=0), r"Flat: every is a number of steps, at least 1; got 0"),
        (lambda: ts.Flat(-1.0), r"Flat: tolerance must be finite and >= 0, got -1\.0"),
        (
            lambda: ts.train(key, jnp.zeros(D), _quadratic_loss, FullBatch(data), asks, steps=2),
            r"the optimizer cannot make a step: .*'history'.* it can get `value`",
        ),
    ]
    for make, message in cases:
        with pytest.raises((ValueError, TypeError), match=message):
            make()
