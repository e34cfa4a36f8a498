import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special

import tsjax as ts
from tsjax.activations import Activation, LeakyReLU, erf, leaky_relu, quadratic, relu

READY = [relu, leaky_relu(0.3), erf, quadratic]
TANH = Activation(jnp.tanh)
STANDARD = ts.Gaussian(2).moments


@pytest.mark.parametrize("activation", READY, ids=str)
@pytest.mark.parametrize("law", [ts.Gaussian(3), ts.Sphere(3)], ids=["gaussian", "sphere"])
def test_the_gram_is_the_monte_carlo_mean(key, activation, law):
    gram = activation.gram(law.moments)
    if activation == erf and isinstance(law, ts.Sphere):
        assert gram is None
        return
    u = jr.normal(key, (4, 3))
    # Parallel, antiparallel, long and zero neurons.
    v = jnp.stack([u[0], -2 * u[1], 30 * u[2], u[3] + 1e-3, jnp.zeros(3)])
    values = gram(u, v)
    assert values.shape == (4, 5) and values.dtype == jnp.float64 and not values[:, 4].any()
    x = law.sample(jr.fold_in(key, 1), 1_000_000)
    left, right = np.asarray(activation(x @ u.T)), np.asarray(activation(x @ v.T))
    mean, square = left.T @ right / len(x), (left**2).T @ right**2 / len(x)
    error = np.sqrt(np.maximum(square - mean**2, 0) / len(x))
    # Antiparallel relu neurons are never on at once: the mean is 0, and the closed form so up to rounding.
    assert (np.abs(values - mean) <= 4 * error + 1e-14).all()
    # The test has teeth: the errors are small.
    assert (error <= 0.01 * np.sqrt(np.outer((left**2).mean(axis=0), (right**2).mean(axis=0)))).all()


def _gram(activation, moments=STANDARD):
    gram = activation.gram(moments)
    assert gram is not None
    return gram


def test_erf_and_quadratic_by_gauss_hermite():
    u, v = jnp.array([[0.5, 0.2], [-1.0, 0.4], [1.2, 0.0]]), jnp.array([[0.3, -0.6], [-1.0, 0.4]])
    z, weights = np.polynomial.hermite_e.hermegauss(150)
    x = np.stack(np.meshgrid(z, z), -1).reshape(-1, 2)
    weights = np.outer(weights, weights).reshape(-1) / (2 * np.pi)
    for activation, phi in ((erf, scipy.special.erf), (quadratic, np.square)):
        truth = (phi(np.asarray(u) @ x.T) * weights) @ phi(x @ np.asarray(v).T)
        np.testing.assert_allclose(_gram(activation)(u, v), truth, rtol=1e-10, atol=1e-12)
    # N(0, s^2 I) is N(0, I) of neurons s times as long.
    wide = ts.Gaussian(2).moments._replace(second=4.0, fourth=16.0)
    for activation in READY:
        values = _gram(activation, wide)(u, v)
        np.testing.assert_allclose(values, _gram(activation)(2 * u, 2 * v), rtol=1e-13)


def test_long_parallel_neurons_keep_their_digits():
    # 1 - E erf(<u,x>) erf(<v,x>) = (2/pi) (atan of a small number): arcsin near 1 would round it to multiples of 1e-8.
    u = jnp.array([[1e7, 0.0]])
    gap = 1 - float(_gram(erf)(u, u)[0, 0])
    np.testing.assert_allclose(gap, 2 / np.pi * np.arctan(np.sqrt(1 + 4e14) / 2e14), rtol=1e-6)


