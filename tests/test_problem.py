import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts
from tsjax.activations import Activation, erf, relu
from tsjax.task import check_key, check_numbers


def _within(values, mean, errors=5.0):
    """Whether the mean over the first axis is `mean` up to its standard error, everywhere."""
    values = np.asarray(values)
    error = values.std(axis=0, ddof=1) / len(values) ** 0.5
    return bool(np.all(np.abs(values.mean(axis=0) - mean) <= errors * error + 1e-12))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_sphere(key, d):
    x = ts.Sphere(d).sample(key, 20_000)
    np.testing.assert_allclose(jnp.linalg.norm(x, axis=1), 1.0, rtol=1e-12)
    assert _within(x, 0.0) and _within(x[:, :, None] * x[:, None, :], np.eye(d) / d)
    # E x_1^4 = 3 / (d (d+2)) tells the sphere from other laws of this covariance.
    assert _within(x**4, 3 / (d * (d + 2)))
    assert ts.Sphere(d).moments == (1 / d, 1 / (d * (d + 2)), False)
    # `fourth` is E|x|^4 / (d (d+2)), and E x_1^4 = 3 fourth.
    assert _within(x**4, 3 * ts.Sphere(d).moments.fourth)


def test_gaussian_and_cube(key):
    x = ts.Gaussian(3).sample(key, 20_000)
    assert _within(x, 0.0) and _within(x[:, :, None] * x[:, None, :], np.eye(3)) and _within(x**4, 3.0)
    assert ts.Gaussian(3).moments == (1.0, 1.0, True)
    assert _within(x[:, 0] ** 2 * x[:, 1] ** 2, ts.Gaussian(3).moments.fourth)
    x = ts.Cube(3).sample(key, 20_000)
    assert _within(x, 0.0) and _within(x[:, :, None] * x[:, None, :], np.eye(3) / 3) and _within(x**4, 1 / 5)
    assert float(jnp.abs(x).max()) <= 1.0 and float(x.max()) > 0.99 and float(x.min()) < -0.99
    assert ts.Cube(3).moments is None


@pytest.mark.parametrize("cosine", [0.0, 0.6, 0.8, -0.2])
def test_neurons_have_their_cosine(key, cosine):
    teacher = ts.ReLUTeacher(3, cosine=cosine).sample(key, 5)
    gram = (1 - cosine) * np.eye(3) + cosine
    np.testing.assert_allclose(np.asarray(teacher.w) @ np.asarray(teacher.w).T, gram, atol=1e-12)
    # m = d, the largest there is.
    square = ts.ReLUTeacher(3, cosine=cosine).sample(key, 3)
    np.testing.assert_allclose(np.linalg.svd(square.w)[1] ** 2, np.linalg.eigvalsh(gram)[::-1], atol=1e-12)


def test_neurons_are_uniform_on_the_sphere(key):
    sample = jax.jit(jax.vmap(lambda k: ts.ReLUTeacher(2, cosine=0.6).sample(k, 3).w))
    w = np.asarray(sample(jr.split(key, 5000)))
    assert _within(w, 0.0) and _within(w[..., :, None] * w[..., None, :], np.eye(3) / 3)
    assert _within(w**4, 3 / 15)
    # Determinants of both signs, the whole orthogonal group.
    square = jax.vmap(lambda k: ts.ReLUTeacher(3).sample(k, 3).w)(jr.split(key, 1000))
    assert _within(np.linalg.det(square), 0.0)


def test_signs(key):
    signs = {s: ts.ReLUTeacher(5, signs=s) for s in ("random", "alternating", "positive")}
    assert signs["alternating"].sample(key, 5).a.tolist() == [1, -1, 1, -1, 1]
    assert signs["positive"].sample(key, 5).a.tolist() == [1] * 5
    a = np.asarray(jax.vmap(lambda k: signs["random"].sample(k, 5).a)(jr.split(key, 4000)))
    assert set(np.unique(a)) == {-1.0, 1.0} and _within(a[:, :, None] * a[:, None, :], np.eye(5))
    # Another choice of signs leaves the neurons as they are, and so does mapping.
    assert bool((signs["positive"].sample(key, 5).w == signs["random"].sample(key, 5).w).all())


