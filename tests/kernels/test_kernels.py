import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import mpmath
import numpy as np
import pytest
import scipy.special
from helpers import SEED

import tsjax as ts
from tsjax.kernels import (
    RBF,
    ArcCosine,
    ArcCosineNNGP,
    ArcCosineNTK,
    DotProduct,
    EmpiricalNTK,
    FourierFeatures,
    Laplace,
    Linear,
    Matern,
    Polynomial,
    RationalQuadratic,
    ReLUFeatures,
    Stretched,
    nngp,
    ntk,
)


def _mlp(parameters, x):
    w, a = parameters
    return a @ jnp.tanh(w @ x)


# A network smaller than the samples and one larger: the kernel of the former is of deficient rank.
NETWORK = (jr.normal(jr.key(3), (5, 4)), jr.normal(jr.key(4), (5,)))

KERNELS = {
    "ntk": ntk(),
    "nngp": nngp(),
    "arccos0": ArcCosine(0),
    "arccos1": ArcCosine(1),
    "arccos2": ArcCosine(2),
    "arccos_ntk3": ArcCosineNTK(depth=3),
    "ntk2_bias": ntk(2, bias_std=0.7),
    "arccos_ntk2_bias": ArcCosineNTK(2, bias_std=0.7),
    "arccos_nngp2_bias": ArcCosineNNGP(2, bias_std=0.7),
    "rbf": RBF(0.7),
    "laplace": Laplace(2.0),
    "matern": Matern(1.3, nu=2.5),
    "matern3": Matern(1.3, nu=1.5),
    "rational_quadratic": RationalQuadratic(0.8, alpha=0.5),
    "polynomial": Polynomial(3, offset=0.5),
    "dot_product": DotProduct([0.5, 0.0, 1.0, 0.25]),
    "relu_features": ReLUFeatures.sample(jr.key(1), 30, 4),
    "fourier_features": FourierFeatures.sample(jr.key(2), 30, 4),
    "linear": Linear(jnp.asarray([1.0, 0.5, 0.25, 2.0])),
    "empirical_ntk": EmpiricalNTK(_mlp, NETWORK),
    "stretched": Stretched(ntk(2, bias_std=0.7), 1.5),
    "sum_product": 0.5 * RBF(1.3) * ntk() + Laplace(0.9) * 2.0,
}


