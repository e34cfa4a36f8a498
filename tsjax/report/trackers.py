"""Progress and result of a sweep in experiment trackers: TensorBoard, MLflow, Weights & Biases, and JSON lines for other tools.

A tracker gets the plan, a point for each chunk that was run, and at the end rates and verdicts:

    ts.sweep(study, n=[64, 128], seeds=16, track=ts.trackers.TensorBoard("events"))
    tsjax run superiority --track tensorboard:events --track jsonl:events.jsonl
"""

import abc
import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..hints import nearest
from ..sweep.commits import ChunkDone
from ..sweep.devices import peak_memory
from ..sweep.plan import Plan
from ..sweep.result import Result
from ..sweep.values import redacted
from .plain import rates_json, verdicts_json
from .progress import Meter
from .publish import publish_rates
from .text import shown


class AbstractTracker(abc.ABC):
    """A tracker of a sweep. It is a `listener` of `tsjax.sweep`, and gets the result at the end.

    Each chunk that was run gives the scalars `sweep/failed`, `sweep/cells_per_second`, `sweep/work_per_second`,
    `sweep/idle_share` and `sweep/memory_bytes` if known, and the chunk's mean of each metric of the experiment, as
    `risk/student/n_256` if n is static. The step is the number of cells done. At the end there are `rate/student`,
    `rate_low/student` and `rate_high/student` for each curve with an exponent, and `verdicts/holds`, `/fails`, `/undecided`.
    """

    _is_open = False

    def __call__(self, plan: Plan, stream: Iterable[ChunkDone]) -> Iterator[ChunkDone]:
        self.begin(_facts(plan))
        self._is_open = True
        meter = Meter(plan)
        for done in stream:
            meter.add(done)
            if not done.resumed and done.records is not None:
                self.scalars(_values(plan, meter, done), meter.done)
            yield done

    def end(self, result: Result | None) -> None:
        """Writes rates and verdicts, and closes the tracker. A sweep that was stopped has no result. Does nothing if the sweep
        never began."""
        if not self._is_open:
            return
        if result is not None and not result.records.empty:
            step = result.coverage.done
            self.scalars(_summary(result), step)
            self.results(rates_json(result), verdicts_json(result), publish_rates(result, "markdown", "power"), step)
        self.close(result is not None)

    @abc.abstractmethod
    def begin(self, facts: Mapping[str, str]) -> None:
        """Opens the tracker with facts about the plan. A sweep in rounds (`--until-verdict`) calls it in every round."""

    @abc.abstractmethod
    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes numbers at a step."""

    @abc.abstractmethod
    def results(
        self, rates: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]], table: str, step: int
    ) -> None:
        """Writes the results; `table` holds the rates in Markdown."""

    @abc.abstractmethod
    def close(self, finished: bool) -> None:
        """Closes the tracker; `finished` says that the sweep was not stopped."""


class TensorBoard(AbstractTracker):
    """Event files in a folder. **Raises:** ModuleNotFoundError without tensorboardX."""

    def __init__(self, folder: str | Path):
        self._make = _package("tensorboardX", "tensorboard").SummaryWriter
        self._folder = Path(folder).expanduser()
        self._writer: Any = None

    def begin(self, facts):
        self._writer = self._writer or self._make(str(self._folder))
        self._writer.add_text("plan", "\n".join(f"- {name}: {value}" for name, value in facts.items()))

    def scalars(self, values, step):
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def results(self, rates, verdicts, table, step):
        self._writer.add_text("rates", table, step)
        lines = [f"- {one['outcome']}: {one['what']} ({one['reason']})" for one in verdicts]
        self._writer.add_text("verdicts", "\n".join(lines), step)

    def close(self, finished):
        self._writer.close()


class MLflow(AbstractTracker):
    """A run of an experiment with the study's name, on the server or in the folder or database at `uri`; by default at
    MLFLOW_TRACKING_URI. **Raises:** ModuleNotFoundError without mlflow."""

    def __init__(self, uri: str | None = None):
        self._client = _package("mlflow", "mlflow").MlflowClient(tracking_uri=uri or None)
        self._run: str = ""

    def begin(self, facts):
        if self._run:
            return
        name = f"tsjax/{facts['study']}"
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        self._run = self._client.create_run(experiment).info.run_id
        for fact, value in facts.items():
            self._client.log_param(self._run, fact, value)

    def scalars(self, values, step):
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def results(self, rates, verdicts, table, step):
        self._client.log_dict(self._run, {"rates": rates, "verdicts": verdicts}, "result.json")
        self._client.log_text(self._run, table, "rates.md")

    def close(self, finished):
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


class WandB(AbstractTracker):
    """A run of a project of Weights & Biases; offline if WANDB_MODE says so. **Raises:** ModuleNotFoundError without wandb."""

    def __init__(self, project: str = "tsjax"):
        self._wandb, self._project = _package("wandb", "wandb"), project or "tsjax"
        self._run: Any = None

    def begin(self, facts):
        self._run = self._run or self._wandb.init(project=self._project, config=dict(facts), reinit="create_new")

    def scalars(self, values, step):
        self._run.log(dict(values), step=step)

    def results(self, rates, verdicts, table, step):
        for name, rows in (("rates", rates), ("verdicts", verdicts)):
            if rows:
                columns = list(rows[0])
                plain = lambda value: value if value is None or isinstance(value, int | float) else str(value)
                cells = [[plain(value) for value in row.values()] for row in rows]
                self._run.summary[name] = self._wandb.Table(columns=columns, data=cells)

    def close(self, finished):
        self._run.finish(exit_code=0 if finished else 1)


class JsonLines(AbstractTracker):
    """One JSON object on each line, written at once: `{"event": "plan" | "chunk" | "result" | "end", ...}`."""

    def __init__(self, path: str | Path):
        self._path = Path(path).expanduser()

    def _write(self, event: str, **content: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"event": event, **redacted(content)}) + "\n")

    def begin(self, facts):
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write("plan", **facts)

    def scalars(self, values, step):
        self._write("chunk", done=step, **values)

    def results(self, rates, verdicts, table, step):
        self._write("result", done=step, rates=list(rates), verdicts=list(verdicts))

    def close(self, finished):
        self._write("end", finished=finished)


KINDS: dict[str, Callable[[str], AbstractTracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
    "jsonl": JsonLines,
}
"""The trackers by their names in `tsjax run --track KIND:WHERE`."""


def tracker_of(text: str) -> AbstractTracker:
    """The tracker that `KIND:WHERE` names: `tensorboard:DIR`, `mlflow:URI`, `wandb:PROJECT`, `jsonl:FILE`.

    **Raises:** ValueError for another kind, or if a place is needed and missing; ModuleNotFoundError without its package.
    """
    kind, _, where = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"track {text!r}: there is no tracker {kind!r}.{nearest(kind, list(KINDS))}")
    if kind in ("tensorboard", "jsonl") and not where:
        raise ValueError(f"track {text!r}: say where, {kind}:PLACE.")
    return KINDS[kind](where)


# The most characters of a parameter.
_LONGEST = 500


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        message = f"this tracker needs {name}: pip install 'tsjax[{extra}]'."
        raise ModuleNotFoundError(message, name=name) from error


def _facts(plan: Plan) -> dict[str, str]:
    """Facts known before the first chunk: the study, the number of cells, and the values of every argument that varies."""
    experiment = plan.experiment
    found = {"study": experiment.name, "version": str(experiment.version), "cells": str(plan.cells)}
    values = {name: plan.values(name) for name in experiment.names}
    # Tracking servers limit the length of a parameter.
    texts = {name: shown(", ".join(map(str, redacted(several))))[:_LONGEST] for name, several in values.items()}
    return texts | found


def _tag(text: str) -> str:
    """A label as a tag, without spaces and equal signs."""
    parts = re.split(r", | \(| (?=\w+=)", shown(text).replace(")", ""))
    return "/".join(re.sub(r"[^\w.-]+", "_", part).strip("_") for part in parts)


def _values(plan: Plan, meter: Meter, done: ChunkDone) -> dict[str, float]:
    assert done.records is not None
    rates = {"cells_per_second": meter.cell_rate, "work_per_second": meter.work_rate, "idle_share": meter.idle_share}
    sweep = {"failed": meter.failed, "memory_bytes": peak_memory() or None, **rates}
    values = {f"sweep/{name}": float(value) for name, value in sweep.items() if value is not None}
    group = next(group for group in plan.groups if group.static == done.static)
    for name in plan.experiment.y:
        column = done.records[name].to_numpy(float) if name in done.records else np.empty(0)
        # The mean over cells that did not fail.
        mean = float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else None
        if mean is not None:
            values[f"{name}/{_tag(meter.label(group))}"] = mean
    return values


def _summary(result: Result) -> dict[str, float]:
    values = {}
    for row in result.rates().to_dict("records"):
        # Not below the exponent's own tag: if metrics are stored as files, that file would also have to be a folder.
        numbers = {"rate": row["exponent"], "rate_low": row["low"], "rate_high": row["high"]}
        values |= {f"{name}/{_tag(row['label'])}": float(v) for name, v in numbers.items() if np.isfinite(v)}
    outcomes = [str(verdict.outcome) for verdict in result.verdicts()]
    if outcomes:
        values |= {f"verdicts/{one}": float(outcomes.count(one)) for one in ("holds", "fails", "undecided")}
    return values
