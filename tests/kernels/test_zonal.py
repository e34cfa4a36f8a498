import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import gammaln

import tsjax as ts
from tsjax.kernels import RBF, ArcCosine, ArcCosineNTK, Laplace, gegenbauer, ntk
from tsjax.kernels.zonal import angles, coefficients, gegenbauer_polynomials, largest_missing


def test_polynomials_in_known_dimensions():
    u = np.linspace(-1.0, 1.0, 9)
    chebyshev, legendre = gegenbauer_polynomials(2, 6, u), gegenbauer_polynomials(3, 6, u)
    for k in range(7):
        np.testing.assert_allclose(chebyshev[k], np.cos(k * np.arccos(u)), atol=1e-13)
        np.testing.assert_allclose(legendre[k], np.polynomial.Legendre.basis(k)(u), atol=1e-13)


def test_multiplicities_are_dimensions_of_harmonics():
    np.testing.assert_allclose(gegenbauer(ArcCosine(), 3, degrees=6).multiplicities, [2 * k + 1 for k in range(7)])
    np.testing.assert_allclose(gegenbauer(ArcCosine(), 2, degrees=3).multiplicities, [1, 2, 2, 2])
    np.testing.assert_allclose(gegenbauer(ArcCosine(), 5, degrees=2).multiplicities, [1, 5, 14])


def test_relu_has_the_known_first_coefficients():
    """Computed by hand, E relu(<w,x>)^2 = |x|^2/2 gives the trace, E relu' = 1/2 the degree 1, and odd degrees >= 3 vanish."""
    for d in (2, 3, 5, 10):
        spectrum = gegenbauer(ArcCosine(1), d).scaled(1.0 / d)
        # mu_1 = E[relu(U) U] = E[U^2]/2 = 1/(2d) for U a coordinate of a uniform point: lambda_1 = mu_1^2.
        np.testing.assert_allclose(spectrum.eigenvalues[1], 1.0 / (2 * d) ** 2, rtol=1e-12)
        assert (spectrum.eigenvalues[3::2] == 0.0).all()
        np.testing.assert_allclose(spectrum.trace, 0.5 / d, rtol=1e-14)
        # The known decay k^{-(d+2)}; its local exponent at k = 60 is within a few per cent of it.
        if d <= 5:
            slope = np.log(spectrum.eigenvalues[80] / spectrum.eigenvalues[40]) / np.log(2.0)
            np.testing.assert_allclose(slope, -(d + 2), rtol=0.08)


@pytest.mark.parametrize("d", [2, 3, 6])
@pytest.mark.parametrize(
    "kernel", [ArcCosineNTK(), ntk(), RBF(0.5), Laplace(1.0)], ids=["closed", "nt", "rbf", "laplace"]
)
def test_the_expansion_gives_the_kernel_back(kernel, d):
    spectrum = gegenbauer(kernel, d)
    assert (spectrum.eigenvalues >= 0).all() and 0 <= spectrum.tail < 0.02 * spectrum.trace
    u = np.linspace(-1.0, 1.0, 21)
    points = np.zeros((21, d))
    points[:, 0], points[:, 1] = u, np.sqrt(1.0 - u * u)
    truth = kernel(jnp.eye(1, d), jnp.asarray(points))[0]
    series = (spectrum.eigenvalues * spectrum.multiplicities) @ gegenbauer_polynomials(d, 200, u)
    # What is cut off is at most the tail, and reaches it only at u = +-1.
    np.testing.assert_allclose(series, truth, rtol=0, atol=spectrum.tail + 1e-8)
    np.testing.assert_allclose(series[1:-1], truth[1:-1], rtol=0, atol=0.1 * spectrum.tail + 1e-8)


def test_neurons_lose_nothing_at_their_kink():
    """The reference is E relu(U) P_k(U) in closed form, by Rodrigues' formula and k - 2 integrations by parts; it is 0 for odd
    k."""
    for d in (2, 3, 5):
        found = np.asarray(coefficients(jnp.maximum(jnp.cos(jnp.asarray(angles(d, 40))), 0.0), d, 40))
        k = np.arange(2, 41, 2)
        log = gammaln(d / 2) + gammaln(k - 1) - gammaln(k / 2) - gammaln((k + d + 1) / 2) - k * np.log(2)
        np.testing.assert_allclose(np.abs(found[2::2]), np.exp(log) / np.pi**0.5, rtol=0, atol=1e-14)
        np.testing.assert_allclose(found[3::2], 0.0, atol=1e-14)


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("kernel", [Laplace(), RBF(0.3)], ids=["laplace", "rbf"])
def test_what_is_missing_of_a_spectrum_is_bounded_closely(kernel, d):
    few, many = gegenbauer(kernel, d, 20), np.asarray(gegenbauer(kernel, d, 200).eigenvalues)
    bound = float(largest_missing(kernel, few))
    assert many[21] <= bound < 1.5 * many[21]


def test_eigenvalues_are_those_of_large_kernel_matrices(key):
    """Monte Carlo: the eigenvalues of K/n on n uniform points form clusters at lambda_k, with N(d,k) in each."""
    x = ts.Sphere(3).sample(key, 1500)
    values = np.asarray(jnp.linalg.eigvalsh(ntk()(x)))[::-1] / 1500
    spectrum = gegenbauer(ntk(), 3)
    np.testing.assert_allclose(values[0], spectrum.eigenvalues[0], rtol=0.05)
    np.testing.assert_allclose(values[1:4].mean(), spectrum.eigenvalues[1], rtol=0.05)
    np.testing.assert_allclose(values[4:9].mean(), spectrum.eigenvalues[2], rtol=0.1)


def test_high_dimensions_leave_noise_to_the_tail():
    spectrum = gegenbauer(ntk(), 50)
    assert spectrum.multiplicities[-1] <= 1e15
    total = spectrum.eigenvalues @ spectrum.multiplicities + spectrum.tail
    np.testing.assert_allclose(total, spectrum.trace, rtol=1e-9)


def test_errors(key):
    with pytest.raises(ValueError, match=r"dimension d to be at least 2, got d=1"):
        gegenbauer(RBF(), 1)
    with pytest.raises(ValueError, match=r"from 0 to 1000, got 1001"):
        gegenbauer(RBF(), 3, degrees=1001)
    w = jr.normal(key, (4,))
    with pytest.raises(ValueError, match=r"not zonal on the sphere: at equal angles"):
        gegenbauer(lambda a, b: jnp.outer(a @ w, b @ w), 4)
