"""What a sweep gives back: records, curves, rates and verdicts."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..rates import Rate, Surface, Verdict, choose_model, diagnose, fit_rate
from .columns import codes_of, compact, distinct, holds_truth, plain, tables_of
from .coverage import Coverage
from .curve import Curve
from .description import Description
from .errors import nearest
from .experiment import Experiment
from .metrics import TIMES, no_measurement, no_risk
from .named import no_imports
from .plan import Plan, plan_cells
from .program import key_of
from .records import failed_cells, records_of
from .spec import Expectation, SpecError, SweepSpec, find_experiment
from .store import Content, Store, StoreError, open_store
from .surface import surface_of
from .theory import Theory, TheoryTable
from .values import canonical, labels_of, name_of_value, redacted, text_of
from .verdicts import Judge, Judged

if TYPE_CHECKING:
    import jax
    import xarray


class CellCall(NamedTuple):
    """What `Result.cell` gives: the experiment called as `experiment(key, **arguments)` returns the record's values."""

    key: "jax.Array"
    arguments: dict[str, Any]


class Result:
    """The records of a sweep and what follows from them.

    - `records`: a tidy DataFrame, one row per cell and seed: arguments, seed, returned values, status, timings, versions.
    - `spec`, `experiment`: what was asked; of the experiment what can be said without its code (`Description`).
    - `coverage`: how much of the plan the records cover, which chunks are damaged, and what else to know of their origin.
    - `provenance`: versions and devices. `path`: the store (a directory or URL), or None. `plan`: all cells that were asked.
    """

    def __init__(
        self,
        records: pd.DataFrame,
        spec: SweepSpec,
        experiment: Experiment | Description,
        provenance: dict[str, Any],
        path: Path | str | None = None,
        *,
        plan: Plan | None = None,
        coverage: Coverage | None = None,
        theory: Callable[[Mapping[str, Any], np.ndarray], Theory] | None = None,
    ):
        self.records = records
        self.spec = spec
        self.experiment = experiment.description if isinstance(experiment, Experiment) else experiment
        self.provenance = provenance
        self.path = path
        self.plan = plan
        if coverage is None:
            cells = len(set(records["cell"])) if len(records) else 0
            coverage = Coverage(cells, cells)
        self.coverage = coverage
        if theory is None:
            theory = experiment.theory_at if isinstance(experiment, Experiment) else TheoryTable()
        self._theory = theory
        self._rates: dict[tuple[str, bytes, str, str], Rate] = {}
        self._shares: dict[str, bool] = {}

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else redacted(str(self.path))
        part = "" if self.coverage.whole else f", {self.coverage.sentence[:-1]}"
        return (
            f"Result({self.experiment.name}: {len(self.records)} records, {len(self.curves())} curves{part}, {where})"
        )

    def _repr_html_(self) -> str:
        from ..report import result_card

        return result_card(self)

    @functools.cached_property
    def _curves(self) -> list[tuple[Curve, np.ndarray]]:
        """The curves, and the rows of each one in the records."""
        experiment, records = self.experiment, self.records
        if records.empty:
            return []
        names = [name for name in experiment.names if name != experiment.x]
        codes = {name: codes_of(records[name]) for name in names}
        varying = [name for name in names if name != experiment.curve and codes[name].max() > 0]
        labels = {name: labels_of(distinct(records[name], codes[name])) for name in varying}
        metrics = [name for name in (*experiment.y, *self._references()) if name in records]
        which = np.zeros(len(records), np.int64)
        for name in names:
            which = compact(which * (int(codes[name].max()) + 1) + codes[name])
        curves = []
        order = np.argsort(which, kind="stable")
        # Cells of one curve lie together, in the order of the grid.
        for rows in np.split(order, np.flatnonzero(np.diff(which[order])) + 1):
            arguments = {name: plain(records[name].iloc[rows[0]]) for name in names}
            name = experiment.name if experiment.curve is None else name_of_value(arguments[experiment.curve])
            extra = ", ".join(f"{key}={labels[key][text_of(arguments[key])]}" for key in varying)
            title = experiment.labels.get(name, name)
            x, seeds, values = tables_of(records.iloc[rows], metrics, experiment)
            curve = Curve(
                name=name,
                label=f"{title} ({extra})" if extra else title,
                arguments=arguments,
                x=x,
                seeds=seeds,
                values=values,
                failed=failed_cells(records.iloc[rows], experiment.y[0]),
                theory=self._theory(arguments, x),
            )
            curves.append((curve, rows))
        return curves

    def rows(self, curve: Curve) -> pd.DataFrame:
        """The records of one curve."""
        for other, rows in self._curves:
            if other.arguments == curve.arguments:
                return self.records.iloc[rows]
        return self.records.iloc[:0]

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        """The combination of every cell of the plan."""
        if self.plan is None:
            return {}
        counts = [len(seeds) for _, seeds in self.plan.combinations]
        return dict(zip(self.plan.ids, np.repeat(np.arange(len(counts)), counts).tolist(), strict=True))

    def cell(self, row: int) -> CellCall:
        """The key and the arguments of a record, by its place in `records`, to run its cell again by hand: with 64-bit types
        on (`jax.enable_x64(True)`, unless the experiment says x64=False), `experiment(key, **arguments)` gives its values.

        >>> key, arguments = result.cell(17)  # doctest: +SKIP
        """
        record = self.records.iloc[row]
        arguments = {name: plain(record[name]) for name in self.experiment.names}
        if self.plan is not None and record["cell"] in self._places:
            # A column of 1 and 2.5 holds 1.0, and the plan what was asked for.
            arguments = dict(self.plan.combinations[self._places[record["cell"]]].arguments)
        key = key_of(self.spec.key, int(record["seed"]), arguments, self.experiment.independent)
        return CellCall(key, arguments)

    def curves(self) -> list[Curve]:
        """All curves, in the order of the grid."""
        return [curve for curve, _ in self._curves]

    def _references(self) -> list[str]:
        """Columns that expectations compare with."""
        parts = [expectation.parts for expectation in self.spec.expect]
        names = {name for part in parts for name in (part["metric"], part["other"]) if name is not None}
        return sorted(name for name in names if name in self.records and name not in self.experiment.y)

    def rate(self, curve: Curve, metric: str | None = None, model: str = "power") -> Rate:
        """A model fitted to a curve, by default a power law; see `tsjax.fit_rate`. `auto` chooses the model by AICc, see
        `tsjax.choose_model`. `metric` is one of the experiment's y, by default the first.

        Raises ValueError for a curve that cannot be fitted, and for a metric that is none of these, such as `run_seconds`."""
        metric = self.experiment.y[0] if metric is None else metric
        if metric in TIMES:
            raise ValueError(no_measurement(metric))
        if metric not in curve.values:
            raise ValueError(
                f"{metric!r} is not among the y of {self.experiment.name}.{nearest(metric, list(curve.values))}"
            )
        # Tables, figures and warnings ask for the same few.
        name = (canonical(curve.arguments), curve.x.tobytes(), metric, model)
        if name not in self._rates:
            kept = curve.measured(metric)
            table = kept.values[metric]
            self._rates[name] = (
                choose_model(kept.x, table).rate if model == "auto" else fit_rate(kept.x, table, model=model)
            )
        return self._rates[name]

    def surface(
        self, n: str, d: str, metric: str | None = None, *, at: Mapping[str, Any] | None = None, **options
    ) -> Surface:
        """E + A/n^a + B/d^b fitted over two numeric arguments of the sweep, at the values `at` of the others that vary; see
        `tsjax.fit_surface`, also for the `options`. `metric` is one of the experiment's y, by default the first.

        Raises ValueError for wrong names, arguments that still vary, and as `fit_surface`.

        >>> result.surface("width", "n", at={"learner": "student"}).frontier(cost=6.0)  # doctest: +SKIP
        """
        metric = self.experiment.y[0] if metric is None else metric
        if metric not in self.experiment.y:
            raise ValueError(
                f"{metric!r} is not among the y of {self.experiment.name}.{nearest(metric, list(self.experiment.y))}"
            )
        return surface_of(self.curves(), self.experiment.x, metric, n, d, at or {}, options)

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
        found = diagnose(
            rate, predicted=theory.predicted if sound else None, asymptote=theory.exponent if sound else None
        )
        doubt = no_risk(curve, self.experiment)
        return [doubt, *found] if doubt else list(found)

    def is_share(self, column: str) -> bool:
        """Whether a recorded column holds truth values, or integers that are all 0 or 1, whose mean is a share of seeds."""
        # Kept, since verdicts ask at every x of every curve.
        if column not in self._shares:
            self._shares[column] = column not in self.experiment.names and holds_truth(self.records, column)
        return self._shares[column]

    def rates(self, model: str = "power") -> pd.DataFrame:
        """One row per curve: exponent over x from `x_min` to `x_max` (the window that the sweep's first expectation of the
        curve's rate names, else all x), interval, the model, what the interval rests on (`errors`, as in `Rate`: `seeds` or
        `residuals`), whether the exponent is `identified`, predicted exponent over the same window (same weights), the
        asymptotic one, the verdict on this very exponent if the sweep expects one, and a list of warnings. A curve that cannot
        be fitted has NaN and the reason among its warnings. `model` as in `rate`."""
        rows = []
        for whole in self.curves():
            curve = self.claimed(whole)
            row: dict[str, Any] = {"curve": curve.name, "label": curve.label}
            rate, problem = None, None
            try:
                rate = self.rate(curve, model=model)
                row |= {"exponent": rate.exponent, "low": rate.interval[0], "high": rate.interval[1]}
            except ValueError as error:
                problem = error
                row |= {"exponent": np.nan, "low": np.nan, "high": np.nan}
            row["model"] = model if rate is None else rate.model.name
            row |= (
                {"errors": rate.errors, "identified": rate.identified} if rate else {"errors": "", "identified": False}
            )
            predicted = curve.theory.predicted
            row["predicted"] = np.nan
            if rate is not None and predicted is not None and len(rate.n) == len(predicted) and _positive(predicted):
                row["predicted"] = rate.slope_of(predicted)
            row["asymptote"] = np.nan if curve.theory.exponent is None else curve.theory.exponent
            row |= {"x_min": curve.x[0], "x_max": curve.x[-1], "seeds": len(curve.seeds), "failed": curve.failed}
            row["verdict"] = ", ".join(self._outcomes(curve, model))
            row["warnings"] = [str(problem)] if rate is None else self._warnings(curve, rate)
            rows.append(row)
        return pd.DataFrame(rows)

    def claimed(self, curve: Curve) -> Curve:
        """The part of a curve that its exponent is told of: the window of the first expectation of its rate that has one, else
        all of it."""
        for expectation in self._claims(curve):
            window = expectation.over.get(self.experiment.x)
            if expectation.parts["metric"] == "rate" and isinstance(window, list):
                part = curve.between(*window)
                return part if len(part.x) else curve
        return curve

    def claims_power_law(self, curve: Curve) -> bool:
        """Whether some expectation speaks of the exponent of a curve, or of a model or a forecast, which rest on one."""
        return bool(self._claims(curve))

    def _claims(self, curve: Curve) -> list[Expectation]:
        judge, found = self._judge, []
        for expectation in self.spec.expect:
            if expectation.parts["metric"] in ("rate", "model", "forecast"):
                named = [
                    expectation.parts["curve"],
                    *([expectation.parts["other"]] if expectation.parts["other"] else []),
                ]
                meant = [one.arguments for name in named for one in judge.chosen(expectation, name)]
                if curve.arguments in meant:
                    found.append(expectation)
        return found

    def _outcomes(self, curve: Curve, model: str) -> list[str]:
        """Of the verdicts on the very exponent that a row of rates holds: this window, this model, this interval."""
        judge, found = self._judge, []
        for expectation in self.spec.expect:
            parts = expectation.parts
            direct = parts["metric"] == "rate" and parts["other"] is None and expectation.level == 0.95
            [whole] = [one for one in self.curves() if one.arguments == curve.arguments]
            if (
                direct
                and (expectation.model or "power") == model
                and any(one is whole for one in judge.chosen(expectation, parts["curve"]))
            ):
                judged = judge.judged(expectation, [whole])
                # Where nothing could be measured, the window is not known, and the outcome is undecided whatever it is.
                if judged.curve is None or np.array_equal(judged.curve.x, curve.x):
                    found.append(str(judged.verdict.outcome))
        return found

    @property
    def _judge(self) -> Judge:
        return Judge(self.curves(), self.experiment, list(self.records.columns), self.is_share)

    def verdicts(self) -> list[Verdict]:
        """One verdict for each `[[expect]]` of the spec, in order: holds, fails or undecided, with the numbers."""
        return [judged.verdict for judged in self.judged()]

    def judged(self) -> list[Judged]:
        """The verdicts with the expectations, and what each was measured on: see `Judged`."""
        return list(self._judged)

    @functools.cached_property
    def _judged(self) -> list[Judged]:
        return [self._judge.judged(expectation) for expectation in self.spec.expect]

    def to_xarray(self) -> "xarray.Dataset":
        """The records as a Dataset over the arguments that vary, x and the seed; constant arguments are attributes.

        Axes of numbers, or of truth values, keep them as coordinates; others (words, lists, None beside numbers) have texts,
        as curves are labelled. Where a returned x has equal values within a cell, its axis is the place in the vector, `entry`.
        """
        import xarray

        del xarray
        experiment, records = self.experiment, self.records
        codes = {name: codes_of(records[name]) for name in experiment.names}
        varying = [name for name in experiment.names if codes[name].max() > 0]
        along = experiment.x
        frame = records.drop(columns=["cell", "device", "jax", "tsjax"], errors="ignore")
        if experiment.returns_x and records.duplicated(["cell", experiment.x]).any():
            along = "entry"
            frame = frame.assign(entry=records.groupby("cell", sort=False).cumcount())
        dims = list(dict.fromkeys([*varying, along, "seed"]))
        constant = {name: plain(records[name].iloc[0]) for name in experiment.names if name not in dims}
        orders = {}
        for name in varying:
            if frame[name].dtype == object:
                labels = labels_of(distinct(records[name], codes[name]))
                frame[name] = [labels[text_of(plain(value))] for value in records[name]]
            if not pd.api.types.is_numeric_dtype(frame[name].dtype):
                # Words have the order of the grid, not that of the alphabet.
                orders[name] = list(dict.fromkeys(frame[name]))
        # Numbers that some cells lack.
        for name in [name for name in frame if name not in dims and frame[name].dtype == object]:
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
        dataset = frame.drop(columns=list(constant)).set_index(dims).to_xarray().sel(orders)
        for name in TIMES:
            if name in dataset:
                dataset[name].attrs["comment"] = no_measurement(name)
        dataset.attrs = {"claim": self.spec.claim, "study": self.spec.study} | {
            name: value if isinstance(value, int | float | str) and not isinstance(value, bool) else text_of(value)
            for name, value in constant.items()
            if value is not None
        }
        return dataset

    def report(self, out: str | Path | None = None, style: str = "page") -> Path:
        """Writes figures (PNG, PDF, SVG; as wide as a `column` or a `page` of text) and the HTML page into `out` (the store by
        default); returns the page's path."""
        from ..report import write_report

        folder = self.path if out is None else Path(out).expanduser()
        if not isinstance(folder, Path):
            kept = "in memory" if folder is None else f"at {redacted(str(folder))}"
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


