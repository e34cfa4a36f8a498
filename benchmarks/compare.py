"""A guard: `uv run python -m benchmarks compare OLD.json NEW.json` fails if tsjax became slower relative to a peer.

Both files come from `benchmarks training`, or both from `benchmarks gpu`. It does not compare speeds, which depend on the
machine and its load, but ratios of tsjax's speed to each peer's within one run. Baselines are `benchmarks/training.json`, and
`benchmarks/gpu.json` for an H200.
"""

import argparse
import json
from pathlib import Path


def ratios(run: dict) -> dict[tuple[str, str], float]:
    """How many times faster the way that the run names as "ours" is than each peer, by (shape, peer); nothing for a shape
    where it failed."""
    found = {}
    for result in run["results"]:
        speeds = {name: way.get("student_steps_per_second") for name, way in result["ways"].items()}
        ours = speeds.pop(run["ours"], None)
        for name, speed in speeds.items():
            if ours and speed:
                found[str(tuple(result["shape"])), name] = ours / speed
    return found


def losses(old: dict, new: dict, drop: float) -> list[str]:
    """One line for each ratio that fell by more than the share `drop`, or that is missing in the new run."""
    before, after = ratios(old), ratios(new)
    lines = []
    for pair, ratio in before.items():
        where = f"{pair[0]}, against {pair[1]}"
        if pair not in after:
            lines.append(f"{where}: {ratio:.2f} before, not measured now")
        elif after[pair] < (1 - drop) * ratio:
            lines.append(f"{where}: {ratio:.2f} before, {after[pair]:.2f} now")
    return lines


def main(arguments: list[str]) -> None:
    """Exits with code 1 if a ratio fell by more than `--drop`, or if the files are of different kinds or cards."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare", description="Regression guard.")
    parser.add_argument("old", type=Path, help="JSON of an earlier `benchmarks training` or `gpu`")
    parser.add_argument("new", type=Path, help="JSON of a later one")
    parser.add_argument("--drop", type=float, default=0.25, help="share that a ratio may lose (0.25)")
    options = parser.parse_args(arguments)
    old, new = (json.loads(path.read_text()) for path in (options.old, options.new))
    for fact in ("ours", "device"):
        if old.get(fact) != new.get(fact):
            parser.error(f"{fact} differs: {old.get(fact)} in {options.old}, {new.get(fact)} in {options.new}")
    lines = losses(old, new, options.drop)
    print("\n".join(lines) or f"none of {len(ratios(old))} ratios fell by more than {100 * options.drop:.0f} %")
    raise SystemExit(1 if lines else 0)
