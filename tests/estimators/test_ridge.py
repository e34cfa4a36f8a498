import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

import tsjax as ts
from tsjax.estimators.ridge import PATH, KernelRidge
from tsjax.estimators.shifted import _shifted_by_eigen, _shifted_by_tridiagonal, solve_shifted
from tsjax.kernels import RBF, ArcCosine, ArcCosineNTK, Matern, ntk

N = 40


@pytest.fixture
def problem():
    return ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), 0.5)


def _hat_matrices(gram):
    """The ridges of the path and their hat matrices, by direct inversion."""
    ridges = PATH * np.trace(gram) / N
    return ridges, [gram @ np.linalg.inv(gram + r * np.eye(N)) for r in ridges]


def test_a_number_solves_the_normal_equations(data, key):
    fit = KernelRidge(ntk(), ridge=0.3).fit(key, data)
    gram, y = np.asarray(ArcCosineNTK()(data.x)), np.asarray(data.y)
    np.testing.assert_allclose(fit.alpha, np.linalg.solve(gram + 0.3 * np.eye(N), y), rtol=1e-9)
    x = jr.normal(key, (5, 4))
    np.testing.assert_allclose(fit.predict(x), ArcCosineNTK()(x, data.x) @ fit.alpha, rtol=1e-10)
    hat = gram @ np.linalg.inv(gram + 0.3 * np.eye(N))
    residual = y - hat @ y
    np.testing.assert_allclose(fit.stats["dof"], np.trace(hat), rtol=1e-9)
    np.testing.assert_allclose(fit.stats["gcv"], N * residual @ residual / (N - np.trace(hat)) ** 2, rtol=1e-9)
    np.testing.assert_allclose(fit.stats["loo"], np.mean((residual / (1 - np.diag(hat))) ** 2), rtol=1e-9)
    assert fit.status == ts.Status.CONVERGED and fit.stats["ridge"] == 0.3


@pytest.mark.parametrize("criterion", ["gcv", "loo", "marginal_likelihood"])
def test_search_finds_the_brute_force_minimum(data, key, criterion):
    fit = KernelRidge(ntk(), ridge=criterion).fit(key, data)
    gram, y = np.asarray(ArcCosineNTK()(data.x)), np.asarray(data.y)
    ridges, hats = _hat_matrices(gram)
    # I - H is computed without cancellation, since the subtraction has few digits if H is almost I.
    rests = [r * np.linalg.inv(gram + r * np.eye(N)) for r in ridges]
    gcv = np.array([N * np.sum((rest @ y) ** 2) / np.trace(rest) ** 2 for rest in rests])
    loo = np.array([np.mean((rest @ y / np.diag(rest)) ** 2) for rest in rests])
    shifted = [gram + r * np.eye(N) for r in ridges]
    likelihood = np.array([np.log(y @ np.linalg.solve(k, y)) + np.linalg.slogdet(k)[1] / N for k in shifted])
    judged = np.array([np.trace(r) ** 2 >= 10 * np.sum(r * r) for r in rests]) | (criterion != "gcv")
    score = {"gcv": gcv, "loo": loo, "marginal_likelihood": likelihood}[criterion]
    best = int(np.argmin(np.where(judged, score, np.inf)))
    np.testing.assert_allclose(fit.stats["ridge"], ridges[best], rtol=1e-10)
    np.testing.assert_allclose(fit.stats["gcv"], gcv[best], rtol=1e-8)
    if criterion == "loo":
        np.testing.assert_allclose(fit.stats["loo"], loo[best], rtol=1e-8)
    np.testing.assert_allclose(fit.stats["dof"], np.trace(hats[best]), rtol=1e-8)
    # The path and Cholesky's factor give one predictor.
    same = KernelRidge(ntk(), ridge=fit.stats["ridge"]).fit(key, data)
    np.testing.assert_allclose(fit.alpha, same.alpha, rtol=1e-8)


def test_loo_is_leaving_one_out(data, key):
    fit = KernelRidge(RBF(0.8), ridge=0.05).fit(key, data)
    errors = []
    for i in range(N):
        keep = np.arange(N) != i
        without = KernelRidge(RBF(0.8), ridge=0.05).fit(key, ts.Dataset(x=data.x[keep], y=data.y[keep]))
        errors.append(float(data.y[i] - without.predict(data.x[i : i + 1])[0]))
    np.testing.assert_allclose(fit.stats["loo"], np.mean(np.square(errors)), rtol=1e-9)