def _positive(values: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(values) & (values > 0)))


def load(path: str | Path, experiment: Experiment | None = None) -> Result:
    """The result of a sweep from its store. Only tsjax is imported and called, never code that the store names.

    `experiment` is needed only for stores of earlier versions whose study is not one that ships.

    **Raises:** StoreError when there is no readable store, or its records are not those of one sweep.
    """
    return result_of(open_store(path), experiment)


def result_of(store: Store, experiment: Experiment | None = None) -> Result:
    """The result of what a store holds."""
    content = content_of(store, experiment)
    records, coverage = records_of(store, content.plan, content.experiment)
    theory: Callable[[Mapping[str, Any], np.ndarray], Theory] = content.theory
    if store.is_old and isinstance(content.plan.experiment, Experiment):
        theory = content.plan.experiment.theory_at
    return Result(
        records,
        content.spec,
        content.experiment,
        content.provenance,
        store.path,
        plan=content.plan,
        coverage=coverage,
        theory=theory,
    )


def content_of(store: Store, experiment: Experiment | None = None) -> Content:
    """What a store says of its sweep. One of an earlier version does not describe its experiment: that must be one which
    ships, or be given. **Raises:** StoreError."""
    if not store.is_old:
        return store.content()
    spec = store.spec
    if experiment is None:
        if ":" in spec.study:
            raise StoreError(
                f"{store.name} was made by an earlier version of tsjax, and its study {spec.study!r} is not part of tsjax. "
                "Load it from Python: ts.load(path, experiment)."
            )
        experiment = find_experiment(spec.study)
    try:
        with no_imports():
            plan = plan_cells(spec, experiment)
    except SpecError as error:
        raise StoreError(f"{store.name} was made by an earlier version of tsjax, and cannot be read: {error}") from None
    return Content(spec, experiment.description, plan, TheoryTable(), store.provenance)
