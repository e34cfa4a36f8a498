"""Does a student find its teacher, how reliably, and at what cost? The two-phase student and its ablations.

One cell trains one learner on one data set and compares it with the oracle student, which runs phase II from the teacher. Each
learner changes one thing about the two-phase student, so that a sweep over them shows which parts matter.
"""

from typing import Annotated, Literal

import jax.numpy as jnp
from pydantic import Field, model_validator

from ..recovery import recovery as measure_recovery
from ..sweep.experiment import Arguments, experiment
from .ablations import LEARNERS
from .cell import problem_of, scalars, trial
from .citations import AKIYAMA_SUZUKI


class RecoveryArguments(Arguments):
    """Problem, learner and sample size of one cell.

    `explored` is the number of neurons in phase I (`student`, `auto`) or of the network (`unpruned` and the one-phase
    learners); 0 means 2 d for `auto` and 2 m for the others. `init_output_std` is the standard deviation of the initial output
    weights, except in the kernel regime (`lazy`, `linearised`), where they are as large as the neurons, and for `frozen`, which
    has none.
    """

    learner: LEARNERS.names  # pyright: ignore[reportInvalidTypeForm]
    n: Annotated[int, Field(ge=2)]
    d: Annotated[int, Field(ge=2)]
    m: Annotated[int, Field(ge=1)]
    noise_std: Annotated[float, Field(gt=0)]
    inputs: Literal["sphere", "gaussian"] = "sphere"
    signs: Literal["random", "alternating", "positive"] = "random"
    cosine: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    activation: Literal["relu", "leaky_relu", "quadratic", "erf"] = "relu"
    explored: Annotated[int, Field(ge=0)] = 0
    init_output_std: Annotated[float, Field(ge=0)] = 0.1
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _consistent(self):
        # The classes check their own arguments, and their messages say what to do.
        arguments = self.model_dump()
        problem_of(arguments)
        if self.learner == "frozen" and self.activation != "relu":
            raise ValueError(
                "learner 'frozen' has relu features only; leave out `activation` or choose another learner."
            )
        LEARNERS[self.learner].make(arguments)
        if self.explored and self.learner in ("plain", "noisy", "no_noise", "no_phase_two"):
            raise ValueError(f"learner {self.learner!r} has the teacher's width in both phases; leave out `explored`.")
        return self


@experiment(
    static=("learner", "d", "m", "inputs", "signs", "activation", "explored", "dtype"),
    sized=("n",),
    arguments=RecoveryArguments,
    version=2,
    x="n",
    y=("risk", "success"),
    curve="learner",
    theory=LEARNERS.theory("learner"),
    work="total_steps",
    cost=LEARNERS.cost("learner"),
    cite=AKIYAMA_SUZUKI,
    labels={
        "n": "sample size n", "risk": "excess risk", "success": "success (training loss)", "cramer_rao": "Cramér-Rao limit",
        **LEARNERS.labels,
    },
)  # fmt: skip
def recovery(key, *, learner, n, dtype, **rest):
    """Trains one learner on one data set; returns its `tsjax.Recovery` and its cost.

    `success` depends on the training loss alone: a network with many more parameters than the teacher may fit the data without
    having found the teacher. `total_steps` counts gradient steps over all restarts; `cost` is total_steps times the samples in
    each step, and `neuron_cost` is that times the neurons trained. Risks are exact if a closed form exists, otherwise
    Monte-Carlo estimates.
    """
    arguments = {"n": n.limit, **rest}
    problem = problem_of(arguments)
    teacher, data, fit, risk = trial(key, problem, LEARNERS[learner].make(arguments), n, dtype)
    found = measure_recovery(problem, teacher, data, fit)
    values = found._asdict() | {"success": found.success.astype(jnp.int32), "risk": risk.value}
    # All learners have the same columns; a direct solver takes no steps.
    counted = scalars(
        fit, restarts_run="restarts_run", total_steps="total_steps", cost="sample_steps", neuron_cost="neuron_steps"
    )
    nothing = dict.fromkeys(("restarts_run", "total_steps", "cost", "neuron_cost"), jnp.zeros((), jnp.int32))
    return {"status": fit.status, **values, **nothing, **counted}
