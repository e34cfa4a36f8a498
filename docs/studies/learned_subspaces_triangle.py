"""The picture of test accuracy on a learned simplex of three networks, from a store of `tsjax run learned_subspaces`.

    uv run python docs/studies/learned_subspaces_triangle.py runs/learned_subspaces

writes docs/studies/learned_subspaces_triangle.svg.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation
from pictures import write

import tsjax as ts
from tsjax.studies.learned_subspaces import lattice

_TITLES = {0.0: "labels without noise", 0.4: "label noise 0.4"}


def accuracies(result: ts.Result, noise: float) -> np.ndarray:
    """Mean test accuracies over seeds, (rows, columns), of the simplexes whose corners were kept apart."""
    wanted = {"kind": "simplex", "noise": noise, "repulsion": 1.0}
    (curve,) = (one for one in result.curves() if wanted.items() <= one.arguments.items())
    return result.arrays("triangle", curve).mean("cell").to_numpy()


def picture(result: ts.Result) -> Figure:
    """A triangle for each share of noisy labels: its corners are the three networks, its points their weighted means."""
    figure = Figure(figsize=(6.2, 2.7), layout="constrained")
    for axes, (noise, title) in zip(figure.subplots(1, 2), _TITLES.items(), strict=True):
        values = accuracies(result, noise)
        divisions = len(values) - 1
        row, column = lattice(divisions)
        # The corners (1, 0, 0), (0, 1, 0), (0, 0, 1) of the weights lie left, right and above.
        right, above = row / divisions, column / divisions
        mesh = Triangulation(right + above / 2, above * np.sqrt(3) / 2)
        drawn = axes.tricontourf(mesh, values[row, column], levels=12, cmap="viridis")
        axes.set_title(title, fontsize=8, pad=14)
        axes.set_aspect("equal")
        axes.axis("off")
        for x, y, name, side in ((0, 0, "1", "right"), (1, 0, "2", "left"), (0.5, np.sqrt(3) / 2, "3", "center")):
            low = "bottom" if y > 0 else "center"
            axes.annotate(
                name, (x, y), (0, 3) if y else (-4 if x == 0 else 4, 0), textcoords="offset points", ha=side, va=low
            )
        figure.colorbar(drawn, ax=axes, label="mean test accuracy", shrink=0.9)
    return figure


if __name__ == "__main__":
    write(__file__, picture, {"font.size": 8})
