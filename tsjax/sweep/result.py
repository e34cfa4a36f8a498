"""What a sweep gives back: records, curves, rates and verdicts."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..estimators.base import Status
from ..rates import Estimate, Rate, Verdict, fit_rate, is_binary, judge, mean_ratio, share
from .experiment import Experiment, Theory
from .plan import Plan, make_plan
from .spec import Expectation, SpecError, SweepSpec, find_experiment, nearest
from .store import Store, open_store

if TYPE_CHECKING:
    import xarray

# Statuses that count as failures in every table.
FAILED = (int(Status.DIVERGED), int(Status.SINGULAR), int(Status.OUT_OF_MEMORY))


@dataclass(frozen=True)
class Curve:
    """One curve of a sweep: the cells that differ in x and seed alone.

    - `name`: the value of the experiment's curve argument; `label` also tells the other arguments that vary in the sweep.
    - `arguments`: all arguments but x. `x` (k,) increasing, `seeds` (s,).
    - `values`: for each y of the experiment the table (k, s), NaN where a cell failed or was not run.
    - `failed`: number of cells that diverged, were singular, or returned no finite number.
    - `theory`: what theory says at x.
    """

    name: str
    label: str
    arguments: dict[str, Any]
    x: np.ndarray
    seeds: np.ndarray
    values: dict[str, np.ndarray]
    failed: int
    theory: Theory

    def between(self, low: float, high: float) -> "Curve":
        """The part with low <= x <= high."""
        keep = (self.x >= low) & (self.x <= high)
        predicted = None if self.theory.predicted is None else self.theory.predicted[keep]
        values = {name: table[keep] for name, table in self.values.items()}
        return dataclasses.replace(
            self, x=self.x[keep], values=values, theory=self.theory._replace(predicted=predicted)
        )


class Result:
    """The records of a sweep and what follows from them.

    - `records`: a tidy DataFrame, one row per cell and seed: arguments, seed, returned values, status, timings, versions.
    - `spec`, `experiment`: what was asked. `provenance`: versions and devices. `path`: the store (a directory or URL), or None.
    """

    def __init__(
        self,
        records: pd.DataFrame,
        spec: SweepSpec,
        experiment: Experiment,
        provenance: dict[str, Any],
        path: Path | str | None = None,
    ):
        self.records = records
        self.spec = spec
        self.experiment = experiment
        self.provenance = provenance
        self.path = path

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        return f"Result({self.experiment.name}: {len(self.records)} records, {len(self.curves())} curves, {where})"

    @functools.cached_property
    def _curves(self) -> list[Curve]:
        experiment, records = self.experiment, self.records
        if records.empty:
            return []
        names = [name for name in experiment.arguments.model_fields if name != experiment.x]
        varying = [name for name in names if name != experiment.curve and _varies(records[name])]
        metrics = [name for name in (*experiment.y, *self._references()) if name in records]
        curves = []
        # An experiment without other arguments than x has one curve.
        for _, rows in records.groupby(names, dropna=False, sort=False) if names else [((), records)]:
            arguments = {name: _plain(rows[name].iloc[0]) for name in names}
            name = experiment.name if experiment.curve is None else str(arguments[experiment.curve])
            extra = ", ".join(
                f"{key}={arguments[key]:.4g}" if isinstance(arguments[key], float) else f"{key}={arguments[key]}"
                for key in varying
            )
            title = experiment.labels.get(name, name)
            tables = {m: rows.pivot_table(index=experiment.x, columns="seed", values=m, dropna=False) for m in metrics}
            first = tables[metrics[0]]
            x = first.index.to_numpy(float)
            failed = _failed_cells(rows, experiment.y[0])
            theory = Theory() if experiment.theory is None else experiment.theory({**arguments, experiment.x: None}, x)
            curves.append(
                Curve(
                    name=name,
                    label=f"{title} ({extra})" if extra else title,
                    arguments=arguments,
                    x=x,
                    seeds=first.columns.to_numpy(int),
                    values={m: table.to_numpy(float) for m, table in tables.items()},
                    failed=failed,
                    theory=theory,
                )
            )
        return curves

    def curves(self) -> list[Curve]:
        """All curves, in the order of the grid."""
        return self._curves

    def _references(self) -> list[str]:
        """Columns that expectations compare with."""
        parts = [expectation.parts for expectation in self.spec.expect]
        names = {name for part in parts for name in (part["metric"], part["other"]) if name is not None}
        return sorted(name for name in names if name in self.records and name not in self.experiment.y)

    def rate(self, curve: Curve, metric: str | None = None) -> Rate:
        """The power law fitted to a curve; see `tsjax.fit_rate`."""
        table = curve.values[self.experiment.y[0] if metric is None else metric]
        enough = ~np.isnan(table).all(axis=1)
        return fit_rate(curve.x[enough], table[enough])

    def rates(self) -> pd.DataFrame:
        """One row per curve: exponent, interval, predicted exponent over the same window (same weights), the asymptotic
        one, the verdict on its rate if the sweep expects one, and a list of warnings. A curve that cannot be fitted has NaN
        and the reason among its warnings."""
        rows = []
        for curve in self.curves():
            row: dict[str, Any] = {"curve": curve.name, "label": curve.label}
            rate, problem = None, None
            try:
                rate = self.rate(curve)
                row |= {"exponent": rate.exponent, "low": rate.interval[0], "high": rate.interval[1]}
            except ValueError as error:
                problem = error
                row |= {"exponent": np.nan, "low": np.nan, "high": np.nan}
            predicted = curve.theory.predicted
            row["predicted"] = np.nan
            if rate is not None and predicted is not None and len(rate.n) == len(predicted) and _positive(predicted):
                row["predicted"] = rate.slope_of(predicted)
            row["asymptote"] = np.nan if curve.theory.exponent is None else curve.theory.exponent
            row |= {"x_min": curve.x[0], "x_max": curve.x[-1], "seeds": len(curve.seeds), "failed": curve.failed}
            mine = [
                self._verdict(expectation, [curve]).outcome
                for expectation in self.spec.expect
                if expectation.parts["metric"] == "rate"
                and curve in self._chosen(expectation, expectation.parts["curve"])
            ]
            row["verdict"] = ", ".join(mine)
            row["warnings"] = list(rate.warnings) if rate is not None else [str(problem)]
            rows.append(row)
        return pd.DataFrame(rows)

    def _chosen(self, expectation: Expectation, name: str | None) -> list[Curve]:
        return [
            curve
            for curve in self.curves()
            if (name is None or curve.name == name or (name == "*" and self._is_meant(expectation, curve)))
            and all(curve.arguments.get(key) == value for key, value in expectation.where.items())
        ]

    def _is_meant(self, expectation: Expectation, curve: Curve) -> bool:
        other = expectation.parts["other"]
        predicted = other != "predicted" or curve.theory.predicted is not None
        return predicted and curve.name != other and curve.name not in expectation.excluding

    def _one(self, expectation: Expectation, name: str | None) -> Curve:
        found = self._chosen(expectation, name)
        if len(found) == 1:
            return found[0]
        if not found:
            raise _Unmeasured(f"no records of {name} yet")
        raise _Unmeasured(f"{len(found)} curves are called {name}; pick one by where = {{...}}")

    def verdicts(self) -> list[Verdict]:
        """One verdict for each `[[expect]]` of the spec, in order: holds, fails or undecided, with the numbers."""
        return [self._verdict(expectation) for expectation in self.spec.expect]

    def _verdict(self, expectation: Expectation, curves: list[Curve] | None = None) -> Verdict:
        what = expectation.what
        if expectation.where:
            what += " at " + ", ".join(f"{key}={value}" for key, value in expectation.where.items())
        try:
            curves = self._meant(expectation) if curves is None else curves
            # A claim about all curves, or about a window, holds where it is hardest: the interval that is furthest out.
            measured = [self._measure(expectation, curve) for curve in curves]
            found, value, interval, doubt = max(measured, key=lambda m: _excess(expectation, m[2]))
        except (_Unmeasured, ValueError) as error:
            nan = float("nan")
            verdict = judge(what, nan, (nan, nan), expectation.allowed, expectation.source)
            return dataclasses.replace(verdict, outcome="undecided", reason=str(error))
        verdict = judge(f"{what}{found}", value, interval, expectation.allowed, expectation.source)
        if doubt and verdict.outcome == "holds":
            verdict = dataclasses.replace(verdict, outcome="undecided", reason=f"{verdict.reason}, but {doubt}")
        return verdict

    def _meant(self, expectation: Expectation) -> list[Curve]:
        name = expectation.parts["curve"]
        if name != "*":
            return [self._one(expectation, name)]
        curves = self._chosen(expectation, name)
        if not curves:
            raise _Unmeasured("no records of any such curve yet")
        return curves

    def _measure(self, expectation: Expectation, curve: Curve) -> tuple[str, float, tuple[float, float], str]:
        """Where, the value, its interval, and what forbids to trust a verdict that holds: failed students are left out of
        means, and extreme ones out of the weights of a fit, so either flatters its curve."""
        parts, axis = expectation.parts, self.experiment.x
        window = expectation.over.get(axis, [-np.inf, np.inf])
        low, high = window if isinstance(window, list) else (window, window)
        curve = curve.between(low, high)
        hardest = f", {curve.name}" if parts["curve"] == "*" else ""
        if not len(curve.x):
            raise _Unmeasured(f"no records with {axis} in [{low:g}, {high:g}]")
        doubt = f"{_plural_cells(curve.failed)} of {curve.name} failed" if curve.failed else ""
        if parts["metric"] == "rate":
            rate = self.rate(curve)
            shift = 0.0
            if parts["other"] == "predicted":
                if curve.theory.predicted is None:
                    raise _Unmeasured(f"theory predicts no curve for {curve.name}")
                shift = rate.slope_of(curve.theory.predicted)
            where = f" over {axis} = {rate.n[0]:g}..{rate.n[-1]:g}{hardest}"
            if rate.heavy_tail:
                doubt = f"a few extreme seeds carry the mean of {curve.name}"
            return where, rate.exponent - shift, (rate.interval[0] - shift, rate.interval[1] - shift), doubt
        candidates = [(x, self._ratio_at(expectation, curve, float(x))) for x in curve.x]
        x, worst = max(candidates, key=lambda c: _excess(expectation, c[1].interval))
        return f" at {axis} = {x:g}{hardest}", worst.value, worst.interval, doubt

    def _ratio_at(self, expectation: Expectation, curve: Curve, x: float) -> Estimate:
        metric, other = expectation.parts["metric"], expectation.parts["other"]
        if metric not in curve.values:
            raise _Unmeasured(f"{metric!r} is not recorded.{nearest(str(metric), list(self.records.columns))}")
        mine = _at(curve, str(metric), x)
        if other is None:
            return share(mine) if is_binary(mine) else mean_ratio(mine, 1.0)
        if other == "predicted":
            if curve.theory.predicted is None:
                raise _Unmeasured(f"theory predicts no curve for {curve.name}")
            return mean_ratio(mine, float(curve.theory.predicted[int(np.flatnonzero(curve.x == x)[0])]))
        if other in curve.values:
            return mean_ratio(mine, _at(curve, other, x))
        rival = self._one(expectation, other)
        if x not in rival.x:
            raise _Unmeasured(f"{other} has no records at {self.experiment.x} = {x:g}")
        theirs = _at(rival, str(metric), x)
        # Paired by seed: the seeds that both have.
        common, i, j = np.intersect1d(curve.seeds, rival.seeds, return_indices=True)
        if not len(common):
            raise _Unmeasured(f"{curve.name} and {other} have no seed in common")
        return mean_ratio(mine[i], theirs[j])

    def to_xarray(self) -> "xarray.Dataset":
        """The records as a Dataset over the arguments that vary, x and the seed; constant arguments are attributes."""
        import xarray

        del xarray
        experiment, records = self.experiment, self.records
        names = list(experiment.arguments.model_fields)
        varying = [name for name in names if _varies(records[name])]
        dims = list(dict.fromkeys([*varying, experiment.x, "seed"]))
        constant = {name: records[name].iloc[0] for name in names if name not in dims}
        numeric = records.drop(columns=[*constant, "cell", "device", "jax", "tsjax"], errors="ignore")
        dataset = numeric.set_index(dims).to_xarray()
        dataset.attrs = {"claim": self.spec.claim, "study": self.spec.study} | {
            name: _plain(value) for name, value in constant.items() if value is not None
        }
        return dataset

    def report(self, out: str | Path | None = None) -> Path:
        """Writes figures (PNG, PDF) and the HTML page into `out` (the store by default); returns the page's path."""
        from ..report import write_report

        folder = self.path if out is None else Path(out)
        if not isinstance(folder, Path):
            kept = "in memory" if folder is None else f"at {folder}"
            raise ValueError(f"this sweep was kept {kept}: say where to write, result.report('some/folder').")
        return write_report(self, folder)


