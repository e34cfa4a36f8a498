"""What the cells of studies share: learners in one table, and one fit of one learner with its risk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .. import activations
from ..estimators.base import AbstractEstimator, AbstractFit
from ..problem import AbstractInputs, Cube, Gaussian, Problem, ReLUTeacher, Sphere, TwoLayerTeacher
from ..risk import Risk, population_risk
from ..size import Size
from ..sweep.experiment import Cost, Theory
from ..task import Dataset

_INPUTS: dict[str, Callable[[int], AbstractInputs]] = {"sphere": Sphere, "gaussian": Gaussian, "cube": Cube}
ACTIVATIONS = {
    "relu": activations.relu,
    "leaky_relu": activations.leaky_relu(0.1),
    "quadratic": activations.quadratic,
    "erf": activations.erf,
}
"""Activations by the names that specs give them."""


def problem_of(arguments: dict[str, Any]) -> Problem:
    """The problem that the arguments of a cell describe."""
    teacher = {name: arguments[name] for name in ("m", "signs", "cosine")}
    activation = ACTIVATIONS[arguments.get("activation", "relu")]
    return Problem(
        inputs=_INPUTS[arguments["inputs"]](arguments["d"]),
        teacher=ReLUTeacher(**teacher)
        if activation == activations.relu
        else TwoLayerTeacher(activation=activation, **teacher),
        noise_std=arguments["noise_std"],
        noise=arguments.get("noise", "gaussian"),
    )


@dataclass(frozen=True)
class Choice:
    """One learner of a study: what it is called, how it is made of the arguments of a cell, and what theory and planning say.

    - `label`: its name in tables and figures.
    - `make(arguments)`: the estimator. Its errors are those of the arguments.
    - `theory(arguments, n)`: the `Theory` of its curve at the sizes n; none when None.
    - `cost(arguments)`: the `Cost` of one cell.
    """

    label: str
    make: Callable[[dict[str, Any]], AbstractEstimator]
    theory: Callable[[dict[str, Any], np.ndarray], Theory] | None = None
    cost: Callable[[dict[str, Any]], Cost] | None = None


class Choices(dict[str, Choice]):
    """The learners of a study by the names that specs give them."""

    @property
    def names(self) -> Any:
        """The type of an argument that takes one of these names."""
        return Literal[tuple(self)]

    @property
    def labels(self) -> Mapping[str, str]:
        """What tables and figures call them."""
        return {name: choice.label for name, choice in self.items()}

    def theory(self, argument: str) -> Callable[[dict[str, Any], np.ndarray], Theory]:
        """`Experiment.theory` of a study whose argument of this name chooses."""

        def of(arguments: dict[str, Any], n: np.ndarray) -> Theory:
            chosen = self[arguments[argument]].theory
            return Theory() if chosen is None else chosen(arguments, n)

        return of

    def cost(self, argument: str) -> Callable[[dict[str, Any]], Cost]:
        """`Experiment.cost` of a study whose argument of this name chooses."""

        def of(arguments: dict[str, Any]) -> Cost:
            chosen = self[arguments[argument]].cost
            return Cost(0.0) if chosen is None else chosen(arguments)

        return of


class Trial(NamedTuple):
    """One data set of one teacher, a fit to it, and its risk, NaN where the fit failed."""

    teacher: Any
    data: Dataset
    fit: AbstractFit
    risk: Risk


def trial(
    key: PRNGKeyArray, problem: Problem, learner: AbstractEstimator, n: Size, dtype: Any, test_points: int = 16384
) -> Trial:
    """Draws a teacher and a data set of size n in `dtype`, fits the learner, and measures its risk, exactly where that can be,
    else at `test_points` fresh points.

    One teacher per key at every n; independent data at every n (of one key, the larger set would contain the smaller).
    """
    teacher_key, data_key, fit_key, test_key = (jax.random.fold_in(key, i) for i in range(4))
    teacher = problem.sample_teacher(teacher_key, jnp.dtype(dtype))
    data = problem.sample(jax.random.fold_in(data_key, n.count), teacher, n, jnp.dtype(dtype))
    oracle = {"oracle": (problem, teacher)} if learner.needs_oracle else {}
    fit = learner.fit(jax.random.fold_in(fit_key, n.count), data, **oracle)
    return Trial(teacher, data, fit, population_risk(problem, teacher, fit, test_key, test_points))


def scalars(fit: AbstractFit, **renamed: str) -> dict[str, Any]:
    """The numbers of `fit.stats` for records: those of `renamed`, column=statistic; all scalars without it."""
    if renamed:
        return {column: fit.stats[name] for column, name in renamed.items() if name in fit.stats}
    return {name: value for name, value in fit.stats.items() if value.ndim == 0}
