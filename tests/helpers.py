"""What tests share."""

import os

import numpy as np

# One seed for every statistical test, printed in the header of a run; TSJAX_TEST_SEED=7 asks for another.
SEED = int(os.environ.get("TSJAX_TEST_SEED", "0"))

# Eight octaves of sample sizes, for rates.
SIZES = 2.0 ** np.arange(5, 14)


def noise(rng: np.random.Generator, seeds: int, n: np.ndarray = SIZES) -> np.ndarray:
    """Factors (n, seeds) of risks with mean 1, as those of an efficient student with 15 parameters."""
    return rng.chisquare(15, (len(n), seeds)) / 15
