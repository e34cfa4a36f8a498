"""Large kernel ridge regression by tsjax and by EigenPro 2, FALKON and fast_krr, until they reach the same risk:

    uv run python -m benchmarks large_ridge_peers --n 5000 20000

All get the same noisy ReLU teacher on the sphere, the same kernel, and the noise variance as ridge. The first row is
`tsjax.IterativeRidge` with its own tolerance; its risk is the aim. Then each way tries its settings from the cheapest on, and
stops at the first whose risk is at most 1 % above the aim; the table shows this one, or the last that was tried. Risks are
means over the same fresh points, and residuals are |y - (K + ridge I) alpha| / |y|, both in float64 by tsjax. FALKON (fewer
centres) and EigenPro (no ridge, but an early stop) solve other systems.

Seconds are those of a fit from nothing, without compilation and imports, since each way runs something small before. Every way
has a process of its own, whose peak memory includes packages and the settings before.
"""

import argparse
import contextlib
import importlib.util
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from . import peak_memory

# Not on the package index; commits that worked. They need torch (its CPU build is enough) and pykeops, and falkon compiles C++
# for some minutes.
REPOSITORIES = {
    "eigenpro2": "EigenPro/EigenPro-pytorch@bec4927",
    "falkon": "FalkonML/falkon@387d456",
    "fast_krr": "pratikrathore8/fast_krr@0c97bd5",
}
OURS = "tsjax.IterativeRidge, float32 tiles"
RIDGE = 0.01
_WITHIN = 1.01
# FALKON keeps a matrix of all pairs of its centres.
_MOST_CENTRES = 30_000
# Columns of the preconditioners of EigenPro and fast_krr.
_RANK = 100
# Each way warms up on the first rows of the sample, at most this many if n is below 20 000.
_FEWEST = 500


class Case(NamedTuple):
    """A sample x (n, d) and y (n,), a kernel "laplace" or "rbf" with its length scale, and the ridge, which is not times n."""

    x: np.ndarray
    y: np.ndarray
    kernel: str
    length_scale: float
    ridge: float


class Fitted(NamedTuple):
    """f(x) = k(x, centres) alpha, found with these settings in so many seconds, with this `peak` memory in GiB."""

    settings: str
    seconds: float
    centres: np.ndarray
    alpha: np.ndarray
    peak: float = 0.0


def _ladder(first: float, last: int = 2**20) -> list[int]:
    """Integers from `first` to `last`, each about sqrt(2) times the one before."""
    return sorted({min(last, math.ceil(first * 2 ** (k / 2))) for k in range(40)})


def _kernel(case: Case) -> Any:
    import tsjax as ts

    return {"laplace": ts.kernels.Laplace, "rbf": ts.kernels.RBF}[case.kernel](case.length_scale)


def _tsjax(tolerances: tuple[float, ...], case: Case) -> Iterator[Fitted]:
    import jax
    import jax.numpy as jnp

    import tsjax as ts

    jax.config.update("jax_enable_x64", True)
    data, key = ts.Dataset(jnp.asarray(case.x), jnp.asarray(case.y)), jax.random.key(2)
    # The tolerance is traced, so that a first fit with hardly any steps compiles the program of all others.
    for tolerance in (0.9, *tolerances):
        start = time.perf_counter()
        fit = ts.IterativeRidge(_kernel(case), ridge=case.ridge, tolerance=tolerance).fit(key, data)
        alpha, seconds = np.asarray(fit.alpha), time.perf_counter() - start
        if tolerance < 0.9:
            settings = f"tolerance {tolerance:.0e}, {int(fit.stats['steps'])} steps, rank {int(fit.stats['rank'])}"
            yield Fitted(settings, seconds, case.x, alpha)


def _eigenpro(case: Case) -> Iterator[Fitted]:
    import torch  # pyright: ignore[reportMissingImports]
    from eigenpro2 import KernelModel, kernels  # pyright: ignore[reportMissingImports]

    kernel = {"laplace": kernels.laplacian, "rbf": kernels.gaussian}[case.kernel]
    x, y = torch.from_numpy(case.x).float(), torch.from_numpy(case.y).float()[:, None]

    def fit(n: int, epochs: int, q: int) -> np.ndarray:
        torch.manual_seed(0)
        model = KernelModel(partial(kernel, bandwidth=case.length_scale), x[:n], 1, device="cpu")
        model.fit(x[:n], y[:n], epochs=epochs, mem_gb=8, top_q=q, run_epoch_eval=False)
        return model.weight[:, 0].double().numpy()

    fit(_FEWEST, 1, 20)
    # Its own choice of q is several hundred, for which torch.lobpcg takes minutes on a CPU.
    for epochs in _ladder(1):
        start = time.perf_counter()
        alpha = fit(len(x), epochs, _RANK)
        yield Fitted(f"{epochs} epochs, rank {_RANK}", time.perf_counter() - start, case.x, alpha)


