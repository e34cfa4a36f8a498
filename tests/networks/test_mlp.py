"""Fully connected networks: the function compared with NumPy, the random draw, widths by a mask, and muP."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import tsjax as ts

KINDS = ("ntk", "standard", "mup")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [None, 3])
def test_the_function_is_its_formula(key, kind, outputs):
    network = ts.MLP((7, 6), outputs, "tanh", kind, weight_std=1.3, bias_std=0.4).init(key, 5)
    x = jr.normal(jr.fold_in(key, 1), (5,))
    h = np.asarray(x)
    for index, layer in enumerate(network.layers):
        fan_in, neurons = len(h), layer.weight.shape[0]
        weight, bias = {
            "ntk": (1.3 / fan_in**0.5, 0.4),
            "standard": (1.0, 1.0),
            "mup": ((neurons**0.5, 1.0, fan_in**-0.5)[index], (neurons**0.5, neurons**0.5, 1.0)[index]),
        }[kind]
        h = weight * np.asarray(layer.weight) @ h + bias * np.asarray(layer.bias)
        h = np.tanh(h) if index < 2 else h
    np.testing.assert_allclose(network(x), h[0] if outputs is None else h, rtol=1e-12)
    assert network(x).shape == (() if outputs is None else (3,))
    # A point of several axes is a row of numbers.
    image = ts.MLP((7, 6), outputs, "tanh", kind, weight_std=1.3, bias_std=0.4).init(key, (1, 5))
    np.testing.assert_array_equal(image(x[None]), network(x))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn(key, kind):
    """Networks of all parameterisations have one law at the start, except for the last layer of muP, which is smaller by
    sqrt(width)."""
    n, d = 300, 40
    network = ts.MLP((n, n), n, "relu", kind, weight_std=1.5, bias_std=0.5).init(key, d)
    effective = {
        "ntk": [(1.5 / d**0.5, 0.5), (1.5 / n**0.5, 0.5), (1.5 / n**0.5, 0.5)],
        "standard": [(1.5 / d**0.5, 0.5), (1.5 / n**0.5, 0.5), (1.5 / n**0.5, 0.5)],
        "mup": [(1.5 / d**0.5, 0.5), (1.5 / n**0.5, 0.5), (1.5 / n, 0.5)],
    }[kind]
    leaves = {"ntk": (1.0, 1.0), "standard": (1.5 / n**0.5, 0.5), "mup": (1.5 / n**0.5, 0.5 / n**0.5)}[kind]
    for layer, (weight, bias) in zip(network.layers, effective, strict=True):
        product = layer.scaled_weight()
        # Of N normal numbers the standard deviation is known to 1 / sqrt(2 N).
        np.testing.assert_allclose(np.std(product), weight, rtol=4.5 / (2 * product.size) ** 0.5)
        np.testing.assert_allclose(
            np.std(layer.add_bias(jnp.zeros(layer.weight.shape[0]))), bias, rtol=4.5 / (2 * n) ** 0.5
        )
    np.testing.assert_allclose(np.std(network.layers[1].weight), leaves[0], rtol=0.02)
    np.testing.assert_allclose(np.std(network.layers[1].bias), leaves[1], rtol=0.2)


def test_only_weights_and_biases_are_trained(key):
    network = ts.MLP((4,), bias_std=0.3, active=[3]).init(key, 2)
    trained = jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array))
    assert [leaf.shape for leaf in trained] == [(4, 2), (4,), (1, 4), (1,)]
    assert len(jax.tree.leaves(eqx.filter(ts.MLP((4,)).init(key, 2), eqx.is_inexact_array))) == 2
    # An array may have any value, so there are biases.
    assert (
        len(jax.tree.leaves(eqx.filter(ts.MLP((4,), bias_std=jnp.zeros(())).init(key, 2), eqx.is_inexact_array))) == 4
    )


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ntk", "standard")), "mup"])
def test_a_masked_network_is_the_narrow_one(key, kind):
    """One program for all widths is compared with a program for each width, in values and gradients, which are 0 for neurons
    that do not exist."""
    counts = np.array([[16, 20], [5, 1], [32, 24]])
    x = jr.normal(jr.fold_in(key, 1), (4, 5))
    wide = ts.MLP((32, 24), 2, "gelu", kind, weight_std=1.2, bias_std=0.5)

    def value_and_gradient(network):
        return eqx.filter_value_and_grad(lambda net: jnp.sum(jax.vmap(net)(x) ** 2))(network)

    @jax.jit
    @jax.vmap
    def masked(active):
        mlp = eqx.tree_at(lambda mlp: mlp.active, wide, active, is_leaf=lambda leaf: leaf is None)
        network = mlp.init(key, 5)
        return network, jax.vmap(network)(x), value_and_gradient(network)[1]

    @eqx.filter_jit
    def alone(widths):
        network = ts.MLP(widths, 2, "gelu", kind, weight_std=1.2, bias_std=0.5).init(key, 5)
        return network, jax.vmap(network)(x), value_and_gradient(network)[1]

    networks, values, gradients = masked(jnp.asarray(counts))
    for i, widths in enumerate(counts):
        narrow, value, gradient = alone(tuple(map(int, widths)))
        np.testing.assert_allclose(values[i], value, rtol=1e-11)
        for j, layer in enumerate(narrow.layers):
            n, m = layer.weight.shape
            for mine, theirs in ((networks, narrow), (gradients, gradient)):
                weight, bias = mine.layers[j].weight[i], mine.layers[j].bias[i]
                np.testing.assert_allclose(weight[:n, :m], theirs.layers[j].weight, rtol=1e-10, atol=1e-13)
                np.testing.assert_allclose(bias[:n], theirs.layers[j].bias, rtol=1e-10, atol=1e-13)
                assert not np.any(weight[n:]) and not np.any(weight[:, m:]) and not np.any(bias[n:])


@pytest.mark.slow
def test_deviations_are_mapped_over(key):
    """One program draws networks with different deviations, each as it is on its own, in the dtype asked for."""
    stds = jnp.array([0.5, 2.0])
    x = jr.normal(key, (5,))
    mlp = ts.MLP((6,), weight_std=stds, bias_std=0.1 * stds)
    values = jax.vmap(lambda m: m.init(key, 5)(x))(mlp)
    for value, std in zip(values, (0.5, 2.0), strict=True):
        np.testing.assert_allclose(value, ts.MLP((6,), weight_std=std, bias_std=0.1 * std).init(key, 5)(x), rtol=1e-12)
    single = ts.MLP((6,), bias_std=0.1).init(key, 5, jnp.float32)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(single)} == {"float32", "int64"}
    assert single(x.astype(jnp.float32)).dtype == jnp.float32


def test_activations_by_name_by_object_and_as_functions(key):
    x = jr.normal(key, (5,))
    value = lambda activation: float(ts.MLP((6, 6), None, activation).init(key, 5)(x))
    assert value("relu") == value(ts.activations.relu) == value(jax.nn.relu) == value(lambda z: jnp.maximum(z, 0.0))
    assert value("erf") == value(ts.activations.erf) and value("quadratic") == value(ts.activations.quadratic)
    assert abs(value("leaky_relu") - value(ts.activations.leaky_relu(0.01))) < 1e-15
    assert value("tanh") == value(jnp.tanh)


# muP: what the first step of gradient descent does to a network of each width.


def _first_step(kind, width, key, optimizer):
    """Root mean squares on four points: of the values at the start, and of the changes of the last hidden layer and of the
    values by one step with learning rate 0.2."""
    d = 8
    mlp = ts.MLP((width, width), 1, "tanh", kind, weight_std=1.0, bias_std=0.3)
    x, y = jr.normal(jr.key(100), (4, d)), jnp.array([[1.0], [-1.0], [1.0], [0.5]])

    def hidden(network, point):
        h = point
        for layer in network.layers[:-1]:
            h = jnp.tanh(layer.add_bias(layer.scaled_weight() @ h))
        return h

    def one(key):
        start = mlp.init(key, d)
        loss = lambda net: 0.5 * jnp.mean((jax.vmap(net)(x) - y) ** 2)
        gradient = eqx.filter_grad(loss)(start)
        step = {"sgd": lambda g: 0.2 * g, "adam": lambda g: 0.02 * jnp.sign(g)}[optimizer]
        rates = mlp.learning_rates(d, optimizer)
        end = eqx.apply_updates(start, jax.tree.map(lambda g, rate: -rate * step(g), gradient, rates))
        moved = jax.vmap(lambda point: hidden(end, point) - hidden(start, point))(x)
        values = jax.vmap(start)(x)
        return jnp.mean(values**2), jnp.mean(moved**2), jnp.mean((jax.vmap(end)(x) - values) ** 2)

    return [float(jnp.mean(value)) ** 0.5 for value in jax.jit(jax.vmap(one))(jr.split(key, 48))]


def _slopes(kind, key, optimizer="sgd"):
    widths = np.array([32, 256])
    sizes = np.array([_first_step(kind, int(width), jr.fold_in(key, int(width)), optimizer) for width in widths])
    return np.polyfit(np.log(widths), np.log(sizes), 1)[0]


@pytest.mark.slow
def test_mup_moves_features_at_every_width(key):
    """In muP features move by O(1) (Yang & Hu 2021, table 1), and in the NTK parameterisation by O(1 / sqrt(width)). In the
    standard parameterisation a learning rate of O(1) makes the values explode."""
    values, features, outputs = _slopes("mup", key)
    # Values at the start keep their bias, which does not depend on the width: see the next test.
    assert abs(features) < 0.15 and abs(outputs) < 0.2
    _, features, outputs = _slopes("ntk", key)
    assert -0.65 < features < -0.35 and abs(outputs) < 0.15
    assert _slopes("standard", key)[2] > 0.6


@pytest.mark.slow
def test_mup_for_adam(key):
    """Steps are signs of gradients, as the first steps of Adam are, times the learning rates of the table."""
    _, features, outputs = _slopes("mup", key, "adam")
    assert abs(features) < 0.15 and abs(outputs) < 0.2
    # Without them features move the more the wider they are.
    assert _slopes("standard", key, "adam")[1] > 0.3


def test_values_of_mup_shrink_with_the_width(key):
    x = jr.normal(key, (5,))

    @jax.jit
    def sizes(keys):
        size = lambda kind, width: jnp.std(
            jax.vmap(lambda k: ts.MLP((width,), parameterisation=kind).init(k, 5)(x))(keys)
        )
        return size("mup", 16), size("mup", 144), size("standard", 16)

    narrow, wide, standard = sizes(jr.split(key, 1500))
    np.testing.assert_allclose(narrow / wide, 3.0, rtol=0.15)
    np.testing.assert_allclose(narrow * 4.0, standard, rtol=1e-6)


@pytest.mark.slow
def test_learning_rates():
    mlp = ts.MLP((64, 16), 3, parameterisation="mup", bias_std=0.1)
    network = mlp.init(jr.key(0), 5)
    trained = eqx.filter(network, eqx.is_inexact_array)
    assert all(float(leaf) == 1.0 for leaf in jax.tree.leaves(mlp.learning_rates(5)))
    rates = mlp.learning_rates(5, "adam")
    found = [(float(layer.weight), float(layer.bias)) for layer in rates.layers]
    np.testing.assert_allclose(found, [(1 / 8, 1 / 8), (1 / 64, 1 / 4), (1 / 4, 1.0)])
    # By the neurons that are active.
    narrow = ts.MLP((64, 64), parameterisation="mup", active=[16, 4]).learning_rates(5, "adam")
    np.testing.assert_allclose([float(layer.weight) for layer in narrow.layers], [1 / 4, 1 / 16, 1 / 2])
    # They fit the trained leaves, as an optax transformation.
    scaled = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates))
    optimizer = optax.chain(optax.adam(0.1), scaled)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, trained), optimizer.init(trained))
    np.testing.assert_allclose(updates.layers[1].weight, -0.1 / 64, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ts.MLP(64), r"widths has one entry for each hidden layer, such as \(64,\)"),
        (lambda: ts.MLP((8, 0)), r"MLP: widths must be whole numbers >= 1, got 0"),
        (lambda: ts.MLP((8,), 0), r"MLP: outputs must be whole numbers >= 1, got 0"),
        (lambda: ts.MLP((8,), parameterisation="xyz"), r"parameterisation is 'ntk', 'standard' or 'mup', got 'xyz'"),
        (lambda: ts.MLP((8,), activation="rely"), r"no activation is called 'rely'; there are relu, "),
        (lambda: ts.MLP((8,), weight_std=0.0), r"MLP: weight_std must be finite and > 0, got 0\.0"),
        (lambda: ts.MLP((8,), bias_std=-1.0), r"MLP: bias_std must be finite and >= 0, got -1\.0"),
        (lambda: ts.MLP((8,), bias_std=float("nan")), r"bias_std must be finite"),
        (lambda: ts.MLP((8,), active=[9]), r"active must lie between 1 and widths=\(8,\), got \[9\]"),
        (lambda: ts.MLP((8,), active=[3, 3]), r"of each of the 1 hidden layers, integers \(1,\); got int64 \(2,\)"),
        (lambda: ts.MLP((8,), active=[3.0]), r"got float64 \(1,\)"),
        (
            lambda: ts.MLP((8,), active=[[3], [4]]).init(jr.key(0), 2),
            r"active has shape \(2, 1\): map over its first axis",
        ),
        (lambda: ts.MLP((8,)).init(jr.key(0), 0), r"MLP: point must be whole numbers >= 1, got 0"),
        (lambda: ts.MLP((8,)).init(jr.key(0), ()), r"a point has at least one axis"),
        (lambda: ts.MLP((8,)).init(jr.key(0), 2)(jnp.ones((5, 2))), r"one point x of shape \(2,\), got \(5, 2\)"),
        (lambda: ts.MLP((8,)).learning_rates(2, "lion"), r"known for 'sgd' and 'adam', got optimizer='lion'"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
