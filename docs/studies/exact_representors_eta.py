"""The picture of errors against the step size: some panels, from a store of `tsjax run exact_representors`.

    uv run python docs/studies/exact_representors_eta.py runs/exact_representors

writes docs/studies/exact_representors_eta.svg.
"""

from matplotlib.figure import Figure
from pictures import write

import tsjax as ts
from tsjax.report.figures import draw
from tsjax.report.series import mean_drawing

_PANELS = {("tanh", 20): "tanh, M = 20", ("tanh", 632): "tanh, M = 632", ("relu", 632): "ReLU, M = 632"}


def picture(result: ts.Result) -> Figure:
    """The panels of `_PANELS`."""
    drawing, panels = mean_drawing(result, "error"), []
    for panel in drawing.panels:
        arguments = panel.series[0].curve.arguments
        title = _PANELS.get((arguments["activation"], arguments["width"]))
        if title is not None:
            panels.append(panel._replace(title=title))
    assert len(panels) == len(_PANELS)
    return draw(result, drawing._replace(panels=panels))


if __name__ == "__main__":
    write(__file__, picture, {"font.sans-serif": ["DejaVu Sans", "Verdana"]})
