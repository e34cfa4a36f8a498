import functools
import subprocess
import sys

import jax
import jax.flatten_util
import jax.numpy as jnp
import jax.random as jr
import mpmath
import numpy as np
import pytest

from tsjax.kernels import ArcCosineNTK, nngp, ntk
from tsjax.kernels import neural_tangents as bridge

# The state of JAX around the import, in a process of its own: nothing of ours may have touched it before.
LEAVES_JAX_ALONE = """
import sys
import jax, jax.core, jax.extend.core, jax.interpreters.ad
import tsjax.kernels
from tsjax.kernels import neural_tangents as bridge
assert "neural_tangents" not in sys.modules, "importing tsjax.kernels imported neural_tangents"
watched = (jax.core, jax.extend.core, jax.interpreters.ad)
before = [{name: id(getattr(m, name)) for name in vars(m)} for m in watched]
eval_context = jax.core.eval_context
flags = dict(jax.config.values)
jax.jit(lambda x: tsjax.kernels.ntk()(x))(jax.numpy.ones((2, 3)))
assert [{name: id(getattr(m, name)) for name in vars(m)} for m in watched] == before
assert jax.core.eval_context is eval_context and dict(jax.config.values) == flags
assert "jax.util" not in sys.modules and not hasattr(jax, "util")
assert not any(name.split(".")[0] in ("tensorflow", "tf2jax") for name in sys.modules)
nt = bridge.load()
assert nt.__version__ == bridge.VERSION and not hasattr(nt, "experimental")
assert "neural_tangents.experimental" not in sys.modules
"""

# The line that the documentation offers, in a process that knows nothing else of tsjax; then every repair at work, and
# the modules that it stands in for unchanged.
ONE_LINER = """
import jax, scipy.linalg, jax.interpreters.ad
line = "from tsjax.kernels.neural_tangents import load; nt = load()"
exec(line)
import sys
assert line in sys.modules["tsjax.kernels.neural_tangents"].__doc__
watched = (jax, jax.core, jax.numpy, jax.interpreters.ad, scipy, scipy.linalg)
before = [dict(vars(m)) for m in watched]
init, apply, kernel = nt.stax.serial(nt.stax.Dense(4), nt.stax.Relu(), nt.stax.Dense(1))
x = jax.random.normal(jax.random.key(0), (3, 2))
ntk_fn = nt.empirical_ntk_fn(apply, implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES)
k, finite = jax.jit(lambda x: (kernel(x, x, "ntk"), ntk_fn(x, None, init(jax.random.key(1), x.shape)[1])))(x)
assert k.shape == finite.shape == (3, 3)
nt.predict.max_learning_rate(k)
jax.jit(lambda k: nt.predict.gradient_descent_mse(k, x[:, :1])(1.0, 0.0, 0.0, k))(k)
assert all(vars(m)[name] is value for m, names in zip(watched, before) for name, value in names.items())
"""

