"""Runs a sweep: `ts.sweep(study, ...)` from Python, and `run_spec` for a spec."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import jax
import numpy as np
import pyarrow as pa
from jax.experimental import multihost_utils

from .commits import ChunkDone
from .devices import one_blas_thread, use_machine
from .engines import AbstractEngine, engine_of
from .errors import AbsentError, SpecError, shown
from .experiment import Experiment
from .interrupt import listening
from .options import plain
from .plan import Plan, make_plan
from .predictions import predict
from .program import settings
from .provenance import manifest_of, provenance, shared_here
from .records import in_memory, records_of
from .result import Result
from .spec import SweepSpec, find_experiment, load_spec, parse_spec
from .store import StoreError, argument_kinds, open_store
from .table import to_table
from .theory import TheoryTable
from .values import redacted
from .warm import is_shipped
from .writer import StoreWriter

Listener = Callable[[Plan, Iterable[ChunkDone]], Iterable[ChunkDone]]


@runtime_checkable
class Tracker(Protocol):
    """A listener that also gets the result, or None if the sweep was stopped; `tsjax.trackers` has several."""

    def __call__(self, plan: Plan, stream: Iterable[ChunkDone]) -> Iterable[ChunkDone]: ...

    def end(self, result: Result | None) -> None: ...


@contextlib.contextmanager
def tracking(
    trackers: Sequence[Tracker], listener: Listener | None = None
) -> Iterator[tuple[Listener | None, Callable[[Result], Result]]]:
    """A listener that passes chunks through all trackers, and a function that takes the result for them. At the end of the
    block the trackers get the result, or None if there is none, as after a signal. A tracker that fails then only causes a
    warning, since the sweep is done."""
    found: list[Result] = []
    for tracker in trackers:
        listener = _through(tracker, listener)
    try:
        yield listener, lambda result: (found.append(result), result)[1]
    finally:
        for tracker in trackers:
            try:
                tracker.end(found[-1] if found else None)
            except Exception as error:
                message = f"{type(tracker).__name__} could not write the result: {type(error).__name__}: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=3)


def _through(inner: Listener, outer: Listener | None) -> Listener:
    return inner if outer is None else lambda plan, stream: outer(plan, inner(plan, stream))


def sweep(
    study: Experiment | str | Path,
    *,
    out: str | Path | None = None,
    key: SupportsIndex | None = None,
    seeds: SupportsIndex | Sequence[SupportsIndex] | np.ndarray | Mapping[str, int] | None = None,
    engine: AbstractEngine | str | None = None,
    chunk: SupportsIndex | None = None,
    commit_seconds: float | None = None,
    retry: bool = False,
    track: Tracker | Sequence[Tracker] = (),
    listener: Listener | None = None,
    progress: bool | None = None,
    **arguments: Any,
) -> Result:
    """Runs every cell of a grid, by default on all local devices, and returns the result.

    **Arguments:**

    - `study`: an experiment (`ts.studies.superiority`, or your own made by `ts.experiment`), or the path of a sweep file.
    - `out`: the directory or URL of the store. An existing store of the same sweep is resumed and extended. None keeps the
      records in memory.
    - `key`: the root key of the sweep, by default that of the file, or 0. `seeds`: the number of seeds in every cell, or a list
      or range of seeds. Numbers and arrays may be those of any library.
    - `engine`: where cells run: `ts.engines.Local(...)`, `Ray(...)`, `Slurm(...)`, `BlackBox(...)`, or the name of one of them.
      By default it is this machine: all its devices, or for a black box (`tsjax.black_box`) one process on each core.
    - `chunk`, `commit_seconds`: short forms of these options of the engine: the number of cells that run together (fewer if
      they do not fit in memory), and how many seconds of finished work a kill may lose besides the chunks in flight.
    - `retry`: for a black box, whether to run cells again that failed before.
    - `track`: where else to write progress, rates and verdicts: one of `tsjax.trackers` (TensorBoard, MLflow, Weights &
      Biases, JSON lines), or several.
    - `listener`: a function of the plan and the stream of finished chunks that returns this stream, passing each chunk on.
    - `progress`: whether to show progress, on standard error or in the notebook; by default only if standard error is a
      terminal.
    - `**arguments`: the arguments of the experiment. A list, array or range is an axis of the grid, and anything else is a
      fixed argument. If an argument is itself a list or tuple (`widths: tuple[int, ...]`), a list of such lists is an axis.
      `zip={"d": [5, 10], "m": [3, 5]}` and `only={"where": {...}, ...}` are as in a sweep file (`SweepSpec`). For a sweep file,
      they replace the axes and arguments of the same names.

    As on the command line, all cores are used and compiled programs are kept for the next process, as far as JAX's settings
    allow. If it is too late for one of these settings, a line beside the progress says so (`tsjax.sweep.devices.use_machine`).

    Control-C and SIGTERM stop the sweep after the chunks in flight, with everything that is finished committed. A second signal
    drops the chunks in flight, too.

    **Raises:** SpecError for bad arguments, before anything is compiled; StoreError if `out` cannot be used; at the end
    GroupError if some programs could not be compiled or run, with all others done; Interrupted, a KeyboardInterrupt, after a
    signal.

    >>> @ts.experiment(static=("n",), y=("risk",))
    ... def mean(key, *, n: int):
    ...     return {"risk": jnp.mean(jax.random.normal(key, (n,))) ** 2}

    >>> result = ts.sweep(mean, seeds=32, n=[32, 64, 128])
    >>> len(result.records), bool(result.rates()["exponent"][0] > 0.5)
    (96, True)
    """
    late = use_machine()
    if sys.stderr.isatty() if progress is None else progress:
        if late:
            print(late, file=sys.stderr)
        listener = _watched(listener)
    _refuse_old(arguments, study.names if isinstance(study, Experiment) else ())
    how: dict[str, Any] = {
        "chunk": chunk,
        "commit_seconds": commit_seconds,
        "engine": engine,
        "retry": retry,
        "out": out,
    }
    changes = {name: plain(name, value) for name, value in arguments.items()}
    changes = changes if seeds is None else {**changes, "seeds": plain("seeds", seeds)}
    if isinstance(study, Experiment):
        content = {"study": name_of(study), "key": plain("key", 0 if key is None else key), "grid": changes}
        kept = {} if out is None else _claims_of(out, content)
        how["experiment"] = study
    else:
        spec, kept = load_spec(study), {}
        content = spec.model_dump(exclude_defaults=True)
        content |= {} if key is None else {"key": plain("key", key)}
        content["grid"] = [{**block, **changes} for block in spec.grid]
    if isinstance(track, str):
        raise SpecError(f"track = {shown(track)}: give a tracker, such as ts.trackers.JsonLines('events.jsonl').")
    with tracking([*track] if isinstance(track, Sequence) else [track], listener) as (listener, finish):
        try:
            spec = parse_spec(kept | content, where="ts.sweep", called=isinstance(study, Experiment))
            return finish(run_spec(spec, listener=listener, **how))
        except AbsentError as error:
            if not kept:
                raise
            raise SpecError(
                f"{str(error).rstrip('.')}. This is a claim of the sweep in {redacted(str(out))}, which a call from Python "
                "keeps: give the whole grid, or another out."
            ) from None


def _claims_of(out: str | Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What the store `out` says about its sweep besides its cells, if the sweep of this content is the same one. A sweep file
    may have made it, and a call from Python, which cannot state claims, must not erase them."""
    try:
        known = open_store(out).spec
    except StoreError:
        return {}
    if (known.study, known.key) != (content["study"], content["key"]):
        return {}
    return {
        name: value
        for name, value in known.model_dump(exclude_defaults=True).items()
        if name not in ("study", "key", "problem", "grid")
    }


