"""Students of any network are compared with scikit-learn, and tested with weights, in batches of settings, and on invalid
input."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import SEED
from sklearn.linear_model import LogisticRegression

import tsjax as ts

RNG = np.random.default_rng(SEED)
N, D, K = 60, 4, 3
X = jnp.asarray(RNG.normal(size=(N, D)))
LABELS = jnp.asarray((np.asarray(X) @ RNG.normal(size=(D, K)) + 1.5 * RNG.normal(size=(N, K))).argmax(1), jnp.int32)
Y = jnp.asarray(np.sin(np.asarray(X)[:, 0]) + 0.1 * RNG.normal(size=N))
CLASSES = ts.Dataset(x=X, y=LABELS)
NUMBERS = ts.Dataset(x=X, y=Y)


class Linear(eqx.Module):
    """One linear layer with a bias."""

    w: jax.Array
    b: jax.Array

    def __call__(self, x):
        return self.w @ x + self.b


def linear(outputs=None):
    def make(key, point):
        shape = () if outputs is None else (outputs,)
        return Linear(0.1 * jr.normal(key, (*shape, point)), jnp.zeros(shape))

    return make


def mlp(key, point):
    return eqx.nn.MLP(point, "scalar", 8, 1, jnp.tanh, key=key)


def test_a_linear_student_is_logistic_regression(key):
    """L-BFGS without a penalty agrees with scikit-learn to 1e-5, for two classes and for three."""
    two = ts.Dataset(x=X, y=(LABELS == 0).astype(jnp.int32))
    for data, model, loss in (
        (two, linear(), ts.losses.logistic),
        (CLASSES, linear(K), ts.losses.cross_entropy),
    ):
        fit = ts.Student(model, loss, optax.lbfgs(), steps=400).fit(key, data)
        peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000).fit(np.asarray(X), np.asarray(data.y))
        outputs = np.asarray(fit.predict(X))
        expected = peer.decision_function(np.asarray(X))
        if outputs.ndim == 2:
            # Only differences of the outputs are determined.
            outputs, expected = (v - v.mean(1, keepdims=True) for v in (outputs, expected))
        np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())
        assert fit.stats["parameters"] == fit.model.w.size + fit.model.b.size


def test_sample_weights_of_a_linear_student_are_those_of_scikit_learn(key):
    weight = jnp.asarray(RNG.integers(0, 4, N).astype(float))
    data = ts.Dataset(x=X, y=LABELS, weight=weight)
    fit = ts.Student(linear(K), ts.losses.cross_entropy, optax.lbfgs(), steps=400).fit(key, data)
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000)
    peer.fit(np.asarray(X), np.asarray(LABELS), sample_weight=np.asarray(weight))
    centred = lambda v: v - v.mean(1, keepdims=True)
    expected = centred(peer.decision_function(np.asarray(X)))
    np.testing.assert_allclose(centred(np.asarray(fit.predict(X))), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 8},
        {"batch_size": 8, "epochs": 2, "steps": None},
        {"temperature": 1e-3},
        {"output_scale": 3.0},
        {"validation": 0.25, "steps": 200},
        {"stop": ts.Flat(1e-3)},
    ],
    ids=["full", "batches", "epochs", "noisy", "centred", "validation", "flat"],
)
def test_rows_of_weight_0_are_not_there(key, options):
    """Rows of weight 0 may be anywhere and hold any numbers. After a fixed number of steps, fits agree to 1e-8 in float64."""
    student = ts.Student(mlp, learning_rate=0.1, **{"steps": 30, **options})
    places = np.sort(np.random.default_rng(SEED).choice(N + 7, N, replace=False))
    x, y, weight = np.full((N + 7, D), 3.0), np.full(N + 7, -5.0), np.zeros(N + 7)
    x[places], y[places], weight[places] = np.asarray(X), np.asarray(Y), 1.0
    padded = ts.Dataset(x=jnp.asarray(x), y=jnp.asarray(y), weight=jnp.asarray(weight))
    one, other = student.fit(key, NUMBERS), student.fit(key, padded)
    np.testing.assert_allclose(other.predict(X), one.predict(X), rtol=1e-8, atol=1e-10)
    for name in one.stats:
        np.testing.assert_allclose(other.stats[name], one.stats[name], rtol=1e-8)
    assert int(one.status) == int(other.status)


def test_settings_are_mapped(key):
    """One program trains with different learning rates, penalties, temperatures and scales, and each fit equals one on its
    own."""

    def train(rate, penalty, temperature, scale, own):
        return ts.Student(
            mlp, optimizer=optax.adam, learning_rate=rate, penalty=penalty, temperature=temperature, init_scale=scale,
            steps=20, batch_size=16,
        ).fit(own, NUMBERS).predict(X[:5])  # fmt: skip

    settings = (
        jnp.array([0.1, 0.01, 0.001]), jnp.array([0.0, 0.1, 0.01]), jnp.array([0.0, 1e-4, 1e-2]),
        jnp.array([1.0, 0.5, 2.0]), jr.split(key, 3),
    )  # fmt: skip
    many = jax.jit(jax.vmap(train))(*settings)
    for i in range(3):
        np.testing.assert_allclose(many[i], train(*(value[i] for value in settings)), rtol=1e-7, atol=1e-9)
    assert np.abs(np.asarray(many[0] - many[1])).max() > 1e-3


def test_another_learning_rate_compiles_nothing(key, caplog):
    fit = lambda rate: ts.Student(mlp, learning_rate=rate, steps=3).fit(key, NUMBERS)
    fit(0.1)
    with jax.log_compiles():
        caplog.clear()
        fit(0.2)
        compiled = [message for message in caplog.messages if message.startswith("Compiling") and "_fit" in message]
    assert not compiled


def test_pairs_of_functions_are_networks(key):
    """A network can be a pair of init(key, x) and apply(parameters, x), as in Flax and Haiku."""
    init = lambda own, x: {"w": 0.1 * jr.normal(own, (x.shape[0],)), "b": jnp.zeros(())}
    apply = lambda parameters, x: parameters["w"] @ x + parameters["b"]
    pair = ts.Student((init, apply), optimizer=optax.lbfgs(), steps=60).fit(key, NUMBERS)
    design = np.column_stack([np.asarray(X), np.ones(N)])
    expected = design @ np.linalg.lstsq(design, np.asarray(Y), rcond=None)[0]
    np.testing.assert_allclose(pair.predict(X), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": optax.chain(optax.adam(0.05), optax.contrib.reduce_on_plateau(patience=3))},
        {"optimizer": optax.contrib.sam(optax.adam(0.05), optax.sgd(0.05), opaque_mode=True)},
        {"optimizer": optax.contrib.muon, "learning_rate": 0.02},
        {"optimizer": optax.polyak_sgd(max_learning_rate=0.1)},
    ],
    ids=["plateau", "sam", "muon", "polyak"],
)
@pytest.mark.parametrize("batch_size", [None, 16])
def test_optimizers_that_ask_for_more_than_a_gradient(key, options, batch_size):
    """Such optimizers get the values of the batch of the step, for steps on all rows and on mini-batches."""
    fit = ts.Student(mlp, **options, steps=150, batch_size=batch_size).fit(key, NUMBERS)
    assert float(fit.stats["train_loss"]) < 0.25 * float(jnp.var(Y)) / 2 and int(fit.status) == ts.Status.STEP_LIMIT


@pytest.mark.slow
def test_a_stream_of_ten_million_samples_takes_no_memory():
    """The peak of memory of a separate process grows by less than a third of the memory of the samples (440 MB)."""
    code = """
