"""The picture of atoms on the circle, from a store of `tsjax run learnability_circle`.

    uv run python docs/studies/learnability_atoms.py runs/learnability_circle

writes docs/studies/learnability_atoms.svg.
"""

import numpy as np
from matplotlib.figure import Figure
from pictures import write

import tsjax as ts

_SEEDS = 3
_PANELS = ((0.0, 20000), (1e-4, 20000), (1e-3, 20000), (1e-4, 200000))
# A share of the teacher's mass; smaller atoms would only be a cloud of dots.
_LEAST = 3e-3
_COLOURS = {1.0: "#0072b2", -1.0: "#d55e00"}


def atoms_of(result: ts.Result, lam: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (k, 2), in the basis of the teacher's two neurons, and signs (k,) of the atoms of the first seeds."""
    (curve,) = (one for one in result.curves() if one.arguments["steps"] == steps)
    part = curve.between(lam, lam)
    # The teacher's neurons are orthonormal: the first is positive, the second negative.
    basis = result.arrays("teacher_atoms", part).to_numpy()[:_SEEDS]
    positions, signs = [], []
    for name, sign in (("positive_atoms", 1.0), ("negative_atoms", -1.0)):
        placed = np.einsum("snc,sjc->snj", result.arrays(name, part).to_numpy()[:_SEEDS], basis).reshape(-1, 2)
        positions.append(placed[np.isfinite(placed).all(axis=1)])
        signs.append(np.full(len(positions[-1]), sign))
    return np.concatenate(positions), np.concatenate(signs)


def picture(result: ts.Result) -> Figure:
    """One circle for each lam: dots are atoms, larger ones have more mass; ticks outside are the teacher's neurons."""
    figure = Figure(figsize=(7.0, 2.1), layout="constrained")
    turn = np.linspace(0, 2 * np.pi, 181)
    for axes, (lam, steps) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        axes.plot(np.cos(turn), np.sin(turn), color="#bbbbbb", linewidth=0.8, zorder=1)
        for (x, y), sign in (((1, 0), 1.0), ((0, 1), -1.0)):
            axes.plot([1.2 * x, 1.45 * x], [1.2 * y, 1.45 * y], color=_COLOURS[sign], linewidth=2.5)
        position, sign = atoms_of(result, lam, steps)
        mass = np.linalg.norm(position, axis=1)
        place = position / np.maximum(mass, 1e-300)[:, None]
        # Sizes differ by factors of 2, because dots of one size share one shape in the file.
        size = 2.0 ** np.round(np.log2(np.maximum(mass, 1e-300)))
        for colour in _COLOURS:
            for one in np.unique(size[mass > _LEAST]):
                kept = (sign == colour) & (mass > _LEAST) & (size == one)
                axes.plot(
                    *place[kept].T,
                    "o",
                    color=_COLOURS[colour],
                    markersize=3 + 12 * one**0.5,
                    alpha=0.5,
                    markeredgewidth=0,
                )
        penalty = "no penalty" if lam == 0 else f"lambda = {lam:g}"
        axes.set_title(f"{penalty}\n{steps} steps", fontsize=8)
        axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
        axes.axis("off")
    return figure


if __name__ == "__main__":
    write(__file__, picture, {"font.size": 8})
