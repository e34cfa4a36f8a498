"""Kernel ridge regression with kernel matrices larger than memory: `uv run python -m benchmarks large_ridge --n 8192 32768`.

It fits `tsjax.IterativeRidge` with the neural tangent kernel to a noisy ReLU teacher, with the noise variance as ridge, and
prints the time (of the first fit of that size, including compilation), steps, true residual, rank of the preconditioner and the
peak memory of the process so far. If the kernel matrix fits in memory, it also prints the risk of `tsjax.KernelRidge`.
"""

import argparse
import time

import jax
import numpy as np

import tsjax as ts

from . import peak_memory

_EXACT = 8192


def measure(n: int, d: int, noise_std: float, tolerance: float, rank: int | None, dtype, tile: int) -> str:
    """One row of the table."""
    problem = ts.Problem(ts.Sphere(d), ts.ReLUTeacher(min(5, d)), noise_std)
    teacher_key, data_key, fit_key, risk_key = jax.random.split(jax.random.key(0), 4)
    teacher = problem.sample_teacher(teacher_key)
    data = jax.block_until_ready(problem.sample(data_key, teacher, n))
    ridge, kernel = noise_std**2, ts.kernels.ArcCosineNTK()
    estimator = ts.IterativeRidge(kernel, ridge=ridge, rank=rank, tolerance=tolerance, dtype=dtype, tile=tile)
    start = time.perf_counter()
    fit = jax.block_until_ready(estimator.fit(fit_key, data))
    seconds = time.perf_counter() - start
    memory = peak_memory()
    # Both risks use the same fresh points, so that they differ only by the fits.
    risk = lambda fit: float(ts.monte_carlo_risk(problem, teacher, fit, risk_key).value)
    exact = f"{risk(ts.KernelRidge(kernel, ridge=ridge).fit(fit_key, data)):.6e}" if n <= _EXACT else ""
    stats = {name: np.asarray(value).item() for name, value in fit.stats.items()}
    return (
        f"| {n} | {seconds:.1f} | {stats['steps']} | {stats['residual']:.1e} | {stats['rank']} | {memory:.2f} "
        f"| {ts.Status(int(fit.status)).name} | {risk(fit):.6e} | {exact} |"
    )


def main(arguments: list[str]) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks large_ridge", description="Large kernel ridge problems."
    )
    parser.add_argument("--n", type=int, nargs="+", default=[8192, 32768], help="sample sizes (8192 32768)")
    parser.add_argument("--d", type=int, default=10, help="dimension of the inputs, on the sphere (10)")
    parser.add_argument("--noise-std", type=float, default=0.1, help="noise; the ridge is its square (0.1)")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="relative residual to reach (1e-6)")
    parser.add_argument("--rank", type=int, help="columns of the preconditioner (10 sqrt(n))")
    parser.add_argument("--tile", type=int, default=1024, help="rows of a tile (1024)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of the tiles (float32)")
    options = parser.parse_args(arguments)
    kind = jax.local_devices()[0].device_kind
    print(f"jax {jax.__version__} on {kind}, d={options.d}, ridge={options.noise_std**2:.3g}, {options.dtype} tiles\n")
    print("| n | seconds | steps | residual | rank | peak GiB | status | risk | exact ridge's risk |")
    print("|---|---|---|---|---|---|---|---|---|")
    for n in options.n:
        row = measure(n, options.d, options.noise_std, options.tolerance, options.rank, options.dtype, options.tile)
        print(row, flush=True)
