r"""Multi-grade deep learning of Xu 2023 (arXiv:2302.00150), against one network that is trained from end to end.

Grade l trains a shallow network f_l on what the grades before leave of the responses, r_l = y - f_1 - ... - f_{l-1}. Its inputs
are the outputs of the last hidden layer of grade l-1, which stay as they are. The learner predicts f_1 + ... + f_L. The loss of
every grade is the mean of (f_l - r_l)^2 / 2, and its optimizer is Adam.

Two settings. `sine` is example 1 of the author's code (github.com/Yuesheng2024Xu/MGDL): sin(100 x) at 5000 equally spaced
points of [0, 1], mini-batches of 32, learning rates that fall by a constant factor from one epoch to the next, to 1e-4 in the
last of `length` + 1 passes. `waves` is ours: the sum of sin(2 pi k x + k/2) over k = 2, 4, ..., highest, at mean square 1, at
512 points of [-1, 1], with all rows in every step and a rate of 3e-3 that falls to 0 as a cosine.

The cost of a grade is gradient steps times trained numbers times rows of a step.
"""

from typing import Annotated, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from ..estimators.student import Student
from ..networks.mlp import MLP, MLPNetwork
from ..rates.kinds import Indicator, Positive
from ..status import Status, failed
from ..sweep.experiment import Arguments, Cost, experiment
from ..task import Dataset
from .citations import XU_MULTI_GRADE

LEAST = 1e-4
"""The learning rate in the last epoch of `sine`."""


class Grade(NamedTuple):
    """One network and its training: `blocks` of hidden layers, (activation, widths), the largest learning rate, and its length,
    in epochs (`sine`, one pass more) or in steps (`waves`). `gain` g: all numbers are U(-g, g) / sqrt(fan-in) at the start."""

    blocks: tuple[tuple[str, tuple[int, ...]], ...]
    rate: float
    length: int
    gain: float = 1.0
    zero_output: bool = False


def _waves(zero_output: bool) -> Grade:
    return Grade((("relu", (64, 64)),), 3e-3, 1500, zero_output=zero_output)


_DEEP = (("relu", (64,) * 8),)
_FIRST = (("sin", (256, 256)),)
_REST = ((("relu", (128, 128, 64)),), (("relu", (64, 32, 32)),))
LEARNERS: dict[str, dict[str, tuple[Grade, ...]]] = {
    "waves": {
        "multi": (_waves(False), _waves(True), _waves(True), _waves(True)),
        "single": (Grade(_DEEP, 3e-3, 1500),),
        "single_he": (Grade(_DEEP, 3e-3, 1500, gain=6**0.5),),
    },
    "sine": {
        "multi": (Grade(_FIRST, 1e-1, 20), *(Grade(b, 1e-2, e) for b, e in zip(_REST, (20, 40), strict=True))),
        "grade_1": (Grade(_FIRST, 1e-1, 42),),
        "single": (Grade((*_FIRST, ("relu", (128, 128, 64, 64, 32, 32))), 1e-3, 21),),
    },
}
"""The learners of each setting. Those beside `multi` have one grade, of about the cost of all of its grades."""
BATCHES = {"waves": None, "sine": 32}
SLACK = {"waves": 1.0, "sine": 1.15}
"""The most by which an error may grow from one grade to the next, and count as not grown."""


class MultiGradeArguments(Arguments):
    """One learner of one setting. `highest` is the highest frequency, k in `waves` and omega of sin(omega x) in `sine`; `n` the
    number of points, and `effort` multiplies steps and epochs."""

    setting: Literal[tuple(LEARNERS)]  # pyright: ignore[reportInvalidTypeForm]
    learner: Literal["multi", "single", "single_he", "grade_1"]
    highest: Annotated[int, Field(ge=2, le=100)]
    n: Annotated[int, Field(ge=32)]
    effort: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _setting_has_it(self):
        if self.learner not in LEARNERS[self.setting]:
            known = ", ".join(LEARNERS[self.setting])
            raise ValueError(f"the setting {self.setting} has the learners {known}; got {self.learner}")
        return self


class GradeNetwork(eqx.Module):
    """x -> a . h(x) + b; each part maps to what enters the last activation of its block."""

    parts: tuple[MLPNetwork, ...]
    readout: MLPNetwork

    def hidden(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """The last hidden layer h(x), the input of the next grade."""
        for part in self.parts:
            x = part.activation(part(x))
        return x

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        return self.readout(self.hidden(x))


class Start(eqx.Module):
    """What makes the untrained network of a grade: weights and biases are U(-g, g) / sqrt(fan-in)."""

    grade: Grade = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, point: int) -> GradeNetwork:
        parts = []
        for i, (activation, widths) in enumerate(self.grade.blocks):
            block = MLP(widths[:-1], widths[-1], activation, "standard", bias_std=1.0)
            parts.append(uniform(block, jr.fold_in(key, i), point, self.grade.gain))
            point = widths[-1]
        last = MLP((), parameterisation="standard", bias_std=1.0)
        readout = uniform(last, jr.fold_in(key, len(parts)), point, self.grade.gain)
        if self.grade.zero_output:
            readout = jax.tree.map(lambda leaf: 0.0 * leaf if eqx.is_inexact_array(leaf) else leaf, readout)
        return GradeNetwork(tuple(parts), readout)