def test_values_and_symmetries():
    z = jnp.array([-2.0, -0.5, 0.0, 0.5, 2.0])
    np.testing.assert_array_equal(relu(z), [0, 0, 0, 0.5, 2])
    np.testing.assert_allclose(leaky_relu(0.25)(z), [-0.5, -0.125, 0, 0.5, 2], rtol=1e-15)
    np.testing.assert_array_equal(quadratic(z), z**2)
    np.testing.assert_allclose(erf(z), scipy.special.erf(z), rtol=1e-14)
    np.testing.assert_array_equal(TANH(z[:, None]), jnp.tanh(z[:, None]))
    cube = Activation(lambda t: jnp.maximum(t, 0) ** 3, degree=3)
    cosine = Activation(jnp.cos, parity="even")
    for activation in [*READY, TANH, cube, cosine]:
        if activation.degree is not None:
            np.testing.assert_allclose(activation(3 * z), 3.0**activation.degree * activation(z), rtol=1e-12)
        if activation.parity is not None:
            np.testing.assert_allclose(activation(-z), {"even": 1, "odd": -1}[activation.parity] * activation(z))
        assert activation(z.astype(jnp.float32)).dtype == jnp.float32
    assert TANH.gram(ts.Gaussian(3).moments) is None
    # A dead neuron stays dead: derivative 0 at 0, where phi has a kink.
    assert jax.grad(relu)(0.0) == jax.grad(leaky_relu(0.3))(0.0) == 0.0
    # A scalar function that cannot take arrays.
    assert Activation(lambda t: jax.lax.cond(t > 0, lambda: t, lambda: 0.0 * t))(z).tolist() == relu(z).tolist()


def test_activations_are_static():
    assert leaky_relu(0.3) == leaky_relu(0.3) and hash(leaky_relu(0.3)) == hash(leaky_relu(0.3))
    assert leaky_relu(0.0) == relu == LeakyReLU() and Activation(jnp.tanh) == TANH
    assert len({hash(a) for a in (*READY, TANH, Activation(jnp.sin))}) == 6
    assert [str(a) for a in (*READY, TANH)] == ["relu", "leaky_relu(0.3)", "erf", "quadratic", "Activation(tanh)"]
    compiled = []

    @jax.jit
    def value(net):
        compiled.append(1)
        return net(jnp.ones(2))

    for slope in (0.3, 0.3, 0.4):
        value(ts.TwoLayer(a=jnp.ones(1), w=jnp.ones((1, 2)), activation=leaky_relu(slope)))
    assert len(compiled) == 2
    # Its checks work inside of jit.
    assert jax.jit(lambda z: Activation(jnp.tanh, parity="odd")(z))(jnp.ones(1)) == jnp.tanh(1.0)


class _Unhashable:
    # Defining equality alone takes the hash away.
    def __eq__(self, other):
        return self is other

    def __call__(self, z):
        return z


def test_errors():
    cases = [
        (lambda: leaky_relu(1.5), r"slope in \[0, 1\) .* got slope=1\.5"),
        (lambda: leaky_relu(float("nan")), r"got slope=nan"),
        (lambda: Activation(lambda z: jnp.stack([z, z])), r"scalar to a scalar, .* array of shape \(2,\)"),
        (lambda: Activation(jnp.tanh, degree=1), r"Activation\(tanh\) is not homogeneous of degree 1: leave degree"),
        (lambda: Activation(jnp.tanh, degree=0), r"at least 1, or None .* got 0"),
        (lambda: Activation(jnp.tanh, parity="even"), r"Activation\(tanh\) is not even: leave parity at None"),
        (lambda: Activation(_Unhashable()), r"must be hashable, and _Unhashable is not"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
    # Behind the back of the run-time type checker of the test suite.
    wrong = object.__new__(Activation)
    for name, value in {"function": 3.0, "degree": None, "parity": None}.items():
        object.__setattr__(wrong, name, value)
    with pytest.raises(ValueError, match=r"JAX function of one number, such as Activation\(jnp\.tanh\); got 3\.0"):
        Activation.__check_init__(wrong)
    with pytest.raises(
        ValueError, match=r"relu, leaky_relu\(slope\), erf, quadratic or Activation\(function\) .* got <"
    ):
        ts.activations.check_activation(jnp.tanh)
