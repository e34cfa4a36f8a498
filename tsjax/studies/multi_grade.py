r"""Multi-grade deep learning of Xu 2023 (arXiv:2302.00150), compared with one network that is trained end to end.

Grade l trains a shallow network f_l on the residuals of the grades before it, r_l = y - f_1 - ... - f_{l-1}. Its inputs are the
outputs of the last hidden layer of grade l-1, which is no longer trained. The learner predicts f_1 + ... + f_L. The loss of
every grade is the mean of (f_l - r_l)^2 / 2, and its optimizer is Adam.

There are three settings. `sine` is example 1 of the author's code (github.com/Yuesheng2024Xu/MGDL): sin(100 x) at 5000 equally
spaced points of [0, 1], mini-batches of 32, and learning rates that fall by a constant factor from one epoch to the next, to
1e-4 in the last of `length` + 1 passes. `spectrum` is the synthetic regression of Fang and Xu 2024 (arXiv:2410.16105): a sum of
20 sines with frequencies 10, 20, ..., 200 and amplitudes 1, 0.95, ..., 0.05, at 6000 points of [0, 1], with all rows in each of
300 steps and a rate that falls from 1e-3 to 1e-4. The phases are our choice. `waves` is our own: the sum of sin(2 pi k x + k/2)
over k = 2, 4, ..., highest, at mean square 1, at 512 points of [-1, 1], with all rows in every step and a rate of 3e-3 that
falls to 0 as a cosine.

The cost of a grade is the number of gradient steps times trained parameters times rows in a step.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float
from pydantic import Field, model_validator

from ..rates.kinds import Indicator, Positive
from ..status import Status, failed
from ..sweep.experiment import Arguments, Cost, experiment
from ..task import Dataset
from .citations import XU_MULTI_GRADE
from .grades import SETTINGS, WAVES, parameters, points, student


class MultiGradeArguments(Arguments):
    """One learner of one setting. `highest` is the highest frequency: k in `waves`, f in `spectrum`, omega of sin(omega x) in
    `sine`. `n` is the number of points, and `effort` multiplies steps and epochs."""

    setting: Literal[tuple(SETTINGS)]  # pyright: ignore[reportInvalidTypeForm]
    learner: Literal["multi", "single", "single_he", "grade_1"]
    highest: Annotated[int, Field(ge=2, le=200)]
    n: Annotated[int, Field(ge=32)]
    effort: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _setting_has_it(self):
        if self.learner not in SETTINGS[self.setting].learners:
            known = ", ".join(SETTINGS[self.setting].learners)
            raise ValueError(f"the setting {self.setting} has the learners {known}; got {self.learner}")
        if self.setting == "waves" and self.highest > WAVES:
            raise ValueError(f"the setting waves has frequencies up to {WAVES}; got highest = {self.highest}")
        return self


def relative(left: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    """The relative squared error, sum left^2 / sum y^2."""
    return jnp.sum(left**2) / jnp.sum(y**2)


def _cost(arguments) -> Cost:
    setting, n, inputs, total = SETTINGS[arguments["setting"]], arguments["n"], 1, 0.0
    for grade in setting.learners[arguments["learner"]]:
        length = max(1, round(arguments["effort"] * grade.length))
        rows = n * (length if setting.batch is None else length + 1)
        total, inputs = total + 6.0 * parameters(grade, inputs) * rows, grade.blocks[-1][1][-1]
    return Cost(total)


@experiment(
    static=("setting", "learner", "n", "effort"),
    arguments=MultiGradeArguments,
    x="grade", y=("error", "test_error"), curve="learner", x64=False,
    metrics={"error": Positive(), "test_error": Positive(), "cost": Positive(), "rise": Positive(), "falls": Indicator()},
    cost=_cost, cite=XU_MULTI_GRADE,
    labels={
        "grade": "grade", "error": "relative squared error, training", "test_error": "relative squared error, other points",
        "cost": "steps times parameters times rows", "multi": "grade by grade", "single": "one network, end to end",
        "single_he": "one network, He start", "grade_1": "grade 1 alone, same cost",
    },
)  # fmt: skip
def multi_grade(key, *, setting, learner, highest, n, effort):
    """Trains one learner and returns a value for each grade; a learner of one grade has its value at the last grade of `multi`.

    - `error`, `test_error`: the relative squared error sum (y - f)^2 / sum y^2 after the grade, on the n training points and on
      1000 other, equally spaced points.
    - `cost`: the cost of this grade and those before it.
    - `rise`: the largest ratio of an error to that of the grade before; `falls`: whether it is at most the setting's `slack`
      (both for `multi` only).
    """
    chosen = SETTINGS[setting]
    grades, count = chosen.learners[learner], len(chosen.learners["multi"])
    h, h_test = points(chosen, n), points(chosen, 1000)
    y, y_test = (chosen.target(highest, x[:, 0]) for x in (h, h_test))
    left, left_test, errors, tests, costs, statuses = y, y_test, [], [], [], []
    for i, grade in enumerate(grades):
        fit = student(chosen, grade, n, effort).fit(jr.fold_in(key, i), Dataset(x=h, y=left))
        left, left_test = left - fit.predict(h), left_test - fit.predict(h_test)
        h, h_test = (jax.vmap(fit.model.hidden)(x) for x in (h, h_test))
        errors.append(relative(left, y))
        tests.append(relative(left_test, y_test))
        costs.append(fit.stats["sample_steps"] * fit.stats["parameters"])
        statuses.append(fit.status)
    error = jnp.stack(errors)
    values = {
        "grade": jnp.arange(1, count + 1) if len(grades) == count else jnp.array([count]),
        "error": error, "test_error": jnp.stack(tests), "cost": jnp.cumsum(jnp.stack(costs)),
    }  # fmt: skip
    if len(grades) > 1:
        rise = jnp.max(error[1:] / error[:-1])
        values |= {"rise": jnp.full(count, rise), "falls": jnp.full(count, rise <= chosen.slack)}
    return {**values, "status": jnp.where(jnp.any(failed(jnp.stack(statuses))), Status.DIVERGED.value, statuses[-1])}