# A user who mended the import in another way keeps that module, with the repairs.
ALREADY_IMPORTED = """
import sys, warnings
from tsjax.kernels import neural_tangents as bridge
with warnings.catch_warnings(), bridge._lend():
    warnings.simplefilter("ignore")
    import neural_tangents as theirs
assert bridge.load() is theirs and bridge.load() is theirs
assert theirs._src.predict.jax.core.eval_context is __import__("jax").ensure_compile_time_eval
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LEAVES_JAX_ALONE, id="leaves_jax_alone"),
        pytest.param(ONE_LINER, id="one_liner", marks=pytest.mark.slow),
        pytest.param(ALREADY_IMPORTED, id="already_imported", marks=pytest.mark.slow),
    ],
)
def test_import_in_a_fresh_process(script):
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_another_release_is_refused(monkeypatch):
    monkeypatch.setattr(bridge, "version_of", lambda name: "0.6.4")
    with pytest.raises(ImportError, match=r"private names of release 0\.6\.5, but 0\.6\.4 is installed: `pip install"):
        bridge._check_version()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(bridge, "version_of", lambda name: None)
    with pytest.raises(ImportError, match=r"0\.6\.5 is not installed.*without TensorFlow.*`pip install --no-deps"):
        bridge._check_version()


@pytest.mark.parametrize("get", [ntk, nngp])
@pytest.mark.parametrize(("depth", "bias"), [(1, 0.0), (3, 0.5)])
def test_without_the_library_kernels_are_closed_forms(get, depth, bias, monkeypatch, key):
    """Both give the same numbers at angles above 1e-3. At smaller angles the closed form is more accurate."""
    # Norms of 1, and pairs of points at angles of 1e-3 to pi.
    angle = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-3, jnp.pi - 1e-3, 12)])
    x = jnp.stack([jnp.cos(angle), jnp.sin(angle), 0.0 * angle], axis=1)
    assert bridge.source() == f"neural-tangents {bridge.VERSION}"
    with_library, bound = get(depth, bias)(x[:1], x[1:]), get(depth, bias).error(x)
    monkeypatch.setattr(bridge, "source", lambda: "closed form")
    monkeypatch.setattr(bridge, "load", lambda: pytest.fail("the library was asked for"))
    np.testing.assert_allclose(get(depth, bias)(x[:1], x[1:]), with_library, rtol=0, atol=1e-12)
    if get is ntk:
        # Its error estimate is that of the closed form.
        assert get(depth, bias).error(x) == ArcCosineNTK(depth, bias).error(x) < bound
    # Points close to each other. The reference is computed by mpmath: T = |x||z| (k1 + cos k0) with 1 - cos = 2 sin^2(t / 2).
    with mpmath.workdps(40):
        t = mpmath.mpf("1e-9")
        covariance = (mpmath.sin(t) + (mpmath.pi - t) * mpmath.cos(t)) / (2 * mpmath.pi)
        exact = float(covariance + mpmath.cos(t) * (mpmath.pi - t) / (2 * mpmath.pi))
    near = jnp.array([[jnp.cos(1e-9), jnp.sin(1e-9), 0.0]])
    if (get, depth) == (ntk, 1):
        assert abs(float(ntk()(x[:1], near)[0, 0]) - exact) < 1e-15


@pytest.fixture(scope="module")
def nt():
    return bridge.load()


# Kernels: the recursion over layers, with its Gaussian expectations by quadrature.

ACTIVATIONS = {
    "abrelu": lambda stax: stax.ABRelu(-0.3, 1.2),
    "abs": lambda stax: stax.Abs(),
    "cos": lambda stax: stax.Cos(),
    "erf": lambda stax: stax.Erf(),
    "exp": lambda stax: stax.Exp(0.5, 0.7),
    "gabor": lambda stax: stax.Gabor(),
    "gaussian": lambda stax: stax.Gaussian(),
    "gelu": lambda stax: stax.Gelu(),
    "hermite": lambda stax: stax.Hermite(3),
    "leaky_relu": lambda stax: stax.LeakyRelu(0.1),
    "monomial": lambda stax: stax.Monomial(3),
    "polynomial": lambda stax: stax.Polynomial([0.2, 0.5, 0.3]),
    "rbf": lambda stax: stax.Rbf(0.6),
    "rectified_monomial": lambda stax: stax.RectifiedMonomial(2),
    "relu": lambda stax: stax.Relu(),
    "sigmoid_like": lambda stax: stax.Sigmoid_like(),
    "sign": lambda stax: stax.Sign(),
    "sin": lambda stax: stax.Sin(),
}


def _expectation(phi, k11, k12, k22):
    """`E[phi(u) phi(v)]` of a Gaussian pair in polar coordinates, by Gauss-Laguerre in `r^2 / 2`, and by Gauss-Legendre on the
    four arcs between the angles where `u` or `v` is zero, so that a kink or a jump of `phi` there does not lower the
    accuracy."""
    s, ws = np.polynomial.laguerre.laggauss(40)
    z, wz = np.polynomial.legendre.leggauss(40)
    angle = np.arccos(k12 / np.sqrt(k11 * k22))
    kinks = np.sort(np.array([np.pi / 2, 3 * np.pi / 2, angle + np.pi / 2, (angle + 3 * np.pi / 2) % (2 * np.pi)]))
    widths = np.diff(np.append(kinks, kinks[0] + 2 * np.pi))
    theta = (kinks[:, None] + widths[:, None] * (z + 1) / 2).ravel()
    w_theta = (widths[:, None] * wz / 2).ravel() / (2 * np.pi)
    r = np.sqrt(2 * s)[:, None]
    u = np.sqrt(k11) * r * np.cos(theta)
    v = np.sqrt(k22) * r * np.cos(theta - angle)
    return ws @ np.asarray(phi(u) * phi(v)) @ w_theta


def _recursion(phi, dphi, x1, x2, depth, w_std, b_std, standard_width=None):
    """The NNGP and the NTK of `depth` hidden layers `phi`, for one pair of inputs."""
    pairs = ((x1, x1), (x1, x2), (x2, x2))
    second = np.array([a @ b / len(a) for a, b in pairs])  # Mean products of a layer's inputs.
    slope, ntk, width, k = 0.0, 0.0, len(x1), second
    for layer in range(depth + 1):
        k = w_std**2 * second + b_std**2
        own = k[1] if standard_width is None else width * second[1] + 1.0  # This layer's weights and biases.
        ntk = own + w_std**2 * slope * ntk
        if layer < depth:
            second = np.array([_expectation(phi, k[i], k[j], k[l]) for i, j, l in ((0, 0, 0), (0, 1, 2), (2, 2, 2))])
            slope, width = _expectation(dphi, *k), standard_width
    return k[1], ntk


def _check_kernel(nt, key, activation, depth, standard_width=None):
    # Unit variance in every layer, as `Hermite` needs: w_std^2 + b_std^2 = 1 and |x|^2 = d.
    w_std, b_std, x = 0.8, 0.6, jr.normal(key, (3, 3))
    x = x * jnp.sqrt(3 / jnp.sum(x**2, axis=1, keepdims=True))
    kind = "ntk" if standard_width is None else "standard"
    layer = functools.partial(nt.stax.Dense, standard_width or 1, w_std, b_std, parameterization=kind)
    kernel_fn = nt.stax.serial(*[layer(), activation] * depth, layer())[2]
    got = jax.jit(lambda x1, x2: tuple(kernel_fn(x1, x2, ("nngp", "ntk"))))(x[:2], x[2:])
    phi = jax.jit(lambda x: activation[1]((), jnp.asarray(x)))
    dphi = jax.jit(jax.grad(lambda x: phi(x).sum()))
    for i in range(2):
        truth = _recursion(phi, dphi, *np.asarray(x)[[i, 2]], depth, w_std, b_std, standard_width)
        np.testing.assert_allclose([k[i, 0] for k in got], truth, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Inputs to this layer are assumed")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_has_the_kernel_of_its_expectations(nt, key, name):
    # RectifiedMonomial is nan from the second hidden layer on, on every JAX: it divides by the sine of an angle of 0.
    _check_kernel(nt, key, ACTIVATIONS[name](nt.stax), depth=1 if name == "rectified_monomial" else 2)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "standard_width"), [(0, None), (5, None), (0, 7), (5, 7)])
def test_kernels_of_any_depth_and_parameterization(nt, key, depth, standard_width):
    _check_kernel(nt, key, nt.stax.Relu(), depth, standard_width)


@pytest.mark.filterwarnings("ignore:Using JAX autodiff to compute")
def test_an_activation_given_by_its_nngp_map(nt, key):
    """`Elementwise` differentiates the map that it gets. For the arcsine map it must give the NTK of `Erf`."""

    def arcsine(k12, k11, k22):
        return 2 / jnp.pi * jnp.arcsin(2 * k12 / jnp.sqrt((1 + 2 * k11) * (1 + 2 * k22)))

    x1, x2 = jr.normal(jr.fold_in(key, 1), (3, 4)), jr.normal(jr.fold_in(key, 2), (2, 4))
    kernels = []
    for activation in (nt.stax.Elementwise(nngp_fn=arcsine), nt.stax.Erf()):
        kernel_fn = nt.stax.serial(nt.stax.Dense(1), activation, nt.stax.Dense(1))[2]
        kernels.append(jax.jit(lambda x1, x2, kernel_fn=kernel_fn: kernel_fn(x1, x2, "ntk"))(x1, x2))
    np.testing.assert_allclose(*kernels, rtol=1e-12)


# Empirical kernels: every implementation against the Jacobian written out.


def _mlp(stax):
    return stax.serial(stax.Dense(5, 1.5, 0.3), stax.Relu(), stax.Dense(4, 1.2, None), stax.Gelu(), stax.Dense(2)), (4,)


def _cnn(stax):
    conv = functools.partial(stax.Conv, 3, (2, 2))
    return stax.serial(conv(), stax.Erf(), conv(padding="SAME"), stax.GlobalAvgPool(), stax.Dense(2)), (3, 3, 2)


def _residual(stax):
    branch = stax.parallel(stax.serial(stax.LayerNorm(), stax.Sin(), stax.Dense(4)), stax.Identity())
    standard = functools.partial(stax.Dense, parameterization="standard")
    return stax.serial(standard(4, 1.0, 0.1), stax.FanOut(2), branch, stax.FanInSum(), standard(2)), (3,)


def _own(stax):
    """A network that does not come from stax, with shared parameters, a skip connection, and nested programs and rules."""
    del stax

    def apply(params, x):
        h = jax.jit(jax.nn.silu)(x @ params["w"] + params["b"])
        h = jax.nn.softplus(h @ params["w"].T[:, :3] @ params["w"]) * jnp.exp(params["b"]) + h
        return h[:, :2] / params["scale"]

    def init(key, shape):
        kw, kb = jr.split(key)
        return None, {"w": jr.normal(kw, (shape[-1], 4)), "b": jr.normal(kb, (1, 4)), "scale": jnp.full((1, 1), 2.0)}

    return (init, apply, None), (3,)


def _problem(network, nt, key):
    """A network, its parameters, inputs, and the kernel `J J^T` over all pairs of outputs."""
    (init, apply, _), shape = network(nt.stax)
    x1, x2 = jr.normal(jr.fold_in(key, 1), (3, *shape)), jr.normal(jr.fold_in(key, 2), (2, *shape))
    params = jax.jit(lambda key: init(key, x1.shape)[1])(jr.fold_in(key, 3))
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    jacobian = jax.jit(jax.jacfwd(lambda p: apply(unravel(p), jnp.concatenate([x1, x2]))))(flat)
    full = np.einsum("aip,bjp->abij", jacobian[:3], jacobian[3:])
    assert np.abs(full).min() < 0.1 * np.abs(full).max()  # Entries differ.
    return apply, params, x1, x2, full


STRUCTURED = "STRUCTURED_DERIVATIVES"  # It looks into the network, so it is tested on every kind of network.


@pytest.mark.parametrize(
    ("network", "implementation"),
    [(_own, STRUCTURED)]
    + [pytest.param(network, STRUCTURED, marks=pytest.mark.slow) for network in (_mlp, _residual, _cnn)]
    + [
        pytest.param(network, name, marks=[pytest.mark.slow] if network is _mlp else [])
        for network in (_mlp, _own)
        for name in ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS")
    ],
)
def test_every_implementation_gives_the_jacobian_kernel(nt, key, network, implementation):
    apply, params, x1, x2, full = _problem(network, nt, key)
    implementation = nt.NtkImplementation[implementation]
    ntk_fn = nt.empirical_ntk_fn(apply, trace_axes=(), vmap_axes=0, implementation=implementation)
    got = jax.jit(ntk_fn)(x1, x2, params)
    np.testing.assert_allclose(got, full, rtol=1e-9, atol=1e-11 * np.abs(full).max())


@pytest.mark.slow
def test_the_automatic_implementation(nt, key, capsys):
    apply, params, x1, x2, full = _problem(_mlp, nt, key)
    got = jax.jit(nt.empirical_ntk_fn(apply, implementation=nt.NtkImplementation.AUTO))(x1, x2, params)
    np.testing.assert_allclose(got, np.einsum("abii->ab", full) / 2, rtol=1e-9)
    # It prints what it chooses by: a count for each of the other three.
    counts = [float(line.split("flops=")[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(set(counts)) == 3 and min(counts) > 0


@pytest.mark.slow
def test_structured_derivatives_under_vmap_and_grad(nt, key):
    apply, params, x1, x2, full = _problem(_mlp, nt, key)
    ntk_fn = nt.empirical_ntk_fn(apply, implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES)
    # Scaled by c, parameters of the last layer (linear, no bias) scale their own share of the kernel by 1, the rest by
    # c^2; so the kernel is a parabola in c.
    scaled = lambda c: ntk_fn(x1, x2, [*params[:-1], jax.tree.map(lambda w: c * w, params[-1])])
    k = jax.jit(jax.vmap(scaled))(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(k[1], np.einsum("abii->ab", full) / 2, rtol=1e-9)
    np.testing.assert_allclose(k[2] - k[1], 3 * (k[1] - k[0]), rtol=1e-9)
    slope = jax.jit(jax.grad(lambda c: scaled(c)[0, 1]))(1.0)
    np.testing.assert_allclose(slope, 2 * (k[1] - k[0])[0, 1], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["rules_of_jax", "linear_transpose"])
def test_both_ways_to_transpose_an_equation(nt, key, monkeypatch, by):
    """Without JAX's rules for primitives, which are only partly public, `jax.linear_transpose` is used."""
    apply, params, x1, x2, full = _problem(_mlp, nt, key)
    calls, linear_transpose = [], jax.linear_transpose
    monkeypatch.setattr(
        bridge,
        "jax",
        bridge._Overlay(jax, linear_transpose=lambda *args: calls.append(0) or linear_transpose(*args)),
    )
    if by == "linear_transpose":
        monkeypatch.setattr(bridge, "ad", bridge._Overlay(bridge.ad, primitive_transposes={}))
    structured = nt.NtkImplementation.STRUCTURED_DERIVATIVES
    # No rules of neural-tangents' own, so that all is done by transposition.
    ntk_fn = nt.empirical_ntk_fn(
        apply, trace_axes=(), implementation=structured, _j_rules=False, _s_rules=False, _fwd=False
    )
    np.testing.assert_allclose(jax.jit(ntk_fn)(x1, x2, params), full, rtol=1e-9, atol=1e-11 * np.abs(full).max())
    assert bool(calls) == (by == "linear_transpose")


