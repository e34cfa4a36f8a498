"""Tables of functions of the angle are compared with the functions, and the risk from a table with the sum over degrees."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import SEED

import tsjax as ts
from tsjax import kernels, risk
from tsjax.kernels.table import points_of, tabulate


@pytest.mark.parametrize("degree", [0, 1, 7, 40])
def test_polynomials_are_their_tables(degree, rng):
    table, off = tabulate(lambda theta: jnp.asarray(np.stack([np.cos(degree * theta), theta**3])), 40)
    theta = np.concatenate([rng.uniform(0, np.pi, 1000), [0.0, np.pi / 2, np.pi], np.pi * np.geomspace(1e-6, 1e-2, 9)])
    found = jax.jit(lambda u: table(u))(jnp.asarray(np.cos(theta)))
    # In u the angle is known to eps / sin(angle), near 0 and pi to the root of eps.
    np.testing.assert_allclose(found[0], np.cos(degree * theta), atol=1e-10)
    np.testing.assert_allclose(found[1], theta**3, atol=1e-6)
    assert np.all(off < 1e-10)


def test_sums_of_legendre_polynomials(rng):
    terms = rng.uniform(0, 1, 201) / (1 + np.arange(201.0)) ** 2
    legendre = lambda u: np.polynomial.legendre.legval(u, terms)
    table, off = tabulate(lambda theta: jnp.asarray(legendre(np.cos(theta))), 200)
    u = np.concatenate([rng.uniform(-1, 1, 5000), [-1, 0, 1, 1 + 1e-16, 1 - 1e-16]])
    np.testing.assert_allclose(table(jnp.asarray(u)), legendre(np.clip(u, -1, 1)), rtol=0, atol=1e-13 * terms.sum())
    assert off < 1e-13 * terms.sum()
    # One value of scipy's, by another recurrence.
    assert float(table(jnp.asarray(0.3))) == pytest.approx(
        sum(t * scipy.special.eval_legendre(k, 0.3) for k, t in enumerate(terms)), abs=1e-13
    )


def test_what_the_panels_do_not_resolve_is_seen():
    steep = lambda theta: jnp.asarray(np.exp(-((theta / 1e-4) ** 2)))
    assert float(tabulate(steep, 200)[1]) > 1e-3
    assert float(tabulate(lambda theta: jnp.asarray(np.cos(4000 * theta)), 200)[1]) > 1e-3
    assert float(tabulate(lambda theta: jnp.asarray(np.cos(200 * theta)), 200)[1]) < 1e-10


def _by_both(kernel, d, n, ridge, monkeypatch):
    """The risk from the table, the risk from the sum over all degrees for every pair of points, and the rounding error of both,
    eps sum_k lambda_k^2 N(d,k) (sum_i |alpha_i|)^2."""
    problem = ts.Problem(inputs=ts.Sphere(d=d), teacher=ts.ReLUTeacher(m=2), noise_std=0.1)
    instance = problem.draw(jax.random.key(SEED))
    data = instance.sample(jax.random.key(SEED + 1), n, jnp.float64)
    fit = ts.KernelRidge(kernel, ridge).fit(jax.random.key(0), data).as_kernel_sum
    assert fit is not None
    found = []
    for points in (points_of, lambda degrees: n**2):
        monkeypatch.setattr(risk, "points_of", points)
        unjitted = risk._kernel_risk.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]
        run = eqx.filter_jit(lambda fit, teacher: unjitted(fit, teacher, problem.inputs, 200))  # noqa: B023
        found.append(run(fit, instance.teacher))
    spectrum = kernels.gegenbauer(kernel, d, 200)
    rounding = np.finfo(float).eps * jnp.sum(spectrum.eigenvalues**2 * spectrum.multiplicities)
    return *found, float(rounding * jnp.sum(jnp.abs(fit.alpha)) ** 2)


def _agree(table, direct, rounding):
    # The risk is a difference of larger numbers, and can be small against their rounding.
    assert abs(float(table.value) - float(direct.value)) <= max(1e-10 * float(direct.value), rounding)
    assert float(table.error_bound) == pytest.approx(float(direct.error_bound), rel=1e-3, abs=1e-12)
    assert bool(table.reliable) == bool(direct.reliable)


@pytest.mark.slow
def test_the_risk_is_the_sum_over_degrees(monkeypatch):
    assert 300**2 // 2 > 2 * points_of(200)
    _agree(*_by_both(kernels.ntk(), 5, 300, 0.1, monkeypatch))


@pytest.mark.slow
def test_a_kernel_steeper_than_the_panels_has_no_smaller_bound(monkeypatch):
    table, direct, _ = _by_both(kernels.RBF(2e-4), 3, 300, 0.1, monkeypatch)
    # The panels resolve the sum over degrees, but not the kernel.
    assert float(table.value) == pytest.approx(float(direct.value), rel=1e-10)
    assert float(table.error_bound) > 0.99 * float(direct.error_bound)


KERNELS = {
    "ntk": kernels.ntk(), "ntk3": kernels.ntk(depth=3), "nngp": kernels.nngp(), "arccos0": kernels.ArcCosine(order=0),
    "arccos2": kernels.ArcCosine(order=2), "laplace": kernels.Laplace(1.0), "rbf": kernels.RBF(1.0),
    "matern32": kernels.Matern(1.0, 1.5), "polynomial": kernels.Polynomial(4), "sum": kernels.ntk() + kernels.RBF(0.5),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "d"), [(name, (2, 3, 5, 10)[i % 4]) for i, name in enumerate(KERNELS)])
def test_ten_kernels_in_four_dimensions(name, d, monkeypatch):
    _agree(*_by_both(KERNELS[name], d, 400, 0.1, monkeypatch))
