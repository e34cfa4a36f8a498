"""What tests share."""

import os
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd

# One seed for every statistical test, printed in the header of a run; TSJAX_TEST_SEED=7 asks for another.
SEED = int(os.environ.get("TSJAX_TEST_SEED", "0"))


def users_environment(**variables: str) -> dict[str, str]:
    """The environment of a process that is to run as a user's does: without the settings that conftest.py makes for tests."""
    ours = ("JAX_", "XLA_", "PJRT_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables


# Eight octaves of sample sizes, for rates.
SIZES = 2.0 ** np.arange(5, 14)


def noise(rng: np.random.Generator, seeds: int, n: np.ndarray = SIZES) -> np.ndarray:
    """Factors (n, seeds) of risks with mean 1, as those of an efficient student with 15 parameters."""
    return rng.chisquare(15, (len(n), seeds)) / 15


# A number with its interval, as figures and captions write them: 1.06 [1.01, 1.12].
_INTERVAL = re.compile(r"-?[\d.]+(?:e-?\d+)? \[[^\[\]]*\d[^\[\]]*, [^\[\]]*\]")


def intervals_in(text: str) -> set[str]:
    """All numbers with intervals in a text."""
    return set(_INTERVAL.findall(" ".join(text.split())))


def texts_of_svg(svg: bytes) -> list[str]:
    """The texts of a picture."""
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def exponents_of_table(table: pd.DataFrame) -> set[str]:
    """The exponents of a table of plotted values, as figures write them."""
    from tsjax.report.numbers import exponent_with_interval

    names = ["exponent", "exponent_low", "exponent_high", "identified"]
    known = table[names].dropna() if "exponent" in table else []
    return {exponent_with_interval(*row) for row in np.asarray(known, object).tolist()}


def ratios_of_table(table: pd.DataFrame) -> set[str]:
    """The ratios and means of a table of plotted values, as captions write them."""
    from tsjax.rates import Estimate
    from tsjax.report.numbers import ratio_with_interval

    found = set()
    columns = {name: (f"{name}_low", f"{name}_high") for name in ("to_limit", "best_linear")} | {
        "mean": ("low", "high")
    }
    for name, ends in columns.items():
        if {name, *ends} <= set(table):
            rows = table[[name, *ends]].dropna().to_numpy(float).tolist()
            found |= {ratio_with_interval(Estimate(value, (low, high), 0.95)) for value, low, high in rows}
    return found
