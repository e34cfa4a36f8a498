"""Code shared by the cells of studies: tables of learners, and one fit of one learner with its risk."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .. import activations
from ..estimators.base import AbstractEstimator, AbstractFit
from ..kernels import AbstractKernel, Switch
from ..oneof import OneOf
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
"""Activations by their names in sweep files."""


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
    """One learner of a study: its label, how to make it from the arguments of a cell, its theory, and its cost.

    - `label`: its name in tables and figures.
    - `make(arguments)`: the estimator. The errors that it raises are about the arguments.
    - `theory(arguments, n)`: the `Theory` of its curve at the sizes n; if None, there is none.
    - `cost(arguments)`: the `Cost` of one cell.
    - `kernel()`: the kernel, if learners with another kernel are the same estimator in all else; they then share programs.
    """

    label: str
    make: Callable[[dict[str, Any]], AbstractEstimator]
    theory: Callable[[dict[str, Any], np.ndarray], Theory] | None = None
    cost: Callable[[dict[str, Any]], Cost] | None = None
    kernel: Callable[[], AbstractKernel] | None = None


class Choices(dict[str, Choice]):
    """The learners of a study by their names in sweep files."""

    @property
    def names(self) -> Any:
        """The type of an argument that takes one of these names."""
        return Literal[tuple(self)]

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels in tables and figures, by name."""
        return {name: choice.label for name, choice in self.items()}

    @property
    def together(self) -> tuple[tuple[str, ...], ...]:
        """The learners that differ only in their kernels, for `Experiment.together`."""
        return (tuple(name for name, choice in self.items() if choice.kernel is not None),)

    def make(self, chosen: str | OneOf, arguments: dict[str, Any]) -> AbstractEstimator:
        """The estimator of a learner, or of several that differ only in their kernels."""
        names, index = (chosen.values, chosen.index) if isinstance(chosen, OneOf) else ((chosen,), 0)
        made: Any = self[names[0]].make(arguments)
        if len(names) == 1:
            return made
        kernels = tuple(kernel() for name in names if (kernel := self[name].kernel) is not None)
        return dataclasses.replace(made, kernel=Switch(kernels, index))

    def theory(self, argument: str) -> Callable[[dict[str, Any], np.ndarray], Theory]:
        """`Experiment.theory` for a study in which `argument` names the learner."""

        def of(arguments: dict[str, Any], n: np.ndarray) -> Theory:
            chosen = self[arguments[argument]].theory
            return Theory() if chosen is None else chosen(arguments, n)

        return of

    def cost(self, argument: str) -> Callable[[dict[str, Any]], Cost]:
        """`Experiment.cost` for a study in which `argument` names the learner."""

        def of(arguments: dict[str, Any]) -> Cost:
            chosen = self[arguments[argument]].cost
            return Cost(0.0) if chosen is None else chosen(arguments)

        return of


class Trial(NamedTuple):
    """A teacher, a data set of it, a fit to that, and the risk of the fit, NaN if it failed."""

    teacher: Any
    data: Dataset
    fit: AbstractFit
    risk: Risk


def trial(
    key: PRNGKeyArray, problem: Problem, learner: AbstractEstimator, n: Size, dtype: Any, test_points: int = 16384
) -> Trial:
    """Draws a teacher and a data set of size n in `dtype`, fits the learner, and measures its risk, exactly if there is a
    closed form, otherwise at `test_points` fresh points.

    A key has the same teacher at every n, and independent data at every n (drawn from one key, the larger set would contain the
    smaller).
    """
    teacher_key, data_key, fit_key, test_key = (jax.random.fold_in(key, i) for i in range(4))
    teacher = problem.sample_teacher(teacher_key, jnp.dtype(dtype))
    data = problem.sample(jax.random.fold_in(data_key, n.count), teacher, n, jnp.dtype(dtype))
    oracle = {"oracle": (problem, teacher)} if learner.needs_oracle else {}
    fit = learner.fit(jax.random.fold_in(fit_key, n.count), data, **oracle)
    return Trial(teacher, data, fit, population_risk(problem, teacher, fit, test_key, test_points))


def scalars(fit: AbstractFit, **renamed: str) -> dict[str, Any]:
    """Numbers of `fit.stats` for records: with `renamed`, given as column=statistic, those named; otherwise all scalars."""
    if renamed:
        return {column: fit.stats[name] for column, name in renamed.items() if name in fit.stats}
    return {name: value for name, value in fit.stats.items() if value.ndim == 0}
