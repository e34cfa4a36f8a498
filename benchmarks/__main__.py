"""`uv run python -m benchmarks NAME [options]`; every name has `--help`. benchmarks/RESULTS.md holds results of past runs."""

import importlib
import sys

NAMES = {
    "training": "many students, side by side with what one would write otherwise",
    "compare": "fails when ratios of a run of `training` or `gpu` fell against those of another",
    "profile": "where the time of a training step goes",
    "costs": "exponents of the cost in B, n, d, m and devices, fitted by tsjax",
    "networks": "a thousand networks with a thousand learning rates, side by side",
    "start": "seconds to the first result, and memory",
    "gpu": "students on an accelerator: the fused kernel, XLA, peers, roofline",
    "gpu_code": "what the fused kernel is compiled to, without a GPU",
    "million": "very many students, drawn on the device: speed, successes, risk, memory",
    "gpu_sweep": "whole sweeps, cold and warm, on the accelerator and on the host's cores",
    "ridge_path": "kernel ridge paths, side by side",
    "large_ridge": "kernel ridge beyond memory",
    "large_ridge_peers": "kernel ridge beyond memory, beside EigenPro, FALKON and ASkotch",
    "exact_risk": "the exact risk of kernel ridge beside its fit",
    "gcv": "what the criteria for ridge, time and components cost",
    "sweep_overhead": "what the engine itself costs",
    "runners": "tools that run grids, side by side: overhead, resume, a larger grid, a failing cell",
    "store_scale": "what reading a million records, or 14 000 files, costs",
    "coverage": "coverage of intervals, model choice, errors of tests",
    "peeking": "errors of verdicts that are looked at while seeds are added",
    "league": "intervals of exponents and forecasts, by tsjax and by what else people use",
    "splits": "coverage of learning curves from splits of one data set",
}


def main() -> None:
    """Passes the options on to benchmarks/NAME.py."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        lines = [f"  {name:<18}{what}" for name, what in NAMES.items()]
        print("usage: python -m benchmarks NAME [options]\n\n" + "\n".join(lines))
        raise SystemExit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    importlib.import_module(f".{sys.argv[1]}", __package__).main(sys.argv[2:])


if __name__ == "__main__":
    main()
