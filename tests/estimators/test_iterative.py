import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import Mesh

import tsjax as ts
from tsjax.estimators.iterative import _PIVOT_STREAM
from tsjax.estimators.preconditioner import pivoted_cholesky
from tsjax.estimators.ridge import PATH
from tsjax.estimators.tiles import kernel_product, tiles_of
from tsjax.kernels import RBF, AbstractPairKernel, ArcCosineNTK, ntk

N = 150
TILE = 32
RIDGE = 0.01


class _Linear(AbstractPairKernel):
    """A kernel of rank d without fast tiles."""

    scale: float = 1.0

    def evaluate(self, x1, x2):
        return self.scale * jnp.sum(x1 * x2)


@pytest.fixture
def data(key):
    problem = ts.Problem(ts.Gaussian(4), ts.ReLUTeacher(2), 0.1)
    return problem.sample(jr.fold_in(key, 2), problem.sample_teacher(jr.fold_in(key, 1)), N)


def _iterative(kernel, **options):
    return ts.IterativeRidge(kernel, **{"ridge": RIDGE, "tile": TILE, "rank": 20, **options})


def _dense(kernel, data, ridge=RIDGE):
    gram, y = np.asarray(kernel(data.x)), np.asarray(data.y)
    return gram, np.linalg.solve(gram + ridge * np.eye(len(y)), y)


@pytest.mark.parametrize("n", [1, 150])
def test_the_product_is_that_of_the_matrix(key, n):
    x, v = jr.normal(key, (n, 4)), jr.normal(jr.fold_in(key, 1), (n,))
    tiles = tiles_of(ArcCosineNTK(), x, TILE, 1)
    padded = jnp.pad(v, (0, tiles.root.size - n)).reshape(tiles.root.shape)
    truth = np.asarray(ArcCosineNTK()(x)) @ np.asarray(v)
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-5)):
        product = kernel_product(ArcCosineNTK(), tiles, padded, dtype).reshape(-1)
        np.testing.assert_allclose(product[:n], truth, atol=tolerance * np.linalg.norm(v) * n**0.5)
        np.testing.assert_array_equal(product[n:], 0.0)


