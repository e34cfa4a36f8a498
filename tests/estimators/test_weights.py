"""Sample weights and several outputs are compared with scikit-learn, refits, repeated rows and formulas in NumPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
import sklearn.kernel_ridge
import sklearn.linear_model
from helpers import SEED
from sklearn.preprocessing import StandardScaler

import tsjax as ts
from tsjax.estimators.ridge import PATH
from tsjax.kernels import RBF, DotProduct, Laplace

N = 24
RNG = np.random.default_rng(SEED)
X = RNG.normal(size=(N, 3))
Y = np.stack([np.sin(2.0 * X[:, 0]) + X[:, 1], X[:, 2] ** 2, X[:, 0]], axis=1) + 0.3 * RNG.normal(size=(N, 3))
WEIGHT = RNG.uniform(0.2, 3.0, N)
COUNTS = RNG.integers(0, 4, N)
NEW = jnp.asarray(RNG.normal(size=(7, 3)))
LAPLACE = np.exp(-np.linalg.norm(X[:, None] - X[None], axis=2))


def _data(y=Y, weight=WEIGHT, x=X):
    return ts.Dataset(jnp.asarray(x), jnp.asarray(y), None if weight is None else jnp.asarray(weight, float))


def _gram(a, b):
    return np.exp(-0.5 * np.sum((a[:, None] - b[None]) ** 2, axis=2))


RIDGES = {
    "ridge": ts.KernelRidge(RBF(1.0), ridge=0.2),
    "features": ts.RandomFeatures(40, 0.2),
    "primal": ts.RandomFeatures(8, 0.2, features="fourier"),
}
LINEAR = RIDGES | {
    "flow": ts.GradientFlow(RBF(1.0), time=40.0),
    "cutoff": ts.SpectralCutoff(RBF(1.0), components=6),
    "minimum_norm": ts.MinimumNorm(Laplace()),
    "nadaraya_watson": ts.NadarayaWatson(bandwidth=0.7),
    "local_linear": ts.LocalLinear(bandwidth=2.0),
    "neighbours": ts.NearestNeighbours(4),
}
ITERATIVE = ts.IterativeRidge(RBF(1.0), ridge=0.2, tile=8, tolerance=1e-12, dtype="float64")


@pytest.mark.parametrize("outputs", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_weighted_ridge_is_that_of_scikit_learn(key, outputs):
    y = Y[:, 0] if outputs == 1 else Y
    fit = RIDGES["ridge"].fit(key, _data(y))
    theirs = sklearn.kernel_ridge.KernelRidge(alpha=0.2, kernel="rbf", gamma=0.5).fit(X, y, sample_weight=WEIGHT)
    np.testing.assert_allclose(fit.predict(NEW), theirs.predict(np.asarray(NEW)), rtol=1e-8)
    assert fit.alpha.shape == y.shape
    np.testing.assert_allclose(ITERATIVE.fit(key, _data(y)).predict(NEW), theirs.predict(np.asarray(NEW)), rtol=1e-8)
    linear = ts.KernelRidge(DotProduct((0.0, 1.0)), ridge=0.5).fit(key, _data(y))
    ridge = sklearn.linear_model.Ridge(alpha=0.5, fit_intercept=False).fit(X, y, sample_weight=WEIGHT)
    np.testing.assert_allclose(linear.predict(NEW), ridge.predict(np.asarray(NEW)), rtol=1e-8)
    for name in ("features", "primal"):
        fit = LINEAR[name].fit(key, _data(y))
        phi = lambda x, fit=fit: np.asarray(fit.features.features(jnp.asarray(x)))
        ridge = sklearn.linear_model.Ridge(alpha=0.2, fit_intercept=False, solver="cholesky")
        ridge.fit(phi(X), y, sample_weight=WEIGHT)
        np.testing.assert_allclose(fit.predict(NEW), ridge.predict(phi(NEW)), rtol=1e-8)


@pytest.mark.parametrize("name", LINEAR)
def test_statistics_are_those_of_the_hat_matrix_and_of_refits(key, name):
    """The columns of the hat matrix are the fits of the n columns of I. A weight of 0 leaves a row out."""
    estimator = LINEAR[name]
    fit = estimator.fit(key, _data())
    hat = np.asarray(estimator.fit(key, _data(np.eye(N))).predict(jnp.asarray(X)))
    np.testing.assert_allclose(fit.predict(jnp.asarray(X)), hat @ Y, rtol=1e-8, atol=1e-9)
    total, rest = WEIGHT.sum(), Y - hat @ Y
    np.testing.assert_allclose(fit.stats["dof"], np.trace(hat), rtol=1e-8)
    weighted = lambda errors: np.sum(WEIGHT[:, None] * errors**2) / total
    if name == "minimum_norm":
        # It explains everything, and its scores are limits.
        rest, diagonal = np.linalg.solve(LAPLACE, Y) / WEIGHT[:, None], np.diag(np.linalg.inv(LAPLACE)) / WEIGHT
        gcv = weighted(rest) / np.mean(diagonal) ** 2
        loo = weighted(rest / diagonal[:, None])
    else:
        gcv = weighted(rest) / (1.0 - np.trace(hat) / N) ** 2
        loo = weighted(rest / (1.0 - np.diag(hat))[:, None])
    np.testing.assert_allclose(fit.stats["gcv"], gcv, rtol=1e-6)
    if name not in ("flow", "cutoff", "neighbours", "minimum_norm"):
        np.testing.assert_allclose(fit.stats["loo"], loo, rtol=1e-6)
    if name not in ("flow", "cutoff"):
        without = jnp.asarray(WEIGHT * (1.0 - np.eye(N)))
        refits = jax.vmap(
            lambda w: estimator.fit(key, ts.Dataset(jnp.asarray(X), jnp.asarray(Y), w)).predict(jnp.asarray(X))
        )
        predicted = np.asarray(refits(without))[np.arange(N), np.arange(N)]
        np.testing.assert_allclose(fit.stats["loo"], weighted(Y - predicted), rtol=1e-6)


@pytest.mark.parametrize("criterion", ["gcv", "loo", "marginal_likelihood"])
@pytest.mark.parametrize("features", [None, 8])
def test_search_finds_the_brute_force_minimum(key, criterion, features):
    """Scores are summed over outputs, one of them 0 everywhere. The density of the marginal likelihood is SciPy's."""
    y = np.concatenate([Y, np.zeros((N, 1))], axis=1)
    if features is None:
        fit, gram = ts.KernelRidge(RBF(1.0), ridge=criterion).fit(key, _data(y)), _gram(X, X)
    else:
        fit = ts.RandomFeatures(features, criterion).fit(key, _data(y))
        phi = np.asarray(fit.features.features(jnp.asarray(X)))
        gram = phi @ phi.T
    ridges = PATH * np.sum(WEIGHT * np.diag(gram)) / WEIGHT.sum()
    root, scores = np.sqrt(WEIGHT), []
    for ridge in ridges:
        rest = ridge * np.linalg.inv(gram * root[:, None] * root + ridge * np.eye(N))
        residual = rest @ (root[:, None] * y)
        if criterion == "gcv":
            judged = np.trace(rest) ** 2 >= N / 4 * np.sum(rest**2)
            scores.append(np.sum(residual**2) / WEIGHT.sum() / np.mean(np.diag(rest)) ** 2 if judged else np.inf)
        elif criterion == "loo":
            scores.append(np.sum((residual / np.diag(rest)[:, None]) ** 2) / WEIGHT.sum())
        else:
            noisy = gram + ridge * np.diag(1.0 / WEIGHT)
            tau = np.sum(Y * np.linalg.solve(noisy, Y), axis=0) / N
            log_det = np.linalg.slogdet(noisy)[1] + N * np.log(2.0 * np.pi * tau) + N
            scores.append(0.5 * np.sum(log_det))
            if np.linalg.cond(noisy) < 1e6:
                gaussians = [scipy.stats.multivariate_normal(np.zeros(N), t * noisy) for t in tau]
                density = sum(gaussian.logpdf(Y[:, c]) for c, gaussian in enumerate(gaussians))
                np.testing.assert_allclose(scores[-1], -density, rtol=1e-9)
    scores = np.array(scores)
    np.testing.assert_allclose(fit.stats["ridge"], ridges[np.argmin(scores)], rtol=1e-8)
    if criterion != "marginal_likelihood":
        np.testing.assert_allclose(fit.stats[criterion], scores.min(), rtol=1e-7)


