import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.estimators.ridge import PATH
from tsjax.kernels import RBF, ArcCosineNTK, Matern, Polynomial, ntk
from tsjax.kernels import neural_tangents as bridge

N = 40


@pytest.fixture
def problem():
    return ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), 0.5)


def _hat(gram, share):
    """I - U diag(share) U^T in NumPy, where `share` is a function of the eigenvalues in descending order and their ranks."""
    s, u = np.linalg.eigh(gram)
    s, u = s[::-1], u[:, ::-1]
    return np.eye(N) - (u * share(s, np.arange(1, N + 1))) @ u.T


def test_gradient_flow_is_gradient_descent(data, key):
    """The references are many small gradient steps on half the mean squared error in the space of functions, and the prediction
    of neural-tangents."""
    gram, y = ArcCosineNTK()(data.x), data.y
    fit = ts.GradientFlow(ntk(), time=5.0).fit(key, data)
    steps = 20_000
    alpha = jax.lax.fori_loop(0, steps, lambda _, a: a - 5.0 / steps / N * (gram @ a - y), jnp.zeros(N))
    x = jr.normal(key, (6, 4))
    np.testing.assert_allclose(fit.predict(x), ArcCosineNTK()(x, data.x) @ alpha, rtol=1e-3, atol=1e-5)
    theirs = bridge.load().predict.gradient_descent_mse(gram, y[:, None])(5.0, 0.0, 0.0, ArcCosineNTK()(x, data.x))[1]
    np.testing.assert_allclose(fit.predict(x), theirs[:, 0], rtol=1e-9)
    assert float(fit.stats["time"]) == 5.0
    np.testing.assert_allclose(ts.GradientFlow(ntk(), time=0).fit(key, data).predict(x), 0.0)


def test_late_flow_and_all_components_interpolate(data, key):
    least = ts.MinimumNorm(ntk()).fit(key, data)
    np.testing.assert_allclose(least.predict(data.x), data.y, rtol=1e-6)
    np.testing.assert_allclose(least.alpha, np.linalg.solve(ArcCosineNTK()(data.x), data.y), rtol=1e-6)
    for other in (ts.GradientFlow(ntk(), time=1e12), ts.SpectralCutoff(ntk(), components=N)):
        fit = other.fit(key, data)
        np.testing.assert_allclose(fit.alpha, least.alpha, rtol=1e-6)
        # The scores are the limits of those of a ridge.
        for name in ("gcv", "loo"):
            limit = ts.KernelRidge(ntk(), ridge=1e-9).fit(key, data).stats[name]
            np.testing.assert_allclose(fit.stats[name], limit, rtol=1e-4)


def test_minimum_norm_of_repeated_points_is_that_of_their_means(data, key):
    twice = ts.Dataset(x=jnp.concatenate([data.x, data.x]), y=jnp.concatenate([data.y - 1.0, data.y + 1.0]))
    fit, once = ts.MinimumNorm(ArcCosineNTK()).fit(key, twice), ts.MinimumNorm(ArcCosineNTK()).fit(key, data)
    x = jr.normal(key, (6, 4))
    np.testing.assert_allclose(fit.predict(x), once.predict(x), rtol=1e-6)
    assert int(fit.status) == ts.Status.CONVERGED and float(fit.stats["dof"]) == N
    # With a kernel of finite rank it is least squares: linear functions and a constant.
    design = np.concatenate([np.ones((N, 1)), data.x], axis=1)
    linear = ts.MinimumNorm(Polynomial(1)).fit(key, data)
    np.testing.assert_allclose(linear.predict(data.x), design @ np.linalg.lstsq(design, data.y)[0], rtol=1e-7)
    assert float(linear.stats["dof"]) == 5


