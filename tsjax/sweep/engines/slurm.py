"""The engine for Slurm, by submitit or by a script: every job takes chunks of one store, and takes over those of dead jobs."""

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...compilation import compile_fast
from ..commits import ChunkDone
from ..devices import keep_compiled, one_blas_thread, use_all_cores
from ..errors import SpecError, shown
from ..experiment import Experiment
from ..faults import ExperimentError, GroupError
from ..files import is_url
from ..interrupt import Stop, listening
from ..places import in_one_line
from ..plan import DEFAULT_CHUNK, Plan
from ..program import settings
from ..provenance import manifest_of
from ..warm import keep_traced
from ..work import Work
from ..writer import StoreWriter
from .base import AbstractCommitting, AbstractEngine, code_of, seconds, text, whole
from .black_box import BlackBox
from .local import Local

# How often submitit may requeue a job that has reached its time limit.
_REQUEUES = 1000
# Seconds before its time limit at which a job gets a signal, to finish and commit what is running.
_NOTICE = 90
# Seconds that jobs may take to end when the last cell is done.
_END_SECONDS = 20.0


class _Job:
    """The function of a job, which is pickled and called in another process. Submitit calls `checkpoint` before it requeues the
    job."""

    def __init__(self, plan: Plan, out: str, retry: bool, engine: AbstractEngine):
        import cloudpickle

        # As bytes, since modules that they name are found only after the job has the path of this process.
        self.content = cloudpickle.dumps((dataclasses.replace(plan), out, retry, engine))
        self.path = [os.path.abspath(entry) for entry in sys.path]

    def __call__(self) -> str:
        """Runs cells until all cells of the sweep are done. Returns the text of an error, or an empty text. A signal ends it
        without a result, so that the scheduler does not count the job as done."""
        import cloudpickle

        sys.path += [entry for entry in self.path if entry not in sys.path]
        compile_fast()
        use_all_cores()
        keep_compiled()
        keep_traced()
        plan, out, retry, engine = cloudpickle.loads(self.content)
        store, experiment = StoreWriter(out, retry=retry), code_of(plan)
        with listening() as stop, one_blas_thread(), settings(experiment.x64):
            store.join(plan, manifest_of(store.spec, experiment))
            try:
                for _ in engine.run(plan, store, stop):
                    pass
            except Exception as error:
                return in_one_line(error)
        return ""

    def checkpoint(self) -> Any:
        """The same job again, which continues from the store."""
        from submitit.helpers import DelayedSubmission  # pyright: ignore[reportMissingImports]

        return DelayedSubmission(self)


