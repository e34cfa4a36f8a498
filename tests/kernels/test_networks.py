"""The exact kernels of `kernels.of` are compared with networks drawn from the same description."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts
from tsjax.kernels import ArcCosineNNGP, ArcCosineNTK, EmpiricalNTK, neural_tangents, nngp, ntk, of


@pytest.fixture
def points(key):
    return jr.normal(jr.fold_in(key, 1), (4, 3)), jr.normal(jr.fold_in(key, 2), (3, 3))


def _empirical(mlp, x, point=3):
    return jax.jit(lambda key: EmpiricalNTK(lambda net, x: net(x), mlp.init(key, point))(x))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_wide_networks_tend_to_the_kernel(key, points, activation):
    """The root mean square distance over seeds falls as 1 / sqrt(width)."""
    x = points[0]
    exact = of(ts.MLP((1, 1), activation=activation, bias_std=0.4), "ntk")(x)
    widths = np.array([16, 64, 256])

    def error(width):
        empirical = _empirical(ts.MLP((width, width), activation=activation, bias_std=0.4), x)
        squares = jax.lax.map(lambda k: jnp.sum((empirical(k) - exact) ** 2), jr.split(jr.fold_in(key, width), 60))
        return float(jnp.mean(squares)) ** 0.5

    slope = np.polyfit(np.log(widths), np.log([error(int(width)) for width in widths]), 1)[0]
    assert -0.65 < slope < -0.4


@pytest.mark.parametrize(
    ("kind", "activation"),
    [("ntk", "erf"), *(pytest.param("standard", name, marks=pytest.mark.slow) for name in ("relu", "sin"))],
)
def test_one_hidden_layer_has_its_kernels_in_the_mean(key, points, kind, activation):
    """At every width, the mean over networks is the exact tangent kernel (in the standard parameterisation that of the
    network's own width) and the exact covariance."""
    x = points[0]
    mlp = ts.MLP((7,), None, activation, kind, weight_std=1.3, bias_std=0.6)
    draws = 4000

    def one(key):
        network = mlp.init(key, 3)
        values = jax.vmap(network)(x)
        return EmpiricalNTK(lambda net, point: net(point), network)(x), jnp.outer(values, values)

    samples = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=500))(jr.split(key, draws))
    for get, sample in zip(("ntk", "nngp"), samples, strict=True):
        error = np.std(sample, axis=0) / draws**0.5
        assert (np.abs(np.mean(sample, axis=0) - of(mlp, get)(x)) < 4.5 * error).all(), get


@pytest.mark.slow
def test_deep_standard_networks_tend_to_the_kernel_at_their_own_widths(key, points):
    """The mean over seeds agrees up to 1 / width, with widths that differ between layers."""
    x = points[0]
    mlp = ts.MLP((300, 200), None, "relu", "standard", bias_std=0.4)
    empirical = _empirical(mlp, x)
    mean = np.mean([empirical(jr.fold_in(key, i)) for i in range(40)], axis=0)
    np.testing.assert_allclose(mean, of(mlp, "ntk")(x), rtol=0.05)
    # The covariance of a deep network: that of the same layers in the NTK parameterisation.
    same = ts.MLP((5, 5), None, "relu", "ntk", bias_std=0.4)
    np.testing.assert_allclose(of(mlp, "nngp")(x), of(same, "nngp")(x), rtol=1e-12)
    # The neurons that are active count.
    masked = ts.MLP((400, 400), None, "relu", "standard", bias_std=0.4, active=[300, 200])
    np.testing.assert_array_equal(of(masked, "ntk")(x), of(mlp, "ntk")(x))


@pytest.mark.parametrize(("get", "ours"), [("ntk", ntk), ("nngp", nngp)])
def test_ntk_and_nngp_are_those_of_an_mlp(points, get, ours):
    """They are the kernels of an MLP on inputs times sqrt(2 / d), with a last layer of variance 2 and a bias."""
    x, z = points
    scaled = [(2.0 / 3.0) ** 0.5 * p for p in points]
    for depth in (1, 3):
        kernel = of(ts.MLP((1,) * depth, bias_std=0.7), get)
        np.testing.assert_allclose(kernel(x, z), 2.0 * ours(depth, 0.7)(*scaled) + 0.49, rtol=1e-12)
        np.testing.assert_allclose(kernel.diagonal(x), 2.0 * ours(depth, 0.7).diagonal(scaled[0]) + 0.49, rtol=1e-12)


