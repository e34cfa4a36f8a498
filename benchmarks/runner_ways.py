"""One small grid, run by each of several tools in the way its documentation shows; `benchmarks/runners.py` calls this file.

    python -m benchmarks.runner_ways TOOL FOLDER [--points 10] [--seeds 100] [--seconds 0] [--fail -1] [--count]

A cell is a function of a grid point and a seed that returns one number, and every tool stores the number where a later process
can read it. With `--count` nothing runs, and the number of cells whose result can be read from the folder is printed. Every
cell that begins appends a byte to the file `begun` in the folder, so that the cells that really ran are counted in the same way
for every tool.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def cell(point: int, seed: int, begun: str, seconds: float, fail: int) -> float:
    """One number after `seconds`. The cell of seed 0 at the point `fail` raises an error."""
    with open(begun, "ab") as file:
        file.write(b".")
    time.sleep(seconds)
    if point == fail and seed == 0:
        raise RuntimeError("this cell fails")
    return random.Random(seed).random() / (1 + point)


@dataclass(frozen=True)
class Task:
    """A grid of `points` times `seeds` cells in `folder`."""

    folder: Path
    points: int
    seeds: int
    seconds: float = 0.0
    fail: int = -1

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def fixed(self) -> dict[str, Any]:
        """The arguments that all cells share."""
        return {"begun": str(self.folder / "begun"), "seconds": self.seconds, "fail": self.fail}

    def cells(self) -> Iterator[tuple[int, int]]:
        return ((point, seed) for point in range(self.points) for seed in range(self.seeds))


@dataclass(frozen=True)
class Way:
    """One tool: `run` runs a task, and `count` says how many results can be read afterwards."""

    run: Callable[[Task], None]
    count: Callable[[Task], int]


def _plain(task: Task) -> None:
    """No tool: a loop that appends JSON lines, and that runs every cell again if it is repeated."""
    task.store.mkdir(exist_ok=True)
    with open(task.store / "results.jsonl", "w") as file:
        for point, seed in task.cells():
            file.write(json.dumps({"point": point, "seed": seed, "risk": cell(point, seed, **task.fixed)}) + "\n")


def _plain_count(task: Task) -> int:
    path = task.store / "results.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _tsjax_jax(task: Task) -> None:
    """The cell as JAX code, which fails by returning NaN."""
    import jax
    import jax.numpy as jnp

    import tsjax as ts

    def begin(seconds) -> None:
        with open(task.fixed["begun"], "ab") as file:
            file.write(b".")
        time.sleep(float(seconds))

    @ts.experiment(y=("risk",), x="point")
    def coin(key, *, point: int, seconds: float, fail: int):
        if task.seconds:
            jax.debug.callback(begin, seconds)
        risk = jax.random.uniform(key)
        return {"risk": jnp.where(point == fail, jnp.nan, risk / (1 + point))}

    grid = {"point": list(range(task.points)), "seeds": task.seeds}
    ts.sweep(coin, out=task.store, seconds=task.seconds, fail=task.fail, commit_seconds=0.5, **grid)


def _tsjax_black_box(task: Task) -> None:
    """The cell as plain Python, in a worker process."""
    import tsjax as ts

    @ts.black_box(x="point")
    def coin(seed: int, *, point: int, begun: str, seconds: float, fail: int):
        return {"risk": cell(point, seed, begun, seconds, fail)}

    engine = ts.engines.BlackBox(processes=1)
    ts.sweep(coin, out=task.store, seeds=task.seeds, point=list(range(task.points)), engine=engine, **task.fixed)


def _tsjax_count(task: Task) -> int:
    import tsjax as ts

    if not (task.store / "sweep.json").exists():
        return 0
    risks = ts.load(task.store).records["risk"].to_numpy()
    return int(np.isfinite(risks).sum())


def _hydra(task: Task) -> None:
    """`--multirun` with the basic sweeper and launcher; every job writes its number into its own folder."""
    import hydra  # pyright: ignore[reportMissingImports]
    from hydra.core.config_store import ConfigStore  # pyright: ignore[reportMissingImports]
    from hydra.core.hydra_config import HydraConfig  # pyright: ignore[reportMissingImports]

    ConfigStore.instance().store(name="cell", node={"point": 0, "seed": 0})

    def job(config) -> None:
        risk = cell(config.point, config.seed, **task.fixed)
        (Path(HydraConfig.get().runtime.output_dir) / "risk.json").write_text(json.dumps(risk))

    points, seeds = (f"range(0,{size})" for size in (task.points, task.seeds))
    sys.argv = ["cell", "--multirun", f"point={points}", f"seed={seeds}", f"hydra.sweep.dir={task.store}"]
    sys.argv += ["hydra.sweep.subdir=${point}-${seed}"]
    hydra.main(config_path=None, config_name="cell", version_base=None)(job)()


def _hydra_count(task: Task) -> int:
    return len(list(task.store.glob("*/risk.json")))


def _ray_trainable(config: dict[str, Any]) -> None:
    from ray import tune  # pyright: ignore[reportMissingImports]

    arguments = {name: value for name, value in config.items() if name not in {"point", "seed"}}
    tune.report({"risk": cell(config["point"], config["seed"], **arguments)})


def _ray_tune(task: Task) -> None:
    """A grid search of a function; an interrupted or finished search is restored, as the documentation shows."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray import tune  # pyright: ignore[reportMissingImports]

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    path = task.store / "grid"
    if tune.Tuner.can_restore(str(path)):
        tuner = tune.Tuner.restore(str(path), trainable=_ray_trainable, resume_unfinished=True)
    else:
        axes = {name: tune.grid_search(list(range(getattr(task, f"{name}s")))) for name in ("point", "seed")}
        configuration = tune.RunConfig(name="grid", storage_path=str(task.store), verbose=0)
        tuner = tune.Tuner(_ray_trainable, param_space=axes | task.fixed, run_config=configuration)
    tuner.fit()
    ray.shutdown()


