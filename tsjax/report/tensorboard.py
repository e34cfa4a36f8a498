"""Progress of a running sweep as TensorBoard scalars, for those who watch many runs in one place."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..sweep.commits import ChunkDone
from ..sweep.devices import peak_memory
from ..sweep.plan import Plan
from .progress import Meter
from .text import shown

Listener = Callable[[Plan, Iterable[ChunkDone]], Iterator[ChunkDone]]


def tensorboard_scalars(folder: str | Path) -> Listener:
    """A `listener` of `tsjax.sweep.run.run_spec` that writes event files into `folder`: a point for each chunk that was run,
    against the cells done.

    Scalars: `sweep/failed`, `sweep/cells_per_second`, `sweep/work_per_second`, `sweep/idle_share` and `sweep/memory_bytes`
    where known, and the chunk's mean of what the experiment measures, as `risk/student/n_256` where n is static.

    **Raises:** ModuleNotFoundError without tensorboardX (`pip install 'tsjax[tensorboard]'`).
    """
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "TensorBoard scalars need tensorboardX: pip install 'tsjax[tensorboard]'.", name="tensorboardX"
        ) from error

    def listener(plan: Plan, stream: Iterable[ChunkDone]) -> Iterator[ChunkDone]:
        meter = Meter(plan)
        with SummaryWriter(str(folder)) as writer:
            for done in stream:
                meter.add(done)
                if not done.resumed and done.records is not None:
                    for name, value in _values(plan, meter, done).items():
                        writer.add_scalar(name, value, meter.done)
                yield done

    return listener


def _values(plan: Plan, meter: Meter, done: ChunkDone) -> dict[str, float]:
    assert done.records is not None
    rates = {"cells_per_second": meter.cell_rate, "work_per_second": meter.work_rate, "idle_share": meter.idle_share}
    sweep = {"failed": meter.failed, "memory_bytes": peak_memory() or None, **rates}
    values = {f"sweep/{name}": float(value) for name, value in sweep.items() if value is not None}
    group = next(group for group in plan.groups if group.static == done.static)
    # Tags know neither spaces nor equal signs.
    label = shown(meter.label(group)).replace(" ", "/").replace("=", "_")
    for name in plan.experiment.y:
        if name in done.records:
            values[f"{name}/{label}"] = float(done.records[name].to_numpy(float).mean())
    return values