def _falkon(case: Case) -> Iterator[Fitted]:
    import falkon  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    kernel = {"laplace": falkon.kernels.LaplacianKernel, "rbf": falkon.kernels.GaussianKernel}[case.kernel]
    x, y, n = torch.from_numpy(case.x), torch.from_numpy(case.y)[:, None], len(case.x)
    # Its blocks of matrix products are faster than KeOps on a CPU.
    options = falkon.FalkonOptions(use_cpu=True, keops_active="no")

    def fit(n: int, centres: int) -> Any:
        penalty, function = case.ridge / n, kernel(case.length_scale)
        model = falkon.Falkon(function, penalty, centres, seed=0, error_every=None, options=options)
        return model.fit(x[:n], y[:n])

    fit(_FEWEST, 100)
    for centres in _ladder(n**0.5, min(n, _MOST_CENTRES)):
        start = time.perf_counter()
        model = fit(n, centres)
        seconds = time.perf_counter() - start
        yield Fitted(f"{centres} centres", seconds, model.ny_points_.numpy(), model.alpha_[:, 0].numpy())


def _fast_krr(kind: str, case: Case) -> Iterator[Fitted]:
    import torch  # pyright: ignore[reportMissingImports]
    from fast_krr.models import FullKRR  # pyright: ignore[reportMissingImports]
    from fast_krr.opts import PCG, ASkotchV2  # pyright: ignore[reportMissingImports]

    kernel = {"laplace": {"type": "matern", "nu": 0.5}, "rbf": {"type": "rbf"}}[case.kernel]
    kernel = kernel | {"sigma": case.length_scale}
    x, y = torch.from_numpy(case.x).float(), torch.from_numpy(case.y).float()
    # Its documentation recommends these values, with n / 100 rows. For small n more rows are faster.
    block, precondition = max(200, len(x) // 100), {"type": "nystrom", "r": _RANK, "rho": "damped"}

    def solver_for(n: int) -> Any:
        torch.manual_seed(0)
        model = FullKRR(x[:n], y[:n], None, None, kernel, True, case.ridge, "regression", torch.zeros(n), "cpu")
        return ASkotchV2(model, block, precond_params=precondition) if kind == "askotch" else PCG(model, precondition)

    # KeOps compiles a program for each number of columns, and keeps it on disk.
    solver_for(2 * block).step()
    start = time.perf_counter()
    solver, done, idle = solver_for(len(x)), 0, 0.0
    for steps in _ladder(20 if kind == "askotch" else 2):
        for _ in range(steps - done):
            solver.step()
        done, paused = steps, time.perf_counter()
        rows = f" with {block} rows" if kind == "askotch" else ""
        yield Fitted(
            f"{steps} steps{rows}, rank {_RANK}", paused - start - idle, case.x, solver.model.w.double().numpy().copy()
        )
        idle += time.perf_counter() - paused


# The package that each needs, and a function that yields fits, the cheapest first.
WAYS: dict[str, tuple[str, Callable[[Case], Iterator[Fitted]]]] = {
    OURS: ("tsjax", partial(_tsjax, (1e-6,))),
    f"{OURS}, looser": ("tsjax", partial(_tsjax, (0.3, 0.1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4))),
    "EigenPro 2, float32": ("eigenpro2", _eigenpro),
    "FALKON, float64": ("falkon", _falkon),
    "fast_krr's ASkotch, float32": ("fast_krr", partial(_fast_krr, "askotch")),
    "fast_krr's PCG, float32": ("fast_krr", partial(_fast_krr, "pcg")),
}


def _worker(name: str, case: Case, threads: int, connection: Connection) -> None:
    """Sends the fits of a way, each but the first when asked to, then None; or what an error says."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    # On a busy machine, threads that wait actively slow torch down tenfold. With these flags KeOps is almost twice as fast.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("CXXFLAGS", "-O3 -march=native -ffast-math")
    # Peers print their progress.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            for fitted in WAYS[name][1](case):
                connection.send(fitted._replace(peak=peak_memory()))
                connection.recv()
            connection.send(None)
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}".splitlines()[0])


def fits(name: str, case: Case, threads: int) -> Iterator[Fitted | str]:
    """The fits of one way, from a process of its own that ends with the iterator; at an error what it says, and no more."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker, args=(name, case, threads, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        while (found := ours.recv()) is not None:
            yield found
            ours.send("go on")
    except EOFError:
        yield "its process was ended, perhaps for want of memory"
    finally:
        process.kill()
        process.join()


def compare(n: int, options: argparse.Namespace) -> Iterator[str]:
    """The rows of one size."""
    import jax
    import jax.numpy as jnp

    import tsjax as ts
    from tsjax.estimators.iterative import TiledKernelFit

    jax.config.update("jax_enable_x64", True)
    problem = ts.Problem(ts.Sphere(10), ts.ReLUTeacher(5), RIDGE**0.5)
    teacher_key, data_key, risk_key = jax.random.split(jax.random.key(0), 3)
    teacher = problem.sample_teacher(teacher_key)
    data = problem.sample(data_key, teacher, n)
    x, y = np.asarray(data.x, np.float64), np.asarray(data.y, np.float64)
    case = Case(x, y, options.kernel, options.length_scale, RIDGE)
    aim = math.inf

    def row(name: str, found: Fitted, fit: Any, risk: float) -> str:
        rest, residual = y, ""
        if WAYS[name][0] in ("tsjax", "fast_krr"):
            rest = y - np.asarray(fit.predict(data.x)) - case.ridge * found.alpha
            residual = f"{np.linalg.norm(rest) / np.linalg.norm(y):.1e}"
        return (
            f"| {n} | {name} | {found.settings} | {found.seconds:.1f} | {residual} | {risk:.4e} | {risk / aim:.3f} "
            f"| {found.peak:.2f} |"
        )

    for name in (OURS, *(name for name in options.ways if name != OURS)):
        if importlib.util.find_spec(package := WAYS[name][0]) is None:
            command = f"uv pip install --no-build-isolation git+https://github.com/{REPOSITORIES[package]}"
            yield f"| {n} | {name} | not installed: `{command}` | | | | | |"
            continue
        tried = None
        for found in fits(name, case, options.threads):
            if isinstance(found, str):
                yield f"| {n} | {name} | failed: {found} | | | | | |"
                break
            if options.all and tried:
                yield row(name, *tried)
            fit = TiledKernelFit(
                kernel=_kernel(case), x=jnp.asarray(found.centres), alpha=jnp.asarray(found.alpha),
                status=jnp.zeros((), jnp.int32), stats={}, tile=1024,
            )  # fmt: skip
            risk = float(ts.monte_carlo_risk(problem, teacher, fit, risk_key).value)
            aim = risk if name == OURS else aim
            tried = found, fit, risk
            # The next setting takes about twice as long; that of FALKON, whose centres cost their cube, up to three times.
            if risk <= _WITHIN * aim or 2 * found.seconds > options.limit:
                break
        if tried:
            yield row(name, *tried)
        if not math.isfinite(aim):
            yield f"| {n} | {name} | no risk to aim at, so the other ways were not run | | | | | |"
            return


def main(arguments: list[str]) -> None:
    """Prints a Markdown table."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks large_ridge_peers", description="Large kernel ridge problems side by side."
    )
    parser.add_argument("--n", type=int, nargs="+", default=[5000], help=f"sample sizes >= {_FEWEST} (5000)")
    parser.add_argument("--kernel", choices=["laplace", "rbf"], default="laplace", help="of all ways (laplace)")
    parser.add_argument("--length-scale", type=float, default=1.0, help="of the kernel (1)")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY", help="some of them")
    parser.add_argument("--threads", type=int, default=cores, help=f"cores and threads of each way ({cores})")
    parser.add_argument("--limit", type=float, default=600.0, help="try no setting that may take more seconds (600)")
    parser.add_argument("--all", action="store_true", help="show all settings that were tried")
    options = parser.parse_args(arguments)
    if min(options.n) < _FEWEST:
        parser.error(f"--n takes sample sizes >= {_FEWEST}, got {min(options.n)}")
    print(
        f"{options.kernel} kernel with length scale {options.length_scale:g}, d=10, ridge {RIDGE:g}, "
        f"{options.threads} threads\n"
    )
    print("| n | method | settings | seconds | residual | risk | risk / first | peak GiB |\n" + "|---" * 8 + "|")
    for n in options.n:
        for row in compare(n, options):
            print(row, flush=True)
