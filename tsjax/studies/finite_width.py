"""Networks of finite width against their infinite limits on digits: experiments of Lee et al. 2020 (arXiv:2007.15801).

One description, an `MLP` of two hidden ReLU layers of M neurons in the NTK parameterisation (weights of variance 2 / fan-in,
biases of variance 0.01), gives the networks and, by `tsjax.kernels.of`, their kernels. The data are the digits that come with
scikit-learn, minus the mean image and divided by the root mean square pixel, both over all 1797 images. The responses are
one-hot vectors minus 0.1. Networks minimise (1/2n) sum_i |f(x_i) - y_i|^2 by full-batch gradient descent. The paper's networks
are larger, and learn CIFAR-10.
"""

import functools
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import Field, model_validator

from ..classification import classes_of
from ..data import DataProblem
from ..estimators.ensemble import Ensemble
from ..estimators.ridge import KernelRidge
from ..estimators.spectral import GradientFlow
from ..estimators.student import Student
from ..kernels.networks import of
from ..networks.mlp import MLP
from ..rates.kinds import Positive, Share, Signed
from ..status import Status
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from ..task import Dataset
from .citations import LEE_FINITE_INFINITE

CLASSES = 10
RIDGE = 1e-6
"""The ridge of the kernels, relative to trace(K)/n."""


class Variant(NamedTuple):
    """How a network is trained: its learning rate relative to 2 / lambda_max(Theta / n), above which gradient descent on the
    linearised network diverges; `l2`, which adds (l2 / 2) |theta|^2 to the loss; and `centred`, whether f(x) - f_0(x) takes the
    place of f(x), with f_0 the network at the start."""

    rate: float = 0.5
    l2: float = 0.0
    centred: bool = True


VARIANTS = {
    "centred": Variant(),
    "uncentred": Variant(centred=False),
    "l2": Variant(l2=1e-4),
    "large_rate": Variant(rate=1.5),
}
"""The networks of the study: the centred one, and variants that each change one thing."""


class FiniteWidthArguments(Arguments):
    """One variant at one width.

    `width` is M, `n` the number of images to learn from, and `test_points` the number held out. A cell trains `members` centred
    networks, or `others` networks of another variant, which needs no ensembles. They differ only in their initialisation.
    """

    variant: Literal[tuple(VARIANTS)]  # pyright: ignore[reportInvalidTypeForm]
    width: Annotated[int, Field(ge=1)]
    n: Annotated[int, Field(ge=2)] = 200
    steps: Annotated[int, Field(ge=1)] = 2000
    members: Annotated[int, Field(ge=1)] = 8
    others: Annotated[int, Field(ge=1)] = 1
    test_points: Annotated[int, Field(ge=2)] = 1000

    @model_validator(mode="after")
    def _there_are_so_many(self):
        largest = problem_of(self.test_points).largest_n
        if self.n > largest:
            raise ValueError(
                f"n = {self.n} is too large: {self.test_points} of the digits are held out, which leaves {largest}; lower n or "
                "test_points"
            )
        return self


@functools.cache
def problem_of(test_points: int) -> DataProblem:
    """The digits in units of their root mean square pixel; `test_points` of them are held out."""
    raw = DataProblem.bundled("digits")
    x = raw.x - raw.x.mean(axis=0)
    return DataProblem(x / np.sqrt(np.mean(x**2)), raw.y, test_share=test_points / len(raw.y))


def network(width: int) -> MLP:
    """The network of the study, which also describes its kernels."""
    return MLP((width, width), outputs=CLASSES, weight_std=2**0.5, bias_std=0.1)


def student(variant: Variant, width: int, rate: Any, steps: int) -> Student:
    """A network with its training, at the learning rate `rate`."""
    return Student(
        network(width),
        learning_rate=rate,
        steps=steps,
        penalty=variant.l2 / 2 if variant.l2 else None,
        output_scale=1.0 if variant.centred else None,
    )


def distances(outputs: Float[Array, "members k c"], to: Float[Array, "k c"]) -> Float[Array, " members"]:
    """The root mean square of outputs - to over points and classes."""
    return jnp.sqrt(jnp.mean((outputs - to[None]) ** 2, axis=(1, 2)))


def accuracy_of(outputs: Float[Array, "k c"], classes: Int[Array, " k"]) -> Float[Array, ""]:
    """The share of the points whose class has the largest output."""
    return jnp.mean((classes_of(outputs) == classes).astype(outputs.dtype))


def ensembles(outputs: Float[Array, "members k c"], size: int) -> Float[Array, "ensembles k c"]:
    """The mean outputs of ensembles of `size` members, as many ensembles as have no member in common."""
    count = outputs.shape[0] // size
    return jnp.mean(outputs[: count * size].reshape(count, size, *outputs.shape[1:]), axis=1)


def _theory(arguments: dict[str, Any], x: np.ndarray) -> Theory:
    del x
    known = arguments["variant"] == "centred"
    return Theory(exponent=0.5, source="the kernel at the start fluctuates by M^-1/2") if known else Theory()


