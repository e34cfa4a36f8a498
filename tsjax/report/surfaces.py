"""A surface over two arguments on the page: parameters, lines of equal loss, and the compute-optimal frontier."""

import numpy as np
from matplotlib.figure import Figure

from ..rates import Estimate, Frontier, Surface
from ..rates.checks import together
from ..sweep.result import Result
from .figures import settings, width_of
from .grids import Cell, Grid
from .look import COLOURS, INK, dash_of
from .numbers import digits, label_of, plural, prefixed
from .plot import Plot, faint, layout_of, words
from .sections import Chart, Entry, Section
from .sentences import Fitted, fitted

# The number of lines of equal loss, and of points along each line and along the frontier.
_LEVELS, _POINTS = 8, 60
# Indices in `COLOURS` of the frontier, and of the best N and D.
_BEST, _N, _D = 1, 2, 0
# A colour from the middle of the ramp, for the legend of points that are coloured by their loss.
_DOT = 11
_DASH = (5.5, 2.0)
_BAND, _EDGE = 0.12, 0.5
NAME = "surface"


def surface_section(result: Result) -> Section | None:
    """The section with the surface that the spec asks for; None if it asks for none."""
    asked = result.spec.surface
    if asked is None:
        return None
    names = [label_of(result, name) for name in (result.experiment.y[0], asked.n, asked.d)]
    title = f"{names[0]} over {names[1]} and {names[2]}"
    title = title[:1].upper() + title[1:]
    try:
        found = fitted(result)
    except ValueError as error:
        return Section(NAME, title, f"The surface could not be fitted: {error}")
    assert found is not None
    formula = found.surface.model.formula
    caption = (
        f"{formula}, where N is {found.n} and D is {found.d}. Points were measured; along each thin line the fitted "
        f"{found.loss} is the same."
    )
    if np.isfinite(found.surface.goodness):
        caption += f" Test of the formula: p = {found.surface.goodness:.2g}; small speaks against it."
    charts = [Chart(f"Measured points and lines of equal {found.loss}", _map_chart(found))]
    legend = [
        Entry("measured", "measured", "", _DOT, "solid", "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0"),
        Entry("equal", f"equal {found.loss}", "", INK, "solid", ""),
    ]
    grids = [_parameters_grid(found)]
    if found.frontier is not None:
        charts.append(Chart("Best at a given compute", _frontier_chart(found, found.frontier)))
        legend += [
            Entry("best", f"least {found.loss} for its compute", "", _BEST, dash_of(_DASH), ""),
            Entry("n", f"best {found.n}", "", _N, "solid", ""),
            Entry("d", f"best {found.d}", "", _D, "solid", ""),
        ]
        grids.append(_frontier_grid(found, found.frontier))
    return Section(NAME, title, caption, charts, legend, grids)


def _parameters_grid(found: Fitted) -> Grid:
    meaning = {
        "E": f"{found.loss} where both are infinite",
        "A": f"factor of {found.n}",
        "a": f"exponent in {found.n}",
        "B": f"factor of {found.d}",
        "b": f"exponent in {found.d}",
    }
    rows = []
    for name, estimate in found.surface.parameters.items():
        what = f"{name}, {meaning[name]}" + ("" if found.surface.identified.get(name, True) else ": not identified")
        rows.append([Cell(what, name), *_estimate_cells(estimate)])
    interval = f"{100 * found.surface.level:g} % interval"
    basis = "seeds resampled" if found.surface.errors == "seeds" else f"{found.surface.errors} resampled"
    loss = {"wls": "least squares of log residuals"}.get(str(found.surface.method), str(found.surface.method))
    note = f"{plural(len(found.surface.n), 'point')}, {loss}, {basis}."
    return Grid("Parameters", ["parameter", "value", interval], rows, note)


def _estimate_cells(estimate: Estimate) -> list[Cell]:
    value, low, high = together(estimate.value, *estimate.interval)
    ends = f"{low} to {high}".replace("inf", "∞")
    return [Cell(value, repr(float(estimate.value))), Cell(ends, repr(float(estimate.interval[0])))]


