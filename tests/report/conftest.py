"""Toy experiments whose records are planted: a power law times chi-square noise, so that every number is known."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import pytest
from pydantic import Field

from tsjax.sweep.experiment import Cost, Theory, experiment
from tsjax.sweep.result import Result
from tsjax.sweep.run import run_spec, sweep
from tsjax.sweep.spec import SweepSpec, parse_spec

EXPONENTS = {"student": 1.0, "ridge": 0.5, "optimal_linear": 0.45}


def _noise(key):
    """Chi-square with 15 degrees of freedom, mean 1."""
    return jnp.mean(jax.random.normal(key, (15,), jnp.float64) ** 2)


def _theory(arguments, x):
    d = arguments["d"]
    if arguments["method"] == "student":
        return Theory(d / x, 1.0, "planted limit")
    exponent = EXPONENTS[arguments["method"]]
    return Theory(d * x**-exponent, exponent, "planted curve")


@experiment(
    static=("method",),
    curve="method",
    theory=_theory,
    work="student_steps",
    cost=lambda arguments: Cost(products=float(arguments["n"])),
    labels={
        "risk": "excess risk",
        "n": "sample size n",
        "student": "two-phase student",
        "ridge": "ridge [with brackets]",
        "optimal_linear": "optimal linear estimator",
        "cramer_rao": "Cramér-Rao limit",
    },
)
def toy(
    key,
    *,
    method: Literal["student", "ridge", "optimal_linear"],
    n: Annotated[int, Field(ge=2)],
    d: int = 5,
    failing: float = 0.0,
):
    exponent = EXPONENTS[method]
    noise = _noise(jax.random.fold_in(key, n))
    # The seed's first uniform number decides about failure, the same at every n.
    failed = jax.random.uniform(key) < failing
    values = {
        "status": jnp.where(failed, 2, 0),
        "risk": jnp.where(failed, jnp.nan, 1.1 * d * jnp.power(jnp.asarray(n, jnp.float64), -exponent) * noise),
        "cramer_rao": d / n,
    }
    return {**values, "student_steps": 1000} if method == "student" else values


@experiment(x="step", y=("risk", "train_loss"), labels={"step": "gradient step", "risk": "excess risk (exact)"})
def path(key, *, speed: float = 1.0):
    step = jnp.arange(0, 300, 10)
    noise = _noise(key)
    risk = jnp.exp(-0.01 * speed * step) * noise
    return {"status": 0, "step": step, "risk": risk, "train_loss": 0.5 * risk}


@experiment(
    static=("method",),
    curve="method",
    y=("risk", "success"),
    labels={"n": "sample size n", "risk": "excess risk", "d": "dimension d", "student": "two-phase student"},
)
def found(key, *, method: Literal["student", "plain"], n: int, d: int):
    """Successes and alignments that are recorded, beside risks."""
    key = jax.random.fold_in(key, n * d)
    success = jax.random.uniform(key) < (1.0 if method == "student" else n / (n + 10.0 * d))
    alignment = 1.0 - jnp.where(success, 0.01, 0.5) * _noise(key)
    return {"status": 0, "risk": d / n * _noise(key), "success": success.astype(jnp.int32), "alignment": alignment}


@experiment
def bare(key, *, n: int, d: int = 2):
    return {"risk": _noise(jax.random.fold_in(key, n)) / n}


def toy_spec(**changes) -> SweepSpec:
    content = {
        "claim": "A <script>alert('x')</script> claim & [bold]markup[/bold].",
        "source": "planted",
        "study": "conftest:toy",
        "grid": {"n": [128, 256, 512, 1024], "method": list(EXPONENTS), "seeds": 24},
        "expect": [
            {"what": "rate of student in n", "value": 1.0, "tolerance": 0.3, "source": "planted"},
            {"what": "rate of ridge in n", "at_least": 0.9},
            {"what": "risk of student relative to cramer_rao", "at_most": 1.1, "over": {"n": 1024}},
        ],
    }
    return parse_spec({**content, **changes})


@pytest.fixture(scope="session")
def make_toy():
    """Runs the toy experiment with another spec; keyword arguments replace tables of the spec."""
    return lambda out=None, listener=None, chunk=64, commit_seconds=2.0, **changes: run_spec(
        toy_spec(**changes), out=out, listener=listener, chunk=chunk, commit_seconds=commit_seconds, experiment=toy
    )


@pytest.fixture(scope="session")
def toy_result(make_toy) -> Result:
    """Three curves with theory, limit and verdicts of every outcome."""
    return make_toy()


@pytest.fixture(scope="session")
def many_result(make_toy) -> Result:
    """Six curves, of two learners at three d, with a share of failures."""
    return make_toy(
        grid={"n": [128, 512], "method": ["student", "ridge"], "d": [2, 5, 10], "failing": 0.3, "seeds": 6}, expect=[]
    )


@pytest.fixture(scope="session")
def panels_result(make_toy) -> Result:
    """Three learners at three d: a panel for each d."""
    return make_toy(grid={"n": [128, 512], "method": list(EXPONENTS), "d": [2, 5, 10], "seeds": 6}, expect=[])


@pytest.fixture(scope="session")
def path_result() -> Result:
    """x is a returned vector that begins at 0; no curve argument, no theory, no expectation."""
    return sweep(path, seeds=5, speed=[1.0, 2.0])


@pytest.fixture(scope="session")
def found_result() -> Result:
    """Two axes of numbers, successes and alignments."""
    return sweep(found, seeds=12, method=["student", "plain"], n=[16, 64, 256], d=[2, 8])


@pytest.fixture(scope="session")
def bare_result() -> Result:
    """One curve, one seed, no status, no labels, no theory."""
    return sweep(bare, seeds=1, n=[10, 20, 40])
