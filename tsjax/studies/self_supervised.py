r"""How the tangent kernel of networks trained with the Barlow Twins loss depends on their width (arXiv:2411.11176).

A network f(x) = V phi(W x) / sqrt(M) with M hidden neurons and several outputs starts from weights N(0, 1). Both layers are
trained on pairs of views by full-batch gradient descent on ||C - I||_F^2, where C holds the symmetric cross-moments of the
outputs (`tsjax.losses.PairedBarlowTwins`). The paper proves that its NTK becomes constant as M grows.

The rate follows from how the neurons move. A neuron moves by M^-1/2, and the kernel is a mean over M neurons. To first order
each of its terms changes by M^-1/2, and this change is odd in V, hence of random sign, so the mean changes by M^-1. The changes
of second order all have one sign, and their mean is M^-1 too. With ReLU the derivative of phi is a step: a share M^-1/2 of the
neurons cross it, and each of these changes its term by order 1 with a random sign, hence the kernel by M^-3/4.
"""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from ..estimators.student import ModelFit, Student
from ..kernels.empirical import change
from ..losses import paired_barlow_twins
from ..networks.mlp import MLP
from ..problem import Sphere
from ..rates.kinds import Positive
from ..status import Status, failed
from ..sweep.experiment import Cost, Theory, experiment
from ..task import Dataset
from ..train import NEVER, AbstractStop, Reached
from .citations import FLEISSNER_ANIL_GHOSHDASTIDAR

OUTPUTS = 3
EXPONENTS = {"tanh": 1.0, "relu": 0.75}
"""The exponents of the change of the NTK in 1 / M (module docstring)."""


def network(activation: str, width: int) -> MLP:
    """f(x) = V phi(W z / sqrt(d)) / sqrt(M): the paper's network at x = z / sqrt(d)."""
    return MLP((width,), outputs=OUTPUTS, activation=activation, weight_std=1.0)


def pairs(key: PRNGKeyArray, n: int, d: int, noise: float, dtype=None) -> Dataset:
    """n pairs: u uniform on the unit sphere, and u + noise g / sqrt(d), g ~ N(0, I), scaled back to length 1.

    Both are multiplied by sqrt(d), since the first layer of `network` divides by it.
    """
    key_first, key_noise = jr.split(key)
    first = Sphere(d).sample(key_first, n, dtype)
    second = first + noise / d**0.5 * jr.normal(key_noise, first.shape, first.dtype)
    second = second / jnp.linalg.norm(second, axis=1, keepdims=True)
    return Dataset(x=d**0.5 * first, y=d**0.5 * second)


def minus_loss(data: Dataset, model: Any) -> Float[Array, ""]:
    """Minus the loss, which grows while a network learns, for `Reached`."""
    return -paired_barlow_twins(model, data)


def in_float64(model: Any) -> Any:
    """The model in float64, for differences of kernels that nearly agree."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, model)


def movements(before: Any, after: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The norm of the movement of all weights, and the largest norm over the rows of W, that is, over neurons."""
    moved = [new.weight - old.weight for new, old in zip(after.layers, before.layers, strict=True)]
    return jnp.sqrt(sum(jnp.sum(part**2) for part in moved)), jnp.max(jnp.linalg.norm(moved[0], axis=1))


def _theory(arguments: dict[str, Any], x: np.ndarray) -> Theory:
    del x
    return Theory(
        exponent=EXPONENTS[arguments["activation"]], source="movements of order M^-1/2 of neurons, random signs"
    )


def _cost(arguments: dict[str, Any]) -> Cost:
    d, n, width = arguments["d"], arguments["n"], arguments["width"]
    # Three products in a step, over two views; an activation costs as much as a few products.
    return Cost(12.0 * n * width * (d + OUTPUTS + 10) * arguments["steps"])


@experiment(
    static=("activation", "width", "n", "d", "steps", "rate", "level", "noise"),
    x="width", y=("ntk_change", "ntk_change_at_loss", "movement", "row_movement"), curve="activation",
    metrics=dict.fromkeys(
        ("ntk_change", "ntk_change_at_loss", "movement", "row_movement", "final_loss", "steps_to_loss"), Positive()
    ),
    theory=_theory, cost=_cost, cite=FLEISSNER_ANIL_GHOSHDASTIDAR,
    labels={
        "width": "width M", "ntk_change": "relative change of the NTK, at the last step",
        "ntk_change_at_loss": "relative change of the NTK, at equal loss", "movement": "movement of all weights",
        "row_movement": "largest movement of one neuron", "final_loss": "loss at the last step",
        "steps_to_loss": "steps to the loss", "tanh": "tanh", "relu": "ReLU",
    },
)  # fmt: skip
def self_supervised(
    key,
    *,
    activation: Literal["tanh", "relu"],
    width: Annotated[int, Field(ge=1)],
    n: Annotated[int, Field(ge=2)] = 32,
    d: Annotated[int, Field(ge=2)] = 10,
    steps: Annotated[int, Field(ge=1)] = 3000,
    rate: Annotated[float, Field(gt=0)] = 0.2,
    level: Annotated[float, Field(gt=0)] = 1e-3,
    noise: Annotated[float, Field(ge=0)] = 0.3,
):
    """Trains one network of `width` neurons and 3 outputs on n pairs of views.

    - `ntk_change`: ||K_T - K_0||_F / ||K_0||_F, where K is the (3n, 3n) tangent kernel at the first views, with all pairs of
      outputs, after T = `steps` steps; `ntk_change_at_loss`: the same at the first step at which the loss is at most `level`,
      NaN if there is none.
    - `steps_to_loss`: the number of that step.
    - `movement`: |theta_T - theta_0| over all weights; `row_movement`: max_j |w_j(T) - w_j(0)| over the rows w_j of W.
    - `final_loss`: the loss after T steps. Training is in float32, and kernels are in float64.
    """
    key_data, key_fit = (jr.fold_in(key, i) for i in range(2))
    data = pairs(key_data, n, d, noise, jnp.float32)

    description = network(activation, width)
    start = description.init(key_fit, d, jnp.float32)

    def fit(stop: AbstractStop) -> ModelFit:
        student = Student(description, paired_barlow_twins, learning_rate=rate, steps=steps, stop=stop)
        return student.fit(key_fit, data, start=start)

    # The two fits follow one path and stop at different times, since only the initialisation is random.
    whole, part = fit(NEVER), fit(Reached(value=Partial(minus_loss, data), level=-level))
    before, x = in_float64(start), data.x.astype(jnp.float64)
    reached = part.status == Status.CONVERGED
    movement, row_movement = movements(start, whole.model)
    return {
        "status": jnp.where(failed(part.status), part.status, whole.status),
        "ntk_change": change(before, in_float64(whole.model), x, full=True),
        "ntk_change_at_loss": jnp.where(reached, change(before, in_float64(part.model), x, full=True), jnp.nan),
        "steps_to_loss": jnp.where(reached, part.stats["steps"], jnp.nan),
        "movement": movement,
        "row_movement": row_movement,
        "final_loss": whole.stats["train_loss"],
    }
