"""A ridge chosen from a path, by tsjax and by other libraries that a user might take, in one run:

    uv run python -m benchmarks ridge_path --n 4096        (add `--with gpytorch` for its row)

All get the same data (an orthonormal ReLU teacher on the sphere, and the kernel of an infinitely wide network with one hidden
layer) and the same 25 ridges, and return a predictor. Times include the kernel matrix but not compilation or imports, except
for RidgeCV, which gets its features (the Cholesky factor of the kernel matrix) ready-made. The risk is exact
(`tsjax.kernel_risk`). Memory is the peak of a process that does nothing else.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import tsjax as ts
from tsjax.estimators.ridge import KernelFit
from tsjax.sweep.devices import use_all_cores

from . import peak_memory

RIDGES = np.logspace(-4, 2, 25)


class Bench:
    """The problem, and the risk of a result; every contestant returns alpha of f(x) = k(x, X) alpha."""

    def __init__(self, n: int, d: int, m: int, noise_std: float):
        jax.config.update("jax_enable_x64", True)
        self.problem = ts.Problem(ts.Sphere(d), ts.ReLUTeacher(m), noise_std)
        self.teacher = self.problem.sample_teacher(jax.random.key(0))
        self.data = jax.block_until_ready(self.problem.sample(jax.random.key(1), self.teacher, n))
        self.kernel = ts.kernels.ntk()
        self.x, self.y = np.asarray(self.data.x), np.asarray(self.data.y)

    def gram(self) -> np.ndarray:
        return np.asarray(self.kernel(self.data.x))

    def risk(self, alpha) -> float:
        alpha, converged = jnp.asarray(alpha), jnp.zeros((), jnp.int32)
        fit = KernelFit(kernel=self.kernel, x=self.data.x, alpha=alpha, status=converged, stats={})
        return float(ts.kernel_risk(fit, self.teacher, self.problem).value)


def _tsjax(kind: Callable, criterion: str) -> Callable[[Bench], Callable]:
    # The default path of tsjax has 60 ridges, which cover the range of the 25.
    def prepare(bench: Bench):
        estimator = kind(bench.kernel, ridge=criterion)
        return lambda: np.asarray(estimator.fit(jax.random.key(3), bench.data).alpha)

    return prepare


def _grid_search(bench: Bench):
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    def run():
        search = GridSearchCV(KernelRidge(kernel="precomputed"), {"alpha": RIDGES}, scoring="neg_mean_squared_error")
        return search.fit(bench.gram(), bench.y).best_estimator_.dual_coef_

    return run


def _ridge_cv(bench: Bench):
    from sklearn.linear_model import RidgeCV

    # At the data, k(x, z) = <phi(x), phi(z)> with phi the rows of the Cholesky factor.
    gram = bench.gram()
    features = np.linalg.cholesky(gram + 1e-10 * np.eye(len(gram)))

    def run():
        fit = RidgeCV(RIDGES, fit_intercept=False).fit(features, bench.y)
        return (bench.y - features @ np.asarray(fit.coef_)) / float(np.asarray(fit.alpha_))

    return run


def _neural_tangents(bench: Bench):
    from tsjax.kernels.neural_tangents import load

    # It has no criterion, so a fifth of the data is held out to choose.
    nt, cut = load(), len(bench.y) * 4 // 5

    def run():
        gram = bench.gram()
        errors = []
        for ridge in RIDGES:
            predict = nt.predict.gradient_descent_mse(
                gram[:cut, :cut], bench.y[:cut, None], diag_reg=ridge, diag_reg_absolute_scale=True
            )
            held = predict(None, 0.0, 0.0, gram[cut:, :cut])[1]
            errors.append(np.mean((np.asarray(held)[:, 0] - bench.y[cut:]) ** 2))
        ridge = RIDGES[int(np.argmin(errors))]
        return np.linalg.solve(gram + ridge * np.eye(len(gram)), bench.y)

    return run


def _gpytorch(bench: Bench):
    import gpytorch  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    y = torch.from_numpy(bench.y.copy())

    def run():
        gram = torch.from_numpy(bench.gram().copy())
        likelihood = gpytorch.distributions.MultivariateNormal
        best = (-np.inf, 1.0)
        with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
            for ridge in RIDGES:
                shifted = gram + ridge * torch.eye(len(y), dtype=y.dtype)
                # The scale is optimised, as in the marginal likelihood of tsjax.
                scale = float(y @ torch.linalg.solve(shifted, y)) / len(y)
                density = float(likelihood(torch.zeros_like(y), scale * shifted).log_prob(y))
                best = max(best, (density, float(ridge)))
        return np.linalg.solve(gram.numpy() + best[1] * np.eye(len(y)), bench.y)

    return run


WAYS: dict[str, Callable[[Bench], Callable]] = {
    "tsjax IterativeRidge, gcv": _tsjax(ts.IterativeRidge, "gcv"),
    "tsjax KernelRidge, gcv": _tsjax(ts.KernelRidge, "gcv"),
    "tsjax KernelRidge, marginal likelihood": _tsjax(ts.KernelRidge, "marginal_likelihood"),
    "scikit-learn KernelRidge, GridSearchCV of 5 folds": _grid_search,
    "scikit-learn RidgeCV on given features": _ridge_cv,
    "neural-tangents predict, a fifth held out": _neural_tangents,
    "GPyTorch exact, marginal likelihood": _gpytorch,
}


def measure(name: str, shape: tuple, repeats: int) -> tuple[float, float, float] | str:
    """Seconds (the best of the repeats), risk and peak memory in GiB; or the package that is missing."""
    use_all_cores()
    bench = Bench(*shape)
    try:
        run = WAYS[name](bench)
    except ImportError as error:
        return f"not installed ({error.name})"
    alpha, seconds = run(), []
    for _ in range(repeats):
        start = time.perf_counter()
        alpha = run()
        seconds.append(time.perf_counter() - start)
    memory = peak_memory()
    return min(seconds), bench.risk(alpha), memory


def main(arguments: list[str]) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ridge_path", description="Ridge paths side by side.")
    parser.add_argument("--n", type=int, default=4096, help="sample size (4096)")
    parser.add_argument("--d", type=int, default=5, help="dimension (5)")
    parser.add_argument("--m", type=int, default=3, help="neurons of the teacher (3)")
    parser.add_argument("--noise-std", type=float, default=0.1, help="noise (0.1)")
    parser.add_argument("--repeats", type=int, default=1, help="timed runs after one that warms up (1)")
    options = parser.parse_args(arguments)
    shape = (options.n, options.d, options.m, options.noise_std)
    print(f"jax {jax.__version__}; n={options.n}, d={options.d}, m={options.m}, noise {options.noise_std}\n")
    print("| way | seconds | slower than the first by | exact risk | peak GiB |\n|---|---|---|---|---|")
    first = None
    for name in WAYS:
        # Each in a process of its own, so that memory and threads of libraries do not mix.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(measure, (name, shape, options.repeats))
        if isinstance(result, str):
            print(f"| {name} | {result} | | | |", flush=True)
            continue
        seconds, risk, memory = result
        first = seconds if first is None else first
        print(f"| {name} | {seconds:.2f} | {seconds / first:.1f} | {risk:.4e} | {memory:.2f} |", flush=True)
