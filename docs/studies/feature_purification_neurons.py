"""The picture of hidden weights before and after adversarial training, from a store of `tsjax run feature_purification`.

    uv run python docs/studies/feature_purification_neurons.py runs/feature_purification

writes docs/studies/feature_purification_neurons.svg.
"""

import numpy as np
from matplotlib.figure import Figure
from pictures import write

import tsjax as ts

_CELL = {"eps": 0.3, "bias": 0.03}
_NAMES = {"clean": "after clean training", "adversarial": "after adversarial training"}
_COLOURS = {"clean": "#d55e00", "adversarial": "#0072b2"}


def arrays_of(result: ts.Result, learner: str, name: str) -> np.ndarray:
    """An array of all seeds, (seeds, ...)."""
    (curve,) = (
        one for one in result.curves() if one.arguments["learner"] == learner and one.arguments["bias"] == _CELL["bias"]
    )
    return result.arrays(name, curve.between(_CELL["eps"], _CELL["eps"])).sortby("seed").to_numpy()


def picture(result: ts.Result) -> Figure:
    """The dense components of the neurons of all seeds, and the weights of the first seed: each row is a neuron, in the same
    order before and after, by the input to which it answers most after adversarial training."""
    figure = Figure(figsize=(7.0, 2.6), layout="constrained")
    shares, *maps = figure.subplots(1, 3)
    for learner, colour in _COLOURS.items():
        values = arrays_of(result, learner, "shares").ravel()
        weight = np.full(values.size, 1 / values.size)
        shares.hist(
            values, np.linspace(0, 1, 41), weights=weight, color=colour, label=_NAMES[learner], histtype="stepfilled"
        )
    shares.set(xlabel="dense component", ylabel="share of neurons", ylim=(0, 0.6))
    shares.legend(fontsize=6, frameon=False)
    weights = {learner: arrays_of(result, learner, "weights")[0] for learner in _COLOURS}
    order = np.argsort(np.abs(weights["adversarial"]).argmax(axis=1), kind="stable")
    most = max(np.abs(weight).max() for weight in weights.values())
    for axes, (learner, weight) in zip(maps, weights.items(), strict=True):
        axes.imshow(weight[order], cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="none")
        axes.set_title(_NAMES[learner], fontsize=8)
        axes.set(xlabel="input", ylabel="neuron")
    figure.colorbar(maps[0].images[0], ax=maps, label="weight")
    return figure


if __name__ == "__main__":
    write(__file__, picture, {"font.size": 8})
