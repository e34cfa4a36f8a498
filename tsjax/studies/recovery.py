"""Does a student find its teacher, how surely, and at what cost: the two-phase student beside its ablations.

One cell trains one learner on one data set and compares it with the oracle student, phase II started at the teacher. The
learners differ from the two-phase student in one thing each, so that a sweep over them shows what makes the difference.
"""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field, model_validator

from .. import activations, theory
from ..estimators.base import AbstractEstimator, Status
from ..estimators.features import RandomFeatures
from ..estimators.gradient import GradientStudent
from ..estimators.phases import NoisyPhase, VanillaPhase, noisy_steps
from ..estimators.pruning import REFIT_STEPS
from ..estimators.student import TwoPhaseStudent
from ..problem import AbstractInputs, Gaussian, Problem, Sphere, TwoLayerTeacher
from ..recovery import recovery as measure_recovery
from ..risk import exact_risk, monte_carlo_risk
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from .citations import AKIYAMA_SUZUKI

_INPUTS: dict[str, type[AbstractInputs]] = {"sphere": Sphere, "gaussian": Gaussian}
_ACTIVATIONS = {
    "relu": activations.relu,
    "leaky_relu": activations.leaky_relu(0.1),
    "quadratic": activations.quadratic,
    "erf": activations.erf,
}
# Same-width students are single runs, so that their success is that of one run; `plain` repeats them.
_SAME_WIDTH = ("noisy", "no_noise", "no_phase_two")

Learner = Literal[
    "student", "auto", "unpruned", "plain", "noisy", "no_noise", "no_phase_two",
    "adam", "sgd", "online", "frozen", "lazy", "linearised",
]  # fmt: skip


class RecoveryArguments(Arguments):
    """Problem, learner and sample size of one cell.

    `explored` is the number of neurons of phase I (`student`, `auto`) or of the network (`unpruned` and the one-phase
    learners); 0 is the formula, 2 d for `auto` and 2 m for the others. `init_output_std` is that of the initial output
    weights, but in the kernel regime (`lazy`, `linearised`), where they are as large as the neurons, and for `frozen`,
    which has none.
    """

    learner: Learner
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
        # The classes know what they allow; their messages say what to do.
        arguments = self.model_dump()
        _problem(arguments)
        if self.learner == "frozen" and self.activation != "relu":
            raise ValueError(
                "learner 'frozen' has relu features only; leave out `activation` or choose another learner."
            )
        _learner(self.learner, self.m, self.n, self.explored, self.init_output_std, self.activation)
        if self.explored and self.learner in (*_SAME_WIDTH, "plain"):
            raise ValueError(f"learner {self.learner!r} has the teacher's width in both phases; leave out `explored`.")
        return self


def _problem(arguments: dict[str, Any]) -> Problem:
    return Problem(
        inputs=_INPUTS[arguments["inputs"]](arguments["d"]),
        teacher=TwoLayerTeacher(
            m=arguments["m"],
            activation=_ACTIVATIONS[arguments["activation"]],
            signs=arguments["signs"],
            cosine=arguments["cosine"],
        ),
        noise_std=arguments["noise_std"],
    )


def _learner(name: str, m: int, n: int, explored: int, init_output_std, activation: str) -> AbstractEstimator:
    common = {"init_output_std": init_output_std, "activation": _ACTIVATIONS[activation]}
    if name in ("student", "auto"):
        width = m if name == "student" else "auto"
        return TwoPhaseStudent(width, noisy=NoisyPhase(width=explored or None), **common)
    if name == "unpruned":
        return TwoPhaseStudent(explored or 2 * m, noisy=NoisyPhase(width=explored or 2 * m), **common)
    if name == "plain":
        return TwoPhaseStudent(m, restarts=4, agreement=None, noisy=NoisyPhase(width=m), **common)
    if name in _SAME_WIDTH:
        noisy = NoisyPhase(width=m, temperature=0.0 if name == "no_noise" else None)
        vanilla = VanillaPhase(max_steps=0 if name == "no_phase_two" else None)
        return TwoPhaseStudent(m, restarts=1, noisy=noisy, vanilla=vanilla, **common)
    width = explored or 2 * m
    if name == "frozen":
        # The best output weights on random neurons, solved for exactly.
        return RandomFeatures(width)
    if name == "adam":
        steps = 4000 + 1000 * width
        # Batches of everything: full gradients, but no end at a flat saddle.
        optimizer = optax.adam(optax.cosine_decay_schedule(0.01, steps))
        return GradientStudent(width, optimizer, steps, batch_size=n, **common)
    if name == "sgd":
        return GradientStudent(width, batch_size=min(n, 32), **common)
    if name == "online":
        return GradientStudent(width, batch_size=min(n, 32), epochs=1, **common)
    # Output weights of the size of the neurons: both layers take part in the kernel.
    common["init_output_std"] = 0.7
    if name == "lazy":
        return GradientStudent(width, output_scale=100.0, **common)
    return GradientStudent(width, linearised=True, **common)


