"""The compute-optimal frontier of a loss L = E + A/N^a + B/D^b: `Frontier`."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .checks import Numbers, as_array, check_positive
from .intervals import Estimate, expanded_percentiles


@dataclass(frozen=True, eq=False, repr=False)
class Frontier:
    """The N and D at which L = E + A/N^a + B/D^b is least for compute C = `cost` N D:

    N = G (C / cost)^{b/(a+b)}, D = (C / cost)^{a/(a+b)} / G, G = (a A / (b B))^{1/(a+b)}

    (Hoffmann et al., arXiv:2203.15556, equation 4; Lagrange's condition a A N^{-a} = b B D^{-b}).

    - `exponents`: the exponents of N and D in C, under the names `n` and `d`, with intervals. They add up to 1. If an exponent
      of the loss is not identified, their intervals are [0, 1].
    - `G`, with its interval. `cost`: floating-point operations for each parameter and token, 6 for language models.
    - `theta` (p,), `theta_draws` (draws, p): as in `Surface`. `level`, `warnings`.
    """

    exponents: dict[str, Estimate]
    G: Estimate
    cost: float
    theta: Float[np.ndarray, " p"]
    theta_draws: Float[np.ndarray, "draws p"]
    effective_seeds: float
    level: float
    warnings: tuple[str, ...]

    def at(self, compute: Numbers) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The best N, D and loss at compute C, (j,) or a number: for `n`, `d` and `loss` the value and the ends of its
        interval, each (j,).

        Raises ValueError unless C is finite and positive.
        """
        c = np.atleast_1d(as_array(compute, "compute"))
        check_positive(c, "compute", "Give a number of operations.")
        value, draws = _optimum(self.theta, c / self.cost), _optimum(self.theta_draws, c / self.cost)
        found = {}
        for i, name in enumerate(("n", "d", "loss")):
            ends = [
                expanded_percentiles(draw[np.isfinite(draw)], float(one), self.effective_seeds, self.level)[0]
                for one, draw in zip(value[i], draws[i].T, strict=True)
            ]
            low, high = np.array(ends).T
            found[name] = tuple(np.exp(part) for part in (value[i], low, high))
        return found

    def __str__(self) -> str:
        n, d = self.exponents["n"], self.exponents["d"]
        return f"N ~ C^{n}, D ~ C^{d}, G = {self.G} (C = {self.cost:g} N D)"

    def __repr__(self) -> str:
        return "\n".join([f"Frontier({self})", *(f"  ! {text}" for text in self.warnings)])


def frontier_of(
    theta: np.ndarray,
    draws: np.ndarray,
    identified: dict[str, bool],
    effective_seeds: float,
    level: float,
    cost: float,
    warnings: tuple[str, ...],
) -> Frontier:
    """The frontier of a fitted surface and its resamples, theta (p,) and draws (draws, p)."""
    if not 0.0 < cost < np.inf:
        raise ValueError(f"cost is the compute of one N and one D, finite and positive, such as 6; got {cost:g}.")
    (share, log_g), (shares, log_gs) = _growth(theta), _growth(draws)
    known = all(identified.values())
    ends, _ = expanded_percentiles(shares, float(share), effective_seeds, level)
    low, high = (max(ends[0], 0.0), min(ends[1], 1.0)) if known else (0.0, 1.0)
    exponents = {
        "n": Estimate(float(share), (low, high), level),
        "d": Estimate(1.0 - float(share), (1.0 - high, 1.0 - low), level),
    }
    ends, _ = expanded_percentiles(log_gs, float(log_g), effective_seeds, level)
    ends = ends if known else (-np.inf, np.inf)
    with np.errstate(over="ignore"):
        g = Estimate(float(np.exp(log_g)), (float(np.exp(ends[0])), float(np.exp(ends[1]))), level)
    return Frontier(exponents, g, float(cost), theta, draws, effective_seeds, level, warnings)


def _growth(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """b / (a + b) and log G (...)."""
    log_a, a, log_b, b = (theta[..., i] for i in range(4))
    return np.asarray(b / (a + b)), np.asarray((np.log(a) + log_a - np.log(b) - log_b) / (a + b))


def _optimum(theta: np.ndarray, product: np.ndarray) -> np.ndarray:
    """log N, log D and log L (3, ..., j) at N D = `product` (j,)."""
    share, log_g = (part[..., None] for part in _growth(theta))
    n = log_g + share * np.log(product)
    d = np.log(product) - n
    floor = theta[..., 4:5] if theta.shape[-1] > 4 else 0.0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        powers = [np.exp(theta[..., i : i + 1] - theta[..., i + 1 : i + 2] * one) for i, one in ((0, n), (2, d))]
        return np.stack([n, d, np.log(floor + powers[0] + powers[1])])
