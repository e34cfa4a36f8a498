import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts
from tsjax.kernels import RBF, ArcCosine, ArcCosineNNGP, ArcCosineNTK, Laplace, nngp, ntk

KERNELS = {
    "ntk": ntk(),
    "nngp": nngp(),
    "arccos0": ArcCosine(0),
    "arccos1": ArcCosine(1),
    "arccos_ntk3": ArcCosineNTK(depth=3),
    "rbf": RBF(0.7),
    "laplace": Laplace(2.0),
    "sum_product": 0.5 * RBF(1.3) * ntk() + Laplace(0.9) * 2.0,
}


@pytest.fixture(params=KERNELS)
def kernel(request):
    return KERNELS[request.param]


@pytest.fixture
def points(key):
    key_x, key_z = jr.split(key)
    return jr.normal(key_x, (12, 4)), jr.normal(key_z, (7, 4))


def test_shapes_symmetry_and_positivity(kernel, points):
    x, z = points
    both = jnp.concatenate([x, z, x[:2]])  # With duplicates, where kernels are singular.
    gram = kernel(both)
    assert gram.shape == (21, 21) and kernel(x, z).shape == (12, 7)
    np.testing.assert_allclose(gram, gram.T, atol=1e-12)
    # neural-tangents loses half of the digits at the duplicates.
    assert jnp.linalg.eigvalsh(gram)[0] > -1e-7 * jnp.trace(gram)
    np.testing.assert_allclose(kernel.diagonal(both), jnp.diagonal(gram), rtol=1e-12)
    np.testing.assert_allclose(kernel(x, z), gram[:12, 12:19], rtol=1e-12, atol=1e-13)


