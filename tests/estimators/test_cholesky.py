"""Factors in panels are compared with NumPy's inverse of the whole matrix."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.estimators import cholesky, optimal_linear, ridge
from tsjax.estimators.cholesky import factorise_matrix

LIMIT = 300


def _padded(extent: int):
    """A positive definite matrix that is diagonal from row `extent` on."""
    a = np.random.default_rng(SEED + extent).normal(size=(extent, extent + 5))
    whole = np.diag(np.linspace(2.0, 4.0, LIMIT))
    whole[:extent, :extent] = a @ a.T
    return jnp.asarray(whole)


def _in_panels(monkeypatch, count: int):
    """Lets matrices of `LIMIT` rows have this many panels."""
    monkeypatch.setattr(cholesky, "LARGE", LIMIT if count == 1 else 10)
    monkeypatch.setattr(cholesky, "_COLUMNS", -(-LIMIT // count))


# The sizes of the ladder of 300 rows are 38, 75, 150 and 300. Panels of 4 have 75 columns; the last of 7 has 42, and others 43.
@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("extent", [None, 1, 38, 39, 151, LIMIT])
def test_a_factor(monkeypatch, count, extent):
    _in_panels(monkeypatch, count)
    rows = LIMIT if extent is None else extent
    matrix, b = _padded(rows), jr.normal(jr.key(SEED), (LIMIT, 3))
    cross = b * (jnp.arange(LIMIT) < rows)[:, None]

    @jax.jit
    def found(matrix, extent):
        factor = factorise_matrix(matrix, extent=extent)
        return factor, factor.inverse_diagonal(), factor.solve(b), factor.explained(cross)

    factor, diagonal, solved, explained = found(matrix, None if extent is None else jnp.asarray(extent))
    assert len(factor.panels) == count
    lower, first = np.zeros((LIMIT, LIMIT)), 0
    for block, below in factor.panels:
        last = first + len(block)
        lower[first:last, first:last], lower[last:, first:last], first = block, below, last
    np.testing.assert_allclose(lower, np.linalg.cholesky(matrix), rtol=1e-9, atol=1e-11)
    inverse = np.linalg.inv(matrix)
    np.testing.assert_allclose(diagonal, np.diag(inverse), rtol=1e-8)
    np.testing.assert_allclose(solved, inverse @ b, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(explained, np.diag(cross.T @ inverse @ cross), rtol=1e-8)


@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_of_factors(monkeypatch, count):
    _in_panels(monkeypatch, count)
    matrices = jnp.stack([_padded(20), _padded(151)])

    def of(matrix, extent):
        factor = factorise_matrix(matrix, extent=extent)
        return factor.inverse_diagonal(), factor.solve(jnp.ones((LIMIT, 1)))

    diagonal, solved = jax.jit(jax.vmap(of))(matrices, jnp.asarray([20, 151]))
    np.testing.assert_allclose(diagonal, np.diagonal(np.linalg.inv(matrices), axis1=1, axis2=2), rtol=1e-8)
    np.testing.assert_allclose(matrices @ solved, np.ones((2, LIMIT, 1)), rtol=1e-8)


@pytest.mark.parametrize("count", [1, 4])
def test_a_matrix_without_a_factor(monkeypatch, count):
    """Only the last panel meets the singular row; results are NaN everywhere, also in the rows before it."""
    _in_panels(monkeypatch, count)
    a = np.random.default_rng(SEED).normal(size=(LIMIT, LIMIT))
    a[-1] = a[-2]
    one = jnp.ones((LIMIT, 1))
    factor = factorise_matrix(jnp.asarray(a @ a.T))
    assert not factor.valid
    for values in (factor.solve(one), factor.inverse_diagonal(), factor.explained(one)):
        assert jnp.isnan(values).all()
    good = _padded(LIMIT)
    assert factorise_matrix(good).valid and not factorise_matrix(good, error=1e4).valid


@pytest.fixture
def in_panels(monkeypatch):
    """Lets fits of more than 10 rows work in panels of at most 25 columns, and counts the panels. Programs that were compiled
    before would be used again, so fits are traced where they are called."""
    sizes, panel = [], cholesky._panel

    def counted(*args):
        sizes.append(args[-1])
        return panel(*args)

    def start():
        monkeypatch.setattr(cholesky, "_panel", counted)
        monkeypatch.setattr(cholesky, "_COLUMNS", 25)
        for module in (cholesky, ridge):
            monkeypatch.setattr(module, "LARGE", 10)
        for module in (ridge, optimal_linear):
            monkeypatch.setattr(module, "_fit_compiled", module._fit_compiled.__wrapped__)
        return sizes

    return start


def _data(key, problem, weighted: bool) -> ts.Dataset:
    """80 rows, and some repeat. With weights, the rows from 30 on do not count, nor do some others."""
    data = problem.sample(key, problem.sample_teacher(key), 80)
    x = data.x.at[20:25].set(data.x[:5]).at[60:70].set(data.x[:10])
    rows = jnp.arange(80)
    weight = jnp.where((rows % 7 == 3) | (rows >= 30), 0.0, 1.0 + rows / 80) if weighted else None
    return ts.Dataset(x=x, y=data.y, weight=weight)


_PROBLEM = ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), 0.1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "method", [ts.KernelRidge(ts.kernels.ntk(), ridge=0.02), ts.OptimalLinear(_PROBLEM)], ids=["ridge", "optimal"]
)
def test_panels_of_a_kernel_give_the_same_fit(in_panels, key, method, weighted):
    """Panels of the kernel that are computed when they are needed, against the whole matrix."""
    data = _data(key, _PROBLEM, weighted)
    whole = method.fit(key, data)
    sizes = in_panels()
    parts = jax.jit(lambda data: method.fit(key, data))(data)
    # Four panels, and with weights at each of the two sizes of the ladder of 80.
    assert sizes == ([40] * 4 if weighted else []) + [80] * 4
    np.testing.assert_allclose(parts.alpha, whole.alpha, rtol=1e-8, atol=1e-10)
    assert set(parts.stats) == set(whole.stats)
    for name, value in whole.stats.items():
        np.testing.assert_allclose(parts.stats[name], value, rtol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_derivatives_of_a_fit_in_panels(in_panels, key, weighted):
    data = _data(key, _PROBLEM, weighted)

    def loss(scale):
        fit = ts.KernelRidge(ts.kernels.RBF(scale), ridge=scale**2).fit(key, data)
        return jnp.sum(fit.alpha**2) + fit.stats["dof"]

    expected = jax.grad(loss)(0.3)
    sizes = in_panels()
    found = jax.jit(jax.grad(lambda scale: loss(scale)))(0.3)
    assert len(sizes) >= 4
    np.testing.assert_allclose(found, expected, rtol=1e-7)
