"""Toy experiments whose records are planted; they compile in a fraction of a second."""

from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import pandas as pd
from pydantic import Field

from tsjax.sweep.experiment import Cost, Theory, experiment
from tsjax.sweep.spec import SweepSpec, parse_spec

EXPONENTS = {"fast": 1.0, "slow": 0.5}


@experiment(
    static=("method",),
    curve="method",
    theory=lambda arguments, x: Theory(x ** -EXPONENTS[arguments["method"]], EXPONENTS[arguments["method"]], "planted"),
)
def power(
    key,
    *,
    method: Literal["fast", "slow"],
    n: Annotated[int, Field(ge=2)],
    scale: float = 1.0,
    failing: float = 0.0,
):
    """A power law times chi-square noise; a share `failing` of the seeds diverges, the same ones at every n."""
    noise = jnp.mean(jax.random.normal(jax.random.fold_in(key, n), (15,), jnp.float64) ** 2)
    failed = jax.random.uniform(key) < failing
    size = jnp.asarray(n, jnp.float64)
    return {
        "status": jnp.where(failed, 2, 0),
        "risk": jnp.where(failed, jnp.nan, scale * size ** -EXPONENTS[method] * noise),
        "limit": scale / size,
        "done": ~failed,
        "draw": jax.random.normal(key, (), jnp.float64),
    }


@experiment(x="step", y=("risk", "train_loss"), curve="speed")
def path(key, *, speed: float = 1.0):
    """Vectors: a path of ten steps."""
    step = jnp.arange(10)
    risk = jnp.exp(-0.1 * speed * step) * (1 + jax.random.uniform(key))
    return {"status": 0, "step": step, "risk": risk, "train_loss": risk / 2}


@experiment
def plain(key, *, n: int):
    """Neither status nor curve nor theory."""
    return {"risk": jax.random.uniform(key, (), jnp.float64) / n}


def stored(store) -> pd.DataFrame:
    """The rows of a store's chunks, as pandas reads the folder: an independent route to the records."""
    return pd.read_parquet(Path(store) / "chunks")


def power_spec(**changes) -> SweepSpec:
    """A spec of `power`; keyword arguments replace its tables."""
    content = {
        "study": "sweep.toys:power",
        "grid": {"n": [16, 32, 64, 128], "method": ["fast", "slow"], "seeds": 12},
    }
    return parse_spec({**content, **changes})


@experiment(static=("n",), cost=lambda arguments: Cost(2.0 * arguments["n"]))
def sizes(key, *, n: int):
    """The square of a mean; every n has a program of its own."""
    return {"risk": jnp.mean(jax.random.normal(key, (n,))) ** 2}
