import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts
from tsjax.estimators.neighbours import NEIGHBOURS
from tsjax.estimators.repeats import Sample
from tsjax.estimators.smoothers import bandwidth_path
from tsjax.estimators.smoothing import _ENTRIES, over_rows
from tsjax.kernels import RBF, ArcCosine, Laplace

N, D = 30, 2
SMOOTHERS = {"neighbours": ts.NearestNeighbours, "nadaraya_watson": ts.NadarayaWatson, "local_linear": ts.LocalLinear}
NAMES = {"neighbours": "k", "nadaraya_watson": "bandwidth", "local_linear": "bandwidth"}


@pytest.fixture
def problem():
    return ts.Problem(ts.Gaussian(D), ts.ReLUTeacher(2), 0.3)


@pytest.fixture(params=list(SMOOTHERS))
def smoother(request):
    """A class of smoothers as a function of its hyper-parameter, and the name of this hyper-parameter."""
    name = NAMES[request.param]
    return lambda value: SMOOTHERS[request.param](**{name: value}), name


def _points(key):
    return jr.normal(jr.fold_in(key, 3), (7, D))


# Row by row, with loops: what the hat matrix is by definition.


def _neighbour_weights(k, x, points):
    weights = np.zeros((len(points), len(x)))
    for i, point in enumerate(points):
        weights[i, np.argsort([np.linalg.norm(point - z) for z in x], kind="stable")[:k]] = 1 / k
    return weights


def _kernel_value(kernel, h, a, b):
    r = np.linalg.norm(a - b) / h
    return np.exp(-(r**2) / 2 if kernel is RBF else -r)


def _nadaraya_watson_weights(kernel, h, x, points):
    weights = np.array([[_kernel_value(kernel, h, point, z) for z in x] for point in points])
    return weights / weights.sum(axis=1, keepdims=True)


def _local_linear_weights(kernel, h, x, points):
    rows, mean = [], x.mean(axis=0)
    for point in points:
        w = np.array([_kernel_value(kernel, h, point, z) for z in x])
        z = np.column_stack([np.ones(len(x)), x - point])
        jitter = np.append(0.0, 1e-8 * w @ (x - point) ** 2 + 1e-12 * w @ (x - mean) ** 2)
        rows.append(np.linalg.solve(z.T @ (w[:, None] * z) + np.diag(jitter), z.T * w)[0])
    return np.array(rows)


@pytest.mark.parametrize(
    "estimator, weights",
    [
        (ts.NearestNeighbours(4), lambda x, p: _neighbour_weights(4, x, p)),
        (ts.NadarayaWatson(bandwidth=0.5), lambda x, p: _nadaraya_watson_weights(RBF, 0.5, x, p)),
        (ts.NadarayaWatson(Laplace, 0.3), lambda x, p: _nadaraya_watson_weights(Laplace, 0.3, x, p)),
        (ts.LocalLinear(bandwidth=0.6), lambda x, p: _local_linear_weights(RBF, 0.6, x, p)),
        (ts.LocalLinear(Laplace, 0.4), lambda x, p: _local_linear_weights(Laplace, 0.4, x, p)),
    ],
)
def test_predictions_and_scores_by_brute_force(data, key, estimator, weights):
    fit, points = estimator.fit(key, data), _points(key)
    x, y = np.asarray(data.x), np.asarray(data.y)
    np.testing.assert_allclose(fit.predict(points), weights(x, np.asarray(points)) @ y, rtol=1e-8)
    hat = weights(x, x)
    residual = y - hat @ y
    np.testing.assert_allclose(fit.stats["dof"], np.trace(hat), rtol=1e-8)
    np.testing.assert_allclose(fit.stats["gcv"], N * residual @ residual / (N - np.trace(hat)) ** 2, rtol=1e-7)
    if not isinstance(estimator, ts.NearestNeighbours):
        np.testing.assert_allclose(fit.stats["loo"], np.mean((residual / (1 - np.diag(hat))) ** 2), rtol=1e-7)
    assert fit.status == ts.Status.CONVERGED