def test_oracle_is_the_best_of_the_path(problem, teacher, data, key):
    fit = KernelRidge(ntk(), ridge="oracle").fit(key, data, oracle=(problem, teacher))
    x = problem.inputs.sample(jr.fold_in(key, 9), 20000)
    truth = jax.vmap(teacher)(x)
    risks = []
    for ridge in PATH[20:] * float(jnp.trace(ntk()(data.x))) / N:
        risks.append(float(jnp.mean((KernelRidge(ntk(), ridge=ridge).fit(key, data).predict(x) - truth) ** 2)))
    risk = float(jnp.mean((fit.predict(x) - truth) ** 2))
    assert risk <= min(risks) * 1.01
    # The score in `stats` is the risk at the fresh points of the search.
    np.testing.assert_allclose(fit.stats["oracle"], risk, rtol=0.1)
    gcv = KernelRidge(ntk()).fit(key, data)
    assert risk <= float(jnp.mean((gcv.predict(x) - truth) ** 2)) * 1.01


def test_the_marginal_likelihood_is_that_of_a_gaussian(data, key):
    """The reference is SciPy's Gaussian density at the best scale."""
    fit = KernelRidge(ntk(), ridge="marginal_likelihood").fit(key, data)
    gram, y = np.asarray(ArcCosineNTK()(data.x)), np.asarray(data.y)

    def log_density(ridge, tau):
        return scipy.stats.multivariate_normal(np.zeros(N), tau * (gram + ridge * np.eye(N))).logpdf(y)

    chosen = float(fit.stats["ridge"])
    at_best = lambda ridge: max(log_density(ridge, tau) for tau in np.geomspace(1e-3, 1e2, 400))
    assert at_best(chosen) > max(at_best(chosen * factor) for factor in (0.5, 2.0))