def _ray_count(task: Task) -> int:
    return sum('"risk"' in path.read_text() for path in task.store.glob("grid/*/result.json"))


def _optuna(task: Task) -> None:
    """A study with the grid sampler, kept in SQLite."""
    import optuna  # pyright: ignore[reportMissingImports]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = {"point": list(range(task.points)), "seed": list(range(task.seeds))}

    def objective(trial) -> float:
        point, seed = (trial.suggest_categorical(name, values) for name, values in axes.items())
        return cell(point, seed, **task.fixed)

    study = optuna.create_study(
        study_name="grid",
        storage=f"sqlite:///{task.folder / 'optuna.db'}",
        sampler=optuna.samplers.GridSampler(axes),
        load_if_exists=True,
    )
    study.optimize(objective)


def _optuna_count(task: Task) -> int:
    import optuna  # pyright: ignore[reportMissingImports]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not (task.folder / "optuna.db").exists():
        return 0
    trials = optuna.load_study(study_name="grid", storage=f"sqlite:///{task.folder / 'optuna.db'}").trials
    return len({tuple(trial.params.values()) for trial in trials if trial.value is not None})


def _signac(task: Task) -> None:
    """A loop over the jobs of a project that skips jobs whose document has the number."""
    import signac  # pyright: ignore[reportMissingImports]

    task.store.mkdir(exist_ok=True)
    project = signac.init_project(str(task.store))
    for point, seed in task.cells():
        job = project.open_job({"point": point, "seed": seed}).init()
        if "risk" not in job.document:
            job.document["risk"] = cell(point, seed, **task.fixed)


def _signac_count(task: Task) -> int:
    import signac  # pyright: ignore[reportMissingImports]

    if not task.store.exists():
        return 0
    return sum("risk" in job.document for job in signac.get_project(str(task.store)))


_SNAKEFILE = """
import sys
sys.path.insert(0, {root!r})
from benchmarks.runner_ways import cell

rule all:
    input: expand("results/{{point}}-{{seed}}.txt", point=range({points}), seed=range({seeds}))

rule one:
    output: "results/{{point}}-{{seed}}.txt"
    run:
        risk = cell(int(wildcards.point), int(wildcards.seed), **{fixed!r})
        with open(output[0], "w") as file:
            file.write(str(risk))
"""


def _snakemake(task: Task) -> None:
    """One rule with a `run:` block, and a file for every cell."""
    task.store.mkdir(exist_ok=True)
    root = str(Path(__file__).parent.parent)
    text = _SNAKEFILE.format(root=root, points=task.points, seeds=task.seeds, fixed=task.fixed)
    (task.store / "Snakefile").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--directory", str(task.store), "--snakefile", "Snakefile"]
    # A killed run leaves a lock and perhaps a partial file; this is the documented way to continue.
    subprocess.run([*command, "--unlock"], cwd=task.store, capture_output=True, check=False)
    subprocess.run([*command, "--cores", "1", "--quiet", "all", "--rerun-incomplete"], cwd=task.store, check=True)


def _snakemake_count(task: Task) -> int:
    return len(list(task.store.glob("results/*.txt")))


def _wandb(task: Task) -> None:
    """A loop of runs that are logged offline, since a W&B sweep needs the server."""
    import wandb  # pyright: ignore[reportMissingImports]

    task.store.mkdir(exist_ok=True)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(task.store)}
    for point, seed in task.cells():
        with wandb.init(project="grid", config={"point": point, "seed": seed}) as run:
            run.log({"risk": cell(point, seed, **task.fixed)})


def _wandb_count(task: Task) -> int:
    return len(list(task.store.glob("wandb/offline-run-*/*.wandb")))


WAYS = {
    "a loop": Way(_plain, _plain_count),
    "tsjax": Way(_tsjax_jax, _tsjax_count),
    "tsjax, black box": Way(_tsjax_black_box, _tsjax_count),
    "signac": Way(_signac, _signac_count),
    "Optuna": Way(_optuna, _optuna_count),
    "Hydra": Way(_hydra, _hydra_count),
    "Ray Tune": Way(_ray_tune, _ray_count),
    "Snakemake": Way(_snakemake, _snakemake_count),
    "W&B, offline runs": Way(_wandb, _wandb_count),
}


def main(arguments: list[str] | None = None) -> None:
    """Runs or counts, and exits as the tool does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner_ways", description=__doc__)
    parser.add_argument("tool", choices=list(WAYS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.0, help="that a cell sleeps")
    parser.add_argument("--fail", type=int, default=-1, help="point whose cell of seed 0 fails")
    parser.add_argument("--count", action="store_true", help="count results, and run nothing")
    options = parser.parse_args(arguments)
    task = Task(options.folder.resolve(), options.points, options.seeds, options.seconds, options.fail)
    task.folder.mkdir(parents=True, exist_ok=True)
    way = WAYS[options.tool]
    if options.count:
        print(way.count(task))
    else:
        way.run(task)


if __name__ == "__main__":
    main()
