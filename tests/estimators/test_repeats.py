"""Fits to data with repeated rows are compared with refits without these rows, and with formulas on distinct rows in NumPy."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.estimators.repeats import Sample, distinct, first_of_equals
from tsjax.estimators.ridge import PATH
from tsjax.estimators.tuning import hold_out
from tsjax.kernels import RBF

RNG = np.random.default_rng(SEED)
N = 60
TRUTH = lambda x: np.sin(2.0 * x[:, 0]) + x[:, 1]
# Copies are measured anew, so that responses differ within groups.
POINTS = RNG.normal(size=(N, 3))
GROUP = RNG.integers(0, N, N)
DISTINCT, OF_GROUP, COPIES = np.unique(GROUP, return_inverse=True, return_counts=True)
X, Y = POINTS[GROUP], TRUTH(POINTS[GROUP]) + 0.3 * RNG.normal(size=N)
DATA = ts.Dataset(x=jnp.asarray(X), y=jnp.asarray(Y))
MEANS = np.bincount(OF_GROUP, Y) / COPIES
SCATTER = np.mean((Y - MEANS[OF_GROUP]) ** 2)


def _gram(a, b):
    return np.exp(-0.5 * np.sum((a[:, None] - b[None]) ** 2, axis=2))


def _weighted():
    """D^{1/2} K D^{1/2} and D^{1/2} ybar of the distinct rows."""
    root = np.sqrt(COPIES)
    return _gram(POINTS[DISTINCT], POINTS[DISTINCT]) * root[:, None] * root[None, :], root * MEANS


@pytest.mark.parametrize(
    "x",
    [
        X,
        RNG.integers(0, 3, (200, 4)).astype(float),
        1.0 + 2.0**-52 * RNG.integers(0, 9, (100, 1)),
        np.where(RNG.integers(0, 2, (20, 2)) == 0, 0.0, -0.0),
        1e60 * X,
        1e-60 * X,
        X * [1e40, 1.0, 1e-40],
    ],
    ids=["bootstrap", "grid", "last bit", "signed zeros", "large", "small", "of all sizes"],
)
def test_equal_rows_are_found(x):
    first = [int(np.flatnonzero((x == row).all(axis=1))[0]) for row in x]
    np.testing.assert_array_equal(jax.jit(first_of_equals)(jnp.asarray(x)), first)


def test_distinct_rows_have_weight_one():
    rows = distinct(Sample(jnp.asarray(POINTS), jnp.asarray(Y)[:, None], None))
    np.testing.assert_array_equal(rows.root, 1.0)
    np.testing.assert_array_equal(rows.y[:, 0], Y)
    assert float(rows.groups) == float(rows.n) == float(rows.total) == N and float(rows.scatter) == 0.0


def test_the_first_row_of_weight_above_zero_stands_for_its_group():
    """Row 0 has weight 0, and rows 1 and 3 are equal to it."""
    x, y = jnp.array([[1.0], [1.0], [2.0], [1.0]]), jnp.array([[9.0], [1.0], [5.0], [4.0]])
    rows = distinct(Sample(x, y, jnp.array([0.0, 2.0, 0.5, 1.0])))
    np.testing.assert_allclose(rows.root, np.sqrt([0.0, 3.0, 0.5, 0.0]))
    np.testing.assert_allclose(rows.mean[:, 0], [2.0, 2.0, 5.0, 2.0])
    assert (float(rows.groups), float(rows.n), float(rows.total)) == (2.0, 3.0, 3.5)
    np.testing.assert_allclose(rows.scatter, (2.0 * 1.0 + 4.0) / 3.5)


def test_criteria_are_those_of_the_distinct_rows(key):
    """GCV and the marginal likelihood use the noise ridge / multiplicity on distinct rows. Leave-one-out equals refits without
    whole groups."""
    gram, y = _weighted()
    count, ridges = len(y), PATH * N / N
    rests = [r * np.linalg.inv(gram + r * np.eye(count)) for r in ridges]
    gcv = np.array([count**2 / N * np.sum((rest @ y) ** 2) / np.trace(rest) ** 2 for rest in rests]) + SCATTER
    judged = np.array([np.trace(r) ** 2 >= 10 * np.sum(r * r) for r in rests])
    noise = [_gram(POINTS[DISTINCT], POINTS[DISTINCT]) + np.diag(r / COPIES) for r in ridges]
    likelihood = np.array([np.log(MEANS @ np.linalg.solve(k, MEANS)) + np.linalg.slogdet(k)[1] / count for k in noise])
    fits = {}
    for criterion, score in (("gcv", np.where(judged, gcv, np.inf)), ("marginal_likelihood", likelihood)):
        with pytest.warns(
            UserWarning, match=rf"{N - count} of {N} rows of x repeat an earlier row; ridge='{criterion}'"
        ):
            fits[criterion] = ts.KernelRidge(RBF(1.0), ridge=criterion).fit(key, DATA)
        best = int(np.argmin(score))
        np.testing.assert_allclose(fits[criterion].stats["ridge"], ridges[best], rtol=1e-9)
        np.testing.assert_allclose(fits[criterion].stats["gcv"], gcv[best], rtol=1e-8)
        np.testing.assert_allclose(fits[criterion].stats["dof"], count - np.trace(rests[best]), rtol=1e-8)
    ridge = float(fits["gcv"].stats["ridge"])
    fixed = ts.KernelRidge(RBF(1.0), ridge=ridge).fit(key, DATA)
    # The same function as that of all rows.
    alpha = np.linalg.solve(_gram(X, X) + ridge * np.eye(N), Y)
    for fit in (fixed, fits["gcv"]):
        np.testing.assert_allclose(fit.predict(jnp.asarray(POINTS[:7])), _gram(POINTS[:7], X) @ alpha, rtol=1e-8)
    errors = np.zeros(N)
    for group in range(count):
        keep = OF_GROUP != group
        without = np.linalg.solve(_gram(X[keep], X[keep]) + ridge * np.eye(keep.sum()), Y[keep])
        errors[~keep] = Y[~keep] - _gram(X[~keep], X[keep]) @ without
    np.testing.assert_allclose(fixed.stats["loo"], np.mean(errors**2), rtol=1e-9)


def _features(count, ridge):
    return ts.RandomFeatures(count, ridge, features="fourier")


RIDGE_LOO = ts.KernelRidge(RBF(1.0), ridge="loo")
BOOTSTRAPPED = [
    (ts.KernelRidge(RBF(1.0), ridge="gcv"), RIDGE_LOO),
    (ts.KernelRidge(RBF(1.0), ridge="marginal_likelihood"), RIDGE_LOO),
    (ts.GradientFlow(RBF(1.0)), RIDGE_LOO),
    pytest.param(RIDGE_LOO, RIDGE_LOO, marks=pytest.mark.slow),
    pytest.param(ts.SpectralCutoff(RBF(1.0)), RIDGE_LOO, marks=pytest.mark.slow),
    pytest.param(ts.IterativeRidge(RBF(1.0), rank=60, dtype="float64"), RIDGE_LOO, marks=pytest.mark.slow),
    pytest.param(_features(50, "gcv"), _features(50, "loo"), marks=pytest.mark.slow),
    pytest.param(_features(50, "marginal_likelihood"), _features(50, "loo"), marks=pytest.mark.slow),
    pytest.param(_features(200, "gcv"), _features(200, "loo"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("estimator", "reference"), BOOTSTRAPPED)
def test_a_bootstrap_sample_is_no_reason_to_interpolate(key, estimator, reference):
    """Whole rows repeat, with their responses. The risk is within a factor of two of that of leave-one-out on the distinct rows
    of the sample, which has no copies."""
    rng = np.random.default_rng(SEED + 1)
    x = rng.normal(size=(100, 3))
    y, chosen, new = TRUTH(x) + 0.3 * rng.normal(size=100), rng.integers(0, 100, 100), rng.normal(size=(2000, 3))
    data = lambda rows: ts.Dataset(x=jnp.asarray(x[rows]), y=jnp.asarray(y[rows]))
    risk = lambda fit: float(np.mean((np.asarray(fit.predict(jnp.asarray(new))) - TRUTH(new)) ** 2))
    # Under jit nothing can warn, and nothing needs to.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = jax.jit(estimator.fit)(key, data(chosen))
    without = reference.fit(key, data(np.unique(chosen)))
    assert int(fit.status) == ts.Status.CONVERGED and risk(fit) < 2.0 * risk(without)


@pytest.mark.parametrize(
    "estimator",
    [
        ts.NadarayaWatson(bandwidth=0.7),
        pytest.param(ts.LocalLinear(bandwidth=1.5), marks=pytest.mark.slow),
        ts.NearestNeighbours(k=5),
    ],
    ids=lambda e: type(e).__name__,
)
def test_smoothers_leave_groups_out(key, estimator):
    fit = estimator.fit(key, DATA)
    hat = np.asarray(jax.vmap(lambda y: estimator.fit(key, ts.Dataset(x=DATA.x, y=y)).predict(DATA.x))(jnp.eye(N))).T
    np.testing.assert_allclose(fit.stats["dof"], np.trace(hat), rtol=1e-9)
    refit = jax.jit(lambda x, y, new: estimator.fit(key, ts.Dataset(x=x, y=y)).predict(new)[0])
    errors, mean_squares, shares = np.zeros(N), 0.0, 0.0
    for group, copies in enumerate(COPIES):
        keep = OF_GROUP != group
        # Of one shape, which compiles once: the rows of the group far away, where they have no weight.
        x = np.where(keep[:, None], X, 1e2)
        at = X[~keep][:1]
        errors[~keep] = Y[~keep] - float(refit(x, Y, at))
        residual = (Y - hat @ Y)[~keep].mean()
        mean_squares += copies * residual**2
        shares += 1.0 - hat[np.ix_(~keep, ~keep)].sum() / copies
    # Local linear regression has a jitter, from which far rows are not quite absent.
    tolerance = 1e-4 if isinstance(estimator, ts.LocalLinear) else 1e-9
    np.testing.assert_allclose(fit.stats["loo"], np.mean(errors**2), rtol=tolerance)
    count = len(COPIES)
    np.testing.assert_allclose(fit.stats["gcv"], count**2 / N * mean_squares / shares**2 + SCATTER, rtol=1e-6)


@pytest.mark.slow
def test_copies_are_held_out_together():
    """Rows of the group at the border that are not held out are in neither part. Without repeated rows the parts are those of a
    permutation."""
    for seed in range(5):
        (x, y, weight), (x_held, y_held, _) = hold_out(jax.random.key(seed), Sample(DATA.x, DATA.y[:, None], None))
        assert weight is not None and len(x) == len(y) == 48 and len(x_held) == len(y_held) == 12
        kept = weight > 0
        # With weights of 1 the parts are the same rows, marked and not cut.
        ones = Sample(DATA.x, DATA.y[:, None], jnp.ones(N))
        for part, rows in zip(hold_out(jax.random.key(seed), ones), (x[kept], x_held), strict=True):
            np.testing.assert_array_equal(part.x[part.present], rows)
        held = {tuple(row) for row in np.asarray(x_held)}
        assert not held & {tuple(row) for row in np.asarray(x)[np.asarray(kept)]}
        assert held >= {tuple(row) for row in np.asarray(x)[~np.asarray(kept)]}
    (x, _, kept), (x_held, _, _) = hold_out(jax.random.key(SEED), Sample(jnp.asarray(POINTS), DATA.y[:, None], None))
    assert kept is not None and bool((kept == 1.0).all())
    both = np.concatenate([x, x_held])
    np.testing.assert_array_equal(both[np.lexsort(both.T)], POINTS[np.lexsort(POINTS.T)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:84 of 100 rows")
def test_a_group_that_is_most_of_the_data_is_split_from_the_rest():
    """85 of 100 rows are equal. For some keys all rows to fit belong to this group, and so does the border."""
    x = jnp.asarray(np.append(np.zeros(85), np.arange(1.0, 16.0)))[:, None]
    y = jnp.asarray(RNG.normal(size=100))
    ridges = []
    for seed in range(6):
        (rows, _, weight), (held, _, _) = hold_out(jax.random.key(seed), Sample(x, y[:, None], None))
        assert weight is not None
        kept = weight > 0
        assert bool(kept.any()) and not set(np.asarray(held[:, 0])) & set(np.asarray(rows[kept, 0]))
        fit = jax.jit(lambda key: ts.KernelRidge(RBF(1.0), ridge="holdout").fit(key, ts.Dataset(x=x, y=y)))
        ridges.append(float(fit(jax.random.key(seed)).stats["ridge"]))
    # The response is noise, so that no split is a reason to interpolate.
    assert min(ridges) > 1e-3


def test_the_warning_names_the_line_of_the_caller(key):
    for estimator in (ts.KernelRidge(RBF(1.0)), ts.NearestNeighbours(), ts.Standardized(ts.KernelRidge(RBF(1.0)))):
        with pytest.warns(UserWarning, match="repeat an earlier row") as found:
            estimator.fit(key, DATA)
        assert found[0].filename == __file__


def test_a_search_needs_two_distinct_rows(key):
    same = ts.Dataset(x=jnp.ones((5, 2)), y=jnp.arange(5.0))
    for estimator in (ts.KernelRidge(RBF(1.0)), ts.GradientFlow(RBF(1.0)), ts.NadarayaWatson()):
        with pytest.raises(ValueError, match=r"but all 5 rows of x are equal\. Give a number"):
            estimator.fit(key, same)
    fit = ts.KernelRidge(RBF(1.0), ridge=0.5).fit(key, same)
    np.testing.assert_allclose(fit.predict(same.x[:1]), [10.0 / 5.5], rtol=1e-12)
