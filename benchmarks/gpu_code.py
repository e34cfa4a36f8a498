"""What the kernels of GPUs are compiled to, on a machine without one:

    uv run --extra cuda13 --with nvidia-cuda-nvdisasm python -m benchmarks gpu_code
    uv run --extra cuda13 python -m benchmarks gpu_code --sweep quickstart
    uv run --extra cuda13 python -m benchmarks gpu_code --ridge 65536

The first reads the machine code of the fused kernel (`tsjax.fast.fused`), which XLA compiles for an H200 that is not there. For
each shape of `benchmarks gpu` the table gives the registers of a thread, the bytes that it spills, the instructions for a
sample (a number for each pass over the samples), those for the rest of a step, and how often the warps wait for each other in a
step. These are facts about the code; how fast it runs, only a GPU can say.

The second compiles the programs of a shipped sweep, and finds those that XLA refuses on GPUs. The table gives the seconds on
this machine, and the memory of a chunk of at most 32 cells.

The third compiles `tsjax.KernelRidge` with a given ridge for this many samples in ten dimensions. The table gives the memory,
also as a number of kernel matrices of float64.
"""

import argparse
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import tsjax as ts
from tsjax import kernels
from tsjax.cli.specs import shipped_sweeps
from tsjax.compilation import compiler_options
from tsjax.fast.fused import descend, warps_for
from tsjax.fast.steps import Extent, Samples, Steps
from tsjax.sweep.plan import make_plan
from tsjax.sweep.program import settings, traced_group
from tsjax.sweep.sharing import shared_plan
from tsjax.sweep.spec import find_experiment, load_spec

from .gpu import TARGETS

# What XLA asks for before it compiles for a device that is not there, with the numbers of its own description of an H200.
H200 = """
gpu_device_info {
  name: "NVIDIA H200" device_vendor: "NVIDIA Corporation" platform_version: "Compute Capability 9.0a"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 threads_per_warp: 32 device_address_bits: 64 ecc_enabled: true
  threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  device_memory_size: 151397597184 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H200"
"""


class Code(NamedTuple):
    """Numbers of instructions. `samples` has one for each loop over the samples; `rest` is what else a step does, with each
    loop over groups of neurons counted once; `waits` are the barriers among them."""

    samples: list[int]
    rest: int
    waits: int


def read(disassembled: str) -> Code:
    """Reads the loops of the kernel: those that hold no other are the loops over samples, the longest is that over steps."""
    _, _, text = disassembled.partition(".text.tsjax_descend:")
    labels: dict[str, int] = {}
    instructions: list[str] = []
    for line in text.splitlines():
        label = re.match(r"(\.L_x_\d+):", line.strip())
        if label:
            labels[label.group(1)] = len(instructions)
        instructions += re.findall(r"/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line)
    loops: dict[int, range] = {}
    for at, instruction in enumerate(instructions):
        target = re.search(r"\bBRA\b.*?(\.L_x_\d+)", instruction)
        first = labels[target.group(1)] if target else at
        # A program ends with a branch to itself.
        if first < at:
            loops[first] = range(first, at + 1)
    if not loops:
        raise ValueError("the machine code has no loops of a kernel of the name tsjax_descend.")
    inner = [loop for loop in loops.values() if not any(set(other) < set(loop) for other in loops.values())]
    steps = max(loops.values(), key=len)
    waits = sum("BAR" in instructions[at] for at in steps)
    return Code([len(loop) for loop in inner], len(steps) - sum(map(len, inner)), waits)


def compiled(shape: tuple[int, int, int, int], warps: int, device: Any, folder: str) -> str:
    """The PTX of a launch for B students, each with data of its own."""
    b, n, d, m = shape

    def one(a, w, x_t, y, start, stop, seed):
        rates = [jnp.float32(rate) for rate in (0.01, 0.001, 0.001)]
        samples = Samples(x_t, y, Extent(jnp.int32(n), jnp.float32(n)), None)
        return descend(a, w, samples, Steps(start, stop, *rates, seed=seed), warps=warps, interpret=False)

    shapes = [(b, m), (b, m, d), (b, d, n), (b, n), (), (), (b, 2)]
    types = [jnp.float32] * 4 + [jnp.int32] * 2 + [jnp.uint32]
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
    there = SingleDeviceSharding(device)
    many = jax.jit(jax.vmap(one, (0, 0, 0, 0, None, None, 0)), in_shardings=there, out_shardings=there)
    many.lower(*arguments).compile(compiler_options={**compiler_options("gpu"), "xla_dump_to": folder})
    return next(text for text in (file.read_text() for file in Path(folder).glob("*.ptx")) if "tsjax_descend" in text)


def assembled(ptx: str, folder: str) -> tuple[str, int, int]:
    """The machine code as text, the registers of a thread, and the bytes that it spills."""
    source, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
    source.write_text(ptx)
    target = re.search(r"\.target (\w+)", ptx)
    words = _tool("ptxas", "-v", f"-arch={target.group(1) if target else 'sm_90a'}", source, "-o", binary).stderr
    words = words[words.index("tsjax_descend") :]
    number = lambda pattern: int(re.search(pattern, words).group(1))  # pyright: ignore[reportOptionalMemberAccess]
    return _tool("nvdisasm", "-c", binary).stdout, number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores")


def _tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program of NVIDIA's, from one of its packages or from the PATH."""
    found = find_spec("nvidia")
    places = [Path(place) for place in (found.submodule_search_locations if found else None) or []]
    file = next((file for place in places for file in place.glob(f"*/bin/{name}")), None) or shutil.which(name)
    if file is None:
        raise SystemExit(
            f"gpu_code needs {name}: see `python -m benchmarks gpu_code --help` for the command that brings it."
        )
    return subprocess.run([str(part) for part in (file, *arguments)], capture_output=True, text=True, check=True)


def programs(name: str, device: Any) -> Iterator[str]:
    """A row of a Markdown table for each program of a shipped sweep: one of its chunks, as for a GPU."""
    spec = load_spec(shipped_sweeps() / f"{name}.toml")
    experiment = find_experiment(spec.study)
    plan = shared_plan(make_plan(spec, experiment, deep=False), "gpu", False, {})
    seen: set[str] = set()
    for group in plan.groups:
        program = group.program(experiment)
        if program in seen:
            continue
        seen.add(program)
        varying = [key for key in group.static if len({str(other.static.get(key)) for other in plan.groups}) > 1]
        label = ", ".join(f"{key}={group.static[key]}" for key in varying if key not in group.traced(experiment))
        times = [time.perf_counter()]
        with settings(experiment.x64):
            try:
                stage: Any = traced_group(experiment, group, min(32, len(group.cells)), spec.key, [device])
                for step in ("lower", "compile"):
                    times.append(time.perf_counter())
                    stage = getattr(stage, step)()
                times.append(time.perf_counter())
                seconds = " | ".join(f"{after - before:.1f}" for before, after in itertools.pairwise(times))
                yield f"| {label} | {seconds} | {stage.memory_analysis().temp_size_in_bytes / 2**20:,.0f} MiB |"
            except jax.errors.JaxRuntimeError as error:
                yield f"| {label} | refused: {str(error).splitlines()[0][:160]} | | | |"


def ridges(n: int, device: Any) -> Iterator[str]:
    """A row of a Markdown table for each kernel."""
    choices = {
        "RBF(1.0)": kernels.RBF(1.0),
        "ArcCosineNTK(1)": kernels.ArcCosineNTK(1),
        "ntk(depth=1)": kernels.ntk(depth=1),
        "ntk(depth=3)": kernels.ntk(depth=3),
        "RBF(1.0) + ArcCosine(1)": kernels.RBF(1.0) + kernels.ArcCosine(1),
    }
    there, key = SingleDeviceSharding(device), jax.random.key(0)
    with jax.enable_x64(True):
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((n, 10), (n,))]
        for name, kernel in choices.items():
            fit = lambda x, y, kernel=kernel: ts.KernelRidge(kernel, ridge=0.01).fit(key, ts.Dataset(x=x, y=y))
            arrays = lambda x, y, fit=fit: jax.tree.leaves(fit(x, y))
            start = time.perf_counter()
            traced = jax.jit(arrays, in_shardings=there, out_shardings=there).trace(*shapes)
            program: Any = traced.lower().compile(compiler_options=compiler_options(device.platform))
            memory = program.memory_analysis().temp_size_in_bytes
            seconds = time.perf_counter() - start
            yield f"| {name} | {seconds:.1f} | {memory / 2**30:.1f} | {memory / (8 * n**2):.2f} |"


