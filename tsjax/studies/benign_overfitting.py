r"""When a convolutional network that fits flipped labels still generalises (Kou, Chen, Chen & Gu 2023, arXiv:2303.04145).

A point has two patches: y mu, the signal, with a clean label y = +-1, and noise xi ~ N(0, I_d). The label is observed flipped
with probability p, in training and test data. The network has one filter bank for each class, F_j(x) = sum over r = 1..m of
sum over the two patches x^(k) of relu(<w_jr, x^(k)> + b_jr), f = F_1 - F_-1; gradient descent on the logistic loss of f.

The theorem says that for d large compared with n the training loss goes to 0, and that the test error is p + o(1) if
n |mu|^4 >= C d, but exceeds p by a constant if n |mu|^4 <= c d. The authors' experiment is a table of test errors over |mu|
and d, with 10 runs in each entry; one cell of this study is one entry of that table.
"""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from ..classification import classification_error
from ..estimators.student import Student
from ..losses import logistic
from ..patches import PatchInstance, SignalNoisePatches
from ..rates import Positive, Share
from ..sweep.experiment import Arguments, Cost, experiment
from ..task import Dataset
from .citations import KOU_CHEN_CHEN_GU


class PatchNetwork(eqx.Module):
    """f = F_1 - F_-1, the log-odds of class 1, for one point (patches, d): the sum of `scale` relu over patches and filters of
    the bank of class 1, minus that of class -1."""

    weight: Float[Array, "2 filters d"]
    bias: Float[Array, "2 filters"] | None
    scale: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, "patches d"]) -> Float[Array, ""]:
        z = jnp.einsum("jrd,kd->kjr", self.weight, x, precision="highest")
        z = z if self.bias is None else z + self.bias[None]
        negative, positive = self.scale * jnp.sum(jax.nn.relu(z), axis=(0, 2))
        return positive - negative


def _pytorch(key: PRNGKeyArray, filters: int, d: int) -> PatchNetwork:
    """The initialisation of the authors' code, PyTorch's default: weights and biases uniform on [-1/sqrt(d), 1/sqrt(d)]."""
    keys, bound = jr.split(key), d**-0.5
    weight, bias = (
        jr.uniform(one, shape, jnp.float32, -bound, bound)
        for one, shape in zip(keys, ((2, filters, d), (2, filters)), strict=True)
    )
    return PatchNetwork(weight, bias, 1.0)


def _small(key: PRNGKeyArray, filters: int, d: int) -> PatchNetwork:
    """The initialisation of the theorem: weights N(0, 0.01^2), no biases, and the mean over filters."""
    return PatchNetwork(0.01 * jr.normal(key, (2, filters, d), jnp.float32), None, 1.0 / filters)


class Setting(NamedTuple):
    """A network and how it is trained: `init(key, filters, d)`, the number of gradient `steps`, and whether the noise is
    `orthogonal` to the signal."""

    init: Callable[[PRNGKeyArray, int, int], PatchNetwork]
    steps: int
    orthogonal: bool


SETTINGS = {"authors": Setting(_pytorch, 100, False), "theorem": Setting(_small, 200, True)}
"""`authors` is the setting of their published table (github.com/uclaml/Benign_ReLU_CNN). Their script takes the mean over
patches, but the test errors and training losses of the table agree with the sum. `theorem` follows the assumptions of the
theorem, with 200 steps."""


class BenignArguments(Arguments):
    """Setting and sizes of one cell; the defaults are the authors'. `mu` is the length of the signal, `flip` the probability p
    of a wrong label, `rate` the learning rate, and `runs` are averaged in one cell."""

    setting: Literal["authors", "theorem"] = "authors"
    mu: Annotated[float, Field(ge=0)]
    d: Annotated[int, Field(ge=2)]
    n: Annotated[int, Field(ge=2)] = 20
    flip: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    filters: Annotated[int, Field(ge=1)] = 10
    rate: Annotated[float, Field(gt=0)] = 0.1
    test_points: Annotated[int, Field(ge=1)] = 1000
    runs: Annotated[int, Field(ge=1)] = 10


def _cost(arguments) -> Cost:
    """Products of one layer in two patches: one forward and two backward in every step, and one at the test points."""
    rows = 3 * SETTINGS[arguments["setting"]].steps * arguments["n"] + arguments["test_points"]
    return Cost(arguments["runs"] * rows * 2 * 2 * 2 * arguments["filters"] * arguments["d"])


def _clean(instance: PatchInstance, data: Dataset) -> Dataset:
    """The data with their labels before the flips."""
    return Dataset(x=data.x, y=jax.vmap(instance.target)(data.x), weight=data.weight)


def one_run(key, *, setting, mu, d, n, flip, filters, rate, test_points):
    """Trains one network on one data set; returns its status and its numbers. Network, data and flips are drawn from the
    key."""
    chosen, signal = SETTINGS[setting], jnp.zeros(d, jnp.float32).at[0].set(jnp.asarray(mu).astype(jnp.float32))
    keys = [jr.fold_in(key, i) for i in range(3)]
    instance = SignalNoisePatches(signal=signal, flip=flip, orthogonal=chosen.orthogonal).draw(key)
    student = Student(
        lambda key, point: chosen.init(key, filters, point[-1]), logistic, learning_rate=rate, steps=chosen.steps
    )
    train, test = (instance.sample(own, rows) for own, rows in zip(keys[:2], (n, test_points), strict=True))
    fit = student.fit(keys[2], train)
    numbers = {
        "error": classification_error(fit, test).value,
        "clean_error": classification_error(fit, _clean(instance, test)).value,
        "train_accuracy": 1.0 - classification_error(fit, train).value,
        "train_loss": fit.stats["train_loss"],
    }
    return fit.status, numbers


@experiment(
    static=("setting", "d", "n", "filters", "test_points", "runs"),
    arguments=BenignArguments,
    x="mu",
    y=("error", "clean_error", "train_loss"),
    curve="setting",
    # Data and flips are drawn afresh in every cell, as in the authors' table; if cells shared them, all cells of a seed would
    # err together.
    independent=("mu", "d"),
    cost=_cost,
    rates=False,
    labels={
        "mu": "|mu|", "error": "test error", "clean_error": "error on clean labels",
        "train_loss": "training loss", "train_accuracy": "training accuracy",
        "authors": "authors' setting", "theorem": "theorem's setting",
    },
    metrics={
        "error": Share(trials="tests"), "clean_error": Share(trials="tests"),
        "train_accuracy": Share(trials="trained"), "train_loss": Positive(),
    },
    cite=KOU_CHEN_CHEN_GU,
)  # fmt: skip
def benign_overfitting(key, *, runs, **arguments):
    """One entry of the authors' table: means over `runs` independent runs.

    `error` is the share of `test_points` fresh points whose observed label, which may be flipped, is predicted wrongly, and
    `clean_error` that of the labels before they were flipped: error = p + (1 - 2 p) clean_error on average. `tests` and
    `trained` are the numbers of test and training labels behind these shares.
    """
    # One run after the other: the test points of all runs together would take ten times the memory.
    status, numbers = jax.lax.map(lambda one: one_run(one, **arguments), jr.split(key, runs))
    means = {name: jnp.mean(values) for name, values in numbers.items()}
    return {
        "status": jnp.max(status), **means,
        "tests": jnp.asarray(runs * arguments["test_points"]), "trained": jnp.asarray(runs * arguments["n"]),
    }  # fmt: skip