def uniform(description: MLP, key: PRNGKeyArray, point: int, gain: float) -> MLPNetwork:
    """A network of this description with all its numbers drawn anew, U(-gain, gain) / sqrt(fan-in)."""
    net = description.init(key, point, jnp.float32)
    # One draw for all leaves: the compiler needs a third of a second for each.
    flat, unravel = ravel_pytree(eqx.filter(net, eqx.is_inexact_array))
    drawn = unravel(jr.uniform(key, flat.shape, flat.dtype, -gain, gain))
    scaled = [
        jax.tree.map(lambda leaf, fan_in=layer.weight.shape[1]: leaf / fan_in**0.5, layer) for layer in drawn.layers
    ]
    return eqx.combine(eqx.tree_at(lambda net: net.layers, drawn, tuple(scaled)), net)


def target(setting: str, highest, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """The noise-free responses; `waves` are divided by sqrt(number of waves / 2), their root mean square on [-1, 1]."""
    if setting == "sine":
        return jnp.sin(highest * x)
    k = jnp.arange(2, 101, 2)
    present = (k <= highest).astype(x.dtype)
    waves = jnp.sin(2 * jnp.pi * k[None, :] * x[:, None] + k[None, :] / 2)
    return (waves @ present / jnp.sqrt(jnp.sum(present) / 2)).astype(x.dtype)


def points(setting: str, n: int) -> Float[Array, "n 1"]:
    """n equally spaced points, both ends among them."""
    return jnp.linspace(-1.0 if setting == "waves" else 0.0, 1.0, n, dtype=jnp.float32)[:, None]


def student(setting: str, grade: Grade, n: int, effort: float) -> Student:
    """A grade with its training."""
    length, batch = max(1, round(effort * grade.length)), BATCHES[setting]
    if batch is None:
        rate = optax.cosine_decay_schedule(grade.rate, length)
        return Student(Start(grade), optimizer=optax.adam, learning_rate=rate, steps=length)
    rate = optax.exponential_decay(grade.rate, n // batch, (LEAST / grade.rate) ** (1 / length), staircase=True)
    return Student(Start(grade), optimizer=optax.adam, learning_rate=rate, epochs=length + 1, batch_size=batch)


def relative(left: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    """The relative squared error, sum left^2 / sum y^2."""
    return jnp.sum(left**2) / jnp.sum(y**2)


def parameters(grade: Grade, inputs: int) -> int:
    """The numbers that a grade trains."""
    sizes = [inputs, *(width for _, widths in grade.blocks for width in widths), 1]
    return sum((a + 1) * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))


def _cost(arguments) -> Cost:
    setting, n, inputs, total = arguments["setting"], arguments["n"], 1, 0.0
    for grade in LEARNERS[setting][arguments["learner"]]:
        length = max(1, round(arguments["effort"] * grade.length))
        rows = n * (length if BATCHES[setting] is None else length + 1)
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
    """Trains one learner, and returns a record for each grade; a learner of one grade has its own at the last grade of `multi`.

    - `error`, `test_error`: the relative squared error sum (y - f)^2 / sum y^2 after the grade, on the n points of training and
      on 1000 others, equally spaced.
    - `cost`: of this grade and those before: gradient steps times trained numbers times rows of a step.
    - `rise`: the largest ratio of an error to that of the grade before; `falls`: whether it is at most `SLACK` (`multi` alone).
    """
    grades, count = LEARNERS[setting][learner], len(LEARNERS[setting]["multi"])
    h, h_test = points(setting, n), points(setting, 1000)
    y, y_test = (target(setting, highest, x[:, 0]) for x in (h, h_test))
    left, left_test, errors, tests, costs, statuses = y, y_test, [], [], [], []
    for i, grade in enumerate(grades):
        fit = student(setting, grade, n, effort).fit(jr.fold_in(key, i), Dataset(x=h, y=left))
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
        values |= {"rise": jnp.full(count, rise), "falls": jnp.full(count, rise <= SLACK[setting])}
    return {**values, "status": jnp.where(jnp.any(failed(jnp.stack(statuses))), Status.DIVERGED.value, statuses[-1])}
