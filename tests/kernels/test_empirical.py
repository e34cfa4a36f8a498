"""Tangent kernels of finite networks: compared with neural-tangents, computed in blocks, and how far they move."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts
from tsjax.kernels import EmpiricalNTK, change, neural_tangents, of


@pytest.fixture
def points(key):
    return jr.normal(jr.fold_in(key, 1), (7, 3)), jr.normal(jr.fold_in(key, 2), (5, 3))


@pytest.fixture
def network(key):
    return ts.MLP((6, 4), 3, "gelu", bias_std=0.5).init(key, 3)


@pytest.mark.slow
def test_several_outputs_are_those_of_neural_tangents(points, network):
    """This holds for all pairs of outputs, and for the mean over outputs, their default `trace_axes`."""
    nt = neural_tangents.load()
    moving, fixed = eqx.partition(network, eqx.is_inexact_array)
    apply = lambda moving, x: jax.vmap(eqx.combine(moving, fixed))(x)
    kernel = EmpiricalNTK(network)
    x, z = points
    mean = jax.jit(nt.empirical_ntk_fn(apply))(x, z, moving)
    np.testing.assert_allclose(kernel(x, z), mean, rtol=1e-10)
    full = jax.jit(nt.empirical_ntk_fn(apply, trace_axes=()))(x, z, moving)
    np.testing.assert_allclose(kernel.full(x, z), full, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(kernel(x, z), np.einsum("ijaa->ij", full) / 3, rtol=1e-10)


@pytest.mark.slow
def test_the_same_kernel_by_features_by_its_diagonal_and_of_itself(points, network):
    x, z = points
    kernel = EmpiricalNTK(network)
    phi = kernel.features(x)
    count = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))
    assert phi.shape == (7, 3 * count)
    np.testing.assert_allclose(phi @ phi.T, kernel(x), rtol=1e-12)
    np.testing.assert_allclose(kernel.diagonal(x), jnp.diagonal(kernel(x)), rtol=1e-12)
    np.testing.assert_allclose(kernel(x, x + 0.0), kernel(x), rtol=1e-12)
    # A function of parameters is the same network.
    moving, fixed = eqx.partition(network, eqx.is_inexact_array)
    again = EmpiricalNTK(lambda moving, point: eqx.combine(moving, fixed)(point), moving)
    np.testing.assert_allclose(again(x, z), kernel(x, z), rtol=1e-12)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, network)
    assert EmpiricalNTK(single)(x.astype(jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("block", [pytest.param(1, marks=pytest.mark.slow), 2, 4])
def test_blocks_are_one_shot(points, network, block):
    x, z = points
    blocks, whole = EmpiricalNTK(network, block=block), EmpiricalNTK(network)
    np.testing.assert_allclose(blocks(x, z), whole(x, z), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(blocks(x), whole(x), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(blocks.diagonal(x), whole.diagonal(x), rtol=1e-13)
    if block == 2:
        np.testing.assert_allclose(blocks.full(x, z), whole.full(x, z), rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_memory_is_that_of_blocks(key, monkeypatch):
    """Without `block`, fewer points have their gradients computed at once if there are many parameters."""
    network = ts.MLP((50,)).init(key, 20)  # 1050 parameters
    x = jr.normal(key, (64, 20))

    def memory():
        program = jax.jit(lambda x: EmpiricalNTK(network)(x, x + 1.0)).lower(x).compile()
        analysis = program.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    whole = memory()
    monkeypatch.setattr("tsjax.kernels.empirical._NUMBERS", 4 * 1050)
    # Compiled for these blocks, not taken from the cache of programs for those.
    jax.clear_caches()
    assert memory() < 0.3 * whole


def test_under_jit_vmap_and_grad(points, key):
    x, z = points
    mlp = ts.MLP((5,), 2, "tanh")
    many = jax.jit(jax.vmap(lambda k: EmpiricalNTK(mlp.init(k, 3))(x, z)))(jr.split(key, 3))
    one = EmpiricalNTK(mlp.init(jr.split(key, 3)[1], 3))(x, z)
    np.testing.assert_allclose(many[1], one, rtol=1e-12)
    network = mlp.init(key, 3)
    # The share of the last layer in the kernel does not depend on its scale c, and the other share is quadratic in c.
    scaled = lambda c: EmpiricalNTK(
        eqx.tree_at(lambda net: net.layers[1].weight, network, c * network.layers[1].weight)
    )
    values = [scaled(c)(x, z)[0, 0] for c in (0.0, 1.0, 2.0)]
    np.testing.assert_allclose(values[2] - values[1], 3 * (values[1] - values[0]), rtol=1e-10)
    slope = jax.jit(jax.grad(lambda c: scaled(c)(x, z)[0, 0]))(1.0)
    np.testing.assert_allclose(slope, 2 * (values[1] - values[0]), rtol=1e-10)


def test_change_by_hand(points, network, key):
    x = points[0]
    after = jax.tree.map(lambda leaf: leaf + 0.1 if eqx.is_inexact_array(leaf) else leaf, network)

    def kernel(net):
        moving, fixed = eqx.partition(net, eqx.is_inexact_array)
        flat, unravel = jax.flatten_util.ravel_pytree(moving)
        jacobian = jax.jacfwd(lambda p: jax.vmap(eqx.combine(unravel(p), fixed))(x))(flat)
        return np.einsum("iap,jap->ij", jacobian, jacobian)

    first, second = kernel(network), kernel(after)
    truth = np.sqrt(np.sum((second - first) ** 2) / np.sum(first**2))
    np.testing.assert_allclose(change(network, after, x), truth, rtol=1e-10)
    assert float(change(network, network, x)) == 0.0
    np.testing.assert_allclose(eqx.filter_jit(change)(network, after, x), truth, rtol=1e-10)
    # Kernels too.
    np.testing.assert_allclose(change(EmpiricalNTK(network), EmpiricalNTK(after), x), truth, rtol=1e-12)
    mapped = jax.jit(jax.vmap(lambda c: change(network, jax.tree.map(_scaled(c), network), x)))(jnp.array([1.0, 1.5]))
    assert float(mapped[0]) < 1e-12 < float(mapped[1])


def test_change_of_all_pairs_of_outputs(points, key):
    """The reference is finite differences of a network whose kernel differs between outputs; K is the matrix (n k, n k)."""
    x = points[0]
    before = ts.MLP((5,), 2, "tanh").init(key, 3)
    after = eqx.tree_at(lambda net: net.layers[1].weight, before, before.layers[1].weight * jnp.array([[2.0], [1.0]]))

    def kernel(net):
        moving, fixed = eqx.partition(net, eqx.is_inexact_array)
        flat, unravel = jax.flatten_util.ravel_pytree(moving)
        value = jax.jit(lambda p: jax.vmap(eqx.combine(unravel(p), fixed))(x).reshape(-1))
        step = 1e-5 * np.eye(flat.size)
        jacobian = np.stack([(value(flat + e) - value(flat - e)) / 2e-5 for e in step], axis=1)
        return jacobian @ jacobian.T

    first, second = kernel(before), kernel(after)
    truth = np.linalg.norm(second - first) / np.linalg.norm(first)
    np.testing.assert_allclose(change(before, after, x, full=True), truth, rtol=1e-7)
    np.testing.assert_allclose(change(EmpiricalNTK(before), EmpiricalNTK(after), x, full=True), truth, rtol=1e-7)
    assert abs(float(change(before, after, x)) / truth - 1) > 1e-3


def _scaled(c):
    return lambda leaf: c * leaf if eqx.is_inexact_array(leaf) else leaf


@pytest.mark.slow
def test_change_falls_with_the_width_but_not_in_mup(key, points):
    """One step of gradient descent changes the kernel by about 1 / width in the NTK parameterisation, and by a constant in
    muP."""
    x = points[0]
    y = jnp.sin(x[:, 0])

    def mean(kind, width):
        def one(key):
            net = ts.MLP((width,), None, "tanh", kind, weight_std=1.0).init(key, 3)
            gradient = eqx.filter_grad(lambda net: jnp.mean((jax.vmap(net)(x) - y) ** 2))(net)
            return change(net, eqx.apply_updates(net, jax.tree.map(lambda g: -0.3 * g, gradient)), x)

        return float(jnp.mean(jax.jit(jax.vmap(one))(jr.split(key, 12))))

    assert mean("ntk", 32) / mean("ntk", 512) > 2.5
    assert 0.5 < mean("mup", 32) / mean("mup", 512) < 2.0


@pytest.mark.slow
def test_distance_from_the_infinite_network(key, points):
    x = points[0]
    distance = [
        float(change(of(ts.MLP((9,)), "ntk"), EmpiricalNTK(ts.MLP((width,)).init(key, 3)), x)) for width in (30, 3000)
    ]
    assert distance[1] < 0.1 < distance[0] < 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net, x: EmpiricalNTK(3.0), r"a network that maps one point to its output, or a function.*got float"),
        (lambda net, x: EmpiricalNTK(lambda x: x), r"no.* floating-point arrays|there is none among the parameters"),
        (lambda net, x: EmpiricalNTK(net, block=0), r"at least one point, got block=0"),
        (lambda net, x: EmpiricalNTK(lambda p, x: p, jnp.ones((2, 2)))(x), r"this one gives \(2, 2\)"),
        (lambda net, x: EmpiricalNTK(net)(x[0]), r"a kernel takes points as rows"),
        (lambda net, x: change(net, ts.MLP((5,)).init(jr.key(0), 3), x), r"two networks of one structure"),
        (
            lambda net, x: change(of(ts.MLP((5,)), "ntk"), EmpiricalNTK(net), x, full=True),
            r"all pairs of outputs, which networks and EmpiricalNTK have",
        ),
        (
            lambda net, x: change(net, EmpiricalNTK(net), x),
            r"two networks or two kernels, got MLPNetwork and EmpiricalNTK",
        ),
    ],
)
def test_errors(network, points, make, message):
    with pytest.raises(ValueError, match=message):
        make(network, points[0])
