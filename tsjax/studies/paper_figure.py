"""The one experiment of arXiv:2205.14818 (section 5): training and test loss against steps through both phases.

d = m = 50, orthonormal teacher neurons, half the signs negative, n = 1000, eta = 0.01, beta = 100, lambda = 0.01, 1000
steps of noisy and 2000 of vanilla gradient descent. The paper states neither the clip radius R nor the noise of y.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from ..estimators.two_phase import TwoPhaseStudent
from ..problem import Problem, ReLUTeacher, Sphere
from ..risk import network_risk
from ..sweep.experiment import Arguments, experiment
from .citations import AKIYAMA_SUZUKI


class PaperFigureArguments(Arguments):
    """The problem and the settings; the defaults are the paper's."""

    settings: Annotated[str, Field(pattern="^(paper|tuned)$")] = "paper"
    n: Annotated[int, Field(ge=2)] = 1000
    d: Annotated[int, Field(ge=2)] = 50
    m: Annotated[int, Field(ge=1)] = 50
    noise_std: Annotated[float, Field(ge=0)] = 0.1
    noisy_steps: Annotated[int, Field(ge=1)] = 1000
    vanilla_steps: Annotated[int, Field(ge=1)] = 2000
    points: Annotated[int, Field(ge=2)] = 60

    @model_validator(mode="after")
    def _consistent(self):
        ReLUTeacher(m=self.m, signs="alternating").check(self.d)
        return self


def _marks(steps: int, points: int) -> tuple[int, ...]:
    """About `points` steps from 0 to `steps`, evenly spaced."""
    return tuple(sorted({round(i * steps / points) for i in range(points + 1)}))


@experiment(
    static=("settings", "n", "d", "m", "noisy_steps", "vanilla_steps", "points"),
    arguments=PaperFigureArguments,
    version=2,
    x="step",
    y=("risk", "train_loss"),
    curve="settings",
    cite=AKIYAMA_SUZUKI,
    labels={
        "step": "gradient step",
        "risk": "excess risk (exact)",
        "train_loss": "training loss",
        "paper": "the paper's settings",
        "tuned": "tsjax's defaults",
    },
)
def paper_figure(key, *, settings, n, d, m, noise_std, noisy_steps, vanilla_steps, points) -> dict[str, Any]:
    """Trains one student and returns its path: vectors `step` (counted through both phases), `risk` (exact) and
    `train_loss` (half mean squared error, without the penalty)."""
    problem = Problem(Sphere(d), ReLUTeacher(m, signs="alternating"), noise_std=noise_std)
    teacher_key, data_key, fit_key = (jax.random.fold_in(key, i) for i in range(3))
    teacher = problem.sample_teacher(teacher_key, jnp.float32)
    data = problem.sample(data_key, teacher, n, jnp.float32)
    student = TwoPhaseStudent.paper(width=m) if settings == "paper" else TwoPhaseStudent(width=m)
    student = dataclasses.replace(
        student,
        noisy=dataclasses.replace(student.noisy, steps=noisy_steps),
        vanilla=dataclasses.replace(student.vanilla, max_steps=vanilla_steps),
    )
    # The switch does not change the network's function, so step `noisy_steps` of phase I is step 0 of phase II.
    phase_one, phase_two = _marks(noisy_steps, points), _marks(vanilla_steps, points)[1:]
    fit = student.fit(
        fit_key,
        data,
        probe=lambda net: {"risk": network_risk(net, teacher, problem.inputs)},
        probe_steps=(phase_one, phase_two),
    )
    steps = jnp.asarray([*phase_one, *(noisy_steps + step for step in phase_two)])
    return {"status": fit.status, **fit.stats["trajectory"], "step": steps}
