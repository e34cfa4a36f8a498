"""Properties that every estimator has. A new estimator is one more line in ESTIMATORS."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.kernels import RBF, ArcCosineNTK, ntk

PROBLEM = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), 0.2)
B, N = 3, 16


def _network(key, point):
    """A network from outside of tsjax."""
    key_a, key_w = jr.split(key)
    return _Tanh(jr.normal(key_a, (4,)), jr.normal(key_w, (4, point)))


class _Tanh(eqx.Module):
    a: jax.Array
    w: jax.Array

    def __call__(self, x):
        return self.a @ jnp.tanh(self.w @ x)


STUDENT = ts.Student(_network, learning_rate=0.1, steps=30)
ESTIMATORS = {
    "any": STUDENT,
    "any_in_batches": ts.Student(_network, optimizer=optax.adam, learning_rate=0.01, steps=30, batch_size=5),
    "ensemble": ts.Ensemble(STUDENT, 2),
    "stages": ts.Stages((STUDENT, ts.Student(_network, learning_rate=0.01, steps=10))),
    "student": ts.TwoPhaseStudent(2, 2, ts.NoisyPhase(steps=20), ts.VanillaPhase(max_steps=30)),
    "oracle": ts.OracleStudent(ts.VanillaPhase(max_steps=30)),
    "gradient": ts.GradientStudent(3, steps=30),
    "linearised": ts.GradientStudent(3, linearised=True, steps=30),
    "ntk": ts.KernelRidge(ntk()),
    "arccos": ts.KernelRidge(ArcCosineNTK(), ridge=0.1),
    "rbf": ts.KernelRidge(RBF(1.0), ridge="loo"),
    "iterative": ts.IterativeRidge(ArcCosineNTK(), ridge=0.1, tolerance=1e-9),
    "features": ts.RandomFeatures(8),
    "fourier": ts.RandomFeatures(24, ridge="marginal_likelihood", features="fourier"),
    "flow": ts.GradientFlow(ntk()),
    "cutoff": ts.SpectralCutoff(RBF(1.0), components="loo"),
    "minimum_norm": ts.MinimumNorm(ArcCosineNTK()),
    "neighbours": ts.NearestNeighbours(),
    "nadaraya_watson": ts.NadarayaWatson(bandwidth=0.5),
    "local_linear": ts.LocalLinear(),
    "standardized": ts.Standardized(ts.KernelRidge(RBF(1.0), ridge=0.1)),
    "linear": ts.OptimalLinear(PROBLEM, test_points=64),
}


STUDENTS = (ts.Student, ts.Ensemble, ts.Stages, ts.TwoPhaseStudent, ts.OracleStudent, ts.GradientStudent)


def _unchecked(x, y):
    """A data set whose fields bypass the checks of types."""
    data = object.__new__(ts.Dataset)
    object.__setattr__(data, "x", x)
    object.__setattr__(data, "y", y)
    object.__setattr__(data, "weight", None)
    return data


def _fit(estimator, key, data, teacher):
    oracle = {"oracle": (PROBLEM, teacher)} if isinstance(estimator, ts.OracleStudent) else {}
    return estimator.fit(key, data, **oracle)


@pytest.fixture(scope="module")
def batch():
    keys = jr.split(jr.key(SEED + 3), B)
    teachers = jax.vmap(PROBLEM.sample_teacher)(keys)
    datasets = jax.vmap(lambda k, t: PROBLEM.sample(jr.fold_in(k, 1), t, N))(keys, teachers)
    return keys, datasets, teachers


@pytest.fixture(scope="module")
def points():
    return PROBLEM.inputs.sample(jr.key(SEED + 4), 7)


# By default these are not tested: another estimator, which shares most of their code, stands for them.
VARIANTS = {
    "any",
    "ensemble",
    "iterative",
    "linear",
    "rbf",
    "minimum_norm",
    "any_in_batches",
    "stages",
    "oracle",
    "linearised",
    "arccos",
    "fourier",
    "cutoff",
    "nadaraya_watson",
    "local_linear",
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else []) for name in ESTIMATORS],
)
def case(request, batch):
    """An estimator, a few keys with their data and teachers, and the fits of a plain loop over them."""
    estimator = ESTIMATORS[request.param]
    entries = [jax.tree.map(lambda leaf, i=i: leaf[i], batch) for i in range(B)]
    return estimator, entries, [_fit(estimator, *entry) for entry in entries]


def test_jit_of_vmap_is_a_loop(case, batch, points):
    estimator, _, fits = case
    mapped = jax.jit(jax.vmap(lambda *args: _fit(estimator, *args)))(*batch)
    predictions = jax.vmap(lambda fit: fit.predict(points))(mapped)
    for i, fit in enumerate(fits):
        np.testing.assert_allclose(predictions[i], fit.predict(points), rtol=1e-6, atol=1e-9)
        assert int(mapped.status[i]) == int(fit.status)
        assert fit.stats.keys() == mapped.stats.keys()


def test_shapes_and_types(case, points):
    _, _, fits = case
    for fit in fits:
        assert isinstance(fit, ts.AbstractFit) and fit.predict(points).shape == (7,)
        assert fit.predict(points[:1]).shape == (1,) and bool(jnp.isfinite(fit.predict(points)).all())
        assert fit.status.dtype == jnp.int32 and int(fit.status) in (ts.Status.CONVERGED, ts.Status.STEP_LIMIT)
        assert all(isinstance(value, jax.Array) for value in fit.stats.values())


def test_the_second_fit_compiles_nothing(case, caplog):
    estimator, entries, fits = case
    key, data, teacher = entries[0]
    with jax.log_compiles():
        caplog.clear()
        # This is a control: a new compilation is counted.
        jax.jit(lambda v: v + 1)(data.y)
        assert any(message.startswith("Compiling") for message in caplog.messages)
        caplog.clear()
        again = _fit(estimator, key, data, teacher)
        assert not [message for message in caplog.messages if message.startswith("Compiling")]
    for leaf, other in zip(jax.tree.leaves(again), jax.tree.leaves(fits[0]), strict=True):
        np.testing.assert_array_equal(leaf, other)


def test_the_order_of_the_data_does_not_matter(case, points):
    estimator, entries, fits = case
    if estimator is ESTIMATORS["any_in_batches"]:
        pytest.skip("mini-batches are made of rows by their places")
    key, data, teacher = entries[0]
    order = np.random.default_rng(SEED).permutation(N)
    shuffled = _fit(estimator, key, ts.Dataset(x=data.x[order], y=data.y[order]), teacher)
    np.testing.assert_allclose(shuffled.predict(points), fits[0].predict(points), rtol=1e-6, atol=1e-8)


def test_rows_of_weight_zero_change_nothing(case, points):
    """Rows of weight 0 are in random places and hold random numbers. Fits and their statistics equal those without these
    rows."""
    estimator, entries, fits = case
    rng = np.random.default_rng(SEED)
    key, data, teacher = entries[0]
    at = np.sort(rng.choice(N + 5, N, replace=False))
    x = jnp.asarray(100.0 * rng.normal(size=(N + 5, 3))).at[at].set(data.x)
    y = jnp.asarray(rng.normal(size=N + 5)).at[at].set(data.y)
    weight = jnp.asarray(rng.uniform(0.2, 3.0, N))
    wide = lambda weight: ts.Dataset(x, y, jnp.zeros(N + 5).at[at].set(weight))
    weighted = _fit(estimator, key, ts.Dataset(data.x, data.y, weight), teacher)
    # Conjugate gradients are accurate to their tolerance only.
    loose = isinstance(estimator, ts.IterativeRidge)
    # Training adds up in another order, and rounding errors grow with the steps.
    trained = isinstance(estimator, STUDENTS)
    for fit, other in ((wide(jnp.ones(N)), fits[0]), (wide(weight), weighted)):
        fit = _fit(estimator, key, fit, teacher)
        tolerance = 1e-7 if loose else 1e-8 if trained else 1e-10
        np.testing.assert_allclose(fit.predict(points), other.predict(points), rtol=tolerance, atol=tolerance)
        assert int(fit.status) == int(other.status)
        for name in other.stats.keys() - ({"residual", "steps", "rank"} if loose else set()):
            np.testing.assert_allclose(
                fit.stats[name], other.stats[name], rtol=1e-8 if trained else 1e-10, atol=1e-12, err_msg=name
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, estimator in ESTIMATORS.items() if isinstance(estimator, STUDENTS)])
def test_rows_of_weight_zero_in_float32(name, points):
    """Predictions agree to 1e-5 of their scale if training stopped at the same step. Sums in another order may make it stop at
    another step, which is allowed for at most a quarter of 16 data sets."""
    keys = jr.split(jr.key(SEED + 5), 16)
    teachers = jax.vmap(PROBLEM.sample_teacher)(keys)
    data = jax.vmap(lambda k, t: PROBLEM.sample(jr.fold_in(k, 1), t, N, jnp.float32))(keys, teachers)
    pad = lambda leaf: jnp.concatenate([leaf, jnp.ones_like(leaf[:, :5])], axis=1)
    weight = jnp.concatenate([jnp.ones((16, N)), jnp.zeros((16, 5))], axis=1).astype(jnp.float32)
    padded = ts.Dataset(pad(data.x), pad(data.y), weight)
    many = jax.jit(jax.vmap(lambda *one: _fit(ESTIMATORS[name], *one)))
    one, other = many(keys, data, teachers), many(keys, padded, teachers)
    of = jax.vmap(lambda fit: fit.predict(points.astype(jnp.float32)))
    steps = [key for key in one.stats if "steps" in key]
    agree = lambda key: np.asarray(one.stats[key] == other.stats[key]).reshape(16, -1).all(axis=1)
    same = np.all([np.ones(16, bool), *map(agree, steps)], axis=0)
    print(f"{name}: {same.sum()} of 16 stop at the same step")
    scale = np.abs(np.asarray(of(one))).max()
    np.testing.assert_allclose(np.asarray(of(other))[same], np.asarray(of(one))[same], atol=1e-5 * scale, rtol=0)
    assert same.sum() >= 12


def test_data_that_are_not_finite_are_an_error(case):
    estimator, entries, _ = case
    key, data, teacher = entries[0]
    bad = ts.Dataset(x=data.x, y=data.y.at[4].set(jnp.nan))
    with pytest.raises(ValueError, match=r"data\.y has 1 value\(s\) that are not finite, the first at index \(4,\)"):
        _fit(estimator, key, bad, teacher)
    for values, message in (
        (
            np.ma.masked_array(data.y, mask=np.arange(N) == 2),
            r"1 value\(s\) that are masked, the first at index \(2,",
        ),
        (
            np.array([*np.asarray(data.y)[1:], None], object),
            r"1 value\(s\) that are missing or not numbers, .*\(15,",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            _fit(estimator, key, _unchecked(data.x, values), teacher)
    # A network may take points of any shape, so its error message is its own.
    message = (
        None
        if isinstance(estimator, ts.Student | ts.Ensemble | ts.Stages)
        else r"expected x of shape \(n, d\), got \(1, 16, 3\)"
    )
    with pytest.raises((ValueError, TypeError), match=message):
        _fit(estimator, key, jax.tree.map(lambda leaf: leaf[None], data), teacher)


def test_every_public_estimator_is_in_the_list():
    public = {value for value in map(ts.__getattr__, ts.__all__) if isinstance(value, type)}
    concrete = {c for c in public if issubclass(c, ts.AbstractEstimator) and c is not ts.AbstractEstimator}
    assert concrete == {type(estimator) for estimator in ESTIMATORS.values()}
