"""The picture of atoms on the circle, from a store of `tsjax run learnability_circle`.

    uv run python docs/studies/learnability_atoms.py runs/learnability_circle

writes docs/studies/learnability_atoms.svg. Records hold no arrays, so the students of a few cells are trained again.
"""

import sys
from pathlib import Path

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import tsjax as ts
from tsjax.report.figures import image
from tsjax.studies.learnability import atoms, trained

FILE = Path(__file__).with_suffix(".svg")
_SEEDS = 4
# Of the teacher's mass; smaller atoms are a cloud of dots that says nothing.
_LEAST = 1e-3
_COLOURS = {1.0: "#0072b2", -1.0: "#d55e00"}


def atoms_of(result: ts.Result, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions (k, 2), in the basis of the teacher's two neurons, and signs (k,) of the atoms of the first seeds at lam."""
    rows = np.flatnonzero((result.records["lam"] == lam) & (result.records["seed"] < _SEEDS))
    positions, signs = [], []
    with jax.enable_x64(True):
        for row in rows:
            key, arguments = result.cell(int(row))
            _, teacher, fit = trained(key, **arguments)
            placed = atoms(fit.model)
            positions.append(np.asarray(placed.position) @ np.asarray(teacher.w).T)
            signs.append(np.asarray(placed.sign))
    return np.concatenate(positions), np.concatenate(signs)


def picture(result: ts.Result) -> Figure:
    """One circle for each lam: dots are atoms, their area is the mass; long ticks are the teacher's neurons."""
    penalties = np.unique(result.records["lam"])
    figure = Figure(figsize=(7.0, 2.3), layout="constrained")
    turn = np.linspace(0, 2 * np.pi, 181)
    for axes, lam in zip(figure.subplots(1, len(penalties)), penalties, strict=True):
        axes.plot(np.cos(turn), np.sin(turn), color="#bbbbbb", linewidth=0.8, zorder=1)
        for (x, y), sign in (((1, 0), 1.0), ((0, 1), -1.0)):
            axes.plot([1.08 * x, 1.35 * x], [1.08 * y, 1.35 * y], color=_COLOURS[sign], linewidth=2)
        position, sign = atoms_of(result, lam)
        mass = np.linalg.norm(position, axis=1)
        for colour in _COLOURS:
            kept = (sign == colour) & (mass > _LEAST)
            place = position[kept] / mass[kept, None]
            axes.scatter(*place.T, s=200 * mass[kept], color=_COLOURS[colour], alpha=0.5, linewidths=0, zorder=2)
        axes.set_title("no penalty" if lam == 0 else f"lambda = {lam:g}", fontsize=8)
        axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
        axes.axis("off")
    return figure


def main(store: str) -> None:
    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 8}):
        FILE.write_bytes(image(picture(ts.load(store)), "svg"))


if __name__ == "__main__":
    main(sys.argv[1])