@dataclass(frozen=True, kw_only=True)
class Slurm(AbstractCommitting):
    """An array of Slurm jobs, submitted by [submitit](https://github.com/facebookincubator/submitit). This process waits for
    them and shows their progress; if it is killed, they go on.

    - `jobs`: their number. `minutes`: the time limit of each job. A job that reaches it, or is pre-empted, is requeued.
    - `cpus`, `gpus`, `memory_gb`, `partition`, `account`: what each job asks for.
    - `flags`: further options of sbatch, as one text: `"--qos=high --constraint=a100"`.
    - `setup`: a shell command that runs first in each job, such as `"module load cuda"`.
    - `folder`: the folder for the logs of jobs, which all nodes must reach; by default `jobs/` in the store.
    - `chunk`, `commit_seconds`, `lease_seconds`: as those of `Local`. Chunks are smaller if there would be fewer than four for
      each job.
    - `cluster`: `"local"` runs the jobs as processes of this machine, for trying things out.

    The engine needs `tsjax[slurm]`, a store that all nodes reach, and the same environment on all nodes.
    """

    name: ClassVar[str] = "slurm"
    jobs: int = 8
    minutes: int = 60
    cpus: int | None = None
    gpus: int | None = None
    memory_gb: float | None = None
    partition: str | None = None
    account: str | None = None
    flags: str | None = None
    setup: str | None = None
    folder: str | None = None
    cluster: str = "slurm"

    def __post_init__(self):
        super().__post_init__()
        whole(self, "jobs", "the number of jobs")
        whole(self, "minutes", "the time limit of a job in minutes")
        for name in ("cpus", "gpus"):
            whole(self, name, f"the number of {name} of a job", optional="what the cluster gives")
        if self.memory_gb is not None:
            seconds(self, "memory_gb", "the memory of a job in GB")
        for name in ("partition", "account", "flags", "setup", "folder"):
            text(self, name, f"the {name}")
        if self.cluster not in ("slurm", "local"):
            raise SpecError(f"cluster = {shown(self.cluster)}: say 'slurm', or 'local' for processes of this machine.")
        self._flags()

    def _flags(self) -> dict[str, Any]:
        """The further options of sbatch, by name. **Raises:** SpecError for a text that is not a list of options."""
        found: dict[str, Any] = {}
        try:
            words = shlex.split(self.flags or "")
        except ValueError as error:
            raise SpecError(f"flags = {shown(self.flags)}: it cannot be read ({error}).") from None
        for word in words:
            name, equals, value = word.partition("=")
            if not name.startswith("--") or len(name) < 4:
                raise SpecError(f"flags = {shown(self.flags)}: write --name=value, or --name, not {word!r}.")
            found[name[2:]] = value if equals else True
        return found

    def check(self, experiment: Experiment, out: Any) -> None:
        """**Raises:** SpecError for a sweep without a store, or with a store at a URL and no folder for logs; ValueError if
        submitit is not installed."""
        if out is None:
            raise SpecError("engine 'slurm' needs a store that all nodes reach: give out=..., --out DIR.")
        if is_url(out) and self.folder is None:
            raise SpecError(f"engine 'slurm' with a store at a URL needs a folder for logs: folder=... (out is {out}).")
        _submitit()

    def run(self, plan: Plan, store: StoreWriter | None, stop: Stop) -> Iterator[ChunkDone]:
        """As `AbstractEngine.run`. **Raises:** StoreError; if all jobs have ended and cells are missing, GroupError, or
        ExperimentError if no cell is done."""
        if store is None:
            raise SpecError("engine 'slurm' needs a store that all nodes reach.")
        work = Work(plan, store, look_on=True)
        yield from work.news()
        if work.finished:
            return
        jobs = self._submit(plan, store)
        try:
            while not stop.now:
                over = all(job.done() for job in jobs)
                work.refresh()
                yield from work.news()
                if over or work.finished:
                    break
                work.wait(stop)
            end = time.monotonic() + _END_SECONDS
            while work.finished and not all(job.done() for job in jobs) and time.monotonic() < end and not stop.now:
                work.wait(stop)
        finally:
            for job in jobs:
                if not job.done():
                    job.cancel(check=False)
        if not stop.now and not work.finished:
            raise _unfinished(jobs, work)

    def _submit(self, plan: Plan, store: StoreWriter) -> list[Any]:
        folder = Path(str(store.path), "jobs") if self.folder is None else Path(self.folder).expanduser()
        executor = _submitit().AutoExecutor(
            folder=folder, cluster=self.cluster, slurm_max_num_timeout=_REQUEUES, local_max_num_timeout=_REQUEUES
        )
        wanted: dict[str, Any] = {
            "name": f"tsjax-{plan.experiment.name}",
            "timeout_min": self.minutes,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus,
            "mem_gb": self.memory_gb,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_signal_delay_s": _NOTICE,
            "slurm_additional_parameters": self._flags() or None,
            "slurm_setup": None if self.setup is None else [self.setup],
        }
        executor.update_parameters(**{name: value for name, value in wanted.items() if value is not None})
        experiment = code_of(plan)
        options = {
            "chunk": shared_chunk(plan.cells, self.jobs, self.chunk),
            "commit_seconds": self.commit_seconds,
            "lease_seconds": self.lease_seconds,
        }
        engine = BlackBox(**options) if experiment.black_box else Local(**options)
        out = str(store.path) if is_url(str(store.path)) else os.path.abspath(store.path)
        job = _Job(plan, out, store.retry, engine)
        return executor.submit_array([job] * self.jobs)

    def script(self, command: Sequence[str], name: str, tasks: int) -> str:
        """A script for sbatch, with an array of `tasks` jobs that run this command."""
        wanted: dict[str, Any] = {
            "job-name": name,
            "array": f"1-{tasks}",
            "time": self.minutes,
            "partition": self.partition,
            "account": self.account,
            "cpus-per-task": self.cpus,
            "gpus-per-node": self.gpus,
            "mem": None if self.memory_gb is None else f"{round(1024 * self.memory_gb)}M",
            "requeue": True,
            "open-mode": "append",
            # The signal goes to the program, not to this script: the program stops between chunks, and then the script goes on.
            "signal": f"TERM@{_NOTICE}",
            "output": None if self.folder is None else f"{self.folder}/%A_%a.log",
            **self._flags(),
        }
        lines = [
            f"#SBATCH --{key}" + ("" if value is True else f"={value}")
            for key, value in wanted.items()
            if value is not None
        ]
        setup = [] if self.setup is None else [self.setup, ""]
        return "\n".join(["#!/bin/bash", *lines, "", *setup, _SCRIPT.format(command=shlex.join(command))])


_SCRIPT = """\
# Every task takes chunks of the same store, and takes over those of tasks that died.
srun {command}
code=$?
# Stopped by SIGTERM before the end of its time, with all that was finished kept: once more.
if [ "$code" -eq 143 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


def shared_chunk(cells: int, jobs: int, chunk: int = DEFAULT_CHUNK) -> int:
    """The number of cells of a chunk if this many jobs share a sweep: at least four chunks for each job."""
    return max(1, min(chunk, cells // (4 * jobs)))


def _submitit() -> Any:
    """The module submitit. **Raises:** ValueError if it is not installed."""
    try:
        import submitit  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("engine 'slurm' needs submitit: python3 -m pip install 'tsjax[slurm]'.") from None
    return submitit


def _unfinished(jobs: Sequence[Any], work: Work) -> Exception:
    """The error when all jobs have ended and cells are missing."""
    reasons: list[str] = []
    for job in jobs:
        try:
            said = job.result()
        except Exception as error:
            said = f"job {job.job_id} ended without a result ({type(error).__name__}); its log is {job.paths.stderr}"
        if said and said not in reasons:
            reasons.append(said)
    first = reasons[0] if reasons else "no job says why"
    kind = GroupError if work.any_done else ExperimentError
    return kind(f"all {len(jobs)} jobs have ended, but cells are missing: {first}. Run again to continue.")
