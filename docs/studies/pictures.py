"""Shared code of the scripts in this folder. Each script draws a picture of its study from a store."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

import tsjax as ts
from tsjax.report.captioned import shortened
from tsjax.report.figures import image


def write(script: str, picture: Callable[[ts.Result], Figure], settings: dict[Any, Any]) -> None:
    """Draws the store that the command line names into the SVG beside the script; `settings` are of Matplotlib."""
    with matplotlib.rc_context({"svg.fonttype": "none", **settings}):
        Path(script).with_suffix(".svg").write_bytes(shortened(image(picture(ts.load(sys.argv[1])), "svg")))