def test_a_held_out_fifth_chooses(data, key):
    fit = KernelRidge(ntk(), ridge="holdout").fit(key, data)
    order = jr.permutation(jr.fold_in(key, 0x401D), N)
    held, rest = order[: N // 5], order[N // 5 :]
    gram = ntk()(data.x[rest])
    errors = []
    for ridge in PATH * float(jnp.trace(gram)) / (N - N // 5):
        part = KernelRidge(ntk(), ridge=ridge).fit(key, ts.Dataset(x=data.x[rest], y=data.y[rest]))
        errors.append(float(jnp.mean((part.predict(data.x[held]) - data.y[held]) ** 2)))
    chosen = PATH[int(np.nanargmin(errors))] * float(jnp.trace(gram)) / (N - N // 5)
    np.testing.assert_allclose(fit.stats["ridge"], chosen, rtol=1e-9)
    np.testing.assert_allclose(fit.alpha, KernelRidge(ntk(), ridge=chosen).fit(key, data).alpha, rtol=1e-9)
    # Another key holds out another fifth.
    others = [float(KernelRidge(ntk(), ridge="holdout").fit(jr.fold_in(key, i), data).stats["ridge"]) for i in range(8)]
    assert len(set(others)) > 1


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_the_tridiagonal_path_is_the_eigendecomposition(key, n):
    a = jr.normal(key, (n, n))
    a, b, shifts = a @ a.T, jr.normal(jr.fold_in(key, 1), (n, 2)), jnp.logspace(-3, 3, 7)
    fast, slow = _shifted_by_tridiagonal(a, b, shifts), _shifted_by_eigen(a, b, shifts)
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9)
    batch = jax.jit(jax.vmap(solve_shifted, (0, 0, None)))(jnp.stack([a, 2 * a]), jnp.stack([b, b]), shifts)
    for one, other in zip(batch, slow, strict=True):
        np.testing.assert_allclose(one[0], other, rtol=1e-8, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("ridge", ["gcv", "loo", "holdout", "marginal_likelihood", "oracle", 0.1])
def test_jit_and_vmap_equal_eager(problem, teacher, key, ridge):
    datasets = jax.vmap(lambda k: problem.sample(k, teacher, 20))(jr.split(key, 3))
    oracle = {"oracle": (problem, teacher)} if ridge == "oracle" else {}
    estimator = KernelRidge(ntk(), ridge=ridge)
    keys = jr.split(jr.fold_in(key, 5), 3)
    mapped = jax.jit(jax.vmap(lambda k, data: estimator.fit(k, data, **oracle)))(keys, datasets)
    x = jr.normal(key, (6, 4))
    predictions = jax.vmap(lambda fit: fit.predict(x))(mapped)
    for i in range(3):
        fit = estimator.fit(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], datasets), **oracle)
        np.testing.assert_allclose(mapped.alpha[i], fit.alpha, rtol=1e-7)
        np.testing.assert_allclose(predictions[i], fit.predict(x), rtol=1e-9)
        # The score of the oracle is in the statistics only if the oracle chose.
        expected = {"ridge", "dof", "gcv", *oracle}
        assert fit.stats.keys() - {"loo", "cut"} == expected and fit.stats.keys() == mapped.stats.keys()


def test_ridges_and_length_scales_are_traced(data, key):
    ridges = jnp.array([0.1, 1.0])
    mapped = jax.vmap(lambda r: KernelRidge(RBF(r), ridge=r).fit(key, data))(ridges)
    for i, r in enumerate([0.1, 1.0]):
        np.testing.assert_allclose(mapped.alpha[i], KernelRidge(RBF(r), ridge=r).fit(key, data).alpha, rtol=1e-9)


def test_another_ridge_does_not_compile_again(data, key, caplog):
    def compilations(n, length_scale, ridge):
        caplog.clear()
        with jax.log_compiles():
            KernelRidge(RBF(length_scale), ridge=ridge).fit(key, ts.Dataset(x=data.x[:n], y=data.y[:n]))
        return sum(record.getMessage().startswith("Compiling") for record in caplog.records)

    assert compilations(N - 1, 0.31, 0.1) > 0  # This is a control: a new compilation is counted.
    assert compilations(N - 1, 0.62, 0.2) == 0


def test_many_points_are_predicted_in_blocks(data, key):
    fit = KernelRidge(ntk(), ridge=0.1).fit(key, data)
    x = jr.normal(key, (5000, 4))
    np.testing.assert_allclose(fit.predict(x), ntk()(x, data.x) @ fit.alpha, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "kernel", [ntk(depth=3), ArcCosineNTK(depth=3, bias_std=0.5), ArcCosine(0), Matern(1.0)], ids=str
)
def test_memory_is_a_few_kernel_matrices(key, kernel):
    """The memory is XLA's estimate, without running the program: n = 16384 must fit into 24 GiB, which hold twelve float64
    matrices."""
    n = 16384
    fit = jax.jit(lambda x, y: KernelRidge(kernel).fit(key, ts.Dataset(x=x, y=y)).alpha)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((n, 5), (n,))]
    memory = fit.lower(*shapes).compile().memory_analysis()
    assert memory is not None and 8 * n**2 < memory.temp_size_in_bytes < 6 * 8 * n**2


@pytest.mark.parametrize("kernel", [ArcCosineNTK(1), ntk()], ids=["closed form", "network"])
def test_a_given_ridge_takes_less_than_two_kernel_matrices(key, kernel):
    """The kernel matrix is computed in panels, the factor takes half a matrix, and neither the inverse, whose diagonal `stats`
    need, nor the errors of all entries are ever in memory as a whole."""
    n = 16384
    fit = jax.jit(lambda x, y: jax.tree.leaves(KernelRidge(kernel, ridge=0.1).fit(key, ts.Dataset(x=x, y=y))))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((n, 5), (n,))]
    memory = fit.lower(*shapes).compile().memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < 2.0 * 8 * n**2


def test_the_order_of_the_data_does_not_matter(data, key):
    order = jr.permutation(key, N)
    x = jr.normal(key, (6, 4))
    shuffled = KernelRidge(ntk()).fit(key, ts.Dataset(x=data.x[order], y=data.y[order]))
    np.testing.assert_allclose(KernelRidge(ntk()).fit(key, data).predict(x), shuffled.predict(x), rtol=1e-8)