# By default these are not tested: another kernel stands for them.
VARIANTS = {"nngp", "arccos2", "ntk2_bias", "arccos_nngp2_bias", "matern3", "fourier_features", "linear"}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else []) for name in KERNELS])
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_length_scale_for_any_kernel(points):
    """The stretched kernel is k(x / l, z / l). For a network with biases it is the kernel with biases l times as large, over
    l^2; for a network without biases it is a multiple of the kernel."""
    x, z = points
    lengths = jnp.array([0.5, 3.0])
    values = jax.vmap(lambda length: Stretched(ntk(2, bias_std=1.0), length)(x, z))(lengths)
    for length, value in zip((0.5, 3.0), values, strict=True):
        np.testing.assert_allclose(value, ntk(2, bias_std=length)(x, z) / length**2, rtol=1e-9)
    np.testing.assert_allclose(Stretched(ntk(), 3.0)(x), ntk()(x) / 9.0, rtol=1e-12)
    stretched = Stretched(Laplace(1.0), 2.0)
    np.testing.assert_allclose(stretched(x, z), Laplace(2.0)(x, z), rtol=1e-12)
    np.testing.assert_allclose(stretched.tile(x, z), Laplace(2.0)(x, z), rtol=1e-6)
    assert (
        stretched.rotation_invariant and not Stretched(DotProduct([1.0]) + KERNELS["relu_features"]).rotation_invariant
    )
    np.testing.assert_allclose(Stretched(ntk(2), 2.0).error(x), ntk(2).error(x / 2.0), rtol=1e-12)
    for length in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="Stretched: length_scale must be finite and > 0"):
            Stretched(ntk(), length)


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


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_biases_agree_with_neural_tangents(points, depth):
    x, z = points
    np.testing.assert_allclose(ntk(depth, 0.7)(x, z), ArcCosineNTK(depth, 0.7)(x, z), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(nngp(depth, 0.7)(x, z), ArcCosineNNGP(depth, 0.7)(x, z), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(ntk(depth, 0.7)(x), ArcCosineNTK(depth, 0.7)(x), rtol=1e-11)
    np.testing.assert_allclose(nngp(depth, 0.7).diagonal(x), ArcCosineNNGP(depth, 0.7).diagonal(x), rtol=1e-12)


def test_a_bias_is_one_more_coordinate(points):
    append = lambda x: jnp.concatenate([x, jnp.full((len(x), 1), 0.7)], axis=1)
    x, z = points
    np.testing.assert_allclose(ArcCosineNTK(1, 0.7)(x, z), ArcCosineNTK(1)(append(x), append(z)), rtol=1e-13)
    np.testing.assert_allclose(ArcCosineNNGP(1, 0.7)(x, z), ArcCosineNNGP(1)(append(x), append(z)), rtol=1e-13)


def test_deep_biases_are_accurate_at_small_angles():
    """The reference is the same recursion with 60 digits. It uses cosines, which lose half of the digits, but 60 are enough."""
    x, z = [1.0, 2.0], [1.0 + 1e-7, 2.0 - 3e-8]
    with mpmath.workdps(60):
        x1, z1, b2 = [mpmath.mpf(v) for v in x], [mpmath.mpf(v) for v in z], mpmath.mpf(0.7) ** 2
        product = lambda u, v: sum(p * q for p, q in zip(u, v, strict=True))
        xx, xz, zz = (product(u, v) + b2 for u, v in ((x1, x1), (x1, z1), (z1, z1)))
        tangent = xz
        readout = norms = k1 = mpmath.mpf(0)
        for _ in range(3):
            norms = mpmath.sqrt(xx * zz)
            t = mpmath.acos(xz / norms)
            k0, k1 = (
                (mpmath.pi - t) / (2 * mpmath.pi),
                (mpmath.sin(t) + (mpmath.pi - t) * mpmath.cos(t)) / (2 * mpmath.pi),
            )
            readout = norms * k1 + k0 * tangent
            xx, xz, zz, tangent = xx + b2, 2 * norms * k1 + b2, zz + b2, 2 * readout + b2
        truth, value = float(readout), float(norms * k1)
    points = jnp.asarray([x]), jnp.asarray([z])
    np.testing.assert_allclose(ArcCosineNTK(3, 0.7)(*points)[0, 0], truth, rtol=3e-15)
    np.testing.assert_allclose(ArcCosineNNGP(3, 0.7)(*points)[0, 0], value, rtol=3e-15)


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


# Kernels with a kink of first order in the angle or distance, which is 0 at the first of these points and pi at the last.
KINKED = {"ntk", "arccos0", "arccos_ntk3", "ntk2_bias", "arccos_ntk2_bias", "laplace", "stretched", "sum_product"}
NO_SECOND = {
    "equal": KINKED,
    "zero": {"ntk", "nngp", "arccos0", "arccos1", "arccos2", "arccos_ntk3", "relu_features", "sum_product"},
    "opposite": {"ntk", "arccos0", "arccos_ntk3", "sum_product"},
}


@pytest.mark.slow
def test_derivatives_where_points_are_equal_opposite_or_zero():
    """First derivatives are compared with differences of values, by the mean of both sides at a kink. Second derivatives, where
    they exist, are compared with differences of first ones. All kernels share one program."""
    z = jr.normal(jr.key(SEED + 9), (4,))
    places = {"equal": z, "zero": 0.0 * z, "opposite": -z}
    h = 1e-4
    shifts = h * jnp.concatenate([jnp.zeros((1, 4)), jnp.eye(4), -jnp.eye(4)])

    @jax.jit
    def everything(points):
        def of_kernel(kernel):
            value = lambda a, b: kernel(a[None], b[None])[0, 0]
            first = jax.grad(value)
            mixed = jax.jacfwd(first, argnums=1)
            values = jax.vmap(lambda p: jax.vmap(lambda s: value(p + s, z))(shifts))(points)
            firsts = jax.vmap(lambda p: jax.vmap(lambda s: first(p, z + s))(shifts))(points)
            return values, firsts, jax.vmap(lambda p: mixed(p, z))(points)

        return {name: of_kernel(kernel) for name, kernel in {**KERNELS, "ntk3": ntk(3)}.items()}

    found = jax.tree.map(np.asarray, everything(jnp.stack(list(places.values()))))
    for i, place in enumerate(places):
        for name in KERNELS:
            values, firsts, mixed = (part[i] for part in found[name])
            scale = np.abs(found[name][0]).max()
            # At 0 a step function jumps, and a deep network has one-sided derivatives only.
            if (place, name) not in {("zero", "arccos0"), ("zero", "arccos_ntk3")}:
                differences = (values[1:5] - values[5:]) / (2 * h)
                np.testing.assert_allclose(firsts[0], differences, atol=3e-5 * scale, err_msg=f"{name} at {place}")
            if name not in NO_SECOND[place]:
                differences = (firsts[1:5] - firsts[5:]).T / (2 * h)
                np.testing.assert_allclose(mixed, differences, atol=1e-3 * scale, err_msg=f"{name} at {place}, second")
    # There the derivative of a ReLU is 1/2 at its kink.
    np.testing.assert_allclose(found["arccos_ntk3"][1][1, 0], found["ntk3"][1][1, 0], rtol=1e-12)
    # Half of the derivative of k(x, x).
    half = jax.grad(lambda a: 0.5 * ArcCosineNTK(3).diagonal(a[None])[0])(z)
    np.testing.assert_allclose(found["arccos_ntk3"][1][0, 0], half, rtol=1e-12)


@pytest.mark.parametrize("depth", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_kernels_are_those_of_wide_random_networks(key, depth):
    """Monte Carlo over networks gives the kernels of gradients, by automatic differentiation, and of values."""
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


def test_order_two_is_the_covariance_of_squared_relus(key):
    x = jr.normal(key, (4, 3))
    h = jax.nn.relu(jr.normal(jr.fold_in(key, 1), (200_000, 3)) @ x.T) ** 2
    products = h[:, :, None] * h[:, None, :]
    error = products.std(axis=0) / len(h) ** 0.5
    assert bool((jnp.abs(products.mean(axis=0) - ArcCosine(2)(x)) < 5 * error).all())


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_matern_is_its_bessel_formula(points, nu):
    x, z = (np.asarray(p) for p in points)
    s = (2 * nu) ** 0.5 * np.linalg.norm(x[:, None] - z[None], axis=2) / 1.3
    truth = 2 ** (1 - nu) / scipy.special.gamma(nu) * s**nu * scipy.special.kv(nu, s)
    np.testing.assert_allclose(Matern(1.3, nu)(*points), truth, rtol=1e-10)


def test_rational_quadratic_is_a_mixture_of_rbf(points):
    """It is a mixture over precisions, (1 + r^2/(2 a l^2))^-a = E exp(-t r^2 / (2 l^2)) with t ~ Gamma(a, rate a), and tends to
    RBF as a grows."""
    x, z = points
    nodes, weights = scipy.special.roots_genlaguerre(60, 1.5)
    mixture = sum(w * RBF(0.8 / (t / 2.5) ** 0.5)(x, z) for t, w in zip(nodes, weights, strict=True)) / weights.sum()
    np.testing.assert_allclose(RationalQuadratic(0.8, alpha=2.5)(x, z), mixture, rtol=1e-6)
    np.testing.assert_allclose(RationalQuadratic(0.8, alpha=1e9)(x, z), RBF(0.8)(x, z), rtol=1e-6)


def test_polynomials_are_power_series(points):
    x, z = points
    np.testing.assert_allclose(Polynomial(2, 0.5)(x, z), DotProduct([0.25, 1.0, 1.0])(x, z), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(DotProduct((0.0, 2.0))(x, z), 2.0 * x @ z.T, rtol=1e-13)


@pytest.mark.slow
def test_random_features_tend_to_their_kernels(points):
    x, z = points
    for features, kernel in (
        (ReLUFeatures.sample(jr.key(5), 200_000, 4), ArcCosine(1)),
        (FourierFeatures.sample(jr.key(6), 200_000, 4, length_scale=0.7), RBF(0.7)),
    ):
        phi = [np.asarray(features.features(p)) for p in points]
        error = (phi[0][:, None] * phi[1][None]).std(axis=2) * phi[0].shape[1] ** 0.5
        assert (np.abs(features(x, z) - kernel(x, z)) < 5 * error).all()


@pytest.mark.slow
def test_the_empirical_ntk_is_that_of_neural_tangents(points):
    import tsjax.kernels.neural_tangents as bridge

    x, z = points
    theirs = bridge.load().empirical_ntk_fn(lambda parameters, x: jax.vmap(lambda p: _mlp(parameters, p))(x)[:, None])
    np.testing.assert_allclose(EmpiricalNTK(_mlp, NETWORK)(x, z), theirs(x, z, NETWORK), rtol=1e-12)
    # The kernel of a wide network is close to that of the infinite one.
    w, a = jr.normal(jr.key(7), (40_000, 4)), jr.normal(jr.key(8), (40_000,))
    net = lambda p, x: p[1] @ jax.nn.relu(p[0] @ x) / 200.0
    np.testing.assert_allclose(EmpiricalNTK(net, (w, a))(x[:3]), ArcCosineNTK()(x[:3]), rtol=0.1, atol=0.2)


def test_who_is_rotation_invariant(kernel, points, key):
    rotation = jr.orthogonal(key, 4)
    x, z = points
    if kernel.rotation_invariant:
        np.testing.assert_allclose(kernel(x @ rotation, z @ rotation), kernel(x, z), rtol=1e-9, atol=1e-9)
    else:
        assert float(jnp.abs(kernel(x @ rotation, z @ rotation) - kernel(x, z)).max()) > 0.01


def test_many_pairs_are_computed_in_blocks(key, monkeypatch):
    """Blocks of three rows and a rest of one are compared with the formula pair by pair, at a shape that was not compiled
    before."""
    monkeypatch.setattr("tsjax.kernels.base._PAIRS", 29)
    kernel, x, z = ArcCosineNTK(2, bias_std=0.7), jr.normal(key, (2, 13, 5)), jr.normal(key, (9, 5))
    truth = [[[kernel.evaluate(a, b) for b in z] for a in rows] for rows in x[:, ::6]]
    blocks = jax.vmap(lambda rows: kernel(rows, z))(x)
    np.testing.assert_allclose(blocks[:, ::6], np.asarray(truth), rtol=1e-13)
    assert "while" in jax.jit(kernel).lower(x[0], z).as_text()


def test_tiles_are_the_kernel(kernel, key):
    """The points are far from the origin and include a zero point and equal and opposite points, for which inner products lose
    half of the digits."""
    x1, x2 = jr.normal(key, (40, 4)) + 3.0, jr.normal(jr.fold_in(key, 1), (30, 4)) * 2.0
    x1 = x1.at[0].set(0.0)
    x2 = x2.at[3].set(x1[3]).at[4].set(-2.0 * x1[4])
    truth = np.asarray(kernel(x1, x2))
    for dtype, general, anywhere in (("float64", 1e-13, 1e-7), ("float32", 1e-5, 2e-3)):
        values = kernel.tile(x1.astype(dtype), x2.astype(dtype))
        assert values.dtype == dtype
        error = np.abs(np.asarray(values) - truth) / np.abs(truth).max()
        assert error.max() < anywhere and np.quantile(error, 0.95) < general


def test_angles_of_float64_tiles_are_exact_to_roundoff(key):
    x = jr.normal(key, (300, 6))
    truth = np.asarray(ArcCosineNTK()(x[:150], x[150:]))
    np.testing.assert_allclose(ArcCosineNTK().tile(x[:150], x[150:]), truth, rtol=1e-12, atol=1e-14)


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
        (lambda: ntk(1, bias_std=-1.0), r"finite and >= 0; got bias_std=-1\.0"),
        (lambda: ArcCosine(3), r"order 0, 1 and 2, got order=3"),
        (lambda: Matern(nu=1.0), r"nu = 0\.5, 1\.5 and 2\.5, got nu=1\.0"),
        (lambda: RationalQuadratic(alpha=0.0), r"RationalQuadratic: alpha must be finite and > 0, got 0\.0"),
        (lambda: Polynomial(0), r"degree of at least 1, got degree=0"),
        (lambda: Polynomial(2, offset=-1.0), r"finite offset >= 0, got offset=-1\.0"),
        (lambda: DotProduct([1.0, -1.0]), r"coefficients >= 0, not all 0; got \[ 1\. -1\.\]"),
        (lambda: DotProduct([]), r"a row of coefficients"),
        (
            lambda: FourierFeatures.sample(jr.key(0), 3, 2, length_scale=0.0),
            r"length_scale must be finite and > 0, got 0",
        ),
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