def _theory(arguments: dict[str, Any], n: np.ndarray) -> Theory:
    m, d, noise_std = arguments["m"], arguments["d"], arguments["noise_std"]
    # A non-homogeneous neuron has an output weight of its own.
    own = d + (_ACTIVATIONS[arguments["activation"]].degree is None)
    limit = np.asarray([theory.cramer_rao(m=m, d=own, n=size, noise_std=noise_std) for size in n])
    return Theory(limit, 1.0, "Cramér-Rao limit σ² m d / n; parametric rate, arXiv:2205.14818 theorem 4.5")


def _cost(arguments: dict[str, Any]) -> Cost:
    """Leading terms: products of the training steps."""
    n, d, m, name = arguments["n"], arguments["d"], arguments["m"], arguments["learner"]
    explored = arguments["explored"] or (2 * d if name == "auto" else 2 * m)
    if name in ("student", "auto"):
        assumed = m if name == "student" else (explored + 1) // 2
        sampled = min(n, 64 * assumed * d)
        exploring = noisy_steps(assumed, spare=explored > assumed) * explored * sampled / n
        neurons = 2 * (exploring + REFIT_STEPS * explored * explored / 2 + 400 * m)
    elif name in (*_SAME_WIDTH, "plain", "unpruned"):
        width, runs = (explored, 2) if name == "unpruned" else (m, 4 if name == "plain" else 1)
        neurons = runs * width * (noisy_steps(width, spare=False) * min(n, 64 * width * d) / n + 400)
    else:
        neurons = (4000 + 1000 * explored) * explored * (1.0 if name not in ("sgd", "online") else min(n, 32) / n)
    return Cost(products=6.0 * neurons * n * d)


@experiment(
    static=("learner", "n", "d", "m", "inputs", "signs", "activation", "explored", "dtype"),
    arguments=RecoveryArguments,
    version=2,
    x="n",
    y=("risk", "success"),
    curve="learner",
    theory=_theory,
    work="total_steps",
    cost=_cost,
    cite=AKIYAMA_SUZUKI,
    labels={
        "n": "sample size n",
        "risk": "excess risk",
        "success": "success (training loss)",
        "student": "two-phase student",
        "auto": "student of unknown width",
        "unpruned": "wide, not pruned",
        "plain": "same width, best of 4",
        "noisy": "same width, one run",
        "no_noise": "same width, no noise",
        "no_phase_two": "same width, no phase II",
        "adam": "Adam",
        "sgd": "mini-batch SGD",
        "online": "one pass of SGD",
        "frozen": "frozen first layer",
        "lazy": "lazy (scale 100)",
        "linearised": "linearised network",
        "cramer_rao": "Cramér-Rao limit",
    },
)
def recovery(key, *, learner, n, d, m, activation, explored, init_output_std, dtype, **rest):
    """Trains one learner on one data set; returns its `tsjax.Recovery` and what it cost.

    `success` looks at the training loss alone: of networks with many more parameters than the teacher it says that they fit,
    not that they found it. `total_steps` counts gradient steps over all restarts; `cost` is total_steps times the samples
    each of them saw, and `neuron_cost` that times the neurons trained. Risks are exact where a closed form exists, else a
    Monte-Carlo estimate.
    """
    problem = _problem({"n": n, "d": d, "m": m, "activation": activation, **rest})
    teacher_key, data_key, fit_key, test_key = (jax.random.fold_in(key, i) for i in range(4))
    # One teacher per seed at every n; independent data at every n (of one key, the larger set would contain the smaller).
    teacher = problem.sample_teacher(teacher_key, jnp.dtype(dtype))
    data = problem.sample(jax.random.fold_in(data_key, n), teacher, n, jnp.dtype(dtype))
    student = _learner(learner, m, n, explored, init_output_std, activation)
    fit = student.fit(jax.random.fold_in(fit_key, n), data)
    found = measure_recovery(problem, teacher, data, fit)
    values = found._asdict() | {"success": found.success.astype(jnp.int32)}
    if exact_risk(problem, teacher, fit) is None:
        values["risk"] = monte_carlo_risk(problem, teacher, fit, test_key).value
    # Columns of all learners alike; a direct solver takes no steps.
    for column, name in (
        ("restarts_run", "restarts_run"), ("total_steps", "total_steps"), ("cost", "sample_steps"),
        ("neuron_cost", "neuron_steps"),
    ):  # fmt: skip
        values[column] = fit.stats.get(name, jnp.zeros((), jnp.int32))
    failed = (fit.status == Status.DIVERGED) | (fit.status == Status.SINGULAR)
    values["risk"] = jnp.where(failed, jnp.nan, values["risk"])
    return {"status": fit.status, **values}