def main(arguments: list[str]) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu_code", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    parser.add_argument("--shapes", type=int, nargs=4, action="append", metavar=("B", "N", "D", "M"), help="own shapes")
    warps = "warps of a student; by default the number that tsjax chooses"
    parser.add_argument("--warps", type=int, choices=(1, 2, 4, 8, 16), help=warps)
    sweeps = sorted(file.stem for file in shipped_sweeps().glob("*.toml"))
    parser.add_argument(
        "--sweep", choices=sweeps, metavar="NAME", help="compile the programs of this shipped sweep instead"
    )
    parser.add_argument("--ridge", type=int, metavar="N", help="compile kernel ridge regression on N samples instead")
    options = parser.parse_args(arguments)
    if sum(map(bool, (options.sweep, options.ridge, options.shapes or options.warps))) > 1:
        parser.error("choose one: --sweep, or --ridge, or --shapes and --warps, which are about the fused kernel")
    if options.ridge is not None and options.ridge < 1:
        parser.error(f"--ridge takes a number of samples >= 1, got {options.ridge}")
    # The check of the kernel on a device, which decides otherwise, cannot run here.
    os.environ["TSJAX_FUSED"] = "1"
    # JAX would look for a GPU, and without a driver its check of CUDA's versions ends the process.
    jax.config.update("jax_platforms", "cpu")
    try:
        device = topologies.get_topology_desc("h200", "cuda", target_config=H200, topology="1x1x1").devices[0]
    except (NotImplementedError, RuntimeError) as error:
        raise SystemExit(
            f"XLA cannot compile for CUDA here ({error}). It needs the extra cuda13:\n\n{__doc__}"
        ) from None
    print(f"jax {jax.__version__}, compiled for {device.device_kind}\n")
    if options.sweep:
        print("| program | seconds to trace | to lower | to compile | memory |\n|---|---|---|---|---|")
        for row in programs(options.sweep, device):
            print(row, flush=True)
        return
    if options.ridge:
        print("| kernel | seconds to compile | GiB | kernel matrices |\n|---|---|---|---|")
        for row in ridges(options.ridge, device):
            print(row, flush=True)
        return
    print(
        "| (B, n, d, m) | warps | registers | bytes spilled | instructions for a sample | for the rest of a step | waits |"
    )
    print("|---|---|---|---|---|---|---|")
    for shape in [tuple(shape) for shape in options.shapes] if options.shapes else TARGETS:
        warps = options.warps or warps_for(shape[1])
        with tempfile.TemporaryDirectory() as folder:
            ptx = compiled(shape, warps, device, folder)
            text, registers, spilled = assembled(ptx, folder)
        code = read(text)
        samples = " + ".join(map(str, code.samples))
        print(f"| {shape} | {warps} | {registers} | {spilled} | {samples} | {code.rest} | {code.waits} |", flush=True)