def test_the_factor_is_a_nystrom_approximation(key):
    x = jr.normal(key, (N, 4))
    tiles = tiles_of(RBF(2.0), x, TILE, 1)
    gram = np.asarray(RBF(2.0)(x))
    best = np.sort(np.linalg.eigvalsh(gram))[::-1]
    for rank in (5, 40):
        factor, found = pivoted_cholesky(RBF(2.0), tiles, key, rank, "float64")
        f = np.moveaxis(np.asarray(factor), 0, 2).reshape(-1, factor.shape[0] * factor.shape[-1])[:N]
        rest = gram - f @ f.T
        # Below K, and in trace as good as the best of a smaller rank, up to a factor: see arXiv:2207.06503.
        assert int(found) == rank and np.linalg.eigvalsh(rest).min() > -1e-10
        assert best[rank:].sum() <= np.trace(rest) < 2 * best[rank // 2 :].sum()
        # K - F F^T vanishes on the rows of the pivots.
        assert np.sum(np.abs(rest).max(axis=1) < 1e-10) >= rank


def test_groups_of_pivots_go_on_where_the_last_ended(key, monkeypatch):
    monkeypatch.setattr("tsjax.estimators.preconditioner._PIVOTS", 8)
    x = jr.normal(key, (N, 4))
    factor, found = pivoted_cholesky(RBF(2.0), tiles_of(RBF(2.0), x, TILE, 1), key, 30, "float64")
    assert factor.shape == (4, 5, TILE, 8) and int(found) == 30
    f = np.moveaxis(np.asarray(factor), 0, 2).reshape(-1, 32)[:N]
    rest = np.asarray(RBF(2.0)(x)) - f @ f.T
    assert np.linalg.eigvalsh(rest).min() > -1e-10 and np.sum(np.abs(rest).max(axis=1) < 1e-10) >= 24


@pytest.mark.parametrize(("kernel", "dtype"), [(ArcCosineNTK(), "float32"), (RBF(1.0), "float64"), (ntk(2), "float32")])
def test_agrees_with_a_dense_solve(data, key, kernel, dtype):
    fit = _iterative(kernel, dtype=dtype, tolerance=1e-10).fit(key, data)
    gram, alpha = _dense(kernel, data)
    assert fit.status == ts.Status.CONVERGED and fit.alpha.dtype == jnp.float64
    residual = np.asarray(data.y) - gram @ fit.alpha - RIDGE * np.asarray(fit.alpha)
    size = np.linalg.norm(data.y)
    # Except for near-duplicates, the residual that the fit reports is the true residual.
    assert np.linalg.norm(residual) / size < 1e-9 and float(fit.stats["residual"]) <= 1e-10
    np.testing.assert_allclose(fit.alpha, alpha, atol=1e-9 * size / RIDGE)
    x = jr.normal(key, (5, 4))
    np.testing.assert_allclose(fit.predict(x), np.asarray(kernel(x, data.x)) @ alpha, rtol=1e-6, atol=1e-7)
    assert fit.stats.keys() == {"ridge", "residual", "steps", "rank"} and fit.stats["ridge"] == RIDGE


def test_the_preconditioner_saves_steps(data, key):
    steps = [int(_iterative(ArcCosineNTK(), rank=rank).fit(key, data).stats["steps"]) for rank in (1, 20)]
    assert steps[0] > 2 * steps[1]


def test_float32_data_without_the_flag(data, key):
    truth = _iterative(ArcCosineNTK()).fit(key, data).predict(data.x)
    with jax.enable_x64(False):
        single = ts.Dataset(x=data.x.astype(jnp.float32), y=data.y.astype(jnp.float32))
        fit = _iterative(ArcCosineNTK()).fit(key, single)
        assert fit.alpha.dtype == jnp.float64 and fit.status == ts.Status.CONVERGED
        np.testing.assert_allclose(fit.predict(single.x), truth, rtol=1e-3, atol=1e-4)
        with pytest.raises(RuntimeError, match="needs float64"):
            jax.jit(_iterative(ArcCosineNTK()).fit)(key, single)


def test_another_ridge_does_not_compile_again(data, key, caplog):
    def compilations(length_scale, ridge, tolerance):
        caplog.clear()
        with jax.log_compiles():
            _iterative(RBF(length_scale), ridge=ridge, tolerance=tolerance, tile=40).fit(key, data)
        return sum(record.getMessage().startswith("Compiling") for record in caplog.records)

    assert compilations(0.31, 0.1, 1e-5) > 0  # This is a control: a new compilation is counted.
    assert compilations(0.62, 0.2, 1e-6) == 0


def test_ridges_are_traced(data, key):
    mapped = jax.vmap(lambda r: _iterative(ArcCosineNTK(), ridge=r, tolerance=1e-9).fit(key, data))(
        jnp.array([0.1, 1.0])
    )
    for i, ridge in enumerate([0.1, 1.0]):
        np.testing.assert_allclose(mapped.alpha[i], _dense(ArcCosineNTK(), data, ridge)[1], rtol=1e-5, atol=1e-7)


def test_predictions_make_no_matrix_of_all_points(data, key):
    fit = _iterative(ArcCosineNTK()).fit(key, data)
    x = jr.normal(key, (500, 4))
    np.testing.assert_allclose(
        fit.predict(x), np.asarray(ArcCosineNTK()(x, data.x)) @ np.asarray(fit.alpha), rtol=1e-7, atol=1e-8
    )
    program = str(jax.make_jaxpr(fit.predict)(x))
    assert "f64[32,32]" in program and "[500,150]" not in program and "[32,150]" not in program


def test_a_target_of_zero(data, key):
    fit = _iterative(ArcCosineNTK()).fit(key, ts.Dataset(x=data.x, y=jnp.zeros(N)))
    assert fit.status == ts.Status.CONVERGED and fit.stats["residual"] == 0.0 and not fit.alpha.any()


@pytest.mark.parametrize(
    ("kernel", "dtype"), [(RBF(3.0), "float32"), (ArcCosineNTK(), "float64"), (_Linear(), "float32")]
)
def test_duplicates_and_ridge_zero_give_a_status(data, key, kernel, dtype):
    # Contradictory targets at one point: no alpha fits them at ridge 0.
    x = data.x.at[1].set(data.x[0]).at[10:60].set(data.x[10])
    for ridge in (0.0, 1e-12, RIDGE):
        fit = _iterative(kernel, ridge=ridge, rank=100, dtype=dtype, max_steps=60).fit(key, ts.Dataset(x=x, y=data.y))
        alpha = np.asarray(fit.alpha)
        assert np.isfinite(alpha).all() and np.isfinite(fit.predict(x)).all()
        true = np.linalg.norm(np.asarray(data.y) - np.asarray(kernel(x)) @ alpha - ridge * alpha)
        relative = true / np.linalg.norm(data.y)
        if fit.status == ts.Status.CONVERGED:
            assert relative < 2e-6 and ridge > 0
        else:
            assert int(fit.status) in (ts.Status.STEP_LIMIT, ts.Status.SINGULAR)
            assert float(fit.stats["residual"]) > 1e-6
        if ridge == RIDGE:
            assert fit.status == ts.Status.CONVERGED


def test_too_few_steps_are_a_status(data, key):
    fit = _iterative(ArcCosineNTK(), rank=1, max_steps=3).fit(key, data)
    assert fit.status == ts.Status.STEP_LIMIT and int(fit.stats["steps"]) == 3 and fit.stats["residual"] > 1e-6


@pytest.mark.parametrize("criterion", ["gcv", pytest.param("marginal_likelihood", marks=pytest.mark.slow)])
def test_a_search_at_full_rank_is_that_of_kernel_ridge(data, key, criterion):
    exact = ts.KernelRidge(ntk(), ridge=criterion).fit(key, data)
    fit = _iterative(ntk(), ridge=criterion, rank=N, dtype="float64", tolerance=1e-12).fit(key, data)
    for name in ("ridge", "dof", "gcv"):
        np.testing.assert_allclose(fit.stats[name], exact.stats[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(fit.alpha, exact.alpha, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["gcv", "marginal_likelihood"])
def test_a_search_scores_the_approximation_with_its_tail(data, key, criterion):
    """The scores equal those of dense algebra on F F^T + tail I, and are close to the exact search if F holds most of K."""
    fit = _iterative(ntk(), ridge=criterion, rank=40).fit(key, data)
    tiles = tiles_of(ntk(), data.x, TILE, 1)
    factor, _ = pivoted_cholesky(ntk(), tiles, jr.fold_in(key, _PIVOT_STREAM), 40, "float32")
    f = np.asarray(jnp.moveaxis(factor, 0, 2).reshape(tiles.root.size, -1), float)[:N]
    trace, y = float(jnp.sum(ntk().diagonal(data.x))), np.asarray(data.y)
    tail = (trace - np.sum(f**2)) / N
    np.testing.assert_allclose(fit.stats["tail"], tail, rtol=1e-6)
    best = {}
    for ridge in trace / N * PATH:
        matrix = f @ f.T + (tail + ridge) * np.eye(N)
        inverse = np.linalg.inv(matrix)
        if criterion == "gcv":
            score = N * np.sum((inverse @ y) ** 2) / np.trace(inverse) ** 2
        else:
            score = np.log(y @ inverse @ y) + np.linalg.slogdet(matrix)[1] / N
        best |= {score: ridge} if ridge >= tail else {}
    np.testing.assert_allclose(fit.stats["ridge"], best[min(best)], rtol=1e-9)
    # A step of the path is a factor 1.6; with more columns the search is the exact one.
    exact = ts.KernelRidge(ntk(), ridge=criterion).fit(key, data)
    close = _iterative(ntk(), ridge=criterion, rank=100).fit(key, data)
    assert abs(np.log(close.stats["ridge"] / exact.stats["ridge"])) < 0.5
    gram = np.asarray(ntk()(data.x))
    rest = gram @ fit.alpha + float(fit.stats["ridge"]) * np.asarray(fit.alpha) - y
    assert np.linalg.norm(rest) < 1e-6 * np.linalg.norm(y)


def test_errors(data, key):
    cases = [
        (
            lambda: _iterative(ArcCosineNTK(), ridge=-0.1),
            r"ridge must be finite and >= 0, or one of \('gcv', .*; got -0\.1",
        ),
        (lambda: _iterative(ntk(), ridge="loo"), r"one of \('gcv', 'marginal_likelihood'\), got 'loo'"),
        (
            lambda: _iterative(ntk(), ridge="gcv").fit(key, ts.Dataset(x=data.x[:1], y=data.y[:1])),
            r"needs n >= 2; got n=1",
        ),
        (lambda: _iterative(ntk), r"needs a kernel such as tsjax\.kernels\.ntk\(depth=1\), got"),
        (lambda: _iterative(ntk(), rank=0), r"rank must be finite and at least 1, got 0"),
        (lambda: _iterative(ntk(), max_steps=0), r"max_steps must be finite and at least 1, got 0"),
        (lambda: _iterative(ntk(), tile=0), r"tile must be finite and at least 1, got 0"),
        (lambda: _iterative(ntk(), tolerance=0.0), r"tolerance must be finite and at least 1e-15, got 0\.0"),
        (lambda: _iterative(ntk(), dtype="bfloat16"), r"\"float32\" or \"float64\", got 'bfloat16'"),
        (
            lambda: _iterative(ntk(), mesh=Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("a", "b"))),
            r"a mesh with one axis, got axes \('a', 'b'\)",
        ),
        (
            lambda: _iterative(ntk()).fit(key, ts.Dataset(x=data.x, y=data.y.at[7].set(jnp.nan))),
            r"data\.y has 1 value\(s\) that are not finite, the first at index \(7,\)",
        ),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()


SCRIPT = """
import jax
import numpy as np
jax.config.update("jax_enable_x64", True)
import tsjax as ts
key = jax.random.key(0)
x, y = jax.random.normal(key, (203, 4)), jax.random.normal(jax.random.fold_in(key, 1), (203,))
mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("rows",))
kernel = ts.kernels.ArcCosineNTK()
assert mesh.size == 8
estimator = ts.IterativeRidge(kernel, rank=40, tile=16, tolerance=1e-10, mesh=mesh)
fit = estimator.fit(key, ts.Dataset(x=x, y=y))
assert fit.status == ts.Status.CONVERGED
alone = ts.IterativeRidge(kernel, rank=40, tile=16).fit(key, ts.Dataset(x=x, y=y))
np.testing.assert_allclose(fit.stats["ridge"], alone.stats["ridge"], rtol=1e-12)
alpha = np.linalg.solve(np.asarray(kernel(x)) + float(fit.stats["ridge"]) * np.eye(203), np.asarray(y))
np.testing.assert_allclose(fit.alpha, alpha, atol=1e-7)
np.testing.assert_allclose(fit.predict(x), np.asarray(kernel(x)) @ alpha, atol=1e-6)
print("agreed")
"""


@pytest.mark.slow
def test_eight_devices_agree_with_a_dense_solve():
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "PJRT_NPROC": "32", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "agreed" in done.stdout, done.stderr
