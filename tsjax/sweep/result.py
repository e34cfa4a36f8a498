"""The result of a sweep: records, curves, rates and verdicts."""

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
from ..rates.diagnostics import ALIKE
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
from .metrics import KEY_UNUSED, TIMES, kind_in, no_measurement, no_risk
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
    """The key and the arguments of a cell: `experiment(key, **arguments)` returns the values of its record."""

    key: "jax.Array | int"
    arguments: dict[str, Any]


class Result:
    """The records of a sweep, and the curves, rates and verdicts that follow from them.

    - `records`: a tidy DataFrame with one row per cell (or, if cells return vectors, per entry): arguments, seed, returned
      values, status, timings and versions.
    - `spec`: the sweep that was asked for. `experiment`: its experiment, without its code (`Description`).
    - `coverage`: how much of the plan the records cover, which chunks are damaged, and what else to know about their origin.
    - `provenance`: versions and devices. `path`: the store (a directory or URL), or None. `plan`: all cells that were asked
      for.
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
        self._tables: dict[str, pd.DataFrame] = {}
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
        """The curves along x, each with its rows in the records."""
        metrics = [name for name in (*self.experiment.y, *self._references()) if name in self.records]
        return curves_along(self.records, self.experiment, self.experiment.x, metrics, self._theory)

    def along(self, axis: str, metrics: Sequence[str] = ()) -> list[Curve]:
        """The curves along an axis (an argument or x), in the order of the grid: the cells of a curve differ only in this axis
        and the seed. They have tables of the experiment's y and of other recorded values, `metrics`.

        **Raises:** ValueError for an axis that is not a number."""
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
        """The number of the combination of every cell of the plan, by the id of the cell."""
        if self.plan is None:
            return {}
        counts = [len(seeds) for _, seeds in self.plan.combinations]
        return dict(zip(self.plan.ids, np.repeat(np.arange(len(counts)), counts).tolist(), strict=True))

    def cell(self, row: int) -> CellCall:
        """The key and the arguments of a record, given by its place in `records`, to run its cell again by hand:
        `experiment(key, **arguments)` returns its values, with 64-bit types on (`jax.enable_x64(True)`) unless the experiment
        says x64=False.

        For a black box the key is the integer that its function got, and no flag matters.

        >>> key, arguments = result.cell(17)  # doctest: +SKIP
        """
        record = self.records.iloc[row]
        arguments = {name: plain(record[name]) for name in self.experiment.names}
        if self.plan is not None and record["cell"] in self._places:
            # A column that holds 1 and 2.5 turns 1 into 1.0; the plan has the values that were asked for.
            arguments = dict(self.plan.combinations[self._places[record["cell"]]].arguments)
        make = seed_of if self.experiment.black_box else key_of
        key = make(self.spec.key, int(record["seed"]), arguments, self.experiment.independent)
        return CellCall(key, arguments)

    def curves(self) -> list[Curve]:
        """All curves, in the order of the grid."""
        return [curve for curve, _ in self._curves]

    def _references(self) -> list[str]:
        """The recorded columns, apart from y, that expectations mention."""
        phrases = [expectation.phrase for expectation in self.spec.expect]
        names = {name for phrase in phrases for name in (phrase.metric, phrase.other) if name is not None}
        return sorted(name for name in names if name in self.records and name not in self.experiment.y)

    def rate(self, curve: Curve, metric: str | None = None, model: str = "power") -> Rate:
        """A model fitted to a curve, by default a power law (`tsjax.fit_rate`); `auto` chooses the model by AICc
        (`tsjax.choose_model`). `metric` is one of the experiment's y, by default the first.

        **Raises:** ValueError for a curve that cannot be fitted, and for another metric, such as `run_seconds`."""
        metric = self.experiment.y[0] if metric is None else metric
        if metric in TIMES:
            raise ValueError(no_measurement(metric))
        if metric not in curve.values:
            raise ValueError(
                f"{metric!r} is not among the y of {self.experiment.name}.{nearest(metric, list(curve.values))}"
            )
        # Kept, since tables, figures and warnings ask for the same fits.
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
        """The fit of E + A/n^a + B/d^b over two numeric arguments of the sweep, with other arguments that vary fixed by `at`.
        `tsjax.fit_surface` explains it and its `options`. `metric` is one of the experiment's y, by default the first.

        **Raises:** ValueError for wrong names, arguments that still vary, and as `fit_surface`.

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
        """The surface that the table `[surface]` of the sweep asks for, or None. **Raises:** ValueError as `surface` does, for
        example while records are missing."""
        asked = self.spec.surface
        return None if asked is None else self.surface(asked.n, asked.d, at=asked.at, **asked.options)

    def warnings(self, curve: Curve, model: str = "power") -> list[str]:
        """What to know before trusting the exponent of a curve (`tsjax.diagnose`), or why it has no exponent."""
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
        if ALIKE in found and not self.experiment.black_box:
            found = (*found, KEY_UNUSED)
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
        """A table with one row per curve; `model` as in `rate`. The columns are

        - `curve`, `label`: the name of the curve, and its label with the other arguments that vary.
        - `exponent`, `low`, `high`: the exponent and its 95 % interval, NaN if the curve cannot be fitted.
        - `model`; `errors`: what the interval rests on (`seeds` or `residuals`, as in `Rate`); `identified`: whether the data
          determine the exponent.
        - `predicted`: the exponent of the predicted curve over the same window with the same weights. `asymptote`: the
          asymptotic exponent.
        - `x_min`, `x_max`: the window: that of the sweep's first expectation about the rate of the curve, else all x.
        - `seeds`, `failed`: the number of seeds, and of cells that failed.
        - `verdict`: the outcome of the sweep's expectation about exactly this exponent, if it has one.
        - `warnings`: a list, which says why a curve cannot be fitted, too.
        """
        # Kept, since a report asks several times, and the warnings of a curve take a tenth of a second.
        if model not in self._tables:
            self._tables[model] = self._table_of_rates(model)
        return self._tables[model].copy()

    def _table_of_rates(self, model: str) -> pd.DataFrame:
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
        """The part of a curve that its exponent is about: the window of the first expectation about its rate that has a window,
        else the whole curve."""
        for expectation in self._claims(curve):
            window = expectation.over.get(self.experiment.x)
            if expectation.phrase.form == "rate" and isinstance(window, list):
                part = curve.between(*window)
                return part if len(part.x) else curve
        return curve

    def claims_power_law(self, curve: Curve) -> bool:
        """Whether some expectation is about the exponent of a curve, or about its model or forecast, which rest on a fit."""
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
        """The outcomes of the expectations about exactly the exponent in a row of `rates`: with the same window, model and
        level."""
        found = []
        for expectation in self.spec.expect:
            phrase = expectation.phrase
            direct = phrase.form == "rate" and not phrase.operator and expectation.level == 0.95
            if not direct or (expectation.model or "power") != model:
                continue
            meant = self._measure.curves(expectation, phrase.curve)
            if phrase.metric in (None, self.experiment.y[0]) and curve.arguments in [one.arguments for one in meant]:
                # If the expectation is about `*`, only this curve is judged.
                alone = expectation.model_copy(update={"where": {**expectation.where, **curve.arguments}})
                found_here = judged(alone, self._measure)
                # If nothing could be measured, the window is unknown, and the outcome is undecided for any window.
                if found_here.curve is None or np.array_equal(found_here.curve.x, curve.x):
                    found.append(str(found_here.verdict.outcome))
        return found

    def estimate(self, phrase: str, *, level: float = 0.95, **options: Any) -> Estimate:
        """The number that a phrase names, with its interval; phrases are those of `[[expect]]` (`tsjax.sweep.phrase.FORMS`).

        **Arguments:** `options` are keys of an expectation: `where`, `over`, `than`, `excluding`, `model`, `floor`. The phrase
        must name a single number: pick the curve by `where`, and x by `over` or by `at AXIS = VALUE` in the phrase.

        **Raises:** SpecError for a wrong phrase or option; ValueError if nothing can be measured, or for several numbers.

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
        """The parts of curves, along its axis, on which the number of an expectation is measured.

        **Raises:** ValueError if the records do not have them."""
        try:
            return self._measure.reads(expectation)
        except Unmeasured as error:
            raise ValueError(f"{expectation.what!r}: {error}") from None

    def verdicts(self, corrected: bool = False) -> list[Verdict]:
        """One verdict for each `[[expect]]` of the spec, in order: holds, fails or undecided, with its number.

        `corrected` allows for the number of verdicts by Holm's procedure (`tsjax.holm`). You need it for the statement that one
        of them fails, or for a verdict that you picked because it holds, but not for the statement that all of them hold.
        """
        return [judged.verdict for judged in self.judged(corrected)]

    @property
    def seeds(self) -> int:
        """The largest number of seeds of any curve; 0 without records."""
        return max((len(curve.seeds) for curve in self.curves()), default=0)

    @property
    def looks(self) -> Looks:
        """At how many seeds the verdicts were looked at, as the store remembers it."""
        return self._looks

    def look(self, looks: Looks | None = None) -> None:
        """Notes, in the store too, that the verdicts are looked at now; or takes over `looks` that were noted elsewhere."""
        if looks is None:
            # An expectation that was judged by a plan keeps the seeds of its last look: showing it again is not a new look.
            new = [one for one in self.spec.expect if self._looks.seeds_of(one, self.seeds) == self.seeds]
            looks = self._looks.adding(new, self.seeds) if self.seeds else self._looks
            if looks is not self._looks:
                write_looks(self.path, looks)
        self._looks = looks
        self.__dict__.pop("_judged", None)

    def _measure_of(self, seeds: int) -> Measure:
        """The measurements on only the first seeds, numbered from 0."""
        if seeds == self.seeds:
            return self._measure
        if seeds not in self._parts:
            rows = self.records.loc[self.records["seed"] < seeds]
            part = Result(rows, self.spec, self.experiment, self.provenance, theory=self._theory)
            self._parts[seeds] = part._measure
        return self._parts[seeds]

    def _judged_at(self, expectation: Expectation, level: float) -> Judged:
        """A verdict by the interval that holds with probability `level` at every planned look."""
        if not self.seeds:
            return judged(expectation, self._measure)
        # A test at level alpha uses the interval of level 1 - 2 alpha; the correction scales its error probability.
        own = 1.0 - (1.0 - level) * (1.0 - expectation.level) / 0.05
        seeds = self._looks.seeds_of(expectation, self.seeds)
        found = judged(expectation, self._measure_of(seeds), self._looks.level(expectation, seeds, own))
        note = self._looks.note(expectation, seeds)
        reason = f"{found.verdict.reason}; {note}" if note else found.verdict.reason
        return found._replace(verdict=replace(found.verdict, reason=reason))

    def judged(self, corrected: bool = False) -> list[Judged]:
        """The verdicts, each with its expectation and the part of a curve that it was measured on (`Judged`)."""
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

        Numbers and truth values are coordinates as they are. Other values (words, lists, None beside numbers) become texts, as
        in the labels of curves. If a returned x has equal values within a cell, its axis is `entry`, the place in the vector.
        """
        from .cube import cube_of

        return cube_of(self.records, self.experiment, self.spec)

    def arrays(self, name: str, curve: Curve | None = None) -> "xarray.DataArray":
        """An array that cells return (`@experiment(arrays={name: axes})`), for all cells or for those of a curve or of a part
        of it. It has the dimensions ("cell", *axes); the arguments that vary and the seed are coordinates of the cells.

        **Raises:** ValueError for a name that the experiment does not declare, and for arrays of different shapes.
        """
        rows = self.records if curve is None else self.rows(curve)
        if curve is not None and not self.experiment.returns_x:
            rows = rows.iloc[np.flatnonzero(np.isin(rows[self.experiment.x].to_numpy(float), curve.x))]
        return stacked(self._arrays, rows, self.experiment, name)

    def report(self, out: str | Path | None = None, style: str = "page") -> Path:
        """Writes the figures (PNG, PDF, SVG; as wide as a `column` or a `page` of text) and the HTML page into `out`, by
        default the store. Returns the path of the page. **Raises:** ValueError without `out` for records that are not in a
        directory."""
        from ..report import write_report

        folder = self.path if out is None else Path(out).expanduser()
        if not isinstance(folder, Path):
            kept = "in memory" if folder is None else f"at {redacted(str(folder))}"
            raise ValueError(f"this sweep was kept {kept}: name a folder to write to, result.report('some/folder').")
        return write_report(self, folder, style)

    def show(self, height: int = 900) -> None:
        """Shows the page in a notebook, `height` pixels high; elsewhere prints tables of rates and verdicts."""
        from ..report import show_result

        show_result(self, height)

    def plot(self, y: str | None = None, style: str = "column", axes: np.ndarray | None = None) -> np.ndarray:
        """Draws a figure for a paper: `y` (by default the experiment's first) against x, with 95 % intervals, fitted exponents
        and theory. It is as wide as a `column` or a `page` of text, in colours that are distinct to everyone, and in grey too.

        Returns the matplotlib axes (panels,), one for each combination of the other arguments that vary. Give `axes` (panels,)
        to draw into your own.

        **Raises:** ValueError if there are no records, or `y`, `style` or the number of axes is wrong.
        """
        from ..report import plot_result

        return plot_result(self, y, style, axes)

    def table(self, format: str = "markdown", model: str = "power") -> str:
        """The table of rates as `latex` (booktabs) or `markdown`, ready to paste; `model` as in `rate`.

        **Raises:** ValueError for another format, or if there are no records."""
        from ..report import publish_rates

        return publish_rates(self, format, model)


def _positive(values: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(values) & (values > 0)))
