r"""Adversarial training removes the dense mixtures that clean training leaves in hidden weights (Allen-Zhu & Li 2020,
arXiv:2005.10190).

A point is sparse with noise, x = z + xi: each of the d entries of z is +1 or -1 with probability k/d and otherwise 0, and xi ~
N(0, sigma^2 I / d). Its class is the sign of sum_j z_j; points where that is 0 do not count. The network's neurons are 0 for
weak inputs, f(x) = sum_i relu(<w_i, x> - b) - relu(-<w_i, x> - b); SGD on the logistic loss trains the w_i.

The paper finds that clean training learns features, w_i close to few entries of z, and adds to each w_i a small multiple of one
dense vector, here (1, ..., 1). Together these parts respond to a small shift along -y (1, ..., 1), which therefore fools the
network. Adversarial training removes them. The paper proves that linear functions and the network's tangent kernel cannot be
made robust.
"""

from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator
from scipy.stats import norm

from ..attacks import FGM, PGD
from ..classification import classification_error
from ..estimators.student import Student
from ..losses import adversarial, logistic, outputs_of, weighted_mean
from ..rates import Positive, Share, Signed
from ..size import Rows, size_of
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from ..task import AbstractInstance, Dataset
from ..train.batches import some_rows
from .citations import ALLEN_ZHU_LI


class Learner(NamedTuple):
    """The model, and the stage after clean training: FGM training (`adversarial`), more `clean` training, or none."""

    model: Literal["network", "linear", "ntk"] = "network"
    second: Literal["adversarial", "clean"] | None = None


LEARNERS = {
    "clean": Learner(), "adversarial": Learner(second="adversarial"), "control": Learner(second="clean"),
    "linear": Learner("linear"), "linear_adversarial": Learner("linear", "adversarial"),
    "ntk": Learner("ntk"), "ntk_adversarial": Learner("ntk", "adversarial"),
}  # fmt: skip


class PurificationArguments(Arguments):
    """One learner at one radius `eps` of the attack, which is also the radius of adversarial training. Both stages have `steps`
    steps. `bias` is b, `sparsity` is k and `noise` is sigma of the module docstring."""

    learner: Literal[tuple(LEARNERS)]  # pyright: ignore[reportInvalidTypeForm]
    eps: Annotated[float, Field(ge=0)]
    bias: Annotated[float, Field(ge=0)] = 0.03
    d: Annotated[int, Field(ge=2)] = 64
    sparsity: Annotated[float, Field(gt=0)] = 3.0
    noise: Annotated[float, Field(ge=0)] = 0.3
    width: Annotated[int, Field(ge=1)] = 256
    rate: Annotated[float, Field(gt=0)] = 0.3
    decay: Annotated[float, Field(ge=0)] = 1e-4
    steps: Annotated[int, Field(ge=1)] = 300
    batch: Annotated[int, Field(ge=1)] = 256
    test_points: Annotated[int, Field(ge=1)] = 2000

    @model_validator(mode="after")
    def _probability(self):
        if self.sparsity > self.d:
            raise ValueError(
                f"sparsity / d is a probability, got {self.sparsity} / {self.d}; lower sparsity or raise d."
            )
        return self


class SparseCoding(AbstractInstance):
    """The points and classes of the module docstring. Rows with sum_j z_j = 0 have no class, and weight 0."""

    d: int = eqx.field(static=True)
    sparsity: Any
    noise: Any

    def sample(self, key: PRNGKeyArray, n: Rows, dtype=None) -> Dataset:
        """n points (n, d) in float32 unless a dtype is given, and classes 0 and 1, integers (n,)."""
        size, dtype = size_of(n), jnp.dtype(dtype or jnp.float32)
        key_z, key_s, key_x = jr.split(key, 3)
        shape = (size.limit, self.d)
        there = jr.uniform(key_z, shape, dtype) < jnp.asarray(self.sparsity / self.d, dtype)
        z = there * jr.rademacher(key_s, shape, dtype)
        x = z + jnp.asarray(self.noise / self.d**0.5, dtype) * jr.normal(key_x, shape, dtype)
        total, rows = jnp.sum(z, axis=1), size.weights(dtype)
        weight = (total != 0).astype(dtype)
        return Dataset(x=x, y=(total > 0).astype(jnp.int32), weight=weight if rows is None else weight * rows)