def test_operations_are_counted():
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    for optimize in (True, False):
        assert bridge._flops(lambda a, b: a @ b, optimize, a, b) == 2 * 3 * 5 * 7
    assert bridge._flops(lambda: jnp.zeros(()), True) == 0.0


@pytest.mark.slow
def test_other_empirical_kernels(nt, key):
    apply, params, x1, x2, full = _problem(_mlp, nt, key)
    both = jax.jit(lambda *args: tuple(nt.empirical_kernel_fn(apply)(*args, ("nngp", "ntk"), params)))(x1, x2)
    f1, f2 = (np.asarray(apply(params, x)) for x in (x1, x2))
    np.testing.assert_allclose(both[0], f1 @ f2.T / 2, rtol=1e-12)
    np.testing.assert_allclose(both[1], np.einsum("abii->ab", full) / 2, rtol=1e-9)
    v = jr.normal(jr.fold_in(key, 4), (2, 2))
    product = jax.jit(nt.empirical_ntk_vp_fn(apply, x1, x2, params))(v)
    np.testing.assert_allclose(product, np.einsum("abij,bj->ai", full, v), rtol=1e-9)


def test_expansions_in_the_parameters(nt, key):
    """With quadratic units the network is a cubic polynomial in a step of its parameters. So the expansion of third order is
    the network itself, and the error of the second order is a pure cube."""
    stax = nt.stax
    init, apply, _ = stax.serial(stax.Dense(4), stax.Polynomial([0.1, 0.4, 0.3]), stax.Dense(2))
    x = jr.normal(key, (3, 3))
    p0, step = init(jr.fold_in(key, 1), x.shape)[1], init(jr.fold_in(key, 2), x.shape)[1]
    moved = lambda e: jax.tree.map(lambda p, s: p + e * s, p0, step)
    flat, unravel = jax.flatten_util.ravel_pytree(p0)
    jacobian = np.asarray(jax.jit(jax.jacfwd(lambda p: apply(unravel(p), x)))(flat))
    linear = apply(p0, x) + jacobian @ np.asarray(jax.flatten_util.ravel_pytree(step)[0])
    np.testing.assert_allclose(nt.linearize(apply, p0)(moved(1.0), x), linear, rtol=1e-10)
    expansion = [jax.jit(nt.taylor_expand(apply, p0, order)) for order in range(4)]
    np.testing.assert_allclose(expansion[1](moved(1.0), x), linear, rtol=1e-10)
    np.testing.assert_allclose(expansion[3](moved(1.0), x), apply(moved(1.0), x), rtol=1e-10)
    rest = [np.asarray(apply(moved(e), x) - expansion[2](moved(e), x)) for e in (1.0, 2.0)]
    assert np.abs(rest[0]).min() > 1e-6
    np.testing.assert_allclose(rest[1], 8 * rest[0], rtol=1e-8)


