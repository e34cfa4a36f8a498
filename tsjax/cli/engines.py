"""Engines and their options on the command line, and the script for a job array."""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..sweep.engines import AbstractEngine
    from ..sweep.spec import SweepSpec

# Options that now belong to engines, and how to write them.
REPLACED = {
    "--workers": "write --engine black_box --with processes=K",
    "--ray-address": "write --engine ray --with address=HOST:PORT",
    "--shard": "run the same command in every process without it, since those that work on one store share its cells "
    "(--sbatch K prints the script of a job array)",
}


def chosen_engine(name: str | None, options: list[str] | None, chosen: Mapping[str, Any]) -> "AbstractEngine | None":
    """The engine of this name, with the `options` given by `--with` and those `chosen` by options of their own (None for those
    that are not). None without a name. **Raises:** SpecError."""
    from ..sweep.engines import Local, engine_of, options_from
    from ..sweep.errors import SpecError

    given = {key: value for key, value in chosen.items() if value is not None}
    texts: dict[str, str] = {}
    for one in options or []:
        key, equals, value = one.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise SpecError(f"--with {one}: write OPTION=VALUE, for instance --engine slurm --with jobs=32.")
        if key in texts or key in given:
            raise SpecError(f"--with {one}: {key} is given twice.")
        texts[key] = value
    if name is None:
        if texts:
            raise SpecError(f"--with {next(iter(texts))}=... is an option of an engine: name it too, by --engine.")
        # The values are checked here, although another engine may use them.
        Local(**given)
        return None
    # A wrong name is reported before wrong options.
    engine_of(name, {})
    return engine_of(name, {**given, **options_from(texts, name)})


def sbatch_script(
    spec: "SweepSpec", engine: "AbstractEngine | None", chosen: Mapping[str, Any], tasks: int, directory: str
) -> str:
    """The script of a job array whose tasks run the command of this process without `--sbatch`.

    **Raises:** SpecError for an engine other than Slurm.
    """
    from ..sweep.engines import Slurm
    from ..sweep.engines.slurm import shared_chunk
    from ..sweep.errors import SpecError
    from ..sweep.plan import DEFAULT_CHUNK, make_plan
    from ..sweep.spec import find_experiment

    engine = Slurm() if engine is None else engine
    if not isinstance(engine, Slurm):
        raise SpecError(f"--sbatch prints a script for Slurm, and the engine is {engine.name!r}: leave --engine out.")
    if engine.cluster != Slurm.cluster:
        raise SpecError("--sbatch prints a script for Slurm: leave --with cluster=... out.")
    cells = make_plan(spec, find_experiment(spec.study), deep=False).cells
    words = _without(sys.argv[1:], {"--sbatch": 1, "--engine": 1, "--with": 1, "--chunk": 1, "--out": 1, "--json": 0})
    words = [word for word in words if word not in ("--quiet", "-q", "--no-page")]
    size = shared_chunk(cells, tasks, chosen.get("chunk") or DEFAULT_CHUNK)
    command = [
        sys.executable,
        "-m",
        "tsjax.cli",
        *words,
        "--out",
        directory,
        "--chunk",
        str(size),
        "--quiet",
        "--no-page",
    ]
    name = f"tsjax-{os.path.basename(directory.rstrip('/')) or 'sweep'}"
    return engine.script(command, name, tasks)


def _without(words: list[str], options: Mapping[str, int]) -> list[str]:
    """The words of a command line without some options, which have the given numbers of values."""
    kept, i = [], 0
    while i < len(words):
        name, equals, _ = words[i].partition("=")
        if name in options:
            i += 1 + (0 if equals else options[name])
        else:
            kept.append(words[i])
            i += 1
    return kept