@pytest.mark.filterwarnings("ignore:.*repeat an earlier row")
@pytest.mark.parametrize(
    "estimator",
    [
        ts.KernelRidge(RBF(1.0), ridge="gcv"),
        ts.KernelRidge(RBF(1.0), ridge="loo"),
        ts.KernelRidge(RBF(1.0), ridge="marginal_likelihood"),
        ts.RandomFeatures(8, "gcv"),
        ts.GradientFlow(RBF(1.0), time="gcv"),
        ts.Standardized(ts.KernelRidge(RBF(1.0), ridge=0.3)),
        *(LINEAR[name] for name in ("cutoff", "minimum_norm", "nadaraya_watson", "local_linear")),
    ],
    ids=lambda e: type(e).__name__,
)
def test_integer_weights_are_repeated_rows(key, estimator):
    weighted = estimator.fit(key, _data(weight=COUNTS))
    repeated = estimator.fit(key, _data(np.repeat(Y, COUNTS, axis=0), None, np.repeat(X, COUNTS, axis=0)))
    np.testing.assert_allclose(weighted.predict(NEW), repeated.predict(NEW), rtol=1e-7, atol=1e-9)
    for name in weighted.stats.keys() - {"components"}:
        np.testing.assert_allclose(weighted.stats[name], repeated.stats[name], rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator", [*LINEAR.values(), ITERATIVE, ts.Standardized(RIDGES["ridge"])], ids=lambda e: type(e).__name__
)
def test_several_outputs_are_the_outputs_one_by_one(key, estimator):
    fit = estimator.fit(key, _data())
    assert fit.predict(NEW).shape == (7, 3)
    singles = [estimator.fit(key, _data(Y[:, c])) for c in range(3)]
    tolerance = 1e-9 if estimator is ITERATIVE else 1e-10
    for c, single in enumerate(singles):
        assert single.predict(NEW).shape == (7,)
        np.testing.assert_allclose(fit.predict(NEW)[:, c], single.predict(NEW), rtol=tolerance, atol=tolerance)
    if "gcv" in fit.stats and not isinstance(fit, ts.StandardizedFit):
        np.testing.assert_allclose(fit.stats["gcv"], sum(single.stats["gcv"] for single in singles), rtol=1e-9)


