"""Convolutional networks: the function compared with loops, the shapes, and the exact kernels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts
from tsjax.kernels import EmpiricalNTK, of
from tsjax.kernels import stax as stax_module

POINT = (5, 4, 2)


def _by_hand(network, x, pads, stride, kind, s, t, pooling):
    """The network by loops over positions, with each direction padded explicitly."""
    h = np.asarray(x)
    count = len(network.layers)
    for index, layer in enumerate(network.layers):
        weight, bias = np.asarray(layer.weight), np.asarray(layer.bias)
        n, fan_in = weight.shape[0], weight[0].size
        place = "last" if index == count - 1 else "first" if index == 0 else "hidden"
        c_w, c_b = {
            "ntk": (s / fan_in**0.5, t),
            "standard": (1.0, 1.0),
            "mup": {"first": (n**0.5, n**0.5), "hidden": (1.0, n**0.5), "last": (fan_in**-0.5, 1.0)}[place],
        }[kind]
        if place == "last":
            h = h.mean(axis=(0, 1)) if pooling == "average" else h.ravel()
            return c_w * weight @ h + c_b * bias
        padded = pads(h)
        sides = weight.shape[1:3]
        rows, columns = ((p - k) // q + 1 for p, k, q in zip(padded.shape[:2], sides, stride, strict=True))
        z = np.empty((rows, columns, n))
        for i in range(rows):
            for j in range(columns):
                patch = padded[i * stride[0] : i * stride[0] + sides[0], j * stride[1] : j * stride[1] + sides[1]]
                z[i, j] = [c_w * np.sum(weight[a] * patch) + c_b * bias[a] for a in range(n)]
        h = np.tanh(z)
    return h


PADS = {
    "SAME": lambda h: np.pad(h, ((1, 1), (0, 1), (0, 0))),
    "VALID": lambda h: h,
    "CIRCULAR": lambda h: np.pad(h, ((1, 1), (0, 1), (0, 0)), mode="wrap"),
}


@pytest.mark.parametrize(
    ("padding", "pooling", "kind"),
    [("SAME", "average", "ntk"), ("VALID", "flatten", "standard"), ("CIRCULAR", "average", "mup")],
)
def test_the_function_is_its_formula(key, padding, pooling, kind):
    cnn = ts.CNN((3, 4), (3, 2), 2, 1, padding, pooling, "tanh", kind, weight_std=1.3, bias_std=0.4)
    network, x = cnn.init(key, POINT), jr.normal(jr.fold_in(key, 1), POINT)
    truth = _by_hand(network, x, PADS[padding], (1, 1), kind, 1.3, 0.4, pooling)
    np.testing.assert_allclose(network(x), truth, rtol=1e-11)
    if padding == "CIRCULAR":
        np.testing.assert_allclose(network(jnp.roll(x, (2, 1), axis=(0, 1))), truth, rtol=1e-11)


@pytest.mark.slow
def test_strides_and_directions(key):
    cnn = ts.CNN((3,), (3, 2), None, (2, 1), "VALID", "flatten", "tanh", bias_std=0.4)
    network, x = cnn.init(key, POINT), jr.normal(jr.fold_in(key, 1), POINT)
    truth = _by_hand(network, x, PADS["VALID"], (2, 1), "ntk", 2**0.5, 0.4, "flatten")
    np.testing.assert_allclose(network(x), truth[0], rtol=1e-11)
    # A signal is an image with one row.
    signal = ts.CNN((3, 3), 3).init(key, (6, 2))
    image = ts.CNN((3, 3), (1, 3)).init(key, (1, 6, 2))
    x = jr.normal(key, (6, 2))
    np.testing.assert_allclose(signal(x), image(x[None]), rtol=1e-12)
    assert ts.CNN((3,), 2, 5).init(key, (3, 3, 3, 1))(jnp.ones((3, 3, 3, 1))).shape == (5,)
    single = ts.CNN((3,)).init(key, POINT, jnp.float32)
    assert single(jnp.ones(POINT, jnp.float32)).dtype == jnp.float32
    assert len(jax.tree.leaves(eqx.filter(single, eqx.is_inexact_array))) == 2


def test_what_is_drawn(key):
    network = ts.CNN((400, 200), 3, None, weight_std=1.5, bias_std=0.5, parameterisation="standard").init(
        key, (4, 4, 3)
    )
    for layer, fan_in in zip(network.layers, (27, 3600, 200), strict=True):
        np.testing.assert_allclose(np.std(layer.weight), 1.5 / fan_in**0.5, rtol=4.5 / (2 * layer.weight.size) ** 0.5)
    rates = ts.CNN((16, 25), parameterisation="mup", bias_std=0.1).learning_rates((4, 4, 3), "adam")
    found = [(float(layer.weight), float(layer.bias)) for layer in rates.layers]
    np.testing.assert_allclose(found, [(1 / 4, 1 / 4), (1 / 144, 1 / 5), (1 / 5, 1.0)])


@pytest.mark.parametrize(
    ("padding", "pooling", "kind"),
    [
        ("SAME", "average", "ntk"),
        pytest.param("VALID", "flatten", "standard", marks=pytest.mark.slow),
        pytest.param("CIRCULAR", "average", "standard", marks=pytest.mark.slow),
        pytest.param("SAME", "flatten", "ntk", marks=pytest.mark.slow),
    ],
)
def test_one_convolution_has_its_kernels_in_the_mean(key, padding, pooling, kind):
    """At every number of channels, the means over networks are the exact tangent kernel and the exact covariance of the
    values."""
    cnn = ts.CNN((6,), (3, 2), None, (2, 1), padding, pooling, "erf", kind, weight_std=1.3, bias_std=0.4)
    x = jr.normal(jr.fold_in(key, 1), (3, *POINT))
    draws = 3000

    def one(key):
        network = cnn.init(key, POINT)
        values = jax.vmap(network)(x)
        return EmpiricalNTK(network)(x), jnp.outer(values, values)

    samples = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=500))(jr.split(key, draws))
    for get, sample in zip(("ntk", "nngp"), samples, strict=True):
        kernel = of(cnn, get)
        error = np.std(sample, axis=0) / draws**0.5
        assert (np.abs(np.mean(sample, axis=0) - kernel(x)) < 4.5 * error).all(), get
        np.testing.assert_allclose(kernel.diagonal(x), jnp.diagonal(kernel(x)), rtol=1e-12)
        assert kernel(x.astype(jnp.float32)).dtype == jnp.float32 and not kernel.rotation_invariant


@pytest.mark.slow
def test_wide_networks_tend_to_the_kernel(key):
    """The root mean square distance over seeds falls as 1 / sqrt(channels)."""
    x = jr.normal(jr.fold_in(key, 1), (3, 4, 4, 2))
    exact = of(ts.CNN((1, 1), bias_std=0.4))(x)
    channels = np.array([8, 24, 72])

    def error(count):
        cnn = ts.CNN((count, count), bias_std=0.4)
        one = jax.jit(lambda k: jnp.sum((EmpiricalNTK(cnn.init(k, (4, 4, 2)))(x) - exact) ** 2))
        return float(np.mean([one(jr.fold_in(key, i)) for i in range(80)])) ** 0.5

    slope = np.polyfit(np.log(channels), np.log([error(int(count)) for count in channels]), 1)[0]
    assert -0.7 < slope < -0.35


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_kernels_in_blocks(key, monkeypatch, pooling):
    """Blocks of two rows and two columns, with a rest, are compared with the whole matrix at once."""
    kernel = of(ts.CNN((1,), pooling=pooling, activation="sin", bias_std=0.2))
    x, z = jr.normal(key, (5, 4, 3, 2)), jr.normal(jr.fold_in(key, 1), (3, 4, 3, 2))
    whole = kernel(x, z), kernel.diagonal(x)
    monkeypatch.setattr(stax_module, "_POSITIONS", 5 * (144 if pooling == "average" else 12))
    stax_module._stax.cache_clear()
    np.testing.assert_allclose(kernel(x, z), whole[0], rtol=1e-12)
    np.testing.assert_allclose(kernel.diagonal(x), whole[1], rtol=1e-12)
    stax_module._stax.cache_clear()


def test_kernels_of_images_add_up(key):
    x = jr.normal(key, (4, *POINT))
    cnn, mlp = of(ts.CNN((1,), bias_std=0.2)), of(ts.MLP((1,), bias_std=0.2))
    gram = (cnn + 0.5 * mlp)(x)
    np.testing.assert_allclose(gram, cnn(x) + 0.5 * mlp(x), rtol=1e-12)
    assert jnp.linalg.eigvalsh(gram)[0] > 0.0 and float(cnn.error(x)) < 1e-6 * float(jnp.trace(gram))
    # Equal points cost half of the digits, and the estimate says so.
    again = jnp.concatenate([x, x])
    difference = np.linalg.norm(cnn(again) - np.tile(cnn(x), (2, 2)))
    assert difference <= float(cnn.error(again))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ts.CNN(16), r"channels has one entry for each convolution, such as \(16, 16\); got 16"),
        (lambda: ts.CNN(()), r"channels has one entry for each convolution"),
        (lambda: ts.CNN((4,), 0), r"CNN: filter must be whole numbers >= 1, got 0"),
        (lambda: ts.CNN((4,), padding="same"), r"padding is 'SAME', 'VALID' or 'CIRCULAR', got 'same'"),
        (lambda: ts.CNN((4,), pooling="max"), r"pooling is 'average' or 'flatten', got 'max'"),
        (lambda: ts.CNN((4,), parameterisation="x"), r"CNN: parameterisation is"),
        (lambda: ts.CNN((4,)).init(jr.key(0), (5,)), r"one to three directions and an axis of channels.*got \(5,\)"),
        (
            lambda: ts.CNN((4,), (3, 3)).init(jr.key(0), (5, 2)),
            r"filter=\(3, 3\) is for 2 directions, the point \(5, 2\) has 1",
        ),
        (lambda: ts.CNN((4, 4), 3, padding="VALID").init(jr.key(0), (4, 4, 1)), r"do not fit into \(2, 2\) positions"),
        (lambda: ts.CNN((4,)).init(jr.key(0), POINT)(jnp.ones((3, *POINT))), r"one point x of shape \(5, 4, 2\)"),
        (lambda: of(ts.CNN((4,), parameterisation="mup")), r"muP learns features"),
        (lambda: of(ts.CNN((4,), activation="tanh")), r"activation tanh has no closed form"),
        (lambda: of(ts.CNN((4,)))(jnp.ones((3, 4))), r"points with positions and channels, x \(n, \.\.\., c\)"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
