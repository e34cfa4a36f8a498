"""Seeds are added until every verdict of a sweep is decided, at no more false verdicts than a single look would have."""

from collections.abc import Callable
from pathlib import Path

from .errors import SpecError
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
    """Runs a spec, and again with `factor` times as many seeds in every cell, until every verdict is decided or there are
    `most` seeds. Each look is judged by intervals that hold at every look up to `most` (`tsjax.sequential`): the store `out`
    remembers the plan and its looks, and a run that is resumed goes on with them.

    **Raises:** SpecError, before anything runs, where the spec expects nothing, gives seeds by name or unequal numbers of them,
    or begins with more than `most`; and for a store whose verdicts were looked at by another plan, or none.
    """
    if not spec.expect:
        raise SpecError("until every verdict is decided, but this sweep expects nothing: give it [[expect]] tables.")
    given = [block.get("seeds") for block in spec.grid]
    counts = {seeds for seeds in given if isinstance(seeds, int) and not isinstance(seeds, bool)}
    if len(counts) != 1 or len(counts) < len({repr(seeds) for seeds in given}) or max(counts) > most:
        raise SpecError(
            f"seeds are added to a number of seeds, the same in all cells and at most {most} (--max-seeds); this grid has "
            f"seeds = {', '.join(sorted({repr(seeds) for seeds in given}))}."
        )
    (seeds,), looks = counts, read_looks(Path(out) if isinstance(out, str) and "://" not in out else out)
    if looks.looks and looks.most != most:
        at = ", ".join(str(look.seeds) for look in looks.looks)
        plan = "without a plan" if looks.most is None else f"by a plan for at most {looks.most}"
        raise SpecError(
            f"the verdicts of {out} were looked at before, at {at} seeds, {plan}: intervals hold at every look only where the "
            "most seeds are fixed before the first. Run into a new store"
            + ("." if looks.most is None else f", or with --max-seeds {looks.most}.")
        )
    while True:
        result = run(spec.model_copy(update={"grid": [{**block, "seeds": seeds} for block in spec.grid]}))
        looks = looks.model_copy(update={"most": most}).adding(spec.expect, result.seeds)
        write_looks(result.path, looks)
        result.look(looks)
        if seeds >= most or all(verdict.outcome != "undecided" for verdict in result.verdicts()):
            return result
        seeds = min(most, max(seeds + 1, int(seeds * factor)))