def _frontier_grid(found: Fitted, frontier: Frontier) -> Grid:
    """The best N, D and loss at powers of ten of compute, up to ten times the largest measured one."""
    compute = frontier.cost * found.surface.n * found.surface.d
    decades = np.arange(np.ceil(np.log10(compute.min())), np.floor(np.log10(compute.max())) + 2)
    decades = decades[:: max(1, len(decades) // 8)]
    best, rows = frontier.at(10.0**decades), []
    for i, decade in enumerate(decades):
        cells = [Cell(f"1e{decade:.0f}", repr(float(decade)))]
        for name in ("n", "d", "loss"):
            value, low, high = (float(part[i]) for part in best[name])
            if name == "loss":
                middle, *ends = together(value, low, high)
            else:
                middle, *ends = (prefixed(one) for one in (value, low, high))
            cells.append(Cell(f"{middle} [{ends[0]}, {ends[1]}]", repr(value)))
        rows.append(cells)
    exponents = ", ".join(f"{label} ~ C^{frontier.exponents[name]}" for name, label in (("n", found.n), ("d", found.d)))
    note = (
        f"C = {frontier.cost:g} N D. {exponents}. Beyond C = {compute.max():.2g} nothing was measured, and the formula is "
        "trusted to go on."
    )
    return Grid("Best at a given compute", ["compute C", found.n, found.d, found.loss], rows, note)


def _map_chart(found: Fitted) -> Plot:
    """N and D on logarithmic axes: measured points coloured by their loss, lines of equal loss, and the frontier."""
    surface, plot = found.surface, Plot(layout=layout_of())
    n, d, loss = words(found.n), words(found.d), words(found.loss)
    for level, x, y in _equal(surface):
        plot.add(
            "scatter", x=x, y=y, mode="lines", line={"width": 1, "color": COLOURS[INK]}, opacity=0.45,
            hovertemplate=f"fitted {loss} {digits(level)}<br>{n}: %{{x:.3s}}<br>{d}: %{{y:.3s}}<extra></extra>",
            meta={"keys": ["equal"], "ink": INK},
        )  # fmt: skip
        plot.layout.setdefault("annotations", []).append(
            {
                "name": f"equal {INK}", "text": digits(level), "x": float(np.log10(x[-1])), "y": float(np.log10(y[-1])),
                "showarrow": False, "xanchor": "right", "yanchor": "bottom", "font": {"size": 10, "color": COLOURS[INK]},
            }
        )  # fmt: skip
    if found.frontier is not None:
        best = found.frontier.at(_computes(found, found.frontier))
        x, y = best["n"][0], best["d"][0]
        there = _within(x, surface.n) & _within(y, surface.d)
        plot.add(
            "scatter", x=x[there], y=y[there], mode="lines", customdata=best["loss"][0][there],
            line={"width": 2.5, "dash": dash_of(_DASH), "color": COLOURS[_BEST]},
            hovertemplate=(
                f"least {loss} for its compute: %{{customdata:.3g}}<br>{n}: %{{x:.3s}}<br>{d}: %{{y:.3s}}<extra></extra>"
            ),
            meta={"keys": ["best"], "ink": _BEST},
        )  # fmt: skip
    fit = np.exp(np.log(surface.mean_loss) - surface.residuals)
    plot.add(
        "scatter", x=surface.n, y=surface.d, mode="markers", customdata=np.stack([surface.mean_loss, fit], axis=1),
        marker={
            "size": 7, "color": surface.mean_loss, "colorscale": "Viridis", "reversescale": True,
            "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": loss, "side": "right"}},
        },
        hovertemplate=(
            f"{n}: %{{x:.3s}}<br>{d}: %{{y:.3s}}<br>{loss}: %{{customdata[0]:.4g}}"
            "<br>fitted: %{customdata[1]:.4g}<extra></extra>"
        ),
        meta={"keys": ["measured"]},
    )  # fmt: skip
    for axis, label, values in (("xaxis", n, surface.n), ("yaxis", d, surface.d)):
        low, high = _ends(values)
        plot.layout[axis] |= {
            "type": "log", "range": [float(np.log10(low)), float(np.log10(high))], "exponentformat": "power",
            "title": {"text": label, "standoff": 6}, "dtick": 1 if high > 30 * low else "D2",
        }  # fmt: skip
    return plot