def test_teachers_of_any_activation_have_the_neurons_of_a_relu_teacher(key):
    plain = ts.ReLUTeacher(3, signs="alternating", cosine=0.3).sample(key, 5)
    for activation in (erf, Activation(jnp.tanh)):
        problem = ts.Problem(ts.Gaussian(5), ts.TwoLayerTeacher(3, activation, signs="alternating", cosine=0.3))
        teacher = problem.sample_teacher(key)
        assert teacher.activation == activation and bool((teacher.a == plain.a).all() and (teacher.w == plain.w).all())
        data = problem.sample(key, teacher, 4)
        noise = data.y - activation(data.x @ plain.w.T) @ plain.a
        np.testing.assert_allclose(noise, data.y - jax.vmap(teacher)(data.x), atol=1e-13)
    assert ts.TwoLayerTeacher(3, relu).sample(key, 5).activation == relu
    many = jax.jit(jax.vmap(problem.sample_teacher))(jr.split(key, 4))
    assert many.w.shape == (4, 3, 5) and many.activation == Activation(jnp.tanh)


def test_draws_of_relu_teachers_are_those_of_release_0_1():
    # In float32 by the default generator; changed draws would make stored sweeps and new ones differ at equal seeds.
    teacher = ts.ReLUTeacher(2, cosine=0.5).sample(jax.random.key(7), 3, jnp.float32)
    assert teacher.a.tolist() == [1.0, 1.0]
    w = [[0.53342795, -0.37997335, 0.75569510], [0.61432707, -0.77256531, -0.16045274]]
    np.testing.assert_allclose(teacher.w, w, rtol=1e-5)


def test_a_function_as_teacher(key):
    problem = ts.Problem(ts.Sphere(3), ts.FunctionTeacher(lambda x: jnp.sin(x[0]) * x[1]), noise_std=0.0)
    teacher = problem.sample_teacher(key)
    data = problem.sample(key, teacher, 5)
    np.testing.assert_allclose(data.y, np.sin(data.x[:, 0]) * data.x[:, 1], rtol=1e-14)
    # Both pass through jit and vmap as arguments.
    same = jax.jit(lambda problem, teacher: problem.sample(key, teacher, 5))(problem, teacher)
    np.testing.assert_allclose(same.y, data.y, rtol=1e-14)
    many = jax.vmap(problem.sample_teacher)(jr.split(key, 2))
    batch = jax.vmap(lambda k, t: problem.sample(k, t, 5))(jr.split(key, 2), many)
    np.testing.assert_allclose(batch.y, np.sin(batch.x[..., 0]) * batch.x[..., 1], rtol=1e-14)
    # A module keeps its arrays.
    net = ts.ReLUTeacher(2).sample(key, 3)
    assert jax.tree.leaves(ts.FunctionTeacher(net)) == jax.tree.leaves(net)
    assert ts.FunctionTeacher(net).sample(key, 3) is net


def test_cosine_and_noise_are_traced(key):
    cosines = jnp.array([0.0, 0.5])
    teachers = jax.jit(jax.vmap(lambda c: ts.ReLUTeacher(2, cosine=c).sample(key, 3)))(cosines)
    np.testing.assert_allclose(jnp.sum(teachers.w[:, 0] * teachers.w[:, 1], axis=1), cosines, atol=1e-12)
    teacher = ts.ReLUTeacher(2).sample(key, 3)
    make = lambda s: ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), s).sample(key, teacher, 10)
    data = jax.jit(jax.vmap(make))(jnp.array([0.0, 0.1, 0.2]))
    clean = jax.vmap(teacher)(data.x[0])
    np.testing.assert_allclose(data.y[0], clean, atol=1e-14)
    np.testing.assert_allclose(data.y[2] - clean, 2 * (data.y[1] - clean), atol=1e-12)


@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
def test_noise(key, noise):
    problem = ts.Problem(ts.Cube(2), ts.ReLUTeacher(1), 0.3, noise=noise)
    teacher = problem.sample_teacher(key)
    data = problem.sample(jr.fold_in(key, 1), teacher, 20_000)
    eps = np.asarray(data.y - jax.vmap(teacher)(data.x)) / 0.3
    assert _within(eps, 0.0) and _within(eps**2, 1.0)
    assert _within(eps**4, 3.0 if noise == "gaussian" else 9 / 5)
    assert (np.abs(eps).max() <= 3**0.5) == (noise == "uniform")
    # Independent of the inputs.
    assert _within(eps[:, None] * np.asarray(data.x), 0.0) and _within(eps[:, None] ** 2 * np.asarray(data.x), 0.0)


