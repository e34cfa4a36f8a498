"""Runs of other code: a table of them becomes a `Result`, with rates, verdicts, surfaces and the page."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import create_model

from ..hints import nearest
from ..rates.kinds import Kind, Share, Signed
from ..status import Status
from ..tables import check_column, check_numbers_in, frame_of
from ..versions import version_of
from .axes import MOST_CELLS
from .checks import check_expectations
from .columns import plain
from .errors import SpecError, shown
from .experiment import RESERVED, Arguments, Experiment
from .manifest import Manifest
from .plan import Combination, Plan, check_names, ids_of
from .records import in_memory, records_of
from .result import Result
from .spec import RECORDED, SweepSpec, parse_spec
from .store import StoreError, argument_kinds, identity_of
from .surface import check_surface
from .table import to_table
from .theory import TheoryTable
from .writer import StoreWriter

DEVICE = "elsewhere"
"""The device in the records of a table."""
# The seed of the random order of rows without a seed; fixed, so that equal tables give equal intervals.
_ORDER = 0


def from_table(
    table: Any,
    *,
    x: str,
    y: str | Sequence[str],
    seed: str | Sequence[str] | None = None,
    curve: str | None = None,
    by: Sequence[str] = (),
    expect: Sequence[Mapping[str, Any]] = (),
    surface: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Kind] | None = None,
    labels: Mapping[str, str] | None = None,
    claim: str = "",
    source: str = "",
    out: str | Path | None = None,
) -> Result:
    """The result of runs that other code has made, from a table with one row for each run. As for a sweep, it has rates with
    intervals, verdicts, surfaces, comparisons and the page.

    **Arguments:**

    - `table`: a DataFrame (pandas, polars, Arrow), a dict of columns, a list of dicts, or the path of a CSV, TSV, Parquet or
      JSON-lines file, or of a folder of JSON lines (`tsjax.tables.read_table`).
    - `x`, `y`: the columns of numbers on the two axes. The first of several y carries the rate. A row whose y is missing or not
      finite is a failed run: it is counted, and left out of every mean.
    - `seed`: the column, or columns, of numbers or words that distinguish runs at one point. Runs with the same seed are
      compared in pairs, which is valid whether or not they share anything. Without `seed`, the rows at one point count as
      independent runs, in random order (if a table is sorted by its results, its own order would pair rows of the same rank).
      With one row at each point, intervals rest on residuals (`tsjax.fit_rate`).
    - `curve`: the column that names curves; `by`: further columns that distinguish curves, such as a dataset or a width.
    - `expect`: expectations, as the tables `[[expect]]` of a sweep file: `{"what": "rate of a in n", "at_least": 0.4}`.
    - `surface`: two columns, among x, curve and by, over which the page fits E + A/N^a + B/D^b, as the table `[surface]` of a
      sweep file: `{"n": "parameters", "d": "tokens", "cost": 6}`.
    - `metrics`: the kinds of values, as in `Experiment`: `{"error": ts.Share(trials="tests")}`, where `tests` is a column too.
      Truth values are indicators, and a y with values that are not positive is `ts.Signed()`. A share that the table has
      rounded is replaced by the nearest share of whole trials, if there is only one.
    - `labels`: how to write columns and values. Phrases name columns and values by words, so spaces and the like in them become
      `_`; the label is then the text of the table. An empty text has the label `(empty)`.
    - `claim`, `source`: what the page says about the claim, and where it comes from.
    - `out`: a directory for a store, which every command reads (`tsjax rates`, `verify`, `figure`, ...). A store that a table
      made before is replaced.

    **Raises:** ValueError for a table that cannot be read, columns that are missing or hold other values, and several rows of
    one seed at one point; SpecError for expectations that the table cannot answer; StoreError if `out` holds something else.

    >>> runs = {"n": [10, 10, 40, 40], "loss": [0.9, 1.1, 0.5, 0.5], "run": [0, 1, 0, 1]}
    >>> result = ts.from_table(runs, x="n", y="loss", seed="run")
    >>> round(result.rate(result.curves()[0]).exponent, 2)
    0.5
    """
    where = str(table) if isinstance(table, str | Path) else "the table"
    # A column of numbers that pandas holds as objects becomes one of numbers.
    frame = frame_of(table).infer_objects()
    outputs = [y] if isinstance(y, str) else list(y)
    settings = [*([] if curve is None else [curve]), *by]
    seeds = [] if seed is None else [seed] if isinstance(seed, str) else list(seed)
    asked = {} if metrics is None else dict(metrics)
    trials = [kind.trials for kind in asked.values() if isinstance(kind, Share) and isinstance(kind.trials, str)]
    values = list(dict.fromkeys([*outputs, *asked, *(name for name in trials if name not in (x, *settings))]))
    if not outputs:
        raise ValueError("y is empty: name at least one column of numbers.")
    _check_columns(frame, x, values, [*settings, *seeds], [x, *values, *trials], where)
    names = {name: _word(name) for name in (x, *settings, *values)}
    _check_words(names, "columns", where)
    for name, kind in asked.items():
        if isinstance(kind, Share):
            frame = frame.assign(**{name: _whole_trials(pd.Series(frame[name]), frame.get(kind.trials, kind.trials))})
    runs = _runs(frame, names, [*settings, x], seeds, where)
    texts = _renamed(runs, [names[name] for name in settings])
    known = {word: text for word, text in texts.items() if word != text}
    known |= {new: str(old) for old, new in names.items() if new != old}
    words = {text: word for word, text in texts.items()} | names
    kinds: dict[str, Kind] = {names[name]: Signed() for name in outputs if _not_positive(pd.Series(frame[name]))}
    for name, kind in asked.items():
        trials = kind.trials if isinstance(kind, Share) else None
        kinds[names[name]] = Share(trials=names[trials]) if isinstance(trials, str) else kind
    fields: dict[str, Any] = {names[name]: (Any, ...) for name in (x, *settings)}
    experiment = Experiment(
        name=RECORDED,
        fn=_no_function,
        static=(names[x], *(names[name] for name in settings)),
        arguments=create_model(RECORDED, __base__=Arguments, **fields),
        x=names[x],
        y=tuple(names[name] for name in outputs),
        curve=None if curve is None else names[curve],
        metrics=kinds,
        labels=known | {words.get(name, name): text for name, text in (labels or {}).items()},
        black_box=True,
    )
    shares = [f"{name}={kind.trials}" for name, kind in asked.items() if isinstance(kind, Share)]
    recorded = [names[name] for name in values]
    if experiment.curve is not None:
        check_names(experiment, experiment.curve, runs[experiment.curve].unique().tolist())
    plan, records = _cells(runs, experiment, recorded)
    axes = (
        None if surface is None else {**surface, **{k: names.get(v, v) for k, v in surface.items() if k in ("n", "d")}}
    )
    spec = _spec(experiment, plan, recorded, claim, source, expect, axes)
    given = {"x": [x], "y": outputs, "seed": seeds, "curve": [curve], "by": by, "share": shares}
    columns = {name: [str(one) for one in those if one is not None] for name, those in given.items()}
    path = str(table) if isinstance(table, str | Path) else ""
    facts = {"versions": {"tsjax": version_of("tsjax") or ""}, "table": {"path": path, "columns": columns}}
    return _result(spec, experiment, plan, records, facts, out)


def _check_columns(
    frame: pd.DataFrame, x: str, values: Sequence[str], words: Sequence[str], numbers: Sequence[str], where: str
) -> None:
    if frame.empty:
        raise ValueError(f"{where} has no rows.")
    twice = [name for name in dict.fromkeys((x, *values, *words)) if list(frame.columns).count(name) > 1]
    if twice:
        raise ValueError(f"{where} has several columns {twice[0]!r}: rename all but one.")
    if len(frame) > MOST_CELLS:
        raise ValueError(f"{where} has {len(frame)} rows, and a result holds {MOST_CELLS} at most: leave some out.")
    for name in numbers:
        check_numbers_in(frame, name, where)
    for name in words:
        check_column(frame, name, where)
        gaps = int(pd.Series(frame[name]).isna().sum())
        if gaps:
            raise ValueError(f"{where}: column {name!r} distinguishes runs, so it must have no gaps; it has {gaps}.")
    twice = [name for name in dict.fromkeys((x, *values, *words)) if [x, *values, *words].count(name) > 1]
    if twice:
        raise ValueError(f"{where}: column {twice[0]!r} is named twice among x, y, seed, curve and by; name it once.")
    if pd.api.types.is_bool_dtype(frame[x].dtype):
        raise ValueError(
            f"{where}: column {x!r}, which is x, holds truth values: name it in curve or by, and give a number as x."
        )
    if not np.isfinite(frame[x].to_numpy(float)).all():
        raise ValueError(
            f"{where}: column {x!r}, which is x, has values that are not finite: fill them, or drop the rows."
        )


def _word(name: str) -> str:
    """A name that phrases can contain, and that is not reserved for the engine."""
    word = re.sub(r"\W+", "_", str(name)).strip("_") or "column"
    taken = word in (*RESERVED, "status") or hasattr(Arguments, word) or word.startswith("model_")
    return f"{word}_" if taken or word[0].isdigit() else word


def _check_words(names: Mapping[Any, str], what: str, where: str) -> None:
    first: dict[str, Any] = {}
    for name, word in names.items():
        if word in first:
            raise ValueError(
                f"{where}: the {what} {first[word]!r} and {name!r} would both be called {word!r}; rename one."
            )
        first[word] = name


def _renamed(runs: pd.DataFrame, settings: Sequence[str]) -> dict[str, str]:
    """Replaces texts in the columns of settings, in place, by words that phrases can contain. Returns the text of each word."""
    texts: dict[str, str] = {}
    for name in settings:
        if pd.api.types.is_numeric_dtype(runs[name].dtype):
            continue
        words = {value: re.sub(r"[^\w.-]+", "_", str(value)).strip("_") or "empty" for value in runs[name].unique()}
        _check_words(words, f"values of {name!r}", "the table")
        for value, word in words.items():
            text = str(value) or "(empty)"
            if texts.setdefault(word, text) != text:
                raise ValueError(f"the table: {texts[word]!r} and {text!r} would both be called {word!r}; rename one.")
        runs[name] = [words[value] for value in runs[name]]
    return texts


def _whole_trials(shares: pd.Series, trials: Any) -> pd.Series:
    """Shares of whole trials in place of shares that a table has rounded: 0.0412 of 461 trials is 19 / 461."""
    digits = next((digits for digits in range(1, 10) if (shares.round(digits) == shares)[shares.notna()].all()), None)
    if digits is None:
        return shares
    whole = (shares * trials).round()
    is_near = (whole / trials - shares).abs() <= 0.5 * 10.0**-digits + 1e-12
    # If several whole numbers round to the same share, the right one is unknown.
    return shares.where(~is_near | (10.0**-digits * trials >= 1.0), whole / trials)


def _not_positive(column: pd.Series) -> bool:
    return not pd.api.types.is_bool_dtype(column.dtype) and bool((column[np.isfinite(column.astype(float))] <= 0).any())


def _runs(
    frame: pd.DataFrame, names: Mapping[str, str], point: Sequence[str], seeds: Sequence[str], where: str
) -> pd.DataFrame:
    """The columns in use under their new `names`, with a column `seed` of integers. `point` names the columns of settings and
    x."""
    runs = frame[list(names)].set_axis([*names.values()], axis=1)
    if not seeds:
        # In random order, since a table may be sorted by its results, and rows at the same place in the order are paired.
        runs = runs.iloc[np.random.default_rng(_ORDER).permutation(len(runs))]
        return runs.assign(seed=runs.groupby([names[name] for name in point], sort=False).cumcount()).sort_index()
    doubled = frame.duplicated([*point, *seeds], keep=False)
    if bool(doubled.to_numpy().any()):
        first = frame[doubled].iloc[0]
        alike = frame[(frame[[*point, *seeds]] == first[[*point, *seeds]]).all(axis=1)]
        place = ", ".join(f"{name} = {plain(first[name])}" for name in [*point, *seeds])
        others = [
            str(name)
            for name in frame.columns
            if name not in (*names, *seeds) and len({str(value) for value in alike[name]}) > 1
        ]
        hint = (
            f" They differ in {', '.join(others[:5])}: name it in seed, curve or by."
            if others
            else " Drop all but one."
        )
        raise ValueError(f"{where} has {len(alike)} rows of {place}.{hint}")
    numbers = frame[seeds[0]]
    usable = pd.api.types.is_integer_dtype(numbers.dtype) and numbers.between(0, 2**32 - 1).all()
    return runs.assign(seed=numbers if len(seeds) == 1 and usable else frame.groupby(list(seeds), sort=False).ngroup())


def _cells(runs: pd.DataFrame, experiment: Experiment, values: list[str]) -> tuple[Plan, pd.DataFrame]:
    """The plan whose cells are the rows of the table, and their records."""
    places = runs.groupby(list(experiment.names), sort=False).ngroup().to_numpy()
    order = np.argsort(places, kind="stable")
    records, starts = runs.iloc[order].reset_index(drop=True), np.flatnonzero(np.diff(places[order], prepend=-1))
    seeds = [part.tolist() for part in np.split(records["seed"].to_numpy(), starts[1:])]
    columns = [records[name].iloc[starts].tolist() for name in experiment.names]
    arguments = [dict(zip(experiment.names, row, strict=True)) for row in zip(*columns, strict=True)]
    combinations = [Combination(*one) for one in zip(arguments, seeds, strict=True)]
    records = records.assign(cell=[id for one in combinations for id in ids_of(*one)])
    numbers = records[values].astype({name: float for name in values if records[name].dtype.kind not in "biu"})
    sound = np.isfinite(numbers[list(experiment.y)].astype(float)).all(axis=1)
    ended = np.where(sound, int(Status.CONVERGED), int(Status.FAILED))
    failure = np.where(sound, "", f"the table has no finite {' and '.join(experiment.y)}")
    head = records[["cell", *experiment.names, "seed"]]
    texts = {"failure": failure.astype(object), "device": DEVICE, "tsjax": version_of("tsjax") or ""}
    return Plan(experiment, tuple(combinations)), pd.concat([head, numbers], axis=1).assign(status=ended, **texts)


def _spec(
    experiment: Experiment,
    plan: Plan,
    recorded: Sequence[str],
    claim: str,
    source: str,
    expect: Sequence[Mapping[str, Any]],
    surface: Mapping[str, Any] | None,
) -> SweepSpec:
    grid = {name: plan.values(name) for name in experiment.names}
    content = {
        "claim": claim,
        "source": source,
        "study": RECORDED,
        "grid": [grid],
        "expect": [dict(one) for one in expect],
    }
    content |= {} if surface is None else {"surface": dict(surface)}
    spec = parse_spec(content, where="from_table")
    check_surface(spec.surface, experiment.names, (one.arguments for one in plan.combinations))
    check_expectations(spec.expect, experiment, (one.arguments for one in plan.combinations), deep=False)
    for expectation in spec.expect:
        metric = expectation.phrase.metric
        if metric is not None and metric not in (*recorded, *experiment.names):
            raise SpecError(
                f"{expectation.what!r}: no value {metric!r} was read from the table.{nearest(metric, recorded)}"
            )
    return spec


def _result(
    spec: SweepSpec,
    experiment: Experiment,
    plan: Plan,
    records: pd.DataFrame,
    facts: dict[str, Any],
    out: str | Path | None,
) -> Result:
    # No record depends on the source of `_no_function`.
    description = experiment.description.model_copy(update={"source": {}})
    if out is None:
        found, coverage = in_memory({"table": to_table(records, argument_kinds(plan))}, plan, description)
        return Result(found, spec, description, facts, plan=plan, coverage=coverage)
    store = StoreWriter(out)
    _check_is_ours(store)
    manifest = Manifest(
        identity=identity_of(spec, description), device=DEVICE, kernel="none", ntk="none", versions=facts["versions"]
    )
    whole = Plan(description, plan.combinations)
    store.open_for(spec, whole, TheoryTable(), facts, manifest)
    # Records of an earlier table are removed, since the new table holds all of them. Looks at verdicts stay noted.
    store.files.remove(f"chunks/{name}" for name in store.files.names("chunks"))
    store.commit(records, "none")
    found, coverage = records_of(store, whole, description)
    return Result(found, spec, description, facts, store.path, plan=whole, coverage=coverage)


def _check_is_ours(store: StoreWriter) -> None:
    """Raises StoreError for a store that no table made."""
    try:
        study = store.spec.study
    except StoreError:
        # There is no store, or a damaged one: `open_for` checks whether one may be made here.
        return
    if study != RECORDED:
        raise StoreError(f"{store.name} holds a sweep of {study!r}, not of a table: choose another out.")


def _no_function(seed: int, **arguments: Any) -> Mapping[str, Any]:
    raise SpecError(f"these runs were read from a table ({shown(arguments)}); there is no function that makes them.")
