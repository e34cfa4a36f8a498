"""Dense linear algebra on the leading rows of long arrays is compared with the same algebra on these rows alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.estimators import leading
from tsjax.estimators.repeats import sample_of
from tsjax.size import Size, ladder

LIMIT = 300
EXTENTS = (1, 20, 38, 39, 151, LIMIT)


def test_ladder():
    assert ladder(4096) == (512, 1024, 2048, 4096) and ladder(300) == (38, 75, 150, 300)
    assert ladder(100) == (50, 100) and ladder(40) == (40,) and ladder(1) == (1,)


def _padded(extent: int, fill: float):
    """A positive definite matrix of `extent` rows, and a larger matrix that contains it and is diagonal after it."""
    a = np.random.default_rng(SEED + extent).normal(size=(extent, extent + 5))
    own, whole = a @ a.T, np.diag(np.full(LIMIT, fill))
    whole[:extent, :extent] = own
    return own, jnp.asarray(whole)


@pytest.mark.parametrize("extent", EXTENTS)
def test_eigenvalues_of_other_rows_come_first(extent):
    own, whole = _padded(extent, -1.0)
    values, vectors = leading.eigh(whole, jnp.asarray(extent))
    assert (values[: LIMIT - extent] == -1.0).all()
    np.testing.assert_allclose(values[LIMIT - extent :], np.linalg.eigvalsh(own), atol=1e-9)
    np.testing.assert_allclose((vectors * values[None]) @ vectors.T, whole, atol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(LIMIT), atol=1e-12)


@pytest.mark.parametrize("extent", [2, *EXTENTS[1:]])
def test_tridiagonal_form(extent):
    _, whole = _padded(extent, 4.0)
    b = jnp.zeros((LIMIT, 2)).at[:extent].set(jr.normal(jr.key(SEED), (extent, 2)))
    form = leading.tridiagonal(whole, b, jnp.asarray(extent))
    t = jnp.diag(form.diagonal) + jnp.diag(form.beside, 1) + jnp.diag(form.beside, -1)
    q = leading.rotated(form, jnp.eye(LIMIT), jnp.asarray(LIMIT))
    np.testing.assert_allclose(q @ t @ q.T, whole, atol=1e-9)
    np.testing.assert_allclose(form.rotated, q.T @ b, atol=1e-12)
    # Columns that are 0 from there on are moved at the size that holds the rest.
    np.testing.assert_allclose(leading.rotated(form, form.rotated, jnp.asarray(extent)), b, atol=1e-12)


@pytest.mark.parametrize("extent", EXTENTS)
def test_products_of_features(extent):
    phi = jnp.zeros((LIMIT, 2 * LIMIT)).at[:extent, : 2 * extent].set(jr.normal(jr.key(SEED), (extent, 2 * extent)))
    for per_row in (None, 2):
        found = leading.outer_gram(phi, jnp.asarray(extent), per_row)
        np.testing.assert_allclose(found, phi @ phi.T, atol=1e-12)
    few = phi[:, :7]
    np.testing.assert_allclose(leading.inner_gram(few, jnp.asarray(extent)), few.T @ few, atol=1e-12)
    u, s, vt = leading.svd(few, jnp.asarray(extent))
    np.testing.assert_allclose((u * s[None]) @ vt, few, atol=1e-12)


@pytest.mark.parametrize("kernel", [ts.kernels.ntk(depth=2), ts.kernels.RBF(0.7)], ids=["ntk", "rbf"])
@pytest.mark.parametrize("extent", EXTENTS)
def test_kernel_matrix(kernel, extent):
    """Blocks of rows are computed up to the last row that counts, and the diagonal is the kernel's own."""
    x = jr.normal(jr.key(SEED), (LIMIT, 3), jnp.float64)
    found = leading.kernel_matrix(kernel, x, jnp.asarray(extent))
    np.testing.assert_allclose(found[:extent], kernel(x)[:extent], atol=1e-13)
    assert (leading.kernel_matrix(kernel, x, None) == kernel(x)).all()


def test_a_batch_takes_the_largest_and_runs_one_size():
    """All members of a batch run at the size that the largest member needs, and no other size runs."""
    limit, sizes = 64, jnp.asarray([5, 30, 17])
    of = lambda size: lambda a: jnp.sum(a[:size]) + 1000.0 * size
    found = jax.jit(jax.vmap(lambda n: leading.at_extent(n, limit, of, jnp.ones(limit))))(sizes)
    assert found.tolist() == [32032.0] * 3
    # By a batched size all of them would run, and one be selected.
    text = str(jax.make_jaxpr(jax.vmap(lambda n: leading.at_extent(n, limit, of, jnp.ones(limit))))(sizes))
    assert text.count("cond[") == 1 and "select" not in text


@pytest.mark.parametrize(
    "estimator",
    [
        ts.KernelRidge(ts.kernels.ntk(), ridge="gcv"),
        pytest.param(ts.RandomFeatures(), marks=pytest.mark.slow),
        pytest.param(ts.SpectralCutoff(ts.kernels.ntk()), marks=pytest.mark.slow),
        pytest.param(ts.KernelRidge(ts.kernels.ntk(), ridge="loo"), marks=pytest.mark.slow),
        pytest.param(ts.KernelRidge(ts.kernels.ntk(), ridge=0.1), marks=pytest.mark.slow),
        pytest.param(ts.RandomFeatures(count=20, ridge="loo"), marks=pytest.mark.slow),
    ],
    ids=["gcv", "features", "cut-off", "loo", "fixed", "few features"],
)
def test_fits_in_longer_arrays(estimator):
    """One program fits sizes on every rung of the ladder, and its fits equal those in arrays of their own length."""
    problem = ts.Problem(inputs=ts.Sphere(d=3), teacher=ts.ReLUTeacher(m=2), noise_std=0.1)
    teacher = problem.sample_teacher(jr.key(SEED))
    x = problem.inputs.sample(jr.key(SEED + 1), 50, jnp.float64)

    @eqx.filter_jit
    def predicted(n):
        return estimator.fit(jr.key(3), problem.sample(jr.key(2), teacher, n, jnp.float64)).predict(x)

    for count in (33, 128, 250):
        own = predicted(Size(limit=count, count=count))
        np.testing.assert_allclose(predicted(Size(limit=256, count=jnp.asarray(count))), own, rtol=0, atol=1e-12)


def test_the_extent_of_a_sample():
    data = ts.Dataset(jnp.ones((4, 1)), jnp.ones(4), jnp.asarray([1.0, 0.0, 2.0, 0.0]))
    assert sample_of(data).extent == 3 and sample_of(ts.Dataset(data.x, data.y)).extent is None