@pytest.mark.parametrize(
    "make", [lambda k: ts.GradientFlow(k, time=1e20), ts.MinimumNorm, lambda k: ts.SpectralCutoff(k, 100)]
)
def test_roundoff_is_not_inverted(key, make):
    """The reference is least squares on the functions that the kernels span. Eigenvalues below the kernel's own error are
    cut."""
    rng = np.random.default_rng(SEED)
    wide, line = rng.normal(size=(100, 3)), rng.normal(size=(100, 1))
    quadratic = lambda x: np.column_stack(
        [np.ones(len(x)), x, *(x[:, i] * x[:, j] for i in range(3) for j in range(i + 1))]
    )
    kinked = lambda x: np.concatenate([np.maximum(x, 0.0), np.maximum(-x, 0.0)], axis=1)
    # On a line all angles are 0 or pi, where neural-tangents has half of the digits.
    for x, kernel, features in ((wide, Polynomial(2), quadratic), (line, ntk(2), kinked)):
        y = np.sin(3.0 * x[:, 0]) + rng.normal(size=100)
        fit = make(kernel).fit(key, ts.Dataset(x=jnp.asarray(x), y=jnp.asarray(y)))
        best = features(x) @ np.linalg.lstsq(features(x), y)[0]
        assert int(fit.status) == ts.Status.CONVERGED
        np.testing.assert_allclose(fit.predict(jnp.asarray(x)), best, atol=1e-6)
        rank = features(x).shape[1]
        assert int(fit.stats["cut"]) == 100 - rank and float(fit.stats["dof"]) == pytest.approx(rank)


def test_the_cutoff_is_a_projection(data, key):
    fit = ts.SpectralCutoff(ntk(), components=7).fit(key, data)
    gram, y = np.asarray(ArcCosineNTK()(data.x)), np.asarray(data.y)
    hat = _hat(gram, lambda s, rank: rank > 7)
    np.testing.assert_allclose(fit.predict(data.x), hat @ y, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(fit.stats["dof"], 7)
    residual = y - hat @ y
    np.testing.assert_allclose(fit.stats["gcv"], N * residual @ residual / (N - 7) ** 2, rtol=1e-8)
    np.testing.assert_allclose(fit.stats["loo"], np.mean((residual / (1 - np.diag(hat))) ** 2), rtol=1e-8)


@pytest.mark.parametrize("criterion", ["gcv", "loo"])
@pytest.mark.parametrize("family", ["flow", "cutoff"])
def test_search_finds_the_brute_force_minimum(data, key, criterion, family):
    gram, y = np.asarray(ArcCosineNTK()(data.x)), np.asarray(data.y)
    if family == "flow":
        candidates = N / (np.trace(gram) / N * PATH)
        fit = ts.GradientFlow(ntk(), time=criterion).fit(key, data)
        hats = [_hat(gram, lambda s, rank, t=t: np.exp(-s * t / N)) for t in candidates]
        found = fit.stats["time"]
    else:
        candidates = np.arange(1, N)
        fit = ts.SpectralCutoff(ntk(), components=criterion).fit(key, data)
        hats = [_hat(gram, lambda s, rank, k=k: rank > k) for k in candidates]
        found = fit.stats["components"]
    scores = []
    for hat in hats:
        residual, rest = y - hat @ y, 1 - np.diag(hat)
        with np.errstate(invalid="ignore", divide="ignore"):
            gcv, loo = N * residual @ residual / rest.sum() ** 2, np.mean((residual / rest) ** 2)
        scores.append(gcv if criterion == "gcv" else loo)
    rests = [np.eye(N) - hat for hat in hats]
    # Where next to nothing is left unexplained NumPy divides roundoff by roundoff.
    usable = np.array([np.trace(rest) > 1e-8 * N for rest in rests])
    judged = np.array([np.trace(rest) ** 2 >= 9.999 * np.sum(rest * rest) for rest in rests]) | (criterion == "loo")
    scores = np.where(usable & judged, scores, np.inf)
    np.testing.assert_allclose(found, candidates[int(np.argmin(scores))], rtol=1e-9)
    np.testing.assert_allclose(fit.stats[criterion], scores.min(), rtol=1e-7)


def test_a_few_small_coefficients_are_no_reason_to_interpolate(key):
    """The response is noise with almost no component along the eigenvectors that are learnt last. GCV of an estimator that
    interpolates is then close to 0."""
    x = jr.normal(key, (N, 2))
    kernel = Matern(nu=2.5)
    s, u = np.linalg.eigh(kernel(x))
    y = np.asarray(jr.normal(jr.fold_in(key, 1), (N,)))
    y = jnp.asarray(y - 0.9999 * u[:, :5] @ (u[:, :5].T @ y))
    data = ts.Dataset(x=x, y=y)
    late = ts.KernelRidge(kernel, ridge=1e-9).fit(key, data), ts.SpectralCutoff(kernel, N - 1).fit(key, data)
    for estimator, shares in (
        (ts.KernelRidge(kernel, ridge="gcv"), lambda stats: stats["ridge"] / (s + stats["ridge"])),
        (ts.GradientFlow(kernel, time="gcv"), lambda stats: np.exp(-s * stats["time"] / N)),
        (ts.SpectralCutoff(kernel, components="gcv"), lambda stats: 1.0 * (np.arange(N) < N - stats["components"])),
    ):
        stats = estimator.fit(key, data).stats
        left = np.asarray(shares(stats))
        assert left.sum() ** 2 >= 9.999 * (left**2).sum()
        # The search leaves such candidates out, although their scores are better.
        assert min(float(other.stats["gcv"]) for other in late) < 0.1 * float(stats["gcv"])


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda c: ts.GradientFlow(ntk(), time=c), lambda c: ts.SpectralCutoff(ntk(), c)])
def test_oracle_and_holdout_choose_well(problem, teacher, key, make):
    datasets = jax.vmap(lambda k: problem.sample(k, teacher, 100))(jr.split(key, 24))
    keys = jr.split(jr.fold_in(key, 1), 24)

    def risks(criterion):
        oracle = {"oracle": (problem, teacher)} if criterion == "oracle" else {}
        fits = jax.jit(jax.vmap(lambda k, data: make(criterion).fit(k, data, **oracle)))(keys, datasets)
        return jax.vmap(lambda fit: ts.monte_carlo_risk(problem, teacher, fit, jr.fold_in(key, 3)).value)(fits)

    best = risks("oracle")
    for criterion in ("gcv", "loo", "holdout"):
        ratio = risks(criterion) / best
        # The oracle is the best of the path on other fresh points than these, hence not below 1; and a fifth of 100 points
        # at noise 0.5 is a rough guide.
        assert 0.95 < float(jnp.min(ratio)) and float(jnp.median(ratio)) < (2.0 if criterion == "holdout" else 1.5)