class _Unmeasured(Exception):
    """An expectation about something that the records do not hold (yet)."""


def _plural_cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _excess(expectation: Expectation, interval: tuple[float, float]) -> float:
    """How far an interval reaches out of what is allowed; negative inside of it."""
    low, high = expectation.allowed
    return max(interval[1] - high, low - interval[0])


def _positive(values: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(values) & (values > 0)))


def _varies(column: Any) -> bool:
    return len(column.drop_duplicates()) > 1


def _at(curve: Curve, metric: str, x: float) -> np.ndarray:
    return curve.values[metric][int(np.flatnonzero(curve.x == x)[0])]


def load(path: str | Path, experiment: Experiment | None = None) -> Result:
    """The result of a sweep from its store.

    `experiment` is needed only where the store's study cannot be imported, as when it was defined in a script.

    **Raises:** StoreError when there is no readable store; SpecError when the study cannot be found.
    """
    store = open_store(path)
    return result_of(store, store.spec, experiment)


def result_of(store: Store, spec: SweepSpec, experiment: Experiment | None = None, plan: Plan | None = None) -> Result:
    """The result of what a store holds. `plan` is that of the spec, where it has been made."""
    if experiment is None:
        try:
            experiment = find_experiment(spec.study)
        except SpecError as error:
            raise SpecError(f"{store.path}: {error} Load it from Python: ts.load(path, experiment).") from None
    records = _in_grid_order(store.read(), make_plan(spec, experiment) if plan is None else plan)
    return Result(records, spec, experiment, store.provenance, store.path)


