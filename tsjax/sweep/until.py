"""Adds seeds until every verdict of a sweep is decided, with no more false verdicts than a single look would give.

Seeds are added only in the cells that undecided verdicts read. The guarantee is about each verdict by itself: at each of its
looks, all of its cells have the same number of seeds, and it is decided once, on the seeds of that look. Other verdicts may
later add seeds to some of its cells. These seeds are not read for it: they would be further looks, outside the plan, at
numbers of seeds that differ from cell to cell (`Looks.seeds_of`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .axes import same
from .errors import SpecError
from .expectation import Expectation
from .looks import read_looks, write_looks
from .result import Result
from .spec import SweepSpec


def run_until_verdict(
    spec: SweepSpec,
    run: Callable[[SweepSpec], Result],
    most: int,
    *,
    out: Path | str | None = None,
    factor: float = 2.0,
) -> Result:
    """Runs a spec, and runs it again with `factor` times as many seeds in the cells that undecided verdicts read, until every
    verdict is decided or there are `most` seeds. Each look is judged by intervals that hold at every look up to `most` seeds
    (`tsjax.sequential`). The store `out` remembers the plan and its looks, and a resumed run continues with them.

    **Raises:** SpecError, before anything runs, for a spec that expects nothing, that lists seeds instead of giving one number
    for all cells, or that begins with more than `most` seeds; and for a store whose verdicts were looked at without a plan, or
    with a plan for another number.
    """
    if not spec.expect:
        raise SpecError("there is no verdict to decide, since this sweep expects nothing: give it [[expect]] tables.")
    given = [block.get("seeds") for block in spec.grid]
    counts = {seeds for seeds in given if isinstance(seeds, int) and not isinstance(seeds, bool)}
    if len(counts) != 1 or len(counts) < len({repr(seeds) for seeds in given}) or max(counts) > most:
        raise SpecError(
            f"seeds must be one number, the same in all cells and at most {most} (--max-seeds), to be added to; this grid has "
            f"seeds = {', '.join(sorted({repr(seeds) for seeds in given}))}."
        )
    (seeds,), looks = counts, read_looks(out)
    if looks.looks and looks.most != most:
        at = ", ".join(str(look.seeds) for look in looks.looks)
        plan = "without a plan" if looks.most is None else f"by a plan for at most {looks.most}"
        raise SpecError(
            f"the verdicts of {out} were looked at before, at {at} seeds, {plan}: intervals hold at every look only if the "
            "largest number of seeds is fixed before the first. Run into a new store"
            + ("." if looks.most is None else f", or with --max-seeds {looks.most}.")
        )
    whole, open_, more = spec, list(spec.expect), {}
    first = seeds
    while True:
        result = run(whole)
        looks = looks.model_copy(update={"most": most}).adding(open_, seeds)
        write_looks(result.path, looks)
        result.look(looks)
        verdicts = zip(spec.expect, result.verdicts(), strict=True)
        open_ = [expectation for expectation, verdict in verdicts if verdict.outcome == "undecided"]
        if seeds >= most or not open_:
            return result
        seeds = min(most, max(seeds + 1, int(seeds * factor)))
        cells = [] if result.plan is None else [one.arguments for one in result.plan.combinations]
        read = _read(result, open_, cells)
        more |= {repr(cell): (cell, seeds) for cell in read}
        every = len(more) == len({repr(cell) for cell in cells}) and all(count == seeds for _, count in more.values())
        blocks = [] if every else [{**cell, "seeds": list(range(first, count))} for cell, count in more.values()]
        grid = [{**block, "seeds": seeds if every else first} for block in spec.grid]
        whole = spec.model_copy(update={"grid": [*grid, *blocks]})


def _read(result: Result, expectations: Sequence[Expectation], cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells that expectations read; all cells if the records do not show it."""
    try:
        parts = [(one, curve) for one in expectations for curve in result.reads(one)]
    except ValueError:
        return list(cells)
    axes = {id(one): one.phrase.axis or result.experiment.x for one in expectations}

    def is_read(cell: dict[str, Any]) -> bool:
        for one, curve in parts:
            axis = axes[id(one)]
            along = axis not in cell or bool(np.isin(float(cell[axis]), curve.x))
            if along and all(same(cell[name], value) for name, value in curve.arguments.items() if name != axis):
                return True
        return False

    return [cell for cell in cells if is_read(cell)]
