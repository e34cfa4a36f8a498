r"""The exact kernel of a step of gradient descent, beside the NTK and higher orders (after Shilton et al., arXiv:2405.15254).

The network is f(x) = sum_{r <= M} a_r phi(<w_r, x>) with a_r ~ N(0, 1/M), w_r ~ N(0, I); W is trained and a is fixed. A
gradient step of size eta on (1/2) sum_i (f(x_i) - y_i)^2, with residuals r_i, moves the pre-activation of neuron r at x by

    delta_r(x) = -eta sum_i r_i a_r phi'(<w_r, x_i>) <x_i, x>,

and the function by -eta sum_i r_i K(x, x_i), with the kernel of this step

    K(x, x_i) = <x, x_i> sum_r a_r^2 phi'(<w_r, x_i>) S_r(x).

- exact: S_r is the slope of the secant, [phi(z + delta) - phi(z)] / delta at z = <w_r, x>, delta = delta_r(x).
- order L: S_r is its Taylor polynomial, sum_{l <= L} phi^(l)(z) delta^(l-1) / l!. L = 1 is the NTK of W.

The paper uses Hermite series, for networks of any depth. Secants and Taylor polynomials are our restatement for two layers. The
kernel of secants is exact by an identity; the study checks it against the steps that the trainer takes.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from ..activations import Activation, relu
from ..estimators.student import Student
from ..network import TwoLayer
from ..optim import counter_normals
from ..rates.kinds import Positive
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from ..task import Dataset
from .citations import SHILTON_EXACT_REPRESENTORS

ACTIVATIONS = {"tanh": Activation(function=jnp.tanh, parity="odd"), "relu": relu}
ORDERS: dict[str, int | None] = {"order_1": 1, "order_2": 2, "order_3": 3, "exact": None}
"""The kernels, by name: the order L of the Taylor polynomial, or None for the secant."""


class ExactRepresentorsArguments(Arguments):
    """One kernel of one network. `eta` is the step size for the loss summed over the n points, `steps` is the number k of
    steps, and `width` is M."""

    form: Literal[tuple(ORDERS)]  # pyright: ignore[reportInvalidTypeForm]
    activation: Literal[tuple(ACTIVATIONS)] = "tanh"  # pyright: ignore[reportInvalidTypeForm]
    eta: Annotated[float, Field(gt=0)] = 0.1
    width: Annotated[int, Field(ge=1)] = 200
    steps: Annotated[int, Field(ge=1)] = 1
    d: Annotated[int, Field(ge=1)] = 5
    n: Annotated[int, Field(ge=1)] = 20
    test_points: Annotated[int, Field(ge=1)] = 200


def normals(key: PRNGKeyArray, stream: int, rows: int, d: int) -> Float[Array, "rows d"]:
    """Standard normals in float64, from `counter_normals`, since each call of `jax.random.normal` takes long to compile."""
    part = jnp.asarray(stream, jnp.int32)
    return counter_normals(jr.key_data(key)[:2], part, rows * d, jnp.float64).reshape(rows, d)


class Start(eqx.Module):
    """The initialisation of the network: a_r ~ N(0, 1/M), w_r ~ N(0, I)."""

    width: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, point: int) -> TwoLayer:
        rows = normals(key, 1, self.width, point + 1)
        return TwoLayer(rows[:, 0] / self.width**0.5, rows[:, 1:], ACTIVATIONS[self.activation])


def derivative(phi: Callable[[Array], Array], order: int) -> Callable[[Array], Array]:
    """phi^(order), elementwise, by forward differentiation."""
    for _ in range(order):
        phi = lambda z, lower=phi: jax.jvp(lower, (z,), (jnp.ones_like(z),))[1]
    return phi


class StepKernel(eqx.Module):
    """K of a step that moves the neurons of `network` by `moves` (module docstring); `order` is L, None for the secant."""

    network: TwoLayer
    moves: Float[Array, "M d"]
    order: int | None = eqx.field(static=True)

    def slopes(self, x: Float[Array, "k d"]) -> Float[Array, "k M"]:
        """S_r(x): the secants of the activation from <w_r, x> to <w_r, x> + delta_r(x), or their Taylor polynomials."""
        phi = self.network.activation
        z, delta = (jnp.matmul(x, rows.T, precision="highest") for rows in (self.network.w, self.moves))
        if self.order is not None:
            orders = range(1, self.order + 1)
            return sum(
                (derivative(phi, k)(z) * delta ** (k - 1) / math.factorial(k) for k in orders), jnp.zeros_like(z)
            )
        # A neuron that is inactive at all training points does not move, so its secant is the tangent.
        still = delta == 0
        return jnp.where(still, derivative(phi, 1)(z), (phi(z + delta) - phi(z)) / jnp.where(still, 1.0, delta))

    def __call__(self, x: Float[Array, "k d"], z: Float[Array, "n d"]) -> Float[Array, "k n"]:
        """K(x, z) for z among the training points. It is symmetric only for L = 1."""
        times = lambda u, v: jnp.matmul(u, v.T, precision="highest")
        reached = derivative(self.network.activation, 1)(times(z, self.network.w))
        return times(x, z) * times(self.slopes(x) * self.network.a[None] ** 2, reached)


class Representor(eqx.Module):
    """A probe before every step: it maps a network to its `change` at `points` in the next step, -eta sum_i r_i K(x, x_i)."""

    data: Dataset
    points: Float[Array, "k d"]
    eta: Float[Array, ""]
    order: int | None = eqx.field(static=True)

    def kernel(self, network: TwoLayer) -> StepKernel:
        """The kernel of the next step. The moves -eta a_r sum_i r_i phi'(<w_r, x_i>) x_i are computed here, not taken from the
        trainer."""
        x = self.data.x
        reached = derivative(network.activation, 1)(jnp.matmul(network.w, x.T, precision="highest"))
        pull = network.a[:, None] * reached * self.residuals(network)[None]
        return StepKernel(network, -self.eta * jnp.matmul(pull, x, precision="highest"), self.order)

    def residuals(self, network: TwoLayer) -> Float[Array, " n"]:
        """f(x_i) - y_i."""
        return network.samples_last(self.data.x.T) - self.data.y

    def __call__(self, network: TwoLayer) -> dict[str, Array]:
        weights = -self.eta * self.residuals(network)
        return {"change": jnp.matmul(self.kernel(network)(self.points, self.data.x), weights, precision="highest")}


def drawn(key: PRNGKeyArray, d: int, n: int, test_points: int) -> tuple[Dataset, Float[Array, "k d"]]:
    """n points with y = sin(3 x_1), and the points at which functions are compared; x ~ N(0, I/d), in float64."""
    x = normals(key, 0, n + test_points, d) / d**0.5
    return Dataset(x=x[:n], y=jnp.sin(3.0 * x[:n, 0])), x[n:]


def _theory_in_eta(arguments: dict[str, Any], x: np.ndarray) -> Theory:
    order = ORDERS[arguments["form"]]
    # With relu the error is not a power of eta: the number of neurons that cross the kink grows with the step.
    if order is None or arguments["activation"] == "relu":
        return Theory()
    return Theory(exponent=-float(order), source="the first term that is left out")


def _theory_in_width(arguments: dict[str, Any], x: np.ndarray) -> Theory:
    """Term l of the change is sum_r a_r delta_r^l phi^(l) / l!, delta_r ~ a_r ~ M^-1/2: of order M^((1-l)/2), and smaller by a
    factor M^-1/2 for even l, where the random sign of a_r remains. About sqrt(M) relu neurons cross the kink, with the random
    sign of a_r too."""
    known = {("tanh", "order_1"): 1.0, ("tanh", "order_2"): 1.0, ("tanh", "order_3"): 2.0, ("relu", "order_1"): 0.75}
    exponent = known.get((arguments["activation"], arguments["form"]))
    return Theory() if exponent is None else Theory(exponent=exponent, source="moments of a_r, derived here")


def _cost(arguments: dict[str, Any]) -> Cost:
    n, points, d = (arguments[name] for name in ("n", "test_points", "d"))
    return Cost(2.0 * arguments["steps"] * arguments["width"] * (2 * d * (points + 4 * n) + n * points))


@experiment(
    static=("form", "activation", "width", "steps", "d", "n", "test_points"),
    arguments=ExactRepresentorsArguments,
    x="eta", y=("error",), curve="form",
    metrics={"error": Positive(), "change": Positive()},
    theory=_theory_in_eta, cost=_cost, rates=False, cite=SHILTON_EXACT_REPRESENTORS,
    labels={
        "eta": "step size eta", "width": "width M", "steps": "gradient steps k", "relu": "ReLU",
        "error": "error relative to the change", "change": "change of the function",
        "order_1": "order 1 (NTK)", "order_2": "order 2", "order_3": "order 3",
    },
)  # fmt: skip
def exact_representors(key, *, form, activation, eta, width, steps, d, n, test_points):
    """Trains W for `steps` steps, and compares the change of the function with the sum of the changes that the kernel of each
    step predicts.

    - `error`: |predicted - true| / |true|, with norms over `test_points` fresh points. The true change is f_k - f_0, between
      the networks with which `tsjax.Student` starts and ends, in float64.
    - `change`: the root mean square of f_k - f_0.
    """
    data, points = drawn(key, d, n, test_points)
    # The trainer's loss is a mean over the points, while eta belongs to the sum.
    student = Student(
        Start(width, activation), learning_rate=eta * n, steps=steps, trainable=lambda leaf: jnp.ndim(leaf) == 2
    )
    start = student.init(key, data.x)
    probe = Representor(data, points, jnp.asarray(eta, jnp.float64), ORDERS[form])
    fit = student.fit(key, data, start=start, probe=probe, probe_at=tuple(range(steps)))
    change = fit.predict(points) - start.samples_last(points.T)
    predicted = jnp.sum(fit.stats["trajectory"]["change"], axis=0)
    error, size = jnp.linalg.norm(predicted - change), jnp.linalg.norm(change)
    return {"status": fit.status, "error": error / size, "change": size / test_points**0.5}


against_width = dataclasses.replace(
    exact_representors, name="exact_representors_width", x="width", theory=_theory_in_width
)
"""The same cells, plotted against the width."""