def _frontier_chart(found: Fitted, frontier: Frontier) -> Plot:
    """The best N and D against compute, with their intervals."""
    plot, compute = Plot(layout=layout_of()), _computes(found, frontier)
    best = frontier.at(compute)
    for name, label, ink in (("n", found.n, _N), ("d", found.d, _D)):
        value, low, high = best[name]
        there = np.isfinite(low) & np.isfinite(high)
        plot.add(
            "scatter", x=np.concatenate([compute[there], compute[there][::-1]]),
            y=np.concatenate([low[there], high[there][::-1]]), mode="lines", fill="toself", hoverinfo="skip",
            fillcolor=faint(ink, _BAND), line={"width": 1, "color": faint(ink, _EDGE)},
            meta={"keys": [name], "fill": ink, "share": _BAND, "edge": _EDGE},
        )  # fmt: skip
        plot.add(
            "scatter", x=compute, y=value, mode="lines", customdata=np.stack([low, high], axis=1),
            line={"width": 2, "color": COLOURS[ink]},
            hovertemplate=(
                f"best {words(label)}: %{{y:.3s}}<br>compute: %{{x:.3g}}"
                "<br>%{customdata[0]:.3s} to %{customdata[1]:.3s}<extra></extra>"
            ),
            meta={"keys": [name], "ink": ink},
        )  # fmt: skip
        plot.layout.setdefault("annotations", []).append(
            {
                "name": f"{name} {ink}", "text": words(label), "x": float(np.log10(compute[-1])),
                "y": float(np.log10(value[-1])), "xanchor": "left", "xshift": 4, "showarrow": False,
                "font": {"size": 11, "color": COLOURS[ink]},
            }
        )  # fmt: skip
    plot.layout["margin"]["r"] = 14 + int(6.5 * max(len(found.n), len(found.d)))
    plot.layout["xaxis"] |= {
        "type": "log",
        "title": {"text": f"compute C = {frontier.cost:g} N D"},
        "exponentformat": "power",
        "dtick": 1,
    }
    plot.layout["yaxis"] |= {"type": "log", "title": {"text": "best N and D", "standoff": 6}, "dtick": 1}
    return plot


def surface_figure(found: Fitted, style: str = "page") -> Figure:
    """The map on paper: points coloured by their loss, lines of equal loss, and the frontier."""
    surface = found.surface
    with settings(grid=False):
        width = min(width_of(style), 4.6)
        figure = Figure(figsize=(width, 0.78 * width), layout="constrained")
        axes = figure.subplots()
        for level, x, y in _equal(surface):
            (line,) = axes.plot(x, y, color="#888888", linewidth=0.7, zorder=1)
            line.set_gid(digits(level))
            axes.annotate(
                digits(level), (float(x[-1]), float(y[-1])), fontsize=6, color="#555555", ha="right", va="bottom"
            )
        drawn = axes.scatter(surface.n, surface.d, c=surface.mean_loss, cmap="viridis_r", s=11, zorder=3, linewidths=0)
        figure.colorbar(drawn, ax=axes, label=found.loss)
        if found.frontier is not None:
            best = found.frontier.at(_computes(found, found.frontier))
            dashes = (0.0, tuple(length / 1.6 for length in _DASH))
            label = f"least {found.loss} for its compute"
            axes.plot(
                best["n"][0], best["d"][0], color=COLOURS[_BEST], linewidth=1.6, linestyle=dashes, label=label, zorder=2
            )
            axes.legend(loc="upper left")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(*_ends(surface.n))
        axes.set_ylim(*_ends(surface.d))
        axes.set_xlabel(found.n)
        axes.set_ylabel(found.d)
    return figure


def _ends(values: np.ndarray) -> tuple[float, float]:
    """The ends of a logarithmic axis: a twentieth of it beyond the values on each side."""
    margin = (values.max() / values.min()) ** 0.05
    return float(values.min() / margin), float(values.max() * margin)


def _within(values: np.ndarray, measured: np.ndarray) -> np.ndarray:
    low, high = _ends(measured)
    return (values >= low) & (values <= high)


def _computes(found: Fitted, frontier: Frontier) -> np.ndarray:
    """Values of compute from the smallest to the largest measured one."""
    compute = frontier.cost * found.surface.n * found.surface.d
    return np.geomspace(compute.min(), compute.max(), _POINTS)


def _equal(surface: Surface) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Lines of equal loss within the axes: the loss, and N and D along the line, D = (B / (L - E - A N^-a))^(1/b)."""
    low, high = np.quantile(surface.mean_loss, [0.02, 0.98])
    log_a, a, log_b, b, *floor = surface.theta
    # Levels are equally spaced in the logarithm of the loss above the floor.
    base = floor[0] if floor and floor[0] < low else 0.0
    n = np.geomspace(*_ends(surface.n), _POINTS * 4)
    found = []
    for level in base + np.geomspace(low - base, high - base, _LEVELS):
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            rest = level - sum(floor) - np.exp(log_a - a * np.log(n))
            d = np.exp((log_b - np.log(rest)) / b)
        there = np.isfinite(d) & _within(d, surface.d)
        if there.sum() > 1:
            found.append((float(level), n[there], d[there]))
    return found
