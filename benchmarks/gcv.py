"""How good are the choices of GCV and leave-one-out? `uv run python -m benchmarks gcv`

Responses are sin(x_1) + noise of standard deviation 0.5 at Gaussian inputs. The table gives the risk of the chosen candidate,
at these inputs, relative to that of the best candidate of the path. It compares GCV over the whole path, by NumPy, with GCV of
tsjax, which leaves out candidates close to interpolation (`tsjax.estimators.tuning`), and with leave-one-out. Prints a Markdown
table.
"""

import argparse

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import tsjax as ts
from tsjax.estimators.ridge import PATH
from tsjax.estimators.spectral import _COMPONENTS
from tsjax.estimators.tuning import log_spaced_integers

NOISE = 0.5
KERNELS = {
    "Matérn-5/2, d = 1": (1, ts.kernels.Matern(nu=2.5)),
    "RBF, d = 2": (2, ts.kernels.RBF()),
    "Laplace, d = 5": (5, ts.kernels.Laplace()),
    "NTK, d = 5": (5, ts.kernels.ArcCosineNTK()),
}
ESTIMATORS = {
    "ridge": lambda kernel, criterion: ts.KernelRidge(kernel, ridge=criterion),
    "gradient flow": lambda kernel, criterion: ts.GradientFlow(kernel, time=criterion),
    "cut-off": lambda kernel, criterion: ts.SpectralCutoff(kernel, components=criterion),
}


def draw(key, n: int, d: int) -> tuple[ts.Dataset, jax.Array]:
    """Data and the truth at their inputs."""
    x = jr.normal(jr.fold_in(key, 0), (n, d))
    truth = jnp.sin(x[:, 0])
    return ts.Dataset(x=x, y=truth + NOISE * jr.normal(jr.fold_in(key, 1), (n,))), truth


def path_of(name: str, gram: np.ndarray, y: np.ndarray, truth: np.ndarray):
    """Candidates, their GCV and their risk at the inputs, by NumPy."""
    n = len(y)
    s, u = np.linalg.eigh(gram)
    s, ridges = np.maximum(s, 0.0)[:, None], np.trace(gram) / n * PATH
    if name == "ridge":
        candidates, shares = ridges, ridges / (s + ridges)
    elif name == "gradient flow":
        candidates, shares = n / ridges, np.exp(-s / ridges)
    else:
        candidates = np.unique(log_spaced_integers(jnp.asarray(n - 1.0), _COMPONENTS))
        shares = 1.0 * (np.arange(n)[:, None] < n - candidates)
    b, signal = u.T @ y, u.T @ truth
    with np.errstate(invalid="ignore"):
        gcv = n * np.sum((shares * b[:, None]) ** 2, axis=0) / np.sum(shares, axis=0) ** 2
    risk = np.mean(((1.0 - shares) * b[:, None] - signal[:, None]) ** 2, axis=0)
    return candidates, np.where(np.isnan(gcv), np.inf, gcv), risk


def main(arguments: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gcv", description="Risk of what a criterion chooses.")
    parser.add_argument("--sets", type=int, default=200, help="data sets of each line (200)")
    parser.add_argument("--n", type=int, nargs="+", default=[32, 128, 512], help="sample sizes (32 128 512)")
    parser.add_argument("--seed", type=int, default=0, help="of the data (0)")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    keys = jr.split(jr.key(options.seed), options.sets)
    print(f"Mean risk by that of the best candidate, {options.sets} data sets, noise {NOISE}\n")
    print("| kernel | n | estimator | GCV, whole path | GCV of tsjax | leave-one-out |\n|---|---|---|---|---|---|")
    for label, (d, kernel) in KERNELS.items():
        for n in options.n:
            datasets, truths = jax.vmap(lambda key, n=n, d=d: draw(key, n, d))(keys)
            grams = np.asarray(jax.lax.map(kernel, datasets.x))
            for name, make in ESTIMATORS.items():
                paths = [path_of(name, *map(np.asarray, each)) for each in zip(grams, datasets.y, truths, strict=True)]
                found = [risk[np.argmin(gcv)] for _, gcv, risk in paths]
                rows = [found]
                for criterion in ("gcv", "loo"):
                    fit = jax.jit(lambda data, make=make, k=kernel, c=criterion: make(k, c).fit(keys[0], data).stats)
                    stats = jax.lax.map(fit, datasets)
                    chosen = np.asarray(next(stats[key] for key in ("ridge", "time", "components") if key in stats))
                    nearest = [
                        np.argmin(np.abs(np.log(c / value))) for (c, *_), value in zip(paths, chosen, strict=True)
                    ]
                    rows.append([risk[i] for (*_, risk), i in zip(paths, nearest, strict=True)])
                best = [risk.min() for *_, risk in paths]
                print(
                    f"| {label} | {n} | {name} | {' | '.join(str(ts.mean_ratio(r, best)) for r in rows)} |", flush=True
                )