# Batches and samples.


@pytest.mark.parametrize("device_count", [0, 2])
def test_batches_make_no_difference(nt, key, device_count):
    _, _, kernel_fn = nt.stax.serial(nt.stax.Dense(1), nt.stax.Relu(), nt.stax.Dense(1))
    x1, x2 = jr.normal(jr.fold_in(key, 1), (8, 3)), jr.normal(jr.fold_in(key, 2), (4, 3))
    batched = nt.batch(kernel_fn, batch_size=2, device_count=device_count)(x1, x2, ("nngp", "ntk"))
    for got, arc_cosine in ((batched.ntk, ArcCosineNTK()), (batched.nngp, None)):
        whole = kernel_fn(x1, x2, "nngp") if arc_cosine is None else arc_cosine(x1, x2) / 3
        np.testing.assert_allclose(got, whole, rtol=1e-10)


@pytest.mark.slow
def test_sampled_networks_average_to_the_kernel(nt, key):
    """With one hidden layer, the mean of the kernels of finite networks is the kernel of the infinite one, at any width."""
    init, apply, kernel_fn = nt.stax.serial(nt.stax.Dense(32, 1.5), nt.stax.Relu(), nt.stax.Dense(1))
    x1, x2 = jr.normal(jr.fold_in(key, 1), (4, 3)), jr.normal(jr.fold_in(key, 2), (2, 3))
    fn = nt.monte_carlo_kernel_fn(init, apply, jr.fold_in(key, 3), {16, 64}, device_count=0)
    half, estimate = (k.ntk for k in fn(x1, x2, ("nngp", "ntk")))

    def sample(k):
        return nt.empirical_ntk_fn(apply)(x1, x2, init(k, x1.shape)[1])

    # The spread of an estimate from 64 networks, measured on 256 others.
    error = np.std(jax.jit(jax.vmap(sample))(jr.split(jr.fold_in(key, 4), 256)), axis=0) / np.sqrt(64)
    assert np.all(np.abs(estimate - kernel_fn(x1, x2, "ntk")) < 5 * error)
    assert np.all(half != estimate) and np.all(error < 0.1 * np.abs(estimate).max())


