"""Lines, curves and simplexes of networks that are trained at once: experiments of Wortsman et al. 2021 (arXiv:2102.10472).

Every training step draws a position of the subspace uniformly and follows the gradient of the cross-entropy there, plus
`repulsion` times the squared cosine of the weights of two random corners (algorithm 1 and equation 4, `tsjax.subspaces`). For
comparison, the study trains the same networks one by one from independent initialisations, and measures the straight segment
between two of them.

The networks are an `MLP` of two hidden ReLU layers; SGD with momentum 0.9, a cosine schedule and an L2 penalty trains them on
digits of scikit-learn; a share `noise` of the labels is drawn uniformly from all ten classes. The paper uses residual networks.
"""

import functools
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from pydantic import Field, model_validator

from ..estimators.student import Student
from ..losses import cross_entropy
from ..networks.mlp import MLP
from ..rates.kinds import Positive, Share
from ..status import Status, failed
from ..subspaces import Subspace, SubspaceNetwork, everywhere
from ..sweep.experiment import Arguments, Cost, experiment
from ..task import Dataset
from .citations import WORTSMAN_SUBSPACES
from .finite_width import CLASSES, accuracy_of, problem_of

CORNERS = {"network": 1, "independent": 2, "line": 2, "curve": 3, "simplex": 3}
"""The number of networks at the corners of each kind: one network, two networks trained independently, and three subspaces. One
of the three corners of a curve is its control point, which does not lie on it."""
OPTIMIZER = functools.partial(optax.sgd, momentum=0.9)


class LearnedSubspacesArguments(Arguments):
    """One kind of networks on `n` noisy digits.

    `repulsion` is beta, which has no effect on networks trained one by one; `decay` adds (decay / 2) |theta|^2 to the loss;
    `rate` is the initial learning rate, which falls to 0 as a cosine. `places` is the number of positions along the path, and
    the map of a simplex has `divisions` steps along an edge.
    """

    kind: Literal[tuple(CORNERS)]  # pyright: ignore[reportInvalidTypeForm]
    repulsion: Annotated[float, Field(ge=0)] = 1.0
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    steps: Annotated[int, Field(ge=1)] = 3000
    width: Annotated[int, Field(ge=1)] = 128
    n: Annotated[int, Field(ge=2)] = 1000
    test_points: Annotated[int, Field(ge=2)] = 797
    batch_size: Annotated[int, Field(ge=1)] = 64
    rate: Annotated[float, Field(gt=0)] = 0.05
    decay: Annotated[float, Field(ge=0)] = 5e-4
    places: Annotated[int, Field(ge=2)] = 21
    divisions: Annotated[int, Field(ge=1)] = 12

    @model_validator(mode="after")
    def _there_are_so_many(self):
        largest = problem_of(self.test_points).largest_n
        if not self.batch_size <= self.n <= largest:
            raise ValueError(
                f"n = {self.n} must be between batch_size = {self.batch_size} and the {largest} digits that are not among the "
                f"{self.test_points} held out"
            )
        return self


def with_noise(key, classes: Int[Array, " n"], noise) -> Int[Array, " n"]:
    """The labels, where each is replaced with probability `noise` by one drawn uniformly from all classes, including its
    own."""
    # One uniform number decides both: given that it is below the noise, it is uniform on [0, noise).
    drawn = jax.random.uniform(key, classes.shape)
    anew = jnp.floor(CLASSES * drawn / jnp.maximum(noise, 1e-12)).astype(classes.dtype)
    return jnp.where(drawn < noise, jnp.minimum(anew, CLASSES - 1), classes)


def student(kind: str, repulsion: Any, width: int, rate: float, steps: int, batch_size: int, decay: Any) -> Student:
    """One network with its training, or a subspace that is trained at random positions."""
    # The biases start at 0, and are trained.
    network = MLP((width, width), outputs=CLASSES, parameterisation="standard", bias_std=jnp.zeros(()))
    single = kind in ("network", "independent")
    return Student(
        network if single else Subspace(network, kind, CORNERS[kind]),  # pyright: ignore[reportArgumentType]
        cross_entropy if single else everywhere(cross_entropy, repulsion),
        OPTIMIZER,
        optax.cosine_decay_schedule(rate, steps),
        steps=steps,
        batch_size=batch_size,
        penalty=decay / 2,
    )


def path_of(kind: str, places: Float[Array, " k"]) -> Float[Array, "k ..."]:
    """Positions along the path: along a line or curve, or along the edge of a simplex from the first to the second corner."""
    return jnp.stack([1 - places, places, 0 * places], axis=1) if kind == "simplex" else places