def _cost(arguments: dict[str, Any]) -> Cost:
    width, n, variant = arguments["width"], arguments["n"], arguments["variant"]
    networks = arguments["members" if variant == "centred" else "others"]
    # Three products in a step, a fourth for the network at the start, and some factorisations for the kernels.
    step = (8 if VARIANTS[variant].centred else 6) * width * (64 + width + CLASSES) * n
    return Cost(step * arguments["steps"] * networks, 25.0 * n**3)


_SIZES = (2, 4, 8)


@experiment(
    static=("variant", "width", "n", "steps", "members", "others", "test_points"),
    arguments=FiniteWidthArguments,
    x="width", y=("distance", "accuracy"), curve="variant",
    metrics={
        "distance": Positive(), "accuracy": Share(trials="trials"), "gain": Signed(),
        **dict.fromkeys(("accuracy_ensemble", "accuracy_ntk", "accuracy_nngp"), Share(trials="test_points")),
    },
    theory=_theory, cost=_cost, cite=LEE_FINITE_INFINITE,
    labels={
        "width": "width M", "distance": "root mean square distance to the NTK", "accuracy": "test accuracy of one network",
        "distance_flow": "distance to the NTK's gradient flow", "accuracy_ensemble": "test accuracy of the ensemble",
        "accuracy_ntk": "test accuracy of the NTK", "accuracy_nngp": "test accuracy of the NNGP",
        "gain": "test accuracy of the NTK minus that of one network", "l2": "L2 penalty", "large_rate": "large learning rate",
        **{f"distance_{size}": f"distance of ensembles of {size} to the NTK" for size in _SIZES},
    },
)  # fmt: skip
def finite_width(key, *, variant, width, n, steps, members, others, test_points):
    """Trains networks of one variant on one split, and returns how far their predictions are from those of their NTK.

    - `distance`: the root mean square, over test points and classes, of f - f_NTK; the mean over networks. f_NTK is ridge
      regression with the NTK and ridge 1e-6 trace(K)/n: the infinite network after infinite time, except for that ridge.
    - `distance_2`, `distance_4`, `distance_8`: the same for ensembles of so many networks, if a cell has that many; the mean
      over as many ensembles as have no network in common.
    - `distance_flow`: the distance of one network to gradient flow with the NTK, stopped at the time of these steps.
    - `accuracy`: the test accuracy of one network, a share of `trials`, the test points times networks; `accuracy_ensemble`:
      that of the ensemble of all; `accuracy_ntk`, `accuracy_nngp`: those of the kernels; `gain`: accuracy_ntk minus accuracy.
    - `train_loss`, (1/2n) sum_i |f(x_i) - y_i|^2 without a penalty, the mean over networks.
    """
    split_key, fit_key = (jax.random.fold_in(key, i) for i in range(2))
    train, test = problem_of(test_points).split(split_key, n, jnp.float64)
    targets = jax.nn.one_hot(train.y.astype(jnp.int32), CLASSES, dtype=jnp.float64) - 0.1
    data, classes = Dataset(x=train.x, y=targets), test.y.astype(jnp.int32)

    description, settings = network(width), VARIANTS[variant]
    ntk, nngp = of(description, "ntk"), of(description, "nngp")
    rate = 2 * settings.rate / (jnp.linalg.eigvalsh(ntk(train.x))[-1] / n)
    ridge = lambda kernel: KernelRidge(kernel, RIDGE * jnp.mean(kernel.diagonal(train.x)))
    limit, covariance = (ridge(kernel).fit(key, data).predict(test.x) for kernel in (ntk, nngp))
    flow = GradientFlow(ntk, time=rate * steps).fit(key, data).predict(test.x)

    networks = members if variant == "centred" else others
    learner = Ensemble(student(settings, width, rate, steps), networks)
    fit = learner.fit(fit_key, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), data))
    outputs, fitted = (fit.members(x.astype(jnp.float32)).astype(jnp.float64) for x in (test.x, train.x))
    values = {
        "distance": jnp.mean(distances(outputs, limit)),
        "distance_flow": jnp.mean(distances(outputs, flow)),
        "accuracy": jnp.mean(jax.vmap(accuracy_of, (0, None))(outputs, classes)),
        "trials": jnp.asarray(test_points * networks),
        "accuracy_ensemble": accuracy_of(jnp.mean(outputs, axis=0), classes),
        "accuracy_ntk": accuracy_of(limit, classes),
        "accuracy_nngp": accuracy_of(covariance, classes),
        "train_loss": 0.5 * CLASSES * jnp.mean(distances(fitted, targets) ** 2),
    }
    values["gain"] = values["accuracy_ntk"] - values["accuracy"]
    for size in _SIZES:
        if size <= networks:
            values[f"distance_{size}"] = jnp.mean(distances(ensembles(outputs, size), limit))
    whole = fit.stats["members_used"] == networks
    return {"status": jnp.where(whole, fit.status, Status.DIVERGED.value), **values}
