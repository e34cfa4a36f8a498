"""What a sweep gives back: records, curves, rates and verdicts."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..estimators.base import Status
from ..rates import Rate, Verdict, choose_model, diagnose, fit_rate
from .curve import Curve
from .experiment import Experiment, Theory
from .plan import Plan, make_plan
from .spec import SpecError, SweepSpec, find_experiment
from .store import Store, open_store
from .verdicts import Judge

if TYPE_CHECKING:
    import xarray

# Statuses that count as failures in every table.
FAILED = (int(Status.DIVERGED), int(Status.SINGULAR), int(Status.OUT_OF_MEMORY))


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

    def _repr_html_(self) -> str:
        from ..report import result_card

        return result_card(self)

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

    def rate(self, curve: Curve, metric: str | None = None, model: str = "power") -> Rate:
        """A model fitted to a curve, by default a power law; see `tsjax.fit_rate`. `auto` chooses the model by AICc, see
        `tsjax.choose_model`."""
        metric = self.experiment.y[0] if metric is None else metric
        kept = curve.measured(metric)
        if model == "auto":
            return choose_model(kept.x, kept.values[metric]).rate
        return fit_rate(kept.x, kept.values[metric], model=model)

    def warnings(self, curve: Curve, model: str = "power") -> list[str]:
        """What to know before trusting the exponent of a curve; see `tsjax.diagnose`. The reason why it has none, if so."""
        try:
            rate = self.rate(curve, model=model)
        except ValueError as error:
            return [f"no exponent: {error}"]
        return self._warnings(curve, rate)

    def _warnings(self, curve: Curve, rate: Rate) -> list[str]:
        theory = curve.measured(self.experiment.y[0]).theory
        sound = theory.predicted is not None and _positive(theory.predicted)
        return list(
            diagnose(rate, predicted=theory.predicted if sound else None, asymptote=theory.exponent if sound else None)
        )

    def rates(self, model: str = "power") -> pd.DataFrame:
        """One row per curve: exponent, interval, the model, predicted exponent over the same window (same weights), the
        asymptotic one, the verdict on its rate if the sweep expects one, and a list of warnings. A curve that cannot be fitted
        has NaN and the reason among its warnings. `model` as in `rate`."""
        rows = []
        for curve in self.curves():
            row: dict[str, Any] = {"curve": curve.name, "label": curve.label}
            rate, problem = None, None
            try:
                rate = self.rate(curve, model=model)
                row |= {"exponent": rate.exponent, "low": rate.interval[0], "high": rate.interval[1]}
            except ValueError as error:
                problem = error
                row |= {"exponent": np.nan, "low": np.nan, "high": np.nan}
            row["model"] = model if rate is None else rate.model.name
            predicted = curve.theory.predicted
            row["predicted"] = np.nan
            if rate is not None and predicted is not None and len(rate.n) == len(predicted) and _positive(predicted):
                row["predicted"] = rate.slope_of(predicted)
            row["asymptote"] = np.nan if curve.theory.exponent is None else curve.theory.exponent
            row |= {"x_min": curve.x[0], "x_max": curve.x[-1], "seeds": len(curve.seeds), "failed": curve.failed}
            judge = self._judge
            mine = [
                judge.verdict(expectation, [curve]).outcome
                for expectation in self.spec.expect
                if expectation.parts["metric"] == "rate"
                and curve in judge.chosen(expectation, expectation.parts["curve"])
            ]
            row["verdict"] = ", ".join(mine)
            row["warnings"] = [str(problem)] if rate is None else self._warnings(curve, rate)
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def _judge(self) -> Judge:
        return Judge(self.curves(), self.experiment, list(self.records.columns))

    def verdicts(self) -> list[Verdict]:
        """One verdict for each `[[expect]]` of the spec, in order: holds, fails or undecided, with the numbers."""
        return [self._judge.verdict(expectation) for expectation in self.spec.expect]

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

    def report(self, out: str | Path | None = None, style: str = "page") -> Path:
        """Writes figures (PNG, PDF, SVG; as wide as a `column` or a `page` of text) and the HTML page into `out` (the store by
        default); returns the page's path."""
        from ..report import write_report

        folder = self.path if out is None else Path(out)
        if not isinstance(folder, Path):
            kept = "in memory" if folder is None else f"at {folder}"
            raise ValueError(f"this sweep was kept {kept}: say where to write, result.report('some/folder').")
        return write_report(self, folder, style)

    def plot(self, y: str | None = None, style: str = "column", axes: np.ndarray | None = None) -> np.ndarray:
        """Draws `y` (the experiment's first, by default) against x, with 95 % intervals, fitted exponents and theory, for a
        paper: as wide as a `column` or a `page` of text, in colours that everyone tells apart and that read in grey.

        Returns the matplotlib axes (panels,), one for each combination of the other arguments that vary; `axes` (panels,)
        draws into those. Raises ValueError when there are no records, or `y`, `style` or the number of axes is wrong.
        """
        from ..report import plot_result

        return plot_result(self, y, style, axes)

    def table(self, format: str = "markdown", model: str = "power") -> str:
        """The table of rates as `latex` (booktabs) or `markdown`, ready to paste; `model` as in `rate`.

        Raises ValueError for other formats, or when there are no records."""
        from ..report import publish_rates

        return publish_rates(self, format, model)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _positive(values: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(values) & (values > 0)))


def _varies(column: Any) -> bool:
    return len(column.drop_duplicates()) > 1


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