def lattice(divisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Row i and column j of all pairs with i + j <= divisions, for the points (divisions - i - j, i, j) / divisions of a
    triangle."""
    return np.nonzero(  # pyright: ignore[reportReturnType]
        np.add.outer(np.arange(divisions + 1), np.arange(divisions + 1)) <= divisions
    )


def _cost(arguments: dict[str, Any]) -> Cost:
    width, kind = arguments["width"], arguments["kind"]
    # Two operations for each weight and row in the forward pass, and twice as many in the backward pass.
    network = 6.0 * width * (64 + width + CLASSES) * arguments["batch_size"]
    return Cost(network * arguments["steps"] * (2 if kind == "independent" else 1), 0.0)


@experiment(
    static=("kind", "steps", "width", "n", "test_points", "batch_size", "rate", "places", "divisions"),
    arguments=LearnedSubspacesArguments,
    x="place", y=("accuracy",), curve="kind", rates=False,
    metrics={
        **dict.fromkeys(("accuracy", "middle", "lowest", "ensemble"), Share(trials="test_points")),
        "ends": Share(trials="trials"), "cosine": Positive(), "variation": Positive(),
    },
    arrays={"triangle": ("row", "column")},
    cost=_cost, cite=WORTSMAN_SUBSPACES,
    labels={
        "place": "place between the two ends", "accuracy": "test accuracy", "ends": "test accuracy at the corners",
        "middle": "test accuracy in the middle", "lowest": "lowest test accuracy", "ensemble": "test accuracy of the ensemble",
        "cosine": "absolute cosine of corners", "variation": "total variation of corners", "network": "one network",
        "independent": "between independent networks", "line": "learned line", "curve": "learned curve",
        "simplex": "edge of a learned simplex", "noise": "label noise", "triangle": "test accuracy on the simplex",
    },
)  # fmt: skip
def learned_subspaces(
    key, *, kind, repulsion, noise, steps, width, n, test_points, batch_size, rate, decay, places, divisions
):
    """Trains networks of one kind on one split, and returns test accuracies, all by labels without noise.

    - `place`, `accuracy`: vectors along the line, the curve, the edge between two corners of the simplex, or the straight
      segment between two independent networks; for one network, the same accuracy at every place.
    - `ends`: the mean accuracy of the networks at the ends, or at the three corners of a simplex; `middle`: the accuracy of the
      network in the middle; `lowest`: the lowest accuracy along the path, or on the whole map of a simplex.
    - `ensemble`: the accuracy of the mean output of the networks of `ends`.
    - `cosine`: |cos| of the weights of two of these networks, averaged over pairs; `variation`: the total variation, (1/2)
      sum_c |p_c - q_c|, of their class probabilities, averaged over test points and pairs.
    - `triangle`: an array of the accuracies on a simplex; row i and column j hold that of the weights (divisions - i - j, i, j)
      / divisions, NaN outside.
    """
    split_key, noise_key, fit_key = jax.random.split(key, 3)
    train, test = problem_of(test_points).split(split_key, n, jnp.float32)
    classes = test.y.astype(jnp.int32)
    data = Dataset(x=train.x, y=with_noise(noise_key, train.y.astype(jnp.int32), noise))

    learner = student(kind, repulsion, width, rate, steps, batch_size, decay)
    if kind in ("network", "independent"):
        # One after the other, which compiles faster than an ensemble.
        fits = jax.lax.map(lambda own: learner.fit(own, data), jax.random.split(fit_key, CORNERS[kind]))
        # The straight segment between them; for one network, the network itself.
        found = SubspaceNetwork(fits.model, "line", CORNERS[kind])
        status = jnp.where(jnp.any(failed(fits.status)), Status.DIVERGED.value, fits.status[0])
    else:
        fit = learner.fit(fit_key, data)
        found, status = fit.model, fit.status

    # One loop over all positions: the path, the ends or corners and the middle, and the map of a simplex.
    place, row, column = jnp.linspace(0.0, 1.0, places, dtype=jnp.float32), *lattice(divisions)
    path = path_of(kind, place)
    ends = jnp.eye(3) if kind == "simplex" else jnp.arange(min(CORNERS[kind], 2))
    middle = jnp.full((1, 3), 1 / 3) if kind == "simplex" else jnp.full(1, 0.5)
    triangle = jnp.stack([divisions - row - column, row, column], axis=1) / divisions if kind == "simplex" else path[:0]
    parts = [path, *(part.astype(path.dtype) for part in (ends, middle, triangle))]
    outputs = jax.lax.map(lambda position: jax.vmap(found.at(position))(test.x), jnp.concatenate(parts))
    accuracies = jnp.mean((jnp.argmax(outputs, axis=-1) == classes[None]).astype(path.dtype), axis=1)
    borders = [places, places + len(ends), places + len(ends) + 1]
    on_path, at_ends, (in_middle,), on_triangle = jnp.split(accuracies, borders)
    corners = outputs[borders[0] : borders[1]]
    values: dict[str, Any] = {
        "place": place,
        "accuracy": on_path,
        "ends": jnp.mean(at_ends),
        "trials": jnp.asarray(test_points * len(ends)),
        "middle": in_middle,
        "lowest": jnp.min(on_triangle if kind == "simplex" else on_path),
        "ensemble": accuracy_of(jnp.mean(corners, axis=0), classes),
    }
    if kind == "simplex":
        whole = jnp.full((divisions + 1, divisions + 1), jnp.nan, on_triangle.dtype)
        values["triangle"] = whole.at[row, column].set(on_triangle)
    if kind != "network":
        first, second = np.triu_indices(len(ends), 1)
        shares = jax.nn.softmax(corners)
        values["variation"] = 0.5 * jnp.mean(jnp.sum(jnp.abs(shares[first] - shares[second]), axis=-1))
        # The control point of a curve is the second of three.
        cosine = lambda i, j: jnp.abs(found.cosine(2 * i, 2 * j) if kind == "curve" else found.cosine(i, j))
        values["cosine"] = jnp.mean(jnp.stack([cosine(int(i), int(j)) for i, j in zip(first, second, strict=True)]))
    return {"status": status, **values}