@pytest.mark.parametrize("value", [2, 5])
def test_loo_is_leaving_one_out(data, key, smoother, value):
    make, name = smoother
    estimator = make(value if name == "k" else value / 8)
    errors = []
    for i in range(N):
        keep = np.arange(N) != i
        without = estimator.fit(key, ts.Dataset(x=data.x[keep], y=data.y[keep]))
        errors.append(float(data.y[i] - without.predict(data.x[i : i + 1])[0]))
    np.testing.assert_allclose(estimator.fit(key, data).stats["loo"], np.mean(np.square(errors)), rtol=1e-7)


def _candidates(estimator, data):
    if isinstance(estimator, ts.NearestNeighbours):
        return np.arange(1, min(data.n - 1, NEIGHBOURS) + 1)
    distances = np.linalg.norm(data.x[:, None] - data.x[None], axis=-1)
    least = np.median(np.sort(distances, axis=1)[:, 1])
    spread = np.sqrt(np.sum(np.var(data.x, axis=0)))
    return np.geomspace(least / 4, 10 * max(spread, least), 60 if isinstance(estimator, ts.NadarayaWatson) else 24)


def test_the_search_is_the_argmin_of_refits(data, key, smoother):
    make, name = smoother
    candidates = _candidates(make("loo"), data)
    refits = jax.vmap(lambda value: make(value).fit(key, data))(jnp.asarray(candidates))
    for criterion in ("gcv", "loo"):
        fit = make(criterion).fit(key, data)
        best = int(np.argmin(refits.stats[criterion]))
        np.testing.assert_allclose(fit.stats[name], candidates[best], rtol=1e-12)
        for stat, value in fit.stats.items():
            np.testing.assert_allclose(value, refits.stats[stat][best], rtol=1e-10)
        predictions = jax.vmap(lambda refit: refit.predict(_points(key)))(refits)
        np.testing.assert_allclose(fit.predict(_points(key)), predictions[best], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("smoother", ["neighbours", "nadaraya_watson"], indirect=True)
def test_oracle_and_holdout_are_the_argmin_of_refits(problem, teacher, data, key, smoother):
    make, name = smoother
    candidates = _candidates(make("loo"), data)
    fit = make("oracle").fit(key, data, oracle=(problem, teacher))
    x = problem.inputs.sample(jr.fold_in(key, 9), 2000)
    truth = jax.vmap(teacher)(x)
    risk = lambda f: jnp.mean((f.predict(x) - truth) ** 2)
    risks = jax.vmap(lambda value: risk(make(value).fit(key, data)))(jnp.asarray(candidates))
    assert risk(fit) <= risks.min() * 1.05

    # The split is not known here, but the choice must be that of some split, and must depend on the key.
    chosen = jax.vmap(lambda i: make("holdout").fit(jr.fold_in(key, i), data))(jnp.arange(6))
    values = np.asarray(chosen.stats[name])
    assert len(set(values)) > 1
    assert all(np.min(np.abs(candidates / value - 1)) < 1e-12 for value in values)


def test_holdout_holds_out_a_fifth(key):
    # Of 5 points one is held out: the choices are those of five splits, and all of them occur.
    x, y = np.array([0.0, 1.0, 2.1, 3.3, 4.6]), np.array([0.0, 0.2, 1.0, 1.1, 0.4])
    best = set()
    for i in range(5):
        others = np.argsort(np.abs(x - x[i]))[1:]
        best.add(1 + int(np.argmin([(y[others[:k]].mean() - y[i]) ** 2 for k in range(1, 5)])))
    data = ts.Dataset(x=jnp.asarray(x)[:, None], y=jnp.asarray(y))
    chosen = jax.vmap(lambda i: ts.NearestNeighbours("holdout").fit(jr.fold_in(key, i), data).k)(jnp.arange(64))
    assert set(np.asarray(chosen).tolist()) == best and len(best) > 1


# "loo" is in test_contracts.py; the last two share their search.
@pytest.mark.slow
@pytest.mark.parametrize(
    "smoother, value",
    [("neighbours", "holdout"), ("nadaraya_watson", "oracle"), ("local_linear", "holdout")],
    indirect=["smoother"],
)
def test_jit_and_vmap_equal_eager(problem, teacher, key, smoother, value):
    make, name = smoother
    datasets = jax.vmap(lambda k: problem.sample(k, teacher, 20))(jr.split(key, 3))
    oracle = {"oracle": (problem, teacher)} if value == "oracle" else {}
    keys = jr.split(jr.fold_in(key, 5), 3)
    mapped = jax.jit(jax.vmap(lambda k, data: make(value).fit(k, data, **oracle)))(keys, datasets)
    predictions = jax.vmap(lambda fit: fit.predict(_points(key)))(mapped)
    for i in range(1, 3):
        fit = make(value).fit(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], datasets), **oracle)
        np.testing.assert_allclose(predictions[i], fit.predict(_points(key)), rtol=1e-9)
        assert fit.stats.keys() == {name, "dof", "gcv", "loo"} and int(mapped.status[i]) == fit.status
        for stat in fit.stats:
            np.testing.assert_allclose(mapped.stats[stat][i], fit.stats[stat], rtol=1e-9)


