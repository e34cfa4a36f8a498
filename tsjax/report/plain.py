"""Results and plans as plain JSON types, for `--json` and for scripts. Null stands for NaN and for infinity."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..rates import Estimate
from ..sweep.coverage import Coverage
from ..sweep.curve import Curve
from ..sweep.estimate import PlanEstimate
from ..sweep.result import Result
from ..sweep.seeds import CurvePlan
from .numbers import LastPoint, compute_seconds, counts_of, failed_of, last_point, warnings_of


def _plain(value: Any) -> Any:
    """A value in plain JSON types, since JSON has no NaN, no infinity and no NumPy types."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rates_json(result: Result, model: str = "power") -> list[dict[str, Any]]:
    """One object per curve, in the order of the grid:

    - `curve`, `label`, `arguments` (all but x).
    - `exponent`, `low`, `high`: y ~ x^{-exponent} with its 95 % interval; `model`: the one fitted (`auto`: chosen by AICc).
    - `errors`: the source of the interval, `seeds` or `residuals` (one seed at every x); `identified`: whether the data
      bound the exponent on both sides (if not, an open end of the interval is null).
    - `fit`: null without an exponent, otherwise `standard_error`, `delta_low`, `delta_high` and `bca_low`, `bca_high` (the
      other kinds of interval), `goodness`, `effective_seeds`, `parameters` (`value`, `low`, `high` each), and the curve: lists
      `x`, `mean`, `mean_error`, `residuals`, and `local_exponents` with `local_low`, `local_high` (one fewer).
    - `predicted`: theory's exponent over the same x; `asymptote`: theory's exponent in the limit.
    - `x_min`, `x_max`: the window that the sweep's first expectation about the rate names, otherwise all x.
    - `seeds`, `failed` (cells that diverged or were singular), `counts` (cells by status).
    - `verdict`: outcomes of the expectations about this exponent, joined by commas; `warnings`: a list of sentences.
    """
    warnings = warnings_of(result, model, asked=True)
    rows = []
    for curve, row in zip(result.curves(), result.rates(model).to_dict("records"), strict=True):
        texts = [text for others, text in warnings if any(other is curve for other in others)]
        arguments = {name: value for name, value in curve.arguments.items() if name != result.experiment.x}
        own = {
            "arguments": arguments,
            "fit": _fit_json(result, result.claimed(curve), model),
            "failed": failed_of(result, curve),
            "counts": counts_of(result, curve),
            "warnings": texts,
        }
        rows.append(_plain({**row, **own}))
    return rows


def _fit_json(result: Result, curve: Curve, model: str) -> dict[str, Any] | None:
    try:
        rate = result.rate(curve, model=model)
    except ValueError:
        return None
    delta, bca = rate.interval_at(kind="delta"), rate.interval_at(kind="bca")
    return {
        "standard_error": rate.standard_error,
        "delta_low": delta[0],
        "delta_high": delta[1],
        "bca_low": bca[0],
        "bca_high": bca[1],
        "goodness": rate.goodness,
        "effective_seeds": rate.effective_seeds,
        "parameters": {name: _estimate(estimate) for name, estimate in rate.parameters.items()},
        "x": rate.n.tolist(),
        "mean": rate.mean_risk.tolist(),
        "mean_error": rate.mean_se.tolist(),
        "residuals": rate.residuals.tolist(),
        "local_exponents": rate.local_slopes.tolist(),
        "local_low": rate.local_intervals[:, 0].tolist(),
        "local_high": rate.local_intervals[:, 1].tolist(),
    }


def verdicts_json(result: Result, corrected: bool = False) -> list[dict[str, Any]]:
    """One object per `[[expect]]`, in order: `what`, `outcome` (holds, fails, undecided), the measured `value` with its
    interval `low`, `high`, the allowed range `allowed_low`, `allowed_high`, `reason` and `source`."""
    return [
        _plain(
            {
                "what": verdict.what,
                "outcome": verdict.outcome,
                "value": verdict.value,
                "low": verdict.interval[0],
                "high": verdict.interval[1],
                "allowed_low": verdict.allowed[0],
                "allowed_high": verdict.allowed[1],
                "reason": verdict.reason,
                "source": verdict.source,
            }
        )
        for verdict in result.verdicts(corrected)
    ]


def coverage_json(coverage: Coverage) -> dict[str, Any]:
    """How much of the plan the records cover: the fields of `tsjax.sweep.coverage.Coverage`, `whole`, and `notes`, a list of
    sentences."""
    return _plain({**coverage.content(), "notes": coverage.notes})


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {"value": estimate.value, "low": estimate.interval[0], "high": estimate.interval[1]}


def _last_json(point: LastPoint) -> dict[str, Any]:
    return _plain(
        {
            "curve": point.curve.name,
            "label": point.curve.label,
            "x": point.x,
            "mean": point.mean,
            "standard_error": point.se,
            "median": point.median,
            "seeds": point.seeds,
            "relative_to_cramer_rao": _estimate(point.to_limit),
            "relative_to_optimal_linear": _estimate(point.to_linear),
        }
    )


def result_json(result: Result, model: str = "power") -> dict[str, Any]:
    """Everything that the terminal shows:

    - `claim`, `source`, `study`, `path` of the store (null when in memory), `x` and `y`: names of the axes.
    - `coverage`: how much of the plan the records cover, see `coverage_json`.
    - `rates`: see `rates_json`; `verdicts`: see `verdicts_json`.
    - `last`: one object per curve at its largest `x`: `mean`, `standard_error`, `median`, `seeds`, and the ratios
      `relative_to_cramer_rao` and `relative_to_optimal_linear` (`value`, `low`, `high`; null if not measured).
    - `seconds`: `run` and `compile`. `provenance`: versions and devices.
    """
    run, compiling = compute_seconds(result)
    return {
        "claim": result.spec.claim,
        "source": result.spec.source,
        "study": result.spec.study,
        "path": None if result.path is None else str(result.path),
        "coverage": coverage_json(result.coverage),
        "x": result.experiment.x,
        "y": result.experiment.y[0],
        "rates": rates_json(result, model),
        "last": [_last_json(last_point(result, curve)) for curve in result.curves()],
        "verdicts": verdicts_json(result),
        "seconds": _plain({"run": run, "compile": compiling}),
        "provenance": _plain(result.provenance),
    }


def plan_json(estimate: PlanEstimate) -> dict[str, Any]:
    """A plan's cost: `curves`, one object each (`static`, `cells`, `chunks`, `programs`, `bytes` of the largest chunk,
    `operations` and `seconds`, null if they are not known, `measured`: whether they come from cells that were run), the memory
    `budget_bytes` of a chunk, and the speeds assumed, `products_per_second` and `factorisations_per_second`."""
    from ..sweep.values import redacted

    names = ("static", "cells", "chunks", "programs", "bytes", "operations", "seconds", "measured")
    return _plain(
        {
            "curves": [redacted({name: getattr(curve, name) for name in names}) for curve in estimate.curves],
            "budget_bytes": estimate.budget,
            "products_per_second": estimate.speeds[0],
            "factorisations_per_second": estimate.speeds[1],
        }
    )


def precision_json(plans: Sequence[CurvePlan]) -> list[dict[str, Any]]:
    """One object per curve: `curve`, `label`, and the fields of `tsjax.SeedPlan` (costs in seconds), or `reason` if no plan can
    be made."""
    return [
        _plain(
            {"curve": one.curve.name, "label": one.curve.label}
            | ({"reason": one.reason} if one.plan is None else {**vars(one.plan), "reached": one.plan.reached})
        )
        for one in plans
    ]
