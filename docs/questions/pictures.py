"""The pictures of the pages beside this script, made by the Python that the pages show.

    uv run python docs/questions/pictures.py [kernel_regime how_many_samples ...]

runs the Python of each page in an empty folder, prints what it prints, and writes docs/questions/PAGE.svg.
"""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from tsjax.report.captioned import shortened
from tsjax.report.figures import image

HERE = Path(__file__).parent


def kernel_regime(names: dict[str, Any]) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    titles = {"gap": "distance to the linearisation", "change": "change of the kernel", "error": "error of the network"}
    for ax, (y, title) in zip(axes, titles.items(), strict=True):
        names["result"].plot(y, axes=[ax])
        ax.set_title(title)
    return figure


def how_many_samples(names: dict[str, Any]) -> Figure:
    display = names["display"]
    return display.plot(forecast_at=display.samples_for(0.005).value).figure_


def which_is_ahead(names: dict[str, Any]) -> Figure:
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    result = names["result"]
    result.plot(axes=[ax])
    found = result.estimate("crossing of student relative to NTK in n")
    band = ax.axvspan(*found.interval, color="0.5", alpha=0.2)
    legend = ax.get_legend()
    assert legend is not None
    names_of_curves = [text.get_text() for text in legend.get_texts()]
    ax.legend([*legend.legend_handles, band], [*names_of_curves, f"crossing: n = {found.value:.0f}"])
    return figure


def exponent_in_d(names: dict[str, Any]) -> Figure:
    return names["result"].plot(style="page").flat[0].figure


PICTURES = {
    function.__name__: function for function in (kernel_regime, how_many_samples, which_is_ahead, exponent_in_d)
}


def main(pages: list[str]) -> None:
    """Draws the pages named, or all of them."""
    for page in pages or PICTURES:
        code = "\n".join(re.findall(r"^```python\n(.*?)^```$", (HERE / f"{page}.md").read_text(), re.M | re.S))
        names: dict[str, Any] = {"__name__": page}
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(f"== {page}", flush=True)
            # tsjax reads the source of an experiment from its file, so the code must be in one.
            Path(f"{page}.py").write_text(code)
            exec(compile(code, f"{page}.py", "exec"), names)
            with matplotlib.rc_context({"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana"]}):
                drawn = PICTURES[page](names)
                (HERE / f"{page}.svg").write_bytes(shortened(image(drawn, "svg")))
            os.chdir(HERE)


if __name__ == "__main__":
    main(sys.argv[1:])
