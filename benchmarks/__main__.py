"""`uv run python -m benchmarks NAME [options]`; every name has `--help`. benchmarks/RESULTS.md holds results of past runs."""

import importlib
import sys

NAMES = {
    "training": "many students, beside what one would write otherwise",
    "compare": "fails when ratios of `training` or `gpu` fell since a run",
    "profile": "where the time of a training step goes",
    "costs": "exponents of the cost in B, n, d, m and devices",
    "networks": "a thousand networks with a thousand learning rates",
    "start": "seconds to the first result, and memory",
    "gpu": "students on a GPU: the fused kernel, XLA, peers, roofline",
    "gpu_code": "the fused kernel, sweeps and ridge, compiled without a GPU",
    "million": "very many students: speed, successes, risk, memory",
    "gpu_sweep": "whole sweeps, cold and warm, on a GPU and on its host",
    "ridge_path": "kernel ridge paths, beside scikit-learn and neural-tangents",
    "large_ridge": "kernel ridge beyond memory",
    "large_ridge_peers": "the same beside EigenPro, FALKON and fast_krr",
    "exact_risk": "the exact risk of kernel ridge beside its fit",
    "gcv": "what the criteria for ridge, time and components cost",
    "sweep_overhead": "what the engine itself costs",
    "runners": "tools that run grids: overhead, resume, a failing cell",
    "store_scale": "what reading a million records, or 14 000 files, costs",
    "coverage": "coverage of intervals, model choice, errors of tests",
    "peeking": "errors of verdicts that are looked at as seeds are added",
    "league": "intervals of exponents and forecasts, beside other fits",
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
