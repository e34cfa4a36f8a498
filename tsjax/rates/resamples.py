"""Resamples of units: how often each resample takes each unit."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from threadpoolctl import ThreadpoolController


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread():
    """A context in which BLAS uses one thread."""
    # The products are small, so a second thread would mostly wait, above all on a busy machine.
    return _blas().limit(limits=1, user_api="blas")


# The most multiplicities that are kept from one fit to the next, and those of a block if there are more.
_KEPT = 2**24
_BLOCK = 2**22


@dataclass(frozen=True)
class Resamples:
    """How often each of `draws` resamples takes each of `units` units: multiplicities (draws, units), or (rows, draws, units)
    for independent rows. With very many units they are made block by block, since 2000 resamples of 100 000 units would take
    gigabytes.
    """

    units: int
    draws: int
    seed: int
    rows: int | None = None

    def each(self, summarise: Callable[[np.ndarray], Sequence[np.ndarray]]) -> list[np.ndarray]:
        """The results of a function of multiplicities, arrays with a leading axis of draws, for all draws."""
        parts = zip(*(summarise(counts) for counts in self.blocks()), strict=True)
        return [part[0] if len(part) == 1 else np.concatenate(part) for part in parts]

    def blocks(self) -> Iterator[np.ndarray]:
        """The multiplicities, some draws at a time."""
        rows = 1 if self.rows is None else self.rows
        if rows * self.draws * self.units <= _KEPT:
            yield _multiplicities(self.units, self.draws, self.seed, self.rows)
            return
        random = [np.random.default_rng(self.seed if self.rows is None else [self.seed, row]) for row in range(rows)]
        size = max(1, _BLOCK // (rows * self.units))
        for start in range(0, self.draws, size):
            count = min(size, self.draws - start)
            counts = np.empty((rows, count, self.units))
            for row, draw in itertools.product(range(rows), range(count)):
                counts[row, draw] = np.bincount(random[row].integers(self.units, size=self.units), minlength=self.units)
            yield counts[0] if self.rows is None else counts


@lru_cache(maxsize=4)
def _multiplicities(units: int, draws: int, seed: int, rows: int | None) -> np.ndarray:
    """Cached, since a sweep fits hundreds of curves of one shape. Their draws are paired because their resamples are equal."""
    shape = (draws, units) if rows is None else (rows, draws, units)
    chosen = np.random.default_rng(seed).integers(units, size=shape).reshape(-1, units)
    flat = (chosen + units * np.arange(len(chosen))[:, None]).ravel()
    counts = np.bincount(flat, minlength=chosen.size).astype(np.float64).reshape(shape)
    counts.flags.writeable = False
    return counts
