"""The two-phase student and its ablations, which each change one thing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optax

from .. import theory
from ..estimators.base import AbstractEstimator
from ..estimators.features import RandomFeatures
from ..estimators.gradient import GradientStudent
from ..estimators.phases import NoisyPhase, VanillaPhase, noisy_steps
from ..estimators.pruning import REFIT_STEPS
from ..estimators.two_phase import TwoPhaseStudent
from ..sweep.experiment import Cost, Theory
from .cell import ACTIVATIONS, Choice, Choices

Make = Callable[[dict[str, Any]], AbstractEstimator]


def _limit(arguments: dict[str, Any], n: np.ndarray) -> Theory:
    m, d, noise_std = arguments["m"], arguments["d"], arguments["noise_std"]
    # If the activation is not homogeneous, each neuron's output weight is a parameter of its own.
    own = d + (ACTIVATIONS[arguments["activation"]].degree is None)
    limit = np.asarray([theory.cramer_rao(m=m, d=own, n=size, noise_std=noise_std) for size in n])
    return Theory(limit, 1.0, "Cramér-Rao limit σ² m d / n; parametric rate, arXiv:2205.14818 theorem 4.5")


def _choice(label: str, make: Make, neurons: Callable[[dict[str, Any], int], float]) -> Choice:
    """A learner. `neurons(arguments, width)` is the number of neurons trained times the number of steps over all data, summed
    over restarts; `width` is `explored`, or 2 m."""

    def cost(arguments: dict[str, Any]) -> Cost:
        width = arguments["explored"] or 2 * arguments["m"]
        return Cost(products=6.0 * neurons(arguments, width) * arguments["n"] * arguments["d"])

    return Choice(label, make, _limit, cost)


def _common(a: dict[str, Any]) -> dict[str, Any]:
    return {"init_output_std": a["init_output_std"], "activation": ACTIVATIONS[a["activation"]]}


def _pruned(label: str, width: Callable[[dict[str, Any]], Any], explored: Callable[[dict[str, Any]], int]) -> Choice:
    """A two-phase student that starts phase I with spare neurons."""

    def neurons(a: dict[str, Any], _: int) -> float:
        wide = a["explored"] or explored(a)
        assumed = a["m"] if width(a) != "auto" else (wide + 1) // 2
        steps = noisy_steps(assumed, spare=wide > assumed) * min(1.0, 64 * assumed * a["d"] / a["n"])
        return 2 * (steps * wide + REFIT_STEPS * wide * wide / 2 + 400 * a["m"])

    make = lambda a: TwoPhaseStudent(width(a), noisy=NoisyPhase(width=a["explored"] or None), **_common(a))
    return _choice(label, make, neurons)


def _same(label: str, runs: int, noisy: dict[str, Any] | None = None, vanilla: dict[str, Any] | None = None) -> Choice:
    """A student with the teacher's width in both phases: the best of `runs` runs."""

    def make(a: dict[str, Any]) -> AbstractEstimator:
        phases = {"noisy": NoisyPhase(width=a["m"], **(noisy or {})), "vanilla": VanillaPhase(**(vanilla or {}))}
        return TwoPhaseStudent(a["m"], restarts=runs, agreement=None if runs > 1 else 0.5, **phases, **_common(a))

    return _choice(label, make, lambda a, _: runs * a["m"] * _both_phases(a, a["m"]))


def _both_phases(a: dict[str, Any], width: int) -> float:
    return noisy_steps(width, spare=False) * min(1.0, 64 * width * a["d"] / a["n"]) + 400


def _gradient(label: str, options: Callable[[dict[str, Any], int], dict[str, Any]]) -> Choice:
    """A one-phase student of width `explored`, or 2 m."""

    def make(a: dict[str, Any]) -> AbstractEstimator:
        width = a["explored"] or 2 * a["m"]
        return GradientStudent(width, **{**_common(a), **options(a, width)})

    def neurons(a: dict[str, Any], width: int) -> float:
        return (4000 + 1000 * width) * width * (options(a, width).get("batch_size", a["n"]) / a["n"])

    return _choice(label, make, neurons)


def _adam(a: dict[str, Any], width: int) -> dict[str, Any]:
    # One batch holds all rows: gradients are full, but training does not stop at a flat saddle.
    steps = 4000 + 1000 * width
    schedule = optax.cosine_decay_schedule(0.01, steps)
    return {"optimizer": optax.adam(schedule), "steps": steps, "batch_size": a["n"]}


def _unpruned(a: dict[str, Any]) -> AbstractEstimator:
    width = a["explored"] or 2 * a["m"]
    return TwoPhaseStudent(width, noisy=NoisyPhase(width=width), **_common(a))


LEARNERS = Choices(
    student=_pruned("two-phase student", lambda a: a["m"], lambda a: 2 * a["m"]),
    auto=_pruned("student of unknown width", lambda a: "auto", lambda a: 2 * a["d"]),
    unpruned=_choice("wide, not pruned", _unpruned, lambda a, width: 2 * width * _both_phases(a, width)),
    plain=_same("same width, best of 4", 4),
    noisy=_same("same width, one run", 1),
    no_noise=_same("same width, no noise", 1, noisy={"temperature": 0.0}),
    no_phase_two=_same("same width, no phase II", 1, vanilla={"max_steps": 0}),
    adam=_gradient("Adam", _adam),
    sgd=_gradient("mini-batch SGD", lambda a, width: {"batch_size": min(a["n"], 32)}),
    online=_gradient("one pass of SGD", lambda a, width: {"batch_size": min(a["n"], 32), "epochs": 1}),
    # Random neurons with output weights that are solved for exactly.
    frozen=_choice(
        "frozen first layer",
        lambda a: RandomFeatures(a["explored"] or 2 * a["m"]),
        # The features, and their products with one another.
        lambda a, width: width * (1 + width / a["d"]),
    ),
    # Output weights are as large as the neurons, so both layers contribute to the kernel.
    lazy=_gradient("lazy (scale 100)", lambda a, width: {"output_scale": 100.0, "init_output_std": 0.7}),
    linearised=_gradient("linearised network", lambda a, width: {"linearised": True, "init_output_std": 0.7}),
)
"""The learners of the study `recovery`."""
