"""Factors in panels are compared with NumPy's inverse of the whole matrix."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.estimators import cholesky, ridge
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


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("estimator", ["ridge", "optimal linear"])
def test_panels_of_a_kernel_give_the_same_fit(monkeypatch, key, estimator, weighted):
    """Panels of the kernel that are computed when they are needed, against the whole matrix; rows repeat, and some have weight
    0."""
    problem = ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), 0.1)
    data = problem.sample(key, problem.sample_teacher(key), 60)
    x = data.x.at[40:50].set(data.x[:10])
    weight = jnp.where(jnp.arange(60) % 7 == 3, 0.0, 1.0 + jnp.arange(60) / 60) if weighted else None
    data = ts.Dataset(x=x, y=data.y, weight=weight)
    method = ts.KernelRidge(ts.kernels.ntk(), ridge=0.02) if estimator == "ridge" else ts.OptimalLinear(problem)
    whole = method.fit(key, data)
    monkeypatch.setattr(ridge, "LARGE", 10)
    monkeypatch.setattr(cholesky, "LARGE", 10)
    monkeypatch.setattr(cholesky, "_COLUMNS", 25)
    # A program that is compiled already would be used again.
    parts = jax.jit(lambda data: method.fit(key, data))(data)
    np.testing.assert_allclose(parts.alpha, whole.alpha, rtol=1e-8, atol=1e-10)
    assert set(parts.stats) == set(whole.stats)
    for name, value in whole.stats.items():
        np.testing.assert_allclose(parts.stats[name], value, rtol=1e-8)
