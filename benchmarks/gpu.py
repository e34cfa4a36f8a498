"""Students on an accelerator, in one run of less than 8 minutes: `uv run --extra cuda13 python -m benchmarks gpu`.

It compares the fused kernel (`tsjax.fast.fused`), with 1 to 8 warps for each student and with the number that tsjax chooses
("fused, chosen"), with the same loop by XLA, with the textbook loss under jit(vmap), and, if torch is installed, with
torch.func's vmap(grad) captured in a CUDA graph and with one student in a PyTorch loop. It also gives the share of the float32
roofline that a step of 4 n m d operations (two products forward, two backward) reaches. The kernel must first agree with XLA on
this device; if it does not, or does not compile, the table says so.

The target of a shape is 80 % of the student-steps per second of the better of two kernels on one H200 (JAX 0.11.2): the fused
kernel as it was at commit a319a00, with the best number of warps, and one written by hand in CUDA that keeps the samples in
shared memory. `benchmarks compare benchmarks/gpu.json NEW.json` compares a run on an H200 with that commit's.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import date
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from tsjax.activations import relu
from tsjax.fast.fused import LARGEST, descend
from tsjax.fast.steps import Steps, descend_by_xla, samples_for
from tsjax.sweep.estimate import fastest

from .training import draw
from .ways import Case, jax_vmap

# (B, n, d, m), and student-steps per second of the better of the two kernels.
BEST = {
    (4096, 2048, 10, 5): 44.6e6,
    (4096, 512, 5, 3): 299e6,
    (1024, 1024, 10, 5): 86.4e6,
    (256, 512, 10, 5): 82.4e6,
    (32, 2048, 5, 3): 7.3e6,
    (4096, 1024, 10, 10): 38.7e6,
}
TARGETS = {shape: 0.8 * best for shape, best in BEST.items()}
OURS, XLA = "fused, chosen", "tsjax by XLA"
# float32 operations per second without tensor cores, from the manufacturer's data sheets.
PEAKS = {"H100": 66.9e12, "H200": 66.9e12, "A100": 19.5e12, "L4": 30.3e12, "V100": 15.7e12}


def fused(case: Case, warps: int | None):
    """All students by the kernel, one launch; with None the kernel chooses the number of warps."""
    return _all(case, partial(descend, warps=warps, interpret=jax.default_backend() == "cpu"))


def xla(case: Case):
    """The same steps with the same noise, as `noisy_descent` does them."""
    return _all(case, descend_by_xla)


def _all(case: Case, way: Callable):
    rates = [jnp.float32(rate) for rate in (case.step_size, case.noise_std, case.penalty)]
    steps = lambda seed: Steps(jnp.int32(0), jnp.int32(case.steps), *rates, seed=seed)
    one = lambda a, w, x_t, y, seed: way(a, w, samples_for(relu, x_t, y, None), steps(seed))
    return jax.jit(jax.vmap(one)), _arguments(case)


def _arguments(case: Case):
    seeds = jnp.arange(2 * len(case.x), dtype=jnp.uint32).reshape(-1, 2)
    return [jnp.asarray(array) for array in (case.a, case.w, np.swapaxes(case.x, 1, 2), case.y)] + [seeds]


def disagreement(case: Case, warps: int | None) -> float:
    """The largest difference of parameters between the kernel and XLA after a few steps."""
    case = Case(*(array[:8] for array in (case.x, case.y, case.a, case.w)), steps=5, threads=1)
    (one, arguments), (other, _) = fused(case, warps), xla(case)
    return max(float(jnp.abs(p - q).max()) for p, q in zip(one(*arguments)[:2], other(*arguments)[:2], strict=True))


def torch_graph(case: Case):
    """torch.func's vmap(grad), one step captured in a CUDA graph and replayed."""
    import torch  # pyright: ignore[reportMissingImports]

    if not torch.cuda.is_available():
        raise ImportError("torch has no CUDA device", name="torch with CUDA")
    x, y, a, w = (torch.from_numpy(array.copy()).cuda() for array in (case.x, case.y, case.a, case.w))

    def half_mse(parameters, x, y):
        a, w = parameters
        return 0.5 * torch.mean((torch.relu(x @ w.T) @ a - y) ** 2)

    gradients = torch.func.vmap(torch.func.grad(half_mse))

    def step():
        for p, g in zip((a, w), gradients((a, w), x, y), strict=True):
            p.copy_(p - case.step_size * (g + 2 * case.penalty * p) + case.noise_std * torch.randn_like(p))

    with torch.no_grad():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()

    def run():
        for _ in range(case.steps):
            graph.replay()
        torch.cuda.synchronize()
        return np.zeros(0)

    return run