def test_a_singular_matrix_is_a_status(key):
    x = jnp.zeros((3, 2)).at[0, 0].set(1.0)
    fit = KernelRidge(ntk(), ridge=0).fit(key, ts.Dataset(x=x, y=jnp.arange(3.0)))
    assert fit.status == ts.Status.SINGULAR and bool(jnp.isnan(fit.predict(x)).all())
    # The Cholesky factor of a matrix that is singular to working precision may exist although it has no correct digit.
    x = jr.normal(key, (30, 2)) * 1e-2
    assert KernelRidge(RBF(1.0), ridge=0).fit(key, ts.Dataset(x=x, y=x[:, 0])).status == ts.Status.SINGULAR
    x = jnp.zeros((3, 2)).at[0, 0].set(1.0)
    # The search never tries ridge 0.
    with pytest.warns(
        UserWarning, match=r"1 of 3 rows of x repeat an earlier row; ridge='gcv' leaves equal rows out together"
    ):
        assert KernelRidge(ntk()).fit(key, ts.Dataset(x=x, y=jnp.arange(3.0))).status == ts.Status.CONVERGED


def test_no_ridge_below_the_error_of_the_kernel(key):
    """The data have pairs of nearly equal points, at which neural-tangents has errors of 1e-9. A ridge of 1e-10 would be below
    the errors of the kernel."""
    x = jr.normal(key, (20, 2))
    x = jnp.concatenate([x, x * (1.0 + 1e-12) + 1e-12])
    data = ts.Dataset(x=x, y=jnp.sum(x**2, axis=1))
    for criterion in ("gcv", "loo", "marginal_likelihood"):
        fit = KernelRidge(ntk(), ridge=criterion).fit(key, data)
        assert float(fit.stats["ridge"]) > float(ntk().error(x)) > 1e-10
    assert int(fit.status) == ts.Status.CONVERGED
    assert KernelRidge(ntk(), ridge=1e-10).fit(key, data).status == ts.Status.SINGULAR


def test_float32_data_are_fitted_in_float64_without_the_flag(data, key):
    truth = KernelRidge(ntk(), ridge=0.1).fit(key, data).predict(data.x)
    with jax.enable_x64(False):
        single = ts.Dataset(x=data.x.astype(jnp.float32), y=data.y.astype(jnp.float32))
        fit = KernelRidge(ntk(), ridge=0.1).fit(key, single)
        assert fit.alpha.dtype == jnp.float64
        np.testing.assert_allclose(fit.predict(single.x), truth, rtol=1e-4, atol=1e-6)
        with pytest.raises(RuntimeError, match="needs float64"):
            jax.jit(KernelRidge(ntk(), ridge=0.1).fit)(key, single)


def test_errors(problem, teacher, data, key):
    cases = [
        (lambda: KernelRidge(ntk(), ridge=-0.1), r"ridge must be finite and >= 0, or one of .*; got -0\.1"),
        (
            lambda: KernelRidge(ntk(), ridge="gvc"),
            r"one of \('gcv', 'loo', 'holdout', 'oracle', .*, got 'gvc'; nearest: 'gcv'",
        ),
        (lambda: KernelRidge(ntk(), ridge=jnp.ones(2)), r"one number, got an array of shape \(2,\)"),
        (lambda: KernelRidge(ntk()).fit(key, ts.Dataset(x=data.x[:1], y=data.y[:1])), r"ridge='gcv' .* needs n >= 2"),
        (lambda: KernelRidge(ntk), r"needs a kernel such as tsjax\.kernels\.ntk\(depth=1\), got .*Call it: ntk\(\)"),
        (
            lambda: KernelRidge(ntk(), ridge="oracle").fit(key, data),
            r"call fit\(key, data, oracle=\(problem, teacher\)\)",
        ),
        (lambda: KernelRidge(ntk()).fit(key, data, oracle=(problem, teacher)), r'with ridge="oracle" only'),
        (
            lambda: KernelRidge(ntk(), ridge="oracle").fit(
                key, data, oracle=(ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2)), teacher)
            ),
            r"problem has d=3, but the data have d=4",
        ),
        (
            lambda: KernelRidge(ntk()).fit(key, ts.Dataset(x=data.x, y=data.y.at[7].set(jnp.nan))),
            r"data\.y has 1 value\(s\) that are not finite, the first at index \(7,\)",
        ),
        (lambda: KernelRidge(ntk()).fit(key, jax.tree.map(lambda v: v[None], data)), r"expected x of shape \(n, d\)"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