def test_hyper_parameters_are_traced(data, key, smoother):
    make, name = smoother
    values = np.array([2, 5, 9]) if name == "k" else np.array([0.3, 0.5, 2.0])
    mapped = jax.vmap(lambda value: make(value).fit(key, data))(jnp.asarray(values))
    predictions = jax.vmap(lambda fit: fit.predict(_points(key)))(mapped)
    for i, value in enumerate(values):
        fit = make(value.item()).fit(key, data)
        np.testing.assert_allclose(predictions[i], fit.predict(_points(key)), rtol=1e-10)
        np.testing.assert_allclose(mapped.stats["loo"][i], fit.stats["loo"], rtol=1e-10)


def test_a_traced_value_out_of_range_is_a_status(data, key, smoother):
    make, name = smoother
    values = jnp.array([0, -1, N]) if name == "k" else jnp.array([0.0, -1.0, jnp.nan])
    fits = jax.vmap(lambda value: make(value).fit(key, data))(values)
    assert (fits.status == ts.Status.SINGULAR.value).all()
    assert jnp.isnan(jax.vmap(lambda fit: fit.predict(_points(key)))(fits)).all()


def test_another_bandwidth_does_not_compile_again(data, key, caplog):
    def compilations(n, bandwidth):
        caplog.clear()
        with jax.log_compiles():
            ts.LocalLinear(bandwidth=bandwidth).fit(key, ts.Dataset(x=data.x[:n], y=data.y[:n]))
        return sum(record.getMessage().startswith("Compiling") for record in caplog.records)

    assert compilations(N - 1, 0.31) > 0  # This is a control: a new compilation is counted.
    assert compilations(N - 1, 0.62) == 0