def test_keys(key):
    problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2))
    teacher = problem.sample_teacher(key)
    draw = lambda k, n: problem.sample(k, teacher, n)
    same = draw(key, 6)
    assert bool((draw(key, 6).y == same.y).all())
    # The pitfall of the module's documentation: smaller sets from one key are prefixes of larger ones.
    assert bool((draw(key, 4).x == same.x[:4]).all())
    # fold_in gives independent ones.
    assert not np.isin(np.asarray(draw(jr.fold_in(key, 1), 4).x), np.asarray(same.x)).any()
    # Any function of a point will do, and mapping over keys changes nothing.
    other = problem.sample(key, lambda x: 2.0 * x[0], 6)
    np.testing.assert_allclose(other.y - 2 * other.x[:, 0], same.y - jax.vmap(teacher)(same.x), atol=1e-12)
    batch = jax.vmap(lambda k: draw(k, 6))(jr.split(key, 2))
    np.testing.assert_allclose(batch.x[1], draw(jr.split(key, 2)[1], 6).x, rtol=1e-12)


def test_the_dtype_is_kept(key):
    def make(noise_std):
        problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2, cosine=noise_std), noise_std)
        teacher = problem.sample_teacher(key, jnp.float32)
        return teacher, problem.sample(key, teacher, 4, jnp.float32)

    for out in (make(0.1), jax.jit(make)(0.1), jax.jit(make)(jnp.float64(0.1))):
        assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32")}
    problem = ts.Problem(ts.Gaussian(3), ts.ReLUTeacher(2), noise="uniform")
    assert problem.sample(key, problem.sample_teacher(key), 4).y.dtype == jnp.float64
    assert (problem.sample(key, problem.sample_teacher(key), 4).n, problem.d) == (4, 3)


def test_errors(key):
    problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2))
    with_noise = lambda s: lambda: ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), s)
    cases = [
        *((lambda law=law: law(0), r"d must be at least 1, got d=0") for law in (ts.Sphere, ts.Gaussian, ts.Cube)),
        (lambda: ts.Problem(ts.Sphere(3), ts.ReLUTeacher(4)), r"m <= d is needed; got m=4, d=3"),
        (lambda: ts.ReLUTeacher(4).sample(key, 3), r"m <= d is needed; got m=4, d=3"),
        (lambda: ts.ReLUTeacher(0), r"at least one neuron, got m=0"),
        (lambda: ts.TwoLayerTeacher(4, erf).sample(key, 3), r"a TwoLayerTeacher has .* m <= d is needed; got m=4, d=3"),
        (lambda: ts.TwoLayerTeacher(0, erf), r"at least one neuron, got m=0"),
        (lambda: ts.TwoLayerTeacher(3, erf, cosine=1.0), r"3 neurons .* got cosine=1\.0"),
        (lambda: ts.FunctionTeacher(3.0), r"a function of one point x \(d,\), such as .*; got 3\.0"),
        (
            lambda: ts.Problem(ts.Sphere(3), ts.FunctionTeacher(jnp.sin)),
            r"one point x of shape \(3,\) to a scalar; it gave .*\(3,\)",
        ),
        (lambda: ts.ReLUTeacher(3, cosine=1.0), r"3 neurons .* in \(-0\.5, 1\), got cosine=1\.0"),
        (lambda: ts.ReLUTeacher(3, cosine=-0.5), r"3 neurons .* in \(-0\.5, 1\), got cosine=-0\.5"),
        (lambda: ts.ReLUTeacher(3, cosine=float("nan")), r"got cosine=nan"),
        (with_noise(-0.1), r"noise_std is a standard deviation, .* got -0\.1"),
        (with_noise(float("nan")), r"noise_std .* got nan"),
        (with_noise(float("inf")), r"noise_std .* got inf"),
        (lambda: problem.sample(key, problem.sample_teacher(key), 0), r"at least one point, got n=0"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()


def test_what_a_type_checker_would_find_is_an_error_without_one():
    # The run-time type checker of the test suite comes first, so these are put in behind its back.
    for x, y in (((4, 3), (5,)), ((2, 4, 3), (3, 4)), ((4,), (4,)), ((4,), ())):
        data = object.__new__(ts.Dataset)
        object.__setattr__(data, "x", jnp.ones(x))
        object.__setattr__(data, "y", jnp.ones(y))
        object.__setattr__(data, "weight", None)
        with pytest.raises(ValueError, match=re.escape(f"x (n, *point) and y (n, *response), got x {x} and y {y}.")):
            ts.Dataset.__check_init__(data)
    teacher = object.__new__(ts.ReLUTeacher)
    for name, value in {"m": 2, "signs": "fair", "cosine": 0.0}.items():
        object.__setattr__(teacher, name, value)
    with pytest.raises(ValueError, match=r"signs must be 'random', 'alternating' or 'positive', got 'fair'"):
        ts.ReLUTeacher.__check_init__(teacher)
    problem = object.__new__(ts.Problem)
    fields = {"inputs": ts.Sphere(2), "teacher": ts.ReLUTeacher(2), "noise_std": 0.1, "noise": "cauchy"}
    for name, value in fields.items():
        object.__setattr__(problem, name, value)
    with pytest.raises(ValueError, match=r"noise must be 'gaussian' or 'uniform', got 'cauchy'"):
        ts.Problem.__check_init__(problem)


def test_half_precision_is_a_kind_of_number():
    """bfloat16 too, whose type NumPy does not know."""
    for dtype in (jnp.bfloat16, jnp.float16):
        check_numbers("y", jnp.ones(3, dtype))
    with pytest.raises(ValueError, match="value\\(s\\) that are missing or not numbers, the first at index \\(1,\\)"):
        check_numbers("y", np.array([1.0, None], object))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (7, r"such as jax.random.key\(7\); got int 7"),
        ("7", "got str 7"),
        (np.zeros(2), r"got an array of float64 \(2,\)"),
        (jr.split(jr.key(0), 3), r"one random key of JAX; got an array of keys, shape \(3,\). .*tsjax.fit_many"),
        (jr.split(jr.PRNGKey(0), 3), r"got an array of keys, shape \(3, 2\)"),
    ],
)
def test_what_is_no_key_is_refused(wrong, message):
    with pytest.raises(TypeError, match=message):
        check_key(wrong)