def _watched(listener: Listener | None) -> Listener:
    # Imported here, since it is needed only to show progress.
    from ..report.progress import watch

    return watch if listener is None else lambda plan, stream: watch(plan, listener(plan, stream))


def name_of(experiment: Experiment) -> str:
    """The name of an experiment in a spec: the short name of a shipped one, else module:name."""
    return experiment.name if is_shipped(experiment) else f"{experiment.fn.__module__}:{experiment.name}"


# Options that now belong to engines, and how to write them.
_OLD = {
    "workers": "engine=ts.engines.BlackBox(processes={value})",
    "ray_address": "engine=ts.engines.Ray(address={value})",
    "shard": "nothing: processes that work on one store share its cells",
}


def _refuse_old(arguments: Mapping[str, Any], own: Sequence[str]) -> None:
    """**Raises:** SpecError for an old option, which says how to write it now."""
    for name, now in _OLD.items():
        if name in arguments and name not in own:
            raise SpecError(f"{name} is not an option any more: write {now.format(value=shown(arguments[name]))}.")


def _check_retry(experiment: Experiment, retry: Any) -> None:
    """Raises SpecError for a `retry` that is not a truth value, or for an experiment that cannot retry cells."""
    if not isinstance(retry, bool):
        raise SpecError(f"retry = {shown(retry)}: say True or False.")
    if retry and not experiment.black_box:
        raise SpecError(
            f"retry is for black boxes, whose cells may fail one by one, and {experiment.name!r} is an experiment in JAX: "
            "leave it out."
        )