# Networks whose diagonal is known, with the settings that closed forms have or have not.
NETWORKS = {
    "no_bias": ts.MLP((1, 1, 1), weight_std=1.1),
    "norms_kept": ts.MLP((1, 1), bias_std=0.7),
    "one_layer": ts.MLP((1,), weight_std=0.9, bias_std=0.7),
    "general": ts.MLP((1, 1), weight_std=1.1, bias_std=0.7),
    "standard": ts.MLP((20, 30), parameterisation="standard", bias_std=0.7),
    "leaky": ts.MLP((1, 1), activation=ts.activations.leaky_relu(0.3), bias_std=0.2),
    "abs": ts.MLP((1, 1), activation="abs", bias_std=0.2),
    "linear": ts.MLP((1, 1), activation="identity", bias_std=0.2),
    "no_hidden_layer": ts.MLP((), bias_std=0.2),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("get", ["ntk", "nngp"])
def test_kernels_and_their_diagonal(points, name, get):
    x, z = points
    kernel = of(NETWORKS[name], get)
    gram = kernel(x)
    np.testing.assert_allclose(kernel.diagonal(x), jnp.diagonal(kernel(x, x + 0.0)), rtol=1e-6)
    np.testing.assert_array_equal(jnp.diagonal(gram), kernel.diagonal(x))
    np.testing.assert_allclose(gram, gram.T, rtol=1e-12)
    assert jnp.linalg.eigvalsh(gram)[0] > -1e-7 * jnp.trace(gram)
    np.testing.assert_allclose(kernel.tile(x, z), kernel(x, z), rtol=1e-10)
    rotation = jr.orthogonal(jr.key(3), 3)
    assert kernel.rotation_invariant and kernel.point_ndim is None
    np.testing.assert_allclose(kernel(x @ rotation, z @ rotation), kernel(x, z), rtol=1e-9)
    # Images as rows of numbers; float32 stays.
    np.testing.assert_array_equal(kernel(x.reshape(4, 1, 3), z.reshape(3, 1, 3)), kernel(x, z))
    single = kernel(x.astype(jnp.float32), z.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, kernel(x, z), rtol=1e-4)


@pytest.mark.parametrize("name", ["no_bias", "norms_kept", "one_layer"])
@pytest.mark.parametrize("get", ["ntk", "nngp"])
def test_without_the_library_relu_networks_are_closed_forms(points, name, get, monkeypatch):
    x, z = points
    kernel = of(NETWORKS[name], get)
    theirs = kernel(x, z)
    monkeypatch.setattr(neural_tangents, "source", lambda: "closed form")
    monkeypatch.setattr(neural_tangents, "load", lambda: pytest.fail("the library was asked for"))
    np.testing.assert_allclose(kernel(x, z), theirs, rtol=1e-12)
    np.testing.assert_allclose(kernel(x), (kernel(x) + kernel(x).T) / 2, rtol=1e-13)
    np.testing.assert_allclose(jnp.diagonal(kernel(x)), kernel.diagonal(x), rtol=1e-12)
    assert 0.0 < float(kernel.error(x)) < 1e-12


def test_without_the_library_others_say_what_to_install(points, monkeypatch):
    monkeypatch.setattr(neural_tangents, "version_of", lambda name: None)
    monkeypatch.setattr(neural_tangents, "source", lambda: "closed form")
    neural_tangents.load.cache_clear()
    for mlp in (ts.MLP((9,), activation="sin", weight_std=1.7), ts.MLP((9,), parameterisation="standard")):
        with pytest.raises(ImportError, match=r"not installed.*`pip install --no-deps neural-tangents==0\.6\.5"):
            of(mlp)(points[0])
    neural_tangents.load.cache_clear()


@pytest.mark.parametrize("name", ["norms_kept", "general", "standard"])
def test_the_error_is_known(name):
    """Pairs of points are close to each other, and the angles are the same before and after a rotation. `test_error` has this
    test for `ntk`."""
    rng = np.random.default_rng(5)
    for size in (1.0, 1e-2, 1e-6):
        x = jnp.asarray(rng.normal(size=3) + size * rng.normal(size=(12, 3)))
        kernel = of(NETWORKS[name], "ntk")
        # With 200 times the digits in the differences of points: the library sees its own arrays twice, once rotated.
        rotation = jr.orthogonal(jr.key(4), 3)
        difference = np.linalg.norm(kernel(x) - kernel(x @ rotation))
        assert difference < 2.0 * float(kernel.error(x))


def test_the_network_is_its_own_baseline(key, points):
    """Kernel ridge regression runs with the network's kernel, and with the sum of it and another kernel."""
    kernel = of(ts.MLP((64,)), "ntk")
    data = ts.Dataset(points[0], points[0][:, 0])
    for k in (kernel, kernel + ts.kernels.RBF()):
        fit = ts.KernelRidge(k, ridge=0.1).fit(key, data)
        alpha = np.linalg.solve(k(data.x) + 0.1 * np.eye(4), data.y)
        np.testing.assert_allclose(fit.predict(points[1]), k(points[1], data.x) @ alpha, rtol=1e-9)
    assert (kernel + ts.kernels.RBF()).point_ndim == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of(ts.MLP((8,)), "nkt"), r"has the kernels 'ntk' and 'nngp', got 'nkt'"),
        (lambda: of(ts.MLP((8,), parameterisation="mup")), r"muP learns features however wide it is"),
        (lambda: of(ts.MLP((8,), activation="tanh")), r"activation tanh has no closed form.*it has one for relu, "),
        (lambda: of(ts.MLP((8,), activation=jnp.cosh)), r"activation cosh has no closed form"),
        (lambda: of(ArcCosineNTK()), r"made from its description, such as ts\.MLP.*got ArcCosineNTK"),
        (lambda: of(ts.MLP), r"made from its description"),
        (lambda: jax.jit(lambda s: of(ts.MLP((8,), weight_std=s))(jnp.eye(2)))(1.0), r"weight_std, which is not known"),
        (lambda: of(ts.MLP((8,), bias_std=jnp.ones(2))), r"that of one network, and bias_std has \(2,\) values"),
        (lambda: of(ts.MLP((8,)))(jnp.ones(3)), r"x1 \(n1, \*point\).*got \(3,\) and \(3,\)\. Use x\[None\]"),
        (lambda: of(ts.MLP((8,)))(jnp.ones((3, 2)), jnp.ones((3, 4))), r"got \(3, 2\) and \(3, 4\)"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_closed_forms_of_one_layer(points):
    """The reference is written by hand: Sigma_1 = s^2 <x, z> / d, and the kernels of the module docstring."""
    x, z = points
    s = 1.3
    mlp = ts.MLP((1,), weight_std=s)
    scale = s / 3.0**0.5
    np.testing.assert_allclose(of(mlp, "nngp")(x, z), s**2 * ArcCosineNNGP()(scale * x, scale * z), rtol=1e-12)
    np.testing.assert_allclose(of(mlp, "ntk")(x, z), s**2 * ArcCosineNTK()(scale * x, scale * z), rtol=1e-12)
    sine = ts.MLP((1,), activation="sin", weight_std=s)
    # E sin u sin v = exp(-(a + b) / 2) sinh c for a pair of variances a, b and covariance c.
    a, c, b = (scale**2 * v for v in (jnp.sum(x**2, 1)[:, None], x @ z.T, jnp.sum(z**2, 1)[None]))
    decay = jnp.exp(-(jnp.broadcast_to(a, c.shape) + jnp.broadcast_to(b, c.shape)) / 2)
    np.testing.assert_allclose(of(sine, "nngp")(x, z), s**2 * decay * jnp.sinh(c), rtol=1e-12)
    tangent = s**2 * decay * (jnp.sinh(c) + jnp.cosh(c) * c)
    np.testing.assert_allclose(of(sine, "ntk")(x, z), tangent, rtol=1e-12)