def test_wrong_arguments_are_refused_wherever_a_user_gives_them():
    # In a process of its own, since tests check the types of all arguments.
    script = """
import jax, numpy as np, tsjax as ts
key = jax.random.key(0)
problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), noise_std=0.1)
teacher = problem.sample_teacher(key)
data = problem.sample(jax.random.PRNGKey(1), teacher, np.int64(8))
mixture, rows = ts.GaussianMixture(np.eye(2), (0, 1)), ts.DataProblem(np.eye(8), np.arange(8.0))
estimators = [
    ts.KernelRidge(ts.kernels.RBF(1.0)), ts.NearestNeighbours(), ts.TwoPhaseStudent(2),
    ts.Student(ts.MLP((4,)), steps=2, learning_rate=0.1), ts.GradientStudent(2), ts.RandomFeatures(8),
    ts.OptimalLinear(problem), ts.Ensemble(ts.NearestNeighbours()),
    ts.Stages((ts.Student(ts.MLP((4,)), steps=2, learning_rate=0.1),)),
]
calls = [
    (problem.sample_teacher, ()), (problem.sample, (teacher, 8)), (mixture.draw, ()), (mixture.draw(key).sample, (8,)),
    (rows.split, (2,)), (rows.draw(key).sample, (2,)), *((estimator.fit, (data,)) for estimator in estimators),
]
calls.append((lambda key: ts.OracleStudent().fit(key, data, oracle=(problem, teacher)), ()))
wrong = [lambda call=call, rest=rest: call(0, *rest) for call, rest in calls]
wrong += [lambda one=one: one.fit(key, (data.x, data.y)) for one in estimators]
wrong += [lambda: problem.sample(key, teacher, 16.5), lambda: ts.fit_many(estimators[0], key, [data])]
for call in wrong:
    try:
        call()
    except TypeError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    said = run.stdout.splitlines()
    assert len(said) == 16 + 9 + 2 and all(line.startswith("key is a random key of JAX") for line in said[:16])
    tuples = "data is a Dataset, as in estimator.fit(key, tsjax.Dataset(x, y)); got a tuple."
    assert said[16:25] == [tuples] * 9
    assert said[25] == "the number of rows n is a whole number, got 16.5." and "datasets is one Dataset" in said[26]