class Network(eqx.Module):
    """f(x) = sum_i relu(<w_i, x> - b) - relu(-<w_i, x> - b), the log-odds of class 1. With b = 0 it is linear."""

    weight: Float[Array, "*batch width d"]
    bias: Float[Array, "*batch"]

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        h = self.weight @ x
        return jnp.sum(jax.nn.relu(h - self.bias) - jax.nn.relu(-h - self.bias))


class Tangent(eqx.Module):
    """The network linearised in its weights, x -> sum_i <v_i, d f(x) / d w_i> at its initial weights, with the v_i as `weight`.
    Gradient descent on them is that of its tangent kernel."""

    weight: Float[Array, "*batch width d"]
    start: Network

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        fixed = jax.lax.stop_gradient(self.start)
        return jax.jvp(lambda w: Network(w, fixed.bias)(x), (fixed.weight,), (self.weight,))[1]


class Universal(eqx.Module):
    """The attack that moves every point by `radius` against its class along one direction, (1, ..., 1) / sqrt(d)."""

    radius: float | Float[Array, ""]

    def __call__(self, objective: Any, model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Array:
        sign = (2 * batch.y - 1).astype(batch.x.dtype)[:, None]
        return batch.x - jnp.asarray(self.radius).astype(batch.x.dtype) * sign / batch.d**0.5


def margin(model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
    """The mean of -s_i f(x_i), s_i = 2 y_i - 1. As a function of x it grows in the same directions as the logistic loss, but
    its gradient does not underflow where the network is confident."""
    outputs = outputs_of(model, batch.x)
    return weighted_mean((1 - 2 * batch.y).astype(outputs.dtype) * outputs, batch.weight)


def dense_shares(weight: Float[Array, "width d"]) -> Float[Array, " width"]:
    """|<w_i, 1>| / (|w_i| sqrt(d)) of each neuron: 1 for a multiple of (1, ..., 1), and 1/sqrt(d) for a multiple of a
    coordinate vector."""
    length = jnp.linalg.norm(weight, axis=1)
    return jnp.abs(jnp.sum(weight, axis=1)) / jnp.where(length > 0, length * weight.shape[1] ** 0.5, 1.0)


def cosine(a: Float[Array, "width d"], b: Float[Array, "width d"]) -> Float[Array, ""]:
    """The median over neurons of the cosine between their weights in a and in b."""
    return jnp.median(jnp.sum(a * b, axis=1) / (jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)))


def robust_accuracy_of_sum(
    eps: Float[np.ndarray, " k"], d: int, sparsity: float, noise: float
) -> Float[np.ndarray, " k"]:
    """The accuracy of the rule sign(sum_j x_j) under its worst shift of length eps: P(|S| + sigma g > eps sqrt(d) | S != 0),
    S = sum_j z_j, g ~ N(0, 1)."""
    p, law = sparsity / d, np.ones(1)
    for _ in range(d):
        law = np.convolve(law, [p / 2, 1 - p, p / 2])
    s = np.arange(1, d + 1)
    share = law[d + 1 :] / law[d + 1 :].sum()
    return (share * norm.cdf((s - np.asarray(eps)[:, None] * d**0.5) / max(noise, 1e-12))).sum(axis=1)


def _theory(arguments: dict[str, Any], eps: np.ndarray) -> Theory:
    if LEARNERS[arguments["learner"]].model != "linear":
        return Theory()
    setting = (arguments[name] for name in ("d", "sparsity", "noise"))
    return Theory(
        robust_accuracy_of_sum(eps, *setting), source="the rule sign(sum_j x_j), which all inputs enter alike"
    )


def _cost(arguments: dict[str, Any]) -> Cost:
    model, second = LEARNERS[arguments["learner"]]
    product = 2.0 * arguments["d"] * (1 if model == "linear" else arguments["width"])
    # A forward and a backward pass in a step, and both twice under attack; a random number costs about 100 operations.
    step = {None: 2, "clean": 4, "adversarial": 6}[second] * product + 300.0 * arguments["d"] * (
        1 + (second is not None)
    )
    return Cost(arguments["steps"] * arguments["batch"] * step + 44 * arguments["test_points"] * product)


@experiment(
    static=("learner", "d", "width", "steps", "batch", "test_points"),
    arguments=PurificationArguments,
    x="eps", y=("robust", "dense"), curve="learner", rates=False,
    metrics={
        **dict.fromkeys(("accuracy", "robust", "universal"), Share(trials="test_points")),
        "dense": Positive(), "cosine_start": Signed(), "cosine_clean": Signed(),
    },
    arrays={"weights": ("neuron", "input"), "shares": ("neuron",)},
    theory=_theory, cost=_cost, cite=ALLEN_ZHU_LI,
    labels={
        "eps": "radius of the attack", "robust": "accuracy under PGD", "accuracy": "clean accuracy",
        "universal": "accuracy under the universal shift", "dense": "dense component, median over neurons",
        "shares": "dense component", "bias": "b", "cosine_start": "cosine with the start",
        "cosine_clean": "cosine with the clean weights", "clean": "clean training", "adversarial": "then adversarial training",
        "control": "then more clean training", "linear": "linear, clean", "linear_adversarial": "linear, adversarial",
        "ntk": "NTK, clean", "ntk_adversarial": "NTK, adversarial",
    },
)  # fmt: skip
def feature_purification(key, *, learner, eps, bias, d, sparsity, noise, width, rate, decay, steps, batch, test_points):
    """Trains one of the `LEARNERS` on fresh points in every step, and attacks it on `test_points` other points.

    - `accuracy`; `robust`, under PGD of 20 steps of length eps / 4 in the l2 ball of radius eps; `universal`, under the shift
      by -eps y (1, ..., 1) / sqrt(d): shares of the test points, which all have a class.
    - `dense`: the median of `dense_shares` over neurons, for the NTK over its v_i. `shares`: all of them, sorted.
    - `cosine_start`, and with a second stage `cosine_clean`: the median over neurons of the cosine between the final weights
      and those at the start, or after clean training. `weights`: the final weights. These three exist for networks only.
    """
    model, second = LEARNERS[learner]
    keys = [jr.fold_in(key, i) for i in range(4)]
    instance = SparseCoding(d, sparsity, noise)
    neurons = 1 if model == "linear" else width
    drawn = 0.1 / d**0.5 * jr.normal(keys[0], (neurons, d), jnp.float32)
    start: Any = Network(drawn, jnp.asarray(0.0 if model == "linear" else bias).astype(jnp.float32))
    # For the NTK, weight decay would also shrink the weights at which it is linearised.
    start, penalty = (Tangent(jnp.zeros_like(drawn), start), None) if model == "ntk" else (start, decay / 2)
    stage = lambda loss: Student(
        lambda key, point: start, loss, learning_rate=rate, steps=steps, batch_size=batch, penalty=penalty,
        trainable=lambda leaf: eqx.is_inexact_array(leaf) and leaf.ndim == 2,
    )  # fmt: skip
    clean = fit = stage(logistic).fit(keys[1], instance, start=start)
    if second is not None:
        loss = adversarial(logistic, FGM(eps, "l2")) if second == "adversarial" else logistic
        fit = stage(loss).fit(keys[2], instance, start=clean.model)

    # Twice as many points are drawn, so that too few with a class are very unlikely.
    test, weight = some_rows(keys[3], instance.sample(keys[3], 2 * test_points), test_points), fit.model.weight
    attacks = {"accuracy": None, "robust": PGD(eps, 20, eps / 4, "l2"), "universal": Universal(eps)}
    errors = {name: classification_error(fit, test, attack=attack, loss=margin) for name, attack in attacks.items()}
    values = {name: 1.0 - error.value for name, error in errors.items()}
    values["dense"] = jnp.median(dense_shares(weight))
    if model != "linear":
        values["shares"] = jnp.sort(dense_shares(weight))
    if model == "network":
        values |= {"cosine_start": cosine(weight, drawn), "weights": weight}
        values |= {} if second is None else {"cosine_clean": cosine(weight, clean.model.weight)}
    return {"status": jnp.maximum(clean.status, fit.status), **values}