def test_invariances(data, key, smoother):
    make, _ = smoother
    points = _points(key)
    fit = make("loo").fit(key, data)
    order = jr.permutation(key, N)
    changes = [
        (ts.Dataset(x=data.x[order], y=data.y[order]), points, lambda f: f),
        (ts.Dataset(x=data.x + 100.0, y=data.y), points + 100.0, lambda f: f),
        (ts.Dataset(x=data.x * 1e-3, y=data.y), points * 1e-3, lambda f: f),
        (ts.Dataset(x=data.x, y=1e3 + 2.0 * data.y), points, lambda f: 1e3 + 2.0 * f),
    ]
    for changed, where, expected in changes:
        other = make("loo").fit(key, changed)
        np.testing.assert_allclose(other.predict(where), expected(fit.predict(points)), rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(other.stats["dof"], fit.stats["dof"], rtol=1e-7)


@pytest.mark.slow
def test_blocks_change_nothing(data, key):
    rows = (jr.normal(key, (37, 2)), jnp.arange(37))
    fn = lambda x, index: (x @ rows[0].T, x[:, 0] * index)
    for block in (1, 10, 36):
        for whole, parts in zip(fn(*rows), over_rows(fn, _ENTRIES // block, *rows), strict=True):
            np.testing.assert_allclose(parts, whole, rtol=1e-12)
    for estimator in (ts.NearestNeighbours(3), ts.LocalLinear(bandwidth=3)):
        fit, x = estimator.fit(key, data), jr.normal(key, (2500, D))  # More than a block of predictions.
        np.testing.assert_allclose(fit.predict(x)[2040:2060], fit.predict(x[2040:2060]), rtol=1e-9)


def test_neighbours_among_many_that_tie_in_float32(key):
    # 60 points whose distances from the origin agree to 1e-9, in random order, behind 5 nearer ones; 20 of them tie with
    # the last one asked for.
    radii = np.concatenate([np.linspace(0.1, 0.5, 5), 1.0 + 1e-9 * np.arange(20), np.linspace(2.0, 3.0, 40)])
    order = np.random.default_rng(0).permutation(65)
    y = np.arange(65.0)
    data = ts.Dataset(x=jnp.asarray(radii[order])[:, None], y=jnp.asarray(y[order]))
    for k in (3, 20, 40):
        predicted = ts.NearestNeighbours(k).fit(key, data).predict(jnp.zeros((1, 1)))
        np.testing.assert_allclose(predicted, [y[:k].mean()], rtol=1e-14)


def test_gcv_of_k_neighbours_is_loo_of_one_less(data, key):
    stats = jax.vmap(lambda k: ts.NearestNeighbours(k).fit(key, data).stats)(jnp.arange(1, 9))
    np.testing.assert_allclose(stats["gcv"], [np.inf, *stats["loo"][:-1]], rtol=1e-12)


def test_local_linear_regression_fits_lines_without_bias(data, key):
    line = data.x @ jnp.array([2.0, -1.0]) + 3.0
    for kernel in (RBF, Laplace):
        fit = ts.LocalLinear(kernel, 0.7).fit(key, ts.Dataset(x=data.x, y=line))
        np.testing.assert_allclose(fit.predict(_points(key)), _points(key) @ jnp.array([2.0, -1.0]) + 3.0, atol=1e-5)
    # This holds in any units.
    units = jnp.array([[1e6, 1e-6]])
    fit = ts.LocalLinear(RBF, 1e6).fit(key, ts.Dataset(x=data.x * units, y=data.x[:, 0] - data.x[:, 1]))
    np.testing.assert_allclose(
        fit.predict(_points(key) * units), _points(key)[:, 0] - _points(key)[:, 1], rtol=1e-4, atol=1e-4
    )


def test_wide_and_narrow_limits(data, key):
    points = _points(key)
    wide = ts.NadarayaWatson(bandwidth=1e6).fit(key, data)
    np.testing.assert_allclose(wide.predict(points), np.full(7, np.mean(data.y)), rtol=1e-8)
    np.testing.assert_allclose(wide.stats["dof"], 1.0, rtol=1e-8)
    z = np.column_stack([np.ones(N), data.x])
    slope = np.linalg.lstsq(z, np.asarray(data.y), rcond=None)[0]
    wide = ts.LocalLinear(bandwidth=1e6).fit(key, data)
    np.testing.assert_allclose(wide.predict(points), np.column_stack([np.ones(7), points]) @ slope, rtol=1e-5)
    np.testing.assert_allclose(wide.stats["dof"], 1.0 + D, rtol=1e-6)
    # All weights underflow, so the nearest neighbour is the prediction, in leave-one-out too. Then H = I.
    nearest = ts.NearestNeighbours(1).fit(key, data)
    far = jnp.concatenate([points, 1e3 * points])
    for estimator in (ts.NadarayaWatson(bandwidth=1e-5), ts.LocalLinear(bandwidth=1e-5)):
        narrow = estimator.fit(key, data)
        np.testing.assert_allclose(narrow.predict(far), nearest.predict(far), rtol=1e-12)
        np.testing.assert_allclose(narrow.stats["loo"], nearest.stats["loo"], rtol=1e-12)
        assert narrow.stats["dof"] == N and np.isinf(narrow.stats["gcv"]) and narrow.status == ts.Status.CONVERGED


@pytest.mark.slow
def test_degenerate_data_give_finite_answers(key, smoother):
    make, _ = smoother
    six = np.arange(6.0)
    cases = [
        np.zeros((6, 2)),  # All one point.
        np.full((6, 2), 0.1),  # Also when their mean is rounded.
        np.repeat(np.eye(3, 2), 2, axis=0),  # Each point twice.
        np.column_stack([six, np.full(6, 0.1)]),  # A constant coordinate.
        np.column_stack([six, six]),  # On a line.
        np.append(np.zeros((5, 2)), np.ones((1, 2)), axis=0),
        1e8 + np.eye(6, 2),  # Far from the origin, compared with the spread.
    ]
    pair = np.array([[[0.0, 1.0], [1e-9, 1.0]]])  # Fewer than d + 1 points.
    for x, value in ((jnp.asarray(np.stack(cases)), "gcv"), (jnp.asarray(pair), "holdout")):
        y = jnp.arange(float(x.shape[1]))
        fits = jax.vmap(lambda x, value=value, y=y: make(value).fit(key, ts.Dataset(x=x, y=y)))(x)
        assert (fits.status == ts.Status.CONVERGED.value).all()
        # k neighbours have no score where fewer points than k remain without the copies of one.
        copies = (x[:, :, None] == x[:, None]).all(axis=-1).sum(axis=-1).max(axis=-1)
        scored = fits.stats["k"] <= y.size - copies if "k" in fits.stats else jnp.full(len(x), True)
        assert (jnp.isfinite(fits.stats["loo"]) | ~scored).all() and scored.any()
        assert not jnp.isnan(fits.stats["gcv"]).any()
        points = jnp.concatenate([x, x + 0.3, 100.0 * x], axis=1)
        predictions = jax.vmap(lambda fit, x: fit.predict(x))(fits, points)
        assert jnp.isfinite(predictions).all()
        # Nothing explodes at the points.
        assert jnp.abs(predictions[:, : y.size] - y.mean()).max() < 2 * y.size


def test_overflow_is_a_status(key, smoother):
    make, _ = smoother
    x = jnp.asarray([[0.0, 1.0], [1e200, 0.0], [0.0, -1e200], [1.0, 1.0]])
    with pytest.raises(
        ValueError, match=r"data\.x has 2 value\(s\) that are larger than 1e\+150, so that squares overflow"
    ):
        make("loo").fit(key, ts.Dataset(x=x, y=jnp.arange(4.0)))
    # Where values cannot be looked at.
    fit = jax.jit(make("loo").fit)(key, ts.Dataset(x=x, y=jnp.arange(4.0)))
    assert fit.status == ts.Status.SINGULAR
    fit = make(1).fit(key, ts.Dataset(x=jnp.eye(4)[:, :2], y=jnp.arange(4.0)))
    strange = jnp.array([[jnp.nan, 0.0], [0.0, jnp.inf], [1e200, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(jnp.isnan(fit.predict(strange)), [True, True, True, False])


def test_the_path_of_bandwidths(data):
    path = bandwidth_path(Sample(data.x, data.y[:, None], None), 60)
    np.testing.assert_allclose(path, _candidates(ts.NadarayaWatson(), data), rtol=1e-12)
    assert (bandwidth_path(Sample(jnp.full((4, 2), 0.1), jnp.zeros((4, 1)), None), 5) == 1.0).all()


@pytest.mark.slow
def test_risk_falls_with_n(key, smoother):
    make, _ = smoother
    problem = ts.Problem(ts.Cube(1), ts.FunctionTeacher(lambda x: jnp.sin(3.0 * x[0])), 0.3)
    teacher = problem.sample_teacher(key)
    x = problem.inputs.sample(jr.fold_in(key, 7), 500)
    truth = jax.vmap(teacher)(x)

    def risk(n):
        data = jax.vmap(lambda k: problem.sample(k, teacher, n))(jr.split(jr.fold_in(key, n), 4))
        fits = jax.vmap(lambda data: make("loo").fit(key, data))(data)
        return float(jnp.mean((jax.vmap(lambda fit: fit.predict(x))(fits) - truth[None, :]) ** 2))

    few, many = risk(25), risk(300)
    # By n^(-2/3) at the least, for functions of one variable with a bounded derivative: by 5.2, and by chance less.
    assert many < few / 3 and many < 0.3**2 / 5


@pytest.mark.slow
def test_float32_data_are_fitted_in_float64_without_the_flag(data, key):
    for estimator in (ts.NearestNeighbours(3), ts.NadarayaWatson(bandwidth=1), ts.LocalLinear(bandwidth=1)):
        truth = estimator.fit(key, data).predict(data.x)
        with jax.enable_x64(False):
            single = ts.Dataset(x=data.x.astype(jnp.float32), y=data.y.astype(jnp.float32))
            predictions = estimator.fit(key, single).predict(single.x)
            assert predictions.dtype == jnp.float64
            np.testing.assert_allclose(predictions, truth, rtol=1e-3, atol=1e-5)
            with pytest.raises(RuntimeError, match="needs float64"):
                jax.jit(estimator.fit)(key, single)


def test_errors(problem, teacher, data, key):
    oracle = (problem, teacher)
    cases = [
        (lambda: ts.NearestNeighbours(0), r"k must be an integer >= 1, or one of \('gcv'.*; got 0"),
        (lambda: ts.NearestNeighbours(2.5), r"k must be an integer >= 1, .*; got 2\.5"),
        (lambda: ts.NearestNeighbours(True), r"k must be an integer >= 1, .*; got True"),
        (lambda: ts.NearestNeighbours("lou"), r"k must be an integer or one of .*, got 'lou'; nearest: 'loo'"),
        (lambda: ts.NearestNeighbours(jnp.ones(2)), r"k is one number, got an array of shape \(2,\)"),
        (lambda: ts.NearestNeighbours(N).fit(key, data), rf"k={N} neighbours .* got n={N}\. Take k <= {N - 1}"),
        (lambda: ts.NadarayaWatson(bandwidth=0.0), r"bandwidth must be finite and > 0, or one of .*; got 0\.0"),
        (lambda: ts.NadarayaWatson(bandwidth="hold"), r"a number or one of .*, got 'hold'; nearest: 'holdout'"),
        (lambda: ts.LocalLinear(bandwidth=jnp.ones(3)), r"one number, got an array of shape \(3,\)"),
        (
            lambda: ts.NadarayaWatson(RBF(0.5)),
            r"such as the class tsjax\.kernels\.RBF, but got the kernel RBF.*bandwidth",
        ),
        (
            lambda: ts.LocalLinear(lambda h: h * ArcCosine(1)),
            r"gives a kernel of the distance \(an AbstractRadialKernel\), such as .*; got <function",
        ),
        (lambda: ts.LocalLinear(lambda h: h), r"a function of the bandwidth that gives a kernel of the distance"),
        (lambda: ts.LocalLinear("rbf"), r"such as tsjax\.kernels\.RBF or .*; got 'rbf'"),
        (lambda: ts.NearestNeighbours("oracle").fit(key, data), r'k="oracle" needs the truth: call fit\(key, data, or'),
        (lambda: ts.LocalLinear().fit(key, data, oracle=oracle), r'an oracle is of use with bandwidth="oracle" only'),
        (
            lambda: ts.NadarayaWatson(bandwidth="oracle").fit(
                key, data, oracle=(ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2)), teacher)
            ),
            r"problem has d=3, but the data have d=2",
        ),
        (lambda: ts.LocalLinear().fit(key, ts.Dataset(x=data.x[:1], y=data.y[:1])), r"at least 2 points .* got n=1"),
        (lambda: ts.LocalLinear().fit(key, data).predict(data.x[0]), r"expected x of shape \(k, 2\), got \(2,\)"),
        (lambda: ts.NearestNeighbours().fit(key, data).predict(jnp.ones((4, 1))), r"x of shape \(k, 2\), got \(4, 1\)"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