def run_spec(
    spec: SweepSpec,
    *,
    out: str | Path | None = None,
    engine: AbstractEngine | str | None = None,
    chunk: SupportsIndex | None = None,
    commit_seconds: float | None = None,
    retry: bool = False,
    listener: Listener | None = None,
    experiment: Experiment | None = None,
) -> Result:
    """Runs, or resumes, the sweep of a spec; see `sweep`.

    Any number of processes may run the sweep of one store: they share its cells out (`tsjax.sweep.leases`). The processes of
    `jax.distributed` do so too, each with its own devices, and wait for each other at the end.

    **Raises:** as `sweep`, and ValueError for several processes of `jax.distributed` without a store.
    """
    options = {"chunk": chunk, "commit_seconds": commit_seconds}
    options = {name: value for name, value in options.items() if value is not None}
    processes = jax.process_count()
    if processes > 1 and out is None:
        raise ValueError("several processes of jax.distributed need one store: give out=...")
    # Wrong names and numbers raise an error before a study is imported, which takes seconds.
    engine = engine if engine is None else engine_of(engine, options)
    experiment = find_experiment(spec.study) if experiment is None else experiment
    engine = engine_of(None, options, experiment) if engine is None else engine
    _check_retry(experiment, retry)
    if isinstance(engine, AbstractEngine):
        engine.check(experiment, out)
    whole = make_plan(spec, experiment)
    store = None if out is None else StoreWriter(out, retry=retry)
    description = experiment.description
    # Risks and kernels need float64; a user's own process keeps its flags.
    with listening() as stop, one_blas_thread(), settings(experiment.x64):
        before = [] if store is None else store.theory_before(description)
        theory = predict(experiment, whole, TheoryTable(before))
        whole = shared_here(whole, {} if store is None else store.sharing_before())
        if store is not None:
            store.open_for(spec, whole, theory, provenance(), manifest_of(spec, experiment))
            # Another process may have made the store in the meantime.
            whole = shared_here(whole, store.sharing_before())
        stream: Iterable[ChunkDone] = engine.run(whole, store, stop)
        parts: dict[str, pa.Table] = {}
        kinds, writable = argument_kinds(whole), store is not None
        try:
            for done in stream if listener is None else listener(whole, stream):
                if store is None and done.records is not None:
                    parts[str(len(parts))] = to_table(done.records, kinds)
        except StoreError:
            writable = False
            raise
        finally:
            if store is not None and writable and store.refused is None:
                # Everything is committed by now; if tidying fails, the next run does it.
                with contextlib.suppress(StoreError):
                    store.tidy()
    if processes > 1:
        multihost_utils.sync_global_devices("tsjax: all cells are done")
    if store is None:
        records, coverage = in_memory(parts, whole, description)
        facts = provenance()
    else:
        records, coverage = records_of(store, whole, description)
        facts = store.provenance
    if experiment.returns_x and experiment.theory is not None:
        predict(experiment, whole, theory, records)
        if store is not None and store.refused is None:
            store.describe(theory)
    where = None if store is None else store.path
    return Result(records, spec, experiment, facts, where, plan=whole, coverage=coverage, theory=theory)
