"""What a sweep gives back: records, curves, rates and verdicts."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from ..hints import nearest
from ..rates import Estimate, Rate, Surface, Verdict, choose_model, diagnose, fit_rate, holm
from ..rates.kinds import Kind
from .arrays import split, stacked
from .asked import Source, Unmeasured
from .columns import holds_truth, plain
from .coverage import Coverage
from .curve import Curve
from .curves import curves_along
from .description import Description
from .experiment import Experiment
from .looks import Looks, read_looks, write_looks
from .measure import Measure
from .metrics import TIMES, kind_in, no_measurement, no_risk
from .plan import Plan
from .program import key_of, seed_of
from .spec import Expectation, SpecError, SweepSpec
from .surface import surface_of
from .theory import Theory, TheoryTable
from .values import canonical, redacted
from .verdicts import Judged, judged

if TYPE_CHECKING:
    import jax
    import xarray


class CellCall(NamedTuple):
    """What `Result.cell` gives: the experiment called as `experiment(key, **arguments)` returns the record's values."""

    key: "jax.Array | int"
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
        self.spec = spec
        self.experiment = experiment.description if isinstance(experiment, Experiment) else experiment
        self.records, self._arrays = split(records, self.experiment)
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
        self._parts: dict[int, Measure] = {}
        self._looks = read_looks(path)
        self._others: dict[tuple[str, tuple[str, ...]], list[Curve]] = {}

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
        """The curves along x, and the rows of each one in the records."""
        metrics = [name for name in (*self.experiment.y, *self._references()) if name in self.records]
        return curves_along(self.records, self.experiment, self.experiment.x, metrics, self._theory)

    def along(self, axis: str, metrics: Sequence[str] = ()) -> list[Curve]:
        """The curves along an argument, or along x, in the order of the grid: the cells that differ in it and the seed alone,
        with tables of some recorded values, the experiment's y among them.

        **Raises:** ValueError for an axis that is no number."""
        wanted = [name for name in (*self.experiment.y, *metrics) if name in self.records]
        if axis == self.experiment.x and all(name in self._curves[0][0].values for name in wanted if self._curves):
            return self.curves()
        key = (axis, tuple(dict.fromkeys(wanted)))
        if key not in self._others:
            found = curves_along(self.records, self.experiment, axis, key[1], self._theory)
            self._others[key] = [curve for curve, _ in found]
        return self._others[key]

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

        Of a black box the key is the integer that its function got, and no flag matters.

        >>> key, arguments = result.cell(17)  # doctest: +SKIP
        """
        record = self.records.iloc[row]
        arguments = {name: plain(record[name]) for name in self.experiment.names}
        if self.plan is not None and record["cell"] in self._places:
            # A column of 1 and 2.5 holds 1.0, and the plan what was asked for.
            arguments = dict(self.plan.combinations[self._places[record["cell"]]].arguments)
        make = seed_of if self.experiment.black_box else key_of
        key = make(self.spec.key, int(record["seed"]), arguments, self.experiment.independent)
        return CellCall(key, arguments)

    def curves(self) -> list[Curve]:
        """All curves, in the order of the grid."""
        return [curve for curve, _ in self._curves]

    def _references(self) -> list[str]:
        """Columns that expectations compare with."""
        phrases = [expectation.phrase for expectation in self.spec.expect]
        names = {name for phrase in phrases for name in (phrase.metric, phrase.other) if name is not None}
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

    @functools.cached_property
    def asked_surface(self) -> Surface | None:
        """The surface that the table `[surface]` of the sweep asks for; None without one. Raises ValueError as `surface`, such
        as while records are missing."""
        asked = self.spec.surface
        return None if asked is None else self.surface(asked.n, asked.d, at=asked.at, **asked.options)

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

    def kind(self, metric: str) -> Kind:
        """The kind of a recorded value: as the experiment declares it, else an indicator for truth values, else positive."""
        return kind_in(self.experiment, metric, self.is_share(metric))

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
        """The part of a curve that its exponent is about: the window of the first expectation of its rate that has one, else
        all of it."""
        for expectation in self._claims(curve):
            window = expectation.over.get(self.experiment.x)
            if expectation.phrase.form == "rate" and isinstance(window, list):
                part = curve.between(*window)
                return part if len(part.x) else curve
        return curve

    def claims_power_law(self, curve: Curve) -> bool:
        """Whether some expectation speaks of the exponent of a curve, or of a model or a forecast, which rest on one."""
        return bool(self._claims(curve))

    def _claims(self, curve: Curve) -> list[Expectation]:
        found = []
        for expectation in self.spec.expect:
            phrase = expectation.phrase
            if phrase.form in ("rate", "model", "forecast", "exponent") and phrase.metric in (
                None,
                self.experiment.y[0],
            ):
                names = [phrase.curve, *([phrase.other] if phrase.other else [])]
                meant = [one.arguments for name in names for one in self._measure.curves(expectation, name)]
                if curve.arguments in meant:
                    found.append(expectation)
        return found

    def _outcomes(self, curve: Curve, model: str) -> list[str]:
        """The verdicts on exactly the exponent of a row of rates: with its window, model and interval."""
        found = []
        for expectation in self.spec.expect:
            phrase = expectation.phrase
            direct = phrase.form == "rate" and not phrase.operator and expectation.level == 0.95
            if not direct or (expectation.model or "power") != model:
                continue
            meant = self._measure.curves(expectation, phrase.curve)
            if phrase.metric in (None, self.experiment.y[0]) and curve.arguments in [one.arguments for one in meant]:
                # Of `*` this curve alone.
                alone = expectation.model_copy(update={"where": {**expectation.where, **curve.arguments}})
                found_here = judged(alone, self._measure)
                # Where nothing could be measured, the window is not known, and the outcome is undecided for any window.
                if found_here.curve is None or np.array_equal(found_here.curve.x, curve.x):
                    found.append(str(found_here.verdict.outcome))
        return found

    def estimate(self, phrase: str, *, level: float = 0.95, **options: Any) -> Estimate:
        """The number that a phrase speaks of, with its interval: any claim of `[[expect]]` (`tsjax.sweep.phrase.FORMS`) without
        bounds.

        **Arguments:** `options` are keys of an expectation: `where`, `over`, `than`, `excluding`, `model`, `floor`. Of several
        curves or x that are meant there is one estimate only: name one by `where` and `over`, or `at AXIS = VALUE`.

        **Raises:** SpecError for another phrase or option; ValueError where nothing can be measured, or for several numbers.

        >>> result.estimate("risk of student relative to ntk at n = 1024")  # doctest: +SKIP
        """
        bound = {} if phrase.split(" ")[0] == "model" else {"at_most": 0.0}
        try:
            expectation = Expectation.model_validate({"what": phrase, **bound, **options})
            found = self._measure(expectation, level)
        except ValidationError as error:
            raise SpecError(f"{phrase!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        except Unmeasured as error:
            raise ValueError(f"{phrase!r}: {error}") from None
        if len(found) > 1:
            raise ValueError(
                f"{phrase!r} is about {len(found)} numbers: name one {self.experiment.x} by 'at {self.experiment.x} = ...', "
                "and one curve by where = {...}."
            )
        (one,) = found
        warnings = tuple(filter(None, (one.doubt, one.note)))
        return Estimate(one.value, one.interval, level, warnings, one.scale)

    @functools.cached_property
    def _measure(self) -> Measure:
        return Measure(Source(self.along, self.experiment, list(self.records.columns), self.is_share))

    def reads(self, expectation: Expectation) -> list[Curve]:
        """The parts of curves on which the number of an expectation is measured, along its axis.

        **Raises:** ValueError where the records do not have them."""
        try:
            return self._measure.reads(expectation)
        except Unmeasured as error:
            raise ValueError(f"{expectation.what!r}: {error}") from None

    def verdicts(self, corrected: bool = False) -> list[Verdict]:
        """One verdict for each `[[expect]]` of the spec, in order: holds, fails or undecided, with the numbers.

        `corrected` allows for their number by Holm's procedure (`tsjax.holm`): needed for "one of them fails", or for one that
        was picked out because it holds, and not for "all of them hold".
        """
        return [judged.verdict for judged in self.judged(corrected)]

    @property
    def seeds(self) -> int:
        """The most seeds of any curve; 0 without records."""
        return max((len(curve.seeds) for curve in self.curves()), default=0)

    @property
    def looks(self) -> Looks:
        """When the verdicts were looked at, as the store remembers it."""
        return self._looks

    def look(self, looks: Looks | None = None) -> None:
        """Notes that the verdicts are looked at now, in the store too; or takes over looks that were noted."""
        if looks is None:
            # What a plan has judged is looked at again on the seeds of its last look.
            new = [one for one in self.spec.expect if self._looks.seeds_of(one, self.seeds) == self.seeds]
            looks = self._looks.adding(new, self.seeds) if self.seeds else self._looks
            if looks is not self._looks:
                write_looks(self.path, looks)
        self._looks = looks
        self.__dict__.pop("_judged", None)

    def _measure_of(self, seeds: int) -> Measure:
        """What is measured on the first seeds alone, which are numbered from 0."""
        if seeds == self.seeds:
            return self._measure
        if seeds not in self._parts:
            rows = self.records.loc[self.records["seed"] < seeds]
            part = Result(rows, self.spec, self.experiment, self.provenance, theory=self._theory)
            self._parts[seeds] = part._measure
        return self._parts[seeds]

    def _judged_at(self, expectation: Expectation, level: float) -> Judged:
        """A verdict by the interval that holds with this probability, at every planned look."""
        if not self.seeds:
            return judged(expectation, self._measure)
        # Of a test at alpha the interval is that of 1 - 2 alpha.
        own = 1.0 - (1.0 - level) * (1.0 - expectation.level) / 0.05
        seeds = self._looks.seeds_of(expectation, self.seeds)
        found = judged(expectation, self._measure_of(seeds), self._looks.level(expectation, seeds, own))
        note = self._looks.note(expectation, seeds)
        reason = f"{found.verdict.reason}; {note}" if note else found.verdict.reason
        return found._replace(verdict=replace(found.verdict, reason=reason))

    def judged(self, corrected: bool = False) -> list[Judged]:
        """The verdicts with the expectations, and what each was measured on: see `Judged`."""
        if not corrected or not self._judged:
            return list(self._judged)
        claim = lambda expectation: lambda alpha: self._judged_at(expectation, 1.0 - alpha).verdict
        found = holm({str(i): claim(one.expectation) for i, one in enumerate(self._judged)}).values()
        return [one._replace(verdict=verdict) for one, verdict in zip(self._judged, found, strict=True)]

    @functools.cached_property
    def _judged(self) -> list[Judged]:
        return [self._judged_at(expectation, 0.95) for expectation in self.spec.expect]

    def to_xarray(self) -> "xarray.Dataset":
        """The records as a Dataset over the arguments that vary, x and the seed; constant arguments are attributes.

        Axes of numbers, or of truth values, keep them as coordinates; others (words, lists, None beside numbers) have texts,
        as curves are labelled. Where a returned x has equal values within a cell, its axis is the place in the vector, `entry`.
        """
        from .cube import cube_of

        return cube_of(self.records, self.experiment, self.spec)

    def arrays(self, name: str, curve: Curve | None = None) -> "xarray.DataArray":
        """An array that cells return (`@experiment(arrays={name: axes})`), of all cells, or of those of a curve or a part of
        one: of dimensions ("cell", *axes), with the arguments that vary and the seed as coordinates of its cells.

        **Raises:** ValueError for a name that the experiment does not declare, or where cells have arrays of different shapes.
        """
        rows = self.records if curve is None else self.rows(curve)
        if curve is not None and not self.experiment.returns_x:
            rows = rows.iloc[np.flatnonzero(np.isin(rows[self.experiment.x].to_numpy(float), curve.x))]
        return stacked(self._arrays, rows, self.experiment, name)

    def report(self, out: str | Path | None = None, style: str = "page") -> Path:
        """Writes figures (PNG, PDF, SVG; as wide as a `column` or a `page` of text) and the HTML page into `out` (the store by
        default); returns the page's path."""
        from ..report import write_report

        folder = self.path if out is None else Path(out).expanduser()
        if not isinstance(folder, Path):
            kept = "in memory" if folder is None else f"at {redacted(str(folder))}"
            raise ValueError(f"this sweep was kept {kept}: say where to write, result.report('some/folder').")
        return write_report(self, folder, style)

    def show(self, height: int = 900) -> None:
        """Shows the page in a notebook, so many pixels high; elsewhere prints tables of rates and verdicts."""
        from ..report import show_result

        show_result(self, height)

    def plot(self, y: str | None = None, style: str = "column", axes: np.ndarray | None = None) -> np.ndarray:
        """Draws `y` (the experiment's first, by default) against x, with 95 % intervals, fitted exponents and theory, for a
        paper: as wide as a `column` or a `page` of text, in colours that everyone can distinguish, also in grey.

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