def torch_one(case: Case):
    """One student, nn.Linear and SGD, a Python loop."""
    import torch  # pyright: ignore[reportMissingImports]

    if not torch.cuda.is_available():
        raise ImportError("torch has no CUDA device", name="torch with CUDA")
    x, y = (torch.from_numpy(array[0].copy()).cuda() for array in (case.x, case.y))
    d, m = case.shape[2:]
    net = torch.nn.Sequential(torch.nn.Linear(d, m, bias=False), torch.nn.ReLU(), torch.nn.Linear(m, 1, bias=False))
    net = net.cuda()
    optimizer = torch.optim.SGD(net.parameters(), lr=case.step_size, weight_decay=2 * case.penalty)

    def run():
        for _ in range(case.steps):
            optimizer.zero_grad()
            (0.5 * torch.mean((net(x)[:, 0] - y) ** 2)).backward()
            optimizer.step()
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(torch.randn_like(p), alpha=case.noise_std)
        torch.cuda.synchronize()
        return np.zeros(0)

    return run


def measure(shape: tuple, steps: int, repeats: int) -> dict[str, float | str]:
    """Seconds of each way (the fastest of the repeats), or the reason why there are none."""
    case = Case(*draw(shape), steps=steps, threads=os.cpu_count() or 1)

    def prepared(program):
        many, arguments = program
        return lambda: many(*arguments)

    def checked(warps: int | None):
        apart = disagreement(case, warps)
        if not apart < 1e-3:
            raise ArithmeticError(f"the kernel is {apart:.1e} apart from XLA after 5 steps")
        return prepared(fused(case, warps))

    ways: dict[str, Callable[[], Callable]] = {
        OURS if warps is None else f"fused, {warps} warps": partial(checked, warps) for warps in (None, 1, 2, 4, 8)
    }
    if shape[3] * (shape[2] + 1) > LARGEST:
        ways = {}
    ways[XLA] = lambda: prepared(xla(case))
    ways["JAX jit(vmap), samples first"] = lambda: jax_vmap(case)
    ways["torch.func vmap(grad), CUDA graph"] = lambda: torch_graph(case)
    ways["PyTorch loop, one student"] = lambda: torch_one(case)
    results: dict[str, float | str] = {}
    for name, prepare in ways.items():
        try:
            results[name] = fastest(prepare(), repeats)
        except ImportError as error:
            results[name] = f"not installed ({error.name})"
        except Exception as error:  # A kernel that a GPU refuses must not stop the other measurements.
            results[name] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return results


def main(arguments: list[str]) -> None:
    """Prints a Markdown table, and writes JSON where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description="Students on an accelerator.")
    parser.add_argument("--steps", type=int, default=200, help="gradient steps of a timed run (200)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs; the fastest one counts (3)")
    parser.add_argument("--shapes", type=int, nargs=4, action="append", metavar=("B", "N", "D", "M"), help="own shapes")
    parser.add_argument("--minutes", type=float, default=7.0, help="no shape is begun after so many (7)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    device = jax.devices()[0]
    peak = next((value for name, value in PEAKS.items() if name in device.device_kind), None)
    print(f"jax {jax.__version__} on {device.device_kind}, {options.steps} steps\n")
    print("| (B, n, d, m) | way | student-steps/s | target | faster than XLA by | share of the roofline |")
    print("|---|---|---|---|---|---|")
    began, results = time.perf_counter(), []
    for shape in [tuple(shape) for shape in options.shapes] if options.shapes else TARGETS:
        if time.perf_counter() - began > 60 * options.minutes:
            print(f"| {shape} | left out: time is up | | | | |", flush=True)
            continue
        seconds = measure(shape, options.steps, options.repeats)
        base, ways = seconds[XLA], {}
        for name, value in seconds.items():
            if isinstance(value, str):
                print(f"| {shape} | {name} | {value} | | | |", flush=True)
                ways[name] = {"failed": value}
                continue
            students = 1 if name.endswith("one student") else shape[0]
            speed = students * options.steps / value
            ways[name] = {"student_steps_per_second": round(speed)}
            ratio = f"{speed * base / (shape[0] * options.steps):.2f}" if isinstance(base, float) else ""
            share = "" if peak is None else f"{100 * speed * 4 * shape[1] * shape[2] * shape[3] / peak:.1f} %"
            target = f"{TARGETS[shape]:,.0f}" if name.startswith("fused") and shape in TARGETS else ""
            print(f"| {shape} | {name} | {speed:,.0f} | {target} | {ratio} | {share} |", flush=True)
        results.append({"shape": shape, "ways": ways})
    if options.json:
        facts = {"date": date.today().isoformat(), "jax": jax.__version__, "device": device.device_kind}
        with open(options.json, "w") as file:
            json.dump({**facts, "steps": options.steps, "ours": OURS, "results": results}, file, indent=1)
