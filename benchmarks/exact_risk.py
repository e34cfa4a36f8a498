"""How long does the exact risk of kernel ridge take beside its fit? `uv run python -m benchmarks exact_risk`.

For each n it fits `tsjax.KernelRidge` with the neural tangent kernel to a noisy ReLU teacher on the sphere, once with a given
ridge and once by GCV, and computes `tsjax.kernel_risk` of both fits. All run in turn, `--repeats` times after a run that
compiles them; the fastest time counts. Shares are those of the risk in the time of the fit.
"""

import argparse
import time

import jax

import tsjax as ts


def measure(n: int, d: int, repeats: int) -> str:
    """One row of the table."""
    problem = ts.Problem(ts.Sphere(d), ts.ReLUTeacher(min(3, d)), noise_std=0.1)
    teacher_key, data_key, fit_key = jax.random.split(jax.random.key(0), 3)
    teacher = problem.sample_teacher(teacher_key)
    data = problem.sample(data_key, teacher, n)
    ways = [ts.KernelRidge(ts.kernels.ArcCosineNTK(), ridge=ridge) for ridge in (problem.noise_std**2, "gcv")]
    fits, fit_times, risk_times, risks = {}, [], [], []
    for _ in range(1 + repeats):
        times = []
        for i, way in enumerate(ways):
            start = time.perf_counter()
            fits[i] = jax.block_until_ready(way.fit(fit_key, data))
            times.append(time.perf_counter() - start)
        fit_times.append(times)
        start = time.perf_counter()
        risks = [jax.block_until_ready(ts.kernel_risk(fits[i], teacher, problem)) for i in range(len(ways))]
        risk_times.append((time.perf_counter() - start) / len(ways))
    given, gcv = (min(times) for times in zip(*fit_times[1:], strict=True))
    risk = min(risk_times[1:])
    values = [f"{float(found.value):.4e}" for found in risks]
    return (
        f"| {n} | {given:.3g} | {gcv:.3g} | {risk:.3g} | {risk / given:.2f} | {risk / gcv:.3f} | {'; '.join(values)} |"
    )


def main(arguments: list[str]) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks exact_risk", description="The exact risk beside the fit."
    )
    parser.add_argument(
        "--n", type=int, nargs="+", default=[1024, 2048, 4096, 8192], help="sizes (1024 2048 4096 8192)"
    )
    parser.add_argument("--d", type=int, default=5, help="dimension of the inputs, on the sphere (5)")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds; the fastest one counts (3)")
    options = parser.parse_args(arguments)
    kind = jax.local_devices()[0].device_kind
    print(f"jax {jax.__version__} on {kind}, d={options.d}, noise 0.1, NTK\n")
    print("| n | fit, given ridge (s) | fit, GCV (s) | exact risk (s) | share of the former | of the latter | risks |")
    print("|---|---|---|---|---|---|---|")
    for n in options.n:
        print(measure(n, options.d, options.repeats), flush=True)