import resource, jax, optax, tsjax as ts
instance = ts.Problem(ts.Gaussian(10), ts.ReLUTeacher(3), 0.1).draw(jax.random.key(0))
student = lambda size: ts.Student(ts.MLP((16,)), optimizer=optax.adam, learning_rate=0.01, steps=10_000, batch_size=size)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
student(10).fit(jax.random.key(1), instance)
before = peak()
fit = student(1000).fit(jax.random.key(1), instance)
print(int(fit.stats["sample_steps"]), float(fit.stats["train_loss"]), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    samples, loss, grown = map(float, done.stdout.split())
    assert samples == 10_000_000 and grown < 140, done.stdout
    # Half the variance of the noise is the least there is.
    assert 0.005 * 0.8 < loss < 0.02, done.stdout


@pytest.mark.slow
def test_modules_of_flax_train_as_they_are(key):
    """Linen modules have init and apply. Modules of nnx are split into parameters and a function of them."""
    linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(1)(linen.tanh(linen.Dense(16)(x)))[0]

    fit = ts.Student(Net(), optimizer=optax.adam, learning_rate=0.01, steps=300).fit(key, NUMBERS)
    assert float(fit.stats["train_loss"]) < 0.25 * float(jnp.var(Y)) / 2

    class Newer(nnx.Module):
        def __init__(self, rngs):
            self.one, self.two = nnx.Linear(D, 16, rngs=rngs), nnx.Linear(16, 1, rngs=rngs)

        def __call__(self, x):
            return self.two(jnp.tanh(self.one(x)))[0]

    graph, _ = nnx.split(nnx.eval_shape(lambda: Newer(nnx.Rngs(0))))
    init = lambda own, x: nnx.state(Newer(nnx.Rngs(own)))
    fit = ts.Student(
        (init, lambda state, x: nnx.merge(graph, state)(x)), optimizer=optax.adam, learning_rate=0.01, steps=300
    ).fit(key, NUMBERS)
    assert float(fit.stats["train_loss"]) < 0.25 * float(jnp.var(Y)) / 2


def test_a_centred_student_is_lazy_for_a_large_scale(key):
    """f - f_0 is 0 at the start. As the scale grows, the network moves less, while its predictions move by the same amount."""
    fits = {
        scale: ts.Student(mlp, learning_rate=0.05, steps=50, output_scale=scale).fit(key, NUMBERS)
        for scale in (1.0, 100.0, 1000.0)
    }
    moved = {
        scale: float(optax.tree_utils.tree_norm(
            jax.tree.map(jnp.subtract, *(eqx.filter(net, eqx.is_inexact_array) for net in (fit.model.model, fit.model.start)))
        ))
        for scale, fit in fits.items()
    }  # fmt: skip
    assert moved[1.0] > 20 * moved[100.0] > 150 * moved[1000.0] > 0
    np.testing.assert_allclose(fits[100.0].predict(X), fits[1000.0].predict(X), atol=0.03)
    zero = ts.Student(mlp, learning_rate=0.05, steps=0, output_scale=10.0).fit(key, NUMBERS)
    np.testing.assert_array_equal(zero.predict(X), np.zeros(N))


def test_a_stream_is_learnt_from_without_a_data_set(key):
    task = ts.GaussianMixture(2.0 * jnp.eye(K, D), std=0.5)
    instance = task.draw(key)
    fit = ts.Student(
        linear(K), ts.losses.cross_entropy, optax.adam, 0.05, steps=300, batch_size=16
    ).fit(key, instance)  # fmt: skip
    assert int(fit.stats["sample_steps"]) == 300 * 16
    found = ts.classification_error(fit, instance, key=jr.key(SEED), samples=20_000)
    bayes = instance.bayes_error(jr.key(SEED + 1))
    error = (float(found.value) * (1 - float(found.value)) / 20_000) ** 0.5
    assert -4 * error < float(found.value) - float(bayes.value) < 0.01
    with pytest.raises(ValueError, match="an instance is sampled afresh: give a key"):
        ts.classification_error(fit, instance)


def test_two_layers_reach_the_fast_kernel(key, monkeypatch):
    """`Student` of a two-layer relu network equals `GradientStudent`, and uses the same kernel."""
    net = ts.TwoLayer(a=0.3 * jr.normal(key, (5,)), w=0.5 * jr.normal(key, (5, D)))
    data = ts.Dataset(x=X.astype(jnp.float32), y=Y.astype(jnp.float32))
    calls = []
    from tsjax import losses

    real = losses.half_mse
    monkeypatch.setattr(losses, "half_mse", lambda *arguments: calls.append(1) or real(*arguments))
    student = ts.Student(lambda own, point: net, learning_rate=0.2, steps=11)
    fit = student.fit(key, data)
    assert calls
    expected = net
    for _ in range(11):
        gradient = jax.grad(lambda n: 0.5 * jnp.mean((jax.vmap(n)(data.x) - data.y) ** 2))(expected)
        expected = jax.tree.map(lambda p, g: p - 0.2 * g, expected, gradient)
    np.testing.assert_allclose(fit.model.w, expected.w, rtol=1e-5, atol=1e-6)


def test_weight_decay_is_decoupled(key):
    """With Adam it is optax's AdamW, also under a schedule. With gradient descent it equals a penalty. It can be mapped
    over."""
    rate = optax.cosine_decay_schedule(0.1, 30)
    decays = jnp.array([1e-2, 0.5])
    shared = {"steps": 30, "batch_size": 8}
    mapped = jax.vmap(
        lambda decay: ts.Student(linear(), optimizer=optax.adam, learning_rate=rate, weight_decay=decay, **shared).fit(
            key, NUMBERS
        )
    )(decays)
    for place, decay in enumerate((1e-2, 0.5)):
        expected = ts.Student(linear(), optimizer=optax.adamw(rate, weight_decay=decay), **shared).fit(key, NUMBERS)
        np.testing.assert_allclose(mapped.model.w[place], expected.model.w, rtol=1e-10)
        np.testing.assert_allclose(mapped.model.b[place], expected.model.b, rtol=1e-10)
    descent = ts.Student(linear(), learning_rate=0.1, steps=30, weight_decay=0.5).fit(key, NUMBERS)
    penalised = ts.Student(linear(), learning_rate=0.1, steps=30, penalty=0.25).fit(key, NUMBERS)
    np.testing.assert_allclose(descent.model.w, penalised.model.w, rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ts.Student(mlp, optimizer=optax.adam(0.1), weight_decay=0.1), r"weight_decay is times the step size"),
        (lambda: ts.Student(mlp, learning_rate=0.1, weight_decay=-1.0), r"weight_decay must be finite and at least 0"),
        (lambda: ts.Student(mlp), r"gradient descent needs a learning_rate"),
        (lambda: ts.Student(3, learning_rate=0.1), r"model makes a network: .* got 3"),
        (lambda: ts.Student(mlp, optimizer=optax.adam), r"this optimizer needs a learning_rate"),
        (lambda: ts.Student(mlp, optimizer=optax.adam(0.1), learning_rate=0.1), r"has a learning rate of its own"),
        (lambda: ts.Student(mlp, optimizer=optax.adam(0.1), temperature=0.1), r"temperature needs the step size"),
        (lambda: ts.Student(mlp, learning_rate=-0.1), r"Student: learning_rate must be finite and at least 0, got -0\.1"),
        (lambda: ts.Student(mlp, learning_rate=0.1, epochs=2), r"epochs counts passes of mini-batches"),
        (lambda: ts.Student(mlp, learning_rate=0.1, validation=1.5), r"validation is a share of the rows, in \(0, 1\)"),
        (lambda: ts.Student(mlp, learning_rate=0.1).fit(jr.key(0), CLASSES), r"y holds class labels"),
        (
            lambda: ts.Student(linear(2), ts.losses.cross_entropy, learning_rate=0.1).fit(jr.key(0), CLASSES),
            r"for the classes 0 to 1, but y holds labels from 0 to 2",
        ),
        (
            lambda: ts.Student(linear(2), learning_rate=0.1).fit(jr.key(0), NUMBERS),
            r"outputs of shape \(2,\) for each point, but responses y of shape \(\)",
        ),
        (
            lambda: ts.Student(mlp, learning_rate=0.1, batch_size=61).fit(jr.key(0), NUMBERS),
            r"batch_size=61 is more than the n=60 samples",
        ),
        (
            lambda: ts.Student(mlp, learning_rate=0.1).fit(jr.key(0), ts.GaussianMixture(X[:2]).draw(jr.key(1))),
            r"a stream needs batch_size and steps",
        ),
        (lambda: ts.Dataset(x=X, y=Y, weight=-jnp.ones(N)), r"60 value\(s\) that are negative or not finite, .* index \(0,\)"),
        (lambda: ts.Dataset(x=X, y=Y, weight=jnp.zeros(N)), r"all sample weights are 0"),
        (lambda: ts.Dataset(x=X, y=Y, weight=jnp.ones(N - 1)), r"one number for each row, shape \(60,\), got \(59,\)"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()
