"""The picture of errors against the step size, some panels of a store of `tsjax run exact_representors`.

    uv run python docs/studies/exact_representors_eta.py runs/exact_representors

writes docs/studies/exact_representors_eta.svg.
"""

import sys
from pathlib import Path

import matplotlib

import tsjax as ts
from tsjax.report.captioned import _short
from tsjax.report.figures import draw, image
from tsjax.report.series import mean_drawing

FILE = Path(__file__).with_suffix(".svg")
_PANELS = {("tanh", 20): "tanh, M = 20", ("tanh", 632): "tanh, M = 632", ("relu", 632): "ReLU, M = 632"}


def main(store: str) -> None:
    result = ts.load(store)
    drawing, panels = mean_drawing(result, "error"), []
    for panel in drawing.panels:
        arguments = panel.series[0].curve.arguments
        title = _PANELS.get((arguments["activation"], arguments["width"]))
        if title is not None:
            panels.append(panel._replace(title=title))
    assert len(panels) == len(_PANELS)
    with matplotlib.rc_context({"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana"]}):
        FILE.write_bytes(_short(image(draw(result, drawing._replace(panels=panels)), "svg")))


if __name__ == "__main__":
    main(sys.argv[1])
