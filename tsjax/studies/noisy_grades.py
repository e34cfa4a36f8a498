"""Multi-grade learning under label noise, compared with one network that is stopped early. The experiment follows Xu 2023
(arXiv:2302.00150), whose code has one on MNIST with 20 % of noisy labels (github.com/Yuesheng2024Xu/MGDL).

Here the data are the digits of scikit-learn. A share `noise` of the labels is replaced by labels drawn uniformly from all ten
classes, and the responses are the labels as unit vectors. Grade l trains a shallow network on the residuals of the grades
before it, by Adam at a constant rate in mini-batches of 32, for `epochs` passes; the loss is half of the mean squared distance.
One network of the same depth is trained end to end, at the same cost: passes times trained parameters.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from pydantic import Field, model_validator

from ..estimators.student import Student
from ..rates.kinds import Positive, Share
from ..status import Status, failed
from ..sweep.experiment import Arguments, Cost, experiment
from ..task import Dataset
from .citations import XU_MULTI_GRADE
from .finite_width import CLASSES, accuracy_of, problem_of
from .grades import Grade, Start, parameters
from .learned_subspaces import with_noise

_LAYER = 64
LEARNERS = {
    "multi": (Grade((("relu", (_LAYER, _LAYER)),), 1e-3, 0),) * 4,
    "single": (Grade((("relu", (_LAYER,) * 8),), 1e-3, 0),),
}
"""The grades of each learner; their length is the argument `epochs`."""
BATCH = 32


class NoisyGradesArguments(Arguments):
    """One learner after `epochs` epochs of each grade, on `n` digits with a share `noise` of random labels."""

    learner: Literal[tuple(LEARNERS)]  # pyright: ignore[reportInvalidTypeForm]
    epochs: Annotated[int, Field(ge=1)]
    noise: Annotated[float, Field(ge=0, le=1)] = 0.2
    n: Annotated[int, Field(ge=BATCH)] = 1000
    test_points: Annotated[int, Field(ge=2)] = 797

    @model_validator(mode="after")
    def _there_are_so_many(self):
        largest = problem_of(self.test_points).largest_n
        if self.n > largest:
            raise ValueError(f"n = {self.n} is more than the {largest} digits that are not held out")
        return self


def _cost(arguments) -> Cost:
    total, inputs = 0.0, 64
    for grade in LEARNERS[arguments["learner"]]:
        total += 6.0 * parameters(grade, inputs, CLASSES) * arguments["epochs"] * arguments["n"]
        inputs = grade.blocks[-1][1][-1]
    return Cost(total)


@experiment(
    static=("learner", "epochs", "n", "test_points"),
    arguments=NoisyGradesArguments,
    x="epochs", y=("accuracy", "fitted"), curve="learner", rates=False, x64=False,
    metrics={"accuracy": Share(trials="test_points"), "fitted": Share(trials="n"), "cost": Positive()},
    cost=_cost, cite=XU_MULTI_GRADE,
    labels={
        "epochs": "epochs of each grade", "accuracy": "test accuracy", "fitted": "share of training labels fitted",
        "multi": "four grades", "single": "one network, end to end", "noise": "label noise",
        "cost": "steps times parameters times rows",
    },
)  # fmt: skip
def noisy_grades(key, *, learner, epochs, noise, n, test_points):
    """Trains one learner and returns `accuracy`, the share of the held-out digits that it classifies correctly by their true
    labels, `fitted`, the share of the n training labels, noisy ones included, that it reproduces, and `cost`: gradient steps
    times trained parameters times rows, over all grades.

    At one seed all cells share the split, the noisy labels, and the initialisation and the order of rows of each grade.
    """
    split_key, noise_key, fit_key = jr.split(key, 3)
    train, test = problem_of(test_points).split(split_key, n, jnp.float32)
    classes = with_noise(noise_key, train.y.astype(jnp.int32), noise)
    h, h_test, left = train.x, test.x, jax.nn.one_hot(classes, CLASSES, dtype=jnp.float32)
    outputs, outputs_test = jnp.zeros_like(left), jnp.zeros((test_points, CLASSES), jnp.float32)
    statuses, costs = [], []
    for i, grade in enumerate(LEARNERS[learner]):
        start = Start(grade, CLASSES)
        descent = Student(start, optimizer=optax.adam, learning_rate=grade.rate, epochs=epochs, batch_size=BATCH)
        fit = descent.fit(jr.fold_in(fit_key, i), Dataset(x=h, y=left))
        step, step_test = fit.predict(h), fit.predict(h_test)
        left, outputs, outputs_test = left - step, outputs + step, outputs_test + step_test
        h, h_test = (jax.vmap(fit.model.hidden)(x) for x in (h, h_test))
        statuses.append(fit.status)
        costs.append(fit.stats["sample_steps"] * fit.stats["parameters"])
    return {
        "accuracy": accuracy_of(outputs_test, test.y.astype(jnp.int32)),
        "fitted": accuracy_of(outputs, classes),
        "cost": jnp.sum(jnp.stack(costs)),
        "status": jnp.where(jnp.any(failed(jnp.stack(statuses))), Status.DIVERGED.value, statuses[-1]),
    }