# Predictions: each against NumPy.


def _flow(kernel, y):
    """Gradient flow at t = 1 and at infinity, first inside an inner jit, then outside of it, from one predict_fn."""
    predict_fn = bridge.load().predict.gradient_descent_mse(kernel, y, diag_reg=1e-3)
    inner = jax.jit(lambda t: predict_fn(t, 0.0, 0.0, kernel)[1])(1.0)
    return inner, predict_fn(1.0, 0.0, 0.0, kernel)[1], predict_fn(None, 0.0, 0.0, kernel)[1]


@pytest.mark.slow
def test_predict_takes_traced_kernels(key):
    key_x, key_y = jr.split(key)
    kernels = jax.vmap(ArcCosineNTK())(jr.normal(key_x, (2, 6, 4)))
    ys = jr.normal(key_y, (2, 6, 1))
    mapped = jax.jit(jax.vmap(_flow))(kernels, ys)
    for i in range(2):
        # Independent route: the eigendecomposition by NumPy. nt's loss is half the mean square, hence t / n.
        k, y = np.asarray(kernels[i]), np.asarray(ys[i])
        regularised = k + 1e-3 * np.trace(k) / 6 * np.eye(6)
        s, u = np.linalg.eigh(regularised)
        flow = k @ (u * ((1 - np.exp(-s / 6)) / s)) @ u.T @ y
        eager = _flow(kernels[i], ys[i])
        for j, truth in enumerate((flow, flow, k @ np.linalg.solve(regularised, y))):
            np.testing.assert_allclose(mapped[j][i], truth, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(eager[j], truth, rtol=1e-9, atol=1e-12)


def test_predict_still_caches_concrete_kernels():
    calls = []
    fn = bridge._lru_cache(1)(lambda: calls.append(0))
    fn()
    fn()
    assert len(calls) == 1

    def traced(x):
        uncached = bridge._lru_cache(1)(lambda: calls.append(x))
        uncached()
        uncached()
        return x

    jax.jit(traced)(jnp.ones(()))
    assert len(calls) == 3


def test_what_holds_a_tracer():
    tree = {("a", 0): 1, "b": [2]}  # Keys that JAX cannot sort.
    tree["self"] = tree
    assert not bridge._holds_tracer((tree, functools.partial(print, 1), np.ones(2), None))

    def traced(x):
        assert bridge._holds_tracer(functools.partial(max, x))
        assert bridge._holds_tracer(jax.jit(lambda y: x + y))
        assert bridge._holds_tracer([{("a", 0): {"b": lambda: [x]}, "b": 1}])
        return x

    jax.jit(traced)(jnp.ones(()))


def _posteriors(x, y, x_test, predict, kernel_fn):
    """Means and covariances at t = 2 and at infinity by the ensemble, then by inference with the NNGP."""
    ensemble = predict.gradient_descent_mse_ensemble(kernel_fn, x, y, diag_reg=1e-2)
    both = lambda t: tuple(ensemble(t=t, x_test=x_test, get="ntk", compute_cov=True))
    kernels = [kernel_fn(a, b, "nngp") for a, b in ((x, None), (x_test, x), (x_test, None))]
    gp = predict.gp_inference(kernels[0], y, diag_reg=1e-2)("nngp", *kernels[1:])
    # An inner trace must not leave its tracers in a cache for this one.
    return jax.jit(lambda: both(2.0))(), both(2.0), both(None), tuple(gp)


def test_posteriors_of_traced_data(nt, key):
    _, _, kernel_fn = nt.stax.serial(nt.stax.Dense(1, 1.2, 0.3), nt.stax.Relu(), nt.stax.Dense(1, 1.1))
    x, y, x_test = (jr.normal(jr.fold_in(key, i), shape) for i, shape in enumerate([(2, 5, 3), (2, 5, 2), (4, 3)]))
    mapped = jax.jit(jax.vmap(lambda x, y: _posteriors(x, y, x_test, nt.predict, kernel_fn)))(x, y)
    kernels = jax.jit(lambda a, b: tuple(kernel_fn(a, b, ("nngp", "ntk"))))
    for i in range(2):
        (k, theta), (k_t, theta_t), (k_tt, _) = (
            [np.asarray(m) for m in kernels(a, b)] for a, b in ((x[i], x[i]), (x_test, x[i]), (x_test, x_test))
        )
        targets, ridge = np.asarray(y[i]), lambda m: m + 1e-2 * np.trace(m) / 5 * np.eye(5)
        s, u = np.linalg.eigh(ridge(theta))
        finite = theta_t @ (u * (1 - np.exp(-2.0 * s / 10)) / s) @ u.T  # The loss averages over 5 x 2 entries.
        infinite, gp = theta_t @ np.linalg.inv(ridge(theta)), k_t @ np.linalg.inv(ridge(k))
        # f(x_test) = f_0(x_test) + A (y - f_0(x)), where f_0 has covariance k.
        spread = lambda a, k=k, k_t=k_t, k_tt=k_tt: k_tt + a @ k @ a.T - a @ k_t.T - k_t @ a.T
        truth = [(a @ targets, spread(a)) for a in (finite, finite, infinite)] + [(gp @ targets, k_tt - gp @ k_t.T)]
        for got, want in zip(mapped, truth, strict=True):
            np.testing.assert_allclose(got[0][i], want[0], rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(got[1][i], want[1], rtol=1e-6, atol=1e-8)


def test_caches_survive_a_trace(nt, key):
    """Predictors of concrete data may be used first inside a trace, then outside of it."""
    x, y = jr.normal(jr.fold_in(key, 1), (5, 3)), jr.normal(jr.fold_in(key, 2), (5, 1))
    kernel_fn = jax.jit(nt.stax.serial(nt.stax.Dense(1), nt.stax.Erf(), nt.stax.Dense(1))[2], static_argnames="get")
    k = kernel_fn(x, x, get="ntk")
    ensemble = nt.predict.gradient_descent_mse_ensemble(lambda a, b, get, **_: kernel_fn(a, b, get=get), x, y)
    gp = nt.predict.gp_inference(k, y)
    for fn in (lambda a: ensemble(t=1.0, x_test=a, get="ntk"), lambda a: gp("ntk", kernel_fn(a, x, get="ntk"))):
        np.testing.assert_allclose(jax.jit(fn)(x[:2]), fn(x[:2]), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(gp("ntk", k), y, atol=1e-7)  # No ridge: the data themselves.


def test_max_learning_rate(nt, key):
    a = jr.normal(key, (2, 6, 6))
    kernels = a @ a.mT
    rates = jax.jit(jax.vmap(nt.predict.max_learning_rate))(kernels)
    for k, traced in zip(np.asarray(kernels), rates, strict=True):
        rate = nt.predict.max_learning_rate(jnp.asarray(k), y_train_size=6)
        np.testing.assert_allclose([rate, traced], 2 * 6 / np.linalg.eigvalsh(k)[-1], rtol=1e-10)
        momentum = nt.predict.max_learning_rate(jnp.asarray(k), momentum=0.5)
        np.testing.assert_allclose(momentum, 1.5 * rate, rtol=1e-10)
        # Gradient descent with a slightly smaller rate always goes down, with a slightly larger one it explodes.
        for factor, stable in ((0.98, True), (1.02, False)):
            step = np.linalg.matrix_power(np.eye(6) - factor * rate * k / 6, 400)
            assert (np.linalg.norm(step, 2) <= 1) == stable