def test_jit_and_vmap_equal_eager(kernel, points):
    x, z = points
    eager = kernel(x, z)
    np.testing.assert_allclose(eqx.filter_jit(lambda k, a, b: k(a, b))(kernel, x, z), eager, rtol=1e-12, atol=1e-13)
    mapped = jax.jit(jax.vmap(lambda a, b: kernel(a, b)))(jnp.stack([x, 2.0 * x]), jnp.stack([z, z]))
    np.testing.assert_allclose(mapped[0], eager, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(mapped[1], kernel(2.0 * x, z), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(jax.vmap(lambda a: kernel(a))(x[None])[0], kernel(x), rtol=1e-12, atol=1e-13)


def test_float32_stays_float32(kernel, points):
    x, z = (p.astype(jnp.float32) for p in points)
    assert kernel(x, z).dtype == jnp.float32
    np.testing.assert_allclose(kernel(x, z), kernel(*points), rtol=1e-4, atol=1e-5)


def test_hyper_parameters_are_leaves(points):
    x, z = points
    scales = jnp.array([0.5, 2.0])
    for family in (RBF, Laplace):
        values = jax.vmap(lambda s, family=family: (s * family(s))(x, z))(scales)
        for s, value in zip(scales, values, strict=True):
            np.testing.assert_allclose(value, float(s) * family(float(s))(x, z), rtol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_neural_tangents_agrees_with_the_closed_form(points, depth):
    x, z = points
    np.testing.assert_allclose(ntk(depth)(x, z), ArcCosineNTK(depth)(x, z), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(nngp(depth)(x, z), ArcCosineNNGP(depth)(x, z), rtol=1e-12, atol=1e-12)
    # The diagonal too, since it is set; and for a copy within the library's loss of digits.
    np.testing.assert_allclose(ntk(depth)(x), ArcCosineNTK(depth)(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ntk(depth)(x, x + 0.0), ArcCosineNTK(depth)(x), atol=3e-7)


def test_closed_form_is_accurate_at_small_and_opposite_angles():
    x = jnp.array([[3.0, 0.0, 0.0]])
    angles = jnp.array([0.0, 1e-12, 1e-9, 1e-6, 1e-3, jnp.pi - 1e-7, jnp.pi])
    z = 2.0 * jnp.stack([jnp.cos(angles), jnp.sin(angles), 0.0 * angles], axis=1)
    np.testing.assert_allclose(ArcCosine(0)(x, z)[0], (jnp.pi - angles) / (2 * jnp.pi), rtol=0, atol=1e-15)
    h = (jnp.sin(angles) + (jnp.pi - angles) * jnp.cos(angles)) / (2 * jnp.pi)
    np.testing.assert_allclose(ArcCosine(1)(x, z)[0], 6.0 * h, rtol=0, atol=1e-14)
    np.testing.assert_allclose(ArcCosineNTK(3).diagonal(x), [18.0], rtol=1e-15)


def test_zero_vectors_are_harmless(kernel, points):
    x = points[0].at[3].set(0.0)
    assert bool(jnp.isfinite(kernel(x)).all())
    gradient = jax.jit(jax.grad(lambda a: kernel(a, x + 0.1).sum() + kernel.diagonal(a).sum()))(x)
    assert bool(jnp.isfinite(gradient).all())


def test_closed_forms_are_differentiable_at_the_diagonal(points):
    x = points[0][:1]
    for closed in (ArcCosineNTK(2), ArcCosineNNGP(2), Laplace(1.0)):
        assert bool(jnp.isfinite(jax.jit(jax.grad(lambda a, k=closed: k(a, x).sum()))(x)).all())


@pytest.mark.parametrize("depth", [1, 2])
def test_kernels_are_those_of_wide_random_networks(key, depth):
    """Monte Carlo over networks: kernels of gradients by automatic differentiation, and of values."""
    x = jr.normal(key, (4, 3))
    width, draws = 128, 400

    def net(params, x):
        h = x
        for layer, w in enumerate(params[:-1]):
            gain = 1.0 if layer == 0 else (2.0 / width) ** 0.5
            h = jax.nn.relu(gain * w @ h)
        return params[-1] @ h / width**0.5

    def empirical(key):
        shapes = [(width, 3), *[(width, width)] * (depth - 1), (width,)]
        params = [jr.normal(k, s) for k, s in zip(jr.split(key, depth + 1), shapes, strict=True)]
        jacobian = jax.vmap(lambda point: jnp.concatenate([g.ravel() for g in jax.grad(net)(params, point)]))(x)
        values = jax.vmap(lambda point: net(params, point))(x)
        return jacobian @ jacobian.T, jnp.outer(values, values)

    samples = jax.lax.map(empirical, jr.split(jr.fold_in(key, 1), draws), batch_size=20)
    for sample, kernel in zip(samples, (ntk(depth), nngp(depth)), strict=True):
        error = jnp.std(sample, axis=0) / draws**0.5
        # The kernels are exact averages at depth 1; at depth 2 the finite width leaves a bias of order 1/width.
        bias = 0.0 if depth == 1 else 2.0 / width * jnp.abs(kernel(x))
        assert bool((jnp.abs(sample.mean(0) - kernel(x)) < 4.5 * error + bias).all())


def test_sums_products_and_multiples(points):
    x, z = points
    a, b = RBF(1.0), Laplace(2.0)
    np.testing.assert_allclose((2.0 * a + b * a)(x, z), 2.0 * a(x, z) + a(x, z) * b(x, z), rtol=1e-14)
    with pytest.raises(TypeError):
        _ = a + 1.0  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ntk(0), r"depth counts the hidden layers, so it is at least 1; got depth=0"),
        (lambda: ArcCosineNTK(0), r"got depth=0"),
        (lambda: ArcCosineNNGP(-1), r"got depth=-1"),
        (lambda: ArcCosine(2), r"order 0 and 1, got order=2"),
        (lambda: RBF(0.0), r"length_scale must be finite and > 0, got 0\.0"),
        (lambda: Laplace(float("nan")), r"length_scale must be finite and > 0, got nan"),
        (lambda: -1.0 * RBF(1.0), r"finite numbers >= 0 only, got -1\.0"),
        (lambda: ts.kernels.RBF()(jnp.ones((3, 2)), jnp.ones((4, 3))), r"got \(3, 2\) and \(4, 3\)"),
        (lambda: ts.kernels.ntk()(jnp.ones(3)), r"got \(3,\) and \(3,\)\. Use x\[None, :\]"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