@pytest.mark.parametrize(
    "estimator",
    [ts.KernelRidge(RBF(1.0), ridge="holdout"), ts.NearestNeighbours("holdout")],
    ids=lambda e: type(e).__name__,
)
def test_rows_of_weight_zero_are_not_held_out(key, estimator):
    """Rows of weight 0 are not counted either: wherever they are, the choice is that of the data without them."""
    plain = estimator.fit(key, _data(weight=None))
    more = np.concatenate([X, 100.0 * RNG.normal(size=(9, 3))]), np.concatenate([Y, RNG.normal(size=(9, 3))])
    fit = estimator.fit(key, _data(more[1], np.arange(N + 9) < N, more[0]))
    np.testing.assert_allclose(fit.predict(NEW), plain.predict(NEW), rtol=1e-10, atol=1e-12)


def test_the_unit_of_weights_moves_the_path(key):
    """The best ridge is far above the path for weights of order 1, and the search finds it."""
    plain = ts.KernelRidge(RBF(1.0)).fit(key, _data())
    large = ts.KernelRidge(RBF(1.0)).fit(key, _data(weight=1e9 * WEIGHT))
    assert float(large.stats["ridge"]) > 1e6 * float(plain.stats["ridge"])
    np.testing.assert_allclose(large.stats["gcv"], plain.stats["gcv"], rtol=0.02)
    flow = [ts.GradientFlow(RBF(1.0), time=30.0).fit(key, _data(weight=c * WEIGHT)).predict(NEW) for c in (1.0, 1e9)]
    np.testing.assert_allclose(*flow, rtol=1e-6)


def test_weighted_scales_are_those_of_scikit_learn(key):
    scaler = StandardScaler().fit(X, sample_weight=WEIGHT)
    scale = ts.Standardized(RIDGES["ridge"]).fit(key, _data()).scale
    np.testing.assert_allclose(scale.x_mean, scaler.mean_, rtol=1e-10)
    np.testing.assert_allclose(scale.x_std, scaler.scale_, rtol=1e-10)


def test_the_linear_bound_knows_the_noise_of_each_row(key):
    """The reference is the covariance of the optimal linear estimate in NumPy, with noise sigma^2 / w."""
    problem = ts.Problem(ts.Gaussian(3), ts.ReLUTeacher(2), 0.4)
    fit = ts.OptimalLinear(problem, test_points=64).fit(key, _data(Y[:, 0]))
    gram = np.asarray(fit.kernel(jnp.asarray(X)))
    alpha = np.linalg.solve(gram + 0.16 * np.diag(1.0 / WEIGHT), Y[:, 0])
    np.testing.assert_allclose(fit.alpha, alpha, rtol=1e-8)


@pytest.mark.slow
def test_errors(key):
    ridge = RIDGES["ridge"]
    zeros = np.zeros(N)
    problem = ts.Problem(ts.Gaussian(3), ts.ReLUTeacher(2), 0.4)
    teacher = problem.sample_teacher(jr.fold_in(key, 1))
    several = ridge.fit(key, _data())
    cases = [
        (lambda: _data(weight=-WEIGHT), r"weight has 24 value\(s\) that are negative or not finite, the first, -"),
        (lambda: _data(weight=zeros), "all sample weights are 0"),
        (lambda: ts.OptimalLinear(problem).fit(key, _data()), r"y of shape \(n,\): this estimator has one output"),
        (lambda: ridge.fit(key, ts.Dataset(_data().x, jnp.arange(N))), "y holds class labels"),
        (
            lambda: ts.KernelRidge(RBF(1.0)).fit(key, _data(weight=np.eye(N)[0])),
            r"needs n >= 2; got n=1\. Give a number",
        ),
        (lambda: LINEAR["neighbours"].fit(key, _data(weight=np.arange(N) < 4)), r"need n > 4 points, got n=4"),
        (lambda: LINEAR["cutoff"].fit(key, _data(weight=np.arange(N) < 5)), r"components=6 .* n=5 points"),
        (lambda: ts.NadarayaWatson().fit(key, _data(weight=np.eye(N)[0])), "a smoother needs at least 2 points"),
        (
            lambda: ts.KernelRidge(RBF(1.0), ridge="oracle").fit(key, _data(), (problem, teacher)),
            r"the oracle's function has 1 output\(s\), but y has 3",
        ),
        (
            lambda: ts.excess_risk(problem, teacher, several, key=key),
            r"values of shape \(3,\), but the teacher has outputs",
        ),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