def _in_grid_order(records: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Records in the order of the grid, whichever chunk was written when; one row per cell (and vector entry), NaN in
    every y of a cell that failed."""
    if records.empty:
        return records
    experiment = plan.experiment
    order = pd.Index([cell.id for group in plan.groups for cell in group.cells])
    # Cells of an earlier, larger grid come last.
    position = order.get_indexer(pd.Index(records["cell"]))
    position = np.where(position < 0, len(order), position)
    by = pd.DataFrame(
        {"position": position, "cell": records["cell"].to_numpy(), "along": records[experiment.x].to_numpy()}
    )
    records = records.iloc[by.sort_values(["position", "cell", "along"]).index]
    # Two processes may have run the same cell; its records agree, one is enough.
    vector = experiment.x not in experiment.arguments.model_fields
    records = records.drop_duplicates(["cell", experiment.x] if vector else ["cell"], ignore_index=True)
    values = [name for name in experiment.y if name in records]
    spoilt = ~np.isfinite(records[values].to_numpy(float))
    if "status" in records:
        spoilt |= records["status"].isin(FAILED).to_numpy()[:, None]
    records[values] = records[values].mask(spoilt)
    return records


def _failed_cells(rows: pd.DataFrame, metric: str) -> int:
    """Number of cells without a value of `metric`: those that diverged or were singular, or returned no finite number."""
    return len(set(rows["cell"].to_numpy()[np.isnan(rows[metric].to_numpy(float))]))


def merge_records(parts: Sequence[pd.DataFrame], plan: Plan) -> pd.DataFrame:
    """Records of a sweep kept in memory, as a store would give them."""
    return _in_grid_order(pd.concat(parts, ignore_index=True), plan) if parts else pd.DataFrame()