def test_times_and_length_scales_are_traced(data, key):
    times = jnp.array([1.0, 30.0])
    mapped = jax.vmap(lambda t: ts.GradientFlow(RBF(t), time=t).fit(key, data))(times)
    for i, t in enumerate([1.0, 30.0]):
        np.testing.assert_allclose(mapped.alpha[i], ts.GradientFlow(RBF(t), time=t).fit(key, data).alpha, rtol=1e-7)


def test_errors(data, key):
    cases = [
        (lambda: ts.GradientFlow(ntk(), time=-1.0), r"time must be finite and >= 0, or one of .*; got -1\.0"),
        (lambda: ts.GradientFlow(ntk(), time="marginal_likelihood"), r"time must be a number or one of \('gcv', 'loo'"),
        (lambda: ts.SpectralCutoff(ntk(), 0), r"components must be an integer >= 1, or one of .*; got 0\."),
        (lambda: ts.SpectralCutoff(ntk(), 2.5), r"components must be an integer >= 1, or one of .*; got 2\.5"),
        (
            lambda: ts.SpectralCutoff(ntk(), 41).fit(key, data),
            r"components=41 .* n=40 points: there are no more than n",
        ),
        (lambda: ts.MinimumNorm(ntk), r"needs a kernel such as"),
        (lambda: ts.GradientFlow(ntk(), "oracle").fit(key, data), r'time="oracle" needs the truth'),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
